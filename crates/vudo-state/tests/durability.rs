//! What survives: crashes by SIGKILL on the real disk, copies, reopening, a second process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use vudo_crdt::{FieldSchema, GenSchema, Strategy, Value, ValueType};
use vudo_state::{Database, Durability, Error};

/// Set for the child that writes until it is killed.
const WRITER_STORE: &str = "VUDO_TEST_WRITER_STORE";
const KILLS: usize = 50;

fn counter_gen() -> GenSchema {
    let fields = vec![
        FieldSchema::new("label", 1, Strategy::Lww, ValueType::String),
        FieldSchema::new("count", 2, Strategy::PnCounter, ValueType::I64),
    ];
    GenSchema::new("Counter", fields)
}

fn count_documents(database: &Database) -> usize {
    database.list(&counter_gen()).unwrap().len()
}

/// Not a test of its own: the child process of the test below. It commits durably and prints the
/// number of each commit once it has been acknowledged.
#[test]
fn writer_child() {
    let Ok(store) = std::env::var(WRITER_STORE) else {
        return;
    };
    let database = Database::open(store).unwrap();
    let first = count_documents(&database);
    for number in first.. {
        let id = database.document_id(&format!("{number:08}"));
        let label = Value::from(format!("document {number}"));
        let fields = [("label", label), ("count", 1i64.into())];
        database.create(&counter_gen(), &id, &fields).unwrap();
        println!("acknowledged {number}");
    }
}

#[test]
fn no_acknowledged_commit_is_lost_to_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let mut acknowledged_total = 0;
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer_child", "--exact", "--nocapture"])
            .env(WRITER_STORE, &store)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut last_acknowledged = None;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = round % 7 + 1;
        let mut seen = 0;
        for line in lines.by_ref().map_while(Result::ok) {
            // The test runner's own words may stand in front on the same line.
            if let Some((_, number)) = line.rsplit_once("acknowledged ") {
                last_acknowledged = number.trim().parse::<usize>().ok();
                seen += 1;
                if seen == wanted {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let last = last_acknowledged.expect("the writer acknowledged something before it died");
        let database = Database::open(&store).expect("every open succeeds after a kill");
        let found = count_documents(&database);
        assert!(found > last, "round {round}: {last} was acknowledged, {found} documents are left");
        let record = database
            .read(&counter_gen(), &database.document_id(&format!("{last:08}")))
            .unwrap()
            .expect("the acknowledged document is there");
        assert_eq!(record.get("label"), Some(&Value::from(format!("document {last}"))));
        assert_eq!(record.get("count"), Some(&Value::from(1i64)));
        acknowledged_total += seen;
    }
    println!("{KILLS} kills, {acknowledged_total} acknowledged commits, none lost");
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn exchange(from: &Database, to: &Database) {
    let (source, target) =
        (from.replication("default").unwrap(), to.replication("default").unwrap());
    let lacking = source.frame_since(&target.durable_vector(), usize::MAX).unwrap();
    if let Some(frame) = lacking {
        target.apply_frame(&frame.bytes).unwrap();
    }
}

#[test]
fn a_copied_store_is_a_replica_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (original, copy) = (folder.path().join("original"), folder.path().join("copy"));
    let key = {
        let database = Database::open(&original).unwrap();
        database.create(&counter_gen(), &database.document_id("shared"), &[]).unwrap();
        database.replica_key()
    };
    copy_folder(&original, &copy);
    let (left, right) = (Database::open(&original).unwrap(), Database::open(&copy).unwrap());
    assert_eq!(left.replica_key(), key, "the original keeps its key");
    assert_ne!(right.replica_key(), key, "the copy has minted one");
    for (database, name) in [(&left, "left"), (&right, "right")] {
        database.create(&counter_gen(), &database.document_id(name), &[]).unwrap();
        let shared = database.document_id("shared");
        database.update(&counter_gen(), &shared, &[("count", 1i64.into())]).unwrap();
    }
    exchange(&left, &right);
    exchange(&right, &left);
    for database in [&left, &right] {
        let keys: Vec<String> =
            database.list(&counter_gen()).unwrap().into_iter().map(|record| record.key).collect();
        assert_eq!(keys, ["left", "right", "shared"]);
        let shared = database.read(&counter_gen(), &database.document_id("shared")).unwrap();
        assert_eq!(shared.unwrap().get("count"), Some(&Value::from(2i64)));
    }
    let (left, right) =
        (left.replication("default").unwrap(), right.replication("default").unwrap());
    assert_eq!(left.durable_vector().replica_count(), 2);
    assert_eq!(left.fingerprint().unwrap(), right.fingerprint().unwrap());
}

#[test]
fn a_store_reopens_as_it_was_across_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let before = {
        let database = Database::open(folder.path()).unwrap();
        let fast = database.with_durability(Durability::Eventual);
        // Enough log for several checkpoints, with rows that are written again later.
        for number in 0..30_000 {
            let id = fast.document_id(&format!("{:05}", number * 7919 % 20_000));
            let fields = [("label", Value::from(format!("label {number}")))];
            if number < 20_000 {
                fast.create(&counter_gen(), &id, &fields).unwrap();
            } else {
                fast.update(&counter_gen(), &id, &fields).unwrap();
            }
        }
        fast.delete(&counter_gen(), &fast.document_id("00007")).unwrap();
        fast.flush().unwrap();
        database.replication("default").unwrap().fingerprint().unwrap()
    };
    let database = Database::open(folder.path()).unwrap();
    assert_eq!(database.replication("default").unwrap().fingerprint().unwrap(), before);
    assert_eq!(count_documents(&database), 19_999);
    let fresh = Database::open_in_memory().unwrap();
    exchange(&database, &fresh);
    assert_eq!(fresh.replication("default").unwrap().fingerprint().unwrap(), before);
}

#[test]
fn a_second_opening_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let _open = Database::open(folder.path()).unwrap();
    let Err(refused) = Database::open(folder.path()) else { panic!("opened twice") };
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
}

/// While a compaction has the pages closed, the lock of the journal is all that there is.
#[test]
fn the_lock_of_the_journal_alone_keeps_others_out() {
    let folder = tempfile::tempdir().unwrap();
    drop(Database::open(folder.path()).unwrap());
    let journal = std::fs::File::open(folder.path().join("store.journal")).unwrap();
    journal.lock().unwrap();
    let pages = std::fs::File::open(folder.path().join("store.redb")).unwrap();
    let Err(refused) = Database::open(folder.path()) else { panic!("opened beside its owner") };
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    // It has not touched the pages either, which their owner is about to open.
    pages.try_lock().unwrap();
    drop((journal, pages));
    Database::open(folder.path()).unwrap();
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    std::fs::write(&file, b"this is no database").unwrap();
    let Err(refused) = Database::open(folder.path()) else { panic!("opened garbage") };
    assert!(matches!(refused, Error::Open { .. }), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), b"this is no database");
}
