//! Who waits for a disk sync, and for whom nobody waits meanwhile: other namespaces for none of those
//! that hold one.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, ValueType, VersionVector};
use vudo_state::storage::{JournalFile, Medium, NativeStorage};
use vudo_state::{Database, Interest};
use vudo_testkit::files::CrashingFiles;

use common::on_disk::{File, OnDisk};

/// Long after everything has ended that does not wait for somebody.
const FOR_EVER: Duration = Duration::from_secs(20);

type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A disk that does something once, while a batch that has work for that time is on its way there.
struct BusyDisk {
    files: OnDisk,
    meanwhile: Meanwhile,
}

struct BusyJournal {
    file: File,
    meanwhile: Meanwhile,
}

impl Medium for BusyDisk {
    type Pages = File;
    type Journal = BusyJournal;

    fn open_pages(&self) -> std::io::Result<File> {
        self.files.open_pages()
    }

    fn open_journal(&self) -> std::io::Result<BusyJournal> {
        let meanwhile = self.meanwhile.clone();
        Ok(BusyJournal { file: self.files.open_journal()?, meanwhile })
    }

    fn byte_count(&self) -> u64 {
        0
    }
}

impl JournalFile for BusyJournal {
    fn byte_count(&self) -> std::io::Result<u64> {
        self.file.byte_count()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        JournalFile::read(&self.file, offset, out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        JournalFile::write(&self.file, offset, bytes)
    }

    fn set_byte_count(&self, byte_count: u64) -> std::io::Result<()> {
        self.file.set_byte_count(byte_count)
    }

    /// The work begins behind this.
    fn begin_write_back(&self, _: u64, _: u64) {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }

    fn sync(&self) -> std::io::Result<()> {
        self.file.sync()
    }
}

fn note() -> GenSchema {
    GenSchema::new("Note", [FieldSchema::new("text", 1, Strategy::Lww, ValueType::String)])
}

fn write(database: &Database, key: &str) {
    database.create(&note(), &database.document_id(key), &[("text", key.into())]).unwrap();
}

fn open() -> (Database, Meanwhile) {
    let meanwhile = Meanwhile::default();
    let disk = BusyDisk { files: OnDisk(CrashingFiles::new(1)), meanwhile: meanwhile.clone() };
    let storage = Arc::new(NativeStorage::open(disk).unwrap());
    (Database::with_storage(storage, None).unwrap(), meanwhile)
}

fn frame_of_a_peer() -> Vec<u8> {
    let peer = common::open(&CrashingFiles::new(2)).unwrap();
    write(&peer, "theirs");
    let frame = peer.replication("default").unwrap();
    frame.frame_since(&VersionVector::new(), usize::MAX).unwrap().unwrap().bytes
}

/// Has a transaction hold the default namespace from the moment on at which a commit of it is on its
/// way to disk, until a change of another namespace is durable. Gives whether it became so.
fn is_other_namespace_free(
    database: &Database,
    meanwhile: &Meanwhile,
    commit: impl FnOnce() + Send + 'static,
) -> bool {
    let other = database.in_namespace("other");
    // Opening a namespace is a commit too.
    write(&other, "opened");
    let (on_its_way, is_on_its_way): (Sender<()>, Receiver<()>) = channel();
    let (held, is_held): (Sender<()>, Receiver<()>) = channel();
    let (durable, is_durable): (Sender<()>, Receiver<()>) = channel();
    *meanwhile.lock().unwrap() = Some(Box::new(move || {
        on_its_way.send(()).unwrap();
        is_held.recv().unwrap();
    }));
    let committing = std::thread::spawn(commit);
    is_on_its_way.recv_timeout(FOR_EVER).expect("it has work for the time of the sync");
    let mut is_free = false;
    database
        .transaction(|_| {
            held.send(()).unwrap();
            std::thread::spawn(move || {
                write(&other, "meanwhile");
                durable.send(()).ok();
            });
            is_free = is_durable.recv_timeout(FOR_EVER).is_ok();
            Ok(())
        })
        .unwrap();
    committing.join().unwrap();
    is_free
}

#[test]
fn a_frame_for_a_namespace_that_somebody_holds_keeps_no_other_one_waiting() {
    let (database, meanwhile) = open();
    let replication = database.replication("default").unwrap();
    let frame = frame_of_a_peer();
    let apply = move || {
        let applied = replication.apply_frame(&frame).unwrap();
        assert_eq!(applied.changes, 1);
    };
    assert!(is_other_namespace_free(&database, &meanwhile, apply));
    assert_eq!(database.list(&note()).unwrap()[0].key, "theirs");
}

#[test]
fn a_change_of_a_namespace_that_somebody_holds_keeps_no_other_one_waiting() {
    let (database, meanwhile) = open();
    let replication = database.replication("default").unwrap();
    // What nobody listens for is not sealed on its way to disk.
    let _listener = replication.on_durable(|| ());
    let writer = database.clone();
    let commit = move || write(&writer, "own");
    assert!(is_other_namespace_free(&database, &meanwhile, commit));
    let frame = replication.frame_since(&VersionVector::new(), usize::MAX).unwrap().unwrap();
    assert_eq!(frame.changes, 1, "it is sealed when it is asked for");
}

/// Whoever is told of a frame is told the rules that its documents break, so applying it looks into the
/// schema.
#[test]
fn gens_can_be_defined_while_a_frame_arrives() {
    let (database, meanwhile) = open();
    let replication = database.replication("default").unwrap();
    let subscription = database.subscribe(Interest::Namespace).unwrap();
    let (defined, is_defined) = channel();
    let definer = database.clone();
    *meanwhile.lock().unwrap() = Some(Box::new(move || {
        std::thread::spawn(move || {
            definer.define(&Schema::from(vec![note()])).unwrap();
            defined.send(()).ok();
        });
        // Until it waits for the disk.
        std::thread::sleep(Duration::from_millis(200));
    }));
    let (applied, is_applied) = channel();
    let frame = frame_of_a_peer();
    std::thread::spawn(move || {
        replication.apply_frame(&frame).unwrap();
        applied.send(()).ok();
    });
    is_applied.recv_timeout(FOR_EVER).expect("the frame is applied");
    is_defined.recv_timeout(FOR_EVER).expect("the Gens are defined");
    assert_eq!(database.schema().gens, [note()]);
    let event = subscription.next_within(FOR_EVER).expect("it is told");
    assert_eq!(event.documents[0].key, "theirs");
}
