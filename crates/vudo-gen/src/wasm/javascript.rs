//! The ES module beside the WASM module: `template.js` with the schema's tables put in.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vudo_crdt::{FieldSchema, Overflow, Schema, Strategy, ValueType};

use super::abi::{ERROR_CODES, class_of, has_founder, is_encoded};
use super::names::{FieldNames, Names};
use super::{Accessors, BuildOptions};

const TEMPLATE: &str = include_str!("template.js");
const HEAD: &str = "// By Gen.\n";

/// The code of the first name in the JavaScript's list, which has no gaps.
pub(super) const FIRST_REASON: u32 = 32;

/// How values of some types cross between JavaScript and the module.
struct Kind {
    letter: char,
    /// Three functions: whether a value is of the kind, its argument, and the value of an output.
    /// Text and bytes become bytes, which go to the input.
    source: &'static str,
}

const KINDS: [Kind; 8] = [
    Kind { letter: 's', source: "[$isText, $encode, $decode]" },
    Kind {
        letter: 'x',
        source: "[($value) => $value instanceof Uint8Array, ($value) => $value, ($value) => $value]",
    },
    Kind {
        letter: 'b',
        source: "[($value) => typeof $value == \"boolean\", ($value) => +$value, ($value) => $value[0] == 1]",
    },
    Kind {
        letter: 'n',
        source: "[Number.isSafeInteger, BigInt, ($value) => Number($view($value).getBigInt64(0, true))]",
    },
    Kind {
        letter: 'i',
        source: "[($value) => typeof $value == \"bigint\" && BigInt.asIntN(64, $value) == $value, BigInt, ($value) => $view($value).getBigInt64(0, true)]",
    },
    Kind {
        letter: 'u',
        source: "[($value) => typeof $value == \"bigint\" && BigInt.asUintN(64, $value) == $value, BigInt, ($value) => $view($value).getBigUint64(0, true)]",
    },
    Kind {
        letter: 'f',
        source: "[($value) => typeof $value == \"number\", Number, ($value) => $view($value).getFloat64(0, true)]",
    },
    Kind {
        letter: 'g',
        source: "[($value) => typeof $value == \"number\", Math.fround, ($value) => $view($value).getFloat64(0, true)]",
    },
];

pub(super) fn javascript(schema: &Schema, names: &Names, options: &BuildOptions<'_>) -> String {
    let mut codec = Codec::new(schema);
    let mut gens = Vec::new();
    for (gen_schema, gen_names) in schema.gens.iter().zip(&names.gens) {
        let fields = gen_schema.fields.iter().zip(&gen_names.fields);
        let rows: Vec<String> =
            fields.map(|(field, names)| field_row(field, names, &mut codec)).collect();
        let property = &gen_names.property;
        let rows = format!("[{}]", rows.join(","));
        gens.push(row([quote(property), rows, name_unless(property, &gen_schema.name)]));
    }
    let mut kinds = String::new();
    for kind in KINDS.iter().filter(|kind| codec.letters.contains(kind.letter)) {
        squeeze(&format!("{}: {},", kind.letter, kind.source), &mut kinds);
    }
    let reasons: Vec<&str> = ERROR_CODES
        .iter()
        .filter(|(code, _)| *code >= FIRST_REASON)
        .map(|(_, name)| if is_reason(name) && can_be_given(name, schema) { *name } else { "" })
        .collect();
    let mut sections = codec.sections(schema);
    sections.push(match options.accessors {
        Accessors::Typed => "typed",
        Accessors::Generic => "generic",
    });
    let fields = schema.gens.iter().flat_map(|one| &one.fields);
    let classes: String = fields.map(class_of).collect();
    let lines = template_lines(&sections).replace("__KINDS__", &kinds);
    let filled = without_parentheses(&shorten(&lines))
        .replace("__REASONS__", reasons.join(" ").trim_end())
        .replace("__WASM__", &quote(&relative_address(options.wasm_file_name)))
        .replace("__CLASSES__", &quote(&classes))
        .replace("__RECORDS__", &codec.records())
        .replace("__SCHEMA__", &format!("[{}]", gens.join(",")));
    format!("{HEAD}{filled}\n")
}

/// An array without what is empty at its end.
fn row<const N: usize>(parts: [String; N]) -> String {
    format!("[{}]", parts.join(",").trim_end_matches(','))
}

/// A name as a text, or nothing where the property says it already.
fn name_unless(property: &str, name: &str) -> String {
    if property == name { String::new() } else { quote(name) }
}

/// Whether a schema has any field that can be refused for this reason.
fn can_be_given(reason: &str, schema: &Schema) -> bool {
    let any = |is: fn(&FieldSchema) -> bool| schema.gens.iter().flat_map(|one| &one.fields).any(is);
    match reason {
        "immutable" => any(|field| field.strategy == Strategy::Immutable),
        "counter_overflow" => any(|field| field.counter.overflow == Overflow::Error),
        "no_rights" => has_founder(schema),
        _ => true,
    }
}

/// What the JavaScript knows of a field: its property, its kind, the method that adds, for what is
/// encoded the type of its values and more, and its name where the property has another one.
fn field_row(field: &FieldSchema, names: &FieldNames, codec: &mut Codec<'_>) -> String {
    let (mut adder, mut value_type, mut more) = (String::new(), String::new(), String::new());
    let kind = match (field.strategy, &field.value_type) {
        (Strategy::OrSet, _) => {
            value_type = field.element_type().map_or_else(String::new, |one| codec.describe(one));
            "T".to_owned()
        }
        (Strategy::Map, ValueType::Map(key, value)) => {
            value_type = codec.describe(key);
            more = codec.describe_held(field.value_strategy, value);
            "M".to_owned()
        }
        (Strategy::MvRegister, held) => {
            value_type = codec.describe(held);
            "V".to_owned()
        }
        (_, held) if is_encoded(field) => {
            value_type = codec.describe(held);
            "R".to_owned()
        }
        _ => {
            adder = names.adder.as_deref().map_or_else(String::new, quote);
            if let Some([rights, give]) = &names.rights {
                more = format!("[{},{}]", quote(rights), quote(give));
            }
            let letters = kind_letters(field);
            codec.letters.push_str(&letters);
            letters
        }
    };
    let property = &names.property;
    let name = name_unless(property, &field.name);
    row([quote(property), quote(&kind), adder, value_type, more, name])
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
        format!("[{}]", self.record_fields.join(","))
    }

    /// What lies under the keys of a map: how it is shown, what is written, and for counters the kind
    /// of an amount.
    fn describe_held(&mut self, strategy: Strategy, value: &ValueType) -> String {
        let one = self.describe(value);
        let shown =
            if strategy == Strategy::MvRegister { format!("[\"l\",{one}]") } else { one.clone() };
        let amount = match (strategy, value) {
            (Strategy::PnCounterFloat, _) => "f",
            (counter, ValueType::I64 | ValueType::U64) if counter.is_counter() => "i",
            (counter, _) if counter.is_counter() => "n",
            _ => return row([shown, one]),
        };
        self.letters.push_str(amount);
        row([shown, one, quote(amount)])
    }

    fn describe(&mut self, value_type: &ValueType) -> String {
        self.has_values = true;
        match value_type {
            ValueType::Option(inner) => format!("[\"o\",{}]", self.describe(inner)),
            ValueType::List(inner) => format!("[\"l\",{}]", self.describe(inner)),
            ValueType::Set(inner) => format!("[\"S\",{}]", self.describe(inner)),
            ValueType::Map(key, value) => {
                format!("[\"m\",{},{}]", self.describe(key), self.describe(value))
            }
            ValueType::Tuple(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.describe(part)).collect();
                format!("[\"t\",[{}]]", parts.join(","))
            }
            ValueType::Enum(name) => {
                let found = self.schema.enum_named(name);
                let variants = found.map(|found| &found.variants[..]).unwrap_or_default();
                let pairs =
                    variants.iter().map(|(name, number)| format!("[{},{number}]", quote(name)));
                format!("[\"e\",[{}]]", pairs.collect::<Vec<_>>().join(","))
            }
            ValueType::Record(name) => format!("[\"r\",{}]", self.record(name)),
            ValueType::Ref(_) => self.describe(&ValueType::String),
            ValueType::Opaque(_) => "[\"k\"]".to_owned(),
            scalar => {
                let letter = letter_of(scalar);
                self.letters.push(letter);
                match (letter, scalar.integer_range()) {
                    ('n', Some((least, greatest))) => format!("[\"n\",{least},{greatest}]"),
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
            fields.push(format!("[{},{},{held}]", quote(&field.name), field.number));
        }
        self.record_fields[place] = format!("[{}]", fields.join(","));
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

/// Appends a line without the spaces that separate no words, and without what ends nothing before a
/// closing brace. Texts stay as they are. Statements of the template end in semicolons and braces, so
/// no line needs an end.
fn squeeze(line: &str, out: &mut String) {
    let is_word =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '$' | '_');
    if out.ends_with(is_word) && line.starts_with(is_word) {
        out.push(' ');
    }
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if matches!(character, '"' | '`') && quote.is_none_or(|open| open == character) {
            quote = if quote.is_none() { Some(character) } else { None };
        }
        let follows_word = out.ends_with(is_word);
        let separates = follows_word && characters.peek().is_some_and(|next| is_word(*next));
        if quote.is_none() && character == '}' && out.ends_with([';', ',']) {
            out.pop();
        }
        if character != ' ' || quote.is_some() || separates {
            out.push(character);
        }
    }
}

/// The names that begin with a dollar sign, without it, and what stands between them.
fn dollar_names(source: &str) -> impl Iterator<Item = (&str, &str)> {
    source.split('$').skip(1).map(|part| {
        let is_end = |character: char| !character.is_ascii_alphanumeric();
        part.split_at(part.find(is_end).unwrap_or(part.len()))
    })
}

/// Gives each name that begins with a dollar sign a letter, and those after the 52nd a letter and a
/// digit. The template has no others of such a form, and no text with such a name in it. What is
/// frequent gets a letter that the rest of the source has often, which packs best.
fn shorten(source: &str) -> String {
    let mut name_counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut letter_counts: BTreeMap<char, usize> =
        ('a'..='z').chain('A'..='Z').map(|letter| (letter, 0)).collect();
    let head = source.split('$').next().unwrap_or_default();
    let mut texts = Vec::from([head]);
    for (name, rest) in dollar_names(source) {
        *name_counts.entry(name).or_default() += 1;
        texts.push(rest);
    }
    for character in texts.iter().flat_map(|text| text.chars()) {
        letter_counts.entry(character).and_modify(|count| *count += 1);
    }
    let mut letters: Vec<(char, usize)> = letter_counts.into_iter().collect();
    letters.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let letters: Vec<char> = letters.into_iter().map(|(letter, _)| letter).collect();
    let longer =
        ('0'..='9').flat_map(|digit| letters.iter().map(move |one| format!("{one}{digit}")));
    let mut names: Vec<(&str, usize)> = name_counts.into_iter().collect();
    names.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let names = names.into_iter().map(|(name, _)| name).filter(|name| !name.is_empty());
    let short: BTreeMap<&str, String> =
        names.zip(letters.iter().map(|letter| letter.to_string()).chain(longer)).collect();
    let mut shortened = String::from(head);
    for (name, rest) in dollar_names(source) {
        // A dollar sign of a text, as in `${`.
        shortened.push_str(short.get(name).map_or("$", String::as_str));
        shortened.push_str(rest);
    }
    shortened
}

/// Leaves out the parentheses around the one parameter of an arrow function, where it has no default
/// and nothing runs into its name.
fn without_parentheses(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once(")=>") {
        let parameter = before.rsplit_once('(').filter(|(front, name)| {
            let is_name = !name.is_empty() && name.chars().all(|part| part.is_ascii_alphanumeric());
            is_name && !front.ends_with(|last: char| last.is_ascii_alphanumeric())
        });
        match parameter {
            Some((front, name)) => out.extend([front, name, "=>"]),
            None => out.extend([before, ")=>"]),
        }
        rest = after;
    }
    out + rest
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
