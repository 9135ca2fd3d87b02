//! Writes to registers of many values, sets and maps: what they have in common is that a write says
//! which earlier ones it covers.

use alloc::vec::Vec;

use super::{Transaction, position};
use crate::change::{GenIndex, Operation};
use crate::dots::{RegisterWrite, visit_live};
use crate::hlc::Hlc;
use crate::limits::{MAX_ELEMENT_BYTES, MAX_LIFE};
use crate::namespace::Namespace;
use crate::refusal::Refusal;
use crate::row::{CellId, Row, entry_key};

impl Transaction {
    #[inline(never)]
    pub(super) fn set_mv_register(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        value: &[u8],
        mut latest: Option<Hlc>,
    ) -> Result<(), Refusal> {
        let row = self.view(namespace, gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound);
        }
        let life = row.life;
        let now = self.stamp.hlc;
        let state = self.stored_state(namespace, gen_index, key, id);
        visit_live(state, |live| latest = latest.max(Some(live.hlc)));
        let hlc = match latest {
            Some(latest) => latest.overwritten_at(now).ok_or(Refusal::ClockAtCeiling)?,
            None => now,
        };
        let operation = Operation { id, hlc, value };
        self.write_covering(namespace, gen_index, key, life, operation, state, true)
    }

    /// Writes the value of an operation to an `mv_register`, or nothing, over all that a state knows
    /// of and that this transaction has covered so far.
    #[allow(clippy::too_many_arguments)] // Where, what, and over what.
    #[inline(never)]
    fn write_covering(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        life: u64,
        operation: Operation<'_>,
        state: &[u8],
        writes: bool,
    ) -> Result<(), Refusal> {
        let Operation { id, value, .. } = operation;
        let mut write = RegisterWrite::again(self.pending_operation(gen_index, key, id));
        write.cover_known(state, &mut self.joiner.references);
        if !writes && write.covers_nothing() {
            // It was added by this transaction and nobody else: then nothing has happened.
            if let Ok(place) = position(&self.entries, gen_index, key) {
                self.entries.remove(place, 1);
            }
            return Ok(());
        }
        let payload = write.encode(writes.then_some(value));
        self.write(namespace, gen_index, key, life, Operation { value: &payload, ..operation })
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
        if self.has_ended(namespace, gen_index, key) {
            return &[];
        }
        let row = Row::parse_stored(stored);
        let pending_life = self.pending(gen_index, key).map_or(row.life, |pending| pending.life);
        if pending_life == row.life { row.state(id) } else { &[] }
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
        let hlc = self.stamp.hlc;
        if !adds && !self.view(namespace, gen_index, &entry).is_element() {
            return Ok(());
        }
        let state = match adds {
            true => &[],
            false => self.stored_state(namespace, gen_index, &entry, id),
        };
        let operation = Operation { id, hlc, value: &[] };
        self.write_covering(namespace, gen_index, &entry, 0, operation, state, adds)
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
}
