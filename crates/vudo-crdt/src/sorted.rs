//! Byte strings in some order of their own, found by binary search.

#[cfg(target_arch = "wasm32")]
use alloc::vec::Vec;
use core::cmp::Ordering;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::sorted_blocks::Sorted;

/// The place of what `compare` finds equal, or else the place where it belongs.
#[inline]
pub(crate) fn search(count: usize, compare: impl Fn(usize) -> Ordering) -> Result<usize, usize> {
    search_from(count / 2, count, compare)
}

/// [`search`] that looks at this place first.
#[inline]
fn search_from(
    mut middle: usize,
    count: usize,
    compare: impl Fn(usize) -> Ordering,
) -> Result<usize, usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        match compare(middle) {
            Ordering::Equal => return Ok(middle),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
        middle = usize::midpoint(low, high);
    }
    Err(low)
}

/// The first place behind what was searched for.
#[cfg(target_arch = "wasm32")]
pub(crate) fn place_after(found: Result<usize, usize>) -> usize {
    match found {
        Ok(place) => place + 1,
        Err(place) => place,
    }
}

/// Sorts pairs of numbers.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn sort(list: &mut [(u64, u64)]) {
    list.sort_unstable();
}

/// Sorts pairs of numbers after D. L. Shell, which is less code than the standard library's sort:
/// what lies far apart is put in order before what lies close together. The distances are those of
/// T. N. Hibbard, each half of the one before.
#[cfg(target_arch = "wasm32")]
pub(crate) fn sort(list: &mut [(u64, u64)]) {
    let mut gap = usize::MAX >> (list.len() | 1).leading_zeros();
    while gap > 1 {
        gap >>= 1;
        for end in gap..list.len() {
            let mut place = end;
            while place >= gap && list[place] < list[place - gap] {
                list.swap(place, place - gap);
                place -= gap;
            }
        }
    }
}

/// Byte strings, ascending by what their owner compares. Where there may be very many, the one in
/// `sorted_blocks.rs` takes its place.
#[cfg(target_arch = "wasm32")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Sorted(Vec<Vec<u8>>);

#[cfg(target_arch = "wasm32")]
impl Sorted {
    pub(crate) const fn new() -> Sorted {
        Sorted(Vec::new())
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(crate) fn iter(&self) -> core::slice::Iter<'_, Vec<u8>> {
        self.0.iter()
    }

    pub(crate) fn iter_from(&self, place: usize) -> core::slice::Iter<'_, Vec<u8>> {
        self.0[place..].iter()
    }

    #[inline]
    pub(crate) fn at(&self, place: usize) -> &[u8] {
        &self.0[place]
    }

    /// The place of what `compare` finds equal, or else the place where it belongs: mostly behind the
    /// last one, since changes are written and merged in order.
    #[inline]
    pub(crate) fn search(&self, compare: impl Fn(&[u8]) -> Ordering) -> Result<usize, usize> {
        let count = self.0.len();
        search_from(count.wrapping_sub(1), count, |index| compare(&self.0[index]))
    }

    /// Puts bytes where a search for them ended.
    #[inline(never)]
    pub(crate) fn put(&mut self, place: Result<usize, usize>, bytes: &[u8]) {
        let (Ok(index) | Err(index)) = place;
        if place.is_err() {
            self.0.insert(index, Vec::new());
        }
        self.0[index].clear();
        self.0[index].extend_from_slice(bytes);
    }

    /// Takes away so many from a place on.
    pub(crate) fn remove(&mut self, place: usize, count: usize) {
        for later in place + count..self.0.len() {
            self.0.swap(later - count, later);
        }
        self.keep(self.0.len() - count);
    }

    pub(crate) fn clear(&mut self) {
        self.keep(0);
    }

    /// Drops all but the first ones.
    #[inline(never)]
    fn keep(&mut self, count: usize) {
        self.0.truncate(count);
    }
}
