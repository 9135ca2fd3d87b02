//! The custom section in which a module carries its schema.
//!
//! **The idea.** What a module says elsewhere already, or what can be foretold, takes bytes with each
//! field. With typed accessors the exports have the fields' names; of a schema that is declared from
//! top to bottom each number is the one after that before it. So the section holds a byte, which says
//! where the names are, and a schema with differences in place of numbers.
//!
//! **The invariant.** Reading what was written gives the same schema; anything else is an error.

use vudo_crdt::limits::MAX_GEN_NAME_BYTES;
use vudo_crdt::{GenSchema, MalformedFrame, Schema};

use super::abi::{OF_GEN, exports_of};
use super::{Accessors, BuildError};

/// The first byte of the section: the fields' names are those of their exports, or stand in the schema.
const NAMES_IN_EXPORTS: u8 = 1;
const NAMES_IN_SCHEMA: u8 = 2;

/// Stands where a name is left out, for a schema that is read has no empty ones.
const NO_NAME: &str = "\0";

/// Gives the content of the section for a schema that has been validated.
pub(super) fn encode(schema: &Schema, accessors: Accessors) -> Vec<u8> {
    let mut carried = schema.clone();
    for gen_schema in &mut carried.gens {
        let mut expected = 1u16;
        for field in &mut gen_schema.fields {
            // A number is at most 65,535.
            let number = field.number as u16;
            field.number = number.wrapping_sub(expected).into();
            expected = number.wrapping_add(1);
            if accessors == Accessors::Typed {
                field.name = NO_NAME.into();
            }
        }
    }
    let mut bytes = Vec::from([match accessors {
        Accessors::Typed => NAMES_IN_EXPORTS,
        Accessors::Generic => NAMES_IN_SCHEMA,
    }]);
    bytes.extend(carried.encode());
    bytes
}

/// Reads the schema from the content of the section and the names of the module's exports, in their
/// order.
///
/// # Errors
/// The content is of another version or malformed, or the exports are not those of such fields.
pub(super) fn decode(bytes: &[u8], exports: &[&str]) -> Result<Schema, BuildError> {
    let (names, bytes) = match bytes.split_first() {
        Some((names @ (&NAMES_IN_EXPORTS | &NAMES_IN_SCHEMA), bytes)) => (*names, bytes),
        _ => return Err(BuildError::Schema(MalformedFrame::FormatVersion)),
    };
    let mut schema = Schema::decode(bytes).map_err(BuildError::Schema)?;
    let mut exports = exports.iter().copied();
    for gen_schema in &mut schema.gens {
        let mut expected = 1u16;
        for field in &mut gen_schema.fields {
            // Numbers that are read are at most 65,535 as well.
            let number = expected.wrapping_add(field.number as u16);
            if number == 0 {
                return Err(BuildError::Schema(MalformedFrame::IndexOutOfRange));
            }
            field.number = number.into();
            expected = number.wrapping_add(1);
        }
        if names == NAMES_IN_EXPORTS {
            name_fields(gen_schema, &mut exports)?;
        }
    }
    Ok(schema)
}

/// Names a Gen's fields after their exports, which follow those of the Gen itself.
fn name_fields<'e>(
    gen_schema: &mut GenSchema,
    exports: &mut impl Iterator<Item = &'e str>,
) -> Result<(), BuildError> {
    let gen_name = &gen_schema.name;
    let prefix = format!("{gen_name}.");
    let operation_of = |export: &'e str| export.strip_prefix(&prefix);
    let unnamed = |number| BuildError::Unnamed { gen_name: gen_name.clone(), number };
    let last = OF_GEN[OF_GEN.len() - 1];
    exports.find(|export| operation_of(export) == Some(last));
    for field in &mut gen_schema.fields {
        let mut name = None;
        for expected in exports_of(field) {
            let export = exports.next().and_then(operation_of);
            let (of, operation) = export.and_then(|export| export.rsplit_once('.')).unzip();
            if operation != Some(expected.operation) || name.is_some_and(|name| Some(name) != of) {
                return Err(unnamed(field.number));
            }
            name = of;
        }
        let name = name.filter(|name| (1..=MAX_GEN_NAME_BYTES).contains(&name.len()));
        field.name = name.ok_or_else(|| unnamed(field.number))?.into();
    }
    Ok(())
}
