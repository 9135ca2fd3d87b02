//! Sends more than anybody can take.

use vudo_crdt::VersionVector;
use vudo_p2p::proto::Message;

use crate::attacker::{Attacker, Victim, frame_of, noise, resident_bytes, store};

const MEMORY_BYTES_MAX: usize = 48 << 20;

/// A frame of about 4 MiB that applies.
fn bulky_frame(number: usize) -> Vec<u8> {
    let text = noise(4 << 20);
    let database = store(&[]);
    let id = database.document_id(&format!("bulk {number}"));
    let fields = [("title", text.as_str().into())];
    database.create(&crate::attacker::task(), &id, &fields).unwrap();
    frame_of(&database)
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
    assert!(victim.database.list(&crate::attacker::task()).unwrap().len() < 41);
    victim.node.shutdown().await;
}

/// Frames that are as large as they may be, as fast as the link takes them.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_taken_in_bounded_memory() {
    let victim = Victim::new(|| store(&["own"])).await;
    let frames: Vec<Vec<u8>> = (0..3).map(bulky_frame).collect();
    let before = resident_bytes();
    for frame in frames {
        let mut attacker = Attacker::trusted(&victim, 0xb1, VersionVector::new()).await;
        // The last byte never comes: what there is of the frame is kept, and given up with the link.
        let mut bytes = vec![0; 4];
        Message::Frame(frame).encode(&mut bytes);
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        attacker.send_bytes(&bytes[..bytes.len() - 1]).await;
        drop(attacker);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes");
    victim.survives(1).await;
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
