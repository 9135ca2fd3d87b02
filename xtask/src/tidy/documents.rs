//! Rules about Markdown: links lead somewhere, and figures say where they come from.

use super::{File, Finding, Tree};

/// Documents in which every figure was measured.
const MEASURED_DOCUMENTS: &str = "docs/performance/";

/// Figures stand between these two lines; the first names the command that prints them.
const FIGURES_START: &str = "<!-- figures:";
const FIGURES_END: &str = "<!-- /figures -->";

/// What makes a number a figure.
const UNITS: [&str; 26] = [
    "%", "B", "GB", "GiB", "KB", "KiB", "MB", "MiB", "byte", "bytes", "h", "kB", "min", "minutes",
    "ms", "ns", "ops", "ops/s", "s", "seconds", "us", "x", "µs", "MB/s", "MiB/s", "×",
];

pub(super) fn check_links(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in tree.files.iter().filter(|file| file.has_extension(&["md"])) {
        let mut is_code = false;
        for (number, line) in file.lines() {
            is_code ^= line.trim_start().starts_with("```");
            if is_code {
                continue;
            }
            for target in link_targets(line) {
                if !resolves(tree, file, target) {
                    let what = format!("link to `{target}`, which is not in the repository");
                    findings.push(file.finding(number, what, "correct it or commit its target"));
                }
            }
        }
    }
}

/// What the links of a line point to: `b` of `[a](b)`, code spans aside.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    // Every second part of a line cut at its backticks is code.
    let prose = line.split('`').step_by(2);
    prose.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| {
        let target = rest.split_once(')')?.0;
        target.split_whitespace().next()
    })
}

/// Whether a link leads outside, into its own page, or to a tracked file or folder.
fn resolves(tree: &Tree, file: &File, target: &str) -> bool {
    if target.contains("://") || target.starts_with("mailto:") || target.starts_with('#') {
        return true;
    }
    let target = target.split('#').next().unwrap_or_default();
    let mut folders: Vec<&str> = file.path.split('/').collect();
    folders.pop();
    for step in target.split('/') {
        match step {
            "" | "." => {}
            ".." if folders.pop().is_none() => return false,
            ".." => {}
            name => folders.push(name),
        }
    }
    let path = folders.join("/");
    let is_inside = |file: &File| {
        let rest = file.path.strip_prefix(&path);
        rest.is_some_and(|rest| rest.is_empty() || path.is_empty() || rest.starts_with('/'))
    };
    tree.files.iter().any(is_inside)
}

pub(super) fn check_figures(tree: &Tree, findings: &mut Vec<Finding>) {
    let is_measured =
        |file: &&File| file.path.starts_with(MEASURED_DOCUMENTS) && file.has_extension(&["md"]);
    for file in tree.files.iter().filter(is_measured) {
        let mut open = None;
        for (number, line) in file.lines() {
            let line = line.trim();
            if let Some(command) = line.strip_prefix(FIGURES_START) {
                if command.trim_end_matches("-->").trim().is_empty() {
                    let remedy = "name the command that prints the figures";
                    findings.push(file.finding(number, "figures without a source", remedy));
                }
                open = Some(number);
            } else if line == FIGURES_END {
                open = None;
            } else if open.is_none() && has_figure(line) {
                let remedy = "put it between `<!-- figures: COMMAND -->` and `<!-- /figures -->`";
                findings.push(file.finding(number, "a figure without its source", remedy));
            }
        }
        if let Some(number) = open {
            let remedy = "close it with `<!-- /figures -->`";
            findings.push(file.finding(number, "a block of figures without an end", remedy));
        }
    }
}

/// Whether a line has a number with a unit after it: `3 ms`, `3ms`, `**3** ms`, `1,000 ops/s`.
fn has_figure(line: &str) -> bool {
    let is_number = |letter: char| letter.is_ascii_digit() || ".,".contains(letter);
    let starts = line.char_indices().filter(|(_, letter)| letter.is_ascii_digit());
    starts.into_iter().any(|(start, _)| {
        let rest = line[start..].trim_start_matches(is_number);
        let rest = rest.trim_start_matches([' ', '*', '_', '|', '`']);
        let is_unit = |letter: char| letter.is_alphabetic() || "%/×".contains(letter);
        let end = rest.find(|letter| !is_unit(letter)).unwrap_or(rest.len());
        UNITS.contains(&&rest[..end])
    })
}
