//! A row: the state of one document, or of one entry of a collection, as bytes.
//!
//! ```text
//! row    = key (length, bytes) | life | stamp, unless the life is zero | cell*
//! stamp  = replica index | number | Hlc        who made the life what it is
//! cell   = header | stamp, if the header's lowest bit is set | state
//! header = field number << 5 | strategy tag << 1 | has a stamp
//! ```
//!
//! Cells ascend by (field number, tag). A stamp holds for its own cell and those after it, so a
//! document that one change wrote carries a single stamp. Counters and `mv_register` keep who wrote
//! them inside their state and take no part in the running stamp. The cell of a collection says only
//! that it was written to: its entries are rows of their own, in a table beside that of the
//! documents.
//!
//! ```text
//! key of an entry = 0xff | key of the document | (0xff | cell (3 bytes) | element)*
//! ```
//!
//! No document's key contains 0xff, which is no byte of UTF-8. The one in front tells entries from
//! documents at a glance, the others part a key from what lies in it; several steps lead to an entry
//! of a collection that lies in an entry itself. An element of a set is a row of life
//! zero whose one cell is an `mv_register` without a value: while any write of it is live, the
//! element is in the set. An entry of a map has lives as documents have.
//!
//! Rows live in chunks and write buffers exactly as they are here, so a chunk from disk is read
//! without being decoded. They are written by this crate alone: what comes from outside is
//! validated as a frame and becomes rows afterwards.

use alloc::vec::Vec;

use crate::hlc::Hlc;
use crate::replica::ReplicaIndex;
use crate::schema::Strategy;
use crate::value::{Value, step_over_value};
use crate::wire::{MalformedFrame, Reader, write_byte, write_bytes, write_varint};

/// Who wrote something, in which of its changes, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The time of the write.
    pub hlc: Hlc,
    /// The writer.
    pub replica: ReplicaIndex,
    /// The number of the writer's change.
    pub number: u64,
}

impl Stamp {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.replica.into());
        write_varint(out, self.number);
        self.hlc.encode(out);
    }

    pub(crate) fn is_of_same_change(&self, other: &Stamp) -> bool {
        self.replica == other.replica && self.number == other.number
    }

    fn read(reader: &mut Reader<'_>) -> Stamp {
        let replica = reader.varint_up_to_or_zero(u32::MAX.into()) as ReplicaIndex;
        let number = reader.varint_or_zero();
        let hlc = Hlc::read(reader);
        Stamp { hlc, replica, number }
    }
}

/// A stamp in its bytes, where it lies. Equal stamps have equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedStamp<'a>(&'a [u8]);

impl<'a> EncodedStamp<'a> {
    /// The stamp.
    pub fn decode(self) -> Stamp {
        Stamp::read(&mut Reader::new(self.0))
    }

    /// Steps over a stamp: of most nobody asks what they say.
    #[cfg(not(target_arch = "wasm32"))]
    #[inline]
    fn read(reader: &mut Reader<'a>) -> EncodedStamp<'a> {
        let start = reader.rest();
        reader.step_over_varint();
        reader.step_over_varint();
        let has_counter = Hlc::begins_with_counter(reader.rest());
        reader.step_over_varint();
        if has_counter {
            reader.step_over_varint();
        }
        EncodedStamp(reader.since(start))
    }

    /// Steps over a stamp by the code that decodes it.
    #[cfg(target_arch = "wasm32")]
    fn read(reader: &mut Reader<'a>) -> EncodedStamp<'a> {
        let start = reader.rest();
        Stamp::read(reader);
        EncodedStamp(reader.since(start))
    }

    /// Checks what has been stepped over; a fault goes to `reader`.
    fn check(self, reader: &mut Reader<'_>) {
        let mut inside = Reader::new(self.0);
        Stamp::read(&mut inside);
        if let Err(what) = inside.checked(()) {
            reader.fail(what);
        }
    }
}

/// Field number and strategy tag of a cell: what cells are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CellId(u32);

impl CellId {
    /// Greater than the id of any cell: no header holds it.
    pub(crate) const END: CellId = CellId(u32::MAX);

    /// The cell of a field under a strategy.
    pub fn new(field_number: u32, strategy: Strategy) -> CellId {
        CellId(field_number << 4 | u32::from(strategy.tag()))
    }

    /// The cell with these bits: a field number shifted left by four, and a strategy's tag, which
    /// this version may not know.
    pub fn from_bits(bits: u32) -> CellId {
        CellId(bits)
    }

    pub(crate) fn from_header(header: u64) -> CellId {
        CellId((header >> 1) as u32)
    }

    pub(crate) fn header(self, has_stamp: bool) -> u64 {
        u64::from(self.0) << 1 | u64::from(has_stamp)
    }

    /// The field's number in its Gen; 1 for the cell of a map's values.
    pub fn field_number(self) -> u32 {
        self.0 >> 4
    }

    /// The strategy's tag, of a strategy that this version may not know.
    pub fn tag(self) -> u8 {
        (self.0 & 15) as u8
    }

    /// The one cell in an entry of a set.
    pub(crate) const ELEMENT: CellId = CellId(1 << 4 | Strategy::MvRegister as u32);

    /// Whether the strategy is one of a set: a bit for each tag.
    #[inline]
    fn is_among(self, strategies: u16) -> bool {
        strategies >> self.tag() & 1 == 1
    }

    /// Whether the strategy is a counter's.
    #[inline]
    pub(crate) fn is_counter(self) -> bool {
        self.is_among(COUNTERS)
    }

    #[inline]
    pub(crate) fn is_mv_register(self) -> bool {
        self.is_among(MV_REGISTER)
    }

    /// Whether the field's elements or entries are rows of their own.
    #[inline]
    pub(crate) fn is_collection(self) -> bool {
        self.is_among(COLLECTIONS)
    }

    pub(crate) fn is_map(self) -> bool {
        self.tag() == Strategy::Map.tag()
    }

    /// Whether its state is of [`crate::dots`], and so names the writers itself.
    #[inline]
    pub(crate) fn has_dots(self) -> bool {
        self.is_among(COUNTERS | MV_REGISTER)
    }

    /// Whether the cell takes part in the running stamp of its row.
    #[inline]
    pub(crate) fn has_stamp(self) -> bool {
        !self.is_among(COUNTERS | MV_REGISTER | COLLECTIONS)
    }

    /// Whether its operations take part in the running time of their change.
    #[inline]
    pub(crate) fn has_time(self) -> bool {
        !self.is_among(COUNTERS | COLLECTIONS)
    }
}

/// The bit of a strategy that this build looks into, where it is `wanted`.
const fn bit(strategy: Strategy, is_wanted: bool) -> u16 {
    (is_wanted as u16) << strategy as u16
}

const HAS_COLLECTIONS: bool = cfg!(feature = "collections");
const HAS_REGISTERS: bool = cfg!(feature = "registers");
const COUNTERS: u16 = bit(Strategy::PnCounter, true)
    | bit(Strategy::PnCounterFloat, true)
    | bit(Strategy::GCounter, true)
    | bit(Strategy::BoundedCounter, cfg!(feature = "bounded"));
const MV_REGISTER: u16 = bit(Strategy::MvRegister, HAS_REGISTERS);
const COLLECTIONS: u16 =
    bit(Strategy::OrSet, HAS_COLLECTIONS) | bit(Strategy::Map, HAS_COLLECTIONS);

/// In front of the key of an entry, and between the key of what a collection is in and the cell of
/// the collection.
const ENTRY_MARK: u8 = 0xff;

/// Appends the key of a document or entry as the keys of what lies in it begin with it.
pub(crate) fn write_owner(owner: &[u8], out: &mut Vec<u8>) {
    if !is_entry_key(owner) {
        write_byte(out, ENTRY_MARK);
    }
    out.extend_from_slice(owner);
}

/// Appends to what [`write_owner`] wrote what makes it the prefix of the keys of a collection's
/// entries.
pub(crate) fn extend_to_entries(key: &mut Vec<u8>, collection: CellId) {
    write_byte(key, ENTRY_MARK);
    key.extend_from_slice(&collection.0.to_be_bytes()[1..]);
}

/// What all keys of entries in a document or entry begin with.
pub(crate) fn entries_prefix(key: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    write_owner(key, &mut prefix);
    write_byte(&mut prefix, ENTRY_MARK);
    prefix
}

/// The key of an entry of a collection, whose element is an encoded value.
pub fn entry_key(key: &[u8], collection: CellId, element: &[u8]) -> Vec<u8> {
    let mut entry = Vec::new();
    write_owner(key, &mut entry);
    extend_to_entries(&mut entry, collection);
    entry.extend_from_slice(element);
    entry
}

/// The parts of an entry's key: the key of what its collection is in, the collection, the element.
/// `None` for the key of a document.
#[cfg(not(target_arch = "wasm32"))]
pub fn split_entry_key(key: &[u8]) -> Option<(&[u8], CellId, &[u8])> {
    if !is_entry_key(key) {
        return None;
    }
    let mut parent = 1 + key[1..].iter().position(|byte| *byte == ENTRY_MARK)?;
    let document = parent;
    loop {
        let mut reader = Reader::new(&key[parent..]);
        let mark = reader.array_or_zero::<4>();
        let element = step_over_value(&mut reader);
        if reader.has_failed() {
            return None;
        }
        if reader.is_empty() {
            let collection = CellId(u32::from_be_bytes(mark) & 0xff_ffff);
            // A document goes by its key alone, an entry by its whole one.
            let owner = if parent == document { &key[1..parent] } else { &key[..parent] };
            return Some((owner, collection, element));
        }
        parent = key.len() - reader.rest().len();
    }
}

/// The parts of the key of an entry in a document: see `split_entry_key`, which knows entries in
/// entries as well. No module writes any.
#[cfg(target_arch = "wasm32")]
pub(crate) fn split_entry_key(key: &[u8]) -> Option<(&[u8], CellId, &[u8])> {
    if !is_entry_key(key) {
        return None;
    }
    let end = 1 + key[1..].iter().position(|byte| *byte == ENTRY_MARK)?;
    let mut reader = Reader::new(&key[end..]);
    let collection = CellId(u32::from_be_bytes(reader.array_or_zero()) & 0xff_ffff);
    Some((&key[1..end], collection, reader.rest()))
}

/// Whether a key is that of an entry, not of a document.
pub(crate) fn is_entry_key(key: &[u8]) -> bool {
    cfg!(feature = "collections") && key.first() == Some(&ENTRY_MARK)
}

/// One field's state in one life of a document.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// Which field, under which strategy.
    pub id: CellId,
    /// Who wrote it; without meaning for cells that name their writers themselves.
    pub stamp: EncodedStamp<'a>,
    /// The value of a register, or the writers and what they wrote.
    pub state: &'a [u8],
}

/// A row that is read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The document's key.
    pub key: &'a [u8],
    /// Odd is alive, even is deleted.
    pub life: u64,
    /// Who created or deleted the document; without meaning for the element of a set.
    pub stamp: EncodedStamp<'a>,
    pub(crate) cells: &'a [u8],
}

impl<'a> Row<'a> {
    /// Reads a row's head. No bytes are the row of a document that nobody has created.
    ///
    /// # Panics
    /// Never for bytes that [`RowWriter`] wrote. Chunks from disk are checked on loading.
    pub fn parse(bytes: &'a [u8]) -> Row<'a> {
        let mut reader = Reader::new(bytes);
        let row = Row::read(&mut reader);
        if !bytes.is_empty() {
            undamaged(&reader);
        }
        row
    }

    /// Reads the head of a row that may not be there. Such a row has no bytes, which read as zeros; in
    /// a module nothing is saved by looking before.
    pub(crate) fn parse_stored(bytes: &'a [u8]) -> Row<'a> {
        let is_looked_at = cfg!(not(target_arch = "wasm32"));
        if is_looked_at && bytes.is_empty() { Row::none() } else { Row::parse(bytes) }
    }

    pub(crate) fn try_parse(bytes: &'a [u8]) -> Result<Row<'a>, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let row = Row::read(&mut reader);
        if row.life != 0 {
            row.stamp.check(&mut reader);
        }
        reader.checked(row)
    }

    fn read(reader: &mut Reader<'a>) -> Row<'a> {
        let key = reader.bytes_or_empty();
        let life = reader.varint_or_zero();
        let stamp = if life == 0 { EncodedStamp(&[]) } else { EncodedStamp::read(reader) };
        Row { key, life, stamp, cells: reader.rest() }
    }

    /// The row of a document that nobody has created: its life is zero.
    pub(crate) fn none() -> Row<'a> {
        Row { key: &[], life: 0, stamp: EncodedStamp(&[]), cells: &[] }
    }

    /// Whether the document exists.
    pub fn is_alive(&self) -> bool {
        self.life & 1 == 1
    }

    /// Whether some collection of the document or entry has been written to in this life.
    pub(crate) fn has_entries(&self) -> bool {
        let mut cells = self.cells_in(self.life);
        while cells.cell.id != CellId::END && !cells.cell.id.is_collection() {
            cells.advance();
        }
        cells.cell.id != CellId::END
    }

    /// Whether the row is of a set's element and the element is in the set.
    pub fn is_element(&self) -> bool {
        self.life == 0 && crate::dots::has_live(self.state(CellId::ELEMENT))
    }

    /// The cells, ascending by [`CellId`].
    pub fn cells(&self) -> Cells<'a> {
        Cells::new(self.cells, self.stamp)
    }

    /// The cells that the row has in this life, at the first one.
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    pub(crate) fn cells_in(&self, life: u64) -> Cells<'a> {
        let mut cells = self.cells();
        if self.life != life && !cfg!(vudo_mutation = "greater_life_keeps_cells") {
            cells.reader = Reader::new(&[]);
        }
        cells.advance();
        cells
    }

    /// The cell of a field under a strategy, if somebody has written it in this life.
    pub fn cell(&self, id: CellId) -> Option<Cell<'a>> {
        let mut cells = self.cells_in(self.life);
        while cells.cell.id < id {
            cells.advance();
        }
        (cells.cell.id == id).then_some(cells.cell)
    }

    /// The state of a cell; empty, which no state is, where nobody has written it in this life.
    pub fn state(&self, id: CellId) -> &'a [u8] {
        self.cell(id).map_or(&[], |cell| cell.state)
    }

    /// The value of a register that this version can read.
    pub fn register(&self, id: CellId) -> Option<Value> {
        Value::decode(self.state(id))
    }
}

/// The key at the front of a row, without reading the rest.
#[inline]
pub(crate) fn key_of(row: &[u8]) -> &[u8] {
    let mut reader = Reader::new(row);
    let key = reader.bytes_or_empty();
    undamaged(&reader);
    key
}

/// Rows are written by this crate and checked when they come from disk.
#[inline]
fn undamaged(reader: &Reader<'_>) {
    assert!(!reader.has_failed(), "a row in memory is damaged");
}

/// The cells of a row, ascending.
#[derive(Clone, Debug)]
pub struct Cells<'a> {
    reader: Reader<'a>,
    /// The cell that was read last; its stamp is the running one.
    pub(crate) cell: Cell<'a>,
}

impl<'a> Cells<'a> {
    fn new(cells: &'a [u8], stamp: EncodedStamp<'a>) -> Cells<'a> {
        let cell = Cell { id: CellId::END, stamp, state: &[] };
        Cells { reader: Reader::new(cells), cell }
    }

    pub(crate) fn try_next(&mut self) -> Result<Option<Cell<'a>>, MalformedFrame> {
        let before = self.cell.stamp;
        self.read();
        if self.cell.stamp != before {
            self.cell.stamp.check(&mut self.reader);
        }
        self.reader.checked((self.cell.id != CellId::END).then_some(self.cell))
    }

    /// Goes on to the next cell, or after the last one to [`CellId::END`].
    #[inline]
    fn read(&mut self) {
        if self.reader.is_empty() {
            self.cell.id = CellId::END;
            return;
        }
        let header = self.reader.varint_up_to_or_zero(u32::MAX.into());
        if header & 1 == 1 {
            self.cell.stamp = EncodedStamp::read(&mut self.reader);
        }
        self.cell.id = CellId::from_header(header);
        self.cell.state = step_over_value(&mut self.reader);
    }

    /// As reading, of cells that are known to be undamaged.
    pub(crate) fn advance(&mut self) {
        self.read();
        undamaged(&self.reader);
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        self.advance();
        (self.cell.id != CellId::END).then_some(self.cell)
    }
}

/// Begins a row, up to its stamp.
pub(crate) fn write_row_head(out: &mut Vec<u8>, key: &[u8], life: u64) {
    write_bytes(out, key);
    write_varint(out, life);
}

/// Writes a row cell by cell, ascending, leaving out stamps that the cell before already carries.
pub(crate) struct RowWriter<'o, 'a> {
    out: &'o mut Vec<u8>,
    stamp: EncodedStamp<'a>,
}

impl<'o, 'a> RowWriter<'o, 'a> {
    /// Begins with key, life and stamp of a row.
    pub(crate) fn begin(out: &'o mut Vec<u8>, row: &Row<'a>) -> RowWriter<'o, 'a> {
        write_row_head(out, row.key, row.life);
        out.extend_from_slice(row.stamp.0);
        RowWriter { out, stamp: row.stamp }
    }

    /// Begins a cell without a stamp, whose state is to be appended.
    pub(crate) fn unstamped(&mut self, id: CellId) -> &mut Vec<u8> {
        write_varint(self.out, id.header(false));
        self.out
    }

    pub(crate) fn cell(&mut self, cell: &Cell<'a>) {
        let begins_stamp = cell.stamp != self.stamp && cell.id.has_stamp();
        write_varint(self.out, cell.id.header(begins_stamp));
        if begins_stamp {
            self.out.extend_from_slice(cell.stamp.0);
            self.stamp = cell.stamp;
        }
        self.out.extend_from_slice(cell.state);
    }
}
