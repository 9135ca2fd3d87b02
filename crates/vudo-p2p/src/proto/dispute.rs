//! Two sides that hold different logs of one replica find out where they part, and one of them goes on
//! with the branch of the other.
//!
//! ```text
//! both: head <--> head, then from the client on:  roots --> <-- roots --> ... branch --> [<-- branch]
//! ```
//!
//! Each shows the head that the replica has signed, so that nobody searches in vain for somebody who
//! only says so. Whoever finds the first difference sends its branch. The other side takes it, or,
//! where its own stands, answers with that. What is taken is verified by whoever takes it: a peer that
//! lies costs time. Then the session ends, and the next one finds logs of which one continues the other.

use vudo_crdt::ReplicaKey;
use vudo_crdt::head::SignedHead;
use vudo_state::{BranchOutcome, LogComparison, is_signature};

use super::message::Message;
use super::session::{CloseReason, Effect, Event, Notice, misbehaved};
use crate::limits::LOG_ROOT_MESSAGES_MAX;

pub(super) struct Dispute {
    namespace: String,
    replica: ReplicaKey,
    is_client: bool,
    own: Option<SignedHead>,
    peer: Option<SignedHead>,
    has_sent_branch: bool,
    is_applying: bool,
    message_count: usize,
}

impl Dispute {
    pub(super) fn begin(
        namespace: String,
        replica: ReplicaKey,
        is_client: bool,
        effects: &mut Vec<Effect>,
    ) -> Dispute {
        effects.push(Effect::ReadHead { replica });
        Dispute {
            namespace,
            replica,
            is_client,
            own: None,
            peer: None,
            has_sent_branch: false,
            is_applying: false,
            message_count: 0,
        }
    }

    /// Takes note of what happened. It ends with an error, whatever it is.
    pub(super) fn handle(
        &mut self,
        event: Event,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        match event {
            // It was asked for before the other side's dispute took the place of this one's.
            Event::HeadReady(Some(head)) if head.head.replica != self.replica => {}
            Event::HeadReady(Some(head)) => {
                effects.push(Effect::Send(Message::Head(head.clone())));
                self.own = Some(head);
                self.compare_heads(effects)?;
            }
            Event::HeadReady(None) if self.peer.is_some() => {
                return Err(misbehaved("the head of a log of which nothing is held here"));
            }
            // What is held without a signature can be shown to nobody.
            Event::HeadReady(None) => return Err(CloseReason::Diverged),
            Event::ApplyFailed { is_peer_fault: true, what } => {
                return Err(CloseReason::PeerMisbehaved(what));
            }
            Event::ApplyFailed { what, .. } => return Err(CloseReason::StorageFailed(what)),
            Event::ForkStands { number } => {
                return Err(CloseReason::Forked { replica: self.replica, number });
            }
            Event::LogsCompared(comparison) => self.compared(comparison, effects)?,
            Event::BranchReady(branch) => {
                self.has_sent_branch = true;
                effects.push(Effect::Send(Message::Branch(branch)));
            }
            Event::BranchApplied(BranchOutcome::Taken) => return Err(CloseReason::BeginAgain),
            Event::BranchApplied(BranchOutcome::OwnStands(number)) => {
                self.is_applying = false;
                if self.has_sent_branch {
                    return Err(misbehaved("a branch that does not stand"));
                }
                effects.push(Effect::ReadBranch { replica: self.replica, number });
            }
            Event::Received(message) => self.receive(message, effects)?,
            _ => {}
        }
        Ok(())
    }

    fn receive(&mut self, message: Message, effects: &mut Vec<Effect>) -> Result<(), CloseReason> {
        match message {
            Message::Head(signed) if self.peer.is_none() => {
                let replica = signed.head.replica;
                if signed.head.namespace != self.namespace || !signed.holds(is_signature) {
                    return Err(misbehaved("a hash of a log that its replica has not signed"));
                }
                // Both may have begun, about different replicas: that of the lesser key goes first.
                if replica > self.replica {
                    return Ok(());
                }
                self.peer = Some(signed);
                if replica < self.replica {
                    (self.replica, self.own) = (replica, None);
                    effects.push(Effect::ReadHead { replica });
                    return Ok(());
                }
                self.compare_heads(effects)
            }
            Message::Roots(roots) => match &self.peer {
                Some(peer) => {
                    self.message_count += 1;
                    if self.message_count > LOG_ROOT_MESSAGES_MAX {
                        return Err(misbehaved("roots of a log without an end"));
                    }
                    effects.push(Effect::CompareLogs { peer: peer.clone(), said: roots });
                    Ok(())
                }
                None => Err(misbehaved("roots of a log that nobody has signed")),
            },
            // Each takes a place in memory until it has been looked at.
            Message::Branch(_) if self.is_applying => Err(misbehaved("a branch out of turn")),
            Message::Branch(branch) if self.peer.is_some() => {
                self.is_applying = true;
                effects.push(Effect::ApplyBranch(branch));
                Ok(())
            }
            // What was said before the peer knew of the dispute.
            _ if self.peer.is_none() => Ok(()),
            _ => Err(misbehaved("a message out of turn")),
        }
    }

    /// Begins the search where both have shown their heads.
    fn compare_heads(&mut self, effects: &mut Vec<Effect>) -> Result<(), CloseReason> {
        let (Some(own), Some(peer)) = (&self.own, &self.peer) else { return Ok(()) };
        if own.head.length == peer.head.length {
            if own.head.root == peer.head.root {
                return Err(misbehaved("a hash of a log that is not the log's"));
            }
            let heads = Box::new([own.clone(), peer.clone()]);
            effects.push(Effect::Notify(Notice::Forked { heads }));
        }
        if self.is_client {
            effects.push(Effect::CompareLogs { peer: peer.clone(), said: Vec::new() });
        }
        Ok(())
    }

    fn compared(
        &mut self,
        comparison: LogComparison,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        match comparison {
            LogComparison::Same => Err(misbehaved("changes that are not what was signed")),
            LogComparison::Narrow(roots) => {
                effects.push(Effect::Send(Message::Roots(roots)));
                Ok(())
            }
            LogComparison::DifferFrom(number) => {
                effects.push(Effect::ReadBranch { replica: self.replica, number });
                Ok(())
            }
        }
    }
}
