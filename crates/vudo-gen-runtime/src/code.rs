//! What functions give back: zero, or why nothing happened.

use core::convert::Infallible;
use core::num::NonZeroU32;

use vudo_crdt::{ApplyError, CounterOverflow, MalformedFrame, Refusal};

/// A reason. Codes below 32 are those of [`MalformedFrame`], some others those of [`Refusal`]; all
/// are listed in `docs/reference/wasm-abi.md` and never change their meaning.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(NonZeroU32);

/// Nothing, or why it was refused.
pub(crate) type Outcome = Result<(), Code>;

impl Code {
    pub(crate) const GAP: Code = Code::new(32);
    pub(crate) const TOO_MANY_GENS: Code = Code::new(33);
    pub(crate) const COUNTER_OVERFLOW: Code = Code::new(43);
    pub(crate) const NOT_SET: Code = Code::new(44);
    pub(crate) const NOT_OPEN: Code = Code::new(45);
    pub(crate) const ALREADY_OPEN: Code = Code::new(46);
    pub(crate) const TRANSACTION_OPEN: Code = Code::new(47);
    pub(crate) const NO_TRANSACTION: Code = Code::new(48);
    pub(crate) const INPUT_LENGTH: Code = Code::new(49);

    const fn new(number: u32) -> Code {
        Code(NonZeroU32::new(number).expect("zero is success"))
    }

    /// The number that the host sees: zero for success.
    pub(crate) fn of(outcome: Outcome) -> u32 {
        match outcome {
            Ok(()) => 0,
            Err(Code(number)) => number.get(),
        }
    }
}

impl From<MalformedFrame> for Code {
    fn from(what: MalformedFrame) -> Code {
        Code::new(what as u32)
    }
}

impl From<Refusal> for Code {
    fn from(refusal: Refusal) -> Code {
        Code::new(refusal as u32)
    }
}

impl From<CounterOverflow> for Code {
    fn from(_: CounterOverflow) -> Code {
        Code::COUNTER_OVERFLOW
    }
}

impl From<&ApplyError<Infallible>> for Code {
    fn from(error: &ApplyError<Infallible>) -> Code {
        match error {
            ApplyError::Malformed(what) => (*what).into(),
            ApplyError::Gap { .. } => Code::GAP,
            ApplyError::TooManyGens => Code::TOO_MANY_GENS,
            // Only stores bound how many replicas write.
            #[cfg(not(target_arch = "wasm32"))]
            ApplyError::TooManyReplicas => MalformedFrame::TooLarge.into(),
            ApplyError::Chunk(_) => unreachable!("a namespace in memory loads nothing"),
        }
    }
}
