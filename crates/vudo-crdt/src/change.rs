//! A change: what one transaction of one replica did, as bytes.
//!
//! ```text
//! body      = document count | document*
//! document  = gen index | key (length, bytes) | life | operation count | operation*
//! operation = header | Hlc, if the header's lowest bit is set | value
//! ```
//!
//! Operations ascend by (field number, strategy tag) with the header of [`crate::row`]. An
//! operation has the Hlc of the one before it, the first one the change's `now`; only exceptions
//! are spelled out. A document without operations is created (odd life) or deleted (even life).

use alloc::vec::Vec;

use crate::counter;
use crate::hlc::Hlc;
use crate::limits::{MAX_CHANGE_BYTES, MAX_FIELD_NUMBER, MAX_KEY_BYTES, MAX_LIFE};
use crate::replica::ReplicaIndex;
use crate::row::{CellId, RowWriter, Stamp};
use crate::value::read_value;
use crate::wire::{MalformedFrame, Reader, is_utf8, write_bytes, write_varint};

/// A record type's place in a namespace's list; without meaning outside the store that keeps it.
pub type GenIndex = u32;

/// A change, read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Who wrote it.
    pub replica: ReplicaIndex,
    /// Which of the writer's changes it is, from 1.
    pub number: u64,
    /// The writer's clock.
    pub now: Hlc,
    /// The documents it touches.
    pub body: &'a [u8],
}

/// What a change does to one document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DocumentChange<'a> {
    pub(crate) gen_index: GenIndex,
    pub(crate) key: &'a [u8],
    pub(crate) life: u64,
    operation_count: u64,
    operations: &'a [u8],
}

struct Operation<'a> {
    header: u64,
    hlc: Hlc,
    value: &'a [u8],
}

impl<'a> Operation<'a> {
    fn read(reader: &mut Reader<'a>, previous: Hlc) -> Operation<'a> {
        let header = reader.varint_up_to_or_zero(u64::from(MAX_FIELD_NUMBER) << 5 | 31);
        let hlc = if header & 1 == 1 { Hlc::read(reader) } else { previous };
        let value = read_value(reader);
        Operation { header, hlc, value }
    }
}

/// Reads one document of a body, checking everything but the gen index.
pub(crate) fn read_document<'a>(reader: &mut Reader<'a>, now: Hlc) -> DocumentChange<'a> {
    let does_not_fit = MalformedFrame::PayloadDoesNotFit;
    let gen_index = reader.varint_up_to_or_zero(u32::MAX.into()) as GenIndex;
    let key = reader.bytes_or_empty();
    reader.check(!key.is_empty() && key.len() <= MAX_KEY_BYTES, MalformedFrame::TooLarge);
    reader.check(is_utf8(key), MalformedFrame::StringNotUtf8);
    let life = reader.varint_up_to_or_zero(MAX_LIFE);
    let operation_count = reader.varint_or_zero();
    reader.check(life != 0, MalformedFrame::LifeIsZero);
    reader.check(life & 1 == 1 || operation_count == 0, does_not_fit);
    let start = reader.rest();
    let mut hlc = now;
    let mut last = CellId::from_bits(0);
    let mut left = operation_count;
    while left > 0 && !reader.has_failed() {
        left -= 1;
        let operation = Operation::read(reader, hlc);
        hlc = operation.hlc;
        let id = CellId::from_header(operation.header);
        reader.check(last < id, MalformedFrame::NotSorted);
        last = id;
        reader.check(id.tag() != 0 && id.field_number() != 0, does_not_fit);
        if let Some(strategy) = id.counter_strategy() {
            // A counter has no time of its own, so it must not move the running one either.
            reader.check(operation.header & 1 == 0, does_not_fit);
            counter::validate_operation(operation.value, strategy, reader);
        }
    }
    let operations = &start[..start.len() - reader.rest().len()];
    DocumentChange { gen_index, key, life, operation_count, operations }
}

/// Steps over a body, checking it whole, and gives its bytes.
pub(crate) fn read_body<'a>(reader: &mut Reader<'a>, now: Hlc, gen_count: usize) -> &'a [u8] {
    let start = reader.rest();
    let mut left = reader.varint_up_to_or_zero(MAX_CHANGE_BYTES as u64);
    // Nobody writes a change without documents, and a frame full of them would cost more than it
    // weighs.
    reader.check(left != 0, MalformedFrame::PayloadDoesNotFit);
    while left > 0 && !reader.has_failed() {
        left -= 1;
        let document = read_document(reader, now);
        let is_known = (document.gen_index as usize) < gen_count;
        reader.check(is_known, MalformedFrame::IndexOutOfRange);
    }
    let body = &start[..start.len() - reader.rest().len()];
    reader.check(body.len() <= MAX_CHANGE_BYTES, MalformedFrame::TooLarge);
    body
}

/// The documents of a body that [`read_body`] has checked.
pub(crate) fn documents<'a>(body: &'a [u8], now: Hlc) -> impl Iterator<Item = DocumentChange<'a>> {
    let mut reader = Reader::new(body);
    reader.varint_or_zero();
    core::iter::from_fn(move || (!reader.is_empty()).then(|| read_document(&mut reader, now)))
}

impl DocumentChange<'_> {
    /// How many operations the document received; at least the one that names its life.
    pub(crate) fn operation_count(&self) -> u64 {
        self.operation_count.max(1)
    }

    /// Appends the row that this change amounts to on its own: the small element of the lattice
    /// that is joined with what is there.
    pub(crate) fn write_row(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let mut writer = RowWriter::begin(out, self.key, self.life, stamp);
        let mut reader = Reader::new(self.operations);
        let mut hlc = stamp.hlc;
        let mut lifted = Vec::new();
        while !reader.is_empty() {
            let operation = Operation::read(&mut reader, hlc);
            hlc = operation.hlc;
            let id = CellId::from_header(operation.header);
            if id.counter_strategy().is_some() {
                lifted.clear();
                counter::lift(stamp.replica, stamp.number, operation.value, &mut lifted);
                writer.cell(id, &stamp, &lifted);
            } else {
                writer.cell(id, &Stamp { hlc, ..stamp }, operation.value);
            }
        }
    }

    /// Appends the document with another gen index.
    pub(crate) fn encode(&self, gen_index: GenIndex, out: &mut Vec<u8>) {
        write_varint(out, gen_index.into());
        write_bytes(out, self.key);
        write_varint(out, self.life);
        write_varint(out, self.operation_count);
        out.extend_from_slice(self.operations);
    }
}
