//! Frames whose writers answer for them: changes, and for each of their writers a signed head that
//! ends with the last of its changes in the frame.
//!
//! ```text
//! signed frame = frame length | frame | seal*        one for each replica, in the frame's order
//! seal         = root (32 bytes) | signature (64)    of the head at the replica's last number there
//! ```
//!
//! **The idea.** Whoever receives a frame knows the edge of each writer's log up to where it holds
//! it. It pushes the leaves of what is new, and must come to the root that the writer signed. So one
//! signature answers for a run of changes, whoever carries it, and for everything before it.
//!
//! **The invariant.** A run that verifies continues the very log that is held: nobody but its writer
//! can add to it, leave out of it or alter it. Duplicates are not looked at, for they are not applied.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::change::{self, Change, DocumentChange};
use crate::frame::Frame;
use crate::head::{Head, SIGNATURE_BYTES, SignedHead};
use crate::limits::MAX_FRAME_BYTES;
use crate::merkle::{Hash, MerkleLog, frame_leaf_hash};
use crate::replica::{ReplicaKey, VersionVector};
use crate::wire::{MalformedFrame, Reader, write_bytes};

/// A seal's bytes.
pub const SEAL_BYTES: usize = size_of::<Hash>() + SIGNATURE_BYTES;

/// What a writer's signature is over, and the signature: a signed head without what is known of it
/// where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The root of the writer's log.
    pub root: Hash,
    /// The signature over the head.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Seal {
    /// Appends the seal's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.root);
        out.extend_from_slice(&self.signature);
    }

    /// Reads what [`Seal::encode`] wrote.
    ///
    /// # Errors
    /// The bytes end too early.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Seal, MalformedFrame> {
        Ok(Seal { root: reader.array()?, signature: reader.array()? })
    }

    /// The signed head that this is the seal of.
    pub fn head(&self, namespace: &str, replica: ReplicaKey, length: u64) -> SignedHead {
        let head = Head { namespace: namespace.into(), replica, length, root: self.root };
        SignedHead { head, signature: self.signature }
    }
}

/// Appends a signed frame. There is a seal for each replica that the frame names, in its order.
pub fn write_signed_frame(frame: &[u8], seals: &[Seal], out: &mut Vec<u8>) {
    out.reserve_exact(frame.len() + seals.len() * SEAL_BYTES + 5);
    write_bytes(out, frame);
    seals.iter().for_each(|seal| seal.encode(out));
}

/// A signed frame whose bytes are in order. Whether the seals hold is another question.
#[derive(Clone, Debug)]
pub struct SignedFrame<'a> {
    frame: Frame<'a>,
    frame_bytes: &'a [u8],
    /// By the frame's replica index.
    seals: Vec<Seal>,
    /// By the frame's replica index: the number of its last change there.
    last_numbers: Vec<u64>,
    content_bytes: usize,
    change_count: u64,
}

/// A writer's log with what a frame has added to it, and the seal on that.
#[derive(Clone, Debug)]
pub struct SealedLog {
    /// Whose log it is.
    pub replica: ReplicaKey,
    /// How long it was without the frame.
    pub known_length: u64,
    /// The log up to the seal.
    pub log: MerkleLog,
    /// The seal.
    pub seal: Seal,
}

/// Why a frame is not what its writers have signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealError {
    /// Changes of a replica are missing before those sent.
    Gap {
        /// Whose changes are missing.
        replica: ReplicaKey,
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The signature is not the replica's.
    NotSigned {
        /// In whose name the changes were sent.
        replica: ReplicaKey,
        /// The number of the last of them.
        number: u64,
    },
    /// The replica has signed a log at this length which these changes do not make of the one that is
    /// held: they were altered on the way, or it has signed two logs.
    OtherLog {
        /// What it has signed.
        signed: Box<SignedHead>,
    },
}

impl fmt::Display for SealError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealError::Gap { replica, expected, found } => write!(
                formatter,
                "changes of replica {replica} are missing: expected number {expected}, got {found}"
            ),
            SealError::NotSigned { replica, number } => write!(
                formatter,
                "replica {replica} has not signed the changes up to number {number} that were sent \
                 in its name"
            ),
            SealError::OtherLog { signed } => write!(
                formatter,
                "replica {} has signed another log up to number {} than what is held and what was \
                 sent make",
                signed.head.replica, signed.head.length
            ),
        }
    }
}

impl core::error::Error for SealError {}

impl<'a> SignedFrame<'a> {
    /// Validates the bytes, those of the frame as [`Frame::parse`] and [`Frame::check_names`] do.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<SignedFrame<'a>, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let length = reader.varint_up_to(MAX_FRAME_BYTES as u64)? as usize;
        let frame_bytes = reader.take(length)?;
        let frame = Frame::parse(frame_bytes)?;
        frame.check_names()?;
        let mut keys = frame.keys.clone();
        keys.sort_unstable();
        if !keys.is_sorted_by(|left, right| left < right) {
            return Err(MalformedFrame::NotSorted);
        }
        let mut seals = Vec::with_capacity(frame.keys.len());
        for _ in &frame.keys {
            seals.push(Seal::decode(&mut reader)?);
        }
        if !reader.is_empty() {
            return Err(MalformedFrame::TrailingBytes);
        }
        let mut last_numbers = vec![0; seals.len()];
        let (mut content_bytes, mut change_count) = (0, 0);
        for change in frame.changes() {
            let last = &mut last_numbers[change.replica as usize];
            *last = change.number.max(*last);
            content_bytes += content_bytes_of(&change);
            change_count += 1;
        }
        let frame =
            SignedFrame { frame, frame_bytes, seals, last_numbers, content_bytes, change_count };
        Ok(frame)
    }

    /// The frame.
    pub fn frame(&self) -> &Frame<'a> {
        &self.frame
    }

    /// The bytes of the frame alone.
    pub fn frame_bytes(&self) -> &'a [u8] {
        self.frame_bytes
    }

    /// How many changes the frame carries.
    pub fn change_count(&self) -> u64 {
        self.change_count
    }

    /// How much the frame carries, in bytes: the same wherever the changes lie, so that a frame which
    /// one store accepts is one that it can pass on. At most what they take up in a log.
    pub fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    /// How far the frame takes each replica that it names.
    pub fn reached(&self) -> VersionVector {
        self.frame.replicas().zip(self.last_numbers.iter().copied()).collect()
    }

    /// How far the frame takes one replica; zero where it does not name it.
    pub fn reached_of(&self, replica: &ReplicaKey) -> u64 {
        self.place_of(replica).map_or(0, |place| self.last_numbers[place])
    }

    fn place_of(&self, replica: &ReplicaKey) -> Option<usize> {
        self.frame.keys.iter().position(|key| *key == replica.0)
    }

    /// What a replica has signed at its last number in the frame, or is said to have.
    pub fn head_of(&self, namespace: &str, replica: &ReplicaKey) -> Option<SignedHead> {
        let place = self.place_of(replica)?;
        Some(self.seals[place].head(namespace, *replica, self.last_numbers[place]))
    }

    /// Checks that what is new continues the logs that `held` gives and ends in heads that their
    /// writers have signed, which `check` says for a key, bytes and a signature over them. Gives the
    /// logs that have become longer. A replica without a log is left out: whoever asks must not
    /// apply its changes.
    ///
    /// # Errors
    /// Changes are missing, or are not what was signed.
    pub fn verify(
        &self,
        namespace: &str,
        mut held: impl FnMut(&ReplicaKey) -> Option<MerkleLog>,
        mut check: impl FnMut(&ReplicaKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> Result<Vec<SealedLog>, SealError> {
        let mut logs: Vec<Option<MerkleLog>> = Vec::with_capacity(self.seals.len());
        logs.extend(self.frame.replicas().map(|replica| held(&replica)));
        let known_lengths: Vec<u64> =
            logs.iter().map(|log| log.as_ref().map_or(0, MerkleLog::length)).collect();
        for change in self.frame.changes() {
            let Some(log) = &mut logs[change.replica as usize] else { continue };
            let expected = log.length() + 1;
            if change.number > expected {
                let replica = ReplicaKey::of(self.frame.keys[change.replica as usize]);
                return Err(SealError::Gap { replica, expected, found: change.number });
            }
            if change.number == expected {
                log.push(frame_leaf_hash(namespace, &self.frame, &change), |_, _| ());
            }
        }
        let mut sealed = Vec::new();
        let places = self.frame.replicas().zip(logs).enumerate();
        for (place, (replica, log)) in places {
            let (seal, known_length) = (self.seals[place], known_lengths[place]);
            // What is older than what is held is not applied, so nobody has to answer for it.
            let Some(log) = log.filter(|log| log.length() == self.last_numbers[place]) else {
                continue;
            };
            let (is_new, is_same) = (log.length() > known_length, log.root() == seal.root);
            if is_same && !is_new {
                continue;
            }
            let signed = seal.head(namespace, replica, log.length());
            let is_signed = signed.holds(&mut check);
            if !is_signed && !cfg!(vudo_mutation = "unsigned_changes_applied") {
                return Err(SealError::NotSigned { replica, number: log.length() });
            }
            if !is_same {
                return Err(SealError::OtherLog { signed: Box::new(signed) });
            }
            sealed.push(SealedLog { replica, known_length, log, seal });
        }
        Ok(sealed)
    }
}

/// What a change counts for, wherever it lies: no more than its bytes in a log.
fn content_bytes_of(change: &Change<'_>) -> usize {
    let mut documents = change::documents(change.body);
    let mut bytes = change.body.len() - documents.rest().len();
    while !documents.is_empty() {
        let document = DocumentChange::read(&mut documents);
        bytes += document.key.len() + document.operations.len() + 4;
    }
    bytes
}
