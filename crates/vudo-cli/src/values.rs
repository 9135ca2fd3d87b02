//! Reading values from text, as a field's type asks for it.

use anyhow::{Result, bail};
use vudo_crdt::{FieldSchema, Value, ValueType};

/// Reads a value of the field's type.
pub(crate) fn parse(field: &FieldSchema, text: &str) -> Result<Value> {
    let value = match field.value_type {
        ValueType::String => Some(Value::from(text)),
        ValueType::Bool => match text {
            "true" | "yes" | "1" => Some(Value::Bool(true)),
            "false" | "no" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        kind if kind.is_float() => text.parse().ok().map(|number: f64| match kind {
            // The nearest number that the type holds, as for a literal in a program.
            ValueType::F32 => Value::Float(f64::from(number as f32)),
            _ => Value::Float(number),
        }),
        kind if kind.is_bytes() => parse_bytes(text).map(Value::Bytes),
        _ => text.parse().ok().map(Value::Int),
    };
    // A counter is added to, and what is added may be negative.
    let fits = |value: &Value| field.strategy.is_counter() || field.value_type.admits(value);
    match value.filter(fits) {
        Some(value) => Ok(value),
        None => bail!(
            "'{text}' is no {} for the field '{}'{}",
            field.value_type.name(),
            field.name,
            hint(field.value_type)
        ),
    }
}

/// How a value of a type is written, where that is not plain.
fn hint(value_type: ValueType) -> String {
    match value_type {
        ValueType::Timestamp => ": it is a number of milliseconds since 1970".to_owned(),
        ValueType::Duration => ": it is a number of milliseconds".to_owned(),
        kind if kind.is_bytes() => match kind.byte_count() {
            Some(count) => format!(": it is {count} bytes in hexadecimal"),
            None => ": it is bytes in hexadecimal".to_owned(),
        },
        _ => String::new(),
    }
}

/// Bytes in hexadecimal; the hyphens of a UUID may stand between them.
fn parse_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.replace('-', "");
    data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()
}

/// Reads a JSON value of the field's type. Null is no value.
pub(crate) fn from_json(field: &FieldSchema, json: &serde_json::Value) -> Result<Option<Value>> {
    let value = match json {
        serde_json::Value::Null => return Ok(None),
        serde_json::Value::Bool(truth) => Value::Bool(*truth),
        serde_json::Value::String(text) => return parse(field, text).map(Some),
        serde_json::Value::Number(number) if field.value_type == ValueType::String => {
            bail!("{number} is no String for the field '{}'", field.name)
        }
        serde_json::Value::Number(number) => return parse(field, &number.to_string()).map(Some),
        other => bail!("{other} is no {} for the field '{}'", field.value_type.name(), field.name),
    };
    if !field.value_type.admits(&value) {
        bail!("{json} is no {} for the field '{}'", field.value_type.name(), field.name);
    }
    Ok(Some(value))
}
