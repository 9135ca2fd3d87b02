//! What is told when a store's files are not what they should be: flipped bits, a full disk, a folder
//! that cannot be written, other versions.

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::TableDefinition;
use vudo_crdt::wire::{Reader, write_bytes, write_varint};
use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
use vudo_state::storage::{Folder, NativeStorage, Storage, WriteBatch};
use vudo_state::{Database, Durability, Error, Record};
use vudo_testkit::Random;
use vudo_testkit::files::{CrashingFiles, Failure};

const FLIPS: usize = 400;

fn note_gen() -> GenSchema {
    let text = FieldSchema::new("text", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Note", [text])
}

fn write(database: &Database, number: u64) -> vudo_state::Result<()> {
    let id = database.document_id(&format!("note {number:05}"));
    let text = format!("text {number} ").repeat(20);
    database.create(&note_gen(), &id, &[("text", text.into())])
}

fn filled(count: u64) -> CrashingFiles {
    let disk = CrashingFiles::new(9);
    let database = common::open(&disk).unwrap();
    let fast = database.with_durability(Durability::Eventual);
    (0..count).for_each(|number| write(&fast, number).unwrap());
    drop(fast);
    drop(database);
    disk
}

/// What can be read of a store, document by document, or why it does not open.
fn readable(disk: &CrashingFiles, count: u64) -> Result<BTreeMap<String, Record>, String> {
    let database = common::open(disk)?;
    let mut found = BTreeMap::new();
    for number in 0..count {
        let id = database.document_id(&format!("note {number:05}"));
        // An error says what is damaged; to say that there is no such document would be a lie.
        if let Ok(record) = database.read(&note_gen(), &id) {
            let record = record.unwrap_or_else(|| panic!("note {number} is gone without a word"));
            found.insert(record.key.clone(), record);
        }
    }
    Ok(found)
}

#[test]
fn a_flipped_bit_is_told_and_never_shows_as_a_value() {
    const COUNT: u64 = 2_000;
    let whole = filled(COUNT);
    let intact = readable(&whole.copy(1), COUNT).unwrap();
    assert_eq!(intact.len() as u64, COUNT);
    let bits = whole.file("store.redb").len().unwrap() as usize * 8;
    let (mut refused, mut partly, mut unharmed, mut panicked) = (0, 0, 0, 0);
    let mut random = Random::new(11);
    for _ in 0..FLIPS {
        let disk = whole.copy(1);
        let bit = random.next_u64() as usize % bits;
        disk.flip_bit("store.redb", bit);
        match catch_unwind(AssertUnwindSafe(|| readable(&disk, COUNT))) {
            Err(_) => panicked += 1,
            Ok(Err(_)) => refused += 1,
            Ok(Ok(found)) => {
                for (key, record) in &found {
                    assert_eq!(Some(record), intact.get(key), "bit {bit} changed {key}");
                }
                if found.len() == intact.len() { unharmed += 1 } else { partly += 1 }
            }
        }
    }
    println!(
        "{FLIPS} flipped bits: {unharmed} in free space, {partly} cost some documents, {refused} \
         kept the store from opening, {panicked} panicked"
    );
    assert_eq!(panicked, 0);
    assert!(partly > FLIPS / 20, "flips reach the documents");
}

#[test]
fn a_flipped_bit_in_the_journal_is_told() {
    let disk = CrashingFiles::new(3);
    let database = common::open(&disk).unwrap();
    (0..20).for_each(|number| write(&database, number).unwrap());
    let disk = disk.kill_process();
    drop(database);
    // Twenty records of some hundreds of bytes: what lies behind them is not looked at.
    let bits = 8 * 20 * 200;
    let (mut told, mut random) = (0, Random::new(5));
    for _ in 0..FLIPS {
        let damaged = disk.copy(1);
        damaged.flip_bit("store.journal", random.next_u64() as usize % bits);
        match readable(&damaged, 19) {
            // Behind the last record, or in it: that one looks like the torn end of a crash.
            Ok(found) => assert_eq!(found.len(), 19),
            Err(refusal) => {
                assert!(refusal.contains("journal: record"), "{refusal}");
                told += 1;
            }
        }
    }
    assert!(told > FLIPS / 2, "{told} flips were told");
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room_again() {
    let disk = CrashingFiles::new(4);
    let database = common::open(&disk).unwrap();
    (0..50).for_each(|number| write(&database, number).unwrap());
    disk.fail(Some(Failure::FullFrom(0)));
    let mut refused = Vec::new();
    // The journal has room in its file for a while; then it has none, and neither have the pages.
    for number in 50..6_000 {
        if let Err(error) = write(&database, number) {
            assert!(error.to_string().contains("disk failed"), "{error}");
            refused.push(number);
            if refused.len() > 3 {
                break;
            }
        }
    }
    assert!(refused.len() > 3, "the disk was full");
    let first = &database.read(&note_gen(), &database.document_id("note 00000")).unwrap();
    assert!(first.is_some(), "a full disk can be read");
    disk.fail(None);
    write(&database, 7_000).unwrap();
    let expected = database.list(&note_gen()).unwrap();
    // The power goes at once: whatever has been acknowledged is on the disk.
    let after = disk.crash();
    drop(database);
    assert_eq!(common::open(&after).unwrap().list(&note_gen()).unwrap(), expected);
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    // Whoever may do everything may also write into this folder, but not into a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let refused = Database::open(file.join("store")).err().expect("no folder");
    assert!(matches!(refused, Error::Open { .. }), "{refused}");
    let message = refused.to_string();
    assert!(message.contains("file/store") && message.contains("os error"), "{message}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
        if std::fs::write(closed.join("probe"), b"").is_ok() {
            let test = "a_folder_that_cannot_be_written_is_told";
            vudo_testkit::skip::no_privilege(test, "to be refused: this user may write anywhere");
            return;
        }
        let refused = Database::open(&closed).err().expect("a folder that is closed");
        assert!(refused.to_string().contains("denied"), "{refused}");
    }
}

const OLD_ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// A store as format version 3 kept it: one table without checksums, and no journal.
fn old_store(folder: &std::path::Path, version: u32) -> Vec<Record> {
    let new = folder.join("new");
    let records = {
        let database = Database::open(&new).unwrap();
        (0..300).for_each(|number| write(&database, number).unwrap());
        database.list(&note_gen()).unwrap()
    };
    let old = folder.join("old");
    std::fs::create_dir(&old).unwrap();
    let pages = redb::Database::create(old.join("store.redb")).unwrap();
    let transaction = pages.begin_write().unwrap();
    {
        let mut table = transaction.open_table(OLD_ENTRIES).unwrap();
        let storage = NativeStorage::open(Folder(new)).unwrap();
        let mut copy = |key: &[u8], value: &[u8]| {
            let is_log = key.first() == Some(&b'l');
            let value = if is_log { log_of_format_3(value) } else { value.to_vec() };
            table.insert(key, value.as_slice()).unwrap();
            true
        };
        storage.scan(&[], &[0xFF], &mut copy).unwrap();
        table.insert(&b"mformat"[..], &version.to_be_bytes()[..]).unwrap();
    }
    transaction.commit().unwrap();
    records
}

/// A log record as format version 3 had it: a change's body began with the count of its documents.
fn log_of_format_3(record: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reader = Reader::new(record);
    while !reader.is_empty() {
        (0..3).for_each(|_| write_varint(&mut out, reader.varint().unwrap()));
        let mut inside = Reader::new(reader.bytes().unwrap());
        let head = inside.varint().unwrap();
        assert_eq!(head & 1, 0, "registers refer to no other replica");
        let mut body = Vec::new();
        write_varint(&mut body, head >> 1);
        body.extend_from_slice(inside.rest());
        write_bytes(&mut out, &body);
    }
    out
}

#[test]
fn a_store_of_format_version_3_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let records = old_store(folder.path(), 3);
    for _ in 0..2 {
        let database = Database::open(folder.path().join("old")).unwrap();
        assert_eq!(database.list(&note_gen()).unwrap(), records);
    }
}

/// They kept everything in a form that is still read.
#[test]
fn stores_of_format_versions_5_to_10_are_brought_up_to_date() {
    for version_before in 5u32..=10 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let database = Database::open(&path).unwrap();
        write(&database, 1).unwrap();
        drop(database);
        let version = b"mformat";
        let storage = NativeStorage::open(Folder(path.clone())).unwrap();
        let mut older = WriteBatch::default();
        older.put(version.to_vec(), version_before.to_be_bytes().to_vec());
        storage.commit(&older).unwrap();
        drop(storage);
        assert_eq!(Database::open(&path).unwrap().list(&note_gen()).unwrap().len(), 1);
        let storage = NativeStorage::open(Folder(path)).unwrap();
        assert_eq!(storage.get(version).unwrap().unwrap(), 11u32.to_be_bytes());
    }
}

type Entry = (Vec<u8>, Vec<u8>);

/// A store of values that are all alike, and how many bytes it takes up.
fn store_of_alike(folder: &std::path::Path, is_cold: bool) -> (Vec<Entry>, u64) {
    let entry = |number: u32| {
        let value = format!("a value that is much like others, {number}; ").repeat(60);
        ([b"c key ", &number.to_be_bytes()[..]].concat(), value.into_bytes())
    };
    let entries: Vec<Entry> = (0..500).map(entry).collect();
    let storage = NativeStorage::open(Folder(folder.to_owned())).unwrap();
    let mut batch = WriteBatch::default();
    for (key, value) in entries.iter().cloned() {
        match is_cold {
            true => batch.put_cold(key, value),
            false => batch.put(key, value),
        }
    }
    storage.commit(&batch).unwrap();
    assert!(storage.shrink().unwrap());
    let disk_bytes = storage.disk_bytes();
    (entries, disk_bytes)
}

#[test]
fn cold_values_take_less_room_and_are_read_like_others() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("cold"), folder.path().join("other"));
    [&path, &other].into_iter().for_each(|path| std::fs::create_dir(path).unwrap());
    let (_, bytes_of_others) = store_of_alike(&other, false);
    let (entries, disk_bytes) = store_of_alike(&path, true);
    assert!(disk_bytes < bytes_of_others / 2, "{disk_bytes} of {bytes_of_others}");
    let storage = NativeStorage::open(Folder(path.clone())).unwrap();
    for (key, value) in &entries {
        assert_eq!(storage.get(key).unwrap().as_ref(), Some(value));
    }
    let mut scanned = Vec::new();
    let mut take = |key: &[u8], value: &[u8]| {
        scanned.push((key.to_vec(), value.to_vec()));
        true
    };
    storage.scan(b"c", b"d", &mut take).unwrap();
    assert_eq!(scanned, entries);
    let verified = storage.verify(&mut |key| panic!("{} is damaged", key.escape_ascii()));
    verified.unwrap();
    drop(storage);
    // What is damaged is named, and the others are still read.
    let store = path.join("store.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    let place = bytes.windows(20).position(|part| part == b"much like others, 7;").unwrap();
    bytes[place] ^= 1;
    std::fs::write(&store, bytes).unwrap();
    let storage = NativeStorage::open(Folder(path)).unwrap();
    let error = storage.get(&entries[7].0).unwrap_err();
    assert!(error.to_string().contains("its checksum differs"), "{error}");
    assert_eq!(storage.get(&entries[8].0).unwrap().as_ref(), Some(&entries[8].1));
    let mut damaged = Vec::new();
    let verified = storage.verify(&mut |key| damaged.push(key.to_vec()));
    assert!(verified.is_err(), "the page has a checksum as well");
    assert_eq!(damaged, [entries[7].0.clone()]);
}

#[test]
fn a_store_of_another_version_is_refused_by_number_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    old_store(folder.path(), 2);
    for _ in 0..2 {
        let refused = Database::open(folder.path().join("old")).err().expect("another version");
        assert!(matches!(refused, Error::FormatVersion { found: 2, .. }), "{refused}");
    }
    let storage = NativeStorage::open(Folder(folder.path().join("new"))).unwrap();
    let mut newer = WriteBatch::default();
    newer.put(b"mformat".to_vec(), 9_999u32.to_be_bytes().to_vec());
    storage.commit(&newer).unwrap();
    drop(storage);
    let refused = Database::open(folder.path().join("new")).err().expect("a newer version");
    assert!(matches!(refused, Error::FormatVersion { found: 9_999, .. }), "{refused}");
}
