//! What every attack needs: a victim, a way to it, and its log.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};
use tokio_tungstenite::tungstenite::Message as Datagram;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType, VersionVector};
use vudo_p2p::proto::{Effect, Event, Holdings, Message, Notice, Session};
use vudo_p2p::{Config, Node, Ticket};
use vudo_state::storage::MemoryStorage;
use vudo_state::{Database, OpenOptions, SystemEnvironment};

const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const SECRET: [u8; 32] = [5; 32];

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Write::write(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn start_log() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(|| LogWriter).init();
    });
}

pub(crate) fn task() -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Task", [title])
}

/// A store with documents of these keys, one to a change.
pub(crate) fn store(keys: &[&str]) -> Database {
    // Frames can end after every change.
    let database = Database::with_environment(
        Arc::new(MemoryStorage::default()),
        None,
        Arc::new(SystemEnvironment),
        &OpenOptions { segment_bytes: 1, ..OpenOptions::default() },
    )
    .unwrap();
    for key in keys {
        let fields = [("title", (*key).into())];
        database.create(&task(), &database.document_id(key), &fields).unwrap();
    }
    database
}

/// All changes of a store in one frame.
pub(crate) fn frame_of(database: &Database) -> Vec<u8> {
    let replication = database.replication(database.namespace()).unwrap();
    let frame = replication.frame_since(&VersionVector::new(), usize::MAX).unwrap();
    frame.expect("the store holds changes").bytes
}

/// Who is attacked.
pub(crate) struct Victim {
    pub(crate) database: Database,
    pub(crate) node: Node,
    pub(crate) ticket: Ticket,
    /// Attacks come one after the other, since some of them measure this process's memory.
    _alone: MutexGuard<'static, ()>,
}

impl Victim {
    pub(crate) async fn new(open: impl FnOnce() -> Database) -> Victim {
        static ALONE: AsyncMutex<()> = AsyncMutex::const_new(());
        let alone = ALONE.lock().await;
        start_log();
        let database = open();
        let address = "127.0.0.1:0".parse().unwrap();
        let config = Config { quic: None, websocket: Some(address), ..Config::default() };
        let node = Node::spawn(&database, config).await.unwrap();
        let ticket = node.share(database.namespace()).unwrap();
        Victim { database, node, ticket, _alone: alone }
    }

    /// Others are still served, and the victim holds what it held.
    pub(crate) async fn survives(self, key_count: usize) {
        let other = Database::open_in_memory().unwrap().in_namespace(&self.ticket.namespace);
        let client =
            Node::spawn(&other, Config { quic: None, websocket: None, ..Config::default() })
                .await
                .unwrap();
        let link = client.connect(&self.ticket).await.expect("others are still served");
        link.wait_until_synced(PATIENCE).await.unwrap();
        for database in [&self.database, &other] {
            assert_eq!(database.list(&task()).unwrap().len(), key_count);
        }
        client.shutdown().await;
        self.node.shutdown().await;
    }
}

/// A peer that says what it likes.
pub(crate) struct Attacker {
    id: [u8; 32],
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What has arrived on the channel and was not read yet.
    arrived: Vec<u8>,
    /// What was sent before the session was open.
    pub(crate) handshake: Vec<Message>,
}

impl Attacker {
    /// Connects under an id that the victim's log can be searched for.
    pub(crate) async fn connect(victim: &Victim, id: u8) -> Attacker {
        Attacker::connect_as(victim, [id; 32]).await
    }

    /// Connects under somebody's key, which a WebSocket does not prove.
    pub(crate) async fn connect_as(victim: &Victim, id: [u8; 32]) -> Attacker {
        let mut request = victim.ticket.urls[0].as_str().into_client_request().unwrap();
        let protocol = HeaderValue::from_static("vudo.sync.1");
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        socket.send(Datagram::Binary(id.to_vec().into())).await.unwrap();
        // The victim may show that it is there before it says who it is.
        while !matches!(socket.next().await, Some(Ok(Datagram::Binary(id))) if id.len() == 32) {}
        Attacker { id, socket, arrived: Vec::new(), handshake: Vec::new() }
    }

    /// Connects, and proves that it holds the secret.
    pub(crate) async fn trusted(victim: &Victim, id: u8, claimed: impl Into<Holdings>) -> Attacker {
        let mut attacker = Attacker::connect(victim, id).await;
        let ticket = &victim.ticket;
        let namespace = ticket.namespace.clone();
        let ids = (attacker.id, ticket.node);
        let mut session = Session::client(ids, [id; 32], namespace, ticket.access.clone(), claimed);
        let mut effects = session.handle(Event::Started, 0);
        loop {
            let mut is_authenticated = false;
            for effect in effects {
                match effect {
                    Effect::Send(message) => {
                        attacker.send(&message).await;
                        attacker.handshake.push(message);
                    }
                    Effect::Notify(Notice::Authenticated) => is_authenticated = true,
                    other => panic!("{other:?}"),
                }
            }
            if is_authenticated {
                return attacker;
            }
            let message = attacker.next().await.expect("the handshake goes on");
            effects = session.handle(Event::Received(message), 0);
        }
    }

    pub(crate) async fn send(&mut self, message: &Message) {
        let mut bytes = vec![0; 4];
        message.encode(&mut bytes);
        let length = bytes.len() as u32 - 4;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        self.send_bytes(&bytes).await;
    }

    /// Sends bytes on the first channel, in pieces.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(16 << 10) {
            self.send_piece([&[0][..], part].concat()).await;
        }
    }

    pub(crate) async fn send_piece(&mut self, piece: Vec<u8>) {
        // Where the victim has closed the connection the attack is over.
        let _ = self.socket.send(Datagram::Binary(piece.into())).await;
    }

    /// The next message; `None` when the victim has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((length, rest)) = self.arrived.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                if rest.len() >= length {
                    let message = Message::decode(&rest[..length]).unwrap();
                    self.arrived.drain(..4 + length);
                    return Some(message);
                }
            }
            let datagram = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match datagram.expect("the victim says something or goes") {
                // The first byte is the channel's.
                Some(Ok(Datagram::Binary(piece))) => self.arrived.extend_from_slice(&piece[1..]),
                Some(Ok(Datagram::Ping(_) | Datagram::Pong(_))) => {}
                _ => return None,
            }
        }
    }

    /// Does nothing but send pings. Gives whether the connection is closed within this time.
    pub(crate) async fn closes_though_it_pings(mut self, limit: Duration) -> bool {
        // An empty ping, masked with zeros, as the bytes of a WebSocket: a library would stop sending
        // where the other side has said that it closes.
        const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
        let MaybeTlsStream::Plain(stream) = self.socket.get_mut() else { return false };
        let pings = async {
            let mut bytes = [0; 256];
            loop {
                if stream.write_all(&PING).await.is_err() {
                    return;
                }
                let reading = tokio::time::timeout(Duration::from_millis(500), async {
                    // Nothing more comes where it gives no bytes.
                    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
                });
                if reading.await.is_ok() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, pings).await.is_ok()
    }

    /// Waits for the connection to close, and for its reason in the log.
    pub(crate) async fn expect_cut_off(mut self, reason: &str) {
        while self.next().await.is_some() {}
        let peer: String = self.id[..5].iter().map(|byte| format!("{byte:02x}")).collect();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let log = LOG.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let log = String::from_utf8_lossy(&log).into_owned();
            let is_told = |line: &str| line.contains(&peer) && line.contains(reason);
            if log.lines().any(is_told) {
                return;
            }
            let lines: Vec<&str> = log.lines().filter(|line| line.contains(&peer)).collect();
            let is_late = tokio::time::Instant::now() > deadline;
            assert!(!is_late, "'{reason}' is not in the log of {peer}: {lines:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Text that does not become smaller by compressing it.
pub(crate) fn noise(byte_count: usize) -> String {
    let mut random = vudo_testkit::Random::new(7);
    (0..byte_count).map(|_| char::from(b' ' + random.below(95) as u8)).collect()
}

/// How much memory this process uses, in bytes; zero where the system does not tell.
pub(crate) fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    kibibytes.and_then(|number| number.parse::<usize>().ok()).unwrap_or(0) << 10
}

/// The victim's session with a trusted attacker that claims to hold this, open, at time zero.
pub(crate) fn open_session(own: VersionVector, claimed: VersionVector) -> (Session, Vec<Effect>) {
    let (client_id, server_id) = ([1; 32], [2; 32]);
    let namespace = "default".to_owned();
    let mut attacker = Session::client((client_id, server_id), [3; 32], namespace, SECRET, claimed);
    let mut victim = Session::server((server_id, client_id), [4; 32]);
    let mut effects = attacker.handle(Event::Started, 0);
    for _ in 0..3 {
        let mut answers = Vec::new();
        for effect in effects {
            if let Effect::Send(message) = effect {
                answers.extend(victim.handle(Event::Received(message), 0));
            }
        }
        if answers.contains(&Effect::ReadShare("default".into())) {
            let share = Event::ShareReady { secret: Some(SECRET), held: own.clone().into() };
            answers.extend(victim.handle(share, 0));
        }
        effects = Vec::new();
        for effect in &answers {
            if let Effect::Send(message) = effect {
                effects.extend(attacker.handle(Event::Received(message.clone()), 0));
            }
        }
        if effects.iter().any(|effect| matches!(effect, Effect::Send(Message::Holdings(_)))) {
            break;
        }
    }
    let vector = effects.into_iter().find_map(|effect| match effect {
        Effect::Send(vector @ Message::Holdings(_)) => Some(vector),
        _ => None,
    });
    let opening = Event::Received(vector.expect("the attacker is trusted"));
    let effects = victim.handle(opening, 0);
    (victim, effects)
}

/// Some line of the log says both.
pub(crate) fn expect_in_log(who: &str, what: &str) {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let log = String::from_utf8_lossy(&log).into_owned();
    let is_told = |line: &str| line.contains(who) && line.contains(what);
    assert!(log.lines().any(is_told), "'{what}' of {who} is not in the log");
}
