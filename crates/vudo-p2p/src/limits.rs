//! Bounds of what a node accepts and how long it waits, in one place.

use std::time::Duration;

use vudo_crdt::limits::{
    MAX_GENS, MAX_RANGE_BYTES, MAX_RANGE_PARTS, MAX_SIGNED_FRAME_BYTES, MAX_VECTOR_REPLICAS,
};

/// A frame of a session carries what is signed together, and more as long as that fits into this.
pub const FRAME_BYTES: usize = 256 << 10;
/// Most content of a frame with more than one change: it is passed on in one piece, so an honest peer
/// never sends as much. Content weighs the same in every store, so who accepts it can pass it on.
pub const FRAME_CONTENT_BYTES_MAX: usize = 2 * FRAME_BYTES;
/// Frames of fewer bytes are sent as they are: there is little in them to compress.
pub const COMPRESSION_BYTES_MIN: usize = 512;
/// LZ4 never makes more of a byte than this many, so what claims more is refused unread.
pub const COMPRESSION_FACTOR_MAX: usize = 255;
/// Most frames that are on their way without being acknowledged.
pub const UNACKNOWLEDGED_FRAMES_MAX: usize = 4;
/// No frame follows while so many bytes of others are on their way: only a change that is large itself
/// makes it more.
pub const UNACKNOWLEDGED_BYTES_MAX: usize = UNACKNOWLEDGED_FRAMES_MAX * FRAME_CONTENT_BYTES_MAX;
/// What is held of no more replicas than this is told whole as a session begins: some 40 bytes each, and
/// nobody has to ask.
pub const WHOLE_HOLDINGS_REPLICAS_MAX: usize = 4;
/// Largest message before both sides have proved what they must: a proof with the records of a ticket.
pub const HANDSHAKE_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Most records of rights that a ticket carries, and a peer shows as a session begins.
pub const SHOWN_RECORDS_MAX: usize = 16;
/// Most bytes of them.
pub const SHOWN_RECORD_BYTES_MAX: usize = 3 << 10;
/// Most Gens of which one side tells a fingerprint.
pub const SCHEMA_GENS_MAX: usize = MAX_GENS;
/// Most bytes of the fields of Gens that differ; those that do not fit are not told.
pub const TOLD_FIELDS_BYTES_MAX: usize = 64 << 10;
/// Largest message: the largest frame, or what is held of most replicas, with its header.
pub const MESSAGE_BYTES_MAX: usize = max(MAX_SIGNED_FRAME_BYTES, MAX_VECTOR_REPLICAS * 50) + 64;
/// What a message begins with on a channel: its length.
pub const MESSAGE_HEADER_BYTES: usize = 4;
/// A message that is announced is allocated in parts of this size, as it arrives.
pub const MESSAGE_PART_BYTES: usize = 64 << 10;
/// Most messages that a session takes in while it is sending. An honest peer says no more than this
/// without being answered: a window of frames, and a few messages that each have to be answered.
pub const INBOX_MESSAGES_MAX: usize = 32;
/// Most bytes of messages larger than a part that a node holds at once, of all peers.
pub const MESSAGE_ROOM_BYTES: usize = 128 << 20;
/// How long a message waits for others to give up their room before its session ends.
pub const MESSAGE_ROOM_TIMEOUT: Duration = Duration::from_secs(10);
/// Most connections that a node serves at once; further peers are refused.
pub const SERVED_CONNECTIONS_MAX: usize = 4096;
/// Most TCP connections that have not said yet which node they come from.
pub const ARRIVALS_MAX: usize = 256;
/// How long such a connection keeps its place where others wait for one.
pub const ARRIVAL_TIME_MIN: Duration = Duration::from_millis(250);
/// How long it may take at all, requests for the server's health included.
pub const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(5);
/// Most channels of one connection, and so most namespaces that one peer syncs at once.
pub const CHANNELS_MAX: usize = 256;
/// Most bytes of a QUIC connection that have arrived and wait to be read: as much as a hundred streams with
/// the library's default window each.
pub const UNREAD_BYTES_MAX: u32 = 128 << 20;
/// Largest piece of a channel on a link without streams: after each, other channels have a turn.
pub const PIECE_BYTES: usize = 16 << 10;
/// Largest header of a piece.
pub const PIECE_HEADER_BYTES_MAX: usize = 10;
/// Most pieces that wait in one queue.
pub const QUEUED_PIECES_MAX: usize = 4;
/// Most addresses in a ticket.
pub const TICKET_ADDRESSES_MAX: usize = 32;
/// Most WebSocket addresses in a ticket.
pub const TICKET_URLS_MAX: usize = 8;
/// Most relays that a node uses, and so most in a ticket: whoever dials tries all of them at once.
pub const RELAYS_MAX: usize = 4;
/// Longest address of a WebSocket or of a relay in a ticket.
pub const TICKET_URL_BYTES_MAX: usize = 512;
/// How long a peer may take to answer at all.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a peer may take to answer whose ticket names a relay: who dials may first have to connect to it.
pub const RELAYED_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node that is at none of its relays waits before it looks for one again.
pub const RELAY_SEARCH_INTERVAL: Duration = Duration::from_secs(3);
/// How long both sides may take to prove that they hold the secret.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer that owes changes or an acknowledgement may send nothing at all. Applying the
/// largest change on a slow disk fits into it.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// Most messages of one side that find the rows that differ. Each makes the ranges in question smaller
/// by some factor, and an honest peer needs fewer than ten unless nearly everything differs.
pub const RANGE_MESSAGES_MAX: usize = 64;
/// Most roots of a log in one message of two sides that look for where two logs part.
pub const LOG_ROOTS_MAX: usize = 32;
/// Most messages with roots of one side. Each leaves a sixteenth of what there was of the log.
pub const LOG_ROOT_MESSAGES_MAX: usize = 40;
/// Most checkpoints that one side offers in a session: another one where it has compacted its log while
/// it gave the first one.
pub const CHECKPOINTS_MAX: usize = 4;
/// How often one session repairs states that differ. One repair is enough unless there are writes
/// meanwhile.
pub const REPAIRS_MAX: usize = 3;
/// After one repair there is a pause of this many times what it took, and no less than
/// [`REBUILD_PAUSE_MIN`], before the node makes another one, for whatever session: documents are made anew
/// from the whole log, and a peer only has to say that its state is another.
pub const REBUILD_PAUSE_FACTOR: u32 = 20;
/// See [`REBUILD_PAUSE_FACTOR`].
pub const REBUILD_PAUSE_MIN: Duration = Duration::from_secs(1);
/// How long a message may take to be taken by a peer that has stopped reading.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a last message may take to reach a peer that is being left.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// A silent peer counts as gone after this. It is short because a connection that sat through a
/// cut of the network sends again only after a pause that has doubled with every loss: a new one is
/// there sooner.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How often an idle connection shows that it is alive.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(1_300);
/// How long a link waits before it dials again for the first time.
pub const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two dials; the wait doubles up to here. With a dial that was under way when
/// the network came back it still leaves a link down for less than 5 s.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(1_500);
/// A fingerprint reads the whole state, so after one there is a pause of this many times what it
/// took: a large namespace under steady writes is not fingerprinted all the time.
pub const FINGERPRINT_PAUSE_FACTOR: u32 = 4;

/// Largest value that a node shows of itself.
pub const PRESENCE_BYTES_MAX: usize = 4 << 10;
/// Most other nodes of a namespace of which it is known what they show.
pub const PRESENCE_ORIGINS_MAX: usize = 1024;
/// Most bytes of one message that tells what nodes show.
pub const PRESENCE_MESSAGE_BYTES_MAX: usize = 16 << 10;
/// A side takes no more than one such message in this time.
pub const PRESENCE_INTERVAL: Duration = Duration::from_millis(50);
/// What a node shows is forgotten when it has not been heard of for so long.
pub const PRESENCE_LIFE: Duration = Duration::from_secs(30);
/// A node whose clock is further ahead than that is not believed to be present: a value of the end of time
/// would stand against all that its node shows later.
pub const PRESENCE_CLOCK_AHEAD_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// How often a node shows that it is still there: two of these may be lost.
pub const PRESENCE_RENEWAL: Duration = Duration::from_secs(10);
/// How often it is looked whether something has to be forgotten or shown again.
pub const PRESENCE_TICK: Duration = Duration::from_secs(1);

/// Largest opaque message of a peer that a messenger knows.
pub const OPAQUE_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Largest opaque message of a stranger.
pub const STRANGER_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most connections of strangers that a messenger serves at once.
pub const STRANGERS_MAX: usize = 256;
/// A stranger that says nothing for so long gives its place to another.
pub const STRANGER_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Most connections from one peer that a messenger knows: one, and those that it has not noticed to
/// be gone.
pub const KNOWN_PEER_CONNECTIONS_MAX: usize = 4;
/// Most opaque messages that wait to be sent to one peer; what comes on top is lost.
pub const QUEUED_MESSAGES_MAX: usize = 1024;
/// Most bytes of them.
pub const QUEUED_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Most opaque messages that have arrived and wait to be looked at.
pub const ARRIVED_MESSAGES_MAX: usize = 64;

// What an honest side says of ranges of rows fits, however long their keys: a place takes less on the
// wire than it counts for, and a part no more than this besides.
const _: () = assert!(MAX_RANGE_BYTES + MAX_RANGE_PARTS * 32 < MESSAGE_BYTES_MAX);
// What a ticket carries has to fit into the handshake, beside a signature and headers.
const _: () = assert!(SHOWN_RECORD_BYTES_MAX + 128 < HANDSHAKE_MESSAGE_BYTES_MAX);
// A message has to be able to carry the largest value, with its headers.
const _: () = assert!(PRESENCE_BYTES_MAX + 128 < PRESENCE_MESSAGE_BYTES_MAX);

const fn max(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}
