//! What is put in order: the operations of the log, its entries and its records.

use crate::committee::{Certificate, Committee, Kind, MerklePath, Statement, merkle_root};
use crate::error::Refusal;
use crate::keys::{Batch, Digest, Key, NetworkId, Secret, Signature};
use crate::limits::{COMMITTEE_MEMBERS_MAX, LANE_BRANCHES_MAX, SETTLEMENT_HEADS_MAX};
use crate::spend::{AccountId, Chain, Equivocation, Grant, Head, LaneId};
use crate::wire::{MalformedFrame, Reader, Wire, read_list, wire_struct, write_list};

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

    /// Whether the author signed it.
    pub fn is_signed(&self, network: &NetworkId) -> bool {
        let signed = request_digest(network, &self.author, self.sequence, &self.action);
        self.author.verifies(&signed, &self.signature)
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
    /// What the member signs: the report without the signature.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        self.write_body(&mut bytes);
        Digest::of("vudo-credit/1/report", &[&bytes])
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        self.member.write(out);
        self.lane.write(out);
        self.intent.write(out);
        self.certified.write(out);
        write_list(out, &self.chains);
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

/// Most postings of one record: two for each spend would be the most, but they are summed up by
/// account.
const POSTINGS_MAX: usize = 1 << 24;

wire_struct!(Request { author, sequence, action, signature });
wire_struct!(CertifiedHead { head, path, certificate });
wire_struct!(Entry { index, prev_hash, postings_hash, operation });
wire_struct!(CertifiedEntry { entry, certificate });
wire_struct!(Posting { account, amount });

impl Wire for Settlement {
    fn write(&self, out: &mut Vec<u8>) {
        write_list(out, &self.heads);
        self.certificate.write(out);
        write_list(out, &self.chains);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Settlement, MalformedFrame> {
        let heads = read_list(reader, SETTLEMENT_HEADS_MAX)?;
        let certificate = Certificate::read(reader)?;
        Ok(Settlement { heads, certificate, chains: read_list(reader, SETTLEMENT_HEADS_MAX)? })
    }
}

impl Wire for Report {
    fn write(&self, out: &mut Vec<u8>) {
        self.write_body(out);
        self.signature.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Report, MalformedFrame> {
        Ok(Report {
            member: u8::read(reader)?,
            lane: LaneId::read(reader)?,
            intent: u64::read(reader)?,
            certified: Option::read(reader)?,
            chains: read_list(reader, LANE_BRANCHES_MAX + 1)?,
            signature: Signature::read(reader)?,
        })
    }
}

impl Wire for LogRecord {
    fn write(&self, out: &mut Vec<u8>) {
        self.certified.write(out);
        write_list(out, &self.postings);
    }

    fn read(reader: &mut Reader<'_>) -> Result<LogRecord, MalformedFrame> {
        let certified = CertifiedEntry::read(reader)?;
        Ok(LogRecord { certified, postings: read_list(reader, POSTINGS_MAX)? })
    }
}

impl Wire for Operation {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Operation::Request(request) => {
                1_u8.write(out);
                request.write(out);
            }
            Operation::Tick { tick } => {
                2_u8.write(out);
                tick.write(out);
            }
            Operation::Record(settlement) => {
                3_u8.write(out);
                settlement.write(out);
            }
            Operation::Equivocation { lane, proof } => {
                4_u8.write(out);
                lane.write(out);
                proof.write(out);
            }
            Operation::CloseIntent { lane } => {
                5_u8.write(out);
                lane.write(out);
            }
            Operation::Close { lane, reports } => {
                6_u8.write(out);
                lane.write(out);
                write_list(out, reports);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Operation, MalformedFrame> {
        Ok(match reader.byte()? {
            1 => Operation::Request(Request::read(reader)?),
            2 => Operation::Tick { tick: u64::read(reader)? },
            3 => Operation::Record(Settlement::read(reader)?),
            4 => Operation::Equivocation {
                lane: LaneId::read(reader)?,
                proof: Box::new(Equivocation::read(reader)?),
            },
            5 => Operation::CloseIntent { lane: LaneId::read(reader)? },
            6 => Operation::Close {
                lane: LaneId::read(reader)?,
                reports: read_list(reader, COMMITTEE_MEMBERS_MAX)?,
            },
            _ => return Err(MalformedFrame::ValueNotCanonical),
        })
    }
}

impl Wire for Action {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Action::Open => 1_u8.write(out),
            Action::SetLimit { account, tier, limit } => {
                2_u8.write(out);
                account.write(out);
                tier.write(out);
                limit.write(out);
            }
            Action::Pledge { account, amount } => {
                3_u8.write(out);
                account.write(out);
                amount.write(out);
            }
            Action::Unpledge { account, amount } => {
                4_u8.write(out);
                account.write(out);
                amount.write(out);
            }
            Action::FundReserve { amount } => {
                5_u8.write(out);
                amount.write(out);
            }
            Action::Grant(grant) => {
                6_u8.write(out);
                grant.write(out);
            }
            Action::RevokeDevice { device } => {
                7_u8.write(out);
                device.write(out);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Action, MalformedFrame> {
        Ok(match reader.byte()? {
            1 => Action::Open,
            2 => Action::SetLimit {
                account: Key::read(reader)?,
                tier: u8::read(reader)?,
                limit: u64::read(reader)?,
            },
            3 => Action::Pledge { account: Key::read(reader)?, amount: u64::read(reader)? },
            4 => Action::Unpledge { account: Key::read(reader)?, amount: u64::read(reader)? },
            5 => Action::FundReserve { amount: u64::read(reader)? },
            6 => Action::Grant(Grant::read(reader)?),
            7 => Action::RevokeDevice { device: Key::read(reader)? },
            _ => return Err(MalformedFrame::ValueNotCanonical),
        })
    }
}
