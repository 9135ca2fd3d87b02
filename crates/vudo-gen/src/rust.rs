//! Rust from a schema: a typed handle for each Gen.

use std::fmt::Write as _;

use vudo_crdt::{FieldSchema, GenSchema, Overflow, Schema, Strategy, Value, ValueType};

/// Methods that every handle has; a field of such a name gets `_field` behind its own.
const METHODS: [&str; 6] = ["schema", "create", "open", "list", "key", "delete"];

const KEYWORDS: [&str; 47] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let",
    "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return",
    "static", "struct", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use",
    "virtual", "where", "while",
];

/// The typed API of every Gen in the schema, as the source of a module.
pub fn generate(schema: &Schema) -> String {
    let mut out = String::new();
    for gen_schema in &schema.gens {
        generate_gen(gen_schema, &mut out);
    }
    out
}

/// `chat.message` becomes `ChatMessage`.
fn type_name(gen_name: &str) -> String {
    let mut name = String::new();
    for part in gen_name.split(['.', '_']) {
        let mut characters = part.chars();
        if let Some(first) = characters.next() {
            name.extend(first.to_uppercase());
            name.push_str(characters.as_str());
        }
    }
    // `Self` is the one type name that cannot be escaped.
    if name == "Self" { "Self_".into() } else { name }
}

/// A method's name: keywords are escaped, and names that cannot be are changed.
fn method_name(field: &str) -> String {
    if METHODS.contains(&field) {
        format!("{field}_field")
    } else if ["self", "Self", "super", "crate", "_"].contains(&field) {
        format!("{field}_")
    } else if KEYWORDS.contains(&field) {
        format!("r#{field}")
    } else {
        field.to_owned()
    }
}

fn rust_type(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Bool => "bool",
        ValueType::String => "String",
        ValueType::Int => "i64",
        ValueType::UInt => "u64",
        other => other.name(),
    }
}

fn generate_gen(gen_schema: &GenSchema, out: &mut String) {
    let name = type_name(&gen_schema.name);
    let gen_name = &gen_schema.name;
    let _ = write!(
        out,
        "/// A handle to a `{gen_name}` document. Reads see the present state.
#[derive(Clone)]
pub struct {name} {{
    document: ::vudo::Document,
}}

#[allow(dead_code, non_snake_case)]
impl {name} {{
    /// What a `{gen_name}` looks like.
    pub fn schema() -> &'static ::vudo::GenSchema {{
        static SCHEMA: ::std::sync::OnceLock<::vudo::GenSchema> = ::std::sync::OnceLock::new();
        SCHEMA.get_or_init(|| ::vudo::GenSchema {{
            name: {gen_name:?}.into(),
            fields: vec![
"
    );
    gen_schema.fields.iter().for_each(|field| generate_field_schema(field, out));
    let _ = write!(
        out,
        "            ],
        }})
    }}

    /// Creates a document; it must not exist.
    pub fn create(database: &::vudo::Database, key: &str) -> ::vudo::Result<{name}> {{
        let document = ::vudo::Document::create(database, {name}::schema(), key)?;
        Ok({name} {{ document }})
    }}

    /// The document of this key, if it exists.
    pub fn open(
        database: &::vudo::Database,
        key: &str,
    ) -> ::vudo::Result<::std::option::Option<{name}>> {{
        let found = ::vudo::Document::open(database, {name}::schema(), key)?;
        Ok(found.map(|document| {name} {{ document }}))
    }}

    /// Every document, ascending by key.
    pub fn list(database: &::vudo::Database) -> ::vudo::Result<::std::vec::Vec<{name}>> {{
        let documents = ::vudo::Document::list(database, {name}::schema())?;
        Ok(documents.into_iter().map(|document| {name} {{ document }}).collect())
    }}

    /// The document's key.
    pub fn key(&self) -> &str {{
        self.document.key()
    }}

    /// Deletes the document.
    pub fn delete(self) -> ::vudo::Result<()> {{
        self.document.delete()
    }}
"
    );
    gen_schema.fields.iter().for_each(|field| generate_methods(field, out));
    out.push_str("}\n\n");
}

fn generate_field_schema(field: &FieldSchema, out: &mut String) {
    let FieldSchema { name, number, strategy, value_type, default, counter } = field;
    let default = match default {
        None => "::std::option::Option::None".to_owned(),
        Some(value) => format!("::std::option::Option::Some({})", value_source(value)),
    };
    let bound = |bound: Option<i64>| match bound {
        None => "::std::option::Option::None".to_owned(),
        Some(bound) => format!("::std::option::Option::Some({bound})"),
    };
    let overflow = match counter.overflow {
        Overflow::Saturate => "Saturate",
        Overflow::Wrap => "Wrap",
        Overflow::Error => "Error",
    };
    let (least, greatest) = (bound(counter.min_value), bound(counter.max_value));
    let _ = write!(
        out,
        "                ::vudo::FieldSchema {{
                    name: {name:?}.into(),
                    number: {number},
                    strategy: ::vudo::Strategy::{strategy:?},
                    value_type: ::vudo::ValueType::{value_type:?},
                    default: {default},
                    counter: ::vudo::CounterOptions {{
                        min_value: {least},
                        max_value: {greatest},
                        overflow: ::vudo::Overflow::{overflow},
                    }},
                }},
"
    );
}

fn value_source(value: &Value) -> String {
    match value {
        Value::Bool(truth) => format!("::vudo::Value::Bool({truth})"),
        Value::Int(number) => format!("::vudo::Value::Int({number})"),
        Value::Float(number) => format!("::vudo::Value::Float({number:?})"),
        Value::String(text) => format!("::vudo::Value::String({text:?}.into())"),
    }
}

fn generate_methods(field: &FieldSchema, out: &mut String) {
    let FieldSchema { name, strategy, value_type, default, .. } = field;
    let method = method_name(name);
    let rust = rust_type(*value_type);
    let read = format!("self.document.get({name:?})?.and_then(::vudo::FromValue::from_value)");
    if strategy.is_counter() {
        let amount = if *strategy == Strategy::PnCounterFloat { "f64" } else { "i64" };
        let _ = write!(
            out,
            "
    /// The total of `{name}`.
    pub fn {method}(&self) -> ::vudo::Result<{rust}> {{
        Ok({read}.unwrap_or_default())
    }}

    /// Adds to `{name}`; a negative amount takes away.
    pub fn add_{name}(&self, amount: {amount}) -> ::vudo::Result<()> {{
        self.document.add({name:?}, amount)
    }}
"
        );
        return;
    }
    let (result, value) = match default {
        None => (format!("::std::option::Option<{rust}>"), read),
        Some(default) => {
            let fallback = match default {
                Value::String(text) => format!("{text:?}.into()"),
                Value::Float(number) => format!("{number:?}"),
                other => other.to_string(),
            };
            (rust.to_owned(), format!("{read}.unwrap_or_else(|| {fallback})"))
        }
    };
    let parameter = if *value_type == ValueType::String { "&str" } else { rust };
    let _ = write!(
        out,
        "
    /// What `{name}` holds.
    pub fn {method}(&self) -> ::vudo::Result<{result}> {{
        Ok({value})
    }}

    /// Sets `{name}`.
    pub fn set_{name}(&self, value: {parameter}) -> ::vudo::Result<()> {{
        self.document.set({name:?}, value)
    }}
"
    );
}
