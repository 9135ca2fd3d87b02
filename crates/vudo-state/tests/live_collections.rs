//! Live queries over Gens with sets, maps and registers of many values: the records of their steps
//! are those that reading gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use vudo_crdt::{FieldSchema, GenSchema, Strategy, Value, ValueType};
use vudo_state::{Database, LiveQuery, Place, Query, Record, Step};
use vudo_testkit::Random;

fn note_gen() -> GenSchema {
    let text = || Box::new(ValueType::String);
    let mut stock = FieldSchema::new(
        "stock",
        3,
        Strategy::Map,
        ValueType::Map(text(), Box::new(ValueType::I64)),
    );
    stock.value_strategy = Strategy::PnCounter;
    let fields = vec![
        FieldSchema::new("rank", 1, Strategy::Lww, ValueType::I64),
        FieldSchema::new("labels", 2, Strategy::OrSet, ValueType::Set(text())),
        stock,
        FieldSchema::new("title", 4, Strategy::MvRegister, ValueType::String),
    ];
    GenSchema::new("Note", fields)
}

fn sync(from: &Database, to: &Database) {
    let (from, to) = (from.replication("default").unwrap(), to.replication("default").unwrap());
    if let Some(frame) = from.frame_since(&to.durable_vector(), usize::MAX).unwrap() {
        to.apply_frame(&frame.bytes).unwrap();
    }
}

type Followed = BTreeMap<Place, Arc<Record>>;

/// Takes the steps that are there. Gives how many they were.
fn follow(live: &LiveQuery, followed: &mut Followed) -> usize {
    let mut count = 0;
    while let Some(change) = live.try_next() {
        assert_eq!(change.lagged, 0);
        for step in change.steps {
            count += 1;
            match step {
                Step::Entered { place, record } => {
                    assert!(followed.insert(place, record).is_none());
                }
                Step::Changed { from, place, record } => {
                    assert!(followed.remove(&from).is_some());
                    followed.insert(place, record);
                }
                Step::Left { place } => assert!(followed.remove(&place).is_some()),
            }
        }
    }
    count
}

#[test]
fn records_have_their_collections_and_follow_them() {
    let database = Database::open_in_memory().unwrap();
    let gen_schema = note_gen();
    let live = database.live(Query::of(&gen_schema)).unwrap();
    let mut followed = Followed::new();
    let set = |path: &'static str, value: &'static str| {
        database
            .transaction(|transaction| transaction.add_element(&gen_schema, "milk", path, value))
            .unwrap();
    };
    database.create(&gen_schema, &database.document_id("milk"), &[]).unwrap();
    set("labels", "red");
    assert_eq!(follow(&live, &mut followed), 2);
    // The row of the document stays as it is; only the set has another element.
    set("labels", "green");
    assert_eq!(follow(&live, &mut followed), 1);
    let record = followed.values().next().unwrap();
    assert_eq!(record.get("labels"), Some(&Value::List(["red".into(), "green".into()].into())));
    database
        .transaction(|transaction| {
            transaction.add(&gen_schema, "milk", ("stock", "here"), 3)?;
            transaction.set(&gen_schema, "milk", "title", "Milk")
        })
        .unwrap();
    assert_eq!(follow(&live, &mut followed), 1, "one step for one transaction");
    let record = followed.values().next().unwrap();
    assert_eq!(record.get("stock"), Some(&Value::Map([("here".into(), 3.into())].into())));
    assert_eq!(record.get("title"), Some(&Value::List(["Milk".into()].into())));
    let of_snapshot: Vec<_> = live.snapshot().unwrap().into_iter().map(|(_, one)| one).collect();
    assert_eq!(&of_snapshot[0], record);
}

fn write_something(database: &Database, random: &mut Random) {
    let gen_schema = note_gen();
    let key = format!("note {}", random.next_u64() % 5);
    let amount = random.next_u64() as i64 % 6;
    let done = database.transaction(|transaction| {
        if transaction.read(&gen_schema, &key)?.is_none() {
            transaction.create(&gen_schema, &key)?;
        }
        for _ in 0..1 + random.next_u64() % 3 {
            let entry = ["here", "there"][random.next_u64() as usize % 2];
            match random.next_u64() % 8 {
                0 | 1 => transaction.set(&gen_schema, &key, "rank", amount)?,
                2 => transaction.add_element(&gen_schema, &key, "labels", entry)?,
                3 => transaction.remove_element(&gen_schema, &key, "labels", entry)?,
                4 => transaction.add(&gen_schema, &key, ("stock", entry), amount)?,
                5 => transaction.remove_entry(&gen_schema, &key, ("stock", entry))?,
                6 => transaction.set(&gen_schema, &key, "title", format!("title {amount}"))?,
                _ if random.next_u64().is_multiple_of(4) => {
                    return transaction.delete(&gen_schema, &key);
                }
                _ => {}
            }
        }
        Ok(())
    });
    done.unwrap();
}

#[test]
fn what_is_followed_is_what_is_read_whoever_writes() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let (ours, theirs) =
            (Database::open_in_memory().unwrap(), Database::open_in_memory().unwrap());
        let query = || {
            let direction = vudo_state::Direction::Descending;
            Query::of(&note_gen()).sort_by("rank", direction).unwrap().limit(3)
        };
        let live = ours.live(query()).unwrap();
        let mut followed = Followed::new();
        for _ in 0..60 {
            match random.next_u64() % 4 {
                0 | 1 => write_something(&ours, &mut random),
                2 => write_something(&theirs, &mut random),
                _ => {
                    sync(&theirs, &ours);
                    sync(&ours, &theirs);
                }
            }
            follow(&live, &mut followed);
            let shown: Vec<Record> = followed.values().map(|record| (**record).clone()).collect();
            assert_eq!(shown, ours.query(&query()).unwrap(), "seed {seed}");
        }
    }
}
