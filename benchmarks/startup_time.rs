//! Start-up: from nothing to the first read, and what an application can do about it.

#[path = "startup_time/interpreter.rs"]
mod interpreter;
#[path = "startup_time/wasm.rs"]
mod wasm;

use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main};
use vudo_benchmarks::budgets::Measurement;
use vudo_benchmarks::startup::{self, LazyApplication, closed_store, timed};
use vudo_benchmarks::{measure, workload};
use vudo_state::Database;

const LARGE_COUNT: usize = 100_000;

fn group(criterion: &mut Criterion) -> BenchmarkGroup<'_, WallTime> {
    let mut group = criterion.benchmark_group("startup_time");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    // Confidence intervals need no more, and drawing the default of 100,000 takes seconds a row.
    group.nresamples(5_000);
    group
}

/// One row of a bench: `run` gives the time of one start, and tidies up outside of it. Where there
/// is a budget the median is printed beside it.
fn row(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    budget: Option<&'static str>,
    mut run: impl FnMut() -> Duration,
) {
    if let Some(budget) = budget {
        let milliseconds = measure::median(11, &mut run).as_secs_f64() * 1e3;
        let row = Measurement::new(budget, "ms", milliseconds).expect("it has a budget");
        println!("{}", row.line(&format!("startup_time/{name}")));
    }
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| run()).sum());
    });
}

fn bench_parts(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for stores");
    let mut group = group(criterion);
    let program = Path::new(env!("CARGO_BIN_EXE_budgets"));
    let large = closed_store(folder.path(), LARGE_COUNT);
    row(&mut group, "cold_start", Some("cold_start_milliseconds"), || {
        measure::cold_start(program, &large).expect("the measuring process runs")
    });
    let budget = Some("state_engine_start_milliseconds");
    row(&mut group, "state_engine", budget, startup::state_engine);
    for (name, count, budget) in [
        ("empty", 0, None),
        ("small", 1_000, Some("persisted_1000_open_milliseconds")),
        ("large", LARGE_COUNT, None),
    ] {
        let path = folder.path().join(count.to_string());
        let store = if path.is_dir() { path } else { closed_store(folder.path(), count) };
        row(&mut group, &format!("persisted_state/{name}"), budget, || {
            startup::open_and_read(&store, count).1
        });
    }
    let runtime = startup::runtime();
    let database = Database::open_in_memory().expect("the system gives randomness");
    row(&mut group, "p2p_node", Some("p2p_node_start_milliseconds"), || {
        startup::p2p_node(&runtime, &database)
    });
    group.finish();
}

fn bench_lazy(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for stores");
    let store = closed_store(folder.path(), 1_000);
    let mut group = group(criterion);
    row(&mut group, "lazy_init/eager", None, || LazyApplication::eager(&store));
    let budget = Some("lazy_initialisation_milliseconds");
    row(&mut group, "lazy_init/lazy", budget, LazyApplication::timed_start);
    row(&mut group, "lazy_init/lazy_first_use", None, || {
        let application = LazyApplication::default();
        let ((), elapsed) = timed(|| application.first_use(&store));
        elapsed
    });
    group.finish();
}

fn bench_background(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for stores");
    let store = closed_store(folder.path(), LARGE_COUNT);
    let runtime = startup::runtime();
    let mut group = group(criterion);
    row(&mut group, "async_init/blocking", None, || startup::blocking_start(&runtime, &store));
    let returns = Some("background_start_returns_milliseconds");
    row(&mut group, "async_init/background_returns", returns, || {
        startup::background_start(&runtime, &store).0
    });
    row(&mut group, "async_init/background_ready", None, || {
        startup::background_start(&runtime, &store).1
    });
    group.finish();
}

/// Three phases, each of use without the next: a document can be read; peers can be met; all
/// documents have been read.
fn bench_incremental(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for stores");
    let store = closed_store(folder.path(), LARGE_COUNT);
    let runtime = startup::runtime();
    let mut group = group(criterion);
    let first = || startup::open_and_read(&store, LARGE_COUNT);
    let name = "incremental_start/first_phase_read";
    row(&mut group, name, Some("first_phase_milliseconds"), || first().1);
    row(&mut group, "incremental_start/second_phase_network", None, || {
        startup::p2p_node(&runtime, &first().0)
    });
    row(&mut group, "incremental_start/third_phase_everything", None, || {
        let (database, _) = first();
        let (records, elapsed) = timed(|| database.list(&workload::record_gen()));
        assert_eq!(records.expect("the store can be read").len(), LARGE_COUNT);
        elapsed
    });
    group.finish();
}

fn bench_wasm(criterion: &mut Criterion) {
    let schema = workload::compile(workload::USER_SOURCE).expect("the source is right");
    let module = vudo_gen::wasm::build(&schema).expect("the schema can be built");
    let mut group = group(criterion);
    let budget = Some("wasm_instantiation_milliseconds");
    row(&mut group, "wasm_instantiation", budget, || {
        let (is_created, elapsed) = timed(|| interpreter::first_operation(&module.wasm));
        assert!(is_created);
        elapsed
    });
    group.finish();
    wasm::print_node(&module);
    wasm::print_chromium(&module);
}

criterion_group!(benches, bench_parts, bench_lazy, bench_background, bench_incremental, bench_wasm);
criterion_main!(benches);
