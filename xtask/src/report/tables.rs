//! The tables of the documents, by the command that measures what is in them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::history::Entry;
use crate::command::target_folder;
use crate::{baselines, bench, counts, peers, runtime};

/// The Markdown of what a command measured; `None` where it was not run on this machine.
///
/// # Errors
/// No table belongs to the command, or what it left behind cannot be read.
pub(super) fn figures(root: &Path, command: &str, latest: &Entry) -> Result<Option<String>> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        ["cargo", "xtask", "report"] => Ok(Some(budgets(latest))),
        ["cargo", "xtask", "counts"] => Ok(Some(all_counts(&counts::read(root)?))),
        ["cargo", "xtask", "peers"] => peers_table(root),
        ["cargo", "xtask", "long", "--only", "wasm-variants"] => variants(root),
        ["cargo", "xtask", "bench", "--bench", name] => benches(root, name),
        _ => bail!("nothing is known of the figures of `{command}`"),
    }
}

fn budgets(entry: &Entry) -> String {
    let mut text = format!(
        "Commit {}, {}; {}.\n\n| budget | promise | goal | median | least | most | runs |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
        entry.commit, entry.date, entry.machine
    );
    for figure in &entry.figures {
        let sorted = figure.sorted();
        let unit = &figure.unit;
        let goal = figure.goal.map_or("-".to_owned(), |goal| format!("{goal} {unit}"));
        let _ = writeln!(
            text,
            "| `{}` | {} {unit} | {goal} | {:.2} {unit} | {:.2} | {:.2} | {} |",
            figure.name,
            figure.budget,
            figure.median(),
            sorted[0],
            sorted[sorted.len() - 1],
            sorted.len()
        );
    }
    text
}

fn all_counts(counts: &counts::Counts) -> String {
    let mut text = "| what | row | count |\n|---|---|---:|\n".to_owned();
    for (kind, _, rows) in counts.kinds() {
        for (name, count) in rows {
            let _ = writeln!(text, "| {kind} | `{name}` | {} |", counts::number(count));
        }
    }
    text
}

fn variants(root: &Path) -> Result<Option<String>> {
    let folder = target_folder(root)?.join(runtime::VARIANTS_FOLDER);
    let mut text = "| runtime | bytes | gzipped |\n|---|---:|---:|\n".to_owned();
    for name in runtime::variant_names() {
        let path = folder.join(name).with_extension("wasm");
        if !path.is_file() {
            return Ok(None);
        }
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let gzipped = runtime::gzipped_bytes(&bytes)?;
        let _ = writeln!(text, "| `{name}` | {} | {gzipped} |", bytes.len());
    }
    Ok(Some(text))
}

/// What a bench target printed, and the latest medians of its criterion groups: their names begin
/// with the target's.
fn benches(root: &Path, target: &str) -> Result<Option<String>> {
    let is_own = |name: &str| name.strip_prefix(target).is_some_and(|rest| rest.starts_with('/'));
    let printed = bench::printed(root)?;
    let medians = baselines::read(&target_folder(root)?.join("criterion"), bench::LATEST)?;
    let mut text = "| bench | figure |\n|---|---:|\n".to_owned();
    let mut row_count = 0;
    for (name, figure) in printed.iter().filter(|(name, _)| is_own(name)) {
        let _ = writeln!(text, "| `{name}` | {figure} |");
        row_count += 1;
    }
    for (name, median) in medians.iter().filter(|(name, _)| is_own(name)) {
        let _ = writeln!(text, "| `{name}`, time | {} |", baselines::duration(*median));
        row_count += 1;
    }
    Ok((row_count > 0).then_some(text))
}

fn peers_table(root: &Path) -> Result<Option<String>> {
    let path = root.join(super::FOLDER).join(super::PEERS);
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let rows: Vec<peers::Row> = serde_json::from_str(&text)
        .with_context(|| format!("{}: `cargo xtask peers` writes it anew", path.display()))?;
    Ok(Some(peers::markdown(&rows)))
}
