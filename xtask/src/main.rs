//! The project's own tasks. `cargo xtask test` is the gate that every change passes.

mod command;
mod gate;
mod long;
mod runtime;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Tasks of the VUDO project.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the whole gate: format, lints, tidy, licences, all tests, no_std, runtime bytes.
    Test {
        /// A test that is skipped because a program is missing counts as failed.
        #[arg(long)]
        no_skips: bool,
    },
    /// Check the rules that no compiler checks: crate boundaries, file sizes, switched-off tests.
    Tidy,
    /// Rebuild the WASM runtime that the compiler embeds.
    Runtime {
        /// Only compare the rebuilt bytes with the checked-in ones.
        #[arg(long)]
        check: bool,
    },
    /// Run what takes too long for the gate.
    Long {
        /// Run only the job of this name.
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> Result<()> {
    let root = command::workspace_root();
    match Arguments::parse().task {
        Task::Test { no_skips } => gate::run(&root, no_skips),
        Task::Tidy => tidy::run(&root),
        Task::Runtime { check } => runtime::run(&root, check),
        Task::Long { only } => long::run(&root, only.as_deref()),
    }
}
