//! A sync server with many namespaces, writers and peers, all in this process: what it takes of
//! memory, the peers and their stores included. Alone in its file, so that nothing else is measured.

use std::time::Duration;

use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType, VersionVector};
use vudo_p2p::{Config, Link, Node};
use vudo_state::Database;

const NAMESPACES: usize = 100;
const WRITERS: usize = 50;
const PEERS: usize = 1_000;
const MEMORY_BYTES_MAX: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

fn task() -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Task", [title])
}

/// Writes one document to every namespace of a server's store, as a replica of its own.
fn write_everywhere(server: &Database, writer_number: usize) {
    let writer = Database::open_in_memory().unwrap();
    for namespace in 0..NAMESPACES {
        let name = format!("namespace {namespace}");
        let writer = writer.in_namespace(&name);
        let id = writer.document_id(&format!("document {writer_number}"));
        writer.create(&task(), &id, &[("title", "written by one of fifty".into())]).unwrap();
        let frame = writer.replication(&name).unwrap().frame_since(&VersionVector::new(), 1 << 20);
        server.replication(&name).unwrap().apply_frame(&frame.unwrap().unwrap().bytes).unwrap();
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    kibibytes.and_then(|number| number.parse::<usize>().ok()).unwrap_or(0) << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_peers_fit_into_a_quarter_of_a_gibibyte() {
    let database = Database::open_in_memory().unwrap();
    (0..WRITERS).for_each(|writer| write_everywhere(&database, writer));
    let nowhere = Config { quic: None, websocket: None, ..Config::default() };
    let server = Node::spawn(&database, nowhere.clone()).await.unwrap();
    let mut peers: Vec<(Database, Node, Link)> = Vec::new();
    for peer in 0..PEERS {
        let ticket = server.share(&format!("namespace {}", peer % NAMESPACES)).unwrap();
        let store = Database::open_in_memory().unwrap();
        let node = Node::spawn(&store, nowhere.clone()).await.unwrap();
        let link = node.connect_in_process(&server, &ticket).await.unwrap();
        peers.push((store, node, link));
    }
    for (_, _, link) in &peers {
        let report = link.wait_until_synced(PATIENCE).await.unwrap();
        assert_eq!(report.received_changes as usize, WRITERS);
    }
    assert_eq!(server.peers().len(), PEERS);
    // Everybody is told of what one of them writes.
    let (store, ..) = &peers[0];
    let store = store.in_namespace("namespace 0");
    let id = store.document_id("late");
    store.create(&task(), &id, &[("title", "live".into())]).unwrap();
    for (store, _, link) in peers.iter().step_by(NAMESPACES) {
        while link.wait_until_synced(PATIENCE).await.unwrap().vector.change_count() <= 50 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let store = store.in_namespace("namespace 0");
        assert_eq!(store.list(&task()).unwrap().len(), WRITERS + 1);
    }
    let resident = resident_bytes();
    println!("{PEERS} peers, {NAMESPACES} namespaces of {WRITERS} writers: {} MiB", resident >> 20);
    assert!(resident < MEMORY_BYTES_MAX, "{resident} bytes");
    for (_, node, link) in peers {
        link.close().await;
        node.shutdown().await;
    }
    server.shutdown().await;
}
