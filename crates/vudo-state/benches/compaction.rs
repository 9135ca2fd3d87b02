//! What compaction frees and how long it takes, with a reader and a writer that go on: a history of
//! overwrites, and 100,000 documents that have been deleted.
//!
//! ```text
//! compaction/overwrites   10,000 documents, each written 20 times over, a change each time
//! compaction/deleted      100,000 documents, created in the order of their keys and deleted in
//!                         another, in changes of 1,000: with a text of some 120 bytes each, and, which
//!                         has no promise, with a name of some 12
//! ```
//!
//! What stays of a deleted document is its key and some numbers, in its table and in the log. So the
//! part that is freed depends on what there was beside the key. It is told of what the documents took
//! up in a store that had never been compacted, and of what they took up in one that had: there the
//! log is packed already. The promise is held against the second.
//!
//! Each prints how much of the disk was freed and the longest that a read and a durable write took
//! meanwhile. A compaction cannot be repeated on the same store, so every run makes a store anew, and
//! criterion has no row here.

#[path = "common/documents.rs"]
mod documents;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use documents::{fill, key, record_gen};
use vudo_crdt::GenSchema;
use vudo_state::{CompactionReport, Database, Durability, Transaction};
use vudo_testkit::Random;

const OVERWRITTEN_COUNT: u64 = 10_000;
const OVERWRITES_EACH: u64 = 20;
const DELETED_COUNT: u64 = 100_000;
/// Has no divisor in common with the count, so that every document comes up once, far from the last.
const SCATTER: u64 = 7_919;
const WORD_COUNT: usize = 2_000;

/// What a reader or a writer saw while a compaction went on.
#[derive(Default)]
struct Seen {
    count: u64,
    longest: Duration,
}

impl Seen {
    fn go_on(is_over: &AtomicBool, mut run: impl FnMut(u64)) -> Seen {
        let mut seen = Seen::default();
        while !is_over.load(Ordering::Relaxed) {
            let start = Instant::now();
            run(seen.count);
            seen.longest = seen.longest.max(start.elapsed());
            seen.count += 1;
        }
        seen
    }
}

/// Compacts while one thread reads and another writes durably.
fn compact(name: &str, database: &Database, gen_schema: &GenSchema) -> CompactionReport {
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    let (report, elapsed, reads, writes) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            Seen::go_on(&is_over, |count| {
                let id = database.document_id(&key(count % OVERWRITTEN_COUNT));
                database.read(gen_schema, &id).expect("the store can be read");
            })
        });
        let writer = scope.spawn(|| {
            Seen::go_on(&is_over, |count| {
                let id = database.document_id(&format!("meanwhile {count}"));
                database.create(gen_schema, &id, &[]).expect("the store can be written to");
            })
        });
        let report = database.compact().expect("the store is in order");
        let elapsed = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let (reads, writes) = (reader.join(), writer.join());
        (report, elapsed, reads.expect("it reads"), writes.expect("it writes"))
    });
    println!(
        "compaction/{name}: {elapsed:.2?}; {} of {} changes dropped, {} of {} log bytes; meanwhile \
         {} reads, the longest {:.1?}, and {} durable writes, the longest {:.1?}",
        report.dropped_changes,
        report.changes,
        report.freed_log_bytes,
        report.log_bytes,
        reads.count,
        reads.longest,
        writes.count,
        writes.longest
    );
    report
}

fn percent(freed: u64, held: u64) -> f64 {
    100.0 * freed as f64 / held as f64
}

fn overwrites(gen_schema: &GenSchema) {
    let folder = tempfile::tempdir().expect("a folder for a store");
    let database = Database::open(folder.path()).expect("a new store");
    fill(&database, gen_schema, OVERWRITTEN_COUNT);
    let fast = database.with_durability(Durability::Eventual);
    for round in 0..OVERWRITES_EACH {
        for number in 0..OVERWRITTEN_COUNT {
            let id = fast.document_id(&key(number));
            let fields = [("name", format!("Record {number}, round {round}").into())];
            fast.update(gen_schema, &id, &fields).expect("the document is there");
        }
    }
    database.flush().expect("the disk takes what is pending");
    let report = compact("overwrites", &database, gen_schema);
    let (before, after) = (report.disk_bytes_before, report.disk_bytes);
    let freed = percent(before.saturating_sub(after), before);
    println!("compaction/overwrites: {before} bytes on disk, then {after}: {freed:.0} % freed");
    assert!(freed >= 50.0, "the promise is 50 %");
}

/// Texts of this many bytes or a few less, of words that come up again and again as those of a language
/// do.
struct Texts {
    words: Vec<String>,
    random: Random,
}

impl Texts {
    fn new() -> Texts {
        let mut random = Random::new(1);
        let mut letters = || {
            let count = random.between(2, 10);
            (0..count).map(|_| (b'a' + random.below(26) as u8) as char).collect()
        };
        let words = (0..WORD_COUNT).map(|_| letters()).collect();
        Texts { words, random }
    }

    fn next(&mut self, bytes_max: usize) -> String {
        let mut text = String::new();
        loop {
            let word = &self.words[self.random.below(WORD_COUNT)];
            if text.len() + word.len() > bytes_max {
                return text;
            }
            text.push_str(word);
            text.push(' ');
        }
    }
}

/// Runs something for each document, in changes of 1,000.
fn for_each_document(
    database: &Database,
    mut run: impl FnMut(&mut Transaction<'_>, u64) -> vudo_state::Result<()>,
) {
    let fast = database.with_durability(Durability::Eventual);
    for start in (0..DELETED_COUNT).step_by(1_000) {
        fast.transaction(|transaction| {
            (start..start + 1_000).try_for_each(|number| run(transaction, number))
        })
        .expect("the transaction is in order");
    }
    database.flush().expect("the disk takes what is pending");
}

/// Gives how much was freed of what a compacted store held, in percent.
fn deleted(gen_schema: &GenSchema, name_bytes: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a folder for a store");
    let open = || Database::open(folder.path()).expect("a store");
    let database = open();
    database.compact().expect("an empty store");
    let empty = database.disk_bytes();
    let mut texts = Texts::new();
    for_each_document(&database, |transaction, number| {
        transaction.create(gen_schema, &key(number))?;
        transaction.set(gen_schema, &key(number), "id", number as i64)?;
        transaction.set(gen_schema, &key(number), "name", texts.next(name_bytes))?;
        transaction.set(gen_schema, &key(number), "value", number as i64)
    });
    // Closing cuts the file to its size.
    drop(database);
    let database = open();
    let held_before = database.disk_bytes() - empty;
    database.compact().expect("the store is in order");
    let held = database.disk_bytes() - empty;
    for_each_document(&database, |transaction, number| {
        let scattered = number * SCATTER % DELETED_COUNT;
        transaction.delete(gen_schema, &key(scattered))
    });
    let left = compact("deleted", &database, gen_schema).disk_bytes.saturating_sub(empty);
    let freed = percent(held.saturating_sub(left), held);
    let freed_before = percent(held_before.saturating_sub(left), held_before);
    println!(
        "compaction/deleted: a text of {name_bytes} bytes each: {left} bytes are left of {held_before}, \
         and of {held} once they had been compacted: {freed_before:.0} % and {freed:.0} % freed"
    );
    let again = database.compact().expect("the store is in order");
    let tombstones = again.disk_bytes.saturating_sub(empty);
    println!(
        "compaction/deleted: once more, with nobody beside it: {tombstones} are left, {:.1} % and {:.1} %",
        percent(tombstones, held_before),
        percent(tombstones, held)
    );
    freed
}

fn main() {
    let gen_schema = record_gen();
    overwrites(&gen_schema);
    deleted(&gen_schema, 12);
    assert!(deleted(&gen_schema, 120) >= 80.0, "the promise is 80 %");
}
