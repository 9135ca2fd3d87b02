//! What compiler, runtime and hosts agree on: see `docs/reference/wasm-abi.md`.

use vudo_crdt::wire::{write_bytes, write_varint, zigzag_encode};
use vudo_crdt::{CounterOptions, FieldSchema, GenSchema, Schema, Strategy, ValueType};

/// The reasons that a module gives, by code, in ascending order. A code never changes its meaning.
pub const ERROR_CODES: [(u32, &str); 32] = [
    (1, "truncated"),
    (2, "varint_not_minimal"),
    (3, "checksum"),
    (4, "format_version"),
    (5, "too_large"),
    (6, "index_out_of_range"),
    (7, "string_not_utf8"),
    (8, "value_not_canonical"),
    (9, "not_sorted"),
    (10, "time_out_of_range"),
    (11, "life_is_zero"),
    (12, "payload_does_not_fit"),
    (13, "trailing_bytes"),
    (32, "gap"),
    (33, "too_many_gens"),
    (34, "already_exists"),
    (35, "not_found"),
    (36, "key_length"),
    (37, "type_mismatch"),
    (38, "not_this_operation"),
    (39, "immutable"),
    (40, "out_of_bounds"),
    (41, "change_too_large"),
    (42, "clock_at_ceiling"),
    (43, "counter_overflow"),
    (44, "not_set"),
    (45, "not_open"),
    (46, "already_open"),
    (47, "transaction_open"),
    (48, "no_transaction"),
    (49, "input_length"),
    (50, "no_rights"),
];

/// The name of a code that a module gave.
pub fn error_name(code: u32) -> Option<&'static str> {
    let found = ERROR_CODES.iter().find(|(candidate, _)| *candidate == code);
    found.map(|(_, name)| *name)
}

/// Exports that every module has, by the runtime's own names.
pub(super) const COMMON: [&str; 12] = [
    "memory",
    "abi_version",
    "input",
    "output",
    "output_length",
    "open",
    "begin",
    "commit",
    "rollback",
    "merge",
    "changes_since",
    "version",
];

/// The export that names the founder, of modules with bounded counters.
pub(super) const FOUND: &str = "found";

/// Whether somebody has to have the rights on bounded counters from the start.
pub(super) fn has_founder(schema: &Schema) -> bool {
    let mut fields = schema.gens.iter().flat_map(|one| &one.fields);
    fields.any(|field| field.strategy == Strategy::BoundedCounter)
}

/// Exports of each Gen: `User.create`.
pub(super) const OF_GEN: [&str; 4] = ["create", "delete", "exists", "keys"];

/// One export of a field: `User.name.set` calls `set_string` of the runtime with the Gen, the field
/// word, and where it takes one the place of the field's extras.
pub(super) struct FieldExport {
    pub(super) operation: &'static str,
    pub(super) runtime_function: &'static str,
    pub(super) takes_extras: bool,
}

fn export(operation: &'static str, runtime_function: &'static str) -> FieldExport {
    FieldExport { operation, runtime_function, takes_extras: false }
}

fn export_with(operation: &'static str, runtime_function: &'static str) -> FieldExport {
    FieldExport { operation, runtime_function, takes_extras: true }
}

/// Number, type and strategy of a field in one word, as the runtime wants it: small for the first
/// fields, since WASM writes small constants in fewer bytes. A type with parts has
/// a tag that the runtime knows no scalar of.
pub(super) fn field_word(field: &FieldSchema) -> u32 {
    let type_tag = u32::from(field.value_type.tag());
    field.number << 9 | type_tag << 4 | u32::from(field.strategy.tag())
}

/// The exports of a field. They are the same whether it was something else before or not; the
/// functions that they call then read what it was as well.
pub(super) fn exports_of(field: &FieldSchema) -> Vec<FieldExport> {
    let exports = exports_of_plain(field);
    if field.predecessor.is_some() { evolved(exports) } else { exports }
}

/// The exports with the functions of the runtime for fields that were something else before.
fn evolved(mut exports: Vec<FieldExport>) -> Vec<FieldExport> {
    let function_for = |plain| match plain {
        "set_string" => "evolved_set_string",
        "set_bytes" => "evolved_set_bytes",
        "set_bool" => "evolved_set_bool",
        "set_float" => "evolved_set_float",
        "set_integer" => "evolved_set_integer",
        "set_value" => "evolved_set_value",
        "add" | "add_bounded" => "evolved_add",
        "add_float" => "evolved_add_float",
        "get_value" | "get_elements" | "get_entries" => "evolved_get_value",
        "add_element" => "evolved_add_element",
        "remove_element" => "evolved_remove_element",
        "has_element" => "evolved_has_element",
        "set_entry" => "evolved_set_entry",
        "add_entry" => "evolved_add_entry",
        "add_float_entry" => "evolved_add_float_entry",
        "remove_entry" => "evolved_remove_entry",
        "get_entry" => "evolved_get_entry",
        _ => "evolved_get",
    };
    for export in &mut exports {
        export.runtime_function = function_for(export.runtime_function);
        export.takes_extras = true;
    }
    exports
}

/// Whether some field of a schema needs the functions that read fields of all types without parts.
pub(super) fn reads_all(schema: &Schema) -> bool {
    let fields = schema.gens.iter().flat_map(|one| &one.fields);
    let mut exports = fields.flat_map(exports_of);
    exports.any(|export| matches!(export.runtime_function, "get" | "get_with"))
}

/// The export of a module that reads all types anyway: it needs no functions for single ones.
pub(super) fn sharing_reads(export: FieldExport) -> FieldExport {
    match export.runtime_function {
        "get_string" | "get_total" => FieldExport { runtime_function: "get", ..export },
        _ => export,
    }
}

/// The exports of a field that was always what it is.
fn exports_of_plain(field: &FieldSchema) -> Vec<FieldExport> {
    match field.strategy {
        Strategy::OrSet => Vec::from([
            export_with("add", "add_element"),
            export_with("remove", "remove_element"),
            export_with("has", "has_element"),
            export_with("get", "get_elements"),
        ]),
        Strategy::Map => {
            let write = match field.value_strategy {
                Strategy::PnCounterFloat => export_with("add", "add_float_entry"),
                counter if counter.is_counter() => export_with("add", "add_entry"),
                _ => export_with("set", "set_entry"),
            };
            Vec::from([
                write,
                export_with("remove", "remove_entry"),
                export_with("at", "get_entry"),
                export_with("get", "get_entries"),
            ])
        }
        Strategy::BoundedCounter => Vec::from([
            export_with("add", "add_with_rights"),
            export_with("get", "get_with"),
            export_with("rights", "rights"),
            export_with("give", "give_rights"),
        ]),
        _ if is_encoded(field) => {
            Vec::from([export_with("set", "set_value"), export_with("get", "get_value")])
        }
        _ => Vec::from([write_export(field), read_export(field)]),
    }
}

/// Whether a field's values cross as their encoding, and not as the arguments and the output that
/// there are for types without parts.
pub(super) fn is_encoded(field: &FieldSchema) -> bool {
    let has_many = matches!(field.strategy, Strategy::MvRegister | Strategy::OrSet | Strategy::Map);
    has_many || !ValueType::SCALARS.contains(&field.value_type)
}

/// The letter of a field's calls in a module with generic accessors: fields with one letter share
/// their exports, which go by it.
pub(super) fn class_of(field: &FieldSchema) -> char {
    match (field.strategy, &field.value_type) {
        (Strategy::OrSet, _) => 't',
        (Strategy::Map, _) => match field.value_strategy {
            Strategy::PnCounterFloat => 'l',
            counter if counter.is_counter() => 'k',
            _ => 'm',
        },
        (Strategy::BoundedCounter, _) => 'r',
        _ if is_encoded(field) => 'v',
        (Strategy::PnCounterFloat, _) => 'd',
        (counter, _) if counter.is_counter() => 'c',
        (_, ValueType::String) => 's',
        (_, ValueType::Bool) => 'b',
        (_, bytes) if bytes.is_bytes() => 'x',
        (_, float) if float.is_float() => 'f',
        _ => 'n',
    }
}

/// The exports that do for all fields of one class: those of the field that needs its extras most,
/// for the others have extras that say nothing. What reads fields that were something else before
/// reads others as well.
pub(super) fn exports_of_class(fields: &[&FieldSchema]) -> Vec<FieldExport> {
    let extras_count =
        |exports: &Vec<FieldExport>| exports.iter().filter(|export| export.takes_extras).count();
    let exports = fields.iter().map(|field| exports_of_plain(field));
    let exports = exports.max_by_key(extras_count).unwrap_or_default();
    if has_evolved(fields) { evolved(exports) } else { exports }
}

/// Whether any field was something else before.
pub(super) fn has_evolved(fields: &[&FieldSchema]) -> bool {
    fields.iter().any(|field| field.predecessor.is_some())
}

/// What a generic accessor finds a field by: an entry of the table in the compiler's data.
pub(super) const FIELD_ENTRY_BYTES: u32 = 12;
/// Where in an entry what stands: the Gen in two bytes, the class in one, the field word, the place
/// of the extras.
pub(super) const ENTRY_CLASS: u32 = 2;
pub(super) const ENTRY_WORD: u32 = 4;
pub(super) const ENTRY_EXTRAS: u32 = 8;

/// What a generic accessor says of a number that is no field of its class.
pub(super) const NOT_THIS_OPERATION: i32 = 38;

fn write_export(field: &FieldSchema) -> FieldExport {
    let is_simple = field.value_type == ValueType::I64 && !has_extras(field);
    match (field.strategy, &field.value_type) {
        (Strategy::PnCounter | Strategy::GCounter, _) if is_simple => export("add", "add"),
        (Strategy::PnCounter | Strategy::GCounter, _) => export_with("add", "add_bounded"),
        (Strategy::PnCounterFloat, _) => export("add", "add_float"),
        (_, ValueType::String) => export("set", "set_string"),
        (_, ValueType::Bool) => export("set", "set_bool"),
        (_, bytes) if bytes.is_bytes() => export("set", "set_bytes"),
        (_, ValueType::F32 | ValueType::F64) => export("set", "set_float"),
        _ => export("set", "set_integer"),
    }
}

fn read_export(field: &FieldSchema) -> FieldExport {
    match (field.strategy, &field.value_type) {
        _ if has_extras(field) => export_with("get", "get_with"),
        (Strategy::PnCounter | Strategy::GCounter, ValueType::I64) => export("get", "get_total"),
        (Strategy::PnCounterFloat, _) => export("get", "get"),
        (_, ValueType::String) => export("get", "get_string"),
        _ => export("get", "get"),
    }
}

/// Whether a field has a default or options, which most do without.
fn has_extras(field: &FieldSchema) -> bool {
    field.default.is_some() || field.counter != CounterOptions::default()
}

/// The data that a module carries for the runtime: the Gens' names, then the fields' extras.
pub(super) struct SchemaData {
    pub(super) bytes: Vec<u8>,
}

impl SchemaData {
    pub(super) fn of(schema: &Schema) -> SchemaData {
        let mut bytes = Vec::new();
        write_varint(&mut bytes, schema.gens.len() as u64);
        for gen_schema in &schema.gens {
            write_varint(&mut bytes, gen_schema.name.len() as u64);
            bytes.extend_from_slice(gen_schema.name.as_bytes());
        }
        SchemaData { bytes }
    }

    /// Appends what the runtime reads of a field that was something else before, and gives its place:
    /// a schema of this field alone, behind its length.
    pub(super) fn push_schema(&mut self, field: &FieldSchema) -> u32 {
        let schema = Schema::from(vec![GenSchema::new("A", [field.clone()])]);
        let mut extras = Vec::new();
        write_bytes(&mut extras, &schema.encode());
        self.push(&extras)
    }

    /// Appends a field's extras and gives their place: overflow, flags, what the flags announce,
    /// types.
    pub(super) fn push_extras(&mut self, field: &FieldSchema) -> u32 {
        let mut extras = Vec::new();
        let counter = &field.counter;
        let flags = u8::from(field.default.is_some())
            | u8::from(counter.min_value.is_some()) << 1
            | u8::from(counter.max_value.is_some()) << 2;
        extras.extend_from_slice(&[counter.overflow as u8, flags]);
        for bound in [counter.min_value, counter.max_value].into_iter().flatten() {
            write_varint(&mut extras, zigzag_encode(bound));
        }
        if let Some(default) = &field.default {
            default.encode(&mut extras);
        }
        if is_encoded(field) {
            write_types(field, &mut extras);
        }
        self.push(&extras)
    }

    /// Appends extras and gives their place. What stands there already serves as well: extras say
    /// themselves where they end.
    fn push(&mut self, extras: &[u8]) -> u32 {
        let found = self.bytes.windows(extras.len()).position(|known| known == extras);
        let place = found.unwrap_or(self.bytes.len());
        if found.is_none() {
            self.bytes.extend_from_slice(extras);
        }
        place as u32
    }

    /// Appends what a generic accessor finds a field by.
    pub(super) fn push_entry(&mut self, gen_index: usize, field: &FieldSchema, extras: u32) {
        // There are at most 4,096 Gens, and letters are ASCII.
        self.bytes.extend_from_slice(&(gen_index as u16).to_le_bytes());
        self.bytes.extend_from_slice(&[class_of(field) as u8, 0]);
        self.bytes.extend_from_slice(&field_word(field).to_le_bytes());
        self.bytes.extend_from_slice(&extras.to_le_bytes());
    }
}

/// Appends what a field's values are made of: of a set its elements' type, of a map its values'
/// strategy and the types of its keys and of its values.
fn write_types(field: &FieldSchema, out: &mut Vec<u8>) {
    match (field.strategy, &field.value_type) {
        (Strategy::Map, ValueType::Map(key, value)) => {
            out.push(field.value_strategy.tag());
            write_type(key, out);
            write_type(value, out);
        }
        (_, value_type) => write_type(field.element_type().unwrap_or(value_type), out),
    }
}

/// Appends a type as the runtime reads it: its tag, and the types of its parts.
fn write_type(value_type: &ValueType, out: &mut Vec<u8>) {
    out.push(value_type.tag());
    match value_type {
        ValueType::Option(inner) | ValueType::List(inner) | ValueType::Set(inner) => {
            write_type(inner, out);
        }
        ValueType::Map(key, value) => {
            write_type(key, out);
            write_type(value, out);
        }
        ValueType::Tuple(parts) => {
            // The language has a bound on parts that is far below this one.
            let count = u8::try_from(parts.len()).unwrap_or(u8::MAX);
            out.push(count);
            parts.iter().take(count.into()).for_each(|part| write_type(part, out));
        }
        _ => {}
    }
}
