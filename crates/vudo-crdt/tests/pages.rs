//! State pages: what they weigh, what they give back, and what is refused.

use std::convert::Infallible;

use vudo_crdt::{
    FieldSchema, InMemory, Log, Namespace, PageSource, PagesError, ReplicaKey, StateRoot, Strategy,
    Transaction, ValueType, VersionVector, checksum, limits,
};

const RECORD_COUNT: usize = 100_000;

/// Pages in memory.
struct Pages(Vec<Vec<u8>>);

impl PageSource for Pages {
    type Error = Infallible;

    fn page(&mut self, index: u64) -> Result<Vec<u8>, Infallible> {
        Ok(self.0[index as usize].clone())
    }
}

fn pages_of(namespace: &Namespace) -> (StateRoot, Pages) {
    let mut pages = Vec::new();
    let emit = |page| -> Result<(), Infallible> {
        pages.push(page);
        Ok(())
    };
    let root = namespace.write_pages(&mut InMemory, emit).unwrap();
    assert_eq!(root.page_count, pages.len() as u64);
    (root, Pages(pages))
}

/// `{id, name, value}` under `recordN`, so many to a change.
fn records(count: usize, per_change: usize) -> (Namespace, Log) {
    let id = FieldSchema::new("id", 1, Strategy::Immutable, ValueType::I64);
    let name = FieldSchema::new("name", 2, Strategy::Lww, ValueType::String);
    let value = FieldSchema::new("value", 3, Strategy::Lww, ValueType::I64);
    let mut namespace = Namespace::new(1);
    let mut log = Log::default();
    let space = &mut namespace;
    let replica = space.intern_replica(ReplicaKey([7; 32]));
    let record = space.intern_gen("Record").unwrap();
    for start in (0..count).step_by(per_change) {
        let mut transaction = Transaction::begin(space, replica, 1_700_000_000_000 + start as u64);
        for number in start..count.min(start + per_change) {
            let key = format!("record{number}");
            let (key, number) = (key.as_bytes(), number as i64);
            let disk = &mut InMemory;
            transaction.create(space, disk, record, key).unwrap();
            transaction.set(space, disk, record, key, &id, &number.into()).unwrap();
            let text = format!("Record {number}").as_str().into();
            transaction.set(space, disk, record, key, &name, &text).unwrap();
            transaction.set(space, disk, record, key, &value, &(number * 2).into()).unwrap();
        }
        transaction.commit(space, &mut InMemory, &mut log).unwrap();
    }
    (namespace, log)
}

#[test]
fn a_hundred_thousand_records_take_about_a_megabyte_and_come_back() {
    let (namespace, _) = records(RECORD_COUNT, 1_000);
    let (root, mut pages) = pages_of(&namespace);
    let byte_count: usize = pages.0.iter().map(Vec::len).sum();
    let per_record = byte_count as f64 / RECORD_COUNT as f64;
    println!("{} pages, {byte_count} bytes, {per_record:.2} B a record", root.page_count);
    if let Some(path) = std::env::var_os("VUDO_PAGES_FILE") {
        std::fs::write(path, pages.0.concat()).unwrap();
    }
    assert!(byte_count <= 1_050_000, "{byte_count} bytes");
    assert!(pages.0.iter().all(|page| page.len() <= limits::PAGE_ROWS_BYTES));

    let mut peer = Namespace::new(2);
    let vector = namespace.version_vector();
    let joined = peer.join_pages(&root, &vector, &mut pages, &mut InMemory, &mut ()).unwrap();
    assert_eq!(joined, RECORD_COUNT as u64);
    let bytes = |namespace: &Namespace| namespace.canonical_bytes(&mut InMemory).unwrap();
    assert!(bytes(&peer) == bytes(&namespace));
    assert_eq!(peer.version_vector(), vector);
    assert_eq!(pages_of(&peer).0, root, "pages are a function of the state");
}

#[test]
fn pages_that_are_not_those_of_the_root_leave_no_trace() {
    let (namespace, _) = records(9_000, 100);
    let (root, pages) = pages_of(&namespace);
    assert!(root.page_count > 2);
    let vector = namespace.version_vector();
    let refused = |pages: Vec<Vec<u8>>| {
        let mut peer = Namespace::new(2);
        let mut pages = Pages(pages);
        let result = peer.join_pages(&root, &vector, &mut pages, &mut InMemory, &mut ());
        assert_eq!(peer.canonical_bytes(&mut InMemory).unwrap(), []);
        assert_eq!(peer.version_vector(), VersionVector::new());
        result.unwrap_err()
    };
    let mut swapped = pages.0.clone();
    swapped.swap(0, 1);
    let not_sorted = vudo_crdt::MalformedFrame::NotSorted;
    assert_eq!(refused(swapped), PagesError::Malformed { index: 1, what: not_sorted });
    let mut damaged = pages.0.clone();
    damaged[1][100] ^= 1;
    let checksum = vudo_crdt::MalformedFrame::Checksum;
    assert_eq!(refused(damaged), PagesError::Malformed { index: 1, what: checksum });
    // Another state of as many pages, each of them a page.
    let (other, _) = records(9_000, 90);
    let (other_root, other_pages) = pages_of(&other);
    assert_eq!(other_root.page_count, root.page_count);
    assert_eq!(refused(other_pages.0), PagesError::OtherRoot);
}

#[test]
fn forged_pages_are_refused_or_are_pages() {
    let (namespace, _) = records(40, 7);
    let (_, pages) = pages_of(&namespace);
    let [page] = pages.0.as_slice() else { panic!("they fit one page") };
    let content = &page[..page.len() - 8];
    let (mut accepted, mut refused) = (0, 0);
    let mut random = 1u64;
    for attempt in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut forged = content.to_vec();
        if attempt % 10 == 0 {
            forged.truncate((random >> 33) as usize % forged.len());
        } else {
            let bit = (random >> 33) as usize % (forged.len() * 8);
            forged[bit / 8] ^= 1 << (bit % 8);
        }
        let sum = checksum(&forged);
        forged.extend_from_slice(&sum);
        // The root is right: whoever signs a checkpoint may be hostile too.
        let mut tree = vudo_crdt::merkle::MerkleLog::new();
        tree.push(vudo_crdt::page_leaf(&forged), |_, _| ());
        let root = StateRoot { page_count: 1, root: tree.root() };
        let mut peer = Namespace::new(2);
        let mut source = Pages(vec![forged]);
        let vector = VersionVector::new();
        match peer.join_pages(&root, &vector, &mut source, &mut InMemory, &mut ()) {
            Ok(_) => {
                accepted += 1;
                let (again, _) = pages_of(&peer);
                assert_eq!(again.page_count, 1);
            }
            Err(_) => {
                refused += 1;
                assert_eq!(peer.canonical_bytes(&mut InMemory).unwrap(), []);
            }
        }
    }
    println!("{accepted} forged pages joined, {refused} refused");
    assert!(accepted > 100 && refused > 1_000, "validation was not reached both ways");
}

#[test]
fn what_is_newer_here_stays() {
    let (old, log) = records(500, 10);
    let (root, mut pages) = pages_of(&old);
    let mut store = Namespace::new(3);
    let frame = log.frame_since(&old, &VersionVector::new());
    store.apply_frame(&frame, &mut InMemory, &mut ()).unwrap();
    let name = FieldSchema::new("name", 2, Strategy::Lww, ValueType::String);
    let own = store.intern_replica(ReplicaKey([9; 32]));
    let mut transaction = Transaction::begin(&store, own, 1_800_000_000_000);
    transaction.delete(&mut store, &mut InMemory, 0, b"record7").unwrap();
    let text = "newer".into();
    transaction.set(&mut store, &mut InMemory, 0, b"record8", &name, &text).unwrap();
    transaction.commit(&mut store, &mut InMemory, &mut ()).unwrap();
    let before = store.canonical_bytes(&mut InMemory).unwrap();
    let vector = old.version_vector();
    store.join_pages(&root, &vector, &mut pages, &mut InMemory, &mut ()).unwrap();
    assert!(store.canonical_bytes(&mut InMemory).unwrap() == before);
    assert_eq!(store.version_vector().get(&ReplicaKey([9; 32])), 1);
}
