//! What single operations of the engine cost: in memory, on disk without waiting for its syncs
//! (`eventual`), and on disk with a sync behind every commit (`durable`).
//!
//! Every sample works on a store of its own, so that no figure depends on how often the closure
//! ran before it.

mod common;

use std::time::{Duration, Instant};

use common::documents::{fill, key, record_gen};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use vudo_crdt::{GenSchema, Value};
use vudo_state::{Database, DocumentId, Durability};

/// How many documents there are where an operation needs some that are there already.
const HELD_COUNT: u64 = 1_000;

#[derive(Clone, Copy)]
enum Medium {
    Memory,
    Eventual,
    Durable,
}

impl Medium {
    const ALL: [Medium; 3] = [Medium::Memory, Medium::Eventual, Medium::Durable];

    fn name(self) -> &'static str {
        match self {
            Medium::Memory => "memory",
            Medium::Eventual => "disk_eventual",
            Medium::Durable => "disk_durable",
        }
    }
}

/// A store; the database closes before its folder goes.
struct Store {
    database: Database,
    gen_schema: GenSchema,
    _folder: Option<TempDir>,
}

impl Store {
    /// A new store that holds the documents 0 to `count`.
    fn with_documents(medium: Medium, count: u64) -> Store {
        let folder = match medium {
            Medium::Memory => None,
            _ => Some(tempfile::tempdir().expect("a folder for a store")),
        };
        let database = match &folder {
            None => Database::open_in_memory().expect("the system gives randomness"),
            Some(folder) => Database::open(folder.path()).expect("a new store"),
        };
        let durability = match medium {
            Medium::Durable => Durability::Durable,
            _ => Durability::Eventual,
        };
        let gen_schema = record_gen();
        fill(&database, &gen_schema, count);
        let database = database.with_durability(durability);
        Store { database, gen_schema, _folder: folder }
    }

    fn id(&self, number: u64) -> DocumentId {
        self.database.document_id(&key(number))
    }

    fn change_count(&self) -> u64 {
        self.database.flush().expect("the disk takes what is pending");
        let replication = self.database.replication("default").expect("the namespace is open");
        replication.durable_vector().change_count()
    }
}

/// Times `run` for the numbers from 0; keys are formatted outside.
fn timed(ids: &[DocumentId], mut run: impl FnMut(u64, &DocumentId)) -> Duration {
    let start = Instant::now();
    for (number, id) in ids.iter().enumerate() {
        run(number as u64, id);
    }
    start.elapsed()
}

/// Runs `sample(iterations)` as criterion asks for.
fn bench(
    criterion: &mut Criterion,
    operation: &str,
    media: &[Medium],
    elements: u64,
    mut sample: impl FnMut(Medium, u64) -> Duration,
) {
    let mut group = common::group(criterion, &format!("state_engine/{operation}"));
    group.throughput(Throughput::Elements(elements));
    for &medium in media {
        group.bench_function(BenchmarkId::from_parameter(medium.name()), |bencher| {
            bencher.iter_custom(|iterations| sample(medium, iterations));
        });
    }
    group.finish();
}

fn single_writes(criterion: &mut Criterion) {
    bench(criterion, "create", &Medium::ALL, 1, |medium, iterations| {
        let store = Store::with_documents(medium, 0);
        let ids: Vec<_> = (0..iterations).map(|number| store.id(number)).collect();
        let elapsed = timed(&ids, |number, id| {
            let fields = [("name", "a name".into()), ("id", (number as i64).into())];
            store.database.create(&store.gen_schema, id, &fields).expect("a new document");
        });
        assert_eq!(store.change_count(), iterations);
        elapsed
    });
    bench(criterion, "update", &Medium::ALL, 1, |medium, iterations| {
        let store = Store::with_documents(medium, HELD_COUNT);
        let before = store.change_count();
        let ids: Vec<_> = (0..iterations).map(|number| store.id(number % HELD_COUNT)).collect();
        let elapsed = timed(&ids, |number, id| {
            let fields = [("value", (number as i64).into())];
            store.database.update(&store.gen_schema, id, &fields).expect("the document is there");
        });
        assert_eq!(store.change_count() - before, iterations);
        elapsed
    });
    bench(criterion, "delete", &Medium::ALL, 1, |medium, iterations| {
        let store = Store::with_documents(medium, iterations);
        let ids: Vec<_> = (0..iterations).map(|number| store.id(number)).collect();
        let elapsed = timed(&ids, |_, id| {
            store.database.delete(&store.gen_schema, id).expect("the document is there");
        });
        let left = store.database.list(&store.gen_schema).expect("the store can be read");
        assert!(left.is_empty());
        elapsed
    });
}

fn reads(criterion: &mut Criterion) {
    let media = [Medium::Memory, Medium::Eventual];
    bench(criterion, "read", &media, 1, |medium, iterations| {
        let store = Store::with_documents(medium, HELD_COUNT);
        let ids: Vec<_> = (0..iterations).map(|number| store.id(number % HELD_COUNT)).collect();
        timed(&ids, |number, id| {
            let record = store.database.read(&store.gen_schema, id).expect("it can be read");
            let record = record.expect("the document is there");
            assert_eq!(record.get("value"), Some(&Value::Int((number % HELD_COUNT).into())));
        })
    });
    bench(criterion, "read_field", &media, 1, |medium, iterations| {
        let store = Store::with_documents(medium, HELD_COUNT);
        let ids: Vec<_> = (0..iterations).map(|number| store.id(number % HELD_COUNT)).collect();
        timed(&ids, |number, id| {
            let value = store.database.read_field(&store.gen_schema, id, "value");
            let value = value.expect("it can be read");
            assert_eq!(value, Some(Value::Int((number % HELD_COUNT).into())));
        })
    });
    bench(criterion, "list_1000", &media, HELD_COUNT, |medium, iterations| {
        let store = Store::with_documents(medium, HELD_COUNT);
        let start = Instant::now();
        for _ in 0..iterations {
            let records = store.database.list(&store.gen_schema).expect("it can be read");
            assert_eq!(records.len() as u64, HELD_COUNT);
        }
        start.elapsed()
    });
}

fn transactions(criterion: &mut Criterion) {
    const TOUCHED_COUNT: u64 = 100;
    bench(criterion, "transaction_100_documents", &Medium::ALL, 100, |medium, iterations| {
        let store = Store::with_documents(medium, HELD_COUNT);
        let before = store.change_count();
        let keys: Vec<_> = (0..TOUCHED_COUNT).map(key).collect();
        let start = Instant::now();
        for iteration in 0..iterations {
            let written = store.database.transaction(|transaction| {
                keys.iter().try_for_each(|key| {
                    transaction.set(&store.gen_schema, key, "value", iteration as i64)
                })?;
                Ok(transaction.document_count())
            });
            assert_eq!(written.expect("the documents are there") as u64, TOUCHED_COUNT);
        }
        let elapsed = start.elapsed();
        assert_eq!(store.change_count() - before, iterations);
        elapsed
    });
    bench(criterion, "batch_1000_creates", &Medium::ALL, HELD_COUNT, |medium, iterations| {
        let run = || {
            let store = Store::with_documents(medium, 0);
            let start = Instant::now();
            fill(&store.database, &store.gen_schema, HELD_COUNT);
            let elapsed = start.elapsed();
            assert_eq!(store.change_count(), 1);
            elapsed
        };
        (0..iterations).map(|_| run()).sum()
    });
}

/// Ten threads, each writing to a document of its own. What they wrote is durable when the time
/// ends. Where every commit waits for the disk they write a tenth as often, to keep the row short.
fn concurrent_writes(criterion: &mut Criterion) {
    let rows: [(&str, &[Medium], u64); 2] = [
        ("concurrent_10x100", &[Medium::Memory, Medium::Eventual], 100),
        ("concurrent_10x10", &[Medium::Durable], 10),
    ];
    for (name, media, write_count) in rows {
        bench(criterion, name, media, 10 * write_count, |medium, iterations| {
            (0..iterations).map(|_| write_concurrently(medium, write_count)).sum()
        });
    }
}

fn write_concurrently(medium: Medium, write_count: u64) -> Duration {
    let store = Store::with_documents(medium, 10);
    let ids: Vec<_> = (0..10).map(|number| store.id(number)).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for id in &ids {
            let (database, gen_schema) = (&store.database, &store.gen_schema);
            scope.spawn(move || {
                for value in 1..=write_count {
                    let fields = [("value", (value as i64).into())];
                    database.update(gen_schema, id, &fields).expect("the document is there");
                }
            });
        }
    });
    store.database.flush().expect("the disk takes what is pending");
    let elapsed = start.elapsed();
    let records = store.database.list(&store.gen_schema).expect("it can be read");
    let last = Value::Int(write_count.into());
    assert_eq!(records.iter().filter(|record| record.get("value") == Some(&last)).count(), 10);
    elapsed
}

/// What waits to be acknowledged, and a past moment, out of a log of 10,000 changes.
fn queue_and_snapshots(criterion: &mut Criterion) {
    const CHANGE_COUNT: u64 = 10_000;
    let store = Store::with_documents(Medium::Eventual, 0);
    for number in 0..CHANGE_COUNT {
        let fields = [("value", (number as i64).into())];
        let id = store.id(number);
        store.database.create(&store.gen_schema, &id, &fields).expect("a new document");
    }
    store.database.flush().expect("the disk takes what is pending");
    let outbox = store.database.outbox().expect("the namespace is open");
    let mut group = common::group(criterion, "state_engine/of_10000_changes");
    group.bench_function("pending_count", |bencher| {
        bencher.iter(|| assert_eq!(outbox.pending_count(), CHANGE_COUNT));
    });
    group.bench_function("first_100_pending", |bencher| {
        bencher.iter(|| assert_eq!(outbox.pending(100).expect("it can be read").len(), 100));
    });
    group.bench_function("pin", |bencher| {
        bencher.iter(|| store.database.pin("a moment").expect("the disk takes it"));
    });
    group.bench_function("snapshot_of_a_pin", |bencher| {
        bencher.iter(|| {
            let snapshot = store.database.snapshot_of_pin("a moment").expect("it can be read");
            assert!(snapshot.read(&store.gen_schema, &key(777)).expect("a value").is_some());
        });
    });
    group.finish();
}

criterion_group!(
    benches,
    queue_and_snapshots,
    single_writes,
    reads,
    transactions,
    concurrent_writes
);
criterion_main!(benches);
