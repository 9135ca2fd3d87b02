//! What the measurements work on.

use anyhow::{Context, Result};
use vudo_crdt::{
    CellId, FieldSchema, GenSchema, InMemory, Log, Namespace, ReplicaKey, Schema, Strategy,
    Transaction, Value, ValueType, VersionVector,
};
use vudo_gen::SourceFile;
use vudo_state::{Database, Durability};

/// The Gen of the size budget: three fields, three strategies.
pub const USER_SOURCE: &str = "gen User {
    @crdt(immutable)  has id: String
    @crdt(lww)        has name: String
    @crdt(pn_counter) has reputation: i64
}
";

/// Compiles a source that is expected to be right.
///
/// # Errors
/// What the compiler says of it.
pub fn compile(source: &str) -> Result<Schema> {
    let files = [SourceFile { name: "bench.dol".into(), text: source.into(), lock: None }];
    let compilation = vudo_gen::compile(&files);
    let errors = || {
        compilation
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.render(&files, false))
            .collect::<String>()
    };
    compilation.schema.clone().with_context(errors)
}

/// The documents of the memory budget: `{id, name, value}`.
pub fn record_gen() -> GenSchema {
    let fields = vec![
        FieldSchema::new("id", 1, Strategy::Immutable, ValueType::I64),
        FieldSchema::new("name", 2, Strategy::Lww, ValueType::String),
        FieldSchema::new("value", 3, Strategy::Lww, ValueType::I64),
    ];
    GenSchema::new("Record", fields)
}

/// Fills a store with this many records, 1,000 to a change, and makes them durable.
///
/// # Errors
/// The store failed.
pub fn fill(database: &Database, count: usize) -> Result<()> {
    let gen_schema = record_gen();
    let fast = database.with_durability(Durability::Eventual);
    for start in (0..count).step_by(1_000) {
        fast.transaction(|transaction| {
            for number in start..count.min(start + 1_000) {
                let key = format!("record{number}");
                transaction.create(&gen_schema, &key)?;
                transaction.set(&gen_schema, &key, "id", number as i64)?;
                transaction.set(&gen_schema, &key, "name", format!("Record {number}"))?;
                transaction.set(&gen_schema, &key, "value", number as i64 * 2)?;
            }
            Ok(())
        })?;
    }
    database.flush()?;
    Ok(())
}

/// A frame that puts 10,000 integers under `key_a_0..4999` and `key_b_0..4999`.
///
/// With `changes` of 10,000 every operation is a change of its own; with 1 all are one change.
pub fn merge_frame(changes: usize) -> Vec<u8> {
    let mut namespace = Namespace::new(1);
    let mut log = Log::default();
    let replica = namespace.intern_replica(ReplicaKey([7; 32]));
    let entry = namespace.intern_gen("Entry").expect("an empty namespace has room");
    let id = CellId::new(1, Strategy::Lww);
    let operations = 10_000;
    for change in 0..changes {
        let now = 1_700_000_000_000 + change as u64;
        let mut transaction = Transaction::begin(&namespace, replica, now);
        for number in (change..operations).step_by(changes) {
            let side = if number % 2 == 0 { 'a' } else { 'b' };
            let key = format!("key_{side}_{}", number / 2);
            let (key, value) = (key.as_bytes(), Value::from(number as i64).to_bytes());
            let written = transaction
                .create_loaded(&namespace, entry, key)
                .and_then(|()| transaction.set_loaded(&namespace, entry, key, id, &value));
            written.expect("a new document takes a value");
        }
        transaction
            .commit(&mut namespace, &mut InMemory, &mut log)
            .expect("a table in memory is always there");
    }
    log.frame_since(&namespace, &VersionVector::new())
}

/// Merges a frame into an empty namespace, and checks that it arrived.
pub fn merge(frame: &[u8]) -> Namespace {
    let mut namespace = Namespace::new(2);
    let applied =
        namespace.apply_frame(frame, &mut InMemory, &mut ()).expect("the frame is one of our own");
    assert_eq!(applied.operations, 10_000);
    namespace
}
