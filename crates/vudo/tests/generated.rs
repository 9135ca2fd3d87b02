//! Typed Rust of a Gen with every strategy and every kind of value, against the real engine.

vudo::include_gen!("../vudo-gen/tests/wasm/item.dol");

use vudo::{CounterDirection, Error, ReplicaKey, Value};

fn open() -> (vudo::Database, Item) {
    let database = vudo::open_in_memory().unwrap();
    let milk = Item::create(&database, "milk").unwrap();
    (database, milk)
}

#[test]
fn registers_hold_values_of_every_type() {
    let (database, milk) = open();
    assert_eq!(milk.colour().unwrap(), Some(Colour::Red));
    assert_eq!(milk.sizes().unwrap(), [1.5, 2.0]);
    assert_eq!(milk.home().unwrap(), None);
    milk.set_id("m-1").unwrap();
    assert!(matches!(milk.set_id("m-2"), Err(Error::Refused { .. })));
    milk.set_colour(Colour::Green).unwrap();
    milk.set_pair((-3, "x".into())).unwrap();
    milk.set_due(Some(7)).unwrap();
    let home = AddressValue { street: Some("Main".into()), number: Some(7), ..Default::default() };
    milk.set_home(home.clone()).unwrap();
    milk.set_parent("tea".into()).unwrap();
    milk.set_levels(vec![("top".into(), u64::MAX), ("low".into(), 0)]).unwrap();
    milk.set_sizes(vec![0.0, 2.5]).unwrap();
    milk.set_other(Value::Bytes(vec![1])).unwrap();
    milk.set_title("Milk").unwrap();
    milk.set_rating(4).unwrap();

    let milk = Item::open(&database, "milk").unwrap().unwrap();
    assert_eq!(milk.id().unwrap().as_deref(), Some("m-1"));
    assert_eq!(milk.colour().unwrap(), Some(Colour::Green));
    assert_eq!(milk.pair().unwrap(), Some((-3, "x".into())));
    assert_eq!(milk.due().unwrap(), Some(Some(7)));
    assert_eq!(milk.home().unwrap(), Some(home));
    assert_eq!(milk.parent().unwrap().as_deref(), Some("tea"));
    let levels = milk.levels().unwrap().unwrap();
    assert_eq!(levels, [("low".to_owned(), 0), ("top".to_owned(), u64::MAX)]);
    assert_eq!(milk.sizes().unwrap(), [0.0, 2.5]);
    assert_eq!(milk.other().unwrap(), Some(Value::Bytes(vec![1])));
    assert_eq!(milk.title().unwrap(), ["Milk"]);
    assert_eq!(milk.rating().unwrap(), [4]);
    milk.set_due(None).unwrap();
    assert_eq!(milk.due().unwrap(), Some(None));
}

#[test]
fn what_a_later_schema_added_is_kept() {
    let (database, milk) = open();
    let id = database.document_id("milk");
    let fields = vec![(1, "Main".into()), (9, Value::Bool(true))];
    database.update(Item::schema(), &id, &[("home", Value::Record(fields.clone()))]).unwrap();
    database.update(Item::schema(), &id, &[("colour", Value::Variant(9))]).unwrap();
    assert_eq!(milk.colour().unwrap(), Some(Colour::Unknown(9)));
    let mut home = milk.home().unwrap().unwrap();
    assert_eq!(home.other_fields, [(9, Value::Bool(true))]);
    home.number = Some(3);
    milk.set_home(home).unwrap();
    let stored = database.read_field(Item::schema(), &id, "home").unwrap();
    let wanted = vec![(1, "Main".into()), (2, 3.into()), (9, Value::Bool(true))];
    assert_eq!(stored, Some(Value::Record(wanted)));
}

#[test]
fn counters_sets_and_maps_have_methods_of_their_own() {
    let (_database, milk) = open();
    milk.add_votes(-2).unwrap();
    milk.add_seen(3).unwrap();
    assert!(matches!(milk.add_seen(-1), Err(Error::Refused { .. })));
    assert!(matches!(milk.add_small(201), Err(Error::Refused { .. })));
    assert_eq!((milk.votes().unwrap(), milk.seen().unwrap(), milk.small().unwrap()), (-2, 3, 0));
    // Nobody has founded this namespace, so nobody has rights.
    assert_eq!(milk.rights_of_seats(CounterDirection::Up).unwrap(), 0);
    assert!(milk.add_seats(1).is_err());
    assert!(milk.give_seats(&ReplicaKey([2; 32]), CounterDirection::Up, 1).is_err());
    assert_eq!(milk.seats().unwrap(), 0);

    for tag in ["b", "a", "c"] {
        milk.add_tags(tag.into()).unwrap();
    }
    milk.remove_tags("c".into()).unwrap();
    assert_eq!(milk.tags().unwrap(), ["a", "b"]);
    milk.add_numbers(-5).unwrap();
    assert_eq!(milk.numbers().unwrap(), [-5]);

    milk.set_notes("price".into(), "1.20".into()).unwrap();
    milk.add_stock(Colour::Green, 4).unwrap();
    milk.add_stock(Colour::Green, -1).unwrap();
    milk.add_stock(Colour::Red, 1).unwrap();
    milk.remove_stock(Colour::Red).unwrap();
    milk.set_opinions("ada".into(), Colour::Blue).unwrap();
    assert_eq!(milk.notes().unwrap(), [("price".to_owned(), "1.20".to_owned())]);
    assert_eq!(milk.stock().unwrap(), [(Colour::Green, 3)]);
    assert_eq!(milk.opinions().unwrap(), [("ada".to_owned(), vec![Colour::Blue])]);
}

#[test]
fn names_that_rust_uses_are_escaped() {
    let (database, _) = open();
    let names = Names::create(&database, "one").unwrap();
    names.set_type("t").unwrap();
    names.set_gen(7).unwrap();
    names.set_ref("r").unwrap();
    names.set_constructor("c").unwrap();
    names.set___proto__(Some("p".into())).unwrap();
    names.add_delete_field(4).unwrap();
    names.add_key_field(1).unwrap();
    assert_eq!(names.r#type().unwrap().as_deref(), Some("t"));
    assert_eq!(names.r#gen().unwrap(), Some(7));
    assert_eq!(names.r#ref().unwrap().as_deref(), Some("r"));
    assert_eq!(names.constructor().unwrap().as_deref(), Some("c"));
    assert_eq!(names.__proto__().unwrap(), Some(Some("p".into())));
    assert_eq!((names.delete_field().unwrap(), names.key_field().unwrap()), (vec![4], 1));
}

mod ruled {
    vudo::gen_source! {
        "gen Stay {
             has from: i64 = 0
             has to: i64 = 0 where to <= 365
             rule in_order { from <= to }
         }"
    }
}

#[test]
fn a_write_that_would_break_a_rule_is_refused_with_its_name() {
    let database = vudo::open_in_memory().unwrap();
    let stay = ruled::Stay::create(&database, "one").unwrap();
    stay.set_to(7).unwrap();
    stay.set_from(7).unwrap();
    let rule_of = |outcome: vudo::Result<()>| match outcome {
        Err(Error::RuleBroken { rule, .. }) => rule,
        other => panic!("{other:?}"),
    };
    assert_eq!(rule_of(stay.set_from(8)), "in_order");
    assert_eq!(rule_of(stay.set_to(366)), "where to");
    assert_eq!((stay.from().unwrap(), stay.to().unwrap()), (7, 7));
}
