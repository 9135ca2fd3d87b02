//! What can go wrong, and what to do.

use std::net::SocketAddr;
use std::sync::Arc;

use vudo_crdt::ReplicaKey;

#[cfg(feature = "net")]
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::limits::{CHANNELS_MAX, PRESENCE_BYTES_MAX, RELAYS_MAX, SHOWN_RECORD_BYTES_MAX};

/// An error of the sync layer. Errors are cheap to clone: everybody who waits on a link that ends
/// gets the same one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The text is no ticket.
    #[error("this is no ticket: {what}; copy it again from where it was shared, all of it")]
    BadTicket {
        /// What is wrong with it.
        what: String,
    },
    /// A relay that the node is to use cannot be one.
    #[error(
        "'{relay}' cannot be used as a relay: {what}; write it like https://relay.example.org, or like http://192.168.0.7:3340 where no certificate is to be had"
    )]
    BadRelay {
        /// What was given.
        relay: String,
        /// What is wrong with it.
        what: String,
    },
    /// More relays than a ticket has room for.
    #[error("{count} relays are too many: a node uses at most {RELAYS_MAX}; leave the others out")]
    TooManyRelays {
        /// How many there are.
        count: usize,
    },
    /// Nobody answers.
    #[error(
        "node {node} did not answer within {seconds} s; check that it runs and that the network reaches it, or ask for a fresh ticket"
    )]
    Unreachable {
        /// The first bytes of the node's id.
        node: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Somebody answers, and is not ready to sync at the moment.
    #[error(
        "the peer is not ready: {what}; try again in a moment, and where that does not help look at the load of the peer and of a proxy in front of it"
    )]
    NotReady {
        /// What it did, or did not do in time.
        what: String,
    },
    /// A connection takes so many namespaces and no more.
    #[error(
        "no further namespace can be synced with the peer: a connection to it takes {CHANNELS_MAX} at once, or fewer where it says so; close a link to it that is not needed, then connect again"
    )]
    TooManyChannels,
    /// The peer does not accept the ticket, or is not the one that gave it.
    #[error(
        "the peer does not accept the ticket's secret, or what has been granted to this store's key; ask for a fresh ticket"
    )]
    WrongSecret,
    /// The right to read the namespace has expired or was revoked.
    #[error(
        "the right of this store's key to read the namespace has ended: it has expired or was revoked; ask an owner for a new invitation"
    )]
    AccessEnded,
    /// A ticket carries at most 16 records and 3 KiB of them.
    #[error(
        "the invitation takes {bytes} bytes of records, and a ticket carries {SHOWN_RECORD_BYTES_MAX}; grant fewer scopes"
    )]
    InvitationTooLarge {
        /// What they take.
        bytes: usize,
    },
    /// What a node shows of itself has at most 4 KiB.
    #[error(
        "a node shows at most {PRESENCE_BYTES_MAX} bytes of itself, and these are {bytes}; keep what is larger in a document"
    )]
    PresenceTooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// Somebody else answers under the ticket's address.
    #[error("another node than {node} answers there; ask for a fresh ticket")]
    WrongNode {
        /// The first bytes of the id of the node that was meant.
        node: String,
    },
    /// A peer's id is no key.
    #[error("the node id {node}... is no key; correct it where the peer is named")]
    BadNodeId {
        /// The first bytes of the id.
        node: String,
    },
    /// Somebody answers who does not speak this protocol.
    #[error(
        "the peer does not speak this version of the sync protocol; use the same version of VUDO on both sides"
    )]
    OtherProtocol,
    /// The peer sent what it must not send, and was cut off.
    #[error("the peer was cut off: {what}; nothing of it was applied; update the peer")]
    PeerMisbehaved {
        /// What it did.
        what: String,
    },
    /// Large messages of all peers take up as much memory as they may.
    #[error(
        "large messages of all peers take up as much memory as they may; the peer dials again, and there is room once others are done"
    )]
    NoRoom,
    /// Both sides hold the same changes and have different states.
    #[error(
        "both sides hold the same changes and yet different states; keep both stores as they are and report it"
    )]
    Diverged,
    /// A replica has signed two logs, the two sides hold one each, and one of them has compacted its own.
    #[error(
        "replica {replica} has signed two different logs: its store was copied with its key, and both were written to; one of them has been compacted up to change {number}, so it stands: make the store that holds the other one anew"
    )]
    Forked {
        /// Whose store was copied.
        replica: ReplicaKey,
        /// Up to which number one of them has been compacted.
        number: u64,
    },
    /// The address cannot be used.
    #[error("cannot listen on {address}: {what}; use another address or stop who uses it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        what: String,
    },
    /// The store failed.
    #[error("{0}")]
    Storage(Arc<vudo_state::Error>),
    /// The peer's store failed.
    #[error("the peer's store failed; look for the cause there, then connect again")]
    PeerStorage,
    /// One of the two stores is further behind than the other's log goes, and no checkpoint helps.
    #[error("{what}")]
    Compacted {
        /// What is missing, or why the peer's checkpoint does not help.
        what: String,
    },
    /// One of the two stores is further behind than the other's log goes, and the peer says that no
    /// checkpoint helps.
    #[error(
        "one of the two stores has compacted its log, and the other one cannot go on from its checkpoint: look at the peer for why, and sync both with a store that has everything"
    )]
    PeerCompacted,
    /// It took longer than the caller wanted to wait.
    #[error("not in sync after {seconds} s; the link keeps trying, so wait again")]
    Timeout {
        /// How long was waited.
        seconds: f64,
    },
    /// The link or its node has been closed.
    #[error("the link is closed; connect again")]
    Closed,
    /// The system gave no randomness.
    #[error("the system gave no randomness: {what}; try again")]
    Randomness {
        /// What the system said.
        what: String,
    },
}

impl Error {
    /// The peer did not get done with something in time.
    #[cfg(feature = "net")]
    pub(crate) fn late(what: &str) -> Error {
        let seconds = HANDSHAKE_TIMEOUT.as_secs();
        Error::NotReady { what: format!("it did not finish {what} within {seconds} s") }
    }
}

impl From<vudo_state::Error> for Error {
    fn from(error: vudo_state::Error) -> Error {
        Error::Storage(Arc::new(error))
    }
}

/// The result of an operation of the sync layer.
pub type Result<T> = std::result::Result<T, Error>;

/// 32 random bytes, for a secret or a nonce.
#[cfg(feature = "net")]
pub(crate) fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::Randomness { what: error.to_string() })?;
    Ok(bytes)
}
