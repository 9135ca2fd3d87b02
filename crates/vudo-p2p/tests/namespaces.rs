//! Processes on a real network: two network namespaces of the kernel, joined by a virtual cable on
//! which packets take 50 ms and 2 in 100 are lost. And three of them, of which two reach a relay in the
//! third, and not each other.
//!
//! And processes on loopback, of which the system calls are looked at.
//!
//! The processes are this very program, run again with a role in its environment. They take one
//! command a line and answer with one line that begins with `> `.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
use vudo_p2p::{Config, Node, Ticket};
use vudo_state::Database;

const ROLE: &str = "VUDO_NAMESPACES_ROLE";
const STORE: &str = "VUDO_NAMESPACES_STORE";
const PATIENCE: Duration = Duration::from_secs(20);
const HEALING_LIMIT: Duration = Duration::from_secs(5);
/// Longer than a silent connection is kept, so that the links have to dial again.
const CUT: Duration = Duration::from_secs(7);

fn task() -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Task", [title])
}

/// Not a test of its own: what the processes of the other test run.
#[test]
fn process_of_the_others() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let store = std::env::var(STORE).expect("a folder for the store");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(address) = role.strip_prefix("relay ") {
        runtime.block_on(relay_at(address.parse().unwrap()));
        return;
    }
    let database = Database::open(store).unwrap();
    runtime.block_on(async {
        let (node, _link) = match role.strip_prefix("connect ") {
            Some(ticket) => {
                let ticket: Ticket = ticket.parse().unwrap();
                let node = Node::spawn(&database, Config::default()).await.unwrap();
                let link = node.connect(&ticket).await.unwrap();
                println!("> connected");
                (node, Some(link))
            }
            None => {
                let mut words = role.split(' ');
                let address: SocketAddr = words.next().unwrap().parse().unwrap();
                let relays = words.map(str::to_owned).collect();
                let config = Config { quic: Some(address), websocket: Some(address), relays };
                let node = Node::spawn(&database, config).await.unwrap();
                println!("> {}", node.share("default").unwrap());
                (node, None)
            }
        };
        let commands = database.clone();
        tokio::task::spawn_blocking(move || obey(&commands)).await.unwrap();
        node.shutdown().await;
    });
}

/// Runs a relay until nobody has commands any more.
async fn relay_at(address: SocketAddr) {
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(address));
    let relay = Server::spawn(config).await.unwrap();
    println!("> serving");
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
    assert_eq!(ended.await.unwrap(), 0, "a relay takes no commands");
    relay.shutdown().await.unwrap();
}

fn obey(database: &Database) {
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("write", key)) => {
                let fields = [("title", key.into())];
                database.create(&task(), &database.document_id(key), &fields).unwrap();
                println!("> written");
            }
            _ => {
                let (vector, fingerprint) =
                    database.replication("default").unwrap().fingerprint().unwrap();
                println!("> {} {fingerprint}", vector.change_count());
            }
        }
    }
}

struct Process {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    _store: tempfile::TempDir,
}

impl Process {
    /// Starts a process in a namespace; gives its first answer too.
    fn start(namespace: &str, role: &str) -> (Process, String) {
        Process::start_under(&["ip", "netns", "exec", namespace], role)
    }

    /// Starts a process under another program, which runs it.
    fn start_under(runner: &[&str], role: &str) -> (Process, String) {
        let store = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(runner[0])
            .args(&runner[1..])
            .arg(program)
            .args(["process_of_the_others", "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(STORE, store.path().join("store"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Process { child, commands, answers, _store: store };
        let answer = process.answer();
        (process, answer)
    }

    fn answer(&mut self) -> String {
        loop {
            let line = self.answers.next().expect("the process answers").unwrap();
            // The test runner's own words stand on the same stream, and may share the line.
            if let Some((_, answer)) = line.split_once("> ") {
                return answer.to_owned();
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        let mut commands = self.commands.as_ref().unwrap();
        writeln!(commands, "{command}").unwrap();
        self.answer()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without commands it ends by itself, in good order.
        drop(self.commands.take());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two namespaces and the cable between them, until this is dropped.
struct Cable {
    number: u8,
    names: [String; 2],
}

impl Cable {
    /// `None` where this process must not do that, or the machine cannot.
    fn new(number: u8) -> Option<Cable> {
        let names = ["a", "b"].map(|side| format!("vudo-{}-{number}{side}", std::process::id()));
        let cable = Cable { number, names };
        let [a, b] = &cable.names;
        let is_made = add_host(a)
            && add_host(b)
            && join(["cable"; 2], [a, b], [1, 2].map(|host| cable.address(host)));
        is_made.then_some(cable)
    }

    fn address(&self, host: u8) -> String {
        format!("10.213.{}.{host}", self.number)
    }

    /// Makes packets late and loses some; `false` where the kernel cannot.
    fn spoil(&self) -> bool {
        self.names.iter().all(|name| spoil(name, "cable"))
    }

    /// From now on nothing arrives, and nobody is told: packets go to an address that nobody has.
    fn cut(&self) {
        self.change_neighbours(&NOBODY);
    }

    fn heal(&self) {
        self.change_neighbours(&ANYBODY);
    }

    fn change_neighbours(&self, to: &[&str]) {
        for (name, other) in self.names.iter().zip([2, 1]) {
            change_neighbour(name, "cable", &self.address(other), to);
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            run("ip", &["netns", "del", name]);
        }
    }
}

/// Two hosts that reach a third one, each over a cable of its own, and not each other.
struct Star {
    names: [String; 3],
}

impl Star {
    /// Where both find the third host.
    const HUB: &str = "10.213.30.1";
    const DEVICES: [&str; 2] = ["left", "right"];

    /// `None` where this process must not do that, or the machine cannot.
    fn new() -> Option<Star> {
        let star =
            Star { names: ["a", "b", "hub"].map(|at| format!("vudo-{}-{at}", std::process::id())) };
        let hub = &star.names[2];
        let is_made = star.names.iter().all(|name| add_host(name))
            && run("ip", &["-n", hub, "addr", "add", Star::HUB, "dev", "lo"])
            && (0..2).all(|side| {
                let (name, device) = (&star.names[side], Star::DEVICES[side]);
                let [own, far] = Star::addresses(side);
                join(["cable", device], [name, hub], [own, far.clone()])
                    && run("ip", &["-n", name, "route", "add", Star::HUB, "via", &far])
            });
        is_made.then_some(star)
    }

    /// Both ends of a host's cable.
    fn addresses(side: usize) -> [String; 2] {
        [1, 2].map(|host| format!("10.213.{}.{host}", 31 + side))
    }

    fn spoil(&self) -> bool {
        (0..2).all(|side| {
            spoil(&self.names[side], "cable") && spoil(&self.names[2], Star::DEVICES[side])
        })
    }

    /// [`Cable::cut`] of the second host's cable.
    fn cut(&self) {
        self.change_neighbours(&NOBODY);
    }

    fn heal(&self) {
        self.change_neighbours(&ANYBODY);
    }

    fn change_neighbours(&self, to: &[&str]) {
        let [own, far] = Star::addresses(1);
        change_neighbour(&self.names[1], "cable", &far, to);
        change_neighbour(&self.names[2], Star::DEVICES[1], &own, to);
    }
}

impl Drop for Star {
    fn drop(&mut self) {
        for name in &self.names {
            run("ip", &["netns", "del", name]);
        }
    }
}

/// What has packets go nowhere, and what has them find their way again.
const NOBODY: [&str; 4] = ["lladdr", "02:00:00:00:00:99", "nud", "permanent"];
const ANYBODY: [&str; 2] = ["nud", "none"];

fn add_host(name: &str) -> bool {
    run("ip", &["netns", "add", name]) && run("ip", &["-n", name, "link", "set", "lo", "up"])
}

/// Lays a cable between two hosts.
fn join(devices: [&str; 2], names: [&str; 2], addresses: [String; 2]) -> bool {
    let [device, far_device] = devices;
    let [name, far_name] = names;
    let near = ["link", "add", device, "netns", name, "type", "veth"];
    let far = ["peer", "name", far_device, "netns", far_name];
    run("ip", &[&near[..], &far[..]].concat())
        && (0..2).all(|end| {
            let (name, device, address) =
                (names[end], devices[end], format!("{}/24", addresses[end]));
            run("ip", &["-n", name, "addr", "add", &address, "dev", device])
                && run("ip", &["-n", name, "link", "set", device, "up"])
        })
}

/// Makes packets late and loses some; `false` where the kernel cannot.
fn spoil(name: &str, device: &str) -> bool {
    let how = ["netem", "delay", "50ms", "loss", "2%"];
    run("tc", &[&["-n", name, "qdisc", "add", "dev", device, "root"][..], &how].concat())
}

fn change_neighbour(name: &str, device: &str, neighbour: &str, to: &[&str]) {
    let arguments = ["-n", name, "neigh", "replace", neighbour, "dev", device];
    assert!(run("ip", &[&arguments[..], to].concat()));
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Waits until both hold so many changes and are equal.
fn converge(processes: &mut [&mut Process; 2], change_count: usize, limit: Duration) -> Duration {
    let start = Instant::now();
    loop {
        let [one, other] = [processes[0].ask("state"), processes[1].ask("state")];
        if one == other && one.starts_with(&format!("{change_count} ")) {
            return start.elapsed();
        }
        assert!(start.elapsed() < limit, "not equal after {limit:?}: {one}, {other}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn converges(number: u8, link: &str) {
    let test = format!("processes_converge_over_{link}_on_a_bad_network_and_after_a_cut");
    let Some(cable) = Cable::new(number) else {
        vudo_testkit::skip::no_privilege(&test, "to make network namespaces");
        return;
    };
    if !cable.spoil() {
        let test = format!("the late and lost packets of {test}");
        vudo_testkit::skip::no_privilege(&test, "to use netem, or a kernel that has it");
    }
    let (mut server, ticket) = Process::start(&cable.names[0], &format!("10.213.{number}.1:4433"));
    let mut ticket: Ticket = ticket.parse().unwrap();
    match link {
        "quic" => ticket.urls.clear(),
        _ => ticket.addresses.clear(),
    }
    for key in 0..50 {
        server.ask(&format!("write before {key}"));
    }
    let (mut client, _) = Process::start(&cable.names[1], &format!("connect {ticket}"));
    let first = converge(&mut [&mut server, &mut client], 50, PATIENCE);

    cable.cut();
    for key in 0..20 {
        server.ask(&format!("write cut server {key}"));
        client.ask(&format!("write cut client {key}"));
    }
    std::thread::sleep(CUT);
    assert!(client.ask("state").starts_with("70 "), "nothing gets through a cut cable");
    cable.heal();
    let healed = converge(&mut [&mut server, &mut client], 90, HEALING_LIMIT);
    println!("{link}: equal after {first:.2?}, and {healed:.2?} after the cable was whole again");
}

#[test]
fn processes_converge_over_quic_on_a_bad_network_and_after_a_cut() {
    converges(1, "quic");
}

#[test]
fn processes_converge_over_websocket_on_a_bad_network_and_after_a_cut() {
    converges(2, "websocket");
}

#[test]
fn processes_that_do_not_reach_each_other_converge_over_a_relay_and_after_a_cut() {
    let test = "processes_that_do_not_reach_each_other_converge_over_a_relay_and_after_a_cut";
    let Some(star) = Star::new() else {
        vudo_testkit::skip::no_privilege(test, "to make network namespaces");
        return;
    };
    if !star.spoil() {
        let test = format!("the late and lost packets of {test}");
        vudo_testkit::skip::no_privilege(&test, "to use netem, or a kernel that has it");
    }
    let [a, b, hub] = &star.names;
    let [address, _] = Star::addresses(0);
    assert!(run("ip", &["-n", b, "route", "get", Star::HUB]));
    assert!(!run("ip", &["-n", b, "route", "get", &address]), "there is another way");

    let (relay, _) = Process::start(hub, "relay 0.0.0.0:3340");
    let role = format!("{address}:4433 http://{}:3340", Star::HUB);
    let (mut server, ticket) = Process::start(a, &role);
    let mut ticket: Ticket = ticket.parse().unwrap();
    assert!(!ticket.addresses.is_empty() && ticket.relays.len() == 1, "{ticket:?}");
    ticket.urls.clear();
    for key in 0..50 {
        server.ask(&format!("write before {key}"));
    }
    let (mut client, _) = Process::start(b, &format!("connect {ticket}"));
    let first = converge(&mut [&mut server, &mut client], 50, PATIENCE);

    star.cut();
    for key in 0..20 {
        server.ask(&format!("write cut server {key}"));
        client.ask(&format!("write cut client {key}"));
    }
    std::thread::sleep(CUT);
    assert!(client.ask("state").starts_with("70 "), "nothing gets through a cut cable");
    star.heal();
    // The connection to the relay is TCP, which waits as long again before it sends again.
    let healed = converge(&mut [&mut server, &mut client], 90, PATIENCE);
    println!("relay: equal after {first:.2?}, and {healed:.2?} after the cable was whole again");
    drop(relay);
}

/// Starts a process on loopback whose system calls go to a file.
fn traced(trace: &Path, role: &str) -> (Process, String) {
    const CALLS: &str =
        "trace=connect,sendmsg,sendmmsg,sendto,recvmsg,recvmmsg,recvfrom,fdatasync,fsync";
    let trace = trace.to_str().expect("the folder has a name in Unicode");
    Process::start_under(&["strace", "-f", "-qq", "-e", CALLS, "-o", trace], role)
}

/// How many of the calls of a trace have one of these names, and this in their arguments.
fn count(trace: &str, names: &[&str], argument: &str) -> usize {
    let is_one = |line: &&str| {
        names.iter().any(|name| line.contains(&format!(" {name}("))) && line.contains(argument)
    };
    trace.lines().filter(is_one).count()
}

/// Whether processes can be traced here; where not, this test is skipped.
fn can_trace(test: &str) -> bool {
    if !run("strace", &["--version"]) {
        vudo_testkit::skip::missing_program(test, "strace", "apt-get install strace");
        return false;
    }
    let can_trace = run("strace", &["-o", "/dev/null", "true"]);
    if !can_trace {
        vudo_testkit::skip::no_privilege(test, "to trace processes");
    }
    can_trace
}

/// Every write that was answered has been synced where it was written, and has gone to the other one and
/// been synced there: the kernel says so, and not the program.
fn shows_in_system_calls(link: &str, sends: &[&str], receives: &[&str], argument: &str) {
    if !can_trace(&format!("the_kernel_sees_what_goes_over_{link}_and_the_syncs")) {
        return;
    }
    const WRITES: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let traces = ["server", "client"].map(|side| folder.path().join(side));
    let (mut server, ticket) = traced(&traces[0], "127.0.0.1:0");
    let mut ticket: Ticket = ticket.parse().unwrap();
    match link {
        "quic" => ticket.urls.clear(),
        _ => ticket.addresses.clear(),
    }
    let (mut client, _) = traced(&traces[1], &format!("connect {ticket}"));
    for number in 1..=WRITES {
        server.ask(&format!("write {number}"));
        // One after the other, so that none shares the sync of another.
        converge(&mut [&mut server, &mut client], number, PATIENCE);
    }
    drop((server, client));
    let [server, client] = traces.map(|trace| std::fs::read_to_string(trace).unwrap());
    for (trace, calls) in [(&server, sends), (&client, receives)] {
        let seen = count(trace, calls, argument);
        assert!(seen >= WRITES, "{seen} of {calls:?} with {argument} in {trace}");
        let syncs = count(trace, &["fdatasync", "fsync"], "");
        assert!(syncs >= WRITES, "{syncs} syncs in {trace}");
    }
}

#[test]
fn the_kernel_sees_what_goes_over_quic_and_the_syncs() {
    let (sends, receives) = (["sendmsg", "sendmmsg", "sendto"], ["recvmsg", "recvmmsg"]);
    shows_in_system_calls("quic", &sends, &receives, "127.0.0.1");
}

#[test]
fn the_kernel_sees_what_goes_over_websocket_and_the_syncs() {
    let (sends, receives) = (["sendto", "sendmsg"], ["recvfrom", "recvmsg"]);
    shows_in_system_calls("websocket", &sends, &receives, "");
}

/// The calls of a trace that send something over a network, or connect to somebody.
fn sends(trace: &str) -> Vec<&str> {
    let calls = ["connect(", "sendmsg(", "sendmmsg(", "sendto("];
    // A UDP socket is connected to this one, so that the system says which of its own addresses it would
    // use for others: nothing is sent for that, and nothing ever to there.
    let asks_the_system = "inet_addr(\"10.254.254.254\")";
    let is_one = |line: &&str| {
        line.contains("sa_family=AF_INET")
            && calls.iter().any(|call| line.contains(call))
            && !(line.contains("connect(") && line.contains(asks_the_system))
    };
    trace.lines().filter(is_one).collect()
}

#[test]
fn the_kernel_sees_nothing_go_to_anybody_from_a_node_that_uses_no_relay() {
    if !can_trace("the_kernel_sees_nothing_go_to_anybody_from_a_node_that_uses_no_relay") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let traces = ["alone", "client", "with_a_relay"].map(|node| folder.path().join(node));
    let (alone, _) = traced(&traces[0], "0.0.0.0:0");
    // Nobody is there.
    let (with_a_relay, _) = traced(&traces[2], "0.0.0.0:0 http://127.0.0.1:9");

    let (server, ticket) = Process::start_under(&["env"], "127.0.0.1:0");
    let mut ticket: Ticket = ticket.parse().unwrap();
    ticket.urls.clear();
    let [address] = ticket.addresses[..] else { panic!("it is on one interface: {ticket:?}") };
    let (client, _) = traced(&traces[1], &format!("connect {ticket}"));
    std::thread::sleep(Duration::from_secs(2));
    drop((alone, with_a_relay, client, server));

    let [alone, client, with_a_relay] = traces.map(|trace| std::fs::read_to_string(trace).unwrap());
    assert!(!sends(&with_a_relay).is_empty(), "this is how it would be seen: {with_a_relay}");
    assert!(sends(&alone).is_empty(), "{:?}", sends(&alone));
    let to_the_peer = format!("htons({})", address.port());
    assert!(!sends(&client).is_empty(), "{client}");
    for call in sends(&client) {
        assert!(call.contains(&to_the_peer), "it talks to somebody else: {call}");
    }
}
