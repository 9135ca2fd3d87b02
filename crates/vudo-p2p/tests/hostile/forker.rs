//! Signs two logs under one key, as a store does that was copied with its key.

use std::sync::Arc;

use vudo_crdt::VersionVector;
use vudo_p2p::proto::{Holdings, Message};
use vudo_state::storage::{MemoryStorage, Storage, WriteBatch};
use vudo_state::{Database, Replication};

use crate::attacker::{Attacker, Victim, frame_of, store, task};

fn replication(database: &Database) -> Replication {
    database.replication("default").unwrap()
}

fn add(database: &Database, key: &str) {
    database.create(&task(), &database.document_id(key), &[("title", key.into())]).unwrap();
}

/// A second store of the same key, with all that the first one has on disk.
pub(crate) fn copy_of(image: &MemoryStorage) -> Database {
    let storage = Arc::new(MemoryStorage::default());
    let mut copy = WriteBatch::default();
    let copied = image.scan(&[], &[0xff], &mut |key, value| {
        copy.put(key.to_vec(), value.to_vec());
        true
    });
    copied.unwrap();
    storage.commit(&copy).unwrap();
    Database::with_storage(storage, None).unwrap()
}

/// Two stores of one key that both hold one change, and one more each.
fn forked() -> [Database; 2] {
    let image = Arc::new(MemoryStorage::default());
    add(&Database::with_storage(image.clone(), None).unwrap(), "both");
    ["one", "other"].map(|key| {
        let database = copy_of(&image);
        add(&database, key);
        database
    })
}

/// The first log that arrives is held. Of the second one nothing is applied, and both heads are kept.
#[tokio::test(flavor = "multi_thread")]
async fn two_logs_of_one_replica_are_found_and_proved() {
    let victim = Victim::new(|| store(&["own"])).await;
    let [one, other] = forked();
    let mut honest = Attacker::trusted(&victim, 0x90, VersionVector::new()).await;
    honest.send(&Message::Frame(frame_of(&one))).await;
    while !matches!(honest.next().await, Some(Message::Ack(_))) {}

    let held = Holdings::of(&replication(&other)).unwrap();
    let mut forker = Attacker::trusted(&victim, 0x91, held).await;
    let shown = loop {
        let message = forker.next().await.expect("the victim shows the head that it holds");
        if let Message::Head(head) = message {
            break head;
        }
    };
    assert_eq!((shown.head.replica, shown.head.length), (one.replica_key(), 2));
    let signed = replication(&other).signed_head().unwrap();
    forker.send(&Message::Head(signed.clone())).await;
    forker.expect_cut_off("has signed two different logs of 2 changes").await;
    let proofs = replication(&victim.database).forks().unwrap();
    assert_eq!(proofs, [(shown, signed)]);
    drop(honest);
    victim.survives(3).await;
}

/// A longer log that does not go on from the one that is held is refused by what was signed.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_go_on_from_the_one_that_is_held_is_refused() {
    let victim = Victim::new(|| store(&["own"])).await;
    let [one, other] = forked();
    add(&other, "one more");
    let mut attacker = Attacker::trusted(&victim, 0x92, VersionVector::new()).await;
    attacker.send(&Message::Frame(frame_of(&one))).await;
    while !matches!(attacker.next().await, Some(Message::Ack(_))) {}
    attacker.send(&Message::Frame(frame_of(&other))).await;
    attacker.expect_cut_off("has signed another log up to number 3").await;
    victim.survives(3).await;
}

/// Whoever only says that a log is another one is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hash_without_a_signature_proves_nothing() {
    let victim = Victim::new(|| store(&["own"])).await;
    let mut held = Holdings::of(&replication(&victim.database)).unwrap();
    held.log_hashes[0][0] ^= 1;
    let mut liar = Attacker::trusted(&victim, 0x93, held).await;
    while !matches!(liar.next().await, Some(Message::Head(_))) {}
    let mut head = replication(&victim.database).signed_head().unwrap();
    head.head.root[0] ^= 1;
    liar.send(&Message::Head(head)).await;
    liar.expect_cut_off("has not signed").await;
    assert_eq!(replication(&victim.database).forks().unwrap(), []);
    victim.survives(1).await;
}
