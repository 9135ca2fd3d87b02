//! The functions that a module exports, and those that the compiler cuts exports from.
//!
//! Arguments named `field` are field words: `field number << 9 | type tag << 4 | strategy tag`.
//! `key_length` says how much of the input is the document's key; a text value follows it.

use core::cell::UnsafeCell;

use alloc::vec::Vec;

use vudo_crdt::limits::MAX_FRAME_BYTES;
use vudo_crdt::value::{
    decode_utf8, encode_bool, encode_bytes, encode_float, encode_int, encode_utf8, tag,
};
use vudo_crdt::{CellId, GenIndex, Namespace, Refusal, Transaction, counter_total};

use crate::code::{Code, Outcome};
use crate::field::Field;
use crate::session::{Session, text};

/// Raised when an export changes its meaning; new exports do not raise it.
const ABI_VERSION: u32 = 1;

static ZEROS: [u8; 1024] = [0; 1024];

struct State {
    input: Vec<u8>,
    output: Vec<u8>,
    session: Session,
}

struct Global(UnsafeCell<State>);

// SAFETY: the module has one thread: it is built without atomics and shares no memory.
unsafe impl Sync for Global {}

static STATE: Global = Global(UnsafeCell::new(State {
    input: Vec::new(),
    output: Vec::new(),
    session: Session::new(),
}));

fn state() -> &'static mut State {
    // SAFETY: no two references to the state are alive at once: `enter` is done with its own before
    // an export asks for another one, and no export calls another.
    unsafe { &mut *STATE.0.get() }
}

// The compiler replaces both by constants.
#[link(wasm_import_module = "schema")]
unsafe extern "C" {
    safe fn address() -> *const u8;
    safe fn length() -> usize;
}

/// The compiler's data: the Gens' names, then what single fields point to.
fn schema() -> &'static [u8] {
    // SAFETY: the compiler places so many bytes there before the module runs, outside of anything
    // that the allocator gives out, and nothing writes to them.
    unsafe { core::slice::from_raw_parts(address(), length()) }
}

#[unsafe(no_mangle)]
extern "C" fn abi_version() -> u32 {
    ABI_VERSION
}

/// Makes the input this long and says where it lies, or gives zero for a length past the largest
/// frame. It stays there until the next call.
#[unsafe(no_mangle)]
extern "C" fn input(length: usize) -> *mut u8 {
    let state = state();
    if length > MAX_FRAME_BYTES {
        return core::ptr::null_mut();
    }
    let input = &mut state.input;
    input.clear();
    input.reserve(length);
    // In pieces, because filling byte by byte is slower and more code.
    while input.len() < length {
        let missing = length - input.len();
        input.extend_from_slice(&ZEROS[..missing.min(ZEROS.len())]);
    }
    input.as_mut_ptr()
}

/// Where the output of the last call lies.
#[unsafe(no_mangle)]
extern "C" fn output() -> *const u8 {
    state().output.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn output_length() -> usize {
    state().output.len()
}

/// Opens the module for the replica whose key of 32 bytes is the input. The seed has no use in a
/// module whose tables are sorted.
#[unsafe(no_mangle)]
extern "C" fn open(_seed: u64) -> u32 {
    let state = state();
    Code::of(state.session.open(&state.input, schema()))
}

/// Empties the output for an operation, which needs an open session and a key within the input.
#[cfg_attr(feature = "bounded", inline(never))]
#[cfg_attr(not(feature = "bounded"), inline(always))]
fn enter(key_length: usize) -> Outcome {
    let State { input, output, session } = state();
    output.clear();
    if !session.is_open() {
        Err(Code::NOT_OPEN)
    } else if key_length > input.len() {
        Err(Code::INPUT_LENGTH)
    } else {
        Ok(())
    }
}

/// Runs an operation on the open session with the input, after emptying the output.
#[inline(always)]
pub(crate) fn run(work: impl FnOnce(&mut Session, &[u8], &mut Vec<u8>) -> Outcome) -> u32 {
    run_with_key(0, work)
}

/// The same of an operation whose input has at least a key of this length.
#[inline(always)]
pub(crate) fn run_with_key(
    key_length: usize,
    work: impl FnOnce(&mut Session, &[u8], &mut Vec<u8>) -> Outcome,
) -> u32 {
    Code::of(enter(key_length).and_then(|()| {
        let State { input, output, session } = state();
        work(session, input, output)
    }))
}

/// Makes a write to the document whose key is at the front of the input.
#[inline(always)]
fn write(
    key_length: usize,
    now: f64,
    work: impl FnOnce(&mut Transaction, &Namespace, &[u8]) -> Result<(), Refusal>,
) -> u32 {
    run(|session, input, _| {
        let (key, _) = split(input, key_length)?;
        session.write(now, |transaction, namespace| work(transaction, namespace, key))
    })
}

/// The key of a document at the front of the input, and what follows.
pub(crate) fn split(input: &[u8], key_length: usize) -> Result<(&[u8], &[u8]), Code> {
    input.split_at_checked(key_length).ok_or(Code::INPUT_LENGTH)
}

#[unsafe(no_mangle)]
extern "C" fn begin(now: f64) -> u32 {
    run(|session, _, _| session.begin(now))
}

#[unsafe(no_mangle)]
extern "C" fn commit() -> u32 {
    run(|session, _, _| session.commit())
}

#[unsafe(no_mangle)]
extern "C" fn rollback() -> u32 {
    run(|session, _, _| session.roll_back())
}

#[unsafe(no_mangle)]
extern "C" fn merge() -> u32 {
    run(|session, input, _| session.merge(input))
}

#[unsafe(no_mangle)]
extern "C" fn changes_since() -> u32 {
    run(|session, input, output| session.changes_since(input, output))
}

#[unsafe(no_mangle)]
extern "C" fn version() -> u32 {
    run(|session, _, output| {
        session.version(output);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn create(gen_index: GenIndex, now: f64) -> u32 {
    run(|session, key, _| {
        text(key)?;
        session.write(now, |transaction, namespace| {
            transaction.create_loaded(namespace, gen_index, key)
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn delete(gen_index: GenIndex, now: f64) -> u32 {
    run(|session, key, _| {
        session.write(now, |transaction, namespace| {
            transaction.delete_loaded(namespace, gen_index, key)
        })
    })
}

/// Succeeds where the document exists, and says that it is not set where it does not.
#[unsafe(no_mangle)]
extern "C" fn exists(gen_index: GenIndex) -> u32 {
    run(|session, key, _| {
        let exists = session.row(gen_index, key).is_alive();
        if exists { Ok(()) } else { Err(Code::NOT_SET) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn keys(gen_index: GenIndex) -> u32 {
    run(|session, _, output| {
        session.keys(gen_index, output);
        Ok(())
    })
}

/// The cell that a field word names.
pub(crate) fn cell_of(word: u32) -> CellId {
    CellId::from_bits(word >> 9 << 4 | word & 15)
}

/// Sets the register of a document to a value in its bytes.
#[inline(never)]
pub(crate) fn set(
    session: &mut Session,
    gen_index: GenIndex,
    field: u32,
    key: &[u8],
    value: &[u8],
    now: f64,
) -> Outcome {
    session.write(now, |transaction, namespace| {
        transaction.set_loaded(namespace, gen_index, key, cell_of(field), value)
    })
}

#[unsafe(no_mangle)]
extern "C" fn set_string(gen_index: GenIndex, field: u32, key_length: usize, now: f64) -> u32 {
    run(|session, input, _| {
        let (key, value) = split(input, key_length)?;
        let mut bytes = Vec::new();
        encode_utf8(text(value)?, &mut bytes);
        set(session, gen_index, field, key, &bytes, now)
    })
}

/// Sets a register of bytes to what follows the key.
#[unsafe(no_mangle)]
extern "C" fn set_bytes(gen_index: GenIndex, field: u32, key_length: usize, now: f64) -> u32 {
    run(|session, input, _| {
        let (key, value) = split(input, key_length)?;
        let mut bytes = Vec::new();
        encode_bytes(value, &mut bytes);
        if !Field::of(field).admits(&bytes) {
            return Err(Refusal::TypeMismatch.into());
        }
        set(session, gen_index, field, key, &bytes, now)
    })
}

#[inline(never)]
fn set_value(gen_index: GenIndex, field: u32, key_length: usize, value: &[u8], now: f64) -> u32 {
    run(|session, input, _| {
        let (key, _) = split(input, key_length)?;
        if !Field::of(field).admits(value) {
            return Err(Refusal::TypeMismatch.into());
        }
        set(session, gen_index, field, key, value, now)
    })
}

#[unsafe(no_mangle)]
extern "C" fn set_bool(
    gen_index: GenIndex,
    field: u32,
    key_length: usize,
    value: u32,
    now: f64,
) -> u32 {
    let mut bytes = Vec::new();
    encode_bool(value != 0, &mut bytes);
    set_value(gen_index, field, key_length, &bytes, now)
}

#[unsafe(no_mangle)]
extern "C" fn set_integer(
    gen_index: GenIndex,
    field: u32,
    key_length: usize,
    value: i64,
    now: f64,
) -> u32 {
    // Only of `u64` are there numbers past `i64`, and no type has both those and negative ones.
    let is_u64 = (field >> 4 & 31) as u8 == tag::U64;
    let mut bytes = Vec::new();
    encode_int(if is_u64 { i128::from(value as u64) } else { value.into() }, &mut bytes);
    set_value(gen_index, field, key_length, &bytes, now)
}

#[unsafe(no_mangle)]
extern "C" fn set_float(
    gen_index: GenIndex,
    field: u32,
    key_length: usize,
    value: f64,
    now: f64,
) -> u32 {
    let mut bytes = Vec::new();
    encode_float(value, &mut bytes);
    set_value(gen_index, field, key_length, &bytes, now)
}

/// Adds to a counter of `i64` without options.
#[unsafe(no_mangle)]
extern "C" fn add(
    gen_index: GenIndex,
    field: u32,
    key_length: usize,
    amount: i64,
    now: f64,
) -> u32 {
    let bounds = (i64::MIN.into(), i64::MAX.into());
    add_within(gen_index, field, key_length, &bounds, amount, now)
}

/// Adds to an integer counter of any type: `extras` says where in the compiler's data its options
/// are.
#[unsafe(no_mangle)]
extern "C" fn add_bounded(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    amount: i64,
    now: f64,
) -> u32 {
    let bounds = Field::with_extras(field, extras_at(extras)).counter_bounds();
    add_within(gen_index, field, key_length, &bounds, amount, now)
}

#[inline(never)]
fn add_within(
    gen_index: GenIndex,
    field: u32,
    key_length: usize,
    bounds: &(i128, i128),
    amount: i64,
    now: f64,
) -> u32 {
    write(key_length, now, |transaction, namespace, key| {
        transaction.add_loaded(namespace, gen_index, key, cell_of(field), bounds, amount)
    })
}

#[unsafe(no_mangle)]
extern "C" fn add_float(
    gen_index: GenIndex,
    field: u32,
    key_length: usize,
    amount: f64,
    now: f64,
) -> u32 {
    write(key_length, now, |transaction, namespace, key| {
        transaction.add_float_loaded(namespace, gen_index, key, cell_of(field), amount)
    })
}

/// Puts the text that a register of text shows into the output.
#[unsafe(no_mangle)]
extern "C" fn get_string(gen_index: GenIndex, field: u32, key_length: usize) -> u32 {
    run(|session, input, output| {
        let state = state_of(session, gen_index, field, input, key_length)?;
        output.extend_from_slice(decode_utf8(state).ok_or(Code::NOT_SET)?);
        Ok(())
    })
}

/// The state of a cell of the document whose key is at the front of the input.
#[inline(never)]
fn state_of<'s>(
    session: &'s mut Session,
    gen_index: GenIndex,
    field: u32,
    input: &[u8],
    key_length: usize,
) -> Result<&'s [u8], Code> {
    let (key, _) = split(input, key_length)?;
    let row = session.row(gen_index, key);
    if row.is_alive() { Ok(row.state(cell_of(field))) } else { Err(Refusal::NotFound.into()) }
}

/// Puts what a field of any kind shows into the output.
#[unsafe(no_mangle)]
extern "C" fn get(gen_index: GenIndex, field: u32, key_length: usize) -> u32 {
    read(gen_index, &Field::of(field), key_length)
}

/// As `get`, for a field with a default or options: `extras` says where in the compiler's data
/// they are.
#[unsafe(no_mangle)]
extern "C" fn get_with(gen_index: GenIndex, field: u32, extras: usize, key_length: usize) -> u32 {
    read(gen_index, &Field::with_extras(field, extras_at(extras)), key_length)
}

#[inline(never)]
fn read(gen_index: GenIndex, field: &Field<'_>, key_length: usize) -> u32 {
    run(|session, input, output| {
        let (key, _) = split(input, key_length)?;
        let row = session.row(gen_index, key);
        if !row.is_alive() {
            return Err(Refusal::NotFound.into());
        }
        if field.read(row.state(field.id), output)? { Ok(()) } else { Err(Code::NOT_SET) }
    })
}

/// Puts the total of a counter of `i64` without options into the output.
#[unsafe(no_mangle)]
extern "C" fn get_total(gen_index: GenIndex, field: u32, key_length: usize) -> u32 {
    run(|session, input, output| {
        write_total(counter_total(state_of(session, gen_index, field, input, key_length)?), output);
        Ok(())
    })
}

/// Appends the number of `i64` that is nearest to a total.
#[inline(never)]
pub(crate) fn write_total(total: i128, output: &mut Vec<u8>) {
    let nearest = if total < 0 { i64::MIN } else { i64::MAX };
    let low = total as i64;
    let shown = if i128::from(low) == total { low } else { nearest };
    output.extend_from_slice(&shown.to_le_bytes());
}

/// What the compiler's data has of a field from a place on.
pub(crate) fn extras_at(place: usize) -> &'static [u8] {
    schema().get(place..).unwrap_or_default()
}
