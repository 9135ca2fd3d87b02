//! Taking somebody else's checkpoint, where a peer's log does not go back to what is held here.
//!
//! ```text
//! offer: checkpoint, seals --> parts: hashes in place of dropped changes, retained changes --> verified
//!                                    each is staged on disk
//! ```
//!
//! **The idea.** What a compacted log retains, and the hashes in place of the rest, give the logs and
//! the state that the checkpoint names. Whoever takes them can do everything that the giver can: make
//! documents again, pass changes on, and give the checkpoint to others.
//!
//! **The invariant.** Nothing of it has an effect before all of it has been verified: each replica's log
//! by the checkpoint and that replica's signature, the state that the changes make by the root that the
//! checkpoint signs. So nobody can add to it, and a giver that leaves something out has to have signed a
//! checkpoint without it. Where the namespace has owners one of them has to have signed it, by the
//! records that are retained in it and those that are held here. See `new_floor` for what it is compared
//! with and how it takes its place.
//!
//! **Recovery.** What has been staged stays, and the next session with the same peer goes on where the
//! last part ended. Another checkpoint begins anew.

use vudo_crdt::checkpoint::Checkpoint;
use vudo_crdt::merkle::{MerkleLog, leaf_hash};
use vudo_crdt::wire::{MalformedFrame, Reader, write_varint};
use vudo_crdt::{Frame, Namespace, ReplicaKey};

use crate::checkpoint_offer::{
    CheckpointOffer, CheckpointPart, PartContent, PartCursor, PartRequest,
};
use crate::error::{Error, Result};
use crate::floor::ReplicaLog;
use crate::history::is_signature;
use crate::layout;
use crate::new_floor::{NewFloor, append, counts, join, root_of};
use crate::replication::Replication;
use crate::rights::{RetainedRights, founding_hash};
use crate::shard::Shard;
use crate::storage::WriteBatch;

impl Replication {
    /// The checkpoint up to which the log here has been compacted; `None` where it has not been, or where
    /// no owner of the namespace answers for it.
    pub fn checkpoint_offer(&self) -> Option<CheckpointOffer> {
        let floor = self.shard().lock().floor.clone()?;
        self.shard().offer_of(&floor)
    }

    /// A part of what is retained below the checkpoint; `None` where the log has been compacted up to
    /// another one meanwhile, which is to be offered then.
    ///
    /// # Errors
    /// The disk failed.
    pub fn checkpoint_part(&self, request: &PartRequest) -> Result<Option<CheckpointPart>> {
        self.shard().check_outside()?;
        self.shard().checkpoint_part(request)
    }

    /// Takes note of a peer's checkpoint. Gives what to ask the peer for; `None` where nothing below it
    /// is missing here, and the log path goes on.
    ///
    /// # Errors
    /// The checkpoint is not signed, or not by those whose logs it names, which is the peer's fault, or
    /// the disk failed.
    pub fn begin_catching_up(
        &self,
        peer: &ReplicaKey,
        offer: &CheckpointOffer,
    ) -> Result<Option<PartRequest>> {
        self.shard().check_outside()?;
        self.shard().begin_catching_up(peer, offer)
    }

    /// Takes a part of what the peer retains below its checkpoint, durably. Gives what to ask for next;
    /// `None` where there is nothing more to ask for: that was the last part and everything is in
    /// effect, or it was not the next one, because another session has gone on meanwhile.
    ///
    /// # Errors
    /// The parts are not what the checkpoint says, which is the peer's fault and forgets all of them;
    /// logs differ below the checkpoint ([`Error::ForkBelowCheckpoint`], [`Error::CheckpointsDiffer`]),
    /// the parts take more than [`crate::OpenOptions::catch_up_bytes_max`], a compaction is going on, or
    /// the disk failed.
    pub fn take_part(
        &self,
        peer: &ReplicaKey,
        part: &CheckpointPart,
    ) -> Result<Option<PartRequest>> {
        self.shard().check_outside()?;
        let next = self.shard().take_part(peer, part)?;
        self.database().settle_later();
        Ok(next)
    }
}

/// What has been staged of a peer's checkpoint.
struct Staged {
    cursor: PartCursor,
    part_count: u64,
    byte_count: u64,
    offer: CheckpointOffer,
}

impl Staged {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.cursor.to_vec();
        write_varint(&mut out, self.part_count);
        write_varint(&mut out, self.byte_count);
        self.offer.encode(&mut out);
        out
    }

    fn decode(stored: &[u8]) -> std::result::Result<Staged, MalformedFrame> {
        let mut reader = Reader::new(stored);
        Ok(Staged {
            cursor: reader.array()?,
            part_count: reader.varint()?,
            byte_count: reader.varint()?,
            offer: CheckpointOffer::decode(&mut reader)?,
        })
    }

    fn request(&self) -> PartRequest {
        PartRequest { checkpoint: self.offer.id(), cursor: self.cursor }
    }
}

pub(crate) fn refused<T>(what: &str) -> Result<T> {
    Err(Error::Frame(format!("what it gave of its checkpoint was refused: {what}")))
}

/// Checks that with the replicas of a checkpoint no more write in a namespace than may.
pub(crate) fn check_room_for_replicas_of(
    checkpoint: &Checkpoint,
    namespace: &Namespace,
) -> Result<()> {
    match namespace.has_room_for_replicas(checkpoint.logs.iter().map(|(key, _)| key)) {
        true => Ok(()),
        false => refused("with its replicas more would write here than in one namespace may"),
    }
}

impl Shard {
    fn begin_catching_up(
        &self,
        peer: &ReplicaKey,
        offer: &CheckpointOffer,
    ) -> Result<Option<PartRequest>> {
        let checkpoint = &offer.signed.checkpoint;
        if checkpoint.namespace != *self.name || !offer.signed.holds(is_signature) {
            return refused("nobody has signed it");
        }
        let is_judged = !checkpoint.set_aside.is_empty() || !offer.records.is_empty();
        if is_judged && founding_hash(&self.name).is_none() {
            return refused(
                "it sets changes aside, which nobody may in a namespace without owners",
            );
        }
        let mut batch = WriteBatch::default();
        self.forget_staged_of(peer, &mut batch)?;
        if self.durable_vector().covers(&checkpoint.vector()) {
            self.storage().commit(&batch)?;
            return Ok(None);
        }
        check_room_for_replicas_of(checkpoint, &self.lock().namespace)?;
        if let Some(staged) = self.staged(peer)?.filter(|staged| staged.offer == *offer) {
            return Ok(Some(staged.request()));
        }
        for ((key, log), seal) in checkpoint.logs.iter().zip(&offer.seals) {
            let head = seal.head(&self.name, *key, log.length());
            if seal.root != log.root() || !head.holds(is_signature) {
                return refused("a replica has not signed the log that it names");
            }
        }
        let (cursor, offer) = (PartCursor::default(), offer.clone());
        let staged = Staged { cursor, part_count: 0, byte_count: 0, offer };
        batch.put(layout::staged_of(self.id(), peer), staged.encode());
        self.storage().commit(&batch)?;
        Ok(Some(staged.request()))
    }

    /// A floor whose replicas are more than a vector can name could never be read again.
    fn staged(&self, peer: &ReplicaKey) -> Result<Option<Staged>> {
        let Some(stored) = self.storage().get(&layout::staged_of(self.id(), peer))? else {
            return Ok(None);
        };
        let staged = Staged::decode(&stored);
        staged.map(Some).map_err(|what| Error::damaged(format!("a checkpoint being taken: {what}")))
    }

    /// Removes what has been staged, of all peers.
    pub(crate) fn forget_staged(&self, batch: &mut WriteBatch) -> Result<()> {
        let (from, to) = (layout::staged(self.id()), layout::staged(self.id() + 1));
        self.forget_between(&from, &to, batch)
    }

    fn forget_staged_of(&self, peer: &ReplicaKey, batch: &mut WriteBatch) -> Result<()> {
        batch.remove(layout::staged_of(self.id(), peer));
        let from = layout::staged_part(self.id(), peer, 0);
        let to = layout::staged_part(self.id(), peer, u64::MAX);
        self.forget_between(&from, &to, batch)
    }

    pub(crate) fn forget_between(
        &self,
        from: &[u8],
        to: &[u8],
        batch: &mut WriteBatch,
    ) -> Result<()> {
        self.storage().scan(from, to, &mut |key, _| {
            batch.remove(key.to_vec());
            true
        })?;
        Ok(())
    }

    fn take_part(&self, peer: &ReplicaKey, part: &CheckpointPart) -> Result<Option<PartRequest>> {
        let staged = self.staged(peer)?;
        // Another session with the same peer may have taken it.
        let Some(mut staged) = staged.filter(|staged| staged.request() == part.request) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        part.encode(&mut bytes);
        staged.byte_count = staged.byte_count.saturating_add(bytes.len() as u64);
        let bytes_max = self.catch_up_bytes_max;
        let taken = if staged.byte_count > bytes_max {
            Err(Error::CheckpointTooLarge { namespace: self.name.to_string(), bytes_max })
        } else if part.is_empty() && part.next.is_some() {
            refused("a part with nothing in it")
        } else {
            self.stage(peer, &mut staged, part.next, bytes)
        };
        let is_useless = |error: &Error| {
            error.is_peer_fault() || matches!(error, Error::CheckpointTooLarge { .. })
        };
        if taken.as_ref().is_err_and(is_useless) {
            let mut batch = WriteBatch::default();
            self.forget_staged_of(peer, &mut batch)?;
            self.storage().commit(&batch)?;
        }
        taken
    }

    /// Puts a part to the others, and goes on from the checkpoint where it is the last one.
    fn stage(
        &self,
        peer: &ReplicaKey,
        staged: &mut Staged,
        next: Option<PartCursor>,
        part: Vec<u8>,
    ) -> Result<Option<PartRequest>> {
        let mut batch = WriteBatch::default();
        batch.put(layout::staged_part(self.id(), peer, staged.part_count), part);
        if let Some(next) = next {
            staged.part_count += 1;
            staged.cursor = next;
            batch.put(layout::staged_of(self.id(), peer), staged.encode());
        }
        self.storage().commit(&batch)?;
        if next.is_none() {
            // Where that fails, the last part is asked for once more.
            self.go_on_from(peer, &staged.offer)?;
        }
        Ok(next.map(|_| staged.request()))
    }

    /// Makes the logs and the state of what has been staged, and checks that they are the checkpoint's.
    /// `scratch` has the indexes of the namespace here and nothing in it.
    pub(crate) fn verify_staged(
        &self,
        peer: &ReplicaKey,
        offer: &CheckpointOffer,
        mut scratch: Namespace,
    ) -> Result<NewFloor> {
        let checkpoint = &offer.signed.checkpoint;
        let known_counts = counts(&scratch);
        let mut signed_logs = vec![MerkleLog::new(); known_counts.0];
        for (key, log) in &checkpoint.logs {
            let replica = scratch.intern_replica(*key) as usize;
            signed_logs.resize(signed_logs.len().max(replica + 1), MerkleLog::new());
            signed_logs[replica] = log.clone();
        }
        for (key, set_aside) in &checkpoint.set_aside {
            let Some(replica) = scratch.replicas().find(key) else {
                return refused("it sets changes aside of a replica whose log it does not name");
            };
            scratch.restore_set_aside(replica, set_aside.clone());
        }
        let mut logs: Vec<ReplicaLog> = Vec::new();
        logs.resize_with(signed_logs.len(), ReplicaLog::default);
        let mut records = Vec::new();
        let mut failure = None;
        let from = layout::staged_part(self.id(), peer, 0);
        let to = layout::staged_part(self.id(), peer, u64::MAX);
        self.storage().scan(&from, &to, &mut |_, stored| {
            failure = self.read_part(stored, &mut scratch, &mut logs, &mut records).err();
            failure.is_none()
        })?;
        if let Some(error) = failure {
            return refused(&error.to_string());
        }
        let mut nodes = Vec::new();
        for (log, signed) in logs.into_iter().zip(&signed_logs) {
            let (log, of_replica) = log.finish().or_else(|error| refused(&error.to_string()))?;
            if log != *signed {
                return refused("a log is not that of the checkpoint");
            }
            nodes.push(Some(of_replica));
        }
        if root_of(&scratch) != Some(checkpoint.state) {
            return refused("the state is not that of the checkpoint");
        }
        let mut rights = None;
        if founding_hash(&self.name).is_some() {
            let retained = RetainedRights::of(&self.name, &scratch, &records)?;
            let set_aside = (0..).zip(&retained.set_aside);
            if set_aside.into_iter().any(|(replica, kept)| kept != scratch.set_aside(replica)) {
                return refused("it lacks changes that it sets aside");
            }
            rights = Some(retained);
        }
        let offer = offer.clone();
        Ok(NewFloor { offer, state: scratch, known_counts, records, nodes, rights })
    }

    fn read_part(
        &self,
        stored: &[u8],
        scratch: &mut Namespace,
        logs: &mut [ReplicaLog],
        records: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let part = CheckpointPart::decode(&mut Reader::new(stored)).map_err(Error::malformed)?;
        let unknown = || Error::Frame("a replica that the checkpoint does not name".to_owned());
        let frame = match part.content {
            PartContent::Hashes(key, nodes) => {
                let replica = scratch.replicas().find(&key).ok_or_else(unknown)?;
                return logs.get_mut(replica as usize).ok_or_else(unknown)?.add_nodes(nodes);
            }
            PartContent::Changes(frame) => frame,
        };
        let frame = Frame::parse(&frame).map_err(Error::malformed)?;
        let has_room = scratch.visit_frame(&frame, |scratch, change| {
            let log = logs.get_mut(change.replica as usize).ok_or_else(unknown)?;
            // A change that the giver was about to drop has its hash among the others.
            if !log.is_next(change.number)? {
                return Ok(());
            }
            log.take(leaf_hash(&self.name, scratch, change), false)?;
            join(scratch, change)?;
            let mut record = Vec::new();
            change.write_log_record(&mut record);
            append(records, &record);
            Ok::<(), Error>(())
        })?;
        match has_room {
            true => Ok(()),
            false => Err(Error::Frame("more Gens than a namespace holds".to_owned())),
        }
    }
}
