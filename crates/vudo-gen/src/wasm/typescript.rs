//! The types of the ES module.

use std::fmt::Write as _;

use vudo_crdt::{FieldSchema, Schema, ValueType};

use super::abi::ERROR_CODES;
use super::javascript::{FIRST_REASON, is_reason};
use super::names::{FieldNames, Names};

const HEAD: &str = r#"// Made by the Gen compiler. Do not edit: change the Gen file and build again.

/** Something was refused; nothing has changed. */
export class VudoError extends Error {
  /** Why. The list is part of the module's interface and only grows. */
  readonly code: ErrorCode;
}

export interface OpenOptions {
  /** The key of this store, 32 bytes that no other store has. Random where it is left out. */
  replica?: Uint8Array;
  /** Milliseconds since 1970. `Date.now` where it is left out. */
  now?: () => number;
  /** The module or its address. The one beside this file where it is left out. */
  wasm?: URL | BufferSource | WebAssembly.Module;
}

/** The documents of one Gen. */
export interface Collection<Document> {
  /** Creates a document. Throws `already_exists` where there is one under the key. */
  create(key: string): Document;
  /** The document under a key, if it exists. */
  get(key: string): Document | undefined;
  /** The keys of all documents, in the order of their bytes. */
  keys(): string[];
  /** All documents, in the order of their keys. */
  all(): Document[];
}

"#;

const APP_MEMBERS: &str = r#"  /** Runs writes as one change: all of them take effect, or none. Cannot wait for anything. */
  transaction<Result>(work: () => Result): Result;
  /** A frame of the changes that a version does not cover; of all changes without one. */
  changesSince(version?: Uint8Array): Uint8Array;
  /** Merges another store's frame. Merging one twice changes nothing. */
  merge(frame: Uint8Array): void;
  /** What this store holds: give it to another store's `changesSince`. */
  version(): Uint8Array;
  /** Calls a function after every change. Gives a function that ends this. */
  subscribe(listener: () => void): () => void;
}

/** Opens an empty store in memory. */
export function open(options?: OpenOptions): Promise<App>;
"#;

pub(super) fn typescript(schema: &Schema, names: &Names) -> String {
    let mut out = String::from(HEAD);
    for (gen_schema, gen_names) in schema.gens.iter().zip(&names.gens) {
        let _ = write!(
            out,
            "export interface {} {{\n  readonly key: string;\n  readonly exists: boolean;\n  delete(): void;\n",
            gen_names.type_name
        );
        for (field, field_names) in gen_schema.fields.iter().zip(&gen_names.fields) {
            write_field(field, field_names, &mut out);
        }
        out.push_str("}\n\n");
    }
    out.push_str("export interface App {\n");
    for gen_names in &names.gens {
        let _ = writeln!(
            out,
            "  readonly {}: Collection<{}>;",
            gen_names.property, gen_names.type_name
        );
    }
    out.push_str(APP_MEMBERS);
    out.push_str("\nexport type ErrorCode =\n  | \"malformed\"\n  | \"too_large\"");
    for (code, name) in ERROR_CODES {
        if code >= FIRST_REASON && is_reason(name) {
            let _ = write!(out, "\n  | \"{name}\"");
        }
    }
    out.push_str(";\n");
    out
}

fn write_field(field: &FieldSchema, names: &FieldNames, out: &mut String) {
    let value_type = type_of(&field.value_type);
    let property = &names.property;
    let _ = match &names.adder {
        Some(adder) => writeln!(
            out,
            "  readonly {property}: {value_type};\n  {adder}(amount: {value_type}): void;"
        ),
        None => {
            let absent = if field.default.is_some() { "" } else { " | undefined" };
            writeln!(
                out,
                "  get {property}(): {value_type}{absent};\n  set {property}(value: {value_type});"
            )
        }
    };
}

fn type_of(value_type: &ValueType) -> &'static str {
    match value_type {
        ValueType::String => "string",
        ValueType::Bool => "boolean",
        ValueType::I64 | ValueType::U64 => "bigint",
        bytes if bytes.is_bytes() => "Uint8Array",
        _ => "number",
    }
}
