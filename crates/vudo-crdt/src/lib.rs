//! The merge core of VUDO: tables of records that converge whatever the order of delivery.
//!
//! **The idea.** Every document state is an element of a join-semilattice, every change a small
//! element of it, and merging is the join: commutative, associative and idempotent by
//! construction. Nothing depends on the order of arrival or on what somebody has seen.
//!
//! ```text
//! Transaction --commit--> change --+
//!                                  +--> delta row --join--> row in a Table     Namespace
//! frame of a peer --validate-------+
//! ```
//!
//! **Who owns what.** A [`Namespace`] owns its tables and the vector of what it has heard; a
//! [`Table`] owns rows as bytes; a [`Log`] owns the changes. Disk, network, clock and entropy are
//! the caller's: they come in as arguments.
//!
//! **The invariant.** With the same effective changes the canonical bytes are the same, whatever
//! arrived when. Bytes from outside are validated whole before any of them is applied.
//!
//! ```
//! use vudo_crdt::{FieldSchema, InMemory, Log, Namespace, ReplicaKey, Strategy, Transaction};
//! use vudo_crdt::{Value, ValueType, VersionVector};
//!
//! let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
//! let mut namespace = Namespace::new(0);
//! let mut log = Log::default();
//! let replica = namespace.intern_replica(ReplicaKey([1; 32]));
//! let task = namespace.intern_gen("Task").unwrap();
//!
//! let mut transaction = Transaction::begin(&namespace, replica, 1_700_000_000_000);
//! transaction.create(&mut namespace, &mut InMemory, task, b"milk")?;
//! transaction.set(&mut namespace, &mut InMemory, task, b"milk", &title, &"Buy milk".into())?;
//! transaction.commit(&mut namespace, &mut InMemory, &mut log)?;
//!
//! let mut peer = Namespace::new(0);
//! let frame = log.frame_since(&namespace, &VersionVector::new());
//! peer.apply_frame(&frame, &mut InMemory, &mut ())?;
//! let task = peer.find_gen("Task").unwrap();
//! let row = peer.loaded_row(task, b"milk").unwrap();
//! assert_eq!(title.read(&row)?, Some(Value::from("Buy milk")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
// What only stores with chunks use is dead in a WASM module; native builds look for dead code.
#![cfg_attr(target_arch = "wasm32", allow(dead_code, unused_imports))]

extern crate alloc;

#[cfg(not(target_arch = "wasm32"))]
mod adoption;
#[cfg(not(target_arch = "wasm32"))]
mod blame;
#[cfg(not(target_arch = "wasm32"))]
mod buffer;
#[cfg(not(target_arch = "wasm32"))]
mod cache;
mod change;
#[cfg(not(target_arch = "wasm32"))]
pub mod checkpoint;
#[cfg(not(target_arch = "wasm32"))]
mod chunk;
mod counter;
mod dots;
mod entries;
mod evolution;
#[cfg(not(target_arch = "wasm32"))]
mod fingerprint;
mod frame;
#[cfg(not(target_arch = "wasm32"))]
pub mod head;
mod hlc;
mod join;
pub mod limits;
mod log;
#[cfg(not(target_arch = "wasm32"))]
pub mod merkle;
mod namespace;
#[cfg(not(target_arch = "wasm32"))]
mod pages;
mod read;
#[cfg(not(target_arch = "wasm32"))]
mod reconcile;
mod refusal;
mod replica;
#[cfg(not(target_arch = "wasm32"))]
mod retention;
#[cfg(not(target_arch = "wasm32"))]
mod room;
mod row;
pub mod rule;
pub mod schema;
mod schema_bytes;
#[cfg(not(target_arch = "wasm32"))]
mod set_aside;
#[cfg(not(target_arch = "wasm32"))]
mod signed_frame;
mod sorted;
#[cfg(not(target_arch = "wasm32"))]
mod sorted_blocks;
mod source;
#[cfg_attr(target_arch = "wasm32", path = "table_in_memory.rs")]
mod table;
mod transaction;
pub mod value;
pub mod wire;
#[cfg(not(target_arch = "wasm32"))]
mod writes;

#[cfg(not(target_arch = "wasm32"))]
pub use adoption::{AdoptError, Adoption};
#[cfg(not(target_arch = "wasm32"))]
pub use blame::FieldWrite;
pub use change::{Change, GenIndex};
pub use counter::{BoundedCounter, Direction};
pub use dots::{LiveValue, live_values};
pub use evolution::{Inherited, Misfit, MisfitReason};
#[cfg(not(target_arch = "wasm32"))]
pub use fingerprint::Fingerprint;
pub use frame::{Frame, FrameWriter, checksum};
pub use hlc::Hlc;
pub use log::Log;
pub use namespace::{Applied, ApplyError, Namespace, Observer, TablePart};
#[cfg(not(target_arch = "wasm32"))]
pub use pages::{PageSource, PagesError, StateRoot, page_leaf};
pub use read::{
    CounterOverflow, Reading, TransactionView, bounded_total, counter_float_total, counter_total,
    fit_total,
};
#[cfg(not(target_arch = "wasm32"))]
pub use reconcile::{DifferentRows, RangeSummaries, SessionKey};
pub use refusal::{Refusal, WriteError};
pub use replica::{ReplicaIndex, ReplicaKey, Replicas, VersionVector};
#[cfg(not(target_arch = "wasm32"))]
pub use row::split_entry_key;
pub use row::{Cell, CellId, Cells, EncodedStamp, Row, Stamp, entry_key};
pub use rule::{Expression, Rule};
pub use schema::{
    Conversion, CounterOptions, EnumSchema, FieldSchema, GenSchema, Overflow, Predecessor, Schema,
    Strategy,
};
#[cfg(not(target_arch = "wasm32"))]
pub use set_aside::{JudgeError, LogSource, Ranges, Touched};
#[cfg(not(target_arch = "wasm32"))]
pub use signed_frame::{SEAL_BYTES, Seal, SealError, SealedLog, SignedFrame, write_signed_frame};
pub use source::{ChunkError, ChunkId, ChunkSource, InMemory};
pub use table::Table;
#[cfg(not(target_arch = "wasm32"))]
pub use table::{Persisted, StoredTable};
pub use transaction::Transaction;
pub use value::{Value, ValueType};
pub use wire::MalformedFrame;
#[cfg(not(target_arch = "wasm32"))]
pub use writes::DocumentWrite;
