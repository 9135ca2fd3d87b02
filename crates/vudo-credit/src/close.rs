//! Closing a lane: what a quorum of reports says that it has settled, and who bears a loss.
//!
//! Any quorum of reports shares an honest member with every quorum that processed a certificate
//! or gave receipts. So nothing final is missing, and the whole chain of an honest device that
//! was deposited is there, whichever reports are chosen.
//!
//! Where all chains agree, the longest is settled. Where they contradict each other, the device
//! has lied: what is certified is settled, and every other spend is a claim.

use std::collections::BTreeMap;

use crate::committee::{Kind, Statement};
use crate::error::Refusal;
use crate::keys::Batch;
use crate::ledger::{LaneStatus, Ledger};
use crate::limits::LANE_BRANCHES_MAX;
use crate::operation::Report;
use crate::spend::{AccountId, Chain, Head, LaneId, Nonce, Payee, Relation, Spend, relation};

/// What a quorum of reports comes to.
pub(crate) struct Reported {
    /// What the lane has settled in the end.
    pub(crate) settled: Head,
    /// The spends up to there that have not been posted.
    pub(crate) spends: Vec<Spend>,
    /// Whether chains contradict each other.
    pub(crate) has_equivocated: bool,
    /// What payees hold beyond what is settled, in units.
    pub(crate) claims: BTreeMap<AccountId, u128>,
}

/// A chain of a report and its heads.
struct Checked<'a> {
    chain: &'a Chain,
    heads: Vec<Head>,
}

impl Checked<'_> {
    fn contains(&self, head: &Head) -> bool {
        match head.seq.checked_sub(1) {
            None => true,
            Some(place) => self.heads.get(place as usize) == Some(head),
        }
    }
}

impl Report {
    /// Checks the signature, the chains and the certificate.
    ///
    /// # Errors
    /// What is wrong.
    pub fn verify(&self, ledger: &Ledger) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        self.check(ledger, &mut batch)?;
        if batch.is_valid() { Ok(()) } else { Err(Refusal::SignatureWrong) }
    }

    fn check(&self, ledger: &Ledger, batch: &mut Batch) -> Result<Vec<Checked<'_>>, Refusal> {
        let lane = ledger.lane(self.lane)?;
        let committee = &ledger.committee;
        let wrong = Refusal::ReportWrong { lane: self.lane.0, member: self.member };
        let key = committee.members().get(usize::from(self.member)).ok_or(wrong.clone())?;
        let is_bounded = self.chains.len() <= LANE_BRANCHES_MAX + 1;
        if lane.status != (LaneStatus::Closing { intent: self.intent }) || !is_bounded {
            return Err(wrong);
        }
        let statement = Statement { kind: Kind::Report, digest: self.digest() };
        batch.add(*key, committee.signed(&statement), self.signature);
        let start = lane.grant.first_head(&committee.network, self.lane);
        let certified = self.certified.as_ref().map(|certified| certified.head);
        let mut checked = Vec::new();
        for chain in &self.chains {
            let heads = chain.heads(&committee.network, &lane.grant)?;
            let last = heads[heads.len() - 1];
            if chain.start != start {
                return Err(wrong);
            }
            // A member that has its chain from a certificate has no signature to show.
            if certified != Some(last) {
                batch.add(lane.grant.device, last.hash, chain.signature);
            }
            checked.push(Checked { chain, heads });
        }
        if let Some(certified) = &self.certified {
            let is_held = checked.first().is_some_and(|chain| chain.contains(&certified.head));
            if certified.head.lane != self.lane || !is_held {
                return Err(wrong);
            }
            certified.queue(committee, batch)?;
        }
        Ok(checked)
    }
}

impl Reported {
    /// Reads reports; their signatures go into the batch.
    pub(crate) fn of(
        ledger: &Ledger,
        id: LaneId,
        reports: &[Report],
        batch: &mut Batch,
    ) -> Result<Reported, Refusal> {
        let lane = ledger.lane(id)?;
        let mut members = 0_u64;
        let mut chains = Vec::new();
        let mut base = lane.settled;
        for report in reports {
            let wrong = Refusal::ReportWrong { lane: id.0, member: report.member };
            let bit = 1_u64.checked_shl(report.member.into()).unwrap_or(0);
            if report.lane != id || members & bit != 0 {
                return Err(wrong);
            }
            members |= bit;
            chains.extend(report.check(ledger, batch)?);
            if let Some(certified) = &report.certified {
                base = (base.seq, base.hash, base)
                    .max((certified.head.seq, certified.head.hash, certified.head))
                    .2;
            }
        }
        let (found, needed) = (members.count_ones() as usize, ledger.committee.quorum());
        if found < needed {
            return Err(Refusal::NoQuorum { found, needed });
        }
        Reported::decide(lane.grant.account, lane.settled, base, &chains, lane.has_equivocated)
            .ok_or(Refusal::ReportWrong { lane: id.0, member: reports[0].member })
    }

    /// `None` where no chain leads to what is settled: too many of the members lie.
    fn decide(
        payer: AccountId,
        posted: Head,
        base: Head,
        chains: &[Checked<'_>],
        was_proved: bool,
    ) -> Option<Reported> {
        let longest = chains.iter().max_by_key(|checked| {
            (checked.heads.len(), checked.heads.last().map(|head| head.hash))
        });
        let Some(longest) = longest else {
            let is_empty = base.seq == 0;
            return is_empty.then(|| Reported {
                settled: base,
                spends: Vec::new(),
                has_equivocated: was_proved,
                claims: BTreeMap::new(),
            });
        };
        let is_other = |checked: &Checked<'_>| {
            relation(&longest.chain.spends, &checked.chain.spends) == Relation::Conflict
        };
        let has_equivocated = was_proved || chains.iter().any(is_other);
        let settled_chain = if has_equivocated {
            chains.iter().find(|checked| checked.contains(&base))?
        } else {
            longest
        };
        if !settled_chain.contains(&base) || !settled_chain.contains(&posted) {
            return None;
        }
        let settled = if has_equivocated { base } else { *longest.heads.last()? };
        let settled_spends = &settled_chain.chain.spends[..settled.seq as usize];
        let mut claims: BTreeMap<(Payee, Nonce), u64> = BTreeMap::new();
        if has_equivocated {
            let is_paid = |spend: &Spend| {
                settled_spends
                    .iter()
                    .any(|paid| paid.payee == spend.payee && paid.payee_nonce == spend.payee_nonce)
            };
            let claimed = chains.iter().flat_map(|checked| &checked.chain.spends);
            for spend in claimed.filter(|spend| spend.payee.account != payer) {
                // One payment that two chains contain is one claim.
                if !is_paid(spend) {
                    let claim = claims.entry((spend.payee, spend.payee_nonce)).or_default();
                    *claim = spend.amount.max(*claim);
                }
            }
        }
        let mut claims_by_account: BTreeMap<AccountId, u128> = BTreeMap::new();
        for ((payee, _), amount) in claims {
            *claims_by_account.entry(payee.account).or_default() += u128::from(amount);
        }
        Some(Reported {
            settled,
            spends: settled_spends[posted.seq as usize..].to_vec(),
            has_equivocated,
            claims: claims_by_account,
        })
    }
}

/// Divides a total in proportion to shares, no part above its share: each gets its part rounded
/// down, and what is left goes one unit each to the largest remainders, of equal ones to the
/// lowest id first.
pub(crate) fn apportion(total: u128, shares: &BTreeMap<AccountId, u128>) -> Vec<(AccountId, u128)> {
    let sum: u128 = shares.values().sum();
    assert!(total <= sum, "a total of {total} is divided among shares of {sum}");
    assert!(sum < 1 << 64, "shares of {sum} units would not fit the products below");
    if sum == 0 {
        return Vec::new();
    }
    let part = |share: u128| (total * share / sum, total * share % sum);
    let given: u128 = shares.values().map(|share| part(*share).0).sum();
    let mut by_remainder: Vec<(u128, AccountId)> =
        shares.iter().map(|(id, share)| (part(*share).1, *id)).collect();
    by_remainder.sort_by(|left, right| right.0.cmp(&left.0).then(left.1.cmp(&right.1)));
    let lucky_count = (total - given) as usize;
    let lucky: Vec<AccountId> = by_remainder[..lucky_count].iter().map(|(_, id)| *id).collect();
    let units = |id: &AccountId| u128::from(lucky.contains(id));
    shares.iter().map(|(id, share)| (*id, part(*share).0 + units(id))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Key;

    #[test]
    fn the_largest_remainders_get_what_is_left() {
        let shares = |amounts: &[u128]| -> BTreeMap<AccountId, u128> {
            amounts.iter().enumerate().map(|(id, share)| (Key([id as u8; 32]), *share)).collect()
        };
        let parts = |total, amounts: &[u128]| -> Vec<u128> {
            apportion(total, &shares(amounts)).into_iter().map(|(_, part)| part).collect()
        };
        assert_eq!(parts(10, &[10, 10, 10]), [4, 3, 3]);
        assert_eq!(parts(5, &[1, 1, 8]), [1, 0, 4]);
        assert_eq!(parts(0, &[7, 9]), [0, 0]);
        assert_eq!(parts(16, &[7, 9]), [7, 9]);
        for total in 0..=100 {
            let amounts = [3, 1, 40, 0, 56];
            let divided = parts(total, &amounts);
            assert_eq!(divided.iter().sum::<u128>(), total);
            assert!(divided.iter().zip(&amounts).all(|(part, share)| part <= share));
        }
    }
}
