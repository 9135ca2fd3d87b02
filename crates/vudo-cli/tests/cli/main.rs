//! The command line as a user meets it: every call is a process of its own.

mod doctor;
mod invitations;
mod relay;
mod sync;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TASK: &str = "gen Task {
    @crdt(immutable)  has id: String
    @crdt(lww)        has title: String
    @crdt(lww)        has size: u8
    @crdt(pn_counter) has votes: i64
}
";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        place.write("task.dol", TASK);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vudo"));
        command.current_dir(self.folder.path()).env_remove("VUDO_STORE").args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a call that succeeds.
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a call that cannot do what was asked.
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        stderr(&output)
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn documents_are_set_got_listed_and_deleted() {
    let place = Place::new();
    place.succeed(&["init", "task.dol"]);
    place.succeed(&["set", "Task/milk", "title=Buy milk", "votes+=3"]);
    place.succeed(&["set", "Task/milk", "votes-=1"]);
    assert_eq!(place.succeed(&["get", "Task/milk"]), "title = Buy milk\nvotes = 2\n");
    let json: serde_json::Value =
        serde_json::from_str(&place.succeed(&["get", "Task/milk", "--json"])).unwrap();
    assert_eq!(json["fields"]["votes"], 2);
    assert!(place.succeed(&["list", "Task"]).starts_with("milk  "));
    place.succeed(&["delete", "Task/milk"]);
    assert!(place.fail(&["get", "Task/milk"]).contains("there is no Task/milk"));
    assert!(place.fail(&["set", "Task/a", "titel=x"]).contains("it has id, title, size, votes"));
    assert!(place.fail(&["set", "Task/a", "votes=1"]).contains("votes+=1"));
    assert!(place.fail(&["set", "Task/a", "size=300"]).contains("'300' is no u8"));
    assert!(place.fail(&["get", "Tusk/a"]).contains("the store knows Task"));
    assert!(place.fail(&["--store", "absent", "list", "Task"]).contains("vudo init"));
    assert_eq!(place.run(&["get", "milk"]).status.code(), Some(2));
    let stats = place.succeed(&["stats", "--json"]);
    assert!(stats.contains("\"changes\":3"), "{stats}");

    place.write("file.dol", "gen File { has token: Uuid has photo: Bytes has at: Timestamp }");
    place.succeed(&["init", "file.dol"]);
    let token = "00112233-4455-6677-8899-aabbccddeeff";
    place.succeed(&["set", "File/a", &format!("token={token}"), "photo=00ff", "at=1700000000000"]);
    let shown = place.succeed(&["get", "File/a"]);
    let digits = token.replace('-', "");
    assert_eq!(shown, format!("token = {digits}\nphoto = 00ff\nat = 1700000000000\n"));
    assert!(place.fail(&["set", "File/a", "token=0011"]).contains("16 bytes in hexadecimal"));
    assert!(place.fail(&["set", "File/a", "at=noon"]).contains("milliseconds since 1970"));
}

#[test]
fn three_errors_are_reported_and_nothing_is_built() {
    let place = Place::new();
    let fields = "@crdt(pn_counter) has a: String\n has a: i64\n @crdt(lwv) has c: i64";
    place.write("bad.dol", &format!("gen A {{\n {fields}\n}}\n"));
    let errors = place.fail(&["build", "bad.dol"]);
    assert_eq!(errors.matches("] Error:").count(), 3, "{errors}");
    assert!(!place.path("app.wasm").exists());
    let json = place.run(&["check", "bad.dol", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["diagnostics"].as_array().unwrap().len(), 3);
    assert_eq!(json["diagnostics"][0]["line"], 2);
}

#[test]
fn a_build_writes_the_module_its_glue_and_the_lock_file() {
    let place = Place::new();
    let said = place.succeed(&["build", "task.dol", "-o", "out.wasm", "--rust", "task.rs"]);
    assert!(said.contains("gzipped"), "{said}");
    for name in ["out.wasm", "out.js", "out.d.ts", "task.rs", "task.dol.lock"] {
        assert!(place.path(name).exists(), "{name}");
    }
    let javascript = std::fs::read_to_string(place.path("out.js")).unwrap();
    assert!(javascript.contains("\"./out.wasm\""), "the module is found under its own name");
    let again = std::fs::read(place.path("out.wasm")).unwrap();
    place.succeed(&["build", "task.dol", "-o", "out.wasm"]);
    assert_eq!(std::fs::read(place.path("out.wasm")).unwrap(), again, "building is repeatable");
}

#[test]
fn bad_rows_are_named_and_nothing_is_half_written() {
    let place = Place::new();
    place.succeed(&["init", "task.dol"]);
    // Line 3 lacks a column, 4 has a wrong type, 5 repeats a key, and the last is cut off.
    let rows = "id,title,size\na,first,1\nb,second\nc,third,huge\na,again,2\nd,fine,3\ne,\"cut";
    place.write("tasks.csv", rows);
    let import = ["import", "tasks.csv", "--gen", "Task", "--key", "id"];
    let errors = place.fail(&import);
    for line in ["tasks.csv:3:", "tasks.csv:4:", "tasks.csv:5:", "tasks.csv:7:"] {
        assert!(errors.contains(line), "{line} is missing in {errors}");
    }
    assert_eq!(place.succeed(&["list", "Task"]), "", "nothing was imported");
    let skipping: Vec<&str> = import.iter().copied().chain(["--skip-bad"]).collect();
    let said = place.succeed(&skipping);
    assert!(said.contains("2 documents imported, 4 rows left out"), "{said}");
    assert_eq!(place.succeed(&["list", "Task"]).lines().count(), 2);
    assert!(place.fail(&import).contains("exists already"));

    let lines = "{\"id\":\"x\",\"size\":4}\n{\"id\":\"y\",\"size\":\"big\"}\n{\"id\":\n";
    place.write("tasks.jsonl", lines);
    let errors = place.fail(&["import", "tasks.jsonl", "--gen", "Task", "--key", "id"]);
    assert!(errors.contains("tasks.jsonl:2:") && errors.contains("tasks.jsonl:3:"), "{errors}");
}

/// A `vudo serve` that ends with the test.
struct Server {
    child: Child,
    ticket: String,
}

impl Server {
    fn start(place: &Place, store: &str) -> Server {
        Server::start_with(place, store, &[])
    }

    fn start_with(place: &Place, store: &str, more: &[&str]) -> Server {
        let mut child = place
            .command(&["--store", store, "serve", "--bind", "127.0.0.1:0"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ticket = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ticket).unwrap();
        Server { child, ticket: ticket.trim().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_copied_store_syncs_with_its_original_as_a_second_replica() {
    let place = Place::new();
    place.succeed(&["--store", "original", "init", "task.dol"]);
    place.succeed(&["--store", "original", "set", "Task/milk", "votes+=1"]);
    let mut copy = Command::new("cp");
    let copied = copy.args(["-r", "original", "copy"]).current_dir(&place.folder).status();
    assert!(copied.unwrap().success());
    for store in ["original", "copy"] {
        place.succeed(&["--store", store, "set", "Task/milk", "votes+=10"]);
        place.succeed(&["--store", store, "set", &format!("Task/{store}"), "title=own"]);
    }
    let server = Server::start(&place, "original");
    place.succeed(&["--store", "copy", "sync", &server.ticket]);
    drop(server);
    for store in ["original", "copy"] {
        assert_eq!(place.succeed(&["--store", store, "list", "Task"]).lines().count(), 3);
        let milk = place.succeed(&["--store", store, "get", "Task/milk"]);
        assert!(milk.contains("votes = 21"), "{milk}");
        let stats = place.succeed(&["--store", store, "stats", "--json"]);
        assert!(stats.contains("\"replicas\":2"), "{stats}");
    }
}

#[test]
fn two_stores_sync_by_ticket_and_the_ticket_stays_good() {
    let place = Place::new();
    for (store, key) in [("left", "milk"), ("right", "bread")] {
        place.succeed(&["--store", store, "init", "task.dol"]);
        place.succeed(&["--store", store, "set", &format!("Task/{key}"), "votes+=1"]);
    }
    let first = Server::start(&place, "left");
    let said = place.succeed(&["--store", "right", "sync", &first.ticket]);
    assert!(said.contains("both stores are equal"), "{said}");
    assert_eq!(place.succeed(&["--store", "right", "list", "Task"]).lines().count(), 2);
    drop(first);
    assert_eq!(place.succeed(&["--store", "left", "list", "Task"]).lines().count(), 2);
}

#[test]
fn stores_sync_over_websocket_alone_and_the_doctor_sees_it() {
    let place = Place::new();
    for store in ["left", "right"] {
        place.succeed(&["--store", store, "init", "task.dol"]);
    }
    place.succeed(&["--store", "left", "set", "Task/milk", "votes+=1"]);
    place.succeed(&["--store", "right", "set", "Task/bread", "votes+=1"]);
    let waiting = place.succeed(&["--store", "right", "peers"]);
    assert!(waiting.contains("1 changes wait"), "{waiting}");
    let server = Server::start_with(&place, "left", &["--websocket", "127.0.0.1:0"]);
    let ticket: vudo_p2p::Ticket = server.ticket.parse().unwrap();
    let ticket = vudo_p2p::Ticket { addresses: Vec::new(), ..ticket };
    let doctor = place.succeed(&["--store", "right", "doctor", &ticket.to_string()]);
    assert!(doctor.contains("ok     WebSocket to ws://127.0.0.1:"), "{doctor}");
    assert!(doctor.contains("both stores are equal"), "{doctor}");
    assert_eq!(place.succeed(&["--store", "right", "list", "Task"]).lines().count(), 2);
    let left = place.succeed(&["--store", "right", "peers"]);
    let adopted = place.succeed(&["--store", "right", "adopt"]);
    assert!(adopted.starts_with("0 changes adopted"), "{adopted}");
    drop(server);
    let key = place.succeed(&["--store", "left", "whoami"]);
    let acknowledged = format!("{}: 1 changes acknowledged, 0 waiting", key.trim());
    assert!(left.contains(&acknowledged), "{left}");
    let server = Server::start_with(&place, "left", &["--websocket", "127.0.0.1:0"]);
    let ticket: vudo_p2p::Ticket = server.ticket.parse().unwrap();
    let ticket = vudo_p2p::Ticket { addresses: Vec::new(), ..ticket };
    let forged = vudo_p2p::Ticket { access: vudo_p2p::proto::Access::Secret([7; 32]), ..ticket };
    let output = place.run(&["--store", "right", "--json", "doctor", &forged.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    let told = said.lines().any(|line| line.contains("\"ok\":false") && line.contains("secret"));
    assert!(told, "{said}");
}

/// A schema that takes a number for something else stops nothing, and the doctor says what differs.
#[test]
fn the_doctor_names_what_two_stores_have_defined_in_different_ways() {
    let place = Place::new();
    let other = TASK.replace("pn_counter", "lww").replace("title", "name");
    place.write("other.dol", &format!("{other}gen Note {{ has text: String }}"));
    place.succeed(&["--store", "left", "init", "task.dol"]);
    place.succeed(&["--store", "right", "init", "other.dol"]);
    place.succeed(&["--store", "left", "set", "Task/milk", "votes+=1"]);
    let server = Server::start_with(&place, "left", &[]);
    let doctor = place.succeed(&["--store", "right", "doctor", &server.ticket]);
    let line = |part: &str| doctor.lines().find(|line| line.contains(part)).unwrap_or(&doctor);
    assert!(line("both stores are equal").starts_with("ok "), "{doctor}");
    assert!(line("Gen Task").starts_with("WARNING"), "{doctor}");
    for said in ["'name: lww String' here and 'title: lww String'", "'votes: pn_counter i64' at"] {
        assert!(line("Gen Task").contains(said), "{doctor}");
    }
    assert!(doctor.contains("has not defined Note"), "{doctor}");
}

/// Founding, inviting, writing as far as that goes, and revoking, through a store that is served.
#[test]
fn a_namespace_with_owners_lets_in_whom_they_invite() {
    let place = Place::new();
    for store in ["owner", "member"] {
        place.succeed(&["--store", store, "init", "task.dol"]);
    }
    let owner = |arguments: &[&str]| {
        let context = ["--store", "owner", "--namespace", "team"];
        place.succeed(&[&context[..], arguments].concat())
    };
    let name = place.succeed(&["--store", "owner", "found", "team", "--recovery", "recovery.key"]);
    assert!(name.starts_with("team@"), "{name}");
    assert!(owner(&["whoami"]).contains("owner 2 of 2"));
    owner(&["set", "Task/milk", "title=Buy milk"]);
    let key = place.succeed(&["--store", "member", "whoami"]);
    let key = key.trim();
    let early = owner(&["invite", key, "--write", "Task/bread"]);
    assert!(early.contains("vudo serve"), "{early}");

    let server = Server::start_with(&place, "owner", &["--namespace", "team"]);
    let ticket = owner(&["invite", key]);
    assert!(ticket.starts_with("vudo3"), "{ticket}");
    let sync = |ticket: &str| place.run(&["--store", "member", "sync", ticket.trim()]);
    assert!(sync(&ticket).status.success());
    let member = ["--store", "member", "--namespace", "team"];
    let as_member = |arguments: &[&'static str]| [&member[..], arguments].concat();
    place.succeed(&as_member(&["set", "Task/bread", "title=Bake bread"]));
    let refused = place.fail(&as_member(&["set", "Task/milk", "title=Drink milk"]));
    assert!(refused.contains("covers Task/bread*"), "{refused}");
    assert!(sync(&ticket).status.success());
    assert_eq!(owner(&["list", "Task"]).lines().count(), 2);

    let json: serde_json::Value = serde_json::from_str(&owner(&["revoke", key, "--json"])).unwrap();
    assert_eq!(json["subject"], key);
    let refused = sync(&ticket);
    assert!(stderr(&refused).contains("ask for a fresh ticket"), "{}", stderr(&refused));
    assert!(owner(&["peers"]).lines().any(|line| line.contains(key) && line.contains("revoked")));
    let again = place.run(&["--store", "owner", "--namespace", "team", "invite", key]);
    assert!(stderr(&again).contains("for good"), "{}", stderr(&again));
    drop(server);

    let compacted = owner(&["compact"]);
    assert!(!compacted.contains("stays as it is"), "{compacted}");
    let left = place.succeed(&as_member(&["compact"]));
    assert!(left.contains("stays as it is: only its owners can compact it"), "{left}");

    // The recovery key is before the store's own, and not the other way round.
    let own = owner(&["whoami", "--json"]);
    let own: serde_json::Value = serde_json::from_str(&own).unwrap();
    let own = own["replica"].as_str().unwrap();
    let recovery = owner(&["whoami", "--key", "recovery.key"]);
    let refused =
        place.fail(&["--store", "owner", "--namespace", "team", "revoke", recovery.trim()]);
    assert!(refused.contains("may not revoke"), "{refused}");
    owner(&["revoke", own, "--key", "recovery.key"]);
    let refused = place.fail(&["--store", "owner", "--namespace", "team", "delete", "Task/milk"]);
    assert!(refused.contains("revoked"), "{refused}");
}

#[test]
fn a_link_that_cannot_be_is_refused_within_seconds_and_says_why() {
    let place = Place::new();
    place.succeed(&["init", "task.dol"]);
    let start = Instant::now();
    let garbage = place.fail(&["--store", "b", "sync", "vudo3garbage"]);
    assert!(garbage.contains("no ticket"), "{garbage}");
    let server = Server::start(&place, "vudo-store");
    let ticket: vudo_p2p::Ticket = server.ticket.parse().unwrap();
    let forged = vudo_p2p::Ticket { access: vudo_p2p::proto::Access::Secret([7; 32]), ..ticket };
    let refused = place.fail(&["--store", "b", "sync", &forged.to_string()]);
    assert!(refused.contains("secret"), "{refused}");
    let gone = server.ticket.clone();
    drop(server);
    let unreachable = place.fail(&["--store", "b", "sync", &gone]);
    assert!(unreachable.contains("did not answer"), "{unreachable}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn fields_are_described_and_codes_explained() {
    let place = Place::new();
    let described = place.succeed(&["describe", "Task.votes", "task.dol"]);
    assert!(described.contains("both read 5"), "{described}");
    assert!(place.fail(&["describe", "Task.vote", "task.dol"]).contains("it has id, title, size"));
    assert!(place.fail(&["describe", "title", "task.dol"]).contains("as in Task.title"));
    place.succeed(&["init", "task.dol"]);
    assert!(place.succeed(&["describe", "Task.title"]).contains("The latest write wins"));
    let explained = place.succeed(&["explain", "e0301"]);
    assert!(explained.contains("@crdt(lwv)"), "{explained}");
    assert!(place.succeed(&["explain"]).lines().count() > 20);
    assert!(place.fail(&["explain", "E9999"]).contains("lists all"));
}

/// A network namespace of its own, whose loopback is down: every packet is refused.
#[test]
fn the_demo_says_so_where_udp_is_blocked() {
    let isolated = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", program]);
        command
    };
    if !isolated("true").status().is_ok_and(|status| status.success()) {
        let test = "the_demo_says_so_where_udp_is_blocked";
        vudo_testkit::skip::no_privilege(test, "to make a network namespace");
        return;
    }
    let mut demo = isolated(env!("CARGO_BIN_EXE_vudo"));
    let output = demo.args(["demo", "--skip-budgets"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Is UDP on loopback allowed?"), "{}", stderr(&output));
}

#[test]
fn the_demo_runs() {
    let place = Place::new();
    let output =
        place.command(&["demo", "--skip-budgets"]).env_remove("VUDO_DATA").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", stderr(&output));
    assert!(said.contains("visits 2 + 3 = 5"), "{said}");
    assert!(Path::new(place.folder.path()).exists());
}

#[cfg(unix)]
#[test]
fn commands_work_while_another_process_serves_the_store() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    let place = Place::new();
    place.succeed(&["--store", "held", "init", "task.dol"]);
    place.succeed(&["--store", "held", "set", "Task/before", "votes+=1"]);
    let server = Server::start(&place, "held");
    fn on_store<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--store", "held"], arguments].concat()
    }
    place.succeed(&on_store(&["set", "Task/milk", "title=Buy milk", "votes+=3"]));
    assert_eq!(place.succeed(&on_store(&["get", "Task/milk"])), "title = Buy milk\nvotes = 3\n");
    let lines: String = (0..3_000).map(|number| format!("{number},title {number}\n")).collect();
    place.write("tasks.csv", &format!("id,title\n{lines}"));
    let imported =
        place.succeed(&on_store(&["import", "tasks.csv", "--gen", "Task", "--key", "id"]));
    assert!(imported.starts_with("3000 documents imported"), "{imported}");
    let listed = place.succeed(&on_store(&["list", "Task", "--json"]));
    assert_eq!(listed.lines().count(), 3_002);
    assert!(place.fail(&on_store(&["get", "Task/none"])).contains("there is no Task/none"));
    assert!(place.fail(&on_store(&["set", "Task/a", "size=300"])).contains("'300' is no u8"));
    let outbox = place.succeed(&on_store(&["outbox", "--json"]));
    assert!(outbox.contains("\"pending\":5"), "{outbox}");
    place.succeed(&on_store(&["backup", "copy"]));
    let verified = place.succeed(&on_store(&["verify"]));
    assert!(verified.contains("3002 documents"), "{verified}");
    let refused = place.fail(&on_store(&["repair", "--cut-log"]));
    assert!(refused.contains("stop the process that has it open"), "{refused}");

    let socket = place.path("held/control.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    for garbage in [&b"\xFF\xFF\xFF\xFFxx"[..], &b"\x02\x00\x00\x00{}"[..], b"\x01"] {
        UnixStream::connect(&socket).unwrap().write_all(garbage).unwrap();
    }
    place.succeed(&on_store(&["delete", "Task/milk"]));
    drop(server);
    // The socket of a process that was killed is in nobody's way.
    assert_eq!(place.succeed(&on_store(&["list", "Task"])).lines().count(), 3_001);
    let stats = place.succeed(&["--store", "copy", "stats", "--json"]);
    assert!(stats.contains("\"Task\":3002"), "{stats}");
}

#[test]
fn blame_names_who_wrote_a_field_and_what_was_beaten() {
    let place = Place::new();
    place.succeed(&["init", "task.dol"]);
    for title in ["title=Buy milk", "title=Buy oat milk"] {
        place.succeed(&["set", "Task/milk", title]);
    }
    let shown = place.succeed(&["blame", "Task/milk", "title"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("counts: Buy oat milk, by "), "{shown}");
    assert!(lines[0].contains(" in its change 2, on 2") && lines[0].ends_with(" UTC"), "{shown}");
    assert!(lines[1].starts_with("beaten: Buy milk, by "), "{shown}");
    let json = place.succeed(&["blame", "Task/milk", "title", "--json"]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["value"], &first["number"]), (&"Buy oat milk".into(), &2.into()));
    assert_eq!(first["replica"].as_str().map(str::len), Some(64));
    assert!(place.fail(&["blame", "Task/milk", "size"]).contains("nobody has written"));
    assert!(place.fail(&["blame", "Task/milk", "colour"]).contains("it has id, title"));
}

/// The least time counts: what else the machine does can only add to it. The goal is 20 ms; what is
/// asserted leaves room for slower machines, and for builds that are not optimised.
#[test]
fn building_one_gen_is_a_matter_of_milliseconds() {
    let place = Place::new();
    let build = |_| {
        let start = Instant::now();
        place.succeed(&["build", "task.dol", "-o", "app.wasm"]);
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..15).map(build).collect();
    times.sort();
    println!("vudo build of one Gen as a process: least {:?}, median {:?}", times[0], times[7]);
    let bound = Duration::from_millis(if cfg!(debug_assertions) { 2_000 } else { 60 });
    assert!(times[0] < bound, "{:?}", times[0]);
}

#[test]
fn a_pin_shows_its_moment_and_compaction_leaves_it() {
    let place = Place::new();
    place.succeed(&["init", "task.dol"]);
    for number in 0..5 {
        place.succeed(&["set", "Task/milk", &format!("title=before {number}")]);
    }
    place.succeed(&["pin", "monday"]);
    for number in 0..5 {
        place.succeed(&["set", "Task/milk", &format!("title=after {number}")]);
    }
    assert!(place.succeed(&["pins"]).starts_with("monday  "));
    let report: serde_json::Value =
        serde_json::from_str(&place.succeed(&["compact", "--json"])).unwrap();
    assert_eq!((&report["changes"], &report["dropped_changes"]), (&10.into(), &8.into()));
    assert!(report["disk_bytes"].as_u64() <= report["disk_bytes_before"].as_u64(), "{report}");
    let title = |arguments: &[&str]| place.succeed(arguments);
    assert!(title(&["get", "Task/milk"]).contains("title = after 4"));
    assert!(title(&["get", "Task/milk", "--at", "monday"]).contains("title = before 4"));
    assert!(title(&["list", "Task", "--at", "monday"]).contains("title=before 4"));
    place.succeed(&["unpin", "monday"]);
    assert!(place.fail(&["unpin", "monday"]).contains("no pin 'monday'"));
    assert!(place.fail(&["get", "Task/milk", "--at", "monday"]).contains("no pin 'monday'"));
    assert!(place.succeed(&["compact"]).contains("1 of 2 changes dropped"));
    assert!(place.succeed(&["verify"]).contains("and 1 changes read"));
    assert!(place.succeed(&["repair", "--cut-log"]).contains("no log is damaged"));
}

#[test]
fn a_damaged_log_is_cut_and_a_peer_sends_again_what_it_had() {
    let place = Place::new();
    place.succeed(&["--store", "held", "init", "task.dol"]);
    let lines: String =
        (0..5_000).map(|number| format!("{number},the title numbered {number}\n")).collect();
    place.write("tasks.csv", &format!("id,title\n{lines}"));
    place.succeed(&["--store", "held", "import", "tasks.csv", "--gen", "Task", "--key", "id"]);
    let server = Server::start(&place, "held");
    place.succeed(&["--store", "peer", "sync", &server.ticket]);
    drop(server);
    let pages = place.path("held/store.redb");
    let mut bytes = std::fs::read(&pages).unwrap();
    let wanted = b"the title numbered 2500";
    let windows = bytes.windows(wanted.len()).enumerate();
    let places: Vec<usize> =
        windows.filter(|(_, window)| window == wanted).map(|(place, _)| place).collect();
    // It lies in a chunk and in the log.
    assert!(places.len() >= 2, "{places:?}");
    places.into_iter().for_each(|place| bytes[place] ^= 1);
    std::fs::write(&pages, bytes).unwrap();
    assert!(place.fail(&["--store", "held", "repair"]).contains("`vudo repair --cut-log`"));
    let cut = place.succeed(&["--store", "held", "repair", "--cut-log"]);
    assert!(cut.contains("behind the damage are kept aside"), "{cut}");
    let doctor = place.run(&["--store", "held", "doctor"]);
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    let waiting = doctor.lines().find(|line| line.contains("lay behind what was damaged"));
    assert!(waiting.is_some_and(|line| line.starts_with("FAILED")), "{doctor}");
    let server = Server::start(&place, "peer");
    place.succeed(&["--store", "held", "sync", &server.ticket]);
    assert!(place.succeed(&["--store", "held", "adopt"]).contains("0 changes adopted"));
    assert!(place.succeed(&["--store", "held", "verify"]).contains("5000 documents"));
    let title = place.succeed(&["--store", "held", "get", "Task/2500"]);
    assert!(title.contains("the title numbered 2500"), "{title}");
}
