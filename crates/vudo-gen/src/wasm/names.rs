//! Names of JavaScript: what Gens and fields are called where they meet members of our own.

use std::collections::HashSet;

use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy};

/// Members of the object that `open` gives, and names that would break every object.
const APP_MEMBERS: [&str; 8] = [
    "transaction",
    "changesSince",
    "merge",
    "version",
    "subscribe",
    "then",
    "constructor",
    "__proto__",
];

/// Members of a document, and names whose meaning JavaScript itself relies on.
const DOCUMENT_MEMBERS: [&str; 9] = [
    "key",
    "exists",
    "delete",
    "constructor",
    "__proto__",
    "toString",
    "toLocaleString",
    "valueOf",
    "then",
];

/// Names that the type declarations use, and words that TypeScript takes for no interface.
const TYPE_NAMES: [&str; 34] = [
    "VudoError",
    "LiveSet",
    "LiveMap",
    "LiveCounts",
    "ReadonlySet",
    "ReadonlyMap",
    "Iterable",
    "OpenOptions",
    "App",
    "Collection",
    "Error",
    "URL",
    "Uint8Array",
    "BufferSource",
    "WebAssembly",
    "Promise",
    "any",
    "bigint",
    "boolean",
    "never",
    "null",
    "number",
    "object",
    "string",
    "symbol",
    "undefined",
    "unknown",
    "void",
    "class",
    "enum",
    "function",
    "interface",
    "new",
    "var",
];

/// The JavaScript names of a schema, in its order.
pub(super) struct Names {
    pub(super) gens: Vec<GenNames>,
}

pub(super) struct GenNames {
    /// The member of the app that holds the documents.
    pub(super) property: String,
    /// The interface of a document.
    pub(super) type_name: String,
    pub(super) fields: Vec<FieldNames>,
}

pub(super) struct FieldNames {
    /// The property of a document.
    pub(super) property: String,
    /// The method that adds to a counter.
    pub(super) adder: Option<String>,
    /// The methods that show and give the rights on a bounded counter.
    pub(super) rights: Option<[String; 2]>,
}

impl Names {
    pub(super) fn of(schema: &Schema) -> Names {
        let mut properties = taken(&APP_MEMBERS);
        let mut types = taken(&TYPE_NAMES);
        let of_gen = |gen_schema: &GenSchema| {
            let identifier = gen_schema.name.replace('.', "_");
            GenNames {
                property: free(identifier.clone(), &mut properties),
                type_name: free(identifier, &mut types),
                fields: field_names(&gen_schema.fields),
            }
        };
        Names { gens: schema.gens.iter().map(of_gen).collect() }
    }
}

/// Properties first, so that a field keeps its name where a method of ours could have it.
fn field_names(fields: &[FieldSchema]) -> Vec<FieldNames> {
    let mut members = taken(&DOCUMENT_MEMBERS);
    let mut names: Vec<FieldNames> = fields
        .iter()
        .map(|field| FieldNames {
            property: free(field.name.to_string(), &mut members),
            adder: None,
            rights: None,
        })
        .collect();
    for (name, field) in names.iter_mut().zip(fields) {
        if field.strategy.is_counter() {
            let camel = camel_case(&field.name);
            name.adder = Some(free(format!("add{camel}"), &mut members));
            if field.strategy == Strategy::BoundedCounter {
                let rights = free(format!("rightsOf{camel}"), &mut members);
                name.rights = Some([rights, free(format!("give{camel}"), &mut members)]);
            }
        }
    }
    names
}

fn taken(names: &[&'static str]) -> HashSet<String> {
    names.iter().map(|name| String::from(*name)).collect()
}

/// The name, with as many underscores as make it free, which it then is no more.
fn free(mut name: String, taken: &mut HashSet<String>) -> String {
    while !taken.insert(name.clone()) {
        name.push('_');
    }
    name
}

/// `post_count` to `PostCount`.
fn camel_case(name: &str) -> String {
    let mut camel = String::new();
    for word in name.split('_') {
        let mut letters = word.chars();
        camel.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        camel.push_str(letters.as_str());
    }
    camel
}
