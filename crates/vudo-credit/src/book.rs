//! What a member holds of one lane: the chain that it votes for, what of it is certified, and
//! chains that contradict it.
//!
//! A member votes for a chain only if that chain and every chain it voted for before contain one
//! another, or if what it extends is certified. Two conflicting heads therefore never both get a
//! quorum's votes.

use crate::error::Refusal;
use crate::keys::NetworkId;
use crate::keys::Signature;
use crate::ledger::Lane;
use crate::limits::LANE_BRANCHES_MAX;
use crate::operation::CertifiedHead;
use crate::spend::{Chain, Head, Relation, Spend, relation};
use crate::wire::{MalformedFrame, Reader, Wire};

/// A member's book of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Book {
    /// The head before the first spend.
    start: Head,
    /// The chain that this member votes for.
    spends: Vec<Spend>,
    /// The head after each of them; `heads.len() == spends.len()`.
    heads: Vec<Head>,
    /// The device's, over the last of them; zeros where the chain came with a certificate.
    signature: Signature,
    /// The highest head that this member has processed a certificate of; it is in the chain.
    certified: Option<CertifiedHead>,
    /// Chains that contradict it, each from the beginning.
    branches: Vec<Chain>,
}

/// What a deposit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The chain is the one voted for, or a part of it.
    Known,
    /// The chain that is voted for has grown.
    Grown,
    /// The chain contradicts the one voted for and is kept beside it.
    Beside,
}

/// A chain as seen from the lane's beginning.
pub(crate) struct Whole {
    spends: Vec<Spend>,
    heads: Vec<Head>,
    signature: Signature,
}

impl Whole {
    pub(crate) fn head(&self) -> Head {
        self.heads[self.heads.len() - 1]
    }
}

impl Book {
    pub(crate) fn new(network: &NetworkId, lane: &Lane) -> Book {
        Book {
            start: lane.grant.first_head(network, lane.settled.lane),
            spends: Vec::new(),
            heads: Vec::new(),
            signature: Signature([0; 64]),
            certified: None,
            branches: Vec::new(),
        }
    }

    /// Reads a book and works out its heads again.
    pub(crate) fn restore(network: &NetworkId, lane: &Lane, bytes: &[u8]) -> Result<Book, Refusal> {
        let mut reader = Reader::new(bytes);
        let mut book = Book::new(network, lane);
        book.spends = Vec::read(&mut reader)?;
        book.signature = Signature::read(&mut reader)?;
        book.certified = Option::read(&mut reader)?;
        book.branches = Vec::read(&mut reader)?;
        if !reader.is_empty() {
            return Err(MalformedFrame::TrailingBytes.into());
        }
        if !book.spends.is_empty() {
            book.heads = book.chain().heads(network, &lane.grant)?;
        }
        Ok(book)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.spends.write(&mut out);
        self.signature.write(&mut out);
        self.certified.write(&mut out);
        self.branches.write(&mut out);
        out
    }

    fn chain(&self) -> Chain {
        Chain { start: self.start, spends: self.spends.clone(), signature: self.signature }
    }

    /// The chain voted for, then those that contradict it, as a report carries them.
    pub(crate) fn chains(&self) -> Vec<Chain> {
        let own = (!self.spends.is_empty()).then(|| self.chain());
        own.into_iter().chain(self.branches.iter().cloned()).collect()
    }

    pub(crate) fn certified(&self) -> Option<&CertifiedHead> {
        self.certified.as_ref()
    }

    pub(crate) fn certified_seq(&self) -> u32 {
        self.certified.as_ref().map_or(0, |certified| certified.head.seq)
    }

    /// The two chains that prove that the device lied.
    pub(crate) fn conflict(&self) -> Option<(Chain, Chain)> {
        // A chain without the device's signature proves nothing against it.
        let is_signed = self.signature != Signature([0; 64]);
        is_signed.then(|| Some((self.chain(), self.branches.first()?.clone())))?
    }

    /// Whether a head is in the chain that is voted for.
    pub(crate) fn contains(&self, head: &Head) -> bool {
        match head.seq.checked_sub(1) {
            None => *head == self.start,
            Some(place) => self.heads.get(place as usize) == Some(head),
        }
    }

    /// The head after a chain that is part of the one that is voted for.
    pub(crate) fn end_of(&self, chain: &Chain) -> Option<Head> {
        let start = chain.start.seq as usize;
        let end = start.checked_add(chain.spends.len())?;
        let is_part = self.contains(&chain.start)
            && self.spends.get(start..end).is_some_and(|own| *own == chain.spends[..]);
        self.heads.get(end.checked_sub(1)?).copied().filter(|_| is_part)
    }

    /// The spends after one head of the chain and up to another, as a chain.
    pub(crate) fn between(&self, start: Head, end: &Head) -> Option<Chain> {
        if !self.contains(&start) || !self.contains(end) {
            return None;
        }
        let spends = self.spends.get(start.seq as usize..end.seq as usize)?.to_vec();
        (!spends.is_empty()).then_some(Chain { start, spends, signature: Signature([0; 64]) })
    }

    /// A chain with what comes before it, checked against the grant; its signature is not checked.
    pub(crate) fn whole(
        &self,
        network: &NetworkId,
        lane: &Lane,
        chain: &Chain,
    ) -> Result<Whole, Refusal> {
        if !self.contains(&chain.start) {
            return Err(Refusal::ChainStartUnknown { lane: chain.start.lane.0 });
        }
        let rest = chain.heads(network, &lane.grant)?;
        let place = chain.start.seq as usize;
        let mut spends = self.spends[..place].to_vec();
        let mut heads = self.heads[..place].to_vec();
        spends.extend_from_slice(&chain.spends);
        heads.extend(rest);
        Ok(Whole { spends, heads, signature: chain.signature })
    }

    /// Stores a chain whose signature has been checked.
    pub(crate) fn store(&mut self, whole: Whole) -> Result<Stored, Refusal> {
        match relation(&self.spends, &whole.spends) {
            Relation::Equal | Relation::Extends => Ok(Stored::Known),
            Relation::Prefix => {
                self.spends = whole.spends;
                self.heads = whole.heads;
                self.signature = whole.signature;
                Ok(Stored::Grown)
            }
            Relation::Conflict => {
                let (spends, signature) = (whole.spends, whole.signature);
                self.keep_beside(Chain { start: self.start, spends, signature })
            }
        }
    }

    /// Keeps a chain that contradicts the one voted for; of chains that contain one another, the
    /// longest.
    fn keep_beside(&mut self, chain: Chain) -> Result<Stored, Refusal> {
        for branch in &mut self.branches {
            match relation(&branch.spends, &chain.spends) {
                Relation::Equal | Relation::Extends => return Ok(Stored::Beside),
                Relation::Prefix => {
                    *branch = chain;
                    return Ok(Stored::Beside);
                }
                Relation::Conflict => {}
            }
        }
        if self.branches.len() == LANE_BRANCHES_MAX {
            return Err(Refusal::Equivocated { lane: self.start.lane.0 });
        }
        self.branches.push(chain);
        Ok(Stored::Beside)
    }

    /// Takes over a certified head, and the chain that leads to it where the own one does not.
    pub(crate) fn certify(
        &mut self,
        certified: CertifiedHead,
        whole: Option<Whole>,
    ) -> Result<(), Refusal> {
        if !self.contains(&certified.head) {
            let whole = whole.ok_or(Refusal::ChainStartUnknown { lane: self.start.lane.0 })?;
            let old = self.chain();
            let is_conflict = relation(&old.spends, &whole.spends) == Relation::Conflict;
            self.spends = whole.spends;
            self.heads = whole.heads;
            self.signature = Signature([0; 64]);
            self.branches
                .retain(|branch| relation(&branch.spends, &self.spends) == Relation::Conflict);
            if is_conflict {
                // The certificate counts even where there is no room for more branches.
                let _ = self.keep_beside(old);
            }
        }
        if certified.head.seq > self.certified_seq() {
            self.certified = Some(certified);
        }
        Ok(())
    }
}
