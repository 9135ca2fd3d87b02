//! One field for each strategy, under the numbers that the seeds of the fuzzer use.

use vudo_crdt::{FieldSchema, InMemory, Namespace, Reading, Row, Strategy, ValueType};

pub fn fields() -> [FieldSchema; 10] {
    let text = || Box::new(ValueType::String);
    let map = ValueType::Map(text(), text());
    let mut stock = FieldSchema::new("stock", 10, Strategy::Map, map);
    stock.value_strategy = Strategy::Lww;
    [
        FieldSchema::new("id", 1, Strategy::Immutable, ValueType::String),
        FieldSchema::new("title", 2, Strategy::Lww, ValueType::String),
        FieldSchema::new("rank", 3, Strategy::LwwContent, ValueType::U64),
        FieldSchema::new("votes", 4, Strategy::PnCounter, ValueType::I8),
        FieldSchema::new("mass", 5, Strategy::PnCounterFloat, ValueType::F64),
        FieldSchema::new("likes", 6, Strategy::GCounter, ValueType::U32),
        FieldSchema::new("owner", 7, Strategy::MvRegister, ValueType::String),
        FieldSchema::new("seats", 8, Strategy::BoundedCounter, ValueType::U8),
        FieldSchema::new("tags", 9, Strategy::OrSet, ValueType::Set(text())),
        stock,
    ]
}

/// Reads every field of every document: nothing that was accepted may panic a reader.
pub fn read_all(mut namespace: &Namespace) {
    let gen_count = namespace.gen_names().len() as u32;
    for gen_index in 0..gen_count {
        let mut keys = Vec::new();
        let note = |row: Row<'_>| {
            keys.push(row.key.to_vec());
            true
        };
        namespace.visit_rows(gen_index, &[], &mut InMemory, note).unwrap();
        for key in keys {
            for field in fields() {
                let _shown = namespace.read_loaded(gen_index, &key, &field);
            }
        }
    }
}
