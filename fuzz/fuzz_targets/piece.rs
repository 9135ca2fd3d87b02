//! What arrives on a link without streams: a greeting or a piece of a channel, refused or read to the
//! same meaning again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_p2p::limits::PIECE_HEADER_BYTES_MAX;
use vudo_p2p::proto::{Piece, read_greeting};

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(read_greeting(bytes).is_some(), bytes.len() == 32);
    if let Ok(piece) = Piece::decode(bytes) {
        assert!(bytes.len() - piece.content.len() <= PIECE_HEADER_BYTES_MAX);
        assert_eq!(Piece::decode(&piece.encode()), Ok(piece));
    }
});
