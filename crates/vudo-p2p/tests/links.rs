//! Nodes over WebSocket on loopback, and nodes of one process.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
use vudo_p2p::limits::{ARRIVAL_TIME_MAX, ARRIVALS_MAX};
use vudo_p2p::proto::Access;
use vudo_p2p::{Config, Error, Link, Node, Ticket};
use vudo_state::{Database, Durability};

const PATIENCE: Duration = Duration::from_secs(20);
const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

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

async fn websocket_server(database: &Database) -> Node {
    websocket_server_at(database, ANY_PORT).await
}

async fn websocket_server_at(database: &Database, address: SocketAddr) -> Node {
    let config = Config { quic: None, websocket: Some(address), ..Config::default() };
    Node::spawn(database, config).await.unwrap()
}

/// A node that nobody can dial.
async fn client(database: &Database) -> Node {
    Node::spawn(database, Config { quic: None, websocket: None, ..Config::default() })
        .await
        .unwrap()
}

async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_converge_over_websocket_and_push_what_is_new() {
    let (left, right) = (memory(), memory());
    create(&left, "left");
    create(&right, "right");
    let (server, client) = (websocket_server(&left).await, client(&right).await);
    let ticket: Ticket = server.share("default").unwrap().to_string().parse().unwrap();
    assert!(ticket.urls[0].starts_with("ws://127.0.0.1:"), "{ticket:?}");
    let link = client.connect(&ticket).await.unwrap();
    let report = link.wait_until_synced(PATIENCE).await.unwrap();
    assert_eq!((report.sent_changes, report.received_changes), (1, 1));
    for (from, to, key) in [(&left, &right, "a"), (&right, &left, "b")] {
        create(from, key);
        wait_for("the change is pushed", || keys(to).iter().any(|held| held == key)).await;
    }
    assert_eq!(server.peers()[0].link, "websocket");
    link.close().await;
    client.shutdown().await;
    server.shutdown().await;
}

/// What the peer has acknowledged leaves the outbox.
#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_empties_as_the_peer_acknowledges() {
    let (left, right) = (memory(), memory());
    create(&right, "written offline");
    assert_eq!(right.outbox().unwrap().pending_count(), 1);
    let (server, client) = (websocket_server(&left).await, client(&right).await);
    let link = client.connect(&server.share("default").unwrap()).await.unwrap();
    wait_for("the outbox is empty", || right.outbox().unwrap().pending_count() == 0).await;
    let acknowledged = right.outbox().unwrap().peers();
    assert_eq!(acknowledged, [(left.replica_key(), 1)]);
    link.close().await;
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_comes_back_when_the_server_does() {
    let folder = tempfile::tempdir().unwrap();
    let (left, right) = (Database::open(folder.path()).unwrap(), memory());
    let (server, client) = (websocket_server(&left).await, client(&right).await);
    let ticket = server.share("default").unwrap();
    let address = server.websocket_address().unwrap();
    let link = client.connect(&ticket).await.unwrap();
    link.wait_until_synced(PATIENCE).await.unwrap();
    server.shutdown().await;
    drop(left);
    create(&right, "offline");

    let left = Database::open(folder.path()).unwrap();
    let server = websocket_server_at(&left, address).await;
    let start = Instant::now();
    wait_for("the server has the change", || keys(&left) == ["offline"]).await;
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    link.wait_until_synced(PATIENCE).await.unwrap();
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_serves_sixty_peers_at_once() {
    const PEERS: usize = 60;
    let hub_store = memory();
    let hub = websocket_server(&hub_store).await;
    let ticket = hub.share("default").unwrap();
    let stores: Vec<Database> = (0..PEERS).map(|_| memory()).collect();
    let mut peers: Vec<(Node, Link)> = Vec::new();
    for (number, store) in stores.iter().enumerate() {
        create(store, &format!("{number:02}"));
        let node = client(store).await;
        let link = node.connect(&ticket).await.unwrap();
        peers.push((node, link));
    }
    wait_for("everybody has everything", || {
        stores.iter().all(|store| store.list(&task()).unwrap().len() == PEERS)
    })
    .await;
    for (_, link) in &peers {
        link.wait_until_synced(PATIENCE).await.unwrap();
    }
    assert_eq!(hub.peers().len(), PEERS);
    for (node, link) in peers {
        link.close().await;
        node.shutdown().await;
    }
    wait_for("nobody is left", || hub.peers().is_empty()).await;
    hub.shutdown().await;
}

/// How many bulky documents there are, and how many of them may arrive before a small change that was
/// made while they were on their way. What is queued between two stores, and arrives while the small
/// one's session begins, is a few dozen.
const BULKY_COUNT: usize = 2_000;
const BULKY_BEFORE_SMALL_MAX: usize = 500;

/// Fills a namespace called `bulk` with 20 MB that do not become smaller by compressing them.
fn fill_with_bulk(database: &Database) {
    let bulk = database.in_namespace("bulk").with_durability(Durability::Eventual);
    let mut random = vudo_testkit::Random::new(7);
    let text: String = (0..10_000).map(|_| char::from(b' ' + random.below(95) as u8)).collect();
    for number in 0..BULKY_COUNT {
        let id = bulk.document_id(&number.to_string());
        bulk.create(&task(), &id, &[("title", text.as_str().into())]).unwrap();
    }
    bulk.flush().unwrap();
}

/// Waits for a first small change in one store, and looks how much of the bulk another one had by then.
async fn expect_before_bulk(what: &str, small: &Database, bulky: &Database) {
    wait_for("the small change is there", || !keys(small).is_empty()).await;
    let held = bulky.in_namespace("bulk").list(&task()).unwrap().len();
    println!("{what}: {held} of {BULKY_COUNT} bulky documents came before the small one");
    assert!(held < BULKY_BEFORE_SMALL_MAX, "{what}: the small change waited for {held} bulky ones");
}

/// A namespace with much to send must not keep another one on the same connection waiting.
#[tokio::test(flavor = "multi_thread")]
async fn namespaces_share_a_connection_fairly() {
    let left = memory();
    fill_with_bulk(&left);
    for way in ["memory", "websocket", "quic"] {
        let target = memory();
        let config = match way {
            "quic" => Config::loopback(),
            _ => Config { quic: None, websocket: Some(ANY_PORT), ..Config::default() },
        };
        let server = Node::spawn(&left, config.clone()).await.unwrap();
        let client = Node::spawn(&target, config).await.unwrap();
        let connect = async |namespace: &str| {
            let ticket = server.share(namespace).unwrap();
            match way {
                "memory" => client.connect_in_process(&server, &ticket).await.unwrap(),
                _ => client.connect(&ticket).await.unwrap(),
            }
        };
        let slow = connect("bulk").await;
        let quick = connect("default").await;
        let links: Vec<&str> = server.peers().iter().map(|peer| peer.link).collect();
        assert_eq!(links, [way], "both namespaces use one connection");
        create(&left, way);
        expect_before_bulk(way, &target, &target).await;
        quick.wait_until_synced(PATIENCE).await.unwrap();
        slow.wait_until_synced(PATIENCE).await.unwrap();
        client.shutdown().await;
        server.shutdown().await;
    }
}

/// A peer that takes much must not keep another one that takes little waiting.
#[tokio::test(flavor = "multi_thread")]
async fn peers_share_a_server_fairly() {
    let left = memory();
    fill_with_bulk(&left);
    for config in
        [Config::loopback(), Config { quic: None, websocket: Some(ANY_PORT), ..Config::default() }]
    {
        let (bulky, small) = (memory(), memory());
        let server = Node::spawn(&left, config.clone()).await.unwrap();
        let clients = [
            Node::spawn(&bulky, config.clone()).await.unwrap(),
            Node::spawn(&small, config).await.unwrap(),
        ];
        let slow = clients[0].connect(&server.share("bulk").unwrap()).await.unwrap();
        let quick = clients[1].connect(&server.share("default").unwrap()).await.unwrap();
        let links: Vec<&str> = server.peers().iter().map(|peer| peer.link).collect();
        assert_eq!(links.len(), 2, "each peer has a connection");
        create(&left, links[0]);
        expect_before_bulk(links[0], &small, &bulky).await;
        quick.wait_until_synced(PATIENCE).await.unwrap();
        slow.wait_until_synced(PATIENCE).await.unwrap();
        for client in clients {
            client.shutdown().await;
        }
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_websocket_is_told() {
    let (left, right) = (memory(), memory());
    let (server, client) = (websocket_server(&left).await, client(&right).await);
    let ticket = server.share("default").unwrap();
    let refused = async |ticket: Ticket| match client.connect(&ticket).await {
        Ok(_) => panic!("the link was opened"),
        Err(error) => error,
    };
    let forged = Ticket { access: Access::Secret([1; 32]), ..ticket.clone() };
    assert!(matches!(refused(forged).await, Error::WrongSecret));
    let other = Ticket { node: [9; 32], ..ticket.clone() };
    assert!(matches!(refused(other).await, Error::WrongNode { .. }));
    let nobody = Ticket { urls: vec!["ws://127.0.0.1:9/sync".into()], ..ticket.clone() };
    assert!(matches!(refused(nobody).await, Error::Unreachable { .. }));
    let elsewhere = ticket.urls[0].replace("/sync", "/health");
    let elsewhere = Ticket { urls: vec![elsewhere], ..ticket.clone() };
    assert!(matches!(refused(elsewhere).await, Error::OtherProtocol));
    let no_url = Ticket { urls: vec!["::".into()], ..ticket };
    assert!(matches!(refused(no_url).await, Error::BadTicket { .. }));
    client.shutdown().await;
    server.shutdown().await;
}

/// What a server answers to bytes, and how long it keeps the connection.
async fn answer_to(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(PATIENCE, reading).await.expect("the server lets go").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_tells_its_health_and_survives_garbage() {
    let store = memory();
    create(&store, "still here");
    let server = websocket_server(&store).await;
    let address = server.websocket_address().unwrap();
    let health = b"GET /health HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    let answer = answer_to(address, health).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("{\"status\":\"ok\""), "{answer}");
    assert!(answer_to(address, b"\x16\x03\x01 no HTTP\r\n\r\n").await.contains("400"));
    let upgrade = "GET /sync HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // A frame that claims 2^62 bytes, and one of a kind that there is not.
    for garbage in [&b"\x82\xff\x40\0\0\0\0\0\0\0abcd"[..], b"\x8f\x80abcd"] {
        let request = [upgrade.as_bytes(), garbage].concat();
        assert!(answer_to(address, &request).await.starts_with("HTTP/1.1 101"));
    }
    let other = memory();
    let client = client(&other).await;
    let link = client.connect(&server.share("default").unwrap()).await.unwrap();
    link.wait_until_synced(PATIENCE).await.unwrap();
    assert_eq!(keys(&other), ["still here"]);
    client.shutdown().await;
    server.shutdown().await;
}

/// Whoever connects and says nothing takes no place of whoever says something, and none for long.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_nobody_out_and_are_let_go() {
    let store = memory();
    create(&store, "still here");
    let server = websocket_server(&store).await;
    let address = server.websocket_address().unwrap();
    let start = Instant::now();
    let mut silent = Vec::new();
    for number in 0..ARRIVALS_MAX + 50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            // Some have said a part of what they have to say.
            stream.write_all(b"GET /sync HTTP/1.1\r\nhost: here\r\n").await.unwrap();
        }
        silent.push(stream);
    }
    let mut oldest = silent.remove(0);
    let oldest_ends = tokio::spawn(async move {
        // It may be reset, for it has sent what nobody has read.
        let _ = oldest.read_to_end(&mut Vec::new()).await;
        start.elapsed()
    });
    let other = memory();
    let client = client(&other).await;
    let link = client.connect(&server.share("default").unwrap()).await.unwrap();
    link.wait_until_synced(PATIENCE).await.unwrap();
    assert_eq!(keys(&other), ["still here"]);
    let health = b"GET /health HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    assert!(answer_to(address, health).await.contains("\"connections\":1"));
    let ended = tokio::time::timeout(PATIENCE, oldest_ends).await.expect("the server lets go");
    let ended = ended.unwrap();
    println!("the first silent connection went after {ended:?}");
    assert!(ended < ARRIVAL_TIME_MAX, "the oldest one makes room");
    for mut stream in silent {
        let mut answer = Vec::new();
        let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let _ = reading.expect("the server lets go");
    }
    println!("all silent connections were gone after {:?}", start.elapsed());
    // Whoever has greeted in time stays.
    create(&store, "later");
    wait_for("the link goes on", || keys(&other).len() == 2).await;
    assert!(link.is_connected());
    client.shutdown().await;
    server.shutdown().await;
}

/// Somebody who accepts and never says a word is given up on.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_given_up_on() {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let url = format!("ws://{}/sync", listener.local_addr().unwrap());
    let store = memory();
    let client = client(&store).await;
    let ticket = Ticket {
        node: [7; 32],
        addresses: Vec::new(),
        urls: vec![url],
        relays: Vec::new(),
        namespace: "default".into(),
        access: Access::Secret([1; 32]),
    };
    let start = Instant::now();
    let Err(error) = client.connect(&ticket).await else { panic!("nobody answered") };
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(6));
    client.shutdown().await;
}
