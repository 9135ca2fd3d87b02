//! A wallet that pays: the lanes of one device.
//!
//! [`Device::pay`] works out a spend and gives it back with the write that must be on disk before
//! the payment leaves. Writes of several payments can be put on disk by one sync. A device that
//! crashed in between opens without the spend and has released no signature, so a number is never
//! used for two spends. One that crashed after the write pays the same invoice again and gets the
//! same payment again, so nobody pays twice.
//!
//! The device's key is never in what is written here. A wallet restored from a copy of it has
//! another key, and with that none of the lanes: it asks for new ones and cannot contradict the
//! old device.

use std::collections::BTreeMap;

use crate::committee::Committee;
use crate::error::Refusal;
use crate::keys::{Batch, Key, Secret};
use crate::message::Writes;
use crate::operation::{CertifiedEntry, CertifiedHead};
use crate::payment::{Invoice, Payment};
use crate::spend::{AccountId, Chain, Grant, Head, LaneId, Nonce, Payee, Spend};
use crate::wire::Wire;

/// The lanes of one device.
pub struct Device {
    committee: Committee,
    secret: Secret,
    /// The last tick that the device has heard of.
    tick: u64,
    lanes: BTreeMap<LaneId, DeviceLane>,
    /// Which spend pays an invoice.
    paid: BTreeMap<(Payee, Nonce), (LaneId, u32)>,
}

/// A lane and what has been spent of it.
#[derive(Clone, Debug)]
pub struct DeviceLane {
    granted: CertifiedEntry,
    grant: Grant,
    spends: Vec<Spend>,
    head: Head,
    /// The highest head that is final.
    certified: Option<CertifiedHead>,
}

/// A payment that may leave once `writes` are on disk.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// To be written first.
    pub writes: Writes,
    /// To be handed to the payee then.
    pub payment: Payment,
}

const GRANT_KEY: u8 = b'g';
const SPEND_KEY: u8 = b's';
const CERTIFIED_KEY: u8 = b'h';
const TICK_KEY: &[u8] = b"t";

fn lane_key(kind: u8, lane: LaneId) -> Vec<u8> {
    let mut key = vec![kind];
    lane.write(&mut key);
    key
}

fn spend_key(spend: &Spend) -> Vec<u8> {
    let mut key = lane_key(SPEND_KEY, spend.lane);
    spend.seq.write(&mut key);
    key
}

impl DeviceLane {
    /// Its terms.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The last spend.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The highest head that is final.
    pub fn certified(&self) -> Option<&CertifiedHead> {
        self.certified.as_ref()
    }

    /// What may still be spent, in units.
    pub fn left(&self) -> u64 {
        self.grant.allocated - self.head.cumulative
    }
}

impl Device {
    /// A wallet as it was when it last wrote, from all that it ever wrote in the order of the
    /// keys. Lanes of another device key are left out: this one cannot spend from them.
    ///
    /// # Errors
    /// What was written has been altered.
    pub fn open(
        committee: Committee,
        secret: Secret,
        stored: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Device, Refusal> {
        let device = secret.key();
        let (lanes, paid) = (BTreeMap::new(), BTreeMap::new());
        let mut wallet = Device { committee, secret, tick: 0, lanes, paid };
        let mut spends = Vec::new();
        let mut certified = Vec::new();
        for (key, value) in stored {
            match key.first() {
                Some(&GRANT_KEY) => {
                    let granted = CertifiedEntry::from_bytes(&value)?;
                    if granted.grant().is_some_and(|(_, grant)| grant.device == device) {
                        wallet.add_lane(granted)?;
                    }
                }
                Some(&SPEND_KEY) => spends.push(Spend::from_bytes(&value)?),
                Some(&CERTIFIED_KEY) => certified.push(CertifiedHead::from_bytes(&value)?),
                _ if key == TICK_KEY => wallet.tick = u64::from_bytes(&value)?,
                _ => {}
            }
        }
        let network = wallet.committee.network;
        for spend in spends {
            let Some(lane) = wallet.lanes.get_mut(&spend.lane) else { continue };
            let next = lane.head.next(&lane.grant, spend.payee, spend.payee_nonce, spend.amount)?;
            if next != spend {
                return Err(Refusal::ChainBroken { lane: spend.lane.0, seq: spend.seq });
            }
            lane.head = spend.head(&network, lane.head.origin);
            wallet.paid.insert((spend.payee, spend.payee_nonce), (spend.lane, spend.seq));
            lane.spends.push(spend);
        }
        for certified in certified {
            if let Some(lane) = wallet.lanes.get_mut(&certified.head.lane) {
                lane.certified = Some(certified);
            }
        }
        Ok(wallet)
    }

    /// The device's public key.
    pub fn key(&self) -> Key {
        self.secret.key()
    }

    /// The last tick that the device has heard of.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// The lanes, by the entry that granted them.
    pub fn lanes(&self) -> &BTreeMap<LaneId, DeviceLane> {
        &self.lanes
    }

    /// What can be spent without a network, in units.
    pub fn spendable(&self) -> u64 {
        let open = self.lanes.values().filter(|lane| lane.grant.expires >= self.tick);
        open.map(DeviceLane::left).sum()
    }

    /// Notes a tick of the log.
    pub fn note_tick(&mut self, tick: u64) -> Writes {
        if tick <= self.tick {
            return Vec::new();
        }
        self.tick = tick;
        vec![(TICK_KEY.to_vec(), Some(tick.to_bytes()))]
    }

    /// Takes a lane that the log has granted to this device. One that is there already stays as
    /// it is, with all that was spent from it.
    ///
    /// # Errors
    /// The entry is no grant for this device, or its certificate is wrong.
    pub fn take_grant(&mut self, granted: &CertifiedEntry) -> Result<Writes, Refusal> {
        let (lane, grant) =
            granted.grant().ok_or(Refusal::NoSuchLane { lane: granted.entry.index })?;
        self.check_device(grant)?;
        granted.verify(&self.committee)?;
        if self.lanes.contains_key(&lane) && !cfg!(vudo_mutation = "spent_forgotten") {
            return Ok(Vec::new());
        }
        let bytes = granted.to_bytes();
        self.add_lane(granted.clone())?;
        Ok(vec![(lane_key(GRANT_KEY, lane), Some(bytes))])
    }

    fn check_device(&self, grant: &Grant) -> Result<(), Refusal> {
        if grant.device == self.secret.key() {
            return Ok(());
        }
        let needed = "a grant for this device";
        Err(Refusal::NotAuthorised { author: grant.device, needed })
    }

    fn add_lane(&mut self, granted: CertifiedEntry) -> Result<(), Refusal> {
        let index = granted.entry.index;
        let (lane, grant) = granted.grant().ok_or(Refusal::NoSuchLane { lane: index })?;
        self.check_device(grant)?;
        let grant = grant.clone();
        let head = grant.first_head(&self.committee.network, lane);
        let lane_state = DeviceLane { granted, grant, spends: Vec::new(), head, certified: None };
        self.lanes.insert(lane, lane_state);
        Ok(())
    }

    /// Pays an invoice, from a lane for this payee alone if there is one, else from the oldest
    /// that has enough left. One that was paid before gives that payment again.
    ///
    /// # Errors
    /// The invoice is of another ledger, asks for another amount than when it was paid, or no lane
    /// has as much left. Nothing has changed.
    pub fn pay(&mut self, invoice: &Invoice) -> Result<Prepared, Refusal> {
        let amount = invoice.amount;
        let nothing = Refusal::NothingToSpend { amount };
        if invoice.network != self.committee.network {
            return Err(Refusal::OtherLedger { what: "invoice" });
        }
        if let Some((lane, seq)) = self.paid.get(&(invoice.payee, invoice.nonce)) {
            return self.pay_again(*lane, *seq, invoice);
        }
        let tick = self.tick;
        let fits = |lane: &DeviceLane| {
            let next = lane.head.next(&lane.grant, invoice.payee, invoice.nonce, amount);
            lane.grant.expires >= tick && next.is_ok()
        };
        let mut lanes: Vec<(&LaneId, &mut DeviceLane)> =
            self.lanes.iter_mut().filter(|(_, lane)| fits(lane)).collect();
        lanes.sort_by_key(|(id, lane)| (lane.grant.payee.is_none(), **id));
        let (_, lane) = lanes.into_iter().next().ok_or(nothing)?;
        let spend = lane.head.next(&lane.grant, invoice.payee, invoice.nonce, amount)?;
        lane.head = spend.head(&self.committee.network, lane.head.origin);
        let writes = vec![(spend_key(&spend), Some(spend.to_bytes()))];
        self.paid.insert((spend.payee, spend.payee_nonce), (spend.lane, spend.seq));
        lane.spends.push(spend);
        let chain = lane.chain(&self.secret, lane.certified_seq());
        let (granted, start) = (lane.granted.clone(), lane.certified.clone());
        Ok(Prepared { writes, payment: Payment { granted, start, chain } })
    }

    /// The payment that contains a spend, which is on disk.
    fn pay_again(&self, id: LaneId, seq: u32, invoice: &Invoice) -> Result<Prepared, Refusal> {
        let lane = &self.lanes[&id];
        let expected = lane.spends[seq as usize - 1].amount;
        if invoice.amount != expected {
            return Err(Refusal::OtherAmount { found: expected, expected: invoice.amount });
        }
        // Where the spend is certified, the chain begins before it.
        let is_after = seq as usize > lane.certified_seq();
        let start = lane.certified.clone().filter(|_| is_after);
        let chain = lane.chain(&self.secret, if is_after { lane.certified_seq() } else { 0 });
        let payment = Payment { granted: lane.granted.clone(), start, chain };
        Ok(Prepared { writes: Vec::new(), payment })
    }

    /// All spends of a lane, signed, to be deposited.
    pub fn chain(&self, lane: LaneId) -> Option<Chain> {
        let lane = self.lanes.get(&lane)?;
        (!lane.spends.is_empty()).then(|| lane.chain(&self.secret, 0))
    }

    /// Notes that a head is final: payments then begin from it.
    ///
    /// # Errors
    /// The certificate is wrong, or of a chain that this device has not signed.
    pub fn note_final(&mut self, certified: CertifiedHead) -> Result<Writes, Refusal> {
        let mut batch = Batch::default();
        certified.queue(&self.committee, &mut batch)?;
        if !batch.is_valid() {
            return Err(Refusal::SignatureWrong);
        }
        let id = certified.head.lane;
        let lane = self.lanes.get_mut(&id).ok_or(Refusal::NoSuchLane { lane: id.0 })?;
        let place = (certified.head.seq as usize).wrapping_sub(1);
        let (network, origin) = (&self.committee.network, lane.head.origin);
        let own = lane.spends.get(place).map(|spend| spend.head(network, origin));
        if own != Some(certified.head) {
            return Err(Refusal::ChainBroken { lane: id.0, seq: certified.head.seq });
        }
        if certified.head.seq as usize <= lane.certified_seq() {
            return Ok(Vec::new());
        }
        let writes = vec![(lane_key(CERTIFIED_KEY, id), Some(certified.to_bytes()))];
        lane.certified = Some(certified);
        Ok(writes)
    }

    /// The accounts that the lanes draw on.
    pub fn accounts(&self) -> impl Iterator<Item = AccountId> + '_ {
        self.lanes.values().map(|lane| lane.grant.account)
    }
}

impl DeviceLane {
    fn certified_seq(&self) -> usize {
        self.certified.as_ref().map_or(0, |certified| certified.head.seq as usize)
    }

    /// The spends after the first `from`.
    fn chain(&self, secret: &Secret, from: usize) -> Chain {
        let start = match &self.certified {
            Some(certified) if from > 0 => certified.head,
            _ => Head { seq: 0, cumulative: 0, hash: self.head.origin, ..self.head },
        };
        let spends = self.spends[from..].to_vec();
        Chain { start, spends, signature: secret.sign(&self.head.hash) }
    }
}
