//! Sync between real nodes over QUIC on loopback, with stores on disk on every side: a change
//! counts when the receiver has acknowledged it as durable.
//!
//! Samples get stores of their own wherever syncing changes them, since what a store holds already
//! is part of what a round costs.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType, VersionVector};
use vudo_p2p::proto::Message;
use vudo_p2p::{Config, Link, Node, Ticket};
use vudo_state::{Database, Durability, Interest};

/// Where the other process has its store: it serves where this is set.
const SERVES: &str = "VUDO_BENCH_SERVES";
/// How many documents the other process begins with, how many of them are in a change, and how many
/// fields they have.
const HOLDS: &str = "VUDO_BENCH_HOLDS";

/// A peer that is silent for this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(format!("sync_performance/{name}"));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    // Confidence intervals need no more, and drawing the default of 100,000 takes seconds a row.
    group.nresamples(5_000);
    group
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("threads can be started")
}

fn entry_gen() -> GenSchema {
    let value = FieldSchema::new("value", 1, Strategy::Lww, ValueType::I64);
    GenSchema::new("Entry", [value])
}

/// The documents of the memory budget: `{id, name, value}`.
fn record_gen() -> GenSchema {
    let fields = [
        FieldSchema::new("id", 1, Strategy::Immutable, ValueType::I64),
        FieldSchema::new("name", 2, Strategy::Lww, ValueType::String),
        FieldSchema::new("value", 3, Strategy::Lww, ValueType::I64),
    ];
    GenSchema::new("Record", fields)
}

/// Creates so many documents of three fields with all of them, so many to a change, and makes them
/// durable.
fn write_records(database: &Database, count: usize, change_documents: usize) {
    let gen_schema = record_gen();
    let fast = database.with_durability(Durability::Eventual);
    for start in (0..count).step_by(change_documents) {
        fast.transaction(|transaction| {
            for number in start..count.min(start + change_documents) {
                let key = format!("record{number}");
                transaction.create(&gen_schema, &key)?;
                transaction.set(&gen_schema, &key, "id", number as i64)?;
                transaction.set(&gen_schema, &key, "name", format!("Record {number}"))?;
                transaction.set(&gen_schema, &key, "value", number as i64)?;
            }
            Ok(())
        })
        .expect("new documents take their fields");
    }
    database.flush().expect("the disk takes the changes");
}

/// Creates the documents `prefix` 0 to `count`, so many to a change, and makes them durable.
fn write(database: &Database, prefix: &str, count: usize, change_operations: usize) {
    let gen_schema = entry_gen();
    let fast = database.with_durability(Durability::Eventual);
    for start in (0..count).step_by(change_operations) {
        fast.transaction(|transaction| {
            for number in start..count.min(start + change_operations) {
                let key = format!("{prefix}{number}");
                transaction.create(&gen_schema, &key)?;
                transaction.set(&gen_schema, &key, "value", number as i64)?;
            }
            Ok(())
        })
        .expect("new documents take their value");
    }
    database.flush().expect("the disk takes the changes");
}

/// A store on disk that is on the network. The node leaves and the store closes before the folder
/// goes.
struct Peer<'a> {
    node: Option<Node>,
    database: Database,
    runtime: &'a Runtime,
    _folder: TempDir,
}

impl<'a> Peer<'a> {
    fn start(runtime: &'a Runtime) -> Peer<'a> {
        let folder = tempfile::tempdir().expect("a folder for a store");
        let database = Database::open(folder.path()).expect("a new store");
        let node = runtime.block_on(Node::spawn(&database, Config::loopback()));
        let node = node.expect("loopback has ports");
        Peer { node: Some(node), database, runtime, _folder: folder }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("it is there until this is dropped")
    }

    fn ticket(&self) -> Ticket {
        self.node().share("default").expect("the namespace can be served")
    }

    fn connect(&self, ticket: &Ticket) -> Link {
        self.runtime.block_on(self.node().connect(ticket)).expect("the peer answers")
    }

    /// Waits until both sides of a link of this peer's are equal, and checks how many changes
    /// that makes.
    fn wait(&self, link: &Link, change_count: u64) {
        let report = self.runtime.block_on(link.wait_until_synced(PATIENCE));
        let report = report.expect("the peers become equal");
        assert_eq!(report.vector.change_count(), change_count);
    }

    fn close(&self, link: Link) {
        self.runtime.block_on(link.close());
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.runtime.block_on(node.shutdown());
        }
    }
}

fn connecting(criterion: &mut Criterion) {
    let runtime = runtime();
    let (server, client) = (Peer::start(&runtime), Peer::start(&runtime));
    let ticket = server.ticket();
    let mut group = group(criterion, "connect");
    group.bench_function("loopback", |bencher| {
        bencher.iter_custom(|iterations| {
            let run = || {
                let start = Instant::now();
                let link = client.connect(&ticket);
                let elapsed = start.elapsed();
                assert!(link.is_connected());
                client.close(link);
                elapsed
            };
            (0..iterations).map(|_| run()).sum()
        });
    });
    group.finish();
}

/// Times writing so many documents, a change each, until a server that is connected has them.
fn live<S>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    count: usize,
    start: impl Fn() -> (S, Ticket),
) {
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("live_single_op_changes", |bencher| {
        bencher.iter_custom(|iterations| {
            let run = || {
                let ((_server, ticket), client) = (start(), Peer::start(runtime));
                let link = client.connect(&ticket);
                client.wait(&link, 0);
                let start = Instant::now();
                write(&client.database, "live", count, 1);
                client.wait(&link, count as u64);
                let elapsed = start.elapsed();
                client.close(link);
                elapsed
            };
            (0..iterations).map(|_| run()).sum()
        });
    });
}

/// Times getting so many documents, so many to a change, from the server behind a ticket.
fn catch_up(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    ticket: &Ticket,
    (name, operations, change_operations): (&str, usize, usize),
) {
    group.throughput(Throughput::Elements(operations as u64));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let run = || {
                let client = Peer::start(runtime);
                let start = Instant::now();
                let link = client.connect(ticket);
                client.wait(&link, (operations / change_operations) as u64);
                let elapsed = start.elapsed();
                client.close(link);
                elapsed
            };
            (0..iterations).map(|_| run()).sum()
        });
    });
}

fn throughput(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = group(criterion, "throughput");
    live(&mut group, &runtime, 5_000, || {
        let server = Peer::start(&runtime);
        let ticket = server.ticket();
        (server, ticket)
    });
    let catching_up =
        [("catch_up_single_op_changes", 10_000, 1), ("catch_up_changes_of_100", 50_000, 100)];
    for row @ (_, operations, change_operations) in catching_up {
        let server = Peer::start(&runtime);
        write(&server.database, "held", operations, change_operations);
        catch_up(&mut group, &runtime, &server.ticket(), row);
    }
    group.finish();
}

/// A process of its own with a store on disk and a node. It ends when this is dropped.
struct OtherProcess {
    child: Child,
    ticket: Ticket,
    _folder: TempDir,
}

impl OtherProcess {
    /// Starts this program once more, with a store of so many documents of so many fields.
    fn start(documents: usize, change_documents: usize, fields: usize) -> OtherProcess {
        let folder = tempfile::tempdir().expect("a folder for a store");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .env(SERVES, folder.path())
            .env(HOLDS, format!("{documents} {change_documents} {fields}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process can be started");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("the process tells its ticket");
        let ticket = line.trim().parse().expect("a ticket");
        OtherProcess { child, ticket, _folder: folder }
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.child.stdin.take());
        self.child.wait().expect("the process ends");
    }
}

/// What the other process does.
fn serve(folder: &Path) {
    let holds = std::env::var(HOLDS).expect("how much it holds");
    let mut counts = holds.split(' ').map(|count| count.parse().expect("a count"));
    let mut next = || counts.next().expect("three counts");
    let (documents, change_documents, fields) = (next(), next(), next());
    let database = Database::open(folder).expect("a new store");
    match fields {
        1 => write(&database, "held", documents, change_documents),
        _ => write_records(&database, documents, change_documents),
    }
    let runtime = runtime();
    let node = runtime.block_on(Node::spawn(&database, Config::loopback()));
    let node = node.expect("loopback has ports");
    println!("{}", node.share("default").expect("the namespace can be served"));
    std::io::stdin().read_to_end(&mut Vec::new()).expect("the input ends");
    runtime.block_on(node.shutdown());
}

/// The throughput between two processes, each with a store on disk: what counts is durable in both.
fn between_processes(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = group(criterion, "between_processes");
    live(&mut group, &runtime, 20_000, || {
        let server = OtherProcess::start(0, 1, 1);
        let ticket = server.ticket.clone();
        (server, ticket)
    });
    live_single_changes(&runtime);
    let catching_up =
        [("catch_up_single_op_changes", 50_000, 1), ("catch_up_changes_of_100", 200_000, 100)];
    for row @ (_, operations, change_operations) in catching_up {
        let server = OtherProcess::start(operations, change_operations, 1);
        catch_up(&mut group, &runtime, &server.ticket, row);
    }
    catch_up_records(&mut group, &runtime);
    group.finish();
}

/// Catching up with documents of three fields, 33 to a change, which are 99 writes of a field: an
/// operation of the budgets is one of those. Its throughput is given twice, by what is counted.
fn catch_up_records(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime) {
    const DOCUMENTS: usize = 99_000;
    const CHANGE_DOCUMENTS: usize = 33;
    let server = OtherProcess::start(DOCUMENTS, CHANGE_DOCUMENTS, 3);
    for (name, count) in [
        ("catch_up_field_writes_in_changes_of_99", 3 * DOCUMENTS),
        ("catch_up_documents_of_3_fields_in_changes_of_33", DOCUMENTS),
    ] {
        let change_count = DOCUMENTS / CHANGE_DOCUMENTS;
        catch_up(group, runtime, &server.ticket, (name, count, count / change_count));
    }
}

/// From before a durable commit here until another process has acknowledged it as durable there: what
/// comes back is in it as well.
fn live_single_changes(runtime: &Runtime) {
    let (server, client) = (OtherProcess::start(0, 1, 1), Peer::start(runtime));
    let link = client.connect(&server.ticket);
    let gen_schema = entry_gen();
    write(&client.database, "entry", 1, 1);
    client.wait(&link, 1);
    let id = client.database.document_id("entry0");
    let outbox = client.database.outbox().expect("it is open");
    let mut disk = Disk::new();
    let change = |value: i64| {
        let start = Instant::now();
        let fields = [("value", value.into())];
        client.database.update(&gen_schema, &id, &fields).expect("the document is there");
        assert!(outbox.wait_until_stored(PATIENCE), "the change is acknowledged");
        start.elapsed()
    };
    let measured = (0..200u64).map(|number| {
        let latency = change(number as i64);
        client.wait(&link, number + 2);
        (latency, disk.sync())
    });
    let (acknowledged, disk_syncs) = measured.unzip();
    let (acknowledged, disk_sync) = (median(acknowledged), median(disk_syncs));
    println!(
        "sync_performance/between_processes/live_single_changes: p50 {}, durable on both sides and \
         acknowledged",
        in_disk_syncs(acknowledged, disk_sync)
    );
    client.close(link);
}

/// A database and, where it is on disk, its folder.
type Store = (Database, Option<TempDir>);

/// What a peer does with a frame that arrived: validating, joining, and in the store on disk also
/// making it durable.
fn merge_latency(criterion: &mut Criterion) {
    let source = Database::open_in_memory().expect("the system gives randomness");
    write(&source, "entry", 10_000, 1);
    let replication = source.replication("default").expect("the namespace is open");
    let frame = replication.frame_since(&VersionVector::new(), usize::MAX);
    let frame = frame.expect("memory can be read").expect("there is something to send");
    assert_eq!(frame.changes, 10_000);
    let mut group = group(criterion, "merge_latency");
    group.throughput(Throughput::Elements(frame.changes));
    let memory = || (Database::open_in_memory().expect("the system gives randomness"), None);
    let disk = || {
        let folder = tempfile::tempdir().expect("a folder for a store");
        (Database::open(folder.path()).expect("a new store"), Some(folder))
    };
    let stores: [(&str, &dyn Fn() -> Store); 2] =
        [("apply_frame_10000_in_memory", &memory), ("apply_frame_10000_durable", &disk)];
    for (name, open) in stores {
        group.bench_function(name, |bencher| {
            let apply = |store: Store| {
                let replication = store.0.replication("default").expect("the name is right");
                let applied = replication.apply_frame(&frame.bytes).expect("the frame is ours");
                assert_eq!(applied.changes, 10_000);
                store
            };
            bencher.iter_batched(open, apply, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Two stores that agree on 10,000 documents meet again; one has written a hundredth since.
fn delta_sync(criterion: &mut Criterion) {
    let runtime = runtime();
    let (server, client) = (Peer::start(&runtime), Peer::start(&runtime));
    write(&server.database, "held", 10_000, 1);
    let ticket = server.ticket();
    let mut change_count = 10_000;
    let mut meet = |new_count: usize| {
        write(&server.database, &format!("{change_count} "), new_count, 1);
        change_count += new_count as u64;
        let start = Instant::now();
        let link = client.connect(&ticket);
        client.wait(&link, change_count);
        let elapsed = start.elapsed();
        client.close(link);
        elapsed
    };
    meet(0);
    let mut group = group(criterion, "delta_sync");
    for (name, new_count) in [("nothing_new_of_10000", 0), ("1_percent_new_of_10000", 100)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| (0..iterations).map(|_| meet(new_count)).sum());
        });
    }
    group.finish();
}

/// What frames cost on the wire: a message with a frame of single-op changes and one with changes of
/// a hundred, compressed where that saves, and read again.
fn compression(criterion: &mut Criterion) {
    let mut group = group(criterion, "compression");
    for (name, change_operations) in [("single_op_changes", 1), ("changes_of_100", 100)] {
        let source = Database::open_in_memory().expect("the system gives randomness");
        write(&source, "entry", 10_000, change_operations);
        let replication = source.replication("default").expect("the namespace is open");
        let frame = replication.frame_since(&VersionVector::new(), usize::MAX);
        let frame = frame.expect("memory can be read").expect("there is something to send").bytes;
        let frame_bytes = frame.len();
        let message = Message::Frame(frame);
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        println!(
            "sync_performance/compression/{name}: {:.1} B an operation, {:.1} B on the wire",
            frame_bytes as f64 / 1e4,
            encoded.len() as f64 / 1e4
        );
        group.throughput(Throughput::Bytes(frame_bytes as u64));
        group.bench_function(format!("{name}/encode"), |bencher| {
            bencher.iter(|| {
                encoded.clear();
                message.encode(&mut encoded);
                encoded.len()
            });
        });
        group.bench_function(format!("{name}/decode"), |bencher| {
            bencher.iter(|| Message::decode(&encoded).expect("the bytes are ours"));
        });
    }
    group.finish();
}

/// A client that got everything from one server meets another one that has the same: nothing is sent
/// again. Prints what went over the wire.
fn deduplication(criterion: &mut Criterion) {
    const HELD_COUNT: usize = 10_000;
    let runtime = runtime();
    let (first, second) = (Peer::start(&runtime), Peer::start(&runtime));
    write(&first.database, "held", HELD_COUNT, 1);
    let link = second.connect(&first.ticket());
    second.wait(&link, HELD_COUNT as u64);
    second.close(link);
    let client = Peer::start(&runtime);
    let link = client.connect(&first.ticket());
    client.wait(&link, HELD_COUNT as u64);
    client.close(link);
    let ticket = second.ticket();
    let meet = || {
        let start = Instant::now();
        let link = client.connect(&ticket);
        let report = runtime.block_on(link.wait_until_synced(PATIENCE));
        let report = report.expect("the peers become equal");
        let elapsed = start.elapsed();
        client.close(link);
        assert_eq!((report.received_changes, report.sent_changes), (0, 0));
        (report.sent_bytes, elapsed)
    };
    let (sent_bytes, _) = meet();
    println!("sync_performance/deduplication: {sent_bytes} B sent, none of them changes");
    let mut group = group(criterion, "deduplication");
    group.bench_function("equal_10000_from_elsewhere", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| meet().1).sum());
    });
    group.finish();
}

/// A link that stays open: ten rounds of a hundred new changes, each until both sides are equal.
fn incremental_sync(criterion: &mut Criterion) {
    const ROUNDS: usize = 10;
    const ROUND_COUNT: usize = 100;
    let runtime = runtime();
    let (server, client) = (Peer::start(&runtime), Peer::start(&runtime));
    let link = client.connect(&server.ticket());
    let mut held = 0;
    let mut rounds = || {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            write(&client.database, &format!("{held} "), ROUND_COUNT, 1);
            held += ROUND_COUNT;
            client.wait(&link, held as u64);
        }
        start.elapsed()
    };
    let mut group = group(criterion, "incremental_sync");
    group.throughput(Throughput::Elements((ROUNDS * ROUND_COUNT) as u64));
    group.bench_function("10_rounds_of_100", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| rounds()).sum());
    });
    group.finish();
    client.close(link);
}

/// Ten megabytes that do not compress, from one store on disk to another.
fn bulk(criterion: &mut Criterion) {
    const DOCUMENTS: usize = 1_000;
    const DOCUMENT_BYTES: usize = 10_000;
    let runtime = runtime();
    let server = Peer::start(&runtime);
    let text = FieldSchema::new("text", 1, Strategy::Lww, ValueType::Bytes);
    let gen_schema = GenSchema::new("Blob", [text]);
    let fast = server.database.with_durability(Durability::Eventual);
    let mut noise = 1u64;
    for number in 0..DOCUMENTS {
        let mut next = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 33) as u8
        };
        let bytes: Vec<u8> = (0..DOCUMENT_BYTES).map(|_| next()).collect();
        let id = fast.document_id(&number.to_string());
        fast.create(&gen_schema, &id, &[("text", bytes.into())]).expect("the document is new");
    }
    fast.flush().expect("the disk takes the changes");
    let ticket = server.ticket();
    let run = || {
        let client = Peer::start(&runtime);
        let start = Instant::now();
        let link = client.connect(&ticket);
        client.wait(&link, DOCUMENTS as u64);
        let elapsed = start.elapsed();
        client.close(link);
        elapsed
    };
    let mut group = group(criterion, "throughput");
    group.throughput(Throughput::Bytes((DOCUMENTS * DOCUMENT_BYTES) as u64));
    group.bench_function("10_megabytes", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| run()).sum());
    });
    group.finish();
}

/// Eight clients with changes of their own meet at one hub, until everybody holds everything.
fn parallel_sync(criterion: &mut Criterion) {
    const CLIENT_COUNT: usize = 8;
    const OWN_COUNT: usize = 250;
    let total = (CLIENT_COUNT * OWN_COUNT) as u64;
    let runtime = runtime();
    let run = || {
        let hub = Peer::start(&runtime);
        let clients: Vec<Peer<'_>> = (0..CLIENT_COUNT).map(|_| Peer::start(&runtime)).collect();
        for (number, client) in clients.iter().enumerate() {
            write(&client.database, &format!("client {number} "), OWN_COUNT, 1);
        }
        let ticket = hub.ticket();
        let start = Instant::now();
        let links: Vec<Link> = clients.iter().map(|client| client.connect(&ticket)).collect();
        runtime.block_on(async {
            for link in &links {
                hold_everything(link, total).await;
            }
        });
        let elapsed = start.elapsed();
        let gen_schema = entry_gen();
        for client in &clients {
            let records = client.database.list(&gen_schema).expect("the store can be read");
            assert_eq!(records.len() as u64, total);
        }
        clients.iter().zip(links).for_each(|(client, link)| client.close(link));
        elapsed
    };
    let mut group = group(criterion, "parallel_sync");
    group.throughput(Throughput::Elements(total));
    group.bench_function("1_hub_8_clients", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| run()).sum());
    });
    group.finish();
}

/// A client is in step with the hub before the other clients' changes have come through it.
async fn hold_everything(link: &Link, change_count: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = link.wait_until_synced(PATIENCE).await.expect("the peers become equal");
        if report.vector.change_count() == change_count {
            return;
        }
        assert!(Instant::now() < deadline, "{} changes arrived", report.vector.change_count());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// From before a durable commit at one side until a subscriber at the other holds the event, which is
/// durable where it was written, and until it is durable on both sides.
fn visible_latency(criterion: &mut Criterion) {
    let runtime = runtime();
    let (server, client) = (Peer::start(&runtime), Peer::start(&runtime));
    let link = client.connect(&server.ticket());
    let gen_schema = entry_gen();
    write(&client.database, "entry", 1, 1);
    client.wait(&link, 1);
    let subscription = server.database.subscribe(Interest::Namespace).expect("it is open");
    let id = client.database.document_id("entry0");
    let (durable_sender, durable) = std::sync::mpsc::channel();
    let replication = server.database.replication("default").expect("the namespace is open");
    let _listener = replication.on_durable(move || {
        // The receiver has gone where the measuring is over.
        let _ = durable_sender.send(Instant::now());
    });
    let mut value = 0i64;
    let mut change = || {
        value += 1;
        durable.try_iter().for_each(drop);
        let start = Instant::now();
        let fields = [("value", value.into())];
        client.database.update(&gen_schema, &id, &fields).expect("the document is there");
        let event = subscription.next_within(PATIENCE).expect("the change arrives");
        let visible = start.elapsed();
        assert_eq!((event.documents[0].key.as_str(), event.lagged), ("entry0", 0));
        let durable = durable.recv_timeout(PATIENCE).expect("the change becomes durable");
        (visible, durable - start)
    };
    let mut disk = Disk::new();
    // In turn, since a disk that others use is fast at one moment and slow at the next.
    let measured = (2..202).map(|change_count| {
        let latency = change();
        // What the two sides tell each other behind a change is over before the next one.
        client.wait(&link, change_count);
        (latency, disk.sync())
    });
    let (latencies, disk_syncs): (Vec<_>, Vec<_>) = measured.unzip();
    let (visible, durable) = latencies.into_iter().unzip();
    let (visible, durable, disk_sync) = (median(visible), median(durable), median(disk_syncs));
    for (name, latency) in [("visible there", visible), ("durable on both sides", durable)] {
        let latency = in_disk_syncs(latency, disk_sync);
        println!("sync_performance/visible_latency: p50 {latency}, {name}");
    }
    let mut group = group(criterion, "visible_latency");
    group.bench_function("durable_both_sides", |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| change().1).sum());
    });
    group.finish();
    client.close(link);
}

/// A file of 4 KiB that is written over and over, to see what this disk needs to make that durable.
struct Disk {
    file: File,
    _folder: TempDir,
}

impl Disk {
    fn new() -> Disk {
        let folder = tempfile::tempdir().expect("a folder for a file");
        let file = File::create(folder.path().join("sync")).expect("the folder is ours");
        Disk { file, _folder: folder }
    }

    fn sync(&mut self) -> Duration {
        let start = Instant::now();
        let rewound = self.file.rewind();
        let written = rewound.and_then(|()| self.file.write_all(&[7; 4096]));
        written.and_then(|()| self.file.sync_data()).expect("the disk has room");
        start.elapsed()
    }
}

fn in_disk_syncs(latency: Duration, disk_sync: Duration) -> String {
    let (latency, disk_sync) = (latency.as_secs_f64() * 1e3, disk_sync.as_secs_f64() * 1e3);
    format!("{latency:.2} ms ({:.2} disk syncs of {disk_sync:.2} ms)", latency / disk_sync)
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

criterion_group!(
    benches,
    connecting,
    throughput,
    between_processes,
    merge_latency,
    bulk,
    delta_sync,
    incremental_sync,
    compression,
    deduplication,
    parallel_sync,
    visible_latency
);

fn main() {
    if let Some(folder) = std::env::var_os(SERVES) {
        return serve(Path::new(&folder));
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
