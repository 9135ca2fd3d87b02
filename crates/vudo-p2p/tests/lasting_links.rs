//! What a link outlives, and what ends it.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use iroh::endpoint::{Connection, QuicTransportConfig, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType, VersionVector};
use vudo_p2p::limits::{FRAME_BYTES, UNACKNOWLEDGED_FRAMES_MAX};
use vudo_p2p::proto::{Access, Effect, Event, GoodbyeCode, Message, Notice, Session};
use vudo_p2p::{ALPN, Config, Error, Link, Node, Ticket};
use vudo_state::{Database, Durability};

const PATIENCE: Duration = Duration::from_secs(30);
const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const SECRET: [u8; 32] = [5; 32];

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
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

/// The lines of the log about a peer.
fn log_of(peer: &[u8; 32]) -> Vec<String> {
    let peer: String = peer[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let log = String::from_utf8_lossy(&log).into_owned();
    log.lines().filter(|line| line.contains(&peer)).map(str::to_owned).collect()
}

fn task() -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Task", [title])
}

fn memory() -> Database {
    Database::open_in_memory().unwrap()
}

fn create(database: &Database, key: &str) {
    let fields = [("title", key.into())];
    database.create(&task(), &database.document_id(key), &fields).unwrap();
}

fn keys(database: &Database) -> Vec<String> {
    database.list(&task()).unwrap().into_iter().map(|record| record.key).collect()
}

async fn websocket_server(database: &Database, address: SocketAddr) -> Node {
    let config = Config { quic: None, websocket: Some(address), ..Config::default() };
    Node::spawn(database, config).await.unwrap()
}

/// A node that nobody can dial over TCP.
async fn quic_node(database: &Database) -> Node {
    Node::spawn(database, Config::loopback()).await.unwrap()
}

async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a link that must not be opened says.
async fn refused(node: &Node, ticket: &Ticket) -> Error {
    match node.connect(ticket).await {
        Ok(_) => panic!("the link was opened"),
        Err(error) => error,
    }
}

/// What a proxy does with a connection.
#[derive(Clone, Copy, Debug)]
enum Treatment {
    Forward,
    /// Answers with this status in place of the server.
    Answer(&'static str),
    /// Brings no more of what the server says than its HTTP answer and so many bytes.
    Withhold {
        after_bytes: usize,
    },
}

/// What a server sends before a session: its greeting, and a ping, each with two bytes in front.
const GREETING_BYTES: usize = 2 + 32 + 2;

/// Stands in front of a server, as a proxy with TLS would.
struct Proxy {
    address: SocketAddr,
    /// How the next connections are treated; the last one stays.
    treatments: Arc<Mutex<VecDeque<Treatment>>>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    async fn before(server: SocketAddr, treatments: &[Treatment]) -> Proxy {
        let listener = TcpListener::bind(ANY_PORT).await.unwrap();
        let address = listener.local_addr().unwrap();
        let treatments = Arc::new(Mutex::new(treatments.iter().copied().collect::<VecDeque<_>>()));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (next, accepted) = (treatments.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let mut next = next.lock().unwrap();
                let treatment =
                    if next.len() > 1 { next.pop_front() } else { next.front().copied() };
                let treating = tokio::spawn(treat(client, server, treatment.unwrap()));
                accepted.lock().unwrap().push(treating);
            }
        });
        Proxy { address, treatments, connections, accepting }
    }

    /// The ticket of a server behind the proxy.
    fn ticket(&self, server: &Node) -> Ticket {
        let urls = vec![format!("ws://{}/sync", self.address)];
        Ticket { urls, addresses: Vec::new(), ..server.share("default").unwrap() }
    }

    /// Drops every connection, and treats the next ones in this way.
    fn restart(&self, treatments: &[Treatment]) {
        *self.treatments.lock().unwrap() = treatments.iter().copied().collect();
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// How many treatments have not had their turn.
    fn left_count(&self) -> usize {
        self.treatments.lock().unwrap().len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.restart(&[]);
    }
}

async fn treat(mut client: TcpStream, server: SocketAddr, treatment: Treatment) {
    // Either side may go at any time.
    match treatment {
        Treatment::Forward => {
            let Ok(mut server) = TcpStream::connect(server).await else { return };
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
        Treatment::Answer(status) => {
            let mut request = [0; 4096];
            let _ = client.read(&mut request).await;
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _ = client.write_all(answer.as_bytes()).await;
        }
        Treatment::Withhold { after_bytes } => {
            let server = TcpStream::connect(server).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let asking = tokio::io::copy(&mut from_client, &mut to_server);
            let answering = async {
                let mut answer = Vec::new();
                let end = loop {
                    answer.push(from_server.read_u8().await.unwrap());
                    if answer.ends_with(b"\r\n\r\n") {
                        break answer.len() + after_bytes;
                    }
                };
                while answer.len() < end {
                    answer.push(from_server.read_u8().await.unwrap());
                }
                to_client.write_all(&answer).await.unwrap();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = asking => {}
                () = answering => {}
            }
        }
    }
}

/// A proxy that is being started again says that the server is not there; a machine under load is late
/// with all that it has to say. Both pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_outlives_a_proxy_without_its_server_and_a_server_that_is_late() {
    use Treatment::{Answer, Forward, Withhold};
    let (left, right) = (memory(), memory());
    let server = websocket_server(&left, ANY_PORT).await;
    let client = quic_node(&right).await;
    let proxy = Proxy::before(server.websocket_address().unwrap(), &[Forward]).await;
    let link = client.connect(&proxy.ticket(&server)).await.unwrap();
    link.wait_until_synced(PATIENCE).await.unwrap();
    let troubles = [
        [Answer("503 Service Unavailable"), Answer("502 Bad Gateway")],
        [Answer("429 Too Many Requests"), Answer("504 Gateway Timeout")],
        // It does not say who it is, or says so and nothing else.
        [Withhold { after_bytes: 0 }, Withhold { after_bytes: GREETING_BYTES }],
    ];
    for (number, [first, second]) in troubles.into_iter().enumerate() {
        proxy.restart(&[first, second, Forward]);
        let key = format!("written during trouble {number}");
        create(&right, &key);
        wait_for(&key, || keys(&left).contains(&key)).await;
        assert_eq!(proxy.left_count(), 1, "each trouble was met");
        link.wait_until_synced(PATIENCE).await.unwrap();
    }
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_dial_is_told_that_the_server_is_not_ready() {
    let (left, right) = (memory(), memory());
    let server = websocket_server(&left, ANY_PORT).await;
    let client = quic_node(&right).await;
    let treatments = [
        (Treatment::Answer("503 Service Unavailable"), "503"),
        (Treatment::Withhold { after_bytes: 0 }, "the greeting"),
        (Treatment::Withhold { after_bytes: GREETING_BYTES }, "the handshake"),
    ];
    for (treatment, said) in treatments {
        let proxy = Proxy::before(server.websocket_address().unwrap(), &[treatment]).await;
        let error = refused(&client, &proxy.ticket(&server)).await;
        assert!(matches!(&error, Error::NotReady { what } if what.contains(said)), "{error}");
    }
    client.shutdown().await;
    server.shutdown().await;
}

/// A peer that has been upgraded may be taken back, and a proxy may lose its server for a while: the link
/// dials on, and says meanwhile what it meets.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_peer_speaks_something_else_says_so_and_goes_on_trying() {
    start_log();
    let (left, right) = (memory(), memory());
    let server = websocket_server(&left, ANY_PORT).await;
    let client = quic_node(&right).await;
    let proxy = Proxy::before(server.websocket_address().unwrap(), &[Treatment::Forward]).await;
    let link = client.connect(&proxy.ticket(&server)).await.unwrap();
    link.wait_until_synced(PATIENCE).await.unwrap();
    proxy.restart(&[Treatment::Answer("404 Not Found")]);
    create(&right, "written meanwhile");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match link.wait_until_synced(Duration::from_millis(100)).await {
            Err(Error::OtherProtocol) => break,
            Err(Error::Timeout { .. }) => assert!(Instant::now() < deadline, "nothing is said"),
            other => panic!("{other:?}"),
        }
    }
    let told = log_of(&left.replica_key().0);
    assert!(told.iter().any(|line| line.contains("does not speak this version")), "{told:#?}");
    proxy.restart(&[Treatment::Forward]);
    link.wait_until_synced(PATIENCE).await.unwrap();
    assert_eq!(keys(&left), ["written meanwhile"]);
    client.shutdown().await;
    server.shutdown().await;
}

/// A server that does what it likes once it has let somebody in.
struct StandIn {
    endpoint: iroh::Endpoint,
}

impl StandIn {
    /// One that takes so many streams of a connection.
    async fn new(streams_max: u32) -> StandIn {
        let transport = QuicTransportConfig::builder()
            .max_concurrent_bidi_streams(VarInt::from_u32(streams_max))
            .build();
        let builder = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
            .relay_mode(iroh::RelayMode::Disabled)
            .alpns(vec![ALPN.to_vec()])
            .transport_config(transport)
            .clear_ip_transports();
        let endpoint = builder.bind_addr("127.0.0.1:0").unwrap().bind().await.unwrap();
        StandIn { endpoint }
    }

    fn ticket(&self, namespace: &str) -> Ticket {
        Ticket {
            node: *self.endpoint.id().as_bytes(),
            addresses: self.endpoint.bound_sockets(),
            urls: Vec::new(),
            relays: Vec::new(),
            namespace: namespace.to_owned(),
            access: Access::Secret(SECRET),
        }
    }

    async fn accept(&self) -> Connection {
        self.endpoint.accept().await.unwrap().await.unwrap()
    }

    /// Lets a client in on the next stream that it opens.
    async fn let_in(&self, connection: &Connection) -> (SendStream, RecvStream) {
        let (mut sender, mut receiver) = connection.accept_bi().await.unwrap();
        let ids = (*self.endpoint.id().as_bytes(), *connection.remote_id().as_bytes());
        let mut session = Session::server(ids, [4; 32]);
        loop {
            let mut events = VecDeque::from([Event::Received(receive(&mut receiver).await)]);
            let mut is_authenticated = false;
            while let Some(event) = events.pop_front() {
                for effect in session.handle(event, 0) {
                    match effect {
                        Effect::Send(message) => send(&mut sender, &message).await,
                        Effect::ReadShare(_) => events.push_back(Event::ShareReady {
                            secret: Some(SECRET),
                            held: VersionVector::new().into(),
                        }),
                        Effect::Notify(Notice::Authenticated) => is_authenticated = true,
                        other => panic!("{other:?}"),
                    }
                }
            }
            if is_authenticated {
                return (sender, receiver);
            }
        }
    }
}

async fn send(sender: &mut SendStream, message: &Message) {
    let mut bytes = vec![0; 4];
    message.encode(&mut bytes);
    let length = bytes.len() as u32 - 4;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    sender.write_all(&bytes).await.unwrap();
}

async fn receive(receiver: &mut RecvStream) -> Message {
    let mut length = [0; 4];
    receiver.read_exact(&mut length).await.unwrap();
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    receiver.read_exact(&mut bytes).await.unwrap();
    Message::decode(&bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_ends_by_itself_leaves_its_reason_in_the_log() {
    start_log();
    let client = quic_node(&memory()).await;
    let stand_in = StandIn::new(8).await;
    let ticket = stand_in.ticket("default");
    let serving = async {
        let connection = stand_in.accept().await;
        let (mut sender, receiver) = stand_in.let_in(&connection).await;
        sender.write_all(b"\x05\x00\x00\x00what?").await.unwrap();
        (connection, sender, receiver)
    };
    let (link, _held) = tokio::join!(client.connect(&ticket), serving);
    let error = link.unwrap().wait_until_synced(PATIENCE).await.unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved { .. }), "{error}");
    let told = log_of(&ticket.node);
    let is_told = |line: &String| line.contains("a link ended") && line.contains("malformed");
    assert!(told.iter().any(is_told), "{told:#?}");
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_no_more_channels_holds_nobody_up() {
    let client = quic_node(&memory()).await;
    let stand_in = StandIn::new(2).await;
    let serving = async {
        let connection = stand_in.accept().await;
        let first = stand_in.let_in(&connection).await;
        let second = stand_in.let_in(&connection).await;
        (connection, first, second)
    };
    let tickets = ["first", "second", "third"].map(|namespace| stand_in.ticket(namespace));
    let connecting = async {
        let first = client.connect(&tickets[0]).await.unwrap();
        (first, client.connect(&tickets[1]).await.unwrap())
    };
    let ((first, second), mut held) = tokio::join!(connecting, serving);
    let third = tokio::time::timeout(PATIENCE, refused(&client, &tickets[2])).await;
    let error = third.expect("who asks for another channel is answered");
    assert!(matches!(error, Error::TooManyChannels), "{error}");

    // The peer leaves one session and keeps its stream, so that the link cannot open another one.
    send(&mut held.2.0, &Message::Goodbye(GoodbyeCode::Done)).await;
    wait_for("the second link has lost its session", || !second.is_connected()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(first.is_connected() && !second.is_connected());
    let start = Instant::now();
    tokio::time::timeout(PATIENCE, second.close()).await.expect("a link can always be closed");
    println!("the link was closed within {:?}", start.elapsed());
    tokio::time::timeout(PATIENCE, first.close()).await.expect("a link can always be closed");
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_quic_connection_carries_more_than_a_hundred_namespaces() {
    const NAMESPACES: usize = 120;
    let (left, right) = (memory(), memory());
    let (server, client) = (quic_node(&left).await, quic_node(&right).await);
    let names: Vec<String> = (0..NAMESPACES).map(|number| format!("space-{number}")).collect();
    let mut links: Vec<Link> = Vec::new();
    for name in &names {
        create(&left.in_namespace(name), name);
        let link = client.connect(&server.share(name).unwrap()).await.unwrap();
        links.push(link);
    }
    for (link, name) in links.iter().zip(&names) {
        link.wait_until_synced(PATIENCE).await.unwrap();
        assert_eq!(keys(&right.in_namespace(name)), [name.as_str()]);
    }
    assert_eq!(server.peers().len(), 1, "all of them use one connection");
    for link in links {
        tokio::time::timeout(PATIENCE, link.close()).await.expect("a link can always be closed");
    }
    client.shutdown().await;
    server.shutdown().await;
}

/// A server in a runtime of its own, which ends without a word where that does.
struct MortalServer {
    runtime: tokio::runtime::Runtime,
    database: Database,
    node: Node,
}

impl MortalServer {
    fn start(folder: &Path, address: SocketAddr) -> MortalServer {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        let database = Database::open(folder).unwrap();
        let node = runtime.block_on(websocket_server(&database, address));
        MortalServer { runtime, database, node }
    }

    fn held_count(&self) -> u64 {
        let replication = self.database.replication("default").unwrap();
        replication.durable_vector().change_count()
    }

    /// Stops everything where it is. Nobody is told goodbye.
    fn kill(self) {
        self.runtime.shutdown_timeout(PATIENCE);
        drop((self.node, self.database));
    }
}

/// What a server holds durably when it is killed does not have to be sent again, but for frames that it
/// had not acknowledged.
#[test]
fn a_transfer_goes_on_where_it_was_when_the_server_was_killed() {
    const CHANGES: u64 = 8_000;
    const TITLE_BYTES: usize = 2_000;
    const UNACKNOWLEDGED_CHANGES_MAX: u64 =
        (UNACKNOWLEDGED_FRAMES_MAX * FRAME_BYTES / TITLE_BYTES) as u64;
    let folder = tempfile::tempdir().unwrap();
    let store = memory();
    let writer = store.with_durability(Durability::Eventual);
    let mut random = vudo_testkit::Random::new(7);
    for number in 0..CHANGES {
        let title: String =
            (0..TITLE_BYTES).map(|_| char::from(b' ' + random.below(95) as u8)).collect();
        let id = writer.document_id(&number.to_string());
        writer.create(&task(), &id, &[("title", title.as_str().into())]).unwrap();
    }
    writer.flush().unwrap();

    let server = MortalServer::start(folder.path(), ANY_PORT);
    let address = server.node.websocket_address().unwrap();
    let ticket = server.node.share("default").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, link) = runtime.block_on(async {
        let client = quic_node(&store).await;
        let link = client.connect(&ticket).await.unwrap();
        (client, link)
    });
    let deadline = Instant::now() + PATIENCE;
    while server.held_count() < 2 * UNACKNOWLEDGED_CHANGES_MAX {
        assert!(Instant::now() < deadline, "only {} arrived", server.held_count());
        std::thread::sleep(Duration::from_millis(1));
    }
    server.kill();

    let server = MortalServer::start(folder.path(), address);
    let held_count = server.held_count();
    println!("{held_count} of {CHANGES} changes were held when the server was killed");
    assert!(held_count < CHANGES, "the server was killed in the middle");
    assert!(held_count >= 2 * UNACKNOWLEDGED_CHANGES_MAX, "what was durable is there");
    let report = runtime.block_on(link.wait_until_synced(PATIENCE)).unwrap();
    let again_count = report.sent_changes - CHANGES;
    println!("{again_count} changes were sent again");
    assert!(again_count <= UNACKNOWLEDGED_CHANGES_MAX, "{again_count} changes were sent again");
    assert_eq!(server.held_count(), CHANGES);
    runtime.block_on(client.shutdown());
    server.kill();
}
