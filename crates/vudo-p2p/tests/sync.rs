//! Nodes on loopback, over real QUIC.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, Value, ValueType};
use vudo_p2p::proto::Access;
use vudo_p2p::{ALPN, Config, Error, Link, Node, Ticket};
use vudo_state::{Database, Durability, Interest, Origin};

const PATIENCE: Duration = Duration::from_secs(10);

fn task() -> GenSchema {
    let fields = vec![
        FieldSchema::new("title", 1, Strategy::Lww, ValueType::String),
        FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64),
    ];
    GenSchema::new("Task", fields)
}

fn create(database: &Database, key: &str, title: &str) {
    let fields = [("title", title.into()), ("votes", 1i64.into())];
    database.create(&task(), &database.document_id(key), &fields).unwrap();
}

fn keys(database: &Database) -> Vec<String> {
    database.list(&task()).unwrap().into_iter().map(|record| record.key).collect()
}

async fn spawn(database: &Database) -> Node {
    Node::spawn(database, Config::loopback()).await.unwrap()
}

async fn spawn_at(database: &Database, address: SocketAddr) -> Node {
    Node::spawn(database, Config::at(address)).await.unwrap()
}

async fn synced(link: &Link) {
    link.wait_until_synced(PATIENCE).await.unwrap();
}

/// What an attempt that must not succeed says.
async fn refused(node: &Node, ticket: &Ticket) -> Error {
    match node.connect(ticket).await {
        Ok(_) => panic!("the link was opened"),
        Err(error) => error,
    }
}

/// Somebody on loopback who is no node of ours, and what he speaks where he is called.
async fn endpoint(protocols: Vec<Vec<u8>>) -> iroh::Endpoint {
    let builder = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .relay_mode(iroh::RelayMode::Disabled)
        .alpns(protocols)
        .clear_ip_transports();
    builder.bind_addr("127.0.0.1:0").unwrap().bind().await.unwrap()
}

fn fingerprint(database: &Database) -> String {
    database.replication("default").unwrap().fingerprint().unwrap().1.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_converge_both_ways_and_push_what_is_new() {
    let (left, right) = (Database::open_in_memory().unwrap(), Database::open_in_memory().unwrap());
    for (database, own, title) in [(&left, "a", "from left"), (&right, "b", "from right")] {
        create(database, "shared", title);
        create(database, own, title);
    }
    let (server, client) = (spawn(&left).await, spawn(&right).await);
    let link = client.connect(&server.share("default").unwrap()).await.unwrap();
    let report = link.wait_until_synced(PATIENCE).await.unwrap();
    assert_eq!((report.sent_changes, report.received_changes), (2, 2));
    let progress = link.progress();
    assert!(progress.is_connected && progress.session_count == 1, "{progress:?}");
    assert_eq!((progress.sent_changes, progress.received_changes), (2, 2));
    assert_eq!(report.fingerprint, fingerprint(&left));
    for database in [&left, &right] {
        assert_eq!(keys(database), ["a", "b", "shared"]);
        let shared = database.read(&task(), &database.document_id("shared")).unwrap().unwrap();
        assert_eq!(shared.get("votes"), Some(&Value::from(2i64)));
    }
    assert_eq!((server.peers().len(), client.peers().len()), (1, 1));

    for (from, to, key) in [(&left, &right, "pushed left"), (&right, &left, "pushed right")] {
        let subscription = to.subscribe(Interest::Namespace).unwrap();
        create(from, key, "live");
        let event = tokio::task::spawn_blocking(move || subscription.next_within(PATIENCE));
        let event = event.await.unwrap().expect("the change arrives without being asked for");
        assert_eq!((event.origin, event.documents[0].key.as_str()), (Origin::Remote, key));
    }
    link.close().await;
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_learns_nothing_and_an_unshared_namespace_is_no_different() {
    let (left, right) = (Database::open_in_memory().unwrap(), Database::open_in_memory().unwrap());
    create(&left, "private", "secret plans");
    let (server, client) = (spawn(&left).await, spawn(&right).await);
    let ticket = server.share("default").unwrap();
    let forged = Ticket { access: Access::Secret([1; 32]), ..ticket.clone() };
    assert!(matches!(refused(&client, &forged).await, Error::WrongSecret));
    let unshared = Ticket { namespace: "other".into(), ..ticket };
    assert!(matches!(refused(&client, &unshared).await, Error::WrongSecret));
    assert!(keys(&right).is_empty());
    assert_eq!(left.namespaces().unwrap(), ["default"], "asking for a namespace creates none");
    client.shutdown().await;
    server.shutdown().await;
}

/// Whoever only looks whether it is let in must not say that it holds anything: what is said is believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_let_in_or_not_and_takes_nothing() {
    let (left, right) = (Database::open_in_memory().unwrap(), Database::open_in_memory().unwrap());
    create(&left, "a", "from left");
    let (server, client) = (spawn(&left).await, spawn(&right).await);
    let ticket = server.share("default").unwrap();
    for _ in 0..20 {
        client.probe(&ticket).await.unwrap();
    }
    let forged = Ticket { access: Access::Secret([1; 32]), ..ticket.clone() };
    assert!(matches!(client.probe(&forged).await, Err(Error::WrongSecret)));
    assert!(right.namespaces().unwrap().is_empty());
    assert_eq!(left.outbox().unwrap().peers(), []);
    synced(&client.connect(&ticket).await.unwrap()).await;
    assert_eq!(left.outbox().unwrap().peers(), [(right.replica_key(), 1)]);
    let gone = server.share("default").unwrap();
    server.shutdown().await;
    assert!(matches!(client.probe(&gone).await, Err(Error::Unreachable { .. })));
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_and_somebody_else_there_are_told_apart() {
    let database = Database::open_in_memory().unwrap();
    let client = spawn(&database).await;
    let nobody = Ticket {
        node: Database::open_in_memory().unwrap().replica_key().0,
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 9))],
        urls: Vec::new(),
        relays: Vec::new(),
        namespace: "default".into(),
        access: Access::Secret([1; 32]),
    };
    let start = Instant::now();
    let error = refused(&client, &nobody).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(6));

    for (alpn, talks) in [(&b"another/protocol"[..], false), (ALPN, true)] {
        let stranger = endpoint(vec![alpn.to_vec()]).await;
        let ticket = Ticket {
            node: *stranger.id().as_bytes(),
            addresses: stranger.bound_sockets(),
            ..nobody.clone()
        };
        let accepting = tokio::spawn(async move {
            let Ok(connection) = stranger.accept().await.unwrap().await else { return stranger };
            let (mut send, _receive) = connection.accept_bi().await.unwrap();
            send.write_all(b"\x05\x00\x00\x00what?").await.unwrap();
            connection.closed().await;
            stranger
        });
        let error = refused(&client, &ticket).await;
        match talks {
            false => assert!(matches!(error, Error::OtherProtocol), "{error:?}"),
            true => assert!(matches!(error, Error::PeerMisbehaved { .. }), "{error:?}"),
        }
        accepting.await.unwrap().close().await;
    }
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_peer_is_survived() {
    let (left, right) = (Database::open_in_memory().unwrap(), Database::open_in_memory().unwrap());
    create(&left, "a", "still here");
    let server = spawn(&left).await;
    let ticket = server.share("default").unwrap();
    let vandal = endpoint(Vec::new()).await;
    for garbage in [&b"\xff\xff\xff\xffhuge"[..], b"\x02\x00\x00\x00\x01\xff", b"\x01\x00"] {
        let peer = iroh::PublicKey::from_bytes(&ticket.node).unwrap();
        let address = iroh::EndpointAddr::new(peer).with_ip_addr(ticket.addresses[0]);
        let connection = vandal.connect(address, ALPN).await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(garbage).await.unwrap();
        send.finish().unwrap();
        let _ = receive.read_to_end(1_000).await;
        connection.close(0u32.into(), b"");
    }
    let client = spawn(&right).await;
    let link = client.connect(&ticket).await.unwrap();
    synced(&link).await;
    assert_eq!(keys(&right), ["a"]);
    client.shutdown().await;
    server.shutdown().await;
    vandal.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_carries_changes_between_those_who_never_meet() {
    let databases: Vec<Database> = (0..3).map(|_| Database::open_in_memory().unwrap()).collect();
    let hub = spawn(&databases[0]).await;
    let ticket = hub.share("default").unwrap();
    let (first, second) = (spawn(&databases[1]).await, spawn(&databases[2]).await);
    let links = [first.connect(&ticket).await.unwrap(), second.connect(&ticket).await.unwrap()];
    create(&databases[1], "one", "");
    create(&databases[2], "two", "");
    let deadline = Instant::now() + PATIENCE;
    while databases.iter().any(|database| keys(database) != ["one", "two"]) {
        assert!(Instant::now() < deadline, "the changes did not get through");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for link in &links {
        synced(link).await;
    }
    assert_eq!(fingerprint(&databases[1]), fingerprint(&databases[2]));
    first.shutdown().await;
    second.shutdown().await;
    hub.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_outlives_its_server_and_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let right = Database::open_in_memory().unwrap();
    let client = spawn(&right).await;
    let left = Database::open(folder.path()).unwrap();
    let server = spawn(&left).await;
    let ticket = server.share("default").unwrap();
    let link = client.connect(&ticket).await.unwrap();
    synced(&link).await;
    server.shutdown().await;
    drop(left);
    create(&right, "offline", "written without a server");

    let left = Database::open(folder.path()).unwrap();
    create(&left, "elsewhere", "written before the link is back");
    let server = spawn_at(&left, ticket.addresses[0]).await;
    assert_eq!(server.share("default").unwrap().access, ticket.access, "the ticket stays good");
    let deadline = Instant::now() + PATIENCE;
    while keys(&left) != ["elsewhere", "offline"] || keys(&right) != ["elsewhere", "offline"] {
        assert!(Instant::now() < deadline, "{:?} {:?}", keys(&left), keys(&right));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    synced(&link).await;
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_single_changes_arrive_durably() {
    let folder = tempfile::tempdir().unwrap();
    let left = Database::open(folder.path().join("left")).unwrap();
    let right = Database::open(folder.path().join("right")).unwrap();
    let (server, client) = (spawn(&right).await, spawn(&left).await);
    let link = client.connect(&server.share("default").unwrap()).await.unwrap();
    let writer = left.with_durability(Durability::Eventual);
    tokio::task::spawn_blocking(move || {
        for number in 0..10_000 {
            create(&writer, &format!("task {number}"), "t");
        }
        writer.flush().unwrap();
    })
    .await
    .unwrap();
    let report = link.wait_until_synced(PATIENCE).await.unwrap();
    assert_eq!(report.vector.change_count(), 10_000);
    client.shutdown().await;
    server.shutdown().await;
    drop(right);
    let reopened = Database::open(folder.path().join("right")).unwrap();
    assert_eq!(reopened.list(&task()).unwrap().len(), 10_000);
}

#[test]
fn a_ticket_survives_its_text_and_every_slip_is_told() {
    let ticket = Ticket {
        node: [3; 32],
        addresses: vec!["127.0.0.1:4000".parse().unwrap(), "[::1]:4001".parse().unwrap()],
        urls: vec!["wss://sync.example.org/sync".into()],
        relays: vec!["https://relay.example.org/".into()],
        namespace: "team".into(),
        access: Access::Secret([9; 32]),
    };
    let text = ticket.to_string();
    assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
    assert!(!format!("{ticket:?}").contains("09"), "the secret stays out of logs");
    for length in 0..text.len() {
        assert!(text[..length].parse::<Ticket>().is_err());
    }
    let mut slip = text.clone().into_bytes();
    slip[20] = if slip[20] == b'a' { b'b' } else { b'a' };
    let error = String::from_utf8(slip).unwrap().parse::<Ticket>().unwrap_err();
    assert!(error.to_string().contains("no ticket"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_tell_what_two_stores_have_defined_in_different_ways() {
    let (left, right) = (Database::open_in_memory().unwrap(), Database::open_in_memory().unwrap());
    let mut newer = task();
    newer.fields[1].value_type = ValueType::U32;
    left.define(&Schema::from(vec![task()])).unwrap();
    right.define(&Schema::from(vec![newer])).unwrap();
    create(&left, "milk", "Milk");
    let (server, client) = (spawn(&left).await, spawn(&right).await);
    let link = client.connect(&server.share("default").unwrap()).await.unwrap();
    let report = link.wait_until_synced(PATIENCE).await.unwrap();
    assert_eq!(fingerprint(&left), fingerprint(&right));
    let [difference] = report.schema_differences.gens.as_slice() else { panic!("{report:?}") };
    let [field] = difference.fields.as_slice() else { panic!("{report:?}") };
    assert!(field.is_conflict);
    assert_eq!(field.here.as_deref(), Some("votes: pn_counter u32"));
    assert_eq!(field.at_peer.as_deref(), Some("votes: pn_counter i64"));
    client.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_further_behind_than_the_log_goes_goes_on_from_the_checkpoint() {
    let (server, behind) =
        (Database::open_in_memory().unwrap(), Database::open_in_memory().unwrap());
    let near = Database::open_in_memory().unwrap();
    create(&server, "milk", "Milk");
    let node = spawn(&server).await;
    let ticket = node.share("default").unwrap();
    let client = spawn(&near).await;
    synced(&client.connect(&ticket).await.unwrap()).await;
    for number in 0..5 {
        let fields = [("title", Value::from(format!("Milk {number}")))];
        server.update(&task(), &server.document_id("milk"), &fields).unwrap();
    }
    let link = client.connect(&ticket).await.unwrap();
    synced(&link).await;
    assert!(server.compact().unwrap().dropped_changes > 0);
    // Who has everything goes on, both ways.
    create(&near, "bread", "Bread");
    create(&server, "salt", "Salt");
    synced(&link).await;
    assert_eq!(fingerprint(&near), fingerprint(&server));
    // Who has not is given what is retained below the checkpoint, and keeps what is its own.
    create(&behind, "own", "Own");
    let late = spawn(&behind).await;
    let link = late.connect(&ticket).await.unwrap();
    let report = link.wait_until_synced(PATIENCE).await.unwrap();
    // Six of the changes came with the checkpoint, and two behind it.
    assert_eq!((report.sent_changes, report.received_changes), (1, 8));
    assert_eq!(report.vector.change_count(), 9);
    assert_eq!(keys(&behind), ["bread", "milk", "own", "salt"]);
    assert_eq!(fingerprint(&behind), fingerprint(&server));
    create(&server, "tea", "Tea");
    create(&behind, "rice", "Rice");
    synced(&link).await;
    assert_eq!(keys(&behind).len(), 6);
    // It can give all of that to others.
    let node = spawn(&behind).await;
    let last = Database::open_in_memory().unwrap();
    let client = spawn(&last).await;
    synced(&client.connect(&node.share("default").unwrap()).await.unwrap()).await;
    assert_eq!(fingerprint(&last), fingerprint(&server));
}

/// Both have much to say at once, more than the link holds: each takes in what the other one says while it
/// is sending.
#[tokio::test(flavor = "multi_thread")]
async fn two_sides_with_large_changes_do_not_wait_for_each_other() {
    let mut random = vudo_testkit::Random::new(11);
    let mut noise =
        || -> String { (0..8 << 20).map(|_| char::from(b' ' + random.below(95) as u8)).collect() };
    let [left, right] = ["left", "right"].map(|key| {
        let database = Database::open_in_memory().unwrap();
        create(&database, key, &noise());
        database
    });
    let (server, client) = (spawn(&left).await, spawn(&right).await);
    let ticket = server.share("default").unwrap();
    let in_process = client.connect_in_process(&server, &ticket).await.unwrap();
    synced(&in_process).await;
    assert_eq!((keys(&left).len(), keys(&right).len()), (2, 2));
    in_process.close().await;
    client.shutdown().await;
    server.shutdown().await;
}
