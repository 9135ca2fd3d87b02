//! Namespaces that nobody uses leave memory.

use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
use vudo_state::{Database, Interest};

fn note_gen() -> GenSchema {
    let text = FieldSchema::new("text", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Note", [text])
}

fn write(database: &Database, namespace: &str, key: &str) {
    let database = database.in_namespace(namespace);
    let id = database.document_id(key);
    database.create(&note_gen(), &id, &[("text", key.repeat(100).into())]).unwrap();
}

#[test]
fn what_nobody_uses_is_closed_and_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    for number in 0..20 {
        write(&database, &format!("space {number}"), "a");
    }
    assert_eq!(database.close_idle_namespaces().unwrap(), 0, "all have been used just now");
    write(&database, "space 3", "b");
    let subscribed = database.in_namespace("space 7");
    let subscription = subscribed.subscribe(Interest::Namespace).unwrap();
    let live = database.in_namespace("space 8").outbox().unwrap();
    let synced = database.replication("space 9").unwrap();
    let listening = database.replication("space 10").unwrap().on_durable(|| ());
    // Those that were asked for since count as used.
    assert_eq!(database.close_idle_namespaces().unwrap(), 15);
    assert_eq!(database.close_idle_namespaces().unwrap(), 1, "space 3 had its turn");
    assert_eq!(database.close_idle_namespaces().unwrap(), 0, "the others are in use");
    write(&database, "space 7", "c");
    assert_eq!(
        subscription.try_next().map(|event| event.documents[0].key.clone()),
        Some("c".into())
    );
    drop((subscription, live, synced, listening));
    let closed = [(); 2].map(|()| database.close_idle_namespaces().unwrap());
    assert_eq!(closed.iter().sum::<usize>(), 4, "nothing is open");
    for number in 0..20 {
        let database = database.in_namespace(&format!("space {number}"));
        let count = database.list(&note_gen()).unwrap().len();
        assert_eq!(count, if number == 3 || number == 7 { 2 } else { 1 });
    }
    // A replica that goes on after a pause takes up where it was.
    write(&database, "space 0", "d");
    assert_eq!(database.replication("space 0").unwrap().durable_vector().change_count(), 2);
}

#[test]
fn changes_of_a_closed_namespace_are_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let fast = database.with_durability(vudo_state::Durability::Eventual);
    write(&fast, "space", "a");
    database.close_idle_namespaces().unwrap();
    assert_eq!(database.close_idle_namespaces().unwrap(), 1);
    let reopened = database.in_namespace("space").list(&note_gen()).unwrap();
    assert_eq!(reopened.len(), 1);
}
