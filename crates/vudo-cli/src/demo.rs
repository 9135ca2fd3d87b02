//! `vudo demo`: the whole stack on real data, each step with what it did and how long it took.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use vudo_benchmarks::measure;
use vudo_crdt::{GenSchema, Value};
use vudo_gen::SourceFile;
use vudo_p2p::{Config, Node, Ticket};
use vudo_state::Database;

use crate::{import, network, output};

const GEN_SOURCE: &str = include_str!("../demo/city.dol");
const CAPITALS: &str = include_str!("../demo/capitals.csv");

/// Two processes on one machine find each other at once, or something is in the way.
const SYNC_SECONDS: u64 = 20;

/// What is imported: a file, and the column of its keys.
struct Input {
    file: PathBuf,
    key: &'static str,
    about: String,
}

pub(crate) fn run(skip_budgets: bool) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot create a folder for the demo's stores")?;
    let (store_a, store_b) = (folder.path().join("a"), folder.path().join("b"));
    let mut steps = Steps::default();

    let gen_schema = steps.run("Compile city.dol to WASM", compile)?;
    let database = Database::open(&store_a)?;
    database.define(&vudo_crdt::Schema::from(vec![gen_schema.clone()]))?;
    let input = input(folder.path())?;
    let count = steps.run("Import into store A, durable", || {
        let imported = import::import_csv(&database, &gen_schema, &input.file, input.key)?;
        let about = format!("{} documents of {}", imported.count, input.about);
        Ok((about, imported.count))
    })?;

    steps.run("Store B joins by ticket: a second process, over QUIC", || {
        let report = serve_while(&database, |ticket| sync_in_child(&store_b, ticket))?;
        Ok((report, ()))
    })?;

    let key = first_key(&database, &gen_schema)?;
    steps.run("The link is cut; both edit the same and other documents", || {
        edit(&database, &gen_schema, &key, "seen from A", 2, "only-in-a")?;
        // The second process has ended, so its store is free to be edited from here.
        let other = Database::open(&store_b)?;
        let arrived = other.list(&gen_schema)?.len() as u64;
        ensure!(arrived == count, "store B holds {arrived} documents, not {count}");
        edit(&other, &gen_schema, &key, "seen from B", 3, "only-in-b")?;
        let equal = fingerprint(&database)? == fingerprint(&other)?;
        ensure!(!equal, "the stores are equal although both were edited apart");
        Ok((format!("'{key}' on both sides, one new document on each"), ()))
    })?;

    steps.run("The link returns", || {
        let report = serve_while(&database, |ticket| sync_in_child(&store_b, ticket))?;
        Ok((report, ()))
    })?;

    steps.run("Both are equal", || {
        let other = Database::open(&store_b)?;
        let (left, right) = (fingerprint(&database)?, fingerprint(&other)?);
        ensure!(left == right, "A has fingerprint {left}, B has {right}");
        for side in [&database, &other] {
            let record = side.read(&gen_schema, &side.document_id(&key))?;
            let record = record.context("the document that both edited is there")?;
            let visits = record.get("visits");
            ensure!(visits == Some(&Value::from(5i64)), "visits 2 + 3 merged to {visits:?}");
            for only in ["only-in-a", "only-in-b"] {
                let found = side.read(&gen_schema, &side.document_id(only))?;
                ensure!(found.is_some(), "{only} is missing");
            }
        }
        Ok((format!("fingerprint {left}; visits 2 + 3 = 5; the later note won"), ()))
    })?;

    if skip_budgets {
        return Ok(());
    }
    budgets(&mut steps)
}

/// Prints each step's name before it runs, and its outcome and time after.
#[derive(Default)]
struct Steps {
    count: usize,
}

impl Steps {
    fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<(String, T)>) -> Result<T> {
        self.count += 1;
        println!("{}. {name}", self.count);
        std::io::stdout().flush()?;
        let start = Instant::now();
        let (about, value) = step().with_context(|| format!("step {}: {name}", self.count))?;
        println!("   {about} ({:.1} ms)", start.elapsed().as_secs_f64() * 1e3);
        Ok(value)
    }
}

fn compile() -> Result<(String, GenSchema)> {
    let sources = [SourceFile { name: "city.dol".into(), text: GEN_SOURCE.into(), lock: None }];
    let compilation = vudo_gen::compile(&sources);
    let Some(schema) = compilation.schema else {
        for diagnostic in &compilation.diagnostics {
            eprint!("{}", diagnostic.render(&sources, output::has_colour()));
        }
        bail!("city.dol does not compile");
    };
    let module = vudo_gen::wasm::build(&schema)?;
    let gzipped = measure::gzipped_bytes(&module.wasm)?;
    let about =
        format!("{} bytes of WASM, {gzipped} gzipped, all merge code included", module.wasm.len());
    let city = schema.gen_named("City").context("city.dol declares City")?;
    Ok((about, city.clone()))
}

/// The world's cities where the data folder is given, else the capitals that the program carries.
fn input(folder: &Path) -> Result<Input> {
    if let Some(data) = std::env::var_os("VUDO_DATA") {
        let file = Path::new(&data).join("world-cities.csv");
        if file.exists() {
            let about = "world-cities.csv (GeoNames, CC BY 4.0)".to_owned();
            return Ok(Input { file, key: "geonameid", about });
        }
    }
    let file = folder.join("capitals.csv");
    std::fs::write(&file, CAPITALS)?;
    let about = "the built-in capitals (VUDO_DATA names no folder with world-cities.csv)".into();
    Ok(Input { file, key: "name", about })
}

/// Serves a store on loopback for as long as the function runs.
fn serve_while<T>(database: &Database, run: impl FnOnce(&Ticket) -> Result<T>) -> Result<T> {
    let runtime = network::runtime()?;
    let (node, ticket) = runtime.block_on(async {
        let node = Node::spawn(database, Config::loopback()).await?;
        let ticket = node.share(vudo_state::DEFAULT_NAMESPACE)?;
        anyhow::Ok((node, ticket))
    })?;
    let result = run(&ticket);
    runtime.block_on(node.shutdown());
    result
}

/// Runs `vudo sync` in a process of its own and gives what it printed.
fn sync_in_child(store: &Path, ticket: &Ticket) -> Result<String> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--store")
        .arg(store)
        .args(["sync", &ticket.to_string()])
        .args(["--timeout-seconds", &SYNC_SECONDS.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the second process")?;
    ensure!(
        output.status.success(),
        "the second process could not sync; its message is above. Is UDP on loopback allowed?"
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn first_key(database: &Database, gen_schema: &GenSchema) -> Result<String> {
    let mut first = None;
    database.for_each(gen_schema, |record| {
        first = Some(record.key);
        false
    })?;
    first.context("store A holds no document")
}

/// Edits one document that both sides edit, and creates one of this side's own.
fn edit(
    database: &Database,
    gen_schema: &GenSchema,
    key: &str,
    note: &str,
    visits: i64,
    own_key: &str,
) -> Result<()> {
    let shared = database.document_id(key);
    database.update(gen_schema, &shared, &[("note", note.into()), ("visits", visits.into())])?;
    // The notes' times must differ for the later one to win on both sides.
    std::thread::sleep(Duration::from_millis(2));
    let own = database.document_id(own_key);
    Ok(database.create(gen_schema, &own, &[("name", own_key.into())])?)
}

fn fingerprint(database: &Database) -> Result<String> {
    let replication = database.replication(vudo_state::DEFAULT_NAMESPACE)?;
    Ok(replication.fingerprint()?.1.to_string())
}

fn budgets(steps: &mut Steps) -> Result<()> {
    let program = std::env::current_exe()?;
    let measured = steps.run("The five budgets, measured now", || {
        let measured = measure::five(&program, |_| {})?;
        Ok((format!("{} figures", measured.len()), measured))
    })?;
    for row in &measured {
        let mark = if row.met { "✅" } else { "❌" };
        println!(
            "   {mark} {:<32} {:>10.2} {} (budget: {} {})",
            row.name, row.measured, row.unit, row.budget, row.unit
        );
    }
    ensure!(measured.iter().all(|row| row.met), "a budget is missed");
    Ok(())
}
