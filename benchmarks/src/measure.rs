//! The measurements behind the budgets.

use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use vudo_p2p::{Config, Node, Ticket};
use vudo_state::{Database, Durability};

use crate::budgets::Measurement;
use crate::child;
use crate::workload;

/// How many single-op changes the sync measurement sends.
const SYNC_CHANGES: usize = 50_000;

/// The five budgets. `program` is one that calls [`child::run_if_asked`]; `progress` is told what
/// is being measured.
///
/// # Errors
/// Some part failed; a figure past its budget is no error.
pub fn five(program: &Path, mut progress: impl FnMut(&str)) -> Result<Vec<Measurement>> {
    progress("WASM module size");
    let size = module_kilobytes()?;
    progress("merge of 10,000 operations");
    let merge = merge_milliseconds();
    progress("sync between two processes");
    let sync = sync_operations_per_second(program)?;
    progress("memory of 100,000 documents");
    let memory = memory_megabytes(program)?;
    progress("cold start");
    let start = cold_start_milliseconds(program)?;
    let mut measured = vec![
        Measurement::new("wasm_module_kilobytes_gzipped", "KB", size)?,
        Measurement::new("merge_10k_milliseconds", "ms", merge)?,
        Measurement::new("sync_operations_per_second", "ops/s", sync)?,
    ];
    // Zero means that this system does not tell; there is nothing to hold against the budget then.
    if memory > 0.0 {
        measured.push(Measurement::new("memory_100k_megabytes", "MB", memory)?);
    }
    measured.push(Measurement::new("cold_start_milliseconds", "ms", start)?);
    Ok(measured)
}

/// The size of the three-field module in kilobytes of 1,000 bytes, `gzip -9`.
///
/// # Errors
/// It does not compile.
pub fn module_kilobytes() -> Result<f64> {
    let module = vudo_gen::wasm::build(&workload::compile(workload::USER_SOURCE)?)?;
    Ok(gzipped_bytes(&module.wasm)? as f64 / 1e3)
}

/// How many bytes `gzip -9` makes of these.
///
/// # Errors
/// Never in practice: the encoder writes to memory.
pub fn gzipped_bytes(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

/// The median time of merging 10,000 single-op changes from bytes into an empty namespace:
/// validation included, hashes and signatures not.
pub fn merge_milliseconds() -> f64 {
    let frame = workload::merge_frame(10_000);
    median(15, || {
        let start = Instant::now();
        let namespace = workload::merge(&frame);
        let elapsed = start.elapsed();
        drop(namespace);
        elapsed
    })
    .as_secs_f64()
        * 1e3
}

/// Single-op changes a second from this process to another over QUIC, counted from the first
/// commit to the other's word that all are on its disk.
///
/// # Errors
/// A store or the link failed.
pub fn sync_operations_per_second(program: &Path) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut receiver = child::spawn(program, "receive", &folder.path().join("receiver"))?;
    let mut output = BufReader::new(receiver.stdout.take().context("its output is piped")?);
    let ticket: Ticket = child::next_line(&mut output)?.parse()?;
    let database = Database::open(folder.path().join("sender"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let elapsed = runtime.block_on(async {
        let node = Node::spawn(&database, Config::loopback()).await?;
        let link = node.connect(&ticket).await?;
        link.wait_until_synced(Duration::from_secs(10)).await?;
        let writer = database.with_durability(Durability::Eventual);
        let start = Instant::now();
        tokio::task::spawn_blocking(move || write_single_changes(&writer)).await??;
        let report = link.wait_until_synced(Duration::from_secs(60)).await?;
        let elapsed = start.elapsed();
        ensure!(
            report.vector.change_count() == SYNC_CHANGES as u64,
            "{} of {SYNC_CHANGES} changes arrived",
            report.vector.change_count()
        );
        link.close().await;
        node.shutdown().await;
        anyhow::Ok(elapsed)
    })?;
    drop(receiver.stdin.take());
    output.read_to_end(&mut Vec::new())?;
    receiver.wait()?;
    Ok(SYNC_CHANGES as f64 / elapsed.as_secs_f64())
}

fn write_single_changes(database: &Database) -> Result<()> {
    let gen_schema = workload::record_gen();
    for number in 0..SYNC_CHANGES {
        let id = database.document_id(&format!("record{number}"));
        database.create(&gen_schema, &id, &[("value", (number as i64).into())])?;
    }
    database.flush()?;
    Ok(())
}

/// Growth of resident memory for 100,000 three-field documents on disk that have all been read,
/// in megabytes of 1,000,000 bytes; zero where the system does not tell.
///
/// # Errors
/// The store failed.
pub fn memory_megabytes(program: &Path) -> Result<f64> {
    Ok(memory_bytes(program, 100_000)? / 1e6)
}

/// Growth of resident memory for so many three-field documents, as [`memory_megabytes`] has it.
///
/// # Errors
/// The store failed.
pub fn memory_bytes(program: &Path, count: usize) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let role = format!("memory/{count}");
    Ok(child::line_of(program, &role, &folder.path().join("store"))?.parse()?)
}

/// The median time from starting a process to its first read from a store of 100,000 documents,
/// with a node bound.
///
/// # Errors
/// The store or the node failed.
pub fn cold_start_milliseconds(program: &Path) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    workload::fill(&Database::open(&store)?, 100_000)?;
    let starts: Result<Vec<Duration>> = (0..7).map(|_| cold_start(program, &store)).collect();
    let mut starts = starts?.into_iter();
    let elapsed = median(7, || starts.next().expect("there are seven"));
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// The time from starting a process to its first read from a store that [`workload::fill`] has
/// filled, with a node bound.
///
/// # Errors
/// The store or the node failed.
pub fn cold_start(program: &Path, store: &Path) -> Result<Duration> {
    let start = Instant::now();
    let mut process = child::spawn(program, "cold-start", store)?;
    let stdout = process.stdout.take().context("its output is piped")?;
    let line = child::next_line(&mut BufReader::new(stdout))?;
    let elapsed = start.elapsed();
    process.wait()?;
    ensure!(line == "Record 777", "read '{line}'");
    Ok(elapsed)
}

/// The median of some runs.
pub fn median(runs: usize, mut run: impl FnMut() -> Duration) -> Duration {
    let mut durations: Vec<Duration> = (0..runs).map(|_| run()).collect();
    durations.sort_unstable();
    durations[runs / 2]
}
