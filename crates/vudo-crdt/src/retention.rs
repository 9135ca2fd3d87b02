//! Retention: which changes the state at a checkpoint still refers to, and earlier states from what
//! is retained.
//!
//! A change below a checkpoint has an owner's word that it is judged for good. The state at the
//! checkpoint needs it where it is the one that made a document's life what it is, whose value a
//! register has, or whose total is a counter's entry; and in every case that this version knows no
//! better. Joining only what is needed gives the state at the checkpoint again, because what is left
//! out is less than what is there in every cell it touches.
//!
//! It has to be the state *at* the checkpoint: a value that was superseded above it is needed again
//! if what superseded it is set aside.

use alloc::vec::Vec;

use crate::change::{self, Change, DocumentChange, Operation};
use crate::dots::Entries;
use crate::namespace::Namespace;
use crate::replica::VersionVector;
use crate::row::{Row, Stamp};
use crate::schema::Strategy;
use crate::set_aside::LogSource;
use crate::source::{ChunkError, ChunkSource};

impl Namespace {
    /// The state that the effective changes up to a vector make, from a log that still has what it
    /// takes: one of everything, or one that a checkpoint at or below the vector has shortened. Its
    /// indexes are those of this namespace, and it is in memory as a whole.
    ///
    /// # Errors
    /// The log could not be read.
    pub fn at_version<L: LogSource>(
        &self,
        vector: &VersionVector,
        log: &mut L,
    ) -> Result<Namespace, L::Error> {
        let covered: Vec<u64> = self.replicas().keys().iter().map(|key| vector.get(key)).collect();
        let mut state = self.without_documents();
        log.visit(&mut |change| {
            let is_covered = change.number <= covered[change.replica as usize];
            if is_covered && !self.set_aside(change.replica).contains(change.number) {
                state.join_change(change, &mut ());
            }
        })?;
        Ok(state)
    }

    /// Whether a change has to be retained for the state of this namespace to be made again, which
    /// is the state at a checkpoint that covers the change. The change's indexes are the
    /// namespace's.
    ///
    /// # Errors
    /// A chunk could not be read.
    pub fn refers_to<S: ChunkSource>(
        &mut self,
        change: &Change<'_>,
        source: &mut S,
    ) -> Result<bool, ChunkError<S::Error>> {
        let is_set_aside = self.set_aside(change.replica).contains(change.number);
        if is_set_aside || cfg!(vudo_mutation = "needed_change_dropped") {
            return Ok(false);
        }
        let mut documents = change::documents(change.body);
        while !documents.is_empty() {
            let document = DocumentChange::read(&mut documents);
            let row = self.row(document.gen_index, document.key, source)?;
            if row.is_none_or(|row| row_refers_to(&row, &document, change)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn row_refers_to(row: &Row<'_>, document: &DocumentChange<'_>, change: &Change<'_>) -> bool {
    if document.life != row.life {
        // An earlier life has ended. A later one would mean that the change is not in the state.
        return document.life > row.life;
    }
    let is_of_change =
        |stamp: Stamp| stamp.replica == change.replica && stamp.number == change.number;
    if is_of_change(row.stamp.decode()) {
        return true;
    }
    document.operations(change.now).any(|operation: Operation<'_>| {
        let Some(cell) = row.cell(operation.id) else { return true };
        if operation.id.is_counter() {
            return Entries::of(cell.state).find(change.replica).written == change.number;
        }
        match Strategy::from_tag(operation.id.tag()) {
            Some(Strategy::Immutable | Strategy::Lww | Strategy::LwwContent) => {
                is_of_change(cell.stamp.decode())
            }
            // What more a cell of this kind needs is not known here.
            _ => true,
        }
    })
}
