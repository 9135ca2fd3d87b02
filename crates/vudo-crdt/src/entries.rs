//! Joining the elements of sets and the entries of maps, which are rows of a table of their own.
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
use crate::namespace::Observer;
use crate::replica::Replicas;
use crate::row::{Row, Stamp, entries_prefix, extend_to_entries};
#[cfg(not(target_arch = "wasm32"))]
use crate::row::{is_entry_key, split_entry_key};
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
    let before = if stored.is_empty() { Row::none() } else { Row::parse(stored) };
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
        let before = if stored.is_empty() { Row::none() } else { Row::parse(stored) };
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
            let table = if is_entry { &mut gen_table.entries } else { &mut gen_table.documents };
            table.put(joined);
        }
        if loses_entries {
            gen_table.entries.remove_loaded(&entries_prefix(new.key));
        }
    }
}

/// Joins the entries of collections that a change writes to.
pub(crate) struct EntryMerge<'m, O> {
    pub(crate) stamp: Stamp,
    pub(crate) joiner: &'m mut Joiner,
    pub(crate) replicas: &'m Replicas,
    pub(crate) entries: &'m mut Table,
    pub(crate) observer: &'m mut O,
}

impl<O: Observer> EntryMerge<'_, O> {
    /// Joins the entries of a document or entry, which is in the life that the change writes to.
    /// `key` is its own, and is restored. Gives the count of operations.
    #[inline(never)]
    pub(crate) fn join(&mut self, document: &DocumentChange<'_>, key: &mut Vec<u8>) -> u64 {
        let key_length = key.len();
        let mut operation_count = 0;
        for operation in document.operations(self.stamp.hlc) {
            if !operation.id.is_collection() {
                continue;
            }
            extend_to_entries(key, operation.id);
            let prefix_length = key.len();
            let mut changes = Entries::of(operation.value);
            while changes.advance() {
                key.extend_from_slice(changes.entry.key);
                operation_count += self.join_entry(document.gen_index, &changes.entry, key);
                key.truncate(prefix_length);
            }
            key.truncate(key_length);
        }
        operation_count
    }

    fn join_entry(
        &mut self,
        gen_index: GenIndex,
        change: &DocumentChange<'_>,
        key: &mut Vec<u8>,
    ) -> u64 {
        let DocumentChange { life, operations, .. } = *change;
        let entry = DocumentChange { gen_index, key, life, operations };
        let written = self.joiner.begin(&entry, self.stamp);
        let stored = self.entries.loaded_row(key).unwrap_or_default();
        let before = if stored.is_empty() { Row::none() } else { Row::parse(stored) };
        let loses_entries = before.life < life && before.has_entries();
        let is_in_effect = before.life <= life;
        let joined = self.joiner.join(stored, self.replicas);
        if stored != joined {
            if O::SEES_ROWS {
                self.observer.entry(gen_index, Row::parse(joined));
            }
            self.entries.put(joined);
        }
        if loses_entries {
            self.entries.remove_loaded(&entries_prefix(key));
        }
        let mut operation_count = written.operation_count.max(1);
        if written.has_entries && is_in_effect {
            let nested = DocumentChange { gen_index, key: &[], life, operations };
            operation_count += self.join(&nested, key);
        }
        operation_count
    }
}
