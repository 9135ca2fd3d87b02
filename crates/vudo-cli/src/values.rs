//! Reading values from text, as a field's type asks for it.

use anyhow::{Result, bail};
use vudo_crdt::{FieldSchema, Value, ValueType};

/// Reads a value of the field's type.
pub(crate) fn parse(field: &FieldSchema, text: &str) -> Result<Value> {
    let value = parse_as(&field.value_type, text);
    // A counter is added to, and what is added may be negative.
    let fits = |value: &Value| field.strategy.is_counter() || field.value_type.admits(value);
    match value.filter(fits) {
        Some(value) => Ok(value),
        None => bail!(
            "'{text}' is no {} for the field '{}'{}",
            field.value_type,
            field.name,
            hint(&field.value_type)
        ),
    }
}

/// Reads a value of a type from text; one with parts is written in JSON.
fn parse_as(value_type: &ValueType, text: &str) -> Option<Value> {
    match value_type {
        ValueType::String | ValueType::Ref(_) => Some(Value::from(text)),
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
        ValueType::Enum(_) => text.trim_start_matches('#').parse().ok().map(Value::Variant),
        ValueType::Option(_) if text == "none" => Some(Value::None),
        ValueType::Option(inner) => parse_as(inner, text),
        ValueType::List(_) | ValueType::Set(_) | ValueType::Map(..) | ValueType::Tuple(_) => {
            read_json(value_type, &serde_json::from_str(text).ok()?)
        }
        ValueType::Record(_) | ValueType::Opaque(_) => None,
        _ => text.parse().ok().map(Value::Int),
    }
}

/// Reads a value of a type from JSON.
fn read_json(value_type: &ValueType, json: &serde_json::Value) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match (value_type, json) {
        (ValueType::Option(_), Json::Null) => Value::None,
        (ValueType::Option(inner), json) => read_json(inner, json)?,
        (ValueType::List(inner), Json::Array(items)) => {
            Value::List(items.iter().map(|item| read_json(inner, item)).collect::<Option<_>>()?)
        }
        (ValueType::Set(inner), Json::Array(items)) => {
            let items = items.iter().map(|item| read_json(inner, item));
            Value::set_of(items.collect::<Option<Vec<Value>>>()?)
        }
        (ValueType::Tuple(types), Json::Array(items)) if types.len() == items.len() => {
            let parts = types.iter().zip(items).map(|(part, item)| read_json(part, item));
            Value::List(parts.collect::<Option<_>>()?)
        }
        (ValueType::Map(key_type, value_type), Json::Object(entries)) => {
            let entries = entries.iter().map(|(key, value)| {
                Some((parse_as(key_type, key)?, read_json(value_type, value)?))
            });
            Value::map_of(entries.collect::<Option<Vec<_>>>()?)
        }
        (_, Json::Bool(truth)) => Value::Bool(*truth),
        (_, Json::String(text)) => parse_as(value_type, text)?,
        (ValueType::String, _) => return None,
        (_, Json::Number(number)) => parse_as(value_type, &number.to_string())?,
        _ => return None,
    })
}

/// How a value of a type is written, where that is not plain.
fn hint(value_type: &ValueType) -> String {
    match value_type {
        ValueType::Timestamp => ": it is a number of milliseconds since 1970".to_owned(),
        ValueType::Duration => ": it is a number of milliseconds".to_owned(),
        kind if kind.is_bytes() => match kind.byte_count() {
            Some(count) => format!(": it is {count} bytes in hexadecimal"),
            None => ": it is bytes in hexadecimal".to_owned(),
        },
        ValueType::Map(..) => ": it is a JSON object".to_owned(),
        ValueType::List(_) | ValueType::Set(_) | ValueType::Tuple(_) => {
            ": it is a JSON array".to_owned()
        }
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
        serde_json::Value::String(text) => return parse(field, text).map(Some),
        serde_json::Value::Number(number) if field.value_type != ValueType::String => {
            return parse(field, &number.to_string()).map(Some);
        }
        other => read_json(&field.value_type, other),
    };
    match value.filter(|value| field.value_type.admits(value)) {
        Some(value) => Ok(Some(value)),
        None => bail!("{json} is no {} for the field '{}'", field.value_type, field.name),
    }
}
