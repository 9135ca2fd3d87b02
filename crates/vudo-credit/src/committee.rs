//! Who agrees: the committee, what its members sign, and certificates of a quorum.
//!
//! A committee of `n` members stands up to `f = (n - 1) / 3` faulty ones, and a quorum is `n - f`.
//! Two quorums share at least `n - 2f >= f + 1` members, so at least one honest one; `2f + 1` would
//! give two disjoint quorums of six.
//!
//! A member signs a [`Statement`]: a kind and a hash. The hash of a list of lane heads is a Merkle
//! root, so that one signature answers for thousands of heads and each head can be shown alone.

use std::collections::BTreeMap;

use crate::error::Refusal;
use crate::keys::{Batch, Digest, Key, NetworkId, Secret, Signature};
use crate::limits::COMMITTEE_MEMBERS_MAX;
use crate::wire::{MalformedFrame, Reader, Wire, wire_enum, wire_struct};

/// The members, in a fixed order, and the network that they answer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committee {
    /// The ledger.
    pub network: NetworkId,
    /// How often the committee has changed.
    pub epoch: u32,
    members: Vec<Key>,
}

/// What a member says of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// This is the log's entry at its index; I sign no other there.
    Entry = 1,
    /// I hold these chains on disk.
    Receipt = 2,
    /// I vote to settle these heads; I vote for nothing that contradicts them.
    Vote = 3,
    /// I have processed the certificate of these heads.
    Processed = 4,
    /// This is what I hold of a lane that is being closed.
    Report = 5,
}

/// A hash and what is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statement {
    /// What is said.
    pub kind: Kind,
    /// Of what.
    pub digest: Digest,
}

/// The signatures of a quorum under one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// What they signed.
    pub statement: Statement,
    /// A bit for each member, the first member's lowest.
    pub signers: u64,
    /// In the order of the members.
    pub signatures: Vec<Signature>,
}

/// Collects the signatures of distinct members until they are a quorum.
#[derive(Clone, Debug)]
pub struct Collector {
    statement: Statement,
    signatures: BTreeMap<usize, Signature>,
}

impl Committee {
    /// A committee of distinct members.
    ///
    /// # Errors
    /// There are none, too many, or one appears twice.
    pub fn new(network: NetworkId, epoch: u32, members: Vec<Key>) -> Result<Committee, Refusal> {
        let mut sorted = members.clone();
        sorted.sort();
        sorted.dedup();
        let is_bounded = (1..=COMMITTEE_MEMBERS_MAX).contains(&members.len());
        if !is_bounded || sorted.len() != members.len() {
            return Err(Refusal::CommitteeMembers { count: members.len() });
        }
        Ok(Committee { network, epoch, members })
    }

    /// The members.
    pub fn members(&self) -> &[Key] {
        &self.members
    }

    /// How many members may be faulty.
    pub fn faulty_max(&self) -> usize {
        (self.members.len() - 1) / 3
    }

    /// How many members make up a quorum.
    pub fn quorum(&self) -> usize {
        #[cfg(vudo_mutation = "quorum_of_two_thirds")]
        return 2 * self.faulty_max() + 1;
        #[cfg(not(vudo_mutation = "quorum_of_two_thirds"))]
        return self.members.len() - self.faulty_max();
    }

    /// The place of a member.
    pub fn index_of(&self, key: &Key) -> Option<usize> {
        self.members.iter().position(|member| member == key)
    }

    /// The hash that a member signs for a statement.
    pub fn signed(&self, statement: &Statement) -> Digest {
        let head = [statement.kind as u8];
        let parts = [&self.network.0[..], &self.epoch.to_be_bytes(), &head, &statement.digest.0];
        Digest::of("vudo-credit/1/statement", &parts)
    }

    /// Signs a statement as a member.
    pub fn sign(&self, secret: &Secret, kind: Kind, digest: Digest) -> Signature {
        secret.sign(&self.signed(&Statement { kind, digest }))
    }

    /// Whether a member signed a statement.
    pub fn verifies(&self, member: usize, statement: &Statement, signature: &Signature) -> bool {
        let signed = self.signed(statement);
        self.members.get(member).is_some_and(|key| key.verifies(&signed, signature))
    }
}

impl Certificate {
    /// Checks the shape and puts the signatures into a batch.
    ///
    /// # Errors
    /// It says something else, names members that there are not, or too few.
    pub fn queue(
        &self,
        committee: &Committee,
        statement: &Statement,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        if self.statement != *statement {
            return Err(Refusal::CertificateOfSomethingElse);
        }
        let signer_count = self.signers.count_ones() as usize;
        let highest = 64 - self.signers.leading_zeros() as usize;
        if signer_count != self.signatures.len() || highest > committee.members.len() {
            return Err(Refusal::CertificateSigners);
        }
        if signer_count < committee.quorum() {
            return Err(Refusal::NoQuorum { found: signer_count, needed: committee.quorum() });
        }
        let signed = committee.signed(&self.statement);
        let signers = (0..committee.members.len()).filter(|index| self.signers >> index & 1 == 1);
        for (index, signature) in signers.zip(&self.signatures) {
            batch.add(committee.members[index], signed, *signature);
        }
        Ok(())
    }

    /// Checks everything.
    ///
    /// # Errors
    /// As [`Certificate::queue`], or a signature is wrong.
    pub fn verify(&self, committee: &Committee, statement: &Statement) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        self.queue(committee, statement, &mut batch)?;
        if cfg!(vudo_mutation = "unverified_votes") || batch.is_valid() {
            Ok(())
        } else {
            Err(Refusal::SignatureWrong)
        }
    }
}

impl Collector {
    /// A collector without signatures.
    pub fn new(kind: Kind, digest: Digest) -> Collector {
        let statement = Statement { kind, digest };
        Collector { statement, signatures: BTreeMap::new() }
    }

    /// What is being signed.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Whether a member has signed.
    pub fn has(&self, member: usize) -> bool {
        self.signatures.contains_key(&member)
    }

    /// Adds a member's signature where it is right; one member counts once.
    pub fn add(&mut self, committee: &Committee, member: usize, signature: Signature) -> bool {
        #[cfg(vudo_mutation = "duplicate_votes")]
        let member = (0..committee.members.len())
            .find(|place| !self.signatures.contains_key(place))
            .unwrap_or(member);
        let is_right =
            cfg!(any(vudo_mutation = "duplicate_votes", vudo_mutation = "unverified_votes"))
                || committee.verifies(member, &self.statement, &signature);
        if is_right {
            self.signatures.entry(member).or_insert(signature);
        }
        is_right
    }

    /// The certificate, once there is a quorum.
    pub fn certificate(&self, committee: &Committee) -> Option<Certificate> {
        let quorum = committee.quorum();
        let mut certificate =
            Certificate { statement: self.statement, signers: 0, signatures: Vec::new() };
        for (member, signature) in self.signatures.iter().take(quorum) {
            certificate.signers |= 1 << member;
            certificate.signatures.push(*signature);
        }
        (certificate.signatures.len() == quorum).then_some(certificate)
    }
}

/// Shows that a hash is in a list by the hashes beside it on the way to the root (RFC 6962,
/// section 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerklePath {
    /// The place in the list.
    pub index: u32,
    /// The length of the list.
    pub count: u32,
    /// From the leaf up.
    pub siblings: Vec<Digest>,
}

/// The root of a list of hashes. A leaf and a node have tags of their own.
pub fn merkle_root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of("vudo-credit/1/no-leaf", &[]),
        [leaf] => Digest::of("vudo-credit/1/leaf", &[&leaf.0]),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            merkle_node(&merkle_root(left), &merkle_root(right))
        }
    }
}

/// The paths of all hashes of a list.
pub fn merkle_paths(leaves: &[Digest]) -> Vec<MerklePath> {
    let count = leaves.len() as u32;
    let empty = |index| MerklePath { index, count, siblings: Vec::new() };
    let mut paths: Vec<MerklePath> = (0..count).map(empty).collect();
    add_siblings(leaves, &mut paths);
    paths
}

/// Adds to each path what lies beside it in the tree over the leaves, and gives the root.
fn add_siblings(leaves: &[Digest], paths: &mut [MerklePath]) -> Digest {
    if leaves.len() < 2 {
        return merkle_root(leaves);
    }
    let middle = split(leaves.len());
    let (left_paths, right_paths) = paths.split_at_mut(middle);
    let left = add_siblings(&leaves[..middle], left_paths);
    let right = add_siblings(&leaves[middle..], right_paths);
    left_paths.iter_mut().for_each(|path| path.siblings.push(right));
    right_paths.iter_mut().for_each(|path| path.siblings.push(left));
    merkle_node(&left, &right)
}

impl MerklePath {
    /// The root that the path leads to from a hash, if the path has the right length.
    pub fn root(&self, leaf: &Digest) -> Option<Digest> {
        // From the root down: on which side of each node the leaf lies.
        let (mut place, mut count) = (self.index as usize, self.count as usize);
        if place >= count {
            return None;
        }
        let mut is_left = Vec::new();
        while count > 1 {
            let left_count = split(count);
            is_left.push(place < left_count);
            if place < left_count {
                count = left_count;
            } else {
                place -= left_count;
                count -= left_count;
            }
        }
        if is_left.len() != self.siblings.len() {
            return None;
        }
        let leaf = Digest::of("vudo-credit/1/leaf", &[&leaf.0]);
        let steps = is_left.iter().rev().zip(&self.siblings);
        Some(steps.fold(leaf, |node, (is_left, sibling)| {
            if *is_left { merkle_node(&node, sibling) } else { merkle_node(sibling, &node) }
        }))
    }
}

/// The greatest power of two below a count of at least two.
fn split(count: usize) -> usize {
    1 << (usize::BITS - 1 - (count - 1).leading_zeros())
}

fn merkle_node(left: &Digest, right: &Digest) -> Digest {
    Digest::of("vudo-credit/1/node", &[&left.0, &right.0])
}

wire_enum!(Kind { 1 => Entry, 2 => Receipt, 3 => Vote, 4 => Processed, 5 => Report });
wire_struct!(Statement { kind, digest });
wire_struct!(MerklePath { index, count, siblings });

impl Wire for Certificate {
    fn write(&self, out: &mut Vec<u8>) {
        self.statement.write(out);
        self.signers.write(out);
        for signature in &self.signatures {
            signature.write(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Certificate, MalformedFrame> {
        let (statement, signers) = (Statement::read(reader)?, u64::read(reader)?);
        let signatures = (0..signers.count_ones()).map(|_| Signature::read(reader));
        Ok(Certificate { statement, signers, signatures: signatures.collect::<Result<_, _>>()? })
    }
}

impl Wire for Committee {
    fn write(&self, out: &mut Vec<u8>) {
        self.network.write(out);
        self.epoch.write(out);
        self.members.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Committee, MalformedFrame> {
        let (network, epoch) = (Digest::read(reader)?, u32::read(reader)?);
        let members = Vec::read(reader)?;
        Committee::new(network, epoch, members).map_err(|_| MalformedFrame::ValueNotCanonical)
    }
}

/// A member's signature under a list of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The member's place.
    pub member: u8,
    /// Over the statement.
    pub signature: Signature,
}

wire_struct!(Signed { member, signature });

#[cfg(test)]
mod tests {
    use super::*;

    fn committee(count: u8) -> (Committee, Vec<Secret>) {
        let secrets: Vec<Secret> = (1..=count).map(|n| Secret::from_seed([n; 32])).collect();
        let keys = secrets.iter().map(Secret::key).collect();
        (Committee::new(Digest::default(), 0, keys).unwrap(), secrets)
    }

    #[test]
    fn two_quorums_share_an_honest_member_at_every_size() {
        for count in 1..=64_u8 {
            let (committee, _) = committee(count);
            let faulty_max = committee.faulty_max();
            let shared = 2 * committee.quorum() as i32 - i32::from(count);
            assert!(shared > faulty_max as i32, "two quorums of {count} share {shared}");
            assert!(committee.quorum() + faulty_max <= usize::from(count));
        }
    }

    #[test]
    fn a_member_counts_once() {
        let (committee, secrets) = committee(4);
        let digest = Digest::of("test", &[]);
        let mut collector = Collector::new(Kind::Vote, digest);
        for _ in 0..4 {
            let vote = committee.sign(&secrets[2], Kind::Vote, digest);
            collector.add(&committee, 2, vote);
        }
        assert_eq!(collector.certificate(&committee), None);
    }

    #[test]
    fn forged_signatures_do_not_certify() {
        let (committee, secrets) = committee(4);
        let digest = Digest::of("test", &[]);
        let statement = Statement { kind: Kind::Vote, digest };
        let mut collector = Collector::new(Kind::Vote, digest);
        for member in 0..4 {
            // The signature of one member under the names of all.
            let vote = committee.sign(&secrets[0], Kind::Vote, digest);
            assert_eq!(collector.add(&committee, member, vote), member == 0);
        }
        assert_eq!(collector.certificate(&committee), None);
        let vote = committee.sign(&secrets[0], Kind::Vote, digest);
        let forged = Certificate { statement, signers: 0b111, signatures: vec![vote; 3] };
        assert_eq!(forged.verify(&committee, &statement), Err(Refusal::SignatureWrong));
    }

    #[test]
    fn a_certificate_stands_for_its_statement_only() {
        let (committee, secrets) = committee(4);
        let digest = Digest::of("test", &[]);
        let mut collector = Collector::new(Kind::Receipt, digest);
        for member in [3, 0, 2] {
            let receipt = committee.sign(&secrets[member], Kind::Receipt, digest);
            assert!(collector.add(&committee, member, receipt));
        }
        let certificate = collector.certificate(&committee).unwrap();
        assert_eq!(certificate.signers, 0b1101);
        assert_eq!(certificate.verify(&committee, collector.statement()), Ok(()));
        let vote = Statement { kind: Kind::Vote, digest };
        let refused = certificate.verify(&committee, &vote);
        assert_eq!(refused, Err(Refusal::CertificateOfSomethingElse));
        let elsewhere = Committee::new(Digest([1; 32]), 0, committee.members().to_vec()).unwrap();
        let refused = certificate.verify(&elsewhere, collector.statement());
        assert_eq!(refused, Err(Refusal::SignatureWrong));
        assert_eq!(Certificate::from_bytes(&certificate.to_bytes()), Ok(certificate));
    }

    #[test]
    fn a_path_leads_from_each_leaf_to_the_root() {
        for count in 1..40 {
            let leaves: Vec<Digest> =
                (0..count).map(|number: u8| Digest::of("test", &[&[number]])).collect();
            let root = merkle_root(&leaves);
            for (path, leaf) in merkle_paths(&leaves).into_iter().zip(&leaves) {
                assert_eq!(path.root(leaf), Some(root));
                assert_ne!(path.root(&root), Some(root));
                let other = MerklePath { index: (path.index + 1) % path.count, ..path.clone() };
                assert!(count == 1 || other.root(leaf) != Some(root));
                assert_eq!(MerklePath::from_bytes(&path.to_bytes()), Ok(path));
            }
        }
    }
}
