//! Bytes that stores keep and peers exchange, frozen: a change of format is a decision.
//!
//! `VUDO_BLESS=1` writes the files anew; a new format needs a version and a CHANGELOG line too.

use std::path::Path;

use vudo_crdt::head::{Head, SignedHead};
use vudo_crdt::merkle::{MerkleLog, leaf_hash};
use vudo_crdt::{
    Direction, FieldSchema, InMemory, Log, Namespace, ReplicaKey, Strategy, TablePart, Transaction,
    Value, ValueType,
};

const BYTES_PER_LINE: usize = 32;

fn to_hex(bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| chunk.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(BYTES_PER_LINE).map(|chunk| line(chunk) + "\n").collect()
}

fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let found = to_hex(bytes);
    if std::env::var_os("VUDO_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let frozen = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; VUDO_BLESS=1 writes it", path.display()));
    assert!(
        frozen == found,
        "{name} is not what it was; after a deliberate change of format run with VUDO_BLESS=1\n\
         frozen:\n{frozen}\nfound:\n{found}"
    );
}

/// Two changes of one replica and one of another, with every strategy, two Gens, an overwrite with
/// a time of its own, and a deletion.
fn example() -> (Namespace, Log) {
    let field = FieldSchema::new;
    let id = field("id", 1, Strategy::Immutable, ValueType::String);
    let title = field("title", 2, Strategy::Lww, ValueType::String);
    let rank = field("rank", 3, Strategy::LwwContent, ValueType::U64);
    let votes = field("votes", 4, Strategy::PnCounter, ValueType::I64);
    let mass = field("mass", 5, Strategy::PnCounterFloat, ValueType::F64);
    let ratio = field("ratio", 300, Strategy::Lww, ValueType::F64);
    let done = field("done", 65_535, Strategy::Lww, ValueType::Bool);
    let likes = field("likes", 6, Strategy::GCounter, ValueType::U32);
    let owner = field("owner", 7, Strategy::MvRegister, ValueType::String);
    let seats = field("seats", 8, Strategy::BoundedCounter, ValueType::U8);
    let text = || Box::new(ValueType::String);
    let tags = field("tags", 9, Strategy::OrSet, ValueType::Set(text()));
    let mut stock = field("stock", 10, Strategy::Map, ValueType::Map(text(), text()));
    stock.value_strategy = Strategy::Lww;
    let shelf = stock.map_value().unwrap();

    let mut namespace = Namespace::new(0);
    let mut log = Log::default();
    let (space, disk) = (&mut namespace, &mut InMemory);
    // The greater key comes first, so that the canonical form has to sort.
    let first = space.intern_replica(ReplicaKey([0xee; 32]));
    let second = space.intern_replica(ReplicaKey([0x11; 32]));
    space.set_founder(first);
    let task = space.intern_gen("Task").unwrap();
    let note = space.intern_gen("a.Note").unwrap();

    let mut transaction = Transaction::begin(space, first, 1_700_000_000_000);
    transaction.create(space, disk, task, b"milk").unwrap();
    transaction.set(space, disk, task, b"milk", &id, &"1".into()).unwrap();
    transaction.set(space, disk, task, b"milk", &title, &"Buy milk".into()).unwrap();
    transaction.set(space, disk, task, b"milk", &rank, &u64::MAX.into()).unwrap();
    transaction.add(space, disk, task, b"milk", &votes, 300).unwrap();
    transaction.add_float(space, disk, task, b"milk", &mass, -0.5).unwrap();
    transaction.add(space, disk, task, b"milk", &likes, 2).unwrap();
    transaction.set(space, disk, task, b"milk", &owner, &"Ada".into()).unwrap();
    transaction.add(space, disk, task, b"milk", &seats, 40).unwrap();
    let receiver = ReplicaKey([0x11; 32]);
    let (up, amount) = (Direction::Up, 5);
    transaction.give_rights(space, disk, task, b"milk", &seats, &receiver, up, amount).unwrap();
    let element = |name: &str| Value::from(name).to_bytes();
    transaction.add_element_loaded(space, task, b"milk", tags.id(), &element("new")).unwrap();
    transaction.add_element_loaded(space, task, b"milk", tags.id(), &element("cold")).unwrap();
    let entry = transaction.entry_loaded(space, task, b"milk", stock.id(), &element("left"));
    transaction.set(space, disk, task, &entry.unwrap(), &shelf, &"two".into()).unwrap();
    transaction.create(space, disk, note, "café".as_bytes()).unwrap();
    transaction.commit(space, disk, &mut log).unwrap();

    let mut transaction = Transaction::begin(space, second, 1_600_000_000_000);
    transaction.set(space, disk, task, b"milk", &title, &"Buy oat milk".into()).unwrap();
    transaction.set(space, disk, task, b"milk", &ratio, &Value::Float(-0.0)).unwrap();
    transaction.set(space, disk, task, b"milk", &done, &true.into()).unwrap();
    transaction.add(space, disk, task, b"milk", &votes, -7).unwrap();
    transaction.set(space, disk, task, b"milk", &owner, &"Bob".into()).unwrap();
    transaction.remove_element_loaded(space, task, b"milk", tags.id(), &element("new")).unwrap();
    transaction.remove_entry_loaded(space, task, b"milk", stock.id(), &element("left")).unwrap();
    transaction.commit(space, disk, &mut log).unwrap();

    let mut transaction = Transaction::begin(space, first, 1_700_000_000_001);
    transaction.delete(space, disk, note, "café".as_bytes()).unwrap();
    transaction.commit(space, disk, &mut log).unwrap();
    (namespace, log)
}

#[test]
fn frames_and_states_have_the_bytes_they_always_had() {
    let (mut namespace, log) = example();
    let frame = log.frame_since(&namespace, &Default::default());
    check("frame.hex", &frame);
    let state = namespace.canonical_bytes(&mut InMemory).unwrap();
    check("state.hex", &state);
    check("fingerprint.hex", &namespace.fingerprint(&mut InMemory).unwrap().0);
    let mut pages = Vec::new();
    let emit = |page| -> Result<(), std::convert::Infallible> {
        pages.push(page);
        Ok(())
    };
    let root = namespace.write_pages(&mut InMemory, emit).unwrap();
    assert_eq!(root.page_count, 3, "documents of each Gen, and the entries of one");
    check("page.hex", &pages[0]);
    check("state_root.hex", &root.root);
    let mut merkle = MerkleLog::new();
    for change in log.changes().filter(|change| change.replica == 0) {
        merkle.push(leaf_hash("home", &namespace, &change), |_, _| ());
    }
    check("log_root.hex", &merkle.root());
    check("directory.hex", &namespace.encode_directory());
    let mut chunks = Vec::new();
    let table = namespace.table_mut(0, TablePart::Documents);
    let persisted = table.persist(&mut 1, &mut InMemory, |_, bytes, _| chunks.push(bytes)).unwrap();
    assert_eq!(chunks.len(), 1);
    check("chunk.hex", &chunks[0]);
    check("table_directory.hex", &persisted.directory.unwrap());
    assert_eq!(
        persisted.buffer.unwrap(),
        [],
        "there was no chunk that it would not pay to rewrite"
    );

    let mut peer = Namespace::new(1);
    peer.apply_frame(&frame, &mut InMemory, &mut ()).unwrap();
    assert_eq!(peer.canonical_bytes(&mut InMemory).unwrap(), state);
}

/// The fuzzer begins with these pages and heads, of this format.
#[test]
fn the_seeds_of_the_fuzzer_are_pages_and_heads_of_this_format() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let seed = |path: &str, bytes: &[u8]| {
        let path = corpus.join(path);
        if std::env::var_os("VUDO_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{} is out of date", path.display());
    };
    for (name, (namespace, _)) in
        [("all_strategies", example()), ("delete_and_recreate", recreation())]
    {
        let mut place = 0;
        let emit = |page: Vec<u8>| -> Result<(), std::convert::Infallible> {
            let content = &page[..page.len() - vudo_crdt::checksum(&[]).len()];
            seed(&format!("page/{name}_{place}"), content);
            place += 1;
            Ok(())
        };
        namespace.write_pages(&mut InMemory, emit).unwrap();
    }
    let head = Head {
        namespace: "home".into(),
        replica: ReplicaKey([0x11; 32]),
        length: 300,
        root: [0x22; 32],
    };
    let mut bytes = Vec::new();
    SignedHead { head, signature: [0x33; 64] }.encode(&mut bytes);
    seed("head/of_300", &bytes);
}

/// A document that is deleted and created again.
fn recreation() -> (Namespace, Log) {
    let title = FieldSchema::new("title", 2, Strategy::Lww, ValueType::String);
    let mut namespace = Namespace::new(0);
    let mut log = Log::default();
    let (space, disk) = (&mut namespace, &mut InMemory);
    let replica = space.intern_replica(ReplicaKey([0x22; 32]));
    let task = space.intern_gen("Task").unwrap();
    let mut transaction = Transaction::begin(space, replica, 1_000);
    transaction.create(space, disk, task, b"milk").unwrap();
    transaction.commit(space, disk, &mut log).unwrap();
    let mut transaction = Transaction::begin(space, replica, 1_001);
    transaction.delete(space, disk, task, b"milk").unwrap();
    transaction.commit(space, disk, &mut log).unwrap();
    let mut transaction = Transaction::begin(space, replica, 1_002);
    transaction.create(space, disk, task, b"milk").unwrap();
    transaction.set(space, disk, task, b"milk", &title, &"again".into()).unwrap();
    transaction.commit(space, disk, &mut log).unwrap();
    (namespace, log)
}

/// The fuzzer begins with these frames, without their checksums. Of an older format they would
/// leave it at the front door.
#[test]
fn the_seeds_of_the_fuzzer_are_frames_of_this_format() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/frame");
    for (name, (namespace, log)) in
        [("all_strategies", example()), ("delete_and_recreate", recreation())]
    {
        let frame = log.frame_since(&namespace, &Default::default());
        let content = &frame[..frame.len() - vudo_crdt::checksum(&[]).len()];
        if std::env::var_os("VUDO_BLESS").is_some() {
            std::fs::write(folder.join(name), content).unwrap();
        }
        assert!(std::fs::read(folder.join(name)).unwrap() == content, "{name} is out of date");
    }
}
