//! Adding to counters: of integers, of floats, and within bounds that hold everywhere.

use alloc::vec::Vec;

use super::Transaction;
use crate::change::{GenIndex, Operation};
use crate::counter::{self, BoundedCounter, Direction};
use crate::dots::Entries;
use crate::evolution::Inherited;
use crate::namespace::Namespace;
use crate::refusal::{Refusal, WriteError};
use crate::replica::ReplicaKey;
use crate::row::{CellId, Stamp};
use crate::schema::{FieldSchema, Strategy};
use crate::source::ChunkSource;

impl Transaction {
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
        let inherited = self.inherited(namespace, gen_index, key, field);
        Ok(self.add_over_loaded(namespace, gen_index, key, field, amount, inherited)?)
    }

    /// [`Transaction::add`] where the chunk is loaded, to a field that inherits this from the cells
    /// that it had before.
    ///
    /// # Errors
    /// As for [`Transaction::add`].
    pub fn add_over_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
        amount: i64,
        inherited: Inherited,
    ) -> Result<(), Refusal> {
        match field.strategy {
            Strategy::PnCounter | Strategy::GCounter => {
                let (least, greatest) = field.counter_bounds();
                // The bounds are those of the sum.
                let own = |bound: i128| bound.saturating_sub(inherited.total);
                let bounds = (own(least), own(greatest));
                self.add_loaded(namespace, gen_index, key, field.id(), &bounds, amount)
            }
            Strategy::BoundedCounter => {
                let counter = field.bounded_counter();
                self.add_bounded_loaded(namespace, gen_index, key, &counter, amount)
            }
            _ => Err(Refusal::NotThisOperation),
        }
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
        counter: &BoundedCounter,
        amount: i64,
    ) -> Result<(), Refusal> {
        let direction = if amount < 0 { Direction::Down } else { Direction::Up };
        let count = i128::from(amount).abs();
        self.use_rights(namespace, gen_index, key, counter, (&[], direction, count))
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
        let give = (receiver, direction, amount);
        Ok(self.give_rights_loaded(namespace, gen_index, key, &field.bounded_counter(), give)?)
    }

    /// [`Transaction::give_rights`] where the chunk is loaded.
    ///
    /// # Errors
    /// As for [`Transaction::give_rights`].
    pub fn give_rights_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        counter: &BoundedCounter,
        (receiver, direction, amount): (&ReplicaKey, Direction, i64),
    ) -> Result<(), Refusal> {
        let give = (receiver.0.as_slice(), direction, amount.into());
        self.use_rights(namespace, gen_index, key, counter, give)
    }

    /// How far this replica may move a `bounded_counter`, whose chunk is loaded, in a direction.
    ///
    /// # Errors
    /// The document does not exist.
    pub fn rights_loaded(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        counter: &BoundedCounter,
        direction: Direction,
    ) -> Result<i128, Refusal> {
        let replica = self.stamp.replica;
        let row = self.view(namespace, gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound);
        }
        let replicas = namespace.replicas();
        let state = row.state(counter.id);
        let mut rights = counter::rights_of(state, replica, replicas, direction);
        // What may be used from the start is the founder's; nobody else must think it his.
        if namespace.founder() == Some(replica) {
            let (least, greatest) = &counter.bounds;
            let start = counter::start_within(&counter.bounds);
            let (to, from) = match direction {
                Direction::Up => (greatest, &start),
                Direction::Down => (&start, least),
            };
            counter::add(&mut rights, to, false);
            counter::add(&mut rights, from, true);
        }
        Ok(rights)
    }

    /// Uses rights of this replica itself, or gives them to a receiver.
    fn use_rights(
        &mut self,
        namespace: &Namespace,
        gen_index: GenIndex,
        key: &[u8],
        counter: &BoundedCounter,
        (receiver, direction, amount): (&[u8], Direction, i128),
    ) -> Result<(), Refusal> {
        let rights = self.rights_loaded(namespace, gen_index, key, counter, direction)?;
        if amount < 0 || counter::is_less(&rights, &amount) {
            return Err(Refusal::NoRights);
        }
        let Stamp { hlc, replica, .. } = self.stamp;
        let id = counter.id;
        let row = self.view(namespace, gen_index, key);
        let life = row.life;
        let own = Entries::of(row.state(id)).find(replica);
        let mut value = Vec::new();
        counter::write_rights(&own, receiver, direction, &amount, &mut value);
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
        (least, greatest): &(i128, i128),
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
        let mut total = counter::integer_sum(state);
        let wide_amount = amount.into();
        counter::add(&mut total, &wide_amount, false);
        // A merge may have taken the counter past a bound; coming back is always allowed.
        let (lesser, greater) = if amount < 0 { (&total, least) } else { (greatest, &total) };
        if amount != 0 && counter::is_less(lesser, greater) {
            return Err(Refusal::OutOfBounds);
        }
        let mut own = 0;
        counter::read_integer(counter::own_total(state, stamp.replica), &mut own);
        counter::add(&mut own, &wide_amount, false);
        let mut value = Vec::new();
        counter::encode_integer(&own, &mut value);
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
}
