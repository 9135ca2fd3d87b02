//! Using a store inside its own transaction: an error at once, where it would wait for ever.

use ed25519_dalek::{Signer, SigningKey};
use vudo_crdt::head::{Head, SignedHead};
use vudo_crdt::{
    CounterOptions, Direction, FieldSchema, GenSchema, ReplicaKey, Strategy, ValueType,
};
use vudo_state::{Database, Document, Error, Interest, Query};

fn note_gen() -> GenSchema {
    let text = FieldSchema::new("text", 1, Strategy::Lww, ValueType::String);
    let mut stock = FieldSchema::new("stock", 2, Strategy::BoundedCounter, ValueType::I64);
    stock.counter = CounterOptions { min_value: Some(0), max_value: Some(10), ..stock.counter };
    GenSchema::new("Note", [text, stock])
}

fn is_refused<T>(result: vudo_state::Result<T>) {
    assert!(matches!(result, Err(Error::InsideTransaction)));
}

/// Two heads of one length that one replica has signed.
fn two_heads() -> [SignedHead; 2] {
    let key = SigningKey::from_bytes(&[5; 32]);
    [1, 2].map(|root| {
        let replica = ReplicaKey(key.verifying_key().to_bytes());
        let head = Head { namespace: "default".into(), replica, length: 1, root: [root; 32] };
        let signature = key.sign(&head.bytes_to_sign()).to_bytes();
        SignedHead { head, signature }
    })
}

/// Everything that would take the lock that the caller holds.
fn use_everything(database: &Database) {
    let gen_schema = note_gen();
    let id = database.document_id("note");
    is_refused(database.create(&gen_schema, &id, &[]));
    is_refused(database.update(&gen_schema, &id, &[("text", "x".into())]));
    is_refused(database.delete(&gen_schema, &id));
    is_refused(database.read(&gen_schema, &id));
    is_refused(database.read_field(&gen_schema, &id, "text"));
    is_refused(database.list(&gen_schema));
    is_refused(database.query(&Query::of(&gen_schema)));
    is_refused(database.live(Query::of(&gen_schema)));
    is_refused(database.subscribe(Interest::Namespace));
    is_refused(database.transaction(|_| Ok(())));
    is_refused(database.in_namespace("other").transaction(|_| Ok(())));
    is_refused(database.flush());
    is_refused(database.snapshot());
    is_refused(database.pin("now"));
    is_refused(database.compact());
    is_refused(database.verify());
    is_refused(database.repair());
    is_refused(database.outbox());
    is_refused(database.replication("default"));
    is_refused(database.rights(&gen_schema, &id, "stock", Direction::Up));
    is_refused(Document::open(database, &gen_schema, "note"));
    is_refused(database.set_setting("colour", b"blue"));
    is_refused(database.define(&vec![gen_schema].into()));
}

#[test]
fn a_store_inside_its_own_transaction_refuses_at_once() {
    let database = Database::open_in_memory().unwrap();
    let gen_schema = note_gen();
    let id = database.document_id("note");
    database.create(&gen_schema, &id, &[]).unwrap();
    let replication = database.replication("default").unwrap();
    let outbox = database.outbox().unwrap();
    let (key, heads) = (database.replica_key(), two_heads());
    let mut compaction = database.compaction().unwrap();
    let other_store = Database::open_in_memory().unwrap();
    database
        .transaction(|transaction| {
            use_everything(&database);
            is_refused(replication.fingerprint());
            is_refused(replication.frame_since(&Default::default(), 1_000));
            is_refused(outbox.pending(1));
            is_refused(replication.compare_ranges(None, &[0; 32]));
            is_refused(replication.rebuild(&Default::default()));
            is_refused(replication.latest_signed_head_of(&key));
            is_refused(replication.record_fork(&heads[0], &heads[1]));
            is_refused(compaction.step());
            // Another store is another matter.
            other_store.create(&gen_schema, &id, &[])?;
            transaction.set(&gen_schema, "note", "text", "inside")
        })
        .unwrap();
    let text = database.read_field(&gen_schema, &id, "text").unwrap();
    assert_eq!(text, Some("inside".into()));
    // What failed has not left anything behind.
    is_refused(database.transaction(|_| database.read(&gen_schema, &id)));
    assert!(database.read(&gen_schema, &id).unwrap().is_some());
    let mut count = 0;
    database
        .for_each(&gen_schema, |_| {
            use_everything(&database);
            count += 1;
            true
        })
        .unwrap();
    assert_eq!(count, 1);
    assert_eq!(other_store.list(&gen_schema).unwrap().len(), 1);
}

#[test]
#[should_panic(expected = "inside its own transaction")]
fn what_cannot_fail_panics_inside_a_transaction() {
    let database = Database::open_in_memory().unwrap();
    let replication = database.replication("default").unwrap();
    let _ = database.transaction(|_| Ok(replication.durable_vector()));
}

#[test]
fn rights_are_read_without_a_transaction() {
    let database = Database::open_in_memory().unwrap();
    let gen_schema = note_gen();
    let id = database.document_id("note");
    let rights = |direction| database.rights(&gen_schema, &id, "stock", direction);
    let missing = rights(Direction::Up).unwrap_err();
    assert!(matches!(missing, Error::Refused { .. }), "{missing}");
    let document = Document::create(&database, &gen_schema, "note").unwrap();
    let of_transaction = |direction| {
        database
            .transaction(|transaction| transaction.rights(&gen_schema, "note", "stock", direction))
            .unwrap()
    };
    let changes = database.replication("default").unwrap().durable_vector();
    for direction in [Direction::Up, Direction::Down] {
        assert_eq!(document.rights("stock", direction).unwrap(), of_transaction(direction));
        assert_eq!(rights(direction).unwrap(), of_transaction(direction));
    }
    assert!(matches!(document.rights("text", Direction::Up), Err(Error::Refused { .. })));
    assert_eq!(database.replication("default").unwrap().durable_vector(), changes);
}
