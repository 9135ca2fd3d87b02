//! Rules of Gens: a transaction that would break one is refused, and what replicas break together is
//! told of.

use vudo_crdt::rule::{Expression, Operation, Rule};
use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, Value, ValueType};
use vudo_state::{Database, Error, Interest, Origin};

fn field(number: u32) -> Expression {
    Expression::Field(number)
}

fn number(value: i64) -> Expression {
    Expression::Constant(value.into())
}

fn rule(name: &str, operation: Operation, operands: [Expression; 2]) -> Rule {
    Rule { name: name.into(), condition: Expression::apply(operation, operands) }
}

/// A stay: `from` is before `to`, there is a limit to guests, and the code is of digits.
fn stay_gen() -> GenSchema {
    let mut stay = GenSchema::new(
        "Stay",
        vec![
            FieldSchema::new("from", 1, Strategy::Lww, ValueType::I64),
            FieldSchema::new("to", 2, Strategy::Lww, ValueType::I64),
            FieldSchema::new(
                "guests",
                3,
                Strategy::OrSet,
                ValueType::Set(ValueType::String.into()),
            ),
            FieldSchema::new("code", 4, Strategy::Lww, ValueType::String),
        ],
    );
    let guest_count = Expression::apply(Operation::Len, [field(3)]);
    let digits = Expression::Constant("^[0-9]+$".into());
    stay.rules = vec![
        rule("in_order", Operation::Less, [field(1), field(2)]),
        rule("few_guests", Operation::LessOrEqual, [guest_count, number(2)]),
        rule("digits", Operation::Matches, [field(4), digits]),
    ];
    stay
}

fn open() -> Database {
    let database = Database::open_in_memory().unwrap();
    database.define(&Schema::from(vec![stay_gen()])).unwrap();
    let fields = [("from", 1.into()), ("to", 5.into())];
    database.create(&stay_gen(), &database.document_id("one"), &fields).unwrap();
    database
}

fn update(database: &Database, fields: &[(&str, Value)]) -> Result<(), Error> {
    database.update(&stay_gen(), &database.document_id("one"), fields)
}

fn value(database: &Database, field: &str) -> Option<Value> {
    database.read_field(&stay_gen(), &database.document_id("one"), field).unwrap()
}

/// The rule that a write was refused for.
fn refused_for(outcome: Result<(), Error>) -> String {
    let error = outcome.unwrap_err();
    let text = error.to_string();
    let Error::RuleBroken { gen_name, key, rule } = error else { panic!("{text}") };
    assert_eq!((gen_name.as_str(), key.as_str()), ("Stay", "one"));
    assert!(text.contains(&rule), "{text}");
    rule
}

#[test]
fn a_transaction_that_would_break_a_rule_changes_nothing() {
    let database = open();
    let before = database.replication("default").unwrap().durable_vector();
    assert_eq!(refused_for(update(&database, &[("from", 5.into())])), "in_order");
    assert_eq!(refused_for(update(&database, &[("code", "12a".into())])), "digits");
    let guests = Value::List(vec!["a".into(), "b".into(), "c".into()]);
    assert_eq!(refused_for(update(&database, &[("guests", guests)])), "few_guests");
    assert_eq!(value(&database, "from"), Some(1.into()));
    assert_eq!(database.replication("default").unwrap().durable_vector(), before);
    // What is between the writes of one transaction is nobody's concern.
    update(&database, &[("from", 7.into()), ("to", 9.into()), ("code", "12".into())]).unwrap();
    assert_eq!(value(&database, "from"), Some(7.into()));
    let broken = [("from", 3.into()), ("to", 2.into())];
    let refused = database.create(&stay_gen(), &database.document_id("two"), &broken);
    assert!(matches!(refused, Err(Error::RuleBroken { .. })));
    assert_eq!(database.list(&stay_gen()).unwrap().len(), 1);
    // A document goes whatever its rules say.
    database.delete(&stay_gen(), &database.document_id("one")).unwrap();
}

#[test]
fn what_replicas_break_together_is_told_and_can_be_mended() {
    let (ours, theirs) = (open(), Database::open_in_memory().unwrap());
    theirs.define(&Schema::from(vec![stay_gen()])).unwrap();
    let send = |from: &Database, to: &Database| {
        let (from, to) = (from.replication("default").unwrap(), to.replication("default").unwrap());
        let frame = from.frame_since(&to.durable_vector(), usize::MAX).unwrap().unwrap();
        to.apply_frame(&frame.bytes).unwrap();
    };
    send(&ours, &theirs);
    let subscription = ours.subscribe(Interest::Namespace).unwrap();
    update(&ours, &[("from", 4.into())]).unwrap();
    update(&theirs, &[("to", 2.into())]).unwrap();
    send(&theirs, &ours);
    let told: Vec<_> = subscription.try_iter().collect();
    let broken: Vec<_> =
        told.iter().map(|event| (event.origin, event.documents[0].broken_rules.clone())).collect();
    let remote = (Origin::Remote, vec!["in_order".to_owned()]);
    assert_eq!(broken, [(Origin::Local, Vec::new()), remote]);
    // Both replicas hold the same; nothing was blocked.
    send(&ours, &theirs);
    assert_eq!(value(&theirs, "from"), Some(4.into()));
    // A rule that is broken already holds up no other write, a new one does, and it can be mended.
    update(&ours, &[("code", "7".into())]).unwrap();
    assert_eq!(refused_for(update(&ours, &[("code", "x".into())])), "digits");
    update(&ours, &[("to", 8.into())]).unwrap();
    assert!(subscription.try_iter().last().unwrap().documents[0].broken_rules.is_empty());
    assert_eq!(refused_for(update(&ours, &[("to", 4.into())])), "in_order");
}
