//! Sends more than anybody can take.

use std::time::Duration;

use vudo_crdt::VersionVector;
use vudo_p2p::limits::MESSAGE_ROOM_BYTES;
use vudo_p2p::proto::Message;

use crate::attacker::{Attacker, Victim, frame_of, noise, resident_bytes, store};

const MEMORY_BYTES_MAX: usize = 24 << 20;

/// A message of about 4 MiB but for its last byte: what there is of it is kept until the session ends.
fn unfinished_frame() -> Vec<u8> {
    let text = noise(4 << 20);
    let database = store(&[]);
    let id = database.document_id("bulk");
    let fields = [("title", text.as_str().into())];
    database.create(&crate::attacker::task(), &id, &fields).unwrap();
    let mut bytes = vec![0; 4];
    Message::Frame(frame_of(&database)).encode(&mut bytes);
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes.pop();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_do_not_wait_for_acknowledgements_are_cut_off() {
    let victim = Victim::new(|| store(&["own"])).await;
    let frames: Vec<Vec<u8>> =
        (0..40).map(|number| frame_of(&store(&[&format!("{number}")]))).collect();
    let mut attacker = Attacker::trusted(&victim, 0xb0, VersionVector::new()).await;
    // All in one go, so that nothing is acknowledged in between.
    let mut bytes = Vec::new();
    for frame in frames {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        Message::Frame(frame).encode(&mut bytes);
        let length = (bytes.len() - start - 4) as u32;
        bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
    attacker.send_bytes(&bytes).await;
    attacker.expect_cut_off("more frames than may wait for acknowledgement").await;
    let held = victim.database.list(&crate::attacker::task()).unwrap().len();
    assert!(held < 41);
    victim.survives(held).await;
}

/// What there is of a message is given up with its link, however often that is done.
#[tokio::test(flavor = "multi_thread")]
async fn what_never_becomes_a_message_does_not_stay_in_memory() {
    let victim = Victim::new(|| store(&["own"])).await;
    let unfinished = unfinished_frame();
    let before = resident_bytes();
    for _ in 0..40 {
        let mut attacker = Attacker::trusted(&victim, 0xb1, VersionVector::new()).await;
        attacker.send_bytes(&unfinished).await;
        drop(attacker);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes");
    victim.survives(1).await;
}

/// Many at once share the room that there is; whoever finds none goes, and comes again if it is honest.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_many_sides_is_taken_in_bounded_memory() {
    let victim = Victim::new(|| store(&["own"])).await;
    let unfinished = unfinished_frame();
    let before = resident_bytes();
    // They are sent nothing that they would have to acknowledge.
    let held = victim.database.replication("default").unwrap().durable_vector();
    let mut attackers = tokio::task::JoinSet::new();
    for _ in 0..MESSAGE_ROOM_BYTES / unfinished.len() {
        let mut attacker = Attacker::trusted(&victim, 0xb4, held.clone()).await;
        attacker.send_bytes(&unfinished).await;
        // Whoever does not answer pings counts as gone.
        attackers.spawn(async move { while attacker.next().await.is_some() {} });
    }
    let mut last = Attacker::trusted(&victim, 0xb5, held).await;
    last.send_bytes(&unfinished).await;
    last.expect_cut_off("take up as much memory as they may").await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown > MESSAGE_ROOM_BYTES / 2, "they were not taken at once: {grown} bytes");
    assert!(grown < MESSAGE_ROOM_BYTES + MEMORY_BYTES_MAX, "{grown} bytes");
    // Small messages need no room.
    victim.survives(1).await;
    attackers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_of_nothing_are_cut_off() {
    let victim = Victim::new(|| store(&[])).await;
    let mut attacker = Attacker::trusted(&victim, 0xb2, VersionVector::new()).await;
    for _ in 0..1_000 {
        attacker.send(&Message::Ack(VersionVector::new())).await;
    }
    attacker.expect_cut_off("an acknowledgement of nothing").await;
    victim.survives(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_without_end_are_cut_off() {
    let victim = Victim::new(|| store(&["own"])).await;
    let mut attacker = Attacker::connect(&victim, 0xb3).await;
    for channel in 0..1_000u64 {
        let mut piece = Vec::new();
        vudo_crdt::wire::write_varint(&mut piece, channel << 1);
        piece.push(1);
        attacker.send_piece(piece).await;
    }
    attacker.expect_cut_off("too many channels").await;
    victim.survives(1).await;
}

/// A peer that has said who it is and uses no namespace is left, however alive it is.
#[tokio::test(flavor = "multi_thread")]
async fn pings_alone_keep_no_connection() {
    let victim = Victim::new(|| store(&["own"])).await;
    let attacker = Attacker::connect(&victim, 0xb6).await;
    assert!(attacker.closes_though_it_pings(Duration::from_secs(15)).await);
    victim.survives(1).await;
}
