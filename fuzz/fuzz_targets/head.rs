//! A signed head from outside: refused, or the same bytes again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_crdt::head::SignedHead;
use vudo_crdt::wire::Reader;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    if let Ok(head) = SignedHead::decode(&mut reader) {
        let mut out = Vec::new();
        head.encode(&mut out);
        assert_eq!(out, bytes[..bytes.len() - reader.rest().len()]);
    }
});
