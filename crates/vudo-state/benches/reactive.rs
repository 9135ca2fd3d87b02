//! Subscriptions: how soon a subscriber hears of a commit, and what subscribers cost whoever
//! commits. The stores are in memory, so that no disk is in the figures.

mod common;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::documents::{fill, key, record_gen};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vudo_crdt::GenSchema;
use vudo_state::{
    Condition, Database, Direction, Durability, Event, Interest, QUEUE_DOCUMENTS_MAX, Query,
    Subscription,
};

/// A subscriber that hears nothing for this long never will.
const PATIENCE: Duration = Duration::from_secs(10);

fn database(gen_schema: &GenSchema, document_count: u64) -> Database {
    let database = Database::open_in_memory().expect("the system gives randomness");
    fill(&database, gen_schema, document_count);
    database.with_durability(Durability::Eventual)
}

fn document(number: u64) -> Interest {
    Interest::Document { gen_name: "Record".into(), key: key(number) }
}

fn subscribe(database: &Database, interest: Interest) -> Subscription {
    database.subscribe(interest).expect("the namespace is open")
}

fn commit(database: &Database, gen_schema: &GenSchema, value: u64) {
    let fields = [("value", (value as i64).into())];
    let id = database.document_id(&key(0));
    database.update(gen_schema, &id, &fields).expect("the document is there");
}

fn subscribing(criterion: &mut Criterion) {
    let gen_schema = record_gen();
    let database = database(&gen_schema, 1);
    let mut group = common::group(criterion, "reactive/subscribe");
    for (name, interest) in [("document", document(0)), ("namespace", Interest::Namespace)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let start = Instant::now();
                for _ in 0..iterations {
                    drop(subscribe(&database, interest.clone()));
                }
                let elapsed = start.elapsed();
                // A commit forgets the subscribers that have gone, and reaches the one that has not.
                let subscription = subscribe(&database, interest.clone());
                commit(&database, &gen_schema, iterations);
                assert!(subscription.try_next().is_some());
                elapsed
            });
        });
    }
    group.finish();
}

/// A thread that tells when each event reached it. It ends when nobody listens any more.
fn start_listener(subscription: Subscription) -> Receiver<(Instant, Event)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        while let Some(event) = subscription.next_within(PATIENCE) {
            if sender.send((Instant::now(), event)).is_err() {
                return;
            }
        }
    });
    receiver
}

/// From before a commit until the subscriber's thread holds the event.
fn delivery(criterion: &mut Criterion) {
    let gen_schema = record_gen();
    let mut group = common::group(criterion, "reactive/delivery");
    for (name, interest) in [("document", document(0)), ("namespace", Interest::Namespace)] {
        let database = database(&gen_schema, 1);
        let arrivals = start_listener(subscribe(&database, interest));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let run = |value| {
                    let start = Instant::now();
                    commit(&database, &gen_schema, value);
                    let arrival = arrivals.recv_timeout(PATIENCE);
                    let (arrived, event) = arrival.expect("the commit reaches its subscriber");
                    assert_eq!((event.documents.len(), event.lagged), (1, 0));
                    arrived - start
                };
                (0..iterations).map(run).sum()
            });
        });
    }
    group.finish();
}

/// A commit, and every subscriber taking its event.
fn fan_out(criterion: &mut Criterion) {
    let gen_schema = record_gen();
    let mut group = common::group(criterion, "reactive/fan_out");
    for count in [0u64, 1, 10, 100, 1_000, 10_000] {
        let database = database(&gen_schema, 1);
        let subscriptions: Vec<Subscription> =
            (0..count).map(|_| subscribe(&database, Interest::Namespace)).collect();
        group.throughput(Throughput::Elements(count.max(1)));
        group.bench_with_input(BenchmarkId::new("namespace", count), &count, |bencher, count| {
            let mut value = 0;
            bencher.iter(|| {
                value += 1;
                commit(&database, &gen_schema, value);
                let received = subscriptions.iter().filter(|one| one.try_next().is_some()).count();
                assert_eq!(received as u64, *count);
            });
        });
    }
    // The other documents' subscribers are passed over.
    let database = database(&gen_schema, 100);
    let subscriptions: Vec<Subscription> =
        (0..100).map(|number| subscribe(&database, document(number))).collect();
    group.throughput(Throughput::Elements(1));
    group.bench_function("one_document_of_100", |bencher| {
        let mut value = 0;
        bencher.iter(|| {
            value += 1;
            commit(&database, &gen_schema, value);
            let received = subscriptions.iter().filter(|one| one.try_next().is_some()).count();
            assert_eq!(received, 1);
        });
    });
    group.finish();
}

/// An interest of the subscriber of a number, in documents of a Gen.
type MakeInterest = fn(String, u64) -> Interest;

/// A commit that concerns one of 10,000 subscribers, whatever they are interested in.
fn filters(criterion: &mut Criterion) {
    const COUNT: u64 = 10_000;
    let gen_schema = record_gen();
    let gen_name = || "Record".to_owned();
    let interests: [(&str, MakeInterest); 3] = [
        ("document", |gen_name, number| Interest::Document { gen_name, key: key(number) }),
        ("field", |gen_name, number| Interest::Field {
            gen_name,
            key: key(number),
            field_number: 3,
        }),
        // Nobody else's key begins like this one, so all but one are passed over.
        ("prefix", |gen_name, number| Interest::Prefix {
            gen_name,
            key_prefix: if number == 0 { "record".to_owned() } else { format!("other{number}") },
        }),
    ];
    let mut group = common::group(criterion, "reactive/one_of_10000");
    for (name, interest) in interests {
        let database = database(&gen_schema, 1);
        let subscriptions: Vec<Subscription> =
            (0..COUNT).map(|number| subscribe(&database, interest(gen_name(), number))).collect();
        group.bench_function(name, |bencher| {
            let mut value = 0;
            bencher.iter(|| {
                value += 1;
                commit(&database, &gen_schema, value);
                assert!(subscriptions[0].try_next().is_some());
            });
        });
        assert!(subscriptions[1..].iter().all(|one| one.try_next().is_none()));
    }
    group.finish();
}

/// A change to one of 100,000 documents, and the steps that follow from it.
fn live_queries(criterion: &mut Criterion) {
    const COUNT: u64 = 100_000;
    let gen_schema = record_gen();
    let database = database(&gen_schema, COUNT);
    let above = |least: i64| {
        let query = Query::of(&gen_schema).filter("value", Condition::AtLeast(least.into()));
        query.and_then(|query| query.sort_by("value", Direction::Descending)).expect("its fields")
    };
    let change = |number: u64, value: i64| {
        let id = database.document_id(&key(number));
        let fields = [("value", value.into())];
        database.update(&gen_schema, &id, &fields).expect("the document is there");
    };
    let mut group = common::group(criterion, "reactive/live_100000");
    group.bench_function("start", |bencher| {
        bencher.iter(|| {
            let live = database.live(above(0)).expect("a live query");
            assert_eq!(live.match_count(), COUNT);
        });
    });
    group.bench_function("commit_without", |bencher| {
        let mut number = 0;
        bencher.iter(|| {
            number = (number + 7_919) % COUNT;
            change(number, number as i64);
        });
    });
    // All documents in order, and the first twenty of them, which any change may reach.
    let (mut number, mut value) = (0, COUNT as i64);
    for (name, query) in [("all_sorted", above(0)), ("first_20", above(0).limit(20))] {
        let live = database.live(query).expect("a live query");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                number = (number + 7_919) % COUNT;
                value += 1;
                change(number, value);
                let change = live.try_next().expect("it is at the front now");
                assert_eq!((change.lagged, change.match_count), (0, COUNT));
                change.steps.len()
            });
        });
    }
    group.bench_function("snapshot_of_20", |bencher| {
        let live = database.live(above(0).limit(20)).expect("a live query");
        bencher.iter(|| assert_eq!(live.snapshot().expect("it can be read").len(), 20));
    });
    group.finish();
}

/// A subscriber that does not read must cost a commit no more than one that does.
fn lagging(criterion: &mut Criterion) {
    let gen_schema = record_gen();
    let mut group = common::group(criterion, "reactive/lagging");
    group.bench_function("commit_past_a_full_queue", |bencher| {
        bencher.iter_custom(|iterations| {
            let database = database(&gen_schema, 1);
            let subscription = subscribe(&database, Interest::Namespace);
            (0..QUEUE_DOCUMENTS_MAX as u64).for_each(|value| commit(&database, &gen_schema, value));
            let start = Instant::now();
            (0..iterations).for_each(|value| commit(&database, &gen_schema, value));
            let elapsed = start.elapsed();
            let held = std::iter::from_fn(|| subscription.try_next()).count();
            assert_eq!(held, QUEUE_DOCUMENTS_MAX);
            commit(&database, &gen_schema, 0);
            let next = subscription.try_next().expect("there is room again");
            assert_eq!(next.lagged, iterations);
            elapsed
        });
    });
    group.finish();
}

criterion_group!(benches, subscribing, delivery, fan_out, filters, live_queries, lagging);
criterion_main!(benches);
