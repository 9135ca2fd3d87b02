//! Memory: what documents cost while they are in use. Needs `/proc/self/status`; elsewhere the
//! figures are 0 and say "not measured".

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vudo_benchmarks::{child, measure, workload};
use vudo_state::Database;

fn bench_records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory_usage");
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    group.warm_up_time(Duration::from_millis(300));
    for count in [1_000, 10_000, 50_000, 100_000] {
        let before = child::resident_bytes();
        let database = Database::open_in_memory().expect("the system gives randomness");
        workload::fill(&database, count).expect("memory takes the documents");
        match (before, child::resident_bytes()) {
            (Some(before), Some(after)) => println!(
                "memory_usage/scaling/{count}: {:.1} B a document in memory, log included",
                after.saturating_sub(before) as f64 / count as f64
            ),
            _ => println!("memory_usage/scaling/{count}: 0 (not measured)"),
        }
        if count > 10_000 {
            continue;
        }
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(BenchmarkId::new("scaling", count), &count, |bencher, count| {
            bencher.iter(|| {
                let database = Database::open_in_memory().expect("the system gives randomness");
                workload::fill(&database, *count).expect("memory takes the documents");
                database
            });
        });
    }
    group.finish();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_budgets"));
    match measure::memory_megabytes(program).expect("the measuring process runs") {
        0.0 => println!("memory_usage/100k_records: 0 (not measured)"),
        measured => println!("memory_usage/100k_records: {measured:.2} MB in a process of its own"),
    }
}

criterion_group!(benches, bench_records);
criterion_main!(benches);
