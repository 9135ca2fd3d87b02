//! Cursors: what this store and a peer both held when they were last found to be equal.
//!
//! A session then begins with what has changed since, and not with what is held of every replica. A
//! cursor is worth nothing where the end of a log has been replaced by another branch, and all of them are
//! forgotten in the batch that does it. What a crash forgets costs two sides that meet again a few bytes
//! more.
//!
//! Anybody whom a secret lets in can make keys, so only so much is remembered, and whoever has been away
//! for longest leaves first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vudo_crdt::limits::MAX_VECTOR_REPLICAS;
use vudo_crdt::wire::{MalformedFrame, Reader, write_varint};
use vudo_crdt::{ReplicaKey, VersionVector};

use crate::error::Error;
use crate::layout::{self, NamespaceId};
use crate::limits::{CURSOR_REPLICAS_MAX, CURSORS_MAX};
use crate::replication::Replication;
use crate::storage::{Storage, WriteBatch};

/// A digest of what was held, made by whoever replicates.
pub type CursorDigest = [u8; 16];

/// What two stores both held at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Tells it from others.
    pub digest: CursorDigest,
    /// How many changes of each replica.
    pub vector: Arc<VersionVector>,
}

/// The cursors of a namespace.
#[derive(Default)]
pub(crate) struct Cursors {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_peer: BTreeMap<ReplicaKey, Remembered>,
    /// How often a peer has been met.
    count: u64,
    /// Whether storage has others.
    is_changed: bool,
}

struct Remembered {
    cursor: Cursor,
    /// How often any peer had been met before.
    order: u64,
}

impl Cursors {
    /// Reads what storage has of them.
    pub(crate) fn open(storage: &dyn Storage, id: NamespaceId) -> Result<Cursors, Error> {
        let Some(stored) = storage.get(&layout::cursors(id))? else {
            return Ok(Cursors::default());
        };
        let state = State::decode(&stored)
            .map_err(|what| Error::damaged(format!("what was held when peers were met: {what}")))?;
        Ok(Cursors { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, peer: &ReplicaKey) -> Option<Cursor> {
        self.lock().by_peer.get(peer).map(|found| found.cursor.clone())
    }

    fn remember(&self, peer: ReplicaKey, cursor: Cursor) {
        self.lock().remember(peer, cursor);
    }

    /// Forgets all of them, in the next batch of [`Cursors::write_changed`].
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.is_changed |= !state.by_peer.is_empty();
        state.by_peer.clear();
    }

    /// Adds to a batch what storage does not have yet.
    pub(crate) fn write_changed(&self, id: NamespaceId, batch: &mut WriteBatch) {
        let mut state = self.lock();
        if std::mem::take(&mut state.is_changed) {
            batch.put(layout::cursors(id), state.encode());
        }
    }

    /// Takes note that a batch has failed.
    pub(crate) fn not_written(&self) {
        self.lock().is_changed = true;
    }
}

impl State {
    fn remember(&mut self, peer: ReplicaKey, mut cursor: Cursor) {
        if cursor.vector.replica_count() > CURSOR_REPLICAS_MAX {
            return;
        }
        // Peers of one server are mostly met with the same in hand.
        let same = self.by_peer.values().find(|other| other.cursor == cursor);
        if let Some(same) = same {
            cursor = same.cursor.clone();
        }
        self.count += 1;
        let before = self.by_peer.insert(peer, Remembered { cursor, order: self.count });
        self.is_changed |= before.is_none_or(|before| before.cursor != self.by_peer[&peer].cursor);
        while self.by_peer.len() > CURSORS_MAX || self.replica_count() > CURSOR_REPLICAS_MAX {
            let oldest = self.by_peer.iter().min_by_key(|(_, found)| found.order);
            let Some(oldest) = oldest.map(|(peer, _)| *peer) else { return };
            self.by_peer.remove(&oldest);
        }
    }

    /// Of all cursors, those that are the same taken once.
    fn replica_count(&self) -> usize {
        let distinct: BTreeMap<_, _> = (self.by_peer.values())
            .map(|found| (found.cursor.digest, found.cursor.vector.replica_count()))
            .collect();
        distinct.values().sum()
    }

    /// Keys of replicas, and the number of each of them in every distinct cursor; then peers, from the one
    /// that has been away for longest, each with the place of its cursor.
    fn encode(&self) -> Vec<u8> {
        let mut peers: Vec<_> = self.by_peer.iter().collect();
        peers.sort_unstable_by_key(|(_, found)| found.order);
        let distinct: BTreeMap<CursorDigest, &VersionVector> =
            (peers.iter()).map(|(_, found)| (found.cursor.digest, &*found.cursor.vector)).collect();
        let keys: BTreeSet<ReplicaKey> =
            distinct.values().flat_map(|vector| vector.iter().map(|(key, _)| key)).collect();
        let mut out = Vec::new();
        write_varint(&mut out, keys.len() as u64);
        keys.iter().for_each(|key| out.extend_from_slice(&key.0));
        write_varint(&mut out, distinct.len() as u64);
        for (digest, vector) in &distinct {
            out.extend_from_slice(digest);
            keys.iter().for_each(|key| write_varint(&mut out, vector.get(key)));
        }
        let digests: Vec<&CursorDigest> = distinct.keys().collect();
        write_varint(&mut out, peers.len() as u64);
        for (peer, found) in peers {
            out.extend_from_slice(&peer.0);
            let place = digests.partition_point(|digest| **digest < found.cursor.digest);
            write_varint(&mut out, place as u64);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<State, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let mut keys = Vec::new();
        for _ in 0..reader.varint_up_to(MAX_VECTOR_REPLICAS as u64)? {
            keys.push(ReplicaKey(reader.array()?));
        }
        let mut cursors = Vec::new();
        for _ in 0..reader.varint_up_to(CURSORS_MAX as u64)? {
            let digest = reader.array()?;
            let mut vector = VersionVector::new();
            for key in &keys {
                vector.advance(*key, reader.varint()?);
            }
            cursors.push(Cursor { digest, vector: Arc::new(vector) });
        }
        let mut state = State::default();
        for _ in 0..reader.varint_up_to(CURSORS_MAX as u64)? {
            let peer = ReplicaKey(reader.array()?);
            let place = reader.varint()? as usize;
            let cursor = cursors.get(place).ok_or(MalformedFrame::IndexOutOfRange)?.clone();
            state.count += 1;
            state.by_peer.insert(peer, Remembered { cursor, order: state.count });
        }
        reader.is_empty().then_some(state).ok_or(MalformedFrame::TrailingBytes)
    }
}

impl Replication {
    /// What this store and a peer both held when they were last found to be equal, as far as that is
    /// remembered. All of it is held here, and the logs are the same ones.
    pub fn cursor(&self, peer: &ReplicaKey) -> Option<Cursor> {
        let cursor = self.shard().cursors.of(peer)?;
        // A store that was cut short of what it had holds less.
        self.durable_vector().covers(&cursor.vector).then_some(cursor)
    }

    /// Remembers that this store and a peer both hold this, durably. It goes to disk with the tables, or as
    /// the namespace is closed. Where the end of a log has been replaced since `branch_count` was asked
    /// for ([`Replication::branch_count`]), nothing is remembered.
    pub fn remember_cursor(&self, peer: ReplicaKey, cursor: Cursor, branch_count: u64) {
        let shard = self.shard();
        // Whoever replaces a log clears the cursors while holding this.
        let state = shard.lock();
        if state.branch_count == branch_count && state.durable_vector.covers(&cursor.vector) {
            shard.cursors.remember(peer, cursor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> ReplicaKey {
        let mut key = ReplicaKey::default();
        key.0[..4].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn cursor(digest: u8, replicas: std::ops::Range<u32>) -> Cursor {
        let mut vector = VersionVector::new();
        replicas.for_each(|replica| vector.advance(key(replica), u64::from(replica) + 300));
        Cursor { digest: [digest; 16], vector: Arc::new(vector) }
    }

    #[test]
    fn what_is_encoded_is_read_again() {
        let mut state = State::default();
        state.remember(key(1), cursor(9, 0..3));
        state.remember(key(2), cursor(1, 2..50));
        state.remember(key(3), cursor(9, 0..3));
        let read = State::decode(&state.encode()).unwrap();
        let all = |state: &State| -> Vec<(ReplicaKey, Cursor, u64)> {
            let by_peer = state.by_peer.iter();
            by_peer.map(|(peer, found)| (*peer, found.cursor.clone(), found.order)).collect()
        };
        assert_eq!(all(&read), all(&state));
        assert!(!read.is_changed && state.is_changed);
        let encoded = state.encode();
        for length in 0..encoded.len() {
            assert!(State::decode(&encoded[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn two_peers_that_were_met_with_the_same_share_it() {
        let mut state = State::default();
        (0..200).for_each(|peer| state.remember(key(peer), cursor(7, 0..1_000)));
        assert_eq!((state.by_peer.len(), state.replica_count()), (200, 1_000));
        let vectors = state.by_peer.values().map(|found| Arc::as_ptr(&found.cursor.vector));
        assert_eq!(vectors.collect::<BTreeSet<_>>().len(), 1);
    }

    #[test]
    fn only_so_many_are_remembered_and_the_oldest_leave_first() {
        let mut state = State::default();
        for peer in 0..CURSORS_MAX as u32 + 10 {
            state.remember(key(peer), cursor(peer as u8, 0..4));
            // Who is met again and again stays.
            state.remember(key(0), cursor(0, 0..4));
        }
        assert_eq!(state.by_peer.len(), CURSORS_MAX);
        assert!(state.by_peer.contains_key(&key(0)) && !state.by_peer.contains_key(&key(1)));
        for peer in 1_000..1_010 {
            state.remember(key(peer), cursor(peer as u8, 0..CURSOR_REPLICAS_MAX as u32 / 2));
        }
        assert!(state.replica_count() <= CURSOR_REPLICAS_MAX);
        assert!(state.by_peer.contains_key(&key(1_009)));
        state.remember(key(5), cursor(5, 0..CURSOR_REPLICAS_MAX as u32 + 1));
        assert!(!state.by_peer.contains_key(&key(5)), "it is too large to be remembered");
    }
}
