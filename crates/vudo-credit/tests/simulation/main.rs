//! A committee, wallets and everything that can go wrong between them, in one thread under one
//! seed.
//!
//! Each run has a phase with faults, in which the oracle checks every step, and then a phase in
//! which the network heals and progress is demanded.

mod client;
mod liars;
mod oracle;
mod world;

use std::time::Instant;

use vudo_testkit::{Random, run_seeds};
use world::{Outcome, Setting, World};

/// How many seeds are run by default, for each size of the committee.
const FOUR_MEMBER_SEEDS: u64 = 240;
const SEVEN_MEMBER_SEEDS: u64 = 60;

/// How many seeds are tried until too many liars have broken something.
const TOO_MANY_LIARS_SEEDS_MAX: u64 = 200;

/// What the runs did in all, so that nobody has to believe that something happened.
#[derive(Default)]
struct Totals {
    steps: u64,
    payments: u64,
    equivocations: u64,
    crashes: u64,
    final_heads: u64,
    closed_lanes: u64,
    losses: u64,
    live_runs: u64,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        self.steps += outcome.steps;
        self.payments += outcome.payments;
        self.equivocations += outcome.equivocations;
        self.crashes += outcome.crashes;
        self.final_heads += outcome.final_heads;
        self.closed_lanes += outcome.closed_lanes;
        self.losses += u64::from(outcome.loss > 0);
        self.live_runs += u64::from(outcome.is_live);
    }
}

#[test]
fn four_members_keep_every_invariant_and_settle_honest_deposits() {
    run_all("four members", 4, FOUR_MEMBER_SEEDS);
}

#[test]
fn seven_members_keep_every_invariant_and_settle_honest_deposits() {
    run_all("seven members", 7, SEVEN_MEMBER_SEEDS);
}

fn run_all(test: &str, member_count: u64, default_count: u64) {
    let start = Instant::now();
    let mut totals = Totals::default();
    let count = run_seeds(test, default_count, |seed| {
        let mut random = Random::new(seed);
        let setting = Setting::random(member_count, &mut random);
        let outcome = World::new(setting.clone(), random).run();
        let faults = [&outcome.violations[..], &outcome.stalls].concat();
        assert_eq!(faults, Vec::<String>::new(), "{setting:?}");
        totals.add(&outcome);
    });
    let Totals { steps, payments, equivocations, crashes, .. } = totals;
    let Totals { final_heads, closed_lanes, losses, live_runs, .. } = totals;
    println!(
        "{test}, {count} seeds: {steps} steps, {payments} payments, {equivocations} lanes spent \
         twice, {crashes} crashes, {final_heads} final lanes, {closed_lanes} lanes closed, \
         {losses} runs with a loss, {live_runs} runs with progress demanded, in {:?}",
        start.elapsed()
    );
    if count >= default_count {
        assert!(payments > 4 * count && crashes > count && final_heads > count);
        assert!(equivocations > count / 10 && closed_lanes > 3 * count);
        assert!(losses > 0 && live_runs > count / 2);
    }
}

/// The test of the test: with one liar more than may be, the oracle finds what they did.
#[test]
fn one_liar_too_many_breaks_an_invariant() {
    let broken = (0..TOO_MANY_LIARS_SEEDS_MAX).find_map(|seed| {
        let mut random = Random::new(seed);
        let setting = Setting::too_many_liars(&mut random);
        let outcome = World::new(setting, random).run();
        outcome.violations.first().map(|violation| (seed, violation.clone()))
    });
    let (seed, violation) = broken.expect("f + 1 liars break an invariant");
    println!("f + 1 liars, seed {seed}: {violation}");
}
