//! The corpus: each `.dol` beside the diagnostics and the schema that it gives.
//!
//! `VUDO_BLESS=1 cargo test -p vudo-gen --test check` writes the expected output anew; read the
//! difference before committing it.

use std::fmt::Write as _;
use std::path::Path;

use vudo_gen::{Severity, SourceFile, compile, rust};

fn source(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.into(), text: text.into(), lock: None }
}

fn describe(name: &str, text: &str) -> String {
    let files = [source(name, text)];
    let compilation = compile(&files);
    let mut out = String::new();
    for diagnostic in &compilation.diagnostics {
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
    assert!(found.contains("did you mean 'Bool'?"), "{found}");
}

#[test]
fn errors_of_syntax_do_not_hide_each_other() {
    let found = check("syntax_errors.dol");
    assert_eq!(found.matches(" Error\n").count(), 7, "{found}");
}

#[test]
fn every_check_reports() {
    let found = check("checks.dol");
    for code in ["E0202", "E0203", "E0206", "E0207", "E0302", "E0303", "E0304", "E0305", "W0307"] {
        assert!(found.contains(code), "{code} is missing in {found}");
    }
}

#[test]
fn numbers_come_from_the_lock_file() {
    let text = "gen Task { has new: String has title: String }";
    let lock = Some("Task.title = 1\nTask.gone = 2\n".to_owned());
    let compilation = compile(&[SourceFile { name: "task.dol".into(), text: text.into(), lock }]);
    let schema = compilation.schema.unwrap();
    let numbers: Vec<u32> = schema.gens[0].fields.iter().map(|field| field.number).collect();
    assert_eq!(numbers, [3, 1]);
    assert!(compilation.locks[0].1.contains("Task.gone = 2\nTask.new = 3\nTask.title = 1\n"));
}

#[test]
fn generated_rust_escapes_what_it_must() {
    let text = "gen a.task { has type: String has self: i64 has create: Bool has gen: u8 = 3 }";
    let schema = compile(&[source("a.dol", text)]).schema.unwrap();
    let generated = rust::generate(&schema);
    for wanted in ["pub struct ATask", "fn r#type(", "fn self_(", "fn create_field(", "fn r#gen("] {
        assert!(generated.contains(wanted), "{wanted} is missing in {generated}");
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

#[test]
fn no_input_panics() {
    let words = [
        "gen",
        "gene",
        "has",
        "@crdt",
        "(",
        ")",
        "{",
        "}",
        "lww",
        "pn_counter",
        ":",
        "String",
        "i64",
        "=",
        "-",
        "1",
        "9e99",
        "\"text\"",
        "\"open",
        "[",
        "]",
        "<",
        ">",
        ",",
        ";",
        ".",
        "@",
        "rule",
        "fun",
        "docs",
        "where",
        "\n",
        "//",
        "/*",
        "*/",
        "#",
        "é",
        "\u{0}",
        "Set",
        "extends",
        "enum",
    ];
    let mut numbers = Numbers(1);
    for _ in 0..5_000 {
        let length = numbers.below(60);
        let text: Vec<&str> = (0..length).map(|_| words[numbers.below(words.len())]).collect();
        describe("random.dol", &text.join(if numbers.below(2) == 0 { " " } else { "" }));
    }
    let valid =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/user.dol")).unwrap();
    for _ in 0..2_000 {
        let mut bytes = valid.clone();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len());
            bytes[at] = numbers.below(256) as u8;
        }
        describe("mutated.dol", &String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn deep_nesting_and_long_files_are_refused_not_followed() {
    for (open, close) in [("[", "]"), ("{", "}"), ("<", ">")] {
        let nested = format!("gen A {{ has a: Set{}{} }}", open.repeat(5_000), close.repeat(5_000));
        assert!(compile(&[source("deep.dol", &nested)]).schema.is_none());
    }
    let nested = format!("gen A {{ has a: i64 = {} }}", "[".repeat(5_000));
    assert!(compile(&[source("deep.dol", &nested)]).schema.is_none());
    let long = "// long\n".repeat(200_000);
    let compilation = compile(&[source("long.dol", &long)]);
    assert_eq!(compilation.diagnostics[0].severity, Severity::Error);
}
