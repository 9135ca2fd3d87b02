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

use crate::change::{self, Change, DocumentChange, GenIndex};
use crate::frame::Frame;
use crate::namespace::Namespace;
use crate::replica::ReplicaKey;
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
    let key = namespace.replicas().key(change.replica);
    leaf_of(namespace_name, key, change, |gen_index| &namespace.gens[gen_index as usize].name)
}

/// The leaf of a change that lies in a frame. Its indexes are the frame's.
pub fn frame_leaf_hash(namespace_name: &str, frame: &Frame<'_>, change: &Change<'_>) -> Hash {
    let key = ReplicaKey::of(frame.keys[change.replica as usize]);
    leaf_of(namespace_name, &key, change, |gen_index| frame.gens[gen_index as usize])
}

/// The leaf of a change of the replica of this key, by the names of Gens.
pub fn leaf_of<'a>(
    namespace_name: &str,
    key: &ReplicaKey,
    change: &Change<'_>,
    gen_name: impl Fn(GenIndex) -> &'a [u8],
) -> Hash {
    let mut documents = change::documents(change.body);
    let head = &change.body[..change.body.len() - documents.rest().len()];
    let mut leaf = Sha256::new();
    leaf.update(LEAF_PREFIX);
    leaf.update(LEAF_TAG);
    update_bytes(&mut leaf, namespace_name.as_bytes());
    leaf.update(key.0);
    leaf.update(change.number.to_le_bytes());
    leaf.update(change.now.milliseconds().to_le_bytes());
    update_bytes(&mut leaf, head);
    while !documents.is_empty() {
        let document = DocumentChange::read(&mut documents);
        let mut part = Sha256::new();
        part.update(PART_TAG);
        update_bytes(&mut part, gen_name(document.gen_index));
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
    /// The first of its leaves, counted from 0.
    pub fn first_leaf(self) -> u64 {
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
}

/// Builds a log anew from what is kept of it, and collapses the leaves of dropped changes: whatever
/// lies wholly in what has been dropped becomes one hash.
#[derive(Clone, Debug, Default)]
pub struct CollapsingLog {
    log: MerkleLog,
    /// For each node of the edge whether all below it has been dropped.
    are_dropped: Vec<bool>,
}

impl CollapsingLog {
    /// How many changes it has so far.
    pub fn length(&self) -> u64 {
        self.log.length
    }

    /// Appends a leaf, or a node of a greater level that has collapsed before. Calls back with each
    /// hash to keep in place of dropped leaves, as soon as it is as large as it gets.
    ///
    /// # Errors
    /// [`MerkleError::NotRetained`] where no node of this level can follow; nothing has changed then.
    pub fn push(
        &mut self,
        level: u8,
        hash: Hash,
        is_dropped: bool,
        mut keep: impl FnMut(NodeId, &Hash),
    ) -> Result<(), MerkleError<core::convert::Infallible>> {
        let leaf_count = 1u64.checked_shl(level.into()).unwrap_or_default();
        let MerkleLog { length, edge } = &mut self.log;
        let end = length.checked_add(leaf_count).filter(|_| leaf_count != 0);
        let Some(end) = end.filter(|_| length.is_multiple_of(leaf_count)) else {
            return Err(MerkleError::NotRetained);
        };
        let mut id = NodeId { level, index: *length >> level };
        let (mut hash, mut is_dropped) = (hash, is_dropped);
        while id.index & 1 == 1 {
            let (Some(left), Some(is_left_dropped)) = (edge.pop(), self.are_dropped.pop()) else {
                break;
            };
            if is_left_dropped && !is_dropped {
                keep(NodeId { index: id.index - 1, ..id }, &left);
            } else if is_dropped && !is_left_dropped {
                keep(id, &hash);
            }
            is_dropped &= is_left_dropped;
            hash = node_hash(&left, &hash);
            id = NodeId { level: id.level + 1, index: id.index >> 1 };
        }
        edge.push(hash);
        self.are_dropped.push(is_dropped);
        *length = end;
        Ok(())
    }

    /// Ends the log: what has been dropped at its end is kept as it is. Gives the log.
    pub fn finish(self, mut keep: impl FnMut(NodeId, &Hash)) -> MerkleLog {
        let nodes = perfect_nodes(0, self.log.length).zip(&self.log.edge);
        for ((id, hash), is_dropped) in nodes.zip(self.are_dropped) {
            if is_dropped {
                keep(id, hash);
            }
        }
        self.log
    }
}
