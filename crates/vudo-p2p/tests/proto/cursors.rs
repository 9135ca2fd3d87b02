//! How a session begins: with what is held of few replicas, with a digest where the two may hold the same,
//! and with what has changed since they last met.

use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_p2p::limits::{PROGRESS_TIMEOUT, WHOLE_HOLDINGS_REPLICAS_MAX};
use vudo_p2p::proto::{CloseReason, Effect, Event, Holdings, Message};
use vudo_state::Database;

use crate::side::{Side, database, encode, fill, pair, run};

const WRITER_COUNT: usize = 50;

/// A store with changes of many replicas.
fn of_many_writers() -> Database {
    let gathered = database(&[]);
    for number in 0..WRITER_COUNT {
        copy(&database(&[&format!("of writer {number}")]), &gathered);
    }
    gathered
}

fn copy(from: &Database, to: &Database) {
    let [from, to] = [from, to].map(|database| database.replication("default").unwrap());
    while let Some(frame) = from.frame_since(&to.durable_vector(), usize::MAX).unwrap() {
        to.apply_frame(&frame.bytes).unwrap();
    }
}

/// The two sides of a session that has brought two stores to the same state.
fn sync(left: &Database, right: &Database) -> [Side; 2] {
    let (mut client, mut server) = pair(left, right, crate::side::SECRET);
    run(&mut client, &mut server);
    assert_eq!((&client.closed, &server.closed), (&None, &None));
    let held = [left, right].map(|database| database.replication("default").unwrap());
    assert_eq!(held[0].fingerprint().unwrap(), held[1].fingerprint().unwrap());
    assert_eq!(client.synced_vector(), Some(&held[0].durable_vector()));
    assert_eq!(server.synced_vector(), Some(&held[0].durable_vector()));
    [client, server]
}

fn byte_count(sides: &[Side; 2]) -> usize {
    let sent = sides.iter().flat_map(|side| &side.sent);
    sent.map(|message| encode(message).len()).sum()
}

fn has_asked(side: &Side) -> bool {
    side.sent.contains(&Message::HoldingsWanted)
}

/// Of how many replicas a side has told what it holds, by messages of any kind.
fn told_replicas(side: &Side) -> usize {
    let told = |message: &Message| match message {
        Message::Holdings(held) | Message::HoldingsSince { changed: held, .. } => {
            held.vector.replica_count()
        }
        _ => 0,
    };
    side.sent.iter().map(told).sum()
}

/// They have never met: a third store has given both what they hold.
#[test]
fn equal_replicas_of_many_writers_need_one_round_trip_and_few_bytes() {
    let left = of_many_writers();
    let right = database(&[]);
    copy(&left, &right);
    let sides = sync(&left, &right);
    for side in &sides {
        assert!(!has_asked(side) && told_replicas(side) == 0, "{:?}", side.sent);
    }
    let byte_count = byte_count(&sides);
    println!("equal replicas of {WRITER_COUNT} writers: {byte_count} bytes in both directions");
    assert!(byte_count <= 2_048, "{byte_count}");
}

#[test]
fn who_met_before_tells_what_has_changed_since() {
    let (left, right) = (of_many_writers(), database(&["right"]));
    let sides = sync(&left, &right);
    assert!(has_asked(&sides[1]), "it knows nothing of the client's digest");
    fill(&left, &["new here"]);
    copy(&database(&["from elsewhere"]), &right);
    let sides = sync(&left, &right);
    for side in &sides {
        assert!(!has_asked(side));
        assert_eq!(told_replicas(side), 1);
    }
    // Nothing new at all.
    let sides = sync(&left, &right);
    assert!(sides.iter().all(|side| !has_asked(side) && told_replicas(side) == 0));
}

/// One side has lost what it knew of the other, in a crash for example.
#[test]
fn whoever_does_not_know_a_cursor_asks_for_the_whole() {
    let (left, right) = (of_many_writers(), of_many_writers());
    sync(&left, &right);
    let forgetful = database(&[]);
    copy(&right, &forgetful);
    fill(&forgetful, &["new there"]);
    fill(&left, &["new here"]);
    let sides = sync(&left, &forgetful);
    assert!(has_asked(&sides[0]) && has_asked(&sides[1]));
    sync(&left, &forgetful);
}

#[test]
fn few_replicas_are_told_whole() {
    let (left, right) = (database(&["left"]), database(&["right"]));
    for _ in 0..2 {
        for side in sync(&left, &right) {
            let is_whole = |message: &Message| matches!(message, Message::Holdings(_));
            assert!(side.sent.iter().any(is_whole) && !has_asked(&side));
            let replication = side.database.replication("default").unwrap();
            assert_eq!(replication.cursor(&side.peer), None, "it would not be used");
        }
    }
}

/// The server of a session up to where it has asked a client for what that holds.
fn server_that_has_asked() -> (Side, Side) {
    let (left, right) = (of_many_writers(), database(&["right"]));
    let (mut client, mut server) = pair(&left, &right, crate::side::SECRET);
    while !has_asked(&server) {
        server.events.extend(client.step().into_iter().map(Event::Received));
        client.events.extend(server.step().into_iter().map(Event::Received));
    }
    (client, server)
}

fn misbehaved(what: &str) -> Option<Effect> {
    Some(Effect::Close(CloseReason::PeerMisbehaved(what.to_owned())))
}

#[test]
fn whoever_is_asked_and_does_not_answer_is_cut_off() {
    let (_, mut server) = server_that_has_asked();
    let limit = PROGRESS_TIMEOUT.as_millis() as u64;
    assert_eq!(server.session.deadline(), Some(limit));
    // Chatter is no answer.
    let chatter = Message::Fingerprint { vector: [0; 16], fingerprint: [0; 32] };
    assert_eq!(server.session.handle(Event::Received(chatter), limit - 1), []);
    let effects = server.session.handle(Event::TimePassed, limit);
    assert_eq!(effects.last(), misbehaved("it does not say what it holds").as_ref());
}

#[test]
fn what_is_held_is_told_once_and_asked_for_once() {
    let (mut client, mut server) = server_that_has_asked();
    let held = Event::Received(Message::Holdings(VersionVector::new().into()));
    server.session.handle(held.clone(), 0);
    let effects = server.session.handle(held, 0);
    assert!(matches!(effects.last(), Some(Effect::Close(CloseReason::PeerMisbehaved(_)))));

    while !client.events.is_empty() {
        client.step();
    }
    let is_whole = |message: &&Message| matches!(message, Message::Holdings(_));
    assert_eq!(client.sent.iter().filter(is_whole).count(), 1);
    let effects = client.session.handle(Event::Received(Message::HoldingsWanted), 0);
    assert!(matches!(effects.last(), Some(Effect::Close(CloseReason::PeerMisbehaved(_)))));
}

/// What is said to have changed makes no more of it than a vector can name.
#[test]
fn more_replicas_than_a_vector_can_name_are_refused() {
    let (left, right) = (of_many_writers(), database(&["right"]));
    let digest = Holdings::of(&right.replication("default").unwrap()).unwrap().digest();
    let (mut client, mut server) = pair(&left, &right, crate::side::SECRET);
    let mut changed = VersionVector::new();
    for number in 0..vudo_crdt::limits::MAX_VECTOR_REPLICAS as u32 {
        let mut key = ReplicaKey::default();
        key.0[..4].copy_from_slice(&number.to_be_bytes());
        changed.advance(key, 1);
    }
    let changed = Holdings::from(changed);
    while server.closed.is_none() {
        let said = client.step().into_iter().map(|message| match message {
            Message::HoldingsSince { .. } => {
                Message::HoldingsSince { digest, changed: changed.clone() }
            }
            message => message,
        });
        server.events.extend(said.map(Event::Received));
        client.events.extend(server.step().into_iter().map(Event::Received));
    }
    let refused = CloseReason::PeerMisbehaved("more replicas than a vector can name".to_owned());
    assert_eq!(server.closed, Some(refused));
    const { assert!(WHOLE_HOLDINGS_REPLICAS_MAX < WRITER_COUNT) };
}
