//! The ES module beside the WASM module: `template.js` with the schema's tables put in.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vudo_crdt::{FieldSchema, Schema, Strategy, ValueType};

use super::abi::{ERROR_CODES, has_founder, is_plain};
use super::names::{FieldNames, Names};

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
    let mut codec = Codec::new(schema);
    let mut table = String::from("[\n");
    for (gen_schema, gen_names) in schema.gens.iter().zip(&names.gens) {
        let _ = writeln!(table, "[{}, {}, [", quote(&gen_names.property), quote(&gen_schema.name));
        for (field, field_names) in gen_schema.fields.iter().zip(&gen_names.fields) {
            table.push_str(&field_row(field, field_names, &mut codec));
            table.push_str(",\n");
        }
        table.push_str("]],\n");
    }
    table.push(']');
    let mut kinds = String::new();
    for kind in KINDS.iter().filter(|kind| codec.letters.contains(kind.letter)) {
        let _ = writeln!(kinds, "{}: {},", kind.letter, kind.source);
    }
    let reasons: Vec<&str> = ERROR_CODES
        .iter()
        .filter(|(code, _)| *code >= FIRST_REASON)
        .map(|(_, name)| if is_reason(name) { *name } else { "" })
        .collect();
    let lines = template_lines(&codec.sections(schema)).replace("__KINDS__", &kinds);
    let filled = shorten(&lines)
        .replace("__REASONS__", reasons.join(" ").trim_end())
        .replace("__WASM__", &quote(&relative_address(wasm_file_name)))
        .replace("__RECORDS__", &codec.records())
        .replace("__SCHEMA__", &table);
    format!("{HEAD}{filled}")
}

/// What the JavaScript knows of a field: its property, its kind, its name, the method that adds, and
/// for what has parts the type of its values and more.
fn field_row(field: &FieldSchema, names: &FieldNames, codec: &mut Codec<'_>) -> String {
    let property = quote(&names.property);
    let name = quote(&field.name);
    let adder = names.adder.as_deref().map_or("0".to_owned(), quote);
    match (field.strategy, &field.value_type) {
        (Strategy::OrSet, _) => {
            let element = field.element_type().map_or_else(String::new, |one| codec.describe(one));
            format!("[{property}, \"T\", {name}, 0, {element}]")
        }
        (Strategy::Map, ValueType::Map(key, value)) => {
            let (key, mut held) = (codec.describe(key), codec.describe(value));
            let inner = field.value_strategy;
            if inner == Strategy::MvRegister {
                held = format!("[\"l\", {held}]");
            }
            let amount = match inner {
                Strategy::PnCounterFloat => "\"f\"",
                counter if counter.is_counter() => match **value {
                    ValueType::I64 | ValueType::U64 => "\"i\"",
                    _ => "\"n\"",
                },
                _ => "0",
            };
            codec.letters.push_str(amount);
            let one = codec.describe(value);
            format!("[{property}, \"M\", {name}, 0, {key}, [{held}, {one}, {amount}]]")
        }
        (Strategy::MvRegister, value_type) => {
            let held = codec.describe(value_type);
            format!("[{property}, \"V\", {name}, 0, {held}]")
        }
        (_, value_type) if !is_plain(value_type) => {
            let held = codec.describe(value_type);
            format!("[{property}, \"R\", {name}, 0, {held}]")
        }
        _ => {
            let letters = kind_letters(field);
            codec.letters.push_str(&letters);
            let mut row = format!("[{property}, \"{letters}\", {name}");
            if names.adder.is_some() {
                let _ = write!(row, ", {adder}");
            }
            if let Some([rights, give]) = &names.rights {
                let _ = write!(row, ", 0, [{}, {}]", quote(rights), quote(give));
            }
            row + "]"
        }
    }
}

/// The types with parts that a schema uses, in the JavaScript's words.
struct Codec<'a> {
    schema: &'a Schema,
    /// The kinds of values that cross.
    letters: String,
    has_values: bool,
    /// Gens that are values, by the order in which they are first met.
    records: Vec<&'a str>,
    record_fields: Vec<String>,
}

impl<'a> Codec<'a> {
    fn new(schema: &'a Schema) -> Codec<'a> {
        let (records, record_fields) = (Vec::new(), Vec::new());
        Codec { schema, letters: String::new(), has_values: false, records, record_fields }
    }

    /// The sections of the template that the schema needs.
    fn sections(&self, schema: &Schema) -> Vec<&'static str> {
        let mut sections = Vec::new();
        if self.has_values {
            sections.push("values");
        }
        if has_founder(schema) {
            sections.push("rights");
        }
        sections
    }

    /// The fields of the Gens that are values.
    fn records(&self) -> String {
        format!("[{}]", self.record_fields.join(", "))
    }

    fn describe(&mut self, value_type: &ValueType) -> String {
        self.has_values = true;
        match value_type {
            ValueType::Option(inner) => format!("[\"o\", {}]", self.describe(inner)),
            ValueType::List(inner) => format!("[\"l\", {}]", self.describe(inner)),
            ValueType::Set(inner) => format!("[\"S\", {}]", self.describe(inner)),
            ValueType::Map(key, value) => {
                format!("[\"m\", {}, {}]", self.describe(key), self.describe(value))
            }
            ValueType::Tuple(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.describe(part)).collect();
                format!("[\"t\", [{}]]", parts.join(", "))
            }
            ValueType::Enum(name) => {
                let found = self.schema.enum_named(name);
                let variants = found.map(|found| &found.variants[..]).unwrap_or_default();
                let pairs =
                    variants.iter().map(|(name, number)| format!("[{}, {number}]", quote(name)));
                format!("[\"e\", [{}]]", pairs.collect::<Vec<_>>().join(", "))
            }
            ValueType::Record(name) => format!("[\"r\", {}]", self.record(name)),
            ValueType::Ref(_) => self.describe(&ValueType::String),
            ValueType::Opaque(_) => "[\"k\"]".to_owned(),
            scalar => {
                let letter = letter_of(scalar);
                self.letters.push(letter);
                match (letter, scalar.integer_range()) {
                    ('n', Some((least, greatest))) => format!("[\"n\", {least}, {greatest}]"),
                    _ => format!("[\"{letter}\"]"),
                }
            }
        }
    }

    /// The place of a Gen among those that are values. A Gen may hold itself.
    fn record(&mut self, name: &str) -> usize {
        if let Some(place) = self.records.iter().position(|known| *known == name) {
            return place;
        }
        let schema = self.schema;
        let Some(found) = schema.gen_named(name) else { return 0 };
        let place = self.records.len();
        self.records.push(&found.name);
        self.record_fields.push(String::new());
        let mut fields = Vec::new();
        for field in &found.fields {
            let held = self.describe(&field.value_type);
            fields.push(format!("[{}, {}, {held}]", quote(&field.name), field.number));
        }
        self.record_fields[place] = format!("[{}]", fields.join(", "));
        place
    }
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

/// The template without what only its readers need, and without the sections between `//<name` and
/// `//>` that are not asked for: every page would load it.
fn template_lines(sections: &[&str]) -> String {
    let mut lines = String::new();
    let mut is_left_out = false;
    for line in TEMPLATE.lines().map(str::trim_start) {
        if let Some(section) = line.strip_prefix("//<") {
            is_left_out = !sections.contains(&section);
        } else if line == "//>" {
            is_left_out = false;
        }
        if is_left_out {
            continue;
        }
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

/// Gives each name that begins with a dollar sign a letter, and those after the 52nd a letter and a
/// digit. The template has no others of such a form, and no text with such a name in it.
fn shorten(source: &str) -> String {
    let letters = || ('a'..='z').chain('A'..='Z');
    let longer = ('0'..='9').flat_map(|digit| letters().map(move |one| format!("{one}{digit}")));
    let mut free = letters().map(String::from).chain(longer);
    let mut short_names: BTreeMap<&str, String> = BTreeMap::new();
    let mut parts = source.split('$');
    let mut shortened = String::from(parts.next().unwrap_or_default());
    for part in parts {
        let is_end = |character: char| !character.is_ascii_alphanumeric();
        let (name, rest) = part.split_at(part.find(is_end).unwrap_or(part.len()));
        if name.is_empty() {
            shortened.push('$');
        } else {
            let short = short_names.entry(name).or_insert_with(|| free.next().unwrap_or_default());
            shortened.push_str(short);
        }
        shortened.push_str(rest);
    }
    shortened
}

/// The kind of a type without parts.
fn letter_of(value_type: &ValueType) -> char {
    match value_type {
        ValueType::String => 's',
        ValueType::Bool => 'b',
        ValueType::I64 => 'i',
        ValueType::U64 => 'u',
        ValueType::F64 => 'f',
        ValueType::F32 => 'g',
        bytes if bytes.is_bytes() => 'x',
        _ => 'n',
    }
}

/// The kind of what is read and, where it is another one, of what is written.
fn kind_letters(field: &FieldSchema) -> String {
    let read = letter_of(&field.value_type);
    // Amounts have a sign whatever the counter's type, and are not rounded before they are added.
    let written = match (field.strategy, read) {
        (strategy, 'u') if strategy.is_counter() => "i",
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
