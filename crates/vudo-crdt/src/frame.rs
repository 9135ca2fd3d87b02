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
//! by bytes alone, before any of it is applied; it describes itself and needs no schema. What a peer has
//! signed names no Gen that its changes do not write to; a module's frames name all that it has.

use alloc::vec;
use alloc::vec::Vec;

use crate::change::{self, Change, GenIndex};
use crate::hlc::Hlc;
use crate::limits::{MAX_FRAME_BYTES, MAX_FRAME_REPLICAS, MAX_GEN_NAME_BYTES, MAX_GENS};
use crate::namespace::rewrite_gens;
use crate::replica::{REPLICA_KEY_BYTES, ReplicaIndex, ReplicaKey};
use crate::wire::{
    MalformedFrame, Reader, is_utf8, write_bytes, write_varint, zigzag_decode, zigzag_encode,
};

const MAGIC: &[u8] = b"VF\x04";
const CHECKSUM_BYTES: usize = 8;
/// The count of the Gens.
const MAX_COUNT_BYTES: usize = 5;
/// The index of a Gen that a frame does not name.
const UNNAMED: GenIndex = GenIndex::MAX;

/// Collects changes into one frame, which names the Gens and replicas that they use, and no others.
/// Where these are the sender's first Gens, in their order, bodies go out as they are kept.
pub struct FrameWriter<'k, G> {
    /// What comes behind the names.
    changes: Vec<u8>,
    /// The sender's replicas, which changes refer to.
    keys: &'k [ReplicaKey],
    /// The sender's Gens, which changes refer to.
    gen_names: G,
    /// By the sender's indexes: those in the frame; [`UNNAMED`] of a Gen that is not named there.
    gen_map: Vec<GenIndex>,
    /// How many Gens are named, and their names.
    named_count: GenIndex,
    names: Vec<u8>,
    /// Whether all of these have the sender's indexes.
    is_same_order: bool,
    /// A body with the frame's indexes.
    body: Vec<u8>,
    encoder: FrameEncoder,
    change_count: u64,
}

impl<'k, G: ExactSizeIterator<Item: AsRef<[u8]>> + Clone> FrameWriter<'k, G> {
    /// An empty frame. The indexes of every change refer to these lists.
    pub fn new(keys: &'k [ReplicaKey], gen_names: G) -> FrameWriter<'k, G> {
        FrameWriter {
            changes: Vec::new(),
            keys,
            gen_map: vec![UNNAMED; gen_names.len()],
            gen_names,
            named_count: 0,
            names: Vec::new(),
            is_same_order: true,
            body: Vec::new(),
            encoder: FrameEncoder::new(keys.len()),
            change_count: 0,
        }
    }

    /// Adds a change. The changes of one replica must come in the order of their numbers.
    pub fn push(&mut self, change: &Change<'_>) {
        self.name_gens(change);
        let mut change = *change;
        if !self.is_same_order {
            self.body.clear();
            rewrite_gens(&change, &self.gen_map, &mut self.body);
            change.body = &self.body;
        }
        self.encoder.push(&change, self.keys, &mut self.changes);
        self.change_count += 1;
    }

    /// Names the Gens of a change that are not named yet, in the sender's order: so the only change of a
    /// frame never gets larger than the sender has it.
    fn name_gens(&mut self, change: &Change<'_>) {
        let mut new = Vec::new();
        change.for_each_document(|gen_index, _| {
            if self.gen_map[gen_index as usize] == UNNAMED && new.last() != Some(&gen_index) {
                new.push(gen_index);
            }
        });
        new.sort_unstable();
        new.dedup();
        for gen_index in new {
            let place = gen_index as usize;
            let name = self.gen_names.clone().nth(place);
            write_bytes(&mut self.names, name.as_ref().map_or(&[], |name| name.as_ref()));
            self.gen_map[place] = self.named_count;
            self.is_same_order &= self.named_count == gen_index;
            self.named_count += 1;
        }
    }

    /// How many bytes the frame has so far, near enough to decide when it is full.
    pub fn byte_count(&self) -> usize {
        MAGIC.len() + self.names.len() + self.changes.len()
    }

    /// How many changes the frame holds so far.
    pub fn change_count(&self) -> u64 {
        self.change_count
    }

    /// The frame's bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.byte_count() + MAX_COUNT_BYTES + CHECKSUM_BYTES);
        out.extend_from_slice(MAGIC);
        write_varint(&mut out, self.named_count.into());
        out.extend_from_slice(&self.names);
        out.extend_from_slice(&self.changes);
        finish_frame(&mut out);
        out
    }
}

/// What of a frame the next change is written against.
pub(crate) struct FrameEncoder {
    /// One more than the place of each of the sender's replicas in the frame; zero until it is
    /// named.
    places: Vec<u64>,
    named_count: u64,
    /// The change that would need no writer.
    next: (ReplicaIndex, u64),
    last_milliseconds: u64,
}

impl FrameEncoder {
    /// For the changes of a frame whose beginning somebody else writes.
    fn new(replica_count: usize) -> FrameEncoder {
        let places = vec![0; replica_count];
        FrameEncoder { places, named_count: 0, next: (0, 0), last_milliseconds: 0 }
    }

    /// Appends the beginning of a frame.
    pub(crate) fn begin(
        replica_count: usize,
        gen_names: impl ExactSizeIterator<Item: AsRef<[u8]>>,
        out: &mut Vec<u8>,
    ) -> FrameEncoder {
        out.extend_from_slice(MAGIC);
        write_varint(out, gen_names.len() as u64);
        for name in gen_names {
            write_bytes(out, name.as_ref());
        }
        let mut places = Vec::new();
        while places.len() < replica_count {
            places.push(0);
        }
        FrameEncoder { places, named_count: 0, next: (0, 0), last_milliseconds: 0 }
    }

    /// Appends a change.
    pub(crate) fn push(&mut self, change: &Change<'_>, keys: &[ReplicaKey], out: &mut Vec<u8>) {
        let writer = (change.replica, change.number);
        let milliseconds = change.now.milliseconds();
        let difference = milliseconds.wrapping_sub(self.last_milliseconds) as i64;
        let has_writer = writer != self.next;
        write_varint(out, zigzag_encode(difference) << 1 | u64::from(has_writer));
        if has_writer {
            let place = &mut self.places[change.replica as usize];
            write_varint(out, *place);
            if *place == 0 {
                self.named_count += 1;
                *place = self.named_count;
                out.extend_from_slice(&keys[change.replica as usize].0);
            }
            write_varint(out, change.number);
        }
        out.extend_from_slice(change.body);
        self.last_milliseconds = milliseconds;
        self.next = (change.replica, change.number + 1);
    }
}

/// Appends the end of a frame.
pub(crate) fn finish_frame(out: &mut Vec<u8>) {
    let sum = checksum(out);
    out.extend_from_slice(&sum);
}

/// A frame that has been validated whole.
#[derive(Clone, Debug, Default)]
pub struct Frame<'a> {
    /// The keys of the replicas that the frame names, 32 bytes each.
    pub(crate) keys: Vec<&'a [u8]>,
    /// The names of the Gens, all UTF-8.
    pub(crate) gens: Vec<&'a [u8]>,
    changes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Validates a frame: checksum, bounds, order and every operation in it.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, MalformedFrame> {
        let mut frame = Frame::default();
        frame.read(bytes, |_, _| ())?;
        Ok(frame)
    }

    /// Fills an empty frame as [`Frame::parse`] does. Shows each change, still without its body,
    /// and the keys of the replicas named so far; whether the frame is one is known at the end.
    pub(crate) fn read(
        &mut self,
        bytes: &'a [u8],
        mut see: impl FnMut(&Change<'_>, &[&[u8]]),
    ) -> Result<(), MalformedFrame> {
        let content_bytes = bytes.len().checked_sub(CHECKSUM_BYTES);
        let (content, sum) = bytes.split_at(content_bytes.ok_or(MalformedFrame::Truncated)?);
        let mut reader = Reader::new(content);
        reader.check(bytes.len() <= MAX_FRAME_BYTES, MalformedFrame::TooLarge);
        let magic = reader.take_or_empty(MAGIC.len());
        reader.check(magic == MAGIC, MalformedFrame::FormatVersion);
        reader.check(checksum(content) == sum, MalformedFrame::Checksum);
        let gen_count = reader.varint_up_to_or_zero(MAX_GENS as u64) as usize;
        while self.gens.len() < gen_count && !reader.has_failed() {
            let name = reader.bytes_or_empty();
            let is_in_bounds = !name.is_empty() && name.len() <= MAX_GEN_NAME_BYTES;
            reader.check(is_in_bounds, MalformedFrame::TooLarge);
            reader.check(is_utf8(name), MalformedFrame::StringNotUtf8);
            self.gens.push(name);
        }
        self.changes = reader.rest();
        let mut changes = Changes::of(reader);
        while !changes.reader.is_empty() {
            changes.read_head();
            if !changes.reader.has_failed() {
                see(&changes.change, &changes.keys);
            }
            change::check_body(&mut changes.reader, changes.change.now, gen_count);
        }
        self.keys = changes.keys;
        changes.reader.checked(())
    }

    /// The replicas that the frame names, in the order of its indexes.
    pub fn replicas(&self) -> impl ExactSizeIterator<Item = ReplicaKey> + '_ {
        self.keys.iter().map(|key| ReplicaKey::of(key))
    }

    /// The names of the Gens that the frame names, in the order of its indexes; all are UTF-8.
    pub fn gen_names(&self) -> &[&'a [u8]] {
        &self.gens
    }

    /// The changes, in the order in which they were pushed. Indexes are the frame's own.
    pub fn changes(&self) -> Changes<'a> {
        Changes::of(Reader::new(self.changes))
    }
}

/// The changes of a frame, one after the other.
#[derive(Clone, Debug)]
pub struct Changes<'a> {
    reader: Reader<'a>,
    /// Of the replicas named so far.
    pub(crate) keys: Vec<&'a [u8]>,
    /// The change that was read last. Before the first one its number is such that none follows.
    pub(crate) change: Change<'a>,
}

impl<'a> Changes<'a> {
    fn of(reader: Reader<'a>) -> Changes<'a> {
        let change = Change { replica: 0, number: u64::MAX, now: Hlc::ZERO, body: &[] };
        Changes { reader, keys: Vec::new(), change }
    }

    /// Reads a change up to its body. Leaves faults in the reader.
    #[inline(never)]
    fn read_head(&mut self) {
        let Changes { reader, keys, change } = self;
        let head = reader.varint_or_zero();
        change.number = change.number.wrapping_add(1);
        if head & 1 == 1 {
            let mut place = reader.varint_or_zero();
            if place == 0 {
                keys.push(reader.take_or_empty(REPLICA_KEY_BYTES));
                place = keys.len() as u64;
                reader.check(keys.len() <= MAX_FRAME_REPLICAS, MalformedFrame::TooLarge);
            }
            reader.check(place <= keys.len() as u64, MalformedFrame::IndexOutOfRange);
            change.replica = (place - 1) as ReplicaIndex;
            change.number = reader.varint_or_zero();
        }
        let can_be_followed = change.number != 0 && change.number != u64::MAX;
        reader.check(can_be_followed, MalformedFrame::TooLarge);
        let difference = zigzag_decode(head >> 1) as u64;
        let milliseconds = change.now.milliseconds().wrapping_add(difference);
        change.now = Hlc::from_milliseconds(milliseconds);
        let is_in_range = change.now.milliseconds() == milliseconds;
        reader.check(is_in_range, MalformedFrame::TimeOutOfRange);
    }

    /// Goes on to the next change, if there is one.
    pub(crate) fn advance(&mut self) -> bool {
        let has_next = !self.reader.is_empty();
        if has_next {
            self.read_head();
            self.change.body = change::read_body(&mut self.reader);
        }
        has_next
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        self.advance().then_some(self.change)
    }
}

/// A 64-bit checksum against damage on the way (not against forgery): each step is a bijection of
/// the running sum, so a single damaged word always shows.
pub fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = bytes.as_chunks();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut sum = MULTIPLIER ^ bytes.len() as u64;
    for word in words.iter().chain([&last]) {
        sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER);
        sum ^= sum >> 29;
    }
    sum.to_le_bytes()
}
