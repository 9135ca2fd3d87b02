//! The ledger: a pure function of the ordered log.
//!
//! ```text
//!   account:   |---- posted ----|     -limit <= posted - reserved - pledged, unless it was used
//!              |- reserved -|         before the limit was lowered
//!   lane:      |-- spent --|--- left of the escrow ---|  = allocated
//! ```
//!
//! A grant raises `reserved`; settling moves what was spent from `reserved` to `posted`, so it can
//! never break a limit. Every operation is planned on a [`Draft`], which changes nothing; only a
//! draft that is right as a whole is committed. The draft asserts the invariants on every commit.

use std::collections::{BTreeMap, BTreeSet};

use crate::committee::{Committee, Kind};
use crate::draft::Draft;
use crate::error::Refusal;
use crate::genesis::Genesis;
use crate::keys::{Batch, Digest, Key};
use crate::operation::{
    CertifiedEntry, Entry, LogRecord, Operation, Posting, Request, Settlement, heads_statement,
    postings_hash,
};
use crate::spend::{AccountId, Chain, Grant, Head, LaneId};

/// What an account owns, owes and has vouched for, in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The balance of all postings.
    pub posted: i128,
    /// What its open lanes may still spend.
    pub reserved: i128,
    /// What it has vouched for others.
    pub pledged: i128,
    /// What an operator has granted.
    pub granted_limit: u64,
    /// The row of the genesis that bounds its grants.
    pub tier: u8,
    /// What sponsors have pledged for it.
    pub sponsors: BTreeMap<AccountId, u64>,
    /// Its lanes that are not closed.
    pub lanes: BTreeSet<LaneId>,
    /// Devices that get no more grants.
    pub barred_devices: BTreeSet<Key>,
}

/// What the log knows of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Its terms.
    pub grant: Grant,
    /// What has been posted.
    pub settled: Head,
    /// How far its closing is.
    pub status: LaneStatus,
    /// Whether its device has been shown to have signed chains that contradict each other.
    pub has_equivocated: bool,
}

/// How far the closing of a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneStatus {
    /// It takes deposits.
    Open,
    /// Members report.
    Closing {
        /// The entry that began it.
        intent: u64,
    },
    /// It is settled for good.
    Closed {
        /// What payees were not paid, because the device had spent it twice, in units.
        loss: u128,
    },
}

/// The state after a prefix of the log.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// What it began with.
    pub genesis: Genesis,
    /// Who signs.
    pub committee: Committee,
    pub(crate) accounts: BTreeMap<AccountId, Account>,
    pub(crate) lanes: BTreeMap<LaneId, Lane>,
    /// How many requests of each author have been ordered.
    pub(crate) sequences: BTreeMap<Key, u64>,
    /// Lanes that take deposits, by the last tick for them.
    pub(crate) due: BTreeSet<(u64, LaneId)>,
    pub(crate) tick: u64,
    pub(crate) next_index: u64,
    pub(crate) last_hash: Digest,
}

impl Account {
    /// What the account may owe in all.
    pub fn limit(&self) -> i128 {
        let pledges: i128 = self.sponsors.values().map(|amount| i128::from(*amount)).sum();
        i128::from(self.granted_limit) + pledges
    }

    /// What it owes or has set aside; negative where it owns more.
    pub fn used(&self) -> i128 {
        self.reserved + self.pledged - self.posted
    }

    /// What it may still reserve, pledge or lose.
    pub fn headroom(&self) -> i128 {
        (self.limit() - self.used()).max(0)
    }
}

impl Ledger {
    /// A ledger without entries.
    ///
    /// # Errors
    /// The genesis contradicts itself.
    pub fn new(genesis: Genesis) -> Result<Ledger, Refusal> {
        genesis.check()?;
        let committee = genesis.committee()?;
        let last_hash = committee.network;
        Ok(Ledger {
            genesis,
            committee,
            accounts: BTreeMap::new(),
            lanes: BTreeMap::new(),
            sequences: BTreeMap::new(),
            due: BTreeSet::new(),
            tick: 0,
            next_index: 0,
            last_hash,
        })
    }

    /// An account.
    pub fn account(&self, account: &AccountId) -> Option<&Account> {
        self.accounts.get(account)
    }

    /// All accounts, by key.
    pub fn accounts(&self) -> &BTreeMap<AccountId, Account> {
        &self.accounts
    }

    /// A lane.
    ///
    /// # Errors
    /// The log has granted none at this entry.
    pub fn lane(&self, lane: LaneId) -> Result<&Lane, Refusal> {
        self.lanes.get(&lane).ok_or(Refusal::NoSuchLane { lane: lane.0 })
    }

    /// All lanes, by the entry that granted them.
    pub fn lanes(&self) -> &BTreeMap<LaneId, Lane> {
        &self.lanes
    }

    /// The last tick.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// How many entries have been applied.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// The number of an author's next request.
    pub fn next_sequence(&self, author: &Key) -> u64 {
        self.sequences.get(author).copied().unwrap_or(0)
    }

    /// Lanes that no longer need to wait for deposits.
    pub fn lanes_to_close(&self) -> impl Iterator<Item = LaneId> + '_ {
        self.due.iter().take_while(|(tick, _)| *tick < self.tick).map(|(_, lane)| *lane)
    }

    /// What an operation would do, without doing it.
    ///
    /// # Errors
    /// The operation is not right at this place of the log.
    pub fn plan(&self, operation: &Operation) -> Result<Draft<'_>, Refusal> {
        self.plan_with(operation, Batch::default(), &knows_none)
    }

    fn plan_with<'a>(
        &'a self,
        operation: &Operation,
        signatures: Batch,
        known_end: KnownEnd<'a>,
    ) -> Result<Draft<'a>, Refusal> {
        let mut draft = Draft::new(self, signatures, known_end);
        match operation {
            Operation::Request(request) => draft.request(request)?,
            Operation::Tick { tick } => draft.advance(*tick)?,
            Operation::Record(settlement) => draft.record(settlement)?,
            Operation::Equivocation { lane, proof } => draft.equivocation(*lane, proof)?,
            Operation::CloseIntent { lane } => draft.close_intent(*lane)?,
            Operation::Close { lane, reports } => draft.close(*lane, reports)?,
        }
        draft.check()?;
        Ok(draft)
    }

    /// The entry that an operation would become.
    ///
    /// # Errors
    /// As [`Ledger::plan`].
    pub fn entry(&self, operation: Operation) -> Result<Entry, Refusal> {
        let postings_hash = postings_hash(&self.plan(&operation)?.postings());
        let (index, prev_hash) = (self.next_index, self.last_hash);
        Ok(Entry { index, prev_hash, postings_hash, operation })
    }

    /// Checks an entry without applying it, its certificate aside.
    ///
    /// # Errors
    /// It does not follow from the log, or as [`Ledger::plan`].
    pub fn check(&self, entry: &Entry) -> Result<Draft<'_>, Refusal> {
        self.check_with(entry, Batch::default(), &knows_none)
    }

    fn check_with<'a>(
        &'a self,
        entry: &Entry,
        signatures: Batch,
        known_end: KnownEnd<'a>,
    ) -> Result<Draft<'a>, Refusal> {
        if entry.index != self.next_index || entry.prev_hash != self.last_hash {
            let (index, next) = (entry.index, self.next_index);
            return Err(Refusal::EntryOutOfOrder { index, next });
        }
        let draft = self.plan_with(&entry.operation, signatures, known_end)?;
        if postings_hash(&draft.postings()) != entry.postings_hash {
            return Err(Refusal::OtherPostings { index: entry.index });
        }
        Ok(draft)
    }

    /// Applies an entry whose certificate has been checked, and gives its postings.
    ///
    /// # Errors
    /// As [`Ledger::check`]; nothing has changed.
    pub fn apply(&mut self, entry: &Entry) -> Result<Vec<Posting>, Refusal> {
        self.apply_with(entry, entry.hash(&self.committee.network), Batch::default(), &knows_none)
    }

    /// The same for a member, which knows many of the chains and has checked the certificate of this
    /// entry's hash.
    pub(crate) fn apply_following(
        &mut self,
        certified: &CertifiedEntry,
        known_end: KnownEnd<'_>,
    ) -> Result<Vec<Posting>, Refusal> {
        let hash = certified.certificate.statement.digest;
        self.apply_with(&certified.entry, hash, Batch::default(), known_end)
    }

    /// Applies an entry that this ledger has [checked](Ledger::check) as it is now. Everything but
    /// signatures is checked again.
    ///
    /// # Errors
    /// As [`Ledger::check`]; nothing has changed.
    pub fn apply_checked(&mut self, entry: &Entry) -> Result<Vec<Posting>, Refusal> {
        self.apply_with(entry, entry.hash(&self.committee.network), Batch::trusted(), &knows_none)
    }

    fn apply_with(
        &mut self,
        entry: &Entry,
        hash: Digest,
        signatures: Batch,
        known_end: KnownEnd<'_>,
    ) -> Result<Vec<Posting>, Refusal> {
        let draft = self.check_with(entry, signatures, known_end)?;
        let postings = draft.postings();
        let changes = draft.into_changes();
        changes.commit(self);
        self.next_index += 1;
        self.last_hash = hash;
        Ok(postings)
    }

    /// Applies a record of one's own log, whose signatures were checked before it was written.
    ///
    /// # Errors
    /// The record does not follow: the log was altered.
    pub fn replay(&mut self, record: &LogRecord) -> Result<(), Refusal> {
        let index = record.certified.entry.index;
        if self.apply_checked(&record.certified.entry)? != record.postings {
            return Err(Refusal::OtherPostings { index });
        }
        Ok(())
    }

    /// Checks every invariant over the whole ledger; those of single operations are checked with
    /// each.
    ///
    /// # Errors
    /// Which one does not hold.
    pub fn check_invariants(&self) -> Result<(), Refusal> {
        let broken = |what: String| Err(Refusal::InvariantBroken { what });
        let total: i128 = self.accounts.values().map(|account| account.posted).sum();
        if total != 0 {
            return broken(format!("all balances add up to {total}, not to 0"));
        }
        let mut reserved: BTreeMap<AccountId, i128> = BTreeMap::new();
        let mut pledged: BTreeMap<AccountId, i128> = BTreeMap::new();
        for (id, lane) in &self.lanes {
            let left = lane.grant.allocated.checked_sub(lane.settled.cumulative);
            let Some(left) = left else {
                return broken(format!("lane {} has spent more than it was allocated", id.0));
            };
            if !matches!(lane.status, LaneStatus::Closed { .. }) {
                *reserved.entry(lane.grant.account).or_default() += i128::from(left);
            }
        }
        for account in self.accounts.values() {
            for (sponsor, amount) in &account.sponsors {
                *pledged.entry(*sponsor).or_default() += i128::from(*amount);
            }
        }
        for (id, account) in &self.accounts {
            if account.reserved != reserved.get(id).copied().unwrap_or(0) {
                return broken(format!("account {id} reserves other than its lanes hold"));
            }
            if account.pledged != pledged.get(id).copied().unwrap_or(0) {
                return broken(format!("account {id} pledges other than others were pledged"));
            }
        }
        Ok(())
    }
}

/// Where a chain ends, for whoever has checked it against its grant before.
pub(crate) type KnownEnd<'a> = &'a dyn Fn(&Chain) -> Option<Head>;

fn knows_none(_: &Chain) -> Option<Head> {
    None
}

impl Settlement {
    /// Checks the certificate and the chains, and gives each chain with the head that it leads to.
    ///
    /// # Errors
    /// The certificate is wrong, a lane unknown, or a chain does not lead to a certified head.
    pub fn verify(&self, ledger: &Ledger) -> Result<Vec<(&Chain, Head)>, Refusal> {
        let mut batch = Batch::default();
        let led = self.follow(ledger, &mut batch, &knows_none)?;
        if cfg!(vudo_mutation = "unverified_votes") || batch.is_valid() {
            Ok(led)
        } else {
            Err(Refusal::SignatureWrong)
        }
    }

    /// As [`Settlement::verify`], but the certificate's signatures go into the batch, and chains whose
    /// ends are known are not hashed.
    pub(crate) fn follow(
        &self,
        ledger: &Ledger,
        batch: &mut Batch,
        known_end: KnownEnd<'_>,
    ) -> Result<Vec<(&Chain, Head)>, Refusal> {
        let statement = heads_statement(Kind::Vote, &self.heads);
        self.certificate.queue(&ledger.committee, &statement, batch)?;
        let certified: BTreeMap<LaneId, &Head> =
            self.heads.iter().map(|head| (head.lane, head)).collect();
        let mut lanes = BTreeSet::new();
        let mut led = Vec::with_capacity(self.chains.len());
        for chain in &self.chains {
            let lane = chain.start.lane;
            let grant = &ledger.lane(lane)?.grant;
            let head = match known_end(chain) {
                Some(head) => head,
                None => {
                    let heads = chain.heads(&ledger.committee.network, grant)?;
                    heads[heads.len() - 1]
                }
            };
            if certified.get(&lane) != Some(&&head) || !lanes.insert(lane) {
                return Err(Refusal::ChainBroken { lane: lane.0, seq: head.seq });
            }
            led.push((chain, head));
        }
        Ok(led)
    }
}

impl Request {
    /// Checks the number, and puts the signature into the batch.
    ///
    /// # Errors
    /// The number is wrong.
    pub(crate) fn queue(&self, ledger: &Ledger, batch: &mut Batch) -> Result<(), Refusal> {
        batch.add(self.author, self.digest(&ledger.committee.network), self.signature);
        let (author, found) = (self.author, self.sequence);
        let next = ledger.next_sequence(&author);
        if found != next && !cfg!(vudo_mutation = "replayed_request") {
            return Err(Refusal::SequenceWrong { author, found, next });
        }
        Ok(())
    }
}
