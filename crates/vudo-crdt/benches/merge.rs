//! What merging costs, next to putting the same pairs into a `HashMap` in the same run.
//!
//! Every measured closure asserts that its work was done. The size of a single-op change on the
//! wire is printed, because it is a count and needs no clock.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use vudo_crdt::merkle::{MerkleLog, leaf_hash};
use vudo_crdt::value::decode_i64;
use vudo_crdt::wire::{Reader, write_bytes};
use vudo_crdt::{
    FieldSchema, GenIndex, InMemory, Log, Namespace, ReplicaKey, Strategy, Transaction, Value,
    ValueType,
};

const PAIR_COUNT: usize = 10_000;
const HELD_COUNT: usize = 100_000;
const NOW_MILLISECONDS: u64 = 1_700_000_000_000;
const GEN: GenIndex = 0;

fn value_field() -> FieldSchema {
    FieldSchema::new("value", 1, Strategy::Lww, ValueType::I64)
}

fn votes_field() -> FieldSchema {
    FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64)
}

/// Two writers' keys in turn, as they come when two stores have been busy.
fn keys() -> Vec<String> {
    let pair = |index: usize| [format!("key_a_{index}"), format!("key_b_{index}")];
    (0..PAIR_COUNT / 2).flat_map(pair).collect()
}

/// A store that writes.
struct Writer {
    namespace: Namespace,
    log: Log,
}

impl Writer {
    fn new(first_key_byte: u8) -> Writer {
        let mut namespace = Namespace::new(7);
        namespace.intern_replica(ReplicaKey([first_key_byte; 32]));
        namespace.intern_gen("Entry").unwrap();
        Writer { namespace, log: Log::default() }
    }

    /// Runs one transaction.
    fn write(&mut self, number: u64, work: impl FnOnce(&mut Transaction, &mut Namespace)) {
        let mut transaction = Transaction::begin(&self.namespace, 0, NOW_MILLISECONDS + number);
        work(&mut transaction, &mut self.namespace);
        transaction.commit(&mut self.namespace, &mut InMemory, &mut self.log).unwrap();
    }

    fn put(&mut self, number: u64, key: &str) {
        self.write(number, |transaction, namespace| {
            put(transaction, namespace, key.as_bytes(), number as i64);
        });
    }

    fn frame(&self) -> Vec<u8> {
        self.log.frame_since(&self.namespace, &Default::default())
    }
}

fn put(transaction: &mut Transaction, namespace: &mut Namespace, key: &[u8], value: i64) {
    transaction.create(namespace, &mut InMemory, GEN, key).unwrap();
    let value = Value::from(value);
    transaction.set(namespace, &mut InMemory, GEN, key, &value_field(), &value).unwrap();
}

/// Every pair in a change of its own.
fn single_op_writer(keys: &[String]) -> Writer {
    let mut writer = Writer::new(1);
    for (number, key) in keys.iter().enumerate() {
        writer.put(number as u64, key);
    }
    writer
}

fn large_change_frame(keys: &[String]) -> Vec<u8> {
    let mut writer = Writer::new(1);
    writer.write(0, |transaction, namespace| {
        for (number, key) in keys.iter().enumerate() {
            put(transaction, namespace, key.as_bytes(), number as i64);
        }
    });
    writer.frame()
}

/// Ten thousand changes that each add to one of a hundred counters.
fn increments_frame() -> (Vec<u8>, Vec<u8>) {
    let mut writer = Writer::new(1);
    let keys: Vec<String> = (0..100).map(|index| format!("counter_{index}")).collect();
    writer.write(0, |transaction, namespace| {
        for key in &keys {
            transaction.create(namespace, &mut InMemory, GEN, key.as_bytes()).unwrap();
        }
    });
    let held = writer.frame();
    let votes = votes_field();
    for number in 0..PAIR_COUNT {
        writer.write(number as u64, |transaction, namespace| {
            let key = keys[number % keys.len()].as_bytes();
            transaction.add(namespace, &mut InMemory, GEN, key, &votes, 1).unwrap();
        });
    }
    let since = first_change(&writer);
    (held, writer.log.frame_since(&writer.namespace, &since))
}

fn first_change(writer: &Writer) -> vudo_crdt::VersionVector {
    let mut since = vudo_crdt::VersionVector::new();
    since.advance(*writer.namespace.replicas().key(0), 1);
    since
}

fn empty() -> Namespace {
    Namespace::new(9)
}

fn apply(namespace: &mut Namespace, frame: &[u8], changes: usize, operations: usize) {
    let applied = namespace.apply_frame(frame, &mut InMemory, &mut ()).unwrap();
    assert_eq!((applied.changes, applied.operations), (changes as u64, operations as u64));
}

/// A namespace with many documents of another writer.
fn held_namespace() -> Namespace {
    let mut writer = Writer::new(2);
    for first in (0..HELD_COUNT).step_by(1_000) {
        writer.write(0, |transaction, namespace| {
            for index in first..first + 1_000 {
                put(transaction, namespace, format!("held_{index}").as_bytes(), index as i64);
            }
        });
    }
    writer.namespace
}

fn merge_into_empty(criterion: &mut Criterion) {
    let keys = keys();
    let single = single_op_writer(&keys).frame();
    let large = large_change_frame(&keys);
    let per_change = single.len() as f64 / PAIR_COUNT as f64;
    let per_pair = large.len() as f64 / PAIR_COUNT as f64;
    println!("a single-op change takes {per_change:.2} bytes, a pair of one change {per_pair:.2}");

    let mut pairs = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        write_bytes(&mut pairs, key.as_bytes());
        write_bytes(&mut pairs, &Value::from(number as i64).to_bytes());
    }
    let mut group = criterion.benchmark_group("merge/into_empty");
    group.sample_size(20).measurement_time(Duration::from_secs(1)).nresamples(5_000);
    group.warm_up_time(Duration::from_millis(300));
    group.bench_function("10000_pairs_into_hash_map", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut map = HashMap::new();
            let mut reader = Reader::new(black_box(&pairs));
            while !reader.is_empty() {
                let key = std::str::from_utf8(reader.bytes().unwrap()).unwrap();
                let value = decode_i64(reader.bytes().unwrap()).unwrap();
                map.insert(key.to_owned(), value);
            }
            assert_eq!(map.len(), PAIR_COUNT);
            map
        });
    });
    for (name, frame, changes) in
        [("10000_single_op_changes", &single, PAIR_COUNT), ("one_change_of_10000", &large, 1)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| {
                let mut namespace = empty();
                apply(&mut namespace, black_box(frame), changes, PAIR_COUNT);
                namespace
            });
        });
    }
    group.bench_function("10000_duplicates", |bencher| {
        let mut namespace = empty();
        apply(&mut namespace, &single, PAIR_COUNT, PAIR_COUNT);
        bencher.iter(|| apply(&mut namespace, black_box(&single), 0, 0));
    });
    group.finish();
}

fn merge_into_held(criterion: &mut Criterion) {
    let keys = keys();
    let single = single_op_writer(&keys).frame();
    let (counters, increments) = increments_frame();
    let mut with_counters = empty();
    apply(&mut with_counters, &counters, 1, 100);
    let held = held_namespace();
    assert_eq!(held.gen_names().len(), 1);

    let mut group = criterion.benchmark_group("merge/into_held");
    group.sample_size(10).measurement_time(Duration::from_secs(1)).nresamples(5_000);
    group.warm_up_time(Duration::from_millis(300));
    group.bench_function("10000_counter_increments", |bencher| {
        let run = |mut namespace: Namespace| {
            apply(&mut namespace, black_box(&increments), PAIR_COUNT, PAIR_COUNT);
            namespace
        };
        bencher.iter_batched(|| with_counters.clone(), run, BatchSize::LargeInput);
    });
    group.bench_function("10000_single_op_changes_beside_100000_documents", |bencher| {
        let run = |mut namespace: Namespace| {
            apply(&mut namespace, black_box(&single), PAIR_COUNT, PAIR_COUNT);
            namespace
        };
        bencher.iter_batched(|| held.clone(), run, BatchSize::LargeInput);
    });
    group.finish();
}

fn local(criterion: &mut Criterion) {
    let keys = keys();
    let writer = single_op_writer(&keys);
    let value = value_field();

    let mut group = criterion.benchmark_group("merge/local");
    group.sample_size(10).measurement_time(Duration::from_secs(1)).nresamples(5_000);
    group.warm_up_time(Duration::from_millis(300));
    group.bench_function("10000_transactions_of_one_write", |bencher| {
        bencher.iter_with_large_drop(|| {
            let writer = single_op_writer(black_box(&keys));
            assert_eq!(writer.log.change_count(), PAIR_COUNT);
            writer
        });
    });
    group.bench_function("10000_reads", |bencher| {
        bencher.iter(|| {
            let mut sum = 0;
            for key in &keys {
                let row = writer.namespace.loaded_row(GEN, black_box(key.as_bytes())).unwrap();
                sum += decode_i64(row.cell(value.id()).unwrap().state).unwrap();
            }
            assert_eq!(sum, (0..PAIR_COUNT as i64).sum::<i64>());
        });
    });
    group.bench_function("encode_frame_of_10000_changes", |bencher| {
        let length = writer.frame().len();
        bencher.iter_with_large_drop(|| {
            let frame = black_box(&writer).frame();
            assert_eq!(frame.len(), length);
            frame
        });
    });
    group.finish();
}

/// What the sync layer adds to merging: the leaf of every change in its writer's Merkle log.
fn hash(criterion: &mut Criterion) {
    let writer = single_op_writer(&keys());
    let mut group = criterion.benchmark_group("merge/hash");
    group.sample_size(10).measurement_time(Duration::from_secs(1)).nresamples(5_000);
    group.warm_up_time(Duration::from_millis(300));
    group.bench_function("10000_leaves_and_a_root", |bencher| {
        bencher.iter(|| {
            let mut log = MerkleLog::new();
            for change in writer.log.changes() {
                log.push(leaf_hash("home", black_box(&writer.namespace), &change), |_, _| ());
            }
            assert_eq!(log.length(), PAIR_COUNT as u64);
            log.root()
        });
    });
    group.finish();
}

criterion_group!(benches, merge_into_empty, merge_into_held, local, hash);
criterion_main!(benches);
