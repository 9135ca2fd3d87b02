//! Peer-to-peer sync for VUDO: a sans-IO protocol, and its wiring to QUIC and WebSocket.
//!
//! **The idea.** Both sides say what they hold, send each other what the other lacks, and keep
//! doing so as they change. [`proto`] decides what to say and does no input or output; [`Node`]
//! carries it out over QUIC or WebSocket against an open store.
//!
//! **The invariants.** Only durable changes leave a store, and only durable changes are
//! acknowledged. Nobody learns anything of a namespace without its ticket's secret, or a grant of its
//! owners. Where both sides hold the same changes, their states are compared, and a difference is an
//! error. Stores of different schemas sync as others do; [`SyncReport::schema_differences`] and the log
//! say what they have defined in different ways.
//!
//! [`Node::presence`] is for what no store keeps: who is here, where their cursor is.
//!
//! ```
//! # #[cfg(feature = "net")] {
//! use std::time::Duration;
//! use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
//! use vudo_p2p::{Config, Node};
//! use vudo_state::Database;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
//! let task = GenSchema::new("Task", [title]);
//! let (laptop, phone) = (Database::open_in_memory()?, Database::open_in_memory()?);
//! let milk = laptop.document_id("milk");
//! laptop.create(&task, &milk, &[("title", "Buy milk".into())])?;
//!
//! let server = Node::spawn(&laptop, Config::loopback()).await?;
//! let ticket = server.share("default")?;
//! let client = Node::spawn(&phone, Config::loopback()).await?;
//! let link = client.connect(&ticket).await?;
//! let report = link.wait_until_synced(Duration::from_secs(5)).await?;
//! assert_eq!(report.received_changes, 1);
//! assert!(phone.read(&task, &milk)?.is_some());
//! # client.shutdown().await;
//! # server.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod error;
pub mod limits;
#[cfg(feature = "net")]
mod net;
pub mod proto;
mod ticket;

pub use error::{Error, Result};
#[cfg(feature = "net")]
pub use net::{
    ALPN, Config, Delivery, Link, LinkProgress, MESSAGE_ALPN, Messenger, Node, Outgoing,
    PeerStatus, Presence, PresenceChange, PresenceChanges, SyncReport,
};
pub use ticket::Ticket;
