//! The compiler over any text: it says what is wrong or gives a schema, and never panics.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common/gen_invariants.rs"]
mod gen_invariants;

fuzz_target!(|bytes: &[u8]| {
    gen_invariants::check(&String::from_utf8_lossy(bytes));
});
