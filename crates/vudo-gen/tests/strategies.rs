//! Every strategy of records and every kind of value, in wasmi, in Node and in Chromium, against the
//! native engine: the same writes give the same frames, byte by byte, and replicas of both kinds
//! converge.

#[path = "wasm/host.rs"]
#[allow(dead_code)] // Other tests use the rest of it.
mod host;
#[path = "wasm/javascript.rs"]
mod javascript;

use data_encoding::BASE64;
use host::{Host, NOW, Native, Step};
use javascript::{Page, new_folder, node};
use serde_json::{Value as Json, json};
use vudo_crdt::{
    Direction, FieldSchema, GenIndex, GenSchema, InMemory, Inherited, Namespace, Reading, Refusal,
    ReplicaKey, Schema, Strategy, Transaction, TransactionView, Value, ValueType, VersionVector,
    entry_key,
};
use vudo_gen::wasm::{Accessors, BuildOptions, Module};
use vudo_gen::{SourceFile, compile, wasm};
use wasmi::Val;

const SOURCE: &str = include_str!("wasm/item.dol");
/// Two versions of a Gen.
const VERSIONS: [&str; 2] =
    [include_str!("wasm/versions.dol"), include_str!("wasm/versions.next.dol")];

fn build(schema: &Schema, accessors: Accessors) -> Module {
    wasm::build_with(schema, &BuildOptions { accessors, ..BuildOptions::default() }).unwrap()
}

fn schema_of(text: &str) -> Schema {
    schemas_of([text])[0].clone()
}

/// The schemas of versions, of which each has the lock file of the one before.
fn schemas_of<const N: usize>(texts: [&str; N]) -> [Schema; N] {
    let mut lock = None;
    texts.map(|text| {
        let name = "item.dol".into();
        let compilation = compile(&[SourceFile { name, text: text.into(), lock: lock.take() }]);
        let errors: Vec<_> = compilation.errors().collect();
        assert!(errors.is_empty(), "{errors:?}");
        lock = compilation.locks.first().map(|(_, lock)| lock.clone());
        compilation.schema.unwrap()
    })
}

/// A generator of numbers that are the same in every run of a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    /// A value of few, so that replicas meet in one element.
    fn value(&mut self, value_type: &ValueType) -> Value {
        match value_type {
            ValueType::String | ValueType::Ref(_) => ["", "a", "größe"][self.below(3)].into(),
            ValueType::Bool => (self.below(2) == 0).into(),
            ValueType::F32 | ValueType::F64 => [0.0, -1.5, f64::NAN][self.below(3)].into(),
            ValueType::U64 => [0u64, 7, u64::MAX][self.below(3)].into(),
            ValueType::Enum(_) => Value::Variant(self.below(4) as u32),
            ValueType::Option(inner) => match self.below(2) {
                0 => Value::None,
                _ => self.value(inner),
            },
            ValueType::Tuple(parts) => {
                Value::List(parts.iter().map(|part| self.value(part)).collect())
            }
            ValueType::List(inner) => {
                let count = self.below(3);
                Value::List((0..count).map(|_| self.value(inner)).collect())
            }
            ValueType::Map(key, value) => {
                let count = self.below(3);
                Value::map_of((0..count).map(|_| (self.value(key), self.value(value))))
            }
            ValueType::Record(_) => Value::Record(vec![
                (1, "s".into()),
                (2, self.below(9).try_into().map_or(Value::Int(0), |number: u8| number.into())),
            ]),
            ValueType::Opaque(_) | ValueType::Bytes => Value::Bytes(vec![self.below(9) as u8]),
            _ => (self.below(9) as i64 - 4).into(),
        }
    }
}

/// One write, in the terms of both sides.
enum Write {
    Set(Value),
    Add(i64),
    AddFloat(f64),
    Element(Value, bool),
    Entry(Value, Value),
    AddEntry(Value, i64),
    AddFloatEntry(Value, f64),
    RemoveEntry(Value),
    Give(u8, bool, i64),
}

fn write_of(field: &FieldSchema, random: &mut Random) -> Write {
    match (field.strategy, &field.value_type) {
        (Strategy::OrSet, _) => {
            let element = random.value(field.element_type().unwrap());
            Write::Element(element, random.below(3) > 0)
        }
        (Strategy::Map, ValueType::Map(key, value)) => {
            let key = random.value(key);
            match random.below(4) {
                0 => Write::RemoveEntry(key),
                _ if field.value_strategy == Strategy::PnCounterFloat => {
                    Write::AddFloatEntry(key, random.below(9) as f64 / 4.0 - 1.0)
                }
                _ if field.value_strategy.is_counter() => {
                    Write::AddEntry(key, random.below(9) as i64 - 3)
                }
                _ => Write::Entry(key, random.value(value)),
            }
        }
        (Strategy::BoundedCounter, _) if random.below(3) == 0 => {
            let receiver = 1 + random.below(4) as u8;
            Write::Give(receiver, random.below(2) == 0, random.below(6) as i64)
        }
        (Strategy::PnCounterFloat, _) => Write::AddFloat(random.below(9) as f64 / 4.0 - 1.0),
        (strategy, _) if strategy.is_counter() => Write::Add(random.below(9) as i64 - 3),
        _ => Write::Set(random.value(&field.value_type)),
    }
}

fn clock(now: u64) -> Val {
    Val::F64((now as f64).into())
}

/// The write through the module's exports; gives whether it took effect.
fn host_write(
    host: &mut Host,
    gen_schema: &GenSchema,
    field: &FieldSchema,
    key: &str,
    write: &Write,
    now: u64,
) -> bool {
    let path = |operation: &str| format!("{}.{}.{operation}", gen_schema.name, field.name);
    let is_plain = ValueType::SCALARS.contains(&field.value_type);
    let key_length = Val::I32(key.len() as i32);
    let mut input = Vec::from(key);
    let code = match write {
        Write::Set(value) if is_plain && field.strategy != Strategy::MvRegister => {
            host.write((&gen_schema.name, &field.name), key, value, now)
        }
        Write::Set(value) => {
            value.encode(&mut input);
            host.put(&input);
            host.call(&path("set"), &[key_length, clock(now)])
        }
        Write::Add(amount) => {
            host.put(&input);
            host.call(&path("add"), &[key_length, Val::I64(*amount), clock(now)])
        }
        Write::AddFloat(amount) => {
            host.put(&input);
            host.call(&path("add"), &[key_length, Val::F64((*amount).into()), clock(now)])
        }
        Write::AddFloatEntry(at, amount) => {
            at.encode(&mut input);
            host.put(&input);
            host.call(&path("add"), &[key_length, Val::F64((*amount).into()), clock(now)])
        }
        Write::Element(element, adds) => {
            element.encode(&mut input);
            host.put(&input);
            host.call(&path(if *adds { "add" } else { "remove" }), &[key_length, clock(now)])
        }
        Write::Entry(at, value) => {
            let at = at.to_bytes();
            input.extend_from_slice(&at);
            value.encode(&mut input);
            host.put(&input);
            let length = Val::I32(at.len() as i32);
            host.call(&path("set"), &[key_length, length, clock(now)])
        }
        Write::AddEntry(at, amount) => {
            at.encode(&mut input);
            host.put(&input);
            host.call(&path("add"), &[key_length, Val::I64(*amount), clock(now)])
        }
        Write::RemoveEntry(at) => {
            at.encode(&mut input);
            host.put(&input);
            host.call(&path("remove"), &[key_length, clock(now)])
        }
        Write::Give(receiver, up, amount) => {
            input.extend_from_slice(&[*receiver; 32]);
            host.put(&input);
            let up = Val::I32((*up).into());
            host.call(&path("give"), &[key_length, up, Val::I64(*amount), clock(now)])
        }
    };
    assert!(code == 0 || wasm::error_name(code).is_some(), "{code}");
    code == 0
}

fn native_write(
    native: &mut Native,
    gen_schema: &GenSchema,
    field: &FieldSchema,
    key: &str,
    write: &Write,
    now: u64,
) -> bool {
    let mut transaction: Transaction = native.begin(now);
    let index = native.namespace.find_gen(&gen_schema.name).unwrap();
    let (space, key, id) = (&mut native.namespace, key.as_bytes(), field.id());
    let to = &mut transaction;
    let is_done = match write {
        Write::Set(value) => to.set(space, &mut InMemory, index, key, field, value).is_ok(),
        Write::Add(amount) => to.add(space, &mut InMemory, index, key, field, *amount).is_ok(),
        Write::AddFloat(amount) => {
            to.add_float(space, &mut InMemory, index, key, field, *amount).is_ok()
        }
        Write::Element(element, true) => {
            to.add_element_loaded(space, index, key, id, &element.to_bytes()).is_ok()
        }
        // What was something else before may hold the element under each of its numbers.
        Write::Element(element, false) => field.collections().all(|set| {
            to.remove_element_loaded(space, index, key, set.id(), &element.to_bytes()).is_ok()
        }),
        Write::RemoveEntry(at) => field
            .collections()
            .all(|map| to.remove_entry_loaded(space, index, key, map.id(), &at.to_bytes()).is_ok()),
        Write::Entry(at, value) => {
            native_entry(to, space, (index, key, field), at).is_ok_and(|(entry, held, old)| {
                to.set_over_loaded(space, index, &entry, &held, value, old).is_ok()
            })
        }
        Write::AddEntry(at, amount) => {
            native_entry(to, space, (index, key, field), at).is_ok_and(|(entry, held, old)| {
                to.add_over_loaded(space, index, &entry, &held, *amount, old).is_ok()
            })
        }
        Write::AddFloatEntry(at, amount) => native_entry(to, space, (index, key, field), at)
            .is_ok_and(|(entry, held, _)| {
                to.add_float_loaded(space, index, &entry, held.id(), *amount).is_ok()
            }),
        Write::Give(receiver, up, amount) => {
            let direction = if *up { Direction::Up } else { Direction::Down };
            let give = (&ReplicaKey([*receiver; 32]), direction, *amount);
            to.give_rights_loaded(space, index, key, &field.bounded_counter(), give).is_ok()
        }
    };
    if is_done {
        native.commit(transaction);
    }
    is_done
}

/// The entry of a map for a write, the field in it, and what it was under the map's earlier numbers.
fn native_entry(
    to: &mut Transaction,
    namespace: &Namespace,
    (gen_index, key, map): (GenIndex, &[u8], &FieldSchema),
    at: &Value,
) -> Result<(Vec<u8>, FieldSchema, Inherited), Refusal> {
    let element = at.to_bytes();
    let mut inherited = Inherited::default();
    for earlier in map.collections().skip(1) {
        let entry = entry_key(key, earlier.id(), &element);
        let row = to.view(namespace, gen_index, &entry);
        if row.is_alive() {
            inherited.add_entry(&earlier.map_value().unwrap(), &row);
        }
    }
    let entry = to.entry_loaded(namespace, gen_index, key, map.id(), &element)?;
    Ok((entry, map.map_value().unwrap(), inherited))
}

/// What a field shows in the module, as a value.
fn host_read(
    host: &mut Host,
    gen_schema: &GenSchema,
    field: &FieldSchema,
    key: &str,
) -> Option<Value> {
    let is_coded = field.strategy.is_collection()
        || field.strategy == Strategy::MvRegister
        || !ValueType::SCALARS.contains(&field.value_type);
    if !is_coded {
        return host.read((&gen_schema.name, &field.name), key).unwrap();
    }
    host.put(key.as_bytes());
    let name = format!("{}.{}.get", gen_schema.name, field.name);
    match host.call(&name, &[Val::I32(key.len() as i32)]) {
        0 => Some(Value::decode(&host.output()).unwrap()),
        code => {
            assert_eq!(code, host::NOT_SET);
            None
        }
    }
}

fn native_read(
    native: &Native,
    gen_schema: &GenSchema,
    field: &FieldSchema,
    key: &str,
) -> Option<Value> {
    let index = native.namespace.find_gen(&gen_schema.name).unwrap();
    let mut transaction = native.begin(NOW);
    let mut view = TransactionView { transaction: &mut transaction, namespace: &native.namespace };
    let shown = view.read_loaded(index, key.as_bytes(), field).unwrap();
    // Values that no field of the type holds are filtered by the native engine alone.
    shown
        .filter(|value| *value != Value::List(Vec::new()) || field.strategy != Strategy::MvRegister)
}

fn open(bytes: &[u8], schema: &Schema, replica: u8) -> (Host, Native) {
    let mut host = Host::open(bytes, replica);
    let mut native = Native::open(schema, replica);
    if host.has_export("found") {
        host.put(&[1; 32]);
        assert_eq!(host.call("found", &[]), 0);
        let founder = native.namespace.intern_replica(ReplicaKey([1; 32]));
        native.namespace.set_founder(founder);
    }
    (host, native)
}

fn converge(schema: &Schema, accessors: Accessors, seed: u64, count: usize) -> Run {
    converge_versions([schema; 3], accessors, seed, count)
}

/// Writes at random in three modules and their native twins, compares the frames after each write,
/// then lets all of them, and a native store of its own, meet.
fn converge_versions(schemas: [&Schema; 3], accessors: Accessors, seed: u64, count: usize) -> Run {
    let modules = schemas.map(|schema| build(schema, accessors).wasm);
    let gens = schemas.map(|schema| schema.gen_named("Item").unwrap());
    let mut random = Random(seed);
    let mut pairs: Vec<(Host, Native)> = (1..=3)
        .zip(modules.iter().zip(schemas))
        .map(|(replica, (bytes, schema))| open(bytes, schema, replica))
        .collect();
    let mut done_count = 0;
    for step in 0..count {
        let now = NOW + (step / 3) as u64;
        let place = random.below(3);
        let gen_schema = gens[place];
        let key = ["milk", "tea"][random.below(2)];
        let (host, native) = &mut pairs[place];
        // At first there is nothing to write to.
        match if step < 6 { 0 } else { random.below(14) } {
            0 | 1 => {
                let is_done = host.document("Item", "create", key, now) == 0;
                assert_eq!(native.document("Item", "create", key, now), is_done);
            }
            2 if random.below(4) == 0 => {
                let is_done = host.document("Item", "delete", key, now) == 0;
                assert_eq!(native.document("Item", "delete", key, now), is_done);
            }
            3 => {
                let frame = pairs[(place + 1) % 3].0.changes_since(&[]);
                let (host, native) = &mut pairs[place];
                assert_eq!(host.merge(&frame), 0);
                native.merge(&frame);
            }
            _ if !gen_schema.fields.is_empty() => {
                let field = &gen_schema.fields[random.below(gen_schema.fields.len())];
                let write = write_of(field, &mut random);
                let is_done = host_write(host, gen_schema, field, key, &write, now);
                let is_done_too = native_write(native, gen_schema, field, key, &write, now);
                assert_eq!(is_done, is_done_too, "seed {seed}, step {step}, {}", field.name);
                done_count += usize::from(is_done);
            }
            _ => {}
        }
        let (host, native) = &mut pairs[place];
        let frame = native.changes_since(&VersionVector::new());
        assert!(host.changes_since(&[]) == frame, "seed {seed}, step {step}: frames differ");
    }
    let frames: Vec<Vec<u8>> = pairs.iter_mut().map(|(host, _)| host.changes_since(&[])).collect();
    let (_, mut other) = open(&modules[0], schemas[0], 4);
    for frame in &frames {
        other.merge(frame);
        for (host, native) in &mut pairs {
            assert_eq!(host.merge(frame), 0);
            native.merge(frame);
        }
    }
    let fingerprint = other.namespace.fingerprint(&mut InMemory).unwrap();
    for ((host, native), gen_schema) in pairs.iter_mut().zip(gens) {
        assert_eq!(native.namespace.fingerprint(&mut InMemory).unwrap(), fingerprint);
        for key in host.keys("Item") {
            for field in &gen_schema.fields {
                let (shown, expected) = (
                    host_read(host, gen_schema, field, &key),
                    native_read(&other, gen_schema, field, &key),
                );
                assert_eq!(shown, expected, "seed {seed}, {key}.{}", field.name);
            }
        }
    }
    let hosts = pairs.into_iter().map(|(host, _)| host).collect();
    Run { modules, hosts, done_count }
}

/// What [`converge_versions`] has done.
struct Run {
    /// The modules, which are the same where their schemas are.
    modules: [Vec<u8>; 3],
    /// Their instances with all that was asked of them.
    hosts: Vec<Host>,
    /// How many writes took effect.
    done_count: usize,
}

/// A schema with some of the fields.
fn with_fields(schema: &Schema, keeps: impl Fn(&FieldSchema) -> bool) -> Schema {
    let mut some = schema.clone();
    for gen_schema in some.gens.iter_mut().filter(|one| one.name == "Item") {
        gen_schema.fields.retain(&keeps);
    }
    some
}

/// Every field alone, every two strategies together, and all of them.
fn runs_of_every_strategy() -> Vec<Run> {
    let schema = schema_of(SOURCE);
    let item = schema.gen_named("Item").unwrap();
    let mut strategies: Vec<Strategy> = item.fields.iter().map(|field| field.strategy).collect();
    strategies.sort_unstable();
    strategies.dedup();
    assert_eq!(strategies, Strategy::ALL, "a strategy is missing");
    let mut runs = Vec::new();
    for field in &item.fields {
        let alone = with_fields(&schema, |one| one.name == field.name);
        runs.push(converge(&alone, Accessors::Typed, 20, 40));
        runs.push(converge(&alone, Accessors::Generic, 22, 40));
    }
    for (place, first) in strategies.iter().enumerate() {
        for second in &strategies[place + 1..] {
            let keeps = |one: &FieldSchema| one.strategy == *first || one.strategy == *second;
            runs.push(converge(&with_fields(&schema, keeps), Accessors::Typed, 21, 40));
        }
    }
    for accessors in [Accessors::Typed, Accessors::Generic] {
        runs.extend((0..3).map(|seed| converge(&schema, accessors, seed, 300)));
    }
    let [old, new] = &schemas_of(VERSIONS);
    for accessors in [Accessors::Typed, Accessors::Generic] {
        for schemas in [[old, new, new], [new, old, old]] {
            runs.extend((0..3).map(|seed| converge_versions(schemas, accessors, seed, 400)));
        }
    }
    runs
}

/// FNV-1a of 32 bits, twice with different beginnings: as in `replay.mjs`.
fn hash(bytes: &[u8]) -> String {
    let mut hashes = [0x811c_9dc5u32, 0x0123_4567];
    for byte in bytes {
        for hash in &mut hashes {
            *hash = (*hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
    format!("{} {}", hashes[0], hashes[1])
}

/// A step as `replay.mjs` reads it.
fn step_json(step: &Step) -> Json {
    let argument = |value: &Val| match value {
        Val::I32(number) => format!("i{number}"),
        Val::I64(number) => format!("I{number}"),
        Val::F64(number) => format!("f{}", number.to_bits()),
        other => panic!("no export takes {other:?}"),
    };
    match step {
        Step::Put(bytes) => json!(["put", BASE64.encode(bytes)]),
        Step::Call(name, arguments, result) => {
            let arguments: Vec<String> = arguments.iter().map(argument).collect();
            json!(["call", name, arguments, result])
        }
        Step::Output(bytes) => json!(["output", bytes.len(), hash(bytes)]),
    }
}

#[test]
fn every_strategy_alone_in_pairs_and_together_converges_in_wasmi_node_and_chromium() {
    let runs = runs_of_every_strategy();
    let done_count: usize = runs.iter().map(|run| run.done_count).sum();
    println!("{} schemas, {done_count} writes took effect in wasmi", runs.len());
    assert!(runs.len() > 60 && done_count > 1_500, "{} {done_count}", runs.len());

    let folder = new_folder("replay");
    let mut traces = Vec::new();
    for (place, run) in runs.iter().enumerate() {
        for (host, bytes) in run.hosts.iter().zip(&run.modules) {
            let first = run.modules.iter().position(|module| module == bytes).unwrap();
            let module = format!("module{place}_{first}.wasm");
            std::fs::write(folder.join(&module), bytes).unwrap();
            let steps: Vec<Json> = host.steps.iter().map(step_json).collect();
            traces.push(json!({ "module": &module, "steps": steps }));
        }
    }
    std::fs::write(folder.join("traces.json"), json!(traces).to_string()).unwrap();
    let script = include_str!("wasm/replay.mjs");
    std::fs::write(folder.join("replay.mjs"), script).unwrap();
    let name = "every_strategy_alone_in_pairs_and_together_converges_in_wasmi_node_and_chromium";
    let check = |given: Json| {
        println!("{given}");
        assert_eq!(given["traceCount"], json!(3 * runs.len()));
        assert!(given["callCount"].as_u64().is_some_and(|count| count > 8_000));
    };
    if let Some(given) = node(name, &folder, &["replay.mjs", "."]) {
        check(given);
    }
    if let Some(page) = Page::find(name) {
        check(page.run(&folder, "replay.mjs"));
    }
}

#[test]
fn a_module_shows_what_an_older_one_wrote_converted_and_writes_over_it() {
    let schemas = schemas_of(VERSIONS);
    let [old_bytes, new_bytes] =
        schemas.each_ref().map(|schema| build(schema, Accessors::Typed).wasm);
    let [old_item, new_item] = schemas.each_ref().map(|schema| schema.gen_named("Item").unwrap());
    let (mut old, _) = open(&old_bytes, &schemas[0], 1);
    let (mut new, _) = open(&new_bytes, &schemas[1], 2);
    assert_eq!(old.document("Item", "create", "milk", NOW), 0);
    let write = |host: &mut Host, item: &GenSchema, name: &str, write: Write| {
        assert!(host_write(host, item, item.field(name).unwrap(), "milk", &write, NOW), "{name}");
    };
    let read = |host: &mut Host, item: &GenSchema, name: &str| {
        host_read(host, item, item.field(name).unwrap(), "milk")
    };
    write(&mut old, old_item, "state", Write::Set(Value::Variant(2)));
    write(&mut old, old_item, "narrow", Write::Set(3.into()));
    write(&mut old, old_item, "flag", Write::Set(1.into()));
    write(&mut old, old_item, "votes", Write::Set(2.into()));
    write(&mut old, old_item, "count", Write::Add(20));
    write(&mut old, old_item, "tags", Write::Element(7.into(), true));
    write(&mut old, old_item, "stock", Write::AddEntry("a".into(), 5));
    assert_eq!(new.merge(&old.changes_since(&[])), 0);
    assert_eq!(read(&mut new, new_item, "state"), Some("Done".into()));
    assert_eq!(read(&mut new, new_item, "narrow"), Some(75.into()), "of the default of `whole`");
    assert_eq!(read(&mut new, new_item, "flag"), Some(true.into()));
    assert_eq!(read(&mut new, new_item, "votes"), Some(20.into()));

    let too_much = new_item.field("count").unwrap();
    assert!(!host_write(&mut new, new_item, too_much, "milk", &Write::Add(11), NOW), "past 30");
    write(&mut new, new_item, "count", Write::Add(10));
    write(&mut new, new_item, "votes", Write::Add(3));
    write(&mut new, new_item, "stock", Write::AddEntry("a".into(), 1));
    write(&mut new, new_item, "tags", Write::Element(7.into(), false));
    write(&mut new, new_item, "state", Write::Set("late".into()));
    for (name, shown) in [
        ("count", 30.into()),
        ("votes", 23.into()),
        ("stock", Value::Map(vec![("a".into(), 6.into())])),
        ("tags", Value::List(vec![])),
        ("state", "late".into()),
    ] {
        assert_eq!(read(&mut new, new_item, name), Some(shown), "{name}");
    }
    // The older one sees its own writes and removals, and passes the others on.
    assert_eq!(old.merge(&new.changes_since(&[])), 0);
    assert_eq!(read(&mut old, old_item, "tags"), Some(Value::List(vec![])));
    assert_eq!(read(&mut old, old_item, "count"), Some(20.into()));
    assert_eq!(old.changes_since(&[]), new.changes_since(&[]));
}

#[test]
fn damaged_frames_of_every_strategy_are_refused_by_a_code() {
    let schema = schema_of(SOURCE);
    let bytes = wasm::build(&schema).unwrap().wasm;
    let gen_schema = schema.gen_named("Item").unwrap();
    let (mut host, mut native) = open(&bytes, &schema, 1);
    let mut random = Random(5);
    assert_eq!(host.document("Item", "create", "milk", NOW), 0);
    native.document("Item", "create", "milk", NOW);
    for _ in 0..300 {
        let field = &gen_schema.fields[random.below(gen_schema.fields.len())];
        let write = write_of(field, &mut random);
        host_write(&mut host, gen_schema, field, "milk", &write, NOW);
    }
    let frame = host.changes_since(&[]);
    let (mut receiver, _) = open(&bytes, &schema, 2);
    let before = receiver.changes_since(&[]);
    let mut refused_count = 0;
    for attempt in 0..1_000 {
        let mut damaged = frame.clone();
        if attempt % 2 == 0 {
            damaged.truncate(random.below(frame.len()));
        } else {
            let at = random.below(frame.len());
            damaged[at] ^= 1 << random.below(8);
        }
        // A right checksum over every other damaged frame, so that the parser behind it is met.
        let is_summed = attempt % 4 > 1 && damaged.len() > 8;
        if is_summed {
            let content = damaged.len() - 8;
            let sum = vudo_crdt::checksum(&damaged[..content]);
            damaged[content..].copy_from_slice(&sum);
        }
        let (_, mut twin) = open(&bytes, &schema, 2);
        let native = twin.namespace.apply_frame(&damaged, &mut InMemory, &mut twin.log);
        let code = receiver.merge(&damaged);
        assert_eq!(code == 0, native.is_ok(), "attempt {attempt}: {code} against {native:?}");
        assert!(code != 0 || is_summed, "attempt {attempt}: a damaged frame was taken");
        if code == 0 {
            (receiver, _) = open(&bytes, &schema, 2);
        } else {
            assert!(wasm::error_name(code).is_some(), "{code}");
            assert_eq!(receiver.changes_since(&[]), before);
            refused_count += 1;
        }
    }
    println!("{refused_count} of 1000 damaged frames are refused, the others are right frames");
    assert!(refused_count > 700);
    assert_eq!(receiver.merge(&frame), 0);
}

#[test]
fn the_javascript_of_every_strategy_works_in_node_and_chromium() {
    let schema = schema_of(SOURCE);
    let name = "the_javascript_of_every_strategy_works_in_node_and_chromium";
    let page = Page::find(name);
    for accessors in [Accessors::Typed, Accessors::Generic] {
        let module = build(&schema, accessors);
        let folder = new_folder(&format!("strategies_{accessors:?}"));
        let files: [(&str, &[u8]); 4] = [
            ("app.wasm", &module.wasm),
            ("app.js", module.javascript.as_bytes()),
            ("package.json", br#"{"type": "module"}"#),
            ("strategies.mjs", include_bytes!("wasm/strategies.mjs")),
        ];
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        if let Some(given) = node(name, &folder, &["strategies.mjs"]) {
            check_frame(&schema, &given);
        }
        if let Some(page) = &page {
            check_frame(&schema, &page.run(&folder, "strategies.mjs"));
        }
    }
}

#[test]
fn generic_accessors_refuse_numbers_that_are_no_field_of_their_class() {
    let schema = schema_of(SOURCE);
    let bytes = build(&schema, Accessors::Generic).wasm;
    let (mut host, _) = open(&bytes, &schema, 1);
    assert_eq!(host.document("Item", "create", "milk", NOW), 0);
    let before = host.changes_since(&[]);
    let fields: Vec<&FieldSchema> = schema.gens.iter().flat_map(|one| &one.fields).collect();
    let mut refused_count = 0;
    for class in ["s", "c", "v", "t", "m", "k", "r"] {
        for number in 0..fields.len() + 3 {
            let is_of_class = fields.get(number).is_some_and(|one| host::class_of(one) == class);
            host.put(b"milk");
            let code = host.call(&format!("{class}.get"), &[Val::I32(number as i32), Val::I32(4)]);
            assert_eq!(code == 38, !is_of_class, "{class}.get of {number} gave {code}");
            refused_count += usize::from(code == 38);
        }
        host.put(b"milk");
        let code = host.call(&format!("{class}.get"), &[Val::I32(-1), Val::I32(4)]);
        assert_eq!(code, 38, "{class}.get of -1");
    }
    assert!(refused_count > 7 * 3, "{refused_count}");
    assert_eq!(host.changes_since(&[]), before);
}

/// The native engine takes the frame of the JavaScript, and shows the same.
fn check_frame(schema: &Schema, given: &Json) {
    let frame: Vec<u8> = serde_json::from_value(given["frame"].clone()).unwrap();
    let mut native = Native::open(schema, 9);
    native.merge(&frame);
    let gen_schema = schema.gen_named("Item").unwrap();
    let read = |name: &str| {
        native_read(&native, gen_schema, gen_schema.field(name).unwrap(), "milk").unwrap()
    };
    assert_eq!(read("tags"), Value::List(vec!["a".into(), "größe".into()]));
    assert_eq!(read("pair"), Value::List(vec![(-3).into(), "x".into()]));
    assert_eq!(read("colour"), Value::Variant(2));
    assert_eq!(read("home"), Value::Record(vec![(1, "Main".into()), (2, 7.into())]));
    assert_eq!(read("stock"), Value::Map(vec![(Value::Variant(2), 4.into())]));
    assert_eq!(read("levels"), Value::Map(vec![("top".into(), u64::MAX.into())]));
}
