//! A committee in one process whose messages all arrive, in order.
#![allow(dead_code, reason = "each test program uses another part of it")]

use std::collections::VecDeque;

use vudo_credit::message::Answer;
use vudo_credit::operation::{Action, CertifiedEntry, LogRecord, Operation, Request};
use vudo_credit::{
    Chain, DEFAULT_TIERS, Device, Digest, Effect, Event, Finality, Genesis, Grant, Key, LaneId,
    Member, Message, Party, Payee, Receiver, Secret, Settler,
};

/// A key that a number names.
pub(crate) fn secret(number: u64) -> Secret {
    Secret::from_seed(Digest::of("test/secret", &[&number.to_be_bytes()]).0)
}

pub(crate) const OPERATOR: u64 = 1_000;
pub(crate) const RESERVE: u64 = 1_001;

pub(crate) fn genesis(member_count: u64) -> Genesis {
    Genesis {
        name: "test".to_owned(),
        members: (0..member_count).map(|member| secret(member).key()).collect(),
        sequencer: 0,
        operators: vec![secret(OPERATOR).key()],
        reserve: secret(RESERVE).key(),
        tiers: DEFAULT_TIERS.to_vec(),
        settle_window_ticks: 10,
    }
}

/// A committee and the clients that talk to it.
pub(crate) struct Town {
    pub(crate) genesis: Genesis,
    pub(crate) members: Vec<Member>,
    queue: VecDeque<(Party, Party, Message)>,
    /// What members sent to clients.
    pub(crate) answers: Vec<(u8, Answer)>,
    clock: u64,
}

/// The one client of a town.
pub(crate) const CLIENT: Party = Party::Client(0);

impl Town {
    pub(crate) fn new(member_count: u64) -> Town {
        let genesis = genesis(member_count);
        let open = |member| Member::open(genesis.clone(), secret(member), []).unwrap();
        let members = (0..member_count).map(open).collect();
        Town { genesis, members, queue: VecDeque::new(), answers: Vec::new(), clock: 0 }
    }

    /// Sends a message to a member, and delivers everything that follows.
    pub(crate) fn send(&mut self, to: u8, message: Message) {
        self.queue.push_back((CLIENT, Party::Member(to), message));
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some((from, to, message)) = self.queue.pop_front() {
            match (to, message) {
                (Party::Member(member), message) => {
                    let event = Event::Message { from, message };
                    self.handle(member, event);
                }
                (Party::Client(_), Message::Answer(answer)) => {
                    let Party::Member(member) = from else { continue };
                    self.answers.push((member, answer));
                }
                (Party::Client(_), _) => {}
            }
        }
    }

    fn handle(&mut self, member: u8, event: Event) {
        for effect in self.members[usize::from(member)].handle(event) {
            if let Effect::Send { to, message } = effect {
                self.queue.push_back((Party::Member(member), to, message));
            }
        }
    }

    /// Every clock strikes the next tick.
    pub(crate) fn tick(&mut self) {
        self.clock += 1;
        for member in (0..self.members.len() as u8).rev() {
            self.handle(member, Event::Clock(self.clock));
        }
        self.deliver();
    }

    /// Signs a request as the next of its author, and has it ordered.
    pub(crate) fn request(&mut self, author: u64, action: Action) -> Request {
        let author = secret(author);
        let ledger = self.members[0].ledger();
        let sequence = ledger.next_sequence(&author.key());
        let request = Request::sign(&ledger.committee.network, &author, sequence, action);
        self.send(0, Message::Submit(Box::new(Operation::Request(request.clone()))));
        request
    }

    /// Opens accounts with a limit each.
    pub(crate) fn open_accounts(&mut self, accounts: &[(u64, u64)]) {
        for (owner, limit) in accounts {
            self.request(*owner, Action::Open);
            if *limit > 0 {
                let account = secret(*owner).key();
                self.request(OPERATOR, Action::SetLimit { account, tier: 5, limit: *limit });
            }
        }
    }

    /// A grant of an account for one of its devices.
    pub(crate) fn grant(&mut self, owner: u64, device: Key, allocated: u64) -> CertifiedEntry {
        self.grant_for(owner, device, allocated, None)
    }

    pub(crate) fn grant_for(
        &mut self,
        owner: u64,
        device: Key,
        allocated: u64,
        payee: Option<Payee>,
    ) -> CertifiedEntry {
        let grant = self.terms(owner, device, allocated, payee);
        let before = self.log().len();
        self.request(owner, Action::Grant(grant));
        let record = self.log().get(before).expect("the grant is in the log");
        record.certified.clone()
    }

    pub(crate) fn terms(
        &self,
        owner: u64,
        device: Key,
        allocated: u64,
        payee: Option<Payee>,
    ) -> Grant {
        let expires = self.members[0].ledger().tick() + 5;
        Grant {
            account: secret(owner).key(),
            device,
            allocated,
            max_spends: 100,
            expires,
            settle_by: expires + 5,
            epoch: 0,
            payee,
        }
    }

    pub(crate) fn log(&self) -> &[LogRecord] {
        self.members[0].log()
    }

    /// Settles chains with all members.
    pub(crate) fn settle(&mut self, chains: Vec<Chain>) -> Option<Finality> {
        let committee = self.members[0].ledger().committee.clone();
        let mut settler = Settler::new(committee, chains).unwrap();
        for _ in 0..3 {
            for (member, message) in settler.messages() {
                self.send(member, message);
            }
            for (_, answer) in std::mem::take(&mut self.answers) {
                settler.answer(&answer);
            }
        }
        settler.finality()
    }

    pub(crate) fn posted(&self, owner: u64) -> i128 {
        let ledger = self.members[0].ledger();
        ledger.account(&secret(owner).key()).map_or(0, |account| account.posted)
    }

    pub(crate) fn device(&self, device: u64) -> Device {
        let committee = self.members[0].ledger().committee.clone();
        Device::open(committee, secret(device), []).unwrap()
    }

    pub(crate) fn receiver(&self, owner: u64) -> Receiver {
        let committee = self.members[0].ledger().committee.clone();
        Receiver::open(committee, payee(owner), []).unwrap()
    }
}

/// An account and its device for payments.
pub(crate) fn payee(owner: u64) -> Payee {
    Payee { account: secret(owner).key(), device: secret(owner + 500).key() }
}

/// The lane of a grant.
pub(crate) fn lane(granted: &CertifiedEntry) -> LaneId {
    granted.grant().expect("it is a grant").0
}
