//! A ticket from outside: refused, or the same after its text was written and read again.
//!
//! The input is a ticket's bytes without the checksum, or any text.

#![no_main]

use data_encoding::BASE32_NOPAD;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use vudo_p2p::Ticket;

fn check(text: &str) {
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
    }
}

fuzz_target!(|content: &[u8]| {
    if let Ok(text) = std::str::from_utf8(content) {
        check(text);
    }
    let mut bytes = content.to_vec();
    bytes.extend_from_slice(&Sha256::digest(content)[..4]);
    check(&format!("vudo3{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()));
});
