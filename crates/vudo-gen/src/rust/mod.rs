//! Rust from a schema: a typed handle for each Gen, an enum for each enum, and a struct for each Gen
//! that is a value of another.
//!
//! **Names.** `chat.message` becomes `ChatMessage`, and as a value `ChatMessageValue`. A field `title`
//! is read by `title()` and written by `set_title(..)`, a counter by `add_title(..)`, a set by
//! `add_title(..)` and `remove_title(..)`, an entry of a map by what writes its values, with the key
//! in front, and `remove_title(..)`; of a `bounded_counter` `rights_of_title(..)` tells the rights and
//! `give_title(..)` gives them away. Keywords become raw identifiers (`r#type`), and
//! the few names that cannot be raw get an underscore behind them (`self_`). Where a field would take
//! a method that every handle has, or one of a field declared before it, it goes by its name with
//! `_field` behind: the field `key` is read by `key_field()` and written by `set_key_field(..)`.

mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use unicode_ident::is_xid_start;
use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, Value, ValueType};

use values::Place;

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
    let names = Names::of(schema);
    let mut out = String::new();
    for (gen_schema, name) in schema.gens.iter().zip(&names.handles) {
        names.generate_gen(gen_schema, name, &mut out);
    }
    for one in &schema.enums {
        names.generate_enum(one, &mut out);
    }
    for gen_schema in &schema.gens {
        if names.records.contains_key(&gen_schema.name) {
            names.generate_record(gen_schema, &mut out);
        }
    }
    out
}

/// What the types of a schema are called.
struct Names {
    /// The handles of the Gens, in their order.
    handles: Vec<String>,
    enums: BTreeMap<String, String>,
    /// The Gens that are values.
    records: BTreeMap<String, String>,
}

impl Names {
    fn of(schema: &Schema) -> Names {
        let mut taken = BTreeSet::new();
        let mut free = |mut name: String| {
            while !taken.insert(name.clone()) {
                name.push('_');
            }
            name
        };
        let handles = schema.gens.iter().map(|one| free(type_name(&one.name))).collect();
        let enums =
            schema.enums.iter().map(|one| (one.name.clone(), free(type_name(&one.name)))).collect();
        let mut values = BTreeSet::new();
        for field in schema.gens.iter().flat_map(|one| &one.fields) {
            collect_records(&field.value_type, &mut values);
        }
        let is_value = |one: &&GenSchema| values.contains(&*one.name);
        let records = schema.gens.iter().filter(is_value);
        let records =
            records.map(|one| (one.name.clone(), free(type_name(&one.name) + "Value"))).collect();
        Names { handles, enums, records }
    }

    /// A schema from elsewhere may name an enum that it does not have.
    fn enum_name(&self, name: &str) -> &str {
        self.enums.get(name).map_or("::vudo::Value", String::as_str)
    }

    fn record_name(&self, name: &str) -> &str {
        self.records.get(name).map_or("::vudo::Value", String::as_str)
    }
}

/// The names of the Gens that are values in a type.
fn collect_records<'a>(value_type: &'a ValueType, out: &mut BTreeSet<&'a str>) {
    match value_type {
        ValueType::Option(inner) | ValueType::List(inner) | ValueType::Set(inner) => {
            collect_records(inner, out);
        }
        ValueType::Map(key, value) => {
            collect_records(key, out);
            collect_records(value, out);
        }
        ValueType::Tuple(parts) => parts.iter().for_each(|part| collect_records(part, out)),
        ValueType::Record(name) => {
            out.insert(name);
        }
        _ => {}
    }
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
    /// Takes an element or entry out.
    remove: String,
    rights: String,
    give: String,
}

impl Methods {
    /// The first names that no other method has.
    fn of(field: &FieldSchema, taken: &mut BTreeSet<String>) -> Methods {
        let adds = match field.strategy {
            Strategy::OrSet => true,
            Strategy::Map => field.value_strategy.is_counter(),
            strategy => strategy.is_counter(),
        };
        let verb = if adds { "add" } else { "set" };
        let mut name = String::from(&*field.name);
        loop {
            let methods = Methods {
                read: escaped(&name),
                write: format!("{verb}_{name}"),
                remove: format!("remove_{name}"),
                rights: format!("rights_of_{name}"),
                give: format!("give_{name}"),
            };
            let mut used = Vec::from([methods.read.clone(), methods.write.clone()]);
            match field.strategy {
                Strategy::OrSet | Strategy::Map => used.push(methods.remove.clone()),
                Strategy::BoundedCounter => {
                    used.extend([methods.rights.clone(), methods.give.clone()]);
                }
                _ => {}
            }
            if used.iter().all(|name| !taken.contains(name)) {
                taken.extend(used);
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

impl Names {
    fn generate_gen(&self, gen_schema: &GenSchema, name: &str, out: &mut String) {
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

#[allow(dead_code, non_snake_case, unreachable_pub, clippy::all)]
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
            self.generate_methods(field, &Methods::of(field, &mut taken), out);
        }
        out.push_str("}\n\n");
    }

    fn generate_methods(&self, field: &FieldSchema, methods: &Methods, out: &mut String) {
        match (field.strategy, &field.value_type) {
            (Strategy::OrSet, _) => {
                if let Some(element) = field.element_type() {
                    self.generate_set(field, element, methods, out);
                }
            }
            (Strategy::Map, ValueType::Map(key, value)) => {
                self.generate_map(field, (key, value), methods, out);
            }
            (strategy, _) if strategy.is_counter() => {
                self.generate_counter(field, methods, out);
            }
            _ => self.generate_register(field, methods, out),
        }
    }

    fn generate_counter(&self, field: &FieldSchema, methods: &Methods, out: &mut String) {
        let FieldSchema { name, strategy, value_type, .. } = field;
        let Methods { read, write, rights, give, .. } = methods;
        let rust = self.type_of(value_type, Place::Handle);
        let amount = amount_of(*strategy);
        let _ = write!(
            out,
            "
    /// The total of `{name}`.
    pub fn {read}(&self) -> ::vudo::Result<{rust}> {{
        let shown = self.document.get({name:?})?;
        Ok(shown.and_then(::vudo::FromValue::from_value).unwrap_or_default())
    }}

    /// Adds to `{name}`; a negative amount takes away.
    pub fn {write}(&self, amount: {amount}) -> ::vudo::Result<()> {{
        self.document.add({name:?}, amount)
    }}
"
        );
        if *strategy == Strategy::BoundedCounter {
            let _ = write!(
                out,
                "
    /// How far this store may move `{name}`.
    pub fn {rights}(&self, direction: ::vudo::CounterDirection) -> ::vudo::Result<i128> {{
        self.document.rights({name:?}, direction)
    }}

    /// Lets another replica move `{name}` by as much, in place of this one.
    pub fn {give}(
        &self,
        receiver: &::vudo::ReplicaKey,
        direction: ::vudo::CounterDirection,
        amount: i64,
    ) -> ::vudo::Result<()> {{
        self.document.give_rights({name:?}, receiver, direction, amount)
    }}
"
            );
        }
    }

    fn generate_set(
        &self,
        field: &FieldSchema,
        element: &ValueType,
        methods: &Methods,
        out: &mut String,
    ) {
        let FieldSchema { name, .. } = field;
        let Methods { read, write, remove, .. } = methods;
        let rust = self.type_of(element, Place::Handle);
        let list = ValueType::List(Box::new(element.clone()));
        let from = self.read_expression(&list, "shown", Place::Handle);
        let to = self.write_expression(element, "element", Place::Handle);
        let _ = write!(
            out,
            "
    /// What is in `{name}`, in the order of its bytes.
    pub fn {read}(&self) -> ::vudo::Result<::std::vec::Vec<{rust}>> {{
        let shown = self.document.get({name:?})?;
        Ok(shown.and_then(|shown| {from}).unwrap_or_default())
    }}

    /// Adds to `{name}`. Adding wins over taking out at the same time.
    pub fn {write}(&self, element: {rust}) -> ::vudo::Result<()> {{
        self.document.add_element({name:?}, {to})
    }}

    /// Takes out of `{name}`; nothing happens where it is not in there.
    pub fn {remove}(&self, element: {rust}) -> ::vudo::Result<()> {{
        self.document.remove_element({name:?}, {to})
    }}
"
        );
    }

    fn generate_map(
        &self,
        field: &FieldSchema,
        (key, value): (&ValueType, &ValueType),
        methods: &Methods,
        out: &mut String,
    ) {
        let FieldSchema { name, value_strategy, .. } = field;
        let Methods { read, write, remove, .. } = methods;
        // Of a register of many values all are shown, and one is written.
        let shown = match value_strategy {
            Strategy::MvRegister => ValueType::List(Box::new(value.clone())),
            _ => value.clone(),
        };
        let map = ValueType::Map(Box::new(key.clone()), Box::new(shown));
        let rust = self.type_of(&map, Place::Handle);
        let from = self.read_expression(&map, "shown", Place::Handle);
        let key_type = self.type_of(key, Place::Handle);
        let to_key = self.write_expression(key, "key", Place::Handle);
        let (parameter, call, what) = if value_strategy.is_counter() {
            let amount = amount_of(*value_strategy);
            (format!("amount: {amount}"), "add_entry", "amount".to_owned())
        } else {
            let held = self.type_of(value, Place::Handle);
            let to = self.write_expression(value, "value", Place::Handle);
            (format!("value: {held}"), "set_entry", to)
        };
        let _ = write!(
            out,
            "
    /// What is in `{name}`, in the order of the keys' bytes.
    pub fn {read}(&self) -> ::vudo::Result<{rust}> {{
        let shown = self.document.get({name:?})?;
        Ok(shown.and_then(|shown| {from}).unwrap_or_default())
    }}

    /// Writes what lies under a key of `{name}`.
    pub fn {write}(&self, key: {key_type}, {parameter}) -> ::vudo::Result<()> {{
        self.document.{call}({name:?}, {to_key}, {what})
    }}

    /// Takes what lies under a key out of `{name}`; nothing happens where nothing does.
    pub fn {remove}(&self, key: {key_type}) -> ::vudo::Result<()> {{
        self.document.remove_entry({name:?}, {to_key})
    }}
"
        );
    }

    fn generate_register(&self, field: &FieldSchema, methods: &Methods, out: &mut String) {
        let FieldSchema { name, strategy, value_type, default, .. } = field;
        let Methods { read, write, .. } = methods;
        let rust = self.type_of(value_type, Place::Handle);
        let has_many = *strategy == Strategy::MvRegister;
        let list = ValueType::List(Box::new(value_type.clone()));
        let shown = if has_many { &list } else { value_type };
        let from = self.read_expression(shown, "shown", Place::Handle);
        let (result, otherwise) = match (default, shown) {
            (_, ValueType::List(_)) if has_many => {
                (self.type_of(&list, Place::Handle), ".unwrap_or_default()".to_owned())
            }
            (None, _) => (format!("::std::option::Option<{rust}>"), String::new()),
            (Some(default), shown) => match fallback(default, shown) {
                Some(fallback) => (rust.clone(), format!(".unwrap_or_else(|| {fallback})")),
                None => (format!("::std::option::Option<{rust}>"), String::new()),
            },
        };
        let (parameter, to) = match value_type {
            ValueType::String => ("&str".to_owned(), "value".to_owned()),
            ValueType::Bytes => ("&[u8]".to_owned(), "value".to_owned()),
            other => (rust, self.write_expression(other, "value", Place::Handle)),
        };
        let what = if has_many { "All values that" } else { "What" };
        let _ = write!(
            out,
            "
    /// {what} `{name}` holds.
    pub fn {read}(&self) -> ::vudo::Result<{result}> {{
        let shown = self.document.get({name:?})?;
        Ok(shown.and_then(|shown| {from}){otherwise})
    }}

    /// Sets `{name}`.
    pub fn {write}(&self, value: {parameter}) -> ::vudo::Result<()> {{
        self.document.set({name:?}, {to})
    }}
"
        );
    }
}

/// What counters of a strategy are added.
fn amount_of(strategy: Strategy) -> &'static str {
    if strategy == Strategy::PnCounterFloat { "f64" } else { "i64" }
}

/// The source of a default, which the engine gives already: it only stands in for a value that does
/// not fit. `None` for types whose defaults are not written in Rust.
fn fallback(default: &Value, value_type: &ValueType) -> Option<String> {
    Some(match (value_type, default) {
        (ValueType::String | ValueType::Ref(_), Value::String(text)) => {
            format!("::std::string::String::from({text:?})")
        }
        (ValueType::Bytes, Value::Bytes(bytes)) => format!("::std::vec!{bytes:?}"),
        (ValueType::F32 | ValueType::F64, Value::Float(number)) => format!("{number:?}"),
        (ValueType::Bool, Value::Bool(truth)) => truth.to_string(),
        (_, Value::Int(number)) if value_type.integer_range().is_some() => number.to_string(),
        (ValueType::List(_) | ValueType::Set(_) | ValueType::Map(..), _) => {
            "::std::vec::Vec::new()".to_owned()
        }
        _ => return None,
    })
}
