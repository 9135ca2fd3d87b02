//! New vectors, by way of the code that grows vectors: a module has no other way to allocate, and
//! each other one would cost it some hundred bytes.

use alloc::vec::Vec;

/// An empty vector with room.
#[allow(clippy::reserve_after_initialization)] // That is what this function is for.
pub(crate) fn with_room(byte_count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.reserve(byte_count);
    bytes
}

/// So many zeros.
#[allow(clippy::slow_vector_initialization)] // That is what this function is for.
pub(crate) fn zeros(count: usize) -> Vec<u64> {
    let mut zeros = Vec::new();
    zeros.resize(count, 0);
    zeros
}
