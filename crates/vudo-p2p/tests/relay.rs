//! Nodes that meet at a relay: a real one, on loopback.
//!
//! Once they have met there they find the direct way, since on loopback there is always one. That the
//! relay is what let them meet shows in the ticket, which names nothing else, and in what the relay has
//! counted. `namespaces.rs` has nodes that have no other way.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use data_encoding::BASE32_NOPAD;
use iroh_relay::server::{Access as Admission, AccessControl, ClientRequest};
use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use sha2::{Digest, Sha256};
use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
use vudo_p2p::limits::{RELAYS_MAX, TICKET_URL_BYTES_MAX};
use vudo_p2p::proto::Access;
use vudo_p2p::{Config, Error, Node, Ticket};
use vudo_state::Database;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(10);
/// iroh looks for a relay every 20 to 26 s by itself.
const SEARCH_LIMIT: Duration = Duration::from_secs(16);

fn task() -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Task", [title])
}

/// A store with one document of its own.
fn store(key: &str) -> Database {
    let database = Database::open_in_memory().unwrap();
    write(&database, key);
    database
}

fn write(database: &Database, key: &str) {
    database.create(&task(), &database.document_id(key), &[("title", key.into())]).unwrap();
}

async fn relay_at(address: SocketAddr) -> Server {
    spawn_relay(RelayConfig::new(address)).await
}

async fn spawn_relay(relay: RelayConfig) -> Server {
    let mut config = ServerConfig::default();
    config.relay = Some(relay);
    Server::spawn(config).await.unwrap()
}

/// Lets in whoever has the token.
#[derive(Debug)]
struct Doorkeeper;

impl AccessControl for Doorkeeper {
    async fn on_connect(&self, request: &ClientRequest) -> Admission {
        match request.auth_token().as_deref() {
            Some("open sesame") => Admission::Allow,
            _ => Admission::Deny { reason: None },
        }
    }
}

fn url_of(relay: &Server) -> String {
    format!("http://{}/", relay.http_addr().unwrap())
}

fn carried_packets(relay: &Server) -> u64 {
    relay.metrics().server.send_packets_sent.get()
}

/// A node that others find at these relays.
async fn spawn_at(database: &Database, relays: &[&str]) -> Node {
    let relays = relays.iter().map(|relay| (*relay).to_owned()).collect();
    Node::spawn(database, Config { relays, ..Config::loopback() }).await.unwrap()
}

/// A ticket that says nothing of a node but its relays.
fn ticket_by_relay(node: &Node) -> Ticket {
    Ticket { addresses: Vec::new(), urls: Vec::new(), ..node.share("default").unwrap() }
}

/// Dials until somebody answers; gives what was synced.
async fn sync_within(node: &Node, ticket: &Ticket, limit: Duration) -> vudo_p2p::SyncReport {
    let start = Instant::now();
    loop {
        match node.connect(ticket).await {
            Ok(link) => {
                let report = link.wait_until_synced(PATIENCE).await.unwrap();
                link.close().await;
                return report;
            }
            Err(error) => assert!(start.elapsed() < limit, "not within {limit:?}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn refused(config: Config) -> Error {
    match Node::spawn(&Database::open_in_memory().unwrap(), config).await {
        Ok(_) => panic!("such relays are taken"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_meet_at_a_relay_that_only_one_of_them_knows() {
    let relay = relay_at(ANY_PORT).await;
    let url = url_of(&relay);
    let (left, right) = (store("from left"), store("from right"));
    let (server, client) = (spawn_at(&left, &[&url]).await, spawn_at(&right, &[]).await);
    let ticket = ticket_by_relay(&server);
    assert_eq!(ticket.relays, [url], "the ticket says so before the node is there");
    assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
    let link = client.connect(&ticket).await.unwrap();
    let report = link.wait_until_synced(PATIENCE).await.unwrap();
    assert_eq!((report.sent_changes, report.received_changes), (1, 1));
    assert!(carried_packets(&relay) > 0, "they met somewhere else");
    write(&right, "later");
    link.wait_until_synced(PATIENCE).await.unwrap();
    assert!(left.read(&task(), &left.document_id("later")).unwrap().is_some());
    assert_eq!((server.peers()[0].link, client.peers()[0].link), ("quic", "quic"));
    link.close().await;
    client.shutdown().await;
    server.shutdown().await;
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_address_of_a_relay_lets_in_whoever_has_the_ticket() {
    let mut config = RelayConfig::new(ANY_PORT);
    config.access = std::sync::Arc::new(Doorkeeper);
    let relay = spawn_relay(config).await;
    let url = format!("{}?token=open%20sesame", url_of(&relay));
    let (left, right) = (store("from left"), store("from right"));
    let (server, client) = (spawn_at(&left, &[&url]).await, spawn_at(&right, &[]).await);
    let ticket = ticket_by_relay(&server);
    assert!(!format!("{ticket:?}").contains("sesame"), "the token stays out of logs");
    let elsewhere = Ticket { relays: vec![url_of(&relay)], ..ticket.clone() };
    let Err(error) = client.connect(&elsewhere).await else { panic!("it has no token") };
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    sync_within(&client, &ticket, PATIENCE).await;
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_its_relay_and_is_found_there_when_it_comes_up() {
    // A port that nobody listens on.
    let address = std::net::TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    let url = format!("http://{address}/");
    let (left, right) = (store("from left"), store("from right"));
    let start = Instant::now();
    let server = spawn_at(&left, &[&url]).await;
    assert!(start.elapsed() < Duration::from_secs(3), "it waited for the relay");
    let client = spawn_at(&right, &[]).await;

    // A relay that is away takes nothing from those who need none, time included.
    let ticket = server.share("default").unwrap();
    assert_eq!((&ticket.relays[..], ticket.addresses.is_empty()), (&[url][..], false));
    let start = Instant::now();
    client.connect(&ticket).await.unwrap().wait_until_synced(PATIENCE).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "the dial waited for the relay");

    // Somebody who has never met the node and knows no address of it.
    let other = store("from another");
    let client_by_relay = spawn_at(&other, &[]).await;
    let by_relay = Ticket { addresses: Vec::new(), ..ticket };
    let Err(error) = client_by_relay.connect(&by_relay).await else { panic!("there is no relay") };
    assert!(matches!(error, Error::Unreachable { seconds: 5, .. }), "{error}");
    let relay = relay_at(address).await;
    let report = sync_within(&client_by_relay, &by_relay, SEARCH_LIMIT).await;
    assert_eq!(report.received_changes, 2);
    assert!(carried_packets(&relay) > 0);
    for node in [client, client_by_relay, server] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_to_another_of_its_relays_when_one_ends() {
    let relays = [relay_at(ANY_PORT).await, relay_at(ANY_PORT).await];
    let urls = relays.each_ref().map(url_of);
    let (left, right) = (store("from left"), store("from right"));
    let server = spawn_at(&left, &urls.each_ref().map(String::as_str)).await;
    let ticket = ticket_by_relay(&server);
    assert_eq!(ticket.relays, urls);
    let first = spawn_at(&right, &[]).await;
    sync_within(&first, &ticket, PATIENCE).await;
    first.shutdown().await;

    // It was at the one that has carried something to it: what the other one got was in vain.
    let [one, other] = relays;
    let is_at_one = carried_packets(&one) > carried_packets(&other);
    let (home, rest) = if is_at_one { (one, other) } else { (other, one) };
    let before = carried_packets(&rest);
    home.shutdown().await.unwrap();
    let third = store("from a third");
    let second = spawn_at(&third, &[]).await;
    let report = sync_within(&second, &ticket, SEARCH_LIMIT).await;
    assert_eq!(report.received_changes, 2);
    assert!(carried_packets(&rest) > before);
    second.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_relay_is_refused_by_name() {
    let with = |relays: &[&str]| Config {
        relays: relays.iter().map(|relay| (*relay).to_owned()).collect(),
        ..Config::loopback()
    };
    let long = format!("https://relay.example.org/{}", "x".repeat(TICKET_URL_BYTES_MAX));
    let cases = [
        ("relay.example.org", "no URL"),
        ("ftp://relay.example.org", "does not begin with https://"),
        ("https://", "no URL"),
        (&long, "longer than 512 bytes"),
    ];
    for (relay, what) in cases {
        let error = refused(with(&["https://relay.example.org", relay])).await;
        assert!(
            matches!(&error, Error::BadRelay { relay: named, .. } if named == relay),
            "{error}"
        );
        let said = error.to_string();
        assert!(said.contains(what) && said.contains("write it like https://"), "{said}");
    }
    let many: Vec<String> = (0..=RELAYS_MAX).map(|n| format!("https://relay{n}.test")).collect();
    let error = refused(with(&many.iter().map(String::as_str).collect::<Vec<_>>())).await;
    assert!(matches!(error, Error::TooManyRelays { count: 5 }), "{error}");

    let twice = with(&["https://relay.example.org", "https://relay.example.org/"]);
    let node = Node::spawn(&store("any"), twice).await.unwrap();
    assert_eq!(node.share("default").unwrap().relays, ["https://relay.example.org/"]);
    node.shutdown().await;
}

/// A ticket comes from outside: a relay in it that is none is no reason to leave the other ways.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_a_ticket_that_is_none_leaves_the_other_ways() {
    let (left, right) = (store("from left"), store("from right"));
    let (server, client) = (spawn_at(&left, &[]).await, spawn_at(&right, &[]).await);
    let ticket = server.share("default").unwrap();
    assert!(ticket.relays.is_empty());
    let nowhere =
        Ticket { addresses: Vec::new(), relays: vec!["no relay".into()], ..ticket.clone() };
    let Err(error) = client.connect(&nowhere).await else { panic!("that leads nowhere") };
    assert!(matches!(error, Error::BadTicket { .. }), "{error}");
    assert!(error.to_string().contains("'no relay'"), "{error}");
    let ticket = Ticket { relays: nowhere.relays, ..ticket };
    sync_within(&client, &ticket, Duration::ZERO).await;
    client.shutdown().await;
    server.shutdown().await;
}

fn full_ticket() -> Ticket {
    let url = |scheme: &str, number: usize| {
        let url = format!("{scheme}://{number}.example.org/");
        format!("{url}{}", "x".repeat(TICKET_URL_BYTES_MAX - url.len()))
    };
    Ticket {
        node: [1; 32],
        addresses: vec!["[2001:db8::1]:7".parse().unwrap(); 32],
        urls: (0..8).map(|number| url("wss", number)).collect(),
        relays: (0..RELAYS_MAX).map(|number| url("https", number)).collect(),
        namespace: "n".repeat(255),
        access: Access::Secret([5; 32]),
    }
}

#[test]
fn the_largest_ticket_survives_its_text() {
    let ticket = full_ticket();
    assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
}

/// The text of a ticket with these bytes after its namespace: the ways to the node.
fn text_with(ways: &[u8]) -> String {
    let empty = Ticket {
        addresses: Vec::new(),
        urls: Vec::new(),
        relays: Vec::new(),
        namespace: "default".into(),
        ..full_ticket()
    };
    let text = empty.to_string();
    let encoded = text.strip_prefix("vudo3").unwrap().to_ascii_uppercase();
    let mut bytes = BASE32_NOPAD.decode(encoded.as_bytes()).unwrap();
    // The checksum, and the count of the ways.
    bytes.truncate(bytes.len() - 5);
    bytes.extend_from_slice(ways);
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum[..4]);
    format!("vudo3{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

#[test]
fn tickets_with_more_or_longer_relays_than_there_may_be_are_refused() {
    let relays = |count: usize| {
        let one = [&[8, 9][..], b"http://a/"].concat();
        [&[count as u8][..], &one.repeat(count)].concat()
    };
    let ticket: Ticket = text_with(&relays(RELAYS_MAX)).parse().unwrap();
    assert_eq!(ticket.relays, ["http://a/"; RELAYS_MAX]);
    // One more is within the number of ways of all kinds.
    assert!(text_with(&relays(RELAYS_MAX + 1)).parse::<Ticket>().is_err());

    let of_length = |length: usize| {
        let varint = [(length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
        [&[1, 8][..], &varint, &b"x".repeat(length)].concat()
    };
    assert!(text_with(&of_length(TICKET_URL_BYTES_MAX)).parse::<Ticket>().is_ok());
    assert!(text_with(&of_length(TICKET_URL_BYTES_MAX + 1)).parse::<Ticket>().is_err());
    // It says that it is longer than the ticket, and no text.
    assert!(text_with(&[1, 8, 100, b'x']).parse::<Ticket>().is_err());
    assert!(text_with(&[1, 8, 2, 0xff, 0xfe]).parse::<Ticket>().is_err());
}
