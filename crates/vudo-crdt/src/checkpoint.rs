//! Checkpoints: an owner's word that everything up to some moment is judged for good.
//!
//! ```text
//! checkpoint = namespace | each replica's log | what is set aside below | root of the state there
//! ```
//!
//! Below a checkpoint changes may be dropped from logs (see `Namespace::refers_to`), and whoever is
//! further behind than a log goes takes the state in pages, whose root the checkpoint signs.
//!
//! The signature itself is the caller's, as it is for heads: the core gives the bytes to sign, and
//! asks whether one holds. Whose key may give checkpoints is the caller's question too.

use alloc::string::String;
use alloc::vec::Vec;

use crate::head::SIGNATURE_BYTES;
use crate::limits::{MAX_NAMESPACE_NAME_BYTES, MAX_VECTOR_REPLICAS};
use crate::merkle::MerkleLog;
use crate::pages::StateRoot;
use crate::replica::{ReplicaKey, VersionVector};
use crate::set_aside::Ranges;
use crate::wire::{MalformedFrame, Reader, write_bytes, write_varint};

/// What a signature is over begins with this, so that it can be taken for nothing else.
const CHECKPOINT_TAG: &[u8] = b"vudo/checkpoint/1";

/// What a namespace held at some moment, and what its state was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The namespace's name: 1 to [`MAX_NAMESPACE_NAME_BYTES`] bytes.
    pub namespace: String,
    /// The log of each replica that had written, ascending by key: at most
    /// [`MAX_VECTOR_REPLICAS`], and none is empty.
    pub logs: Vec<(ReplicaKey, MerkleLog)>,
    /// Which of those changes are set aside, ascending by key. Replicas without any are left out.
    pub set_aside: Vec<(ReplicaKey, Ranges)>,
    /// The state that the others make.
    pub state: StateRoot,
}

impl Checkpoint {
    /// The changes that it covers.
    pub fn vector(&self) -> VersionVector {
        let mut vector = VersionVector::new();
        for (replica, log) in &self.logs {
            vector.advance(*replica, log.length());
        }
        vector
    }

    /// The bytes that an owner signs.
    pub fn bytes_to_sign(&self) -> Vec<u8> {
        let mut out = Vec::from(CHECKPOINT_TAG);
        self.encode(&mut out);
        out
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, self.namespace.as_bytes());
        write_varint(out, self.logs.len() as u64);
        for (replica, log) in &self.logs {
            out.extend_from_slice(&replica.0);
            log.encode(out);
        }
        write_varint(out, self.set_aside.len() as u64);
        for (replica, ranges) in &self.set_aside {
            out.extend_from_slice(&replica.0);
            ranges.encode(out);
        }
        write_varint(out, self.state.page_count);
        out.extend_from_slice(&self.state.root);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Checkpoint, MalformedFrame> {
        let name = reader.bytes()?;
        if name.is_empty() || name.len() > MAX_NAMESPACE_NAME_BYTES {
            return Err(MalformedFrame::TooLarge);
        }
        let name = core::str::from_utf8(name).map_err(|_| MalformedFrame::StringNotUtf8)?;
        let mut logs: Vec<(ReplicaKey, MerkleLog)> = Vec::new();
        for _ in 0..reader.varint_up_to(MAX_VECTOR_REPLICAS as u64)? {
            let replica = ReplicaKey(reader.array()?);
            let log = MerkleLog::decode(reader)?;
            if log.length() == 0 || logs.last().is_some_and(|(last, _)| *last >= replica) {
                return Err(MalformedFrame::NotSorted);
            }
            logs.push((replica, log));
        }
        let mut set_aside: Vec<(ReplicaKey, Ranges)> = Vec::new();
        for _ in 0..reader.varint_up_to(MAX_VECTOR_REPLICAS as u64)? {
            let replica = ReplicaKey(reader.array()?);
            let ranges = Ranges::decode(reader)?;
            if ranges.is_empty() || set_aside.last().is_some_and(|(last, _)| *last >= replica) {
                return Err(MalformedFrame::NotSorted);
            }
            set_aside.push((replica, ranges));
        }
        let state = StateRoot { page_count: reader.varint()?, root: reader.array()? };
        Ok(Checkpoint { namespace: String::from(name), logs, set_aside, state })
    }
}

/// A checkpoint with an owner's signature, which holds or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Whose signature it is.
    pub owner: ReplicaKey,
    /// The signature over [`Checkpoint::bytes_to_sign`].
    pub signature: [u8; SIGNATURE_BYTES],
}

impl SignedCheckpoint {
    /// Whether the signature holds, which `check` says for a key, bytes and a signature over them.
    pub fn holds(
        &self,
        check: impl FnOnce(&ReplicaKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> bool {
        check(&self.owner, &self.checkpoint.bytes_to_sign(), &self.signature)
    }

    /// Appends the signed checkpoint's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.checkpoint.encode(out);
        out.extend_from_slice(&self.owner.0);
        out.extend_from_slice(&self.signature);
    }

    /// Reads a signed checkpoint. The signature may be anything: see [`SignedCheckpoint::holds`].
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<SignedCheckpoint, MalformedFrame> {
        let checkpoint = Checkpoint::decode(reader)?;
        let owner = ReplicaKey(reader.array()?);
        Ok(SignedCheckpoint { checkpoint, owner, signature: reader.array()? })
    }
}
