//! What one operation would change, worked out beside the ledger.
//!
//! A draft copies an account or a lane when it is first touched and leaves the ledger alone, so a
//! refusal in the middle leaves nothing half done. Conservation and limits are checked once, over
//! all that was touched, and so are signatures, in one batch: what is wrong otherwise costs no curve
//! arithmetic.

use std::collections::BTreeMap;

use crate::close::{Reported, apportion};
use crate::error::Refusal;
use crate::keys::{Batch, Key};
use crate::ledger::{Account, KnownEnd, Lane, LaneStatus, Ledger};
use crate::limits::{AMOUNT_MAX, LANE_SPENDS_MAX, THOUSANDTHS};
use crate::operation::{Action, Posting, Report, Request, Settlement};
use crate::spend::{AccountId, Equivocation, Grant, LaneId, Spend, is_amount};

/// What one operation changes.
pub struct Draft<'a> {
    ledger: &'a Ledger,
    changes: Changes,
    signatures: Batch,
    known_end: KnownEnd<'a>,
}

/// The new values of all that an operation touches.
#[derive(Default)]
pub struct Changes {
    accounts: BTreeMap<AccountId, Account>,
    lanes: BTreeMap<LaneId, Lane>,
    postings: BTreeMap<AccountId, i128>,
    author: Option<Key>,
    tick: Option<u64>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(ledger: &'a Ledger, signatures: Batch, known_end: KnownEnd<'a>) -> Draft<'a> {
        Draft { ledger, changes: Changes::default(), signatures, known_end }
    }

    /// What is added to each balance, by account, the zeros left out.
    pub fn postings(&self) -> Vec<Posting> {
        let postings = self.changes.postings.iter().filter(|(_, amount)| **amount != 0);
        postings.map(|(account, amount)| Posting { account: *account, amount: *amount }).collect()
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    /// The account, open or not: one that is not has nothing and may owe nothing.
    fn account(&mut self, id: AccountId) -> &mut Account {
        let ledger = self.ledger;
        let accounts = &mut self.changes.accounts;
        accounts.entry(id).or_insert_with(|| ledger.accounts.get(&id).cloned().unwrap_or_default())
    }

    fn open_account(&mut self, id: AccountId) -> Result<&mut Account, Refusal> {
        if !self.ledger.accounts.contains_key(&id) {
            return Err(Refusal::NoSuchAccount { account: id });
        }
        Ok(self.account(id))
    }

    fn lane(&mut self, id: LaneId) -> Result<&mut Lane, Refusal> {
        if !self.changes.lanes.contains_key(&id) {
            self.changes.lanes.insert(id, self.ledger.lane(id)?.clone());
        }
        self.changes.lanes.get_mut(&id).ok_or(Refusal::NoSuchLane { lane: id.0 })
    }

    /// Adds to a balance.
    fn post(&mut self, account: AccountId, amount: i128) {
        self.account(account).posted += amount;
        *self.changes.postings.entry(account).or_default() += amount;
    }

    /// An account with an amount free.
    fn with_headroom(&mut self, id: AccountId, amount: u64) -> Result<&mut Account, Refusal> {
        if !is_amount(amount) {
            return Err(Refusal::AmountOutOfRange { amount });
        }
        let account = self.open_account(id)?;
        let headroom = account.headroom();
        if i128::from(amount) > headroom {
            let headroom = u64::try_from(headroom).unwrap_or(u64::MAX);
            return Err(Refusal::HeadroomExceeded { account: id, headroom, needed: amount });
        }
        Ok(account)
    }

    pub(crate) fn request(&mut self, request: &Request) -> Result<(), Refusal> {
        request.queue(self.ledger, &mut self.signatures)?;
        let author = request.author;
        self.changes.author = Some(author);
        match &request.action {
            Action::Open => {
                if self.ledger.accounts.contains_key(&author) {
                    return Err(Refusal::AccountExists { account: author });
                }
                self.account(author);
            }
            Action::SetLimit { account, tier, limit } => {
                self.need_operator(author)?;
                self.set_limit(*account, *tier, *limit)?;
            }
            Action::Pledge { account, amount } => {
                self.open_account(*account)?;
                self.with_headroom(author, *amount)?.pledged += i128::from(*amount);
                let pledge = self.account(*account).sponsors.entry(author).or_default();
                *pledge = pledge
                    .checked_add(*amount)
                    .filter(|sum| *sum <= AMOUNT_MAX)
                    .ok_or(Refusal::AmountOutOfRange { amount: pledge.saturating_add(*amount) })?;
            }
            Action::Unpledge { account, amount } => self.unpledge(author, *account, *amount)?,
            Action::FundReserve { amount } => {
                self.need_operator(author)?;
                self.with_headroom(author, *amount)?;
                self.post(author, -i128::from(*amount));
                self.post(self.ledger.genesis.reserve, i128::from(*amount));
            }
            Action::Grant(grant) => self.grant(author, grant)?,
            Action::RevokeDevice { device } => {
                self.open_account(author)?.barred_devices.insert(*device);
            }
        }
        Ok(())
    }

    fn need_operator(&self, author: Key) -> Result<(), Refusal> {
        let is_operator = self.ledger.genesis.operators.contains(&author);
        if is_operator || cfg!(vudo_mutation = "own_limit") {
            return Ok(());
        }
        Err(Refusal::NotAuthorised { author, needed: "the signature of an operator" })
    }

    fn set_limit(&mut self, id: AccountId, tier: u8, limit: u64) -> Result<(), Refusal> {
        let row = self.ledger.genesis.tiers.get(usize::from(tier));
        let allowed = row.map_or(0, |row| row.limit_max);
        if row.is_none() || limit > allowed {
            return Err(Refusal::TierExceeded { tier, allowed, needed: limit });
        }
        let account = self.open_account(id)?;
        account.granted_limit = limit;
        account.tier = tier;
        Ok(())
    }

    fn unpledge(&mut self, sponsor: AccountId, id: AccountId, amount: u64) -> Result<(), Refusal> {
        let account = self.with_headroom(id, amount)?;
        let pledge = account.sponsors.get(&sponsor).copied().unwrap_or(0);
        let Some(rest) = pledge.checked_sub(amount) else {
            let account = sponsor;
            return Err(Refusal::HeadroomExceeded { account, headroom: pledge, needed: amount });
        };
        account.sponsors.insert(sponsor, rest);
        if rest == 0 {
            account.sponsors.remove(&sponsor);
        }
        self.account(sponsor).pledged -= i128::from(amount);
        Ok(())
    }

    fn grant(&mut self, author: Key, grant: &Grant) -> Result<(), Refusal> {
        if author != grant.account {
            let needed = "the signature of the account that pays";
            return Err(Refusal::NotAuthorised { author, needed });
        }
        let (found, expected) = (grant.epoch, self.ledger.committee.epoch);
        if found != expected {
            return Err(Refusal::OtherEpoch { found, expected });
        }
        let account = self.open_account(author)?;
        if account.barred_devices.contains(&grant.device) {
            return Err(Refusal::DeviceBarred { device: grant.device });
        }
        let (headroom, tier, lanes) = (account.headroom(), account.tier, account.lanes.clone());
        // What a disputed lane may cost is not known before it is closed.
        let is_disputed = |lane: &LaneId| self.ledger.lanes[lane].has_equivocated;
        if lanes.iter().any(is_disputed) {
            return Err(Refusal::AccountBarred { account: author });
        }
        let genesis = &self.ledger.genesis;
        let row = genesis.tiers[usize::from(tier)];
        let share = headroom * i128::from(row.allowance_thousandths) / i128::from(THOUSANDTHS);
        if i128::from(grant.allocated) > share {
            let allowed = u64::try_from(share).unwrap_or(u64::MAX);
            return Err(Refusal::TierExceeded { tier, allowed, needed: grant.allocated });
        }
        let tick = self.ledger.tick;
        let wrong = |what| Err(Refusal::GrantTimes { what });
        if grant.expires <= tick || grant.expires - tick > row.life_ticks {
            return wrong("it expires at once, or later than the tier allows");
        }
        let window = grant.settle_by.checked_sub(grant.expires);
        if window.is_none_or(|window| window > genesis.settle_window_ticks) {
            return wrong("deposits end before the grant does, or too long after");
        }
        if !(1..=LANE_SPENDS_MAX).contains(&grant.max_spends) {
            return wrong("a lane has 1 to 1,024 spends");
        }
        let id = LaneId(self.ledger.next_index);
        let account = self.with_headroom(author, grant.allocated)?;
        account.reserved += i128::from(grant.allocated);
        account.lanes.insert(id);
        let settled = grant.first_head(&self.ledger.committee.network, id);
        let status = LaneStatus::Open;
        let lane = Lane { grant: grant.clone(), settled, status, has_equivocated: false };
        self.changes.lanes.insert(id, lane);
        Ok(())
    }

    pub(crate) fn advance(&mut self, tick: u64) -> Result<(), Refusal> {
        let last = self.ledger.tick;
        if last.checked_add(1) != Some(tick) {
            return Err(Refusal::TickOutOfOrder { found: tick, last });
        }
        self.changes.tick = Some(tick);
        Ok(())
    }

    pub(crate) fn record(&mut self, settlement: &Settlement) -> Result<(), Refusal> {
        for (chain, head) in settlement.follow(self.ledger, &mut self.signatures, self.known_end)? {
            let lane = self.lane(head.lane)?;
            if matches!(lane.status, LaneStatus::Closed { .. }) {
                return Err(Refusal::LaneClosed { lane: head.lane.0 });
            }
            if lane.settled != chain.start && !cfg!(vudo_mutation = "settled_twice") {
                return Err(Refusal::SettledAlready { lane: head.lane.0, seq: lane.settled.seq });
            }
            lane.settled = head;
            let payer = lane.grant.account;
            self.settle(payer, &chain.spends);
        }
        Ok(())
    }

    /// Moves what was spent from the payer's escrow to the payees.
    fn settle(&mut self, payer: AccountId, spends: &[Spend]) {
        let lost = if cfg!(vudo_mutation = "spend_lost_on_merge") {
            spends.len().saturating_sub(1)
        } else {
            0
        };
        for spend in &spends[lost..] {
            let amount = i128::from(spend.amount);
            self.account(payer).reserved -= amount;
            self.post(payer, -amount);
            if cfg!(vudo_mutation = "payee_not_credited") {
                continue;
            }
            self.post(spend.payee.account, amount);
        }
    }

    pub(crate) fn equivocation(&mut self, id: LaneId, proof: &Equivocation) -> Result<(), Refusal> {
        let network = self.ledger.committee.network;
        let lane = self.lane(id)?;
        if matches!(lane.status, LaneStatus::Closed { .. }) || lane.has_equivocated {
            return Err(Refusal::LaneClosed { lane: id.0 });
        }
        lane.has_equivocated = true;
        let grant = lane.grant.clone();
        proof.queue(&network, id, &grant, &mut self.signatures)?;
        let (account, device) = (grant.account, grant.device);
        self.account(account).barred_devices.insert(device);
        Ok(())
    }

    pub(crate) fn close_intent(&mut self, id: LaneId) -> Result<(), Refusal> {
        let (tick, intent) = (self.ledger.tick, self.ledger.next_index);
        let lane = self.lane(id)?;
        if lane.status != LaneStatus::Open {
            return Err(Refusal::LaneClosed { lane: id.0 });
        }
        let settle_by = lane.grant.settle_by;
        if tick <= settle_by {
            return Err(Refusal::NotDue { lane: id.0, settle_by });
        }
        lane.status = LaneStatus::Closing { intent };
        Ok(())
    }

    pub(crate) fn close(&mut self, id: LaneId, reports: &[Report]) -> Result<(), Refusal> {
        let ledger = self.ledger;
        let reported = Reported::of(ledger, id, reports, &mut self.signatures)?;
        let lane = self.lane(id)?;
        let (payer, device) = (lane.grant.account, lane.grant.device);
        lane.settled = reported.settled;
        lane.has_equivocated |= reported.has_equivocated;
        let left = lane.grant.allocated - reported.settled.cumulative;
        self.settle(payer, &reported.spends);
        // What was not spent is free again.
        let refund = if cfg!(vudo_mutation = "refund_of_all") {
            i128::from(self.lane(id)?.grant.allocated)
        } else {
            i128::from(left)
        };
        let account = self.account(payer);
        account.reserved -= refund;
        account.lanes.remove(&id);
        if reported.has_equivocated {
            account.barred_devices.insert(device);
        }
        let loss = self.compensate(payer, i128::from(left), &reported.claims);
        self.lane(id)?.status = LaneStatus::Closed { loss };
        Ok(())
    }

    /// Pays claims that the settled chain does not: from what was left of the lane, the payer's
    /// free headroom, its sponsors' pledges and the reserve, in this order; what then is missing
    /// the payees bear in proportion. Gives the loss.
    fn compensate(
        &mut self,
        payer: AccountId,
        left: i128,
        claims: &BTreeMap<AccountId, u128>,
    ) -> u128 {
        let claimed: u128 = claims.values().sum();
        let mut missing = i128::try_from(claimed).unwrap_or(i128::MAX);
        // What was left of the lane was reserved, and may be taken even where the limit was
        // lowered in the meantime.
        let account = self.account(payer);
        let own = missing.min(account.headroom().max(left));
        self.post(payer, -own);
        missing -= own;

        let sponsors = self.account(payer).sponsors.clone();
        let pledges: BTreeMap<AccountId, u128> =
            sponsors.iter().map(|(sponsor, amount)| (*sponsor, u128::from(*amount))).collect();
        let pledged: u128 = pledges.values().sum();
        let taken = pledged.min(missing.unsigned_abs());
        for (sponsor, amount) in apportion(taken, &pledges) {
            let units = amount as i128;
            self.post(sponsor, -units);
            self.account(sponsor).pledged -= units;
            let sponsors = &mut self.account(payer).sponsors;
            // A share is never more than the pledge that it is a share of.
            let rest = sponsors[&sponsor] - amount as u64;
            sponsors.insert(sponsor, rest);
            if rest == 0 {
                sponsors.remove(&sponsor);
            }
        }
        missing -= taken as i128;

        let reserve = self.ledger.genesis.reserve;
        let from_reserve = missing.min(self.account(reserve).headroom());
        self.post(reserve, -from_reserve);
        missing -= from_reserve;

        let paid = claimed - missing.unsigned_abs();
        for (payee, amount) in apportion(paid, claims) {
            self.post(payee, amount as i128);
        }
        missing.unsigned_abs()
    }

    /// Checks all signatures, and what must hold after every operation: nothing is minted, no escrow is below zero,
    /// and nobody uses more than the limit or, where that was lowered, than before.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if !cfg!(vudo_mutation = "unverified_votes") && !self.signatures.is_valid() {
            return Err(Refusal::SignatureWrong);
        }
        let broken = |what: String| Err(Refusal::InvariantBroken { what });
        let sum: i128 = self.changes.postings.values().sum();
        if sum != 0 {
            return broken(format!("the postings add up to {sum}, not to 0"));
        }
        for (id, after) in &self.changes.accounts {
            // A limit that is lowered leaves alone what was used under it.
            let before = self.ledger.accounts.get(id);
            let allowed = before.map_or(0, |before| before.limit().max(before.used()));
            if after.reserved < 0 || after.pledged < 0 {
                return broken(format!("account {id} has an escrow below zero"));
            }
            if after.used() > after.limit().max(allowed) {
                return broken(format!("account {id} uses more than its limit"));
            }
        }
        for (id, lane) in &self.changes.lanes {
            if lane.settled.cumulative > lane.grant.allocated {
                return broken(format!("lane {} has spent more than it was allocated", id.0));
            }
        }
        Ok(())
    }
}

impl Changes {
    pub(crate) fn commit(self, ledger: &mut Ledger) {
        ledger.accounts.extend(self.accounts);
        for (id, lane) in self.lanes {
            let due = (lane.grant.settle_by, id);
            if lane.status == LaneStatus::Open {
                ledger.due.insert(due);
            } else {
                ledger.due.remove(&due);
            }
            ledger.lanes.insert(id, lane);
        }
        if let Some(author) = self.author {
            *ledger.sequences.entry(author).or_default() += 1;
        }
        ledger.tick = self.tick.unwrap_or(ledger.tick);
    }
}
