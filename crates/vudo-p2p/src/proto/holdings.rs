//! What a side holds as a session begins, how that is told, and whether the other one can hold the same.

use sha2::{Digest, Sha256};
use vudo_crdt::limits::MAX_VECTOR_REPLICAS;
use vudo_crdt::wire::{MalformedFrame, Reader};
use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_state::{Cursor, CursorDigest, Replication};

use crate::limits::WHOLE_HOLDINGS_REPLICAS_MAX;

/// The first bytes of the root of a replica's log; zeros where it is not told.
pub type LogHash = [u8; 8];

const UNTOLD: LogHash = [0; 8];

/// The first bytes of a hash of a version vector.
pub type VectorDigest = [u8; 16];

/// What two version vectors that are equal have in common.
pub fn vector_digest(vector: &VersionVector) -> VectorDigest {
    let mut bytes = b"vudo vector ".to_vec();
    vector.encode(&mut bytes);
    first_bytes(&bytes)
}

fn first_bytes(bytes: &[u8]) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    hash.first_chunk().copied().unwrap_or_default()
}

/// What is held durably: for each replica how many of its changes, and a short hash of its log. The
/// hash proves nothing; where two differ at one length, signed heads are exchanged, which do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// How many changes of each replica.
    pub vector: VersionVector,
    /// In the order of the vector; what is missing at the end is not told.
    pub log_hashes: Vec<LogHash>,
}

impl From<VersionVector> for Holdings {
    /// Holdings without hashes.
    fn from(vector: VersionVector) -> Holdings {
        Holdings { vector, log_hashes: Vec::new() }
    }
}

impl Holdings {
    /// What a store holds durably of a namespace.
    ///
    /// # Errors
    /// The disk failed.
    pub fn of(replication: &Replication) -> vudo_state::Result<Holdings> {
        let (vector, roots) = replication.log_roots()?;
        let short = |root: Option<_>| {
            root.map_or(UNTOLD, |root: vudo_crdt::merkle::Hash| {
                root.first_chunk().copied().unwrap_or(UNTOLD)
            })
        };
        Ok(Holdings { vector, log_hashes: roots.into_iter().map(short).collect() })
    }

    /// What is the same for two sides that hold the same, logs included.
    pub fn digest(&self) -> CursorDigest {
        let mut bytes = b"vudo holdings ".to_vec();
        self.encode(&mut bytes);
        first_bytes(&bytes)
    }

    /// What to remember of a peer that holds this too, where the next session would not tell all of it in
    /// any case.
    ///
    /// # Errors
    /// The disk failed.
    pub fn cursor_at(
        replication: &Replication,
        vector: &VersionVector,
    ) -> vudo_state::Result<Option<Cursor>> {
        if vector.replica_count() <= WHOLE_HOLDINGS_REPLICAS_MAX {
            return Ok(None);
        }
        let held = Holdings::of(replication)?;
        // More may have become durable since.
        let is_there = held.vector == *vector;
        Ok(is_there.then(|| Cursor { digest: held.digest(), vector: held.vector.into() }))
    }

    /// What of it was not held yet at a cursor.
    pub(super) fn since(&self, cursor: &VersionVector) -> Holdings {
        let mut changed = Holdings::default();
        for (replica, number, hash) in self.entries() {
            if number != cursor.get(&replica) {
                changed.vector.advance(replica, number);
                changed.log_hashes.push(hash);
            }
        }
        changed
    }

    /// What a peer holds that held `before` and says what has changed since. Of the rest both have the same
    /// logs. `None` where that is more than anybody holds.
    pub(super) fn on_top_of(self, before: &VersionVector) -> Option<Holdings> {
        let mut vector = before.clone();
        vector.join(&self.vector);
        if vector.replica_count() > MAX_VECTOR_REPLICAS {
            return None;
        }
        let mut told = self.entries().peekable();
        let hashes = vector.iter().map(|(replica, number)| {
            let told = told.next_if(|(told, _, _)| *told == replica);
            told.filter(|told| told.1 == number).map_or(UNTOLD, |(_, _, hash)| hash)
        });
        let log_hashes = hashes.collect();
        Some(Holdings { vector, log_hashes })
    }

    /// Appends the bytes: the vector, and a hash for each of its entries.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.vector.encode(out);
        for place in 0..self.vector.replica_count() {
            out.extend_from_slice(self.log_hashes.get(place).unwrap_or(&UNTOLD));
        }
    }

    /// Reads what [`Holdings::encode`] wrote.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Holdings, MalformedFrame> {
        let vector = VersionVector::decode(reader)?;
        let mut log_hashes = Vec::new();
        for _ in 0..vector.replica_count() {
            log_hashes.push(reader.array()?);
        }
        Ok(Holdings { vector, log_hashes })
    }

    fn entries(&self) -> impl Iterator<Item = (ReplicaKey, u64, LogHash)> + '_ {
        let hashes = self.log_hashes.iter().copied().chain(std::iter::repeat(UNTOLD));
        self.vector.iter().zip(hashes).map(|((replica, number), hash)| (replica, number, hash))
    }

    /// The first replica of which both sides hold as many changes, and not the same ones.
    pub(super) fn first_difference(&self, other: &Holdings) -> Option<ReplicaKey> {
        let mut others = other.entries().peekable();
        for (replica, number, hash) in self.entries() {
            while others.next_if(|(other, _, _)| *other < replica).is_some() {}
            let same = others.next_if(|(other, _, _)| *other == replica);
            if let Some((_, other_number, other_hash)) = same
                && number == other_number
                && hash != other_hash
                && ![hash, other_hash].contains(&UNTOLD)
            {
                return Some(replica);
            }
        }
        None
    }
}
