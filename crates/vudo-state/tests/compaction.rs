//! Compaction: what it frees, what it must not drop, and what becomes of those who are behind.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vudo_crdt::{FieldSchema, GenSchema, Ranges, Strategy, Value, ValueType, VersionVector};
use vudo_state::{CompactionReport, CompactionStage, Database, Durability, Error};
use vudo_testkit::Random;

fn note_gen() -> GenSchema {
    let fields = vec![
        FieldSchema::new("text", 1, Strategy::Lww, ValueType::String),
        FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64),
        FieldSchema::new("labels", 3, Strategy::OrSet, ValueType::Set(Box::new(ValueType::String))),
        FieldSchema::new("title", 4, Strategy::MvRegister, ValueType::String),
    ];
    GenSchema::new("Note", fields)
}

fn text_of(number: u64) -> String {
    format!("text {number} ").repeat(12)
}

fn fill(database: &Database, count: u64, per_change: u64) {
    let fast = database.with_durability(Durability::Eventual);
    for start in (0..count).step_by(per_change as usize) {
        fast.transaction(|transaction| {
            for number in start..count.min(start + per_change) {
                let key = format!("note {number:06}");
                transaction.create(&note_gen(), &key)?;
                transaction.set(&note_gen(), &key, "text", text_of(number))?;
            }
            Ok(())
        })
        .unwrap();
    }
    database.flush().unwrap();
}

fn fingerprint(database: &Database) -> (VersionVector, vudo_crdt::Fingerprint) {
    database.replication("default").unwrap().fingerprint().unwrap()
}

/// Everything that `to` lacks goes there.
fn sync(from: &Database, to: &Database) -> vudo_state::Result<()> {
    let (source, target) =
        (from.replication("default").unwrap(), to.replication("default").unwrap());
    while let Some(frame) = source.frame_since(&target.durable_vector(), 64 << 10)? {
        target.apply_frame(&frame.bytes)?;
    }
    Ok(())
}

fn compact(database: &Database) -> CompactionReport {
    let before = fingerprint(database);
    let report = database.compact().unwrap();
    assert_eq!(fingerprint(database), before, "the state is what it was");
    assert_eq!(database.verify().unwrap().damages, [""; 0]);
    report
}

/// Freed of what was held, in percent.
fn percent(freed: u64, held: u64) -> u64 {
    100 * freed / held
}

#[test]
fn an_overwrite_history_is_freed_on_disk_while_a_reader_and_a_writer_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    fill(&database, 500, 100);
    let fast = database.with_durability(Durability::Eventual);
    for round in 0..20u64 {
        for number in 0..500 {
            let id = fast.document_id(&format!("note {number:06}"));
            fast.update(&note_gen(), &id, &[("text", text_of(round * 1_000 + number).into())])
                .unwrap();
        }
    }
    database.flush().unwrap();
    let is_over = AtomicBool::new(false);
    let (read_count, written_count) = (AtomicU64::new(0), AtomicU64::new(0));
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let number = read_count.fetch_add(1, Ordering::Relaxed) % 500;
                let id = database.document_id(&format!("note {number:06}"));
                let text = database.read_field(&note_gen(), &id, "text").unwrap();
                assert_eq!(text, Some(text_of(19_000 + number).into()));
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let number = written_count.fetch_add(1, Ordering::Relaxed);
                let id = database.document_id(&format!("meanwhile {number:06}"));
                database.create(&note_gen(), &id, &[("text", text_of(number).into())]).unwrap();
            }
        });
        let report = database.compact();
        is_over.store(true, Ordering::Relaxed);
        report.unwrap()
    });
    let (read_count, written_count) = (read_count.into_inner(), written_count.into_inner());
    println!("{report:?}; {read_count} reads and {written_count} writes meanwhile");
    assert!(read_count > 0 && written_count > 0);
    assert!(report.changes >= 10_005 && report.dropped_changes >= 9_000, "{report:?}");
    let freed = percent(report.disk_bytes_before - report.disk_bytes, report.disk_bytes_before);
    assert!(freed >= 50, "{freed} % were freed: {report:?}");
    assert!(report.is_shrunk);
    let state = fingerprint(&database);
    assert_eq!(database.list(&note_gen()).unwrap().len() as u64, 500 + written_count);
    assert_eq!(database.verify().unwrap().damages, [""; 0]);
    drop((database, fast));
    let database = Database::open(folder.path()).unwrap();
    assert_eq!(fingerprint(&database), state);
}

#[test]
fn what_deleted_documents_held_is_freed() {
    const COUNT: u64 = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    // What takes room whether there are documents or not.
    database.compact().unwrap();
    let empty_bytes = database.disk_bytes();
    fill(&database, COUNT, 500);
    database.compact().unwrap();
    let held_bytes = database.disk_bytes() - empty_bytes;
    let fast = database.with_durability(Durability::Eventual);
    for start in (0..COUNT).step_by(500) {
        fast.transaction(|transaction| {
            (start..start + 500).try_for_each(|number| {
                transaction.delete(&note_gen(), &format!("note {number:06}"))
            })
        })
        .unwrap();
    }
    let report = compact(&database);
    let left_bytes = database.disk_bytes().saturating_sub(empty_bytes);
    let freed = percent(held_bytes - left_bytes, held_bytes);
    println!("{held_bytes} bytes were held, {left_bytes} are left, {freed} %: {report:?}");
    assert!(freed >= 80, "{freed} % of {held_bytes} bytes were freed");
    assert_eq!(database.list(&note_gen()).unwrap(), []);
}

/// A write of a random kind to one of a few documents.
fn write_something(database: &Database, random: &mut Random) {
    let key = format!("note {}", random.next_u64() % 6);
    let gen_schema = note_gen();
    let done = database.transaction(|transaction| {
        let is_there = transaction.read(&gen_schema, &key)?.is_some();
        match random.next_u64() % 12 {
            _ if !is_there => transaction.create(&gen_schema, &key)?,
            0 => transaction.delete(&gen_schema, &key)?,
            1..=3 => transaction.set(&gen_schema, &key, "text", text_of(random.next_u64() % 50))?,
            4 | 5 => {
                transaction.add(&gen_schema, &key, "votes", 1 + random.next_u64() as i64 % 5)?
            }
            6 | 7 => {
                transaction.set(&gen_schema, &key, "title", format!("{}", random.next_u64() % 9))?
            }
            8 => transaction.remove_element(&gen_schema, &key, "labels", "red")?,
            _ => transaction.add_element(
                &gen_schema,
                &key,
                "labels",
                ["red", "green"][random.next_u64() as usize % 2],
            )?,
        }
        Ok(())
    });
    done.unwrap();
}

/// Replicas write, sync and compact at random; one never compacts. All must stay equal, and what a
/// compacted log retains must give the state again, whatever is set aside above.
#[test]
fn compacted_stores_stay_equal_to_one_that_keeps_everything() {
    for seed in 0..40u64 {
        let mut random = Random::new(seed);
        let stores: Vec<Database> = (0..3).map(|_| Database::open_in_memory().unwrap()).collect();
        let mut dropped_count = 0;
        for _ in 0..6 {
            for _ in 0..30 {
                write_something(&stores[random.next_u64() as usize % 3], &mut random);
            }
            for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2)] {
                sync(&stores[from], &stores[to]).unwrap();
            }
            let compacted = &stores[random.next_u64() as usize % 2];
            dropped_count += compact(compacted).dropped_changes;
            for _ in 0..10 {
                write_something(&stores[random.next_u64() as usize % 3], &mut random);
            }
            for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2)] {
                sync(&stores[from], &stores[to]).unwrap();
            }
            let whole = fingerprint(&stores[2]);
            for store in &stores[..2] {
                assert_eq!(fingerprint(store), whole, "seed {seed}");
                let again = store.snapshot().unwrap();
                let expected = store.list(&note_gen()).unwrap();
                assert_eq!(again.list(&note_gen()).unwrap(), expected, "seed {seed}");
            }
        }
        assert!(dropped_count > 0, "seed {seed} drops nothing");
        // A whole replica is cut above what the others have compacted; each rebuilds from its log.
        let cut_key = stores[0].replica_key();
        let before = stores[0].replication("default").unwrap().durable_vector().get(&cut_key);
        for store in &stores[..2] {
            store.compact().unwrap();
        }
        for _ in 0..20 {
            write_something(&stores[0], &mut random);
        }
        sync(&stores[0], &stores[1]).unwrap();
        sync(&stores[1], &stores[2]).unwrap();
        for store in &stores {
            let replication = store.replication("default").unwrap();
            replication.judge(&[(cut_key, Ranges::above(before + 3))]).unwrap();
        }
        let whole = fingerprint(&stores[2]);
        stores[..2].iter().for_each(|store| assert_eq!(fingerprint(store), whole, "seed {seed}"));
    }
}

#[test]
fn a_judgement_does_not_reach_below_the_floor() {
    let (ours, theirs) = (Database::open_in_memory().unwrap(), Database::open_in_memory().unwrap());
    let id = ours.document_id("note");
    let set = |database: &Database, text: &str| {
        database.update(&note_gen(), &id, &[("text", text.into())]).unwrap();
    };
    ours.create(&note_gen(), &id, &[("text", "first".into())]).unwrap();
    sync(&ours, &theirs).unwrap();
    set(&theirs, "second");
    set(&theirs, "third");
    sync(&theirs, &ours).unwrap();
    ours.compact().unwrap();
    set(&theirs, "fourth");
    sync(&theirs, &ours).unwrap();
    let replication = ours.replication("default").unwrap();
    let text = |database: &Database| database.read_field(&note_gen(), &id, "text").unwrap();
    assert_eq!(replication.judge(&[(theirs.replica_key(), Ranges::above(0))]).unwrap(), 1);
    assert_eq!(text(&ours), Some("third".into()), "what the checkpoint judged stands");
    assert_eq!(replication.set_aside(&theirs.replica_key()), Ranges::above(2));
    replication.judge(&[(theirs.replica_key(), Ranges::new())]).unwrap();
    assert_eq!(text(&ours), Some("fourth".into()));
}

#[test]
fn whoever_is_behind_the_log_is_told_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let stores: Vec<Database> = (0..3).map(|_| Database::open_in_memory().unwrap()).collect();
    let ours = Database::open(folder.path()).unwrap();
    let (near, far, new) = (&stores[0], &stores[1], &stores[2]);
    let id = ours.document_id("note");
    ours.create(&note_gen(), &id, &[]).unwrap();
    sync(&ours, far).unwrap();
    for number in 0..10 {
        ours.update(&note_gen(), &id, &[("text", text_of(number).into())]).unwrap();
    }
    sync(&ours, near).unwrap();
    assert_eq!(compact(&ours).dropped_changes, 10, "the last write is all that is needed");
    ours.update(&note_gen(), &id, &[("text", "after".into())]).unwrap();
    near.update(&note_gen(), &id, &[("votes", 1.into())]).unwrap();

    sync(&ours, near).unwrap();
    sync(near, &ours).unwrap();
    assert_eq!(fingerprint(near), fingerprint(&ours));
    for (behind, held_count) in [(far, 1), (new, 0)] {
        let refused = sync(&ours, behind).unwrap_err();
        assert!(!refused.is_peer_fault());
        let expected = ours.replica_key();
        assert!(
            matches!(refused, Error::Compacted { replica, number: 11, held, .. }
                if replica == expected && held == held_count),
            "{refused}"
        );
        // What it wrote itself still goes the other way, and another peer has what it lacks.
        behind.create(&note_gen(), &behind.document_id(&format!("of {held_count}")), &[]).unwrap();
        sync(behind, &ours).unwrap();
        sync(near, behind).unwrap();
        sync(behind, near).unwrap();
        sync(&ours, near).unwrap();
        assert_eq!(fingerprint(near), fingerprint(&ours));
    }
    // A frame that names a number at the floor or below is no reason to look for it.
    let replication = ours.replication("default").unwrap();
    let own = ours.replica_key();
    assert!(replication.signed_head_of(&own, 11).unwrap().is_some(), "the head at the floor");
    assert_eq!(replication.signed_head_of(&own, 4).unwrap(), None);
    let state = fingerprint(&ours);
    drop((replication, ours));
    let ours = Database::open(folder.path()).unwrap();
    assert_eq!(fingerprint(&ours), state);
    assert!(matches!(
        sync(&ours, &Database::open_in_memory().unwrap()),
        Err(Error::Compacted { .. })
    ));
}

#[test]
fn a_pin_keeps_what_its_moment_needs() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let id = database.document_id("note");
    let set = |text: &str| {
        database.update(&note_gen(), &id, &[("text", text.into())]).unwrap();
    };
    database.create(&note_gen(), &id, &[]).unwrap();
    let text_at = |database: &Database, pin: &str| {
        let record = database.snapshot_of_pin(pin).unwrap().read(&note_gen(), "note").unwrap();
        record.unwrap().get("text").cloned()
    };
    (0..5).for_each(|number| set(&format!("before {number}")));
    database.pin("first").unwrap();
    (0..5).for_each(|number| set(&format!("between {number}")));
    database.pin("second").unwrap();
    (0..5).for_each(|number| set(&format!("after {number}")));
    assert_eq!(compact(&database).dropped_changes, 16 - 3);
    for _ in 0..2 {
        assert_eq!(text_at(&database, "first"), Some("before 4".into()));
        assert_eq!(text_at(&database, "second"), Some("between 4".into()));
        assert_eq!(compact(&database).dropped_changes, 0, "there is nothing left to drop");
    }
    set("latest");
    assert!(database.unpin("first").unwrap());
    assert_eq!(compact(&database).dropped_changes, 2, "that of the pin, and the last but one");
    assert_eq!(text_at(&database, "second"), Some("between 4".into()));
    assert!(matches!(database.snapshot_of_pin("first"), Err(Error::UnknownPin(_))));
    drop(database);
    let database = Database::open(folder.path()).unwrap();
    assert_eq!(text_at(&database, "second"), Some("between 4".into()));
}

#[test]
fn a_compaction_can_be_left_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    fill(&database, 2_000, 500);
    for _ in 0..2 {
        let fast = database.with_durability(Durability::Eventual);
        for number in 0..2_000 {
            let id = fast.document_id(&format!("note {number:06}"));
            let text = Value::from(text_of(number).repeat(10));
            fast.update(&note_gen(), &id, &[("text", text)]).unwrap();
        }
        database.flush().unwrap();
    }
    let state = fingerprint(&database);
    for left_at in 0..12 {
        let mut compaction = database.compaction().unwrap();
        for _ in 0..left_at {
            compaction.step().unwrap();
            let second = database.compaction().unwrap().step().err();
            assert!(second.is_none_or(|error| matches!(error, Error::CompactionRuns { .. })));
        }
        drop(compaction);
        let id = database.document_id("note 000000");
        database.update(&note_gen(), &id, &[("votes", 1.into())]).unwrap();
    }
    let mut stages = Vec::new();
    let mut compaction = database.compaction().unwrap();
    while let Some(progress) = compaction.step().unwrap() {
        assert!(progress.done_count <= progress.total_count);
        stages.push(progress.stage);
    }
    assert!(stages.is_sorted_by_key(|stage| *stage as u8), "{stages:?}");
    assert_eq!(stages.last(), Some(&CompactionStage::Shrinking));
    drop(compaction);
    assert_eq!(database.verify().unwrap().damages, [""; 0]);
    assert_eq!(fingerprint(&database).0.change_count(), state.0.change_count() + 12);
    assert_eq!(database.list(&note_gen()).unwrap().len(), 2_000);
    // No chunk is left over on disk.
    drop(database);
    assert!(file_bytes(folder.path()) < 12 << 20, "{}", file_bytes(folder.path()));
}

fn file_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}
