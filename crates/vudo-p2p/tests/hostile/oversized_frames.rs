//! Announces or sends more in one message than anybody may.

use vudo_crdt::VersionVector;

use crate::attacker::{Attacker, Victim, resident_bytes, store};

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_size_is_not_believed() {
    let victim = Victim::new(|| store(&["own"])).await;
    let mut attacker = Attacker::trusted(&victim, 0x80, VersionVector::new()).await;
    attacker.send_bytes(&u32::MAX.to_le_bytes()).await;
    attacker.expect_cut_off("a message of 4294967295 bytes").await;
    victim.survives(1).await;
}

/// The largest message may be announced by anybody; memory is only given for what arrives.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_and_never_sent_costs_nothing() {
    let victim = Victim::new(|| store(&["own"])).await;
    let before = resident_bytes();
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut attacker = Attacker::trusted(&victim, 0x81, VersionVector::new()).await;
        attacker.send_bytes(&(16u32 << 20).to_le_bytes()).await;
        held.push(attacker);
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes for 40 announcements of 16 MiB");
    drop(held);
    victim.survives(1).await;
}

/// A stranger may not even announce much.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_large_message_is_never_read() {
    let victim = Victim::new(|| store(&["own"])).await;
    let mut attacker = Attacker::connect(&victim, 0x82).await;
    attacker.send_bytes(&(1u32 << 20).to_le_bytes()).await;
    attacker.send_bytes(&[0; 30_000]).await;
    attacker.expect_cut_off("did not finish the handshake").await;
    victim.survives(1).await;
}

/// A WebSocket message larger than a piece is refused by its header.
#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_is_too_large_is_refused() {
    let victim = Victim::new(|| store(&["own"])).await;
    let mut attacker = Attacker::trusted(&victim, 0x83, VersionVector::new()).await;
    attacker.send_piece(vec![0; 1 << 20]).await;
    attacker.expect_cut_off("a peer left").await;
    victim.survives(1).await;
}
