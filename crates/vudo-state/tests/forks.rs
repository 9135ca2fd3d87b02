//! Two stores that write under one key: everybody ends with one of the two logs, and nothing that
//! either store wrote is lost.

use std::sync::Arc;

use vudo_crdt::head::SignedHead;
use vudo_crdt::merkle::Hash;
use vudo_crdt::{FieldSchema, GenSchema, ReplicaKey, Strategy, Value, ValueType};
use vudo_state::storage::{MemoryStorage, Storage, WriteBatch};
use vudo_state::{
    BranchOutcome, Cursor, Database, Error, Grant, LogComparison, OpenOptions, Replication,
    RightsRecord, RootAt, Scope, SystemEnvironment,
};
use vudo_testkit::{Random, run_seeds};

const SEED_COUNT: u64 = 60;

fn note() -> GenSchema {
    let text = || ValueType::String;
    let fields = vec![
        FieldSchema::new("title", 1, Strategy::Lww, text()),
        FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64),
        FieldSchema::new("tags", 3, Strategy::OrSet, ValueType::Set(Box::new(text()))),
        FieldSchema::new("state", 4, Strategy::MvRegister, text()),
        FieldSchema::new("weight", 5, Strategy::PnCounterFloat, ValueType::F64),
    ];
    GenSchema::new("Note", fields)
}

/// A store that can be closed and opened again, and copied with its key.
struct Store {
    storage: Arc<MemoryStorage>,
    namespace: String,
    database: Option<Database>,
}

fn open(storage: &Arc<MemoryStorage>) -> Database {
    // Small segments, so that branches begin within them and at their ends.
    let options = OpenOptions { segment_bytes: 300, ..OpenOptions::default() };
    let environment = Arc::new(SystemEnvironment);
    Database::with_environment(storage.clone(), None, environment, &options).unwrap()
}

impl Store {
    fn new() -> Store {
        let storage = Arc::default();
        let database = Some(open(&storage));
        Store { storage, namespace: "default".to_owned(), database }
    }

    fn copy(&self) -> Store {
        let (storage, mut image) = (Arc::<MemoryStorage>::default(), WriteBatch::default());
        self.storage
            .scan(&[], &[0xff], &mut |key, value| {
                image.put(key.to_vec(), value.to_vec());
                true
            })
            .unwrap();
        storage.commit(&image).unwrap();
        let database = Some(open(&storage).in_namespace(&self.namespace));
        Store { storage, namespace: self.namespace.clone(), database }
    }

    fn database(&self) -> &Database {
        self.database.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.database = None;
        self.database = Some(open(&self.storage).in_namespace(&self.namespace));
    }

    fn replication(&self) -> Replication {
        self.database().replication(&self.namespace).unwrap()
    }

    fn key(&self) -> ReplicaKey {
        self.database().replica_key()
    }

    fn write(&self, key: &str, text: &str) {
        let database = self.database();
        let is_new = database.read(&note(), &database.document_id(key)).unwrap().is_none();
        database
            .transaction(|transaction| {
                if is_new {
                    transaction.create(&note(), key)?;
                }
                transaction.set(&note(), key, "title", text)?;
                transaction.set(&note(), key, "state", text)?;
                transaction.add(&note(), key, "votes", 1)?;
                transaction.add(&note(), key, "weight", 0.5)?;
                transaction.add_element(&note(), key, "tags", text)
            })
            .unwrap();
    }

    fn read(&self, key: &str, field: &str) -> Option<Value> {
        let database = self.database();
        database.read_field(&note(), &database.document_id(key), field).unwrap()
    }

    fn state(&self) -> (vudo_crdt::VersionVector, vudo_crdt::Fingerprint) {
        self.replication().fingerprint().unwrap()
    }
}

fn roots(store: &Store) -> Vec<(ReplicaKey, u64, Option<Hash>)> {
    let (vector, roots) = store.replication().log_roots().unwrap();
    vector.iter().zip(roots).map(|((key, number), root)| (key, number, root)).collect()
}

/// The replica whose logs differ at one length, if there is one.
fn differing(one: &Store, other: &Store) -> Option<ReplicaKey> {
    let others = roots(other);
    roots(one).into_iter().find_map(|(key, number, root)| {
        let same = others.iter().find(|(found, length, _)| (*found, *length) == (key, number))?;
        (same.2 != root).then_some(key)
    })
}

fn is_own_elsewhere(error: &Error) -> bool {
    matches!(error, Error::OwnKeyElsewhere)
}

/// Finds out where the logs of a replica part, and lets one side take the branch of the other. Gives
/// how many messages that took; `Err` gives the side that has to be opened again.
fn resolve(sides: [&Store; 2], replica: &ReplicaKey) -> Result<usize, usize> {
    let head = |side: usize| {
        let replication = sides[side].replication();
        let length = replication.durable_vector().get(replica);
        replication.signed_head_of(replica, length).unwrap().unwrap()
    };
    let heads = [head(0), head(1)];
    let (mut said, mut side) = (Vec::new(), 0);
    for message_count in 1..40 {
        let compared = sides[side].replication().compare_logs(&heads[1 - side], &said);
        match compared {
            Err(error) if is_own_elsewhere(&error) => return Err(side),
            Err(error) => panic!("{error}"),
            Ok(LogComparison::Same) => return Ok(message_count),
            Ok(LogComparison::Narrow(roots)) => said = roots,
            Ok(LogComparison::DifferFrom(number)) => {
                let (from, to) = (sides[side].replication(), sides[1 - side].replication());
                let branch = from.branch_from(replica, number).unwrap();
                match to.apply_branch(&branch) {
                    Ok(BranchOutcome::Taken) => {}
                    Ok(BranchOutcome::OwnStands(from_number)) => {
                        assert_eq!(from_number, number);
                        let branch = to.branch_from(replica, number).unwrap();
                        match from.apply_branch(&branch) {
                            Ok(outcome) => assert_eq!(outcome, BranchOutcome::Taken),
                            Err(error) if is_own_elsewhere(&error) => return Err(side),
                            Err(error) => panic!("{error}"),
                        }
                    }
                    Err(error) if is_own_elsewhere(&error) => return Err(1 - side),
                    Err(error) => panic!("{error}"),
                }
                return Ok(message_count);
            }
        }
        side = 1 - side;
    }
    panic!("the search does not end");
}

/// Syncs two stores as a session does, and says whether one had to be opened again.
fn sync(stores: &mut [Store], one: usize, other: usize) {
    'again: loop {
        while let Some(replica) = differing(&stores[one], &stores[other]) {
            if let Err(side) = resolve([&stores[one], &stores[other]], &replica) {
                stores[[one, other][side]].reopen();
                continue 'again;
            }
        }
        for (from, to) in [(one, other), (other, one)] {
            loop {
                let since = stores[to].replication().durable_vector();
                let frame = stores[from].replication().frame_since(&since, 600).unwrap();
                let Some(frame) = frame else { break };
                match stores[to].replication().apply_frame(&frame.bytes) {
                    Ok(applied) => assert!(applied.changes > 0),
                    Err(Error::OtherLog { signed }) => {
                        let replica = signed.head.replica;
                        if let Err(side) = resolve([&stores[one], &stores[other]], &replica) {
                            stores[[one, other][side]].reopen();
                        }
                        continue 'again;
                    }
                    Err(error) if is_own_elsewhere(&error) => {
                        stores[to].reopen();
                        continue 'again;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        if stores[one].replication().durable_vector()
            == stores[other].replication().durable_vector()
            && differing(&stores[one], &stores[other]).is_none()
        {
            return;
        }
    }
}

fn sync_all(stores: &mut [Store]) {
    for _ in 0..stores.len() + 2 {
        for place in 1..stores.len() {
            sync(stores, place - 1, place);
        }
    }
}

/// Two stores of one key write, crash and sync with others in any order. In the end everybody holds one
/// log of that key, and what was written is there once: titles, votes, tags and all.
#[test]
fn forks_end_in_one_log_everywhere_with_nothing_lost() {
    let mut orphan_count = 0;
    let count = run_seeds("forks", SEED_COUNT, |seed| {
        let mut random = Random::new(seed);
        let mut stores: Vec<Store> = (0..4).map(|_| Store::new()).collect();
        let mut written = Vec::new();
        let mut write = |stores: &[Store], place: usize, random: &mut Random| {
            let text = format!("{place} {}", written.len());
            let key = format!("note {}", random.below(3));
            stores[place].write(&key, &text);
            written.push((key, text));
        };
        for _ in 0..random.below(6) {
            write(&stores, 0, &mut random);
        }
        if random.one_in(2) {
            sync(&mut stores, 0, 1);
        }
        let is_forked_in_others = random.one_in(3);
        stores[3] = stores[0].copy();
        for _ in 0..10 + random.below(20) {
            let place = random.below(4);
            match random.below(5) {
                0 => stores[place].reopen(),
                1 => {
                    let other = (place + 1 + random.below(3)) % 4;
                    // Those that share a key meet late, or at once.
                    if is_forked_in_others || (place, other) != (0, 3) && (place, other) != (3, 0) {
                        sync(&mut stores, place, other);
                    }
                }
                _ => write(&stores, place, &mut random),
            }
        }
        sync_all(&mut stores);
        let first = stores[0].state();
        for store in &mut stores {
            assert_eq!(store.state(), first);
            store.reopen();
            assert_eq!(store.state(), first, "after opening again");
            let report = store.database().verify().unwrap();
            assert_eq!(report.damages, Vec::<String>::new());
            orphan_count += store.database().orphans().unwrap().len();
        }
        let count_of = |key: &str| written.iter().filter(|(found, _)| found == key).count();
        for (key, text) in &written {
            let Some(Value::List(tags)) = stores[1].read(key, "tags") else { panic!("{key}") };
            assert!(tags.contains(&Value::from(text.as_str())), "{text} of {key} in {tags:?}");
            assert_eq!(stores[1].read(key, "votes"), Some(Value::Int(count_of(key) as i128)));
            let weight = count_of(key) as f64 / 2.0;
            assert_eq!(stores[1].read(key, "weight"), Some(Value::Float(weight)));
        }
        // A new store gets all of it from any of them.
        stores.push(Store::new());
        sync(&mut stores, 2, 4);
        assert_eq!(stores[4].state(), first);
        stores[1].database().compact().unwrap();
        assert_eq!(stores[1].state(), first, "after compaction");
    });
    println!("forks: {orphan_count} branches orphaned in {count} seeds");
    assert!(orphan_count as u64 > count / 4, "hardly any branch was orphaned");
}

/// Two stores of one key, in a namespace of this name, with a document each that the other lacks.
fn forked(namespace: &str, original: Store) -> [Store; 2] {
    let original = original.in_namespace(namespace);
    original.write("both", "before");
    let copy = original.copy();
    original.write("one", "only here");
    copy.write("other", "only there");
    [original, copy]
}

/// Lets a store hear of both logs of a key, whose stores are gone then. Gives the document that has no
/// effect any more.
fn lose_one(third: &Store, replica: &ReplicaKey, [one, other]: [Store; 2]) -> &'static str {
    let since = third.replication().durable_vector();
    let frame = one.replication().frame_since(&since, usize::MAX).unwrap().unwrap();
    third.replication().apply_frame(&frame.bytes).unwrap();
    let branch = other.replication().branch_from(replica, 2).unwrap();
    match third.replication().apply_branch(&branch).unwrap() {
        BranchOutcome::Taken => "one",
        BranchOutcome::OwnStands(2) => {
            // What it was given in vain it does not keep.
            assert_eq!(third.database().orphans().unwrap(), []);
            "other"
        }
        BranchOutcome::OwnStands(number) => panic!("{number}"),
    }
}

impl Store {
    fn in_namespace(mut self, namespace: &str) -> Store {
        self.namespace = namespace.to_owned();
        self.database = Some(self.database().in_namespace(namespace));
        self
    }
}

#[test]
fn what_nobody_writes_again_can_be_adopted_once() {
    let mut adopted_count = 0;
    for _ in 0..20 {
        let (mut third, original) = (Store::new(), Store::new());
        let replica = original.key();
        let lost = lose_one(&third, &replica, forked("default", original));
        assert!(third.read(lost, "title").is_none());
        let Ok([orphans]) = <[_; 1]>::try_from(third.database().orphans().unwrap()) else {
            continue;
        };
        assert_eq!((orphans.replica, orphans.first, orphans.changes), (replica, 2, 1));
        third.reopen();
        let report = third.database().adopt(Some(&third.key())).unwrap();
        assert_eq!(report.adopted, 0, "those of another replica");
        let report = third.database().adopt(Some(&replica)).unwrap();
        assert_eq!((report.adopted, report.known, report.left), (1, 0, vec![]));
        assert_eq!(third.read(lost, "title"), Some("only here".into()));
        assert_eq!(third.read(lost, "votes"), Some(Value::Int(1)));
        assert_eq!(third.database().adopt(None).unwrap().adopted, 0);
        let before = third.state();
        third.reopen();
        assert_eq!(third.state(), before);
        adopted_count += 1;
    }
    assert!((1..20).contains(&adopted_count), "each of the two logs wins now and then");
}

/// In a namespace with owners whoever adopts needs the right to write what is adopted.
#[test]
fn whoever_adopts_needs_the_right_to() {
    let mut adopted_count = 0;
    while adopted_count < 3 {
        let (owner, third, writer) = (Store::new(), Store::new(), Store::new());
        let name = owner.database().found("team", &[owner.key()]).unwrap();
        let owner = owner.in_namespace(&name);
        let grant = |subject, gen_name: &str| {
            let scopes = vec![Scope { gen_name: gen_name.to_owned(), key_prefix: String::new() }];
            let grant = Grant {
                issuer: owner.key(),
                subject,
                can_delegate: false,
                expires_milliseconds: None,
                scopes,
            };
            owner.database().issue(RightsRecord::Grant(grant), None).unwrap();
        };
        grant(writer.key(), "Note");
        grant(third.key(), "Task");
        let (third, writer) = (third.in_namespace(&name), writer.in_namespace(&name));
        let replica = writer.key();
        let mut stores = [owner, third, writer];
        sync(&mut stores, 0, 1);
        // So that the writer's first change is the one before the fork.
        let records = stores[0].database().access_rights().unwrap().unwrap();
        let frame = stores[0].replication().frame_since(&Default::default(), usize::MAX).unwrap();
        stores[2].replication().apply_frame(&frame.unwrap().bytes).unwrap();
        assert!(records.records().count() >= 3);
        let [owner, third, writer] = stores;
        lose_one(&third, &replica, forked(&name, writer));
        if third.database().orphans().unwrap().is_empty() {
            continue;
        }
        let report = third.database().adopt(None).unwrap();
        assert_eq!((report.adopted, report.left.len()), (0, 1));
        assert!(report.left[0].contains("vudo invite"), "{:?}", report.left);
        let mut stores = [owner, third];
        sync(&mut stores, 0, 1);
        let scopes = vec![Scope { gen_name: String::new(), key_prefix: String::new() }];
        let grant = Grant {
            issuer: stores[0].key(),
            subject: stores[1].key(),
            can_delegate: false,
            expires_milliseconds: None,
            scopes,
        };
        stores[0].database().issue(RightsRecord::Grant(grant), None).unwrap();
        sync(&mut stores, 0, 1);
        assert_eq!(stores[1].database().adopt(None).unwrap().adopted, 1);
        sync(&mut stores, 0, 1);
        assert_eq!(stores[0].state(), stores[1].state());
        assert_eq!(stores[0].read("one", "title"), Some("only here".into()));
        adopted_count += 1;
    }
}

/// A peer can say anything, also roots of a log that is longer than the head that it has shown.
#[test]
fn roots_beyond_the_head_of_a_log_count_for_nothing() {
    let (original, store) = (Store::new(), Store::new());
    let head = || original.replication().signed_head().unwrap();
    let heads: Vec<SignedHead> = (1..=5)
        .map(|number| {
            original.write("note", &format!("{number}"));
            head()
        })
        .collect();
    let root_at = |length: u64| (length, heads[length as usize - 1].head.root);
    let frame = original.replication().frame_since(&Default::default(), usize::MAX).unwrap();
    store.replication().apply_frame(&frame.unwrap().bytes).unwrap();
    let compare = |said: &[RootAt]| store.replication().compare_logs(&heads[2], said);
    for beyond in [root_at(5), (5, [7; 32]), (4, [7; 32]), (u64::MAX, [7; 32])] {
        let refused = compare(&[beyond]).unwrap_err();
        assert!(refused.is_peer_fault(), "{refused}");
        assert_eq!(compare(&[root_at(2), beyond]).unwrap(), LogComparison::Same);
    }
    assert_eq!(compare(&[]).unwrap(), LogComparison::Same);
}

/// The search finds the first difference of long logs in a few messages.
#[test]
fn the_place_where_long_logs_part_is_found_in_a_few_messages() {
    let original = Store::new();
    for number in 0..700 {
        original.write(&format!("{}", number % 5), "before");
    }
    let copy = original.copy();
    for number in 0..90 {
        original.write("after", &format!("one {number}"));
        copy.write("after", &format!("other {number}"));
    }
    let replica = original.key();
    let mut stores = [Store::new(), Store::new()];
    for (store, from) in stores.iter().zip([original, copy]) {
        let frame = from.replication().frame_since(&Default::default(), usize::MAX).unwrap();
        store.replication().apply_frame(&frame.unwrap().bytes).unwrap();
    }
    let message_count = resolve([&stores[0], &stores[1]], &replica).unwrap();
    println!("forks: logs of 790 changes compared in {message_count} messages");
    assert!(message_count <= 5, "{message_count}");
    sync(&mut stores, 0, 1);
    assert_eq!(stores[0].state(), stores[1].state());
}

fn cursor(store: &Store) -> Cursor {
    Cursor { digest: [7; 16], vector: store.replication().durable_vector().into() }
}

/// What a store remembers of its peers outlasts a restart, and goes with the log that it is about.
#[test]
fn cursors_are_forgotten_with_the_branch_that_they_have() {
    let (original, mut other) = (Store::new(), Store::new());
    original.write("before", "both");
    let copy = original.copy();
    original.write("after", "one");
    copy.write("after", "other");
    let peer = ReplicaKey([9; 32]);
    // Of two readers, the one that has the branch that loses takes the other one.
    let readers = [Store::new(), Store::new()];
    let mut stores: Vec<Store> = readers.into_iter().collect();
    for (store, from) in stores.iter().zip([&original, &copy]) {
        let frame = from.replication().frame_since(&Default::default(), usize::MAX).unwrap();
        store.replication().apply_frame(&frame.unwrap().bytes).unwrap();
        let replication = store.replication();
        replication.remember_cursor(peer, cursor(store), replication.branch_count());
    }
    for store in &mut stores {
        let remembered = store.replication().cursor(&peer);
        assert_eq!(remembered, Some(cursor(store)));
        store.reopen();
        assert_eq!(store.replication().cursor(&peer), remembered, "after opening again");
    }
    let counts = |stores: &[Store]| -> Vec<u64> {
        stores.iter().map(|store| store.replication().branch_count()).collect()
    };
    let held: Vec<Cursor> = stores.iter().map(cursor).collect();
    resolve([&stores[0], &stores[1]], &original.key()).unwrap();
    let taken = counts(&stores);
    assert_eq!(taken.iter().sum::<u64>(), 1, "one of them has taken the other's branch");
    for ((store, taken), held) in stores.iter_mut().zip(taken).zip(held) {
        let left = (taken == 0).then_some(held.clone());
        assert_eq!(store.replication().cursor(&peer), left);
        // A session that began before does not bring it back.
        let late = ReplicaKey([8; 32]);
        store.replication().remember_cursor(late, held, 0);
        assert_eq!(store.replication().cursor(&late).is_some(), taken == 0);
        store.reopen();
        assert_eq!(store.replication().cursor(&peer), left, "after opening again");
    }
    // Nobody remembers more than it holds.
    other.write("own", "alone");
    other.replication().remember_cursor(peer, cursor(&original), 0);
    assert_eq!(other.replication().cursor(&peer), None);
    other.reopen();
}
