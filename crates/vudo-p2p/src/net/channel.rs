//! A channel: two ordered streams of bytes between two nodes, whatever link they go over.
//!
//! A session has one to itself. A message on it is its length (4 bytes, little endian) and its
//! bytes.

use iroh::endpoint::{RecvStream, SendStream};

use crate::error::{Error, Result};
use crate::net::mux;

/// Both directions of a channel.
pub(super) struct Channel {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
}

/// What goes out.
pub(super) enum Sender {
    Quic(SendStream),
    Mux(mux::Sender),
}

/// What comes in.
pub(super) enum Receiver {
    Quic(RecvStream),
    Mux(mux::Receiver),
}

impl Sender {
    /// Hands bytes over to the link, waiting while it is full.
    ///
    /// # Errors
    /// [`Error::Closed`] where the peer has gone.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            // Why it failed is noticed by the receiving side as well, which tells it better.
            Sender::Quic(stream) => stream.write_all(bytes).await.map_err(|_| Error::Closed),
            Sender::Mux(sender) => sender.write_all(bytes).await,
        }
    }

    /// Ends this direction and waits until what was sent has arrived, as far as the link can tell.
    pub(super) async fn finish(&mut self) {
        match self {
            Sender::Quic(stream) => {
                if stream.finish().is_ok() {
                    // Either the peer has everything, or it has gone; both end the wait.
                    let _ = stream.stopped().await;
                }
            }
            Sender::Mux(sender) => sender.finish().await,
        }
    }
}

impl Receiver {
    /// Fills the buffer.
    ///
    /// # Errors
    /// [`Error::Closed`] where the stream ends before.
    pub(super) async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self {
            Receiver::Quic(stream) => stream.read_exact(buffer).await.map_err(|_| Error::Closed),
            Receiver::Mux(receiver) => receiver.read_exact(buffer).await,
        }
    }
}
