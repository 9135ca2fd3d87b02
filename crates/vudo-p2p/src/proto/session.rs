//! One session: from the first message to the last.
//!
//! Whoever drives it feeds [`Event`]s and carries out [`Effect`]s in their order. Reading frames,
//! applying them and reading fingerprints are the driver's work, answered by events.

use vudo_crdt::head::SignedHead;
use vudo_crdt::{
    DifferentRows, Fingerprint, RangeSummaries, ReplicaKey, SessionKey, VersionVector,
};
use vudo_state::OutgoingFrame;

use super::exchange::Exchange;
use super::holdings::Holdings;
use super::message::{GoodbyeCode, Message, Namespace, Nonce, PROTOCOL_VERSION};
use super::proof::{Binding, NodeId, Role, Secret};
use super::repair::Repair;
use crate::limits::HANDSHAKE_TIMEOUT;

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
    },
    /// Answers [`Effect::ReadFrame`]; `None` where there was nothing to send.
    FrameReady(Option<OutgoingFrame>),
    /// Answers [`Effect::Apply`], with what is held durably now.
    Applied {
        /// What is held durably.
        vector: VersionVector,
    },
    /// Answers [`Effect::Apply`] where it failed.
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
    },
    /// Answers [`Effect::ReadFrame`]: the log here does not go back to what the peer holds.
    Compacted {
        /// What is missing.
        what: String,
    },
    /// Answers [`Effect::ReadHead`]; `None` where it was not signed.
    HeadReady(Option<SignedHead>),
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
    /// More has become durable here.
    LocalAdvanced {
        /// What is held durably.
        vector: VersionVector,
    },
    /// Bytes of a message that is not complete yet have arrived: the peer is slow, not silent.
    Progressed,
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
    /// Read a frame of what `since` does not cover.
    ReadFrame {
        /// What the peer holds or will hold.
        since: VersionVector,
        /// The frame is larger only where one signature is for more.
        bytes_max: usize,
    },
    /// Apply a frame durably. There is one at a time.
    Apply(Vec<u8>),
    /// Read the head of a replica's log that it has signed at this length.
    ReadHead {
        /// Whose log.
        replica: ReplicaKey,
        /// Its length.
        number: u64,
    },
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
    /// Tell whoever watches.
    Notify(Notice),
    /// The session is over: nothing follows, and events no longer matter.
    Close(CloseReason),
}

/// What whoever watches a session may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Both sides have proved that they hold the secret.
    Authenticated,
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
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// One of the sides left.
    Done,
    /// One of the sides did not show that it holds the secret, or the namespace is not shared.
    Refused,
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
    /// The log of this side does not go back to what the peer holds.
    Compacted(String),
    /// The peer's log does not go back to what this side holds.
    PeerCompacted,
    /// Equal vectors, different states, and no repair has helped.
    Diverged,
    /// A replica has signed two logs, and the sides hold one each.
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
    ClientAwaitsHello,
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
    /// A server has none until it has looked it up, nor where the namespace is not shared.
    secret: Option<Secret>,
    phase: Phase,
    /// When the handshake must be over; none before the session has begun.
    handshake_deadline: Option<Milliseconds>,
    exchange: Exchange,
}

impl Session {
    /// The side that dials. `nonce` must be random, and `held` is what is held durably.
    pub fn client(
        (own, peer): (NodeId, NodeId),
        nonce: Nonce,
        namespace: Namespace,
        secret: Secret,
        held: impl Into<Holdings>,
    ) -> Session {
        let exchange = Exchange::new(held.into());
        let (role, secret) = (Role::Client, Some(secret));
        let phase = Phase::ClientAwaitsHello;
        let handshake_deadline = None;
        Session { role, own, peer, nonce, namespace, secret, phase, handshake_deadline, exchange }
    }

    /// The side that is dialled. `nonce` must be random.
    pub fn server((own, peer): (NodeId, NodeId), nonce: Nonce) -> Session {
        let exchange = Exchange::new(Holdings::default());
        let (role, namespace, secret) = (Role::Server, Namespace::new(), None);
        let phase = Phase::ServerAwaitsHello;
        let handshake_deadline = None;
        Session { role, own, peer, nonce, namespace, secret, phase, handshake_deadline, exchange }
    }

    /// When [`Event::TimePassed`] is wanted, if nothing happens before; it may come late.
    pub fn deadline(&self) -> Option<Milliseconds> {
        match self.phase {
            Phase::Closed => None,
            Phase::Open => self.exchange.deadline(),
            _ => self.handshake_deadline,
        }
    }

    /// Takes note of what happened and says what to do. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Milliseconds) -> Vec<Effect> {
        let mut effects = Vec::new();
        let handshake_deadline = *self
            .handshake_deadline
            .get_or_insert(now.saturating_add(HANDSHAKE_TIMEOUT.as_millis() as Milliseconds));
        let result = match (&self.phase, event) {
            (Phase::Closed, _) => Ok(()),
            (_, Event::Leave(code)) => {
                effects.push(Effect::Send(Message::Goodbye(code)));
                Err(CloseReason::Done)
            }
            (_, Event::Received(Message::Goodbye(code))) => Err(left_by_peer(code)),
            (Phase::Open, event) => self.exchange.handle(event, now, &mut effects),
            (_, _) if now >= handshake_deadline => Err(CloseReason::HandshakeTimeout),
            (_, Event::LocalAdvanced { vector }) => {
                self.exchange.advance_own(&vector);
                Ok(())
            }
            (_, event) => self.handshake(event, now, &mut effects),
        };
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
            (&Phase::ServerAwaitsShare { client_nonce }, Event::ShareReady { secret, held }) => {
                self.secret = secret;
                self.exchange = Exchange::new(held);
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
                self.phase = Phase::ClientAwaitsProof { server_nonce: nonce };
                let secret = self.secret.ok_or(CloseReason::Refused)?;
                effects.push(self.prove(&nonce, &secret));
            }
            (
                &Phase::ServerAwaitsProof { client_nonce },
                Event::Received(Message::Proof(proof)),
            ) => {
                let secret = self.verify(&client_nonce, &proof)?;
                effects.push(self.prove(&client_nonce, &secret));
                self.authenticated(&client_nonce, &secret, effects);
            }
            (
                &Phase::ClientAwaitsProof { server_nonce },
                Event::Received(Message::Proof(proof)),
            ) => {
                let secret = self.verify(&server_nonce, &proof)?;
                self.authenticated(&server_nonce, &secret, effects);
            }
            (Phase::AwaitsHoldings, Event::Received(Message::Holdings(holdings))) => {
                self.phase = Phase::Open;
                self.exchange.begin(&self.namespace, &holdings, now, effects);
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

    fn authenticated(&mut self, peer_nonce: &Nonce, secret: &Secret, effects: &mut Vec<Effect>) {
        self.phase = Phase::AwaitsHoldings;
        let key = self.binding(peer_nonce).range_key(secret);
        self.exchange.repair_with(Repair::new(self.role == Role::Client, key));
        effects.push(Effect::Send(Message::Holdings(self.exchange.announce())));
        effects.push(Effect::Notify(Notice::Authenticated));
    }

    fn prove(&self, peer_nonce: &Nonce, secret: &Secret) -> Effect {
        let proof = self.binding(peer_nonce).prove(self.role, secret);
        Effect::Send(Message::Proof(proof))
    }

    fn verify(&self, peer_nonce: &Nonce, proof: &[u8; 32]) -> Result<Secret, CloseReason> {
        let role = match self.role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let secret = self.secret.ok_or(CloseReason::Refused)?;
        let is_right = self.binding(peer_nonce).verify(role, &secret, proof);
        is_right.then_some(secret).ok_or(CloseReason::Refused)
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
        // Whoever finds a fork has shown both heads before.
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
        CloseReason::Refused => Some(GoodbyeCode::Refused),
        CloseReason::OtherVersion | CloseReason::HandshakeTimeout => {
            Some(GoodbyeCode::OtherVersion)
        }
        CloseReason::PeerMisbehaved(_) => Some(GoodbyeCode::Misbehaved),
        CloseReason::StorageFailed(_) => Some(GoodbyeCode::StorageFailed),
        CloseReason::Compacted(_) => Some(GoodbyeCode::Compacted),
        CloseReason::Diverged => Some(GoodbyeCode::Diverged),
        CloseReason::Forked { .. } => Some(GoodbyeCode::Forked),
    }
}
