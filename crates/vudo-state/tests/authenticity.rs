//! Who answers for a change: every frame is signed by those who wrote what is in it, whoever passes
//! it on, and nothing else is applied.

use std::sync::Arc;

use tempfile::TempDir;
use vudo_crdt::{
    FieldSchema, FrameWriter, GenSchema, ReplicaKey, SEAL_BYTES, Seal, SignedFrame, Strategy,
    ValueType, VersionVector, wire::Reader, write_signed_frame,
};
use vudo_state::storage::{Folder, MemoryStorage, NativeStorage, Storage, WriteBatch};
use vudo_state::{Database, Error, OpenOptions, Replication};
use vudo_testkit::{Random, run_seeds};

const SEED_COUNT: u64 = 10;

fn task() -> GenSchema {
    let fields = vec![
        FieldSchema::new("title", 1, Strategy::Lww, ValueType::String),
        FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64),
    ];
    GenSchema::new("Task", fields)
}

fn write(database: &Database, key: &str, title: &str) {
    let id = database.document_id(key);
    if database.read(&task(), &id).unwrap().is_none() {
        database.create(&task(), &id, &[]).unwrap();
    }
    database.update(&task(), &id, &[("title", title.into()), ("votes", 1.into())]).unwrap();
}

fn replication(database: &Database) -> Replication {
    database.replication("default").unwrap()
}

/// Passes everything on that `to` lacks, in frames of about so many bytes.
fn pass_on(from: &Database, to: &Database, bytes_max: usize) -> usize {
    let (from, to) = (replication(from), replication(to));
    let mut frame_count = 0;
    while let Some(frame) = from.frame_since(&to.durable_vector(), bytes_max).unwrap() {
        let applied = to.apply_frame(&frame.bytes).unwrap();
        assert!(applied.changes > 0 && applied.duplicates == 0, "{applied:?}");
        assert!(to.durable_vector().covers(&frame.vector));
        frame_count += 1;
    }
    frame_count
}

fn frame_of(database: &Database) -> Vec<u8> {
    let frame = replication(database).frame_since(&VersionVector::new(), usize::MAX).unwrap();
    frame.expect("the store holds changes").bytes
}

fn open_small(folder: &TempDir) -> Database {
    let options = OpenOptions { segment_bytes: 400, ..OpenOptions::default() };
    Database::open_with(folder.path(), &options).unwrap()
}

/// Nobody but a chain of stores in between, each opened again now and then, and frames that end
/// anywhere: what everybody wrote arrives everywhere, signed by those who wrote it.
#[test]
fn what_somebody_wrote_passes_through_any_number_of_stores() {
    let mut frame_count = 0;
    let count = run_seeds("authenticity", SEED_COUNT, |seed| {
        let mut random = Random::new(seed);
        let folders: Vec<TempDir> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut stores: Vec<Database> = folders.iter().map(open_small).collect();
        for _ in 0..60 {
            let place = random.below(stores.len());
            match random.below(8) {
                0 => {
                    // In place of the store, which has to close first.
                    stores[place] = Database::open_in_memory().unwrap();
                    stores[place] = open_small(&folders[place]);
                }
                1..=4 => {
                    let (key, title) = (random.below(6), "x".repeat(random.below(300)));
                    write(&stores[place], &format!("task {key}"), &title);
                }
                _ => {
                    let other = if place == 0 { 1 } else { place - 1 };
                    let bytes_max = random.below(2_000);
                    frame_count += pass_on(&stores[place], &stores[other], bytes_max);
                    pass_on(&stores[other], &stores[place], bytes_max);
                }
            }
        }
        for _ in 0..stores.len() {
            for place in 1..stores.len() {
                pass_on(&stores[place - 1], &stores[place], random.below(2_000));
                pass_on(&stores[place], &stores[place - 1], random.below(2_000));
            }
        }
        let state = |database: &Database| replication(database).fingerprint().unwrap();
        let heads = |database: &Database| -> Vec<_> {
            stores.iter().map(|of| replication(database).head(&of.replica_key()).unwrap()).collect()
        };
        assert!(stores.iter().all(|store| state(store) == state(&stores[0])));
        assert!(stores.iter().all(|store| heads(store) == heads(&stores[0])));
        // Somebody new gets everything from the end of the chain.
        let new = Database::open_in_memory().unwrap();
        pass_on(&stores[3], &new, usize::MAX);
        assert_eq!(state(&new), state(&stores[0]));
    });
    println!("authenticity: {frame_count} frames");
    assert!(frame_count as u64 >= count, "only {frame_count} frames in {count} seeds");
}

/// What a peer gets at once stays bounded, however much there is.
#[test]
fn a_frame_is_not_larger_than_asked_for() {
    const BYTES_MAX: usize = 256 << 10;
    let database = Database::open_in_memory().unwrap();
    for batch in 0..40 {
        let written = database.transaction(|transaction| {
            (0..50).try_for_each(|number| {
                let key = format!("{batch}/{number}");
                transaction.create(&task(), &key)?;
                transaction.set(&task(), &key, "title", "x".repeat(700))
            })
        });
        written.unwrap();
    }
    let (source, mut since, mut frames) = (replication(&database), VersionVector::new(), 0);
    let target = Database::open_in_memory().unwrap();
    while let Some(frame) = source.frame_since(&since, BYTES_MAX).unwrap() {
        assert!(frame.bytes.len() <= BYTES_MAX, "{} bytes", frame.bytes.len());
        let signed = SignedFrame::parse(&frame.bytes).unwrap();
        assert!(signed.content_bytes() <= BYTES_MAX);
        replication(&target).apply_frame(&frame.bytes).unwrap();
        (since, frames) = (frame.vector, frames + 1);
    }
    assert!(frames > 4, "{frames} frames");
    assert_eq!(pass_on(&target, &Database::open_in_memory().unwrap(), BYTES_MAX), frames);
}

/// The changes of a signed frame under other keys or with other seals.
fn rewritten(
    bytes: &[u8],
    key_of: impl Fn(ReplicaKey) -> ReplicaKey,
    change_count: usize,
    seal_of: impl Fn(Seal) -> Seal,
) -> Vec<u8> {
    let signed = SignedFrame::parse(bytes).unwrap();
    let frame = signed.frame();
    let keys: Vec<ReplicaKey> = frame.replicas().map(key_of).collect();
    let mut writer = FrameWriter::new(&keys, frame.gen_names().iter());
    frame.changes().take(change_count).for_each(|change| writer.push(&change));
    let mut reader = Reader::new(&bytes[bytes.len() - keys.len() * SEAL_BYTES..]);
    let seals =
        keys.iter().map(|_| seal_of(Seal::decode(&mut reader).unwrap())).collect::<Vec<_>>();
    let mut out = Vec::new();
    write_signed_frame(&writer.finish(), &seals, &mut out);
    out
}

fn refusal(store: &Database, bytes: &[u8]) -> String {
    let held = replication(store).durable_vector();
    let error = replication(store).apply_frame(bytes).expect_err("it is refused");
    assert!(error.is_peer_fault(), "{error}");
    assert_eq!(replication(store).durable_vector(), held, "nothing of it was applied");
    error.to_string()
}

#[test]
fn what_its_writer_has_not_signed_is_refused() {
    let writer = Database::open_in_memory().unwrap();
    ["one", "two", "three"].iter().for_each(|key| write(&writer, key, key));
    let (whole, same_key, same_seal) = (frame_of(&writer), |key| key, |seal| seal);
    let victim = Database::open_in_memory().unwrap();

    let thief = ReplicaKey([7; 32]);
    let renamed = rewritten(&whole, |_| thief, usize::MAX, same_seal);
    assert!(refusal(&victim, &renamed).contains("has not signed the changes up to number 6"));
    let shortened = rewritten(&whole, same_key, 3, same_seal);
    assert!(refusal(&victim, &shortened).contains("has not signed the changes up to number 3"));
    let altered = |mut seal: Seal| {
        seal.root[3] ^= 1;
        seal
    };
    let other_root = rewritten(&whole, same_key, usize::MAX, altered);
    assert!(refusal(&victim, &other_root).contains("has not signed"));

    // The seals of one log under the changes of another.
    let impostor = Database::open_in_memory().unwrap();
    (0..3).for_each(|number| write(&impostor, &format!("false {number}"), "false"));
    let (writer_key, seal_bytes) = (writer.replica_key(), &whole[whole.len() - SEAL_BYTES..]);
    let seal = Seal::decode(&mut Reader::new(seal_bytes)).unwrap();
    let forged = rewritten(&frame_of(&impostor), |_| writer_key, usize::MAX, |_| seal);
    assert!(refusal(&victim, &forged).contains("has signed another log up to number 6"));

    // A namespace's changes are no changes of another one.
    let elsewhere = writer.in_namespace("other");
    elsewhere.create(&task(), &elsewhere.document_id("milk"), &[]).unwrap();
    let other = elsewhere.replication("other").unwrap();
    let frame = other.frame_since(&VersionVector::new(), usize::MAX).unwrap().unwrap();
    assert!(refusal(&victim, &frame.bytes).contains("has not signed"));

    replication(&victim).apply_frame(&whole).unwrap();
    assert_eq!(victim.list(&task()).unwrap().len(), 3);
    // The same under one number more is not believed either, once its log is known.
    write(&impostor, "false 4", "false");
    let forged = rewritten(&frame_of(&impostor), |_| writer_key, usize::MAX, same_seal);
    assert!(refusal(&victim, &forged).contains("has not signed the changes up to number 8"));
}

#[test]
fn a_backup_can_pass_on_what_its_original_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let original = Database::open(folder.path().join("original")).unwrap();
    write(&original, "milk", "written before the backup");
    original.backup(folder.path().join("backup")).unwrap();
    write(&original, "milk", "written after the backup");
    let backup = Database::open(folder.path().join("backup")).unwrap();
    assert_ne!(backup.replica_key(), original.replica_key());
    write(&backup, "bread", "written in the backup");
    let third = Database::open_in_memory().unwrap();
    pass_on(&backup, &third, usize::MAX);
    // The backup's part of the original's log is the beginning of it, so nobody is confused.
    pass_on(&original, &third, usize::MAX);
    pass_on(&third, &backup, usize::MAX);
    pass_on(&third, &original, usize::MAX);
    let states =
        [&original, &backup, &third].map(|store| replication(store).fingerprint().unwrap());
    assert!(states.iter().all(|state| *state == states[0]));
    assert_eq!(states[0].0.change_count(), 5);
}

/// Two stores in the same storage, one after the other: what restoring an image of a machine does.
#[test]
fn a_store_that_meets_its_key_elsewhere_says_so_and_applies_nothing() {
    let (one, other) = (Arc::new(MemoryStorage::default()), Arc::new(MemoryStorage::default()));
    let database = Database::with_storage(one.clone(), None).unwrap();
    write(&database, "milk", "before");
    drop(database);
    let mut image = WriteBatch::default();
    one.scan(&[], &[0xff], &mut |key, value| {
        image.put(key.to_vec(), value.to_vec());
        true
    })
    .unwrap();
    other.commit(&image).unwrap();
    let original = Database::with_storage(one, None).unwrap();
    let restored = Database::with_storage(other, None).unwrap();
    assert_eq!(original.replica_key(), restored.replica_key());
    write(&original, "milk", "original");
    let frame = frame_of(&original);
    let error = replication(&restored).apply_frame(&frame).unwrap_err();
    assert!(matches!(error, Error::OwnKeyElsewhere), "{error}");

    // Somebody who holds one of the two logs does not take the other.
    write(&restored, "milk", "restored");
    write(&restored, "bread", "restored");
    let third = Database::open_in_memory().unwrap();
    replication(&third).apply_frame(&frame).unwrap();
    assert!(refusal(&third, &frame_of(&restored)).contains("has signed another log"));
}

/// A store of the format before there were signatures signs what it wrote when somebody is to have
/// it, and says of what others wrote that nobody has signed it.
#[test]
fn a_store_of_format_version_6_signs_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let (old, other) = (folder.path().join("old"), Database::open_in_memory().unwrap());
    let database = Database::open(&old).unwrap();
    (0..300).for_each(|number| write(&database, &format!("task {number}"), &"x".repeat(900)));
    let state = replication(&database).fingerprint().unwrap();
    drop(database);
    as_version_6(&old);
    let database = Database::open(&old).unwrap();
    assert_eq!(replication(&database).fingerprint().unwrap(), state);
    assert!(pass_on(&database, &other, 64 << 10) > 1);
    write(&other, "from another", "title");
    pass_on(&other, &database, usize::MAX);
    drop(database);

    as_version_6(&old);
    let database = Database::open(&old).unwrap();
    let refused = replication(&database).frame_since(&VersionVector::new(), usize::MAX);
    assert!(matches!(refused, Err(Error::Unsigned { .. })), "{refused:?}");
}

fn as_version_6(folder: &std::path::Path) {
    let storage = NativeStorage::open(Folder(folder.to_owned())).unwrap();
    let mut batch = WriteBatch::default();
    storage
        .scan(&[], &[0xff], &mut |key, _| {
            if matches!(key[0], b's' | b'h') {
                batch.remove(key.to_vec());
            }
            true
        })
        .unwrap();
    batch.put(b"mformat".to_vec(), 6u32.to_be_bytes().to_vec());
    storage.commit(&batch).unwrap();
}
