//! Storage on disk, in one redb file.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use super::{Storage, StorageError, WriteBatch};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// redb's page cache. The engine keeps the chunks it uses itself, so this only has to hold the
/// inner pages of the tree.
const CACHE_BYTES: usize = 2 << 20;

/// An ordered map in a redb file.
pub struct NativeStorage {
    path: PathBuf,
    database: Database,
}

impl NativeStorage {
    /// Opens the file, which is created where there is none.
    ///
    /// # Errors
    /// [`redb::DatabaseError::DatabaseAlreadyOpen`] where another process has it open, and
    /// whatever the system says.
    pub fn open(path: &Path) -> Result<NativeStorage, redb::DatabaseError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        Ok(NativeStorage { path: path.to_owned(), database })
    }
}

fn failed(error: impl Into<redb::Error>) -> StorageError {
    StorageError::new(error.into().to_string())
}

impl Storage for NativeStorage {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        match transaction.open_table(ENTRIES) {
            Ok(table) => {
                let value = table.get(key).map_err(failed)?;
                Ok(value.map(|value| value.value().to_vec()))
            }
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = match transaction.open_table(ENTRIES) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for entry in table.range(from..to).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            if !visit(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let transaction = self.database.begin_write().map_err(failed)?;
        {
            let mut table = transaction.open_table(ENTRIES).map_err(failed)?;
            for (key, value) in &batch.writes {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice()),
                    None => table.remove(key.as_slice()),
                }
                .map_err(failed)?;
            }
        }
        // redb's default durability: the commit is on disk when this returns.
        transaction.commit().map_err(failed)
    }

    fn disk_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }
}
