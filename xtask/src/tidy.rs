//! The rules that no compiler checks. A rule that does not run is not a rule.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, output};

/// A file longer than this holds two ideas.
const FILE_LINES_MAX: usize = 1_000;

/// Which crates of ours each crate may know, outside of dev-dependencies.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("vudo-crdt", &[]),
    ("vudo-gen", &["vudo-crdt"]),
    ("vudo-gen-runtime", &["vudo-crdt"]),
    ("vudo-state", &["vudo-crdt"]),
    ("vudo-p2p", &["vudo-crdt", "vudo-state"]),
    ("vudo-credit", &["vudo-crdt"]),
    ("vudo-macros", &["vudo-gen"]),
    ("vudo", &["vudo-crdt", "vudo-state", "vudo-p2p", "vudo-macros"]),
    ("vudo-cli", &["vudo", "vudo-crdt", "vudo-gen", "vudo-state", "vudo-p2p", "vudo-benchmarks"]),
    ("vudo-benchmarks", &["vudo", "vudo-crdt", "vudo-gen", "vudo-state", "vudo-p2p"]),
    ("vudo-testkit", &[]),
    ("xtask", &[]),
];

/// Words that deterministic code has no use for.
const SANS_IO_FORBIDDEN: [&str; 6] =
    ["tokio", "std::time", "SystemTime", "Instant::now", "HashMap", "HashSet"];
const SANS_IO_FOLDERS: [&str; 2] = ["crates/vudo-p2p/src/proto", "crates/vudo-credit/src"];

/// A tracked file.
struct File {
    path: String,
    text: String,
}

/// A dependency of one of our crates on another.
struct Edge {
    from: String,
    to: String,
}

pub(crate) fn run(root: &Path) -> Result<()> {
    let files = tracked_files(root)?;
    let mut findings = check_edges(&workspace_edges(root)?);
    for file in &files {
        findings.extend(check_file(file));
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("{} files, no findings", files.len());
    Ok(())
}

fn tracked_files(root: &Path) -> Result<Vec<File>> {
    let listing = output(Command::new("git").current_dir(root).args(["ls-files", "-z"]))?;
    let mut files = Vec::new();
    for path in listing.split('\0').filter(|path| !path.is_empty()) {
        // Binary files, and files deleted but not committed, have no text to check.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    Ok(files)
}

fn workspace_edges(root: &Path) -> Result<Vec<Edge>> {
    let metadata = output(&mut cargo(root, &["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut edges = Vec::new();
    for package in packages {
        let from = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            if names.contains(&to) && dependency["kind"] != "dev" {
                edges.push(Edge { from: from.to_owned(), to: to.to_owned() });
            }
        }
    }
    Ok(edges)
}

fn check_edges(edges: &[Edge]) -> Vec<String> {
    let forbidden = edges.iter().filter(|edge| {
        let allowed = ALLOWED.iter().find(|(name, _)| *name == edge.from);
        !allowed.is_some_and(|(_, allowed)| allowed.contains(&edge.to.as_str()))
    });
    forbidden
        .map(|edge| {
            format!(
                "crates/{}/Cargo.toml: must not depend on {}: see the map in ARCHITECTURE.md",
                edge.from, edge.to
            )
        })
        .collect()
}

fn check_file(file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    let path = file.path.as_str();
    let has_extension =
        |extensions: &[&str]| extensions.iter().any(|extension| path.ends_with(extension));
    // This file spells the forbidden words out, and its tests need them whole.
    let is_rules = path == "xtask/src/tidy.rs";
    let line_count = file.text.lines().count();
    if has_extension(&[".rs", ".js", ".mjs", ".ts"]) && line_count > FILE_LINES_MAX {
        findings.push(format!(
            "{path}:{FILE_LINES_MAX}: {line_count} lines; a file of more than {FILE_LINES_MAX} \
             holds two ideas: split it"
        ));
    }
    if path.ends_with("Cargo.toml") {
        findings.extend(check_manifest(file));
    }
    let is_sans_io = SANS_IO_FOLDERS.iter().any(|folder| path.starts_with(folder));
    for (index, line) in file.text.lines().enumerate() {
        let mut find = |what: &str| findings.push(format!("{path}:{}: {what}", index + 1));
        if path.ends_with(".rs") && !is_rules {
            for word in ["#[ignore", "todo!(", "unimplemented!(", "dbg!("] {
                if line.contains(word) {
                    find(&format!("{word} leaves something undone: finish or delete it"));
                }
            }
        }
        let is_script = has_extension(&[".sh", ".yml", ".yaml"]) || path.starts_with(".ci/");
        if is_script && (line.contains("|| true") || line.contains("continue-on-error")) {
            find("hides a failure: let it fail, or test for the case");
        }
        if is_sans_io {
            for word in SANS_IO_FORBIDDEN.iter().filter(|word| line.contains(**word)) {
                find(&format!("{word} has no place in sans-IO code: take it as an argument"));
            }
        }
        if has_extension(&[".rs", ".md", ".toml"]) {
            let is_hard_break = path.ends_with(".md") && line.ends_with("  ");
            if line.trim_end() != line && !is_hard_break {
                find("ends in white space");
            }
        }
        if !is_rules && ["/work/", "/root/", "/home/"].iter().any(|place| line.contains(place)) {
            find("names a folder of one machine");
        }
    }
    findings
}

fn check_manifest(file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    let path = &file.path;
    let is_member = file.text.contains("edition.workspace = true");
    if !is_member {
        return findings;
    }
    for section in ["[lib]", "[[bin]]"] {
        for part in file.text.split(section).skip(1) {
            let part = part.split("\n[").next().unwrap_or_default();
            if !part.contains("bench = false") {
                findings.push(format!(
                    "{path}: {section} needs `bench = false`, or `cargo bench -- --save-baseline` \
                     breaks"
                ));
            }
        }
    }
    if !file.text.contains("[lints]\nworkspace = true") {
        findings.push(format!("{path}: needs `[lints]` with `workspace = true`"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check_file(&File { path: path.to_owned(), text: text.to_owned() })
    }

    #[test]
    fn a_forbidden_dependency_is_found() {
        let edge = |from: &str, to: &str| Edge { from: from.to_owned(), to: to.to_owned() };
        assert_eq!(check_edges(&[edge("vudo-crdt", "vudo-state")]).len(), 1);
        assert_eq!(check_edges(&[edge("vudo-unheard-of", "vudo-crdt")]).len(), 1);
        assert!(check_edges(&[edge("vudo-state", "vudo-crdt")]).is_empty());
    }

    #[test]
    fn a_file_past_its_length_is_found() {
        assert_eq!(findings("a.rs", &"//\n".repeat(FILE_LINES_MAX + 1)).len(), 1);
        assert!(findings("a.rs", &"//\n".repeat(FILE_LINES_MAX)).is_empty());
    }

    #[test]
    fn what_is_switched_off_is_found() {
        assert_eq!(findings("a.rs", "#[ignore]\nfn test() {}\n").len(), 1);
        assert_eq!(findings(".ci/run", "cargo test || true\n").len(), 1);
    }

    #[test]
    fn clocks_are_found_in_sans_io_code_only() {
        let text = "use std::collections::HashMap;\n";
        assert_eq!(findings("crates/vudo-p2p/src/proto/session.rs", text).len(), 1);
        assert!(findings("crates/vudo-p2p/src/net/node.rs", text).is_empty());
    }

    #[test]
    fn a_manifest_without_its_lines_is_found() {
        let text = "edition.workspace = true\n[[bin]]\nname = \"a\"\n";
        assert_eq!(findings("crates/a/Cargo.toml", text).len(), 2);
    }
}
