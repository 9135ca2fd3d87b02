//! One namespace in a store: the tables in memory, what is not on disk yet, and who is told.
//!
//! ```text
//! commit --> tables + pending --(flush: one disk sync for everything pending)--> log record
//!                                                    |
//!                     every CHECKPOINT_BYTES of log: chunks and directories as well
//! ```
//!
//! Invariant: what storage holds is a prefix of what was applied, in the order in which it was
//! applied. Sync reads storage, so nothing leaves this store before it is durable here.
//!
//! Recovery: the tables of the last checkpoint, then the log after it is joined again. Joining is
//! idempotent, so it does not matter how much of it the tables held already.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vudo_crdt::wire::{MalformedFrame, Reader};
use vudo_crdt::{
    Applied, Change, ChunkError, ChunkId, ChunkSource, Fingerprint, GenIndex, GenSchema, Namespace,
    Ranges, ReplicaIndex, ReplicaKey, StoredTable, TablePart, Transaction, VersionVector, limits,
};

use crate::database::OpenOptions;
use crate::error::{Error, Result};
use crate::history::HashedLogs;
use crate::layout::{self, Checkpoint, NamespaceId};
use crate::notices::{Notices, Recorder, SharedSchema};
use crate::outbox::Acknowledgements;
use crate::storage::{Storage, StorageError, WriteBatch};
use crate::subscription::{Origin, Subscribers};

/// After this much log the tables are written out, which bounds how much opening replays.
const CHECKPOINT_BYTES: usize = 1 << 20;
/// A log record ends when it is this large, so that reading the log needs little memory.
const RECORD_BYTES: usize = 256 << 10;

pub(crate) struct Shard {
    pub(crate) name: Arc<str>,
    id: NamespaceId,
    storage: Arc<dyn Storage>,
    state: Mutex<State>,
    /// Told whenever a flush ends: whoever waits for one may be durable by then.
    flush_ended: Condvar,
    /// Chunks that have their ids but are not on disk yet, in the batch that takes them there. Kept
    /// after a failure, for the next checkpoint.
    travelling: Mutex<Option<Arc<WriteBatch>>>,
    pub(crate) subscribers: Arc<Subscribers>,
    pub(crate) durable_listeners: Listeners,
    /// Locked before the state, where both are.
    hashed: Mutex<HashedLogs>,
    pub(crate) acknowledgements: Acknowledgements,
}

pub(crate) struct State {
    pub(crate) namespace: Namespace,
    pub(crate) own: ReplicaIndex,
    pending: Pending,
    /// Whether a batch is on its way to disk. One at a time keeps the log in order.
    is_flushing: bool,
    checkpoint: Checkpoint,
    /// Replicas and Gens on disk: the directory is written again when there are more.
    directory_counts: (usize, usize),
    log_bytes_since_checkpoint: usize,
    next_position: u64,
    /// How many changes have been applied and how many of those are on disk, since opening.
    applied_count: u64,
    durable_count: u64,
    durable_vector: VersionVector,
    pub(crate) notices: Notices,
    /// What chunks may take up in memory, and from where on some are dropped: more than that
    /// while nothing more can be.
    memory_bytes_max: usize,
    evict_above: usize,
    is_over_memory: bool,
    /// Whether anything has ever been set aside.
    is_judged: bool,
}

/// The locked state of a namespace. When it is let go, chunks leave that memory has no room for.
pub(crate) struct StateGuard<'a>(MutexGuard<'a, State>);

impl Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for StateGuard<'_> {
    fn drop(&mut self) {
        self.0.keep_within_memory();
    }
}

/// Changes that are applied and not on disk yet.
#[derive(Default)]
pub(crate) struct Pending {
    record: Vec<u8>,
    change_count: u64,
}

/// Loads chunks from storage, or from the batch that is taking them there.
pub(crate) struct StoredChunks<'a> {
    storage: &'a dyn Storage,
    travelling: Option<&'a Mutex<Option<Arc<WriteBatch>>>>,
    id: NamespaceId,
}

impl<'a> StoredChunks<'a> {
    /// Chunks that are on disk, and no others.
    pub(crate) fn of_storage(storage: &'a dyn Storage, id: NamespaceId) -> StoredChunks<'a> {
        StoredChunks { storage, travelling: None, id }
    }
}

impl ChunkSource for StoredChunks<'_> {
    type Error = StorageError;

    fn load(&mut self, id: ChunkId) -> std::result::Result<Vec<u8>, StorageError> {
        let key = layout::chunk(self.id, id);
        if let Some(travelling) = self.travelling
            && let Some(batch) = &*travelling.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some((_, Some(chunk))) = batch.writes.iter().find(|(found, _)| *found == key)
        {
            return Ok(chunk.clone());
        }
        self.storage.get(&key)?.ok_or_else(|| StorageError::new(format!("chunk {id} is missing")))
    }
}

impl Pending {
    pub(crate) fn push(&mut self, change: &Change<'_>) {
        change.write_log_record(&mut self.record);
        self.change_count += 1;
    }
}

impl Shard {
    /// Opens a namespace, replaying what its tables on disk do not hold.
    pub(crate) fn open(
        name: &str,
        id: NamespaceId,
        storage: Arc<dyn Storage>,
        own_key: ReplicaKey,
        seed: u64,
        options: &OpenOptions,
        schema: &SharedSchema,
    ) -> Result<Shard> {
        let mut read_error = None;
        let mut namespace = match storage.get(&layout::directory(id))? {
            None => Namespace::new(seed),
            Some(directory) => {
                let read_table =
                    |gen_index, part| match stored_table(&*storage, id, gen_index, part) {
                        Ok(stored) => stored,
                        Err(error) => {
                            read_error = Some(error);
                            None
                        }
                    };
                Namespace::open(&directory, read_table, seed).map_err(|what| {
                    Error::damaged(format!("the directory of namespace '{name}': {what}"))
                })?
            }
        };
        if let Some(error) = read_error {
            return Err(error.into());
        }
        let checkpoint = match storage.get(&layout::checkpoint(id))? {
            None => Checkpoint::default(),
            Some(stored) => Checkpoint::decode(&stored).map_err(|what| {
                Error::damaged(format!("the checkpoint of namespace '{name}': {what}"))
            })?,
        };
        let acknowledgements = Acknowledgements::open(&*storage, id, own_key)?;
        let judgements = storage.get(&layout::judgements(id))?;
        if let Some(stored) = &judgements {
            restore_judgements(&mut namespace, stored).map_err(|what| {
                Error::damaged(format!("the judgements of namespace '{name}': {what}"))
            })?;
        }
        let replayed = replay(&mut namespace, id, &*storage, checkpoint.position)?;
        namespace.evict(options.memory_bytes_max);
        let directory_counts = (namespace.replicas().keys().len(), namespace.gen_names().len());
        let own = namespace.intern_replica(own_key);
        let durable_vector = namespace.version_vector();
        let state = State {
            namespace,
            own,
            pending: Pending::default(),
            is_flushing: false,
            checkpoint,
            directory_counts,
            log_bytes_since_checkpoint: replayed.byte_count,
            next_position: replayed.next_position,
            applied_count: 0,
            durable_count: 0,
            durable_vector,
            notices: Notices::of(schema.clone()),
            memory_bytes_max: options.memory_bytes_max,
            evict_above: options.memory_bytes_max,
            is_over_memory: false,
            is_judged: judgements.is_some(),
        };
        Ok(Shard {
            name: name.into(),
            id,
            storage,
            state: Mutex::new(state),
            flush_ended: Condvar::new(),
            travelling: Mutex::default(),
            subscribers: Arc::default(),
            durable_listeners: Listeners::default(),
            acknowledgements,
            hashed: Mutex::default(),
        })
    }

    pub(crate) fn id(&self) -> NamespaceId {
        self.id
    }

    pub(crate) fn lock(&self) -> StateGuard<'_> {
        StateGuard(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn chunks(&self) -> StoredChunks<'_> {
        let travelling = Some(&self.travelling);
        StoredChunks { storage: &*self.storage, travelling, id: self.id }
    }

    /// Applies a local transaction. Gives what [`Shard::flush`] has to be asked for.
    pub(crate) fn commit(&self, state: &mut State, transaction: Transaction) -> Result<u64> {
        let (namespace, mut recorder) = state.recorder(self.subscribers.any());
        let number = transaction.commit(namespace, &mut self.chunks(), &mut recorder)?;
        state.applied_count += u64::from(number.is_some());
        self.publish(state, Origin::Local);
        state.keep_within_memory();
        Ok(state.applied_count)
    }

    /// Applies a peer's frame, durably.
    pub(crate) fn apply_frame(&self, frame: &[u8]) -> Result<Applied> {
        let mut state = self.lock();
        let (namespace, mut recorder) = state.recorder(self.subscribers.any());
        let applied = namespace.apply_frame(frame, &mut self.chunks(), &mut recorder)?;
        state.applied_count += applied.changes;
        let wanted = state.applied_count;
        self.publish(&mut state, Origin::Remote);
        drop(state);
        self.subscribers.run_callbacks();
        self.flush(wanted)?;
        Ok(applied)
    }

    fn publish(&self, state: &mut State, origin: Origin) {
        let State { notices, namespace, .. } = state;
        notices.publish(&self.name, origin, &self.subscribers, namespace, &mut self.chunks());
    }

    /// Returns when at least this many of the applied changes are on disk. Concurrent callers
    /// share one disk sync: whoever comes first takes everybody's changes along.
    pub(crate) fn flush(&self, wanted_count: u64) -> Result<()> {
        let Some((turn, mut state)) = self.flush_turn(wanted_count) else {
            return Ok(());
        };
        let mut batch = WriteBatch::default();
        let flushed = state.write_pending(self.id, &mut batch);
        self.acknowledgements.write_changed(self.id, &mut batch);
        drop(state);
        let written = self.storage.commit(&batch);
        let mut state = self.lock();
        if let Err(error) = written {
            state.restore_pending(flushed);
            drop(state);
            return Err(error.into());
        }
        state.finish_flush(flushed);
        let is_log_long = state.log_bytes_since_checkpoint >= CHECKPOINT_BYTES;
        let is_checkpoint_due = is_log_long || state.is_over_memory;
        drop(state);
        if is_checkpoint_due {
            self.checkpoint()?;
        }
        drop(turn);
        self.durable_listeners.notify();
        Ok(())
    }

    /// Waits for the turn to flush; `None` when so many changes are on disk before it comes.
    ///
    /// Waiting is for the end of any flush, not for the turn itself: a thread that commits again
    /// and again would otherwise take every turn, and those it has made durable would wait on.
    fn flush_turn(&self, wanted_count: u64) -> Option<(FlushTurn<'_>, StateGuard<'_>)> {
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

    /// Judges which changes of these replicas are set aside, and makes that durable: see
    /// [`crate::Replication::judge`].
    pub(crate) fn judge(&self, judgements: &[(ReplicaKey, Ranges)]) -> Result<usize> {
        loop {
            self.flush_all()?;
            // More than there will ever be, so that the turn comes in any case.
            let Some((turn, mut state)) = self.flush_turn(u64::MAX) else { continue };
            // The log on disk has to be whole: what came since is flushed first.
            if state.durable_count < state.applied_count {
                drop(state);
                drop(turn);
                continue;
            }
            let mut of_index = Vec::new();
            for (key, ranges) in judgements {
                of_index.push((state.namespace.intern_replica(*key), ranges.clone()));
            }
            state.is_judged = true;
            let own = state.own;
            let (namespace, mut recorder) = state.recorder(self.subscribers.any());
            let (log, chunks) = (&mut self.stored_log(), &mut self.chunks());
            let judged = namespace.judge(of_index, log, chunks, &mut recorder);
            recorder.judged(own);
            let rebuilt = match judged {
                Ok(rebuilt) => rebuilt,
                Err(error) => {
                    // The turn ends with the state unlocked.
                    drop(state);
                    return Err(error.into());
                }
            };
            self.publish(&mut state, Origin::Local);
            drop(state);
            let written = self.checkpoint();
            drop(turn);
            // A callback may write, and so wait for a turn.
            self.subscribers.run_callbacks();
            return written.map(|()| rebuilt);
        }
    }

    /// The log on disk.
    pub(crate) fn stored_log(&self) -> StoredLog<'_> {
        StoredLog { storage: &*self.storage, id: self.id, name: &self.name }
    }

    pub(crate) fn lock_hashed(&self) -> MutexGuard<'_, HashedLogs> {
        self.hashed.lock().unwrap_or_else(PoisonError::into_inner)
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
        // More than there will ever be, so that the turn comes in any case.
        let Some((_turn, state)) = self.flush_turn(u64::MAX) else {
            return Ok(());
        };
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
        if !batch.writes.is_empty() {
            self.storage.commit(&batch)?;
        }
        Ok(())
    }

    /// Writes changed chunks and directories. The caller holds the turn to flush.
    ///
    /// The state may run ahead of the log on disk here, by changes applied since the flush. They
    /// go to the log in the same batch, so that the tables never hold what the log does not.
    fn checkpoint(&self) -> Result<()> {
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
        let batch = Arc::new(batch);
        *self.lock_travelling() = Some(batch.clone());
        if let Err(error) = tables {
            state.restore_pending(flushed);
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
                Err(error.into())
            }
        }
    }

    fn lock_travelling(&self) -> MutexGuard<'_, Option<Arc<WriteBatch>>> {
        self.travelling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn durable_vector(&self) -> VersionVector {
        self.lock().durable_vector.clone()
    }

    pub(crate) fn fingerprint(&self) -> Result<(VersionVector, Fingerprint)> {
        let mut state = self.lock();
        let fingerprint = state.namespace.fingerprint(&mut self.chunks())?;
        let vector = state.namespace.version_vector();
        drop(state);
        // Rows have moved to chunks, which cannot leave memory before they are on disk.
        if self.lock().is_over_memory() {
            self.write_out(usize::MAX)?;
        }
        Ok((vector, fingerprint))
    }

    /// Visits the changes on disk that `since` does not cover, in the order in which they were
    /// applied, until the visitor says `false`. Indexes are the namespace's.
    pub(crate) fn visit_log(
        &self,
        since: &VersionVector,
        mut visit: impl FnMut(&Change<'_>) -> bool,
    ) -> Result<()> {
        let (keys, durable) = {
            let state = self.lock();
            (state.namespace.replicas().keys().to_vec(), state.durable_vector.clone())
        };
        let covered: Vec<u64> = keys.iter().map(|key| since.get(key)).collect();
        let mut start = u64::MAX;
        for (replica, key) in keys.iter().enumerate() {
            if durable.get(key) > covered[replica] {
                let first = self.position_of(replica as ReplicaIndex, covered[replica] + 1)?;
                start = start.min(first);
            }
        }
        let mut malformed = None;
        let to = layout::log(self.id, u64::MAX);
        self.storage.scan(&layout::log(self.id, start), &to, &mut |_, record| {
            let mut reader = Reader::new(record);
            while !reader.is_empty() {
                match Change::read_log_record(&mut reader) {
                    Ok(change) => {
                        let is_known = covered.get(change.replica as usize).copied();
                        // A replica that was interned after the lists were read comes later.
                        let Some(covered) = is_known else {
                            return false;
                        };
                        if change.number > covered && !visit(&change) {
                            return false;
                        }
                    }
                    Err(what) => {
                        malformed = Some(what);
                        return false;
                    }
                }
            }
            true
        })?;
        match malformed {
            Some(what) => {
                Err(Error::damaged(format!("the log of namespace '{}': {what}", self.name)))
            }
            None => Ok(()),
        }
    }

    /// The position of the log record that holds a replica's change of this number.
    fn position_of(&self, replica: ReplicaIndex, number: u64) -> Result<u64> {
        let from = layout::log_index(self.id, replica, number);
        let to = layout::log_index(self.id, replica, u64::MAX);
        let mut position = None;
        self.storage.scan(&from, &to, &mut |_, value| {
            position = Some(layout::trailing_u64(value));
            false
        })?;
        position.ok_or_else(|| {
            Error::damaged(format!("the log of namespace '{}' lacks a change", self.name))
        })
    }
}

/// The right to write to disk, until it is dropped. The state must not be locked then.
struct FlushTurn<'a> {
    shard: &'a Shard,
}

impl Drop for FlushTurn<'_> {
    fn drop(&mut self) {
        self.shard.lock().is_flushing = false;
        self.shard.flush_ended.notify_all();
    }
}

/// What is on its way to disk.
struct Flushed {
    pending: Pending,
    vector: VersionVector,
    previous_position: u64,
    previous_directory_counts: (usize, usize),
}

impl State {
    /// The namespace, and what takes down how it changes.
    fn recorder(&mut self, has_subscribers: bool) -> (&mut Namespace, Recorder<'_>) {
        let State { namespace, pending, notices, .. } = self;
        notices.prepare();
        (namespace, Recorder { pending, notices, has_subscribers })
    }

    /// The index of a Gen, which the namespace takes in where it does not have it.
    pub(crate) fn intern_gen(&mut self, gen_schema: &GenSchema) -> Result<GenIndex> {
        let found = self.namespace.intern_gen(&gen_schema.name);
        found.ok_or_else(|| {
            let what = format!("a namespace holds at most {} Gens", limits::MAX_GENS);
            Error::Frame(what)
        })
    }

    /// Moves what is pending into a batch.
    fn write_pending(&mut self, id: NamespaceId, batch: &mut WriteBatch) -> Flushed {
        let pending = std::mem::take(&mut self.pending);
        let flushed = Flushed {
            vector: self.namespace.version_vector(),
            previous_position: self.next_position,
            previous_directory_counts: self.directory_counts,
            pending,
        };
        if !flushed.pending.record.is_empty() {
            self.write_records(id, &flushed.pending, batch);
        }
        let counts = (self.namespace.replicas().keys().len(), self.namespace.gen_names().len());
        if counts != self.directory_counts {
            batch.put(layout::directory(id), self.namespace.encode_directory());
            self.directory_counts = counts;
        }
        flushed
    }

    fn write_records(&mut self, id: NamespaceId, pending: &Pending, batch: &mut WriteBatch) {
        let mut reader = Reader::new(&pending.record);
        while !reader.is_empty() {
            let start = reader.rest();
            let mut last_numbers: Vec<(ReplicaIndex, u64)> = Vec::new();
            let taken = |reader: &Reader<'_>| start.len() - reader.rest().len();
            while taken(&reader) < RECORD_BYTES {
                let Ok(change) = Change::read_log_record(&mut reader) else {
                    break;
                };
                match last_numbers.iter_mut().find(|(replica, _)| *replica == change.replica) {
                    Some((_, number)) => *number = change.number,
                    None => last_numbers.push((change.replica, change.number)),
                }
            }
            let record = start[..taken(&reader)].to_vec();
            batch.put(layout::log(id, self.next_position), record);
            for (replica, number) in last_numbers {
                let position = self.next_position.to_be_bytes().to_vec();
                batch.put(layout::log_index(id, replica, number), position);
            }
            self.next_position += 1;
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
            let mut store = |chunk, bytes| batch.put(layout::chunk(id, chunk), bytes);
            let persisted = table.persist(&mut self.checkpoint.next_chunk, chunks, &mut store)?;
            if let Some(directory) = persisted.directory {
                batch.put(layout::table(id, gen_index, part), directory);
            }
            if let Some(buffer) = persisted.buffer {
                batch.put(layout::buffer(id, gen_index, part), buffer);
            }
            for chunk in persisted.replaced {
                batch.remove(layout::chunk(id, chunk));
            }
        }
        if self.is_judged {
            batch.put(layout::judgements(id), encode_judgements(&self.namespace));
        }
        self.checkpoint.position = self.next_position;
        batch.put(layout::checkpoint(id), self.checkpoint.encode());
        batch.put(layout::directory(id), self.namespace.encode_directory());
        // Everything can leave memory now: what is not on disk yet is in the batch.
        self.evict_above = self.memory_bytes_max;
        Ok(())
    }

    /// Drops chunks where there are more in memory than there may be. What has changed stays until
    /// a checkpoint has written it.
    fn keep_within_memory(&mut self) {
        if self.namespace.loaded_bytes() > self.evict_above {
            let loaded_bytes = self.namespace.evict(self.memory_bytes_max);
            self.is_over_memory = loaded_bytes > self.memory_bytes_max;
            // Looking for more at once would find nothing.
            let margin = self.memory_bytes_max / 16;
            self.evict_above = self.memory_bytes_max.max(loaded_bytes + margin);
        }
    }

    /// Whether chunks take up more memory than they may because they are not on disk yet.
    pub(crate) fn is_over_memory(&self) -> bool {
        self.is_over_memory
    }

    fn finish_flush(&mut self, flushed: Flushed) {
        self.log_bytes_since_checkpoint += flushed.pending.record.len();
        self.durable_count += flushed.pending.change_count;
        self.durable_vector.join(&flushed.vector);
    }

    /// Puts back what could not be written, in front of what has come since.
    fn restore_pending(&mut self, flushed: Flushed) {
        self.next_position = flushed.previous_position;
        self.directory_counts = flushed.previous_directory_counts;
        let later = std::mem::replace(&mut self.pending, flushed.pending);
        self.pending.record.extend_from_slice(&later.record);
        self.pending.change_count += later.change_count;
    }
}

/// A table as it is on disk; `None` where it has never had rows.
pub(crate) fn stored_table(
    storage: &dyn Storage,
    id: NamespaceId,
    gen_index: GenIndex,
    part: TablePart,
) -> std::result::Result<Option<StoredTable>, StorageError> {
    let directory = storage.get(&layout::table(id, gen_index, part))?;
    let buffer = storage.get(&layout::buffer(id, gen_index, part))?;
    let is_there = directory.is_some() || buffer.is_some();
    let (directory, buffer) = (directory.unwrap_or_default(), buffer.unwrap_or_default());
    Ok(is_there.then_some(StoredTable { directory, buffer }))
}

/// The changes on disk.
pub(crate) struct StoredLog<'a> {
    storage: &'a dyn Storage,
    id: NamespaceId,
    name: &'a str,
}

impl StoredLog<'_> {
    /// Visits the changes from a position on. Gives the position behind the last one.
    pub(crate) fn visit_from(&self, from: u64, visit: &mut dyn FnMut(&Change<'_>)) -> Result<u64> {
        let mut malformed = None;
        let mut next = from;
        let to = layout::log(self.id, u64::MAX);
        self.storage.scan(&layout::log(self.id, from), &to, &mut |key, record| {
            let mut reader = Reader::new(record);
            while !reader.is_empty() {
                match Change::read_log_record(&mut reader) {
                    Ok(change) => visit(&change),
                    Err(what) => {
                        malformed = Some(what);
                        return false;
                    }
                }
            }
            next = layout::trailing_u64(key) + 1;
            true
        })?;
        match malformed {
            Some(what) => {
                Err(Error::damaged(format!("the log of namespace '{}': {what}", self.name)))
            }
            None => Ok(next),
        }
    }
}

/// What is set aside, by replica key, in order of indexes.
fn encode_judgements(namespace: &Namespace) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, key) in namespace.replicas().keys().iter().enumerate() {
        let ranges = namespace.set_aside(index as ReplicaIndex);
        if !ranges.is_empty() {
            out.extend_from_slice(&key.0);
            ranges.encode(&mut out);
        }
    }
    out
}

fn restore_judgements(
    namespace: &mut Namespace,
    stored: &[u8],
) -> std::result::Result<(), MalformedFrame> {
    let mut reader = Reader::new(stored);
    while !reader.is_empty() {
        let replica = namespace.intern_replica(ReplicaKey(reader.array()?));
        namespace.restore_set_aside(replica, Ranges::decode(&mut reader)?);
    }
    Ok(())
}

struct Replayed {
    next_position: u64,
    byte_count: usize,
}

/// Joins the log from a position on.
fn replay(
    namespace: &mut Namespace,
    id: NamespaceId,
    storage: &dyn Storage,
    from: u64,
) -> Result<Replayed> {
    let mut replayed = Replayed { next_position: from, byte_count: 0 };
    let mut failure = None;
    let to = layout::log(id, u64::MAX);
    storage.scan(&layout::log(id, from), &to, &mut |key, record| {
        replayed.next_position = layout::trailing_u64(key) + 1;
        replayed.byte_count += record.len();
        match replay_record(namespace, id, storage, record) {
            Ok(()) => true,
            Err(error) => {
                failure = Some(error);
                false
            }
        }
    })?;
    failure.map_or(Ok(replayed), Err)
}

fn replay_record(
    namespace: &mut Namespace,
    id: NamespaceId,
    storage: &dyn Storage,
    record: &[u8],
) -> Result<()> {
    let mut reader = Reader::new(record);
    while !reader.is_empty() {
        let change = Change::read_log_record(&mut reader)
            .map_err(|what| Error::damaged(format!("a log record: {what}")))?;
        if change.replica as usize >= namespace.replicas().keys().len() {
            return Err(Error::damaged(
                "a log record names a replica that is not in the directory",
            ));
        }
        namespace.apply_own(&change, &mut StoredChunks::of_storage(storage, id), &mut ())?;
    }
    Ok(())
}

/// Callbacks that are called when more has become durable.
#[derive(Default)]
pub(crate) struct Listeners {
    entries: Arc<Mutex<ListenerEntries>>,
}

type Callback = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct ListenerEntries {
    next_id: u64,
    callbacks: Vec<(u64, Callback)>,
}

/// Ends a subscription when it is dropped.
pub struct ListenerGuard {
    entries: Arc<Mutex<ListenerEntries>>,
    id: u64,
}

impl Listeners {
    pub(crate) fn add(&self, callback: impl Fn() + Send + Sync + 'static) -> ListenerGuard {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let id = entries.next_id;
        entries.next_id += 1;
        entries.callbacks.push((id, Arc::new(callback)));
        ListenerGuard { entries: self.entries.clone(), id }
    }

    pub(crate) fn notify(&self) {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let callbacks: Vec<Callback> =
            entries.callbacks.iter().map(|(_, callback)| callback.clone()).collect();
        // A callback may end its own subscription, so the list must not be locked meanwhile.
        drop(entries);
        callbacks.iter().for_each(|callback| callback());
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.callbacks.retain(|(id, _)| *id != self.id);
    }
}
