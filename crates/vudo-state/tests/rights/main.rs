//! Who may write to a namespace with owners: what is in effect follows from the changes that are held,
//! whatever the order in which they came.

mod checkpoints;
#[path = "../common/mod.rs"]
mod common;
mod status;
mod twin;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use vudo_crdt::{FieldSchema, GenSchema, Ranges, Strategy, ValueType, VersionVector};
use vudo_state::storage::MemoryStorage;
use vudo_state::{
    CheckpointRecord, Database, Error, Founding, Grant, MissingRight, PublicKey, RIGHTS_GEN,
    Revocation, Rights, RightsRecord, Scope, SignedRecord, founding_hash,
};
use vudo_testkit::{Random, run_seeds};

use twin::{Held, Twin};
use writer::{Writer, public, secret, signed};

const SEED_COUNT: u64 = 200;

/// Keys by the first bytes of their seeds: a recovery key and two owners, people, replicas.
const OWNERS: [u8; 3] = [1, 2, 3];
const KEYS: [u8; 9] = [1, 2, 3, 11, 12, 13, 21, 22, 23];

fn gen_named(name: &str) -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new(name, [title])
}

fn scope(gen_name: &str, key_prefix: &str) -> Scope {
    Scope { gen_name: gen_name.into(), key_prefix: key_prefix.into() }
}

fn grant(issuer: PublicKey, subject: PublicKey, scopes: Vec<Scope>) -> RightsRecord {
    let (can_delegate, expires_milliseconds) = (false, None);
    RightsRecord::Grant(Grant { issuer, subject, can_delegate, expires_milliseconds, scopes })
}

fn founding() -> (String, SignedRecord) {
    let founding = Founding { salt: [7; 16], owners: OWNERS.map(public).to_vec() };
    (founding.namespace("team"), SignedRecord::founding(founding))
}

/// Passes everything on that `to` lacks.
fn pass_on(from: &Database, to: &Database) {
    let namespace = from.namespace();
    let (from, to) = (from.replication(namespace).unwrap(), to.replication(namespace).unwrap());
    while let Some(frame) = from.frame_since(&to.durable_vector(), usize::MAX).unwrap() {
        to.apply_frame(&frame.bytes).unwrap();
    }
}

fn add(database: &Database, gen_name: &str, key: &str) -> vudo_state::Result<()> {
    let id = database.document_id(key);
    database.create(&gen_named(gen_name), &id, &[("title", key.into())])
}

fn keys_of(database: &Database, gen_name: &str) -> Vec<String> {
    let records = database.list(&gen_named(gen_name)).unwrap();
    records.into_iter().map(|record| record.key).collect()
}

fn state_of(database: &Database) -> (VersionVector, vudo_crdt::Fingerprint) {
    database.replication(database.namespace()).unwrap().fingerprint().unwrap()
}

/// The namespace of one store that owns it, and two others that hold the founding.
fn team() -> [Database; 3] {
    let stores = [(); 3].map(|()| Database::open_in_memory().unwrap());
    let name = stores[0].found("team", &[stores[0].replica_key()]).unwrap();
    let stores = stores.map(|store| store.in_namespace(&name));
    pass_on(&stores[0], &stores[1]);
    pass_on(&stores[0], &stores[2]);
    stores
}

fn missing(result: vudo_state::Result<()>) -> MissingRight {
    match result {
        Err(Error::NoRight { missing, .. }) => *missing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_that_nobody_has_granted_is_refused_with_what_is_missing() {
    let [owner, member, _] = team();
    add(&owner, "Task", "milk").unwrap();
    let replica = member.replica_key();
    assert_eq!(missing(add(&member, "Task", "tea")), MissingRight::Grant { replica });
    assert!(keys_of(&member, "Task").is_empty());

    let scopes = vec![scope("Task", "t"), scope("Note", "")];
    owner.issue(grant(owner.replica_key(), replica, scopes), None).unwrap();
    pass_on(&owner, &member);
    add(&member, "Task", "tea").unwrap();
    add(&member, "Note", "any").unwrap();
    let covered = "Note/*, Task/t*".to_owned();
    let gen_name = "Task".to_owned();
    let expected = MissingRight::Scope { replica, gen_name, covered };
    assert_eq!(missing(add(&member, "Task", "coffee")), expected);
    assert_eq!(missing(add(&owner, RIGHTS_GEN, "me")), MissingRight::Reserved);

    pass_on(&member, &owner);
    assert_eq!(keys_of(&owner, "Task"), ["milk", "tea"]);
    assert_eq!(state_of(&owner), state_of(&member));

    let revocation = owner.revocation_of(owner.replica_key(), replica).unwrap();
    owner.issue(RightsRecord::Revocation(revocation), None).unwrap();
    add(&member, "Task", "too late").unwrap();
    pass_on(&owner, &member);
    assert_eq!(missing(add(&member, "Task", "truly")), MissingRight::Revoked);
    pass_on(&member, &owner);
    for store in [&owner, &member] {
        assert_eq!(
            keys_of(store, "Task"),
            ["milk", "tea"],
            "what came above the cut has no effect"
        );
    }
    assert_eq!(state_of(&owner), state_of(&member));
}

#[test]
fn a_store_that_lacks_the_founding_says_so() {
    let [owner, ..] = team();
    let stranger = Database::open_in_memory().unwrap().in_namespace(owner.namespace());
    assert_eq!(missing(add(&stranger, "Task", "milk")), MissingRight::Founding);
}

#[test]
fn a_namespace_without_owners_is_open_and_nobody_can_claim_it() {
    let stores = [(); 2].map(|()| Database::open_in_memory().unwrap().in_namespace("open"));
    add(&stores[0], "Task", "milk").unwrap();
    let founding = Founding { salt: [0; 16], owners: vec![stores[1].replica_key()] };
    let claimed = stores[1].add_records(vec![SignedRecord::founding(founding)]);
    assert!(matches!(claimed, Err(Error::NoOwners(name)) if name == "open"));
    pass_on(&stores[0], &stores[1]);
    add(&stores[1], "Task", "tea").unwrap();
    assert_eq!(keys_of(&stores[1], "Task"), ["milk", "tea"]);
}

#[test]
fn the_founding_of_others_is_none_of_a_namespace() {
    let (name, record) = founding();
    let thief = Founding { salt: [7; 16], owners: vec![public(23)] };
    let store = Database::open_in_memory().unwrap().in_namespace(&name);
    let claimed = store.add_records(vec![SignedRecord::founding(thief.clone())]);
    assert!(matches!(claimed, Err(Error::NotOfNamespace(_))));
    // Whoever sends it all the same, in a change, is set aside.
    let mut attacker = Writer::new(&name, 23);
    let replication = store.replication(&name).unwrap();
    replication.apply_frame(&attacker.carry(&SignedRecord::founding(thief))).unwrap();
    replication.apply_frame(&attacker.write(&[("Task", "mine")])).unwrap();
    assert!(keys_of(&store, "Task").is_empty());
    assert_eq!(replication.set_aside(&public(23)).iter().collect::<Vec<_>>(), [(1, 2)]);
    store.add_records(vec![record]).unwrap();
    assert_eq!(store.access_rights().unwrap().unwrap().owners(), OWNERS.map(public));
    assert!(keys_of(&store, "Task").is_empty());
}

#[test]
fn what_is_set_aside_takes_effect_when_its_grant_arrives_and_is_forwarded_until_then() {
    let (name, founding) = founding();
    let mut member = Writer::new(&name, 21);
    let frames =
        [member.write(&[("Task", "one")]), member.write(&[("Task", "two"), ("Note", "x")])];
    let stores = [(); 2].map(|()| Database::open_in_memory().unwrap().in_namespace(&name));
    stores[0].add_records(vec![founding]).unwrap();
    let subscription = stores[0].subscribe(vudo_state::Interest::Namespace).unwrap();
    for frame in &frames {
        stores[0].replication(&name).unwrap().apply_frame(frame).unwrap();
    }
    assert!(subscription.try_next().is_none(), "nobody is told of what has no effect");
    pass_on(&stores[0], &stores[1]);
    assert_eq!(state_of(&stores[0]), state_of(&stores[1]), "it is passed on all the same");
    assert!(keys_of(&stores[1], "Task").is_empty());

    let record = signed(grant(public(2), public(21), vec![scope("Task", "")]), &name, 2);
    stores[0].add_records(vec![record]).unwrap();
    // The second change writes to a note too, which nobody has granted: it stays aside as a whole.
    assert_eq!(keys_of(&stores[0], "Task"), ["one"]);
    let told = std::iter::from_fn(|| subscription.try_next());
    let told: Vec<String> =
        told.flat_map(|event| event.documents.clone()).map(|document| document.key).collect();
    assert!(told.contains(&"one".to_owned()) && !told.contains(&"two".to_owned()), "{told:?}");
    pass_on(&stores[0], &stores[1]);
    assert_eq!(keys_of(&stores[1], "Task"), ["one"]);
    assert_eq!(state_of(&stores[0]), state_of(&stores[1]));
}

#[test]
fn a_person_writes_from_certified_replicas_and_a_lost_one_is_revoked_alone() {
    let (name, founding) = founding();
    let store = Database::open_in_memory().unwrap().in_namespace(&name);
    let (phone, laptop) = (public(21), public(22));
    let records = vec![
        founding,
        signed(grant(public(3), public(11), vec![Scope::everything()]), &name, 3),
        signed(RightsRecord::Certificate { person: public(11), replica: phone }, &name, 11),
        signed(RightsRecord::Certificate { person: public(11), replica: laptop }, &name, 11),
        // A replica answers for nobody, not even for itself.
        signed(RightsRecord::Certificate { person: phone, replica: public(23) }, &name, 21),
        // What has been granted without the right to delegate ends there.
        signed(grant(public(11), public(13), vec![Scope::everything()]), &name, 11),
    ];
    store.add_records(records).unwrap();
    let rights = || store.access_rights().unwrap().unwrap();
    for replica in [phone, laptop] {
        assert_eq!(rights().check_write(&replica, 9, "Task", b"milk"), Ok(()));
    }
    for stranger in [public(23), public(13)] {
        assert!(rights().check_write(&stranger, 1, "Task", b"milk").is_err());
    }
    let last_accepted = [(phone, 4)].into_iter().collect::<Vec<_>>();
    let mut vector = VersionVector::new();
    last_accepted.iter().for_each(|(replica, number)| vector.advance(*replica, *number));
    let lost = Revocation { issuer: public(11), subject: phone, last_accepted: vector };
    let revoked = SignedRecord::sign(RightsRecord::Revocation(lost), &name, &secret(11)).unwrap();
    store.add_records(vec![revoked]).unwrap();
    assert_eq!(rights().check_write(&phone, 4, "Task", b"milk"), Ok(()));
    assert_eq!(rights().check_write(&phone, 5, "Task", b"milk"), Err(MissingRight::Revoked));
    assert_eq!(rights().check_write(&laptop, 5, "Task", b"milk"), Ok(()));
}

/// A thief of an owner's key is revoked with the recovery key, and what it revokes then counts for
/// nothing; before that it could revoke.
#[test]
fn the_revocations_of_a_stolen_key_end_with_it() {
    let (name, founding) = founding();
    let store = Database::open_in_memory().unwrap().in_namespace(&name);
    let granted = signed(grant(public(3), public(21), vec![Scope::everything()]), &name, 3);
    store.add_records(vec![founding, granted]).unwrap();
    let revocation = |issuer: u8, subject: u8| {
        let (issuer, subject) = (public(issuer), public(subject));
        RightsRecord::Revocation(Revocation {
            issuer,
            subject,
            last_accepted: VersionVector::new(),
        })
    };
    let mut thief = Writer::new(&name, 2);
    let replication = store.replication(&name).unwrap();
    let may_write = || {
        let rights = store.access_rights().unwrap().unwrap();
        rights.check_write(&public(21), 1, "Task", b"milk").is_ok()
    };
    // A later owner cannot touch an earlier one.
    replication.apply_frame(&thief.carry(&signed(revocation(2, 1), &name, 2))).unwrap();
    assert!(!store.access_rights().unwrap().unwrap().is_revoked(&public(1)));
    replication.apply_frame(&thief.carry(&signed(revocation(2, 21), &name, 2))).unwrap();
    assert!(!may_write());
    store.add_records(vec![signed(revocation(1, 2), &name, 1)]).unwrap();
    assert!(may_write());
    assert!(store.access_rights().unwrap().unwrap().is_revoked(&public(2)));
}

#[test]
fn rights_and_judgements_are_there_again_after_opening() {
    let (name, founding) = founding();
    let storage = Arc::new(MemoryStorage::default());
    let open = || Database::with_storage(storage.clone(), None).unwrap().in_namespace(&name);
    let mut member = Writer::new(&name, 21);
    let mut stranger = Writer::new(&name, 22);
    let store = open();
    store.add_records(vec![founding]).unwrap();
    let replication = store.replication(&name).unwrap();
    replication.apply_frame(&member.write(&[("Task", "one")])).unwrap();
    replication.apply_frame(&stranger.write(&[("Task", "two")])).unwrap();
    let granted = signed(grant(public(1), public(21), vec![Scope::everything()]), &name, 1);
    replication.apply_frame(&stranger.carry(&granted)).unwrap();
    replication.apply_frame(&stranger.write(&[("Task", "three")])).unwrap();
    let expected = (state_of(&store), keys_of(&store, "Task"));
    drop((store, replication));
    let store = open();
    assert_eq!(expected.1, ["one"]);
    assert_eq!((state_of(&store), keys_of(&store, "Task")), expected);
    let set_aside = store.replication(&name).unwrap().set_aside(&public(22));
    assert_eq!(set_aside.iter().collect::<Vec<_>>(), [(1, 1), (3, 3)]);
}

#[test]
fn reading_ends_with_the_first_grant_that_expires_and_writing_does_not() {
    let (name, founding) = founding();
    let mut rights = Rights::new(&name).unwrap();
    let expiring = |subject: u8, expires| {
        let scopes = vec![Scope::everything()];
        let (issuer, subject) = (public(1), public(subject));
        let grant =
            Grant { issuer, subject, can_delegate: true, expires_milliseconds: expires, scopes };
        signed(RightsRecord::Grant(grant), &name, 1)
    };
    let records = [founding, expiring(11, Some(100)), expiring(11, Some(500)), expiring(12, None)];
    rights.hold(records.map(|record| (record, None)));
    assert_eq!(rights.readable_until(&public(11), 50), Some(500));
    assert_eq!(rights.readable_until(&public(11), 500), None);
    assert_eq!(rights.readable_until(&public(12), 500), Some(u64::MAX));
    assert_eq!(rights.readable_until(&public(13), 0), None);
    assert_eq!(rights.check_write(&public(11), 1, "Task", b"late"), Ok(()));
}

#[test]
fn a_name_says_whether_it_has_owners() {
    let (name, _) = founding();
    assert!(founding_hash(&name).is_some());
    let short = &name[..name.len() - 1];
    for open in ["default", "team@", short, &name.replace("team", ""), &name.to_uppercase()] {
        assert_eq!(founding_hash(open), None, "{open}");
    }
}

fn random_checkpoint(random: &mut Random, issuer: PublicKey, numbers_max: u64) -> RightsRecord {
    let (mut vector, mut set_aside) = (VersionVector::new(), Vec::new());
    for key in KEYS.map(public) {
        let last = random.between(0, numbers_max / 2);
        vector.advance(key, last);
        let mut ranges = Ranges::new();
        if last > 0 && random.one_in(2) {
            let first = random.between(1, last);
            ranges.insert(first, random.between(first, last));
            set_aside.push((key, ranges));
        }
    }
    set_aside.sort_unstable_by_key(|(key, _)| *key);
    RightsRecord::Checkpoint(CheckpointRecord { issuer, vector, set_aside })
}

fn random_record(random: &mut Random, name: &str, numbers_max: u64) -> SignedRecord {
    let keys = |random: &mut Random| KEYS[random.below(KEYS.len())];
    let issuer = match random.one_in(2) {
        true => OWNERS[random.below(OWNERS.len())],
        false => keys(random),
    };
    let subject = keys(random);
    let record = match random.below(7) {
        2 => random_checkpoint(random, public(issuer), numbers_max),
        0 => RightsRecord::Certificate { person: public(issuer), replica: public(subject) },
        1 => {
            let mut last_accepted = VersionVector::new();
            for key in KEYS {
                last_accepted.advance(public(key), random.between(0, numbers_max + 1));
            }
            let (issuer, subject) = (public(issuer), public(subject));
            RightsRecord::Revocation(Revocation { issuer, subject, last_accepted })
        }
        _ => {
            let one = |random: &mut Random| match random.below(4) {
                0 => Scope::everything(),
                1 => scope("Task", ""),
                2 => scope("Task", "a"),
                _ => scope("", "b"),
            };
            let scopes = (0..random.below(3)).map(|_| one(random)).collect();
            RightsRecord::Grant(Grant {
                issuer: public(issuer),
                subject: public(subject),
                can_delegate: random.one_in(2),
                expires_milliseconds: None,
                scopes,
            })
        }
    };
    signed(record, name, issuer)
}

/// The documents that are asked about.
const DOCUMENTS: [(&str, &str); 4] = [("Task", "a"), ("Task", "b"), ("Note", "a"), ("Note", "b")];

#[test]
fn what_follows_from_records_is_what_every_chain_says_whatever_their_order() {
    let (name, founding) = founding();
    let (mut covered_count, mut asked_count) = (0, 0);
    let count = run_seeds("rights from records", SEED_COUNT, |seed| {
        let mut random = Random::new(seed);
        let mut held: Vec<Held> = vec![(founding.clone(), Vec::new())];
        for _ in 0..random.below(24) {
            let record = random_record(&mut random, &name, 4);
            let carriers = (0..random.below(3))
                .map(|_| (public(KEYS[random.below(KEYS.len())]), random.between(1, 5)))
                .collect();
            held.push((record, carriers));
        }
        let twin = Twin(&held);
        let mut one_by_one = Rights::new(&name).unwrap();
        let mut arrivals: Vec<(SignedRecord, Option<(PublicKey, u64)>)> = held
            .iter()
            .flat_map(|(record, carriers)| {
                let carriers = carriers.iter().map(|carrier| Some(*carrier)).chain([None]);
                carriers.map(|carrier| (record.clone(), carrier))
            })
            .collect();
        while !arrivals.is_empty() {
            one_by_one.hold([arrivals.swap_remove(random.below(arrivals.len()))]);
        }
        for replica in KEYS.map(public) {
            for number in 1..=5 {
                for (gen_name, key) in DOCUMENTS {
                    let expected = twin.covers((&replica, number, gen_name, key));
                    let found = one_by_one.check_write(&replica, number, gen_name, key.as_bytes());
                    assert_eq!(found.is_ok(), expected, "{replica} {number} {gen_name}/{key}");
                    covered_count += u64::from(expected);
                    asked_count += 1;
                }
            }
        }
    });
    println!("{count} seeds, {covered_count} of {asked_count} writes covered");
    assert!(covered_count > asked_count / 10 && covered_count < asked_count * 9 / 10);
}

/// A change of the random history: whose, its number, its documents, and its frame.
struct Written {
    replica: PublicKey,
    number: u64,
    documents: Vec<(&'static str, &'static str)>,
    frame: Vec<u8>,
}

#[test]
fn stores_with_the_same_changes_judge_them_the_same_whatever_their_order() {
    let (name, founding) = founding();
    let (mut aside_count, mut change_count) = (0, 0);
    let count = run_seeds("judgements", SEED_COUNT / 2, |seed| {
        let mut random = Random::new(seed);
        let names = [2, 3, 21, 22, 23];
        let mut writers: Vec<Writer> = names.iter().map(|key| Writer::new(&name, *key)).collect();
        let mut held: BTreeMap<[u8; 32], Held> = BTreeMap::new();
        let mut written: Vec<Vec<Written>> = names.iter().map(|_| Vec::new()).collect();
        for step in 0..random.between(10, 40) {
            let place = random.below(writers.len());
            let (replica, writer) = (public(names[place]), &mut writers[place]);
            let mut documents = Vec::new();
            let frame = if step == 0 || random.one_in(3) {
                let mut record = match step {
                    0 => founding.clone(),
                    _ => random_record(&mut random, &name, 8),
                };
                // A document is made once by whoever makes it.
                let is_made = |record: &SignedRecord| {
                    let (_, carriers) = held.get(&record.id())?;
                    carriers.iter().find(|(carrier, _)| *carrier == replica)
                };
                while is_made(&record).is_some() {
                    record = random_record(&mut random, &name, 8);
                }
                let (_, carriers) =
                    held.entry(record.id()).or_insert_with(|| (record.clone(), Vec::new()));
                carriers.push((replica, writer.count + 1));
                writer.carry(&record)
            } else {
                documents.extend((0..1 + random.below(2)).map(|_| DOCUMENTS[random.below(4)]));
                documents.dedup();
                writer.write(&documents)
            };
            written[place].push(Written { replica, number: writer.count, documents, frame });
        }
        let held: Vec<Held> = held.into_values().collect();
        let twin = Twin(&held);

        let mut states = Vec::new();
        for _ in 0..3 {
            let storage = Arc::new(MemoryStorage::default());
            let open =
                || Database::with_storage(storage.clone(), None).unwrap().in_namespace(&name);
            let mut store = open();
            let mut places = vec![0; written.len()];
            loop {
                let left: Vec<usize> =
                    (0..written.len()).filter(|of| places[*of] < written[*of].len()).collect();
                if left.is_empty() {
                    break;
                }
                let of = left[random.below(left.len())];
                let frame = &written[of][places[of]].frame;
                store.replication(&name).unwrap().apply_frame(frame).unwrap();
                places[of] += 1;
                if random.one_in(10) {
                    drop(store);
                    store = open();
                }
            }
            let replication = store.replication(&name).unwrap();
            for change in written.iter().flatten() {
                let judged = twin.judged_for_good(&change.replica, change.number);
                let is_covered = judged.unwrap_or_else(|| {
                    change.documents.iter().all(|(gen_name, key)| {
                        twin.covers((&change.replica, change.number, gen_name, key))
                    })
                });
                let is_set_aside = replication.set_aside(&change.replica).contains(change.number);
                let Written { replica, number, documents, .. } = change;
                assert_eq!(is_set_aside, !is_covered, "{replica} {number} {documents:?}");
                aside_count += u64::from(is_set_aside);
                change_count += 1;
            }
            states.push((state_of(&store), keys_of(&store, "Task"), keys_of(&store, "Note")));
        }
        assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
    });
    println!("{count} seeds, {aside_count} of {change_count} judgements set aside");
    assert!(aside_count > change_count / 20 && aside_count < change_count);
}
