//! Backups and the search for damage.

mod common;

use std::path::Path;

use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, ValueType, VersionVector};
use vudo_state::{Database, Durability, Error};
use vudo_testkit::files::CrashingFiles;

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

    let mut named = 0;
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
            }
        }
    }
    assert!(named >= 3, "{named} damaged chunks were named");
}
