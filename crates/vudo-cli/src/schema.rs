//! `check`, `build` and `init`: what works on .dol files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use vudo_crdt::Schema;
use vudo_gen::{Compilation, Severity, SourceFile};
use vudo_state::Database;

use crate::{Context, output};

/// The lock file beside a source, which keeps the numbers of its fields.
fn lock_path(source: &Path) -> PathBuf {
    source.with_extension("dol.lock")
}

fn read_sources(files: &[PathBuf]) -> Result<Vec<SourceFile>> {
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let lock = std::fs::read_to_string(lock_path(path)).ok();
        Ok(SourceFile { name: path.display().to_string(), text, lock })
    };
    files.iter().map(read).collect()
}

/// Compiles, prints what the compiler has to say, and fails where there are errors.
fn compile(context: &Context, files: &[PathBuf]) -> Result<(Schema, Compilation)> {
    let sources = read_sources(files)?;
    let compilation = vudo_gen::compile(&sources);
    if context.json {
        print_json(&compilation, &sources);
    } else {
        for diagnostic in &compilation.diagnostics {
            eprint!("{}", diagnostic.render(&sources, output::has_colour()));
        }
    }
    match compilation.schema.clone() {
        Some(schema) => Ok((schema, compilation)),
        None => {
            let is_error = |severity| severity == Severity::Error;
            let diagnostics = &compilation.diagnostics;
            let count = diagnostics.iter().filter(|one| is_error(one.severity)).count();
            bail!("{count} error{} found", if count == 1 { "" } else { "s" })
        }
    }
}

fn print_json(compilation: &Compilation, sources: &[SourceFile]) {
    let diagnostics: Vec<_> = compilation
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let (line, column) = diagnostic.position(sources);
            let severity = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            json!({
                "code": diagnostic.code,
                "severity": severity,
                "message": diagnostic.message,
                "file": sources[diagnostic.file].name,
                "line": line,
                "column": column,
                "span": [diagnostic.span.start, diagnostic.span.end],
                "help": diagnostic.help,
            })
        })
        .collect();
    println!("{}", json!({ "ok": compilation.schema.is_some(), "diagnostics": diagnostics }));
}

pub(crate) fn check(context: &Context, files: &[PathBuf]) -> Result<()> {
    let (schema, _) = compile(context, files)?;
    if !context.json {
        for gen_schema in &schema.gens {
            println!("{}: {} fields", gen_schema.name, gen_schema.fields.len());
        }
    }
    Ok(())
}

pub(crate) fn build(
    context: &Context,
    files: &[PathBuf],
    wasm_path: &Path,
    rust_path: Option<&Path>,
) -> Result<()> {
    let (schema, compilation) = compile(context, files)?;
    let module = vudo_gen::wasm::build(&schema)?;
    write_locks(files, &compilation)?;
    let javascript_path = wasm_path.with_extension("js");
    let typescript_path = wasm_path.with_extension("d.ts");
    write(wasm_path, &module.wasm)?;
    write(&javascript_path, module.javascript.as_bytes())?;
    write(&typescript_path, module.typescript.as_bytes())?;
    if let Some(path) = rust_path {
        write(path, vudo_gen::rust::generate(&schema).as_bytes())?;
    }
    if !context.json {
        let gzipped = vudo_benchmarks::measure::gzipped_bytes(&module.wasm)?;
        println!("{}: {} bytes, {gzipped} gzipped", wasm_path.display(), module.wasm.len());
    }
    Ok(())
}

/// Writes the numbers of new fields down; an unchanged lock file is left alone.
fn write_locks(files: &[PathBuf], compilation: &Compilation) -> Result<()> {
    for path in files {
        let name = path.display().to_string();
        if let Some((_, lock)) = compilation.locks.iter().find(|(source, _)| *source == name) {
            let lock_path = lock_path(path);
            if std::fs::read_to_string(&lock_path).ok().as_ref() != Some(lock) {
                write(&lock_path, lock.as_bytes())?;
            }
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn init(context: &Context, files: &[PathBuf]) -> Result<()> {
    let (schema, compilation) = compile(context, files)?;
    write_locks(files, &compilation)?;
    let database = Database::open(&context.store)?;
    database.define(&schema)?;
    if !context.json {
        let names: Vec<&str> = schema.gens.iter().map(|one| one.name.as_str()).collect();
        println!("{} knows {}", context.store.display(), names.join(", "));
    }
    Ok(())
}
