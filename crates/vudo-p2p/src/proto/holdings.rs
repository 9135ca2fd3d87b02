//! What a side holds as a session begins, and whether the other one can hold the same.

use vudo_crdt::wire::{MalformedFrame, Reader};
use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_state::Replication;

/// The first bytes of the root of a replica's log; zeros where it is not told.
pub type LogHash = [u8; 8];

const UNTOLD: LogHash = [0; 8];

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
