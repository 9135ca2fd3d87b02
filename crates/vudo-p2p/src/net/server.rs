//! The side that is dialled: accepts connections, and channels on them, and serves a session on
//! each.

use std::sync::Arc;

use iroh::endpoint::Incoming;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use vudo_crdt::ReplicaKey;

use crate::error::{Error, Result, random_bytes};
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::net::channel::Channel;
use crate::net::connection::Connection;
use crate::net::driver::{Driver, Progress, asked_to_leave};
use crate::net::inbox::Inbox;
use crate::net::node::Shared;
use crate::proto::Session;
use crate::ticket::short_id;

/// Accepts peers over QUIC until the node leaves, then waits for their sessions to end.
pub(super) async fn accept_quic(shared: Arc<Shared>, endpoint: iroh::Endpoint) {
    let mut leave = shared.leave.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            () = asked_to_leave(&mut leave) => break,
            Some(_) = connections.join_next() => continue,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let shared = shared.clone();
        connections.spawn(async move {
            if let Some(connection) = shake_hands(incoming).await {
                serve(shared, Connection::quic(connection)).await;
            }
        });
    }
    while connections.join_next().await.is_some() {}
}

pub(super) async fn shake_hands(incoming: Incoming) -> Option<iroh::endpoint::Connection> {
    let address = incoming.remote_addr();
    match timeout(HANDSHAKE_TIMEOUT, incoming).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::warn!(peer = ?address, reason = %error, "a peer was refused");
            None
        }
        Err(_) => {
            tracing::warn!(peer = ?address, reason = "it did not finish the handshake in time", "a peer was refused");
            None
        }
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, connection: Connection) {
    let Ok(permit) = shared.permits.clone().try_acquire_owned() else {
        let peer = short_id(&connection.peer);
        tracing::warn!(peer, reason = "as many are being served as may be", "a peer was refused");
        return;
    };
    serve_channels(&shared, connection).await;
    // Whoever shuts the node down waits for the permits and may then open the store again.
    drop(shared);
    drop(permit);
}

/// Serves a session on each channel that the peer opens.
async fn serve_channels(shared: &Arc<Shared>, connection: Connection) {
    let peer = short_id(&connection.peer);
    let connection = Arc::new(connection);
    let _registered = shared.register(&connection, true);
    tracing::info!(peer, link = connection.link_name(), "a peer connected");
    let mut leave = shared.leave.subscribe();
    let mut sessions: JoinSet<Result<()>> = JoinSet::new();
    loop {
        let is_idle = sessions.is_empty();
        tokio::select! {
            () = asked_to_leave(&mut leave) => break,
            Some(ended) = sessions.join_next() => {
                // A panic has told what it has to say.
                let Ok(Err(error)) = ended else { continue };
                tracing::warn!(peer, reason = %error, "a session ended");
                if matches!(error, Error::PeerMisbehaved { .. }) {
                    break;
                }
            }
            channel = connection.accept() => match channel {
                Some(channel) => {
                    sessions.spawn(session(shared.clone(), connection.clone(), channel));
                }
                None => break,
            },
            () = tokio::time::sleep(HANDSHAKE_TIMEOUT), if is_idle => {
                tracing::debug!(peer, reason = "it uses no namespace", "a connection was closed");
                break;
            }
        }
    }
    // Sessions learn from the node that they are to leave, or from the link that it has closed.
    if !*shared.leave.borrow() {
        connection.close();
    }
    while sessions.join_next().await.is_some() {}
    tracing::info!(peer, "a peer left");
}

async fn session(shared: Arc<Shared>, connection: Arc<Connection>, channel: Channel) -> Result<()> {
    let session = Session::server((shared.id, connection.peer), random_bytes()?)
        .with_schema(shared.database.schema());
    let progress = Arc::new(watch::Sender::new(Progress::default()));
    let (leave, peer) = (shared.leave.subscribe(), ReplicaKey(connection.peer));
    let inbox = Inbox::of(channel.receiver, progress.clone(), shared.message_room.clone());
    let channel = (channel.sender, inbox);
    let driver = Driver::new(session, peer, &shared, channel, progress, leave);
    drop(shared);
    match driver.run().await {
        // A peer may go without a word, and dials again when it wants to.
        Err(Error::Closed) => Ok(()),
        result => result,
    }
}
