//! The project's own tasks. `cargo xtask test` is the gate that every change passes.

mod arrange;
mod baselines;
mod bench;
mod command;
mod counts;
mod cut;
mod deflate;
mod frames;
mod gate;
mod long;
mod mutations;
mod page;
mod peers;
mod profile;
mod report;
mod runtime;
mod sections;
mod swaps;
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
    /// Run the whole gate: format, lints, tidy, licences, all tests, no_std, fuzz targets, runtime bytes.
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
    /// Measure the criterion suite.
    Bench(bench::Options),
    /// Compare two saved baselines; fail where a bench got more than 10 % slower.
    Compare {
        /// The baseline to compare with.
        old: String,
        /// The baseline that must not be slower.
        new: String,
    },
    /// Count instructions and bytes; fail where they grew past `benchmarks/baseline.json`.
    Counts {
        /// Write what is measured to the baseline.
        #[arg(long)]
        bless: bool,
    },
    /// Run the commands of `benchmarks/README.md`.
    Page {
        /// Only say which would be run, and why others would not.
        #[arg(long)]
        list: bool,
    },
    /// Measure our rows beside those of other libraries.
    Peers {
        /// Print a list of {name, figures}.
        #[arg(long)]
        json: bool,
    },
    /// Measure the budgets, keep them in the history, and rewrite the performance documents.
    Report {
        /// How often the budgets are measured; with 0 only the documents are rewritten.
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// Draw where the time of a bench goes.
    Flamegraph {
        /// The bench target.
        bench: String,
    },
    /// Record where the memory of a bench goes.
    Massif {
        /// The bench target.
        bench: String,
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
        Task::Bench(options) => bench::run(&root, &options),
        Task::Compare { old, new } => bench::compare(&root, &old, &new),
        Task::Counts { bless } => counts::run(&root, bless),
        Task::Page { list } => page::run(&root, list),
        Task::Peers { json } => peers::run(&root, json).map(|()| true),
        Task::Report { runs } => report::run(&root, runs).map(|()| true),
        Task::Flamegraph { bench } => profile::flamegraph(&root, &bench).map(|()| true),
        Task::Massif { bench } => profile::massif(&root, &bench).map(|()| true),
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
