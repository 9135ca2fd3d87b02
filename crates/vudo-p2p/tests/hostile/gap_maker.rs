//! Leaves changes out of the middle.

use vudo_crdt::VersionVector;
use vudo_p2p::proto::Message;

use crate::attacker::{Attacker, Victim, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_refused_and_nothing_of_its_frame_applied() {
    let victim = Victim::new(|| store(&["own"])).await;
    let source = store(&["first", "second", "third"]);
    let mut without_first = VersionVector::new();
    without_first.advance(source.replica_key(), 1);
    let replication = source.replication("default").unwrap();
    let frame = replication.frame_since(&without_first, usize::MAX).unwrap().unwrap();
    assert_eq!(frame.changes, 2);
    let mut attacker = Attacker::trusted(&victim, 0xa0, VersionVector::new()).await;
    attacker.send(&Message::Frame(frame.bytes)).await;
    attacker.expect_cut_off("a frame was refused").await;
    victim.survives(1).await;
}
