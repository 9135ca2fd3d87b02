//! What the benches of this crate share: the documents, and how long a row may take.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

pub(crate) mod documents;

/// A group whose rows take some two seconds each, however slow one iteration is.
pub(crate) fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    // Confidence intervals need no more, and drawing the default of 100,000 takes seconds a row.
    group.nresamples(5_000);
    group
}
