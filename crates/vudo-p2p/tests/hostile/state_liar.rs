//! Says of its state what is not so, again and again, to have others make theirs anew.

use std::time::Duration;

use tokio::time::Instant;
use vudo_crdt::wire::{write_bytes, write_varint};
use vudo_p2p::limits::REPAIRS_MAX;
use vudo_p2p::proto::{Holdings, Message, vector_digest};

use crate::attacker::{Attacker, Victim, logged, store};

const RANGES: u8 = 10;
const ROWS_DIFFER: u8 = 3;
const SESSION_COUNT: usize = 2;
const SHOWN: &str = "a state that differed was rebuilt from the log";

/// A message that settles everything: one row is not the same.
fn one_row_differs() -> Vec<u8> {
    let mut bytes = vec![RANGES, 1, ROWS_DIFFER];
    write_varint(&mut bytes, 1);
    write_varint(&mut bytes, 0);
    write_bytes(&mut bytes, b"\x04Task\x00own");
    let length = bytes.len() as u32;
    [&length.to_le_bytes()[..], &bytes].concat()
}

/// Holds what the victim holds, and claims another state as often as a session lets it.
async fn lie(victim: &Victim, id: u8) {
    let replication = victim.database.replication("default").unwrap();
    let held = Holdings::of(&replication).unwrap();
    let vector = vector_digest(&held.vector);
    let mut attacker = Attacker::trusted(victim, id, held).await;
    let lie = Message::Fingerprint { vector, fingerprint: [9; 32] };
    // The victim tells its fingerprint whenever it has made its state anew.
    while let Some(message) = attacker.next().await {
        if matches!(message, Message::Fingerprint { .. }) {
            attacker.send(&lie).await;
            attacker.send_bytes(&one_row_differs()).await;
        }
    }
    attacker.expect_cut_off("differ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_made_anew_one_after_the_other_with_pauses() {
    let victim = Victim::new(|| store(&["own"])).await;
    let start = Instant::now();
    let both = async { tokio::join!(lie(&victim, 0xc1), lie(&victim, 0xc2)) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("both are cut off");
    let rebuilt = [0xc1, 0xc2].map(|id| logged(&[id; 32], SHOWN).len());
    assert_eq!(rebuilt, [REPAIRS_MAX; SESSION_COUNT], "each was believed so often");
    let pauses = start.elapsed().as_secs();
    assert!(pauses as usize >= SESSION_COUNT * REPAIRS_MAX - 1, "all of it in {pauses} s");
    victim.survives(1).await;
}
