//! Backups and the search for damage.

mod common;

use std::path::Path;

use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, ValueType, VersionVector};
use vudo_state::{Database, Durability, Error};
use vudo_testkit::files::{CrashingFiles, Failure};

fn note_gen() -> GenSchema {
    let text = FieldSchema::new("text", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Note", [text])
}

fn fill(database: &Database, count: u64) {
    let fast = database.with_durability(Durability::Eventual);
    for number in 0..count {
        let text = format!("text {number} ").repeat(20);
        let id = fast.document_id(&format!("note {number:05}"));
        fast.create(&note_gen(), &id, &[("text", text.into())]).unwrap();
    }
    database.flush().unwrap();
}

fn exchange(from: &Database, to: &Database) {
    let (source, target) =
        (from.replication("default").unwrap(), to.replication("default").unwrap());
    let since: VersionVector = target.durable_vector();
    if let Some(frame) = source.frame_since(&since, usize::MAX).unwrap() {
        target.apply_frame(&frame.bytes).unwrap();
    }
}

#[test]
fn a_backup_is_a_store_of_its_own_that_holds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let database = Database::open(path("store")).unwrap();
    database.define(&Schema::from(vec![note_gen()])).unwrap();
    database.set_setting("share", b"secret").unwrap();
    fill(&database, 3_000);
    // A writer goes on while the backup is made.
    let report = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..50 {
                let id = database.document_id(&format!("meanwhile {number}"));
                database.create(&note_gen(), &id, &[]).unwrap();
            }
        });
        let report = database.backup(path("backup")).unwrap();
        writer.join().unwrap();
        report
    });
    assert!(report.entries > 10 && report.bytes > 100_000, "{report:?}");
    assert!(!path("backup.partial").exists());
    let again = database.backup(path("backup")).unwrap_err();
    assert!(matches!(again, Error::BackupExists { .. }), "{again}");

    let restored = Database::open(path("backup")).unwrap();
    assert_ne!(restored.replica_key(), database.replica_key(), "it writes under its own key");
    assert_eq!(restored.gen_schema("Note").unwrap(), note_gen());
    assert_eq!(restored.setting("share").unwrap().as_deref(), Some(&b"secret"[..]));
    assert!(restored.list(&note_gen()).unwrap().len() >= 3_000);
    assert_eq!(restored.verify().unwrap().damages, [""; 0]);
    // Both write, and both hear of each other: no number is given twice.
    for (database, key) in [(&restored, "of the backup"), (&database, "of the original")] {
        database.create(&note_gen(), &database.document_id(key), &[]).unwrap();
    }
    exchange(&database, &restored);
    exchange(&restored, &database);
    let state = |database: &Database| database.replication("default").unwrap().fingerprint();
    assert_eq!(state(&database).unwrap(), state(&restored).unwrap());
    assert_eq!(database.list(&note_gen()).unwrap().len(), 3_052);
    // It keeps the key that it has made.
    let key = restored.replica_key();
    drop(restored);
    assert_eq!(Database::open(path("backup")).unwrap().replica_key(), key);
}

#[test]
fn a_backup_that_cannot_be_written_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let database = Database::open_in_memory().unwrap();
    let refused = database.backup(Path::new(&file).join("backup")).unwrap_err();
    assert!(refused.to_string().contains("file/backup"), "{refused}");
}

#[test]
fn damage_is_found_and_named_and_the_rest_stays_readable() {
    const COUNT: u64 = 2_000;
    let files = CrashingFiles::new(2);
    let database = common::open(&files).unwrap();
    fill(&database, COUNT);
    drop(database);
    let intact = common::open(&files.copy(1)).unwrap().verify().unwrap();
    assert_eq!((intact.namespaces, intact.documents, intact.changes), (1, COUNT, COUNT));
    assert_eq!(intact.damages, [""; 0]);

    let expected = common::open(&files.copy(1)).unwrap().list(&note_gen()).unwrap();
    let (mut named, mut repaired_count) = (0, 0);
    let length = files.file("store.redb").len().unwrap() as usize;
    let mut pages = vec![0; length];
    files.file("store.redb").read(0, &mut pages).unwrap();
    // The text of a document lies in a chunk and in the log, and both are damaged in turn.
    for number in [5, 700, 1_999] {
        let text = format!("text {number} text {number} ");
        let places: Vec<usize> = pages
            .windows(text.len())
            .enumerate()
            .filter(|(_, window)| *window == text.as_bytes())
            .map(|(place, _)| place)
            .collect();
        for place in places {
            let damaged = files.copy(1);
            damaged.flip_bit("store.redb", place * 8);
            let database = common::open(&damaged).unwrap();
            let report = database.verify().unwrap();
            if report.damages.is_empty() {
                // Pages that are free keep what was in them.
                continue;
            }
            let all = report.damages.join("\n");
            assert!(all.contains("namespace 'default'"), "{all}");
            if all.contains("Gen Note, the documents from 'note ") {
                named += 1;
                let readable = (0..COUNT)
                    .filter(|number| {
                        let id = database.document_id(&format!("note {number:05}"));
                        database.read(&note_gen(), &id).is_ok_and(|found| found.is_some())
                    })
                    .count() as u64;
                assert!((COUNT - 100..COUNT).contains(&readable), "{readable} are readable");
                let repaired = database.repair().unwrap();
                assert!(repaired.repaired[0].contains("Gen Note, the documents from"));
                assert_eq!(repaired.left, [""; 0]);
                repaired_count += 1;
            } else {
                // What is damaged of the log is not here a second time.
                let left = database.repair().unwrap().left;
                assert!(!left.is_empty(), "{all}");
                continue;
            }
            let of_all = database.list(&note_gen()).unwrap();
            assert_eq!(of_all, expected);
            drop(database);
            let mended = common::open(&damaged.kill_process()).unwrap();
            assert_eq!(mended.list(&note_gen()).unwrap(), expected);
            assert_eq!(mended.verify().unwrap(), intact);
        }
    }
    assert!(named >= 3, "{named} damaged chunks were named");
    assert_eq!(repaired_count, named);
}

#[test]
fn a_pin_names_a_moment_that_can_be_read_whatever_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let id = |number: u64| database.document_id(&format!("note {number:05}"));
    fill(&database, 30);
    database.pin("first").unwrap();
    let first = database.list(&note_gen()).unwrap();
    database.update(&note_gen(), &id(3), &[("text", "changed".into())]).unwrap();
    database.delete(&note_gen(), &id(4)).unwrap();
    let peer = Database::open_in_memory().unwrap();
    peer.create(&note_gen(), &peer.document_id("of a peer"), &[]).unwrap();
    exchange(&peer, &database);
    database.pin("second").unwrap();
    let second = database.list(&note_gen()).unwrap();
    fill(&database.in_namespace("other"), 2);
    (30..40).for_each(|number| database.create(&note_gen(), &id(number), &[]).unwrap());
    let now = database.list(&note_gen()).unwrap();
    drop(database);

    let database = Database::open(folder.path()).unwrap();
    let names: Vec<String> = database.pins().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(database.in_namespace("other").pins().unwrap(), []);
    let of_pin = |name| database.snapshot_of_pin(name).unwrap().list(&note_gen()).unwrap();
    assert_eq!((of_pin("first"), of_pin("second")), (first, second));
    let snapshot = database.snapshot().unwrap();
    assert_eq!(snapshot.list(&note_gen()).unwrap(), now);
    database.delete(&note_gen(), &database.document_id("note 00001")).unwrap();
    assert!(snapshot.read(&note_gen(), "note 00001").unwrap().is_some());
    assert!(snapshot.read(&note_gen(), "note 00004").unwrap().is_none());
    assert!(database.unpin("first").unwrap());
    assert!(!database.unpin("first").unwrap());
    let unknown = database.snapshot_of_pin("first").err().expect("it is gone");
    assert!(unknown.to_string().contains("no pin 'first'"), "{unknown}");
    assert!(matches!(database.pin(""), Err(Error::PinName(_))));
}

#[test]
fn a_namespace_in_use_is_not_repaired_under_its_users() {
    let files = CrashingFiles::new(3);
    let database = common::open(&files).unwrap();
    fill(&database, 200);
    drop(database);
    let length = files.file("store.redb").len().unwrap() as usize;
    let mut pages = vec![0; length];
    files.file("store.redb").read(0, &mut pages).unwrap();
    let text = b"text 100 text 100 ";
    let mut refused_count = 0;
    for place in (0..length - text.len()).filter(|at| pages[*at..].starts_with(text)) {
        let damaged = files.copy(1);
        damaged.flip_bit("store.redb", place * 8);
        let database = common::open(&damaged).unwrap();
        let report = database.verify().unwrap();
        if !report.damages.iter().any(|damage| damage.contains("the documents from")) {
            continue;
        }
        let outbox = database.outbox().unwrap();
        let refused = database.repair().unwrap_err();
        assert!(matches!(refused, Error::NamespaceInUse { .. }), "{refused}");
        drop(outbox);
        let id = database.document_id("note 00003");
        assert!(database.read(&note_gen(), &id).unwrap().is_some(), "the rest stays readable");
        assert_eq!(database.repair().unwrap().left, [""; 0]);
        let id = database.document_id("note 00100");
        assert!(database.read(&note_gen(), &id).unwrap().is_some());
        refused_count += 1;
    }
    assert!(refused_count > 0);
}

#[test]
fn a_log_that_goes_on_behind_a_compaction_that_broke_off_is_intact() {
    let create = |database: &Database, key: &str| {
        database.create(&note_gen(), &database.document_id(key), &[]).unwrap();
    };
    // Every call of a compaction fails once.
    for call in 0.. {
        let disk = CrashingFiles::new(call);
        let store = common::open(&disk).unwrap();
        create(&store, "first");
        store.compact().unwrap();
        create(&store, "second");
        disk.fail(Some(Failure::From(disk.call_count() + call)));
        let is_compacted = store.compact().is_ok();
        let disk = disk.crash();
        let store = common::open(&disk).unwrap();
        create(&store, "third");
        let peer = Database::open_in_memory().unwrap();
        create(&peer, "of a peer");
        exchange(&peer, &store);
        create(&store, "fourth");
        let store = common::open(&disk.crash()).unwrap();
        assert_eq!(store.verify().unwrap().damages, [""; 0], "call {call}");
        assert_eq!(store.list(&note_gen()).unwrap().len(), 5);
        if is_compacted {
            assert!(call > 20, "only {call} calls failed");
            break;
        }
    }
}
