//! A frame from outside: refused without a trace, or applied to the same state whoever applies it.
//!
//! The input is a frame without its checksum, which is put behind it here: a fuzzer would not find
//! it, and validation has to be reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_crdt::{InMemory, Log, Namespace, ReplicaKey, Transaction, Value, checksum};

#[path = "../common/fields.rs"]
mod common;

use common::{fields, read_all};

/// A namespace with a document that the seed frames write to as well.
fn seeded(log: &mut Log) -> Namespace {
    let [id, title, rank, votes, mass, likes, owner, seats, tags, stock] = fields();
    let mut namespace = Namespace::new(0);
    let replica = namespace.intern_replica(ReplicaKey([1; 32]));
    namespace.set_founder(replica);
    let task = namespace.intern_gen("Task").unwrap();
    let mut transaction = Transaction::begin(&namespace, replica, 1_000);
    let (space, disk, key) = (&mut namespace, &mut InMemory, b"milk");
    transaction.create(space, disk, task, key).unwrap();
    transaction.set(space, disk, task, key, &id, &"a".into()).unwrap();
    transaction.set(space, disk, task, key, &title, &"b".into()).unwrap();
    transaction.set(space, disk, task, key, &rank, &7.into()).unwrap();
    transaction.add(space, disk, task, key, &votes, 3).unwrap();
    transaction.add_float(space, disk, task, key, &mass, -0.5).unwrap();
    transaction.add(space, disk, task, key, &likes, 2).unwrap();
    transaction.set(space, disk, task, key, &owner, &"c".into()).unwrap();
    transaction.add(space, disk, task, key, &seats, 9).unwrap();
    let element = Value::from("new").to_bytes();
    transaction.add_element_loaded(space, task, key, tags.id(), &element).unwrap();
    let entry = transaction.entry_loaded(space, task, key, stock.id(), &element).unwrap();
    let shelf = stock.map_value().unwrap();
    transaction.set(space, disk, task, &entry, &shelf, &"d".into()).unwrap();
    transaction.commit(space, disk, log).unwrap();
    namespace
}

fuzz_target!(|content: &[u8]| {
    let mut frame = content.to_vec();
    frame.extend_from_slice(&checksum(content));
    let mut log = Log::default();
    let mut namespace = seeded(&mut log);
    let before = namespace.canonical_bytes(&mut InMemory).unwrap();
    let vector = namespace.version_vector();
    let outcome = namespace.apply_frame(&frame, &mut InMemory, &mut log);
    let after = namespace.canonical_bytes(&mut InMemory).unwrap();
    let Ok(applied) = outcome else {
        assert_eq!((after, namespace.version_vector()), (before, vector));
        return;
    };
    assert_eq!(log.change_count() as u64, 1 + applied.changes);
    read_all(&namespace);
    // A second time changes nothing.
    let again = namespace.apply_frame(&frame, &mut InMemory, &mut ()).unwrap();
    assert_eq!(again.changes, 0);
    // A peer that hears of it all from here gets to the same state.
    let mut peer = Namespace::new(1);
    let forwarded = log.frame_since(&namespace, &Default::default());
    peer.apply_frame(&forwarded, &mut InMemory, &mut ()).unwrap();
    assert_eq!(peer.canonical_bytes(&mut InMemory).unwrap(), after);
    // So does one that heard the frame first.
    let mut other = Namespace::new(2);
    if other.apply_frame(&frame, &mut InMemory, &mut ()).is_ok() {
        other.apply_frame(&forwarded, &mut InMemory, &mut ()).unwrap();
        // A frame that claims numbers of the seeded writer is a fork, which nothing here judges.
        let may_be_fork = content.windows(32).any(|window| window == [1; 32]);
        assert!(may_be_fork || other.canonical_bytes(&mut InMemory).unwrap() == after);
    }
});
