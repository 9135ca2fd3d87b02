//! What two stores say to each other where one of them is further behind than the other's log goes: a
//! checkpoint, and in parts what is retained below it. See `catch_up` for what becomes of it.

use sha2::{Digest, Sha256};
use vudo_crdt::checkpoint::SignedCheckpoint;
use vudo_crdt::limits::MAX_FRAME_BYTES;
use vudo_crdt::merkle::{Hash, NodeId};
use vudo_crdt::wire::{MalformedFrame, Reader, write_bytes, write_varint};
use vudo_crdt::{Frame, ReplicaKey, Seal};

use crate::limits::PART_HASHES_MAX;

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
    Hashes(ReplicaKey, Vec<(NodeId, Hash)>),
    /// A frame of retained changes, with gaps between their numbers.
    Changes(Vec<u8>),
}

/// What a checkpoint is named.
pub(crate) fn id_of(signed: &SignedCheckpoint) -> CheckpointId {
    Sha256::digest(signed.checkpoint.bytes_to_sign()).into()
}

impl CheckpointOffer {
    /// What the checkpoint is named.
    pub fn id(&self) -> CheckpointId {
        id_of(&self.signed)
    }

    /// Appends the offer's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.signed.encode(out);
        self.seals.iter().for_each(|seal| seal.encode(out));
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
        Ok(CheckpointOffer { signed, seals })
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
                Frame::parse(frame)?;
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
