//! The project's own tasks. `cargo xtask test` is the gate that every change passes.

mod command;
mod cut;
mod gate;
mod long;
mod runtime;
mod tidy;

use std::process::ExitCode;

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
    /// Run what takes too long for the gate: large histories, Miri, fuzzing, advisories.
    Long {
        /// Run only the job of this name.
        #[arg(long)]
        only: Option<String>,
        /// How long each fuzz target runs.
        #[arg(long, default_value_t = 10)]
        fuzz_minutes: u32,
    },
}

fn main() -> ExitCode {
    let root = command::workspace_root();
    let result = match Arguments::parse().task {
        Task::Test { no_skips } => gate::run(&root, no_skips),
        Task::Tidy => tidy::run(&root).map(|()| true),
        Task::Runtime { check } => runtime::run(&root, check).map(|()| true),
        Task::Long { only, fuzz_minutes } => {
            long::run(&root, only.as_deref(), fuzz_minutes).map(|()| true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
