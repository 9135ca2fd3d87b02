//! Exports of `bounded_counter`: who may move it, and how far.

use vudo_crdt::{Direction, GenIndex, ReplicaKey};

use crate::abi::{run, write_total};
use crate::call::run_call;
use crate::code::Code;

/// Names the replica, by its key of 32 bytes, that has the rights on bounded counters which exist
/// from the start. All replicas have to name the same one.
#[unsafe(no_mangle)]
extern "C" fn found() -> u32 {
    run(|session, input, _| session.set_founder(input))
}

/// Adds to a counter with rights of this replica.
#[unsafe(no_mangle)]
extern "C" fn add_with_rights(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    amount: i64,
    now: f64,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, _| {
        let counter = call.field.bounded_counter();
        session.write(now, |transaction, namespace| {
            transaction.add_bounded_loaded(namespace, gen_index, call.key, &counter, amount)
        })
    })
}

fn direction(goes_up: u32) -> Direction {
    if goes_up == 0 { Direction::Down } else { Direction::Up }
}

/// Puts how far this replica may move a counter up, or down where `goes_up` is zero, into the
/// output.
#[unsafe(no_mangle)]
extern "C" fn rights(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    goes_up: u32,
) -> u32 {
    run_call(gen_index, field, extras, key_length, |call, session, output| {
        let (counter, direction) = (call.field.bounded_counter(), direction(goes_up));
        let (transaction, namespace) = session.parts();
        let rights =
            transaction.rights_loaded(namespace, gen_index, call.key, &counter, direction)?;
        write_total(rights, output);
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
    run_call(gen_index, field, extras, key_length, |call, session, _| {
        let receiver = ReplicaKey(call.rest.try_into().map_err(|_| Code::INPUT_LENGTH)?);
        let counter = call.field.bounded_counter();
        let give = (&receiver, direction(goes_up), amount);
        session.write(now, |transaction, namespace| {
            transaction.give_rights_loaded(namespace, gen_index, call.key, &counter, give)
        })
    })
}
