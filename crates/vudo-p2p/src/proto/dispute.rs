//! Two sides that hold different logs of one replica, of one length: each shows the head that the
//! replica has signed, and then both have the proof that it signed two.

use vudo_crdt::ReplicaKey;
use vudo_crdt::head::SignedHead;
use vudo_state::is_signature;

use super::message::Message;
use super::session::{CloseReason, Effect, Event, Notice, misbehaved};

pub(super) struct Dispute {
    namespace: String,
    replica: ReplicaKey,
    number: u64,
    own: Option<SignedHead>,
    peer: Option<SignedHead>,
}

impl Dispute {
    pub(super) fn begin(
        namespace: String,
        (replica, number): (ReplicaKey, u64),
        effects: &mut Vec<Effect>,
    ) -> Dispute {
        effects.push(Effect::ReadHead { replica, number });
        Dispute { namespace, replica, number, own: None, peer: None }
    }

    /// Takes note of what happened. It ends with an error, whatever it is.
    pub(super) fn handle(
        &mut self,
        event: Event,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        match event {
            Event::HeadReady(Some(head)) => {
                effects.push(Effect::Send(Message::Head(head.clone())));
                self.own = Some(head);
            }
            // What is held without a signature can be shown to nobody.
            Event::HeadReady(None) => return Err(CloseReason::Diverged),
            Event::ApplyFailed { what, .. } => return Err(CloseReason::StorageFailed(what)),
            Event::Received(Message::Head(signed)) => {
                let head = &signed.head;
                let is_of_dispute = head.namespace == self.namespace
                    && head.replica == self.replica
                    && head.length == self.number;
                if !is_of_dispute || !signed.holds(is_signature) {
                    return Err(misbehaved("a hash of a log that its replica has not signed"));
                }
                self.peer = Some(signed);
            }
            Event::Received(_) => return Err(misbehaved("a message out of turn")),
            _ => {}
        }
        let (Some(own), Some(peer)) = (&self.own, &self.peer) else { return Ok(()) };
        if own.head.root == peer.head.root {
            return Err(misbehaved("a hash of a log that is not the log's"));
        }
        let heads = Box::new([own.clone(), peer.clone()]);
        effects.push(Effect::Notify(Notice::Forked { heads }));
        Err(CloseReason::Forked { replica: self.replica, number: self.number })
    }
}
