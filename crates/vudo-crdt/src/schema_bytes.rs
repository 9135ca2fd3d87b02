//! A schema as bytes: what a WASM module carries and what a store remembers.
//!
//! ```text
//! schema = "VS" | format version | gen count | gen* | enum count | enum*
//! gen    = name | field count | field* | rule count | rule*         names: length, UTF-8
//! field  = name | number | strategy tag | type | flags | default, minimum, maximum as flagged
//!          | strategy tag of its values, of a map | predecessor as flagged
//! predecessor = field | expression count, 0 or 1 | expression | input count | field*
//! type   = tag | the parts of the type: types, a count and types, or a name
//! enum   = name | variant count | (name | number)*
//! rule   = name | condition                                         `rule.rs` has its form
//! ```

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{
    MAX_FIELD_NUMBER, MAX_GEN_NAME_BYTES, MAX_GENS, MAX_PREDECESSORS, MAX_RULE_PARTS,
    MAX_VALUE_DEPTH,
};
use crate::rule::{Expression, Rule};
use crate::schema::{
    Conversion, CounterOptions, EnumSchema, FieldSchema, GenSchema, Overflow, Predecessor, Schema,
    Strategy,
};
use crate::value::{Value, ValueType, skip_value};
use crate::wire::{
    MalformedFrame, Reader, write_bytes, write_varint, zigzag_decode, zigzag_encode,
};

const MAGIC: &[u8] = b"VS\x02";
const HAS_DEFAULT: u8 = 1;
const HAS_MINIMUM: u8 = 2;
const HAS_MAXIMUM: u8 = 4;
const HAS_PREDECESSOR: u8 = 8;
const OVERFLOW_SHIFT: u8 = 4;
/// Most parts of a tuple.
const MAX_TUPLE_TYPES: u64 = 64;

impl Schema {
    /// The schema's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from(MAGIC);
        write_varint(&mut out, self.gens.len() as u64);
        for gen_schema in &self.gens {
            write_bytes(&mut out, gen_schema.name.as_bytes());
            write_varint(&mut out, gen_schema.fields.len() as u64);
            gen_schema.fields.iter().for_each(|field| encode_field(field, &mut out));
            write_varint(&mut out, gen_schema.rules.len() as u64);
            gen_schema.rules.iter().for_each(|rule| rule.encode(&mut out));
        }
        write_varint(&mut out, self.enums.len() as u64);
        for enum_schema in &self.enums {
            write_bytes(&mut out, enum_schema.name.as_bytes());
            write_varint(&mut out, enum_schema.variants.len() as u64);
            for (name, number) in &enum_schema.variants {
                write_bytes(&mut out, name.as_bytes());
                write_varint(&mut out, (*number).into());
            }
        }
        out
    }

    /// Reads a schema.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; a strategy or type of a later version is an error too,
    /// because local writes could not be checked against it.
    pub fn decode(bytes: &[u8]) -> Result<Schema, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(MalformedFrame::FormatVersion);
        }
        let mut schema = Schema::default();
        for _ in 0..reader.varint_up_to(MAX_GENS as u64)? {
            let name = read_name(&mut reader)?;
            let mut fields = Vec::new();
            for _ in 0..reader.varint_up_to(MAX_FIELD_NUMBER.into())? {
                fields.push(decode_field(&mut reader, MAX_PREDECESSORS)?);
            }
            let mut rules = Vec::new();
            for _ in 0..reader.varint_up_to(MAX_FIELD_NUMBER.into())? {
                rules.push(Rule::decode(&mut reader)?);
            }
            schema.gens.push(GenSchema { name, fields, rules });
        }
        for _ in 0..reader.varint_up_to(MAX_GENS as u64)? {
            let name = read_name(&mut reader)?;
            let mut variants = Vec::new();
            for _ in 0..reader.varint_up_to(MAX_FIELD_NUMBER.into())? {
                let variant = read_name(&mut reader)?;
                variants.push((variant, reader.varint_up_to(MAX_FIELD_NUMBER.into())? as u32));
            }
            schema.enums.push(EnumSchema { name, variants });
        }
        if reader.is_empty() { Ok(schema) } else { Err(MalformedFrame::TrailingBytes) }
    }
}

fn encode_field(field: &FieldSchema, out: &mut Vec<u8>) {
    write_bytes(out, field.name.as_bytes());
    write_varint(out, field.number.into());
    out.push(field.strategy.tag());
    encode_type(&field.value_type, out);
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let counter = &field.counter;
    out.push(
        flag(field.default.is_some(), HAS_DEFAULT)
            | flag(counter.min_value.is_some(), HAS_MINIMUM)
            | flag(counter.max_value.is_some(), HAS_MAXIMUM)
            | flag(field.predecessor.is_some(), HAS_PREDECESSOR)
            | (counter.overflow as u8) << OVERFLOW_SHIFT,
    );
    if let Some(default) = &field.default {
        default.encode(out);
    }
    for bound in [counter.min_value, counter.max_value].into_iter().flatten() {
        write_varint(out, zigzag_encode(bound));
    }
    if field.strategy == Strategy::Map {
        out.push(field.value_strategy.tag());
    }
    if let Some(predecessor) = &field.predecessor {
        encode_field(&predecessor.field, out);
        let conversion = predecessor.conversion.as_ref();
        out.push(u8::from(conversion.is_some()));
        if let Some(Conversion { expression, inputs }) = conversion {
            expression.encode(out);
            write_varint(out, inputs.len() as u64);
            inputs.iter().for_each(|input| encode_field(input, out));
        }
    }
}

fn encode_type(value_type: &ValueType, out: &mut Vec<u8>) {
    out.push(value_type.tag());
    match value_type {
        ValueType::Option(inner) | ValueType::List(inner) | ValueType::Set(inner) => {
            encode_type(inner, out);
        }
        ValueType::Map(key, value) => {
            encode_type(key, out);
            encode_type(value, out);
        }
        ValueType::Tuple(types) => {
            write_varint(out, types.len() as u64);
            types.iter().for_each(|part| encode_type(part, out));
        }
        ValueType::Enum(name)
        | ValueType::Record(name)
        | ValueType::Ref(name)
        | ValueType::Opaque(name) => write_bytes(out, name.as_bytes()),
        _ => {}
    }
}

fn decode_type(reader: &mut Reader<'_>, depth_left: usize) -> Result<ValueType, MalformedFrame> {
    let depth_left = depth_left.checked_sub(1).ok_or(MalformedFrame::TooLarge)?;
    let inner = |reader: &mut Reader<'_>| decode_type(reader, depth_left).map(Box::new);
    Ok(match reader.byte()? {
        20 => ValueType::Option(inner(reader)?),
        21 => ValueType::List(inner(reader)?),
        22 => ValueType::Set(inner(reader)?),
        23 => ValueType::Map(inner(reader)?, inner(reader)?),
        24 => {
            let mut types = Vec::new();
            for _ in 0..reader.varint_up_to(MAX_TUPLE_TYPES)? {
                types.push(decode_type(reader, depth_left)?);
            }
            ValueType::Tuple(types)
        }
        25 => ValueType::Enum(read_name(reader)?.into()),
        26 => ValueType::Record(read_name(reader)?.into()),
        27 => ValueType::Ref(read_name(reader)?.into()),
        28 => ValueType::Opaque(read_name(reader)?.into()),
        tag => ValueType::scalar_of_tag(tag).ok_or(MalformedFrame::PayloadDoesNotFit)?,
    })
}

/// Reads a field that has at most so many others behind it, one before the other.
fn decode_field(
    reader: &mut Reader<'_>,
    predecessors_left: usize,
) -> Result<FieldSchema, MalformedFrame> {
    let unknown = MalformedFrame::PayloadDoesNotFit;
    let name = read_name(reader)?;
    let number = reader.varint_up_to(MAX_FIELD_NUMBER.into())? as u32;
    let strategy = Strategy::from_tag(reader.byte()?).ok_or(unknown)?;
    let value_type = decode_type(reader, MAX_VALUE_DEPTH)?;
    let flags = reader.byte()?;
    let mut default = None;
    if flags & HAS_DEFAULT != 0 {
        default = Some(Value::decode(skip_value(reader)?).ok_or(unknown)?);
    }
    let mut bound = |flag: u8| -> Result<Option<i64>, MalformedFrame> {
        if flags & flag == 0 {
            Ok(None)
        } else {
            reader.varint().map(|raw| Some(zigzag_decode(raw)))
        }
    };
    let min_value = bound(HAS_MINIMUM)?;
    let max_value = bound(HAS_MAXIMUM)?;
    let has_predecessor = flags & HAS_PREDECESSOR != 0;
    let overflow = match flags >> OVERFLOW_SHIFT {
        0 => Overflow::Saturate,
        1 => Overflow::Wrap,
        2 => Overflow::Error,
        _ => return Err(unknown),
    };
    let counter = CounterOptions { min_value, max_value, overflow };
    let value_strategy = match strategy {
        Strategy::Map => Strategy::from_tag(reader.byte()?).ok_or(unknown)?,
        _ => Strategy::Lww,
    };
    let mut predecessor = None;
    if has_predecessor {
        let left = predecessors_left.checked_sub(1).ok_or(MalformedFrame::TooLarge)?;
        predecessor = Some(Box::new(decode_predecessor(reader, left)?));
    }
    let field = FieldSchema::new("", number, strategy, value_type);
    Ok(FieldSchema { name: name.into(), default, counter, value_strategy, predecessor, ..field })
}

fn decode_predecessor(
    reader: &mut Reader<'_>,
    predecessors_left: usize,
) -> Result<Predecessor, MalformedFrame> {
    let field = decode_field(reader, predecessors_left)?;
    let mut conversion = None;
    if reader.varint_up_to(1)? == 1 {
        let expression = Expression::decode(reader)?;
        let mut inputs = Vec::new();
        for _ in 0..reader.varint_up_to(MAX_RULE_PARTS as u64)? {
            inputs.push(decode_field(reader, predecessors_left)?);
        }
        conversion = Some(Conversion { expression, inputs });
    }
    Ok(Predecessor { field, conversion })
}

fn read_name(reader: &mut Reader<'_>) -> Result<String, MalformedFrame> {
    let name = reader.bytes()?;
    if name.is_empty() || name.len() > MAX_GEN_NAME_BYTES {
        return Err(MalformedFrame::TooLarge);
    }
    let name = core::str::from_utf8(name).map_err(|_| MalformedFrame::StringNotUtf8)?;
    Ok(String::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Expression, Operation};

    #[test]
    fn a_schema_survives_its_bytes_and_every_truncation_is_refused() {
        let mut score = FieldSchema::new("score", 2, Strategy::PnCounter, ValueType::U32);
        score.counter =
            CounterOptions { min_value: Some(-3), max_value: Some(900), overflow: Overflow::Error };
        let mut title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
        title.default = Some(Value::from("untitled"));
        let text = || Box::new(ValueType::String);
        let pair = ValueType::Tuple([ValueType::Enum("State".into()), ValueType::F64].into());
        let stock = ValueType::Map(text(), Box::new(ValueType::Option(Box::new(pair))));
        let mut stock = FieldSchema::new("stock", 3, Strategy::Map, stock);
        stock.value_strategy = Strategy::MvRegister;
        let tags = FieldSchema::new("tags", 4, Strategy::OrSet, ValueType::Set(text()));
        let mut size = FieldSchema::new("size", 6, Strategy::Lww, ValueType::I32);
        let mut before = FieldSchema::new("size", 5, Strategy::Immutable, ValueType::F64);
        before.predecessor = Some(Box::new(Predecessor { field: tags.clone(), conversion: None }));
        let conversion =
            Conversion { expression: Expression::Field(5), inputs: [title.clone()].into() };
        size.predecessor =
            Some(Box::new(Predecessor { field: before, conversion: Some(conversion) }));
        let mut task = GenSchema::new("a.Task", [title, score, stock, tags, size]);
        let small =
            Expression::apply(Operation::Less, [Expression::Field(2), Expression::Field(1)]);
        task.rules.push(Rule { name: "small".into(), condition: small });
        let variants = [("Open".into(), 1), ("Done".into(), 7)].into();
        let enums = [EnumSchema { name: "State".into(), variants }].into();
        let schema = Schema { gens: [task].into(), enums };
        let bytes = schema.encode();
        assert_eq!(Schema::decode(&bytes), Ok(schema));
        for length in 0..bytes.len() {
            assert!(Schema::decode(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn no_schema_has_more_predecessors_than_reading_goes_through() {
        let mut field = FieldSchema::new("size", 1, Strategy::Lww, ValueType::I64);
        let schema_of = |field: &FieldSchema| {
            Schema::from(Vec::from([GenSchema::new("Task", [field.clone()])])).encode()
        };
        for number in 2..=MAX_PREDECESSORS as u32 + 2 {
            assert!(Schema::decode(&schema_of(&field)).is_ok(), "{number}");
            let next = FieldSchema::new("size", number, Strategy::Lww, ValueType::I64);
            let predecessor = Some(Box::new(Predecessor { field, conversion: None }));
            field = FieldSchema { predecessor, ..next };
        }
        assert_eq!(Schema::decode(&schema_of(&field)), Err(MalformedFrame::TooLarge));
    }
}
