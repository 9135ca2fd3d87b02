//! A change: what one transaction of one replica did, as bytes.
//!
//! ```text
//! body       = document count | document*
//! document   = gen index | key (length, bytes) | life | operations (length, operation*)
//! operation  = header | Hlc, if the header's lowest bit is set | value
//! log record = replica index | number | now, in milliseconds | body (length, bytes)
//! ```
//!
//! Operations ascend by (field number, strategy tag) with the header of [`crate::row`]. An
//! operation has the Hlc of the one before it, the first one the change's `now`; only exceptions
//! are spelled out. A document without operations is created (odd life) or deleted (even life).

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::counter;
use crate::hlc::Hlc;
use crate::limits::{MAX_CHANGE_BYTES, MAX_FIELD_NUMBER, MAX_KEY_BYTES, MAX_LIFE};
use crate::replica::ReplicaIndex;
use crate::row::{CellId, Stamp, write_row_head};
use crate::value::{check_value, step_over_value};
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

impl<'a> Change<'a> {
    /// Appends the change as a log keeps it.
    pub fn write_log_record(&self, out: &mut Vec<u8>) {
        write_varint(out, self.replica.into());
        write_varint(out, self.number);
        write_varint(out, self.now.milliseconds());
        write_bytes(out, self.body);
    }

    /// Reads what [`Change::write_log_record`] wrote.
    ///
    /// # Errors
    /// Says what is wrong with the record. Its body is not looked into.
    pub fn read_log_record(reader: &mut Reader<'a>) -> Result<Change<'a>, MalformedFrame> {
        let change = Change::read(reader);
        reader.checked(change)
    }

    /// Visits the documents that the change touches, of a body that has been checked.
    pub fn for_each_document(&self, mut visit: impl FnMut(GenIndex, &'a [u8])) {
        let mut documents = documents(self.body);
        while !documents.is_empty() {
            let DocumentChange { gen_index, key, .. } = DocumentChange::read(&mut documents);
            visit(gen_index, key);
        }
    }

    /// Reads a record, leaving a fault in the reader.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Change<'a> {
        let replica = reader.varint_up_to_or_zero(u32::MAX.into()) as ReplicaIndex;
        let number = reader.varint_or_zero();
        let now = Hlc::from_milliseconds(reader.varint_or_zero());
        Change { replica, number, now, body: reader.bytes_or_empty() }
    }
}

/// What a change does to one document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DocumentChange<'a> {
    pub(crate) gen_index: GenIndex,
    pub(crate) key: &'a [u8],
    pub(crate) life: u64,
    pub(crate) operations: &'a [u8],
}

/// What a change does to one cell.
#[derive(Clone, Copy)]
pub(crate) struct Operation<'a> {
    pub(crate) id: CellId,
    /// When. A counter has no time of its own; this is then the time of the operation before it.
    pub(crate) hlc: Hlc,
    pub(crate) value: &'a [u8],
}

impl<'a> Operation<'a> {
    /// What the first operation of a change is read over.
    fn none(now: Hlc) -> Operation<'a> {
        Operation { id: CellId::from_bits(0), hlc: now, value: &[] }
    }

    /// Reads the next operation over this one. Gives whether it spells its time out.
    fn read_next(&mut self, reader: &mut Reader<'a>) -> bool {
        let header = reader.varint_up_to_or_zero(u64::from(MAX_FIELD_NUMBER) << 5 | 31);
        let has_hlc = header & 1 == 1;
        if has_hlc {
            self.hlc = Hlc::read(reader);
        }
        self.id = CellId::from_header(header);
        self.value = step_over_value(reader);
        has_hlc
    }

    /// Appends an operation behind one of the time `previous`, which it moves on.
    fn write(&self, previous: &mut Hlc, out: &mut Vec<u8>) {
        let has_hlc = self.hlc != *previous && !self.id.is_counter();
        write_varint(out, self.id.header(has_hlc));
        if has_hlc {
            self.hlc.encode(out);
            *previous = self.hlc;
        }
        out.extend_from_slice(self.value);
    }
}

/// Checks the operations of a document; a fault goes to `reader`.
fn check_operations(operations: &[u8], now: Hlc, reader: &mut Reader<'_>) {
    let does_not_fit = MalformedFrame::PayloadDoesNotFit;
    let mut inside = Reader::new(operations);
    let mut operation = Operation::none(now);
    while !inside.is_empty() {
        let last = operation.id;
        let has_hlc = operation.read_next(&mut inside);
        let Operation { id, value, .. } = operation;
        check_value(value, &mut inside);
        inside.check(last < id, MalformedFrame::NotSorted);
        inside.check(id.tag() != 0 && id.field_number() != 0, does_not_fit);
        if id.is_counter() {
            // A counter has no time of its own, so it must not move the running one either.
            let fits = !has_hlc && counter::is_operation(value, id.is_float_counter());
            inside.check(fits, does_not_fit);
        }
    }
    if let Err(what) = inside.checked(()) {
        reader.fail(what);
    }
}

/// Checks a whole body; a fault stays in the reader, which is behind the body then.
pub(crate) fn check_body(reader: &mut Reader<'_>, now: Hlc, gen_count: usize) {
    let byte_count = reader.rest().len();
    let mut left = reader.varint_or_zero();
    // Nobody writes a change without documents, and a frame full of them would cost more than it
    // weighs.
    reader.check(left != 0, MalformedFrame::PayloadDoesNotFit);
    while left > 0 && !reader.has_failed() {
        left -= 1;
        let DocumentChange { gen_index, key, life, operations } = DocumentChange::read(reader);
        let is_known = (gen_index as usize) < gen_count;
        reader.check(is_known, MalformedFrame::IndexOutOfRange);
        reader.check(!key.is_empty() && key.len() <= MAX_KEY_BYTES, MalformedFrame::TooLarge);
        reader.check(is_utf8(key), MalformedFrame::StringNotUtf8);
        reader.check(life != 0, MalformedFrame::LifeIsZero);
        let may_write = life & 1 == 1 || operations.is_empty();
        reader.check(may_write, MalformedFrame::PayloadDoesNotFit);
        check_operations(operations, now, reader);
    }
    let is_in_bounds = byte_count - reader.rest().len() <= MAX_CHANGE_BYTES;
    reader.check(is_in_bounds, MalformedFrame::TooLarge);
}

/// Steps over a body that [`check_body`] has checked.
pub(crate) fn read_body<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    let start = reader.rest();
    for _ in 0..reader.varint_or_zero() {
        DocumentChange::read(reader);
    }
    reader.since(start)
}

/// The documents of a body that [`check_body`] has checked: to be read until nothing is left.
pub(crate) fn documents(body: &[u8]) -> Reader<'_> {
    let mut reader = Reader::new(body);
    reader.varint_or_zero();
    reader
}

impl<'a> DocumentChange<'a> {
    /// What [`DocumentChange::encode`] wrote.
    pub(crate) fn of(bytes: &'a [u8]) -> DocumentChange<'a> {
        DocumentChange::read(&mut Reader::new(bytes))
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> DocumentChange<'a> {
        let gen_index = reader.varint_up_to_or_zero(u32::MAX.into()) as GenIndex;
        let key = reader.bytes_or_empty();
        let life = reader.varint_up_to_or_zero(MAX_LIFE);
        let operations = reader.bytes_or_empty();
        DocumentChange { gen_index, key, life, operations }
    }

    /// The operations, those of a change at `now`.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn operations(&self, now: Hlc) -> impl Iterator<Item = Operation<'a>> {
        let mut reader = Reader::new(self.operations);
        let mut operation = Operation::none(now);
        core::iter::from_fn(move || {
            (!reader.is_empty()).then(|| {
                operation.read_next(&mut reader);
                operation
            })
        })
    }

    /// Appends the row that this change amounts to on its own: the small element of the lattice
    /// that is joined with what is there. Gives how many operations the document received; at least
    /// the one that names its life.
    pub(crate) fn write_row(&self, stamp: Stamp, out: &mut Vec<u8>) -> u64 {
        write_row_head(out, self.key, self.life);
        stamp.encode(out);
        let mut reader = Reader::new(self.operations);
        let mut stamp = stamp;
        let mut operation = Operation::none(stamp.hlc);
        let mut count = 0;
        while !reader.is_empty() {
            operation.read_next(&mut reader);
            let Operation { id, hlc, value } = operation;
            count += 1;
            let begins_stamp = hlc != stamp.hlc;
            write_varint(out, id.header(begins_stamp));
            if begins_stamp {
                stamp.hlc = hlc;
                stamp.encode(out);
            }
            if id.is_counter() {
                counter::lift(stamp.replica, stamp.number, value, out);
            } else {
                out.extend_from_slice(value);
            }
        }
        count.max(1)
    }

    /// Appends the operations with one put in its place, instead of the one on the same cell.
    pub(crate) fn write_operations_with(&self, new: Operation<'_>, now: Hlc, out: &mut Vec<u8>) {
        let mut written_hlc = now;
        for side in [Ordering::Less, Ordering::Greater] {
            let mut reader = Reader::new(self.operations);
            let mut operation = Operation::none(now);
            while !reader.is_empty() {
                operation.read_next(&mut reader);
                if operation.id.cmp(&new.id) == side {
                    operation.write(&mut written_hlc, out);
                }
            }
            if side == Ordering::Less {
                new.write(&mut written_hlc, out);
            }
        }
    }

    /// Appends the document with another gen index.
    pub(crate) fn encode(&self, gen_index: GenIndex, out: &mut Vec<u8>) {
        write_varint(out, gen_index.into());
        write_bytes(out, self.key);
        write_varint(out, self.life);
        write_bytes(out, self.operations);
    }
}
