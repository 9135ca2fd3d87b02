//! A log in memory: every change in its bytes, in the order in which it was applied.

use alloc::vec::Vec;

use crate::change::Change;
use crate::frame::FrameWriter;
use crate::hlc::Hlc;
use crate::namespace::{Namespace, Observer};
use crate::replica::{ReplicaIndex, VersionVector};

/// Every change that a namespace has applied. As an [`Observer`] it appends what is applied.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    bodies: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    replica: ReplicaIndex,
    number: u64,
    now: Hlc,
    body_end: usize,
}

impl Observer for Log {
    fn change(&mut self, change: &Change<'_>) {
        self.bodies.extend_from_slice(change.body);
        self.entries.push(Entry {
            replica: change.replica,
            number: change.number,
            now: change.now,
            body_end: self.bodies.len(),
        });
    }
}

impl Log {
    /// How many changes the log holds.
    pub fn change_count(&self) -> usize {
        self.entries.len()
    }

    /// The changes in the order in which they were applied.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let body = &self.bodies[start..entry.body_end];
            start = entry.body_end;
            Change { replica: entry.replica, number: entry.number, now: entry.now, body }
        })
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
        let names = namespace.gens.iter().map(|gen_table| gen_table.name.as_slice());
        let mut writer = FrameWriter::new(namespace.replicas().keys(), names);
        for change in self.changes() {
            if change.number > covered[change.replica as usize] {
                writer.push(&change);
            }
        }
        writer.finish()
    }
}
