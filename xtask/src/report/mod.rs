//! The performance documents: every figure in them is measured, and traced to raw samples.
//!
//! ```text
//! budgets --json, several runs --> history.jsonl (one line a commit) --> plots, tables
//! criterion, counts, variants, peers: what their commands left behind ------------^
//! ```
//!
//! A document marks where figures go and which command gives them; only what stands between the
//! marks is rewritten. A command that was not run on this machine leaves its figures as they are.

mod blocks;
mod history;
mod plot;
mod tables;

use std::path::Path;

use anyhow::{Context, Result};

use history::{Entry, History};

const FOLDER: &str = "docs/performance";
const DOCUMENTS: [&str; 2] = ["optimization-report.md", "guide.md"];
const PEERS: &str = "peers.json";

/// Measures the five budgets `run_count` times and rewrites the documents. With no run it only
/// rewrites them from what was measured before.
pub(crate) fn run(root: &Path, run_count: usize) -> Result<()> {
    let folder = root.join(FOLDER);
    let mut history = History::read(&folder)?;
    if run_count > 0 {
        history.add(Entry::measure(root, run_count)?);
        history.write(&folder)?;
    }
    let latest = history.latest().context("nothing was measured yet: run it with --runs 5")?;
    let plots = folder.join("plots");
    std::fs::create_dir_all(&plots)?;
    for figure in &latest.figures {
        let svg = plot::draw(&figure.name, &history.on_machine_of(latest));
        write(&plots.join(&figure.name).with_extension("svg"), &svg)?;
    }
    for name in DOCUMENTS {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let rewritten = blocks::rewrite(&text, |command| {
            let figures = tables::figures(root, command, latest)?;
            if figures.is_none() {
                println!("{name}: kept the figures of `{command}`, which was not run here");
            }
            Ok(figures)
        });
        write(&path, &rewritten.with_context(|| path.display().to_string())?)?;
    }
    println!("{FOLDER}: figures of {} on {}", latest.commit, latest.machine);
    Ok(())
}

/// Keeps what `cargo xtask peers` printed, for the next report.
pub(crate) fn keep_peers(root: &Path, json: &str) -> Result<()> {
    write(&root.join(FOLDER).join(PEERS), json)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_of_the_documents_has_a_table() {
        let root = crate::command::workspace_root();
        let history = History::read(&root.join(FOLDER)).unwrap();
        let latest = history.latest().unwrap();
        for name in DOCUMENTS {
            let text = std::fs::read_to_string(root.join(FOLDER).join(name)).unwrap();
            let mut block_count = 0;
            let rewritten = blocks::rewrite(&text, |command| {
                block_count += 1;
                tables::figures(&root, command, latest)
            });
            assert!(rewritten.is_ok(), "{name}: {rewritten:?}");
            assert!(block_count > 0, "{name} has no figures");
        }
    }
}
