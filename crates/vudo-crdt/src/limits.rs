//! Bounds of what this crate accepts, in one place. Bytes that exceed them are refused before
//! anything is allocated for them.

/// Longest key of a document.
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest name of a namespace.
pub const MAX_NAMESPACE_NAME_BYTES: usize = 255;
/// Longest qualified name of a Gen.
pub const MAX_GEN_NAME_BYTES: usize = 255;
/// Most record types that one namespace holds, known to its schema or not.
pub const MAX_GENS: usize = 4096;
/// Greatest number of a field.
pub const MAX_FIELD_NUMBER: u32 = 65_535;
/// Deepest that values hold others, and collections others.
pub const MAX_VALUE_DEPTH: usize = 8;
/// Longest element of a set and longest key of a map, encoded.
pub const MAX_ELEMENT_BYTES: usize = 1024;
/// Longest key of an entry, which may lie in entries itself.
pub const MAX_ENTRY_KEY_BYTES: usize = MAX_KEY_BYTES + MAX_VALUE_DEPTH * (MAX_ELEMENT_BYTES + 4);
/// Most other replicas whose writes one change refers to.
pub const MAX_CHANGE_REPLICAS: usize = 16_384;
/// Most parts of the condition of a rule.
pub const MAX_RULE_PARTS: usize = 256;
/// Most fields behind one another that a field reads: what it was before, and what the conversions
/// of that read.
pub const MAX_PREDECESSORS: usize = 16;
/// Greatest life of a document. It is even, so that whoever claims a life at the end of all lives
/// leaves the document deleted or deletable.
pub const MAX_LIFE: u64 = u64::MAX - 1;
/// Largest change: one transaction.
pub const MAX_CHANGE_BYTES: usize = 16 << 20;
/// Largest frame: a change of the largest size and its headers must fit.
pub const MAX_FRAME_BYTES: usize = MAX_CHANGE_BYTES + (1 << 20);
/// Largest signed frame: a frame, and a seal for each replica that it names.
#[cfg(not(target_arch = "wasm32"))]
pub const MAX_SIGNED_FRAME_BYTES: usize =
    MAX_FRAME_BYTES + MAX_FRAME_REPLICAS * crate::signed_frame::SEAL_BYTES + 8;
/// A page of state ends before its rows take more, in their canonical form.
pub const PAGE_ROWS_BYTES: usize = 256 << 10;
/// Largest page: a row that is larger than a usual page has one for itself.
pub const MAX_PAGE_BYTES: usize = 64 << 20;
/// Most rows in a page.
pub const MAX_PAGE_ROWS: u64 = 16_384;
/// Most ranges of rows that one message of a reconciliation tells of.
pub const MAX_RANGE_PARTS: usize = 4096;
/// Most rows of one range that are told one by one.
pub const MAX_RANGE_ROWS: usize = 64;
/// Most bytes of the places of rows that one message of a reconciliation names, each counted whole and
/// with what it takes besides: on the wire, places that begin alike are short.
pub const MAX_RANGE_BYTES: usize = 16 << 20;
/// Most rows that one reconciliation finds to differ: where there are more, nearly everything does.
pub const MAX_DIFFERENT_ROWS: usize = 65_536;
/// Most bytes of the places of these, counted in the same way.
pub const MAX_DIFFERENT_BYTES: usize = 2 * MAX_RANGE_BYTES;
/// Most replicas that one frame or page names.
pub const MAX_FRAME_REPLICAS: usize = 16_384;
/// Most replicas that one version vector names.
pub const MAX_VECTOR_REPLICAS: usize = 65_536;
/// How many of these a namespace keeps for the keys of its own store, which gets another one where its
/// key has been used elsewhere: whoever fills a namespace up must not keep others from writing.
pub const RESERVED_REPLICAS: usize = 64;

// A frame has to be able to carry the largest change, or that change could never be sent.
const _: () = assert!(MAX_FRAME_BYTES > MAX_CHANGE_BYTES + MAX_FRAME_REPLICAS * 32);
