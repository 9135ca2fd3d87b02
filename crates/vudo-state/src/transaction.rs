//! A transaction: reads and writes over many documents that become one change.

use vudo_crdt::{GenIndex, GenSchema, Strategy, Value, WriteError};

use crate::error::{Error, Refusal, Result};
use crate::record::{Record, field_of};
use crate::shard::{Shard, State};
use crate::storage::StorageError;

/// Reads and writes of one namespace that become one change. It reads what it wrote.
pub struct Transaction<'a> {
    shard: &'a Shard,
    state: &'a mut State,
    writes: vudo_crdt::Transaction,
}

impl<'a> Transaction<'a> {
    pub(crate) fn begin(shard: &'a Shard, state: &'a mut State, now_milliseconds: u64) -> Self {
        let writes = vudo_crdt::Transaction::begin(&state.namespace, state.own, now_milliseconds);
        Transaction { shard, state, writes }
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

    /// Sets a field, or adds to it where it is a counter.
    ///
    /// # Errors
    /// The document or the field does not exist, or the field refuses the value.
    pub fn write(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        field: &str,
        value: impl Into<Value>,
    ) -> Result<()> {
        match field_of(gen_schema, field)?.strategy.is_counter() {
            true => self.add(gen_schema, key, field, value),
            false => self.set(gen_schema, key, field, value),
        }
    }

    /// Sets a field.
    ///
    /// # Errors
    /// The document or the field does not exist, the field is a counter or immutable and set, or
    /// the value is not of its type.
    pub fn set(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        field: &str,
        value: impl Into<Value>,
    ) -> Result<()> {
        let gen_index = self.gen_index(gen_schema)?;
        let field = field_of(gen_schema, field)?;
        let namespace = &mut self.state.namespace;
        let mut chunks = self.shard.chunks();
        self.writes
            .set(namespace, &mut chunks, gen_index, key.as_bytes(), field, &value.into())
            .map_err(|reason| refused(gen_schema, key, &field.name, reason))
    }

    /// Adds to a counter; a negative amount takes away.
    ///
    /// # Errors
    /// The document or the field does not exist, the field is no counter, or it would leave its
    /// bounds.
    pub fn add(
        &mut self,
        gen_schema: &GenSchema,
        key: &str,
        field: &str,
        amount: impl Into<Value>,
    ) -> Result<()> {
        let gen_index = self.gen_index(gen_schema)?;
        let field = field_of(gen_schema, field)?;
        let namespace = &mut self.state.namespace;
        let mut chunks = self.shard.chunks();
        let key_bytes = key.as_bytes();
        let amount = amount.into();
        let added = match (field.strategy, &amount) {
            (Strategy::PnCounterFloat, Value::Float(amount)) => {
                self.writes.add_float(namespace, &mut chunks, gen_index, key_bytes, field, *amount)
            }
            (Strategy::PnCounter, Value::Int(amount)) => match i64::try_from(*amount) {
                Ok(amount) => {
                    self.writes.add(namespace, &mut chunks, gen_index, key_bytes, field, amount)
                }
                Err(_) => Err(Refusal::TypeMismatch.into()),
            },
            (strategy, _) if strategy.is_counter() => Err(Refusal::TypeMismatch.into()),
            _ => Err(Refusal::NotThisOperation.into()),
        };
        added.map_err(|reason| refused(gen_schema, key, &field.name, reason))
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
        row.filter(|row| row.is_alive()).map(|row| Record::read(gen_schema, &row)).transpose()
    }

    fn gen_index(&mut self, gen_schema: &GenSchema) -> Result<GenIndex> {
        self.state.intern_gen(gen_schema)
    }
}

fn refused(
    gen_schema: &GenSchema,
    key: &str,
    field: &str,
    error: WriteError<StorageError>,
) -> Error {
    match error {
        WriteError::Refused(Refusal::NotFound) => Error::refused(&gen_schema.name, key, error),
        error => Error::refused(&gen_schema.name, &format!("{key}.{field}"), error),
    }
}
