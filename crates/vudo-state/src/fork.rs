//! Two logs under one key: finding where they part, and going on with one of them.
//!
//! ```text
//! held here    1 2 3 4a 5a 6a        the leaf of 4b is less than that of 4a, so everybody who hears
//! of a peer    1 2 3 4b 5b           of both goes on with 1 2 3 4b 5b; 4a to 6a are orphans
//! ```
//!
//! **The rule.** Of two branches the one with the greater leaf, at the first number where they differ,
//! is set aside. That is an order of logs in which a longer one comes behind its beginning, so it does
//! not matter who meets whom: whoever has heard of the same branches holds the same one.
//!
//! **What becomes of the other.** Its changes leave the log and all documents, and are kept as orphans.
//! The store that has written them writes them again under its new key at once. Those that nobody
//! writes again can be adopted.
//!
//! **The invariant.** A branch takes the place of another one in the batch that has the tables without
//! the other. It is verified before, against the part of the log that both have.
//!
//! A checkpoint stands: of what has been compacted nothing is replaced.

use std::collections::BTreeMap;

use vudo_crdt::head::SignedHead;
use vudo_crdt::merkle::{Hash, MerkleLog, leaf_hash};
use vudo_crdt::wire::Reader;
use vudo_crdt::{
    Change, FrameWriter, InMemory, Log, LogSource, Namespace, ReplicaIndex, ReplicaKey, Seal,
    SealError, SealedLog, SignedFrame, Touched, write_signed_frame,
};

use crate::compaction::join_at;
use crate::error::{Error, Result};
use crate::history::is_signature;
use crate::layout;
use crate::orphans::WrittenHere;
use crate::recovery::visit_changes;
use crate::replication::Replication;
use crate::rights::Rights;
use crate::seals::{for_each_segment, rewrite_segments};
use crate::shard::{Shard, State, StateGuard, WithPending};
use crate::storage::WriteBatch;
use crate::subscription::Origin;

/// The root of a replica's log at a length.
pub type RootAt = (u64, Hash);

/// Into so many parts each message of a search divides what is left of a log.
const SEARCH_PARTS: u64 = 16;

/// What is known of two logs of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogComparison {
    /// One is the beginning of the other.
    Same,
    /// The other side has to look at the roots of its log at these lengths.
    Narrow(Vec<RootAt>),
    /// They differ from this number on.
    DifferFrom(u64),
}

/// What has become of a peer's branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchOutcome {
    /// It has taken the place of the one that was held.
    Taken,
    /// The one that is held stands, which begins with this number.
    OwnStands(u64),
}

impl Replication {
    /// Compares a replica's log here with that of a peer, which the replica has signed as well, by the
    /// roots that the peer has told of it. Reads the whole log of the replica.
    ///
    /// # Errors
    /// What the peer says contradicts itself, the replica is this store's own
    /// ([`Error::OwnKeyElsewhere`]), the logs differ below a checkpoint, or the disk failed.
    pub fn compare_logs(&self, peer: &SignedHead, said: &[RootAt]) -> Result<LogComparison> {
        self.shard().check_outside()?;
        self.shard().compare_logs(peer, said)
    }

    /// A frame of a replica's changes from this number on that it has signed together.
    ///
    /// # Errors
    /// The disk failed, or [`Error::Unsigned`].
    pub fn branch_from(&self, replica: &ReplicaKey, number: u64) -> Result<Vec<u8>> {
        self.shard().check_outside()?;
        self.shard().branch_from(replica, number)
    }

    /// Goes on with a peer's branch of a replica's log where that is the one that stands, durably: see
    /// [`crate::Orphans`] for what becomes of the other one.
    ///
    /// # Errors
    /// The branch is malformed, is not what the replica has signed, or no branch, which is the peer's
    /// fault; the replica is this store's own ([`Error::OwnKeyElsewhere`]), the branch begins below a
    /// checkpoint, or the disk failed.
    pub fn apply_branch(&self, frame: &[u8]) -> Result<BranchOutcome> {
        self.shard().check_outside()?;
        let outcome = self.shard().apply_branch(frame)?;
        self.database().settle_later();
        Ok(outcome)
    }

    /// How often the end of a log has been replaced by another branch since the store was opened: what
    /// was held before may not be held any more when this has changed.
    pub fn branch_count(&self) -> u64 {
        self.shard().lock().branch_count
    }
}

/// A replica's log up to where it is on disk, leaf by leaf.
struct Leaves {
    /// Up to where it has been compacted.
    floor: MerkleLog,
    leaves: Vec<Hash>,
}

impl Leaves {
    /// The roots at these lengths, which ascend; those below the floor are left out.
    fn roots_at(&self, lengths: impl IntoIterator<Item = u64>) -> Vec<RootAt> {
        let mut log = self.floor.clone();
        let mut left = self.leaves.iter();
        let mut roots = Vec::new();
        for length in lengths {
            while log.length() < length
                && let Some(leaf) = left.next()
            {
                log.push(*leaf, |_, _| ());
            }
            if log.length() == length {
                roots.push((length, log.root()));
            }
        }
        roots
    }

    fn length(&self) -> u64 {
        self.floor.length() + self.leaves.len() as u64
    }
}

/// A peer's branch that has been verified, and what it takes the place of.
struct Branch {
    replica: ReplicaIndex,
    /// The first number of it.
    first: u64,
    /// The leaf of the change of that number that is held.
    held_leaf: Hash,
    /// The log with the branch.
    log: MerkleLog,
    seal: Seal,
    /// The last number before it at which a segment of the log ends.
    sealed: u64,
    /// The position of the first change behind that.
    position: u64,
    /// The changes between that and the branch, and those of the branch, as the log keeps them.
    records: Vec<u8>,
    change_count: u64,
    /// Replicas and Gens that are new here, in the order of their indexes.
    new_replicas: Vec<ReplicaKey>,
    new_gens: Vec<String>,
}

impl Shard {
    fn own_key(&self) -> ReplicaKey {
        ReplicaKey(self.key.verifying_key().to_bytes())
    }

    /// Remembers that another store writes under this one's key: opened again, this one mints another.
    pub(crate) fn own_key_is_elsewhere(&self) -> Error {
        let mut batch = WriteBatch::default();
        batch.put(layout::meta(layout::KEY_ELSEWHERE), Vec::new());
        match self.storage().commit(&batch) {
            Ok(()) => Error::OwnKeyElsewhere,
            Err(error) => error.into(),
        }
    }

    /// Finds out from what a frame's signatures say whether another store writes under this one's key,
    /// or a replica has signed two logs.
    pub(crate) fn check_logs(
        &self,
        sealed: std::result::Result<Vec<SealedLog>, SealError>,
        held: &BTreeMap<ReplicaKey, MerkleLog>,
    ) -> Result<Vec<SealedLog>> {
        let own = self.own_key();
        let is_held = |key| held.get(key).is_some_and(|log| log.length() > 0);
        match sealed {
            Err(SealError::OtherLog { signed }) if signed.head.replica == own => {
                Err(self.own_key_is_elsewhere())
            }
            // A log of which nothing is held is no other one: what was sent has been altered.
            Err(SealError::OtherLog { signed }) if !is_held(&signed.head.replica) => {
                Err(Error::Frame(SealError::OtherLog { signed }.to_string()))
            }
            Ok(sealed) if sealed.iter().any(|sealed| sealed.replica == own) => {
                Err(self.own_key_is_elsewhere())
            }
            other => Ok(other?),
        }
    }

    /// The logs of the replicas that a frame names. This store's own must not have written there what
    /// is not held here.
    pub(crate) fn held_of(
        &self,
        signed: &SignedFrame<'_>,
    ) -> Result<BTreeMap<ReplicaKey, MerkleLog>> {
        let own = self.own_key();
        if signed.frame().replicas().any(|key| key == own) {
            // The other store of this key may have written under the same numbers.
            self.seal_own()?;
        }
        self.held_in(self.lock(), signed)
    }

    /// [`Shard::held_of`] of a state that is locked.
    pub(crate) fn held_in(
        &self,
        mut state: StateGuard<'_>,
        signed: &SignedFrame<'_>,
    ) -> Result<BTreeMap<ReplicaKey, MerkleLog>> {
        let own = self.own_key();
        if !self.is_held_of_own(&state, signed) {
            let claimed = signed.head_of(&self.name, &own);
            return Err(match claimed {
                Some(claimed) if !claimed.holds(is_signature) => {
                    let number = claimed.head.length;
                    SealError::NotSigned { replica: own, number }.into()
                }
                _ => {
                    drop(state);
                    self.own_key_is_elsewhere()
                }
            });
        }
        let mut held = BTreeMap::new();
        for key in signed.frame().replicas() {
            let log = match state.namespace.replicas().find(&key) {
                Some(replica) => state.seals.log(replica).clone(),
                None => MerkleLog::new(),
            };
            held.insert(key, log);
        }
        Ok(held)
    }

    pub(crate) fn is_held_of_own(&self, state: &State, signed: &SignedFrame<'_>) -> bool {
        let own = state.namespace.replicas().key(state.own);
        signed.reached_of(own) <= state.namespace.heard(state.own)
    }

    /// Whether the logs of the replicas that a frame names are those that it was verified against. Where
    /// nothing of a replica was new, its changes were not looked at: once a branch or another floor has
    /// taken some of the log back, they would be.
    pub(crate) fn is_verified_by(
        &self,
        state: &mut State,
        signed: &SignedFrame<'_>,
        held: &BTreeMap<ReplicaKey, MerkleLog>,
    ) -> bool {
        let own = state.own;
        let is_same = held.iter().all(|(key, log)| match state.namespace.replicas().find(key) {
            // Of this store's own replica nothing is ever taken from a frame.
            Some(replica) => replica == own || state.seals.log(replica) == log,
            None => log.length() == 0,
        });
        // Another peer may have brought the same.
        is_same && self.is_held_of_own(state, signed)
    }

    /// The leaves of a replica's changes on disk.
    fn leaves_of(&self, key: &ReplicaKey) -> Result<Leaves> {
        let (floor, replica, names, end) = {
            let state = self.lock();
            let replica = state.namespace.replicas().find(key);
            let names: Vec<String> = state.namespace.gen_names().map(str::to_owned).collect();
            (state.floor.clone(), replica, names, state.seals.end)
        };
        let of_floor = floor.as_ref().and_then(|floor| floor.log_of(key)).cloned();
        let mut leaves = Leaves { floor: of_floor.unwrap_or_default(), leaves: Vec::new() };
        let Some(replica) = replica else { return Ok(leaves) };
        let from = floor.map_or(0, |floor| floor.position);
        self.stored_log().visit_range(from, end, &mut |change| {
            if change.replica == replica && change.number == leaves.length() + 1 {
                let name = |gen_index: u32| names[gen_index as usize].as_bytes();
                leaves.leaves.push(vudo_crdt::merkle::leaf_of(&self.name, key, change, name));
            }
        })?;
        Ok(leaves)
    }

    fn compare_logs(&self, peer: &SignedHead, said: &[RootAt]) -> Result<LogComparison> {
        let head = &peer.head;
        if head.namespace != *self.name || !peer.holds(is_signature) {
            return Err(Error::Frame("a log that its replica has not signed".to_owned()));
        }
        // Beyond the head that it has shown its log may have grown meanwhile, but nobody has signed that.
        let is_within = |(length, _): &&RootAt| *length <= head.length;
        let mut claims: Vec<RootAt> = said.iter().filter(is_within).copied().collect();
        if claims.is_empty() && !said.is_empty() {
            return Err(Error::Frame("roots beyond the head of the log".to_owned()));
        }
        let leaves = self.leaves_of(&head.replica)?;
        let own_key = self.own_key();
        claims.push((head.length, head.root));
        claims.sort_unstable();
        let common = leaves.length().min(head.length);
        let roots = leaves.roots_at(claims.iter().map(|(length, _)| *length));
        let differs = |(length, root): &RootAt| {
            roots.iter().find(|(found, _)| found == length).map(|(_, held)| held != root)
        };
        if head.replica == own_key {
            let is_longer = head.length > leaves.length();
            let is_contradicted = differs(&(head.length, head.root)).unwrap_or(is_longer);
            return if is_contradicted {
                Err(self.own_key_is_elsewhere())
            } else {
                Ok(LogComparison::Same)
            };
        }
        let floor = leaves.floor.length();
        let (mut equal, mut different) = (None, None);
        for claim in &claims {
            match differs(claim) {
                Some(false) => equal = equal.max(Some(claim.0)),
                Some(true) if different.is_none() => different = Some(claim.0),
                _ => {}
            }
        }
        let is_below_floor = different.is_some_and(|different| different <= floor)
            || common < floor
            || (!said.is_empty() && said.iter().all(|(length, _)| *length < floor));
        if is_below_floor {
            let (namespace, replica) = (self.name.to_string(), head.replica);
            return Err(Error::ForkBelowCheckpoint { namespace, replica, number: floor });
        }
        if equal >= different && different.is_some() && equal.is_some() {
            return Err(Error::Frame("roots of a log that contradict each other".to_owned()));
        }
        let from = equal.or((floor == 0).then_some(0));
        let to = different.unwrap_or(common);
        Ok(match (from, different) {
            (Some(from), Some(different)) if from + 1 == different => {
                LogComparison::DifferFrom(different)
            }
            (Some(from), None) if from == common => LogComparison::Same,
            _ => {
                let first = from.unwrap_or(floor);
                let step = (to - first).div_ceil(SEARCH_PARTS).max(1);
                let mut lengths: Vec<u64> = (first..to).step_by(step as usize).collect();
                lengths.push(to);
                LogComparison::Narrow(leaves.roots_at(lengths))
            }
        })
    }

    fn branch_from(&self, key: &ReplicaKey, number: u64) -> Result<Vec<u8>> {
        let sealed = self.seal_own()?;
        let unsigned = || Error::Unsigned { replica: *key, number };
        let place = sealed.keys.iter().position(|found| found == key);
        let replica = place.ok_or_else(unsigned)? as ReplicaIndex;
        let position = self.position_of(replica, number)?;
        let (end, seals) = self.segments_from(position, &sealed, 0)?;
        let mut writer = FrameWriter::new(&sealed.keys, sealed.gen_names.iter());
        let mut last = 0;
        self.stored_log().visit_range(position, end, &mut |change| {
            if change.replica == replica && change.number >= number {
                writer.push(change);
                last = change.number;
            }
        })?;
        let (_, seal) = seals.get(&replica).filter(|(at, _)| *at == last).ok_or_else(unsigned)?;
        let mut bytes = Vec::new();
        write_signed_frame(&writer.finish(), &[*seal], &mut bytes);
        Ok(bytes)
    }

    fn apply_branch(&self, bytes: &[u8]) -> Result<BranchOutcome> {
        let signed = SignedFrame::parse(bytes).map_err(Error::malformed)?;
        let (turn, sealing, mut state) = self.turn_to_replace_log()?;
        let branch = match self.verify_branch(&state, &signed)? {
            Ok(branch) => branch,
            Err(outcome) => return Ok(outcome),
        };
        let undo = (state.seals.clone(), state.namespace.set_aside(branch.replica).clone());
        let (replica, held) = (branch.replica, state.namespace.heard(branch.replica));
        let durable_vector = state.durable_vector.clone();
        let rights = state.rights.clone();
        if let Err(error) = self.replace_branch(&mut state, &branch) {
            // Nothing has been rebuilt then, and nothing is on disk.
            state.namespace.restore_heard(replica, held);
            state.namespace.restore_set_aside(replica, undo.1);
            (state.seals, state.durable_vector, state.rights) = (undo.0, durable_vector, rights);
            state.with_pending = WithPending::default();
            state.take_unit_back();
            state.unsaved_records.clear();
            return Err(error);
        }
        state.branch_count += 1;
        state.at_hand = None;
        state.judgement_count += 1;
        state.is_judgement_stale |= state.rights.is_some();
        self.publish(&mut state, Origin::Remote);
        // From here on nobody seals before this is on disk.
        drop(sealing);
        self.judge_and_write(turn, state)?;
        self.write_own_again()?;
        Ok(BranchOutcome::Taken)
    }

    /// Checks that a frame is a branch of a log that is held and that its replica has signed it. Gives
    /// what it is, or that the branch that is held stands.
    fn verify_branch(
        &self,
        state: &State,
        signed: &SignedFrame<'_>,
    ) -> Result<std::result::Result<Branch, BranchOutcome>> {
        let refused = |what: &str| Err(Error::Frame(what.to_owned()));
        let frame = signed.frame();
        let mut replicas = frame.replicas();
        let (Some(key), None, Some(first)) =
            (replicas.next(), replicas.next(), frame.changes().next())
        else {
            return refused("a branch of more or less than one replica");
        };
        let first = first.number;
        let mut numbers = (first..).zip(frame.changes());
        if !numbers.all(|(number, change)| change.number == number) {
            return refused("a branch with a gap in it");
        }
        let namespace = &state.namespace;
        let replica = namespace.replicas().find(&key);
        let Some(replica) = replica.filter(|index| first >= 1 && first <= namespace.heard(*index))
        else {
            return refused("a branch that begins behind the log that is held");
        };
        let (mut log, mut position) = (MerkleLog::new(), 0);
        let mut sealed = 0;
        if let Some(floor) = &state.floor {
            log = floor.log_of(&key).cloned().unwrap_or_default();
            (position, sealed) = (floor.position, log.length());
            if first <= sealed {
                let (namespace, number) = (self.name.to_string(), sealed);
                return Err(Error::ForkBelowCheckpoint { namespace, replica: key, number });
            }
        }
        let mut held_leaf = None;
        self.stored_log().visit_range(position, u64::MAX, &mut |change| {
            if change.replica == replica && held_leaf.is_none() {
                let leaf = leaf_hash(&self.name, namespace, change);
                match change.number == first {
                    true => held_leaf = Some(leaf),
                    false => log.push(leaf, |_, _| ()),
                }
            }
        })?;
        let Some(held_leaf) = held_leaf.filter(|_| log.length() + 1 == first) else {
            return Err(Error::damaged(format!("the log of '{}' lacks a change", self.name)));
        };
        let verified = signed.verify(&self.name, |_| Some(log.clone()), is_signature)?;
        let [verified] = &*verified else { return refused("a branch that is not signed") };
        if replica == state.own {
            return Err(self.own_key_is_elsewhere());
        }
        let first_change = frame.changes().next();
        let Some(first_change) = first_change else { return refused("an empty branch") };
        let leaf = vudo_crdt::merkle::frame_leaf_hash(&self.name, frame, &first_change);
        if leaf == held_leaf {
            return refused("a branch that does not differ from the log that is held");
        }
        if leaf > held_leaf && !cfg!(vudo_mutation = "greater_branch_taken") {
            return Ok(Err(BranchOutcome::OwnStands(first)));
        }
        let first_position = self.position_of(replica, first)?;
        // Where nothing of a segment is left of a replica, nobody asks for its seal there.
        let to = first_position.min(state.seals.open.first);
        for_each_segment(self.id(), self.storage(), 0, to, |_, segment| {
            sealed = segment.seals.get(&replica).map_or(sealed, |(number, _)| *number);
            true
        })?;
        let (mut records, mut change_count) = (Vec::new(), 0);
        let position = self.position_of(replica, sealed + 1)?;
        self.stored_log().visit_range(position, first_position + 1, &mut |change| {
            if change.replica == replica && (sealed + 1..first).contains(&change.number) {
                change.write_log_record(&mut records);
                change_count += 1;
            }
        })?;
        let (scratch, branch) = with_own_indexes(namespace, replica, first, signed)?;
        for change in branch.changes() {
            change.write_log_record(&mut records);
            change_count += 1;
        }
        let known = (namespace.replicas().keys().len(), namespace.gen_names().len());
        Ok(Ok(Branch {
            replica,
            first,
            held_leaf,
            log: verified.log.clone(),
            seal: verified.seal,
            sealed,
            position,
            records,
            change_count,
            new_replicas: scratch.replicas().keys()[known.0..].to_vec(),
            new_gens: scratch.gen_names().skip(known.1).map(str::to_owned).collect(),
        }))
    }

    /// Puts a branch in the place of the one that is held, in memory, with all that has to go to disk
    /// for it.
    fn replace_branch(&self, state: &mut State, branch: &Branch) -> Result<()> {
        let Branch { replica, first, sealed, .. } = *branch;
        let key = *state.namespace.replicas().key(replica);
        let mut batch = WriteBatch::default();
        let mut touched = Touched::default();
        self.take_from_log(branch, &mut batch, |change| {
            if change.number >= first {
                touched.add(change);
            }
        })?;
        rewrite_segments(
            self.id(),
            self.storage(),
            branch.position,
            (replica, sealed),
            &mut batch,
        )?;
        state
            .seals
            .open
            .segment
            .seals
            .retain(|found, (number, _)| *found != replica || *number <= sealed);
        *state.seals.log(replica) = branch.log.clone();
        WrittenHere::lose(self, &key, (first, &branch.held_leaf), &mut batch)?;
        let mut durable = vudo_crdt::VersionVector::new();
        for (found, number) in state.durable_vector.iter() {
            durable.advance(found, if found == key { sealed } else { number });
        }
        state.durable_vector = durable;
        for new in &branch.new_replicas {
            state.namespace.intern_replica(*new);
        }
        for new in &branch.new_gens {
            state.intern_gen_named(new)?;
        }
        let mut reader = Reader::new(&branch.records);
        while !reader.is_empty() {
            let change = Change::read_log_record(&mut reader).map_err(Error::malformed)?;
            if change.number >= first {
                touched.add(&change);
            }
        }
        // What peers were met with had the branch that has lost.
        if !cfg!(vudo_mutation = "cursors_outlast_branches") {
            self.cursors.clear();
        }
        state.with_pending = WithPending { batch, without: Some((replica, sealed)) };
        let unit = (replica, branch.log.length(), branch.seal);
        state.push_unit(&branch.records, branch.change_count, unit);
        state.namespace.restore_heard(replica, branch.log.length());
        let aside = state.namespace.set_aside(replica);
        let below = join_at(first - 1, aside, &vudo_crdt::Ranges::new());
        state.namespace.restore_set_aside(replica, below);
        let mut log = self.whole_log(state);
        if state.rights.is_some() {
            self.read_rights_again(state, &mut log)?;
        }
        let own = state.own;
        let (namespace, mut recorder) = state.recorder(self.subscribers.any());
        namespace.rebuild(&touched, &mut log, &mut self.chunks(), &mut recorder)?;
        recorder.judged(own);
        Ok(())
    }

    /// Takes the changes behind what both branches have out of the log, those of the branch that has
    /// lost to where orphans are.
    fn take_from_log(
        &self,
        branch: &Branch,
        batch: &mut WriteBatch,
        mut see: impl FnMut(&Change<'_>),
    ) -> Result<()> {
        let Branch { replica, first, sealed, .. } = *branch;
        let id = self.id();
        let mut take = |position: u64, record: &[u8]| -> Result<()> {
            let mut kept = Vec::new();
            let mut has_taken = false;
            visit_changes(&self.name, record, &mut |change| {
                if change.replica != replica || change.number <= sealed {
                    change.write_log_record(&mut kept);
                    return Ok(());
                }
                has_taken = true;
                see(change);
                if change.number >= first {
                    let mut orphan = Vec::new();
                    change.write_log_record(&mut orphan);
                    let of_branch = (first, &branch.held_leaf[..]);
                    batch.put(layout::orphan(id, replica, of_branch, change.number), orphan);
                }
                Ok(())
            })?;
            match (has_taken, kept.is_empty()) {
                (false, _) => {}
                (true, true) => batch.remove(layout::log(id, position)),
                (true, false) => batch.put(layout::log(id, position), kept),
            }
            Ok(())
        };
        let log = self.stored_log();
        log.visit_records(branch.position, u64::MAX, usize::MAX, &mut take)?;
        let from = layout::log_index(id, replica, sealed + 1);
        let to = layout::log_index(id, replica, u64::MAX);
        self.storage().scan(&from, &to, &mut |key, _| {
            batch.remove(key.to_vec());
            true
        })?;
        Ok(())
    }

    /// Reads the records of rights from the log, with who carries them: those that only changes
    /// carried which are not held any more are not held either.
    pub(crate) fn read_rights_again(
        &self,
        state: &mut State,
        log: &mut impl LogSource<Error = Error>,
    ) -> Result<()> {
        let Some(mut rights) = Rights::new(&self.name) else { return Ok(()) };
        let carried = crate::rights::carried_in(&state.namespace, log)?;
        let mut held = rights.hold(carried);
        let of_floor = state.rights.iter().flat_map(Rights::checkpoints_not_carried);
        held.extend(rights.hold(of_floor.map(|record| (record, None))));
        let id = self.id();
        let (from, to) = (layout::record(id, &[]), layout::record(id + 1, &[]));
        let batch = &mut state.with_pending.batch;
        self.storage().scan(&from, &to, &mut |key, _| {
            batch.remove(key.to_vec());
            true
        })?;
        state.unsaved_records.extend(held);
        state.rights = Some(rights);
        Ok(())
    }
}

/// The changes of a branch with the indexes of a namespace, and what tells those that are new there.
fn with_own_indexes(
    namespace: &Namespace,
    replica: ReplicaIndex,
    first: u64,
    signed: &SignedFrame<'_>,
) -> Result<(Namespace, Log)> {
    let (mut scratch, mut log) = (Namespace::new(0), Log::default());
    for key in namespace.replicas().keys() {
        scratch.intern_replica(*key);
    }
    for name in namespace.gen_names() {
        scratch.intern_gen(name);
    }
    scratch.restore_heard(replica, first - 1);
    let applied = scratch.apply_frame(signed.frame_bytes(), &mut InMemory, &mut log);
    applied.map_err(|error| Error::Frame(error.to_string()))?;
    Ok((scratch, log))
}
