//! One side of a session, with a store, and what carries messages between two of them.

use std::collections::VecDeque;
use std::sync::Arc;

use vudo_crdt::{FieldSchema, GenSchema, ReplicaKey, Strategy, ValueType, VersionVector};
use vudo_p2p::proto::{CloseReason, Effect, Event, Holdings, Message, Notice, Session};
use vudo_state::storage::MemoryStorage;
use vudo_state::{Database, OpenOptions, SystemEnvironment};

pub(crate) const SECRET: [u8; 32] = [5; 32];

/// One side: a session and the store that it works on.
pub(crate) struct Side {
    pub(crate) session: Session,
    pub(crate) database: Database,
    pub(crate) peer: ReplicaKey,
    pub(crate) share: [u8; 32],
    pub(crate) events: VecDeque<Event>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) sent: Vec<Message>,
}

impl Side {
    fn new(session: Session, database: &Database, peer: [u8; 32], share: [u8; 32]) -> Side {
        Side {
            session,
            database: database.clone(),
            peer: ReplicaKey(peer),
            share,
            events: VecDeque::from([Event::Started]),
            notices: Vec::new(),
            closed: None,
            sent: Vec::new(),
        }
    }

    /// Handles one event, carries out its effects, and hands over what is sent.
    pub(crate) fn step(&mut self) -> Vec<Message> {
        let Some(event) = self.events.pop_front() else { return Vec::new() };
        let replication = self.database.replication("default").unwrap();
        let mut outgoing = Vec::new();
        for effect in self.session.handle(event, 0) {
            match effect {
                Effect::Send(message) => {
                    // What is sent has bytes, and the bytes are what arrives.
                    outgoing.push(Message::decode(&encode(&message)).unwrap());
                }
                Effect::ReadShare(_) => self.events.push_back(Event::ShareReady {
                    secret: Some(self.share),
                    held: Holdings::of(&replication).unwrap(),
                    cursor: replication.cursor(&self.peer),
                }),
                Effect::ReadFrame { since, bytes_max } => {
                    let frame = replication.frame_since(&since, bytes_max.min(200)).unwrap();
                    self.events.push_back(Event::FrameReady(frame));
                }
                Effect::Apply(frame) => {
                    replication.apply_frame(&frame).unwrap();
                    let vector = replication.durable_vector();
                    self.events.push_back(Event::Applied { vector });
                }
                Effect::ReadCheckpoint
                | Effect::ReadPart(_)
                | Effect::TakeCheckpoint(_)
                | Effect::TakePart(_) => panic!("nobody is behind a compacted log"),
                Effect::ReadHead { .. }
                | Effect::CompareLogs { .. }
                | Effect::ReadBranch { .. }
                | Effect::ApplyBranch(_) => panic!("nobody has signed two logs"),
                Effect::ReadFingerprint => {
                    let (vector, fingerprint) = replication.fingerprint().unwrap();
                    let cursor = Holdings::cursor_at(&replication, &vector).unwrap();
                    self.events.push_back(Event::FingerprintReady { vector, fingerprint, cursor });
                }
                Effect::Sign(_) | Effect::CheckAccess(_) => panic!("both sides have the secret"),
                Effect::CompareRanges { said, key } => {
                    let compared = replication.compare_ranges(said.as_ref(), &key);
                    let (answer, different) = compared.unwrap();
                    self.events.push_back(Event::RangesCompared { answer, different });
                }
                Effect::Rebuild(different) => {
                    let documents = replication.rebuild(&different).unwrap();
                    self.events.push_back(Event::Rebuilt { documents });
                }
                Effect::ReadPresence { .. } | Effect::TakePresence(_) => panic!("nobody is there"),
                Effect::Notify(Notice::Met(cursor)) => {
                    replication.remember_cursor(self.peer, cursor, replication.branch_count());
                }
                Effect::Notify(notice) => self.notices.push(notice),
                Effect::Close(reason) => self.closed = Some(reason),
            }
        }
        self.sent.extend(outgoing.iter().cloned());
        outgoing
    }

    pub(crate) fn synced_vector(&self) -> Option<&VersionVector> {
        self.notices.iter().rev().find_map(|notice| match notice {
            Notice::Synced { vector, .. } => Some(vector),
            _ => None,
        })
    }
}

pub(crate) fn pair(left: &Database, right: &Database, client_secret: [u8; 32]) -> (Side, Side) {
    let (client_id, server_id) = ([1; 32], [2; 32]);
    let replication = left.replication("default").unwrap();
    let held = Holdings::of(&replication).unwrap();
    let client =
        Session::client((client_id, server_id), [3; 32], "default".into(), client_secret, held)
            .with_cursor(replication.cursor(&ReplicaKey(server_id)))
            .with_schema(left.schema());
    let server = Session::server((server_id, client_id), [4; 32]).with_schema(right.schema());
    let client = Side::new(client, left, server_id, client_secret);
    (client, Side::new(server, right, client_id, SECRET))
}

/// Runs both sides until neither has anything to do.
pub(crate) fn run(left: &mut Side, right: &mut Side) {
    for _ in 0..100_000 {
        if left.events.is_empty() && right.events.is_empty() {
            return;
        }
        right.events.extend(left.step().into_iter().map(Event::Received));
        left.events.extend(right.step().into_iter().map(Event::Received));
    }
    panic!("the two never come to rest");
}

pub(crate) fn task() -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Task", [title])
}

pub(crate) fn open(storage: &Arc<MemoryStorage>) -> Database {
    // Small segments make many frames.
    let options = OpenOptions { segment_bytes: 200, ..OpenOptions::default() };
    let environment = Arc::new(SystemEnvironment);
    Database::with_environment(storage.clone(), None, environment, &options).unwrap()
}

pub(crate) fn fill(database: &Database, keys: &[&str]) {
    for key in keys {
        let fields = [("title", (*key).into())];
        database.create(&task(), &database.document_id(key), &fields).unwrap();
    }
}

pub(crate) fn database(keys: &[&str]) -> Database {
    let database = open(&Arc::default());
    fill(&database, keys);
    database
}

pub(crate) fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}
