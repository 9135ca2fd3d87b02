//! Sessions that a key opens: who is let in to a namespace with owners, and until when.

use std::collections::VecDeque;

use vudo_crdt::{FieldSchema, GenSchema, ReplicaKey, Strategy, ValueType};
use vudo_p2p::proto::{
    Access, CloseReason, Effect, Event, Holdings, Message, Milliseconds, Notice, Session,
};
use vudo_state::{Database, Grant, Replication, RightsRecord, Scope, SignedRecord};

const SECRET: [u8; 32] = [5; 32];

/// One side: a session, and the store that it works on.
struct Side {
    session: Session,
    database: Database,
    /// Whether the namespace is shared here.
    is_shared: bool,
    events: VecDeque<Event>,
    closed: Option<CloseReason>,
    is_synced: bool,
    sent: Vec<Message>,
}

impl Side {
    fn new(session: Session, database: &Database) -> Side {
        Side {
            session,
            database: database.clone(),
            is_shared: true,
            events: VecDeque::from([Event::Started]),
            closed: None,
            is_synced: false,
            sent: Vec::new(),
        }
    }

    fn replication(&self) -> Replication {
        self.database.replication(self.database.namespace()).unwrap()
    }

    /// Handles an event at a time, and gives what the peer is told.
    fn step(&mut self, peer: ReplicaKey, now: Milliseconds) -> Vec<Event> {
        let Some(event) = self.events.pop_front() else { return Vec::new() };
        let replication = self.replication();
        let mut told = Vec::new();
        for effect in self.session.handle(event, now) {
            let answer = match effect {
                Effect::Send(message) => {
                    self.sent.push(message.clone());
                    told.push(Event::Received(message));
                    continue;
                }
                Effect::ReadShare(_) => Event::ShareReady {
                    secret: self.is_shared.then_some(SECRET),
                    held: Holdings::of(&replication).unwrap(),
                    cursor: None,
                },
                Effect::Sign(bytes) => Event::Signed(self.database.sign(&bytes)),
                // Grants here are of the session's own time.
                Effect::CheckAccess(shown) => {
                    let mut rights = replication.access_rights().unwrap();
                    rights.hold(shown.into_iter().map(|record| (record, None)));
                    Event::AccessChecked { until: rights.readable_until(&peer, now) }
                }
                Effect::ReadFrame { since, bytes_max } => {
                    Event::FrameReady(replication.frame_since(&since, bytes_max).unwrap())
                }
                Effect::Apply(frame) => {
                    replication.apply_frame(&frame).unwrap();
                    Event::Applied { vector: replication.durable_vector() }
                }
                Effect::ReadFingerprint => {
                    let (vector, fingerprint) = replication.fingerprint().unwrap();
                    Event::FingerprintReady { vector, fingerprint, cursor: None }
                }
                Effect::ReadCheckpoint
                | Effect::ReadPart(_)
                | Effect::TakeCheckpoint(_)
                | Effect::TakePart(_) => panic!("nobody is behind a compacted log"),
                Effect::ReadHead { .. }
                | Effect::CompareLogs { .. }
                | Effect::ReadBranch { .. }
                | Effect::ApplyBranch(_) => panic!("nobody has signed two logs"),
                Effect::CompareRanges { .. } | Effect::Rebuild(_) => panic!("states are equal"),
                Effect::ReadPresence { .. } | Effect::TakePresence(_) => panic!("nobody is there"),
                Effect::Notify(notice) => {
                    self.is_synced |= matches!(notice, Notice::Synced { .. });
                    continue;
                }
                Effect::Close(reason) => {
                    self.closed = Some(reason);
                    continue;
                }
            };
            self.events.push_back(answer);
        }
        told
    }

    fn advanced(&mut self) {
        let vector = self.replication().durable_vector();
        self.events.push_back(Event::LocalAdvanced { vector });
    }
}

/// A client that shows these records, and a server.
fn pair(client: &Database, records: Vec<SignedRecord>, server: &Database) -> [Side; 2] {
    let ids = (client.replica_key().0, server.replica_key().0);
    let namespace = client.namespace().to_owned();
    let held = Holdings::of(&client.replication(&namespace).unwrap()).unwrap();
    let access = Access::Capability(records);
    let dialling = Session::client(ids, [3; 32], namespace, access, held);
    let dialled = Session::server((ids.1, ids.0), [4; 32]);
    [Side::new(dialling, client), Side::new(dialled, server)]
}

/// Runs both sides until neither has anything to do.
fn run([client, server]: &mut [Side; 2], now: Milliseconds) {
    let keys = [client.database.replica_key(), server.database.replica_key()];
    while !client.events.is_empty() || !server.events.is_empty() {
        let told = client.step(keys[1], now);
        server.events.extend(told);
        let told = server.step(keys[0], now);
        client.events.extend(told);
    }
}

fn task() -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Task", [title])
}

fn add(database: &Database, key: &str) {
    database.create(&task(), &database.document_id(key), &[("title", key.into())]).unwrap();
}

fn keys_of(database: &Database) -> Vec<String> {
    let records = database.list(&task()).unwrap();
    records.into_iter().map(|record| record.key).collect()
}

/// A store that owns a namespace with a document, and one that does not hold anything of it.
fn owner_and_member() -> [Database; 2] {
    let stores = [(); 2].map(|()| Database::open_in_memory().unwrap());
    let name = stores[0].found("team", &[stores[0].replica_key()]).unwrap();
    let stores = stores.map(|store| store.in_namespace(&name));
    add(&stores[0], "milk");
    stores
}

/// Grants something to the member until a time, and gives what its ticket carries.
fn invite(
    owner: &Database,
    member: &Database,
    expires_milliseconds: Option<u64>,
    scopes: Vec<Scope>,
) -> Vec<SignedRecord> {
    let (issuer, subject) = (owner.replica_key(), member.replica_key());
    let grant = Grant { issuer, subject, can_delegate: false, expires_milliseconds, scopes };
    owner.issue(RightsRecord::Grant(grant), None).unwrap();
    owner.access_rights().unwrap().unwrap().records_for(&subject)
}

#[test]
fn a_granted_key_is_let_in_and_any_other_learns_nothing() {
    let [owner, member] = owner_and_member();
    let mut sides = pair(&member, Vec::new(), &owner);
    run(&mut sides, 0);
    assert_eq!(sides[0].closed, Some(CloseReason::Refused));
    assert_eq!(sides[1].closed, Some(CloseReason::Refused));
    let reveals =
        |message: &Message| !matches!(message, Message::Hello { .. } | Message::Goodbye(_));
    assert!(!sides[1].sent.iter().any(reveals), "{:?}", sides[1].sent);

    invite(&owner, &member, None, Vec::new());
    let mut sides = pair(&member, Vec::new(), &owner);
    run(&mut sides, 0);
    assert!(sides.iter().all(|side| side.is_synced && side.closed.is_none()));
    assert_eq!(keys_of(&member), ["milk"]);

    let mut unshared = pair(&member, Vec::new(), &owner);
    unshared[1].is_shared = false;
    run(&mut unshared, 0);
    assert_eq!(unshared[0].closed, Some(CloseReason::Refused));
}

/// A sync server that has nothing but the founding lets in whoever shows a grant.
#[test]
fn a_grant_that_the_server_does_not_hold_yet_is_shown_to_it() {
    let [owner, member] = owner_and_member();
    let hub = Database::open_in_memory().unwrap().in_namespace(owner.namespace());
    let records = invite(&owner, &member, None, vec![Scope::everything()]);
    member.add_records(records.clone()).unwrap();
    add(&member, "tea");
    let mut sides = pair(&member, records, &hub);
    run(&mut sides, 0);
    assert!(sides.iter().all(|side| side.is_synced && side.closed.is_none()));
    assert_eq!(keys_of(&hub), ["tea"]);
}

#[test]
fn a_session_ends_when_its_grant_expires_and_what_was_written_stays() {
    let [owner, member] = owner_and_member();
    let records = invite(&owner, &member, Some(5_000), vec![Scope::everything()]);
    let mut sides = pair(&member, records.clone(), &owner);
    run(&mut sides, 1_000);
    add(&member, "tea");
    sides[0].advanced();
    run(&mut sides, 4_999);
    assert_eq!((&sides[1].closed, sides[1].session.deadline()), (&None, Some(5_000)));
    sides[1].events.push_back(Event::TimePassed);
    run(&mut sides, 5_000);
    assert_eq!(sides[1].closed, Some(CloseReason::AccessEnded));
    assert_eq!(sides[0].closed, Some(CloseReason::AccessEnded));
    assert_eq!(keys_of(&owner), ["milk", "tea"]);
    let mut late = pair(&member, records, &owner);
    run(&mut late, 5_001);
    assert_eq!(late[0].closed, Some(CloseReason::Refused));
    add(&member, "after that");
    let (from, to) = (member.replication(member.namespace()).unwrap(), sides[1].replication());
    let frame = from.frame_since(&to.durable_vector(), usize::MAX).unwrap().unwrap();
    to.apply_frame(&frame.bytes).unwrap();
    assert_eq!(keys_of(&owner), ["after that", "milk", "tea"], "expiry sets nothing aside");
}

#[test]
fn a_session_ends_when_its_key_is_revoked() {
    let [owner, member] = owner_and_member();
    let records = invite(&owner, &member, None, vec![Scope::everything()]);
    let mut sides = pair(&member, records, &owner);
    run(&mut sides, 0);
    assert!(sides[1].is_synced);
    let revocation = owner.revocation_of(owner.replica_key(), member.replica_key()).unwrap();
    owner.issue(RightsRecord::Revocation(revocation), None).unwrap();
    sides[1].advanced();
    run(&mut sides, 1);
    assert_eq!(sides[0].closed, Some(CloseReason::AccessEnded));
    assert_eq!(sides[1].closed, Some(CloseReason::AccessEnded));
}
