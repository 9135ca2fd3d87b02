//! The journal: the latest commits, in a file beside the pages, one sync each.
//!
//! ```text
//! journal = record* | what is left of earlier generations
//! record  = magic (4 bytes) | payload bytes (4) | generation (8) | sequence (8) | checksum (8)
//!         | payload
//! payload = (key length, key | 0, or value length + 1, value)*
//! ```
//!
//! Numbers are little endian, lengths inside a payload are varints, and a value length of zero says
//! that the key is removed.
//!
//! The pages hold the number of the generation that the journal continues. When the journal is full
//! its entries go to the pages in one transaction, which raises that number, and the journal begins
//! again at the start of its file: what an older generation wrote there counts no more. The file
//! keeps its length, so that a sync has no metadata to write.
//!
//! A batch that need not be on disk yet waits in memory, and its payload becomes the front of the next
//! record's.
//!
//! **The invariant.** Record `n + 1` is only written after record `n` has been synced. So a record
//! that does not check out is the torn end of the journal, unless another one follows it: then it
//! was whole once, and the disk has damaged it.

use twox_hash::XxHash3_64;
use vudo_crdt::wire::{Reader, write_bytes, write_varint};

use super::medium::JournalFile;
use super::{StorageError, Value, WriteBatch};

const MAGIC: [u8; 4] = *b"VJR\x01";
const HEADER_BYTES: usize = 32;
/// The file grows by so much, written with zeros: extending it again and again would give every
/// sync metadata to write.
const GROWTH_BYTES: u64 = 128 << 10;

/// What the journal holds, in the order in which it was committed.
pub(super) struct Recovered {
    pub(super) batches: Vec<WriteBatch>,
    /// Where the next record goes.
    pub(super) position: u64,
}

/// The file of the latest commits.
pub(super) struct Journal<F> {
    file: F,
    file_bytes: u64,
    generation: u64,
    sequence: u64,
    position: u64,
    /// After a failure nobody knows what the file holds; only a new generation is certain.
    is_usable: bool,
    /// The payload that goes in front of the next batch's, into its record.
    put_off: Vec<u8>,
    record: Vec<u8>,
}

impl<F: JournalFile> Journal<F> {
    /// Opens the journal of a generation and reads what it holds.
    ///
    /// # Errors
    /// The file cannot be read, or a record in the middle of it is damaged.
    pub(super) fn open(file: F, generation: u64) -> Result<(Self, Vec<WriteBatch>), StorageError> {
        let file_bytes = file.byte_count().map_err(failed)?;
        let mut bytes = vec![0; file_bytes as usize];
        file.read(0, &mut bytes).map_err(failed)?;
        let Recovered { batches, position } = recover(&bytes, generation)?;
        let sequence = batches.len() as u64;
        let journal = Journal {
            file,
            file_bytes,
            generation,
            sequence,
            position,
            is_usable: true,
            put_off: Vec::new(),
            record: Vec::new(),
        };
        Ok((journal, batches))
    }

    /// Whether so many bytes of payload still fit below a limit of the whole journal.
    pub(super) fn has_room(&self, payload_bytes: usize, bytes_max: u64) -> bool {
        let record_bytes = (HEADER_BYTES + self.put_off.len() + payload_bytes) as u64;
        self.is_usable && self.position + record_bytes <= bytes_max
    }

    /// Takes a batch that goes to disk in one record with the next one, and not before.
    pub(super) fn put_off(&mut self, batch: &WriteBatch) {
        encode_batch(batch, &mut self.put_off);
    }

    /// Appends a batch, with what was put off, and waits until it is on disk. There may be work to do
    /// meanwhile.
    ///
    /// # Errors
    /// Writing failed. The journal takes nothing more before it begins again.
    pub(super) fn append(
        &mut self,
        batch: &WriteBatch,
        work: Option<&mut dyn FnMut()>,
    ) -> Result<(), StorageError> {
        self.record.clear();
        self.record.resize(HEADER_BYTES, 0);
        self.record.extend_from_slice(&self.put_off);
        encode_batch(batch, &mut self.record);
        seal(&mut self.record, self.generation, self.sequence);
        let record_bytes = self.record.len() as u64;
        let end = self.position + record_bytes;
        if end > self.file_bytes {
            let grown = end.next_multiple_of(GROWTH_BYTES) - self.position;
            self.record.resize(grown as usize, 0);
        }
        self.is_usable = false;
        let written = self.write();
        if let Some(work) = work {
            if written.is_ok() {
                self.file.begin_write_back(self.position, record_bytes);
            }
            work();
        }
        written.and_then(|()| self.sync()).map_err(failed)?;
        self.is_usable = true;
        self.put_off.clear();
        self.position = end;
        self.sequence += 1;
        Ok(())
    }

    fn write(&mut self) -> std::io::Result<()> {
        let end = self.position + self.record.len() as u64;
        if end > self.file_bytes {
            self.file.set_byte_count(end)?;
            self.file_bytes = end;
        }
        self.file.write(self.position, &self.record)
    }

    fn sync(&self) -> std::io::Result<()> {
        if cfg!(vudo_mutation = "journal_without_sync") {
            return Ok(());
        }
        self.file.sync()
    }

    /// Takes nothing more before it begins again.
    pub(super) fn close(&mut self) {
        self.is_usable = false;
    }

    /// Gives the room of the file back. It must have begun again, with nothing in it yet.
    ///
    /// # Errors
    /// Writing failed. The journal takes nothing more before it begins again.
    pub(super) fn truncate(&mut self) -> Result<(), StorageError> {
        self.is_usable = false;
        self.file.set_byte_count(0).map_err(failed)?;
        self.file_bytes = 0;
        self.is_usable = true;
        Ok(())
    }

    /// Begins again, as the next generation. Its number must be on disk already.
    pub(super) fn restart(&mut self, generation: u64) {
        self.generation = generation;
        self.sequence = 0;
        self.position = 0;
        self.is_usable = true;
        // It is in the pages, as everything else that was recent.
        self.put_off.clear();
    }
}

/// How many bytes a batch has as a payload, at most.
pub(super) fn payload_bytes_max(batch: &WriteBatch) -> usize {
    // A varint of a length has at most 10 bytes.
    let entry = |(key, value): &(Vec<u8>, Option<Value>)| {
        key.len() + value.as_ref().map_or(0, |value| value.bytes.len()) + 20
    };
    batch.writes.iter().map(entry).sum()
}

fn failed(error: impl std::fmt::Display) -> StorageError {
    StorageError::new(format!("the journal: {error}"))
}

fn encode_batch(batch: &WriteBatch, out: &mut Vec<u8>) {
    for (key, value) in &batch.writes {
        write_bytes(out, key);
        match value {
            None => write_varint(out, 0),
            Some(value) => {
                write_varint(out, value.bytes.len() as u64 + 1);
                out.extend_from_slice(&value.bytes);
            }
        }
    }
}

fn decode_batch(payload: &[u8]) -> Result<WriteBatch, vudo_crdt::wire::MalformedFrame> {
    let mut batch = WriteBatch::default();
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        let key = reader.bytes()?.to_vec();
        match reader.varint_up_to(payload.len() as u64 + 1)? {
            0 => batch.remove(key),
            length => batch.put(key, reader.take(length as usize - 1)?.to_vec()),
        }
    }
    Ok(batch)
}

/// Fills in the header of a record whose payload is there.
fn seal(record: &mut [u8], generation: u64, sequence: u64) {
    let payload_bytes = (record.len() - HEADER_BYTES) as u32;
    record[0..4].copy_from_slice(&MAGIC);
    record[4..8].copy_from_slice(&payload_bytes.to_le_bytes());
    record[8..16].copy_from_slice(&generation.to_le_bytes());
    record[16..24].copy_from_slice(&sequence.to_le_bytes());
    let checksum = checksum_of(record);
    record[24..32].copy_from_slice(&checksum.to_le_bytes());
}

/// The checksum of a record, whose own place does not count.
fn checksum_of(record: &[u8]) -> u64 {
    let header = XxHash3_64::oneshot(&record[..24]);
    XxHash3_64::oneshot_with_seed(header, &record[HEADER_BYTES..])
}

/// The record of this generation at the front of some bytes, and its sequence.
fn read_record(bytes: &[u8], generation: u64) -> Option<(u64, &[u8])> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    if header[0..4] != MAGIC || header[8..16] != generation.to_le_bytes() {
        return None;
    }
    let word = |at: usize| header[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let payload_bytes = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let record = bytes.get(..HEADER_BYTES.checked_add(payload_bytes)?)?;
    (checksum_of(record) == word(24)).then_some((word(16), record))
}

/// Reads the records of a generation up to the end of the journal.
///
/// # Errors
/// A record is damaged: one that follows it is whole.
pub(super) fn recover(bytes: &[u8], generation: u64) -> Result<Recovered, StorageError> {
    let mut batches = Vec::new();
    let mut rest = bytes;
    while let Some((sequence, record)) = read_record(rest, generation) {
        if sequence != batches.len() as u64 {
            break;
        }
        let batch = decode_batch(&record[HEADER_BYTES..]);
        batches.push(batch.map_err(|what| failed(format!("record {sequence}: {what}")))?);
        rest = &rest[record.len()..];
    }
    let expected = batches.len() as u64;
    let position = bytes.len() - rest.len();
    let later = |at: &usize| {
        let found = read_record(&rest[*at..], generation);
        found.is_some_and(|(sequence, _)| sequence > expected)
    };
    if let Some(at) = memchr::memmem::find_iter(rest, &MAGIC).filter(|at| *at > 0).find(later) {
        return Err(failed(format!(
            "record {expected} at byte {position} is damaged, while one at byte {} is whole",
            position + at
        )));
    }
    Ok(Recovered { batches, position: position as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u8) -> WriteBatch {
        let mut batch = WriteBatch::default();
        batch.put(vec![b'k', number], vec![number; 40]);
        batch.remove(vec![b'r', number]);
        batch
    }

    fn record(generation: u64, sequence: u64, number: u8) -> Vec<u8> {
        let mut record = vec![0; HEADER_BYTES];
        encode_batch(&batch(number), &mut record);
        seal(&mut record, generation, sequence);
        record
    }

    fn recovered(bytes: &[u8]) -> usize {
        recover(bytes, 7).unwrap().batches.len()
    }

    #[test]
    fn a_journal_ends_where_its_generation_ends() {
        let (first, second, older) = (record(7, 0, 1), record(7, 1, 2), record(6, 2, 3));
        let all = [first.as_slice(), &second, &older, &[0; 100]].concat();
        let found = recover(&all, 7).unwrap();
        assert_eq!(found.position as usize, first.len() + second.len());
        assert_eq!(found.batches[1].writes, batch(2).writes);
        assert_eq!(recovered(&[]), 0);
        assert_eq!(recover(&all, 8).unwrap().batches.len(), 0);
    }

    #[test]
    fn every_cut_of_the_last_record_is_a_torn_end() {
        let (first, second) = (record(7, 0, 1), record(7, 1, 2));
        let all = [first.as_slice(), &second].concat();
        for length in first.len()..all.len() {
            assert_eq!(recovered(&all[..length]), 1, "cut at {length}");
        }
    }

    #[test]
    fn every_flipped_bit_before_the_last_record_is_told() {
        let first = record(7, 0, 1);
        let all = [first.as_slice(), &record(7, 1, 2)].concat();
        for bit in 0..first.len() * 8 {
            let mut damaged = all.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let refused = recover(&damaged, 7).err().expect("damage is told");
            assert!(refused.to_string().contains("record 0 at byte 0 is damaged"), "{refused}");
        }
    }
}
