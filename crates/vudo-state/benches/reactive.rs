//! Subscriptions: how soon a subscriber hears of a commit, and what subscribers cost whoever
//! commits. The stores are in memory, so that no disk is in the figures.

mod common;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{fill, key, record_gen};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vudo_crdt::GenSchema;
use vudo_state::{Database, Durability, Event, Interest, QUEUE_DOCUMENTS_MAX, Subscription};

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
    for count in [0u64, 1, 10, 100] {
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

criterion_group!(benches, subscribing, delivery, fan_out, lagging);
criterion_main!(benches);
