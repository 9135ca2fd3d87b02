//! Effective or set aside: which of the changes that are held have an effect.
//!
//! ```text
//! grants, cuts, forks, checkpoints --(the caller)--> Ranges of each replica --judge--> tables
//!                                                                       |
//!                                    changes that are retained, from a LogSource
//! ```
//!
//! What is set aside is a pure function of the changes held, and the caller's to compute: it knows
//! grants, cuts and checkpoints. Here it is data, numbers of each replica. A change that is set
//! aside is held, logged and forwarded and its number is heard, but no row shows anything of it.
//!
//! Where the judgement changes, the documents that the changes in question touch are rebuilt from
//! what is retained. The join needs no order, so the result is the same as if only the effective
//! changes had ever been joined, whatever arrived when.
//!
//! Invariant: nobody sees half of a judgement. Rows are rebuilt apart, and take their places after
//! everything that can fail.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::change::{self, Change, DocumentChange, GenIndex};
use crate::log::Log;
use crate::namespace::{Namespace, Observer};
use crate::replica::ReplicaIndex;
use crate::row::{Row, entries_prefix, key_of};
use crate::source::{ChunkError, ChunkSource};
use crate::wire::{MalformedFrame, Reader, write_varint};

/// Numbers of one replica's changes, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First and last of each, ascending, with at least one number between any two.
    ranges: Vec<(u64, u64)>,
}

impl Ranges {
    /// No number.
    pub const fn new() -> Ranges {
        Ranges { ranges: Vec::new() }
    }

    /// Every number above a cut.
    pub fn above(cut: u64) -> Ranges {
        let mut ranges = Ranges::new();
        if let Some(first) = cut.checked_add(1) {
            ranges.insert(first, u64::MAX);
        }
        ranges
    }

    /// Adds the numbers from `first` to `last`; none where the last comes before the first.
    pub fn insert(&mut self, first: u64, last: u64) {
        if last < first {
            return;
        }
        // Those that overlap or touch become one with the new one.
        let begin = self.ranges.partition_point(|range| range.1.saturating_add(1) < first);
        let end = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        let mut joined = (first, last);
        for range in &self.ranges[begin..end] {
            joined = (joined.0.min(range.0), joined.1.max(range.1));
        }
        self.ranges.splice(begin..end, [joined]);
    }

    /// Whether a number is among them.
    pub fn contains(&self, number: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= number);
        after > 0 && number <= self.ranges[after - 1].1
    }

    /// Whether there is no number.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Appends their bytes: a count, then first and last of each range.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.ranges.len() as u64);
        for (first, last) in &self.ranges {
            write_varint(out, *first);
            write_varint(out, *last);
        }
    }

    /// Reads what [`Ranges::encode`] wrote.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Ranges, MalformedFrame> {
        let mut ranges = Ranges::new();
        for _ in 0..reader.varint()? {
            let (first, last) = (reader.varint()?, reader.varint()?);
            let end = ranges.ranges.last().map_or(0, |range| range.1.saturating_add(1));
            if first > last || (first <= end && end != 0) {
                return Err(MalformedFrame::NotSorted);
            }
            ranges.ranges.push((first, last));
        }
        Ok(ranges)
    }

    /// First and last of each range, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().copied()
    }
}

/// Where the changes of a namespace come from that are still retained, in any order. Indexes are
/// the namespace's.
pub trait LogSource {
    /// Why the log could not be read.
    type Error;

    /// Visits every change.
    ///
    /// # Errors
    /// Whatever kept the log from being read.
    fn visit(&mut self, visit: &mut dyn FnMut(&Change<'_>)) -> Result<(), Self::Error>;
}

impl LogSource for Log {
    type Error = core::convert::Infallible;

    fn visit(&mut self, visit: &mut dyn FnMut(&Change<'_>)) -> Result<(), Self::Error> {
        self.changes().for_each(|change| visit(&change));
        Ok(())
    }
}

/// Why a judgement was not carried out. Nothing has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum JudgeError<L, C> {
    /// The log could not be read.
    Log(L),
    /// A chunk could not be read.
    Chunk(ChunkError<C>),
}

/// Documents that are to be rebuilt.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    documents: BTreeSet<(GenIndex, Vec<u8>)>,
}

impl Touched {
    /// Adds the documents that a change touches. Its indexes are the namespace's.
    pub fn add(&mut self, change: &Change<'_>) {
        let mut documents = change::documents(change.body);
        while !documents.is_empty() {
            let document = DocumentChange::read(&mut documents);
            self.insert(document.gen_index, document.key);
        }
    }

    /// Adds a document.
    pub fn insert(&mut self, gen_index: GenIndex, key: &[u8]) {
        self.documents.insert((gen_index, Vec::from(key)));
    }

    /// The documents, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (GenIndex, &[u8])> {
        self.documents.iter().map(|(gen_index, key)| (*gen_index, key.as_slice()))
    }

    /// How many documents there are.
    pub fn count(&self) -> usize {
        self.documents.len()
    }

    /// Appends what a change does to these documents, as a body. Gives whether there is any.
    fn write_body_of(&self, change: &Change<'_>, out: &mut Vec<u8>) -> bool {
        let mut documents = change::documents(change.body);
        out.clear();
        // The count there is of all documents; nobody who joins a change looks at it.
        out.extend_from_slice(&change.body[..change.body.len() - documents.rest().len()]);
        let head_bytes = out.len();
        while !documents.is_empty() {
            let start = documents.rest();
            let document = DocumentChange::read(&mut documents);
            // Looking up needs an owned key; a rebuild is rare and reads the whole log anyhow.
            if self.documents.contains(&(document.gen_index, Vec::from(document.key))) {
                out.extend_from_slice(documents.since(start));
            }
        }
        out.len() > head_bytes
    }
}

impl Namespace {
    /// Which of a replica's changes are set aside.
    pub fn set_aside(&self, replica: ReplicaIndex) -> &Ranges {
        static NONE: Ranges = Ranges::new();
        self.set_aside.get(replica as usize).unwrap_or(&NONE)
    }

    /// Says what is set aside of a replica's changes without looking at what that changes: for the
    /// judgement under which the tables were persisted, and for changes that have yet to come.
    pub fn restore_set_aside(&mut self, replica: ReplicaIndex, ranges: Ranges) {
        let place = replica as usize;
        if self.set_aside.len() <= place {
            self.set_aside.resize(place + 1, Ranges::new());
        }
        self.set_aside[place] = ranges;
    }

    /// Says up to which number a replica's changes are held: for one of whose log the end has been
    /// replaced by another branch. Documents are to be rebuilt then.
    pub fn restore_heard(&mut self, replica: ReplicaIndex, number: u64) {
        self.heard[replica as usize] = number;
    }

    /// Judges anew which changes of these replicas are set aside, and rebuilds every document that
    /// a change touches whose judgement is another than before. Gives how many those are.
    ///
    /// The documents that are rebuilt are in memory until they take their places.
    ///
    /// # Errors
    /// The log or a chunk could not be read; then the old judgement stands.
    pub fn judge<L: LogSource, S: ChunkSource, O: Observer>(
        &mut self,
        judgements: Vec<(ReplicaIndex, Ranges)>,
        log: &mut L,
        source: &mut S,
        observer: &mut O,
    ) -> Result<usize, JudgeError<L::Error, S::Error>> {
        let mut touched = Touched::default();
        log.visit(&mut |change| {
            let judged = judgements.iter().find(|(replica, _)| *replica == change.replica);
            let before = self.set_aside(change.replica).contains(change.number);
            if judged.is_some_and(|(_, ranges)| ranges.contains(change.number) != before) {
                touched.add(change);
            }
        })
        .map_err(JudgeError::Log)?;
        let before = self.set_aside.clone();
        for (replica, ranges) in judgements {
            self.restore_set_aside(replica, ranges);
        }
        let rebuilt = self.rebuild(&touched, log, source, observer);
        if rebuilt.is_err() {
            self.set_aside = before;
        }
        rebuilt.map(|()| touched.count())
    }

    /// Puts in place of each of these documents what the effective changes of the log make of it.
    ///
    /// Where one key has two changes under one number, the log leaves out the branch that loses.
    ///
    /// # Errors
    /// The log or a chunk could not be read; nothing has changed then.
    pub fn rebuild<L: LogSource, S: ChunkSource, O: Observer>(
        &mut self,
        touched: &Touched,
        log: &mut L,
        source: &mut S,
        observer: &mut O,
    ) -> Result<(), JudgeError<L::Error, S::Error>> {
        if touched.documents.is_empty() {
            return Ok(());
        }
        let mut rebuilt = self.without_documents();
        let mut body = Vec::new();
        log.visit(&mut |change| {
            let is_set_aside = self.set_aside(change.replica).contains(change.number);
            if !is_set_aside && touched.write_body_of(change, &mut body) {
                rebuilt.join_change(&Change { body: &body, ..*change }, &mut ());
            }
        })
        .map_err(JudgeError::Log)?;
        for (gen_index, key) in &touched.documents {
            self.load(*gen_index, key, source).map_err(JudgeError::Chunk)?;
            let entries = &mut self.gens[*gen_index as usize].entries;
            entries.load_prefix(&entries_prefix(key), source).map_err(JudgeError::Chunk)?;
        }
        for (gen_index, key) in &touched.documents {
            self.replace_document(*gen_index, key, &rebuilt, observer);
        }
        Ok(())
    }

    /// Takes a document as it is in another namespace of the same indexes. Its chunk is loaded.
    fn replace_document<O: Observer>(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        other: &Namespace,
        observer: &mut O,
    ) {
        let before = self.stored_row(gen_index, key);
        let after = other.stored_row(gen_index, key);
        if before != after {
            if O::SEES_ROWS {
                let before = (!before.is_empty()).then(|| Row::parse(before));
                let gone = Row { key, ..Row::none() };
                let after = if after.is_empty() { gone } else { Row::parse(after) };
                observer.row(gen_index, before, after);
            }
            let table = &mut self.gens[gen_index as usize].documents;
            if after.is_empty() { table.remove(key) } else { table.put(after) }
        }
        self.replace_entries(gen_index, key, other, observer);
    }

    /// Takes the entries of a document's collections as they are in another namespace.
    fn replace_entries<O: Observer>(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        other: &Namespace,
        observer: &mut O,
    ) {
        let prefix = entries_prefix(key);
        let entries = &mut self.gens[gen_index as usize].entries;
        let rebuilt = &other.gens[gen_index as usize].entries;
        let before: Vec<Vec<u8>> = entries.loaded_rows_with(&prefix).map(Vec::from).collect();
        for row in &before {
            let key = key_of(row);
            if rebuilt.loaded_row(key).is_none() {
                entries.remove(key);
                if O::SEES_ROWS {
                    observer.entry(gen_index, Row { key, ..Row::none() });
                }
            }
        }
        for row in rebuilt.loaded_rows_with(&prefix) {
            if entries.loaded_row(key_of(row)) != Some(row) {
                entries.put(row);
                if O::SEES_ROWS {
                    observer.entry(gen_index, Row::parse(row));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_set_of_their_numbers() {
        let mut random = 7u64;
        for _ in 0..2_000 {
            let mut ranges = Ranges::new();
            let mut expected = BTreeSet::new();
            for _ in 0..6 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (first, last) = (1 + (random >> 33) % 20, (random >> 48) % 24);
                ranges.insert(first, last);
                expected.extend(first..=last);
            }
            (0..30).for_each(|number| {
                assert_eq!(ranges.contains(number), expected.contains(&number));
            });
            assert!(ranges.ranges.is_sorted_by(|left, right| left.1 + 1 < right.0));
            let mut bytes = Vec::new();
            ranges.encode(&mut bytes);
            assert_eq!(Ranges::decode(&mut Reader::new(&bytes)), Ok(ranges));
        }
        assert!(Ranges::above(u64::MAX).is_empty());
        assert!(Ranges::above(3).contains(u64::MAX) && !Ranges::above(3).contains(3));
    }
}
