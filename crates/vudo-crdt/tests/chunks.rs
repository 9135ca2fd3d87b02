//! What is loaded from disk, and when.

use std::collections::BTreeMap;
use std::convert::Infallible;

use vudo_crdt::{
    ChunkId, ChunkSource, FieldSchema, InMemory, Namespace, ReplicaKey, StoredTable, Strategy,
    TablePart, Transaction, ValueType,
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
    set_titles(namespace, chunks, numbers, "title");
}

fn set_titles(
    namespace: &mut Namespace,
    chunks: &mut Chunks,
    numbers: impl Iterator<Item = usize>,
    text: &str,
) {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    let mut transaction = Transaction::begin(namespace, 0, 1_700_000_000_000);
    for number in numbers {
        let (key, value) = (key(number), format!("{text} {number}").as_str().into());
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
    let table = persist(&mut namespace, &mut chunks, &mut 0);
    assert!(chunks.stored.len() > 10);

    let directory = namespace.encode_directory();
    let stored = |_, part| (part == TablePart::Documents).then(|| table.clone());
    let mut reopened = Namespace::open(&directory, stored, 2).unwrap();
    assert_eq!(reopened.fingerprint(&mut chunks).unwrap(), fingerprint);
    assert_eq!(chunks.load_count, 0, "the sums are in the directory");

    set(&mut reopened, &mut chunks, std::iter::once(7));
    set(&mut namespace, &mut Chunks::default(), std::iter::once(7));
    let changed = reopened.fingerprint(&mut chunks).unwrap();
    assert_eq!(chunks.load_count, 1, "one document lies in one chunk");
    assert_ne!(changed, fingerprint);
    assert_eq!(changed, namespace.fingerprint(&mut InMemory).unwrap());
}

/// A namespace of many documents with everything persisted.
fn persisted() -> (Namespace, Chunks) {
    let mut namespace = Namespace::new(1);
    let mut chunks = Chunks::default();
    namespace.intern_replica(ReplicaKey([1; 32]));
    namespace.intern_gen("Task").unwrap();
    set(&mut namespace, &mut chunks, 0..DOCUMENT_COUNT);
    persist(&mut namespace, &mut chunks, &mut 1);
    (namespace, chunks)
}

/// Persists the documents. Gives what has changed of the table.
fn persist(namespace: &mut Namespace, chunks: &mut Chunks, next_id: &mut ChunkId) -> StoredTable {
    let mut new_chunks = Vec::new();
    let store = |id, bytes, _| new_chunks.push((id, bytes));
    let table = namespace.table_mut(TASK, TablePart::Documents);
    let persisted = table.persist(next_id, chunks, store).unwrap();
    chunks.stored.extend(new_chunks);
    StoredTable {
        directory: persisted.directory.unwrap_or_default(),
        buffer: persisted.buffer.unwrap_or_default(),
    }
}

#[test]
fn rows_that_lie_far_apart_are_stored_without_their_chunks() {
    let (mut namespace, mut chunks) = persisted();
    let mut directory = Vec::new();
    let chunk_count = chunks.stored.len();
    namespace.evict(0);
    // One document in each tenth: every chunk would have to be written.
    for round in 0..100 {
        chunks.load_count = 0;
        let hot = (0..DOCUMENT_COUNT).step_by(10);
        set(&mut namespace, &mut chunks, hot);
        let stored = persist(&mut namespace, &mut chunks, &mut (1_000 * (round + 1)));
        assert!(stored.buffer.len() < 50_000, "{} bytes in round {round}", stored.buffer.len());
        assert!(stored.directory.is_empty() && chunks.stored.len() == chunk_count);
        assert!(round == 0 || chunks.load_count == 0, "a row of the buffer needs no chunk");
        directory = stored.buffer;
    }
    // Rows next to each other are worth it, and then all of the buffer moves.
    assert!(!directory.is_empty());
    set(&mut namespace, &mut chunks, 0..DOCUMENT_COUNT);
    let stored = persist(&mut namespace, &mut chunks, &mut 1_000_000);
    assert!(stored.buffer.is_empty() && !stored.directory.is_empty());
}

#[test]
fn chunks_that_have_become_small_are_joined() {
    let (mut namespace, mut chunks) = persisted();
    let mut next_id = 10_000;
    set_titles(&mut namespace, &mut chunks, 0..DOCUMENT_COUNT, &"title ".repeat(20));
    persist(&mut namespace, &mut chunks, &mut next_id);
    let before = namespace.stored_chunks().count();
    // Neighbours are deleted far apart from each other in time.
    for round in 0..7 {
        namespace.evict(0);
        let mut transaction = Transaction::begin(&namespace, 0, 1_800_000_000_000);
        for number in (round..DOCUMENT_COUNT).step_by(7) {
            let key = key(number);
            transaction.delete(&mut namespace, &mut chunks, TASK, key.as_bytes()).unwrap();
        }
        transaction.commit(&mut namespace, &mut chunks, &mut ()).unwrap();
        namespace.move_rows_to_chunks(&mut chunks).unwrap();
        let stored = persist(&mut namespace, &mut chunks, &mut next_id);
        assert!(stored.buffer.is_empty(), "no row is left beside the chunks");
    }
    let ids: Vec<ChunkId> = namespace.stored_chunks().collect();
    assert!(ids.len() * 3 < before, "{} chunks of {before}", ids.len());
    let sizes: Vec<usize> = ids.iter().map(|id| chunks.stored[id].len()).collect();
    assert!(sizes.iter().all(|size| *size < 8 << 10), "{sizes:?}");
    let pairs = sizes.windows(2).filter(|pair| pair[0] + pair[1] < 3 << 10).count();
    assert_eq!(pairs, 0, "two neighbours would fit into one: {sizes:?}");
    let mut keys = Vec::new();
    let visit = |row: vudo_crdt::Row<'_>| {
        keys.push(String::from_utf8(row.key.to_vec()).unwrap());
        true
    };
    namespace.visit_rows(TASK, b"", &mut chunks, visit).unwrap();
    assert!(keys.iter().eq(&(0..DOCUMENT_COUNT).map(key).collect::<Vec<_>>()));
}

#[test]
fn memory_stays_within_its_bound_and_what_is_used_stays_in_it() {
    let (mut namespace, mut chunks) = persisted();
    let all_bytes = namespace.loaded_bytes();
    let bytes_max = all_bytes / 4;
    assert!(namespace.evict(all_bytes) == all_bytes, "what fits stays");
    assert!(namespace.evict(bytes_max) <= bytes_max);
    let is_hot = |number: usize| number < DOCUMENT_COUNT / 10;
    let mut random = 1usize;
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let choice = random >> 33;
        // Nine of ten reads go to a tenth of the documents.
        let hot_count = DOCUMENT_COUNT / 10;
        let number =
            if choice.is_multiple_of(10) { choice % DOCUMENT_COUNT } else { choice % hot_count };
        assert!(namespace.row(TASK, key(number).as_bytes(), &mut chunks).unwrap().is_some());
        assert!(namespace.evict(bytes_max) <= bytes_max);
    }
    chunks.load_count = 0;
    for number in (0..DOCUMENT_COUNT).filter(|number| is_hot(*number)) {
        namespace.row(TASK, key(number).as_bytes(), &mut chunks).unwrap();
    }
    assert!(chunks.load_count <= 1, "{} chunks of the hot ones had left", chunks.load_count);
}

#[test]
fn a_scan_displaces_nothing_and_sees_everything() {
    let (mut namespace, mut chunks) = persisted();
    assert_eq!(namespace.evict(0), 0);
    set(&mut namespace, &mut chunks, [10, 4_000].into_iter());
    let before = namespace.loaded_bytes();
    let mut seen = Vec::new();
    let visit = |row: vudo_crdt::Row<'_>| {
        seen.push(row.key.to_vec());
        seen.len() < 4_500
    };
    namespace.visit_rows(TASK, key(7).as_bytes(), &mut chunks, visit).unwrap();
    let expected: Vec<_> = (7..4_507).map(|number| key(number).into_bytes()).collect();
    assert!(seen == expected);
    assert_eq!(namespace.loaded_bytes(), before);
}

#[test]
fn a_large_change_in_any_order_is_the_same_change() {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    let mut states = Vec::new();
    // Ascending, descending, and back and forth.
    let orders: [fn(usize) -> usize; 3] =
        [|step| step, |step| 59_999 - step, |step| step * 7_919 % 60_000];
    for order in orders {
        let mut namespace = Namespace::new(1);
        namespace.intern_replica(ReplicaKey([1; 32]));
        namespace.intern_gen("Task").unwrap();
        let mut transaction = Transaction::begin(&namespace, 0, 1_700_000_000_000);
        for number in (0..60_000).map(order) {
            let key = key(number);
            let value = key.as_str().into();
            transaction.create(&mut namespace, &mut InMemory, TASK, key.as_bytes()).unwrap();
            transaction
                .set(&mut namespace, &mut InMemory, TASK, key.as_bytes(), &title, &value)
                .unwrap();
        }
        assert_eq!(transaction.document_count(), 60_000);
        let mut log = vudo_crdt::Log::default();
        transaction.commit(&mut namespace, &mut InMemory, &mut log).unwrap();
        let frame = log.frame_since(&namespace, &Default::default());
        states.push((frame, namespace.canonical_bytes(&mut InMemory).unwrap()));
    }
    assert!(states[0] == states[1] && states[1] == states[2]);
}
