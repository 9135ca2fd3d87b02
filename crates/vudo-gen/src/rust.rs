//! Rust from a schema: a typed handle for each Gen.
//!
//! **Names.** `chat.message` becomes `ChatMessage`. A field `title` is read by `title()` and written
//! by `set_title(..)`, a counter by `add_title(..)`. Keywords become raw identifiers (`r#type`), and
//! the few names that cannot be raw get an underscore behind them (`self_`). Where a field would take
//! a method that every handle has, or one of a field declared before it, it goes by its name with
//! `_field` behind: the field `key` is read by `key_field()` and written by `set_key_field(..)`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use unicode_ident::is_xid_start;
use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, Value, ValueType};

/// Methods that every handle has.
const METHODS: [&str; 7] = ["schema", "create", "open", "list", "key", "delete", "clone"];

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
    let mut taken = BTreeSet::new();
    for gen_schema in &schema.gens {
        let mut name = type_name(&gen_schema.name);
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        generate_gen(gen_schema, &name, &mut out);
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
    // Nothing is left of `_`, and of `_1` what no type is called.
    if !name.starts_with(is_xid_start) {
        name.insert_str(0, "Gen");
    }
    // `Self` is the one type name that cannot be escaped.
    if name == "Self" { "Self_".into() } else { name }
}

/// The methods of a field.
struct Methods {
    read: String,
    write: String,
}

impl Methods {
    /// The first names that no other method has.
    fn of(field: &FieldSchema, taken: &mut BTreeSet<String>) -> Methods {
        let verb = if field.strategy.is_counter() { "add" } else { "set" };
        let mut name = field.name.clone();
        loop {
            let methods = Methods { read: escaped(&name), write: format!("{verb}_{name}") };
            if !taken.contains(&methods.read) && !taken.contains(&methods.write) {
                taken.extend([methods.read.clone(), methods.write.clone()]);
                return methods;
            }
            name.push_str("_field");
        }
    }
}

/// Keywords are escaped, and names that cannot be are changed.
fn escaped(name: &str) -> String {
    if ["self", "Self", "super", "crate", "_"].contains(&name) {
        format!("{name}_")
    } else if KEYWORDS.contains(&name) {
        format!("r#{name}")
    } else {
        name.to_owned()
    }
}

fn rust_type(value_type: &ValueType) -> String {
    match value_type {
        ValueType::Bool => "bool",
        ValueType::String => "::std::string::String",
        ValueType::Int | ValueType::Timestamp | ValueType::Duration => "i64",
        ValueType::Bytes => "::std::vec::Vec<u8>",
        ValueType::Uuid => "[u8; 16]",
        ValueType::Identity => "[u8; 32]",
        ValueType::UInt => "u64",
        other => return other.to_string(),
    }
    .to_owned()
}

fn generate_gen(gen_schema: &GenSchema, name: &str, out: &mut String) {
    let gen_name = &gen_schema.name;
    let bytes = Schema::from(vec![gen_schema.clone()]).encode();
    let _ = write!(
        out,
        "/// A handle to a `{gen_name}` document. Reads see the present state.
#[allow(dead_code, non_camel_case_types, unreachable_pub)]
#[derive(Clone)]
pub struct {name} {{
    document: ::vudo::Document,
}}

#[allow(dead_code, non_snake_case, unreachable_pub, clippy::excessive_precision)]
impl {name} {{
    /// What a `{gen_name}` looks like.
    pub fn schema() -> &'static ::vudo::GenSchema {{
        static SCHEMA: ::std::sync::OnceLock<::vudo::GenSchema> = ::std::sync::OnceLock::new();
        SCHEMA.get_or_init(|| ::vudo::gen_schema(&{bytes:?}))
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
    let mut taken = METHODS.map(str::to_owned).into();
    for field in &gen_schema.fields {
        generate_methods(field, &Methods::of(field, &mut taken), out);
    }
    out.push_str("}\n\n");
}

fn generate_methods(field: &FieldSchema, methods: &Methods, out: &mut String) {
    let FieldSchema { name, strategy, value_type, default, .. } = field;
    let Methods { read: method, write } = methods;
    let rust = rust_type(value_type);
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
    pub fn {write}(&self, amount: {amount}) -> ::vudo::Result<()> {{
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
                Value::Bytes(bytes) => format!("{bytes:?}.into()"),
                Value::Float(number) => format!("{number:?}"),
                other => other.to_string(),
            };
            (rust.to_owned(), format!("{read}.unwrap_or_else(|| {fallback})"))
        }
    };
    let parameter = match value_type {
        ValueType::String => "&str",
        ValueType::Bytes => "&[u8]",
        _ => &rust,
    };
    let _ = write!(
        out,
        "
    /// What `{name}` holds.
    pub fn {method}(&self) -> ::vudo::Result<{result}> {{
        Ok({value})
    }}

    /// Sets `{name}`.
    pub fn {write}(&self, value: {parameter}) -> ::vudo::Result<()> {{
        self.document.set({name:?}, value)
    }}
"
    );
}
