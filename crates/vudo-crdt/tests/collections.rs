//! What applications see of sets, maps, registers of many values and bounded counters, case by case.

use std::convert::Infallible;

use vudo_crdt::{
    CounterOptions, Direction, FieldSchema, InMemory, Log, Namespace, Reading, Refusal,
    ReplicaIndex, ReplicaKey, Strategy, Transaction, Value, ValueType, WriteError,
};

const NOW_MILLISECONDS: u64 = 1_700_000_000_000;
const KEY: &[u8] = b"milk";

type Refused = WriteError<Infallible>;

/// A store with one Gen and one document, in memory.
struct Store {
    namespace: Namespace,
    log: Log,
    replica: ReplicaIndex,
}

impl Store {
    fn new(number: u8) -> Store {
        let mut namespace = Namespace::new(u64::from(number));
        let replica = namespace.intern_replica(ReplicaKey([number; 32]));
        let founder = namespace.intern_replica(ReplicaKey([1; 32]));
        namespace.set_founder(founder);
        namespace.intern_gen("Task").unwrap();
        Store { namespace, log: Log::default(), replica }
    }

    fn write<T>(
        &mut self,
        write: impl FnOnce(&mut Transaction, &mut Namespace) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mut transaction = Transaction::begin(&self.namespace, self.replica, NOW_MILLISECONDS);
        let written = write(&mut transaction, &mut self.namespace)?;
        transaction.commit(&mut self.namespace, &mut InMemory, &mut self.log)?;
        Ok(written)
    }

    fn create(&mut self) {
        self.write(|to, space| to.create(space, &mut InMemory, 0, KEY)).unwrap();
    }

    fn delete(&mut self) {
        self.write(|to, space| to.delete(space, &mut InMemory, 0, KEY)).unwrap();
    }

    fn add(&mut self, tag: &str) {
        let element = Value::from(tag).to_bytes();
        self.write(|to, space| Ok(to.add_element_loaded(space, 0, KEY, tags().id(), &element)?))
            .unwrap();
    }

    fn remove(&mut self, tag: &str) {
        let element = Value::from(tag).to_bytes();
        self.write(|to, space| {
            Ok(to.remove_element_loaded(space, 0, KEY, tags().id(), &element)?)
        })
        .unwrap();
    }

    fn count_up(&mut self, key: &str, amount: i64) {
        let (map, element) = (tally(), Value::from(key).to_bytes());
        self.write(|to, space| {
            let entry = to.entry_loaded(space, 0, KEY, map.id(), &element)?;
            to.add(space, &mut InMemory, 0, &entry, &map.map_value().unwrap(), amount)
        })
        .unwrap();
    }

    fn take_out(&mut self, key: &str) {
        let element = Value::from(key).to_bytes();
        self.write(|to, space| {
            Ok(to.remove_entry_loaded(space, 0, KEY, tally().id(), &element)?)
        })
        .unwrap();
    }

    fn set_owner(&mut self, name: &str) {
        self.write(|to, space| to.set(space, &mut InMemory, 0, KEY, &owner(), &Value::from(name)))
            .unwrap();
    }

    fn book(&mut self, amount: i64) -> Result<(), Refused> {
        self.write(|to, space| to.add(space, &mut InMemory, 0, KEY, &seats(), amount))
    }

    fn give(&mut self, receiver: u8, amount: i64) -> Result<(), Refused> {
        let receiver = ReplicaKey([receiver; 32]);
        self.write(|to, space| {
            let up = Direction::Up;
            to.give_rights(space, &mut InMemory, 0, KEY, &seats(), &receiver, up, amount)
        })
    }

    fn read(&self, field: &FieldSchema) -> Value {
        (&self.namespace).read_loaded(0, KEY, field).unwrap().unwrap()
    }

    fn receive(&mut self, from: &Store) {
        let since = self.namespace.version_vector();
        let frame = from.log.frame_since(&from.namespace, &since);
        self.namespace.apply_frame(&frame, &mut InMemory, &mut self.log).unwrap();
    }
}

fn exchange(left: &mut Store, right: &mut Store) {
    left.receive(right);
    right.receive(left);
    let bytes = |store: &Store| store.namespace.canonical_bytes(&mut InMemory).unwrap();
    assert_eq!(bytes(left), bytes(right));
}

fn pair() -> (Store, Store) {
    let (mut left, mut right) = (Store::new(1), Store::new(2));
    left.create();
    exchange(&mut left, &mut right);
    (left, right)
}

fn tags() -> FieldSchema {
    FieldSchema::new("tags", 1, Strategy::OrSet, ValueType::Set(Box::new(ValueType::String)))
}

fn tally() -> FieldSchema {
    let map = ValueType::Map(Box::new(ValueType::String), Box::new(ValueType::I64));
    let mut field = FieldSchema::new("tally", 2, Strategy::Map, map);
    field.value_strategy = Strategy::PnCounter;
    field
}

fn owner() -> FieldSchema {
    FieldSchema::new("owner", 3, Strategy::MvRegister, ValueType::String)
}

fn seats() -> FieldSchema {
    let mut field = FieldSchema::new("seats", 4, Strategy::BoundedCounter, ValueType::I64);
    field.counter = CounterOptions { min_value: Some(0), max_value: Some(10), ..field.counter };
    field
}

fn list(values: &[&str]) -> Value {
    Value::List(values.iter().map(|value| Value::from(*value)).collect())
}

#[test]
fn adding_wins_over_removing_at_the_same_time() {
    let (mut left, mut right) = pair();
    left.add("red");
    exchange(&mut left, &mut right);
    left.remove("red");
    right.add("red");
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&tags()), list(&["red"]), "nobody had seen the second adding");
    right.remove("red");
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&tags()), list(&[]), "a remove covers every adding that it knew");
    left.add("red");
    exchange(&mut left, &mut right);
    assert_eq!(right.read(&tags()), list(&["red"]), "nor the adding that came after");
    right.remove("red");
    left.add("red");
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&tags()), list(&["red"]), "nor one at the same time by the same replica");
}

#[test]
fn an_element_added_and_removed_in_one_change_is_not_there() {
    let (mut left, mut right) = pair();
    let element = Value::from("red").to_bytes();
    let both = |store: &mut Store| {
        store
            .write(|to, space| {
                to.add_element_loaded(space, 0, KEY, tags().id(), &element)?;
                Ok(to.remove_element_loaded(space, 0, KEY, tags().id(), &element)?)
            })
            .unwrap();
    };
    both(&mut left);
    exchange(&mut left, &mut right);
    assert_eq!(right.read(&tags()), list(&[]));
    // Neither does it hide an earlier adding of the same replica.
    left.add("red");
    both(&mut left);
    exchange(&mut left, &mut right);
    assert_eq!(right.read(&tags()), list(&[]));
}

#[test]
fn a_document_that_is_created_again_has_none_of_its_former_elements() {
    let (mut left, mut right) = pair();
    left.add("red");
    exchange(&mut left, &mut right);
    left.delete();
    left.create();
    right.add("blue");
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&tags()), list(&[]));
    assert_eq!(right.read(&tags()), list(&[]));
}

#[test]
fn a_map_key_taken_out_wins_over_an_increment() {
    let (mut left, mut right) = pair();
    left.count_up("apples", 5);
    exchange(&mut left, &mut right);
    left.take_out("apples");
    right.count_up("apples", 1);
    right.count_up("pears", 2);
    exchange(&mut left, &mut right);
    let pears = |count: i64| Value::map_of([(Value::from("pears"), Value::from(count))]);
    assert_eq!(left.read(&tally()), pears(2));
    right.count_up("apples", 3);
    exchange(&mut left, &mut right);
    let both = [(Value::from("apples"), Value::from(3)), (Value::from("pears"), Value::from(2))];
    assert_eq!(left.read(&tally()), Value::map_of(both), "it starts clean");
}

#[test]
fn a_register_of_many_values_shows_what_nobody_has_overwritten() {
    let (mut left, mut right) = pair();
    left.set_owner("Ada");
    right.set_owner("Bob");
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&owner()), list(&["Ada", "Bob"]), "oldest first, then by replica");
    right.set_owner("Cleo");
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&owner()), list(&["Cleo"]));
}

/// Keeps what the state refers to, and checks that it makes the same state. Gives what is kept.
fn compact(store: &mut Store) -> usize {
    let version = store.namespace.version_vector();
    let (namespace, log) = (&mut store.namespace, &mut store.log);
    log.retain(|change| namespace.refers_to(change, &mut InMemory).unwrap());
    let mut again = namespace.at_version(&version, log).unwrap();
    let bytes = |space: &mut Namespace| space.canonical_bytes(&mut InMemory).unwrap();
    assert_eq!(bytes(&mut again), bytes(namespace));
    log.change_count()
}

#[test]
fn of_a_collection_only_what_it_shows_and_hides_is_kept() {
    let (mut left, mut right) = pair();
    for _ in 0..50 {
        left.add("red");
        left.count_up("apples", 1);
        left.set_owner("Ada");
        exchange(&mut left, &mut right);
        right.remove("red");
        right.set_owner("Bob");
        exchange(&mut left, &mut right);
    }
    left.add("blue");
    exchange(&mut left, &mut right);
    // Of 252 changes: the row itself, the count of apples, red hidden, blue shown, who owns it.
    let kept = compact(&mut left);
    assert!(kept <= 6, "{kept} changes are kept");
    assert_eq!(left.read(&tags()), list(&["blue"]));
    assert_eq!(left.read(&owner()), list(&["Bob"]));
}

#[test]
fn a_bounded_counter_at_its_bound_with_five_replicas() {
    let mut stores: Vec<Store> = (1..=5).map(Store::new).collect();
    stores[0].create();
    // The founder has all ten rights, and gives two of them to each of the others.
    for receiver in 2..=5 {
        stores[0].give(receiver, 2).unwrap();
    }
    let (founder, others) = stores.split_first_mut().unwrap();
    for other in others.iter_mut() {
        assert_eq!(other.book(1), Err(Refusal::NotFound.into()), "it has not met the founder");
        other.receive(founder);
        // Apart from each other, everybody uses what it has, and not one more.
        other.book(2).unwrap();
        assert_eq!(other.book(1), Err(Refusal::NoRights.into()));
    }
    founder.book(2).unwrap();
    assert_eq!(founder.book(1), Err(Refusal::NoRights.into()));
    assert_eq!(founder.give(2, 1), Err(Refusal::NoRights.into()));
    for other in others.iter_mut() {
        exchange(founder, other);
    }
    assert_eq!(founder.read(&seats()), Value::from(10));
    // Taking away gives whoever does so the right to add again.
    founder.book(-1).unwrap();
    assert_eq!(founder.read(&seats()), Value::from(9));
    assert_eq!(others[0].book(1), Err(Refusal::NoRights.into()));
    founder.give(2, 1).unwrap();
    exchange(founder, &mut others[0]);
    others[0].book(1).unwrap();
    assert_eq!(others[0].read(&seats()), Value::from(10));
}

#[test]
fn a_counter_that_only_grows_refuses_to_shrink() {
    let (mut left, _) = pair();
    let likes = FieldSchema::new("likes", 5, Strategy::GCounter, ValueType::U32);
    let mut add =
        |amount| left.write(|to, space| to.add(space, &mut InMemory, 0, KEY, &likes, amount));
    add(3).unwrap();
    assert_eq!(add(-1), Err(Refusal::OutOfBounds.into()));
}

#[test]
fn a_value_rewritten_by_an_older_schema_keeps_the_fields_that_it_does_not_know() {
    let (mut left, mut right) = pair();
    let place = FieldSchema::new("place", 6, Strategy::Lww, ValueType::Record("Place".into()));
    let newer = Value::Record(vec![(1, "Bern".into()), (2, Value::Variant(7)), (9, 3.into())]);
    left.write(|to, space| to.set(space, &mut InMemory, 0, KEY, &place, &newer)).unwrap();
    exchange(&mut left, &mut right);
    // An application of an older schema knows field 1 alone, and changes it where it lies.
    let Value::Record(mut fields) = right.read(&place) else { panic!("a value of a Gen") };
    fields[0].1 = "Basel".into();
    let rewritten = Value::Record(fields);
    right.write(|to, space| to.set(space, &mut InMemory, 0, KEY, &place, &rewritten)).unwrap();
    exchange(&mut left, &mut right);
    let expected = Value::Record(vec![(1, "Basel".into()), (2, Value::Variant(7)), (9, 3.into())]);
    assert_eq!(left.read(&place), expected);
}

#[test]
fn ten_thousand_elements_cost_what_ten_do_each() {
    let (mut left, mut right) = pair();
    left.write(|to, space| {
        (0..10_000).try_for_each(|number| {
            let element = Value::from(number).to_bytes();
            Ok(to.add_element_loaded(space, 0, KEY, numbers().id(), &element)?)
        })
    })
    .unwrap();
    exchange(&mut left, &mut right);
    let Value::List(elements) = right.read(&numbers()) else { panic!("a set is a list") };
    assert_eq!(elements.len(), 10_000);
}

fn numbers() -> FieldSchema {
    FieldSchema::new("numbers", 7, Strategy::OrSet, ValueType::Set(Box::new(ValueType::I64)))
}
