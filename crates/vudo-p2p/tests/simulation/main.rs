//! Replicas with the real engine and the real protocol, on a simulated network and on simulated
//! disks, under one seed. Every fourth seed or so has the native storage on files that crashes tear.
//!
//! Each seed has two phases. While there are faults, nobody may break a promise: what was
//! acknowledged is there after a crash, sessions end for no reason but silence, and equal vectors
//! mean equal states. Once they have ended, everybody must come to hold everything.
//!
//! `VUDO_HISTORIES` says how many seeds, `VUDO_SEED` replays a single one.

mod disk;
#[path = "../../../vudo-state/tests/common/on_disk.rs"]
mod on_disk;
mod presence;
mod replica;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use vudo_crdt::ReplicaKey;
use vudo_state::{RightsRecord, SignedRecord};
use vudo_testkit::{Conditions, Microseconds, run_seeds};

use disk::Disks;
use replica::Acknowledged;
use world::{Omission, World};

const SECOND: Microseconds = 1_000_000;
const TROUBLE: Microseconds = 8 * SECOND;
/// How long healing may take at most.
const HEALING: Microseconds = 40 * SECOND;
const CYCLE_COUNT: usize = 1_000;

/// Worlds of one kind, each of which has its trouble and heals.
struct Suite {
    name: &'static str,
    seed_count: u64,
    /// Makes the world of a seed, before its trouble.
    make: fn(u64) -> World,
}

const PLAIN: Suite =
    Suite { name: "simulation", seed_count: 300, make: |seed| plain(seed, Omission::Nothing) };
const REVOCATIONS: Suite =
    Suite { name: "revocations in flight", seed_count: 100, make: with_revocations };
const OWNER_COMPACTIONS: Suite =
    Suite { name: "compactions with owners", seed_count: 100, make: with_owner_compactions };
const FORKS: Suite = Suite { name: "forks", seed_count: 150, make: with_copies };
const COMPACTIONS: Suite = Suite { name: "compactions", seed_count: 100, make: with_compactions };
const PRESENCE: Suite = Suite { name: "presence", seed_count: 100, make: with_presence };

fn plain(seed: u64, omission: Omission) -> World {
    World::new(3 + (seed % 14) as usize, seed, omission)
}

fn with_revocations(seed: u64) -> World {
    let mut world = World::with_owners(4 + (seed % 5) as usize, seed);
    world.plan_revocations(TROUBLE);
    world
}

fn with_owner_compactions(seed: u64) -> World {
    let mut world = with_revocations(seed);
    world.plan_compactions(TROUBLE, 1);
    world
}

fn with_copies(seed: u64) -> World {
    let mut world = World::new(5 + (seed % 5) as usize, seed, Omission::Nothing);
    world.plan_copies(TROUBLE);
    world
}

fn with_compactions(seed: u64) -> World {
    let mut world = World::new(4 + (seed % 5) as usize, seed, Omission::Nothing);
    world.plan_compactions(TROUBLE, 3);
    world
}

fn with_presence(seed: u64) -> World {
    let mut world = World::new(3 + (seed % 6) as usize, seed, Omission::Nothing);
    world.plan_presence(TROUBLE);
    world
}

impl Suite {
    /// Runs every seed and has its world looked at when it has healed. Gives how many seeds there were.
    fn run(&self, mut look: impl FnMut(World)) -> u64 {
        let mut on_files_count = 0;
        let count = run_seeds(self.name, self.seed_count, |seed| {
            let mut world = (self.make)(seed);
            trouble(&mut world);
            assert_converged(&world);
            on_files_count += u64::from(world.is_on_files);
            look(world);
        });
        println!("{}: {on_files_count} of {count} seeds on files that crashes tear", self.name);
        assert!(on_files_count >= count / 10, "hardly any seed ran on files");
        count
    }
}

/// Lets a world have its trouble, and heals it.
fn trouble(world: &mut World) {
    let random = &mut world.random;
    world.network.conditions = Conditions {
        delay: (100, random.between(500, 120_000)),
        loss_percent: random.below(25) as u8,
        duplication_percent: random.below(10) as u8,
    };
    world.add_random_links();
    world.plan_trouble(TROUBLE);
    world.run_until(TROUBLE, |_| false);
    world.heal();
    let until = world.now() + HEALING;
    let mut next_look = 0;
    world.run_until(until, |world| {
        // Looking is not free, and the exact moment does not matter.
        let is_time = world.now() >= next_look;
        next_look = if is_time { world.now() + SECOND / 20 } else { next_look };
        is_time && world.is_converged()
    });
}

/// Everybody holds every acknowledged change, and the same state.
fn assert_converged(world: &World) {
    assert!(world.is_converged(), "not everybody holds everything after healing");
    let state = |replica: &replica::Replica| replica.replication().fingerprint().unwrap();
    let first = state(&world.replicas[0]);
    let acknowledged: Acknowledged =
        world.replicas.iter().flat_map(|replica| replica.acknowledged().clone()).collect();
    let is_covered = |(key, written): &(&String, &(ReplicaKey, u64))| {
        world.replicas[0].is_covered(key, **written)
    };
    // Each of them gave one vote.
    let votes_least = acknowledged.iter().filter(is_covered).count() as i64;
    let votes_most = world.replicas.iter().map(|replica| replica.attempt_count() as i64).sum();
    for replica in &world.replicas {
        assert_eq!(state(replica), first);
        replica.assert_holds(&acknowledged, "after healing");
        let total = replica.vote_total();
        assert!((votes_least..=votes_most).contains(&total), "{votes_least} {total} {votes_most}");
    }
}

#[test]
fn every_seed_converges_with_nothing_acknowledged_lost() {
    let (mut change_count, mut replica_count) = (0, 0);
    let count = PLAIN.run(|world| {
        replica_count += world.replicas.len();
        change_count += world.replicas[0].replication().durable_vector().change_count();
    });
    println!("simulation: {replica_count} replicas, {change_count} changes");
    assert!(change_count >= 5 * count, "only {change_count} changes in {count} seeds");
}

/// How many changes are set aside, which is the same of each writer on every replica.
fn set_aside_everywhere(world: &World) -> u64 {
    let set_aside = |replica: &replica::Replica| -> Vec<u64> {
        let keys = world.replicas.iter().map(replica::Replica::key);
        keys.map(|key| replica.replication().set_aside_count(&key)).collect()
    };
    let first = set_aside(&world.replicas[0]);
    assert!(world.replicas.iter().all(|replica| set_aside(replica) == first));
    first.iter().sum()
}

/// Owners revoke while changes of those whom they revoke are on their way, while the network parts and
/// stores crash. What each cut accepts is everywhere in the end, and nothing above it.
#[test]
fn revocations_in_flight_end_in_the_same_judgement_everywhere() {
    let (mut change_count, mut aside_count) = (0, 0);
    let count = REVOCATIONS.run(|world| {
        aside_count += set_aside_everywhere(&world);
        change_count += world.replicas[0].replication().durable_vector().change_count();
    });
    println!("revocations in flight: {count} seeds, {aside_count} of {change_count} set aside");
    assert!(aside_count > count / 2, "hardly anything was set aside");
}

/// The same with an owner that compacts its log meanwhile, which judges for good: a revocation that it has
/// not heard of does not reach below.
#[test]
fn an_owner_compacts_while_revocations_are_in_flight() {
    let (mut catch_up_count, mut aside_count, mut checkpoint_count) = (0, 0, 0);
    let count = OWNER_COMPACTIONS.run(|world| {
        aside_count += set_aside_everywhere(&world);
        catch_up_count += world.catch_up_count;
        let rights = world.replicas[1].replication().access_rights().expect("it has owners");
        let is_checkpoint =
            |record: &&SignedRecord| matches!(record.record(), RightsRecord::Checkpoint(_));
        checkpoint_count += rights.records().filter(is_checkpoint).count() as u64;
    });
    println!(
        "compactions with owners: {count} seeds, {checkpoint_count} checkpoints, {aside_count} changes \
         set aside, {catch_up_count} times somebody caught up"
    );
    assert!(checkpoint_count > count && aside_count > count / 4 && catch_up_count > count / 4);
}

/// Stores are copied with their keys, and both go on. Each of them gets a key of its own when it learns
/// of the other, and what either wrote is everywhere in the end, once.
#[test]
fn forks_end_in_one_log_everywhere() {
    let mut taken_count = 0;
    let count = FORKS.run(|world| taken_count += world.taken_count);
    println!("forks: {count} seeds, {taken_count} branches took the place of others");
    assert!(taken_count > count, "hardly any branch took the place of another one");
}

/// Up to three replicas compact their logs, again and again. Whoever lacks what one of them has dropped
/// goes on from its checkpoint, also where it has dropped what the other one lacks.
#[test]
fn whoever_is_behind_a_compacted_log_goes_on_from_its_checkpoint() {
    let mut catch_up_count = 0;
    let count = COMPACTIONS.run(|world| catch_up_count += world.catch_up_count);
    println!("compactions: {count} seeds, {catch_up_count} times somebody caught up");
    assert!(catch_up_count > count / 4, "hardly anybody was behind");
}

/// Replicas show something, then something else or nothing, while the network parts and stores crash. In the
/// end everybody sees what each of the others shows, over whatever way they hear of it.
#[test]
fn who_is_present_is_seen_by_everybody_in_the_end() {
    let (mut seen_count, mut waited) = (0, 0);
    let count = PRESENCE.run(|mut world| {
        let healed = world.now();
        // What nobody renews any more ends by itself.
        let is_seen = world.run_until(healed + HEALING, World::is_presence_converged);
        assert!(is_seen, "somebody does not see what another one shows");
        waited = waited.max(world.now() - healed);
        seen_count += world.room.expect("it was planned").seen_count;
    });
    let seconds = waited as f64 / SECOND as f64;
    println!(
        "presence: {count} seeds, {seen_count} values seen, {seconds:.1} s at most until all are"
    );
    assert!(seen_count > 5 * count, "hardly anybody saw anything");
}

#[test]
fn a_seed_that_runs_twice_gives_the_same_event_log() {
    let on_files = |seed: &u64| Disks::of_seed(*seed).are_files();
    let first_on_files: Vec<u64> = (0..).filter(on_files).take(2).collect();
    for suite in [PLAIN, REVOCATIONS, OWNER_COMPACTIONS, FORKS, COMPACTIONS, PRESENCE] {
        let log_of = |seed: u64| {
            let mut world = (suite.make)(seed);
            world.record();
            trouble(&mut world);
            world.take_log()
        };
        for seed in [3, 17, 40].iter().chain(&first_on_files) {
            let (log, again) = (log_of(*seed), log_of(*seed));
            assert!(log.len() > 500, "{}, seed {seed}: {} events", suite.name, log.len());
            let difference = log.iter().zip(&again).find(|(one, other)| one != other);
            let lengths = (log.len(), again.len());
            assert_eq!((difference, lengths.0), (None, lengths.1), "{}, seed {seed}", suite.name);
        }
    }
}

/// Without what it relies on the protocol must fail, or the simulation would prove nothing.
#[test]
fn seeds_fail_without_retransmission_and_without_resuming_from_acknowledgements() {
    const SEEDS: u64 = 20;
    for omission in [Omission::Retransmission, Omission::ResumingFromAcknowledgements] {
        let fails = |seed: &u64| {
            let check = || {
                let mut world = plain(*seed, omission);
                trouble(&mut world);
                assert_converged(&world);
            };
            catch_unwind(AssertUnwindSafe(check)).is_err()
        };
        let failed_count = (0..SEEDS).filter(fails).count();
        println!("simulation: {failed_count} of {SEEDS} seeds fail without {omission:?}");
        assert!(failed_count * 2 > SEEDS as usize, "{omission:?} is not missed");
    }
}

#[test]
fn a_thousand_cycles_of_going_offline_and_online_lose_nothing() {
    let mut world = World::new(3, 1, Omission::Nothing);
    world.add_link(0, 1);
    world.add_link(2, 1);
    for _ in 0..CYCLE_COUNT {
        world.go_offline();
        for _ in 0..2 {
            let replica = world.random.below(3);
            world.write(replica);
        }
        world.go_online();
        // The connections drop in the middle of whatever is going on.
        let until = world.now() + world.random.between(0, SECOND / 4);
        world.run_until(until, |_| false);
    }
    world.heal();
    let until = world.now() + HEALING;
    world.run_until(until, World::is_converged);
    assert_converged(&world);
    let held = world.replicas[0].replication().durable_vector().change_count();
    assert_eq!(held as usize, 2 * CYCLE_COUNT, "every write was acknowledged and is held");
    println!("simulation: {CYCLE_COUNT} cycles, {held} changes");
}
