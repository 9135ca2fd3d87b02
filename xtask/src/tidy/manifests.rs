//! What every `Cargo.toml` of the workspace says, and the lock files.

use super::{File, Finding, Tree};

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let central: Vec<&str> = tree.file("Cargo.toml").map(central_dependencies).unwrap_or_default();
    for package in &tree.packages {
        if let Some(file) = tree.file(&package.manifest) {
            check_bench(file, findings);
            check_lints(file, findings);
            check_versions(file, &central, findings);
        }
    }
    for file in tree.files.iter().filter(|file| file.path.ends_with("package-lock.json")) {
        for (number, _) in file.lines().filter(|(_, line)| line.contains("\"resolved\":")) {
            let remedy = "write the lock file with `npm install --omit-lockfile-registry-resolved`";
            findings.push(file.finding(number, "names a registry's host", remedy));
        }
    }
}

/// The names in the workspace's own table of dependencies.
fn central_dependencies(root: &File) -> Vec<&str> {
    sections(root)
        .filter(|(section, _, _)| *section == "[workspace.dependencies]")
        .filter_map(|(_, _, line)| Some(line.split_once('=')?.0.trim()))
        .collect()
}

/// The harness that cargo makes for a target knows none of criterion's arguments.
fn check_bench(file: &File, findings: &mut Vec<Finding>) {
    for header in ["[lib]", "[[bin]]"] {
        let starts = file.lines().filter(|(_, line)| line.trim() == header);
        for (start, _) in starts {
            let mut body = file.lines().skip(start).map(|(_, line)| line);
            let mut body = body.by_ref().take_while(|line| !line.starts_with('['));
            if !body.any(|line| line.trim() == "bench = false") {
                let remedy = "add `bench = false`, or `cargo bench -- --save-baseline` breaks";
                findings.push(file.finding(start, format!("{header} is benched"), remedy));
            }
        }
    }
    let has_target = file.lines().any(|(_, line)| matches!(line.trim(), "[lib]" | "[[bin]]"));
    if !has_target {
        let what = "has neither [lib] nor [[bin]]";
        findings.push(file.finding(1, what, "name the target, with `bench = false`"));
    }
}

fn check_lints(file: &File, findings: &mut Vec<Finding>) {
    let inherits = |(section, _, line): (&str, usize, &str)| {
        section == "[lints]" && line.trim() == "workspace = true"
    };
    if !sections(file).any(inherits) {
        let remedy = "add `[lints]` with `workspace = true`";
        findings.push(file.finding(1, "does not inherit the workspace's lints", remedy));
    }
}

/// A dependency of one crate alone may carry its version; one in the workspace's table may not.
fn check_versions(file: &File, central: &[&str], findings: &mut Vec<Finding>) {
    for (section, number, line) in sections(file) {
        let Some((name, value)) = line.split_once('=') else { continue };
        let name = name.trim();
        let is_dependency = section.ends_with("dependencies]") && central.contains(&name);
        if is_dependency && !value.contains("workspace = true") {
            let what = format!("{name} has a version of its own");
            findings.push(file.finding(number, what, "write `NAME.workspace = true`"));
        }
    }
}

/// Each line of a manifest with its number and the header above it.
fn sections(file: &File) -> impl Iterator<Item = (&str, usize, &str)> {
    let mut section = "";
    file.lines().map(move |(number, line)| {
        if line.starts_with('[') {
            section = line.trim();
        }
        (section, number, line)
    })
}
