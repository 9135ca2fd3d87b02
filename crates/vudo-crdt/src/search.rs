//! Binary search where the sorted things are not a slice of themselves.

use core::cmp::Ordering;

/// The place of what `compare` finds equal, or else the place where it belongs.
#[inline]
pub(crate) fn search(count: usize, compare: impl Fn(usize) -> Ordering) -> Result<usize, usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        match compare(middle) {
            Ordering::Equal => return Ok(middle),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}
