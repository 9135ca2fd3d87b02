//! Types of values in generated Rust, and the code that turns them into the engine's values and back.
//!
//! Sets are `Vec`s, ascending, and maps are `Vec`s of pairs, because floats may be in them. A Gen
//! inside a Gen that is a value is boxed, so that it can hold itself.

use std::fmt::Write as _;

use vudo_crdt::{EnumSchema, GenSchema, ValueType};

use super::{Names, escaped};

/// Where a type stands: a Gen as a value is boxed inside another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Handle,
    Record,
}

impl Names {
    /// The Rust type of values.
    pub(super) fn type_of(&self, value_type: &ValueType, place: Place) -> String {
        let of = |inner: &ValueType| self.type_of(inner, place);
        match value_type {
            ValueType::Bool => "bool".into(),
            ValueType::String | ValueType::Ref(_) => "::std::string::String".into(),
            ValueType::Int | ValueType::Timestamp | ValueType::Duration => "i64".into(),
            ValueType::Bytes => "::std::vec::Vec<u8>".into(),
            ValueType::Uuid => "[u8; 16]".into(),
            ValueType::Identity => "[u8; 32]".into(),
            ValueType::UInt => "u64".into(),
            ValueType::Option(inner) => format!("::std::option::Option<{}>", of(inner)),
            ValueType::List(inner) | ValueType::Set(inner) => {
                format!("::std::vec::Vec<{}>", of(inner))
            }
            ValueType::Map(key, value) => {
                format!("::std::vec::Vec<({}, {})>", of(key), of(value))
            }
            ValueType::Tuple(parts) => {
                // A comma behind each, for there are tuples of one.
                let parts: String = parts.iter().map(|part| of(part) + ", ").collect();
                format!("({parts})")
            }
            ValueType::Enum(name) => self.enum_name(name).to_owned(),
            ValueType::Record(name) if place == Place::Record => {
                format!("::std::boxed::Box<{}>", self.record_name(name))
            }
            ValueType::Record(name) => self.record_name(name).to_owned(),
            ValueType::Opaque(_) => "::vudo::Value".into(),
            scalar => scalar.to_string(),
        }
    }

    /// An expression that makes an engine's value of the variable `from`.
    pub(super) fn write_expression(
        &self,
        value_type: &ValueType,
        from: &str,
        place: Place,
    ) -> String {
        let to = |inner: &ValueType, from: &str| self.write_expression(inner, from, place);
        match value_type {
            ValueType::Option(inner) => {
                let some = to(inner, from);
                format!(
                    "match {from} {{ ::std::option::Option::Some({from}) => {some}, \
                     ::std::option::Option::None => ::vudo::Value::None }}"
                )
            }
            ValueType::List(inner) => {
                let one = to(inner, from);
                format!("::vudo::Value::List({from}.into_iter().map(|{from}| {one}).collect())")
            }
            ValueType::Set(inner) => {
                let one = to(inner, from);
                format!("::vudo::Value::set_of({from}.into_iter().map(|{from}| {one}))")
            }
            ValueType::Map(key, value) => {
                let (key, value) = (to(key, "key"), to(value, from));
                format!(
                    "::vudo::Value::map_of({from}.into_iter().map(|(key, {from})| ({key}, {value})))"
                )
            }
            ValueType::Tuple(parts) => {
                let names: Vec<String> =
                    (0..parts.len()).map(|place| format!("{from}_{place}")).collect();
                let values: Vec<String> =
                    parts.iter().zip(&names).map(|(part, name)| to(part, name)).collect();
                format!(
                    "{{ let ({},) = {from}; ::vudo::Value::List(::std::vec![{}]) }}",
                    names.join(", "),
                    values.join(", ")
                )
            }
            ValueType::Opaque(_) => from.to_owned(),
            ValueType::Record(_) if place == Place::Record => {
                format!("::vudo::Value::from(*{from})")
            }
            _ => format!("::vudo::Value::from({from})"),
        }
    }

    /// An expression of an `Option` that turns the engine's value in the variable `from` into one
    /// of the type, or says that it is of another.
    pub(super) fn read_expression(
        &self,
        value_type: &ValueType,
        from: &str,
        place: Place,
    ) -> String {
        let of = |inner: &ValueType, from: &str| self.read_expression(inner, from, place);
        let otherwise = "_ => ::std::option::Option::None";
        match value_type {
            ValueType::Option(inner) => format!(
                "match {from} {{ ::vudo::Value::None => \
                 ::std::option::Option::Some(::std::option::Option::None), \
                 {from} => {}.map(::std::option::Option::Some) }}",
                of(inner, from)
            ),
            ValueType::List(inner) | ValueType::Set(inner) => format!(
                "match {from} {{ ::vudo::Value::List({from}) => {from}.into_iter()\
                 .map(|{from}| {}).collect::<::std::option::Option<::std::vec::Vec<_>>>(), \
                 {otherwise} }}",
                of(inner, from)
            ),
            ValueType::Map(key, value) => format!(
                "match {from} {{ ::vudo::Value::Map({from}) => {from}.into_iter()\
                 .map(|(key, {from})| ::std::option::Option::Some(({}?, {}?)))\
                 .collect::<::std::option::Option<::std::vec::Vec<_>>>(), {otherwise} }}",
                of(key, "key"),
                of(value, from)
            ),
            ValueType::Tuple(parts) => {
                let names: Vec<String> =
                    (0..parts.len()).map(|place| format!("{from}_{place}")).collect();
                let values: Vec<String> =
                    parts.iter().zip(&names).map(|(part, name)| of(part, name)).collect();
                let some: String = names
                    .iter()
                    .map(|name| format!("::std::option::Option::Some({name}), "))
                    .collect();
                format!(
                    "match {from} {{ ::vudo::Value::List({from}) => \
                     match <[::vudo::Value; {count}]>::try_from({from}) {{ \
                     ::std::result::Result::Ok([{names}]) => match ({values},) {{ ({some}) => \
                     ::std::option::Option::Some(({names},)), {otherwise} }}, {otherwise} }}, \
                     {otherwise} }}",
                    count = parts.len(),
                    names = names.join(", "),
                    values = values.join(", "),
                )
            }
            ValueType::Opaque(_) => format!("::std::option::Option::Some({from})"),
            ValueType::Record(name) if place == Place::Record => format!(
                "<{} as ::vudo::FromValue>::from_value({from}).map(::std::boxed::Box::new)",
                self.record_name(name)
            ),
            other => {
                format!("<{} as ::vudo::FromValue>::from_value({from})", self.type_of(other, place))
            }
        }
    }

    /// An enum with the variants that a later schema may have added.
    pub(super) fn generate_enum(&self, one: &EnumSchema, out: &mut String) {
        let name = self.enum_name(&one.name);
        let mut variants = String::new();
        let (mut to, mut from) = (String::new(), String::new());
        for (variant, number) in &one.variants {
            let variant = escaped(variant);
            let _ = writeln!(variants, "    /// Number {number}.\n    {variant},");
            let _ = write!(to, "{name}::{variant} => {number}, ");
            let _ = write!(from, "::vudo::Value::Variant({number}) => {name}::{variant}, ");
        }
        // A variant may have this name, too.
        let mut unknown = String::from("Unknown");
        while one.number(&unknown).is_some() {
            unknown.push('_');
        }
        let _ = write!(
            out,
            "/// `{of}`.
#[allow(dead_code, non_camel_case_types, unreachable_pub)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum {name} {{
{variants}    /// A variant of another version of the schema, by its number.
    {unknown}(u32),
}}

impl ::std::convert::From<{name}> for ::vudo::Value {{
    fn from(value: {name}) -> ::vudo::Value {{
        ::vudo::Value::Variant(match value {{ {to}{name}::{unknown}(number) => number }})
    }}
}}

impl ::vudo::FromValue for {name} {{
    fn from_value(value: ::vudo::Value) -> ::std::option::Option<{name}> {{
        ::std::option::Option::Some(match value {{
            {from}::vudo::Value::Variant(number) => {name}::{unknown}(number),
            _ => return ::std::option::Option::None,
        }})
    }}
}}

",
            of = one.name,
        );
    }

    /// A Gen as a value.
    pub(super) fn generate_record(&self, gen_schema: &GenSchema, out: &mut String) {
        let name = self.record_name(&gen_schema.name);
        let (mut fields, mut to, mut from) = (String::new(), String::new(), String::new());
        for field in &gen_schema.fields {
            let (member, number) = (escaped(&field.name), field.number);
            let member = if member == "other_fields" { "other_fields_".into() } else { member };
            let held = self.type_of(&field.value_type, Place::Record);
            let _ = writeln!(
                fields,
                "    /// `{}`.\n    pub {member}: ::std::option::Option<{held}>,",
                field.name
            );
            let into = self.write_expression(&field.value_type, "held", Place::Record);
            let _ = write!(
                to,
                "if let ::std::option::Option::Some(held) = value.{member} {{ \
                 fields.push(({number}, {into})); }}\n        "
            );
            let back = self.read_expression(&field.value_type, "held", Place::Record);
            let _ = write!(from, "{number} => record.{member} = {back},\n                ");
        }
        let _ = write!(
            out,
            "/// A `{of}` as a value. What a field lacks is `None`.
#[allow(dead_code, non_camel_case_types, non_snake_case, unreachable_pub)]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct {name} {{
{fields}    /// Fields of another version of the schema, by their numbers: kept when it is written back.
    pub other_fields: ::std::vec::Vec<(u32, ::vudo::Value)>,
}}

#[allow(clippy::all)]
impl ::std::convert::From<{name}> for ::vudo::Value {{
    fn from(value: {name}) -> ::vudo::Value {{
        let mut fields = value.other_fields;
        {to}fields.sort_by_key(|field| field.0);
        fields.dedup_by_key(|field| field.0);
        ::vudo::Value::Record(fields)
    }}
}}

#[allow(clippy::all)]
impl ::vudo::FromValue for {name} {{
    fn from_value(value: ::vudo::Value) -> ::std::option::Option<{name}> {{
        let ::vudo::Value::Record(fields) = value else {{
            return ::std::option::Option::None;
        }};
        let mut record = <{name} as ::std::default::Default>::default();
        for (number, held) in fields {{
            match number {{
                {from}_ => record.other_fields.push((number, held)),
            }}
        }}
        ::std::option::Option::Some(record)
    }}
}}

",
            of = gen_schema.name,
        );
    }
}
