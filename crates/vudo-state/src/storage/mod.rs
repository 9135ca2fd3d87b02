//! Where bytes are kept: an ordered map with atomic, durable commits.
//!
//! The engine builds everything else on it: one implementation on disk, one in memory.

#[cfg(feature = "native")]
mod journal;
#[cfg(feature = "native")]
mod medium;
mod memory;
#[cfg(feature = "native")]
mod native;
#[cfg(feature = "native")]
mod stored_value;

#[cfg(feature = "native")]
pub use medium::{Folder, JOURNAL_NAME, JournalFile, Medium, PAGES_NAME};
pub use memory::MemoryStorage;
#[cfg(feature = "native")]
pub use native::{NativeStorage, OpenError};
/// What a [`Medium`] opens for the pages.
#[cfg(feature = "native")]
pub use redb::StorageBackend;

/// Why storage failed, in the words of whatever failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StorageError {
    message: String,
}

impl StorageError {
    /// An error with these words.
    pub fn new(message: impl Into<String>) -> StorageError {
        StorageError { message: message.into() }
    }
}

impl PartialEq for StorageError {
    fn eq(&self, other: &StorageError) -> bool {
        self.message == other.message
    }
}

/// A value on its way to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub bytes: Vec<u8>,
    /// Whether it will be read and written rarely. A storage may take more time for such a value in
    /// order to keep it in less room, and need not remember which ones they were.
    pub is_cold: bool,
}

/// Writes that are committed together.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    /// In order; a later write to a key wins. `None` removes.
    pub writes: Vec<(Vec<u8>, Option<Value>)>,
}

impl WriteBatch {
    /// Adds a write.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push((key, Some(Value { bytes: value, is_cold: false })));
    }

    /// Adds a write of a value that will be read and written rarely.
    pub fn put_cold(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push((key, Some(Value { bytes: value, is_cold: true })));
    }

    /// Adds a removal.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.writes.push((key, None));
    }
}

/// `None` removes.
impl FromIterator<(Vec<u8>, Option<Vec<u8>>)> for WriteBatch {
    fn from_iter<I: IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>>(writes: I) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.remove(key),
            }
        }
        batch
    }
}

/// An ordered map from bytes to bytes.
pub trait Storage: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// Reading failed.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Visits the entries with `from <= key < to`, ascending, until the visitor says `false`.
    ///
    /// # Errors
    /// Reading failed.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError>;

    /// Commits a batch: all of it or nothing, and it is on disk when this returns.
    ///
    /// # Errors
    /// Writing failed; nothing of the batch is visible.
    fn commit(&self, batch: &WriteBatch) -> Result<(), StorageError>;

    /// [`Storage::commit`], with some work done while the batch goes to disk: a sync leaves the processor
    /// idle. `work` is called once, whether writing succeeds or not. It must not write here, nor wait for
    /// anybody who may: other commits may have to wait until it ends.
    ///
    /// # Errors
    /// As for [`Storage::commit`].
    fn commit_while(&self, batch: &WriteBatch, work: &mut dyn FnMut()) -> Result<(), StorageError> {
        let committed = self.commit(batch);
        work();
        committed
    }

    /// Takes a batch that need not be on disk yet: it can be read when this returns, and goes to disk
    /// with the next commit, in front of it and as one with it. A crash before that loses all of it. A
    /// storage that gains nothing by that commits at once.
    ///
    /// # Errors
    /// As for [`Storage::commit`].
    fn commit_later(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.commit(batch)
    }

    /// How many bytes the store takes up on disk; zero in memory.
    fn disk_bytes(&self) -> u64;

    /// Gives what removed entries have freed back to the file system. Gives whether it did: not where
    /// somebody reads all the time.
    ///
    /// # Errors
    /// Writing failed; every entry is as it was.
    fn shrink(&self) -> Result<bool, StorageError> {
        Ok(true)
    }

    /// Checks whatever the storage can check by itself, and calls back with the key of each damaged
    /// value.
    ///
    /// # Errors
    /// Something is damaged that belongs to no single key, or reading failed.
    fn verify(&self, damaged: &mut dyn FnMut(&[u8])) -> Result<(), StorageError> {
        let _ = damaged;
        Ok(())
    }
}
