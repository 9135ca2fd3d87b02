//! A log as a file, for auditors.
//!
//! ```text
//! "vudo credit log 1\n"   genesis   record*        each with its length before it, a varint
//! ```
//!
//! Records are given back as they are: which one is damaged is for the audit to say.

use crate::genesis::Genesis;
use crate::wire::{MalformedFrame, Reader, Wire};
use vudo_crdt::wire::write_bytes;

const MAGIC: &[u8; 18] = b"vudo credit log 1\n";

/// The bytes of a file with these records.
pub fn write_log<'a>(genesis: &Genesis, records: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    write_bytes(&mut out, &genesis.to_bytes());
    records.into_iter().for_each(|record| write_bytes(&mut out, record));
    out
}

/// The genesis and the records of a file.
///
/// # Errors
/// The bytes are no such file, or are cut in the middle of a record.
pub fn read_log(bytes: &[u8]) -> Result<(Genesis, Vec<&[u8]>), MalformedFrame> {
    let mut reader = Reader::new(bytes);
    if reader.array()? != *MAGIC {
        return Err(MalformedFrame::ValueNotCanonical);
    }
    let genesis = Genesis::from_bytes(reader.bytes()?)?;
    let mut records = Vec::new();
    while !reader.is_empty() {
        records.push(reader.bytes()?);
    }
    Ok((genesis, records))
}
