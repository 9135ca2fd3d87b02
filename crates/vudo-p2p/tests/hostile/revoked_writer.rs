//! Could write once, and goes on when it may not any more.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vudo_crdt::{SignedFrame, VersionVector};
use vudo_p2p::proto::Message;
use vudo_p2p::{Config, Error, Node};
use vudo_state::storage::MemoryStorage;
use vudo_state::{Database, RightsRecord};

use crate::attacker::{Attacker, Victim, expect_in_log, frame_of, store};
use crate::capability_thief::{add, invite, invite_until, owned_store};
use crate::forker::copy_of;

fn revoke(victim: &Victim, member: &Database) {
    let owner = &victim.database;
    let revocation = owner.revocation_of(owner.replica_key(), member.replica_key()).unwrap();
    owner.issue(RightsRecord::Revocation(revocation), None).unwrap();
}

/// Lets a store write, and gives it what the victim holds.
fn join(victim: &Victim, member: Database) -> Database {
    let member = member.in_namespace(victim.database.namespace());
    invite(victim, &member);
    let replication = member.replication(member.namespace()).unwrap();
    replication.apply_frame(&frame_of(&victim.database)).unwrap();
    member
}

/// What a store holds and `since` does not cover, in one frame.
fn frame_since(database: &Database, since: &VersionVector) -> Vec<u8> {
    let replication = database.replication(database.namespace()).unwrap();
    replication.frame_since(since, usize::MAX).unwrap().expect("there is more").bytes
}

async fn expect_acknowledged(attacker: &mut Attacker) {
    while !matches!(attacker.next().await, Some(Message::Ack(_))) {}
}

/// It still has the secret, and does not want to know of its revocation: what it writes is held and
/// passed on, and has no effect anywhere. What it wrote before stays.
#[tokio::test(flavor = "multi_thread")]
async fn what_it_writes_after_the_cut_has_no_effect_anywhere() {
    let victim = Victim::new(owned_store).await;
    let member = join(&victim, store(&[]));
    let held =
        |database: &Database| database.replication(database.namespace()).unwrap().durable_vector();
    add(&member, "in time").unwrap();
    let mut attacker = Attacker::trusted(&victim, 0xc0, held(&victim.database)).await;
    attacker.send(&Message::Frame(frame_since(&member, &held(&victim.database)))).await;
    expect_acknowledged(&mut attacker).await;
    let before = held(&victim.database);
    revoke(&victim, &member);

    for key in ["too late", "later still"] {
        add(&member, key).unwrap();
    }
    let late = frame_since(&member, &before);
    assert_eq!(SignedFrame::parse(&late).unwrap().change_count(), 2);
    attacker.send(&Message::Frame(late)).await;
    expect_acknowledged(&mut attacker).await;
    let replication = victim.database.replication(victim.database.namespace()).unwrap();
    assert_eq!(replication.set_aside_count(&member.replica_key()), 2);
    expect_in_log(&member.replica_key().to_string(), "changes that nothing allows were set aside");
    assert_eq!(held(&victim.database).get(&member.replica_key()), 3);
    drop(attacker);
    // Another store gets all of it from the victim, and comes to the same two documents.
    victim.survives(2).await;
}

/// It writes its past anew. Its signatures prove that there are two logs, of which everybody holds the
/// same one: above the cut neither has an effect.
#[tokio::test(flavor = "multi_thread")]
async fn it_has_no_more_below_the_cut_than_one_of_two_logs() {
    let victim = Victim::new(owned_store).await;
    let storage = Arc::new(MemoryStorage::default());
    let member = join(&victim, Database::with_storage(storage.clone(), None).unwrap());
    let other = copy_of(&storage).in_namespace(member.namespace());
    assert_eq!(other.replica_key(), member.replica_key());
    add(&member, "in time").unwrap();
    let mut attacker = Attacker::trusted(&victim, 0xc1, VersionVector::new()).await;
    attacker.send(&Message::Frame(frame_of(&member))).await;
    expect_acknowledged(&mut attacker).await;
    revoke(&victim, &member);

    add(&other, "instead").unwrap();
    add(&other, "and more").unwrap();
    attacker.send(&Message::Frame(frame_of(&other))).await;
    let replica = member.replica_key();
    let of_other = other.replication(other.namespace()).unwrap();
    let first = member.replication(member.namespace()).unwrap().durable_vector().get(&replica);
    while !matches!(attacker.next().await, Some(Message::Head(_))) {}
    let head = of_other.latest_signed_head_of(&replica).unwrap().unwrap();
    attacker.send(&Message::Head(head)).await;
    let branch = of_other.branch_from(&replica, first).unwrap();
    attacker.send(&Message::Branch(branch)).await;
    loop {
        match attacker.next().await {
            Some(Message::Branch(_) | Message::Goodbye(_)) | None => break,
            Some(_) => {}
        }
    }
    drop(attacker);
    victim.survives(2).await;
}

/// Its sessions end with its right, and it does not come in again.
#[tokio::test(flavor = "multi_thread")]
async fn its_sessions_end_and_it_is_not_let_in_again() {
    const PATIENCE: Duration = Duration::from_secs(10);
    let victim = Victim::new(owned_store).await;
    let member = store(&[]).in_namespace(victim.database.namespace());
    let ticket = invite(&victim, &member);
    let client = Node::spawn(&member, Config { quic: None, websocket: None, ..Config::default() })
        .await
        .unwrap();
    let link = client.connect(&ticket).await.unwrap();
    link.wait_until_synced(PATIENCE).await.unwrap();
    add(&member, "in time").unwrap();
    link.wait_until_synced(PATIENCE).await.unwrap();

    revoke(&victim, &member);
    let ended = loop {
        match link.wait_until_synced(PATIENCE).await {
            // Until it is told.
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, Error::AccessEnded), "{ended}");
    let refused = client.connect(&ticket).await.err();
    assert!(matches!(refused, Some(Error::WrongSecret)), "{refused:?}");
    client.shutdown().await;
    victim.survives(2).await;
}

/// A right that ends by itself ends a session that is open then, on the wall's clock.
#[tokio::test(flavor = "multi_thread")]
async fn its_session_ends_when_its_grant_expires() {
    const LIFE: Duration = Duration::from_millis(1_500);
    let victim = Victim::new(owned_store).await;
    let member = store(&[]).in_namespace(victim.database.namespace());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let expires = (now + LIFE).as_millis() as u64;
    let ticket = invite_until(&victim, &member, Some(expires));
    let client = Node::spawn(&member, Config { quic: None, websocket: None, ..Config::default() })
        .await
        .unwrap();
    let link = client.connect(&ticket).await.unwrap();
    link.wait_until_synced(LIFE).await.unwrap();
    // Nothing is said meanwhile: the end comes by itself.
    let ended = loop {
        match link.wait_until_synced(Duration::from_secs(10)).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => break error,
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(matches!(ended, Error::AccessEnded), "{ended}");
    assert!(now >= expires, "it ended {} ms too early", expires - now);
    let refused = client.connect(&ticket).await.err();
    assert!(matches!(refused, Some(Error::WrongSecret)), "{refused:?}");
    client.shutdown().await;
    victim.survives(1).await;
}
