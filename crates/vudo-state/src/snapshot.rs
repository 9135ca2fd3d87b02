//! Snapshots: a namespace as it was when it held certain changes; and pins, which name such moments.
//!
//! A moment is a version vector. What the namespace was then is the join of the changes that the
//! vector covers, without those that have been set aside since. So a snapshot is made of the log, in
//! memory, and costs what the log has: it keeps nothing on disk but its vector, and nothing that is
//! written later can reach it.

use std::sync::PoisonError;

use vudo_crdt::wire::Reader;
use vudo_crdt::{GenSchema, InMemory, Namespace, Ranges, ReplicaIndex, Row, VersionVector};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::layout;
use crate::query::{Place, Query};
use crate::record::Record;
use crate::shard::Shard;
use crate::storage::WriteBatch;

/// A namespace as it was at one moment. It can be read, and does not change.
pub struct Snapshot {
    namespace: Namespace,
    vector: VersionVector,
}

impl Database {
    /// The handle's namespace as it is on disk now.
    ///
    /// # Errors
    /// The disk failed.
    pub fn snapshot(&self) -> Result<Snapshot> {
        loop {
            let snapshot = self.snapshot_at(self.shard()?.durable_vector())?;
            // A compaction may have dropped meanwhile what only this moment needed.
            if self.shard()?.retains(&snapshot.vector) {
                return Ok(snapshot);
            }
        }
    }

    /// Remembers this moment of the handle's namespace under a name, in place of an earlier one of
    /// the same name.
    ///
    /// # Errors
    /// The name is empty or too long, or the disk failed.
    pub fn pin(&self, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > crate::NAMESPACE_NAME_BYTES_MAX {
            return Err(Error::PinName(name.to_owned()));
        }
        let shard = self.shard()?;
        let _pinning = shard.pinning.lock().unwrap_or_else(PoisonError::into_inner);
        shard.flush_all()?;
        let mut stored = Vec::new();
        shard.durable_vector().encode(&mut stored);
        let mut batch = WriteBatch::default();
        batch.put(layout::pin(shard.id(), name), stored);
        Ok(self.storage().commit(&batch)?)
    }

    /// Forgets a pin. Gives whether there was one.
    ///
    /// # Errors
    /// The disk failed.
    pub fn unpin(&self, name: &str) -> Result<bool> {
        let key = layout::pin(self.shard()?.id(), name);
        let is_there = self.storage().get(&key)?.is_some();
        let mut batch = WriteBatch::default();
        batch.remove(key);
        self.storage().commit(&batch)?;
        Ok(is_there)
    }

    /// The pins of the handle's namespace, ascending by name, and what each covers.
    ///
    /// # Errors
    /// The disk failed, or a pin is damaged.
    pub fn pins(&self) -> Result<Vec<(String, VersionVector)>> {
        self.shard()?.pins()
    }

    /// The handle's namespace as it was when the pin of this name was set.
    ///
    /// # Errors
    /// There is no such pin, or the disk failed.
    pub fn snapshot_of_pin(&self, name: &str) -> Result<Snapshot> {
        let shard = self.shard()?;
        let unknown = || Error::UnknownPin(name.to_owned());
        let pin = |pins: Vec<(String, VersionVector)>| {
            pins.into_iter().find(|(found, _)| found == name).map(|(_, vector)| vector)
        };
        let snapshot = self.snapshot_at(pin(shard.pins()?).ok_or_else(unknown)?)?;
        // Where the pin has gone meanwhile, so may have what only it needed.
        let is_whole = shard.retains(&snapshot.vector)
            || pin(shard.pins()?).is_some_and(|vector| vector == snapshot.vector);
        if is_whole { Ok(snapshot) } else { Err(unknown()) }
    }

    fn snapshot_at(&self, vector: VersionVector) -> Result<Snapshot> {
        let shard = self.shard()?;
        let (directory, keys, set_aside) = {
            let state = shard.lock();
            let namespace = &state.namespace;
            let keys = namespace.replicas().keys().to_vec();
            let replicas = 0..keys.len() as ReplicaIndex;
            let set_aside: Vec<Ranges> =
                replicas.map(|replica| namespace.set_aside(replica).clone()).collect();
            (namespace.encode_directory(), keys, set_aside)
        };
        // The same indexes, and no documents.
        let opened = Namespace::open(&directory, |_, _| None, 0);
        let mut namespace =
            opened.map_err(|what| Error::damaged(format!("a directory in memory: {what}")))?;
        let covered: Vec<u64> = keys.iter().map(|key| vector.get(key)).collect();
        let mut failure = None;
        shard.visit_log(&VersionVector::new(), |change| {
            let replica = change.replica as usize;
            let is_covered = covered.get(replica).is_some_and(|last| change.number <= *last);
            if is_covered && !set_aside[replica].contains(change.number) {
                failure = namespace.apply_own(change, &mut InMemory, &mut ()).err();
            }
            failure.is_none()
        })?;
        match failure {
            None => Ok(Snapshot { namespace, vector }),
            Some(what) => Err(Error::damaged(format!("a snapshot: {what}"))),
        }
    }
}

impl Shard {
    /// The pins, ascending by name, and what each covers.
    pub(crate) fn pins(&self) -> Result<Vec<(String, VersionVector)>> {
        let mut pins = Vec::new();
        let mut damaged = None;
        let (from, to) = (layout::pin(self.id(), ""), layout::pin(self.id() + 1, ""));
        self.storage().scan(&from, &to, &mut |key, stored| {
            let name = String::from_utf8_lossy(&key[from.len()..]).into_owned();
            match VersionVector::decode(&mut Reader::new(stored)) {
                Ok(vector) => pins.push((name, vector)),
                Err(what) => damaged = Some(Error::damaged(format!("the pin '{name}': {what}"))),
            }
            damaged.is_none()
        })?;
        damaged.map_or(Ok(pins), Err)
    }

    /// Whether the log has all that the state at a vector is made of, pinned or not.
    fn retains(&self, vector: &VersionVector) -> bool {
        self.lock().floor.as_ref().is_none_or(|floor| vector.covers(&floor.vector))
    }
}

impl Snapshot {
    /// The changes that it reflects.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// Reads a document; `None` where there was none.
    ///
    /// # Errors
    /// A counter's total does not fit its type, and its Gen asks for an error then.
    pub fn read(&self, gen_schema: &GenSchema, key: &str) -> Result<Option<Record>> {
        let Some(gen_index) = self.namespace.find_gen(&gen_schema.name) else {
            return Ok(None);
        };
        let row = self.namespace.loaded_row(gen_index, key.as_bytes());
        let is_alive = row.is_some_and(|row| row.is_alive());
        let mut reading = &self.namespace;
        is_alive.then(|| Record::read(&mut reading, gen_schema, gen_index, key)).transpose()
    }

    /// The documents that a query asks for, in its order.
    ///
    /// # Errors
    /// A counter's total does not fit its type, and its Gen asks for an error then.
    pub fn query(&self, query: &Query) -> Result<Vec<Record>> {
        let Some(gen_index) = self.namespace.find_gen(&query.gen_schema().name) else {
            return Ok(Vec::new());
        };
        let placed = |row: Row<'_>| {
            let place = query.place_of(&row)?;
            let key = place.key().to_owned();
            Some((place, Record::read(&mut &self.namespace, query.gen_schema(), gen_index, &key)))
        };
        let mut found: Vec<(Place, Result<Record>)> =
            self.namespace.loaded_rows(gen_index).filter_map(placed).collect();
        found.sort_by(|left, right| left.0.cmp(&right.0));
        found.truncate(query.limit_count());
        found.into_iter().map(|(_, record)| record).collect()
    }

    /// The documents of a Gen, ascending by key.
    ///
    /// # Errors
    /// A counter's total does not fit its type, and its Gen asks for an error then.
    pub fn list(&self, gen_schema: &GenSchema) -> Result<Vec<Record>> {
        self.query(&Query::of(gen_schema))
    }
}
