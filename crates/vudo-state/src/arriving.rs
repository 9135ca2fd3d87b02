//! Taking in what peers have written: frames, verified whole before any of them is applied.
//!
//! ```text
//! a large frame   verify, apply | write to disk .............. synced
//! a small frame   write the frame to disk ......... synced, its changes go to the log with the next
//!                 verify, apply ...                 commit
//! ```
//!
//! **The idea.** Checking a signature takes about as long as half a disk sync. A small frame that
//! arrives alone goes to disk as it is while another thread verifies and applies it. When both are done
//! its changes are durable: its log record is still to be written, and until then opening the store
//! takes the frame in again. What turns out to be no frame of its writers is not applied then either.
//!
//! **The invariant.** At most one such frame is on disk in each namespace. It leaves the disk in the
//! commit that takes its changes to the log, and whoever put it there has the turn to flush, so that
//! nothing is written between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use vudo_crdt::{Applied, SealedLog, SignedFrame};

use crate::error::{Error, Result};
use crate::history::is_signature;
use crate::layout;
use crate::shard::{Commit, FlushTurn, Shard, State, StateGuard, Unit};
use crate::storage::{Storage, WriteBatch};
use crate::subscription::Origin;

impl Shard {
    /// Applies a peer's frame, durably: as far as its writers have signed what is new in it.
    pub(crate) fn apply_frame(&self, bytes: &[u8]) -> Result<Applied> {
        let signed = SignedFrame::parse(bytes).map_err(Error::malformed)?;
        if self.has_to_judge(&signed) {
            let (turn, mut state, sealed) = self.verify_frame(&signed, || self.turn())?;
            let applied = self.apply_verified(&mut state, &signed, sealed)?;
            self.judge_and_write(turn, state)?;
            return Ok(applied);
        }
        let (applied, wanted) = self.apply_in_memory(&signed)?;
        self.subscribers.run_callbacks();
        self.flush(wanted)?;
        Ok(applied)
    }

    /// [`Shard::apply_frame`] of a small frame, which is verified by what `spawn` is given while it goes
    /// to disk: see [`crate::Replication::apply_small_frame`].
    pub(crate) fn apply_small_frame(
        self: &Arc<Shard>,
        bytes: Vec<u8>,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>),
    ) -> Result<Applied> {
        let signed = SignedFrame::parse(&bytes).map_err(Error::malformed)?;
        let Some((turn, mut state)) = self.turn_for_arriving(&signed) else {
            return self.apply_frame(&bytes);
        };
        state.has_arriving = true;
        drop(state);
        let mut batch = WriteBatch::default();
        batch.put(layout::arriving(self.id()), bytes.clone());
        let bytes: Arc<[u8]> = bytes.into();
        let is_begun = Arc::new(AtomicBool::new(false));
        let (sender, taken) = mpsc::sync_channel(1);
        spawn({
            let (shard, bytes, is_begun) = (self.clone(), bytes.clone(), is_begun.clone());
            Box::new(move || {
                if !is_begun.swap(true, Ordering::AcqRel) {
                    // Whoever waits for this is gone only where it has panicked.
                    let _ = sender.send(shard.apply_bytes_in_memory(&bytes));
                    // After the answer: a callback may write, and so wait for the turn.
                    shard.subscribers.run_callbacks();
                }
            })
        });
        let written = self.storage().commit(&batch);
        // All other threads may be waiting for this one, so nobody may be there to do it.
        let here = || self.apply_bytes_in_memory(&bytes);
        let taken = match is_begun.swap(true, Ordering::AcqRel) {
            false => here(),
            true => taken.recv().unwrap_or_else(|_| here()),
        };
        written?;
        let applied = taken?;
        let state = self.lock();
        // What others have applied meanwhile has to be synced; this has been.
        let commit: Commit = match state.is_alone_pending(&applied) {
            true => <dyn Storage>::commit_later,
            false => <dyn Storage>::commit,
        };
        self.flush_in_turn(turn, state, commit)?;
        self.subscribers.run_callbacks();
        Ok(applied)
    }

    /// Takes in the frame that a crash has left on disk beside the log.
    pub(crate) fn apply_left_frame(&self) -> Result<()> {
        let left = self.storage().get(&layout::arriving(self.id()))?;
        let Some(bytes) = left.filter(|_| !cfg!(vudo_mutation = "left_frame_forgotten")) else {
            return Ok(());
        };
        let applied = self.apply_frame(&bytes);
        let mut state = self.lock();
        match applied {
            Err(error @ Error::Storage(_)) => return Err(error),
            // The store can be read for the rest, and the frame waits for a repair.
            Err(Error::Damaged { .. }) => state.keeps_left_frame = true,
            // What is not its writers' was never applied, so nobody was told that it is here.
            _ => state.has_arriving = true,
        }
        if let Err(error) = applied {
            tracing::warn!(namespace = &*self.name, %error, "a frame on disk was not applied");
        }
        Ok(())
    }

    /// The turn to flush, where nobody has it and a frame can be on disk before it is applied: it has
    /// something new, of other replicas than this one, and is judged by the records that are held. Where
    /// something is waiting for a sync already, the frame shares that.
    fn turn_for_arriving(
        &self,
        signed: &SignedFrame<'_>,
    ) -> Option<(FlushTurn<'_>, StateGuard<'_>)> {
        if self.has_to_judge(signed) {
            return None;
        }
        let (turn, state) = self.try_turn()?;
        let own_key = state.namespace.replicas().key(state.own);
        let names_own = signed.frame().replicas().any(|key| key == *own_key);
        let is_new = !state.durable_vector.covers(&signed.reached());
        let is_idle = state.pending.change_count == 0 && !state.keeps_left_frame;
        if is_new && is_idle && !names_own {
            return Some((turn, state));
        }
        // The turn ends with the state unlocked.
        drop(state);
        None
    }

    fn apply_bytes_in_memory(&self, bytes: &[u8]) -> Result<Applied> {
        let signed = SignedFrame::parse(bytes).map_err(Error::malformed)?;
        self.apply_in_memory(&signed).map(|(applied, _)| applied)
    }

    /// Verifies and applies a frame. Gives what [`Shard::flush`] has to be asked for as well.
    fn apply_in_memory(&self, signed: &SignedFrame<'_>) -> Result<(Applied, u64)> {
        let ((), mut state, sealed) = self.verify_frame(signed, || ((), self.lock()))?;
        let applied = self.apply_verified(&mut state, signed, sealed)?;
        Ok((applied, state.applied_count))
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
            let sealed = signed.verify(&self.name, |key| held.get(key).cloned(), is_signature);
            let sealed = self.check_logs(sealed, &held)?;
            let (turn, mut state) = lock();
            let is_current = sealed.iter().all(|sealed| {
                let replica = state.namespace.intern_replica(sealed.replica);
                state.seals.log(replica).length() == sealed.known_length
            });
            // Another peer may have brought the same.
            if is_current && self.is_held_of_own(&state, signed) {
                return Ok((turn, state, sealed));
            }
        }
    }

    fn apply_verified(
        &self,
        state: &mut State,
        signed: &SignedFrame<'_>,
        sealed: Vec<SealedLog>,
    ) -> Result<Applied> {
        let start = state.pending.record.len();
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
