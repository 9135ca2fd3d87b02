//! Lies about what it holds.

use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_p2p::proto::Message;

use crate::attacker::{Attacker, Victim, resident_bytes, store};

/// It holds more than it says: what it gets it has already, which harms nobody.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_claims_nothing_is_sent_everything_once() {
    let victim = Victim::new(|| store(&["a", "b"])).await;
    let mut attacker = Attacker::trusted(&victim, 0x90, VersionVector::new()).await;
    let mut frame_count = 0;
    while let Ok(Some(message)) =
        tokio::time::timeout(std::time::Duration::from_millis(500), attacker.next()).await
    {
        frame_count += usize::from(matches!(message, Message::Frame(_)));
    }
    assert_eq!(frame_count, 1);
    drop(attacker);
    victim.survives(2).await;
}

/// A vector may be long, but not endless, nor out of order.
#[tokio::test(flavor = "multi_thread")]
async fn long_vectors_are_taken_in_bounded_memory_and_malformed_ones_are_not() {
    let victim = Victim::new(|| store(&["own"])).await;
    let mut long = VersionVector::new();
    for number in 0..40_000u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        long.advance(ReplicaKey(key), u64::MAX);
    }
    let before = resident_bytes();
    let liars = [0x91, 0x92, 0x93];
    let mut held = Vec::new();
    for liar in liars {
        held.push(Attacker::trusted(&victim, liar, long.clone()).await);
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    drop(held);

    let mut attacker = Attacker::trusted(&victim, 0x94, VersionVector::new()).await;
    // An acknowledgement that counts 65,537 replicas, and ends.
    attacker.send_bytes(&[4, 0, 0, 0, 5, 0x81, 0x80, 0x04]).await;
    attacker.expect_cut_off("malformed message").await;
    victim.survives(1).await;
}
