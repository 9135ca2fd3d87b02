//! What a link without streams carries: first a greeting, then pieces of channels.
//!
//! ```text
//! greeting = the sender's node id (32 bytes)
//! piece    = channel << 1 | is the end of the channel (varint) | bytes
//! ```

use vudo_crdt::wire::{MalformedFrame, Reader, write_varint};

use super::proof::NodeId;
use crate::limits::PIECE_HEADER_BYTES_MAX;

/// Reads a greeting; `None` where it is none.
pub fn read_greeting(bytes: &[u8]) -> Option<NodeId> {
    bytes.try_into().ok()
}

/// A part of what goes over one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The channel; the side that dialled numbers them 0, 1, 2.
    pub channel: u64,
    /// Whether nothing follows.
    pub is_end: bool,
    /// The bytes.
    pub content: &'a [u8],
}

impl<'a> Piece<'a> {
    /// The piece's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PIECE_HEADER_BYTES_MAX + self.content.len());
        write_varint(&mut out, self.channel << 1 | u64::from(self.is_end));
        out.extend_from_slice(self.content);
        out
    }

    /// Reads a piece.
    ///
    /// # Errors
    /// It has no header.
    pub fn decode(bytes: &'a [u8]) -> Result<Piece<'a>, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let header = reader.varint()?;
        Ok(Piece { channel: header >> 1, is_end: header & 1 == 1, content: reader.rest() })
    }
}
