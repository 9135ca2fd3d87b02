//! Old and new versions of a schema, compiled from source, sync both ways through each rule of
//! evolution while both write: the fingerprints are equal and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vudo::{Database, GenSchema, Schema, Value};
use vudo_gen::SourceFile;
use vudo_state::storage::MemoryStorage;
use vudo_state::{Environment, OpenOptions};

/// A clock that shows another millisecond each time, for all stores of a test.
#[derive(Default)]
struct Clock(AtomicU64);

impl Environment for Clock {
    fn now_milliseconds(&self) -> u64 {
        1_700_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn fill_random(&self, bytes: &mut [u8]) -> vudo::Result<()> {
        for byte in bytes {
            let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = (next >> 56) as u8;
        }
        Ok(())
    }
}

fn open(clock: &Arc<Clock>, schema: &Schema) -> Database {
    let (storage, clock) = (Arc::new(MemoryStorage::default()), clock.clone());
    let opened = Database::with_environment(storage, None, clock, &OpenOptions::default()).unwrap();
    opened.define(schema).unwrap();
    opened
}

fn send(from: &Database, to: &Database) {
    let (from, to) = (from.replication("default").unwrap(), to.replication("default").unwrap());
    if let Some(frame) = from.frame_since(&to.durable_vector(), usize::MAX).unwrap() {
        to.apply_frame(&frame.bytes).unwrap();
    }
}

/// Both ways, and checks that both hold the same then.
fn sync(left: &Database, right: &Database, about: &str) {
    send(left, right);
    send(right, left);
    let state = |of: &Database| of.replication("default").unwrap().fingerprint().unwrap();
    assert_eq!(state(left), state(right), "{about}");
}

/// The schema of each version, of which each has the lock file of the one before.
fn versions(sources: &[&str]) -> Vec<Schema> {
    let mut lock = None;
    let compiled = sources.iter().map(|text| {
        let source = SourceFile { name: "a.dol".into(), text: (*text).into(), lock: lock.clone() };
        let compilation = vudo_gen::compile(&[source]);
        let errors: Vec<_> = compilation.errors().cloned().collect();
        lock = compilation.locks.first().map(|(_, lock)| lock.clone());
        compilation.schema.unwrap_or_else(|| panic!("{text}: {errors:?}"))
    });
    compiled.collect()
}

/// A rule of evolution, and what replicas of both versions read.
struct Case {
    /// The versions of a Gen `A`, with what stands beside it.
    sources: Vec<String>,
    /// The field that the old version writes and reads, and that of the new one.
    names: (&'static str, &'static str),
    /// What old replicas write: before the new ones have written, at the same time, and after.
    old_writes: [Option<Value>; 3],
    new_write: Value,
    /// What new replicas read after each of the old writes.
    new_reads: [Option<Value>; 3],
    /// What old replicas read in the end.
    old_read: Option<Value>,
}

fn gen_of(schema: &Schema) -> &GenSchema {
    schema.gen_named("A").unwrap()
}

fn run(case: &Case) {
    let Case { sources, names: (old_name, new_name), .. } = case;
    let about = sources.last().unwrap();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let schemas = versions(&sources);
    let (old_schema, new_schema) = (&schemas[0], schemas.last().unwrap());
    let (old_gen, new_gen) = (gen_of(old_schema), gen_of(new_schema));
    let clock = Arc::new(Clock::default());
    let (old, new) = (open(&clock, old_schema), open(&clock, new_schema));
    let id = old.document_id("one");
    old.create(old_gen, &id, &[]).unwrap();
    sync(&old, &new, about);
    let read = |database: &Database, gen_schema: &GenSchema, name: &str| {
        database.read_field(gen_schema, &id, name).unwrap()
    };
    let mut change_count = 1;
    for (step, (write, expected)) in case.old_writes.iter().zip(&case.new_reads).enumerate() {
        if let Some(value) = write {
            old.update(old_gen, &id, &[(old_name, value.clone())]).unwrap();
            change_count += 1;
        }
        if step == 1 {
            new.update(new_gen, &id, &[(new_name, case.new_write.clone())]).unwrap();
            change_count += 1;
        }
        sync(&old, &new, about);
        assert_eq!(read(&new, new_gen, new_name), *expected, "step {step}: {about}");
    }
    assert_eq!(read(&old, old_gen, old_name), case.old_read, "{about}");
    // Every write is held by both: nothing was refused or left out.
    let (vector, _) = old.replication("default").unwrap().fingerprint().unwrap();
    let held: u64 = vector.iter().map(|(_, number)| number).sum();
    assert_eq!(held, change_count, "{about}");
    // The old replica upgrades, and the new one goes back: each reads what the other has read.
    let expected = case.new_reads.last().unwrap();
    old.define(new_schema).unwrap();
    new.define(old_schema).unwrap();
    assert_eq!(read(&old, new_gen, new_name), *expected, "upgraded: {about}");
    assert_eq!(read(&new, old_gen, old_name), case.old_read, "downgraded: {about}");
    // Documents and queries show what single fields do.
    let record = old.read(new_gen, &id).unwrap().unwrap();
    assert_eq!(record.get(new_name), expected.as_ref(), "{about}");
    assert_eq!(old.list(new_gen).unwrap(), [record], "{about}");
}

fn value(value: impl Into<Value>) -> Option<Value> {
    Some(value.into())
}

fn list<const N: usize>(values: [i64; N]) -> Option<Value> {
    Some(Value::List(values.map(Value::from).into()))
}

fn texts<const N: usize>(values: [&str; N]) -> Option<Value> {
    Some(Value::List(values.map(Value::from).into()))
}

fn map<const N: usize>(entries: [(&str, i64); N]) -> Option<Value> {
    Some(Value::map_of(entries.map(|(key, value)| (key.into(), value.into()))))
}

/// A change of the field `a`, with an expression or without.
fn change(
    old: &str,
    new: &str,
    with: &str,
    old_writes: [Option<Value>; 3],
    new_write: Option<Value>,
    new_reads: [Option<Value>; 3],
    old_read: Option<Value>,
) -> Case {
    const BESIDE: &str = "enum State { Open, Done }\n";
    let source = |field: &str| {
        let (annotation, kind) = field.split_once(' ').unwrap();
        format!("{BESIDE}gen A {{ @crdt({annotation}) has a: {kind} }}\n")
    };
    let strategy = |field: &str| field.split([' ', ',']).next().unwrap().to_owned();
    let mut next = source(new);
    if !with.is_empty() {
        let (from, to) = (strategy(old), strategy(new));
        next += &format!(
            "evolves A @ 1.0 > 1.1 {{ changes a from @crdt({from}) to @crdt({to}) with {with} }}"
        );
    }
    Case {
        sources: vec![source(old), next],
        names: ("a", "a"),
        old_writes,
        new_write: new_write.unwrap(),
        new_reads,
        old_read,
    }
}

/// A register whose values are integers: the latest write counts, whatever version it is of.
fn register(old: &str, new: &str, with: &str) -> Case {
    change(
        old,
        new,
        with,
        [value(1), value(2), value(3)],
        value(70),
        [value(1), value(70), value(3)],
        value(3),
    )
}

/// Counters: everything counts.
fn counter(old: &str, new: &str, with: &str) -> Case {
    change(
        old,
        new,
        with,
        [value(1), value(2), value(3)],
        value(70),
        [value(1), value(73), value(76)],
        value(6),
    )
}

#[test]
fn registers_of_both_versions_show_the_latest_write() {
    let once = [value(1), None, None];
    let cases = [
        register("lww i32", "lww i64", ""),
        register("lww i32", "lww,tie_break=\"content\" i32", ""),
        register("lww i64", "lww i8", "a % 100"),
        register("lww i64", "lww u8", "a"),
        register("lww i32", "lww Option<i32>", ""),
        register("lww Option<i32>", "lww Option<i64>", ""),
        register("lww Option<i64>", "lww Option<i32>", "a * 1"),
        change(
            "immutable i32",
            "lww i32",
            "",
            once.clone(),
            value(7),
            [value(1), value(7), value(7)],
            value(1),
        ),
        change(
            "immutable i32",
            "mv_register i64",
            "",
            once,
            value(7),
            [list([1]), list([7]), list([7])],
            value(1),
        ),
        change(
            "lww i32",
            "mv_register i32",
            "",
            [value(1), value(2), value(3)],
            value(7),
            [list([1]), list([7]), list([3])],
            value(3),
        ),
        change(
            "mv_register i32",
            "mv_register i64",
            "",
            [value(1), value(2), value(3)],
            value(7),
            [list([1]), list([7]), list([3])],
            list([3]),
        ),
        change(
            "mv_register i32",
            "lww i32",
            "a + 10",
            [value(1), value(2), value(3)],
            value(7),
            [value(11), value(7), value(13)],
            list([3]),
        ),
        change(
            "lww State",
            "lww String",
            "a",
            [Some(Value::Variant(1)), Some(Value::Variant(2)), Some(Value::Variant(2))],
            value("late"),
            [value("Open"), value("late"), value("Done")],
            Some(Value::Variant(2)),
        ),
        change(
            "lww i64",
            "lww f64",
            "a / 2.0",
            [value(1), value(2), value(3)],
            value(0.25),
            [value(0.5), value(0.25), value(1.5)],
            value(3),
        ),
        change(
            "lww f64",
            "lww f32",
            "a",
            [value(0.5), value(0.1), value(0.1)],
            value(2.0),
            [value(0.5), value(2.0), value(f64::from(0.1f32))],
            value(0.1),
        ),
        change(
            "lww Set<i32>",
            "lww Set<i64>",
            "",
            [list([1]), list([2]), list([3, 4])],
            list([7]),
            [list([1]), list([7]), list([3, 4])],
            list([3, 4]),
        ),
        change(
            "pn_counter i64",
            "lww i64",
            "a",
            [value(1), value(2), value(3)],
            value(70),
            [value(1), value(70), value(70)],
            value(6),
        ),
    ];
    cases.iter().for_each(run);
}

#[test]
fn counters_of_both_versions_add_up() {
    let cases = [
        counter("pn_counter i32", "pn_counter i64", ""),
        counter("g_counter i32", "pn_counter i32", ""),
        counter("g_counter u8", "g_counter u64", ""),
        counter("pn_counter i64", "pn_counter i32", "a"),
        change(
            "lww i64",
            "pn_counter i64",
            "a * 10",
            [value(1), value(2), value(3)],
            value(5),
            [value(10), value(25), value(35)],
            value(3),
        ),
        change(
            "lww String",
            "g_counter i32",
            "a.len()",
            [value("a"), value("ab"), value("abc")],
            value(5),
            [value(1), value(7), value(8)],
            value("abc"),
        ),
        change(
            "lww i64",
            "pn_counter f64",
            "a",
            [value(1), value(2), value(3)],
            value(0.5),
            [value(1.0), value(2.5), value(3.5)],
            value(3),
        ),
        change(
            "pn_counter f32",
            "pn_counter f64",
            "a",
            [value(1.0), value(2.0), value(3.0)],
            value(0.5),
            [value(1.0), value(3.5), value(6.5)],
            value(6.0),
        ),
    ];
    cases.iter().for_each(run);
}

#[test]
fn sets_and_maps_of_both_versions_are_read_as_one() {
    let cases = [
        // The new replica takes 1 out while the old one adds 3.
        change(
            "or_set Set<i32>",
            "or_set Set<i64>",
            "",
            [list([1, 2]), list([1, 2, 3]), list([2, 3, 4])],
            list([2, 5_000_000_000]),
            [list([1, 2]), list([2, 3, 5_000_000_000]), list([2, 3, 4, 5_000_000_000])],
            list([2, 3, 4]),
        ),
        // The new replica takes `a` out and writes `b` after the old one has.
        change(
            "map Map<String,i32>",
            "map Map<String,i64>",
            "",
            [
                map([("a", 1), ("b", 2)]),
                map([("a", 1), ("b", 3), ("d", 4)]),
                map([("b", 5), ("d", 4)]),
            ],
            map([("b", 20), ("c", 30)]),
            [
                map([("a", 1), ("b", 2)]),
                map([("b", 20), ("c", 30), ("d", 4)]),
                map([("b", 5), ("c", 30), ("d", 4)]),
            ],
            map([("b", 5), ("d", 4)]),
        ),
        change(
            "map,value=pn_counter Map<String,i32>",
            "map,value=pn_counter Map<String,i64>",
            "",
            [map([("a", 1)]), map([("a", 2)]), map([("a", 3)])],
            map([("a", 70), ("b", 1)]),
            [map([("a", 1)]), map([("a", 73), ("b", 1)]), map([("a", 76), ("b", 1)])],
            map([("a", 6)]),
        ),
        change(
            "map Map<String,i32>",
            "map,value=mv_register Map<String,i32>",
            "",
            [map([("a", 1)]), map([("a", 2)]), map([("a", 3)])],
            map([("a", 70), ("b", 1)]),
            [[("a", [1])].as_slice(), &[("a", [70]), ("b", [1])], &[("a", [3]), ("b", [1])]].map(
                |entries| {
                    let entries =
                        entries.iter().map(|(key, all)| ((*key).into(), list(*all).unwrap()));
                    Some(Value::map_of(entries))
                },
            ),
            map([("a", 3)]),
        ),
    ];
    cases.iter().for_each(run);
}

#[test]
fn fields_are_added_renamed_deprecated_and_left_out() {
    let case = |old: &str, new: &str, names, new_write, new_reads, old_read| Case {
        sources: vec![old.to_owned(), new.to_owned()],
        names,
        old_writes: [value(1), value(2), value(3)],
        new_write: Option::unwrap(new_write),
        new_reads,
        old_read,
    };
    let integers = |latest: i64| [value(1), value(latest), value(3)];
    let cases = [
        case(
            "gen A { has a: i64 }",
            "gen A { has a: i64 has b: String }",
            ("a", "b"),
            value("new"),
            [None, value("new"), value("new")],
            value(3),
        ),
        case(
            "gen A { has a: i64 }",
            "gen A { has b: i64 }\nevolves A @ 1.0 > 1.1 { renames a to b }",
            ("a", "b"),
            value(7),
            integers(7),
            value(3),
        ),
        // Renamed and widened at once.
        case(
            "gen A { has a: i32 }",
            "gen A { has b: i64 }\nevolves A @ 1.0 > 1.1 { renames a to b }",
            ("a", "b"),
            value(7),
            integers(7),
            value(3),
        ),
        case(
            "gen A { has a: i64 has b: i64 }\nevolves A @ 0.9 > 1.0 { deprecates a }",
            "gen A { has b: i64 }",
            ("a", "b"),
            value(7),
            [None, value(7), value(7)],
            value(3),
        ),
        case(
            "gen A { has a: i64 = 5 }",
            "gen A { has a: i64 = 6 }",
            ("a", "a"),
            value(7),
            integers(7),
            value(3),
        ),
        case(
            "gen A { @crdt(pn_counter, max_value = 10) has a: i64 }",
            "gen A { @crdt(pn_counter, max_value = 100) has a: i64 }",
            ("a", "a"),
            value(7),
            [value(1), value(10), value(13)],
            value(13),
        ),
    ];
    // The last old write would leave the bounds that the old replica knows.
    let (last, others) = cases.split_last().unwrap();
    others.iter().for_each(run);
    run(&Case {
        sources: last.sources.clone(),
        old_writes: [value(1), value(2), None],
        new_reads: [value(1), value(10), value(10)],
        old_read: value(10),
        new_write: last.new_write.clone(),
        ..*last
    });
}

#[test]
fn a_variant_is_added_and_a_field_changes_twice() {
    let enumeration = |variants: &str| format!("enum E {{ {variants} }}\ngen A {{ has a: E }}");
    let variant = |number| Some(Value::Variant(number));
    run(&Case {
        sources: vec![enumeration("One, Two"), enumeration("One, Two, Three")],
        names: ("a", "a"),
        old_writes: [variant(1), variant(2), variant(1)],
        new_write: Value::Variant(3),
        new_reads: [variant(1), variant(3), variant(1)],
        old_read: variant(1),
    });
    let steps = [
        "gen A { has a: i16 has factor: i64 = 2 }",
        "gen A { has a: i32 has factor: i64 = 2 }",
        "gen A { has a: String has factor: i64 = 2 }\n\
         evolves A @ 1 > 2 { changes a from @crdt(lww) i32 to @crdt(lww) String with \"many\" }",
        // The field and the other one that its conversion reads go by other names since.
        "gen A { @crdt(pn_counter) has b: i64 has f: i64 = 2 }\n\
         evolves A @ 1 > 2 { changes a from @crdt(lww) i32 to @crdt(lww) String with \"many\" }\n\
         evolves A @ 2 > 3 { changes a from @crdt(lww) to @crdt(pn_counter) with a.len() * factor }\n\
         evolves A @ 3 > 4 { renames a to b renames factor to f }",
    ];
    run(&Case {
        sources: steps.map(str::to_owned).into(),
        names: ("a", "b"),
        old_writes: [value(1), value(2), value(3)],
        new_write: 5.into(),
        new_reads: [value(8), value(13), value(13)],
        old_read: value(3),
    });
}

#[test]
fn texts_in_sets_stay_texts() {
    // A set of other elements has nothing to do with the old one.
    let old = "gen A { @crdt(or_set) has a: Set<String> }";
    let new = "gen A { @crdt(or_set) has a: Set<Option<String>> }";
    run(&Case {
        sources: vec![old.into(), new.into()],
        names: ("a", "a"),
        old_writes: [texts(["x"]), texts(["x", "y"]), texts(["y"])],
        new_write: texts(["x", "z"]).unwrap(),
        new_reads: [texts(["x"]), texts(["x", "y", "z"]), texts(["y", "z"])],
        old_read: texts(["y"]),
    });
}
