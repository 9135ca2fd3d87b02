//! Counters: what a replica's entry in [`crate::dots`] holds.
//!
//! ```text
//! payload  = total                                      pn_counter, g_counter
//!          | 8 bytes                                    counters of floats
//!          | added | taken | given*                     bounded_counter
//! given    = receiver's key (32 bytes) | rights to add | rights to take away
//! total    = two's complement, low byte first, in as few bytes as hold it
//! ```
//!
//! A total is what one replica has added, less what it has taken away, and the other numbers are
//! totals as well, each behind its length. An operation carries its writer's payload; the payload of
//! the higher number takes the place of the other whole.
//!
//! Integers are counted modulo 2^128, which nobody reaches who does not forge totals.

use alloc::vec::Vec;

use crate::dots::Entries;
use crate::replica::{REPLICA_KEY_BYTES, ReplicaIndex, ReplicaKey, Replicas};
use crate::row::CellId;
use crate::schema::Strategy;
use crate::value::{canonical_float_bits, decode_counts, encode_counts, write_counts};
use crate::wire::{Reader, write_bytes};

/// The bytes of a replica's total; none where it has no entry.
pub(crate) fn own_total(state: &[u8], replica: ReplicaIndex) -> &[u8] {
    Entries::of(state).find(replica).payload
}

/// The sum of all replicas' totals of an integer counter. Totals of another kind, which a fork can
/// leave, read as absent.
pub(crate) fn integer_sum(state: &[u8]) -> i128 {
    let mut sum = 0i128;
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        sum = sum.wrapping_add(decode_integer(entries.entry.payload).unwrap_or(0));
        entries.advance();
    }
    sum
}

/// The sum of all replicas' totals of a float counter.
pub(crate) fn float_sum(state: &[u8]) -> f64 {
    let mut sum = 0.0;
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        sum += decode_float(entries.entry.payload).unwrap_or(0.0);
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

/// Whether bytes are the payload of an operation on this counter.
pub(crate) fn is_operation(payload: &[u8], id: CellId) -> bool {
    is_payload(decode_counts(payload).unwrap_or_default(), id)
}

/// The same of what is inside.
pub(crate) fn is_payload(payload: &[u8], id: CellId) -> bool {
    match Strategy::from_tag(id.tag()) {
        Some(Strategy::PnCounterFloat) => decode_float(payload).is_some(),
        Some(Strategy::GCounter) => decode_integer(payload).is_some_and(|total| total >= 0),
        Some(Strategy::BoundedCounter) if cfg!(feature = "collections") => is_rights(payload),
        _ => decode_integer(payload).is_some(),
    }
}

/// Whether bytes are what [`Rights::encode`] writes inside of an operation.
#[inline(never)]
fn is_rights(payload: &[u8]) -> bool {
    let mut reader = Reader::new(payload);
    let mut fits = true;
    let mut last: &[u8] = &[];
    let mut receiver: &[u8] = &[];
    loop {
        // Two totals each: what was added and taken, then what each receiver was given.
        for _ in 0..2 {
            fits &= decode_integer(reader.bytes_or_empty()).is_some_and(|total| total >= 0);
        }
        fits &= last < receiver || receiver.is_empty();
        if reader.is_empty() {
            return fits && !reader.has_failed();
        }
        last = receiver;
        receiver = reader.take_or_empty(REPLICA_KEY_BYTES);
    }
}

/// What one replica has done to a bounded counter. Nothing in it ever shrinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) added: i128,
    pub(crate) taken: i128,
    /// The rights that it has given away, to add and to take away, ascending by receiver.
    pub(crate) given: Vec<(ReplicaKey, [i128; 2])>,
}

impl Rights {
    pub(crate) fn decode(payload: &[u8]) -> Option<Rights> {
        let mut reader = Reader::new(payload);
        let total = |reader: &mut Reader<'_>| {
            let read = decode_integer(reader.bytes_or_empty());
            read.filter(|total| *total >= 0)
        };
        let (added, taken) = (total(&mut reader)?, total(&mut reader)?);
        let mut given: Vec<(ReplicaKey, [i128; 2])> = Vec::new();
        while !reader.is_empty() {
            let receiver = ReplicaKey(reader.array_or_zero::<REPLICA_KEY_BYTES>());
            if given.last().is_some_and(|(last, _)| *last >= receiver) {
                return None;
            }
            given.push((receiver, [total(&mut reader)?, total(&mut reader)?]));
        }
        reader.checked(Rights { added, taken, given }).ok()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_counts(out, |out| {
            let write = |total: i128, out: &mut Vec<u8>| {
                write_bytes(out, &total.to_le_bytes()[..byte_count(total)]);
            };
            write(self.added, out);
            write(self.taken, out);
            for (receiver, rights) in &self.given {
                out.extend_from_slice(&receiver.0);
                rights.iter().for_each(|total| write(*total, out));
            }
        });
    }

    /// Gives away more rights of one direction.
    pub(crate) fn give(&mut self, receiver: &ReplicaKey, direction: Direction, amount: i128) {
        let place = match self.given.binary_search_by(|(known, _)| known.cmp(receiver)) {
            Ok(place) => place,
            Err(place) => {
                self.given.insert(place, (*receiver, [0; 2]));
                place
            }
        };
        let rights = &mut self.given[place].1[direction as usize];
        *rights = rights.wrapping_add(amount);
    }
}

/// Where a counter begins: at zero, or at the bound nearest to it.
pub(crate) fn start_within(least: i128, greatest: i128) -> i128 {
    0.max(least).min(greatest)
}

/// Which way a bounded counter moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards its upper bound.
    Up = 0,
    /// Towards its lower bound.
    Down = 1,
}

/// What has been added to a bounded counter, less what has been taken away.
pub(crate) fn moved(state: &[u8]) -> i128 {
    let mut moved = 0i128;
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        let rights = Rights::decode(entries.entry.payload).unwrap_or_default();
        moved = moved.wrapping_add(rights.added.wrapping_sub(rights.taken));
        entries.advance();
    }
    moved
}

/// The rights of a replica to move a bounded counter up and down, without those that it has had
/// from the start. Adding gives its writer the right to take away as much, and the other way round.
pub(crate) fn rights_of(state: &[u8], replica: ReplicaIndex, replicas: &Replicas) -> [i128; 2] {
    let key = replicas.key(replica);
    let mut own_rights = [0i128; 2];
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        let rights = Rights::decode(entries.entry.payload).unwrap_or_default();
        let moved = rights.added.wrapping_sub(rights.taken);
        let is_own = entries.entry.replica == replica;
        if is_own {
            own_rights[0] = own_rights[0].wrapping_sub(moved);
            own_rights[1] = own_rights[1].wrapping_add(moved);
        }
        for (receiver, given) in &rights.given {
            for (own, given) in own_rights.iter_mut().zip(given) {
                if is_own {
                    *own = own.wrapping_sub(*given);
                }
                if receiver == key {
                    *own = own.wrapping_add(*given);
                }
            }
        }
        entries.advance();
    }
    own_rights
}

/// How many bytes hold a total and its sign.
fn byte_count(total: i128) -> usize {
    let magnitude = total ^ (total >> 127);
    (i128::BITS - magnitude.leading_zeros()) as usize / 8 + 1
}
