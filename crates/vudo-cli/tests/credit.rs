//! The credit ledger as people meet it: every member and every call of a wallet is a process of its
//! own, and they talk over QUIC on the loopback interface.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use vudo_credit::committee::{Committee, Kind, Signed, Statement};
use vudo_credit::log_file::{read_log, write_log};
use vudo_credit::message::Answer;
use vudo_credit::operation::{LogRecord, heads_statement};
use vudo_credit::wire::Wire;
use vudo_credit::{Chain, Genesis, Head, Message, Payment, Secret};
use vudo_p2p::Messenger;

/// What tells a copy of this program to be a member that lies: the file that says which.
const EQUIVOCATOR: &str = "VUDO_TEST_EQUIVOCATOR";

/// How long settling may take once the network is back.
const SETTLE_MILLISECONDS_MAX: u64 = 5_000;

struct Town {
    folder: tempfile::TempDir,
    ports: Vec<u16>,
    members: Vec<Option<Child>>,
}

impl Drop for Town {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
        }
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Town {
    /// A committee that is founded and does not run yet, with an operator's wallet `boss`. The place
    /// of the equivocator has a key that the test knows.
    fn found(member_count: usize, equivocator: Option<usize>) -> Town {
        let folder = tempfile::tempdir().unwrap();
        // They are free again at once, and the members take them.
        let sockets: Vec<UdpSocket> =
            (0..member_count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let ports = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        let members = (0..member_count).map(|_| None).collect();
        let town = Town { folder, ports, members };
        let boss = town.json("boss", &["key"])["key"].as_str().unwrap().to_owned();
        let mut arguments = ["committee", "found", "town", "--operator", &boss, "--tick-seconds"]
            .map(str::to_owned)
            .to_vec();
        arguments.push("3600".to_owned());
        for (place, port) in town.ports.iter().enumerate() {
            let key = match equivocator == Some(place) {
                true => liar_secret().key().to_string(),
                false => town.json(&store(place), &["key"])["key"].as_str().unwrap().to_owned(),
            };
            arguments.extend(["--member".to_owned(), format!("{key}=127.0.0.1:{port}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        town.json("boss", &arguments);
        town.json("boss", &["init", "town.ledger"]);
        town
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, store: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vudo"));
        command.current_dir(self.folder.path()).env_remove("VUDO_STORE");
        command.args(["--store", store, "--json", "credit"]).args(arguments);
        command
    }

    fn run(&self, store: &str, arguments: &[&str]) -> Output {
        self.command(store, arguments).output().unwrap()
    }

    /// What a call that succeeds prints.
    fn json(&self, store: &str, arguments: &[&str]) -> Json {
        let output = self.run(store, arguments);
        assert!(output.status.success(), "{store} {arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a call says that cannot do what was asked.
    fn fail(&self, store: &str, arguments: &[&str]) -> String {
        let output = self.run(store, arguments);
        assert_eq!(output.status.code(), Some(1), "{store} {arguments:?}: {}", stderr(&output));
        stderr(&output)
    }

    fn text(&self, store: &str, arguments: &[&str], name: &str) -> String {
        self.json(store, arguments)[name].as_str().unwrap().to_owned()
    }

    fn number(&self, store: &str, arguments: &[&str], name: &str) -> i64 {
        let json = self.json(store, arguments);
        json[name].as_i64().unwrap_or_else(|| panic!("{name} of {json}"))
    }

    /// Starts a member and waits until it listens.
    fn start(&mut self, place: usize) {
        let mut command = self.command(&store(place), &["committee", "serve", "town.ledger"]);
        self.members[place] = Some(listening(&mut command));
    }

    /// Starts a member that signs whatever it is asked to.
    fn start_equivocator(&mut self, place: usize) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_lying_member_runs_where_it_is_asked_to", "--nocapture"]);
        let port = self.ports[place];
        command.env(EQUIVOCATOR, format!("{port} {}", self.path("town.ledger").display()));
        self.members[place] = Some(listening(&mut command));
    }

    /// Ends a member at once, wherever it is.
    fn kill(&mut self, place: usize) {
        if let Some(mut child) = self.members[place].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// An open account with a limit, and a grant where the amount is not 0.
    fn open(&self, name: &str, limit: u64, granted: u64) {
        let account = self.text(name, &["init", "town.ledger"], "account");
        self.json(name, &["open"]);
        if limit > 0 {
            self.json("boss", &["limit", &account, &limit.to_string(), "--tier", "2"]);
        }
        if granted > 0 {
            self.json(name, &["grant", &granted.to_string()]);
        }
    }

    /// Two people meet; neither needs a network.
    fn pay(&self, payer: &str, payee: &str, amount: u64) -> String {
        let invoice = self.text(payee, &["receive", &amount.to_string()], "invoice");
        let payment = self.text(payer, &["pay", &invoice], "payment");
        let received = self.json(payee, &["receive", &payment]);
        assert_eq!(received["amount"], amount);
        payment
    }
}

fn store(place: usize) -> String {
    format!("m{place}")
}

/// Starts a process that prints a line when it listens.
fn listening(command: &mut Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listens = lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening"));
    assert!(listens, "a member does not listen: {:?}", child.wait());
    // Whoever prints more than fits into a pipe that nobody reads stops there.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn liar_secret() -> Secret {
    Secret::from_seed([77; 32])
}

/// Not a test by itself: the process that [`Town::start_equivocator`] starts. It signs every chain,
/// every certificate and every entry that it is asked to sign, whatever it signed before, and tells
/// whoever asks that the log is longer than it is.
#[test]
fn a_lying_member_runs_where_it_is_asked_to() {
    let Ok(order) = std::env::var(EQUIVOCATOR) else { return };
    let (port, file) = order.split_once(' ').unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    let ledger: Json = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let genesis = data_encoding::HEXLOWER.decode(ledger["genesis"].as_str().unwrap().as_bytes());
    let committee = Genesis::from_bytes(&genesis.unwrap()).unwrap().committee().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let known = committee.members().iter().map(|key| key.0);
        let bound = Messenger::bind(liar_secret().seed(), address, known);
        let mut messenger = bound.await.unwrap();
        println!("\nlistening");
        loop {
            let delivery = messenger.receive().await;
            let Ok(message) = Message::from_bytes(&delivery.message) else { continue };
            for answer in lies(&committee, message) {
                delivery.answers.send(answer.to_bytes().into());
            }
        }
    });
}

fn lies(committee: &Committee, message: Message) -> Vec<Message> {
    let member = committee.index_of(&liar_secret().key()).unwrap() as u8;
    let sign = |statement: Statement| {
        let signature = committee.sign(&liar_secret(), statement.kind, statement.digest);
        let signed = Some(Signed { member, signature });
        Message::Answer(Answer { statement, signed, faults: Vec::new() })
    };
    let ends = |chains: &[Chain]| -> Vec<Head> {
        chains.iter().filter_map(|chain| chain.end(&committee.network)).collect()
    };
    match message {
        Message::Deposit(chains) => [Kind::Receipt, Kind::Vote]
            .map(|kind| sign(heads_statement(kind, &ends(&chains))))
            .to_vec(),
        Message::Settle(settlement) => {
            vec![sign(heads_statement(Kind::Processed, &settlement.heads))]
        }
        Message::Propose { entry, .. } => {
            let digest = entry.hash(&committee.network);
            vec![sign(Statement { kind: Kind::Entry, digest })]
        }
        Message::Want { .. } => vec![Message::LogLength { entries: u64::MAX }],
        _ => Vec::new(),
    }
}

#[test]
fn seven_members_of_which_one_is_dead_and_one_lies_settle_what_was_paid_offline() {
    let (killed, liar) = (4, 5);
    let mut town = Town::found(7, Some(liar));
    for place in (0..7).filter(|place| *place != liar) {
        town.start(place);
    }
    town.start_equivocator(liar);
    town.open("anna", 1000, 100);
    town.open("bela", 0, 0);

    // Nobody reaches anybody: all members have crashed.
    (0..7).for_each(|place| town.kill(place));
    town.pay("anna", "bela", 25);
    town.pay("anna", "bela", 17);
    let lost = town.fail("bela", &["settle", "--timeout-seconds", "1"]);
    assert!(lost.contains("0 of 7 members answered") && lost.contains("status"), "{lost}");
    assert_eq!(town.number("bela", &["balance"], "incoming"), 42);
    assert_eq!(town.number("anna", &["balance"], "spendable"), 58);

    for place in (0..7).filter(|place| *place != liar && *place != killed) {
        town.start(place);
    }
    town.start_equivocator(liar);
    let mut paid = 42;
    let mut milliseconds = settle_one_lane(&town);
    // On a machine with much else to do a process may not run for seconds; it is paid again then.
    for _ in 0..2 {
        if milliseconds >= SETTLE_MILLISECONDS_MAX {
            town.pay("anna", "bela", 1);
            paid += 1;
            milliseconds = settle_one_lane(&town);
        }
    }
    assert!(milliseconds < SETTLE_MILLISECONDS_MAX, "settling took {milliseconds} ms three times");
    assert_eq!(town.number("bela", &["balance", "--refresh"], "posted"), paid);
    assert_eq!(town.number("anna", &["balance", "--refresh"], "posted"), -paid);
    assert_eq!(town.number("anna", &["balance"], "reserved"), 100 - paid);

    // One that was away follows the log of the others.
    town.start(killed);
    let length = town.number("bela", &["audit"], "entries");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let output = town.run("boss", &["committee", "status", "town.ledger"]);
        let status = String::from_utf8(output.stdout).unwrap();
        let line = status.lines().find(|line| line.contains(&format!("\"member\":{killed}")));
        if line.is_some_and(|line| line.contains(&format!("\"entries\":{length}"))) {
            break;
        }
        assert!(Instant::now() < deadline, "member {killed} does not catch up: {status}");
    }

    audit_notices_one_unit(&town);
    town.kill(0);
    let of_member = town.json(&store(0), &["audit", "--ledger", "town.ledger"]);
    assert_eq!(
        (&of_member["clean"], of_member["entries"].as_i64()),
        (&Json::from(true), Some(length))
    );
}

/// Settles what the payee was paid from one lane, and gives how long that took.
fn settle_one_lane(town: &Town) -> u64 {
    let settled = town.json("bela", &["settle"]);
    println!("settled over QUIC, with one member dead and one lying: {settled}");
    let of_one = Json::from(1);
    assert_eq!((&settled["lanes"], &settled["final"]), (&of_one, &of_one));
    assert_eq!(settled["posted"], true);
    settled["milliseconds"].as_u64().unwrap()
}

/// The log is clean, and a copy is not in which one posting is another by one unit.
fn audit_notices_one_unit(town: &Town) {
    let clean = town.json("bela", &["audit"]);
    assert_eq!(clean["clean"], true);
    assert!(clean["postings"].as_u64().unwrap() >= 2, "{clean}");
    town.json("bela", &["log", "copy.log"]);
    let copied = town.json("nobody", &["audit", "--log", "copy.log", "--ledger", "town.ledger"]);
    assert_eq!(copied, clean);

    let log = std::fs::read(town.path("copy.log")).unwrap();
    let (genesis, parts) = read_log(&log).unwrap();
    let mut records: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    let with_postings = |part: &Vec<u8>| !LogRecord::from_bytes(part).unwrap().postings.is_empty();
    let altered_entry = records.iter().position(with_postings).unwrap();
    let mut record = LogRecord::from_bytes(&records[altered_entry]).unwrap();
    record.postings[0].amount += 1;
    records[altered_entry] = record.to_bytes();
    let altered = write_log(&genesis, records.iter().map(Vec::as_slice));
    std::fs::write(town.path("altered.log"), altered).unwrap();
    let output = town.run("nobody", &["audit", "--log", "altered.log"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&found["clean"], &found["entry"]),
        (&Json::from(false), &Json::from(altered_entry))
    );
    assert!(stderr(&output).contains("not clean"), "{}", stderr(&output));
    std::fs::write(town.path("cut.log"), &log[..log.len() - 1]).unwrap();
    let cut = town.fail("nobody", &["audit", "--log", "cut.log"]);
    assert!(cut.contains("no whole log"), "{cut}");
}

#[test]
fn what_cannot_be_done_is_refused_with_advice_and_changes_nothing() {
    let mut town = Town::found(1, None);
    assert!(town.fail("anna", &["balance"]).contains("vudo credit init"));
    town.start(0);
    town.open("anna", 1000, 100);
    town.open("bela", 0, 0);
    let account = town.text("anna", &["balance"], "account");
    let refused = town.fail("anna", &["limit", &account, "9", "--tier", "1"]);
    assert!(refused.contains("operator"), "{refused}");
    assert!(town.fail("anna", &["open"]).contains("open already"));
    let refused = town.fail("anna", &["grant", "100000"]);
    assert!(refused.contains("tier 2 allows"), "{refused}");
    assert!(town.fail("bela", &["grant", "5"]).contains("allows 0 units"));

    // The same invoice is paid once, however often it is asked for, and the same payment counts once.
    let invoice = town.text("bela", &["receive", "30"], "invoice");
    let payment = town.text("anna", &["pay", &invoice], "payment");
    let again = town.json("anna", &["pay", &invoice]);
    assert_eq!((again["payment"].as_str(), &again["new"]), (Some(&*payment), &Json::from(false)));
    assert_eq!(again["spendable"], 70);
    town.json("bela", &["receive", &payment]);
    assert!(town.fail("bela", &["receive", &payment]).contains("counts once"));
    assert!(town.fail("boss", &["receive", &payment]).contains("no open invoice"));
    assert!(town.fail("bela", &["receive", &payment[..90]]).contains("copy all of it"));
    assert!(town.fail("bela", &["receive", &invoice]).contains("vudo credit pay"));
    let large = town.text("bela", &["receive", "71"], "invoice");
    let refused = town.fail("anna", &["pay", &large]);
    assert!(
        refused.contains("70 are left in all") && refused.contains("credit grant"),
        "{refused}"
    );
    assert!(town.fail("bela", &["receive", "0"]).contains("amounts are from 1"));

    // A grant for one payee pays nobody else.
    let only = town.text("bela", &["receive", "80"], "invoice");
    town.json("anna", &["grant", "80", "--payee", &only]);
    let other = town.text("boss", &["receive", "75"], "invoice");
    assert!(town.fail("anna", &["pay", &other]).contains("75 units left for this payee"));
    let payment = town.text("anna", &["pay", &only], "payment");
    town.json("bela", &["receive", &payment]);
    assert_eq!(town.number("bela", &["settle"], "final"), 2);

    // A member's store is no wallet, and a copy of it does not serve.
    town.kill(0);
    assert!(town.fail("m0", &["init", "town.ledger"]).contains("member's store"));
    copy(&town, "m0", "m0-copy");
    let refused = town.fail("m0-copy", &["committee", "serve", "town.ledger"]);
    assert!(refused.contains("contradict"), "{refused}");
    assert!(town.fail("anna", &["committee", "serve", "town.ledger"]).contains("no member's"));
}

fn copy(town: &Town, from: &str, to: &str) {
    let copied = Command::new("cp").args(["-r", from, to]).current_dir(&town.folder).status();
    assert!(copied.unwrap().success());
}

#[test]
fn backups_and_copies_have_no_key_that_could_spend_twice() {
    let mut town = Town::found(1, None);
    town.start(0);
    town.open("anna", 1000, 100);
    town.open("bela", 0, 0);
    town.pay("anna", "bela", 10);
    town.json("bela", &["backup", "bela-backup"]);
    town.json("anna", &["backup", "anna-backup"]);
    copy(&town, "anna", "anna-copy");
    let device = |name: &str| town.text(name, &["balance"], "device");
    let devices = ["anna", "anna-backup", "anna-copy"].map(device);
    assert!(devices[0] != devices[1] && devices[1] != devices[2] && devices[0] != devices[2]);
    assert_eq!(device("anna-copy"), devices[2]);
    for restored in ["anna-backup", "anna-copy"] {
        assert_eq!(town.number(restored, &["balance"], "spendable"), 0);
        let invoice = town.text("bela", &["receive", "5"], "invoice");
        assert!(town.fail(restored, &["pay", &invoice]).contains("credit grant"));
    }
    assert_eq!(town.number("anna", &["balance"], "spendable"), 90);
    // A restored payee settles what the lost device received.
    assert_eq!(town.number("bela-backup", &["settle"], "final"), 1);
    assert_eq!(town.number("bela-backup", &["balance"], "posted"), 10);
    // The lost device gets no more grants, and the restored one does.
    town.json("anna-backup", &["revoke", &devices[0]]);
    assert!(town.fail("anna", &["grant", "5"]).contains("no more grants"));
    town.json("anna-backup", &["grant", "50"]);
    town.pay("anna-backup", "bela", 50);
    assert!(town.fail("bela", &["backup", "bela-backup"]).contains("exists"));
}

/// A wallet that is killed at any moment uses no number twice: everything that it ever handed out is
/// in one chain.
#[test]
fn a_wallet_that_is_killed_while_it_pays_contradicts_nothing() {
    const KILLS: u64 = 24;
    let mut town = Town::found(1, None);
    town.start(0);
    town.open("anna", 10_000, 1000);
    town.open("bela", 0, 0);
    let mut payments = Vec::new();
    for round in 0..KILLS {
        let invoice = town.text("bela", &["receive", "1"], "invoice");
        let mut command = town.command("anna", &["pay", &invoice]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * round * 40));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if let Ok(printed) = serde_json::from_slice::<Json>(&output.stdout) {
            payments.push(printed["payment"].as_str().unwrap().to_owned());
        }
        payments.push(town.text("anna", &["pay", &invoice], "payment"));
    }
    println!("{KILLS} kills, {} payments handed out", payments.len());
    let last = Payment::from_text(payments.last().unwrap()).unwrap();
    assert_eq!(last.chain.spends.len() as u64, KILLS);
    for payment in &payments {
        let chain = Payment::from_text(payment).unwrap().chain;
        assert_eq!(chain.spends[..], last.chain.spends[..chain.spends.len()]);
    }
}
