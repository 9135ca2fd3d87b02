//! Finding the rows that differ between two namespaces.

use std::collections::BTreeSet;

use vudo_crdt::limits::{MAX_DIFFERENT_ROWS, MAX_RANGE_BYTES, MAX_RANGE_PARTS};
use vudo_crdt::wire::{Reader, write_bytes, write_varint};
use vudo_crdt::{
    DifferentRows, FieldSchema, InMemory, Log, MalformedFrame, Namespace, RangeSummaries,
    ReplicaKey, SessionKey, Strategy, Transaction, Value, ValueType,
};

const NOW_MILLISECONDS: u64 = 1_700_000_000_000;
const SESSION: SessionKey = [9; 32];
const GENS: [&str; 3] = ["Task", "Person", "chat.message"];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

struct Store {
    namespace: Namespace,
    log: Log,
}

impl Store {
    fn new(number: u8) -> Store {
        let mut namespace = Namespace::new(number.into());
        namespace.intern_replica(ReplicaKey([number; 32]));
        GENS.iter().for_each(|name| {
            namespace.intern_gen(name).unwrap();
        });
        Store { namespace, log: Log::default() }
    }

    /// Writes to documents in one change; some get an element of a set as well.
    fn write(&mut self, documents: impl IntoIterator<Item = (u32, String)>, value: u64) {
        let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::U64);
        let tags = FieldSchema::new("tags", 2, Strategy::OrSet, ValueType::String);
        let now = NOW_MILLISECONDS + value;
        let mut transaction = Transaction::begin(&self.namespace, 0, now);
        for (gen_index, key) in documents {
            let (space, key) = (&mut self.namespace, key.as_bytes());
            if space.loaded_row(gen_index, key).is_none() {
                transaction.create(space, &mut InMemory, gen_index, key).unwrap();
            }
            let number = Value::from(value);
            transaction.set(space, &mut InMemory, gen_index, key, &title, &number).unwrap();
            if gen_index == 0 {
                let element = Value::from("urgent").to_bytes();
                transaction.add_element_loaded(space, 0, key, tags.id(), &element).unwrap();
            }
        }
        transaction.commit(&mut self.namespace, &mut InMemory, &mut self.log).unwrap();
    }

    fn receive(&mut self, from: &Store) {
        let since = self.namespace.version_vector();
        let frame = from.log.frame_since(&from.namespace, &since);
        self.namespace.apply_frame(&frame, &mut InMemory, &mut self.log).unwrap();
    }
}

/// What a reconciliation came to.
struct Outcome {
    messages: usize,
    bytes: usize,
    found: [DifferentRows; 2],
}

fn reconcile(left: &mut Namespace, right: &mut Namespace) -> Outcome {
    let mut message = left.first_ranges(&SESSION, &mut InMemory).unwrap();
    let mut outcome = Outcome { messages: 0, bytes: 0, found: Default::default() };
    let sides = [right, left];
    loop {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        let received = RangeSummaries::decode(&mut reader).unwrap();
        assert!(reader.is_empty());
        assert_eq!(received, message);
        assert!(bytes.len() <= MAX_RANGE_BYTES + 32 * MAX_RANGE_PARTS);
        outcome.bytes += bytes.len();
        let side = outcome.messages % 2;
        outcome.messages += 1;
        let (answer, found) =
            sides[side].compare_ranges(&received, &SESSION, &mut InMemory).unwrap();
        // Whoever finds out knows it now, and the other side once it has the answer.
        outcome.found[side].extend(found);
        if received.is_settled() || outcome.found[side].are_too_many() {
            return outcome;
        }
        message = answer;
    }
}

fn documents(rows: &DifferentRows, namespace: &Namespace) -> BTreeSet<(u32, Vec<u8>)> {
    let touched = rows.documents(namespace);
    touched.iter().map(|(gen_index, key)| (gen_index, key.to_vec())).collect()
}

/// Documents of all Gens, and which of them the right side has other than the left.
#[test]
fn the_rows_that_differ_are_found_and_no_others() {
    let mut random = Random(11);
    let mut compared = 0;
    for round in 0..60 {
        let count = [0, 1, 5, 40, 900, 6_000][round % 6];
        let changed_count = [0, 1, 3, 30, 400][(round / 6) % 5];
        let mut left = Store::new(1);
        let key = |random: &mut Random| {
            let gen_index = random.below(3) as u32;
            (gen_index, format!("{:x}", random.below(1 << 40)))
        };
        let all: BTreeSet<_> = (0..count).map(|_| key(&mut random)).collect();
        left.write(all.iter().cloned(), 1);
        let mut right = Store::new(2);
        right.receive(&left);
        let mut changed = BTreeSet::new();
        for _ in 0..changed_count {
            let place = random.below(2 * count as u64 + 2) as usize;
            // Half of them are new on the right.
            changed.insert(all.iter().nth(place).cloned().unwrap_or_else(|| key(&mut random)));
        }
        right.write(changed.iter().cloned(), 2);
        let expected: BTreeSet<_> =
            changed.into_iter().map(|(gen_index, key)| (gen_index, key.into_bytes())).collect();
        let outcome = reconcile(&mut left.namespace, &mut right.namespace);
        assert_eq!(documents(&outcome.found[1], &left.namespace), expected, "left, {round}");
        if outcome.messages > 1 {
            assert_eq!(documents(&outcome.found[0], &right.namespace), expected, "right, {round}");
        }
        compared += 1;
    }
    assert_eq!(compared, 60);
}

#[test]
fn equal_namespaces_settle_with_one_message() {
    let mut left = Store::new(1);
    left.write((0..5_000).map(|number| (0, format!("task-{number:05}"))), 1);
    let mut right = Store::new(2);
    right.receive(&left);
    let outcome = reconcile(&mut left.namespace, &mut right.namespace);
    // The ranges, and the answer that there is nothing more to say.
    assert_eq!(outcome.messages, 2);
    assert!(outcome.found.iter().all(|found| found.count() == 0));
}

#[test]
fn what_all_differs_ends_all_the_same() {
    let mut left = Store::new(1);
    left.write((0..70_000).map(|number| (1, format!("{number:06}"))), 1);
    let mut right = Store::new(2);
    right.write((0..70_000).map(|number| (1, format!("{number:06}"))), 2);
    let outcome = reconcile(&mut left.namespace, &mut right.namespace);
    assert!(outcome.found.iter().any(|found| found.count() > MAX_DIFFERENT_ROWS));
    assert!(outcome.messages < 64, "{} messages", outcome.messages);
    // And where one side has nothing at all.
    let outcome = reconcile(&mut left.namespace, &mut Store::new(3).namespace);
    assert!(outcome.found.iter().any(|found| found.count() > MAX_DIFFERENT_ROWS));
}

/// A message of one part that says of so many rows that they differ, in few bytes: what the positions
/// begin with is written once.
fn different_rows(row_count: u32, shared_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![1, 3];
    write_varint(&mut bytes, row_count.into());
    for number in 0..row_count {
        let start = if number == 0 { vec![b'x'; shared_bytes] } else { Vec::new() };
        write_varint(&mut bytes, (shared_bytes - start.len()) as u64);
        write_bytes(&mut bytes, &[&start[..], &number.to_be_bytes()].concat());
    }
    bytes
}

#[test]
fn few_bytes_do_not_become_much_memory() {
    let said = different_rows(MAX_DIFFERENT_ROWS as u32, 9_000);
    assert!(said.len() < 1 << 20);
    let refused = RangeSummaries::decode(&mut Reader::new(&said)).map(|_| ());
    assert_eq!(refused, Err(MalformedFrame::TooLarge));
    // As many with short positions are what an honest side may have to say.
    let said = different_rows(MAX_DIFFERENT_ROWS as u32, 100);
    assert!(RangeSummaries::decode(&mut Reader::new(&said)).is_ok());
}

/// All of it differs, and does not fit into one message.
#[test]
fn rows_with_long_keys_are_found_in_messages_that_can_be_read() {
    const COUNT: usize = 20_000;
    let long = "k".repeat(994);
    let write = |store: &mut Store, from: usize, value| {
        // All of them do not fit into one change.
        for from in (from..from + COUNT).step_by(COUNT / 5) {
            let keys = from..from + COUNT / 5;
            store.write(keys.map(|number| (1, format!("{long}{number:06}"))), value);
        }
    };
    let mut left = Store::new(1);
    write(&mut left, 0, 1);
    let outcome = reconcile(&mut left.namespace, &mut Store::new(2).namespace);
    assert!(outcome.found.iter().all(|found| !found.are_too_many()));
    assert_eq!(documents(&outcome.found[1], &left.namespace).len(), COUNT);
    assert!(outcome.messages < 64, "{} messages", outcome.messages);
    // Where both sides have them, each differs for itself.
    let mut right = Store::new(2);
    write(&mut right, 0, 2);
    let outcome = reconcile(&mut left.namespace, &mut right.namespace);
    assert_eq!(documents(&outcome.found[1], &left.namespace).len(), COUNT);
    assert!(outcome.messages < 64, "{} messages", outcome.messages);
    // And twice as many are too many for one reconciliation.
    write(&mut left, COUNT, 1);
    let outcome = reconcile(&mut left.namespace, &mut Store::new(2).namespace);
    assert!(outcome.found.iter().any(DifferentRows::are_too_many));
}

#[test]
fn a_document_that_was_damaged_is_rebuilt_from_the_log() {
    let mut left = Store::new(1);
    left.write((0..3_000).map(|number| (0, format!("task-{number:05}"))), 1);
    let mut right = Store::new(2);
    right.receive(&left);
    // The right side's table has something that its log has not.
    let mut other = Store::new(2);
    other.receive(&left);
    other.write([(0, "task-00077".to_owned()), (2, "stray".to_owned())], 2);
    let (log, before) = (right.log.clone(), other.namespace.canonical_bytes(&mut InMemory));
    let mut damaged = other.namespace;
    assert_ne!(left.namespace.canonical_bytes(&mut InMemory), before);
    let outcome = reconcile(&mut left.namespace, &mut damaged);
    for (namespace, log, found) in [
        (&mut left.namespace, &mut left.log, &outcome.found[1]),
        (&mut damaged, &mut log.clone(), &outcome.found[0]),
    ] {
        let touched = found.documents(namespace);
        assert_eq!(touched.count(), 2);
        namespace.rebuild(&touched, log, &mut InMemory, &mut ()).unwrap();
    }
    let bytes = |namespace: &Namespace| namespace.canonical_bytes(&mut InMemory).unwrap();
    assert_eq!(bytes(&left.namespace), bytes(&damaged));
}

#[test]
fn damaged_messages_are_refused_and_none_panics() {
    let mut left = Store::new(1);
    left.write((0..2_000).map(|number| (number % 3, format!("{number:05}"))), 1);
    let mut right = Store::new(2);
    right.write((0..30).map(|number| (number % 3, format!("{number:05}"))), 2);
    let mut message = left.namespace.first_ranges(&SESSION, &mut InMemory).unwrap();
    let mut random = Random(5);
    let (mut refused, mut taken) = (0, 0);
    for step in 0..6 {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        for _ in 0..400 {
            let mut damaged = bytes.clone();
            if random.below(4) == 0 {
                damaged.truncate(random.below(bytes.len() as u64) as usize);
            } else {
                let place = random.below(bytes.len() as u64) as usize;
                damaged[place] ^= 1 << random.below(8);
            }
            match RangeSummaries::decode(&mut Reader::new(&damaged)) {
                Ok(said) => {
                    taken += 1;
                    left.namespace.compare_ranges(&said, &SESSION, &mut InMemory).unwrap();
                }
                Err(_) => refused += 1,
            }
        }
        let side = if step % 2 == 0 { &mut right } else { &mut left };
        message = side.namespace.compare_ranges(&message, &SESSION, &mut InMemory).unwrap().0;
    }
    assert!(refused > 500 && taken > 100, "{refused} refused, {taken} taken");
}
