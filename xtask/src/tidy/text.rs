//! Rules about lines: how many, what they must not say, what they end in.

use super::{File, Finding, Tree};

/// A file longer than this holds two ideas.
pub(super) const FILE_LINES_MAX: usize = 1_000;

/// What leaves something undone, or a test out.
const UNFINISHED: [&str; 6] =
    ["#[ignore", "todo!(", "unimplemented!(", "dbg!(", "```ignore", "```rust,ignore"];

/// What makes a failing command look like one that succeeded.
const HIDES_FAILURE: [&str; 2] = ["|| true", "continue-on-error"];

/// Folders of one machine. A folder in /tmp counts if it has a name.
const MACHINE_FOLDERS: [&str; 4] = ["/work/", "/root/", "/home/", "/tmp/"];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for file in &tree.files {
        check_length(file, findings);
        // These files spell out what they forbid.
        if !file.path.starts_with("xtask/src/tidy/") {
            check_words(file, findings);
            check_machine_folders(file, findings);
        }
        if file.has_extension(&["rs", "md", "toml", "js", "mjs", "ts", "yml", "yaml"]) {
            check_white_space(file, findings);
        }
    }
}

fn check_length(file: &File, findings: &mut Vec<Finding>) {
    let line_count = file.text.lines().count();
    if file.has_extension(&["rs", "js", "mjs", "ts"]) && line_count > FILE_LINES_MAX {
        let what = format!("{line_count} lines, of at most {FILE_LINES_MAX}");
        findings.push(file.finding(FILE_LINES_MAX + 1, what, "it holds two ideas, so split it"));
    }
}

fn check_words(file: &File, findings: &mut Vec<Finding>) {
    let first_line = file.text.lines().next().unwrap_or_default();
    let is_script = file.has_extension(&["sh", "yml", "yaml"])
        || (first_line.starts_with("#!") && first_line.ends_with("sh"));
    let (words, remedy): (&[&str], _) = if file.has_extension(&["rs"]) {
        (&UNFINISHED, "finish it or delete it")
    } else if is_script {
        (&HIDES_FAILURE, "let it fail, or test for the case")
    } else {
        return;
    };
    for (number, line) in file.lines() {
        for word in words.iter().filter(|word| line.contains(**word)) {
            findings.push(file.finding(number, format!("`{word}`"), remedy));
        }
    }
}

fn check_machine_folders(file: &File, findings: &mut Vec<Finding>) {
    for (number, line) in file.lines() {
        for folder in MACHINE_FOLDERS.iter().filter(|folder| names_folder(line, folder)) {
            let what = format!("`{folder}` is a folder of one machine");
            findings.push(file.finding(number, what, "name it from the repository's root"));
        }
    }
}

/// Whether a line names something in an absolute folder, not in one that ends like it.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let is_part = |letter: char| letter.is_alphanumeric() || "._-~*/}>)".contains(letter);
        let after = line[start + folder.len()..].chars().next();
        let is_name = |letter: char| letter.is_alphanumeric() || letter == '.';
        !before.is_some_and(is_part) && after.is_some_and(is_name)
    })
}

fn check_white_space(file: &File, findings: &mut Vec<Finding>) {
    for (number, line) in file.lines() {
        if line.trim_end() != line {
            findings.push(file.finding(number, "ends in white space", "delete it"));
        }
        if line.contains('\t') {
            findings.push(file.finding(number, "contains a tab", "use spaces"));
        }
    }
}
