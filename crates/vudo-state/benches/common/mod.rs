//! What the benches of this crate share: the documents, and how long a row may take.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
use vudo_state::{Database, Durability};

/// A group whose rows take some two seconds each, however slow one iteration is.
pub(crate) fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    // Confidence intervals need no more, and drawing the default of 100,000 takes seconds a row.
    group.nresamples(5_000);
    group
}

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
