//! SQLite as a limit on the side of disks: no merging, a write-ahead log, a sync at checkpoints.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OptionalExtension};
use tempfile::TempDir;
use vudo_crdt::wire::Reader;

use crate::cases::{Record, Records, Replica, State};
use crate::limits::{read_integer, read_text, write_pair};

const FILE: &str = "records.db";
const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS pairs (key TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS records
        (key TEXT PRIMARY KEY, id INTEGER, name TEXT, value INTEGER) WITHOUT ROWID;
";
const PUT: &str = "INSERT INTO pairs VALUES (?1, ?2)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";

pub struct Database {
    connection: Connection,
    path: PathBuf,
    /// A store that nobody opens again lies in a folder that goes with it.
    _folder: Option<TempDir>,
}

impl Database {
    fn at(path: PathBuf, folder: Option<TempDir>) -> Result<Self> {
        let connection = Connection::open(&path)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Database { connection, path, _folder: folder })
    }

    fn insert(&self, numbers: Range<i64>) -> Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        let insert = "INSERT INTO records VALUES (?1, ?2, ?3, ?4)";
        let mut statement = self.connection.prepare_cached(insert)?;
        for number in numbers {
            let record = Record::numbered(number);
            statement.execute((Record::key(number), record.id, record.name, record.value))?;
        }
        Ok(transaction.commit()?)
    }
}

impl Replica for Database {
    fn new(_: u8) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Database::at(folder.path().join(FILE), Some(folder))
    }

    fn put(&mut self, key: &str, value: i64) -> Result<Vec<u8>> {
        self.connection.prepare_cached(PUT)?.execute((key, value))?;
        let mut bytes = Vec::new();
        write_pair(&mut bytes, key, value);
        Ok(bytes)
    }

    fn put_all(&mut self, pairs: &[(String, i64)], each_alone: bool) -> Result<()> {
        let transaction = (!each_alone).then(|| self.connection.unchecked_transaction());
        let transaction = transaction.transpose()?;
        let mut statement = self.connection.prepare_cached(PUT)?;
        for (key, value) in pairs {
            statement.execute((key, value))?;
        }
        Ok(transaction.map_or(Ok(()), rusqlite::Transaction::commit)?)
    }

    fn export(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut statement = self.connection.prepare_cached("SELECT key, value FROM pairs")?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            write_pair(&mut bytes, row.get_ref(0)?.as_str()?, row.get(1)?);
        }
        Ok(bytes)
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        let mut statement = self.connection.prepare_cached(PUT)?;
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let key = read_text(&mut reader)?;
            statement.execute((key, read_integer(&mut reader)?))?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &str) -> Result<Option<i64>> {
        let mut statement =
            self.connection.prepare_cached("SELECT value FROM pairs WHERE key = ?1")?;
        Ok(statement.query_row((key,), |row| row.get(0)).optional()?)
    }
}

impl Records for Database {
    fn fill(folder: &Path, count: i64) -> Result<Self> {
        let database = Database::at(folder.join(FILE), None)?;
        database.insert(0..count)?;
        Ok(database)
    }

    fn save(&mut self, _: &Path) -> Result<u64> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
        Ok(std::fs::metadata(&self.path)?.len())
    }

    fn open(folder: &Path) -> Result<Self> {
        Database::at(folder.join(FILE), None)
    }

    fn read(&self, number: i64) -> Result<Record> {
        let select = "SELECT id, name, value FROM records WHERE key = ?1";
        let mut statement = self.connection.prepare_cached(select)?;
        Ok(statement.query_row((Record::key(number),), |row| {
            Ok(Record { id: row.get(0)?, name: row.get(1)?, value: row.get(2)? })
        })?)
    }
}

impl State for Database {
    /// With a write-ahead log, `NORMAL` syncs at checkpoints only and `FULL` at each commit.
    fn set_durable(&mut self, is_durable: bool) -> Result<()> {
        let synchronous = if is_durable { "FULL" } else { "NORMAL" };
        Ok(self.connection.pragma_update(None, "synchronous", synchronous)?)
    }

    fn create(&mut self, numbers: Range<i64>) -> Result<()> {
        self.insert(numbers)
    }

    fn write(&mut self, numbers: Range<i64>, value: i64) -> Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        let update = "UPDATE records SET value = ?2 WHERE key = ?1";
        let mut statement = self.connection.prepare_cached(update)?;
        for number in numbers {
            ensure!(statement.execute((Record::key(number), value))? == 1, "record {number}");
        }
        Ok(transaction.commit()?)
    }

    fn list(&self) -> Result<i64> {
        let select = "SELECT key, id, name, value FROM records";
        let mut statement = self.connection.prepare_cached(select)?;
        let mut rows = statement.query(())?;
        let mut sum = 0;
        while let Some(row) = rows.next()? {
            let (key, name): (String, String) = (row.get(0)?, row.get(2)?);
            let record = Record { id: row.get(1)?, name, value: row.get(3)? };
            sum += record.value;
            std::hint::black_box((key, record));
        }
        Ok(sum)
    }

    fn back_up(&self, folder: &Path) -> Result<()> {
        let path = folder.to_str().context("the path is text")?;
        self.connection.execute("VACUUM INTO ?1", (path,))?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))?;
        Ok(())
    }
}
