//! The types of the ES module.

use std::fmt::Write as _;

use vudo_crdt::{FieldSchema, Schema, Strategy, ValueType};

use super::abi::{ERROR_CODES, has_founder};
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

const COLLECTIONS: &str = r#"/** A set of a document as it is at each moment. */
export interface LiveSet<Element> extends Iterable<Element> {
  readonly size: number;
  has(element: Element): boolean;
  add(element: Element): void;
  delete(element: Element): void;
}

/** A map of a document as it is at each moment. */
export interface LiveMap<Key, Held, Value = Held> extends Iterable<[Key, Held]> {
  readonly size: number;
  get(key: Key): Held | undefined;
  has(key: Key): boolean;
  set(key: Key, value: Value): void;
  delete(key: Key): void;
}

/** A map of counters of a document as it is at each moment. */
export interface LiveCounts<Key, Amount> extends Iterable<[Key, Amount]> {
  readonly size: number;
  get(key: Key): Amount | undefined;
  has(key: Key): boolean;
  add(key: Key, amount: Amount): void;
  delete(key: Key): void;
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
    let mut fields = schema.gens.iter().flat_map(|one| &one.fields);
    if fields.any(|field| field.strategy.is_collection()) {
        out.push_str(COLLECTIONS);
    }
    if has_founder(schema) {
        let founder = "  /** The replica that has the rights on bounded counters from the start: the \
                       same one\n   * everywhere. This one where it is left out. */\n  founder?: \
                       Uint8Array;\n  /** The module or";
        out = out.replace("  /** The module or", founder);
    }
    for (gen_schema, gen_names) in schema.gens.iter().zip(&names.gens) {
        let _ = write!(
            out,
            "export interface {} {{\n  readonly key: string;\n  readonly exists: boolean;\n  delete(): void;\n",
            gen_names.type_name
        );
        for (field, field_names) in gen_schema.fields.iter().zip(&gen_names.fields) {
            write_field(schema, field, field_names, &mut out);
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

fn write_field(schema: &Schema, field: &FieldSchema, names: &FieldNames, out: &mut String) {
    let property = &names.property;
    let value_type = type_of(schema, &field.value_type);
    let _ = match (field.strategy, &field.value_type) {
        (Strategy::OrSet, _) => {
            let element = field.element_type().map_or("never".into(), |one| type_of(schema, one));
            writeln!(out, "  readonly {property}: LiveSet<{element}>;")
        }
        (Strategy::Map, ValueType::Map(key, value)) => {
            let (key, held) = (type_of(schema, key), type_of(schema, value));
            let map = match field.value_strategy {
                Strategy::MvRegister => {
                    format!("LiveMap<{key}, readonly {}[], {held}>", wrapped(&held))
                }
                counter if counter.is_counter() => format!("LiveCounts<{key}, {held}>"),
                _ => format!("LiveMap<{key}, {held}>"),
            };
            writeln!(out, "  readonly {property}: {map};")
        }
        (Strategy::MvRegister, _) => {
            let many = format!("readonly {}[]", wrapped(&value_type));
            writeln!(out, "  get {property}(): {many};\n  set {property}(value: {value_type});")
        }
        _ => match &names.adder {
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
        },
    };
    if let Some([rights, give]) = &names.rights {
        let _ = writeln!(
            out,
            "  /** How far this replica may move it up, or down. */\n  {rights}(up: boolean): {value_type};\n  /** Lets another replica move it by as much. */\n  {give}(replica: Uint8Array, up: boolean, amount: {value_type}): void;"
        );
    }
}

/// In parentheses where it is a union.
fn wrapped(of: &str) -> String {
    if of.contains('|') { format!("({of})") } else { of.to_owned() }
}

fn type_of(schema: &Schema, value_type: &ValueType) -> String {
    match value_type {
        ValueType::String | ValueType::Ref(_) => "string".into(),
        ValueType::Bool => "boolean".into(),
        ValueType::I64 | ValueType::U64 => "bigint".into(),
        ValueType::Option(inner) => format!("{} | null", type_of(schema, inner)),
        ValueType::List(inner) => format!("readonly {}[]", wrapped(&type_of(schema, inner))),
        ValueType::Set(inner) => format!("ReadonlySet<{}>", type_of(schema, inner)),
        ValueType::Map(key, value) => {
            format!("ReadonlyMap<{}, {}>", type_of(schema, key), type_of(schema, value))
        }
        ValueType::Tuple(parts) => {
            let parts: Vec<String> = parts.iter().map(|part| type_of(schema, part)).collect();
            format!("readonly [{}]", parts.join(", "))
        }
        ValueType::Enum(name) => {
            let found = schema.enum_named(name);
            let variants = found.map(|found| &found.variants[..]).unwrap_or_default();
            let mut words: Vec<String> =
                variants.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            // Of a variant that this version does not know only the number is known.
            words.push("number".into());
            words.join(" | ")
        }
        ValueType::Record(name) => {
            let found = schema.gen_named(name);
            // A Gen that holds itself would have no end here.
            let fields = found.map(|found| &found.fields[..]).unwrap_or_default();
            let fields: Vec<String> = fields
                .iter()
                .map(|field| {
                    let held = match &field.value_type {
                        ValueType::Record(_) => "object".into(),
                        other => type_of(schema, other),
                    };
                    format!("{}?: {held}", field.name)
                })
                .collect();
            format!("{{ {} }}", fields.join("; "))
        }
        ValueType::Opaque(_) => "Uint8Array".into(),
        bytes if bytes.is_bytes() => "Uint8Array".into(),
        _ => "number".into(),
    }
}
