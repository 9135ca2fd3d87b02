//! A page of state from outside, with the root that it has: refused without a trace, or joined to a
//! state that reads, and that pages give again.
//!
//! The input is a page without its checksum, which is put behind it here.

#![no_main]

use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use vudo_crdt::merkle::MerkleLog;
use vudo_crdt::{
    FieldSchema, InMemory, Namespace, PageSource, Row, StateRoot, Strategy, ValueType,
    VersionVector, checksum, page_leaf,
};

struct Pages(Vec<Vec<u8>>);

impl PageSource for Pages {
    type Error = Infallible;

    fn page(&mut self, index: u64) -> Result<Vec<u8>, Infallible> {
        Ok(self.0[index as usize].clone())
    }
}

/// One field for each strategy, under the numbers that the seeds use.
fn fields() -> [FieldSchema; 5] {
    [
        FieldSchema::new("id", 1, Strategy::Immutable, ValueType::String),
        FieldSchema::new("title", 2, Strategy::Lww, ValueType::String),
        FieldSchema::new("rank", 3, Strategy::LwwContent, ValueType::U64),
        FieldSchema::new("votes", 4, Strategy::PnCounter, ValueType::I64),
        FieldSchema::new("mass", 5, Strategy::PnCounterFloat, ValueType::F64),
    ]
}

fuzz_target!(|content: &[u8]| {
    let mut page = content.to_vec();
    page.extend_from_slice(&checksum(content));
    let mut tree = MerkleLog::new();
    tree.push(page_leaf(&page), |_, _| ());
    let root = StateRoot { page_count: 1, root: tree.root() };
    let mut namespace = Namespace::new(0);
    let none = VersionVector::new();
    let mut pages = Pages(vec![page]);
    if namespace.join_pages(&root, &none, &mut pages, &mut InMemory, &mut ()).is_err() {
        assert_eq!(namespace.canonical_bytes(&mut InMemory).unwrap(), []);
        return;
    }
    let read_fields = |row: Row<'_>| {
        for field in fields() {
            let _shown = field.read(&row);
        }
        true
    };
    namespace.visit_rows(0, &[], &mut InMemory, read_fields).unwrap();
    // Pages of what has been joined give the same again, and joining them twice changes nothing.
    let mut again = Vec::new();
    let emit = |page| -> Result<(), Infallible> {
        again.push(page);
        Ok(())
    };
    let root = namespace.write_pages(&mut InMemory, emit).unwrap();
    let mut peer = Namespace::new(1);
    for _ in 0..2 {
        let mut pages = Pages(again.clone());
        peer.join_pages(&root, &none, &mut pages, &mut InMemory, &mut ()).unwrap();
        let bytes = peer.canonical_bytes(&mut InMemory).unwrap();
        assert!(bytes == namespace.canonical_bytes(&mut InMemory).unwrap());
    }
});
