//! A store, and the handle that applications hold.

use std::collections::BTreeMap;
#[cfg(feature = "native")]
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use ed25519_dalek::SigningKey;
use vudo_crdt::{
    Direction, GenIndex, GenSchema, Misfit, Reading, Refusal, ReplicaKey, Schema, Strategy, Value,
};

use crate::environment::{Environment, SystemEnvironment};
use crate::error::{Error, Result};
use crate::evolution;
use crate::identity::{self, SecretKeyBytes};
use crate::inside::check_outside;
use crate::layout::{self, NamespaceId};
use crate::limits::{
    CATCH_UP_BYTES_MAX, EVENTUAL_DELAY, MEMORY_BYTES_MAX, SEGMENT_BYTES, SETTLE_DELAY,
    SETTLE_LOG_BYTES,
};
use crate::notices::SharedSchema;
use crate::record::{Record, field_of, is_in_row, is_in_rows, load_fields};
use crate::replication::Replication;
use crate::shard::{Shard, State};
use crate::storage::{MemoryStorage, Storage, WriteBatch};
use crate::transaction::Transaction;

/// The namespace of a handle that names no other.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Longest name of a namespace.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 255;

/// What may be chosen when a store is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// How much memory the documents of one namespace may take up. Those that have not been used
    /// for long leave memory, and are read from disk when they are used again. Changed documents
    /// leave by way of the disk; a single change that touches more than fits stays whole until it
    /// is there. The directories of chunks and some MiB of buffers come on top.
    pub memory_bytes_max: usize,
    /// How much of the log one signature answers for: see [`crate::SEGMENT_BYTES`].
    pub segment_bytes: usize,
    /// How much of what a peer retains below its checkpoint is taken: see
    /// [`crate::CATCH_UP_BYTES_MAX`].
    pub catch_up_bytes_max: u64,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            memory_bytes_max: MEMORY_BYTES_MAX,
            segment_bytes: SEGMENT_BYTES,
            catch_up_bytes_max: CATCH_UP_BYTES_MAX,
        }
    }
}

/// When a commit returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After the change is on disk. Concurrent commits share one sync.
    #[default]
    Durable,
    /// At once; the next flush, at most some 20 ms later, makes it durable. A crash before that
    /// loses it, and nothing else.
    Eventual,
}

/// Names a document: a namespace and a key. The Gen is named where the document is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentId {
    namespace: String,
    key: String,
}

impl DocumentId {
    /// The document of this key in this namespace.
    pub fn new(namespace: impl Into<String>, key: impl Into<String>) -> DocumentId {
        DocumentId { namespace: namespace.into(), key: key.into() }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A handle to a store. Clones are cheap and share the store; it closes with the last of them.
#[derive(Clone)]
pub struct Database {
    engine: Arc<Engine>,
    namespace: Arc<str>,
    durability: Durability,
}

struct Engine {
    storage: Arc<dyn Storage>,
    environment: Arc<dyn Environment>,
    key: SigningKey,
    seed: u64,
    shards: Arc<OpenShards>,
    options: OpenOptions,
    /// Whether the tables follow the log in pauses. On storage of somebody else's they only do what
    /// they are asked to, which a simulation can replay.
    settles: bool,
    schema: SharedSchema,
    /// Held while Gens are defined. The schema itself is not locked while that goes to disk: a frame that
    /// is applied during a commit looks into it.
    defining: Mutex<()>,
    /// Flushes what was committed eventually; started when there is something for it to do.
    flusher: Mutex<Option<Flusher>>,
    /// Whether the flusher has been woken and has not begun to flush yet.
    is_flush_due: Arc<AtomicBool>,
}

/// The namespaces that are open, by name. The flusher shares them, and nothing else of the engine:
/// so the store closes when its last handle goes, not some time later on another thread.
#[derive(Default)]
struct OpenShards(Mutex<BTreeMap<String, Arc<Shard>>>);

impl OpenShards {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Shard>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Shard>> {
        self.lock().values().cloned().collect()
    }

    fn flush(&self) -> Result<()> {
        self.all().iter().try_for_each(|shard| shard.flush_all())
    }

    /// Flushes, and writes out the tables of namespaces with more log than this behind them.
    fn write_out(&self, log_bytes: usize) -> Result<()> {
        self.all().iter().try_for_each(|shard| shard.write_out(log_bytes))
    }
}

struct Flusher {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Database {
    /// Opens the store in a folder, which is created where there is none. Its namespaces are
    /// opened when they are first used.
    ///
    /// # Errors
    /// Another process has the store open, the folder cannot be used, or the store is of another
    /// version or damaged.
    #[cfg(feature = "native")]
    pub fn open(path: impl AsRef<Path>) -> Result<Database> {
        Database::open_with(path, &OpenOptions::default())
    }

    /// Opens the store in a folder as [`Database::open`] does, with other than the usual options.
    ///
    /// # Errors
    /// As for [`Database::open`].
    #[cfg(feature = "native")]
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Database> {
        let path = path.as_ref();
        let (storage, file_identity) = crate::folder::open_storage(path)?;
        check_format(&storage, path)?;
        let environment = Arc::new(SystemEnvironment);
        Database::assemble(Arc::new(storage), Some(file_identity), environment, options, true)
    }

    /// A store that lives as long as its last handle.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn open_in_memory() -> Result<Database> {
        Database::with_storage(Arc::new(MemoryStorage::default()), None)
    }

    /// A store in some other storage. `file_identity` tells a store from its copies, where the
    /// storage can be copied.
    ///
    /// # Errors
    /// The storage failed, or holds a damaged store.
    pub fn with_storage(
        storage: Arc<dyn Storage>,
        file_identity: Option<Vec<u8>>,
    ) -> Result<Database> {
        let environment = Arc::new(SystemEnvironment);
        Database::with_environment(storage, file_identity, environment, &OpenOptions::default())
    }

    /// A store in some storage that takes time and randomness from elsewhere than the system: with
    /// the same ones it does the same, byte for byte.
    ///
    /// # Errors
    /// The storage failed, or holds a damaged store.
    pub fn with_environment(
        storage: Arc<dyn Storage>,
        file_identity: Option<Vec<u8>>,
        environment: Arc<dyn Environment>,
        options: &OpenOptions,
    ) -> Result<Database> {
        Database::assemble(storage, file_identity, environment, options, false)
    }

    fn assemble(
        storage: Arc<dyn Storage>,
        file_identity: Option<Vec<u8>>,
        environment: Arc<dyn Environment>,
        options: &OpenOptions,
        settles: bool,
    ) -> Result<Database> {
        let key = identity::load_or_mint(&storage, file_identity, &*environment)?;
        let mut seed = [0; 8];
        environment.fill_random(&mut seed)?;
        let schema = match storage.get(&layout::meta("schema"))? {
            None => Schema::default(),
            Some(stored) => Schema::decode(&stored)
                .map_err(|what| Error::damaged(format!("the schema: {what}")))?,
        };
        let engine = Engine {
            storage,
            environment,
            key,
            seed: u64::from_le_bytes(seed),
            shards: Arc::default(),
            options: options.clone(),
            settles,
            schema: Arc::new(Mutex::new(Arc::new(schema))),
            defining: Mutex::default(),
            flusher: Mutex::default(),
            is_flush_due: Arc::default(),
        };
        Ok(Database {
            engine: Arc::new(engine),
            namespace: DEFAULT_NAMESPACE.into(),
            durability: Durability::Durable,
        })
    }

    /// The namespace that this handle works in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The document of this key in the handle's namespace.
    pub fn document_id(&self, key: &str) -> DocumentId {
        DocumentId::new(&*self.namespace, key)
    }

    /// A handle to the same store that works in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Database {
        Database { namespace: namespace.into(), ..self.clone() }
    }

    /// A handle to the same store whose commits return at another time.
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Database {
        Database { durability, ..self.clone() }
    }

    /// The public key under which this store writes.
    pub fn replica_key(&self) -> ReplicaKey {
        ReplicaKey(self.engine.key.verifying_key().to_bytes())
    }

    pub(crate) fn environment(&self) -> &dyn Environment {
        &*self.engine.environment
    }

    pub(crate) fn signing_key(&self) -> &SigningKey {
        &self.engine.key
    }

    /// The seed of the store's key, which a network node uses as its identity. Keep it secret.
    pub fn secret_key(&self) -> SecretKeyBytes {
        self.engine.key.to_bytes()
    }

    /// The schema that has been defined in this store.
    pub fn schema(&self) -> Arc<Schema> {
        self.engine.schema.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The Gen of this name.
    ///
    /// # Errors
    /// [`Error::UnknownGen`] where none has been defined.
    pub fn gen_schema(&self, name: &str) -> Result<GenSchema> {
        let schema = self.schema();
        schema.gen_named(name).cloned().ok_or_else(|| Error::UnknownGen(name.to_owned()))
    }

    /// Defines Gens, in place of those of the same names, whether newer or older. The store
    /// remembers them, and for ever what each field number is for. Stored data stays as it is and
    /// goes on being synced: a schema says how it is read and written here.
    ///
    /// # Errors
    /// A number is for another field in this store, which [`Error::NumberTaken`] names, the disk failed,
    /// or [`Error::InsideTransaction`]. Nothing has been defined then.
    pub fn define(&self, schema: &Schema) -> Result<()> {
        check_outside(&self.engine.storage)?;
        let _defining = self.engine.defining.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.schema();
        let numbers = self.numbers_with(&current, schema)?;
        let mut merged = (*current).clone();
        for new in &schema.gens {
            match merged.gens.iter_mut().find(|known| known.name == new.name) {
                Some(known) => *known = new.clone(),
                None => merged.gens.push(new.clone()),
            }
        }
        if merged != *current {
            let mut batch = WriteBatch::default();
            batch.put(layout::meta("schema"), merged.encode());
            batch.put(layout::meta("numbers"), numbers.encode());
            self.engine.storage.commit(&batch)?;
            let mut current = self.engine.schema.lock().unwrap_or_else(PoisonError::into_inner);
            *current = Arc::new(merged);
        }
        Ok(())
    }

    /// What every field number that this store has ever heard of is for, with those of a schema.
    fn numbers_with(&self, current: &Schema, schema: &Schema) -> Result<Schema> {
        let mut numbers = match self.storage().get(&layout::meta("numbers"))? {
            Some(stored) => Schema::decode(&stored)
                .map_err(|what| Error::damaged(format!("the numbers of fields: {what}")))?,
            // Stores that have defined a schema before numbers were kept.
            None => Schema::default(),
        };
        for gen_schema in current.gens.iter().chain(&schema.gens) {
            evolution::take_numbers(&mut numbers, gen_schema)?;
        }
        Ok(numbers)
    }

    /// The values in a document that its fields cannot show: they are of another type than the
    /// field of their number, or their conversion gives nothing that the field can hold. They are
    /// kept and passed on. What lies in sets and maps is not looked at.
    ///
    /// # Errors
    /// The disk failed.
    pub fn misfits(&self, gen_schema: &GenSchema, id: &DocumentId) -> Result<Vec<Misfit>> {
        let shard = self.engine.shard(id.namespace())?;
        let mut state = shard.lock();
        let Some(gen_index) = state.namespace.find_gen(&gen_schema.name) else {
            return Ok(Vec::new());
        };
        let row = state.namespace.row(gen_index, id.key().as_bytes(), &mut shard.chunks())?;
        let row = row.filter(|row| row.is_alive());
        Ok(row.map_or_else(Vec::new, |row| evolution::misfits(gen_schema, &row, |_| true)))
    }

    /// Runs a transaction over any documents of the handle's namespace. It becomes one change,
    /// atomic for everybody; where the function fails, nothing happens.
    ///
    /// Transactions of a namespace run one after the other. Inside the function the store itself
    /// refuses to be used: it would wait for the transaction to end. So would a thread that the
    /// function waits for.
    ///
    /// # Errors
    /// The function's own, a rule of a Gen would not hold any more, the disk failed, or
    /// [`Error::InsideTransaction`].
    pub fn transaction<T>(&self, run: impl FnOnce(&mut Transaction<'_>) -> Result<T>) -> Result<T> {
        self.transaction_in(&self.namespace, run)
    }

    fn transaction_in<T>(
        &self,
        namespace: &str,
        run: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let shard = self.engine.shard(namespace)?;
        let now = self.engine.environment.now_milliseconds();
        let mut state = shard.lock();
        let mut transaction = Transaction::begin(&shard, &mut state, now);
        let inside = shard.inside();
        let result = run(&mut transaction)?;
        drop(inside);
        transaction.check_rules()?;
        transaction.check_rights()?;
        let writes = transaction.into_writes();
        if writes.is_empty() {
            return Ok(result);
        }
        let applied_count = shard.commit(&mut state, writes)?;
        // What has been written leaves memory by way of the disk.
        let is_over_memory = state.is_over_memory();
        drop(state);
        shard.subscribers.run_callbacks();
        match self.durability {
            Durability::Eventual if !is_over_memory => self.wake_flusher(),
            _ => shard.flush(applied_count)?,
        }
        Ok(result)
    }

    /// Creates a document with these fields.
    ///
    /// # Errors
    /// It exists, or a field refuses its value.
    pub fn create(
        &self,
        gen_schema: &GenSchema,
        id: &DocumentId,
        fields: &[(&str, Value)],
    ) -> Result<()> {
        let key = id.key();
        self.transaction_in(id.namespace(), |transaction| {
            transaction.create(gen_schema, key)?;
            fields.iter().try_for_each(|(name, value)| {
                transaction.write(gen_schema, key, *name, value.clone())
            })
        })
    }

    /// Writes fields of a document: registers are set, counters are added to.
    ///
    /// # Errors
    /// The document does not exist, or a field refuses its value.
    pub fn update(
        &self,
        gen_schema: &GenSchema,
        id: &DocumentId,
        fields: &[(&str, Value)],
    ) -> Result<()> {
        self.transaction_in(id.namespace(), |transaction| {
            fields.iter().try_for_each(|(name, value)| {
                transaction.write(gen_schema, id.key(), *name, value.clone())
            })
        })
    }

    /// Deletes a document.
    ///
    /// # Errors
    /// It does not exist.
    pub fn delete(&self, gen_schema: &GenSchema, id: &DocumentId) -> Result<()> {
        self.transaction_in(id.namespace(), |transaction| transaction.delete(gen_schema, id.key()))
    }

    /// Reads a document; `None` where there is none.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read(&self, gen_schema: &GenSchema, id: &DocumentId) -> Result<Option<Record>> {
        let shard = self.engine.shard(id.namespace())?;
        let mut state = shard.lock();
        let Some(gen_index) = state.namespace.find_gen(&gen_schema.name) else {
            return Ok(None);
        };
        let namespace = &mut state.namespace;
        let mut chunks = shard.chunks();
        let row = namespace.row(gen_index, id.key().as_bytes(), &mut chunks)?;
        let Some(row) = row.filter(|row| row.is_alive()) else {
            return Ok(None);
        };
        if is_in_rows(gen_schema) {
            return Record::read_row(gen_schema, &row).map(Some);
        }
        load_fields(namespace, &mut chunks, gen_schema, gen_index, id.key())?;
        Record::read(&mut &*namespace, gen_schema, gen_index, id.key()).map(Some)
    }

    /// One field of a document: `None` where there is no document, or nothing in the field.
    ///
    /// # Errors
    /// The Gen has no such field, or the disk failed.
    pub fn read_field(
        &self,
        gen_schema: &GenSchema,
        id: &DocumentId,
        field: &str,
    ) -> Result<Option<Value>> {
        let field = field_of(gen_schema, field)?;
        let shard = self.engine.shard(id.namespace())?;
        let mut state = shard.lock();
        let Some(gen_index) = state.namespace.find_gen(&gen_schema.name) else {
            return Ok(None);
        };
        let (namespace, key) = (&mut state.namespace, id.key().as_bytes());
        if is_in_row(field) {
            let row = namespace.row(gen_index, key, &mut shard.chunks())?;
            return match row.filter(|row| row.is_alive()) {
                Some(row) => Ok(field.read(&row)?),
                None => Ok(None),
            };
        }
        namespace.load_field(gen_index, key, field, &mut shard.chunks())?;
        match namespace.loaded_row(gen_index, key).filter(|row| row.is_alive()) {
            Some(_) => Ok((&*namespace).read_loaded(gen_index, key, field)?),
            None => Ok(None),
        }
    }

    /// How far this store may move a `bounded_counter` in a direction.
    ///
    /// # Errors
    /// The document or the field does not exist, the field is no `bounded_counter`, or the disk
    /// failed.
    pub fn rights(
        &self,
        gen_schema: &GenSchema,
        id: &DocumentId,
        field: &str,
        direction: Direction,
    ) -> Result<i128> {
        let field = field_of(gen_schema, field)?;
        let refused = |reason: Refusal| {
            let place = format!("{}.{}", id.key(), field.name);
            Err(Error::Refused { gen_name: gen_schema.name.clone(), key: place, reason })
        };
        if field.strategy != Strategy::BoundedCounter {
            return refused(Refusal::NotThisOperation);
        }
        let shard = self.engine.shard(id.namespace())?;
        let state = &mut *shard.lock();
        let (namespace, key) = (&mut state.namespace, id.key().as_bytes());
        let Some(gen_index) = namespace.find_gen(&gen_schema.name) else {
            return refused(Refusal::NotFound);
        };
        namespace.load(gen_index, key, &mut shard.chunks())?;
        // It writes nothing, so it is not committed.
        let mut view = vudo_crdt::Transaction::begin(namespace, state.own, 0);
        let counter = field.bounded_counter();
        let rights = view.rights_loaded(namespace, gen_index, key, &counter, direction);
        rights.or_else(refused)
    }

    /// Visits the documents of a Gen, ascending by key, until the visitor says `false`. To the
    /// visitor the store refuses to be used: see [`Error::InsideTransaction`].
    ///
    /// # Errors
    /// The disk failed.
    pub fn for_each(
        &self,
        gen_schema: &GenSchema,
        mut visit: impl FnMut(Record) -> bool,
    ) -> Result<()> {
        let shard = self.engine.shard(&self.namespace)?;
        let mut state = shard.lock();
        let Some(gen_index) = state.namespace.find_gen(&gen_schema.name) else {
            return Ok(());
        };
        let _inside = shard.inside();
        if !is_in_rows(gen_schema) {
            return for_each_with_entries(&shard, &mut state, gen_schema, gen_index, visit);
        }
        let mut failure = None;
        state.namespace.visit_rows(gen_index, &[], &mut shard.chunks(), |row| {
            if !row.is_alive() {
                return true;
            }
            match Record::read_row(gen_schema, &row) {
                Ok(record) => visit(record),
                Err(error) => {
                    failure = Some(error);
                    false
                }
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// The documents of a Gen, ascending by key.
    ///
    /// # Errors
    /// The disk failed.
    pub fn list(&self, gen_schema: &GenSchema) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        self.for_each(gen_schema, |record| {
            records.push(record);
            true
        })?;
        Ok(records)
    }

    pub(crate) fn shard(&self) -> Result<Arc<Shard>> {
        self.engine.shard(&self.namespace)
    }

    /// The namespaces that the store holds, ascending.
    ///
    /// # Errors
    /// The disk failed.
    pub fn namespaces(&self) -> Result<Vec<String>> {
        Ok(self.namespace_ids()?.into_iter().map(|(name, _)| name).collect())
    }

    pub(crate) fn namespace_ids(&self) -> Result<Vec<(String, NamespaceId)>> {
        namespace_ids(self.storage())
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.engine.storage
    }

    /// Makes everything durable that has been committed.
    ///
    /// # Errors
    /// The disk failed.
    pub fn flush(&self) -> Result<()> {
        check_outside(&self.engine.storage)?;
        self.engine.shards.flush()
    }

    /// One namespace as the sync layer sees it.
    ///
    /// # Errors
    /// The namespace cannot be opened.
    pub fn replication(&self, namespace: &str) -> Result<Replication> {
        Ok(Replication::new(self.engine.shard(namespace)?, self.clone()))
    }

    /// How many bytes the store takes up on disk; zero in memory.
    pub fn disk_bytes(&self) -> u64 {
        self.engine.storage.disk_bytes()
    }

    /// How many bytes the documents that are in memory take up, in all namespaces that are open.
    ///
    /// # Panics
    /// Inside a transaction of the store.
    pub fn memory_bytes(&self) -> usize {
        self.engine.shards.all().iter().map(|shard| shard.lock().namespace.loaded_bytes()).sum()
    }

    /// Remembers a small value under a name, durably: what belongs to a store beside its data.
    ///
    /// # Errors
    /// The disk failed, or [`Error::InsideTransaction`].
    pub fn set_setting(&self, name: &str, value: &[u8]) -> Result<()> {
        check_outside(&self.engine.storage)?;
        let mut batch = WriteBatch::default();
        batch.put(layout::meta(&format!("setting/{name}")), value.to_vec());
        Ok(self.engine.storage.commit(&batch)?)
    }

    /// Refuses what would wait for the transaction that it is part of.
    pub(crate) fn check_outside(&self) -> Result<()> {
        check_outside(&self.engine.storage)
    }

    /// The value that [`Database::set_setting`] remembered.
    ///
    /// # Errors
    /// The disk failed.
    pub fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.engine.storage.get(&layout::meta(&format!("setting/{name}")))?)
    }

    /// Lets the tables follow the log in the next pause, where the store is on a disk of its own.
    pub(crate) fn settle_later(&self) {
        if self.engine.settles {
            self.wake_flusher();
        }
    }

    /// Writes everything out that is only in memory or in the log.
    pub(crate) fn write_out(&self) -> Result<()> {
        check_outside(&self.engine.storage)?;
        self.engine.shards.write_out(0)
    }

    /// Closes the namespaces that nobody has used since this was called the last time, so that they
    /// leave memory; they are opened again when they are used. Those that have subscriptions, live
    /// queries, outboxes or sync sessions stay. Gives how many were closed. A server calls this every
    /// minute or so.
    ///
    /// # Errors
    /// The disk failed. What could not be written stays open.
    pub fn close_idle_namespaces(&self) -> Result<usize> {
        check_outside(&self.engine.storage)?;
        let open = self.engine.shards.all();
        let idle: Vec<Arc<Shard>> = open.into_iter().filter(|shard| !shard.was_used()).collect();
        // Before others have to wait.
        idle.iter().try_for_each(|shard| shard.write_out(0))?;
        let names: Vec<Arc<str>> = idle.into_iter().map(|shard| shard.name.clone()).collect();
        let mut shards = self.engine.shards.lock();
        let mut closed_count = 0;
        for name in names {
            if let Some(shard) = shards.get(&*name)
                && !shard.is_in_use()
            {
                shard.close()?;
                shards.remove(&*name);
                closed_count += 1;
            }
        }
        Ok(closed_count)
    }

    /// Runs something while a namespace is closed, and nobody can open it. What was committed of it
    /// is in its log then, but may be missing in its tables.
    pub(crate) fn while_closed<T>(&self, name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        check_outside(&self.engine.storage)?;
        let mut shards = self.engine.shards.lock();
        if let Some(shard) = shards.get(name) {
            shard.flush_all()?;
            if shard.is_in_use() {
                return Err(Error::NamespaceInUse { namespace: name.to_owned() });
            }
            shards.remove(name);
        }
        run()
    }

    /// Whether nobody else has a handle to the store.
    pub(crate) fn is_only_handle(&self) -> bool {
        Arc::strong_count(&self.engine) == 1
    }

    fn wake_flusher(&self) {
        // Waking a thread costs as much as a write. One that is due flushes what is there by then.
        if self.engine.is_flush_due.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut flusher = self.engine.flusher.lock().unwrap_or_else(PoisonError::into_inner);
        let flusher = flusher.get_or_insert_with(|| {
            start_flusher(self.engine.shards.clone(), self.engine.is_flush_due.clone())
        });
        // A full channel means that it has been woken already.
        let _ = flusher.wake.try_send(());
    }
}

impl Engine {
    /// The namespace of this name, opened where it is not open yet.
    fn shard(&self, name: &str) -> Result<Arc<Shard>> {
        check_outside(&self.storage)?;
        let mut shards = self.shards.lock();
        if let Some(shard) = shards.get(name) {
            shard.note_use();
            return Ok(shard.clone());
        }
        if name.is_empty() || name.len() > NAMESPACE_NAME_BYTES_MAX {
            return Err(Error::NamespaceName(name.to_owned()));
        }
        let id = self.namespace_id(name)?;
        let (storage, key) = (self.storage.clone(), self.key.clone());
        let shard =
            Arc::new(Shard::open(name, id, storage, key, self.seed, &self.options, &self.schema)?);
        // A crash may have come between the loss of a branch and this.
        shard.write_own_again()?;
        shards.insert(name.to_owned(), shard.clone());
        Ok(shard)
    }

    fn namespace_id(&self, name: &str) -> Result<u32> {
        let key = layout::namespace(name);
        if let Some(stored) = self.storage.get(&key)? {
            let bytes = stored.as_slice().try_into();
            return bytes
                .map(u32::from_be_bytes)
                .map_err(|_| Error::damaged("a namespace's number"));
        }
        let mut count = 0;
        self.storage.scan(&layout::namespace(""), b"o", &mut |_, _| {
            count += 1;
            true
        })?;
        let id: u32 = count + 1;
        let mut batch = WriteBatch::default();
        batch.put(key, id.to_be_bytes().to_vec());
        self.storage.commit(&batch)?;
        Ok(id)
    }
}

/// The namespaces in storage, ascending by name.
pub(crate) fn namespace_ids(storage: &dyn Storage) -> Result<Vec<(String, NamespaceId)>> {
    let mut found = Vec::new();
    let (from, to) = (layout::namespace(""), b"o".to_vec());
    storage.scan(&from, &to, &mut |key, stored| {
        let id = stored.first_chunk().map(|bytes| NamespaceId::from_be_bytes(*bytes));
        found.push((String::from_utf8_lossy(&key[1..]).into_owned(), id.unwrap_or_default()));
        true
    })?;
    Ok(found)
}

/// Starts the thread that makes eventual commits durable, and writes the tables out in pauses.
fn start_flusher(shards: Arc<OpenShards>, is_due: Arc<AtomicBool>) -> Flusher {
    let (wake, woken) = sync_channel(1);
    let thread = std::thread::spawn(move || {
        let mut is_woken = woken.recv().is_ok();
        while is_woken {
            let deadline = Instant::now() + EVENTUAL_DELAY;
            // Waking again does not shorten the delay; closing does, and flushes by itself.
            loop {
                match woken.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            // Before the flush: whoever commits behind it has to wake this thread again.
            is_due.store(false, Ordering::SeqCst);
            if let Err(error) = shards.flush() {
                tracing::error!("{error}");
            }
            // In a pause the tables follow the log, so that opening after a crash has little to
            // replay.
            is_woken = match woken.recv_timeout(SETTLE_DELAY) {
                Ok(()) => true,
                Err(RecvTimeoutError::Disconnected) => false,
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = shards.write_out(SETTLE_LOG_BYTES) {
                        tracing::error!("{error}");
                    }
                    woken.recv().is_ok()
                }
            };
        }
    });
    Flusher { wake, thread }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let flusher = self.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Flusher { wake, thread }) = flusher {
            drop(wake);
            // It only fails where the thread panicked, which its message has told already.
            let _ = thread.join();
        }
        for shard in self.shards.all() {
            if let Err(error) = shard.close() {
                tracing::error!("closing namespace '{}': {error}", shard.name);
            }
        }
    }
}

#[cfg(feature = "native")]
fn check_format(storage: &dyn Storage, path: &Path) -> Result<()> {
    let key = layout::meta("format");
    match storage.get(&key)? {
        None => {
            let mut batch = WriteBatch::default();
            batch.put(key, layout::FORMAT_VERSION.to_be_bytes().to_vec());
            Ok(storage.commit(&batch)?)
        }
        Some(stored) => {
            let found = stored.as_slice().try_into().map(u32::from_be_bytes);
            let found = found.map_err(|_| Error::damaged("the format version"))?;
            if found == layout::FORMAT_VERSION {
                return Ok(());
            }
            // Of rows beside the chunks there may be none, and a log without hashes is hashed when its
            // namespace is opened.
            if layout::FORMAT_VERSIONS_BEFORE.contains(&found) {
                let mut batch = WriteBatch::default();
                batch.put(key, layout::FORMAT_VERSION.to_be_bytes().to_vec());
                return Ok(storage.commit(&batch)?);
            }
            let supported = layout::FORMAT_VERSION;
            Err(Error::FormatVersion { path: path.to_owned(), found, supported })
        }
    }
}

/// [`Database::for_each`] of a Gen whose fields do not all lie in the rows of its documents.
fn for_each_with_entries(
    shard: &Shard,
    state: &mut State,
    gen_schema: &GenSchema,
    gen_index: GenIndex,
    mut visit: impl FnMut(Record) -> bool,
) -> Result<()> {
    let mut keys = Vec::new();
    let mut chunks = shard.chunks();
    state.namespace.visit_rows(gen_index, &[], &mut chunks, |row| {
        if row.is_alive() {
            keys.push(String::from_utf8_lossy(row.key).into_owned());
        }
        true
    })?;
    for key in keys {
        load_fields(&mut state.namespace, &mut chunks, gen_schema, gen_index, &key)?;
        if !visit(Record::read(&mut &state.namespace, gen_schema, gen_index, &key)?) {
            return Ok(());
        }
    }
    Ok(())
}
