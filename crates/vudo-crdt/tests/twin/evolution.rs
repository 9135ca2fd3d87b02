//! What schemas of different versions read of the same cells, against a slow twin over lists.

use std::collections::BTreeMap;

use vudo_crdt::rule::Operation;
use vudo_crdt::{
    Conversion, CounterOptions, Expression, FieldSchema, Hlc, InMemory, Log, Misfit, MisfitReason,
    Namespace, Predecessor, Reading, Refusal, ReplicaIndex, ReplicaKey, Strategy, Transaction,
    Value, ValueType, WriteError,
};

use crate::random::Random;

const NOW_MILLISECONDS: u64 = 1_700_000_000_000;
const KEY: &[u8] = b"milk";
const REPLICA_COUNT: usize = 4;

fn after(field: FieldSchema, old: &FieldSchema, conversion: Option<Expression>) -> FieldSchema {
    let conversion = conversion.map(|expression| Conversion { expression, inputs: Vec::new() });
    let predecessor = Predecessor { field: old.clone(), conversion };
    FieldSchema { predecessor: Some(Box::new(predecessor)), ..field }
}

/// `size`: an i32 that was immutable, then an i64, then its remainder by a hundred.
fn sizes() -> [FieldSchema; 3] {
    let first = FieldSchema::new("size", 1, Strategy::Immutable, ValueType::I32);
    let second = FieldSchema::new("size", 2, Strategy::Lww, ValueType::I64);
    let second = after(second, &first, None);
    let third = FieldSchema::new("size", 3, Strategy::Lww, ValueType::I8);
    let hundred = Expression::Constant(Value::Int(100));
    let rest = Expression::apply(Operation::Remainder, [Expression::Field(2), hundred]);
    let third = after(third, &second, Some(rest));
    [first, second, third]
}

/// `votes`: a register that became a counter, then a wider one.
fn votes() -> [FieldSchema; 3] {
    let first = FieldSchema::new("votes", 4, Strategy::Lww, ValueType::I32);
    let second = FieldSchema::new("votes", 5, Strategy::GCounter, ValueType::I32);
    let second = after(second, &first, Some(Expression::Field(4)));
    let third = FieldSchema::new("votes", 6, Strategy::PnCounter, ValueType::I64);
    let third = after(third, &second, None);
    [first, second, third]
}

/// `owner`: a register of one value that became one of many, of which some texts are none.
fn owners() -> [FieldSchema; 3] {
    let first = FieldSchema::new("owner", 7, Strategy::Lww, ValueType::I32);
    let second = FieldSchema::new("owner", 8, Strategy::MvRegister, ValueType::I32);
    let second = after(second, &first, None);
    let third = FieldSchema::new("owner", 9, Strategy::MvRegister, ValueType::I64);
    let third = after(third, &second, None);
    [first, second, third]
}

/// A store with one Gen and one document, in memory.
struct Store {
    namespace: Namespace,
    log: Log,
    replica: ReplicaIndex,
}

impl Store {
    fn new(number: usize) -> Store {
        let mut namespace = Namespace::new(number as u64);
        let replica = namespace.intern_replica(ReplicaKey([number as u8 + 1; 32]));
        namespace.intern_gen("Task").unwrap();
        Store { namespace, log: Log::default(), replica }
    }

    fn write(
        &mut self,
        now_milliseconds: u64,
        write: impl FnOnce(&mut Transaction, &mut Namespace) -> Result<(), WriteError<Never>>,
    ) -> Result<(), WriteError<Never>> {
        let mut transaction = Transaction::begin(&self.namespace, self.replica, now_milliseconds);
        write(&mut transaction, &mut self.namespace)?;
        transaction.commit(&mut self.namespace, &mut InMemory, &mut self.log)?;
        Ok(())
    }

    fn create(&mut self) {
        self.write(1, |to, space| to.create(space, &mut InMemory, 0, KEY)).unwrap();
    }

    fn set(
        &mut self,
        now: u64,
        field: &FieldSchema,
        value: &Value,
    ) -> Result<(), WriteError<Never>> {
        self.write(now, |to, space| to.set(space, &mut InMemory, 0, KEY, field, value))
    }

    fn add(&mut self, now: u64, field: &FieldSchema, amount: i64) -> Result<(), WriteError<Never>> {
        self.write(now, |to, space| to.add(space, &mut InMemory, 0, KEY, field, amount))
    }

    fn read(&self, field: &FieldSchema) -> Option<Value> {
        (&self.namespace).read_loaded(0, KEY, field).unwrap()
    }

    fn receive(&mut self, from: &Store) {
        let since = self.namespace.version_vector();
        let frame = from.log.frame_since(&from.namespace, &since);
        self.namespace.apply_frame(&frame, &mut InMemory, &mut self.log).unwrap();
    }

    fn misfits(&self, field: &FieldSchema) -> Vec<Misfit> {
        field.misfits(&self.namespace.loaded_row(0, KEY).unwrap())
    }
}

type Never = std::convert::Infallible;

/// A write as the twin has it.
#[derive(Clone, Debug)]
struct Write {
    replica: usize,
    number: u32,
    hlc: Hlc,
    value: i128,
    /// The writes to an `mv_register` that it covers, by their index.
    covers: Vec<usize>,
}

/// The twin of all replicas: every write that there ever was, and who knows of which.
#[derive(Default)]
struct Twin {
    writes: Vec<Write>,
    known: BTreeMap<usize, Vec<usize>>,
}

impl Twin {
    fn known(&self, replica: usize) -> impl Iterator<Item = (usize, &Write)> {
        self.known.get(&replica).into_iter().flatten().map(|index| (*index, &self.writes[*index]))
    }

    fn receive(&mut self, to: usize, from: usize) {
        let mut known = self.known.get(&from).cloned().unwrap_or_default();
        let own = self.known.entry(to).or_default();
        own.append(&mut known);
        own.sort_unstable();
        own.dedup();
    }

    /// What a replica sees in the register of a number: time, writer and value.
    fn register(&self, replica: usize, field: &FieldSchema) -> Vec<(Hlc, usize, i128)> {
        let of_field = || self.known(replica).filter(|(_, write)| write.number == field.number);
        let entry = |write: &Write| (write.hlc, write.replica, write.value);
        match field.strategy {
            Strategy::MvRegister => {
                let covered: Vec<usize> =
                    of_field().flat_map(|(_, write)| write.covers.iter().copied()).collect();
                let live = of_field().filter(|(index, _)| !covered.contains(index));
                let mut live: Vec<_> = live.map(|(_, write)| entry(write)).collect();
                live.sort_unstable();
                live
            }
            Strategy::Immutable => {
                of_field().map(|(_, write)| entry(write)).min().into_iter().collect()
            }
            _ => of_field().map(|(_, write)| entry(write)).max().into_iter().collect(),
        }
    }

    /// What the versions of a register up to this one show, from the oldest on.
    fn shown(&self, replica: usize, versions: &[FieldSchema]) -> Vec<(Hlc, usize, i128)> {
        let mut shown: Vec<(Hlc, usize, i128)> = Vec::new();
        for field in versions {
            // The only conversion that computes.
            if field.number == 3 {
                shown.iter_mut().for_each(|(_, _, value)| *value %= 100);
            }
            let own = self.register(replica, field);
            let latest = |list: &[(Hlc, usize, i128)]| list.iter().map(|one| one.0).max();
            if latest(&own) >= latest(&shown) {
                shown = own;
            }
        }
        shown
    }

    fn total(&self, replica: usize, versions: &[FieldSchema]) -> i128 {
        let added = self.known(replica).map(|(_, write)| write);
        let counters = versions[1..].iter().map(|field| field.number);
        let numbers: Vec<u32> = counters.collect();
        let added = added.filter(|write| numbers.contains(&write.number));
        let register = self.register(replica, &versions[0]);
        added.map(|write| write.value).sum::<i128>() + register.first().map_or(0, |one| one.2)
    }

    fn write(&mut self, replica: usize, write: Write) {
        self.known.entry(replica).or_default().push(self.writes.len());
        self.writes.push(write);
    }

    /// A write to the last of these versions of a register.
    fn set(&mut self, replica: usize, now: u64, versions: &[FieldSchema], value: i128) {
        let mut hlc = Hlc::from_milliseconds(now);
        for field in versions {
            for (overwritten, _, _) in self.register(replica, field) {
                hlc = hlc.max(overwritten.overwritten_at(hlc).unwrap());
            }
        }
        let number = versions.last().unwrap().number;
        let covers = match versions.last().unwrap().strategy {
            Strategy::MvRegister => {
                let of_field = self.known(replica).filter(|(_, write)| write.number == number);
                of_field.map(|(index, _)| index).collect()
            }
            _ => Vec::new(),
        };
        self.write(replica, Write { replica, number, hlc, value, covers });
    }
}

/// One random step of a replica of this version, in the stores and in the twin.
fn step(
    random: &mut Random,
    stores: &mut [Store],
    twin: &mut Twin,
    replica: usize,
    version: usize,
) {
    // Clocks are apart, and often show the same.
    let now = NOW_MILLISECONDS + random.below(40) as u64;
    let value = random.below(1_000) as i128 - 500;
    let store = &mut stores[replica];
    let (sizes, votes, owners) = (sizes(), votes(), owners());
    match random.below(3) {
        0 => {
            let (versions, field) = (&sizes[..=version], &sizes[version]);
            let value = if version == 2 { value % 100 } else { value };
            match store.set(now, field, &Value::Int(value)) {
                Ok(()) => twin.set(replica, now, versions, value),
                Err(refused) => {
                    assert_eq!(refused, Refusal::Immutable.into());
                    assert!(version == 0 && !twin.register(replica, field).is_empty());
                }
            }
        }
        1 if version == 0 => {
            store.set(now, &votes[0], &Value::Int(value)).unwrap();
            twin.set(replica, now, &votes[..1], value);
        }
        1 => {
            let amount = if version == 1 { value.abs() } else { value };
            store.add(now, &votes[version], amount as i64).unwrap();
            let (number, hlc) = (votes[version].number, Hlc::default());
            let covers = Vec::new();
            twin.write(replica, Write { replica, number, hlc, value: amount, covers });
        }
        _ => {
            store.set(now, &owners[version], &Value::Int(value)).unwrap();
            twin.set(replica, now, &owners[..=version], value);
        }
    }
}

fn check(stores: &[Store], twin: &Twin, about: &str) {
    let (sizes, votes, owners) = (sizes(), votes(), owners());
    for (replica, store) in stores.iter().enumerate() {
        for version in 0..3 {
            let about = format!("{about}, replica {replica}, version {version}");
            let size = twin.shown(replica, &sizes[..=version]).first().map(|one| one.2);
            assert_eq!(store.read(&sizes[version]), size.map(Value::Int), "size, {about}");
            let owner = twin.shown(replica, &owners[..=version]);
            let expected = match version {
                0 => owner.first().map(|one| Value::Int(one.2)),
                _ if owner.is_empty() => None,
                _ => Some(Value::List(owner.iter().map(|one| Value::Int(one.2)).collect())),
            };
            assert_eq!(store.read(&owners[version]), expected, "owner, {about}");
            let total = match version {
                0 => twin.shown(replica, &votes[..1]).first().map(|one| Value::Int(one.2)),
                _ => Some(Value::Int(twin.total(replica, &votes[..=version]))),
            };
            assert_eq!(store.read(&votes[version]), total, "votes, {about}");
        }
    }
}

#[test]
fn every_version_reads_what_the_twin_says() {
    let (seed_count, mut write_count) = (150, 0);
    for seed in 0..seed_count {
        let mut random = Random::new(seed);
        let mut stores: Vec<Store> = (0..REPLICA_COUNT).map(Store::new).collect();
        let mut twin = Twin::default();
        stores[0].create();
        let (first, others) = stores.split_at_mut(1);
        others.iter_mut().for_each(|store| store.receive(&first[0]));
        for _ in 0..40 {
            let replica = random.below(REPLICA_COUNT);
            if random.one_in(3) {
                let from = (replica + 1 + random.below(REPLICA_COUNT - 1)) % REPLICA_COUNT;
                let (source, target) = (from.min(replica), from.max(replica));
                let (low, high) = stores.split_at_mut(target);
                match from < replica {
                    true => high[0].receive(&low[source]),
                    false => low[source].receive(&high[0]),
                }
                twin.receive(replica, from);
            } else {
                // Replicas upgrade while the others go on: the last one never does.
                let version = if replica == 3 { 0 } else { random.below(3) };
                step(&mut random, &mut stores, &mut twin, replica, version);
            }
        }
        check(&stores, &twin, &format!("seed {seed}"));
        write_count += twin.writes.len();
        for replica in 1..REPLICA_COUNT {
            let (low, high) = stores.split_at_mut(replica);
            low[0].receive(&high[0]);
            twin.receive(0, replica);
        }
        let (low, high) = stores.split_at_mut(1);
        for (index, store) in high.iter_mut().enumerate() {
            store.receive(&low[0]);
            twin.receive(index + 1, 0);
            let bytes = |store: &Store| store.namespace.canonical_bytes(&mut InMemory).unwrap();
            assert_eq!(bytes(store), bytes(&low[0]), "seed {seed}");
        }
        check(&stores, &twin, &format!("seed {seed}, all in sync"));
    }
    println!("{seed_count} histories, {write_count} writes");
}

fn one() -> Store {
    let mut store = Store::new(0);
    store.create();
    store
}

#[test]
fn a_conversion_that_fails_reads_as_absent_and_is_told() {
    let mut store = one();
    let old = FieldSchema::new("share", 1, Strategy::Lww, ValueType::I64);
    let new = FieldSchema::new("share", 2, Strategy::Lww, ValueType::I8);
    let hundred = Expression::Constant(Value::Int(100));
    let share = Expression::apply(Operation::Divide, [hundred, Expression::Field(1)]);
    let mut new = after(new, &old, Some(share));
    new.default = Some(Value::Int(-1));
    assert_eq!(store.read(&new), Some(Value::Int(-1)));
    store.set(10, &old, &Value::Int(20)).unwrap();
    assert_eq!((store.read(&new), store.misfits(&new)), (Some(Value::Int(5)), Vec::new()));
    store.set(11, &old, &Value::Int(0)).unwrap();
    assert_eq!(store.read(&new), Some(Value::Int(-1)));
    let [Misfit { number: 1, reason: MisfitReason::Evaluation(_) }] = store.misfits(&new)[..]
    else {
        panic!("{:?}", store.misfits(&new));
    };
    // What does not fit hides nothing that does.
    store.set(12, &new, &Value::Int(7)).unwrap();
    store.set(13, &old, &Value::Int(0)).unwrap();
    assert_eq!(store.read(&new), Some(Value::Int(7)));

    let narrow = FieldSchema::new("share", 3, Strategy::Lww, ValueType::I8);
    let narrow = after(narrow, &old, None);
    store.set(14, &old, &Value::Int(1_000)).unwrap();
    assert_eq!(store.read(&narrow), None);
    let told = [Misfit { number: 1, reason: MisfitReason::Conversion }];
    assert_eq!(store.misfits(&narrow), told);
    // Another branch took the number for a text.
    let other = FieldSchema::new("share", 1, Strategy::Lww, ValueType::String);
    let told = [Misfit { number: 1, reason: MisfitReason::Type }];
    assert_eq!((store.read(&other), store.misfits(&other)), (None, told.into()));
}

#[test]
fn a_conversion_reads_other_fields_as_they_show() {
    let mut store = one();
    let first = FieldSchema::new("first", 1, Strategy::Lww, ValueType::String);
    let old_last = FieldSchema::new("last", 2, Strategy::Lww, ValueType::String);
    let last = FieldSchema::new("last", 3, Strategy::MvRegister, ValueType::String);
    let last = after(last, &old_last, None);
    let join = Expression::apply(Operation::Add, [Expression::Field(1), Expression::Field(3)]);
    let mut full = FieldSchema::new("first", 4, Strategy::Immutable, ValueType::String);
    let conversion = Conversion { expression: join, inputs: vec![last.clone()] };
    let predecessor = Predecessor { field: first.clone(), conversion: Some(conversion) };
    full.predecessor = Some(Box::new(predecessor));
    store.set(10, &first, &"Ada ".into()).unwrap();
    assert_eq!(store.read(&full), None, "the last name is missing");
    store.set(11, &old_last, &"Byron".into()).unwrap();
    assert_eq!(store.read(&full), Some("Ada Byron".into()));
    store.set(12, &last, &"Lovelace".into()).unwrap();
    assert_eq!(store.read(&full), Some("Ada Lovelace".into()));
    let refused = store.set(13, &full, &"Augusta".into());
    assert_eq!(refused, Err(Refusal::Immutable.into()), "it shows a value already");
    assert!([1, 2, 3, 4].into_iter().all(|number| full.reads(number)) && !full.reads(5));
}

#[test]
fn bounds_of_a_counter_are_those_of_the_sum() {
    let mut store = one();
    let [register, ..] = votes();
    let counter = FieldSchema::new("votes", 5, Strategy::PnCounter, ValueType::I64);
    let mut counter = after(counter, &register, Some(Expression::Field(4)));
    counter.counter =
        CounterOptions { min_value: Some(0), max_value: Some(10), ..CounterOptions::default() };
    store.set(10, &register, &Value::Int(8)).unwrap();
    assert_eq!(store.add(11, &counter, 3), Err(Refusal::OutOfBounds.into()));
    store.add(12, &counter, 2).unwrap();
    assert_eq!(store.add(13, &counter, -11), Err(Refusal::OutOfBounds.into()));
    store.add(14, &counter, -10).unwrap();
    assert_eq!(store.read(&counter), Some(Value::Int(0)));
    assert_eq!(store.read(&register), Some(Value::Int(8)));
}

#[test]
fn a_counter_that_became_a_register_is_read_until_that_is_written() {
    let mut store = one();
    let counter = FieldSchema::new("votes", 1, Strategy::PnCounter, ValueType::I64);
    let register = FieldSchema::new("votes", 2, Strategy::Lww, ValueType::F32);
    let register = after(register, &counter, None);
    assert_eq!(store.read(&register), None);
    store.add(10, &counter, 3).unwrap();
    assert_eq!(store.read(&register), Some(Value::Float(3.0)));
    store.set(5, &register, &Value::Float(0.5)).unwrap();
    store.add(11, &counter, 3).unwrap();
    assert_eq!(store.read(&register), Some(Value::Float(0.5)));
    assert_eq!(store.read(&counter), Some(Value::Int(6)));
}
