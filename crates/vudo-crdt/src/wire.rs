//! Reading and writing bytes: varints, bounds, and what can be wrong with a frame.

use alloc::vec::Vec;
use core::fmt;

/// What is wrong with bytes from outside. Nothing of a malformed frame is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), repr(u8))]
// A byte that is given back is cut down to one again by whoever gets it: that is code in a module.
#[cfg_attr(target_arch = "wasm32", repr(u32))]
pub enum MalformedFrame {
    /// The bytes end in the middle of something.
    Truncated = 1,
    /// A varint is longer than its number needs, or does not fit 64 bits.
    VarintNotMinimal = 2,
    /// The checksum at the end does not match: the bytes were damaged on their way.
    Checksum = 3,
    /// The frame begins with a format version that this build does not read.
    FormatVersion = 4,
    /// A count, length or number is out of its bounds.
    TooLarge = 5,
    /// An index points past the list that it indexes.
    IndexOutOfRange = 6,
    /// A string is not UTF-8.
    StringNotUtf8 = 7,
    /// A value has a shorter or more usual encoding than the one found.
    ValueNotCanonical = 8,
    /// Fields or documents are not in ascending order, or appear twice.
    NotSorted = 9,
    /// A time is past 2^47 milliseconds.
    TimeOutOfRange = 10,
    /// A life of zero: nothing creates or deletes a document without a life.
    LifeIsZero = 11,
    /// A strategy and its payload do not belong together.
    PayloadDoesNotFit = 12,
    /// Bytes follow where the frame should have ended.
    TrailingBytes = 13,
    /// A frame names a Gen that none of its changes writes to. Modules do not look for it.
    #[cfg(not(target_arch = "wasm32"))]
    UnusedName = 14,
}

impl fmt::Display for MalformedFrame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            MalformedFrame::Truncated => "the bytes end in the middle of something",
            MalformedFrame::VarintNotMinimal => "a number is not in its shortest form",
            MalformedFrame::Checksum => "the checksum does not match",
            MalformedFrame::FormatVersion => "the format version is not one this build reads",
            MalformedFrame::TooLarge => "a count or length is out of its bounds",
            MalformedFrame::IndexOutOfRange => "an index points past its list",
            MalformedFrame::StringNotUtf8 => "a string is not UTF-8",
            MalformedFrame::ValueNotCanonical => "a value is not in its canonical form",
            MalformedFrame::NotSorted => "fields or documents are not in ascending order",
            MalformedFrame::TimeOutOfRange => "a time is past 2^47 milliseconds",
            MalformedFrame::LifeIsZero => "a document has life zero",
            MalformedFrame::PayloadDoesNotFit => "a payload does not belong to its strategy",
            MalformedFrame::TrailingBytes => "bytes follow the end",
            #[cfg(not(target_arch = "wasm32"))]
            MalformedFrame::UnusedName => "a Gen is named that no change writes to",
        })
    }
}

impl core::error::Error for MalformedFrame {}

/// Reads bytes from the front, never past the end.
///
/// The first fault stays: from it on there is nothing left to read. So a parser can read on as if
/// nothing were wrong, with the methods that give zero for what is not there, and ask once at the
/// end. The loops of such a parser must end where there is nothing left.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    fault: Option<MalformedFrame>,
}

impl<'a> Reader<'a> {
    /// A reader at the first byte.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, fault: None }
    }

    /// What has not been read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// What has been read since the rest was `start`.
    #[inline]
    pub(crate) fn since(&self, start: &'a [u8]) -> &'a [u8] {
        &start[..start.len() - self.rest.len()]
    }

    /// Whether everything has been read, or something was wrong.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether something was wrong.
    #[inline]
    pub fn has_failed(&self) -> bool {
        self.fault.is_some()
    }

    /// Gives what was read, unless something was wrong.
    #[inline]
    pub(crate) fn checked<T>(&self, read: T) -> Result<T, MalformedFrame> {
        match self.fault {
            None => Ok(read),
            Some(what) => Err(what),
        }
    }

    /// Notes what is wrong, unless something was wrong before.
    #[cold]
    #[inline(never)]
    pub(crate) fn fail(&mut self, what: MalformedFrame) {
        self.fault.get_or_insert(what);
        self.rest = &[];
    }

    /// Notes what is wrong where a condition does not hold.
    #[inline]
    pub(crate) fn check(&mut self, holds: bool, what: MalformedFrame) {
        if !holds {
            self.fail(what);
        }
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`MalformedFrame::Truncated`] at the end.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, MalformedFrame> {
        let byte = self.byte_or_zero();
        self.checked(byte)
    }

    /// The next byte; a fault stays in the reader.
    #[inline]
    pub fn byte_or_zero(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => {
                self.fail(MalformedFrame::Truncated);
                0
            }
        }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`MalformedFrame::Truncated`] where there are fewer.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedFrame> {
        let taken = self.take_or_empty(count);
        self.checked(taken)
    }

    #[inline]
    pub(crate) fn take_or_empty(&mut self, count: usize) -> &'a [u8] {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                taken
            }
            None => {
                self.fail(MalformedFrame::Truncated);
                &[]
            }
        }
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`MalformedFrame::Truncated`] where there are fewer.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedFrame> {
        let array = self.array_or_zero();
        self.checked(array)
    }

    #[inline]
    pub(crate) fn array_or_zero<const N: usize>(&mut self) -> [u8; N] {
        *self.take_or_empty(N).first_chunk().unwrap_or(&[0; N])
    }

    /// A varint: seven bits a byte, lowest first, in the shortest form.
    ///
    /// # Errors
    /// Truncated, longer than needed, or past 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, MalformedFrame> {
        let number = self.varint_or_zero();
        self.checked(number)
    }

    /// [`Reader::varint`] that leaves a fault in the reader and gives zero.
    #[inline]
    pub fn varint_or_zero(&mut self) -> u64 {
        let first = self.byte_or_zero();
        if first < 0x80 { first.into() } else { self.varint_rest(first) }
    }

    #[inline(never)]
    fn varint_rest(&mut self, first: u8) -> u64 {
        #[cfg(not(target_arch = "wasm32"))]
        if let [second @ 1..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return u64::from(first & 0x7f) | u64::from(*second) << 7;
        } else if let Some((length, word)) = self.varint_word() {
            // A last byte of zero is there for nothing.
            if word >> (8 * length - 8) == 0 {
                self.fail(MalformedFrame::VarintNotMinimal);
                return 0;
            }
            self.rest = &self.rest[length..];
            return u64::from(first & 0x7f) | pack_sevens(word) << 7;
        }
        let mut number = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte_or_zero();
            number |= u64::from(byte & 0x7f) << shift;
            // The tenth byte has room for one bit, and none may be there for nothing.
            if byte == 0 || (shift == 63 && byte > 1) {
                self.fail(MalformedFrame::VarintNotMinimal);
                return 0;
            }
            if byte < 0x80 {
                return number;
            }
            shift += 7;
        }
    }

    /// The length of the varint, or end of one, that is next, and its bytes as a number, lowest first.
    /// `None` where it is longer than eight bytes, or not whole.
    #[cfg(not(target_arch = "wasm32"))]
    #[inline]
    fn varint_word(&self) -> Option<(usize, u64)> {
        let word = match self.rest.first_chunk() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => self.rest.iter().rfold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        let ends = !word & 0x8080_8080_8080_8080;
        if ends == 0 {
            return None;
        }
        let length = ends.trailing_zeros() as usize / 8 + 1;
        if length > self.rest.len() {
            return None;
        }
        Some((length, word & (u64::MAX >> (64 - 8 * length))))
    }

    /// Steps over a varint that is known to be one: most are not worth decoding.
    #[cfg(not(target_arch = "wasm32"))]
    #[inline]
    pub(crate) fn step_over_varint(&mut self) {
        let length = if let [0..0x80, ..] = self.rest {
            1
        } else if let Some((length, _)) = self.varint_word() {
            length
        } else {
            self.rest.iter().take_while(|byte| **byte >= 0x80).count() + 1
        };
        self.take_or_empty(length);
    }

    /// A varint that is at most `bound`.
    ///
    /// # Errors
    /// [`MalformedFrame::TooLarge`] past the bound, and those of [`Reader::varint`].
    #[inline]
    pub fn varint_up_to(&mut self, bound: u64) -> Result<u64, MalformedFrame> {
        let number = self.varint_up_to_or_zero(bound);
        self.checked(number)
    }

    #[inline]
    pub(crate) fn varint_up_to_or_zero(&mut self, bound: u64) -> u64 {
        let number = self.varint_or_zero();
        if number > bound {
            self.fail(MalformedFrame::TooLarge);
            return 0;
        }
        number
    }

    /// A varint length and that many bytes.
    ///
    /// # Errors
    /// Truncated, or a malformed length.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], MalformedFrame> {
        let bytes = self.bytes_or_empty();
        self.checked(bytes)
    }

    /// [`Reader::bytes`] that leaves a fault in the reader and gives nothing.
    #[inline]
    pub fn bytes_or_empty(&mut self) -> &'a [u8] {
        let length = self.varint_or_zero();
        // A length past the address space is past the end as well.
        self.take_or_empty(usize::try_from(length).unwrap_or(usize::MAX))
    }
}

/// The lower seven bits of each byte of a varint, one after the other.
#[cfg(not(target_arch = "wasm32"))]
#[inline]
fn pack_sevens(word: u64) -> u64 {
    let word = word & 0x7f7f_7f7f_7f7f_7f7f;
    let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
    word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4
}

/// An empty buffer with room for what will probably be written. In a module it has none: asking for
/// room is code, and there is little to save.
#[inline]
pub(crate) fn buffer_for(byte_count: usize) -> Vec<u8> {
    if cfg!(target_arch = "wasm32") { Vec::new() } else { Vec::with_capacity(byte_count) }
}

/// Whether bytes are UTF-8.
#[cfg(not(target_arch = "wasm32"))]
pub fn is_utf8(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok()
}

/// Whether bytes are UTF-8: the standard library's answer in a tenth of its code. A head says how
/// many bytes follow it; what is longer than needed, a surrogate or past the last character shows
/// in the number that they make up.
#[cfg(target_arch = "wasm32")]
pub fn is_utf8(bytes: &[u8]) -> bool {
    const LEAST_BY_FOLLOWERS: [u32; 4] = [0, 0x80, 0x800, 0x1_0000];
    let mut left = 0;
    let (mut character, mut least) = (0, 0);
    for byte in bytes {
        let ones = byte.leading_ones();
        let bits = u32::from(*byte);
        if left > 0 {
            if ones != 1 {
                return false;
            }
            left -= 1;
            character = character << 6 | (bits & 0x3f);
        } else {
            if ones == 1 || ones > 4 {
                return false;
            }
            left = ones.saturating_sub(1);
            character = bits & (0x7f >> ones);
            least = LEAST_BY_FOLLOWERS[left as usize];
        }
        let is_whole = left == 0;
        if is_whole && (character < least || char::from_u32(character).is_none()) {
            return false;
        }
    }
    left == 0
}

/// Appends a byte, by the code that appends any other bytes.
#[inline]
pub fn write_byte(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[byte]);
}

/// Appends a varint: seven bits a byte, lowest first.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        write_byte(out, number as u8 | 0x80);
        number >>= 7;
    }
    write_byte(out, number as u8);
}

/// Appends a varint length and the bytes.
#[inline]
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Maps small numbers of either sign to small numbers: 0, -1, 1, -2 to 0, 1, 2, 3.
#[inline]
pub fn zigzag_encode(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// The inverse of [`zigzag_encode`].
#[inline]
pub fn zigzag_decode(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_read_the_same_at_the_end_and_before_it() {
        let mut numbers: Vec<u64> = (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1]).collect();
        numbers.extend([u64::MAX, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
        for number in numbers {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, number);
            let length = bytes.len();
            for followers in 0..12 {
                bytes.resize(length, 0);
                bytes.resize(length + followers, 0xff);
                let mut reader = Reader::new(&bytes);
                assert_eq!(reader.varint(), Ok(number));
                assert_eq!(reader.rest().len(), followers);
            }
            for shorter in 0..length {
                let mut reader = Reader::new(&bytes[..shorter]);
                assert_eq!(reader.varint(), Err(MalformedFrame::Truncated));
            }
            // A last byte of zero is one too many.
            bytes.truncate(length);
            bytes[length - 1] |= 0x80;
            bytes.resize(length + 12, 0);
            let longer = Reader::new(&bytes).varint();
            assert_eq!(longer, Err(MalformedFrame::VarintNotMinimal), "{number}");
        }
    }
}
