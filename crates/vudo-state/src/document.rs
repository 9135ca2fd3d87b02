//! A handle to one document: what generated code builds on.

use std::sync::Arc;

use vudo_crdt::{Direction, GenSchema, ReplicaKey, Value};

use crate::database::{Database, DocumentId};
use crate::error::Result;
use crate::transaction::Transaction;

/// A handle to one document. It holds no data: every read sees the present state.
#[derive(Clone)]
pub struct Document {
    database: Database,
    gen_schema: Arc<GenSchema>,
    id: DocumentId,
}

impl Document {
    /// Creates a document in the handle's namespace.
    ///
    /// # Errors
    /// It exists, its key is empty or too long, or the disk failed.
    pub fn create(database: &Database, gen_schema: &GenSchema, key: &str) -> Result<Document> {
        let id = database.document_id(key);
        database.create(gen_schema, &id, &[])?;
        Ok(Document::new(database, Arc::new(gen_schema.clone()), id))
    }

    /// The document of this key; `None` where there is none.
    ///
    /// # Errors
    /// The disk failed.
    pub fn open(
        database: &Database,
        gen_schema: &GenSchema,
        key: &str,
    ) -> Result<Option<Document>> {
        let id = database.document_id(key);
        let found = database.read(gen_schema, &id)?;
        Ok(found.map(|_| Document::new(database, Arc::new(gen_schema.clone()), id)))
    }

    /// Every document of a Gen, ascending by key.
    ///
    /// # Errors
    /// The disk failed.
    pub fn list(database: &Database, gen_schema: &GenSchema) -> Result<Vec<Document>> {
        let shared = Arc::new(gen_schema.clone());
        let mut documents = Vec::new();
        database.for_each(gen_schema, |record| {
            let id = database.document_id(&record.key);
            documents.push(Document::new(database, shared.clone(), id));
            true
        })?;
        Ok(documents)
    }

    fn new(database: &Database, gen_schema: Arc<GenSchema>, id: DocumentId) -> Document {
        Document { database: database.clone(), gen_schema, id }
    }

    /// The document's key.
    pub fn key(&self) -> &str {
        self.id.key()
    }

    /// What a field shows: its value, else its default, else `None`.
    ///
    /// # Errors
    /// The Gen has no such field, or the disk failed.
    pub fn get(&self, field: &str) -> Result<Option<Value>> {
        self.database.read_field(&self.gen_schema, &self.id, field)
    }

    /// Sets a field.
    ///
    /// # Errors
    /// As for [`crate::Transaction::set`].
    pub fn set(&self, field: &str, value: impl Into<Value>) -> Result<()> {
        self.database.update(&self.gen_schema, &self.id, &[(field, value.into())])
    }

    /// Adds to a counter; a negative amount takes away.
    ///
    /// # Errors
    /// As for [`crate::Transaction::add`].
    pub fn add(&self, field: &str, amount: impl Into<Value>) -> Result<()> {
        self.database.update(&self.gen_schema, &self.id, &[(field, amount.into())])
    }

    /// Adds an element to a set.
    ///
    /// # Errors
    /// As for [`crate::Transaction::add_element`].
    pub fn add_element(&self, field: &str, element: impl Into<Value>) -> Result<()> {
        self.write(|transaction, gen_schema, key| {
            transaction.add_element(gen_schema, key, field, element)
        })
    }

    /// Takes an element out of a set.
    ///
    /// # Errors
    /// As for [`crate::Transaction::remove_element`].
    pub fn remove_element(&self, field: &str, element: impl Into<Value>) -> Result<()> {
        self.write(|transaction, gen_schema, key| {
            transaction.remove_element(gen_schema, key, field, element)
        })
    }

    /// Sets what lies under a key of a map.
    ///
    /// # Errors
    /// As for [`crate::Transaction::set`].
    pub fn set_entry(
        &self,
        field: &str,
        map_key: impl Into<Value>,
        value: impl Into<Value>,
    ) -> Result<()> {
        let path = (field, map_key);
        self.write(|transaction, gen_schema, key| transaction.set(gen_schema, key, path, value))
    }

    /// Adds to the counter under a key of a map.
    ///
    /// # Errors
    /// As for [`crate::Transaction::add`].
    pub fn add_entry(
        &self,
        field: &str,
        map_key: impl Into<Value>,
        amount: impl Into<Value>,
    ) -> Result<()> {
        let path = (field, map_key);
        self.write(|transaction, gen_schema, key| transaction.add(gen_schema, key, path, amount))
    }

    /// Takes what lies under a key out of a map.
    ///
    /// # Errors
    /// As for [`crate::Transaction::remove_entry`].
    pub fn remove_entry(&self, field: &str, map_key: impl Into<Value>) -> Result<()> {
        let path = (field, map_key);
        self.write(|transaction, gen_schema, key| transaction.remove_entry(gen_schema, key, path))
    }

    /// How far this store may move a `bounded_counter`.
    ///
    /// # Errors
    /// As for [`Database::rights`].
    pub fn rights(&self, field: &str, direction: Direction) -> Result<i128> {
        self.database.rights(&self.gen_schema, &self.id, field, direction)
    }

    /// Gives this store's rights on a `bounded_counter` to another replica.
    ///
    /// # Errors
    /// As for [`crate::Transaction::give_rights`].
    pub fn give_rights(
        &self,
        field: &str,
        receiver: &ReplicaKey,
        direction: Direction,
        amount: i64,
    ) -> Result<()> {
        self.write(|transaction, gen_schema, key| {
            transaction.give_rights(gen_schema, key, field, receiver, direction, amount)
        })
    }

    /// Runs a transaction on the document.
    fn write<T>(
        &self,
        run: impl FnOnce(&mut Transaction<'_>, &GenSchema, &str) -> Result<T>,
    ) -> Result<T> {
        let database = self.database.in_namespace(self.id.namespace());
        database.transaction(|transaction| run(transaction, &self.gen_schema, self.id.key()))
    }

    /// Deletes the document.
    ///
    /// # Errors
    /// It does not exist any more.
    pub fn delete(&self) -> Result<()> {
        self.database.delete(&self.gen_schema, &self.id)
    }
}

/// Turns a field's value into a Rust type.
pub trait FromValue: Sized {
    /// The value as this type; `None` where it is of another kind or out of range.
    fn from_value(value: Value) -> Option<Self>;
}

impl FromValue for bool {
    fn from_value(value: Value) -> Option<bool> {
        if let Value::Bool(truth) = value { Some(truth) } else { None }
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Option<String> {
        if let Value::String(text) = value { Some(text) } else { None }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: Value) -> Option<Vec<u8>> {
        if let Value::Bytes(bytes) = value { Some(bytes) } else { None }
    }
}

impl<const N: usize> FromValue for [u8; N] {
    fn from_value(value: Value) -> Option<[u8; N]> {
        Vec::from_value(value)?.try_into().ok()
    }
}

impl FromValue for f64 {
    fn from_value(value: Value) -> Option<f64> {
        if let Value::Float(number) = value { Some(number) } else { None }
    }
}

impl FromValue for f32 {
    fn from_value(value: Value) -> Option<f32> {
        f64::from_value(value).map(|number| number as f32)
    }
}

macro_rules! integer_from_value {
    ($($integer:ty),*) => {$(
        impl FromValue for $integer {
            fn from_value(value: Value) -> Option<$integer> {
                if let Value::Int(number) = value { number.try_into().ok() } else { None }
            }
        }
    )*};
}
integer_from_value!(i8, i16, i32, i64, u8, u16, u32, u64);
