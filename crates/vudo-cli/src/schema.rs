//! `check`, `fmt`, `build`, `inspect`, `describe`, `explain` and `init`: what works on .dol files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use vudo_crdt::Schema;
use vudo_gen::explain::{EXPLANATIONS, Explanation, explanation};
use vudo_gen::wasm::{Accessors, BuildOptions};
use vudo_gen::{Compilation, Diagnostic, Severity, SourceFile};
use vudo_state::Database;

use crate::{Context, data, output};

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

/// Compiles, prints what the compiler has to say, and fails where no schema comes of it.
fn compile(context: &Context, files: &[PathBuf]) -> Result<(Schema, Compilation)> {
    let sources = read_sources(files)?;
    let compilation = vudo_gen::compile(&sources);
    let diagnostics: Vec<&Diagnostic> =
        compilation.diagnostics.iter().chain(&compilation.refused).collect();
    print(context, &diagnostics, &compilation, &sources);
    match compilation.schema.clone() {
        Some(schema) => Ok((schema, compilation)),
        None => fail(compilation.errors().count()),
    }
}

fn fail<T>(error_count: usize) -> Result<T> {
    let plural = if error_count == 1 { "" } else { "s" };
    bail!("{error_count} error{plural} found; `vudo explain CODE` says more about a code")
}

fn print(
    context: &Context,
    diagnostics: &[&Diagnostic],
    compilation: &Compilation,
    sources: &[SourceFile],
) {
    if context.json {
        let diagnostics: Vec<_> = diagnostics.iter().map(|one| json_of(one, sources)).collect();
        let is_right = compilation.is_right();
        let constraints: Vec<_> = compilation
            .constraints
            .iter()
            .map(|one| json!({ "name": one.name, "class": one.class, "meaning": one.meaning }))
            .collect();
        let printed =
            json!({ "ok": is_right, "diagnostics": diagnostics, "constraints": constraints });
        println!("{printed}");
    } else {
        for diagnostic in diagnostics {
            eprint!("{}", diagnostic.render(sources, output::has_colour()));
        }
    }
}

fn json_of(diagnostic: &Diagnostic, sources: &[SourceFile]) -> serde_json::Value {
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
        "label": diagnostic.label,
        "help": diagnostic.help,
    })
}

pub(crate) fn check(context: &Context, files: &[PathBuf], against: &[PathBuf]) -> Result<()> {
    let sources = read_sources(files)?;
    let compilation = match against {
        [] => vudo_gen::compile(&sources),
        old => vudo_gen::compile_against(&read_sources(old)?, &sources),
    };
    let diagnostics: Vec<&Diagnostic> = compilation.diagnostics.iter().collect();
    print(context, &diagnostics, &compilation, &sources);
    if !compilation.is_right() {
        return fail(compilation.diagnostics.iter().filter(|one| is_error(one)).count());
    }
    if !context.json {
        for (gen_name, field_count) in &compilation.summary {
            println!("{gen_name}: {field_count} fields");
        }
        for constraint in &compilation.constraints {
            let class =
                constraint.class.map_or("no class".to_owned(), |class| format!("class {class}"));
            println!("{}: {class}, {}", constraint.name, constraint.meaning);
        }
    }
    Ok(())
}

fn is_error(diagnostic: &Diagnostic) -> bool {
    diagnostic.severity == Severity::Error
}

/// Lays the files out anew, or with `only_check` says which of them have another layout.
pub(crate) fn format(context: &Context, files: &[PathBuf], only_check: bool) -> Result<()> {
    let mut changed = Vec::new();
    for (path, source) in files.iter().zip(read_sources(files)?) {
        match vudo_gen::format(&source) {
            Ok(formatted) if formatted == source.text => {}
            Ok(formatted) => {
                changed.push(source.name);
                if !only_check {
                    write(path, formatted.as_bytes())?;
                }
            }
            Err(diagnostics) => {
                let sources = [source];
                let mut errors = Vec::new();
                for mut diagnostic in diagnostics {
                    diagnostic.file = 0;
                    errors.push(diagnostic);
                }
                for diagnostic in errors.iter().filter(|one| is_error(one)) {
                    eprint!("{}", diagnostic.render(&sources, output::has_colour()));
                }
                bail!("{} cannot be laid out before its syntax is right", sources[0].name)
            }
        }
    }
    if context.json {
        println!("{}", json!({ "changed": changed }));
    } else {
        changed.iter().for_each(|name| println!("{name}"));
    }
    if only_check && !changed.is_empty() {
        bail!("of {} files {} have another layout", files.len(), changed.len());
    }
    Ok(())
}

/// Prints the schema that a module carries.
pub(crate) fn inspect(context: &Context, module: &Path) -> Result<()> {
    let bytes =
        std::fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let schema = vudo_gen::wasm::inspect(&bytes)
        .with_context(|| format!("cannot inspect {}", module.display()))?;
    if context.json {
        let gens: Vec<_> = schema
            .gens
            .iter()
            .map(|gen_schema| {
                let fields: Vec<_> = gen_schema
                    .fields
                    .iter()
                    .map(|field| {
                        json!({
                            "name": field.name,
                            "number": field.number,
                            "strategy": field.strategy.name(),
                            "type": field.value_type.to_string(),
                        })
                    })
                    .collect();
                let rules: Vec<&str> =
                    gen_schema.rules.iter().map(|rule| rule.name.as_str()).collect();
                json!({ "name": gen_schema.name, "fields": fields, "rules": rules })
            })
            .collect();
        println!("{}", json!({ "gens": gens }));
        return Ok(());
    }
    for gen_schema in &schema.gens {
        println!("{}", gen_schema.name);
        for field in &gen_schema.fields {
            let (strategy, kind) = (field.strategy.name(), &field.value_type);
            println!("    {}: {kind}, {strategy}, field number {}", field.name, field.number);
        }
        for rule in &gen_schema.rules {
            println!("    rule {}", rule.name);
        }
    }
    Ok(())
}

pub(crate) fn build(
    context: &Context,
    files: &[PathBuf],
    wasm_path: &Path,
    rust_path: Option<&Path>,
    accessors: Accessors,
) -> Result<()> {
    let (schema, compilation) = compile(context, files)?;
    let file_name = wasm_path.file_name().context("name the module's file, as in app.wasm")?;
    let wasm_file_name = &file_name.to_string_lossy();
    let options = BuildOptions { wasm_file_name, accessors };
    let module = vudo_gen::wasm::build_with(&schema, &options)?;
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

pub(crate) fn describe(context: &Context, field: &str, files: &[PathBuf]) -> Result<()> {
    let schema = match files {
        [] => (*data::open(context)?.schema()).clone(),
        files => compile(context, files)?.0,
    };
    let (gen_name, field_name) = field
        .rsplit_once('.')
        .context("name a field as in Task.title: the Gen, a dot, the field")?;
    let gen_schema = schema.gen_named(gen_name).with_context(|| {
        let known: Vec<&str> = schema.gens.iter().map(|one| &*one.name).collect();
        format!("there is no Gen {gen_name}; there is {}", known.join(", "))
    })?;
    let found = gen_schema.field(field_name).with_context(|| {
        let known: Vec<&str> = gen_schema.fields.iter().map(|one| &*one.name).collect();
        format!("{gen_name} has no field {field_name}; it has {}", known.join(", "))
    })?;
    let description = vudo_gen::describe(gen_schema, found);
    match context.json {
        true => println!("{}", json!({ "field": field, "description": description })),
        false => print!("{description}"),
    }
    Ok(())
}

pub(crate) fn explain(context: &Context, code: Option<&str>) -> Result<()> {
    let Some(code) = code else {
        let titles = || EXPLANATIONS.iter().map(|one| (one.code, one.title));
        match context.json {
            true => println!("{}", json!(titles().collect::<BTreeMap<_, _>>())),
            false => titles().for_each(|(code, title)| println!("{code}  {title}")),
        }
        return Ok(());
    };
    let found = explanation(code)
        .with_context(|| format!("there is no code {code}; `vudo explain` lists all"))?;
    let Explanation { code, title, text, example } = *found;
    if context.json {
        let (wrong, right) = example.unzip();
        let explained =
            json!({ "code": code, "title": title, "text": text, "wrong": wrong, "right": right });
        println!("{explained}");
        return Ok(());
    }
    println!("{code}: {title}\n\n{}", output::wrapped(text));
    if let Some((wrong, right)) = example {
        let indented = |source: &str| format!("    {}", source.replace('\n', "\n    "));
        println!("\nWrong:\n\n{}\n\nRight:\n\n{}", indented(wrong), indented(right));
    }
    Ok(())
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
