//! The state of cells that keep something for each replica: counters, `mv_register`, and with it
//! the elements of sets.
//!
//! ```text
//! state   = length | entry*                              ascending by replica index
//! entry   = replica index | covered | ahead | payload (length, bytes), if ahead is not zero
//! ```
//!
//! For each replica an entry says up to which number its writes have been covered by later ones of
//! anybody (`covered`), and, where its last write is newer than that (`covered + ahead`), what it
//! wrote. The join takes the greater of both numbers, replica by replica. A counter is the case in
//! which nothing is ever covered: the payload is the replica's total.
//!
//! ```text
//! operation of a counter      = length | payload
//! operation of an mv_register = length | covered count << 1 | writes | (reference, number)* | value
//! ```
//!
//! An operation on an `mv_register` covers what its writer saw. References are indexes into the
//! replicas that the change names; number and replica of the write are its change's. What it writes
//! is a value, or nothing for the element of a set, which is there or is not.

use alloc::vec::Vec;
use core::cmp::Ordering;

#[cfg(not(target_arch = "wasm32"))]
use crate::counter;
use crate::hlc::Hlc;
use crate::replica::{ReplicaIndex, Replicas};
#[cfg(not(target_arch = "wasm32"))]
use crate::row::CellId;
use crate::sorted::sort;
use crate::value::{check_value, decode_counts, step_over_value, write_counts};
use crate::wire::{MalformedFrame, Reader, write_bytes, write_varint};

/// One replica's entry in a state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) replica: ReplicaIndex,
    /// Up to which number the replica's writes are covered.
    pub(crate) covered: u64,
    /// The number of its last write; no greater than `covered` where that is covered.
    pub(crate) written: u64,
    /// What it wrote last; nothing where that is covered.
    pub(crate) payload: &'a [u8],
}

impl Entry<'_> {
    /// Comes after every entry: there are never so many replicas.
    const END: Entry<'static> =
        Entry { replica: ReplicaIndex::MAX, covered: 0, written: 0, payload: &[] };

    /// Whether the replica's last write has not been covered.
    pub(crate) fn is_live(&self) -> bool {
        self.written > self.covered
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.replica.into());
        self.encode_state(out);
    }

    fn encode_state(&self, out: &mut Vec<u8>) {
        write_varint(out, self.covered);
        write_varint(out, self.written.saturating_sub(self.covered));
        if self.is_live() {
            write_bytes(out, self.payload);
        }
    }
}

/// The entries of a state, one after the other, ascending by replica index.
pub(crate) struct Entries<'a> {
    reader: Reader<'a>,
    /// The entry that was read last; behind the last one [`Entry::END`].
    pub(crate) entry: Entry<'a>,
}

impl<'a> Entries<'a> {
    /// At the first entry. Bytes that are no such state have none.
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
            self.entry.covered = self.reader.varint_or_zero();
            let ahead = self.reader.varint_or_zero();
            self.entry.written = self.entry.covered.saturating_add(ahead);
            if ahead > 0 {
                self.entry.payload = self.reader.bytes_or_empty();
            }
        }
    }

    /// Goes on to the entry of a replica, or to the end.
    pub(crate) fn find(mut self, replica: ReplicaIndex) -> Entry<'a> {
        while !self.is_at_end() && self.entry.replica != replica {
            self.advance();
        }
        self.entry
    }
}

/// Appends the state that a counter's operation amounts to: its writer's entry and nothing else.
pub(crate) fn lift_total(replica: ReplicaIndex, number: u64, operation: &[u8], out: &mut Vec<u8>) {
    let payload = decode_counts(operation).unwrap_or_default();
    write_counts(out, |out| {
        Entry { replica, covered: 0, written: number, payload }.encode(out);
    });
}

/// Appends the join of two states.
pub(crate) fn join(left: &[u8], right: &[u8], out: &mut Vec<u8>) {
    write_counts(out, |out| {
        let (mut left, mut right) = (Entries::of(left), Entries::of(right));
        while !left.is_at_end() || !right.is_at_end() {
            let order = left.entry.replica.cmp(&right.entry.replica);
            // Equal numbers with other payloads come from a fork; the greater bytes win everywhere.
            let by_number = || left.entry.written.cmp(&right.entry.written);
            let by_payload = || left.entry.payload.cmp(right.entry.payload);
            let left_wins = match order {
                Ordering::Equal if cfg!(vudo_mutation = "totals_by_max") => by_payload().is_gt(),
                Ordering::Equal => by_number().then_with(by_payload).is_gt(),
                order => order.is_lt(),
            };
            let covered = left.entry.covered.max(right.entry.covered);
            let winner = if left_wins { &mut left.entry } else { &mut right.entry };
            if order.is_eq() {
                winner.covered = covered;
            }
            winner.encode(out);
            if order.is_le() {
                left.advance();
            }
            if order.is_ge() {
                right.advance();
            }
        }
    });
}

/// Appends a state with every replica named by its key, ascending by key.
pub(crate) fn write_canonical(state: &[u8], replicas: &Replicas, out: &mut Vec<u8>) {
    let mut entries = Vec::new();
    let mut unsorted = Entries::of(state);
    while !unsorted.is_at_end() {
        entries.push(unsorted.entry);
        unsorted.advance();
    }
    entries.sort_unstable_by_key(|entry| replicas.key(entry.replica));
    write_counts(out, |out| {
        for entry in entries {
            out.extend_from_slice(&replicas.key(entry.replica).0);
            entry.encode_state(out);
        }
    });
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
    write_counts(out, |out| {
        renamed.iter().for_each(|entry| entry.encode(out));
    });
}

/// Whether bytes are the state of this cell, or of the element of a set, of so many replicas.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn is_state(state: &[u8], replica_count: usize, id: CellId, is_element: bool) -> bool {
    let Some(body) = decode_counts(state) else { return false };
    let mut reader = Reader::new(body);
    let mut next = 0;
    let mut fits = !reader.is_empty();
    while !reader.is_empty() {
        let replica = reader.varint_or_zero();
        let covered = reader.varint_or_zero();
        let ahead = reader.varint_or_zero();
        fits &= replica >= next && (covered, ahead) != (0, 0);
        fits &= covered.checked_add(ahead).is_some();
        next = replica.saturating_add(1);
        if id.is_counter() {
            fits &= covered == 0 && counter::is_payload(reader.bytes_or_empty(), id);
        } else if ahead > 0 {
            let payload = reader.bytes_or_empty();
            fits &= if is_element { payload.is_empty() } else { is_dated_value(payload) };
        }
    }
    fits && next <= replica_count as u64 && !reader.has_failed()
}

/// Whether bytes are a time and a value.
#[cfg(not(target_arch = "wasm32"))]
fn is_dated_value(payload: &[u8]) -> bool {
    let mut reader = Reader::new(payload);
    Hlc::read(&mut reader);
    let value = step_over_value(&mut reader);
    check_value(value, &mut reader);
    reader.is_empty() && !reader.has_failed()
}

/// Reads an operation on an `mv_register` that has been checked. Appends reference and number of each
/// covered write, ascending by reference; gives whether it writes, and the value or nothing.
fn read_register<'a>(operation: &'a [u8], covers: &mut Vec<(u64, u64)>) -> (bool, &'a [u8]) {
    let mut reader = Reader::new(decode_counts(operation).unwrap_or_default());
    let head = reader.varint_or_zero();
    for _ in 0..head >> 1 {
        let reference = reader.varint_or_zero();
        covers.push((reference, reader.varint_or_zero()));
    }
    (head & 1 == 1, reader.rest())
}

/// Checks an operation of a change that refers to so many replicas, itself included; one on the
/// element of a set has no value. A fault goes to `reader`.
#[inline(never)]
pub(crate) fn check_register(
    operation: &[u8],
    reference_count: u64,
    is_of_element: bool,
    reader: &mut Reader<'_>,
) {
    let mut inside = Reader::new(decode_counts(operation).unwrap_or_default());
    let head = inside.varint_or_zero();
    let (mut left, mut least) = (head >> 1, 0);
    while left > 0 && !inside.has_failed() {
        left -= 1;
        let reference = inside.varint_or_zero();
        let number = inside.varint_or_zero();
        let is_known = reference < reference_count;
        inside.check(is_known, MalformedFrame::IndexOutOfRange);
        inside.check(reference >= least && number != 0, MalformedFrame::NotSorted);
        least = reference + 1;
    }
    let has_value = !inside.is_empty();
    if has_value {
        let value = step_over_value(&mut inside);
        check_value(value, &mut inside);
        inside.check(inside.is_empty(), MalformedFrame::TrailingBytes);
    }
    // What writes has the value, which an element has none of; what does not covers something.
    let writes = head & 1 == 1;
    let fits = has_value == (writes && !is_of_element) && head != 0;
    inside.check(fits, MalformedFrame::PayloadDoesNotFit);
    if let Err(what) = inside.checked(()) {
        reader.fail(what);
    }
}

/// What an operation on an `mv_register` covers: reference and number of each write.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn covers(operation: &[u8]) -> Vec<(u64, u64)> {
    let mut covers = Vec::new();
    read_register(operation, &mut covers);
    covers
}

/// Appends the state that an operation on an `mv_register` amounts to.
pub(crate) fn lift_register(
    references: &[ReplicaIndex],
    number: u64,
    hlc: Hlc,
    operation: &[u8],
    out: &mut Vec<u8>,
) {
    let own = references[0].into();
    let mut covers = Vec::new();
    let (is_written, value) = read_register(operation, &mut covers);
    for (reference, _) in &mut covers {
        *reference = references[*reference as usize].into();
    }
    if is_written {
        // The writer has an entry also where nothing of it is covered.
        covers.push((own, 0));
    }
    let mut payload = Vec::new();
    if !value.is_empty() {
        hlc.encode(&mut payload);
        payload.extend_from_slice(value);
    }
    // A change may name a replica twice.
    settle(&mut covers);
    write_counts(out, |out| {
        for &(replica, covered) in &covers {
            let written = if is_written && replica == own { number } else { 0 };
            let replica = replica as ReplicaIndex;
            Entry { replica, covered, written, payload: &payload }.encode(out);
        }
    });
}

/// Sorts pairs of a replica and a number, and keeps the greatest number of each replica: it covers
/// the lesser ones.
#[inline(never)]
fn settle(covers: &mut Vec<(u64, u64)>) {
    let list = covers.as_mut_slice();
    sort(list);
    let mut last = 0;
    for place in 1..list.len() {
        last += usize::from(list[last].0 != list[place].0);
        list[last] = list[place];
    }
    covers.truncate(last + 1);
}

/// What a transaction puts into an operation on an `mv_register`.
pub(crate) struct RegisterWrite {
    /// Reference and number of what is covered.
    covers: Vec<(u64, u64)>,
}

impl RegisterWrite {
    /// Covers what an earlier operation of the same transaction covered.
    pub(crate) fn again(operation: &[u8]) -> RegisterWrite {
        let mut covers = Vec::new();
        read_register(operation, &mut covers);
        RegisterWrite { covers }
    }

    /// Covers every write that a state knows of. Those that are covered already are among them: where
    /// what covered them is set aside, they must not show again beside this one, whose writer knew
    /// that they were history.
    pub(crate) fn cover_known(&mut self, state: &[u8], references: &mut Vec<ReplicaIndex>) {
        let mut entries = Entries::of(state);
        while !entries.is_at_end() {
            let unknown = u64::from(cfg!(vudo_mutation = "remove_covers_unknown_adds"));
            let Entry { replica, written, .. } = entries.entry;
            self.cover(replica, written + unknown, references);
            entries.advance();
        }
    }

    /// Covers a write. `references` are the replicas that the change names, first its own; one that
    /// is not among them is added.
    fn cover(&mut self, replica: ReplicaIndex, number: u64, references: &mut Vec<ReplicaIndex>) {
        let known = references.iter().position(|known| *known == replica);
        let reference = known.unwrap_or(references.len());
        if known.is_none() {
            references.push(replica);
        }
        self.covers.push((reference as u64, number));
    }

    pub(crate) fn covers_nothing(&self) -> bool {
        self.covers.is_empty()
    }

    /// The operation's payload. `value` is what is written, encoded, if anything is.
    pub(crate) fn encode(&mut self, value: Option<&[u8]>) -> Vec<u8> {
        settle(&mut self.covers);
        let mut covers = self.covers.as_slice();
        // The writer's own write makes its earlier ones superfluous.
        if let [(0, _), others @ ..] = covers
            && value.is_some()
        {
            covers = others;
        }
        let mut out = Vec::new();
        write_counts(&mut out, |out| {
            write_varint(out, (covers.len() as u64) << 1 | u64::from(value.is_some()));
            for &(reference, number) in covers {
                write_varint(out, reference);
                write_varint(out, number);
            }
            out.extend_from_slice(value.unwrap_or_default());
        });
        out
    }
}

/// One of the values that an `mv_register` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveValue<'a> {
    /// When it was written.
    pub hlc: Hlc,
    /// Who wrote it.
    pub replica: ReplicaIndex,
    /// The number of the writer's change.
    pub number: u64,
    /// The value in its bytes.
    pub value: &'a [u8],
}

/// The values that the state of an `mv_register` holds, oldest first.
pub fn live_values<'a>(state: &'a [u8], replicas: &Replicas) -> Vec<LiveValue<'a>> {
    // A module, which has few, puts each in its place: sorting is more code.
    let is_sorted_at_once = cfg!(target_arch = "wasm32");
    let mut values: Vec<LiveValue<'a>> = Vec::new();
    let key = |live: &LiveValue<'_>| (live.hlc, replicas.key(live.replica));
    visit_live(state, |live| {
        let mut place = values.len();
        while is_sorted_at_once && place > 0 && key(&values[place - 1]) > key(&live) {
            place -= 1;
        }
        values.insert(place, live);
    });
    if !is_sorted_at_once {
        values.sort_unstable_by(|left, right| key(left).cmp(&key(right)));
    }
    values
}

/// [`live_values`] by replica index.
pub(crate) fn unordered_values(state: &[u8]) -> Vec<LiveValue<'_>> {
    let mut values = Vec::new();
    visit_live(state, |live| values.push(live));
    values
}

/// Visits the values that the state of an `mv_register` holds, in the order of their writers.
pub(crate) fn visit_live<'a>(state: &'a [u8], mut visit: impl FnMut(LiveValue<'a>)) {
    let mut entries = Entries::of(state);
    while !entries.is_at_end() {
        let Entry { replica, written: number, payload, .. } = entries.entry;
        if entries.entry.is_live() && !payload.is_empty() {
            let mut reader = Reader::new(payload);
            let hlc = Hlc::read(&mut reader);
            visit(LiveValue { hlc, replica, number, value: reader.rest() });
        }
        entries.advance();
    }
}

/// Whether a state has a write that nothing has covered: whether an element is in its set.
pub(crate) fn has_live(state: &[u8]) -> bool {
    let mut entries = Entries::of(state);
    while !entries.is_at_end() && !entries.entry.is_live() {
        entries.advance();
    }
    entries.entry.is_live()
}

/// An operation on an `mv_register` in somebody else's name: with what `renumber` makes of the writes
/// that it covers, and `known` covered as well where it writes. `named` are the replicas that the new
/// change names, first its own; those that are covered are added. `None` where nothing is left of it.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn write_again(
    operation: &[u8],
    references: &[ReplicaIndex],
    renumber: impl Fn(ReplicaIndex, u64) -> Option<(ReplicaIndex, u64)>,
    known: Option<(ReplicaIndex, u64)>,
    named: &mut Vec<ReplicaIndex>,
) -> Option<Vec<u8>> {
    let mut before = Vec::new();
    let (writes, value) = read_register(operation, &mut before);
    let mut write = RegisterWrite { covers: Vec::new() };
    let again = before
        .iter()
        .filter_map(|(reference, number)| renumber(references[*reference as usize], *number));
    for (replica, number) in again.chain(known.filter(|_| writes)) {
        write.cover(replica, number, named);
    }
    let is_left = writes || !write.covers_nothing();
    is_left.then(|| write.encode(writes.then_some(value)))
}
