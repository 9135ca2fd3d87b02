//! A transaction of this store: local writes that become one change.
//!
//! A transaction reads what it wrote. Nothing reaches the tables before [`Transaction::commit`].
//!
//! Each write comes twice: once for a namespace whose chunks may lie on disk, and once, with
//! `loaded` in its name, for one whose chunk of the document is in memory.

mod collections;
mod counters;

use alloc::vec::Vec;

use crate::change::{Change, DocumentChange, GenIndex, Operation, write_body_head};
use crate::evolution::Inherited;
use crate::hlc::Hlc;
use crate::join::Joiner;
use crate::limits::{MAX_CHANGE_BYTES, MAX_KEY_BYTES, MAX_LIFE};
use crate::namespace::{Namespace, Observer};
use crate::refusal::{Refusal, WriteError};
use crate::replica::ReplicaIndex;
use crate::row::{CellId, Row, Stamp, entries_prefix, entry_key, is_entry_key, split_entry_key};
use crate::schema::{FieldSchema, Strategy};
use crate::sorted::Sorted;
#[cfg(target_arch = "wasm32")]
use crate::sorted::place_after;
use crate::source::{ChunkError, ChunkSource};
use crate::value::{Value, encode_counts, step_over_value, write_counts};
use crate::wire::{Reader, buffer_for};

/// What a document's head and an operation's header take in a change, at most: document count 4,
/// Gen 5, key length 2, life 10, operations' length 4, field 3, time 10.
const HEADERS_BYTES_MAX: usize = 38;

/// Local writes to one namespace that become one change.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Of the change that this becomes.
    stamp: Stamp,
    /// What it does to each document, in the bytes of its body, ascending by Gen and key.
    documents: Sorted,
    /// The same for entries of collections, by the keys of their rows.
    entries: Sorted,
    byte_count: usize,
    /// Its references are the replicas that this change refers to.
    joiner: Joiner,
}

impl Transaction {
    /// Begins a transaction of this replica, at the time that its clock shows.
    pub fn begin(namespace: &Namespace, replica: ReplicaIndex, now_milliseconds: u64) -> Self {
        let mut transaction = Transaction::idle(replica);
        transaction.begin_again(namespace, now_milliseconds);
        transaction
    }

    /// A transaction that has yet to begin.
    pub const fn idle(replica: ReplicaIndex) -> Self {
        Transaction {
            stamp: Stamp { hlc: Hlc::ZERO, replica, number: 0 },
            documents: Sorted::new(),
            entries: Sorted::new(),
            byte_count: 0,
            joiner: Joiner::new(),
        }
    }

    /// Begins as [`Transaction::begin`] does, without what has been written so far.
    pub fn begin_again(&mut self, namespace: &Namespace, now_milliseconds: u64) {
        self.stamp.number = namespace.heard(self.stamp.replica) + 1;
        self.stamp.hlc = Hlc::from_milliseconds(now_milliseconds);
        self.documents.clear();
        self.byte_count = 0;
        if cfg!(feature = "collections") {
            self.entries.clear();
        }
        if cfg!(feature = "registers") {
            self.joiner.begin_references(self.stamp.replica);
        }
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.document_count() == 0
    }

    /// How many documents have been written to.
    pub fn document_count(&self) -> usize {
        self.documents.len()
    }

    /// What the change takes at most, but for the replicas that it refers to.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn byte_count(&self) -> usize {
        self.byte_count
    }

    /// What is written to each document, in the bytes of a change's body.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn document_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.documents.iter().map(|bytes| bytes.as_slice())
    }

    /// Creates a document.
    ///
    /// # Errors
    /// It exists, or its key is empty or too long.
    pub fn create<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Result<(), WriteError<S::Error>> {
        namespace.load(gen_index, key, source)?;
        Ok(self.create_loaded(namespace, gen_index, key)?)
    }

    /// [`Transaction::create`] where the chunk is loaded.
    ///
    /// # Errors
    /// As for [`Transaction::create`].
    pub fn create_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Result<(), Refusal> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(Refusal::KeyLength);
        }
        let life = self.view(namespace, gen_index, key).life;
        if life & 1 == 1 {
            return Err(Refusal::AlreadyExists);
        }
        if life == MAX_LIFE {
            return Err(Refusal::ClockAtCeiling);
        }
        self.begin_life(namespace, gen_index, key, life + 1)
    }

    /// Deletes a document.
    ///
    /// # Errors
    /// It does not exist.
    pub fn delete<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Result<(), WriteError<S::Error>> {
        namespace.load(gen_index, key, source)?;
        Ok(self.delete_loaded(namespace, gen_index, key)?)
    }

    /// [`Transaction::delete`] where the chunk is loaded.
    ///
    /// # Errors
    /// As for [`Transaction::delete`].
    pub fn delete_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Result<(), Refusal> {
        let row = self.view(namespace, gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound);
        }
        let life = row.life;
        self.begin_life(namespace, gen_index, key, life + 1)
    }

    /// Sets a register. Defaults are not stored, so setting one is a write like any other. What an
    /// `mv_register` holds is replaced, as far as it is known here.
    ///
    /// # Errors
    /// The document does not exist, the value is not of the field's type, the field is no register,
    /// or it is immutable and set.
    pub fn set<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
        value: &Value,
    ) -> Result<(), WriteError<S::Error>> {
        namespace.load(gen_index, key, source)?;
        let inherited = self.inherited(namespace, gen_index, key, field);
        Ok(self.set_over_loaded(namespace, gen_index, key, field, value, inherited)?)
    }

    /// What a write to a field of a document, whose chunk is loaded, has to take into account.
    fn inherited(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
    ) -> Inherited {
        match field.predecessor {
            None => Inherited::default(),
            Some(_) => Inherited::of(field, &self.view(namespace, gen_index, key)),
        }
    }

    /// [`Transaction::set`] where the chunk is loaded, of a field that inherits this from the cells
    /// that it had before.
    ///
    /// # Errors
    /// As for [`Transaction::set`].
    pub fn set_over_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
        value: &Value,
        inherited: Inherited,
    ) -> Result<(), Refusal> {
        if !field.value_type.admits(value) {
            return Err(Refusal::TypeMismatch);
        }
        if field.strategy == Strategy::Immutable && inherited.is_set {
            return Err(Refusal::Immutable);
        }
        let value = value.to_bytes();
        self.set_after(namespace, gen_index, key, field.id(), &value, inherited.latest)
    }

    /// [`Transaction::set`] where the chunk is loaded, to a value that is encoded and known to be
    /// of the field's type.
    ///
    /// # Errors
    /// As for [`Transaction::set`].
    pub fn set_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        value: &[u8],
    ) -> Result<(), Refusal> {
        self.set_after(namespace, gen_index, key, id, value, None)
    }

    /// [`Transaction::set_loaded`] with a time that the write has to come after.
    fn set_after(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        value: &[u8],
        latest: Option<Hlc>,
    ) -> Result<(), Refusal> {
        if id.is_counter() || id.is_collection() {
            return Err(Refusal::NotThisOperation);
        }
        if id.is_mv_register() {
            return self.set_mv_register(namespace, gen_index, key, id, value, latest);
        }
        let own = self.stamp;
        let row = self.view(namespace, gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound);
        }
        let life = row.life;
        let mut hlc = own.hlc;
        if cfg!(vudo_mutation = "clock_ratchet") {
            hlc = row.cells().map(|cell| cell.stamp.decode().hlc).fold(hlc, Hlc::max);
        }
        if let Some(cell) = row.cell(id) {
            if id.tag() == Strategy::Immutable.tag() {
                return Err(Refusal::Immutable);
            }
            let stamp = cell.stamp.decode();
            hlc = match stamp.is_of_same_change(&own) {
                // The value replaces one of this transaction, and with it the time that it had.
                true => stamp.hlc,
                false => stamp.hlc.overwritten_at(own.hlc).ok_or(Refusal::ClockAtCeiling)?,
            };
        }
        if let Some(latest) = latest {
            hlc = hlc.max(latest.overwritten_at(own.hlc).ok_or(Refusal::ClockAtCeiling)?);
        }
        self.write(namespace, gen_index, key, life, Operation { id, hlc, value })
    }

    /// The row of a document as this transaction sees it. Deleted documents have one too.
    ///
    /// # Errors
    /// The chunk could not be read.
    pub fn read<'t, S: ChunkSource>(
        &'t mut self,
        namespace: &'t mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Result<Option<Row<'t>>, ChunkError<S::Error>> {
        namespace.load(gen_index, key, source)?;
        let row = self.view(namespace, gen_index, key);
        Ok((row.life != 0).then_some(row))
    }

    /// [`Transaction::read`] where the chunk is loaded. The life of a document that was never
    /// created is zero. The key may be that of an entry: see [`crate::entry_key`].
    #[inline(never)]
    pub fn view<'t>(
        &'t mut self,
        namespace: &'t Namespace,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Row<'t> {
        let is_entry = is_entry_key(key);
        let list = if is_entry { &self.entries } else { &self.documents };
        let mut row = namespace.stored_row(gen_index, key);
        if is_entry && self.has_ended(namespace, gen_index, key) {
            row = &[];
        }
        if let Ok(place) = position(list, gen_index, key) {
            let pending = DocumentChange::of(list.at(place));
            self.joiner.begin(&pending, self.stamp);
            row = self.joiner.join(row, &namespace.replicas);
        }
        Row::parse_stored(row)
    }

    /// Whether what is stored of an entry ends with this transaction, because the document or entry
    /// that it is in begins another life.
    fn has_ended(&self, namespace: &Namespace, gen_index: GenIndex, key: &[u8]) -> bool {
        let mut rest = key;
        while let Some((parent, _, _)) = split_entry_key(rest) {
            if let Some(pending) = self.pending(gen_index, parent) {
                let stored = namespace.stored_row(gen_index, parent);
                if Row::parse_stored(stored).life != pending.life {
                    return true;
                }
            }
            rest = parent;
        }
        false
    }

    /// Visits the rows of a collection as this transaction sees them, ascending by element, those
    /// that are not in it included. They must be loaded: see [`Namespace::load_entries`].
    pub fn view_entries(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        collection: CellId,
        mut visit: impl FnMut(&[u8], Row<'_>),
    ) {
        let mut elements = Sorted::new();
        let mut insert = |element: &[u8]| {
            let place = elements.search(|known| known.cmp(element));
            elements.put(place, element);
        };
        namespace.loaded_entries(gen_index, key, collection, |element, _| insert(element));
        let prefix = entry_key(key, collection, &[]);
        self.visit_entries_within(gen_index, &prefix, |entry| {
            let mut rest = Reader::new(&entry.key[prefix.len()..]);
            let element = step_over_value(&mut rest);
            if rest.is_empty() {
                insert(element);
            }
        });
        for element in elements.iter() {
            let entry = entry_key(key, collection, element);
            visit(element, self.view(namespace, gen_index, &entry));
        }
    }

    /// Goes on from the key of an entry to that of the next one of its collection as this transaction
    /// sees it, ascending by element, those that are not in it included. The first one follows on what
    /// all of them begin with, which is so long. Gives whether there is one.
    #[cfg(target_arch = "wasm32")]
    pub fn next_entry(
        &self,
        namespace: &Namespace,
        gen_index: GenIndex,
        prefix_length: usize,
        key: &mut Vec<u8>,
    ) -> bool {
        loop {
            let stored = namespace.gens[gen_index as usize].entries.key_after(key);
            let place = place_after(position(&self.entries, gen_index, key));
            let mut next = stored;
            if place < self.entries.len() {
                let pending = DocumentChange::of(self.entries.at(place));
                let is_of_gen = pending.gen_index == gen_index;
                if is_of_gen && (stored.is_empty() || pending.key < stored) {
                    next = pending.key;
                }
            }
            if !next.starts_with(&key[..prefix_length]) {
                return false;
            }
            key.truncate(prefix_length);
            key.extend_from_slice(&next[prefix_length..]);
            // What follows an element lies in a collection of the entry.
            let mut rest = Reader::new(&key[prefix_length..]);
            step_over_value(&mut rest);
            if rest.is_empty() {
                return true;
            }
        }
    }

    /// Applies the transaction as one change and hands it to the observer; nothing happens where
    /// nothing was written. Gives the number of the change. Unless the transaction begins again, it
    /// must not be used any more.
    ///
    /// # Errors
    /// A chunk could not be read; nothing has been applied.
    pub fn commit<S: ChunkSource, O: Observer>(
        &self,
        namespace: &mut Namespace,
        source: &mut S,
        observer: &mut O,
    ) -> Result<Option<u64>, ChunkError<S::Error>> {
        for document in self.documents.iter().chain(self.entries.iter()) {
            let DocumentChange { gen_index, key, life, .. } = DocumentChange::of(document);
            namespace.load(gen_index, key, source)?;
            namespace.load_ending(gen_index, key, life, source)?;
        }
        self.commit_loaded(namespace, observer);
        Ok((!self.is_empty()).then_some(self.stamp.number))
    }

    /// [`Transaction::commit`] where every chunk is loaded. Unless the transaction begins again,
    /// it must not be used any more.
    pub fn commit_loaded<O: Observer>(&self, namespace: &mut Namespace, observer: &mut O) {
        if self.is_empty() {
            return;
        }
        let mut body = buffer_for(self.byte_count + HEADERS_BYTES_MAX);
        let mut referred: &[ReplicaIndex] = &[];
        if cfg!(feature = "registers") {
            referred = self.joiner.references.get(1..).unwrap_or_default();
        }
        write_body_head(self.document_count(), referred.len(), &mut body);
        for replica in referred {
            body.extend_from_slice(&namespace.replicas.key(*replica).0);
        }
        for bytes in self.documents.iter() {
            let document = DocumentChange::of(bytes);
            match !cfg!(feature = "collections") || self.entries.len() == 0 {
                true => body.extend_from_slice(bytes),
                false => {
                    let mut operations = Vec::new();
                    self.nest_entries(&document, &mut operations);
                    let nested = DocumentChange { operations: &operations, ..document };
                    nested.encode(document.gen_index, &mut body);
                }
            }
        }
        let Stamp { hlc: now, replica, number } = self.stamp;
        namespace.join_change(&Change { replica, number, now, body: &body }, observer);
    }

    /// Appends the operations on a document or entry, with those on the entries of its collections
    /// inside of them.
    fn nest_entries(&self, document: &DocumentChange<'_>, out: &mut Vec<u8>) {
        let now = self.stamp.hlc;
        let mut written_hlc = now;
        let mut operations = document.operations(now);
        while operations.advance() {
            let operation = operations.operation;
            let mut payload = Vec::new();
            let mut value = operation.value;
            if operation.id.is_collection() {
                write_counts(&mut payload, |payload| {
                    self.write_entries(document, operation.id, payload);
                });
                value = &payload;
            }
            Operation { value, ..operation }.write(&mut written_hlc, out);
        }
    }

    /// Appends what the transaction does to the entries of a collection.
    fn write_entries(&self, owner: &DocumentChange<'_>, collection: CellId, out: &mut Vec<u8>) {
        let prefix = entry_key(owner.key, collection, &[]);
        self.visit_entries_within(owner.gen_index, &prefix, |entry| {
            let mut rest = Reader::new(&entry.key[prefix.len()..]);
            let element = step_over_value(&mut rest);
            // What follows the element is for a collection of the entry, which is written with it.
            if rest.is_empty() && cfg!(target_arch = "wasm32") {
                // No module writes to a collection in an entry.
                entry.encode_entry(element, out);
            } else if rest.is_empty() {
                let mut operations = Vec::new();
                self.nest_entries(entry, &mut operations);
                let nested = DocumentChange { operations: &operations, ..*entry };
                nested.encode_entry(element, out);
            }
        });
    }

    /// Visits what the transaction does to the entries whose keys begin with these bytes, ascending.
    fn visit_entries_within(
        &self,
        gen_index: GenIndex,
        prefix: &[u8],
        mut visit: impl FnMut(&DocumentChange<'_>),
    ) {
        let (Ok(first) | Err(first)) = position(&self.entries, gen_index, prefix);
        for bytes in self.entries.iter_from(first) {
            let entry = DocumentChange::of(bytes);
            if entry.gen_index != gen_index || !entry.key.starts_with(prefix) {
                return;
            }
            visit(&entry);
        }
    }

    /// What the transaction does to a document or entry so far.
    fn pending(&self, gen_index: GenIndex, key: &[u8]) -> Option<DocumentChange<'_>> {
        let list = if is_entry_key(key) { &self.entries } else { &self.documents };
        let place = position(list, gen_index, key).ok()?;
        Some(DocumentChange::of(list.at(place)))
    }

    /// What the transaction does to a cell so far; nothing where it does not write to it.
    fn pending_operation(&self, gen_index: GenIndex, key: &[u8], id: CellId) -> &[u8] {
        self.pending(gen_index, key).map_or(&[], |pending| pending.operation_on(id))
    }

    /// Puts a document or entry at the beginning of a life.
    fn begin_life(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        life: u64,
    ) -> Result<(), Refusal> {
        if cfg!(feature = "collections") && self.entries.len() > 0 {
            self.drop_entries(gen_index, key);
        }
        self.touch_owners(namespace, gen_index, key)?;
        self.put(&DocumentChange { gen_index, key, life, operations: &[] }, 0)
    }

    /// Forgets what the transaction does to the entries in a document or entry.
    #[inline(never)]
    fn drop_entries(&mut self, gen_index: GenIndex, key: &[u8]) {
        let prefix = entries_prefix(key);
        let mut count = 0;
        self.visit_entries_within(gen_index, &prefix, |_| count += 1);
        let (Ok(first) | Err(first)) = position(&self.entries, gen_index, &prefix);
        self.entries.remove(first, count);
    }

    fn write(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        life: u64,
        operation: Operation<'_>,
    ) -> Result<(), Refusal> {
        self.touch_owners(namespace, gen_index, key)?;
        self.write_alone(gen_index, key, life, operation)
    }

    /// Writes without having what the document or entry is in say so.
    fn write_alone(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        life: u64,
        operation: Operation<'_>,
    ) -> Result<(), Refusal> {
        let document = DocumentChange { gen_index, key, life, operations: &[] };
        let document = self.pending(gen_index, key).unwrap_or(document);
        let value_bytes = operation.value.len();
        let mut operations =
            buffer_for(document.operations.len() + HEADERS_BYTES_MAX + value_bytes);
        document.write_operations_with(operation, self.stamp.hlc, &mut operations);
        self.put(&DocumentChange { gen_index, key, life, operations: &operations }, value_bytes)
    }

    /// Has what an entry is in say that the collection is written to.
    fn touch_owners(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Result<(), Refusal> {
        let mut rest = key;
        while let Some((owner, id, _)) = split_entry_key(rest) {
            // What has said so has had its own owners say so.
            if !self.pending_operation(gen_index, owner, id).is_empty() {
                return Ok(());
            }
            let life = self.view(namespace, gen_index, owner).life;
            let mut nothing = Vec::new();
            encode_counts(&[], &mut nothing);
            let operation = Operation { id, hlc: self.stamp.hlc, value: &nothing };
            self.write_alone(gen_index, owner, life, operation)?;
            rest = owner;
        }
        Ok(())
    }

    /// Puts what the change does to a document in place of what it would have done, with a value of
    /// so many bytes that it did not have.
    #[inline(never)]
    fn put(&mut self, document: &DocumentChange<'_>, value_bytes: usize) -> Result<(), Refusal> {
        // Generously, for peers refuse a change that is larger.
        let byte_count = self.byte_count + document.key.len() + HEADERS_BYTES_MAX + value_bytes;
        if byte_count > MAX_CHANGE_BYTES {
            return Err(Refusal::ChangeTooLarge);
        }
        self.byte_count = byte_count;
        let mut bytes =
            buffer_for(HEADERS_BYTES_MAX + document.key.len() + document.operations.len());
        document.encode(document.gen_index, &mut bytes);
        let is_entry = is_entry_key(document.key);
        let list = if is_entry { &mut self.entries } else { &mut self.documents };
        list.put(position(list, document.gen_index, document.key), &bytes);
        Ok(())
    }
}

/// The place of a document or entry in its list, or else the place where it belongs.
fn position(list: &Sorted, gen_index: GenIndex, key: &[u8]) -> Result<usize, usize> {
    list.search(|document| {
        let document = DocumentChange::of(document);
        (document.gen_index, document.key).cmp(&(gen_index, key))
    })
}
