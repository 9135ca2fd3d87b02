//! One namespace as the sync layer sees it. Every call may touch the disk and so block. Inside a
//! transaction of the store, calls that can fail do so, and others panic.

use std::sync::Arc;

use vudo_crdt::{
    Applied, DifferentRows, Fingerprint, RangeSummaries, ReplicaKey, SessionKey, VersionVector,
};

use crate::database::Database;
use crate::error::Result;
use crate::listeners::ListenerGuard;
use crate::shard::Shard;

/// One namespace of an open store, for a sync layer.
#[derive(Clone)]
pub struct Replication {
    shard: Arc<Shard>,
    /// Keeps the store open.
    database: Database,
}

/// Changes on their way to a peer.
#[derive(Clone, Debug)]
pub struct OutgoingFrame {
    /// The frame, signed: see [`vudo_crdt::SignedFrame`].
    pub bytes: Vec<u8>,
    /// What the peer holds once it has applied the frame.
    pub vector: VersionVector,
    /// How many changes the frame carries.
    pub changes: u64,
}

impl Replication {
    pub(crate) fn new(shard: Arc<Shard>, database: Database) -> Replication {
        Replication { shard, database }
    }

    pub(crate) fn shard(&self) -> &Shard {
        &self.shard
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The namespace's name.
    pub fn namespace(&self) -> &str {
        &self.shard.name
    }

    /// What is held and on disk: what may be announced and sent.
    pub fn durable_vector(&self) -> VersionVector {
        self.shard.durable_vector()
    }

    /// Whether nobody is using the namespace at this moment, so that what only looks at it does not wait.
    pub fn is_idle(&self) -> bool {
        self.shard.is_idle()
    }

    /// A frame of durable changes that `since` does not cover, signed by their writers; `None` where
    /// it covers them all. The frame is larger than `bytes_max` only where one signature is for more.
    ///
    /// # Errors
    /// The disk failed, [`crate::Error::Unsigned`], or [`crate::Error::Compacted`].
    pub fn frame_since(
        &self,
        since: &VersionVector,
        bytes_max: usize,
    ) -> Result<Option<OutgoingFrame>> {
        self.shard.check_outside()?;
        if since.covers(&self.shard.durable_vector()) {
            return Ok(None);
        }
        self.shard.frame_since(since, bytes_max)
    }

    /// The frame that [`Replication::frame_since`] would give, where it is in memory: what this store
    /// has written last. It is sealed on its way to disk, as long as somebody listens by
    /// [`Replication::on_durable`].
    pub fn frame_at_hand(&self, since: &VersionVector) -> Option<OutgoingFrame> {
        self.shard.frame_at_hand(since)
    }

    /// Applies a peer's frame; what it brought is on disk when this returns.
    ///
    /// # Errors
    /// The frame is malformed, leaves out changes, or is not what its writers have signed, which is
    /// the peer's fault; [`crate::Error::OwnKeyElsewhere`]; or the disk failed.
    pub fn apply_frame(&self, frame: &[u8]) -> Result<Applied> {
        self.shard.check_outside()?;
        let applied = self.shard.apply_frame(frame)?;
        self.database.settle_later();
        Ok(applied)
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
        self.shard.check_outside()?;
        self.shard.fingerprint()
    }

    /// The first message of a reconciliation, or what to answer to one of the peer's and which rows
    /// have turned out to differ: see [`vudo_crdt::Namespace::compare_ranges`].
    ///
    /// # Errors
    /// The disk failed.
    pub fn compare_ranges(
        &self,
        said: Option<&RangeSummaries>,
        key: &SessionKey,
    ) -> Result<(RangeSummaries, DifferentRows)> {
        self.shard.check_outside()?;
        self.shard.hash_rows(|namespace, chunks| match said {
            Some(said) => Ok(namespace.compare_ranges(said, key, chunks)?),
            None => Ok((namespace.first_ranges(key, chunks)?, DifferentRows::default())),
        })
    }

    /// Puts what the log makes of the documents that these rows belong to in place of what the tables
    /// have; that is on disk when this returns. Gives how many documents those are.
    ///
    /// # Errors
    /// The disk failed.
    pub fn rebuild(&self, different: &DifferentRows) -> Result<usize> {
        self.shard.check_outside()?;
        self.shard.rebuild(different)
    }

    /// Calls back whenever more has become durable, until the guard is dropped. The callback
    /// must return at once and must not use the store.
    pub fn on_durable(&self, callback: impl Fn() + Send + Sync + 'static) -> ListenerGuard {
        self.shard.durable_listeners.add(callback)
    }
}
