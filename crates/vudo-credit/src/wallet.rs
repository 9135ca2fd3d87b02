//! A wallet: one person's device, which pays, is paid, follows the log and settles.
//!
//! ```text
//!   invoice, pay, receive      offline: Device and Receiver alone
//!   request, settle            online:  messages out, Wallet::handle for what comes back
//!        log entries --> checked, applied, written --> grants, ticks, revocations, what is settled
//! ```
//!
//! **Who owns what.** A wallet has two keys: the account's, which signs requests, and the device's,
//! which signs spends and exists in one place only. It keeps a copy of the log that it has checked
//! itself, so what it says of balances rests on nobody's word.
//!
//! **The invariant.** Effects and prepared payments name what must be on disk before anything
//! leaves. A wallet that opens from what it wrote has used no number twice.
//!
//! **Recovery.** Settling that was cut off begins again: members answer the same as before.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::{Device, Prepared};
use crate::error::Refusal;
use crate::genesis::Genesis;
use crate::keys::{Key, Secret};
use crate::ledger::{LaneStatus, Ledger};
use crate::limits::{DEPOSITED_SPENDS_MAX, LANE_SPENDS_MAX, SETTLEMENT_HEADS_MAX};
use crate::message::{Answer, Effect, FaultReason, Message, Outbox, Party, Writes};
use crate::operation::{Action, CertifiedEntry, LogRecord, Operation, Request};
use crate::payment::{Invoice, Payment};
use crate::receiver::{Accepted, Receiver};
use crate::settler::Settler;
use crate::spend::{AccountId, Chain, Grant, Head, LaneId, Nonce, Payee};
use crate::wire::Wire;

/// A person's device and what it knows of the ledger.
pub struct Wallet {
    owner: Secret,
    ledger: Ledger,
    device: Device,
    receiver: Receiver,
    settlers: Vec<Settler>,
    /// What this wallet has asked the committee to order.
    request: Option<Request>,
    /// How many entries each member says that the log has.
    log_lengths: BTreeMap<u8, u64>,
    /// Where the entries begin that were asked for since the last [`Wallet::retry`], and how many
    /// members were asked.
    wanted: Option<(u64, usize)>,
    retry_count: usize,
    progress: Vec<Progress>,
}

/// What has come of requests and of settling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The request is in the log, as this entry.
    Ordered(u64),
    /// Another request of this account has taken its number: it will not be ordered.
    Overtaken,
    /// A quorum has signed that it holds the chains up to these heads.
    Deposited(Vec<Head>),
    /// A quorum has voted for these heads.
    Certified(Vec<Head>),
    /// A quorum has processed the certificate.
    Final(Vec<Head>),
}

/// What an account and its device have, in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// The balance of all postings; what is owed is negative.
    pub posted: i128,
    /// What the account's lanes may still spend.
    pub reserved: i128,
    /// What the account has vouched for others.
    pub pledged: i128,
    /// What the account may owe in all.
    pub limit: i128,
    /// What this device can spend without a network.
    pub spendable: u64,
    /// What was paid to this device and is not final.
    pub incoming: u64,
}

const LOG_KEY: u8 = b'l';

/// Where a log record is kept, by wallets and members alike.
pub fn log_key(index: u64) -> Vec<u8> {
    let mut key = vec![LOG_KEY];
    index.write(&mut key);
    key
}

/// Who is paid where a device is paid for an account.
pub fn payee_of(owner: &Secret, device: &Secret) -> Payee {
    Payee { account: owner.key(), device: device.key() }
}

impl Wallet {
    /// A wallet as it was when it last wrote, from all that it ever wrote in the order of the keys.
    ///
    /// # Errors
    /// The genesis contradicts itself, or what was written has been altered.
    pub fn open(
        genesis: Genesis,
        owner: Secret,
        device: Secret,
        stored: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Wallet, Refusal> {
        let mut ledger = Ledger::new(genesis)?;
        let mut entries = Vec::new();
        for (key, value) in stored {
            if key.first() == Some(&LOG_KEY) {
                ledger.replay(&LogRecord::from_bytes(&value)?)?;
            } else {
                entries.push((key, value));
            }
        }
        let (committee, payee) = (ledger.committee.clone(), payee_of(&owner, &device));
        let receiver = Receiver::open(committee.clone(), payee, entries.clone())?;
        Ok(Wallet {
            device: Device::open(committee, device, entries)?,
            owner,
            ledger,
            receiver,
            settlers: Vec::new(),
            request: None,
            log_lengths: BTreeMap::new(),
            wanted: None,
            retry_count: 0,
            progress: Vec::new(),
        })
    }

    /// The account.
    pub fn account(&self) -> AccountId {
        self.owner.key()
    }

    /// The state after all entries that this wallet knows.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The side that pays.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The side that is paid.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// What is being settled.
    pub fn settlers(&self) -> &[Settler] {
        &self.settlers
    }

    /// What has happened since this was last asked.
    pub fn take_progress(&mut self) -> Vec<Progress> {
        std::mem::take(&mut self.progress)
    }

    /// What the account has by the entries that this wallet knows, and what the device holds.
    pub fn balance(&self) -> Balance {
        let account = self.ledger.account(&self.account()).cloned().unwrap_or_default();
        Balance {
            posted: account.posted,
            reserved: account.reserved,
            pledged: account.pledged,
            limit: account.limit(),
            spendable: self.device.spendable(),
            incoming: self.receiver.incoming(),
        }
    }

    /// As [`Receiver::invoice`].
    ///
    /// # Errors
    /// As there.
    pub fn invoice(&mut self, nonce: Nonce, amount: u64) -> Result<(Writes, Invoice), Refusal> {
        self.receiver.invoice(nonce, amount)
    }

    /// As [`Device::pay`].
    ///
    /// # Errors
    /// As there.
    pub fn pay(&mut self, invoice: &Invoice) -> Result<Prepared, Refusal> {
        self.device.pay(invoice)
    }

    /// As [`Receiver::accept`].
    ///
    /// # Errors
    /// As there.
    pub fn receive(&mut self, payment: &Payment) -> Result<Accepted, Refusal> {
        self.receiver.accept(payment)
    }

    /// The terms of a grant for this device that lives as long as the account's tier allows.
    pub fn terms(&self, allocated: u64, payee: Option<Payee>) -> Grant {
        let (ledger, account) = (&self.ledger, self.account());
        let tier = ledger.account(&account).map_or(0, |account| account.tier);
        let row = ledger.genesis.tiers.get(usize::from(tier));
        let expires = ledger.tick() + row.map_or(0, |row| row.life_ticks);
        Grant {
            account,
            device: self.device.key(),
            allocated,
            max_spends: LANE_SPENDS_MAX,
            expires,
            settle_by: expires + ledger.genesis.settle_window_ticks,
            epoch: ledger.committee.epoch,
            payee,
        }
    }

    /// Signs a request, to be sent by [`Wallet::retry`] until it is ordered. One that was not is
    /// given up.
    ///
    /// # Errors
    /// The ledger, as far as it is known here, refuses it; then nothing has changed.
    pub fn request(&mut self, action: Action) -> Result<(), Refusal> {
        let sequence = self.ledger.next_sequence(&self.account());
        let network = &self.ledger.committee.network;
        let request = Request::sign(network, &self.owner, sequence, action);
        self.ledger.plan(&Operation::Request(request.clone()))?;
        self.request = Some(request);
        Ok(())
    }

    /// Whether a request waits to be ordered.
    pub fn is_requesting(&self) -> bool {
        self.request.is_some()
    }

    /// Gives up what was asked for and what is being settled.
    pub fn give_up(&mut self) {
        self.request = None;
        self.settlers.clear();
    }

    /// Begins to ask how long the log is; [`Wallet::is_current`] tells when enough have answered.
    pub fn refresh(&mut self) {
        self.log_lengths.clear();
    }

    /// Whether this wallet knows all entries that some honest member knew when it answered: of the
    /// lengths that a quorum tells, all but the `f` highest count.
    pub fn is_current(&self) -> bool {
        let committee = &self.ledger.committee;
        let mut lengths: Vec<u64> = self.log_lengths.values().copied().collect();
        lengths.sort_unstable_by(|left, right| right.cmp(left));
        let is_heard = lengths.len() >= committee.quorum();
        is_heard && self.ledger.next_index() >= lengths[committee.faulty_max()]
    }

    /// The chains that can be settled now: what was received, and with `with_own` what was paid.
    pub fn open_chains(&self, with_own: bool) -> Vec<Chain> {
        let mut chains = self.receiver.chains();
        if with_own {
            let lanes = self.device.lanes().iter();
            let open = lanes.filter(|(_, lane)| {
                lane.certified().map_or(0, |certified| certified.head.seq) < lane.head().seq
            });
            chains.extend(open.filter_map(|(id, _)| self.device.chain(*id)));
        }
        chains.retain(|chain| self.is_open(chain.start.lane));
        chains
    }

    fn is_open(&self, lane: LaneId) -> bool {
        self.ledger.lane(lane).is_ok_and(|lane| lane.status == LaneStatus::Open)
    }

    /// Begins to settle chains, those aside that are being settled already. What to send is given by
    /// [`Wallet::retry`].
    pub fn settle(&mut self, chains: Vec<Chain>) {
        let network = self.ledger.committee.network;
        let mut known: BTreeSet<Head> =
            self.settlers.iter().flat_map(|settler| settler.heads()).copied().collect();
        let (mut list, mut lanes, mut spend_count) = (Vec::new(), BTreeSet::new(), 0);
        for chain in chains {
            let Some(head) = chain.end(&network) else { continue };
            if !self.is_open(head.lane) || !known.insert(head) {
                continue;
            }
            // A list names a lane once, and fits into one message.
            let is_full = spend_count + chain.spends.len() > DEPOSITED_SPENDS_MAX
                || list.len() == SETTLEMENT_HEADS_MAX;
            if is_full || lanes.contains(&head.lane) {
                self.begin(std::mem::take(&mut list));
                (lanes, spend_count) = (BTreeSet::new(), 0);
            }
            lanes.insert(head.lane);
            spend_count += chain.spends.len();
            list.push(chain);
        }
        self.begin(list);
    }

    fn begin(&mut self, chains: Vec<Chain>) {
        let settler = Settler::new(self.ledger.committee.clone(), chains);
        // It is refused only where there is nothing to settle.
        self.settlers.extend(settler);
    }

    /// What to send now, and to which member: again, where it may have been lost.
    pub fn retry(&mut self) -> Vec<(u8, Message)> {
        self.wanted = None;
        let mut sends = Vec::new();
        if let Some(request) = &self.request {
            let operation = Box::new(Operation::Request(request.clone()));
            sends.push((self.ledger.genesis.sequencer, Message::Submit(operation)));
        }
        let (member_count, next) =
            (self.ledger.committee.members().len(), self.ledger.next_index());
        self.retry_count += 1;
        for member in 0..member_count {
            // Each time another member is asked for entries. Of those that follow the last that
            // there can be, there are none, so the answer of the others is the length alone.
            let is_asked = self.retry_count % member_count == member;
            let from = if is_asked { next } else { u64::MAX };
            sends.push((member as u8, Message::Want { from }));
        }
        sends.extend(self.settlers.iter().flat_map(Settler::messages));
        sends
    }

    /// Takes what a member says. The first effect is the write that the others wait for.
    pub fn handle(&mut self, from: u8, message: Message) -> Vec<Effect> {
        let mut out = Outbox::default();
        match message {
            Message::Answer(answer) => self.answer(from, &answer, &mut out),
            Message::Committed(entry) => self.committed(*entry, &mut out),
            Message::LogLength { entries } => self.log_length(from, entries, &mut out),
            _ => {}
        }
        out.into_effects()
    }

    fn log_length(&mut self, from: u8, entries: u64, out: &mut Outbox) {
        self.log_lengths.insert(from, entries);
        let next = self.ledger.next_index();
        let asked_count = match self.wanted {
            Some((from, count)) if from == next => count,
            _ => 0,
        };
        // One of `f + 1` that say so is honest, and sends what it says it has.
        if entries > next && asked_count <= self.ledger.committee.faulty_max() {
            self.wanted = Some((next, asked_count + 1));
            out.send(Party::Member(from), Message::Want { from: next });
        }
    }

    /// Follows the log, and takes from it what concerns this wallet.
    fn committed(&mut self, certified: CertifiedEntry, out: &mut Outbox) {
        let is_next = certified.entry.index == self.ledger.next_index();
        if !is_next || certified.verify(&self.ledger.committee).is_err() {
            return;
        }
        // An entry with a certificate that the rules refuse: more members lie than may, and this
        // wallet stands still.
        let Ok(postings) = self.ledger.apply(&certified.entry) else { return };
        let record = LogRecord { certified, postings };
        out.put(log_key(record.certified.entry.index), record.to_bytes());
        out.writes.extend(self.device.note_tick(self.ledger.tick()));
        if let Ok(writes) = self.device.take_grant(&record.certified) {
            out.writes.extend(writes);
        }
        self.note_operation(&record.certified.entry.operation, out);
        self.note_request(&record.certified);
        let ledger = &self.ledger;
        let is_open =
            |head: &Head| ledger.lane(head.lane).is_ok_and(|lane| lane.status == LaneStatus::Open);
        self.settlers.retain(|settler| settler.heads().iter().all(is_open));
    }

    /// Notes who may not be relied on any more, and what is settled.
    fn note_operation(&mut self, operation: &Operation, out: &mut Outbox) {
        let tick = self.ledger.tick();
        let mut revoked: Vec<(AccountId, Key)> = Vec::new();
        match operation {
            Operation::Request(Request {
                author, action: Action::RevokeDevice { device }, ..
            }) => {
                revoked.push((*author, *device));
            }
            Operation::Record(settlement) => {
                for head in &settlement.heads {
                    if let Ok(lane) = self.ledger.lane(head.lane) {
                        out.writes.extend(self.receiver.note_final(&lane.settled));
                    }
                }
            }
            Operation::Equivocation { lane: id, .. } | Operation::Close { lane: id, .. } => {
                let Ok(lane) = self.ledger.lane(*id) else { return };
                if lane.has_equivocated {
                    revoked.push((lane.grant.account, lane.grant.device));
                }
                if matches!(lane.status, LaneStatus::Closed { .. }) {
                    out.writes.extend(self.receiver.note_closed(*id));
                }
            }
            _ => {}
        }
        out.writes.extend(self.receiver.note_checkpoint(tick, revoked));
    }

    fn note_request(&mut self, certified: &CertifiedEntry) {
        let Some(request) = &self.request else { return };
        if certified.entry.operation == Operation::Request(request.clone()) {
            self.progress.push(Progress::Ordered(certified.entry.index));
            self.request = None;
        } else if self.ledger.next_sequence(&request.author) > request.sequence {
            self.progress.push(Progress::Overtaken);
            self.request = None;
        }
    }

    /// Takes a member's answer to what is being settled.
    fn answer(&mut self, from: u8, answer: &Answer, out: &mut Outbox) {
        for mut settler in std::mem::take(&mut self.settlers) {
            settler.note_faults(from, answer);
            let was_deposited = settler.deposited().is_some();
            let is_next_step = settler.answer(answer);
            let heads = || settler.heads().to_vec();
            if !was_deposited && settler.deposited().is_some() {
                self.progress.push(Progress::Deposited(heads()));
            }
            if is_next_step {
                self.progress.push(Progress::Certified(heads()));
                send_all(settler.messages(), out);
            }
            if settler.finality().is_some() {
                self.progress.push(Progress::Final(heads()));
                self.note_final(&settler, out);
            } else if settler.heads().len() > 1 && has_lasting_fault(&settler) {
                // One chain that members refuse must not hold up the others.
                for chain in settler.into_chains() {
                    self.begin(vec![chain]);
                    send_all(self.settlers.last().map(Settler::messages).unwrap_or_default(), out);
                }
            } else {
                self.settlers.push(settler);
            }
        }
    }

    fn note_final(&mut self, settler: &Settler, out: &mut Outbox) {
        for certified in settler.certified_heads() {
            out.writes.extend(self.receiver.note_final(&certified.head));
            if self.device.lanes().contains_key(&certified.head.lane)
                && let Ok(writes) = self.device.note_final(certified)
            {
                out.writes.extend(writes);
            }
        }
    }
}

fn send_all(messages: Vec<(u8, Message)>, out: &mut Outbox) {
    for (member, message) in messages {
        out.send(Party::Member(member), message);
    }
}

/// Whether a member refuses one of the chains for a reason that waiting does not mend.
fn has_lasting_fault(settler: &Settler) -> bool {
    settler.faults().iter().any(|(_, fault)| fault.reason != FaultReason::LaneUnknown)
}
