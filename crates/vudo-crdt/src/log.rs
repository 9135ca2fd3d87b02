//! A log in memory: every change in its bytes, in the order in which it was applied.

use alloc::vec::Vec;

use crate::change::Change;
use crate::frame::{FrameEncoder, finish_frame};
use crate::namespace::{Namespace, Observer};
use crate::replica::VersionVector;
use crate::wire::{MalformedFrame, Reader};

/// Every change that a namespace has applied. As an [`Observer`] it appends what is applied.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// One record after the other.
    records: Vec<u8>,
}

impl Observer for Log {
    const SEES_ROWS: bool = false;

    fn change(&mut self, change: &Change<'_>) {
        change.write_log_record(&mut self.records);
    }
}

impl Log {
    /// A log without changes.
    pub const fn new() -> Log {
        Log { records: Vec::new() }
    }

    /// How many changes the log holds, which it counts.
    pub fn change_count(&self) -> usize {
        self.changes().count()
    }

    /// The changes in the order in which they were applied.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut reader = Reader::new(&self.records);
        // At the end there is no record to read; before it the log wrote every one itself.
        core::iter::from_fn(move || Change::read_log_record(&mut reader).ok())
    }

    /// Drops the changes that are not to be retained.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn retain(&mut self, mut is_retained: impl FnMut(&Change<'_>) -> bool) {
        let mut records = Vec::new();
        for change in self.changes().filter(|change| is_retained(change)) {
            change.write_log_record(&mut records);
        }
        self.records = records;
    }

    /// A frame of the changes that `since` does not cover. The namespace is the log's own.
    pub fn frame_since(&self, namespace: &Namespace, since: &VersionVector) -> Vec<u8> {
        let keys = namespace.replicas().keys();
        let covered: Vec<u64> = keys.iter().map(|key| since.get(key)).collect();
        self.frame_above(namespace, &covered)
    }

    /// A frame of the changes numbered above what is covered of their replica, by replica index:
    /// see [`Namespace::covered_by`].
    pub fn frame_above(&self, namespace: &Namespace, covered: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_frame_above(namespace, covered, &mut out);
        out
    }

    /// Appends a frame of the changes that the bytes of a version vector do not cover.
    ///
    /// # Errors
    /// As for [`VersionVector::decode`]; nothing is appended then.
    pub fn write_frame_since(
        &self,
        namespace: &Namespace,
        vector: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), MalformedFrame> {
        let mut covered = Vec::new();
        namespace.write_covered(vector, &mut covered)?;
        self.write_frame_above(namespace, &covered, out);
        Ok(())
    }

    fn write_frame_above(&self, namespace: &Namespace, covered: &[u64], out: &mut Vec<u8>) {
        let keys = namespace.replicas().keys();
        let names = namespace.gens.iter().map(|gen_table| gen_table.name.as_slice());
        let mut encoder = FrameEncoder::begin(keys.len(), names, out);
        let mut reader = Reader::new(&self.records);
        while !reader.is_empty() {
            let change = Change::read(&mut reader);
            if change.number > covered[change.replica as usize] {
                encoder.push(&change, keys, out);
            }
        }
        finish_frame(out);
    }
}
