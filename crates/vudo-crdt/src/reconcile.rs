//! Which rows differ: range-based set reconciliation.
//!
//! Two replicas that hold the same changes have the same rows. Where they do not, one of them has
//! lost or damaged something, and this finds the rows in question with few bytes:
//!
//! ```text
//! one side                                        the other
//! 256 ranges, a digest of each    ------------->  compares, splits those that differ
//! compares, splits further        <-------------  8 ranges, a digest of each
//! ...                                             ...
//! compares rows                   <-------------  a digest of each row, where there are few
//! the rows that differ            ------------->  takes them down too
//! ```
//!
//! All rows of a namespace are in one order, by Gen, part and key; a range is what lies between two
//! positions in it. A digest is over the count and the sum of the hashes of the rows, which a table
//! keeps for each chunk, so only the rows at the ends of a range are hashed. It is keyed, so nobody
//! can look for rows beforehand that hide behind others. The two sides keep nothing between messages.
//!
//! The idea is from "Range-Based Set Reconciliation" by Aljoscha Meyer (2023).

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

use sha2::{Digest, Sha256};

use crate::change::GenIndex;
use crate::fingerprint::row_hash;
use crate::limits::{
    MAX_DIFFERENT_BYTES, MAX_DIFFERENT_ROWS, MAX_ENTRY_KEY_BYTES, MAX_GEN_NAME_BYTES,
    MAX_RANGE_BYTES, MAX_RANGE_PARTS, MAX_RANGE_ROWS,
};
use crate::namespace::{Namespace, TablePart};
use crate::row::{key_of, split_entry_key};
use crate::set_aside::Touched;
use crate::source::{ChunkError, ChunkSource};
use crate::table::HashSum;
use crate::wire::{MalformedFrame, Reader, write_bytes, write_varint};

/// Into how many parts a range is divided that nothing has been compared of.
const FIRST_PARTS: usize = 256;
/// Into how many parts a range is divided whose digests differ.
const PARTS: usize = 8;
/// The rows of a range are told one by one where there are no more of them.
const LISTED_ROWS: u64 = 16;
/// Shorter ones would be equal by chance in one session of some millions.
const DIGEST_BYTES: usize = 10;
/// Longest position: the length of a Gen's name, the name, the part, a key.
const MAX_POSITION_BYTES: usize = MAX_GEN_NAME_BYTES + 2 + MAX_ENTRY_KEY_BYTES;
/// What a position counts for besides its bytes: about what it takes in memory, and more than it does
/// on the wire.
const POSITION_OVERHEAD_BYTES: usize = 64;
/// What one part is sure to have room for: the rows that were told of it and as many of this side's,
/// or the ends of those that it is divided into.
const PART_BYTES: usize = (2 * MAX_RANGE_ROWS + 2) * (MAX_POSITION_BYTES + POSITION_OVERHEAD_BYTES);

// The first message has room for all of its ends.
const _: () = assert!(
    MAX_RANGE_BYTES > FIRST_PARTS * (MAX_POSITION_BYTES + POSITION_OVERHEAD_BYTES) + PART_BYTES
);

const SETTLED: u8 = 0;
const DIGEST: u8 = 1;
const ROWS: u8 = 2;
const DIFFERENT: u8 = 3;

/// What digests of one session are keyed with: both sides must have a part in it.
pub type SessionKey = [u8; 32];

/// Where a row is among all rows of a namespace: the length of its Gen's name, the name, the part of
/// the Gen's tables, the key.
type Position = Vec<u8>;
type RangeDigest = [u8; DIGEST_BYTES];

/// What a position counts for where the bytes of positions are bounded. On the wire it may be much
/// shorter, for what it shares with the one before is left out there.
fn bytes_of(position: &[u8]) -> usize {
    position.len() + POSITION_OVERHEAD_BYTES
}

/// How many rows a range has, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Summary {
    row_count: u64,
    sum: HashSum,
}

impl Summary {
    fn digest(&self, key: &SessionKey) -> RangeDigest {
        let mut hash = Sha256::new();
        hash.update(b"vudo/range/1");
        hash.update(key);
        hash.update(self.row_count.to_le_bytes());
        self.sum.0.iter().for_each(|word| hash.update(word.to_le_bytes()));
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&hash.finalize()[..DIGEST_BYTES]);
        digest
    }
}

/// What one side says of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// There is nothing more to say of it.
    Settled,
    /// A digest of all rows.
    Digest(RangeDigest),
    /// Each row with its digest, ascending.
    Rows(Vec<(Position, RangeDigest)>),
    /// The rows that differ, or that one side lacks, ascending.
    Different(Vec<Position>),
}

impl Part {
    /// What its positions count for.
    fn position_bytes(&self) -> usize {
        match self {
            Part::Settled | Part::Digest(_) => 0,
            Part::Rows(rows) => rows.iter().map(|(position, _)| bytes_of(position)).sum(),
            Part::Different(rows) => rows.iter().map(|position| bytes_of(position)).sum(),
        }
    }
}

/// What one side says of all ranges: one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSummaries {
    /// Each with where it ends; it begins where the one before ends. The last has no end.
    parts: Vec<(Option<Position>, Part)>,
    /// What all positions count for: at most [`MAX_RANGE_BYTES`].
    position_bytes: usize,
}

/// Rows that were found to differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DifferentRows {
    positions: BTreeSet<Position>,
    /// What they count for.
    position_bytes: usize,
}

impl DifferentRows {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are more of them than one reconciliation finds: then nearly everything differs.
    pub fn are_too_many(&self) -> bool {
        self.count() > MAX_DIFFERENT_ROWS || self.position_bytes > MAX_DIFFERENT_BYTES
    }

    /// Adds those of another step.
    pub fn extend(&mut self, other: DifferentRows) {
        other.positions.into_iter().for_each(|position| self.insert(position));
    }

    fn insert(&mut self, position: Position) {
        let byte_count = bytes_of(&position);
        if self.positions.insert(position) {
            self.position_bytes += byte_count;
        }
    }

    /// The documents that they belong to, as far as the namespace knows their Gens: what
    /// [`Namespace::rebuild`] takes.
    pub fn documents(&self, namespace: &Namespace) -> Touched {
        let mut touched = Touched::default();
        for position in &self.positions {
            let Some((gen_index, mut owner)) = namespace.locate(position) else { continue };
            // An entry may be in an entry itself.
            while let Some((of, _, _)) = split_entry_key(owner) {
                owner = of;
            }
            touched.insert(gen_index, owner);
        }
        touched
    }
}

impl RangeSummaries {
    /// Whether nobody has to answer.
    pub fn is_settled(&self) -> bool {
        self.parts.iter().all(|(_, part)| matches!(part, Part::Settled | Part::Different(_)))
    }

    fn push(&mut self, end: Option<&[u8]>, part: Part) {
        let end = end.map(Vec::from);
        self.position_bytes += part.position_bytes() + end.as_deref().map_or(0, bytes_of);
        match self.parts.last_mut() {
            Some((last_end, Part::Settled)) if part == Part::Settled => {
                self.position_bytes -= last_end.as_deref().map_or(0, bytes_of);
                *last_end = end;
            }
            _ => self.parts.push((end, part)),
        }
    }

    /// Whether there is room for what comes of any one range, and for one part after it.
    fn has_room(&self) -> bool {
        self.parts.len() + PARTS < MAX_RANGE_PARTS && self.room_bytes() >= PART_BYTES
    }

    fn room_bytes(&self) -> usize {
        MAX_RANGE_BYTES - self.position_bytes
    }

    /// Appends the bytes: a count, then of each part a tag, what it says, and its end, which the last
    /// has not. Of a position only what differs from the one before is written.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.parts.len() as u64);
        let mut before: &[u8] = &[];
        for (end, part) in &self.parts {
            match part {
                Part::Settled => out.push(SETTLED),
                Part::Digest(digest) => {
                    out.push(DIGEST);
                    out.extend_from_slice(digest);
                }
                Part::Rows(rows) => {
                    out.push(ROWS);
                    write_varint(out, rows.len() as u64);
                    for (position, digest) in rows {
                        before = write_position(position, before, out);
                        out.extend_from_slice(digest);
                    }
                }
                Part::Different(positions) => {
                    out.push(DIFFERENT);
                    write_varint(out, positions.len() as u64);
                    for position in positions {
                        before = write_position(position, before, out);
                    }
                }
            }
            if let Some(end) = end {
                before = write_position(end, before, out);
            }
        }
    }

    /// Reads what [`RangeSummaries::encode`] wrote.
    ///
    /// # Errors
    /// Says what is wrong with the bytes: positions ascend, and of nothing is there more than may be.
    pub fn decode(reader: &mut Reader<'_>) -> Result<RangeSummaries, MalformedFrame> {
        let part_count = reader.varint_up_to(MAX_RANGE_PARTS as u64)?;
        if part_count == 0 {
            return Err(MalformedFrame::Truncated);
        }
        let mut positions = Positions::default();
        let mut parts = Vec::new();
        for number in 1..=part_count {
            let part = match reader.byte()? {
                SETTLED => Part::Settled,
                DIGEST => Part::Digest(reader.array()?),
                ROWS => {
                    let row_count = reader.varint_up_to(MAX_RANGE_ROWS as u64)?;
                    let mut rows = Vec::new();
                    for _ in 0..row_count {
                        rows.push((positions.read_row(reader)?, reader.array()?));
                    }
                    Part::Rows(rows)
                }
                DIFFERENT => {
                    let row_count = reader.varint_up_to(MAX_DIFFERENT_ROWS as u64)?;
                    let rows = (0..row_count).map(|_| positions.read_row(reader));
                    Part::Different(rows.collect::<Result<_, _>>()?)
                }
                _ => return Err(MalformedFrame::IndexOutOfRange),
            };
            let is_last = number == part_count;
            let end = if is_last { None } else { Some(positions.read_end(reader)?) };
            parts.push((end, part));
        }
        Ok(RangeSummaries { parts, position_bytes: positions.read_bytes })
    }
}

/// Writes a position as the number of bytes that it shares with the one before, and the others.
fn write_position<'p>(position: &'p [u8], before: &[u8], out: &mut Vec<u8>) -> &'p [u8] {
    let shared = position.iter().zip(before).take_while(|(left, right)| left == right).count();
    write_varint(out, shared as u64);
    write_bytes(out, &position[shared..]);
    position
}

/// Reads positions, which ascend.
#[derive(Default)]
struct Positions {
    last: Position,
    /// Whether the last was the end of a range: a row may lie right where the next one begins.
    is_start: bool,
    /// What all that were read count for. A few bytes make a long position, so it is this that bounds
    /// what a message takes in memory.
    read_bytes: usize,
}

impl Positions {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<Ordering, MalformedFrame> {
        let shared = reader.varint_up_to(self.last.len() as u64)? as usize;
        let rest = reader.bytes()?;
        self.read_bytes += shared + rest.len() + POSITION_OVERHEAD_BYTES;
        if shared + rest.len() > MAX_POSITION_BYTES || self.read_bytes > MAX_RANGE_BYTES {
            return Err(MalformedFrame::TooLarge);
        }
        let order = rest.cmp(&self.last[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        Ok(order)
    }

    fn read_row(&mut self, reader: &mut Reader<'_>) -> Result<Position, MalformedFrame> {
        let order = self.read(reader)?;
        let is_start = core::mem::take(&mut self.is_start);
        let ascends = order == Ordering::Greater || (order == Ordering::Equal && is_start);
        ascends.then(|| self.last.clone()).ok_or(MalformedFrame::NotSorted)
    }

    fn read_end(&mut self, reader: &mut Reader<'_>) -> Result<Position, MalformedFrame> {
        let order = self.read(reader)?;
        self.is_start = true;
        let ascends = order == Ordering::Greater;
        ascends.then(|| self.last.clone()).ok_or(MalformedFrame::NotSorted)
    }
}

/// What comparing the rows of a range came to.
struct Compared {
    /// Those that differ, ascending.
    found: Vec<Position>,
    /// Where it stopped, if there was no room for all of them.
    cut: Option<Position>,
}

/// A part of a table that lies in a range.
struct Segment {
    gen_index: GenIndex,
    part: TablePart,
    /// What the positions of its rows begin with.
    prefix: Vec<u8>,
    /// Keys from here on.
    from: Vec<u8>,
    /// Keys below this.
    to: Option<Vec<u8>>,
}

impl Namespace {
    /// The Gen and the key of a row, where the Gen is known here.
    fn locate<'p>(&self, position: &'p [u8]) -> Option<(GenIndex, &'p [u8])> {
        let (length, rest) = position.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (_, key) = rest.split_first()?;
        let gen_index = self.gens.iter().position(|known| known.name == name)?;
        Some((gen_index as GenIndex, key))
    }

    /// What of each table lies in a range, in the order of the positions.
    fn segments(&self, from: &[u8], to: Option<&[u8]>) -> Vec<Segment> {
        let mut segments = Vec::new();
        for (gen_index, known) in self.gens.iter().enumerate() {
            for part in TablePart::ALL {
                let mut prefix = vec![known.name.len() as u8];
                prefix.extend_from_slice(&known.name);
                prefix.push(part as u8);
                let begin = match from.strip_prefix(prefix.as_slice()) {
                    Some(key) => key,
                    None if from < prefix.as_slice() => &[],
                    None => continue,
                };
                let end = match to {
                    Some(to) if to <= prefix.as_slice() => continue,
                    Some(to) => to.strip_prefix(prefix.as_slice()),
                    None => None,
                };
                let (from, to) = (Vec::from(begin), end.map(Vec::from));
                segments.push(Segment { gen_index: gen_index as GenIndex, part, prefix, from, to });
            }
        }
        segments.sort_unstable_by(|left, right| left.prefix.cmp(&right.prefix));
        segments
    }

    /// The first message: ranges of about equally many rows.
    ///
    /// # Errors
    /// A chunk could not be read.
    pub fn first_ranges<S: ChunkSource>(
        &mut self,
        key: &SessionKey,
        source: &mut S,
    ) -> Result<RangeSummaries, ChunkError<S::Error>> {
        let mut said = RangeSummaries::default();
        let row_count = self.summarise(&[], None, source)?.row_count;
        self.divide((&[], None), row_count, FIRST_PARTS, key, &mut said, source)?;
        Ok(said)
    }

    /// What to answer to a message, and which rows have turned out to differ. Nobody needs the
    /// answer where the message [is settled](RangeSummaries::is_settled). Where
    /// [those are too many](DifferentRows::are_too_many) there are others, and the answer is not whole.
    ///
    /// # Errors
    /// A chunk could not be read.
    pub fn compare_ranges<S: ChunkSource>(
        &mut self,
        said: &RangeSummaries,
        key: &SessionKey,
        source: &mut S,
    ) -> Result<(RangeSummaries, DifferentRows), ChunkError<S::Error>> {
        let mut answer = RangeSummaries::default();
        let mut different = DifferentRows::default();
        let mut from: &[u8] = &[];
        for (end, part) in &said.parts {
            let end = end.as_deref();
            if !answer.has_room() {
                self.leave_for_later(from, key, &mut answer, source)?;
                break;
            }
            match part {
                Part::Settled => answer.push(end, Part::Settled),
                Part::Different(positions) => {
                    positions.iter().for_each(|position| different.insert(position.clone()));
                    answer.push(end, Part::Settled);
                }
                Part::Digest(digest) => {
                    let own = self.summarise(from, end, source)?;
                    if own.digest(key) == *digest {
                        answer.push(end, Part::Settled);
                    } else if own.row_count <= LISTED_ROWS {
                        let mut rows = Vec::new();
                        self.visit_range(from, end, source, |position, hash| {
                            let summary = Summary { row_count: 1, sum: hash };
                            rows.push((position, summary.digest(key)));
                            true
                        })?;
                        answer.push(end, Part::Rows(rows));
                    } else {
                        self.divide((from, end), own.row_count, PARTS, key, &mut answer, source)?;
                    }
                }
                Part::Rows(rows) => {
                    // The end has to have room too, wherever it is.
                    let room_bytes =
                        answer.room_bytes() - MAX_POSITION_BYTES - POSITION_OVERHEAD_BYTES;
                    let Compared { found, cut } =
                        self.compare_rows((from, end), rows, room_bytes, key, source)?;
                    let is_settled = found.is_empty();
                    found.iter().for_each(|position| different.insert(position.clone()));
                    let part = if is_settled { Part::Settled } else { Part::Different(found) };
                    answer.push(cut.as_deref().or(end), part);
                    if let Some(cut) = cut {
                        self.leave_for_later(&cut, key, &mut answer, source)?;
                        break;
                    }
                }
            }
            if different.are_too_many() {
                break;
            }
            from = end.unwrap_or_default();
        }
        Ok((answer, different))
    }

    /// Says of what there is no room for, which is everything from here on, that it is to be compared
    /// as one range next time.
    fn leave_for_later<S: ChunkSource>(
        &mut self,
        from: &[u8],
        key: &SessionKey,
        answer: &mut RangeSummaries,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        let rest = self.summarise(from, None, source)?;
        answer.push(None, Part::Digest(rest.digest(key)));
        Ok(())
    }

    /// The rows of a range that are not here as they are there, ascending; not many more than there
    /// may be. Gives where it stopped as well, if there was no room for all of them: `theirs` have room,
    /// and some more, so it gets further each time.
    fn compare_rows<S: ChunkSource>(
        &mut self,
        (from, to): (&[u8], Option<&[u8]>),
        theirs: &[(Position, RangeDigest)],
        room_bytes: usize,
        key: &SessionKey,
        source: &mut S,
    ) -> Result<Compared, ChunkError<S::Error>> {
        let mut found = Vec::new();
        let mut cut = None;
        let mut room_bytes =
            room_bytes - theirs.iter().map(|(position, _)| bytes_of(position)).sum::<usize>();
        let mut rest = theirs.iter().peekable();
        self.visit_range(from, to, source, |position, hash| {
            while let Some((theirs, _)) = rest.next_if(|(theirs, _)| *theirs < position) {
                found.push(theirs.clone());
            }
            let summary = Summary { row_count: 1, sum: hash };
            let same = rest.next_if(|(theirs, _)| *theirs == position);
            if same.is_some_and(|(_, digest)| *digest == summary.digest(key)) {
                return true;
            }
            if same.is_none() {
                if room_bytes < bytes_of(&position) {
                    cut = Some(position);
                    return false;
                }
                room_bytes -= bytes_of(&position);
            }
            found.push(position);
            found.len() <= MAX_DIFFERENT_ROWS
        })?;
        if cut.is_none() {
            found.extend(rest.map(|(position, _)| position.clone()));
        }
        Ok(Compared { found, cut })
    }

    /// Divides a range into parts of about equally many rows and says a digest of each.
    fn divide<S: ChunkSource>(
        &mut self,
        (from, to): (&[u8], Option<&[u8]>),
        row_count: u64,
        part_count: usize,
        key: &SessionKey,
        out: &mut RangeSummaries,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        let aim = row_count.div_ceil(part_count as u64).max(1);
        let mut ends = Vec::new();
        let mut counted = 0;
        for segment in self.segments(from, to) {
            let known = &self.gens[segment.gen_index as usize];
            let table = known.table(segment.part);
            let end = segment.to.as_deref();
            table.visit_marks(&segment.from, end, aim, source, |key, rows_before| {
                counted += rows_before;
                if counted >= aim && ends.len() + 1 < part_count {
                    counted = 0;
                    let mut position = segment.prefix.clone();
                    position.extend_from_slice(key);
                    if position.as_slice() > from {
                        ends.push(position);
                    }
                }
            })?;
        }
        let mut start = from;
        let ends = ends.iter().map(|end| Some(end.as_slice())).chain([to]);
        for end in ends.collect::<Vec<_>>() {
            let summary = self.summarise(start, end, source)?;
            out.push(end, Part::Digest(summary.digest(key)));
            start = end.unwrap_or_default();
        }
        Ok(())
    }

    fn summarise<S: ChunkSource>(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        source: &mut S,
    ) -> Result<Summary, ChunkError<S::Error>> {
        let mut total = Summary::default();
        let mut canonical = Vec::new();
        for segment in self.segments(from, to) {
            let known = &mut self.gens[segment.gen_index as usize];
            let table = known.table_mut(segment.part);
            let hash = |row: &[u8]| row_hash(row, &self.replicas, &mut canonical);
            let end = segment.to.as_deref();
            let (row_count, sum) = table.sum_hashes(&segment.from, end, source, hash)?;
            total.row_count += row_count;
            total.sum.add(sum);
        }
        Ok(total)
    }

    /// Visits the rows of a range, ascending, with their hashes, until the visitor says `false`.
    fn visit_range<S: ChunkSource>(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        source: &mut S,
        mut visit: impl FnMut(Position, HashSum) -> bool,
    ) -> Result<(), ChunkError<S::Error>> {
        let mut canonical = Vec::new();
        let mut goes_on = true;
        for segment in self.segments(from, to) {
            let table = self.gens[segment.gen_index as usize].table(segment.part);
            let end = segment.to.as_deref();
            table.visit_rows(&segment.from, source, |row| {
                let key = key_of(row);
                if end.is_some_and(|end| key >= end) {
                    return false;
                }
                let mut position = segment.prefix.clone();
                position.extend_from_slice(key);
                goes_on = visit(position, row_hash(row, &self.replicas, &mut canonical));
                goes_on
            })?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}
