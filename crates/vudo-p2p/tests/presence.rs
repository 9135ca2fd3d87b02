//! What nodes show of themselves: the table and the session by hand, in virtual time, and nodes over QUIC
//! and WebSocket with a server in the middle.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_p2p::limits::{
    PRESENCE_BYTES_MAX, PRESENCE_INTERVAL, PRESENCE_LIFE, PRESENCE_ORIGINS_MAX, PRESENCE_RENEWAL,
};
use vudo_p2p::proto::{
    CloseReason, Effect, Event, LinkNumber, Message, NodeId, PresenceTable, PresenceUpdate, Session,
};
use vudo_p2p::{Config, Error, Link, Node, Presence, PresenceChange};
use vudo_state::Database;
use vudo_testkit::{Random, run_seeds};

const LIFE: u64 = PRESENCE_LIFE.as_millis() as u64;
const RENEWAL: u64 = PRESENCE_RENEWAL.as_millis() as u64;
const INTERVAL: u64 = PRESENCE_INTERVAL.as_millis() as u64;
/// Less than the time in which nodes show themselves again: nothing here may wait for that.
const PATIENCE: Duration = Duration::from_secs(8);

const _: () = assert!(PATIENCE.as_millis() < PRESENCE_RENEWAL.as_millis());

fn id(number: u8) -> NodeId {
    [number; 32]
}

fn value(text: &str) -> Arc<[u8]> {
    text.as_bytes().into()
}

fn update(origin: u8, clock: u64, text: Option<&str>) -> PresenceUpdate {
    PresenceUpdate { origin: id(origin), clock, shown: text.map(|text| (LIFE, value(text))) }
}

fn others(table: &PresenceTable, now: u64) -> Vec<(u8, String)> {
    let text = |value: &Arc<[u8]>| String::from_utf8(value.to_vec()).unwrap();
    table.others(now).map(|(origin, value)| (origin[0], text(value))).collect()
}

fn shown(pairs: &[(u8, &str)]) -> Vec<(u8, String)> {
    pairs.iter().map(|(origin, text)| (*origin, (*text).to_owned())).collect()
}

/// A peer, and the session with it.
const fn link(number: LinkNumber, peer: u8) -> (LinkNumber, NodeId) {
    (number, [peer; 32])
}

/// Else whoever says so could keep a node from being seen for as long as others are there.
#[test]
fn a_clock_at_the_end_of_time_is_not_believed() {
    let mut table = PresenceTable::new(id(1), 1_000);
    table.receive(link(1, 2), vec![update(3, u64::MAX, Some("made up"))], 0);
    assert_eq!(others(&table, 1), []);
    table.receive(link(1, 2), vec![update(3, 1_001, Some("three"))], 1);
    assert_eq!(others(&table, 2), shown(&[(3, "three")]));
    // Nor by the node itself, whose next value would not be newer.
    table.receive(link(1, 2), vec![update(1, u64::MAX, None)], 2);
    table.set(Some(value("one")), 3);
    let (told, _) = table.updates_since(0, link(2, 4), 4);
    assert!(told.contains(&update(1, 1_003, Some("one"))), "{told:?}");
}

#[test]
fn the_newest_of_each_origin_is_kept_and_told_once() {
    let mut table = PresenceTable::new(id(1), 1_000);
    table.receive(link(1, 2), vec![update(2, 10, Some("two")), update(3, 5, Some("three"))], 0);
    table.receive(link(1, 2), vec![update(3, 4, Some("older"))], 1);
    assert_eq!(others(&table, 1), shown(&[(2, "two"), (3, "three")]));
    // Nobody is told what it has said, and everybody else is, the last value alone.
    assert_eq!(table.updates_since(0, link(1, 2), 2), (Vec::new(), table.revision()));
    table.receive(link(1, 2), vec![update(3, 6, Some("newer"))], 2);
    let (told, revision) = table.updates_since(0, link(2, 4), 2);
    let told: Vec<_> = told.into_iter().map(|told| (told.origin[0], told.clock)).collect();
    assert_eq!(told, [(2, 10), (3, 6)]);
    assert_eq!(table.updates_since(revision, link(2, 4), 3).0, []);
    // What this node shows itself counts from the wall clock.
    table.set(Some(value("one")), 20);
    table.set(Some(value("one")), 21);
    let (told, revision) = table.updates_since(revision, link(2, 4), 30);
    assert_eq!(told, [update(1, 1_020, Some("one"))]);
    table.set(None, 22);
    assert_eq!(table.updates_since(revision, link(2, 4), 30).0, [update(1, 1_022, None)]);
    assert_eq!(others(&table, 30).len(), 2, "nobody is an other to itself");
}

#[test]
fn a_message_holds_so_much_and_the_rest_follows() {
    let mut table = PresenceTable::new(id(0), 0);
    let large = "x".repeat(PRESENCE_BYTES_MAX);
    for origin in 1..=10 {
        table.receive(link(1, 1), vec![update(origin, 1, Some(&large))], 0);
    }
    let (mut revision, mut origins) = (0, Vec::new());
    while revision < table.revision() {
        let (told, reached) = table.updates_since(revision, link(2, 99), 1);
        let mut bytes = Vec::new();
        Message::Presence(told.clone()).encode(&mut bytes);
        assert_eq!(Message::decode(&bytes), Ok(Message::Presence(told.clone())));
        assert_eq!(told.len(), if origins.len() < 9 { 3 } else { 1 });
        origins.extend(told.into_iter().map(|told| told.origin[0]));
        revision = reached;
    }
    assert_eq!(origins, (1..=10).collect::<Vec<u8>>());
}

#[test]
fn whoever_is_not_heard_of_is_forgotten_and_passing_on_does_not_prolong_it() {
    let mut tables = [2, 3].map(|own| PresenceTable::new(id(own), 0));
    tables[0].receive(link(1, 9), vec![update(1, 1, Some("one"))], 0);
    // Each tells the other again and again, in sessions of their own.
    for now in (0..2 * LIFE).step_by(100) {
        for (from, to) in [(0, 1), (1, 0)] {
            let (number, own) = (2 * now + from as u64 + 2, [2, 3]);
            let (told, _) = tables[from].updates_since(0, link(number, own[to]), now);
            tables[to].receive(link(number, own[from]), told, now);
            tables[to].time_passed(now);
        }
        let is_there = others(&tables[1], now) == shown(&[(1, "one")]);
        assert_eq!(is_there, now < LIFE, "{now}");
    }
    assert!(tables.iter().all(PresenceTable::is_empty));
    // Whoever is there says so in time.
    let [table, peer] = &mut tables;
    table.set(Some(value("two")), 0);
    let mut revision = 0;
    for now in (0..5 * LIFE).step_by(1_000) {
        table.time_passed(now);
        let (told, reached) = table.updates_since(revision, link(1, 3), now);
        assert_eq!(told.is_empty(), !now.is_multiple_of(RENEWAL), "{now}");
        revision = reached;
        peer.receive(link(1, 2), told, now);
        peer.time_passed(now);
        assert_eq!(others(peer, now), shown(&[(2, "two")]));
    }
}

#[test]
fn what_a_session_has_brought_ends_with_it() {
    let mut table = PresenceTable::new(id(1), 0);
    table.receive(link(1, 2), vec![update(2, 5, Some("two")), update(3, 5, Some("three"))], 0);
    table.receive(link(2, 4), vec![update(4, 5, Some("four")), update(3, 5, None)], 0);
    assert_eq!(
        others(&table, 0).len(),
        3,
        "a peer takes away what it has brought and nothing else"
    );
    let revision = table.revision();
    table.link_ended(1, 10);
    assert_eq!(others(&table, 10), shown(&[(4, "four")]));
    let told = table.updates_since(revision, link(2, 4), 10).0;
    assert_eq!(told, [update(2, 5, None), update(3, 5, None)]);
    assert_eq!(
        table.updates_since(0, link(3, 6), 10).0.len(),
        1,
        "who begins hears of who is here"
    );
    // What is older and still on its way does not bring it back; who else knows of it does, and so does
    // the node itself, whatever its clock.
    table.receive(link(2, 4), vec![update(2, 4, Some("older")), update(3, 5, Some("three"))], 11);
    assert_eq!(others(&table, 11), shown(&[(3, "three"), (4, "four")]));
    table.receive(link(3, 2), vec![update(2, 1, Some("anew"))], 12);
    assert_eq!(others(&table, 12), shown(&[(2, "anew"), (3, "three"), (4, "four")]));
}

#[test]
fn a_node_speaks_for_itself_whatever_others_say() {
    let mut table = PresenceTable::new(id(1), 0);
    table.receive(link(1, 2), vec![update(3, 100, Some("hearsay"))], 0);
    table.receive(link(2, 3), vec![update(3, 7, Some("itself"))], 0);
    table.receive(link(1, 2), vec![update(3, u64::MAX, Some("hearsay")), update(3, 8, None)], 0);
    assert_eq!(others(&table, 0), shown(&[(3, "itself")]));
    // What this node showed before it was started anew is on its way still: what it shows is newer.
    table.set(Some(value("now")), 5);
    let revision = table.revision();
    table.receive(link(1, 2), vec![update(1, 900, Some("before"))], 6);
    let told = table.updates_since(revision, link(2, 3), 6).0;
    assert_eq!(told, [update(1, 901, Some("now"))]);
}

/// Three nodes that all have sessions with each other: what one shows is told a few times, and then no more
/// until it shows itself again.
#[test]
fn in_a_circle_nothing_goes_on_for_ever() {
    let mut tables = [0, 1, 2].map(|own| PresenceTable::new(id(own), 1_000));
    let mut told = [[0; 3]; 3];
    tables[0].set(Some(value("zero")), 1);
    tables[1].set(Some(value("one")), 1);
    let mut update_count = 0;
    for now in 2..200 {
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2), (2, 1), (1, 0)] {
            let (number, own) = (1 + (from + to) as u64, [0, 1, 2]);
            let (updates, reached) =
                tables[from].updates_since(told[from][to], link(number, own[to]), now);
            told[from][to] = reached;
            update_count += updates.len();
            tables[to].receive(link(number, own[from]), updates, now);
        }
    }
    assert!(update_count <= 8, "{update_count} updates for two values");
    assert_eq!(others(&tables[2], 200), shown(&[(0, "zero"), (1, "one")]));
    assert_eq!(others(&tables[0], 200), shown(&[(1, "one")]));
}

#[test]
fn a_table_that_is_full_has_room_for_peers_and_for_its_own() {
    let mut table = PresenceTable::new(id(1), 0);
    let origin = |number: usize| {
        let mut origin = [7; 32];
        origin[..8].copy_from_slice(&(number as u64).to_be_bytes());
        origin
    };
    let invented = |number| PresenceUpdate { origin: origin(number), ..update(0, 1, Some("x")) };
    table.receive(link(1, 2), (0..5_000).map(invented).collect(), 0);
    assert_eq!(others(&table, 0).len(), PRESENCE_ORIGINS_MAX);
    table.receive(link(2, 3), vec![update(3, 1, Some("three"))], 1);
    table.receive(link(3, 4), vec![update(4, 1, Some("four"))], 1);
    table.set(Some(value("own")), 1);
    let there = others(&table, 1);
    assert_eq!(there.len(), PRESENCE_ORIGINS_MAX);
    assert!([3, 4].iter().all(|peer| there.iter().any(|(origin, _)| origin == peer)));
    assert!(!table.others(1).any(|(other, _)| other == origin(0)), "the oldest has left");
    // Who has gone gives up its place.
    table.link_ended(1, 2);
    table.receive(link(2, 3), (5_000..5_500).map(invented).collect(), 3);
    assert_eq!(others(&table, 3).len(), 502);
}

/// Nodes that show, change and leave, over links that come and go: when that has ended and the time of a
/// life has passed, everybody sees exactly who is there.
#[test]
fn all_come_to_see_the_same_whatever_happened() {
    run_seeds("presence", 300, |seed| {
        const NODES: usize = 5;
        let mut random = Random::new(seed);
        let mut tables: Vec<PresenceTable> =
            (0..NODES).map(|node| PresenceTable::new(id(node as u8), 1_000)).collect();
        let mut values: Vec<Option<Arc<[u8]>>> = vec![None; NODES];
        // By pair: the number of the session, and up to which revision each side was told.
        let mut links: BTreeMap<(usize, usize), (LinkNumber, [u64; 2])> = BTreeMap::new();
        let (mut now, mut calm_from, mut link_count) = (0, 0, 0);
        for step in 0.. {
            now += random.between(0, 40);
            let is_calm = step > 1_000;
            match is_calm {
                true if now > calm_from + 2 * LIFE => break,
                true => {}
                false => calm_from = now,
            }
            let (one, other) = (random.below(NODES), random.below(NODES));
            let pair = (one.min(other), one.max(other));
            match random.below(20) {
                0 if !is_calm => {
                    values[one] = (!random.one_in(3)).then(|| value(&format!("{step}")));
                    tables[one].set(values[one].clone(), now);
                }
                1 if !is_calm => {
                    if let Some((number, _)) = links.remove(&pair) {
                        tables[pair.0].link_ended(number, now);
                        tables[pair.1].link_ended(number, now);
                    }
                }
                _ if one == other => tables[one].time_passed(now),
                // In the end there is a line of links, or more.
                2 if !is_calm || pair.1 == pair.0 + 1 => {
                    link_count += 1;
                    links.entry(pair).or_insert((link_count, [0, 0]));
                }
                _ => {
                    let Some((number, told)) = links.get_mut(&pair) else { continue };
                    let side = usize::from(one == pair.1);
                    let (from, to) = ((*number, id(one as u8)), (*number, id(other as u8)));
                    let (updates, reached) = tables[one].updates_since(told[side], to, now);
                    told[side] = reached;
                    tables[other].receive(from, updates, now);
                }
            }
        }
        for (node, table) in tables.iter().enumerate() {
            let expected = (0..NODES).filter(|other| *other != node);
            let expected =
                expected.filter_map(|other| Some((id(other as u8), values[other].clone()?)));
            let seen: Vec<_> =
                table.others(now).map(|(other, shown)| (other, shown.clone())).collect();
            assert_eq!(seen, expected.collect::<Vec<_>>(), "seed {seed}, node {node}");
        }
    });
}

/// The server's side of a session with somebody who has the secret, open.
fn open_session() -> Session {
    let ids = ([1; 32], [2; 32]);
    let nothing = VersionVector::new();
    let mut client = Session::client(ids, [3; 32], "default".to_owned(), [5; 32], nothing.clone());
    let mut server = Session::server((ids.1, ids.0), [4; 32]);
    let mut events = vec![(true, Event::Started)];
    while let Some((is_client, event)) = events.pop() {
        let side = if is_client { &mut client } else { &mut server };
        for effect in side.handle(event, 0) {
            match effect {
                Effect::Send(message) => events.insert(0, (!is_client, Event::Received(message))),
                Effect::ReadShare(_) => {
                    let held = nothing.clone().into();
                    events.push((false, Event::ShareReady { secret: Some([5; 32]), held }));
                }
                Effect::Notify(_) | Effect::ReadFingerprint => {}
                other => panic!("{other:?}"),
            }
        }
    }
    server
}

fn ready(updates: Vec<PresenceUpdate>, revision: u64) -> Event {
    Event::PresenceReady { updates, revision }
}

#[test]
fn a_peer_is_told_one_thing_at_a_time_and_the_last_in_the_end() {
    let mut session = open_session();
    assert_eq!(session.handle(Event::PresenceChanged, 0), [Effect::ReadPresence { since: 0 }]);
    assert_eq!(session.handle(Event::PresenceChanged, 1), []);
    let first = vec![update(7, 1, Some("first"))];
    let told = session.handle(ready(first.clone(), 4), 1);
    assert_eq!(told, [Effect::Send(Message::Presence(first))]);
    // A slow reader makes nothing queue up.
    for now in 2..1_000 {
        assert_eq!(session.handle(Event::PresenceChanged, now), []);
    }
    let taken = Event::Received(Message::PresenceTaken);
    assert_eq!(session.handle(taken.clone(), 1_000), [Effect::ReadPresence { since: 4 }]);
    assert_eq!(session.handle(ready(Vec::new(), 90), 1_001), []);
    assert_eq!(session.handle(Event::PresenceChanged, 1_002), [Effect::ReadPresence { since: 90 }]);
    let effects = session.handle(taken, 1_003);
    assert!(matches!(effects.last(), Some(Effect::Close(CloseReason::PeerMisbehaved(_)))));
}

#[test]
fn a_peer_is_answered_in_time_and_cut_off_where_it_does_not_wait() {
    let mut session = open_session();
    let said = vec![update(1, 1, Some("here"))];
    let presence = || Event::Received(Message::Presence(said.clone()));
    let (take, answer) = (Effect::TakePresence(said.clone()), Effect::Send(Message::PresenceTaken));
    assert_eq!(session.handle(presence(), 0), [take.clone(), answer.clone()]);
    assert_eq!(session.handle(presence(), 1), std::slice::from_ref(&take));
    assert_eq!(session.deadline(), Some(INTERVAL));
    assert_eq!(session.handle(Event::TimePassed, INTERVAL - 1), []);
    assert_eq!(session.handle(Event::TimePassed, INTERVAL), [answer]);
    assert_eq!(session.handle(presence(), INTERVAL + 1), [take]);
    let effects = session.handle(presence(), INTERVAL + 2);
    let Some(Effect::Close(CloseReason::PeerMisbehaved(what))) = effects.last() else {
        panic!("{effects:?}")
    };
    assert!(what.contains("before the last was taken"), "{what}");
}

#[test]
fn nothing_is_told_before_the_proofs() {
    let mut session = Session::server((id(2), id(1)), [4; 32]);
    assert_eq!(session.handle(Event::PresenceChanged, 0), []);
    let effects = session.handle(Event::Received(Message::Presence(Vec::new())), 0);
    assert!(matches!(effects.last(), Some(Effect::Close(CloseReason::PeerMisbehaved(_)))));
}

fn memory() -> Database {
    Database::open_in_memory().unwrap()
}

async fn joined(presence: &Presence, expected: &[(ReplicaKey, &str)]) {
    let mut expected: Vec<(ReplicaKey, Arc<[u8]>)> =
        expected.iter().map(|(node, text)| (*node, value(text))).collect();
    expected.sort_unstable();
    let deadline = Instant::now() + PATIENCE;
    while presence.others() != expected {
        assert!(Instant::now() < deadline, "{:?} is not {expected:?}", presence.others());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Two clients and a server between them, which passes on what each shows.
async fn clients_see_each_other_through_a_server(config: Config) {
    let stores = [memory(), memory(), memory()];
    let keys = stores.each_ref().map(Database::replica_key);
    let server = Node::spawn(&stores[0], config).await.unwrap();
    let ticket = server.share("default").unwrap();
    let mut clients: Vec<(Node, Link)> = Vec::new();
    let outgoing = Config::loopback;
    for store in &stores[1..] {
        let node = Node::spawn(store, outgoing()).await.unwrap();
        let link = node.connect(&ticket).await.unwrap();
        link.wait_until_synced(PATIENCE).await.unwrap();
        clients.push((node, link));
    }
    let there = [&server, &clients[0].0, &clients[1].0].map(|node| node.presence("default"));
    let mut changes = there[1].changes();
    let seen: Arc<Mutex<Vec<PresenceChange>>> = Arc::default();
    let (of_last, seen_there) = (keys[2], seen.clone());
    let watching = tokio::spawn(async move {
        loop {
            let change = changes.next().await;
            let (PresenceChange::Joined { node, .. }
            | PresenceChange::Updated { node, .. }
            | PresenceChange::Left { node }) = change;
            if node == of_last {
                seen_there.lock().unwrap().push(change);
            }
        }
    });
    there[0].set(b"server").unwrap();
    there[1].set(b"one").unwrap();
    there[2].set(b"typing").unwrap();
    joined(&there[0], &[(keys[1], "one"), (keys[2], "typing")]).await;
    joined(&there[1], &[(keys[0], "server"), (keys[2], "typing")]).await;
    joined(&there[2], &[(keys[0], "server"), (keys[1], "one")]).await;
    // Of many values the last arrives, and those in between may not.
    for number in 0..=500 {
        there[2].set(format!("{number}").as_bytes()).unwrap();
    }
    joined(&there[1], &[(keys[0], "server"), (keys[2], "500")]).await;
    assert_eq!(clients[1].0.presence("elsewhere").others(), []);
    // Leaving by a word, by the end of a session, and by a node's end.
    there[0].clear();
    joined(&there[1], &[(keys[2], "500")]).await;
    let (node, link) = clients.pop().unwrap();
    link.close().await;
    joined(&there[1], &[]).await;
    joined(&there[2], &[]).await;
    let link = node.connect(&ticket).await.unwrap();
    joined(&there[1], &[(keys[2], "500")]).await;
    joined(&there[2], &[(keys[1], "one")]).await;
    node.shutdown().await;
    joined(&there[0], &[(keys[1], "one")]).await;
    drop(link);
    let is_left = |change: &PresenceChange| matches!(change, PresenceChange::Left { .. });
    let deadline = Instant::now() + PATIENCE;
    while !seen.lock().unwrap().last().is_some_and(is_left) {
        assert!(Instant::now() < deadline, "it was not told that it left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    watching.abort();
    let seen = seen.lock().unwrap().clone();
    assert!(matches!(seen[0], PresenceChange::Joined { .. }), "{seen:?}");
    assert!((2..400).contains(&seen.len()), "{} changes of 500 were told", seen.len());
    // Nothing of it was written, anywhere.
    for store in &stores {
        assert_eq!(store.replication("default").unwrap().durable_vector(), VersionVector::new());
    }
    let (node, link) = clients.pop().unwrap();
    let report = link.wait_until_synced(PATIENCE).await.unwrap();
    assert_eq!((report.sent_changes, report.received_changes), (0, 0));
    node.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_each_other_over_quic() {
    clients_see_each_other_through_a_server(Config::loopback()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_each_other_over_websocket() {
    let websocket = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    clients_see_each_other_through_a_server(Config { quic: None, websocket, ..Config::default() })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_shown_as_long_as_a_handle_is_held() {
    let (left, right) = (memory(), memory());
    let nowhere = Config { quic: None, websocket: None, ..Config::default() };
    let server = Node::spawn(&left, nowhere.clone()).await.unwrap();
    let client = Node::spawn(&right, nowhere).await.unwrap();
    let here = client.presence("default");
    here.set(b"before there was a session").unwrap();
    let link = client.connect_in_process(&server, &server.share("default").unwrap()).await.unwrap();
    let watching = server.presence("default");
    let mut changes = watching.changes();
    let node = right.replica_key();
    let text = value("before there was a session");
    assert_eq!(changes.next().await, PresenceChange::Joined { node, value: text.clone() });
    let too_large = here.set(&[0; PRESENCE_BYTES_MAX + 1]);
    assert!(matches!(too_large, Err(Error::PresenceTooLarge { bytes }) if bytes > 4096));
    let largest = [7; PRESENCE_BYTES_MAX];
    here.set(&largest).unwrap();
    let value = largest.as_slice().into();
    assert_eq!(changes.next().await, PresenceChange::Updated { node, value });
    let again = here.clone();
    drop(here);
    assert_eq!(watching.others().len(), 1);
    drop(again);
    assert_eq!(changes.next().await, PresenceChange::Left { node });
    link.close().await;
    client.shutdown().await;
    server.shutdown().await;
}
