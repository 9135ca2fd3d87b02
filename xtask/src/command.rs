//! Running other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn workspace_root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// A cargo command in the workspace.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(arguments);
    withhold_own_variables(&mut command);
    command
}

/// A command line as a person would type it into a shell in the workspace.
pub(crate) fn shell(root: &Path, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.current_dir(root).args(["-c", line]);
    withhold_own_variables(&mut command);
    command
}

/// Withholds what cargo told this program about the package `xtask`: build scripts that watch
/// such variables would otherwise run again each time that somebody changes between
/// `cargo xtask test` and a plain `cargo test`, and everything above them would be rebuilt.
fn withhold_own_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let is_about_xtask = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if is_about_xtask {
            command.env_remove(name);
        }
    }
}

/// Builds a bench of the workspace as `cargo bench` would, and gives the program.
pub(crate) fn bench_program(root: &Path, bench: &str, features: &[&str]) -> Result<PathBuf> {
    // Of the whole workspace: naming a package would choose other features of the dependencies.
    let build = ["bench", "--workspace", "--no-run", "--message-format=json", "--bench", bench];
    let mut build = cargo(root, &build);
    if !features.is_empty() {
        build.arg("--features").arg(features.join(","));
    }
    let messages = output(&mut build)?;
    let mut programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_bench =
            message["target"]["kind"][0] == "bench" && message["target"]["name"] == bench;
        message["executable"].as_str().filter(|_| is_bench).map(PathBuf::from)
    });
    programs.next_back().with_context(|| format!("cargo built no bench `{bench}`"))
}

/// What `cargo metadata` says of the workspace's own packages.
pub(crate) fn metadata(root: &Path) -> Result<serde_json::Value> {
    let text = output(&mut cargo(root, &["metadata", "--format-version", "1", "--no-deps"]))?;
    serde_json::from_str(&text).context("cargo metadata wrote something that is not JSON")
}

/// Where cargo puts what it builds, as `CARGO_TARGET_DIR` and the configuration say.
pub(crate) fn target_folder(root: &Path) -> Result<PathBuf> {
    let metadata = metadata(root)?;
    let folder = metadata["target_directory"].as_str();
    folder.map(PathBuf::from).context("cargo metadata names no target folder")
}

/// Runs a command that inherits standard output, and fails unless it succeeds.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status =
        command.status().with_context(|| format!("cannot start `{}`", command_line(command)))?;
    if !status.success() {
        bail!("`{}` failed with {status}", command_line(command));
    }
    Ok(())
}

/// Runs a command and gives what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", command_line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed with {}", command_line(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a command can be started and succeeds; what it prints is dropped.
pub(crate) fn answers(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Whether a program answers to its name.
pub(crate) fn has_program(name: &str) -> bool {
    answers(Command::new(name).arg("--version"))
}

/// Whether the toolchain of the workspace has the standard library of a target.
pub(crate) fn has_target(root: &Path, target: &str) -> bool {
    let mut question = Command::new("rustc");
    question.current_dir(root).args(["--print", "target-libdir", "--target", target]);
    output(&mut question).is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

/// The command as a person would type it.
fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
