//! Hybrid logical time of one cell write.
//!
//! A time belongs to a write, not to a replica: it is the greater of the writer's clock and the
//! time overwritten plus one. Nothing received moves any clock, so a wrong clock spoils only the
//! cells it touched, and those only until somebody overwrites them.

use alloc::vec::Vec;

use crate::wire::{MalformedFrame, Reader, write_varint};

/// Milliseconds since 1970 in the upper 48 bits, a counter in the lower 16 that carries into them.
///
/// `0 <= milliseconds <= 2^47`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(u64);

/// The greatest time a write may carry. Anything above is malformed.
const CEILING: u64 = 1 << 63;

impl Hlc {
    pub(crate) const ZERO: Hlc = Hlc(0);

    /// The time of a clock that shows this many milliseconds since 1970. A clock past 2^47 is
    /// taken to show 2^47.
    pub fn from_milliseconds(milliseconds: u64) -> Hlc {
        Hlc(milliseconds.min(CEILING >> 16) << 16)
    }

    /// The time of these parts, if it is one.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn of_parts(milliseconds: u64, counter: u64) -> Option<Hlc> {
        let is_in_range = milliseconds <= CEILING >> 16 && counter <= 0xffff;
        let bits = milliseconds.wrapping_shl(16) | counter;
        (is_in_range && bits <= CEILING).then_some(Hlc(bits))
    }

    /// Milliseconds since 1970.
    pub fn milliseconds(self) -> u64 {
        self.0 >> 16
    }

    /// Distinguishes writes of one cell within a millisecond.
    pub fn counter(self) -> u16 {
        self.0 as u16
    }

    /// The time of a write at `now` over one at `self`, or `None` at the ceiling, where nothing
    /// can be later any more.
    pub fn overwritten_at(self, now: Hlc) -> Option<Hlc> {
        let later = now.0.max(self.0 + 1);
        (later <= CEILING).then_some(Hlc(later))
    }

    /// Appends the time: one to nine bytes.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        let counter = self.counter();
        write_varint(out, self.milliseconds() << 1 | u64::from(counter != 0));
        if counter != 0 {
            write_varint(out, counter.into());
        }
    }

    /// Whether what begins these bytes is a time with a counter, which is a varint more.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn begins_with_counter(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| first & 1 == 1)
    }

    /// Reads a time; zero where the reader fails.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Hlc {
        let head = reader.varint_or_zero();
        let milliseconds = head >> 1;
        reader.check(milliseconds <= CEILING >> 16, MalformedFrame::TimeOutOfRange);
        let mut bits = milliseconds << 16;
        if head & 1 != 0 {
            let counter = reader.varint_up_to_or_zero(0xffff);
            reader.check(counter != 0, MalformedFrame::ValueNotCanonical);
            bits |= counter;
        }
        reader.check(bits <= CEILING, MalformedFrame::TimeOutOfRange);
        Hlc(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overwrite_is_later_even_when_the_clock_is_not() {
        let future = Hlc::from_milliseconds(5_000);
        let now = Hlc::from_milliseconds(10);
        let overwrite = future.overwritten_at(now).unwrap();
        assert!(overwrite > future);
        assert_eq!((overwrite.milliseconds(), overwrite.counter()), (5_000, 1));
    }

    #[test]
    fn the_counter_carries_into_the_milliseconds() {
        let last = Hlc(7 << 16 | 0xffff);
        let next = last.overwritten_at(Hlc::default()).unwrap();
        assert_eq!((next.milliseconds(), next.counter()), (8, 0));
    }

    #[test]
    fn nothing_is_later_than_the_ceiling() {
        let ceiling = Hlc::from_milliseconds(u64::MAX);
        assert_eq!(ceiling.milliseconds(), 1 << 47);
        assert_eq!(ceiling.overwritten_at(Hlc::default()), None);
        let mut bytes = Vec::new();
        write_varint(&mut bytes, ((1 << 47) + 1) << 1);
        let mut reader = Reader::new(&bytes);
        Hlc::read(&mut reader);
        assert_eq!(reader.checked(()), Err(MalformedFrame::TimeOutOfRange));
    }
}
