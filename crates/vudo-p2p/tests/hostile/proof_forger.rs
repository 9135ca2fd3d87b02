//! Forges the proof that it holds the secret.

use vudo_p2p::proto::{GoodbyeCode, Message, PROTOCOL_VERSION};

use crate::attacker::{Attacker, Victim, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_proof_reveals_nothing() {
    let victim = Victim::new(|| store(&["private"])).await;
    let mut attacker = Attacker::connect(&victim, 0xf0).await;
    let namespace = "default".to_owned();
    let hello = Message::Hello { version: PROTOCOL_VERSION, namespace, nonce: [1; 32] };
    attacker.send(&hello).await;
    assert!(matches!(attacker.next().await, Some(Message::Hello { .. })));
    attacker.send(&Message::Proof([7; 32])).await;
    assert_eq!(attacker.next().await, Some(Message::Goodbye(GoodbyeCode::Refused)));
    attacker.expect_cut_off("secret").await;
    victim.survives(1).await;
}

/// Without any proof not even the largest handshake is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_skips_the_proof_is_sent_away() {
    let victim = Victim::new(|| store(&["private"])).await;
    let mut attacker = Attacker::connect(&victim, 0xf1).await;
    attacker.send(&Message::Holdings(Default::default())).await;
    assert_eq!(attacker.next().await, Some(Message::Goodbye(GoodbyeCode::Misbehaved)));
    attacker.expect_cut_off("out of turn").await;
    victim.survives(1).await;
}
