//! One page: rows of one Gen in key order, by columns.
//!
//! ```text
//! page     = "VP" | format version | gen (length, name) | part | replicas | row count
//!          | keys | lives | stamps | shapes | column of a cell* | checksum (8 bytes)
//! replicas = count | key (32 bytes)*                              ascending
//! stamps   = numbers: replica | numbers: number | numbers: milliseconds | numbers: counter
//! shapes   = count | (cell count, header*)* | numbers: the shape of each row
//! column of a cell, for each that some shape has, ascending
//!          = stamps | numbers: tag | numbers: varint | eights (length, bytes) | strings
//! ```
//!
//! The part is zero for documents and one for entries of their collections. Rows of life zero, which
//! elements of sets have, take no part in the stamps. A shape is the list of a row's cell headers as in [`crate::row`]. Replicas are named by key once
//! and by their place among those keys everywhere else, so a page is a pure function of its rows.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::dots;
use crate::frame::checksum;
use crate::hlc::Hlc;
use crate::limits::{
    MAX_ENTRY_KEY_BYTES, MAX_FIELD_NUMBER, MAX_FRAME_REPLICAS, MAX_GEN_NAME_BYTES, MAX_KEY_BYTES,
    MAX_LIFE, MAX_PAGE_BYTES, MAX_PAGE_ROWS, PAGE_ROWS_BYTES,
};
use crate::namespace::TablePart;
use crate::pages::columns::{NumberReader, Numbers, StringReader, Strings};
use crate::replica::{REPLICA_KEY_BYTES, ReplicaIndex, Replicas};
use crate::row::{CellId, Row, Stamp, split_entry_key, write_row_head};
use crate::value::{check_value, decode_counts};
use crate::wire::{MalformedFrame, Reader, is_utf8, write_bytes, write_varint};

const MAGIC: &[u8] = b"VP\x02";
const CHECKSUM_BYTES: usize = 8;
/// What a cell takes at least in a row: its header and its value's tag.
const CELL_BYTES_MIN: usize = 2;

/// The lower two bits of a value's tag: see [`crate::value`].
const WIRE_MASK: u8 = 3;
const WIRE_NOTHING: u8 = 0;
const WIRE_VARINT: u8 = 1;
const WIRE_EIGHT: u8 = 2;

#[derive(Default)]
struct StampColumn {
    replicas: Numbers,
    numbers: Numbers,
    milliseconds: Numbers,
    counters: Numbers,
}

impl StampColumn {
    fn push(&mut self, stamp: &Stamp, places: &BTreeMap<ReplicaIndex, ReplicaIndex>) {
        self.replicas.push(places[&stamp.replica].into());
        self.numbers.push(stamp.number);
        self.milliseconds.push(stamp.hlc.milliseconds());
        self.counters.push(stamp.hlc.counter().into());
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let StampColumn { replicas, numbers, milliseconds, counters } = self;
        for column in [replicas, numbers, milliseconds, counters] {
            column.encode(out);
        }
    }
}

/// The states of one cell in all rows that have it.
#[derive(Default)]
struct CellColumn {
    stamps: StampColumn,
    tags: Numbers,
    varints: Numbers,
    eights: Vec<u8>,
    strings: Strings,
}

impl CellColumn {
    fn push(&mut self, state: &[u8]) {
        let mut reader = Reader::new(state);
        let tag = reader.byte_or_zero();
        self.tags.push(tag.into());
        match tag & WIRE_MASK {
            WIRE_NOTHING => {}
            WIRE_VARINT => self.varints.push(reader.varint_or_zero()),
            WIRE_EIGHT => self.eights.extend_from_slice(reader.rest()),
            _ => self.strings.push(reader.bytes_or_empty()),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.stamps.encode(out);
        self.tags.encode(out);
        self.varints.encode(out);
        write_bytes(out, &self.eights);
        self.strings.encode(out);
    }
}

/// The page of these rows, which ascend by key and are of the Gen of this name.
pub(crate) fn encode_page(
    gen_name: &[u8],
    part: TablePart,
    rows: &[Vec<u8>],
    replicas: &Replicas,
) -> Vec<u8> {
    let places = place_replicas(rows, replicas);
    let mut out = Vec::from(MAGIC);
    write_bytes(&mut out, gen_name);
    out.push(part as u8);
    write_varint(&mut out, places.len() as u64);
    let mut by_place: Vec<(ReplicaIndex, ReplicaIndex)> =
        places.iter().map(|(index, place)| (*place, *index)).collect();
    by_place.sort_unstable();
    by_place.iter().for_each(|(_, index)| out.extend_from_slice(&replicas.key(*index).0));
    write_varint(&mut out, rows.len() as u64);

    let (mut keys, mut lives) = (Strings::default(), Numbers::default());
    let (mut stamps, mut row_shapes) = (StampColumn::default(), Numbers::default());
    let mut shapes: Vec<Vec<u64>> = Vec::new();
    let mut shape_places: BTreeMap<Vec<u64>, u64> = BTreeMap::new();
    let mut columns: BTreeMap<CellId, CellColumn> = BTreeMap::new();
    let mut state = Vec::new();
    for row in rows {
        let row = Row::parse(row);
        keys.push(row.key);
        lives.push(row.life);
        if row.life > 0 {
            stamps.push(&row.stamp.decode(), &places);
        }
        let mut shape = Vec::new();
        let mut running = row.stamp;
        for cell in row.cells() {
            let column = columns.entry(cell.id).or_default();
            let has_stamp = cell.id.has_stamp() && cell.stamp != running;
            shape.push(cell.id.header(has_stamp));
            if has_stamp {
                column.stamps.push(&cell.stamp.decode(), &places);
                running = cell.stamp;
            }
            if cell.id.has_dots() {
                state.clear();
                dots::write_renamed(cell.state, |replica| places[&replica], &mut state);
                column.push(&state);
            } else {
                column.push(cell.state);
            }
        }
        let next = shapes.len() as u64;
        let place = *shape_places.entry(shape.clone()).or_insert(next);
        if place == next {
            shapes.push(shape);
        }
        row_shapes.push(place);
    }
    keys.encode(&mut out);
    lives.encode(&mut out);
    stamps.encode(&mut out);
    write_varint(&mut out, shapes.len() as u64);
    for shape in &shapes {
        write_varint(&mut out, shape.len() as u64);
        shape.iter().for_each(|header| write_varint(&mut out, *header));
    }
    row_shapes.encode(&mut out);
    columns.values().for_each(|column| column.encode(&mut out));
    let sum = checksum(&out);
    out.extend_from_slice(&sum);
    out
}

/// The place of each replica that the rows name, among their keys.
fn place_replicas(rows: &[Vec<u8>], replicas: &Replicas) -> BTreeMap<ReplicaIndex, ReplicaIndex> {
    let mut places = BTreeMap::new();
    for row in rows {
        let row = Row::parse(row);
        if row.life > 0 {
            places.insert(row.stamp.decode().replica, 0);
        }
        for cell in row.cells() {
            if cell.id.has_dots() {
                dots::replicas(cell.state, |replica| {
                    places.insert(replica, 0);
                });
            } else if cell.id.has_stamp() {
                places.insert(cell.stamp.decode().replica, 0);
            }
        }
    }
    let mut order: Vec<ReplicaIndex> = places.keys().copied().collect();
    order.sort_unstable_by_key(|replica| replicas.key(*replica));
    for (place, replica) in order.into_iter().enumerate() {
        places.insert(replica, place as ReplicaIndex);
    }
    places
}

struct StampReader<'a> {
    replicas: NumberReader<'a>,
    numbers: NumberReader<'a>,
    milliseconds: NumberReader<'a>,
    counters: NumberReader<'a>,
}

impl<'a> StampReader<'a> {
    fn begin(reader: &mut Reader<'a>) -> StampReader<'a> {
        let [replicas, numbers, milliseconds, counters] =
            [(); 4].map(|()| NumberReader::begin(reader));
        StampReader { replicas, numbers, milliseconds, counters }
    }

    fn is_at_end(&self) -> bool {
        let StampReader { replicas, numbers, milliseconds, counters } = self;
        [replicas, numbers, milliseconds, counters].iter().all(|column| column.left() == 0)
    }

    /// The next stamp. `places` says which replica lies at which place of the page.
    fn next(&mut self, places: &[ReplicaIndex]) -> Result<Stamp, MalformedFrame> {
        let place = self.replicas.next()?;
        let replica = usize::try_from(place).ok().and_then(|place| places.get(place));
        let replica = *replica.ok_or(MalformedFrame::IndexOutOfRange)?;
        let number = self.numbers.next()?;
        let (milliseconds, counter) = (self.milliseconds.next()?, self.counters.next()?);
        if number == 0 {
            return Err(MalformedFrame::TooLarge);
        }
        let hlc = Hlc::of_parts(milliseconds, counter).ok_or(MalformedFrame::TimeOutOfRange)?;
        Ok(Stamp { hlc, replica, number })
    }
}

struct CellReader<'a> {
    stamps: StampReader<'a>,
    tags: NumberReader<'a>,
    varints: NumberReader<'a>,
    eights: Reader<'a>,
    strings: StringReader<'a>,
}

impl<'a> CellReader<'a> {
    fn begin(reader: &mut Reader<'a>) -> CellReader<'a> {
        CellReader {
            stamps: StampReader::begin(reader),
            tags: NumberReader::begin(reader),
            varints: NumberReader::begin(reader),
            eights: Reader::new(reader.bytes_or_empty()),
            strings: StringReader::begin(reader),
        }
    }

    fn is_at_end(&self) -> bool {
        let are_numbers_read = self.tags.left() == 0 && self.varints.left() == 0;
        are_numbers_read
            && self.stamps.is_at_end()
            && self.eights.is_empty()
            && self.strings.is_at_end()
    }

    /// Appends the next state.
    fn next(&mut self, bytes_left: &mut usize, out: &mut Vec<u8>) -> Result<(), MalformedFrame> {
        let tag = u8::try_from(self.tags.next()?).map_err(|_| MalformedFrame::TooLarge)?;
        out.push(tag);
        match tag & WIRE_MASK {
            WIRE_NOTHING => {}
            WIRE_VARINT => write_varint(out, self.varints.next()?),
            WIRE_EIGHT => out.extend_from_slice(&self.eights.array::<8>()?),
            _ => write_bytes(out, self.strings.next(bytes_left)?),
        }
        Ok(())
    }
}

/// A page whose head has been read.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    /// UTF-8.
    pub(crate) gen_name: &'a [u8],
    pub(crate) part: TablePart,
    /// The keys of the replicas that the rows name, ascending.
    pub(crate) replicas: Vec<&'a [u8]>,
    row_count: u64,
    columns: &'a [u8],
}

impl<'a> Page<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Page<'a>, MalformedFrame> {
        if bytes.len() > MAX_PAGE_BYTES {
            return Err(MalformedFrame::TooLarge);
        }
        let content_bytes = bytes.len().checked_sub(CHECKSUM_BYTES);
        let (content, sum) = bytes.split_at(content_bytes.ok_or(MalformedFrame::Truncated)?);
        let mut reader = Reader::new(content);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(MalformedFrame::FormatVersion);
        }
        reader.check(checksum(content) == sum, MalformedFrame::Checksum);
        let gen_name = reader.bytes_or_empty();
        let is_in_bounds = !gen_name.is_empty() && gen_name.len() <= MAX_GEN_NAME_BYTES;
        reader.check(is_in_bounds, MalformedFrame::TooLarge);
        reader.check(is_utf8(gen_name), MalformedFrame::StringNotUtf8);
        let part = match reader.varint_up_to(1)? {
            0 => TablePart::Documents,
            _ => TablePart::Entries,
        };
        let mut replicas: Vec<&[u8]> = Vec::new();
        for _ in 0..reader.varint_up_to(MAX_FRAME_REPLICAS as u64)? {
            let key = reader.take(REPLICA_KEY_BYTES)?;
            reader.check(replicas.last().is_none_or(|last| *last < key), MalformedFrame::NotSorted);
            replicas.push(key);
        }
        let row_count = reader.varint_up_to(MAX_PAGE_ROWS)?;
        reader.check(row_count != 0, MalformedFrame::PayloadDoesNotFit);
        reader.checked(Page { gen_name, part, replicas, row_count, columns: reader.rest() })
    }

    /// Shows each row, with the replicas of these indexes, after it has been checked.
    ///
    /// Rows are shown before what follows them is checked: whoever is not sure of the page looks
    /// at all of it before doing anything.
    pub(crate) fn visit_rows(
        &self,
        places: &[ReplicaIndex],
        mut visit: impl FnMut(&[u8]) -> Result<(), MalformedFrame>,
    ) -> Result<(), MalformedFrame> {
        let mut reader = Reader::new(self.columns);
        let mut keys = StringReader::begin(&mut reader);
        let mut lives = NumberReader::begin(&mut reader);
        let mut stamps = StampReader::begin(&mut reader);
        let shapes = read_shapes(&mut reader, self.row_count)?;
        let mut row_shapes = NumberReader::begin(&mut reader);
        let mut columns = BTreeMap::new();
        for header in shapes.iter().flatten() {
            columns.insert(CellId::from_header(*header), None);
        }
        for column in columns.values_mut() {
            *column = Some(CellReader::begin(&mut reader));
        }
        reader.check(reader.is_empty(), MalformedFrame::TrailingBytes);
        reader.checked(())?;

        // A row alone may be as large as a page.
        let mut bytes_left = if self.row_count == 1 { MAX_PAGE_BYTES } else { PAGE_ROWS_BYTES };
        let (mut row, mut state, mut last_key) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.row_count {
            let key = keys.next(&mut bytes_left)?;
            let is_key = !key.is_empty() && key.len() <= MAX_KEY_BYTES && is_utf8(key);
            let collection = match self.part {
                TablePart::Documents => None,
                TablePart::Entries => split_entry_key(key).map(|(_, collection, _)| collection),
            };
            // The elements that lead to an entry are values like any others.
            let mut rest = key;
            let mut elements = Reader::new(&[]);
            while let (TablePart::Entries, Some((owner, _, element))) =
                (self.part, split_entry_key(rest))
            {
                check_value(element, &mut elements);
                rest = owner;
            }
            let is_owner = !rest.is_empty() && rest.len() <= MAX_KEY_BYTES && is_utf8(rest);
            elements.check(is_owner, MalformedFrame::StringNotUtf8);
            elements.checked(())?;
            let is_entry =
                collection.is_some_and(CellId::is_collection) && key.len() <= MAX_ENTRY_KEY_BYTES;
            if !(is_entry || (is_key && self.part == TablePart::Documents))
                || last_key.as_slice() >= key
            {
                return Err(MalformedFrame::NotSorted);
            }
            last_key.clear();
            last_key.extend_from_slice(key);
            let life = lives.next()?;
            let is_element = collection.is_some_and(|collection| !collection.is_map());
            if (life == 0) != is_element || life > MAX_LIFE {
                return Err(MalformedFrame::LifeIsZero);
            }
            row.clear();
            write_row_head(&mut row, key, life);
            let mut running = None;
            if life > 0 {
                let stamp = stamps.next(places)?;
                stamp.encode(&mut row);
                running = Some(stamp);
            }
            let shape =
                usize::try_from(row_shapes.next()?).ok().and_then(|shape| shapes.get(shape));
            let shape = shape.ok_or(MalformedFrame::IndexOutOfRange)?;
            let fits = match is_element {
                true => matches!(shape[..], [header] if header == CellId::ELEMENT.header(false)),
                false => life & 1 == 1 || shape.is_empty(),
            };
            if !fits {
                return Err(MalformedFrame::PayloadDoesNotFit);
            }
            for header in shape {
                bytes_left =
                    bytes_left.checked_sub(CELL_BYTES_MIN).ok_or(MalformedFrame::TooLarge)?;
                write_varint(&mut row, *header);
                let id = CellId::from_header(*header);
                let column = columns.get_mut(&id).and_then(Option::as_mut);
                let column = column.ok_or(MalformedFrame::IndexOutOfRange)?;
                if header & 1 == 1 {
                    let stamp = column.stamps.next(places)?;
                    if running == Some(stamp) {
                        return Err(MalformedFrame::ValueNotCanonical);
                    }
                    running = Some(stamp);
                    stamp.encode(&mut row);
                }
                state.clear();
                column.next(&mut bytes_left, &mut state)?;
                write_checked_state(id, is_element, &state, places, &mut row)?;
            }
            visit(&row)?;
        }
        let are_cells_read = columns.values().flatten().all(CellReader::is_at_end);
        let are_rows_read = keys.is_at_end() && lives.left() == 0 && stamps.is_at_end();
        if are_cells_read && are_rows_read && row_shapes.left() == 0 {
            Ok(())
        } else {
            Err(MalformedFrame::TrailingBytes)
        }
    }
}

fn read_shapes(reader: &mut Reader<'_>, row_count: u64) -> Result<Vec<Vec<u64>>, MalformedFrame> {
    let mut shapes = Vec::new();
    for _ in 0..reader.varint_up_to(row_count)? {
        let mut shape = Vec::new();
        let mut last = CellId::from_bits(0);
        for _ in 0..reader.varint_up_to(reader.rest().len() as u64)? {
            let header = reader.varint_up_to(u64::from(MAX_FIELD_NUMBER) << 5 | 31)?;
            let id = CellId::from_header(header);
            let is_stamped = header & 1 == 1;
            reader.check(last < id, MalformedFrame::NotSorted);
            let fits = id.tag() != 0 && id.field_number() != 0 && (id.has_stamp() || !is_stamped);
            reader.check(fits, MalformedFrame::PayloadDoesNotFit);
            last = id;
            shape.push(header);
        }
        shapes.push(shape);
    }
    reader.checked(shapes)
}

/// Appends a state whose replicas are places of the page, after checking it.
fn write_checked_state(
    id: CellId,
    is_element: bool,
    state: &[u8],
    places: &[ReplicaIndex],
    out: &mut Vec<u8>,
) -> Result<(), MalformedFrame> {
    let mut reader = Reader::new(state);
    check_value(state, &mut reader);
    reader.checked(())?;
    if id.is_collection() && decode_counts(state) != Some(&[]) {
        return Err(MalformedFrame::PayloadDoesNotFit);
    }
    if !id.has_dots() {
        out.extend_from_slice(state);
        return Ok(());
    }
    if !dots::is_state(state, places.len(), id, is_element) {
        return Err(MalformedFrame::PayloadDoesNotFit);
    }
    dots::write_renamed(state, |place| places[place as usize], out);
    Ok(())
}
