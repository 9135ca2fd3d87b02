//! The write buffer in front of a table's chunks: many small changes go here first, so that each
//! does not pay for rewriting a chunk.
//!
//! Rows lie in one arena, each behind its length; an open-addressing index finds them by a hash
//! of the key. A row that is written again goes to the end of the arena unless it still fits; the
//! room that it leaves behind is taken back when the arena is full.

use alloc::vec;
use alloc::vec::Vec;

use crate::row::key_of;

/// When the arena is this large, the rows move to their chunks.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;

/// A full arena whose rows take up no more than this is put together anew instead.
const BUFFERED_BYTES_MAX: usize = BUFFER_BYTES / 8 * 7;

const LENGTH_BYTES: usize = 4;
const SLOTS_AT_FIRST: usize = 16;

#[derive(Clone, Debug)]
pub(crate) struct WriteBuffer {
    arena: Vec<u8>,
    /// The key's hash in the upper half, then one more than the row's place in the arena; zero is
    /// free. A power of two of slots, at most three quarters in use.
    slots: Vec<u64>,
    row_count: usize,
    /// What the rows that are in use take up in the arena.
    row_bytes: usize,
    /// Makes the places of keys unpredictable to whoever chooses them.
    seed: u64,
}

impl WriteBuffer {
    pub(crate) fn new(seed: u64) -> WriteBuffer {
        WriteBuffer { arena: Vec::new(), slots: Vec::new(), row_count: 0, row_bytes: 0, seed }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// What the rows take up.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Whether the rows have to move to their chunks.
    #[inline]
    pub(crate) fn is_full(&mut self) -> bool {
        self.arena.len() >= BUFFER_BYTES && !self.takes_back_room()
    }

    /// Puts the rows together anew if that makes room.
    #[inline(never)]
    fn takes_back_room(&mut self) -> bool {
        if self.row_bytes > BUFFERED_BYTES_MAX {
            return false;
        }
        let mut arena = Vec::with_capacity(BUFFER_BYTES);
        let mut slots = core::mem::take(&mut self.slots);
        for slot in slots.iter_mut().filter(|slot| **slot != 0) {
            let start = place(*slot);
            let end = start + LENGTH_BYTES + self.row_at(*slot).len();
            *slot = *slot >> 32 << 32 | (arena.len() as u64 + 1);
            arena.extend_from_slice(&self.arena[start..end]);
        }
        (self.arena, self.slots) = (arena, slots);
        true
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        if self.row_count == 0 {
            return None;
        }
        self.get_hashed(key, self.hash(key))
    }

    /// The row of a key whose hash is known.
    pub(crate) fn get_hashed(&self, key: &[u8], hash: u32) -> Option<&[u8]> {
        if self.row_count == 0 {
            return None;
        }
        let slot = self.find(key, hash);
        (self.slots[slot] != 0).then(|| self.row_at(self.slots[slot]))
    }

    /// Puts a row in place of the one with its key. Gives whether the key is new here.
    pub(crate) fn put(&mut self, row: &[u8]) -> bool {
        if self.row_count * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        let key = key_of(row);
        let hash = self.hash(key);
        let slot = self.find(key, hash);
        let taken = self.slots[slot];
        if taken != 0 {
            let old_length = self.row_at(taken).len();
            if old_length == row.len() {
                let start = place(taken) + LENGTH_BYTES;
                self.arena[start..start + row.len()].copy_from_slice(row);
                return false;
            }
            self.row_bytes -= LENGTH_BYTES + old_length;
        }
        self.row_bytes += LENGTH_BYTES + row.len();
        self.slots[slot] = u64::from(hash) << 32 | (self.arena.len() as u64 + 1);
        self.arena.extend_from_slice(&(row.len() as u32).to_le_bytes());
        self.arena.extend_from_slice(row);
        self.row_count += usize::from(taken == 0);
        taken == 0
    }

    /// The rows, ascending by key.
    pub(crate) fn sorted_rows(&self) -> Vec<&[u8]> {
        self.sorted_rows_from(&[])
    }

    /// The rows from a key on, ascending.
    pub(crate) fn sorted_rows_from(&self, key: &[u8]) -> Vec<&[u8]> {
        let taken = self.slots.iter().filter(|slot| **slot != 0);
        let rows = taken.map(|slot| self.row_at(*slot));
        sorted(rows.filter(|row| key_of(row) >= key).collect())
    }

    /// The rows whose keys begin with these bytes, ascending.
    pub(crate) fn sorted_rows_with(&self, prefix: &[u8]) -> Vec<&[u8]> {
        let slots = self.slots.iter().filter(|slot| **slot != 0);
        let rows = slots.map(|slot| self.row_at(*slot));
        sorted(rows.filter(|row| key_of(row).starts_with(prefix)).collect())
    }

    pub(crate) fn clear(&mut self) {
        *self = WriteBuffer::new(self.seed);
    }

    fn row_at(&self, slot: u64) -> &[u8] {
        let rest = &self.arena[place(slot)..];
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&rest[..LENGTH_BYTES]);
        &rest[LENGTH_BYTES..LENGTH_BYTES + u32::from_le_bytes(length) as usize]
    }

    /// The slot of the key, or the free one where it belongs.
    fn find(&self, key: &[u8], hash: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let taken = self.slots[slot];
            let same_hash = taken >> 32 == hash.into();
            if taken == 0 || (same_hash && key_of(self.row_at(taken)) == key) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let slot_count = (self.slots.len() * 2).max(SLOTS_AT_FIRST);
        let old = core::mem::replace(&mut self.slots, vec![0; slot_count]);
        let mask = slot_count - 1;
        for taken in old.into_iter().filter(|slot| *slot != 0) {
            let mut slot = (taken >> 32) as usize & mask;
            while self.slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = taken;
        }
    }

    /// Folds the key in words of eight bytes, then what is left.
    pub(crate) fn hash(&self, key: &[u8]) -> u32 {
        let (words, rest) = key.as_chunks();
        let mut hash = self.seed;
        for word in words {
            hash = fold(hash, u64::from_le_bytes(*word));
        }
        let mut last = key.len() as u64;
        for byte in rest {
            last = last << 8 | u64::from(*byte);
        }
        // A product's upper half depends on every bit of its factors, its lower half does not.
        (fold(hash, last).wrapping_mul(MULTIPLIER) >> 32) as u32
    }
}

/// Sorts rows by their keys. Those of one table often begin alike, so what is compared first is the
/// eight bytes behind the ones that all of them share, as a number: few pairs need more.
fn sorted(rows: Vec<&[u8]>) -> Vec<&[u8]> {
    let first = rows.first().map_or(&[][..], |row| key_of(row));
    let shared_bytes = rows.iter().fold(first.len(), |shared_bytes, row| {
        let pairs = first[..shared_bytes].iter().zip(key_of(row));
        pairs.take_while(|(left, right)| left == right).count()
    });
    let mut by_start: Vec<(u64, &[u8])> =
        (rows.into_iter()).map(|row| (number_of(&key_of(row)[shared_bytes..]), row)).collect();
    by_start.sort_unstable_by(|(left_start, left), (right_start, right)| {
        left_start.cmp(right_start).then_with(|| key_of(left).cmp(key_of(right)))
    });
    by_start.into_iter().map(|(_, row)| row).collect()
}

/// The first eight bytes, which sorts as they do, but for what ends in zeros.
fn number_of(bytes: &[u8]) -> u64 {
    let mut start = [0; 8];
    let count = bytes.len().min(start.len());
    start[..count].copy_from_slice(&bytes[..count]);
    u64::from_be_bytes(start)
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

fn fold(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(MULTIPLIER);
    mixed ^ mixed >> 32
}

fn place(slot: u64) -> usize {
    (slot as u32 - 1) as usize
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;

    /// The longest run of slots in use: what a search for a missing key may have to walk.
    fn longest_run(keys: impl Iterator<Item = String>) -> usize {
        let mut buffer = WriteBuffer::new(9);
        for key in keys {
            let mut row = Vec::new();
            crate::wire::write_bytes(&mut row, key.as_bytes());
            assert!(buffer.put(&row), "{key} is there already");
            assert_eq!(buffer.get(key.as_bytes()), Some(row.as_slice()));
        }
        let runs = buffer.slots.split(|slot| *slot == 0);
        runs.map(<[u64]>::len).max().unwrap()
    }

    #[test]
    fn rows_that_grow_again_and_again_need_no_more_room() {
        let mut buffer = WriteBuffer::new(9);
        let row = |number: u32, length: usize| {
            let mut row = Vec::new();
            crate::wire::write_bytes(&mut row, &number.to_le_bytes());
            row.resize(row.len() + 1 + length, 7);
            row
        };
        for round in 0..400 {
            for number in 0..100 {
                buffer.put(&row(number, (round + number as usize) % 200));
                assert!(!buffer.is_full());
            }
        }
        assert!(buffer.arena.len() < BUFFER_BYTES + 300);
        for number in 0..100u32 {
            let expected = row(number, (399 + number as usize) % 200);
            assert_eq!(buffer.get(&number.to_le_bytes()), Some(expected.as_slice()));
        }
        let sizes = buffer.sorted_rows().into_iter().map(|row| LENGTH_BYTES + row.len());
        assert_eq!(buffer.row_bytes(), sizes.sum());
    }

    #[test]
    fn rows_are_sorted_by_the_whole_of_their_keys() {
        let keys: [&[u8]; 9] = [
            b"user",
            b"user\0",
            b"user\0\0",
            b"user 1",
            b"user 12345678",
            b"user 123456789",
            b"user 12345678a",
            b"user 2",
            b"user\xff",
        ];
        for shared in [&b""[..], b"a much longer start of all keys / "] {
            let mut buffer = WriteBuffer::new(7);
            let keys = keys.map(|key| [shared, key].concat());
            for index in 0..keys.len() {
                let mut row = Vec::new();
                crate::wire::write_bytes(&mut row, &keys[index * 5 % keys.len()]);
                buffer.put(&row);
            }
            let sorted = buffer.sorted_rows().into_iter().map(key_of);
            assert!(sorted.eq(keys.iter().map(Vec::as_slice)));
            let with_one = [shared, b"user 1"].concat();
            assert_eq!(buffer.sorted_rows_with(&with_one).len(), 4);
            assert_eq!(buffer.sorted_rows_from(&with_one).len(), 6);
        }
        assert!(WriteBuffer::new(7).sorted_rows().is_empty());
    }

    #[test]
    fn keys_that_differ_in_a_few_places_spread_over_the_slots() {
        let longest = [
            longest_run((0..10_000).map(|index| format!("{index}"))),
            longest_run((0..10_000).map(|index| format!("user{index:04}"))),
            longest_run((0..10_000).map(|index| format!("key_a_{index}"))),
            longest_run((0..10_000).map(|index| format!("{index:04}-and-more"))),
            longest_run((0..10_000).map(|index| format!("an-even-longer-one-{index:05}"))),
        ];
        // Random places give runs of some dozens at this load.
        assert!(longest.iter().all(|length| *length < 200), "{longest:?}");
    }
}
