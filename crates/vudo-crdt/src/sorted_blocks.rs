//! Byte strings in some order of their own, for as many as an import has.
//!
//! They lie in blocks, so that a new one moves some hundreds of others and not all of them. Where
//! code size counts and there are few, the sorted vector in `sorted.rs` takes its place.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::sorted::search;

/// A block of twice as many is split.
const BLOCK_COUNT: usize = 256;

/// A place is the block's index, shifted so far, and the index in the block.
const PLACE_SHIFT: u32 = 16;

/// Byte strings, ascending by what their owner compares.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sorted {
    /// None of them is empty.
    blocks: Vec<Vec<Vec<u8>>>,
    count: usize,
    /// An empty block that was in use, with the room that it has.
    spare: Vec<Vec<u8>>,
}

impl Sorted {
    pub(crate) const fn new() -> Sorted {
        Sorted { blocks: Vec::new(), count: 0, spare: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.blocks.iter().flatten()
    }

    pub(crate) fn iter_from(&self, place: usize) -> impl Iterator<Item = &Vec<u8>> {
        let (block, index) = split(place);
        let blocks = self.blocks.get(block..).unwrap_or_default();
        blocks.iter().flatten().skip(index)
    }

    pub(crate) fn at(&self, place: usize) -> &[u8] {
        let (block, index) = split(place);
        &self.blocks[block][index]
    }

    /// The place of what `compare` finds equal, or else the place where it belongs.
    pub(crate) fn search(&self, compare: impl Fn(&[u8]) -> Ordering) -> Result<usize, usize> {
        // The last block whose first string is not behind what is sought.
        let block = match search(self.blocks.len(), |index| compare(&self.blocks[index][0])) {
            Ok(block) => return Ok(block << PLACE_SHIFT),
            Err(after) => after.saturating_sub(1),
        };
        let strings = self.blocks.get(block).map_or(&[][..], Vec::as_slice);
        let at = |index| block << PLACE_SHIFT | index;
        search(strings.len(), |index| compare(&strings[index])).map(at).map_err(at)
    }

    /// Puts bytes where a search for them ended.
    pub(crate) fn put(&mut self, place: Result<usize, usize>, bytes: &[u8]) {
        let (Ok(whole) | Err(whole)) = place;
        let (block, index) = split(whole);
        if place.is_ok() {
            let string = &mut self.blocks[block][index];
            string.clear();
            string.extend_from_slice(bytes);
            return;
        }
        self.count += 1;
        if self.blocks.is_empty() {
            self.blocks.push(core::mem::take(&mut self.spare));
        }
        let is_last_block = block + 1 == self.blocks.len();
        let strings = &mut self.blocks[block];
        strings.insert(index, Vec::from(bytes));
        // What comes in order fills each block, and goes on in one of its own.
        if strings.len() == 2 * BLOCK_COUNT {
            let is_last = is_last_block && index + 1 == strings.len();
            let later = strings.split_off(if is_last { index } else { BLOCK_COUNT });
            self.blocks.insert(block + 1, later);
        }
    }

    /// Takes away so many from a place on.
    pub(crate) fn remove(&mut self, place: usize, count: usize) {
        let (mut block, mut index) = split(place);
        let mut left = count;
        while left > 0 {
            let strings = &mut self.blocks[block];
            let end = strings.len().min(index + left);
            left -= end - index;
            strings.drain(index..end);
            match strings.is_empty() {
                true => drop(self.blocks.remove(block)),
                false => block += 1,
            }
            index = 0;
        }
        self.count -= count;
    }

    pub(crate) fn clear(&mut self) {
        self.blocks.truncate(1);
        if let Some(mut block) = self.blocks.pop() {
            block.clear();
            self.spare = block;
        }
        self.count = 0;
    }
}

/// The block of a place, and the index in the block.
fn split(place: usize) -> (usize, usize) {
    (place >> PLACE_SHIFT, place & ((1 << PLACE_SHIFT) - 1))
}
