//! Log frames: whole changes on their way between stores.
//!
//! ```text
//! frame    = "VF" | format version | replicas | gens | run* | checksum (8 bytes)
//! replicas = count | key (32 bytes)*
//! gens     = count | name (length, bytes)*
//! run      = replica index + 1 | first number | change count | change*      a zero ends the runs
//! change   = now, as the zigzag difference in milliseconds from the change before | body
//! ```
//!
//! A run holds consecutive changes of one replica. A frame is validated whole, by bytes alone,
//! before any of it is applied; it describes itself and needs no schema.

use alloc::vec::Vec;

use crate::change::{self, Change};
use crate::hlc::Hlc;
use crate::limits::{MAX_FRAME_BYTES, MAX_FRAME_REPLICAS, MAX_GEN_NAME_BYTES, MAX_GENS};
use crate::replica::{ReplicaIndex, ReplicaKey};
use crate::wire::{
    MalformedFrame, Reader, is_utf8, write_bytes, write_varint, zigzag_decode, zigzag_encode,
};

const MAGIC: &[u8] = b"VF\x01";
const CHECKSUM_BYTES: usize = 8;

/// Collects changes into one frame. The lists of replicas and gens are those of the sender, so
/// bodies go out as they are kept.
pub struct FrameWriter {
    out: Vec<u8>,
    run: Vec<u8>,
    run_head: Option<(ReplicaIndex, u64)>,
    run_count: u64,
    last_milliseconds: u64,
    change_count: u64,
}

impl FrameWriter {
    /// An empty frame with these lists, which the indexes of every change refer to.
    pub fn new(
        replicas: &[ReplicaKey],
        gen_names: impl ExactSizeIterator<Item: AsRef<[u8]>>,
    ) -> FrameWriter {
        let mut out = Vec::from(MAGIC);
        write_varint(&mut out, replicas.len() as u64);
        for replica in replicas {
            out.extend_from_slice(&replica.0);
        }
        write_varint(&mut out, gen_names.len() as u64);
        for name in gen_names {
            write_bytes(&mut out, name.as_ref());
        }
        FrameWriter {
            out,
            run: Vec::new(),
            run_head: None,
            run_count: 0,
            last_milliseconds: 0,
            change_count: 0,
        }
    }

    /// Adds a change. The changes of one replica must come in the order of their numbers.
    pub fn push(&mut self, change: &Change<'_>) {
        let follows = self.run_head.is_some_and(|(replica, first)| {
            replica == change.replica && first + self.run_count == change.number
        });
        if !follows {
            self.end_run();
            self.run_head = Some((change.replica, change.number));
        }
        let milliseconds = change.now.milliseconds();
        let difference = milliseconds.wrapping_sub(self.last_milliseconds) as i64;
        write_varint(&mut self.run, zigzag_encode(difference));
        self.run.extend_from_slice(change.body);
        self.last_milliseconds = milliseconds;
        self.run_count += 1;
        self.change_count += 1;
    }

    /// How many bytes the frame has so far, near enough to decide when it is full.
    pub fn byte_count(&self) -> usize {
        self.out.len() + self.run.len()
    }

    /// How many changes the frame holds so far.
    pub fn change_count(&self) -> u64 {
        self.change_count
    }

    /// The frame's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.end_run();
        write_varint(&mut self.out, 0);
        let sum = checksum(&self.out);
        self.out.extend_from_slice(&sum);
        self.out
    }

    fn end_run(&mut self) {
        if let Some((replica, first)) = self.run_head.take() {
            write_varint(&mut self.out, u64::from(replica) + 1);
            write_varint(&mut self.out, first);
            write_varint(&mut self.out, self.run_count);
            self.out.append(&mut self.run);
            self.run_count = 0;
        }
    }
}

/// A frame that has been validated whole.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    replicas: &'a [[u8; 32]],
    gens: &'a [u8],
    /// Where validation found each change, so that nobody has to look for them again. A change has
    /// at least seven bytes in the frame, which bounds what this takes.
    changes: Vec<Change<'a>>,
}

impl<'a> Frame<'a> {
    /// Validates a frame: checksum, bounds, order and every operation in it.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, MalformedFrame> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(MalformedFrame::TooLarge);
        }
        let (content, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(MalformedFrame::Truncated)?;
        let mut reader = Reader::new(content);
        let magic = reader.take_or_empty(MAGIC.len());
        reader.check(magic == MAGIC, MalformedFrame::FormatVersion);
        reader.check(checksum(content) == *sum, MalformedFrame::Checksum);
        let replica_count = reader.varint_up_to_or_zero(MAX_FRAME_REPLICAS as u64) as usize;
        let replicas = reader.take_or_empty(replica_count * 32).as_chunks().0;
        let gen_count = reader.varint_up_to_or_zero(MAX_GENS as u64) as usize;
        let start = reader.rest();
        for _ in 0..gen_count {
            read_gen_name(&mut reader);
        }
        let gens = &start[..start.len() - reader.rest().len()];
        let mut changes = Vec::new();
        let mut changes_reader = ChangesReader {
            reader,
            replica_count,
            gen_count,
            left: 0,
            replica: 0,
            number: 0,
            milliseconds: 0,
        };
        while let Some(change) = changes_reader.next() {
            changes.push(change);
        }
        let mut reader = changes_reader.reader;
        reader.check(reader.is_empty(), MalformedFrame::TrailingBytes);
        reader.checked(Frame { replicas, gens, changes })
    }

    /// The replicas that the frame names, in the order of its indexes.
    pub fn replicas(&self) -> impl ExactSizeIterator<Item = ReplicaKey> + 'a {
        self.replicas.iter().map(|key| ReplicaKey(*key))
    }

    /// The replica at an index of the frame's changes.
    pub(crate) fn replica(&self, index: ReplicaIndex) -> ReplicaKey {
        ReplicaKey(self.replicas[index as usize])
    }

    /// The names of the Gens that the frame names, in the order of its indexes; all are UTF-8.
    pub fn gen_names(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.gens);
        core::iter::from_fn(move || (!reader.is_empty()).then(|| read_gen_name(&mut reader)))
    }

    /// The changes, in the order in which they were pushed. Indexes are the frame's own.
    pub fn changes(&self) -> &[Change<'a>] {
        &self.changes
    }
}

fn read_gen_name<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    let name = reader.bytes_or_empty();
    let is_in_bounds = !name.is_empty() && name.len() <= MAX_GEN_NAME_BYTES;
    reader.check(is_in_bounds, MalformedFrame::TooLarge);
    reader.check(is_utf8(name), MalformedFrame::StringNotUtf8);
    name
}

/// Reads and validates the changes of a frame one after the other.
struct ChangesReader<'a> {
    reader: Reader<'a>,
    replica_count: usize,
    gen_count: usize,
    left: u64,
    replica: ReplicaIndex,
    number: u64,
    milliseconds: u64,
}

impl<'a> ChangesReader<'a> {
    /// The next change, or none at the end of the runs and where something is wrong.
    fn next(&mut self) -> Option<Change<'a>> {
        let reader = &mut self.reader;
        if self.left == 0 {
            let replica = reader.varint_or_zero();
            if replica == 0 {
                return None;
            }
            let is_known = replica <= self.replica_count as u64;
            reader.check(is_known, MalformedFrame::IndexOutOfRange);
            self.replica = (replica - 1) as ReplicaIndex;
            self.number = reader.varint_or_zero();
            self.left = reader.varint_or_zero();
            // Numbers begin at 1 and must not wrap within the run.
            let last = self.number.checked_add(self.left);
            let is_run = self.number != 0 && self.left != 0 && last.is_some();
            reader.check(is_run, MalformedFrame::TooLarge);
        }
        let difference = zigzag_decode(reader.varint_or_zero());
        self.milliseconds = self.milliseconds.wrapping_add(difference as u64);
        let now = Hlc::from_milliseconds(self.milliseconds);
        let is_in_range = now.milliseconds() == self.milliseconds;
        reader.check(is_in_range, MalformedFrame::TimeOutOfRange);
        let body = change::read_body(reader, now, self.gen_count);
        if reader.has_failed() {
            return None;
        }
        let number = self.number;
        self.left -= 1;
        self.number += 1;
        Some(Change { replica: self.replica, number, now, body })
    }
}

/// A 64-bit checksum against damage on the way (not against forgery): each step is a bijection of
/// the running sum, so a single damaged word always shows.
pub fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut sum = MULTIPLIER ^ bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    let mut step = |word: u64| {
        sum = (sum ^ word).wrapping_mul(MULTIPLIER);
        sum ^= sum >> 29;
    };
    for word in &mut words {
        let mut array = [0; 8];
        array.copy_from_slice(word);
        step(u64::from_le_bytes(array));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    step(u64::from_le_bytes(last));
    sum.to_le_bytes()
}
