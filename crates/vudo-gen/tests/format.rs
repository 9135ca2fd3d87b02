//! The formatter: for every source that parses, formatting keeps the tree, and formatting again
//! changes nothing.

use std::path::Path;

use vudo_gen::{Severity, SourceFile, format, parse};

fn source(text: &str) -> SourceFile {
    SourceFile { name: "a.dol".into(), text: text.into(), lock: None }
}

/// The tree with the text in the place of every span, without white space, so that two layouts of
/// one source give one text.
fn tree(text: &str) -> Option<String> {
    let (syntax, diagnostics) = parse(&source(text));
    if diagnostics.iter().any(|one| one.severity == Severity::Error) {
        return None;
    }
    let printed = format!("{:?}", syntax.items);
    let mut out = String::new();
    let mut rest = printed.as_str();
    while let Some(at) = rest.find("..") {
        let head = rest[..at].trim_end_matches(|one: char| one.is_ascii_digit());
        let start = rest[head.len()..at].parse::<usize>();
        let after = &rest[at + 2..];
        let length = after.find(|one: char| !one.is_ascii_digit()).unwrap_or(after.len());
        match (start, after[..length].parse::<usize>()) {
            (Ok(start), Ok(end)) if text.get(start..end).is_some() => {
                out.push_str(head);
                out.extend(text[start..end].chars().filter(|one| !one.is_whitespace()));
            }
            _ => out.push_str(&rest[..at + 2 + length]),
        }
        rest = &after[length..];
    }
    out.push_str(rest);
    // Names of kept lines carry their text itself, white space and all.
    Some(out.chars().filter(|one| !one.is_whitespace()).collect())
}

/// All of a source but its white space: tokens and comments.
fn substance(text: &str) -> String {
    text.chars().filter(|one| !one.is_whitespace()).collect()
}

fn check(text: &str) -> bool {
    let Some(expected) = tree(text) else {
        assert!(format(&source(text)).is_err());
        return false;
    };
    let once = format(&source(text)).unwrap();
    assert_eq!(tree(&once).as_ref(), Some(&expected), "the tree of {text:?} changes: {once:?}");
    assert_eq!(substance(&once), substance(text));
    let twice = format(&source(&once)).unwrap();
    assert_eq!(twice, once, "formatting {text:?} twice");
    assert!(once.is_empty() || once.ends_with('\n') && !once.ends_with("\n\n"), "{once:?}");
    true
}

fn corpus() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "dol"));
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn the_corpus_keeps_its_trees() {
    let corpus = corpus();
    let good_count = corpus.iter().filter(|text| check(text)).count();
    assert!(good_count >= 3, "{good_count} files of {} parse", corpus.len());
}

/// A generator of numbers that are the same in every run of a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// White space that separates, of any kind that may stand within a member.
    fn space(&mut self) -> &'static str {
        self.pick(&[" ", " ", "  ", "\t", " /* c */ "])
    }

    fn kind(&mut self, depth: usize) -> String {
        let inner = |numbers: &mut Numbers| numbers.kind(depth + 1);
        match self.below(if depth > 2 { 3 } else { 9 }) {
            0..=2 => self.pick(&["String", "i64", "f64", "Bool", "a.b.C"]).into(),
            3 => format!("Set< {}>", inner(self)),
            4 => format!("{{{} }}", inner(self)),
            5 => format!("[ {}]", inner(self)),
            6 => format!("Map<{} ,{}>", inner(self), inner(self)),
            7 => format!("({},{} )", inner(self), inner(self)),
            _ => format!("Option<{}>", inner(self)),
        }
    }

    fn expression(&mut self, depth: usize) -> String {
        let inner = |numbers: &mut Numbers| numbers.expression(depth + 1);
        match self.below(if depth > 3 { 3 } else { 10 }) {
            0 => self.pick(&["this.a", "b", "Colour.Red", "this . c"]).into(),
            1 => self.pick(&["1", "-2.5", "\"x y\"", "true", "none", "- 3"]).into(),
            2 => format!("{}.len( )", self.pick(&["this.a", "b"])),
            3 => format!("not {}", inner(self)),
            4 => format!("!{}", inner(self)),
            5 => format!("-{}", inner(self)),
            6 => format!("({} )", inner(self)),
            7 => format!("{} in[{},{} ]", self.pick(&["a", "b.c"]), inner(self), inner(self)),
            _ => {
                let operator = self.pick(&[
                    "+", "-", "*", "/", "%", "and", "or", "&&", "||", "\n and ", "\n    + ",
                ]);
                format!("({}{} {operator} {})", inner(self), self.space(), inner(self))
            }
        }
    }

    fn member(&mut self) -> String {
        let space = self.space();
        match self.below(8) {
            0..=3 => {
                let annotation = self.pick(&[
                    "",
                    "@crdt( lww )",
                    "@crdt(lww,tie_break=\"content\")\n",
                    "@index @personal ",
                    "@crdt(pn_counter ,\n  min_value = -1 )\n",
                ]);
                let has = self.pick(&["has ", "", "it has "]);
                let default = self.pick(&["", "", "= 1", "=-2", "= [ 1,\"a\" ]", "=Red"]);
                let mut field = format!("{annotation}{has}f{space}:{} {default}", self.kind(0));
                if self.below(3) == 0 {
                    field.push_str(&format!(" where{space}{}", self.expression(0)));
                }
                field + self.pick(&["", ",", " ;", " // said", " /* so */"])
            }
            4 => format!("rule r{space}{{{} }}", self.expression(0)),
            5 => "fun f( a:i64 )->{Bool} { return  a }".into(),
            6 => "docs {  Words, it's\n  so.  }".into(),
            _ => "container   has identity".into(),
        }
    }

    fn item(&mut self) -> String {
        let break_or_space = |numbers: &mut Numbers| numbers.pick(&["\n", "\n\n\n", "\n  // c\n"]);
        match self.below(6) {
            0..=2 => {
                let mut text = format!("gen a.B{}@ 1.0.0-beta.1 {{", self.space());
                for _ in 0..self.below(5) {
                    text.push_str(break_or_space(self));
                    text.push_str(&self.member());
                }
                text + self.pick(&["\n}", "\n\n\n}"])
            }
            3 => self.pick(&["enum C{Red ,Green}", "enum C {\nRed, // first\nGreen\n}"]).into(),
            4 => format!(
                "evolves a.B@1.0>1.1{{adds has c:i64\nchanges c from @crdt(lww) i32 to @crdt( lww) i64 \
                 with {}\nbecause \"so\" }}",
                self.expression(0)
            ),
            _ => {
                self.pick(&["use a.{ b , c}", "module a.b@1.0", "system s @ 1 {  a >= 1\n}"]).into()
            }
        }
    }
}

#[test]
fn generated_sources_keep_their_trees() {
    let mut numbers = Numbers(7);
    let (mut good_count, count) = (0, 3_000);
    for _ in 0..count {
        let mut text = String::new();
        for _ in 0..=numbers.below(4) {
            text.push_str(&numbers.item());
            text.push_str(numbers.pick(&["\n", "\n\n", "\n# c\n"]));
        }
        good_count += usize::from(check(&text));
    }
    println!("{good_count} of {count} generated sources parse");
    assert!(good_count * 10 > count * 9, "{good_count} of {count}");
}

#[test]
fn tokens_in_any_order_keep_their_trees() {
    const PIECES: [&str; 46] = [
        "gen",
        "A",
        "{",
        "}",
        "has",
        "a",
        ":",
        "i64",
        "=",
        "-",
        "1",
        "\"t\"",
        "where",
        ">",
        "<",
        "and",
        "or",
        "not",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        "@crdt(lww)",
        "@index",
        "rule",
        "r",
        "this",
        ".",
        "!",
        "==",
        "in",
        "enum",
        "\n",
        "\n\n",
        "// c\n",
        "/* c */",
        "docs { it's }",
        "x",
        "Set",
        "evolves A @ 1 > 2",
        "adds",
        "use b",
        "fun f() { }",
        "# c\n",
    ];
    let mut numbers = Numbers(11);
    let mut good_count = 0;
    for _ in 0..30_000 {
        let mut text = String::from("gen A {");
        for _ in 0..numbers.below(9) {
            text.push_str(numbers.pick(&["", " ", " ", " "]));
            text.push_str(numbers.pick(&PIECES));
        }
        text.push_str(" }\n");
        good_count += usize::from(check(&text));
    }
    println!("{good_count} of 30000 random sources parse");
    assert!(good_count > 500, "{good_count}");
}
