//! SQLite as a limit on the side of disks: no merging, a write-ahead log, a sync at checkpoints.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension};
use tempfile::TempDir;
use vudo_crdt::wire::Reader;

use crate::cases::{Record, Records, Replica};
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
        let transaction = database.connection.unchecked_transaction()?;
        let insert = "INSERT INTO records VALUES (?1, ?2, ?3, ?4)";
        let mut statement = database.connection.prepare(insert)?;
        for number in 0..count {
            let record = Record::numbered(number);
            statement.execute((Record::key(number), record.id, record.name, record.value))?;
        }
        drop(statement);
        transaction.commit()?;
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
