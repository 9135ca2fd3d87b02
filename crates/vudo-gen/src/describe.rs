//! What merging does to a field, in words and with an example that is merged on the spot.

use std::fmt::Write as _;

use vudo_crdt::{
    CounterOverflow, FieldSchema, GenIndex, GenSchema, InMemory, Log, Namespace, Overflow,
    ReplicaKey, Strategy, Transaction, Value, ValueType, VersionVector,
};

const KEY: &[u8] = b"example";
/// Noon, UTC, of some day; the second replica writes a minute later.
const NOON_MILLISECONDS: u64 = 1_700_049_600_000;
const MINUTE_MILLISECONDS: u64 = 60_000;

/// Describes a field of a Gen.
///
/// ```
/// let text = "gen Task { @crdt(pn_counter) has votes: i64 }";
/// let source = vudo_gen::SourceFile { name: "task.dol".into(), text: text.into(), lock: None };
/// let schema = vudo_gen::compile(&[source]).schema.unwrap();
/// let described = vudo_gen::describe(&schema.gens[0], &schema.gens[0].fields[0]);
/// assert!(described.contains("both read 5"));
/// ```
pub fn describe(gen_schema: &GenSchema, field: &FieldSchema) -> String {
    let mut out = String::new();
    let FieldSchema { name, number, strategy, value_type, default, .. } = field;
    let (gen_name, strategy_name) = (&gen_schema.name, strategy.name());
    let _ =
        writeln!(out, "{gen_name}.{name}: {value_type}, {strategy_name}, field number {number}");
    let _ = writeln!(out, "  {}", meaning(*strategy));
    if let Some(default) = default {
        let _ = writeln!(out, "  While nobody has written it, it reads as {}.", shown(default));
    }
    for earlier in field.lineage().skip(1) {
        let FieldSchema { number, strategy, value_type, .. } = earlier;
        let strategy = strategy.name();
        let _ = writeln!(
            out,
            "  Reads what it was before, too: {value_type}, {strategy}, field number {number}."
        );
    }
    if strategy.is_counter() {
        describe_counter(field, &mut out);
    }
    let (first, second) = example_values(field);
    let verb = if strategy.is_counter() { "adds" } else { "sets" };
    let _ =
        writeln!(out, "  For example: apart from each other, replica A {verb} {} at noon and", {
            shown(&first)
        });
    let _ = write!(out, "  replica B {verb} {} a minute later; ", shown(&second));
    let _ = match merged(field, &first, &second) {
        Ok(Some(value)) => writeln!(out, "once they have met, both read {}.", shown(&value)),
        Ok(None) => writeln!(out, "once they have met, both read nothing."),
        Err(overflow) => writeln!(out, "once they have met, reading says: {overflow}."),
    };
    out
}

fn meaning(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Immutable => {
            "Set once. Where two replicas set it apart from each other, the earlier write stays."
        }
        Strategy::Lww => {
            "The latest write wins. Of two writes of the same time, the one of the greater replica \
             key wins."
        }
        Strategy::LwwContent => {
            "The latest write wins. Of two writes of the same time, the greater value wins."
        }
        Strategy::PnCounter => "What every replica adds and takes away is added up.",
        Strategy::GCounter => "What every replica adds is added up; it never shrinks.",
        Strategy::BoundedCounter => {
            "What every replica adds and takes away is added up. Each does so with rights that it \
             has been given, so its bounds hold however replicas interleave."
        }
        Strategy::MvRegister => {
            "Keeps every value that no later write has seen: where two replicas set it apart from \
             each other, both values stay until somebody who has both sets it again."
        }
        Strategy::OrSet => {
            "Where one replica adds an element while another takes it out, it stays."
        }
        Strategy::Map => {
            "Each key has a value that merges by itself. Taking a key out wins over writing to its \
             value at the same time."
        }
        Strategy::PnCounterFloat => {
            "What every replica adds and takes away is added up, to the precision of floats."
        }
    }
}

fn describe_counter(field: &FieldSchema, out: &mut String) {
    let bounds = (field.counter.min_value, field.counter.max_value);
    let about = match bounds {
        (None, None) => None,
        (Some(least), None) => Some(format!("below {least}")),
        (None, Some(greatest)) => Some(format!("above {greatest}")),
        (Some(least), Some(greatest)) => Some(format!("below {least} or above {greatest}")),
    };
    if let Some(about) = about {
        let _ =
            writeln!(out, "  A local write that would take it {about} is refused; replicas that");
        let _ = writeln!(out, "  were apart may still pass the bound together.");
    }
    if field.value_type.is_countable() {
        let reading = match field.counter.overflow {
            Overflow::Saturate => "the nearest value that does",
            Overflow::Wrap => "its low bits",
            Overflow::Error => "an error",
        };
        let type_name = &field.value_type;
        let _ = writeln!(out, "  A total that does not fit {type_name} reads as {reading}.");
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

/// Two values that a field can take, for counters amounts.
fn example_values(field: &FieldSchema) -> (Value, Value) {
    if field.strategy == Strategy::PnCounterFloat {
        return (Value::Float(2.5), Value::Float(1.25));
    }
    match field.value_type {
        ValueType::Bool => (true.into(), false.into()),
        ValueType::String => ("tea".into(), "coffee".into()),
        ValueType::F32 | ValueType::F64 => (Value::Float(2.5), Value::Float(1.25)),
        ValueType::Bytes => ([1, 2].into(), [3].into()),
        ValueType::Uuid => ([1; 16].into(), [2; 16].into()),
        ValueType::Identity => ([1; 32].into(), [2; 32].into()),
        _ => (2.into(), 3.into()),
    }
}

/// Makes both writes in stores of their own, merges both ways, and reads.
fn merged(
    field: &FieldSchema,
    first: &Value,
    second: &Value,
) -> Result<Option<Value>, CounterOverflow> {
    let mut stores = [Store::new(1), Store::new(2)];
    stores[0].write(NOON_MILLISECONDS, field, None);
    let created = stores[0].frame();
    stores[1].receive(&created);
    stores[0].write(NOON_MILLISECONDS, field, Some(first));
    stores[1].write(NOON_MILLISECONDS + MINUTE_MILLISECONDS, field, Some(second));
    let (from_first, from_second) = (stores[0].frame(), stores[1].frame());
    stores[0].receive(&from_second);
    stores[1].receive(&from_first);
    let [left, right] = stores.map(|store| store.read(field));
    debug_assert_eq!(left, right);
    left
}

struct Store {
    namespace: Namespace,
    log: Log,
}

const GEN: GenIndex = 0;

impl Store {
    fn new(key_byte: u8) -> Store {
        let mut namespace = Namespace::new(0);
        namespace.intern_replica(ReplicaKey([key_byte; 32]));
        namespace.intern_gen("Example");
        Store { namespace, log: Log::default() }
    }

    /// Writes a value, or without one creates the document. A bound that refuses an example leaves
    /// the field as it is.
    fn write(&mut self, now_milliseconds: u64, field: &FieldSchema, value: Option<&Value>) {
        let Store { namespace, log } = self;
        let mut transaction = Transaction::begin(namespace, 0, now_milliseconds);
        let source = &mut InMemory;
        let written = match value {
            None => transaction.create(namespace, source, GEN, KEY),
            Some(Value::Float(amount)) if field.strategy.is_counter() => {
                transaction.add_float(namespace, source, GEN, KEY, field, *amount)
            }
            Some(Value::Int(amount)) if field.strategy.is_counter() => {
                transaction.add(namespace, source, GEN, KEY, field, *amount as i64)
            }
            Some(value) => transaction.set(namespace, source, GEN, KEY, field, value),
        };
        if written.is_ok() {
            let committed = transaction.commit(namespace, source, log);
            debug_assert!(committed.is_ok());
        }
    }

    fn frame(&self) -> Vec<u8> {
        self.log.frame_since(&self.namespace, &VersionVector::new())
    }

    fn receive(&mut self, frame: &[u8]) {
        let applied = self.namespace.apply_frame(frame, &mut InMemory, &mut self.log);
        debug_assert!(applied.is_ok());
    }

    fn read(&self, field: &FieldSchema) -> Result<Option<Value>, CounterOverflow> {
        match self.namespace.loaded_row(GEN, KEY) {
            Some(row) => field.read(&row),
            None => Ok(None),
        }
    }
}
