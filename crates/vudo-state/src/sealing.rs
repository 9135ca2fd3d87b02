//! Sealing what this store writes, and frames that end where everybody has sealed.

use std::sync::{Arc, MutexGuard, PoisonError};

use ed25519_dalek::{Signer, SigningKey};
use vudo_crdt::head::{Head, SignedHead};
use vudo_crdt::merkle::{Hash, MerkleLog, leaf_of};
use vudo_crdt::{FrameWriter, ReplicaIndex, ReplicaKey, Seal, VersionVector, write_signed_frame};

use crate::database::{Database, OpenOptions};
use crate::error::{Error, Result};
use crate::layout::{self, NamespaceId};
use crate::notices::SharedSchema;
use crate::replication::OutgoingFrame;
use crate::seals::{OpenSegment, Seals, SealsByReplica, Segment, for_each_segment};
use crate::shard::{Commit, FlushTurn, Shard, StateGuard};
use crate::storage::{Storage, WriteBatch};

/// What is on disk and sealed at one moment.
pub(crate) struct Sealed {
    own: ReplicaIndex,
    pub(crate) keys: Vec<ReplicaKey>,
    pub(crate) gen_names: Vec<String>,
    vector: VersionVector,
    open: OpenSegment,
    /// The first position behind it.
    end: u64,
}

/// A log that ends with a segment.
pub(crate) struct EndedLog {
    /// By replica index.
    pub(crate) logs: Vec<MerkleLog>,
    /// The first position behind it.
    pub(crate) end: u64,
    /// This store's seal at its last number there.
    pub(crate) own_seal: Option<(ReplicaIndex, (u64, Seal))>,
}

impl Seals {
    /// Puts this store's latest seal into a segment that it answers for.
    pub(crate) fn put_own_seal(&self, own: ReplicaIndex, segment: &mut Segment) {
        if let Some((number, seal)) = &self.own_seal
            && *number == segment.own_last
        {
            segment.seals.insert(own, (*number, *seal));
            segment.own_last = 0;
        }
    }
}

pub(crate) fn seal(key: &SigningKey, namespace: &str, log: &MerkleLog) -> Seal {
    let head = Head {
        namespace: namespace.to_owned(),
        replica: ReplicaKey(key.verifying_key().to_bytes()),
        length: log.length(),
        root: log.root(),
    };
    Seal { root: head.root, signature: key.sign(&head.bytes_to_sign()).to_bytes() }
}

impl Shard {
    /// Waits for the turn to write to disk as [`Shard::turn_with_whole_log`] does, with nobody sealing: for
    /// whoever replaces a part of the log, and with it segments that sealing would write back.
    pub(crate) fn turn_to_replace_log(
        &self,
    ) -> Result<(FlushTurn<'_>, MutexGuard<'_, ()>, StateGuard<'_>)> {
        loop {
            let (turn, state) = self.turn_with_whole_log()?;
            // Whoever seals may be waiting for the state.
            drop(state);
            let sealing = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
            let state = self.lock();
            if state.durable_count == state.applied_count {
                return Ok((turn, sealing, state));
            }
        }
    }

    /// The state, for whoever seals. What takes the place of a part of the log is on disk then: a failure
    /// may have kept it from getting there, and the segments on disk are those of before.
    pub(crate) fn lock_to_seal(&self) -> Result<(MutexGuard<'_, ()>, StateGuard<'_>)> {
        loop {
            let sealing = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
            let state = self.lock();
            if state.with_pending.batch.writes.is_empty() {
                return Ok((sealing, state));
            }
            drop(state);
            drop(sealing);
            self.write_replacement()?;
        }
    }

    fn write_replacement(&self) -> Result<()> {
        let (turn, state) = self.turn();
        // Whoever had the turn may have written it.
        if state.with_pending.batch.writes.is_empty() {
            return Ok(());
        }
        self.flush_in_turn(turn, state, Commit::Now)
    }

    /// Hashes what this store has written since it did so last and is on disk, and signs it where a
    /// segment ends.
    pub(crate) fn seal_own(&self) -> Result<Sealed> {
        let (_sealing, mut state) = self.lock_to_seal()?;
        let own = state.own;
        let mut sealed = Sealed {
            own,
            keys: state.namespace.replicas().keys().to_vec(),
            gen_names: state.namespace.gen_names().map(str::to_owned).collect(),
            vector: state.durable_vector.clone(),
            open: state.seals.open.clone(),
            end: state.seals.end,
        };
        let mut log = state.seals.log(own).clone();
        let (from, own_seal) = (state.seals.own_position, state.seals.own_seal);
        drop(state);
        let own_key = sealed.keys[sealed.own as usize];
        let mut batch = WriteBatch::default();
        if from < sealed.end || own_seal.is_none() {
            let mut ends = Vec::new();
            // What was the open segment may have ended just where hashing did.
            let first_end = from.saturating_sub(1);
            for_each_segment(
                self.id(),
                self.storage(),
                first_end,
                sealed.open.first,
                |end, segment| {
                    ends.push((end, segment));
                    true
                },
            )?;
            let mut start = from;
            let hash = |from: u64, to: u64, log: &mut MerkleLog| {
                self.stored_log().visit_range(from, to, &mut |change| {
                    if change.replica == sealed.own && change.number == log.length() + 1 {
                        let gen_name =
                            |gen_index: u32| sealed.gen_names[gen_index as usize].as_bytes();
                        log.push(leaf_of(&self.name, &own_key, change, gen_name), |_, _| ());
                    }
                })
            };
            for (end, mut segment) in ends {
                hash(start, end + 1, &mut log)?;
                start = end + 1;
                if segment.own_last != 0 {
                    let seal = seal(&self.key, &self.name, &log);
                    segment.seals.insert(sealed.own, (log.length(), seal));
                    segment.own_last = 0;
                    batch.put(layout::segment(self.id(), end), segment.encode());
                }
            }
            hash(start, sealed.end, &mut log)?;
        }
        let length = log.length();
        let is_sealed = length == 0 || own_seal.is_some_and(|(number, _)| number == length);
        let own_seal = match is_sealed {
            true => own_seal,
            false => Some((length, seal(&self.key, &self.name, &log))),
        };
        if !batch.writes.is_empty() {
            self.storage().commit(&batch)?;
        }
        let mut state = self.lock();
        *state.seals.log(sealed.own) = log;
        state.seals.own_position = sealed.end;
        state.seals.own_seal = own_seal;
        state.seals.put_own_seal(sealed.own, &mut sealed.open.segment);
        Ok(sealed)
    }

    /// Ends the open segment where the log ends on disk. The caller holds the turn, or is alone.
    fn end_segment(&self) -> Result<Sealed> {
        let mut sealed = self.seal_own()?;
        if sealed.end > sealed.open.first {
            let mut batch = WriteBatch::default();
            sealed.open.store(self.id(), sealed.end - 1, &mut batch);
            self.storage().commit(&batch)?;
            self.lock().seals.open = OpenSegment { first: sealed.end, ..OpenSegment::default() };
        }
        Ok(sealed)
    }

    /// Ends the open segment and stores all seals, so that the log can be passed on without the key.
    /// Nobody else may use the namespace meanwhile.
    fn seal_all(&self) -> Result<()> {
        self.end_segment()?;
        let mut batch = WriteBatch::default();
        // Whoever opens the store under another key takes what is hashed from here.
        batch.put(layout::hashes(self.id()), self.lock().seals.encode_hashes());
        Ok(self.storage().commit(&batch)?)
    }

    /// Ends the open segment, and stores the logs as they are there. The caller holds the turn, and
    /// has just written a checkpoint of the tables.
    pub(crate) fn end_log(&self) -> Result<EndedLog> {
        let Sealed { own, end, .. } = self.end_segment()?;
        let stored = self.storage().get(&layout::hashes(self.id()))?.unwrap_or_default();
        // Those in memory may be ahead of the disk.
        let mut seals = Seals::decode_hashes(&stored)
            .map_err(|what| Error::damaged(format!("the hashes of '{}': {what}", self.name)))?;
        let (own_log, own_seal) = {
            let mut state = self.lock();
            (state.seals.log(own).clone(), state.seals.own_seal)
        };
        *seals.log(own) = own_log;
        (seals.own_position, seals.open.first) = (end, end);
        let mut batch = WriteBatch::default();
        batch.put(layout::hashes(self.id()), seals.encode_hashes());
        self.storage().commit(&batch)?;
        let own_seal = own_seal.map(|seal| (own, seal));
        Ok(EndedLog { logs: seals.logs, end, own_seal })
    }

    /// The length and the root of a replica's log: everything that has been applied of others, and
    /// what is on disk of this store.
    pub(crate) fn log_root(&self, replica: &ReplicaKey) -> Result<(u64, Hash)> {
        self.seal_own()?;
        let mut state = self.lock();
        let found = state.namespace.replicas().find(replica);
        let log = found.map_or_else(MerkleLog::new, |index| state.seals.log(index).clone());
        Ok((log.length(), log.root()))
    }

    /// What is on disk, and the root of each replica's log in the order of the vector: `None` where
    /// more has been applied meanwhile.
    pub(crate) fn log_roots(&self) -> Result<(VersionVector, Vec<Option<Hash>>)> {
        let Sealed { vector, .. } = self.seal_own()?;
        let mut state = self.lock();
        let mut roots = Vec::new();
        for (key, number) in vector.iter() {
            let found = state.namespace.replicas().find(&key);
            let log = found.map(|replica| state.seals.log(replica));
            roots.push(log.filter(|log| log.length() == number).map(|log| log.root()));
        }
        Ok((vector, roots))
    }

    /// The head of a length that a replica has signed, where the log has that signature.
    pub(crate) fn signed_head_of(
        &self,
        replica: &ReplicaKey,
        number: u64,
    ) -> Result<Option<SignedHead>> {
        let sealed = self.seal_own()?;
        let place = sealed.keys.iter().position(|key| key == replica);
        let Some(place) = place.filter(|_| (1..=sealed.vector.get(replica)).contains(&number))
        else {
            return Ok(None);
        };
        let place = place as ReplicaIndex;
        if let Some(floor) = self.lock().floor.clone()
            && number <= floor.vector.get(replica)
        {
            let found = floor.seals.get(&place).filter(|(sealed, _)| *sealed == number);
            return Ok(found.map(|(_, seal)| seal.head(&self.name, *replica, number)));
        }
        let position = self.position_of(place, number)?;
        // The first segment from there on is the one with the change.
        let (_, seals) = self.segments_from(position, &sealed, 0)?;
        let found = seals.get(&place).filter(|(sealed_number, _)| *sealed_number == number);
        Ok(found.map(|(_, seal)| seal.head(&self.name, *replica, number)))
    }

    /// See [`crate::Replication::frame_since`].
    pub(crate) fn frame_since(
        &self,
        since: &VersionVector,
        bytes_max: usize,
    ) -> Result<Option<OutgoingFrame>> {
        let sealed = self.seal_own()?;
        self.check_above_floor(since)?;
        let covered: Vec<u64> = sealed.keys.iter().map(|key| since.get(key)).collect();
        let mut start = u64::MAX;
        for (replica, key) in sealed.keys.iter().enumerate() {
            if sealed.vector.get(key) > covered[replica] {
                let first = self.position_of(replica as ReplicaIndex, covered[replica] + 1)?;
                start = start.min(first);
            }
        }
        if start == u64::MAX {
            return Ok(None);
        }
        let (end, seals) = self.segments_from(start, &sealed, bytes_max)?;
        let mut writer = FrameWriter::new(&sealed.keys, sealed.gen_names.iter());
        let mut vector = since.clone();
        // In the order in which the frame names them.
        let mut reached: Vec<(ReplicaIndex, u64)> = Vec::new();
        self.stored_log().visit_range(start, end, &mut |change| {
            if change.number <= covered[change.replica as usize] {
                return;
            }
            writer.push(change);
            match reached.iter_mut().find(|(replica, _)| *replica == change.replica) {
                Some((_, number)) => *number = change.number,
                None => reached.push((change.replica, change.number)),
            }
        })?;
        // A compaction may have dropped some of it meanwhile.
        self.check_above_floor(since)?;
        let mut of_frame = Vec::with_capacity(reached.len());
        for (replica, number) in reached {
            let key = sealed.keys[replica as usize];
            match seals.get(&replica) {
                Some((sealed_number, seal)) if *sealed_number == number => of_frame.push(*seal),
                _ => return Err(Error::Unsigned { replica: key, number }),
            }
            vector.advance(key, number);
        }
        let changes = writer.change_count();
        let mut bytes = Vec::new();
        write_signed_frame(&writer.finish(), &of_frame, &mut bytes);
        Ok((changes > 0).then_some(OutgoingFrame { bytes, vector, changes }))
    }

    /// Whether the log goes on from what a vector covers.
    fn check_above_floor(&self, since: &VersionVector) -> Result<()> {
        let Some(floor) = self.lock().floor.clone() else { return Ok(()) };
        let missing = floor.vector.iter().find(|(replica, number)| since.get(replica) < *number);
        match missing {
            None => Ok(()),
            Some((replica, number)) => Err(Error::Compacted {
                namespace: self.name.to_string(),
                replica,
                number,
                held: since.get(&replica),
            }),
        }
    }

    /// The segments from the one with a position on that fit into so many bytes, and one at least.
    /// Gives the first position behind them, and each writer's last seal there.
    pub(crate) fn segments_from(
        &self,
        start: u64,
        sealed: &Sealed,
        bytes_max: usize,
    ) -> Result<(u64, SealsByReplica)> {
        let mut next = start;
        let mut seals = SealsByReplica::new();
        let mut byte_count = 0usize;
        let mut take = |end: u64, segment: &Segment| {
            let with_segment = byte_count.saturating_add(segment.frame_bytes());
            let fits = byte_count == 0 || with_segment <= bytes_max;
            if fits {
                byte_count = with_segment;
                next = end + 1;
                seals.extend(segment.seals.iter().map(|(replica, seal)| (*replica, *seal)));
            }
            fits
        };
        let mut all_fit = true;
        let (id, first_open) = (self.id(), sealed.open.first);
        for_each_segment(id, self.storage(), start, first_open, |end, segment| {
            all_fit = take(end, &segment);
            all_fit
        })?;
        if all_fit && sealed.end > first_open {
            take(sealed.end - 1, &sealed.open.segment);
        }
        Ok((next, seals))
    }
}

impl Database {
    /// Seals every log of a store with the key that wrote it, before the store goes on without it.
    /// Gives how many changes it has written in each namespace.
    pub(crate) fn seal_with(
        storage: &Arc<dyn Storage>,
        key: &SigningKey,
    ) -> Result<Vec<(NamespaceId, u64)>> {
        let mut written = Vec::new();
        for (name, id) in crate::database::namespace_ids(&**storage)? {
            let (options, schema) = (OpenOptions::default(), SharedSchema::default());
            let (storage, key) = (storage.clone(), key.clone());
            let shard = Shard::open(&name, id, storage, key, 0, &options, &schema)?;
            shard.seal_all()?;
            let state = shard.lock();
            written.push((id, state.namespace.heard(state.own)));
        }
        Ok(written)
    }
}
