//! The protocol without a network: two sessions, and messages carried between them by hand.

use std::sync::Arc;

use vudo_crdt::{
    FieldSchema, GenSchema, Predecessor, Ranges, ReplicaKey, Schema, Strategy, ValueType,
    VersionVector,
};
use vudo_p2p::limits::{HANDSHAKE_TIMEOUT, PROGRESS_TIMEOUT, RANGE_MESSAGES_MAX, REPAIRS_MAX};
use vudo_p2p::proto::{
    CloseReason, Effect, Event, Holdings, Message, Notice, SchemaDifferences, Session,
};
use vudo_state::Database;
use vudo_state::storage::{MemoryStorage, Storage, WriteBatch};

mod cursors;
mod side;

use side::{SECRET, Side, database, encode, open, pair, run, task};

#[test]
fn two_sessions_bring_two_stores_to_the_same_state() {
    let left_keys: Vec<String> = (0..60).map(|number| format!("left {number}")).collect();
    let left_keys: Vec<&str> = left_keys.iter().map(String::as_str).collect();
    let (left, right) = (database(&left_keys), database(&["right"]));
    let (mut client, mut server) = pair(&left, &right, SECRET);
    run(&mut client, &mut server);
    assert_eq!((&client.closed, &server.closed), (&None, &None));
    let (left, right) =
        (left.replication("default").unwrap(), right.replication("default").unwrap());
    assert_eq!(left.fingerprint().unwrap(), right.fingerprint().unwrap());
    assert_eq!(client.synced_vector(), Some(&left.durable_vector()));
    assert_eq!(server.synced_vector(), Some(&left.durable_vector()));
    let frames = |side: &Side| {
        side.sent.iter().filter(|message| matches!(message, Message::Frame(_))).count()
    };
    assert!(frames(&client) > 3, "frames are bounded");
    assert_eq!(frames(&server), 1, "nothing is echoed");
}

/// Equal replicas find out that they are with their vectors and one fingerprint each.
#[test]
fn equal_replicas_of_100_000_documents_need_one_round_trip_and_few_bytes() {
    let (left, right) = (database(&[]), database(&[]));
    let task = task();
    for database in [&left, &right] {
        database.define(&Schema::from(vec![task.clone()])).unwrap();
    }
    for start in (0..100_000).step_by(1_000) {
        left.transaction(|transaction| {
            (start..start + 1_000).try_for_each(|number| {
                transaction.create(&task, &number.to_string())?;
                transaction.set(&task, &number.to_string(), "title", "the same on both sides")
            })
        })
        .unwrap();
    }
    let everything = left.replication("default").unwrap();
    let everything = everything.frame_since(&VersionVector::new(), usize::MAX).unwrap().unwrap();
    right.replication("default").unwrap().apply_frame(&everything.bytes).unwrap();
    let (mut client, mut server) = pair(&left, &right, SECRET);
    run(&mut client, &mut server);
    let mut byte_count = 0;
    for side in [&client, &server] {
        assert!(side.synced_vector().is_some());
        let is_handshake =
            |message: &&Message| matches!(message, Message::Hello { .. } | Message::Proof(_));
        let [Message::Schema(_), Message::Holdings(_), Message::Fingerprint { .. }] =
            side.sent.iter().skip_while(is_handshake).collect::<Vec<_>>()[..]
        else {
            panic!("{:?}", side.sent);
        };
        byte_count += side.sent.iter().map(|message| encode(message).len()).sum::<usize>();
    }
    println!("100,000 equal documents: {byte_count} bytes in both directions, handshake included");
    assert!(byte_count <= 2_048, "{byte_count}");
}

fn told_differences(side: &Side) -> Vec<&SchemaDifferences> {
    let told = side.notices.iter().filter_map(|notice| match notice {
        Notice::SchemasDiffer(differences) => Some(differences),
        _ => None,
    });
    told.collect()
}

/// A newer version of one Gen, a conflict in another, one that is the same and one that the other side
/// does not know: the stores become equal, and both sides are told once what differs.
#[test]
fn stores_of_different_schemas_sync_and_are_told_what_differs() {
    let field = |name, number, strategy| FieldSchema::new(name, number, strategy, ValueType::I64);
    let same = GenSchema::new("Same", [field("votes", 1, Strategy::PnCounter)]);
    let mut evolved = field("size", 2, Strategy::Lww);
    let earlier = field("size", 1, Strategy::Immutable);
    evolved.predecessor = Some(Box::new(Predecessor { field: earlier.clone(), conversion: None }));
    let old = vec![
        GenSchema::new("Box", [earlier]),
        GenSchema::new("Poll", [field("votes", 1, Strategy::PnCounter)]),
        same.clone(),
        task(),
    ];
    let new = vec![
        same,
        GenSchema::new("Box", [evolved]),
        GenSchema::new("Poll", [field("votes", 1, Strategy::Lww)]),
    ];
    let (left, right) = (database(&["left"]), database(&["right"]));
    left.define(&Schema::from(old)).unwrap();
    right.define(&Schema::from(new)).unwrap();
    let (mut client, mut server) = pair(&left, &right, SECRET);
    run(&mut client, &mut server);
    assert_eq!((&client.closed, &server.closed), (&None, &None));
    assert!(client.synced_vector().is_some() && server.synced_vector().is_some());
    let said = |side: &Side| {
        let [differences] = told_differences(side)[..] else { panic!("{:?}", side.notices) };
        let is_conflict = |one: &vudo_p2p::proto::GenDifference| one.is_conflict();
        assert_eq!(differences.gens.iter().map(is_conflict).collect::<Vec<_>>(), [false, true]);
        let said: Vec<String> = differences.gens.iter().map(ToString::to_string).collect();
        (said, differences.undefined_at_peer.clone())
    };
    let (at_client, undefined) = said(&client);
    assert_eq!(
        at_client[0],
        "the schemas of the two stores differ in Gen Box: number 2 is 'size: lww i64' at the peer and \
         unknown here"
    );
    assert_eq!(undefined, ["Task"]);
    let (at_server, undefined) = said(&server);
    assert_eq!(
        at_server[1],
        "the schemas of the two stores differ in Gen Poll: number 1 is 'votes: lww i64' here and \
         'votes: pn_counter i64' at the peer, which read different things: give one of them another \
         number"
    );
    assert_eq!(undefined, [""; 0]);
    // A store that has defined nothing tells nothing, and nothing differs.
    let relay = database(&[]);
    let (mut client, mut server) = pair(&left, &relay, SECRET);
    run(&mut client, &mut server);
    assert!(client.synced_vector().is_some());
    assert!(!server.sent.iter().any(|message| matches!(message, Message::Schema(_))));
    assert_eq!(told_differences(&client).len() + told_differences(&server).len(), 0);
}

/// Fields are told as far as they fit, and a peer of a later version may tell what cannot be read here.
#[test]
fn gens_that_cannot_be_compared_are_named_all_the_same() {
    let wide = |name: &str, strategy| {
        let field =
            |number| FieldSchema::new(&format!("{number:0200}"), number, strategy, ValueType::I64);
        GenSchema::new(name, (1..=200).map(field).collect::<Vec<_>>())
    };
    let schema = |strategy| Schema::from(vec![wide("A", strategy), wide("B", strategy)]);
    let (left, right) = (database(&[]), database(&[]));
    left.define(&schema(Strategy::Lww)).unwrap();
    right.define(&schema(Strategy::Immutable)).unwrap();
    let (mut client, mut server) = pair(&left, &right, SECRET);
    run(&mut client, &mut server);
    let [differences] = told_differences(&client)[..] else { panic!("{:?}", client.notices) };
    // Which of them fits is by the hashes of their names.
    let [one, other] = differences.gens.as_slice() else { panic!("{differences:?}") };
    let (told, untold) = if one.fields.is_empty() { (other, one) } else { (one, other) };
    assert_eq!((told.fields.len(), untold.fields.len()), (200, 0));
    assert!(told.to_string().ends_with("and in 192 more fields"), "{told}");

    let (mut client, mut server) = pair(&left, &right, SECRET);
    while !server.sent.iter().any(|message| matches!(message, Message::Holdings(_))) {
        let said = client.step().into_iter().map(Event::Received);
        server.events.extend(said);
        let said = server.step().into_iter().filter(|said| !matches!(said, Message::Gens(_)));
        client.events.extend(said.map(Event::Received));
    }
    client.events.push_back(Event::Received(Message::Gens(b"VS\xff".to_vec())));
    while !client.events.is_empty() {
        client.step();
    }
    assert_eq!(client.closed, None);
    let [differences] = told_differences(&client)[..] else { panic!("{:?}", client.notices) };
    assert!(differences.gens.iter().all(|one| one.fields.is_empty()));
}

/// Puts other letters in place of some in what is stored of the tables, so that nothing but the state
/// tells.
fn damage(storage: &MemoryStorage, from: &str, to: &str) {
    let mut batch = WriteBatch::default();
    storage
        .scan(b"c", b"d", &mut |key, stored| {
            let place = stored.windows(from.len()).rposition(|part| part == from.as_bytes());
            if let Some(place) = place {
                let mut damaged = stored.to_vec();
                damaged[place..place + to.len()].copy_from_slice(to.as_bytes());
                batch.put(key.to_vec(), damaged);
            }
            true
        })
        .unwrap();
    assert_eq!(batch.writes.len(), 1, "'{from}' is in one chunk");
    storage.commit(&batch).unwrap();
}

#[test]
fn a_state_that_differs_at_equal_vectors_is_rebuilt_from_the_log() {
    let keys: Vec<String> = (0..2_000).map(|number| format!("number {number:04}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let left = database(&keys);
    let frame = left.replication("default").unwrap();
    let frame = frame.frame_since(&VersionVector::new(), usize::MAX).unwrap().unwrap();
    let storage = Arc::new(MemoryStorage::default());
    let right = open(&storage);
    right.replication("default").unwrap().apply_frame(&frame.bytes).unwrap();
    drop(right);
    // The key and the title of a document are the same; the title comes second.
    damage(&storage, "number 1234", "number 9999");
    damage(&storage, "number 0007", "number 0008");
    let right = open(&storage);
    let title = |database: &Database, key: &str| {
        database.read_field(&task(), &database.document_id(key), "title").unwrap()
    };
    let is_damaged = |key: &&&str| title(&right, key) != Some((**key).into());
    assert_eq!(keys.iter().filter(is_damaged).count(), 2);

    let (mut client, mut server) = pair(&left, &right, SECRET);
    run(&mut client, &mut server);
    assert_eq!((&client.closed, &server.closed), (&None, &None));
    for side in [&client, &server] {
        assert!(side.synced_vector().is_some());
        let repaired = side.notices.iter().filter_map(|notice| match notice {
            Notice::Repaired { documents } => Some(*documents),
            _ => None,
        });
        let repaired: Vec<usize> = repaired.collect();
        assert_eq!(repaired, [2]);
    }
    for key in keys {
        assert_eq!(title(&right, key), Some(key.into()));
    }
    assert_eq!(right.list(&task()).unwrap().len(), left.list(&task()).unwrap().len());
}

#[test]
fn states_that_no_repair_makes_equal_end_the_session() {
    let (left, right) = (database(&["a", "b"]), database(&[]));
    let (mut client, mut server) = pair(&left, &right, SECRET);
    run(&mut client, &mut server);
    // One side takes a change for one without effect, and the other does not.
    let judgement = [(left.replica_key(), Ranges::above(1))];
    right.replication("default").unwrap().judge(&judgement).unwrap();
    let (mut client, mut server) = pair(&left, &right, SECRET);
    run(&mut client, &mut server);
    let closed = [client.closed.unwrap(), server.closed.unwrap()];
    assert!(closed.contains(&CloseReason::Diverged), "{closed:?}");
    let is_repair = |notice: &&Notice| matches!(notice, Notice::Repaired { .. });
    assert_eq!(client.notices.iter().filter(is_repair).count(), REPAIRS_MAX);
}

#[test]
fn ranges_out_of_turn_end_the_session() {
    let (left, right) = (database(&["a"]), database(&["b"]));
    let (mut client, mut server) = pair(&left, &right, SECRET);
    run(&mut client, &mut server);
    let replication = left.replication("default").unwrap();
    let (ranges, _) = replication.compare_ranges(None, &[0; 32]).unwrap();
    // A client has the first word.
    client.events.push_back(Event::Received(Message::Ranges(ranges.clone())));
    client.step();
    assert!(matches!(client.closed, Some(CloseReason::PeerMisbehaved(_))), "{:?}", client.closed);
    // A server is asked again and again.
    for _ in 0..=REPAIRS_MAX * (RANGE_MESSAGES_MAX + 2) {
        server.events.push_back(Event::Received(Message::Ranges(ranges.clone())));
        while !server.events.is_empty() {
            server.step();
        }
    }
    assert!(server.closed.is_some());
}

#[test]
fn without_the_secret_nothing_is_revealed() {
    let (left, right) = (database(&[]), database(&["private"]));
    let (mut client, mut server) = pair(&left, &right, [6; 32]);
    run(&mut client, &mut server);
    assert_eq!(server.closed, Some(CloseReason::Refused));
    assert_eq!(client.closed, Some(CloseReason::Refused));
    let reveals =
        |message: &Message| !matches!(message, Message::Hello { .. } | Message::Goodbye(_));
    assert!(!server.sent.iter().any(reveals), "{:?}", server.sent);
}

/// What a side is told as it lets the other one in, and what it says then, in this order.
fn effects_of_being_let_in() -> Vec<Vec<Effect>> {
    let held = Holdings::of(&database(&["a"]).replication("default").unwrap()).unwrap();
    let (client_id, server_id) = ([1; 32], [2; 32]);
    let namespace = "default".to_owned();
    let mut client = Session::client((client_id, server_id), [3; 32], namespace, SECRET, held);
    let mut server = Session::server((server_id, client_id), [4; 32]);
    let mut let_in = Vec::new();
    let mut events = vec![(true, Event::Started)];
    while let Some((is_for_client, event)) = events.pop() {
        let session = if is_for_client { &mut client } else { &mut server };
        let effects = session.handle(event, 0);
        if effects.contains(&Effect::Notify(Notice::Authenticated)) {
            let_in.push(effects.clone());
        }
        for effect in effects {
            match effect {
                // What is held comes later.
                Effect::Send(Message::Holdings(_)) => {}
                Effect::Send(message) => events.push((!is_for_client, Event::Received(message))),
                Effect::ReadShare(_) => {
                    let share = Event::ShareReady {
                        secret: Some(SECRET),
                        held: Holdings::default(),
                        cursor: None,
                    };
                    events.push((is_for_client, share));
                }
                _ => {}
            }
        }
    }
    let [handshake, progress] =
        [HANDSHAKE_TIMEOUT, PROGRESS_TIMEOUT].map(|limit| limit.as_millis() as u64);
    for session in [&mut client, &mut server] {
        assert_eq!(session.deadline(), Some(progress), "what is held may be long");
        assert_eq!(session.handle(Event::TimePassed, handshake + 1), []);
        let effects = session.handle(Event::TimePassed, progress);
        assert_eq!(effects.last(), Some(&Effect::Close(CloseReason::HandshakeTimeout)));
    }
    let_in
}

/// Nobody takes anything large before it knows that it has let the other one in: two sides that both said
/// it before that would wait for each other. And there is time for it.
#[test]
fn what_is_held_is_told_behind_the_handshake_and_may_take_its_time() {
    let let_in = effects_of_being_let_in();
    assert_eq!(let_in.len(), 2);
    for effects in let_in {
        let place = |is_it: &dyn Fn(&Effect) -> bool| effects.iter().position(is_it).unwrap();
        let known = place(&|effect| *effect == Effect::Notify(Notice::Authenticated));
        let told = place(&|effect| matches!(effect, Effect::Send(Message::Holdings(_))));
        assert!(known < told, "{effects:?}");
    }
}

/// The peer knows of the rest, which may be of thousands of replicas.
#[test]
fn an_acknowledgement_tells_what_is_new_and_nothing_else() {
    let (left, right) = (database(&["a", "b", "c"]), database(&["d"]));
    let (mut client, mut server) = pair(&left, &right, SECRET);
    run(&mut client, &mut server);
    let told: Vec<Vec<(ReplicaKey, u64)>> = server
        .sent
        .iter()
        .filter_map(|message| match message {
            Message::Ack(vector) => Some(vector.iter().collect()),
            _ => None,
        })
        .collect();
    assert!(!told.is_empty());
    assert!(told.iter().flatten().all(|(replica, _)| *replica == left.replica_key()), "{told:?}");
    assert_eq!(told.concat().last(), Some(&(left.replica_key(), 3)));
}

#[test]
fn messages_out_of_turn_end_the_session() {
    let (left, right) = (database(&[]), database(&[]));
    let (mut client, _) = pair(&left, &right, SECRET);
    client.events.push_back(Event::Received(Message::Ack(VersionVector::new())));
    client.step();
    client.step();
    assert!(matches!(client.closed, Some(CloseReason::PeerMisbehaved(_))));
}
