//! The documents that the benches of this crate work on.

use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
use vudo_state::{Database, Durability};

/// Documents of three fields: `{id, name, value}`.
pub(crate) fn record_gen() -> GenSchema {
    let fields = vec![
        FieldSchema::new("id", 1, Strategy::Immutable, ValueType::I64),
        FieldSchema::new("name", 2, Strategy::Lww, ValueType::String),
        FieldSchema::new("value", 3, Strategy::Lww, ValueType::I64),
    ];
    GenSchema::new("Record", fields)
}

/// The key of a document.
pub(crate) fn key(number: u64) -> String {
    format!("record{number}")
}

/// Creates the documents 0 to `count`, 1,000 to a change, and makes them durable. The value of
/// each is its number.
pub(crate) fn fill(database: &Database, gen_schema: &GenSchema, count: u64) {
    let fast = database.with_durability(Durability::Eventual);
    for start in (0..count).step_by(1_000) {
        fast.transaction(|transaction| {
            for number in start..count.min(start + 1_000) {
                let key = key(number);
                transaction.create(gen_schema, &key)?;
                transaction.set(gen_schema, &key, "id", number as i64)?;
                transaction.set(gen_schema, &key, "name", format!("Record {number}"))?;
                transaction.set(gen_schema, &key, "value", number as i64)?;
            }
            Ok(())
        })
        .expect("new documents take their fields");
    }
    database.flush().expect("the disk takes the documents");
}
