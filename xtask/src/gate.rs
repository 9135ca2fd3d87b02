//! The gate: every step in order, then one line that sums up the tests.
//!
//! All tests run in release. The budgets are promises about release builds, the regression tests
//! need that build anyway, and a second build of everything would double the time from cold.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, has_program, output, succeed};
use crate::{runtime, tidy};

/// Targets that some step compiles for.
const TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "thumbv7em-none-eabi"];

/// Where tests append a line for each test that they skip; see `vudo_testkit::skip`.
const SKIP_LOG_VARIABLE: &str = "VUDO_SKIP_LOG";

/// What the runners' closing lines add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
}

type Step<'a> = (&'static str, Box<dyn FnMut() -> Result<()> + 'a>);

pub(crate) fn run(root: &Path, no_skips: bool) -> Result<()> {
    let target_folder = target_folder(root)?;
    std::fs::create_dir_all(&target_folder)?;
    let skip_log = Path::new(&target_folder).join("skipped-tests.txt");
    std::fs::write(&skip_log, "")?;
    let mut tally = Tally::default();
    let mut missing_deny = false;
    let steps: Vec<Step<'_>> = vec![
        ("rustup targets", Box::new(|| add_targets(root))),
        ("format", Box::new(|| succeed(&mut cargo(root, &["fmt", "--all", "--check"])))),
        ("tidy", Box::new(|| tidy::run(root))),
        ("deny", Box::new(|| deny(root, &mut missing_deny))),
        ("clippy", Box::new(|| clippy(root))),
        ("no_std", Box::new(|| no_std(root))),
        ("tests", Box::new(|| tests(root, &skip_log, &mut tally))),
        ("runtime bytes", Box::new(|| runtime::run(root, true))),
    ];
    let mut failures = Vec::new();
    let mut durations = Vec::new();
    for (name, mut step) in steps {
        println!("\n== {name}");
        let start = Instant::now();
        if let Err(error) = step() {
            println!("FAILED: {error:#}");
            failures.push(name);
        }
        durations.push((name, start.elapsed()));
    }
    println!("\n== summary");
    for (name, duration) in durations {
        let verdict = if failures.contains(&name) { "FAILED" } else { "ok" };
        println!("{verdict:>6} {name:<16} {:>6.1} s", duration.as_secs_f64());
    }
    let mut skips: Vec<String> =
        std::fs::read_to_string(&skip_log)?.lines().map(str::to_owned).collect();
    if missing_deny {
        skips.push("missing program cargo-deny: cargo install cargo-deny --locked".to_owned());
    }
    skips.iter().for_each(|skip| println!("skipped: {skip}"));
    let unwelcome = skips.iter().filter(|skip| skip.contains("missing program")).count();
    let forbidden = if no_skips { unwelcome } else { 0 };
    let failed = tally.failed + forbidden as u64;
    println!("{} passed, {failed} failed, {} skipped", tally.passed, skips.len() - forbidden);
    if forbidden > 0 {
        bail!("{forbidden} tests were skipped for want of a program; install what is named above");
    }
    if !failures.is_empty() {
        bail!("failed: {}", failures.join(", "));
    }
    Ok(())
}

fn target_folder(root: &Path) -> Result<String> {
    let metadata = output(&mut cargo(root, &["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let folder = metadata["target_directory"].as_str();
    folder.map(str::to_owned).context("cargo metadata names no target folder")
}

fn add_targets(root: &Path) -> Result<()> {
    let mut list = Command::new("rustup");
    let installed = output(list.current_dir(root).args(["target", "list", "--installed"]))
        .context("rustup adds the targets that this project compiles for; install it first")?;
    for target in TARGETS.iter().filter(|target| !installed.lines().any(|line| line == **target)) {
        succeed(Command::new("rustup").current_dir(root).args(["target", "add", target]))?;
    }
    Ok(())
}

fn deny(root: &Path, missing: &mut bool) -> Result<()> {
    if !has_program("cargo-deny") {
        *missing = true;
        return Ok(());
    }
    succeed(&mut cargo(root, &["deny", "check", "bans", "licenses", "sources"]))
}

/// In release as well: build scripts and procedural macros are then compiled once for everything.
fn clippy(root: &Path) -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"];
    succeed(&mut cargo(root, &arguments))
}

fn no_std(root: &Path) -> Result<()> {
    succeed(&mut cargo(root, &["check", "-p", "vudo-crdt", "--target", "thumbv7em-none-eabi"]))
}

fn tests(root: &Path, skip_log: &Path, tally: &mut Tally) -> Result<()> {
    let mut command = cargo(root, &["test", "--workspace", "--release", "--no-fail-fast"]);
    command.env(SKIP_LOG_VARIABLE, skip_log).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no standard output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        std::io::stdout().flush()?;
        if let Some(counted) = closing_line(&line) {
            tally.passed += counted.passed;
            tally.failed += counted.failed;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test failed with {status}");
    }
    Ok(())
}

/// The counts of a line like `test result: ok. 12 passed; 0 failed; ...`.
fn closing_line(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |word: &str| {
        let part = counts.split("; ").find(|part| part.ends_with(word))?;
        part.split_once(' ')?.0.parse().ok()
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted_and_others_are_not() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out";
        assert_eq!(closing_line(line), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(closing_line("test tests::one ... ok"), None);
    }
}
