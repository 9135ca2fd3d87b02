//! A store whose schema changes under it: what it shows, follows, tells and refuses.

use vudo_crdt::rule::Operation;
use vudo_crdt::{
    Conversion, Expression, FieldSchema, GenSchema, Misfit, MisfitReason, Predecessor, Rule,
    Schema, Strategy, Value, ValueType,
};
use vudo_state::{Condition, Database, Direction, Error, Interest, Query, Step};

fn after(field: FieldSchema, old: &FieldSchema, conversion: Option<Expression>) -> FieldSchema {
    let conversion = conversion.map(|expression| Conversion { expression, inputs: Vec::new() });
    let predecessor = Predecessor { field: old.clone(), conversion };
    FieldSchema { predecessor: Some(Box::new(predecessor)), ..field }
}

fn size() -> FieldSchema {
    FieldSchema::new("size", 2, Strategy::Lww, ValueType::I64)
}

fn tags(number: u32, element: ValueType) -> FieldSchema {
    FieldSchema::new("tags", number, Strategy::OrSet, ValueType::Set(Box::new(element)))
}

fn title(name: &str) -> FieldSchema {
    FieldSchema::new(name, 1, Strategy::Lww, ValueType::String)
}

fn old_gen() -> GenSchema {
    GenSchema::new("Box", [title("title"), size(), tags(3, ValueType::I32)])
}

/// `title` is `label` now, `size` is a share of 120, and `tags` are wider.
fn new_gen() -> GenSchema {
    let share = Expression::apply(
        Operation::Divide,
        [Expression::Constant(Value::Int(120)), Expression::Field(2)],
    );
    let size =
        after(FieldSchema::new("size", 4, Strategy::Lww, ValueType::I8), &size(), Some(share));
    let tags = after(tags(5, ValueType::I64), &tags(3, ValueType::I32), None);
    let mut gen_schema = GenSchema::new("Box", [title("label"), size, tags]);
    let condition = Expression::apply(
        Operation::Less,
        [Expression::Field(4), Expression::Constant(Value::Int(100))],
    );
    gen_schema.rules.push(Rule { name: "below_a_hundred".into(), condition });
    gen_schema
}

fn open(gen_schema: GenSchema) -> Database {
    let database = Database::open_in_memory().unwrap();
    database.define(&Schema::from(vec![gen_schema])).unwrap();
    database
}

fn send(from: &Database, to: &Database) {
    let (from, to) = (from.replication("default").unwrap(), to.replication("default").unwrap());
    if let Some(frame) = from.frame_since(&to.durable_vector(), usize::MAX).unwrap() {
        to.apply_frame(&frame.bytes).unwrap();
    }
}

fn write(database: &Database, gen_schema: &GenSchema, key: &str, fields: &[(&str, Value)]) {
    let id = database.document_id(key);
    match database.read(gen_schema, &id).unwrap() {
        None => database.create(gen_schema, &id, fields).unwrap(),
        Some(_) => database.update(gen_schema, &id, fields).unwrap(),
    }
}

fn read(database: &Database, gen_schema: &GenSchema, key: &str, field: &str) -> Option<Value> {
    database.read_field(gen_schema, &database.document_id(key), field).unwrap()
}

#[test]
fn live_queries_and_events_follow_what_old_replicas_write() {
    let (old, new) = (open(old_gen()), open(new_gen()));
    write(&old, &old_gen(), "a", &[("size", 2.into())]);
    write(&old, &old_gen(), "b", &[("size", 4.into())]);
    send(&old, &new);
    let query = Query::of(&new_gen()).filter("size", Condition::Less(Value::Int(50))).unwrap();
    let query = query.sort_by("size", Direction::Ascending).unwrap();
    let live = new.live(query.clone()).unwrap();
    let keys = || -> Vec<String> {
        new.query(&query).unwrap().into_iter().map(|record| record.key).collect()
    };
    assert_eq!((live.match_count(), keys()), (1, vec!["b".to_owned()]));
    let field =
        |field_number| Interest::Field { gen_name: "Box".into(), key: "a".into(), field_number };
    let (told, not_told) = (new.subscribe(field(4)).unwrap(), new.subscribe(field(5)).unwrap());

    write(&old, &old_gen(), "a", &[("size", 3.into())]);
    send(&old, &new);
    let change = live.try_next().unwrap();
    let [Step::Entered { record, .. }] = &change.steps[..] else { panic!("{change:?}") };
    assert_eq!(record.get("size"), Some(&Value::Int(40)));
    assert_eq!((change.match_count, keys()), (2, vec!["b".to_owned(), "a".to_owned()]));
    let events: Vec<_> = told.try_iter().collect();
    assert_eq!(events[0].documents[0].fields, [2, 4]);
    assert!(not_told.try_next().is_none());

    // What the old replica writes now converts to nothing, or to what a rule forbids.
    write(&old, &old_gen(), "a", &[("size", 0.into())]);
    write(&old, &old_gen(), "b", &[("size", 1.into())]);
    send(&old, &new);
    let all = new.subscribe(Interest::Namespace).unwrap();
    assert_eq!(read(&new, &new_gen(), "a", "size"), None);
    let misfits = new.misfits(&new_gen(), &new.document_id("a")).unwrap();
    let [Misfit { number: 2, reason: MisfitReason::Evaluation(_) }] = misfits[..] else {
        panic!("{misfits:?}");
    };
    let events: Vec<_> = told.try_iter().collect();
    assert_eq!(events[0].documents[0].misfits, misfits);
    assert_eq!(keys(), Vec::<String>::new());
    write(&old, &old_gen(), "b", &[("size", 1.into())]);
    send(&old, &new);
    let events: Vec<_> = all.try_iter().collect();
    assert_eq!(events[0].documents[0].broken_rules, ["below_a_hundred"]);
    // Mended under the new number; both replicas hold the same.
    write(&new, &new_gen(), "b", &[("size", 99.into()), ("label", "B".into())]);
    send(&new, &old);
    assert_eq!(read(&new, &new_gen(), "b", "size"), Some(99.into()));
    assert_eq!(read(&old, &old_gen(), "b", "size"), Some(1.into()));
    assert_eq!(read(&old, &old_gen(), "b", "title"), Some("B".into()));
    let state = |of: &Database| of.replication("default").unwrap().fingerprint().unwrap();
    assert_eq!(state(&old), state(&new));
    let refused = new.update(&new_gen(), &new.document_id("b"), &[("size", 100.into())]);
    assert!(matches!(refused, Err(Error::RuleBroken { .. })), "{refused:?}");
}

#[test]
fn an_element_of_the_old_set_goes_and_what_an_old_replica_adds_meanwhile_stays() {
    let (old, new) = (open(old_gen()), open(new_gen()));
    let list = |values: &[i64]| Some(Value::List(values.iter().map(|one| (*one).into()).collect()));
    let change = |database: &Database, gen_schema: &GenSchema, element: i64, adds: bool| {
        database
            .transaction(|transaction| match adds {
                true => transaction.add_element(gen_schema, "a", "tags", element),
                false => transaction.remove_element(gen_schema, "a", "tags", element),
            })
            .unwrap();
    };
    write(&old, &old_gen(), "a", &[("tags", list(&[1, 2]).unwrap())]);
    send(&old, &new);
    change(&new, &new_gen(), 1, false);
    change(&new, &new_gen(), 2, false);
    change(&new, &new_gen(), 5_000_000_000, true);
    change(&old, &old_gen(), 2, true);
    assert_eq!(read(&new, &new_gen(), "a", "tags"), list(&[5_000_000_000]));
    send(&new, &old);
    send(&old, &new);
    // Adding wins over taking out, whatever versions the two are of.
    assert_eq!(read(&new, &new_gen(), "a", "tags"), list(&[2, 5_000_000_000]));
    assert_eq!(read(&old, &old_gen(), "a", "tags"), list(&[2]));
    let state = |of: &Database| of.replication("default").unwrap().fingerprint().unwrap();
    assert_eq!(state(&old), state(&new));
}

#[test]
fn blame_tells_of_the_writes_under_all_numbers() {
    let new = open(new_gen());
    let id = new.document_id("a");
    write(&new, &old_gen(), "a", &[("size", 3.into())]);
    write(&new, &new_gen(), "a", &[("size", 7.into())]);
    let shown = |new: &Database| -> Vec<_> {
        let blame = new.blame(&new_gen(), &id, "size").unwrap();
        blame.into_iter().map(|one| (one.value.unwrap(), one.is_current)).collect()
    };
    assert_eq!(shown(&new), [(7.into(), true), (3.into(), false)]);
    std::thread::sleep(std::time::Duration::from_millis(3));
    write(&new, &old_gen(), "a", &[("size", 4.into())]);
    assert_eq!(shown(&new), [(4.into(), true), (7.into(), false), (3.into(), false)]);
    assert_eq!(read(&new, &new_gen(), "a", "size"), Some(30.into()));
}

#[test]
fn a_number_never_changes_hands() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let define = |database: &Database, fields: &[FieldSchema]| {
        database.define(&Schema::from(vec![GenSchema::new("Box", fields)]))
    };
    database.define(&Schema::from(vec![old_gen()])).unwrap();
    database.define(&Schema::from(vec![new_gen()])).unwrap();
    // An older schema is as good, and the numbers of the newer one are still taken.
    database.define(&Schema::from(vec![old_gen()])).unwrap();
    drop(database);
    let database = Database::open(folder.path()).unwrap();
    let due = |number, value_type| FieldSchema::new("due", number, Strategy::Lww, value_type);
    let refused = define(&database, &[title("title"), due(4, ValueType::Timestamp)]);
    let message = refused.unwrap_err().to_string();
    let expected = "field number 4 of Box is 'size: lww i8' in this store and 'due: lww Timestamp' in \
                    the new schema: keep the lock file of one of them, so that the other field gets \
                    a number of its own";
    assert_eq!(message, expected);
    // Of one type, a field is renamed unless its old name has gone elsewhere.
    let refused = define(
        &database,
        &[due(1, ValueType::String), FieldSchema { number: 9, ..title("title") }],
    );
    assert!(matches!(refused, Err(Error::NumberTaken { number: 1, .. })), "{refused:?}");
    let twice = define(&database, &[title("title"), title("label")]);
    assert!(matches!(twice, Err(Error::NumberTaken { number: 1, .. })), "{twice:?}");
    assert_eq!(database.gen_schema("Box").unwrap(), old_gen(), "nothing has been defined");
    define(&database, &[due(1, ValueType::String)]).unwrap();
}
