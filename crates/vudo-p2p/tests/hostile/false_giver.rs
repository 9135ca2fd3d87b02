//! Gives a checkpoint that is none, or something else than what is retained below it.

use vudo_crdt::VersionVector;
use vudo_crdt::checkpoint::SignedCheckpoint;
use vudo_crdt::wire::Reader;
use vudo_p2p::limits::CHECKPOINTS_MAX;
use vudo_p2p::proto::Message;
use vudo_state::{CheckpointOffer, CheckpointPart, Database, PartCursor, PartRequest};

use crate::attacker::{Attacker, Victim, frame_of, store, task};
use crate::capability_thief::owned_store;

/// A checkpoint, and all that is retained below it.
fn compacted(title: &str) -> (CheckpointOffer, CheckpointPart) {
    let database: Database = store(&["given"]);
    for number in 0..5 {
        let fields = [("title", format!("{title} {number}").into())];
        database.update(&task(), &database.document_id("given"), &fields).unwrap();
    }
    assert!(database.compact().unwrap().dropped_changes > 0);
    let replication = database.replication(database.namespace()).unwrap();
    let offer = replication.checkpoint_offer().unwrap();
    let request = PartRequest { checkpoint: offer.id(), cursor: PartCursor::default() };
    let hashes = replication.checkpoint_part(&request).unwrap().unwrap();
    let request = PartRequest { cursor: hashes.next.unwrap(), ..request };
    let changes = replication.checkpoint_part(&request).unwrap().unwrap();
    assert_eq!(changes.next, None);
    (offer, changes)
}

async fn next_request(attacker: &mut Attacker) -> PartRequest {
    loop {
        let message = attacker.next().await.expect("it asks for a part");
        if let Message::PartRequest(request) = message {
            return request;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_nobody_has_signed_is_refused() {
    let victim = Victim::new(|| store(&["own"])).await;
    let (offer, _) = compacted("one");
    let mut bytes = Vec::new();
    offer.encode(&mut bytes);
    // Behind the checkpoint's signature there is one seal, of 96 bytes, and no record.
    let place = bytes.len() - 2 - 96;
    bytes[place] ^= 1;
    let altered = CheckpointOffer::decode(&mut Reader::new(&bytes)).unwrap();
    let mut attacker = Attacker::trusted(&victim, 0xc0, VersionVector::new()).await;
    attacker.send(&Message::Checkpoint(Box::new(altered))).await;
    attacker.expect_cut_off("nobody has signed it").await;
    victim.survives(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_below_the_checkpoint_is_refused_and_has_no_effect() {
    let victim = Victim::new(|| store(&["own"])).await;
    let (offer, part) = compacted("one");
    let (_, of_another) = compacted("other");
    for (id, mut part) in [(0xc1, part), (0xc2, of_another)] {
        let mut attacker = Attacker::trusted(&victim, id, VersionVector::new()).await;
        attacker.send(&Message::Checkpoint(Box::new(offer.clone()))).await;
        // The hashes in place of dropped changes are left out.
        part.request = next_request(&mut attacker).await;
        attacker.send(&Message::Part(Box::new(part))).await;
        attacker.expect_cut_off("what it gave of its checkpoint was refused").await;
    }
    victim.survives(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_asked_for_is_refused() {
    let victim = Victim::new(|| store(&["own"])).await;
    let (_, part) = compacted("one");
    let mut attacker = Attacker::trusted(&victim, 0xc3, VersionVector::new()).await;
    attacker.send(&Message::Part(Box::new(part.clone()))).await;
    attacker.expect_cut_off("a message out of turn").await;
    // Nor does it give what it has not offered.
    let mut attacker = Attacker::trusted(&victim, 0xc4, VersionVector::new()).await;
    attacker.send(&Message::PartRequest(part.request)).await;
    attacker.expect_cut_off("a message out of turn").await;
    victim.survives(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_without_an_end_are_cut_off() {
    let victim = Victim::new(|| store(&["own"])).await;
    let (offer, _) = compacted("one");
    let mut attacker = Attacker::trusted(&victim, 0xc5, VersionVector::new()).await;
    for _ in 0..CHECKPOINTS_MAX {
        attacker.send(&Message::Checkpoint(Box::new(offer.clone()))).await;
        next_request(&mut attacker).await;
    }
    attacker.send(&Message::Checkpoint(Box::new(offer))).await;
    attacker.expect_cut_off("checkpoints without an end").await;
    victim.survives(1).await;
}

/// What an owner's checkpoint says, under the attacker's own signature.
fn signed_by(attacker: &Database, offer: &CheckpointOffer) -> CheckpointOffer {
    let mut bytes = Vec::new();
    offer.encode(&mut bytes);
    let mut reader = Reader::new(&bytes);
    let mut signed = SignedCheckpoint::decode(&mut reader).unwrap();
    signed.owner = attacker.replica_key();
    signed.signature = attacker.sign(&signed.checkpoint.bytes_to_sign());
    let mut altered = Vec::new();
    signed.encode(&mut altered);
    altered.extend_from_slice(reader.rest());
    CheckpointOffer::decode(&mut Reader::new(&altered)).unwrap()
}

/// It gives all that an owner's checkpoint retains, and could leave out what nobody holds if its word
/// counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_no_owner_has_signed_is_refused() {
    let owner = owned_store();
    let known = frame_of(&owner);
    for number in 0..5 {
        let fields = [("title", format!("{number}").into())];
        owner.update(&task(), &owner.document_id("private"), &fields).unwrap();
    }
    let report = owner.compact().unwrap();
    assert!(report.dropped_changes > 0 && report.left_alone.is_empty(), "{report:?}");
    let giver = owner.replication(owner.namespace()).unwrap();
    let victim = Victim::new(|| {
        let behind = store(&[]).in_namespace(owner.namespace());
        behind.replication(owner.namespace()).unwrap().apply_frame(&known).unwrap();
        behind
    });
    let victim = victim.await;
    let offer = signed_by(&store(&[]), &giver.checkpoint_offer().unwrap());
    let mut attacker = Attacker::trusted(&victim, 0xc6, VersionVector::new()).await;
    attacker.send(&Message::Checkpoint(Box::new(offer))).await;
    loop {
        let request = next_request(&mut attacker).await;
        let part = giver.checkpoint_part(&request).unwrap().unwrap();
        let is_last = part.next.is_none();
        attacker.send(&Message::Part(Box::new(part))).await;
        if is_last {
            break;
        }
    }
    attacker.expect_cut_off("no owner of the namespace has signed it").await;
    victim.survives(1).await;
}
