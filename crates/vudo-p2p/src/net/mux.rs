//! Many channels over one pipe, for links that have no streams of their own.
//!
//! ```text
//! channel 1 --\                                          /--> queue of channel 1
//! channel 2 ---+--> pieces, in turn --> link --> pieces --+--> queue of channel 2
//! channel 3 --/                                          \--> queue of channel 3
//! ```
//!
//! The side that dialled opens channels, numbered 0, 1, 2. Whoever sends much waits for its turn
//! after every piece, so channels share a link fairly. Every queue is bounded: where the owner of a
//! channel does not take what arrives, the whole link waits, and the peer with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::limits::{CHANNELS_MAX, PIECE_BYTES, QUEUED_PIECES_MAX};
use crate::net::channel::{self, Channel};
use crate::proto::{NodeId, Piece};
use crate::ticket::short_id;

/// One end of something that carries pieces in order, both ways.
pub(super) struct Pipe {
    pub(super) outgoing: mpsc::Sender<Vec<u8>>,
    pub(super) incoming: mpsc::Receiver<Vec<u8>>,
}

impl Pipe {
    /// A pipe, and what the link has to carry: what it takes out of the one queue and puts into the
    /// other.
    pub(super) fn new() -> (Pipe, mpsc::Receiver<Vec<u8>>, mpsc::Sender<Vec<u8>>) {
        let (outgoing, to_link) = mpsc::channel(QUEUED_PIECES_MAX);
        let (from_link, incoming) = mpsc::channel(QUEUED_PIECES_MAX);
        (Pipe { outgoing, incoming }, to_link, from_link)
    }

    /// Two ends that reach each other.
    pub(super) fn pair() -> (Pipe, Pipe) {
        let (one, to_link, from_link) = Pipe::new();
        (one, Pipe { outgoing: from_link, incoming: to_link })
    }
}

/// The channels of one pipe.
pub(super) struct Mux {
    outgoing: mpsc::Sender<Vec<u8>>,
    table: Arc<Mutex<Table>>,
    /// Channels that the peer has opened; nobody else waits for them.
    accepted: tokio::sync::Mutex<mpsc::Receiver<Channel>>,
    dispatcher: AbortHandle,
}

#[derive(Default)]
struct Table {
    next_number: u64,
    queues: BTreeMap<u64, mpsc::Sender<Vec<u8>>>,
    is_closed: bool,
}

fn lock(table: &Mutex<Table>) -> std::sync::MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mux {
    /// Puts channels over a pipe to a peer. `accepts` says whether it may open them.
    pub(super) fn new(pipe: Pipe, peer: &NodeId, accepts: bool) -> Mux {
        let Pipe { outgoing, incoming } = pipe;
        let table = Arc::new(Mutex::new(Table::default()));
        let (accept, accepted) = mpsc::channel(1);
        let dispatcher = Dispatcher {
            peer: short_id(peer),
            table: table.clone(),
            // Not a sender of its own, which would keep the link open.
            outgoing: outgoing.downgrade(),
            accept: accepts.then_some(accept),
        };
        let dispatcher = tokio::spawn(dispatcher.run(incoming)).abort_handle();
        Mux { outgoing, table, accepted: tokio::sync::Mutex::new(accepted), dispatcher }
    }

    /// Opens a channel. The peer learns of it with the first bytes.
    ///
    /// # Errors
    /// [`Error::Closed`] where the link is closed, [`Error::TooManyChannels`] where as many channels are
    /// open as there may be.
    pub(super) fn open(&self) -> Result<Channel> {
        let mut table = lock(&self.table);
        if table.is_closed {
            return Err(Error::Closed);
        }
        if table.queues.len() >= CHANNELS_MAX {
            return Err(Error::TooManyChannels);
        }
        Ok(table.add(&self.outgoing))
    }

    /// The next channel that the peer opens; `None` when the link has closed.
    pub(super) async fn accept(&self) -> Option<Channel> {
        self.accepted.lock().await.recv().await
    }

    /// Whether the link has closed.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.table).is_closed
    }

    /// Closes the link. What channels have handed over still goes out.
    pub(super) fn close(&self) {
        self.dispatcher.abort();
        lock(&self.table).close();
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.close();
    }
}

impl Table {
    fn add(&mut self, outgoing: &mpsc::Sender<Vec<u8>>) -> Channel {
        let number = self.next_number;
        self.next_number += 1;
        let (queue, pieces) = mpsc::channel(QUEUED_PIECES_MAX);
        self.queues.insert(number, queue);
        let sender = Sender { number, outgoing: outgoing.clone(), is_finished: false };
        let receiver = Receiver { pieces, piece: Vec::new(), taken: 0 };
        Channel { sender: channel::Sender::Mux(sender), receiver: channel::Receiver::Mux(receiver) }
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.queues.clear();
    }
}

/// Brings what arrives to its channels.
struct Dispatcher {
    peer: String,
    table: Arc<Mutex<Table>>,
    outgoing: mpsc::WeakSender<Vec<u8>>,
    accept: Option<mpsc::Sender<Channel>>,
}

impl Dispatcher {
    async fn run(self, mut incoming: mpsc::Receiver<Vec<u8>>) {
        while let Some(piece) = incoming.recv().await {
            if let Err(what) = self.dispatch(&piece).await {
                tracing::warn!(peer = self.peer, reason = what, "a link was cut off");
                break;
            }
        }
        lock(&self.table).close();
    }

    async fn dispatch(&self, piece: &[u8]) -> std::result::Result<(), &'static str> {
        let piece = Piece::decode(piece).map_err(|_| "the peer sent a piece without a channel")?;
        let Piece { channel: number, is_end, content } = piece;
        if self.is_new(number)? {
            let Some(outgoing) = self.outgoing.upgrade() else { return Ok(()) };
            let channel = lock(&self.table).add(&outgoing);
            let accept = self.accept.as_ref().ok_or("the peer opened a channel")?;
            // Nobody accepts any more where the node is leaving.
            let _ = accept.send(channel).await;
        }
        let queue = match is_end {
            true => lock(&self.table).queues.remove(&number),
            false => lock(&self.table).queues.get(&number).cloned(),
        };
        // What arrives for a channel that has ended here is nobody's.
        if let Some(queue) = queue
            && !content.is_empty()
            && queue.send(content.to_vec()).await.is_err()
        {
            lock(&self.table).queues.remove(&number);
        }
        Ok(())
    }

    fn is_new(&self, number: u64) -> std::result::Result<bool, &'static str> {
        let table = lock(&self.table);
        if number < table.next_number {
            return Ok(false);
        }
        if number > table.next_number || self.accept.is_none() {
            return Err("the peer used a channel that is not open");
        }
        if table.queues.len() >= CHANNELS_MAX {
            return Err("the peer opened too many channels");
        }
        Ok(true)
    }
}

/// The outgoing bytes of a channel.
pub(super) struct Sender {
    number: u64,
    outgoing: mpsc::Sender<Vec<u8>>,
    is_finished: bool,
}

impl Sender {
    /// Sends bytes in as many pieces as it takes.
    ///
    /// # Errors
    /// [`Error::Closed`] where the link is closed.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(PIECE_BYTES) {
            let piece = self.piece(false, part);
            self.outgoing.send(piece).await.map_err(|_| Error::Closed)?;
        }
        Ok(())
    }

    /// Tells the peer that nothing follows.
    pub(super) async fn finish(&mut self) {
        // Where the link is closed the peer knows.
        let _ = self.outgoing.send(self.piece(true, &[])).await;
        self.is_finished = true;
    }

    fn piece(&self, is_end: bool, content: &[u8]) -> Vec<u8> {
        Piece { channel: self.number, is_end, content }.encode()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // The peer would wait for ever on a channel of which it never learns that it has ended.
        if let Err(TrySendError::Full(piece)) = self.outgoing.try_send(self.piece(true, &[]))
            && let Ok(runtime) = Handle::try_current()
        {
            let outgoing = self.outgoing.clone();
            runtime.spawn(async move { outgoing.send(piece).await });
        }
    }
}

/// The incoming bytes of a channel.
pub(super) struct Receiver {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    /// How much of the piece has been read; `taken <= piece.len()`.
    taken: usize,
}

impl Receiver {
    /// Fills the buffer.
    ///
    /// # Errors
    /// [`Error::Closed`] where the channel ends before.
    pub(super) async fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            if self.taken == self.piece.len() {
                self.piece = self.pieces.recv().await.ok_or(Error::Closed)?;
                self.taken = 0;
            }
            let rest = &self.piece[self.taken..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.taken += count;
            buffer = &mut buffer[count..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// The last piece of a channel that is let go waits where the link has no room at that moment.
    #[tokio::test]
    async fn the_end_of_a_channel_is_not_lost_on_a_full_link() {
        let (near, mut to_link, _from_link) = Pipe::new();
        let mux = Mux::new(near, &[7; 32], false);
        let mut channel = mux.open().unwrap();
        for _ in 0..QUEUED_PIECES_MAX {
            channel.sender.write_all(b"piece").await.unwrap();
        }
        drop(channel);
        for _ in 0..QUEUED_PIECES_MAX {
            let piece = to_link.recv().await.unwrap();
            assert!(!Piece::decode(&piece).unwrap().is_end);
        }
        let last = timeout(Duration::from_secs(10), to_link.recv()).await.expect("the end comes");
        assert!(Piece::decode(&last.unwrap()).unwrap().is_end);
    }
}
