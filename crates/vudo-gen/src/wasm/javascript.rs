//! The ES module beside the WASM module: `template.js` with the schema's tables put in.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vudo_crdt::{FieldSchema, Schema, Strategy, ValueType};

use super::abi::ERROR_CODES;
use super::names::Names;

const TEMPLATE: &str = include_str!("template.js");
const HEAD: &str =
    "// Made by the Gen compiler. Do not edit: change the Gen file and build again.\n";

/// The code of the first name in the JavaScript's list, which has no gaps.
pub(super) const FIRST_REASON: u32 = 32;

/// How values of some types cross between JavaScript and the module.
struct Kind {
    letter: char,
    /// Three functions: whether a value is of the kind, its argument, and the value of an output.
    /// Text and bytes have no argument: they go to the input.
    source: &'static str,
}

const KINDS: [Kind; 8] = [
    Kind { letter: 's', source: "[$isText, , $decode]" },
    Kind {
        letter: 'x',
        source: "[($value) => $value instanceof Uint8Array, , ($bytes) => $bytes]",
    },
    Kind {
        letter: 'b',
        source: "[($value) => typeof $value == \"boolean\", ($value) => +$value, ($bytes) => $bytes[0] == 1]",
    },
    Kind {
        letter: 'n',
        source: "[Number.isSafeInteger, BigInt, ($bytes) => Number($view($bytes).getBigInt64(0, true))]",
    },
    Kind {
        letter: 'i',
        source: "[($value) => typeof $value == \"bigint\" && BigInt.asIntN(64, $value) == $value, BigInt, ($bytes) => $view($bytes).getBigInt64(0, true)]",
    },
    Kind {
        letter: 'u',
        source: "[($value) => typeof $value == \"bigint\" && BigInt.asUintN(64, $value) == $value, BigInt, ($bytes) => $view($bytes).getBigUint64(0, true)]",
    },
    Kind {
        letter: 'f',
        source: "[($value) => typeof $value == \"number\", Number, ($bytes) => $view($bytes).getFloat64(0, true)]",
    },
    Kind {
        letter: 'g',
        source: "[($value) => typeof $value == \"number\", Math.fround, ($bytes) => $view($bytes).getFloat64(0, true)]",
    },
];

pub(super) fn javascript(schema: &Schema, names: &Names, wasm_file_name: &str) -> String {
    let mut used = String::new();
    let mut table = String::from("[\n");
    for (gen_schema, gen_names) in schema.gens.iter().zip(&names.gens) {
        let _ = writeln!(table, "[{}, {}, [", quote(&gen_names.property), quote(&gen_schema.name));
        for (field, field_names) in gen_schema.fields.iter().zip(&gen_names.fields) {
            let letters = kind_letters(field);
            used.push_str(&letters);
            let property = quote(&field_names.property);
            let _ = write!(table, "[{property}, \"{letters}\", {}", quote(&field.name));
            if let Some(adder) = &field_names.adder {
                let _ = write!(table, ", {}", quote(adder));
            }
            table.push_str("],\n");
        }
        table.push_str("]],\n");
    }
    table.push(']');
    let mut kinds = String::new();
    for kind in KINDS.iter().filter(|kind| used.contains(kind.letter)) {
        let _ = writeln!(kinds, "{}: {},", kind.letter, kind.source);
    }
    let reasons: Vec<&str> = ERROR_CODES
        .iter()
        .filter(|(code, _)| *code >= FIRST_REASON)
        .map(|(_, name)| if is_reason(name) { *name } else { "" })
        .collect();
    let filled = shorten(&template_lines().replace("__KINDS__", &kinds))
        .replace("__REASONS__", reasons.join(" ").trim_end())
        .replace("__WASM__", &quote(&relative_address(wasm_file_name)))
        .replace("__SCHEMA__", &table);
    format!("{HEAD}{filled}")
}

/// The address of a file in the same folder: in a URL, some characters of its name mean something
/// else.
fn relative_address(file_name: &str) -> String {
    let mut address = String::from("./");
    for byte in file_name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            address.push(byte.into());
        } else {
            let _ = write!(address, "%{byte:02X}");
        }
    }
    address
}

/// Whether `VudoError` can have a code: the others come of calls that the JavaScript never makes, or
/// say what is malformed, which is one reason to an application.
pub(super) fn is_reason(name: &str) -> bool {
    const NEVER: [&str; 6] = [
        "not_this_operation",
        "not_set",
        "not_open",
        "already_open",
        "no_transaction",
        "input_length",
    ];
    !NEVER.contains(&name)
}

/// The template without what only its readers need: every page would load it.
fn template_lines() -> String {
    let mut lines = String::new();
    for line in TEMPLATE.lines().map(str::trim_start) {
        if !line.is_empty() && !line.starts_with("//") {
            squeeze(line, &mut lines);
        }
    }
    lines
}

/// Appends a line without the spaces that separate no words. Texts stay as they are.
fn squeeze(line: &str, out: &mut String) {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '$';
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if matches!(character, '"' | '`') && quote.is_none_or(|open| open == character) {
            quote = if quote.is_none() { Some(character) } else { None };
        }
        let follows_word = out.ends_with(is_word);
        let separates = follows_word && characters.peek().is_some_and(|next| is_word(*next));
        if character != ' ' || quote.is_some() || separates {
            out.push(character);
        }
    }
    out.push('\n');
}

/// Gives each name that begins with a dollar sign a letter. The template has no others of one
/// letter, no text with such a name in it, and fewer than 52 of them.
fn shorten(source: &str) -> String {
    let mut letters = ('a'..='z').chain('A'..='Z');
    let mut short_names: BTreeMap<&str, char> = BTreeMap::new();
    let mut parts = source.split('$');
    let mut shortened = String::from(parts.next().unwrap_or_default());
    for part in parts {
        let is_end = |character: char| !character.is_ascii_alphanumeric();
        let (name, rest) = part.split_at(part.find(is_end).unwrap_or(part.len()));
        if name.is_empty() {
            shortened.push('$');
        } else {
            let letter = short_names.entry(name).or_insert_with(|| letters.next().unwrap_or('_'));
            shortened.push(*letter);
        }
        shortened.push_str(rest);
    }
    shortened
}

/// The kind of what is read and, where it is another one, of what is written.
fn kind_letters(field: &FieldSchema) -> String {
    let read = match &field.value_type {
        ValueType::String => 's',
        ValueType::Bool => 'b',
        ValueType::I64 => 'i',
        ValueType::U64 => 'u',
        ValueType::F64 => 'f',
        ValueType::F32 => 'g',
        bytes if bytes.is_bytes() => 'x',
        _ => 'n',
    };
    // Amounts have a sign whatever the counter's type, and are not rounded before they are added.
    let written = match (field.strategy, read) {
        (Strategy::PnCounter, 'u') => "i",
        (Strategy::PnCounterFloat, 'g') => "f",
        _ => "",
    };
    format!("{read}{written}")
}

/// A string literal. Names are identifiers with dots, but a schema can come from anywhere.
fn quote(text: &str) -> String {
    let mut literal = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => literal.extend(['\\', character]),
            control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}') => {
                let _ = write!(literal, "\\u{:04x}", control as u32);
            }
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal
}
