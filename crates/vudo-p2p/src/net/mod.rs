//! The protocol on a real network: QUIC by way of iroh, without relays.
//!
//! ```text
//! Node --accepts--> Driver (server side) --+
//!      --connect--> Link --> Driver -------+--> Session (proto) <--> QUIC stream
//!                                          +--> Replication (store), on blocking threads
//! ```
//!
//! A driver owns one session and carries out its effects. A link keeps a session going: where the
//! connection drops it dials again, with growing pauses, until it is closed.

mod driver;
mod link;
mod node;

pub use link::{Link, SyncReport};
pub use node::{Config, Node, PeerStatus};

/// Names the protocol where a connection is made; a peer of another one is refused by TLS.
pub const ALPN: &[u8] = b"vudo/sync/1";
