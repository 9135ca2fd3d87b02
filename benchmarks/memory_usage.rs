//! Memory: what documents cost while they are in use. Needs `/proc/self/status`; elsewhere the
//! figures are 0 and say "not measured".
//!
//! Every figure about memory is the growth of a process of its own, so that nothing that ran
//! before has left room for it. Times stand beside, at a tenth of the documents.

#[path = "memory_usage/variants.rs"]
mod variants;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
};
use variants::{VARIANTS, Variant};
use vudo_benchmarks::budgets::Measurement;
use vudo_benchmarks::{child, measure, workload};
use vudo_state::Database;

const MEASURED_COUNT: usize = 100_000;
const TIMED_COUNT: usize = 10_000;

fn group(criterion: &mut Criterion) -> BenchmarkGroup<'_, WallTime> {
    let mut group = criterion.benchmark_group("memory_usage");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    // Confidence intervals need no more, and drawing the default of 100,000 takes seconds a row.
    group.nresamples(5_000);
    group
}

/// The program that measures the budgets takes these measurements as well.
fn budgets_program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_budgets"))
}

fn bench_records(criterion: &mut Criterion) {
    match measure::memory_megabytes(budgets_program()).expect("the measuring process runs") {
        0.0 => println!("memory_usage/100k_records: 0 (not measured)"),
        measured => {
            let row = Measurement::new("memory_100k_megabytes", "MB", measured);
            println!("{}", row.expect("it has a budget").line("memory_usage/100k_records"));
        }
    }
    let mut group = group(criterion);
    for count in [1_000, 10_000, 50_000, 100_000] {
        match measure::memory_bytes(budgets_program(), count).expect("the measuring process runs") {
            0.0 => println!("memory_usage/scaling/{count}: 0 (not measured)"),
            grown => println!(
                "memory_usage/scaling/{count}: {:.2} MB, {:.1} B a document",
                grown / 1e6,
                grown / count as f64
            ),
        }
        // Ten samples of more would take longer than a row may.
        if count > TIMED_COUNT {
            continue;
        }
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(BenchmarkId::new("scaling", count), &count, |bencher, count| {
            bencher.iter_with_large_drop(|| {
                let database = Database::open_in_memory().expect("the system gives randomness");
                workload::fill(&database, *count).expect("memory takes the documents");
                database
            });
        });
    }
    group.finish();
}

/// The sum of the documents' values, which each variant has to arrive at.
fn expected_sum(count: usize) -> i128 {
    (0..count as i128).map(|number| number * 2).sum()
}

fn closed_store(folder: &Path, count: usize) -> PathBuf {
    let store = folder.join(count.to_string());
    let database = Database::open(&store).expect("a new store");
    workload::fill(&database, count).expect("the disk takes the documents");
    store
}

fn print_growth(program: &Path, store: &Path, variant: &Variant) {
    let line = child::line_of(program, variant.name, store).expect("the measuring process runs");
    let (grown, sum) = line.split_once(' ').expect("it prints growth and sum");
    assert_eq!(sum.parse(), Ok(expected_sum(MEASURED_COUNT)));
    let Variant { name, about, .. } = variant;
    match grown.parse().expect("growth is a number") {
        0.0 if child::resident_bytes().is_none() => {
            println!("memory_usage/{name}: 0 (not measured): {about}");
        }
        grown => println!(
            "memory_usage/{name}: {:.2} MB, {:.1} B a document: {about}",
            grown / 1e6,
            grown / MEASURED_COUNT as f64
        ),
    }
}

fn bench_variants(criterion: &mut Criterion) {
    // The variants are in this program and nowhere else.
    let program = std::env::current_exe().expect("the system knows where this program is");
    let folder = tempfile::tempdir().expect("a folder for stores");
    let measured = closed_store(folder.path(), MEASURED_COUNT);
    let timed = closed_store(folder.path(), TIMED_COUNT);
    let mut group = group(criterion);
    group.throughput(Throughput::Elements(TIMED_COUNT as u64));
    for variant in &VARIANTS {
        print_growth(&program, &measured, variant);
        group.bench_function(variant.name, |bencher| {
            bencher.iter_custom(|iterations| {
                let run = || {
                    variant.run(&timed, |build, database| {
                        let start = Instant::now();
                        let built = build(database);
                        let elapsed = start.elapsed();
                        assert_eq!(built.sum, expected_sum(TIMED_COUNT));
                        elapsed
                    })
                };
                (0..iterations).map(|_| run()).sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench_records, bench_variants);

fn main() {
    variants::run_if_asked();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
