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
use crate::value::skip_value;
use crate::wire::{MalformedFrame, Reader, write_bytes, write_varint};

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
    fn read(reader: &mut Reader<'a>, previous: Hlc) -> Result<Operation<'a>, MalformedFrame> {
        let header = reader.varint_up_to(u64::from(MAX_FIELD_NUMBER) << 5 | 31)?;
        let hlc = if header & 1 == 1 { Hlc::decode(reader)? } else { previous };
        let value = skip_value(reader)?;
        Ok(Operation { header, hlc, value })
    }
}

/// Reads one document of a body, checking everything but the gen index.
pub(crate) fn read_document<'a>(
    reader: &mut Reader<'a>,
    now: Hlc,
) -> Result<DocumentChange<'a>, MalformedFrame> {
    let gen_index = reader.varint_up_to(u32::MAX.into())? as GenIndex;
    let key = reader.bytes()?;
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(MalformedFrame::TooLarge);
    }
    if core::str::from_utf8(key).is_err() {
        return Err(MalformedFrame::StringNotUtf8);
    }
    let life = reader.varint_up_to(MAX_LIFE)?;
    let operation_count = reader.varint()?;
    if life == 0 {
        return Err(MalformedFrame::LifeIsZero);
    }
    if life & 1 == 0 && operation_count != 0 {
        return Err(MalformedFrame::PayloadDoesNotFit);
    }
    let start = reader.rest();
    let mut hlc = now;
    let mut last = None;
    for _ in 0..operation_count {
        let operation = Operation::read(reader, hlc)?;
        hlc = operation.hlc;
        let id = CellId::from_header(operation.header);
        if last.is_some_and(|last| last >= id) {
            return Err(MalformedFrame::NotSorted);
        }
        last = Some(id);
        if id.tag() == 0 || id.field_number() == 0 {
            return Err(MalformedFrame::PayloadDoesNotFit);
        }
        if let Some(strategy) = id.counter_strategy() {
            // A counter has no time of its own, so it must not move the running one either.
            if operation.header & 1 == 1 {
                return Err(MalformedFrame::PayloadDoesNotFit);
            }
            counter::validate_operation(operation.value, strategy)?;
        }
    }
    let operations = &start[..start.len() - reader.rest().len()];
    Ok(DocumentChange { gen_index, key, life, operation_count, operations })
}

/// Steps over a body, checking it whole, and gives its bytes.
pub(crate) fn read_body<'a>(
    reader: &mut Reader<'a>,
    now: Hlc,
    gen_count: usize,
) -> Result<&'a [u8], MalformedFrame> {
    let start = reader.rest();
    let document_count = reader.varint_up_to(MAX_CHANGE_BYTES as u64)?;
    if document_count == 0 {
        // Nobody writes such a change, and a frame full of them would cost more than it weighs.
        return Err(MalformedFrame::PayloadDoesNotFit);
    }
    for _ in 0..document_count {
        let document = read_document(reader, now)?;
        if document.gen_index as usize >= gen_count {
            return Err(MalformedFrame::IndexOutOfRange);
        }
    }
    let length = start.len() - reader.rest().len();
    if length > MAX_CHANGE_BYTES {
        return Err(MalformedFrame::TooLarge);
    }
    Ok(&start[..length])
}

/// The documents of a body that [`read_body`] has checked.
pub(crate) fn documents<'a>(body: &'a [u8], now: Hlc) -> impl Iterator<Item = DocumentChange<'a>> {
    let mut reader = Reader::new(body);
    let mut left = reader.varint().unwrap_or(0);
    core::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        read_document(&mut reader, now).ok()
    })
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
            let Ok(operation) = Operation::read(&mut reader, hlc) else {
                return;
            };
            hlc = operation.hlc;
            let id = CellId::from_header(operation.header);
            if id.counter_strategy().is_some() {
                lifted.clear();
                counter::lift(stamp.replica, stamp.number, operation.value, &mut lifted);
                writer.cell(id, stamp, &lifted);
            } else {
                writer.cell(id, Stamp { hlc, ..stamp }, operation.value);
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
