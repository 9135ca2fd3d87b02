//! Tools for VUDO's tests. Knows none of the product's crates.
//!
//! A simulation is one thread, one [`Random`] and one [`Scheduler`]: whatever happens is an event
//! at a virtual time, so a seed replays it exactly. [`Network`] says what becomes of a packet,
//! [`Stream`] makes an ordered stream of packets as QUIC and TCP do, and [`CrashingDisk`] keeps
//! what was committed when the power goes. [`files`] go deeper: they lose and tear what a storage
//! engine wrote and did not sync.

#![forbid(unsafe_code)]

mod disk;
pub mod files;
mod network;
mod random;
mod scheduler;
mod seeds;
pub mod skip;
mod stream;

pub use disk::{CrashingDisk, PowerLoss};
pub use network::{Conditions, Network};
pub use random::Random;
pub use scheduler::{Microseconds, Scheduler};
pub use seeds::run_seeds;
pub use stream::{Packet, Stream};
