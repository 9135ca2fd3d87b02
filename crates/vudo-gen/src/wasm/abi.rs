//! What compiler, runtime and hosts agree on: see `docs/reference/wasm-abi.md`.

use vudo_crdt::wire::{write_varint, zigzag_encode};
use vudo_crdt::{CounterOptions, FieldSchema, Schema, Strategy, ValueType};

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
/// word, and where it takes one a third constant.
pub(super) struct FieldExport {
    pub(super) operation: &'static str,
    pub(super) runtime_function: &'static str,
    pub(super) third: Third,
}

/// The constant behind the field word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Third {
    Nothing,
    /// The place of the field's extras.
    Extras,
    /// The place of the field's extras where it has a default, else all ones.
    ExtrasOrNone,
    /// The word of a map's values.
    Inner,
}

fn export(operation: &'static str, runtime_function: &'static str, third: Third) -> FieldExport {
    FieldExport { operation, runtime_function, third }
}

/// Type, number and strategy of a field in one word, as the runtime wants it. A type with parts has
/// a tag that the runtime knows no scalar of.
pub(super) fn field_word(field: &FieldSchema) -> u32 {
    let number_and_strategy = field.number << 4 | u32::from(field.strategy.tag());
    u32::from(field.value_type.tag()) << 20 | number_and_strategy
}

/// Whether values of the type cross as they are, and not encoded.
pub(super) fn is_plain(value_type: &ValueType) -> bool {
    ValueType::SCALARS.contains(value_type)
}

/// The exports of a field.
pub(super) fn exports_of(field: &FieldSchema) -> Vec<FieldExport> {
    match field.strategy {
        Strategy::OrSet => Vec::from([
            export("add", "add_element", Third::Nothing),
            export("remove", "remove_element", Third::Nothing),
            export("has", "has_element", Third::Nothing),
            export("size", "count", Third::ExtrasOrNone),
            export("get", "get_value", Third::ExtrasOrNone),
        ]),
        Strategy::Map => {
            let write = match field.value_strategy {
                Strategy::PnCounterFloat => export("add", "add_float_entry", Third::Inner),
                counter if counter.is_counter() => export("add", "add_entry", Third::Inner),
                _ => export("set", "set_entry", Third::Inner),
            };
            Vec::from([
                write,
                export("remove", "remove_entry", Third::Nothing),
                export("at", "get_entry", Third::Inner),
                export("size", "count", Third::Inner),
                export("get", "get_value", Third::Inner),
            ])
        }
        Strategy::BoundedCounter => Vec::from([
            export("add", "add_with_rights", Third::Extras),
            export("get", "get_with", Third::Extras),
            export("rights", "rights", Third::Extras),
            export("give", "give_rights", Third::Extras),
        ]),
        Strategy::MvRegister => Vec::from([
            export("set", "set_value", Third::Nothing),
            export("get", "get_value", Third::ExtrasOrNone),
        ]),
        _ if !is_plain(&field.value_type) => Vec::from([
            export("set", "set_value", Third::Nothing),
            export("get", "get_value", Third::ExtrasOrNone),
        ]),
        _ => Vec::from([write_export(field), read_export(field)]),
    }
}

fn write_export(field: &FieldSchema) -> FieldExport {
    let is_simple = field.value_type == ValueType::I64 && !has_extras(field);
    match (field.strategy, &field.value_type) {
        (Strategy::PnCounter | Strategy::GCounter, _) if is_simple => {
            export("add", "add", Third::Nothing)
        }
        (Strategy::PnCounter | Strategy::GCounter, _) => {
            export("add", "add_bounded", Third::Extras)
        }
        (Strategy::PnCounterFloat, _) => export("add", "add_float", Third::Nothing),
        (_, ValueType::String) => export("set", "set_string", Third::Nothing),
        (_, ValueType::Bool) => export("set", "set_bool", Third::Nothing),
        (_, bytes) if bytes.is_bytes() => export("set", "set_bytes", Third::Nothing),
        (_, ValueType::F32 | ValueType::F64) => export("set", "set_float", Third::Nothing),
        _ => export("set", "set_integer", Third::Nothing),
    }
}

fn read_export(field: &FieldSchema) -> FieldExport {
    match (field.strategy, &field.value_type) {
        _ if has_extras(field) => export("get", "get_with", Third::Extras),
        (Strategy::PnCounter | Strategy::GCounter, ValueType::I64) => {
            export("get", "get_total", Third::Nothing)
        }
        (Strategy::PnCounterFloat, _) => export("get", "get", Third::Nothing),
        (_, ValueType::String) => export("get", "get_string", Third::Nothing),
        _ => export("get", "get", Third::Nothing),
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

    /// Appends a field's extras and gives their place: overflow, flags, what the flags announce.
    pub(super) fn push_extras(&mut self, field: &FieldSchema) -> u32 {
        let place = self.bytes.len() as u32;
        let counter = &field.counter;
        let flags = u8::from(field.default.is_some())
            | u8::from(counter.min_value.is_some()) << 1
            | u8::from(counter.max_value.is_some()) << 2;
        self.bytes.extend_from_slice(&[counter.overflow as u8, flags]);
        for bound in [counter.min_value, counter.max_value].into_iter().flatten() {
            write_varint(&mut self.bytes, zigzag_encode(bound));
        }
        if let Some(default) = &field.default {
            default.encode(&mut self.bytes);
        }
        place
    }
}
