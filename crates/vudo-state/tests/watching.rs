//! Watching a namespace: callbacks, streams, fields, live queries that lag; the outbox; and
//! transactions of many threads.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_core::Stream;
use vudo_crdt::{FieldSchema, GenSchema, Strategy, Value, ValueType};
use vudo_state::{
    ChangeKind, Condition, Database, Direction, Durability, Error, Interest, QUEUE_STEPS_MAX,
    Query, Refusal,
};

fn city_gen() -> GenSchema {
    let fields = vec![
        FieldSchema::new("name", 1, Strategy::Lww, ValueType::String),
        FieldSchema::new("country", 2, Strategy::Lww, ValueType::String),
        FieldSchema::new("people", 3, Strategy::Lww, ValueType::I64),
    ];
    GenSchema::new("City", fields)
}

fn create(database: &Database, key: &str, country: &str, people: i64) {
    let fields = [("country", country.into()), ("people", people.into())];
    database.create(&city_gen(), &database.document_id(key), &fields).unwrap();
}

fn set_people(database: &Database, key: &str, people: i64) {
    let fields = [("people", people.into())];
    database.update(&city_gen(), &database.document_id(key), &fields).unwrap();
}

#[test]
fn a_field_is_told_of_when_it_is_written_and_when_its_document_goes() {
    let database = Database::open_in_memory().unwrap();
    let (gen_name, key) = ("City".to_owned(), "bern".to_owned());
    let interest = Interest::Field { gen_name, key, field_number: 3 };
    let subscription = database.subscribe(interest).unwrap();
    create(&database, "bern", "CH", 1);
    create(&database, "graz", "AT", 1);
    let id = database.document_id("bern");
    database.update(&city_gen(), &id, &[("name", "Bern".into())]).unwrap();
    set_people(&database, "bern", 2);
    database.delete(&city_gen(), &id).unwrap();
    let told: Vec<_> = subscription.try_iter().map(|event| event.documents[0].clone()).collect();
    let kinds: Vec<ChangeKind> = told.iter().map(|document| document.kind).collect();
    assert_eq!(kinds, [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Deleted]);
    assert_eq!(told[0].fields, [2, 3]);
    assert_eq!(told[1].fields, [3]);
    assert!(told.iter().all(|document| document.key == "bern"));
}

#[test]
fn a_callback_may_write_and_what_it_writes_is_told_in_order() {
    let database = Database::open_in_memory().unwrap();
    create(&database, "source", "CH", 0);
    create(&database, "mirror", "CH", 0);
    let told = Arc::new(Mutex::new(Vec::new()));
    let guard = {
        let (told, writer) = (told.clone(), database.clone());
        let interest = Interest::Gen { gen_name: "City".into() };
        let mirror = move |event: &vudo_state::Event| {
            told.lock().unwrap().push(event.number);
            if event.documents[0].key == "source" {
                let id = writer.document_id("source");
                let people = writer.read_field(&city_gen(), &id, "people").unwrap().unwrap();
                let mirror = writer.document_id("mirror");
                writer.update(&city_gen(), &mirror, &[("people", people)]).unwrap();
            }
        };
        database.on_change(interest, mirror)
    };
    let guard = guard.unwrap();
    for people in 1..=5 {
        set_people(&database, "source", people);
        let mirrored = database.read_field(&city_gen(), &database.document_id("mirror"), "people");
        assert_eq!(mirrored.unwrap(), Some(people.into()), "before the commit returns");
    }
    assert_eq!(*told.lock().unwrap(), (3..=12).collect::<Vec<u64>>(), "one after the other");
    drop(guard);
    set_people(&database, "source", 9);
    assert_eq!(told.lock().unwrap().len(), 10, "nobody is called back any more");
}

/// Counts how often it is woken.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_subscription_is_a_stream_that_wakes_whoever_polls_it() {
    let database = Database::open_in_memory().unwrap();
    let mut subscription = database.subscribe(Interest::Namespace).unwrap();
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(alarm.clone());
    let mut context = Context::from_waker(&waker);
    let mut poll = || Pin::new(&mut subscription).poll_next(&mut context);
    assert!(poll().is_pending());
    create(&database, "bern", "CH", 1);
    assert_eq!(alarm.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(Some(event)) = poll() else { panic!("the event is there") };
    assert_eq!(event.documents[0].key, "bern");
    assert!(poll().is_pending());
    // What a future of any runtime would do.
    let mut live = database.live(Query::of(&city_gen())).unwrap();
    let mut next = Box::pin(poll_fn(|context| Pin::new(&mut live).poll_next(context)));
    let mut context = Context::from_waker(&waker);
    assert!(next.as_mut().poll(&mut context).is_pending());
    set_people(&database, "bern", 2);
    assert!(matches!(next.as_mut().poll(&mut context), Poll::Ready(Some(_))));
}

#[test]
fn a_live_query_that_is_not_read_says_so_and_catches_up() {
    let database = Database::open_in_memory().unwrap();
    create(&database, "bern", "CH", 0);
    let query = Query::of(&city_gen()).filter("country", Condition::Equal("CH".into())).unwrap();
    let live = database.live(query).unwrap();
    let fast = database.with_durability(Durability::Eventual);
    for people in 0..QUEUE_STEPS_MAX as i64 + 7 {
        set_people(&fast, "bern", people + 1);
    }
    let read = std::iter::from_fn(|| live.try_next()).count();
    assert_eq!(read, QUEUE_STEPS_MAX);
    set_people(&database, "bern", -1);
    assert_eq!(live.try_next().unwrap().lagged, 7);
    let snapshot = live.snapshot().unwrap();
    assert_eq!(snapshot[0].1.get("people"), Some(&Value::from(-1i64)));
    assert_eq!(live.try_next(), None);
}

#[test]
fn a_query_sorts_by_several_fields_and_says_which_field_it_does_not_know() {
    let database = Database::open_in_memory().unwrap();
    for (key, country, people) in [("a", "CH", 5), ("b", "AT", 5), ("c", "AT", 9), ("d", "CH", 1)] {
        create(&database, key, country, people);
    }
    let query = Query::of(&city_gen()).sort_by("people", Direction::Descending).unwrap();
    let query = query.sort_by("country", Direction::Ascending).unwrap();
    let keys = |query: &Query| -> Vec<String> {
        database.query(query).unwrap().into_iter().map(|record| record.key).collect()
    };
    assert_eq!(keys(&query), ["c", "b", "a", "d"]);
    let wanted = Condition::OneOf(vec![1i64.into(), 9i64.into()]);
    let some = query.clone().filter("people", wanted).unwrap();
    assert_eq!(keys(&some), ["c", "d"]);
    assert_eq!(database.count(&some.limit(1)).unwrap(), 2);
    assert_eq!(keys(&query.limit(0)), Vec::<String>::new());
    let unknown = Query::of(&city_gen()).sort_by("size", Direction::Ascending).unwrap_err();
    assert!(unknown.to_string().contains("has no field 'size'"), "{unknown}");
}

#[test]
fn transactions_of_many_threads_are_as_if_one_came_after_the_other() {
    const THREADS: i64 = 6;
    const TRANSFERS: i64 = 200;
    let database = Database::open_in_memory().unwrap();
    let accounts = ["a", "b", "c", "d"];
    accounts.iter().for_each(|key| create(&database, key, "CH", 1_000));
    let people = |transaction: &mut vudo_state::Transaction<'_>, key: &str| {
        let record = transaction.read(&city_gen(), key)?.expect("it is there");
        match record.get("people") {
            Some(Value::Int(people)) => Ok::<i64, Error>(*people as i64),
            other => panic!("{other:?}"),
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let database = &database;
            scope.spawn(move || {
                for number in 0..TRANSFERS {
                    let from = accounts[(thread + number) as usize % 4];
                    let to = accounts[(thread * 3 + number * 7 + 1) as usize % 4];
                    let moved = database.transaction(|transaction| {
                        let mut total = 0;
                        for key in accounts {
                            total += people(transaction, key)?;
                        }
                        assert_eq!(total, 4_000, "a transaction sees half of another");
                        let left = people(transaction, from)? - number;
                        transaction.set(&city_gen(), from, "people", left)?;
                        let right = people(transaction, to)? + number;
                        transaction.set(&city_gen(), to, "people", right)?;
                        // Some change their mind at the end.
                        match number % 5 {
                            0 => transaction.create(&city_gen(), "a"),
                            _ => Ok(()),
                        }
                    });
                    match moved {
                        Ok(()) => assert_ne!(number % 5, 0),
                        Err(error) => assert!(
                            matches!(error, Error::Refused { reason: Refusal::AlreadyExists, .. }),
                            "{error}"
                        ),
                    }
                }
            });
        }
    });
    let records = database.list(&city_gen()).unwrap();
    let total: i128 = (records.iter())
        .map(|record| match record.get("people") {
            Some(Value::Int(people)) => *people,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(total, 4_000);
    let committed = database.replication("default").unwrap().durable_vector().change_count();
    assert_eq!(committed as i64, 4 + THREADS * TRANSFERS * 4 / 5);
}

#[test]
fn the_outbox_holds_what_nobody_has_acknowledged_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let (server, phone) = (vudo_crdt::ReplicaKey([7; 32]), vudo_crdt::ReplicaKey([8; 32]));
    let database = Database::open(folder.path()).unwrap();
    // More than any queue would hold.
    let fast = database.with_durability(Durability::Eventual);
    (0..12_000).for_each(|number| create(&fast, &format!("{number:05}"), "CH", number));
    database.flush().unwrap();
    let outbox = database.outbox().unwrap();
    assert_eq!(outbox.pending_count(), 12_000);
    let first = outbox.pending(2).unwrap();
    assert_eq!(first.iter().map(|change| change.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(first[1].documents, [("City".into(), "00001".to_owned())]);
    assert!(!outbox.wait_until_stored(Duration::from_millis(5)));

    let acknowledged = |number| {
        let mut vector = vudo_crdt::VersionVector::new();
        vector.advance(database.replica_key(), number);
        vector
    };
    let replication = database.replication("default").unwrap();
    replication.record_durable(phone, &acknowledged(4_000));
    replication.record_durable(server, &acknowledged(11_999));
    replication.record_durable(server, &acknowledged(10));
    assert_eq!((outbox.pending_count(), outbox.pending_count_for(&phone)), (1, 8_000));
    assert_eq!(outbox.pending(9).unwrap()[0].number, 12_000);
    let waited = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| outbox.wait_until_stored_by(&server, Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(20));
        replication.record_durable(server, &acknowledged(12_000));
        waiter.join().unwrap()
    });
    assert!(waited);
    assert_eq!((outbox.pending_count(), outbox.pending(9).unwrap().len()), (0, 0));
    // A peer cannot acknowledge what is still to be written.
    let liar = vudo_crdt::ReplicaKey([9; 32]);
    replication.record_durable(liar, &acknowledged(u64::MAX));
    drop((database, fast, outbox, replication));

    let database = Database::open(folder.path()).unwrap();
    create(&database, "later", "CH", 0);
    let outbox = database.outbox().unwrap();
    assert_eq!(outbox.peers(), [(server, 12_000), (phone, 4_000), (liar, 12_000)]);
    assert_eq!(outbox.pending_count(), 1);
    drop((database, outbox));

    // A copy is another replica: nobody has acknowledged anything of it.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let database = Database::open(copy.path()).unwrap();
    assert_eq!(database.outbox().unwrap().peers(), []);
    create(&database, "of the copy", "CH", 0);
    assert_eq!(database.outbox().unwrap().pending_count(), 1);
}
