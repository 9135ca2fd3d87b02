//! The outbox: what this replica wrote that no other one has acknowledged as durable.
//!
//! Nothing is queued. The log holds every change, and for each peer a number says up to where it has
//! those of this replica on its disk. So the outbox is bounded by the disk alone, it survives a
//! restart as the log does, and a number that a crash loses makes it say too much, never too little.
//!
//! Anybody can make keys, so only so many peers are remembered. Whoever has acknowledged least leaves
//! first, and of those the one that has been silent for longest: what some peer has is known as before,
//! and a peer that is forgotten seems to have less than it has, never more.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vudo_crdt::wire::{Reader, write_varint};
use vudo_crdt::{ReplicaKey, VersionVector};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::layout::{self, NamespaceId};
use crate::limits::ACKNOWLEDGING_PEERS_MAX;
use crate::listeners::{ListenerGuard, Listeners};
use crate::shard::Shard;
use crate::storage::{Storage, WriteBatch};

/// What peers have acknowledged of the changes of this store's own replica.
pub(crate) struct Acknowledgements {
    own: ReplicaKey,
    state: Mutex<State>,
    advanced: Condvar,
    listeners: Listeners,
}

#[derive(Default)]
struct State {
    /// By peer: up to which number.
    numbers: BTreeMap<ReplicaKey, Acknowledged>,
    /// How often something has been acknowledged.
    count: u64,
    /// Whether storage has older numbers.
    is_changed: bool,
}

/// What a peer has acknowledged. They are ordered by which of them is forgotten first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Acknowledged {
    number: u64,
    /// How often anything had been acknowledged before.
    order: u64,
}

impl State {
    fn anywhere(&self) -> u64 {
        self.numbers.values().map(|found| found.number).max().unwrap_or(0)
    }

    fn by(&self, peer: Option<&ReplicaKey>) -> u64 {
        match peer {
            Some(peer) => self.numbers.get(peer).map_or(0, |found| found.number),
            None => self.anywhere(),
        }
    }

    /// Remembers what a peer has acknowledged, and forgets somebody where there are too many. Gives
    /// whether it was not that peer.
    fn take(&mut self, peer: ReplicaKey, number: u64) -> bool {
        self.count += 1;
        self.numbers.insert(peer, Acknowledged { number, order: self.count });
        if self.numbers.len() <= ACKNOWLEDGING_PEERS_MAX {
            return true;
        }
        let least = self.numbers.iter().min_by_key(|(_, found)| **found).map(|(peer, _)| *peer);
        least.inspect(|peer| {
            self.numbers.remove(peer);
        });
        least != Some(peer)
    }
}

impl Acknowledgements {
    /// Reads what storage has of them. Those of another replica, whose store this one is a copy of,
    /// say nothing about this one.
    pub(crate) fn open(storage: &dyn Storage, id: NamespaceId, own: ReplicaKey) -> Result<Self> {
        let mut state = State::default();
        if let Some(stored) = storage.get(&layout::acknowledged(id))? {
            let damaged = |what| Error::damaged(format!("what peers acknowledged: {what}"));
            let mut reader = Reader::new(&stored);
            let written_by = ReplicaKey(reader.array().map_err(damaged)?);
            while !reader.is_empty() {
                let peer = ReplicaKey(reader.array().map_err(damaged)?);
                let number = reader.varint().map_err(damaged)?;
                if written_by == own {
                    state.take(peer, number);
                }
            }
        }
        let (state, advanced) = (Mutex::new(state), Condvar::new());
        Ok(Acknowledgements { own, state, advanced, listeners: Listeners::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a peer says is durable there, of what has been written here.
    pub(crate) fn record(
        &self,
        peer: ReplicaKey,
        durable: &VersionVector,
        written: &VersionVector,
    ) {
        let number = durable.get(&self.own).min(written.get(&self.own));
        let mut state = self.lock();
        if peer == self.own || state.by(Some(&peer)) >= number {
            return;
        }
        if !state.take(peer, number) {
            return;
        }
        state.is_changed = true;
        drop(state);
        self.advanced.notify_all();
        self.listeners.notify();
    }

    /// Adds to a batch what storage does not have yet. Should the batch fail, storage has older
    /// numbers, and a later one takes the newest along.
    pub(crate) fn write_changed(&self, id: NamespaceId, batch: &mut WriteBatch) {
        let mut state = self.lock();
        if std::mem::take(&mut state.is_changed) {
            let mut stored = self.own.0.to_vec();
            for (peer, Acknowledged { number, .. }) in &state.numbers {
                stored.extend_from_slice(&peer.0);
                write_varint(&mut stored, *number);
            }
            batch.put(layout::acknowledged(id), stored);
        }
    }
}

/// A change of this replica that waits to be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingChange {
    /// Its number among the replica's changes.
    pub number: u64,
    /// What it touches: Gen and key of each document.
    pub documents: Vec<(Arc<str>, String)>,
}

/// What this replica wrote in one namespace that no other has on its disk as far as is known.
#[derive(Clone)]
pub struct Outbox {
    shard: Arc<Shard>,
    /// Keeps the store open.
    _database: Database,
}

impl Database {
    /// The outbox of the handle's namespace.
    ///
    /// # Errors
    /// The namespace cannot be opened.
    pub fn outbox(&self) -> Result<Outbox> {
        Ok(Outbox { shard: self.shard()?, _database: self.clone() })
    }
}

impl Outbox {
    fn acknowledgements(&self) -> &Acknowledgements {
        &self.shard.acknowledgements
    }

    /// The number of this replica's last change; none is zero.
    pub fn last_number(&self) -> u64 {
        let state = self.shard.lock();
        state.namespace.heard(state.own)
    }

    /// How many changes no other replica has acknowledged.
    pub fn pending_count(&self) -> u64 {
        let acknowledged = self.acknowledgements().lock().anywhere();
        self.last_number().saturating_sub(acknowledged)
    }

    /// How many changes this peer has not acknowledged.
    pub fn pending_count_for(&self, peer: &ReplicaKey) -> u64 {
        let acknowledged = self.acknowledgements().lock().by(Some(peer));
        self.last_number().saturating_sub(acknowledged)
    }

    /// The peers that have acknowledged something, and up to which number each: at most 256, of those that
    /// have acknowledged most.
    pub fn peers(&self) -> Vec<(ReplicaKey, u64)> {
        let state = self.acknowledgements().lock();
        state.numbers.iter().map(|(peer, found)| (*peer, found.number)).collect()
    }

    /// The first of the changes that no other replica has acknowledged, at most so many. Those that
    /// are not durable here yet are left out, and those that compaction has dropped.
    ///
    /// # Errors
    /// The disk failed.
    pub fn pending(&self, count_max: usize) -> Result<Vec<PendingChange>> {
        self.shard.check_outside()?;
        let acknowledged = self.acknowledgements().lock().anywhere();
        let (own, gen_names, mut since) = {
            let state = self.shard.lock();
            let gen_names: Vec<Arc<str>> = state.namespace.gen_names().map(Arc::from).collect();
            (state.own, gen_names, state.namespace.version_vector())
        };
        // Nobody else's changes are of interest, and of the own ones only those behind the last that
        // was acknowledged.
        since = own_only(&since, self.acknowledgements().own, acknowledged);
        let mut pending = Vec::new();
        if count_max == 0 {
            return Ok(pending);
        }
        self.shard.visit_log(&since, |change| {
            if change.replica == own {
                let mut documents = Vec::new();
                change.for_each_document(|gen_index, key| {
                    let gen_name = gen_names.get(gen_index as usize).cloned().unwrap_or_default();
                    documents.push((gen_name, String::from_utf8_lossy(key).into_owned()));
                });
                pending.push(PendingChange { number: change.number, documents });
            }
            pending.len() < count_max
        })?;
        Ok(pending)
    }

    /// Waits until some other replica has everything on its disk that this one had written when the
    /// call began. Gives whether it has, within this time.
    pub fn wait_until_stored(&self, timeout: Duration) -> bool {
        self.wait(None, timeout)
    }

    /// As [`Outbox::wait_until_stored`], until this peer has it: a server, for example.
    pub fn wait_until_stored_by(&self, peer: &ReplicaKey, timeout: Duration) -> bool {
        self.wait(Some(peer), timeout)
    }

    fn wait(&self, peer: Option<&ReplicaKey>, timeout: Duration) -> bool {
        let wanted = self.last_number();
        let deadline = Instant::now() + timeout;
        let acknowledgements = self.acknowledgements();
        let mut state = acknowledgements.lock();
        while state.by(peer) < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = acknowledgements.advanced.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Calls back whenever a peer has acknowledged more, until the guard is dropped. The callback
    /// must return at once.
    pub fn on_acknowledged(&self, callback: impl Fn() + Send + Sync + 'static) -> ListenerGuard {
        self.acknowledgements().listeners.add(callback)
    }
}

/// A vector that covers everything of everybody else, and so much of one replica.
fn own_only(all: &VersionVector, own: ReplicaKey, number: u64) -> VersionVector {
    let mut vector = VersionVector::new();
    for (replica, heard) in all.iter() {
        vector.advance(replica, if replica == own { number } else { heard });
    }
    vector
}

#[cfg(test)]
mod tests {
    use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};

    use super::*;
    use crate::storage::MemoryStorage;

    fn peer(number: u64) -> ReplicaKey {
        let mut key = [0xee; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        ReplicaKey(key)
    }

    /// Keys cost nothing, so a peer can be as many as it likes.
    #[test]
    fn so_many_peers_are_remembered_and_no_more_than_they_have_is_ever_said() {
        let storage = Arc::new(MemoryStorage::default());
        let open = || Database::with_storage(storage.clone(), None).unwrap();
        let database = open();
        let text = FieldSchema::new("text", 1, Strategy::Lww, ValueType::String);
        let note = GenSchema::new("Note", [text]);
        let write = |key: &str| database.create(&note, &database.document_id(key), &[]).unwrap();
        let (replication, outbox) =
            (database.replication("default").unwrap(), database.outbox().unwrap());
        let acknowledge = |peer: ReplicaKey, number: u64| {
            let mut durable = VersionVector::new();
            durable.advance(database.replica_key(), number);
            replication.record_durable(peer, &durable);
        };
        ["one", "two", "three"].iter().for_each(|key| write(key));
        let server = peer(u64::MAX);
        acknowledge(server, 2);
        (0..1_000).for_each(|number| acknowledge(peer(number), 1));
        assert_eq!(outbox.peers().len(), ACKNOWLEDGING_PEERS_MAX);
        assert_eq!((outbox.pending_count_for(&server), outbox.pending_count()), (1, 1));
        let is_stored_by = |peer| outbox.wait_until_stored_by(&peer, Duration::ZERO);
        assert!(!is_stored_by(server) && !outbox.wait_until_stored(Duration::ZERO));
        // Those that have everything push out whoever has less.
        (0..1_000).for_each(|number| acknowledge(peer(number), 3));
        assert_eq!(outbox.peers().len(), ACKNOWLEDGING_PEERS_MAX);
        assert_eq!(outbox.pending_count_for(&server), 3, "it seems to have less than it has");
        assert!(!is_stored_by(server) && outbox.wait_until_stored(Duration::ZERO));
        acknowledge(server, 2);
        assert_eq!(outbox.pending_count_for(&server), 3);
        acknowledge(server, 3);
        assert!(is_stored_by(server));
        write("four");
        let peers = outbox.peers();
        assert!(!outbox.wait_until_stored(Duration::ZERO));
        drop((replication, outbox, database));
        assert_eq!(open().outbox().unwrap().peers(), peers);
    }
}
