//! Compaction: dropping changes that the state does not need any more, while the store goes on.
//!
//! ```text
//! freeze --> mark --> checkpoint --> sweep --> shrink
//!   |          |          |            |          `- the file gives back what is free
//!   |          |          |            `- records are written anew without what is dropped
//!   |          |          `- signed and on disk: from here on it is the floor of the log
//!   |          `- which changes the frozen state, or a pin, still refers to
//!   `- the tables as they are on disk at one moment; their chunks stay until the end
//! ```
//!
//! **The idea.** What may be dropped is decided by the state at a checkpoint, not by the state of now:
//! what was superseded since is needed again if what superseded it is set aside. The tables on disk
//! are such a state, as long as the chunks that later ones replace are kept.
//!
//! **Ownership.** One compaction of a namespace at a time. It reads without holding anything; each
//! step of it is short, and writers and readers go on between steps and during most of them.
//!
//! **Owners.** In a namespace with owners only their stores compact, and each gives a checkpoint first,
//! which is a change like any other: see [`crate::rights`]. The frozen state is the one that it judges.
//! Nothing that is set aside is dropped there, and no record of rights.
//!
//! **The invariant.** A change leaves the log only when the floor that covers it is on disk, and with
//! it the hashes that take the place of its leaf.
//!
//! **Recovery.** A crash leaves a log from which some of what may go has gone. The next compaction
//! drops the rest, and the chunks that nobody refers to any more.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use ed25519_dalek::Signer;
use vudo_crdt::checkpoint::{Checkpoint, SignedCheckpoint};
use vudo_crdt::limits::MAX_VECTOR_REPLICAS;
use vudo_crdt::merkle::{MerkleLog, leaf_hash};
use vudo_crdt::{
    Change, ChunkId, GenIndex, LogSource, Namespace, PagesError, Ranges, ReplicaIndex, ReplicaKey,
    StateRoot, VersionVector,
};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::floor::{Floor, ReplicaLog, replace_nodes};
use crate::layout;
use crate::limits::{COMPACTION_MEMORY_BYTES, COMPACTION_STEP_BYTES};
use crate::recovery::{
    StoredLog, open_namespace, table_checkpoint, unknown_replica, visit_changes,
};
use crate::rights::{NotCompacted, RIGHTS_GEN};
use crate::seals::{SealsByReplica, for_each_segment};
use crate::shard::{RECORD_BYTES_MAX, Shard};
use crate::storage::{StorageError, WriteBatch};
use crate::stored_chunks::StoredChunks;

/// What a compaction has freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactionReport {
    /// Namespaces that were looked at.
    pub namespaces: u64,
    /// Changes that their logs held.
    pub changes: u64,
    /// How many of them were dropped.
    pub dropped_changes: u64,
    /// How many bytes the changes took up in the log.
    pub log_bytes: u64,
    /// How many of those bytes were freed.
    pub freed_log_bytes: u64,
    /// How many bytes the store took up on disk before.
    pub disk_bytes_before: u64,
    /// How many bytes it takes up now.
    pub disk_bytes: u64,
    /// Whether the file gave back what is free in it. It does not where somebody read through it all
    /// the time; what is free is used again then.
    pub is_shrunk: bool,
    /// Namespaces with owners that stayed as they are, and why.
    pub left_alone: Vec<(String, NotCompacted)>,
}

/// What a compaction is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionStage {
    /// Finding out which changes are still needed.
    Marking,
    /// Dropping the others.
    Sweeping,
    /// Giving back what is free.
    Shrinking,
}

/// How far a compaction has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionProgress {
    /// The namespace; empty where it is about the whole store.
    pub namespace: String,
    /// What is being done.
    pub stage: CompactionStage,
    /// How many positions of the log this stage has passed.
    pub done_count: u64,
    /// Of how many.
    pub total_count: u64,
}

/// A compaction of a whole store, step by step. Dropping it in between leaves a store that is in
/// order, from which not everything has gone yet.
pub struct Compaction {
    database: Database,
    /// Namespaces that are to be compacted, the next one last.
    left: Vec<String>,
    current: Option<Underway>,
    report: CompactionReport,
    is_over: bool,
}

impl Database {
    /// Drops the changes of all namespaces that their states and pins do not need any more, and gives
    /// the freed bytes back to the file system. The store can be read and written to meanwhile. Of
    /// namespaces with owners it compacts those that this store's key owns, or an owner has certified it
    /// for; [`CompactionReport::left_alone`] names the others.
    ///
    /// A checkpoint of each namespace is signed with this store's key. What it judges stands: what is set
    /// aside below it stays so, and no revocation reaches below it. A peer that does not hold everything below
    /// cannot go on from the log afterwards, and takes the checkpoint instead: see
    /// [`crate::Replication::begin_catching_up`].
    ///
    /// # Errors
    /// The disk failed, something in the store is damaged, or another compaction is going on.
    pub fn compact(&self) -> Result<CompactionReport> {
        let mut compaction = self.compaction()?;
        while compaction.step()?.is_some() {}
        Ok(compaction.report)
    }

    /// Begins what [`Database::compact`] does, to be done step by step.
    ///
    /// # Errors
    /// The disk failed.
    pub fn compaction(&self) -> Result<Compaction> {
        self.write_out()?;
        let mut left = self.namespaces()?;
        left.reverse();
        let disk_bytes = self.disk_bytes();
        let report = CompactionReport {
            disk_bytes_before: disk_bytes,
            disk_bytes,
            ..CompactionReport::default()
        };
        let database = self.clone();
        Ok(Compaction { database, left, current: None, report, is_over: false })
    }
}

impl Compaction {
    /// Does a step, which takes some milliseconds in most cases. Gives how far that is; `None` where
    /// there is nothing left to do.
    ///
    /// # Errors
    /// As for [`Database::compact`]. What has been dropped stays dropped.
    pub fn step(&mut self) -> Result<Option<CompactionProgress>> {
        self.database.check_outside()?;
        if self.current.is_none()
            && let Some(name) = self.left.pop()
        {
            let shard = self.database.in_namespace(&name).shard()?;
            match Underway::begin(shard, self.database.environment().now_milliseconds())? {
                Ok(underway) => self.current = Some(underway),
                Err(why) => {
                    self.report.left_alone.push((name.clone(), why));
                    let stage = CompactionStage::Marking;
                    let (namespace, done_count, total_count) = (name, 1, 1);
                    return Ok(Some(CompactionProgress {
                        namespace,
                        stage,
                        done_count,
                        total_count,
                    }));
                }
            }
            self.report.namespaces += 1;
        }
        let Some(underway) = &mut self.current else {
            return self.shrink();
        };
        let progress = underway.progress();
        match underway.step()? {
            Outcome::GoesOn => {}
            Outcome::Over => {
                underway.count(&mut self.report);
                let shard = underway.frozen.shard().clone();
                self.current = None;
                shard.remove_released_chunks()?;
            }
            Outcome::JudgedMeanwhile => {
                // What was marked may not be what is needed now.
                self.left.push(progress.namespace.clone());
                self.report.namespaces -= 1;
                self.current = None;
            }
        }
        Ok(Some(progress))
    }

    fn shrink(&mut self) -> Result<Option<CompactionProgress>> {
        if self.is_over {
            return Ok(None);
        }
        self.report.is_shrunk = self.database.storage().shrink()?;
        self.report.disk_bytes = self.database.disk_bytes();
        self.is_over = true;
        Ok(Some(CompactionProgress {
            namespace: String::new(),
            stage: CompactionStage::Shrinking,
            done_count: 1,
            total_count: 1,
        }))
    }

    /// What has been freed so far.
    pub fn report(&self) -> &CompactionReport {
        &self.report
    }
}

/// What comes after a step.
enum Outcome {
    GoesOn,
    Over,
    /// Something else is set aside than when the state was frozen.
    JudgedMeanwhile,
}

/// Keeps the chunks that are replaced, until it is dropped.
struct KeptChunks(Arc<Shard>);

impl Drop for KeptChunks {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let kept = state.kept_chunks.take().unwrap_or_default();
        // The next checkpoint removes them.
        state.released_chunks.extend(kept);
    }
}

/// The state of a namespace as it was on disk at one moment, and its log up to there.
struct Frozen {
    kept: KeptChunks,
    namespace: Namespace,
    /// By replica index.
    logs: Vec<MerkleLog>,
    seals: SealsByReplica,
    /// The first position above.
    end: u64,
    judgement_count: u64,
    /// Where the namespace has owners, the Gen of their records, of which none is dropped, and nothing
    /// that is set aside.
    rights_gen: Option<GenIndex>,
    /// An earlier compaction has been through the records below this position.
    packed_below: u64,
    /// Where an earlier compaction did not come to its end: chunks below this id that the tables do
    /// not have are left over from it.
    left_over_below: Option<ChunkId>,
}

/// The state at a pin.
struct Pinned {
    /// By replica index.
    covered: Vec<u64>,
    namespace: Namespace,
}

/// The compaction of one namespace.
struct Underway {
    frozen: Frozen,
    pins: Vec<Pinned>,
    /// By replica index.
    logs: Vec<ReplicaLog>,
    /// By replica index: the changes that stay.
    retained: Vec<Ranges>,
    change_count: u64,
    dropped_count: u64,
    byte_count: u64,
    freed_bytes: u64,
    stage: CompactionStage,
    position: u64,
}

/// The log below a position.
struct LogBelow<'a> {
    log: StoredLog<'a>,
    end: u64,
}

impl Shard {
    /// Removes the chunks that a compaction has kept.
    fn remove_released_chunks(&self) -> Result<()> {
        let (turn, state) = self.turn();
        drop(state);
        self.checkpoint()?;
        let mut batch = WriteBatch::default();
        batch.remove(layout::compacting(self.id()));
        self.storage().commit(&batch)?;
        drop(turn);
        Ok(())
    }
}

impl LogSource for LogBelow<'_> {
    type Error = Error;

    fn visit(&mut self, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        self.log.visit_range(0, self.end, visit).map(|_| ())
    }
}

impl Frozen {
    /// Writes everything out, and takes the tables as they are on disk then. Where the namespace has
    /// owners, it gives a checkpoint of them.
    fn of(
        shard: &Arc<Shard>,
        now_milliseconds: u64,
    ) -> Result<std::result::Result<Frozen, NotCompacted>> {
        // The state is let go before the turn, which must not end with the state locked.
        let (turn, mut state) = shard.turn();
        if state.kept_chunks.is_some() {
            return Err(Error::CompactionRuns { namespace: shard.name.to_string() });
        }
        if let Some(why) = shard.may_compact(&mut state)? {
            return Ok(Err(why));
        }
        // Below rows that have not moved yet the chunks hold what has been deleted since.
        state.namespace.move_rows_to_chunks(&mut shard.chunks())?;
        state.kept_chunks = Some(Vec::new());
        let has_owners = state.rights.is_some();
        drop(state);
        let kept = KeptChunks(shard.clone());
        shard.checkpoint()?;
        let ended = shard.end_log()?;
        let judgement_count = shard.lock().judgement_count;
        // Nothing has come to the disk meanwhile: the turn is ours.
        let (storage, id) = (shard.storage(), shard.id());
        let (namespace, _) = open_namespace(&shard.name, id, storage, 0)?;
        let is_unfinished = storage.get(&layout::compacting(id))?.is_some();
        let next_chunk = table_checkpoint(&shard.name, id, storage)?.next_chunk;
        let mut batch = WriteBatch::default();
        batch.put(layout::compacting(id), Vec::new());
        storage.commit(&batch)?;
        if has_owners && let Some(why) = shard.give_checkpoint(&namespace, now_milliseconds)? {
            return Ok(Err(why));
        }
        drop(turn);
        shard.flush_all()?;
        let rights_gen = namespace.find_gen(RIGHTS_GEN).filter(|_| has_owners);
        let floor = Floor::read(&shard.name, id, storage)?;
        let packed_below = floor.as_ref().map_or(0, |floor| floor.position);
        let mut seals = floor.map_or_else(SealsByReplica::new, |floor| floor.seals);
        for_each_segment(id, storage, 0, ended.end, |_, segment| {
            seals.extend(segment.seals);
            true
        })?;
        seals.extend(ended.own_seal);
        let left_over_below = is_unfinished.then_some(next_chunk);
        let (mut logs, end) = (ended.logs, ended.end);
        logs.resize(namespace.replicas().keys().len(), MerkleLog::new());
        Ok(Ok(Frozen {
            kept,
            namespace,
            logs,
            seals,
            end,
            judgement_count,
            rights_gen,
            packed_below,
            left_over_below,
        }))
    }

    fn shard(&self) -> &Arc<Shard> {
        &self.kept.0
    }

    fn state_root(&self) -> Result<StateRoot> {
        let shard = self.shard();
        let mut chunks = StoredChunks::of_storage(shard.storage(), shard.id());
        let written = self.namespace.write_pages(&mut chunks, |_| Ok::<(), StorageError>(()));
        written.map_err(|error| match error {
            PagesError::Chunk(error) => error.into(),
            PagesError::Page(error) => Error::Storage(error),
            _ => Error::DocumentTooLarge { namespace: shard.name.to_string() },
        })
    }

    /// The checkpoint of this state, signed with the store's key.
    fn sign(&self) -> Result<SignedCheckpoint> {
        let shard = self.shard();
        let keys = self.namespace.replicas().keys();
        let mut logs: Vec<(ReplicaKey, MerkleLog)> = (keys.iter().copied().zip(&self.logs))
            .filter(|(_, log)| log.length() > 0)
            .map(|(key, log)| (key, log.clone()))
            .collect();
        logs.sort_unstable_by_key(|(key, _)| *key);
        let mut set_aside = Vec::new();
        for (replica, (key, log)) in keys.iter().zip(&self.logs).enumerate() {
            let ranges = self.namespace.set_aside(replica as ReplicaIndex);
            let below = join_at(log.length(), ranges, &Ranges::new());
            if !below.is_empty() {
                set_aside.push((*key, below));
            }
        }
        set_aside.sort_unstable_by_key(|(key, _)| *key);
        let namespace = shard.name.to_string();
        let checkpoint = Checkpoint { namespace, logs, set_aside, state: self.state_root()? };
        let signature = shard.key.sign(&checkpoint.bytes_to_sign()).to_bytes();
        let owner = ReplicaKey(shard.key.verifying_key().to_bytes());
        Ok(SignedCheckpoint { checkpoint, owner, signature })
    }

    /// Removes the chunks that an interrupted compaction has left over.
    fn remove_left_over(&self) -> Result<()> {
        let Some(below) = self.left_over_below else { return Ok(()) };
        let (storage, id) = (self.shard().storage(), self.shard().id());
        let known: BTreeSet<ChunkId> = self.namespace.stored_chunks().collect();
        let mut batch = WriteBatch::default();
        storage.scan(&layout::chunk(id, 0), &layout::chunk(id, below), &mut |key, _| {
            if !known.contains(&layout::trailing_u64(key)) {
                batch.remove(key.to_vec());
            }
            true
        })?;
        Ok(storage.commit(&batch)?)
    }
}

/// The numbers up to a cut from the first ranges, and those above it from the second.
pub(crate) fn join_at(cut: u64, below: &Ranges, above: &Ranges) -> Ranges {
    let mut joined = Ranges::new();
    below.iter().for_each(|(first, last)| joined.insert(first, last.min(cut)));
    let first_above = cut.saturating_add(1);
    above.iter().for_each(|(first, last)| joined.insert(first.max(first_above), last));
    joined
}

impl Underway {
    fn begin(
        shard: Arc<Shard>,
        now_milliseconds: u64,
    ) -> Result<std::result::Result<Underway, NotCompacted>> {
        // A pin that is set from here on is of a moment that the frozen state does not come before.
        let pinning = shard.pinning.lock().unwrap_or_else(PoisonError::into_inner);
        let frozen = match Frozen::of(&shard, now_milliseconds)? {
            Ok(frozen) => frozen,
            Err(why) => return Ok(Err(why)),
        };
        let pinned = shard.pins()?;
        drop(pinning);
        let replica_count = frozen.namespace.heard_replica_count();
        if replica_count > MAX_VECTOR_REPLICAS {
            // The floor could not be read again, and so the namespace not be opened.
            let namespace = shard.name.to_string();
            return Err(Error::TooManyReplicas { namespace, replica_count });
        }
        // A callback may write or set a pin.
        shard.subscribers.run_callbacks();
        let vector = frozen.namespace.version_vector();
        let mut pins = Vec::new();
        for (_, pin) in pinned.into_iter().filter(|(_, pin)| *pin != vector) {
            pins.push(Pinned::of(&frozen, &pin)?);
        }
        let replica_count = frozen.namespace.replicas().keys().len();
        let mut logs = Vec::new();
        for replica in 0..replica_count as ReplicaIndex {
            logs.push(ReplicaLog::open(shard.id(), replica, shard.storage())?);
        }
        Ok(Ok(Underway {
            frozen,
            pins,
            logs,
            retained: vec![Ranges::new(); replica_count],
            change_count: 0,
            dropped_count: 0,
            byte_count: 0,
            freed_bytes: 0,
            stage: CompactionStage::Marking,
            position: 0,
        }))
    }

    fn progress(&self) -> CompactionProgress {
        CompactionProgress {
            namespace: self.frozen.shard().name.to_string(),
            stage: self.stage,
            done_count: self.position,
            total_count: self.frozen.end,
        }
    }

    fn step(&mut self) -> Result<Outcome> {
        let is_at_end = self.position >= self.frozen.end;
        match (self.stage, is_at_end) {
            (CompactionStage::Marking, false) => self.mark().map(|()| Outcome::GoesOn),
            (CompactionStage::Marking, true) if self.dropped_count == 0 => self.finish(),
            (CompactionStage::Marking, true) => self.raise_floor(),
            (_, false) => self.sweep().map(|()| Outcome::GoesOn),
            (_, true) => self.finish(),
        }
    }

    /// Finds out for some more of the log which changes stay.
    fn mark(&mut self) -> Result<()> {
        let Underway {
            frozen, pins, logs, retained, change_count, dropped_count, byte_count, ..
        } = self;
        let Frozen { kept: KeptChunks(shard), namespace, end, rights_gen, .. } = frozen;
        let mut chunks = StoredChunks::of_storage(shard.storage(), shard.id());
        let log = shard.stored_log();
        let mut visit = |change: &Change<'_>| -> Result<()> {
            *change_count += 1;
            let replica = change.replica as usize;
            let replica_log = logs.get_mut(replica).ok_or_else(unknown_replica)?;
            let is_there = replica_log.is_next(change.number)?;
            // One that a checkpoint from elsewhere has dropped may be there for a pin alone.
            let is_retained = (is_there
                && (is_kept_by_owners(namespace, *rights_gen, change)
                    || namespace.refers_to(change, &mut chunks)?))
                || any_refers_to(pins, change);
            if is_there {
                replica_log.take(leaf_hash(&shard.name, namespace, change), !is_retained)?;
            }
            if is_retained {
                retained[replica].insert(change.number, change.number);
            } else {
                *dropped_count += 1;
            }
            Ok(())
        };
        let mut visit_record = |_: u64, record: &[u8]| -> Result<()> {
            *byte_count += record.len() as u64;
            visit_changes(&shard.name, record, &mut visit)
        };
        self.position =
            log.visit_records(self.position, *end, COMPACTION_STEP_BYTES, &mut visit_record)?;
        namespace.evict(COMPACTION_MEMORY_BYTES);
        Ok(())
    }

    /// Makes the frozen state the floor of the log, durably.
    fn raise_floor(&mut self) -> Result<Outcome> {
        let shard = self.frozen.shard().clone();
        let mut batch = WriteBatch::default();
        for (replica, log) in std::mem::take(&mut self.logs).into_iter().enumerate() {
            let (log, nodes) = log.finish()?;
            let replica = replica as ReplicaIndex;
            let key = *self.frozen.namespace.replicas().key(replica);
            if log != self.frozen.logs[replica as usize] {
                return Err(Error::damaged(format!(
                    "the changes of replica {key} in namespace '{}' are not those that were hashed",
                    shard.name
                )));
            }
            let number = log.length();
            let seal = self.frozen.seals.get(&replica);
            if number > 0 && seal.is_none_or(|(sealed_number, _)| *sealed_number != number) {
                return Err(Error::Unsigned { replica: key, number });
            }
            replace_nodes(shard.id(), replica, &nodes, shard.storage(), &mut batch)?;
        }
        let signed = self.frozen.sign()?;
        let floor = Floor::new(signed, self.frozen.end, self.frozen.seals.clone());
        batch.put(layout::floor(shard.id()), floor.encode());
        let (turn, state) = shard.turn();
        let is_judged_anew = state.judgement_count != self.frozen.judgement_count;
        if is_judged_anew || state.is_judgement_stale {
            drop(state);
            return Ok(Outcome::JudgedMeanwhile);
        }
        drop(state);
        shard.storage().commit(&batch)?;
        shard.lock().floor = Some(Arc::new(floor));
        drop(turn);
        (self.stage, self.position) = (CompactionStage::Sweeping, 0);
        Ok(Outcome::GoesOn)
    }

    /// Drops what does not stay from some more of the log.
    fn sweep(&mut self) -> Result<()> {
        let shard = self.frozen.shard().clone();
        let (id, retained) = (shard.id(), &self.retained);
        let packed_below = self.frozen.packed_below;
        let freed_bytes = &mut self.freed_bytes;
        let mut batch = WriteBatch::default();
        let mut kept = Vec::new();
        let mut last_position = 0;
        let mut visit_record = |position: u64, record: &[u8]| -> Result<()> {
            let kept_before = kept.len();
            let mut kept_up_to = kept_before;
            let mut last_numbers: Vec<(ReplicaIndex, u64)> = Vec::new();
            visit_changes(&shard.name, record, &mut |change| {
                if retained[change.replica as usize].contains(change.number) {
                    change.write_log_record(&mut kept);
                    if kept.len() <= RECORD_BYTES_MAX {
                        kept_up_to = kept.len();
                    }
                }
                match last_numbers.iter_mut().find(|(replica, _)| *replica == change.replica) {
                    Some((_, number)) => *number = change.number,
                    None => last_numbers.push((change.replica, change.number)),
                }
                Ok(())
            })?;
            *freed_bytes += (record.len() - (kept.len() - kept_before)) as u64;
            // Below the floor nobody looks for a number.
            for (replica, number) in last_numbers {
                batch.remove(layout::log_index(id, replica, number));
            }
            let is_whole = kept_before == 0 && kept.len() == record.len();
            if is_whole && kept.len() >= RECORD_BYTES_MAX / 2 && position < packed_below {
                kept.clear();
                return Ok(());
            }
            batch.remove(layout::log(id, position));
            if kept_before > 0 && kept.len() > RECORD_BYTES_MAX {
                let rest = kept.split_off(kept_up_to);
                let full = std::mem::replace(&mut kept, rest);
                batch.put_cold(layout::log(id, last_position), full);
            }
            last_position = position;
            Ok(())
        };
        let (log, end) = (shard.stored_log(), self.frozen.end);
        self.position =
            log.visit_records(self.position, end, COMPACTION_STEP_BYTES, &mut visit_record)?;
        if !kept.is_empty() {
            batch.put_cold(layout::log(id, last_position), kept);
        }
        Ok(shard.storage().commit(&batch)?)
    }

    /// Adds what has been done to a report.
    fn count(&self, report: &mut CompactionReport) {
        report.changes += self.change_count;
        report.dropped_changes += self.dropped_count;
        report.log_bytes += self.byte_count;
        report.freed_log_bytes += self.freed_bytes;
    }

    /// Removes the segments below the floor, and what an earlier compaction left over.
    fn finish(&mut self) -> Result<Outcome> {
        let shard = self.frozen.shard().clone();
        let mut batch = WriteBatch::default();
        if self.stage == CompactionStage::Sweeping {
            let (id, end) = (shard.id(), self.frozen.end);
            for_each_segment(id, shard.storage(), 0, end, |end, _| {
                batch.remove(layout::segment(id, end));
                true
            })?;
        }
        self.frozen.remove_left_over()?;
        // What peers have left that did not come back; those that do begin anew.
        shard.forget_staged(&mut batch)?;
        shard.storage().commit(&batch)?;
        Ok(Outcome::Over)
    }
}

impl Pinned {
    fn of(frozen: &Frozen, vector: &VersionVector) -> Result<Pinned> {
        let mut log = LogBelow { log: frozen.shard().stored_log(), end: frozen.end };
        let namespace = frozen.namespace.at_version(vector, &mut log)?;
        let keys = frozen.namespace.replicas().keys();
        let covered = keys.iter().map(|key| vector.get(key)).collect();
        Ok(Pinned { covered, namespace })
    }
}

/// Whether a namespace with owners keeps a change whatever its state refers to: what is set aside may be
/// in effect by another checkpoint, and judgements need every record with those who carry it.
fn is_kept_by_owners(
    namespace: &Namespace,
    rights_gen: Option<GenIndex>,
    change: &Change<'_>,
) -> bool {
    let Some(rights_gen) = rights_gen.filter(|_| !cfg!(vudo_mutation = "set_aside_dropped")) else {
        return false;
    };
    namespace.set_aside(change.replica).contains(change.number)
        || change.document_writes().any(|write| write.gen_index == rights_gen)
}

fn any_refers_to(pins: &mut [Pinned], change: &Change<'_>) -> bool {
    pins.iter_mut().any(|pin| {
        let is_covered = change.number <= pin.covered[change.replica as usize];
        // The state at a pin is in memory as a whole.
        is_covered && pin.namespace.refers_to(change, &mut vudo_crdt::InMemory).unwrap_or(true)
    })
}
