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

use crate::dots::{Entries, Entry};
use crate::replica::{REPLICA_KEY_BYTES, ReplicaIndex, Replicas};
use crate::row::CellId;
use crate::schema::Strategy;
use crate::value::{canonical_float_bits, decode_counts, encode_counts, write_counts};
use crate::wire::{MalformedFrame, Reader, write_bytes};

/// As many bytes as the totals that we compute with have.
const TOTAL_BYTES_MAX: usize = size_of::<i128>();

/// What a write to a `bounded_counter` has to know of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedCounter {
    /// The cell that holds it.
    pub id: CellId,
    /// The least and the greatest value that it may have.
    pub bounds: (i128, i128),
}

/// The bytes of a replica's total; none where it has no entry.
pub(crate) fn own_total(state: &[u8], replica: ReplicaIndex) -> &[u8] {
    Entries::of(state).find(replica).payload
}

/// The sum of all replicas' totals of an integer counter. Totals of another kind, which a fork can
/// leave, read as absent.
pub(crate) fn integer_sum(state: &[u8]) -> i128 {
    let mut sum = 0;
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        let mut total = 0;
        read_integer(entries.entry.payload, &mut total);
        add(&mut sum, &total, false);
        entries.advance();
    }
    sum
}

/// Adds an amount, or takes it away. Out of line in a module, like all that computes with so many
/// bits: each operation is a dozen instructions there.
#[cfg_attr(all(target_arch = "wasm32", feature = "bounded"), inline(never))]
pub(crate) fn add(sum: &mut i128, amount: &i128, is_negated: bool) {
    let amount = if is_negated { amount.wrapping_neg() } else { *amount };
    *sum = sum.wrapping_add(amount);
}

/// Whether an integer is less than another one.
#[cfg_attr(all(target_arch = "wasm32", feature = "bounded"), inline(never))]
pub(crate) fn is_less(left: &i128, right: &i128) -> bool {
    left < right
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
pub(crate) fn encode_integer(total: &i128, out: &mut Vec<u8>) {
    encode_counts(&total.to_le_bytes()[..byte_count(total)], out);
}

/// Appends a total as an operation's payload.
pub(crate) fn encode_float(total: f64, out: &mut Vec<u8>) {
    encode_counts(&canonical_float_bits(total).to_le_bytes(), out);
}

/// Reads the inside of an operation's payload, if it is that of an integer in its shortest form, and
/// says whether it is; what is not leaves the total as it was.
pub(crate) fn read_integer(bytes: &[u8], total: &mut i128) -> bool {
    let Some((last, before)) = bytes.split_last() else { return false };
    let mut whole = [sign_of(*last); TOTAL_BYTES_MAX];
    let is_longer = before.last().is_some_and(|byte| *last == sign_of(*byte));
    let Some(low) = whole.get_mut(..bytes.len()).filter(|_| !is_longer) else { return false };
    low.copy_from_slice(bytes);
    *total = i128::from_le_bytes(whole);
    true
}

/// What the bytes above this one are, of a number that ends with it.
fn sign_of(byte: u8) -> u8 {
    (byte as i8 >> 7) as u8
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
    const FLOAT: u8 = Strategy::PnCounterFloat.tag();
    const GROWING: u8 = Strategy::GCounter.tag();
    const BOUNDED: u8 = Strategy::BoundedCounter.tag();
    let mut total = 0;
    match id.tag() {
        FLOAT => decode_float(payload).is_some(),
        BOUNDED if cfg!(feature = "bounded") => is_rights(payload),
        tag => read_integer(payload, &mut total) && (tag != GROWING || total >= 0),
    }
}

/// Whether bytes are what [`write_rights`] writes inside of an operation.
#[inline(never)]
fn is_rights(payload: &[u8]) -> bool {
    let mut rights = Rights::of(payload);
    let mut last: &[u8] = &[];
    let mut ascend = true;
    while rights.advance() {
        ascend &= last < rights.receiver || rights.receiver.is_empty();
        last = rights.receiver;
    }
    ascend && !payload.is_empty() && !rights.reader.has_failed()
}

/// What one replica has done to a bounded counter, group by group: first what it has added and taken
/// away, then what it has given to each receiver, ascending by key. Nothing in it ever shrinks.
struct Rights<'a> {
    reader: Reader<'a>,
    /// The key of a receiver; nothing for what the replica has done itself.
    receiver: &'a [u8],
    /// By direction.
    totals: [i128; 2],
    is_first: bool,
}

impl<'a> Rights<'a> {
    /// Before the first group.
    fn of(payload: &'a [u8]) -> Rights<'a> {
        Rights { reader: Reader::new(payload), receiver: &[], totals: [0; 2], is_first: true }
    }

    /// Before the first group of the last payload of a replica. What is none, which a fork can
    /// leave, reads as absent.
    fn of_entry(entry: &Entry<'a>) -> Rights<'a> {
        Rights::of(if is_rights(entry.payload) { entry.payload } else { &[] })
    }

    /// Goes on to the next group, if there is one.
    fn advance(&mut self) -> bool {
        let has_next = !self.reader.is_empty();
        if has_next {
            if !self.is_first {
                self.receiver = self.reader.take_or_empty(REPLICA_KEY_BYTES);
            }
            self.is_first = false;
            for total in &mut self.totals {
                let is_total = read_integer(self.reader.bytes_or_empty(), total) && *total >= 0;
                self.reader.check(is_total, MalformedFrame::PayloadDoesNotFit);
            }
        }
        has_next
    }
}

/// Appends the payload of an operation that follows on the one in an entry: more in one direction,
/// given to a receiver, or used by the replica itself where the receiver is nobody.
pub(crate) fn write_rights(
    entry: &Entry<'_>,
    receiver: &[u8],
    direction: Direction,
    amount: &i128,
    out: &mut Vec<u8>,
) {
    let mut rights = Rights::of_entry(entry);
    let payload = rights.reader.rest();
    let (mut before, mut after) = (payload, payload);
    let mut totals = [0; 2];
    while rights.advance() && rights.receiver <= receiver {
        after = rights.reader.rest();
        if rights.receiver == receiver {
            totals = rights.totals;
            break;
        }
        before = after;
    }
    add(&mut totals[direction as usize], amount, false);
    write_counts(out, |out| {
        out.extend_from_slice(&payload[..payload.len() - before.len()]);
        // Nobody gives before it has done anything itself: then that is nothing.
        if payload.is_empty() && !receiver.is_empty() {
            write_totals(&[0; 2], out);
        }
        out.extend_from_slice(receiver);
        write_totals(&totals, out);
        out.extend_from_slice(after);
    });
}

fn write_totals(totals: &[i128; 2], out: &mut Vec<u8>) {
    for total in totals {
        write_bytes(out, &total.to_le_bytes()[..byte_count(total)]);
    }
}

/// Where a counter begins: at zero, or at the bound nearest to it.
pub(crate) fn start_within((least, greatest): &(i128, i128)) -> i128 {
    if is_less(&0, least) {
        *least
    } else if is_less(greatest, &0) {
        *greatest
    } else {
        0
    }
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
    let mut moved = 0;
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        let mut rights = Rights::of_entry(&entries.entry);
        rights.advance();
        let [added, taken] = &rights.totals;
        add(&mut moved, added, false);
        add(&mut moved, taken, true);
        entries.advance();
    }
    moved
}

/// The rights of a replica to move a bounded counter in a direction, without those that it has had
/// from the start. Adding gives its writer the right to take away as much, and the other way round.
pub(crate) fn rights_of(
    state: &[u8],
    replica: ReplicaIndex,
    replicas: &Replicas,
    direction: Direction,
) -> i128 {
    let key = replicas.key(replica);
    let mut own = 0;
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        let mut rights = Rights::of_entry(&entries.entry);
        while rights.advance() {
            let used = &rights.totals[direction as usize];
            let gained = &rights.totals[1 - direction as usize];
            if entries.entry.replica == replica {
                add(&mut own, used, true);
                if rights.receiver.is_empty() {
                    add(&mut own, gained, false);
                }
            }
            if rights.receiver == key.0 {
                add(&mut own, used, false);
            }
        }
        entries.advance();
    }
    own
}

/// How many bytes hold a total and its sign.
fn byte_count(total: &i128) -> usize {
    let bytes = total.to_le_bytes();
    let mut count = TOTAL_BYTES_MAX;
    while count > 1 && bytes[count - 1] == sign_of(bytes[count - 2]) {
        count -= 1;
    }
    count
}

/// The payload of an operation that adds to a replica's total what another one's operation adds to
/// that one's total before. Totals of another kind, which a fork can leave, count as zero.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn add_difference(id: CellId, own: &[u8], before: &[u8], operation: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let inside = |operation| decode_counts(operation).unwrap_or_default();
    if id.tag() == Strategy::PnCounterFloat.tag() {
        let total = |bytes| decode_float(bytes).unwrap_or(0.0);
        let sum = total(own) + (total(inside(operation)) - total(inside(before)));
        encode_float(if sum.is_finite() { sum } else { total(own) }, &mut out);
    } else {
        let total = |bytes| {
            let mut total = 0;
            read_integer(bytes, &mut total);
            total
        };
        let mut sum = total(own);
        add(&mut sum, &total(inside(operation)), false);
        add(&mut sum, &total(inside(before)), true);
        // A counter that only grows never takes away.
        let is_growing = id.tag() == Strategy::GCounter.tag();
        encode_integer(&if is_growing { sum.max(0) } else { sum }, &mut out);
    }
    out
}
