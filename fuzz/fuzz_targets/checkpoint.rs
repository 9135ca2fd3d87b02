//! A signed checkpoint from outside: refused, or the same bytes again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_crdt::checkpoint::SignedCheckpoint;
use vudo_crdt::wire::Reader;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    if let Ok(checkpoint) = SignedCheckpoint::decode(&mut reader) {
        let mut out = Vec::new();
        checkpoint.encode(&mut out);
        assert_eq!(out, bytes[..bytes.len() - reader.rest().len()]);
    }
});
