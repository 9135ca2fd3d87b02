//! What a schema says, checked: types, strategies and options of all of the language, whether this
//! version stores them or not.
//!
//! The checker builds it from the syntax tree; the schema of the engine, the comparison of two
//! versions and the descriptions are made from it.

use std::fmt;
use std::ops::Range;

use vudo_crdt::{CounterOptions, Expression, Value, ValueType};

use crate::syntax::Literal;

/// All Gens and enums of some sources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) gens: Vec<GenModel>,
    pub(crate) enums: Vec<EnumModel>,
}

/// A record type.
#[derive(Clone, Debug)]
pub(crate) struct GenModel {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) fields: Vec<FieldModel>,
    pub(crate) rules: Vec<vudo_crdt::Rule>,
}

/// An enum.
#[derive(Clone, Debug)]
pub(crate) struct EnumModel {
    pub(crate) name: String,
    /// With the number that stored values carry.
    pub(crate) variants: Vec<(String, u32)>,
}

/// Where in the sources something is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The index of the source.
    pub(crate) file: usize,
    /// In bytes.
    pub(crate) span: Range<usize>,
}

/// A field.
#[derive(Clone, Debug)]
pub(crate) struct FieldModel {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) number: u32,
    pub(crate) kind: Type,
    pub(crate) merge: Merge,
    pub(crate) counter: CounterOptions,
    pub(crate) default: Option<Literal>,
    /// What the field was before, from new to old.
    pub(crate) predecessors: Vec<Predecessor>,
}

/// What a field was before its strategy or type changed.
#[derive(Clone, Debug)]
pub(crate) struct Predecessor {
    pub(crate) number: u32,
    pub(crate) kind: Type,
    pub(crate) merge: Merge,
    /// What a value of it becomes, where that is not the value itself.
    pub(crate) conversion: Option<Expression>,
}

impl FieldModel {
    /// Strategy and type, as a lock file has them.
    pub(crate) fn shape(kind: &Type, merge: Merge) -> String {
        match merge {
            Merge::LwwContent => format!("lww(content) {kind}"),
            Merge::Map(inner) => format!("map({}) {kind}", inner.merge().name()),
            other => format!("{} {kind}", other.name()),
        }
    }
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// A type of the engine that has no parts.
    Scalar(ValueType),
    RichText,
    Enum(String),
    /// A Gen as a value.
    Record(String),
    /// The key of a document of a Gen.
    Ref(String),
    Option(Box<Type>),
    Set(Box<Type>),
    List(Box<Type>),
    /// `[T]`, which or_set takes for a set.
    Array(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Tuple(Vec<Type>),
    /// A type that nobody declares: its values are only kept.
    Opaque(String),
}

impl fmt::Display for Type {
    /// As a Gen writes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Scalar(scalar) => scalar.fmt(formatter),
            Type::RichText => formatter.write_str("RichText"),
            Type::Enum(name) | Type::Record(name) | Type::Opaque(name) => formatter.write_str(name),
            Type::Ref(name) => write!(formatter, "Ref<{name}>"),
            Type::Option(inner) => write!(formatter, "Option<{inner}>"),
            Type::Set(inner) => write!(formatter, "Set<{inner}>"),
            Type::List(inner) => write!(formatter, "List<{inner}>"),
            Type::Array(inner) => write!(formatter, "[{inner}]"),
            Type::Map(key, value) => write!(formatter, "Map<{key}, {value}>"),
            Type::Tuple(parts) => {
                let parts: Vec<String> = parts.iter().map(Type::to_string).collect();
                write!(formatter, "({})", parts.join(", "))
            }
        }
    }
}

impl Type {
    /// Whether the type holds integers, and the least and the greatest of them.
    pub(crate) fn integer_range(&self) -> Option<(i128, i128)> {
        match self {
            Type::Scalar(scalar) => scalar.integer_range(),
            _ => None,
        }
    }

    /// Whether the type is `f32` or `f64`.
    pub(crate) fn is_float(&self) -> bool {
        matches!(self, Type::Scalar(scalar) if scalar.is_float())
    }

    /// The type without `Option` around it.
    pub(crate) fn inside_option(&self) -> &Type {
        match self {
            Type::Option(inner) => inner.inside_option(),
            other => other,
        }
    }
}

/// A strategy with the options that change how it merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    Immutable,
    Lww,
    /// With `tie_break = "content"`.
    LwwContent,
    MvRegister,
    GCounter,
    PnCounter,
    BoundedCounter,
    OrSet,
    /// With the strategy of its values.
    Map(Inner),
    Rga,
    List,
    Peritext,
}

/// The strategy of the values of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inner {
    Immutable,
    Lww,
    MvRegister,
    GCounter,
    PnCounter,
    OrSet,
    Map,
}

impl Merge {
    /// Every strategy by the names that the language has for it.
    pub(crate) const NAMES: [(&'static str, Merge); 13] = [
        ("immutable", Merge::Immutable),
        ("lww", Merge::Lww),
        ("mv_register", Merge::MvRegister),
        ("mvr", Merge::MvRegister),
        ("g_counter", Merge::GCounter),
        ("pn_counter", Merge::PnCounter),
        ("bounded_counter", Merge::BoundedCounter),
        ("escrow", Merge::BoundedCounter),
        ("or_set", Merge::OrSet),
        ("map", Merge::Map(Inner::Lww)),
        ("rga", Merge::Rga),
        ("list", Merge::List),
        ("peritext", Merge::Peritext),
    ];

    pub(crate) fn named(name: &str) -> Option<Merge> {
        Merge::NAMES.iter().find(|(known, _)| *known == name).map(|(_, merge)| *merge)
    }

    /// The strategy of a lock file's words: `lww(content)`.
    pub(crate) fn of_shape(words: &str) -> Option<Merge> {
        match words.strip_suffix(')').and_then(|words| words.split_once('(')) {
            Some(("lww", "content")) => Some(Merge::LwwContent),
            Some(("map", inner)) => Merge::named(inner).and_then(Inner::of).map(Merge::Map),
            Some(_) => None,
            None => Merge::named(words),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Merge::Immutable => "immutable",
            Merge::Lww | Merge::LwwContent => "lww",
            Merge::MvRegister => "mv_register",
            Merge::GCounter => "g_counter",
            Merge::PnCounter => "pn_counter",
            Merge::BoundedCounter => "bounded_counter",
            Merge::OrSet => "or_set",
            Merge::Map(_) => "map",
            Merge::Rga => "rga",
            Merge::List => "list",
            Merge::Peritext => "peritext",
        }
    }

    pub(crate) fn is_counter(self) -> bool {
        matches!(self, Merge::GCounter | Merge::PnCounter | Merge::BoundedCounter)
    }

    pub(crate) fn is_register(self) -> bool {
        use Merge::{Immutable, Lww, LwwContent, MvRegister};
        matches!(self, Immutable | Lww | LwwContent | MvRegister)
    }

    /// Whether it is a strategy of sequences, which this version parses and checks only.
    pub(crate) fn is_sequence(self) -> bool {
        matches!(self, Merge::Rga | Merge::List | Merge::Peritext)
    }
}

impl Inner {
    pub(crate) fn of(merge: Merge) -> Option<Inner> {
        Some(match merge {
            Merge::Immutable => Inner::Immutable,
            Merge::Lww => Inner::Lww,
            Merge::MvRegister => Inner::MvRegister,
            Merge::GCounter => Inner::GCounter,
            Merge::PnCounter => Inner::PnCounter,
            Merge::OrSet => Inner::OrSet,
            Merge::Map(_) => Inner::Map,
            _ => return None,
        })
    }

    pub(crate) fn merge(self) -> Merge {
        match self {
            Inner::Immutable => Merge::Immutable,
            Inner::Lww => Merge::Lww,
            Inner::MvRegister => Merge::MvRegister,
            Inner::GCounter => Merge::GCounter,
            Inner::PnCounter => Merge::PnCounter,
            Inner::OrSet => Merge::OrSet,
            Inner::Map => Merge::Map(Inner::Lww),
        }
    }
}

impl Model {
    pub(crate) fn gen_named(&self, name: &str) -> Option<&GenModel> {
        self.gens.iter().find(|one| one.name == name)
    }

    pub(crate) fn enum_named(&self, name: &str) -> Option<&EnumModel> {
        self.enums.iter().find(|one| one.name == name)
    }
}

impl EnumModel {
    pub(crate) fn number(&self, variant: &str) -> Option<u32> {
        self.variants.iter().find(|(name, _)| name == variant).map(|(_, number)| *number)
    }
}

impl GenModel {
    pub(crate) fn field(&self, name: &str) -> Option<&FieldModel> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// The value of a literal, where the type holds it and this version stores it.
pub(crate) fn scalar_value(literal: &Literal, value_type: &ValueType) -> Option<Value> {
    let value = match literal {
        Literal::Text(text) => Value::from(text.as_str()),
        Literal::Bool(truth) => Value::Bool(*truth),
        Literal::Integer(number) if *value_type == ValueType::F32 => {
            Value::Float(f64::from(*number as f32))
        }
        Literal::Integer(number) if value_type.is_float() => Value::Float(*number as f64),
        Literal::Integer(number) => Value::Int(*number),
        // A number that is too large for `f32` would become an infinity.
        Literal::Float(number) if *value_type == ValueType::F32 => {
            Value::Float(Some(*number as f32).filter(|near| near.is_finite())?.into())
        }
        Literal::Float(number) => Value::Float(*number),
        Literal::None | Literal::Word(_) | Literal::List(_) => return None,
    };
    value_type.admits(&value).then_some(value)
}
