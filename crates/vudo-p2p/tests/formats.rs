//! Bytes from outside: what is cut off is refused, nothing panics, and the fuzzer has something of
//! everything to begin with.
//!
//! The seeds of the fuzzer are made here, of stores whose time and randomness are fixed. `VUDO_BLESS=1`
//! writes them anew.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use data_encoding::BASE32_NOPAD;
use vudo_crdt::wire::MalformedFrame;
use vudo_crdt::{
    FieldSchema, GenSchema, ReplicaKey, SignedFrame, Strategy, ValueType, VersionVector,
};
use vudo_p2p::Ticket;
use vudo_p2p::proto::{
    Access, GenFingerprint, GoodbyeCode, Holdings, Message, MessageKind, PROTOCOL_VERSION, Piece,
    PresenceUpdate,
};
use vudo_state::storage::MemoryStorage;
use vudo_state::{
    CursorDigest, Database, Environment, Founding, OpenOptions, PartCursor, PartRequest,
    SignedRecord,
};
use vudo_testkit::Random;

/// Time that stands still, and the randomness of a seed.
struct Surroundings(Mutex<Random>);

impl Environment for Surroundings {
    fn now_milliseconds(&self) -> u64 {
        1_700_000_000_000
    }

    fn fill_random(&self, bytes: &mut [u8]) -> vudo_state::Result<()> {
        self.0.lock().unwrap().fill(bytes);
        Ok(())
    }
}

fn task() -> GenSchema {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    GenSchema::new("Task", [title])
}

/// A store of one document, which was written more than once.
fn database(seed: u64) -> Database {
    let surroundings = Arc::new(Surroundings(Mutex::new(Random::new(seed))));
    let storage = Arc::new(MemoryStorage::default());
    let options = OpenOptions::default();
    let database = Database::with_environment(storage, None, surroundings, &options).unwrap();
    let id = database.document_id(&format!("document {seed}"));
    database.create(&task(), &id, &[("title", "first".into())]).unwrap();
    for title in ["second", "third"] {
        database.update(&task(), &id, &[("title", title.into())]).unwrap();
    }
    database
}

/// All that a store holds, signed.
fn frame_of(database: &Database) -> Vec<u8> {
    let replication = database.replication("default").unwrap();
    replication.frame_since(&VersionVector::new(), usize::MAX).unwrap().unwrap().bytes
}

/// The frame in a signed one, without its checksum.
fn content_of(signed: &[u8]) -> Vec<u8> {
    let frame = SignedFrame::parse(signed).unwrap().frame_bytes();
    frame[..frame.len() - vudo_crdt::checksum(&[]).len()].to_vec()
}

fn founding() -> SignedRecord {
    SignedRecord::founding(Founding { salt: [1; 16], owners: vec![ReplicaKey([7; 32])] })
}

/// What the target `session` has met its peer with.
const FUZZED_CURSOR: CursorDigest = [7; 16];

/// A message of each tag, under a name.
fn examples() -> Vec<(&'static str, Message)> {
    let mut vector = VersionVector::new();
    (0..8).for_each(|replica| vector.advance(ReplicaKey([replica; 32]), 300));
    let log_hashes = vec![[7; 8]; vector.replica_count()];
    let changed = Holdings { log_hashes: log_hashes.clone(), vector: vector.clone() };
    let of_others = Message::HoldingsSince { digest: [8; 16], changed: Holdings::default() };
    let gens = (1..=20).map(|name| GenFingerprint { name: [name; 8], fields: [9; 8] });
    let shown = Some((7, [1, 2][..].into()));
    let hello =
        Message::Hello { version: PROTOCOL_VERSION, namespace: "default".into(), nonce: [1; 32] };
    let mut examples = vec![
        ("hello", hello),
        ("proof", Message::Proof([2; 32])),
        ("key_proof", Message::KeyProof { signature: [4; 64], records: vec![founding()] }),
        ("schema", Message::Schema(gens.collect())),
        ("gens", Message::Gens(vec![4, 5])),
        ("holdings", Message::Holdings(Holdings { log_hashes, vector: vector.clone() })),
        ("holdings_since", Message::HoldingsSince { digest: FUZZED_CURSOR, changed }),
        ("holdings_of_others", of_others),
        ("holdings_wanted", Message::HoldingsWanted),
        ("ack", Message::Ack(vector)),
        ("fingerprint", Message::Fingerprint { vector: [6; 16], fingerprint: [3; 32] }),
        ("roots", Message::Roots(vec![(1, [5; 32]), (300, [6; 32])])),
        (
            "presence",
            Message::Presence(vec![
                PresenceUpdate { origin: [1; 32], clock: 900, shown },
                PresenceUpdate { origin: [2; 32], clock: 0, shown: None },
            ]),
        ),
        ("presence_taken", Message::PresenceTaken),
        ("goodbye", Message::Goodbye(GoodbyeCode::AccessEnded)),
        ("frame_packed", Message::Frame(b"the same again, ".repeat(100))),
    ];
    examples.extend(examples_of_a_store());
    examples
}

/// What a store says of its log, and of a checkpoint of it.
fn examples_of_a_store() -> [(&'static str, Message); 8] {
    let database = database(1);
    let replication = database.replication("default").unwrap();
    let head = replication.latest_signed_head_of(&database.replica_key()).unwrap().unwrap();
    let (ranges, _) = replication.compare_ranges(None, &[3; 32]).unwrap();
    let frame = frame_of(&database);
    assert!(database.compact().unwrap().dropped_changes > 0);
    let offer = replication.checkpoint_offer().unwrap();
    let request = PartRequest { checkpoint: offer.id(), cursor: PartCursor::default() };
    let hashes = replication.checkpoint_part(&request).unwrap().unwrap();
    let after = PartRequest { cursor: hashes.next.unwrap(), ..request.clone() };
    let changes = replication.checkpoint_part(&after).unwrap().unwrap();
    [
        ("frame", Message::Frame(frame.clone())),
        ("head", Message::Head(head)),
        ("branch", Message::Branch(frame)),
        ("ranges", Message::Ranges(ranges)),
        ("checkpoint", Message::Checkpoint(Box::new(offer))),
        ("part_request", Message::PartRequest(request)),
        ("part_of_hashes", Message::Part(Box::new(hashes))),
        ("part_of_changes", Message::Part(Box::new(changes))),
    ]
}

fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

#[test]
fn every_truncation_is_refused_and_random_bytes_never_panic() {
    let mut tags = BTreeSet::new();
    for (name, message) in examples() {
        let bytes = encode(&message);
        assert_eq!(MessageKind::of_first_byte(bytes[0]), message.kind(), "{name}");
        assert_eq!(Message::decode(&bytes), Ok(message));
        for length in 0..bytes.len() {
            assert!(Message::decode(&bytes[..length]).is_err(), "{name}, {length} bytes of it");
        }
        assert!(Message::decode(&[&bytes[..], &[0]].concat()).is_err(), "{name} and a byte");
        tags.insert(bytes[0]);
    }
    let is_known = |tag: &u8| Message::decode(&[*tag]) != Err(MalformedFrame::IndexOutOfRange);
    let known: BTreeSet<u8> = (0..=u8::MAX).filter(is_known).collect();
    assert_eq!(tags, known, "there is an example of each tag that is read");

    let mut random = Random::new(1);
    for _ in 0..20_000 {
        let mut bytes = vec![0; random.below(90)];
        random.fill(&mut bytes);
        if let Some(tag) = bytes.first_mut() {
            // Few tags out of all are known.
            *tag %= 1 + known.len() as u8;
        }
        if let Ok(message) = Message::decode(&bytes) {
            assert_eq!(Message::decode(&encode(&message)), Ok(message));
        }
    }
}

#[test]
fn frames_are_compressed_where_it_saves_and_bombs_are_refused() {
    let plain: Vec<u8> =
        (0..4_000u32).map(|number| (number.wrapping_mul(number) >> 5) as u8).collect();
    let repetitive = b"the same again, ".repeat(1_000);
    for (frame, is_smaller) in [(plain, false), (repetitive, true)] {
        let message = Message::Frame(frame.clone());
        let bytes = encode(&message);
        assert_eq!(bytes.len() < frame.len() / 4, is_smaller, "{} of {}", bytes.len(), frame.len());
        assert_eq!(Message::decode(&bytes), Ok(message));
        for length in (0..bytes.len()).step_by(7) {
            assert!(Message::decode(&bytes[..length]).is_err());
        }
    }
    // Twenty bytes that claim to be a frame of 16 MiB, and ones that become fewer than they claim.
    for claimed in [16 << 20, 400u64] {
        let mut bomb = vec![8];
        vudo_crdt::wire::write_varint(&mut bomb, claimed);
        vudo_crdt::wire::write_bytes(&mut bomb, &[0x1f; 20]);
        assert!(Message::decode(&bomb).is_err());
    }
}

/// Checks a seed of a fuzz target, or writes it anew.
fn check_seed(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    if std::env::var_os("VUDO_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let kept = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; VUDO_BLESS=1 writes it", path.display()));
    assert!(kept == bytes, "{name} is out of date; VUDO_BLESS=1 writes it anew");
}

/// What the target `session` takes for a session: who it is to, and what the peer says to it.
fn session_seed(is_to_client: bool, said: &[&str]) -> Vec<u8> {
    let examples = examples();
    let mut seed = vec![u8::from(is_to_client)];
    for name in said {
        let (_, message) = examples.iter().find(|(found, _)| found == name).unwrap();
        let bytes = match message {
            // The target puts checksum and signatures behind it.
            Message::Frame(signed) => encode(&Message::Frame(content_of(signed))),
            message => encode(message),
        };
        seed.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        seed.extend_from_slice(&bytes);
    }
    seed
}

#[test]
fn the_seeds_of_the_fuzzer_are_of_this_format() {
    for (name, message) in examples() {
        check_seed(&format!("message/{name}"), &encode(&message));
    }
    let sessions: [(&str, bool, &[&str]); 10] = [
        (
            "presence",
            false,
            &["holdings", "schema", "ack", "presence", "presence_taken", "goodbye"],
        ),
        ("frame", false, &["holdings", "ack", "fingerprint", "frame"]),
        ("checkpoint", false, &["holdings", "checkpoint", "part_of_hashes", "part_of_changes"]),
        ("part_request", false, &["holdings", "ack", "part_request"]),
        ("fork", false, &["holdings", "head", "roots", "branch"]),
        ("cursor", false, &["holdings_since", "ack", "fingerprint", "frame"]),
        ("asked", true, &["holdings_of_others", "frame", "holdings", "ack"]),
        ("asks", false, &["holdings_since", "holdings_wanted"]),
        ("client", true, &["holdings", "schema", "ack", "presence", "frame"]),
        ("client_ranges", true, &["holdings", "ack", "fingerprint", "ranges"]),
    ];
    for (name, is_to_client, said) in sessions {
        let said = [&["hello", "proof"], said].concat();
        check_seed(&format!("session/{name}"), &session_seed(is_to_client, &said));
    }
    let by_key = session_seed(false, &["hello", "key_proof", "holdings", "ack"]);
    check_seed("session/by_key", &by_key);
}

#[test]
fn the_seeds_of_frames_pieces_and_tickets_are_of_this_format() {
    let (one, other) = (database(1), database(2));
    let alone = content_of(&frame_of(&one));
    one.replication("default").unwrap().apply_frame(&frame_of(&other)).unwrap();
    let together = content_of(&frame_of(&one));
    // The first byte says which flaw the signatures have.
    check_seed("signed_frame/of_one", &[&[0], &alone[..]].concat());
    check_seed("signed_frame/of_two", &[&[0], &together[..]].concat());
    check_seed("signed_frame/of_another_length", &[&[1], &alone[..]].concat());
    check_seed("signed_frame/of_another_key", &[&[2], &alone[..]].concat());

    let hello = encode(&examples()[0].1);
    let piece = |channel, is_end, content| Piece { channel, is_end, content }.encode();
    check_seed("piece/greeting", &[1; 32]);
    check_seed("piece/first", &piece(0, false, &hello));
    check_seed("piece/last", &piece(300, true, &[]));

    let with_secret = Ticket {
        node: [1; 32],
        addresses: vec!["192.0.2.1:7".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap()],
        urls: vec!["ws://example.org/sync".into()],
        relays: vec!["https://relay.example.org/".into()],
        namespace: "default".into(),
        access: Access::Secret([5; 32]),
    };
    let for_key = with_secret.clone().for_key(vec![founding()]).unwrap();
    for (name, ticket) in [("with_secret", with_secret), ("for_key", for_key)] {
        let text = ticket.to_string();
        check_seed(&format!("ticket/{name}_text"), text.as_bytes());
        // The target puts the checksum behind the bytes.
        let encoded = text.strip_prefix("vudo3").unwrap().to_ascii_uppercase();
        let bytes = BASE32_NOPAD.decode(encoded.as_bytes()).unwrap();
        check_seed(&format!("ticket/{name}"), &bytes[..bytes.len() - 4]);
    }
}

#[test]
fn the_reference_is_of_this_version() {
    let reference = include_str!("../../../docs/reference/sync-protocol.md");
    assert!(reference.contains(&format!("\nVersion {PROTOCOL_VERSION}. ")));
}
