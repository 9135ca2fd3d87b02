//! The protocol on real links: QUIC by way of iroh, and WebSocket.
//!
//! ```text
//! Node --accepts--> server ---+                    +--> Replication (store), on blocking threads
//!      --connect--> Link -----+--> Driver ---------+--> Session (proto)
//!                                                  +--> Channel
//!                                                          |
//!                              Connection: QUIC streams, or Mux over WebSocket or memory
//! ```
//!
//! A driver owns one session and carries out its effects over a channel. A link keeps a session
//! going: where the connection drops it dials again, with growing pauses, until it is closed. All
//! links to one node share a connection, and a server serves a session on every channel.
//!
//! An inbox takes in the messages of a session while it sends, in memory that all sessions share
//! (`inbox.rs`).
//!
//! Whoever has only just connected over TCP has a bounded time to say who it is, and a place among
//! boundedly many (`arrivals.rs`).
//!
//! Where two nodes cannot reach each other, QUIC goes over a relay (`relay.rs`).
//!
//! What nodes show of themselves lies in a table for each namespace, which its sessions share
//! (`presence.rs`).
//!
//! A [`Messenger`] is apart from all of this: it brings messages of somebody else's protocol.

mod arrivals;
mod channel;
mod connection;
mod dial;
mod driver;
mod inbox;
mod link;
mod messenger;
mod mux;
mod node;
mod presence;
mod relay;
mod server;
mod websocket;

pub use link::{Link, LinkProgress, SyncReport};
pub use messenger::{Delivery, MESSAGE_ALPN, Messenger, Outgoing};
pub use node::{Config, Node, PeerStatus};
pub use presence::{Presence, PresenceChange, PresenceChanges};

/// Names the protocol where a connection is made; a peer of another one is refused by TLS.
pub const ALPN: &[u8] = b"vudo/sync/1";
