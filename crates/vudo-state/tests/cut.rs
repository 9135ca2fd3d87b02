//! Logs that are damaged, cut off in front of the damage, and filled again by a peer.

mod common;

use vudo_crdt::{FieldSchema, GenSchema, Strategy, Value, ValueType};
use vudo_state::{CutReport, Database, Durability, Error};
use vudo_testkit::files::CrashingFiles;

/// So many changes have been sent to the peer, of those that the store has written.
const SENT: u64 = 900;
const COUNT: u64 = 1_200;
/// What is counted: each document, and every third one once more.
const COUNTED: i64 = 1_600;

fn note_gen() -> GenSchema {
    let text = FieldSchema::new("text", 1, Strategy::Lww, ValueType::String);
    let count = FieldSchema::new("count", 2, Strategy::PnCounter, ValueType::I64);
    GenSchema::new("Note", [text, count])
}

fn text(number: u64) -> String {
    format!("text {number} ").repeat(20)
}

/// Each change makes a document and adds to what all of them count together.
fn write(database: &Database, numbers: std::ops::Range<u64>) {
    let fast = database.with_durability(Durability::Eventual);
    for number in numbers {
        fast.transaction(|transaction| {
            let key = format!("note {number:05}");
            transaction.create(&note_gen(), &key)?;
            transaction.set(&note_gen(), &key, "text", text(number))?;
            transaction.add(&note_gen(), "all", "count", 1i64)
        })
        .unwrap();
        // A change that nothing refers to when the next one has added.
        if number % 3 == 0 {
            fast.transaction(|transaction| transaction.add(&note_gen(), "all", "count", 1i64))
                .unwrap();
        }
        if number % 50 == 49 {
            database.flush().unwrap();
        }
    }
}

fn exchange(from: &Database, to: &Database) {
    let (source, target) =
        (from.replication("default").unwrap(), to.replication("default").unwrap());
    if let Some(offer) = source.checkpoint_offer() {
        let giver = from.replica_key();
        let mut wanted = target.begin_catching_up(&giver, &offer).unwrap();
        while let Some(request) = wanted {
            let part = source.checkpoint_part(&request).unwrap().unwrap();
            wanted = target.take_part(&giver, &part).unwrap();
        }
    }
    while let Some(frame) = source.frame_since(&target.durable_vector(), 64 << 10).unwrap() {
        target.apply_frame(&frame.bytes).unwrap();
    }
}

fn counted(database: &Database) -> Option<Value> {
    database.read_field(&note_gen(), &database.document_id("all"), "count").unwrap()
}

/// A store that has sent a part of its changes, and its peer.
fn store_and_peer() -> (CrashingFiles, Database) {
    let files = CrashingFiles::new(7);
    let database = common::open(&files).unwrap();
    let peer = Database::open_in_memory().unwrap();
    peer.create(&note_gen(), &peer.document_id("of the peer"), &[]).unwrap();
    exchange(&peer, &database);
    database.create(&note_gen(), &database.document_id("all"), &[]).unwrap();
    write(&database, 0..SENT);
    exchange(&database, &peer);
    write(&database, SENT..COUNT);
    (files, peer)
}

/// Copies of the files in which the log is damaged where a document's text lies, and that text.
fn damaged_in_the_log(files: &CrashingFiles, number: u64) -> Vec<CrashingFiles> {
    let wanted = text(number);
    let mut found = Vec::new();
    for file in ["store.redb", "store.journal"] {
        let Ok(length) = files.file(file).len() else { continue };
        let mut bytes = vec![0; length as usize];
        files.file(file).read(0, &mut bytes).unwrap();
        let windows = bytes.windows(wanted.len()).enumerate();
        for (place, _) in windows.filter(|(_, window)| *window == wanted.as_bytes()) {
            let damaged = files.copy(1);
            damaged.flip_bit(file, place * 8);
            let Ok(database) = common::open(&damaged) else { continue };
            let damages = database.verify().map(|report| report.damages).unwrap_or_default();
            drop(database);
            let is_of_log = |damage: &String| damage.contains("the log: ");
            if damages.iter().any(is_of_log) {
                found.push(damaged.kill_process());
            }
        }
    }
    found
}

fn cut(files: &CrashingFiles) -> CutReport {
    let database = common::open(files).unwrap();
    let other_handle = database.clone();
    let refused = database.cut_damaged_logs().unwrap_err();
    assert!(matches!(refused, Error::NamespaceInUse { .. }), "{refused}");
    other_handle.cut_damaged_logs().unwrap()
}

/// Cuts, fills again from the peer, adopts, and gives what there is then.
fn refill(files: &CrashingFiles, peer: &Database) -> (CutReport, Database) {
    let own_before = common::open(files).unwrap().replica_key();
    let report = cut(files);
    assert_eq!(report.left, [""; 0]);
    let database = common::open(files).unwrap();
    assert_ne!(database.replica_key(), own_before, "numbers behind the cut have been used");
    assert_eq!(database.verify().unwrap().damages, [""; 0]);
    exchange(peer, &database);
    let adopted = database.adopt(None).unwrap();
    assert_eq!(adopted.left, [""; 0]);
    assert_eq!(adopted.adopted + adopted.known, report.cut[0].orphans);
    assert_eq!(database.orphans().unwrap(), []);
    exchange(&database, peer);
    let fingerprint =
        |database: &Database| database.replication("default").unwrap().fingerprint().unwrap();
    assert_eq!(fingerprint(&database), fingerprint(peer));
    (report, database)
}

#[test]
fn what_a_peer_has_comes_back_and_what_can_be_read_stays() {
    let (files, peer) = store_and_peer();
    let expected = common::open(&files.copy(1)).unwrap().list(&note_gen()).unwrap();
    let copies = damaged_in_the_log(&files, 300);
    assert!(!copies.is_empty(), "the text lies in the log");
    for files in copies {
        let peer_files = peer.replication("default").unwrap().durable_vector();
        assert!(peer_files.change_count() > SENT);
        let (report, database) = refill(&files, &peer);
        let [log] = &*report.cut else { panic!("one log is cut: {report:?}") };
        assert!(log.kept <= 402 && log.orphans >= COUNT - SENT, "{report:?}");
        assert_eq!(database.list(&note_gen()).unwrap(), expected);
        assert_eq!(counted(&database), Some(COUNTED.into()));
        let again = cut(&files_of(database, files));
        assert_eq!(again, CutReport::default(), "nothing is damaged any more");
    }
}

/// The files of a store that is closed.
fn files_of(database: Database, files: CrashingFiles) -> CrashingFiles {
    drop(database);
    files
}

#[test]
fn a_peer_that_has_compacted_its_log_gives_its_checkpoint() {
    let (files, peer) = store_and_peer();
    let expected = common::open(&files.copy(1)).unwrap().list(&note_gen()).unwrap();
    let report = peer.compact().unwrap();
    assert!(report.dropped_changes > 0, "{report:?}");
    let files = damaged_in_the_log(&files, 300).into_iter().next().expect("the text is in the log");
    let (_, database) = refill(&files, &peer);
    assert_eq!(database.list(&note_gen()).unwrap(), expected);
    assert_eq!(counted(&database), Some(COUNTED.into()), "nothing is counted twice");
}

#[test]
fn only_what_nobody_has_and_cannot_be_read_is_lost() {
    let (files, peer) = store_and_peer();
    let before = common::open(&files.copy(1)).unwrap().list(&note_gen()).unwrap();
    let copies = damaged_in_the_log(&files, 1_000);
    let files = copies.into_iter().next().expect("the text lies in the log");
    let (report, database) = refill(&files, &peer);
    let after = database.list(&note_gen()).unwrap();
    let lost = before.len() - after.len();
    // The record that is damaged has the changes of one flush.
    assert!((1..=50).contains(&lost), "{lost} are lost: {report:?}");
    assert!(after.iter().all(|record| record.key == "all" || before.contains(record)));
    assert!(!after.iter().any(|record| record.key == "note 01000"));
    // Counters keep what the changes behind the damage say that was added in front of them.
    assert_eq!(counted(&database), Some(COUNTED.into()));
}
