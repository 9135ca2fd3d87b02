//! Settling chains: collects a quorum's receipts, votes and words that it has processed them.
//!
//! Whoever holds chains can do this, payee or payer. Receipts of a quorum mean *deposited*: an
//! honest device's chain is then sure to be settled, at the latest when its lane is closed. Votes
//! of a quorum are a certificate. A quorum that has processed it makes it *final*.

use crate::committee::{Certificate, Collector, Committee, Kind, MerklePath, Signed, merkle_paths};
use crate::error::Refusal;
use crate::keys::{Batch, Digest};
use crate::limits::SETTLEMENT_HEADS_MAX;
use crate::message::{Answer, Fault, Message};
use crate::operation::{CertifiedHead, Settlement, heads_statement};
use crate::spend::{Chain, Head};
use crate::wire::wire_struct;

/// Settles a list of chains, one for each lane.
pub struct Settler {
    committee: Committee,
    chains: Vec<Chain>,
    heads: Vec<Head>,
    receipts: Collector,
    votes: Collector,
    processed: Collector,
    /// What members had against it, the latest of each.
    faults: Vec<(u8, Fault)>,
}

/// Proof that heads are final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finality {
    /// A quorum's votes.
    pub voted: Certificate,
    /// A quorum that has processed them.
    pub processed: Certificate,
}

wire_struct!(Finality { voted, processed });

impl Finality {
    /// Checks that a list of heads is final.
    ///
    /// # Errors
    /// A certificate is wrong or of other heads.
    pub fn verify(&self, committee: &Committee, heads: &[Head]) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        self.voted.queue(committee, &heads_statement(Kind::Vote, heads), &mut batch)?;
        self.processed.queue(committee, &heads_statement(Kind::Processed, heads), &mut batch)?;
        if batch.is_valid() { Ok(()) } else { Err(Refusal::SignatureWrong) }
    }
}

impl Settler {
    /// Begins to settle chains. [`Settler::messages`] are to be sent, and sent again from time to
    /// time until it [is final](Settler::finality).
    ///
    /// # Errors
    /// There are no chains, too many, or one without spends.
    pub fn new(committee: Committee, chains: Vec<Chain>) -> Result<Settler, Refusal> {
        let network = committee.network;
        let heads = chains.iter().map(|chain| chain.end(&network)).collect::<Option<Vec<Head>>>();
        let heads = heads.filter(|heads| (1..=SETTLEMENT_HEADS_MAX).contains(&heads.len()));
        let heads = heads.ok_or(Refusal::ChainBroken { lane: 0, seq: 0 })?;
        let digest = heads_statement(Kind::Vote, &heads).digest;
        let [receipts, votes, processed] =
            [Kind::Receipt, Kind::Vote, Kind::Processed].map(|kind| Collector::new(kind, digest));
        let faults = Vec::new();
        Ok(Settler { committee, chains, heads, receipts, votes, processed, faults })
    }

    /// What is to be sent now, to which member: the chains to those that have not voted, and once
    /// there is a certificate, that to those that have not processed it.
    pub fn messages(&self) -> Vec<(u8, Message)> {
        if self.finality().is_some() {
            return Vec::new();
        }
        let settlement = self.settlement();
        let (message, signed) = match settlement {
            Some(settlement) => (Message::Settle(settlement), &self.processed),
            None => (Message::Deposit(self.chains.clone()), &self.votes),
        };
        let members = 0..self.committee.members().len();
        let open = members.filter(|member| !signed.has(*member));
        open.map(|member| (member as u8, message.clone())).collect()
    }

    /// Takes a member's answer. Gives whether the next step has been reached, so that
    /// [`Settler::messages`] are others now.
    pub fn answer(&mut self, answer: &Answer) -> bool {
        let was_certified = self.votes.certificate(&self.committee).is_some();
        let collectors = [&mut self.receipts, &mut self.votes, &mut self.processed];
        let collector = collectors.into_iter().find(|one| *one.statement() == answer.statement);
        let Some(collector) = collector else { return false };
        if let Some(Signed { member, signature }) = answer.signed {
            collector.add(&self.committee, usize::from(member), signature);
        }
        !was_certified && self.votes.certificate(&self.committee).is_some()
    }

    /// Notes why a member does not sign.
    pub fn note_faults(&mut self, member: u8, answer: &Answer) {
        if answer.statement.digest == self.votes.statement().digest {
            self.faults.retain(|(from, _)| *from != member);
            self.faults.extend(answer.faults.iter().map(|fault| (member, *fault)));
        }
    }

    /// What members have against it.
    pub fn faults(&self) -> &[(u8, Fault)] {
        &self.faults
    }

    /// The chains, to be settled in another way.
    pub fn into_chains(self) -> Vec<Chain> {
        self.chains
    }

    /// The hash of the list of heads, which members sign.
    pub fn digest(&self) -> Digest {
        self.votes.statement().digest
    }

    /// What is being settled.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// The receipts of a quorum, once there are enough.
    pub fn deposited(&self) -> Option<Certificate> {
        self.receipts.certificate(&self.committee)
    }

    /// The heads with the votes of a quorum, once there are enough.
    pub fn settlement(&self) -> Option<Settlement> {
        let certificate = self.votes.certificate(&self.committee)?;
        Some(Settlement { heads: self.heads.clone(), certificate, chains: self.chains.clone() })
    }

    /// The proof that all is final, once it is.
    pub fn finality(&self) -> Option<Finality> {
        let voted = self.votes.certificate(&self.committee)?;
        Some(Finality { voted, processed: self.processed.certificate(&self.committee)? })
    }

    /// Each head with its certificate, once it is final: what a wallet begins its next payments
    /// from.
    pub fn certified_heads(&self) -> Vec<CertifiedHead> {
        let Some(finality) = self.finality() else { return Vec::new() };
        let leaves: Vec<Digest> = self.heads.iter().map(Head::digest).collect();
        let paths = merkle_paths(&leaves).into_iter();
        let certify = |(head, path): (&Head, MerklePath)| CertifiedHead {
            head: *head,
            path,
            certificate: finality.voted.clone(),
        };
        self.heads.iter().zip(paths).map(certify).collect()
    }
}
