//! Says again what was said before.

use vudo_crdt::VersionVector;
use vudo_p2p::proto::{GoodbyeCode, Message};

use crate::attacker::{Attacker, Victim, frame_of, store};

/// A recorded handshake proves nothing: the other side's nonce is a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_cannot_be_used_twice() {
    let victim = Victim::new(|| store(&["own"])).await;
    let trusted = Attacker::trusted(&victim, 0xe0, VersionVector::new()).await;
    let mut replayer = Attacker::connect(&victim, 0xe0).await;
    replayer.send(&trusted.handshake[0]).await;
    assert!(matches!(replayer.next().await, Some(Message::Hello { .. })));
    replayer.send(&trusted.handshake[1]).await;
    assert_eq!(replayer.next().await, Some(Message::Goodbye(GoodbyeCode::Refused)));
    replayer.expect_cut_off("secret").await;
    drop(trusted);
    victim.survives(1).await;
}

/// The same changes once more have no effect, and nobody may keep the victim busy with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_cannot_be_sent_twice() {
    let victim = Victim::new(|| store(&["own"])).await;
    let frame = frame_of(&store(&["once"]));
    let mut attacker = Attacker::trusted(&victim, 0xe1, VersionVector::new()).await;
    attacker.send(&Message::Frame(frame.clone())).await;
    while !matches!(attacker.next().await, Some(Message::Ack(_))) {}
    attacker.send(&Message::Frame(frame)).await;
    attacker.expect_cut_off("changes again that it has sent").await;
    victim.survives(2).await;
}

/// What the victim holds already is no news either.
#[tokio::test(flavor = "multi_thread")]
async fn the_victim_s_own_changes_are_not_news() {
    let victim = Victim::new(|| store(&["own"])).await;
    let own = frame_of(&victim.database);
    let mut attacker = Attacker::trusted(&victim, 0xe2, VersionVector::new()).await;
    attacker.send(&Message::Frame(own)).await;
    attacker.expect_cut_off("changes again that it has sent or that are held here").await;
    victim.survives(1).await;
}
