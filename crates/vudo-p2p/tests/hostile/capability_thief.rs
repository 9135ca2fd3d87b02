//! Has somebody else's invitation, and tries to come in with it.

use vudo_p2p::Ticket;
use vudo_p2p::proto::{Access, Effect, Event, GoodbyeCode, Message, PROTOCOL_VERSION, Session};
use vudo_state::{Database, Grant, RightsRecord, Scope, SignedRecord};

use crate::attacker::{Attacker, Victim, store, task};

/// A store that owns its namespace, with one document.
pub(crate) fn owned_store() -> Database {
    let database = store(&[]);
    let name = database.found("team", &[database.replica_key()]).unwrap();
    let database = database.in_namespace(&name);
    add(&database, "private").unwrap();
    database
}

pub(crate) fn add(database: &Database, key: &str) -> vudo_state::Result<()> {
    database.create(&task(), &database.document_id(key), &[("title", key.into())])
}

/// Invites a store to write tasks. Gives its ticket.
pub(crate) fn invite(victim: &Victim, member: &Database) -> Ticket {
    invite_until(victim, member, None)
}

/// Invites a store to write tasks, and to read until then. Gives its ticket.
pub(crate) fn invite_until(
    victim: &Victim,
    member: &Database,
    expires_milliseconds: Option<u64>,
) -> Ticket {
    let (owner, subject) = (&victim.database, member.replica_key());
    let grant = Grant {
        issuer: owner.replica_key(),
        subject,
        can_delegate: false,
        expires_milliseconds,
        scopes: vec![Scope { gen_name: "Task".into(), key_prefix: String::new() }],
    };
    owner.issue(RightsRecord::Grant(grant), None).unwrap();
    let records = owner.access_rights().unwrap().unwrap().records_for(&subject);
    victim.node.invite(owner.namespace(), records).unwrap()
}

fn records_of(ticket: &Ticket) -> Vec<SignedRecord> {
    match &ticket.access {
        Access::Capability(records) => records.clone(),
        Access::Secret(_) => panic!("an invitation carries no secret"),
    }
}

/// Says hello, and gives the nonce that the victim has drawn.
async fn greet(attacker: &mut Attacker, ticket: &Ticket, nonce: [u8; 32]) -> [u8; 32] {
    let namespace = ticket.namespace.clone();
    attacker.send(&Message::Hello { version: PROTOCOL_VERSION, namespace, nonce }).await;
    match attacker.next().await {
        Some(Message::Hello { nonce, .. }) => nonce,
        other => panic!("{other:?}"),
    }
}

/// What the member itself would say to a server with this nonce.
fn key_proof_of(member: &Database, ticket: &Ticket, nonces: [[u8; 32]; 2]) -> Message {
    let ids = (member.replica_key().0, ticket.node);
    let (namespace, access) = (ticket.namespace.clone(), ticket.access.clone());
    let held = vudo_crdt::VersionVector::new();
    let mut session = Session::client(ids, nonces[0], namespace.clone(), access, held);
    session.handle(Event::Started, 0);
    let hello = Message::Hello { version: PROTOCOL_VERSION, namespace, nonce: nonces[1] };
    let effects = session.handle(Event::Received(hello), 0);
    let [Effect::Sign(bytes)] = effects.as_slice() else { panic!("{effects:?}") };
    let effects = session.handle(Event::Signed(member.sign(bytes)), 0);
    match effects.into_iter().next() {
        Some(Effect::Send(proof)) => proof,
        other => panic!("{other:?}"),
    }
}

async fn expect_refused(mut attacker: Attacker, proof: &Message) {
    attacker.send(proof).await;
    assert_eq!(attacker.next().await, Some(Message::Goodbye(GoodbyeCode::Refused)));
    attacker.expect_cut_off("what has been granted to this store's key").await;
}

/// The records of an invitation are worth nothing without the key that they name.
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_of_no_use_to_anybody_else() {
    let victim = Victim::new(owned_store).await;
    let [member, thief] = [(); 2].map(|()| store(&[]));
    let ticket = invite(&victim, &member);
    let records = records_of(&ticket);

    // Under the member's name, without its key: signed by the thief, and by nobody.
    for signature in [thief.sign(b"anything"), [7; 64]] {
        let mut attacker = Attacker::connect_as(&victim, member.replica_key().0).await;
        greet(&mut attacker, &ticket, [1; 32]).await;
        let proof = Message::KeyProof { signature, records: records.clone() };
        expect_refused(attacker, &proof).await;
    }

    // Under its own name, with all it could have signed itself.
    let mut attacker = Attacker::connect_as(&victim, thief.replica_key().0).await;
    let nonce = greet(&mut attacker, &ticket, [1; 32]).await;
    let own = key_proof_of(&thief, &ticket, [[1; 32], nonce]);
    expect_refused(attacker, &own).await;
    victim.survives(1).await;
}

/// A proof that was good once is good for that session alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_another_session_is_refused() {
    let victim = Victim::new(owned_store).await;
    let member = store(&[]);
    let ticket = invite(&victim, &member);
    let mut honest = Attacker::connect_as(&victim, member.replica_key().0).await;
    let nonce = greet(&mut honest, &ticket, [1; 32]).await;
    let overheard = key_proof_of(&member, &ticket, [[1; 32], nonce]);
    honest.send(&overheard).await;
    assert!(matches!(honest.next().await, Some(Message::KeyProof { .. })));

    let mut thief = Attacker::connect_as(&victim, member.replica_key().0).await;
    greet(&mut thief, &ticket, [1; 32]).await;
    expect_refused(thief, &overheard).await;
    drop(honest);
    victim.survives(1).await;
}

/// Whoever signs a grant for itself is no owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_the_thief_has_signed_itself_opens_nothing() {
    let victim = Victim::new(owned_store).await;
    let (member, thief) = (store(&[]), store(&[]));
    let invitation = invite(&victim, &member);
    let key = thief.replica_key();
    let grant = RightsRecord::Grant(Grant {
        issuer: key,
        subject: key,
        can_delegate: true,
        expires_milliseconds: None,
        scopes: vec![Scope::everything()],
    });
    let signed = SignedRecord::sign(grant, &invitation.namespace, &thief.secret_key()).unwrap();
    let ticket = invitation.for_key(vec![signed]).unwrap();
    let mut attacker = Attacker::connect_as(&victim, key.0).await;
    let nonce = greet(&mut attacker, &ticket, [2; 32]).await;
    let proof = key_proof_of(&thief, &ticket, [[2; 32], nonce]);
    expect_refused(attacker, &proof).await;
    victim.survives(1).await;
}
