//! The rules that no compiler checks. A rule that does not run is not a rule.
//!
//! Each rule is a function from a [`Tree`] to findings, so that a test can show it a tree of three
//! lines and see it fail.

mod boundaries;
mod documents;
mod manifests;
mod text;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{metadata, output};

/// What the rules look at: every tracked file, and how the workspace's packages depend.
struct Tree {
    files: Vec<File>,
    packages: Vec<Package>,
}

/// A tracked file.
struct File {
    /// From the root of the repository, with `/` between folders.
    path: String,
    /// Empty for a file that is not UTF-8.
    text: String,
}

/// A package of the workspace.
struct Package {
    name: String,
    /// Path of its `Cargo.toml` from the root of the repository.
    manifest: String,
    /// Names of the packages it depends on, ours and others, development aside.
    dependencies: Vec<String>,
}

/// A place where a rule is broken.
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    what: String,
    remedy: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}: {}", self.path, self.line, self.what, self.remedy)
    }
}

/// Checks every rule and prints what it finds.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let findings = check(&tree);
    findings.iter().for_each(|finding| println!("{finding}"));
    if !findings.is_empty() {
        bail!("{} findings in {} files", findings.len(), tree.files.len());
    }
    println!("{} files, no findings", tree.files.len());
    Ok(())
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    boundaries::check_dependencies(tree, &mut findings);
    boundaries::check_words(tree, &mut findings);
    manifests::check(tree, &mut findings);
    text::check(tree, &mut findings);
    documents::check_links(tree, &mut findings);
    documents::check_figures(tree, &mut findings);
    findings
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let listing = output(Command::new("git").current_dir(root).args(["ls-files", "-z"]))
            .context("tidy checks the files that git tracks")?;
        let mut files = Vec::new();
        for path in listing.split('\0').filter(|path| !path.is_empty()) {
            // A file that is deleted but not yet committed is still listed.
            if let Ok(bytes) = std::fs::read(root.join(path)) {
                let text = String::from_utf8(bytes).unwrap_or_default();
                files.push(File { path: path.to_owned(), text });
            }
        }
        Ok(Self { files, packages: packages(root)? })
    }

    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl File {
    fn has_extension(&self, extensions: &[&str]) -> bool {
        let extension = self.path.rsplit_once('.').map_or("", |(_, extension)| extension);
        extensions.contains(&extension)
    }

    /// The lines with their numbers, counted from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    fn finding(&self, line: usize, what: impl Into<String>, remedy: &'static str) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into(), remedy }
    }
}

fn packages(root: &Path) -> Result<Vec<Package>> {
    let metadata = metadata(root)?;
    let listed = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut packages = Vec::new();
    for package in listed {
        let text = |field: &str| package[field].as_str().unwrap_or_default();
        let manifest = Path::new(text("manifest_path"));
        let manifest = manifest.strip_prefix(root).unwrap_or(manifest);
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        packages.push(Package {
            name: text("name").to_owned(),
            manifest: manifest.to_string_lossy().into_owned(),
            dependencies: dependencies
                .filter(|dependency| dependency["kind"] != "dev")
                .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
                .collect(),
        });
    }
    Ok(packages)
}
