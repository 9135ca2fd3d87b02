//! Where the files of a store are: a folder of the file system, or a disk that a test has made.

use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::path::PathBuf;

use redb::StorageBackend;
use redb::backends::FileBackend;

/// The pages are in the file of this name.
pub const PAGES_NAME: &str = "store.redb";
/// The journal is in the file of this name.
pub const JOURNAL_NAME: &str = "store.journal";

/// Where the files of a store are. Tests put a disk of their own here.
pub trait Medium: Send + Sync {
    /// The open file of the pages.
    type Pages: StorageBackend;
    /// The open file of the journal.
    type Journal: JournalFile;

    /// Opens the file of the pages for reading and writing, and creates it where there is none.
    ///
    /// # Errors
    /// Whatever the system says.
    fn open_pages(&self) -> Result<Self::Pages>;

    /// Opens the file of the journal for reading and writing, and creates it where there is none.
    ///
    /// # Errors
    /// Whatever the system says; [`std::io::ErrorKind::WouldBlock`] where another process has it open.
    fn open_journal(&self) -> Result<Self::Journal>;

    /// How many bytes the files take up on the disk.
    fn byte_count(&self) -> u64;
}

/// The file of the journal. One thread at a time uses it.
pub trait JournalFile: Send + Sync {
    /// The length of the file, in bytes.
    ///
    /// # Errors
    /// As for every call here, whatever the system says.
    fn byte_count(&self) -> Result<u64>;

    /// Fills `out` with what is at an offset.
    ///
    /// # Errors
    /// Reading failed, or the file ends before.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()>;

    /// Writes bytes at an offset.
    ///
    /// # Errors
    /// Writing failed; nobody knows how much of it is there.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Makes the file longer, with zeros, or shorter.
    ///
    /// # Errors
    /// It could not be done.
    fn set_byte_count(&self, byte_count: u64) -> Result<()>;

    /// Has the system begin to take what was written at these bytes to disk, so that a sync has less to
    /// wait for. Where nothing can be done to that end the sync does all of it.
    fn begin_write_back(&self, offset: u64, byte_count: u64);

    /// Waits until everything that was written is on disk.
    ///
    /// # Errors
    /// Writing failed.
    fn sync(&self) -> Result<()>;
}

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    fn open(&self, name: &str) -> Result<File> {
        let path = self.0.join(name);
        let is_new = !path.exists();
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path)?;
        // A file is only there after a crash once its folder has been synced.
        if is_new && cfg!(unix) {
            File::open(&self.0)?.sync_all()?;
        }
        Ok(file)
    }
}

impl Medium for Folder {
    type Pages = FileBackend;
    type Journal = File;

    fn open_pages(&self) -> Result<FileBackend> {
        FileBackend::new(self.open(PAGES_NAME)?).map_err(std::io::Error::other)
    }

    fn open_journal(&self) -> Result<File> {
        let file = self.open(JOURNAL_NAME)?;
        // redb locks its own file.
        file.try_lock()?;
        Ok(file)
    }

    fn byte_count(&self) -> u64 {
        let bytes_of = |name| std::fs::metadata(self.0.join(name)).map_or(0, |file| taken(&file));
        bytes_of(PAGES_NAME) + bytes_of(JOURNAL_NAME)
    }
}

/// Gives the file at an offset.
fn at(mut file: &File, offset: u64) -> Result<&File> {
    file.seek(SeekFrom::Start(offset))?;
    Ok(file)
}

impl JournalFile for File {
    fn byte_count(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        at(self, offset)?.read_exact(out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        at(self, offset)?.write_all(bytes)
    }

    fn set_byte_count(&self, byte_count: u64) -> Result<()> {
        self.set_len(byte_count)
    }

    /// Linux begins to write pages of which it is told that nobody needs them, and keeps those in memory
    /// that are named in part: `POSIX_FADV_DONTNEED` in its `mm/fadvise.c`.
    #[cfg(target_os = "linux")]
    fn begin_write_back(&self, offset: u64, byte_count: u64) {
        use rustix::fs::{Advice, fadvise};
        const PAGE_BYTES: u64 = 4096;
        let one_byte = std::num::NonZeroU64::new(1);
        let (first, end) = (offset / PAGE_BYTES, (offset + byte_count).div_ceil(PAGE_BYTES));
        for page in first..end {
            // It is advice: a system that does not take it leaves the page to the sync.
            let _ = fadvise(self, offset.max(page * PAGE_BYTES), one_byte, Advice::DontNeed);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn begin_write_back(&self, _: u64, _: u64) {}

    fn sync(&self) -> Result<()> {
        self.sync_data()
    }
}

/// What a file takes up: redb doubles it when it grows, and what has never been written to is a hole.
#[cfg(unix)]
fn taken(file: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    const BLOCK_BYTES: u64 = 512;
    file.blocks() * BLOCK_BYTES
}

#[cfg(not(unix))]
fn taken(file: &std::fs::Metadata) -> u64 {
    file.len()
}
