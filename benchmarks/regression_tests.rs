//! The regression tests: each fails when a promise of `budgets.toml` is broken.
//!
//! Budgets are promises about release builds. A debug build measures and prints, and says that it
//! asserts nothing about time.

#[path = "startup_time/interpreter.rs"]
mod interpreter;

use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vudo_benchmarks::budgets::{Budget, Measurement};
use vudo_benchmarks::{measure, startup, workload};
use vudo_state::{Database, Durability, Interest};

/// Measurements must not run beside each other.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn budgets_program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_budgets"))
}

/// Prints past the test runner, which keeps what passing tests print.
fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).expect("standard output is open");
}

/// Prints the line of the user's page and fails past the budget.
fn hold(title: &str, name: &'static str, unit: &'static str, measured: f64) {
    let row = Measurement::new(name, unit, measured).expect("budgets.toml has the entry");
    let space = if unit == "ops/sec" { " " } else { "" };
    let mark = if row.met { "✅" } else { "❌" };
    let line =
        format!("{mark} {title}: {measured:.2}{space}{unit} (budget: {}{space}{unit})", row.budget);
    if cfg!(debug_assertions) && unit != "KB" {
        say(&format!("{line} — a debug build: budgets are measured in release"));
        return;
    }
    say(&line);
    assert!(row.met, "{title}: {measured:.2} {unit} is past the budget of {} {unit}", row.budget);
}

#[test]
fn test_wasm_size_budget() {
    let _turn = turn();
    let measured = measure::module_kilobytes().unwrap();
    hold("WASM module size", "wasm_module_kilobytes_gzipped", "KB", measured);
}

#[test]
fn test_crdt_merge_latency_budget() {
    let _turn = turn();
    hold("CRDT merge latency", "merge_10k_milliseconds", "ms", measure::merge_milliseconds());
}

#[test]
fn test_sync_throughput_budget() {
    let _turn = turn();
    let measured = measure::sync_operations_per_second(budgets_program()).unwrap();
    hold("Sync throughput", "sync_operations_per_second", "ops/sec", measured);
}

#[test]
fn test_memory_usage_budget() {
    let _turn = turn();
    let measured = measure::memory_megabytes(budgets_program()).unwrap();
    if measured == 0.0 {
        say("Memory usage: not measured (needs /proc/self/status)");
        return;
    }
    hold("Memory usage", "memory_100k_megabytes", "MB", measured);
}

#[test]
fn test_startup_time_budget() {
    let _turn = turn();
    let measured = measure::cold_start_milliseconds(budgets_program()).unwrap();
    hold("Startup time", "cold_start_milliseconds", "ms", measured);

    let median = |run: &mut dyn FnMut() -> Duration| measure::median(11, run).as_secs_f64() * 1e3;
    let folder = tempfile::tempdir().unwrap();
    let (runtime, database) = (startup::runtime(), Database::open_in_memory().unwrap());
    let small = startup::closed_store(folder.path(), 1_000);
    let large = startup::closed_store(folder.path(), 100_000);
    let schema = workload::compile(workload::USER_SOURCE).unwrap();
    let module = vudo_gen::wasm::build(&schema).unwrap();
    hold("State engine", "state_engine_start_milliseconds", "ms", {
        median(&mut startup::state_engine)
    });
    hold("P2P node", "p2p_node_start_milliseconds", "ms", {
        median(&mut || startup::p2p_node(&runtime, &database))
    });
    hold("Opening 1,000 persisted documents", "persisted_1000_open_milliseconds", "ms", {
        median(&mut || startup::open_and_read(&small, 1_000).1)
    });
    hold("First phase of an incremental start", "first_phase_milliseconds", "ms", {
        median(&mut || startup::open_and_read(&large, 100_000).1)
    });
    hold("Lazy initialisation", "lazy_initialisation_milliseconds", "ms", {
        median(&mut startup::LazyApplication::timed_start)
    });
    hold("Starting in the background returns", "background_start_returns_milliseconds", "ms", {
        median(&mut || startup::background_start(&runtime, &large).0)
    });
    hold("WASM instantiation", "wasm_instantiation_milliseconds", "ms", {
        median(&mut || {
            let (is_created, elapsed) =
                startup::timed(|| interpreter::first_operation(&module.wasm));
            assert!(is_created);
            elapsed
        })
    });
}

fn microseconds_each(count: u32, elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e6 / f64::from(count)
}

/// On disk, without waiting for its syncs: the disk's own time is not ours to promise.
#[test]
fn test_state_engine_operations_performance() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap().with_durability(Durability::Eventual);
    let gen_schema = workload::record_gen();
    let ids: Vec<_> =
        (0..2_000).map(|number| database.document_id(&format!("record{number}"))).collect();
    let count = ids.len() as u32;
    let time = |run: &mut dyn FnMut(usize)| {
        let start = Instant::now();
        (0..ids.len()).for_each(run);
        microseconds_each(count, start.elapsed())
    };
    let create = time(&mut |number| {
        let fields = [("name", "a name".into()), ("id", (number as i64).into())];
        database.create(&gen_schema, &ids[number], &fields).unwrap();
    });
    let write = time(&mut |number| {
        database.update(&gen_schema, &ids[number], &[("value", 7i64.into())]).unwrap();
    });
    let read = time(&mut |number| {
        let value = database.read_field(&gen_schema, &ids[number], "value").unwrap();
        assert_eq!(value, Some(7i64.into()));
    });
    hold("Document create", "document_create_microseconds", "us", create);
    hold("Document write", "document_write_microseconds", "us", write);
    hold("Document read", "document_read_microseconds", "us", read);
    let delivery = delivery_milliseconds(&database);
    hold("Subscription delivery", "subscription_delivery_milliseconds", "ms", delivery);
}

/// The median from before a commit until another thread holds its event.
fn delivery_milliseconds(database: &Database) -> f64 {
    let gen_schema = workload::record_gen();
    let subscription = database.subscribe(Interest::Namespace).unwrap();
    let id = database.document_id("record0");
    let run = || {
        std::thread::scope(|scope| {
            let listener = scope.spawn(|| {
                let event = subscription.next_within(Duration::from_secs(10));
                (Instant::now(), event.expect("the commit reaches its subscriber"))
            });
            let start = Instant::now();
            database.update(&gen_schema, &id, &[("value", 8i64.into())]).unwrap();
            let (arrived, event) = listener.join().unwrap();
            assert_eq!(event.documents[0].key, "record0");
            arrived - start
        })
    };
    measure::median(15, run).as_secs_f64() * 1e3
}

#[test]
fn test_batch_operations_performance() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let start = Instant::now();
    workload::fill(&database, 1_000).unwrap();
    let elapsed = start.elapsed().as_secs_f64() * 1e3;
    assert_eq!(database.list(&workload::record_gen()).unwrap().len(), 1_000);
    hold("1,000 writes in a batch, durable", "batch_1000_writes_milliseconds", "ms", elapsed);
}

#[test]
fn test_concurrent_operations_performance() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let gen_schema = workload::record_gen();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..10 {
            let (database, gen_schema) = (database.clone(), &gen_schema);
            scope.spawn(move || {
                let fast = database.with_durability(Durability::Eventual);
                let id = fast.document_id(&format!("record{writer}"));
                fast.create(gen_schema, &id, &[]).unwrap();
                for value in 0..100i64 {
                    fast.update(gen_schema, &id, &[("value", value.into())]).unwrap();
                }
            });
        }
    });
    database.flush().unwrap();
    let elapsed = start.elapsed().as_secs_f64() * 1e3;
    let records = database.list(&gen_schema).unwrap();
    assert_eq!(records.len(), 10);
    assert!(records.iter().all(|record| record.get("value") == Some(&99i64.into())));
    hold(
        "10 documents x 100 concurrent writes, durable",
        "concurrent_10x100_writes_milliseconds",
        "ms",
        elapsed,
    );
}

#[test]
fn an_impossible_budget_is_not_met() {
    let budget = Budget { budget: 0.0, goal: None, more_is_better: false };
    assert!(!budget.is_met_by(0.01));
    let budget = Budget { budget: f64::MAX, goal: None, more_is_better: true };
    assert!(!budget.is_met_by(1e9));
}
