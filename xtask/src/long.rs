//! What is too long for the gate: run by hand or at night, and reported.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{answers, cargo, succeed, target_folder};
use crate::{mutations, runtime};

/// How often random suites run here; they read `VUDO_HISTORIES`.
const HISTORY_COUNT: &str = "1000000";

/// The main suite of the network simulation, and how many seeds of it run here.
const SIMULATION: &str = "every_seed_converges_with_nothing_acknowledged_lost";
const SIMULATION_COUNT: &str = "20000";

/// How many seeds of each other suite run here: forks, revocations, compactions and presence.
const OTHER_SIMULATION_COUNT: &str = "5000";

/// How many seeds of each size of the committee the ledger's simulation runs here.
const CREDIT_SEEDS: &str = "10000";

/// Crates with unsafe code, or with code that unsafe code relies on.
const MIRI_PACKAGES: [&str; 1] = ["vudo-gen-runtime"];

struct Job {
    name: &'static str,
    about: &'static str,
    run: fn(&Path, u32) -> Result<()>,
}

const JOBS: [Job; 9] = [
    Job {
        name: "histories",
        about: "a million random histories of the merge core",
        run: |root, _| histories(root),
    },
    Job {
        name: "simulation",
        about: "replicas on a simulated network, with crashes, under 20,000 seeds, and 5,000 of each with \
                forks, revocations, compactions and presence",
        run: |root, _| simulation(root),
    },
    Job {
        name: "credit",
        about: "20,000 seeds of the ledger's simulation",
        run: |root, _| credit(root),
    },
    Job {
        name: "miri",
        about: "undefined behaviour in unsafe code, with tests in an interpreter",
        run: |root, _| miri(root),
    },
    Job { name: "fuzz", about: "every decoder of outside bytes", run: fuzz },
    Job {
        name: "budgets",
        about: "each budget, made impossible, fails one regression test and no other",
        run: |root, _| impossible_budgets(root),
    },
    Job {
        name: "mutations",
        about: "each known bug, put back, fails the test that is there for it",
        run: |root, _| mutations::run(root),
    },
    Job {
        name: "advisories",
        about: "known weaknesses in dependencies",
        run: |root, _| advisories(root),
    },
    Job {
        name: "wasm-variants",
        about: "what wasm-opt, LTO and the optimisation level do to the runtime's size",
        run: |root, _| runtime::build_variants(root),
    },
];

/// Runs the job of the name `only`, or all of them, also after one that failed.
pub(crate) fn run(root: &Path, only: Option<&str>, fuzz_minutes: u32) -> Result<()> {
    let wanted = |job: &&Job| only.is_none_or(|name| name == job.name);
    let jobs: Vec<&Job> = JOBS.iter().filter(wanted).collect();
    if jobs.is_empty() {
        let names: Vec<&str> = JOBS.iter().map(|job| job.name).collect();
        bail!("there is no such job; there are {}", names.join(", "));
    }
    let mut failures = Vec::new();
    for job in jobs {
        println!("\n== {}: {}", job.name, job.about);
        if let Err(error) = (job.run)(root, fuzz_minutes) {
            println!("{} failed: {error:#}", job.name);
            failures.push(job.name);
        }
    }
    if !failures.is_empty() {
        bail!("failed: {}", failures.join(", "));
    }
    Ok(())
}

fn histories(root: &Path) -> Result<()> {
    let arguments = ["test", "--release", "-p", "vudo-crdt", "--", "--nocapture"];
    succeed(cargo(root, &arguments).env("VUDO_HISTORIES", HISTORY_COUNT))
}

/// Every test of the simulation; how many seeds there were, and how many of them on files that crashes
/// tear, is printed for each suite.
fn simulation(root: &Path) -> Result<()> {
    let target = ["test", "--release", "-p", "vudo-p2p", "--test", "simulation", "--"];
    let run = |count, filter: &[&str]| {
        let mut tests = cargo(root, &target);
        succeed(tests.args(filter).arg("--nocapture").env("VUDO_HISTORIES", count))
    };
    run(SIMULATION_COUNT, &["--exact", SIMULATION])?;
    run(OTHER_SIMULATION_COUNT, &["--skip", SIMULATION])
}

/// Two tests, one for each size of the committee, run half of the seeds each.
fn credit(root: &Path) -> Result<()> {
    let arguments = [
        "test",
        "--release",
        "-p",
        "vudo-credit",
        "--test",
        "simulation",
        "members",
        "--",
        "--nocapture",
    ];
    succeed(cargo(root, &arguments).env("VUDO_HISTORIES", CREDIT_SEEDS))
}

fn miri(root: &Path) -> Result<()> {
    if !answers(nightly_cargo(root).args(["miri", "--version"])) {
        bail!("missing program miri: rustup component add miri rust-src --toolchain nightly");
    }
    for package in MIRI_PACKAGES {
        succeed(nightly_cargo(root).args(["miri", "test", "-p", package]))?;
    }
    Ok(())
}

fn fuzz(root: &Path, minutes: u32) -> Result<()> {
    let folder = root.join("fuzz/fuzz_targets");
    if !folder.is_dir() {
        println!("no fuzz targets yet: they belong into fuzz/fuzz_targets");
        return Ok(());
    }
    if !answers(nightly_cargo(root).args(["fuzz", "--version"])) {
        bail!("missing program cargo-fuzz: cargo install cargo-fuzz --locked");
    }
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let target = path.file_stem().context("a fuzz target has a name")?;
        let limit = format!("-max_total_time={}", minutes * 60);
        succeed(nightly_cargo(root).args(["fuzz", "run"]).arg(target).args(["--", &limit]))?;
    }
    Ok(())
}

/// Runs the regression tests once for every budget, with that one made impossible.
fn impossible_budgets(root: &Path) -> Result<()> {
    let text = std::fs::read_to_string(root.join("benchmarks/budgets.toml"))?;
    let table: toml::Table = text.parse().context("benchmarks/budgets.toml")?;
    let changed_path = target_folder(root)?.join("impossible-budgets.toml");
    let mut faults = Vec::new();
    for (name, entry) in &table {
        let more_is_better = entry.get("more_is_better").is_some();
        let mut changed = table.clone();
        if let Some(entry) = changed.get_mut(name).and_then(toml::Value::as_table_mut) {
            let impossible = if more_is_better { 1e18 } else { 0.0 };
            entry.insert("budget".to_owned(), impossible.into());
        }
        std::fs::write(&changed_path, changed.to_string())?;
        let arguments = ["test", "--release", "--workspace", "--test", "regression_tests"];
        let tests = cargo(root, &arguments).env("VUDO_BUDGETS", &changed_path).output()?;
        let said = String::from_utf8_lossy(&tests.stdout);
        let failed: Vec<&str> = (said.lines())
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
            .collect();
        println!("{name}: {}", failed.join(", "));
        if failed.len() != 1 {
            faults.push(name.as_str());
        }
    }
    if !faults.is_empty() {
        bail!("not exactly one test fails for {}", faults.join(", "));
    }
    Ok(())
}

fn advisories(root: &Path) -> Result<()> {
    if !answers(&mut cargo(root, &["deny", "--version"])) {
        bail!("missing program cargo-deny: cargo install cargo-deny --locked");
    }
    succeed(&mut cargo(root, &["deny", "check", "advisories"]))
}

/// Miri and the fuzzer's sanitizers need a nightly compiler.
fn nightly_cargo(root: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(root).args(["run", "nightly", "cargo"]);
    command
}
