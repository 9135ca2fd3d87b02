//! What durability costs: a commit to the journal beside one to redb with and without quick repair,
//! and what opening takes after the process was killed.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::documents::{fill, record_gen};
use criterion::{Criterion, criterion_group, criterion_main};
use redb::TableDefinition;
use vudo_state::Database;
use vudo_state::storage::{Folder, NativeStorage, Storage, WriteBatch};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
/// What a small change and its index entry take up.
const VALUE_BYTES: usize = 100;

fn redb_with(path: &Path) -> redb::Database {
    redb::Database::builder().create(path).expect("a new file")
}

fn commit_to_redb(pages: &redb::Database, number: u64, has_quick_repair: bool, value: &[u8]) {
    let mut transaction = pages.begin_write().expect("the file is open");
    transaction.set_quick_repair(has_quick_repair);
    let mut table = transaction.open_table(ENTRIES).expect("a table");
    table.insert(number, value).expect("an entry");
    drop(table);
    transaction.commit().expect("the disk takes it");
}

fn commits(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "storage/commit_100_bytes");
    let folder = tempfile::tempdir().expect("a folder");
    let value = [7; VALUE_BYTES];
    let storage = NativeStorage::open(Folder(folder.path().to_owned())).expect("a new store");
    let mut number = 0u64;
    group.bench_function("journal", |bencher| {
        bencher.iter(|| {
            number += 1;
            let mut batch = WriteBatch::default();
            batch.put(number.to_be_bytes().to_vec(), value.to_vec());
            storage.commit(&batch).expect("the disk takes it");
        });
    });
    for (name, has_quick_repair) in [("redb_one_sync", false), ("redb_quick_repair", true)] {
        let pages = redb_with(&folder.path().join(name));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                number += 1;
                commit_to_redb(&pages, number, has_quick_repair, &value);
            });
        });
    }
    group.finish();
}

/// What SIGKILL leaves: the files as they are while a store is open.
struct Killed {
    folder: tempfile::TempDir,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Killed {
    fn of(folder: tempfile::TempDir) -> Killed {
        let entries = std::fs::read_dir(folder.path()).expect("a folder");
        let files = entries.map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a file");
            (path, bytes)
        });
        let files = files.collect();
        Killed { folder, files }
    }

    /// Puts back what was left, into the same files: a store knows its own from copies. They are
    /// synced, for opening would wait for that otherwise.
    fn put_back(&self) {
        for (path, bytes) in &self.files {
            std::fs::write(path, bytes).expect("the file takes what it had");
            let file = std::fs::File::open(path).expect("the file");
            file.sync_all().expect("the disk takes it");
        }
    }
}

fn opening_after_a_kill(criterion: &mut Criterion) {
    let gen_schema = record_gen();
    let mut group = common::group(criterion, "storage/open_after_kill_and_read_one");
    for count in [1_000, 100_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::open(folder.path()).expect("a new store");
        fill(&database, &gen_schema, count);
        // In a pause the tables follow the log.
        std::thread::sleep(Duration::from_millis(400));
        let killed = Killed::of(folder);
        drop(database);
        group.bench_function(format!("store_{count}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let run = || {
                    killed.put_back();
                    open_one(killed.folder.path(), count)
                };
                (0..iterations).map(|_| run()).sum()
            });
        });
    }
    for (name, has_quick_repair) in [("redb_repair", false), ("redb_quick_repair", true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pages");
        let pages = redb_with(&path);
        let value = [7; 8 << 10];
        // As many bytes as 100,000 records of a kilobyte.
        for start in (0..12_500).step_by(1_250) {
            let mut transaction = pages.begin_write().expect("the file is open");
            transaction.set_quick_repair(has_quick_repair);
            let mut table = transaction.open_table(ENTRIES).expect("a table");
            (start..start + 1_250).for_each(|number| {
                table.insert(number, &value[..]).expect("an entry");
            });
            drop(table);
            transaction.commit().expect("the disk takes it");
        }
        let killed = Killed::of(folder);
        drop(pages);
        group.bench_function(format!("{name}_100_MB"), |bencher| {
            bencher.iter_custom(|iterations| {
                let run = || {
                    killed.put_back();
                    let start = Instant::now();
                    let pages = redb_with(&path);
                    let elapsed = start.elapsed();
                    drop(pages);
                    elapsed
                };
                (0..iterations).map(|_| run()).sum::<Duration>()
            });
        });
    }
    group.finish();
}

fn open_one(path: &Path, count: u64) -> Duration {
    let start = Instant::now();
    let database = Database::open(path).expect("what a kill leaves opens");
    let id = database.document_id("record777");
    let record = database.read(&record_gen(), &id).expect("it can be read");
    let elapsed = start.elapsed();
    assert_eq!(record.is_some(), count > 777);
    elapsed
}

criterion_group!(benches, commits, opening_after_a_kill);
criterion_main!(benches);
