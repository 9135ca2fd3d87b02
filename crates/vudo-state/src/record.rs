//! A document as it was when it was read.

use vudo_crdt::{FieldSchema, GenSchema, Row, Value};

use crate::error::{Error, Result};

/// A document's key and the values of its fields. It does not change when the document does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The document's key.
    pub key: String,
    /// Name and value of every field that shows one, in the order of the Gen.
    pub fields: Vec<(String, Value)>,
}

impl Record {
    pub(crate) fn read(gen_schema: &GenSchema, row: &Row<'_>) -> Result<Record> {
        let mut fields = Vec::with_capacity(gen_schema.fields.len());
        for field in &gen_schema.fields {
            if let Some(value) = field.read(row)? {
                fields.push((field.name.clone(), value));
            }
        }
        Ok(Record { key: String::from_utf8_lossy(row.key).into_owned(), fields })
    }

    /// As [`Record::read`], without the counters that do not fit their types.
    pub(crate) fn read_lenient(gen_schema: &GenSchema, row: &Row<'_>) -> Record {
        let shown = |field: &FieldSchema| {
            field.read(row).ok().flatten().map(|value| (field.name.clone(), value))
        };
        let fields = gen_schema.fields.iter().filter_map(shown).collect();
        Record { key: String::from_utf8_lossy(row.key).into_owned(), fields }
    }

    /// The value of a field; `None` where it shows none.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, value)| value)
    }
}

/// The field of this name, or an error that names the fields there are.
pub(crate) fn field_of<'a>(gen_schema: &'a GenSchema, name: &str) -> Result<&'a FieldSchema> {
    gen_schema.field(name).ok_or_else(|| {
        let names: Vec<&str> = gen_schema.fields.iter().map(|field| field.name.as_str()).collect();
        Error::UnknownField {
            gen_name: gen_schema.name.clone(),
            field: name.to_owned(),
            known: names.join(", "),
        }
    })
}
