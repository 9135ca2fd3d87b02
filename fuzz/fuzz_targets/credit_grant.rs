//! A grant, a request and a genesis: what is accepted is canonical.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_credit::operation::Request;
use vudo_credit::wire::Wire;
use vudo_credit::{Genesis, Grant, Ledger};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(grant) = Grant::from_bytes(bytes) {
        assert_eq!(grant.to_bytes(), bytes);
    }
    if let Ok(request) = Request::from_bytes(bytes) {
        assert_eq!(request.to_bytes(), bytes);
    }
    if let Ok(genesis) = Genesis::from_bytes(bytes) {
        assert_eq!(genesis.to_bytes(), bytes);
        assert!(Ledger::new(genesis).is_ok());
    }
});
