//! Lanes, spends and chains: what a device signs.
//!
//! A lane is one device's escrow. Its spends form a hash chain, so a head commits to everything
//! before it, and one signature by the device stands for the whole chain:
//!
//! ```text
//! grant --> spend 1 --> spend 2 --> spend 3   <- the device signs the hash of the last one
//!           prev_hash   prev_hash   prev_hash    cumulative: units spent up to here
//! ```
//!
//! Two chains of one lane of which neither contains the other prove that the device lied.

use crate::error::Refusal;
use crate::keys::{Batch, Digest, Key, NetworkId, Secret, Signature};
use crate::limits::{AMOUNT_MAX, LANE_SPENDS_MAX, SETTLEMENT_HEADS_MAX};
use crate::wire::{Listed, MalformedFrame, Reader, Wire, wire_struct};

/// An account is named by its owner's key.
pub type AccountId = Key;

/// A lane is named by the index of the log entry that granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// A number that a payee draws for one payment. It makes a spend good for that payment only.
pub type Nonce = [u8; 16];

/// A reservation of an account's headroom for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who pays.
    pub account: AccountId,
    /// Whose signature spends.
    pub device: Key,
    /// What may be spent in all, in units.
    pub allocated: u64,
    /// How many spends there may be.
    pub max_spends: u32,
    /// The last tick in which a payee should accept a spend.
    pub expires: u64,
    /// The last tick in which a deposit is sure to be settled.
    pub settle_by: u64,
    /// The committee that settles it.
    pub epoch: u32,
    /// Where set, the only account and device that it pays. Such a lane cannot be spent twice.
    pub payee: Option<Payee>,
}

/// An account and the device that takes payments for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payee {
    /// The account.
    pub account: AccountId,
    /// The device.
    pub device: Key,
}

/// One payment of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spend {
    /// The lane.
    pub lane: LaneId,
    /// Counts from 1.
    pub seq: u32,
    /// The hash of the spend before, or of the grant.
    pub prev_hash: Digest,
    /// Who is paid.
    pub payee: Payee,
    /// The payee's number for this payment.
    pub payee_nonce: Nonce,
    /// In units, positive.
    pub amount: u64,
    /// The sum of all amounts up to this one.
    pub cumulative: u64,
}

/// The last spend of a chain: its hash commits to all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// The lane.
    pub lane: LaneId,
    /// How many spends lead to it; 0 for a lane without spends.
    pub seq: u32,
    /// The hash of the last spend, or of the grant.
    pub hash: Digest,
    /// What has been spent up to here, in units.
    pub cumulative: u64,
    /// The hash of the lane before its first spend, which covers the grant: members that certify a
    /// head certify by it what the lane may spend.
    pub origin: Digest,
}

/// Spends that follow one another, with the device's signature of the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The head that the first spend follows.
    pub start: Head,
    /// At least one.
    pub spends: Vec<Spend>,
    /// Over the hash of the last one.
    pub signature: Signature,
}

impl Grant {
    /// The head of the lane before its first spend.
    pub fn first_head(&self, network: &NetworkId, lane: LaneId) -> Head {
        let parts = [&network.0[..], &lane.0.to_be_bytes(), &self.to_bytes()];
        let hash = Digest::of("vudo-credit/1/lane", &parts);
        Head { lane, seq: 0, hash, cumulative: 0, origin: hash }
    }
}

impl Spend {
    /// What the device signs and the next spend names.
    pub fn hash(&self, network: &NetworkId) -> Digest {
        // Written into one array: members hash a hundred thousand of these in one settlement.
        let mut bytes = Vec::with_capacity(SPEND_BYTES);
        self.write(&mut bytes);
        Digest::of("vudo-credit/1/spend", &[&network.0, &bytes])
    }

    /// The head that the chain has after this spend, in a lane of this origin.
    pub fn head(&self, network: &NetworkId, origin: Digest) -> Head {
        let hash = self.hash(network);
        Head { lane: self.lane, seq: self.seq, hash, cumulative: self.cumulative, origin }
    }
}

/// The bytes of one spend without its signature; the signature adds 64.
pub const SPEND_BYTES: usize = 8 + 4 + 32 + 32 + 32 + 16 + 8 + 8;

impl Head {
    /// The head after one more spend.
    ///
    /// # Errors
    /// The amount is out of range, or the lane has not as much left.
    pub fn next(
        &self,
        grant: &Grant,
        payee: Payee,
        payee_nonce: Nonce,
        amount: u64,
    ) -> Result<Spend, Refusal> {
        let (lane, seq) = (self.lane, self.seq.saturating_add(1));
        let is_amount = cfg!(vudo_mutation = "negative_amounts") || is_amount(amount);
        if !is_amount {
            return Err(Refusal::AmountOutOfRange { amount });
        }
        let overdrawn = Refusal::LaneOverdrawn { lane: lane.0, seq };
        #[cfg(vudo_mutation = "negative_amounts")]
        let cumulative = self.cumulative.wrapping_add(amount);
        #[cfg(not(vudo_mutation = "negative_amounts"))]
        let cumulative = self.cumulative.checked_add(amount).ok_or(overdrawn.clone())?;
        let is_within = cumulative <= grant.allocated && seq <= grant.max_spends;
        if !is_within && !cfg!(vudo_mutation = "silent_overdraft") {
            return Err(overdrawn);
        }
        if grant.payee.is_some_and(|only| only != payee) {
            return Err(Refusal::OtherPayee { lane: lane.0 });
        }
        Ok(Spend { lane, seq, prev_hash: self.hash, payee, payee_nonce, amount, cumulative })
    }

    /// The hash by which members name the head.
    pub fn digest(&self) -> Digest {
        let (lane, seq) = (self.lane.0.to_be_bytes(), self.seq.to_be_bytes());
        let cumulative = self.cumulative.to_be_bytes();
        let parts = [&lane[..], &seq, &self.hash.0, &cumulative, &self.origin.0];
        Digest::of("vudo-credit/2/head", &parts)
    }
}

/// Whether a number of units is an amount.
pub fn is_amount(amount: u64) -> bool {
    (1..=AMOUNT_MAX).contains(&amount)
}

impl Chain {
    /// Signs the end of a chain.
    pub fn sign(network: &NetworkId, device: &Secret, start: Head, spends: Vec<Spend>) -> Chain {
        let signed = spends.last().map_or(start.hash, |last| last.hash(network));
        Chain { start, spends, signature: device.sign(&signed) }
    }

    /// The head after the last spend, as the chain says; nothing is checked.
    pub fn end(&self, network: &NetworkId) -> Option<Head> {
        Some(self.spends.last()?.head(network, self.start.origin))
    }

    /// Checks everything but the signature: each spend follows from the one before and stays
    /// within the grant. Gives the heads after each spend.
    ///
    /// # Errors
    /// The first spend that does not follow.
    pub fn heads(&self, network: &NetworkId, grant: &Grant) -> Result<Vec<Head>, Refusal> {
        let mut head = self.start;
        let mut heads = Vec::with_capacity(self.spends.len());
        for spend in &self.spends {
            let next = head.next(grant, spend.payee, spend.payee_nonce, spend.amount)?;
            if next != *spend {
                return Err(Refusal::ChainBroken { lane: spend.lane.0, seq: spend.seq });
            }
            head = spend.head(network, self.start.origin);
            heads.push(head);
        }
        if heads.is_empty() {
            return Err(Refusal::ChainBroken { lane: head.lane.0, seq: head.seq });
        }
        Ok(heads)
    }

    /// Checks everything; the device's signature of the last spend goes into the batch.
    ///
    /// # Errors
    /// As [`Chain::heads`].
    pub fn check(
        &self,
        network: &NetworkId,
        grant: &Grant,
        batch: &mut Batch,
    ) -> Result<Head, Refusal> {
        let heads = self.heads(network, grant)?;
        let head = heads[heads.len() - 1];
        batch.add(grant.device, head.hash, self.signature);
        Ok(head)
    }
}

/// How two chains from one start relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// The first goes on where the second ends.
    Extends,
    /// The second goes on where the first ends.
    Prefix,
    /// Neither contains the other.
    Conflict,
}

/// How the spends of one chain relate to those of another from the same start.
pub fn relation(ours: &[Spend], theirs: &[Spend]) -> Relation {
    let common = ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count();
    match (common == ours.len(), common == theirs.len()) {
        (true, true) => Relation::Equal,
        (true, false) => Relation::Prefix,
        (false, true) => Relation::Extends,
        (false, false) => Relation::Conflict,
    }
}

/// Two chains of one lane that contradict each other, each signed by the device: anybody who
/// knows the grant can check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// One, from the lane's beginning.
    pub first: Chain,
    /// The other.
    pub second: Chain,
}

impl Equivocation {
    /// Checks the proof.
    ///
    /// # Errors
    /// A chain is wrong, or they do not contradict each other.
    pub fn verify(&self, network: &NetworkId, lane: LaneId, grant: &Grant) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        self.queue(network, lane, grant, &mut batch)?;
        if batch.is_valid() { Ok(()) } else { Err(Refusal::SignatureWrong) }
    }

    /// As [`Equivocation::verify`], but the signatures go into the batch.
    ///
    /// # Errors
    /// As there, signatures aside.
    pub fn queue(
        &self,
        network: &NetworkId,
        lane: LaneId,
        grant: &Grant,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let start = grant.first_head(network, lane);
        for chain in [&self.first, &self.second] {
            if chain.start != start {
                return Err(Refusal::ChainStartUnknown { lane: lane.0 });
            }
            chain.check(network, grant, batch)?;
        }
        if relation(&self.first.spends, &self.second.spends) != Relation::Conflict {
            return Err(Refusal::NoEquivocation);
        }
        Ok(())
    }
}

wire_struct!(Payee { account, device });
wire_struct!(Head { lane, seq, hash, cumulative, origin });
wire_struct!(Chain { start, spends, signature });
wire_struct!(Equivocation { first, second });
wire_struct!(Spend { lane, seq, prev_hash, payee, payee_nonce, amount, cumulative });
wire_struct!(Grant { account, device, allocated, max_spends, expires, settle_by, epoch, payee });

impl Wire for LaneId {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<LaneId, MalformedFrame> {
        u64::read(reader).map(LaneId)
    }
}

impl Listed for Spend {
    const COUNT_MAX: usize = LANE_SPENDS_MAX as usize;
}

impl Listed for Head {
    const COUNT_MAX: usize = SETTLEMENT_HEADS_MAX;
}

impl Listed for Chain {
    const COUNT_MAX: usize = SETTLEMENT_HEADS_MAX;
}
