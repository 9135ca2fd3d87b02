//! Profiles of a bench: where its time goes, and where its memory goes.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{answers, bench_program, cargo, has_program, succeed, target_folder};

/// Criterion measures nothing with this argument: each bench runs for so many seconds.
const PROFILE_SECONDS: &str = "5";

/// Draws `target/flamegraph/BENCH.svg`.
pub(crate) fn flamegraph(root: &Path, bench: &str) -> Result<()> {
    if !answers(&mut cargo(root, &["flamegraph", "--version"])) {
        bail!("missing program cargo-flamegraph: cargo install flamegraph --locked");
    }
    if std::env::consts::OS == "linux" && !has_program("perf") {
        bail!("missing program perf: apt-get install linux-perf, or what your system calls it");
    }
    let folder = target_folder(root)?.join("flamegraph");
    std::fs::create_dir_all(&folder)?;
    let picture = folder.join(bench).with_extension("svg");
    let mut record = cargo(root, &["flamegraph", "--bench", bench, "--output"]);
    record.arg(&picture).args(["--", "--bench", "--profile-time", PROFILE_SECONDS]);
    succeed(&mut record)?;
    println!("{}", picture.display());
    Ok(())
}

/// Writes `target/massif/BENCH.massif`, which tells where memory went at its peak.
///
/// The bench is started by valgrind itself, which does not look into what cargo starts.
pub(crate) fn massif(root: &Path, bench: &str) -> Result<()> {
    if !has_program("valgrind") {
        bail!("missing program valgrind: apt-get install valgrind");
    }
    let program = bench_program(root, bench, &[])?;
    let folder = target_folder(root)?.join("massif");
    std::fs::create_dir_all(&folder)?;
    let profile = folder.join(bench).with_extension("massif");
    let mut record = Command::new("valgrind");
    record.current_dir(root).arg("--tool=massif");
    record.arg(format!("--massif-out-file={}", profile.display()));
    // As a test each bench runs once: valgrind is slow, and repetitions use no more memory.
    succeed(record.arg(&program).arg("--test"))?;
    println!("{}: read it with ms_print", profile.display());
    Ok(())
}
