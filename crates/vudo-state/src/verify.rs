//! Looking through a whole store for damage, and naming what is damaged.
//!
//! Damage is told wherever it is read, so nothing here is needed for safety; this finds it before
//! it is needed. It goes on after what it finds: one damaged chunk says nothing about its neighbours.

use vudo_crdt::merkle::{MerkleLog, leaf_hash};
use vudo_crdt::{
    Change, ChunkError, GenIndex, Namespace, ReplicaIndex, ReplicaKey, Seal, wire::Reader,
};

use crate::cut::LastNumbers;
use crate::database::Database;
use crate::error::Result;
use crate::floor::{Floor, ReplicaLog};
use crate::history::is_signature;
use crate::layout::{self, NamespaceId};
use crate::recovery::{StoredLog, stored_table, unknown_replica, visit_changes};
use crate::seals::{Seals, for_each_segment};
use crate::stored_chunks::StoredChunks;

/// What a look through a store has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Namespaces that were looked at.
    pub namespaces: u64,
    /// Rows of documents that were read, deleted ones among them.
    pub documents: u64,
    /// Changes that were read.
    pub changes: u64,
    /// Signatures under the log that were checked.
    pub signatures: u64,
    /// Each damage: where it is, and what.
    pub damages: Vec<String>,
}

impl Database {
    /// Reads everything that is on disk and checks it.
    ///
    /// # Errors
    /// The disk failed in a way that kept it from being read. Damage is no error: it is reported.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.write_out()?;
        let mut report = VerifyReport::default();
        let mut damages = Vec::new();
        let checked = self.storage().verify(&mut |key| {
            // Chunks are named by their documents, below.
            if !layout::is_chunk(key) {
                damages.push(format!("the entry {}: its checksum differs", key.escape_ascii()));
            }
        });
        report.damages.extend(damages);
        if let Err(error) = checked {
            report.damages.push(format!("the pages: {error}"));
        }
        for (name, id) in self.namespace_ids()? {
            report.namespaces += 1;
            let floor = Floor::read(&name, id, self.storage()).unwrap_or_else(|error| {
                report.damages.push(error.to_string());
                None
            });
            self.verify_log(&name, id, floor.as_ref(), &mut report);
            self.verify_tables(&name, id, &mut report);
            self.verify_seals(&name, id, floor.as_ref(), &mut report);
        }
        Ok(report)
    }

    pub(crate) fn verify_log(
        &self,
        name: &str,
        id: NamespaceId,
        floor: Option<&Floor>,
        report: &mut VerifyReport,
    ) {
        let mut last_numbers = LastNumbers::default();
        let mut damages = Vec::new();
        let (from, to) = (layout::log(id, 0), layout::log(id, u64::MAX));
        let scanned = self.storage().scan(&from, &to, &mut |key, record| {
            let position = layout::trailing_u64(key);
            let mut reader = Reader::new(record);
            while !reader.is_empty() {
                let change = match Change::read_log_record(&mut reader) {
                    Ok(change) => change,
                    Err(what) => {
                        damages.push(format!("log record {position}: {what}"));
                        break;
                    }
                };
                report.changes += 1;
                let (number, replica) = (change.number, change.replica);
                if let Err(last) = last_numbers.follow(&change, floor) {
                    damages.push(format!(
                        "log record {position}: change {number} of replica {replica} follows on \
                         {last}"
                    ));
                }
            }
            true
        });
        if let Err(error) = scanned {
            damages.push(format!("the log: {error}"));
        }
        let located = |damage| format!("namespace '{name}', {damage}");
        report.damages.extend(damages.into_iter().map(located));
    }

    pub(crate) fn verify_tables(&self, name: &str, id: NamespaceId, report: &mut VerifyReport) {
        let mut damages = Vec::new();
        match self.stored_namespace(id, &mut damages) {
            Err(what) => damages.push(what),
            Ok(None) => {}
            Ok(Some(namespace)) => {
                let mut chunks = StoredChunks::of_storage(self.storage(), id);
                let gen_names: Vec<String> = namespace.gen_names().map(str::to_owned).collect();
                for (gen_index, gen_name) in gen_names.iter().enumerate() {
                    namespace.visit_chunks(
                        gen_index as GenIndex,
                        &mut chunks,
                        |first_key, chunk| match chunk {
                            Ok(row_count) => report.documents += row_count as u64,
                            Err(error) => damages.push(format!(
                                "Gen {gen_name}, the documents from '{}' on: {}",
                                first_key.escape_ascii(),
                                words_of(&error)
                            )),
                        },
                    );
                }
            }
        }
        let located = |damage| format!("namespace '{name}', {damage}");
        report.damages.extend(damages.into_iter().map(located));
    }

    /// Hashes the whole log, and checks every signature under it.
    fn verify_seals(
        &self,
        name: &str,
        id: NamespaceId,
        floor: Option<&Floor>,
        report: &mut VerifyReport,
    ) {
        // What is wrong with the directory has been told.
        let Ok(Some(namespace)) = self.stored_namespace(id, &mut Vec::new()) else { return };
        let mut damages = Vec::new();
        let mut seals = Seals::default();
        if let Some(floor) = floor {
            match self.verify_floor(name, id, floor, &namespace, &mut damages) {
                Ok(logs) => seals.logs = logs,
                Err(error) => damages.push(error.to_string()),
            }
            report.signatures += 1 + floor.seals.len() as u64;
        }
        let mut segments = Vec::new();
        let read = for_each_segment(id, self.storage(), 0, u64::MAX, |end, segment| {
            segments.push((end, segment));
            true
        });
        if let Err(error) = read {
            damages.push(error.to_string());
        }
        let log = StoredLog { storage: self.storage(), id, name };
        let first = floor.map_or(0, |floor| floor.position);
        let mut start = first;
        // Of those below the floor a compaction that was interrupted may have left some.
        for (end, segment) in segments.into_iter().filter(|(end, _)| *end >= first) {
            let hash = &mut |change: &Change<'_>| seals.push(name, &namespace, change);
            if log.visit_range(start, end + 1, hash).is_err() {
                // What is wrong with the log has been told, and nothing after it can be checked.
                break;
            }
            start = end + 1;
            for (replica, (number, seal)) in &segment.seals {
                report.signatures += 1;
                let key = *namespace.replicas().key(*replica);
                let log = seals.log(*replica);
                if !is_seal_of(name, key, log, *number, seal) {
                    damages.push(broken_seal(key, *number));
                }
            }
        }
        let located = |damage| format!("namespace '{name}', {damage}");
        report.damages.extend(damages.into_iter().map(located));
    }

    /// Checks that the retained changes below a floor, and the hashes in place of the others, are
    /// what the checkpoint is of. Gives the logs there, by replica index.
    fn verify_floor(
        &self,
        name: &str,
        id: NamespaceId,
        floor: &Floor,
        namespace: &Namespace,
        damages: &mut Vec<String>,
    ) -> Result<Vec<MerkleLog>> {
        if !floor.signed.holds(is_signature) {
            damages.push("the signature of the checkpoint does not hold".to_owned());
        }
        let keys = namespace.replicas().keys();
        let mut replica_logs = Vec::new();
        for replica in 0..keys.len() as ReplicaIndex {
            replica_logs.push(ReplicaLog::open(id, replica, self.storage())?);
        }
        let log = StoredLog { storage: self.storage(), id, name };
        log.visit_records(0, floor.position, usize::MAX, &mut |_, record| {
            visit_changes(name, record, &mut |change| {
                let replica_log = replica_logs.get_mut(change.replica as usize);
                let replica_log = replica_log.ok_or_else(unknown_replica)?;
                if replica_log.is_next(change.number)? {
                    replica_log.take(leaf_hash(name, namespace, change), false)?;
                }
                Ok(())
            })
        })?;
        let mut logs = Vec::new();
        let of_checkpoint = &floor.signed.checkpoint.logs;
        for (replica, (replica_log, key)) in (0..).zip(replica_logs.into_iter().zip(keys)) {
            let (log, _) = replica_log.finish()?;
            let signed = of_checkpoint.binary_search_by_key(key, |(key, _)| *key);
            let expected =
                signed.map_or_else(|_| MerkleLog::new(), |at| of_checkpoint[at].1.clone());
            if log != expected {
                damages.push(format!("the log of replica {key} is not that of the checkpoint"));
            }
            if let Some((number, seal)) = floor.seals.get(&replica)
                && !is_seal_of(name, *key, &expected, *number, seal)
            {
                damages.push(broken_seal(*key, *number));
            }
            logs.push(expected);
        }
        Ok(logs)
    }

    /// The namespace as its directories on disk have it.
    pub(crate) fn stored_namespace(
        &self,
        id: NamespaceId,
        damages: &mut Vec<String>,
    ) -> std::result::Result<Option<Namespace>, String> {
        let read = |key: &[u8]| self.storage().get(key).map_err(|error| error.to_string());
        let Some(directory) = read(&layout::directory(id))? else {
            return Ok(None);
        };
        let tables = |gen_index, part| {
            let stored = stored_table(self.storage(), id, gen_index, part);
            stored.unwrap_or_else(|error| {
                damages.push(format!("the directory of table {gen_index}: {error}"));
                None
            })
        };
        let opened = Namespace::open(&directory, tables, 0);
        opened.map(Some).map_err(|what| format!("its directory: {what}"))
    }
}

/// Whether a seal is its replica's, on this log.
fn is_seal_of(name: &str, key: ReplicaKey, log: &MerkleLog, number: u64, seal: &Seal) -> bool {
    let is_of_log = log.length() == number && log.root() == seal.root;
    is_of_log && seal.head(name, key, number).holds(is_signature)
}

fn broken_seal(key: ReplicaKey, number: u64) -> String {
    format!("the signature of replica {key} under its changes up to number {number} does not hold")
}

fn words_of(error: &ChunkError<crate::storage::StorageError>) -> String {
    match error {
        ChunkError::Source(error) => error.to_string(),
        damaged @ ChunkError::Damaged { .. } => damaged.to_string(),
    }
}
