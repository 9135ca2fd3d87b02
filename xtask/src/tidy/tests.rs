//! Each rule is shown a tree that breaks it and one that does not.

use super::*;

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

fn package(name: &str, dependencies: &[&str]) -> Package {
    Package {
        name: name.to_owned(),
        manifest: format!("crates/{name}/Cargo.toml"),
        dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// What is found in a tree without packages, as text.
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter().map(|(path, text)| file(path, text)).collect();
    check(&Tree { files, packages: Vec::new() }).iter().map(Finding::to_string).collect()
}

/// What is found in one manifest of a package, as text.
fn manifest_findings(text: &str) -> Vec<String> {
    let root = "[workspace.dependencies]\nserde = \"1\"\n";
    let files = vec![file("Cargo.toml", root), file("crates/vudo-state/Cargo.toml", text)];
    let packages = vec![package("vudo-state", &[])];
    check(&Tree { files, packages }).iter().map(Finding::to_string).collect()
}

#[track_caller]
fn assert_one(findings: &[String], start: &str) {
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert!(findings[0].starts_with(start), "{findings:#?}");
}

const GOOD_MANIFEST: &str = "\
[package]
name = \"vudo-state\"

[lib]
bench = false

[dependencies]
serde.workspace = true
walrus = \"1\"

[lints]
workspace = true
";

#[test]
fn a_forbidden_dependency_is_found_where_it_stands() {
    let manifest = GOOD_MANIFEST.replace("serde.workspace", "vudo-p2p.workspace");
    let tree = |dependencies: &[&str]| Tree {
        files: vec![file("crates/vudo-state/Cargo.toml", &manifest)],
        packages: vec![package("vudo-state", dependencies), package("vudo-p2p", &[])],
    };
    let found = |dependencies| {
        check(&tree(dependencies)).iter().map(Finding::to_string).collect::<Vec<_>>()
    };
    let start = "crates/vudo-state/Cargo.toml:8: vudo-state must not depend on vudo-p2p";
    assert_one(&found(&["vudo-p2p"]), start);
    assert_one(&found(&["wasmi"]), "crates/vudo-state/Cargo.toml:1: vudo-state must not depend");
    assert_eq!(found(&["redb"]), Vec::<String>::new());
}

#[test]
fn a_package_without_a_boundary_is_found() {
    let tree = Tree { files: Vec::new(), packages: vec![package("vudo-unheard-of", &[])] };
    assert_eq!(check(&tree).len(), 1);
}

#[test]
fn clocks_and_hash_maps_are_found_in_deterministic_code_only() {
    let text = "//! Sessions.\nuse std::collections::HashMap;\n";
    let inside = "crates/vudo-p2p/src/proto/session.rs";
    assert_one(&findings(&[(inside, text)]), "crates/vudo-p2p/src/proto/session.rs:2: `HashMap`");
    assert!(findings(&[("crates/vudo-p2p/src/net/node.rs", text)]).is_empty());
    assert!(findings(&[("crates/vudo-p2p/src/proto/tests.rs", text)]).is_empty());
    let tested = format!("#[cfg(test)]\nmod tests {{\n{text}}}\n");
    assert!(findings(&[(inside, &tested)]).is_empty());
}

#[test]
fn the_standard_library_is_found_in_the_merge_core() {
    let text = "//! Unlike std::vec, this is empty.\nuse std::vec::Vec;\n";
    assert_one(&findings(&[("crates/vudo-crdt/src/a.rs", text)]), "crates/vudo-crdt/src/a.rs:2:");
    assert!(findings(&[("crates/vudo-crdt/tests/a.rs", text)]).is_empty());
}

#[test]
fn a_good_manifest_passes() {
    assert_eq!(manifest_findings(GOOD_MANIFEST), Vec::<String>::new());
}

#[test]
fn a_target_with_a_bench_harness_is_found() {
    let place = "crates/vudo-state/Cargo.toml:4: [lib] is benched";
    assert_one(&manifest_findings(&GOOD_MANIFEST.replace("bench = false\n", "")), place);
    let implicit = GOOD_MANIFEST.replace("[lib]\nbench = false\n", "");
    assert_one(&manifest_findings(&implicit), "crates/vudo-state/Cargo.toml:1: has neither");
}

#[test]
fn lints_and_versions_of_its_own_are_found() {
    let place = "crates/vudo-state/Cargo.toml:1: does not inherit";
    assert_one(&manifest_findings(&GOOD_MANIFEST.replace("[lints]", "[other]")), place);
    let versioned = GOOD_MANIFEST.replace("serde.workspace = true", "serde = \"1\"");
    assert_one(&manifest_findings(&versioned), "crates/vudo-state/Cargo.toml:8: serde has");
}

#[test]
fn a_lock_file_that_names_a_host_is_found() {
    let text = "{\n\"resolved\": \"https://example.com/a.tgz\"\n}\n";
    assert_one(&findings(&[("tools/a/package-lock.json", text)]), "tools/a/package-lock.json:2:");
}

#[test]
fn a_file_past_its_length_is_found() {
    let long = "//\n".repeat(text::FILE_LINES_MAX + 1);
    for path in ["a.rs", "web/a.js", "web/a.mjs", "web/a.d.ts"] {
        assert_one(&findings(&[(path, &long)]), &format!("{path}:1001: 1001 lines"));
    }
    assert!(findings(&[("a.rs", &"//\n".repeat(text::FILE_LINES_MAX))]).is_empty());
    assert!(findings(&[("a.csv", &long)]).is_empty());
}

#[test]
fn what_is_unfinished_or_switched_off_is_found() {
    for line in ["#[ignore]", "#[ignore = \"slow\"]", "todo!()", "unimplemented!()", "dbg!(1)"] {
        let text = format!("fn main() {{}}\n{line}\n");
        assert_one(&findings(&[("a.rs", &text)]), "a.rs:2: `");
    }
}

#[test]
fn what_hides_a_failure_is_found() {
    assert_one(&findings(&[("a.yml", "- run: a || true\n")]), "a.yml:1:");
    assert_one(&findings(&[("a.yml", "continue-on-error: true\n")]), "a.yml:1:");
    assert_one(&findings(&[(".ci/run", "#!/usr/bin/env bash\na || true\n")]), ".ci/run:2:");
    assert!(findings(&[("a.rs", "let both = a || true;\n")]).is_empty());
}

#[test]
fn folders_of_one_machine_are_found() {
    for path in ["/work/main", "/root/.cargo", "/home/me", "/tmp/a"] {
        let text = format!(
            "path = \"{path}\"
"
        );
        assert_one(&findings(&[("a.toml", &text)]), "a.toml:1:");
    }
    for line in ["https://example.com/home/me", "cp target/tmp/a b", "`/tmp/`", "rm */work/a"] {
        assert_eq!(findings(&[("a.md", line)]), Vec::<String>::new());
    }
}

#[test]
fn tabs_and_white_space_at_the_end_are_found() {
    assert_one(&findings(&[("a.rs", "fn main() {} \n")]), "a.rs:1: ends in white space");
    assert_one(&findings(&[("a.md", "a\tb\n")]), "a.md:1: contains a tab");
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let found = |text| findings(&[("docs/a.md", text), ("docs/b/c.md", ""), ("README.md", "")]);
    assert_one(&found("One\n[b](b.md)\n"), "docs/a.md:2: link to `b.md`");
    assert_one(&found("[up](../../README.md)\n"), "docs/a.md:1: link");
    let good = "[b](b/c.md#part) [folder](b/) [up](../README.md) [own](#part)\n\
                [out](https://example.com) `[code](x.md)`\n```\n[code](x.md)\n```\n";
    assert_eq!(found(good), Vec::<String>::new());
}

#[test]
fn figures_without_their_source_are_found() {
    let found = |text| findings(&[("docs/performance/a.md", text)]);
    for line in ["A merge takes 0.65 ms.", "| size | **8.2** KB |", "20,000 ops/s", "less by 30%"] {
        assert_one(&found(line), "docs/performance/a.md:1: a figure without");
    }
    let block = "<!-- figures: cargo run --bin budgets -->\n3 ms\n<!-- /figures -->\nIn 3 steps.\n";
    assert_eq!(found(block), Vec::<String>::new());
    assert_one(&found("<!-- figures: -->\n<!-- /figures -->\n"), "docs/performance/a.md:1:");
    assert_one(&found("<!-- figures: a -->\n3 ms\n"), "docs/performance/a.md:1: a block");
    assert!(findings(&[("docs/guide.md", "It takes 3 ms.\n")]).is_empty());
}
