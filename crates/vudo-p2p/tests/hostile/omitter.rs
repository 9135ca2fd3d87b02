//! Claims everything and sends nothing.

use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_p2p::limits::PROGRESS_TIMEOUT;
use vudo_p2p::proto::{CloseReason, Effect, Event, Message, MessageKind};

use crate::attacker::open_session;

fn claims_nine() -> VersionVector {
    let mut claimed = VersionVector::new();
    claimed.advance(ReplicaKey([9; 32]), 9);
    claimed
}

fn omission() -> Effect {
    let reason = "it claims changes and sends none of them".to_owned();
    Effect::Close(CloseReason::PeerMisbehaved(reason))
}

#[test]
fn whoever_claims_changes_and_sends_none_expect_cut_off() {
    let (mut session, _) = open_session(VersionVector::new(), claims_nine());
    let limit = PROGRESS_TIMEOUT.as_millis() as u64;
    assert_eq!(session.deadline(), Some(limit));
    assert_eq!(session.handle(Event::TimePassed, limit - 1), []);
    assert_eq!(session.handle(Event::TimePassed, limit).last(), Some(&omission()));
}

/// Chatter does not count as sending what is owed; bytes of a large frame do.
#[test]
fn talking_about_other_things_does_not_help() {
    let (mut session, _) = open_session(VersionVector::new(), claims_nine());
    let limit = PROGRESS_TIMEOUT.as_millis() as u64;
    let chatter = Message::Fingerprint { vector: [0; 16], fingerprint: [0; 32] };
    for now in (0..limit).step_by(1_000) {
        assert_eq!(session.handle(Event::Received(chatter.clone()), now), []);
    }
    let effects = session.handle(Event::Received(chatter), limit);
    assert_eq!(effects.last(), Some(&omission()));

    let (mut session, _) = open_session(VersionVector::new(), claims_nine());
    let progressed = Event::Progressed(MessageKind::Changes);
    for now in (0..3 * limit).step_by(limit as usize / 2) {
        let effects = session.handle(progressed.clone(), now);
        assert_eq!(effects, [], "a slow peer is not a silent one");
    }

    let (mut session, _) = open_session(VersionVector::new(), claims_nine());
    session.handle(Event::Progressed(MessageKind::Other), limit - 1);
    let effects = session.handle(Event::Progressed(MessageKind::Other), limit);
    assert_eq!(effects.last(), Some(&omission()), "a slow piece of chatter is chatter");
}
