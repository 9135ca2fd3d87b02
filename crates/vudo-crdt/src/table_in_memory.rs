//! The documents of one Gen in a WASM module: rows sorted by key, all of them in memory.
//!
//! A page holds some thousands of documents, so moving the rows behind a new one costs less than
//! the code of an index would. Stores with chunks have the table in `table.rs` in its place.

use crate::row::key_of;
use crate::sorted::{Sorted, place_after};
use crate::source::{ChunkError, ChunkSource};

/// The documents of one Gen in one namespace, or the entries of all of their collections.
#[derive(Clone, Debug)]
pub struct Table {
    /// Ascending by key.
    rows: Sorted,
}

impl Table {
    /// An empty table. There are no places of keys to be guessed.
    pub(crate) fn new(_: u64) -> Table {
        Table { rows: Sorted::new() }
    }

    /// The row of a key.
    pub(crate) fn loaded_row(&self, key: &[u8]) -> Option<&[u8]> {
        Some(self.rows.at(self.position(key).ok()?))
    }

    /// There is nothing to load.
    pub(crate) fn load<S: ChunkSource>(
        &mut self,
        _: &[u8],
        _: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        Ok(())
    }

    pub(crate) fn is_loaded(&self) -> bool {
        true
    }

    /// Puts a row in place of the one with its key.
    pub(crate) fn put(&mut self, row: &[u8]) {
        self.rows.put(self.position(key_of(row)), row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// There is nothing to load.
    pub(crate) fn load_prefix<S: ChunkSource>(
        &mut self,
        _: &[u8],
        _: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        Ok(())
    }

    /// The rows whose keys begin with these bytes, ascending.
    pub(crate) fn loaded_rows_with<'t>(
        &'t self,
        prefix: &'t [u8],
    ) -> impl Iterator<Item = &'t [u8]> + use<'t> {
        let (Ok(first) | Err(first)) = self.position(prefix);
        let rows = self.rows.iter_from(first).map(|row| row.as_slice());
        rows.take_while(move |row| key_of(row).starts_with(prefix))
    }

    /// The least key of a row that is greater; nothing where there is none.
    pub(crate) fn key_after(&self, key: &[u8]) -> &[u8] {
        let place = place_after(self.position(key));
        if place < self.rows.len() { key_of(self.rows.at(place)) } else { &[] }
    }

    /// Takes away the rows whose keys begin with these bytes.
    pub(crate) fn remove_loaded(&mut self, prefix: &[u8]) {
        let (Ok(first) | Err(first)) = self.position(prefix);
        let mut end = first;
        while end < self.rows.len() && key_of(self.rows.at(end)).starts_with(prefix) {
            end += 1;
        }
        self.rows.remove(first, end - first);
    }

    /// The rows, ascending by key.
    pub(crate) fn loaded_rows(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|row| row.as_slice())
    }

    #[inline(never)]
    fn position(&self, key: &[u8]) -> Result<usize, usize> {
        self.rows.search(|row| key_of(row).cmp(key))
    }
}
