//! A connection to a peer, whatever link it goes over, and the connections that a node shares.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::limits::CONNECT_TIMEOUT;
use crate::net::channel::{self, Channel};
use crate::net::mux::Mux;
use crate::proto::NodeId;

/// A connection, which closes when it is dropped.
pub(super) struct Connection {
    pub(super) peer: NodeId,
    link: Link,
}

enum Link {
    Quic(iroh::endpoint::Connection),
    WebSocket(Mux),
    Memory(Mux),
}

impl Connection {
    pub(super) fn quic(connection: iroh::endpoint::Connection) -> Connection {
        Connection { peer: *connection.remote_id().as_bytes(), link: Link::Quic(connection) }
    }

    pub(super) fn websocket(mux: Mux, peer: NodeId) -> Connection {
        Connection { peer, link: Link::WebSocket(mux) }
    }

    pub(super) fn memory(mux: Mux, peer: NodeId) -> Connection {
        Connection { peer, link: Link::Memory(mux) }
    }

    /// The kind of link, in a word.
    pub(super) fn link_name(&self) -> &'static str {
        match &self.link {
            Link::Quic(_) => "quic",
            Link::WebSocket(_) => "websocket",
            Link::Memory(_) => "memory",
        }
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// [`Error::Closed`] where the connection has closed, [`Error::TooManyChannels`] where the peer takes
    /// no more of them.
    pub(super) async fn open(&self) -> Result<Channel> {
        match &self.link {
            Link::Quic(connection) => {
                // QUIC waits for a stream to end where the peer has as many as it takes, and some last
                // as long as the connection.
                let opened = timeout(CONNECT_TIMEOUT, connection.open_bi()).await;
                let opened = opened.map_err(|_| Error::TooManyChannels)?;
                let (sender, receiver) = opened.map_err(|_| Error::Closed)?;
                Ok(Channel {
                    sender: channel::Sender::Quic(sender),
                    receiver: channel::Receiver::Quic(receiver),
                })
            }
            Link::WebSocket(mux) | Link::Memory(mux) => mux.open(),
        }
    }

    /// The next channel that the peer opens; `None` when the connection has closed.
    pub(super) async fn accept(&self) -> Option<Channel> {
        match &self.link {
            Link::Quic(connection) => {
                let (sender, receiver) = connection.accept_bi().await.ok()?;
                Some(Channel {
                    sender: channel::Sender::Quic(sender),
                    receiver: channel::Receiver::Quic(receiver),
                })
            }
            Link::WebSocket(mux) | Link::Memory(mux) => mux.accept().await,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.link {
            Link::Quic(connection) => connection.close_reason().is_some(),
            Link::WebSocket(mux) | Link::Memory(mux) => mux.is_closed(),
        }
    }

    /// Closes every channel.
    pub(super) fn close(&self) {
        match &self.link {
            Link::Quic(connection) => connection.close(0u32.into(), b""),
            Link::WebSocket(mux) | Link::Memory(mux) => mux.close(),
        }
    }
}

/// The connections that links share: one to each peer, for as long as a link uses it.
#[derive(Default)]
pub(super) struct Pool {
    slots: Mutex<BTreeMap<NodeId, Arc<Slot>>>,
}

/// Whoever holds the lock dials; the others wait and then find the connection.
type Slot = tokio::sync::Mutex<Weak<Connection>>;

impl Pool {
    /// The connection to a peer: the one that is open, or a new one.
    pub(super) async fn connection(
        &self,
        peer: NodeId,
        dial: impl AsyncFnOnce() -> Result<Connection>,
    ) -> Result<Arc<Connection>> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            // Slots that nobody uses go, so that the map does not grow with every peer ever met.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || is_used(slot));
            slots.entry(peer).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some(open) = slot.upgrade().filter(|connection| !connection.is_closed()) {
            return Ok(open);
        }
        let connection = Arc::new(dial().await?);
        *slot = Arc::downgrade(&connection);
        Ok(connection)
    }
}

fn is_used(slot: &Slot) -> bool {
    slot.try_lock().is_ok_and(|connection| connection.strong_count() > 0)
}
