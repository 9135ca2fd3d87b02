//! What no library can beat: the same pairs in a `HashMap`, without anything to merge.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use vudo_crdt::wire::{Reader, write_bytes, write_varint};

use crate::cases::{Counting, Record, Records, Replica};

#[derive(Default)]
pub struct Map(HashMap<String, i64>);

impl Replica for Map {
    fn new(_: u8) -> Result<Self> {
        Ok(Map::default())
    }

    fn put(&mut self, key: &str, value: i64) -> Result<Vec<u8>> {
        self.0.insert(key.to_owned(), value);
        let mut bytes = Vec::new();
        write_pair(&mut bytes, key, value);
        Ok(bytes)
    }

    fn put_all(&mut self, pairs: &[(String, i64)], _: bool) -> Result<()> {
        self.0.extend(pairs.iter().cloned());
        Ok(())
    }

    fn export(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.iter().for_each(|(key, value)| write_pair(&mut bytes, key, *value));
        Ok(bytes)
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let key = read_text(&mut reader)?;
            self.0.insert(key, read_integer(&mut reader)?);
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<i64>> {
        Ok(self.0.get(key).copied())
    }
}

pub struct Table(HashMap<String, Record>);

const FILE: &str = "records.bin";

impl Records for Table {
    fn fill(_: &Path, count: i64) -> Result<Self> {
        let record = |number| (Record::key(number), Record::numbered(number));
        Ok(Table((0..count).map(record).collect()))
    }

    fn save(&mut self, folder: &Path) -> Result<u64> {
        let mut bytes = Vec::new();
        for (key, record) in &self.0 {
            write_pair(&mut bytes, key, record.id);
            write_pair(&mut bytes, &record.name, record.value);
        }
        std::fs::write(folder.join(FILE), &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn open(folder: &Path) -> Result<Self> {
        let bytes = std::fs::read(folder.join(FILE))?;
        let mut reader = Reader::new(&bytes);
        let mut records = HashMap::new();
        while !reader.is_empty() {
            let (key, id) = (read_text(&mut reader)?, read_integer(&mut reader)?);
            let (name, value) = (read_text(&mut reader)?, read_integer(&mut reader)?);
            records.insert(key, Record { id, name, value });
        }
        Ok(Table(records))
    }

    fn read(&self, number: i64) -> Result<Record> {
        let record = self.0.get(&Record::key(number)).context("no such record")?;
        Ok(Record { id: record.id, name: record.name.clone(), value: record.value })
    }
}

/// The total of each replica.
#[derive(Default)]
pub struct Counter(HashMap<u8, i64>, u8);

impl Counting for Counter {
    fn beginning() -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn begin(_: &[u8], number: u8) -> Result<Self> {
        Ok(Counter(HashMap::new(), number))
    }

    fn increment(&mut self) -> Result<()> {
        *self.0.entry(self.1).or_default() += 1;
        Ok(())
    }

    /// As many messages as increments: replica and total.
    fn export_increments(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for total in 1..=self.value()? {
            bytes.push(self.1);
            write_varint(&mut bytes, total as u64);
        }
        Ok(bytes)
    }

    fn merge_increments(&mut self, bytes: &[u8]) -> Result<()> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let [replica] = reader.array::<1>().map_err(malformed)?;
            let total = read_integer(&mut reader)?;
            let held = self.0.entry(replica).or_default();
            *held = total.max(*held);
        }
        Ok(())
    }

    fn value(&self) -> Result<i64> {
        Ok(self.0.values().sum())
    }
}

pub fn write_pair(bytes: &mut Vec<u8>, key: &str, value: i64) {
    write_bytes(bytes, key.as_bytes());
    write_varint(bytes, value as u64);
}

pub fn read_text(reader: &mut Reader<'_>) -> Result<String> {
    let bytes = reader.bytes().map_err(malformed)?;
    Ok(std::str::from_utf8(bytes)?.to_owned())
}

pub fn read_integer(reader: &mut Reader<'_>) -> Result<i64> {
    Ok(reader.varint().map_err(malformed)? as i64)
}

fn malformed(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow::anyhow!("bytes of our own: {error:?}")
}
