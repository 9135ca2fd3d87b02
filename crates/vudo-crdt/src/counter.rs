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
use core::cmp::Ordering;

use crate::replica::ReplicaIndex;
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

/// The entries of a state, one after the other, ascending by replica index.
pub(crate) struct Entries<'a> {
    reader: Reader<'a>,
    /// The entry that was read last; behind the last one [`Entry::END`].
    pub(crate) entry: Entry<'a>,
}

impl<'a> Entries<'a> {
    /// At the first entry. Bytes that are no counter's have none.
    pub(crate) fn of(state: &'a [u8]) -> Entries<'a> {
        let reader = Reader::new(decode_counts(state).unwrap_or_default());
        let mut entries = Entries { reader, entry: Entry::END };
        entries.advance();
        entries
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.entry.replica == Entry::END.replica
    }

    #[inline(never)]
    pub(crate) fn advance(&mut self) {
        self.entry = Entry::END;
        if !self.reader.is_empty() {
            self.entry.replica = self.reader.varint_or_zero() as ReplicaIndex;
            self.entry.number = self.reader.varint_or_zero();
            self.entry.total = self.reader.bytes_or_empty();
        }
    }
}

/// Appends the state that an operation amounts to: its writer's entry and nothing else.
pub(crate) fn lift(replica: ReplicaIndex, number: u64, operation: &[u8], out: &mut Vec<u8>) {
    let total = decode_counts(operation).unwrap_or_default();
    let mut body = Vec::new();
    Entry { replica, number, total }.encode(&mut body);
    encode_counts(&body, out);
}

/// Appends the join of two states.
pub(crate) fn join(left: &[u8], right: &[u8], out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let (mut left, mut right) = (Entries::of(left), Entries::of(right));
    while !left.is_at_end() || !right.is_at_end() {
        let order = left.entry.replica.cmp(&right.entry.replica);
        // Equal numbers with other totals come from a fork; the greater bytes win everywhere.
        let by_number = || left.entry.number.cmp(&right.entry.number);
        let by_total = || left.entry.total.cmp(right.entry.total);
        let left_wins = match order {
            Ordering::Equal => by_number().then_with(by_total).is_gt(),
            order => order.is_lt(),
        };
        if left_wins { &left.entry } else { &right.entry }.encode(&mut body);
        if order.is_le() {
            left.advance();
        }
        if order.is_ge() {
            right.advance();
        }
    }
    encode_counts(&body, out);
}

/// Shows every replica that has an entry.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn replicas(state: &[u8], mut show: impl FnMut(ReplicaIndex)) {
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        show(entries.entry.replica);
        entries.advance();
    }
}

/// Appends a state with its replicas under other indexes.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn write_renamed(
    state: &[u8],
    index_of: impl Fn(ReplicaIndex) -> ReplicaIndex,
    out: &mut Vec<u8>,
) {
    let mut renamed = Vec::new();
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        renamed.push(Entry { replica: index_of(entries.entry.replica), ..entries.entry });
        entries.advance();
    }
    renamed.sort_unstable_by_key(|entry| entry.replica);
    let mut body = Vec::new();
    renamed.iter().for_each(|entry| entry.encode(&mut body));
    encode_counts(&body, out);
}

/// Whether bytes are the state of a counter of floats, or else of integers, of so many replicas.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn is_state(state: &[u8], replica_count: usize, is_float: bool) -> bool {
    let Some(body) = decode_counts(state) else { return false };
    let mut reader = Reader::new(body);
    let mut next = 0;
    let mut fits = !reader.is_empty();
    while !reader.is_empty() {
        let replica = reader.varint_or_zero();
        let number = reader.varint_or_zero();
        let total = reader.bytes_or_empty();
        let is_total =
            if is_float { decode_float(total).is_some() } else { decode_integer(total).is_some() };
        fits &= replica >= next && number != 0 && is_total;
        next = replica.saturating_add(1);
    }
    fits && next <= replica_count as u64 && !reader.has_failed()
}

/// The number of the change that a replica's total is of; zero where it has no entry.
pub(crate) fn number_of(state: &[u8], replica: ReplicaIndex) -> u64 {
    let mut entries = Entries::of(state);
    while !entries.is_at_end() && entries.entry.replica != replica {
        entries.advance();
    }
    entries.entry.number
}

/// The bytes of a replica's total; none where it has no entry.
pub(crate) fn own_total(state: &[u8], replica: ReplicaIndex) -> &[u8] {
    let mut entries = Entries::of(state);
    while !entries.is_at_end() && entries.entry.replica != replica {
        entries.advance();
    }
    entries.entry.total
}

/// The sum of all replicas' totals of an integer counter. Totals of another kind, which a fork can
/// leave, read as absent.
pub(crate) fn integer_sum(state: &[u8]) -> i128 {
    let mut sum = 0i128;
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        sum = sum.wrapping_add(decode_integer(entries.entry.total).unwrap_or(0));
        entries.advance();
    }
    sum
}

/// The sum of all replicas' totals of a float counter.
pub(crate) fn float_sum(state: &[u8]) -> f64 {
    let mut sum = 0.0;
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        sum += decode_float(entries.entry.total).unwrap_or(0.0);
        entries.advance();
    }
    sum
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
    let mut total = -i128::from(is_negative);
    for byte in bytes.iter().rev() {
        total = total << 8 | i128::from(*byte);
    }
    (byte_count(total) == bytes.len()).then_some(total)
}

/// Reads the inside of an operation's payload, if it is that of a number that peers accept.
pub(crate) fn decode_float(bytes: &[u8]) -> Option<f64> {
    let total = f64::from_le_bytes(bytes.try_into().ok()?);
    let is_canonical = total.to_bits() == canonical_float_bits(total);
    (is_canonical && total.is_finite()).then_some(total)
}

/// Whether bytes are the payload of an operation on a counter of floats, or else of integers.
pub(crate) fn is_operation(payload: &[u8], is_float: bool) -> bool {
    let total = decode_counts(payload).unwrap_or_default();
    if is_float { decode_float(total).is_some() } else { decode_integer(total).is_some() }
}

/// How many bytes hold a total and its sign.
fn byte_count(total: i128) -> usize {
    let magnitude = total ^ (total >> 127);
    (i128::BITS - magnitude.leading_zeros()) as usize / 8 + 1
}
