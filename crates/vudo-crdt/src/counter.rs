//! The state of counters: for each replica the total of its last change.
//!
//! ```text
//! state   = length | entry*                      ascending by replica index
//! entry   = replica index | number | total (length, bytes)
//! total   = of integers: two's complement, low byte first, in as few bytes as hold it
//!           of floats: eight bytes
//! ```
//!
//! A total is what one replica has added, less what it has taken away. An operation carries that
//! of its writer alone; number and replica are its change's. The join takes, replica by replica,
//! the entry of the higher number and looks no further into it.
//!
//! Integers are counted modulo 2^128, which nobody reaches who does not forge totals.

use alloc::vec::Vec;

use crate::replica::ReplicaIndex;
use crate::schema::Strategy;
use crate::value::{canonical_float_bits, decode_counts, encode_counts};
use crate::wire::{Reader, write_bytes, write_varint};

/// One replica's entry in a counter's state.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) replica: ReplicaIndex,
    pub(crate) number: u64,
    pub(crate) total: &'a [u8],
}

impl Entry<'_> {
    /// Comes after every entry: there are never so many replicas.
    const END: Entry<'static> = Entry { replica: ReplicaIndex::MAX, number: 0, total: &[] };

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.replica.into());
        write_varint(out, self.number);
        write_bytes(out, self.total);
    }
}

/// The entries of a state, ascending by replica index; none for bytes that are no counter's.
pub(crate) fn entries(state: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut reader = Reader::new(decode_counts(state).unwrap_or_default());
    core::iter::from_fn(move || {
        (!reader.is_empty()).then(|| Entry {
            replica: reader.varint_or_zero() as ReplicaIndex,
            number: reader.varint_or_zero(),
            total: reader.bytes_or_empty(),
        })
    })
}

/// Appends the state that an operation amounts to: its writer's entry and nothing else.
pub(crate) fn lift(replica: ReplicaIndex, number: u64, operation: &[u8], out: &mut Vec<u8>) {
    let total = decode_counts(operation).unwrap_or_default();
    let mut body = Vec::with_capacity(total.len() + 8);
    Entry { replica, number, total }.encode(&mut body);
    encode_counts(&body, out);
}

/// Appends the join of two states.
pub(crate) fn join(left: &[u8], right: &[u8], out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(left.len() + right.len());
    let (mut left_entries, mut right_entries) = (entries(left), entries(right));
    let mut left = left_entries.next().unwrap_or(Entry::END);
    let mut right = right_entries.next().unwrap_or(Entry::END);
    loop {
        let replica = left.replica.min(right.replica);
        if replica == Entry::END.replica {
            break;
        }
        // Equal numbers with other totals come from a fork; the greater bytes win everywhere.
        let left_wins = left.replica < right.replica
            || (left.replica == right.replica
                && (left.number, left.total) >= (right.number, right.total));
        if left_wins { &left } else { &right }.encode(&mut body);
        if left.replica == replica {
            left = left_entries.next().unwrap_or(Entry::END);
        }
        if right.replica == replica {
            right = right_entries.next().unwrap_or(Entry::END);
        }
    }
    encode_counts(&body, out);
}

/// The bytes of a replica's total; none where it has no entry.
pub(crate) fn own_total(state: &[u8], replica: ReplicaIndex) -> &[u8] {
    let own = entries(state).find(|entry| entry.replica == replica);
    own.map_or(&[], |entry| entry.total)
}

/// The sum of all replicas' totals of an integer counter. Totals of another kind, which a fork can
/// leave, read as absent.
pub(crate) fn integer_sum(state: &[u8]) -> i128 {
    let totals = entries(state).filter_map(|entry| decode_integer(entry.total));
    totals.fold(0, i128::wrapping_add)
}

/// The sum of all replicas' totals of a float counter.
pub(crate) fn float_sum(state: &[u8]) -> f64 {
    entries(state).filter_map(|entry| decode_float(entry.total)).fold(0.0, |sum, total| sum + total)
}

/// Appends a total as an operation's payload.
pub(crate) fn encode_integer(total: i128, out: &mut Vec<u8>) {
    encode_counts(&total.to_le_bytes()[..byte_count(total)], out);
}

/// Appends a total as an operation's payload.
pub(crate) fn encode_float(total: f64, out: &mut Vec<u8>) {
    encode_counts(&canonical_float_bits(total).to_le_bytes(), out);
}

/// Reads the inside of an operation's payload, if it is that of an integer in its shortest form.
pub(crate) fn decode_integer(bytes: &[u8]) -> Option<i128> {
    let is_negative = bytes.last()? >> 7 == 1;
    let mut wide = if is_negative { [0xff; 16] } else { [0; 16] };
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let total = i128::from_le_bytes(wide);
    (byte_count(total) == bytes.len()).then_some(total)
}

/// Reads the inside of an operation's payload, if it is that of a number that peers accept.
pub(crate) fn decode_float(bytes: &[u8]) -> Option<f64> {
    let total = f64::from_le_bytes(bytes.try_into().ok()?);
    let is_canonical = total.to_bits() == canonical_float_bits(total);
    (is_canonical && total.is_finite()).then_some(total)
}

/// Whether an operation's payload is one of this strategy.
pub(crate) fn is_operation(payload: &[u8], strategy: Strategy) -> bool {
    let total = decode_counts(payload).unwrap_or_default();
    match strategy {
        Strategy::PnCounterFloat => decode_float(total).is_some(),
        _ => decode_integer(total).is_some(),
    }
}

/// How many bytes hold a total and its sign.
fn byte_count(total: i128) -> usize {
    let magnitude = total ^ (total >> 127);
    (i128::BITS - magnitude.leading_zeros()) as usize / 8 + 1
}
