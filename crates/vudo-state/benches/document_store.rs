//! A store as a whole: opening it, walking through it with cold and with warm tables, closing it.
//!
//! Cold means that the engine holds nothing; the system's own cache of the file is warm, as it is
//! for an application that is started again.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::documents::{fill, key, record_gen};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use vudo_crdt::{GenSchema, Value};
use vudo_state::{Database, Durability};

const LARGE_COUNT: u64 = 100_000;
/// Some documents all over the store, and as many as fit into a row's time.
const SCATTERED_COUNT: u64 = 1_000;

/// A closed store that holds this many documents.
fn closed_store(count: u64) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for a store");
    fill(&open(folder.path()), &record_gen(), count);
    folder
}

fn open(path: &Path) -> Database {
    Database::open(path).expect("the folder can hold a store, and nobody has it open")
}

/// Reads every document and gives the sum of their values.
fn sum_all(database: &Database, gen_schema: &GenSchema) -> i128 {
    let mut sum = 0;
    database
        .for_each(gen_schema, |record| {
            if let Some(Value::Int(value)) = record.get("value") {
                sum += value;
            }
            true
        })
        .expect("the store can be read");
    sum
}

/// Reads documents that lie far from each other and gives the sum of their values.
fn sum_scattered(database: &Database, gen_schema: &GenSchema, keys: &[String]) -> i128 {
    let value_of = |key: &String| {
        let value = database.read_field(gen_schema, &database.document_id(key), "value");
        match value.expect("the store can be read") {
            Some(Value::Int(value)) => value,
            other => panic!("{key} has {other:?}"),
        }
    };
    keys.iter().map(value_of).sum()
}

fn opening(criterion: &mut Criterion) {
    let gen_schema = record_gen();
    let mut group = common::group(criterion, "document_store/open_and_first_read");
    for (name, count) in [("empty", 0), ("small_1000", 1_000), ("large_100000", LARGE_COUNT)] {
        let folder = closed_store(count);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let run = || {
                    let start = Instant::now();
                    let database = open(folder.path());
                    let id = database.document_id("record777");
                    let record = database.read(&gen_schema, &id).expect("it can be read");
                    let elapsed = start.elapsed();
                    assert_eq!(record.is_some(), count > 777);
                    elapsed
                };
                (0..iterations).map(|_| run()).sum()
            });
        });
    }
    group.finish();
}

fn walking(criterion: &mut Criterion) {
    let gen_schema = record_gen();
    let folder = closed_store(LARGE_COUNT);
    let expected: i128 = (0..i128::from(LARGE_COUNT)).sum();
    let mut group = common::group(criterion, "document_store/read_all_100000");
    group.throughput(Throughput::Elements(LARGE_COUNT));
    group.bench_function("cold", |bencher| {
        bencher.iter_custom(|iterations| {
            let run = || {
                let database = open(folder.path());
                let start = Instant::now();
                assert_eq!(sum_all(&database, &gen_schema), expected);
                start.elapsed()
            };
            (0..iterations).map(|_| run()).sum()
        });
    });
    let database = open(folder.path());
    assert_eq!(sum_all(&database, &gen_schema), expected);
    group.bench_function("warm", |bencher| {
        bencher.iter(|| assert_eq!(sum_all(&database, &gen_schema), expected));
    });
    group.finish();

    let mut group = common::group(criterion, "document_store/first_page");
    group.throughput(Throughput::Elements(100));
    group.bench_function("100_of_100000", |bencher| {
        bencher.iter(|| {
            let mut page = Vec::with_capacity(100);
            let visit = |record| {
                page.push(record);
                page.len() < 100
            };
            database.for_each(&gen_schema, visit).expect("the store can be read");
            assert_eq!(page.len(), 100);
            page
        });
    });
    group.finish();
}

fn scattered_reads(criterion: &mut Criterion) {
    let gen_schema = record_gen();
    let folder = closed_store(LARGE_COUNT);
    // 7919 is prime to 100,000, so no document comes twice.
    let numbers = || (0..SCATTERED_COUNT).map(|index| index * 7_919 % LARGE_COUNT);
    let keys: Vec<String> = numbers().map(key).collect();
    let expected: i128 = numbers().map(i128::from).sum();
    let mut group = common::group(criterion, "document_store/read_1000_scattered");
    group.throughput(Throughput::Elements(SCATTERED_COUNT));
    group.bench_function("cold", |bencher| {
        bencher.iter_custom(|iterations| {
            let run = || {
                let database = open(folder.path());
                let start = Instant::now();
                assert_eq!(sum_scattered(&database, &gen_schema, &keys), expected);
                start.elapsed()
            };
            (0..iterations).map(|_| run()).sum()
        });
    });
    let database = open(folder.path());
    group.bench_function("warm", |bencher| {
        bencher.iter(|| assert_eq!(sum_scattered(&database, &gen_schema, &keys), expected));
    });
    group.finish();
}

/// What becomes of a database; gives it back where it stays open.
type End = fn(Database) -> Option<Database>;

/// Flushing writes the log alone; closing writes the tables too, so that opening replays nothing.
fn closing(criterion: &mut Criterion) {
    let gen_schema = record_gen();
    let run = |end: End| {
        let folder = tempfile::tempdir().expect("a folder for a store");
        let database = open(folder.path());
        let fast = database.with_durability(Durability::Eventual);
        for number in 0..1_000u64 {
            let fields = [("value", (number as i64).into())];
            let id = fast.document_id(&key(number));
            fast.create(&gen_schema, &id, &fields).expect("a new document");
        }
        drop(fast);
        let start = Instant::now();
        let database = end(database);
        let elapsed = start.elapsed();
        drop(database);
        let expected = (0..1_000).sum();
        assert_eq!(sum_all(&open(folder.path()), &gen_schema), expected);
        elapsed
    };
    let flush = |database: Database| {
        database.flush().expect("the disk takes what is pending");
        Some(database)
    };
    let close = |database: Database| {
        drop(database);
        None
    };
    let ends: [(&str, End); 2] =
        [("flush_1000_changes", flush), ("close_after_1000_changes", close)];
    let mut group = common::group(criterion, "document_store/end");
    for (name, end) in ends {
        group.bench_function(name, |bencher| {
            let sample = |iterations| (0..iterations).map(|_| run(end)).sum::<Duration>();
            bencher.iter_custom(sample);
        });
    }
    group.finish();
}

criterion_group!(benches, opening, walking, scattered_reads, closing);
criterion_main!(benches);
