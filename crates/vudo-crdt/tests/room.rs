//! The bounded room that a namespace has for the Gens and the replicas that frames name.

use vudo_crdt::limits::{MAX_FRAME_REPLICAS, MAX_GENS, MAX_VECTOR_REPLICAS, RESERVED_REPLICAS};
use vudo_crdt::wire::Reader;
use vudo_crdt::{
    Applied, ApplyError, Change, Frame, FrameWriter, InMemory, Log, MalformedFrame, Namespace,
    ReplicaKey, SEAL_BYTES, Seal, SignedFrame, Transaction, VersionVector, write_signed_frame,
};

const NOW_MILLISECONDS: u64 = 1_700_000_000_000;

fn key(number: usize) -> ReplicaKey {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(number as u64).to_be_bytes());
    ReplicaKey(key)
}

/// A store with these Gens, whose changes each create a document in some of them.
fn store(gen_names: &[&str], changes: &[&[&str]]) -> (Namespace, Log) {
    let (mut namespace, mut log) = (Namespace::new(1), Log::default());
    let own = namespace.intern_replica(key(0));
    gen_names.iter().for_each(|name| assert!(namespace.intern_gen(name).is_some()));
    for (number, written) in changes.iter().enumerate() {
        write(&mut namespace, &mut log, own, &format!("document {number}"), written);
    }
    (namespace, log)
}

fn write(namespace: &mut Namespace, log: &mut Log, own: u32, document: &str, gen_names: &[&str]) {
    let mut transaction = Transaction::begin(namespace, own, NOW_MILLISECONDS);
    for name in gen_names {
        let gen_index = namespace.intern_gen(name).unwrap();
        transaction.create(namespace, &mut InMemory, gen_index, document.as_bytes()).unwrap();
    }
    transaction.commit(namespace, &mut InMemory, log).unwrap();
}

fn frame_of(namespace: &Namespace, log: &Log) -> Vec<u8> {
    let mut writer = FrameWriter::new(namespace.replicas().keys(), namespace.gen_names());
    log.changes().for_each(|change| writer.push(&change));
    writer.finish()
}

/// A signed frame of one writer, whose seal is none.
fn sealed(frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_signed_frame(frame, &[Seal { root: [0; 32], signature: [0; SEAL_BYTES - 32] }], &mut out);
    out
}

fn names_of(namespace: &Namespace) -> Vec<&str> {
    namespace.gen_names().collect()
}

#[test]
fn a_frame_names_the_gens_that_its_changes_write_to() {
    let changes: [&[&str]; 3] = [&["D", "B"], &["B"], &["A", "D"]];
    let (mut writer, log) = store(&["A", "B", "C", "D"], &changes);
    let bytes = frame_of(&writer, &log);
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!(frame.gen_names(), [b"B", b"D", b"A"]);
    assert_eq!(frame.check_names(), Ok(()));
    assert_eq!(frame.changes().count(), 3);
    let mut reader = Namespace::new(2);
    reader.apply_frame(&bytes, &mut InMemory, &mut ()).unwrap();
    assert_eq!(names_of(&reader), ["B", "D", "A"]);
    let state = |namespace: &mut Namespace| namespace.canonical_bytes(&mut InMemory).unwrap();
    assert_eq!(state(&mut reader), state(&mut writer));
    // Where the Gens are the first ones, nothing is written anew.
    let (writer, log) = store(&["A", "B"], &[&["A"], &["A", "B"]]);
    assert_eq!(frame_of(&writer, &log), log.frame_since(&writer, &VersionVector::new()));
}

#[test]
fn a_signed_frame_that_names_another_gen_is_refused() {
    let (writer, log) = store(&["A", "B", "C"], &[&["B"], &["B"]]);
    // A log in memory names all Gens that there are.
    let names_all = sealed(&log.frame_since(&writer, &VersionVector::new()));
    let refused = SignedFrame::parse(&names_all).map(|_| ());
    assert_eq!(refused, Err(MalformedFrame::UnusedName));
    assert!(SignedFrame::parse(&sealed(&frame_of(&writer, &log))).is_ok());
    // And one that names a Gen and has no change at all.
    let empty = Log::default().frame_since(&store(&["A"], &[]).0, &VersionVector::new());
    let mut bytes = Vec::new();
    write_signed_frame(&empty, &[], &mut bytes);
    assert_eq!(SignedFrame::parse(&bytes).map(|_| ()), Err(MalformedFrame::UnusedName));
}

#[test]
fn only_gens_that_new_changes_write_to_are_taken_in() {
    let names: Vec<String> = (0..MAX_GENS).map(|number| format!("gen {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut writer, log) = store(&names, &[&["gen 7"], &["gen 9", "gen 3"]]);
    let names_all = log.frame_since(&writer, &VersionVector::new());
    let mut reader = Namespace::new(2);
    reader.intern_gen("own").unwrap();
    let applied = reader.apply_frame(&names_all, &mut InMemory, &mut ()).unwrap();
    assert_eq!(applied.changes, 2);
    assert_eq!(names_of(&reader), ["own", "gen 3", "gen 7", "gen 9"]);
    let state = |namespace: &mut Namespace| namespace.canonical_bytes(&mut InMemory).unwrap();
    assert_eq!(state(&mut reader), state(&mut writer));

    // The first change is held, and what it made is gone, as below a checkpoint.
    let mut later = Namespace::new(3);
    let replica = later.intern_replica(key(0));
    later.restore_heard(replica, 1);
    let applied = later.apply_frame(&names_all, &mut InMemory, &mut ()).unwrap();
    assert_eq!((applied.changes, applied.duplicates), (1, 1));
    assert_eq!(names_of(&later), ["gen 3", "gen 9"]);
    for gen_index in 0..2 {
        assert!(later.loaded_row(gen_index, b"document 1").is_some());
    }

    // What is used has to have room all the same.
    let mut full = Namespace::new(4);
    names[..MAX_GENS - 3].iter().for_each(|name| assert!(full.intern_gen(name).is_some()));
    ["x", "y", "z"].iter().for_each(|name| assert!(full.intern_gen(name).is_some()));
    full.apply_frame(&names_all, &mut InMemory, &mut ()).unwrap();
    let (writer, log) = store(&["new"], &[&["new"]]);
    let one_more = full.apply_frame(&frame_of(&writer, &log), &mut InMemory, &mut ());
    // The changes are held, under the same key.
    assert_eq!(one_more.map(|applied| applied.duplicates), Ok(1));
    full.restore_heard(0, 0);
    let one_more = full.apply_frame(&frame_of(&writer, &log), &mut InMemory, &mut ());
    assert_eq!(one_more, Err(ApplyError::TooManyGens));
}

/// One change of each of these replicas.
fn frame_of_replicas(numbers: std::ops::Range<usize>, change: &Change<'_>) -> Vec<u8> {
    let keys: Vec<ReplicaKey> = numbers.map(key).collect();
    let mut writer = FrameWriter::new(&keys, ["Task"].iter());
    for replica in 0..keys.len() as u32 {
        writer.push(&Change { replica, number: 1, ..*change });
    }
    writer.finish()
}

#[test]
fn no_more_replicas_are_taken_in_than_a_vector_can_name() {
    const ROOM: usize = MAX_VECTOR_REPLICAS - RESERVED_REPLICAS;
    let (_, log) = store(&["Task"], &[&["Task"]]);
    let change = log.changes().next().unwrap();
    let mut namespace = Namespace::new(2);
    let apply = |namespace: &mut Namespace, numbers| {
        namespace.apply_frame(&frame_of_replicas(numbers, &change), &mut InMemory, &mut ())
    };
    let mut place = 1;
    while place - 1 + MAX_FRAME_REPLICAS <= ROOM {
        apply(&mut namespace, place..place + MAX_FRAME_REPLICAS).unwrap();
        place += MAX_FRAME_REPLICAS;
    }
    let (held, count) = (namespace.version_vector(), namespace.replicas().keys().len());
    let refused = apply(&mut namespace, place..place + MAX_FRAME_REPLICAS);
    assert_eq!(refused, Err(ApplyError::TooManyReplicas));
    assert_eq!((namespace.version_vector(), namespace.replicas().keys().len()), (held, count));

    apply(&mut namespace, place..ROOM + 1).unwrap();
    assert_eq!(namespace.heard_replica_count(), ROOM);
    assert_eq!(apply(&mut namespace, ROOM + 1..ROOM + 2), Err(ApplyError::TooManyReplicas));
    // Those that are held may come again, and the store's own key has room.
    let again = Applied { duplicates: 1, ..Applied::default() };
    assert_eq!(apply(&mut namespace, 5..6), Ok(again));
    let own = namespace.intern_replica(key(0));
    write(&mut namespace, &mut Log::default(), own, "own", &["Task"]);
    assert_eq!(namespace.heard_replica_count(), ROOM + 1);
    let mut bytes = Vec::new();
    namespace.encode_version_vector(&mut bytes);
    let vector = VersionVector::decode(&mut Reader::new(&bytes)).unwrap();
    assert_eq!(vector, namespace.version_vector());
    assert!(!namespace.has_room_for_replicas([key(ROOM + 1)].iter()));
    assert!(namespace.has_room_for_replicas([key(5)].iter()));
}
