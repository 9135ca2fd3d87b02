//! What a record looks like: Gens, their fields, and how each field merges.
//!
//! Merging itself never consults a schema: every operation names its own strategy, so replicas of
//! different schema versions stay equal. The schema is what local writes and typed reads go by.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::rule::{Expression, Rule};
use crate::value::{Value, ValueType};

/// All record types of one application.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// In the order of declaration. Names are unique.
    pub gens: Vec<GenSchema>,
    /// The enums that fields hold. Names are unique, and no Gen's.
    pub enums: Vec<EnumSchema>,
}

/// An enum: names for numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnumSchema {
    /// The qualified name: 1 to 255 bytes.
    pub name: String,
    /// Each variant with its number, which stored values carry. Both are unique.
    pub variants: Vec<(String, u32)>,
}

/// One record type.
#[derive(Clone, Debug, PartialEq)]
pub struct GenSchema {
    /// The qualified name, `User` or `chat.message`: 1 to 255 bytes.
    pub name: String,
    /// In the order of declaration. Names and numbers are unique.
    pub fields: Vec<FieldSchema>,
    /// What its documents are to meet.
    pub rules: Vec<Rule>,
}

/// One field of a record type.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSchema {
    /// As written in the source. Every record that is read names its fields, which costs no copy.
    pub name: Arc<str>,
    /// Names the field in stored and sent bytes; never reused. `1 <= number <= MAX_FIELD_NUMBER`
    pub number: u32,
    /// How concurrent writes of the field merge.
    pub strategy: Strategy,
    /// What the field holds.
    pub value_type: ValueType,
    /// What a reader sees while nobody has written the field. Defaults are never stored.
    pub default: Option<Value>,
    /// Bounds and overflow of a counter, also of the counters in a map; without effect on others.
    pub counter: CounterOptions,
    /// The strategy of the values of a map; without effect on others.
    pub value_strategy: Strategy,
    /// What the field was before its strategy or type changed.
    pub predecessor: Option<Box<Predecessor>>,
}

/// What a field was under an earlier number: `evolution.rs` says how it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Predecessor {
    /// The field as it was, without a default; what it was before that is a predecessor of its own.
    pub field: FieldSchema,
    /// What a value of it becomes; `None` where it is a value of the new field as it is.
    pub conversion: Option<Conversion>,
}

/// A pure computation of a value from an earlier one and from other fields of the document.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversion {
    /// Names the earlier value by the number that the field had.
    pub expression: Expression,
    /// The other fields that the expression reads: registers and counters.
    pub inputs: Vec<FieldSchema>,
}

/// The merge strategy of a field. The number is the tag that operations carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Strategy {
    /// A register in which the lowest (Hlc, replica) wins: set once.
    Immutable = 1,
    /// A register in which the highest (Hlc, replica) wins.
    Lww = 2,
    /// A register in which the highest (Hlc, value) wins.
    LwwContent = 3,
    /// A counter of integers that replicas increment and decrement.
    PnCounter = 4,
    /// A counter of floats. Sums depend on rounding, so it is meant for approximate quantities.
    PnCounterFloat = 5,
    /// A counter of integers that only grows.
    GCounter = 6,
    /// A counter of integers whose bounds hold however replicas interleave: each replica counts
    /// with rights that it has been given. After Balegas et al., SRDS 2015.
    BoundedCounter = 7,
    /// A register that keeps every value that no later write has seen.
    MvRegister = 8,
    /// A set in which adding wins over removing at the same time.
    OrSet = 9,
    /// Keys with a cell each, which come and go as documents do.
    Map = 10,
}

impl Strategy {
    /// Every strategy, in the order of the tags.
    pub const ALL: [Strategy; 10] = [
        Strategy::Immutable,
        Strategy::Lww,
        Strategy::LwwContent,
        Strategy::PnCounter,
        Strategy::PnCounterFloat,
        Strategy::GCounter,
        Strategy::BoundedCounter,
        Strategy::MvRegister,
        Strategy::OrSet,
        Strategy::Map,
    ];

    /// The tag that operations carry: 1 to 15.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The strategy of a tag, or `None` for one that this version does not know.
    pub fn from_tag(tag: u8) -> Option<Strategy> {
        Self::ALL.get(usize::from(tag).wrapping_sub(1)).copied()
    }

    /// The name that a Gen uses: `lww`, `pn_counter`.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Immutable => "immutable",
            Strategy::Lww | Strategy::LwwContent => "lww",
            Strategy::PnCounter | Strategy::PnCounterFloat => "pn_counter",
            Strategy::GCounter => "g_counter",
            Strategy::BoundedCounter => "bounded_counter",
            Strategy::MvRegister => "mv_register",
            Strategy::OrSet => "or_set",
            Strategy::Map => "map",
        }
    }

    /// Whether the field is added to rather than set.
    pub fn is_counter(self) -> bool {
        matches!(
            self,
            Strategy::PnCounter
                | Strategy::PnCounterFloat
                | Strategy::GCounter
                | Strategy::BoundedCounter
        )
    }

    /// Whether the field has elements or entries, each with a row of its own.
    pub fn is_collection(self) -> bool {
        matches!(self, Strategy::OrSet | Strategy::Map)
    }
}

/// What a counter does at its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CounterOptions {
    /// Local writes that would go below are refused.
    pub min_value: Option<i64>,
    /// Local writes that would go above are refused.
    pub max_value: Option<i64>,
    /// What reading gives when the merged total does not fit the field's type.
    pub overflow: Overflow,
}

/// What reading a counter gives when the merged total does not fit the field's type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Overflow {
    /// The nearest value that fits.
    #[default]
    Saturate = 0,
    /// The low bits of the total.
    Wrap = 1,
    /// An error that names the field.
    Error = 2,
}

impl From<Vec<GenSchema>> for Schema {
    /// A schema without enums.
    fn from(gens: Vec<GenSchema>) -> Schema {
        Schema { gens, enums: Vec::new() }
    }
}

impl EnumSchema {
    /// The name of a variant, `None` for one of a later version.
    pub fn variant(&self, number: u32) -> Option<&str> {
        let found = self.variants.iter().find(|(_, one)| *one == number);
        found.map(|(name, _)| name.as_str())
    }

    /// The number of a variant.
    pub fn number(&self, variant: &str) -> Option<u32> {
        self.variants.iter().find(|(name, _)| name == variant).map(|(_, number)| *number)
    }
}

impl Schema {
    /// The enum of this name.
    pub fn enum_named(&self, name: &str) -> Option<&EnumSchema> {
        self.enums.iter().find(|candidate| candidate.name == name)
    }

    /// The record type of this name.
    pub fn gen_named(&self, name: &str) -> Option<&GenSchema> {
        self.gens.iter().find(|candidate| candidate.name == name)
    }
}

impl GenSchema {
    /// A record type without rules.
    pub fn new(name: &str, fields: impl Into<Vec<FieldSchema>>) -> GenSchema {
        GenSchema { name: String::from(name), fields: fields.into(), rules: Vec::new() }
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&FieldSchema> {
        self.fields.iter().find(|field| *field.name == *name)
    }

    /// The field of this number.
    pub fn field_numbered(&self, number: u32) -> Option<&FieldSchema> {
        self.fields.iter().find(|field| field.number == number)
    }
}

impl FieldSchema {
    /// A field without default and options.
    pub fn new(name: &str, number: u32, strategy: Strategy, value_type: ValueType) -> FieldSchema {
        FieldSchema {
            name: Arc::from(name),
            number,
            strategy,
            value_type,
            default: None,
            counter: CounterOptions::default(),
            value_strategy: Strategy::Lww,
            predecessor: None,
        }
    }

    /// The field, and what it was before, from new to old.
    pub fn lineage(&self) -> impl Iterator<Item = &FieldSchema> {
        core::iter::successors(Some(self), |field| Some(&field.predecessor.as_deref()?.field))
    }

    /// A set or map under all of its numbers, from new to old: what it was before may be read as it.
    pub fn collections(&self) -> impl Iterator<Item = &FieldSchema> {
        self.lineage().take_while(|earlier| earlier.strategy == self.strategy)
    }

    /// Whether what the field shows depends on the cell of this number.
    pub fn reads(&self, number: u32) -> bool {
        let inputs_of = |old: &Predecessor| {
            let inputs = old.conversion.iter().flat_map(|conversion| &conversion.inputs);
            inputs.into_iter().any(|input| input.reads(number))
        };
        let before = |old: &Predecessor| old.field.reads(number) || inputs_of(old);
        self.number == number || self.predecessor.as_deref().is_some_and(before)
    }

    /// The cell in each row of a collection, as a field of its own: what a map holds under a key.
    /// `None` for a field that is no map, or of another type than a map's.
    pub fn map_value(&self) -> Option<FieldSchema> {
        let ValueType::Map(_, value_type) = &self.value_type else {
            return None;
        };
        (self.strategy == Strategy::Map).then(|| {
            let strategy = self.value_strategy;
            let mut value = FieldSchema::new(&self.name, 1, strategy, (**value_type).clone());
            value.counter = self.counter;
            value
        })
    }

    /// The type of a set's elements or of a map's keys; `None` for a field that is neither.
    pub fn element_type(&self) -> Option<&ValueType> {
        match (self.strategy, &self.value_type) {
            (Strategy::OrSet, ValueType::Set(element) | ValueType::List(element)) => Some(element),
            (Strategy::OrSet | Strategy::Map, ValueType::Map(key, _)) => Some(key),
            _ => None,
        }
    }
}
