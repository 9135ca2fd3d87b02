//! Reading and writing bytes: varints, bounds, and what can be wrong with a frame.

use alloc::vec::Vec;
use core::fmt;

/// What is wrong with bytes from outside. Nothing of a malformed frame is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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
        })
    }
}

impl core::error::Error for MalformedFrame {}

/// Reads bytes from the front, never past the end.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the first byte.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`MalformedFrame::Truncated`] at the end.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, MalformedFrame> {
        let (&first, rest) = self.rest.split_first().ok_or(MalformedFrame::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`MalformedFrame::Truncated`] where there are fewer.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedFrame> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(MalformedFrame::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`MalformedFrame::Truncated`] where there are fewer.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedFrame> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(MalformedFrame::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A varint: seven bits a byte, lowest first, in the shortest form.
    ///
    /// # Errors
    /// Truncated, longer than needed, or past 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, MalformedFrame> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(first.into());
        }
        self.varint_rest(first)
    }

    #[inline(never)]
    fn varint_rest(&mut self, first: u8) -> Result<u64, MalformedFrame> {
        let mut number = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                return Err(MalformedFrame::VarintNotMinimal);
            }
            number |= bits << shift;
            if byte < 0x80 {
                if byte == 0 {
                    return Err(MalformedFrame::VarintNotMinimal);
                }
                return Ok(number);
            }
            shift += 7;
        }
    }

    /// A varint that is at most `bound`.
    ///
    /// # Errors
    /// [`MalformedFrame::TooLarge`] past the bound, and those of [`Reader::varint`].
    #[inline]
    pub fn varint_up_to(&mut self, bound: u64) -> Result<u64, MalformedFrame> {
        let number = self.varint()?;
        if number > bound {
            return Err(MalformedFrame::TooLarge);
        }
        Ok(number)
    }

    /// A varint length and that many bytes.
    ///
    /// # Errors
    /// Truncated, or a malformed length.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], MalformedFrame> {
        let length = self.varint()?;
        // A length past the address space is past the end as well.
        self.take(usize::try_from(length).map_err(|_| MalformedFrame::Truncated)?)
    }
}

/// Appends a varint: seven bits a byte, lowest first.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
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
