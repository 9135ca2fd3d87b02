//! Sends frames with any one byte changed.

use vudo_crdt::{SEAL_BYTES, VersionVector};
use vudo_p2p::proto::Message;

use crate::attacker::{Attacker, Victim, frame_of, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_with_a_wrong_byte_is_refused_and_applied_by_nobody() {
    let victim = Victim::new(|| store(&["own"])).await;
    let frame = frame_of(&store(&["from the attacker"]));
    for place in (0..frame.len()).step_by(frame.len() / 8) {
        let mut attacker = Attacker::trusted(&victim, 0xc0, VersionVector::new()).await;
        let mut corrupt = frame.clone();
        corrupt[place] ^= 0x20;
        attacker.send(&Message::Frame(corrupt)).await;
        // What follows the frame is its writer's signature.
        let is_in_seal = place >= frame.len() - SEAL_BYTES;
        let reason = if is_in_seal { "has not signed" } else { "malformed frame" };
        attacker.expect_cut_off(reason).await;
    }
    victim.survives(1).await;
}
