//! Every code that the compiler gives is explained, and the examples do what they say.

use std::collections::BTreeSet;
use std::path::Path;

use vudo_gen::explain::{EXPLANATIONS, explanation};
use vudo_gen::{Diagnostic, Severity, SourceFile, compile};

fn diagnostics(text: &str) -> Vec<Diagnostic> {
    let source = SourceFile { name: "a.dol".into(), text: text.into(), lock: None };
    let compilation = compile(&[source]);
    compilation.diagnostics.into_iter().chain(compilation.refused).collect()
}

#[test]
fn a_wrong_example_gets_its_code_and_the_right_one_does_not() {
    for explained in &EXPLANATIONS {
        let Some((wrong, right)) = explained.example else { continue };
        let found: Vec<_> = diagnostics(wrong).into_iter().map(|one| one.code).collect();
        assert!(found.contains(&explained.code), "{}: {found:?}", explained.code);
        for diagnostic in diagnostics(right) {
            assert_ne!(diagnostic.code, explained.code, "{right}");
            let is_error = diagnostic.severity == Severity::Error && diagnostic.code != "E0206";
            assert!(!is_error, "{right}: {diagnostic:?}");
        }
    }
}

/// The codes in the sources of the compiler.
fn codes_in(folder: &Path, codes: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            codes_in(&path, codes);
        } else if !path.ends_with("explain.rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let is_code = |word: &&str| {
                let digits = word.strip_prefix(['E', 'W', 'N']);
                digits.is_some_and(|digits| {
                    digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit())
                })
            };
            codes.extend(text.split('"').filter(is_code).map(str::to_owned));
        }
    }
}

#[test]
fn exactly_the_codes_of_the_compiler_are_explained() {
    let mut codes = BTreeSet::new();
    codes_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut codes);
    let explained: BTreeSet<String> = EXPLANATIONS.iter().map(|one| one.code.to_owned()).collect();
    assert_eq!(codes, explained);
    assert_eq!(explanation("e0301").unwrap().code, "E0301");
    assert_eq!(explanation("E9999"), None);
}
