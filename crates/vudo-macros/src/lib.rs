//! The procedural macros of the `vudo` crate: Gens become typed Rust when the crate is compiled.

use proc_macro::{Literal, TokenStream, TokenTree};
use vudo_gen::SourceFile;

/// Generates the typed API of the Gens in a file: `include_gen!("task.dol")`, relative to the
/// folder of the crate's `Cargo.toml`.
///
/// Errors in the file become compile errors that show the place.
#[proc_macro]
pub fn include_gen(input: TokenStream) -> TokenStream {
    let name = match string_argument(input) {
        Ok(name) => name,
        Err(message) => return compile_error(&message),
    };
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let path = std::path::Path::new(&folder).join(&name);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return compile_error(&format!("cannot read {}: {error}", path.display())),
    };
    let lock = std::fs::read_to_string(path.with_extension("dol.lock")).ok();
    let generated = generate(SourceFile { name, text, lock });
    // The compiler runs the macro again when the file that is included here has changed.
    let path = Literal::string(&path.to_string_lossy());
    let tracked = format!("const _: &[u8] = include_bytes!({path});\n{generated}");
    tracked.parse().unwrap_or_else(|error| compile_error(&format!("generated code: {error}")))
}

/// Generates the typed API of the Gens in a string literal: for examples and tests.
#[proc_macro]
pub fn gen_source(input: TokenStream) -> TokenStream {
    match string_argument(input) {
        Ok(text) => generate(SourceFile { name: "gen_source!".into(), text, lock: None })
            .parse()
            .unwrap_or_else(|error| compile_error(&format!("generated code: {error}"))),
        Err(message) => compile_error(&message),
    }
}

/// The Rust source of the Gens, or of a compile error that shows the diagnostics.
fn generate(source: SourceFile) -> String {
    let sources = [source];
    let compilation = vudo_gen::compile(&sources);
    match &compilation.schema {
        Some(schema) => vudo_gen::rust::generate(schema),
        None => {
            let errors: Vec<String> =
                compilation.errors().map(|error| error.render(&sources, false)).collect();
            compile_error(&errors.join("\n")).to_string()
        }
    }
}

fn compile_error(message: &str) -> TokenStream {
    let message = Literal::string(message);
    // A string literal inside a macro call always parses.
    format!("compile_error!({message});").parse().unwrap_or_default()
}

/// The one string literal that the macros take.
fn string_argument(input: TokenStream) -> Result<String, String> {
    let wanted = "expected one string literal, as in include_gen!(\"task.dol\")";
    let mut tokens = input.into_iter();
    let (Some(TokenTree::Literal(literal)), None) = (tokens.next(), tokens.next()) else {
        return Err(wanted.to_owned());
    };
    let text = literal.to_string();
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inner = raw.get(hashes + 1..raw.len() - hashes - 1);
        return inner.map(str::to_owned).ok_or_else(|| wanted.to_owned());
    }
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.map(unescape).ok_or_else(|| wanted.to_owned())
}

/// Resolves the escapes of a string literal that the compiler has accepted.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}
