//! The tables of the language, written down a second time and compared cell by cell with what the
//! compiler says: type by strategy, strategy by option, and every change of a field both ways.

use std::fmt::Write as _;

use vudo_crdt::Schema;
use vudo_gen::{Compilation, Severity, SourceFile, compile, compile_against};

const DECLARATIONS: &str = "enum Colour { Red, Green }\ngen Address { has street: String }\n";

/// What the language says of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Yes,
    Warns(&'static str),
    Later,
    Refuses,
}

use Said::{Later, Refuses as No, Warns, Yes};

const STRATEGIES: [&str; 13] = [
    "immutable",
    "lww",
    "mv_register",
    "mvr",
    "g_counter",
    "pn_counter",
    "bounded_counter",
    "escrow",
    "or_set",
    "map",
    "rga",
    "list",
    "peritext",
];

const WHOLE: Said = Warns("W0310");
const ROUNDED: Said = Warns("W0307");
const KEYS: Said = Warns("W0311");

/// Each row of the table with every type that it is about, in the order of [`STRATEGIES`].
#[rustfmt::skip]
const TABLE: [(&[&str], [Said; 13]); 9] = [
    (
        &["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "Int", "UInt", "I64", "UINT", "Int32"],
        [Yes, Yes, Yes, Yes, Yes, Yes, Yes, Yes, No, No, No, No, No],
    ),
    (
        &["f32", "f64", "Float", "FLOAT"],
        [Yes, Yes, Yes, Yes, No, ROUNDED, No, No, No, No, No, No, No],
    ),
    (&["String", "string"], [Yes, Yes, Yes, Yes, No, No, No, No, No, No, No, No, Later]),
    (
        &[
            "Bool", "Colour", "Uuid", "Timestamp", "Duration", "Bytes", "Identity", "Option<i64>",
            "Option<Colour>", "(i64, String)", "Address", "Ref<Address>", "enum { Here, There }",
        ],
        [Yes, Yes, Yes, Yes, No, No, No, No, No, No, No, No, No],
    ),
    (
        &["Set<String>", "{String}", "Set<Colour>", "Set<(i64, String)>"],
        [WHOLE, WHOLE, Yes, Yes, No, No, No, No, Yes, No, No, No, No],
    ),
    (
        &["List<String>", "Vec<i64>", "List<Address>"],
        [WHOLE, WHOLE, Yes, Yes, No, No, No, No, No, No, Later, Later, No],
    ),
    (&["[String]", "[i64]"], [WHOLE, WHOLE, Yes, Yes, No, No, No, No, Yes, No, Later, Later, No]),
    (
        &["Map<String, i64>", "Map<Colour, Address>"],
        [WHOLE, WHOLE, Yes, Yes, No, No, No, No, KEYS, Yes, No, No, No],
    ),
    (&["RichText", "richtext"], [No, No, No, No, No, No, No, No, No, No, No, No, Later]),
];

fn compiled(field: &str) -> Compilation {
    let text = format!("{DECLARATIONS}gen A {{\n    {field}\n}}\n");
    compile(&[SourceFile { name: "a.dol".into(), text, lock: None }])
}

fn codes(compilation: &Compilation) -> Vec<&'static str> {
    compilation.diagnostics.iter().map(|one| one.code).collect()
}

fn said(compilation: &Compilation) -> Said {
    match codes(compilation)[..] {
        [] => Yes,
        ["N0309"] => {
            assert!(compilation.is_right());
            let [refused] = &compilation.refused[..] else { panic!("{:?}", compilation.refused) };
            assert_eq!((refused.code, refused.severity), ("E0309", Severity::Error));
            assert_eq!(refused.message, "A.a: sequences are not in this version");
            Later
        }
        ["E0306"] => No,
        [code] if code.starts_with('W') => Warns(code),
        _ => panic!("{:?}", compilation.diagnostics),
    }
}

#[test]
fn every_type_under_every_strategy() {
    let mut count = 0;
    for (types, row) in TABLE {
        for kind in types {
            for (strategy, expected) in STRATEGIES.iter().zip(row) {
                let compilation = compiled(&format!("@crdt({strategy}) has a: {kind}"));
                assert_eq!(said(&compilation), expected, "{strategy} on {kind}");
                let other = compiled(&format!("a: {kind} @crdt({strategy})"));
                assert_eq!(codes(&other), codes(&compilation), "the other spelling of {kind}");
                count += 1;
            }
        }
    }
    println!("{count} cells of type and strategy");
    assert_eq!(count, 585);
}

#[test]
fn every_strategy_of_the_values_of_a_map() {
    let inner = ["immutable", "lww", "mv_register", "mvr", "g_counter", "pn_counter", "or_set"];
    let mut count = 0;
    for (types, row) in TABLE {
        for kind in types {
            for strategy in inner {
                let index = STRATEGIES.iter().position(|one| *one == strategy).unwrap();
                // A value that is replaced as a whole is what a map of values is for.
                let expected = if row[index] == WHOLE { Yes } else { row[index] };
                let field = format!("@crdt(map, value = {strategy}) has a: Map<String, {kind}>");
                assert_eq!(said(&compiled(&field)), expected, "{field}");
                count += 1;
            }
            for strategy in ["bounded_counter", "escrow", "rga", "list", "peritext", "lwww"] {
                let field = format!("@crdt(map, value = {strategy}) has a: Map<String, {kind}>");
                assert_eq!(codes(&compiled(&field))[0], "E0304", "{field}");
                count += 1;
            }
        }
    }
    println!("{count} cells of map, type and inner strategy");
    assert_eq!(count, 585);
}

type Words = &'static [&'static str];

/// Each option with the strategies that take it, values that are right and values that are not.
#[rustfmt::skip]
const OPTIONS: [(&str, Words, Words, Words); 8] = [
    ("tie_break", &["lww"], &["\"replica\"", "\"actor_id\"", "\"content\"", "content_hash"],
        &["\"clock\"", "1", "none"]),
    ("min_value", &["g_counter", "pn_counter", "bounded_counter", "escrow"], &["0", "-3", "-1.0"],
        &["\"low\"", "0.5", "[1]", "true"]),
    ("max_value", &["g_counter", "pn_counter", "bounded_counter", "escrow"], &["0", "9", "4.0"],
        &["\"high\"", "0.5", "1e300"]),
    ("overflow_strategy", &["g_counter", "pn_counter", "bounded_counter", "escrow"],
        &["\"saturate\"", "error"], &["\"wrapp\"", "1"]),
    ("value", &["map"], &["lww", "\"pn_counter\""], &["lwww", "1", "escrow"]),
    ("formatting", &["peritext"], &["\"full\"", "\"markdown\"", "plain"], &["\"basic\"", "1"]),
    ("max_length", &["peritext"], &["1", "10000"], &["0", "-1", "\"long\"", "1.5"]),
    ("clock", &STRATEGIES, &["\"hlc\"", "hlc"], &["\"lamport\"", "1"]),
];

fn type_for(strategy: &str) -> &'static str {
    match strategy {
        "or_set" => "Set<String>",
        "map" => "Map<String, i64>",
        "rga" | "list" => "List<String>",
        "peritext" => "String",
        _ => "i64",
    }
}

#[test]
fn every_option_of_every_strategy() {
    let mut count = 0;
    for strategy in STRATEGIES {
        let is_later = ["rga", "list", "peritext"].contains(&strategy);
        let note: &[&str] = if is_later { &["N0309"] } else { &[] };
        for (option, takers, right, wrong) in OPTIONS {
            for (values, is_right) in [(right, true), (wrong, false)] {
                for value in values {
                    let kind = type_for(strategy);
                    let field = format!("@crdt({strategy}, {option} = {value}) has a: {kind}");
                    let mut expected = Vec::new();
                    if !takers.contains(&strategy) {
                        expected.push("E0303");
                    } else if !is_right {
                        expected.push("E0304");
                    }
                    expected.extend(note);
                    let mut found = codes(&compiled(&field));
                    found.sort_unstable();
                    assert_eq!(found, expected, "{field}");
                    count += 1;
                }
            }
        }
        let twice =
            format!("@crdt({strategy}, clock = hlc, clock = hlc) has a: {}", type_for(strategy));
        assert!(codes(&compiled(&twice)).contains(&"E0307"), "{twice}");
    }
    for (strategy, expected) in [("pn_counter", None), ("bounded_counter", Some("E0304"))] {
        let field = format!("@crdt({strategy}, overflow_strategy = \"wrap\") has a: i64");
        assert_eq!(codes(&compiled(&field)).first().copied(), expected, "{field}");
        count += 1;
    }
    println!("{count} cells of strategy, option and value");
    assert_eq!(count, 574);
}

/// A field as it was or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    strategy: &'static str,
    kind: &'static str,
}

fn shapes() -> Vec<Shape> {
    let registers = ["immutable", "lww", "mv_register"];
    let values = ["i16", "i32", "f64", "String", "Colour", "Option<i32>"];
    let mut shapes = Vec::new();
    for strategy in registers {
        shapes.extend(values.map(|kind| Shape { strategy, kind }));
    }
    for strategy in ["g_counter", "pn_counter", "bounded_counter"] {
        shapes.extend(["i16", "i32"].map(|kind| Shape { strategy, kind }));
    }
    shapes.extend(["Set<i16>", "Set<i32>"].map(|kind| Shape { strategy: "or_set", kind }));
    let maps = ["Map<String, i16>", "Map<String, i32>"];
    shapes.extend(maps.map(|kind| Shape { strategy: "map", kind }));
    shapes
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evolves {
    Unchanged,
    Safely,
    WithExpression,
    Never,
}

/// The language's rules of evolution, in a table's words.
fn evolves(old: Shape, new: Shape) -> Evolves {
    const STRATEGIES: [(&str, &str); 5] = [
        ("immutable", "lww"),
        ("immutable", "mv_register"),
        ("lww", "mv_register"),
        ("g_counter", "pn_counter"),
        ("", ""),
    ];
    const TYPES: [(&str, &str); 4] = [
        ("i16", "i32"),
        ("i32", "Option<i32>"),
        ("Set<i16>", "Set<i32>"),
        ("Map<String, i16>", "Map<String, i32>"),
    ];
    let is_collection = |shape: Shape| ["or_set", "map"].contains(&shape.strategy);
    if old == new {
        return Evolves::Unchanged;
    }
    if is_collection(old) != is_collection(new) || new.strategy == "bounded_counter" {
        return Evolves::Never;
    }
    let same_strategy = old.strategy == new.strategy;
    let strategy = same_strategy || STRATEGIES.contains(&(old.strategy, new.strategy));
    let kind = old.kind == new.kind || TYPES.contains(&(old.kind, new.kind));
    match (strategy && kind, is_collection(new)) {
        (true, _) => Evolves::Safely,
        (false, true) => Evolves::Never,
        (false, false) => Evolves::WithExpression,
    }
}

fn source(shape: Shape, evolution: &str) -> SourceFile {
    let Shape { strategy, kind } = shape;
    let text = format!("{DECLARATIONS}gen A {{ @crdt({strategy}) has a: {kind} }}\n{evolution}\n");
    SourceFile { name: "a.dol".into(), text, lock: None }
}

/// An expression of a type, over whatever the field was.
fn expression(kind: &str) -> &'static str {
    match kind {
        "f64" => "1.5",
        "String" => "\"a\"",
        "Colour" => "Colour.Red",
        _ => "1",
    }
}

/// Whether the field `a` reads what it was under this number, and its schema survives its bytes.
fn reads(schema: &Schema, number: u32) -> bool {
    let field = schema.gen_named("A").unwrap().field("a").unwrap();
    assert_eq!(Schema::decode(&schema.encode()).as_ref(), Ok(schema));
    field.number != number && field.lineage().last().unwrap().number == number
}

#[test]
fn every_change_of_a_field_both_ways() {
    let mut counts = [0; 4];
    let shapes = shapes();
    for old in &shapes {
        for new in &shapes {
            let expected = evolves(*old, *new);
            let found = compile_against(&[source(*old, "")], &[source(*new, "")]);
            let errors: Vec<_> = found.errors().map(|one| one.code).collect();
            let refuses = errors.contains(&"E0604");
            let about = format!("{old:?} to {new:?}: {errors:?}");
            match expected {
                Evolves::Unchanged => assert_eq!(codes(&found), [""; 0], "{about}"),
                Evolves::Safely => {
                    assert!(
                        found.schema.as_ref().is_some_and(|schema| reads(schema, 1)),
                        "{about}"
                    );
                    assert!(codes(&found).contains(&"N0601"), "{about}");
                    assert!(found.locks[0].1.contains("A.a~1 = 1 "), "{:?}", found.locks);
                }
                Evolves::WithExpression | Evolves::Never => assert!(refuses, "{about}"),
            }
            if expected == Evolves::WithExpression {
                let mut evolution = String::new();
                let _ = write!(
                    evolution,
                    "evolves A @ 1.0 > 1.1 {{ changes a from @crdt({}) {} to @crdt({}) {} with {} }}",
                    old.strategy,
                    old.kind,
                    new.strategy,
                    new.kind,
                    expression(new.kind),
                );
                let found = compile_against(&[source(*old, "")], &[source(*new, &evolution)]);
                let about = format!("{about}: {:?} {:?}", found.diagnostics, found.refused);
                assert!(found.schema.as_ref().is_some_and(|schema| reads(schema, 1)), "{about}");
            }
            counts[expected as usize] += 1;
        }
    }
    println!("{counts:?} changes: none, safe, with an expression, impossible");
    assert_eq!(counts.iter().sum::<usize>(), 28 * 28);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn every_step_of_an_evolution() {
    let old = "gen A @ 1.0 { has a: i64 has b: i64 }\n";
    let cases: [(&str, &str, &[&str]); 9] = [
        (old, "gen A { has a: i64 has b: i64 has c: i64 }", &["N0601"]),
        (old, "gen A { has a: i64 }", &["E0602"]),
        (
            "gen A { has a: i64 has b: i64 }\nevolves A @ 0.9 > 1.0 { deprecates b }",
            "gen A { has a: i64 }",
            &["N0601"],
        ),
        (
            old,
            "gen A { has a: i64 has c: i64 }\nevolves A @ 1.0 > 1.1 { renames b to c }",
            &["N0601"],
        ),
        (
            old,
            "gen A { has a: i64 has b: i64 has c: i64 }\nevolves A @ 1.0 > 1.1 { renames b to c }",
            &["E0603", "N0601"],
        ),
        (
            old,
            "gen A { has a: i64 has b: i32 }\nevolves A @ 1.0 > 1.1 {\n\
             changes b from @crdt(lww) i64 to @crdt(lww) i32 with now() }",
            &["E0506", "E0604", "N0601"],
        ),
        (
            old,
            "gen A { has a: i64 has b: i32 }\nevolves A @ 1.0 > 1.1 {\n\
             changes b from @crdt(lww) i64 to @crdt(lww) i32 with \"x\" }",
            &["E0605", "N0601"],
        ),
        (
            "enum E { One, Two }\ngen A { has a: E }",
            "enum E { One, Two, Three }\ngen A { has a: E }",
            &[],
        ),
        (
            "enum E { One, Two }\ngen A { has a: E }",
            "enum E { One }\ngen A { has a: E }",
            &["W0608"],
        ),
    ];
    for (old, new, expected) in cases {
        let file = |text: &str| SourceFile { name: "a.dol".into(), text: text.into(), lock: None };
        let found = compile_against(&[file(old)], &[file(new)]);
        let mut codes = codes(&found);
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes, expected, "{old} to {new}: {:?}", found.diagnostics);
    }
    let branch = |text: &str, lock: &str| SourceFile {
        name: "a.dol".into(),
        text: text.into(),
        lock: Some(lock.into()),
    };
    let ours = branch("gen A { has a: i64 has b: i64 }", "A.a = 1\nA.b = 2\n");
    let theirs =
        branch("gen A { has a: i64 has b: i64 has c: i64 }", "A.a = 1\nA.c = 2\nA.b = 3\n");
    let found = compile_against(&[ours], &[theirs]);
    assert!(codes(&found).contains(&"E0607"), "{:?}", found.diagnostics);
}
