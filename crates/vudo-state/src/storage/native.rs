//! Storage on disk: the latest commits in a journal, everything before them in a redb file.
//!
//! ```text
//! commit --> journal (one sync) + recent entries in memory
//!                 |
//!                 full: everything recent --> pages (redb, quick repair: two syncs)
//! ```
//!
//! **Why two files.** redb opens in a time that does not grow with the data, after a crash too, if
//! every commit saves its allocator's state and is synced twice. A commit to the journal is synced
//! once, is appended to blocks that the file has already, and the pages pay their two syncs for a
//! mebibyte of commits at a time. `cargo bench -p vudo-state --bench storage` measures both.
//!
//! **The invariant.** The pages name the generation of the journal that continues them, in the same
//! transaction that took over the generation before it. So an entry is in the pages or in the
//! journal that counts, never in neither, and an old journal never overwrites newer pages.
//!
//! **Recovery.** Opening reads the journal of that generation up to its torn end. Where a commit
//! fails in a running store, the journal is left alone and the next commit takes everything recent
//! to the pages itself; where those fail too they are opened again first, for redb takes nothing
//! more after an error.
//!
//! **Values.** Every value is kept in the pages with a checksum over its key and itself, so a flipped
//! bit is told when the value is read, and the rest stays readable. Cold ones are packed there: see
//! [`super::stored_value`]. The journal has them as they are, and does not say which are cold: what a
//! crash leaves there is not packed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use redb::{
    CompactionError, Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable,
    StorageBackend, TableDefinition, TableError, WriteTransaction,
};
use vudo_crdt::MalformedFrame;
use vudo_crdt::wire::{Reader, write_bytes, write_varint};

use super::journal::{self, Journal};
use super::medium::{Folder, Medium};
use super::stored_value::{stored_form, value_of};
use super::{Storage, StorageError, Value, WriteBatch};
use crate::layout;
use crate::limits::{JOURNAL_BYTES_MAX, PAGE_CACHE_BYTES, SHRINK_PAUSE, SHRINK_TIMEOUT};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("checked entries");
/// The generation of the journal that continues the pages, under the key of the empty tuple.
const GENERATION: TableDefinition<'_, (), u64> = TableDefinition::new("journal generation");
/// Entries without checksums, as format version 3 kept them.
const UNCHECKED_ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// What a redb file begins with: docs/design.md in redb's repository.
const PAGES_MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// Why the files of a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has them open.
    #[error("another process has it open")]
    InUse,
    /// They are of a version that cannot be brought up to this one.
    #[error("its format version is {0}")]
    Version(u32),
    /// They cannot be read, or are damaged.
    #[error("{0}")]
    Failed(#[from] StorageError),
}

/// An ordered map in two files.
pub struct NativeStorage<M: Medium = Folder> {
    medium: M,
    recent: RwLock<Recent>,
    /// Whoever writes holds this, and takes `recent` for moments within.
    journal: Mutex<Journal<M::Journal>>,
}

type EntryTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// What the pages do not hold yet, and the pages.
struct Recent {
    /// `None` where the key has been removed.
    entries: BTreeMap<Vec<u8>, Option<Value>>,
    generation: u64,
    /// `None` after an error, until they are opened again.
    pages: Option<Database>,
}

impl<M: Medium> NativeStorage<M> {
    /// Opens the store's files, which are created where there are none. A store of format version 3
    /// is brought up to this one.
    ///
    /// # Errors
    /// Another process has it open, or the files cannot be read, are damaged or of a version
    /// before 3. They are left as they are then.
    pub fn open(medium: M) -> Result<NativeStorage<M>, OpenError> {
        // The journal first: it stays locked where the pages are opened again, so that no other
        // process gets in between.
        let file = medium.open_journal().map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => OpenError::InUse,
            _ => OpenError::Failed(failed(redb::Error::from(error))),
        })?;
        let pages = open_pages(&medium)?;
        let generation = prepare(&pages)?;
        let (journal, batches) = Journal::open(file, generation)?;
        let mut recent = Recent { entries: BTreeMap::new(), generation, pages: Some(pages) };
        batches.into_iter().for_each(|batch| recent.take(batch));
        Ok(NativeStorage { medium, recent: RwLock::new(recent), journal: Mutex::new(journal) })
    }

    fn lock_recent(&self) -> RwLockWriteGuard<'_, Recent> {
        self.recent.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_journal(&self) -> MutexGuard<'_, Journal<M::Journal>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that can be read, with the pages open.
    fn read_recent(&self) -> Result<RwLockReadGuard<'_, Recent>, StorageError> {
        loop {
            let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
            if recent.pages.is_some() {
                return Ok(recent);
            }
            drop(recent);
            self.lock_recent().open_again(&self.medium)?;
        }
    }

    fn append(
        &self,
        batch: &WriteBatch,
        work: Option<&mut dyn FnMut()>,
    ) -> Result<(), StorageError> {
        let mut journal = self.lock_journal();
        if !journal.has_room(journal::payload_bytes_max(batch), JOURNAL_BYTES_MAX) {
            if let Some(work) = work {
                work();
            }
            return self.move_to_pages(&mut journal, batch);
        }
        journal.append(batch, work)?;
        self.lock_recent().take(batch.clone());
        Ok(())
    }

    /// Takes everything recent to the pages, and this batch along.
    fn move_to_pages(
        &self,
        journal: &mut Journal<M::Journal>,
        batch: &WriteBatch,
    ) -> Result<(), StorageError> {
        let moved = {
            let recent = self.read_recent()?;
            let generation = recent.generation + 1;
            recent.write_pages(generation, batch).map(|()| generation)
        };
        let mut recent = self.lock_recent();
        match moved {
            Ok(generation) => {
                recent.entries.clear();
                recent.generation = generation;
                journal.restart(generation);
                Ok(())
            }
            Err(error) => {
                // redb takes nothing more after an error. Which generation it has is open until
                // then, so the journal of this one may not count any more.
                recent.pages = None;
                journal.close();
                Err(error)
            }
        }
    }
}

impl Recent {
    fn take(&mut self, batch: WriteBatch) {
        self.entries.extend(batch.writes);
    }

    /// Opens the pages again after an error. The commit that failed may have reached the disk all
    /// the same: their generation says so, and then they hold everything recent.
    fn open_again<M: Medium>(&mut self, medium: &M) -> Result<(), StorageError> {
        if self.pages.is_none() {
            let pages = open_pages(medium).map_err(|error| StorageError::new(error.to_string()))?;
            let generation =
                prepare(&pages).map_err(|error| StorageError::new(error.to_string()))?;
            if generation != self.generation {
                self.entries.clear();
                self.generation = generation;
            }
            self.pages = Some(pages);
        }
        Ok(())
    }

    fn open_table(&self) -> Result<Option<EntryTable>, StorageError> {
        let Some(pages) = &self.pages else {
            return Err(StorageError::new("the pages are closed after an error"));
        };
        let transaction = pages.begin_read().map_err(failed)?;
        match transaction.open_table(ENTRIES) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn write_pages(&self, generation: u64, batch: &WriteBatch) -> Result<(), StorageError> {
        let Some(pages) = &self.pages else {
            return Err(StorageError::new("the pages are closed after an error"));
        };
        let mut transaction = pages.begin_write().map_err(failed)?;
        transaction.set_quick_repair(true);
        let recent = self.entries.iter().map(|(key, value)| (key, value.as_ref()));
        let latest = batch.writes.iter().map(|(key, value)| (key, value.as_ref()));
        write_entries(&transaction, recent.chain(latest))?;
        set_generation(&transaction, generation).map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    /// Gives whether nobody was reading, so that the pages have moved together.
    fn shrink<M: Medium>(&mut self, medium: &M) -> Result<bool, StorageError> {
        self.open_again(medium)?;
        let Some(mut pages) = self.pages.take() else { return Ok(false) };
        match pages.compact() {
            Ok(_) => {}
            Err(CompactionError::TransactionInProgress) => {
                self.pages = Some(pages);
                return Ok(false);
            }
            Err(error) => return Err(failed(error)),
        }
        // Moving the pages does not save the allocator's state, without which opening walks them all.
        // A commit that saves it doubles the file where no page is free; closing cuts it to its size.
        pages.close().map_err(failed)?;
        self.open_again(medium)?;
        Ok(true)
    }
}

fn open_pages<M: Medium>(medium: &M) -> Result<Database, OpenError> {
    let file = medium.open_pages().map_err(redb::Error::from).map_err(failed)?;
    clear_unfinished(&file).map_err(redb::Error::from).map_err(failed)?;
    let opened = Database::builder().set_cache_size(PAGE_CACHE_BYTES).create_with_backend(file);
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse,
        other => OpenError::Failed(failed(other)),
    })
}

/// Empties a file that a crash kept redb from creating. Its magic number is written last, so where
/// only zeros follow some first bytes of it, nothing has been committed.
fn clear_unfinished(file: &impl StorageBackend) -> std::io::Result<()> {
    if file.len()? < PAGES_MAGIC.len() as u64 {
        return Ok(());
    }
    let mut found = [0; PAGES_MAGIC.len()];
    file.read(0, &mut found)?;
    let written = found.iter().zip(PAGES_MAGIC).take_while(|(found, magic)| **found == *magic);
    let written = written.count();
    if written < PAGES_MAGIC.len() && found[written..].iter().all(|byte| *byte == 0) {
        file.set_len(0)?;
    }
    Ok(())
}

/// Brings the pages up to this version and gives the generation of their journal.
fn prepare(pages: &Database) -> Result<u64, OpenError> {
    if let Some(generation) = generation_of(pages).map_err(failed)? {
        return Ok(generation);
    }
    let mut transaction = pages.begin_write().map_err(failed)?;
    transaction.set_quick_repair(true);
    upgrade_from_3(&transaction)?;
    set_generation(&transaction, 1).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(1)
}

fn generation_of(pages: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = pages.begin_read()?;
    match transaction.open_table(GENERATION) {
        Ok(table) => Ok(table.get(())?.map(|generation| generation.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn set_generation(transaction: &WriteTransaction, generation: u64) -> Result<(), redb::Error> {
    transaction.open_table(GENERATION)?.insert((), generation)?;
    Ok(())
}

/// Gives the entries of format version 3 their checksums, and its log the form of today. Tables are
/// left out: opening makes them again from the log.
fn upgrade_from_3(transaction: &WriteTransaction) -> Result<(), OpenError> {
    {
        let old = transaction.open_table(UNCHECKED_ENTRIES).map_err(failed)?;
        let version_key = layout::meta("format");
        if let Some(stored) = old.get(version_key.as_slice()).map_err(failed)? {
            let version =
                stored.value().first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            if version != 3 {
                return Err(OpenError::Version(version));
            }
        }
        let mut new = transaction.open_table(ENTRIES).map_err(failed)?;
        for entry in old.iter().map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let value = match key.value() {
                key if key == version_key => layout::FORMAT_VERSION.to_be_bytes().to_vec(),
                key if layout::is_of_tables(key) => continue,
                key if layout::is_log(key) => log_from_3(value.value())
                    .map_err(|what| StorageError::new(format!("a log record: {what}")))?,
                _ => value.value().to_vec(),
            };
            let value = stored_form(key.value(), &value, false);
            new.insert(key.value(), value.as_slice()).map_err(failed)?;
        }
    }
    transaction.delete_table(UNCHECKED_ENTRIES).map_err(failed)?;
    Ok(())
}

/// A log record of format version 3, in which a change's body began with the count of its documents
/// and nothing else.
fn log_from_3(record: &[u8]) -> Result<Vec<u8>, MalformedFrame> {
    let mut out = Vec::with_capacity(record.len());
    let mut reader = Reader::new(record);
    while !reader.is_empty() {
        for _ in ["replica", "number", "now"] {
            write_varint(&mut out, reader.varint()?);
        }
        let mut inside = Reader::new(reader.bytes()?);
        let mut body = Vec::new();
        write_varint(&mut body, inside.varint()? << 1);
        body.extend_from_slice(inside.rest());
        write_bytes(&mut out, &body);
    }
    Ok(out)
}

fn write_entries<'a>(
    transaction: &WriteTransaction,
    entries: impl Iterator<Item = (&'a Vec<u8>, Option<&'a Value>)>,
) -> Result<(), StorageError> {
    let mut table = transaction.open_table(ENTRIES).map_err(failed)?;
    for (key, value) in entries {
        match value {
            Some(value) => {
                let stored = stored_form(key, &value.bytes, value.is_cold);
                table.insert(key.as_slice(), stored.as_slice())
            }
            None => table.remove(key.as_slice()),
        }
        .map_err(failed)?;
    }
    Ok(())
}

fn failed(error: impl Into<redb::Error>) -> StorageError {
    StorageError::new(error.into().to_string())
}

impl<M: Medium> Storage for NativeStorage<M> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.opening_again_after(self.find(key))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.opening_again_after(self.walk(from, to, visit))
    }

    fn commit(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.append(batch, None)
    }

    fn commit_while(&self, batch: &WriteBatch, work: &mut dyn FnMut()) -> Result<(), StorageError> {
        self.append(batch, Some(work))
    }

    fn commit_later(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let mut journal = self.lock_journal();
        if !journal.has_room(journal::payload_bytes_max(batch), JOURNAL_BYTES_MAX) {
            return self.move_to_pages(&mut journal, batch);
        }
        journal.put_off(batch);
        self.lock_recent().take(batch.clone());
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.medium.byte_count()
    }

    /// Moves the pages to the front of their file, and cuts off its end. Writers wait meanwhile, and
    /// so do readers of what is not in memory.
    fn shrink(&self) -> Result<bool, StorageError> {
        let mut journal = self.lock_journal();
        self.move_to_pages(&mut journal, &WriteBatch::default())?;
        journal.truncate()?;
        let deadline = Instant::now() + SHRINK_TIMEOUT;
        loop {
            // redb takes nothing more after an error, and is opened anew by whoever needs it. The
            // generation is the same then, so the journal still counts.
            match self.lock_recent().shrink(&self.medium) {
                Ok(false) if Instant::now() < deadline => std::thread::sleep(SHRINK_PAUSE),
                shrunk => return shrunk,
            }
        }
    }

    /// Takes what is recent to the pages, and checks every page and every value. Writers wait
    /// meanwhile, and readers while the pages are checked.
    fn verify(&self, damaged: &mut dyn FnMut(&[u8])) -> Result<(), StorageError> {
        let mut journal = self.lock_journal();
        self.move_to_pages(&mut journal, &WriteBatch::default())?;
        let intact = match &mut self.lock_recent().pages {
            Some(pages) => pages.check_integrity().map_err(failed),
            None => Err(StorageError::new("the pages are closed after an error")),
        };
        // What redb could not check it gives nothing of before it is opened again.
        let intact = self.opening_again_after(intact);
        let recent = self.read_recent()?;
        if let Some(table) = recent.open_table()? {
            for entry in table.iter().map_err(failed)? {
                let (key, stored) = entry.map_err(failed)?;
                if value_of(key.value(), stored.value()).is_err() {
                    damaged(key.value());
                }
            }
        }
        match intact? {
            true => Ok(()),
            false => Err(StorageError::new("the pages had to be repaired")),
        }
    }
}

impl<M: Medium> NativeStorage<M> {
    /// redb gives nothing more after an error, not even what it could.
    fn opening_again_after<T>(&self, read: Result<T, StorageError>) -> Result<T, StorageError> {
        if read.is_err() {
            self.lock_recent().pages = None;
        }
        read
    }

    fn find(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let recent = self.read_recent()?;
        if let Some(value) = recent.entries.get(key) {
            return Ok(value.as_ref().map(|value| value.bytes.clone()));
        }
        let Some(table) = recent.open_table()? else {
            return Ok(None);
        };
        match table.get(key).map_err(failed)? {
            None => Ok(None),
            Some(stored) => Ok(Some(value_of(key, stored.value())?.into_owned())),
        }
    }

    fn walk(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        // The visitor may read or write, so nothing is locked while it runs.
        let (recent, table) = {
            let recent = self.read_recent()?;
            let range = (Bound::Included(from), Bound::Excluded(to));
            let entries: Vec<(Vec<u8>, Option<Value>)> = (recent.entries)
                .range::<[u8], _>(range)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            (entries, recent.open_table()?)
        };
        let mut recent = recent.into_iter().peekable();
        let stored = match &table {
            Some(table) => Some(table.range(from..to).map_err(failed)?),
            None => None,
        };
        for entry in stored.into_iter().flatten() {
            let (key, value) = entry.map_err(failed)?;
            while let Some((key, value)) = recent.next_if(|(next, _)| **next < *key.value()) {
                if value.is_some_and(|value| !visit(&key, &value.bytes)) {
                    return Ok(());
                }
            }
            let newer = recent.next_if(|(next, _)| **next == *key.value());
            let goes_on = match newer {
                Some((key, Some(value))) => visit(&key, &value.bytes),
                Some((_, None)) => true,
                None => visit(key.value(), &value_of(key.value(), value.value())?),
            };
            if !goes_on {
                return Ok(());
            }
        }
        for (key, value) in recent {
            if value.is_some_and(|value| !visit(&key, &value.bytes)) {
                break;
            }
        }
        Ok(())
    }
}

impl<M: Medium> Drop for NativeStorage<M> {
    /// Takes what is recent to the pages, so that opening has no journal to read. Where that fails
    /// the journal still has it.
    fn drop(&mut self) {
        let mut journal = self.lock_journal();
        let has_recent =
            !self.recent.read().unwrap_or_else(PoisonError::into_inner).entries.is_empty();
        if has_recent && let Err(error) = self.move_to_pages(&mut journal, &WriteBatch::default()) {
            tracing::warn!("closing the store: {error}; its journal keeps what was committed");
        }
    }
}
