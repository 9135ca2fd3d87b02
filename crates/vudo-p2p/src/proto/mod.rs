//! The protocol without any input or output: bytes to messages, and what to do about them.
//!
//! Nothing here waits, reads a clock or draws randomness: the time comes with each event. So a
//! session can be driven by a network, by a test that loses its connection at every step, or by a
//! simulation, and behaves the same.

mod catch_up;
mod dispute;
mod exchange;
mod holdings;
mod message;
mod piece;
mod presence;
mod presence_table;
mod proof;
mod repair;
mod schema;
mod session;

pub use holdings::{Holdings, LogHash, VectorDigest, vector_digest};
pub use message::{
    GoodbyeCode, Message, MessageKind, Namespace, Nonce, PROTOCOL_VERSION, PresenceUpdate,
};
pub(crate) use message::{decode_records, encode_records};
pub use piece::{Piece, read_greeting};
pub use presence_table::{LinkNumber, PresenceTable};
pub use proof::{Access, NodeId, Secret};
pub use schema::{FieldDifference, GenDifference, GenFingerprint, SchemaDifferences};
pub use session::{CloseReason, Effect, Event, Milliseconds, Notice, Session};
