//! A version vector: what is accepted is canonical, and a namespace reads it the same way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_crdt::wire::Reader;
use vudo_crdt::{Namespace, ReplicaKey, VersionVector};

fuzz_target!(|bytes: &[u8]| {
    let mut namespace = Namespace::new(0);
    namespace.intern_replica(ReplicaKey([1; 32]));
    let covered = namespace.covered_by(bytes);
    let mut reader = Reader::new(bytes);
    let Ok(vector) = VersionVector::decode(&mut reader) else {
        assert!(covered.is_err());
        return;
    };
    assert_eq!(covered, Ok(vec![vector.get(&ReplicaKey([1; 32]))]));
    let mut encoded = Vec::new();
    vector.encode(&mut encoded);
    assert_eq!(encoded.as_slice(), &bytes[..bytes.len() - reader.rest().len()]);
    let mut joined = vector.clone();
    joined.join(&vector);
    assert!(joined == vector && vector.covers(&joined));
});
