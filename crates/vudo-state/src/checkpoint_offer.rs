//! What two stores say to each other where one of them is further behind than the other's log goes: a
//! checkpoint, and in parts what is retained below it. It is made here; see `catch_up` for what becomes
//! of it.

use sha2::{Digest, Sha256};
use vudo_crdt::checkpoint::SignedCheckpoint;
use vudo_crdt::limits::MAX_FRAME_BYTES;
use vudo_crdt::merkle::{MerkleLog, NodeId};
use vudo_crdt::wire::{MalformedFrame, Reader, write_bytes, write_varint};
use vudo_crdt::{Frame, FrameWriter, ReplicaIndex, ReplicaKey, Seal, VersionVector};

use crate::error::Result;
use crate::floor::{Floor, Nodes, read_nodes};
use crate::layout;
use crate::limits::{OFFERED_RECORDS_MAX, PART_BYTES, PART_HASHES_MAX};
use crate::recovery::visit_changes;
use crate::rights::SignedRecord;
use crate::shard::Shard;

type Decoded<T> = std::result::Result<T, MalformedFrame>;

const HASHES: u8 = 0;
const CHANGES: u8 = 1;

/// Names a checkpoint: the SHA-256 of what its signature is over.
pub type CheckpointId = [u8; 32];

/// Where a part begins. What is in it is the giver's own affair, but for the first part's: zeros.
pub type PartCursor = [u8; 12];

/// A checkpoint, and who answers for the logs up to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointOffer {
    pub(crate) signed: SignedCheckpoint,
    /// Each replica's signature over its log there, in the order of the checkpoint's logs.
    pub(crate) seals: Vec<Seal>,
    /// Where the namespace has owners, the records by which everything up to there is judged, as far as
    /// no change below carries them.
    pub(crate) records: Vec<SignedRecord>,
}

/// Which part of what is retained below a checkpoint is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRequest {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// Where the part begins.
    pub cursor: PartCursor,
}

/// A part of what is retained below a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointPart {
    /// What was asked for.
    pub request: PartRequest,
    /// Where the next part begins; `None` where this is the last one.
    pub next: Option<PartCursor>,
    pub(crate) content: PartContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PartContent {
    /// Hashes in place of dropped changes of one replica, ascending.
    Hashes(ReplicaKey, Nodes),
    /// A frame of retained changes, with gaps between their numbers.
    Changes(Vec<u8>),
}

/// What a checkpoint is named.
fn id_of(signed: &SignedCheckpoint) -> CheckpointId {
    Sha256::digest(signed.checkpoint.bytes_to_sign()).into()
}

impl CheckpointOffer {
    /// The changes that the checkpoint covers.
    pub fn vector(&self) -> VersionVector {
        self.signed.checkpoint.vector()
    }

    /// What the checkpoint is named.
    pub fn id(&self) -> CheckpointId {
        id_of(&self.signed)
    }

    /// Appends the offer's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.signed.encode(out);
        self.seals.iter().for_each(|seal| seal.encode(out));
        write_varint(out, self.records.len() as u64);
        self.records.iter().for_each(|record| write_bytes(out, record.bytes()));
    }

    /// Reads what [`CheckpointOffer::encode`] wrote. Signatures may be anything.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Decoded<CheckpointOffer> {
        let signed = SignedCheckpoint::decode(reader)?;
        let mut seals = Vec::new();
        for _ in &signed.checkpoint.logs {
            seals.push(Seal::decode(reader)?);
        }
        let mut records = Vec::new();
        for _ in 0..reader.varint_up_to(OFFERED_RECORDS_MAX as u64)? {
            records.push(SignedRecord::decode(reader.bytes()?)?);
        }
        Ok(CheckpointOffer { signed, seals, records })
    }
}

impl PartRequest {
    /// Appends the request's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.checkpoint);
        out.extend_from_slice(&self.cursor);
    }

    /// Reads what [`PartRequest::encode`] wrote.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Decoded<PartRequest> {
        Ok(PartRequest { checkpoint: reader.array()?, cursor: reader.array()? })
    }
}

impl CheckpointPart {
    /// Appends the part's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.request.encode(out);
        out.push(self.next.is_some().into());
        self.next.iter().for_each(|next| out.extend_from_slice(next));
        match &self.content {
            PartContent::Hashes(replica, nodes) => {
                out.push(HASHES);
                out.extend_from_slice(&replica.0);
                write_varint(out, nodes.len() as u64);
                for (node, hash) in nodes {
                    write_varint(out, node.level.into());
                    write_varint(out, node.index);
                    out.extend_from_slice(hash);
                }
            }
            PartContent::Changes(frame) => {
                out.push(CHANGES);
                write_bytes(out, frame);
            }
        }
    }

    /// Reads what [`CheckpointPart::encode`] wrote. The frame in it is one.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Decoded<CheckpointPart> {
        let request = PartRequest::decode(reader)?;
        let next = match reader.byte()? {
            0 => None,
            1 => Some(reader.array()?),
            _ => return Err(MalformedFrame::IndexOutOfRange),
        };
        let content = match reader.byte()? {
            HASHES => {
                let replica = ReplicaKey(reader.array()?);
                let mut nodes = Vec::new();
                for _ in 0..reader.varint_up_to(PART_HASHES_MAX as u64)? {
                    let level = reader.varint_up_to(63)? as u8;
                    let index = reader.varint_up_to(u64::MAX >> level)?;
                    nodes.push((NodeId { level, index }, reader.array()?));
                }
                PartContent::Hashes(replica, nodes)
            }
            CHANGES => {
                let length = reader.varint_up_to(MAX_FRAME_BYTES as u64)?;
                let frame = reader.take(length as usize)?;
                Frame::parse(frame)?.check_names()?;
                PartContent::Changes(frame.to_vec())
            }
            _ => return Err(MalformedFrame::IndexOutOfRange),
        };
        Ok(CheckpointPart { request, next, content })
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.content {
            PartContent::Hashes(_, nodes) => nodes.is_empty(),
            PartContent::Changes(frame) => {
                Frame::parse(frame).is_ok_and(|frame| frame.changes().next().is_none())
            }
        }
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

impl Shard {
    pub(crate) fn offer_of(&self, floor: &Floor) -> Option<CheckpointOffer> {
        let state = self.lock();
        let seal_of = |(key, _): &(ReplicaKey, MerkleLog)| {
            let replica = state.namespace.replicas().find(key)?;
            floor.seals.get(&replica).map(|(_, seal)| *seal)
        };
        let signed = floor.signed.clone();
        let mut records = Vec::new();
        if let Some(rights) = &state.rights {
            let is_for_all = rights.stands(&signed.owner, &signed.checkpoint);
            records = is_for_all.then(|| rights.records_of_floor(&floor.vector))?;
        }
        if records.len() > OFFERED_RECORDS_MAX {
            return None;
        }
        let seals = floor.signed.checkpoint.logs.iter().map(seal_of).collect::<Option<_>>()?;
        Some(CheckpointOffer { signed, seals, records })
    }

    pub(crate) fn checkpoint_part(&self, request: &PartRequest) -> Result<Option<CheckpointPart>> {
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
}
