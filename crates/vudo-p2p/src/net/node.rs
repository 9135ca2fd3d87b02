//! A node: one store on the network, serving whoever holds a ticket.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use iroh::endpoint::{Connection, IdleTimeout, Incoming, QuicTransportConfig, presets};
use iroh::{Endpoint, RelayMode, SecretKey};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vudo_state::Database;

use crate::error::{Error, Result, random_bytes};
use crate::limits::{
    HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE_INTERVAL, SERVED_SESSIONS_MAX, TICKET_ADDRESSES_MAX,
};
use crate::net::ALPN;
use crate::net::driver::{Driver, Progress, asked_to_leave};
use crate::net::link::Link;
use crate::proto::{Secret, Session};
use crate::ticket::{Ticket, short_id};

/// How a node is reached.
#[derive(Clone, Debug)]
pub struct Config {
    /// The UDP address that the node listens on; port 0 takes any that is free.
    pub bind: SocketAddr,
}

impl Default for Config {
    /// Any free port on every interface.
    fn default() -> Config {
        Config { bind: SocketAddr::from(([0, 0, 0, 0], 0)) }
    }
}

/// A peer that this node is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The first bytes of the peer's id.
    pub node: String,
    /// Whether the peer dialled, and not this node.
    pub is_incoming: bool,
}

/// A store on the network.
pub struct Node {
    pub(super) shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What a node's sessions and links share.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    pub(super) database: Database,
    /// Asks every session to leave.
    pub(super) leave: watch::Sender<bool>,
    peers: Mutex<Vec<Weak<PeerStatus>>>,
}

impl Shared {
    /// Lists a peer for as long as what this gives is held.
    pub(super) fn register(&self, connection: &Connection, is_incoming: bool) -> Arc<PeerStatus> {
        let node = short_id(connection.remote_id().as_bytes());
        let status = Arc::new(PeerStatus { node, is_incoming });
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|peer| peer.strong_count() > 0);
        peers.push(Arc::downgrade(&status));
        status
    }
}

impl Node {
    /// Puts a store on the network. The node's id is the store's key.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn spawn(database: &Database, config: Config) -> Result<Node> {
        let failed = |what: String| Error::Bind { address: config.bind, what };
        let idle =
            IdleTimeout::try_from(IDLE_TIMEOUT).map_err(|error| failed(error.to_string()))?;
        let transport = QuicTransportConfig::builder()
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .build();
        let endpoint = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .secret_key(SecretKey::from_bytes(&database.secret_key()))
            .alpns(vec![ALPN.to_vec()])
            .transport_config(transport)
            .clear_ip_transports()
            .bind_addr(config.bind)
            .map_err(|error| failed(error.to_string()))?
            .bind()
            .await
            .map_err(|error| failed(error.to_string()))?;
        let shared = Arc::new(Shared {
            endpoint,
            database: database.clone(),
            leave: watch::Sender::new(false),
            peers: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(shared.clone()));
        Ok(Node { shared, accepting })
    }

    /// A ticket for a namespace. Whoever has it can read and write all of it, now and later: the
    /// secret is kept in the store, so the ticket stays good over restarts as long as the address
    /// does.
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
            node: *self.shared.endpoint.id().as_bytes(),
            addresses: self.addresses(),
            namespace: namespace.to_owned(),
            secret,
        })
    }

    /// Where the node may be reached: what it is bound to, and for "every interface" also this
    /// machine itself.
    fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> =
            self.shared.endpoint.addr().ip_addrs().copied().collect();
        for mut bound in self.shared.endpoint.bound_sockets() {
            if bound.ip().is_unspecified() {
                let is_v4 = bound.is_ipv4();
                bound.set_ip(if is_v4 {
                    [127, 0, 0, 1].into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            if !addresses.contains(&bound) {
                addresses.push(bound);
            }
        }
        addresses.truncate(TICKET_ADDRESSES_MAX);
        addresses
    }

    /// Begins to sync with the node behind a ticket, and keeps doing so, dialling again where the
    /// connection drops, until the link is closed or dropped.
    ///
    /// # Errors
    /// Nobody answers, the peer does not accept the ticket, or speaks something else.
    pub async fn connect(&self, ticket: &Ticket) -> Result<Link> {
        Link::open(self.shared.clone(), ticket.clone()).await
    }

    /// The peers that this node is connected to.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().filter_map(Weak::upgrade).map(|peer| (*peer).clone()).collect()
    }

    /// Leaves every session and the network.
    pub async fn shutdown(self) {
        self.shared.leave.send_replace(true);
        // Ends by itself: it watches the same.
        let _ = self.accepting.await;
        self.shared.endpoint.close().await;
    }
}

fn share_setting(namespace: &str) -> String {
    format!("share/{namespace}")
}

/// The secret of a namespace that is shared.
pub(super) fn share_secret(database: &Database, namespace: &str) -> Result<Option<Secret>> {
    let stored = database.setting(&share_setting(namespace))?;
    Ok(stored.and_then(|stored| stored.as_slice().try_into().ok()))
}

/// Accepts peers until the node leaves, then waits for the sessions to end.
async fn accept(shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(SERVED_SESSIONS_MAX));
    let mut leave = shared.leave.subscribe();
    let mut sessions = tokio::task::JoinSet::new();
    loop {
        let incoming = tokio::select! {
            () = asked_to_leave(&mut leave) => break,
            Some(_) = sessions.join_next() => continue,
            incoming = shared.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!("a peer was refused: {SERVED_SESSIONS_MAX} are being served");
            incoming.refuse();
            continue;
        };
        let shared = shared.clone();
        sessions.spawn(async move {
            if let Err(error) = serve(&shared, incoming).await {
                tracing::warn!("a session ended: {error}");
            }
            drop(permit);
        });
    }
    while sessions.join_next().await.is_some() {}
}

async fn serve(shared: &Shared, incoming: Incoming) -> Result<()> {
    let connection = timeout(HANDSHAKE_TIMEOUT, incoming).await;
    let connection = connection.map_err(|_| Error::Closed)?.map_err(|_| Error::OtherProtocol)?;
    let streams = timeout(HANDSHAKE_TIMEOUT, connection.accept_bi()).await;
    let (send, receive) = streams.map_err(|_| Error::OtherProtocol)?.map_err(|_| Error::Closed)?;
    let _registered = shared.register(&connection, true);
    let ids = (*shared.endpoint.id().as_bytes(), *connection.remote_id().as_bytes());
    let session = Session::server(ids, random_bytes()?);
    let progress = Arc::new(watch::Sender::new(Progress::default()));
    let driver = Driver::new(session, shared.database.clone(), send, progress);
    match driver.run(&connection, receive, shared.leave.subscribe()).await {
        // A peer may go without a word, and dials again when it wants to.
        Err(Error::Closed) => Ok(()),
        result => result,
    }
}
