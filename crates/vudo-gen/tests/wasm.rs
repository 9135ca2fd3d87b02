//! Modules in a WASM interpreter against the native store: the same bytes, the same state.

#[path = "wasm/host.rs"]
mod host;

use std::collections::BTreeSet;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use host::{Host, NOW, Native, Random, every_field, one_gen, user, user_fields};
use vudo_crdt::wire::Reader;
use vudo_crdt::{
    ApplyError, CounterOptions, FieldSchema, GenSchema, MalformedFrame, Overflow, Predecessor,
    Schema, Strategy, Value, ValueType, VersionVector,
};
use vudo_gen::wasm::{
    Accessors, BuildError, BuildOptions, SCHEMA_SECTION, build, build_with, error_name, inspect,
};
use wasmi::Val;

fn gzipped_bytes(bytes: &[u8]) -> usize {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().len()
}

#[test]
fn a_user_is_created_written_read_and_deleted() {
    let mut host = Host::open(&build(&user()).unwrap().wasm, 1);
    assert_eq!(host.document("User", "create", "alice", NOW), 0);
    assert_eq!(host.read(("User", "name"), "alice"), Ok(None));
    assert_eq!(host.write(("User", "name"), "alice", &"Alice".into(), NOW), 0);
    assert_eq!(host.write(("User", "id"), "alice", &"a-1".into(), NOW), 0);
    let again = host.write(("User", "id"), "alice", &"a-2".into(), NOW);
    assert_eq!(error_name(again), Some("immutable"));
    assert_eq!(host.write(("User", "reputation"), "alice", &5.into(), NOW), 0);
    assert_eq!(host.write(("User", "reputation"), "alice", &(-7).into(), NOW), 0);
    assert_eq!(host.read(("User", "id"), "alice"), Ok(Some("a-1".into())));
    assert_eq!(host.read(("User", "name"), "alice"), Ok(Some("Alice".into())));
    assert_eq!(host.read(("User", "reputation"), "alice"), Ok(Some((-2).into())));
    assert_eq!(host.keys("User"), ["alice"]);
    assert_eq!(host.document("User", "delete", "alice", NOW), 0);
    assert!(!host.exists("User", "alice"));
    assert!(host.keys("User").is_empty());
    let gone = host.read(("User", "name"), "alice").unwrap_err();
    assert_eq!(error_name(gone), Some("not_found"));
}

/// Makes the same random writes in a module and in the native store, comparing every outcome.
fn write_alike(schema: &Schema, host: &mut Host, native: &mut Native, seed: u64, count: usize) {
    let mut random = Random(seed);
    for step in 0..count {
        let gen_schema = &schema.gens[random.below(schema.gens.len())];
        let gen_name = gen_schema.name.as_str();
        let key = format!("key {}", random.below(12));
        let now = NOW + random.next() % 1000;
        let choice = random.below(12);
        if choice < 3 || gen_schema.fields.is_empty() {
            let operation = if choice == 0 { "delete" } else { "create" };
            let code = host.document(gen_name, operation, &key, now);
            let is_done = native.document(gen_name, operation, &key, now);
            assert_eq!(code == 0, is_done, "step {step}: {operation} {key}: {code}");
            continue;
        }
        let field = &gen_schema.fields[random.below(gen_schema.fields.len())];
        let mut value = random.value(&field.value_type);
        if let (Value::Int(number), true) = (&value, field.strategy.is_counter()) {
            value = Value::Int((*number as i64).into());
        }
        let name = (gen_name, &*field.name);
        let code = host.write(name, &key, &value, now);
        let is_done = native.write(name, &key, &value, now);
        assert_eq!(code == 0, is_done, "step {step}: {field:?} = {value}: {code}");
        let read = host.read(name, &key);
        assert_eq!(read.map_err(|_| ()), native.read(name, &key), "step {step}: {field:?}");
    }
}

/// Writes on both sides, exchanges frames, and compares bytes and every field.
fn converge(schema: &Schema, seed: u64, count: usize) {
    let wasm = build(schema).unwrap().wasm;
    let (mut host, mut native) = (Host::open(&wasm, 1), Native::open(schema, 1));
    write_alike(schema, &mut host, &mut native, seed, count);
    let frame = host.changes_since(&[]);
    assert_eq!(frame, native.changes_since(&VersionVector::new()));

    let (mut other_host, mut other_native) = (Host::open(&wasm, 2), Native::open(schema, 2));
    write_alike(schema, &mut other_host, &mut other_native, seed + 1, count);
    let held = other_host.version();
    let held = VersionVector::decode(&mut Reader::new(&held)).unwrap();
    assert_eq!(held, other_native.namespace.version_vector());

    let version = host.version();
    let back = other_host.changes_since(&version);
    assert_eq!(host.merge(&back), 0);
    native.merge(&back);
    assert_eq!(other_host.merge(&frame), 0);
    assert_eq!(other_host.merge(&frame), 0, "merging twice changes nothing");
    other_native.merge(&frame);
    for gen_schema in &schema.gens {
        let keys = host.keys(&gen_schema.name);
        assert_eq!(keys, other_host.keys(&gen_schema.name));
        for key in &keys {
            for field in &gen_schema.fields {
                let name = (gen_schema.name.as_str(), &*field.name);
                let read = host.read(name, key);
                assert_eq!(read, other_host.read(name, key), "{key} {field:?}");
                assert_eq!(read.map_err(|_| ()), native.read(name, key), "{key} {field:?}");
            }
        }
    }
    assert_eq!(host.changes_since(&[]), native.changes_since(&VersionVector::new()));
}

#[test]
fn a_user_module_and_the_native_store_converge_byte_by_byte() {
    converge(&user(), 1, 400);
}

#[test]
fn every_strategy_alone_converges() {
    for field in every_field() {
        let seed = field.number.into();
        converge(&one_gen("Thing", vec![field]), seed, 60);
    }
}

#[test]
fn all_strategies_together_converge() {
    converge(&one_gen("Thing", every_field()), 77, 1500);
}

#[test]
fn several_gens_live_in_one_module() {
    let empty = GenSchema::new("Marker", []);
    let mut schema = one_gen("chat.message", every_field());
    schema.gens.push(empty);
    schema.gens.extend(user().gens);
    converge(&schema, 5, 800);
}

#[test]
fn defaults_bounds_and_overflow_are_the_native_ones() {
    let mut fields = user_fields();
    fields[1].default = Some("nobody".into());
    fields[2].counter =
        CounterOptions { min_value: Some(-3), max_value: Some(900), overflow: Overflow::Saturate };
    for (number, overflow) in [(4, Overflow::Saturate), (5, Overflow::Wrap), (6, Overflow::Error)] {
        let name = format!("level{number}");
        let mut field = FieldSchema::new(&name, number, Strategy::PnCounter, ValueType::I8);
        field.counter.overflow = overflow;
        fields.push(field);
    }
    let mut flag = FieldSchema::new("flag", 7, Strategy::Lww, ValueType::Bool);
    flag.default = Some(true.into());
    fields.push(flag);
    converge(&one_gen("User", fields), 9, 900);
}

#[test]
fn a_transaction_is_one_change_and_rolls_back_whole() {
    let schema = user();
    let mut host = Host::open(&build(&schema).unwrap().wasm, 1);
    let mut native = Native::open(&schema, 1);
    host.document("User", "create", "alice", NOW);
    native.document("User", "create", "alice", NOW);
    assert_eq!(host.call("begin", &[Val::F64((NOW as f64).into())]), 0);
    let twice = host.call("begin", &[Val::F64((NOW as f64).into())]);
    assert_eq!(error_name(twice), Some("transaction_open"));
    let mut transaction = native.begin(NOW);
    for (field, value) in [("name", "A".into()), ("reputation", 4.into())] {
        assert_eq!(host.write(("User", field), "alice", &value, NOW), 0);
        assert!(native.write_in(&mut transaction, ("User", field), "alice", &value));
    }
    let read = host.read(("User", "reputation"), "alice");
    assert_eq!(read, Ok(Some(4.into())), "a transaction reads what it wrote");
    let merged = host.merge(&[]);
    assert_eq!(error_name(merged), Some("transaction_open"));
    assert_eq!(host.call("commit", &[]), 0);
    native.commit(transaction);
    let frame = native.changes_since(&VersionVector::new());
    assert_eq!(host.changes_since(&[]), frame);

    assert_eq!(host.call("begin", &[Val::F64((NOW as f64).into())]), 0);
    host.document("User", "delete", "alice", NOW);
    assert!(!host.exists("User", "alice"));
    assert_eq!(host.call("rollback", &[]), 0);
    assert!(host.exists("User", "alice"));
    assert_eq!(host.changes_since(&[]), frame);
    assert_eq!(error_name(host.call("commit", &[])), Some("no_transaction"));
}

#[test]
fn a_module_forwards_what_it_does_not_know() {
    let wide = one_gen("Thing", every_field());
    let mut sender = Native::open(&wide, 2);
    let mut random = Random(3);
    sender.document("Thing", "create", "one", NOW);
    for field in &wide.gens[0].fields {
        let value = random.value(&field.value_type);
        sender.write(("Thing", &field.name), "one", &value, NOW);
        sender.write(("Thing", &field.name), "one", &value, NOW + 1);
    }
    let frame = sender.changes_since(&VersionVector::new());
    let narrow = one_gen("Other", vec![]);
    let mut host = Host::open(&build(&narrow).unwrap().wasm, 1);
    assert_eq!(host.merge(&frame), 0);
    let mut receiver = Native::open(&wide, 3);
    receiver.merge(&host.changes_since(&[]));
    for field in &wide.gens[0].fields {
        let name = ("Thing", &*field.name);
        assert_eq!(receiver.read(name, "one"), sender.read(name, "one"));
    }
}

#[test]
fn damaged_frames_are_refused_by_a_code_and_change_nothing() {
    let schema = one_gen("Thing", every_field());
    let mut sender = Native::open(&schema, 2);
    let wasm = build(&schema).unwrap().wasm;
    write_alike(&schema, &mut Host::open(&wasm, 2), &mut sender, 11, 300);
    let frame = sender.changes_since(&VersionVector::new());
    let mut host = Host::open(&wasm, 1);
    let before = host.changes_since(&[]);
    let mut random = Random(12);
    let mut unseen_count = 0;
    for attempt in 0..1000 {
        let mut damaged = frame.clone();
        if attempt % 2 == 0 {
            damaged.truncate(random.below(frame.len()));
        } else {
            let at = random.below(frame.len());
            damaged[at] ^= 1 << random.below(8);
        }
        // A right checksum over every other damaged frame, so that the parser behind it is met.
        if attempt % 4 > 1 && damaged.len() > 8 {
            let content = damaged.len() - 8;
            let sum = vudo_crdt::checksum(&damaged[..content]);
            damaged[content..].copy_from_slice(&sum);
        }
        let mut twin = Native::open(&schema, 1);
        let native = twin.namespace.apply_frame(&damaged, &mut vudo_crdt::InMemory, &mut twin.log);
        let code = host.merge(&damaged);
        // A module takes the strategies that it does not have for those of a later version, which
        // it passes on without looking into them.
        let is_unseen = code == 0 && matches!(native, Err(ApplyError::Malformed(_)));
        let agrees = (code == 0) == native.is_ok() || is_unseen;
        assert!(agrees, "attempt {attempt}: {code} against {native:?}");
        unseen_count += usize::from(is_unseen);
        if code == 0 {
            host = Host::open(&wasm, 1);
        } else {
            assert!(error_name(code).is_some());
            assert_eq!(host.changes_since(&[]), before);
        }
    }
    assert!(unseen_count < 10, "{unseen_count} damaged frames were accepted");
    assert_eq!(host.merge(&frame), 0);
}

#[test]
fn hosts_that_call_wrongly_get_a_code() {
    let mut host = Host::open(&build(&user()).unwrap().wasm, 1);
    host.put(&[9; 32]);
    let again = host.call("open", &[Val::I64(1)]);
    assert_eq!(error_name(again), Some("already_open"));
    assert_eq!(host.call("input", &[Val::I32(-1)]), 0, "four gigabytes are refused");
    host.put(b"alice");
    let long = host.call("User.name.get", &[Val::I32(6)]);
    assert_eq!(error_name(long), Some("input_length"));
    host.put(&[0xff]);
    let not_text = host.call("User.create", &[Val::F64(0.0.into())]);
    assert_eq!(error_name(not_text), Some("string_not_utf8"));
    let empty = host.document("User", "create", "", NOW);
    assert_eq!(error_name(empty), Some("key_length"));
    host.document("User", "create", "alice", NOW);
    host.put(b"alice\xff");
    let arguments = [Val::I32(5), Val::F64(f64::NAN.into())];
    let not_text = host.call("User.name.set", &arguments);
    assert_eq!(error_name(not_text), Some("string_not_utf8"));
}

#[test]
fn keys_are_checked_for_utf8_as_the_standard_library_does() {
    /// Bytes at which the rules of UTF-8 change.
    const EDGES: [u8; 22] = [
        0x01, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
        0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff,
    ];
    let mut host = Host::open(&build(&user()).unwrap().wasm, 1);
    let mut random = Random(21);
    let mut valid_count = 0;
    for _ in 0..10_000 {
        let length = 1 + random.below(4);
        let key: Vec<u8> = (0..length).map(|_| EDGES[random.below(EDGES.len())]).collect();
        host.put(&key);
        let code = host.call("User.create", &[Val::F64(0.0.into())]);
        let is_valid = std::str::from_utf8(&key).is_ok();
        assert_eq!(error_name(code) != Some("string_not_utf8"), is_valid, "{key:x?}");
        valid_count += usize::from(is_valid);
    }
    assert!(valid_count > 300);
}

#[test]
fn freed_memory_is_used_again() {
    let mut host = Host::open(&build(&user()).unwrap().wasm, 1);
    host.document("User", "create", "alice", NOW);
    let frame = host.changes_since(&[]);
    let noise = vec![0; 100_000];
    let mut used = Vec::new();
    for round in 0..60 {
        host.merge(&noise[..noise.len() - round]);
        host.merge(&frame);
        host.keys("User");
        used.push(host.memory_bytes());
    }
    assert_eq!(used[10], used[59], "memory grows without anything being kept");
}

#[test]
fn many_documents_reach_the_chunks_and_stay_sorted() {
    let mut host = Host::open(&build(&user()).unwrap().wasm, 1);
    let mut native = Native::open(&user(), 1);
    let mut transaction = native.begin(NOW);
    assert_eq!(host.call("begin", &[Val::F64((NOW as f64).into())]), 0);
    let text = "x".repeat(200);
    for number in 0..6000 {
        let key = format!("user {:05}", number * 7919 % 6000);
        let index = native.namespace.find_gen("User").unwrap();
        let created = transaction.create(
            &mut native.namespace,
            &mut vudo_crdt::InMemory,
            index,
            key.as_bytes(),
        );
        created.unwrap();
        assert_eq!(host.document("User", "create", &key, NOW), 0);
        native.write_in(&mut transaction, ("User", "name"), &key, &text.as_str().into());
        assert_eq!(host.write(("User", "name"), &key, &text.as_str().into(), NOW), 0);
    }
    native.commit(transaction);
    assert_eq!(host.call("commit", &[]), 0);
    let frame = host.changes_since(&[]);
    assert!(frame == native.changes_since(&VersionVector::new()));
    let keys = host.keys("User");
    assert_eq!(keys.len(), 6000);
    assert!(keys.is_sorted());
    assert_eq!(host.read(("User", "name"), "user 05999"), Ok(Some(text.as_str().into())));
}

#[test]
fn the_schema_is_read_back_from_the_module() {
    let mut schema = one_gen("Thing", every_field());
    schema.gens.extend(user().gens);
    let wasm = build(&schema).unwrap().wasm;
    assert_eq!(inspect(&wasm), Ok(schema));
    assert!(matches!(inspect(b"MZ"), Err(BuildError::NotAModule(_))));
    assert!(matches!(inspect(&wasm[..wasm.len() - 1]), Err(BuildError::NotAModule(_))));
    assert_eq!(inspect(b"\0asm\x01\0\0\0"), Err(BuildError::NoSchema));
}

/// The first place of a text in a module.
fn place_of(text: &str, wasm: &[u8]) -> usize {
    wasm.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

#[test]
fn a_schema_is_read_back_whatever_its_names_and_numbers_are() {
    for accessors in [Accessors::Typed, Accessors::Generic] {
        let mut fields = every_field();
        fields.reverse();
        fields[0].number = u32::from(u16::MAX);
        for (field, name) in fields.iter_mut().zip(["keys", "a.b", ".", "\0", "get"]) {
            field.name = name.into();
        }
        // Names that begin with each other, and numbers that start anew.
        let mut schema = one_gen("a", fields);
        schema.gens.push(GenSchema::new("a.keys", every_field()));
        schema.gens.push(GenSchema::new("empty", []));
        schema.gens.push(GenSchema::new("a.b", user_fields()));
        let options = BuildOptions { accessors, ..BuildOptions::default() };
        let wasm = build_with(&schema, &options).unwrap().wasm;
        assert_eq!(inspect(&wasm), Ok(schema));
    }
}

#[test]
fn a_schema_that_its_module_does_not_bear_out_is_refused() {
    let wasm = build(&user()).unwrap().wasm;
    let unnamed = |number| Err(BuildError::Unnamed { gen_name: "User".into(), number });
    for (text, byte, expected) in [
        ("User.keys", b'K', unnamed(1)),
        ("User.id.get", b'u', unnamed(1)),
        ("User.name.set", b'u', unnamed(2)),
        ("vudo.schema", b'V', Err(BuildError::NoSchema)),
    ] {
        let mut changed = wasm.clone();
        changed[place_of(text, &wasm)] = byte;
        assert_eq!(inspect(&changed), expected, "{text}");
    }
    // Of one field the exports disagree about the name, and then about what there is to do.
    for (text, number) in [("name.get", 2), ("reputation.add", 3)] {
        let mut changed = wasm.clone();
        changed[place_of(text, &wasm) + 1] = b'x';
        assert_eq!(inspect(&changed), unnamed(number));
        changed = wasm.clone();
        changed[place_of(text, &wasm) + text.len() - 1] = b'x';
        assert_eq!(inspect(&changed), unnamed(number));
    }
    let mut changed = wasm.clone();
    let version = place_of(SCHEMA_SECTION, &wasm) + SCHEMA_SECTION.len();
    changed[version] = b'V';
    assert_eq!(inspect(&changed), Err(BuildError::Schema(MalformedFrame::FormatVersion)));
    changed[version] = 2;
    assert!(inspect(&changed).is_ok_and(|schema| *schema.gens[0].fields[0].name == *"\0"));
}

#[test]
fn damaged_modules_are_inspected_without_a_panic() {
    let wasm = build(&one_gen("Thing", every_field())).unwrap().wasm;
    let (start, end) = (place_of(SCHEMA_SECTION, &wasm), place_of("Thing.keys", &wasm));
    let mut random = Random(31);
    let mut refused_count = 0;
    for _ in 0..1000 {
        let mut damaged = wasm.clone();
        for _ in 0..=random.below(3) {
            damaged[start + random.below(end - start + 200)] = random.next() as u8;
        }
        refused_count += usize::from(inspect(&damaged).is_err());
    }
    assert!(refused_count > 500, "{refused_count} of 1000 damaged modules were refused");
}

#[test]
fn a_schema_that_no_store_could_hold_is_refused() {
    let mut fields = user_fields();
    fields[1].number = 1;
    let refused = build(&one_gen("User", fields)).unwrap_err();
    assert_eq!(refused.to_string(), "field User.name: another field has this number");
    let counter = FieldSchema::new("sum", 1, Strategy::PnCounter, ValueType::String);
    let refused = build(&one_gen("User", vec![counter])).unwrap_err();
    assert_eq!(refused.to_string(), "field User.sum: the strategy does not merge this type");
    for (strategy, earlier, expected) in [
        (Strategy::BoundedCounter, ValueType::I32, "a bounded counter was nothing else before"),
        (Strategy::PnCounter, ValueType::String, "the strategy does not merge this type"),
    ] {
        let mut wider = FieldSchema::new("sum", 2, strategy, ValueType::I64);
        let field = FieldSchema::new("sum", 1, Strategy::PnCounter, earlier);
        wider.predecessor = Some(Box::new(Predecessor { field, conversion: None }));
        let refused = build(&one_gen("User", vec![wider])).unwrap_err();
        assert_eq!(refused.to_string(), format!("field User.sum: {expected}"));
    }
    let mut twice = user();
    twice.gens.extend(user().gens);
    assert_eq!(build(&twice).unwrap_err().to_string(), "gen User: another Gen has this name");
}

#[test]
fn the_output_is_the_same_every_time() {
    let schema = one_gen("Thing", every_field());
    assert_eq!(build(&schema).unwrap(), build(&schema).unwrap());
}

#[test]
fn exports_are_those_of_the_schema() {
    let host = Host::open(&build(&user()).unwrap().wasm, 1);
    assert!(host.has_export("User.reputation.add"));
    assert!(!host.has_export("User.reputation.set"));
    assert!(!host.has_export("set_string"), "the runtime's own functions are not for hosts");
}

/// Prints the sizes of what is built from a schema, gzipped: module and JavaScript.
fn sizes(name: &str, schema: &Schema) -> (usize, usize) {
    let module = build(schema).unwrap();
    let (wasm, javascript) =
        (gzipped_bytes(&module.wasm), gzipped_bytes(module.javascript.as_bytes()));
    println!(
        "{name}: {} bytes, gzipped {wasm}; JavaScript {} bytes, gzipped {javascript}",
        module.wasm.len(),
        module.javascript.len()
    );
    (wasm, javascript)
}

/// What has been reached, so that nothing grows unseen.
#[test]
fn modules_are_small() {
    let (wasm, javascript) = sizes("User", &user());
    // The budget is 10 KB, the goal 5.
    assert!(wasm <= 8_040, "{wasm} bytes");
    assert!(javascript <= 1_536, "{javascript} bytes");
    // Five strategies on every type without parts that they merge.
    let (plain, _) = sizes("types without parts", &one_gen("Thing", every_field()));
    assert!(plain <= 10_760, "{plain} bytes");
    // One field of each strategy. The budget is 16 KB.
    let text = || ValueType::String;
    let boxed = || Box::new(ValueType::String);
    let mut fields = user_fields();
    fields.extend([
        FieldSchema::new("a", 4, Strategy::LwwContent, text()),
        FieldSchema::new("b", 5, Strategy::PnCounterFloat, ValueType::F64),
        FieldSchema::new("c", 6, Strategy::GCounter, ValueType::I64),
        FieldSchema::new("d", 7, Strategy::MvRegister, text()),
        FieldSchema::new("e", 8, Strategy::BoundedCounter, ValueType::I64),
        FieldSchema::new("f", 9, Strategy::OrSet, ValueType::Set(boxed())),
        FieldSchema::new("g", 10, Strategy::Map, ValueType::Map(boxed(), boxed())),
        FieldSchema::new("h", 11, Strategy::Lww, ValueType::Option(boxed())),
    ]);
    let strategies: BTreeSet<Strategy> = fields.iter().map(|field| field.strategy).collect();
    assert_eq!(strategies.len(), Strategy::ALL.len());
    let (every, _) = sizes("every strategy", &one_gen("Thing", fields));
    assert!(every <= 16_210, "{every} bytes");
}

#[test]
fn fewer_strategies_are_fewer_bytes_and_fields_cost_little() {
    let (user_bytes, _) = sizes("User", &user());
    let with = |field: FieldSchema| {
        let mut fields = user_fields();
        fields.push(field);
        one_gen("User", fields)
    };
    let due = ValueType::Option(Box::new(ValueType::Timestamp));
    let due = FieldSchema::new("due", 4, Strategy::Lww, due);
    let (composite, _) = sizes("User with an option", &with(due));
    let seats = FieldSchema::new("seats", 4, Strategy::BoundedCounter, ValueType::I64);
    let (bounded, _) = sizes("User with a bounded counter", &with(seats));
    let title = FieldSchema::new("title", 4, Strategy::MvRegister, ValueType::String);
    let (registers, _) = sizes("User with a register of many values", &with(title));
    let tags =
        FieldSchema::new("tags", 4, Strategy::OrSet, ValueType::Set(Box::new(ValueType::I64)));
    let (collections, _) = sizes("User with a set", &with(tags));
    let mut wider = FieldSchema::new("votes", 4, Strategy::PnCounter, ValueType::I64);
    let field = FieldSchema::new("votes", 5, Strategy::PnCounter, ValueType::I32);
    wider.predecessor = Some(Box::new(Predecessor { field, conversion: None }));
    let (evolved, _) = sizes("User with a field that was another one", &with(wider));
    // The evaluator of conversions comes with it; the budget of any module is 100 KB.
    assert!(evolved > collections && evolved <= 38_300, "{evolved} bytes");
    assert!(user_bytes < composite && composite < registers && registers < collections);
    assert!(bounded < registers);
    // What has been reached.
    for (bytes, bytes_max) in
        [(composite, 9_890), (bounded, 10_380), (registers, 11_310), (collections, 13_270)]
    {
        assert!(bytes <= bytes_max, "{bytes} bytes, more than {bytes_max}");
    }

    let bytes_of = |field_count: u32, accessors| {
        let mut fields = user_fields();
        for number in 4..=field_count {
            let name = format!("field_{number}");
            fields.push(FieldSchema::new(&name, number, Strategy::Lww, ValueType::String));
        }
        let options = BuildOptions { accessors, ..BuildOptions::default() };
        gzipped_bytes(&build_with(&one_gen("User", fields), &options).unwrap().wasm)
    };
    // The budget is 25 bytes with typed accessors; with generic ones it is 12, from 3 to 10 fields and more.
    // The first field brings the names' common beginning along.
    let rows = [(3, 5), (5, 10), (10, 20), (20, 50), (50, 100)];
    let typed = (Accessors::Typed, [25.0, 20.0, 18.5, 17.0, 17.0]);
    let generic = (Accessors::Generic, [14.0, 9.0, 7.0, 7.0, 7.0]);
    for (accessors, each_max) in [typed, generic] {
        for ((fewer, more), bytes_max) in rows.into_iter().zip(each_max) {
            let bytes = bytes_of(more, accessors) as f64 - bytes_of(fewer, accessors) as f64;
            let each = bytes / f64::from(more - fewer);
            println!(
                "{accessors:?}, {fewer} to {more} fields: {each:.1} bytes for each further one"
            );
            assert!(each <= bytes_max, "{each} bytes");
        }
    }
}
