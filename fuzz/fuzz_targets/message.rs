//! A message of the protocol from outside: refused, or the same after it was written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_p2p::proto::Message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::decode(bytes) else { return };
    let mut written = Vec::new();
    message.encode(&mut written);
    assert_eq!(Message::decode(&written), Ok(message));
});
