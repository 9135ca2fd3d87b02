//! Links over WebSocket: for whoever cannot speak QUIC, and for servers behind an HTTP proxy.
//!
//! One WebSocket carries one [`Pipe`]; each binary message is a piece. As the first message either
//! side says which node it is, which the proofs of every session are bound to. What is sent is not
//! encrypted here: over networks that others can read, a proxy has to add TLS, and the address
//! begins with `wss://`.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message as ServerMessage, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message as ClientMessage};

use crate::error::{Error, Result};
use crate::limits::{
    CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE_INTERVAL, PIECE_BYTES,
    PIECE_HEADER_BYTES_MAX,
};
use crate::net::arrivals::{Arrival, ArrivalListener, Greeter};
use crate::net::connection::Connection;
use crate::net::mux::{Mux, Pipe};
use crate::net::node::Shared;
use crate::net::server;
use crate::proto::{NodeId, read_greeting};
use crate::ticket::short_id;

/// The WebSocket subprotocol; the number changes with the protocol's version.
const SUBPROTOCOL: &str = "vudo.sync.1";
/// Where the server answers.
pub(super) const SYNC_PATH: &str = "/sync";
const HEALTH_PATH: &str = "/health";
/// The largest WebSocket message: a piece.
const MESSAGE_BYTES_MAX: usize = PIECE_BYTES + PIECE_HEADER_BYTES_MAX;

/// Dials a server, given by its URL, that is to be this node.
pub(super) async fn dial(url: &str, own: NodeId, peer: NodeId) -> Result<Connection> {
    let malformed = || Error::BadTicket { what: format!("'{url}' is no WebSocket address") };
    let mut request = url.into_client_request().map_err(|_| malformed())?;
    let protocol = HeaderValue::from_static(SUBPROTOCOL);
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let dialling = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
    let unreachable =
        || Error::Unreachable { node: short_id(&peer), seconds: CONNECT_TIMEOUT.as_secs() };
    let dialled = timeout(CONNECT_TIMEOUT, dialling).await.map_err(|_| unreachable())?;
    let (socket, _) = dialled.map_err(|error| dial_error(&error, unreachable()))?;
    let mut pipe = carry(
        socket,
        |piece| ClientMessage::Binary(piece.into()),
        || ClientMessage::Ping(Vec::new().into()),
        |message| match message {
            ClientMessage::Binary(piece) => Some(piece.to_vec()),
            _ => None,
        },
    );
    if greet(&mut pipe, own).await? != peer {
        return Err(Error::WrongNode { node: short_id(&peer) });
    }
    Ok(Connection::websocket(Mux::new(pipe, &peer, false), peer))
}

/// Why dialling failed: nobody answered, somebody who is not ready, or somebody who speaks something
/// else. A proxy answers in place of a server that is being started again.
fn dial_error(error: &WebSocketError, unreachable: Error) -> Error {
    match error {
        WebSocketError::Io(_) => unreachable,
        WebSocketError::Http(response) if is_passing(response.status()) => {
            Error::NotReady { what: format!("it answers with HTTP status {}", response.status()) }
        }
        WebSocketError::ConnectionClosed
        | WebSocketError::AlreadyClosed
        | WebSocketError::Protocol(
            ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
        ) => Error::NotReady { what: "it hung up before it had answered".to_owned() },
        _ => Error::OtherProtocol,
    }
}

/// Whether a server that answers with this status may answer with another one later.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY
        )
}

/// Says which node this is, and hears which one the peer is.
async fn greet(pipe: &mut Pipe, own: NodeId) -> Result<NodeId> {
    pipe.outgoing.send(own.to_vec()).await.map_err(|_| Error::Closed)?;
    let greeting = timeout(HANDSHAKE_TIMEOUT, pipe.incoming.recv()).await;
    let greeting = greeting.map_err(|_| Error::late("the greeting"))?.ok_or(Error::Closed)?;
    read_greeting(&greeting).ok_or(Error::OtherProtocol)
}

/// Serves WebSockets until the node leaves.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let listener = ArrivalListener::new(listener);
    let router = Router::new()
        .route(SYNC_PATH, get(upgrade))
        .route(HEALTH_PATH, get(health))
        .with_state(Arc::downgrade(&shared))
        .into_make_service_with_connect_info::<Greeter>();
    let mut leave = shared.leave.subscribe();
    // Connections outlive this: they must not keep the store open.
    drop(shared);
    let leaving = async move {
        let _ = leave.wait_for(|leaves| *leaves).await;
    };
    // A connection that only just began may still be sending its request: it is not waited for.
    let serving = axum::serve(listener, router).with_graceful_shutdown(leaving);
    if let Err(error) = serving.await {
        tracing::error!(%error, "the WebSocket server stopped");
    }
}

/// What an operator, or a load balancer, wants to know.
async fn health(State(shared): State<Weak<Shared>>) -> impl IntoResponse {
    let Some(shared) = shared.upgrade() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let health = format!(
        "{{\"status\":\"ok\",\"node\":\"{}\",\"connections\":{}}}\n",
        short_id(&shared.id),
        shared.peers().len()
    );
    ([(CONTENT_TYPE, "application/json")], health).into_response()
}

async fn upgrade(
    State(shared): State<Weak<Shared>>,
    ConnectInfo(Greeter(arrival)): ConnectInfo<Greeter>,
    upgrade: WebSocketUpgrade,
) -> impl IntoResponse {
    upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(async move |socket| accept(shared, arrival, socket).await)
}

async fn accept(shared: Weak<Shared>, arrival: Arc<Arrival>, socket: WebSocket) {
    let Some(shared) = shared.upgrade() else { return };
    let mut pipe = carry(
        socket,
        |piece| ServerMessage::Binary(piece.into()),
        || ServerMessage::Ping(Vec::new().into()),
        |message| match message {
            ServerMessage::Binary(piece) => Some(piece.to_vec()),
            _ => None,
        },
    );
    match greet(&mut pipe, shared.id).await {
        Ok(peer) => {
            arrival.greeted();
            server::serve(shared, Connection::websocket(Mux::new(pipe, &peer, true), peer)).await
        }
        Err(error) => tracing::warn!(%error, "a WebSocket peer was cut off"),
    }
}

/// Carries pieces over a WebSocket, in tasks that end with it.
fn carry<S, M, E>(
    socket: S,
    binary: fn(Vec<u8>) -> M,
    ping: fn() -> M,
    content: fn(M) -> Option<Vec<u8>>,
) -> Pipe
where
    S: Stream<Item = std::result::Result<M, E>> + Sink<M> + Send + 'static,
    M: Send + 'static,
    E: Display + Send + 'static,
{
    let (pipe, outgoing, incoming) = Pipe::new();
    let (sink, stream) = socket.split();
    tokio::spawn(write(sink, outgoing, binary, ping));
    tokio::spawn(read(stream, incoming, content));
    pipe
}

/// Sends pieces until nobody has any more to send, and shows in between that this side is there.
async fn write<M>(
    mut sink: impl Sink<M> + Unpin,
    mut outgoing: mpsc::Receiver<Vec<u8>>,
    binary: fn(Vec<u8>) -> M,
    ping: fn() -> M,
) {
    let mut alive = interval(KEEP_ALIVE_INTERVAL);
    loop {
        let message = tokio::select! {
            biased;
            piece = outgoing.recv() => match piece {
                Some(piece) => binary(piece),
                None => break,
            },
            _ = alive.tick() => ping(),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
    // The peer may have gone already, and then knows.
    let _ = timeout(Duration::from_secs(1), sink.close()).await;
}

/// Receives pieces until the peer goes or has been silent for too long, and for a while only once nobody
/// takes them any more: pings alone would keep the connection for ever.
async fn read<M, E: Display>(
    stream: impl Stream<Item = std::result::Result<M, E>> + Unpin,
    incoming: mpsc::Sender<Vec<u8>>,
    content: fn(M) -> Option<Vec<u8>>,
) {
    let is_over = async {
        incoming.closed().await;
        sleep(IDLE_TIMEOUT).await;
    };
    tokio::select! {
        () = receive(stream, &incoming, content) => {}
        () = is_over => {}
    }
}

async fn receive<M, E: Display>(
    mut stream: impl Stream<Item = std::result::Result<M, E>> + Unpin,
    incoming: &mpsc::Sender<Vec<u8>>,
    content: fn(M) -> Option<Vec<u8>>,
) {
    while let Ok(Some(message)) = timeout(IDLE_TIMEOUT, stream.next()).await {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                tracing::info!(reason = %error, "a WebSocket broke");
                return;
            }
        };
        // Pings and pongs only show that the peer is there.
        if let Some(piece) = content(message)
            && incoming.send(piece).await.is_err()
        {
            return;
        }
    }
}

/// Where a server that listens there is found.
pub(super) fn url_of(address: SocketAddr) -> String {
    format!("ws://{address}{SYNC_PATH}")
}
