//! The keys of storage, and the small records behind them.
//!
//! ```text
//! m name                          meta: format version, file identity, secret key, schema,
//!                                 field numbers
//! n name                          a namespace's number
//! d namespace                     directory: replicas, numbers heard, names of Gens
//! a namespace                     up to where each peer has acknowledged this replica's changes
//! j namespace                     judgements: which changes of which replicas are set aside
//! g namespace record              a record of rights, and who carries it
//! u namespace                     of which records of rights the judgements are: a digest
//! p namespace name                a pin: the version vector of a moment
//! k namespace                     checkpoint: up to where tables hold the log, next chunk id
//! t namespace gen                 directory of the chunks with a Gen's documents
//! e namespace gen                 the same of the entries of their collections
//! b namespace gen                 rows of documents that have not moved to chunks
//! f namespace gen                 the same of entries
//! c namespace chunk               a chunk
//! l namespace position            log record: changes, in the order in which they were applied
//! r namespace replica number      the position of the log record that ends with this number
//! s namespace position            the seals of a segment of the log, which ends with this record
//! x namespace replica             a fork: the two heads that a replica signed at one length
//! v namespace replica branch number   a change of a branch that has lost against another one
//! i namespace key                 how many changes this store has written under a key that was its own
//! h namespace                     hashes: the Merkle log of each replica at the checkpoint
//! w namespace                     a small frame of a peer's whose changes are still to go to the log
//! z namespace                     floor: the owner's checkpoint up to which the log is compacted
//! o namespace replica leaf        hashes in place of dropped changes, from this leaf on
//! y namespace                     there while a compaction goes on
//! q namespace peer                a checkpoint of a peer's that is being taken, and how far that is
//! q namespace peer part           a part of what the peer retains below it
//! C namespace                     cursors: what was held when peers were last met
//! ```
//!
//! Numbers in keys are big endian, so that they sort.

use vudo_crdt::wire::{MalformedFrame, Reader, write_varint};
use vudo_crdt::{ChunkId, GenIndex, ReplicaIndex, ReplicaKey, TablePart};

/// The format of a store. A store of another version is refused, never guessed at.
pub(crate) const FORMAT_VERSION: u32 = 11;
/// Those that are brought up to date when they are opened: 5 had no rows beside the chunks, 6 no
/// seals and hashes, 7 no logs with gaps and no rights, 8 no packed values, 9 no frames beside the log, and
/// 10 no cursors.
pub(crate) const FORMAT_VERSIONS_BEFORE: [u32; 6] = [5, 6, 7, 8, 9, 10];

pub(crate) type NamespaceId = u32;

pub(crate) fn meta(name: &str) -> Vec<u8> {
    [b"m", name.as_bytes()].concat()
}

pub(crate) fn namespace(name: &str) -> Vec<u8> {
    [b"n", name.as_bytes()].concat()
}

pub(crate) fn directory(id: NamespaceId) -> Vec<u8> {
    [b"d", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn acknowledged(id: NamespaceId) -> Vec<u8> {
    [b"a", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn cursors(id: NamespaceId) -> Vec<u8> {
    [b"C", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn judgements(id: NamespaceId) -> Vec<u8> {
    [b"j", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn record(id: NamespaceId, record: &[u8]) -> Vec<u8> {
    [b"g", &id.to_be_bytes()[..], record].concat()
}

pub(crate) fn judged(id: NamespaceId) -> Vec<u8> {
    [b"u", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn pin(id: NamespaceId, name: &str) -> Vec<u8> {
    [b"p", &id.to_be_bytes()[..], name.as_bytes()].concat()
}

pub(crate) fn checkpoint(id: NamespaceId) -> Vec<u8> {
    [b"k", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn table(id: NamespaceId, gen_index: GenIndex, part: TablePart) -> Vec<u8> {
    let kind = match part {
        TablePart::Documents => b"t",
        TablePart::Entries => b"e",
    };
    [kind, &id.to_be_bytes()[..], &gen_index.to_be_bytes()[..]].concat()
}

pub(crate) fn buffer(id: NamespaceId, gen_index: GenIndex, part: TablePart) -> Vec<u8> {
    let kind = match part {
        TablePart::Documents => b"b",
        TablePart::Entries => b"f",
    };
    [kind, &id.to_be_bytes()[..], &gen_index.to_be_bytes()[..]].concat()
}

pub(crate) fn chunk(id: NamespaceId, chunk: ChunkId) -> Vec<u8> {
    [b"c", &id.to_be_bytes()[..], &chunk.to_be_bytes()[..]].concat()
}

/// The setting that marks a backup: the replica whose store it was made of.
pub(crate) const BACKUP_OF: &str = "backup of";

/// Whether an entry belongs to one store alone, and to none of its copies.
pub(crate) fn is_of_one_store(key: &[u8]) -> bool {
    ["secret", "identity", BACKUP_OF, KEY_ELSEWHERE].iter().any(|name| key == meta(name))
}

pub(crate) fn is_chunk(key: &[u8]) -> bool {
    key.first() == Some(&b'c')
}

pub(crate) fn log(id: NamespaceId, position: u64) -> Vec<u8> {
    [b"l", &id.to_be_bytes()[..], &position.to_be_bytes()[..]].concat()
}

/// Whether a key is that of a log record.
pub(crate) fn is_log(key: &[u8]) -> bool {
    key.first() == Some(&b'l')
}

/// Whether a key is that of the seals of a segment of the log.
pub(crate) fn is_segment(key: &[u8]) -> bool {
    key.first() == Some(&b's')
}

/// Whether a key is that of the place of a change in the log.
pub(crate) fn is_log_index(key: &[u8]) -> bool {
    key.first() == Some(&b'r')
}

/// The namespace that an entry belongs to, where it belongs to one.
pub(crate) fn namespace_of(key: &[u8]) -> Option<NamespaceId> {
    let (kind, rest) = key.split_first()?;
    let id = rest.first_chunk().filter(|_| !matches!(kind, b'm' | b'n'))?;
    Some(NamespaceId::from_be_bytes(*id))
}

/// Whether a key is that of a part of the tables, which the log can make again.
pub(crate) fn is_of_tables(key: &[u8]) -> bool {
    matches!(key.first(), Some(b't' | b'e' | b'b' | b'f' | b'c' | b'k'))
}

pub(crate) fn log_index(id: NamespaceId, replica: ReplicaIndex, last_number: u64) -> Vec<u8> {
    let (replica, last_number) = (replica.to_be_bytes(), last_number.to_be_bytes());
    [b"r", &id.to_be_bytes()[..], &replica[..], &last_number[..]].concat()
}

pub(crate) fn segment(id: NamespaceId, end: u64) -> Vec<u8> {
    [b"s", &id.to_be_bytes()[..], &end.to_be_bytes()[..]].concat()
}

pub(crate) fn fork(id: NamespaceId, replica: &[u8]) -> Vec<u8> {
    [b"x", &id.to_be_bytes()[..], replica].concat()
}

/// A change of a branch, which the leaf of its first change tells from others.
pub(crate) fn orphan(
    id: NamespaceId,
    replica: ReplicaIndex,
    (first, leaf): (u64, &[u8]),
    number: u64,
) -> Vec<u8> {
    let (replica, first, number) =
        (replica.to_be_bytes(), first.to_be_bytes(), number.to_be_bytes());
    let leaf = leaf.first_chunk::<8>().copied().unwrap_or_default();
    [b"v", &id.to_be_bytes()[..], &replica[..], &first[..], &leaf[..], &number[..]].concat()
}

/// From where on the changes of branches that have lost are.
pub(crate) fn orphans(id: NamespaceId) -> Vec<u8> {
    [b"v", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn written_here(id: NamespaceId, key: &ReplicaKey) -> Vec<u8> {
    [b"i", &id.to_be_bytes()[..], &key.0].concat()
}

/// The setting that says that this store needs another key: because another one writes under the one
/// that it has, or, where it is not empty, because it cannot read what it has written under it.
pub(crate) const KEY_ELSEWHERE: &str = "key elsewhere";

pub(crate) fn hashes(id: NamespaceId) -> Vec<u8> {
    [b"h", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn arriving(id: NamespaceId) -> Vec<u8> {
    [b"w", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn floor(id: NamespaceId) -> Vec<u8> {
    [b"z", &id.to_be_bytes()[..]].concat()
}

pub(crate) fn nodes(id: NamespaceId, replica: ReplicaIndex, first_leaf: u64) -> Vec<u8> {
    let (replica, first_leaf) = (replica.to_be_bytes(), first_leaf.to_be_bytes());
    [b"o", &id.to_be_bytes()[..], &replica[..], &first_leaf[..]].concat()
}

pub(crate) fn compacting(id: NamespaceId) -> Vec<u8> {
    [b"y", &id.to_be_bytes()[..]].concat()
}

/// From where on the checkpoints are that are being taken.
pub(crate) fn staged(id: NamespaceId) -> Vec<u8> {
    [b"q", &id.to_be_bytes()[..]].concat()
}

/// Where a peer's checkpoint is, with its parts behind it.
pub(crate) fn staged_of(id: NamespaceId, peer: &ReplicaKey) -> Vec<u8> {
    [b"q", &id.to_be_bytes()[..], &peer.0].concat()
}

pub(crate) fn staged_part(id: NamespaceId, peer: &ReplicaKey, part: u64) -> Vec<u8> {
    [b"q", &id.to_be_bytes()[..], &peer.0, &part.to_be_bytes()[..]].concat()
}

/// A number at the end of a key, or a whole value.
pub(crate) fn trailing_u64(bytes: &[u8]) -> u64 {
    bytes.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Up to where the tables hold the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checkpoint {
    /// The first position that the tables on disk do not hold.
    pub(crate) position: u64,
    /// The id that the next chunk gets.
    pub(crate) next_chunk: ChunkId,
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.position);
        write_varint(&mut out, self.next_chunk);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Checkpoint, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        Ok(Checkpoint { position: reader.varint()?, next_chunk: reader.varint()? })
    }
}
