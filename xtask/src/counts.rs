//! What must not grow and does not depend on the machine's mood: instructions of the hot paths,
//! bytes of modules, bytes of records. `benchmarks/baseline.json` holds what they were.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::command::{bench_program, has_program, output, target_folder};

/// What counts instructions.
pub(crate) const PROGRAM: &str = "valgrind";

/// Without it the bench is not built, and a machine without valgrind is not bothered.
pub(crate) const BENCH_FEATURE: &str = "vudo-benchmarks/instructions";

const BASELINE: &str = "benchmarks/baseline.json";
const REMEDY: &str = "if this is meant to be, run `cargo xtask counts --bless` and commit it";

/// A function of the bench `instructions`: callgrind collects from its entry to its end.
const COLLECTED_FUNCTION: &str = "*collect_instructions*";

/// What is counted, by the name of its row.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Counts {
    /// Empty where valgrind is missing.
    pub(crate) instructions: BTreeMap<String, u64>,
    pub(crate) module_bytes_gzipped: BTreeMap<String, u64>,
    pub(crate) bytes_per_record: BTreeMap<String, f64>,
}

impl Counts {
    /// What each kind is called, how much it may grow, and its counts.
    pub(crate) fn kinds(&self) -> [(&'static str, Limit, BTreeMap<String, f64>); 3] {
        let floats = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(name, count)| (name.clone(), *count as f64)).collect()
        };
        [
            ("instructions", Limit::Percent(10.0), floats(&self.instructions)),
            ("module bytes, gzipped", Limit::Bytes(2_000.0), floats(&self.module_bytes_gzipped)),
            ("bytes per record", Limit::Percent(15.0), self.bytes_per_record.clone()),
        ]
    }
}

/// The part of the counts that the bench itself can tell.
#[derive(Deserialize)]
struct Sizes {
    module_bytes_gzipped: BTreeMap<String, u64>,
    bytes_per_record: BTreeMap<String, f64>,
}

/// By how much a count may grow.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    Percent(f64),
    Bytes(f64),
}

impl Limit {
    fn allows(self, before: f64, now: f64) -> bool {
        match self {
            Limit::Percent(percent) => now <= before * (1.0 + percent / 100.0),
            Limit::Bytes(bytes) => now <= before + bytes,
        }
    }
}

/// A count beside what it was.
struct Row {
    kind: &'static str,
    name: String,
    before: Option<f64>,
    now: f64,
    is_good: bool,
}

/// Measures all counts. With `bless` they become the baseline, else they are held against it.
pub(crate) fn run(root: &Path, bless: bool) -> Result<bool> {
    let counts = measure(root)?;
    let path = root.join(BASELINE);
    if bless {
        if counts.instructions.is_empty() {
            bail!("a baseline has instruction counts: install {PROGRAM}");
        }
        std::fs::write(&path, serde_json::to_string_pretty(&counts)? + "\n")?;
        println!("{BASELINE} is what was measured now");
        return Ok(true);
    }
    let baseline = read(root)?;
    let rows = compare(&baseline, &counts);
    rows.iter().for_each(print_row);
    let bad = rows.iter().filter(|row| !row.is_good).count();
    if bad > 0 {
        println!("{bad} of {} counts grew too much or are new: {REMEDY}", rows.len());
    }
    Ok(bad == 0)
}

/// The committed counts.
///
/// # Errors
/// The file is absent or of another form.
pub(crate) fn read(root: &Path) -> Result<Counts> {
    let text = std::fs::read(root.join(BASELINE)).with_context(|| {
        format!("cannot read {BASELINE}: `cargo xtask counts --bless` writes it")
    })?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{BASELINE}: `cargo xtask counts --bless` writes it anew"))
}

/// Every measured count beside the baseline's. A count that the baseline does not know is not good:
/// nothing would hold it.
fn compare(baseline: &Counts, measured: &Counts) -> Vec<Row> {
    let mut rows = Vec::new();
    for ((kind, limit, now), (_, _, before)) in measured.kinds().into_iter().zip(baseline.kinds()) {
        for (name, now) in now {
            let before = before.get(&name).copied();
            let is_good = before.is_some_and(|before| limit.allows(before, now));
            rows.push(Row { kind, name, before, now, is_good });
        }
    }
    rows
}

fn print_row(row: &Row) {
    let verdict = if row.is_good { "ok" } else { "FAILED" };
    let before = row.before.map_or("none".to_owned(), number);
    let change = row.before.map_or(0.0, |before| (row.now / before - 1.0) * 100.0);
    println!(
        "{verdict:>6} {:<22} {:<28} {before:>12} -> {:>12} {change:>+7.1}%",
        row.kind,
        row.name,
        number(row.now)
    );
}

/// Whole numbers as such, others with one digit.
pub(crate) fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.1}") }
}

fn measure(root: &Path) -> Result<Counts> {
    let program = bench_program(root, "instructions", &[BENCH_FEATURE])?;
    let sizes: Sizes = serde_json::from_str(&output(Command::new(&program).arg("--sizes"))?)
        .context("the bench `instructions` prints its sizes as JSON")?;
    let mut counts = Counts {
        instructions: BTreeMap::new(),
        module_bytes_gzipped: sizes.module_bytes_gzipped,
        bytes_per_record: sizes.bytes_per_record,
    };
    if !has_program(PROGRAM) {
        println!("skipped: install {PROGRAM} to count instructions");
        return Ok(counts);
    }
    let folder = target_folder(root)?.join("instructions");
    std::fs::create_dir_all(&folder)?;
    for name in output(Command::new(&program).arg("--list"))?.lines() {
        let out = folder.join(format!("{name}.callgrind"));
        counts.instructions.insert(name.to_owned(), instructions(&program, name, &out)?);
    }
    Ok(counts)
}

/// Runs one row under callgrind.
fn instructions(program: &Path, row: &str, out: &Path) -> Result<u64> {
    let result = Command::new(PROGRAM)
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COLLECTED_FUNCTION}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg(row)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {PROGRAM}"))?;
    if !result.status.success() {
        bail!("{row} failed in {PROGRAM}: {}", String::from_utf8_lossy(&result.stderr));
    }
    let text = std::fs::read_to_string(out)
        .with_context(|| format!("callgrind wrote no {}", out.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let count = total.and_then(|total| total.trim().parse::<u64>().ok()).unwrap_or_default();
    if count == 0 {
        bail!("{row}: nothing was counted; is the function {COLLECTED_FUNCTION} there?");
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(merge: u64, module: u64, record: f64) -> Counts {
        Counts {
            instructions: BTreeMap::from([("merge".to_owned(), merge)]),
            module_bytes_gzipped: BTreeMap::from([("three_fields".to_owned(), module)]),
            bytes_per_record: BTreeMap::from([("memory".to_owned(), record)]),
        }
    }

    fn bad_kinds(baseline: &Counts, measured: &Counts) -> Vec<&'static str> {
        let rows = compare(baseline, measured);
        rows.iter().filter(|row| !row.is_good).map(|row| row.kind).collect()
    }

    #[test]
    fn each_kind_of_growth_turns_the_gate_red() {
        let baseline = counts(10_000_000, 5_000, 100.0);
        let red = |merge, module, record| bad_kinds(&baseline, &counts(merge, module, record));
        assert_eq!(red(11_500_000, 5_000, 100.0), ["instructions"]);
        assert_eq!(red(10_000_000, 8_000, 100.0), ["module bytes, gzipped"]);
        assert_eq!(red(10_000_000, 5_000, 120.0), ["bytes per record"]);
    }

    #[test]
    fn what_grew_little_or_shrank_passes() {
        let baseline = counts(10_000_000, 5_000, 100.0);
        assert!(bad_kinds(&baseline, &counts(10_500_000, 6_000, 110.0)).is_empty());
        assert!(bad_kinds(&baseline, &counts(1_000_000, 500, 10.0)).is_empty());
    }

    #[test]
    fn a_count_that_the_baseline_does_not_know_is_red() {
        let measured = counts(10_000_000, 5_000, 100.0);
        assert_eq!(bad_kinds(&Counts::default(), &measured).len(), 3);
    }

    #[test]
    fn counts_that_could_not_be_measured_are_not_held() {
        let mut measured = counts(10_000_000, 5_000, 100.0);
        measured.instructions.clear();
        assert!(bad_kinds(&counts(10_000_000, 5_000, 100.0), &measured).is_empty());
    }
}
