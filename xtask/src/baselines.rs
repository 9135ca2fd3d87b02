//! Criterion's baselines: reading the medians of two, and holding one against the other.
//!
//! Criterion keeps `target/criterion/GROUP/BENCH/BASELINE/estimates.json`. Comparing what is on the
//! disk needs no measurement, so a verdict can be had again, and tests can write baselines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A median that grew by more than this is a regression.
pub(crate) const SLOWER_PERCENT_MAX: f64 = 10.0;

/// The median of each bench in nanoseconds, by the bench's path below criterion's folder.
pub(crate) type Medians = BTreeMap<String, f64>;

/// A bench that both baselines have.
struct Row {
    name: String,
    old_nanoseconds: f64,
    new_nanoseconds: f64,
}

impl Row {
    fn change_percent(&self) -> f64 {
        (self.new_nanoseconds / self.old_nanoseconds - 1.0) * 100.0
    }

    fn is_regression(&self) -> bool {
        self.change_percent() > SLOWER_PERCENT_MAX
    }
}

/// Prints how the medians of two baselines differ, and tells whether none got too slow.
///
/// # Errors
/// A file is not criterion's, or no bench has both baselines.
pub(crate) fn compare(criterion_folder: &Path, old: &str, new: &str) -> Result<bool> {
    let old_medians = read(criterion_folder, old)?;
    let new_medians = read(criterion_folder, new)?;
    let rows = common_rows(&old_medians, &new_medians);
    if rows.is_empty() {
        bail!(
            "no bench has both baselines '{old}' and '{new}' in {}: \
             save them with `cargo bench -- --save-baseline NAME`",
            criterion_folder.display()
        );
    }
    print!("{}", table(&rows, old, new));
    for (baseline, own, other) in
        [(old, &old_medians, &new_medians), (new, &new_medians, &old_medians)]
    {
        for name in own.keys().filter(|name| !other.contains_key(*name)) {
            println!("only in {baseline}: {name}");
        }
    }
    let slower = rows.iter().filter(|row| row.is_regression()).count();
    println!(
        "{slower} of {} benches got more than {SLOWER_PERCENT_MAX} % slower from {old} to {new}",
        rows.len()
    );
    Ok(slower == 0)
}

/// The medians of one baseline; empty where it was never saved.
///
/// # Errors
/// A folder cannot be read, or a file is not criterion's.
pub(crate) fn read(criterion_folder: &Path, baseline: &str) -> Result<Medians> {
    let mut medians = Medians::new();
    if criterion_folder.is_dir() {
        collect(criterion_folder, "", baseline, &mut medians)?;
    }
    Ok(medians)
}

fn collect(folder: &Path, name: &str, baseline: &str, medians: &mut Medians) -> Result<()> {
    let estimates = folder.join(baseline).join("estimates.json");
    if estimates.is_file() {
        medians.insert(name.to_owned(), median(&estimates)?);
    }
    let listing = std::fs::read_dir(folder);
    for entry in listing.with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let own = entry.file_name().to_string_lossy().into_owned();
            let name = if name.is_empty() { own } else { format!("{name}/{own}") };
            collect(&entry.path(), &name, baseline, medians)?;
        }
    }
    Ok(())
}

fn median(path: &Path) -> Result<f64> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let estimates: serde_json::Value = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not JSON: delete it and measure again", path.display()))?;
    let median = estimates["median"]["point_estimate"].as_f64();
    median
        .filter(|nanoseconds| *nanoseconds > 0.0)
        .with_context(|| format!("{} has no median: delete it and measure again", path.display()))
}

fn common_rows(old: &Medians, new: &Medians) -> Vec<Row> {
    let row = |(name, old_nanoseconds): (&String, &f64)| {
        let new_nanoseconds = *new.get(name)?;
        Some(Row { name: name.clone(), old_nanoseconds: *old_nanoseconds, new_nanoseconds })
    };
    old.iter().filter_map(row).collect()
}

fn table(rows: &[Row], old: &str, new: &str) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    let mut text = format!("{:<width$} {old:>12} {new:>12} {:>9}\n", "name", "change");
    for row in rows {
        let mark = if row.is_regression() { "  SLOWER" } else { "" };
        let _ = writeln!(
            text,
            "{:<width$} {:>12} {:>12} {:>+8.1}%{mark}",
            row.name,
            duration(row.old_nanoseconds),
            duration(row.new_nanoseconds),
            row.change_percent()
        );
    }
    text
}

/// A duration in the unit in which it has one to three digits before the point.
pub(crate) fn duration(nanoseconds: f64) -> String {
    let units = [("s", 1e9), ("ms", 1e6), ("us", 1e3)];
    let unit = units.into_iter().find(|(_, size)| nanoseconds >= *size);
    let (unit, size) = unit.unwrap_or(("ns", 1.0));
    format!("{:.2} {unit}", nanoseconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two benches in the baselines `main` and `pr`; `pr` is this much slower in one.
    fn folder(slower_percent: f64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "merge/one_change", "main", 1_000.0);
        write(folder.path(), "merge/one_change", "pr", 1_000.0 * (1.0 + slower_percent / 100.0));
        write(folder.path(), "startup/cold", "main", 5e6);
        write(folder.path(), "startup/cold", "pr", 4e6);
        folder
    }

    fn write(folder: &Path, bench: &str, baseline: &str, median: f64) {
        let folder = folder.join(bench).join(baseline);
        std::fs::create_dir_all(&folder).unwrap();
        let estimates = serde_json::json!({
            "mean": { "point_estimate": median * 3.0 },
            "median": { "point_estimate": median },
        });
        std::fs::write(folder.join("estimates.json"), estimates.to_string()).unwrap();
    }

    #[test]
    fn fifteen_percent_slower_fails_and_five_passes() {
        for (slower_percent, is_good) in [(15.0, false), (5.0, true), (-50.0, true)] {
            let folder = folder(slower_percent);
            let verdict = compare(folder.path(), "main", "pr").unwrap();
            assert_eq!(verdict, is_good, "{slower_percent} % slower");
        }
    }

    #[test]
    fn benches_of_one_baseline_only_are_no_regressions() {
        let folder = folder(5.0);
        write(folder.path(), "memory/new_one", "pr", 1e9);
        assert!(compare(folder.path(), "main", "pr").unwrap());
        assert_eq!(read(folder.path(), "pr").unwrap().len(), 3);
    }

    #[test]
    fn a_baseline_that_was_never_saved_or_is_torn_is_an_error() {
        let folder = folder(5.0);
        let error = compare(folder.path(), "main", "absent").unwrap_err().to_string();
        assert!(error.contains("'absent'") && error.contains("--save-baseline"), "{error}");
        let torn = folder.path().join("merge/one_change/pr/estimates.json");
        std::fs::write(&torn, "{").unwrap();
        let error = compare(folder.path(), "main", "pr").unwrap_err().to_string();
        assert!(error.contains("estimates.json"), "{error}");
    }

    #[test]
    fn the_table_shows_both_medians_and_the_change() {
        let folder = folder(15.0);
        let read = |baseline| read(folder.path(), baseline).unwrap();
        let text = table(&common_rows(&read("main"), &read("pr")), "main", "pr");
        let line = text.lines().find(|line| line.starts_with("merge/one_change")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1..], ["1.00", "us", "1.15", "us", "+15.0%", "SLOWER"]);
    }
}
