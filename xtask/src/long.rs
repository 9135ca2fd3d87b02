//! What is too long for the gate: run by hand or at night, and reported.

use std::path::Path;

use anyhow::{Result, bail};

use crate::command::{cargo, succeed};

struct Job {
    name: &'static str,
    about: &'static str,
    variables: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
}

const JOBS: [Job; 2] = [
    Job {
        name: "histories",
        about: "1,000,000 random histories of the merge core against its twin",
        variables: &[("VUDO_HISTORIES", "1000000")],
        arguments: &["test", "--release", "-p", "vudo-crdt", "--test", "twin", "--", "--nocapture"],
    },
    Job {
        name: "advisories",
        about: "known weaknesses in dependencies",
        variables: &[],
        arguments: &["deny", "check", "advisories"],
    },
];

pub(crate) fn run(root: &Path, only: Option<&str>) -> Result<()> {
    let wanted = |job: &&Job| only.is_none_or(|name| name == job.name);
    let jobs: Vec<&Job> = JOBS.iter().filter(wanted).collect();
    if jobs.is_empty() {
        let names: Vec<&str> = JOBS.iter().map(|job| job.name).collect();
        bail!("there is no such job; there are {}", names.join(", "));
    }
    let mut failures = Vec::new();
    for job in jobs {
        println!("\n== {}: {}", job.name, job.about);
        let mut command = cargo(root, job.arguments);
        command.envs(job.variables.iter().copied());
        if let Err(error) = succeed(&mut command) {
            println!("FAILED: {error:#}");
            failures.push(job.name);
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!("failed: {}", failures.join(", ")) }
}
