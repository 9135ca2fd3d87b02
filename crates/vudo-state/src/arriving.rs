//! Taking in what peers have written: frames, verified whole before any of them is applied.
//!
//! ```text
//! a large frame   verify, apply | write to disk .............. synced
//! a small frame   write the frame to disk .......... synced, its changes go to the log with the next
//!                                 verify, apply ...          commit
//! ```
//!
//! **The idea.** Checking a signature takes a good part of what a disk sync does. A small frame that
//! arrives alone is on its way to disk, as it is, while it is verified and applied. When both are done
//! its changes are durable: its log record is still to be written, and until then opening the store
//! takes the frame in again. What turns out to be no frame of its writers is not applied then either.
//!
//! Whoever holds the state of the namespace is not waited for meanwhile: every commit of the store waits
//! for the one that is going on. Then the frame is verified and applied after the sync.
//!
//! **The invariant.** At most one such frame is on disk in each namespace. It leaves the disk in the
//! commit that takes its changes to the log, and whoever put it there has the turn to flush, so that
//! nothing is written between.

use std::collections::BTreeMap;

use vudo_crdt::merkle::MerkleLog;
use vudo_crdt::{Applied, ReplicaKey, SealedLog, SignedFrame};

use crate::error::{Error, Result};
use crate::history::is_signature;
use crate::layout;
use crate::limits::SMALL_FRAME_BYTES_MAX;
use crate::shard::{Commit, FlushTurn, Shard, State, StateGuard, Unit};
use crate::storage::{StorageError, WriteBatch};
use crate::subscription::Origin;

/// The frame that is on disk beside the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameOnDisk {
    /// There is none.
    None,
    /// It has been applied, or refused: it leaves the disk with the next flush.
    Applied,
    /// Damage keeps it from being applied, so it stays for when that is repaired.
    Kept,
}

impl Shard {
    /// Applies a peer's frame, durably: as far as its writers have signed what is new in it.
    pub(crate) fn apply_frame(&self, bytes: &[u8]) -> Result<Applied> {
        let signed = SignedFrame::parse(bytes).map_err(Error::malformed)?;
        match self.turn_for_arriving(bytes, &signed) {
            Some((turn, state)) => self.apply_while_written(turn, state, bytes, &signed),
            None => self.apply_and_write(&signed),
        }
    }

    fn apply_and_write(&self, signed: &SignedFrame<'_>) -> Result<Applied> {
        if self.has_to_judge(signed) {
            let (turn, mut state, sealed) = self.verify_frame(signed, || self.turn())?;
            let applied = self.apply_verified(&mut state, signed, sealed)?;
            self.judge_and_write(turn, state)?;
            return Ok(applied);
        }
        let (applied, wanted) = self.apply_in_memory(signed)?;
        self.subscribers.run_callbacks();
        self.flush(wanted)?;
        Ok(applied)
    }

    fn apply_while_written(
        &self,
        turn: FlushTurn<'_>,
        mut state: StateGuard<'_>,
        bytes: &[u8],
        signed: &SignedFrame<'_>,
    ) -> Result<Applied> {
        state.frame_on_disk = FrameOnDisk::Applied;
        drop(state);
        let mut batch = WriteBatch::default();
        batch.put(layout::arriving(self.id()), bytes.to_vec());
        let mut applied = None;
        let written = self.storage().commit_while(&batch, &mut || {
            // Nothing of this store's own is in it, so nothing is written here.
            applied = self.apply_without_waiting(signed).transpose();
        });
        written?;
        let (applied, _) = applied.unwrap_or_else(|| self.apply_in_memory(signed))?;
        let state = self.lock();
        // What others have applied meanwhile has to be synced; this has been.
        let commit = match state.is_alone_pending(&applied) {
            true => Commit::Later,
            false => Commit::Now,
        };
        self.flush_in_turn(turn, state, commit)?;
        // Not before: a callback may write, and so wait for the turn.
        self.subscribers.run_callbacks();
        Ok(applied)
    }

    /// Takes in the frame that a crash has left on disk beside the log.
    pub(crate) fn apply_left_frame(&self) -> Result<()> {
        let left = self.storage().get(&layout::arriving(self.id()))?;
        let Some(bytes) = left.filter(|_| !cfg!(vudo_mutation = "left_frame_forgotten")) else {
            return Ok(());
        };
        let signed = SignedFrame::parse(&bytes).map_err(Error::malformed);
        let applied = signed.and_then(|signed| self.apply_and_write(&signed));
        let mut state = self.lock();
        match applied {
            Err(error @ Error::Storage(_)) => return Err(error),
            // The store can be read for the rest, and the frame waits for a repair.
            Err(Error::Damaged { .. }) => state.frame_on_disk = FrameOnDisk::Kept,
            // What is not its writers' was never applied, so nobody was told that it is here.
            _ => state.frame_on_disk = FrameOnDisk::Applied,
        }
        if let Err(error) = applied {
            tracing::warn!(namespace = &*self.name, %error, "a frame on disk was not applied");
        }
        Ok(())
    }

    /// The turn to flush, where nobody has it and a frame can be on disk before it is applied: it is
    /// small, has something new, of other replicas than this one, and is judged by the records that are
    /// held. Where something is waiting for a sync already, the frame shares that.
    fn turn_for_arriving(
        &self,
        bytes: &[u8],
        signed: &SignedFrame<'_>,
    ) -> Option<(FlushTurn<'_>, StateGuard<'_>)> {
        if bytes.len() > SMALL_FRAME_BYTES_MAX || self.has_to_judge(signed) {
            return None;
        }
        let (turn, state) = self.try_turn()?;
        let own_key = state.namespace.replicas().key(state.own);
        let names_own = signed.frame().replicas().any(|key| key == *own_key);
        let is_new = !state.durable_vector.covers(&signed.reached());
        let is_idle = state.pending.change_count == 0 && state.frame_on_disk != FrameOnDisk::Kept;
        if is_new && is_idle && !names_own {
            return Some((turn, state));
        }
        // The turn ends with the state unlocked.
        drop(state);
        None
    }

    /// Verifies and applies a frame. Gives what [`Shard::flush`] has to be asked for as well.
    fn apply_in_memory(&self, signed: &SignedFrame<'_>) -> Result<(Applied, u64)> {
        let ((), mut state, sealed) = self.verify_frame(signed, || ((), self.lock()))?;
        let applied = self.apply_verified(&mut state, signed, sealed)?;
        Ok((applied, state.applied_count))
    }

    /// [`Shard::apply_in_memory`] where nobody has the state locked. `None` where somebody has, or a log
    /// has changed meanwhile.
    fn apply_without_waiting(&self, signed: &SignedFrame<'_>) -> Result<Option<(Applied, u64)>> {
        let Some(state) = self.try_lock() else { return Ok(None) };
        let held = self.held_in(state, signed)?;
        let sealed = self.verify_against(signed, &held)?;
        let Some(mut state) = self.try_lock() else { return Ok(None) };
        if !self.is_verified_by(&mut state, signed, &held) {
            return Ok(None);
        }
        let applied = self.apply_verified(&mut state, signed, sealed)?;
        Ok(Some((applied, state.applied_count)))
    }

    /// Verifies a frame against the logs that are held when the state has been locked.
    fn verify_frame<'a, T>(
        &'a self,
        signed: &SignedFrame<'_>,
        lock: impl Fn() -> (T, StateGuard<'a>),
    ) -> Result<(T, StateGuard<'a>, Vec<SealedLog>)> {
        loop {
            let held = self.held_of(signed)?;
            // Nobody waits for what is hashed and verified meanwhile.
            let sealed = self.verify_against(signed, &held)?;
            let (turn, mut state) = lock();
            if self.is_verified_by(&mut state, signed, &held) {
                return Ok((turn, state, sealed));
            }
        }
    }

    fn verify_against(
        &self,
        signed: &SignedFrame<'_>,
        held: &BTreeMap<ReplicaKey, MerkleLog>,
    ) -> Result<Vec<SealedLog>> {
        let sealed = signed.verify(&self.name, |key| held.get(key).cloned(), is_signature);
        self.check_logs(sealed, held)
    }

    fn apply_verified(
        &self,
        state: &mut State,
        signed: &SignedFrame<'_>,
        sealed: Vec<SealedLog>,
    ) -> Result<Applied> {
        let start = state.pending.record.len();
        if state.rights.is_some() {
            // Judging takes the replicas in, so it is for what will be applied.
            state.namespace.check_room::<StorageError>(signed.frame())?;
        }
        let arriving = state.judge_arriving(signed);
        let (namespace, mut recorder) = state.recorder(self.subscribers.any());
        let frame = signed.frame_bytes();
        let applied = match namespace.apply_frame(frame, &mut self.chunks(), &mut recorder) {
            Ok(applied) => applied,
            Err(error) => {
                state.take_back(arriving);
                return Err(error.into());
            }
        };
        for replica in arriving.set_aside_replicas() {
            let replica = state.namespace.replicas().key(replica);
            let namespace = &*self.name;
            tracing::warn!(namespace, %replica, "changes that nothing allows were set aside");
        }
        let mut unit = Unit { start, end: state.pending.record.len(), seals: Vec::new() };
        for sealed in sealed {
            let replica = state.namespace.intern_replica(sealed.replica);
            unit.seals.push((replica, sealed.log.length(), sealed.seal));
            *state.seals.log(replica) = sealed.log;
        }
        if unit.end > unit.start {
            state.pending.units.push(unit);
        }
        state.applied_count += applied.changes;
        self.publish(state, Origin::Remote);
        state.is_judgement_stale |=
            arriving.has_other_judgement && !cfg!(vudo_mutation = "judged_by_old_records");
        Ok(applied)
    }
}

impl State {
    /// Whether nothing is to be written but what has been applied of one frame.
    fn is_alone_pending(&self, applied: &Applied) -> bool {
        (self.pending.change_count == applied.changes || cfg!(vudo_mutation = "others_not_synced"))
            && self.unsaved_records.is_empty()
            && self.with_pending.batch.writes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType, VersionVector};

    use super::*;
    use crate::storage::{MemoryStorage, Storage};
    use crate::{BranchOutcome, Database};

    fn write(database: &Database, key: &str) {
        let text = FieldSchema::new("text", 1, Strategy::Lww, ValueType::String);
        let note = GenSchema::new("Note", [text]);
        database.create(&note, &database.document_id(key), &[("text", key.into())]).unwrap();
    }

    fn frame_since(database: &Database, number: u64) -> Vec<u8> {
        let mut since = VersionVector::new();
        since.advance(database.replica_key(), number);
        let replication = database.replication("default").unwrap();
        replication.frame_since(&since, usize::MAX).unwrap().unwrap().bytes
    }

    /// Two stores that write under one key.
    fn stores_of_one_key() -> [Database; 2] {
        let storages = [(); 2].map(|()| Arc::<MemoryStorage>::default());
        let open =
            |storage: &Arc<MemoryStorage>| Database::with_storage(storage.clone(), None).unwrap();
        let first = open(&storages[0]);
        write(&first, "both");
        let mut image = WriteBatch::default();
        let mut take = |key: &[u8], value: &[u8]| {
            image.put(key.to_vec(), value.to_vec());
            true
        };
        storages[0].scan(&[], &[0xff], &mut take).unwrap();
        storages[1].commit(&image).unwrap();
        [first, open(&storages[1])]
    }

    /// What is older than the log that a frame is verified against is not looked at. A branch that takes
    /// the place of that log meanwhile is shorter, so it would be applied as it came.
    #[test]
    fn a_frame_is_verified_again_where_a_log_has_become_shorter_meanwhile() {
        let mut taken_count = 0;
        // Which of two branches stands is decided by their hashes.
        while taken_count < 3 {
            let [longer, shorter] = stores_of_one_key();
            let third = Database::open_in_memory().unwrap();
            let replication = third.replication("default").unwrap();
            ["2", "3", "4"].iter().for_each(|key| write(&longer, key));
            let old = frame_since(&longer, 2);
            write(&longer, "5");
            replication.apply_frame(&frame_since(&longer, 0)).unwrap();
            write(&shorter, "other 2");
            let branch = shorter.replication("default").unwrap();
            let branch = branch.branch_from(&shorter.replica_key(), 2).unwrap();

            let (shard, signed) = (replication.shard(), SignedFrame::parse(&old).unwrap());
            let outcome = Cell::new(None);
            let verified = shard.verify_frame(&signed, || {
                if outcome.get().is_none() {
                    outcome.set(Some(replication.apply_branch(&branch).unwrap()));
                }
                ((), shard.lock())
            });
            match outcome.get() {
                Some(BranchOutcome::Taken) => {
                    let refused = verified.err().expect("what it continues is not held any more");
                    assert!(matches!(refused, Error::OtherLog { .. }), "{refused}");
                    taken_count += 1;
                }
                _ => assert!(verified.is_ok(), "nothing of it is new"),
            }
        }
    }
}
