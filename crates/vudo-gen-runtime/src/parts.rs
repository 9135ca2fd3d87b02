//! Exports for what has parts or many values: values with parts, `mv_register`, `or_set`, `map` and
//! `bounded_counter`.
//!
//! Values cross as their encoding (`docs/reference/wasm-abi.md`), which the runtime checks to be
//! well formed and canonical; that they are of the field's type is for the host, as the runtime
//! knows no types with parts. An element of a set or a key of a map follows the document's key.

use alloc::boxed::Box;

use vudo_crdt::value::skip_value;
use vudo_crdt::wire::Reader;
use vudo_crdt::{
    CellId, Direction, FieldSchema, GenIndex, MalformedFrame, Reading, Refusal, ReplicaKey,
    Strategy, Value, ValueType, entry_key,
};

use crate::abi::{cell_of, field_of, field_with, run, set, split};
use crate::code::Code;

/// The bytes of one whole value from the host.
fn value(bytes: &[u8]) -> Result<&[u8], Code> {
    let mut reader = Reader::new(bytes);
    let value = skip_value(&mut reader)?;
    if reader.is_empty() { Ok(value) } else { Err(MalformedFrame::TrailingBytes.into()) }
}

/// The field of a word with a type that admits all that its strategy keeps. `extra` is the word of a
/// map's values, or for others where its default is, and all ones where it has none.
fn loose_field(word: u32, extra: u32) -> FieldSchema {
    let any = || Box::new(ValueType::Opaque("".into()));
    let mut field = match extra {
        u32::MAX => field_of(word),
        place if field_of(word).strategy != Strategy::Map => field_with(word, place as usize),
        _ => field_of(word),
    };
    field.value_type = match field.strategy {
        Strategy::OrSet => ValueType::Set(any()),
        Strategy::Map => ValueType::Map(any(), Box::new(field_of(extra).value_type)),
        _ => ValueType::Opaque("".into()),
    };
    if field.strategy == Strategy::Map {
        let inner = field_of(extra);
        field.value_strategy = inner.strategy;
        // A counter needs its type to fit its total into; what a register holds is given as it is.
        if !inner.strategy.is_counter() {
            field.value_type = ValueType::Map(any(), any());
        }
    }
    field
}

/// Sets a register to the value that follows the key.
#[unsafe(no_mangle)]
extern "C" fn set_value(gen_index: GenIndex, field: u32, key_length: usize, now: f64) -> u32 {
    run(|session, input, _| {
        let (key, bytes) = split(input, key_length)?;
        set(session, gen_index, field, key, value(bytes)?, now)
    })
}

/// Puts what a field shows into the output as one value: of an `mv_register` and a set the list of
/// its values, of a map its entries.
#[unsafe(no_mangle)]
extern "C" fn get_value(gen_index: GenIndex, field: u32, extra: u32, key_length: usize) -> u32 {
    run(|session, input, output| {
        let (key, _) = split(input, key_length)?;
        if !session.row(gen_index, key).is_alive() {
            return Err(Refusal::NotFound.into());
        }
        let shown = session.view().read_loaded(gen_index, key, &loose_field(field, extra))?;
        shown.ok_or(Code::NOT_SET)?.encode(output);
        Ok(())
    })
}

/// Adds the element behind the key to a set, or takes it out.
#[inline(never)]
fn change_element(gen_index: GenIndex, field: u32, key_length: usize, now: f64, adds: bool) -> u32 {
    run(|session, input, _| {
        let (key, bytes) = split(input, key_length)?;
        let element = value(bytes)?;
        session.write(now, |transaction, namespace| match adds {
            true => {
                transaction.add_element_loaded(namespace, gen_index, key, cell_of(field), element)
            }
            false => transaction.remove_element_loaded(
                namespace,
                gen_index,
                key,
                cell_of(field),
                element,
            ),
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn add_element(gen_index: GenIndex, field: u32, key_length: usize, now: f64) -> u32 {
    change_element(gen_index, field, key_length, now, true)
}

#[unsafe(no_mangle)]
extern "C" fn remove_element(gen_index: GenIndex, field: u32, key_length: usize, now: f64) -> u32 {
    change_element(gen_index, field, key_length, now, false)
}

/// Succeeds where the element behind the key is in the set, and says that it is not set where it is
/// not.
#[unsafe(no_mangle)]
extern "C" fn has_element(gen_index: GenIndex, field: u32, key_length: usize) -> u32 {
    run(|session, input, _| {
        let (key, bytes) = split(input, key_length)?;
        if !session.row(gen_index, key).is_alive() {
            return Err(Refusal::NotFound.into());
        }
        let entry = entry_key(key, cell_of(field), value(bytes)?);
        let is_in = session.row(gen_index, &entry).is_element();
        if is_in { Ok(()) } else { Err(Code::NOT_SET) }
    })
}

/// Puts how many elements or entries there are into the output.
#[unsafe(no_mangle)]
extern "C" fn count(gen_index: GenIndex, field: u32, extra: u32, key_length: usize) -> u32 {
    run(|session, input, output| {
        let (key, _) = split(input, key_length)?;
        if !session.row(gen_index, key).is_alive() {
            return Err(Refusal::NotFound.into());
        }
        let shown = session.view().read_loaded(gen_index, key, &loose_field(field, extra))?;
        let count = match shown {
            Some(Value::List(values)) => values.len(),
            Some(Value::Map(entries)) => entries.len(),
            _ => 0,
        };
        output.extend_from_slice(&(count as u64).to_le_bytes());
        Ok(())
    })
}

/// The cell in each entry of a map whose values are of this word.
fn inner_cell(inner: u32) -> CellId {
    CellId::new(1, field_of(inner).strategy)
}

/// Sets the value under a key of a map: behind the document's key stand the map's key, whose length
/// is given, and the value.
#[unsafe(no_mangle)]
extern "C" fn set_entry(
    gen_index: GenIndex,
    field: u32,
    inner: u32,
    key_length: usize,
    element_length: usize,
    now: f64,
) -> u32 {
    run(|session, input, _| {
        let (key, rest) = split(input, key_length)?;
        let (element, bytes) = split(rest, element_length)?;
        let (element, bytes) = (value(element)?, value(bytes)?);
        session.write(now, |transaction, namespace| {
            let entry =
                transaction.entry_loaded(namespace, gen_index, key, cell_of(field), element)?;
            transaction.set_loaded(namespace, gen_index, &entry, inner_cell(inner), bytes)
        })
    })
}

/// Adds to the counter under a key of a map.
#[unsafe(no_mangle)]
extern "C" fn add_entry(
    gen_index: GenIndex,
    field: u32,
    inner: u32,
    key_length: usize,
    amount: i64,
    now: f64,
) -> u32 {
    run(|session, input, _| {
        let (key, bytes) = split(input, key_length)?;
        let element = value(bytes)?;
        let bounds = field_of(inner).counter_bounds();
        session.write(now, |transaction, namespace| {
            let entry =
                transaction.entry_loaded(namespace, gen_index, key, cell_of(field), element)?;
            let cell = inner_cell(inner);
            transaction.add_loaded(namespace, gen_index, &entry, cell, bounds, amount)
        })
    })
}

/// Adds to the counter of floats under a key of a map.
#[unsafe(no_mangle)]
extern "C" fn add_float_entry(
    gen_index: GenIndex,
    field: u32,
    inner: u32,
    key_length: usize,
    amount: f64,
    now: f64,
) -> u32 {
    run(|session, input, _| {
        let (key, bytes) = split(input, key_length)?;
        let element = value(bytes)?;
        session.write(now, |transaction, namespace| {
            let entry =
                transaction.entry_loaded(namespace, gen_index, key, cell_of(field), element)?;
            transaction.add_float_loaded(namespace, gen_index, &entry, inner_cell(inner), amount)
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn remove_entry(gen_index: GenIndex, field: u32, key_length: usize, now: f64) -> u32 {
    run(|session, input, _| {
        let (key, bytes) = split(input, key_length)?;
        let element = value(bytes)?;
        session.write(now, |transaction, namespace| {
            transaction.remove_entry_loaded(namespace, gen_index, key, cell_of(field), element)
        })
    })
}

/// Puts what lies under a key of a map into the output as one value.
#[unsafe(no_mangle)]
extern "C" fn get_entry(gen_index: GenIndex, field: u32, inner: u32, key_length: usize) -> u32 {
    run(|session, input, output| {
        let (key, bytes) = split(input, key_length)?;
        if !session.row(gen_index, key).is_alive() {
            return Err(Refusal::NotFound.into());
        }
        let entry = entry_key(key, cell_of(field), value(bytes)?);
        let held = loose_field(field, inner).map_value();
        let is_there = session.row(gen_index, &entry).is_alive();
        let held = held.filter(|_| is_there).ok_or(Code::NOT_SET)?;
        let shown = session.view().read_loaded(gen_index, &entry, &held)?;
        shown.ok_or(Code::NOT_SET)?.encode(output);
        Ok(())
    })
}

/// Names the replica, by its key of 32 bytes, that has the rights on bounded counters which exist
/// from the start. All replicas have to name the same one.
#[unsafe(no_mangle)]
extern "C" fn found() -> u32 {
    run(|session, input, _| session.set_founder(input))
}

/// Adds to a `bounded_counter` with rights of this replica.
#[unsafe(no_mangle)]
extern "C" fn add_with_rights(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    amount: i64,
    now: f64,
) -> u32 {
    let bounds = field_with(field, extras).counter_bounds();
    run(|session, input, _| {
        let (key, _) = split(input, key_length)?;
        session.write(now, |transaction, namespace| {
            let cell = cell_of(field);
            transaction.add_bounded_loaded(namespace, gen_index, key, cell, bounds, amount)
        })
    })
}

fn direction(goes_up: u32) -> Direction {
    if goes_up == 0 { Direction::Down } else { Direction::Up }
}

/// Puts how far this replica may move a `bounded_counter` up, or down where `goes_up` is zero, into
/// the output.
#[unsafe(no_mangle)]
extern "C" fn rights(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    goes_up: u32,
) -> u32 {
    let field = field_with(field, extras);
    run(|session, input, output| {
        let (key, _) = split(input, key_length)?;
        let view = session.view();
        let rights = view.transaction.rights_loaded(
            view.namespace,
            gen_index,
            key,
            &field,
            direction(goes_up),
        )?;
        let rights = rights.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        output.extend_from_slice(&rights.to_le_bytes());
        Ok(())
    })
}

/// Gives rights to the replica whose key of 32 bytes stands behind the document's.
#[unsafe(no_mangle)]
extern "C" fn give_rights(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    goes_up: u32,
    amount: i64,
    now: f64,
) -> u32 {
    let field = field_with(field, extras);
    run(|session, input, _| {
        let (key, receiver) = split(input, key_length)?;
        let receiver = receiver.try_into().map_err(|_| Code::INPUT_LENGTH)?;
        let (receiver, direction) = (ReplicaKey(receiver), direction(goes_up));
        session.write(now, |transaction, namespace| {
            transaction
                .give_rights_loaded(namespace, gen_index, key, &field, &receiver, direction, amount)
        })
    })
}
