//! One way and another of holding the same documents, to see what each brings.
//!
//! Every variant starts from a store on disk and reads its documents through the engine. The
//! engine's own way is the one that its tables take; the others live here alone.

use std::any::Any;
use std::path::Path;

use smallvec::SmallVec;
use vudo_benchmarks::{child, workload};
use vudo_crdt::Value;
use vudo_state::{Database, Record};

/// What a variant built, and a sum that it can only have by having read the documents.
pub(crate) struct Built {
    _kept: Box<dyn Any>,
    pub(crate) sum: i128,
}

impl Built {
    fn new(kept: impl Any, sum: i128) -> Built {
        Built { _kept: Box::new(kept), sum }
    }
}

/// A way of holding documents.
pub(crate) struct Variant {
    /// The category and the way: `string_interning/with`.
    pub(crate) name: &'static str,
    /// What it is, for whoever reads the figures.
    pub(crate) about: &'static str,
    /// Whether the engine's tables are in memory before, and so no part of the figure.
    is_table_loaded: bool,
    build: fn(&Database) -> Built,
}

pub(crate) const VARIANTS: [Variant; 9] = [
    Variant {
        name: "string_interning/without",
        about: "a String for every name of a field",
        is_table_loaded: true,
        build: own_names,
    },
    Variant {
        name: "string_interning/with",
        about: "names of fields shared as Arc<str>",
        is_table_loaded: true,
        build: shared_names,
    },
    Variant {
        name: "string_interning/engine",
        about: "the engine's rows, where a number stands for a name",
        is_table_loaded: false,
        build: rows_alone,
    },
    Variant {
        name: "compact_structures/vec",
        about: "a Vec for the fields of a document",
        is_table_loaded: true,
        build: fields_in_vec,
    },
    Variant {
        name: "compact_structures/smallvec",
        about: "a SmallVec for the fields of a document, three of them in place",
        is_table_loaded: true,
        build: fields_in_smallvec,
    },
    Variant {
        name: "memory_pooling/heap",
        about: "an allocation for every key and every name",
        is_table_loaded: true,
        build: texts_on_heap,
    },
    Variant {
        name: "memory_pooling/arena",
        about: "keys and names one after the other in one allocation",
        is_table_loaded: true,
        build: texts_in_arena,
    },
    Variant {
        name: "lazy_materialisation/eager",
        about: "the store opened and every document materialised",
        is_table_loaded: false,
        build: own_names,
    },
    Variant {
        name: "lazy_materialisation/lazy",
        about: "the store opened and the documents read one by one, none kept",
        is_table_loaded: false,
        build: rows_alone,
    },
];

impl Variant {
    /// Opens the store, loads its tables if that is no part of the figure, and lets `measure`
    /// see the variant being built.
    pub(crate) fn run<T>(
        &self,
        store: &Path,
        measure: impl FnOnce(&dyn Fn(&Database) -> Built, &Database) -> T,
    ) -> T {
        let database = Database::open(store).expect("the parent has filled and closed the store");
        if self.is_table_loaded {
            rows_alone(&database);
        }
        measure(&self.build, &database)
    }
}

/// Where a parent process asked for a variant: prints by how many bytes resident memory grew while
/// it was built, then the sum, and ends the process.
pub(crate) fn run_if_asked() {
    let Some((role, store)) = child::asked() else { return };
    let Some(variant) = VARIANTS.iter().find(|variant| variant.name == role) else { return };
    variant.run(&store, |build, database| {
        let before = child::resident_bytes().unwrap_or(0);
        let built = build(database);
        let after = child::resident_bytes().unwrap_or(0);
        println!("{} {}", after.saturating_sub(before), built.sum);
    });
    std::process::exit(0);
}

fn for_each(database: &Database, mut visit: impl FnMut(Record)) {
    database
        .for_each(&workload::record_gen(), |record| {
            visit(record);
            true
        })
        .expect("the store can be read");
}

fn integer(value: &Value) -> i128 {
    match value {
        Value::Int(number) => *number,
        other => panic!("{other} is no integer"),
    }
}

/// The `value` of a document whose fields are in the order of its Gen.
fn value_of(record: &Record) -> i128 {
    integer(&record.fields[2].1)
}

fn rows_alone(database: &Database) -> Built {
    let mut sum = 0;
    for_each(database, |record| sum += value_of(&record));
    Built::new((), sum)
}

/// A field's name of its own, and its value.
type OwnField = (String, Value);

fn own_names(database: &Database) -> Built {
    let mut documents: Vec<(String, Vec<OwnField>)> = Vec::new();
    for_each(database, |record| {
        let fields = record.fields.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let fields = fields.collect();
        documents.push((record.key, fields));
    });
    let sum = documents.iter().map(|(_, fields)| integer(&fields[2].1)).sum();
    Built::new(documents, sum)
}

/// Records as the engine gives them: their names are the schema's.
fn shared_names(database: &Database) -> Built {
    let records = database.list(&workload::record_gen()).expect("the store can be read");
    let sum = records.iter().map(value_of).sum();
    Built::new(records, sum)
}

fn fields_in_vec(database: &Database) -> Built {
    let mut documents: Vec<Vec<Value>> = Vec::new();
    for_each(database, |record| {
        documents.push(record.fields.into_iter().map(|(_, value)| value).collect());
    });
    let sum = documents.iter().map(|fields| integer(&fields[2])).sum();
    Built::new(documents, sum)
}

fn fields_in_smallvec(database: &Database) -> Built {
    let mut documents: Vec<SmallVec<[Value; 3]>> = Vec::new();
    for_each(database, |record| {
        documents.push(record.fields.into_iter().map(|(_, value)| value).collect());
    });
    let sum = documents.iter().map(|fields| integer(&fields[2])).sum();
    Built::new(documents, sum)
}

/// The `name` of a document whose fields are in the order of its Gen.
fn name_of(record: &Record) -> &str {
    match &record.fields[1].1 {
        Value::String(name) => name,
        other => panic!("{other} is no text"),
    }
}

fn texts_on_heap(database: &Database) -> Built {
    let mut documents: Vec<[Box<str>; 2]> = Vec::new();
    for_each(database, |record| {
        documents.push([record.key.as_str().into(), name_of(&record).into()]);
    });
    let sum = documents.iter().map(|[key, name]| number_in(key, name)).sum();
    Built::new(documents, sum)
}

fn texts_in_arena(database: &Database) -> Built {
    let mut arena = String::new();
    let mut ends: Vec<[u32; 2]> = Vec::new();
    for_each(database, |record| {
        let mut end_of = |text: &str| {
            arena.push_str(text);
            arena.len() as u32
        };
        ends.push([end_of(&record.key), end_of(name_of(&record))]);
    });
    let mut start = 0;
    let mut sum = 0;
    for [key_end, name_end] in ends.iter().map(|ends| ends.map(|end| end as usize)) {
        sum += number_in(&arena[start..key_end], &arena[key_end..name_end]);
        start = name_end;
    }
    Built::new((arena, ends), sum)
}

/// Twice the number in `recordN` and `Record N`, which is the document's `value`.
fn number_in(key: &str, name: &str) -> i128 {
    let number = |text: &str, prefix| text.strip_prefix(prefix).and_then(|rest| rest.parse().ok());
    let number_of = |text, prefix| -> i128 { number(text, prefix).expect("a number at the end") };
    number_of(key, "record") + number_of(name, "Record ")
}
