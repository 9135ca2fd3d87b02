//! WASM size: how many bytes the compiler makes of a Gen, and how long that takes.
//!
//! Bytes are what matters here; they are printed beside criterion's times.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vudo_benchmarks::measure::gzipped_bytes;
use vudo_benchmarks::workload::{USER_SOURCE, compile};

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
    let schema = compile(source).expect("the source is right");
    let module = vudo_gen::wasm::build(&schema).expect("the schema can be built");
    let gzipped = gzipped_bytes(&module.wasm).expect("memory takes the bytes");
    let javascript = gzipped_bytes(module.javascript.as_bytes()).expect("memory takes the bytes");
    println!(
        "wasm_size/{name}: {} bytes, {gzipped} gzipped, JavaScript {javascript} gzipped",
        module.wasm.len()
    );
    gzipped
}

fn bench_build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wasm_size");
    group.sample_size(20).measurement_time(Duration::from_secs(1));
    group.warm_up_time(Duration::from_millis(300));
    let simple = print_size("simple_gen", USER_SOURCE);
    let schema = compile(USER_SOURCE).expect("the source is right");
    group.bench_function("simple_gen", |bencher| {
        bencher.iter(|| vudo_gen::wasm::build(black_box(&schema)).expect("it can be built"));
    });
    for field_count in [5, 10, 20, 50] {
        let source = wide_source(field_count);
        let gzipped = print_size(&format!("multi_crdt/{field_count}"), &source);
        assert!(gzipped > simple / 2, "a module with all its code is not that small");
        let schema = compile(&source).expect("the source is right");
        group.bench_with_input(
            BenchmarkId::new("multi_crdt", field_count),
            &schema,
            |bencher, schema| {
                bencher.iter(|| vudo_gen::wasm::build(black_box(schema)).expect("it can be built"));
            },
        );
    }
    for strategy in ["immutable", "lww", "pn_counter"] {
        let source = format!("gen One {{ @crdt({strategy}) has field: i64 }}");
        print_size(&format!("tree_shaking/{strategy}"), &source);
    }
    group.finish();
}

criterion_group!(benches, bench_build);
criterion_main!(benches);
