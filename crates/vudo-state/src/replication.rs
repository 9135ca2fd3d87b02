//! One namespace as the sync layer sees it. Every call may touch the disk and so block.

use std::sync::Arc;

use vudo_crdt::{Applied, Fingerprint, FrameWriter, ReplicaKey, VersionVector};

use crate::database::Database;
use crate::error::Result;
use crate::shard::{ListenerGuard, Shard};

/// One namespace of an open store, for a sync layer.
#[derive(Clone)]
pub struct Replication {
    shard: Arc<Shard>,
    /// Keeps the store open.
    _database: Database,
}

/// Changes on their way to a peer.
#[derive(Clone, Debug)]
pub struct OutgoingFrame {
    /// The frame.
    pub bytes: Vec<u8>,
    /// What the peer holds once it has applied the frame.
    pub vector: VersionVector,
    /// How many changes the frame carries.
    pub changes: u64,
}

impl Replication {
    pub(crate) fn new(shard: Arc<Shard>, database: Database) -> Replication {
        Replication { shard, _database: database }
    }

    /// The namespace's name.
    pub fn namespace(&self) -> &str {
        &self.shard.name
    }

    /// What is held and on disk: what may be announced and sent.
    pub fn durable_vector(&self) -> VersionVector {
        self.shard.durable_vector()
    }

    /// A frame of durable changes that `since` does not cover; `None` where it covers them all.
    /// The frame ends after the change that takes it past `bytes_max`.
    ///
    /// # Errors
    /// The disk failed.
    pub fn frame_since(
        &self,
        since: &VersionVector,
        bytes_max: usize,
    ) -> Result<Option<OutgoingFrame>> {
        if since.covers(&self.shard.durable_vector()) {
            return Ok(None);
        }
        let (keys, gen_names) = {
            let namespace = &self.shard.lock().namespace;
            let gen_names: Vec<String> = namespace.gen_names().map(str::to_owned).collect();
            (namespace.replicas().keys().to_vec(), gen_names)
        };
        let mut writer = FrameWriter::new(&keys, gen_names.iter());
        let mut vector = since.clone();
        let mut reached = vec![0; keys.len()];
        self.shard.visit_log(since, |change| {
            // Replicas and Gens only grow, so what is on disk now may name newer ones; they wait.
            if change.replica as usize >= keys.len() {
                return false;
            }
            writer.push(change);
            reached[change.replica as usize] = change.number;
            writer.byte_count() < bytes_max
        })?;
        keys.iter().zip(reached).for_each(|(key, number)| vector.advance(*key, number));
        let changes = writer.change_count();
        Ok((changes > 0).then(|| OutgoingFrame { bytes: writer.finish(), vector, changes }))
    }

    /// Applies a peer's frame; what it brought is on disk when this returns.
    ///
    /// # Errors
    /// The frame is malformed or leaves out changes, which is the peer's fault, or the disk failed.
    pub fn apply_frame(&self, frame: &[u8]) -> Result<Applied> {
        self.shard.apply_frame(frame)
    }

    /// Notes what a peer has said is durable there, for the [`crate::Outbox`]. The number goes to
    /// disk with the next commit.
    pub fn record_durable(&self, peer: ReplicaKey, durable: &VersionVector) {
        // A peer that claims more than there is would acknowledge what is still to be written.
        let written = self.shard.durable_vector();
        self.shard.acknowledgements.record(peer, durable, &written);
    }

    /// The fingerprint of the state, and the vector of the changes that it reflects.
    ///
    /// # Errors
    /// The disk failed.
    pub fn fingerprint(&self) -> Result<(VersionVector, Fingerprint)> {
        self.shard.fingerprint()
    }

    /// Calls back whenever more has become durable, until the guard is dropped. The callback
    /// must return at once and must not use the store.
    pub fn on_durable(&self, callback: impl Fn() + Send + Sync + 'static) -> ListenerGuard {
        self.shard.durable_listeners.add(callback)
    }
}
