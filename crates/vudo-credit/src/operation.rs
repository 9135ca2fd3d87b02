//! What is put in order: the operations of the log, its entries and its records.

use crate::committee::{Certificate, Committee, Kind, MerklePath, Statement, merkle_root};
use crate::error::Refusal;
use crate::keys::{Batch, Digest, Key, NetworkId, Secret, Signature};
use crate::limits::{COMMITTEE_MEMBERS_MAX, RECORD_POSTINGS_MAX};
use crate::spend::{AccountId, Chain, Equivocation, Grant, Head, LaneId};
use crate::wire::{Listed, Wire, wire_enum, wire_struct, write_list};

/// One step of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A request that somebody signed.
    Request(Request),
    /// Another tick has come.
    Tick {
        /// The last one plus one.
        tick: u64,
    },
    /// Certified heads are posted.
    Record(Settlement),
    /// A device has signed two chains that contradict each other.
    Equivocation {
        /// The device's lane.
        lane: LaneId,
        /// The chains.
        proof: Box<Equivocation>,
    },
    /// Members stop to vote on a lane and report what they hold.
    CloseIntent {
        /// The lane.
        lane: LaneId,
    },
    /// A quorum of reports decides what a lane has settled.
    Close {
        /// The lane.
        lane: LaneId,
        /// Of distinct members.
        reports: Vec<Report>,
    },
}

/// What somebody asks for, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who signs.
    pub author: Key,
    /// The author's requests are numbered from 0, so that none is ordered twice.
    pub sequence: u64,
    /// What is asked for.
    pub action: Action,
    /// The author's, over all of the above.
    pub signature: Signature,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the author's account, at 0 and with a limit of 0.
    Open,
    /// An operator sets an account's tier and limit.
    SetLimit {
        /// Whose.
        account: AccountId,
        /// Out of the genesis.
        tier: u8,
        /// At most the tier's, in units.
        limit: u64,
    },
    /// The author vouches for an account with headroom of its own.
    Pledge {
        /// Whose limit grows.
        account: AccountId,
        /// In units.
        amount: u64,
    },
    /// The author takes back a pledge, as far as the account does not need it.
    Unpledge {
        /// Whose limit shrinks.
        account: AccountId,
        /// In units.
        amount: u64,
    },
    /// An operator gives headroom of its own account to the reserve.
    FundReserve {
        /// In units.
        amount: u64,
    },
    /// The author reserves headroom for a device.
    Grant(Grant),
    /// The author's device gets no more grants.
    RevokeDevice {
        /// Which.
        device: Key,
    },
}

/// Heads of different lanes, their certificate, and the spends that lead to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// What was voted for.
    pub heads: Vec<Head>,
    /// A quorum's votes for the list.
    pub certificate: Certificate,
    /// To some or all of the heads, each from a head that the receiver knows. The certificate
    /// stands in for the device's signatures, which need not be right here.
    pub chains: Vec<Chain>,
}

/// One head and the certificate of the list that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedHead {
    /// The head.
    pub head: Head,
    /// Its place in the list.
    pub path: MerklePath,
    /// Of the list.
    pub certificate: Certificate,
}

/// What a member holds of a lane when it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The member's place.
    pub member: u8,
    /// The lane.
    pub lane: LaneId,
    /// The entry that began the closing.
    pub intent: u64,
    /// The highest head that the member has processed a certificate of.
    pub certified: Option<CertifiedHead>,
    /// The chain that the member voted for, then others that contradict it; each from the lane's
    /// beginning.
    pub chains: Vec<Chain>,
    /// The member's, over all of the above.
    pub signature: Signature,
}

/// An operation at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counts from 0.
    pub index: u64,
    /// The hash of the entry before, or the network.
    pub prev_hash: Digest,
    /// The hash of the postings that the operation gives.
    pub postings_hash: Digest,
    /// What happens.
    pub operation: Operation,
}

/// An entry that a quorum has signed: also the proof of a grant that a wallet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedEntry {
    /// The entry.
    pub entry: Entry,
    /// A quorum's signatures.
    pub certificate: Certificate,
}

/// One side of a double entry. The amounts of each record add up to 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Whose balance.
    pub account: AccountId,
    /// What is added, in units.
    pub amount: i128,
}

/// What a member or an auditor keeps of each entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The entry with its certificate.
    pub certified: CertifiedEntry,
    /// What it did to balances.
    pub postings: Vec<Posting>,
}

impl Request {
    /// Signs a request.
    pub fn sign(network: &NetworkId, author: &Secret, sequence: u64, action: Action) -> Request {
        let author_key = author.key();
        let signed = request_digest(network, &author_key, sequence, &action);
        Request { author: author_key, sequence, action, signature: author.sign(&signed) }
    }

    /// What the author signs.
    pub(crate) fn digest(&self, network: &NetworkId) -> Digest {
        request_digest(network, &self.author, self.sequence, &self.action)
    }
}

fn request_digest(network: &NetworkId, author: &Key, sequence: u64, action: &Action) -> Digest {
    let parts = [&network.0[..], &author.0, &sequence.to_be_bytes(), &action.to_bytes()];
    Digest::of("vudo-credit/1/request", &parts)
}

/// The statement that a list of heads is signed under.
pub fn heads_statement(kind: Kind, heads: &[Head]) -> Statement {
    let leaves: Vec<Digest> = heads.iter().map(Head::digest).collect();
    Statement { kind, digest: merkle_root(&leaves) }
}

impl CertifiedHead {
    /// Checks the path and puts the signatures into a batch.
    ///
    /// # Errors
    /// The path leads elsewhere, or as [`Certificate::queue`].
    pub fn queue(&self, committee: &Committee, batch: &mut Batch) -> Result<(), Refusal> {
        let root = self.path.root(&self.head.digest());
        let root = root.ok_or(Refusal::CertificateOfSomethingElse)?;
        let statement = Statement { kind: Kind::Vote, digest: root };
        self.certificate.queue(committee, &statement, batch)
    }
}

impl Report {
    /// What the member signs: the report without the signature, which comes last.
    pub fn digest(&self) -> Digest {
        let bytes = self.to_bytes();
        let body = &bytes[..bytes.len() - self.signature.0.len()];
        Digest::of("vudo-credit/1/report", &[body])
    }
}

impl Entry {
    /// What members sign and the next entry names.
    pub fn hash(&self, network: &NetworkId) -> Digest {
        let operation = Digest::of("vudo-credit/1/operation", &[&self.operation.to_bytes()]);
        let index = self.index.to_be_bytes();
        let parts =
            [&network.0[..], &index, &self.prev_hash.0, &self.postings_hash.0, &operation.0];
        Digest::of("vudo-credit/1/entry", &parts)
    }
}

impl CertifiedEntry {
    /// Puts the certificate's signatures into a batch.
    ///
    /// # Errors
    /// As [`Certificate::queue`].
    pub fn queue(&self, committee: &Committee, batch: &mut Batch) -> Result<(), Refusal> {
        let digest = self.entry.hash(&committee.network);
        self.certificate.queue(committee, &Statement { kind: Kind::Entry, digest }, batch)
    }

    /// Checks the certificate.
    ///
    /// # Errors
    /// As [`Certificate::verify`].
    pub fn verify(&self, committee: &Committee) -> Result<(), Refusal> {
        let digest = self.entry.hash(&committee.network);
        self.certificate.verify(committee, &Statement { kind: Kind::Entry, digest })
    }

    /// The lane and its grant, where the entry is one.
    pub fn grant(&self) -> Option<(LaneId, &Grant)> {
        match &self.entry.operation {
            Operation::Request(Request { action: Action::Grant(grant), .. }) => {
                Some((LaneId(self.entry.index), grant))
            }
            _ => None,
        }
    }
}

/// The hash of an operation's postings.
pub fn postings_hash(postings: &[Posting]) -> Digest {
    let mut bytes = Vec::new();
    write_list(&mut bytes, postings);
    Digest::of("vudo-credit/1/postings", &[&bytes])
}

wire_struct!(Request { author, sequence, action, signature });
wire_struct!(CertifiedHead { head, path, certificate });
wire_struct!(Entry { index, prev_hash, postings_hash, operation });
wire_struct!(CertifiedEntry { entry, certificate });
wire_struct!(Posting { account, amount });
wire_struct!(LogRecord { certified, postings });
wire_struct!(Settlement { heads, certificate, chains });
wire_struct!(Report { member, lane, intent, certified, chains, signature });

wire_enum!(Operation {
    1 => Request(request),
    2 => Tick { tick },
    3 => Record(settlement),
    4 => Equivocation { lane, proof },
    5 => CloseIntent { lane },
    6 => Close { lane, reports },
});

wire_enum!(Action {
    1 => Open,
    2 => SetLimit { account, tier, limit },
    3 => Pledge { account, amount },
    4 => Unpledge { account, amount },
    5 => FundReserve { amount },
    6 => Grant(grant),
    7 => RevokeDevice { device },
});

impl Listed for Posting {
    const COUNT_MAX: usize = RECORD_POSTINGS_MAX;
}

impl Listed for Report {
    const COUNT_MAX: usize = COMMITTEE_MEMBERS_MAX;
}
