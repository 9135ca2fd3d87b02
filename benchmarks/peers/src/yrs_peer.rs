//! Yrs: a map at the root, records as maps in it, the updates of each transaction. It has no
//! counter.

use std::path::Path;

use anyhow::{Result, bail};
use yrs::updates::decoder::Decode;
use yrs::{Any, Doc, Map, MapPrelim, MapRef, Out, ReadTxn, StateVector, Transact, Update};

use crate::cases::{Record, Records, Replica, SingleRecord};

const FILE: &str = "yrs.bin";

pub struct Document {
    document: Doc,
    root: MapRef,
}

impl Document {
    fn of(document: Doc) -> Document {
        let root = document.get_or_insert_map("root");
        Document { document, root }
    }
}

impl Replica for Document {
    fn new(number: u8) -> Result<Self> {
        Ok(Document::of(Doc::with_client_id(u64::from(number))))
    }

    fn put(&mut self, key: &str, value: i64) -> Result<Vec<u8>> {
        let mut transaction = self.document.transact_mut();
        self.root.insert(&mut transaction, key, Any::from(value));
        transaction.commit();
        Ok(transaction.encode_update_v1())
    }

    fn put_all(&mut self, pairs: &[(String, i64)], each_alone: bool) -> Result<()> {
        let size = if each_alone { 1 } else { pairs.len() };
        for chunk in pairs.chunks(size) {
            let mut transaction = self.document.transact_mut();
            for (key, value) in chunk {
                self.root.insert(&mut transaction, key.as_str(), Any::from(*value));
            }
        }
        Ok(())
    }

    fn export(&mut self) -> Result<Vec<u8>> {
        Ok(self.document.transact().encode_state_as_update_v1(&StateVector::default()))
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        self.document.transact_mut().apply_update(Update::decode_v1(bytes)?)?;
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<i64>> {
        match self.root.get(&self.document.transact(), key) {
            Some(Out::Any(value)) => integer(&value).map(Some),
            None => Ok(None),
            other => bail!("{key} holds {other:?}"),
        }
    }
}

fn integer(value: &Any) -> Result<i64> {
    match value {
        Any::Number(number) => match number.as_i64() {
            Some(integer) => Ok(integer),
            None => bail!("{value:?} is no integer"),
        },
        other => bail!("{other:?} is no integer"),
    }
}

fn fields(number: i64) -> [(&'static str, Any); 3] {
    let record = Record::numbered(number);
    [
        ("id", Any::from(record.id)),
        ("name", Any::from(record.name)),
        ("value", Any::from(record.value)),
    ]
}

fn read_record(map: &MapRef, transaction: &impl ReadTxn) -> Result<Record> {
    let value = |field: &str| match map.get(transaction, field) {
        Some(Out::Any(value)) => Ok(value),
        other => bail!("{field} holds {other:?}"),
    };
    let Any::String(name) = value("name")? else { bail!("the name is no text") };
    Ok(Record {
        id: integer(&value("id")?)?,
        name: name.to_string(),
        value: integer(&value("value")?)?,
    })
}

impl Records for Document {
    fn fill(_: &Path, count: i64) -> Result<Self> {
        let own = Document::of(Doc::new());
        let mut transaction = own.document.transact_mut();
        for number in 0..count {
            let map = MapPrelim::from(fields(number));
            own.root.insert(&mut transaction, Record::key(number), map);
        }
        drop(transaction);
        Ok(own)
    }

    fn save(&mut self, folder: &Path) -> Result<u64> {
        let bytes = self.export()?;
        std::fs::write(folder.join(FILE), &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn open(folder: &Path) -> Result<Self> {
        let mut own = Document::of(Doc::new());
        own.merge(&std::fs::read(folder.join(FILE))?)?;
        Ok(own)
    }

    fn read(&self, number: i64) -> Result<Record> {
        let transaction = self.document.transact();
        match self.root.get(&transaction, &Record::key(number)) {
            Some(Out::YMap(map)) => read_record(&map, &transaction),
            other => bail!("record {number} is {other:?}"),
        }
    }
}

impl SingleRecord for Document {
    fn with_record(number: i64) -> Result<Self> {
        let own = Document::of(Doc::new());
        let mut transaction = own.document.transact_mut();
        for (field, value) in fields(number) {
            own.root.insert(&mut transaction, field, value);
        }
        drop(transaction);
        Ok(own)
    }

    fn record(&self) -> Result<Record> {
        read_record(&self.root, &self.document.transact())
    }
}
