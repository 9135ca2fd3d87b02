//! A store's files on a disk that crashes.

use std::sync::Arc;

use redb::StorageBackend;
use vudo_state::storage::{Medium, NativeStorage, OpenError};
use vudo_state::{Database, Result};
use vudo_testkit::files::{CrashingFile, CrashingFiles};

/// The two files of a store on a crashing disk.
pub(crate) struct OnDisk(pub(crate) CrashingFiles);

/// A file of it, as redb wants to see one.
#[derive(Debug)]
pub(crate) struct File(CrashingFile);

impl StorageBackend for File {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}

impl Medium for OnDisk {
    type File = File;

    fn open(&self, name: &str) -> std::io::Result<File> {
        Ok(File(self.0.file(name)))
    }

    fn byte_count(&self) -> u64 {
        0
    }
}

/// Opens the store on a disk.
pub(crate) fn open_storage(
    disk: &CrashingFiles,
) -> std::result::Result<NativeStorage<OnDisk>, OpenError> {
    NativeStorage::open(OnDisk(disk.clone()))
}

/// Opens the database on a disk.
pub(crate) fn open(disk: &CrashingFiles) -> std::result::Result<Database, String> {
    let storage = open_storage(disk).map_err(|error| error.to_string())?;
    let opened: Result<Database> = Database::with_storage(Arc::new(storage), None);
    opened.map_err(|error| error.to_string())
}
