//! A schema: what is accepted survives its own encoding.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_crdt::Schema;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(schema) = Schema::decode(bytes) {
        assert_eq!(Schema::decode(&schema.encode()).as_ref(), Ok(&schema));
    }
});
