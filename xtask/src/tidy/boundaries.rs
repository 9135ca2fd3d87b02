//! Which way the crates point, and what some of them must not know.

use super::{File, Finding, Package, Tree};

/// What a crate may know.
struct Boundary {
    name: &'static str,
    /// Crates of ours that it may depend on.
    may_use: &'static [&'static str],
    /// Crates of others that it must not depend on.
    must_not_use: &'static [&'static str],
}

const STORAGE_AND_NETWORKS: &[&str] =
    &["async-std", "axum", "fjall", "getrandom", "iroh", "quinn", "rand", "redb", "tokio"];
const WASM_RUNTIMES: &[&str] = &["wasmer", "wasmi", "wasmtime"];
const PRODUCT: &[&str] = &[
    "vudo",
    "vudo-credit",
    "vudo-crdt",
    "vudo-gen",
    "vudo-macros",
    "vudo-p2p",
    "vudo-state",
    "vudo-testkit",
];

/// The map in ARCHITECTURE.md as data. Dependencies for development are free.
const BOUNDARIES: &[Boundary] = &[
    Boundary { name: "vudo-crdt", may_use: &[], must_not_use: STORAGE_AND_NETWORKS },
    Boundary { name: "vudo-gen", may_use: &["vudo-crdt"], must_not_use: WASM_RUNTIMES },
    Boundary {
        name: "vudo-gen-runtime",
        may_use: &["vudo-crdt"],
        must_not_use: STORAGE_AND_NETWORKS,
    },
    Boundary { name: "vudo-state", may_use: &["vudo-crdt"], must_not_use: WASM_RUNTIMES },
    Boundary {
        name: "vudo-p2p",
        may_use: &["vudo-crdt", "vudo-state"],
        must_not_use: WASM_RUNTIMES,
    },
    Boundary { name: "vudo-credit", may_use: &["vudo-crdt"], must_not_use: STORAGE_AND_NETWORKS },
    Boundary { name: "vudo-macros", may_use: &["vudo-gen"], must_not_use: WASM_RUNTIMES },
    Boundary { name: "vudo", may_use: PRODUCT, must_not_use: WASM_RUNTIMES },
    Boundary { name: "vudo-benchmarks", may_use: PRODUCT, must_not_use: &[] },
    Boundary {
        name: "vudo-cli",
        may_use: &[
            "vudo",
            "vudo-benchmarks",
            "vudo-credit",
            "vudo-crdt",
            "vudo-gen",
            "vudo-p2p",
            "vudo-state",
        ],
        must_not_use: WASM_RUNTIMES,
    },
    Boundary { name: "vudo-testkit", may_use: &[], must_not_use: STORAGE_AND_NETWORKS },
    Boundary { name: "xtask", may_use: &[], must_not_use: STORAGE_AND_NETWORKS },
];

/// Words that deterministic code has no use for. The order of a hash map differs from run to run.
const SANS_IO_FORBIDDEN: &[&str] =
    &["tokio", "std::time", "SystemTime", "Instant::now", "HashMap", "HashSet"];

/// Folders that are free of input and output, and words that they must not contain.
const SILENT_FOLDERS: &[(&str, &[&str])] = &[
    ("crates/vudo-crdt/src/", &["std::"]),
    ("crates/vudo-crdt/src/", SANS_IO_FORBIDDEN),
    ("crates/vudo-credit/src/", SANS_IO_FORBIDDEN),
    ("crates/vudo-p2p/src/proto/", SANS_IO_FORBIDDEN),
];

pub(super) fn check_dependencies(tree: &Tree, findings: &mut Vec<Finding>) {
    for package in &tree.packages {
        let Some(boundary) = BOUNDARIES.iter().find(|boundary| boundary.name == package.name)
        else {
            findings.push(Finding {
                path: package.manifest.clone(),
                line: 1,
                what: format!("{} has no boundary", package.name),
                remedy: "add it to the table in xtask/src/tidy/boundaries.rs",
            });
            continue;
        };
        for dependency in &package.dependencies {
            let is_ours = tree.packages.iter().any(|package| package.name == *dependency);
            let is_allowed = if is_ours {
                boundary.may_use.contains(&dependency.as_str())
            } else {
                !boundary.must_not_use.contains(&dependency.as_str())
            };
            if !is_allowed {
                findings.push(Finding {
                    path: package.manifest.clone(),
                    line: dependency_line(tree, package, dependency),
                    what: format!("{} must not depend on {dependency}", package.name),
                    remedy: "see which way the crates point in ARCHITECTURE.md",
                });
            }
        }
    }
}

/// The line of the manifest that names a dependency, else the first.
fn dependency_line(tree: &Tree, package: &Package, dependency: &str) -> usize {
    let is_named = |line: &str| {
        let rest = line.trim_start().strip_prefix(dependency);
        rest.is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
    };
    let mut lines = tree.file(&package.manifest).into_iter().flat_map(File::lines);
    lines.find(|(_, line)| is_named(line)).map_or(1, |(number, _)| number)
}

pub(super) fn check_words(tree: &Tree, findings: &mut Vec<Finding>) {
    for (folder, words) in SILENT_FOLDERS {
        let is_inside = |file: &&File| file.path.starts_with(folder) && file.has_extension(&["rs"]);
        for file in tree.files.iter().filter(is_inside) {
            for (number, line) in product_lines(file) {
                for word in words.iter().filter(|word| line.contains(**word)) {
                    let what = format!("`{word}` in deterministic code");
                    let remedy = "take time and entropy as arguments, use core, alloc and BTreeMap";
                    findings.push(file.finding(number, what, remedy));
                }
            }
        }
    }
}

/// The lines of a source file that are neither tests nor comments.
fn product_lines(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let is_test_file = file.path.ends_with("/tests.rs") || file.path.contains("/tests/");
    let test_module = file.text.find("#[cfg(test)]\nmod tests {").unwrap_or(file.text.len());
    let end = if is_test_file { 0 } else { file.text[..test_module].lines().count() };
    file.lines().take(end).filter(|(_, line)| !line.trim_start().starts_with("//"))
}
