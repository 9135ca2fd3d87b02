//! The write buffer of a WASM module, which is its whole table: rows sorted by key.
//!
//! A page holds some thousands of documents, so moving the rows behind a new one costs less than
//! the code of an index would. Stores with chunks have the buffer in `buffer.rs` in its place.

use alloc::vec::Vec;

use crate::row::key_of;
use crate::sorted::Sorted;

#[derive(Clone, Debug)]
pub(crate) struct WriteBuffer {
    /// Ascending by key.
    rows: Sorted,
}

impl WriteBuffer {
    pub(crate) fn new(_: u64) -> WriteBuffer {
        WriteBuffer { rows: Sorted::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.as_slice().is_empty()
    }

    /// There are no chunks to which the rows could go.
    pub(crate) fn is_full(&self) -> bool {
        false
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let place = self.position(key).ok()?;
        Some(&self.rows.as_slice()[place])
    }

    /// Puts a row in place of the one with its key.
    pub(crate) fn put(&mut self, row: &[u8]) {
        self.rows.put(self.position(key_of(row)), row);
    }

    /// The rows, ascending by key.
    pub(crate) fn sorted_rows(&self) -> Vec<&[u8]> {
        self.rows_from(&[]).collect()
    }

    /// The rows from a key on, ascending.
    pub(crate) fn rows_from<'b>(&'b self, key: &[u8]) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let (Ok(first) | Err(first)) = self.position(key);
        self.rows.as_slice()[first..].iter().map(Vec::as_slice)
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    #[inline(never)]
    fn position(&self, key: &[u8]) -> Result<usize, usize> {
        self.rows.search(|row| key_of(row).cmp(key))
    }
}
