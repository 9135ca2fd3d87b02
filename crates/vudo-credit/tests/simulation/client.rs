//! A person with a wallet, and perhaps with a copy of its device that has the same key.

use std::collections::VecDeque;

use vudo_credit::operation::Action;
use vudo_credit::wallet::Progress;
use vudo_credit::{
    Chain, Device, Effect, Genesis, Grant, Invoice, Key, Message, Party, Payee, Payment, Secret,
    Wallet, Writes,
};
use vudo_testkit::{CrashingDisk, PowerLoss, Random};

use crate::oracle::Oracle;
use crate::world::secret;

pub(crate) struct Client {
    number: u64,
    genesis: Genesis,
    pub(crate) wallet: Wallet,
    /// A copy of the device with its key, which knows nothing of the other's spends.
    pub(crate) twin: Option<Device>,
    requests: VecDeque<Action>,
    /// How often the request under way was sent.
    sent_count: u32,
    disk: CrashingDisk,
}

/// How often a request is tried before the person thinks of something else.
const TRIES_MAX: u32 = 24;

impl Client {
    pub(crate) fn new(number: u64, genesis: &Genesis, has_twin: bool) -> Client {
        let disk = CrashingDisk::default();
        let committee = genesis.committee().expect("the genesis is right");
        let twin = Device::open(committee, device(number), []).expect("it is new");
        Client {
            number,
            genesis: genesis.clone(),
            wallet: open(&disk, genesis, number),
            twin: has_twin.then_some(twin),
            requests: VecDeque::new(),
            sent_count: 0,
            disk,
        }
    }

    pub(crate) fn account(&self) -> Key {
        self.wallet.account()
    }

    pub(crate) fn ask(&mut self, action: Action) {
        self.requests.push_back(action);
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.wallet.is_requesting() || !self.requests.is_empty()
    }

    /// Drops requests that have not been ordered.
    pub(crate) fn ask_no_more(&mut self) {
        self.requests.clear();
        self.wallet.give_up();
    }

    /// The power goes and comes back. A write that was under way is there or not.
    pub(crate) fn crash(&mut self) {
        self.disk.power_off();
        self.restart();
    }

    fn restart(&mut self) {
        self.disk.power_on();
        self.wallet = open(&self.disk, &self.genesis, self.number);
    }

    /// Writes to disk; where the power goes, everything opens again from what is there.
    fn persist(&mut self, writes: &Writes) -> Result<(), PowerLoss> {
        let result = self.disk.commit(writes);
        if result.is_err() {
            self.restart();
        }
        result
    }

    pub(crate) fn lose_power_at_next_write(&mut self, reaches_disk: bool) {
        self.disk.power_off_during_commit(0, reaches_disk);
    }

    /// What the account may still reserve, as far as this person knows.
    pub(crate) fn headroom(&self) -> u64 {
        let account = self.wallet.ledger().account(&self.account());
        account.map_or(0, |account| account.headroom() as u64)
    }

    /// The terms of a grant for the own device, shorter than its tier allows.
    pub(crate) fn terms(&self, allocated: u64, payee: Option<Payee>) -> Grant {
        let expires = self.wallet.ledger().tick() + 4;
        let settle_by = expires + 3;
        Grant { max_spends: 50, expires, settle_by, ..self.wallet.terms(allocated, payee) }
    }

    /// Asks for the next thing, where nothing is being asked for.
    pub(crate) fn request(&mut self) {
        self.sent_count = if self.is_asking() { self.sent_count + 1 } else { 0 };
        if self.wallet.is_requesting() && self.sent_count <= TRIES_MAX {
            return;
        }
        let Some(action) = self.requests.front() else { return };
        let is_right = self.wallet.request(action.clone()).is_ok();
        // What this wallet does not know yet may make it right later.
        if is_right || self.sent_count > TRIES_MAX {
            self.requests.pop_front();
            self.sent_count = 0;
        }
    }

    /// Takes what a member says, and tells the oracle what has come of it. Gives what is sent then.
    pub(crate) fn handle(
        &mut self,
        from: u8,
        message: Message,
        oracle: &mut Oracle,
    ) -> Result<Vec<(Party, Message)>, PowerLoss> {
        let known = self.wallet.ledger().next_index();
        let committed = match &message {
            Message::Committed(entry) => Some(entry.clone()),
            _ => None,
        };
        let effects = self.wallet.handle(from, message);
        // What members have signed stays true where the power goes now.
        for progress in self.wallet.take_progress() {
            match progress {
                Progress::Deposited(heads) => oracle.note_deposited(&heads),
                Progress::Certified(heads) => oracle.note_certified(&heads),
                Progress::Final(heads) => oracle.note_final(&heads),
                Progress::Ordered(_) | Progress::Overtaken => self.sent_count = 0,
            }
        }
        let mut sends = Vec::new();
        for effect in effects {
            match effect {
                Effect::Persist(writes) => self.persist(&writes)?,
                Effect::Send { to, message } => sends.push((to, message)),
            }
        }
        if let (Some(entry), Some(twin)) = (committed, &mut self.twin)
            && self.wallet.ledger().next_index() > known
        {
            twin.note_tick(self.wallet.ledger().tick());
            // Grants of others are refused, and are nothing to a twin.
            let _ = twin.take_grant(&entry);
        }
        oracle.note_lists(self.wallet.settlers());
        Ok(sends)
    }

    /// Asks for a payment.
    pub(crate) fn invoice(
        &mut self,
        random: &mut Random,
        amount: u64,
    ) -> Result<Invoice, PowerLoss> {
        let mut nonce = [0; 16];
        random.fill(&mut nonce);
        let invoiced = self.wallet.invoice(nonce, amount);
        let (writes, invoice) = invoiced.expect("the amount is in range");
        self.persist(&writes)?;
        Ok(invoice)
    }

    /// Pays, with the device or with its twin.
    pub(crate) fn pay(
        &mut self,
        invoice: &Invoice,
        with_twin: bool,
    ) -> Result<Option<Payment>, PowerLoss> {
        if let Some(twin) = self.twin.as_mut().filter(|_| with_twin) {
            return Ok(twin.pay(invoice).ok().map(|prepared| prepared.payment));
        }
        let Ok(prepared) = self.wallet.pay(invoice) else { return Ok(None) };
        self.persist(&prepared.writes)?;
        Ok(Some(prepared.payment))
    }

    /// Takes a payment; gives whether it was right.
    pub(crate) fn receive(&mut self, payment: &Payment) -> Result<bool, PowerLoss> {
        let Ok(received) = self.wallet.receive(payment) else { return Ok(false) };
        self.persist(&received.writes)?;
        Ok(true)
    }

    /// Begins to settle what was received, and `with_own` what was paid.
    pub(crate) fn settle(&mut self, with_own: bool, oracle: &mut Oracle) {
        let mut chains = self.wallet.open_chains(with_own);
        if let Some(twin) = self.twin.as_ref().filter(|_| with_own) {
            chains.extend(twin.lanes().keys().filter_map(|lane| twin.chain(*lane)));
        }
        self.wallet.settle(chains);
        oracle.note_lists(self.wallet.settlers());
    }

    /// All chains that this person's devices have signed, released or not.
    pub(crate) fn signed_chains(&self) -> Vec<Chain> {
        let devices = [Some(self.wallet.device()), self.twin.as_ref()].into_iter().flatten();
        let chains =
            devices.flat_map(|device| device.lanes().keys().filter_map(|lane| device.chain(*lane)));
        chains.collect()
    }
}

fn device(number: u64) -> Secret {
    secret(200 + number)
}

/// What a person's device is paid as.
pub(crate) fn payee(number: u64) -> Payee {
    Payee { account: secret(100 + number).key(), device: device(number).key() }
}

fn open(disk: &CrashingDisk, genesis: &Genesis, number: u64) -> Wallet {
    let mut entries = Vec::new();
    let visited = disk.scan(&[0], &[0xff], &mut |key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        true
    });
    visited.expect("the power is on");
    let opened = Wallet::open(genesis.clone(), secret(100 + number), device(number), entries);
    opened.expect("a wallet opens from what it wrote")
}
