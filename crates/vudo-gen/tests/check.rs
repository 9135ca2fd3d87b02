//! The corpus: each `.dol` beside the diagnostics and the schema that it gives.
//!
//! `VUDO_BLESS=1 cargo test -p vudo-gen --test check` writes the expected output anew; read the
//! difference before committing it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use vudo_gen::{DIAGNOSTICS_MAX, SOURCE_BYTES_MAX, Severity, SourceFile, compile, rust};

fn source(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.into(), text: text.into(), lock: None }
}

fn describe(name: &str, text: &str) -> String {
    let files = [source(name, text)];
    let compilation = compile(&files);
    let mut out = String::new();
    for diagnostic in compilation.diagnostics.iter().chain(&compilation.refused) {
        let (line, column) = diagnostic.position(&files);
        let severity = diagnostic.severity;
        let _ = writeln!(out, "{line}:{column} {} {severity:?}", diagnostic.code);
        out.push_str(&diagnostic.render(&files, false));
    }
    match compilation.schema {
        None => out.push_str("no schema\n"),
        Some(schema) => {
            for gen_schema in schema.gens {
                let _ = writeln!(out, "{}", gen_schema.name);
                for field in gen_schema.fields {
                    let _ = writeln!(out, "    {field:?}");
                }
            }
        }
    }
    // Renderers pad lines, and no editor keeps that.
    out.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn check(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    let found = describe(name, &text);
    let expected_path = folder.join(name).with_extension("txt");
    if std::env::var_os("VUDO_BLESS").is_some() {
        std::fs::write(&expected_path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&expected_path).unwrap();
    assert_eq!(found, expected, "{name} gives something else than before");
    found
}

#[test]
fn a_right_file_gives_a_schema() {
    let found = check("user.dol");
    assert!(!found.contains("Error"), "{found}");
}

#[test]
fn three_errors_are_three_diagnostics() {
    let found = check("three_errors.dol");
    assert_eq!(found.matches(" Error\n").count(), 3, "{found}");
    assert!(found.contains("did you mean 'lww'?"), "{found}");
    assert!(found.contains("did you mean 'true'?"), "{found}");
}

#[test]
fn every_construct_of_the_language_is_understood() {
    let found = check("everything.dol");
    assert!(!found.contains("Error"), "{found}");
    let found = check("existing_forms.dol");
    assert!(!found.contains("Error"), "{found}");
    let found = check("programs.dol");
    assert!(!found.replace("[E0206]", "").contains(" Error\n[E0"), "{found}");
}

#[test]
fn errors_of_syntax_do_not_hide_each_other() {
    let found = check("syntax_errors.dol");
    assert_eq!(found.matches(" Error\n").count(), 7, "{found}");
    check("recovery.dol");
}

#[test]
fn every_check_reports() {
    let found = check("checks.dol");
    let codes = [
        "E0109", "E0202", "E0203", "E0205", "E0207", "E0301", "E0303", "E0304", "E0305", "E0306",
        "E0307", "W0209", "W0307", "W0308", "W0310",
    ];
    for code in codes {
        assert!(found.contains(code), "{code} is missing in {found}");
    }
}

#[test]
fn every_fault_of_a_rule_is_reported() {
    let found = check("rules.dol");
    let codes = [
        "E0101", "E0202", "E0205", "E0211", "E0212", "E0304", "E0501", "E0502", "E0503", "E0504",
        "E0505", "E0506", "E0507", "N0309", "W0311", "W0401",
    ];
    for code in codes {
        assert!(found.contains(code), "{code} is missing in {found}");
    }
}

#[test]
fn every_rule_says_what_holds_it() {
    let text = "gen A {
        has a: i64 where a > 0
        has b: i64
        @crdt(pn_counter) has c: i64
        @crdt(bounded_counter, min_value = 0) has d: i64
        @crdt(or_set) has e: Set<String>
        rule two { a < b }
        rule sum { c >= 0 }
        rule held { d >= 0 }
        rule few { e.len() < 5 }
    }
    constraint total { c always >= 0 }
    constraint words { all is well }";
    let compilation = compile(&[source("a.dol", text)]);
    let found: Vec<(&str, Option<char>)> =
        compilation.constraints.iter().map(|one| (one.name.as_str(), one.class)).collect();
    let expected = [
        ("A.where a", Some('A')),
        ("A.two", Some('B')),
        ("A.sum", Some('C')),
        ("A.held", Some('A')),
        ("A.few", Some('B')),
        ("total", Some('C')),
        ("words", None),
    ];
    assert_eq!(found, expected);
}

#[test]
fn numbers_come_from_the_lock_file() {
    let text = "gen Task { has new: String has title: String }";
    let lock = Some("Task.title = 1\nTask.gone = 2\n".to_owned());
    let compilation = compile(&[SourceFile { name: "task.dol".into(), text: text.into(), lock }]);
    let schema = compilation.schema.unwrap();
    let numbers: Vec<u32> = schema.gens[0].fields.iter().map(|field| field.number).collect();
    assert_eq!(numbers, [3, 1]);
    let lock = "Task.gone = 2\nTask.new = 3 lww String\nTask.title = 1 lww String\n";
    assert!(compilation.locks[0].1.contains(lock));
}

#[test]
fn sources_in_error_get_no_lock_files() {
    let compilation = compile(&[source("a.dol", "gen A { has a: i64 has b: Bool<u8> }")]);
    assert_eq!((compilation.schema, compilation.locks), (None, Vec::new()));
    let lock = Some("A.a = 1\nA.b = 1\n".to_owned());
    let text = "gen A { has a: i64 }".to_owned();
    let compilation = compile(&[SourceFile { name: "a.dol".into(), text, lock }]);
    let [damaged] = &compilation.diagnostics[..] else { panic!("{compilation:?}") };
    assert_eq!(damaged.code, "E0107");
    assert!(damaged.message.ends_with("line 2 gives A.b the number 1, which A.a has"));
}

#[test]
fn files_share_their_names() {
    let files = [
        source("one.dol", "gen A { has b: B has c: i64 has e: C }"),
        source("two.dol", "gen B { has a: i64 }\ngen A { has d: Boool }"),
    ];
    let compilation = compile(&files);
    let found: Vec<(usize, &str)> =
        compilation.diagnostics.iter().map(|one| (one.file, one.code)).collect();
    assert_eq!(found, [(0, "W0209"), (1, "E0202"), (1, "W0209")]);
    assert_eq!(compilation.diagnostics[1].help.as_deref(), Some("the first is in one.dol"));
    assert_eq!(compilation.diagnostics[1].position(&files), (2, 5));
}

/// The methods of each type in generated Rust, which has to be Rust.
fn methods_of(text: &str) -> BTreeMap<String, Vec<String>> {
    let compilation = compile(&[source("a.dol", text)]);
    let generated = rust::generate(&compilation.schema.unwrap());
    let file = syn::parse_file(&generated).unwrap_or_else(|error| panic!("{error}: {generated}"));
    let mut methods: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut type_count = 0;
    for item in file.items {
        match item {
            syn::Item::Struct(_) => type_count += 1,
            syn::Item::Impl(item) => {
                let syn::Type::Path(path) = *item.self_ty else { panic!("{generated}") };
                let of_type = methods.entry(path.path.require_ident().unwrap().to_string());
                let names = item.items.into_iter().filter_map(|item| match item {
                    syn::ImplItem::Fn(function) => Some(function.sig.ident.to_string()),
                    _ => None,
                });
                of_type.or_default().extend(names);
            }
            _ => panic!("{generated}"),
        }
    }
    assert_eq!(methods.len(), type_count, "two Gens have one type: {generated}");
    for names in methods.values() {
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "two methods have one name: {names:?}");
    }
    methods
}

#[test]
fn generated_rust_escapes_what_it_must() {
    let methods = methods_of(
        "gen a.task { has type: String has self: i64 has create: Bool has gen: u8 = 3 }",
    );
    let wanted = ["r#type", "set_type", "self_", "create_field", "set_create_field", "r#gen"];
    for name in wanted {
        assert!(methods["ATask"].iter().any(|method| method == name), "{name}: {methods:?}");
    }
}

#[test]
fn generated_rust_has_no_name_twice() {
    let methods = methods_of(
        "gen chat.message { has title: String has set_title: String has key: i64 has key_field: i64
             has self: i64 has self_: i64 has _: i64 has __: i64 has clone: Bool has schema: u8
             @crdt(pn_counter) has add: i64 @crdt(pn_counter) has add_add: i64 }
         gen ChatMessage { } gen Chat_message { } gen Self { } gen self { } gen _ { } gen _1 { }
         gen String { has a: String = \"\\\\\" } gen Größe { has länge: f32 = 0.1 }",
    );
    let types: Vec<&str> = methods.keys().map(String::as_str).collect();
    let expected = [
        "ChatMessage",
        "ChatMessage_",
        "ChatMessage__",
        "Gen",
        "Gen1",
        "Größe",
        "Self_",
        "Self__",
        "String",
    ];
    assert_eq!(types, expected);
}

/// What holds of every compilation, whatever the source.
fn check_invariants(text: &str) {
    let files = [source("random.dol", text)];
    let compilation = compile(&files);
    for diagnostic in &compilation.diagnostics {
        assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic:?} of {text:?}");
        assert!(diagnostic.render(&files, false).contains(diagnostic.code));
        diagnostic.render(&files, true);
    }
    let is_error = |one: &vudo_gen::Diagnostic| one.severity == Severity::Error;
    let has_error = compilation.diagnostics.iter().any(is_error);
    assert_eq!(compilation.is_right(), !has_error, "{text:?}");
    let is_refused = !compilation.refused.is_empty();
    assert_eq!(compilation.schema.is_none(), has_error || is_refused, "{text:?}");
    if let Some(schema) = compilation.schema {
        syn::parse_file(&rust::generate(&schema)).unwrap();
        let lock = Some(compilation.locks[0].1.clone());
        let again = compile(&[SourceFile { lock, ..files[0].clone() }]);
        assert_eq!(again.schema, Some(schema), "the lock file changes nothing: {text:?}");
        assert_eq!(again.locks, compilation.locks);
    }
}

/// A generator of numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

const PIECES: &str = "gen gene has @crdt @crdt(lww) @crdt(pn_counter, @index @personal ( ) { } lww \
    pn_counter : String i64 f32 = - 1 9e99 \"text\" \"open [ ] < > , ; . @ rule fun docs exegesis \
    where and or not in this. == < % .len() .matches( [1] rule constraint const // /* */ # é \u{0} \u{2028} Set extends enum evolves adds changes from to with \
    because migrate module use trait pub A b_1 ' \\ -> tie_break min_value none true name:";

#[test]
fn random_tokens_do_no_harm() {
    let pieces: Vec<&str> = PIECES.split(' ').chain(["\n", "\r\n", "\t"]).collect();
    let mut numbers = Numbers(1);
    for _ in 0..3_000 {
        let separator = if numbers.below(3) == 0 { "" } else { " " };
        let length = numbers.below(60);
        let text: Vec<&str> = (0..length).map(|_| pieces[numbers.below(pieces.len())]).collect();
        check_invariants(&text.join(separator));
    }
}

#[test]
fn random_changes_to_a_right_file_do_no_harm() {
    let mut numbers = Numbers(2);
    let mut good_count = 0;
    for name in ["user.dol", "everything.dol", "existing_forms.dol", "recovery.dol"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
        let valid = std::fs::read(path).unwrap();
        for _ in 0..300 {
            let mut bytes = valid.clone();
            for _ in 0..=numbers.below(4) {
                let at = numbers.below(bytes.len());
                match numbers.below(3) {
                    0 => bytes[at] = numbers.below(256) as u8,
                    1 => drop(bytes.drain(at..(at + numbers.below(30)).min(bytes.len()))),
                    _ => bytes.insert(at, b"{}()[]<>@\"/*\n"[numbers.below(13)]),
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            check_invariants(&text);
            good_count += usize::from(compile(&[source("", &text)]).schema.is_some());
        }
    }
    assert!(good_count > 100, "of 1200 changed files only {good_count} are still right");
}

#[test]
fn deep_nesting_and_long_files_are_refused_not_followed() {
    for (open, close) in [("[", "]"), ("{", "}"), ("<", ">"), ("Set<", ">"), ("(", ")")] {
        let nested = format!("gen A {{ has a: {}i8{} }}", open.repeat(5_000), close.repeat(5_000));
        assert!(compile(&[source("deep.dol", &nested)]).schema.is_none());
    }
    let nested = format!("gen A {{ has a: i64 = {} }}", "[".repeat(5_000));
    let compilation = compile(&[source("deep.dol", &nested)]);
    assert!(compilation.diagnostics.iter().any(|one| one.code == "E0110"), "{compilation:?}");
    let long = "// long\n".repeat(200_000);
    let compilation = compile(&[source("long.dol", &long)]);
    assert_eq!(compilation.diagnostics[0].code, "E0106");
}

/// Sources that take minutes where any part of the compiler takes more than linear time.
#[test]
fn time_is_linear_in_the_source() {
    let fields: String = (0..60_000).map(|index| format!("f{index}:u8\n")).collect();
    let gens: String = (0..50_000).map(|index| format!("gen G{index}{{}}\n")).collect();
    let mut sources = vec![format!("gen A {{\n{fields}}}"), gens];
    let repeated = [
        "\"\" ",
        "{",
        "}",
        "(",
        "gen{",
        "gen A{",
        "docs{",
        "fun a{",
        "@crdt(lww)",
        "@a ",
        "/*/",
        "\n\n;",
        "gen A{a:",
        "a:[",
        "where ",
        "has a: i64 where a\n",
        "evo a@1>2{",
        "\"",
        "x",
        ". ",
        "\\",
    ];
    sources.extend(repeated.map(|piece| piece.repeat(SOURCE_BYTES_MAX / piece.len())));
    let in_gen =
        ["@crdt(lww)", "a b: c\n", "has a: i64\n", "a:(", "fun a\n", "fun a(){\n", "@a a:b "];
    sources.extend(in_gen.map(|piece| format!("gen A{{{}", piece.repeat(900_000 / piece.len()))));
    for text in sources {
        let files = [source("long.dol", &text)];
        let begun = Instant::now();
        let compilation = compile(&files);
        let elapsed = begun.elapsed();
        assert!(elapsed < Duration::from_secs(20), "{elapsed:?} for {}", &text[..40]);
        assert!(compilation.diagnostics.len() <= 2 * DIAGNOSTICS_MAX + 1);
        let rendered = compilation.diagnostics.first().map(|one| one.render(&files, false));
        assert!(rendered.is_none_or(|text| text.len() < 4_000));
    }
}
