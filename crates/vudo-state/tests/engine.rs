//! Documents, transactions, subscriptions and replication of the engine in memory.

use std::sync::Arc;
use std::time::Duration;

use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, Value, ValueType, VersionVector};
use vudo_state::storage::MemoryStorage;
use vudo_state::{
    ChangeKind, Database, DocumentId, Error, Interest, OpenOptions, Origin, QUEUE_DOCUMENTS_MAX,
    SystemEnvironment,
};

fn task_gen() -> GenSchema {
    let fields = vec![
        FieldSchema::new("id", 1, Strategy::Immutable, ValueType::String),
        FieldSchema::new("title", 2, Strategy::Lww, ValueType::String),
        FieldSchema::new("votes", 3, Strategy::PnCounter, ValueType::I64),
    ];
    GenSchema::new("Task", fields)
}

#[test]
fn documents_are_created_read_updated_listed_and_deleted() {
    let database = Database::open_in_memory().unwrap();
    let task = task_gen();
    let milk = DocumentId::new("home", "milk");
    database.create(&task, &milk, &[("title", "Buy milk".into())]).unwrap();
    database.update(&task, &milk, &[("votes", 2i64.into()), ("id", "m".into())]).unwrap();
    let record = database.read(&task, &milk).unwrap().unwrap();
    assert_eq!(record.get("title"), Some(&"Buy milk".into()));
    assert_eq!(record.get("votes"), Some(&2i64.into()));
    assert_eq!(database.read_field(&task, &milk, "id").unwrap(), Some("m".into()));
    assert!(database.list(&task).unwrap().is_empty(), "another namespace holds nothing");
    assert_eq!(database.in_namespace("home").list(&task).unwrap(), [record]);
    database.delete(&task, &milk).unwrap();
    assert_eq!(database.read(&task, &milk).unwrap(), None);
    assert_eq!(database.namespaces().unwrap(), ["default", "home"]);
}

#[test]
fn refusals_say_what_and_where() {
    let database = Database::open_in_memory().unwrap();
    let task = task_gen();
    let milk = database.document_id("milk");
    let absent = database.update(&task, &milk, &[("title", "x".into())]).unwrap_err();
    assert_eq!(absent.to_string(), "Task/milk: there is no such document");
    database.create(&task, &milk, &[("id", "m".into())]).unwrap();
    let again = database.create(&task, &milk, &[]).unwrap_err();
    assert_eq!(again.to_string(), "Task/milk: the document exists already");
    let kind = database.update(&task, &milk, &[("title", 7i64.into())]).unwrap_err();
    assert_eq!(kind.to_string(), "Task/milk.title: the value is not of the field's type");
    let fixed = database.update(&task, &milk, &[("id", "n".into())]).unwrap_err();
    assert!(fixed.to_string().contains("immutable"), "{fixed}");
    let unknown = database.update(&task, &milk, &[("titel", "x".into())]).unwrap_err();
    assert_eq!(unknown.to_string(), "Task has no field 'titel'; it has id, title, votes");
    assert!(matches!(database.in_namespace("").list(&task), Err(Error::NamespaceName(_))));
}

#[test]
fn a_transaction_is_one_change_or_none() {
    let database = Database::open_in_memory().unwrap();
    let task = task_gen();
    let failed = database.transaction(|transaction| {
        transaction.create(&task, "a")?;
        transaction.set(&task, "a", "title", "seen inside")?;
        let inside = transaction.read(&task, "a")?.unwrap();
        assert_eq!(inside.get("title"), Some(&"seen inside".into()));
        transaction.create(&task, "a")
    });
    assert!(failed.is_err());
    assert!(database.list(&task).unwrap().is_empty(), "nothing of it happened");
    let subscription = database.subscribe(Interest::Namespace).unwrap();
    database
        .transaction(|transaction| {
            for key in ["a", "b", "c"] {
                transaction.create(&task, key)?;
                transaction.add(&task, key, "votes", 1i64)?;
                transaction.add(&task, key, "votes", 2i64)?;
            }
            Ok(())
        })
        .unwrap();
    let event = subscription.try_next().unwrap();
    assert_eq!(event.documents.len(), 3);
    assert_eq!(subscription.try_next(), None);
    let votes = database.read_field(&task, &database.document_id("b"), "votes").unwrap();
    assert_eq!(votes, Some(3i64.into()));
    let replication = database.replication("default").unwrap();
    assert_eq!(replication.durable_vector().change_count(), 1);
}

#[test]
fn subscribers_hear_of_local_and_remote_changes_and_of_their_own_lag() {
    let (left, right) = (Database::open_in_memory().unwrap(), Database::open_in_memory().unwrap());
    let task = task_gen();
    let interest = Interest::Document { gen_name: "Task".into(), key: "milk".into() };
    let subscription = right.subscribe(interest).unwrap();
    left.create(&task, &left.document_id("other"), &[]).unwrap();
    left.create(&task, &left.document_id("milk"), &[("title", "x".into())]).unwrap();
    let source = left.replication("default").unwrap();
    let frame = source.frame_since(&VersionVector::new(), usize::MAX).unwrap().unwrap();
    assert_eq!(frame.changes, 2);
    right.replication("default").unwrap().apply_frame(&frame.bytes).unwrap();
    let event = subscription.next_within(Duration::from_secs(1)).unwrap();
    assert_eq!((event.origin, event.documents.len()), (Origin::Remote, 1));
    assert_eq!(event.documents[0].kind, ChangeKind::Created);
    for number in 0..QUEUE_DOCUMENTS_MAX as i64 + 5 {
        let vote = [("votes", Value::from(number + 1))];
        right.update(&task, &right.document_id("milk"), &vote).unwrap();
    }
    for _ in 0..QUEUE_DOCUMENTS_MAX {
        let event = subscription.try_next().unwrap();
        assert_eq!((event.documents[0].kind, event.lagged), (ChangeKind::Updated, 0));
    }
    right.delete(&task, &right.document_id("milk")).unwrap();
    let event = subscription.try_next().unwrap();
    assert_eq!((event.documents[0].kind, event.lagged), (ChangeKind::Deleted, 5));
}

#[test]
fn frames_are_bounded_resumable_and_told_apart_from_garbage() {
    let left = Database::with_environment(
        Arc::new(MemoryStorage::default()),
        None,
        Arc::new(SystemEnvironment),
        &OpenOptions { segment_bytes: 200, ..OpenOptions::default() },
    );
    let (left, right) = (left.unwrap(), Database::open_in_memory().unwrap());
    let task = task_gen();
    for number in 0..500 {
        let id = left.document_id(&format!("task {number}"));
        left.create(&task, &id, &[("title", "t".into())]).unwrap();
    }
    let (source, target) =
        (left.replication("default").unwrap(), right.replication("default").unwrap());
    let mut frame_count = 0;
    while let Some(frame) = source.frame_since(&target.durable_vector(), 1_000).unwrap() {
        assert!(frame.bytes.len() < 2_000);
        target.apply_frame(&frame.bytes).unwrap();
        assert_eq!(target.durable_vector(), frame.vector);
        frame_count += 1;
    }
    assert!(frame_count > 5, "{frame_count}");
    assert_eq!(source.fingerprint().unwrap(), target.fingerprint().unwrap());
    let garbage = target.apply_frame(b"garbage that is long enough").unwrap_err();
    assert!(garbage.is_peer_fault(), "{garbage}");
}

#[test]
fn the_store_remembers_its_schema_and_settings() {
    let folder = tempfile::tempdir().unwrap();
    {
        let database = Database::open(folder.path()).unwrap();
        database.define(&Schema::from(vec![task_gen()])).unwrap();
        database.set_setting("share", b"secret").unwrap();
    }
    let database = Database::open(folder.path()).unwrap();
    assert_eq!(database.gen_schema("Task").unwrap(), task_gen());
    assert_eq!(database.setting("share").unwrap().as_deref(), Some(&b"secret"[..]));
    assert!(matches!(database.gen_schema("Tsak"), Err(Error::UnknownGen(_))));
}
