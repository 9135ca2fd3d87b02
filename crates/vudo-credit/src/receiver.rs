//! A wallet that is paid: verifies payments without a network.
//!
//! What a payee can check alone: a quorum has ordered the grant; the device that it names signed
//! the chain; the chain stays within what was allocated; it answers an open invoice; it does not
//! contradict what this payee has seen before; and the grant had not expired, nor the device been
//! revoked, at the payee's last checkpoint. What it cannot know is whether the device showed
//! another chain to somebody else: see the loss bound in the documentation.

use std::collections::{BTreeMap, BTreeSet};

use crate::committee::Committee;
use crate::error::Refusal;
use crate::keys::{Batch, Key};
use crate::message::Writes;
use crate::payment::{Invoice, Payment};
use crate::spend::{AccountId, Chain, Grant, Head, LaneId, Nonce, Payee, Spend, is_amount};
use crate::wire::{Reader, Wire};

/// What one device has been paid.
pub struct Receiver {
    committee: Committee,
    payee: Payee,
    /// The log's last tick, as of the last checkpoint.
    tick: u64,
    /// Devices that the log had revoked by then, each for one account: nobody can revoke a device
    /// of others.
    revoked: BTreeSet<(AccountId, Key)>,
    /// Invoices that nobody has paid.
    invoices: BTreeMap<Nonce, Invoice>,
    /// Invoices that were paid.
    paid: BTreeSet<Nonce>,
    lanes: BTreeMap<LaneId, Received>,
}

/// What this payee holds of a lane.
#[derive(Clone, Debug)]
struct Received {
    payment: Payment,
    /// The heads of all chains that were shown, by their number.
    heads: BTreeMap<u32, Head>,
    /// What has been paid to this payee, in units.
    amount: u64,
    /// Whether all of it is final.
    is_final: bool,
}

/// A payment that was right; it counts once `writes` are on disk.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// To be written before the payer is told.
    pub writes: Writes,
    /// What was paid, in units.
    pub amount: u64,
}

const INVOICE_KEY: u8 = b'i';
const PAYMENT_KEY: u8 = b'p';
const FINAL_KEY: u8 = b'f';
const REVOKED_KEY: u8 = b'x';
const CHECKPOINT_KEY: &[u8] = b"c";

fn invoice_key(nonce: &Nonce) -> Vec<u8> {
    let mut key = vec![INVOICE_KEY];
    nonce.write(&mut key);
    key
}

fn payment_key(lane: LaneId, seq: u32) -> Vec<u8> {
    let mut key = vec![PAYMENT_KEY];
    lane.write(&mut key);
    seq.write(&mut key);
    key
}

fn final_key(lane: LaneId) -> Vec<u8> {
    let mut key = vec![FINAL_KEY];
    lane.write(&mut key);
    key
}

impl Receiver {
    /// A wallet as it was when it last wrote.
    ///
    /// # Errors
    /// What was written has been altered.
    pub fn open(
        committee: Committee,
        payee: Payee,
        stored: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Receiver, Refusal> {
        let (invoices, lanes) = (BTreeMap::new(), BTreeMap::new());
        let (revoked, paid) = (BTreeSet::new(), BTreeSet::new());
        let mut receiver = Receiver { committee, payee, tick: 0, revoked, invoices, paid, lanes };
        let mut finals = Vec::new();
        for (key, value) in stored {
            match key.first() {
                Some(&INVOICE_KEY) => {
                    let invoice = Invoice::from_bytes(&value)?;
                    receiver.invoices.insert(invoice.nonce, invoice);
                }
                Some(&PAYMENT_KEY) => {
                    let payment = Payment::from_bytes(&value)?;
                    let checked = receiver.follow(&payment, &mut Batch::default())?;
                    receiver.keep(payment, checked);
                }
                Some(&FINAL_KEY) => finals.push(LaneId::from_bytes(&key[1..])?),
                Some(&REVOKED_KEY) => {
                    let mut reader = Reader::new(&key[1..]);
                    let device = (Key::read(&mut reader)?, Key::read(&mut reader)?);
                    receiver.revoked.insert(device);
                }
                _ if key == CHECKPOINT_KEY => receiver.tick = u64::from_bytes(&value)?,
                _ => {}
            }
        }
        let paid = &receiver.paid;
        receiver.invoices.retain(|nonce, _| !paid.contains(nonce));
        for lane in finals {
            if let Some(received) = receiver.lanes.get_mut(&lane) {
                received.is_final = true;
            }
        }
        Ok(receiver)
    }

    /// Asks for a payment. `nonce` is random; the writes must be on disk before the invoice leaves.
    ///
    /// # Errors
    /// The amount is out of range.
    pub fn invoice(&mut self, nonce: Nonce, amount: u64) -> Result<(Writes, Invoice), Refusal> {
        if !is_amount(amount) {
            return Err(Refusal::AmountOutOfRange { amount });
        }
        let invoice = Invoice { network: self.committee.network, payee: self.payee, nonce, amount };
        self.invoices.insert(nonce, invoice);
        Ok((vec![(invoice_key(&nonce), Some(invoice.to_bytes()))], invoice))
    }

    /// Notes what the log says at a checkpoint: the tick, and devices that are revoked, each with the
    /// account that it may not spend for any more.
    pub fn note_checkpoint(
        &mut self,
        tick: u64,
        revoked: impl IntoIterator<Item = (AccountId, Key)>,
    ) -> Writes {
        let mut writes = Writes::new();
        for (account, device) in revoked {
            if self.revoked.insert((account, device)) {
                let key = [&[REVOKED_KEY], &account.0[..], &device.0].concat();
                writes.push((key, Some(Vec::new())));
            }
        }
        if tick > self.tick {
            self.tick = tick;
            writes.push((CHECKPOINT_KEY.to_vec(), Some(tick.to_bytes())));
        }
        writes
    }

    /// Checks a payment.
    ///
    /// # Errors
    /// It is not to be relied on; nothing has changed.
    pub fn accept(&mut self, payment: &Payment) -> Result<Accepted, Refusal> {
        let mut batch = Batch::default();
        let checked = self.follow(payment, &mut batch)?;
        if let Some((_, grant)) = payment.granted.grant() {
            self.check_checkpoint(grant)?;
        }
        let own: Vec<(Nonce, u64)> = payment
            .chain
            .spends
            .iter()
            .filter(|spend| spend.payee == self.payee)
            .filter(|spend| self.invoices.contains_key(&spend.payee_nonce))
            .map(|spend| (spend.payee_nonce, spend.amount))
            .collect();
        let mut nonces = BTreeSet::new();
        let mut amount = 0_u64;
        for (nonce, found) in &own {
            let expected = self.invoices[nonce].amount;
            if *found != expected || !nonces.insert(*nonce) {
                return Err(Refusal::OtherAmount { found: *found, expected });
            }
            amount = amount.saturating_add(expected);
        }
        if own.is_empty() {
            return Err(self.answers_nothing(payment));
        }
        // Signatures come last: what is wrong otherwise costs no curve arithmetic.
        if !batch.is_valid() {
            return Err(Refusal::SignatureWrong);
        }
        let head = checked.heads[checked.heads.len() - 1];
        let key = payment_key(head.lane, head.seq);
        let mut writes = vec![(key, Some(payment.to_bytes()))];
        for nonce in nonces {
            self.invoices.remove(&nonce);
            writes.push((invoice_key(&nonce), None));
        }
        writes.push((final_key(head.lane), None));
        self.keep(payment.clone(), checked);
        Ok(Accepted { writes, amount })
    }

    /// Why a payment that answers no open invoice is refused.
    fn answers_nothing(&self, payment: &Payment) -> Refusal {
        let is_known =
            |spend: &&Spend| spend.payee == self.payee && self.paid.contains(&spend.payee_nonce);
        let known = payment.chain.spends.iter().filter(is_known);
        match known.map(|spend| spend.amount).fold(0, u64::saturating_add) {
            0 => Refusal::NoSuchInvoice,
            amount => Refusal::ReceivedAlready { amount },
        }
    }

    /// Checks a grant against what the log said at the last checkpoint.
    fn check_checkpoint(&self, grant: &Grant) -> Result<(), Refusal> {
        if grant.expires < self.tick {
            return Err(Refusal::GrantExpired { expires: grant.expires, tick: self.tick });
        }
        if self.revoked.contains(&(grant.account, grant.device)) {
            return Err(Refusal::DeviceBarred { device: grant.device });
        }
        Ok(())
    }

    /// Checks all of a payment that neither invoices nor checkpoints decide; signatures go into
    /// the batch.
    fn follow(&self, payment: &Payment, batch: &mut Batch) -> Result<Checked, Refusal> {
        let granted = &payment.granted;
        let (lane, grant) =
            granted.grant().ok_or(Refusal::NoSuchLane { lane: granted.entry.index })?;
        let first = grant.first_head(&self.committee.network, lane);
        let start = payment.start.as_ref().map_or(first, |certified| certified.head);
        if payment.chain.start != start || start.lane != lane || start.origin != first.hash {
            return Err(Refusal::ChainStartUnknown { lane: lane.0 });
        }
        // What an earlier payment of this lane has shown need not be checked again.
        let shown = self.lanes.get(&lane).map(|received| &received.payment);
        match &payment.start {
            // Whoever certified the head has certified the grant: one certificate answers for both.
            Some(certified) if shown.is_none_or(|shown| shown.start != payment.start) => {
                certified.queue(&self.committee, batch)?;
            }
            None if shown.is_none_or(|shown| shown.granted != *granted) => {
                granted.queue(&self.committee, batch)?;
            }
            _ => {}
        }
        let heads = payment.chain.heads(&self.committee.network, grant)?;
        batch.add(grant.device, heads[heads.len() - 1].hash, payment.chain.signature);
        let known = self.lanes.get(&lane).map(|received| &received.heads);
        let contradicts = |head: &Head| {
            known.and_then(|known| known.get(&head.seq)).is_some_and(|known| known != head)
        };
        if heads.iter().chain([&start]).any(contradicts) {
            return Err(Refusal::Equivocated { lane: lane.0 });
        }
        Ok(Checked { start, heads })
    }

    fn keep(&mut self, payment: Payment, checked: Checked) {
        let payee = self.payee;
        let known = self.lanes.get(&checked.start.lane);
        let own = payment.chain.spends.iter().filter(|spend| spend.payee == payee);
        self.paid.extend(own.map(|spend| spend.payee_nonce));
        let new = payment.chain.spends.iter().filter(|spend| {
            spend.payee == payee && known.is_none_or(|known| !known.heads.contains_key(&spend.seq))
        });
        let amount = new.map(|spend| spend.amount).sum::<u64>();
        let mut received = Received { payment, heads: BTreeMap::new(), amount, is_final: false };
        if let Some(known) = self.lanes.remove(&checked.start.lane) {
            received.amount += known.amount;
            received.heads = known.heads;
            let known_end = known.payment.chain.spends.last().map_or(0, |spend| spend.seq);
            let new_end = received.payment.chain.spends.last().map_or(0, |spend| spend.seq);
            if known_end > new_end {
                received.payment = known.payment;
            }
        }
        received
            .heads
            .extend([checked.start].into_iter().chain(checked.heads).map(|head| (head.seq, head)));
        self.lanes.insert(checked.start.lane, received);
    }

    /// The chains that are not final, to be deposited.
    pub fn chains(&self) -> Vec<Chain> {
        let open = self.lanes.values().filter(|received| !received.is_final);
        open.map(|received| received.payment.chain.clone()).collect()
    }

    /// Notes that a head is final, and all that this payee holds of the lane if it is the last.
    pub fn note_final(&mut self, head: &Head) -> Writes {
        let Some(received) = self.lanes.get_mut(&head.lane) else { return Vec::new() };
        let end = received.payment.chain.spends.last().map_or(0, |spend| spend.seq);
        if received.heads.get(&head.seq) != Some(head) || head.seq < end {
            return Vec::new();
        }
        received.is_final = true;
        vec![(final_key(head.lane), Some(Vec::new()))]
    }

    /// Notes that a lane is closed: what of it was not settled by then never is.
    pub fn note_closed(&mut self, lane: LaneId) -> Writes {
        let Some(received) = self.lanes.get_mut(&lane) else { return Vec::new() };
        received.is_final = true;
        vec![(final_key(lane), Some(Vec::new()))]
    }

    /// What has been paid but is not final, in units. It cannot be spent yet.
    pub fn incoming(&self) -> u64 {
        let open = self.lanes.values().filter(|received| !received.is_final);
        open.map(|received| received.amount).sum()
    }
}

/// Where a payment's chain begins and leads.
struct Checked {
    start: Head,
    heads: Vec<Head>,
}
