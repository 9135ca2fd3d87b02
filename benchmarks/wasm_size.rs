//! WASM size: how many bytes the compiler makes of a Gen, and how long that takes.
//!
//! Bytes are what matters here; they are printed beside criterion's times.
//!
//! What wasm-opt, LTO and the level of optimisation bring is seen in runtimes that are really
//! built without them. That takes long, so `cargo xtask long --only wasm-variants` does it and
//! this bench reads what it left.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use vudo_benchmarks::measure::gzipped_bytes;
use vudo_benchmarks::workload::{USER_SOURCE, compile};
use vudo_crdt::{Predecessor, Schema, Strategy, ValueType};
use vudo_gen::wasm::{Accessors, BuildOptions, build_with};

/// No module of three fields is larger, and none with every strategy of records: kilobytes of 1,024
/// bytes, gzipped.
const SIMPLE_BYTES_MAX: usize = 10 << 10;
const EVERY_STRATEGY_BYTES_MAX: usize = 16 << 10;
/// What a further typed field may add, gzipped.
const FIELD_BYTES_MAX: usize = 25;

/// The same with generic accessors: its name, and an entry that is much like the one before.
const GENERIC_FIELD_BYTES_MAX: usize = 12;

/// A field of each strategy.
const FIELDS: [(&str, &str); 10] = [
    ("immutable", "@crdt(immutable) has f0: String"),
    ("lww", "@crdt(lww) has f1: String"),
    ("lww_content", "@crdt(lww, tie_break = content) has f2: String"),
    ("pn_counter", "@crdt(pn_counter) has f3: i64"),
    ("pn_counter_float", "@crdt(pn_counter) has f4: f64"),
    ("g_counter", "@crdt(g_counter) has f5: i64"),
    ("mv_register", "@crdt(mv_register) has f6: String"),
    ("bounded_counter", "@crdt(bounded_counter, min_value = 0, max_value = 40) has f7: i64"),
    ("or_set", "@crdt(or_set) has f8: Set<String>"),
    ("map", "@crdt(map) has f9: Map<String, String>"),
];

/// The rows that need another build of the runtime, and the name of that build's file.
const REBUILT: [(&str, &str); 5] = [
    ("wasm_opt/before", "no-wasm-opt"),
    ("wasm_opt/after", "wasm-opt"),
    ("dead_code_elimination/no_lto", "no-lto"),
    ("dead_code_elimination/lto", "lto"),
    ("dead_code_elimination/lto_opt_level_3", "opt-3"),
];

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    group.warm_up_time(Duration::from_millis(300));
    // Confidence intervals need no more, and drawing the default of 100,000 takes seconds a row.
    group.nresamples(5_000);
    group
}

/// A Gen of this many fields that cycles through the strategies.
fn wide_source(field_count: usize) -> String {
    let kinds = [
        ("lww", "String"),
        ("lww", "i64"),
        ("immutable", "String"),
        ("pn_counter", "i64"),
        ("lww", "Bool"),
    ];
    let mut source = String::from("gen Wide {\n");
    for field in 0..field_count {
        let (strategy, value_type) = kinds[field % kinds.len()];
        let _ = writeln!(source, "    @crdt({strategy}) has field_{field}: {value_type}");
    }
    source.push_str("}\n");
    source
}

fn print_size(name: &str, source: &str) -> usize {
    print_size_with(name, source, Accessors::Typed)
}

fn print_size_with(name: &str, source: &str, accessors: Accessors) -> usize {
    print_size_of(name, &compile(source).expect("the source is right"), accessors)
}

fn print_size_of(name: &str, schema: &Schema, accessors: Accessors) -> usize {
    let options = BuildOptions { accessors, ..BuildOptions::default() };
    let module = build_with(schema, &options).expect("the schema can be built");
    let gzipped = gzipped_bytes(&module.wasm).expect("memory takes the bytes");
    let javascript = gzipped_bytes(module.javascript.as_bytes()).expect("memory takes the bytes");
    println!(
        "wasm_size/{name}: {} bytes, {gzipped} gzipped, JavaScript {javascript} gzipped",
        module.wasm.len()
    );
    gzipped
}

/// The schema of three fields, of which one was of another type in an earlier version.
fn evolved_schema() -> Schema {
    let mut schema = compile(USER_SOURCE).expect("the source is right");
    for field in schema.gens.iter_mut().flat_map(|one| &mut one.fields) {
        if field.strategy == Strategy::PnCounter {
            let mut earlier = field.clone();
            (earlier.number, earlier.value_type) = (field.number + 1, ValueType::I32);
            field.predecessor = Some(Box::new(Predecessor { field: earlier, conversion: None }));
        }
    }
    schema
}

fn bench_build(criterion: &mut Criterion) {
    let mut group = group(criterion, "wasm_size");
    let simple = print_size("simple_gen", USER_SOURCE);
    assert!(simple <= SIMPLE_BYTES_MAX, "{simple} bytes");
    let fields = FIELDS.map(|(_, field)| field).join("\n");
    let every = print_size("every_strategy", &format!("gen All {{ {fields} }}"));
    assert!(every <= EVERY_STRATEGY_BYTES_MAX, "{every} bytes");
    print_size_of("evolved_field", &evolved_schema(), Accessors::Typed);
    let schema = compile(USER_SOURCE).expect("the source is right");
    group.bench_function("simple_gen", |bencher| {
        bencher.iter(|| vudo_gen::wasm::build(black_box(&schema)).expect("it can be built"));
    });
    // From the source on: what an editor or a watching build waits for.
    group.bench_function("compile_one_gen", |bencher| {
        bencher.iter(|| {
            let schema = compile(black_box(USER_SOURCE)).expect("the source is right");
            vudo_gen::wasm::build(&schema).expect("it can be built")
        });
    });
    let mut before: Option<(usize, usize)> = None;
    for field_count in [5, 10, 20, 50] {
        let source = wide_source(field_count);
        let gzipped = print_size(&format!("multi_crdt/{field_count}"), &source);
        assert!(gzipped > simple / 2, "a module with all its code is not that small");
        if let Some((fewer, smaller)) = before.replace((field_count, gzipped)) {
            let each = (gzipped - smaller) as f64 / (field_count - fewer) as f64;
            println!("wasm_size/multi_crdt/{field_count}: {each:.1} bytes for each further field");
            assert!(each <= FIELD_BYTES_MAX as f64, "{each} bytes for a field");
        }
        let schema = compile(&source).expect("the source is right");
        group.bench_with_input(
            BenchmarkId::new("multi_crdt", field_count),
            &schema,
            |bencher, schema| {
                bencher.iter(|| vudo_gen::wasm::build(black_box(schema)).expect("it can be built"));
            },
        );
    }
    group.finish();
}

/// Of a wide record, whose fields go by number, a further field is an entry of a table.
fn bench_generic(criterion: &mut Criterion) {
    let mut group = group(criterion, "wasm_size");
    print_size_with("generic/simple_gen", USER_SOURCE, Accessors::Generic);
    let mut before: Option<(usize, usize)> = None;
    for field_count in [5, 10, 20, 50] {
        let name = format!("generic/{field_count}");
        let source = wide_source(field_count);
        let gzipped = print_size_with(&name, &source, Accessors::Generic);
        if let Some((fewer, smaller)) = before.replace((field_count, gzipped)) {
            let each = (gzipped - smaller) as f64 / (field_count - fewer) as f64;
            println!("wasm_size/{name}: {each:.1} bytes for each further field");
            assert!(each <= GENERIC_FIELD_BYTES_MAX as f64, "{each} bytes for a field");
        }
        let schema = compile(&source).expect("the source is right");
        let options = BuildOptions { accessors: Accessors::Generic, ..BuildOptions::default() };
        group.bench_with_input(
            BenchmarkId::new("generic", field_count),
            &schema,
            |bencher, schema| {
                bencher.iter(|| build_with(black_box(schema), &options).expect("it can be built"));
            },
        );
    }
    group.finish();
}

/// A module keeps the strategies that its schema names and nothing else: the strategies are its
/// feature flags.
fn bench_tree_shaking(criterion: &mut Criterion) {
    let mut group = group(criterion, "wasm_size/tree_shaking");
    let everything = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/vudo-gen/runtime/vudo_gen_runtime_collections.wasm");
    let everything = std::fs::read(everything).expect("the runtime is checked in");
    let limit = print_bytes("tree_shaking/whole_runtime", &everything);
    for (strategy, field) in FIELDS {
        let source = format!("gen One {{ {field} }}");
        let schema = compile(&source).expect("the source is right");
        let gzipped = print_size(&format!("tree_shaking/{strategy}"), &source);
        assert!(gzipped < limit, "a module of one strategy is smaller than all of the runtime");
        group.bench_function(strategy, |bencher| {
            bencher.iter(|| vudo_gen::wasm::build(black_box(&schema)).expect("it can be built"));
        });
    }
    group.finish();
}

/// Times are those of compiling the runtime in wasmi, which grow with its code.
fn bench_rebuilt(criterion: &mut Criterion) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target");
    let mut group = group(criterion, "wasm_size");
    for (name, file) in REBUILT {
        let Ok(module) = std::fs::read(target.join(format!("wasm-variants/{file}.wasm"))) else {
            println!(
                "wasm_size/{name}: skipped: run `cargo xtask long --only wasm-variants` first"
            );
            continue;
        };
        print_bytes(name, &module);
        group.bench_function(name, |bencher| {
            let engine = wasmi::Engine::default();
            bencher.iter(|| {
                wasmi::Module::new(&engine, black_box(&module)).expect("the job built a module")
            });
        });
    }
    group.finish();
}

fn print_bytes(name: &str, module: &[u8]) -> usize {
    let gzipped = gzipped_bytes(module).expect("memory takes the bytes");
    println!("wasm_size/{name}: {} bytes, {gzipped} gzipped", module.len());
    gzipped
}

criterion_group!(benches, bench_build, bench_generic, bench_tree_shaking, bench_rebuilt);
criterion_main!(benches);
