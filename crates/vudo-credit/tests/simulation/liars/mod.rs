//! Members that misbehave, each in a file of its own.

mod conflicter;
mod equivocator;
mod forger;
mod nuller;

pub(crate) use conflicter::Conflicter;
pub(crate) use equivocator::Equivocator;
pub(crate) use forger::Forger;
pub(crate) use nuller::Nuller;

use vudo_credit::committee::{Committee, Kind, Signed, Statement};
use vudo_credit::message::Answer;
use vudo_credit::operation::heads_statement;
use vudo_credit::{Chain, Head, Message, Party, Secret};

/// A member of the committee that does as it likes.
pub(crate) trait Liar {
    /// What it sends when it receives something.
    fn receive(&mut self, from: Party, message: Message) -> Vec<(Party, Message)>;

    /// What it sends from time to time.
    fn strike(&mut self, clock: u64) -> Vec<(Party, Message)>;
}

/// What every liar has: a right key.
pub(crate) struct Identity {
    pub(crate) committee: Committee,
    pub(crate) secret: Secret,
    pub(crate) member: u8,
}

impl Identity {
    /// A right signature under anything at all.
    pub(crate) fn sign(&self, statement: Statement) -> Message {
        let signature = self.committee.sign(&self.secret, statement.kind, statement.digest);
        let signed = Some(Signed { member: self.member, signature });
        Message::Answer(Answer { statement, signed, faults: Vec::new() })
    }

    /// The statement about the heads of chains, whatever is in them.
    pub(crate) fn heads(&self, kind: Kind, chains: &[Chain]) -> Statement {
        let network = &self.committee.network;
        let heads: Vec<Head> = chains.iter().filter_map(|chain| chain.end(network)).collect();
        heads_statement(kind, &heads)
    }
}
