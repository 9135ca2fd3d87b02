//! What holds of every compilation, whatever the source.

use vudo_gen::{Severity, SourceFile, compile, compile_against, format, rust, wasm};

fn source(text: &str, lock: Option<String>) -> SourceFile {
    SourceFile { name: "random.dol".into(), text: text.into(), lock }
}

pub fn check(text: &str) {
    let files = [source(text, None)];
    let compilation = compile(&files);
    for diagnostic in &compilation.diagnostics {
        assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic:?}");
        assert!(diagnostic.render(&files, false).contains(diagnostic.code));
    }
    let has_error = compilation.diagnostics.iter().any(|one| one.severity == Severity::Error);
    assert_eq!(compilation.is_right(), !has_error);
    // What parses can be laid out, and a second time nothing changes.
    if let Ok(once) = format(&files[0]) {
        assert_eq!(format(&source(&once, None)).as_deref(), Ok(once.as_str()));
    }
    let Some(schema) = compilation.schema else { return };
    // The lock file gives the same numbers again, and a schema follows itself.
    let again = source(text, Some(compilation.locks[0].1.clone()));
    let evolved = compile_against(std::slice::from_ref(&again), std::slice::from_ref(&again));
    assert_eq!(evolved.schema.as_ref(), Some(&schema));
    assert!(!rust::generate(&schema).is_empty() || schema == Default::default());
    let module = wasm::build(&schema).expect("what the checker passes can be built");
    assert_eq!(wasm::inspect(&module.wasm), Ok(schema));
}
