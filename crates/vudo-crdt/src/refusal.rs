//! Why local writes are refused.

use core::fmt;

use crate::limits::{MAX_CHANGE_BYTES, MAX_KEY_BYTES};
use crate::source::ChunkError;

/// Why a local write was refused. The transaction goes on without it.
///
/// The numbers are the codes that a WASM module gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "wasm32"), repr(u8))]
// A byte that is given back is cut down to one again by whoever gets it: that is code in a module.
#[cfg_attr(target_arch = "wasm32", repr(u32))]
pub enum Refusal {
    /// There is a document under this key already.
    AlreadyExists = 34,
    /// There is no document under this key, or it has been deleted.
    NotFound = 35,
    /// The key is empty or longer than [`MAX_KEY_BYTES`], or an element of a collection too long.
    KeyLength = 36,
    /// The value is not of the field's type.
    TypeMismatch = 37,
    /// The field's strategy has no such operation: registers are set, counters are added to.
    NotThisOperation = 38,
    /// An immutable field that has a value already.
    Immutable = 39,
    /// The counter would leave its bounds.
    OutOfBounds = 40,
    /// The change would be larger than [`MAX_CHANGE_BYTES`].
    ChangeTooLarge = 41,
    /// The value overwritten carries the greatest time there is: deleting the document and creating
    /// it again starts clean. Or the document was deleted in the greatest life there is.
    ClockAtCeiling = 42,
    /// This replica lacks the rights to move the `bounded_counter` so far in this direction.
    NoRights = 50,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::AlreadyExists => formatter.write_str("the document exists already"),
            Refusal::NotFound => formatter.write_str("there is no such document"),
            Refusal::KeyLength => write!(formatter, "a key has 1 to {MAX_KEY_BYTES} bytes"),
            Refusal::TypeMismatch => formatter.write_str("the value is not of the field's type"),
            Refusal::NotThisOperation => {
                formatter.write_str("the field's strategy does not have this operation")
            }
            Refusal::Immutable => {
                formatter.write_str("the field is immutable and has a value already")
            }
            Refusal::OutOfBounds => {
                formatter.write_str("the counter would leave its bounds; add a smaller amount")
            }
            Refusal::NoRights => formatter.write_str(
                "this replica lacks the rights to move the counter so far; \
                 have another replica give it some",
            ),
            Refusal::ChangeTooLarge => {
                write!(formatter, "one change holds at most {MAX_CHANGE_BYTES} bytes")
            }
            Refusal::ClockAtCeiling => formatter.write_str(
                "the value or document carries the greatest time there is; \
                 delete the document and create it again, or take another key",
            ),
        }
    }
}

impl core::error::Error for Refusal {}

/// Why a local write to a namespace whose chunks may lie elsewhere was not made.
#[derive(Debug, PartialEq, Eq)]
pub enum WriteError<E> {
    /// The write itself was refused.
    Refused(Refusal),
    /// A chunk could not be read.
    Chunk(ChunkError<E>),
}

impl<E> From<Refusal> for WriteError<E> {
    fn from(refusal: Refusal) -> Self {
        WriteError::Refused(refusal)
    }
}

impl<E> From<ChunkError<E>> for WriteError<E> {
    fn from(error: ChunkError<E>) -> Self {
        WriteError::Chunk(error)
    }
}

impl<E: fmt::Display> fmt::Display for WriteError<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Refused(refusal) => refusal.fmt(formatter),
            WriteError::Chunk(error) => error.fmt(formatter),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for WriteError<E> {}
