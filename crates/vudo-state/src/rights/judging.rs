//! Carrying a judgement out: what arrives is judged as it arrives, and where a record changes what
//! was judged before, that is judged anew under the same lock and goes to disk in the same batch.
//!
//! Recovery: records go to disk with the changes that carry them, and the judgement with the tables,
//! beside a digest of the records that it is of. Where opening finds other records than those, it
//! judges anew.

use std::collections::BTreeSet;

use vudo_crdt::wire::Reader;
use vudo_crdt::{Change, GenIndex, LogSource, Namespace, Ranges, ReplicaIndex, SignedFrame};

use super::judgement::Rights;
use super::record::{RIGHTS_GEN, SignedRecord, carried, document_key, record_field};
use super::{PublicKey, RecordId};
use crate::error::{Error, Result};
use crate::layout::{self, NamespaceId};
use crate::recovery::StoredLog;
use crate::shard::{FlushTurn, Shard, State, StateGuard};
use crate::storage::{Storage, WriteBatch};
use crate::subscription::Origin;

/// The log on disk, and what is not there yet.
pub(crate) struct WholeLog<'a> {
    stored: StoredLog<'a>,
    /// Of this replica the changes above a number are about to leave the disk.
    without: Option<(ReplicaIndex, u64)>,
    pending: Vec<u8>,
}

impl LogSource for WholeLog<'_> {
    type Error = Error;

    fn visit(&mut self, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        let without = self.without;
        let is_leaving = |change: &Change<'_>| {
            without
                .is_some_and(|(replica, above)| change.replica == replica && change.number > above)
        };
        self.stored.visit_from(0, &mut |change| {
            if !is_leaving(change) {
                visit(change);
            }
        })?;
        let mut reader = Reader::new(&self.pending);
        while !reader.is_empty() {
            let change = Change::read_log_record(&mut reader);
            visit(&change.map_err(|what| Error::damaged(format!("changes in memory: {what}")))?);
        }
        Ok(())
    }
}

/// What a frame has changed before it was applied.
#[derive(Default)]
pub(crate) struct Arriving {
    /// What was set aside before of replicas whose changes it brings.
    set_aside: Vec<(ReplicaIndex, Ranges)>,
    /// The rights before, where it brings records, and those of them that were not on disk.
    rights: Option<(Rights, BTreeSet<RecordId>)>,
    /// Whether its records say other things of older changes than those before.
    pub(crate) has_other_judgement: bool,
}

impl Rights {
    /// The rights of a namespace as they are on disk; `None` where it has no owners.
    pub(crate) fn open(
        namespace: &str,
        id: NamespaceId,
        storage: &dyn Storage,
    ) -> Result<Option<Rights>> {
        let Some(mut rights) = Rights::new(namespace) else { return Ok(None) };
        let mut damaged = None;
        let (from, to) = (layout::record(id, &[]), layout::record(id + 1, &[]));
        storage.scan(&from, &to, &mut |_, stored| {
            if let Err(what) = rights.restore(stored) {
                damaged = Some(Error::damaged(format!("a record of rights: {what}")));
            }
            damaged.is_none()
        })?;
        rights.restored();
        damaged.map_or(Ok(Some(rights)), Err)
    }

    /// Whether the judgement on disk is of these records.
    pub(crate) fn is_judged(&self, id: NamespaceId, storage: &dyn Storage) -> Result<bool> {
        let judged = storage.get(&layout::judged(id))?;
        Ok(judged.is_some_and(|digest| digest == self.digest()))
    }
}

/// A record, and replica and number of a change that carries it.
pub(crate) type Carried = (SignedRecord, Option<(PublicKey, u64)>);

/// The records that the changes of a log carry, and who carries them. Its indexes are the namespace's.
pub(crate) fn carried_in(
    namespace: &Namespace,
    log: &mut impl LogSource<Error = Error>,
) -> Result<Vec<Carried>> {
    let (mut records, rights_gen) = (Vec::new(), namespace.find_gen(RIGHTS_GEN));
    log.visit(&mut |change| records.extend(carried_by(namespace, rights_gen, change)))?;
    Ok(records)
}

/// The records that a change carries.
pub(crate) fn carried_by(
    namespace: &Namespace,
    rights_gen: Option<GenIndex>,
    change: &Change<'_>,
) -> Vec<Carried> {
    let carrier = (*namespace.replicas().key(change.replica), change.number);
    let of_rights = change.document_writes().filter(|write| Some(write.gen_index) == rights_gen);
    of_rights.filter_map(|write| carried(&write)).map(|record| (record, Some(carrier))).collect()
}

/// Sets a change aside before it is joined, where it is not in effect. Its indexes are the namespace's.
pub(crate) fn set_aside_if_not_covered(
    rights: &Rights,
    namespace: &mut Namespace,
    change: &Change<'_>,
) {
    let names: Vec<&str> = namespace.gen_names().collect();
    let gen_name =
        |gen_index: u32| names.get(gen_index as usize).map_or(&[][..], |name| name.as_bytes());
    if !rights.is_effective(namespace.replicas().key(change.replica), change, gen_name) {
        set_aside(namespace, change.replica, change.number);
    }
}

fn set_aside(namespace: &mut Namespace, replica: ReplicaIndex, number: u64) {
    let mut ranges = namespace.set_aside(replica).clone();
    ranges.insert(number, number);
    namespace.restore_set_aside(replica, ranges);
}

impl Arriving {
    /// Of whom changes have been set aside.
    pub(crate) fn set_aside_replicas(&self) -> impl Iterator<Item = ReplicaIndex> {
        self.set_aside.iter().map(|(replica, _)| *replica)
    }
}

impl State {
    /// Takes in the records that new changes of a frame carry, and sets those of its changes aside
    /// that are not in effect. Gives what [`State::take_back`] needs.
    pub(crate) fn judge_arriving(&mut self, signed: &SignedFrame<'_>) -> Arriving {
        let mut arriving = Arriving::default();
        let State { namespace, rights: Some(rights), unsaved_records, is_judged, .. } = self else {
            return arriving;
        };
        let frame = signed.frame();
        let gen_names = frame.gen_names();
        let gen_name = |gen_index: u32| gen_names[gen_index as usize];
        let keys: Vec<PublicKey> = frame.replicas().collect();
        let held = |key| namespace.replicas().find(key).map_or(0, |index| namespace.heard(index));
        let heard: Vec<u64> = keys.iter().map(held).collect();
        let is_new = |change: &Change<'_>| change.number > heard[change.replica as usize];
        let mut records = Vec::new();
        for change in frame.changes().filter(is_new) {
            let carrier = (keys[change.replica as usize], change.number);
            let of_rights = change
                .document_writes()
                .filter(|write| gen_name(write.gen_index) == RIGHTS_GEN.as_bytes());
            records.extend(
                of_rights.filter_map(|write| carried(&write)).map(|record| (record, Some(carrier))),
            );
        }
        if !records.is_empty() {
            let before = rights.clone();
            let changed = rights.hold(records);
            arriving.has_other_judgement = !rights.judges_as(&before);
            arriving.rights = Some((before, unsaved_records.clone()));
            unsaved_records.extend(changed);
        }
        for change in frame.changes().filter(is_new) {
            let key = &keys[change.replica as usize];
            if rights.is_effective(key, &change, gen_name) {
                continue;
            }
            let replica = namespace.intern_replica(*key);
            if arriving.set_aside.iter().all(|(known, _)| *known != replica) {
                arriving.set_aside.push((replica, namespace.set_aside(replica).clone()));
            }
            set_aside(namespace, replica, change.number);
            *is_judged = true;
        }
        arriving
    }

    /// Undoes [`State::judge_arriving`] where the frame could not be applied.
    pub(crate) fn take_back(&mut self, arriving: Arriving) {
        for (replica, ranges) in arriving.set_aside {
            self.namespace.restore_set_aside(replica, ranges);
        }
        if let Some((rights, unsaved)) = arriving.rights {
            (self.rights, self.unsaved_records) = (Some(rights), unsaved);
        }
    }

    /// Puts the records that are not on disk into a batch.
    pub(crate) fn write_records_of_rights(
        &mut self,
        id: NamespaceId,
        batch: &mut WriteBatch,
    ) -> Vec<RecordId> {
        let written: Vec<RecordId> =
            std::mem::take(&mut self.unsaved_records).into_iter().collect();
        if let Some(rights) = &self.rights {
            for record in &written {
                batch.put(layout::record(id, record), rights.encode_held(record));
            }
        }
        written
    }
}

impl Shard {
    /// Whether changes of a frame carry records, or those that came before have not been judged by
    /// yet: then everything may have to be judged anew.
    pub(crate) fn has_to_judge(&self, signed: &SignedFrame<'_>) -> bool {
        let state = self.lock();
        if state.rights.is_none() {
            return false;
        }
        let frame = signed.frame();
        let gen_names = frame.gen_names();
        let brings_record = |change: Change<'_>| {
            change.document_writes().any(|write| {
                gen_names[write.gen_index as usize] == RIGHTS_GEN.as_bytes()
                    && carried(&write).is_some()
            })
        };
        state.is_judgement_stale || frame.changes().any(brings_record)
    }

    /// The whole log, for whoever has the turn: nothing is on its way to disk then, so that it is what is
    /// there and what is pending. Takes a copy of that.
    pub(crate) fn whole_log(&self, state: &State) -> WholeLog<'_> {
        let (without, pending) = (state.with_pending.without, state.pending_record().to_vec());
        WholeLog { stored: self.stored_log(), without, pending }
    }

    /// Judges every change of the log by the records that are held, and rebuilds what that changes.
    /// The caller has the turn, and writes a checkpoint afterwards.
    pub(crate) fn judge_anew(&self, state: &mut State) -> Result<()> {
        let mut log = self.whole_log(state);
        let State { namespace, rights: Some(rights), .. } = &mut *state else { return Ok(()) };
        let keys = namespace.replicas().keys();
        let names: Vec<&str> = namespace.gen_names().collect();
        let mut judged = vec![Ranges::new(); keys.len()];
        log.visit(&mut |change| {
            let gen_name = |gen_index: u32| names[gen_index as usize].as_bytes();
            let replica = change.replica as usize;
            if !rights.is_effective(&keys[replica], change, gen_name) {
                judged[replica].insert(change.number, change.number);
            }
        })?;
        let judgements: Vec<(ReplicaIndex, Ranges)> = (0..).zip(judged).collect();
        let judgements: Vec<(ReplicaIndex, Ranges)> = judgements
            .into_iter()
            .filter(|(replica, ranges)| namespace.set_aside(*replica) != ranges)
            .collect();
        state.is_judged = true;
        state.judgement_count += 1;
        if !judgements.is_empty() {
            let own = state.own;
            let (namespace, mut recorder) = state.recorder(self.subscribers.any());
            let result = namespace.judge(judgements, &mut log, &mut self.chunks(), &mut recorder);
            recorder.judged(own);
            self.publish(state, Origin::Local);
            result?;
        }
        state.is_judgement_stale = false;
        Ok(())
    }

    /// Judges anew where a failure, or a crash, has kept that from being done.
    pub(crate) fn catch_up_with_judgement(&self) -> Result<()> {
        if !self.lock().is_judgement_stale {
            return Ok(());
        }
        let (turn, state) = self.turn();
        self.judge_and_write(turn, state)
    }

    /// Judges anew where that is due, and writes everything out in one batch.
    pub(crate) fn judge_and_write(
        &self,
        turn: FlushTurn<'_>,
        mut state: StateGuard<'_>,
    ) -> Result<()> {
        let judged = match state.is_judgement_stale {
            true => self.judge_anew(&mut state),
            false => Ok(()),
        };
        drop(state);
        // What has been applied goes to disk however that went.
        let written = self.checkpoint();
        drop(turn);
        self.durable_listeners.notify();
        // A callback may write, and so wait for a turn.
        self.subscribers.run_callbacks();
        judged.and(written)
    }

    /// See [`crate::Database::add_records`].
    pub(crate) fn add_records(
        &self,
        records: Vec<SignedRecord>,
        now_milliseconds: u64,
    ) -> Result<()> {
        let (turn, mut state) = self.turn();
        // The turn ends with the state unlocked.
        if self.write_new_records(&mut state, records, now_milliseconds)? {
            state.is_judgement_stale = true;
        }
        self.judge_and_write(turn, state)
    }

    /// Commits a change with the records that are not held. Gives whether they change what was judged.
    pub(crate) fn write_new_records(
        &self,
        state: &mut State,
        records: Vec<SignedRecord>,
        now_milliseconds: u64,
    ) -> Result<bool> {
        let Some(rights) = &state.rights else {
            return Err(Error::NoOwners(self.name.to_string()));
        };
        if !records.iter().all(|record| record.holds(&self.name)) {
            return Err(Error::NotOfNamespace(self.name.to_string()));
        }
        let is_new = |record: &SignedRecord| !rights.holds(&record.id());
        let records: Vec<SignedRecord> = records.into_iter().filter(is_new).collect();
        if records.is_empty() {
            return Ok(false);
        }
        let gen_index = state.intern_gen_named(RIGHTS_GEN)?;
        let own = state.own;
        let mut writes = vudo_crdt::Transaction::begin(&state.namespace, own, now_milliseconds);
        for record in &records {
            let key = document_key(&record.id());
            let (namespace, chunks) = (&mut state.namespace, &mut self.chunks());
            let refused = |error| Error::refused(RIGHTS_GEN, &key, error);
            writes.create(namespace, chunks, gen_index, key.as_bytes()).map_err(refused)?;
            let value = record.bytes().into();
            writes
                .set(namespace, chunks, gen_index, key.as_bytes(), &record_field(), &value)
                .map_err(refused)?;
        }
        let carrier = (*state.namespace.replicas().key(own), state.namespace.heard(own) + 1);
        self.commit(state, writes)?;
        let State { rights: Some(rights), unsaved_records, .. } = state else { return Ok(false) };
        let before = rights.clone();
        let changed = rights.hold(records.into_iter().map(|record| (record, Some(carrier))));
        unsaved_records.extend(changed);
        Ok(!rights.judges_as(&before))
    }

    /// Refuses a transaction that would be set aside.
    pub(crate) fn check_rights(
        &self,
        state: &State,
        writes: &vudo_crdt::Transaction,
    ) -> Result<()> {
        let Some(rights) = &state.rights else { return Ok(()) };
        let (namespace, own) = (&state.namespace, state.own);
        let replica = namespace.replicas().key(own);
        let number = namespace.heard(own) + 1;
        let names: Vec<&str> = namespace.gen_names().collect();
        for (gen_index, key) in writes.written_documents() {
            let gen_name = names[gen_index as usize];
            let checked = rights.check_write(replica, number, gen_name, key);
            checked.map_err(|missing| Error::NoRight {
                gen_name: gen_name.to_owned(),
                key: String::from_utf8_lossy(key).into_owned(),
                missing: Box::new(missing),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vudo_crdt::VersionVector;

    use crate::rights::{Grant, MissingRight, Record, Revocation, Scope, public_key_of};
    use crate::{Database, PublicKey};

    fn pass_on(from: &Database, to: &Database) {
        let namespace = from.namespace();
        let (from, to) = (from.replication(namespace).unwrap(), to.replication(namespace).unwrap());
        while let Some(frame) = from.frame_since(&to.durable_vector(), usize::MAX).unwrap() {
            to.apply_frame(&frame.bytes).unwrap();
        }
    }

    fn revocation(issuer: PublicKey, subject: PublicKey, number: u64) -> Record {
        let mut last_accepted = VersionVector::new();
        last_accepted.advance(subject, number);
        Record::Revocation(Revocation { issuer, subject, last_accepted })
    }

    /// Judging anew takes the whole log, with the namespace locked. Anybody may carry records.
    #[test]
    fn what_keys_revoke_that_no_link_leads_to_is_judged_by_once_one_does() {
        let stores = [(); 2].map(|()| Database::open_in_memory().unwrap());
        let name = stores[0].found("team", &[stores[0].replica_key()]).unwrap();
        let [owner, stranger] = stores.map(|store| store.in_namespace(&name));
        pass_on(&owner, &stranger);
        let judgement_count = || owner.shard().unwrap().lock().judgement_count;
        let before = judgement_count();
        let secret = Database::new_secret_key().unwrap();
        let key = public_key_of(&secret);
        let others = [owner.replica_key(), stranger.replica_key()];
        for number in [3, 2, 1] {
            stranger.issue(revocation(key, key, number), Some(&secret)).unwrap();
            for other in others {
                stranger.issue(revocation(key, other, number), Some(&secret)).unwrap();
            }
            pass_on(&stranger, &owner);
        }
        assert_eq!(judgement_count(), before);
        let rights = || owner.access_rights().unwrap().unwrap();
        assert_eq!(rights().records().count(), 1 + 9, "they are held all the same");

        let (issuer, scopes) = (owner.replica_key(), vec![Scope::everything()]);
        let grant =
            Grant { issuer, subject: key, can_delegate: false, expires_milliseconds: None, scopes };
        owner.issue(Record::Grant(grant), None).unwrap();
        assert!(judgement_count() > before);
        assert_eq!(rights().check_write(&key, 1, "Task", b"milk"), Ok(()));
        let revoked = rights().check_write(&key, 2, "Task", b"milk");
        assert_eq!(revoked, Err(MissingRight::Revoked));
    }
}
