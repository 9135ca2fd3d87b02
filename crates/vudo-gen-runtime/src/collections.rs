//! Exports of sets and maps. An element of a set or a key of a map follows the document's key, as
//! one encoded value.

use alloc::vec::Vec;

use vudo_crdt::value::{KIND_LIST, KIND_MAP, wrap};
use vudo_crdt::wire::Reader;
use vudo_crdt::{GenIndex, entry_key};

use crate::abi::split;
use crate::call::{Call, run_call};
use crate::code::Code;
use crate::session::Session;
use crate::types::admits;
use crate::values::{show, value_of};

impl<'c> Call<'c> {
    /// A key of the map in the input.
    fn map_key<'v>(&self, bytes: &'v [u8]) -> Result<&'v [u8], Code> {
        value_of(&mut Reader::new(self.field.types.get(1..).unwrap_or_default()), bytes)
    }

    /// Begins a write to the entry of a map under a key, which is created where there is none. Gives
    /// the key of the entry; [`Session::end_write`] has to follow.
    #[inline(never)]
    fn begin_entry(
        &self,
        session: &mut Session,
        map_key: &[u8],
        now: f64,
    ) -> Result<Vec<u8>, Code> {
        session.begin_write(now);
        let (transaction, namespace) = session.parts();
        let Call { gen_index, key, .. } = *self;
        Ok(transaction.entry_loaded(namespace, gen_index, key, self.field.id, map_key)?)
    }

    /// What the keys of the entries of a collection begin with.
    fn prefix(&self, session: &mut Session) -> Result<Vec<u8>, Code> {
        session.require(self.gen_index, self.key)?;
        Ok(entry_key(self.key, self.field.id, &[]))
    }
}

/// Adds the element behind the key to a set, or takes it out.
#[inline(never)]
fn change_element(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
    adds: bool,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, _| {
        let element = value_of(&mut Reader::new(call.field.types), call.rest)?;
        let (key, id) = (call.key, call.field.id);
        session.write(now, |transaction, namespace| match adds {
            true => transaction.add_element_loaded(namespace, gen_index, key, id, element),
            false => transaction.remove_element_loaded(namespace, gen_index, key, id, element),
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn add_element(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    change_element(gen_index, field, extras, key_length, now, true)
}

#[unsafe(no_mangle)]
extern "C" fn remove_element(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    change_element(gen_index, field, extras, key_length, now, false)
}

/// Succeeds where the element behind the key is in the set, and says that it is not set where it is
/// not.
#[unsafe(no_mangle)]
extern "C" fn has_element(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, _| {
        session.require(gen_index, call.key)?;
        let element = value_of(&mut Reader::new(call.field.types), call.rest)?;
        let entry = entry_key(call.key, call.field.id, element);
        if session.row(gen_index, &entry).is_element() { Ok(()) } else { Err(Code::NOT_SET) }
    })
}

/// Puts the elements of a set into the output, as the value of a list.
#[unsafe(no_mangle)]
extern "C" fn get_elements(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, output| {
        let mut entry = call.prefix(session)?;
        let prefix_length = entry.len();
        while session.next_entry(gen_index, prefix_length, &mut entry) {
            let element = &entry[prefix_length..];
            if session.row(gen_index, &entry).is_element()
                && admits(&mut Reader::new(call.field.types), element)
            {
                output.extend_from_slice(element);
            }
        }
        wrap(KIND_LIST, output, 0);
        Ok(())
    })
}

/// Sets the value under a key of a map: behind the document's key stand the map's key, whose length
/// is given, and the value.
#[unsafe(no_mangle)]
extern "C" fn set_entry(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    map_key_length: usize,
    now: f64,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, _| {
        let (map_key, bytes) = split(call.rest, map_key_length)?;
        let held = call.field.held();
        let map_key = call.map_key(map_key)?;
        let value = value_of(&mut Reader::new(held.types), bytes)?;
        let entry = call.begin_entry(session, map_key, now)?;
        let (transaction, namespace) = session.parts();
        let outcome = transaction.set_loaded(namespace, gen_index, &entry, held.id, value);
        session.end_write(outcome)
    })
}

/// Adds to the counter under a key of a map.
#[unsafe(no_mangle)]
extern "C" fn add_entry(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    amount: i64,
    now: f64,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, _| {
        let (held, map_key) = (call.field.held(), call.map_key(call.rest)?);
        let bounds = held.counter_bounds();
        let entry = call.begin_entry(session, map_key, now)?;
        let (transaction, namespace) = session.parts();
        let outcome =
            transaction.add_loaded(namespace, gen_index, &entry, held.id, &bounds, amount);
        session.end_write(outcome)
    })
}

/// Adds to the counter of floats under a key of a map.
#[unsafe(no_mangle)]
extern "C" fn add_float_entry(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    amount: f64,
    now: f64,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, _| {
        let (held, map_key) = (call.field.held(), call.map_key(call.rest)?);
        let entry = call.begin_entry(session, map_key, now)?;
        let (transaction, namespace) = session.parts();
        let outcome = transaction.add_float_loaded(namespace, gen_index, &entry, held.id, amount);
        session.end_write(outcome)
    })
}

#[unsafe(no_mangle)]
extern "C" fn remove_entry(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, _| {
        let map_key = call.map_key(call.rest)?;
        let (key, id) = (call.key, call.field.id);
        session.write(now, |transaction, namespace| {
            transaction.remove_entry_loaded(namespace, gen_index, key, id, map_key)
        })
    })
}

/// Puts what lies under a key of a map into the output as one value.
#[unsafe(no_mangle)]
extern "C" fn get_entry(gen_index: GenIndex, field: u32, extras: usize, key_length: usize) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, output| {
        session.require(gen_index, call.key)?;
        let entry = entry_key(call.key, call.field.id, call.map_key(call.rest)?);
        let (transaction, namespace) = session.parts();
        let row = transaction.view(namespace, gen_index, &entry);
        if !row.is_alive() {
            return Err(Code::NOT_SET);
        }
        let held = call.field.held();
        show(&held, row.state(held.id), namespace, output)
    })
}

/// Puts the entries of a map into the output, as the value of a map.
#[unsafe(no_mangle)]
extern "C" fn get_entries(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, output| {
        let held = call.field.held();
        let mut entry = call.prefix(session)?;
        let prefix_length = entry.len();
        while session.next_entry(gen_index, prefix_length, &mut entry) {
            let length = output.len();
            let (transaction, namespace) = session.parts();
            let row = transaction.view(namespace, gen_index, &entry);
            if !row.is_alive() {
                continue;
            }
            output.extend_from_slice(&entry[prefix_length..]);
            match show(&held, row.state(held.id), namespace, output) {
                Err(Code::NOT_SET) => output.truncate(length),
                outcome => outcome?,
            }
        }
        wrap(KIND_MAP, output, 0);
        Ok(())
    })
}
