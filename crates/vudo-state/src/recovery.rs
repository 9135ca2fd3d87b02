//! Reading the log on disk, and what opening a namespace makes of it.

use vudo_crdt::wire::{MalformedFrame, Reader};
use vudo_crdt::{
    Change, GenIndex, Namespace, Ranges, ReplicaIndex, ReplicaKey, StoredTable, TablePart,
};

use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::layout::{self, Checkpoint, NamespaceId};
use crate::rights::{Rights, set_aside_if_not_covered};
use crate::seals::Seals;
use crate::storage::{Storage, StorageError};
use crate::stored_chunks::StoredChunks;

/// The changes on disk.
pub(crate) struct StoredLog<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) id: NamespaceId,
    pub(crate) name: &'a str,
}

impl StoredLog<'_> {
    /// Visits the changes from a position on. Gives the position behind the last one.
    pub(crate) fn visit_from(&self, from: u64, visit: &mut dyn FnMut(&Change<'_>)) -> Result<u64> {
        self.visit_range(from, u64::MAX, visit)
    }

    /// Visits the changes on disk of the positions `from..to`. Gives the position behind the last one.
    pub(crate) fn visit_range(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&Change<'_>),
    ) -> Result<u64> {
        // Storage takes no range that ends before it begins.
        if from >= to {
            return Ok(from);
        }
        let mut malformed = None;
        let mut next = from;
        let to = layout::log(self.id, to);
        self.storage.scan(&layout::log(self.id, from), &to, &mut |key, record| {
            let mut reader = Reader::new(record);
            while !reader.is_empty() {
                match Change::read_log_record(&mut reader) {
                    Ok(change) => visit(&change),
                    Err(what) => {
                        malformed = Some(what);
                        return false;
                    }
                }
            }
            next = layout::trailing_u64(key) + 1;
            true
        })?;
        match malformed {
            Some(what) => {
                Err(Error::damaged(format!("the log of namespace '{}': {what}", self.name)))
            }
            None => Ok(next),
        }
    }
}

impl StoredLog<'_> {
    /// Visits the records of the positions `from..to`, until they have more than so many bytes. Gives
    /// the position to go on from; `to` where there are no more.
    pub(crate) fn visit_records(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<u64> {
        // Storage takes no range that ends before it begins.
        if from >= to {
            return Ok(to);
        }
        let (mut next, mut byte_count, mut failure) = (to, 0, None);
        let (first, end) = (layout::log(self.id, from), layout::log(self.id, to));
        self.storage.scan(&first, &end, &mut |key, record| {
            let position = layout::trailing_u64(key);
            if byte_count > bytes_max {
                next = position;
                return false;
            }
            byte_count += record.len();
            failure = visit(position, record).err();
            failure.is_none()
        })?;
        failure.map_or(Ok(next), Err)
    }
}

/// Visits the changes of a log record.
pub(crate) fn visit_changes(
    name: &str,
    record: &[u8],
    visit: &mut dyn FnMut(&Change<'_>) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::new(record);
    while !reader.is_empty() {
        let change = Change::read_log_record(&mut reader)
            .map_err(|what| Error::damaged(format!("the log of namespace '{name}': {what}")))?;
        visit(&change)?;
    }
    Ok(())
}

/// A namespace as the last checkpoint of its tables has it, and whether anything has been set aside
/// in it.
pub(crate) fn open_namespace(
    name: &str,
    id: NamespaceId,
    storage: &dyn Storage,
    seed: u64,
) -> Result<(Namespace, bool)> {
    let mut read_error = None;
    let mut namespace = match storage.get(&layout::directory(id))? {
        None => Namespace::new(seed),
        Some(directory) => {
            let read_table = |gen_index, part| match stored_table(storage, id, gen_index, part) {
                Ok(stored) => stored,
                Err(error) => {
                    read_error = Some(error);
                    None
                }
            };
            Namespace::open(&directory, read_table, seed).map_err(|what| {
                Error::damaged(format!("the directory of namespace '{name}': {what}"))
            })?
        }
    };
    if let Some(error) = read_error {
        return Err(error.into());
    }
    let judgements = storage.get(&layout::judgements(id))?;
    if let Some(stored) = &judgements {
        restore_judgements(&mut namespace, stored).map_err(|what| {
            Error::damaged(format!("the judgements of namespace '{name}': {what}"))
        })?;
    }
    Ok((namespace, judgements.is_some()))
}

/// A table as it is on disk; `None` where it has never had rows.
pub(crate) fn stored_table(
    storage: &dyn Storage,
    id: NamespaceId,
    gen_index: GenIndex,
    part: TablePart,
) -> std::result::Result<Option<StoredTable>, StorageError> {
    let directory = storage.get(&layout::table(id, gen_index, part))?;
    let buffer = storage.get(&layout::buffer(id, gen_index, part))?;
    let is_there = directory.is_some() || buffer.is_some();
    let (directory, buffer) = (directory.unwrap_or_default(), buffer.unwrap_or_default());
    Ok(is_there.then_some(StoredTable { directory, buffer }))
}

/// Up to where the tables of a namespace hold its log.
pub(crate) fn table_checkpoint(
    name: &str,
    id: NamespaceId,
    storage: &dyn Storage,
) -> Result<Checkpoint> {
    match storage.get(&layout::checkpoint(id))? {
        None => Ok(Checkpoint::default()),
        Some(stored) => Checkpoint::decode(&stored).map_err(|what| {
            Error::damaged(format!("the checkpoint of namespace '{name}': {what}"))
        }),
    }
}

/// What is set aside, by replica key, in order of indexes.
pub(crate) fn encode_judgements(namespace: &Namespace) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, key) in namespace.replicas().keys().iter().enumerate() {
        let ranges = namespace.set_aside(index as ReplicaIndex);
        if !ranges.is_empty() {
            out.extend_from_slice(&key.0);
            ranges.encode(&mut out);
        }
    }
    out
}

fn restore_judgements(
    namespace: &mut Namespace,
    stored: &[u8],
) -> std::result::Result<(), MalformedFrame> {
    let mut reader = Reader::new(stored);
    while !reader.is_empty() {
        let replica = namespace.intern_replica(ReplicaKey(reader.array()?));
        namespace.restore_set_aside(replica, Ranges::decode(&mut reader)?);
    }
    Ok(())
}

/// The Merkle logs as the last checkpoint has them. A store of an earlier format has none, nor has one
/// that has been repaired: the log is hashed up to there, from its floor on.
pub(crate) fn open_seals(
    namespace: &mut Namespace,
    name: &str,
    id: NamespaceId,
    storage: &dyn Storage,
    own_key: &ReplicaKey,
    checkpoint_position: u64,
    floor: Option<&Floor>,
) -> Result<Seals> {
    if let Some(stored) = storage.get(&layout::hashes(id))? {
        return Seals::decode_hashes(&stored)
            .map_err(|what| Error::damaged(format!("the hashes of namespace '{name}': {what}")));
    }
    let mut seals = Seals::default();
    if let Some(floor) = floor {
        for (key, log) in &floor.signed.checkpoint.logs {
            *seals.log(namespace.intern_replica(*key)) = log.clone();
        }
        (seals.own_position, seals.open.first) = (floor.position, floor.position);
    }
    let own = namespace.replicas().find(own_key);
    let log = StoredLog { storage, id, name };
    log.visit_range(seals.own_position, checkpoint_position, &mut |change| {
        if Some(change.replica) != own {
            seals.push(name, namespace, change);
        }
    })?;
    Ok(seals)
}

/// What has been replayed.
pub(crate) struct Replayed {
    pub(crate) next_position: u64,
    pub(crate) byte_count: usize,
}

/// Joins the log from a checkpoint on, judged by the rights where there are any, and hashes what
/// others wrote there.
pub(crate) fn replay(
    namespace: &mut Namespace,
    seals: &mut Seals,
    (name, id): (&str, NamespaceId),
    storage: &dyn Storage,
    own_key: &ReplicaKey,
    checkpoint: Checkpoint,
    rights: Option<&Rights>,
) -> Result<Replayed> {
    let own = namespace.replicas().find(own_key);
    let mut replayed = Replayed { next_position: checkpoint.position, byte_count: 0 };
    let mut failure = None;
    let to = layout::log(id, u64::MAX);
    storage.scan(&layout::log(id, checkpoint.position), &to, &mut |key, record| {
        replayed.next_position = layout::trailing_u64(key) + 1;
        replayed.byte_count += record.len();
        let replayed = replay_record(namespace, id, storage, record, |namespace, change| {
            if let Some(rights) = rights {
                set_aside_if_not_covered(rights, namespace, change);
            }
            if Some(change.replica) != own {
                seals.push(name, namespace, change);
            }
        });
        failure = replayed.err();
        failure.is_none()
    })?;
    failure.map_or(Ok(replayed), Err)
}

pub(crate) fn unknown_replica() -> Error {
    Error::damaged("a log record names a replica that is not in the directory")
}

fn replay_record(
    namespace: &mut Namespace,
    id: NamespaceId,
    storage: &dyn Storage,
    record: &[u8],
    mut see: impl FnMut(&mut Namespace, &Change<'_>),
) -> Result<()> {
    let mut reader = Reader::new(record);
    while !reader.is_empty() {
        let change = Change::read_log_record(&mut reader)
            .map_err(|what| Error::damaged(format!("a log record: {what}")))?;
        if change.replica as usize >= namespace.replicas().keys().len() {
            return Err(unknown_replica());
        }
        see(namespace, &change);
        namespace.apply_own(&change, &mut StoredChunks::of_storage(storage, id), &mut ())?;
    }
    Ok(())
}
