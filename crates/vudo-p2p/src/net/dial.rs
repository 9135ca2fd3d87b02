//! Reaching the node behind a ticket.

use std::sync::{Arc, Weak};
use std::time::Duration;

use iroh::endpoint::{ConnectError, ConnectingError, ConnectionError, TransportErrorCode};
use iroh::{EndpointAddr, PublicKey};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::limits::{CONNECT_TIMEOUT, RELAYED_CONNECT_TIMEOUT};
use crate::net::connection::Connection;
use crate::net::mux::{Mux, Pipe};
use crate::net::node::Shared;
use crate::net::{ALPN, relay, server, websocket};
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
    Error::Unreachable { node: short_id(&ticket.node), seconds: quic_timeout(ticket).as_secs() }
}

/// How long QUIC is waited for.
fn quic_timeout(ticket: &Ticket) -> Duration {
    if ticket.relays.is_empty() { CONNECT_TIMEOUT } else { RELAYED_CONNECT_TIMEOUT }
}

/// Tries one way after the other. Gives what the last one said where none leads there.
async fn dial_addresses(shared: &Shared, ticket: &Ticket) -> Result<Connection> {
    let mut last = unreachable(ticket);
    if !ticket.addresses.is_empty() || !ticket.relays.is_empty() {
        match dial_quic(shared, ticket).await {
            Ok(Some(connection)) => return Ok(connection),
            Ok(None) => {}
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

/// Dials all addresses and over all relays at once: whichever answers first is taken, and where that was
/// a relay iroh goes over to a direct way when it finds one. It connects to a relay whether it knows it or
/// not: its map of relays says only where this node itself is to be found. `None` where this node does not
/// speak QUIC.
async fn dial_quic(shared: &Shared, ticket: &Ticket) -> Result<Option<Connection>> {
    let Some(endpoint) = shared.dialling_endpoint(ticket).await? else { return Ok(None) };
    let peer = PublicKey::from_bytes(&ticket.node)
        .map_err(|_| Error::BadTicket { what: "its node id is no key".to_owned() })?;
    let mut address = EndpointAddr::new(peer);
    for ip in &ticket.addresses {
        address = address.with_ip_addr(*ip);
    }
    for relay in &ticket.relays {
        // A ticket comes from outside. A relay that is none leaves the other ways as they are.
        match relay::parse(relay) {
            Ok(relay) => address = address.with_relay_url(relay),
            Err(error) if ticket.addresses.is_empty() && ticket.relays.len() == 1 => {
                return Err(Error::BadTicket { what: error.to_string() });
            }
            Err(error) => tracing::debug!("a relay of a ticket is left out: {error}"),
        }
    }
    match timeout(quic_timeout(ticket), endpoint.connect(address, ALPN)).await {
        Err(_) => Err(unreachable(ticket)),
        Ok(Err(error)) => Err(dial_error(&error, unreachable(ticket))),
        Ok(Ok(connection)) => Ok(Some(Connection::quic(connection))),
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
