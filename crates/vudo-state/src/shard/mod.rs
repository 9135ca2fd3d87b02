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

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use ed25519_dalek::SigningKey;
use vudo_crdt::wire::Reader;
use vudo_crdt::{
    Change, ChunkId, DifferentRows, Fingerprint, GenIndex, GenSchema, Namespace, Ranges,
    ReplicaIndex, ReplicaKey, Seal, Transaction, VersionVector, limits,
};

mod flush;

use crate::ahead::AtHand;
use crate::arriving::FrameOnDisk;
use crate::compaction::join_at;
use crate::cursors::Cursors;
use crate::database::OpenOptions;
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::inside::{Inside, check_outside, is_inside};
use crate::layout::{self, Checkpoint, NamespaceId};
use crate::listeners::Listeners;
use crate::notices::{Notices, Recorder, SharedSchema};
use crate::outbox::Acknowledgements;
use crate::recovery::{StoredLog, open_namespace, open_seals, replay, table_checkpoint};
use crate::rights::{RecordId, Rights};
use crate::seals::Seals;
use crate::storage::{Storage, WriteBatch};
use crate::stored_chunks::StoredChunks;
use crate::subscription::{Origin, Subscribers};

pub(crate) use flush::{Commit, FlushTurn, Flushed, RECORD_BYTES_MAX};

/// A transaction of more than this is not kept for the room that it has.
const SPARE_BYTES_MAX: usize = 64 << 10;

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
    pub(crate) key: SigningKey,
    /// Held while this store's own changes are sealed, and while a part of the log is replaced. The turn to
    /// flush comes before it and the state behind it, where somebody has more than one of them.
    pub(crate) sealing: Mutex<()>,
    pub(crate) acknowledgements: Acknowledgements,
    /// Their lock comes behind that of the state, where somebody has both.
    pub(crate) cursors: Cursors,
    /// Held while a pin is set, and while a compaction finds out which pins there are.
    pub(crate) pinning: Mutex<()>,
    /// How much of what a peer retains below its checkpoint is taken.
    pub(crate) catch_up_bytes_max: u64,
    /// Whether somebody has asked for the namespace since this was last looked at.
    was_used: AtomicBool,
}

pub(crate) struct State {
    pub(crate) namespace: Namespace,
    pub(crate) own: ReplicaIndex,
    pub(crate) pending: Pending,
    pub(crate) frame_on_disk: FrameOnDisk,
    /// Whether a batch is on its way to disk. One at a time keeps the log in order.
    is_flushing: bool,
    checkpoint: Checkpoint,
    /// Replicas and Gens on disk: the directory is written again when there are more.
    directory_counts: (usize, usize),
    log_bytes_since_checkpoint: usize,
    pub(crate) next_position: u64,
    /// How many changes have been applied and how many of those are on disk, since opening.
    pub(crate) applied_count: u64,
    pub(crate) durable_count: u64,
    pub(crate) durable_vector: VersionVector,
    pub(crate) seals: Seals,
    /// What has been written last, where it was sealed on its way to disk.
    pub(crate) at_hand: Option<AtHand>,
    /// A segment of the log ends when it is this large.
    segment_bytes: usize,
    pub(crate) notices: Notices,
    /// What chunks may take up in memory, and from where on some are dropped: more than that
    /// while nothing more can be.
    memory_bytes_max: usize,
    evict_above: usize,
    is_over_memory: bool,
    /// Whether anything has ever been set aside.
    pub(crate) is_judged: bool,
    /// Who may write, where the namespace has owners.
    pub(crate) rights: Option<Rights>,
    /// Records that are held and not on disk.
    pub(crate) unsaved_records: BTreeSet<RecordId>,
    /// Whether what is set aside follows from fewer records than are held.
    pub(crate) is_judgement_stale: bool,
    /// How often it has been judged what is, since opening.
    pub(crate) judgement_count: u64,
    /// Up to where the log has been compacted.
    pub(crate) floor: Option<Arc<Floor>>,
    /// While a compaction goes on: the chunks that have been replaced meanwhile, which it may read.
    pub(crate) kept_chunks: Option<Vec<ChunkId>>,
    /// Chunks that nobody reads any more; the next checkpoint removes them.
    pub(crate) released_chunks: Vec<ChunkId>,
    /// What has to go to disk in one batch with the changes that are pending, and the tables.
    pub(crate) with_pending: WithPending,
    /// How often the end of a log has been replaced by another branch, since opening.
    pub(crate) branch_count: u64,
    /// The last small transaction: the next one uses the room that it has.
    spare: Option<Transaction>,
}

/// Writes that go to disk with the changes that are pending, and not before.
#[derive(Clone, Default)]
pub(crate) struct WithPending {
    pub(crate) batch: WriteBatch,
    /// Of this replica they take the changes above a number from the log that is on disk.
    pub(crate) without: Option<(ReplicaIndex, u64)>,
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
    pub(crate) record: Vec<u8>,
    pub(crate) change_count: u64,
    pub(crate) units: Vec<Unit>,
}

/// The changes of a peer's frame, which are sealed together.
pub(crate) struct Unit {
    /// Where in the pending record they begin and end.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// By replica: the number of its last change, and the seal on that.
    pub(crate) seals: Vec<(ReplicaIndex, u64, Seal)>,
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
        key: SigningKey,
        seed: u64,
        options: &OpenOptions,
        schema: &SharedSchema,
    ) -> Result<Shard> {
        let own_key = ReplicaKey(key.verifying_key().to_bytes());
        let (mut namespace, is_judged) = open_namespace(name, id, &*storage, seed)?;
        let checkpoint = table_checkpoint(name, id, &*storage)?;
        let floor = Floor::read(name, id, &*storage)?.map(Arc::new);
        let acknowledgements = Acknowledgements::open(&*storage, id, own_key)?;
        let cursors = Cursors::open(&*storage, id)?;
        let mut seals = open_seals(
            &mut namespace,
            name,
            id,
            &*storage,
            &own_key,
            checkpoint.position,
            floor.as_deref(),
        )?;
        let rights = Rights::open(name, id, &*storage)?;
        let replayed = replay(
            &mut namespace,
            &mut seals,
            (name, id),
            &*storage,
            &own_key,
            checkpoint,
            rights.as_ref(),
        )?;
        let is_judgement_stale = match &rights {
            Some(rights) => !rights.is_judged(id, &*storage)?,
            None => false,
        };
        let own = namespace.replicas().find(&own_key);
        seals.open_segment(id, &*storage, own, options.segment_bytes)?;
        namespace.evict(options.memory_bytes_max);
        let directory_counts = (namespace.replicas().keys().len(), namespace.gen_names().len());
        let own = namespace.intern_replica(own_key);
        let durable_vector = namespace.version_vector();
        let state = State {
            namespace,
            own,
            pending: Pending::default(),
            frame_on_disk: FrameOnDisk::None,
            is_flushing: false,
            checkpoint,
            directory_counts,
            log_bytes_since_checkpoint: replayed.byte_count,
            next_position: replayed.next_position,
            applied_count: 0,
            durable_count: 0,
            durable_vector,
            seals,
            at_hand: None,
            segment_bytes: options.segment_bytes,
            notices: Notices::of(schema.clone()),
            memory_bytes_max: options.memory_bytes_max,
            evict_above: options.memory_bytes_max,
            is_over_memory: false,
            is_judged: is_judged || rights.is_some(),
            rights,
            unsaved_records: BTreeSet::new(),
            is_judgement_stale,
            judgement_count: 0,
            floor,
            kept_chunks: None,
            released_chunks: Vec::new(),
            with_pending: WithPending::default(),
            branch_count: 0,
            spare: None,
        };
        let shard = Shard {
            name: name.into(),
            id,
            storage,
            state: Mutex::new(state),
            flush_ended: Condvar::new(),
            travelling: Mutex::default(),
            subscribers: Arc::default(),
            durable_listeners: Listeners::default(),
            acknowledgements,
            cursors,
            key,
            sealing: Mutex::default(),
            pinning: Mutex::default(),
            catch_up_bytes_max: options.catch_up_bytes_max,
            was_used: AtomicBool::new(true),
        };
        shard.catch_up_with_judgement()?;
        shard.apply_left_frame()?;
        Ok(shard)
    }

    /// Whether closing it would take something from somebody. Whoever asks keeps others from getting
    /// it, and holds one handle to it.
    pub(crate) fn is_in_use(self: &Arc<Shard>) -> bool {
        Arc::strong_count(self) > 1 || self.subscribers.any() || self.durable_listeners.any()
    }

    pub(crate) fn note_use(&self) {
        self.was_used.store(true, Ordering::Relaxed);
    }

    /// Whether it has been used since this was called the last time.
    pub(crate) fn was_used(&self) -> bool {
        self.was_used.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn id(&self) -> NamespaceId {
        self.id
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// # Panics
    /// Inside a transaction of the store, where this would wait for ever. What can fail gives
    /// [`Error::InsideTransaction`] before it comes here.
    pub(crate) fn lock(&self) -> StateGuard<'_> {
        assert!(!is_inside(&self.storage), "{}", Error::InsideTransaction);
        StateGuard(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether nobody has the state locked at this moment.
    pub(crate) fn is_idle(&self) -> bool {
        !matches!(self.state.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// The state, where nobody has it locked: for what is done while a batch goes to disk, for which the
    /// commits of all namespaces wait.
    pub(crate) fn try_lock(&self) -> Option<StateGuard<'_>> {
        match self.state.try_lock() {
            Ok(state) => Some(StateGuard(state)),
            Err(TryLockError::Poisoned(poisoned)) => Some(StateGuard(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// To be held while the application's code runs with the state locked.
    pub(crate) fn inside(&self) -> Inside {
        Inside::of(&self.storage)
    }

    /// Refuses what would wait for the transaction that it is part of.
    pub(crate) fn check_outside(&self) -> Result<()> {
        check_outside(&self.storage)
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
        state.spare = (transaction.byte_count() <= SPARE_BYTES_MAX).then_some(transaction);
        self.publish(state, Origin::Local);
        state.keep_within_memory();
        Ok(state.applied_count)
    }

    pub(crate) fn publish(&self, state: &mut State, origin: Origin) {
        let State { notices, namespace, .. } = state;
        notices.publish(&self.name, origin, &self.subscribers, namespace, &mut self.chunks());
    }

    /// Judges which changes of these replicas are set aside, and makes that durable: see
    /// [`crate::Replication::judge`].
    pub(crate) fn judge(&self, judgements: &[(ReplicaKey, Ranges)]) -> Result<usize> {
        self.rebuild_with(|state, log, chunks| {
            let mut of_index = Vec::new();
            for (key, ranges) in judgements {
                let replica = state.namespace.intern_replica(*key);
                // What a checkpoint judged stands.
                let floor = state.floor.as_ref().map_or(0, |floor| floor.vector.get(key));
                let ranges = join_at(floor, state.namespace.set_aside(replica), ranges);
                of_index.push((replica, ranges));
            }
            state.is_judged = true;
            state.judgement_count += 1;
            let own = state.own;
            let (namespace, mut recorder) = state.recorder(self.subscribers.any());
            let judged = namespace.judge(of_index, log, chunks, &mut recorder);
            recorder.judged(own);
            Ok(judged?)
        })
    }

    /// Puts what the log makes of these documents in place of what the tables have, and makes that
    /// durable.
    pub(crate) fn rebuild(&self, different: &DifferentRows) -> Result<usize> {
        self.rebuild_with(|state, log, chunks| {
            let touched = different.documents(&state.namespace);
            let own = state.own;
            let (namespace, mut recorder) = state.recorder(self.subscribers.any());
            let rebuilt = namespace.rebuild(&touched, log, chunks, &mut recorder);
            recorder.judged(own);
            Ok(rebuilt.map(|()| touched.count())?)
        })
    }

    /// Does what rebuilds documents from the log on disk, which is whole then, and tells subscribers.
    fn rebuild_with(
        &self,
        work: impl FnOnce(&mut State, &mut StoredLog<'_>, &mut StoredChunks<'_>) -> Result<usize>,
    ) -> Result<usize> {
        let (turn, mut state) = self.turn_with_whole_log()?;
        let rebuilt = match work(&mut state, &mut self.stored_log(), &mut self.chunks()) {
            Ok(rebuilt) => rebuilt,
            Err(error) => {
                // The turn ends with the state unlocked.
                drop(state);
                return Err(error);
            }
        };
        self.publish(&mut state, Origin::Local);
        drop(state);
        let written = self.checkpoint();
        drop(turn);
        // A callback may write, and so wait for a turn.
        self.subscribers.run_callbacks();
        written.map(|()| rebuilt)
    }

    /// Waits for the turn to write to disk, with everything on disk that has been applied.
    pub(crate) fn turn_with_whole_log(&self) -> Result<(FlushTurn<'_>, StateGuard<'_>)> {
        loop {
            self.flush_all()?;
            let (turn, state) = self.turn();
            // What came since is flushed first.
            if state.durable_count == state.applied_count {
                return Ok((turn, state));
            }
        }
    }

    /// The log on disk.
    pub(crate) fn stored_log(&self) -> StoredLog<'_> {
        StoredLog { storage: &*self.storage, id: self.id, name: &self.name }
    }

    fn lock_travelling(&self) -> MutexGuard<'_, Option<Arc<WriteBatch>>> {
        self.travelling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn durable_vector(&self) -> VersionVector {
        self.lock().durable_vector.clone()
    }

    pub(crate) fn fingerprint(&self) -> Result<(VersionVector, Fingerprint)> {
        self.catch_up_with_judgement()?;
        self.hash_rows(|namespace, chunks| {
            let fingerprint = namespace.fingerprint(chunks)?;
            Ok((namespace.version_vector(), fingerprint))
        })
    }

    /// Does what hashes rows.
    pub(crate) fn hash_rows<T>(
        &self,
        work: impl FnOnce(&mut Namespace, &mut StoredChunks<'_>) -> Result<T>,
    ) -> Result<T> {
        let worked = work(&mut self.lock().namespace, &mut self.chunks())?;
        // Rows have moved to chunks, which cannot leave memory before they are on disk.
        if self.lock().is_over_memory() {
            self.write_out(usize::MAX)?;
        }
        Ok(worked)
    }

    /// Visits the changes on disk that `since` does not cover, in the order in which they were
    /// applied, until the visitor says `false`: below the floor those that are retained. Indexes are
    /// the namespace's.
    pub(crate) fn visit_log(
        &self,
        since: &VersionVector,
        mut visit: impl FnMut(&Change<'_>) -> bool,
    ) -> Result<()> {
        let (keys, durable, floor) = {
            let state = self.lock();
            let keys = state.namespace.replicas().keys().to_vec();
            (keys, state.durable_vector.clone(), state.floor.clone())
        };
        let covered: Vec<u64> = keys.iter().map(|key| since.get(key)).collect();
        let mut start = u64::MAX;
        if floor.is_some_and(|floor| !since.covers(&floor.vector)) {
            // Below the floor nobody knows where a number lies.
            start = 0;
        }
        for (replica, key) in keys.iter().enumerate() {
            if start > 0 && durable.get(key) > covered[replica] {
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
    pub(crate) fn position_of(&self, replica: ReplicaIndex, number: u64) -> Result<u64> {
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

impl State {
    /// Begins a transaction of this replica.
    pub(crate) fn begin(&mut self, now_milliseconds: u64) -> Transaction {
        let mut transaction = self.spare.take().unwrap_or_else(|| Transaction::idle(self.own));
        transaction.begin_again(&self.namespace, now_milliseconds);
        transaction
    }

    /// The namespace, and what takes down how it changes.
    pub(crate) fn recorder(&mut self, has_subscribers: bool) -> (&mut Namespace, Recorder<'_>) {
        let State { namespace, pending, notices, .. } = self;
        notices.prepare();
        (namespace, Recorder { pending, notices, has_subscribers })
    }

    /// The changes that are not on disk and not on their way there, as the log keeps them.
    pub(crate) fn pending_record(&self) -> &[u8] {
        &self.pending.record
    }

    /// The index of a Gen, which the namespace takes in where it does not have it.
    pub(crate) fn intern_gen(&mut self, gen_schema: &GenSchema) -> Result<GenIndex> {
        self.intern_gen_named(&gen_schema.name)
    }

    /// [`State::intern_gen`] of a name.
    pub(crate) fn intern_gen_named(&mut self, name: &str) -> Result<GenIndex> {
        let found = self.namespace.intern_gen(name);
        found.ok_or_else(|| {
            let what = format!("a namespace holds at most {} Gens", limits::MAX_GENS);
            Error::Frame(what)
        })
    }

    /// Appends changes of a peer, as the log keeps them, that are sealed together, to what is pending.
    pub(crate) fn push_unit(
        &mut self,
        records: &[u8],
        change_count: u64,
        (replica, number, seal): (ReplicaIndex, u64, Seal),
    ) {
        let start = self.pending.record.len();
        self.pending.record.extend_from_slice(records);
        self.pending.change_count += change_count;
        self.applied_count += change_count;
        let end = self.pending.record.len();
        self.pending.units.push(Unit { start, end, seals: vec![(replica, number, seal)] });
    }

    /// Makes the next flush write what goes with what is pending, though no change is.
    pub(crate) fn expect_flush(&mut self) {
        self.pending.change_count += 1;
        self.applied_count += 1;
    }

    /// Takes back what [`State::push_unit`] has put where nothing was pending.
    pub(crate) fn take_unit_back(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.applied_count -= pending.change_count;
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
}
