//! What a frame brings in beside its changes: the Gens and the replicas that it names. A namespace has
//! bounded room for both, for what it once took in it keeps, and tells everybody.
//!
//! A frame names what its changes use and nothing else, and only what changes that are new here use is
//! taken in. So whoever fills a namespace up has to write that much.

use alloc::vec;
use alloc::vec::Vec;

use crate::change::{self, Change, DocumentChange};
use crate::frame::Frame;
use crate::limits::{MAX_GENS, MAX_VECTOR_REPLICAS, RESERVED_REPLICAS};
use crate::namespace::{ApplyError, Namespace};
use crate::replica::ReplicaKey;
use crate::wire::MalformedFrame;

/// Which of a frame's Gens no change has been seen to write to, by their indexes there.
struct UnwrittenGens {
    is_unwritten: Vec<bool>,
    count: usize,
}

impl UnwrittenGens {
    /// Looks for those that are asked for, and no further than it has to: usually the first change
    /// writes to all of them, and a frame is long.
    fn among<'f>(is_asked: Vec<bool>, changes: impl Iterator<Item = Change<'f>>) -> UnwrittenGens {
        let count = is_asked.iter().filter(|is_asked| **is_asked).count();
        let mut unwritten = UnwrittenGens { is_unwritten: is_asked, count };
        for change in changes {
            let mut documents = change::documents(change.body);
            while unwritten.count > 0 && !documents.is_empty() {
                let DocumentChange { gen_index, .. } = DocumentChange::read(&mut documents);
                let is_new = core::mem::take(&mut unwritten.is_unwritten[gen_index as usize]);
                unwritten.count -= usize::from(is_new);
            }
            if unwritten.count == 0 {
                break;
            }
        }
        unwritten
    }
}

impl Frame<'_> {
    /// Checks that each Gen that the frame names is one that some change in it writes to, as
    /// [`crate::FrameWriter`] has it. [`crate::SignedFrame::parse`] has checked it.
    ///
    /// # Errors
    /// [`MalformedFrame::UnusedName`] where there is another.
    pub fn check_names(&self) -> Result<(), MalformedFrame> {
        let unwritten = UnwrittenGens::among(vec![true; self.gens.len()], self.changes());
        if unwritten.count == 0 { Ok(()) } else { Err(MalformedFrame::UnusedName) }
    }
}

impl Namespace {
    /// Whether these replicas may be taken in, as far as nothing of them is held yet. A few places are
    /// kept for keys of the namespace's own store.
    pub fn has_room_for_replicas<'k>(&self, keys: impl Iterator<Item = &'k ReplicaKey>) -> bool {
        self.has_room_for_keys(keys.map(|key| key.0.as_slice()))
    }

    fn has_room_for_keys<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> bool {
        let new_count = keys.filter(|key| self.heard_of(key) == 0).count();
        // Counting those that are held is for the case that somebody new has written, which is rare.
        new_count == 0
            || self.heard_replica_count() + new_count <= MAX_VECTOR_REPLICAS - RESERVED_REPLICAS
    }

    /// How many replicas have written what is held.
    pub fn heard_replica_count(&self) -> usize {
        self.heard.iter().filter(|number| **number > 0).count()
    }

    /// Checks that there is room for the Gens and the replicas that new changes of a frame bring in.
    ///
    /// # Errors
    /// There is not.
    pub fn check_room<E>(&self, frame: &Frame<'_>) -> Result<(), ApplyError<E>> {
        self.gens_left_out(frame).map(|_| ())
    }

    /// Checks as [`Namespace::check_room`] does, and tells which of the frame's Gens stay unknown, since
    /// no change that is new here writes to them. Gives nothing where all are known or become so.
    pub(crate) fn gens_left_out<E>(&self, frame: &Frame<'_>) -> Result<Vec<bool>, ApplyError<E>> {
        if !self.has_room_for_keys(frame.keys.iter().copied()) {
            return Err(ApplyError::TooManyReplicas);
        }
        let is_new: Vec<bool> = frame.gens.iter().map(|name| self.is_new_gen(name)).collect();
        if !is_new.contains(&true) {
            return Ok(Vec::new());
        }
        let heard: Vec<u64> = frame.keys.iter().map(|key| self.heard_of(key)).collect();
        let new_count = is_new.iter().filter(|is_new| **is_new).count();
        let new_changes =
            frame.changes().filter(|change| change.number > heard[change.replica as usize]);
        let unwritten = UnwrittenGens::among(is_new, new_changes);
        if self.gens.len() + new_count - unwritten.count > MAX_GENS {
            return Err(ApplyError::TooManyGens);
        }
        Ok(unwritten.is_unwritten)
    }
}
