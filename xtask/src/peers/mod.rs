//! Our rows beside those of other libraries, measured by the package `benchmarks/peers`.

mod javascript;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::command::{cargo, output, succeed, target_folder};
use crate::report;

/// Each figure is the median of this many fresh processes.
const PROCESS_COUNT: usize = 3;

/// One figure of every library that has it.
#[derive(Deserialize, Serialize)]
pub(crate) struct Row {
    /// Ends in its unit.
    name: String,
    /// In the order of the columns, ours first. `None`: the library has no such thing.
    figures: Vec<(String, Option<f64>)>,
}

impl Row {
    fn libraries(&self) -> impl Iterator<Item = &str> {
        self.figures.iter().map(|(library, _)| library.as_str())
    }
}

/// Measures every case of every library, prints the table, and keeps it for the report.
pub(crate) fn run(root: &Path, as_json: bool) -> Result<()> {
    let target_folder = target_folder(root)?.join("peers");
    let mut build = cargo(root, &["build", "--release", "--locked", "--manifest-path"]);
    build.arg("benchmarks/peers/Cargo.toml").env("CARGO_TARGET_DIR", &target_folder);
    succeed(&mut build)?;
    let program = target_folder.join("release/peers");
    let listing = output(Command::new(&program).arg("--list"))?;
    let (cases, libraries): (Vec<String>, Vec<String>) = serde_json::from_str(&listing)?;
    // The quick ones come first, because what they need from outside may be missing.
    let javascript_rows = javascript::measure(root)?;
    let mut rows = Vec::new();
    for case in &cases {
        eprintln!("measuring {case}");
        rows.extend(measure(case, &libraries, PROCESS_COUNT, |library| {
            let mut peer = Command::new(&program);
            peer.args([case.as_str(), library]);
            peer
        })?);
    }
    rows.extend(javascript_rows);
    let json = serde_json::to_string_pretty(&rows)? + "\n";
    if as_json {
        print!("{json}");
    } else {
        print!("{}", markdown(&rows));
    }
    report::keep_peers(root, &json)
}

/// Runs the command of every library in fresh processes. Each prints its figures as a JSON object,
/// or nothing where the library has no such case.
fn measure(
    case: &str,
    libraries: &[String],
    process_count: usize,
    command: impl Fn(&str) -> Command,
) -> Result<Vec<Row>> {
    let mut by_figure: BTreeMap<String, BTreeMap<&String, f64>> = BTreeMap::new();
    for library in libraries {
        let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for _ in 0..process_count {
            let printed = output(&mut command(library))?;
            if printed.is_empty() {
                break;
            }
            let figures: BTreeMap<String, f64> = serde_json::from_str(&printed)
                .with_context(|| format!("{case} of {library} printed '{}'", printed.trim()))?;
            for (name, figure) in figures {
                samples.entry(name).or_default().push(figure);
            }
        }
        for (name, mut samples) in samples {
            samples.sort_by(f64::total_cmp);
            by_figure.entry(name).or_default().insert(library, samples[samples.len() / 2]);
        }
    }
    ensure!(!by_figure.is_empty(), "no library has the case {case}");
    let row = |(name, figures): (String, BTreeMap<&String, f64>)| {
        let figure = |library: &String| (library.clone(), figures.get(library).copied());
        Row { name, figures: libraries.iter().map(figure).collect() }
    };
    Ok(by_figure.into_iter().map(row).collect())
}

/// The rows as Markdown tables, one for each set of columns. They can be read in a terminal as well.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let has_columns_of = |one: &Row, other: &Row| one.libraries().eq(other.libraries());
    let tables: Vec<String> = rows.chunk_by(has_columns_of).map(table).collect();
    tables.join("\n")
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    let mut text = format!("| {:<width$} |", "row");
    for library in rows.iter().take(1).flat_map(Row::libraries) {
        let _ = write!(text, " {library:>10} |");
    }
    let _ = write!(text, "\n|{}|", "-".repeat(width + 2));
    for _ in rows.iter().take(1).flat_map(Row::libraries) {
        text += "-----------:|";
    }
    text.push('\n');
    for row in rows {
        let _ = write!(text, "| {:<width$} |", row.name);
        for (_, figure) in &row.figures {
            let _ = write!(text, " {:>10} |", figure.map_or("-".to_owned(), short));
        }
        text.push('\n');
    }
    text
}

/// Three digits or so: more would be noise.
fn short(figure: f64) -> String {
    let digits = if figure.abs() < 10.0 {
        2
    } else if figure.abs() < 1_000.0 {
        1
    } else {
        0
    };
    format!("{figure:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_column_for_each_library() {
        let figures =
            [("vudo", Some(0.654)), ("loro", Some(8_812.3)), ("yrs", None), ("sqlite", Some(45.0))];
        let figures = figures.map(|(library, figure)| (library.to_owned(), figure)).to_vec();
        let text = markdown(&[Row { name: "merge_ms".into(), figures }]);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(lines[0][2..6], ["vudo", "loro", "yrs", "sqlite"]);
        assert_eq!(lines[2][1..6], ["merge_ms", "0.65", "8812", "-", "45.0"]);
    }
    #[test]
    fn other_columns_start_another_table() {
        let row = |library: &str| Row {
            name: "start_ms".into(),
            figures: vec![("vudo".to_owned(), Some(1.0)), (library.to_owned(), None)],
        };
        let text = markdown(&[row("yrs"), row("yrs"), row("yjs")]);
        let tables: Vec<&str> = text.split("\n\n").collect();
        let row_counts = tables.iter().map(|table| table.matches("start_ms").count());
        assert_eq!(row_counts.collect::<Vec<_>>(), [2, 1], "{text}");
        assert!(tables[1].contains("yjs"), "{text}");
    }
}
