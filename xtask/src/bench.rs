//! The criterion suite: measuring it, saving a baseline, holding it against one.
//!
//! Benches also print what needs no clock, as `TARGET/NAME: FIGURE`. Those lines are kept for the
//! report, beside criterion's own files.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::baselines;
use crate::command::{cargo, succeed, target_folder};

/// What the suite may take once it is built; a slower one is not run before each commit.
const SUITE_DURATION_MAX: Duration = Duration::from_secs(300);

/// Where criterion puts the latest figures, whatever they are compared with.
pub(crate) const LATEST: &str = "new";

/// What benches printed, by the name before the colon.
pub(crate) type Printed = BTreeMap<String, String>;

/// What to measure, and what to do with it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measure only this bench target.
    #[arg(long, value_name = "TARGET")]
    bench: Option<String>,
    /// Save the figures as a baseline of this name.
    #[arg(long, value_name = "NAME", conflicts_with = "against")]
    save: Option<String>,
    /// Fail where a bench got more than 10 % slower than in this baseline.
    #[arg(long, value_name = "NAME")]
    against: Option<String>,
}

/// Measures the workspace's benches, and tells whether none is too slow against a baseline.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let bench = || {
        let mut command = cargo(root, &["bench", "--workspace"]);
        command.args(options.bench.iter().flat_map(|name| ["--bench", name]));
        command
    };
    succeed(bench().arg("--no-run"))?;
    let mut measure = bench();
    if let Some(name) = &options.save {
        measure.args(["--", "--save-baseline", name]);
    } else if let Some(name) = &options.against {
        // Lenient: a bench that is new has nothing to be compared with.
        measure.args(["--", "--baseline-lenient", name]);
    }
    let start = Instant::now();
    keep(root, pass_on(measure)?)?;
    let elapsed = start.elapsed();
    println!("the suite took {:.0} s", elapsed.as_secs_f64());
    if elapsed > SUITE_DURATION_MAX {
        println!("that is more than {} s: use smaller samples", SUITE_DURATION_MAX.as_secs());
    }
    match &options.against {
        Some(name) => compare(root, name, LATEST),
        None => Ok(true),
    }
}

/// Holds one saved baseline against another.
pub(crate) fn compare(root: &Path, old: &str, new: &str) -> Result<bool> {
    baselines::compare(&target_folder(root)?.join("criterion"), old, new)
}

/// What benches printed when they were last measured with [`run`].
pub(crate) fn printed(root: &Path) -> Result<Printed> {
    let path = printed_path(root)?;
    if !path.exists() {
        return Ok(Printed::new());
    }
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("delete {}", path.display()))
}

fn printed_path(root: &Path) -> Result<PathBuf> {
    Ok(target_folder(root)?.join("bench-lines.json"))
}

fn keep(root: &Path, lines: Printed) -> Result<()> {
    let mut printed = printed(root)?;
    printed.extend(lines);
    let path = printed_path(root)?;
    std::fs::write(&path, serde_json::to_string_pretty(&printed)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Runs the benches, passes on what they print as it comes, and gives the lines that are figures.
fn pass_on(mut command: Command) -> Result<Printed> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo bench")?;
    let stdout = child.stdout.take().context("cargo bench has no standard output")?;
    let mut own_stdout = std::io::stdout().lock();
    let mut printed = Printed::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        own_stdout.write_all(&line)?;
        own_stdout.write_all(b"\n")?;
        printed.extend(figure_line(&String::from_utf8_lossy(&line)));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo bench failed with {status}");
    }
    Ok(printed)
}

/// Name and figure of a line like `wasm_size/simple_gen: 1234 bytes`, which may begin with a mark.
fn figure_line(line: &str) -> Option<(String, String)> {
    let line = line.trim_start_matches(['✅', '❌', ' ']);
    let (name, figure) = line.split_once(": ")?;
    let is_name = name.contains('/') && !name.contains(char::is_whitespace);
    is_name.then(|| (name.to_owned(), figure.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_from_what_criterion_prints() {
        let figure = |line| figure_line(line).map(|(name, _)| name);
        assert_eq!(figure("wasm_size/simple_gen: 1234 bytes"), Some("wasm_size/simple_gen".into()));
        assert_eq!(figure("✅ startup_time/cold: 8.00ms"), Some("startup_time/cold".into()));
        assert_eq!(figure("Benchmarking wasm_size/simple_gen: Warming up"), None);
        assert_eq!(figure("wasm_size/simple_gen    time:   [1 ms 2 ms 3 ms]"), None);
        assert_eq!(figure("change: [-5.2% -3.8%]"), None);
    }
}
