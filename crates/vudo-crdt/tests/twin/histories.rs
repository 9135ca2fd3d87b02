//! Random histories of several stores that exchange frames in any order, several times, and with
//! changes missing. In the end all of them, and the twin, must have the same state.
//!
//! `VUDO_HISTORIES` says how many, `VUDO_SEED` replays a single one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::random::Random;
use crate::store::{Changes, Packet, Shape, Store, fields};

const HISTORY_COUNT: u64 = 2_000;
const OPERATION_COUNT_MIN: u64 = 50;

/// What happened in a history.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    operations: u64,
    frames: u64,
    gaps: u64,
    reopened: u64,
}

/// Several stores and the frames between them.
struct World {
    random: Random,
    shape: Shape,
    stores: Vec<Store>,
    changes: Changes,
    in_flight: Vec<Packet>,
    tally: Tally,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        // Now and then there is so much text that tables have many chunks.
        let is_large = random.one_in(25);
        let shape = Shape {
            key_count: if is_large { 60 } else { 4 },
            text_bytes_max: if is_large { 4_000 } else { 20 },
            fields: fields(),
        };
        let store_count = 2 + random.below(4);
        let stores = (0..store_count).map(|number| Store::new(number, &mut random)).collect();
        World {
            random,
            shape,
            stores,
            changes: Changes::new(),
            in_flight: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn step(&mut self) {
        let store_index = self.random.below(self.stores.len());
        match self.random.below(21) {
            0..9 => {
                let store = &mut self.stores[store_index];
                self.tally.operations +=
                    store.transact(&mut self.random, &self.shape, &mut self.changes);
            }
            9..14 => self.send(store_index),
            14..18 => self.deliver(store_index),
            18 => self.stores[store_index].persist(&mut self.random),
            19 => self.stores[store_index].evict(&mut self.random),
            _ => {
                self.stores[store_index].reopen(&mut self.random);
                self.tally.reopened += 1;
            }
        }
    }

    /// A store packs what it believes another one lacks, which may be too much or too little.
    fn send(&mut self, from: usize) {
        let to = self.random.below(self.stores.len());
        let mut since = self.stores[to].vector();
        if self.random.one_in(5) {
            since = Default::default();
        }
        if self.random.one_in(5) {
            let ahead = self.random.pick(&self.stores).key;
            since.advance(ahead, since.get(&ahead) + 1);
        }
        self.in_flight.push(self.stores[from].packet(&since, &mut self.random));
    }

    /// A frame arrives somewhere, not necessarily where it was meant for, and may arrive again.
    fn deliver(&mut self, to: usize) {
        if self.in_flight.is_empty() {
            return;
        }
        let chosen = self.random.below(self.in_flight.len());
        let is_refused = self.stores[to].receive(&self.in_flight[chosen], &self.changes);
        self.tally.frames += 1;
        self.tally.gaps += u64::from(is_refused);
        if self.random.one_in(2) {
            self.in_flight.swap_remove(chosen);
        }
    }

    /// Everybody gets everything, and then everybody has the same.
    fn settle(&mut self) {
        let mut pairs = Vec::new();
        for from in 0..self.stores.len() {
            pairs.extend((0..self.stores.len()).map(|to| (from, to)));
        }
        self.random.shuffle(&mut pairs);
        for (from, to) in pairs {
            let since = self.stores[to].vector();
            let source = &self.stores[from];
            let frame = source.log.frame_since(&source.namespace, &since);
            let before = self.stores[to].log.change_count();
            let applied = self.stores[to].join(&frame);
            assert_eq!(applied.duplicates, 0);
            let new_changes: Vec<_> = self.stores[to].log.changes().skip(before).collect();
            let keys = self.stores[to].namespace.replicas();
            let names = new_changes.iter().map(|change| (*keys.key(change.replica), change.number));
            let fresh: Vec<_> = names.collect();
            fresh.iter().for_each(|name| self.stores[to].twin.apply(&self.changes[name]));
        }
        let bytes = self.stores[0].canonical_bytes();
        let fingerprint = self.stores[0].fingerprint();
        let vector = self.stores[0].vector();
        for store in &mut self.stores {
            assert_eq!(store.vector(), vector);
            assert!(store.canonical_bytes() == bytes, "canonical bytes differ");
            assert_eq!(store.fingerprint(), fingerprint);
            store.check(&self.shape.fields);
        }
        assert_eq!(vector.change_count(), self.changes.len() as u64);
    }
}

/// Says on a panic how to run the history again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this history failed; replay it with VUDO_SEED={}", self.0);
        }
    }
}

fn run(seed: u64) -> Tally {
    let _replay = Replay(seed);
    let mut world = World::new(seed);
    let operation_count = OPERATION_COUNT_MIN + world.random.below(50) as u64;
    while world.tally.operations < operation_count {
        world.step();
    }
    let chosen = world.random.below(world.stores.len());
    world.stores[chosen].check(&world.shape.fields.clone());
    world.settle();
    world.tally
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn random_histories_converge_to_what_the_twin_says() {
    if let Some(seed) = number_from_environment("VUDO_SEED") {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let history_count = number_from_environment("VUDO_HISTORIES").unwrap_or(HISTORY_COUNT);
    let next_seed = AtomicU64::new(0);
    let totals = [const { AtomicU64::new(0) }; 4];
    let work = || {
        loop {
            let seed = next_seed.fetch_add(1, Ordering::Relaxed);
            if seed >= history_count {
                return;
            }
            let tally = run(seed);
            let counts = [tally.operations, tally.frames, tally.gaps, tally.reopened];
            for (total, count) in totals.iter().zip(counts) {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let thread_count = std::thread::available_parallelism().map_or(1, |count| count.get());
        (0..thread_count).for_each(|_| {
            scope.spawn(work);
        });
    });
    let [operations, frames, gaps, reopened] = totals.map(|total| total.into_inner());
    println!(
        "{history_count} histories from seed 0: {operations} operations, {frames} frames, \
         {gaps} refused for a gap, {reopened} stores opened again"
    );
    assert!(operations >= history_count * OPERATION_COUNT_MIN);
    assert!(frames > 0 && gaps > 0 && reopened > 0, "the histories have become too tame");
}
