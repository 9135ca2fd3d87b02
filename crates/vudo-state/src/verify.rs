//! Looking through a whole store for damage, and naming what is damaged.
//!
//! Damage is told wherever it is read, so nothing here is needed for safety; this finds it before
//! it is needed. It goes on after what it finds: one damaged chunk says nothing about its neighbours.

use vudo_crdt::{Change, ChunkError, GenIndex, Namespace, ReplicaIndex, wire::Reader};

use crate::database::Database;
use crate::error::Result;
use crate::layout::{self, NamespaceId};
use crate::shard::{StoredChunks, stored_table};

/// What a look through a store has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Namespaces that were looked at.
    pub namespaces: u64,
    /// Rows of documents that were read, deleted ones among them.
    pub documents: u64,
    /// Changes that were read.
    pub changes: u64,
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
            self.verify_log(&name, id, &mut report);
            self.verify_tables(&name, id, &mut report);
        }
        Ok(report)
    }

    fn verify_log(&self, name: &str, id: NamespaceId, report: &mut VerifyReport) {
        let mut last_numbers: Vec<(ReplicaIndex, u64)> = Vec::new();
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
                let known = last_numbers.iter_mut().find(|(found, _)| *found == change.replica);
                match known {
                    None => last_numbers.push((change.replica, change.number)),
                    Some((_, last)) if change.number == *last + 1 => *last = change.number,
                    Some((_, last)) => {
                        let (number, replica) = (change.number, change.replica);
                        let what = format!(
                            "log record {position}: change {number} of replica {replica} follows \
                             on {last}"
                        );
                        damages.push(what);
                        *last = number;
                    }
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

    fn verify_tables(&self, name: &str, id: NamespaceId, report: &mut VerifyReport) {
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

    /// The namespace as its directories on disk have it.
    fn stored_namespace(
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

fn words_of(error: &ChunkError<crate::storage::StorageError>) -> String {
    match error {
        ChunkError::Source(error) => error.to_string(),
        damaged @ ChunkError::Damaged { .. } => damaged.to_string(),
    }
}
