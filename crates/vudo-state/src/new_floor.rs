//! A checkpoint from elsewhere becomes the floor of the log here.
//!
//! ```text
//! log before   | 1 2 3 . . . 7 8 |                         7 and 8 are above the checkpoint
//! log after                      | retained | 7 8 |        positions go on, none is used twice
//!                                           ^ floor
//! ```
//!
//! **The rule.** What is held here above the checkpoint stays, and goes to others as before. The state at
//! the checkpoint must lack nothing of what has been done by changes that are held here: so nobody can
//! make a store forget what it holds.
//!
//! **Two floors.** Where the log has been compacted here as well, and neither checkpoint covers the other,
//! each replica's log is that of the checkpoint that has more of it. States are joins, so together they
//! make the join of both states: whatever that refers to is of a replica whose log one of them had up to
//! there, and retained. It gets a checkpoint of its own, signed here.
//!
//! **Owners.** Where the namespace has owners, the checkpoint must be one of theirs, and every record that
//! is held here below it must be retained in it. What is set aside is judged by the records of the new log
//! then, which is what anybody who holds the same changes comes to. Joining two floors, what one of them
//! has in effect is in effect. What another store than an owner's signs thereby it keeps to itself.
//!
//! **The invariant.** Log, floor and tables take their places in one batch, so a crash leaves the old log
//! or the new one.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use ed25519_dalek::Signer;
use vudo_crdt::checkpoint::{Checkpoint, SignedCheckpoint};
use vudo_crdt::merkle::{MerkleLog, leaf_hash};
use vudo_crdt::wire::Reader;
use vudo_crdt::{
    Change, InMemory, LogSource, Namespace, Ranges, ReplicaIndex, ReplicaKey, Seal, StateRoot,
    Touched,
};

use crate::catch_up::{check_room_for_replicas_of, refused};
use crate::checkpoint_offer::CheckpointOffer;
use crate::compaction::join_at;
use crate::error::{Error, Result};
use crate::floor::{Floor, Nodes, replace_nodes};
use crate::layout;
use crate::limits::CATCH_UP_ROUNDS_MAX;
use crate::recovery::visit_changes;
use crate::rights::{Judgements, RIGHTS_GEN, RetainedRights, Rights, SignedRecord, carried_in};
use crate::seals::{OpenSegment, SealsByReplica, Segment, for_each_segment};
use crate::shard::{RECORD_BYTES_MAX, Shard, State, WithPending};
use crate::storage::{StorageError, WriteBatch};
use crate::subscription::Origin;

/// A checkpoint with all that is retained below it, found to be what it says.
pub(crate) struct NewFloor {
    pub(crate) offer: CheckpointOffer,
    /// The state there, with the indexes of the namespace here and new ones behind them.
    pub(crate) state: Namespace,
    /// How many replicas and Gens the namespace here had.
    pub(crate) known_counts: (usize, usize),
    /// What is retained, as the log keeps it: of each replica in the order of its numbers.
    pub(crate) records: Vec<Vec<u8>>,
    /// By replica index: hashes in place of dropped changes; `None` where those that are held stay.
    pub(crate) nodes: Vec<Option<Nodes>>,
    /// What is retained of rights, where the namespace has owners.
    pub(crate) rights: Option<RetainedRights>,
}

/// The log records of a batch.
struct LogOf<'a>(&'a WriteBatch);

impl LogSource for LogOf<'_> {
    type Error = Error;

    fn visit(&mut self, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        for (key, record) in &self.0.writes {
            let Some(record) = record.as_ref().filter(|_| layout::is_log(key)) else { continue };
            let mut reader = Reader::new(&record.bytes);
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

/// A namespace with the same indexes and nothing in it.
pub(crate) fn like(namespace: &Namespace) -> Namespace {
    let mut empty = Namespace::new(0);
    namespace.replicas().keys().iter().for_each(|key| {
        empty.intern_replica(*key);
    });
    namespace.gen_names().for_each(|name| {
        empty.intern_gen(name);
    });
    empty
}

/// Joins a change to a state that is in memory as a whole.
pub(crate) fn join(state: &mut Namespace, change: &Change<'_>) -> Result<()> {
    let joined = state.apply_own(change, &mut InMemory, &mut ());
    joined.map(|_| ()).map_err(|_| Error::damaged("a state in memory"))
}

/// Appends a change to records of the log.
pub(crate) fn append(records: &mut Vec<Vec<u8>>, change: &[u8]) {
    let has_room = |record: &&mut Vec<u8>| record.len() + change.len() <= RECORD_BYTES_MAX;
    match records.last_mut().filter(has_room) {
        Some(record) => record.extend_from_slice(change),
        None => records.push(change.to_vec()),
    }
}

pub(crate) fn root_of(state: &Namespace) -> Option<StateRoot> {
    state.write_pages(&mut InMemory, |_| Ok::<(), StorageError>(())).ok()
}

pub(crate) fn counts(namespace: &Namespace) -> (usize, usize) {
    (namespace.replicas().keys().len(), namespace.gen_names().len())
}

fn record_of(change: &Change<'_>) -> Vec<u8> {
    let mut record = Vec::new();
    change.write_log_record(&mut record);
    record
}

impl Shard {
    /// Goes on from a peer's checkpoint whose parts are staged, durably.
    pub(crate) fn go_on_from(&self, peer: &ReplicaKey, offer: &CheckpointOffer) -> Result<()> {
        let mut round = 0;
        let (pinning, turn, sealing, mut state, new) = loop {
            // Nobody waits for that.
            let known = like(&self.lock().namespace);
            let new = self.verify_staged(peer, offer, known)?;
            // A pin that is set from here on is of a moment that has this checkpoint below it.
            let pinning = self.pinning.lock().unwrap_or_else(PoisonError::into_inner);
            let (turn, sealing, state) = self.turn_to_replace_log()?;
            if counts(&state.namespace) == new.known_counts {
                break (pinning, turn, sealing, state, new);
            }
            round += 1;
            if round == CATCH_UP_ROUNDS_MAX {
                let new = self.verify_staged(peer, offer, like(&state.namespace))?;
                break (pinning, turn, sealing, state, new);
            }
        };
        // The turn ends with the state unlocked.
        if let Err(error) = self.take_floor(&mut state, new) {
            drop(state);
            return Err(error);
        }
        self.publish(&mut state, Origin::Remote);
        // From here on nobody seals before this is on disk.
        drop(sealing);
        drop(state);
        let written = self.checkpoint();
        drop(turn);
        drop(pinning);
        self.durable_listeners.notify();
        // A callback may write or set a pin.
        self.subscribers.run_callbacks();
        written
    }

    fn take_floor(&self, state: &mut State, mut new: NewFloor) -> Result<()> {
        if state.durable_vector.covers(&new.offer.signed.checkpoint.vector()) {
            return Ok(());
        }
        if state.kept_chunks.is_some() {
            return Err(Error::CompactionRuns { namespace: self.name.to_string() });
        }
        // Others may have brought new ones since it was looked at.
        check_room_for_replicas_of(&new.offer.signed.checkpoint, &state.namespace)?;
        self.check_owner(state, &new)?;
        self.check_held(state, &mut new)?;
        if let Some(floor) = state.floor.clone()
            && !new.offer.signed.checkpoint.vector().covers(&floor.vector)
        {
            new = self.with_own_floor(&floor, new, state.rights.as_ref())?;
        }
        self.replace_below(state, new)
    }

    /// Checks that an owner has signed a checkpoint, where the namespace has any.
    fn check_owner(&self, state: &State, new: &NewFloor) -> Result<()> {
        let (Some(rights), Some(retained)) = (&state.rights, &new.rights) else { return Ok(()) };
        let SignedCheckpoint { checkpoint, owner, .. } = &new.offer.signed;
        let with = |mut rights: Rights| {
            rights.hold(retained.carried.iter().cloned());
            rights.hold(new.offer.records.iter().map(|record| (record.clone(), None)));
            rights.stands(owner, checkpoint)
        };
        if with(rights.clone()) || cfg!(vudo_mutation = "checkpoint_of_anybody") {
            return Ok(());
        }
        match Rights::new(&self.name).is_some_and(with) {
            true => {
                let (namespace, owner) = (self.name.to_string(), *owner);
                Err(Error::CheckpointRevoked { namespace, owner })
            }
            false => refused("no owner of the namespace has signed it"),
        }
    }

    /// Checks what is held here below a checkpoint: its logs must be the checkpoint's as far as both
    /// have them, and the state there must lack nothing of what they did.
    fn check_held(&self, state: &State, new: &mut NewFloor) -> Result<()> {
        let namespace = &state.namespace;
        let checkpoint = &new.offer.signed.checkpoint;
        let vector = checkpoint.vector();
        let keys = namespace.replicas().keys();
        let covered: Vec<u64> = keys.iter().map(|key| vector.get(key)).collect();
        // By replica index: the log here as far as it has been read, and what it has to become.
        let mut logs: Vec<Option<(MerkleLog, &MerkleLog)>> = vec![None; keys.len()];
        for (key, signed) in &checkpoint.logs {
            let Some(replica) = namespace.replicas().find(key) else { continue };
            let held = namespace.heard(replica);
            if replica == state.own && held < signed.length() {
                return Err(self.own_key_is_elsewhere());
            }
            let below = state.floor.as_ref().and_then(|floor| floor.log_of(key));
            let below = below.cloned().unwrap_or_default();
            // Below the floor nobody can tell the log of another length.
            if held >= signed.length() && below.length() <= signed.length() {
                logs[replica as usize] = Some((below, signed));
            }
        }
        let (at, rights) = (&mut new.state, &new.rights);
        let rights_gen = namespace.find_gen(RIGHTS_GEN);
        let is_lacking = |change: &Change<'_>| {
            let mut writes = change.document_writes();
            let retained = rights.as_ref().map(|rights| &rights.of_rights[change.replica as usize]);
            retained.is_some_and(|retained| !retained.contains(change.number))
                && writes.any(|write| Some(write.gen_index) == rights_gen)
        };
        let (mut failure, mut lacks_record) = (None, false);
        self.stored_log().visit_from(0, &mut |change| {
            let replica = change.replica as usize;
            if change.number > covered[replica] || failure.is_some() {
                return;
            }
            failure = join(at, change).err();
            lacks_record |= is_lacking(change);
            if let Some((log, _)) = &mut logs[replica]
                && change.number == log.length() + 1
            {
                log.push(leaf_hash(&self.name, namespace, change), |_, _| ());
            }
        })?;
        failure.map_or(Ok(()), Err)?;
        for (replica, logs) in (0..).zip(logs) {
            let Some((_, signed)) = logs.filter(|(log, signed)| log != *signed) else { continue };
            return Err(match replica == state.own {
                true => self.own_key_is_elsewhere(),
                false => Error::ForkBelowCheckpoint {
                    namespace: self.name.to_string(),
                    replica: keys[replica as usize],
                    number: signed.length(),
                },
            });
        }
        if lacks_record {
            return refused("it lacks records of rights that are held here");
        }
        let is_unchecked = cfg!(vudo_mutation = "checkpoint_without_held");
        match is_unchecked || root_of(at) == Some(checkpoint.state) {
            true => Ok(()),
            false => refused("it lacks what changes that are held here have done"),
        }
    }

    /// Joins a checkpoint and the one up to which the log has been compacted here, neither of which
    /// covers the other.
    fn with_own_floor(
        &self,
        floor: &Floor,
        new: NewFloor,
        rights: Option<&Rights>,
    ) -> Result<NewFloor> {
        let differ = || Error::CheckpointsDiffer { namespace: self.name.to_string() };
        let (here, there) = (&floor.signed.checkpoint, &new.offer.signed.checkpoint);
        // Where nobody owns the namespace, what is set aside is not retained.
        let can_join = rights
            .map_or_else(|| here.set_aside.is_empty(), |rights| rights.judges_as_checkpoint(here));
        if !can_join {
            return Err(differ());
        }
        let vector = there.vector();
        let mut judged = Judgements::default();
        judged.add(&floor.vector, &here.set_aside);
        judged.add(&vector, &there.set_aside);
        let NewFloor { offer, mut state, known_counts, records, mut nodes, rights } = new;
        let keys = state.replicas().keys().to_vec();
        let mut set_aside = Vec::new();
        let mut set_aside_there = Vec::new();
        let mut made_of_kept = like(&state);
        for (replica, key) in (0..).zip(&keys) {
            let ranges = judged.set_aside(key, u64::MAX);
            set_aside_there.push(state.set_aside(replica).clone());
            made_of_kept.restore_set_aside(replica, ranges.clone());
            state.restore_set_aside(replica, ranges.clone());
            if !ranges.is_empty() {
                set_aside.push((*key, ranges));
            }
        }
        set_aside.sort_unstable_by_key(|(key, _)| *key);
        let is_longer_here = |key: &ReplicaKey| floor.vector.get(key) > vector.get(key);
        let stays: Vec<bool> = keys.iter().map(is_longer_here).collect();
        let mut kept = Vec::new();
        for record in records {
            visit_changes(&self.name, &record, &mut |change| {
                let replica = change.replica as usize;
                if stays[replica] {
                    return Ok(());
                }
                append(&mut kept, &record_of(change));
                if set_aside_there[replica].contains(change.number) {
                    join(&mut state, change)?;
                }
                join(&mut made_of_kept, change)
            })?;
        }
        self.stored_log().visit_records(0, floor.position, usize::MAX, &mut |_, record| {
            visit_changes(&self.name, record, &mut |change| {
                if !stays[change.replica as usize] {
                    return Ok(());
                }
                append(&mut kept, &record_of(change));
                join(&mut made_of_kept, change)?;
                join(&mut state, change)
            })
        })?;
        // Where one of the two has another log of some replica, this is not what the states say.
        let root = root_of(&made_of_kept).filter(|root| root_of(&state) == Some(*root));
        let root = root.ok_or_else(differ)?;
        let mut logs: BTreeMap<ReplicaKey, (MerkleLog, Seal)> = BTreeMap::new();
        for ((key, log), seal) in offer.signed.checkpoint.logs.iter().zip(&offer.seals) {
            logs.insert(*key, (log.clone(), *seal));
        }
        for (replica, key) in keys.iter().enumerate().filter(|(replica, _)| stays[*replica]) {
            let log = floor.log_of(key).cloned().ok_or_else(differ)?;
            let (_, seal) = floor.seals.get(&(replica as ReplicaIndex)).ok_or_else(differ)?;
            logs.insert(*key, (log, *seal));
            nodes[replica] = None;
        }
        let seals = logs.values().map(|(_, seal)| *seal).collect();
        let logs = logs.into_iter().map(|(key, (log, _))| (key, log)).collect();
        let namespace = self.name.to_string();
        let checkpoint = Checkpoint { namespace, logs, set_aside, state: root };
        let signature = self.key.sign(&checkpoint.bytes_to_sign()).to_bytes();
        let owner = ReplicaKey(self.key.verifying_key().to_bytes());
        let signed = SignedCheckpoint { checkpoint, owner, signature };
        let offer = CheckpointOffer { signed, seals, records: offer.records };
        Ok(NewFloor { offer, state, known_counts, records: kept, nodes, rights })
    }

    /// Makes the log anew, of what is retained below the checkpoint and what is held above, and the
    /// documents of that, with all that has to go to disk for it.
    fn replace_below(&self, state: &mut State, new: NewFloor) -> Result<()> {
        let NewFloor { offer, state: at, known_counts, records, nodes, .. } = new;
        let checkpoint = &offer.signed.checkpoint;
        let vector = checkpoint.vector();
        let keys = at.replicas().keys();
        let covered: Vec<u64> = keys.iter().map(|key| vector.get(key)).collect();
        keys[known_counts.0..].iter().for_each(|key| {
            state.namespace.intern_replica(*key);
        });
        for name in at.gen_names().skip(known_counts.1) {
            state.intern_gen_named(name)?;
        }
        drop(at);
        let id = self.id();
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
            batch.put_cold(layout::log(id, position), record);
            position += 1;
        }
        let floor_position = position;
        let moved = self.move_above(state, &covered, position, &mut batch)?;
        let (mut seals, mut new_logs) = (SealsByReplica::new(), Vec::new());
        for ((key, log), seal) in checkpoint.logs.iter().zip(&offer.seals) {
            let replica = state.namespace.intern_replica(*key);
            seals.insert(replica, (log.length(), *seal));
            if state.seals.log(replica).length() <= log.length() {
                new_logs.push((replica, log));
            }
        }
        let floor = Floor::new(offer.signed.clone(), floor_position, seals);
        batch.put(layout::floor(id), floor.encode());
        for (replica, nodes) in (0..).zip(&nodes) {
            if let Some(nodes) = nodes {
                replace_nodes(id, replica, nodes, self.storage(), &mut batch)?;
            }
        }
        self.forget_staged(&mut batch)?;
        let rights_before = (state.rights.clone(), state.unsaved_records.clone());
        let set_aside = self.judge_new_log(state, &covered, &offer.records, &mut batch)?;
        // Documents that nothing new is about stay as they are.
        let mut touched = Touched::default();
        let namespace = &state.namespace;
        LogOf(&batch).visit(&mut |change| {
            let was_in_effect = change.number <= namespace.heard(change.replica)
                && !namespace.set_aside(change.replica).contains(change.number);
            let is_in_effect = !set_aside[change.replica as usize].contains(change.number);
            if was_in_effect != is_in_effect {
                touched.add(change);
            }
        })?;
        let before = self.hear(state, &covered, set_aside);
        let own = state.own;
        let (namespace, mut recorder) = state.recorder(self.subscribers.any());
        let mut log = LogOf(&batch);
        let rebuilt = namespace.rebuild(&touched, &mut log, &mut self.chunks(), &mut recorder);
        if let Err(error) = rebuilt {
            for (replica, heard, aside) in before {
                namespace.restore_heard(replica, heard);
                namespace.restore_set_aside(replica, aside);
            }
            (state.rights, state.unsaved_records) = rights_before;
            return Err(error.into());
        }
        recorder.judged(own);
        // What is being compacted was marked by an earlier judgement.
        state.judgement_count += 1;
        state.is_judgement_stale = false;
        for (replica, log) in new_logs {
            *state.seals.log(replica) = log.clone();
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
                let place = changes.entry((change.replica, change.number));
                place.or_insert_with(|| record_of(change));
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

    /// What is set aside by the new log, which is in the batch, by replica index. Where the namespace has
    /// owners its records are those that count from here on; else nothing is set aside below.
    fn judge_new_log(
        &self,
        state: &mut State,
        covered: &[u64],
        of_floor: &[SignedRecord],
        batch: &mut WriteBatch,
    ) -> Result<Vec<Ranges>> {
        let Some(mut rights) = Rights::new(&self.name) else {
            let namespace = &state.namespace;
            let above = |(replica, covered): (ReplicaIndex, &u64)| {
                join_at(*covered, &Ranges::new(), namespace.set_aside(replica))
            };
            return Ok((0..).zip(covered).map(above).collect());
        };
        let mut held = rights.hold(carried_in(&state.namespace, &mut LogOf(batch))?);
        let of_own_floor = state.rights.iter().flat_map(Rights::checkpoints_not_carried);
        let of_floors = of_own_floor.chain(of_floor.iter().cloned());
        held.extend(rights.hold(of_floors.map(|record| (record, None))));
        let keys = state.namespace.replicas().keys();
        let names: Vec<&str> = state.namespace.gen_names().collect();
        let mut judged = vec![Ranges::new(); keys.len()];
        LogOf(batch).visit(&mut |change| {
            let gen_name = |gen_index: u32| names[gen_index as usize].as_bytes();
            let replica = change.replica as usize;
            if !rights.is_effective(&keys[replica], change, gen_name) {
                judged[replica].insert(change.number, change.number);
            }
        })?;
        let id = self.id();
        self.forget_between(&layout::record(id, &[]), &layout::record(id + 1, &[]), batch)?;
        state.unsaved_records.extend(held);
        state.rights = Some(rights);
        Ok(judged)
    }

    /// Takes note that everything up to these numbers is held, and what of it is set aside. Gives what was
    /// before.
    fn hear(
        &self,
        state: &mut State,
        covered: &[u64],
        set_aside: Vec<Ranges>,
    ) -> Vec<(ReplicaIndex, u64, Ranges)> {
        let mut before = Vec::new();
        for ((replica, covered), set_aside) in (0..).zip(covered).zip(set_aside) {
            let namespace = &mut state.namespace;
            let (heard, aside) = (namespace.heard(replica), namespace.set_aside(replica).clone());
            namespace.restore_heard(replica, heard.max(*covered));
            namespace.restore_set_aside(replica, set_aside);
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
