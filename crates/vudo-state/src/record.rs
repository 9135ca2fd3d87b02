//! A document as it was when it was read.

use std::sync::Arc;

use vudo_crdt::{FieldSchema, GenIndex, GenSchema, Namespace, Reading, Row, Strategy, Value};

use crate::error::{Error, Result};
use crate::stored_chunks::StoredChunks;

/// A document's key and the values of its fields. It does not change when the document does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The document's key.
    pub key: String,
    /// Name and value of every field that shows one, in the order of the Gen.
    pub fields: Vec<(Arc<str>, Value)>,
}

impl Record {
    /// Reads a document whose rows are loaded.
    pub(crate) fn read(
        reading: &mut impl Reading,
        gen_schema: &GenSchema,
        gen_index: GenIndex,
        key: &str,
    ) -> Result<Record> {
        let mut fields = Vec::with_capacity(gen_schema.fields.len());
        for field in &gen_schema.fields {
            if let Some(value) = reading.read_loaded(gen_index, key.as_bytes(), field)? {
                fields.push((field.name.clone(), value));
            }
        }
        Ok(Record { key: key.to_owned(), fields })
    }

    /// Reads a document of a Gen for which [`is_in_rows`] from its row.
    pub(crate) fn read_row(gen_schema: &GenSchema, row: &Row<'_>) -> Result<Record> {
        let mut fields = Vec::with_capacity(gen_schema.fields.len());
        let values = FieldSchema::read_all(&gen_schema.fields, row);
        for (field, value) in gen_schema.fields.iter().zip(values) {
            if let Some(value) = value? {
                fields.push((field.name.clone(), value));
            }
        }
        Ok(Record { key: String::from_utf8_lossy(row.key).into_owned(), fields })
    }

    /// As [`Record::read_row`], without the counters that do not fit their types.
    pub(crate) fn read_lenient(gen_schema: &GenSchema, row: &Row<'_>) -> Record {
        let shown = |field: &FieldSchema| {
            field.read(row).ok().flatten().map(|value| (field.name.clone(), value))
        };
        let fields = gen_schema.fields.iter().filter_map(shown).collect();
        Record { key: String::from_utf8_lossy(row.key).into_owned(), fields }
    }

    /// As [`Record::read`], without the counters that do not fit their types.
    pub(crate) fn read_loaded(
        reading: &mut impl Reading,
        gen_schema: &GenSchema,
        gen_index: GenIndex,
        key: &str,
    ) -> Record {
        let mut shown = |field: &FieldSchema| {
            let read = reading.read_loaded(gen_index, key.as_bytes(), field).ok().flatten();
            read.map(|value| (field.name.clone(), value))
        };
        let fields = gen_schema.fields.iter().filter_map(&mut shown).collect();
        Record { key: key.to_owned(), fields }
    }

    /// The value of a field; `None` where it shows none.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.iter().find(|(name, _)| **name == *field).map(|(_, value)| value)
    }
}

/// Whether all fields of a Gen lie in its documents' rows.
pub(crate) fn is_in_rows(gen_schema: &GenSchema) -> bool {
    gen_schema.fields.iter().all(is_in_row)
}

/// Whether a field lies in its document's row, and needs nothing else to be read.
pub(crate) fn is_in_row(field: &FieldSchema) -> bool {
    !field.strategy.is_collection() && field.strategy != Strategy::MvRegister
}

/// Loads what reading a document needs.
pub(crate) fn load_fields(
    namespace: &mut Namespace,
    chunks: &mut StoredChunks<'_>,
    gen_schema: &GenSchema,
    gen_index: GenIndex,
    key: &str,
) -> Result<()> {
    for field in gen_schema.fields.iter().filter(|field| field.strategy.is_collection()) {
        namespace.load_field(gen_index, key.as_bytes(), field, chunks)?;
    }
    Ok(namespace.load(gen_index, key.as_bytes(), chunks)?)
}

/// The field of this name, or an error that names the fields there are.
pub(crate) fn field_of<'a>(gen_schema: &'a GenSchema, name: &str) -> Result<&'a FieldSchema> {
    gen_schema.field(name).ok_or_else(|| {
        let names: Vec<&str> = gen_schema.fields.iter().map(|field| &*field.name).collect();
        Error::UnknownField {
            gen_name: gen_schema.name.clone(),
            field: name.to_owned(),
            known: names.join(", "),
        }
    })
}
