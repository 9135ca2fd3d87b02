//! Start-up: from nothing to the first read.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use vudo_benchmarks::{child, measure, workload};
use vudo_p2p::Node;
use vudo_state::Database;

fn bench_startup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("startup_time");
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    group.warm_up_time(Duration::from_millis(300));

    let program = std::path::Path::new(env!("CARGO_BIN_EXE_budgets"));
    let cold = measure::cold_start_milliseconds(program).expect("the measuring process runs");
    println!("startup_time/cold_start: {cold:.2} ms from process start to first read, node bound");

    group.bench_function("state_engine", |bencher| {
        bencher.iter(|| Database::open_in_memory().expect("the system gives randomness"));
    });

    let folder = tempfile::tempdir().expect("a folder for stores");
    for (name, count) in [("empty", 0), ("small", 1_000), ("large", 100_000)] {
        let store = folder.path().join(name);
        let database = Database::open(&store).expect("a new store");
        workload::fill(&database, count).expect("the disk takes the documents");
        drop(database);
        group.bench_function(format!("persisted_state/{name}"), |bencher| {
            bencher.iter(|| {
                let database = Database::open(&store).expect("the store is there");
                let id = database.document_id("record777");
                let record = database.read(&workload::record_gen(), &id).expect("it reads");
                assert_eq!(record.is_some(), count > 777);
                database
            });
        });
    }

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("threads can be started");
    let database = Database::open_in_memory().expect("the system gives randomness");
    group.bench_function("p2p_node", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let node = Node::spawn(&database, child::loopback()).await.expect("it binds");
                node.shutdown().await;
            });
        });
    });

    let schema = workload::compile(workload::USER_SOURCE).expect("the source is right");
    let module = vudo_gen::wasm::build(&schema).expect("the schema can be built");
    group.bench_function("wasm_instantiation", |bencher| {
        bencher.iter(|| {
            let engine = wasmi::Engine::default();
            let module = wasmi::Module::new(&engine, &module.wasm).expect("it is a module");
            let mut store = wasmi::Store::new(&engine, ());
            wasmi::Linker::new(&engine)
                .instantiate_and_start(&mut store, &module)
                .expect("it needs no imports")
        });
    });
    group.finish();
}

criterion_group!(benches, bench_startup);
criterion_main!(benches);
