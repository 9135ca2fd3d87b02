//! A disk that crashes: files in memory that lose what was not synced, tear what was being written,
//! and fail when they are told to.
//!
//! ```text
//! write --> page cache --(sync)--> durable
//!               |
//!               crash: each sector that was not synced arrives, or does not, or arrives in part
//! ```
//!
//! **The model.** A read sees every write. A crash leaves of each file what was synced, and any part
//! of what was not, in any order: sectors are independent of each other, and one of them may hold
//! new bytes up to some place and old ones behind it. A new length survives or does not. What
//! happens is a function of the seed and the calls.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::random::Random;

/// What a disk writes at once, except where it tears.
const SECTOR_BYTES: usize = 512;

/// When calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The call of this number fails, and no other: a passing fault.
    Once(u64),
    /// Every call from this number on fails: the disk is gone.
    From(u64),
    /// Every call from this number on that would make a file longer fails: the disk is full.
    FullFrom(u64),
}

/// A disk in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct CrashingFiles {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: Random,
    files: BTreeMap<String, Content>,
    call_count: u64,
    failure: Option<Failure>,
    sync_count: u64,
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    /// What reads see.
    cached: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

/// A file of a [`CrashingFiles`]. After a crash of the disk it fails every call.
#[derive(Clone, Debug)]
pub struct CrashingFile {
    disk: CrashingFiles,
    name: String,
}

impl CrashingFiles {
    /// An empty disk whose crashes go by this seed.
    pub fn new(seed: u64) -> CrashingFiles {
        CrashingFiles::with_files(seed, BTreeMap::new())
    }

    fn with_files(seed: u64, files: BTreeMap<String, Content>) -> CrashingFiles {
        let state =
            State { random: Random::new(seed), files, call_count: 0, failure: None, sync_count: 0 };
        CrashingFiles { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file, which is created where there is none. It exists after a crash too.
    pub fn file(&self, name: &str) -> CrashingFile {
        self.lock().files.entry(name.to_owned()).or_default();
        CrashingFile { disk: self.clone(), name: name.to_owned() }
    }

    /// How many calls its files have had.
    pub fn call_count(&self) -> u64 {
        self.lock().call_count
    }

    /// How many of them were syncs.
    pub fn sync_count(&self) -> u64 {
        self.lock().sync_count
    }

    /// Lets calls fail from now on; `None` ends it.
    pub fn fail(&self, failure: Option<Failure>) {
        self.lock().failure = failure;
    }

    /// Whether it is gone, and a call has noticed.
    pub fn is_gone(&self) -> bool {
        let state = self.lock();
        matches!(state.failure, Some(Failure::From(first)) if state.call_count > first)
    }

    /// The disk after the power went: nobody who holds this one can reach it.
    pub fn crash(&self) -> CrashingFiles {
        let mut state = self.lock();
        state.failure = Some(Failure::From(0));
        let mut files = state.files.clone();
        files.values_mut().for_each(|file| file.crash(&mut state.random));
        let seed = state.random.next_u64();
        CrashingFiles::with_files(seed, files)
    }

    /// The disk after the process was killed: the system writes everything that it was given.
    pub fn kill_process(&self) -> CrashingFiles {
        let mut state = self.lock();
        state.failure = Some(Failure::From(0));
        let mut files = state.files.clone();
        for file in files.values_mut() {
            file.sync();
        }
        let seed = state.random.next_u64();
        CrashingFiles::with_files(seed, files)
    }

    /// A disk that holds the same, whose crashes go by this seed.
    pub fn copy(&self, seed: u64) -> CrashingFiles {
        CrashingFiles::with_files(seed, self.lock().files.clone())
    }

    /// Flips one bit of a file, on the medium itself.
    ///
    /// # Panics
    /// Where the file is not that long.
    pub fn flip_bit(&self, name: &str, bit: usize) {
        let mut state = self.lock();
        let file = state.files.get_mut(name).expect("a file of this name");
        for bytes in [&mut file.durable, &mut file.cached] {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

impl Content {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Unsynced::Length(length) => self.durable.resize(length, 0),
                Unsynced::Write { offset, bytes } => write_at(&mut self.durable, offset, &bytes),
            }
        }
    }

    fn crash(&mut self, random: &mut Random) {
        // Mostly sectors fare each on its own; a disk that wrote all of it or nothing is as likely.
        let kept_of_8 = match random.next_u64() % 4 {
            0 => 0,
            1 => 8,
            _ => 1 + random.next_u64() % 7,
        };
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Unsynced::Length(length) if random.next_u64() % 8 < kept_of_8 => {
                    self.durable.resize(length, 0);
                }
                Unsynced::Length(_) => {}
                Unsynced::Write { offset, bytes } => {
                    self.write_some_sectors(offset, &bytes, kept_of_8, random);
                }
            }
        }
        self.cached.clone_from(&self.durable);
    }

    fn write_some_sectors(
        &mut self,
        offset: usize,
        bytes: &[u8],
        kept_of_8: u64,
        random: &mut Random,
    ) {
        let mut start = 0;
        while start < bytes.len() {
            let sector_end = ((offset + start) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
            let end = sector_end.min(bytes.len());
            let fate = random.next_u64() % 8;
            let arrived = match fate.cmp(&kept_of_8) {
                std::cmp::Ordering::Less => end - start,
                // The sector that was being written when the power went.
                std::cmp::Ordering::Equal => random.next_u64() as usize % (end - start),
                std::cmp::Ordering::Greater => 0,
            };
            write_at(&mut self.durable, offset + start, &bytes[start..start + arrived]);
            start = end;
        }
    }
}

impl CrashingFile {
    /// Runs a call on the file's content.
    fn call<T>(
        &self,
        grows_to: impl FnOnce(&Content) -> usize,
        run: impl FnOnce(&mut Content) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.disk.lock();
        let number = state.call_count;
        state.call_count += 1;
        let State { files, failure, .. } = &mut *state;
        let Some(content) = files.get_mut(&self.name) else {
            return Err(Error::from(ErrorKind::NotFound));
        };
        match *failure {
            Some(Failure::Once(at)) if number == at => Err(Error::other("a fault of the disk")),
            Some(Failure::From(first)) if number >= first => Err(Error::other("the disk is gone")),
            Some(Failure::FullFrom(first))
                if number >= first && grows_to(content) > content.cached.len() =>
            {
                Err(Error::from(ErrorKind::StorageFull))
            }
            _ => run(content),
        }
    }

    /// The file's length in bytes.
    ///
    /// # Errors
    /// The call was made to fail.
    pub fn len(&self) -> Result<u64> {
        self.call(|_| 0, |content| Ok(content.cached.len() as u64))
    }

    /// Whether the file holds nothing.
    ///
    /// # Errors
    /// The call was made to fail.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads as many bytes as fit.
    ///
    /// # Errors
    /// The file ends before, or the call was made to fail.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.call(
            |_| 0,
            |content| {
                let start = offset as usize;
                let found = content.cached.get(start..start + out.len());
                out.copy_from_slice(found.ok_or(Error::from(ErrorKind::UnexpectedEof))?);
                Ok(())
            },
        )
    }

    /// Sets the length; new bytes are zero.
    ///
    /// # Errors
    /// The call was made to fail.
    pub fn set_len(&self, length: u64) -> Result<()> {
        let length = length as usize;
        self.call(
            |_| length,
            |content| {
                content.cached.resize(length, 0);
                content.unsynced.push(Unsynced::Length(length));
                Ok(())
            },
        )
    }

    /// Writes bytes, which may extend the file.
    ///
    /// # Errors
    /// The call was made to fail.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let offset = offset as usize;
        self.call(
            |_| offset + bytes.len(),
            |content| {
                write_at(&mut content.cached, offset, bytes);
                content.unsynced.push(Unsynced::Write { offset, bytes: bytes.to_vec() });
                Ok(())
            },
        )
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The call was made to fail. What was written may be durable or not.
    pub fn sync(&self) -> Result<()> {
        self.call(
            |_| 0,
            |content| {
                content.sync();
                Ok(())
            },
        )?;
        self.disk.lock().sync_count += 1;
        Ok(())
    }
}

fn write_at(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_some_of_the_rest() {
        let (mut kept_all, mut kept_none, mut kept_some) = (0, 0, 0);
        for seed in 0..200 {
            let disk = CrashingFiles::new(seed);
            let file = disk.file("a");
            file.write(0, &[1; 2048]).unwrap();
            file.sync().unwrap();
            file.write(1024, &[2; 4096]).unwrap();
            let after = disk.crash();
            assert!(file.read(0, &mut [0]).is_err(), "the old handle is dead");
            let file = after.file("a");
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read(0, &mut bytes).unwrap();
            assert_eq!(bytes[..1024], [1; 1024], "synced and not written again");
            let arrived = bytes.iter().filter(|byte| **byte == 2).count();
            match arrived {
                0 => kept_none += 1,
                4096 => kept_all += 1,
                _ => kept_some += 1,
            }
        }
        assert!(kept_all > 10 && kept_none > 10 && kept_some > 50);
    }

    #[test]
    fn calls_fail_as_they_are_told() {
        let disk = CrashingFiles::new(1);
        let file = disk.file("a");
        file.write(0, &[1; 10]).unwrap();
        disk.fail(Some(Failure::Once(1)));
        assert!(file.sync().is_err());
        file.sync().unwrap();
        disk.fail(Some(Failure::FullFrom(0)));
        assert_eq!(file.write(8, &[2; 3]).unwrap_err().kind(), ErrorKind::StorageFull);
        file.write(7, &[2; 3]).unwrap();
        disk.fail(Some(Failure::From(disk.call_count() + 1)));
        assert!(file.len().is_ok() && !disk.is_gone());
        assert!(file.len().is_err() && disk.is_gone());
    }
}
