//! Small frames of peers, which are verified while they go to disk.

mod common;

use vudo_crdt::{FieldSchema, GenSchema, SignedFrame, Strategy, ValueType};
use vudo_state::{Database, Error, Replication};
use vudo_testkit::files::{CrashingFiles, Failure};

fn note() -> GenSchema {
    GenSchema::new("Note", [FieldSchema::new("text", 1, Strategy::Lww, ValueType::String)])
}

fn write(database: &Database, key: &str) {
    database.create(&note(), &database.document_id(key), &[("text", key.into())]).unwrap();
}

fn keys(database: &Database) -> Vec<String> {
    database.list(&note()).unwrap().into_iter().map(|record| record.key).collect()
}

fn replication(database: &Database) -> Replication {
    database.replication("default").unwrap()
}

/// What a store has that another one lacks, as one frame.
fn frame(from: &Database, to: &Database) -> Vec<u8> {
    let frame = replication(from).frame_since(&replication(to).durable_vector(), usize::MAX);
    frame.unwrap().expect("there is something new").bytes
}

#[test]
fn a_frame_is_durable_after_one_sync() {
    let peer = Database::open_in_memory().unwrap();
    let mut disk = CrashingFiles::new(1);
    for number in 0..12 {
        write(&peer, &format!("note {number:02}"));
        let store = common::open(&disk).unwrap();
        let bytes = frame(&peer, &store);
        let syncs_before = disk.sync_count();
        let applied = replication(&store).apply_frame(&bytes).unwrap();
        assert_eq!((applied.changes, disk.sync_count() - syncs_before), (1, 1));
        assert_eq!(keys(&store), keys(&peer));
        assert_eq!(replication(&store).durable_vector(), replication(&peer).durable_vector());
        let again = replication(&store).apply_frame(&bytes).unwrap();
        assert_eq!((again.changes, again.duplicates), (0, 1));
        // Others are told of it from the log, though that is not on disk yet.
        let third = Database::open_in_memory().unwrap();
        replication(&third).apply_frame(&frame(&store, &third)).unwrap();
        assert_eq!(keys(&third), keys(&peer));
        disk = disk.crash();
        let store = common::open(&disk).unwrap();
        assert_eq!(keys(&store), keys(&peer), "number {number}");
        assert_eq!(store.verify().unwrap().damages, [""; 0]);
        disk = disk.crash();
    }
}

#[test]
fn what_its_writer_has_not_signed_is_not_applied_after_a_crash_either() {
    let (peer, disk) = (Database::open_in_memory().unwrap(), CrashingFiles::new(3));
    let store = common::open(&disk).unwrap();
    write(&peer, "note");
    let whole = frame(&peer, &store);
    let mut forged = whole.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(SignedFrame::parse(&forged).is_ok(), "only the signature is wrong");
    let refused = replication(&store).apply_frame(&forged).unwrap_err();
    assert!(refused.is_peer_fault(), "{refused}");
    assert_eq!(keys(&store), [""; 0]);
    let disk = disk.crash();
    let store = common::open(&disk).unwrap();
    assert_eq!(keys(&store), [""; 0]);
    replication(&store).apply_frame(&whole).unwrap();
    let store = common::open(&disk.crash()).unwrap();
    assert_eq!(keys(&store), ["note"]);
}

#[test]
fn a_frame_that_the_disk_does_not_take_can_come_again() {
    let (peer, disk) = (Database::open_in_memory().unwrap(), CrashingFiles::new(4));
    let store = common::open(&disk).unwrap();
    write(&peer, "note");
    let bytes = frame(&peer, &store);
    disk.fail(Some(Failure::From(0)));
    let refused = replication(&store).apply_frame(&bytes);
    assert!(matches!(refused, Err(Error::Storage(_))), "{refused:?}");
    assert_eq!(replication(&store).durable_vector().change_count(), 0);
    disk.fail(None);
    replication(&store).apply_frame(&bytes).unwrap();
    let store = common::open(&disk.crash()).unwrap();
    assert_eq!(keys(&store), ["note"]);
}
