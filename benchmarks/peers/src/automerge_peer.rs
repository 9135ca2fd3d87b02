//! Automerge: a map at the root, records as maps in it, changes as they are saved incrementally.

use std::path::Path;

use anyhow::{Context, Result, bail};
use automerge::transaction::Transactable;
use automerge::{
    ActorId, AutoCommit, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value,
};

use crate::cases::{Counting, Record, Records, Replica, SingleRecord};

const RECORDS: &str = "records";
const COUNTER: &str = "counter";
const FILE: &str = "automerge.bin";

pub struct Document {
    document: AutoCommit,
    since: Vec<ChangeHash>,
}

impl Document {
    fn of(mut document: AutoCommit) -> Document {
        let since = document.get_heads();
        Document { document, since }
    }

    fn integer(&self, object: &ObjId, field: &str) -> Result<Option<i64>> {
        let value = self.document.get(object, field)?;
        value.map(|(value, _)| value.as_i64().context("it is no integer")).transpose()
    }

    fn read_record(&self, object: &ObjId) -> Result<Record> {
        let name = match self.document.get(object, "name")? {
            Some((Value::Scalar(value), _)) => match value.as_ref() {
                ScalarValue::Str(name) => name.to_string(),
                other => bail!("the name is {other:?}"),
            },
            other => bail!("the name is {other:?}"),
        };
        let id = self.integer(object, "id")?.context("no id")?;
        let value = self.integer(object, "value")?.context("no value")?;
        Ok(Record { id, name, value })
    }
}

fn write_record(document: &mut AutoCommit, object: &ObjId, number: i64) -> Result<()> {
    let record = Record::numbered(number);
    document.put(object, "id", record.id)?;
    document.put(object, "name", record.name)?;
    document.put(object, "value", record.value)?;
    Ok(())
}

impl Replica for Document {
    fn new(number: u8) -> Result<Self> {
        let mut document = AutoCommit::new();
        document.set_actor(ActorId::from([number; 16]));
        Ok(Document::of(document))
    }

    fn put(&mut self, key: &str, value: i64) -> Result<Vec<u8>> {
        self.document.put(ROOT, key, value)?;
        self.document.commit();
        Ok(self.document.save_incremental())
    }

    fn put_all(&mut self, pairs: &[(String, i64)], each_alone: bool) -> Result<()> {
        for (key, value) in pairs {
            self.document.put(ROOT, key.as_str(), *value)?;
            if each_alone {
                self.document.commit();
            }
        }
        self.document.commit();
        Ok(())
    }

    fn export(&mut self) -> Result<Vec<u8>> {
        Ok(self.document.save_after(&[]))
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        self.document.load_incremental(bytes)?;
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<i64>> {
        self.integer(&ROOT, key)
    }
}

impl Records for Document {
    fn fill(_: &Path, count: i64) -> Result<Self> {
        let mut document = AutoCommit::new();
        let records = document.put_object(ROOT, RECORDS, ObjType::Map)?;
        for number in 0..count {
            let object = document.put_object(&records, Record::key(number), ObjType::Map)?;
            write_record(&mut document, &object, number)?;
        }
        document.commit();
        Ok(Document::of(document))
    }

    fn save(&mut self, folder: &Path) -> Result<u64> {
        let bytes = self.document.save();
        std::fs::write(folder.join(FILE), &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn open(folder: &Path) -> Result<Self> {
        Ok(Document::of(AutoCommit::load(&std::fs::read(folder.join(FILE))?)?))
    }

    fn read(&self, number: i64) -> Result<Record> {
        let (_, records) = self.document.get(ROOT, RECORDS)?.context("no records")?;
        let (_, object) =
            self.document.get(&records, Record::key(number))?.context("no such record")?;
        self.read_record(&object)
    }
}

impl SingleRecord for Document {
    fn with_record(number: i64) -> Result<Self> {
        let mut document = AutoCommit::new();
        write_record(&mut document, &ROOT, number)?;
        document.commit();
        Ok(Document { document, since: Vec::new() })
    }

    fn record(&self) -> Result<Record> {
        self.read_record(&ROOT)
    }
}

impl Counting for Document {
    fn beginning() -> Result<Vec<u8>> {
        let mut document = AutoCommit::new();
        document.put(ROOT, COUNTER, ScalarValue::counter(0))?;
        document.commit();
        Ok(document.save())
    }

    fn begin(beginning: &[u8], number: u8) -> Result<Self> {
        let mut document = AutoCommit::load(beginning)?;
        document.set_actor(ActorId::from([number; 16]));
        Ok(Document::of(document))
    }

    fn increment(&mut self) -> Result<()> {
        self.document.increment(ROOT, COUNTER, 1)?;
        self.document.commit();
        Ok(())
    }

    fn export_increments(&mut self) -> Result<Vec<u8>> {
        Ok(self.document.save_after(&self.since))
    }

    fn merge_increments(&mut self, bytes: &[u8]) -> Result<()> {
        self.merge(bytes)
    }

    fn value(&self) -> Result<i64> {
        Ok(self.integer(&ROOT, COUNTER)?.unwrap_or(0))
    }
}
