//! Who answers for what the log holds: the seals under it, and the Merkle logs that they are checked
//! against.
//!
//! ```text
//! log        | record | record | record | record | record | record      positions ascend
//! segments   |---------- closed --------|------- open -------->          a seal for each writer
//! seals        peer: 17, own: 40          peer: 20 (own: on demand)      by its last number there
//! ```
//!
//! **The idea.** A frame to a peer ends where a segment ends, and there every writer has signed its
//! log. What a peer sent is sealed by its writers, and becomes part of one segment as a whole. What
//! this store writes is hashed and signed when somebody is to have it, never while it is committed.
//!
//! **Ownership.** The flush that writes log records writes their segments, under the turn to flush.
//! Sealing adds this store's own signatures, and has a lock of its own: behind the turn and in front of
//! the state. A branch or another floor replaces segments under all three, and nothing is sealed before
//! that is on disk.
//!
//! **The invariant.** In a closed segment every other replica has a seal at its last number there.
//! Here a replica's Merkle log holds all of its changes that have been applied; that of the own one
//! holds those before `own_position`.
//!
//! **Recovery.** The Merkle logs of the last checkpoint, then the log after it is hashed again. The
//! last segment stays open, with the records behind it.

use std::collections::BTreeMap;

use vudo_crdt::merkle::{MerkleLog, leaf_hash};
use vudo_crdt::wire::{MalformedFrame, Reader, write_varint};
use vudo_crdt::{Change, Namespace, ReplicaIndex, ReplicaKey, SEAL_BYTES, Seal};

use crate::error::{Error, Result};
use crate::layout::{self, NamespaceId};
use crate::storage::{Storage, WriteBatch};

/// By replica: a number, and the seal on its log up to there.
pub(crate) type SealsByReplica = BTreeMap<ReplicaIndex, (u64, Seal)>;

/// A stretch of the log that ends with seals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    /// How much log it is.
    pub(crate) byte_count: usize,
    /// The number of this store's last change there, while its own seal is missing; else zero.
    pub(crate) own_last: u64,
    /// By replica: the number of its last change there, and the seal on that.
    pub(crate) seals: SealsByReplica,
}

impl Segment {
    /// How much a frame of the segment takes up, roughly.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.byte_count + self.seals.len() * (SEAL_BYTES + size_of::<ReplicaKey>())
    }

    /// Takes a change of this store. A seal of it that was there is of fewer changes: a segment that ended
    /// and is not full goes on where the store is opened again.
    pub(crate) fn put_own(&mut self, change: &Change<'_>) {
        self.own_last = change.number;
        self.seals.remove(&change.replica);
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.byte_count as u64);
        write_varint(&mut out, self.own_last);
        for (replica, (number, seal)) in &self.seals {
            write_varint(&mut out, (*replica).into());
            write_varint(&mut out, *number);
            seal.encode(&mut out);
        }
        out
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Segment, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let byte_count = reader.varint()? as usize;
        let mut segment =
            Segment { byte_count, own_last: reader.varint()?, seals: SealsByReplica::new() };
        while !reader.is_empty() {
            let replica = reader.varint_up_to(u32::MAX.into())? as ReplicaIndex;
            let number = reader.varint()?;
            segment.seals.insert(replica, (number, Seal::decode(&mut reader)?));
        }
        Ok(segment)
    }
}

/// The segment that the next records go to.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenSegment {
    /// Its first position.
    pub(crate) first: u64,
    pub(crate) segment: Segment,
    /// The end under which storage has a part of it.
    pub(crate) stored_end: Option<u64>,
}

impl OpenSegment {
    /// Stores the segment as one that ends with a position.
    pub(crate) fn store(&mut self, id: NamespaceId, end: u64, batch: &mut WriteBatch) {
        if let Some(stored) = self.stored_end.filter(|stored| *stored != end) {
            batch.remove(layout::segment(id, stored));
        }
        batch.put(layout::segment(id, end), self.segment.encode());
        self.stored_end = Some(end);
    }
}

/// What a namespace knows of seals beside those in storage. All of it is of what is on disk, but for
/// the logs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seals {
    /// By replica index.
    pub(crate) logs: Vec<MerkleLog>,
    /// The first position whose changes of this store have not been hashed.
    pub(crate) own_position: u64,
    pub(crate) open: OpenSegment,
    /// The first position that is not on disk.
    pub(crate) end: u64,
    /// This store's latest seal, and the number of the last change that it is over.
    pub(crate) own_seal: Option<(u64, Seal)>,
}

impl Seals {
    /// A replica's log.
    pub(crate) fn log(&mut self, replica: ReplicaIndex) -> &mut MerkleLog {
        let place = replica as usize;
        if self.logs.len() <= place {
            self.logs.resize(place + 1, MerkleLog::new());
        }
        &mut self.logs[place]
    }

    /// Hashes a change of another replica that has been applied. Indexes are the namespace's.
    pub(crate) fn push(&mut self, name: &str, namespace: &Namespace, change: &Change<'_>) {
        let log = self.log(change.replica);
        if change.number == log.length() + 1 {
            log.push(leaf_hash(name, namespace, change), |_, _| ());
        }
    }

    /// What a checkpoint stores.
    pub(crate) fn encode_hashes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.own_position);
        write_varint(&mut out, self.open.first);
        self.logs.iter().for_each(|log| log.encode(&mut out));
        out
    }

    pub(crate) fn decode_hashes(bytes: &[u8]) -> std::result::Result<Seals, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let mut seals = Seals { own_position: reader.varint()?, ..Seals::default() };
        seals.open.first = reader.varint()?;
        while !reader.is_empty() {
            seals.logs.push(MerkleLog::decode(&mut reader)?);
        }
        Ok(seals)
    }

    /// Finds the open segment: the last one that storage has, unless it is full, with the records
    /// behind it. Segments that are full by now are stored.
    pub(crate) fn open_segment(
        &mut self,
        id: NamespaceId,
        storage: &dyn Storage,
        own: Option<ReplicaIndex>,
        segment_bytes: usize,
    ) -> Result<()> {
        let mut damaged = None;
        let mut open = OpenSegment { first: self.open.first, ..OpenSegment::default() };
        for_each_segment(id, storage, open.first, u64::MAX, |end, segment| {
            let first = open.stored_end.map_or(open.first, |end| end + 1);
            open = OpenSegment { first, segment, stored_end: Some(end) };
            true
        })?;
        let mut position = open.stored_end.map_or(open.first, |end| end + 1);
        if open.segment.byte_count >= segment_bytes {
            open = OpenSegment { first: position, ..OpenSegment::default() };
        }
        let mut batch = WriteBatch::default();
        let (from, to) = (layout::log(id, position), layout::log(id, u64::MAX));
        storage.scan(&from, &to, &mut |key, record| {
            position = layout::trailing_u64(key);
            open.segment.byte_count += record.len();
            let mut reader = Reader::new(record);
            while !reader.is_empty() {
                match Change::read_log_record(&mut reader) {
                    Ok(change) if Some(change.replica) == own => open.segment.put_own(&change),
                    Ok(_) => {}
                    Err(what) => {
                        damaged = Some(Error::damaged(format!("a log record: {what}")));
                        return false;
                    }
                }
            }
            if open.segment.byte_count >= segment_bytes {
                open.store(id, position, &mut batch);
                open = OpenSegment { first: position + 1, ..OpenSegment::default() };
            }
            position += 1;
            true
        })?;
        if let Some(error) = damaged {
            return Err(error);
        }
        if !batch.writes.is_empty() {
            storage.commit(&batch)?;
        }
        self.open = open;
        self.end = position;
        Ok(())
    }
}

/// Visits the stored segments that end in `from..to`, ascending, until the visitor says `false`.
pub(crate) fn for_each_segment(
    id: NamespaceId,
    storage: &dyn Storage,
    from: u64,
    to: u64,
    mut visit: impl FnMut(u64, Segment) -> bool,
) -> Result<()> {
    // Storage takes no range that ends before it begins.
    if from >= to {
        return Ok(());
    }
    let mut damaged = None;
    let (from, to) = (layout::segment(id, from), layout::segment(id, to));
    storage.scan(&from, &to, &mut |key, stored| match Segment::decode(stored) {
        Ok(segment) => visit(layout::trailing_u64(key), segment),
        Err(what) => {
            damaged = Some(Error::damaged(format!("the seals of a segment: {what}")));
            false
        }
    })?;
    damaged.map_or(Ok(()), Err)
}

/// Takes the seals of a replica above a number out of the segments that end at a position or later.
pub(crate) fn rewrite_segments(
    id: NamespaceId,
    storage: &dyn Storage,
    from: u64,
    (replica, above): (ReplicaIndex, u64),
    batch: &mut WriteBatch,
) -> Result<()> {
    for_each_segment(id, storage, from, u64::MAX, |end, mut segment| {
        if segment.seals.get(&replica).is_some_and(|(number, _)| *number > above) {
            segment.seals.remove(&replica);
            batch.put(layout::segment(id, end), segment.encode());
        }
        true
    })
}
