//! Retention: which changes the state at a checkpoint still refers to, and earlier states from what
//! is retained.
//!
//! A change below a checkpoint has an owner's word that it is judged for good. The state at the
//! checkpoint needs it where it is the one that made a document's life what it is, whose value a
//! register has, whose total is a counter's entry, or by which the state knows that others' writes to
//! an `mv_register` or a set's element are covered; and in every case that this version knows no
//! better. Joining only what is needed gives the state at the checkpoint again, because what is left
//! out is less than what is there in every cell it touches.
//!
//! It has to be the state *at* the checkpoint: a value that was superseded above it is needed again
//! if what superseded it is set aside.
//!
//! What is retained below a checkpoint goes to others in frames with gaps.

use alloc::vec::Vec;

use crate::change::{self, Change, DocumentChange, GenIndex, Operation};
use crate::dots::{Entries, covers};
use crate::frame::Frame;
use crate::namespace::{Namespace, rewrite_gens};
use crate::replica::{REPLICA_KEY_BYTES, ReplicaIndex, ReplicaKey, VersionVector};
use crate::row::{Row, entry_key};
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

    /// Visits the changes of a frame with the indexes of this namespace, which takes in the replicas and
    /// Gens that it does not know. Joins none of them, and does not mind gaps between their numbers.
    /// Gives whether there was room for the frame's Gens; if not, nothing is visited.
    ///
    /// # Errors
    /// What the visitor refuses; no further change is visited then.
    pub fn visit_frame<E>(
        &mut self,
        frame: &Frame<'_>,
        mut visit: impl FnMut(&mut Namespace, &Change<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let new_gen_count = frame.gens.iter().filter(|name| self.is_new_gen(name)).count();
        if !self.has_room_for_gens(new_gen_count) {
            return Ok(false);
        }
        let intern = |name: &&[u8]| self.intern_gen_bytes(name).unwrap_or_default();
        let gens: Vec<GenIndex> = frame.gens.iter().map(intern).collect();
        let replicas: Vec<ReplicaIndex> =
            frame.keys.iter().map(|key| self.intern_replica_bytes(key)).collect();
        let mut body = Vec::new();
        for change in frame.changes() {
            body.clear();
            rewrite_gens(&change, &gens, &mut body);
            let replica = replicas[change.replica as usize];
            visit(self, &Change { replica, body: &body, ..change })?;
        }
        Ok(true)
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
        let (keys, mut documents) = change::split_body(change.body);
        let mut references = alloc::vec![Some(change.replica)];
        references.extend(keys.chunks_exact(REPLICA_KEY_BYTES).map(|key| {
            let key = key.try_into().ok()?;
            self.replicas().find(&ReplicaKey(key))
        }));
        while !documents.is_empty() {
            let document = DocumentChange::read(&mut documents);
            if self.row_refers_to(&document, change, &references, source)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The same of what a change does to one document, or to one entry of a collection.
    fn row_refers_to<S: ChunkSource>(
        &mut self,
        document: &DocumentChange<'_>,
        change: &Change<'_>,
        references: &[Option<ReplicaIndex>],
        source: &mut S,
    ) -> Result<bool, ChunkError<S::Error>> {
        let DocumentChange { gen_index, key, life, .. } = *document;
        let Some(row) = self.row(gen_index, key, source)? else { return Ok(true) };
        if life != row.life {
            // An earlier life has ended. A later one would mean that the change is not in the state.
            return Ok(life > row.life);
        }
        // The element of a set has no life, and nobody who began it.
        let is_named = life != 0 && change.has_written(&row.stamp.decode());
        let mut operations = document.operations(change.now);
        if is_named
            || operations.any(|operation| cell_refers_to(&row, &operation, change, references))
        {
            return Ok(true);
        }
        for operation in document.operations(change.now).filter(|it| it.id.is_collection()) {
            let mut entries = change::Entries::of(operation.value);
            let mut is_empty = true;
            while entries.advance() {
                is_empty = false;
                let key = entry_key(key, operation.id, entries.entry.key);
                let entry = DocumentChange { gen_index, key: &key, ..entries.entry };
                if self.row_refers_to(&entry, change, references, source)? {
                    return Ok(true);
                }
            }
            // What was added and removed in one change leaves the cell behind, which then nobody
            // else may have written.
            if is_empty {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a cell refers to the change by an operation on it, apart from entries in it.
fn cell_refers_to(
    row: &Row<'_>,
    operation: &Operation<'_>,
    change: &Change<'_>,
    references: &[Option<ReplicaIndex>],
) -> bool {
    let Some(cell) = row.cell(operation.id) else { return true };
    if operation.id.is_counter() {
        return Entries::of(cell.state).find(change.replica).written == change.number;
    }
    if operation.id.is_mv_register() {
        let own = Entries::of(cell.state).find(change.replica);
        let has_written = own.is_live() && own.written == change.number;
        return has_written
            || covers(operation.value).into_iter().any(|(reference, number)| {
                // A reference to somebody who is not known here is none of this state's.
                let covered = |replica| Entries::of(cell.state).find(replica).covered;
                references[reference as usize].is_none_or(|replica| covered(replica) == number)
            });
    }
    match Strategy::from_tag(operation.id.tag()) {
        Some(Strategy::Immutable | Strategy::Lww | Strategy::LwwContent) => {
            change.has_written(&cell.stamp.decode())
        }
        // The cell only says that there are entries, each of which is looked at on its own.
        Some(Strategy::OrSet | Strategy::Map) => false,
        // What a cell of a later version needs is not known here.
        _ => true,
    }
}
