//! Changes of branches that have lost against others, and writing them again.
//!
//! An orphan is held by whoever held its branch when the other one came. The store that has written it
//! writes it again at once, under the key that it has since. Anybody else who has the right may adopt
//! it: what is held of somebody who has written it again already is known by its time and by what it
//! says, and is not written twice. Nobody can know what others write again at the same time: of three
//! stores of one key, two may write again what both of them hold, and counters count that twice.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use vudo_crdt::wire::{Reader, write_varint};
use vudo_crdt::{AdoptError, Adoption, Change, LogSource, ReplicaIndex, ReplicaKey, Strategy};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::layout;
use crate::rights::RIGHTS_GEN;
use crate::shard::{Shard, State};
use crate::storage::WriteBatch;

/// Changes of one replica that have no effect because another branch of its log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphans {
    /// Whose changes they are.
    pub replica: ReplicaKey,
    /// The number of the first of them.
    pub first: u64,
    /// How many there are.
    pub changes: u64,
    /// The start of the leaf of the first of them, which tells branches apart; zeros where they lay
    /// behind what was damaged of a log: see [`Database::cut_damaged_logs`].
    pub leaf: [u8; 8],
}

/// What adopting has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdoptReport {
    /// Changes that have been written again.
    pub adopted: u64,
    /// Changes that somebody had written again already.
    pub known: u64,
    /// Operations on bounded counters, which only their writer's rights allow, that were left out.
    pub left_out: u64,
    /// Changes that stay orphans, and why.
    pub left: Vec<String>,
}

impl Database {
    /// The orphans of the handle's namespace that this store holds.
    ///
    /// # Errors
    /// The disk failed, or something in the store is damaged.
    pub fn orphans(&self) -> Result<Vec<Orphans>> {
        let shard = self.shard()?;
        let found = shard.stored_orphans()?;
        let state = shard.lock();
        let described = found.into_iter().map(|(branch, changes)| Orphans {
            replica: key_of(&state, branch.replica),
            first: branch.first,
            changes: changes.len() as u64,
            leaf: branch.leaf,
        });
        Ok(described.collect())
    }

    /// Writes the orphans of the handle's namespace again as this store's own changes, durably: those
    /// of one replica, or all. Each stays one change, with its times. What this store has no right to
    /// write stays an orphan.
    ///
    /// # Errors
    /// The disk failed, or something in the store is damaged. What has been adopted stays adopted.
    pub fn adopt(&self, replica: Option<&ReplicaKey>) -> Result<AdoptReport> {
        let shard = self.shard()?;
        let index = match replica {
            None => None,
            Some(key) => match shard.lock().namespace.replicas().find(key) {
                None => return Ok(AdoptReport::default()),
                found => found,
            },
        };
        shard.adopt(|branch| index.is_none_or(|index| branch.replica == index))
    }
}

/// What tells a branch from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BranchId {
    replica: ReplicaIndex,
    first: u64,
    leaf: [u8; 8],
}

/// In place of the leaf of a branch: its changes have not lost against others, but lay behind what was
/// damaged of the log.
pub(crate) const OF_CUT_LOG: [u8; 8] = [0; 8];

/// By branch: its changes as the log keeps them, ascending.
type OrphansByBranch = BTreeMap<BranchId, Vec<(u64, Vec<u8>)>>;

/// What this store has written under a key that it had before: how many changes, and the branch of
/// them that has lost, where one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenHere {
    pub(crate) count: u64,
    lost: Option<(u64, [u8; 8])>,
}

impl WrittenHere {
    pub(crate) fn encode(count: u64) -> Vec<u8> {
        WrittenHere { count, lost: None }.to_bytes()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.count);
        if let Some((first, leaf)) = self.lost {
            write_varint(&mut out, first);
            out.extend_from_slice(&leaf);
        }
        out
    }

    fn read(shard: &Shard, key: &ReplicaKey) -> Result<Option<WrittenHere>> {
        let Some(stored) = shard.storage().get(&layout::written_here(shard.id(), key))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&stored);
        let mut read = || {
            let count = reader.varint()?;
            let is_lost = !reader.is_empty();
            let lost = if is_lost { Some((reader.varint()?, reader.array()?)) } else { None };
            Ok(WrittenHere { count, lost })
        };
        read().map(Some).map_err(|what: vudo_crdt::MalformedFrame| {
            Error::damaged(format!("what was written under an earlier key: {what}"))
        })
    }

    /// Takes down that a branch has lost, where this store has written it.
    pub(crate) fn lose(
        shard: &Shard,
        key: &ReplicaKey,
        (first, leaf): (u64, &[u8]),
        batch: &mut WriteBatch,
    ) -> Result<()> {
        let found = WrittenHere::read(shard, key)?;
        if let Some(written) = found.filter(|it| it.lost.is_none() && it.count >= first) {
            let leaf = leaf.first_chunk().copied().unwrap_or_default();
            let written = WrittenHere { lost: Some((first, leaf)), ..written };
            batch.put(layout::written_here(shard.id(), key), written.to_bytes());
        }
        Ok(())
    }
}

impl Shard {
    fn stored_orphans(&self) -> Result<OrphansByBranch> {
        let mut found = OrphansByBranch::new();
        let (from, to) = (layout::orphans(self.id()), layout::orphans(self.id() + 1));
        self.storage().scan(&from, &to, &mut |key, record| {
            let mut reader = Reader::new(&key[from.len()..]);
            let mut read = || {
                let replica = ReplicaIndex::from_be_bytes(reader.array()?);
                let first = u64::from_be_bytes(reader.array()?);
                Ok::<_, vudo_crdt::MalformedFrame>(BranchId {
                    replica,
                    first,
                    leaf: reader.array()?,
                })
            };
            // The layout has written the key.
            if let Ok(branch) = read() {
                let number = layout::trailing_u64(key);
                found.entry(branch).or_default().push((number, record.to_vec()));
            }
            true
        })?;
        Ok(found)
    }

    /// Writes again what this store has written itself under a key that it had before, where another
    /// branch has taken the place of that.
    pub(crate) fn write_own_again(&self) -> Result<()> {
        let mut own = BTreeSet::new();
        for branch in self.stored_orphans()?.into_keys() {
            let key = key_of(&self.lock(), branch.replica);
            let written = WrittenHere::read(self, &key)?;
            if written.is_some_and(|written| written.lost == Some((branch.first, branch.leaf))) {
                own.insert(branch);
            }
        }
        if own.is_empty() {
            return Ok(());
        }
        let report = self.adopt(|branch| own.contains(branch))?;
        tracing::warn!(
            "another store wrote under the key that this one had: {} changes were written again \
             under the new key",
            report.adopted
        );
        for left in report.left {
            tracing::warn!("{left}");
        }
        Ok(())
    }

    fn adopt(&self, is_wanted: impl Fn(&BranchId) -> bool) -> Result<AdoptReport> {
        let mut report = AdoptReport::default();
        let (turn, mut state) = self.turn_with_whole_log()?;
        let mut orphans = self.stored_orphans()?;
        orphans.retain(|branch, _| is_wanted(branch));
        if orphans.is_empty() {
            return Ok(report);
        }
        let mut adopted = Ok(());
        for (branch, changes) in orphans {
            adopted = self.adopt_branch(&mut state, branch, &changes, &mut report);
            if adopted.is_err() {
                break;
            }
        }
        self.publish(&mut state, crate::subscription::Origin::Local);
        self.judge_and_write(turn, state)?;
        adopted.map(|()| report)
    }

    fn adopt_branch(
        &self,
        state: &mut State,
        branch: BranchId,
        changes: &[(u64, Vec<u8>)],
        report: &mut AdoptReport,
    ) -> Result<()> {
        let BranchId { replica, first, leaf } = branch;
        let own = state.own;
        let mut adoption = Adoption::new(replica, first - 1, own);
        // Where the log was cut, peers may have sent some of it again, under its own numbers: all up to
        // the last of them, though what they have compacted is not in the log.
        let is_cut = leaf == OF_CUT_LOG;
        let sent_again = if is_cut { state.namespace.heard(replica) } else { 0 };
        // By what is alike of them: the orphans, and how many changes of others are like them.
        let mut alike: BTreeMap<[u8; 32], (Vec<u64>, usize)> = BTreeMap::new();
        for (number, record) in changes {
            alike.entry(likeness(&read(record)?)).or_default().0.push(*number);
        }
        self.whole_log(state).visit(&mut |change| {
            if change.replica == replica && (is_cut || change.number < first) {
                adoption.see(change);
            } else if let Some((_, count)) = alike.get_mut(&likeness(change)) {
                *count += 1;
            }
        })?;
        let mut known: BTreeSet<u64> = alike
            .into_values()
            .flat_map(|(numbers, count)| numbers.into_iter().take(count))
            .collect();
        let numbers = changes.iter().map(|(number, _)| *number);
        known.extend(numbers.filter(|number| *number <= sent_again));
        let mut has_records = false;
        for (number, record) in changes {
            let change = read(record)?;
            let place = layout::orphan(self.id(), replica, (first, &leaf), *number);
            if known.contains(number) {
                report.known += 1;
                state.with_pending.batch.remove(place);
                // Counters have grown since where later changes are in the log.
                if *number > sent_again {
                    adoption.see(&change);
                }
                continue;
            }
            let next = state.namespace.heard(own) + 1;
            let mut chunks = self.chunks();
            let rewritten = match self.check_adoption(state, &change) {
                Err(why) => Err(why),
                Ok(()) => {
                    match adoption.rewrite(&mut state.namespace, &change, next, &mut chunks) {
                        Ok(body) => Ok(body),
                        Err(AdoptError::Chunk(error)) => return Err(error.into()),
                        Err(AdoptError::TooLarge) => {
                            Err("it is too large to be written again".to_owned())
                        }
                    }
                }
            };
            let body = match rewritten {
                Ok(body) => body,
                Err(why) => {
                    let replica = key_of(state, replica);
                    report.left.push(format!("change {number} of {replica}: {why}"));
                    adoption.see(&change);
                    continue;
                }
            };
            let change = Change { replica: own, number: next, now: change.now, body: &body };
            let (namespace, mut recorder) = state.recorder(self.subscribers.any());
            namespace.apply_own(&change, &mut chunks, &mut recorder)?;
            state.applied_count += 1;
            state.with_pending.batch.remove(place);
            report.adopted += 1;
            has_records |= writes_to(state, &change).any(|(name, _)| name == RIGHTS_GEN);
        }
        report.left_out += adoption.left_out();
        if has_records && state.rights.is_some() {
            let mut log = self.whole_log(state);
            self.read_rights_again(state, &mut log)?;
            state.is_judgement_stale = true;
        }
        Ok(())
    }

    /// Whether this store may write what a change writes.
    fn check_adoption(
        &self,
        state: &State,
        change: &Change<'_>,
    ) -> std::result::Result<(), String> {
        let Some(rights) = &state.rights else { return Ok(()) };
        let own = key_of(state, state.own);
        let number = state.namespace.heard(state.own) + 1;
        // A record of rights answers for itself, whoever carries it.
        let others = writes_to(state, change).filter(|(name, _)| name != RIGHTS_GEN);
        for (gen_name, key) in others {
            let checked = rights.check_write(&own, number, &gen_name, &key);
            checked.map_err(|missing| format!("{gen_name}/{}: {missing}", key.escape_ascii()))?;
        }
        Ok(())
    }
}

fn key_of(state: &State, replica: ReplicaIndex) -> ReplicaKey {
    *state.namespace.replicas().key(replica)
}

/// The documents that a change writes to: the names of their Gens, and their keys.
fn writes_to(state: &State, change: &Change<'_>) -> impl Iterator<Item = (String, Vec<u8>)> {
    let names: Vec<&str> = state.namespace.gen_names().collect();
    let mut found = Vec::new();
    change.for_each_document(|gen_index, key| {
        found.push((names[gen_index as usize].to_owned(), key.to_vec()));
    });
    found.into_iter()
}

fn read(record: &[u8]) -> Result<Change<'_>> {
    let change = Change::read_log_record(&mut Reader::new(record));
    change.map_err(|what| Error::damaged(format!("an orphan: {what}")))
}

/// What a change and what is made of it by adopting it have in common: its time, the documents and
/// cells that it writes to, and the values of its registers. Gen indexes are the store's.
fn likeness(change: &Change<'_>) -> [u8; 32] {
    let mut bytes = Vec::new();
    write_varint(&mut bytes, change.now.milliseconds());
    for write in change.document_writes() {
        write_varint(&mut bytes, write.gen_index.into());
        vudo_crdt::wire::write_bytes(&mut bytes, write.key);
        write_varint(&mut bytes, write.life);
        for (cell, value) in write.cells() {
            write_varint(&mut bytes, cell.field_number().into());
            let is_register = matches!(
                Strategy::from_tag(cell.tag()),
                Some(Strategy::Immutable | Strategy::Lww | Strategy::LwwContent)
            );
            let value = if is_register { value } else { &[] };
            vudo_crdt::wire::write_bytes(&mut bytes, value);
        }
    }
    Sha256::digest(&bytes).into()
}
