//! The ES module beside the WASM module: `template.js` with the schema's tables put in.

use std::fmt::Write as _;

use vudo_crdt::{FieldSchema, Schema, Strategy, ValueType};

use super::abi::ERROR_CODES;
use super::names::Names;

const TEMPLATE: &str = include_str!("template.js");

/// How values of some types cross between JavaScript and the module.
struct Kind {
    letter: char,
    /// Three functions: whether a value is of the kind, its argument, and the value of an output.
    /// Text has no argument: its bytes go to the input.
    source: &'static str,
}

const KINDS: [Kind; 7] = [
    Kind {
        letter: 's',
        source: "[(value) => typeof value == \"string\" && value.isWellFormed(), , (bytes) => decoder.decode(bytes)]",
    },
    Kind {
        letter: 'b',
        source: "[(value) => typeof value == \"boolean\", (value) => +value, (bytes) => bytes[0] == 1]",
    },
    Kind {
        letter: 'n',
        source: "[Number.isSafeInteger, BigInt, (bytes) => Number(view(bytes).getBigInt64(0, true))]",
    },
    Kind {
        letter: 'i',
        source: "[(value) => typeof value == \"bigint\" && BigInt.asIntN(64, value) == value, BigInt, (bytes) => view(bytes).getBigInt64(0, true)]",
    },
    Kind {
        letter: 'u',
        source: "[(value) => typeof value == \"bigint\" && BigInt.asUintN(64, value) == value, BigInt, (bytes) => view(bytes).getBigUint64(0, true)]",
    },
    Kind {
        letter: 'f',
        source: "[(value) => typeof value == \"number\", Number, (bytes) => view(bytes).getFloat64(0, true)]",
    },
    Kind {
        letter: 'g',
        source: "[(value) => typeof value == \"number\", Math.fround, (bytes) => view(bytes).getFloat64(0, true)]",
    },
];

pub(super) fn javascript(schema: &Schema, names: &Names) -> String {
    let mut used = String::new();
    let mut table = String::from("[\n");
    for (gen_schema, gen_names) in schema.gens.iter().zip(&names.gens) {
        let _ =
            writeln!(table, "  [{}, {}, [", quote(&gen_names.property), quote(&gen_schema.name));
        for (field, field_names) in gen_schema.fields.iter().zip(&gen_names.fields) {
            let letters = kind_letters(field);
            used.push_str(&letters);
            let property = quote(&field_names.property);
            let _ = write!(table, "    [{property}, \"{letters}\", {}", quote(&field.name));
            if let Some(adder) = &field_names.adder {
                let _ = write!(table, ", {}", quote(adder));
            }
            table.push_str("],\n");
        }
        table.push_str("  ]],\n");
    }
    table.push(']');
    let mut kinds = String::new();
    for kind in KINDS.iter().filter(|kind| used.contains(kind.letter)) {
        let _ = writeln!(kinds, "  {}: {},", kind.letter, kind.source);
    }
    let reasons: Vec<&str> = ERROR_CODES.iter().map(|(_, name)| *name).collect();
    TEMPLATE
        .replace("__REASONS__", &reasons.join(" "))
        .replace("__KINDS__", &kinds)
        .replace("__SCHEMA__", &table)
}

/// The kind of what is read and, where it is another one, of what is written.
fn kind_letters(field: &FieldSchema) -> String {
    let read = match field.value_type {
        ValueType::String => 's',
        ValueType::Bool => 'b',
        ValueType::I64 => 'i',
        ValueType::U64 => 'u',
        ValueType::F64 => 'f',
        ValueType::F32 => 'g',
        _ => 'n',
    };
    // Amounts have a sign whatever the counter's type, and are not rounded before they are added.
    let written = match (field.strategy, read) {
        (Strategy::PnCounter, 'u') => "i",
        (Strategy::PnCounterFloat, 'g') => "f",
        _ => "",
    };
    format!("{read}{written}")
}

/// A string literal. Names are identifiers with dots, but a schema can come from anywhere.
fn quote(text: &str) -> String {
    let mut literal = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => literal.extend(['\\', character]),
            control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}') => {
                let _ = write!(literal, "\\u{:04x}", control as u32);
            }
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal
}
