//! Registers whose values cross as their encoding: values with parts, and registers of many values.
//!
//! What comes from the host is checked to be one whole, canonical value of the field's type; what
//! is stored and is of another type is not shown.

use alloc::vec::Vec;

use vudo_crdt::value::{KIND_LIST, encode_float, encode_int, skip_value, wrap};
use vudo_crdt::wire::Reader;
use vudo_crdt::{GenIndex, MalformedFrame, Namespace, Refusal, Strategy, live_values};

use crate::abi::{extras_at, run, set, split};
use crate::code::{Code, Outcome};
use crate::field::Field;
use crate::types::admits;

/// The bytes of one value of a type from the host.
pub(crate) fn value_of<'v>(types: &mut Reader<'_>, bytes: &'v [u8]) -> Result<&'v [u8], Code> {
    let mut reader = Reader::new(bytes);
    let value = skip_value(&mut reader)?;
    if !reader.is_empty() {
        return Err(MalformedFrame::TrailingBytes.into());
    }
    if admits(types, value) { Ok(value) } else { Err(Refusal::TypeMismatch.into()) }
}

/// Sets a register to the value that follows the key.
#[unsafe(no_mangle)]
extern "C" fn set_value(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    now: f64,
) -> u32 {
    run(|session, input, _| {
        let (key, bytes) = split(input, key_length)?;
        let types = Field::with_extras(field, extras_at(extras)).types;
        let value = value_of(&mut Reader::new(types), bytes)?;
        set(session, gen_index, field, key, value, now)
    })
}

/// Puts what a register shows into the output as one value, of a register of many values their list.
#[unsafe(no_mangle)]
extern "C" fn get_value(gen_index: GenIndex, field: u32, extras: usize, key_length: usize) -> u32 {
    run(|session, input, output| {
        let (key, _) = split(input, key_length)?;
        session.require(gen_index, key)?;
        let field = Field::with_extras(field, extras_at(extras));
        let (transaction, namespace) = session.parts();
        let state = transaction.view(namespace, gen_index, key).state(field.id);
        show(&field, state, namespace, output)
    })
}

/// Appends what a field shows, encoded, given the state of its cell.
#[inline(never)]
pub(crate) fn show(
    field: &Field<'_>,
    state: &[u8],
    namespace: &Namespace,
    output: &mut Vec<u8>,
) -> Outcome {
    let is_shown = |value: &[u8]| admits(&mut Reader::new(field.types), value);
    match Strategy::from_tag(field.id.tag()) {
        Some(Strategy::PnCounterFloat) => encode_float(field.float_total(state), output),
        Some(strategy) if strategy.is_counter() => encode_int(field.total(state)?, output),
        Some(Strategy::MvRegister) if cfg!(feature = "registers") => {
            let start = output.len();
            for live in live_values(state, namespace.replicas()) {
                if is_shown(live.value) {
                    output.extend_from_slice(live.value);
                }
            }
            if output.len() == start {
                output.extend_from_slice(field.default);
            }
            if output.len() == start {
                return Err(Code::NOT_SET);
            }
            wrap(KIND_LIST, output, start);
        }
        _ => {
            let shown = if is_shown(state) { state } else { field.default };
            if shown.is_empty() {
                return Err(Code::NOT_SET);
            }
            output.extend_from_slice(shown);
        }
    }
    Ok(())
}
