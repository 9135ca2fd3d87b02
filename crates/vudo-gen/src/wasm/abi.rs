//! What compiler, runtime and hosts agree on: see `docs/reference/wasm-abi.md`.

use vudo_crdt::wire::{write_varint, zigzag_encode};
use vudo_crdt::{CounterOptions, FieldSchema, Schema, Strategy, ValueType};

/// The reasons that a module gives, by code, in ascending order. A code never changes its meaning.
pub const ERROR_CODES: [(u32, &str); 31] = [
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

/// Exports of each Gen: `User.create`.
pub(super) const OF_GEN: [&str; 4] = ["create", "delete", "exists", "keys"];

/// One export of a field: `User.name.set` calls `set_string` of the runtime.
pub(super) struct FieldExport {
    pub(super) operation: &'static str,
    pub(super) runtime_function: &'static str,
    /// Whether the function takes the place of the field's extras after the field word.
    pub(super) takes_extras: bool,
}

/// Type, number and strategy of a field in one word, as the runtime wants it.
pub(super) fn field_word(field: &FieldSchema) -> u32 {
    let number_and_strategy = field.number << 4 | u32::from(field.strategy.tag());
    u32::from(field.value_type.tag()) << 20 | number_and_strategy
}

/// The exports of a field.
pub(super) fn exports_of(field: &FieldSchema) -> [FieldExport; 2] {
    [write_export(field), read_export(field)]
}

fn write_export(field: &FieldSchema) -> FieldExport {
    let (operation, runtime_function) = match (field.strategy, &field.value_type) {
        (Strategy::PnCounter, ValueType::I64) if !has_extras(field) => ("add", "add"),
        (Strategy::PnCounter, _) => ("add", "add_bounded"),
        (Strategy::PnCounterFloat, _) => ("add", "add_float"),
        (_, ValueType::String) => ("set", "set_string"),
        (_, ValueType::Bool) => ("set", "set_bool"),
        (_, bytes) if bytes.is_bytes() => ("set", "set_bytes"),
        (_, ValueType::F32 | ValueType::F64) => ("set", "set_float"),
        _ => ("set", "set_integer"),
    };
    FieldExport { operation, runtime_function, takes_extras: runtime_function == "add_bounded" }
}

fn read_export(field: &FieldSchema) -> FieldExport {
    let runtime_function = match (field.strategy, &field.value_type) {
        _ if has_extras(field) => "get_with",
        (Strategy::PnCounter, ValueType::I64) => "get_total",
        (Strategy::PnCounterFloat, _) => "get",
        (_, ValueType::String) => "get_string",
        _ => "get",
    };
    FieldExport { operation: "get", runtime_function, takes_extras: runtime_function == "get_with" }
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
