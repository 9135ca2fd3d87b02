//! Bounds of what a node accepts and how long it waits, in one place.

use std::time::Duration;

use vudo_crdt::limits::{MAX_FRAME_BYTES, MAX_VECTOR_REPLICAS};

/// A frame of a session ends after the change that takes it past this.
pub const FRAME_BYTES: usize = 256 << 10;
/// Most frames that are on their way without being acknowledged.
pub const UNACKNOWLEDGED_FRAMES_MAX: usize = 4;
/// Largest message before both sides have proved that they hold the secret.
pub const HANDSHAKE_MESSAGE_BYTES_MAX: usize = 1 << 10;
/// Largest message: the largest frame or vector, with its header.
pub const MESSAGE_BYTES_MAX: usize = max(MAX_FRAME_BYTES, MAX_VECTOR_REPLICAS * 42) + 64;
/// Most sessions that a node serves at once; further peers are refused.
pub const SERVED_SESSIONS_MAX: usize = 1024;
/// Most addresses in a ticket.
pub const TICKET_ADDRESSES_MAX: usize = 32;
/// How long a peer may take to answer at all.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long both sides may take to prove that they hold the secret.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer that owes changes or an acknowledgement may send nothing at all. Applying the
/// largest change on a slow disk fits into it.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a message may take to be taken by a peer that has stopped reading.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a last message may take to reach a peer that is being left.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// A silent peer counts as gone after this.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle connection shows that it is alive.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// How long a link waits before it dials again for the first time.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two dials; the wait doubles up to here.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(5);
/// A fingerprint reads the whole state, so after one there is a pause of this many times what it
/// took: a large namespace under steady writes is not fingerprinted all the time.
pub const FINGERPRINT_PAUSE_FACTOR: u32 = 4;

const fn max(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}
