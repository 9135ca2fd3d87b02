//! Bounds of what this crate accepts, in one place. Bytes that exceed them are refused before
//! anything is allocated for them.

/// Greatest amount of one grant, spend or limit, in units: sums of 2^32 of them fit 128 bits with
/// room to spare, and every amount is a whole number in JavaScript.
pub const AMOUNT_MAX: u64 = (1 << 53) - 1;
/// Most members of a committee: the signers of a certificate are a bitmap of 64 bits.
pub const COMMITTEE_MEMBERS_MAX: usize = 64;
/// Most spends of one lane. A device that spends more asks for another lane.
pub const LANE_SPENDS_MAX: u32 = 1024;
/// Most lane heads that one certificate settles.
pub const SETTLEMENT_HEADS_MAX: usize = 16_384;
/// Most chains of one lane that a member keeps beside the one that it voted for.
pub const LANE_BRANCHES_MAX: usize = 8;
/// Longest name of a ledger, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Most tiers of a genesis.
pub const TIERS_MAX: usize = 16;
/// Most operator keys of a genesis.
pub const OPERATORS_MAX: usize = 16;
/// Most operations that wait for their turn at the sequencer.
pub const QUEUED_OPERATIONS_MAX: usize = 4096;
/// Most log records that one answer carries.
pub const SENT_RECORDS_MAX: usize = 64;
/// Longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Most postings of one record: two for each spend would be the most, but they are summed up by
/// account.
pub const RECORD_POSTINGS_MAX: usize = 1 << 24;
/// A wallet deposits chains together until their spends are more than this: one message of a wallet
/// stays well below a mebibyte.
pub const DEPOSITED_SPENDS_MAX: usize = 2048;
/// Longest payment as text, in characters.
pub const PAYMENT_TEXT_MAX: usize = 1 << 20;
/// How long after a grant's last day its spends may still be deposited, in ticks, at most.
pub const SETTLE_WINDOW_TICKS_MAX: u64 = 366;

// Shares of headroom are counted in thousandths.
/// The whole, in thousandths.
pub const THOUSANDTHS: u64 = 1000;
