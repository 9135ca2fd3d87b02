//! What an operation costs when the documents do not fit into memory: stores of 10,000 and of
//! 1,000,000 documents (`VUDO_DOCUMENTS` for another number), both under 64 MiB, of which the same
//! number of documents, spread over all of them, is used again and again.
//!
//! Beside it, what a document that is not in memory costs, what one takes up there, and what a
//! scan of all of them costs and leaves behind.

mod common;

use std::time::Instant;

use common::documents::{fill, key, record_gen};
use common::group;
use criterion::{Criterion, criterion_group, criterion_main};
use tempfile::TempDir;
use vudo_crdt::GenSchema;
use vudo_state::{Database, Durability, MEMORY_BYTES_MAX, OpenOptions};

const SMALL_COUNT: u64 = 10_000;
const LARGE_COUNT: u64 = 1_000_000;
/// How many documents are used again and again.
const HOT_COUNT: u64 = 10_000;
/// A prime: going on by so many visits the hot documents in an order that no cache foresees.
const HOT_STRIDE: u64 = 7_919;
/// Writes that become one change.
const WRITES_PER_CHANGE: u64 = 100;

struct Store {
    database: Database,
    gen_schema: GenSchema,
    document_count: u64,
    turn: u64,
    folder: TempDir,
}

impl Store {
    fn with_documents(document_count: u64) -> Store {
        let folder = tempfile::tempdir().expect("a folder for a store");
        let database = Database::open(folder.path()).expect("a new store");
        let gen_schema = record_gen();
        let start = Instant::now();
        fill(&database, &gen_schema, document_count);
        let (seconds, held) = (start.elapsed().as_secs_f64(), database.memory_bytes());
        println!("memory_budget: {document_count} documents written in {seconds:.1} s");
        assert!(held <= MEMORY_BYTES_MAX, "{held} bytes are in memory");
        Store { database, gen_schema, document_count, turn: 0, folder }
    }

    fn reopened(self, memory_bytes_max: usize) -> Store {
        let Store { database, folder, .. } = self;
        drop(database);
        let options = OpenOptions { memory_bytes_max, ..OpenOptions::default() };
        let database = Database::open_with(folder.path(), &options).expect("the store is closed");
        Store { database, folder, turn: 0, ..self }
    }

    fn next_hot(&mut self) -> u64 {
        self.turn += 1;
        let place = self.turn * HOT_STRIDE % HOT_COUNT;
        place * (self.document_count / HOT_COUNT)
    }

    fn next_cold(&mut self) -> u64 {
        self.turn += 1;
        // Hardly ever a chunk that one of the last thousands lay in.
        self.turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.document_count
    }

    fn read(&self, number: u64) {
        let id = self.database.document_id(&key(number));
        let value = self.database.read_field(&self.gen_schema, &id, "id").expect("disk reads");
        assert_eq!(value, Some((number as i64).into()));
    }

    /// One change of many writes to hot documents, on its way to disk.
    fn write_hot(&mut self) {
        let numbers: Vec<u64> = (0..WRITES_PER_CHANGE).map(|_| self.next_hot()).collect();
        let turn = self.turn as i64;
        let fast = self.database.with_durability(Durability::Eventual);
        fast.transaction(|transaction| {
            numbers.iter().try_for_each(|number| {
                transaction.set(&self.gen_schema, &key(*number), "value", turn)
            })
        })
        .expect("the documents are there");
    }

    fn warm(&mut self) {
        (0..2 * HOT_COUNT).for_each(|_| {
            let number = self.next_hot();
            self.read(number);
        });
        assert!(self.database.memory_bytes() <= MEMORY_BYTES_MAX);
    }
}

fn memory_budget(criterion: &mut Criterion) {
    let large_count = std::env::var("VUDO_DOCUMENTS")
        .map_or(LARGE_COUNT, |count| count.parse().expect("VUDO_DOCUMENTS is a number"));
    let mut group = group(criterion, "memory_budget");
    for document_count in [SMALL_COUNT, large_count] {
        let mut store = Store::with_documents(document_count).reopened(MEMORY_BYTES_MAX);
        store.warm();
        group.bench_function(format!("read_hot/{document_count}"), |bencher| {
            bencher.iter(|| {
                let number = store.next_hot();
                store.read(number);
            });
        });
        group.bench_function(format!("write_100_hot/{document_count}"), |bencher| {
            bencher.iter(|| store.write_hot());
        });
        store.database.flush().expect("the disk takes the writes");
        assert!(store.database.memory_bytes() <= MEMORY_BYTES_MAX);
        if document_count == SMALL_COUNT {
            continue;
        }
        // With little memory nearly every random read is of a document that is on disk.
        let mut store = store.reopened(1 << 20);
        group.bench_function(format!("read_miss/{document_count}"), |bencher| {
            bencher.iter(|| {
                let number = store.next_cold();
                store.read(number);
            });
        });
        let mut store = store.reopened(usize::MAX);
        let start = Instant::now();
        let mut seen = 0;
        let count = |_| {
            seen += 1;
            true
        };
        store.database.for_each(&store.gen_schema, count).expect("the disk reads");
        assert_eq!((seen, store.database.memory_bytes()), (document_count, 0));
        let seconds = start.elapsed().as_secs_f64();
        println!("memory_budget: a scan takes {seconds:.2} s and leaves nothing in memory");
        (0..document_count).for_each(|number| store.read(number));
        let bytes = store.database.memory_bytes() as f64 / document_count as f64;
        println!("memory_budget: {bytes:.1} B a document when all are in memory");
        store.turn = 0;
    }
    group.finish();
}

criterion_group!(benches, memory_budget);
criterion_main!(benches);
