//! The Gen language: source text to checked schema to WASM, TypeScript and Rust.
//!
//! ```text
//! source --lexer--> tokens --parser--> syntax tree --check--> Schema --wasm--> app.wasm, .js, .d.ts
//!                                                                    --rust--> app.rs
//! ```
//!
//! Nothing here fails on a bad source: it becomes diagnostics, several a file, and no schema.
//!
//! ```
//! let source = vudo_gen::SourceFile {
//!     name: "task.dol".into(),
//!     text: "gen Task { @crdt(lww) has title: String }".into(),
//!     lock: None,
//! };
//! let compilation = vudo_gen::compile(&[source]);
//! assert_eq!(compilation.schema.unwrap().gens[0].fields[0].name, "title");
//! ```

#![forbid(unsafe_code)]

mod check;
mod diagnostic;
mod lexer;
mod lock;
mod parser;
pub mod rust;
mod syntax;
#[cfg(feature = "wasm")]
pub mod wasm;

use vudo_crdt::Schema;

pub use diagnostic::{Diagnostic, Severity};

/// A larger source is refused: no schema is that long.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;

/// A source file.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// As diagnostics name it.
    pub name: String,
    /// The source.
    pub text: String,
    /// The lock file beside it, where there is one.
    pub lock: Option<String>,
}

/// What compiling gives.
#[derive(Clone, Debug)]
pub struct Compilation {
    /// The Gens of all files; `None` where anything is an error.
    pub schema: Option<Schema>,
    /// What there is to say, in the order of the places.
    pub diagnostics: Vec<Diagnostic>,
    /// The name of each source, and the lock file that belongs beside it now.
    pub locks: Vec<(String, String)>,
}

/// Compiles the files to one schema.
pub fn compile(files: &[SourceFile]) -> Compilation {
    let mut diagnostics = Vec::new();
    let mut schema = Schema::default();
    let mut locks = Vec::new();
    for (file, source) in files.iter().enumerate() {
        let before = diagnostics.len();
        let lock = compile_file(source, file, &mut schema, &mut diagnostics);
        diagnostics[before..].sort_by_key(|one| one.span.start);
        locks.extend(lock.map(|lock| (source.name.clone(), lock)));
    }
    let is_error = |one: &Diagnostic| one.severity == Severity::Error;
    let schema = (!diagnostics.iter().any(is_error)).then_some(schema);
    Compilation { schema, diagnostics, locks }
}

fn compile_file(
    source: &SourceFile,
    file: usize,
    schema: &mut Schema,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<String> {
    let whole_file = |code, message: String| Diagnostic {
        code,
        severity: Severity::Error,
        message,
        file,
        span: 0..0,
        label: String::new(),
        help: None,
    };
    if source.text.len() > SOURCE_BYTES_MAX {
        let message = format!("a source has at most {SOURCE_BYTES_MAX} bytes");
        diagnostics.push(whole_file("E0106", message));
        return None;
    }
    let lock = lock::Lock::parse(source.lock.as_deref().unwrap_or_default());
    let mut lock = match lock {
        Ok(lock) => lock,
        Err(line) => {
            let message = format!(
                "line {line} of the lock file beside {} is none of its lines: restore the file \
                 from version control",
                source.name
            );
            diagnostics.push(whole_file("E0107", message));
            return None;
        }
    };
    let syntax = parser::parse(&source.text, file, diagnostics);
    let mut checker = check::Checker { file, diagnostics };
    for gen_syntax in &syntax.gens {
        checker.gen_schema(gen_syntax, &mut lock, schema);
    }
    Some(lock.print())
}
