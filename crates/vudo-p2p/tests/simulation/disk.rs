//! The disks that lose their power under the replicas, of two kinds.
//!
//! ```text
//! whole: engine --> Storage = CrashingDisk           a commit is there, or it is not
//! files: engine --> NativeStorage (journal, pages)   what was not synced is lost, or torn
//!                       `--> CrashingFiles
//! ```
//!
//! The first is quick and lets the power go between any two commits. The second shows that a store
//! has synced what it tells its peers that it holds.

use std::sync::Arc;

use vudo_state::storage::{NativeStorage, Storage, StorageError, WriteBatch};
use vudo_testkit::files::{CrashingFiles, Failure};
use vudo_testkit::{CrashingDisk, PowerLoss, Random};

use crate::on_disk::OnDisk;

/// Of so many seeds one runs on files.
const SEEDS_ON_FILES: usize = 4;

/// Which disks the replicas of a world have. The numbers come from the seed alone, so that nothing else
/// of a world depends on it.
pub(crate) struct Disks(Option<Random>);

impl Disks {
    pub(crate) fn of_seed(seed: u64) -> Disks {
        let mut random = Random::new(!seed);
        Disks(random.one_in(SEEDS_ON_FILES).then_some(random))
    }

    /// Whether crashes tear what was not synced.
    pub(crate) fn are_files(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn new_disk(&mut self) -> Disk {
        match &mut self.0 {
            None => Disk::Whole(Arc::default()),
            Some(random) => {
                let (files, random) = (random.next_u64(), Random::new(random.next_u64()));
                Disk::Files { files: CrashingFiles::new(files), random, is_off: false }
            }
        }
    }
}

/// The disk of one replica.
pub(crate) enum Disk {
    Whole(Arc<CrashingDisk>),
    Files { files: CrashingFiles, random: Random, is_off: bool },
}

impl Disk {
    /// The engine's view of it.
    ///
    /// # Panics
    /// Where files do not open: whatever a crash leaves of them is a store.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        match self {
            Disk::Whole(disk) => Arc::new(WholeCommits(disk.clone())),
            Disk::Files { files, .. } => {
                let opened = NativeStorage::open(OnDisk(files.clone()));
                Arc::new(opened.expect("files open after every crash"))
            }
        }
    }

    /// Another disk with what is on this one.
    pub(crate) fn copy(&mut self) -> Disk {
        match self {
            Disk::Whole(disk) => Disk::Whole(Arc::new(disk.copy())),
            Disk::Files { files, random, .. } => {
                let (files, random) =
                    (files.copy(random.next_u64()), Random::new(random.next_u64()));
                Disk::Files { files, random, is_off: false }
            }
        }
    }

    /// Whether nothing can be read or written.
    pub(crate) fn is_off(&self) -> bool {
        match self {
            Disk::Whole(disk) => disk.is_off(),
            Disk::Files { files, is_off, .. } => *is_off || files.is_gone(),
        }
    }

    /// Takes the power away while something is being written, soon.
    pub(crate) fn power_off_soon(&mut self, world_random: &mut Random) {
        let commits_before = world_random.below(4) as u64;
        let reaches_disk = world_random.one_in(2);
        match self {
            Disk::Whole(disk) => disk.power_off_during_commit(commits_before, reaches_disk),
            Disk::Files { files, random, .. } => {
                // A commit to the journal is two or three calls, one to the pages some dozens.
                let calls_max = if random.one_in(2) { 10 } else { 100 };
                let calls_before = random.below(calls_max);
                files.fail(Some(Failure::From(files.call_count() + calls_before as u64)));
            }
        }
    }

    /// Whether the store is closed before the power goes, which takes what is in the journal to the
    /// pages. The power may go in the midst of that.
    pub(crate) fn is_closed_first(&mut self) -> bool {
        let Disk::Files { files, random, is_off: false } = self else { return false };
        if !random.one_in(3) {
            return false;
        }
        if random.one_in(2) && !files.is_gone() {
            files.fail(Some(Failure::From(files.call_count() + random.below(40) as u64)));
        }
        true
    }

    /// Takes the power away, now.
    pub(crate) fn power_off(&mut self) {
        match self {
            Disk::Whole(disk) => disk.power_off(),
            Disk::Files { is_off: true, .. } => {}
            Disk::Files { files, random, is_off } => {
                *is_off = true;
                // Sometimes only the process ends, and the system writes what it was given.
                *files = if random.one_in(4) { files.kill_process() } else { files.crash() };
            }
        }
    }

    /// Gives the power back, for good: a loss that was still to come does not.
    pub(crate) fn power_on(&mut self) {
        match self {
            Disk::Whole(disk) => disk.power_on(),
            Disk::Files { files, is_off, .. } => {
                *is_off = false;
                files.fail(None);
            }
        }
    }
}

/// Storage whose commits reach the disk as a whole or not at all.
struct WholeCommits(Arc<CrashingDisk>);

fn power_loss(error: PowerLoss) -> StorageError {
    StorageError::new(error.to_string())
}

fn writes_of(batch: &WriteBatch) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let writes = batch.writes.iter();
    let owned = |(key, value): &(Vec<u8>, Option<vudo_state::storage::Value>)| {
        (key.clone(), value.as_ref().map(|value| value.bytes.clone()))
    };
    writes.map(owned).collect()
}

impl Storage for WholeCommits {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.0.get(key).map_err(power_loss)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.0.scan(from, to, visit).map_err(power_loss)
    }

    fn commit(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.0.commit(&writes_of(batch)).map_err(power_loss)
    }

    /// The work comes before the disk has the batch or after that, as the batch will have it.
    fn commit_while(&self, batch: &WriteBatch, work: &mut dyn FnMut()) -> Result<(), StorageError> {
        let sum: u64 =
            batch.writes.iter().flat_map(|(key, _)| key).map(|byte| u64::from(*byte)).sum();
        if sum.is_multiple_of(2) {
            work();
            return self.commit(batch);
        }
        let committed = self.commit(batch);
        work();
        committed
    }

    fn commit_later(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.0.commit_later(&writes_of(batch)).map_err(power_loss)
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
