//! Mutual credit that can be spent offline and settles under Byzantine faults.
//!
//! **The idea.** There is no coin and no mint: balances add up to zero, and an account may owe up
//! to its limit. A device spends without a network from an escrow that was reserved for it
//! beforehand, its *lane*. A committee of `n >= 3f + 1` members agrees later on what was spent;
//! `f` of them may crash or lie.
//!
//! ```text
//!   owner --Grant--> ordered log --certificate--> Device --payment--> Receiver     (offline)
//!                        ^                                               |
//!                        |  Record, Close                                | Deposit
//!                     Member x n  <------- Settler: receipts, votes, certificate, final
//! ```
//!
//! **Who owns what.** [`Ledger`] is a pure function of the ordered log. A [`Member`] checks, votes
//! and orders; a [`Device`] spends; a [`Receiver`] verifies offline; a [`Settler`] collects
//! signatures; a [`Wallet`] is all that one person's device needs. All of them are state machines without input or output: what they want written and
//! sent they give back as effects, and a write comes before what depends on it.
//!
//! **The invariants.** Balances add up to 0. Nobody uses more than the limit, or than before it
//! was lowered. A lane never spends more than it was allocated, and has one settled chain. A vote
//! is on disk before it is released, a spend before its signature leaves. Nothing depends on
//! clocks for safety.
//!
//! **Recovery.** Whoever crashes opens again from what it wrote. [`audit()`] checks a log from its
//! first entry on and trusts nobody.

#![forbid(unsafe_code)]

pub mod audit;
mod book;
mod close;
pub mod committee;
pub mod device;
pub mod draft;
pub mod error;
pub mod genesis;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod log_file;
pub mod member;
pub mod message;
pub mod operation;
pub mod order;
pub mod payment;
pub mod receiver;
pub mod settler;
pub mod spend;
pub mod wallet;
pub mod wire;

pub use audit::{AuditError, AuditReport, audit};
pub use device::Device;
pub use error::Refusal;
pub use genesis::{DEFAULT_TIERS, Genesis, Tier};
pub use keys::{Digest, Key, NetworkId, Secret, Signature};
pub use ledger::{Account, Lane, LaneStatus, Ledger};
pub use member::{Event, Member};
pub use message::{Effect, Message, Party, Writes};
pub use payment::{Invoice, Payment};
pub use receiver::Receiver;
pub use settler::{Finality, Settler};
pub use spend::{AccountId, Chain, Grant, Head, LaneId, Nonce, Payee, Spend};
pub use wallet::{Balance, Wallet};
