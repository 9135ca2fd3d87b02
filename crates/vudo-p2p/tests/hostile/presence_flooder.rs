//! Shows more than anybody can look at.

use std::sync::Arc;

use vudo_crdt::VersionVector;
use vudo_p2p::limits::{PRESENCE_BYTES_MAX, PRESENCE_ORIGINS_MAX};
use vudo_p2p::proto::{Message, PresenceUpdate};
use vudo_p2p::{Config, Node, Presence};
use vudo_state::Database;

use crate::attacker::{Attacker, Victim, resident_bytes, store};

const MEMORY_BYTES_MAX: usize = 16 << 20;

fn update(origin: [u8; 32], clock: u64, byte_count: usize) -> PresenceUpdate {
    let shown: Arc<[u8]> = vec![7; byte_count].into();
    PresenceUpdate { origin, clock, shown: Some((30_000, shown)) }
}

/// Of a node that there is not.
fn invented(number: usize) -> PresenceUpdate {
    let mut origin = [0xaa; 32];
    origin[..8].copy_from_slice(&(number as u64).to_be_bytes());
    update(origin, 1, 20)
}

async fn wait_for(what: &str, presence: &Presence, is_so: impl Fn(usize) -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is_so(presence.others().len()) {
        assert!(std::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_that_does_not_wait_to_be_taken_is_cut_off() {
    let victim = Victim::new(|| store(&["own"])).await;
    let presence = victim.node.presence("default");
    let mut attacker = Attacker::trusted(&victim, 0x60, VersionVector::new()).await;
    for clock in 0..1_000 {
        attacker.send(&Message::Presence(vec![update([0x60; 32], clock, 1)])).await;
    }
    attacker.expect_cut_off("presence again before the last was taken").await;
    wait_for("what it showed ends with its session", &presence, |count| count == 0).await;
    victim.survives(1).await;
}

/// It keeps to the rules and shows nodes that there are not.
#[tokio::test(flavor = "multi_thread")]
async fn invented_nodes_are_kept_in_bounded_memory_and_peers_are_seen_all_the_same() {
    let victim = Victim::new(|| store(&["own"])).await;
    let presence = victim.node.presence("default");
    let before = resident_bytes();
    let mut attacker = Attacker::trusted(&victim, 0x61, VersionVector::new()).await;
    for start in (0..4_000).step_by(200) {
        let updates = (start..start + 200).map(invented).collect();
        attacker.send(&Message::Presence(updates)).await;
        while attacker.next().await.expect("the session goes on") != Message::PresenceTaken {}
    }
    wait_for("it is believed", &presence, |count| count == PRESENCE_ORIGINS_MAX).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes");

    let honest = Database::open_in_memory().unwrap();
    let client = Node::spawn(&honest, Config { quic: None, websocket: None, ..Config::default() })
        .await
        .unwrap();
    let link = client.connect(&victim.ticket).await.unwrap();
    let here = client.presence("default");
    here.set(b"here").unwrap();
    let is_seen = |_| presence.others().iter().any(|(node, _)| *node == honest.replica_key());
    wait_for("a peer is seen", &presence, is_seen).await;
    drop(attacker);
    wait_for("all but the peer have gone", &presence, |count| count == 1).await;
    link.close().await;
    client.shutdown().await;
    victim.survives(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_messages_that_are_too_large_are_cut_off() {
    let victim = Victim::new(|| store(&["own"])).await;
    let too_large = vec![update([0x62; 32], 1, PRESENCE_BYTES_MAX + 1)];
    let too_many = (0..5).map(|number| update([number; 32], 1, PRESENCE_BYTES_MAX)).collect();
    for (id, updates) in [(0x62, too_large), (0x63, too_many)] {
        let mut attacker = Attacker::trusted(&victim, id, VersionVector::new()).await;
        attacker.send(&Message::Presence(updates)).await;
        attacker.expect_cut_off("malformed message: a count or length is out of its bounds").await;
    }
    assert_eq!(victim.node.presence("default").others(), []);
    victim.survives(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_before_the_proof_is_cut_off() {
    let victim = Victim::new(|| store(&["own"])).await;
    let mut attacker = Attacker::connect(&victim, 0x64).await;
    attacker.send(&Message::Presence(vec![update([0x64; 32], 1, 1)])).await;
    attacker.expect_cut_off("a message out of turn").await;
    victim.survives(1).await;
}
