//! What was measured at which commit: one JSON object a line.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::command::{answers, cargo, output, succeed, target_folder};

const FILE: &str = "history.jsonl";

/// The history in the order in which it was measured.
pub(super) struct History(Vec<Entry>);

/// The measurements of one commit on one machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Entry {
    /// Ends in `-changed` where files differed from the commit.
    pub(super) commit: String,
    /// The day of the commit.
    pub(super) date: String,
    pub(super) machine: String,
    pub(super) figures: Vec<Figure>,
}

/// One budget, measured in several processes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) budget: f64,
    pub(super) goal: Option<f64>,
    /// One of each run, in the order of the runs.
    pub(super) samples: Vec<f64>,
}

/// A row that the program `budgets` prints.
#[derive(Deserialize)]
struct Measured {
    name: String,
    unit: String,
    budget: f64,
    goal: Option<f64>,
    measured: f64,
}

impl History {
    pub(super) fn read(folder: &Path) -> Result<History> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(History(Vec::new()));
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let entry = |(index, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{}, line {}", path.display(), index + 1))
        };
        text.lines().enumerate().map(entry).collect::<Result<_>>().map(History)
    }

    /// A commit that is measured again on the same machine has one line.
    pub(super) fn add(&mut self, entry: Entry) {
        self.0.retain(|old| (&old.commit, &old.machine) != (&entry.commit, &entry.machine));
        self.0.push(entry);
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let mut text = String::new();
        for entry in &self.0 {
            text += &serde_json::to_string(entry)?;
            text.push('\n');
        }
        std::fs::create_dir_all(folder)?;
        super::write(&folder.join(FILE), &text)
    }

    pub(super) fn latest(&self) -> Option<&Entry> {
        self.0.last()
    }

    /// Figures of two machines do not belong on one line.
    pub(super) fn on_machine_of(&self, entry: &Entry) -> Vec<&Entry> {
        self.0.iter().filter(|other| other.machine == entry.machine).collect()
    }
}

impl Entry {
    /// Runs the program `budgets` this many times.
    pub(super) fn measure(root: &Path, run_count: usize) -> Result<Entry> {
        succeed(&mut cargo(root, &["build", "--workspace", "--release", "--bin", "budgets"]))?;
        let program = target_folder(root)?.join("release/budgets");
        let mut figures: Vec<Figure> = Vec::new();
        for run in 1..=run_count {
            println!("measuring the budgets, run {run} of {run_count}");
            for row in measured(&program)? {
                match figures.iter_mut().find(|figure| figure.name == row.name) {
                    Some(figure) => figure.samples.push(row.measured),
                    None => figures.push(Figure {
                        name: row.name,
                        unit: row.unit,
                        budget: row.budget,
                        goal: row.goal,
                        samples: vec![row.measured],
                    }),
                }
            }
        }
        ensure!(!figures.is_empty(), "the program `budgets` measured nothing");
        let git =
            |arguments: &[&str]| output(Command::new("git").current_dir(root).args(arguments));
        let mut commit = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
        // The report itself changes files in its own folder.
        let same = ["diff", "--quiet", "HEAD", "--", ".", ":(exclude)docs/performance"];
        if !answers(Command::new("git").current_dir(root).args(same)) {
            commit += "-changed";
        }
        let date = git(&["show", "--no-patch", "--format=%cs", "HEAD"])?.trim().to_owned();
        Ok(Entry { commit, date, machine: machine(), figures })
    }
}

/// One run. The program fails where a budget is missed, and has printed its rows nevertheless.
fn measured(program: &Path) -> Result<Vec<Measured>> {
    let result = Command::new(program)
        .arg("--json")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    serde_json::from_slice(&result.stdout)
        .with_context(|| format!("{} printed no list of figures", program.display()))
}

/// The processor, its cores and the system, as far as this one tells.
fn machine() -> String {
    let listing = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = listing.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map_or("processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    format!("{}, {cores} cores, {}", model.trim(), std::env::consts::OS)
}

impl Figure {
    pub(super) fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub(super) fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted[sorted.len() / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(commit: &str, machine: &str, sample: f64) -> Entry {
        let figure = Figure {
            name: "merge".into(),
            unit: "ms".into(),
            budget: 10.0,
            goal: None,
            samples: vec![sample, 9.0, 1.0],
        };
        let date = "2026-01-01".into();
        Entry { commit: commit.into(), date, machine: machine.into(), figures: vec![figure] }
    }

    #[test]
    fn a_commit_measured_again_has_one_line_and_survives_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::read(folder.path()).unwrap();
        for (commit, machine, sample) in [("a", "x", 2.0), ("b", "y", 3.0), ("a", "x", 4.0)] {
            history.add(entry(commit, machine, sample));
        }
        history.write(folder.path()).unwrap();
        let read = History::read(folder.path()).unwrap();
        assert_eq!(read.0, [entry("b", "y", 3.0), entry("a", "x", 4.0)]);
        let latest = read.latest().unwrap();
        assert_eq!(latest.figures[0].median(), 4.0);
        assert_eq!(read.on_machine_of(latest).len(), 1);
    }

    #[test]
    fn a_torn_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{\"commit\"").unwrap();
        let error = History::read(folder.path()).err().unwrap().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
