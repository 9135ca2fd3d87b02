//! What can go wrong, who is at fault, and what to do.

use std::path::PathBuf;

pub use vudo_crdt::Refusal;
use vudo_crdt::head::SignedHead;
use vudo_crdt::{
    ApplyError, ChunkError, CounterOverflow, MalformedFrame, ReplicaKey, SealError, WriteError,
};

use crate::rights::{MissingRight, OWNERS_MAX};
use crate::storage::StorageError;

/// An error of the state engine. Nothing of the operation that gave it has taken effect, unless
/// it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the store open.
    #[error("the store {path} is in use by another process: stop that one, or use another store")]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// The folder holds no store that this version can read.
    #[error(
        "the store {path} has format version {found}, this build reads {supported}: use the version of VUDO that wrote it"
    )]
    FormatVersion {
        /// The store.
        path: PathBuf,
        /// The version that was found.
        found: u32,
        /// The version that this build reads and writes.
        supported: u32,
    },
    /// The store cannot be opened.
    #[error("cannot open the store {path}: {source}")]
    Open {
        /// The store.
        path: PathBuf,
        /// What the system said.
        source: StorageError,
    },
    /// A backup goes into a folder of its own.
    #[error("{path} exists already: name a folder for the backup that does not")]
    BackupExists {
        /// The folder.
        path: PathBuf,
    },
    /// A backup could not be written. What there is of it has another name.
    #[error("cannot write a backup to {path}: {source}")]
    Backup {
        /// The folder.
        path: PathBuf,
        /// What was in the way.
        source: StorageError,
    },
    /// The disk failed. What was committed since the last durable commit is still in memory, and
    /// the next commit tries to write it again.
    #[error("the disk failed: {0}; nothing acknowledged is lost, and the next commit tries again")]
    Storage(#[from] StorageError),
    /// Something on disk is not what was written.
    #[error(
        "the store is damaged: {what}; repair it, restore a backup, or sync a new store from a peer"
    )]
    Damaged {
        /// What is damaged, and how.
        what: String,
    },
    /// A local write was refused.
    #[error("{gen_name}/{key}: {reason}")]
    Refused {
        /// The Gen.
        gen_name: String,
        /// The document.
        key: String,
        /// Why.
        reason: Refusal,
    },
    /// The store was used inside one of its own transactions, or by a visitor of its documents.
    #[error(
        "the store was used inside its own transaction, which would wait for itself: use the transaction, or do it after it; of for_each, collect first"
    )]
    InsideTransaction,
    /// A transaction would break a rule of a Gen.
    #[error("{gen_name}/{key}: the rule '{rule}' would not hold; nothing has been written")]
    RuleBroken {
        /// The Gen.
        gen_name: String,
        /// The document.
        key: String,
        /// The rule.
        rule: String,
    },
    /// A transaction would be set aside, for nobody has granted it.
    #[error("{gen_name}/{key}: {missing}; nothing has been written")]
    NoRight {
        /// The Gen.
        gen_name: String,
        /// The document.
        key: String,
        /// What is missing.
        missing: Box<MissingRight>,
    },
    /// A namespace without owners has no rights: whoever has its ticket may write.
    #[error(
        "the namespace '{0}' has no owners, so whoever has its ticket may write; found a namespace that has with `vudo found LABEL`"
    )]
    NoOwners(String),
    /// A namespace has 1 to 16 different owners.
    #[error("a namespace has 1 to {OWNERS_MAX} owners, all of them different")]
    Owners,
    /// A record is signed by its issuer and nobody else.
    #[error("the key {key} cannot sign for another one; use the issuer's key")]
    NotIssuer {
        /// The key that was to sign.
        key: ReplicaKey,
    },
    /// A record of rights is of another namespace, or its signature does not hold.
    #[error("a record of rights is none of the namespace '{0}'; ask for it again")]
    NotOfNamespace(String),
    /// The Gen has no field of this name.
    #[error("{gen_name} has no field '{field}'; it has {known}")]
    UnknownField {
        /// The Gen.
        gen_name: String,
        /// The name that was asked for.
        field: String,
        /// The names that there are.
        known: String,
    },
    /// No Gen of this name has been defined in the store.
    #[error("the store knows no Gen '{0}'; define its schema first")]
    UnknownGen(String),
    /// A schema takes the number of a field for another one: two branches gave it.
    #[error(
        "field number {number} of {gen_name} is '{known}' in this store and '{new}' in the new schema: keep the lock file of one of them, so that the other field gets a number of its own"
    )]
    NumberTaken {
        /// The Gen.
        gen_name: String,
        /// The number.
        number: u32,
        /// Name, strategy and type of the field that has it.
        known: String,
        /// Name, strategy and type of the field that would have it.
        new: String,
    },
    /// A namespace has 1 to 255 bytes.
    #[error("'{0}' is no name for a namespace: it takes 1 to 255 bytes")]
    NamespaceName(String),
    /// A pin's name has 1 to 255 bytes.
    #[error("'{0}' is no name for a pin: it takes 1 to 255 bytes")]
    PinName(String),
    /// The namespace has no pin of this name.
    #[error("the namespace has no pin '{0}'; set one with Database::pin first")]
    UnknownPin(String),
    /// Whoever asks for changes is further behind than the log goes.
    #[error(
        "the log of namespace '{namespace}' has been compacted up to change {number} of replica {replica}, and whoever holds {held} of its changes cannot go on from there: take the checkpoint first"
    )]
    Compacted {
        /// The namespace.
        namespace: String,
        /// A replica of which changes are missing there.
        replica: ReplicaKey,
        /// Up to which number the log has been compacted.
        number: u64,
        /// How many of them are held there.
        held: u64,
    },
    /// Two stores have compacted their logs up to checkpoints that cannot be joined: they have other logs
    /// of some replica below, or changes are set aside there.
    #[error(
        "the log of namespace '{namespace}' has been compacted here up to a checkpoint that contradicts the peer's: make one of the two stores anew of a backup of the other"
    )]
    CheckpointsDiffer {
        /// The namespace.
        namespace: String,
    },
    /// The key of an owner has been revoked, and the cut lies before a checkpoint that it has signed.
    #[error(
        "the key {owner} has signed a checkpoint of namespace '{namespace}' and has been revoked, with a cut before it: take one of another owner"
    )]
    CheckpointRevoked {
        /// The namespace.
        namespace: String,
        /// Who has signed it.
        owner: ReplicaKey,
    },
    /// A peer retains more below its checkpoint than is taken from it.
    #[error(
        "the peer retains more than {bytes_max} bytes of namespace '{namespace}' below its checkpoint, and no more than that is taken: make this store anew of a backup of the peer's"
    )]
    CheckpointTooLarge {
        /// The namespace.
        namespace: String,
        /// How many bytes are taken.
        bytes_max: u64,
    },
    /// A namespace cannot be repaired while somebody uses it.
    #[error(
        "namespace '{namespace}' is in use: end its subscriptions, live queries and sync, then repair it"
    )]
    NamespaceInUse {
        /// The namespace.
        namespace: String,
    },
    /// A namespace is compacted by one at a time.
    #[error("namespace '{namespace}' is being compacted already: wait until that has ended")]
    CompactionRuns {
        /// The namespace.
        namespace: String,
    },
    /// A document is larger than a page of state may be, so no checkpoint can hold it.
    #[error(
        "namespace '{namespace}' has a document that is larger than a checkpoint can hold: split it, or delete it"
    )]
    DocumentTooLarge {
        /// The namespace.
        namespace: String,
    },
    /// More replicas have written than a checkpoint can name.
    #[error(
        "{replica_count} replicas have written in namespace '{namespace}', and a checkpoint names at most {}: copy what is wanted of it to a new namespace",
        vudo_crdt::limits::MAX_VECTOR_REPLICAS
    )]
    TooManyReplicas {
        /// The namespace.
        namespace: String,
        /// How many have written.
        replica_count: usize,
    },
    /// A counter's total does not fit its type, and its Gen asks for an error then.
    #[error("{0}")]
    CounterOverflow(#[from] CounterOverflow),
    /// A peer holds changes under this store's key that this store has not written.
    #[error(
        "another store writes under this store's key: it was copied with its key, by restoring the image of a machine for example; close this store and open it again: it goes on under a key of its own, and writes again what has no effect otherwise"
    )]
    OwnKeyElsewhere,
    /// A replica has signed another log than the one that is held, or what was sent has been altered.
    #[error("a frame was refused: {}", SealError::OtherLog { signed: signed.clone() })]
    OtherLog {
        /// What it has signed.
        signed: Box<SignedHead>,
    },
    /// Two logs of one replica differ below a checkpoint, up to which one of them stands.
    #[error(
        "replica {replica} has signed two logs of namespace '{namespace}' that differ before change {number}, up to which one of them has been compacted: make the store that holds the other one anew"
    )]
    ForkBelowCheckpoint {
        /// The namespace.
        namespace: String,
        /// Whose logs.
        replica: ReplicaKey,
        /// Up to which number the log here has been compacted.
        number: u64,
    },
    /// Nobody who could pass changes on has the signature that they need.
    #[error(
        "nobody has signed the changes of replica {replica} up to number {number} here: they are older than signatures; sync with the store that wrote them"
    )]
    Unsigned {
        /// Who wrote them.
        replica: ReplicaKey,
        /// The number of the last of them.
        number: u64,
    },
    /// A peer sent something that cannot be applied.
    #[error("a frame was refused: {0}")]
    Frame(String),
}

impl Error {
    /// Whether a peer caused the error by what it sent.
    pub fn is_peer_fault(&self) -> bool {
        matches!(self, Error::Frame(_) | Error::OtherLog { .. })
    }

    /// Whether it is nobody's fault that a store cannot go on from a peer's checkpoint.
    pub fn keeps_from_catching_up(&self) -> bool {
        matches!(
            self,
            Error::CheckpointsDiffer { .. }
                | Error::CheckpointRevoked { .. }
                | Error::CheckpointTooLarge { .. }
                | Error::CompactionRuns { .. }
                | Error::ForkBelowCheckpoint { .. }
        )
    }

    pub(crate) fn refused(gen_name: &str, key: &str, error: WriteError<StorageError>) -> Error {
        match error {
            WriteError::Chunk(error) => error.into(),
            WriteError::Refused(reason) => {
                Error::Refused { gen_name: gen_name.to_owned(), key: key.to_owned(), reason }
            }
        }
    }

    pub(crate) fn malformed(what: MalformedFrame) -> Error {
        Error::Frame(format!("the frame is malformed: {what}"))
    }

    pub(crate) fn damaged(what: impl std::fmt::Display) -> Error {
        Error::Damaged { what: what.to_string() }
    }
}

impl From<ChunkError<StorageError>> for Error {
    fn from(error: ChunkError<StorageError>) -> Error {
        match error {
            ChunkError::Source(error) => Error::Storage(error),
            damaged @ ChunkError::Damaged { .. } => Error::damaged(damaged),
        }
    }
}

impl From<SealError> for Error {
    fn from(error: SealError) -> Error {
        match error {
            SealError::OtherLog { signed } => Error::OtherLog { signed },
            other => Error::Frame(other.to_string()),
        }
    }
}

impl From<ApplyError<StorageError>> for Error {
    fn from(error: ApplyError<StorageError>) -> Error {
        match error {
            ApplyError::Chunk(error) => error.into(),
            peer => Error::Frame(peer.to_string()),
        }
    }
}

/// The result of an operation of the state engine.
pub type Result<T> = std::result::Result<T, Error>;
