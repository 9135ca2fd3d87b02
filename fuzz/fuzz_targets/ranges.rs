//! What a peer says of ranges of rows: refused, or compared with what is here.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use vudo_crdt::wire::Reader;
use vudo_crdt::{InMemory, Log, Namespace, RangeSummaries, ReplicaKey, Transaction};

const SESSION: [u8; 32] = [3; 32];

/// Some documents of two Gens.
fn namespace() -> Namespace {
    let mut namespace = Namespace::new(1);
    let replica = namespace.intern_replica(ReplicaKey([1; 32]));
    let gens = ["Task", "Person"].map(|name| namespace.intern_gen(name).unwrap());
    let mut transaction = Transaction::begin(&namespace, replica, 1_700_000_000_000);
    for number in 0..300_u32 {
        let gen_index = gens[number as usize % 2];
        let key = number.to_string();
        transaction.create(&mut namespace, &mut InMemory, gen_index, key.as_bytes()).unwrap();
    }
    transaction.commit(&mut namespace, &mut InMemory, &mut Log::default()).unwrap();
    namespace
}

thread_local! {
    static NAMESPACE: RefCell<Namespace> = RefCell::new(namespace());
}

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    let Ok(said) = RangeSummaries::decode(&mut reader) else { return };
    let mut written = Vec::new();
    said.encode(&mut written);
    assert_eq!(RangeSummaries::decode(&mut Reader::new(&written)).as_ref(), Ok(&said));
    NAMESPACE.with_borrow_mut(|namespace| {
        let compared = namespace.compare_ranges(&said, &SESSION, &mut InMemory);
        let (answer, different) = compared.unwrap();
        different.documents(namespace);
        let mut written = Vec::new();
        answer.encode(&mut written);
        assert_eq!(RangeSummaries::decode(&mut Reader::new(&written)), Ok(answer));
    });
});
