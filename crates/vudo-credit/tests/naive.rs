//! The ledger against a naive one: a few dozen lines that keep balances in maps and know nothing of
//! certificates, chains or drafts. Random operations, right and wrong, must be taken or refused
//! alike and leave the same balances.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::{OPERATOR, RESERVE, Town, lane, payee, secret};
use vudo_credit::operation::Action;
use vudo_credit::{Chain, Device, audit};

const PEOPLE: u64 = 3;

/// What the naive ledger knows of a person.
#[derive(Clone, Default, Debug)]
struct Person {
    posted: i128,
    limit: i128,
    pledged: i128,
    /// What others have pledged for it.
    backing: BTreeMap<usize, i128>,
}

#[derive(Clone, Debug)]
struct NaiveLane {
    owner: usize,
    allocated: i128,
    /// By payee, what has been spent and not settled.
    unsettled: BTreeMap<usize, i128>,
    settled: i128,
}

#[derive(Default, Debug)]
struct Naive {
    people: Vec<Person>,
    lanes: Vec<NaiveLane>,
}

impl Naive {
    fn reserved(&self, person: usize) -> i128 {
        let lanes = self.lanes.iter().filter(|lane| lane.owner == person);
        lanes.map(|lane| lane.allocated - lane.settled).sum()
    }

    fn headroom(&self, person: usize) -> i128 {
        let Person { posted, limit, pledged, backing } = &self.people[person];
        limit + backing.values().sum::<i128>() + posted - pledged - self.reserved(person)
    }

    fn grant(&mut self, owner: usize, allocated: i128) -> bool {
        // Tier 5 lets a grant take half of what is free.
        let is_right = allocated > 0 && allocated <= self.headroom(owner).max(0) / 2;
        if is_right {
            let unsettled = BTreeMap::new();
            self.lanes.push(NaiveLane { owner, allocated, unsettled, settled: 0 });
        }
        is_right
    }

    fn pay(&mut self, lane: usize, payee: usize, amount: i128) -> bool {
        let Some(lane) = self.lanes.get_mut(lane) else { return false };
        let spent = lane.settled + lane.unsettled.values().sum::<i128>();
        let is_right = amount > 0 && spent + amount <= lane.allocated;
        if is_right {
            *lane.unsettled.entry(payee).or_default() += amount;
        }
        is_right
    }

    fn settle(&mut self) {
        for lane in &mut self.lanes {
            for (payee, amount) in std::mem::take(&mut lane.unsettled) {
                lane.settled += amount;
                self.people[lane.owner].posted -= amount;
                self.people[payee].posted += amount;
            }
        }
    }

    fn pledge(&mut self, sponsor: usize, person: usize, amount: i128) -> bool {
        let is_right = amount > 0 && amount <= self.headroom(sponsor);
        if is_right {
            self.people[sponsor].pledged += amount;
            *self.people[person].backing.entry(sponsor).or_default() += amount;
        }
        is_right
    }

    fn unpledge(&mut self, sponsor: usize, person: usize, amount: i128) -> bool {
        let pledge = self.people[person].backing.get(&sponsor).copied().unwrap_or(0);
        let is_right = amount > 0 && amount <= pledge && amount <= self.headroom(person);
        if is_right {
            self.people[sponsor].pledged -= amount;
            *self.people[person].backing.entry(sponsor).or_default() -= amount;
        }
        is_right
    }
}

#[derive(Clone, Debug)]
enum Step {
    Limit(usize, u64),
    Grant(usize, u64),
    Pay { lane: usize, payee: usize, amount: u64 },
    Settle,
    Pledge(usize, usize, u64),
    Unpledge(usize, usize, u64),
}

fn amount() -> impl Strategy<Value = u64> {
    // Mostly small, sometimes at the limits of what an amount can be.
    prop_oneof![
        12 => 0..400_u64,
        1 => Just(u64::MAX),
        1 => Just((1 << 53) - 1),
        1 => Just(1 << 53),
        1 => (0..400_u64).prop_map(u64::wrapping_neg),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let person = 0..PEOPLE as usize;
    prop_oneof![
        1 => (person.clone(), 0..2_000_u64).prop_map(|(who, limit)| Step::Limit(who, limit)),
        2 => (person.clone(), amount()).prop_map(|(who, amount)| Step::Grant(who, amount)),
        4 => (0..6_usize, person.clone(), amount())
            .prop_map(|(lane, payee, amount)| Step::Pay { lane, payee, amount }),
        1 => Just(Step::Settle),
        1 => (person.clone(), person.clone(), amount())
            .prop_map(|(sponsor, who, amount)| Step::Pledge(sponsor, who, amount)),
        1 => (person.clone(), person, amount())
            .prop_map(|(sponsor, who, amount)| Step::Unpledge(sponsor, who, amount)),
    ]
}

fn owner(person: usize) -> u64 {
    100 + person as u64
}

/// Runs a history against both.
fn run(steps: &[Step]) {
    let mut town = Town::new(4);
    let mut naive = Naive { people: vec![Person::default(); PEOPLE as usize], lanes: Vec::new() };
    let accounts: Vec<(u64, u64)> = (0..PEOPLE).map(|one| (100 + one, 1_000)).collect();
    town.open_accounts(&accounts);
    naive.people.iter_mut().for_each(|person| person.limit = 1_000);
    // One device for each lane, so that a step names exactly one.
    let mut devices: Vec<Device> = Vec::new();
    let mut nonce = 0_u64;
    for step in steps {
        let before = town.log().len();
        let (expected, found) = match *step {
            Step::Limit(who, limit) => {
                naive.people[who].limit = i128::from(limit);
                let account = secret(owner(who)).key();
                town.request(OPERATOR, Action::SetLimit { account, tier: 5, limit });
                (true, town.log().len() > before)
            }
            Step::Grant(who, amount) => {
                let mut device = town.device(200 + devices.len() as u64);
                let terms = town.terms(owner(who), device.key(), amount, None);
                town.request(owner(who), Action::Grant(terms));
                let is_granted = town.log().len() > before;
                if is_granted {
                    let granted = town.log().last().unwrap().certified.clone();
                    assert_eq!(lane(&granted).0, before as u64);
                    device.take_grant(&granted).unwrap();
                    devices.push(device);
                }
                (naive.grant(who, i128::from(amount)), is_granted)
            }
            Step::Pay { lane, payee: who, amount } => {
                nonce += 1;
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&nonce.to_be_bytes());
                let network = town.genesis.network();
                let invoice = vudo_credit::Invoice {
                    network,
                    payee: payee(owner(who)),
                    nonce: bytes,
                    amount,
                };
                let paid = devices.get_mut(lane).is_some_and(|one| one.pay(&invoice).is_ok());
                (naive.pay(lane, who, i128::from(amount)), paid)
            }
            Step::Settle => {
                naive.settle();
                let lanes = |one: &Device| *one.lanes().keys().next().unwrap();
                let chains: Vec<Chain> =
                    devices.iter().filter_map(|one| one.chain(lanes(one))).collect();
                (true, chains.is_empty() || town.settle(chains).is_some())
            }
            Step::Pledge(sponsor, who, amount) => {
                let account = secret(owner(who)).key();
                town.request(owner(sponsor), Action::Pledge { account, amount });
                let expected = naive.pledge(sponsor, who, i128::from(amount));
                (expected, town.log().len() > before)
            }
            Step::Unpledge(sponsor, who, amount) => {
                let account = secret(owner(who)).key();
                town.request(owner(sponsor), Action::Unpledge { account, amount });
                let expected = naive.unpledge(sponsor, who, i128::from(amount));
                (expected, town.log().len() > before)
            }
        };
        assert_eq!(found, expected, "{step:?} after {naive:?}");
        for person in 0..PEOPLE as usize {
            let account = secret(owner(person)).key();
            let account = town.members[0].ledger().account(&account).unwrap();
            let naive_person = &naive.people[person];
            assert_eq!(account.posted, naive_person.posted);
            assert_eq!(account.reserved, naive.reserved(person));
            assert_eq!(account.pledged, naive_person.pledged);
            assert_eq!(account.headroom(), naive.headroom(person).max(0));
        }
        town.members[0].ledger().check_invariants().unwrap();
    }
    assert_eq!(town.posted(RESERVE), 0);
    audit(&town.genesis, town.log()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_does_what_a_naive_one_does(steps in prop::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}
