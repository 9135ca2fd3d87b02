//! Exports of fields that were something else before: they read what is under each of their numbers.
//!
//! Such a field is described by a schema of its own in the compiler's data, and goes through the code
//! that native stores run: conversions compute with values of any type, which is more than a module
//! whose fields never changed should have to load. Arguments and outputs are those of the exports in
//! whose place these are.

use alloc::string::String;
use alloc::vec::Vec;

use vudo_crdt::value::skip_value;
use vudo_crdt::wire::{Reader, write_byte};
use vudo_crdt::{
    FieldSchema, GenIndex, Inherited, MalformedFrame, Namespace, Reading, Refusal, Schema,
    Transaction, TransactionView, Value, ValueType, entry_key,
};

use crate::abi::{extras_at, run, split};
use crate::code::{Code, Outcome};
use crate::session::Session;

/// What a call says about a field.
struct Evolved<'c> {
    gen_index: GenIndex,
    field: FieldSchema,
    /// The key of the document.
    key: &'c [u8],
    /// What follows the key.
    rest: &'c [u8],
}

impl<'c> Evolved<'c> {
    /// `extras` says where in the compiler's data the schema of the field stands behind its length.
    fn read(
        gen_index: GenIndex,
        extras: usize,
        input: &'c [u8],
        key_length: usize,
    ) -> Result<Evolved<'c>, Code> {
        let (key, rest) = split(input, key_length)?;
        let schema = Schema::decode(Reader::new(extras_at(extras)).bytes()?)?;
        let field = schema.gens.into_iter().flat_map(|one| one.fields).next();
        Ok(Evolved { gen_index, field: field.ok_or(MalformedFrame::Truncated)?, key, rest })
    }

    /// The element of a set or the key of a map behind the document's key.
    fn element(&self, bytes: &[u8]) -> Result<Value, Code> {
        let element = value_of(bytes)?;
        match self.field.element_type() {
            Some(element_type) if element_type.admits(&element) => Ok(element),
            _ => Err(Refusal::TypeMismatch.into()),
        }
    }

    fn set(&self, session: &mut Session, value: &Value, now: f64) -> Outcome {
        session.write(now, |transaction, namespace| {
            let inherited = self.inherited(transaction, namespace);
            let Evolved { gen_index, field, key, .. } = self;
            transaction.set_over_loaded(namespace, *gen_index, key, field, value, inherited)
        })
    }

    fn inherited(&self, transaction: &mut Transaction, namespace: &Namespace) -> Inherited {
        Inherited::of(&self.field, &transaction.view(namespace, self.gen_index, self.key))
    }

    /// What the field shows.
    fn shown(&self, session: &mut Session) -> Result<Value, Code> {
        session.require(self.gen_index, self.key)?;
        let (transaction, namespace) = session.parts();
        let mut view = TransactionView { transaction, namespace };
        view.read_loaded(self.gen_index, self.key, &self.field)?.ok_or(Code::NOT_SET)
    }

    /// Writes to what lies under a key of a map, whose entry is created where there is none.
    fn write_entry(
        &self,
        session: &mut Session,
        map_key: &Value,
        now: f64,
        work: impl FnOnce(
            &mut Transaction,
            &Namespace,
            &[u8],
            &FieldSchema,
            Inherited,
        ) -> Result<(), Refusal>,
    ) -> Outcome {
        let held = self.field.map_value().ok_or(Refusal::NotThisOperation)?;
        let element = map_key.to_bytes();
        session.write(now, |transaction, namespace| {
            let mut inherited = Inherited::default();
            for map in self.field.collections().skip(1) {
                let row_key = entry_key(self.key, map.id(), &element);
                let row = transaction.view(namespace, self.gen_index, &row_key);
                if let (Some(earlier), true) = (map.map_value(), row.is_alive()) {
                    inherited.add_entry(&earlier, &row);
                }
            }
            let id = self.field.id();
            let entry =
                transaction.entry_loaded(namespace, self.gen_index, self.key, id, &element)?;
            work(transaction, namespace, &entry, &held, inherited)
        })
    }
}

/// One whole value from the host.
fn value_of(bytes: &[u8]) -> Result<Value, Code> {
    let mut reader = Reader::new(bytes);
    let value = skip_value(&mut reader)?;
    if !reader.is_empty() {
        return Err(MalformedFrame::TrailingBytes.into());
    }
    Value::decode(value).ok_or(MalformedFrame::ValueNotCanonical.into())
}

/// Runs what an export does with its call.
fn run_evolved(
    gen_index: GenIndex,
    extras: usize,
    key_length: usize,
    work: impl FnOnce(&Evolved<'_>, &mut Session, &mut Vec<u8>) -> Outcome,
) -> u32 {
    run(|session, input, output| {
        work(&Evolved::read(gen_index, extras, input, key_length)?, session, output)
    })
}

/// Sets a register of text to what follows the key.
#[unsafe(no_mangle)]
extern "C" fn evolved_set_string(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        let text = String::from_utf8(call.rest.into());
        let text = text.map_err(|_| MalformedFrame::StringNotUtf8)?;
        call.set(session, &Value::String(text), now)
    })
}

/// Sets a register of bytes to what follows the key.
#[unsafe(no_mangle)]
extern "C" fn evolved_set_bytes(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        call.set(session, &Value::Bytes(call.rest.into()), now)
    })
}

#[unsafe(no_mangle)]
extern "C" fn evolved_set_bool(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    value: u32,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        call.set(session, &Value::Bool(value != 0), now)
    })
}

#[unsafe(no_mangle)]
extern "C" fn evolved_set_integer(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    value: i64,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        let is_u64 = call.field.value_type == ValueType::U64;
        let number = if is_u64 { i128::from(value as u64) } else { value.into() };
        call.set(session, &Value::Int(number), now)
    })
}

#[unsafe(no_mangle)]
extern "C" fn evolved_set_float(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    value: f64,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        call.set(session, &Value::Float(value), now)
    })
}

/// Sets a register to the value that follows the key.
#[unsafe(no_mangle)]
extern "C" fn evolved_set_value(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        call.set(session, &value_of(call.rest)?, now)
    })
}

/// Adds to a counter of integers.
#[unsafe(no_mangle)]
extern "C" fn evolved_add(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    amount: i64,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        session.write(now, |transaction, namespace| {
            let inherited = call.inherited(transaction, namespace);
            let (key, field) = (call.key, &call.field);
            transaction.add_over_loaded(namespace, gen_index, key, field, amount, inherited)
        })
    })
}

/// Adds to a counter of floats, which no bound keeps what it was before from.
#[unsafe(no_mangle)]
extern "C" fn evolved_add_float(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    amount: f64,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        session.write(now, |transaction, namespace| {
            transaction.add_float_loaded(namespace, gen_index, call.key, call.field.id(), amount)
        })
    })
}

/// Puts what a field without parts shows into the output.
#[unsafe(no_mangle)]
extern "C" fn evolved_get(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, output| {
        match call.shown(session)? {
            Value::Bool(truth) => write_byte(output, truth.into()),
            Value::Int(number) => output.extend_from_slice(&(number as u64).to_le_bytes()),
            Value::Float(number) => output.extend_from_slice(&number.to_le_bytes()),
            Value::String(text) => output.extend_from_slice(text.as_bytes()),
            Value::Bytes(bytes) => output.extend_from_slice(&bytes),
            _ => return Err(Refusal::TypeMismatch.into()),
        }
        Ok(())
    })
}

/// Puts what a field of any kind shows into the output as one value.
#[unsafe(no_mangle)]
extern "C" fn evolved_get_value(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, output| {
        call.shown(session)?.encode(output);
        Ok(())
    })
}

/// Adds the element behind the key to a set.
#[unsafe(no_mangle)]
extern "C" fn evolved_add_element(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        let element = call.element(call.rest)?.to_bytes();
        session.write(now, |transaction, namespace| {
            let (key, id) = (call.key, call.field.id());
            transaction.add_element_loaded(namespace, gen_index, key, id, &element)
        })
    })
}

/// Takes the element behind the key out of a set, where it may be under each of the set's numbers.
#[unsafe(no_mangle)]
extern "C" fn evolved_remove_element(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        let element = call.element(call.rest)?.to_bytes();
        session.write(now, |transaction, namespace| {
            let mut sets = call.field.collections();
            sets.try_for_each(|set| {
                let (key, id) = (call.key, set.id());
                transaction.remove_element_loaded(namespace, gen_index, key, id, &element)
            })
        })
    })
}

/// Succeeds where the element behind the key is in the set, and says that it is not set where it is
/// not.
#[unsafe(no_mangle)]
extern "C" fn evolved_has_element(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        session.require(gen_index, call.key)?;
        let element = call.element(call.rest)?.to_bytes();
        let mut sets = call.field.collections();
        let is_in = sets.any(|set| {
            let entry = entry_key(call.key, set.id(), &element);
            session.row(gen_index, &entry).is_element()
        });
        if is_in { Ok(()) } else { Err(Code::NOT_SET) }
    })
}

/// Sets the value under a key of a map: behind the document's key stand the map's key, whose length
/// is given, and the value.
#[unsafe(no_mangle)]
extern "C" fn evolved_set_entry(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    map_key_length: usize,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        let (map_key, bytes) = split(call.rest, map_key_length)?;
        let (map_key, value) = (call.element(map_key)?, value_of(bytes)?);
        call.write_entry(session, &map_key, now, |to, namespace, entry, held, inherited| {
            to.set_over_loaded(namespace, gen_index, entry, held, &value, inherited)
        })
    })
}

/// Adds to the counter under a key of a map.
#[unsafe(no_mangle)]
extern "C" fn evolved_add_entry(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    amount: i64,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        let map_key = call.element(call.rest)?;
        call.write_entry(session, &map_key, now, |to, namespace, entry, held, inherited| {
            to.add_over_loaded(namespace, gen_index, entry, held, amount, inherited)
        })
    })
}

/// Adds to the counter of floats under a key of a map.
#[unsafe(no_mangle)]
extern "C" fn evolved_add_float_entry(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    amount: f64,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        let map_key = call.element(call.rest)?;
        call.write_entry(session, &map_key, now, |to, namespace, entry, held, _| {
            to.add_float_loaded(namespace, gen_index, entry, held.id(), amount)
        })
    })
}

/// Takes the entry under a key out of a map, where it may be under each of the map's numbers.
#[unsafe(no_mangle)]
extern "C" fn evolved_remove_entry(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, _| {
        let map_key = call.element(call.rest)?.to_bytes();
        session.write(now, |transaction, namespace| {
            let mut maps = call.field.collections();
            maps.try_for_each(|map| {
                let (key, id) = (call.key, map.id());
                transaction.remove_entry_loaded(namespace, gen_index, key, id, &map_key)
            })
        })
    })
}

/// Puts what lies under a key of a map into the output as one value. The whole map is read for it.
#[unsafe(no_mangle)]
extern "C" fn evolved_get_entry(
    gen_index: GenIndex,
    _field: u32,
    extras: usize,
    key_length: usize,
) -> u32 {
    run_evolved(gen_index, extras, key_length, |call, session, output| {
        let wanted = call.element(call.rest)?;
        let Value::Map(entries) = call.shown(session)? else { return Err(Code::NOT_SET) };
        let found = entries.into_iter().find(|(map_key, _)| *map_key == wanted);
        found.ok_or(Code::NOT_SET)?.1.encode(output);
        Ok(())
    })
}
