//! The documents of one Gen: sorted chunks behind a write buffer.
//!
//! ```text
//! put --> write buffer --(full)--> chunk | chunk | chunk ...     ascending by key
//!                                    |
//!                                   disk, by way of ChunkSource
//! ```
//!
//! A chunk is immutable: rewriting replaces it. The row in the buffer, where there is one, is the
//! whole state of its document; the row in the chunk is then out of date.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::buffer::WriteBuffer;
use crate::row::{Row, key_of};
use crate::sorted::search;
use crate::wire::{MalformedFrame, Reader, write_bytes, write_varint};

/// A module in a browser keeps its tables in memory. They then are their write buffers alone, and
/// nothing of chunks is compiled into the module.
const HAS_CHUNKS: bool = cfg!(not(target_arch = "wasm32"));

/// Rewriting aims at chunks of this size: some hundreds of rows of a few small fields.
const CHUNK_BYTES: usize = 8 << 10;

/// The name of a chunk on disk, unique within a namespace and never reused.
pub type ChunkId = u64;

/// Where chunks are loaded from: the core does no I/O itself.
pub trait ChunkSource {
    /// Why a chunk could not be loaded.
    type Error;

    /// The bytes that were stored under this id.
    ///
    /// # Errors
    /// Whatever kept the bytes from being read. The operation that needed them has no effect.
    fn load(&mut self, id: ChunkId) -> Result<Vec<u8>, Self::Error>;
}

/// The source of a table that is wholly in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct InMemory;

impl ChunkSource for InMemory {
    type Error = core::convert::Infallible;

    fn load(&mut self, _: ChunkId) -> Result<Vec<u8>, Self::Error> {
        // Chunks get an id only when they are persisted, which a table in memory never is.
        unreachable!("a table in memory has no chunk elsewhere")
    }
}

/// Why a table could not give a row.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunkError<E> {
    /// The source failed.
    Source(E),
    /// The bytes of this chunk are not what was stored.
    Damaged {
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it.
        what: MalformedFrame,
    },
}

/// Rows in key order, one after the other.
#[derive(Clone, Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// Where each row begins.
    starts: Vec<u32>,
}

impl Chunk {
    fn row(&self, index: usize) -> &[u8] {
        let start = self.starts[index] as usize;
        let end = self.starts.get(index + 1).map_or(self.bytes.len(), |next| *next as usize);
        &self.bytes[start..end]
    }

    fn rows(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.starts.len()).map(|index| self.row(index))
    }

    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let place = search(self.starts.len(), |index| key_of(self.row(index)).cmp(key)).ok()?;
        Some(self.row(place))
    }

    /// The stored form: row count, the length of each row, then the rows.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + self.starts.len() * 2 + 4);
        write_varint(&mut out, self.starts.len() as u64);
        for row in self.rows() {
            write_varint(&mut out, row.len() as u64);
        }
        out.extend_from_slice(&self.bytes);
        out
    }

    /// Reads the stored form, checking every row: afterwards rows are read without checks.
    fn decode(stored: &[u8]) -> Result<Chunk, MalformedFrame> {
        let mut reader = Reader::new(stored);
        let row_count = reader.varint_up_to(stored.len() as u64)? as usize;
        let mut starts = Vec::with_capacity(row_count);
        let mut end = 0u64;
        for _ in 0..row_count {
            starts.push(u32::try_from(end).map_err(|_| MalformedFrame::TooLarge)?);
            end += reader.varint_up_to(stored.len() as u64)?;
        }
        let bytes = Vec::from(reader.rest());
        if bytes.len() as u64 != end {
            return Err(MalformedFrame::TrailingBytes);
        }
        let chunk = Chunk { bytes, starts };
        let mut last_key = None;
        for row in chunk.rows() {
            let row = Row::try_parse(row)?;
            let mut cells = row.cells();
            while cells.try_next()?.is_some() {}
            if last_key.is_some_and(|last| last >= row.key) {
                return Err(MalformedFrame::NotSorted);
            }
            last_key = Some(row.key);
        }
        Ok(chunk)
    }
}

/// A chunk's entry in the directory of a table.
#[derive(Clone, Debug)]
struct Slot {
    /// The key of the first row; a chunk covers everything up to the next chunk's first key.
    first_key: Box<[u8]>,
    row_count: usize,
    /// Where it is stored. `None` until it has been persisted.
    id: Option<ChunkId>,
    /// `None` until it is touched. Never `None` where `id` is.
    chunk: Option<Chunk>,
    /// The sum of its rows' hashes. `None` until it is asked for.
    sum: Option<HashSum>,
}

/// A sum of 256-bit hashes, which does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HashSum(pub(crate) [u64; 4]);

impl HashSum {
    /// Adds modulo 2^256.
    pub(crate) fn add(&mut self, other: HashSum) {
        let mut carry = false;
        for (word, added) in self.0.iter_mut().zip(other.0) {
            let (partial, first) = word.overflowing_add(added);
            let (whole, second) = partial.overflowing_add(carry.into());
            *word = whole;
            carry = first || second;
        }
    }

    pub(crate) fn of_hash(hash: &[u8; 32]) -> HashSum {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(hash.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        HashSum(words)
    }
}

/// The documents of one Gen in one namespace.
#[derive(Clone, Debug)]
pub struct Table {
    /// Ascending by first key.
    slots: Vec<Slot>,
    buffer: WriteBuffer,
    /// Chunks on disk that rewriting has replaced since they were last taken.
    replaced: Vec<ChunkId>,
    /// Whether some slot is not loaded.
    has_absent: bool,
}

impl Table {
    /// An empty table. The seed makes the places of keys in the write buffer unpredictable.
    pub(crate) fn new(seed: u64) -> Table {
        Table {
            slots: Vec::new(),
            buffer: WriteBuffer::new(seed),
            replaced: Vec::new(),
            has_absent: false,
        }
    }

    /// The row of a key whose chunk is loaded, or that has none.
    pub(crate) fn loaded_row(&self, key: &[u8]) -> Option<&[u8]> {
        if let Some(row) = self.buffer.get(key) {
            return Some(row);
        }
        if !HAS_CHUNKS {
            return None;
        }
        let slot = self.slot_of(key)?;
        self.slots[slot].chunk.as_ref()?.get(key)
    }

    /// Loads the chunk that covers a key, so that [`Table::loaded_row`] finds what there is.
    pub(crate) fn load<S: ChunkSource>(
        &mut self,
        key: &[u8],
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        if self.is_loaded() {
            return Ok(());
        }
        match self.slot_of(key) {
            Some(slot) => self.load_slot(slot, source),
            None => Ok(()),
        }
    }

    /// Whether every chunk is known to be in memory.
    pub(crate) fn is_loaded(&self) -> bool {
        !HAS_CHUNKS || !self.has_absent
    }

    /// Loads every chunk.
    pub(crate) fn load_all<S: ChunkSource>(
        &mut self,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        if !self.is_loaded() {
            for slot in 0..self.slots.len() {
                self.load_slot(slot, source)?;
            }
            self.has_absent = false;
        }
        Ok(())
    }

    fn load_slot<S: ChunkSource>(
        &mut self,
        slot: usize,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        let slot = &mut self.slots[slot];
        if let (None, Some(id)) = (&slot.chunk, slot.id) {
            let stored = source.load(id).map_err(ChunkError::Source)?;
            let damaged = |what| ChunkError::Damaged { id, what };
            let chunk = Chunk::decode(&stored).map_err(damaged)?;
            let first_key = chunk.rows().next().map(key_of);
            if first_key != Some(&slot.first_key) || chunk.starts.len() != slot.row_count {
                return Err(damaged(MalformedFrame::PayloadDoesNotFit));
            }
            slot.chunk = Some(chunk);
        }
        Ok(())
    }

    /// Puts a row in place of the one with its key, whose chunk must be loaded.
    pub(crate) fn put(&mut self, row: &[u8]) {
        self.buffer.put(row);
        if self.buffer.is_full() {
            self.flush();
        }
    }

    /// How many rows there are, and the sum of their hashes. Only chunks that have changed since the
    /// last time are hashed, and only those whose sum was never stored are loaded.
    pub(crate) fn sum_hashes<S: ChunkSource>(
        &mut self,
        source: &mut S,
        mut hash: impl FnMut(&[u8]) -> HashSum,
    ) -> Result<(u64, HashSum), ChunkError<S::Error>> {
        self.flush();
        let (mut row_count, mut total) = (0, HashSum::default());
        for index in 0..self.slots.len() {
            if self.slots[index].sum.is_none() {
                self.load_slot(index, source)?;
                let mut sum = HashSum::default();
                let rows = self.slots[index].chunk.iter().flat_map(Chunk::rows);
                rows.for_each(|row| sum.add(hash(row)));
                self.slots[index].sum = Some(sum);
            }
            let slot = &self.slots[index];
            row_count += slot.row_count as u64;
            total.add(slot.sum.unwrap_or_default());
        }
        Ok((row_count, total))
    }

    /// Moves the write buffer's rows to their chunks.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let rows = self.buffer.sorted_rows();
        let mut rest = rows.as_slice();
        let old = core::mem::take(&mut self.slots);
        if old.is_empty() {
            rewrite(None, rest, &mut self.slots);
        }
        let mut old = old.into_iter().peekable();
        while let Some(slot) = old.next() {
            let covered = match old.peek() {
                Some(next) => rest.partition_point(|row| key_of(row) < &*next.first_key),
                None => rest.len(),
            };
            let (new_rows, later) = rest.split_at(covered);
            rest = later;
            if new_rows.is_empty() {
                self.slots.push(slot);
            } else {
                self.replaced.extend(slot.id);
                rewrite(slot.chunk.as_ref(), new_rows, &mut self.slots);
            }
        }
        self.buffer.clear();
    }

    fn slot_of(&self, key: &[u8]) -> Option<usize> {
        let after = self.slots.partition_point(|slot| &*slot.first_key <= key);
        // A key before the first chunk belongs to the first chunk.
        (!self.slots.is_empty()).then(|| after.saturating_sub(1))
    }

    /// The loaded rows, ascending by key, from a key on.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn loaded_rows_from<'t>(
        &'t self,
        from: &[u8],
    ) -> impl Iterator<Item = &'t [u8]> + use<'t> {
        self.buffer.rows_from(from)
    }

    /// The loaded rows, ascending by key, from a key on.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn loaded_rows_from<'t>(
        &'t self,
        from: &[u8],
    ) -> impl Iterator<Item = &'t [u8]> + use<'t> {
        let mut buffered = self.buffer.sorted_rows();
        buffered.drain(..buffered.partition_point(|row| key_of(row) < from));
        let mut buffered = buffered.into_iter().peekable();
        let first_slot = self.slot_of(from).unwrap_or(0);
        let chunks = self.slots[first_slot..].iter().filter_map(|slot| slot.chunk.as_ref());
        let from = Vec::from(from);
        let in_range = move |row: &&[u8]| key_of(row) >= from.as_slice();
        let mut stored = chunks.flat_map(Chunk::rows).filter(in_range).peekable();
        core::iter::from_fn(move || {
            let (Some(left), Some(right)) = (buffered.peek(), stored.peek()) else {
                return buffered.next().or_else(|| stored.next());
            };
            match key_of(left).cmp(key_of(right)) {
                core::cmp::Ordering::Greater => stored.next(),
                core::cmp::Ordering::Less => buffered.next(),
                core::cmp::Ordering::Equal => {
                    stored.next();
                    buffered.next()
                }
            }
        })
    }

    /// Writes every chunk that is not stored yet: `store` is called with its new id and its bytes.
    /// Gives the ids that are not needed any more once the new directory is stored.
    pub fn persist(
        &mut self,
        next_id: &mut ChunkId,
        mut store: impl FnMut(ChunkId, Vec<u8>),
    ) -> Vec<ChunkId> {
        self.flush();
        for slot in &mut self.slots {
            if let (None, Some(chunk)) = (slot.id, &slot.chunk) {
                store(*next_id, chunk.encode());
                slot.id = Some(*next_id);
                *next_id += 1;
            }
        }
        core::mem::take(&mut self.replaced)
    }

    /// The directory's bytes: what [`Table::open`] needs. Everything must be persisted.
    pub fn encode_directory(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.slots.len() as u64);
        for slot in &self.slots {
            write_bytes(&mut out, &slot.first_key);
            write_varint(&mut out, slot.row_count as u64);
            write_varint(&mut out, slot.id.unwrap_or_default());
            out.push(slot.sum.is_some().into());
            if let Some(HashSum(words)) = slot.sum {
                words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
            }
        }
        out
    }

    /// A table whose chunks are loaded when they are touched.
    ///
    /// # Errors
    /// Says what is wrong with the directory's bytes.
    pub(crate) fn open(directory: &[u8], seed: u64) -> Result<Table, MalformedFrame> {
        let mut reader = Reader::new(directory);
        let slot_count = reader.varint_up_to(directory.len() as u64)?;
        let mut table = Table::new(seed);
        for _ in 0..slot_count {
            let first_key = Box::from(reader.bytes()?);
            let row_count = reader.varint_up_to(u32::MAX.into())? as usize;
            let id = Some(reader.varint()?);
            let sum = match reader.byte()? {
                0 => None,
                _ => Some(HashSum::of_hash(&reader.array()?)),
            };
            if table.slots.last().is_some_and(|last| last.first_key >= first_key) {
                return Err(MalformedFrame::NotSorted);
            }
            table.slots.push(Slot { first_key, row_count, id, chunk: None, sum });
        }
        table.has_absent = slot_count > 0;
        if reader.is_empty() { Ok(table) } else { Err(MalformedFrame::TrailingBytes) }
    }
}

/// Merges new rows over those of a chunk into chunks of about equal size.
fn rewrite(old: Option<&Chunk>, new_rows: &[&[u8]], slots: &mut Vec<Slot>) {
    let mut merged: Vec<&[u8]> = Vec::new();
    let mut new_rows = new_rows.iter().copied().peekable();
    for row in old.into_iter().flat_map(Chunk::rows) {
        while let Some(new) = new_rows.next_if(|new| key_of(new) < key_of(row)) {
            merged.push(new);
        }
        merged.push(new_rows.next_if(|new| key_of(new) == key_of(row)).unwrap_or(row));
    }
    merged.extend(new_rows);
    let byte_count: usize = merged.iter().map(|row| row.len()).sum();
    let chunk_count = byte_count.div_ceil(CHUNK_BYTES * 3 / 2).max(1);
    let aim = byte_count.div_ceil(chunk_count);
    let mut rest = merged.as_slice();
    while !rest.is_empty() {
        let mut taken_bytes = 0;
        let taken = rest.iter().take_while(|row| {
            let has_room = taken_bytes < aim;
            taken_bytes += row.len();
            has_room
        });
        let (rows, later) = rest.split_at(taken.count());
        rest = later;
        slots.push(slot_of_rows(rows));
    }
}

fn slot_of_rows(rows: &[&[u8]]) -> Slot {
    let mut starts = Vec::with_capacity(rows.len());
    let mut bytes = Vec::with_capacity(rows.iter().map(|row| row.len()).sum());
    for row in rows {
        starts.push(bytes.len() as u32);
        bytes.extend_from_slice(row);
    }
    Slot {
        first_key: Box::from(key_of(rows[0])),
        row_count: rows.len(),
        id: None,
        chunk: Some(Chunk { bytes, starts }),
        sum: None,
    }
}
