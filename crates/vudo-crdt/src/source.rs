//! Where the chunks of tables come from.

use alloc::vec::Vec;

use crate::wire::MalformedFrame;

/// The name of a chunk on disk, unique within a namespace and never reused.
pub type ChunkId = u64;

/// Where chunks are loaded from: the core does no I/O itself.
pub trait ChunkSource {
    /// Why a chunk could not be loaded.
    type Error;

    /// The bytes that were stored under this id.
    ///
    /// # Errors
    /// Whatever kept the bytes from being read. The operation that needed them has no effect.
    fn load(&mut self, id: ChunkId) -> Result<Vec<u8>, Self::Error>;
}

/// The source of a table that is wholly in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct InMemory;

impl ChunkSource for InMemory {
    type Error = core::convert::Infallible;

    fn load(&mut self, _: ChunkId) -> Result<Vec<u8>, Self::Error> {
        // Chunks get an id only when they are persisted, which a table in memory never is.
        unreachable!("a table in memory has no chunk elsewhere")
    }
}

/// Why a table could not give a row.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunkError<E> {
    /// The source failed.
    Source(E),
    /// The bytes of this chunk are not what was stored.
    Damaged {
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it.
        what: MalformedFrame,
    },
}
