//! What a peer says, from the first message on: the session may end, and never panics.
//!
//! The input is messages, each behind its length in two bytes, little endian. The session is that of a
//! server whose peer holds the secret or has its key, or of a client; its proof is put in where the input
//! has one, since a fuzzer would not find it. Frames reach a real store in memory.

#![no_main]

use std::collections::VecDeque;

use ed25519_dalek::{Signer, SigningKey};
use libfuzzer_sys::fuzz_target;
use vudo_crdt::{
    FieldSchema, Frame, GenSchema, Schema, Seal, Strategy, ValueType, checksum, write_signed_frame,
};
use vudo_p2p::proto::{
    Access, Effect, Event, Holdings, Message, PROTOCOL_VERSION, PresenceTable, Session,
};
use vudo_state::{Cursor, CursorDigest, Database, SignedRecord, public_key_of};

const SECRET: [u8; 32] = [5; 32];
/// The secret keys of the client and the server; their ids are the public ones.
const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
const CURSOR: CursorDigest = [7; 16];
const NONCES: [[u8; 32]; 2] = [[3; 32], [4; 32]];

fn ids() -> [[u8; 32]; 2] {
    KEYS.map(|key| public_key_of(&key).0)
}

/// This side's id, and the peer's.
fn session_ids(is_server: bool) -> ([u8; 32], [u8; 32]) {
    let [client, server] = ids();
    if is_server { (server, client) } else { (client, server) }
}

fn sign(key: &[u8; 32], bytes: &[u8]) -> [u8; 64] {
    SigningKey::from_bytes(key).sign(bytes).to_bytes()
}

fn database() -> Database {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    let task = GenSchema::new("Task", [title]);
    let database = Database::open_in_memory().unwrap();
    database.define(&Schema::from(vec![task.clone()])).unwrap();
    let milk = database.document_id("milk");
    database.create(&task, &milk, &[("title", "Buy milk".into())]).unwrap();
    database
}

/// The proof of the peer, which a session of its own makes.
fn proof_of_peer(is_server: bool) -> Message {
    let hello =
        |nonce| Message::Hello { version: PROTOCOL_VERSION, namespace: "default".into(), nonce };
    let [client, server] = ids();
    let (client, server) = ((client, server), (server, client));
    let effects = if is_server {
        let held = Holdings::default();
        let mut peer = Session::client(client, NONCES[0], "default".into(), SECRET, held);
        peer.handle(Event::Started, 0);
        peer.handle(Event::Received(hello(NONCES[1])), 0)
    } else {
        let held = Holdings::default();
        let mut own = Session::client(client, NONCES[0], "default".into(), SECRET, held);
        own.handle(Event::Started, 0);
        let proofs = own.handle(Event::Received(hello(NONCES[1])), 0);
        let mut peer = Session::server(server, NONCES[1]);
        peer.handle(Event::Received(hello(NONCES[0])), 0);
        let held = Default::default();
        peer.handle(Event::ShareReady { secret: Some(SECRET), held, cursor: None }, 0);
        let mut effects = Vec::new();
        for effect in proofs {
            if let Effect::Send(proof) = effect {
                effects = peer.handle(Event::Received(proof), 0);
            }
        }
        effects
    };
    let is_proof = |effect: Effect| match effect {
        Effect::Send(proof @ Message::Proof(_)) => Some(proof),
        _ => None,
    };
    effects.into_iter().find_map(is_proof).unwrap()
}

/// What a client says to prove that it has its key, with these records.
fn key_proof_of_client(records: Vec<SignedRecord>) -> Message {
    let [client, server] = ids();
    let access = Access::Capability(records.clone());
    let held = Holdings::default();
    let mut peer = Session::client((client, server), NONCES[0], "default".into(), access, held);
    peer.handle(Event::Started, 0);
    let (version, namespace, nonce) = (PROTOCOL_VERSION, "default".into(), NONCES[1]);
    let hello = Message::Hello { version, namespace, nonce };
    let effects = peer.handle(Event::Received(hello), 0);
    let Some(Effect::Sign(bytes)) = effects.first() else { panic!("{effects:?}") };
    Message::KeyProof { signature: sign(&KEYS[0], bytes), records }
}

const PEER: vudo_crdt::ReplicaKey = vudo_crdt::ReplicaKey([9; 32]);

fn failed(error: vudo_state::Error) -> Event {
    match error {
        vudo_state::Error::OtherLog { signed } => {
            Event::ForkFound { replica: signed.head.replica }
        }
        error => Event::ApplyFailed {
            is_peer_fault: error.is_peer_fault(),
            what: error.to_string(),
        },
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, mut input)) = input.split_first() else { return };
    let is_server = kind & 1 == 0;
    let [client, server] = ids();
    let database = database();
    let replication = database.replication("default").unwrap();
    let held = Holdings::of(&replication).unwrap();
    // What the two held when they last met, under a digest that inputs can name.
    let cursor = Some(Cursor { digest: CURSOR, vector: held.vector.clone().into() });
    let mut session = match is_server {
        true => Session::server((server, client), NONCES[1]),
        false => Session::client((client, server), NONCES[0], "default".into(), SECRET, held)
            .with_cursor(cursor.clone()),
    };
    session = session.with_schema(database.schema());
    let mut now = 0;
    let mut presence = PresenceTable::new(session_ids(is_server).0, 1_000);
    presence.set(Some(b"here"[..].into()), 0);
    let mut events = VecDeque::from([Event::Started, Event::PresenceChanged]);
    loop {
        while let Some(event) = events.pop_front() {
            for effect in session.handle(event, now) {
                match effect {
                    Effect::ReadShare(_) => events.push_back(Event::ShareReady {
                        secret: Some(SECRET),
                        held: Holdings::of(&replication).unwrap(),
                        cursor: cursor.clone(),
                    }),
                    Effect::Sign(bytes) => {
                        events.push_back(Event::Signed(sign(&KEYS[usize::from(is_server)], &bytes)));
                    }
                    // Whoever shows records is let in, for a while.
                    Effect::CheckAccess(shown) => {
                        let until = (!shown.is_empty()).then_some(now + 3_000);
                        events.push_back(Event::AccessChecked { until });
                    }
                    Effect::ReadCheckpoint => {
                        let offer = replication.checkpoint_offer().map(Box::new);
                        events.push_back(Event::CheckpointReady(offer));
                    }
                    Effect::ReadPart(request) => {
                        let part = replication.checkpoint_part(&request);
                        let ready = |part: Option<_>| Event::PartReady(part.map(Box::new));
                        events.push_back(part.map_or_else(failed, ready));
                    }
                    Effect::TakeCheckpoint(offer) => {
                        let begun = replication.begin_catching_up(&PEER, &offer);
                        events.push_back(begun.map_or_else(failed, Event::CheckpointTaken));
                    }
                    Effect::TakePart(part) => {
                        let taken = replication.take_part(&PEER, &part);
                        events.push_back(taken.map_or_else(failed, Event::CheckpointTaken));
                    }
                    Effect::ReadHead { replica } => {
                        let head = replication.latest_signed_head_of(&replica).unwrap();
                        events.push_back(Event::HeadReady(head));
                    }
                    Effect::CompareLogs { peer, said } => {
                        let compared = replication.compare_logs(&peer, &said);
                        events.push_back(compared.map_or_else(failed, Event::LogsCompared));
                    }
                    Effect::ReadBranch { replica, number } => {
                        let branch = replication.branch_from(&replica, number);
                        events.push_back(branch.map_or_else(failed, Event::BranchReady));
                    }
                    Effect::ApplyBranch(branch) => {
                        let applied = replication.apply_branch(&branch);
                        events.push_back(applied.map_or_else(failed, Event::BranchApplied));
                    }
                    Effect::ReadFrame { since, bytes_max } => {
                        let frame = replication.frame_since(&since, bytes_max).unwrap();
                        events.push_back(Event::FrameReady(frame));
                    }
                    Effect::Apply(frame) => {
                        events.push_back(match replication.apply_frame(&frame) {
                            Ok(_) => Event::Applied { vector: replication.durable_vector() },
                            Err(error) => failed(error),
                        })
                    }
                    Effect::ReadFingerprint => {
                        let (vector, fingerprint) = replication.fingerprint().unwrap();
                        let cursor = Holdings::cursor_at(&replication, &vector).unwrap();
                        let ready = Event::FingerprintReady { vector, fingerprint, cursor };
                        events.push_back(ready);
                    }
                    Effect::CompareRanges { said, key } => {
                        let compared = replication.compare_ranges(said.as_ref(), &key);
                        let (answer, different) = compared.unwrap();
                        events.push_back(Event::RangesCompared { answer, different });
                    }
                    Effect::Rebuild(different) => {
                        let documents = replication.rebuild(&different).unwrap();
                        events.push_back(Event::Rebuilt { documents });
                    }
                    Effect::Send(message) => {
                        let mut bytes = Vec::new();
                        message.encode(&mut bytes);
                        assert_eq!(Message::decode(&bytes), Ok(message));
                    }
                    Effect::ReadPresence { since } => {
                        let link = (1, session_ids(is_server).1);
                        let (updates, revision) = presence.updates_since(since, link, now);
                        events.push_back(Event::PresenceReady { updates, revision });
                    }
                    Effect::TakePresence(updates) => {
                        presence.receive((1, session_ids(is_server).1), updates, now);
                        presence.time_passed(now);
                    }
                    Effect::Notify(_) => {}
                    Effect::Close(_) => return,
                }
            }
        }
        let Some((length, rest)) = input.split_first_chunk() else { return };
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        input = rest;
        now += 500;
        let message = match Message::decode(bytes) {
            Ok(Message::Proof(_)) => proof_of_peer(is_server),
            Ok(Message::KeyProof { records, .. }) if is_server => key_proof_of_client(records),
            Ok(Message::Frame(mut frame)) => {
                let sum = checksum(&frame);
                frame.extend_from_slice(&sum);
                // Nobody has signed it: what is signed reaches a store in `signed_frame`.
                let count = Frame::parse(&frame).map_or(0, |frame| frame.replicas().len());
                let seals = vec![Seal { root: [0; 32], signature: [0; 64] }; count];
                let mut signed = Vec::new();
                write_signed_frame(&frame, &seals, &mut signed);
                Message::Frame(signed)
            }
            Ok(Message::Hello { version, namespace, .. }) => {
                let nonce = NONCES[usize::from(!is_server)];
                Message::Hello { version, namespace, nonce }
            }
            Ok(message) => message,
            Err(_) => {
                events.push_back(Event::TimePassed);
                continue;
            }
        };
        events.push_back(Event::Received(message));
    }
});
