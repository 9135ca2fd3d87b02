//! The WASM back end: a schema to a module, with the JavaScript and TypeScript that go with it.
//!
//! **The idea.** The runtime is compiled once and embedded. Building an application's module is
//! rewriting: put the schema's data in, add an export per field that calls the runtime with
//! constants, drop everything that no export reaches. No toolchain is needed, and it takes
//! milliseconds.
//!
//! ```text
//! embedded runtime --+
//!                    +--> specialise --> app.wasm   (custom section `vudo.schema` = the schema)
//! Schema ------------+--> javascript --> app.js
//!                    +--> typescript --> app.d.ts
//! ```
//!
//! **The invariant.** The output is a function of the schema and this version alone, byte by byte.

mod abi;
mod javascript;
mod names;
mod order;
mod schema_section;
mod specialise;
mod typescript;
mod validate;

use std::fmt;

use vudo_crdt::{MalformedFrame, Schema};
use wasmparser::BinaryReader;

pub use abi::{ERROR_CODES, error_name};

/// The custom section that holds the schema.
pub const SCHEMA_SECTION: &str = "vudo.schema";

/// What [`build`] makes of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The module: `app.wasm`. Needs no imports.
    pub wasm: Vec<u8>,
    /// An ES module that loads the module from beside itself: `app.js`.
    pub javascript: String,
    /// The types of the ES module: `app.d.ts`.
    pub typescript: String,
}

/// Why no module came of a schema, or no schema of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The schema has a Gen that no store could hold.
    Gen {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The schema has a field that no store could hold.
    Field {
        /// The name of its Gen.
        gen_name: String,
        /// Its own name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The bytes are not a WASM module, or the embedded runtime is damaged.
    NotAModule(String),
    /// The module carries no schema: this compiler did not make it.
    NoSchema,
    /// The schema that the module carries cannot be read.
    Schema(MalformedFrame),
    /// The module has not the exports that would name a field of its schema.
    Unnamed {
        /// The name of the field's Gen.
        gen_name: String,
        /// The field's number.
        number: u32,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Gen { name, what } => write!(formatter, "gen {name}: {what}"),
            BuildError::Field { gen_name, name, what } => {
                write!(formatter, "field {gen_name}.{name}: {what}")
            }
            BuildError::NotAModule(what) => write!(formatter, "not a WASM module: {what}"),
            BuildError::NoSchema => write!(
                formatter,
                "the module has no section {SCHEMA_SECTION}: it was not made by this compiler"
            ),
            BuildError::Schema(what) => {
                write!(formatter, "the module's schema cannot be read by this version: {what}")
            }
            BuildError::Unnamed { gen_name, number } => write!(
                formatter,
                "the module's exports do not name field {number} of {gen_name}: \
                 something has changed them; inspect the module as `vudo build` wrote it"
            ),
        }
    }
}

impl std::error::Error for BuildError {}

/// How a module's fields are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accessors {
    /// Exports for each field: the smaller way for a record of a few fields.
    #[default]
    Typed,
    /// Exports for each kind of field, which take the field's number among all fields of the module:
    /// a further field costs a few bytes of data. What the JavaScript offers is the same.
    Generic,
}

/// What there is to choose about a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions<'o> {
    /// The module's file name, by which its JavaScript looks for it.
    pub wasm_file_name: &'o str,
    /// How its fields are read and written.
    pub accessors: Accessors,
}

impl Default for BuildOptions<'_> {
    fn default() -> Self {
        BuildOptions { wasm_file_name: "app.wasm", accessors: Accessors::default() }
    }
}

/// Builds the module of a schema, which will be called `app.wasm`.
///
/// # Errors
/// The schema breaks a bound or rule of the store: a name twice, a number out of range, a strategy
/// on a type that it cannot merge. A schema that the checker passed does not.
pub fn build(schema: &Schema) -> Result<Module, BuildError> {
    build_with(schema, &BuildOptions::default())
}

/// [`build`] with something else chosen.
///
/// # Errors
/// As for [`build`].
pub fn build_with(schema: &Schema, options: &BuildOptions<'_>) -> Result<Module, BuildError> {
    validate::validate(schema)?;
    let names = names::Names::of(schema);
    Ok(Module {
        wasm: specialise::specialise(schema, options.accessors)?,
        javascript: javascript::javascript(schema, &names, options),
        typescript: typescript::typescript(schema, &names),
    })
}

/// Reads the schema back that a module was built from.
///
/// # Errors
/// The bytes are no module, or one without a readable schema, or its exports have been changed.
pub fn inspect(wasm: &[u8]) -> Result<Schema, BuildError> {
    let not_a_module = |what: &str| BuildError::NotAModule(what.into());
    let mut rest = wasm
        .strip_prefix(b"\0asm\x01\0\0\0")
        .ok_or_else(|| not_a_module("the first eight bytes are another format's"))?;
    let mut schema = None;
    let mut exports = Vec::new();
    // To the end, for the schema stands before most of it and the rest may be cut off.
    while let Some((&id, after)) = rest.split_first() {
        let mut reader = vudo_crdt::wire::Reader::new(after);
        let section = read_padded_length(&mut reader)
            .and_then(|length| reader.take(length).ok())
            .ok_or_else(|| not_a_module("a section ends too early"))?;
        rest = reader.rest();
        if id == EXPORT_SECTION_ID {
            exports = export_names(section)
                .ok_or_else(|| not_a_module("the section of exports is damaged"))?;
        }
        let mut section = vudo_crdt::wire::Reader::new(section);
        if id == 0 && section.bytes() == Ok(SCHEMA_SECTION.as_bytes()) {
            schema = Some(section.rest());
        }
    }
    schema_section::decode(schema.ok_or(BuildError::NoSchema)?, &exports)
}

const EXPORT_SECTION_ID: u8 = 7;

fn export_names(section: &[u8]) -> Option<Vec<&str>> {
    let exports = wasmparser::ExportSectionReader::new(BinaryReader::new(section, 0)).ok()?;
    exports.into_iter().map(|export| Some(export.ok()?.name)).collect()
}

/// A length as WASM writes it: up to five bytes, of which tools may use more than it needs.
fn read_padded_length(reader: &mut vudo_crdt::wire::Reader<'_>) -> Option<usize> {
    let mut length = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = reader.byte().ok()?;
        length |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(length).ok();
        }
    }
    None
}
