//! A person with an account, a device that pays and a wallet that is paid.

use std::collections::{BTreeSet, VecDeque};

use vudo_credit::committee::Committee;
use vudo_credit::message::Answer;
use vudo_credit::operation::{Action, CertifiedEntry, Operation, Request};
use vudo_credit::{
    Chain, Device, Genesis, Grant, Key, LaneStatus, Ledger, Message, Payee, Receiver, Secret,
    Settler, Writes,
};
use vudo_testkit::{CrashingDisk, PowerLoss, Random};

use crate::oracle::Oracle;
use crate::world::secret;

pub(crate) struct Client {
    pub(crate) number: u64,
    pub(crate) owner: Secret,
    /// What the client knows of the log, checked.
    pub(crate) ledger: Ledger,
    pub(crate) device: Device,
    pub(crate) receiver: Receiver,
    /// A copy of the device with its key, which knows nothing of the other's spends.
    pub(crate) twin: Option<Device>,
    pub(crate) settlers: Vec<Settler>,
    requests: VecDeque<Action>,
    /// The request that is under way, and how often it was sent.
    pending: Option<(Request, u32)>,
    disk: CrashingDisk,
}

const DEVICE: u8 = b'D';
const RECEIVER: u8 = b'R';

impl Client {
    pub(crate) fn new(number: u64, genesis: &Genesis, has_twin: bool) -> Client {
        let ledger = Ledger::new(genesis.clone()).expect("the genesis is right");
        let committee = ledger.committee.clone();
        let disk = CrashingDisk::default();
        let owner = secret(100 + number);
        let device = open_device(&disk, &committee, number);
        let receiver = open_receiver(&disk, &committee, number);
        let twin = has_twin.then(|| open_device(&disk, &committee, number));
        Client {
            number,
            owner,
            ledger,
            device,
            receiver,
            twin,
            settlers: Vec::new(),
            requests: VecDeque::new(),
            pending: None,
            disk,
        }
    }

    pub(crate) fn account(&self) -> Key {
        self.owner.key()
    }

    pub(crate) fn ask(&mut self, action: Action) {
        self.requests.push_back(action);
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.pending.is_some() || !self.requests.is_empty()
    }

    /// Drops requests that have not been ordered.
    pub(crate) fn ask_no_more(&mut self) {
        self.requests.clear();
        self.pending = None;
    }

    /// The power goes and comes back. A write that was under way is there or not.
    pub(crate) fn crash(&mut self) {
        self.disk.power_off();
        self.restart();
    }

    fn restart(&mut self) {
        self.disk.power_on();
        let committee = self.ledger.committee.clone();
        self.device = open_device(&self.disk, &committee, self.number);
        self.receiver = open_receiver(&self.disk, &committee, self.number);
        self.settlers.clear();
    }

    /// Writes to disk; where the power goes, everything opens again from what is there.
    pub(crate) fn persist(&mut self, space: u8, writes: Writes) -> Result<(), PowerLoss> {
        let result = self.disk.commit(&prefixed(space, writes));
        if result.is_err() {
            self.restart();
        }
        result
    }

    pub(crate) fn lose_power_at_next_write(&mut self, reaches_disk: bool) {
        self.disk.power_off_during_commit(0, reaches_disk);
    }

    /// A terms of a grant for the own device.
    pub(crate) fn terms(&self, allocated: u64, payee: Option<Payee>) -> Grant {
        let expires = self.ledger.tick() + 4;
        Grant {
            account: self.account(),
            device: self.device.key(),
            allocated,
            max_spends: 50,
            expires,
            settle_by: expires + 3,
            epoch: 0,
            payee,
        }
    }

    /// What there is to send to some member: the request under way.
    pub(crate) fn request(&mut self) -> Option<Message> {
        let next = self.ledger.next_sequence(&self.account());
        let is_done = |(request, sent): &(Request, u32)| request.sequence < next || *sent > 12;
        if self.pending.as_ref().is_some_and(is_done) {
            self.pending = None;
        }
        if self.pending.is_none() {
            let action = self.requests.pop_front()?;
            let network = &self.ledger.committee.network;
            self.pending = Some((Request::sign(network, &self.owner, next, action), 0));
        }
        let (request, sent) = self.pending.as_mut()?;
        *sent += 1;
        Some(Message::Submit(Box::new(Operation::Request(request.clone()))))
    }

    /// Follows the log, and takes from it what concerns the wallets.
    pub(crate) fn committed(&mut self, entry: &CertifiedEntry) -> Result<(), PowerLoss> {
        let is_next = entry.entry.index == self.ledger.next_index();
        if !is_next || entry.verify(&self.ledger.committee).is_err() {
            return Ok(());
        }
        if self.ledger.apply(&entry.entry).is_err() {
            return Ok(());
        }
        let tick = self.ledger.tick();
        let device_key = self.device.key();
        let mut writes = self.device.note_tick(tick);
        if let Some((_, grant)) = entry.grant()
            && grant.device == device_key
        {
            writes.extend(self.device.take_grant(entry.clone()).expect("it is for this device"));
            if let Some(twin) = &mut self.twin {
                twin.take_grant(entry.clone()).expect("it is for this device");
            }
        }
        if let Some(twin) = &mut self.twin {
            twin.note_tick(tick);
        }
        self.persist(DEVICE, writes)?;
        let revoked: BTreeSet<Key> = (self.ledger.accounts().values())
            .flat_map(|account| account.barred_devices.iter().copied())
            .collect();
        let mut writes = self.receiver.note_checkpoint(tick, revoked);
        for lane in self.ledger.lanes().values() {
            let is_closed = matches!(lane.status, LaneStatus::Closed { .. });
            if is_closed || lane.settled.seq > 0 {
                writes.extend(self.receiver.note_final(&lane.settled));
            }
        }
        self.persist(RECEIVER, writes)
    }

    /// Asks for a payment.
    pub(crate) fn invoice(
        &mut self,
        random: &mut Random,
        amount: u64,
    ) -> Result<vudo_credit::Invoice, PowerLoss> {
        let mut nonce = [0; 16];
        random.fill(&mut nonce);
        let invoiced = self.receiver.invoice(nonce, amount);
        let (writes, invoice) = invoiced.expect("the amount is in range");
        self.persist(RECEIVER, writes)?;
        Ok(invoice)
    }

    /// Pays, with the device or with its twin.
    pub(crate) fn pay(
        &mut self,
        invoice: &vudo_credit::Invoice,
        with_twin: bool,
    ) -> Result<Option<vudo_credit::Payment>, PowerLoss> {
        if let Some(twin) = self.twin.as_mut().filter(|_| with_twin) {
            return Ok(twin.pay(invoice).ok().map(|prepared| prepared.payment));
        }
        let Ok(prepared) = self.device.pay(invoice) else { return Ok(None) };
        self.persist(DEVICE, prepared.writes)?;
        Ok(Some(prepared.payment))
    }

    /// Takes a payment; gives whether it was right.
    pub(crate) fn accept(&mut self, payment: &vudo_credit::Payment) -> Result<bool, PowerLoss> {
        let Ok(accepted) = self.receiver.accept(payment) else { return Ok(false) };
        self.persist(RECEIVER, accepted.writes)?;
        Ok(true)
    }

    /// Begins to settle what was paid and received, unless that is under way.
    pub(crate) fn begin_to_settle(&mut self, with_own: bool) -> Option<&Settler> {
        let mut chains: Vec<Chain> = self.receiver.chains();
        if with_own {
            let lanes = self.device.lanes().iter();
            let open = lanes.filter(|(_, lane)| {
                lane.certified().map_or(0, |certified| certified.head.seq) < lane.head().seq
            });
            let ids: Vec<_> = open.map(|(id, _)| *id).collect();
            chains.extend(ids.into_iter().filter_map(|id| self.device.chain(id)));
            if let Some(twin) = &self.twin {
                let ids: Vec<_> = twin.lanes().keys().copied().collect();
                chains.extend(ids.into_iter().filter_map(|id| twin.chain(id)));
            }
        }
        // A lane that is closed takes no more; and one list has a lane once.
        let is_open = |chain: &Chain| {
            let lane = self.ledger.lane(chain.start.lane);
            lane.is_ok_and(|lane| lane.status == LaneStatus::Open)
        };
        let chain = chains.into_iter().find(|chain| {
            let is_new = !self.settlers.iter().any(|settler| {
                let end =
                    chain.spends.last().map(|spend| spend.hash(&self.ledger.committee.network));
                settler.heads().iter().any(|head| Some(head.hash) == end)
            });
            is_new && is_open(chain)
        })?;
        let settler = Settler::new(self.ledger.committee.clone(), vec![chain]).ok()?;
        self.settlers.push(settler);
        self.settlers.last()
    }

    /// Takes a member's answer.
    pub(crate) fn answer(&mut self, answer: &Answer, oracle: &mut Oracle) -> Result<(), PowerLoss> {
        for settler in &mut self.settlers {
            if settler.answer(answer) {
                oracle.note_certified(settler.heads());
            }
            if settler.deposited().is_some() {
                oracle.note_deposited(settler.heads());
            }
        }
        let finished: Vec<Settler> = {
            let (done, open) = std::mem::take(&mut self.settlers)
                .into_iter()
                .partition(|settler| settler.finality().is_some());
            self.settlers = open;
            done
        };
        for settler in &finished {
            oracle.note_final(settler.heads());
            for certified in settler.certified_heads() {
                let writes = self.receiver.note_final(&certified.head);
                self.persist(RECEIVER, writes)?;
                if let Ok(writes) = self.device.note_final(certified) {
                    self.persist(DEVICE, writes)?;
                }
            }
        }
        Ok(())
    }

    /// All chains that this person's devices have signed, released or not.
    pub(crate) fn signed_chains(&self) -> Vec<Chain> {
        let devices = [Some(&self.device), self.twin.as_ref()].into_iter().flatten();
        let chains =
            devices.flat_map(|device| device.lanes().keys().filter_map(|lane| device.chain(*lane)));
        chains.collect()
    }

    /// Forgets what can no longer be settled because the lane is closed.
    pub(crate) fn drop_closed(&mut self) {
        let ledger = &self.ledger;
        self.settlers.retain(|settler| {
            settler.heads().iter().all(|head| {
                ledger.lane(head.lane).is_ok_and(|lane| lane.status == LaneStatus::Open)
            })
        });
    }
}

fn prefixed(space: u8, writes: Writes) -> Writes {
    let prefix = |key: Vec<u8>| [vec![space], key].concat();
    writes.into_iter().map(|(key, value)| (prefix(key), value)).collect()
}

/// All entries of a part of a disk, without its prefix.
fn entries(disk: &CrashingDisk, space: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let visited = disk.scan(&[space], &[space + 1], &mut |key, value| {
        found.push((key[1..].to_vec(), value.to_vec()));
        true
    });
    visited.expect("the power is on");
    found
}

fn open_device(disk: &CrashingDisk, committee: &Committee, number: u64) -> Device {
    let opened = Device::open(committee.clone(), secret(200 + number), entries(disk, DEVICE));
    opened.expect("a wallet opens from what it wrote")
}

fn open_receiver(disk: &CrashingDisk, committee: &Committee, number: u64) -> Receiver {
    let account = secret(100 + number).key();
    let payee = Payee { account, device: secret(300 + number).key() };
    let opened = Receiver::open(committee.clone(), payee, entries(disk, RECEIVER));
    opened.expect("a wallet opens from what it wrote")
}
