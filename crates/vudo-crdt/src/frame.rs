//! Log frames: whole changes on their way between stores.
//!
//! ```text
//! frame  = "VF" | format version | gens | change* | checksum (8 bytes)
//! gens   = count | name (length, bytes)*
//! change = head | writer, if the head's lowest bit is set | body
//! head   = the zigzag difference of `now` to the change before, in milliseconds << 1 | has a writer
//! writer = place + 1 of a replica among those named so far | number
//!        | 0 | a new replica's key (32 bytes)              | number
//! ```
//!
//! A change without a writer is the next one of the replica before it. A frame is validated whole,
//! by bytes alone, before any of it is applied; it describes itself and needs no schema.

use alloc::vec;
use alloc::vec::Vec;

use crate::change::{self, Change};
use crate::hlc::Hlc;
use crate::limits::{MAX_FRAME_BYTES, MAX_FRAME_REPLICAS, MAX_GEN_NAME_BYTES, MAX_GENS};
use crate::replica::{REPLICA_KEY_BYTES, ReplicaIndex, ReplicaKey};
use crate::wire::{
    MalformedFrame, Reader, is_utf8, write_bytes, write_varint, zigzag_decode, zigzag_encode,
};

const MAGIC: &[u8] = b"VF\x03";
const CHECKSUM_BYTES: usize = 8;

/// Collects changes into one frame. Gens are those of the sender, so bodies go out as they are
/// kept.
pub struct FrameWriter<'k> {
    out: Vec<u8>,
    /// The sender's replicas, which changes refer to.
    keys: &'k [ReplicaKey],
    /// One more than the place of each of them in the frame; zero until it is named.
    places: Vec<u32>,
    named_count: u32,
    /// The change that would need no writer.
    next: (ReplicaIndex, u64),
    last_milliseconds: u64,
    change_count: u64,
}

impl<'k> FrameWriter<'k> {
    /// An empty frame. The indexes of every change refer to these lists.
    pub fn new(
        keys: &'k [ReplicaKey],
        gen_names: impl ExactSizeIterator<Item: AsRef<[u8]>>,
    ) -> FrameWriter<'k> {
        let mut out = Vec::from(MAGIC);
        write_varint(&mut out, gen_names.len() as u64);
        for name in gen_names {
            write_bytes(&mut out, name.as_ref());
        }
        FrameWriter {
            out,
            keys,
            places: vec![0; keys.len()],
            named_count: 0,
            next: (0, 0),
            last_milliseconds: 0,
            change_count: 0,
        }
    }

    /// Adds a change. The changes of one replica must come in the order of their numbers.
    pub fn push(&mut self, change: &Change<'_>) {
        let writer = (change.replica, change.number);
        let milliseconds = change.now.milliseconds();
        let difference = milliseconds.wrapping_sub(self.last_milliseconds) as i64;
        let has_writer = writer != self.next;
        write_varint(&mut self.out, zigzag_encode(difference) << 1 | u64::from(has_writer));
        if has_writer {
            let index = change.replica as usize;
            write_varint(&mut self.out, self.places[index].into());
            if self.places[index] == 0 {
                self.named_count += 1;
                self.places[index] = self.named_count;
                self.out.extend_from_slice(&self.keys[index].0);
            }
            write_varint(&mut self.out, change.number);
        }
        self.out.extend_from_slice(change.body);
        self.last_milliseconds = milliseconds;
        self.next = (change.replica, change.number + 1);
        self.change_count += 1;
    }

    /// How many bytes the frame has so far, near enough to decide when it is full.
    pub fn byte_count(&self) -> usize {
        self.out.len()
    }

    /// How many changes the frame holds so far.
    pub fn change_count(&self) -> u64 {
        self.change_count
    }

    /// The frame's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        let sum = checksum(&self.out);
        self.out.extend_from_slice(&sum);
        self.out
    }
}

/// A frame that has been validated whole.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// The keys of the replicas that the frame names, 32 bytes each.
    pub(crate) keys: Vec<&'a [u8]>,
    gens: &'a [u8],
    changes: &'a [u8],
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
        let gen_count = reader.varint_up_to_or_zero(MAX_GENS as u64) as usize;
        let start = reader.rest();
        for _ in 0..gen_count {
            read_gen_name(&mut reader);
        }
        let gens = reader.since(start);
        let changes = reader.rest();
        let mut changes_reader = Changes { reader, ..Changes::of(changes) };
        while !changes_reader.reader.is_empty() {
            let change = changes_reader.read_head();
            change::check_body(&mut changes_reader.reader, change.now, gen_count);
        }
        let Changes { reader, keys, .. } = changes_reader;
        reader.checked(Frame { keys, gens, changes })
    }

    /// The replicas that the frame names, in the order of its indexes.
    pub fn replicas(&self) -> impl ExactSizeIterator<Item = ReplicaKey> + '_ {
        self.keys.iter().map(|key| ReplicaKey((*key).try_into().unwrap_or_default()))
    }

    /// The names of the Gens that the frame names, in the order of its indexes; all are UTF-8.
    pub fn gen_names(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.gens);
        core::iter::from_fn(move || (!reader.is_empty()).then(|| read_gen_name(&mut reader)))
    }

    /// The changes, in the order in which they were pushed. Indexes are the frame's own.
    pub fn changes(&self) -> Changes<'a> {
        Changes::of(self.changes)
    }
}

fn read_gen_name<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    let name = reader.bytes_or_empty();
    let is_in_bounds = !name.is_empty() && name.len() <= MAX_GEN_NAME_BYTES;
    reader.check(is_in_bounds, MalformedFrame::TooLarge);
    reader.check(is_utf8(name), MalformedFrame::StringNotUtf8);
    name
}

/// The changes of a frame, one after the other.
#[derive(Clone, Debug)]
pub struct Changes<'a> {
    reader: Reader<'a>,
    /// Of the replicas named so far.
    keys: Vec<&'a [u8]>,
    replica: ReplicaIndex,
    number: u64,
    milliseconds: i64,
}

impl<'a> Changes<'a> {
    fn of(bytes: &'a [u8]) -> Changes<'a> {
        let reader = Reader::new(bytes);
        Changes { reader, keys: Vec::new(), replica: 0, number: 0, milliseconds: 0 }
    }

    /// Reads a change up to its body, which is left empty. Leaves faults in the reader.
    #[inline(never)]
    fn read_head(&mut self) -> Change<'a> {
        let reader = &mut self.reader;
        let head = reader.varint_or_zero();
        if head & 1 == 1 {
            let mut place = reader.varint_or_zero();
            if place == 0 {
                self.keys.push(reader.take_or_empty(REPLICA_KEY_BYTES));
                place = self.keys.len() as u64;
                reader.check(self.keys.len() <= MAX_FRAME_REPLICAS, MalformedFrame::TooLarge);
            }
            reader.check(place <= self.keys.len() as u64, MalformedFrame::IndexOutOfRange);
            self.replica = (place - 1) as ReplicaIndex;
            self.number = reader.varint_or_zero();
        }
        let number = self.number;
        // The first change has no other to follow, and numbers must not wrap.
        reader.check(number != 0 && number != u64::MAX, MalformedFrame::TooLarge);
        self.number = number.wrapping_add(1);
        self.milliseconds = self.milliseconds.wrapping_add(zigzag_decode(head >> 1));
        let now = Hlc::from_milliseconds(self.milliseconds as u64);
        let is_in_range = now.milliseconds() == self.milliseconds as u64;
        reader.check(is_in_range, MalformedFrame::TimeOutOfRange);
        Change { replica: self.replica, number, now, body: &[] }
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        if self.reader.is_empty() {
            return None;
        }
        let change = self.read_head();
        Some(Change { body: change::read_body(&mut self.reader), ..change })
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
