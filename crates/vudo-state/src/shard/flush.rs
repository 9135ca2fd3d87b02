//! Taking what is applied to disk: flushes of the log, and checkpoints of the tables.

use std::sync::{Arc, PoisonError};

use vudo_crdt::wire::Reader;
use vudo_crdt::{Change, ChunkError, GenIndex, ReplicaIndex, TablePart, VersionVector};

use super::{Pending, Shard, State, StateGuard, Unit, WithPending};
use crate::arriving::FrameOnDisk;
use crate::error::Result;
use crate::layout::{self, NamespaceId};
use crate::recovery::encode_judgements;
use crate::rights::RecordId;
use crate::seals::OpenSegment;
use crate::storage::{StorageError, WriteBatch};
use crate::stored_chunks::StoredChunks;

/// After this much log the tables are written out, which bounds how much opening replays.
const CHECKPOINT_BYTES: usize = 1 << 20;
/// A log record has no more than this, but for one with a single change, so that reading the log
/// needs little memory. With its key it fits into 256 KiB of pages, which come in powers of two.
pub(crate) const RECORD_BYTES_MAX: usize = 255 << 10;

/// The right to write to disk, until it is dropped. The state must not be locked then.
pub(crate) struct FlushTurn<'a> {
    shard: &'a Shard,
}

impl Drop for FlushTurn<'_> {
    fn drop(&mut self) {
        self.shard.lock().is_flushing = false;
        self.shard.flush_ended.notify_all();
    }
}

/// When a flush goes to disk.
#[derive(Clone, Copy)]
pub(crate) enum Commit {
    /// It is there when the flush ends.
    Now,
    /// Whatever is committed next takes it along.
    Later,
}

/// What is on its way to disk.
pub(crate) struct Flushed {
    pub(crate) pending: Pending,
    vector: VersionVector,
    previous_position: u64,
    previous_directory_counts: (usize, usize),
    /// The open segment, once this is on disk.
    pub(crate) open: OpenSegment,
    pub(crate) records: Vec<RecordId>,
    /// Whether a frame of a peer leaves the disk with this.
    takes_frame: bool,
}

impl Shard {
    /// Returns when at least this many of the applied changes are on disk. Concurrent callers
    /// share one disk sync: whoever comes first takes everybody's changes along.
    pub(crate) fn flush(&self, wanted_count: u64) -> Result<()> {
        match self.flush_turn(wanted_count) {
            Some((turn, state)) => self.flush_in_turn(turn, state, Commit::Now),
            None => Ok(()),
        }
    }

    /// Takes what is pending to disk, in a turn to flush.
    pub(crate) fn flush_in_turn(
        &self,
        turn: FlushTurn<'_>,
        mut state: StateGuard<'_>,
        commit: Commit,
    ) -> Result<()> {
        if !state.with_pending.batch.writes.is_empty() {
            drop(state);
            let written = self.checkpoint();
            drop(turn);
            self.durable_listeners.notify();
            return written;
        }
        let mut batch = WriteBatch::default();
        let flushed = state.write_pending(self.id, &mut batch);
        self.acknowledgements.write_changed(self.id, &mut batch);
        // Who is told at once will ask for it.
        let seals_ahead = self.durable_listeners.any() && state.can_seal_ahead(&flushed);
        drop(state);
        let mut sealed = None;
        let written = match commit {
            Commit::Later => self.storage.commit_later(&batch),
            Commit::Now if !seals_ahead => self.storage.commit(&batch),
            Commit::Now => self.storage.commit_while(&batch, &mut || {
                sealed = self.seal_ahead(&flushed.pending.record);
            }),
        };
        let mut state = self.lock();
        if let Err(error) = written {
            state.restore_pending(flushed);
            drop(state);
            return Err(error.into());
        }
        state.finish_flush(flushed);
        if let Some(sealed) = sealed {
            state.take_sealed(sealed);
        }
        let is_log_long = state.log_bytes_since_checkpoint >= CHECKPOINT_BYTES;
        let is_checkpoint_due = is_log_long || state.is_over_memory;
        drop(state);
        if is_checkpoint_due && let Err(error) = self.checkpoint() {
            // What was to become durable has. The tables follow with a later flush, which tries again.
            tracing::error!(namespace = &*self.name, %error, "the tables were not written");
        }
        drop(turn);
        self.durable_listeners.notify();
        Ok(())
    }

    /// Waits for the turn to flush; `None` when so many changes are on disk before it comes.
    ///
    /// Waiting is for the end of any flush, not for the turn itself: a thread that commits again
    /// and again would otherwise take every turn, and those it has made durable would wait on.
    pub(crate) fn flush_turn(&self, wanted_count: u64) -> Option<(FlushTurn<'_>, StateGuard<'_>)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.durable_count < wanted_count {
            if !state.is_flushing {
                state.is_flushing = true;
                return Some((FlushTurn { shard: self }, StateGuard(state)));
            }
            state = self.flush_ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Waits for the turn to write to disk, whether there is something to flush or not.
    pub(crate) fn turn(&self) -> (FlushTurn<'_>, StateGuard<'_>) {
        loop {
            // More than there will ever be, so that the turn comes in any case.
            if let Some(turn) = self.flush_turn(u64::MAX) {
                return turn;
            }
        }
    }

    /// The turn to flush, where nobody has it.
    pub(crate) fn try_turn(&self) -> Option<(FlushTurn<'_>, StateGuard<'_>)> {
        let mut state = self.lock();
        if state.is_flushing {
            return None;
        }
        state.is_flushing = true;
        Some((FlushTurn { shard: self }, state))
    }

    /// Makes everything durable that has been applied.
    pub(crate) fn flush_all(&self) -> Result<()> {
        let applied_count = self.lock().applied_count;
        self.flush(applied_count)
    }

    /// Flushes, and writes the tables out where more than so many bytes of log are behind them or
    /// where memory is short.
    pub(crate) fn write_out(&self, log_bytes: usize) -> Result<()> {
        self.flush_all()?;
        let (_turn, state) = self.turn();
        let is_log_long = state.log_bytes_since_checkpoint > log_bytes;
        let is_checkpoint_due = is_log_long || state.is_over_memory;
        drop(state);
        if is_checkpoint_due {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Writes out everything, so that the next opening replays nothing.
    pub(crate) fn close(&self) -> Result<()> {
        self.write_out(0)?;
        let mut batch = WriteBatch::default();
        self.acknowledgements.write_changed(self.id, &mut batch);
        self.cursors.write_changed(self.id, &mut batch);
        if !batch.writes.is_empty() {
            self.storage.commit(&batch)?;
        }
        Ok(())
    }

    /// Writes changed chunks and directories. The caller holds the turn to flush.
    ///
    /// The state may run ahead of the log on disk here, by changes applied since the flush. They
    /// go to the log in the same batch, so that the tables never hold what the log does not.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let mut state = self.lock();
        let mut batch = WriteBatch::default();
        let failed = self.lock_travelling().clone();
        if let Some(failed) = failed.filter(|_| !cfg!(vudo_mutation = "failed_chunks_forgotten")) {
            // What has changed once more comes later in the batch.
            let of_tables = failed.writes.iter().filter(|(key, _)| layout::is_of_tables(key));
            batch.writes.extend(of_tables.cloned());
        }
        let flushed = state.write_pending(self.id, &mut batch);
        let tables = state.write_tables(self.id, &mut self.chunks(), &mut batch);
        self.cursors.write_changed(self.id, &mut batch);
        let batch = Arc::new(batch);
        *self.lock_travelling() = Some(batch.clone());
        if let Err(error) = tables {
            state.restore_pending(flushed);
            self.cursors.not_written();
            drop(state);
            return Err(error.into());
        }
        // Nobody waits for the disk: chunks that are on their way are loaded from the batch.
        drop(state);
        let written = self.storage.commit(&batch);
        let mut state = self.lock();
        match written {
            Ok(()) => {
                *self.lock_travelling() = None;
                state.finish_flush(flushed);
                state.log_bytes_since_checkpoint = 0;
                Ok(())
            }
            Err(error) => {
                state.restore_pending(flushed);
                self.cursors.not_written();
                Err(error.into())
            }
        }
    }
}

impl State {
    /// Moves what is pending into a batch.
    fn write_pending(&mut self, id: NamespaceId, batch: &mut WriteBatch) -> Flushed {
        batch.writes.extend(self.with_pending.batch.writes.iter().cloned());
        let pending = std::mem::take(&mut self.pending);
        let mut flushed = Flushed {
            vector: self.namespace.version_vector(),
            previous_position: self.next_position,
            previous_directory_counts: self.directory_counts,
            open: self.seals.open.clone(),
            pending,
            records: self.write_records_of_rights(id, batch),
            takes_frame: self.frame_on_disk == FrameOnDisk::Applied,
        };
        if flushed.takes_frame {
            self.frame_on_disk = FrameOnDisk::None;
            batch.remove(layout::arriving(id));
        }
        if !flushed.pending.record.is_empty() {
            self.write_records(id, &mut flushed, batch);
        }
        let counts = (self.namespace.replicas().keys().len(), self.namespace.gen_names().len());
        if counts != self.directory_counts {
            batch.put(layout::directory(id), self.namespace.encode_directory());
            self.directory_counts = counts;
        }
        flushed
    }

    /// Writes the pending changes as records, and the segments that they are in.
    fn write_records(&mut self, id: NamespaceId, flushed: &mut Flushed, batch: &mut WriteBatch) {
        let Flushed { pending, open, .. } = flushed;
        let mut units = pending.units.iter().peekable();
        let mut has_units = false;
        let mut start = 0;
        let mut last_numbers: Vec<(ReplicaIndex, u64)> = Vec::new();
        let mut reader = Reader::new(&pending.record);
        loop {
            let offset = pending.record.len() - reader.rest().len();
            let record_bytes = offset - start;
            let segment_bytes = open.segment.byte_count + record_bytes;
            let next = units.peek();
            let is_in_unit = next.is_some_and(|unit| unit.start < offset);
            let next_bytes =
                next.filter(|unit| unit.start == offset).map_or(0, |unit| unit.end - unit.start);
            // A unit stays whole; so that it fits into a frame, it may get a segment for itself.
            let ends_segment = !is_in_unit
                && segment_bytes > 0
                && (segment_bytes >= self.segment_bytes
                    || (next_bytes > 0 && segment_bytes + next_bytes > self.segment_bytes));
            let is_last = reader.is_empty();
            if record_bytes > 0 && (is_last || ends_segment) {
                self.end_record(id, &pending.record[start..offset], &mut last_numbers, batch);
                open.segment.byte_count += record_bytes;
                start = offset;
            }
            if ends_segment {
                self.seals.put_own_seal(self.own, &mut open.segment);
                open.store(id, self.next_position - 1, batch);
                *open = OpenSegment { first: self.next_position, ..OpenSegment::default() };
                has_units = false;
            }
            if is_last {
                break;
            }
            let Ok(change) = Change::read_log_record(&mut reader) else { break };
            let before = offset;
            let offset = pending.record.len() - reader.rest().len();
            if before > start && offset - start > RECORD_BYTES_MAX {
                self.end_record(id, &pending.record[start..before], &mut last_numbers, batch);
                open.segment.byte_count += before - start;
                start = before;
            }
            match last_numbers.iter_mut().find(|(replica, _)| *replica == change.replica) {
                Some((_, number)) => *number = change.number,
                None => last_numbers.push((change.replica, change.number)),
            }
            if change.replica == self.own {
                open.segment.put_own(&change);
            }
            if let Some(unit) = units.next_if(|unit| unit.end <= offset) {
                has_units = true;
                let seals = unit.seals.iter();
                let seals = seals.map(|(replica, number, seal)| (*replica, (*number, *seal)));
                open.segment.seals.extend(seals);
            }
        }
        // What others have sealed goes to disk with the changes it is for.
        if has_units {
            open.store(id, self.next_position - 1, batch);
        }
    }

    /// Writes a record of the log, which ends with these numbers of replicas.
    fn end_record(
        &mut self,
        id: NamespaceId,
        record: &[u8],
        last_numbers: &mut Vec<(ReplicaIndex, u64)>,
        batch: &mut WriteBatch,
    ) {
        let position = self.next_position;
        self.next_position += 1;
        batch.put(layout::log(id, position), record.to_vec());
        for (replica, number) in last_numbers.drain(..) {
            batch.put(layout::log_index(id, replica, number), position.to_be_bytes().to_vec());
        }
    }

    fn write_tables(
        &mut self,
        id: NamespaceId,
        chunks: &mut StoredChunks<'_>,
        batch: &mut WriteBatch,
    ) -> std::result::Result<(), ChunkError<StorageError>> {
        let gen_count = self.namespace.gen_names().len() as GenIndex;
        let parts = TablePart::ALL;
        let tables = (0..gen_count).flat_map(|gen_index| parts.map(|part| (gen_index, part)));
        for (gen_index, part) in tables {
            let table = self.namespace.table_mut(gen_index, part);
            let mut store = |chunk, bytes, is_mostly_deleted| match is_mostly_deleted {
                true => batch.put_cold(layout::chunk(id, chunk), bytes),
                false => batch.put(layout::chunk(id, chunk), bytes),
            };
            let persisted = table.persist(&mut self.checkpoint.next_chunk, chunks, &mut store)?;
            if let Some(directory) = persisted.directory {
                batch.put(layout::table(id, gen_index, part), directory);
            }
            if let Some(buffer) = persisted.buffer {
                batch.put(layout::buffer(id, gen_index, part), buffer);
            }
            match &mut self.kept_chunks {
                Some(kept) => kept.extend(persisted.replaced),
                None => self.released_chunks.extend(persisted.replaced),
            }
        }
        for chunk in self.released_chunks.drain(..) {
            batch.remove(layout::chunk(id, chunk));
        }
        if self.is_judged {
            batch.put(layout::judgements(id), encode_judgements(&self.namespace));
        }
        if let Some(rights) = self.rights.as_ref().filter(|_| !self.is_judgement_stale) {
            batch.put(layout::judged(id), rights.digest().to_vec());
        }
        self.checkpoint.position = self.next_position;
        batch.put(layout::checkpoint(id), self.checkpoint.encode());
        batch.put(layout::hashes(id), self.seals.encode_hashes());
        batch.put(layout::directory(id), self.namespace.encode_directory());
        // Everything can leave memory now: what is not on disk yet is in the batch.
        self.evict_above = self.memory_bytes_max;
        Ok(())
    }

    fn finish_flush(&mut self, flushed: Flushed) {
        self.with_pending = WithPending::default();
        self.log_bytes_since_checkpoint += flushed.pending.record.len();
        self.durable_count += flushed.pending.change_count;
        self.durable_vector.join(&flushed.vector);
        self.seals.open = flushed.open;
        // One batch at a time is on its way, so nothing else has got a position meanwhile.
        self.seals.end = self.next_position;
    }

    /// Puts back what could not be written, in front of what has come since.
    fn restore_pending(&mut self, flushed: Flushed) {
        self.next_position = flushed.previous_position;
        if flushed.takes_frame {
            self.frame_on_disk = FrameOnDisk::Applied;
        }
        self.unsaved_records.extend(flushed.records);
        self.directory_counts = flushed.previous_directory_counts;
        let later = std::mem::replace(&mut self.pending, flushed.pending);
        let start = self.pending.record.len();
        self.pending.record.extend_from_slice(&later.record);
        self.pending.change_count += later.change_count;
        let later_units = later.units.into_iter();
        self.pending.units.extend(later_units.map(|unit| Unit {
            start: unit.start + start,
            end: unit.end + start,
            ..unit
        }));
    }
}
