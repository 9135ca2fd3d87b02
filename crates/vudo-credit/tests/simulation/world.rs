//! The world: nodes, the network between them, their disks, and what happens when.

use std::collections::BTreeSet;

use vudo_credit::keys::remember_signatures;
use vudo_credit::operation::Action;
use vudo_credit::wire::Wire;
use vudo_credit::{
    DEFAULT_TIERS, Digest, Effect, Event, Genesis, LaneId, LaneStatus, Ledger, Member, Message,
    Party, Secret, audit,
};
use vudo_testkit::{Conditions, CrashingDisk, Microseconds, Network, Random, Scheduler};

use crate::client::{self, Client};
use crate::liars::{Conflicter, Equivocator, Forger, Identity, Liar, Nuller};
use crate::oracle::Oracle;

const MILLISECOND: Microseconds = 1_000;
/// Until here nothing goes wrong, so that accounts are open.
const CALM_UNTIL: Microseconds = 500 * MILLISECOND;
/// Where only the network is to be split, it is from here on.
const SPLIT_FROM: Microseconds = 1_000 * MILLISECOND;
/// From here on nothing goes wrong any more, and nobody spends.
const HEALED_FROM: Microseconds = 2_400 * MILLISECOND;
/// Ticks pass again from here on.
const TICKS_FROM: Microseconds = 4_000 * MILLISECOND;
const END: Microseconds = 7_600 * MILLISECOND;
const TICK: Microseconds = 250 * MILLISECOND;
const CLIENTS: usize = 3;
/// The client that is the operator.
const OPERATOR: usize = CLIENTS;
/// What each account may owe.
const LIMIT: u64 = 100;

/// A key that a number names. Members are numbered from 0, owners from 100, devices from 200.
pub(crate) fn secret(number: u64) -> Secret {
    Secret::from_seed(Digest::of("test/secret", &[&number.to_be_bytes()]).0)
}

/// How a member misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    Equivocator,
    Nuller,
    Conflicter,
    Forger,
    /// Two honest copies of one key that know nothing of each other.
    Twin,
}

const FAULTS: [Fault; 5] =
    [Fault::Equivocator, Fault::Nuller, Fault::Conflicter, Fault::Forger, Fault::Twin];

/// Who takes part.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    member_count: u64,
    faulty: Vec<(u8, Fault)>,
    has_twin_device: bool,
    /// Whether the network is always in two parts, which then hear of different spends.
    is_split: bool,
}

impl Setting {
    pub(crate) fn random(member_count: u64, random: &mut Random) -> Setting {
        let faulty_max = (member_count as usize - 1) / 3;
        let mut faulty = Vec::new();
        // Most runs keep the sequencer honest, so that progress can be demanded.
        let first = if random.one_in(8) { 0 } else { 1 };
        let mut places: Vec<u8> = (first..member_count as u8).collect();
        for _ in 0..random.below(faulty_max + 1) + usize::from(random.one_in(2)) {
            if faulty.len() < faulty_max {
                let place = places.swap_remove(random.below(places.len()));
                faulty.push((place, FAULTS[random.below(FAULTS.len())]));
            }
        }
        let has_twin_device = random.one_in(2);
        Setting { member_count, faulty, has_twin_device, is_split: false }
    }

    pub(crate) fn too_many_liars(random: &mut Random) -> Setting {
        let member_count = if random.one_in(4) { 7 } else { 4 };
        let liar_count = (member_count as u8 - 1) / 3 + 1;
        let faulty = (1..=liar_count).map(|place| (place, Fault::Equivocator)).collect();
        Setting { member_count, faulty, has_twin_device: true, is_split: true }
    }

    fn fault(&self, place: u8) -> Option<Fault> {
        self.faulty.iter().find(|(faulty, _)| *faulty == place).map(|(_, fault)| *fault)
    }
}

/// What a run did.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Invariants that broke.
    pub(crate) violations: Vec<String>,
    /// Progress that was demanded and did not come.
    pub(crate) stalls: Vec<String>,
    pub(crate) steps: u64,
    pub(crate) payments: u64,
    pub(crate) equivocations: u64,
    pub(crate) crashes: u64,
    pub(crate) final_heads: u64,
    pub(crate) closed_lanes: u64,
    pub(crate) loss: u128,
    pub(crate) is_live: bool,
}

/// What runs at a place of the committee.
enum Mind {
    Honest { member: Box<Member>, disk: CrashingDisk },
    Liar(Box<dyn Liar>),
}

struct Node {
    place: u8,
    mind: Mind,
}

enum Occurrence {
    Deliver { from: Party, to: usize, bytes: Vec<u8> },
    Strike(usize),
    Step(usize),
    Tick,
    Trouble,
    Heal,
}

pub(crate) struct World {
    setting: Setting,
    genesis: Genesis,
    random: Random,
    scheduler: Scheduler<Occurrence>,
    network: Network,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    oracle: Oracle,
    clock: u64,
    outcome: Outcome,
    /// Lanes of honest devices that took deposits when the network was well again.
    owed: BTreeSet<LaneId>,
}

impl World {
    pub(crate) fn new(setting: Setting, random: Random) -> World {
        let operator = secret(100 + OPERATOR as u64).key();
        let mut tiers = DEFAULT_TIERS.to_vec();
        // Everything may be reserved, so that double spends can cost more than is free.
        tiers[5].allowance_thousandths = 1000;
        let genesis = Genesis {
            name: "simulation".to_owned(),
            members: (0..setting.member_count).map(|member| secret(member).key()).collect(),
            sequencer: 0,
            operators: vec![operator],
            reserve: secret(99).key(),
            tiers,
            settle_window_ticks: 10,
        };
        let mut nodes = Vec::new();
        for place in 0..setting.member_count as u8 {
            let fault = setting.fault(place);
            nodes.push(node(&genesis, place, fault));
            if fault == Some(Fault::Twin) {
                nodes.push(node(&genesis, place, fault));
            }
        }
        let twin = |number| setting.has_twin_device && number == 0;
        let clients =
            (0..=OPERATOR).map(|number| Client::new(number as u64, &genesis, twin(number)));
        let clients: Vec<Client> = clients.collect();
        let network = Network::new(nodes.len() + clients.len());
        let mut oracle = Oracle::new(genesis.network());
        oracle.twin = setting.has_twin_device.then(|| clients[0].wallet.device().key());
        let is_live = setting.fault(0).is_none();
        let outcome = Outcome { is_live, ..Outcome::default() };
        World {
            setting,
            genesis,
            random,
            scheduler: Scheduler::default(),
            network,
            nodes,
            clients,
            oracle,
            clock: 0,
            outcome,
            owed: BTreeSet::new(),
        }
    }

    pub(crate) fn run(mut self) -> Outcome {
        remember_signatures();
        self.prepare();
        while let Some(occurrence) = self.scheduler.next_event() {
            if self.scheduler.now() > END || !self.oracle.violations.is_empty() {
                break;
            }
            self.outcome.steps += 1;
            self.occur(occurrence);
        }
        self.finish();
        self.outcome
    }

    fn is_healed(&self) -> bool {
        self.scheduler.now() >= HEALED_FROM
    }

    fn prepare(&mut self) {
        self.clients[OPERATOR].ask(Action::Open);
        for number in 0..CLIENTS {
            self.clients[number].ask(Action::Open);
        }
        for number in 0..=OPERATOR {
            let account = self.clients[number].account();
            let limit = Action::SetLimit { account, tier: 5, limit: LIMIT };
            self.clients[OPERATOR].ask(limit);
        }
        if self.random.one_in(2) {
            let account = self.clients[0].account();
            self.clients[1].ask(Action::Pledge { account, amount: 30 });
        }
        if self.random.one_in(2) {
            self.clients[OPERATOR].ask(Action::FundReserve { amount: 20 });
        }
        for node in 0..self.nodes.len() {
            self.scheduler.schedule(node as u64 * 7 * MILLISECOND, Occurrence::Strike(node));
        }
        for client in 0..self.clients.len() {
            self.scheduler.schedule(client as u64 * 3 * MILLISECOND, Occurrence::Step(client));
        }
        self.scheduler.schedule(CALM_UNTIL, Occurrence::Tick);
        self.scheduler.schedule(CALM_UNTIL, Occurrence::Trouble);
        self.scheduler.schedule(HEALED_FROM, Occurrence::Heal);
    }

    fn occur(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Deliver { from, to, bytes } => {
                let message = Message::from_bytes(&bytes).expect("what is sent can be read");
                if let Some(client) = to.checked_sub(self.nodes.len()) {
                    self.deliver_to_client(client, from, message);
                } else {
                    self.deliver_to_node(to, from, message);
                }
            }
            Occurrence::Strike(node) => {
                self.scheduler.schedule(200 * MILLISECOND, Occurrence::Strike(node));
                self.strike(node);
            }
            Occurrence::Step(client) => {
                let slower = if self.is_healed() { 3 } else { 1 };
                let pause = slower * self.random.between(30, 60) * MILLISECOND;
                self.scheduler.schedule(pause, Occurrence::Step(client));
                self.step(client);
            }
            Occurrence::Tick => {
                self.scheduler.schedule(TICK, Occurrence::Tick);
                let now = self.scheduler.now();
                if !(HEALED_FROM..TICKS_FROM).contains(&now) {
                    self.clock += 1;
                }
            }
            Occurrence::Trouble => {
                if !self.is_healed() {
                    self.scheduler.schedule(200 * MILLISECOND, Occurrence::Trouble);
                    self.trouble();
                }
            }
            Occurrence::Heal => self.heal(),
        }
    }

    fn trouble(&mut self) {
        if self.setting.is_split {
            if self.scheduler.now() > SPLIT_FROM {
                self.network.partition(2, &mut self.random);
            }
            return;
        }
        self.network.conditions = Conditions {
            delay: (MILLISECOND, self.random.between(2, 80) * MILLISECOND),
            loss_percent: self.random.below(25) as u8,
            duplication_percent: self.random.below(25) as u8,
        };
        match self.random.below(4) {
            0 => self.network.partition(2, &mut self.random),
            1 => {
                let conditions = self.network.conditions.clone();
                self.network.heal();
                self.network.conditions = conditions;
            }
            _ => {}
        }
        let node = self.random.below(self.nodes.len());
        let reaches_disk = self.random.one_in(2);
        if let Mind::Honest { disk, .. } = &self.nodes[node].mind {
            disk.power_off_during_commit(self.random.below(3) as u64, reaches_disk);
        }
        let client = self.random.below(CLIENTS);
        match self.random.below(4) {
            0 => self.clients[client].lose_power_at_next_write(reaches_disk),
            1 => {
                self.clients[client].crash();
                self.outcome.crashes += 1;
            }
            _ => {}
        }
    }

    fn heal(&mut self) {
        self.network.heal();
        for node in &self.nodes {
            if let Mind::Honest { disk, .. } = &node.mind {
                disk.power_on();
            }
        }
        for client in &mut self.clients {
            client.crash();
            client.ask_no_more();
        }
        let furthest = self.honest_members().max_by_key(|member| member.ledger().next_index());
        let Some(ledger) = furthest.map(|member| member.ledger()) else { return };
        let twin = self.oracle.twin;
        let lanes = ledger.lanes().iter();
        // What was deposited by `settle_by` is settled in every run: the oracle sees to that. Here it
        // is asked for that everything becomes deposited that still can: where the clocks have gone
        // past `settle_by`, the log, which may lag behind them, ends the lane before anybody gets
        // around to it, and no promise is broken.
        let owed = lanes.filter(|(_, lane)| {
            let is_in_time = lane.grant.settle_by >= self.clock;
            is_in_time && lane.status == LaneStatus::Open && Some(lane.grant.device) != twin
        });
        self.owed = owed.map(|(id, _)| *id).collect();
    }

    fn honest_members(&self) -> impl Iterator<Item = &Member> {
        let setting = &self.setting;
        self.nodes.iter().filter_map(move |node| match &node.mind {
            Mind::Honest { member, .. } if setting.fault(node.place).is_none() => Some(&**member),
            _ => None,
        })
    }

    fn send(&mut self, from: usize, party: Party, to: Party, message: &Message) {
        let bytes = message.to_bytes();
        let receivers: Vec<usize> = match to {
            Party::Member(place) => {
                (0..self.nodes.len()).filter(|node| self.nodes[*node].place == place).collect()
            }
            Party::Client(client) => vec![self.nodes.len() + client as usize],
        };
        for receiver in receivers {
            for delay in self.network.deliveries(from, receiver, &mut self.random) {
                let bytes = bytes.clone();
                let deliver = Occurrence::Deliver { from: party, to: receiver, bytes };
                self.scheduler.schedule(delay, deliver);
            }
        }
    }

    fn deliver_to_node(&mut self, node: usize, from: Party, message: Message) {
        let place = self.nodes[node].place;
        match &mut self.nodes[node].mind {
            Mind::Liar(liar) => {
                for (to, message) in liar.receive(from, message) {
                    self.send(node, Party::Member(place), to, &message);
                }
            }
            Mind::Honest { .. } => self.handle(node, Event::Message { from, message }),
        }
    }

    fn strike(&mut self, node: usize) {
        let place = self.nodes[node].place;
        let clock = self.clock;
        match &mut self.nodes[node].mind {
            Mind::Liar(liar) => {
                for (to, message) in liar.strike(clock) {
                    self.send(node, Party::Member(place), to, &message);
                }
            }
            Mind::Honest { .. } => {
                self.handle(node, Event::Clock(clock));
                self.handle(node, Event::Retry);
            }
        }
    }

    /// An honest member goes a step: writes, then sends. Where the power goes in between, nothing
    /// is sent, and it opens again from what it wrote.
    fn handle(&mut self, node: usize, event: Event) {
        let place = self.nodes[node].place;
        let Mind::Honest { member, disk } = &mut self.nodes[node].mind else { return };
        let effects = member.handle(event);
        let mut sends = Vec::new();
        for effect in effects {
            match effect {
                Effect::Persist(writes) => {
                    if disk.commit(&writes).is_err() {
                        disk.power_on();
                        self.outcome.crashes += 1;
                        **member = open_member(&self.genesis, place, disk);
                        return;
                    }
                }
                Effect::Send { to, message } => sends.push((to, message)),
            }
        }
        self.oracle.check_member(node, member);
        let is_honest = self.setting.fault(place).is_none();
        for (to, message) in sends {
            if let Message::Answer(answer) = &message
                && is_honest
            {
                self.oracle.note_answer(place, answer);
            }
            self.send(node, Party::Member(place), to, &message);
        }
    }

    fn deliver_to_client(&mut self, client: usize, from: Party, message: Message) {
        let Party::Member(member) = from else { return };
        match self.clients[client].handle(member, message, &mut self.oracle) {
            Ok(sends) => {
                let (node, party) = self.client_place(client);
                for (to, message) in sends {
                    self.send(node, party, to, &message);
                }
            }
            Err(_) => self.outcome.crashes += 1,
        }
    }

    /// Where a client is in the network, and how members see it.
    fn client_place(&self, client: usize) -> (usize, Party) {
        (self.nodes.len() + client, Party::Client(client as u64))
    }

    /// A client does something: pays, asks, settles, or waits.
    fn step(&mut self, client: usize) {
        self.clients[client].request();
        if client != OPERATOR {
            if !self.is_healed() && self.scheduler.now() > CALM_UNTIL {
                match self.random.below(10) {
                    0..6 => self.pay(client),
                    6 => self.ask_for_lane(client),
                    _ => {}
                }
            }
            if self.is_healed() || self.random.one_in(3) {
                let with_own = self.is_healed() || self.random.one_in(3);
                let chains = self.clients[client].signed_chains();
                chains.iter().for_each(|chain| self.oracle.note_chain(chain));
                self.clients[client].settle(with_own, &mut self.oracle);
            }
        }
        let (node, party) = self.client_place(client);
        let probed = self.random.below(self.setting.member_count as usize) as u8;
        // Once the network is well, a wallet that never sends would be owed nothing.
        let settles = self.is_healed() || self.random.one_in(3);
        for (member, message) in self.clients[client].wallet.retry() {
            let is_sent = match message {
                Message::Submit(_) => true,
                Message::Want { from } => from != u64::MAX || member == probed,
                _ => settles,
            };
            if is_sent {
                self.send(node, party, Party::Member(member), &message);
            }
        }
    }

    fn ask_for_lane(&mut self, client: usize) {
        let person = &mut self.clients[client];
        if person.is_asking() || person.wallet.device().spendable() > 60 {
            return;
        }
        let other = (client + 1) % CLIENTS;
        let payee = self.random.one_in(5).then(|| client::payee(other as u64));
        let amount = self.random.between(20, 80);
        // Who means to spend it twice has all of it reserved, so that nothing is left to pay with.
        let amount = if person.twin.is_some() { person.headroom().max(1) } else { amount };
        let terms = person.terms(amount, payee);
        person.ask(Action::Grant(terms));
    }

    /// Two people meet; no network is needed.
    fn pay(&mut self, client: usize) {
        let payee = (client + 1 + self.random.below(CLIENTS - 1)) % CLIENTS;
        let amount = self.random.between(1, 20);
        let Ok(invoice) = self.clients[payee].invoice(&mut self.random, amount) else {
            self.outcome.crashes += 1;
            return;
        };
        let with_twin = self.random.one_in(2);
        let paid = self.clients[client].pay(&invoice, with_twin);
        let payment = match paid {
            Ok(Some(payment)) => payment,
            Ok(None) => return,
            Err(_) => {
                self.outcome.crashes += 1;
                return;
            }
        };
        self.oracle.note_chain(&payment.chain);
        match self.clients[payee].receive(&payment) {
            Ok(true) => self.outcome.payments += 1,
            Ok(false) => {}
            Err(_) => self.outcome.crashes += 1,
        }
    }

    /// After the end: what was promised has been kept.
    fn finish(&mut self) {
        let mut outcome = std::mem::take(&mut self.outcome);
        let members: Vec<&Member> = self.honest_members().collect();
        let furthest = members.iter().max_by_key(|member| member.ledger().next_index());
        let Some(member) = furthest else { return };
        let (mut violations, mut stalls) = (Vec::new(), Vec::new());
        if let Err(error) = audit(&self.genesis, member.log()) {
            violations.push(error.to_string());
        }
        let ledger = member.ledger();
        for (id, lane) in ledger.lanes() {
            outcome.equivocations += u64::from(lane.has_equivocated);
            if let LaneStatus::Closed { loss } = lane.status {
                outcome.closed_lanes += 1;
                outcome.loss += loss;
                let payees = CLIENTS as u128 - 1;
                if loss > (payees - 1) * u128::from(lane.grant.allocated) {
                    violations.push(format!("lane {} lost {loss}", id.0));
                }
                let is_twin = Some(lane.grant.device) == self.oracle.twin;
                if (loss > 0 || lane.has_equivocated) && !is_twin {
                    violations.push(format!("lane {} was disputed for nothing", id.0));
                }
            } else if outcome.is_live {
                let status = lane.status;
                stalls.push(format!("lane {} was never closed: {status:?}", id.0));
            }
        }
        if outcome.is_live {
            stalls.extend(self.unpaid(ledger));
            let indexes: BTreeSet<u64> =
                members.iter().map(|member| member.ledger().next_index()).collect();
            if indexes.len() > 1 {
                stalls.push(format!("members have not caught up: {indexes:?}"));
            }
        }
        outcome.final_heads = self.oracle.final_count();
        if !self.oracle.violations.is_empty() {
            violations = std::mem::take(&mut self.oracle.violations);
        }
        outcome.violations = violations;
        outcome.stalls = stalls;
        self.outcome = outcome;
    }

    /// Lanes of honest devices that could still be deposited, and are not settled to the end.
    fn unpaid(&self, ledger: &Ledger) -> Vec<String> {
        let mut unpaid = Vec::new();
        for client in &self.clients {
            for (id, lane) in client.wallet.device().lanes() {
                let settled = ledger.lanes()[id].settled;
                if self.owed.contains(id) && settled != *lane.head() {
                    let head = lane.head();
                    unpaid
                        .push(format!("{head:?} of an honest device is not settled: {settled:?}"));
                }
            }
        }
        unpaid
    }
}

fn open_member(genesis: &Genesis, place: u8, disk: &CrashingDisk) -> Member {
    let mut entries = Vec::new();
    let visited = disk.scan(&[0], &[0xff], &mut |key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        true
    });
    visited.expect("the power is on");
    let opened = Member::open(genesis.clone(), secret(place.into()), entries);
    opened.expect("a member opens from what it wrote")
}

fn node(genesis: &Genesis, place: u8, fault: Option<Fault>) -> Node {
    let new = || open_member(genesis, place, &CrashingDisk::default());
    let committee = genesis.committee().expect("the genesis is right");
    let last_hash = committee.network;
    let identity = Identity { committee, secret: secret(place.into()), member: place };
    let mind = match fault {
        None | Some(Fault::Twin) => {
            Mind::Honest { member: Box::new(new()), disk: CrashingDisk::default() }
        }
        Some(Fault::Nuller) => Mind::Liar(Box::new(Nuller)),
        Some(Fault::Equivocator) => Mind::Liar(Box::new(Equivocator { identity, shadow: new() })),
        Some(Fault::Conflicter) => {
            Mind::Liar(Box::new(Conflicter { identity, minds: [new(), new()] }))
        }
        Some(Fault::Forger) => Mind::Liar(Box::new(Forger {
            identity,
            operator: genesis.operators[0],
            favourite: secret(102).key(),
            next_index: 0,
            last_hash,
        })),
    };
    Node { place, mind }
}
