//! A page of state from outside, with the root that it has: refused without a trace, or joined to a
//! state that reads, and that pages give again.
//!
//! The input is a page without its checksum, which is put behind it here.

#![no_main]

use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use vudo_crdt::merkle::MerkleLog;
use vudo_crdt::{
    InMemory, Namespace, PageSource, StateRoot, VersionVector, checksum, page_leaf,
};

#[path = "../common/fields.rs"]
mod common;

use common::read_all;

struct Pages(Vec<Vec<u8>>);

impl PageSource for Pages {
    type Error = Infallible;

    fn page(&mut self, index: u64) -> Result<Vec<u8>, Infallible> {
        Ok(self.0[index as usize].clone())
    }
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
    read_all(&namespace);
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
