//! A transaction of this store: local writes that become one change.
//!
//! A transaction reads what it wrote. Nothing reaches the tables before [`Transaction::commit`].
//!
//! Each write comes twice: once for a namespace whose chunks may lie on disk, and once, with
//! `loaded` in its name, for one whose chunk of the document is in memory.

use alloc::vec::Vec;

use crate::change::{Change, DocumentChange, GenIndex, Operation};
use crate::counter;
use crate::hlc::Hlc;
use crate::join::Joiner;
use crate::limits::{MAX_CHANGE_BYTES, MAX_KEY_BYTES, MAX_LIFE};
use crate::namespace::{Namespace, Observer};
use crate::refusal::{Refusal, WriteError};
use crate::replica::ReplicaIndex;
use crate::row::{CellId, Row, Stamp};
use crate::schema::{FieldSchema, Strategy};
use crate::sorted::Sorted;
use crate::source::{ChunkError, ChunkSource};
use crate::value::Value;
use crate::wire::write_varint;

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
    byte_count: usize,
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
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.document_count() == 0
    }

    /// How many documents have been written to.
    pub fn document_count(&self) -> usize {
        self.documents.len()
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
        self.begin_life(gen_index, key, life + 1)
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
        self.begin_life(gen_index, key, life + 1)
    }

    /// Sets a register. Defaults are not stored, so setting one is a write like any other.
    ///
    /// # Errors
    /// The document does not exist, the value is not of the field's type, the field is a counter,
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
        if !field.value_type.admits(value) {
            return Err(Refusal::TypeMismatch.into());
        }
        namespace.load(gen_index, key, source)?;
        Ok(self.set_loaded(namespace, gen_index, key, field.id(), &value.to_bytes())?)
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
        if id.is_counter() {
            return Err(Refusal::NotThisOperation);
        }
        let own = self.stamp;
        let row = self.view(namespace, gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound);
        }
        let life = row.life;
        let mut hlc = own.hlc;
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
        self.write(gen_index, key, life, Operation { id, hlc, value })
    }

    /// Adds to an integer counter; a negative amount takes away.
    ///
    /// # Errors
    /// The document does not exist, the field is no integer counter, or the counter would leave
    /// the bounds of its options or the range of its type.
    pub fn add<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
        amount: i64,
    ) -> Result<(), WriteError<S::Error>> {
        if field.strategy != Strategy::PnCounter {
            return Err(Refusal::NotThisOperation.into());
        }
        namespace.load(gen_index, key, source)?;
        let bounds = field.counter_bounds();
        Ok(self.add_loaded(namespace, gen_index, key, field.id(), bounds, amount)?)
    }

    /// [`Transaction::add`] where the chunk is loaded, to an integer counter that is known by its
    /// cell and by the least and the greatest value that it may have.
    ///
    /// # Errors
    /// As for [`Transaction::add`].
    pub fn add_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        (least, greatest): (i128, i128),
        amount: i64,
    ) -> Result<(), Refusal> {
        let stamp = self.stamp;
        let row = self.view(namespace, gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound);
        }
        let (life, state) = (row.life, row.state(id));
        let total = counter::integer_sum(state).wrapping_add(amount.into());
        // A merge may have taken the counter past a bound; coming back is always allowed.
        if (amount < 0 && total < least) || (amount > 0 && total > greatest) {
            return Err(Refusal::OutOfBounds);
        }
        let own = counter::decode_integer(counter::own_total(state, stamp.replica)).unwrap_or(0);
        let mut value = Vec::new();
        counter::encode_integer(own.wrapping_add(amount.into()), &mut value);
        self.write(gen_index, key, life, Operation { id, hlc: stamp.hlc, value: &value })
    }

    /// Adds to a float counter; a negative amount takes away.
    ///
    /// # Errors
    /// The document does not exist, the field is no float counter, or the amount or what this
    /// replica has added so far is not finite.
    pub fn add_float<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
        amount: f64,
    ) -> Result<(), WriteError<S::Error>> {
        if field.strategy != Strategy::PnCounterFloat {
            return Err(Refusal::NotThisOperation.into());
        }
        namespace.load(gen_index, key, source)?;
        Ok(self.add_float_loaded(namespace, gen_index, key, field.id(), amount)?)
    }

    /// [`Transaction::add_float`] where the chunk is loaded, to a float counter that is known by
    /// its cell.
    ///
    /// # Errors
    /// As for [`Transaction::add_float`].
    pub fn add_float_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        amount: f64,
    ) -> Result<(), Refusal> {
        let stamp = self.stamp;
        let row = self.view(namespace, gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound);
        }
        let own = counter::own_total(row.state(id), stamp.replica);
        let total = counter::decode_float(own).unwrap_or(0.0) + amount;
        // Peers refuse what is not finite.
        if !total.is_finite() {
            return Err(Refusal::TypeMismatch);
        }
        let life = row.life;
        let mut value = Vec::new();
        counter::encode_float(total, &mut value);
        self.write(gen_index, key, life, Operation { id, hlc: stamp.hlc, value: &value })
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
    /// created is zero.
    #[inline(never)]
    pub fn view<'t>(
        &'t mut self,
        namespace: &'t Namespace,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Row<'t> {
        let mut row = namespace.stored_row(gen_index, key);
        if let Ok(place) = self.position(gen_index, key) {
            let pending = DocumentChange::of(self.documents.at(place));
            self.joiner.begin(&pending, self.stamp);
            row = self.joiner.join(row, &namespace.replicas);
        }
        if row.is_empty() { Row::none() } else { Row::parse(row) }
    }

    /// Applies the transaction as one change and hands it to the observer; nothing happens where
    /// nothing was written. Gives the number of the change.
    ///
    /// # Errors
    /// A chunk could not be read; nothing has been applied.
    pub fn commit<S: ChunkSource, O: Observer>(
        self,
        namespace: &mut Namespace,
        source: &mut S,
        observer: &mut O,
    ) -> Result<Option<u64>, ChunkError<S::Error>> {
        for document in self.documents.iter() {
            let DocumentChange { gen_index, key, .. } = DocumentChange::of(document);
            namespace.load(gen_index, key, source)?;
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
        let mut body = Vec::new();
        write_varint(&mut body, self.document_count() as u64);
        for document in self.documents.iter() {
            body.extend_from_slice(document);
        }
        let Stamp { hlc: now, replica, number } = self.stamp;
        namespace.join_change(&Change { replica, number, now, body: &body }, observer);
    }

    fn position(&self, gen_index: GenIndex, key: &[u8]) -> Result<usize, usize> {
        self.documents.search(|document| {
            let document = DocumentChange::of(document);
            (document.gen_index, document.key).cmp(&(gen_index, key))
        })
    }

    /// Puts a document at the beginning of a life.
    fn begin_life(&mut self, gen_index: GenIndex, key: &[u8], life: u64) -> Result<(), Refusal> {
        self.put(&DocumentChange { gen_index, key, life, operations: &[] }, 0)
    }

    fn write(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        life: u64,
        operation: Operation<'_>,
    ) -> Result<(), Refusal> {
        let mut operations = Vec::new();
        let mut document = DocumentChange { gen_index, key, life, operations: &[] };
        if let Ok(place) = self.position(gen_index, key) {
            document = DocumentChange::of(self.documents.at(place));
        }
        document.write_operations_with(operation, self.stamp.hlc, &mut operations);
        let value_bytes = operation.value.len();
        self.put(&DocumentChange { gen_index, key, life, operations: &operations }, value_bytes)
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
        let mut bytes = Vec::new();
        document.encode(document.gen_index, &mut bytes);
        let place = self.position(document.gen_index, document.key);
        self.documents.put(place, &bytes);
        Ok(())
    }
}
