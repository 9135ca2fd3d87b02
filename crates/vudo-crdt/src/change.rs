//! A change: what one transaction of one replica did, as bytes.
//!
//! ```text
//! body       = document count << 1 | refers | replicas, if it refers to any | document*
//! replicas   = count | key (32 bytes)*
//! document   = gen index | key (length, bytes) | life | operations (length, operation*)
//! operation  = header | Hlc, if the header's lowest bit is set | value
//! value      = a register's value, or the payload of the cell's strategy: see [`crate::dots`]
//!            | length | entry*                                      of a collection
//! entry      = element | life | operations (length, operation*)     life zero in a set
//! log record = replica index | number | now, in milliseconds | body (length, bytes)
//! ```
//!
//! Operations ascend by (field number, strategy tag) with the header of [`crate::row`]. An
//! operation has the Hlc of the one before it, the first one the change's `now`; only exceptions
//! are spelled out. A document without operations is created (odd life) or deleted (even life), and
//! so is an entry of a map. Operations refer to writes of other replicas by their places among the
//! replicas that the body names, after the change's own, which is place zero.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::counter;
use crate::dots;
use crate::hlc::Hlc;
use crate::limits::{
    MAX_CHANGE_BYTES, MAX_CHANGE_REPLICAS, MAX_ELEMENT_BYTES, MAX_FIELD_NUMBER, MAX_KEY_BYTES,
    MAX_LIFE, MAX_VALUE_DEPTH,
};
use crate::replica::{REPLICA_KEY_BYTES, ReplicaIndex};
use crate::row::{CellId, Stamp, write_row_head};
use crate::value::{check_value, decode_counts, encode_counts, step_over_value};
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

    /// Whether a stamp is of this change.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn has_written(&self, stamp: &Stamp) -> bool {
        (stamp.replica, stamp.number) == (self.replica, self.number)
    }

    /// Reads a record, leaving a fault in the reader.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Change<'a> {
        let replica = reader.varint_up_to_or_zero(u32::MAX.into()) as ReplicaIndex;
        let number = reader.varint_or_zero();
        let now = Hlc::from_milliseconds(reader.varint_or_zero());
        Change { replica, number, now, body: reader.bytes_or_empty() }
    }
}

/// What a change does to one document, or to one entry of a collection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DocumentChange<'a> {
    pub(crate) gen_index: GenIndex,
    /// The key of the row: see [`crate::row`].
    pub(crate) key: &'a [u8],
    pub(crate) life: u64,
    pub(crate) operations: &'a [u8],
}

/// What a change does to one cell.
#[derive(Clone, Copy)]
pub(crate) struct Operation<'a> {
    pub(crate) id: CellId,
    /// When. Cells without a time of their own have that of the operation before.
    pub(crate) hlc: Hlc,
    pub(crate) value: &'a [u8],
}

impl Operation<'_> {
    /// Appends an operation behind one of the time `previous`, which it moves on.
    pub(crate) fn write(&self, previous: &mut Hlc, out: &mut Vec<u8>) {
        let has_hlc = self.hlc != *previous && self.id.has_time();
        write_varint(out, self.id.header(has_hlc));
        if has_hlc {
            self.hlc.encode(out);
            *previous = self.hlc;
        }
        out.extend_from_slice(self.value);
    }
}

/// The operations on a document or entry, one after the other.
pub(crate) struct Operations<'a> {
    reader: Reader<'a>,
    /// The operation that was read last.
    pub(crate) operation: Operation<'a>,
}

impl<'a> Operations<'a> {
    /// Before the first operation; times are those of a change at `now`.
    pub(crate) fn of(operations: &'a [u8], now: Hlc) -> Operations<'a> {
        let operation = Operation { id: CellId::from_bits(0), hlc: now, value: &[] };
        Operations { reader: Reader::new(operations), operation }
    }

    /// Goes on to the next operation, if there is one.
    #[inline]
    pub(crate) fn advance(&mut self) -> bool {
        let has_next = !self.reader.is_empty();
        if has_next {
            self.read();
        }
        has_next
    }

    /// Reads the next operation over the last one. Gives whether it spells its time out.
    // A module has no room for it in each place; elsewhere the call takes longer than what it does.
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    fn read(&mut self) -> bool {
        let Operations { reader, operation } = self;
        let header = reader.varint_up_to_or_zero(u64::from(MAX_FIELD_NUMBER) << 5 | 31);
        let has_hlc = header & 1 == 1;
        if has_hlc {
            operation.hlc = Hlc::read(reader);
        }
        operation.id = CellId::from_header(header);
        operation.value = step_over_value(reader);
        has_hlc
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Operation<'a>;

    fn next(&mut self) -> Option<Operation<'a>> {
        self.advance().then_some(self.operation)
    }
}

/// What a body's operations are checked against.
#[derive(Clone, Copy)]
struct Check {
    now: Hlc,
    /// How many replicas may be referred to, the change's own included.
    reference_count: u64,
    /// How many collections deep operations may still lie.
    depth_left: usize,
    /// The collection that the operations lie in; of no strategy for those of documents.
    collection: CellId,
}

impl Check {
    /// Checks the operations of a document or entry; a fault goes to `reader`.
    fn operations(self, operations: &[u8], reader: &mut Reader<'_>) {
        let does_not_fit = MalformedFrame::PayloadDoesNotFit;
        let is_nested = self.collection.tag() != 0;
        let is_element = is_nested && !self.collection.is_map();
        let mut operations = Operations::of(operations, self.now);
        let mut last = operations.operation.id;
        while !operations.reader.is_empty() {
            let has_hlc = operations.read();
            let Operations { reader: inside, operation } = &mut operations;
            let Operation { id, value, .. } = *operation;
            check_value(value, inside);
            inside.check(last < id, MalformedFrame::NotSorted);
            last = id;
            let is_in_place =
                !is_nested || (id.field_number() == 1 && (!is_element || id == CellId::ELEMENT));
            inside.check(id.tag() != 0 && id.field_number() != 0 && is_in_place, does_not_fit);
            if id.has_stamp() {
                continue;
            }
            // What has no time of its own must not move the running one either.
            let fits = (id.has_time() || !has_hlc)
                && decode_counts(value).is_some()
                && (!id.is_counter() || counter::is_operation(value, id));
            inside.check(fits, does_not_fit);
            if id.is_mv_register() {
                dots::check_register(value, self.reference_count, is_element, inside);
            } else if id.is_collection() {
                let depth_left = self.depth_left.wrapping_sub(1);
                Check { collection: id, depth_left, ..self }.entries(value, inside);
            }
        }
        // An element has the one operation that there can be.
        let inside = &mut operations.reader;
        inside.check(!is_element || last == CellId::ELEMENT, does_not_fit);
        if let Err(what) = inside.checked(()) {
            reader.fail(what);
        }
    }

    /// Checks the entries in an operation on the collection; a fault goes to `reader`.
    #[inline(never)]
    fn entries(self, operation: &[u8], reader: &mut Reader<'_>) {
        if self.depth_left > MAX_VALUE_DEPTH {
            return reader.fail(MalformedFrame::TooLarge);
        }
        let is_map = self.collection.is_map();
        let mut entries = Entries::of(operation);
        let mut last: &[u8] = &[];
        while entries.advance() {
            let DocumentChange { key: element, life, operations, .. } = entries.entry;
            let inside = &mut entries.reader;
            check_value(element, inside);
            inside.check(element.len() <= MAX_ELEMENT_BYTES, MalformedFrame::TooLarge);
            inside.check(last < element, MalformedFrame::NotSorted);
            inside.check((life != 0) == is_map, MalformedFrame::LifeIsZero);
            let may_write = !is_map || life & 1 == 1 || operations.is_empty();
            inside.check(may_write, MalformedFrame::PayloadDoesNotFit);
            self.operations(operations, inside);
            last = element;
        }
        if let Err(what) = entries.reader.checked(()) {
            reader.fail(what);
        }
    }
}

/// The entries in an operation on a collection, one after the other.
pub(crate) struct Entries<'a> {
    reader: Reader<'a>,
    /// The entry that was read last; its key is its element.
    pub(crate) entry: DocumentChange<'a>,
}

impl<'a> Entries<'a> {
    pub(crate) fn of(operation: &'a [u8]) -> Entries<'a> {
        let reader = Reader::new(decode_counts(operation).unwrap_or_default());
        let entry = DocumentChange { gen_index: 0, key: &[], life: 0, operations: &[] };
        Entries { reader, entry }
    }

    /// Goes on to the next entry, if there is one.
    pub(crate) fn advance(&mut self) -> bool {
        let has_next = !self.reader.is_empty();
        if has_next {
            self.entry.key = step_over_value(&mut self.reader);
            self.entry.life = self.reader.varint_up_to_or_zero(MAX_LIFE);
            self.entry.operations = self.reader.bytes_or_empty();
        }
        has_next
    }
}

/// Checks a whole body; a fault stays in the reader, which is behind the body then.
pub(crate) fn check_body(reader: &mut Reader<'_>, now: Hlc, gen_count: usize) {
    let byte_count = reader.rest().len();
    let (mut left, replicas) = read_body_head(reader);
    // Nobody writes a change without documents, and a frame full of them would cost more than it
    // weighs.
    reader.check(left != 0, MalformedFrame::PayloadDoesNotFit);
    let reference_count = 1 + (replicas.len() / REPLICA_KEY_BYTES) as u64;
    let collection = CellId::from_bits(0);
    let check = Check { now, reference_count, depth_left: MAX_VALUE_DEPTH, collection };
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
        check.operations(operations, reader);
    }
    let is_in_bounds = byte_count - reader.rest().len() <= MAX_CHANGE_BYTES;
    reader.check(is_in_bounds, MalformedFrame::TooLarge);
}

/// Reads a body up to its documents: their count, and the keys of the replicas that it refers to,
/// one after the other.
fn read_body_head<'a>(reader: &mut Reader<'a>) -> (u64, &'a [u8]) {
    let head = reader.varint_or_zero();
    let mut replicas: &[u8] = &[];
    if head & 1 == 1 {
        let count = reader.varint_up_to_or_zero(MAX_CHANGE_REPLICAS as u64) as usize;
        reader.check(count != 0, MalformedFrame::PayloadDoesNotFit);
        replicas = reader.take_or_empty(count * REPLICA_KEY_BYTES);
    }
    (head >> 1, replicas)
}

/// Appends what [`read_body_head`] reads, but for the keys of the replicas.
pub(crate) fn write_body_head(document_count: usize, replica_count: usize, out: &mut Vec<u8>) {
    let refers = replica_count > 0;
    write_varint(out, (document_count as u64) << 1 | u64::from(refers));
    if refers {
        write_varint(out, replica_count as u64);
    }
}

/// Steps over a body that [`check_body`] has checked.
pub(crate) fn read_body<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    let start = reader.rest();
    for _ in 0..read_body_head(reader).0 {
        DocumentChange::read(reader);
    }
    reader.since(start)
}

/// The documents of a body that [`check_body`] has checked: to be read until nothing is left.
pub(crate) fn documents(body: &[u8]) -> Reader<'_> {
    split_body(body).1
}

/// The keys of the replicas that a checked body refers to, and its documents.
pub(crate) fn split_body(body: &[u8]) -> (&[u8], Reader<'_>) {
    let mut reader = Reader::new(body);
    let (_, replicas) = read_body_head(&mut reader);
    (replicas, reader)
}

/// What a row was made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    /// How many operations there were, without those inside of collections. A module counts none.
    #[cfg(not(target_arch = "wasm32"))]
    operation_count: u64,
    /// Whether any of them was on a collection.
    pub(crate) has_entries: bool,
}

impl Written {
    fn count_operation(&mut self) {
        #[cfg(not(target_arch = "wasm32"))]
        {
            self.operation_count += 1;
        }
    }

    /// How many operations there were; a document without any is one.
    pub(crate) fn operation_count(&self) -> u64 {
        #[cfg(not(target_arch = "wasm32"))]
        return self.operation_count.max(1);
        #[cfg(target_arch = "wasm32")]
        return 0;
    }
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

    /// Appends the row that this change amounts to on its own: the small element of the lattice
    /// that is joined with what is there. Of collections it only says that they were written to.
    pub(crate) fn write_row(
        &self,
        stamp: Stamp,
        references: &[ReplicaIndex],
        out: &mut Vec<u8>,
    ) -> Written {
        write_row_head(out, self.key, self.life);
        if self.life > 0 {
            stamp.encode(out);
        }
        let mut stamp = stamp;
        let mut written = Written::default();
        let mut operations = self.operations(stamp.hlc);
        while operations.advance() {
            let Operation { id, hlc, value } = operations.operation;
            written.count_operation();
            if id.has_stamp() {
                let begins_stamp = hlc != stamp.hlc;
                write_varint(out, id.header(begins_stamp));
                if begins_stamp {
                    stamp.hlc = hlc;
                    stamp.encode(out);
                }
                out.extend_from_slice(value);
                continue;
            }
            write_varint(out, id.header(false));
            if id.is_counter() {
                dots::lift_total(stamp.replica, stamp.number, value, out);
            } else if id.is_mv_register() {
                dots::lift_register(references, stamp.number, hlc, value, out);
            } else {
                encode_counts(&[], out);
                written.has_entries = true;
            }
        }
        written
    }

    /// The operations, one after the other; times are those of a change at `now`.
    pub(crate) fn operations(&self, now: Hlc) -> Operations<'a> {
        Operations::of(self.operations, now)
    }

    /// What the operation on a cell says; nothing, which no operation says, where there is none.
    pub(crate) fn operation_on(&self, id: CellId) -> &'a [u8] {
        let mut operations = self.operations(Hlc::ZERO);
        while operations.advance() {
            if operations.operation.id == id {
                return operations.operation.value;
            }
        }
        &[]
    }

    /// Appends the operations with one put in its place, instead of the one on the same cell.
    pub(crate) fn write_operations_with(&self, new: Operation<'_>, now: Hlc, out: &mut Vec<u8>) {
        let mut written_hlc = now;
        for side in [Ordering::Less, Ordering::Greater] {
            let mut operations = self.operations(now);
            while operations.advance() {
                if operations.operation.id.cmp(&new.id) == side {
                    operations.operation.write(&mut written_hlc, out);
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
        self.encode_rest(out);
    }

    /// Appends the document as an entry of a collection, whose element is given.
    pub(crate) fn encode_entry(&self, element: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(element);
        self.encode_rest(out);
    }

    fn encode_rest(&self, out: &mut Vec<u8>) {
        write_varint(out, self.life);
        write_bytes(out, self.operations);
    }
}
