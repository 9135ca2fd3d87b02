//! Cutting a damaged log off in front of the damage, so that a peer can send again what follows.
//!
//! ```text
//! before   |-- sealed segment --|-- sealed segment --|-- record, DAMAGED, record, record --|
//! after    |-- sealed segment --|-- sealed segment --|     the readable records: orphans
//! ```
//!
//! **The idea.** A log that ends earlier is a log that syncs like any other: peers send what it lacks.
//! What can still be read behind the cut may be all that there is of what this store wrote, so it is
//! kept as orphans, which are written again by adopting them, but for what peers have sent by then.
//!
//! **The invariant.** One batch takes a log from the one state to the other. The store gets another key
//! when it is opened the next time, for the numbers behind the cut have been used.

use std::collections::{BTreeMap, BTreeSet};

use vudo_crdt::wire::Reader;
use vudo_crdt::{Change, LogSource, ReplicaIndex};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::layout::{self, NamespaceId};
use crate::orphans::OF_CUT_LOG;
use crate::recovery::{StoredLog, visit_changes};
use crate::rights::{Rights, carried_in};
use crate::seals::for_each_segment;
use crate::storage::{Storage, WriteBatch};

/// What has become of logs that were damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutReport {
    /// The logs that end in front of their damage now.
    pub cut: Vec<LogCut>,
    /// What is damaged still: each place, and what is wrong with it.
    pub left: Vec<String>,
}

/// A log that has been cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCut {
    /// Whose it is.
    pub namespace: String,
    /// How many changes it has still.
    pub kept: u64,
    /// How many behind the cut could be read. They are orphans now.
    pub orphans: u64,
}

/// The numbers of the last changes of each replica, as a log is read from its beginning.
#[derive(Default)]
pub(crate) struct LastNumbers(BTreeMap<ReplicaIndex, u64>);

impl LastNumbers {
    /// Goes on to a change. Up to its floor a log may have gaps.
    ///
    /// # Errors
    /// It does not follow on the last one of its replica, whose number is given.
    pub(crate) fn follow(
        &mut self,
        change: &Change<'_>,
        floor: Option<&Floor>,
    ) -> std::result::Result<(), u64> {
        let last = self.0.entry(change.replica).or_default();
        let floor = floor.and_then(|floor| floor.seals.get(&change.replica));
        let greatest = (*last + 1).max(floor.map_or(0, |(floor, _)| *floor + 1));
        let before = std::mem::replace(last, change.number);
        match change.number > before && change.number <= greatest {
            true => Ok(()),
            false => Err(before),
        }
    }
}

impl Database {
    /// Cuts off each log that is damaged in front of the damage, so that peers can send again what
    /// follows. What can be read of that is kept as orphans: see [`Database::adopt`], for which the
    /// time has come when all peers have been heard. What this store wrote and nobody has is gone only
    /// where it cannot be read. A log that is damaged below its checkpoint is left alone.
    ///
    /// The handle must be the only one. Opened again, the store writes under a new key.
    ///
    /// # Errors
    /// Somebody has another handle ([`Error::NamespaceInUse`]), or the disk failed. A log has been
    /// cut as a whole, or not at all.
    pub fn cut_damaged_logs(self) -> Result<CutReport> {
        if !self.is_only_handle() {
            return Err(Error::NamespaceInUse { namespace: self.namespace().to_owned() });
        }
        self.flush()?;
        let mut report = CutReport::default();
        let (damaged, _) = self.damaged_entries();
        for (name, id) in self.namespace_ids()? {
            let of_namespace = damaged.iter().filter(|key| layout::namespace_of(key) == Some(id));
            let log = DamagedLog {
                storage: self.storage(),
                id,
                name: &name,
                damaged: of_namespace.cloned().collect(),
            };
            self.cut_log(&log, &mut report)?;
        }
        Ok(report)
    }

    fn cut_log(&self, log: &DamagedLog<'_>, report: &mut CutReport) -> Result<()> {
        let located = |what: String| format!("namespace '{}', {what}", log.name);
        let floor = match Floor::read(log.name, log.id, log.storage) {
            Ok(floor) => floor,
            Err(error) => {
                report.left.push(located(error.to_string()));
                return Ok(());
            }
        };
        let Some(damage) = log.first_damage(floor.as_ref())? else { return Ok(()) };
        let lowest = floor.as_ref().map_or(0, |floor| floor.position);
        if damage < lowest {
            let what = format!("log record {damage}: it is damaged below the checkpoint");
            report.left.push(located(what));
            return Ok(());
        }
        let stored = match self.stored_namespace(log.id, &mut Vec::new()) {
            Ok(Some(stored)) => stored,
            Ok(None) => vudo_crdt::Namespace::new(0),
            Err(what) => {
                report.left.push(located(what));
                return Ok(());
            }
        };
        let (mut namespace, mut batch) = (stored, WriteBatch::default());
        let cut = log.cut_before(damage, lowest)?;
        let mut kept = KeptLog { log: log.as_stored(), to: cut };
        let kept_count = restore_numbers(&mut namespace, &mut kept, floor.as_ref())?;
        let orphans = log.set_aside(cut, &namespace, &mut batch)?;
        if let Some(mut rights) = Rights::new(log.name) {
            let of_rights = (layout::record(log.id, &[]), layout::record(log.id + 1, &[]));
            log.scan(&of_rights.0, &of_rights.1, &mut |key, _| batch.remove(key.to_vec()))?;
            // Those that the floor rests upon may be carried behind the cut.
            let before = Rights::open(log.name, log.id, log.storage).ok().flatten();
            let of_floor = before.zip(floor.as_ref()).map(|(rights, floor)| {
                rights.records_of_floor(&floor.vector).into_iter().map(|record| (record, None))
            });
            let mut held = rights.hold(carried_in(&namespace, &mut kept)?);
            held.extend(rights.hold(of_floor.into_iter().flatten()));
            for record in held {
                batch.put(layout::record(log.id, &record), rights.encode_held(&record));
            }
        }
        self.forget_tables(log.name, log.id, &log.damaged, &mut batch)?;
        batch.put(layout::directory(log.id), namespace.encode_directory());
        log.remove_behind(cut, &mut batch)?;
        self.index_log(log.name, log.id, lowest..cut, &mut batch)?;
        batch.put(layout::meta(layout::KEY_ELSEWHERE), b"cut".to_vec());
        self.while_closed(log.name, || Ok(log.storage.commit(&batch)?))?;
        let namespace = log.name.to_owned();
        report.cut.push(LogCut { namespace, kept: kept_count, orphans });
        Ok(())
    }
}

/// Has a namespace say of each replica what a log holds of it. Gives how many changes that are.
fn restore_numbers(
    namespace: &mut vudo_crdt::Namespace,
    log: &mut KeptLog<'_>,
    floor: Option<&Floor>,
) -> Result<u64> {
    let (mut numbers, mut count) = (BTreeMap::new(), 0);
    log.visit(&mut |change| {
        numbers.insert(change.replica, change.number);
        count += 1;
    })?;
    let keys = namespace.replicas().keys().to_vec();
    for (replica, key) in (0..).zip(keys) {
        let of_floor = floor.map_or(0, |floor| floor.vector.get(&key));
        let number = numbers.get(&replica).copied().unwrap_or_default();
        namespace.restore_heard(replica, number.max(of_floor));
    }
    Ok(count)
}

/// The part of a log that stays.
struct KeptLog<'a> {
    log: StoredLog<'a>,
    to: u64,
}

impl LogSource for KeptLog<'_> {
    type Error = Error;

    fn visit(&mut self, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        self.log.visit_range(0, self.to, visit).map(|_| ())
    }
}

/// A log, some of whose entries cannot be read.
struct DamagedLog<'a> {
    storage: &'a dyn Storage,
    id: NamespaceId,
    name: &'a str,
    /// The keys of the entries of its namespace that cannot be read.
    damaged: BTreeSet<Vec<u8>>,
}

impl DamagedLog<'_> {
    fn as_stored(&self) -> StoredLog<'_> {
        StoredLog { storage: self.storage, id: self.id, name: self.name }
    }

    /// Visits the entries that can be read.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let mut from = from.to_vec();
        let range = self.damaged.range::<Vec<u8>, _>(from.clone()..to.to_vec());
        for end in range.map(Vec::as_slice).chain([to]) {
            if *from < *end {
                self.storage.scan(&from, end, &mut |key, value| {
                    visit(key, value);
                    true
                })?;
            }
            // The least key behind the damaged one.
            from = [end, &[0]].concat();
        }
        Ok(())
    }

    fn positions(&self, is_wanted: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = u64> {
        let wanted = self.damaged.iter().filter(move |key| is_wanted(key));
        wanted.map(|key| layout::trailing_u64(key))
    }

    /// The first position of a record that cannot be read, or that does not follow on those before it,
    /// or of a segment of which nobody knows who has signed it.
    fn first_damage(&self, floor: Option<&Floor>) -> Result<Option<u64>> {
        let is_of_log = |key: &[u8]| layout::is_log(key) || layout::is_segment(key);
        let mut first = self.positions(is_of_log).min();
        let mut last_numbers = LastNumbers::default();
        let to = first.unwrap_or(u64::MAX);
        let (from, to) = (layout::log(self.id, 0), layout::log(self.id, to));
        self.storage.scan(&from, &to, &mut |key, record| {
            let followed = visit_changes(self.name, record, &mut |change| {
                let followed = last_numbers.follow(change, floor);
                followed.map_err(|_| Error::damaged("a gap"))
            });
            if followed.is_err() {
                first = Some(layout::trailing_u64(key));
            }
            followed.is_ok()
        })?;
        Ok(first)
    }

    /// Where to cut: behind the last segment in front of the damage, for what others wrote is passed on
    /// with their signatures only.
    fn cut_before(&self, damage: u64, lowest: u64) -> Result<u64> {
        let mut cut = lowest;
        for_each_segment(self.id, self.storage, lowest, damage, |end, _| {
            cut = end + 1;
            true
        })?;
        Ok(cut)
    }

    /// Keeps what can be read behind the cut as orphans. Gives how many changes that are.
    fn set_aside(
        &self,
        cut: u64,
        namespace: &vudo_crdt::Namespace,
        batch: &mut WriteBatch,
    ) -> Result<u64> {
        let mut count = 0;
        let (from, to) = (layout::log(self.id, cut), layout::log(self.id, u64::MAX));
        self.scan(&from, &to, &mut |_, record| {
            let mut reader = Reader::new(record);
            // What follows on a malformed change in a record cannot be told from it.
            while !reader.is_empty()
                && let Ok(change) = Change::read_log_record(&mut reader)
                && (change.replica as usize) < namespace.replicas().keys().len()
            {
                let branch = (namespace.heard(change.replica) + 1, &OF_CUT_LOG[..]);
                let mut kept = Vec::new();
                change.write_log_record(&mut kept);
                batch.put(layout::orphan(self.id, change.replica, branch, change.number), kept);
                count += 1;
            }
        })?;
        Ok(count)
    }

    /// Removes the log from a position on, and what says where in it changes are, all of which is
    /// written again.
    fn remove_behind(&self, cut: u64, batch: &mut WriteBatch) -> Result<()> {
        let id = self.id;
        for (from, to) in [
            (layout::log(id, cut), layout::log(id, u64::MAX)),
            (layout::segment(id, cut), layout::segment(id, u64::MAX)),
            (layout::log_index(id, 0, 0), layout::log_index(id + 1, 0, 0)),
        ] {
            self.scan(&from, &to, &mut |key, _| batch.remove(key.to_vec()))?;
        }
        let is_of_log = |key: &&Vec<u8>| {
            layout::is_log(key) || layout::is_segment(key) || layout::is_log_index(key)
        };
        self.damaged.iter().filter(is_of_log).for_each(|key| batch.remove(key.clone()));
        for key in
            [layout::hashes(id), layout::acknowledged(id), layout::judged(id), layout::cursors(id)]
        {
            batch.remove(key);
        }
        Ok(())
    }
}
