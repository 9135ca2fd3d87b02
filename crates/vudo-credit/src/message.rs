//! What members and wallets tell each other, and what a state machine asks its driver to do.

use crate::committee::{Signed, Statement};
use crate::keys::Signature;
use crate::limits::SETTLEMENT_HEADS_MAX;
use crate::operation::{CertifiedEntry, Entry, Operation, Report, Settlement};
use crate::spend::{Chain, LaneId};
use crate::wire::{Listed, wire_enum, wire_struct};

/// A message. Whoever brings it does not matter: what counts is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To be put in order.
    Submit(Box<Operation>),
    /// To be stored, receipted and voted for.
    Deposit(Vec<Chain>),
    /// A member's signature, or why there is none.
    Answer(Answer),
    /// To be processed: certified heads.
    Settle(Settlement),
    /// The sequencer's next entry.
    Propose {
        /// The entry.
        entry: Box<Entry>,
        /// The sequencer's, so that nobody else can take an index.
        signature: Signature,
    },
    /// A quorum has signed an entry.
    Committed(Box<CertifiedEntry>),
    /// Please send the log's entries from here on.
    Want {
        /// The first index.
        from: u64,
    },
    /// What a member holds of a lane that is being closed.
    Report(Box<Report>),
    /// How far the sender's log goes: what follows the entries that somebody wanted.
    LogLength {
        /// How many entries it has.
        entries: u64,
    },
}

/// A member's answer about one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was to be signed.
    pub statement: Statement,
    /// The signature, unless there are faults.
    pub signed: Option<Signed>,
    /// What stands against it.
    pub faults: Vec<Fault>,
}

/// Why a member does not sign for a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The chain's lane.
    pub lane: LaneId,
    /// What is wrong.
    pub reason: FaultReason,
}

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FaultReason {
    /// The member has not seen the grant. Ask again later.
    LaneUnknown = 1,
    /// The member does not hold what the chain begins with. Send all of it.
    StartUnknown = 2,
    /// The lane is being closed.
    Closed = 3,
    /// The member has voted for a chain that contradicts it.
    Conflict = 4,
    /// The chain, its signature or its certificate is wrong.
    Wrong = 5,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A member of the committee, by its place.
    Member(u8),
    /// Somebody else, by a number that the driver gives.
    Client(u64),
}

/// What a state machine asks for. A driver carries out effects in order, and a write must be on
/// disk before anything after it is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write all of this or nothing.
    Persist(Writes),
    /// Send this. It may be lost.
    Send {
        /// To whom.
        to: Party,
        /// What.
        message: Message,
    },
}

/// Keys and their new values, in order; a later write to a key wins, and `None` removes.
pub type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Collects effects so that everything is written once, before anything is sent.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What is to be written.
    pub writes: Writes,
    /// What is to be sent then.
    pub sends: Vec<(Party, Message)>,
}

impl Outbox {
    /// Adds a message.
    pub fn send(&mut self, to: Party, message: Message) {
        self.sends.push((to, message));
    }

    /// Adds a write.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push((key, Some(value)));
    }

    /// The effects: first one write, then the messages.
    pub fn into_effects(self) -> Vec<Effect> {
        let persist = (!self.writes.is_empty()).then_some(Effect::Persist(self.writes));
        let sends = self.sends.into_iter().map(|(to, message)| Effect::Send { to, message });
        persist.into_iter().chain(sends).collect()
    }
}

wire_struct!(Answer { statement, signed, faults });
wire_struct!(Fault { lane, reason });

impl Listed for Fault {
    const COUNT_MAX: usize = SETTLEMENT_HEADS_MAX;
}

wire_enum!(FaultReason {
    1 => LaneUnknown,
    2 => StartUnknown,
    3 => Closed,
    4 => Conflict,
    5 => Wrong,
});

wire_enum!(Message {
    1 => Submit(operation),
    2 => Deposit(chains),
    3 => Answer(answer),
    4 => Settle(settlement),
    5 => Propose { entry, signature },
    6 => Committed(entry),
    7 => Want { from },
    8 => Report(report),
    9 => LogLength { entries },
});
