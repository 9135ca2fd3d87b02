//! Loro: a map at the root, records as maps in it, updates as its own subscribers get them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use loro::{Container, ExportMode, LoroDoc, LoroMap, LoroValue, ValueOrContainer, VersionVector};

use crate::cases::{Counting, Record, Records, Replica, SingleRecord};

const ROOT: &str = "root";
const COUNTER: &str = "counter";
const FILE: &str = "loro.bin";

pub struct Document {
    document: LoroDoc,
    since: VersionVector,
}

impl Document {
    fn of(document: LoroDoc) -> Document {
        let since = document.oplog_vv();
        Document { document, since }
    }

    fn numbered(number: u8) -> Result<Document> {
        let document = LoroDoc::new();
        document.set_peer_id(u64::from(number))?;
        Ok(Document::of(document))
    }
}

impl Replica for Document {
    fn new(number: u8) -> Result<Self> {
        Document::numbered(number)
    }

    fn put(&mut self, key: &str, value: i64) -> Result<Vec<u8>> {
        let before = self.document.oplog_vv();
        self.document.get_map(ROOT).insert(key, value)?;
        self.document.commit();
        Ok(self.document.export(ExportMode::updates(&before))?)
    }

    fn put_all(&mut self, pairs: &[(String, i64)], each_alone: bool) -> Result<()> {
        let map = self.document.get_map(ROOT);
        for (key, value) in pairs {
            map.insert(key, *value)?;
            if each_alone {
                self.document.commit();
            }
        }
        self.document.commit();
        Ok(())
    }

    fn export(&mut self) -> Result<Vec<u8>> {
        Ok(self.document.export(ExportMode::all_updates())?)
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        self.document.import(bytes)?;
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<i64>> {
        match self.document.get_map(ROOT).get(key) {
            Some(ValueOrContainer::Value(LoroValue::I64(value))) => Ok(Some(value)),
            None => Ok(None),
            other => bail!("{key} holds {other:?}"),
        }
    }
}

fn write_record(map: &LoroMap, number: i64) -> Result<()> {
    let record = Record::numbered(number);
    map.insert("id", record.id)?;
    map.insert("name", record.name)?;
    map.insert("value", record.value)?;
    Ok(())
}

fn read_record(map: &LoroMap) -> Result<Record> {
    let value = |field: &str| match map.get(field) {
        Some(ValueOrContainer::Value(value)) => Ok(value),
        other => bail!("{field} holds {other:?}"),
    };
    match (value("id")?, value("name")?, value("value")?) {
        (LoroValue::I64(id), LoroValue::String(name), LoroValue::I64(value)) => {
            Ok(Record { id, name: name.to_string(), value })
        }
        other => bail!("a record of other types: {other:?}"),
    }
}

impl Records for Document {
    fn fill(_: &Path, count: i64) -> Result<Self> {
        let document = LoroDoc::new();
        let root = document.get_map(ROOT);
        for number in 0..count {
            write_record(&root.insert_container(&Record::key(number), LoroMap::new())?, number)?;
        }
        document.commit();
        Ok(Document::of(document))
    }

    fn save(&mut self, folder: &Path) -> Result<u64> {
        let bytes = self.document.export(ExportMode::Snapshot)?;
        std::fs::write(folder.join(FILE), &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn open(folder: &Path) -> Result<Self> {
        Ok(Document::of(LoroDoc::from_snapshot(&std::fs::read(folder.join(FILE))?)?))
    }

    fn read(&self, number: i64) -> Result<Record> {
        match self.document.get_map(ROOT).get(&Record::key(number)) {
            Some(ValueOrContainer::Container(Container::Map(map))) => read_record(&map),
            other => bail!("record {number} is {other:?}"),
        }
    }
}

impl SingleRecord for Document {
    fn with_record(number: i64) -> Result<Self> {
        let document = LoroDoc::new();
        write_record(&document.get_map(ROOT), number)?;
        document.commit();
        Ok(Document::of(document))
    }

    fn record(&self) -> Result<Record> {
        read_record(&self.document.get_map(ROOT))
    }
}

impl Counting for Document {
    fn beginning() -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn begin(_: &[u8], number: u8) -> Result<Self> {
        Document::numbered(number)
    }

    fn increment(&mut self) -> Result<()> {
        self.document.get_counter(COUNTER).increment(1.0)?;
        self.document.commit();
        Ok(())
    }

    fn export_increments(&mut self) -> Result<Vec<u8>> {
        Ok(self.document.export(ExportMode::updates(&self.since))?)
    }

    fn merge_increments(&mut self, bytes: &[u8]) -> Result<()> {
        self.document.import(bytes).context("increments")?;
        Ok(())
    }

    fn value(&self) -> Result<i64> {
        Ok(self.document.get_counter(COUNTER).get() as i64)
    }
}
