//! Values of fields, and their bytes.
//!
//! A value describes itself: a tag byte says its kind and how long it is, so that a replica can
//! keep and pass on a kind that it does not know.
//!
//! ```text
//! tag = kind << 2 | wire          wire 0: nothing follows
//!                                 wire 1: one varint
//!                                 wire 2: eight bytes, little endian
//!                                 wire 3: a varint length, then that many bytes
//! ```
//!
//! Invariant: equal values have equal bytes. NaN has one encoding, minus zero is stored as zero,
//! and varints are minimal; a decoder refuses anything else.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::limits::{MAX_FIELD_NUMBER, MAX_VALUE_DEPTH};
use crate::wire::{
    MalformedFrame, Reader, buffer_for, is_utf8, write_byte, write_bytes, write_varint,
    zigzag_decode, zigzag_encode,
};

const WIRE_NOTHING: u8 = 0;
const WIRE_VARINT: u8 = 1;
const WIRE_EIGHT: u8 = 2;
const WIRE_LENGTH: u8 = 3;

const KIND_FALSE: u8 = 1;
const KIND_TRUE: u8 = 2;
const KIND_SIGNED: u8 = 3;
const KIND_UNSIGNED_LARGE: u8 = 4;
const KIND_FLOAT: u8 = 5;
const KIND_STRING: u8 = 6;
const KIND_COUNTS: u8 = 7;
const KIND_BYTES: u8 = 8;
const KIND_NONE: u8 = 9;
const KIND_VARIANT: u8 = 10;
/// The kind of a list's, tuple's or set's values: see [`inside`].
pub const KIND_LIST: u8 = 11;
/// The kind of a Gen as a value: see [`inside`].
pub const KIND_RECORD: u8 = 12;
/// The kind of a map's values: see [`inside`].
pub const KIND_MAP: u8 = 13;

/// A value of a field.
#[derive(Clone, Debug)]
pub enum Value {
    /// Truth.
    Bool(bool),
    /// Any integer type of the language; `i64` and `u64` both fit.
    Int(i128),
    /// `f32` and `f64`; an `f32` is stored as the `f64` of the same number.
    Float(f64),
    /// UTF-8, not normalised, ordered by bytes.
    String(String),
    /// Bytes of any kind: `Bytes`, and the fixed lengths of `Uuid` and `Identity`.
    Bytes(Vec<u8>),
    /// The absence that an `Option` holds, as opposed to a field that nobody has written.
    None,
    /// A variant of an enum, by its number. Numbers that a schema does not know are kept.
    Variant(u32),
    /// The values of a list, a tuple, or a set (then ascending by their bytes, each once).
    List(Vec<Value>),
    /// Keys and values, ascending by the bytes of the keys, each key once.
    Map(Vec<(Value, Value)>),
    /// A Gen as a value: numbered fields, ascending. Those that a schema does not know are kept.
    Record(Vec<(u32, Value)>),
    /// The bytes of a kind that this version does not know, inside another value.
    Opaque(Vec<u8>),
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names say it all.
pub enum ValueType {
    Bool,
    String,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
    /// `Int`: an `i64` that JavaScript sees as a `number` and that is refused past 2^53.
    Int,
    /// `UInt`: the same, not negative.
    UInt,
    /// Bytes of any number.
    Bytes,
    /// 16 bytes.
    Uuid,
    /// Milliseconds since 1970, which a JavaScript `number` holds exactly.
    Timestamp,
    /// Milliseconds, which a JavaScript `number` holds exactly.
    Duration,
    /// A public key of 32 bytes.
    Identity,
    /// The type, or [`Value::None`].
    Option(Box<ValueType>),
    /// Values of one type, in their order.
    List(Box<ValueType>),
    /// Values of one type, ascending, each once. Under `or_set` the type of a whole field.
    Set(Box<ValueType>),
    /// Values under keys. Under `map` the type of a whole field.
    Map(Box<ValueType>, Box<ValueType>),
    /// One value of each of these types.
    Tuple(Vec<ValueType>),
    /// The enum of this qualified name.
    Enum(Box<str>),
    /// The Gen of this qualified name, as a value.
    Record(Box<str>),
    /// The key of a document of the Gen of this qualified name.
    Ref(Box<str>),
    /// What a schema says nothing about: any value, which is only kept.
    Opaque(Box<str>),
}

/// The largest integer that a JavaScript `number` holds exactly, and so the bound of `Int`.
pub const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// The tags of types that are told apart by code that has no room for [`ValueType`].
#[allow(missing_docs)] // The names say it all.
pub mod tag {
    pub const BOOL: u8 = 1;
    pub const STRING: u8 = 2;
    pub const U64: u8 = 10;
    pub const F32: u8 = 11;
    pub const F64: u8 = 12;
    pub const BYTES: u8 = 15;
    pub const UUID: u8 = 16;
    pub const IDENTITY: u8 = 19;
}

/// [`ValueType::integer_range`] of the type of a tag.
pub fn integer_range_of(tag: u8) -> Option<(i128, i128)> {
    // How many of 64 bits the greatest number of the type leaves unused.
    let unused_bits = match tag {
        3..=6 => 65 - (8 << (tag - 3)),
        7..=10 => 64 - (8 << (tag - 7)),
        // `Int`, `UInt`, `Timestamp` and `Duration`.
        13 | 14 | 17 | 18 => u64::BITS - MAX_SAFE_INTEGER.count_ones(),
        _ => return None,
    };
    let greatest = i128::from(u64::MAX >> unused_bits);
    let least = match tag {
        3..=6 => -1 - greatest,
        13 | 17 | 18 => -greatest,
        _ => 0,
    };
    Some((least, greatest))
}

/// Whether the type of a tag holds integers and this one is among them.
pub fn is_in_range(tag: u8, number: i128) -> bool {
    integer_range_of(tag).is_some_and(|(least, greatest)| least <= number && number <= greatest)
}

/// [`ValueType::byte_count`] of the type of a tag.
pub fn byte_count_of(tag: u8) -> Option<usize> {
    match tag {
        tag::UUID => Some(16),
        tag::IDENTITY => Some(32),
        _ => None,
    }
}

impl ValueType {
    /// The types without parts, in the order of their tags, which begin at 1.
    pub const SCALARS: [ValueType; 19] = [
        ValueType::Bool,
        ValueType::String,
        ValueType::I8,
        ValueType::I16,
        ValueType::I32,
        ValueType::I64,
        ValueType::U8,
        ValueType::U16,
        ValueType::U32,
        ValueType::U64,
        ValueType::F32,
        ValueType::F64,
        ValueType::Int,
        ValueType::UInt,
        ValueType::Bytes,
        ValueType::Uuid,
        ValueType::Timestamp,
        ValueType::Duration,
        ValueType::Identity,
    ];

    /// The tag of a stored schema.
    pub fn tag(&self) -> u8 {
        match self {
            ValueType::Bool => 1,
            ValueType::String => 2,
            ValueType::I8 => 3,
            ValueType::I16 => 4,
            ValueType::I32 => 5,
            ValueType::I64 => 6,
            ValueType::U8 => 7,
            ValueType::U16 => 8,
            ValueType::U32 => 9,
            ValueType::U64 => 10,
            ValueType::F32 => 11,
            ValueType::F64 => 12,
            ValueType::Int => 13,
            ValueType::UInt => 14,
            ValueType::Bytes => 15,
            ValueType::Uuid => 16,
            ValueType::Timestamp => 17,
            ValueType::Duration => 18,
            ValueType::Identity => 19,
            ValueType::Option(_) => 20,
            ValueType::List(_) => 21,
            ValueType::Set(_) => 22,
            ValueType::Map(..) => 23,
            ValueType::Tuple(_) => 24,
            ValueType::Enum(_) => 25,
            ValueType::Record(_) => 26,
            ValueType::Ref(_) => 27,
            ValueType::Opaque(_) => 28,
        }
    }

    /// The scalar of a tag, or `None` for a type with parts or one that this version does not know.
    pub fn scalar_of_tag(tag: u8) -> Option<ValueType> {
        Self::SCALARS.get(usize::from(tag).wrapping_sub(1)).cloned()
    }

    /// The name that a Gen uses for a type without parts; `None` for the others.
    pub fn scalar_name(&self) -> Option<&'static str> {
        Some(match self {
            ValueType::Bool => "Bool",
            ValueType::String => "String",
            ValueType::I8 => "i8",
            ValueType::I16 => "i16",
            ValueType::I32 => "i32",
            ValueType::I64 => "i64",
            ValueType::U8 => "u8",
            ValueType::U16 => "u16",
            ValueType::U32 => "u32",
            ValueType::U64 => "u64",
            ValueType::F32 => "f32",
            ValueType::F64 => "f64",
            ValueType::Int => "Int",
            ValueType::UInt => "UInt",
            ValueType::Bytes => "Bytes",
            ValueType::Uuid => "Uuid",
            ValueType::Timestamp => "Timestamp",
            ValueType::Duration => "Duration",
            ValueType::Identity => "Identity",
            _ => return None,
        })
    }

    /// The least and the greatest value of a type that holds integers; `None` for the other types.
    pub fn integer_range(&self) -> Option<(i128, i128)> {
        integer_range_of(self.tag())
    }

    /// Whether the type is `f32` or `f64`.
    pub fn is_float(&self) -> bool {
        matches!(self, ValueType::F32 | ValueType::F64)
    }

    /// Whether a counter of integers can be of this type: times are not added up.
    pub fn is_countable(&self) -> bool {
        let is_time = matches!(self, ValueType::Timestamp | ValueType::Duration);
        self.integer_range().is_some() && !is_time
    }

    /// How many bytes a value of a type of bytes has; `None` where they may be any number, and for
    /// the other types.
    pub fn byte_count(&self) -> Option<usize> {
        byte_count_of(self.tag())
    }

    /// Whether the type holds bytes.
    pub fn is_bytes(&self) -> bool {
        matches!(self, ValueType::Bytes | ValueType::Uuid | ValueType::Identity)
    }

    /// Whether a field of this type can hold the value. Of enums and Gens, which other parts of a
    /// schema declare, only the kind is looked at.
    pub fn admits(&self, value: &Value) -> bool {
        match (self, value) {
            (ValueType::Bool, Value::Bool(_)) => true,
            (ValueType::String | ValueType::Ref(_), Value::String(_)) => true,
            (ValueType::F64, Value::Float(_)) => true,
            (ValueType::F32, Value::Float(number)) => {
                number.is_nan() || f64::from(*number as f32) == *number
            }
            (ValueType::Enum(_), Value::Variant(_)) => true,
            (ValueType::Opaque(_), _) => true,
            (ValueType::Option(_), Value::None) => true,
            (ValueType::Option(inner), value) => inner.admits(value),
            (ValueType::List(inner), Value::List(values)) => {
                values.iter().all(|value| inner.admits(value))
            }
            (ValueType::Set(inner), Value::List(values)) => {
                values.iter().all(|value| inner.admits(value)) && is_ascending(values.iter())
            }
            (ValueType::Map(key_type, value_type), Value::Map(entries)) => {
                let fits = |(key, value): &(Value, Value)| {
                    key_type.admits(key) && value_type.admits(value)
                };
                entries.iter().all(fits) && is_ascending(entries.iter().map(|(key, _)| key))
            }
            (ValueType::Tuple(types), Value::List(values)) => {
                let mut pairs = types.iter().zip(values);
                types.len() == values.len() && pairs.all(|(part, value)| part.admits(value))
            }
            (ValueType::Record(_), Value::Record(fields)) => {
                fields.windows(2).all(|pair| pair[0].0 < pair[1].0)
            }
            (_, Value::Bytes(bytes)) => {
                self.is_bytes() && self.byte_count().is_none_or(|count| count == bytes.len())
            }
            (_, Value::Int(number)) => self
                .integer_range()
                .is_some_and(|(least, greatest)| (least..=greatest).contains(number)),
            _ => false,
        }
    }
}

impl core::fmt::Display for ValueType {
    /// As a Gen writes it: `i64`, `Map<String, Option<Bool>>`.
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = match self {
            ValueType::Enum(name) | ValueType::Record(name) | ValueType::Opaque(name) => name,
            ValueType::Option(inner) => return write!(formatter, "Option<{inner}>"),
            ValueType::List(inner) => return write!(formatter, "List<{inner}>"),
            ValueType::Set(inner) => return write!(formatter, "Set<{inner}>"),
            ValueType::Map(key, value) => return write!(formatter, "Map<{key}, {value}>"),
            ValueType::Ref(name) => return write!(formatter, "Ref<{name}>"),
            ValueType::Tuple(types) => {
                formatter.write_str("(")?;
                for (index, part) in types.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(formatter, "{comma}{part}")?;
                }
                ")"
            }
            scalar => scalar.scalar_name().unwrap_or_default(),
        };
        formatter.write_str(name)
    }
}

/// Whether values ascend by their bytes, each once.
fn is_ascending<'a>(values: impl Iterator<Item = &'a Value>) -> bool {
    let mut last = Vec::new();
    for value in values {
        let bytes = value.to_bytes();
        if bytes <= last {
            return false;
        }
        last = bytes;
    }
    true
}

impl Value {
    /// Appends the value's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Bool(truth) => encode_bool(*truth, out),
            Value::Int(number) => encode_int(*number, out),
            Value::Float(number) => encode_float(*number, out),
            Value::String(text) => {
                write_byte(out, KIND_STRING << 2 | WIRE_LENGTH);
                write_bytes(out, text.as_bytes());
            }
            Value::Bytes(bytes) => encode_bytes(bytes, out),
            // Nobody makes them where nobody can read them.
            _ if !cfg!(feature = "composite") => {}
            Value::None => write_byte(out, KIND_NONE << 2 | WIRE_NOTHING),
            Value::Variant(number) => {
                write_byte(out, KIND_VARIANT << 2 | WIRE_VARINT);
                write_varint(out, (*number).into());
            }
            Value::List(values) => encode_parts(KIND_LIST, out, |inside| {
                values.iter().for_each(|value| value.encode(inside));
            }),
            Value::Map(entries) => encode_parts(KIND_MAP, out, |inside| {
                for (key, value) in entries {
                    key.encode(inside);
                    value.encode(inside);
                }
            }),
            Value::Record(fields) => encode_parts(KIND_RECORD, out, |inside| {
                for (number, value) in fields {
                    write_varint(inside, (*number).into());
                    value.encode(inside);
                }
            }),
            Value::Opaque(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// The list of a set's values: ascending by their bytes, each once.
    pub fn set_of(values: impl IntoIterator<Item = Value>) -> Value {
        let sorted: BTreeMap<Vec<u8>, Value> =
            values.into_iter().map(|value| (value.to_bytes(), value)).collect();
        Value::List(sorted.into_values().collect())
    }

    /// A map of these entries; of several under one key the last one counts.
    pub fn map_of(entries: impl IntoIterator<Item = (Value, Value)>) -> Value {
        let sorted: BTreeMap<Vec<u8>, (Value, Value)> =
            entries.into_iter().map(|entry| (entry.0.to_bytes(), entry)).collect();
        Value::Map(sorted.into_values().collect())
    }

    /// Reads a value of a kind that this version knows; `None` for any other. The bytes must have
    /// passed [`skip_value`] before.
    pub fn decode(bytes: &[u8]) -> Option<Value> {
        let mut reader = Reader::new(bytes);
        let tag = reader.byte().ok()?;
        Some(match (tag >> 2, tag & 3) {
            (KIND_FALSE, WIRE_NOTHING) => Value::Bool(false),
            (KIND_TRUE, WIRE_NOTHING) => Value::Bool(true),
            (KIND_SIGNED, WIRE_VARINT) => Value::Int(zigzag_decode(reader.varint().ok()?).into()),
            (KIND_UNSIGNED_LARGE, WIRE_VARINT) => Value::Int(reader.varint().ok()?.into()),
            (KIND_FLOAT, WIRE_EIGHT) => Value::Float(f64::from_le_bytes(reader.array().ok()?)),
            (KIND_STRING, WIRE_LENGTH) => {
                let text = core::str::from_utf8(reader.bytes().ok()?).ok()?;
                Value::String(String::from(text))
            }
            (KIND_BYTES, WIRE_LENGTH) => Value::Bytes(Vec::from(reader.bytes().ok()?)),
            (KIND_NONE, WIRE_NOTHING) => Value::None,
            (KIND_VARIANT, WIRE_VARINT) => {
                Value::Variant(reader.varint_up_to(u32::MAX.into()).ok()? as u32)
            }
            (KIND_LIST | KIND_MAP | KIND_RECORD, WIRE_LENGTH) if cfg!(feature = "composite") => {
                decode_parts(tag >> 2, reader.bytes().ok()?)?
            }
            _ => return None,
        })
    }

    /// Reads a value at the front of others, keeping what this version does not know.
    fn decode_part(reader: &mut Reader<'_>) -> Value {
        let bytes = step_over_value(reader);
        Value::decode(bytes).unwrap_or_else(|| Value::Opaque(Vec::from(bytes)))
    }

    /// The value's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = buffer_for(16);
        self.encode(&mut out);
        out
    }
}

/// Appends a value of several parts.
fn encode_parts(kind: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inside = Vec::new();
    write(&mut inside);
    encode_inside(kind, &inside, out);
}

/// Reads the parts of a value.
fn decode_parts(kind: u8, inside: &[u8]) -> Option<Value> {
    let mut reader = Reader::new(inside);
    let (mut values, mut entries, mut fields) = (Vec::new(), Vec::new(), Vec::new());
    while !reader.is_empty() {
        match kind {
            KIND_LIST => values.push(Value::decode_part(&mut reader)),
            KIND_MAP => {
                let key = Value::decode_part(&mut reader);
                entries.push((key, Value::decode_part(&mut reader)));
            }
            _ => {
                let number = reader.varint_up_to_or_zero(MAX_FIELD_NUMBER.into()) as u32;
                fields.push((number, Value::decode_part(&mut reader)));
            }
        }
    }
    reader.checked(()).ok()?;
    Some(match kind {
        KIND_LIST => Value::List(values),
        KIND_MAP => Value::Map(entries),
        _ => Value::Record(fields),
    })
}

/// Appends an integer. Numbers of `i64` are zigzag varints; larger ones up to `u64::MAX` have a
/// kind of their own, so that every number has exactly one encoding.
///
/// # Panics
/// In debug builds for a number that is in neither `i64` nor `u64`: field types admit none.
pub fn encode_int(number: i128, out: &mut Vec<u8>) {
    if let Ok(signed) = i64::try_from(number) {
        encode_i64(signed, out);
    } else {
        debug_assert!(u64::try_from(number).is_ok());
        write_byte(out, KIND_UNSIGNED_LARGE << 2 | WIRE_VARINT);
        write_varint(out, number as u64);
    }
}

/// The integer in a value's bytes.
pub fn decode_int(bytes: &[u8]) -> Option<i128> {
    let mut reader = Reader::new(bytes);
    let tag = reader.byte_or_zero();
    let number = reader.varint_or_zero();
    let is_large = tag == KIND_UNSIGNED_LARGE << 2 | WIRE_VARINT;
    let is_integer = is_large || tag == KIND_SIGNED << 2 | WIRE_VARINT;
    let shown = if is_large { number.into() } else { zigzag_decode(number).into() };
    (is_integer && !reader.has_failed()).then_some(shown)
}

/// Appends a truth value.
pub fn encode_bool(truth: bool, out: &mut Vec<u8>) {
    let kind = if truth { KIND_TRUE } else { KIND_FALSE };
    write_byte(out, kind << 2 | WIRE_NOTHING);
}

/// The truth value in a value's bytes.
pub fn decode_bool(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [byte] if *byte == KIND_FALSE << 2 => Some(false),
        [byte] if *byte == KIND_TRUE << 2 => Some(true),
        _ => None,
    }
}

/// Appends a float.
pub fn encode_float(number: f64, out: &mut Vec<u8>) {
    write_byte(out, KIND_FLOAT << 2 | WIRE_EIGHT);
    out.extend_from_slice(&canonical_float_bits(number).to_le_bytes());
}

/// The float in a value's bytes.
pub fn decode_float(bytes: &[u8]) -> Option<f64> {
    let mut reader = Reader::new(bytes);
    let is_float = reader.byte_or_zero() == KIND_FLOAT << 2 | WIRE_EIGHT;
    let number = f64::from_le_bytes(reader.array_or_zero());
    (is_float && !reader.has_failed()).then_some(number)
}

/// The bytes in a value's bytes.
pub fn decode_byte_string(bytes: &[u8]) -> Option<&[u8]> {
    decode_bytes(KIND_BYTES, bytes)
}

/// Appends an integer of `i64`: what [`Value::Int`] would, without the wide arithmetic.
pub fn encode_i64(number: i64, out: &mut Vec<u8>) {
    write_byte(out, KIND_SIGNED << 2 | WIRE_VARINT);
    write_varint(out, zigzag_encode(number));
}

/// The integer in a value's bytes, for a reader that wants no other kind.
pub fn decode_i64(bytes: &[u8]) -> Option<i64> {
    let mut reader = Reader::new(bytes);
    if reader.byte().ok()? != KIND_SIGNED << 2 | WIRE_VARINT {
        return None;
    }
    Some(zigzag_decode(reader.varint().ok()?))
}

/// Appends a string.
pub fn encode_str(text: &str, out: &mut Vec<u8>) {
    encode_utf8(text.as_bytes(), out);
}

/// Appends a string in bytes that [`is_utf8`].
pub fn encode_utf8(text: &[u8], out: &mut Vec<u8>) {
    write_byte(out, KIND_STRING << 2 | WIRE_LENGTH);
    write_bytes(out, text);
}

/// Appends bytes of any kind.
pub fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_byte(out, KIND_BYTES << 2 | WIRE_LENGTH);
    write_bytes(out, bytes);
}

/// The string in a value's bytes, borrowed.
pub fn decode_str(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(decode_utf8(bytes)?).ok()
}

/// The bytes of the string in a value's bytes; they have been checked when they came in.
pub fn decode_utf8(bytes: &[u8]) -> Option<&[u8]> {
    decode_bytes(KIND_STRING, bytes)
}

/// Appends a counter's sub-entries or totals as one opaque value, so that a replica that does not
/// know the strategy can step over it.
pub(crate) fn encode_counts(counts: &[u8], out: &mut Vec<u8>) {
    write_byte(out, KIND_COUNTS << 2 | WIRE_LENGTH);
    write_bytes(out, counts);
}

/// Appends what [`encode_counts`] does of what `write` appends.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn write_counts(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    encode_counts(&[], out);
    let start = out.len();
    write(out);
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
    } else {
        // The room that is left is for a length of one byte.
        let inside = out.split_off(start);
        out.truncate(start - 1);
        write_bytes(out, &inside);
    }
}

/// The same in fewer instructions of WASM, which allocate.
#[cfg(target_arch = "wasm32")]
pub(crate) fn write_counts(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    wrap(KIND_COUNTS, out, start);
}

/// Puts what has been appended since there were so many bytes inside of a value of this kind.
#[cfg(target_arch = "wasm32")]
#[inline(never)]
pub fn wrap(kind: u8, out: &mut Vec<u8>, start: usize) {
    let mut parts = Vec::new();
    parts.extend_from_slice(out.get(start..).unwrap_or_default());
    out.truncate(start);
    encode_inside(kind, &parts, out);
}

/// The bytes inside a value written by [`encode_counts`].
pub(crate) fn decode_counts(bytes: &[u8]) -> Option<&[u8]> {
    decode_bytes(KIND_COUNTS, bytes)
}

/// Whether a value's bytes are those of the absence that an `Option` holds.
pub fn is_none(bytes: &[u8]) -> bool {
    bytes == [KIND_NONE << 2 | WIRE_NOTHING]
}

/// Whether a value's bytes are those of a variant of an enum.
pub fn is_variant(bytes: &[u8]) -> bool {
    bytes.first() == Some(&(KIND_VARIANT << 2 | WIRE_VARINT))
}

/// The parts in the bytes of a value of this kind, one after the other.
pub fn inside(kind: u8, bytes: &[u8]) -> Option<&[u8]> {
    decode_bytes(kind, bytes)
}

/// Appends a value of this kind with these parts.
pub fn encode_inside(kind: u8, parts: &[u8], out: &mut Vec<u8>) {
    write_byte(out, kind << 2 | WIRE_LENGTH);
    write_bytes(out, parts);
}

/// The bytes inside a value of a kind that has a length.
fn decode_bytes(kind: u8, bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes);
    let tag = reader.byte_or_zero();
    let inside = reader.bytes_or_empty();
    (tag == kind << 2 | WIRE_LENGTH && !reader.has_failed()).then_some(inside)
}

/// Steps over one value, checking that it is well formed and canonical.
///
/// # Errors
/// Says what is wrong with the bytes. A kind that this version does not know is no error.
pub fn skip_value<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], MalformedFrame> {
    let value = step_over_value(reader);
    check_value(value, reader);
    reader.checked(value)
}

/// Steps over one value without looking into it, leaving a fault in the reader.
pub fn step_over_value<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    let start = reader.rest();
    match reader.byte_or_zero() & 3 {
        WIRE_NOTHING => {}
        WIRE_VARINT => {
            reader.varint_or_zero();
        }
        WIRE_EIGHT => {
            reader.take_or_empty(8);
        }
        _ => {
            reader.bytes_or_empty();
        }
    }
    reader.since(start)
}

/// Checks that a value, which has been stepped over, is canonical; a fault goes to `reader`.
pub(crate) fn check_value(value: &[u8], reader: &mut Reader<'_>) {
    check_nested_value(value, MAX_VALUE_DEPTH, reader);
}

/// [`check_value`] of a value that may hold others so many levels deep.
fn check_nested_value(value: &[u8], depth_left: usize, reader: &mut Reader<'_>) {
    let mut inside = Reader::new(value);
    let tag = inside.byte_or_zero();
    let (kind, wire) = (tag >> 2, tag & 3);
    let is_canonical = match kind {
        KIND_FALSE | KIND_TRUE => wire == WIRE_NOTHING,
        KIND_SIGNED => wire == WIRE_VARINT,
        KIND_UNSIGNED_LARGE => wire == WIRE_VARINT && inside.varint_or_zero() > i64::MAX as u64,
        KIND_FLOAT => {
            let bits = u64::from_le_bytes(inside.array_or_zero());
            wire == WIRE_EIGHT && bits == canonical_float_bits(f64::from_bits(bits))
        }
        KIND_NONE => wire == WIRE_NOTHING,
        KIND_VARIANT => wire == WIRE_VARINT && inside.varint_or_zero() <= u32::MAX.into(),
        KIND_STRING | KIND_COUNTS | KIND_BYTES | KIND_LIST | KIND_RECORD | KIND_MAP => {
            wire == WIRE_LENGTH
        }
        _ => true,
    };
    reader.check(is_canonical, MalformedFrame::ValueNotCanonical);
    // To a build that cannot read them they are of a later version, like kinds that nobody knows.
    if cfg!(feature = "composite") && matches!(kind, KIND_LIST | KIND_RECORD | KIND_MAP) {
        return check_parts(kind, inside.bytes_or_empty(), depth_left, reader);
    }
    let is_text = kind != KIND_STRING || is_utf8(inside.bytes_or_empty());
    reader.check(is_text, MalformedFrame::StringNotUtf8);
}

/// Checks the parts of a value: each on its own, and keys and numbers for their order.
fn check_parts(kind: u8, parts: &[u8], depth_left: usize, reader: &mut Reader<'_>) {
    reader.check(depth_left > 0, MalformedFrame::TooLarge);
    let mut inside = Reader::new(parts);
    let (mut last_number, mut last_key): (u64, &[u8]) = (0, &[]);
    while !inside.is_empty() && depth_left > 0 {
        if kind == KIND_RECORD {
            let number = inside.varint_up_to_or_zero(MAX_FIELD_NUMBER.into());
            inside.check(last_number < number, MalformedFrame::NotSorted);
            last_number = number;
        }
        if kind == KIND_MAP {
            let key = step_over_value(&mut inside);
            inside.check(last_key < key, MalformedFrame::NotSorted);
            check_nested_value(key, depth_left - 1, &mut inside);
            last_key = key;
        }
        let value = step_over_value(&mut inside);
        check_nested_value(value, depth_left - 1, &mut inside);
    }
    if let Err(what) = inside.checked(()) {
        reader.fail(what);
    }
}

/// One NaN, and minus zero as zero: equal numbers have equal bytes.
#[inline(never)]
pub(crate) fn canonical_float_bits(number: f64) -> u64 {
    if number.is_nan() {
        0x7ff8_0000_0000_0000
    } else if number == 0.0 {
        0
    } else {
        number.to_bits()
    }
}

impl PartialEq for Value {
    /// Equality of the stored bytes: NaN equals itself, and minus zero equals zero.
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Int(left), Value::Int(right)) => left == right,
            (Value::Float(left), Value::Float(right)) => {
                canonical_float_bits(*left) == canonical_float_bits(*right)
            }
            (Value::String(left), Value::String(right)) => left == right,
            (Value::Bytes(left), Value::Bytes(right)) => left == right,
            (Value::None, Value::None) => true,
            (Value::Variant(left), Value::Variant(right)) => left == right,
            (Value::List(left), Value::List(right)) => left == right,
            (Value::Map(left), Value::Map(right)) => left == right,
            (Value::Record(left), Value::Record(right)) => left == right,
            (Value::Opaque(left), Value::Opaque(right)) => left == right,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
            (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Bytes(left), Value::Bytes(right)) => Some(left.cmp(right)),
            (Value::Variant(left), Value::Variant(right)) => Some(left.cmp(right)),
            (Value::List(left), Value::List(right)) => left.partial_cmp(right),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(String::from(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Value {
        Value::Bytes(Vec::from(bytes))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        Value::Bytes(bytes)
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(bytes: [u8; N]) -> Value {
        Value::Bytes(Vec::from(bytes))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Bool(truth)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Float(number)
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Value {
        Value::Float(number.into())
    }
}

macro_rules! value_from_integer {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Value {
            fn from(number: $integer) -> Value {
                Value::Int(number.into())
            }
        }
    )*};
}
value_from_integer!(i8, i16, i32, i64, u8, u16, u32, u64);

impl core::fmt::Display for Value {
    /// As a person would write it: text without quotes, bytes in hexadecimal, fields and variants
    /// by their numbers.
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Value::Bool(truth) => truth.fmt(formatter),
            Value::Int(number) => number.fmt(formatter),
            Value::Float(number) => number.fmt(formatter),
            Value::String(text) => text.fmt(formatter),
            Value::Bytes(bytes) | Value::Opaque(bytes) => {
                bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
            Value::None => formatter.write_str("none"),
            Value::Variant(number) => write!(formatter, "#{number}"),
            Value::List(values) => {
                formatter.debug_list().entries(values.iter().map(Shown)).finish()
            }
            Value::Map(entries) => {
                let shown = entries.iter().map(|(key, value)| (Shown(key), Shown(value)));
                formatter.debug_map().entries(shown).finish()
            }
            Value::Record(fields) => {
                let shown = fields.iter().map(|(number, value)| (number, Shown(value)));
                formatter.debug_map().entries(shown).finish()
            }
        }
    }
}

/// A part of a value, shown as the value itself would be.
struct Shown<'a>(&'a Value);

impl core::fmt::Debug for Shown<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self.0, formatter)
    }
}
