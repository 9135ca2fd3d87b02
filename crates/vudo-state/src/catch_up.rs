//! Going on from somebody else's checkpoint, where a peer's log does not go back to what is held here.
//!
//! ```text
//! offer: checkpoint, seals --> parts: hashes in place of dropped changes, retained changes --> verified
//!                                    each is staged on disk                                    |
//!                                  one batch: log, floor and tables take their new place <-----+
//!
//! log before   | 1 2 3 . . . 7 8 |                         7 and 8 are above the checkpoint
//! log after                      | retained | 7 8 |        positions go on, they are never used twice
//!                                           ^ floor
//! ```
//!
//! **The idea.** What a compacted log retains, and the hashes in place of the rest, give the logs and
//! the state that the checkpoint names. Whoever takes them can do everything that the giver can: make
//! documents again, pass changes on, and give the checkpoint to others. What is held here above the
//! checkpoint stays, and goes to others as before.
//!
//! **The invariant.** Nothing of it has an effect before all of it has been verified: each replica's log
//! by the checkpoint and that replica's signature, the state that the changes make by the root that the
//! checkpoint signs, and that root by what is held here, of which nothing may be missing in it. So
//! nobody can add to it, and a giver that leaves something out has to have signed a checkpoint without
//! it, which whoever holds some of that refuses.
//!
//! **Recovery.** A crash leaves the old log or the new one. What has been staged stays, and the next
//! session with the same peer goes on where the last part ended. Another checkpoint begins anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use vudo_crdt::merkle::{Hash, MerkleLog, NodeId, leaf_hash};
use vudo_crdt::wire::{MalformedFrame, Reader, write_varint};
use vudo_crdt::{
    Change, Frame, FrameWriter, InMemory, LogSource, Namespace, Ranges, ReplicaIndex, ReplicaKey,
    StateRoot, Touched,
};

use crate::checkpoint_offer::{
    CheckpointOffer, CheckpointPart, PartContent, PartCursor, PartRequest, id_of,
};
use crate::compaction::join_at;
use crate::error::{Error, Result};
use crate::floor::{Floor, ReplicaLog, read_nodes, replace_nodes};
use crate::history::is_signature;
use crate::layout;
use crate::limits::{PART_BYTES, PART_HASHES_MAX};
use crate::recovery::visit_changes;
use crate::replication::Replication;
use crate::seals::{OpenSegment, SealsByReplica, Segment, for_each_segment};
use crate::shard::{RECORD_BYTES, Shard, State, WithPending};
use crate::storage::{StorageError, WriteBatch};
use crate::subscription::Origin;

impl Replication {
    /// The checkpoint up to which the log here has been compacted; `None` where it has not been.
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
    /// The checkpoint is not signed, or not by those whose logs it names, which is the peer's fault; it
    /// does not cover the one up to which the log here has been compacted
    /// ([`Error::CheckpointsDiffer`]), or the disk failed.
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
    /// effect, or the log has gone on without this peer meanwhile.
    ///
    /// # Errors
    /// The parts are not what the checkpoint says, which is the peer's fault and forgets all of them;
    /// logs differ below the checkpoint, the parts take more than
    /// [`crate::OpenOptions::catch_up_bytes_max`], a compaction is going on, or the disk failed.
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

/// Where a giver goes on: hashes of the replicas first, from a leaf on, then changes from a position on.
enum Place {
    Hashes { replica: ReplicaIndex, first_leaf: u64 },
    Changes { position: u64 },
}

impl Place {
    /// In place of a replica.
    const CHANGES: ReplicaIndex = ReplicaIndex::MAX;

    fn to_cursor(&self) -> PartCursor {
        let (one, other) = match *self {
            Place::Hashes { replica, first_leaf } => (replica, first_leaf),
            Place::Changes { position } => (Place::CHANGES, position),
        };
        let mut cursor = PartCursor::default();
        cursor[..4].copy_from_slice(&one.to_be_bytes());
        cursor[4..].copy_from_slice(&other.to_be_bytes());
        cursor
    }

    fn of_cursor(cursor: &PartCursor) -> Place {
        let replica = cursor.first_chunk().map_or(0, |bytes| ReplicaIndex::from_be_bytes(*bytes));
        let other = layout::trailing_u64(cursor);
        match replica {
            Place::CHANGES => Place::Changes { position: other },
            replica => Place::Hashes { replica, first_leaf: other },
        }
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

/// What parts make, found to be what their checkpoint says.
struct Verified {
    /// The state at the checkpoint, with the indexes of the namespace here and new ones behind them.
    state: Namespace,
    /// How many replicas and Gens the namespace here had.
    known_counts: (usize, usize),
    /// What is retained below, as the log keeps it.
    records: Vec<Vec<u8>>,
    /// By replica index.
    nodes: Vec<Vec<(NodeId, Hash)>>,
}

/// The log records of a batch.
struct LogOf<'a>(&'a WriteBatch);

impl LogSource for LogOf<'_> {
    type Error = Error;

    fn visit(&mut self, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        for (key, record) in &self.0.writes {
            let Some(record) = record.as_ref().filter(|_| layout::is_log(key)) else { continue };
            let mut reader = Reader::new(record);
            while !reader.is_empty() {
                visit(&Change::read_log_record(&mut reader).map_err(Error::malformed)?);
            }
        }
        Ok(())
    }
}

/// Where the log ends that has been moved above a checkpoint.
struct Moved {
    open: OpenSegment,
    end: u64,
}

fn refused<T>(what: &str) -> Result<T> {
    Err(Error::Frame(format!("what it gave of its checkpoint was refused: {what}")))
}

/// Joins a change to a state that is in memory as a whole.
fn join(state: &mut Namespace, change: &Change<'_>) -> Result<()> {
    let joined = state.apply_own(change, &mut InMemory, &mut ());
    joined.map(|_| ()).map_err(|_| Error::damaged("a state in memory"))
}

/// Appends a change to records of the log.
fn append(records: &mut Vec<Vec<u8>>, change: &[u8]) {
    match records.last_mut().filter(|record| record.len() < RECORD_BYTES) {
        Some(record) => record.extend_from_slice(change),
        None => records.push(change.to_vec()),
    }
}

fn root_of(state: &Namespace) -> Option<StateRoot> {
    state.write_pages(&mut InMemory, |_| Ok::<(), StorageError>(())).ok()
}

fn counts(namespace: &Namespace) -> (usize, usize) {
    (namespace.replicas().keys().len(), namespace.gen_names().len())
}

impl Shard {
    fn offer_of(&self, floor: &Floor) -> Option<CheckpointOffer> {
        let state = self.lock();
        let seal_of = |(key, _): &(ReplicaKey, MerkleLog)| {
            let replica = state.namespace.replicas().find(key)?;
            floor.seals.get(&replica).map(|(_, seal)| *seal)
        };
        let seals = floor.signed.checkpoint.logs.iter().map(seal_of).collect::<Option<_>>()?;
        Some(CheckpointOffer { signed: floor.signed.clone(), seals })
    }

    fn checkpoint_part(&self, request: &PartRequest) -> Result<Option<CheckpointPart>> {
        let (floor, keys, gen_names) = {
            let state = self.lock();
            let names: Vec<String> = state.namespace.gen_names().map(str::to_owned).collect();
            (state.floor.clone(), state.namespace.replicas().keys().to_vec(), names)
        };
        let Some(floor) = floor.filter(|floor| id_of(&floor.signed) == request.checkpoint) else {
            return Ok(None);
        };
        let (content, next) = match Place::of_cursor(&request.cursor) {
            Place::Hashes { replica, first_leaf } => {
                self.hashes_from(replica, first_leaf, &keys, &gen_names, &floor)?
            }
            Place::Changes { position } => {
                self.changes_from(position, &keys, &gen_names, &floor)?
            }
        };
        // Another checkpoint may have taken its place while this was read.
        let now = Floor::read(&self.name, self.id(), self.storage())?;
        let is_current = now.is_some_and(|now| now.signed == floor.signed);
        let next = next.map(|next| next.to_cursor());
        let part = CheckpointPart { request: request.clone(), next, content };
        Ok(is_current.then_some(part))
    }

    /// Hashes from a leaf of a replica on, or changes where there are no more hashes. Gives where the
    /// next part begins.
    fn hashes_from(
        &self,
        mut replica: ReplicaIndex,
        mut first_leaf: u64,
        keys: &[ReplicaKey],
        gen_names: &[String],
        floor: &Floor,
    ) -> Result<(PartContent, Option<Place>)> {
        while let Some(key) = keys.get(replica as usize) {
            let from = (first_leaf, PART_HASHES_MAX);
            let (nodes, next) = read_nodes(self.id(), replica, from, self.storage())?;
            if !nodes.is_empty() {
                let next = match next {
                    Some(first_leaf) => Place::Hashes { replica, first_leaf },
                    None => Place::Hashes { replica: replica + 1, first_leaf: 0 },
                };
                return Ok((PartContent::Hashes(*key, nodes), Some(next)));
            }
            (replica, first_leaf) = (replica + 1, 0);
        }
        self.changes_from(0, keys, gen_names, floor)
    }

    /// Retained changes from a position on.
    fn changes_from(
        &self,
        position: u64,
        keys: &[ReplicaKey],
        gen_names: &[String],
        floor: &Floor,
    ) -> Result<(PartContent, Option<Place>)> {
        let mut writer = FrameWriter::new(keys, gen_names.iter());
        let (mut byte_count, mut next, mut failure) = (0, None, None);
        // Storage takes no range that ends before it begins.
        let end = floor.position.max(position);
        let (from, to) = (layout::log(self.id(), position), layout::log(self.id(), end));
        self.storage().scan(&from, &to, &mut |key, record| {
            if byte_count > 0 && byte_count + record.len() > PART_BYTES {
                next = Some(Place::Changes { position: layout::trailing_u64(key) });
                return false;
            }
            byte_count += record.len();
            let pushed = visit_changes(&self.name, record, &mut |change| {
                writer.push(change);
                Ok(())
            });
            failure = pushed.err();
            failure.is_none()
        })?;
        failure.map_or(Ok((PartContent::Changes(writer.finish()), next)), Err)
    }

    fn begin_catching_up(
        &self,
        peer: &ReplicaKey,
        offer: &CheckpointOffer,
    ) -> Result<Option<PartRequest>> {
        let checkpoint = &offer.signed.checkpoint;
        if checkpoint.namespace != *self.name || !offer.signed.holds(is_signature) {
            return refused("nobody has signed it");
        }
        if self.lock().rights.is_some() {
            return refused("the namespace has owners, who sign no checkpoints");
        }
        if !checkpoint.set_aside.is_empty() {
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
        self.check_floor_below(&self.lock(), offer)?;
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

    /// Checks that a checkpoint covers what has been compacted here.
    fn check_floor_below(&self, state: &State, offer: &CheckpointOffer) -> Result<()> {
        let covers = |floor: &Floor| offer.signed.checkpoint.vector().covers(&floor.vector);
        match state.floor.as_ref().is_none_or(|floor| covers(floor)) {
            true => Ok(()),
            false => Err(Error::CheckpointsDiffer { namespace: self.name.to_string() }),
        }
    }

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

    fn forget_between(&self, from: &[u8], to: &[u8], batch: &mut WriteBatch) -> Result<()> {
        self.storage().scan(from, to, &mut |key, _| {
            batch.remove(key.to_vec());
            true
        })?;
        Ok(())
    }

    fn take_part(&self, peer: &ReplicaKey, part: &CheckpointPart) -> Result<Option<PartRequest>> {
        let Some(mut staged) = self.staged(peer)? else { return Ok(None) };
        if staged.request() != part.request {
            return refused("a part that was not asked for");
        }
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

    /// Takes the place of what is held below a checkpoint whose parts are staged, durably.
    fn go_on_from(&self, peer: &ReplicaKey, offer: &CheckpointOffer) -> Result<()> {
        let (turn, mut state, verified) = loop {
            // Nobody waits for that.
            let verified = self.verify_staged(peer, offer)?;
            let (turn, state) = self.turn_with_whole_log()?;
            if counts(&state.namespace) == verified.known_counts {
                break (turn, state, verified);
            }
        };
        // The turn ends with the state unlocked.
        if let Err(error) = self.replace_below(&mut state, offer, verified) {
            drop(state);
            return Err(error);
        }
        self.publish(&mut state, Origin::Remote);
        self.judge_and_write(turn, state)
    }

    /// Makes the logs and the state of what has been staged, and checks that they are the checkpoint's.
    fn verify_staged(&self, peer: &ReplicaKey, offer: &CheckpointOffer) -> Result<Verified> {
        let checkpoint = &offer.signed.checkpoint;
        let mut scratch = Namespace::new(0);
        {
            let state = self.lock();
            state.namespace.replicas().keys().iter().for_each(|key| {
                scratch.intern_replica(*key);
            });
            state.namespace.gen_names().for_each(|name| {
                scratch.intern_gen(name);
            });
        }
        let known_counts = counts(&scratch);
        let mut signed_logs = vec![MerkleLog::new(); known_counts.0];
        for (key, log) in &checkpoint.logs {
            let replica = scratch.intern_replica(*key) as usize;
            signed_logs.resize(signed_logs.len().max(replica + 1), MerkleLog::new());
            signed_logs[replica] = log.clone();
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
            nodes.push(of_replica);
        }
        let is_unchecked = cfg!(vudo_mutation = "checkpoint_without_changes");
        if !is_unchecked && root_of(&scratch) != Some(checkpoint.state) {
            return refused("the state is not that of the checkpoint");
        }
        Ok(Verified { state: scratch, known_counts, records, nodes })
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

    /// Checks what is held here below a checkpoint: its logs must be the checkpoint's as far as both
    /// have them, and the state there must lack nothing of what they did.
    fn check_held(&self, state: &State, offer: &CheckpointOffer, at: &mut Namespace) -> Result<()> {
        let namespace = &state.namespace;
        let checkpoint = &offer.signed.checkpoint;
        let vector = checkpoint.vector();
        let keys = namespace.replicas().keys();
        let covered: Vec<u64> = keys.iter().map(|key| vector.get(key)).collect();
        let mut logs = Vec::new();
        for (key, signed) in &checkpoint.logs {
            let Some(replica) = namespace.replicas().find(key) else { continue };
            let held = namespace.heard(replica);
            if replica == state.own && held < signed.length() {
                return Err(self.own_key_is_elsewhere());
            }
            if held >= signed.length() {
                let floor = state.floor.as_ref().map(|floor| &floor.signed.checkpoint.logs);
                let below = floor.and_then(|logs| logs.iter().find(|(found, _)| found == key));
                logs.push((replica, signed, below.map(|(_, log)| log.clone()).unwrap_or_default()));
            }
        }
        let mut failure = None;
        self.stored_log().visit_from(0, &mut |change| {
            if change.number > covered[change.replica as usize] || failure.is_some() {
                return;
            }
            failure = join(at, change).err();
            let found = logs.iter_mut().find(|(replica, _, _)| *replica == change.replica);
            if let Some((_, _, log)) = found
                && change.number == log.length() + 1
            {
                log.push(leaf_hash(&self.name, namespace, change), |_, _| ());
            }
        })?;
        failure.map_or(Ok(()), Err)?;
        match logs.iter().find(|(_, signed, log)| log != *signed) {
            None => {}
            Some((replica, _, _)) if *replica == state.own => {
                return Err(self.own_key_is_elsewhere());
            }
            Some((replica, signed, _)) => {
                return Err(Error::ForkBelowCheckpoint {
                    namespace: self.name.to_string(),
                    replica: *namespace.replicas().key(*replica),
                    number: signed.length(),
                });
            }
        }
        let is_unchecked = cfg!(vudo_mutation = "checkpoint_without_held");
        match is_unchecked || root_of(at) == Some(checkpoint.state) {
            true => Ok(()),
            false => refused("it lacks what changes that are held here have done"),
        }
    }

    /// Makes the log anew, of what is retained below the checkpoint and what is held above, and the
    /// documents of that, with all that has to go to disk for it.
    fn replace_below(
        &self,
        state: &mut State,
        offer: &CheckpointOffer,
        verified: Verified,
    ) -> Result<()> {
        let checkpoint = &offer.signed.checkpoint;
        let vector = checkpoint.vector();
        if state.durable_vector.covers(&vector) {
            return Ok(());
        }
        if state.kept_chunks.is_some() {
            return Err(Error::CompactionRuns { namespace: self.name.to_string() });
        }
        self.check_floor_below(state, offer)?;
        let Verified { state: mut below, records, nodes, .. } = verified;
        self.check_held(state, offer, &mut below)?;
        let id = self.id();
        let keys = below.replicas().keys().to_vec();
        let covered: Vec<u64> = keys.iter().map(|key| vector.get(key)).collect();
        let gen_names: Vec<String> = below.gen_names().map(str::to_owned).collect();
        drop(below);
        let mut batch = WriteBatch::default();
        for (from, to) in [
            (layout::log(id, 0), layout::log(id + 1, 0)),
            (layout::log_index(id, 0, 0), layout::log_index(id + 1, 0, 0)),
            (layout::segment(id, 0), layout::segment(id + 1, 0)),
        ] {
            self.forget_between(&from, &to, &mut batch)?;
        }
        let records = match self.pins()?.iter().all(|(_, pin)| pin.covers(&vector)) {
            true => records,
            false => self.with_all_held(records, &covered)?,
        };
        let mut position = state.next_position;
        for record in records {
            batch.put(layout::log(id, position), record);
            position += 1;
        }
        // Documents that nothing new is about stay as they are.
        let mut touched = Touched::default();
        let namespace = &state.namespace;
        LogOf(&batch).visit(&mut |change| {
            let is_known = (change.replica as usize) < namespace.replicas().keys().len()
                && change.number <= namespace.heard(change.replica)
                && !namespace.set_aside(change.replica).contains(change.number);
            if !is_known {
                touched.add(change);
            }
        })?;
        let floor_position = position;
        let moved = self.move_above(state, &covered, position, &mut batch)?;
        let index_of = |key: &ReplicaKey| keys.iter().position(|found| found == key);
        let mut seals = SealsByReplica::new();
        for ((key, log), seal) in checkpoint.logs.iter().zip(&offer.seals) {
            let replica = index_of(key).unwrap_or_default() as ReplicaIndex;
            seals.insert(replica, (log.length(), *seal));
        }
        let floor = Floor::new(offer.signed.clone(), floor_position, seals);
        batch.put(layout::floor(id), floor.encode());
        for (replica, nodes) in (0..).zip(&nodes) {
            replace_nodes(id, replica, nodes, self.storage(), &mut batch)?;
        }
        self.forget_staged(&mut batch)?;

        let known_counts = counts(&state.namespace);
        keys[known_counts.0..].iter().for_each(|key| {
            state.namespace.intern_replica(*key);
        });
        for name in &gen_names[known_counts.1..] {
            state.intern_gen_named(name)?;
        }
        let before = self.hear(state, &covered);
        let own = state.own;
        let (namespace, mut recorder) = state.recorder(self.subscribers.any());
        let mut log = LogOf(&batch);
        let rebuilt = namespace.rebuild(&touched, &mut log, &mut self.chunks(), &mut recorder);
        if let Err(error) = rebuilt {
            for (replica, heard, aside) in before {
                namespace.restore_heard(replica, heard);
                namespace.restore_set_aside(replica, aside);
            }
            return Err(error.into());
        }
        recorder.judged(own);
        for (key, log) in &checkpoint.logs {
            let replica = index_of(key).unwrap_or_default() as ReplicaIndex;
            if state.seals.log(replica).length() <= log.length() {
                *state.seals.log(replica) = log.clone();
            }
        }
        state.seals.own_position = floor_position;
        (state.seals.open, state.seals.end, state.next_position) =
            (moved.open, moved.end, moved.end);
        state.floor = Some(Arc::new(floor));
        state.with_pending = WithPending { batch, without: None };
        state.expect_flush();
        Ok(())
    }

    /// What is retained below a checkpoint and everything that is held here of that, by replica and
    /// number: for the sake of pins. The next compaction finds out what of it they need.
    fn with_all_held(&self, records: Vec<Vec<u8>>, covered: &[u64]) -> Result<Vec<Vec<u8>>> {
        let mut changes = BTreeMap::new();
        let mut take = |change: &Change<'_>| {
            if change.number <= covered[change.replica as usize] {
                changes.entry((change.replica, change.number)).or_insert_with(|| {
                    let mut record = Vec::new();
                    change.write_log_record(&mut record);
                    record
                });
            }
        };
        for record in records {
            visit_changes(&self.name, &record, &mut |change| {
                take(change);
                Ok(())
            })?;
        }
        self.stored_log().visit_from(0, &mut take)?;
        let mut records = Vec::new();
        changes.into_values().for_each(|change| append(&mut records, &change));
        Ok(records)
    }

    /// Takes note that everything up to these numbers is held and in effect. Gives what was held and set
    /// aside before.
    fn hear(&self, state: &mut State, covered: &[u64]) -> Vec<(ReplicaIndex, u64, Ranges)> {
        let mut before = Vec::new();
        for (replica, covered) in (0..).zip(covered) {
            let namespace = &mut state.namespace;
            let (heard, aside) = (namespace.heard(replica), namespace.set_aside(replica).clone());
            namespace.restore_heard(replica, heard.max(*covered));
            namespace.restore_set_aside(replica, join_at(*covered, &Ranges::new(), &aside));
            before.push((replica, heard, aside));
        }
        before
    }

    /// Moves what is held above a checkpoint to a position: records, where changes are, and the
    /// segments with their seals.
    fn move_above(
        &self,
        state: &State,
        covered: &[u64],
        mut position: u64,
        batch: &mut WriteBatch,
    ) -> Result<Moved> {
        let id = self.id();
        let mut first = state.floor.as_ref().map_or(0, |floor| floor.position);
        let mut segments: Vec<(u64, Segment)> = Vec::new();
        for_each_segment(id, self.storage(), first, state.seals.open.first, |end, segment| {
            segments.push((end + 1, segment));
            true
        })?;
        segments.push((state.seals.end, state.seals.open.segment.clone()));
        let mut open = OpenSegment { first: position, ..OpenSegment::default() };
        let last = segments.len() - 1;
        for (place, (end, mut segment)) in segments.into_iter().enumerate() {
            let begin = position;
            segment.byte_count = 0;
            let mut move_record = |_: u64, record: &[u8]| -> Result<()> {
                let mut kept = Vec::new();
                let mut last_numbers: Vec<(ReplicaIndex, u64)> = Vec::new();
                visit_changes(&self.name, record, &mut |change| {
                    if change.number > covered[change.replica as usize] {
                        change.write_log_record(&mut kept);
                        last_numbers.retain(|(replica, _)| *replica != change.replica);
                        last_numbers.push((change.replica, change.number));
                    }
                    Ok(())
                })?;
                if kept.is_empty() {
                    return Ok(());
                }
                segment.byte_count += kept.len();
                batch.put(layout::log(id, position), kept);
                for (replica, number) in last_numbers {
                    let key = layout::log_index(id, replica, number);
                    batch.put(key, position.to_be_bytes().to_vec());
                }
                position += 1;
                Ok(())
            };
            self.stored_log().visit_records(first, end, usize::MAX, &mut move_record)?;
            first = end;
            segment.seals.retain(|replica, (number, _)| *number > covered[*replica as usize]);
            if segment.own_last <= covered[state.own as usize] {
                segment.own_last = 0;
            }
            let is_open = place == last;
            let is_stored = position > begin && (!is_open || !segment.seals.is_empty());
            if is_stored {
                batch.put(layout::segment(id, position - 1), segment.encode());
            }
            if is_open {
                let stored_end = is_stored.then(|| position - 1);
                open = OpenSegment { first: begin, segment, stored_end };
            }
        }
        Ok(Moved { open, end: position })
    }
}
