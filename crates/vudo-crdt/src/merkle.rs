//! The log of one replica in one namespace as an append-only Merkle tree over its changes.
//!
//! ```text
//!            o              root of five leaves
//!          /   \
//!        o      |           Every node over 2^level leaves in a row is *perfect*: it never changes
//!      /   \    |           again. The right edge is the perfect nodes that the length is made of,
//!     o     o   |           here 4 + 1. It is all that appending needs.
//!    / \   / \  |
//!   1   2 3   4 5           leaf = change of this number
//! ```
//!
//! The shape and the proofs are those of RFC 6962 and RFC 9162 (Certificate Transparency). A leaf
//! hashes a header and one part for each document, with the names of Gens and the key of the writer
//! and never an index of this store, so every store computes the same.
//!
//! **Who owns what.** The caller keeps nodes, and gives them back through [`NodeSource`]; it may
//! keep leaves only, or compute them from the changes. Leaves of dropped changes collapse into the
//! hash of the largest subtree that holds nothing else.
//!
//! **The invariant.** A root fixes every change below it: two logs with one root at one length are
//! the same log. Nothing of this is needed to merge.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::change::{self, Change, DocumentChange};
use crate::namespace::Namespace;
use crate::wire::{MalformedFrame, Reader, write_varint};

/// A SHA-256 hash.
pub type Hash = [u8; HASH_BYTES];

const HASH_BYTES: usize = 32;
const PART_TAG: &[u8] = b"vudo/part/1";
const LEAF_TAG: &[u8] = b"vudo/leaf/1";
// A node can never be taken for a leaf: RFC 6962, section 2.1.
const LEAF_PREFIX: [u8; 1] = [0];
const NODE_PREFIX: [u8; 1] = [1];

/// The leaf of a change in the namespace of this name. Its indexes are those of `namespace`.
pub fn leaf_hash(namespace_name: &str, namespace: &Namespace, change: &Change<'_>) -> Hash {
    let mut documents = change::documents(change.body);
    let head = &change.body[..change.body.len() - documents.rest().len()];
    let mut leaf = Sha256::new();
    leaf.update(LEAF_PREFIX);
    leaf.update(LEAF_TAG);
    update_bytes(&mut leaf, namespace_name.as_bytes());
    leaf.update(namespace.replicas().key(change.replica).0);
    leaf.update(change.number.to_le_bytes());
    leaf.update(change.now.milliseconds().to_le_bytes());
    update_bytes(&mut leaf, head);
    while !documents.is_empty() {
        let document = DocumentChange::read(&mut documents);
        let mut part = Sha256::new();
        part.update(PART_TAG);
        update_bytes(&mut part, &namespace.gens[document.gen_index as usize].name);
        update_bytes(&mut part, document.key);
        part.update(document.life.to_le_bytes());
        part.update(document.operations);
        leaf.update(part.finalize());
    }
    leaf.finalize().into()
}

fn update_bytes(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut node = Sha256::new();
    node.update(NODE_PREFIX);
    node.update(left);
    node.update(right);
    node.finalize().into()
}

/// The root of a log without changes.
fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// A perfect node: the leaves from `index << level` on, `1 << level` of them. Leaves count from 0,
/// so the change of number n is the leaf n - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId {
    /// Zero for a leaf.
    pub level: u8,
    /// Among the nodes of its level.
    pub index: u64,
}

impl NodeId {
    fn first_leaf(self) -> u64 {
        self.index << self.level
    }

    fn children(self) -> [NodeId; 2] {
        [0, 1].map(|side| NodeId { level: self.level - 1, index: self.index * 2 + side })
    }
}

/// Where the hashes of nodes come from.
pub trait NodeSource {
    /// Why a node could not be read.
    type Error;

    /// The hash of a node; `None` where it is not kept, which is no error where its children are.
    ///
    /// # Errors
    /// Whatever kept the node from being read.
    fn node(&mut self, id: NodeId) -> Result<Option<Hash>, Self::Error>;
}

/// Why a hash could not be computed.
#[derive(Debug, PartialEq, Eq)]
pub enum MerkleError<E> {
    /// The source failed.
    Source(E),
    /// The changes below have been dropped, or there have never been so many.
    NotRetained,
}

/// The right edge of a log's tree: what appending and the current root take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MerkleLog {
    length: u64,
    /// The perfect nodes that the length is made of, the largest first: as many as it has ones.
    edge: Vec<Hash>,
}

impl MerkleLog {
    /// The log without changes.
    pub const fn new() -> MerkleLog {
        MerkleLog { length: 0, edge: Vec::new() }
    }

    /// How many changes the log has: the number of the last one.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends a leaf. Shows each perfect node that this completes, the leaf first.
    pub fn push(&mut self, leaf: Hash, mut completed: impl FnMut(NodeId, &Hash)) {
        let mut id = NodeId { level: 0, index: self.length };
        let mut hash = leaf;
        completed(id, &hash);
        while id.index & 1 == 1 {
            // An odd index is a right child, so its left sibling ends the edge.
            let Some(left) = self.edge.pop() else { break };
            hash = node_hash(&left, &hash);
            id = NodeId { level: id.level + 1, index: id.index >> 1 };
            completed(id, &hash);
        }
        self.edge.push(hash);
        self.length += 1;
    }

    /// The root over all changes.
    pub fn root(&self) -> Hash {
        fold_edge(&self.edge)
    }

    /// Appends the log's bytes: its length and its edge.
    pub fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.length);
        self.edge.iter().for_each(|hash| out.extend_from_slice(hash));
    }

    /// Reads what [`MerkleLog::encode`] wrote.
    ///
    /// # Errors
    /// The bytes end too early.
    pub fn decode(reader: &mut Reader<'_>) -> Result<MerkleLog, MalformedFrame> {
        let length = reader.varint()?;
        let mut edge = Vec::new();
        for _ in 0..length.count_ones() {
            edge.push(reader.array()?);
        }
        Ok(MerkleLog { length, edge })
    }

    /// The log as it was at an earlier length.
    ///
    /// # Errors
    /// The source failed, or changes around that length have been dropped.
    pub fn at<S: NodeSource>(
        length: u64,
        nodes: &mut S,
    ) -> Result<MerkleLog, MerkleError<S::Error>> {
        let mut edge = Vec::new();
        for id in perfect_nodes(0, length) {
            edge.push(subtree(id, nodes)?);
        }
        Ok(MerkleLog { length, edge })
    }
}

/// The root over the perfect nodes of an edge.
fn fold_edge(edge: &[Hash]) -> Hash {
    let Some((last, larger)) = edge.split_last() else {
        return empty_root();
    };
    larger.iter().rev().fold(*last, |right, left| node_hash(left, &right))
}

/// The perfect nodes that leaves in a row are made of, where the first is at a multiple of the
/// largest node's size.
fn perfect_nodes(first: u64, end: u64) -> impl Iterator<Item = NodeId> {
    let mut next = first;
    core::iter::from_fn(move || {
        let left = end - next;
        let level = left.checked_ilog2()?;
        let id = NodeId { level: level as u8, index: next >> level };
        next += 1 << level;
        Some(id)
    })
}

/// The hash of a perfect node, from what is kept of it.
fn subtree<S: NodeSource>(id: NodeId, nodes: &mut S) -> Result<Hash, MerkleError<S::Error>> {
    if let Some(hash) = nodes.node(id).map_err(MerkleError::Source)? {
        return Ok(hash);
    }
    if id.level == 0 {
        return Err(MerkleError::NotRetained);
    }
    let [left, right] = id.children();
    Ok(node_hash(&subtree(left, nodes)?, &subtree(right, nodes)?))
}

/// The root over leaves in a row, the first of them at a multiple of the next power of two.
fn range_root<S: NodeSource>(
    first: u64,
    end: u64,
    nodes: &mut S,
) -> Result<Hash, MerkleError<S::Error>> {
    let mut edge = Vec::new();
    for id in perfect_nodes(first, end) {
        edge.push(subtree(id, nodes)?);
    }
    Ok(fold_edge(&edge))
}

/// How many leaves the left subtree over `count` has: the greatest power of two below it.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// That the change of a number is in a log of a length: the hashes beside its path, leaf first.
///
/// # Errors
/// The source failed, what the proof needs has been dropped, or the log has no such number.
pub fn inclusion_proof<S: NodeSource>(
    number: u64,
    length: u64,
    nodes: &mut S,
) -> Result<Vec<Hash>, MerkleError<S::Error>> {
    if !(1..=length).contains(&number) {
        return Err(MerkleError::NotRetained);
    }
    let leaf = number - 1;
    let (mut first, mut end) = (0, length);
    let mut beside = Vec::new();
    while end - first > 1 {
        let middle = first + split(end - first);
        if leaf < middle {
            beside.push(range_root(middle, end, nodes)?);
            end = middle;
        } else {
            beside.push(range_root(first, middle, nodes)?);
            first = middle;
        }
    }
    beside.reverse();
    Ok(beside)
}

/// Whether a proof shows that the change of this number and leaf is in the log of this root.
pub fn is_included(leaf: &Hash, number: u64, length: u64, root: &Hash, proof: &[Hash]) -> bool {
    if number == 0 || number > length {
        return false;
    }
    // RFC 9162, section 2.1.3.2.
    let (mut node, mut last) = (number - 1, length - 1);
    let mut hash = *leaf;
    for beside in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(beside, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// That a log of one length goes on to a greater one: see [`is_prefix`].
///
/// # Errors
/// The source failed, what the proof needs has been dropped, or the first length is the greater.
pub fn prefix_proof<S: NodeSource>(
    first_length: u64,
    length: u64,
    nodes: &mut S,
) -> Result<Vec<Hash>, MerkleError<S::Error>> {
    let mut proof = Vec::new();
    if first_length > length {
        return Err(MerkleError::NotRetained);
    }
    if first_length == 0 || first_length == length {
        return Ok(proof);
    }
    // RFC 9162, section 2.1.4.1, from the top down.
    let (mut first, mut end) = (0, length);
    while first_length != end {
        let middle = first + split(end - first);
        if first_length <= middle {
            proof.push(range_root(middle, end, nodes)?);
            end = middle;
        } else {
            proof.push(range_root(first, middle, nodes)?);
            first = middle;
        }
    }
    // The whole first log is a node that whoever verifies knows already.
    if first > 0 {
        proof.push(range_root(first, end, nodes)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether a proof shows that the log of the first length and root goes on to the second.
pub fn is_prefix(first: (u64, &Hash), second: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((first_length, first_root), (length, root)) = (first, second);
    if first_length == 0 || first_length >= length {
        let is_same = first_length == length && first_root == root;
        return proof.is_empty() && (first_length == 0 && *first_root == empty_root() || is_same);
    }
    // RFC 9162, section 2.1.4.2.
    let mut proof = proof.iter();
    let is_perfect = first_length.is_power_of_two();
    let start = if is_perfect { Some(first_root) } else { proof.next() };
    let Some(start) = start else { return false };
    let (mut node, mut last) = (first_length - 1, length - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut first_hash, mut second_hash) = (*start, *start);
    for beside in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            first_hash = node_hash(beside, &first_hash);
            second_hash = node_hash(beside, &second_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            second_hash = node_hash(&second_hash, beside);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && first_hash == *first_root && second_hash == *root
}

/// Nodes in memory: the leaves of what is retained, and subtrees in place of what is not.
#[derive(Clone, Debug, Default)]
pub struct RetainedNodes {
    nodes: BTreeMap<NodeId, Hash>,
}

impl NodeSource for RetainedNodes {
    type Error = core::convert::Infallible;

    fn node(&mut self, id: NodeId) -> Result<Option<Hash>, Self::Error> {
        Ok(self.nodes.get(&id).copied())
    }
}

impl RetainedNodes {
    /// Keeps a leaf or a subtree. Inner nodes over kept leaves need not be kept.
    pub fn keep(&mut self, id: NodeId, hash: Hash) {
        self.nodes.insert(id, hash);
    }

    /// How many nodes are kept.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Collapses the leaves of dropped changes in a log of this length: whatever lies wholly in
    /// what has been dropped becomes one hash. `is_dropped` is asked about numbers.
    ///
    /// # Errors
    /// [`MerkleError::NotRetained`] where a hash is missing already; nothing has changed then.
    pub fn collapse(
        &mut self,
        length: u64,
        mut is_dropped: impl FnMut(u64) -> bool,
    ) -> Result<(), MerkleError<core::convert::Infallible>> {
        let mut collapsed = BTreeMap::new();
        for id in perfect_nodes(0, length) {
            if self.collect(id, &mut is_dropped, &mut collapsed)? {
                collapsed.insert(id, subtree(id, self)?);
            }
        }
        self.nodes = collapsed;
        Ok(())
    }

    /// Collects what stays of a subtree, unless it is dropped whole. Gives whether it is.
    fn collect(
        &mut self,
        id: NodeId,
        is_dropped: &mut impl FnMut(u64) -> bool,
        out: &mut BTreeMap<NodeId, Hash>,
    ) -> Result<bool, MerkleError<core::convert::Infallible>> {
        if id.level == 0 {
            if is_dropped(id.first_leaf() + 1) {
                return Ok(true);
            }
            out.insert(id, subtree(id, self)?);
            return Ok(false);
        }
        // What has collapsed before has no leaves any more.
        if self.nodes.contains_key(&id) && !self.has_below(id) {
            return Ok(true);
        }
        let children = id.children();
        let mut are_dropped = [false; 2];
        for (child, dropped) in children.iter().zip(&mut are_dropped) {
            *dropped = self.collect(*child, is_dropped, out)?;
        }
        if are_dropped == [true; 2] {
            return Ok(true);
        }
        for (child, dropped) in children.into_iter().zip(are_dropped) {
            if dropped {
                out.insert(child, subtree(child, self)?);
            }
        }
        Ok(false)
    }

    /// Whether something is kept below a node.
    fn has_below(&self, id: NodeId) -> bool {
        (0..id.level).any(|level| {
            let first = id.first_leaf() >> level;
            let last = ((id.index + 1) << id.level >> level) - 1;
            let ids = NodeId { level, index: first }..=NodeId { level, index: last };
            self.nodes.range(ids).next().is_some()
        })
    }
}
