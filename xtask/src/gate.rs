//! The gate: every step in order, then one line that sums up the tests.
//!
//! All tests run in release, so that dependencies are compiled once for tests and budgets; QUIC
//! alone takes minutes. Our own crates are compiled twice: with debug assertions and overflow
//! checks for all tests, and as users get them for the budgets, which are promises about that
//! build. A test recognises the first by `cfg!(debug_assertions)`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{answers, cargo, has_program, has_target, succeed, target_folder};
use crate::{counts, runtime, tidy};

/// A target without a standard library: what compiles for it needs none.
const BARE_TARGET: &str = "thumbv7em-none-eabi";

/// Targets that some step compiles for.
const TARGETS: [&str; 2] = [runtime::TARGET, BARE_TARGET];

/// Where tests append a line for each test that they skip; see `vudo_testkit::skip`.
const SKIP_LOG_VARIABLE: &str = "VUDO_SKIP_LOG";

/// How a skip begins that installing something would cure.
const MISSING_PROGRAM: &str = "missing program ";

/// Checks in our own crates only: the settings of the others stay what `release` says, and so do
/// their artefacts.
const CHECKED: [&str; 4] = [
    "profile.release.debug-assertions=true",
    "profile.release.overflow-checks=true",
    "profile.release.package.'*'.debug-assertions=false",
    "profile.release.package.'*'.overflow-checks=false",
];

/// Packages outside the workspace, with lock files of their own that name our crates' dependencies.
const SEPARATE_PACKAGES: [&str; 2] = ["benchmarks/peers/Cargo.toml", FUZZ_MANIFEST];
const FUZZ_MANIFEST: &str = "fuzz/Cargo.toml";

/// Quick steps come first, so that a slip of the pen is reported within seconds.
const STEPS: [(&str, Step); 12] = [
    ("rustup targets", Gate::add_targets),
    ("format", Gate::format),
    ("tidy", Gate::tidy),
    ("locks", Gate::locks),
    ("deny", Gate::deny),
    ("clippy", Gate::clippy),
    ("no_std", Gate::no_std),
    ("fuzz targets", Gate::fuzz_targets),
    ("runtime bytes", Gate::runtime_bytes),
    ("tests", Gate::tests),
    ("budgets", Gate::budgets),
    ("counts", Gate::counts),
];

type Step = fn(&mut Gate) -> Result<Outcome>;

enum Outcome {
    Done,
    /// Something that the step needs is missing.
    Skipped,
}

/// Counts of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

struct Gate {
    root: PathBuf,
    skip_log: PathBuf,
    /// What the runners' closing lines add up to.
    tally: Tally,
    /// Why steps, or parts of them, were skipped.
    skipped_steps: Vec<String>,
}

/// Runs every step, also after one that failed, and tells whether all is good. `no_skips`: what is
/// skipped because a program is missing counts as failed.
pub(crate) fn run(root: &Path, no_skips: bool) -> Result<bool> {
    let mut gate = Gate::new(root)?;
    let mut is_good = true;
    let mut verdicts = Vec::new();
    for (name, step) in STEPS {
        println!("\n== {name}");
        let start = Instant::now();
        let verdict = match step(&mut gate) {
            Ok(Outcome::Done) => "ok",
            Ok(Outcome::Skipped) => "skipped",
            Err(error) => {
                println!("{name} failed: {error:#}");
                is_good = false;
                "FAILED"
            }
        };
        verdicts.push((name, verdict, start.elapsed()));
        println!("== {name}: {verdict} after {:.1} s", start.elapsed().as_secs_f64());
    }
    print_summary(&verdicts);
    let skipped_tests = gate.skipped_tests()?;
    for skip in gate.skipped_steps.iter().chain(&skipped_tests) {
        println!("skipped: {skip}");
    }
    let (sum, missing) = sum_up(gate.tally, &gate.skipped_steps, &skipped_tests, no_skips);
    if missing > 0 && no_skips {
        println!("{missing} skipped for want of a program: install what is named above");
        is_good = false;
    }
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    Ok(is_good)
}

impl Gate {
    fn new(root: &Path) -> Result<Self> {
        let target_folder = target_folder(root)?;
        std::fs::create_dir_all(&target_folder)?;
        let skip_log = target_folder.join("skipped-tests.txt");
        std::fs::write(&skip_log, "")
            .with_context(|| format!("cannot write {}", skip_log.display()))?;
        Ok(Self {
            root: root.to_owned(),
            skip_log,
            tally: Tally::default(),
            skipped_steps: Vec::new(),
        })
    }

    /// The skips that tests reported. The same test may have run twice.
    fn skipped_tests(&self) -> Result<BTreeSet<String>> {
        let log = std::fs::read_to_string(&self.skip_log)
            .with_context(|| format!("cannot read {}", self.skip_log.display()))?;
        Ok(log.lines().map(str::to_owned).collect())
    }

    fn skip(&mut self, why: String) -> Result<Outcome> {
        println!("skipped: {why}");
        self.skipped_steps.push(why);
        Ok(Outcome::Skipped)
    }

    fn add_targets(&mut self) -> Result<Outcome> {
        let absent = |target: &&&str| !has_target(&self.root, target);
        let targets: Vec<&str> = TARGETS.iter().filter(absent).copied().collect();
        if targets.is_empty() {
            return Ok(Outcome::Done);
        }
        if !has_program("rustup") {
            return self.skip(format!(
                "{MISSING_PROGRAM}rustup: install it from https://rustup.rs, or give the compiler \
                 the targets {} some other way",
                targets.join(" and ")
            ));
        }
        let mut add = Command::new("rustup");
        succeed(add.current_dir(&self.root).args(["target", "add"]).args(targets))?;
        Ok(Outcome::Done)
    }

    fn format(&mut self) -> Result<Outcome> {
        succeed(&mut cargo(&self.root, &["fmt", "--all", "--check"]))
            .context("run `cargo fmt --all`")?;
        Ok(Outcome::Done)
    }

    fn tidy(&mut self) -> Result<Outcome> {
        tidy::run(&self.root)?;
        Ok(Outcome::Done)
    }

    /// What is built outside the workspace is built by hand; only its lock files are checked here.
    fn locks(&mut self) -> Result<Outcome> {
        for manifest in SEPARATE_PACKAGES {
            let arguments = ["fetch", "--quiet", "--locked", "--manifest-path", manifest];
            succeed(&mut cargo(&self.root, &arguments)).with_context(|| {
                format!("run `cargo fetch --manifest-path {manifest}` and commit its Cargo.lock")
            })?;
        }
        Ok(Outcome::Done)
    }

    fn deny(&mut self) -> Result<Outcome> {
        if !answers(&mut cargo(&self.root, &["deny", "--version"])) {
            let how = "cargo install cargo-deny --locked";
            return self.skip(format!("{MISSING_PROGRAM}cargo-deny: {how}"));
        }
        let checks = ["check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
        succeed(cargo(&self.root, &["deny", "--log-level", "error"]).args(checks))?;
        Ok(Outcome::Done)
    }

    /// In release as well: build scripts and procedural macros are then compiled once. The feature
    /// is that of a bench which a plain `cargo bench` leaves out.
    fn clippy(&mut self) -> Result<Outcome> {
        let arguments = ["clippy", "--workspace", "--all-targets", "--release", "--keep-going"];
        let mut clippy = cargo(&self.root, &arguments);
        clippy.args(["--features", counts::BENCH_FEATURE, "--", "-D", "warnings"]);
        succeed(&mut clippy)?;
        Ok(Outcome::Done)
    }

    fn no_std(&mut self) -> Result<Outcome> {
        if !has_target(&self.root, BARE_TARGET) {
            println!("needs the target {BARE_TARGET}");
            return Ok(Outcome::Skipped);
        }
        succeed(&mut cargo(&self.root, &["check", "-p", "vudo-crdt", "--target", BARE_TARGET]))?;
        Ok(Outcome::Done)
    }

    /// They are a package of their own, which nothing else compiles: fuzzing itself is for long runs.
    fn fuzz_targets(&mut self) -> Result<Outcome> {
        let arguments = ["check", "--quiet", "--locked", "--release", "--bins", "--manifest-path"];
        let mut check = cargo(&self.root, &arguments);
        succeed(check.args([FUZZ_MANIFEST, "--target-dir"]).arg(target_folder(&self.root)?))?;
        Ok(Outcome::Done)
    }

    fn runtime_bytes(&mut self) -> Result<Outcome> {
        if !has_target(&self.root, runtime::TARGET) {
            println!("needs the target {}", runtime::TARGET);
            return Ok(Outcome::Skipped);
        }
        if !has_program("node") || !has_program("npm") {
            let how = "apt-get install nodejs npm";
            return self.skip(format!("{MISSING_PROGRAM}npm, which brings wasm-opt: {how}"));
        }
        runtime::run(&self.root, true)?;
        Ok(Outcome::Done)
    }

    fn tests(&mut self) -> Result<Outcome> {
        let mut command = cargo(&self.root, &["test", "--workspace", "--release"]);
        command.arg("--no-fail-fast");
        CHECKED.iter().for_each(|setting| {
            command.args(["--config", setting]);
        });
        self.run_tests(command)
    }

    /// Of the whole workspace, like the step before: naming a package would choose other features
    /// of the dependencies, and compile them again.
    fn budgets(&mut self) -> Result<Outcome> {
        let arguments = ["test", "--workspace", "--release", "--test", "regression_tests"];
        self.run_tests(cargo(&self.root, &arguments))
    }

    fn counts(&mut self) -> Result<Outcome> {
        if !counts::run(&self.root, false)? {
            bail!("see what grew above");
        }
        if !has_program(counts::PROGRAM) {
            let how = format!("apt-get install {}", counts::PROGRAM);
            return self.skip(format!("{MISSING_PROGRAM}{}: {how}", counts::PROGRAM));
        }
        Ok(Outcome::Done)
    }

    /// Runs tests, passes on what they print as it comes, and adds up the closing lines.
    fn run_tests(&mut self, mut command: Command) -> Result<Outcome> {
        command.env(SKIP_LOG_VARIABLE, &self.skip_log).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start cargo test")?;
        let stdout = child.stdout.take().context("cargo test has no standard output")?;
        let mut own_stdout = std::io::stdout().lock();
        let mut test_count = 0;
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            own_stdout.write_all(&line)?;
            own_stdout.write_all(b"\n")?;
            if let Some(counted) = closing_line(&String::from_utf8_lossy(&line)) {
                self.tally.passed += counted.passed;
                self.tally.failed += counted.failed;
                self.tally.skipped += counted.skipped;
                test_count += counted.passed + counted.failed;
            }
        }
        drop(own_stdout);
        let status = child.wait()?;
        if !status.success() {
            bail!("cargo test failed with {status}");
        }
        if test_count == 0 {
            bail!("cargo test ran no test");
        }
        Ok(Outcome::Done)
    }
}

fn print_summary(verdicts: &[(&str, &str, Duration)]) {
    println!("\n== summary");
    for (name, verdict, duration) in verdicts {
        println!("{verdict:>8} {name:<16} {:>7.1} s", duration.as_secs_f64());
    }
    let total: Duration = verdicts.iter().map(|(_, _, duration)| *duration).sum();
    println!("{:>8} {:<16} {:>7.1} s", "", "total", total.as_secs_f64());
}

/// What the last line says, and how much was skipped because a program is missing.
///
/// To its runner a skipped test has passed, so it is taken off there.
fn sum_up(
    counted: Tally,
    skipped_steps: &[String],
    skipped_tests: &BTreeSet<String>,
    no_skips: bool,
) -> (Tally, usize) {
    let skips = || skipped_steps.iter().chain(skipped_tests);
    let missing = skips().filter(|skip| skip.starts_with(MISSING_PROGRAM)).count();
    let failed = if no_skips { missing } else { 0 };
    let sum = Tally {
        passed: counted.passed.saturating_sub(skipped_tests.len()),
        failed: counted.failed + failed,
        skipped: counted.skipped + skips().count() - failed,
    };
    (sum, missing)
}

/// The counts of a line like `test result: ok. 12 passed; 0 failed; 0 ignored; ...`.
fn closing_line(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = counts.split("; ").find(|part| part.ends_with(word))?;
        part.split_once(' ')?.0.parse().ok()
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted_and_others_are_not() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 1 filtered out";
        assert_eq!(closing_line(line), Some(Tally { passed: 12, failed: 3, skipped: 1 }));
        assert_eq!(closing_line("test tests::one ... ok"), None);
    }

    #[test]
    fn only_a_missing_program_fails_without_skips() {
        let counted = Tally { passed: 10, failed: 1, skipped: 0 };
        let steps = ["missing program cargo-deny: install it".to_owned()];
        let tests = [
            "missing program chromium: install it (needed by pages)".to_owned(),
            "missing data world-cities.csv (needed by import)".to_owned(),
        ];
        let tests = BTreeSet::from(tests);
        let sum = |no_skips| sum_up(counted, &steps, &tests, no_skips);
        assert_eq!(sum(false), (Tally { passed: 8, failed: 1, skipped: 3 }, 2));
        assert_eq!(sum(true), (Tally { passed: 8, failed: 3, skipped: 1 }, 2));
    }
}
