//! A transaction: reads and writes over many documents that become one change.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use vudo_crdt::{
    Direction, FieldSchema, GenIndex, GenSchema, Inherited, Reading, ReplicaKey, Strategy,
    TransactionView, Value, WriteError, entry_key,
};

use crate::error::{Error, Refusal, Result};
use crate::path::FieldPath;
use crate::record::{Record, field_of, load_fields};
use crate::rules::broken_rules;
use crate::shard::{Shard, State};
use crate::storage::StorageError;

/// Reads and writes of one namespace that become one change. It reads what it wrote.
pub struct Transaction<'a> {
    shard: &'a Shard,
    state: &'a mut State,
    writes: vudo_crdt::Transaction,
    /// The keys of documents that have been written to, by Gens that have rules.
    ruled: BTreeMap<GenIndex, (GenSchema, BTreeSet<String>)>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn begin(shard: &'a Shard, state: &'a mut State, now_milliseconds: u64) -> Self {
        let writes = state.begin(now_milliseconds);
        Transaction { shard, state, writes, ruled: BTreeMap::new() }
    }

    /// Refuses what would break a rule that holds now.
    pub(crate) fn check_rules(&mut self) -> Result<()> {
        let by_gen = self.ruled.iter();
        let documents = by_gen.flat_map(|(gen_index, (gen_schema, keys))| {
            keys.iter().map(move |key| (gen_index, gen_schema, key))
        });
        for (gen_index, gen_schema, key) in documents {
            let namespace = &mut self.state.namespace;
            load_fields(namespace, &mut self.shard.chunks(), gen_schema, *gen_index, key)?;
            let mut view = TransactionView { transaction: &mut self.writes, namespace };
            let mut broken = broken_rules(&mut view, gen_schema, *gen_index, key);
            if !broken.is_empty() {
                let before = broken_rules(&mut &*namespace, gen_schema, *gen_index, key);
                broken.retain(|rule| !before.contains(rule));
            }
            if let Some(rule) = broken.first() {
                return Err(Error::RuleBroken {
                    gen_name: gen_schema.name.clone(),
                    key: key.clone(),
                    rule: (*rule).to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Refuses what would be set aside.
    pub(crate) fn check_rights(&self) -> Result<()> {
        self.shard.check_rights(self.state, &self.writes)
    }

    /// Has the rules of a document's Gen looked at before the transaction is committed.
    fn will_change(&mut self, gen_schema: &GenSchema, gen_index: GenIndex, key: &str) {
        if !gen_schema.rules.is_empty() {
            let of_gen = self.ruled.entry(gen_index);
            let (_, keys) = of_gen.or_insert_with(|| (gen_schema.clone(), BTreeSet::new()));
            if !keys.contains(key) {
                keys.insert(key.to_owned());
            }
        }
    }

    pub(crate) fn into_writes(self) -> vudo_crdt::Transaction {
        self.writes
    }

    /// How many documents have been written to.
    pub fn document_count(&self) -> usize {
        self.writes.document_count()
    }

    /// Creates a document.
    ///
    /// # Errors
    /// It exists, or its key is empty or too long.
    pub fn create(&mut self, gen_schema: &GenSchema, key: &str) -> Result<()> {
        let gen_index = self.gen_index(gen_schema)?;
        self.will_change(gen_schema, gen_index, key);
        let namespace = &mut self.state.namespace;
        self.writes
            .create(namespace, &mut self.shard.chunks(), gen_index, key.as_bytes())
            .map_err(|reason| Error::refused(&gen_schema.name, key, reason))
    }

    /// Deletes a document.
    ///
    /// # Errors
    /// It does not exist.
    pub fn delete(&mut self, gen_schema: &GenSchema, key: &str) -> Result<()> {
        let gen_index = self.gen_index(gen_schema)?;
        let namespace = &mut self.state.namespace;
        self.writes
            .delete(namespace, &mut self.shard.chunks(), gen_index, key.as_bytes())
            .map_err(|reason| Error::refused(&gen_schema.name, key, reason))
    }

    /// Sets a field, or adds to it where it is a counter. A set is given as the list of all of its
    /// elements, and a map with all of its entries: what is not among them is taken out.
    ///
    /// # Errors
    /// The document or the field does not exist, or the field refuses the value.
    pub fn write<'p>(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        path: impl Into<FieldPath<'p>>,
        value: impl Into<Value>,
    ) -> Result<()> {
        let (path, value) = (path.into(), value.into());
        let at = self.place(gen_schema, key, &path)?;
        let written = match at.field.strategy {
            Strategy::OrSet => self.replace_elements(&at, &value),
            Strategy::Map => self.replace_entries(gen_schema, key, &path, &at, value)?,
            strategy if strategy.is_counter() => self.add_at(&at, &value),
            _ => self.set_at(&at, &value),
        };
        written.map_err(|reason| refused(gen_schema, key, &path, reason))
    }

    /// Sets a field. What an `mv_register` holds is replaced.
    ///
    /// # Errors
    /// The document or the field does not exist, the field is no register or immutable and set, or
    /// the value is not of its type.
    pub fn set<'p>(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        path: impl Into<FieldPath<'p>>,
        value: impl Into<Value>,
    ) -> Result<()> {
        let path = path.into();
        let at = self.place(gen_schema, key, &path)?;
        let written = self.set_at(&at, &value.into());
        written.map_err(|reason| refused(gen_schema, key, &path, reason))
    }

    /// Adds to a counter; a negative amount takes away.
    ///
    /// # Errors
    /// The document or the field does not exist, the field is no counter, or it would leave its
    /// bounds.
    pub fn add<'p>(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        path: impl Into<FieldPath<'p>>,
        amount: impl Into<Value>,
    ) -> Result<()> {
        let path = path.into();
        let at = self.place(gen_schema, key, &path)?;
        let written = self.add_at(&at, &amount.into());
        written.map_err(|reason| refused(gen_schema, key, &path, reason))
    }

    /// Adds an element to a set.
    ///
    /// # Errors
    /// The document or the field does not exist, the field is no set, or the element is not of its
    /// type or too long.
    pub fn add_element<'p>(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        path: impl Into<FieldPath<'p>>,
        element: impl Into<Value>,
    ) -> Result<()> {
        let path = path.into();
        let at = self.place(gen_schema, key, &path)?;
        let written = self.write_element(&at, &element.into(), true);
        written.map_err(|reason| refused(gen_schema, key, &path, reason))
    }

    /// Takes an element out of a set; nothing happens where it is not in there.
    ///
    /// # Errors
    /// As for [`Transaction::add_element`].
    pub fn remove_element<'p>(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        path: impl Into<FieldPath<'p>>,
        element: impl Into<Value>,
    ) -> Result<()> {
        let path = path.into();
        let at = self.place(gen_schema, key, &path)?;
        let written = self.write_element(&at, &element.into(), false);
        written.map_err(|reason| refused(gen_schema, key, &path, reason))
    }

    /// Takes what lies under the last key of a path out of its map; nothing happens where nothing
    /// does.
    ///
    /// # Errors
    /// The document or the field does not exist, or the field is no map of such keys.
    pub fn remove_entry<'p>(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        path: impl Into<FieldPath<'p>>,
    ) -> Result<()> {
        let mut path = path.into();
        let Some(last) = path.keys.pop() else {
            let reason = WriteError::Refused(Refusal::NotThisOperation);
            return Err(refused(gen_schema, key, &path, reason));
        };
        let at = self.place(gen_schema, key, &path)?;
        let removed = self.remove_entry_at(&at, &last);
        removed.map_err(|reason| refused(gen_schema, key, &path, reason))
    }

    /// Gives this replica's rights on a `bounded_counter` to another one, which then may move the
    /// counter in that direction by as much.
    ///
    /// # Errors
    /// The document or the field does not exist, the field is no `bounded_counter`, or this replica
    /// has fewer rights.
    pub fn give_rights(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        field: &str,
        receiver: &ReplicaKey,
        direction: Direction,
        amount: i64,
    ) -> Result<()> {
        let path = FieldPath::from(field);
        let at = self.place(gen_schema, key, &path)?;
        let (space, mut chunks) = (&mut self.state.namespace, self.shard.chunks());
        let Place { gen_index, row_key, field, .. } = &at;
        self.writes
            .give_rights(
                space,
                &mut chunks,
                *gen_index,
                row_key,
                field,
                receiver,
                direction,
                amount,
            )
            .map_err(|reason| refused(gen_schema, key, &path, reason))
    }

    /// How far this replica may move a `bounded_counter` in a direction.
    ///
    /// # Errors
    /// The document or the field does not exist, or the field is no `bounded_counter`.
    pub fn rights(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        field: &str,
        direction: Direction,
    ) -> Result<i128> {
        let path = FieldPath::from(field);
        let at = self.place(gen_schema, key, &path)?;
        let (space, mut chunks) = (&mut self.state.namespace, self.shard.chunks());
        let Place { gen_index, row_key, field, .. } = &at;
        if field.strategy != Strategy::BoundedCounter {
            let reason = WriteError::Refused(Refusal::NotThisOperation);
            return Err(refused(gen_schema, key, &path, reason));
        }
        space.load(*gen_index, row_key, &mut chunks)?;
        let counter = field.bounded_counter();
        let rights = self.writes.rights_loaded(space, *gen_index, row_key, &counter, direction);
        rights.map_err(|reason| refused(gen_schema, key, &path, reason.into()))
    }

    /// Reads a document as this transaction sees it; `None` where there is none.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read(&mut self, gen_schema: &GenSchema, key: &str) -> Result<Option<Record>> {
        let gen_index = self.gen_index(gen_schema)?;
        let namespace = &mut self.state.namespace;
        let mut chunks = self.shard.chunks();
        let row = self.writes.read(namespace, &mut chunks, gen_index, key.as_bytes())?;
        if !row.is_some_and(|row| row.is_alive()) {
            return Ok(None);
        }
        load_fields(namespace, &mut chunks, gen_schema, gen_index, key)?;
        let mut view = TransactionView { transaction: &mut self.writes, namespace };
        Record::read(&mut view, gen_schema, gen_index, key).map(Some)
    }

    /// Finds where a path leads, creating the entries of maps on its way.
    fn place<'p>(
        &mut self,
        gen_schema: &'p GenSchema,
        key: &'p str,
        path: &FieldPath<'_>,
    ) -> Result<Place<'p>> {
        let gen_index = self.gen_index(gen_schema)?;
        self.will_change(gen_schema, gen_index, key);
        let field = Cow::Borrowed(field_of(gen_schema, path.field)?);
        let row_key = Cow::Borrowed(key.as_bytes());
        let mut place = Place { gen_index, row_key, field, inherited: None };
        for map_key in &path.keys {
            place = self
                .enter(place, map_key)
                .map_err(|reason| refused(gen_schema, key, path, reason))?;
        }
        Ok(place)
    }

    fn enter<'p>(&mut self, place: Place<'p>, map_key: &Value) -> Written<Place<'p>> {
        let (Some(value_field), true) = (place.field.map_value(), place.admits(map_key)) else {
            return Err(Refusal::TypeMismatch.into());
        };
        let element = map_key.to_bytes();
        let mut inherited = None;
        for map in place.field.collections().skip(1) {
            let entry = self.load_entry(&place, map, &element)?;
            let Some(earlier) = map.map_value() else { continue };
            let row = self.writes.view(&self.state.namespace, place.gen_index, &entry);
            if row.is_alive() {
                inherited.get_or_insert_with(Inherited::default).add_entry(&earlier, &row);
            }
        }
        self.load_entry(&place, &place.field, &element)?;
        let Place { gen_index, row_key, field, .. } = place;
        let namespace = &self.state.namespace;
        let row_key =
            self.writes.entry_loaded(namespace, gen_index, &row_key, field.id(), &element)?;
        let (row_key, field) = (Cow::Owned(row_key), Cow::Owned(value_field));
        Ok(Place { gen_index, row_key, field, inherited })
    }

    /// Loads the row of an entry of a collection, and gives its key.
    fn load_entry(
        &mut self,
        at: &Place<'_>,
        collection: &FieldSchema,
        element: &[u8],
    ) -> Written<Vec<u8>> {
        let entry = entry_key(&at.row_key, collection.id(), element);
        self.state.namespace.load(at.gen_index, &entry, &mut self.shard.chunks())?;
        Ok(entry)
    }

    fn set_at(&mut self, at: &Place<'_>, value: &Value) -> Written<()> {
        let (namespace, mut chunks) = (&mut self.state.namespace, self.shard.chunks());
        let Place { gen_index, row_key, field, inherited } = at;
        if let Some(inherited) = *inherited {
            namespace.load(*gen_index, row_key, &mut chunks)?;
            let to = &mut self.writes;
            return Ok(to.set_over_loaded(namespace, *gen_index, row_key, field, value, inherited)?);
        }
        self.writes.set(namespace, &mut chunks, *gen_index, row_key, field, value)
    }

    fn add_at(&mut self, at: &Place<'_>, amount: &Value) -> Written<()> {
        let (space, mut chunks) = (&mut self.state.namespace, self.shard.chunks());
        let Place { gen_index, row_key, field, inherited } = at;
        match (field.strategy, amount) {
            (Strategy::PnCounterFloat, Value::Float(amount)) => {
                self.writes.add_float(space, &mut chunks, *gen_index, row_key, field, *amount)
            }
            (strategy, Value::Int(amount)) if strategy.is_counter() => {
                let amount = i64::try_from(*amount).map_err(|_| Refusal::TypeMismatch)?;
                if let Some(inherited) = *inherited {
                    space.load(*gen_index, row_key, &mut chunks)?;
                    let to = &mut self.writes;
                    return Ok(
                        to.add_over_loaded(space, *gen_index, row_key, field, amount, inherited)?
                    );
                }
                self.writes.add(space, &mut chunks, *gen_index, row_key, field, amount)
            }
            (strategy, _) if strategy.is_counter() => Err(Refusal::TypeMismatch.into()),
            _ => Err(Refusal::NotThisOperation.into()),
        }
    }

    fn write_element(&mut self, at: &Place<'_>, element: &Value, adds: bool) -> Written<()> {
        if at.field.strategy != Strategy::OrSet {
            return Err(Refusal::NotThisOperation.into());
        }
        if !at.admits(element) {
            return Err(Refusal::TypeMismatch.into());
        }
        let element = element.to_bytes();
        let (gen_index, row_key) = (at.gen_index, &at.row_key);
        if adds {
            self.load_entry(at, &at.field, &element)?;
            let (to, namespace, set) = (&mut self.writes, &self.state.namespace, at.field.id());
            return Ok(to.add_element_loaded(namespace, gen_index, row_key, set, &element)?);
        }
        // What was added under an earlier number is in the set until it is taken out there.
        for set in at.field.collections() {
            self.load_entry(at, set, &element)?;
            let (to, namespace) = (&mut self.writes, &self.state.namespace);
            to.remove_element_loaded(namespace, gen_index, row_key, set.id(), &element)?;
        }
        Ok(())
    }

    fn remove_entry_at(&mut self, at: &Place<'_>, map_key: &Value) -> Written<()> {
        if at.field.strategy != Strategy::Map {
            return Err(Refusal::NotThisOperation.into());
        }
        if !at.admits(map_key) {
            return Err(Refusal::TypeMismatch.into());
        }
        let element = map_key.to_bytes();
        for map in at.field.collections() {
            self.load_entry(at, map, &element)?;
            let (to, namespace) = (&mut self.writes, &self.state.namespace);
            to.remove_entry_loaded(namespace, at.gen_index, &at.row_key, map.id(), &element)?;
        }
        Ok(())
    }

    /// What a collection holds as this transaction sees it.
    fn collection(&mut self, at: &Place<'_>) -> Written<Option<Value>> {
        let (namespace, mut chunks) = (&mut self.state.namespace, self.shard.chunks());
        namespace.load_field(at.gen_index, &at.row_key, &at.field, &mut chunks)?;
        let mut view = TransactionView { transaction: &mut self.writes, namespace };
        // A total that does not fit its type cannot be read, but what is there can be replaced.
        Ok(view.read_loaded(at.gen_index, &at.row_key, &at.field).unwrap_or_default())
    }

    fn replace_elements(&mut self, at: &Place<'_>, value: &Value) -> Written<()> {
        let Value::List(wanted) = value else {
            return Err(Refusal::TypeMismatch.into());
        };
        if let Some(Value::List(held)) = self.collection(at)? {
            for element in held.iter().filter(|element| !wanted.contains(element)) {
                self.write_element(at, element, false)?;
            }
            let missing = wanted.iter().filter(|element| !held.contains(element));
            return missing
                .into_iter()
                .try_for_each(|element| self.write_element(at, element, true));
        }
        wanted.iter().try_for_each(|element| self.write_element(at, element, true))
    }

    fn replace_entries(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        path: &FieldPath<'_>,
        at: &Place<'_>,
        value: Value,
    ) -> Result<Written<()>> {
        let Value::Map(wanted) = value else {
            return Ok(Err(Refusal::TypeMismatch.into()));
        };
        let is_wanted = |held: &Value| wanted.iter().any(|(wanted, _)| wanted == held);
        let held = match self.collection(at) {
            Ok(Some(Value::Map(held))) => held,
            Ok(_) => Vec::new(),
            Err(error) => return Ok(Err(error)),
        };
        for (map_key, _) in held.iter().filter(|(held, _)| !is_wanted(held)) {
            if let Err(error) = self.remove_entry_at(at, map_key) {
                return Ok(Err(error));
            }
        }
        for (map_key, value) in wanted {
            let mut inner = path.clone();
            inner.keys.push(map_key);
            self.write(gen_schema, key, inner, value)?;
        }
        Ok(Ok(()))
    }

    fn gen_index(&mut self, gen_schema: &GenSchema) -> Result<GenIndex> {
        self.state.intern_gen(gen_schema)
    }
}

/// The outcome of a write to the tables.
type Written<T> = std::result::Result<T, WriteError<StorageError>>;

/// Where a path leads.
struct Place<'p> {
    gen_index: GenIndex,
    /// The key of the document, or of an entry in one of its maps.
    row_key: Cow<'p, [u8]>,
    /// What lies there.
    field: Cow<'p, FieldSchema>,
    /// What lies there under earlier numbers of the map, where it does.
    inherited: Option<Inherited>,
}

impl Place<'_> {
    /// Whether the field is a collection that can have this element or key.
    fn admits(&self, element: &Value) -> bool {
        self.field.element_type().is_some_and(|element_type| element_type.admits(element))
    }
}

fn refused(
    gen_schema: &GenSchema,
    key: &str,
    path: &FieldPath<'_>,
    error: WriteError<StorageError>,
) -> Error {
    match error {
        WriteError::Refused(Refusal::NotFound) => Error::refused(&gen_schema.name, key, error),
        error => Error::refused(&gen_schema.name, &format!("{key}.{path}"), error),
    }
}
