//! How things are printed: for people, with colour where the terminal has it, or as JSON.

use std::io::IsTerminal;

use serde_json::{Map, Value as Json, json};
use vudo_crdt::Value;
use vudo_state::Record;

/// Whether standard error shows colour.
pub(crate) fn has_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints an error and what led to it.
pub(crate) fn print_error(error: &anyhow::Error) {
    let (start, end) = if has_colour() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    eprintln!("{start}error{end}: {error:#}");
}

/// Prose in lines that a narrow terminal shows whole.
pub(crate) fn wrapped(text: &str) -> String {
    const COLUMNS: usize = 80;
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > COLUMNS {
            wrapped.push('\n');
            column = 0;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// A value as JSON. Integers that JSON readers may round are written as strings, bytes in
/// hexadecimal.
pub(crate) fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Bool(truth) => json!(truth),
        Value::Float(number) => json!(number),
        Value::String(text) => json!(text),
        Value::Bytes(_) | Value::Opaque(_) => json!(value.to_string()),
        Value::None => Json::Null,
        Value::Variant(number) => json!(number),
        Value::List(values) => values.iter().map(value_to_json).collect(),
        Value::Map(entries) => {
            let named = entries.iter().map(|(key, value)| (key.to_string(), value_to_json(value)));
            Json::Object(named.collect())
        }
        Value::Record(fields) => {
            let named =
                fields.iter().map(|(number, value)| (number.to_string(), value_to_json(value)));
            Json::Object(named.collect())
        }
        Value::Int(number) => match i64::try_from(*number) {
            Ok(small) if small.unsigned_abs() < 1 << 53 => json!(small),
            _ => json!(number.to_string()),
        },
    }
}

/// A record as JSON: its key under `key`, its fields under `fields`.
pub(crate) fn record_to_json(record: &Record) -> Json {
    let fields: Map<String, Json> = record
        .fields
        .iter()
        .map(|(name, value)| (name.to_string(), value_to_json(value)))
        .collect();
    json!({ "key": record.key, "fields": fields })
}
