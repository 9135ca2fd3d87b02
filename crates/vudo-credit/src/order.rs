//! Putting operations in an order that all members agree on.
//!
//! [`Sequencer`] is the first [`TotalOrder`]: one member proposes entries, one at a time, and every
//! member checks each and signs at most one for an index. A quorum's signatures commit it. So a
//! sequencer that lies can stall the log, but can neither fork it nor put anything into it that
//! the rules of the ledger refuse; two proposals for one index cannot both get a quorum.

use std::collections::VecDeque;

use crate::committee::{Collector, Kind, Signed, Statement};
use crate::error::Refusal;
use crate::keys::{Digest, Secret, Signature};
use crate::ledger::Ledger;
use crate::limits::QUEUED_OPERATIONS_MAX;
use crate::message::{Answer, Message, Outbox, Party};
use crate::operation::{CertifiedEntry, Entry, Operation};
use crate::wire::Wire;

/// What a member knows when it orders.
pub struct OrderContext<'a> {
    /// The state after all committed entries.
    pub ledger: &'a Ledger,
    /// The member's key.
    pub secret: &'a Secret,
    /// The member's place.
    pub member: u8,
    /// The tick by the member's own clock; no tick is signed before it has come.
    pub clock: u64,
}

/// Agrees with the other members on the next entry of the log.
///
/// A committed entry is given back with its certificate; whoever calls checks and applies it and
/// then calls [`TotalOrder::advance`].
pub trait TotalOrder {
    /// Offers an operation. It may be dropped; whoever misses it offers it again.
    fn submit(
        &mut self,
        context: &OrderContext<'_>,
        operation: Operation,
        out: &mut Outbox,
    ) -> Option<CertifiedEntry>;

    /// Takes a proposal.
    fn propose(
        &mut self,
        context: &OrderContext<'_>,
        entry: Entry,
        signature: Signature,
        out: &mut Outbox,
    );

    /// Takes a member's signature of a proposal.
    fn answer(&mut self, context: &OrderContext<'_>, answer: &Answer) -> Option<CertifiedEntry>;

    /// The ledger has advanced by an entry.
    fn advance(&mut self, context: &OrderContext<'_>, out: &mut Outbox) -> Option<CertifiedEntry>;

    /// Whether this member has checked an entry against the ledger that it follows.
    fn has_checked(&self, entry: &Entry) -> bool;

    /// Sends again what may have been lost.
    fn retry(&mut self, context: &OrderContext<'_>, out: &mut Outbox);

    /// Whether this member may propose, and has nothing to.
    fn is_idle(&self, context: &OrderContext<'_>) -> bool;
}

/// The order of one sequencer, checked and signed by all members.
#[derive(Default)]
pub struct Sequencer {
    /// What waits for its turn; only at the sequencer.
    queue: VecDeque<Operation>,
    /// The entry being agreed on; only at the sequencer.
    proposal: Option<(Entry, Collector)>,
    /// The last entry that this member has signed.
    signed: Option<Entry>,
    /// The sequencer's latest proposal, where it came before the entry that it follows.
    early: Option<Entry>,
}

/// Where the last signed entry is kept.
pub(crate) const SIGNED_ENTRY_KEY: &[u8] = b"o";

impl Sequencer {
    /// The order as it was when the last signed entry was written.
    pub fn restore(signed: Option<Entry>) -> Sequencer {
        Sequencer { signed, ..Sequencer::default() }
    }

    fn leads(context: &OrderContext<'_>) -> bool {
        context.member == context.ledger.genesis.sequencer
    }

    /// Signs an entry as a member, if this index is free or was signed the same way.
    fn sign(
        &mut self,
        context: &OrderContext<'_>,
        entry: &Entry,
        out: &mut Outbox,
    ) -> Result<Signature, Refusal> {
        let (index, next) = (entry.index, context.ledger.next_index());
        let is_taken = self
            .signed
            .as_ref()
            .is_some_and(|signed| signed.index == entry.index && signed != entry);
        if is_taken {
            return Err(Refusal::EntryOutOfOrder { index, next });
        }
        context.ledger.check(entry)?;
        if let Operation::Tick { tick: found } = entry.operation
            && found > context.clock
        {
            return Err(Refusal::TickEarly { found, now: context.clock });
        }
        if self.signed.as_ref() != Some(entry) {
            self.signed = Some(entry.clone());
            out.put(SIGNED_ENTRY_KEY.to_vec(), entry.to_bytes());
        }
        let committee = &context.ledger.committee;
        Ok(committee.sign(context.secret, Kind::Entry, entry.hash(&committee.network)))
    }

    /// Signs the sequencer's proposal, if that may be done.
    fn answer_proposal(
        &mut self,
        context: &OrderContext<'_>,
        entry: &Entry,
        digest: Digest,
        out: &mut Outbox,
    ) {
        if let Ok(signature) = self.sign(context, entry, out) {
            let statement = Statement { kind: Kind::Entry, digest };
            let signed = Some(Signed { member: context.member, signature });
            let answer = Answer { statement, signed, faults: Vec::new() };
            let sequencer = Party::Member(context.ledger.genesis.sequencer);
            out.send(sequencer, Message::Answer(answer));
        }
    }

    /// Proposes the next operation of the queue that is right now.
    fn propose_next(
        &mut self,
        context: &OrderContext<'_>,
        out: &mut Outbox,
    ) -> Option<CertifiedEntry> {
        if !Self::leads(context) || self.proposal.is_some() {
            return None;
        }
        let next = context.ledger.next_index();
        // What was signed before a crash may have reached others and binds.
        let signed = self.signed.clone().filter(|signed| signed.index == next);
        let is_bound = signed.is_some();
        let mut candidates = signed.into_iter();
        let (entry, own) = loop {
            let entry = match candidates.next() {
                Some(entry) => entry,
                None if is_bound => return None,
                None => {
                    let operation = self.queue.pop_front()?;
                    let Ok(entry) = context.ledger.entry(operation) else { continue };
                    entry
                }
            };
            if let Ok(own) = self.sign(context, &entry, out) {
                break (entry, own);
            }
        };
        let committee = &context.ledger.committee;
        let mut collector = Collector::new(Kind::Entry, entry.hash(&committee.network));
        collector.add(committee, usize::from(context.member), own);
        self.proposal = Some((entry, collector));
        self.send_proposal(context, out);
        self.certified(context)
    }

    /// Sends the proposal to those who have not signed it.
    fn send_proposal(&self, context: &OrderContext<'_>, out: &mut Outbox) {
        let Some((entry, collector)) = &self.proposal else { return };
        let committee = &context.ledger.committee;
        let signature = context.secret.sign(&proposal_digest(&collector.statement().digest));
        for member in 0..committee.members().len() {
            if !collector.has(member) {
                let entry = Box::new(entry.clone());
                out.send(Party::Member(member as u8), Message::Propose { entry, signature });
            }
        }
    }

    fn certified(&self, context: &OrderContext<'_>) -> Option<CertifiedEntry> {
        let (entry, collector) = self.proposal.as_ref()?;
        let certificate = collector.certificate(&context.ledger.committee)?;
        Some(CertifiedEntry { entry: entry.clone(), certificate })
    }
}

fn proposal_digest(entry_hash: &Digest) -> Digest {
    Digest::of("vudo-credit/1/proposal", &[&entry_hash.0])
}

/// The sequencer's signature of a proposal.
pub fn sign_proposal(secret: &Secret, entry_hash: &Digest) -> Signature {
    secret.sign(&proposal_digest(entry_hash))
}

impl TotalOrder for Sequencer {
    fn submit(
        &mut self,
        context: &OrderContext<'_>,
        operation: Operation,
        out: &mut Outbox,
    ) -> Option<CertifiedEntry> {
        if !Self::leads(context) {
            let sequencer = Party::Member(context.ledger.genesis.sequencer);
            out.send(sequencer, Message::Submit(Box::new(operation)));
            return None;
        }
        let is_new = !self.queue.contains(&operation);
        if is_new && self.queue.len() < QUEUED_OPERATIONS_MAX {
            self.queue.push_back(operation);
        }
        self.propose_next(context, out)
    }

    fn propose(
        &mut self,
        context: &OrderContext<'_>,
        entry: Entry,
        signature: Signature,
        out: &mut Outbox,
    ) {
        let committee = &context.ledger.committee;
        let sequencer = context.ledger.genesis.sequencer;
        let digest = entry.hash(&committee.network);
        let proposer = committee.members()[usize::from(sequencer)];
        if !proposer.verifies(&proposal_digest(&digest), &signature) {
            return;
        }
        let next = context.ledger.next_index();
        if entry.index > next {
            out.send(Party::Member(sequencer), Message::Want { from: next });
            self.early = Some(entry);
        } else {
            self.answer_proposal(context, &entry, digest, out);
        }
    }

    fn answer(&mut self, context: &OrderContext<'_>, answer: &Answer) -> Option<CertifiedEntry> {
        let (_, collector) = self.proposal.as_mut()?;
        let signed = answer.signed.filter(|_| answer.statement == *collector.statement())?;
        collector.add(&context.ledger.committee, usize::from(signed.member), signed.signature);
        self.certified(context)
    }

    fn advance(&mut self, context: &OrderContext<'_>, out: &mut Outbox) -> Option<CertifiedEntry> {
        let next = context.ledger.next_index();
        if self.proposal.as_ref().is_some_and(|(entry, _)| entry.index < next) {
            self.proposal = None;
        }
        // Without this, a proposal that overtook an entry would wait for the sequencer to try again.
        if let Some(entry) = self.early.take_if(|entry| entry.index <= next) {
            let digest = entry.hash(&context.ledger.committee.network);
            self.answer_proposal(context, &entry, digest, out);
        }
        self.propose_next(context, out)
    }

    fn has_checked(&self, entry: &Entry) -> bool {
        self.signed.as_ref() == Some(entry)
    }

    fn retry(&mut self, context: &OrderContext<'_>, out: &mut Outbox) {
        self.send_proposal(context, out);
    }

    fn is_idle(&self, context: &OrderContext<'_>) -> bool {
        Self::leads(context) && self.proposal.is_none() && self.queue.is_empty()
    }
}
