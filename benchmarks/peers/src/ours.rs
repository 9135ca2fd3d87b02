//! VUDO: the merge core where peers have a document in memory, the state engine on a disk where they
//! have records.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use vudo_crdt::value::decode_i64;
use vudo_crdt::{
    FieldSchema, GenIndex, GenSchema, InMemory, Log, Namespace, ReplicaIndex, ReplicaKey, Strategy,
    Transaction, Value, ValueType, VersionVector, entry_key,
};
use vudo_state::{Database, Durability, Transaction as StoreTransaction};

use crate::cases::{Counting, Record, Records, Replica, State};

const NOW_MILLISECONDS: u64 = 1_700_000_000_000;

/// A Gen with one integer, a document for each key.
pub struct Map {
    namespace: Namespace,
    log: Log,
    replica: ReplicaIndex,
    gen_index: GenIndex,
    field: FieldSchema,
    change_count: u64,
}

impl Map {
    fn write(&mut self, log: &mut Log, pairs: &[(&str, i64)]) -> Result<()> {
        self.change_count += 1;
        let now = NOW_MILLISECONDS + self.change_count;
        let mut transaction = Transaction::begin(&self.namespace, self.replica, now);
        for (key, value) in pairs {
            let (namespace, key) = (&mut self.namespace, key.as_bytes());
            transaction.create(namespace, &mut InMemory, self.gen_index, key)?;
            let value = Value::from(*value);
            transaction.set(namespace, &mut InMemory, self.gen_index, key, &self.field, &value)?;
        }
        transaction.commit(&mut self.namespace, &mut InMemory, log)?;
        Ok(())
    }
}

impl Replica for Map {
    fn new(number: u8) -> Result<Self> {
        let mut namespace = Namespace::new(u64::from(number));
        let replica = namespace.intern_replica(ReplicaKey([number; 32]));
        let gen_index = namespace.intern_gen("Entry").context("there is room")?;
        let field = FieldSchema::new("value", 1, Strategy::Lww, ValueType::I64);
        Ok(Map { namespace, log: Log::default(), replica, gen_index, field, change_count: 0 })
    }

    fn put(&mut self, key: &str, value: i64) -> Result<Vec<u8>> {
        let mut log = Log::default();
        self.write(&mut log, &[(key, value)])?;
        Ok(log.frame_since(&self.namespace, &VersionVector::new()))
    }

    fn put_all(&mut self, pairs: &[(String, i64)], each_alone: bool) -> Result<()> {
        let pairs: Vec<(&str, i64)> = pairs.iter().map(|(key, value)| (&**key, *value)).collect();
        let mut log = std::mem::take(&mut self.log);
        let size = if each_alone { 1 } else { pairs.len() };
        let written = pairs.chunks(size).try_for_each(|chunk| self.write(&mut log, chunk));
        self.log = log;
        written
    }

    fn export(&mut self) -> Result<Vec<u8>> {
        Ok(self.log.frame_since(&self.namespace, &VersionVector::new()))
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        self.namespace.apply_frame(bytes, &mut InMemory, &mut ())?;
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<i64>> {
        let row = self.namespace.loaded_row(self.gen_index, key.as_bytes());
        let cell = row.as_ref().and_then(|row| row.cell(self.field.id()));
        Ok(cell.and_then(|cell| decode_i64(cell.state)))
    }
}

/// One document with a set of texts.
pub struct Set {
    map: Map,
}

const SET: &[u8] = b"set";

impl Set {
    fn write(&mut self, log: &mut Log, pairs: &[(String, i64)]) -> Result<()> {
        let Map { namespace, replica, gen_index, field, change_count, .. } = &mut self.map;
        *change_count += 1;
        let now = NOW_MILLISECONDS + *change_count;
        let mut transaction = Transaction::begin(namespace, *replica, now);
        if namespace.loaded_row(*gen_index, SET).is_none() {
            transaction.create(namespace, &mut InMemory, *gen_index, SET)?;
        }
        for (element, _) in pairs {
            let element = Value::from(element.as_str()).to_bytes();
            transaction.add_element_loaded(namespace, *gen_index, SET, field.id(), &element)?;
        }
        transaction.commit(namespace, &mut InMemory, log)?;
        Ok(())
    }
}

impl Replica for Set {
    fn new(number: u8) -> Result<Self> {
        let mut map = Map::new(number)?;
        let texts = ValueType::Set(Box::new(ValueType::String));
        map.field = FieldSchema::new("tags", 1, Strategy::OrSet, texts);
        Ok(Set { map })
    }

    fn put(&mut self, key: &str, value: i64) -> Result<Vec<u8>> {
        let mut log = Log::default();
        self.write(&mut log, &[(key.to_owned(), value)])?;
        Ok(log.frame_since(&self.map.namespace, &VersionVector::new()))
    }

    fn put_all(&mut self, pairs: &[(String, i64)], each_alone: bool) -> Result<()> {
        let mut log = std::mem::take(&mut self.map.log);
        let size = if each_alone { 1 } else { pairs.len() };
        let written = pairs.chunks(size).try_for_each(|chunk| self.write(&mut log, chunk));
        self.map.log = log;
        written
    }

    fn export(&mut self) -> Result<Vec<u8>> {
        self.map.export()
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        self.map.merge(bytes)
    }

    /// A set has no values: what stands for one is the number that the element's name ends with,
    /// counted as the case counts.
    fn get(&self, key: &str) -> Result<Option<i64>> {
        let element = Value::from(key).to_bytes();
        let entry = entry_key(SET, self.map.field.id(), &element);
        let row = self.map.namespace.loaded_row(self.map.gen_index, &entry);
        if !row.is_some_and(|row| row.is_element()) {
            return Ok(None);
        }
        let (name, number) = key.rsplit_once('_').context("an element's name has a number")?;
        Ok(Some(number.parse::<i64>()? * 2 + i64::from(name.ends_with('b'))))
    }
}

/// A store on a disk.
pub struct Table {
    database: Database,
    gen_schema: GenSchema,
}

impl Table {
    fn at(folder: &Path) -> Result<Self> {
        let fields = vec![
            FieldSchema::new("id", 1, Strategy::Immutable, ValueType::I64),
            FieldSchema::new("name", 2, Strategy::Lww, ValueType::String),
            FieldSchema::new("value", 3, Strategy::Lww, ValueType::I64),
        ];
        let gen_schema = GenSchema::new("Record", fields);
        Ok(Table { database: Database::open(folder.join("store"))?, gen_schema })
    }

    fn create_one(
        &self,
        transaction: &mut StoreTransaction<'_>,
        number: i64,
    ) -> vudo_state::Result<()> {
        let (key, record) = (Record::key(number), Record::numbered(number));
        transaction.create(&self.gen_schema, &key)?;
        transaction.set(&self.gen_schema, &key, "id", record.id)?;
        transaction.set(&self.gen_schema, &key, "name", record.name)?;
        transaction.set(&self.gen_schema, &key, "value", record.value)
    }
}

impl Records for Table {
    fn fill(folder: &Path, count: i64) -> Result<Self> {
        let table = Table::at(folder)?;
        let fast = table.database.with_durability(Durability::Eventual);
        for first in (0..count).step_by(1_000) {
            let mut numbers = first..count.min(first + 1_000);
            fast.transaction(|transaction| {
                numbers.try_for_each(|number| table.create_one(transaction, number))
            })?;
        }
        table.database.flush()?;
        Ok(table)
    }

    /// The disk has them already; the bytes are those that a new peer gets.
    fn save(&mut self, _: &Path) -> Result<u64> {
        let replication = self.database.replication(self.database.namespace())?;
        let frame = replication.frame_since(&VersionVector::new(), usize::MAX)?;
        Ok(frame.context("the store has changes")?.bytes.len() as u64)
    }

    fn open(folder: &Path) -> Result<Self> {
        Table::at(folder)
    }

    fn read(&self, number: i64) -> Result<Record> {
        let id = self.database.document_id(&Record::key(number));
        let record = self.database.read(&self.gen_schema, &id)?.context("no such record")?;
        let integer = |field: &str| match record.get(field) {
            Some(Value::Int(value)) => Ok(i64::try_from(*value)?),
            other => anyhow::bail!("{field} holds {other:?}"),
        };
        let name = match record.get("name") {
            Some(Value::String(name)) => name.to_string(),
            other => anyhow::bail!("name holds {other:?}"),
        };
        Ok(Record { id: integer("id")?, name, value: integer("value")? })
    }
}

impl State for Table {
    fn set_durable(&mut self, is_durable: bool) -> Result<()> {
        let durability = if is_durable { Durability::Durable } else { Durability::Eventual };
        self.database = self.database.with_durability(durability);
        Ok(())
    }

    fn create(&mut self, mut numbers: Range<i64>) -> Result<()> {
        Ok(self.database.transaction(|transaction| {
            numbers.try_for_each(|number| self.create_one(transaction, number))
        })?)
    }

    fn write(&mut self, mut numbers: Range<i64>, value: i64) -> Result<()> {
        Ok(self.database.transaction(|transaction| {
            numbers.try_for_each(|number| {
                transaction.set(&self.gen_schema, &Record::key(number), "value", value)
            })
        })?)
    }

    fn list(&self) -> Result<i64> {
        let mut sum = 0;
        for record in self.database.list(&self.gen_schema)? {
            match record.get("value") {
                Some(Value::Int(value)) => sum += i64::try_from(*value)?,
                other => anyhow::bail!("value holds {other:?}"),
            }
        }
        Ok(sum)
    }

    fn back_up(&self, folder: &Path) -> Result<()> {
        self.database.backup(folder)?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.database.flush()?)
    }
}

/// One document with a counter.
pub struct Counter {
    map: Map,
    since: VersionVector,
}

const KEY: &[u8] = b"counter";

impl Counting for Counter {
    fn beginning() -> Result<Vec<u8>> {
        let mut map = Map::new(9)?;
        let mut transaction = Transaction::begin(&map.namespace, map.replica, NOW_MILLISECONDS);
        transaction.create(&mut map.namespace, &mut InMemory, map.gen_index, KEY)?;
        transaction.commit(&mut map.namespace, &mut InMemory, &mut map.log)?;
        map.export()
    }

    fn begin(beginning: &[u8], number: u8) -> Result<Self> {
        let mut map = Map::new(number)?;
        map.field = FieldSchema::new("votes", 1, Strategy::PnCounter, ValueType::I64);
        map.namespace.apply_frame(beginning, &mut InMemory, &mut map.log)?;
        let since = map.namespace.version_vector();
        Ok(Counter { map, since })
    }

    fn increment(&mut self) -> Result<()> {
        let Map { namespace, log, replica, gen_index, field, .. } = &mut self.map;
        let mut transaction = Transaction::begin(namespace, *replica, NOW_MILLISECONDS);
        transaction.add(namespace, &mut InMemory, *gen_index, KEY, field, 1)?;
        transaction.commit(namespace, &mut InMemory, log)?;
        Ok(())
    }

    fn export_increments(&mut self) -> Result<Vec<u8>> {
        Ok(self.map.log.frame_since(&self.map.namespace, &self.since))
    }

    fn merge_increments(&mut self, bytes: &[u8]) -> Result<()> {
        let applied = self.map.namespace.apply_frame(bytes, &mut InMemory, &mut ())?;
        ensure!(applied.duplicates == 0, "increments arrive once");
        Ok(())
    }

    fn value(&self) -> Result<i64> {
        let row = self.map.namespace.loaded_row(self.map.gen_index, KEY).context("it is there")?;
        match self.map.field.read(&row)? {
            Some(Value::Int(value)) => Ok(i64::try_from(value)?),
            other => anyhow::bail!("the counter shows {other:?}"),
        }
    }
}
