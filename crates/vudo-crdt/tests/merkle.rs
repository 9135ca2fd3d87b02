//! The Merkle log against definitions: roots by recursion, proofs by brute force, leaves of changes.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use vudo_crdt::head::{CoveredLeaf, Head, SIGNATURE_BYTES, SignedHead, is_fork};
use vudo_crdt::merkle::{
    CollapsingLog, Hash, MerkleError, MerkleLog, NodeId, RetainedNodes, inclusion_proof,
    is_included, is_prefix, leaf_hash, prefix_proof,
};
use vudo_crdt::wire::Reader;
use vudo_crdt::{
    FieldSchema, InMemory, Log, Namespace, ReplicaKey, Strategy, Transaction, ValueType,
};

const LENGTH_MAX: u64 = 40;

fn leaf(number: u64, branch: u8) -> Hash {
    Sha256::digest([number as u8, branch]).into()
}

/// The root as RFC 6962, section 2.1, defines it.
fn root_by_definition(leaves: &[Hash]) -> Hash {
    match leaves.len() {
        0 => Sha256::digest([]).into(),
        1 => leaves[0],
        count => {
            let left_count = count.next_power_of_two() / 2;
            let (left, right) = leaves.split_at(left_count);
            let sides = [root_by_definition(left), root_by_definition(right)].concat();
            Sha256::digest([&[1], sides.as_slice()].concat()).into()
        }
    }
}

/// A log of so many changes, which takes the other branch from a number on.
fn log_of(length: u64, forked_from: u64) -> (MerkleLog, RetainedNodes, Vec<Hash>) {
    let (mut log, mut nodes, mut leaves) = (MerkleLog::new(), RetainedNodes::default(), Vec::new());
    for number in 1..=length {
        let leaf = leaf(number, u8::from(number >= forked_from));
        leaves.push(leaf);
        log.push(leaf, |id, hash| {
            if id.level == 0 {
                nodes.keep(id, *hash);
            }
        });
    }
    (log, nodes, leaves)
}

#[test]
fn roots_are_those_of_the_definition_at_every_length() {
    let (_, mut nodes, leaves) = log_of(LENGTH_MAX, u64::MAX);
    for length in 0..=LENGTH_MAX {
        let (log, _, _) = log_of(length, u64::MAX);
        let expected = root_by_definition(&leaves[..length as usize]);
        assert_eq!(log.root(), expected, "length {length}");
        assert_eq!(MerkleLog::at(length, &mut nodes).unwrap(), log);
        let mut bytes = Vec::new();
        log.encode(&mut bytes);
        assert_eq!(MerkleLog::decode(&mut Reader::new(&bytes)).unwrap(), log);
    }
    assert_eq!(MerkleLog::at(LENGTH_MAX + 1, &mut nodes), Err(MerkleError::NotRetained));
}

#[test]
fn inclusion_is_proved_for_every_change_and_for_no_other() {
    let (_, mut nodes, leaves) = log_of(LENGTH_MAX, u64::MAX);
    for length in 1..=LENGTH_MAX {
        let root = MerkleLog::at(length, &mut nodes).unwrap().root();
        for number in 1..=length {
            let proof = inclusion_proof(number, length, &mut nodes).unwrap();
            let shown = leaves[number as usize - 1];
            assert!(is_included(&shown, number, length, &root, &proof), "{number} of {length}");
            assert!(!is_included(&leaf(number, 9), number, length, &root, &proof));
            for other in (0..=length + 1).filter(|other| *other != number) {
                assert!(!is_included(&shown, other, length, &root, &proof));
            }
            if let Some((_, shorter)) = proof.split_last() {
                assert!(!is_included(&shown, number, length, &root, shorter));
            }
            assert!(!is_included(&shown, number, length, &root, &[&*proof, &[root]].concat()));
        }
    }
}

#[test]
fn a_prefix_is_proved_and_a_fork_is_not() {
    let (_, mut nodes, _) = log_of(LENGTH_MAX, u64::MAX);
    for length in 0..=LENGTH_MAX {
        let root = MerkleLog::at(length, &mut nodes).unwrap().root();
        for first in 0..=length {
            let first_root = MerkleLog::at(first, &mut nodes).unwrap().root();
            let proof = prefix_proof(first, length, &mut nodes).unwrap();
            assert!(is_prefix((first, &first_root), (length, &root), &proof), "{first}, {length}");
            // A log that took another branch below `first` is no prefix, whatever is shown.
            for forked_from in (1..=first).step_by(5) {
                let (forked, mut forked_nodes, _) = log_of(first, forked_from);
                let shown = (first, &forked.root());
                assert!(!is_prefix(shown, (length, &root), &proof));
                let (long, _, _) = log_of(length, forked_from);
                let own = prefix_proof(first, length, &mut nodes).unwrap();
                assert!(!is_prefix(shown, (length, &root), &own));
                assert!(!is_prefix((first, &first_root), (length, &long.root()), &own));
                assert!(MerkleLog::at(first, &mut forked_nodes).unwrap().root() == *shown.1);
            }
            for cut in 0..proof.len() {
                assert!(!is_prefix((first, &first_root), (length, &root), &proof[..cut]));
            }
        }
    }
}

/// Collapses what is dropped of the nodes of a log, and gives what is kept.
fn collapse(nodes: &[(NodeId, Hash)], is_dropped: impl Fn(u64) -> bool) -> Vec<(NodeId, Hash)> {
    let mut collapsing = CollapsingLog::default();
    let mut kept = Vec::new();
    for (id, hash) in nodes {
        let is_dropped = id.level > 0 || is_dropped(id.first_leaf() + 1);
        collapsing.push(id.level, *hash, is_dropped, |id, hash| kept.push((id, *hash))).unwrap();
        if !is_dropped {
            kept.push((*id, *hash));
        }
    }
    assert_eq!(collapsing.length(), LENGTH_MAX);
    let log = collapsing.finish(|id, hash| kept.push((id, *hash)));
    assert_eq!(log, log_of(LENGTH_MAX, u64::MAX).0);
    kept.sort_by_key(|(id, _)| id.first_leaf());
    kept
}

#[test]
fn dropped_changes_collapse_and_the_roots_stay() {
    let (log, _, leaves) = log_of(LENGTH_MAX, u64::MAX);
    let nodes: Vec<(NodeId, Hash)> =
        (0..).map(|index| NodeId { level: 0, index }).zip(leaves.iter().copied()).collect();
    for pattern in 0..200u64 {
        let is_dropped = |number: u64| {
            let mixed = (number + 41 * pattern).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
            number <= LENGTH_MAX - 8 && mixed < pattern % 17
        };
        // In two steps, as it happens over time.
        let first = collapse(&nodes, |number| is_dropped(number) && number % 2 == 0);
        let in_steps = collapse(&first, is_dropped);
        let at_once = collapse(&nodes, is_dropped);
        assert_eq!(in_steps, at_once);
        let dropped_count = (1..=LENGTH_MAX).filter(|number| is_dropped(*number)).count();
        assert!(at_once.len() <= leaves.len());
        if dropped_count == 32 {
            assert_eq!(at_once.len(), 1 + 8, "the first 32 are one hash");
        }
        let mut collapsed = RetainedNodes::default();
        at_once.iter().for_each(|(id, hash)| collapsed.keep(*id, *hash));
        assert_eq!(MerkleLog::at(LENGTH_MAX, &mut collapsed).unwrap(), log);
        for length in LENGTH_MAX - 8..LENGTH_MAX {
            let root = MerkleLog::at(length, &mut collapsed).unwrap().root();
            assert_eq!(root, root_by_definition(&leaves[..length as usize]));
            let proof = prefix_proof(length, LENGTH_MAX, &mut collapsed).unwrap();
            assert!(is_prefix((length, &root), (LENGTH_MAX, &log.root()), &proof));
        }
        for number in (1..=LENGTH_MAX).filter(|number| !is_dropped(*number)) {
            let proof = inclusion_proof(number, LENGTH_MAX, &mut collapsed).unwrap();
            let shown = &leaves[number as usize - 1];
            assert!(is_included(shown, number, LENGTH_MAX, &log.root(), &proof));
        }
    }
}

#[test]
fn a_collapsed_node_follows_only_where_it_lies() {
    let leaf = leaf(1, 0);
    let mut log = CollapsingLog::default();
    let refused = Err(MerkleError::NotRetained);
    assert_eq!(log.push(64, leaf, true, |_, _| ()), refused, "larger than any log");
    log.push(0, leaf, false, |_, _| ()).unwrap();
    assert_eq!(log.push(1, leaf, true, |_, _| ()), refused, "one leaf is missing before it");
    log.push(0, leaf, false, |_, _| ()).unwrap();
    log.push(1, leaf, true, |_, _| ()).unwrap();
    assert_eq!(log.length(), 4);
}

/// Stands for a signature: a hash of key and bytes.
fn sign(head: Head) -> SignedHead {
    let hash: Hash = Sha256::digest([&head.replica.0[..], &head.bytes_to_sign()].concat()).into();
    let mut signature = [0; SIGNATURE_BYTES];
    signature[..32].copy_from_slice(&hash);
    SignedHead { head, signature }
}

fn check(key: &ReplicaKey, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    let hash: Hash = Sha256::digest([&key.0[..], bytes].concat()).into();
    signature[..32] == hash
}

#[test]
fn two_signed_heads_over_two_changes_of_one_number_prove_a_fork() {
    let side = |length, forked_from| {
        let (log, mut nodes, leaves) = log_of(length, forked_from);
        let replica = ReplicaKey([3; 32]);
        let head = Head { namespace: "home".into(), replica, length, root: log.root() };
        let proof = inclusion_proof(6, length, &mut nodes).unwrap();
        CoveredLeaf { signed: sign(head), leaf: leaves[5], proof }
    };
    let (left, right) = (side(9, u64::MAX), side(12, 6));
    assert!(is_fork(6, [&left, &right], check));
    assert!(!is_fork(5, [&left, &right], check), "the proofs are of another number");
    assert!(!is_fork(6, [&left, &side(12, 7)], check), "the branches part later");
    let mut unsigned = right.clone();
    unsigned.signed.signature[0] ^= 1;
    assert!(!is_fork(6, [&left, &unsigned], check));
    let mut elsewhere = right.signed.head.clone();
    elsewhere.namespace = "work".into();
    let elsewhere = CoveredLeaf { signed: sign(elsewhere), ..right.clone() };
    assert!(!is_fork(6, [&left, &elsewhere], check));

    let mut bytes = Vec::new();
    right.signed.encode(&mut bytes);
    assert_eq!(SignedHead::decode(&mut Reader::new(&bytes)), Ok(right.signed));
    for length in 0..bytes.len() {
        assert!(SignedHead::decode(&mut Reader::new(&bytes[..length])).is_err());
    }
}

/// A store and a peer whose indexes of replicas and Gens differ.
#[test]
fn every_store_computes_the_same_leaves_and_anything_else_is_another_leaf() {
    let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
    let mut namespace = Namespace::new(0);
    let mut log = Log::default();
    let space = &mut namespace;
    for replica in 1..=2 {
        let replica = space.intern_replica(ReplicaKey([replica; 32]));
        for number in 0..3u64 {
            let mut transaction = Transaction::begin(space, replica, 1_000 + number);
            for name in ["Task", "Note"] {
                let index = space.intern_gen(name).unwrap();
                let key = format!("{name} {replica} {number}");
                transaction.create(space, &mut InMemory, index, key.as_bytes()).unwrap();
                let value = "milk".into();
                transaction
                    .set(space, &mut InMemory, index, key.as_bytes(), &title, &value)
                    .unwrap();
            }
            transaction.commit(space, &mut InMemory, &mut log).unwrap();
        }
    }
    let mut peer = Namespace::new(1);
    let mut peer_log = Log::default();
    peer.intern_gen("Note").unwrap();
    peer.intern_replica(ReplicaKey([2; 32]));
    let frame = log.frame_since(&namespace, &Default::default());
    peer.apply_frame(&frame, &mut InMemory, &mut peer_log).unwrap();
    let leaves = |name: &str, namespace: &Namespace, log: &Log| -> Vec<Hash> {
        log.changes().map(|change| leaf_hash(name, namespace, &change)).collect()
    };
    let expected = leaves("home", &namespace, &log);
    assert_eq!(expected.len(), 6);
    assert_eq!(leaves("home", &peer, &peer_log), expected);
    let mut all: BTreeSet<Hash> = expected.into_iter().collect();
    all.extend(leaves("work", &namespace, &log));
    assert_eq!(all.len(), 12, "another namespace has other leaves");
    let mut forged = log.changes().next().unwrap();
    forged.number += 10;
    assert!(all.insert(leaf_hash("home", &namespace, &forged)));
    forged.now = vudo_crdt::Hlc::from_milliseconds(1);
    assert!(all.insert(leaf_hash("home", &namespace, &forged)));
}
