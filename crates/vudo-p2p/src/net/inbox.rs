//! What arrives on a channel, message by message, in bounded memory.
//!
//! ```text
//! channel --> reader, a task of its own --(queue)--> Inbox --> session
//!                  |                                    ^
//!                  +-- room in memory                   +-- what came while the session was sending
//! ```
//!
//! **The idea.** A session that sends goes on taking in what arrives: else two sides that both have much
//! to say would wait for each other. How much an honest peer says without being answered is bounded by the
//! protocol, and so is what waits here.
//!
//! **Memory.** A large message needs room, of which the whole node has so much. It keeps that until it has
//! been dealt with. Where there is none for a while the session ends, and the peer dials again later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::limits::{
    HANDSHAKE_MESSAGE_BYTES_MAX, INBOX_MESSAGES_MAX, MESSAGE_BYTES_MAX, MESSAGE_HEADER_BYTES,
    MESSAGE_PART_BYTES, MESSAGE_ROOM_BYTES, MESSAGE_ROOM_TIMEOUT, PIECE_BYTES, PROGRESS_TIMEOUT,
};
use crate::net::channel::Receiver;
use crate::net::driver::{Progress, count};
use crate::proto::{Message, MessageKind};

/// Messages that may wait between the reader and the session.
const QUEUED_MESSAGES_MAX: usize = 8;

const ROOM_UNIT_BYTES: usize = 1 << 10;

/// How much a node holds of large messages at once.
#[derive(Clone)]
pub(super) struct MessageRoom(Arc<Semaphore>);

/// The room that one message takes, until this is dropped.
pub(super) type Room = Option<OwnedSemaphorePermit>;

impl MessageRoom {
    pub(super) fn new() -> MessageRoom {
        MessageRoom(Arc::new(Semaphore::new(MESSAGE_ROOM_BYTES / ROOM_UNIT_BYTES)))
    }

    /// Waits for room for so many bytes more, which are put to those that a message has already.
    async fn take(&self, bytes: usize, room: &mut Room) -> Result<()> {
        let units = bytes.div_ceil(ROOM_UNIT_BYTES) as u32;
        let taking = timeout(MESSAGE_ROOM_TIMEOUT, self.0.clone().acquire_many_owned(units));
        match taking.await {
            Ok(Ok(more)) => match room {
                Some(room) => room.merge(more),
                None => *room = Some(more),
            },
            _ => return Err(Error::NoRoom),
        }
        Ok(())
    }
}

/// A message that has arrived, and the room that it takes.
pub(super) struct Arrived {
    pub(super) message: Message,
    pub(super) room: Room,
}

/// What a session hears of.
pub(super) enum Incoming {
    Message(Arrived),
    /// A part of a message that is not complete yet.
    Part(MessageKind),
}

/// The incoming half of a channel, as a session sees it.
pub(super) struct Inbox {
    queue: mpsc::Receiver<Result<Arrived>>,
    /// Taken out of the queue while the session was sending.
    waiting: VecDeque<Result<Arrived>>,
    partial: Arc<Partial>,
    reader: AbortHandle,
}

/// Says that a part of a message has arrived.
#[derive(Default)]
struct Partial {
    first_byte: AtomicU8,
    arrived: Notify,
}

impl Inbox {
    /// Reads messages until the channel ends, or what it carries makes no sense.
    pub(super) fn of(
        receiver: Receiver,
        progress: Arc<watch::Sender<Progress>>,
        room: MessageRoom,
    ) -> Inbox {
        let (queue_sender, queue) = mpsc::channel(QUEUED_MESSAGES_MAX);
        let partial = Arc::new(Partial::default());
        let reader = Reader { receiver, progress, room, partial: partial.clone() };
        let reader = tokio::spawn(reader.run(queue_sender)).abort_handle();
        Inbox { queue, waiting: VecDeque::new(), partial, reader }
    }

    /// Whether a message waits to be looked at.
    pub(super) fn has_messages(&self) -> bool {
        !self.waiting.is_empty() || !self.queue.is_empty()
    }

    /// The next message, or news of one that is not complete. Nothing is lost where this is dropped.
    ///
    /// # Errors
    /// The channel has ended, or the peer misbehaves.
    pub(super) async fn next(&mut self) -> Result<Incoming> {
        if let Some(first) = self.waiting.pop_front() {
            return first.map(Incoming::Message);
        }
        tokio::select! {
            biased;
            message = self.queue.recv() => {
                message.unwrap_or(Err(Error::Closed)).map(Incoming::Message)
            }
            () = self.partial.arrived.notified() => {
                let first_byte = self.partial.first_byte.load(Ordering::Relaxed);
                Ok(Incoming::Part(MessageKind::of_first_byte(first_byte)))
            }
        }
    }

    /// Takes in one more message, to be looked at later; waits for ever where none may come.
    pub(super) async fn take_in(&mut self) {
        let has_ended = self.waiting.back().is_some_and(Result::is_err);
        if has_ended || self.waiting.len() >= INBOX_MESSAGES_MAX {
            return std::future::pending().await;
        }
        let message = self.queue.recv().await;
        self.waiting.push_back(message.unwrap_or(Err(Error::Closed)));
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads messages.
struct Reader {
    receiver: Receiver,
    progress: Arc<watch::Sender<Progress>>,
    room: MessageRoom,
    partial: Arc<Partial>,
}

impl Reader {
    async fn run(mut self, queue: mpsc::Sender<Result<Arrived>>) {
        loop {
            let message = self.read().await;
            let is_last = message.is_err();
            if queue.send(message).await.is_err() || is_last {
                return;
            }
        }
    }

    async fn read(&mut self) -> Result<Arrived> {
        let mut length = [0; MESSAGE_HEADER_BYTES];
        self.read_exact(&mut length).await?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(Error::PeerMisbehaved { what: format!("a message of {length} bytes") });
        }
        if length > HANDSHAKE_MESSAGE_BYTES_MAX {
            // An honest peer sends its proof just before, which the session may not have handled
            // yet. Nothing is allocated until it has; the session's own time limit ends the wait.
            let mut progress = self.progress.subscribe();
            let authenticated = progress.wait_for(|progress| progress.is_authenticated).await;
            authenticated.map_err(|_| Error::Closed)?;
        }
        let mut room = None;
        if length > MESSAGE_PART_BYTES {
            // All of it at once: messages that had a part of their room each would wait for one another.
            self.room.take(length, &mut room).await?;
        }
        let bytes = self.read_body(length).await?;
        let message = Message::decode(&bytes).map_err(|error| Error::PeerMisbehaved {
            what: format!("a malformed message: {error}"),
        })?;
        drop(bytes);
        if let Message::Frame(frame) = &message
            && frame.len() > length
        {
            // It was compressed, and takes up more now.
            self.room.take(frame.len() - length, &mut room).await?;
        }
        Ok(Arrived { message, room })
    }

    /// Fills the buffer in pieces, each of which counts as it arrives.
    async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        for piece in buffer.chunks_mut(PIECE_BYTES) {
            self.receiver.read_exact(piece).await?;
            count(&self.progress, |progress| progress.received_bytes += piece.len() as u64);
        }
        Ok(())
    }

    /// What was announced is allocated as it arrives.
    async fn read_body(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let start = bytes.len();
            bytes.resize(length.min(start + MESSAGE_PART_BYTES), 0);
            let reading = self.read_exact(&mut bytes[start..]);
            timeout(PROGRESS_TIMEOUT, reading).await.map_err(|_| Error::PeerMisbehaved {
                what: "it does not go on with a message".to_owned(),
            })??;
            if bytes.len() < length {
                self.partial.first_byte.store(bytes[0], Ordering::Relaxed);
                self.partial.arrived.notify_one();
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::limits::MESSAGE_ROOM_TIMEOUT;
    use crate::net::channel::Sender;
    use crate::net::mux::{Mux, Pipe};

    /// A channel's end that sends, and the inbox at its other end, of a session that was let in.
    async fn channel(room: MessageRoom) -> (Sender, Inbox, [Mux; 2]) {
        let (near, far) = Pipe::pair();
        let (near, far) = (Mux::new(near, &[1; 32], false), Mux::new(far, &[2; 32], true));
        let mut sender = near.open().unwrap().sender;
        // The other side learns of the channel with the first bytes.
        sender.write_all(&(100_000u32).to_le_bytes()).await.unwrap();
        let receiver = far.accept().await.unwrap().receiver;
        let progress = Progress { is_authenticated: true, ..Progress::default() };
        let inbox = Inbox::of(receiver, Arc::new(watch::Sender::new(progress)), room);
        (sender, inbox, [near, far])
    }

    fn misbehaves(incoming: Result<Incoming>) -> String {
        match incoming {
            Err(Error::PeerMisbehaved { what }) => what,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("a message that is not complete"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stops_half_way_ends_the_session_in_the_end() {
        let (mut sender, mut inbox, _muxes) = channel(MessageRoom::new()).await;
        sender.write_all(&[4; MESSAGE_PART_BYTES]).await.unwrap();
        let first = inbox.next().await;
        assert!(matches!(first, Ok(Incoming::Part(MessageKind::Changes))), "it is slow so far");
        let start = Instant::now();
        assert_eq!(misbehaves(inbox.next().await), "it does not go on with a message");
        assert!((PROGRESS_TIMEOUT..2 * PROGRESS_TIMEOUT).contains(&start.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_there_is_no_room_for_waits_and_is_refused() {
        let room = MessageRoom::new();
        let mut taken = None;
        room.take(MESSAGE_ROOM_BYTES, &mut taken).await.unwrap();
        let (_sender, mut inbox, _muxes) = channel(room.clone()).await;
        let start = Instant::now();
        assert!(matches!(inbox.next().await, Err(Error::NoRoom)));
        assert_eq!(start.elapsed().as_secs(), MESSAGE_ROOM_TIMEOUT.as_secs());

        // Where others give up theirs meanwhile it is taken.
        let (mut sender, mut inbox, _muxes) = channel(room).await;
        tokio::spawn(async move {
            tokio::time::sleep(MESSAGE_ROOM_TIMEOUT / 2).await;
            drop(taken);
        });
        sender.write_all(&[0; MESSAGE_PART_BYTES]).await.unwrap();
        assert!(matches!(inbox.next().await, Ok(Incoming::Part(_))));
    }
}
