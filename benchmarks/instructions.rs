//! How many instructions the hot paths execute, and how many bytes modules and records take.
//!
//! `cargo xtask counts` runs one row a process under `valgrind --tool=callgrind`, which collects
//! between entering and leaving [`collect_instructions`]: what a row prepares is not counted, and
//! counts do not depend on what else the machine does. Valgrind is called directly, since a harness
//! of its own would bring a macro, a runner to install and its version to keep in step, for what
//! two flags do. Without arguments every row runs once, at full speed, and checks its work.

use std::hint::black_box;

use anyhow::{Context, Result, bail, ensure};
use vudo_benchmarks::{child, measure, workload};
use vudo_crdt::{
    CellId, InMemory, Log, Namespace, ReplicaKey, Strategy, Transaction, Value, VersionVector,
};
use vudo_gen::wasm;
use vudo_state::{Database, Durability};

/// Does one row's work and checks that it happened.
type Run = fn() -> Result<()>;

/// Rows are named in `baseline.json`.
const ROWS: [(&str, Run); 7] = [
    ("merge_10k_single_op_changes", || merge(10_000)),
    ("merge_10k_one_change", || merge(1)),
    ("merge_one_change_beside_10k", merge_beside),
    ("local_transactions_100", local_transactions),
    ("reads_1000", reads),
    ("encode_frame_10k_changes", encode_frame),
    ("build_module", build_module),
];

const RECORD_COUNT: usize = 10_000;
const TABLE_RECORD_COUNT: i64 = 100_000;

fn main() -> Result<()> {
    // `cargo bench` adds an argument of its own.
    match std::env::args().nth(1).as_deref() {
        None | Some("--bench") => ROWS.iter().try_for_each(|(name, run)| {
            println!("{name}: checked; `cargo xtask counts` counts its instructions");
            run()
        }),
        Some("--list") => {
            ROWS.iter().for_each(|(name, _)| println!("{name}"));
            Ok(())
        }
        Some("--sizes") => sizes(),
        Some(name) => match ROWS.iter().find(|(row, _)| *row == name) {
            Some((_, run)) => run(),
            None => bail!("there is no row '{name}': --list prints their names"),
        },
    }
}

/// What happens in here is counted. Valgrind finds the function by its name.
#[inline(never)]
fn collect_instructions<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

fn merge(changes: usize) -> Result<()> {
    let frame = workload::merge_frame(changes);
    let namespace = collect_instructions(|| workload::merge(black_box(&frame)));
    ensure!(namespace.gen_names().len() == 1, "the frame has one Gen");
    Ok(())
}

/// One change of one write by another replica, merged where 10,000 documents are. Without a store,
/// whose random key would decide how far a search goes.
fn merge_beside() -> Result<()> {
    let mut namespace = workload::merge(&workload::merge_frame(1));
    let (mut other, mut log) = (Namespace::new(4), Log::default());
    other.apply_frame(&workload::merge_frame(1), &mut InMemory, &mut ())?;
    let replica = other.intern_replica(ReplicaKey([9; 32]));
    let entry = other.find_gen("Entry").context("the frame has this Gen")?;
    let mut transaction = Transaction::begin(&other, replica, 1_800_000_000_000);
    let (field, value) = (CellId::new(1, Strategy::Lww), Value::from(5i64).to_bytes());
    let key = b"key_a_777";
    transaction.set_loaded(&other, entry, key, field, &value)?;
    transaction.commit(&mut other, &mut InMemory, &mut log)?;
    let frame = log.frame_since(&other, &VersionVector::new());
    let applied =
        collect_instructions(|| namespace.apply_frame(black_box(&frame), &mut InMemory, &mut ()))?;
    ensure!(applied.operations == 1, "{} operations were applied", applied.operations);
    Ok(())
}

fn local_transactions() -> Result<()> {
    let database = filled()?.with_durability(Durability::Eventual);
    let record_gen = workload::record_gen();
    let ids: Vec<_> =
        (0..100).map(|number| database.document_id(&format!("record{number}"))).collect();
    collect_instructions(|| {
        ids.iter().try_for_each(|id| database.update(&record_gen, id, &[("value", 7i64.into())]))
    })?;
    for id in &ids {
        let value = database.read_field(&record_gen, id, "value")?;
        ensure!(value == Some(7i64.into()), "{} holds {value:?}", id.key());
    }
    Ok(())
}

fn reads() -> Result<()> {
    let database = filled()?;
    let record_gen = workload::record_gen();
    let ids: Vec<_> =
        (0..1_000).map(|number| database.document_id(&format!("record{number}"))).collect();
    let sum = collect_instructions(|| {
        ids.iter().try_fold(0i128, |sum, id| {
            match database.read_field(&record_gen, id, "value")? {
                Some(Value::Int(value)) => anyhow::Ok(sum + value),
                other => bail!("{} holds {other:?}", id.key()),
            }
        })
    })?;
    ensure!(sum == (0..1_000).map(|number| number * 2).sum(), "the values add up to {sum}");
    Ok(())
}

fn encode_frame() -> Result<()> {
    let (mut namespace, mut log) = (Namespace::new(3), Log::default());
    namespace.intern_replica(ReplicaKey([7; 32]));
    let frame = workload::merge_frame(10_000);
    let applied = namespace.apply_frame(&frame, &mut InMemory, &mut log);
    ensure!(applied.is_ok_and(|applied| applied.changes == 10_000), "10,000 changes were applied");
    let encoded = collect_instructions(|| log.frame_since(&namespace, &VersionVector::new()));
    ensure!(encoded == frame, "the frame of the same changes has the same bytes");
    Ok(())
}

fn build_module() -> Result<()> {
    let schema = workload::compile(workload::USER_SOURCE)?;
    let module = collect_instructions(|| wasm::build(black_box(&schema)))?;
    ensure!(module.wasm.starts_with(b"\0asm"), "a module begins with its magic number");
    Ok(())
}

/// Prints the sizes that the baseline holds, as JSON.
fn sizes() -> Result<()> {
    // First, while this process has no freed memory to use again.
    let table = table_bytes()?;
    let module = wasm::build(&workload::compile(workload::USER_SOURCE)?)?;
    let mut bytes_per_record = serde_json::json!({
        "frame_of_records": per_record(whole_frame(&filled()?)?.len()),
        "frame_of_single_op_changes": per_record(workload::merge_frame(10_000).len()),
    });
    if let Some(table) = table {
        bytes_per_record["table_in_memory"] = (table as f64 / TABLE_RECORD_COUNT as f64).into();
    }
    let sizes = serde_json::json!({
        "module_bytes_gzipped": {
            "three_fields": measure::gzipped_bytes(&module.wasm)?,
            "three_fields_javascript": measure::gzipped_bytes(module.javascript.as_bytes())?,
        },
        "bytes_per_record": bytes_per_record,
    });
    println!("{sizes}");
    Ok(())
}

/// By how much resident memory grows for the table of 100,000 three-field documents; `None` where
/// the system does not tell. Without a store, whose threads decide when pages are given back.
fn table_bytes() -> Result<Option<u64>> {
    let before = child::resident_bytes();
    let mut namespace = Namespace::new(5);
    let replica = namespace.intern_replica(ReplicaKey([7; 32]));
    let gen_index = namespace.intern_gen("Record").context("an empty namespace has room")?;
    let fields = workload::record_gen().fields;
    for first in (0..TABLE_RECORD_COUNT).step_by(1_000) {
        let mut transaction = Transaction::begin(&namespace, replica, 1_700_000_000_000);
        for number in first..first + 1_000 {
            let key = format!("record{number}");
            let (key, source) = (key.as_bytes(), &mut InMemory);
            transaction.create(&mut namespace, source, gen_index, key)?;
            let values: [Value; 3] =
                [number.into(), format!("Record {number}").into(), (number * 2).into()];
            for (field, value) in fields.iter().zip(values) {
                transaction.set(&mut namespace, source, gen_index, key, field, &value)?;
            }
        }
        transaction.commit(&mut namespace, &mut InMemory, &mut ())?;
    }
    let after = child::resident_bytes();
    ensure!(namespace.heard(replica) == 100, "{} changes were made", namespace.heard(replica));
    Ok(before.zip(after).map(|(before, after)| after.saturating_sub(before)))
}

fn per_record(bytes: usize) -> f64 {
    bytes as f64 / RECORD_COUNT as f64
}

/// 10,000 three-field documents in memory.
fn filled() -> Result<Database> {
    let database = Database::open_in_memory()?;
    workload::fill(&database, RECORD_COUNT)?;
    Ok(database)
}

/// All changes of a store in one frame.
fn whole_frame(database: &Database) -> Result<Vec<u8>> {
    let replication = database.replication(database.namespace())?;
    let frame = replication.frame_since(&VersionVector::new(), usize::MAX)?;
    Ok(frame.context("the store has changes")?.bytes)
}
