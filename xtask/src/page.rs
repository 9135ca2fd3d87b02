//! Runs the commands of `benchmarks/README.md`, so that the page cannot promise what is not there.
//!
//! Commands are the lines of its `bash` blocks and the `run:` lines of its `yaml` blocks, in order.
//! Each is either run, or named with the reason why this machine does not run it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::command::{answers, cargo, has_program, metadata, shell, succeed, target_folder};

const PAGE: &str = "benchmarks/README.md";

/// What the page compares with; on the first run nobody has saved it yet.
const SAVE_MAIN: &str = "cargo bench --bench regression_tests -- --save-baseline main";
const SAVE_PULL_REQUEST: &str = "cargo bench --bench regression_tests -- --save-baseline pr";

/// The one command whose verdict depends on time: it compares two measurements of the same code.
const COMPARISON: &str = "cargo benchcmp main pr";
const COMPARISON_TRIES: usize = 3;

/// Runs the page's commands, or with `only_list` says which it would run; tells whether all that
/// ran succeeded.
pub(crate) fn run(root: &Path, only_list: bool) -> Result<bool> {
    let text =
        std::fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let commands = commands(&text);
    if commands.is_empty() {
        bail!("{PAGE} has no commands");
    }
    let mut verdicts = Vec::new();
    if !only_list {
        println!("== before the page's commands: {SAVE_MAIN}");
        succeed(&mut shell(root, SAVE_MAIN))?;
    }
    let mut seen = BTreeSet::new();
    for command in commands {
        let verdict = if !seen.insert(command.clone()) {
            "as above".to_owned()
        } else if let Some(reason) = reason_to_skip(root, &command)? {
            format!("not run: {reason}")
        } else if only_list {
            "to be run".to_owned()
        } else {
            println!("\n== {command}");
            let start = Instant::now();
            let outcome = run_command(root, &command);
            let seconds = start.elapsed().as_secs_f64();
            match outcome {
                Ok(()) => format!("ok after {seconds:.1} s"),
                Err(error) => format!("FAILED after {seconds:.1} s: {error:#}"),
            }
        };
        verdicts.push((command, verdict));
    }
    println!("\n== {PAGE}");
    verdicts.iter().for_each(|(command, verdict)| println!("{command}\n    {verdict}"));
    Ok(!verdicts.iter().any(|(_, verdict)| verdict.starts_with("FAILED")))
}

fn run_command(root: &Path, line: &str) -> Result<()> {
    if line != COMPARISON {
        let folder = target_folder(root)?.join("massif");
        std::fs::create_dir_all(&folder)?;
        let options = format!("--massif-out-file={}", folder.join("page.massif").display());
        return succeed(shell(root, line).env("VALGRIND_OPTS", options));
    }
    let mut compared = succeed(&mut shell(root, line));
    for _ in 1..COMPARISON_TRIES {
        if compared.is_ok() {
            break;
        }
        println!("both are of the same code, so the machine was busy: measuring both again");
        succeed(&mut shell(root, SAVE_MAIN))?;
        succeed(&mut shell(root, SAVE_PULL_REQUEST))?;
        compared = succeed(&mut shell(root, line));
    }
    compared.context("the same code differs each time: this machine is too busy to measure")
}

/// Why a command is not run here; `None` where it is.
fn reason_to_skip(root: &Path, line: &str) -> Result<Option<String>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let reason = match words[..] {
        ["open", ..] => "it opens a window".to_owned(),
        ["cargo", "install", ..] => "it installs a program for the user".to_owned(),
        ["instruments", ..] => "it is a program of macOS".to_owned(),
        ["valgrind", ..] if !has_program("valgrind") => "install valgrind".to_owned(),
        ["cargo", "flamegraph", ..] => {
            if answers(&mut cargo(root, &["flamegraph", "--version"])) {
                return Ok(None);
            }
            "cargo install flamegraph".to_owned()
        }
        ["cargo", "bench", "-p", package] => {
            let metadata = metadata(root)?;
            let packages = metadata["packages"].as_array().context("cargo lists packages")?;
            if packages.iter().any(|own| own["name"] == package) {
                return Ok(None);
            }
            format!("{package} is not built yet")
        }
        _ => return Ok(None),
    };
    Ok(Some(reason))
}

/// The commands of a page's code blocks, in order.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut language = None;
    // How deep `run: |` is indented, while lines that belong to it follow.
    let mut run_indent = None;
    for line in page.lines() {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("```") {
            language = if language.is_none() { Some(name) } else { None };
            run_indent = None;
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let command = match language {
            Some("bash") => Some(text),
            Some("yaml") if run_indent.is_some_and(|own| indent > own) => Some(text),
            Some("yaml") => {
                let value = text.trim_start_matches("- ").strip_prefix("run:").map(str::trim);
                run_indent = (value == Some("|")).then_some(indent);
                value.filter(|value| *value != "|")
            }
            _ => None,
        };
        let is_command = |line: &&str| !line.is_empty() && !line.starts_with('#');
        commands.extend(command.filter(is_command).map(str::to_owned));
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_from_bash_blocks_and_from_run_lines() {
        let page = "\
`cargo none`
```bash
# A comment.
cargo bench

cargo one
```
```
cargo printed
```
```yaml
- name: Several
  run: |
    cargo two
    cargo three
- run: cargo four
  with: nothing
```
";
        let expected = ["cargo bench", "cargo one", "cargo two", "cargo three", "cargo four"];
        assert_eq!(commands(page), expected);
    }

    #[test]
    fn what_this_machine_cannot_run_has_a_reason() {
        let root = crate::command::workspace_root();
        let reason = |line: &str| reason_to_skip(&root, line).unwrap();
        assert!(reason("open flamegraph.svg").is_some());
        assert!(reason("instruments -t \"Allocations\" cargo bench").is_some());
        assert_eq!(reason("cargo bench -p absent").unwrap(), "absent is not built yet");
        assert_eq!(reason("cargo bench -p vudo-crdt"), None);
        assert_eq!(reason("cargo bench"), None);
    }
}
