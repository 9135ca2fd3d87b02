//! Chunks: what tables keep rows in.
//!
//! A chunk is immutable: rewriting replaces it. Its stored form is checked whole when it is loaded,
//! so that rows in memory are read without checks.

use alloc::vec::Vec;

use crate::row::{Row, key_of};
use crate::sorted::search;
use crate::wire::{MalformedFrame, Reader, write_varint};

/// Rows in key order, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    /// Where each row begins.
    starts: Vec<u32>,
}

impl Chunk {
    /// A chunk of these rows, which ascend by key.
    pub(crate) fn of_rows(rows: &[&[u8]]) -> Chunk {
        let mut starts = Vec::with_capacity(rows.len());
        let mut bytes = Vec::with_capacity(rows.iter().map(|row| row.len()).sum());
        for row in rows {
            starts.push(bytes.len() as u32);
            bytes.extend_from_slice(row);
        }
        Chunk { bytes, starts }
    }

    pub(crate) fn row_count(&self) -> usize {
        self.starts.len()
    }

    /// What the chunk takes up in memory.
    pub(crate) fn byte_count(&self) -> usize {
        self.bytes.len() + size_of::<u32>() * self.starts.len()
    }

    /// What its rows take up, with a byte for the length of each.
    pub(crate) fn stored_bytes(&self) -> usize {
        self.bytes.len() + self.starts.len()
    }

    fn row(&self, index: usize) -> &[u8] {
        let start = self.starts[index] as usize;
        let end = self.starts.get(index + 1).map_or(self.bytes.len(), |next| *next as usize);
        &self.bytes[start..end]
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.starts.len()).map(|index| self.row(index))
    }

    /// The rows from a key on.
    pub(crate) fn rows_from(&self, key: &[u8]) -> impl Iterator<Item = &[u8]> + use<'_> {
        let (Ok(first) | Err(first)) = self.place(key);
        (first..self.starts.len()).map(|index| self.row(index))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        Some(self.row(self.place(key).ok()?))
    }

    /// The row at a place, if it is that of the key.
    pub(crate) fn get_at(&self, place: usize, key: &[u8]) -> Option<&[u8]> {
        (place < self.starts.len()).then(|| self.row(place)).filter(|row| key_of(row) == key)
    }

    /// The place of a key, or else the place where it belongs.
    pub(crate) fn place(&self, key: &[u8]) -> Result<usize, usize> {
        search(self.starts.len(), |index| key_of(self.row(index)).cmp(key))
    }

    /// Whether more than half of its rows are those of deleted documents.
    pub(crate) fn is_mostly_deleted(&self) -> bool {
        let deleted = self.rows().map(Row::parse).filter(|row| row.life != 0 && !row.is_alive());
        deleted.count() > self.row_count() / 2
    }

    /// The stored form: row count, the length of each row, then the rows.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + self.starts.len() * 2 + 4);
        write_varint(&mut out, self.starts.len() as u64);
        for row in self.rows() {
            write_varint(&mut out, row.len() as u64);
        }
        out.extend_from_slice(&self.bytes);
        out
    }

    /// Reads the stored form, checking every row: afterwards rows are read without checks.
    pub(crate) fn decode(stored: &[u8]) -> Result<Chunk, MalformedFrame> {
        let chunk = Chunk::decode_buffered(stored)?;
        let are_there = chunk.rows().all(is_there);
        if are_there { Ok(chunk) } else { Err(MalformedFrame::PayloadDoesNotFit) }
    }

    /// The same of the rows of a write buffer, which may say that a row is gone.
    pub(crate) fn decode_buffered(stored: &[u8]) -> Result<Chunk, MalformedFrame> {
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
            let key = Reader::new(row).bytes()?;
            if is_there(row) {
                let mut cells = Row::try_parse(row)?.cells();
                while cells.try_next()?.is_some() {}
            }
            if last_key.is_some_and(|last| last >= key) {
                return Err(MalformedFrame::NotSorted);
            }
            last_key = Some(key);
        }
        Ok(chunk)
    }
}

/// Whether a row of a write buffer has more than a key: without, it says that the row is gone.
pub(crate) fn is_there(row: &[u8]) -> bool {
    let mut reader = Reader::new(row);
    reader.bytes_or_empty();
    !reader.is_empty()
}
