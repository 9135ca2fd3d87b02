//! The engine on a disk that is slow, fails, or stops between any two commits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType, VersionVector};
use vudo_state::storage::{MemoryStorage, Storage, StorageError, WriteBatch};
use vudo_state::{Database, Durability};

/// A disk that does what a test asks of it.
#[derive(Default)]
struct Disk {
    inner: MemoryStorage,
    commit_duration: Duration,
    commit_count: AtomicUsize,
    is_full: AtomicBool,
    /// Whether it takes the log and no tables.
    refuses_tables: AtomicBool,
    /// What goes to disk with the next batch.
    put_off: Mutex<WriteBatch>,
    /// Called whenever a batch is on its way to the disk.
    meanwhile: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    /// Every batch that has been committed: the disk after a crash is what some of the first of
    /// them left.
    batches: Mutex<Vec<WriteBatch>>,
}

impl Storage for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.inner.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.inner.scan(from, to, visit)
    }

    fn commit(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StorageError::new("no space left on the disk"));
        }
        let has_tables = batch.writes.iter().any(|(key, _)| key.starts_with(b"k"));
        if has_tables && self.refuses_tables.load(Ordering::SeqCst) {
            return Err(StorageError::new("no space left for tables"));
        }
        // It may commit too, so it is not locked while it runs.
        let meanwhile = self.meanwhile.lock().unwrap().clone();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        std::thread::sleep(self.commit_duration);
        self.commit_count.fetch_add(1, Ordering::SeqCst);
        let mut whole = std::mem::take(&mut *self.put_off.lock().unwrap());
        whole.writes.extend(batch.writes.iter().cloned());
        self.batches.lock().unwrap().push(whole);
        self.inner.commit(batch)
    }

    fn commit_while(&self, batch: &WriteBatch, work: &mut dyn FnMut()) -> Result<(), StorageError> {
        work();
        self.commit(batch)
    }

    fn commit_later(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.put_off.lock().unwrap().writes.extend(batch.writes.iter().cloned());
        self.inner.commit(batch)
    }

    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }
}

fn task() -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Task", [title])
}

fn open(disk: &Arc<Disk>) -> Database {
    Database::with_storage(disk.clone(), None).unwrap()
}

fn create(database: &Database, key: &str) -> vudo_state::Result<()> {
    database.create(&task(), &database.document_id(key), &[("title", key.into())])
}

fn keys(database: &Database) -> Vec<String> {
    database.list(&task()).unwrap().into_iter().map(|record| record.key).collect()
}

#[test]
fn durable_commits_of_many_threads_share_the_disk_s_syncs() {
    const THREADS: usize = 8;
    const COMMITS: usize = 25;
    let commit_duration = Duration::from_millis(2);
    let disk = Arc::new(Disk { commit_duration, ..Disk::default() });
    let database = open(&disk);
    create(&database, "first").unwrap();
    let before = disk.commit_count.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let database = &database;
            scope.spawn(move || {
                for number in 0..COMMITS {
                    create(database, &format!("{thread} {number}")).unwrap();
                }
            });
        }
    });
    let commits = disk.commit_count.load(Ordering::SeqCst) - before;
    assert_eq!(keys(&database).len(), 1 + THREADS * COMMITS);
    // One thread alone needs as many as it commits; all of them together hardly more.
    assert!(commits < THREADS * COMMITS / 2, "{commits} commits to disk");
}

#[test]
fn readers_wait_for_no_sync() {
    let commit_duration = Duration::from_millis(40);
    let disk = Arc::new(Disk { commit_duration, ..Disk::default() });
    let database = open(&disk);
    create(&database, "first").unwrap();
    let is_done = AtomicBool::new(false);
    let (read_count, longest) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut read_count, mut longest) = (0, Duration::ZERO);
            while !is_done.load(Ordering::SeqCst) {
                let start = std::time::Instant::now();
                let id = database.document_id("first");
                assert!(database.read(&task(), &id).unwrap().is_some());
                longest = longest.max(start.elapsed());
                read_count += 1;
                // Gives the writer its turn where there is one core.
                std::thread::sleep(Duration::from_micros(50));
            }
            (read_count, longest)
        });
        // Long enough for the tables to be written, which needs a sync as well.
        let long = "x".repeat(300_000);
        for number in 0..8 {
            let id = database.document_id(&format!("{number}"));
            database.create(&task(), &id, &[("title", long.as_str().into())]).unwrap();
        }
        is_done.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    let commit_count = disk.commit_count.load(Ordering::SeqCst);
    assert!(commit_count > 9, "the tables were written too: {commit_count} commits");
    assert!(read_count > 100, "{read_count} reads");
    println!("{read_count} reads during {commit_count} syncs of 40 ms; the longest: {longest:?}");
    assert!(longest < commit_duration, "a reader waited for {longest:?}");
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let disk = Arc::new(Disk::default());
    let database = open(&disk);
    create(&database, "before").unwrap();
    disk.is_full.store(true, Ordering::SeqCst);
    let error = create(&database, "meanwhile").unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
    let fast = database.with_durability(Durability::Eventual);
    create(&fast, "eventually").unwrap();
    assert!(fast.flush().is_err());
    let durable = database.replication("default").unwrap().durable_vector();
    assert_eq!(durable.change_count(), 1, "what is not durable is not announced");

    disk.is_full.store(false, Ordering::SeqCst);
    create(&database, "after").unwrap();
    drop((database, fast));
    assert_eq!(keys(&open(&disk)), ["after", "before", "eventually", "meanwhile"]);
}

#[test]
fn a_change_is_durable_and_told_where_the_tables_cannot_follow() {
    let disk = Arc::new(Disk::default());
    let database = open(&disk);
    let replication = database.replication("default").unwrap();
    let told_count = Arc::new(AtomicUsize::new(0));
    let counter = told_count.clone();
    let _listener = replication.on_durable(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    disk.refuses_tables.store(true, Ordering::SeqCst);
    // Long enough for the tables to be written after some of them.
    let long = "x".repeat(300_000);
    for number in 1..=6 {
        let id = database.document_id(&format!("{number}"));
        database.create(&task(), &id, &[("title", long.as_str().into())]).expect("it is durable");
        assert_eq!(replication.durable_vector().change_count(), number);
        assert_eq!(told_count.load(Ordering::SeqCst), number as usize);
    }
    let reopened = open(&crashed(&disk.batches.lock().unwrap()));
    assert_eq!(keys(&reopened), ["1", "2", "3", "4", "5", "6"]);
    let table_count = || {
        let mut count = 0;
        let visit = &mut |_: &[u8], _: &[u8]| {
            count += 1;
            true
        };
        disk.scan(b"t", b"u", visit).unwrap();
        count
    };
    assert_eq!(table_count(), 0, "tables were due and refused");
    disk.refuses_tables.store(false, Ordering::SeqCst);
    create(&database, "after").unwrap();
    assert!(table_count() > 0, "the next flush tries again");
}

#[test]
fn small_frames_of_many_peers_share_the_disk_s_syncs() {
    const PEERS: usize = 8;
    const FRAMES: usize = 25;
    let disk = Arc::new(Disk { commit_duration: Duration::from_millis(2), ..Disk::default() });
    let database = open(&disk);
    let target = database.replication("default").unwrap();
    let before = disk.commit_count.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for peer in 0..PEERS {
            let target = &target;
            scope.spawn(move || {
                let database = open(&Arc::default());
                let source = database.replication("default").unwrap();
                for number in 0..FRAMES {
                    let since = source.durable_vector();
                    create(&database, &format!("{peer} {number}")).unwrap();
                    let frame = source.frame_since(&since, usize::MAX).unwrap().unwrap();
                    target.apply_frame(&frame.bytes).unwrap();
                }
            });
        }
    });
    let syncs = disk.commit_count.load(Ordering::SeqCst) - before;
    println!("{} frames of {PEERS} peers, {syncs} syncs", PEERS * FRAMES);
    assert_eq!(keys(&database).len(), PEERS * FRAMES);
    assert!(syncs < PEERS * FRAMES / 2, "{syncs} syncs");
}

/// Puts these values in place of those of all chunks, and gives what those were.
fn replace_chunks(disk: &Disk, values: Option<&WriteBatch>) -> WriteBatch {
    let (mut before, mut damaged) = (WriteBatch::default(), WriteBatch::default());
    let visit = &mut |key: &[u8], value: &[u8]| {
        before.put(key.to_vec(), value.to_vec());
        damaged.put(key.to_vec(), b"no chunk".to_vec());
        true
    };
    disk.scan(b"c", b"d", visit).unwrap();
    disk.inner.commit(values.unwrap_or(&damaged)).unwrap();
    before
}

#[test]
fn a_frame_that_a_crash_has_left_waits_while_its_document_is_damaged() {
    let disk = Arc::new(Disk::default());
    let (database, peer) = (open(&disk), open(&Arc::default()));
    let make = |number: u32| (format!("{number:05}"), number);
    let documents: Vec<(String, u32)> = (0..3_000).map(make).collect();
    database
        .transaction(|transaction| {
            documents.iter().try_for_each(|(key, _)| transaction.create(&task(), key).map(drop))
        })
        .unwrap();
    let (replication, of_peer) =
        (database.replication("default").unwrap(), peer.replication("default").unwrap());
    let frame = replication.frame_since(&VersionVector::new(), usize::MAX).unwrap().unwrap();
    of_peer.apply_frame(&frame.bytes).unwrap();
    drop((replication, database));
    let set = |title: &str| {
        peer.update(&task(), &peer.document_id("01500"), &[("title", title.into())]).unwrap();
    };
    let title_in = |database: &Database| {
        let record = database.read(&task(), &database.document_id("01500")).unwrap();
        record.unwrap().get("title").cloned()
    };
    let receive = |database: &Database| {
        let target = database.replication("default").unwrap();
        let frame = of_peer.frame_since(&target.durable_vector(), usize::MAX).unwrap().unwrap();
        target.apply_frame(&frame.bytes)
    };

    let database = open(&disk);
    set("before the crash");
    receive(&database).unwrap();
    let left = crashed(&disk.batches.lock().unwrap());
    let chunks = replace_chunks(&left, None);
    assert!(!chunks.writes.is_empty());
    let database = open(&left);
    let other = GenSchema::new("Other", []);
    database.create(&other, &database.document_id("flushed"), &[]).unwrap();
    assert!(receive(&database).is_err(), "its document cannot be read");
    drop(database);
    replace_chunks(&left, Some(&chunks));
    assert_eq!(title_in(&open(&left)), Some("before the crash".into()));
}

#[test]
fn a_frame_is_at_hand_once_it_is_durable_and_is_the_one_that_the_disk_has() {
    let disk = Arc::new(Disk::default());
    let (source, target) = (open(&disk), open(&Arc::default()));
    let (source, target) = (&source, target.replication("default").unwrap());
    let replication = source.replication("default").unwrap();
    let _listener = replication.on_durable(|| ());
    let sealed = replication.clone();
    *disk.meanwhile.lock().unwrap() = Some(Arc::new(move || {
        let frame = sealed.frame_at_hand(&sealed.durable_vector());
        assert!(frame.is_none(), "a frame of what is not durable");
    }));
    for number in 0..20 {
        let since = target.durable_vector();
        if number % 5 == 4 {
            disk.is_full.store(true, Ordering::SeqCst);
            create(source, &format!("refused {number}")).unwrap_err();
            assert!(replication.frame_at_hand(&since).is_none());
            disk.is_full.store(false, Ordering::SeqCst);
        }
        create(source, &format!("{number}")).unwrap();
        let frame = replication.frame_at_hand(&since).expect("it is sealed and durable");
        let read = replication.frame_since(&since, usize::MAX).unwrap().unwrap();
        assert_eq!((&frame.bytes, &frame.vector), (&read.bytes, &read.vector));
        assert_eq!(frame.vector, replication.durable_vector());
        assert!(replication.frame_at_hand(&VersionVector::new()).is_none() || number == 0);
        assert_eq!(target.apply_frame(&frame.bytes).unwrap().changes, frame.changes);
        assert!(replication.frame_at_hand(&target.durable_vector()).is_none());
    }
}

#[test]
fn what_is_written_while_a_frame_arrives_is_synced_as_well() {
    let disk = Arc::new(Disk::default());
    let (database, peer) = (open(&disk), open(&Arc::default()));
    create(&peer, "theirs").unwrap();
    // Opening the namespace is a commit too.
    let replication = database.replication("default").unwrap();
    let eventual = database.with_durability(Durability::Eventual);
    let is_written = AtomicBool::new(false);
    *disk.meanwhile.lock().unwrap() = Some(Arc::new(move || {
        if !is_written.swap(true, Ordering::SeqCst) {
            create(&eventual, "own").unwrap();
        }
    }));
    let of_peer = peer.replication("default").unwrap();
    let frame = of_peer.frame_since(&VersionVector::new(), usize::MAX).unwrap().unwrap();
    replication.apply_frame(&frame.bytes).unwrap();
    *disk.meanwhile.lock().unwrap() = None;
    database.flush().unwrap();
    let after_crash = crashed(&disk.batches.lock().unwrap());
    assert_eq!(keys(&open(&after_crash)), ["own", "theirs"]);
}

/// The disk as it was after so many batches.
fn crashed(batches: &[WriteBatch]) -> Arc<Disk> {
    let disk = Disk::default();
    batches.iter().for_each(|batch| disk.inner.commit(batch).unwrap());
    Arc::new(disk)
}

#[test]
fn whatever_the_moment_of_a_crash_what_was_acknowledged_is_there_and_nothing_is_torn() {
    let disk = Arc::new(Disk::default());
    let database = open(&disk);
    // How many batches were on disk when each transaction was acknowledged.
    let mut acknowledged = Vec::new();
    let long = "x".repeat(20_000);
    for number in 0..120 {
        database
            .transaction(|transaction| {
                for side in ["left", "right"] {
                    let key = format!("{number:03} {side}");
                    transaction.create(&task(), &key)?;
                    transaction.set(&task(), &key, "title", long.as_str())?;
                }
                Ok(())
            })
            .unwrap();
        acknowledged.push(disk.batches.lock().unwrap().len());
    }
    let batches = disk.batches.lock().unwrap().clone();
    let checkpoint_count = batches.len() - acknowledged.len();
    assert!(checkpoint_count > 3, "the log was long enough for the tables to be written");
    for count in acknowledged[0]..=batches.len() {
        let reopened = open(&crashed(&batches[..count]));
        let expected = acknowledged.iter().filter(|at| **at <= count).count();
        let keys = keys(&reopened);
        assert_eq!(keys.len() % 2, 0, "half a transaction after {count} batches");
        assert!(keys.len() / 2 >= expected, "{} of {expected} after {count}", keys.len() / 2);
        create(&reopened, "goes on").unwrap();
    }
}
