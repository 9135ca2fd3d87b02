//! Replicas: who writes, and how far each has been heard.

use alloc::vec::Vec;
use core::fmt;

use crate::limits::MAX_VECTOR_REPLICAS;
use crate::sorted::search;
use crate::wire::{MalformedFrame, Reader, write_varint};

pub(crate) const REPLICA_KEY_BYTES: usize = 32;

/// The Ed25519 public key of one store instance that writes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey(pub [u8; REPLICA_KEY_BYTES]);

impl ReplicaKey {
    /// The key in 32 bytes.
    pub(crate) fn of(bytes: &[u8]) -> ReplicaKey {
        let mut key = ReplicaKey::default();
        key.0.copy_from_slice(bytes);
        key
    }
}

impl fmt::Debug for ReplicaKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for ReplicaKey {
    /// The first five bytes in hexadecimal: enough to tell replicas apart in a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..5] {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A replica's place in a [`Replicas`] list; without meaning outside the store that keeps it.
pub type ReplicaIndex = u32;

/// Interned replica keys: rows name a replica by a small number, not by 32 bytes.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    keys: Vec<ReplicaKey>,
    /// The indexes, ascending by key.
    sorted: Vec<ReplicaIndex>,
}

impl Replicas {
    pub(crate) const fn new() -> Replicas {
        Replicas { keys: Vec::new(), sorted: Vec::new() }
    }

    /// The index of a key, which is added where it is new. Indexes never change.
    pub fn intern(&mut self, key: &ReplicaKey) -> ReplicaIndex {
        self.intern_bytes(&key.0)
    }

    /// [`Replicas::intern`] of 32 bytes where they lie.
    pub(crate) fn intern_bytes(&mut self, key: &[u8]) -> ReplicaIndex {
        let index = self.keys.len() as ReplicaIndex;
        match self.search(key) {
            Ok(place) => self.sorted[place],
            Err(place) => {
                self.keys.push(ReplicaKey::default());
                self.keys[index as usize].0.copy_from_slice(key);
                self.sorted.insert(place, index);
                index
            }
        }
    }

    /// The index of a key that has been interned.
    pub fn find(&self, key: &ReplicaKey) -> Option<ReplicaIndex> {
        self.find_bytes(&key.0)
    }

    pub(crate) fn find_bytes(&self, key: &[u8]) -> Option<ReplicaIndex> {
        self.search(key).ok().map(|place| self.sorted[place])
    }

    /// The place of a key in the ascending order, or else the place where it belongs.
    #[inline(never)]
    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        search(self.sorted.len(), |place| self.key(self.sorted[place]).0.as_slice().cmp(key))
    }

    /// The indexes, ascending by key.
    pub(crate) fn ascending(&self) -> &[ReplicaIndex] {
        &self.sorted
    }

    /// The key at an index that [`Replicas::intern`] gave.
    pub fn key(&self, index: ReplicaIndex) -> &ReplicaKey {
        &self.keys[index as usize]
    }

    /// All keys, in the order of their indexes.
    pub fn keys(&self) -> &[ReplicaKey] {
        &self.keys
    }
}

/// For each replica the number up to which every change is held. Replicas at zero are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector {
    /// Sorted by key; every number is at least 1.
    entries: Vec<(ReplicaKey, u64)>,
}

impl VersionVector {
    /// A vector that covers nothing.
    pub fn new() -> VersionVector {
        VersionVector::default()
    }

    /// The number up to which the replica's changes are covered; zero where it is unknown.
    pub fn get(&self, replica: &ReplicaKey) -> u64 {
        match self.position(replica) {
            Ok(found) => self.entries[found].1,
            Err(_) => 0,
        }
    }

    /// Raises the replica's number; a lower one changes nothing.
    pub fn advance(&mut self, replica: ReplicaKey, number: u64) {
        match self.position(&replica) {
            Ok(found) => self.entries[found].1 = self.entries[found].1.max(number),
            Err(_) if number == 0 => {}
            Err(place) => self.entries.insert(place, (replica, number)),
        }
    }

    /// Raises every number to the other vector's.
    pub fn join(&mut self, other: &VersionVector) {
        let mut new_count = 0;
        for (replica, number) in other.iter() {
            match self.position(&replica) {
                Ok(found) => self.entries[found].1 = self.entries[found].1.max(number),
                Err(_) => new_count += 1,
            }
        }
        if new_count > 0 {
            self.insert_new(other, new_count);
        }
    }

    /// Takes in those replicas of another vector that are new here, all in one go: each for itself would
    /// move everything behind it.
    fn insert_new(&mut self, other: &VersionVector, new_count: usize) {
        let mut merged = Vec::with_capacity(self.entries.len() + new_count);
        let mut own = self.entries.iter().copied().peekable();
        for (replica, number) in other.iter() {
            while let Some(before) = own.next_if(|(own, _)| *own < replica) {
                merged.push(before);
            }
            let same = own.next_if(|(own, _)| *own == replica);
            merged.push(same.unwrap_or((replica, number)));
        }
        merged.extend(own);
        self.entries = merged;
    }

    /// Whether every change that `other` covers is covered here too.
    pub fn covers(&self, other: &VersionVector) -> bool {
        other.iter().all(|(replica, number)| self.get(&replica) >= number)
    }

    /// The replicas and their numbers, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaKey, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// How many changes the vector covers in all.
    pub fn change_count(&self) -> u64 {
        self.iter().map(|(_, number)| number).sum()
    }

    /// How many replicas the vector names.
    pub fn replica_count(&self) -> usize {
        self.entries.len()
    }

    /// Appends the vector's bytes: a count, then key and number of each replica.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.entries.len() as u64);
        for (replica, number) in &self.entries {
            out.extend_from_slice(&replica.0);
            write_varint(out, *number);
        }
    }

    /// Reads a vector.
    ///
    /// # Errors
    /// Truncated, not sorted, a number of zero, or more than [`MAX_VECTOR_REPLICAS`] replicas.
    pub fn decode(reader: &mut Reader<'_>) -> Result<VersionVector, MalformedFrame> {
        let count = reader.varint_up_to(MAX_VECTOR_REPLICAS as u64)?;
        let mut entries: Vec<(ReplicaKey, u64)> = Vec::new();
        for _ in 0..count {
            let replica = ReplicaKey(reader.array()?);
            let number = reader.varint()?;
            if number == 0 || entries.last().is_some_and(|(last, _)| *last >= replica) {
                return Err(MalformedFrame::NotSorted);
            }
            entries.push((replica, number));
        }
        Ok(VersionVector { entries })
    }

    fn position(&self, replica: &ReplicaKey) -> Result<usize, usize> {
        self.entries.binary_search_by(|(candidate, _)| candidate.cmp(replica))
    }
}

impl FromIterator<(ReplicaKey, u64)> for VersionVector {
    /// The vector that covers each of these. They may come in any order, which costs one sort.
    fn from_iter<I: IntoIterator<Item = (ReplicaKey, u64)>>(pairs: I) -> VersionVector {
        let pairs = pairs.into_iter().filter(|(_, number)| *number > 0);
        let mut entries: Vec<(ReplicaKey, u64)> = pairs.collect();
        entries.sort_unstable();
        // Of several numbers of one replica the greatest comes last.
        entries.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                kept.1 = later.1;
            }
            is_same
        });
        VersionVector { entries }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn key(number: u32) -> ReplicaKey {
        let mut key = ReplicaKey::default();
        key.0[..4].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn a_join_takes_the_greater_number_of_each_replica() {
        const SEED: u64 = 23;
        const ROUNDS: usize = 2_000;
        println!("seed {SEED}, {ROUNDS} rounds");
        let mut state = SEED;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % bound
        };
        for _ in 0..ROUNDS {
            let mut pairs = || -> Vec<(ReplicaKey, u64)> {
                let count = below(9);
                (0..count).map(|_| (key(below(12) as u32), below(5))).collect()
            };
            let (left, right) = (pairs(), pairs());
            let one_by_one = |pairs: &[(ReplicaKey, u64)]| {
                let mut vector = VersionVector::new();
                pairs.iter().for_each(|(key, number)| vector.advance(*key, *number));
                vector
            };
            let (left_vector, right_vector) = (one_by_one(&left), one_by_one(&right));
            assert_eq!(left.iter().copied().collect::<VersionVector>(), left_vector);
            let mut joined = left_vector.clone();
            joined.join(&right_vector);
            assert_eq!(joined, one_by_one(&[left, right].concat()));
            assert!(joined.covers(&left_vector) && joined.covers(&right_vector));
        }
    }

    /// One message can bring such a vector about.
    #[test]
    fn the_longest_vectors_are_joined_quickly() {
        let count = MAX_VECTOR_REPLICAS as u32;
        let start = Instant::now();
        let even: VersionVector = (0..count).rev().map(|number| (key(2 * number), 1)).collect();
        let mut joined: VersionVector = (0..count).map(|number| (key(2 * number + 1), 1)).collect();
        joined.join(&even);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(joined.replica_count(), 2 * MAX_VECTOR_REPLICAS);
        assert!(joined.covers(&even));
    }
}
