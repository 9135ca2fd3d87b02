//! Opaque messages between programs that have keys, and no store in common.
//!
//! ```text
//! Outgoing --queue--> connection, dialled when there is something to say --> peer
//!                          |
//! receive() <--queue-- one reader for each connection, dialled or accepted
//! ```
//!
//! A message arrives whole or not at all. It is lost where the peer cannot be reached, does not read,
//! or goes: whoever needs an answer asks again. QUIC proves who a peer is, for its id is its key.
//!
//! **Known peers** are those that the caller names. They may send large messages, are always let in,
//! and what they say is looked at first. Strangers have a bounded number of places and small
//! messages. All queues are bounded, and a message is allocated as it arrives, not as it is announced.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use iroh::endpoint::{Connection, RecvStream, SendStream};
use iroh::{Endpoint, EndpointAddr, PublicKey};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Result};
use crate::limits::{
    ARRIVED_MESSAGES_MAX, CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, KNOWN_PEER_CONNECTIONS_MAX,
    MESSAGE_HEADER_BYTES, MESSAGE_PART_BYTES, OPAQUE_MESSAGE_BYTES_MAX, PROGRESS_TIMEOUT,
    QUEUED_MESSAGE_BYTES_MAX, QUEUED_MESSAGES_MAX, RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN,
    SEND_TIMEOUT, STRANGER_MESSAGE_BYTES_MAX, STRANGER_SILENCE_MAX, STRANGERS_MAX,
};
use crate::net::node::bind_quic;
use crate::net::server::shake_hands;
use crate::proto::NodeId;
use crate::ticket::short_id;

/// Names the protocol of opaque messages where a connection is made.
pub const MESSAGE_ALPN: &[u8] = b"vudo/message/1";

/// A place on the network that messages come to and go from.
pub struct Messenger {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    from_known: mpsc::Receiver<Delivery>,
    from_strangers: mpsc::Receiver<Delivery>,
    tasks: JoinSet<()>,
}

struct Shared {
    known: BTreeMap<NodeId, Known>,
    strangers: Arc<Semaphore>,
    to_known: mpsc::Sender<Delivery>,
    to_strangers: mpsc::Sender<Delivery>,
}

/// A peer that the messenger knows.
struct Known {
    /// How many more connections it may have.
    places: Arc<Semaphore>,
    /// Told when it has dialled: then it is there, and a dial that waits for it is begun anew.
    is_there: Notify,
}

/// A message that has arrived.
pub struct Delivery {
    /// Who sent it.
    pub from: NodeId,
    /// The message.
    pub message: Vec<u8>,
    /// Where answers go, on the same connection.
    pub answers: Outgoing,
}

/// Messages on their way to one peer.
#[derive(Clone)]
pub struct Outgoing {
    queue: mpsc::Sender<Arc<[u8]>>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Outgoing {
    fn new() -> (Outgoing, Queue) {
        let (queue, messages) = mpsc::channel(QUEUED_MESSAGES_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        (
            Outgoing { queue, waiting_bytes: waiting_bytes.clone() },
            Queue { messages, waiting_bytes },
        )
    }

    /// Sends a message some time soon. Gives whether there was room for it; where there was none it
    /// is lost, as it may be later.
    pub fn send(&self, message: Arc<[u8]>) -> bool {
        let length = message.len();
        let waiting = self.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        let fits = waiting + length <= QUEUED_MESSAGE_BYTES_MAX;
        let is_queued = fits && self.queue.try_send(message).is_ok();
        if !is_queued {
            self.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
        }
        is_queued
    }
}

/// The other end of [`Outgoing`].
struct Queue {
    messages: mpsc::Receiver<Arc<[u8]>>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Queue {
    async fn next(&mut self) -> Option<Arc<[u8]>> {
        let message = self.messages.recv().await?;
        self.waiting_bytes.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }

    /// Loses what waits.
    fn clear(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.waiting_bytes.fetch_sub(message.len(), Ordering::Relaxed);
        }
    }
}

impl Messenger {
    /// Listens on an address, with port 0 on any port that is free. The messenger's id is the public
    /// key of `secret_key`; `known` are the peers that it knows.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn bind(
        secret_key: [u8; 32],
        address: SocketAddr,
        known: impl IntoIterator<Item = NodeId>,
    ) -> Result<Messenger> {
        let endpoint = bind_quic(secret_key, MESSAGE_ALPN, address, |builder| builder).await?;
        let (to_known, from_known) = mpsc::channel(ARRIVED_MESSAGES_MAX);
        let (to_strangers, from_strangers) = mpsc::channel(ARRIVED_MESSAGES_MAX);
        let known = known.into_iter().map(|peer| {
            let places = Arc::new(Semaphore::new(KNOWN_PEER_CONNECTIONS_MAX));
            (peer, Known { places, is_there: Notify::new() })
        });
        let shared = Arc::new(Shared {
            known: known.collect(),
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            to_known,
            to_strangers,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(shared.clone(), endpoint.clone()));
        Ok(Messenger { endpoint, shared, from_known, from_strangers, tasks })
    }

    /// The addresses that the messenger listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.bound_sockets()
    }

    /// A way to a peer, which is dialled when there is something to say to it, and again where the
    /// connection drops. What the peer answers is received like everything else.
    ///
    /// # Errors
    /// The id is no key.
    pub fn link(&mut self, peer: NodeId, addresses: &[SocketAddr]) -> Result<Outgoing> {
        let key = PublicKey::from_bytes(&peer);
        let key = key.map_err(|_| Error::BadNodeId { node: short_id(&peer) })?;
        let mut address = EndpointAddr::new(key);
        for ip in addresses {
            address = address.with_ip_addr(*ip);
        }
        let (outgoing, queue) = Outgoing::new();
        let dialled =
            Dialled { shared: self.shared.clone(), endpoint: self.endpoint.clone(), peer, address };
        self.tasks.spawn(dialled.keep(outgoing.clone(), queue));
        Ok(outgoing)
    }

    /// The next message: of known peers first.
    pub async fn receive(&mut self) -> Delivery {
        let received = tokio::select! {
            biased;
            received = self.from_known.recv() => received,
            received = self.from_strangers.recv() => received,
        };
        received.expect("the messenger itself holds the other ends")
    }

    /// The next message, if one has arrived.
    pub fn try_receive(&mut self) -> Option<Delivery> {
        self.from_known.try_recv().or_else(|_| self.from_strangers.try_recv()).ok()
    }

    /// Leaves the network. What waits to be sent is lost.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
        self.endpoint.close().await;
    }
}

/// Lets peers in until the messenger goes.
async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            Some(_) = connections.join_next() => continue,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let shared = shared.clone();
        connections.spawn(async move {
            if let Some(connection) = shake_hands(incoming).await {
                serve(&shared, connection).await;
            }
        });
    }
}

async fn serve(shared: &Shared, connection: Connection) {
    let peer = *connection.remote_id().as_bytes();
    let known = shared.known.get(&peer);
    let places = known.map_or(&shared.strangers, |known| &known.places);
    let Ok(_place) = places.clone().try_acquire_owned() else {
        let peer = short_id(&peer);
        tracing::warn!(peer, reason = "as many are being served as may be", "a peer was refused");
        return;
    };
    let Ok(Ok((sender, receiver))) = timeout(HANDSHAKE_TIMEOUT, connection.accept_bi()).await
    else {
        return;
    };
    if let Some(known) = known {
        known.is_there.notify_waiters();
    }
    let (answers, mut queue) = Outgoing::new();
    converse(shared, &connection, (sender, receiver), answers, &mut queue, None).await;
}

/// A peer that is dialled.
struct Dialled {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    peer: NodeId,
    address: EndpointAddr,
}

impl Dialled {
    async fn keep(self, answers: Outgoing, mut queue: Queue) {
        let mut delay = RECONNECT_DELAY_MIN;
        while let Some(first) = queue.next().await {
            let Some(connection) = self.dial_or_hear().await else {
                tracing::debug!(peer = short_id(&self.peer), "a peer cannot be reached");
                tokio::select! {
                    () = sleep(delay) => {}
                    () = self.peer_is_there() => {}
                }
                delay = (delay * 2).min(RECONNECT_DELAY_MAX);
                // What waited is old by now, and whoever sent it sends it again.
                queue.clear();
                continue;
            };
            delay = RECONNECT_DELAY_MIN;
            let Ok(streams) = connection.open_bi().await else { continue };
            let answers = answers.clone();
            converse(&self.shared, &connection, streams, answers, &mut queue, Some(first)).await;
        }
    }

    /// Dials, and once more where the peer dials meanwhile: an attempt that began before the peer
    /// was there would wait for seconds until it tries again.
    async fn dial_or_hear(&self) -> Option<Connection> {
        tokio::select! {
            dialled = self.dial() => dialled,
            () = self.peer_is_there() => self.dial().await,
        }
    }

    async fn peer_is_there(&self) {
        match self.shared.known.get(&self.peer) {
            Some(known) => known.is_there.notified().await,
            None => std::future::pending().await,
        }
    }

    async fn dial(&self) -> Option<Connection> {
        let dialling = self.endpoint.connect(self.address.clone(), MESSAGE_ALPN);
        timeout(CONNECT_TIMEOUT, dialling).await.ok()?.ok()
    }
}

/// Sends and receives on a connection until either side ends it.
async fn converse(
    shared: &Shared,
    connection: &Connection,
    (sender, receiver): (SendStream, RecvStream),
    answers: Outgoing,
    queue: &mut Queue,
    first: Option<Arc<[u8]>>,
) {
    let peer = *connection.remote_id().as_bytes();
    let ended = tokio::select! {
        ended = read(shared, peer, receiver, answers) => ended,
        ended = write(sender, queue, first) => ended,
    };
    if let Err(error @ Error::PeerMisbehaved { .. }) = ended {
        tracing::warn!(peer = short_id(&peer), reason = %error, "a peer was cut off");
    }
    connection.close(0u32.into(), b"");
}

async fn write(mut sender: SendStream, queue: &mut Queue, first: Option<Arc<[u8]>>) -> Result<()> {
    let mut next = first;
    loop {
        let message = match next.take() {
            Some(message) => message,
            None => queue.next().await.ok_or(Error::Closed)?,
        };
        let header = (message.len() as u32).to_le_bytes();
        let writing = async {
            sender.write_all(&header).await?;
            sender.write_all(&message).await
        };
        let written = timeout(SEND_TIMEOUT, writing).await;
        if !matches!(written, Ok(Ok(()))) {
            return Err(Error::Closed);
        }
    }
}

async fn read(
    shared: &Shared,
    peer: NodeId,
    mut receiver: RecvStream,
    answers: Outgoing,
) -> Result<()> {
    let is_known = shared.known.contains_key(&peer);
    let (bytes_max, arrived) = match is_known {
        true => (OPAQUE_MESSAGE_BYTES_MAX, &shared.to_known),
        false => (STRANGER_MESSAGE_BYTES_MAX, &shared.to_strangers),
    };
    loop {
        let mut header = [0; MESSAGE_HEADER_BYTES];
        let reading = receiver.read_exact(&mut header);
        let is_read = match is_known {
            true => reading.await.is_ok(),
            false => timeout(STRANGER_SILENCE_MAX, reading).await.is_ok_and(|read| read.is_ok()),
        };
        if !is_read {
            return Err(Error::Closed);
        }
        let length = u32::from_le_bytes(header) as usize;
        if length > bytes_max {
            let what = format!("a message of {length} bytes; at most {bytes_max} are taken");
            return Err(Error::PeerMisbehaved { what });
        }
        let message = timeout(PROGRESS_TIMEOUT, read_body(&mut receiver, length)).await;
        let what = "a message that did not arrive in time".to_owned();
        let message = message.map_err(|_| Error::PeerMisbehaved { what })??;
        let delivery = Delivery { from: peer, message, answers: answers.clone() };
        arrived.send(delivery).await.map_err(|_| Error::Closed)?;
    }
}

async fn read_body(receiver: &mut RecvStream, length: usize) -> Result<Vec<u8>> {
    let mut message = Vec::new();
    while message.len() < length {
        let start = message.len();
        message.resize(length.min(start + MESSAGE_PART_BYTES), 0);
        receiver.read_exact(&mut message[start..]).await.map_err(|_| Error::Closed)?;
    }
    Ok(message)
}
