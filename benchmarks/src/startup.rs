//! Starting up, in parts that can be timed one by one: for the bench and the regression tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use vudo_crdt::{Schema, Value};
use vudo_p2p::{Config, Node};
use vudo_state::Database;

use crate::workload;

/// Times `run`; what it gives is dropped outside.
pub fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

/// A runtime as an application would have it.
///
/// # Panics
/// Where no threads can be started.
pub fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("threads can be started")
}

/// The folder of a store of so many records that is closed again.
///
/// # Panics
/// Where the disk does not take them.
pub fn closed_store(folder: &Path, count: usize) -> PathBuf {
    let store = folder.join(count.to_string());
    let database = Database::open(&store).expect("a new store");
    workload::fill(&database, count).expect("the disk takes the documents");
    store
}

/// # Panics
/// Where the folder holds no store that can be opened.
fn open(store: &Path) -> Database {
    Database::open(store).expect("the folder can hold a store, and nobody has it open")
}

/// Reads a document that stores of more than 777 documents have.
fn read_one(database: &Database) -> Option<Value> {
    let id = database.document_id("record777");
    database.read_field(&workload::record_gen(), &id, "value").expect("the store can be read")
}

/// What it reads.
fn found() -> Option<Value> {
    Some(Value::from(2 * 777i64))
}

/// Opens a store of so many records and reads one, which must be right.
///
/// # Panics
/// Where the store cannot be opened or read.
pub fn open_and_read(store: &Path, count: usize) -> (Database, Duration) {
    let ((database, value), elapsed) = timed(|| {
        let database = open(store);
        let value = read_one(&database);
        (database, value)
    });
    assert_eq!(value, found().filter(|_| count > 777));
    (database, elapsed)
}

/// Starts an engine in memory.
///
/// # Panics
/// Where the system gives no randomness.
pub fn state_engine() -> Duration {
    timed(|| Database::open_in_memory().expect("the system gives randomness")).1
}

/// Puts a store on the network, and takes it off again outside of the time.
///
/// # Panics
/// Where loopback has no free port.
pub fn p2p_node(runtime: &Runtime, database: &Database) -> Duration {
    let (node, elapsed) = timed(|| runtime.block_on(Node::spawn(database, Config::loopback())));
    runtime.block_on(node.expect("loopback has ports").shutdown());
    elapsed
}

/// An application that starts what it needs when it first needs it.
#[derive(Default)]
pub struct LazyApplication {
    schema: OnceLock<Schema>,
    database: OnceLock<Database>,
}

impl LazyApplication {
    /// Starts nothing yet.
    pub fn timed_start() -> Duration {
        let (application, elapsed) = timed(LazyApplication::default);
        assert!(application.database.get().is_none());
        elapsed
    }

    /// Compiles the schema and opens the store at once, as an application that is not lazy does.
    ///
    /// # Panics
    /// Where the store cannot be opened or read.
    pub fn eager(store: &Path) -> Duration {
        let compile = || workload::compile(workload::USER_SOURCE).expect("it is right");
        let ((schema, database), elapsed) = timed(|| (compile(), open(store)));
        assert_eq!((schema.gens.len(), read_one(&database)), (1, found()));
        elapsed
    }

    fn schema(&self) -> &Schema {
        self.schema.get_or_init(|| workload::compile(workload::USER_SOURCE).expect("it is right"))
    }

    fn database(&self, store: &Path) -> &Database {
        self.database.get_or_init(|| open(store))
    }

    /// What the first screen does.
    ///
    /// # Panics
    /// Where the store cannot be opened or read.
    pub fn first_use(&self, store: &Path) {
        assert_eq!(self.schema().gens.len(), 1);
        assert_eq!(read_one(self.database(store)), found());
    }
}

/// A store that is open, has been read from, and is on the network.
async fn start(store: PathBuf) -> (Database, Node) {
    let opening = tokio::task::spawn_blocking(move || {
        let database = open(&store);
        assert_eq!(read_one(&database), found());
        database
    });
    let database = opening.await.expect("the store opens");
    let node = Node::spawn(&database, Config::loopback()).await.expect("loopback has ports");
    (database, node)
}

/// Starts all and waits for it.
pub fn blocking_start(runtime: &Runtime, store: &Path) -> Duration {
    let ((_database, node), elapsed) = timed(|| runtime.block_on(start(store.to_owned())));
    runtime.block_on(node.shutdown());
    elapsed
}

/// Starts all in the background: how long the call takes, and how long until all is there.
///
/// # Panics
/// Where something does not start.
pub fn background_start(runtime: &Runtime, store: &Path) -> (Duration, Duration) {
    let begin = Instant::now();
    let starting = runtime.spawn(start(store.to_owned()));
    let returned = begin.elapsed();
    let (_database, node) = runtime.block_on(starting).expect("it starts");
    let ready = begin.elapsed();
    runtime.block_on(node.shutdown());
    (returned, ready)
}
