//! Writes in somebody else's name.

use vudo_crdt::{FrameWriter, ReplicaKey, SignedFrame, VersionVector, write_signed_frame};
use vudo_crdt::{SEAL_BYTES, Seal, wire::Reader};
use vudo_p2p::proto::Message;

use crate::attacker::{Attacker, Victim, frame_of, store};

/// The changes of a signed frame, and its seals.
fn seals_of(bytes: &[u8]) -> Vec<Seal> {
    let count = SignedFrame::parse(bytes).unwrap().frame().replicas().len();
    let mut reader = Reader::new(&bytes[bytes.len() - count * SEAL_BYTES..]);
    (0..count).map(|_| Seal::decode(&mut reader).unwrap()).collect()
}

/// The changes of one store under the key of another, with these seals.
fn in_the_name_of(key: ReplicaKey, bytes: &[u8], seals: &[Seal]) -> Vec<u8> {
    let signed = SignedFrame::parse(bytes).unwrap();
    let keys = [key];
    let mut writer = FrameWriter::new(&keys, signed.frame().gen_names().iter());
    signed.frame().changes().for_each(|change| writer.push(&change));
    let mut forged = Vec::new();
    write_signed_frame(&writer.finish(), seals, &mut forged);
    forged
}

/// Whoever holds the ticket's secret can write in its own name, and in nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_the_name_of_another_replica_is_refused() {
    let victim = Victim::new(|| store(&["own"])).await;
    let false_changes = frame_of(&store(&["false 1", "false 2"]));
    for (id, name) in [(0xb0, victim.database.replica_key()), (0xb1, ReplicaKey([9; 32]))] {
        let forged = in_the_name_of(name, &false_changes, &seals_of(&false_changes));
        let mut attacker = Attacker::trusted(&victim, id, VersionVector::new()).await;
        attacker.send(&Message::Frame(forged)).await;
        attacker.expect_cut_off("has not signed the changes up to number 2").await;
    }
    victim.survives(1).await;
}

/// Whoever passes changes on can pass them on as they are, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_altered_on_the_way_is_refused() {
    let victim = Victim::new(|| store(&["own"])).await;
    let writer = store(&["true 1", "true 2"]);
    let seals = seals_of(&frame_of(&writer));
    let altered = frame_of(&store(&["true 1", "false"]));
    let forged = in_the_name_of(writer.replica_key(), &altered, &seals);
    let mut attacker = Attacker::trusted(&victim, 0xb2, VersionVector::new()).await;
    attacker.send(&Message::Frame(forged)).await;
    attacker.expect_cut_off("has signed another log").await;

    let mut honest = Attacker::trusted(&victim, 0xb3, VersionVector::new()).await;
    honest.send(&Message::Frame(frame_of(&writer))).await;
    while !matches!(honest.next().await, Some(Message::Ack(_))) {}
    victim.survives(3).await;
}
