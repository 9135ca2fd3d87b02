//! Why something is refused.
//!
//! A refusal changes nothing. It says what is wrong and, where somebody can do something about it,
//! what.

use thiserror::Error;

use crate::keys::Key;
use crate::wire::MalformedFrame;

/// Why an operation, a chain, a certificate or a payment is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Bytes from outside do not decode.
    #[error("the bytes are malformed: {0}")]
    Malformed(MalformedFrame),
    /// A committee without members, with too many, or with one twice.
    #[error("a committee of {count} members: give 1 to 64 distinct keys")]
    CommitteeMembers {
        /// How many were given.
        count: usize,
    },
    /// A genesis that contradicts itself.
    #[error("the genesis is wrong: {what}")]
    Genesis {
        /// What is wrong.
        what: &'static str,
    },
    /// A certificate is under another statement.
    #[error("the certificate certifies something else")]
    CertificateOfSomethingElse,
    /// A certificate's signers are not members.
    #[error("the certificate names signers that are not members")]
    CertificateSigners,
    /// Too few signatures.
    #[error("{found} signatures are no quorum: {needed} are needed")]
    NoQuorum {
        /// How many there are.
        found: usize,
        /// How many it takes.
        needed: usize,
    },
    /// A signature is not its key's.
    #[error("a signature is wrong")]
    SignatureWrong,
    /// An amount is zero or past the greatest.
    #[error("an amount of {amount} units: amounts are from 1 to 2^53 - 1")]
    AmountOutOfRange {
        /// The amount.
        amount: u64,
    },
    /// A lane that the log does not know.
    #[error("there is no lane {lane}: has its grant been ordered, and seen here?")]
    NoSuchLane {
        /// The lane.
        lane: u64,
    },
    /// A lane that takes no more.
    #[error(
        "lane {lane} is being closed or closed: what was deposited by then is settled by the log"
    )]
    LaneClosed {
        /// The lane.
        lane: u64,
    },
    /// A chain does not go on where it says.
    #[error("the chain of lane {lane} does not begin at a head that is known here: send it whole")]
    ChainStartUnknown {
        /// The lane.
        lane: u64,
    },
    /// A chain's spends do not follow from one another.
    #[error("spend {seq} of lane {lane} does not follow from the one before it")]
    ChainBroken {
        /// The lane.
        lane: u64,
        /// The spend's number.
        seq: u32,
    },
    /// A chain spends more than was allocated, in units or in number.
    #[error("spend {seq} of lane {lane} spends more than was allocated")]
    LaneOverdrawn {
        /// The lane.
        lane: u64,
        /// The spend's number.
        seq: u32,
    },
    /// A spend of a lane for one payee goes to another.
    #[error("lane {lane} pays one device of one payee only")]
    OtherPayee {
        /// The lane.
        lane: u64,
    },
    /// Two chains of one lane that do not contain one another.
    #[error("the device of lane {lane} has signed two chains that contradict each other")]
    Equivocated {
        /// The lane.
        lane: u64,
    },
    /// What was given as a proof proves nothing.
    #[error("the two chains do not contradict each other")]
    NoEquivocation,
    /// The key may not do this.
    #[error("{author:?} may not do this: {needed}")]
    NotAuthorised {
        /// Who signed.
        author: Key,
        /// Whose signature it takes.
        needed: &'static str,
    },
    /// An operation that was ordered before, or one before it is missing.
    #[error("operation {found} of {author:?}: the next one is {next}")]
    SequenceWrong {
        /// Who signed.
        author: Key,
        /// The operation's number.
        found: u64,
        /// The number that is next.
        next: u64,
    },
    /// An account that is not open.
    #[error("account {account:?} is not open: open it, or receive something first")]
    NoSuchAccount {
        /// The account.
        account: Key,
    },
    /// An account that was opened before.
    #[error("account {account:?} is open already")]
    AccountExists {
        /// The account.
        account: Key,
    },
    /// More than is free.
    #[error("account {account:?} has {headroom} units free, not {needed}")]
    HeadroomExceeded {
        /// The account.
        account: Key,
        /// What is free, in units.
        headroom: u64,
        /// What was asked for, in units.
        needed: u64,
    },
    /// More than the account's tier allows.
    #[error("tier {tier} allows {allowed} units, not {needed}")]
    TierExceeded {
        /// The tier.
        tier: u8,
        /// What it allows.
        allowed: u64,
        /// What was asked for.
        needed: u64,
    },
    /// Times of a grant that do not fit.
    #[error("the grant's times are wrong: {what}")]
    GrantTimes {
        /// What is wrong.
        what: &'static str,
    },
    /// A device that was revoked or has equivocated.
    #[error("device {device:?} gets no more grants: use a new device key")]
    DeviceBarred {
        /// The device.
        device: Key,
    },
    /// An account whose device has equivocated, until its lane is closed.
    #[error("account {account:?} gets no grants until its disputed lane is closed")]
    AccountBarred {
        /// The account.
        account: Key,
    },
    /// A grant of another committee.
    #[error("the grant names epoch {found}, the committee is of epoch {expected}")]
    OtherEpoch {
        /// The grant's.
        found: u32,
        /// The committee's.
        expected: u32,
    },
    /// A tick that is not the next one.
    #[error("tick {found} does not follow tick {last}")]
    TickOutOfOrder {
        /// The tick.
        found: u64,
        /// The last one.
        last: u64,
    },
    /// A tick that has not come by this member's clock.
    #[error("tick {found} has not come: it is tick {now} here")]
    TickEarly {
        /// The tick.
        found: u64,
        /// By this member's clock.
        now: u64,
    },
    /// A lane may not be closed yet.
    #[error("lane {lane} takes deposits until tick {settle_by}")]
    NotDue {
        /// The lane.
        lane: u64,
        /// The last tick for deposits.
        settle_by: u64,
    },
    /// A certificate that settles nothing new.
    #[error("lane {lane} is settled up to spend {seq} already")]
    SettledAlready {
        /// The lane.
        lane: u64,
        /// Up to where.
        seq: u32,
    },
    /// A report that is not of this lane and closing, or that contradicts itself.
    #[error("member {member}'s report on lane {lane} is wrong")]
    ReportWrong {
        /// The lane.
        lane: u64,
        /// The member's place.
        member: u8,
    },
    /// An entry that does not follow from the log.
    #[error("entry {index} does not follow from the log: the next one is {next}")]
    EntryOutOfOrder {
        /// The entry's index.
        index: u64,
        /// The index that is next.
        next: u64,
    },
    /// An entry whose postings are not what the ledger makes of it.
    #[error("entry {index} has other postings than its operation gives")]
    OtherPostings {
        /// The entry's index.
        index: u64,
    },
    /// An invariant of the ledger does not hold.
    #[error("an invariant does not hold: {what}")]
    InvariantBroken {
        /// Which one.
        what: String,
    },
    /// A payment for another payee, or for none of the open invoices.
    #[error("the payment answers no open invoice of this device")]
    NoSuchInvoice,
    /// A payment that was received before.
    #[error("this payment was received before: it counts once, and {amount} units of it do")]
    ReceivedAlready {
        /// What it paid this device, in units.
        amount: u64,
    },
    /// Something of another ledger.
    #[error("the {what} is of another ledger than this wallet: compare their ids")]
    OtherLedger {
        /// What it is.
        what: &'static str,
    },
    /// A payment of another amount.
    #[error("the payment is of {found} units, the invoice of {expected}")]
    OtherAmount {
        /// Paid.
        found: u64,
        /// Asked for.
        expected: u64,
    },
    /// A grant that has expired by the payee's last checkpoint.
    #[error("the grant expired at tick {expires}, it is tick {tick}")]
    GrantExpired {
        /// The grant's last tick.
        expires: u64,
        /// The tick that is known.
        tick: u64,
    },
    /// A wallet without a lane that can pay this.
    #[error("no lane has {amount} units left for this payee: ask for a grant")]
    NothingToSpend {
        /// What was to be paid.
        amount: u64,
    },
    /// Text that is no payment, invoice or genesis.
    #[error("this is no {what}: copy all of it")]
    BadText {
        /// What it should have been.
        what: &'static str,
    },
}

impl From<MalformedFrame> for Refusal {
    fn from(what: MalformedFrame) -> Refusal {
        Refusal::Malformed(what)
    }
}
