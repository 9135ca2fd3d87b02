//! Columns of a page: numbers and strings of many rows, one kind after the other.
//!
//! ```text
//! numbers = count | token*
//! token   = zigzag difference to the number before << 1          one number
//!         | zigzag difference << 1 | 1, then how often in a row   at least two
//!         | 1, then 0, then the number itself                     where the shift overflows
//! strings = numbers: bytes shared with the string before | numbers: further bytes | the bytes
//! ```
//!
//! Numbers that stay or grow by the same amount cost next to nothing; sorted keys cost what
//! distinguishes them. A compressor over it all finds the rest.

use alloc::vec::Vec;

use crate::wire::{
    MalformedFrame, Reader, write_bytes, write_varint, zigzag_decode, zigzag_encode,
};

/// Numbers that are being written.
#[derive(Default)]
pub(crate) struct Numbers(Vec<u64>);

impl Numbers {
    pub(crate) fn push(&mut self, number: u64) {
        self.0.push(number);
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.0.len() as u64);
        let mut last = 0u64;
        let mut rest = self.0.as_slice();
        while let [number, later @ ..] = rest {
            let difference = number.wrapping_sub(last);
            let zigzag = zigzag_encode(difference as i64);
            last = *number;
            rest = later;
            if zigzag >> 63 != 0 {
                [1, 0, *number].iter().for_each(|part| write_varint(out, *part));
                continue;
            }
            let mut times = 1;
            while let [next, later @ ..] = rest
                && next.wrapping_sub(last) == difference
            {
                last = *next;
                rest = later;
                times += 1;
            }
            write_varint(out, zigzag << 1 | u64::from(times > 1));
            if times > 1 {
                write_varint(out, times);
            }
        }
    }
}

/// Numbers that are read one by one. After a fault they are zero.
#[derive(Clone, Copy)]
pub(crate) struct NumberReader<'a> {
    reader: Reader<'a>,
    /// How many numbers are left.
    left: u64,
    last: u64,
    difference: u64,
    run_left: u64,
}

impl<'a> NumberReader<'a> {
    /// Reads a column's count and steps over its tokens, which have to be there whole.
    pub(crate) fn begin(reader: &mut Reader<'a>) -> NumberReader<'a> {
        let left = reader.varint_or_zero();
        let start = *reader;
        let mut numbers = NumberReader { reader: start, left, last: 0, difference: 0, run_left: 0 };
        let mut covered = 0u64;
        while covered < left && !reader.has_failed() {
            let is_run = reader.varint_or_zero() & 1 == 1;
            let times = if is_run { reader.varint_or_zero() } else { 1 };
            if times == 0 {
                reader.varint_or_zero();
            }
            covered = covered.saturating_add(times.max(1));
        }
        reader.check(covered == left, MalformedFrame::TooLarge);
        if reader.has_failed() {
            numbers.left = 0;
        }
        numbers
    }

    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn next(&mut self) -> Result<u64, MalformedFrame> {
        self.left = self.left.checked_sub(1).ok_or(MalformedFrame::Truncated)?;
        if self.run_left > 0 {
            self.run_left -= 1;
            self.last = self.last.wrapping_add(self.difference);
            return Ok(self.last);
        }
        let token = self.reader.varint()?;
        let difference = zigzag_decode(token >> 1) as u64;
        let times = if token & 1 == 1 { self.reader.varint()? } else { 1 };
        if times == 0 {
            self.last = self.reader.varint()?;
        } else {
            self.difference = difference;
            self.run_left = times - 1;
            self.last = self.last.wrapping_add(difference);
        }
        Ok(self.last)
    }
}

/// Strings that are being written, each against the one before.
#[derive(Default)]
pub(crate) struct Strings {
    shared: Numbers,
    further: Numbers,
    bytes: Vec<u8>,
    last: Vec<u8>,
}

impl Strings {
    pub(crate) fn push(&mut self, string: &[u8]) {
        let pairs = self.last.iter().zip(string);
        let shared = pairs.take_while(|(left, right)| left == right).count();
        self.shared.push(shared as u64);
        self.further.push((string.len() - shared) as u64);
        self.bytes.extend_from_slice(&string[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&string[shared..]);
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.shared.encode(out);
        self.further.encode(out);
        write_bytes(out, &self.bytes);
    }
}

/// Strings that are read one by one.
pub(crate) struct StringReader<'a> {
    shared: NumberReader<'a>,
    further: NumberReader<'a>,
    bytes: Reader<'a>,
    last: Vec<u8>,
}

impl<'a> StringReader<'a> {
    pub(crate) fn begin(reader: &mut Reader<'a>) -> StringReader<'a> {
        let shared = NumberReader::begin(reader);
        let further = NumberReader::begin(reader);
        StringReader {
            shared,
            further,
            bytes: Reader::new(reader.bytes_or_empty()),
            last: Vec::new(),
        }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.shared.left() == 0 && self.further.left() == 0 && self.bytes.is_empty()
    }

    /// The next string, which takes its bytes from what is left of a bound.
    pub(crate) fn next(&mut self, bytes_left: &mut usize) -> Result<&[u8], MalformedFrame> {
        let shared = self.shared.next()?;
        let further = self.further.next()?;
        if shared > self.last.len() as u64 {
            return Err(MalformedFrame::IndexOutOfRange);
        }
        let further = usize::try_from(further).map_err(|_| MalformedFrame::TooLarge)?;
        let length = further.saturating_add(shared as usize);
        *bytes_left = bytes_left.checked_sub(length).ok_or(MalformedFrame::TooLarge)?;
        self.last.truncate(shared as usize);
        self.last.extend_from_slice(self.bytes.take(further)?);
        Ok(&self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(numbers: &[u64]) -> usize {
        let mut column = Numbers::default();
        numbers.iter().for_each(|number| column.push(*number));
        let mut bytes = Vec::new();
        column.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let mut read = NumberReader::begin(&mut reader);
        assert!(reader.is_empty() && !reader.has_failed(), "{numbers:?}");
        for number in numbers {
            assert_eq!(read.next(), Ok(*number), "{numbers:?}");
        }
        assert_eq!(read.next(), Err(MalformedFrame::Truncated));
        bytes.len()
    }

    #[test]
    fn numbers_survive_their_bytes() {
        let mut random = 3u64;
        for length in 0..200 {
            let mut numbers = Vec::new();
            for _ in 0..length {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let last = numbers.last().copied().unwrap_or(0u64);
                numbers.push(match random >> 61 {
                    0 => random,
                    1 => u64::MAX,
                    2 => 0,
                    3 | 4 => last.wrapping_add(7),
                    _ => last,
                });
            }
            round_trip(&numbers);
        }
        let ascending: Vec<u64> = (0..10_000).collect();
        assert!(round_trip(&ascending) < 10);
        round_trip(&[0, 1 << 63, 0, 1 << 63, 0]);
        round_trip(&[1 << 63, 1 << 63, 1 << 63]);
    }
}
