//! Checkpoints: what owners have judged for good, so that it can be compacted.
//!
//! ```text
//! changes of a replica   1 2 3 4 5 6 7 8 9
//! one checkpoint         + + - - + +            + in effect, - set aside
//! another one            + + + -                for what is below both, in effect wins
//! judged for good        + + + - + +            above, the records decide
//! ```
//!
//! **The idea.** A checkpoint is a record like the others: a vector, and which changes below it are set
//! aside. What it says of those stands, whatever records come later. So whoever holds the same changes
//! judges them the same, whether it has compacted its log or not.
//!
//! **Several checkpoints.** A change below more than one of them is set aside only where all of those
//! set it aside. So while a checkpoint counts, what it has put into effect stays in effect, and that is
//! all that compaction relies on: it drops changes whose effects are in others that are in effect, and
//! none that are set aside or carry records. If more comes into effect below, all of it is there still.
//!
//! **Who counts.** A checkpoint counts where its issuer is an owner, or a replica that an owner has
//! certified, and a change carries it that the cuts on both accept. So a key that has been revoked
//! gives none any more. That change is above the checkpoint: whoever goes on from a compacted log gets
//! the record beside it, and it counts without the change that carries it while there is no cut on
//! either; once that change has come, nothing is different any more. A cut can lie before a
//! checkpoint: then it never counted. A log that has been compacted by it may lack what is in effect
//! instead; that store says so, gives the checkpoint to nobody and does not compact any more.

use std::collections::BTreeMap;

use vudo_crdt::checkpoint::Checkpoint;
use vudo_crdt::{Namespace, Ranges, ReplicaIndex, VersionVector};

use super::PublicKey;
use super::judgement::Rights;
use super::judging::{Carried, carried_by};
use super::record::{
    CHECKPOINT_RECORD_BYTES_MAX, CheckpointRecord, RIGHTS_GEN, Record, SignedRecord,
};
use crate::compaction::join_at;
use crate::error::Result;
use crate::recovery::visit_changes;
use crate::shard::{Shard, State};

/// What is judged for good of one replica.
#[derive(Clone, Debug, Default, PartialEq)]
struct Judged {
    /// The last number that is.
    last: u64,
    set_aside: Ranges,
}

/// What is judged for good.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Judgements(BTreeMap<PublicKey, Judged>);

impl Judgements {
    /// Takes a checkpoint in.
    pub(crate) fn add(&mut self, vector: &VersionVector, set_aside: &[(PublicKey, Ranges)]) {
        for (replica, last) in vector.iter() {
            let found = set_aside.binary_search_by_key(&replica, |(replica, _)| *replica);
            let of_replica = found.map_or_else(|_| Ranges::new(), |at| set_aside[at].1.clone());
            let judged = self.0.entry(replica).or_default();
            let common = judged.last.min(last);
            let both = in_both(&judged.set_aside, &of_replica);
            let longer = if last > judged.last { &of_replica } else { &judged.set_aside };
            judged.set_aside = join_at(common, &both, longer);
            judged.last = judged.last.max(last);
        }
    }

    /// Whether a change is in effect; `None` where that is not judged for good.
    pub(crate) fn of(&self, replica: &PublicKey, number: u64) -> Option<bool> {
        let judged = self.0.get(replica).filter(|judged| number <= judged.last)?;
        Some(!judged.set_aside.contains(number))
    }

    /// What is set aside of a replica's changes up to a number.
    pub(crate) fn set_aside(&self, replica: &PublicKey, up_to: u64) -> Ranges {
        let judged = self.0.get(replica).map(|judged| &judged.set_aside);
        judged.map_or_else(Ranges::new, |ranges| join_at(up_to, ranges, &Ranges::new()))
    }

    fn last(&self, replica: &PublicKey) -> u64 {
        self.0.get(replica).map_or(0, |judged| judged.last)
    }
}

/// The numbers that are in both.
fn in_both(one: &Ranges, other: &Ranges) -> Ranges {
    let mut both = Ranges::new();
    let (mut ones, mut others) = (one.iter().peekable(), other.iter().peekable());
    while let (Some((first, last)), Some((other_first, other_last))) = (ones.peek(), others.peek())
    {
        both.insert(*first.max(other_first), *last.min(other_last));
        match last < other_last {
            true => ones.next(),
            false => others.next(),
        };
    }
    both
}

/// What has to be retained below a checkpoint of owners.
pub(crate) struct RetainedRights {
    /// The records, with who carries them.
    pub(crate) carried: Vec<Carried>,
    /// By replica index: the changes that write to documents of rights.
    pub(crate) of_rights: Vec<Ranges>,
    /// By replica index: the changes that the checkpoint sets aside.
    pub(crate) set_aside: Vec<Ranges>,
}

impl RetainedRights {
    /// Of log records with the indexes of a namespace, which knows what is set aside.
    pub(crate) fn of(
        name: &str,
        namespace: &Namespace,
        records: &[Vec<u8>],
    ) -> Result<RetainedRights> {
        let none = vec![Ranges::new(); namespace.replicas().keys().len()];
        let mut retained =
            RetainedRights { carried: Vec::new(), of_rights: none.clone(), set_aside: none };
        let rights_gen = namespace.find_gen(RIGHTS_GEN);
        for record in records {
            visit_changes(name, record, &mut |change| {
                let (replica, number) = (change.replica, change.number);
                if namespace.set_aside(replica).contains(number) {
                    retained.set_aside[replica as usize].insert(number, number);
                }
                let mut writes = change.document_writes();
                if writes.any(|write| Some(write.gen_index) == rights_gen) {
                    retained.of_rights[replica as usize].insert(number, number);
                    retained.carried.extend(carried_by(namespace, rights_gen, change));
                }
                Ok(())
            })?;
        }
        Ok(retained)
    }
}

/// Why a namespace with owners is not compacted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCompacted {
    /// Only owners give checkpoints.
    #[error(
        "only its owners can compact it, and this store is none of theirs; a store that is behind takes \
         what one of them has compacted"
    )]
    NotOwner,
    /// It has been compacted by a checkpoint that does not count any more.
    #[error(
        "the key {issuer} has been revoked, and the cut lies before the checkpoint by which its log was \
         compacted here: make this store anew of a backup of one that was not compacted by it"
    )]
    Cut {
        /// Whose checkpoint it was.
        issuer: PublicKey,
    },
    /// The checkpoint takes too many bytes.
    #[error(
        "its checkpoint would take {bytes} bytes, and {CHECKPOINT_RECORD_BYTES_MAX} is the most: too \
         many stores have written to it, or too much is set aside"
    )]
    TooLarge {
        /// How many bytes.
        bytes: usize,
    },
}

impl Rights {
    /// Whether all that a checkpoint covers is judged for good, and nothing that it has in effect is set
    /// aside. What is set aside there may be in effect by another one.
    pub(crate) fn judges_as_checkpoint(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.logs.iter().all(|(replica, log)| {
            let found = checkpoint.set_aside.binary_search_by_key(replica, |(replica, _)| *replica);
            let none = Ranges::new();
            let set_aside = found.map_or(&none, |place| &checkpoint.set_aside[place].1);
            let of_records = self.judgements().set_aside(replica, log.length());
            let last = self.judgements().last(replica);
            in_both(&of_records, set_aside) == of_records
                && self.carries_records(replica, last, log.length())
        })
    }

    /// The checkpoints by which everything up to a floor is judged, and which no change below it carries:
    /// what goes with it to others.
    pub(crate) fn records_of_floor(&self, floor: &VersionVector) -> Vec<SignedRecord> {
        let is_above = |(replica, number): (&PublicKey, &u64)| floor.get(replica) < *number;
        let of_floor = self.counted().filter(|(record, carriers, _)| {
            floor.covers(&record.vector) && carriers.iter().all(is_above)
        });
        of_floor.map(|(_, _, signed)| signed.clone()).collect()
    }

    /// Whether an owner answers for a checkpoint: its signer has given one that counts, and it is judged
    /// as owners have.
    pub(crate) fn stands(&self, signer: &PublicKey, checkpoint: &Checkpoint) -> bool {
        self.counted_checkpoints().any(|record| record.issuer == *signer)
            && self.judges_as_checkpoint(checkpoint)
    }
}

impl Shard {
    /// Why this store may not compact the namespace, if it may not. Judges anew where that is due. The
    /// caller has the turn.
    pub(crate) fn may_compact(&self, state: &mut State) -> Result<Option<NotCompacted>> {
        if state.is_judgement_stale {
            self.judge_anew(state)?;
        }
        let State { namespace, own, floor, rights: Some(rights), .. } = &*state else {
            return Ok(None);
        };
        let issuer = *namespace.replicas().key(*own);
        let next_number = namespace.heard(*own) + 1;
        if !rights.may_give_checkpoints(&issuer, (&issuer, next_number)) {
            return Ok(Some(NotCompacted::NotOwner));
        }
        let floor = floor.as_ref().map(|floor| &floor.signed);
        let cut = floor.filter(|floor| !rights.judges_as_checkpoint(&floor.checkpoint));
        Ok(cut.map(|floor| NotCompacted::Cut { issuer: floor.owner }))
    }

    /// Gives an owner's checkpoint over a state of the namespace, as this store's next change, unless that
    /// state has one of this store and nothing else above it. Gives why it cannot, where it cannot. The
    /// caller has the turn since the state was the one of now.
    pub(crate) fn give_checkpoint(
        &self,
        at: &Namespace,
        now_milliseconds: u64,
    ) -> Result<Option<NotCompacted>> {
        let mut state = self.lock();
        let issuer = *state.namespace.replicas().key(state.own);
        let next_number = state.namespace.heard(state.own) + 1;
        let vector = at.version_vector();
        let Some(rights) = &state.rights else { return Ok(None) };
        if !rights.may_give_checkpoints(&issuer, (&issuer, next_number)) {
            return Ok(Some(NotCompacted::NotOwner));
        }
        let is_given = |record: &CheckpointRecord| {
            let mut with_record = record.vector.clone();
            with_record.advance(issuer, record.vector.get(&issuer) + 1);
            record.issuer == issuer && with_record == vector
        };
        if rights.counted_checkpoints().any(is_given) {
            return Ok(None);
        }
        let mut set_aside = Vec::new();
        for (replica, key) in (0 as ReplicaIndex..).zip(at.replicas().keys()) {
            let of_replica = at.set_aside(replica);
            let below = join_at(vector.get(key), of_replica, &Ranges::new());
            if !below.is_empty() {
                set_aside.push((*key, below));
            }
        }
        set_aside.sort_unstable_by_key(|(key, _)| *key);
        let record = Record::Checkpoint(CheckpointRecord { issuer, vector, set_aside });
        let record = SignedRecord::sign(record, &self.name, &self.key.to_bytes())?;
        let bytes = record.bytes().len();
        if bytes > CHECKPOINT_RECORD_BYTES_MAX {
            return Ok(Some(NotCompacted::TooLarge { bytes }));
        }
        // It judges as the records did, so nothing is to be judged anew.
        self.write_new_records(&mut state, vec![record], now_milliseconds)?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use vudo_crdt::ReplicaKey;
    use vudo_testkit::Random;

    use super::*;

    /// Of each number what each checkpoint says, one by one.
    #[test]
    fn a_change_is_set_aside_where_all_checkpoints_above_it_set_it_aside() {
        let replica = ReplicaKey([1; 32]);
        let mut random = Random::new(11);
        for _ in 0..2_000 {
            let mut checkpoints = Vec::new();
            for _ in 0..random.between(1, 5) {
                let last = random.between(1, 12);
                let mut ranges = Ranges::new();
                for _ in 0..random.below(4) {
                    let first = random.between(1, last);
                    ranges.insert(first, random.between(first, last));
                }
                let mut vector = VersionVector::new();
                vector.advance(replica, last);
                checkpoints.push((vector, ranges));
            }
            let mut judgements = Judgements::default();
            for (vector, ranges) in &checkpoints {
                judgements.add(vector, &[(replica, ranges.clone())]);
            }
            for number in 1..14 {
                let mut above =
                    checkpoints.iter().filter(|(vector, _)| number <= vector.get(&replica));
                let is_judged = above.clone().next().is_some();
                let is_in_effect = above.any(|(_, ranges)| !ranges.contains(number));
                let expected = is_judged.then_some(is_in_effect);
                assert_eq!(judgements.of(&replica, number), expected, "{checkpoints:?} {number}");
            }
        }
    }
}
