//! The state of counters: for each replica the totals of its last change.
//!
//! ```text
//! state   = length | entry*                      ascending by replica index
//! entry   = replica index | number | totals (length, bytes)
//! totals  = plus | minus                         of integers: a byte count and so many bytes, low first
//!                                                of floats: eight bytes each
//! ```
//!
//! An operation carries the totals of its writer alone; number and replica are its change's. The
//! join takes, replica by replica, the entry of the higher number and looks no further into it.

use alloc::vec::Vec;

use crate::replica::ReplicaIndex;
use crate::schema::Strategy;
use crate::value::{decode_counts, encode_counts};
use crate::wire::{MalformedFrame, Reader, write_bytes, write_varint};

/// What one replica has added and taken away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Totals {
    /// Of an integer counter. Neither is negative.
    Integer {
        /// The sum of what was added.
        plus: i128,
        /// The sum of what was taken away.
        minus: i128,
    },
    /// Of a float counter. Neither is negative, infinite or NaN.
    Float {
        /// The sum of what was added.
        plus: f64,
        /// The sum of what was taken away.
        minus: f64,
    },
}

/// One replica's entry in a counter's state.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) replica: ReplicaIndex,
    pub(crate) number: u64,
    pub(crate) totals: &'a [u8],
}

impl Entry<'_> {
    /// Comes after every entry: there are never so many replicas.
    const END: Entry<'static> = Entry { replica: ReplicaIndex::MAX, number: 0, totals: &[] };

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.replica.into());
        write_varint(out, self.number);
        write_bytes(out, self.totals);
    }
}

/// The entries of a state, ascending by replica index; none for bytes that are no counter's.
pub(crate) fn entries(state: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut reader = Reader::new(decode_counts(state).unwrap_or_default());
    core::iter::from_fn(move || {
        (!reader.is_empty()).then(|| Entry {
            replica: reader.varint_or_zero() as ReplicaIndex,
            number: reader.varint_or_zero(),
            totals: reader.bytes_or_empty(),
        })
    })
}

/// Appends the state that an operation amounts to: its writer's entry and nothing else.
pub(crate) fn lift(replica: ReplicaIndex, number: u64, operation: &[u8], out: &mut Vec<u8>) {
    let totals = decode_counts(operation).unwrap_or_default();
    let mut body = Vec::with_capacity(totals.len() + 8);
    Entry { replica, number, totals }.encode(&mut body);
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
                && (left.number, left.totals) >= (right.number, right.totals));
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

/// What a replica has added to and taken from a counter so far; zero where it has no entry.
pub(crate) fn totals_of(state: Option<&[u8]>, replica: ReplicaIndex, strategy: Strategy) -> Totals {
    let own = state.and_then(|state| entries(state).find(|entry| entry.replica == replica));
    let known = own.and_then(|entry| Totals::decode(entry.totals, strategy).ok());
    known.unwrap_or(Totals::zero(strategy))
}

/// The sum of all replicas' totals.
pub(crate) fn sum(state: &[u8], strategy: Strategy) -> Totals {
    let mut sum = Totals::zero(strategy);
    for entry in entries(state) {
        // A fork can leave totals of another kind under this tag; they read as absent.
        if let Ok(totals) = Totals::decode(entry.totals, strategy) {
            sum = sum.plus(&totals);
        }
    }
    sum
}

impl Totals {
    pub(crate) fn zero(strategy: Strategy) -> Totals {
        match strategy {
            Strategy::PnCounterFloat => Totals::Float { plus: 0.0, minus: 0.0 },
            _ => Totals::Integer { plus: 0, minus: 0 },
        }
    }

    /// Entry by entry. Integer totals stop at the ends of `i128`, which 2^63 additions of the
    /// greatest amount reach.
    fn plus(&self, other: &Totals) -> Totals {
        match (*self, *other) {
            (Totals::Integer { plus, minus }, Totals::Integer { plus: p, minus: m }) => {
                Totals::Integer { plus: plus.saturating_add(p), minus: minus.saturating_add(m) }
            }
            (Totals::Float { plus, minus }, Totals::Float { plus: p, minus: m }) => {
                Totals::Float { plus: plus + p, minus: minus + m }
            }
            (kept, _) => kept,
        }
    }

    /// These totals after one more local amount.
    pub(crate) fn after_adding(&self, integer: i64) -> Totals {
        let wide = i128::from(integer);
        self.plus(&Totals::Integer { plus: wide.max(0), minus: (-wide).max(0) })
    }

    /// These totals after one more local amount.
    pub(crate) fn after_adding_float(&self, amount: f64) -> Totals {
        self.plus(&Totals::Float { plus: amount.max(0.0), minus: (-amount).max(0.0) })
    }

    /// Whether the totals can be sent: peers refuse floats that are not finite.
    pub(crate) fn is_finite(&self) -> bool {
        match self {
            Totals::Integer { .. } => true,
            Totals::Float { plus, minus } => plus.is_finite() && minus.is_finite(),
        }
    }

    /// Appends the totals as an operation's payload.
    pub(crate) fn encode_operation(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        match self {
            Totals::Integer { plus, minus } => {
                for total in [plus, minus] {
                    let bytes = total.to_le_bytes();
                    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
                    write_bytes(&mut body, &bytes[..length]);
                }
            }
            Totals::Float { plus, minus } => {
                body.extend_from_slice(&plus.to_le_bytes());
                body.extend_from_slice(&minus.to_le_bytes());
            }
        }
        encode_counts(&body, out);
    }

    /// Reads the inside of an operation's payload, checking that it is canonical.
    fn decode(bytes: &[u8], strategy: Strategy) -> Result<Totals, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let totals = match strategy {
            Strategy::PnCounterFloat => Totals::Float {
                plus: read_float_total(&mut reader),
                minus: read_float_total(&mut reader),
            },
            _ => Totals::Integer {
                plus: read_integer_total(&mut reader),
                minus: read_integer_total(&mut reader),
            },
        };
        reader.check(reader.is_empty(), MalformedFrame::PayloadDoesNotFit);
        reader.checked(totals)
    }
}

fn read_integer_total(reader: &mut Reader<'_>) -> i128 {
    let bytes = reader.bytes_or_empty();
    let mut wide = [0; 16];
    match wide.get_mut(..bytes.len()) {
        Some(low) => low.copy_from_slice(bytes),
        None => reader.fail(MalformedFrame::TooLarge),
    }
    let total = i128::from_le_bytes(wide);
    let is_canonical = bytes.last() != Some(&0) && total >= 0;
    reader.check(is_canonical, MalformedFrame::ValueNotCanonical);
    total
}

fn read_float_total(reader: &mut Reader<'_>) -> f64 {
    let total = f64::from_le_bytes(reader.array_or_zero());
    let is_canonical = total.is_finite() && total.is_sign_positive();
    reader.check(is_canonical, MalformedFrame::ValueNotCanonical);
    total
}

/// Checks an operation's payload; a fault goes to the reader that it came from.
pub(crate) fn validate_operation(payload: &[u8], strategy: Strategy, reader: &mut Reader<'_>) {
    let totals = decode_counts(payload).ok_or(MalformedFrame::PayloadDoesNotFit);
    if let Err(what) = totals.and_then(|totals| Totals::decode(totals, strategy)) {
        reader.fail(what);
    }
}
