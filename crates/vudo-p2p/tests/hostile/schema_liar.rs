//! Says of its schema what nobody can believe.

use vudo_crdt::{Schema, VersionVector};
use vudo_p2p::limits::{SCHEMA_GENS_MAX, TOLD_FIELDS_BYTES_MAX};
use vudo_p2p::proto::{GenFingerprint, Message};
use vudo_state::Database;

use crate::attacker::{Attacker, Victim, store, task};

fn defined() -> Database {
    let database = store(&["own"]);
    database.define(&Schema::from(vec![task()])).unwrap();
    database
}

fn gens(count: usize) -> Vec<GenFingerprint> {
    let name = |number: usize| (number as u64).to_be_bytes();
    (0..count).map(|number| GenFingerprint { name: name(number), fields: [0; 8] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_beyond_its_bounds_is_cut_off() {
    let victim = Victim::new(defined).await;
    let largest = Attacker::trusted(&victim, 0x70, VersionVector::new()).await;
    let mut attacker = Attacker::trusted(&victim, 0x71, VersionVector::new()).await;
    attacker.send(&Message::Schema(gens(SCHEMA_GENS_MAX + 1))).await;
    attacker.expect_cut_off("malformed message: a count or length is out of its bounds").await;
    let mut attacker = Attacker::trusted(&victim, 0x72, VersionVector::new()).await;
    let mut twice = gens(2);
    twice[1] = twice[0];
    attacker.send(&Message::Schema(twice)).await;
    attacker.expect_cut_off("malformed message").await;
    let mut attacker = Attacker::trusted(&victim, 0x73, VersionVector::new()).await;
    attacker.send(&Message::Gens(vec![0; TOLD_FIELDS_BYTES_MAX + 1])).await;
    attacker.expect_cut_off("malformed message").await;
    // As many as there may be are looked at.
    let mut attacker = largest;
    attacker.send(&Message::Schema(gens(SCHEMA_GENS_MAX))).await;
    attacker.send(&Message::Schema(gens(1))).await;
    attacker.expect_cut_off("its schema a second time").await;
    victim.survives(1).await;
}

/// What is told of fields is bounded by what was asked.
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_nobody_asked_for_are_cut_off() {
    let victim = Victim::new(defined).await;
    let mut attacker = Attacker::trusted(&victim, 0x74, VersionVector::new()).await;
    attacker.send(&Message::Schema(gens(1))).await;
    attacker.send(&Message::Gens(Schema::from(vec![task()]).encode())).await;
    attacker.expect_cut_off("fields that nobody asked for").await;
    victim.survives(1).await;
}

/// Nobody is told of a schema before it has shown that it may read.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_before_the_proof_is_cut_off() {
    let victim = Victim::new(defined).await;
    let mut attacker = Attacker::connect(&victim, 0x75).await;
    attacker.send(&Message::Schema(gens(1))).await;
    attacker.expect_cut_off("a message out of turn").await;
    victim.survives(1).await;
}
