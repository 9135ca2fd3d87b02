//! A store that is found at a relay: a real one, on loopback.

use iroh_relay::server::{RelayConfig, Server as RelayServer, ServerConfig};
use tokio::runtime::Runtime;
use vudo_p2p::Ticket;

use super::{Place, Server, stderr};

/// A relay, for as long as its runtime is held, and its URL.
fn relay() -> (Runtime, RelayServer, String) {
    let runtime = Runtime::new().unwrap();
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(([127, 0, 0, 1], 0)));
    let relay = runtime.block_on(RelayServer::spawn(config)).unwrap();
    let url = format!("http://{}/", relay.http_addr().unwrap());
    (runtime, relay, url)
}

#[test]
fn a_store_is_found_at_its_relay_and_the_doctor_tries_each_way_apart() {
    let place = Place::new();
    for store in ["left", "right"] {
        place.succeed(&["--store", store, "init", "task.dol"]);
        place.succeed(&["--store", store, "set", &format!("Task/{store}"), "votes+=1"]);
    }
    let (_runtime, _relay, url) = relay();
    let url = format!("{url}?token=secret");
    let nowhere = "http://127.0.0.1:9/";
    let server = Server::start_with(&place, "left", &["--relay", &url, "--relay", nowhere]);
    let ticket: Ticket = server.ticket.parse().unwrap();
    assert_eq!(ticket.relays, [&url, nowhere]);
    let by_relay = Ticket { addresses: Vec::new(), ..ticket.clone() };
    let output = place.run(&["--store", "right", "sync", &by_relay.to_string()]);
    let synced = String::from_utf8_lossy(&output.stdout);
    assert!(synced.contains("both stores are equal"), "{synced}, {}", stderr(&output));
    assert_eq!(stderr(&output), "", "nothing is wrong");

    // A relay that is away is nothing to tell where another way leads there.
    let relays = vec![nowhere.to_owned()];
    let output =
        place.run(&["--store", "right", "sync", &Ticket { relays, ..ticket.clone() }.to_string()]);
    assert!(output.status.success());
    assert_eq!(stderr(&output), "", "nothing is wrong");
    assert_eq!(place.succeed(&["--store", "right", "list", "Task"]).lines().count(), 2);

    let mut addresses = ticket.addresses.clone();
    addresses.push("127.0.0.1:9".parse().unwrap());
    let ticket = Ticket { addresses, ..ticket };
    let output = place.run(&["--store", "right", "doctor", &ticket.to_string()]);
    let said = String::from_utf8(output.stdout).unwrap();
    let quic = format!("QUIC to {}", ticket.addresses[0]);
    let relayed = format!("QUIC over the relay {}", url.trim_end_matches("?token=secret"));
    let ways = [
        ("ok    ", &quic[..]),
        ("ok    ", &relayed),
        ("FAILED", "QUIC to 127.0.0.1:9"),
        ("FAILED", "QUIC over the relay http://127.0.0.1:9/"),
        ("ok    ", "sync of namespace 'default'"),
    ];
    for (mark, way) in ways {
        assert!(said.contains(&format!("{mark} {way}: ")), "{mark} {way}: {said}");
    }
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn what_is_no_relay_is_refused_with_what_to_write() {
    let place = Place::new();
    place.succeed(&["init", "task.dol"]);
    let said = place.fail(&["serve", "--bind", "127.0.0.1:0", "--relay", "relay.example.org"]);
    assert!(said.contains("'relay.example.org' cannot be used as a relay"), "{said}");
    assert!(said.contains("https://relay.example.org"), "{said}");
}
