//! Sealing what a store has written while a part of its log is replaced.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
use vudo_state::storage::{MemoryStorage, Storage, StorageError, WriteBatch};
use vudo_state::{
    BranchOutcome, Database, OpenOptions, PartCursor, PartRequest, Replication, SystemEnvironment,
};

type Meanwhile = Box<dyn FnOnce() + Send>;

/// A disk that does something once, before a batch of nothing but segments gets there.
#[derive(Default)]
struct Disk {
    inner: MemoryStorage,
    before_segments: Mutex<Option<Meanwhile>>,
}

impl Storage for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.inner.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.inner.scan(from, to, visit)
    }

    fn commit(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        if batch.writes.iter().all(|(key, _)| key.starts_with(b"s")) {
            let meanwhile = self.before_segments.lock().unwrap().take();
            if let Some(meanwhile) = meanwhile {
                meanwhile();
            }
        }
        self.inner.commit(batch)
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

fn open(disk: &Arc<Disk>) -> Database {
    // Small segments, so that what was written a moment ago is in one that has ended.
    let options = OpenOptions { segment_bytes: 300, ..OpenOptions::default() };
    let environment = Arc::new(SystemEnvironment);
    Database::with_environment(disk.clone(), None, environment, &options).unwrap()
}

fn copy_of(disk: &Disk) -> Arc<Disk> {
    let (copy, mut image) = (Disk::default(), WriteBatch::default());
    let mut take = |key: &[u8], value: &[u8]| {
        image.put(key.to_vec(), value.to_vec());
        true
    };
    disk.scan(&[], &[0xff], &mut take).unwrap();
    copy.inner.commit(&image).unwrap();
    Arc::new(copy)
}

fn note() -> GenSchema {
    let text = FieldSchema::new("text", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Note", [text])
}

fn write(database: &Database, key: &str) {
    database.create(&note(), &database.document_id(key), &[("text", key.into())]).unwrap();
}

fn delete(database: &Database, key: &str) {
    database.delete(&note(), &database.document_id(key)).unwrap();
}

fn replication(database: &Database) -> Replication {
    database.replication("default").unwrap()
}

fn pass_on(from: &Database, to: &Database) {
    let (from, to) = (replication(from), replication(to));
    while let Some(frame) = from.frame_since(&to.durable_vector(), 600).unwrap() {
        to.apply_frame(&frame.bytes).unwrap();
    }
}

/// Where in the log the entries of this kind are.
fn positions(disk: &Disk, kind: &[u8]) -> Vec<u64> {
    let mut positions = Vec::new();
    let mut take = |key: &[u8], _: &[u8]| {
        positions.push(u64::from_be_bytes(*key.last_chunk().unwrap()));
        true
    };
    disk.scan(kind, &[kind[0] + 1], &mut take).unwrap();
    positions
}

/// Does something while a store that seals its changes is about to write the segments with the seals.
fn while_sealing<T>(disk: &Disk, store: &Database, work: impl FnOnce() -> T) -> T {
    let (reached, is_reached) = channel();
    let (done, is_done) = channel();
    *disk.before_segments.lock().unwrap() = Some(Box::new(move || {
        reached.send(()).unwrap();
        // The work waits for the sealing, so this is not awaited in full.
        is_done.recv_timeout(Duration::from_millis(300)).ok();
    }));
    let sealing = replication(store);
    let sealing = std::thread::spawn(move || sealing.signed_head());
    is_reached.recv_timeout(Duration::from_secs(20)).expect("there are segments to seal");
    let outcome = work();
    done.send(()).ok();
    sealing.join().unwrap().unwrap();
    outcome
}

/// Sealing reads segments, signs, and writes them. A branch that came in between has taken the seals of
/// the other one out of them.
#[test]
fn sealing_does_not_write_back_the_seals_of_a_branch_that_has_lost() {
    let mut taken_count = 0;
    // Which of two branches stands is decided by their hashes.
    while taken_count < 3 {
        let (original, disk) = (Arc::<Disk>::default(), Arc::<Disk>::default());
        let (one, store) = (open(&original), open(&disk));
        write(&one, "both");
        let other = open(&copy_of(&original));
        for number in 0..4 {
            write(&one, &format!("one {number}"));
            write(&store, &format!("own {number}"));
            pass_on(&one, &store);
        }
        (4..12).for_each(|number| write(&store, &format!("own {number}")));
        write(&other, "other");
        let branch = replication(&other).branch_from(&other.replica_key(), 2).unwrap();

        // What sealing gives may be older than the branch, which a session finds out.
        let outcome =
            while_sealing(&disk, &store, || replication(&store).apply_branch(&branch).unwrap());
        let report = store.verify().unwrap();
        assert_eq!(report.damages, [""; 0]);
        assert!(report.signatures > 0);
        taken_count += usize::from(outcome == BranchOutcome::Taken);
        let third = Database::open_in_memory().unwrap();
        pass_on(&store, &third);
        assert_eq!(
            replication(&third).fingerprint().unwrap(),
            replication(&store).fingerprint().unwrap()
        );
    }
}

/// A checkpoint that is taken moves the log, and with it the segments that are being sealed.
#[test]
fn sealing_does_not_write_back_segments_from_before_a_checkpoint() {
    let giver = open(&Arc::default());
    (0..30).for_each(|number| write(&giver, &format!("given {number}")));
    (0..30).for_each(|number| delete(&giver, &format!("given {number}")));
    assert!(giver.compact().unwrap().dropped_changes > 0);
    let disk = Arc::<Disk>::default();
    let store = open(&disk);
    (0..12).for_each(|number| write(&store, &format!("own {number}")));

    let (peer, giver_of) = (giver.replica_key(), replication(&giver));
    let offer = giver_of.checkpoint_offer().expect("its log has been compacted");
    let mut request = replication(&store).begin_catching_up(&peer, &offer).unwrap();
    assert_eq!(
        request,
        Some(PartRequest { checkpoint: offer.id(), cursor: PartCursor::default() })
    );
    while_sealing(&disk, &store, || {
        while let Some(wanted) = request.take() {
            let part = giver_of.checkpoint_part(&wanted).unwrap().expect("it is the same one");
            request = replication(&store).take_part(&peer, &part).unwrap();
        }
    });
    let report = store.verify().unwrap();
    assert_eq!(report.damages, [""; 0]);
    let log = positions(&disk, b"l");
    let left = positions(&disk, b"s").into_iter().filter(|end| !log.contains(end));
    assert_eq!(left.collect::<Vec<u64>>(), [], "segments of a log that is not there any more");
    let frames = [(&giver, &store), (&store, &giver)];
    frames.iter().for_each(|(from, to)| pass_on(from, to));
    let states = [&giver, &store].map(|database| replication(database).fingerprint().unwrap());
    assert_eq!(states[0], states[1]);
}
