//! A store's files on a disk that crashes.

use std::sync::Arc;

use redb::StorageBackend;
use vudo_state::storage::{
    JOURNAL_NAME, JournalFile, Medium, NativeStorage, OpenError, PAGES_NAME,
};
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

impl JournalFile for File {
    fn byte_count(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, bytes)
    }

    fn set_byte_count(&self, byte_count: u64) -> std::io::Result<()> {
        self.0.set_len(byte_count)
    }

    /// Whatever is written may be on the disk at any time, and need not be before a sync.
    fn begin_write_back(&self, _: u64, _: u64) {}

    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }
}

impl Medium for OnDisk {
    type Pages = File;
    type Journal = File;

    fn open_pages(&self) -> std::io::Result<File> {
        Ok(File(self.0.file(PAGES_NAME)))
    }

    fn open_journal(&self) -> std::io::Result<File> {
        Ok(File(self.0.file(JOURNAL_NAME)))
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
