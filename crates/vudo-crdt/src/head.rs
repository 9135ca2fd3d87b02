//! Signed heads: a replica's word for its log so far, and what proves that it gave two.
//!
//! The signature itself is the caller's: the core gives the bytes to sign, and asks whether one
//! holds.

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::MAX_NAMESPACE_NAME_BYTES;
use crate::merkle::{Hash, is_included};
use crate::replica::ReplicaKey;
use crate::wire::{MalformedFrame, Reader, write_bytes, write_varint};

/// What a signature is over begins with this, so that it can be taken for nothing else.
const HEAD_TAG: &[u8] = b"vudo/head/1";

/// The length of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A replica's log in a namespace at some length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The namespace's name: 1 to [`MAX_NAMESPACE_NAME_BYTES`] bytes.
    pub namespace: String,
    /// Whose log it is.
    pub replica: ReplicaKey,
    /// How many changes it has.
    pub length: u64,
    /// The root of its Merkle tree.
    pub root: Hash,
}

impl Head {
    /// The bytes that the replica signs.
    pub fn bytes_to_sign(&self) -> Vec<u8> {
        let mut out = Vec::from(HEAD_TAG);
        self.encode(&mut out);
        out
    }

    fn encode(&self, out: &mut Vec<u8>) {
        write_bytes(out, self.namespace.as_bytes());
        out.extend_from_slice(&self.replica.0);
        write_varint(out, self.length);
        out.extend_from_slice(&self.root);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Head, MalformedFrame> {
        let name = reader.bytes()?;
        if name.is_empty() || name.len() > MAX_NAMESPACE_NAME_BYTES {
            return Err(MalformedFrame::TooLarge);
        }
        let name = core::str::from_utf8(name).map_err(|_| MalformedFrame::StringNotUtf8)?;
        Ok(Head {
            namespace: String::from(name),
            replica: ReplicaKey(reader.array()?),
            length: reader.varint()?,
            root: reader.array()?,
        })
    }
}

/// A head with its replica's signature, which holds or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// The head.
    pub head: Head,
    /// The signature over [`Head::bytes_to_sign`].
    pub signature: [u8; SIGNATURE_BYTES],
}

impl SignedHead {
    /// Whether the signature holds, which `check` says for a key, bytes and a signature over them.
    pub fn holds(
        &self,
        check: impl FnOnce(&ReplicaKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> bool {
        check(&self.head.replica, &self.head.bytes_to_sign(), &self.signature)
    }

    /// Appends the signed head's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.head.encode(out);
        out.extend_from_slice(&self.signature);
    }

    /// Reads a signed head. The signature may be anything: see [`SignedHead::holds`].
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<SignedHead, MalformedFrame> {
        let head = Head::decode(reader)?;
        Ok(SignedHead { head, signature: reader.array()? })
    }
}

/// One of the two sides of a fork: a change that a signed head covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoveredLeaf {
    /// The head.
    pub signed: SignedHead,
    /// The leaf of the change.
    pub leaf: Hash,
    /// That the leaf is in the head's log: see [`crate::merkle::inclusion_proof`].
    pub proof: Vec<Hash>,
}

/// Whether two covered leaves prove that a replica made two changes of one number: both heads are
/// signed by it in one namespace, and both proofs hold, of different leaves.
pub fn is_fork(
    number: u64,
    sides: [&CoveredLeaf; 2],
    mut check: impl FnMut(&ReplicaKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
) -> bool {
    let [left, right] = sides;
    let (left_head, right_head) = (&left.signed.head, &right.signed.head);
    left.leaf != right.leaf
        && left_head.replica == right_head.replica
        && left_head.namespace == right_head.namespace
        && sides.iter().all(|side| {
            let Head { length, root, .. } = &side.signed.head;
            side.signed.holds(&mut check)
                && is_included(&side.leaf, number, *length, root, &side.proof)
        })
}
