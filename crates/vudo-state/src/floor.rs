//! Up to where the log of a namespace has been compacted, and what stays of what was dropped.
//!
//! ```text
//! log        | retained changes, with gaps   | every change ...
//!                                            ^ floor: a checkpoint, and each writer's seal there
//! nodes      | o  o   o    o                 |   hashes of subtrees, in place of dropped leaves
//! ```
//!
//! **The invariant.** Below the floor the log has every change to which the state at the floor refers,
//! or that of a pin; above it, every change. With the nodes, the leaves below give the very logs that
//! the checkpoint names; what is there only for a pin may have a node in its place as well.

use vudo_crdt::checkpoint::SignedCheckpoint;
use vudo_crdt::merkle::{CollapsingLog, Hash, MerkleLog, NodeId};
use vudo_crdt::wire::{MalformedFrame, Reader, write_varint};
use vudo_crdt::{ReplicaIndex, ReplicaKey, Seal, VersionVector};

use crate::error::{Error, Result};
use crate::layout::{self, NamespaceId};
use crate::seals::SealsByReplica;
use crate::storage::{Storage, WriteBatch};

/// So many nodes share an entry of storage.
pub(crate) const NODES_PER_BLOCK: usize = 1_024;

/// Hashes in place of dropped changes of one replica, ascending.
pub(crate) type Nodes = Vec<(NodeId, Hash)>;

/// Where compaction has been.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    pub(crate) signed: SignedCheckpoint,
    /// What the checkpoint covers.
    pub(crate) vector: VersionVector,
    /// The first position above it.
    pub(crate) position: u64,
    /// By replica: the number of its last change that the checkpoint covers, and the seal on that.
    pub(crate) seals: SealsByReplica,
}

impl Floor {
    pub(crate) fn new(signed: SignedCheckpoint, position: u64, seals: SealsByReplica) -> Floor {
        let vector = signed.checkpoint.vector();
        Floor { signed, vector, position, seals }
    }

    /// A replica's log there; `None` where it has not written below.
    pub(crate) fn log_of(&self, key: &ReplicaKey) -> Option<&MerkleLog> {
        let logs = &self.signed.checkpoint.logs;
        logs.binary_search_by_key(key, |(key, _)| *key).ok().map(|place| &logs[place].1)
    }

    /// The floor of a namespace; `None` where nothing has been compacted.
    pub(crate) fn read(
        name: &str,
        id: NamespaceId,
        storage: &dyn Storage,
    ) -> Result<Option<Floor>> {
        let Some(stored) = storage.get(&layout::floor(id))? else { return Ok(None) };
        Floor::decode(&stored)
            .map(Some)
            .map_err(|what| Error::damaged(format!("the floor of namespace '{name}': {what}")))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.signed.encode(&mut out);
        write_varint(&mut out, self.position);
        for (replica, (number, seal)) in &self.seals {
            write_varint(&mut out, (*replica).into());
            write_varint(&mut out, *number);
            seal.encode(&mut out);
        }
        out
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Floor, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let signed = SignedCheckpoint::decode(&mut reader)?;
        let position = reader.varint()?;
        let mut seals = SealsByReplica::new();
        while !reader.is_empty() {
            let replica = reader.varint_up_to(u32::MAX.into())? as ReplicaIndex;
            let number = reader.varint()?;
            seals.insert(replica, (number, Seal::decode(&mut reader)?));
        }
        Ok(Floor::new(signed, position, seals))
    }
}

/// A replica's log, built anew from the changes that are retained and the nodes in place of others.
#[derive(Default)]
pub(crate) struct ReplicaLog {
    log: CollapsingLog,
    /// What is kept in place of dropped changes, from an earlier compaction; the first one last.
    nodes: Nodes,
    /// The same from this one.
    kept: Nodes,
}

impl ReplicaLog {
    pub(crate) fn open(
        id: NamespaceId,
        replica: ReplicaIndex,
        storage: &dyn Storage,
    ) -> Result<ReplicaLog> {
        let (mut nodes, _) = read_nodes(id, replica, (0, usize::MAX), storage)?;
        nodes.reverse();
        Ok(ReplicaLog { log: CollapsingLog::default(), nodes, kept: Vec::new() })
    }

    /// Takes in further nodes, ascending behind those that it has. No change may have been taken.
    pub(crate) fn add_nodes(&mut self, nodes: Nodes) -> Result<()> {
        let last = self.nodes.first().map(|(id, _)| id.first_leaf());
        let firsts = last.into_iter().chain(nodes.iter().map(|(id, _)| id.first_leaf()));
        if self.log.length() > 0 || !firsts.is_sorted_by(|one, other| one < other) {
            return Err(Error::damaged("hashes in place of dropped changes out of their order"));
        }
        self.nodes.splice(0..0, nodes.into_iter().rev());
        Ok(())
    }

    /// How many changes the log has so far, with those that have been dropped behind the last one.
    fn take_nodes(&mut self) -> Result<u64> {
        while let Some((id, hash)) =
            self.nodes.pop_if(|(id, _)| id.first_leaf() == self.log.length())
        {
            self.push(id.level, hash, true)?;
        }
        Ok(self.log.length())
    }

    fn push(&mut self, level: u8, hash: Hash, is_dropped: bool) -> Result<()> {
        let ReplicaLog { log, kept, .. } = self;
        let pushed = log.push(level, hash, is_dropped, |id, hash| kept.push((id, *hash)));
        pushed.map_err(|_| Error::damaged("a hash in place of dropped changes lies elsewhere"))
    }

    /// Whether a change of this number is the next one. It is not where compaction has dropped it,
    /// and has not come to the place where it lies.
    ///
    /// # Errors
    /// Changes are missing before it.
    pub(crate) fn is_next(&mut self, number: u64) -> Result<bool> {
        let length = self.take_nodes()?;
        if number > length + 1 {
            return Err(Error::damaged(format!("the log lacks change {}", length + 1)));
        }
        Ok(number == length + 1)
    }

    /// Takes the next change, by its leaf.
    pub(crate) fn take(&mut self, leaf: Hash, is_dropped: bool) -> Result<()> {
        self.push(0, leaf, is_dropped)
    }

    /// The log, and what is to be kept in place of dropped changes, ascending.
    pub(crate) fn finish(mut self) -> Result<(MerkleLog, Nodes)> {
        self.take_nodes()?;
        let ReplicaLog { log, mut kept, .. } = self;
        let log = log.finish(|id, hash| kept.push((id, *hash)));
        kept.sort_unstable_by_key(|(id, _)| id.first_leaf());
        Ok((log, kept))
    }
}

/// Nodes in place of a replica's dropped changes, ascending: those of the blocks that begin with a leaf
/// or a later one, up to so many. Gives with which leaf the next block begins, if there is one.
pub(crate) fn read_nodes(
    id: NamespaceId,
    replica: ReplicaIndex,
    (first_leaf, count_max): (u64, usize),
    storage: &dyn Storage,
) -> Result<(Nodes, Option<u64>)> {
    let (mut nodes, mut next, mut malformed) = (Vec::new(), None, None);
    let (from, to) = (layout::nodes(id, replica, first_leaf), layout::nodes(id, replica, u64::MAX));
    storage.scan(&from, &to, &mut |key, block| {
        if nodes.len() + NODES_PER_BLOCK > count_max {
            next = Some(layout::trailing_u64(key));
            return false;
        }
        malformed = read_block(block, &mut nodes).err();
        malformed.is_none()
    })?;
    match malformed {
        None => Ok((nodes, next)),
        Some(what) => {
            Err(Error::damaged(format!("the hashes in place of dropped changes: {what}")))
        }
    }
}

fn read_block(block: &[u8], nodes: &mut Nodes) -> std::result::Result<(), MalformedFrame> {
    let mut reader = Reader::new(block);
    while !reader.is_empty() {
        let level = reader.varint_up_to(63)? as u8;
        let index = reader.varint_up_to(u64::MAX >> level)?;
        nodes.push((NodeId { level, index }, reader.array()?));
    }
    Ok(())
}

/// Puts nodes in the place of all that storage has of a replica.
pub(crate) fn replace_nodes(
    id: NamespaceId,
    replica: ReplicaIndex,
    nodes: &[(NodeId, Hash)],
    storage: &dyn Storage,
    batch: &mut WriteBatch,
) -> Result<()> {
    let (from, to) = (layout::nodes(id, replica, 0), layout::nodes(id, replica, u64::MAX));
    storage.scan(&from, &to, &mut |key, _| {
        batch.remove(key.to_vec());
        true
    })?;
    for block in nodes.chunks(NODES_PER_BLOCK) {
        let mut stored = Vec::new();
        for (node, hash) in block {
            write_varint(&mut stored, node.level.into());
            write_varint(&mut stored, node.index);
            stored.extend_from_slice(hash);
        }
        let first_leaf = block.first().map_or(0, |(node, _)| node.first_leaf());
        batch.put(layout::nodes(id, replica, first_leaf), stored);
    }
    Ok(())
}
