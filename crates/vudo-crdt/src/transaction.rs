//! A transaction of this store: local writes that become one change.
//!
//! A transaction reads what it wrote. Nothing reaches the tables before [`Transaction::commit`].
//!
//! Each write comes twice: once for a namespace whose chunks may lie on disk, and once, with
//! `loaded` in its name, for one whose chunk of the document is in memory.

use alloc::vec::Vec;

use crate::change::{Change, DocumentChange, GenIndex, Operation, write_body_head};
use crate::counter::{self, Direction, Rights};
use crate::dots::{RegisterWrite, live_values};
use crate::hlc::Hlc;
use crate::join::Joiner;
use crate::limits::{MAX_CHANGE_BYTES, MAX_ELEMENT_BYTES, MAX_KEY_BYTES, MAX_LIFE};
use crate::namespace::{Namespace, Observer};
use crate::refusal::{Refusal, WriteError};
use crate::replica::{ReplicaIndex, ReplicaKey};
use crate::row::{CellId, Row, Stamp, entries_prefix, entry_key, is_entry_key, split_entry_key};
use crate::schema::{FieldSchema, Strategy};
use crate::sorted::Sorted;
use crate::source::{ChunkError, ChunkSource};
use crate::value::{Value, encode_counts, step_over_value, write_counts};
use crate::wire::Reader;

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
        if id.is_counter() || id.is_collection() {
            return Err(Refusal::NotThisOperation);
        }
        if id.is_mv_register() {
            return self.set_mv_register(namespace, gen_index, key, id, value);
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
        self.write(namespace, gen_index, key, life, Operation { id, hlc, value })
    }

    #[inline(never)]
    fn set_mv_register(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        value: &[u8],
    ) -> Result<(), Refusal> {
        let row = self.view(namespace, gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound);
        }
        let life = row.life;
        let Stamp { hlc: now, replica, .. } = self.stamp;
        let mut write = self.register_write(gen_index, key, id);
        let state = self.stored_state(namespace, gen_index, key, id);
        write.cover_known(state);
        let mut hlc = now;
        for live in live_values(state, namespace.replicas()) {
            let later = live.hlc.overwritten_at(now).ok_or(Refusal::ClockAtCeiling)?;
            hlc = hlc.max(later);
        }
        write.leave_out(replica);
        let payload = write.encode(Some(value), |covered| self.reference(covered));
        self.write(namespace, gen_index, key, life, Operation { id, hlc, value: &payload })
    }

    /// The state of a cell as it was before this transaction, in the life that the transaction sees.
    fn stored_state<'n>(
        &self,
        namespace: &'n Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
    ) -> &'n [u8] {
        let stored = namespace.stored_row(gen_index, key);
        if stored.is_empty() || self.has_ended(namespace, gen_index, key) {
            return &[];
        }
        let row = Row::parse(stored);
        let pending_life = self.pending(gen_index, key).map_or(row.life, |pending| pending.life);
        if pending_life == row.life { row.state(id) } else { &[] }
    }

    /// What this transaction has done to an `mv_register` so far, which its next operation there has
    /// to do as well.
    fn register_write(&self, gen_index: GenIndex, key: &[u8], id: CellId) -> RegisterWrite {
        let mut write = RegisterWrite::default();
        let pending = self.pending(gen_index, key);
        let mut operations = pending.iter().flat_map(|document| document.operations(Hlc::ZERO));
        if let Some(operation) = operations.find(|operation| operation.id == id) {
            write.cover_as(operation.value, &self.joiner.references);
        }
        write
    }

    /// The place of a replica among those that the change refers to.
    fn reference(&mut self, replica: ReplicaIndex) -> u64 {
        let references = &mut self.joiner.references;
        let known = references.iter().position(|known| *known == replica);
        known.unwrap_or_else(|| {
            references.push(replica);
            references.len() - 1
        }) as u64
    }

    /// Adds an element, given as an encoded value, to a set. The chunks of the document, and of the
    /// entry where it is one, must be loaded.
    ///
    /// # Errors
    /// The document or entry does not exist, the field is no set, or the element is too long.
    pub fn add_element_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        set: CellId,
        element: &[u8],
    ) -> Result<(), Refusal> {
        self.write_element(namespace, gen_index, key, set, element, true)
    }

    /// Takes an element, given as an encoded value, out of a set; nothing happens where it is not in
    /// there. What others add at the same time stays.
    ///
    /// # Errors
    /// As for [`Transaction::add_element_loaded`].
    pub fn remove_element_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        set: CellId,
        element: &[u8],
    ) -> Result<(), Refusal> {
        self.write_element(namespace, gen_index, key, set, element, false)
    }

    #[inline(never)]
    fn write_element(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        set: CellId,
        element: &[u8],
        adds: bool,
    ) -> Result<(), Refusal> {
        if !set.is_collection() || set.is_map() {
            return Err(Refusal::NotThisOperation);
        }
        let entry = self.entry_of_alive(namespace, gen_index, key, set, element)?;
        let id = CellId::ELEMENT;
        let Stamp { hlc, replica, .. } = self.stamp;
        if !adds && !self.view(namespace, gen_index, &entry).is_element() {
            return Ok(());
        }
        let mut write = self.register_write(gen_index, &entry, id);
        if adds {
            write.leave_out(replica);
        } else {
            write.cover_known(self.stored_state(namespace, gen_index, &entry, id));
        }
        if !adds && write.covers_nothing() {
            // It was added by this transaction and nobody else: then nothing has happened.
            if let Ok(place) = position(&self.entries, gen_index, &entry) {
                self.entries.remove(place, 1);
            }
            return Ok(());
        }
        let payload = write.encode(adds.then_some(&[]), |covered| self.reference(covered));
        self.write(namespace, gen_index, &entry, 0, Operation { id, hlc, value: &payload })
    }

    /// The key of an entry of a map under this key, given as an encoded value, for use as the key of
    /// a document; the entry is created where it is not there. The chunks of both must be loaded.
    ///
    /// # Errors
    /// The document or entry does not exist, the field is no map, or the key is too long.
    pub fn entry_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        map: CellId,
        element: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        if !map.is_map() {
            return Err(Refusal::NotThisOperation);
        }
        let entry = self.entry_of_alive(namespace, gen_index, key, map, element)?;
        let row = self.view(namespace, gen_index, &entry);
        let (is_alive, life) = (row.is_alive(), row.life);
        if life == MAX_LIFE {
            return Err(Refusal::ClockAtCeiling);
        }
        if !is_alive {
            self.begin_life(namespace, gen_index, &entry, life + 1)?;
        }
        Ok(entry)
    }

    /// Takes the entry under a key, given as an encoded value, out of a map; nothing happens where
    /// there is none.
    ///
    /// # Errors
    /// As for [`Transaction::entry_loaded`].
    pub fn remove_entry_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        map: CellId,
        element: &[u8],
    ) -> Result<(), Refusal> {
        if !map.is_map() {
            return Err(Refusal::NotThisOperation);
        }
        let entry = self.entry_of_alive(namespace, gen_index, key, map, element)?;
        let row = self.view(namespace, gen_index, &entry);
        let (is_alive, life) = (row.is_alive(), row.life);
        if is_alive { self.begin_life(namespace, gen_index, &entry, life + 1) } else { Ok(()) }
    }

    /// The key of an entry in a document or entry, which must exist.
    fn entry_of_alive(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        collection: CellId,
        element: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        if element.len() > MAX_ELEMENT_BYTES {
            return Err(Refusal::KeyLength);
        }
        if !self.view(namespace, gen_index, key).is_alive() {
            return Err(Refusal::NotFound);
        }
        Ok(entry_key(key, collection, element))
    }

    /// Adds to an integer counter; a negative amount takes away.
    ///
    /// # Errors
    /// The document does not exist, the field is no integer counter, the counter would leave the
    /// bounds of its options or the range of its type, or one that only grows would shrink. A
    /// `bounded_counter` needs rights as well: see [`Transaction::give_rights`].
    pub fn add<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
        amount: i64,
    ) -> Result<(), WriteError<S::Error>> {
        namespace.load(gen_index, key, source)?;
        let (id, bounds) = (field.id(), field.counter_bounds());
        Ok(match field.strategy {
            Strategy::PnCounter | Strategy::GCounter => {
                self.add_loaded(namespace, gen_index, key, id, bounds, amount)
            }
            Strategy::BoundedCounter => {
                self.add_bounded_loaded(namespace, gen_index, key, id, bounds, amount)
            }
            _ => Err(Refusal::NotThisOperation),
        }?)
    }

    /// Adds to a `bounded_counter` where the chunk is loaded. Bounds at the end of the type's range
    /// are as good as none.
    ///
    /// # Errors
    /// The document does not exist, or this replica lacks the rights for this amount.
    pub fn add_bounded_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        bounds: (i128, i128),
        amount: i64,
    ) -> Result<(), Refusal> {
        let direction = if amount < 0 { Direction::Down } else { Direction::Up };
        let (life, mut own, rights) =
            self.rights(namespace, gen_index, key, id, bounds, direction)?;
        let count = i128::from(amount).abs();
        if count > rights {
            return Err(Refusal::NoRights);
        }
        let total = if amount < 0 { &mut own.taken } else { &mut own.added };
        *total = total.wrapping_add(count);
        self.write_rights(namespace, gen_index, key, life, id, &own)
    }

    /// Gives rights of this replica on a `bounded_counter` to another one, which then may move the
    /// counter in that direction by as much.
    ///
    /// # Errors
    /// The document does not exist, the field is no `bounded_counter`, the amount is negative, or
    /// this replica has fewer rights.
    #[allow(clippy::too_many_arguments)] // What, where, to whom and how much.
    pub fn give_rights<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        source: &mut S,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
        receiver: &ReplicaKey,
        direction: Direction,
        amount: i64,
    ) -> Result<(), WriteError<S::Error>> {
        if field.strategy != Strategy::BoundedCounter {
            return Err(Refusal::NotThisOperation.into());
        }
        namespace.load(gen_index, key, source)?;
        let (id, bounds) = (field.id(), field.counter_bounds());
        let give = (receiver, direction, amount);
        Ok(self.give_rights_loaded(namespace, gen_index, key, id, bounds, give)?)
    }

    /// [`Transaction::give_rights`] where the chunk is loaded, of a counter that is known by its
    /// cell and its bounds.
    ///
    /// # Errors
    /// As for [`Transaction::give_rights`].
    pub fn give_rights_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        bounds: (i128, i128),
        (receiver, direction, amount): (&ReplicaKey, Direction, i64),
    ) -> Result<(), Refusal> {
        let (life, mut own, rights) =
            self.rights(namespace, gen_index, key, id, bounds, direction)?;
        if amount < 0 || i128::from(amount) > rights {
            return Err(Refusal::NoRights);
        }
        own.give(receiver, direction, amount.into());
        self.write_rights(namespace, gen_index, key, life, id, &own)
    }

    /// How far this replica may move a `bounded_counter` in a direction, whose chunk is loaded and
    /// which is known by its cell and its bounds.
    ///
    /// # Errors
    /// The document does not exist.
    pub fn rights_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        bounds: (i128, i128),
        direction: Direction,
    ) -> Result<i128, Refusal> {
        Ok(self.rights(namespace, gen_index, key, id, bounds, direction)?.2)
    }

    /// The document's life, what this replica has done to a bounded counter, and its rights.
    fn rights(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        (least, greatest): (i128, i128),
        direction: Direction,
    ) -> Result<(u64, Rights, i128), Refusal> {
        let replica = self.stamp.replica;
        let row = self.view(namespace, gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound);
        }
        let (life, state) = (row.life, row.state(id));
        let own = Rights::decode(counter::own_total(state, replica)).unwrap_or_default();
        let granted = counter::rights_of(state, replica, namespace.replicas());
        // What may be used from the start is the founder's; nobody else must think it his.
        let start = counter::start_within(least, greatest);
        let from_start = match (namespace.founder() == Some(replica), direction) {
            (false, _) => 0,
            (true, Direction::Up) => greatest - start,
            (true, Direction::Down) => start - least,
        };
        let rights = granted[direction as usize].saturating_add(from_start);
        Ok((life, own, rights))
    }

    fn write_rights(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        life: u64,
        id: CellId,
        rights: &Rights,
    ) -> Result<(), Refusal> {
        let mut value = Vec::new();
        rights.encode(&mut value);
        let hlc = self.stamp.hlc;
        self.write(namespace, gen_index, key, life, Operation { id, hlc, value: &value })
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
        if amount < 0 && id.tag() == Strategy::GCounter.tag() {
            return Err(Refusal::OutOfBounds);
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
        self.write(namespace, gen_index, key, life, Operation { id, hlc: stamp.hlc, value: &value })
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
        self.write(namespace, gen_index, key, life, Operation { id, hlc: stamp.hlc, value: &value })
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
        if row.is_empty() { Row::none() } else { Row::parse(row) }
    }

    /// Whether what is stored of an entry ends with this transaction, because the document or entry
    /// that it is in begins another life.
    fn has_ended(&self, namespace: &Namespace, gen_index: GenIndex, key: &[u8]) -> bool {
        let mut rest = key;
        while let Some((parent, _, _)) = split_entry_key(rest) {
            if let Some(pending) = self.pending(gen_index, parent) {
                let stored = namespace.stored_row(gen_index, parent);
                if stored.is_empty() || Row::parse(stored).life != pending.life {
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
        for document in self.entries_within(gen_index, &prefix) {
            let mut rest = Reader::new(&DocumentChange::of(document).key[prefix.len()..]);
            let element = step_over_value(&mut rest);
            if rest.is_empty() {
                insert(element);
            }
        }
        for element in elements.iter() {
            let entry = entry_key(key, collection, element);
            visit(element, self.view(namespace, gen_index, &entry));
        }
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
        let mut body = Vec::new();
        let mut replicas = Vec::new();
        if cfg!(feature = "collections") {
            for replica in self.joiner.references.iter().skip(1) {
                replicas.extend_from_slice(&namespace.replicas.key(*replica).0);
            }
        }
        write_body_head(self.document_count(), &replicas, &mut body);
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
        for operation in document.operations(now) {
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
        for bytes in self.entries_within(owner.gen_index, &prefix) {
            let entry = DocumentChange::of(bytes);
            let mut rest = Reader::new(&entry.key[prefix.len()..]);
            let element = step_over_value(&mut rest);
            // What follows the element is for a collection of the entry, which is written with it.
            if rest.is_empty() {
                let mut operations = Vec::new();
                self.nest_entries(&entry, &mut operations);
                let nested = DocumentChange { operations: &operations, ..entry };
                nested.encode_entry(element, out);
            }
        }
    }

    /// What the transaction does to the entries whose keys begin with these bytes, ascending.
    fn entries_within<'t>(
        &'t self,
        gen_index: GenIndex,
        prefix: &'t [u8],
    ) -> impl Iterator<Item = &'t [u8]> + use<'t> {
        let (Ok(first) | Err(first)) = position(&self.entries, gen_index, prefix);
        let entries = self.entries.iter_from(first).map(|bytes| bytes.as_slice());
        entries.take_while(move |bytes| {
            let entry = DocumentChange::of(bytes);
            entry.gen_index == gen_index && entry.key.starts_with(prefix)
        })
    }

    /// What the transaction does to a document or entry so far.
    fn pending(&self, gen_index: GenIndex, key: &[u8]) -> Option<DocumentChange<'_>> {
        let list = if is_entry_key(key) { &self.entries } else { &self.documents };
        let place = position(list, gen_index, key).ok()?;
        Some(DocumentChange::of(list.at(place)))
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
            let prefix = entries_prefix(key);
            let count = self.entries_within(gen_index, &prefix).count();
            let (Ok(first) | Err(first)) = position(&self.entries, gen_index, &prefix);
            self.entries.remove(first, count);
        }
        self.touch_owner(namespace, gen_index, key)?;
        self.put(&DocumentChange { gen_index, key, life, operations: &[] }, 0)
    }

    fn write(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        life: u64,
        operation: Operation<'_>,
    ) -> Result<(), Refusal> {
        self.touch_owner(namespace, gen_index, key)?;
        let mut operations = Vec::new();
        let document = DocumentChange { gen_index, key, life, operations: &[] };
        let document = self.pending(gen_index, key).unwrap_or(document);
        document.write_operations_with(operation, self.stamp.hlc, &mut operations);
        let value_bytes = operation.value.len();
        self.put(&DocumentChange { gen_index, key, life, operations: &operations }, value_bytes)
    }

    /// Has the document or entry that an entry is in say that the collection is written to.
    fn touch_owner(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
    ) -> Result<(), Refusal> {
        let Some((owner, id, _)) = split_entry_key(key) else {
            return Ok(());
        };
        if let Some(pending) = self.pending(gen_index, owner)
            && pending.operations(Hlc::ZERO).any(|operation| operation.id == id)
        {
            return Ok(());
        }
        let life = self.view(namespace, gen_index, owner).life;
        let mut nothing = Vec::new();
        encode_counts(&[], &mut nothing);
        let operation = Operation { id, hlc: self.stamp.hlc, value: &nothing };
        self.write(namespace, gen_index, owner, life, operation)
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
