//! Signs two logs under one key, as a store does that was copied with its key.

use std::sync::Arc;
use std::time::Duration;

use vudo_crdt::head::SignedHead;
use vudo_crdt::{ReplicaKey, VersionVector};
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

/// Shows the head of a store's log to a victim that disputes it, and gives the victim's.
async fn show_head(forker: &mut Attacker, from: &Database, replica: &ReplicaKey) -> SignedHead {
    let shown = loop {
        let message = forker.next().await.expect("the victim shows the head that it holds");
        if let Message::Head(head) = message {
            break head;
        }
    };
    let head = replication(from).latest_signed_head_of(replica).unwrap().unwrap();
    forker.send(&Message::Head(head)).await;
    shown
}

/// Both logs are shown, and one of them stands: the same one whoever comes first. A forker that insists
/// on the other one is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_logs_of_one_replica_one_stands_and_both_heads_are_kept() {
    let [one, other] = forked();
    let replica = one.replica_key();
    let mut standing = Vec::new();
    for (id, [first, second]) in [(0x90, [&one, &other]), (0x98, [&other, &one])] {
        let victim = Victim::new(|| store(&["own"])).await;
        let mut honest = Attacker::trusted(&victim, id, VersionVector::new()).await;
        honest.send(&Message::Frame(frame_of(first))).await;
        while !matches!(honest.next().await, Some(Message::Ack(_))) {}
        drop(honest);

        let held = Holdings::of(&replication(second)).unwrap();
        let mut forker = Attacker::trusted(&victim, id + 1, held).await;
        let shown = show_head(&mut forker, second, &replica).await;
        assert_eq!((shown.head.replica, shown.head.length), (replica, 2));
        let branch = replication(second).branch_from(&replica, 2).unwrap();
        forker.send(&Message::Branch(branch.clone())).await;
        let mut stands = false;
        while let Some(message) = forker.next().await {
            if let Message::Branch(_) = message {
                stands = true;
                forker.send(&Message::Branch(branch.clone())).await;
                forker.expect_cut_off("a branch that does not stand").await;
                break;
            }
        }
        let proofs = replication(&victim.database).forks().unwrap();
        let signed = replication(second).latest_signed_head_of(&replica).unwrap().unwrap();
        assert_eq!(proofs, [(shown, signed)]);
        let orphans = victim.database.orphans().unwrap();
        assert_eq!(orphans.len(), usize::from(!stands), "what has lost is kept: {orphans:?}");
        let keys: Vec<String> =
            victim.database.list(&task()).unwrap().into_iter().map(|record| record.key).collect();
        assert_eq!(keys.len(), 3);
        standing.push(keys);
        victim.survives(3).await;
    }
    assert_eq!(standing[0], standing[1]);
}

/// A longer log that does not go on from the one that is held is not applied, and whoever does not say
/// where the two part is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_go_on_from_the_one_that_is_held_is_refused() {
    let victim = Victim::new(|| store(&["own"])).await;
    let [one, other] = forked();
    let replica = one.replica_key();
    add(&other, "one more");
    let mut attacker = Attacker::trusted(&victim, 0x92, VersionVector::new()).await;
    attacker.send(&Message::Frame(frame_of(&one))).await;
    while !matches!(attacker.next().await, Some(Message::Ack(_))) {}
    attacker.send(&Message::Frame(frame_of(&other))).await;
    show_head(&mut attacker, &other, &replica).await;
    attacker.send(&Message::Roots(Vec::new())).await;
    let roots = loop {
        if let Message::Roots(roots) = attacker.next().await.expect("the victim asks") {
            break roots;
        }
    };
    // As if all of them were its own.
    attacker.send(&Message::Roots(roots)).await;
    attacker.expect_cut_off("changes that are not what was signed").await;
    victim.survives(3).await;
}

/// A branch that its replica has not signed, or that begins somewhere else, changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_none_is_refused() {
    let [one, other] = forked();
    let replica = one.replica_key();
    let of = |number| replication(&other).branch_from(&replica, number).unwrap();
    let mut unsigned = of(2);
    let last = unsigned.len() - 1;
    unsigned[last] ^= 1;
    let same = replication(&one).branch_from(&replica, 2).unwrap();
    let cases = [
        (unsigned, "has not signed"),
        (same, "does not differ"),
        (frame_of(&store(&["somebody else"])), "behind the log that is held"),
    ];
    let victim = Victim::new(|| store(&["own"])).await;
    let mut honest = Attacker::trusted(&victim, 0x94, VersionVector::new()).await;
    honest.send(&Message::Frame(frame_of(&one))).await;
    while !matches!(honest.next().await, Some(Message::Ack(_))) {}
    for (id, (branch, reason)) in (0x95..).zip(cases) {
        let held = Holdings::of(&replication(&other)).unwrap();
        let mut forker = Attacker::trusted(&victim, id, held).await;
        show_head(&mut forker, &other, &replica).await;
        forker.send(&Message::Branch(branch)).await;
        forker.expect_cut_off(reason).await;
    }
    victim.survives(3).await;
}

/// Branches are looked at one by one, and nobody makes a victim keep many.
#[tokio::test(flavor = "multi_thread")]
async fn branches_all_at_once_are_cut_off() {
    let [one, other] = forked();
    let replica = one.replica_key();
    let victim = Victim::new(|| store(&["own"])).await;
    let mut honest = Attacker::trusted(&victim, 0x99, VersionVector::new()).await;
    honest.send(&Message::Frame(frame_of(&one))).await;
    while !matches!(honest.next().await, Some(Message::Ack(_))) {}
    let held = Holdings::of(&replication(&other)).unwrap();
    let mut forker = Attacker::trusted(&victim, 0x9a, held).await;
    show_head(&mut forker, &other, &replica).await;
    let branch = replication(&other).branch_from(&replica, 2).unwrap();
    let database = victim.database.clone();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    // While somebody uses the namespace none of them can be applied.
    let using = tokio::task::spawn_blocking(move || {
        database.transaction(|_| {
            let _ = begun.send(());
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        })
    });
    has_begun.await.unwrap();
    for _ in 0..8 {
        forker.send(&Message::Branch(branch.clone())).await;
    }
    forker.expect_cut_off("a branch out of turn").await;
    using.await.unwrap().unwrap();
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
