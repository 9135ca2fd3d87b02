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

/// Which of a frame's Gens changes write to, by their indexes there.
pub(crate) struct WrittenGens {
    is_written: Vec<bool>,
}

impl WrittenGens {
    pub(crate) fn none_of(frame: &Frame<'_>) -> WrittenGens {
        WrittenGens { is_written: vec![false; frame.gens.len()] }
    }

    pub(crate) fn add(&mut self, change: &Change<'_>) {
        let mut documents = change::documents(change.body);
        while !documents.is_empty() {
            let DocumentChange { gen_index, .. } = DocumentChange::read(&mut documents);
            self.is_written[gen_index as usize] = true;
        }
    }
}

impl Frame<'_> {
    /// Checks that each Gen that the frame names is one that some change in it writes to, as
    /// [`crate::FrameWriter`] has it. [`crate::SignedFrame::parse`] has checked it.
    ///
    /// # Errors
    /// [`MalformedFrame::UnusedName`] where there is another.
    pub fn check_names(&self) -> Result<(), MalformedFrame> {
        let mut written = WrittenGens::none_of(self);
        // A change writes to one Gen at least.
        let mut changes = self.changes().take(if self.gens.len() > 1 { usize::MAX } else { 1 });
        changes.by_ref().for_each(|change| written.add(&change));
        let all_are = written.is_written.iter().all(|is_written| *is_written);
        if all_are { Ok(()) } else { Err(MalformedFrame::UnusedName) }
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
        let mut written = WrittenGens::none_of(frame);
        let heard: Vec<u64> = frame.keys.iter().map(|key| self.heard_of(key)).collect();
        for change in frame.changes() {
            if change.number > heard[change.replica as usize] {
                written.add(&change);
            }
        }
        let pairs = || is_new.iter().zip(&written.is_written);
        let added_count = pairs().filter(|(is_new, is_written)| **is_new && **is_written).count();
        if self.gens.len() + added_count > MAX_GENS {
            return Err(ApplyError::TooManyGens);
        }
        Ok(pairs().map(|(is_new, is_written)| *is_new && !*is_written).collect())
    }
}
