//! Sealing what this store has written while it goes to disk.
//!
//! ```text
//! write to disk ................................. synced
//!                 hash, sign, make a frame ...... send it
//! ```
//!
//! **The idea.** A peer that waits for a single change waits for its hash, its signature and its frame
//! as well. All of that needs the processor, which is idle during the sync.
//!
//! **The invariant.** What is made here is given away once its flush has ended well, and not before. A
//! flush that fails drops it, so no signature goes out for a number that a crash would use again.

use vudo_crdt::merkle::{MerkleLog, leaf_of};
use vudo_crdt::wire::Reader;
use vudo_crdt::{Change, FrameWriter, Seal, VersionVector, write_signed_frame};

use crate::replication::OutgoingFrame;
use crate::sealing::seal;
use crate::shard::{Flushed, Shard, State};

/// More than this is hashed when somebody is to have it: it takes longer than the sync, and one frame
/// of many changes needs one signature.
const AHEAD_BYTES_MAX: usize = 4 << 10;

/// What has been sealed of changes on their way to disk.
pub(crate) struct SealedAhead {
    log: MerkleLog,
    seal: Seal,
    at_hand: AtHand,
}

/// A frame of changes of this store that are durable.
pub(crate) struct AtHand {
    /// What is durable without them.
    before: VersionVector,
    frame: OutgoingFrame,
}

impl State {
    /// Whether a flush can be sealed meanwhile: where it is little, and nothing but changes of this store
    /// behind others that have been hashed.
    pub(crate) fn can_seal_ahead(&self, flushed: &Flushed) -> bool {
        let record = &flushed.pending.record;
        let is_own = flushed.pending.units.is_empty() && flushed.records.is_empty();
        let is_little = !record.is_empty() && record.len() <= AHEAD_BYTES_MAX;
        let is_hashed = self.seals.own_position == self.seals.end;
        // A segment that has ended would need a signature of its own.
        let is_in_segment = flushed.open.first == self.seals.open.first;
        is_own && is_little && is_hashed && is_in_segment
    }

    /// Takes over what has been sealed of a flush that is on disk now.
    pub(crate) fn take_sealed(&mut self, sealed: SealedAhead) {
        self.seals.own_position = self.seals.end;
        self.seals.own_seal = Some((sealed.log.length(), sealed.seal));
        *self.seals.log(self.own) = sealed.log;
        self.at_hand = Some(sealed.at_hand);
    }
}

impl Shard {
    /// Hashes and signs what the caller takes to disk. `None` where somebody hashes already, who may have
    /// much to do, or has the state locked: the flush must not wait for that.
    pub(crate) fn seal_ahead(&self, record: &[u8]) -> Option<SealedAhead> {
        let _sealing = self.sealing.try_lock().ok()?;
        let mut state = self.try_lock()?;
        let (own, before) = (state.own, state.durable_vector.clone());
        let keys = state.namespace.replicas().keys().to_vec();
        let gen_names: Vec<String> = state.namespace.gen_names().map(str::to_owned).collect();
        let mut log = state.seals.log(own).clone();
        drop(state);
        let own_key = keys[own as usize];
        let mut writer = FrameWriter::new(&keys, gen_names.iter());
        let mut reader = Reader::new(record);
        while !reader.is_empty() {
            let change = Change::read_log_record(&mut reader).ok()?;
            if change.replica != own || change.number != log.length() + 1 {
                return None;
            }
            let gen_name = |gen_index: u32| gen_names[gen_index as usize].as_bytes();
            log.push(leaf_of(&self.name, &own_key, &change, gen_name), |_, _| ());
            writer.push(&change);
        }
        let mut vector = before.clone();
        vector.advance(own_key, log.length());
        let changes = writer.change_count();
        let seal = seal(&self.key, &self.name, &log);
        let mut bytes = Vec::new();
        write_signed_frame(&writer.finish(), &[seal], &mut bytes);
        let at_hand = AtHand { before, frame: OutgoingFrame { bytes, vector, changes } };
        Some(SealedAhead { log, seal, at_hand })
    }

    /// See [`crate::Replication::frame_at_hand`].
    pub(crate) fn frame_at_hand(&self, since: &VersionVector) -> Option<OutgoingFrame> {
        let state = self.lock();
        let AtHand { before, frame } = state.at_hand.as_ref()?;
        let own_key = state.namespace.replicas().key(state.own);
        let is_next = since.get(own_key) == before.get(own_key) && since.covers(before);
        let is_above_floor = state.floor.as_ref().is_none_or(|floor| since.covers(&floor.vector));
        (is_next && is_above_floor).then(|| {
            let mut vector = since.clone();
            vector.join(&frame.vector);
            OutgoingFrame { vector, ..frame.clone() }
        })
    }
}
