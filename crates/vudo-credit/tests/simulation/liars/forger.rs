//! Makes things up: votes of others, certificates that nobody gave, chains with other amounts,
//! requests that nobody signed, entries that were never agreed on.

use vudo_credit::committee::{Certificate, Kind, Signed, Statement};
use vudo_credit::message::Answer;
use vudo_credit::operation::{
    Action, CertifiedEntry, Entry, Operation, Request, Settlement, heads_statement,
};
use vudo_credit::{Chain, Digest, Head, Key, Message, Party, Signature};

use super::{Identity, Liar};

pub(crate) struct Forger {
    pub(crate) identity: Identity,
    pub(crate) operator: Key,
    /// Whose limit it would like to raise.
    pub(crate) favourite: Key,
    pub(crate) next_index: u64,
    pub(crate) last_hash: Digest,
}

impl Forger {
    /// A certificate with its own signature under everybody's name.
    fn certificate(&self, statement: Statement) -> Certificate {
        let Identity { committee, secret, .. } = &self.identity;
        let own = committee.sign(secret, statement.kind, statement.digest);
        let quorum = committee.quorum();
        Certificate { statement, signers: (1 << quorum) - 1, signatures: vec![own; quorum] }
    }

    fn to_all(&self, message: &Message) -> Vec<(Party, Message)> {
        let members = 0..self.identity.committee.members().len() as u8;
        members.map(|member| (Party::Member(member), message.clone())).collect()
    }

    /// Votes in the name of every member.
    fn votes_of_all(&self, to: Party, statement: Statement) -> Vec<(Party, Message)> {
        let Identity { committee, secret, .. } = &self.identity;
        let signature = committee.sign(secret, statement.kind, statement.digest);
        let vote = |member: usize| {
            let signed = Some(Signed { member: member as u8, signature });
            (to, Message::Answer(Answer { statement, signed, faults: Vec::new() }))
        };
        (0..committee.members().len()).map(vote).collect()
    }

    /// Settles chains in which its favourite gets more than was signed.
    fn settle_other_amounts(&self, chains: &[Chain]) -> Vec<(Party, Message)> {
        let mut chains = chains.to_vec();
        for chain in &mut chains {
            if let Some(spend) = chain.spends.last_mut() {
                spend.amount = spend.amount.wrapping_add(1);
                spend.cumulative = spend.cumulative.wrapping_add(1);
                spend.payee.account = self.favourite;
            }
        }
        let network = &self.identity.committee.network;
        let heads: Vec<Head> = chains.iter().filter_map(|chain| chain.end(network)).collect();
        let certificate = self.certificate(heads_statement(Kind::Vote, &heads));
        let deposit = Message::Deposit(chains.clone());
        let settle = Message::Settle(Settlement { heads, certificate, chains });
        [self.to_all(&deposit), self.to_all(&settle)].concat()
    }
}

impl Liar for Forger {
    fn receive(&mut self, from: Party, message: Message) -> Vec<(Party, Message)> {
        match message {
            // Not from members: forgers would answer each other for ever.
            Message::Deposit(chains) if matches!(from, Party::Client(_)) => {
                let mut sends = self.settle_other_amounts(&chains);
                for kind in [Kind::Receipt, Kind::Vote, Kind::Processed] {
                    sends.extend(self.votes_of_all(from, self.identity.heads(kind, &chains)));
                }
                sends
            }
            Message::Committed(entry) => {
                if entry.entry.index >= self.next_index {
                    self.next_index = entry.entry.index + 1;
                    self.last_hash = entry.entry.hash(&self.identity.committee.network);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn strike(&mut self, _clock: u64) -> Vec<(Party, Message)> {
        // A limit that no operator has set, as a request and as an entry that is in the log.
        let action = Action::SetLimit { account: self.favourite, tier: 5, limit: 1_000_000 };
        let signature = Signature([7; 64]);
        let request = Request { author: self.operator, sequence: 0, action, signature };
        let operation = Operation::Request(request);
        let entry = Entry {
            index: self.next_index,
            prev_hash: self.last_hash,
            postings_hash: vudo_credit::operation::postings_hash(&[]),
            operation: operation.clone(),
        };
        let digest = entry.hash(&self.identity.committee.network);
        let certificate = self.certificate(Statement { kind: Kind::Entry, digest });
        let committed = Message::Committed(Box::new(CertifiedEntry { entry, certificate }));
        let submit = Message::Submit(Box::new(operation));
        [self.to_all(&submit), self.to_all(&committed)].concat()
    }
}
