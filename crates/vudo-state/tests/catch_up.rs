//! Going on from a peer's checkpoint: for whoever is further behind than the peer's log goes.
//! `VUDO_HISTORIES` says how many histories, `VUDO_SEED` replays one.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use vudo_crdt::checkpoint::SignedCheckpoint;
use vudo_crdt::wire::Reader;
use vudo_crdt::{FieldSchema, GenSchema, ReplicaKey, Strategy, Value, ValueType};
use vudo_state::storage::{MemoryStorage, Storage, StorageError, WriteBatch};
use vudo_state::{
    CheckpointOffer, CheckpointPart, Database, Error, OpenOptions, PartCursor, PartRequest,
    Replication, SystemEnvironment,
};
use vudo_testkit::files::{CrashingFiles, Failure};
use vudo_testkit::{Random, run_seeds};

const SEED_COUNT: u64 = 40;
const CRASH_SEED_COUNT: u64 = 60;
const GIVER: ReplicaKey = ReplicaKey([7; 32]);

fn note() -> GenSchema {
    let text = || ValueType::String;
    let fields = vec![
        FieldSchema::new("title", 1, Strategy::Lww, text()),
        FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64),
        FieldSchema::new("tags", 3, Strategy::OrSet, ValueType::Set(Box::new(text()))),
    ];
    GenSchema::new("Note", fields)
}

fn open(storage: &Arc<MemoryStorage>) -> Database {
    // Small segments, so that a checkpoint ends within what others hold together.
    let options =
        OpenOptions { segment_bytes: 300, catch_up_bytes_max: 8 << 20, ..OpenOptions::default() };
    let environment = Arc::new(SystemEnvironment);
    Database::with_environment(storage.clone(), None, environment, &options).unwrap()
}

fn new() -> Database {
    open(&Arc::default())
}

fn write(database: &Database, key: &str, text: &str) {
    let is_new = database.read(&note(), &database.document_id(key)).unwrap().is_none();
    database
        .transaction(|transaction| {
            if is_new {
                transaction.create(&note(), key)?;
            }
            transaction.set(&note(), key, "title", text)?;
            transaction.add(&note(), key, "votes", 1)?;
            transaction.add_element(&note(), key, "tags", ["few", "tags"][text.len() % 2])
        })
        .unwrap();
}

fn replication(database: &Database) -> Replication {
    database.replication("default").unwrap()
}

fn state(database: &Database) -> (vudo_crdt::VersionVector, vudo_crdt::Fingerprint) {
    replication(database).fingerprint().unwrap()
}

fn again(part: &CheckpointPart) -> CheckpointPart {
    let mut bytes = Vec::new();
    part.encode(&mut bytes);
    CheckpointPart::decode(&mut Reader::new(&bytes)).unwrap()
}

/// The offer and every part of a store's checkpoint.
fn parts_of(giver: &Database) -> (CheckpointOffer, Vec<CheckpointPart>) {
    let giver = replication(giver);
    let offer = giver.checkpoint_offer().expect("its log has been compacted");
    let mut request = PartRequest { checkpoint: offer.id(), cursor: PartCursor::default() };
    let mut parts = Vec::new();
    loop {
        let part = giver.checkpoint_part(&request).unwrap().expect("it is the same checkpoint");
        parts.push(again(&part));
        match part.next {
            Some(next) => request.cursor = next,
            None => return (offer, parts),
        }
    }
}

fn catch_up(from: &Database, to: &Database) -> vudo_state::Result<()> {
    let (offer, parts) = parts_of(from);
    let to = replication(to);
    let mut request = to.begin_catching_up(&GIVER, &offer)?;
    for part in &parts {
        assert_eq!(request.as_ref(), Some(&part.request));
        request = to.take_part(&GIVER, part)?;
    }
    assert_eq!(request, None);
    Ok(())
}

/// Everything that `to` lacks goes there, by the checkpoint where the log does not go back so far.
fn sync(from: &Database, to: &Database) -> bool {
    let mut has_caught_up = false;
    loop {
        let (source, target) = (replication(from), replication(to));
        match source.frame_since(&target.durable_vector(), 600) {
            Ok(None) => return has_caught_up,
            Ok(Some(frame)) => {
                target.apply_frame(&frame.bytes).unwrap();
            }
            Err(Error::Compacted { .. }) => {
                catch_up(from, to).unwrap();
                has_caught_up = true;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Stores write, sync and compact in any order; some are far behind. In the end all are equal, also when
/// they are opened again, and can give everything to somebody new.
#[test]
fn whoever_is_behind_a_compacted_log_catches_up_with_everything() {
    let mut count = 0;
    let seeds = run_seeds("catching up", SEED_COUNT, |seed| {
        let mut random = Random::new(seed);
        let storages: Vec<Arc<MemoryStorage>> = (0..3).map(|_| Arc::default()).collect();
        let mut stores: Vec<Database> = storages.iter().map(open).collect();
        for number in 0..60 {
            let place = random.below(3);
            match random.below(12) {
                0 => {
                    // Those of two in every second history, so that each drops what the other needs.
                    let place = place % (1 + (seed % 2) as usize);
                    stores[place].compact().unwrap();
                }
                1 => {
                    stores[place] = new();
                    stores[place] = open(&storages[place]);
                }
                2 | 3 => {
                    let other = (place + 1 + random.below(2)) % 3;
                    count += u64::from(sync(&stores[place], &stores[other]));
                }
                _ => write(
                    &stores[place],
                    &format!("note {}", random.below(4)),
                    &format!("{number}"),
                ),
            }
        }
        for _ in 0..3 {
            for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
                count += u64::from(sync(&stores[from], &stores[to]));
            }
        }
        let first = state(&stores[0]);
        for (store, storage) in stores.iter_mut().zip(&storages) {
            assert_eq!(state(store), first);
            *store = new();
            *store = open(storage);
            assert_eq!(state(store), first, "after opening again");
            assert_eq!(store.verify().unwrap().damages, Vec::<String>::new());
        }
        let (far, last) = (new(), new());
        write(&far, "note 0", "of its own");
        count += u64::from(sync(&stores[2], &far));
        sync(&far, &last);
        assert_eq!(state(&far), state(&last));
        assert_eq!(state(&far).0.change_count(), first.0.change_count() + 1);
        far.compact().unwrap();
        assert_eq!(far.verify().unwrap().damages, Vec::<String>::new());
        sync(&far, &stores[0]);
        assert_eq!(state(&far), state(&stores[0]));
    });
    println!("catching up: {count} times in {seeds} seeds");
    assert!(count > seeds, "hardly anybody was behind");
}

/// Two stores that have compacted apart from each other: neither has what the other dropped.
#[test]
fn two_checkpoints_of_which_neither_covers_the_other_become_one() {
    let (one, other) = (new(), new());
    write(&one, "note 0", "before");
    sync(&one, &other);
    for number in 0..20 {
        write(&one, "note 0", &format!("one {number}"));
        write(&other, "note 0", &format!("other {number}"));
        write(&one, &format!("of one {}", number % 3), "one");
        write(&other, &format!("of other {}", number % 3), "other");
    }
    assert!(one.compact().unwrap().dropped_changes > 0);
    assert!(other.compact().unwrap().dropped_changes > 0);
    write(&one, "above", "one");
    write(&other, "above", "other");
    assert!(sync(&one, &other), "neither log goes back so far");
    assert!(sync(&other, &one), "the checkpoint of both is new to the first one");
    assert!(!sync(&one, &other));
    assert_eq!(state(&one), state(&other));
    for store in [&one, &other] {
        assert_eq!(store.verify().unwrap().damages, [""; 0]);
        let votes = store.read_field(&note(), &store.document_id("note 0"), "votes").unwrap();
        assert_eq!(votes, Some(Value::from(41)));
        let last = new();
        assert!(sync(store, &last));
        assert_eq!(state(&last), state(store));
    }
    one.compact().unwrap();
    sync(&one, &other);
    assert_eq!(state(&one), state(&other));
}

/// A compacted store, and what it gives.
fn giver() -> (Database, CheckpointOffer, Vec<CheckpointPart>) {
    let giver = new();
    for number in 0..60 {
        write(&giver, &format!("note {}", number % 30), &"x".repeat(40_000));
    }
    assert!(giver.compact().unwrap().dropped_changes > 0);
    for number in 0..30 {
        let id = giver.document_id(&format!("note {}", number % 15));
        let text = "y".repeat(60_000);
        giver.update(&note(), &id, &[("title", Value::from(text))]).unwrap();
    }
    assert!(giver.compact().unwrap().dropped_changes > 0);
    let (offer, parts) = parts_of(&giver);
    assert!(parts.len() > 2, "{} parts", parts.len());
    (giver, offer, parts)
}

#[test]
fn parts_go_on_where_they_stopped_and_nothing_shows_before_the_last() {
    let (giver, offer, parts) = giver();
    let storage = Arc::default();
    let mut behind = open(&storage);
    write(&behind, "note 9", "of its own");
    let before = state(&behind);
    for part in &parts {
        assert_eq!(state(&behind), before);
        drop(behind);
        behind = open(&storage);
        let request = replication(&behind).begin_catching_up(&GIVER, &offer).unwrap();
        assert_eq!(request.as_ref(), Some(&part.request));
        replication(&behind).take_part(&GIVER, part).unwrap();
    }
    assert_eq!(replication(&behind).begin_catching_up(&GIVER, &offer).unwrap(), None);
    sync(&behind, &giver);
    assert_eq!(state(&behind), state(&giver));
}

/// Parts that are not what the checkpoint says are refused, and all of them forgotten.
#[test]
fn what_is_not_what_the_checkpoint_says_is_refused() {
    let (_, offer, parts) = giver();
    let other = giver().2;
    let behind = new();
    let before = state(&behind);
    for place in 0..parts.len() {
        let mut hostile = parts.clone();
        let request = hostile[place].request.clone();
        let next = hostile[place].next;
        // The same place of another log.
        hostile[place] = other[place.min(other.len() - 1)].clone();
        (hostile[place].request, hostile[place].next) = (request, next);
        let replication = replication(&behind);
        replication.begin_catching_up(&GIVER, &offer).unwrap();
        let refused = hostile.iter().find_map(|part| replication.take_part(&GIVER, part).err());
        assert!(refused.as_ref().is_some_and(Error::is_peer_fault), "{place}: {refused:?}");
        assert_eq!(state(&behind), before);
        let request = replication.begin_catching_up(&GIVER, &offer).unwrap().unwrap();
        assert_eq!(request.cursor, PartCursor::default(), "what was wrong has been forgotten");
    }
    // What is not the next part has no effect.
    assert_eq!(replication(&behind).take_part(&GIVER, &parts[1]).unwrap(), None);
    let request = replication(&behind).begin_catching_up(&GIVER, &offer).unwrap().unwrap();
    assert_eq!(request.cursor, PartCursor::default());
    // One part less: what ends too early.
    let mut short = parts.clone();
    let last = short.pop().unwrap();
    short.last_mut().unwrap().next = None;
    let refused = short.iter().find_map(|part| replication(&behind).take_part(&GIVER, part).err());
    assert!(refused.as_ref().is_some_and(Error::is_peer_fault), "{refused:?}");
    // One that does not end.
    let mut part = last;
    let first = replication(&behind).begin_catching_up(&GIVER, &offer).unwrap().unwrap();
    let mut part_count = 0;
    let refused = loop {
        part.request = PartRequest { cursor: [part_count; 12], ..first.clone() };
        part.next = Some([part_count + 1; 12]);
        part_count += 1;
        match replication(&behind).take_part(&GIVER, &part) {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(refused, Err(Error::CheckpointTooLarge { .. })), "{refused:?}");
    assert_eq!(state(&behind), before);
    let mut bytes = Vec::new();
    offer.encode(&mut bytes);
    for place in (0..bytes.len()).step_by(7) {
        let mut altered = bytes.clone();
        altered[place] ^= 1;
        if let Ok(altered) = CheckpointOffer::decode(&mut Reader::new(&altered)) {
            let refused = replication(&behind).begin_catching_up(&GIVER, &altered);
            assert!(refused.is_err_and(|error| error.is_peer_fault()), "{place}");
        }
    }
}

#[test]
fn pins_stay_where_a_checkpoint_takes_its_place() {
    let (giver, behind) = (new(), new());
    for text in ["first", "second", "third"] {
        write(&giver, "note 0", text);
        sync(&giver, &behind);
        behind.pin(text).unwrap();
        write(&behind, "note 1", text);
    }
    (0..40).for_each(|number| write(&giver, "note 0", &format!("{number}")));
    assert!(giver.compact().unwrap().dropped_changes > 0);
    let id = behind.document_id("note 0");
    let check = |behind: &Database| {
        for text in ["first", "second", "third"] {
            let snapshot = behind.snapshot_of_pin(text).unwrap();
            let note = snapshot.read(&note(), "note 0").unwrap().expect("it was there");
            assert_eq!(note.get("title"), Some(&Value::from(text)));
        }
        let title = behind.read_field(&note(), &id, "title").unwrap();
        assert_eq!(title, Some(Value::from("39")));
        assert_eq!(behind.verify().unwrap().damages, [""; 0]);
    };
    assert!(sync(&giver, &behind));
    check(&behind);
    behind.compact().unwrap();
    check(&behind);
    // Without them all that goes.
    ["first", "second", "third"].iter().for_each(|text| assert!(behind.unpin(text).unwrap()));
    assert!(behind.compact().unwrap().dropped_changes > 0);
    sync(&behind, &giver);
    assert_eq!(state(&behind), state(&giver));
}

/// A store with the same key and everything else.
fn copy_of(storage: &Arc<MemoryStorage>) -> Arc<MemoryStorage> {
    let (copy, mut image) = (Arc::<MemoryStorage>::default(), WriteBatch::default());
    let scanned = storage.scan(&[], &[0xff], &mut |key, value| {
        image.put(key.to_vec(), value.to_vec());
        true
    });
    scanned.and_then(|()| copy.commit(&image)).unwrap();
    copy
}

/// A giver may have signed a state without something, but not to those who hold it. Here it has another
/// log of one replica.
#[test]
fn a_checkpoint_without_what_is_held_here_is_refused() {
    let storage = Arc::default();
    let writer = open(&storage);
    write(&writer, "note 0", "in both logs");
    let other = open(&copy_of(&storage));
    let behind = new();
    write(&writer, "note 1", "in one log");
    sync(&writer, &behind);
    (0..40).for_each(|number| write(&other, "note 0", &format!("{number}")));
    assert!(other.compact().unwrap().dropped_changes > 0);
    let before = state(&behind);
    let error = catch_up(&other, &behind).unwrap_err();
    assert!(error.is_peer_fault() && error.to_string().contains("held here"), "{error}");
    assert_eq!(state(&behind), before);
    // Whoever holds nothing has nothing to hold against it.
    let last = new();
    catch_up(&other, &last).unwrap();
    assert_eq!(state(&last), state(&other));
    // A store whose own key has written there what is not here sees that at once.
    let error = catch_up(&other, &writer).unwrap_err();
    assert!(matches!(error, Error::OwnKeyElsewhere), "{error}");
}

/// A checkpoint over another state than the one that its changes make, well signed.
#[test]
fn a_checkpoint_over_another_state_is_refused() {
    let (_, offer, parts) = giver();
    let mut bytes = Vec::new();
    offer.encode(&mut bytes);
    let mut reader = Reader::new(&bytes);
    let mut signed = SignedCheckpoint::decode(&mut reader).unwrap();
    signed.checkpoint.state.root[0] ^= 1;
    let key = SigningKey::from_bytes(&[3; 32]);
    signed.owner = ReplicaKey(key.verifying_key().to_bytes());
    signed.signature = key.sign(&signed.checkpoint.bytes_to_sign()).to_bytes();
    let mut altered = Vec::new();
    signed.encode(&mut altered);
    altered.extend_from_slice(reader.rest());
    let altered = CheckpointOffer::decode(&mut Reader::new(&altered)).unwrap();
    let behind = new();
    let replication = replication(&behind);
    let before = state(&behind);
    let request = replication.begin_catching_up(&GIVER, &altered).unwrap().unwrap();
    let refused = parts.into_iter().find_map(|mut part| {
        part.request.checkpoint = request.checkpoint;
        replication.take_part(&GIVER, &part).err()
    });
    let refused = refused.expect("its state is not that of the changes");
    assert!(refused.is_peer_fault() && refused.to_string().contains("state"), "{refused}");
    assert_eq!(state(&behind), before);
}

/// The disk fails and crashes at any call while a checkpoint is taken. Afterwards there is what was held
/// before or everything, and it goes on from where it was.
#[test]
fn a_crash_leaves_what_was_held_or_everything() {
    let (giver, offer, parts) = giver();
    let (vector, _) = state(&giver);
    let mut resumed_count = 0;
    let mut crash_count = 0;
    let count = run_seeds("catching up on a crashing disk", CRASH_SEED_COUNT, |seed| {
        let mut random = Random::new(seed);
        let mut disk = CrashingFiles::new(seed);
        let database = common::open(&disk).unwrap();
        write(&database, "note 9", "of its own");
        let before = state(&database);
        drop(database);
        loop {
            let at = random.below(200) as u64;
            disk.fail(match random.below(4) {
                0 => Some(Failure::Once(at)),
                1 => Some(Failure::From(at)),
                2 => Some(Failure::FullFrom(at)),
                _ => None,
            });
            let done = common::open(&disk).map(|database| {
                // The disk may be gone by now.
                let Ok(replication) = database.replication("default") else { return };
                let mut next = replication.begin_catching_up(&GIVER, &offer);
                resumed_count += u64::from(matches!(
                    &next,
                    Ok(Some(request)) if request.cursor != PartCursor::default()
                ));
                while let Ok(Some(request)) = &next {
                    let part = parts.iter().find(|part| part.request == *request).unwrap();
                    next = replication.take_part(&GIVER, part);
                    // Time passes, and other things happen.
                    if random.below(8) == 0 {
                        break;
                    }
                }
                match next {
                    Err(error) => assert!(!error.is_peer_fault(), "{error}"),
                    Ok(None) => assert!(replication.durable_vector().covers(&vector)),
                    Ok(Some(_)) => {}
                }
            });
            crash_count += 1;
            disk = match random.below(3) {
                0 => disk.kill_process(),
                _ => disk.crash(),
            };
            drop(done);
            let database = common::open(&disk).unwrap();
            let (held, fingerprint) = state(&database);
            assert_eq!(database.verify().unwrap().damages, [""; 0]);
            let own = database.read(&note(), &database.document_id("note 9")).unwrap();
            assert!(own.is_some(), "what it has written itself");
            if held.covers(&vector) {
                let fresh = new();
                sync(&database, &fresh);
                assert_eq!(state(&fresh), (held, fingerprint));
                break;
            }
            assert_eq!((held, fingerprint), before);
            drop(database);
            disk = disk.kill_process();
        }
    });
    println!(
        "{crash_count} crashes in {count} histories, {resumed_count} went on with a later part"
    );
    assert!(crash_count > count && resumed_count > count / 4);
}

/// A disk on which something else happens whenever staged parts are read.
#[derive(Default)]
struct BusyDisk {
    inner: MemoryStorage,
    meanwhile: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl Storage for BusyDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.inner.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let reads_parts = from.starts_with(b"q") && from.ends_with(&0u64.to_be_bytes());
        let meanwhile = self.meanwhile.lock().unwrap().clone();
        if let Some(meanwhile) = meanwhile.filter(|_| reads_parts) {
            meanwhile();
        }
        self.inner.scan(from, to, visit)
    }

    fn commit(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.inner.commit(batch)
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

/// While a checkpoint is verified other peers go on bringing what nobody has heard of here.
#[test]
fn catching_up_ends_while_others_bring_new_replicas_all_the_time() {
    const REPLICAS: usize = 10;
    let giver = new();
    (0..5).for_each(|number| write(&giver, "given", &format!("{number}")));
    giver.compact().unwrap();
    let (offer, parts) = parts_of(&giver);
    let make_frame = |number| {
        let database = new();
        write(&database, &format!("new {number}"), "new");
        let frame = replication(&database).frame_since(&Default::default(), usize::MAX);
        frame.unwrap().unwrap().bytes
    };
    let frames: Vec<Vec<u8>> = (0..REPLICAS).map(make_frame).collect();

    let disk = Arc::new(BusyDisk::default());
    let database = Database::with_storage(disk.clone(), None).unwrap();
    let target = replication(&database);
    target.begin_catching_up(&GIVER, &offer).unwrap();
    let round_count = Arc::new(AtomicUsize::new(0));
    let bringing = Arc::new(Mutex::new(Vec::new()));
    let (target_of_others, rounds, others) =
        (target.clone(), round_count.clone(), bringing.clone());
    *disk.meanwhile.lock().unwrap() = Some(Arc::new(move || {
        let round = rounds.fetch_add(1, Ordering::SeqCst);
        let Some(frame) = frames.get(round).cloned() else { return };
        let (target, (done, is_done)) = (target_of_others.clone(), channel());
        others.lock().unwrap().push(std::thread::spawn(move || {
            target.apply_frame(&frame).unwrap();
            done.send(()).ok();
        }));
        // Where the namespace is locked, the frame waits for this.
        is_done.recv_timeout(Duration::from_millis(500)).ok();
    }));
    for part in &parts {
        target.take_part(&GIVER, part).unwrap();
    }
    *disk.meanwhile.lock().unwrap() = None;
    let bringing = std::mem::take(&mut *bringing.lock().unwrap());
    let brought_count = bringing.len();
    bringing.into_iter().for_each(|other| other.join().unwrap());
    let rounds = round_count.load(Ordering::SeqCst);
    println!("catching up: {rounds} rounds, while {brought_count} replicas were new");
    assert!(rounds > 1 && rounds < REPLICAS, "{rounds} rounds");
    let vector = target.durable_vector();
    assert_eq!(vector.get(&giver.replica_key()), 5);
    assert_eq!(vector.iter().count(), 1 + brought_count);
    assert_eq!(database.list(&note()).unwrap().len(), 1 + brought_count);
    assert_eq!(database.verify().unwrap().damages, [""; 0]);
}
