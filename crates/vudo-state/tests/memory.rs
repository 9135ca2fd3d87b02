//! Stores that are larger than their memory.

use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
use vudo_state::{Database, Durability, OpenOptions};

#[test]
fn documents_that_do_not_fit_into_memory_leave_it_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions { memory_bytes_max: 200_000, ..OpenOptions::default() };
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    let gen_schema = GenSchema::new("Task", [title]);
    let text = |number: usize| format!("{number} {}", "x".repeat(200));
    let database = Database::open_with(folder.path(), &options).unwrap();
    for first in (0..20_000).step_by(500) {
        database
            .with_durability(Durability::Eventual)
            .transaction(|transaction| {
                (first..first + 500).try_for_each(|number| {
                    let key = format!("{}", number * 7_919 % 20_000);
                    transaction.create(&gen_schema, &key)?;
                    transaction.set(&gen_schema, &key, "title", text(number))
                })
            })
            .unwrap();
        // Five hundred documents may lie in as many chunks, and no more stay behind.
        assert!(database.memory_bytes() < 200_000 + 500 * 7_000, "{}", database.memory_bytes());
    }
    database.flush().unwrap();
    assert!(database.memory_bytes() <= 200_000 + 500 * 7_000);
    for _ in 0..2 {
        for number in (0..20_000).step_by(37) {
            let id = database.document_id(&format!("{}", number * 7_919 % 20_000));
            let value = database.read_field(&gen_schema, &id, "title").unwrap();
            assert_eq!(value, Some(text(number).as_str().into()));
        }
    }
    let before = database.replication(database.namespace()).unwrap().fingerprint().unwrap();
    drop(database);
    let database = Database::open_with(folder.path(), &options).unwrap();
    assert_eq!(database.replication(database.namespace()).unwrap().fingerprint().unwrap(), before);
    assert_eq!(database.list(&gen_schema).unwrap().len(), 20_000);
    assert!(database.memory_bytes() <= 200_000);
}
