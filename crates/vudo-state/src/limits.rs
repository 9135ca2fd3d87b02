//! Bounds of the engine, in one place.

use std::time::Duration;

/// After this much journal its entries go to the pages, which bounds what opening reads.
#[cfg(feature = "native")]
pub(crate) const JOURNAL_BYTES_MAX: u64 = 1 << 20;
/// redb's page cache. The engine keeps the chunks it uses itself, so this only has to hold the
/// inner pages of the tree.
#[cfg(feature = "native")]
pub(crate) const PAGE_CACHE_BYTES: usize = 2 << 20;
/// After a pause of this length the tables follow the log.
pub(crate) const SETTLE_DELAY: Duration = Duration::from_millis(100);
/// So much log may stay behind them: joining it again takes a fraction of a millisecond.
pub(crate) const SETTLE_LOG_BYTES: usize = 32 << 10;
/// How long the file waits for its readers before it gives back what is free in it.
#[cfg(feature = "native")]
pub(crate) const SHRINK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it waits between two tries.
#[cfg(feature = "native")]
pub(crate) const SHRINK_PAUSE: Duration = Duration::from_millis(2);
/// How long an eventual commit may wait for the disk.
pub(crate) const EVENTUAL_DELAY: Duration = Duration::from_millis(20);
/// So much of the log one signature answers for, at most but for a single change that is larger: what
/// goes to a peer ends where a signature does.
pub const SEGMENT_BYTES: usize = 192 << 10;
/// A frame of no more than this that arrives alone goes to disk while its signatures are checked. For a
/// larger one, writing it twice would take longer than that saves.
pub const SMALL_FRAME_BYTES_MAX: usize = 4 << 10;
/// How much memory the documents of one namespace take up, unless it is said otherwise.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;
/// So much log a step of a compaction goes through.
pub(crate) const COMPACTION_STEP_BYTES: usize = 1 << 20;
/// How much memory the chunks take up that a compaction reads.
pub(crate) const COMPACTION_MEMORY_BYTES: usize = 16 << 20;
/// How many bytes of what a peer retains below its checkpoint are taken: they are in memory, some times
/// over, when they take their place.
pub const CATCH_UP_BYTES_MAX: u64 = 256 << 20;
/// A part of that has so many bytes, and more only where a single record of the log does.
pub(crate) const PART_BYTES: usize = 512 << 10;
/// Most records beside a checkpoint: one for each of those that have been joined in it.
pub(crate) const OFFERED_RECORDS_MAX: usize = 16;
/// So often the parts are verified beside what goes on in the namespace. Where others have brought new
/// replicas or Gens every time, they wait while it is done once more.
pub(crate) const CATCH_UP_ROUNDS_MAX: u32 = 3;
/// Most hashes in a part.
pub(crate) const PART_HASHES_MAX: usize = 8_192;
/// So many peers are remembered with what they have acknowledged. All of them go to disk whenever one
/// has acknowledged more.
pub(crate) const ACKNOWLEDGING_PEERS_MAX: usize = 256;
/// With so many peers it is remembered what both held when they were last met.
pub(crate) const CURSORS_MAX: usize = 256;
/// Most replicas in all that is remembered of that.
pub(crate) const CURSOR_REPLICAS_MAX: usize = 16_384;
/// A subscriber that is this many changed documents behind is told that it lagged.
pub const QUEUE_DOCUMENTS_MAX: usize = 16_384;
/// A reader of a live query that is this many steps behind is told that it lagged.
pub const QUEUE_STEPS_MAX: usize = 16_384;
