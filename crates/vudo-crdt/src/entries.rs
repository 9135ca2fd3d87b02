//! Joining documents, and the elements of sets and the entries of maps, which are rows of a table of
//! their own.
//!
//! A document or entry that begins a greater life loses all of its entries; one that a change writes
//! to in an earlier life is left as it is. So a row of an entry is there only while what it is in
//! has the life in which it was written, and nothing about that has to be kept with it.

#[cfg(not(target_arch = "wasm32"))]
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::change::{DocumentChange, Entries, GenIndex};
use crate::hlc::Hlc;
use crate::join::Joiner;
#[cfg(not(target_arch = "wasm32"))]
use crate::namespace::Namespace;
use crate::namespace::{GenTable, Observer};
use crate::replica::Replicas;
#[cfg(not(target_arch = "wasm32"))]
use crate::row::split_entry_key;
use crate::row::{Row, Stamp, entries_prefix, extend_to_entries, is_entry_key, write_owner};
use crate::source::{ChunkError, ChunkSource};
use crate::table::Table;

/// Loads the chunks of the entries that a change touches in a document or entry whose stored row is
/// given: those it writes to, or all of them where they end with their life. `key` is restored.
pub(crate) fn load_entries<S: ChunkSource>(
    entries: &mut Table,
    stored: &[u8],
    document: &DocumentChange<'_>,
    key: &mut Vec<u8>,
    source: &mut S,
) -> Result<(), ChunkError<S::Error>> {
    let key_length = key.len();
    let before = Row::parse_stored(stored);
    if before.life < document.life && before.has_entries() {
        entries.load_prefix(&entries_prefix(key), source)?;
    }
    for operation in document.operations(Hlc::ZERO) {
        if !operation.id.is_collection() {
            continue;
        }
        extend_to_entries(key, operation.id);
        let prefix_length = key.len();
        let mut changes = Entries::of(operation.value);
        while changes.advance() {
            key.extend_from_slice(changes.entry.key);
            entries.load(key, source)?;
            let stored = Vec::from(entries.loaded_row(key).unwrap_or_default());
            load_entries(entries, &stored, &changes.entry, key, source)?;
            key.truncate(prefix_length);
        }
        key.truncate(key_length);
    }
    Ok(())
}

/// Documents and entries whose life here is greater than in a state that is being joined: what that
/// state has of their entries has ended.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) type Outlived = BTreeSet<(usize, Vec<u8>)>;

#[cfg(not(target_arch = "wasm32"))]
impl Namespace {
    /// Loads what joining a whole row needs.
    pub(crate) fn load_for_row<S: ChunkSource>(
        &mut self,
        gen_index: usize,
        row: &[u8],
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        let row = Row::parse(row);
        self.load(gen_index as GenIndex, row.key, source)?;
        self.load_ending(gen_index as GenIndex, row.key, row.life, source)
    }

    /// Joins a whole row of a state, which is loaded for and whose indexes are the namespace's. The
    /// rows of a state come in the order of its pages: what an entry is in comes before the entry.
    pub(crate) fn join_row<O: Observer>(
        &mut self,
        gen_index: usize,
        row: &[u8],
        outlived: &mut Outlived,
        observer: &mut O,
    ) {
        let new = Row::parse(row);
        let mut rest = new.key;
        while let Some((owner, collection, _)) = split_entry_key(rest) {
            let stored = self.gens[gen_index].stored_row(owner);
            let is_there = !stored.is_empty() && Row::parse(stored).cell(collection).is_some();
            let is_over = !outlived.is_empty() && outlived.contains(&(gen_index, Vec::from(owner)));
            // Pages that leave out what an entry is in must not leave an entry behind that comes
            // to light when that is created again.
            if is_over || !is_there {
                return;
            }
            rest = owner;
        }
        let is_entry = is_entry_key(new.key);
        let gen_table = &mut self.gens[gen_index];
        let stored = gen_table.stored_row(new.key);
        let before = Row::parse_stored(stored);
        let loses_entries = before.life < new.life && before.has_entries();
        if before.life > new.life && new.has_entries() {
            outlived.insert((gen_index, Vec::from(new.key)));
        }
        let joined = self.joiner.join_row(stored, row, &self.replicas);
        if stored != joined {
            if O::SEES_ROWS && is_entry {
                observer.entry(gen_index as GenIndex, Row::parse(joined));
            } else if O::SEES_ROWS {
                let before = (!stored.is_empty()).then_some(before);
                observer.row(gen_index as GenIndex, before, Row::parse(joined));
            }
            gen_table.table_of(is_entry).put(joined);
        }
        if loses_entries {
            gen_table.entries.remove_loaded(&entries_prefix(new.key));
        }
    }
}

/// Joins what a change does to documents, and to the entries of their collections.
pub(crate) struct DocumentMerge<'m, O> {
    pub(crate) stamp: Stamp,
    pub(crate) joiner: &'m mut Joiner,
    pub(crate) replicas: &'m Replicas,
    pub(crate) tables: &'m mut GenTable,
    pub(crate) observer: &'m mut O,
}

impl<O: Observer> DocumentMerge<'_, O> {
    /// Joins a document or entry, given the key of its row. Gives the count of operations.
    pub(crate) fn join(&mut self, document: &DocumentChange<'_>) -> u64 {
        let DocumentChange { gen_index, key, life, .. } = *document;
        let is_entry = is_entry_key(key);
        let written = self.joiner.begin(document, self.stamp);
        let stored = self.tables.stored_row(key);
        let before = Row::parse_stored(stored);
        let is_in_effect = before.life <= life;
        // In a module it is less code to look for them than to look whether there are any.
        let loses_entries = cfg!(feature = "collections")
            && before.life < life
            && !self.tables.entries.is_empty()
            && (cfg!(target_arch = "wasm32") || before.has_entries());
        let joined = self.joiner.join(stored, self.replicas);
        if stored != joined {
            if O::SEES_ROWS && is_entry {
                self.observer.entry(gen_index, Row::parse(joined));
            } else if O::SEES_ROWS {
                let before = (!stored.is_empty()).then_some(before);
                self.observer.row(gen_index, before, Row::parse(joined));
            }
            self.tables.table_of(is_entry).put(joined);
        }
        if loses_entries {
            self.tables.entries.remove_loaded(&entries_prefix(key));
        }
        let mut operation_count = written.operation_count();
        if cfg!(feature = "collections") && written.has_entries && is_in_effect {
            operation_count += self.join_entries(document);
        }
        operation_count
    }

    /// Joins the entries in a document or entry, which is in the life that the change writes to.
    #[inline(never)]
    fn join_entries(&mut self, owner: &DocumentChange<'_>) -> u64 {
        let mut operation_count = 0;
        let mut key = Vec::new();
        write_owner(owner.key, &mut key);
        let owner_length = key.len();
        let mut operations = owner.operations(self.stamp.hlc);
        while operations.advance() {
            let operation = operations.operation;
            if !operation.id.is_collection() {
                continue;
            }
            key.truncate(owner_length);
            extend_to_entries(&mut key, operation.id);
            let prefix_length = key.len();
            let mut changes = Entries::of(operation.value);
            while changes.advance() {
                key.truncate(prefix_length);
                key.extend_from_slice(changes.entry.key);
                let DocumentChange { life, operations, .. } = changes.entry;
                let gen_index = owner.gen_index;
                let entry = DocumentChange { gen_index, key: &key, life, operations };
                operation_count += self.join(&entry);
            }
        }
        operation_count
    }
}
