//! One session: from the first message to the last.
//!
//! Whoever drives it feeds [`Event`]s and carries out [`Effect`]s in their order. Reading frames,
//! applying them and reading fingerprints are the driver's work, answered by events.

use std::sync::Arc;

use vudo_crdt::head::{SIGNATURE_BYTES, SignedHead};
use vudo_crdt::{
    DifferentRows, Fingerprint, RangeSummaries, ReplicaKey, Schema, SessionKey, VersionVector,
};
use vudo_state::{
    BranchOutcome, CheckpointOffer, CheckpointPart, Cursor, LogComparison, OutgoingFrame,
    PartRequest, RootAt, SignedRecord, is_signature,
};

use super::exchange::Exchange;
use super::holdings::Holdings;
use super::message::{
    GoodbyeCode, Message, MessageKind, Namespace, Nonce, PROTOCOL_VERSION, PresenceUpdate,
};
use super::presence::PresenceExchange;
use super::proof::{Access, Binding, NodeId, Role, Secret};
use super::repair::Repair;
use super::schema::{SchemaDifferences, SchemaExchange};
use crate::limits::{HANDSHAKE_TIMEOUT, PROGRESS_TIMEOUT};

/// Time on a clock that only goes forward, from any beginning.
pub type Milliseconds = u64;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The session begins.
    Started,
    /// The peer said something.
    Received(Message),
    /// Answers [`Effect::ReadShare`]: the namespace's secret where it is shared, and what is held.
    ShareReady {
        /// `None` where the namespace is not shared.
        secret: Option<Secret>,
        /// What is held durably.
        held: Holdings,
        /// What this side and the peer both held when they last met, where that is remembered.
        cursor: Option<Cursor>,
    },
    /// Answers [`Effect::ReadFrame`]; `None` where there was nothing to send.
    FrameReady(Option<OutgoingFrame>),
    /// Answers [`Effect::Apply`], with what is held durably now.
    Applied {
        /// What is held durably.
        vector: VersionVector,
    },
    /// Answers [`Effect::Apply`], and whatever else failed.
    ApplyFailed {
        /// Whether the peer caused it by what it sent.
        is_peer_fault: bool,
        /// What went wrong.
        what: String,
    },
    /// Answers [`Effect::ReadFingerprint`].
    FingerprintReady {
        /// The changes that the state reflects.
        vector: VersionVector,
        /// The state's fingerprint.
        fingerprint: Fingerprint,
        /// What is held, where that is still this.
        cursor: Option<Cursor>,
    },
    /// Answers [`Effect::ReadFrame`]: the log here does not go back to what the peer holds.
    Compacted {
        /// What is missing.
        what: String,
    },
    /// Answers [`Effect::Apply`]: a replica has signed another log than the one that is held here, or
    /// what was sent is not what it has signed.
    ForkFound {
        /// Whose log.
        replica: ReplicaKey,
    },
    /// Answers [`Effect::CompareLogs`] or [`Effect::ApplyBranch`]: the logs differ below a checkpoint,
    /// up to which the one that is held here stands.
    ForkStands {
        /// Up to which number.
        number: u64,
    },
    /// The end of a log has been replaced here by another branch, so what the peer has been told is not
    /// held any more.
    LogReplaced,
    /// Answers [`Effect::ReadCheckpoint`]; `None` where there is none that a message can hold.
    CheckpointReady(Option<Box<CheckpointOffer>>),
    /// Answers [`Effect::ReadPart`]; `None` where the log has been compacted further meanwhile.
    PartReady(Option<Box<CheckpointPart>>),
    /// Answers [`Effect::TakeCheckpoint`] and [`Effect::TakePart`]: what to ask for next, if anything.
    CheckpointTaken(Option<PartRequest>),
    /// Answers [`Effect::TakeCheckpoint`] and [`Effect::TakePart`]: nobody is at fault, and yet this
    /// side cannot go on from the checkpoint.
    CannotCatchUp {
        /// Why.
        what: String,
    },
    /// Answers [`Effect::ReadHead`]; `None` where it was not signed.
    HeadReady(Option<SignedHead>),
    /// Answers [`Effect::CompareLogs`].
    LogsCompared(LogComparison),
    /// Answers [`Effect::ReadBranch`].
    BranchReady(Vec<u8>),
    /// Answers [`Effect::ApplyBranch`].
    BranchApplied(BranchOutcome),
    /// Answers [`Effect::Sign`].
    Signed([u8; SIGNATURE_BYTES]),
    /// Answers [`Effect::CheckAccess`].
    AccessChecked {
        /// Until when the peer may read, on the session's clock: the greatest number where that has no
        /// end, `None` where it may not now.
        until: Option<Milliseconds>,
    },
    /// Answers [`Effect::CompareRanges`].
    RangesCompared {
        /// What to say to the peer.
        answer: RangeSummaries,
        /// Rows that differ.
        different: DifferentRows,
    },
    /// Answers [`Effect::Rebuild`].
    Rebuilt {
        /// How many.
        documents: usize,
    },
    /// There may be something new in the namespace's [`PresenceTable`](super::PresenceTable). It is told
    /// at the beginning of a session as well, where that is not empty.
    PresenceChanged,
    /// Answers [`Effect::ReadPresence`].
    PresenceReady {
        /// What the peer is to be told.
        updates: Vec<PresenceUpdate>,
        /// The revision of the table up to which that goes.
        revision: u64,
    },
    /// More has become durable here.
    LocalAdvanced {
        /// What is held durably.
        vector: VersionVector,
    },
    /// Bytes of a message of this kind, which is not complete yet, have arrived: the peer is slow, not
    /// silent.
    Progressed(MessageKind),
    /// The time that [`Session::deadline`] gave has come.
    TimePassed,
    /// The driver wants to end the session.
    Leave(GoodbyeCode),
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message.
    Send(Message),
    /// Look up the secret of a namespace, and what is held of it.
    ReadShare(Namespace),
    /// Sign bytes with the key that is this side's id.
    Sign(Vec<u8>),
    /// Look up until when the peer may read the namespace, by the records that are held and those that
    /// it has shown.
    CheckAccess(Vec<SignedRecord>),
    /// Read a frame of what `since` does not cover.
    ReadFrame {
        /// What the peer holds or will hold.
        since: VersionVector,
        /// The frame is larger only where one signature is for more.
        bytes_max: usize,
    },
    /// Apply a frame durably. There is one at a time.
    Apply(Vec<u8>),
    /// Read the checkpoint up to which the log has been compacted.
    ReadCheckpoint,
    /// Read a part of what is retained below it.
    ReadPart(PartRequest),
    /// Begin to take a peer's checkpoint.
    TakeCheckpoint(Box<CheckpointOffer>),
    /// Take a part of what the peer retains below it, durably.
    TakePart(Box<CheckpointPart>),
    /// Read the head of a replica's log that it has signed, at the length that is held.
    ReadHead {
        /// Whose log.
        replica: ReplicaKey,
    },
    /// Compare a log with the peer's.
    CompareLogs {
        /// The peer's log.
        peer: SignedHead,
        /// What the peer has said of it.
        said: Vec<RootAt>,
    },
    /// Read what is held of a replica's log from a number on.
    ReadBranch {
        /// Whose log.
        replica: ReplicaKey,
        /// The first number.
        number: u64,
    },
    /// Take a peer's branch durably, where it is the one that stands.
    ApplyBranch(Vec<u8>),
    /// Read the fingerprint of the state; it may wait a little.
    ReadFingerprint,
    /// Compare ranges of rows with what the peer has said of them, or begin with what is to be said.
    CompareRanges {
        /// What the peer has said.
        said: Option<RangeSummaries>,
        /// What digests are keyed with.
        key: SessionKey,
    },
    /// Rebuild the documents of these rows from the log.
    Rebuild(DifferentRows),
    /// Read what the table has above this revision.
    ReadPresence {
        /// Up to where the peer has been told.
        since: u64,
    },
    /// Put what the peer has said into the table. When the session is over, what came of it ends.
    TakePresence(Vec<PresenceUpdate>),
    /// Tell whoever watches.
    Notify(Notice),
    /// The session is over: nothing follows, and events no longer matter.
    Close(CloseReason),
}

/// What whoever watches a session may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Both sides have proved that they hold the secret, or have the keys that they claim.
    Authenticated,
    /// The two sides have defined Gens in different ways, which stops nothing. It is told once.
    SchemasDiffer(SchemaDifferences),
    /// The peer has said that it holds this durably.
    PeerHolds(VersionVector),
    /// A replica has signed two logs of one length: one that is held here, and one that the peer
    /// holds.
    Forked {
        /// The head of the log that is held here, and of the one that the peer holds.
        heads: Box<[SignedHead; 2]>,
    },
    /// The states differed at equal vectors, and what differed has been rebuilt from the log.
    Repaired {
        /// How many documents.
        documents: usize,
    },
    /// Both sides hold the same changes and the same state.
    Synced {
        /// The changes.
        vector: VersionVector,
        /// The state.
        fingerprint: Fingerprint,
    },
    /// The peer holds this too: what to begin the next session with.
    Met(Cursor),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// One of the sides left.
    Done,
    /// One of the sides did not show that it holds the secret or may read, or the namespace is not
    /// shared.
    Refused,
    /// The right to read has ended: it has expired, or was revoked.
    AccessEnded,
    /// The sides speak different versions of the protocol.
    OtherVersion,
    /// The peer did not finish the handshake in time: it speaks something else, or nothing.
    HandshakeTimeout,
    /// The peer sent what it must not send, or withheld what it owes.
    PeerMisbehaved(String),
    /// The peer's store failed.
    PeerStorageFailed,
    /// This side's store failed.
    StorageFailed(String),
    /// The log of one side does not go back to what the other one holds, and no checkpoint helps.
    Compacted(String),
    /// The same, as the peer says.
    PeerCompacted,
    /// Equal vectors, different states, and no repair has helped.
    Diverged,
    /// What one side has told the other does not hold any more, for a log or the end of one has been
    /// replaced: the sides begin again from what they hold now.
    BeginAgain,
    /// A replica has signed two logs, and the sides hold one each which they cannot part with.
    Forked {
        /// Whose logs.
        replica: ReplicaKey,
        /// At which length they differ.
        number: u64,
    },
}

enum Phase {
    ServerAwaitsHello,
    ServerAwaitsShare { client_nonce: Nonce },
    ServerAwaitsProof { client_nonce: Nonce },
    ServerAwaitsAccess { client_nonce: Nonce },
    ServerAwaitsSignature { client_nonce: Nonce },
    ClientAwaitsHello,
    ClientAwaitsSignature { server_nonce: Nonce },
    ClientAwaitsProof { server_nonce: Nonce },
    AwaitsHoldings,
    Open,
    Closed,
}

/// One side of a session.
pub struct Session {
    role: Role,
    own: NodeId,
    peer: NodeId,
    nonce: Nonce,
    namespace: Namespace,
    /// How a client gets in, or the secret that a server has looked up. A server has none where the
    /// namespace is not shared.
    access: Option<Access>,
    /// What a client has shown that got in by its key, and until when it may read.
    admitted: Option<Admitted>,
    phase: Phase,
    /// When the handshake must be over; none before the session has begun.
    handshake_deadline: Option<Milliseconds>,
    schema: SchemaExchange,
    presence: PresenceExchange,
    exchange: Exchange,
}

/// What keys digests of ranges where the sides share no secret: the nonces alone make them the
/// session's own then.
const NO_SECRET: Secret = [0; 32];

/// A peer that a server has let in by its key.
struct Admitted {
    shown: Vec<SignedRecord>,
    until: Milliseconds,
}

impl Session {
    /// The side that dials. `nonce` must be random, and `held` is what is held durably.
    pub fn client(
        (own, peer): (NodeId, NodeId),
        nonce: Nonce,
        namespace: Namespace,
        access: impl Into<Access>,
        held: impl Into<Holdings>,
    ) -> Session {
        Session {
            role: Role::Client,
            own,
            peer,
            nonce,
            namespace,
            access: Some(access.into()),
            admitted: None,
            phase: Phase::ClientAwaitsHello,
            handshake_deadline: None,
            schema: SchemaExchange::default(),
            presence: PresenceExchange::default(),
            exchange: Exchange::new(held.into(), None),
        }
    }

    /// The side that is dialled. `nonce` must be random.
    pub fn server((own, peer): (NodeId, NodeId), nonce: Nonce) -> Session {
        Session {
            role: Role::Server,
            own,
            peer,
            nonce,
            namespace: Namespace::new(),
            access: None,
            admitted: None,
            phase: Phase::ServerAwaitsHello,
            handshake_deadline: None,
            schema: SchemaExchange::default(),
            presence: PresenceExchange::default(),
            exchange: Exchange::new(Holdings::default(), None),
        }
    }

    /// The session with what this side has defined, of which the peer is told as much as shows what the
    /// two have defined in different ways.
    #[must_use]
    pub fn with_schema(self, schema: Arc<Schema>) -> Session {
        Session { schema: SchemaExchange::new(schema), ..self }
    }

    /// The side that dials with what this side and the peer both held when they last met.
    #[must_use]
    pub fn with_cursor(mut self, cursor: Option<Cursor>) -> Session {
        self.exchange.begin_from(cursor);
        self
    }

    /// When [`Event::TimePassed`] is wanted, if nothing happens before; it may come late.
    pub fn deadline(&self) -> Option<Milliseconds> {
        let deadline = match self.phase {
            Phase::Closed => return None,
            Phase::Open => {
                let deadlines = [self.exchange.deadline(), self.presence.deadline()];
                deadlines.into_iter().flatten().min()
            }
            _ => self.handshake_deadline,
        };
        let until = self.admitted.as_ref().map(|admitted| admitted.until);
        deadline.into_iter().chain(until.filter(|until| *until < Milliseconds::MAX)).min()
    }

    /// Takes note of what happened and says what to do. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Milliseconds) -> Vec<Effect> {
        let mut effects = Vec::new();
        let handshake_deadline = *self
            .handshake_deadline
            .get_or_insert(now.saturating_add(HANDSHAKE_TIMEOUT.as_millis() as Milliseconds));
        let may_have_changed = matches!(event, Event::LocalAdvanced { .. } | Event::Applied { .. });
        let is_over = self.admitted.as_ref().is_some_and(|admitted| now >= admitted.until);
        let result = match (&self.phase, event) {
            (Phase::Closed, _) => Ok(()),
            (_, Event::Leave(code)) => {
                effects.push(Effect::Send(Message::Goodbye(code)));
                Err(CloseReason::Done)
            }
            (_, Event::Received(Message::Goodbye(code))) => Err(left_by_peer(code)),
            (_, Event::LogReplaced) => Err(CloseReason::BeginAgain),
            _ if is_over => Err(CloseReason::AccessEnded),
            (Phase::AwaitsHoldings | Phase::Open, Event::AccessChecked { until }) => {
                self.admit_until(until)
            }
            (Phase::AwaitsHoldings | Phase::Open, Event::Received(Message::Schema(gens))) => {
                self.schema.receive_schema(&gens, &mut effects)
            }
            (Phase::AwaitsHoldings | Phase::Open, Event::Received(Message::Gens(bytes))) => {
                self.schema.receive_gens(&bytes, &mut effects)
            }
            (Phase::Open, Event::Received(Message::Presence(updates))) => {
                self.presence.receive(updates, &mut effects)
            }
            (Phase::Open, Event::Received(Message::PresenceTaken)) => self.presence.taken(),
            (Phase::Open, Event::PresenceReady { updates, revision }) => {
                self.presence.ready(updates, revision, &mut effects);
                Ok(())
            }
            (_, Event::PresenceChanged) => {
                self.presence.changed();
                Ok(())
            }
            (Phase::Open, event) => self.exchange.handle(event, now, &mut effects),
            (_, _) if now >= handshake_deadline => Err(CloseReason::HandshakeTimeout),
            (_, Event::LocalAdvanced { vector }) => {
                self.exchange.advance_own(&vector);
                Ok(())
            }
            (_, event) => self.handshake(event, now, &mut effects),
        };
        if let (Some(admitted), true) = (&self.admitted, may_have_changed && result.is_ok()) {
            effects.push(Effect::CheckAccess(admitted.shown.clone()));
        }
        if result.is_ok() && matches!(self.phase, Phase::Open) {
            self.presence.proceed(now, &mut effects);
        }
        if let Err(reason) = result {
            if let Some(code) = farewell(&reason)
                && !effects.iter().any(|effect| matches!(effect, Effect::Send(Message::Goodbye(_))))
            {
                effects.push(Effect::Send(Message::Goodbye(code)));
            }
            effects.push(Effect::Close(reason));
            self.phase = Phase::Closed;
        }
        effects
    }

    fn handshake(
        &mut self,
        event: Event,
        now: Milliseconds,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        match (&self.phase, event) {
            (Phase::ClientAwaitsHello, Event::Started) => effects.push(self.hello()),
            (_, Event::Started) => {}
            (
                Phase::ServerAwaitsHello,
                Event::Received(Message::Hello { version, namespace, nonce }),
            ) => {
                check_version(version)?;
                self.namespace = namespace.clone();
                self.phase = Phase::ServerAwaitsShare { client_nonce: nonce };
                effects.push(Effect::ReadShare(namespace));
            }
            // A client learns here that somebody is there, whether the namespace is shared or not.
            (
                &Phase::ServerAwaitsShare { client_nonce },
                Event::ShareReady { secret, held, cursor },
            ) => {
                self.access = secret.map(Access::Secret);
                self.exchange = Exchange::new(held, cursor);
                self.phase = Phase::ServerAwaitsProof { client_nonce };
                effects.push(self.hello());
            }
            (
                Phase::ClientAwaitsHello,
                Event::Received(Message::Hello { version, namespace, nonce }),
            ) => {
                check_version(version)?;
                if namespace != self.namespace {
                    return Err(misbehaved("an answer for another namespace"));
                }
                match &self.access {
                    Some(Access::Secret(secret)) => {
                        effects.push(self.prove(&nonce, secret));
                        self.phase = Phase::ClientAwaitsProof { server_nonce: nonce };
                    }
                    Some(Access::Capability(_)) => {
                        effects.push(self.sign(&nonce));
                        self.phase = Phase::ClientAwaitsSignature { server_nonce: nonce };
                    }
                    None => return Err(CloseReason::Refused),
                }
            }
            (&Phase::ClientAwaitsSignature { server_nonce }, Event::Signed(signature)) => {
                let Some(Access::Capability(records)) = &self.access else {
                    return Err(CloseReason::Refused);
                };
                let records = records.clone();
                effects.push(Effect::Send(Message::KeyProof { signature, records }));
                self.phase = Phase::ClientAwaitsProof { server_nonce };
            }
            (
                &Phase::ServerAwaitsProof { client_nonce },
                Event::Received(Message::Proof(proof)),
            ) => {
                let secret = self.verify(&client_nonce, &proof)?;
                effects.push(self.prove(&client_nonce, &secret));
                self.authenticated(&client_nonce, &secret, now, effects);
            }
            (
                &Phase::ClientAwaitsProof { server_nonce },
                Event::Received(Message::Proof(proof)),
            ) => {
                let secret = self.verify(&server_nonce, &proof)?;
                self.authenticated(&server_nonce, &secret, now, effects);
            }
            (
                &Phase::ServerAwaitsProof { client_nonce },
                Event::Received(Message::KeyProof { signature, records }),
            ) => {
                // A namespace that is not shared is there for nobody.
                self.access.as_ref().ok_or(CloseReason::Refused)?;
                self.verify_key(&client_nonce, &signature)?;
                self.admitted = Some(Admitted { shown: records.clone(), until: Milliseconds::MAX });
                self.phase = Phase::ServerAwaitsAccess { client_nonce };
                effects.push(Effect::CheckAccess(records));
            }
            (&Phase::ServerAwaitsAccess { client_nonce }, Event::AccessChecked { until }) => {
                self.admit_until(until).map_err(|_| CloseReason::Refused)?;
                effects.push(self.sign(&client_nonce));
                self.phase = Phase::ServerAwaitsSignature { client_nonce };
            }
            (&Phase::ServerAwaitsSignature { client_nonce }, Event::Signed(signature)) => {
                let records = Vec::new();
                effects.push(Effect::Send(Message::KeyProof { signature, records }));
                self.authenticated(&client_nonce, &NO_SECRET, now, effects);
            }
            (
                &Phase::ClientAwaitsProof { server_nonce },
                Event::Received(Message::KeyProof { signature, .. }),
            ) if matches!(self.access, Some(Access::Capability(_))) => {
                self.verify_key(&server_nonce, &signature)?;
                self.authenticated(&server_nonce, &NO_SECRET, now, effects);
            }
            (Phase::AwaitsHoldings, Event::Received(Message::Holdings(holdings))) => {
                self.phase = Phase::Open;
                self.exchange.open(&self.namespace, Some(holdings), now, effects);
            }
            (
                Phase::AwaitsHoldings,
                Event::Received(Message::HoldingsSince { digest, changed }),
            ) => {
                self.phase = Phase::Open;
                let holdings = self.exchange.holdings_since(&digest, changed)?;
                self.exchange.open(&self.namespace, holdings, now, effects);
            }
            (_, Event::Received(_)) => return Err(misbehaved("a message out of turn")),
            // Answers that were on their way cannot arrive before the exchange has asked.
            _ => {}
        }
        Ok(())
    }

    fn hello(&self) -> Effect {
        Effect::Send(Message::Hello {
            version: PROTOCOL_VERSION,
            namespace: self.namespace.clone(),
            nonce: self.nonce,
        })
    }

    fn authenticated(
        &mut self,
        peer_nonce: &Nonce,
        secret: &Secret,
        now: Milliseconds,
        effects: &mut Vec<Effect>,
    ) {
        self.phase = Phase::AwaitsHoldings;
        let key = self.binding(peer_nonce).range_key(secret);
        let is_client = self.role == Role::Client;
        self.exchange.repair_with(is_client, Repair::new(is_client, key));
        // Before anything large is sent: the peer sends as much, and nobody takes it unauthenticated.
        effects.push(Effect::Notify(Notice::Authenticated));
        self.schema.announce(effects);
        effects.push(Effect::Send(self.exchange.announce()));
        // What is held of many replicas takes its time on a slow link.
        let limit = PROGRESS_TIMEOUT.as_millis() as Milliseconds;
        self.handshake_deadline = Some(now.saturating_add(limit));
    }

    fn prove(&self, peer_nonce: &Nonce, secret: &Secret) -> Effect {
        let proof = self.binding(peer_nonce).prove(self.role, secret);
        Effect::Send(Message::Proof(proof))
    }

    fn verify(&self, peer_nonce: &Nonce, proof: &[u8; 32]) -> Result<Secret, CloseReason> {
        let role = self.role.other();
        let Some(Access::Secret(secret)) = &self.access else { return Err(CloseReason::Refused) };
        let is_right = self.binding(peer_nonce).verify(role, secret, proof);
        is_right.then_some(*secret).ok_or(CloseReason::Refused)
    }

    fn sign(&self, peer_nonce: &Nonce) -> Effect {
        Effect::Sign(self.binding(peer_nonce).bytes_to_sign(self.role))
    }

    /// Whether the peer has the key that is its id.
    fn verify_key(
        &self,
        peer_nonce: &Nonce,
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), CloseReason> {
        let signed = self.binding(peer_nonce).bytes_to_sign(self.role.other());
        let is_right = is_signature(&ReplicaKey(self.peer), &signed, signature);
        is_right.then_some(()).ok_or(CloseReason::Refused)
    }

    /// Goes on until then with a peer that was let in by its key.
    fn admit_until(&mut self, until: Option<Milliseconds>) -> Result<(), CloseReason> {
        let until = until.ok_or(CloseReason::AccessEnded)?;
        if let Some(admitted) = &mut self.admitted {
            admitted.until = until;
        }
        Ok(())
    }

    fn binding<'a>(&'a self, peer_nonce: &'a Nonce) -> Binding<'a> {
        let namespace = &self.namespace;
        let (own, own_nonce, peer) = (&self.own, &self.nonce, &self.peer);
        let ((client, client_nonce), (server, server_nonce)) = match self.role {
            Role::Client => ((own, own_nonce), (peer, peer_nonce)),
            Role::Server => ((peer, peer_nonce), (own, own_nonce)),
        };
        Binding { client, server, client_nonce, server_nonce, namespace }
    }
}

pub(super) fn misbehaved(what: &str) -> CloseReason {
    CloseReason::PeerMisbehaved(what.to_owned())
}

fn check_version(version: u64) -> Result<(), CloseReason> {
    if version == PROTOCOL_VERSION { Ok(()) } else { Err(CloseReason::OtherVersion) }
}

fn left_by_peer(code: GoodbyeCode) -> CloseReason {
    match code {
        GoodbyeCode::Done => CloseReason::Done,
        GoodbyeCode::Refused => CloseReason::Refused,
        GoodbyeCode::AccessEnded => CloseReason::AccessEnded,
        // Whoever holds a log that stands below a checkpoint has said so.
        GoodbyeCode::Diverged | GoodbyeCode::Forked => CloseReason::Diverged,
        GoodbyeCode::StorageFailed => CloseReason::PeerStorageFailed,
        GoodbyeCode::OtherVersion => CloseReason::OtherVersion,
        GoodbyeCode::Compacted => CloseReason::PeerCompacted,
        GoodbyeCode::Misbehaved => misbehaved("it refuses what this side sent"),
    }
}

/// What to tell the peer before the session closes; repeating to it what it said does no harm.
fn farewell(reason: &CloseReason) -> Option<GoodbyeCode> {
    match reason {
        CloseReason::Done | CloseReason::PeerStorageFailed | CloseReason::PeerCompacted => None,
        // Whoever was slow may be quicker next time.
        CloseReason::BeginAgain | CloseReason::HandshakeTimeout => Some(GoodbyeCode::Done),
        CloseReason::Refused => Some(GoodbyeCode::Refused),
        CloseReason::AccessEnded => Some(GoodbyeCode::AccessEnded),
        CloseReason::OtherVersion => Some(GoodbyeCode::OtherVersion),
        CloseReason::PeerMisbehaved(_) => Some(GoodbyeCode::Misbehaved),
        CloseReason::StorageFailed(_) => Some(GoodbyeCode::StorageFailed),
        CloseReason::Compacted(_) => Some(GoodbyeCode::Compacted),
        CloseReason::Diverged => Some(GoodbyeCode::Diverged),
        CloseReason::Forked { .. } => Some(GoodbyeCode::Forked),
    }
}
