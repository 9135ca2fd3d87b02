//! What is loaded from disk, and when.

use std::collections::BTreeMap;
use std::convert::Infallible;

use vudo_crdt::{
    ChunkId, ChunkSource, FieldSchema, InMemory, Namespace, ReplicaKey, Strategy, Transaction,
    ValueType,
};

const TASK: u32 = 0;
const DOCUMENT_COUNT: usize = 5_000;

/// Chunks in memory, and how often one was asked for.
#[derive(Default)]
struct Chunks {
    stored: BTreeMap<ChunkId, Vec<u8>>,
    load_count: usize,
}

impl ChunkSource for Chunks {
    type Error = Infallible;

    fn load(&mut self, id: ChunkId) -> Result<Vec<u8>, Infallible> {
        self.load_count += 1;
        Ok(self.stored[&id].clone())
    }
}

fn key(number: usize) -> String {
    format!("task {number:05}")
}

fn set(namespace: &mut Namespace, chunks: &mut Chunks, numbers: impl Iterator<Item = usize>) {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    let mut transaction = Transaction::begin(namespace, 0, 1_700_000_000_000);
    for number in numbers {
        let (key, value) = (key(number), format!("title {number}").as_str().into());
        // The second time it exists already.
        let _ = transaction.create(namespace, chunks, TASK, key.as_bytes());
        transaction.set(namespace, chunks, TASK, key.as_bytes(), &title, &value).unwrap();
    }
    transaction.commit(namespace, chunks, &mut ()).unwrap();
}

#[test]
fn a_fingerprint_loads_and_hashes_only_what_has_changed() {
    let mut namespace = Namespace::new(1);
    let mut chunks = Chunks::default();
    namespace.intern_replica(ReplicaKey([1; 32]));
    namespace.intern_gen("Task").unwrap();
    set(&mut namespace, &mut chunks, 0..DOCUMENT_COUNT);
    let fingerprint = namespace.fingerprint(&mut InMemory).unwrap();
    let table = namespace.table_mut(TASK);
    table.persist(&mut 0, |id, bytes| {
        chunks.stored.insert(id, bytes);
    });
    let table = table.encode_directory();
    assert!(chunks.stored.len() > 10);

    let directory = namespace.encode_directory();
    let mut reopened = Namespace::open(&directory, |_| Some(table.clone()), 2).unwrap();
    assert_eq!(reopened.fingerprint(&mut chunks).unwrap(), fingerprint);
    assert_eq!(chunks.load_count, 0, "the sums are in the directory");

    set(&mut reopened, &mut chunks, std::iter::once(7));
    set(&mut namespace, &mut Chunks::default(), std::iter::once(7));
    let changed = reopened.fingerprint(&mut chunks).unwrap();
    assert_eq!(chunks.load_count, 1, "one document lies in one chunk");
    assert_ne!(changed, fingerprint);
    assert_eq!(changed, namespace.fingerprint(&mut InMemory).unwrap());
}
