//! Where a store gets time and randomness: from the system, or in a simulation from a seed.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::storage::StorageError;

/// Time and randomness, the only things that a store takes from outside beside its storage.
pub trait Environment: Send + Sync {
    /// Milliseconds since 1970. It may jump or be wrong: that spoils no more than the order of
    /// writes to one cell.
    fn now_milliseconds(&self) -> u64;

    /// Fills the bytes at random. Keys are made of them, so outside of tests nobody may be able to
    /// guess them.
    ///
    /// # Errors
    /// There is no randomness.
    fn fill_random(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The clock and the randomness of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    /// Zero where the clock shows a time before 1970.
    fn now_milliseconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn fill_random(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| {
            let message = format!("the system gave no randomness: {error}");
            Error::Storage(StorageError::new(message))
        })
    }
}
