//! Start-up: from nothing to the first read, and what an application can do about it.

#[path = "startup_time/wasm.rs"]
mod wasm;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use vudo_benchmarks::budgets::Measurement;
use vudo_benchmarks::{child, measure, workload};
use vudo_crdt::{Schema, Value};
use vudo_p2p::Node;
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

/// Times `run`; what it gives is dropped outside.
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("threads can be started")
}

fn closed_store(folder: &Path, count: usize) -> PathBuf {
    let store = folder.join(count.to_string());
    let database = Database::open(&store).expect("a new store");
    workload::fill(&database, count).expect("the disk takes the documents");
    store
}

fn open(store: &Path) -> Database {
    Database::open(store).expect("the folder can hold a store, and nobody has it open")
}

/// Reads a document that stores of more than 777 documents have.
fn read_one(database: &Database) -> Option<Value> {
    let id = database.document_id("record777");
    database.read_field(&workload::record_gen(), &id, "value").expect("the store can be read")
}

fn found() -> Option<Value> {
    Some(Value::from(2 * 777i64))
}

fn bench_parts(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for stores");
    let mut group = group(criterion);
    let program = Path::new(env!("CARGO_BIN_EXE_budgets"));
    let large = closed_store(folder.path(), LARGE_COUNT);
    row(&mut group, "cold_start", Some("cold_start_milliseconds"), || {
        measure::cold_start(program, &large).expect("the measuring process runs")
    });
    row(&mut group, "state_engine", Some("state_engine_start_milliseconds"), || {
        timed(|| Database::open_in_memory().expect("the system gives randomness")).1
    });
    for (name, count, budget) in [
        ("empty", 0, None),
        ("small", 1_000, Some("persisted_1000_open_milliseconds")),
        ("large", LARGE_COUNT, None),
    ] {
        let path = folder.path().join(count.to_string());
        let store = if path.is_dir() { path } else { closed_store(folder.path(), count) };
        row(&mut group, &format!("persisted_state/{name}"), budget, || {
            let ((_database, value), elapsed) = timed(|| {
                let database = open(&store);
                let value = read_one(&database);
                (database, value)
            });
            assert_eq!(value, found().filter(|_| count > 777));
            elapsed
        });
    }
    let runtime = runtime();
    let database = Database::open_in_memory().expect("the system gives randomness");
    row(&mut group, "p2p_node", Some("p2p_node_start_milliseconds"), || {
        let spawning = || runtime.block_on(Node::spawn(&database, child::loopback()));
        let (node, elapsed) = timed(spawning);
        runtime.block_on(node.expect("loopback has ports").shutdown());
        elapsed
    });
    group.finish();
}

/// An application that starts what it needs when it first needs it.
#[derive(Default)]
struct LazyApplication {
    schema: OnceLock<Schema>,
    database: OnceLock<Database>,
}

impl LazyApplication {
    fn schema(&self) -> &Schema {
        self.schema.get_or_init(|| workload::compile(workload::USER_SOURCE).expect("it is right"))
    }

    fn database(&self, store: &Path) -> &Database {
        self.database.get_or_init(|| open(store))
    }

    fn first_use(&self, store: &Path) {
        assert_eq!(self.schema().gens.len(), 1);
        assert_eq!(read_one(self.database(store)), found());
    }
}

fn bench_lazy(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for stores");
    let store = closed_store(folder.path(), 1_000);
    let mut group = group(criterion);
    row(&mut group, "lazy_init/eager", None, || {
        let start = || {
            let schema = workload::compile(workload::USER_SOURCE).expect("it is right");
            (schema, open(&store))
        };
        let ((schema, database), elapsed) = timed(start);
        assert_eq!((schema.gens.len(), read_one(&database)), (1, found()));
        elapsed
    });
    row(&mut group, "lazy_init/lazy", Some("lazy_initialisation_milliseconds"), || {
        let (application, elapsed) = timed(LazyApplication::default);
        assert!(application.database.get().is_none());
        elapsed
    });
    row(&mut group, "lazy_init/lazy_first_use", None, || {
        let application = LazyApplication::default();
        let ((), elapsed) = timed(|| application.first_use(&store));
        elapsed
    });
    group.finish();
}

/// A store that is open, has been read from, and is on the network.
async fn start(store: PathBuf) -> (Database, Node) {
    let opening = tokio::task::spawn_blocking(move || {
        let database = open(&store);
        assert_eq!(read_one(&database), found());
        database
    });
    let database = opening.await.expect("the store opens");
    let node = Node::spawn(&database, child::loopback()).await.expect("loopback has ports");
    (database, node)
}

fn bench_background(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for stores");
    let store = closed_store(folder.path(), LARGE_COUNT);
    let runtime = runtime();
    let mut group = group(criterion);
    row(&mut group, "async_init/blocking", None, || {
        let ((_database, node), elapsed) = timed(|| runtime.block_on(start(store.clone())));
        runtime.block_on(node.shutdown());
        elapsed
    });
    let returns = Some("background_start_returns_milliseconds");
    row(&mut group, "async_init/background_returns", returns, || {
        let (starting, elapsed) = timed(|| runtime.spawn(start(store.clone())));
        let (_database, node) = runtime.block_on(starting).expect("it starts");
        runtime.block_on(node.shutdown());
        elapsed
    });
    row(&mut group, "async_init/background_ready", None, || {
        let spawning = || runtime.block_on(runtime.spawn(start(store.clone())));
        let (started, elapsed) = timed(spawning);
        let (_database, node) = started.expect("it starts");
        runtime.block_on(node.shutdown());
        elapsed
    });
    group.finish();
}

/// Three phases, each of use without the next: a document can be read; peers can be met; all
/// documents have been read.
fn bench_incremental(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for stores");
    let store = closed_store(folder.path(), LARGE_COUNT);
    let runtime = runtime();
    let mut group = group(criterion);
    let first = || {
        let (database, elapsed) = timed(|| {
            let database = open(&store);
            assert_eq!(read_one(&database), found());
            database
        });
        (database, elapsed)
    };
    let name = "incremental_start/first_phase_read";
    row(&mut group, name, Some("first_phase_milliseconds"), || first().1);
    row(&mut group, "incremental_start/second_phase_network", None, || {
        let (database, _) = first();
        let spawning = || runtime.block_on(Node::spawn(&database, child::loopback()));
        let (node, elapsed) = timed(spawning);
        runtime.block_on(node.expect("loopback has ports").shutdown());
        elapsed
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
        let (is_created, elapsed) = timed(|| wasm::first_operation(&module.wasm));
        assert!(is_created);
        elapsed
    });
    group.finish();
    wasm::print_node(&module);
    wasm::print_chromium(&module);
}

criterion_group!(benches, bench_parts, bench_lazy, bench_background, bench_incremental, bench_wasm);
criterion_main!(benches);
