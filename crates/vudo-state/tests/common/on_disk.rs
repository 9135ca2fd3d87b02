//! A store's two files on a disk that crashes. Tests of other crates include this file by its path.

use vudo_state::storage::{JOURNAL_NAME, JournalFile, Medium, PAGES_NAME, StorageBackend};
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
