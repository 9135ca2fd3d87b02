//! Measurements that need a process of their own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use vudo_p2p::{Config, Node};
use vudo_state::{Database, DocumentId};

use crate::workload;

/// Names the role of a child process.
const ROLE: &str = "VUDO_BENCHMARK_ROLE";
/// The folder of the store that it works on.
const STORE: &str = "VUDO_BENCHMARK_STORE";

/// Does what a parent process asked for, and ends the process then. Does nothing in a process
/// that was started by somebody else.
pub fn run_if_asked() {
    let Some((role, store)) = asked() else { return };
    let done = match role.split_once('/').unwrap_or((&role, "")) {
        ("memory", count) => memory(&store, count),
        ("cold-start", _) => cold_start(&store),
        ("receive", _) => receive(&store),
        _ => Err(anyhow::anyhow!("no role {role}")),
    };
    if let Err(error) = done {
        eprintln!("{role}: {error:#}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// The role that a parent process asked for, and the folder of the store that goes with it.
pub fn asked() -> Option<(String, PathBuf)> {
    let role = std::env::var(ROLE).ok()?;
    Some((role, std::env::var_os(STORE).unwrap_or_default().into()))
}

/// A child of this role, from a program that calls [`run_if_asked`].
///
/// # Errors
/// The program cannot be started.
pub fn spawn(program: &Path, role: &str, store: &Path) -> Result<Child> {
    Command::new(program)
        .env(ROLE, role)
        .env(STORE, store)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// The next line that a child prints.
///
/// # Errors
/// The child ended without one.
pub fn next_line(output: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if output.read_line(&mut line)? == 0 {
        bail!("the measuring process ended early; its message is above");
    }
    Ok(line.trim().to_owned())
}

/// Runs a child to its end and gives the line that it prints.
///
/// # Errors
/// It failed, or printed none.
pub fn line_of(program: &Path, role: &str, store: &Path) -> Result<String> {
    let mut child = spawn(program, role, store)?;
    let stdout = child.stdout.take().context("the child's output is piped")?;
    let line = next_line(&mut BufReader::new(stdout))?;
    child.wait()?;
    Ok(line)
}

/// The resident memory of this process in bytes; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Prints by how many bytes resident memory grew for `count` documents that are all read back.
fn memory(store: &Path, count: &str) -> Result<()> {
    let count: usize = count.parse().context("the role is memory/COUNT")?;
    let database = Database::open(store)?;
    let before = resident_bytes().unwrap_or(0);
    workload::fill(&database, count)?;
    let mut sum = 0i128;
    database.for_each(&workload::record_gen(), |record| {
        if let Some(vudo_crdt::Value::Int(value)) = record.get("value") {
            sum += value;
        }
        true
    })?;
    let after = resident_bytes().unwrap_or(0);
    if sum != (0..count as i128).map(|number| number * 2).sum() {
        bail!("the documents read back are not those written");
    }
    println!("{}", after.saturating_sub(before));
    Ok(())
}

/// Opens a store, binds a node and reads one document. The parent measures from the start of the
/// process to this line.
fn cold_start(store: &Path) -> Result<()> {
    let database = Database::open(store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let config = Config::loopback();
    let node = runtime.block_on(Node::spawn(&database, config))?;
    let id = DocumentId::new("default", "record777");
    let record = database.read(&workload::record_gen(), &id)?;
    let name = record.and_then(|record| record.get("name").cloned());
    println!("{}", name.context("the stored document is there")?);
    std::io::stdout().flush()?;
    runtime.block_on(node.shutdown());
    Ok(())
}

/// Serves an empty store: prints a ticket, and ends when its input is closed.
fn receive(store: &Path) -> Result<()> {
    let database = Database::open(store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let node = runtime.block_on(Node::spawn(&database, Config::loopback()))?;
    let ticket = {
        let _entered = runtime.enter();
        node.share("default")?
    };
    println!("{ticket}");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    runtime.block_on(node.shutdown());
    Ok(())
}
