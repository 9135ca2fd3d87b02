//! The documents of one Gen: sorted chunks behind a write buffer.
//!
//! ```text
//! put --> write buffer --(full)--> chunk | chunk | chunk ...     ascending by key
//!                                    |
//!                                   disk, by way of ChunkSource
//! ```
//!
//! A chunk is immutable: rewriting replaces it. The row in the buffer, where there is one, is the
//! whole state of its document; the row in the chunk is then out of date. Documents never leave a
//! table, but entries of collections do: a row of a key and nothing else says in the buffer that the
//! one in the chunk is gone.
//!
//! What is persisted is the chunks that are new, their directory, and either nothing else or the
//! rows of the buffer: rows that lie far apart would cost a chunk each, again and again where it is
//! always the same ones that are written to.
//!
//! Chunks load when they are touched, and leave again when their owner asks for memory: the hand of
//! a clock goes round the chunks and drops those that nobody has used since it last came by.
//!
//! A module in a browser has the table in `table_in_memory.rs` in its place.
//!
//! Invariant: a chunk that is not stored is in memory.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::buffer::WriteBuffer;
use crate::cache::Cache;
use crate::chunk::{Chunk, is_there};
use crate::row::key_of;
use crate::source::{ChunkError, ChunkId, ChunkSource};
use crate::wire::{MalformedFrame, Reader, write_bytes, write_varint};

/// Rewriting aims at chunks of this size: some dozens of rows of a few small fields. Smaller ones
/// cost more memory for the directory, larger ones more time and room for each document that is
/// needed alone.
const CHUNK_BYTES: usize = 4 << 10;

/// Neighbours that take up no more than this together, with a byte for the length of each row, become
/// one when one of them is rewritten: rows shrink where documents are deleted. With its key, a chunk of
/// this size fits into a page of 4 KiB on disk.
const JOINED_BYTES_MAX: usize = CHUNK_BYTES - 64;

/// Rows move to their chunks when these are persisted, if no more bytes of chunks are rewritten for
/// each byte of rows. Otherwise the rows are stored beside the chunks.
const REWRITTEN_PER_ROW_BYTE_MAX: usize = 2;

/// A chunk's entry in the directory of a table.
#[derive(Clone, Debug)]
struct Slot {
    /// The key of the first row; a chunk covers everything up to the next chunk's first key.
    first_key: Box<[u8]>,
    row_count: u32,
    /// Whether it has been used since the hand of the clock last passed.
    is_recent: bool,
    /// Where it is stored. `None` until it has been persisted.
    id: Option<ChunkId>,
    /// `None` while it is not in memory. Never `None` where `id` is.
    chunk: Option<Chunk>,
    /// The sum of its rows' hashes. `None` until it is asked for.
    sum: Option<HashSum>,
}

impl Slot {
    fn of_rows(rows: &[&[u8]]) -> Slot {
        Slot {
            first_key: Box::from(key_of(rows[0])),
            row_count: rows.len() as u32,
            is_recent: true,
            id: None,
            chunk: Some(Chunk::of_rows(rows)),
            sum: None,
        }
    }

    fn byte_count(&self) -> usize {
        self.chunk.as_ref().map_or(0, Chunk::byte_count)
    }

    /// Reads the chunk from where it is stored.
    fn read<S: ChunkSource>(&self, source: &mut S) -> Result<Chunk, ChunkError<S::Error>> {
        // A slot that is not stored keeps its chunk.
        let id = self.id.unwrap_or_default();
        let stored = source.load(id).map_err(ChunkError::Source)?;
        let damaged = |what| ChunkError::Damaged { id, what };
        let chunk = Chunk::decode(&stored).map_err(damaged)?;
        let first_key = chunk.rows().next().map(key_of);
        if first_key != Some(&self.first_key) || chunk.row_count() != self.row_count as usize {
            return Err(damaged(MalformedFrame::PayloadDoesNotFit));
        }
        Ok(chunk)
    }
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

/// The documents of one Gen in one namespace, or the entries of all of their collections.
#[derive(Clone, Debug)]
pub struct Table {
    /// Ascending by first key.
    slots: Vec<Slot>,
    buffer: WriteBuffer,
    /// Chunks on disk that rewriting has replaced since they were last taken.
    replaced: Vec<ChunkId>,
    /// Whether some slot may not be loaded.
    has_absent: bool,
    cache: Cache,
    /// Whether the directory, and the rows of the buffer, are other than when they were persisted.
    is_directory_new: bool,
    is_buffer_new: bool,
}

/// The stored form of a table, apart from its chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredTable {
    /// Which chunks there are; empty where there are none.
    pub directory: Vec<u8>,
    /// Rows that have not moved to chunks; empty where there are none.
    pub buffer: Vec<u8>,
}

/// What persisting a table came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// Chunks that are not needed any more once the rest is stored.
    pub replaced: Vec<ChunkId>,
    /// The new directory, if it has changed.
    pub directory: Option<Vec<u8>>,
    /// The new rows of the buffer, if they have changed.
    pub buffer: Option<Vec<u8>>,
}

impl Table {
    /// An empty table. The seed makes the places of keys in the write buffer unpredictable.
    pub(crate) fn new(seed: u64) -> Table {
        Table {
            slots: Vec::new(),
            buffer: WriteBuffer::new(seed),
            replaced: Vec::new(),
            has_absent: false,
            cache: Cache::default(),
            is_directory_new: false,
            is_buffer_new: false,
        }
    }

    /// The row of a key whose chunk is loaded, or that has none.
    pub(crate) fn loaded_row(&self, key: &[u8]) -> Option<&[u8]> {
        if self.is_loaded() {
            return match self.buffer.get(key) {
                Some(row) => is_there(row).then_some(row),
                None => self.row_in_chunk(key),
            };
        }
        let hash = self.buffer.hash(key);
        if let Some(row) = self.buffer.get_hashed(key, hash) {
            return is_there(row).then_some(row);
        }
        let remembered = self.remembered_row(key, hash).map(|(_, row)| row);
        remembered.or_else(|| self.row_in_chunk(key))
    }

    fn row_in_chunk(&self, key: &[u8]) -> Option<&[u8]> {
        self.slots[self.slot_of(key)?].chunk.as_ref()?.get(key)
    }

    /// The row that the cache remembers the place of, and its slot.
    fn remembered_row(&self, key: &[u8], hash: u32) -> Option<(usize, &[u8])> {
        let (slot, place) = self.cache.place(hash)?;
        let row = self.slots.get(slot as usize)?.chunk.as_ref()?.get_at(place as usize, key)?;
        Some((slot as usize, row))
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
        if self.buffer.is_full() {
            self.flush(source)?;
        }
        let hash = self.buffer.hash(key);
        if self.buffer.get_hashed(key, hash).is_some() {
            return Ok(());
        }
        if let Some((slot, _)) = self.remembered_row(key, hash) {
            self.slots[slot].is_recent = true;
        } else if let Some(index) = self.slot_of(key) {
            load_slot(&mut self.slots, &mut self.cache, index, source)?;
            let chunk = self.slots[index].chunk.as_ref();
            if let Some(Ok(place)) = chunk.map(|chunk| chunk.place(key)) {
                self.cache.note_place(hash, (index as u32, place as u32), self.slots.len());
            }
        }
        Ok(())
    }

    /// Whether every chunk is known to be in memory.
    pub(crate) fn is_loaded(&self) -> bool {
        !self.has_absent
    }

    /// Puts a row in place of the one with its key, whose chunk must be loaded.
    pub(crate) fn put(&mut self, row: &[u8]) {
        self.buffer.put(row);
        self.is_buffer_new = true;
        // With chunks to load for it, the rows move before the next change loads what it needs.
        if !self.has_absent && self.buffer.is_full() {
            self.move_to_chunks();
        }
    }

    /// Whether there is no row, and none has been taken away that is still on its way to a chunk.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.buffer.is_empty()
    }

    /// Loads the chunks of the keys that begin with these bytes, those that there are and those that
    /// there may be.
    pub(crate) fn load_prefix<S: ChunkSource>(
        &mut self,
        prefix: &[u8],
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        if self.is_loaded() {
            return Ok(());
        }
        let Some(mut index) = self.slot_of(prefix) else { return Ok(()) };
        // The first one in any case: it is where new rows would go, also if they come before it.
        load_slot(&mut self.slots, &mut self.cache, index, source)?;
        while index + 1 < self.slots.len() && may_have(&self.slots[index + 1], prefix) {
            index += 1;
            load_slot(&mut self.slots, &mut self.cache, index, source)?;
        }
        Ok(())
    }

    /// The loaded rows whose keys begin with these bytes, ascending.
    pub(crate) fn loaded_rows_with<'t>(
        &'t self,
        prefix: &'t [u8],
    ) -> impl Iterator<Item = &'t [u8]> + use<'t> {
        let slots = self.slots[self.slot_of(prefix).unwrap_or(0)..].iter();
        let slots = slots.take_while(move |slot| may_have(slot, prefix));
        let stored = slots.filter_map(|slot| slot.chunk.as_ref()).flat_map(move |chunk| {
            let rows = chunk.rows_from(prefix);
            rows.take_while(move |row| key_of(row).starts_with(prefix))
        });
        merge(stored, self.buffer.sorted_rows_with(prefix).into_iter())
    }

    /// Takes away the rows whose keys begin with these bytes, and whose chunks must be loaded.
    pub(crate) fn remove_loaded(&mut self, prefix: &[u8]) {
        let rows = self.loaded_rows_with(prefix);
        let keys: Vec<Vec<u8>> = rows.map(|row| Vec::from(key_of(row))).collect();
        keys.iter().for_each(|key| self.remove(key));
    }

    /// Takes away the row of a key, whose chunk must be loaded.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        let mut gone = Vec::new();
        write_bytes(&mut gone, key);
        self.put(&gone);
    }

    /// How many rows there are from one key up to another, and the sum of their hashes. Chunks that
    /// lie wholly between the keys are hashed once and read only where their sum was never stored.
    pub(crate) fn sum_hashes<S: ChunkSource>(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        source: &mut S,
        mut hash: impl FnMut(&[u8]) -> HashSum,
    ) -> Result<(u64, HashSum), ChunkError<S::Error>> {
        self.flush(source)?;
        let (mut row_count, mut total) = (0, HashSum::default());
        for index in self.slots_between(from, to) {
            let is_whole = self.is_slot_between(index, from, to);
            let slot = &mut self.slots[index];
            if let (true, Some(sum)) = (is_whole, slot.sum) {
                row_count += u64::from(slot.row_count);
                total.add(sum);
                continue;
            }
            let absent = if slot.chunk.is_none() { Some(slot.read(source)?) } else { None };
            let rows = slot.chunk.iter().chain(&absent).flat_map(|chunk| chunk.rows_from(from));
            let mut sum = HashSum::default();
            for row in rows.take_while(|row| to.is_none_or(|to| key_of(row) < to)) {
                sum.add(hash(row));
                row_count += 1;
            }
            total.add(sum);
            if is_whole {
                slot.sum = Some(sum);
                self.is_directory_new = true;
            }
        }
        Ok((row_count, total))
    }

    /// The places of the chunks that may have rows from one key up to another.
    fn slots_between(&self, from: &[u8], to: Option<&[u8]>) -> core::ops::Range<usize> {
        let first = self.slot_of(from).unwrap_or(0);
        let is_before_end = |slot: &Slot| to.is_none_or(|to| &*slot.first_key < to);
        first..self.slots.partition_point(is_before_end).max(first)
    }

    /// Whether all keys of a chunk lie between the two, as far as the directory tells.
    fn is_slot_between(&self, index: usize, from: &[u8], to: Option<&[u8]>) -> bool {
        let next = self.slots.get(index + 1);
        let ends_before = to.is_none_or(|to| next.is_some_and(|next| &*next.first_key <= to));
        *from <= *self.slots[index].first_key && ends_before
    }

    /// Visits keys between two others at which the rows could be divided into parts of `aim` rows,
    /// ascending, each with the number of rows since the one before: first keys of chunks where these
    /// have fewer rows than that, else all keys. The buffer must be empty.
    pub(crate) fn visit_marks<S: ChunkSource>(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        aim: u64,
        source: &mut S,
        mut visit: impl FnMut(&[u8], u64),
    ) -> Result<(), ChunkError<S::Error>> {
        let slots = self.slots_between(from, to);
        let mut rows_before = 0;
        if slots.clone().all(|index| u64::from(self.slots[index].row_count) <= aim) {
            for index in slots {
                visit(&self.slots[index].first_key, rows_before);
                rows_before = self.slots[index].row_count.into();
            }
            return Ok(());
        }
        self.visit_rows(from, source, |row| {
            let is_between = to.is_none_or(|to| key_of(row) < to);
            if is_between {
                visit(key_of(row), rows_before);
                rows_before = 1;
            }
            is_between
        })
    }

    /// Moves the write buffer's rows to their chunks.
    pub(crate) fn flush<S: ChunkSource>(
        &mut self,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        self.flush_if(source, |_| true)
    }

    /// The same if it is worth it to rewrite so many chunks.
    fn flush_if<S: ChunkSource>(
        &mut self,
        source: &mut S,
        is_worth: impl FnOnce(usize) -> bool,
    ) -> Result<(), ChunkError<S::Error>> {
        let rows = self.buffer.sorted_rows();
        let covering = covering_slots(&self.slots, &rows);
        if rows.is_empty() || !is_worth(covering.len()) {
            return Ok(());
        }
        for index in covering {
            load_slot(&mut self.slots, &mut self.cache, index, source)?;
        }
        move_rows(&rows, &mut self.slots, &mut self.replaced);
        self.note_moved();
        Ok(())
    }

    /// Moves the write buffer's rows to their chunks, all of which are in memory.
    fn move_to_chunks(&mut self) {
        move_rows(&self.buffer.sorted_rows(), &mut self.slots, &mut self.replaced);
        self.note_moved();
    }

    /// Empties the write buffer, whose rows are in chunks now.
    fn note_moved(&mut self) {
        (self.is_directory_new, self.is_buffer_new) = (true, true);
        self.buffer.clear();
        let loaded = self.slots.iter().enumerate().filter(|(_, slot)| slot.chunk.is_some());
        self.cache.reset(loaded.map(|(index, slot)| (index, slot.byte_count())));
    }

    fn slot_of(&self, key: &[u8]) -> Option<usize> {
        slot_of(&self.slots, key)
    }

    /// Visits the rows from a key on, ascending, until the visitor says `false`. Chunks that are
    /// not in memory are read one by one and do not stay, so a scan displaces nothing.
    pub(crate) fn visit_rows<S: ChunkSource>(
        &self,
        from: &[u8],
        source: &mut S,
        mut visit: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), ChunkError<S::Error>> {
        let buffered = self.buffer.sorted_rows_from(from);
        let mut rest = buffered.as_slice();
        let first = self.slot_of(from).unwrap_or(0);
        for index in first..self.slots.len() {
            let slot = &self.slots[index];
            let new_rows = take_covered(&mut rest, self.slots.get(index + 1));
            let absent;
            let chunk = match &slot.chunk {
                Some(chunk) => chunk,
                None => {
                    absent = slot.read(source)?;
                    &absent
                }
            };
            if !merge(chunk.rows_from(from), new_rows.iter().copied()).all(&mut visit) {
                return Ok(());
            }
        }
        // They are left where there is no chunk at all.
        rest.iter().copied().filter(|row| is_there(row)).all(visit);
        Ok(())
    }

    /// Reads every chunk that is stored and calls back with its first key, and with how many rows
    /// there are in its range or what is wrong with it.
    pub(crate) fn visit_chunks<S: ChunkSource>(
        &self,
        source: &mut S,
        mut visit: impl FnMut(&[u8], Result<usize, ChunkError<S::Error>>),
    ) {
        let buffered = self.buffer.sorted_rows();
        let mut rest = buffered.as_slice();
        for (index, slot) in self.slots.iter().enumerate() {
            let new_rows = take_covered(&mut rest, self.slots.get(index + 1));
            let count = |chunk: Chunk| merge(chunk.rows(), new_rows.iter().copied()).count();
            if slot.id.is_some() {
                visit(&slot.first_key, slot.read(source).map(count));
            }
        }
        // They are left where there is no chunk at all.
        if let Some(first) = rest.first() {
            visit(key_of(first), Ok(rest.iter().filter(|row| is_there(row)).count()));
        }
    }

    /// The loaded rows, ascending by key.
    pub(crate) fn loaded_rows(&self) -> impl Iterator<Item = &[u8]> {
        let chunks = self.slots.iter().filter_map(|slot| slot.chunk.as_ref());
        merge(chunks.flat_map(Chunk::rows), self.buffer.sorted_rows().into_iter())
    }

    /// What the chunks in memory take up.
    pub(crate) fn loaded_bytes(&self) -> usize {
        self.cache.loaded_bytes
    }

    /// Drops stored chunks from memory, in one round of the clock's hand at most, until so many
    /// bytes have become free. Chunks that were used since the hand last passed stay. Gives how many
    /// bytes have become free.
    pub(crate) fn evict(&mut self, wanted_bytes: usize) -> usize {
        let mut freed_bytes = 0;
        if wanted_bytes == 0 {
            return freed_bytes;
        }
        for _ in 0..self.cache.resident_count() {
            if freed_bytes >= wanted_bytes {
                break;
            }
            let Some(index) = self.cache.take_next() else { break };
            let slot = &mut self.slots[index];
            let is_used = core::mem::take(&mut slot.is_recent);
            if is_used || slot.id.is_none() {
                self.cache.keep(index);
            } else {
                freed_bytes += slot.byte_count();
                slot.chunk = None;
            }
        }
        self.has_absent |= freed_bytes > 0;
        self.cache.loaded_bytes -= freed_bytes;
        freed_bytes
    }

    /// Writes every chunk that is not stored yet: `store` is called with its new id, its bytes, and
    /// whether most of its documents are deleted. From now on the source must have them, whether they have reached the disk or not; and what
    /// this gives counts as stored.
    ///
    /// # Errors
    /// A chunk could not be read that rows of the buffer move to. Nothing has been stored then.
    pub fn persist<S: ChunkSource>(
        &mut self,
        next_id: &mut ChunkId,
        source: &mut S,
        mut store: impl FnMut(ChunkId, Vec<u8>, bool),
    ) -> Result<Persisted, ChunkError<S::Error>> {
        // Whatever writes less: the chunks with the rows, or the rows alone.
        let rewritten_bytes_max = REWRITTEN_PER_ROW_BYTE_MAX * self.buffer.row_bytes();
        self.flush_if(source, |chunk_count| chunk_count * CHUNK_BYTES <= rewritten_bytes_max)?;
        for slot in &mut self.slots {
            if let (None, Some(chunk)) = (slot.id, &slot.chunk) {
                store(*next_id, chunk.encode(), chunk.is_mostly_deleted());
                slot.id = Some(*next_id);
                *next_id += 1;
            }
        }
        let is_directory_new = core::mem::take(&mut self.is_directory_new);
        let is_buffer_new = core::mem::take(&mut self.is_buffer_new);
        Ok(Persisted {
            replaced: core::mem::take(&mut self.replaced),
            directory: is_directory_new.then(|| self.encode_directory()),
            buffer: is_buffer_new.then(|| {
                let rows = self.buffer.sorted_rows();
                if rows.is_empty() { Vec::new() } else { Chunk::of_rows(&rows).encode() }
            }),
        })
    }

    /// The chunks that are stored.
    pub(crate) fn stored_chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.slots.iter().filter_map(|slot| slot.id)
    }

    /// The directory's bytes: what [`Table::open`] needs. Every chunk must be persisted.
    fn encode_directory(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.slots.len() as u64);
        for slot in &self.slots {
            write_bytes(&mut out, &slot.first_key);
            write_varint(&mut out, slot.row_count.into());
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
    /// Says what is wrong with the stored bytes.
    pub(crate) fn open(stored: &StoredTable, seed: u64) -> Result<Table, MalformedFrame> {
        let mut table = Table::new(seed);
        if !stored.buffer.is_empty() {
            let buffered = Chunk::decode_buffered(&stored.buffer)?;
            buffered.rows().for_each(|row| {
                table.buffer.put(row);
            });
        }
        let directory = stored.directory.as_slice();
        if directory.is_empty() {
            return Ok(table);
        }
        let mut reader = Reader::new(directory);
        let slot_count = reader.varint_up_to(directory.len() as u64)?;
        for _ in 0..slot_count {
            let first_key = Box::from(reader.bytes()?);
            let row_count = reader.varint_up_to(u32::MAX.into())? as u32;
            let id = Some(reader.varint()?);
            let sum = match reader.byte()? {
                0 => None,
                _ => Some(HashSum::of_hash(&reader.array()?)),
            };
            if table.slots.last().is_some_and(|last| last.first_key >= first_key) {
                return Err(MalformedFrame::NotSorted);
            }
            let slot = Slot { first_key, row_count, is_recent: false, id, chunk: None, sum };
            table.slots.push(slot);
        }
        table.has_absent = slot_count > 0;
        if reader.is_empty() { Ok(table) } else { Err(MalformedFrame::TrailingBytes) }
    }
}

fn load_slot<S: ChunkSource>(
    slots: &mut [Slot],
    cache: &mut Cache,
    index: usize,
    source: &mut S,
) -> Result<(), ChunkError<S::Error>> {
    let slot = &mut slots[index];
    if slot.chunk.is_none() {
        slot.chunk = Some(slot.read(source)?);
        cache.note_loaded(index, slot.byte_count());
    }
    slot.is_recent = true;
    Ok(())
}

/// The place of the chunk that covers a key.
fn slot_of(slots: &[Slot], key: &[u8]) -> Option<usize> {
    let after = slots.partition_point(|slot| &*slot.first_key <= key);
    // A key before the first chunk belongs to the first chunk.
    (!slots.is_empty()).then(|| after.saturating_sub(1))
}

/// The places of the chunks that cover these rows, ascending as the rows do.
fn covering_slots(slots: &[Slot], mut rows: &[&[u8]]) -> Vec<usize> {
    let mut covering = Vec::new();
    while let Some(index) = rows.first().and_then(|row| slot_of(slots, key_of(row))) {
        take_covered(&mut rows, slots.get(index + 1));
        covering.push(index);
    }
    covering
}

/// Moves rows, which ascend by key, to the chunks that cover them and are in memory. Notes the stored
/// ones that others take the place of.
fn move_rows(mut rows: &[&[u8]], slots: &mut Vec<Slot>, replaced: &mut Vec<ChunkId>) {
    let old = core::mem::take(slots);
    if old.is_empty() {
        let rows: Vec<&[u8]> = rows.iter().copied().filter(|row| is_there(row)).collect();
        push_chunks(&rows, slots);
    }
    let mut old = old.into_iter().peekable();
    while let Some(slot) = old.next() {
        let new_rows = take_covered(&mut rows, old.peek());
        if new_rows.is_empty() {
            // No chunk is written anew only to be joined with another that is not either.
            let is_after_new = slots.last().is_some_and(|last| last.id.is_none());
            let stored_bytes = slot.chunk.as_ref().map(Chunk::stored_bytes);
            if !(is_after_new && stored_bytes.is_some_and(|bytes| last_has_room(slots, bytes))) {
                slots.push(slot);
                continue;
            }
        }
        // Rewriting without it would drop its rows.
        assert!(slot.chunk.is_some(), "a chunk under a buffered row has left memory");
        replaced.extend(slot.id);
        let old_rows = slot.chunk.iter().flat_map(Chunk::rows);
        let mut merged: Vec<&[u8]> = merge(old_rows, new_rows.iter().copied()).collect();
        let stored_bytes = bytes_of(&merged) + merged.len();
        let has_room = last_has_room(slots, stored_bytes) && !merged.is_empty();
        let last = if has_room { slots.pop() } else { None };
        if let Some(Slot { id, chunk: Some(chunk), .. }) = &last {
            replaced.extend(*id);
            merged.splice(0..0, chunk.rows());
        }
        push_chunks(&merged, slots);
    }
}

/// Whether rows that take up so many bytes can be joined with those of the last chunk.
fn last_has_room(slots: &[Slot], stored_bytes: usize) -> bool {
    let last = slots.last().and_then(|last| last.chunk.as_ref());
    last.is_some_and(|last| last.stored_bytes() + stored_bytes <= JOINED_BYTES_MAX)
}

/// Takes the rows that belong to a chunk, by the chunk behind it, from the front of the others.
fn take_covered<'r, 's>(rest: &mut &'s [&'r [u8]], next: Option<&Slot>) -> &'s [&'r [u8]] {
    let count = match next {
        Some(next) => rest.partition_point(|row| key_of(row) < &*next.first_key),
        None => rest.len(),
    };
    let (covered, later) = rest.split_at(count);
    *rest = later;
    covered
}

/// Merges rows in the order of their keys. A new row takes the place of the old one of its key, and
/// leaves it empty where it says that the row is gone.
fn merge<'r>(
    old: impl Iterator<Item = &'r [u8]>,
    new: impl Iterator<Item = &'r [u8]>,
) -> impl Iterator<Item = &'r [u8]> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    let merged = core::iter::from_fn(move || {
        let (Some(left), Some(right)) = (old.peek(), new.peek()) else {
            return old.next().or_else(|| new.next());
        };
        match key_of(left).cmp(key_of(right)) {
            Ordering::Less => old.next(),
            Ordering::Greater => new.next(),
            Ordering::Equal => {
                old.next();
                new.next()
            }
        }
    });
    merged.filter(|row| is_there(row))
}

/// Whether a chunk, or one after it, may have keys that begin with the prefix.
fn may_have(slot: &Slot, prefix: &[u8]) -> bool {
    *slot.first_key < *prefix || slot.first_key.starts_with(prefix)
}

/// Adds chunks of about equal size with these rows.
fn push_chunks(rows: &[&[u8]], slots: &mut Vec<Slot>) {
    let byte_count = bytes_of(rows);
    let chunk_count = byte_count.div_ceil(CHUNK_BYTES * 3 / 2).max(1);
    let aim = byte_count.div_ceil(chunk_count);
    let mut rest = rows;
    while !rest.is_empty() {
        let mut taken_bytes = 0;
        let taken = rest.iter().take_while(|row| {
            let has_room = taken_bytes < aim;
            taken_bytes += row.len();
            has_room
        });
        let (rows, later) = rest.split_at(taken.count());
        rest = later;
        slots.push(Slot::of_rows(rows));
    }
}

fn bytes_of(rows: &[&[u8]]) -> usize {
    rows.iter().map(|row| row.len()).sum()
}
