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
//! assert_eq!(&*compilation.schema.unwrap().gens[0].fields[0].name, "title");
//! ```

#![forbid(unsafe_code)]

mod against;
mod check;
mod describe;
mod diagnostic;
pub mod explain;
mod format;
mod lexer;
pub mod lock;
mod lower;
mod model;
mod parser;
pub mod rust;
pub mod syntax;
#[cfg(feature = "wasm")]
pub mod wasm;

use std::ops::Range;

use vudo_crdt::Schema;

use check::{Checker, Declarations};
use diagnostic::Diagnostics;
use lock::Lock;
use model::Model;
use syntax::FileSyntax;

pub use against::compile_against;
pub use check::rules::Constraint;
pub use describe::describe;
pub use diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Severity};
pub use format::format;

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
    /// The Gens of all files; `None` where anything is an error or refused.
    pub schema: Option<Schema>,
    /// What there is to say, in the order of the places.
    pub diagnostics: Vec<Diagnostic>,
    /// What is right and yet not in this version, as errors. Checking passes with it; whoever needs
    /// the schema shows these too.
    pub refused: Vec<Diagnostic>,
    /// What holds each rule, `where` and constraint.
    pub constraints: Vec<Constraint>,
    /// Each Gen and the number of its fields.
    pub summary: Vec<(String, usize)>,
    /// The name of each source, and the lock file that belongs beside it now. Empty where anything
    /// is an error: no number is given because of a source that is in error.
    pub locks: Vec<(String, String)>,
}

impl Compilation {
    /// Whether the sources are right, also where this version cannot store all that they declare.
    pub fn is_right(&self) -> bool {
        !self.diagnostics.iter().any(|one| one.severity == Severity::Error)
    }

    /// Every diagnostic that stands between the sources and a schema.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        let errors = self.diagnostics.iter().filter(|one| one.severity == Severity::Error);
        errors.chain(&self.refused)
    }
}

/// Compiles the files to one schema.
pub fn compile(files: &[SourceFile]) -> Compilation {
    analyse(files).into_compilation()
}

/// Files that are checked, with all that was found.
struct Analysis {
    sources: Vec<Parsed>,
    /// The names of the sources.
    names: Vec<String>,
    /// What is right and not in this version, by source.
    refused: Vec<Diagnostics>,
    model: Model,
    constraints: Vec<Constraint>,
}

fn analyse(files: &[SourceFile]) -> Analysis {
    let mut sources: Vec<Parsed> =
        files.iter().enumerate().map(|(file, source)| Parsed::new(source, file)).collect();
    let mut refused: Vec<Diagnostics> = (0..files.len()).map(Diagnostics::new).collect();
    let (trees, others): (Vec<_>, Vec<_>) =
        sources.iter_mut().map(|one| (&one.syntax, (&mut one.lock, &mut one.diagnostics))).unzip();
    let mut declarations = Declarations::default();
    for (file, syntax) in trees.iter().enumerate() {
        declarations.add(syntax, file);
    }
    let file_names: Vec<&str> = files.iter().map(|source| source.name.as_str()).collect();
    let mut checker = Checker::new(&declarations, &file_names);
    for (index, (syntax, (lock, diagnostics))) in trees.into_iter().zip(others).enumerate() {
        let refused = &mut refused[index];
        checker.file(index, syntax, &files[index].text, lock, diagnostics, refused);
    }
    let (model, constraints) = checker.into_model();
    let names = files.iter().map(|source| source.name.clone()).collect();
    Analysis { sources, names, refused, model, constraints }
}

impl Analysis {
    fn into_compilation(self) -> Compilation {
        let Analysis { sources, names, mut refused, model, constraints } = self;
        let schema = lower::lower(&model, &mut refused);
        let is_good = !sources.iter().any(|one| one.diagnostics.has_error());
        let is_refused = refused.iter().any(Diagnostics::has_error);
        let mut locks = Vec::new();
        if is_good {
            let pairs = names.into_iter().zip(&sources);
            locks.extend(pairs.map(|(name, source)| (name, source.lock.print())));
        }
        let summary = model.gens.iter().map(|one| (one.name.clone(), one.fields.len())).collect();
        let diagnostics = sources.into_iter().flat_map(|one| one.diagnostics.into_sorted());
        Compilation {
            schema: (is_good && !is_refused).then_some(schema),
            diagnostics: diagnostics.collect(),
            refused: refused.into_iter().flat_map(Diagnostics::into_sorted).collect(),
            constraints,
            summary,
            locks,
        }
    }
}

/// The tree of one source, and the errors of its syntax: for formatters and editors.
pub fn parse(source: &SourceFile) -> (FileSyntax, Vec<Diagnostic>) {
    let parsed = Parsed::new(source, 0);
    (parsed.syntax, parsed.diagnostics.into_sorted())
}

/// A source that is parsed and not yet checked.
struct Parsed {
    syntax: FileSyntax,
    lock: Lock,
    diagnostics: Diagnostics,
}

impl Parsed {
    fn new(source: &SourceFile, file: usize) -> Parsed {
        const WHOLE_FILE: Range<usize> = 0..0;
        let mut diagnostics = Diagnostics::new(file);
        if source.text.len() > SOURCE_BYTES_MAX {
            let message = format!("a source has at most {SOURCE_BYTES_MAX} bytes");
            diagnostics.push(Diagnostic::error("E0106", &WHOLE_FILE, message));
            return Parsed { syntax: FileSyntax::default(), lock: Lock::default(), diagnostics };
        }
        let lock = Lock::parse(source.lock.as_deref().unwrap_or_default());
        let lock = lock.unwrap_or_else(|error| {
            let message = format!("the lock file beside {} is damaged: {error}", source.name);
            let help = "restore it from version control; where two branches gave one number, keep \
                        the line of one: the other field gets a new number";
            diagnostics.push(Diagnostic::error("E0107", &WHOLE_FILE, message).help(help));
            Lock::default()
        });
        let syntax = parser::parse(&source.text, &mut diagnostics);
        Parsed { syntax, lock, diagnostics }
    }
}
