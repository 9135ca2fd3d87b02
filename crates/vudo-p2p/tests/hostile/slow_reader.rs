//! Asks for everything and reads nothing.

use std::time::Duration;

use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_p2p::limits::{PROGRESS_TIMEOUT, UNACKNOWLEDGED_BYTES_MAX, UNACKNOWLEDGED_FRAMES_MAX};
use vudo_p2p::proto::{CloseReason, Effect, Event, Message};
use vudo_state::OutgoingFrame;

use crate::attacker::{Attacker, Victim, noise, open_session, resident_bytes, store, task};

const HELD_BYTES: usize = 60 << 20;
const MEMORY_BYTES_MAX: usize = 24 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_read_is_not_queued() {
    let victim = Victim::new(|| {
        let database = store(&[]);
        let text = noise(1 << 20);
        for number in 0..HELD_BYTES >> 20 {
            let id = database.document_id(&number.to_string());
            database.create(&task(), &id, &[("title", text.as_str().into())]).unwrap();
        }
        database
    })
    .await;
    let before = resident_bytes();
    let attackers = [0xd0, 0xd1, 0xd2].map(|id| (id, &victim));
    let mut held = Vec::new();
    for (id, victim) in attackers {
        held.push(Attacker::trusted(victim, id, VersionVector::new()).await);
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes for three readers that do not read");
    drop(held);
    victim.survives(HELD_BYTES >> 20).await;
}

/// Frames go out until the window is full; whoever acknowledges none of them is cut off in time.
#[test]
fn whoever_acknowledges_nothing_expect_cut_off() {
    let database = store(&["a", "b", "c", "d", "e", "f", "g"]);
    let replication = database.replication("default").unwrap();
    let (mut session, effects) = open_session(replication.durable_vector(), VersionVector::new());
    let mut to_read: Vec<VersionVector> = effects.iter().filter_map(wanted).collect();
    let mut sent_count = 0;
    while let Some(since) = to_read.pop() {
        let frame: Option<OutgoingFrame> = replication.frame_since(&since, 1).unwrap();
        for effect in session.handle(Event::FrameReady(frame), 0) {
            sent_count += usize::from(matches!(effect, Effect::Send(Message::Frame(_))));
            to_read.extend(wanted(&effect));
        }
    }
    assert_eq!(sent_count, UNACKNOWLEDGED_FRAMES_MAX);
    let deadline = session.deadline().expect("the session waits for an acknowledgement");
    assert_eq!(u128::from(deadline), PROGRESS_TIMEOUT.as_millis());
    assert_eq!(session.handle(Event::TimePassed, deadline - 1), []);
    let effects = session.handle(Event::TimePassed, deadline);
    let reason = "it does not acknowledge what it was sent".to_owned();
    assert_eq!(effects.last(), Some(&Effect::Close(CloseReason::PeerMisbehaved(reason))));
}

/// Two mebibytes on their way are enough, in however few frames.
#[test]
fn nothing_follows_a_large_frame_before_it_is_acknowledged() {
    let held = |number| {
        let mut vector = VersionVector::new();
        vector.advance(ReplicaKey([9; 32]), number);
        vector
    };
    for (byte_count, follows) in
        [(UNACKNOWLEDGED_BYTES_MAX - 1, true), (UNACKNOWLEDGED_BYTES_MAX, false)]
    {
        let (mut session, effects) = open_session(held(3), VersionVector::new());
        assert!(effects.iter().any(|effect| wanted(effect).is_some()));
        let frame = OutgoingFrame { bytes: vec![7; byte_count], vector: held(1), changes: 1 };
        let effects = session.handle(Event::FrameReady(Some(frame)), 0);
        let asks = effects.iter().any(|effect| wanted(effect).is_some());
        assert_eq!(asks, follows, "{byte_count} bytes");
        if !follows {
            let effects = session.handle(Event::Received(Message::Ack(held(1))), 0);
            assert!(effects.iter().any(|effect| wanted(effect).is_some()), "it goes on then");
        }
    }
}

fn wanted(effect: &Effect) -> Option<VersionVector> {
    match effect {
        Effect::ReadFrame { since, .. } => Some(since.clone()),
        _ => None,
    }
}
