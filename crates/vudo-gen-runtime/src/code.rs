//! What functions give back: zero, or why nothing happened.

use core::convert::Infallible;

use vudo_crdt::{ApplyError, ChunkError, CounterOverflow, MalformedFrame, WriteError};

/// A reason. Codes below 32 are those of [`MalformedFrame`]; all are listed in
/// `docs/reference/wasm-abi.md` and never change their meaning.
#[derive(Clone, Copy)]
pub(crate) struct Code(u8);

impl Code {
    pub(crate) const GAP: Code = Code(32);
    pub(crate) const TOO_MANY_GENS: Code = Code(33);
    pub(crate) const ALREADY_EXISTS: Code = Code(34);
    pub(crate) const NOT_FOUND: Code = Code(35);
    pub(crate) const KEY_LENGTH: Code = Code(36);
    pub(crate) const TYPE_MISMATCH: Code = Code(37);
    pub(crate) const NOT_THIS_OPERATION: Code = Code(38);
    pub(crate) const IMMUTABLE: Code = Code(39);
    pub(crate) const OUT_OF_BOUNDS: Code = Code(40);
    pub(crate) const CHANGE_TOO_LARGE: Code = Code(41);
    pub(crate) const CLOCK_AT_CEILING: Code = Code(42);
    pub(crate) const COUNTER_OVERFLOW: Code = Code(43);
    pub(crate) const NOT_SET: Code = Code(44);
    pub(crate) const NOT_OPEN: Code = Code(45);
    pub(crate) const ALREADY_OPEN: Code = Code(46);
    pub(crate) const TRANSACTION_OPEN: Code = Code(47);
    pub(crate) const NO_TRANSACTION: Code = Code(48);
    pub(crate) const INPUT_LENGTH: Code = Code(49);

    /// The number that the host sees: zero for success.
    pub(crate) fn of(outcome: Result<(), Code>) -> u32 {
        match outcome {
            Ok(()) => 0,
            Err(Code(number)) => number.into(),
        }
    }
}

impl From<MalformedFrame> for Code {
    fn from(what: MalformedFrame) -> Code {
        Code(what as u8)
    }
}

impl From<ChunkError<Infallible>> for Code {
    fn from(_: ChunkError<Infallible>) -> Code {
        // A namespace in memory loads nothing, so this is never built.
        Code::NOT_FOUND
    }
}

impl From<CounterOverflow> for Code {
    fn from(_: CounterOverflow) -> Code {
        Code::COUNTER_OVERFLOW
    }
}

impl From<WriteError<Infallible>> for Code {
    fn from(error: WriteError<Infallible>) -> Code {
        match error {
            WriteError::AlreadyExists => Code::ALREADY_EXISTS,
            WriteError::NotFound => Code::NOT_FOUND,
            WriteError::KeyLength(_) => Code::KEY_LENGTH,
            WriteError::TypeMismatch => Code::TYPE_MISMATCH,
            WriteError::NotThisOperation => Code::NOT_THIS_OPERATION,
            WriteError::Immutable => Code::IMMUTABLE,
            WriteError::OutOfBounds { .. } => Code::OUT_OF_BOUNDS,
            WriteError::ChangeTooLarge => Code::CHANGE_TOO_LARGE,
            WriteError::ClockAtCeiling => Code::CLOCK_AT_CEILING,
            WriteError::Chunk(error) => error.into(),
        }
    }
}

impl From<ApplyError<Infallible>> for Code {
    fn from(error: ApplyError<Infallible>) -> Code {
        match error {
            ApplyError::Malformed(what) => what.into(),
            ApplyError::Gap { .. } => Code::GAP,
            ApplyError::TooManyGens => Code::TOO_MANY_GENS,
            ApplyError::Chunk(error) => error.into(),
        }
    }
}
