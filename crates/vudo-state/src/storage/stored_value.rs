//! The form in which the pages keep a value: with a checksum, and packed where it is cold.
//!
//! ```text
//! stored = checksum (8 bytes, little endian) | value
//!        | complement of the checksum (8)    | value bytes (varint) | LZ4 block
//! ```
//!
//! The checksum is over the key and everything that follows it, so it is checked before anything is
//! unpacked. Its complement says that the value is packed: values from before there were packed ones
//! need no other form.

use std::borrow::Cow;

use twox_hash::XxHash3_64;
use vudo_crdt::wire::{Reader, write_varint};

use super::StorageError;

const CHECKSUM_BYTES: usize = 8;
/// Smaller ones share a page with others in any case.
const PACKED_BYTES_MIN: usize = 256;
/// LZ4 says at most so much with a byte: its block format, in the part on lengths of matches.
const UNPACKED_PER_PACKED_BYTE_MAX: u64 = 255;

/// What is stored for a key.
pub(super) fn stored_form(key: &[u8], value: &[u8], is_cold: bool) -> Vec<u8> {
    if is_cold
        && value.len() >= PACKED_BYTES_MIN
        && let Some(packed) = packed(key, value)
    {
        return packed;
    }
    [&checksum(key, value).to_le_bytes(), value].concat()
}

/// The packed form, where it is shorter.
fn packed(key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let mut stored = vec![0; CHECKSUM_BYTES];
    write_varint(&mut stored, value.len() as u64);
    stored.extend_from_slice(&lz4_flex::block::compress(value));
    let (sum, rest) = stored.split_first_chunk_mut::<CHECKSUM_BYTES>()?;
    *sum = (!checksum(key, rest)).to_le_bytes();
    (stored.len() < CHECKSUM_BYTES + value.len()).then_some(stored)
}

/// The value in what is stored for a key.
///
/// # Errors
/// It is damaged.
pub(super) fn value_of<'a>(key: &[u8], stored: &'a [u8]) -> Result<Cow<'a, [u8]>, StorageError> {
    let damaged = |what: &str| {
        let key = key.escape_ascii();
        StorageError::new(format!("the value of key {key} is damaged on disk: {what}"))
    };
    let Some((sum, rest)) = stored.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Err(damaged("it is too short"));
    };
    let (sum, expected) = (u64::from_le_bytes(*sum), checksum(key, rest));
    if sum == expected {
        Ok(Cow::Borrowed(rest))
    } else if sum == !expected {
        unpacked(rest).map(Cow::Owned).ok_or_else(|| damaged("it cannot be unpacked"))
    } else {
        Err(damaged("its checksum differs"))
    }
}

fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(packed);
    let bytes_max = (packed.len() as u64).saturating_mul(UNPACKED_PER_PACKED_BYTE_MAX);
    let byte_count = reader.varint_up_to(bytes_max).ok()? as usize;
    let value = lz4_flex::block::decompress(reader.rest(), byte_count).ok()?;
    (value.len() == byte_count).then_some(value)
}

fn checksum(key: &[u8], value: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(key), value)
}

#[cfg(test)]
mod tests {
    use vudo_testkit::Random;

    use super::*;

    const KEY: &[u8] = b"c key";

    fn text() -> Vec<u8> {
        (0..200).flat_map(|number| format!("record {number}, ").into_bytes()).collect()
    }

    #[test]
    fn a_cold_value_takes_less_room_and_comes_back() {
        let text = text();
        let stored = stored_form(KEY, &text, true);
        assert!(stored.len() < text.len() / 2, "{} of {}", stored.len(), text.len());
        assert_eq!(*value_of(KEY, &stored).unwrap(), text);
        let plain = stored_form(KEY, &text, false);
        assert_eq!(plain.len(), text.len() + CHECKSUM_BYTES);
        assert_eq!(*value_of(KEY, &plain).unwrap(), text);
        assert!(value_of(b"c other", &stored).is_err(), "the key is part of the checksum");
    }

    #[test]
    fn what_does_not_get_shorter_stays_as_it_is() {
        let mut random = Random::new(7);
        let noise: Vec<u8> = (0..4_000).map(|_| random.next_u64() as u8).collect();
        assert_eq!(stored_form(KEY, &noise, true), stored_form(KEY, &noise, false));
        let short = [b'a'; PACKED_BYTES_MIN - 1];
        assert_eq!(stored_form(KEY, &short, true), stored_form(KEY, &short, false));
    }

    #[test]
    fn a_flipped_bit_and_a_missing_end_are_told() {
        let stored = stored_form(KEY, &text(), true);
        for bit in 0..stored.len() * 8 {
            let mut damaged = stored.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(value_of(KEY, &damaged).is_err(), "bit {bit}");
        }
        for end in 0..stored.len() {
            assert!(value_of(KEY, &stored[..end]).is_err(), "the first {end} bytes");
        }
    }

    /// A file may be made on purpose, with a checksum that is right.
    #[test]
    fn a_packed_value_that_is_none_is_told() {
        let packed = stored_form(KEY, &text(), true).split_off(CHECKSUM_BYTES);
        let signed = |rest: &[u8]| [&(!checksum(KEY, rest)).to_le_bytes(), rest].concat();
        let mut random = Random::new(8);
        for _ in 0..20_000 {
            let mut rest = packed.clone();
            rest.truncate(random.below(packed.len() + 1));
            for _ in 0..random.below(4) {
                let place = random.below(rest.len().max(1));
                if let Some(byte) = rest.get_mut(place) {
                    *byte = random.next_u64() as u8;
                }
            }
            // Whatever comes out is no longer than it may be.
            if let Ok(value) = value_of(KEY, &signed(&rest)) {
                assert!(value.len() <= rest.len() * UNPACKED_PER_PACKED_BYTE_MAX as usize);
            }
        }
        let mut huge = Vec::new();
        write_varint(&mut huge, u64::MAX);
        assert!(value_of(KEY, &signed(&huge)).is_err());
        assert!(value_of(KEY, &signed(&[])).is_err());
    }
}
