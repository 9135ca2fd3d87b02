//! The canonical form of a state, and its fingerprint.
//!
//! Rows in memory name replicas by local indexes; the canonical form names them by key, and is
//! therefore a pure function of the state. Two stores with the same effective changes have the
//! same canonical bytes, whatever arrived when.

use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use crate::dots;
use crate::namespace::{GenTable, Namespace};
use crate::replica::Replicas;
use crate::row::{EncodedStamp, Row};
use crate::source::{ChunkError, ChunkSource};
use crate::table::HashSum;
use crate::wire::{write_bytes, write_varint};

/// Names a state: equal for equal states, and for no others.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    /// The first eight bytes in hexadecimal.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..8] {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Namespace {
    /// The fingerprint of the state: a hash over (name, row counts, sums of the rows' hashes) of each
    /// Gen that has rows, documents first and then entries of collections, in the order of their names. Only what has changed since the last time is
    /// hashed.
    ///
    /// # Errors
    /// A chunk could not be read.
    pub fn fingerprint<S: ChunkSource>(
        &mut self,
        source: &mut S,
    ) -> Result<Fingerprint, ChunkError<S::Error>> {
        let mut total = Sha256::new();
        total.update(b"vudo/fingerprint/2");
        let mut canonical = Vec::new();
        for gen_index in self.gens_by_name() {
            let GenTable { name, documents, entries } = &mut self.gens[gen_index];
            let mut hash = |row: &[u8]| row_hash(row, &self.replicas, &mut canonical);
            let (document_count, document_sum) =
                documents.sum_hashes(&[], None, source, &mut hash)?;
            let (entry_count, entry_sum) = entries.sum_hashes(&[], None, source, &mut hash)?;
            if document_count > 0 {
                total.update((name.len() as u64).to_le_bytes());
                total.update(name);
                for (row_count, sum) in [(document_count, document_sum), (entry_count, entry_sum)] {
                    total.update(row_count.to_le_bytes());
                    sum.0.iter().for_each(|word| total.update(word.to_le_bytes()));
                }
            }
        }
        Ok(Fingerprint(total.finalize().into()))
    }

    /// The canonical encoding of the whole state.
    ///
    /// # Errors
    /// A chunk could not be read.
    pub fn canonical_bytes<S: ChunkSource>(
        &self,
        source: &mut S,
    ) -> Result<Vec<u8>, ChunkError<S::Error>> {
        let mut out = Vec::new();
        for gen_index in self.gens_by_name() {
            let GenTable { name, documents, entries } = &self.gens[gen_index];
            let mut is_first = true;
            let mut visit = |row: &[u8]| {
                if core::mem::take(&mut is_first) {
                    write_bytes(&mut out, name);
                }
                write_canonical_row(&Row::parse(row), &self.replicas, &mut out);
                true
            };
            documents.visit_rows(&[], source, &mut visit)?;
            entries.visit_rows(&[], source, &mut visit)?;
        }
        Ok(out)
    }

    pub(crate) fn gens_by_name(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.gens.len()).collect();
        order.sort_unstable_by(|left, right| self.gens[*left].name.cmp(&self.gens[*right].name));
        order
    }
}

/// The hash of a row's canonical form, which is left in `canonical`.
pub(crate) fn row_hash(row: &[u8], replicas: &Replicas, canonical: &mut Vec<u8>) -> HashSum {
    canonical.clear();
    write_canonical_row(&Row::parse(row), replicas, canonical);
    HashSum::of_hash(&Sha256::digest(canonical).into())
}

/// Appends a row with every replica named by its key.
pub(crate) fn write_canonical_row(row: &Row<'_>, replicas: &Replicas, out: &mut Vec<u8>) {
    let write_stamp = |stamp: EncodedStamp<'_>, out: &mut Vec<u8>| {
        let stamp = stamp.decode();
        out.extend_from_slice(&replicas.key(stamp.replica).0);
        write_varint(out, stamp.number);
        stamp.hlc.encode(out);
    };
    write_bytes(out, row.key);
    write_varint(out, row.life);
    if row.life > 0 {
        write_stamp(row.stamp, out);
    }
    let mut running = row.stamp;
    for cell in row.cells() {
        if cell.id.has_dots() {
            write_varint(out, cell.id.header(false));
            dots::write_canonical(cell.state, replicas, out);
        } else if cell.id.is_collection() {
            write_varint(out, cell.id.header(false));
            out.extend_from_slice(cell.state);
        } else {
            let begins_stamp = cell.stamp != running;
            write_varint(out, cell.id.header(begins_stamp));
            if begins_stamp {
                write_stamp(cell.stamp, out);
                running = cell.stamp;
            }
            out.extend_from_slice(cell.state);
        }
    }
    // No header is zero, so a zero ends the row and no row is another one's beginning.
    out.push(0);
}
