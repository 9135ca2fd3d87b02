//! Where chunks come from that are not in memory.

use std::sync::{Arc, Mutex, PoisonError};

use vudo_crdt::{ChunkId, ChunkSource};

use crate::layout::{self, NamespaceId};
use crate::storage::{Storage, StorageError, WriteBatch};

/// Loads chunks from storage, or from the batch that is taking them there.
pub(crate) struct StoredChunks<'a> {
    pub(crate) storage: &'a dyn Storage,
    /// The chunks on their way, where those are of interest.
    pub(crate) travelling: Option<&'a Mutex<Option<Arc<WriteBatch>>>>,
    pub(crate) id: NamespaceId,
}

impl<'a> StoredChunks<'a> {
    /// Chunks that are on disk, and no others.
    pub(crate) fn of_storage(storage: &'a dyn Storage, id: NamespaceId) -> StoredChunks<'a> {
        StoredChunks { storage, travelling: None, id }
    }
}

impl ChunkSource for StoredChunks<'_> {
    type Error = StorageError;

    fn load(&mut self, id: ChunkId) -> std::result::Result<Vec<u8>, StorageError> {
        let key = layout::chunk(self.id, id);
        if let Some(travelling) = self.travelling
            && let Some(batch) = &*travelling.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some((_, Some(chunk))) = batch.writes.iter().find(|(found, _)| *found == key)
        {
            return Ok(chunk.bytes.clone());
        }
        self.storage.get(&key)?.ok_or_else(|| StorageError::new(format!("chunk {id} is missing")))
    }
}
