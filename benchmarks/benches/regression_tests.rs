//! The budgets' hot paths as criterion benches, so that baselines can be saved and compared.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use vudo_benchmarks::workload;
use vudo_state::{Database, Durability};

fn bench_budgets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("regression_tests");
    group.sample_size(20).measurement_time(Duration::from_secs(1));
    group.warm_up_time(Duration::from_millis(300));
    // Confidence intervals need no more, and drawing the default of 100,000 takes seconds a row.
    group.nresamples(5_000);

    for (name, changes) in [("merge_10k_single_op_changes", 10_000), ("merge_10k_one_change", 1)] {
        let frame = workload::merge_frame(changes);
        println!("regression_tests/{name}: {} bytes for 10,000 operations", frame.len());
        group.throughput(Throughput::Elements(10_000));
        group.bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| workload::merge(black_box(&frame)));
        });
    }

    group.throughput(Throughput::Elements(1_000));
    group.bench_function("eventual_writes_1000", |bencher| {
        bencher.iter_batched(
            || Database::open_in_memory().expect("the system gives randomness"),
            |database| {
                let fast = database.with_durability(Durability::Eventual);
                let gen_schema = workload::record_gen();
                for number in 0..1_000i64 {
                    let id = fast.document_id(&format!("record{number}"));
                    fast.create(&gen_schema, &id, &[("value", number.into())])
                        .expect("a new document");
                }
                database
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, bench_budgets);
criterion_main!(benches);
