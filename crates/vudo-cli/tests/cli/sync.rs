//! Syncing over a network that is slow, and over one that stops.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vudo_p2p::Ticket;
use vudo_testkit::Random;

use super::{Place, Server, stderr};

const PIECE_BYTES: usize = 16 << 10;

/// What becomes of the bytes on their way from the server.
#[derive(Clone, Copy)]
enum Way {
    /// Each piece takes so long.
    Slow(Duration),
    /// So many get through, of all connections together.
    Broken(usize),
}

/// Forwards what comes in on a port of its own to a server, on threads that end with the test.
fn forward(to: String, way: Way) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let passed = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&to).unwrap());
            let there = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || copy(there.0, there.1, |_| true));
            let passed = passed.clone();
            std::thread::spawn(move || {
                copy(server, client, |bytes| match way {
                    Way::Slow(piece_time) => {
                        std::thread::sleep(piece_time * bytes as u32 / PIECE_BYTES as u32);
                        true
                    }
                    Way::Broken(bytes_max) => {
                        passed.fetch_add(bytes, Ordering::SeqCst) + bytes <= bytes_max
                    }
                });
            });
        }
    });
    port
}

/// Copies until one side has gone. What must not pass is swallowed.
fn copy(mut from: TcpStream, mut to: TcpStream, mut passes: impl FnMut(usize) -> bool) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if passes(count) && to.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

/// A store that is served, with so many documents of a kilobyte that nothing compresses, and a ticket
/// that leads there on some way.
fn served(place: &Place, documents: usize, way: Way) -> (Server, String) {
    let mut random = Random::new(1);
    let mut title =
        || -> String { (0..64).map(|_| format!("{:016x}", random.next_u64())).collect() };
    let lines: String = (0..documents).map(|key| format!("{key},{}\n", title())).collect();
    place.write("tasks.csv", &format!("id,title\n{lines}"));
    place.succeed(&["--store", "held", "init", "task.dol"]);
    place.succeed(&["--store", "held", "import", "tasks.csv", "--gen", "Task", "--key", "id"]);
    let server = Server::start_with(place, "held", &["--websocket", "127.0.0.1:0"]);
    let ticket: Ticket = server.ticket.parse().unwrap();
    let address = ticket.urls[0].trim_start_matches("ws://").trim_end_matches("/sync");
    let port = forward(address.to_owned(), way);
    let urls = vec![format!("ws://127.0.0.1:{port}/sync")];
    let ticket = Ticket { addresses: Vec::new(), urls, ..ticket };
    (server, ticket.to_string())
}

/// The whole of it takes twice as long as nothing may move for.
#[test]
fn a_sync_that_gets_on_may_take_as_long_as_it_needs() {
    let place = Place::new();
    let piece_time = Duration::from_millis(500);
    let (_server, ticket) = served(&place, 400, Way::Slow(piece_time));
    place.succeed(&["--store", "far", "init", "task.dol"]);
    let start = Instant::now();
    let arguments = ["--store", "far", "sync", &ticket, "--timeout-seconds", "5", "--json"];
    let output = place.run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let taken = start.elapsed();
    assert!(taken > Duration::from_secs(5), "the link was fast: {taken:?}");
    assert_eq!(stderr(&output), "", "progress is for a terminal");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["received_changes"], 1, "{report}");
    assert!(report["received_bytes"].as_u64() > Some(100 << 10), "{report}");
    let listed = place.succeed(&["--store", "far", "list", "Task"]);
    assert_eq!(listed.lines().count(), 400);
}

#[test]
fn a_sync_that_stands_still_is_given_up() {
    let place = Place::new();
    let (_server, ticket) = served(&place, 400, Way::Broken(64 << 10));
    let start = Instant::now();
    let arguments = ["--store", "far", "sync", &ticket, "--timeout-seconds", "3"];
    let said = place.fail(&arguments);
    assert!(start.elapsed() > Duration::from_secs(3));
    assert!(said.contains("nothing has moved for 3 s"), "{said}");
    // A part of the one change had come, and was seen to.
    assert!(said.contains("0 changes received, ") && said.contains(" KiB; "), "{said}");
}

/// What a store is given of a compacted log counts as received.
#[test]
fn a_report_after_joining_by_a_checkpoint_counts_its_changes() {
    let place = Place::new();
    place.succeed(&["--store", "held", "init", "task.dol"]);
    for number in 0..6 {
        place.succeed(&["--store", "held", "set", "Task/milk", &format!("title=Milk {number}")]);
    }
    assert!(place.succeed(&["--store", "held", "compact"]).contains("changes dropped"));
    place.succeed(&["--store", "held", "set", "Task/bread", "title=Bread"]);
    let server = Server::start(&place, "held");
    let said = place.succeed(&["--store", "new", "sync", &server.ticket]);
    assert!(said.contains("sent 0 changes, received 7"), "{said}");
    let again = place.succeed(&["--store", "new", "sync", &server.ticket]);
    assert!(again.contains("sent 0 changes, received 0"), "{again}");
}
