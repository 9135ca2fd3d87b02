//! Backups: a store's content in a folder of its own, while the store goes on.
//!
//! A backup is a store without a key, and marked. So whoever opens it, on purpose or by mistake, has
//! a replica of its own: two stores that write under one key would give two changes one number. It
//! is written under another name and renamed when it is whole, so half a backup never looks like one.

use std::path::Path;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::layout;
use crate::storage::{Folder, NativeStorage, OpenError, Storage, StorageError, WriteBatch};

/// How much of a backup is written at once.
const BATCH_BYTES: usize = 1 << 20;

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// How many entries of storage.
    pub entries: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

impl Database {
    /// Writes everything that is durable into a folder, which must not exist: a store that can be
    /// opened, as of one moment. The store can be read and written to meanwhile.
    ///
    /// # Errors
    /// The folder exists or cannot be written, or something in the store is damaged.
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<BackupReport> {
        let path = path.as_ref();
        if path.exists() {
            return Err(Error::BackupExists { path: path.to_owned() });
        }
        self.flush()?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Path::new(&partial);
        let failed = |error: &dyn std::fmt::Display| Error::Backup {
            path: path.to_owned(),
            source: StorageError::new(error.to_string()),
        };
        if partial.exists() {
            // What an earlier backup left that did not come to its end.
            std::fs::remove_dir_all(partial).map_err(|error| failed(&error))?;
        }
        crate::folder::create_private_folder(partial).map_err(|error| failed(&error))?;
        let report = self.write_to(partial).map_err(|error| failed(&error))?;
        std::fs::rename(partial, path).map_err(|error| failed(&error))?;
        Ok(report)
    }

    fn write_to(&self, folder: &Path) -> std::result::Result<BackupReport, OpenError> {
        let target = NativeStorage::open(Folder(folder.to_owned()))?;
        let mut report = BackupReport::default();
        let mut batch = WriteBatch::default();
        batch.put(layout::meta(layout::BACKUP_OF), self.replica_key().0.to_vec());
        let mut batch_bytes = 0;
        let mut failure = None;
        // One scan is one moment: everything that it visits was there at its beginning.
        self.storage().scan(&[], &[0xFF], &mut |key, value| {
            if layout::is_of_one_store(key) {
                return true;
            }
            report.entries += 1;
            report.bytes += (key.len() + value.len()) as u64;
            batch_bytes += key.len() + value.len();
            batch.put(key.to_vec(), value.to_vec());
            if batch_bytes >= BATCH_BYTES {
                failure = target.commit(&batch).err();
                batch.writes.clear();
                batch_bytes = 0;
            }
            failure.is_none()
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        target.commit(&batch)?;
        Ok(report)
    }
}
