//! VUDO: declare a record type once, and get a local-first application from it.
//!
//! ```
//! // vudo::include_gen!("task.dol") does the same with a file.
//! vudo::gen_source! {
//!     "gen Task {
//!          @crdt(lww)        has title: String
//!          @crdt(pn_counter) has votes: i64
//!      }"
//! }
//!
//! let db = vudo::open_in_memory()?;
//! let milk = Task::create(&db, "milk")?;
//! milk.set_title("Buy milk")?;
//! milk.add_votes(2)?;
//! assert_eq!(milk.title()?.as_deref(), Some("Buy milk"));
//! assert_eq!(milk.votes()?, 2);
//! # Ok::<(), vudo::Error>(())
//! ```

#![forbid(unsafe_code)]

use std::path::Path;

pub use vudo_crdt::{
    CounterOptions, Direction as CounterDirection, FieldSchema, GenSchema, Misfit, MisfitReason,
    Overflow, ReplicaKey, Schema, Strategy, Value, ValueType,
};
pub use vudo_macros::{gen_source, include_gen};
pub use vudo_p2p as p2p;
pub use vudo_state::{
    ChangeKind, Condition, Database, Direction, Document, DocumentId, Durability, Error, Event,
    FromValue, Interest, LiveQuery, Origin, Outbox, Query, Record, Result, Step, Subscription,
    Transaction,
};

/// What a Gen looks like, from the bytes that [`include_gen!`] writes.
///
/// # Panics
/// The bytes are not of a schema with one Gen: the macro is of another version than this crate.
#[doc(hidden)]
#[must_use]
pub fn gen_schema(bytes: &[u8]) -> GenSchema {
    let schema = Schema::decode(bytes).unwrap_or_default();
    let found = schema.gens.into_iter().next();
    found.expect("vudo and vudo-macros are of one version")
}

/// Opens the store in a folder, which is created where there is none.
///
/// # Errors
/// As for [`Database::open`].
pub fn open(path: impl AsRef<Path>) -> Result<Database> {
    Database::open(path)
}

/// A store that lives as long as its last handle.
///
/// # Errors
/// As for [`Database::open_in_memory`].
pub fn open_in_memory() -> Result<Database> {
    Database::open_in_memory()
}
