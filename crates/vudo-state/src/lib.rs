//! The state engine of VUDO: a local database of converging documents.
//!
//! **The idea.** Tables live in memory and are joined there; the log of changes goes to disk, one
//! sync for everything that waits for it; now and then the tables follow, so that opening has
//! little to replay.
//!
//! **Who owns what.** A [`Database`] is a handle to a store. A store has namespaces, each with its
//! own tables, log and subscribers. Storage is a trait: an ordered map with atomic, durable commits.
//!
//! **The invariant.** What [`Durability::Durable`] returned for survives a crash, no change is
//! ever torn, and nothing leaves the store before it is durable here.
//!
//! ```
//! use vudo_crdt::{FieldSchema, GenSchema, Strategy, ValueType};
//! use vudo_state::{Database, Interest};
//!
//! let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
//! let task = GenSchema::new("Task", [title]);
//! let database = Database::open_in_memory()?;
//! let subscription = database.subscribe(Interest::Namespace)?;
//! let milk = database.document_id("milk");
//! database.create(&task, &milk, &[("title", "Buy milk".into())])?;
//! let record = database.read(&task, &milk)?.unwrap();
//! assert_eq!(record.get("title"), Some(&"Buy milk".into()));
//! assert_eq!(subscription.try_next().unwrap().documents[0].key, "milk");
//! # Ok::<(), vudo_state::Error>(())
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "native")]
mod ahead;
mod arriving;
mod backup;
mod catch_up;
mod checkpoint_offer;
mod compaction;
mod cursors;
mod cut;
mod database;
mod document;
mod environment;
mod error;
mod evolution;
mod floor;
#[cfg(feature = "native")]
mod folder;
mod fork;
mod history;
mod identity;
mod inside;
mod layout;
mod limits;
mod listeners;
mod live;
mod new_floor;
mod notices;
mod observe;
mod orphans;
mod outbox;
mod path;
mod query;
mod queue;
mod record;
mod recovery;
mod repair;
mod replication;
mod rights;
mod rules;
mod sealing;
mod seals;
mod shard;
mod snapshot;
pub mod storage;
mod stored_chunks;
mod subscription;
mod transaction;
mod verify;

#[cfg(feature = "native")]
pub use backup::BackupReport;
pub use checkpoint_offer::{
    CheckpointId, CheckpointOffer, CheckpointPart, PartCursor, PartRequest,
};
pub use compaction::{Compaction, CompactionProgress, CompactionReport, CompactionStage};
pub use cursors::{Cursor, CursorDigest};
pub use cut::{CutReport, LogCut};
pub use database::{
    DEFAULT_NAMESPACE, Database, DocumentId, Durability, NAMESPACE_NAME_BYTES_MAX, OpenOptions,
};
pub use document::{Document, FromValue};
pub use environment::{Environment, SystemEnvironment};
pub use error::{Error, Refusal, Result};
#[cfg(feature = "native")]
pub use folder::open_storage;
pub use fork::{BranchOutcome, LogComparison, RootAt};
pub use history::{Blame, is_signature};
pub use identity::SecretKeyBytes;
pub use limits::{
    CATCH_UP_BYTES_MAX, MEMORY_BYTES_MAX, QUEUE_DOCUMENTS_MAX, QUEUE_STEPS_MAX, SEGMENT_BYTES,
    SMALL_FRAME_BYTES_MAX,
};
pub use listeners::ListenerGuard;
pub use live::{LiveQuery, ResultChange, Step};
pub use orphans::{AdoptReport, Orphans};
pub use outbox::{Outbox, PendingChange};
pub use path::FieldPath;
pub use query::{Condition, Direction, Place, Query};
pub use record::Record;
pub use repair::RepairReport;
pub use replication::{OutgoingFrame, Replication};
pub use rights::{
    CHECKPOINT_RECORD_BYTES_MAX, CheckpointRecord, Founding, Grant, MissingRight, NotCompacted,
    OWNERS_MAX, PublicKey, RIGHTS_GEN, Record as RightsRecord, RecordId, Revocation, RightStatus,
    Rights, SCOPES_MAX, Scope, SignedRecord, founding_hash, public_key_of,
};
pub use snapshot::Snapshot;
pub use subscription::{
    CallbackGuard, ChangeKind, DocumentEvent, Event, Interest, Origin, Subscription, Transition,
};
pub use transaction::Transaction;
pub use verify::VerifyReport;
