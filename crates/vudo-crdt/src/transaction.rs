//! A transaction of this store: local writes that become one change.
//!
//! A transaction reads what it wrote. Nothing reaches the tables before [`Transaction::commit`].

use alloc::vec::Vec;
use core::fmt;

use crate::change::{Change, DocumentChange, GenIndex, Operation};
use crate::counter;
use crate::hlc::Hlc;
use crate::join::join_rows;
use crate::limits::{MAX_CHANGE_BYTES, MAX_KEY_BYTES, MAX_LIFE};
use crate::namespace::{Namespace, Observer};
use crate::replica::ReplicaIndex;
use crate::row::{CellId, Row, Stamp};
use crate::schema::{FieldSchema, Strategy};
use crate::table::{ChunkError, ChunkSource};
use crate::value::Value;
use crate::wire::write_varint;

/// What a document's head and an operation's header take in a change, at most: document count 4,
/// Gen 5, key length 2, life 10, operations' length 4, field 3, time 10.
const HEADERS_BYTES_MAX: usize = 38;
/// What a counter's total takes, at most: value head 2, and 16 bytes.
const TOTAL_BYTES_MAX: usize = 18;

/// Why a local write was refused. The transaction goes on without it.
#[derive(Debug, PartialEq)]
pub enum WriteError<E> {
    /// There is a document under this key already.
    AlreadyExists,
    /// There is no document under this key, or it has been deleted.
    NotFound,
    /// The key is empty or longer than [`MAX_KEY_BYTES`].
    KeyLength(usize),
    /// The value is not of the field's type.
    TypeMismatch,
    /// The field is added to, not set; or the other way round.
    NotThisOperation,
    /// An immutable field that has a value already.
    Immutable,
    /// The counter would leave its bounds.
    OutOfBounds {
        /// What the counter would have come to.
        total: i128,
    },
    /// The change would be larger than [`MAX_CHANGE_BYTES`].
    ChangeTooLarge,
    /// The value overwritten carries the greatest time there is: deleting the document and creating
    /// it again starts clean. Or the document was deleted in the greatest life there is.
    ClockAtCeiling,
    /// A chunk could not be read.
    Chunk(ChunkError<E>),
}

impl<E> From<ChunkError<E>> for WriteError<E> {
    fn from(error: ChunkError<E>) -> Self {
        WriteError::Chunk(error)
    }
}

impl<E: fmt::Display> fmt::Display for WriteError<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::AlreadyExists => formatter.write_str("the document exists already"),
            WriteError::NotFound => formatter.write_str("there is no such document"),
            WriteError::KeyLength(length) => {
                write!(formatter, "a key has 1 to {MAX_KEY_BYTES} bytes, this one has {length}")
            }
            WriteError::TypeMismatch => formatter.write_str("the value is not of the field's type"),
            WriteError::NotThisOperation => {
                formatter.write_str("registers are set and counters are added to")
            }
            WriteError::Immutable => {
                formatter.write_str("the field is immutable and has a value already")
            }
            WriteError::OutOfBounds { total } => {
                write!(formatter, "the counter would come to {total}, which is out of its bounds")
            }
            WriteError::ChangeTooLarge => {
                write!(formatter, "one change holds at most {MAX_CHANGE_BYTES} bytes")
            }
            WriteError::ClockAtCeiling => formatter.write_str(
                "the value or document carries the greatest time there is; \
                 delete the document and create it again, or take another key",
            ),
            WriteError::Chunk(error) => error.fmt(formatter),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for WriteError<E> {}

/// Local writes to one namespace that become one change.
#[derive(Clone, Debug)]
pub struct Transaction {
    replica: ReplicaIndex,
    number: u64,
    now: Hlc,
    /// In the order in which they were first written to.
    documents: Vec<PendingDocument>,
    /// Indexes into `documents`, ascending by Gen and key.
    sorted: Vec<u32>,
    byte_count: usize,
    scratch: Vec<u8>,
}

/// What the change will do to one document.
#[derive(Clone, Debug)]
struct PendingDocument {
    gen_index: GenIndex,
    key: Vec<u8>,
    life: u64,
    /// As in the change's body.
    operations: Vec<u8>,
}

impl Transaction {
    /// Begins a transaction of this replica, at the time that its clock shows.
    pub fn begin(namespace: &Namespace, replica: ReplicaIndex, now_milliseconds: u64) -> Self {
        Transaction {
            replica,
            number: namespace.heard(replica) + 1,
            now: Hlc::from_milliseconds(now_milliseconds),
            documents: Vec::new(),
            sorted: Vec::new(),
            byte_count: 0,
            scratch: Vec::new(),
        }
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
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
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(WriteError::KeyLength(key.len()));
        }
        self.grow(key.len() + HEADERS_BYTES_MAX)?;
        let row = self.read(namespace, source, gen_index, key)?;
        let life = row.map_or(0, |row| row.life);
        if life & 1 == 1 {
            return Err(WriteError::AlreadyExists);
        }
        if life == MAX_LIFE {
            return Err(WriteError::ClockAtCeiling);
        }
        self.begin_life(gen_index, key, life + 1);
        Ok(())
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
        self.grow(key.len() + HEADERS_BYTES_MAX)?;
        let life = self.read_alive(namespace, source, gen_index, key)?.life;
        self.begin_life(gen_index, key, life + 1);
        Ok(())
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
            return Err(WriteError::TypeMismatch);
        }
        let bytes = value.to_bytes();
        self.set_encoded(namespace, source, gen_index, key, field.id(), &bytes)
    }

    /// [`Transaction::set`] for a value that is encoded and known to be of the field's type.
    ///
    /// # Errors
    /// As for [`Transaction::set`].
    pub fn set_encoded<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        value: &[u8],
    ) -> Result<(), WriteError<S::Error>> {
        if id.counter_strategy().is_some() {
            return Err(WriteError::NotThisOperation);
        }
        self.grow(key.len() + HEADERS_BYTES_MAX + value.len())?;
        let (now, own) = (self.now, (self.replica, self.number));
        let row = self.read_alive(namespace, source, gen_index, key)?;
        let hlc = match row.cell(id).map(|cell| cell.stamp) {
            None => Some(now),
            Some(_) if id.tag() == Strategy::Immutable.tag() => return Err(WriteError::Immutable),
            // The value replaces one of this transaction, and with it the time that it had.
            Some(stamp) if (stamp.replica, stamp.number) == own => Some(stamp.hlc),
            Some(stamp) => stamp.hlc.overwritten_at(now),
        };
        let (life, hlc) = (row.life, hlc.ok_or(WriteError::ClockAtCeiling)?);
        self.write(gen_index, key, life, Operation { id, hlc, value });
        Ok(())
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
            return Err(WriteError::NotThisOperation);
        }
        let range = field.value_type.integer_range().unwrap_or((i128::MIN, i128::MAX));
        let least = field.counter.min_value.map_or(range.0, i128::from);
        let greatest = field.counter.max_value.map_or(range.1, i128::from);
        let bounds = (least.max(range.0), greatest.min(range.1));
        self.add_within(namespace, source, gen_index, key, field.id(), bounds, amount)
    }

    /// [`Transaction::add`] for an integer counter that is known by its cell and bounds.
    ///
    /// # Errors
    /// As for [`Transaction::add`].
    #[allow(clippy::too_many_arguments)] // A document, a field and a context, spelled out.
    pub fn add_within<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        (least, greatest): (i128, i128),
        amount: i64,
    ) -> Result<(), WriteError<S::Error>> {
        self.grow(key.len() + HEADERS_BYTES_MAX + TOTAL_BYTES_MAX)?;
        let replica = self.replica;
        let row = self.read_alive(namespace, source, gen_index, key)?;
        let state = row.state(id);
        let total = counter::integer_sum(state).wrapping_add(amount.into());
        // A merge may have taken the counter past a bound; coming back is always allowed.
        if (amount < 0 && total < least) || (amount > 0 && total > greatest) {
            return Err(WriteError::OutOfBounds { total });
        }
        let own = counter::decode_integer(counter::own_total(state, replica)).unwrap_or(0);
        let mut value = Vec::new();
        counter::encode_integer(own.wrapping_add(amount.into()), &mut value);
        let life = row.life;
        self.write(gen_index, key, life, Operation { id, hlc: self.now, value: &value });
        Ok(())
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
            return Err(WriteError::NotThisOperation);
        }
        self.grow(key.len() + HEADERS_BYTES_MAX + TOTAL_BYTES_MAX)?;
        let (replica, id) = (self.replica, field.id());
        let row = self.read_alive(namespace, source, gen_index, key)?;
        let own = counter::own_total(row.state(id), replica);
        let total = counter::decode_float(own).unwrap_or(0.0) + amount;
        // Peers refuse what is not finite.
        if !total.is_finite() {
            return Err(WriteError::TypeMismatch);
        }
        let mut value = Vec::new();
        counter::encode_float(total, &mut value);
        let life = row.life;
        self.write(gen_index, key, life, Operation { id, hlc: self.now, value: &value });
        Ok(())
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
        namespace.table_mut(gen_index).load(key, source)?;
        let namespace = &*namespace;
        let stored = namespace.loaded_row(gen_index, key);
        let Ok(place) = self.position(gen_index, key) else {
            return Ok(stored);
        };
        let pending = self.documents[self.sorted[place] as usize].as_change();
        let stamp = Stamp { hlc: self.now, replica: self.replica, number: self.number };
        let mut delta = Vec::new();
        pending.write_row(stamp, &mut delta);
        self.scratch.clear();
        match stored {
            Some(stored) => {
                let delta = Row::parse(&delta);
                join_rows(&stored, &delta, &namespace.replicas, &mut self.scratch);
            }
            None => self.scratch.append(&mut delta),
        }
        Ok(Some(Row::parse(&self.scratch)))
    }

    /// The row of a document that exists.
    fn read_alive<'t, S: ChunkSource>(
        &'t mut self,
        namespace: &'t mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Result<Row<'t>, WriteError<S::Error>> {
        let row = self.read(namespace, source, gen_index, key)?;
        row.filter(Row::is_alive).ok_or(WriteError::NotFound)
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
        if self.is_empty() {
            return Ok(None);
        }
        let mut body = Vec::with_capacity(self.byte_count);
        write_varint(&mut body, self.documents.len() as u64);
        for document in &self.documents {
            document.as_change().encode(document.gen_index, &mut body);
        }
        let change =
            Change { replica: self.replica, number: self.number, now: self.now, body: &body };
        namespace.apply_own(&change, source, observer)?;
        Ok(Some(self.number))
    }

    /// Counts towards the bound of a change, generously: peers refuse one that is larger.
    fn grow<E>(&mut self, byte_count: usize) -> Result<(), WriteError<E>> {
        if self.byte_count + byte_count > MAX_CHANGE_BYTES {
            return Err(WriteError::ChangeTooLarge);
        }
        self.byte_count += byte_count;
        Ok(())
    }

    fn position(&self, gen_index: GenIndex, key: &[u8]) -> Result<usize, usize> {
        let wanted = (gen_index, key);
        self.sorted.binary_search_by(|index| {
            let document = &self.documents[*index as usize];
            (document.gen_index, document.key.as_slice()).cmp(&wanted)
        })
    }

    fn begin_life(&mut self, gen_index: GenIndex, key: &[u8], life: u64) {
        let document = self.document(gen_index, key, life);
        document.life = life;
        document.operations.clear();
    }

    fn write(&mut self, gen_index: GenIndex, key: &[u8], life: u64, operation: Operation<'_>) {
        let now = self.now;
        let document = self.document(gen_index, key, life);
        let mut operations = Vec::with_capacity(document.operations.len() + HEADERS_BYTES_MAX);
        document.as_change().write_operations_with(operation, now, &mut operations);
        document.operations = operations;
    }

    fn document(&mut self, gen_index: GenIndex, key: &[u8], life: u64) -> &mut PendingDocument {
        let place = self.position(gen_index, key).unwrap_or_else(|place| {
            self.sorted.insert(place, self.documents.len() as u32);
            let key = Vec::from(key);
            self.documents.push(PendingDocument { gen_index, key, life, operations: Vec::new() });
            place
        });
        &mut self.documents[self.sorted[place] as usize]
    }
}

impl PendingDocument {
    fn as_change(&self) -> DocumentChange<'_> {
        let PendingDocument { gen_index, key, life, operations } = self;
        DocumentChange { gen_index: *gen_index, key, life: *life, operations }
    }
}
