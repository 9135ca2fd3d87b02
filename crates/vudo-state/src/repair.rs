//! Mending what is damaged from what is not.
//!
//! The log holds every change that the state refers to, so the tables can always be made of it: what
//! is damaged of them is thrown away with the rest of them, and opening the namespace joins the log
//! again, as it does after a crash. What else can be computed is computed. Damage to the log itself,
//! and to what says who signed it, can only be mended by a store that has the same: those places are
//! named, and left alone. `cut.rs` makes room for what other stores have.

use std::collections::BTreeSet;
use std::ops::Range;

use vudo_crdt::{GenIndex, ReplicaIndex, TablePart};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::layout::{self, Checkpoint, NamespaceId};
use crate::recovery::{StoredLog, table_checkpoint, visit_changes};
use crate::storage::WriteBatch;
use crate::verify::VerifyReport;

/// What a repair has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was damaged and is whole again.
    pub repaired: Vec<String>,
    /// What is damaged still: each place, and what is wrong with it.
    pub left: Vec<String>,
}

impl Database {
    /// Mends what is damaged as far as this store has what it takes: tables from the log, and what
    /// can be computed. Looks through the whole store first. Namespaces that are damaged must not be
    /// in use: nobody may hold a subscription, a live query, an outbox or a replication of them.
    ///
    /// # Errors
    /// The disk failed, or [`Error::NamespaceInUse`]. Nothing has been repaired of that namespace.
    pub fn repair(&self) -> Result<RepairReport> {
        self.flush()?;
        let mut report = RepairReport::default();
        let (mut damaged, _) = self.damaged_entries();
        for (name, id) in self.namespace_ids()? {
            self.repair_namespace(&name, id, &mut damaged, &mut report)?;
        }
        let (damaged, of_pages) = self.damaged_entries();
        report.left.extend(of_pages);
        for key in damaged {
            report.left.push(format!("the entry {}: its checksum differs", key.escape_ascii()));
        }
        Ok(report)
    }

    /// The keys of damaged entries, and what is wrong with the pages that they lie in.
    pub(crate) fn damaged_entries(&self) -> (BTreeSet<Vec<u8>>, Option<String>) {
        let mut damaged = BTreeSet::new();
        let checked = self.storage().verify(&mut |key| {
            damaged.insert(key.to_vec());
        });
        (damaged, checked.err().map(|error| format!("the pages: {error}")))
    }

    fn repair_namespace(
        &self,
        name: &str,
        id: NamespaceId,
        damaged: &mut BTreeSet<Vec<u8>>,
        report: &mut RepairReport,
    ) -> Result<()> {
        let (of_namespace, of_others) = std::mem::take(damaged)
            .into_iter()
            .partition(|key| layout::namespace_of(key) == Some(id));
        *damaged = of_others;
        let mut of_namespace: BTreeSet<Vec<u8>> = of_namespace;
        let mut tables = VerifyReport::default();
        self.verify_tables(name, id, &mut tables);
        let has_damaged_tables =
            !tables.damages.is_empty() || of_namespace.iter().any(|key| layout::is_of_tables(key));
        if !has_damaged_tables && of_namespace.is_empty() {
            return Ok(());
        }
        let floor = Floor::read(name, id, self.storage());
        let mut log = VerifyReport::default();
        if let Ok(floor) = &floor {
            self.verify_log(name, id, floor.as_ref(), &mut log);
        }
        let is_log_whole = floor.is_ok() && log.damages.is_empty();
        report.left.append(&mut log.damages);
        let repaired = self.while_closed(name, || {
            let (mut batch, mut repaired) = (WriteBatch::default(), Vec::new());
            if has_damaged_tables && is_log_whole {
                self.forget_tables(name, id, &of_namespace, &mut batch)?;
                of_namespace.retain(|key| !layout::is_of_tables(key));
                repaired.append(&mut tables.damages);
            }
            for key in [layout::hashes(id), layout::acknowledged(id), layout::cursors(id)] {
                if is_log_whole && of_namespace.remove(&key) {
                    // The first is hashed again, without the second the outbox says too much, and without
                    // the third sessions begin with more bytes.
                    repaired.push(format!("namespace '{name}', the entry {}", key.escape_ascii()));
                    batch.remove(key);
                }
            }
            if is_log_whole && of_namespace.iter().any(|key| layout::is_log_index(key)) {
                let above = floor.as_ref().ok().and_then(|floor| floor.as_ref());
                let first = above.map_or(0, |floor| floor.position);
                self.index_log(name, id, first..u64::MAX, &mut batch)?;
                of_namespace.retain(|key| !layout::is_log_index(key));
                repaired.push(format!("namespace '{name}', the places of changes in its log"));
            }
            self.storage().commit(&batch)?;
            Ok(repaired)
        })?;
        report.left.append(&mut tables.damages);
        if !repaired.is_empty() {
            self.in_namespace(name).shard()?.write_out(0)?;
            report.repaired.extend(repaired);
        }
        Ok(())
    }

    /// Removes the tables of a namespace, so that opening it makes them of the log.
    pub(crate) fn forget_tables(
        &self,
        name: &str,
        id: NamespaceId,
        damaged: &BTreeSet<Vec<u8>>,
        batch: &mut WriteBatch,
    ) -> Result<()> {
        let stored = self.stored_namespace(id, &mut Vec::new()).map_err(Error::damaged)?;
        let Some(namespace) = stored else { return Ok(()) };
        for gen_index in 0..namespace.gen_names().len() as GenIndex {
            for part in TablePart::ALL {
                batch.remove(layout::table(id, gen_index, part));
                batch.remove(layout::buffer(id, gen_index, part));
            }
        }
        for chunk in namespace.stored_chunks() {
            batch.remove(layout::chunk(id, chunk));
        }
        damaged.iter().filter(|key| layout::is_of_tables(key)).for_each(|key| {
            batch.remove(key.clone());
        });
        // Chunks of a table whose directory is damaged are left over: the next compaction finds them.
        batch.put(layout::compacting(id), Vec::new());
        let next_chunk = table_checkpoint(name, id, self.storage()).unwrap_or_default().next_chunk;
        batch.put(layout::checkpoint(id), Checkpoint { position: 0, next_chunk }.encode());
        Ok(())
    }

    /// Writes anew where in the log the numbers of each replica are, of these positions.
    pub(crate) fn index_log(
        &self,
        name: &str,
        id: NamespaceId,
        positions: Range<u64>,
        batch: &mut WriteBatch,
    ) -> Result<()> {
        let log = StoredLog { storage: self.storage(), id, name };
        log.visit_records(positions.start, positions.end, usize::MAX, &mut |position, record| {
            let mut last_numbers: Vec<(ReplicaIndex, u64)> = Vec::new();
            visit_changes(name, record, &mut |change| {
                last_numbers.retain(|(replica, _)| *replica != change.replica);
                last_numbers.push((change.replica, change.number));
                Ok(())
            })?;
            for (replica, number) in last_numbers {
                let key = layout::log_index(id, replica, number);
                batch.put(key, position.to_be_bytes().to_vec());
            }
            Ok(())
        })?;
        Ok(())
    }
}
