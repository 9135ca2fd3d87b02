//! Signs everything that anybody asks for: both of two contradicting chains, both of two entries
//! for one index, and that it has processed what it has never seen. As the sequencer it proposes
//! different entries to different members.

use vudo_credit::committee::{Kind, Statement};
use vudo_credit::operation::{Operation, heads_statement};
use vudo_credit::order::sign_proposal;
use vudo_credit::{Event, Member, Message, Party};

use super::{Identity, Liar};

pub(crate) struct Equivocator {
    pub(crate) identity: Identity,
    /// Follows the log, so that its lies are current.
    pub(crate) shadow: Member,
}

impl Liar for Equivocator {
    fn receive(&mut self, from: Party, message: Message) -> Vec<(Party, Message)> {
        let identity = &self.identity;
        match message {
            Message::Deposit(chains) => [Kind::Receipt, Kind::Vote]
                .map(|kind| (from, identity.sign(identity.heads(kind, &chains))))
                .to_vec(),
            Message::Settle(settlement) => {
                let statement = heads_statement(Kind::Processed, &settlement.heads);
                vec![(from, identity.sign(statement))]
            }
            Message::Propose { entry, .. } => {
                let digest = entry.hash(&identity.committee.network);
                vec![(from, identity.sign(Statement { kind: Kind::Entry, digest }))]
            }
            Message::Submit(operation) => self.propose_two(*operation),
            message => {
                self.shadow.handle(Event::Message { from, message });
                Vec::new()
            }
        }
    }

    fn strike(&mut self, _clock: u64) -> Vec<(Party, Message)> {
        let from = self.shadow.ledger().next_index();
        let place = self.identity.member;
        let count = self.identity.committee.members().len() as u8;
        vec![(Party::Member((place + 1) % count), Message::Want { from })]
    }
}

impl Equivocator {
    /// Proposes an operation to some members and a tick to the others, at one index.
    fn propose_two(&mut self, operation: Operation) -> Vec<(Party, Message)> {
        let ledger = self.shadow.ledger();
        let tick = ledger.tick() + 1;
        let entries = [operation, Operation::Tick { tick }].map(|one| ledger.entry(one).ok());
        let network = &self.identity.committee.network;
        let count = self.identity.committee.members().len() as u8;
        let mut sends = Vec::new();
        for member in 0..count {
            if let Some(entry) = &entries[usize::from(member % 2)] {
                let signature = sign_proposal(&self.identity.secret, &entry.hash(network));
                let entry = Box::new(entry.clone());
                sends.push((Party::Member(member), Message::Propose { entry, signature }));
            }
        }
        sends
    }
}
