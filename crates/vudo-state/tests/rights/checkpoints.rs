//! Owners judge for good and compact; whoever holds the same changes is equal, compacted or not.

use std::sync::Arc;

use vudo_crdt::checkpoint::SignedCheckpoint;
use vudo_crdt::wire::Reader;
use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_state::storage::MemoryStorage;
use vudo_state::{
    CHECKPOINT_RECORD_BYTES_MAX, CheckpointOffer, CheckpointPart, CheckpointRecord, Database,
    Error, NotCompacted, OpenOptions, PartCursor, PartRequest, PublicKey, Replication, Revocation,
    RightsRecord, SignedRecord, SystemEnvironment,
};
use vudo_testkit::files::{CrashingFiles, Failure};
use vudo_testkit::{Random, run_seeds};

use super::common;
use super::writer::{Writer, public};
use super::{gen_named, grant, keys_of, pass_on, scope, state_of, team};

const SEED_COUNT: u64 = 60;
const CRASH_SEED_COUNT: u64 = 30;
const GIVER: ReplicaKey = ReplicaKey([7; 32]);

fn replication(database: &Database) -> Replication {
    database.replication(database.namespace()).unwrap()
}

/// The offer and every part of a store's checkpoint; `None` where it gives none.
fn parts_of(giver: &Database) -> Option<(CheckpointOffer, Vec<CheckpointPart>)> {
    let giver = replication(giver);
    let offer = giver.checkpoint_offer()?;
    let mut request = PartRequest { checkpoint: offer.id(), cursor: PartCursor::default() };
    let mut parts = Vec::new();
    loop {
        let part = giver.checkpoint_part(&request).unwrap().expect("it is the same checkpoint");
        parts.push(part.clone());
        match part.next {
            Some(next) => request.cursor = next,
            None => return Some((offer, parts)),
        }
    }
}

fn take(
    (offer, parts): &(CheckpointOffer, Vec<CheckpointPart>),
    to: &Database,
) -> vudo_state::Result<()> {
    let to = replication(to);
    let mut request = to.begin_catching_up(&GIVER, offer)?;
    for part in parts {
        assert_eq!(request.as_ref(), Some(&part.request));
        request = to.take_part(&GIVER, part)?;
    }
    assert_eq!(request, None);
    Ok(())
}

/// Everything that `to` lacks goes there, by a checkpoint where the log does not go back so far. Gives
/// whether it took one; an error where it needs one and there is none.
fn sync(from: &Database, to: &Database) -> Result<bool, Error> {
    let mut has_caught_up = false;
    loop {
        let (source, target) = (replication(from), replication(to));
        match source.frame_since(&target.durable_vector(), 600) {
            Ok(None) => return Ok(has_caught_up),
            Ok(Some(frame)) => {
                target.apply_frame(&frame.bytes).unwrap();
            }
            Err(error @ Error::Compacted { .. }) => {
                take(&parts_of(from).ok_or(error)?, to)?;
                has_caught_up = true;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn set(database: &Database, key: &str, title: &str) -> vudo_state::Result<()> {
    let id = database.document_id(key);
    match database.read(&gen_named("Task"), &id)?.is_some() {
        true => database.update(&gen_named("Task"), &id, &[("title", title.into())]),
        false => database.create(&gen_named("Task"), &id, &[("title", title.into())]),
    }
}

fn title(database: &Database, key: &str) -> Option<String> {
    let id = database.document_id(key);
    let task = database.read(&gen_named("Task"), &id).unwrap()?;
    task.get("title").map(|title| format!("{title:?}"))
}

fn may_write(owner: &Database, member: PublicKey) {
    let record = grant(owner.replica_key(), member, vec![scope("Task", "")]);
    owner.issue(record, None).unwrap();
}

fn revoke(owner: &Database, subject: PublicKey, last_accepted: u64) {
    let mut vector = VersionVector::new();
    vector.advance(subject, last_accepted);
    let issuer = owner.replica_key();
    let revocation = Revocation { issuer, subject, last_accepted: vector };
    owner.issue(RightsRecord::Revocation(revocation), None).unwrap();
}

/// Compacts, and gives how many changes that dropped.
fn compact(database: &Database) -> u64 {
    let report = database.compact().unwrap();
    assert_eq!(report.left_alone, [], "it is an owner's");
    report.dropped_changes
}

fn left_alone(database: &Database) -> NotCompacted {
    let report = database.compact().unwrap();
    let mut left_alone = report.left_alone.into_iter();
    match (left_alone.next(), left_alone.next()) {
        (Some((name, why)), None) if name == database.namespace() => why,
        other => panic!("{other:?}"),
    }
}

fn set_aside(database: &Database, replica: &PublicKey) -> Vec<(u64, u64)> {
    replication(database).set_aside(replica).iter().collect()
}

fn open_in(namespace: &str, storage: &Arc<MemoryStorage>) -> Database {
    // Small segments, so that frames end between changes.
    let options = OpenOptions { segment_bytes: 200, ..OpenOptions::default() };
    let environment = Arc::new(SystemEnvironment);
    let opened = Database::with_environment(storage.clone(), None, environment, &options);
    opened.unwrap().in_namespace(namespace)
}

fn new_in(namespace: &str) -> Database {
    open_in(namespace, &Arc::default())
}

#[test]
fn an_owner_compacts_and_whoever_is_behind_goes_on_from_its_checkpoint() {
    let [owner, member, behind] = team();
    may_write(&owner, member.replica_key());
    pass_on(&owner, &member);
    for number in 0..20 {
        set(&member, "note", &format!("of the member {number}")).unwrap();
        pass_on(&member, &owner);
        set(&owner, "note", &format!("of the owner {number}")).unwrap();
        pass_on(&owner, &member);
    }
    assert_eq!(left_alone(&member), NotCompacted::NotOwner);
    assert!(compact(&owner) >= 38, "one write of each is needed");
    let vector = replication(&owner).durable_vector();
    assert_eq!(compact(&owner), 0);
    assert_eq!(replication(&owner).durable_vector(), vector, "nothing new needs no checkpoint");
    assert!(!sync(&owner, &member).unwrap(), "it lacks the checkpoint alone");
    assert!(sync(&owner, &behind).unwrap());
    let last = new_in(owner.namespace());
    assert!(sync(&behind, &last).unwrap(), "it gives to others what it took");
    for store in [&member, &behind, &last] {
        assert_eq!(state_of(store), state_of(&owner));
        assert_eq!(store.access_rights().unwrap().unwrap().keys().len(), 2);
        assert_eq!(store.verify().unwrap().damages, [""; 0]);
    }
    set(&member, "note", "and on").unwrap();
    sync(&member, &last).unwrap();
    assert_eq!(title(&last, "note"), title(&member, "note"));
}

#[test]
fn a_store_that_an_owner_has_certified_compacts() {
    let [owner, laptop, behind] = team();
    let certificate =
        RightsRecord::Certificate { person: owner.replica_key(), replica: laptop.replica_key() };
    owner.issue(certificate, None).unwrap();
    pass_on(&owner, &laptop);
    (0..5).for_each(|number| set(&laptop, "note", &format!("{number}")).unwrap());
    assert!(compact(&laptop) > 0);
    assert!(sync(&laptop, &behind).unwrap());
    sync(&laptop, &owner).unwrap();
    assert_eq!(state_of(&behind), state_of(&laptop));
    assert_eq!(state_of(&owner), state_of(&laptop));
}

#[test]
fn a_revocation_does_not_reach_below_a_checkpoint_whether_a_store_has_compacted_or_not() {
    let [owner, member, behind] = team();
    may_write(&owner, member.replica_key());
    pass_on(&owner, &member);
    set(&owner, "note", "before").unwrap();
    for number in 0..4 {
        sync(&owner, &member).unwrap();
        set(&member, "note", &format!("below {number}")).unwrap();
        sync(&member, &owner).unwrap();
    }
    // Revoked at once, and in a log that has not been compacted.
    let revoking = new_in(owner.namespace());
    let certificate =
        RightsRecord::Certificate { person: owner.replica_key(), replica: revoking.replica_key() };
    owner.issue(certificate, None).unwrap();
    sync(&owner, &revoking).unwrap();
    assert!(compact(&owner) > 0);
    assert!(sync(&owner, &behind).unwrap());
    set(&member, "other", "above").unwrap();
    sync(&member, &revoking).unwrap();
    let mut vector = VersionVector::new();
    vector.advance(member.replica_key(), 1);
    let revocation = Revocation {
        issuer: owner.replica_key(),
        subject: member.replica_key(),
        last_accepted: vector,
    };
    revoking.issue(RightsRecord::Revocation(revocation), Some(&owner.secret_key())).unwrap();
    // It does not know of the checkpoint yet, so there it reaches as far as it says.
    assert_eq!(set_aside(&revoking, &member.replica_key()), [(2, 5)]);
    let stores = [&owner, &member, &behind, &revoking];
    for _ in 0..2 {
        for (from, to) in [(0, 3), (3, 0), (3, 1), (1, 2), (2, 0), (0, 1)] {
            sync(stores[from], stores[to]).unwrap();
        }
    }
    for store in stores {
        assert_eq!(set_aside(store, &member.replica_key()), [(5, 5)]);
        assert_eq!(title(store, "note"), title(&owner, "note"));
        assert_eq!(title(store, "other"), None);
        assert_eq!(state_of(store), state_of(&owner));
        assert_eq!(store.verify().unwrap().damages, [""; 0]);
    }
    assert!(title(&owner, "note").unwrap().contains("below 3"));
}

#[test]
fn what_a_checkpoint_sets_aside_stays_so_and_is_held_and_passed_on() {
    let [owner, behind, late] = team();
    let mut stranger = Writer::new(owner.namespace(), 21);
    for document in ["one", "two"] {
        let frame = stranger.write(&[("Task", document)]);
        replication(&owner).apply_frame(&frame).unwrap();
        replication(&late).apply_frame(&frame).unwrap();
    }
    (0..5).for_each(|number| set(&owner, "note", &format!("{number}")).unwrap());
    assert_eq!(compact(&owner), 4, "none of what is set aside");
    assert!(sync(&owner, &behind).unwrap());
    let third = stranger.write(&[("Task", "three")]);
    may_write(&owner, public(21));
    replication(&owner).apply_frame(&third).unwrap();
    for store in [&behind, &late] {
        sync(&owner, store).unwrap();
    }
    assert_eq!(compact(&owner), 0);
    let last = new_in(owner.namespace());
    assert!(sync(&owner, &last).unwrap());
    for store in [&behind, &late] {
        sync(&owner, store).unwrap();
    }
    for store in [&owner, &behind, &late, &last] {
        assert_eq!(set_aside(store, &public(21)), [(1, 2)]);
        assert_eq!(keys_of(store, "Task"), ["note", "three"]);
        assert_eq!(state_of(store), state_of(&owner));
    }
}

/// Two owners judge one change differently and compact, apart from each other and from everybody else.
#[test]
fn what_one_of_two_checkpoints_puts_into_effect_is_in_effect() {
    let stores: Vec<Database> = (0..5).map(|_| Database::open_in_memory().unwrap()).collect();
    let owners = [stores[0].replica_key(), stores[1].replica_key()];
    let name = stores[0].found("team", &owners).unwrap();
    let stores: Vec<Database> = stores.iter().map(|store| store.in_namespace(&name)).collect();
    let [one, other, member, of_one, of_other] = &stores[..] else { panic!("five stores") };
    let key = member.replica_key();
    may_write(one, key);
    stores[1..].iter().for_each(|store| pass_on(one, store));
    set(one, "note", "before").unwrap();
    for store in &stores[1..] {
        pass_on(one, store);
    }
    for number in 0..6 {
        set(member, "note", &format!("of the member {number}")).unwrap();
    }
    set(member, "alone", "of the member").unwrap();
    for store in [one, other] {
        pass_on(member, store);
    }
    revoke(one, key, 2);
    (0..4).for_each(|number| set(one, "of one", &format!("{number}")).unwrap());
    (0..4).for_each(|number| set(other, "of other", &format!("{number}")).unwrap());
    assert!(compact(one) > 0 && compact(other) > 0);
    assert_eq!((set_aside(one, &key), set_aside(other, &key)), (vec![(3, 7)], vec![]));
    assert!(sync(one, of_one).unwrap() && sync(other, of_other).unwrap());
    assert_eq!(title(of_one, "alone"), None);

    assert!(sync(of_one, of_other).unwrap(), "the join of two floors");
    assert_eq!(parts_of(of_other), None, "which no owner answers for");
    for (from, to) in [(one, other), (other, one), (one, of_one), (other, of_other), (one, member)]
    {
        sync(from, to).unwrap();
    }
    assert!(compact(one) > 0);
    let last = new_in(&name);
    assert!(sync(one, &last).unwrap());
    for store in stores.iter().chain([&last]) {
        sync(one, store).unwrap();
        assert_eq!(set_aside(store, &key), [], "the owner that did not know is believed");
        assert!(title(store, "note").unwrap().contains("of the member 5"));
        assert!(title(store, "alone").is_some());
        assert_eq!(state_of(store), state_of(one));
        assert_eq!(store.verify().unwrap().damages, [""; 0]);
    }
}

/// Two owners, and two stores that hold their namespace.
fn two_owners() -> [Database; 4] {
    let stores = [(); 4].map(|()| Database::open_in_memory().unwrap());
    let owners = [stores[0].replica_key(), stores[1].replica_key()];
    let name = stores[0].found("team", &owners).unwrap();
    let stores = stores.map(|store| store.in_namespace(&name));
    stores[1..].iter().for_each(|store| pass_on(&stores[0], store));
    stores
}

#[test]
fn a_checkpoint_that_a_cut_does_not_accept_counts_for_nothing() {
    let [first, second, certified, late] = two_owners();
    let (revoked, replica) = (second.replica_key(), certified.replica_key());
    let certificate = RightsRecord::Certificate { person: first.replica_key(), replica };
    first.issue(certificate, None).unwrap();
    pass_on(&first, &second);
    (0..4).for_each(|number| set(&second, "note", &format!("{number}")).unwrap());
    pass_on(&second, &first);
    // It accepts what the first owner holds now, which is not the checkpoint.
    let revocation = first.revocation_of(first.replica_key(), revoked).unwrap();
    assert!(compact(&second) > 0);
    let given = parts_of(&second).unwrap();
    take(&given, &certified).unwrap();
    assert!(parts_of(&certified).is_some());
    first.issue(RightsRecord::Revocation(revocation), None).unwrap();
    for store in [&second, &certified] {
        sync(&first, store).unwrap();
    }
    let records = first.access_rights().unwrap().unwrap().records().cloned().collect();
    late.add_records(records).unwrap();
    assert_eq!(left_alone(&second), NotCompacted::NotOwner);
    assert_eq!(left_alone(&certified), NotCompacted::Cut { issuer: revoked });
    for store in [&second, &certified] {
        assert_eq!(parts_of(store), None, "no owner answers for it any more");
    }
    let refused = take(&given, &late).unwrap_err();
    assert!(
        matches!(refused, Error::CheckpointRevoked { owner, .. } if owner == revoked),
        "{refused}"
    );
    assert!(!refused.is_peer_fault() && refused.keeps_from_catching_up());
    for (from, to) in [(&second, &first), (&late, &first), (&first, &late), (&first, &second)] {
        sync(from, to).unwrap();
    }
    // What was dropped was in effect with it and without it.
    for store in [&second, &late] {
        assert_eq!(state_of(store), state_of(&first));
    }
    assert!(compact(&first) > 0);
}

#[test]
fn a_checkpoint_is_bounded() {
    let [owner, ..] = team();
    let mut vector = VersionVector::new();
    for number in 0..40_000_u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        vector.advance(ReplicaKey(key), 1);
    }
    let issuer = owner.replica_key();
    let record =
        RightsRecord::Checkpoint(CheckpointRecord { issuer, vector, set_aside: Vec::new() });
    let signed = SignedRecord::sign(record, owner.namespace(), &owner.secret_key()).unwrap();
    assert!(signed.bytes().len() > CHECKPOINT_RECORD_BYTES_MAX);
    assert!(SignedRecord::decode(signed.bytes()).is_err());
}

/// Owners grant, revoke with cuts far back, and compact; everybody writes, syncs and is opened again. A
/// witness hears of every change at once and compacts nothing. In the end all are equal to it.
#[test]
fn compacted_stores_judge_as_one_that_has_heard_of_everything() {
    let (mut caught_up_count, mut dropped_count, mut stuck_count) = (0, 0, 0);
    let (mut aside_count, mut saved_count) = (0, 0);
    let seeds = run_seeds("compactions with owners", SEED_COUNT, |seed| {
        let mut random = Random::new(seed);
        let storages: Vec<Arc<MemoryStorage>> = (0..6).map(|_| Arc::default()).collect();
        let owners = [0, 1].map(|owner| open_in("default", &storages[owner]).replica_key());
        let name = open_in("default", &storages[0]).found("team", &owners).unwrap();
        let mut stores: Vec<Database> =
            storages.iter().map(|storage| open_in(&name, storage)).collect();
        let witness = new_in(&name);
        let members: Vec<PublicKey> = stores[2..5].iter().map(Database::replica_key).collect();
        members.iter().for_each(|member| may_write(&stores[0], *member));
        stores[1..].iter().chain([&witness]).for_each(|store| pass_on(&stores[0], store));
        let compacting = 1 + random.below(2);
        let mut cuts = Vec::new();
        for step in 0..100 {
            let place = random.below(stores.len());
            let owner = &stores[random.below(2)];
            let member = members[random.below(members.len())];
            match random.below(20) {
                0 => may_write(owner, member),
                1 if step > 40 => {
                    let held = replication(owner).durable_vector().get(&member);
                    let last_accepted = random.between(0, held);
                    revoke(owner, member, last_accepted);
                    cuts.push((member, last_accepted));
                }
                2 | 3 => dropped_count += compact(&stores[random.below(compacting)]),
                4 => {
                    stores[place] = new_in(&name);
                    stores[place] = open_in(&name, &storages[place]);
                }
                5..9 => {
                    let other = (place + 1 + random.below(stores.len() - 1)) % stores.len();
                    match sync(&stores[place], &stores[other]) {
                        Ok(caught_up) => caught_up_count += u64::from(caught_up),
                        Err(Error::Compacted { .. }) => stuck_count += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                _ => {
                    let key = format!("note {}", random.below(4));
                    match set(&stores[place], &key, &format!("{step}")) {
                        Ok(()) | Err(Error::NoRight { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            for store in &stores {
                assert!(!sync(store, &witness).unwrap(), "it hears of everything at once");
            }
        }
        // Those that no owner can give everything to wait for one that holds both checkpoints.
        for (from, to) in [(0, 1), (1, 0)] {
            caught_up_count += u64::from(sync(&stores[from], &stores[to]).unwrap());
        }
        for from in 2..6 {
            sync(&stores[from], &stores[0]).unwrap();
        }
        dropped_count += compact(&stores[0]);
        for to in 1..6 {
            caught_up_count += u64::from(sync(&stores[0], &stores[to]).unwrap());
        }
        sync(&stores[0], &witness).unwrap();
        let last = new_in(&name);
        assert!(sync(&stores[0], &last).unwrap());
        let expected = state_of(&witness);
        for (place, store) in stores.iter().chain([&last]).enumerate() {
            for member in &members {
                let found = set_aside(store, member);
                assert_eq!(found, set_aside(&witness, member), "store {place}");
            }
            assert_eq!(state_of(store), expected, "store {place}");
            assert_eq!(store.verify().unwrap().damages, [""; 0]);
        }
        for member in &members {
            let held = expected.0.get(member);
            let cut = cuts.iter().filter(|(subject, _)| subject == member).map(|(_, cut)| *cut);
            let beyond = held.saturating_sub(cut.min().unwrap_or(held));
            let of_member = replication(&witness).set_aside_count(member);
            aside_count += of_member;
            saved_count += beyond.saturating_sub(of_member);
        }
    });
    println!(
        "{seeds} seeds, {dropped_count} changes dropped, {caught_up_count} times somebody caught up, \
         {stuck_count} times somebody waited for an owner; of what lay beyond cuts {aside_count} were set \
         aside and {saved_count} stood by a checkpoint"
    );
    assert!(dropped_count > 4 * seeds && caught_up_count > seeds);
    assert!(aside_count > seeds / 4 && saved_count > seeds / 4);
}

/// The disk fails and crashes at any call while an owner compacts. What was held is there afterwards, and
/// another store comes to the same from it.
#[test]
fn a_crash_while_an_owner_compacts_changes_nothing_that_is_held() {
    let (mut crash_count, mut compacted_count) = (0, 0);
    let count = run_seeds("compacting with owners on a crashing disk", CRASH_SEED_COUNT, |seed| {
        let mut random = Random::new(seed);
        let mut disk = CrashingFiles::new(seed);
        let database = common::open(&disk).unwrap();
        let name = database.found("team", &[database.replica_key()]).unwrap();
        let owner = database.in_namespace(&name);
        let mut stranger = Writer::new(&name, 21);
        for number in 0..20 {
            set(&owner, &format!("note {}", number % 3), &format!("{number}")).unwrap();
            let frame = stranger.write(&[("Task", "of nobody")]);
            replication(&owner).apply_frame(&frame).unwrap();
        }
        let titles = ["note 0", "note 1", "note 2"].map(|key| title(&owner, key));
        drop((owner, database));
        for _ in 0..6 {
            let at = random.below(60) as u64;
            disk.fail(match random.below(4) {
                0 => Some(Failure::Once(at)),
                1 => Some(Failure::From(at)),
                2 => Some(Failure::FullFrom(at)),
                _ => None,
            });
            let opened = common::open(&disk).map(|database| database.in_namespace(&name));
            if let Ok(owner) = &opened {
                compacted_count += u64::from(owner.compact().is_ok());
            }
            crash_count += 1;
            disk = match random.below(3) {
                0 => disk.kill_process(),
                _ => disk.crash(),
            };
            drop(opened);
            let owner = common::open(&disk).unwrap().in_namespace(&name);
            assert_eq!(owner.verify().unwrap().damages, [""; 0]);
            assert_eq!(["note 0", "note 1", "note 2"].map(|key| title(&owner, key)), titles);
            assert_eq!(set_aside(&owner, &public(21)), [(1, 20)]);
            let behind = new_in(&name);
            sync(&owner, &behind).unwrap();
            assert_eq!(state_of(&behind), state_of(&owner));
            drop(owner);
            disk = disk.kill_process();
        }
    });
    println!(
        "{crash_count} crashes in {count} histories, {compacted_count} compactions came to an end"
    );
    assert!(compacted_count > count && compacted_count < crash_count);
}

#[test]
fn nobody_goes_on_from_a_checkpoint_that_no_owner_has_signed() {
    let [owner, member, behind] = team();
    may_write(&owner, member.replica_key());
    pass_on(&owner, &member);
    (0..5).for_each(|number| set(&owner, "note", &format!("{number}")).unwrap());
    pass_on(&owner, &member);
    assert!(compact(&owner) > 0);
    let (offer, mut parts) = parts_of(&owner).unwrap();
    let offer = resigned_by(&member, &offer);
    let before = state_of(&behind);
    let request = replication(&behind).begin_catching_up(&GIVER, &offer).unwrap().unwrap();
    let refused = parts.iter_mut().find_map(|part| {
        part.request.checkpoint = request.checkpoint;
        replication(&behind).take_part(&GIVER, part).err()
    });
    let refused = refused.expect("the member is no owner");
    assert!(refused.is_peer_fault() && refused.to_string().contains("no owner"), "{refused}");
    assert_eq!(state_of(&behind), before);
    assert!(sync(&owner, &behind).unwrap());
}

/// The same checkpoint under another store's signature.
fn resigned_by(store: &Database, offer: &CheckpointOffer) -> CheckpointOffer {
    let mut bytes = Vec::new();
    offer.encode(&mut bytes);
    let mut reader = Reader::new(&bytes);
    let mut signed = SignedCheckpoint::decode(&mut reader).unwrap();
    signed.owner = store.replica_key();
    signed.signature = store.sign(&signed.checkpoint.bytes_to_sign());
    let mut altered = Vec::new();
    signed.encode(&mut altered);
    altered.extend_from_slice(reader.rest());
    CheckpointOffer::decode(&mut Reader::new(&altered)).unwrap()
}
