//! A disk that loses its power: an ordered map whose commits are atomic, as storage promises.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The power is off: nothing can be read or written until it is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerLoss;

impl std::fmt::Display for PowerLoss {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the power is off")
    }
}

impl std::error::Error for PowerLoss {}

/// The disk. What a commit returned for is there when the power is back; the commit during which the
/// power went may have reached the disk or not, as a whole.
#[derive(Debug, Default)]
pub struct CrashingDisk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What a crash makes of the keys that were written since the last commit; `None` removes.
    on_disk: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    is_off: bool,
    crash: Option<Crash>,
}

#[derive(Clone, Copy, Debug)]
struct Crash {
    commits_before: u64,
    reaches_disk: bool,
}

impl CrashingDisk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_powered(&self) -> Result<MutexGuard<'_, State>, PowerLoss> {
        let state = self.lock();
        if state.is_off { Err(PowerLoss) } else { Ok(state) }
    }

    /// Another disk with what is on this one.
    pub fn copy(&self) -> CrashingDisk {
        let state = self.lock();
        let (entries, on_disk) = (state.entries.clone(), state.on_disk.clone());
        let mut copy = State { entries, on_disk, ..State::default() };
        copy.forget();
        CrashingDisk { state: Mutex::new(copy) }
    }

    /// Takes the power away now.
    pub fn power_off(&self) {
        let mut state = self.lock();
        state.is_off = true;
        state.crash = None;
        state.forget();
    }

    /// Takes the power away during a commit, after so many more have succeeded.
    pub fn power_off_during_commit(&self, commits_before: u64, reaches_disk: bool) {
        self.lock().crash = Some(Crash { commits_before, reaches_disk });
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// Gives the power back, for good: a loss that was still to come does not.
    pub fn power_on(&self) {
        let mut state = self.lock();
        state.is_off = false;
        state.crash = None;
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The power is off.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PowerLoss> {
        Ok(self.lock_powered()?.entries.get(key).cloned())
    }

    /// Visits the entries with `from <= key < to`, ascending, until the visitor says `false`.
    ///
    /// # Errors
    /// The power is off.
    pub fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), PowerLoss> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        // The visitor may read more.
        let entries: Vec<_> =
            self.lock_powered()?.entries.range::<[u8], _>(range).map(owned).collect();
        for (key, value) in &entries {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    /// Writes and removes keys, all or none.
    ///
    /// # Errors
    /// The power is off, or goes.
    pub fn commit(&self, writes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), PowerLoss> {
        let mut state = self.lock_powered()?;
        match &mut state.crash {
            Some(Crash { commits_before: 0, reaches_disk }) => {
                let reaches_disk = *reaches_disk;
                state.is_off = true;
                state.crash = None;
                if reaches_disk {
                    state.commit(writes);
                }
                state.forget();
                return Err(PowerLoss);
            }
            Some(crash) => crash.commits_before -= 1,
            None => {}
        }
        state.commit(writes);
        Ok(())
    }

    /// Writes and removes keys, which reaches the disk with the next commit.
    ///
    /// # Errors
    /// The power is off.
    pub fn commit_later(&self, writes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), PowerLoss> {
        let mut state = self.lock_powered()?;
        for (key, _) in writes {
            let before = state.entries.get(key).cloned();
            state.on_disk.entry(key.clone()).or_insert(before);
        }
        state.write(writes);
        Ok(())
    }
}

impl State {
    fn commit(&mut self, writes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        self.write(writes);
        self.on_disk.clear();
    }

    fn write(&mut self, writes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        for (key, value) in writes {
            match value {
                Some(value) => self.entries.insert(key.clone(), value.clone()),
                None => self.entries.remove(key),
            };
        }
    }

    /// Leaves what is on the disk.
    fn forget(&mut self) {
        let on_disk: Vec<_> = std::mem::take(&mut self.on_disk).into_iter().collect();
        self.write(&on_disk);
    }
}
