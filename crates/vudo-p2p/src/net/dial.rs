//! Reaching the node behind a ticket.

use std::sync::{Arc, Weak};

use iroh::endpoint::{ConnectError, ConnectingError, ConnectionError, TransportErrorCode};
use iroh::{Endpoint, EndpointAddr, PublicKey};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::limits::CONNECT_TIMEOUT;
use crate::net::connection::Connection;
use crate::net::mux::{Mux, Pipe};
use crate::net::node::Shared;
use crate::net::{ALPN, server, websocket};
use crate::ticket::{Ticket, short_id};

/// The TLS alert of a peer that offers no protocol that was asked for (RFC 7301, section 3.2).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// How a link reaches its peer.
pub(super) enum Dialer {
    /// By the ticket's addresses: over QUIC where both sides speak it, else over WebSocket.
    Addresses,
    /// A node of the same process.
    InProcess(Weak<Shared>),
}

impl Dialer {
    pub(super) async fn dial(&self, shared: &Arc<Shared>, ticket: &Ticket) -> Result<Connection> {
        match self {
            Dialer::Addresses => dial_addresses(shared, ticket).await,
            Dialer::InProcess(peer) => {
                let peer = peer.upgrade().ok_or_else(|| unreachable(ticket))?;
                dial_in_process(shared, &peer, ticket)
            }
        }
    }
}

fn unreachable(ticket: &Ticket) -> Error {
    Error::Unreachable { node: short_id(&ticket.node), seconds: CONNECT_TIMEOUT.as_secs() }
}

/// Tries one way after the other. Gives what the last one said where none leads there.
async fn dial_addresses(shared: &Shared, ticket: &Ticket) -> Result<Connection> {
    let mut last = unreachable(ticket);
    if let Some(endpoint) = shared.endpoint.as_ref().filter(|_| !ticket.addresses.is_empty()) {
        match dial_quic(endpoint, ticket).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    for url in &ticket.urls {
        match websocket::dial(url, shared.id, ticket.node).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn dial_quic(endpoint: &Endpoint, ticket: &Ticket) -> Result<Connection> {
    let peer = PublicKey::from_bytes(&ticket.node)
        .map_err(|_| Error::BadTicket { what: "its node id is no key".to_owned() })?;
    let mut address = EndpointAddr::new(peer);
    for ip in &ticket.addresses {
        address = address.with_ip_addr(*ip);
    }
    match timeout(CONNECT_TIMEOUT, endpoint.connect(address, ALPN)).await {
        Err(_) => Err(unreachable(ticket)),
        Ok(Err(error)) => Err(dial_error(&error, unreachable(ticket))),
        Ok(Ok(connection)) => Ok(Connection::quic(connection)),
    }
}

/// Why dialling failed: somebody answered who speaks something else, or nobody did.
fn dial_error(error: &ConnectError, unreachable: Error) -> Error {
    let cause = match error {
        ConnectError::Connecting {
            source: ConnectingError::ConnectionError { source, .. },
            ..
        }
        | ConnectError::Connection { source, .. } => source,
        _ => return unreachable,
    };
    match cause {
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL) =>
        {
            Error::OtherProtocol
        }
        ConnectionError::VersionMismatch => Error::OtherProtocol,
        _ => unreachable,
    }
}

fn dial_in_process(shared: &Shared, peer: &Arc<Shared>, ticket: &Ticket) -> Result<Connection> {
    if *peer.leave.borrow() {
        return Err(unreachable(ticket));
    }
    let (near, far) = Pipe::pair();
    let (peer, own) = (peer.clone(), shared.id);
    let id = peer.id;
    tokio::spawn(async move {
        server::serve(peer, Connection::memory(Mux::new(far, &own, true), own)).await;
    });
    Ok(Connection::memory(Mux::new(near, &id, false), id))
}
