//! A schema as bytes: what a WASM module carries and what a store remembers.
//!
//! ```text
//! schema = "VS" | format version | gen count | gen* | enum count | enum*
//! gen    = name | field count | field* | rule count | rule*         names: length, UTF-8
//! field  = name | number | strategy tag | type tag | flags | default, minimum, maximum as flagged
//! enum   = name | variant count | (name | number)*
//! rule   = name | condition                                         `rule.rs` has its form
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{MAX_FIELD_NUMBER, MAX_GEN_NAME_BYTES, MAX_GENS};
use crate::rule::Rule;
use crate::schema::{
    CounterOptions, EnumSchema, FieldSchema, GenSchema, Overflow, Schema, Strategy,
};
use crate::value::{Value, ValueType, skip_value};
use crate::wire::{
    MalformedFrame, Reader, write_bytes, write_varint, zigzag_decode, zigzag_encode,
};

const MAGIC: &[u8] = b"VS\x02";
const HAS_DEFAULT: u8 = 1;
const HAS_MINIMUM: u8 = 2;
const HAS_MAXIMUM: u8 = 4;
const OVERFLOW_SHIFT: u8 = 4;

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
                fields.push(decode_field(&mut reader)?);
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
    out.push(field.value_type.tag());
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let counter = &field.counter;
    out.push(
        flag(field.default.is_some(), HAS_DEFAULT)
            | flag(counter.min_value.is_some(), HAS_MINIMUM)
            | flag(counter.max_value.is_some(), HAS_MAXIMUM)
            | (counter.overflow as u8) << OVERFLOW_SHIFT,
    );
    if let Some(default) = &field.default {
        default.encode(out);
    }
    for bound in [counter.min_value, counter.max_value].into_iter().flatten() {
        write_varint(out, zigzag_encode(bound));
    }
}

fn decode_field(reader: &mut Reader<'_>) -> Result<FieldSchema, MalformedFrame> {
    let unknown = MalformedFrame::PayloadDoesNotFit;
    let name = read_name(reader)?;
    let number = reader.varint_up_to(MAX_FIELD_NUMBER.into())? as u32;
    let strategy = Strategy::from_tag(reader.byte()?).ok_or(unknown)?;
    let value_type = ValueType::from_tag(reader.byte()?).ok_or(unknown)?;
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
    let overflow = match flags >> OVERFLOW_SHIFT {
        0 => Overflow::Saturate,
        1 => Overflow::Wrap,
        2 => Overflow::Error,
        _ => return Err(unknown),
    };
    let counter = CounterOptions { min_value, max_value, overflow };
    Ok(FieldSchema { name, number, strategy, value_type, default, counter })
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
        let fields = [title, score];
        let mut task = GenSchema::new("a.Task", fields);
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
}
