//! Blame: who wrote what a field shows, when, and what it beat, as far as that is retained.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::change::{self, DocumentChange, GenIndex};
use crate::dots::Entries;
use crate::hlc::Hlc;
use crate::namespace::Namespace;
use crate::replica::ReplicaIndex;
use crate::row::{Cell, CellId};
use crate::set_aside::{JudgeError, LogSource};
use crate::source::ChunkSource;

/// A write to one field of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldWrite {
    /// Who wrote.
    pub replica: ReplicaIndex,
    /// The number of the writer's change.
    pub number: u64,
    /// When: the time of the write, of a counter the time of the change.
    pub hlc: Hlc,
    /// The life of the document that was written to.
    pub life: u64,
    /// What was written, in its bytes: a value, or of a counter the writer's total.
    pub value: Vec<u8>,
    /// Whether the field shows it: the value of a register, or a part of a counter's sum.
    pub is_current: bool,
    /// Whether the change is set aside, so that the write has no effect.
    pub is_set_aside: bool,
}

impl Namespace {
    /// Every write to a field of a document that the log retains, the latest first; of equal times
    /// the one of the greater replica key first. What a field shows is always among them where the
    /// document came with its changes; where it came in pages, the writer of a register's value is
    /// known all the same.
    ///
    /// # Errors
    /// The log or a chunk could not be read.
    pub fn blame<L: LogSource, S: ChunkSource>(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        id: CellId,
        log: &mut L,
        source: &mut S,
    ) -> Result<Vec<FieldWrite>, JudgeError<L::Error, S::Error>> {
        self.load(gen_index, key, source).map_err(JudgeError::Chunk)?;
        let row = self.loaded_row(gen_index, key);
        let shown = row.and_then(|row| row.cell(id).map(|cell| (row.life, cell)));
        let mut writes: Vec<FieldWrite> = Vec::new();
        log.visit(&mut |change| {
            let mut documents = change::documents(change.body);
            while !documents.is_empty() {
                let document = DocumentChange::read(&mut documents);
                if document.gen_index != gen_index || document.key != key {
                    continue;
                }
                for operation in document.operations(change.now) {
                    if operation.id == id {
                        writes.push(FieldWrite {
                            replica: change.replica,
                            number: change.number,
                            hlc: operation.hlc,
                            life: document.life,
                            value: Vec::from(operation.value),
                            is_current: false,
                            is_set_aside: self.set_aside(change.replica).contains(change.number),
                        });
                    }
                }
            }
        })
        .map_err(JudgeError::Log)?;
        if let Some((life, cell)) = shown {
            for write in &mut writes {
                write.is_current =
                    write.life == life && !write.is_set_aside && is_shown(&cell, write);
            }
            if id.has_stamp() && writes.iter().all(|write| !write.is_current) {
                let stamp = cell.stamp.decode();
                writes.push(FieldWrite {
                    replica: stamp.replica,
                    number: stamp.number,
                    hlc: stamp.hlc,
                    life,
                    value: Vec::from(cell.state),
                    is_current: true,
                    is_set_aside: false,
                });
            }
        }
        writes.sort_by(|left, right| self.compare_writes(right, left));
        Ok(writes)
    }

    fn compare_writes(&self, left: &FieldWrite, right: &FieldWrite) -> Ordering {
        let key = |write: &FieldWrite| self.replicas().key(write.replica);
        (left.life, left.hlc, key(left), left.number).cmp(&(
            right.life,
            right.hlc,
            key(right),
            right.number,
        ))
    }
}

/// Whether a cell shows what a write of its life wrote.
fn is_shown(cell: &Cell<'_>, write: &FieldWrite) -> bool {
    if cell.id.has_dots() {
        return Entries::of(cell.state).find(write.replica).written == write.number;
    }
    let stamp = cell.stamp.decode();
    (stamp.replica, stamp.number, stamp.hlc) == (write.replica, write.number, write.hlc)
}
