//! What a table remembers of its chunks in memory: how much they take up, in which order they may
//! leave, and in which of them keys were found.
//!
//! The places of keys spare a search through the directory and a chunk, which in a large table
//! misses the processor's caches at every step. They are hints: whoever takes one looks whether the
//! key is there, so nothing has to keep them true.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

/// A table of fewer chunks is searched as fast.
const SLOTS_MIN: usize = 64;
/// Places are remembered for so many keys for each chunk, and for at most so many in all.
const PLACES_PER_SLOT: usize = 16;
const PLACES_MAX: usize = 1 << 16;

/// Where a row lies: the chunk's slot, and the row's index in the chunk.
pub(crate) type Place = (u32, u32);

#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {
    pub(crate) loaded_bytes: usize,
    /// The slots whose chunks are in memory, in the order in which the clock's hand comes to them.
    resident: VecDeque<u32>,
    /// By the hash of a key, a power of two of them; or none.
    places: Vec<Place>,
}

impl Cache {
    /// Begins anew with these slots, whose chunks take up so many bytes.
    pub(crate) fn reset(&mut self, resident: impl Iterator<Item = (usize, usize)>) {
        self.loaded_bytes = 0;
        self.resident.clear();
        for (slot, byte_count) in resident {
            self.note_loaded(slot, byte_count);
        }
    }

    pub(crate) fn note_loaded(&mut self, slot: usize, byte_count: usize) {
        self.resident.push_back(slot as u32);
        self.loaded_bytes += byte_count;
    }

    pub(crate) fn resident_count(&self) -> usize {
        self.resident.len()
    }

    /// The slot that the hand comes to next, which goes to the end or leaves.
    pub(crate) fn take_next(&mut self) -> Option<usize> {
        self.resident.pop_front().map(|slot| slot as usize)
    }

    pub(crate) fn keep(&mut self, slot: usize) {
        self.resident.push_back(slot as u32);
    }

    /// Where a key of this hash was found last, perhaps.
    pub(crate) fn place(&self, hash: u32) -> Option<Place> {
        self.places.get(hash as usize & self.places.len().wrapping_sub(1)).copied()
    }

    /// Remembers where a key of this hash was found in a table of so many slots.
    pub(crate) fn note_place(&mut self, hash: u32, place: Place, slot_count: usize) {
        let wanted = slot_count.saturating_mul(PLACES_PER_SLOT).next_power_of_two().min(PLACES_MAX);
        if slot_count >= SLOTS_MIN && self.places.len() < wanted {
            self.places = vec![(u32::MAX, 0); wanted];
        }
        let mask = self.places.len().wrapping_sub(1);
        if let Some(remembered) = self.places.get_mut(hash as usize & mask) {
            *remembered = place;
        }
    }
}
