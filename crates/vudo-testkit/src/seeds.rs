//! Running a random test many times: how often, from which seeds, and which seed failed.

/// Says which seed was being run when a panic unwinds.
struct Running<'a>(&'a str, u64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: this seed failed; replay it with VUDO_SEED={}", self.0, self.1);
        }
    }
}

/// Where there are more seeds than these, it is told from time to time how many have run.
const QUIET_COUNT: u64 = 2_000;
const TOLD_TIMES: u64 = 20;

/// Runs a test once for each seed from zero on, `default_count` times, or as often as
/// `VUDO_HISTORIES` says; where `VUDO_SEED` is set, for that seed alone. Prints how often it ran,
/// and gives it.
///
/// # Panics
/// Where one of the variables is set and no number, and where the test panics.
pub fn run_seeds(test: &str, default_count: u64, mut run: impl FnMut(u64)) -> u64 {
    let seeds = match number_from_environment("VUDO_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_environment("VUDO_HISTORIES").unwrap_or(default_count),
    };
    let (first, count) = (seeds.start, seeds.end - seeds.start);
    for seed in seeds {
        let running = Running(test, seed);
        run(seed);
        drop(running);
        let done = seed - first + 1;
        if count > QUIET_COUNT && done.is_multiple_of(count / TOLD_TIMES) {
            eprintln!("{test}: {done} of {count} seeds");
        }
    }
    println!("{test}: {count} seeds");
    count
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
