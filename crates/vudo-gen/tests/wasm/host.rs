//! A host of a module, and the native store that must do the same.

use vudo_crdt::{
    FieldSchema, GenSchema, InMemory, Log, Namespace, ReplicaIndex, ReplicaKey, Schema, Strategy,
    Transaction, Value, ValueType, VersionVector,
};
use wasmi::{Engine, Instance, Linker, Module, Store, Val};

/// The clock of every test: an ordinary day in 2023.
pub(crate) const NOW: u64 = 1_700_000_000_000;

/// What the module says where the field has neither value nor default.
pub(crate) const NOT_SET: u32 = 44;

/// Something asked of a module, and what it gave.
#[derive(Clone, Debug)]
#[allow(dead_code)] // Only some tests ask other hosts the same.
pub(crate) enum Step {
    /// An input.
    Put(Vec<u8>),
    /// A call of an export with arguments, and its result.
    Call(String, Vec<Val>, u32),
    /// The output that was there.
    Output(Vec<u8>),
}

/// One instance of a module in wasmi.
pub(crate) struct Host {
    store: Store<()>,
    instance: Instance,
    schema: Schema,
    pub(crate) steps: Vec<Step>,
}

impl Host {
    pub(crate) fn open(wasm: &[u8], replica: u8) -> Host {
        let engine = Engine::default();
        let module = Module::new(&engine, wasm).expect("the module is valid");
        let mut store = Store::new(&engine, ());
        let linker = Linker::new(&engine);
        let instance = (linker.instantiate_and_start(&mut store, &module))
            .expect("the module needs no imports");
        let schema = vudo_gen::wasm::inspect(wasm).expect("the module carries its schema");
        let mut host = Host { store, instance, schema, steps: Vec::new() };
        assert_eq!(host.call("abi_version", &[]), 1);
        host.put(&[replica; 32]);
        assert_eq!(host.call("open", &[Val::I64(7)]), 0);
        host
    }

    /// Calls an export; of a module with generic accessors the one that serves the field in its
    /// place. A trap fails the test.
    pub(crate) fn call(&mut self, name: &str, arguments: &[Val]) -> u32 {
        let (name, arguments) = match self.has_export(name) {
            true => (name.to_owned(), arguments.to_vec()),
            false => self.generic_call(name, arguments),
        };
        let result = self.invoke(&name, &arguments);
        self.steps.push(Step::Call(name, arguments, result));
        result
    }

    /// The export for the class of a field, and its arguments: see docs/reference/wasm-abi.md.
    fn generic_call(&self, name: &str, arguments: &[Val]) -> (String, Vec<Val>) {
        let (path, operation) = name.rsplit_once('.').expect("the name of a field's export");
        let fields = self.schema.gens.iter().flat_map(|one| {
            one.fields.iter().map(|field| (format!("{}.{}", one.name, field.name), field))
        });
        let mut numbered = fields.enumerate();
        let (number, (_, field)) = numbered
            .find(|(_, (known, _))| known == path)
            .unwrap_or_else(|| panic!("there is no export {name}, and no field {path}"));
        let generic = Vec::from([Val::I32(number as i32)]);
        (format!("{}.{operation}", class_of(field)), [&generic, arguments].concat())
    }

    fn invoke(&mut self, name: &str, arguments: &[Val]) -> u32 {
        let function = self.instance.get_func(&self.store, name);
        let function = function.unwrap_or_else(|| panic!("there is no export {name}"));
        let mut results = [Val::I32(0)];
        function
            .call(&mut self.store, arguments, &mut results)
            .unwrap_or_else(|trap| panic!("{name} trapped: {trap}"));
        match results[0] {
            Val::I32(number) => number as u32,
            ref other => panic!("{name} gave {other:?}"),
        }
    }

    pub(crate) fn has_export(&self, name: &str) -> bool {
        self.instance.get_export(&self.store, name).is_some()
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let place = self.invoke("input", &[Val::I32(bytes.len() as i32)]);
        self.steps.push(Step::Put(bytes.to_vec()));
        assert_ne!(place, 0);
        let memory = self.instance.get_memory(&self.store, "memory").unwrap();
        memory.write(&mut self.store, place as usize, bytes).unwrap();
    }

    pub(crate) fn output(&mut self) -> Vec<u8> {
        let place = self.invoke("output", &[]) as usize;
        let length = self.invoke("output_length", &[]) as usize;
        let memory = self.instance.get_memory(&self.store, "memory").unwrap();
        let bytes = memory.data(&self.store)[place..place + length].to_vec();
        self.steps.push(Step::Output(bytes.clone()));
        bytes
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let memory = self.instance.get_memory(&self.store, "memory").unwrap();
        memory.data_size(&self.store)
    }

    pub(crate) fn merge(&mut self, frame: &[u8]) -> u32 {
        self.put(frame);
        self.call("merge", &[])
    }

    pub(crate) fn changes_since(&mut self, version: &[u8]) -> Vec<u8> {
        self.put(version);
        assert_eq!(self.call("changes_since", &[]), 0);
        self.output()
    }

    pub(crate) fn version(&mut self) -> Vec<u8> {
        assert_eq!(self.call("version", &[]), 0);
        self.output()
    }

    /// Calls an export of a Gen that takes a key and the clock: `create`, `delete`.
    pub(crate) fn document(&mut self, gen_name: &str, operation: &str, key: &str, now: u64) -> u32 {
        self.put(key.as_bytes());
        self.call(&format!("{gen_name}.{operation}"), &[clock(now)])
    }

    pub(crate) fn exists(&mut self, gen_name: &str, key: &str) -> bool {
        self.put(key.as_bytes());
        self.call(&format!("{gen_name}.exists"), &[]) == 0
    }

    pub(crate) fn keys(&mut self, gen_name: &str) -> Vec<String> {
        assert_eq!(self.call(&format!("{gen_name}.keys"), &[]), 0);
        let bytes = self.output();
        let mut rest = bytes.as_slice();
        let mut keys = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (key, later) = after.split_at(u32::from_le_bytes(*length) as usize);
            keys.push(String::from_utf8(key.to_vec()).unwrap());
            rest = later;
        }
        keys
    }

    /// Sets a register or adds to a counter, by the field's export.
    pub(crate) fn write(&mut self, field: (&str, &str), key: &str, value: &Value, now: u64) -> u32 {
        let (gen_name, field_name) = field;
        let is_counter = self.field(field).strategy.is_counter();
        let operation = if is_counter { "add" } else { "set" };
        let mut arguments = vec![Val::I32(key.len() as i32)];
        let mut input = Vec::from(key);
        match value {
            Value::String(text) => input.extend_from_slice(text.as_bytes()),
            Value::Bytes(bytes) => input.extend_from_slice(bytes),
            Value::Int(number) => arguments.push(Val::I64(*number as i64)),
            Value::Float(number) => arguments.push(Val::F64((*number).into())),
            Value::Bool(truth) => arguments.push(Val::I32((*truth).into())),
            other => panic!("modules have no way to write {other}"),
        }
        arguments.push(clock(now));
        self.put(&input);
        self.call(&format!("{gen_name}.{field_name}.{operation}"), &arguments)
    }

    /// What a field shows, or the code of a refusal.
    pub(crate) fn read(&mut self, field: (&str, &str), key: &str) -> Result<Option<Value>, u32> {
        let (gen_name, field_name) = field;
        self.put(key.as_bytes());
        let name = format!("{gen_name}.{field_name}.get");
        match self.call(&name, &[Val::I32(key.len() as i32)]) {
            0 => {}
            NOT_SET => return Ok(None),
            code => return Err(code),
        }
        let bytes = self.output();
        let eight = || bytes.as_slice().try_into().expect("eight bytes");
        Ok(Some(match &self.field(field).value_type {
            ValueType::String => Value::String(String::from_utf8(bytes).unwrap()),
            ValueType::Bool => Value::Bool(bytes == [1]),
            kind if kind.is_bytes() => Value::Bytes(bytes),
            ValueType::F32 | ValueType::F64 => Value::Float(f64::from_le_bytes(eight())),
            ValueType::U64 => Value::Int(u64::from_le_bytes(eight()).into()),
            _ => Value::Int(i64::from_le_bytes(eight()).into()),
        }))
    }

    fn field(&self, (gen_name, field_name): (&str, &str)) -> &FieldSchema {
        field_of(&self.schema, gen_name, field_name)
    }
}

/// The class of a field as the reference has it.
pub(crate) fn class_of(field: &FieldSchema) -> &'static str {
    let is_simple = ValueType::SCALARS.contains(&field.value_type);
    match field.strategy {
        Strategy::OrSet => "t",
        Strategy::Map => match field.value_strategy {
            Strategy::PnCounterFloat => "l",
            Strategy::PnCounter | Strategy::GCounter => "k",
            _ => "m",
        },
        Strategy::BoundedCounter => "r",
        Strategy::PnCounterFloat => "d",
        Strategy::PnCounter | Strategy::GCounter => "c",
        Strategy::MvRegister => "v",
        _ if !is_simple => "v",
        _ => match field.value_type {
            ValueType::String => "s",
            ValueType::Bool => "b",
            ValueType::Bytes | ValueType::Uuid | ValueType::Identity => "x",
            ValueType::F32 | ValueType::F64 => "f",
            _ => "n",
        },
    }
}

fn clock(now: u64) -> Val {
    Val::F64((now as f64).into())
}

fn field_of<'s>(schema: &'s Schema, gen_name: &str, field_name: &str) -> &'s FieldSchema {
    let gen_schema = schema.gen_named(gen_name).expect("the Gen exists");
    gen_schema.field(field_name).expect("the field exists")
}

/// The same store without WASM: one change per write.
pub(crate) struct Native {
    pub(crate) namespace: Namespace,
    pub(crate) log: Log,
    replica: ReplicaIndex,
    schema: Schema,
}

impl Native {
    pub(crate) fn open(schema: &Schema, replica: u8) -> Native {
        let mut namespace = Namespace::new(7);
        let replica = namespace.intern_replica(ReplicaKey([replica; 32]));
        for gen_schema in &schema.gens {
            namespace.intern_gen(&gen_schema.name);
        }
        Native { namespace, log: Log::default(), replica, schema: schema.clone() }
    }

    pub(crate) fn begin(&self, now: u64) -> Transaction {
        Transaction::begin(&self.namespace, self.replica, now)
    }

    pub(crate) fn commit(&mut self, transaction: Transaction) {
        (transaction.commit(&mut self.namespace, &mut InMemory, &mut self.log)).unwrap();
    }

    /// Creates or deletes; gives whether that was possible.
    pub(crate) fn document(
        &mut self,
        gen_name: &str,
        operation: &str,
        key: &str,
        now: u64,
    ) -> bool {
        let index = self.namespace.find_gen(gen_name).unwrap();
        let mut transaction = self.begin(now);
        let (namespace, key) = (&mut self.namespace, key.as_bytes());
        let outcome = match operation {
            "create" => transaction.create(namespace, &mut InMemory, index, key),
            _ => transaction.delete(namespace, &mut InMemory, index, key),
        };
        if outcome.is_ok() {
            self.commit(transaction);
        }
        outcome.is_ok()
    }

    pub(crate) fn write(
        &mut self,
        field: (&str, &str),
        key: &str,
        value: &Value,
        now: u64,
    ) -> bool {
        let mut transaction = self.begin(now);
        let is_done = self.write_in(&mut transaction, field, key, value);
        if is_done {
            self.commit(transaction);
        }
        is_done
    }

    pub(crate) fn write_in(
        &mut self,
        transaction: &mut Transaction,
        (gen_name, field_name): (&str, &str),
        key: &str,
        value: &Value,
    ) -> bool {
        let index = self.namespace.find_gen(gen_name).unwrap();
        let field = field_of(&self.schema, gen_name, field_name);
        let (namespace, source, key) = (&mut self.namespace, &mut InMemory, key.as_bytes());
        let outcome = match (field.strategy, value) {
            (Strategy::PnCounter, Value::Int(amount)) => {
                transaction.add(namespace, source, index, key, field, *amount as i64)
            }
            (Strategy::PnCounterFloat, Value::Float(amount)) => {
                transaction.add_float(namespace, source, index, key, field, *amount)
            }
            _ => transaction.set(namespace, source, index, key, field, value),
        };
        outcome.is_ok()
    }

    /// What a field shows; `Err` where the document does not exist or the counter overflows.
    pub(crate) fn read(&self, field: (&str, &str), key: &str) -> Result<Option<Value>, ()> {
        let (gen_name, field_name) = field;
        let index = self.namespace.find_gen(gen_name).unwrap();
        let row = self.namespace.loaded_row(index, key.as_bytes());
        let row = row.filter(|row| row.is_alive()).ok_or(())?;
        let field = field_of(&self.schema, gen_name, field_name);
        field.read(&row).map_err(|_| ())
    }

    pub(crate) fn merge(&mut self, frame: &[u8]) {
        (self.namespace.apply_frame(frame, &mut InMemory, &mut self.log)).unwrap();
    }

    pub(crate) fn changes_since(&self, version: &VersionVector) -> Vec<u8> {
        self.log.frame_since(&self.namespace, version)
    }
}

/// The record of the size budget.
pub(crate) fn user() -> Schema {
    one_gen("User", user_fields())
}

pub(crate) fn user_fields() -> Vec<FieldSchema> {
    vec![
        FieldSchema::new("id", 1, Strategy::Immutable, ValueType::String),
        FieldSchema::new("name", 2, Strategy::Lww, ValueType::String),
        FieldSchema::new("reputation", 3, Strategy::PnCounter, ValueType::I64),
    ]
}

pub(crate) fn one_gen(name: &str, fields: Vec<FieldSchema>) -> Schema {
    Schema::from(vec![GenSchema::new(name, fields)])
}

/// The strategies that modules have.
const STRATEGIES: [Strategy; 5] = [
    Strategy::Immutable,
    Strategy::Lww,
    Strategy::LwwContent,
    Strategy::PnCounter,
    Strategy::PnCounterFloat,
];

/// A field for every strategy and every type that it merges.
pub(crate) fn every_field() -> Vec<FieldSchema> {
    let mut fields = Vec::new();
    for strategy in STRATEGIES {
        for value_type in ValueType::SCALARS {
            let merges = match strategy {
                Strategy::PnCounter => value_type.is_countable(),
                Strategy::PnCounterFloat => value_type.is_float(),
                _ => true,
            };
            if merges {
                let number = fields.len() as u32 + 1;
                let name = format!("f{number}");
                fields.push(FieldSchema::new(&name, number, strategy, value_type));
            }
        }
    }
    fields
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A value that a host can pass for the type, now and then one that the type refuses.
    pub(crate) fn value(&mut self, value_type: &ValueType) -> Value {
        let raw = self.next();
        match value_type {
            ValueType::Bool => Value::Bool(raw & 1 == 1),
            ValueType::String => Value::String(format!("text {}", raw % 1000)),
            ValueType::F32 => Value::Float(f64::from((raw % 1000) as f32 / 8.0)),
            ValueType::F64 => Value::Float((raw as i64 as f64) / 1e9),
            ValueType::U64 => Value::Int((raw >> (raw % 64)).into()),
            kind if kind.is_bytes() => {
                let right_count = kind.byte_count().unwrap_or((raw % 50) as usize);
                let is_wrong = raw.is_multiple_of(10);
                Value::Bytes(vec![raw as u8; right_count + usize::from(is_wrong)])
            }
            _ => Value::Int(((raw as i64) >> (raw % 64)).into()),
        }
    }
}
