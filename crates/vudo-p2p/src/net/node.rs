//! A node: one store on the network, serving whoever holds a ticket.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use iroh::endpoint::{Builder, IdleTimeout, QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, RelayMode, RelayUrl, SecretKey};
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::JoinSet;
use vudo_state::{Database, SignedRecord};

use crate::error::{Error, Result, random_bytes};
use crate::limits::{
    CHANNELS_MAX, IDLE_TIMEOUT, KEEP_ALIVE_INTERVAL, SERVED_CONNECTIONS_MAX, TICKET_ADDRESSES_MAX,
    TICKET_URLS_MAX, UNREAD_BYTES_MAX,
};
use crate::net::connection::{Connection, Pool};
use crate::net::dial::Dialer;
use crate::net::inbox::MessageRoom;
use crate::net::link::{self, Link};
use crate::net::presence::{Presence, Presences};
use crate::net::relay::{self, Relaying};
use crate::net::{ALPN, server, websocket};
use crate::proto::{Access, NodeId, Secret};
use crate::ticket::{Ticket, short_id};

/// How a node is reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// The UDP address that the node listens on for QUIC, and dials from; port 0 takes any that is
    /// free. A node without one can only be reached in other ways.
    pub quic: Option<SocketAddr>,
    /// The TCP address on which the node serves WebSockets, if it does.
    pub websocket: Option<SocketAddr>,
    /// Relays at which the node may be found over QUIC where nobody reaches its addresses, like
    /// `https://relay.example.org`; at most
    /// [`RELAYS_MAX`](crate::limits::RELAYS_MAX). Its tickets name them. Without any, the node
    /// uses none but those of tickets that it dials.
    ///
    /// A relay with `https` needs a certificate of one of the public authorities of Mozilla's list;
    /// `http` is for private networks and tests. Either way a relay sees who talks to whom, when and how
    /// much, and not what.
    pub relays: Vec<String>,
}

impl Default for Config {
    /// QUIC, on any free port of every interface.
    fn default() -> Config {
        Config::at(SocketAddr::from(([0, 0, 0, 0], 0)))
    }
}

impl Config {
    /// QUIC, on any free port of this machine alone.
    pub fn loopback() -> Config {
        Config::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// QUIC, on this address.
    pub fn at(quic: SocketAddr) -> Config {
        Config { quic: Some(quic), websocket: None, relays: Vec::new() }
    }
}

/// A peer that this node is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The first bytes of the peer's id.
    pub node: String,
    /// Whether the peer dialled, and not this node.
    pub is_incoming: bool,
    /// What the connection goes over: `quic`, `websocket` or `memory`.
    pub link: &'static str,
}

/// A store on the network.
pub struct Node {
    pub(super) shared: Arc<Shared>,
    serving: JoinSet<()>,
}

/// What a node's sessions and links share.
pub(super) struct Shared {
    pub(super) id: NodeId,
    pub(super) endpoint: Option<Endpoint>,
    /// What dials over relays where the node has none of its own, from the first such ticket on.
    relaying: OnceCell<Relaying>,
    /// Where WebSockets are served.
    websocket: Option<SocketAddr>,
    /// Where the node may be found, whether it is there at the moment or not.
    relays: Vec<RelayUrl>,
    pub(super) database: Database,
    /// Asks every session to leave.
    pub(super) leave: watch::Sender<bool>,
    /// One for each connection that is served.
    pub(super) permits: Arc<Semaphore>,
    pub(super) pool: Pool,
    pub(super) presences: Arc<Presences>,
    pub(super) message_room: MessageRoom,
    peers: Mutex<Vec<Weak<PeerStatus>>>,
}

impl Shared {
    /// What dials a ticket over QUIC; `None` where this node does not speak it.
    pub(super) async fn dialling_endpoint(&self, ticket: &Ticket) -> Result<Option<&Endpoint>> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        if ticket.relays.is_empty() || !self.relays.is_empty() {
            return Ok(Some(endpoint));
        }
        let bind = || Relaying::bind(self.database.secret_key(), endpoint);
        Ok(Some(self.relaying.get_or_try_init(bind).await?.endpoint()))
    }

    /// Lists a peer for as long as what this gives is held.
    pub(super) fn register(&self, connection: &Connection, is_incoming: bool) -> Arc<PeerStatus> {
        let (node, link) = (short_id(&connection.peer), connection.link_name());
        let status = Arc::new(PeerStatus { node, is_incoming, link });
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|peer| peer.strong_count() > 0);
        peers.push(Arc::downgrade(&status));
        status
    }

    pub(super) fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().filter_map(Weak::upgrade).map(|peer| (*peer).clone()).collect()
    }
}

impl Node {
    /// Puts a store on the network. The node's id is the store's key. Nobody waits for a relay: where it
    /// does not answer the node goes on without, says so in the log, and keeps looking for it.
    ///
    /// # Errors
    /// The address cannot be used, or [`Error::BadRelay`] and [`Error::TooManyRelays`].
    pub async fn spawn(database: &Database, config: Config) -> Result<Node> {
        let id = database.replica_key().0;
        let relays = relay::parse_all(&config.relays)?;
        let endpoint = match config.quic {
            Some(address) => {
                let enable = |builder| match relays.is_empty() {
                    true => builder,
                    false => relay::enable(builder, &relays),
                };
                Some(bind_quic(database.secret_key(), ALPN, address, enable).await?)
            }
            None => None,
        };
        let listener = match config.websocket {
            Some(address) => Some(bind_tcp(address).await?),
            None => None,
        };
        let websocket = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let shared = Arc::new(Shared {
            id,
            endpoint,
            relaying: OnceCell::new(),
            websocket,
            relays,
            database: database.clone(),
            leave: watch::Sender::new(false),
            permits: Arc::new(Semaphore::new(SERVED_CONNECTIONS_MAX)),
            pool: Pool::default(),
            presences: Arc::new(Presences::new(id)),
            message_room: MessageRoom::new(),
            peers: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        if let Some(endpoint) = shared.endpoint.clone() {
            if !shared.relays.is_empty() {
                let leave = shared.leave.subscribe();
                serving.spawn(relay::stay(endpoint.clone(), shared.relays.clone(), leave));
            }
            serving.spawn(server::accept_quic(shared.clone(), endpoint));
        }
        if let Some(listener) = listener {
            serving.spawn(websocket::serve(shared.clone(), listener));
        }
        Ok(Node { shared, serving })
    }

    /// A ticket for a namespace. Whoever has it can read all of it, and where the namespace has no
    /// owners write, now and later: the secret is kept in the store, so the ticket stays good over
    /// restarts as long as the address does.
    ///
    /// # Errors
    /// The store failed.
    pub fn share(&self, namespace: &str) -> Result<Ticket> {
        let database = &self.shared.database;
        // Opening checks the name, and that the namespace can be served.
        database.replication(namespace)?;
        let secret = match share_secret(database, namespace)? {
            Some(secret) => secret,
            None => {
                let secret = random_bytes()?;
                database.set_setting(&share_setting(namespace), &secret)?;
                secret
            }
        };
        Ok(Ticket {
            node: self.shared.id,
            addresses: self.addresses(),
            urls: self.urls(),
            relays: self.relays(),
            namespace: namespace.to_owned(),
            access: Access::Secret(secret),
        })
    }

    /// A ticket for one key, which says what the namespace's owners have granted to it: it is of no use
    /// to others, and lets in for as long as that grant is good. The namespace is shared, as
    /// [`Node::share`] does.
    ///
    /// # Errors
    /// [`Error::InvitationTooLarge`], or the store failed.
    pub fn invite(&self, namespace: &str, records: Vec<SignedRecord>) -> Result<Ticket> {
        let ticket = self.share(namespace)?;
        ticket.for_key(records)
    }

    /// Where the node may be reached over QUIC: what its tickets name. Nothing is shared by asking.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let Some(endpoint) = &self.shared.endpoint else { return Vec::new() };
        let mut addresses: Vec<SocketAddr> = endpoint.addr().ip_addrs().copied().collect();
        for bound in endpoint.bound_sockets() {
            let bound = reachable(bound);
            if !addresses.contains(&bound) {
                addresses.push(bound);
            }
        }
        addresses.truncate(TICKET_ADDRESSES_MAX);
        addresses
    }

    /// Where the node may be reached over WebSocket.
    fn urls(&self) -> Vec<String> {
        let Some(bound) = self.shared.websocket else { return Vec::new() };
        let mut addresses = vec![reachable(bound)];
        if let (true, Some(endpoint)) = (bound.ip().is_unspecified(), &self.shared.endpoint) {
            // The interfaces that QUIC has found are those of the machine.
            let others = endpoint.addr();
            let others = others.ip_addrs().map(|other| SocketAddr::new(other.ip(), bound.port()));
            addresses.extend(others.filter(|other| other.is_ipv4() == bound.is_ipv4()));
            addresses.dedup();
        }
        addresses.truncate(TICKET_URLS_MAX);
        addresses.into_iter().map(websocket::url_of).collect()
    }

    /// The relays at which the node may be found.
    fn relays(&self) -> Vec<String> {
        // They carry QUIC and nothing else.
        let relays = self.shared.endpoint.iter().flat_map(|_| &self.shared.relays);
        relays.map(|relay| relay.to_string()).collect()
    }

    /// The TCP address on which WebSockets are served, if they are.
    pub fn websocket_address(&self) -> Option<SocketAddr> {
        self.shared.websocket
    }

    /// Begins to sync with the node behind a ticket, and keeps doing so, dialling again where the
    /// connection drops, until the link is closed or dropped. Links to one node share a connection.
    ///
    /// # Errors
    /// Nobody answers, the peer does not accept the ticket, or speaks something else.
    pub async fn connect(&self, ticket: &Ticket) -> Result<Link> {
        Link::open(self.shared.clone(), ticket.clone(), Dialer::Addresses).await
    }

    /// Dials the node behind a ticket, and leaves it as soon as it has let this one in: nothing is synced,
    /// and nothing that the peer has is acknowledged, so it may be done under any key.
    ///
    /// # Errors
    /// As for [`Node::connect`].
    pub async fn probe(&self, ticket: &Ticket) -> Result<()> {
        link::probe(&self.shared, ticket).await
    }

    /// [`Node::connect`] to a node of the same process, without a network.
    ///
    /// # Errors
    /// The node is gone, or does not accept the ticket.
    pub async fn connect_in_process(&self, peer: &Node, ticket: &Ticket) -> Result<Link> {
        let dialer = Dialer::InProcess(Arc::downgrade(&peer.shared));
        Link::open(self.shared.clone(), ticket.clone(), dialer).await
    }

    /// The peers that this node is connected to.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.shared.peers()
    }

    /// Who is here in a namespace, and what they show; a handle to show something as well. Where no session
    /// of the namespace is open, nobody else is.
    pub fn presence(&self, namespace: &str) -> Presence {
        Presence::new(self.shared.presences.room(namespace))
    }

    /// Leaves every session and the network.
    pub async fn shutdown(mut self) {
        self.shared.leave.send_replace(true);
        // They end by themselves: they watch the same.
        while self.serving.join_next().await.is_some() {}
        // Whoever is still being told goodbye has a permit. Nobody closes the semaphore.
        let _ = self.shared.permits.acquire_many(SERVED_CONNECTIONS_MAX as u32).await;
        let relaying = self.shared.relaying.get().map(Relaying::endpoint);
        for endpoint in self.shared.endpoint.iter().chain(relaying) {
            endpoint.close().await;
        }
    }
}

/// An endpoint whose id is a key, for one protocol. Without more it has no relays.
pub(super) async fn bind_quic(
    secret_key: [u8; 32],
    protocol: &[u8],
    address: SocketAddr,
    more: impl FnOnce(Builder) -> Builder,
) -> Result<Endpoint> {
    let failed = |what: String| Error::Bind { address, what };
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).map_err(|error| failed(error.to_string()))?;
    let transport = QuicTransportConfig::builder()
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_concurrent_bidi_streams(VarInt::from_u32(CHANNELS_MAX as u32))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(UNREAD_BYTES_MAX))
        .build();
    let builder = Endpoint::builder(presets::Minimal);
    let builder = builder.relay_mode(RelayMode::Disabled);
    more(builder)
        .secret_key(SecretKey::from_bytes(&secret_key))
        .alpns(vec![protocol.to_vec()])
        .transport_config(transport)
        .clear_ip_transports()
        .bind_addr(address)
        .map_err(|error| failed(error.to_string()))?
        .bind()
        .await
        .map_err(|error| failed(error.to_string()))
}

async fn bind_tcp(address: SocketAddr) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| Error::Bind { address, what: error.to_string() })
}

/// The address itself, or for "every interface" this machine's own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let is_v4 = address.is_ipv4();
        address.set_ip(if is_v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

fn share_setting(namespace: &str) -> String {
    format!("share/{namespace}")
}

/// The secret of a namespace that is shared.
pub(super) fn share_secret(database: &Database, namespace: &str) -> Result<Option<Secret>> {
    let stored = database.setting(&share_setting(namespace))?;
    Ok(stored.and_then(|stored| stored.as_slice().try_into().ok()))
}
