//! Crashes: a disk that loses unsynced writes, tears sectors and fails at any call, under the whole
//! engine. `VUDO_HISTORIES` says how many runs, `VUDO_SEED` replays one.
//!
//! Each transaction writes its number to two documents, and some create a third one named after it.
//! So what a store holds after a crash can be compared with the one thing it may hold: the first so
//! many transactions, whole, and at least those that were acknowledged as durable. The others are
//! what a compaction may drop, and some runs have one go on when the disk fails.
//!
//! A peer writes documents of its own, which arrive as small frames. They are held to the same.

mod common;

use std::time::Instant;

use vudo_crdt::{FieldSchema, GenSchema, Strategy, Value, ValueType};
use vudo_state::{Database, Durability, Error};
use vudo_testkit::files::{CrashingFiles, Failure};
use vudo_testkit::{Random, run_seeds};

const RUNS_BY_DEFAULT: u64 = 1_000;
/// Transactions of these numbers create a document, which nothing ever changes.
const CREATES_EVERY: i64 = 3;

fn step_gen() -> GenSchema {
    let fields = vec![
        FieldSchema::new("number", 1, Strategy::Lww, ValueType::I64),
        FieldSchema::new("load", 2, Strategy::Lww, ValueType::String),
    ];
    GenSchema::new("Step", fields)
}

/// What a transaction of this number stores beside it. Some are long, so that journals and logs
/// fill up and the tables go to disk.
fn load_of(number: i64, load_bytes_max: u64) -> String {
    let mut random = Random::new(number as u64);
    let length = match random.next_u64() % 4 {
        0 => random.next_u64() % load_bytes_max,
        _ => random.next_u64() % 50,
    };
    (0..length).map(|at| char::from(b'a' + ((number as u64 + at) % 26) as u8)).collect()
}

fn number_of(database: &Database, key: &str) -> vudo_state::Result<i64> {
    match database.read_field(&step_gen(), &database.document_id(key), "number")? {
        Some(Value::Int(number)) => Ok(number as i64),
        _ => Ok(0),
    }
}

/// Commits the next transaction and gives its number.
fn step(database: &Database, load_bytes_max: u64) -> vudo_state::Result<i64> {
    let gen_schema = step_gen();
    database.transaction(|transaction| {
        let last = transaction.read(&gen_schema, "left")?;
        let last = last.and_then(|record| match record.get("number") {
            Some(Value::Int(number)) => Some(*number as i64),
            _ => None,
        });
        let number = last.unwrap_or(0) + 1;
        for key in ["left", "right"] {
            if last.is_none() {
                transaction.create(&gen_schema, key)?;
            }
            transaction.set(&gen_schema, key, "number", number)?;
        }
        if number % CREATES_EVERY != 0 {
            return Ok(number);
        }
        let own = format!("step {number:06}");
        transaction.create(&gen_schema, &own)?;
        transaction.set(&gen_schema, &own, "number", number)?;
        transaction.set(&gen_schema, &own, "load", load_of(number, load_bytes_max))?;
        Ok(number)
    })
}

/// What a store holds, or is known to hold durably.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Transactions of its own.
    steps: i64,
    /// Documents of the peer.
    of_peer: i64,
}

/// Checks that a store holds the first so many transactions and documents of the peer, and nothing
/// else; gives how many.
fn check(database: &Database, load_bytes_max: u64) -> Held {
    let left = number_of(database, "left").expect("a store that opens can be read");
    assert_eq!(number_of(database, "right").unwrap(), left, "half a transaction is visible");
    let records = database.list(&step_gen()).expect("a store that opens can be listed");
    let of = |name: &'static str| records.iter().filter(move |one| one.key.starts_with(name));
    let (steps, of_peer) = (of("step").count() as i64, of("peer").count() as i64);
    assert_eq!(steps, left / CREATES_EVERY, "the store holds a prefix of the transactions");
    let expected = (1..=steps).map(|step| ("step", step * CREATES_EVERY));
    let expected = (1..=of_peer).map(|number| ("peer", number)).chain(expected);
    for (record, (name, number)) in of("peer").chain(of("step")).zip(expected) {
        assert_eq!(record.key, format!("{name} {number:06}"));
        assert_eq!(record.get("number"), Some(&Value::from(number)));
        let load = Value::from(load_of(number, load_bytes_max));
        assert_eq!(record.get("load"), Some(&load), "the value of {name} {number} is torn");
    }
    let replication = database.replication(database.namespace()).unwrap();
    let (_, fingerprint) = replication.fingerprint().unwrap();
    let fresh = Database::open_in_memory().unwrap();
    let target = fresh.replication(fresh.namespace()).unwrap();
    let since = vudo_crdt::VersionVector::new();
    match replication.frame_since(&since, usize::MAX) {
        Ok(frame) => {
            if let Some(frame) = frame {
                target.apply_frame(&frame.bytes).unwrap();
            }
            assert_eq!(target.fingerprint().unwrap().1, fingerprint, "log and tables agree");
        }
        Err(Error::Compacted { .. }) => {
            let of_log = database.snapshot().unwrap().list(&step_gen()).unwrap();
            assert_eq!(of_log, records, "what is retained of the log and the tables agree");
            assert_eq!(database.verify().unwrap().damages, [""; 0]);
        }
        Err(error) => panic!("the log cannot be read: {error}"),
    }
    Held { steps: left, of_peer }
}

/// Writes the next document of a peer, and has its frame arrive at the store. Gives its number.
fn receive(database: &Database, peer: &Database, load_bytes_max: u64) -> vudo_state::Result<i64> {
    let (from, to) = (peer.replication("default")?, database.replication("default")?);
    let number = from.durable_vector().change_count() as i64 + 1;
    let id = peer.document_id(&format!("peer {number:06}"));
    let load = load_of(number, load_bytes_max);
    peer.create(&step_gen(), &id, &[("number", number.into()), ("load", load.into())])?;
    let frame = from.frame_since(&to.durable_vector(), usize::MAX)?;
    let bytes = frame.expect("there is something new").bytes;
    to.apply_frame(&bytes)?;
    Ok(number)
}

#[derive(Default)]
struct Totals {
    crashes: u64,
    refused_openings: u64,
    acknowledged: u64,
    received: u64,
    compactions: u64,
    compactions_broken_off: u64,
    dropped_changes: u64,
    kept_beyond: u64,
}

/// One store over several crashes.
fn run(seed: u64, totals: &mut Totals) {
    let mut random = Random::new(seed);
    let mut disk = CrashingFiles::new(random.next_u64());
    let load_bytes_max = [2_000, 20_000, 200_000][random.next_u64() as usize % 3];
    let mut acknowledged = Held::default();
    let peer = Database::open_in_memory().unwrap();
    for _ in 0..1 + random.next_u64() % 3 {
        // A budget of calls after which the disk fails, in one of its ways.
        let at = random.next_u64() % 400;
        disk.fail(match random.next_u64() % 5 {
            0 => Some(Failure::Once(at)),
            1 => Some(Failure::From(at)),
            2 => Some(Failure::FullFrom(at)),
            _ => None,
        });
        match common::open(&disk) {
            Ok(database) => {
                let stores = (&database, &peer);
                work(stores, &mut random, load_bytes_max, &mut acknowledged, totals);
                // Sometimes the store is closed before the power goes.
                if random.next_u64().is_multiple_of(4) {
                    drop(database);
                    disk = disk.crash();
                } else {
                    disk = match random.next_u64() % 4 {
                        0 => disk.kill_process(),
                        _ => disk.crash(),
                    };
                    drop(database);
                }
            }
            Err(refusal) => {
                assert!(refusal.contains("disk") || refusal.contains("storage"), "{refusal}");
                totals.refused_openings += 1;
                disk = disk.crash();
            }
        }
        totals.crashes += 1;
        let database = common::open(&disk).unwrap_or_else(|refusal| {
            panic!("the disk works again, yet the store does not open: {refusal}")
        });
        let held = check(&database, load_bytes_max);
        assert!(
            held.steps >= acknowledged.steps && held.of_peer >= acknowledged.of_peer,
            "{acknowledged:?} were acknowledged, {held:?} are left"
        );
        totals.kept_beyond += (held.steps - acknowledged.steps) as u64;
        acknowledged = held;
        drop(database);
        disk = disk.kill_process();
    }
}

fn work(
    (database, peer): (&Database, &Database),
    random: &mut Random,
    load_bytes_max: u64,
    acknowledged: &mut Held,
    totals: &mut Totals,
) {
    let eventual = database.with_durability(Durability::Eventual);
    let mut returned = 0;
    for _ in 0..random.next_u64() % 30 {
        match random.next_u64() % 16 {
            13.. => {
                if let Ok(number) = receive(database, peer, load_bytes_max) {
                    acknowledged.of_peer = number;
                    totals.received += 1;
                }
            }
            12 => match database.compact() {
                Ok(report) => {
                    totals.compactions += 1;
                    totals.dropped_changes += report.dropped_changes;
                    acknowledged.steps = acknowledged.steps.max(returned);
                }
                Err(_) => totals.compactions_broken_off += 1,
            },
            0..=5 => {
                if let Ok(number) = step(database, load_bytes_max) {
                    assert!(number > acknowledged.steps);
                    (acknowledged.steps, returned) = (number, number);
                    totals.acknowledged += 1;
                }
            }
            6..=9 => {
                if let Ok(number) = step(&eventual, load_bytes_max) {
                    returned = number;
                }
            }
            _ => {
                if database.flush().is_ok() {
                    acknowledged.steps = acknowledged.steps.max(returned);
                }
            }
        }
    }
}

#[test]
fn whatever_crashes_nothing_acknowledged_is_lost_and_nothing_is_torn() {
    let start = Instant::now();
    let mut totals = Totals::default();
    let count = run_seeds("crash", RUNS_BY_DEFAULT, |seed| run(seed, &mut totals));
    let Totals { crashes, refused_openings, acknowledged, kept_beyond, .. } = totals;
    let Totals { received, compactions, compactions_broken_off, dropped_changes, .. } = totals;
    println!(
        "{count} runs, {crashes} crashes, {acknowledged} acknowledged commits and {received} frames, none \
         lost; \
         {kept_beyond} more were kept, {refused_openings} openings refused; {compactions} \
         compactions dropped {dropped_changes} changes, {compactions_broken_off} were broken off; \
         in {:?}",
        start.elapsed()
    );
    if count >= RUNS_BY_DEFAULT {
        assert!(crashes > count && acknowledged > 3 * count && received > count && kept_beyond > 0);
        assert!(refused_openings > 0);
        assert!(compactions > 0 && dropped_changes > 0 && compactions_broken_off > 0);
    }
}

/// How many calls of the disk it takes to open what a kill left of a store of so many documents and
/// to read one of them, and how many of them are syncs.
fn calls_to_open(document_count: u64) -> (u64, u64) {
    let files = CrashingFiles::new(1);
    let database = common::open(&files).unwrap();
    let fast = database.with_durability(Durability::Eventual);
    for start in (0..document_count).step_by(1_000) {
        fast.transaction(|transaction| {
            for number in start..start + 1_000 {
                let key = format!("document {number:06}");
                transaction.create(&step_gen(), &key)?;
                transaction.set(&step_gen(), &key, "load", "some text of some length")?;
            }
            Ok(())
        })
        .unwrap();
    }
    database.flush().unwrap();
    let left = files.kill_process();
    drop((database, fast));
    let database = common::open(&left).unwrap();
    let id = database.document_id("document 000500");
    assert!(database.read(&step_gen(), &id).unwrap().is_some());
    (left.call_count(), left.sync_count())
}

#[test]
fn opening_after_a_crash_does_not_grow_with_the_data() {
    let (few, many) = (calls_to_open(10_000), calls_to_open(100_000));
    println!("calls and syncs to open: {few:?} with 10,000 documents, {many:?} with 100,000");
    assert!(many.0 < few.0 * 2, "ten times the documents take {many:?} calls, not {few:?}");
    assert_eq!(few.1, many.1);
}
