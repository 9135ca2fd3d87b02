//! What rights are made of: signed records, which are documents of their namespace.
//!
//! ```text
//! record      = kind (1 byte) | fields | signature (64 bytes), but for a founding
//! founding    = 1 | salt (16) | count | owner key (32)*
//! certificate = 2 | person's key (32) | replica's key (32)
//! grant       = 3 | issuer (32) | subject (32) | can delegate (1) | expiry | count | scope*
//! revocation  = 4 | issuer (32) | subject (32) | vector of last accepted numbers
//! checkpoint  = 5 | issuer (32) | vector | count | (replica (32) | ranges of numbers set aside)*
//! scope       = Gen's name (length, bytes), empty for every Gen | prefix of keys (length, bytes)
//! ```
//!
//! The issuer signs `vudo/rights/1`, the namespace (length, bytes), and the record up to the
//! signature. A founding is not signed: the namespace's name ends with its hash, so nobody else's
//! founding is one of that namespace. A record's document has the SHA-256 of the record as its key, in
//! hexadecimal, and the record in its one field.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use vudo_crdt::head::SIGNATURE_BYTES;
use vudo_crdt::limits::{MAX_GEN_NAME_BYTES, MAX_KEY_BYTES};
use vudo_crdt::value::decode_byte_string;
use vudo_crdt::wire::{MalformedFrame, Reader, write_bytes, write_varint};
use vudo_crdt::{
    CellId, DocumentWrite, FieldSchema, Ranges, ReplicaKey, Strategy, ValueType, VersionVector,
};

use crate::error::{Error, Result};
use crate::history::is_signature;
use crate::identity::SecretKeyBytes;

/// An Ed25519 public key: an owner's, a person's or a replica's.
pub type PublicKey = ReplicaKey;

/// The Gen whose documents are the records of a namespace with owners.
pub const RIGHTS_GEN: &str = "vudo.rights";
/// Most owners of a namespace.
pub const OWNERS_MAX: usize = 16;
/// Most scopes of one grant.
pub const SCOPES_MAX: usize = 64;
/// Most bytes of a checkpoint's record: that of some 30,000 replicas, where little is set aside.
pub const CHECKPOINT_RECORD_BYTES_MAX: usize = 1 << 20;

/// Keeps the signatures of records apart from all others.
const RECORD_TAG: &[u8] = b"vudo/rights/1";
const FOUNDING_TAG: &[u8] = b"vudo/founding/1";
const HASH_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

const FOUNDING: u8 = 1;
const CERTIFICATE: u8 = 2;
const GRANT: u8 = 3;
const REVOCATION: u8 = 4;
const CHECKPOINT: u8 = 5;

/// The SHA-256 of a record's bytes.
pub type RecordId = [u8; HASH_BYTES];

/// Who owns a namespace. The earlier an owner comes the more weight it has: it can revoke those that
/// come after it, so a recovery key comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Makes two namespaces of the same owners different ones.
    pub salt: [u8; SALT_BYTES],
    /// 1 to [`OWNERS_MAX`] keys, no two of them equal.
    pub owners: Vec<PublicKey>,
}

/// Documents that a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The name of a Gen; empty for every Gen.
    pub gen_name: String,
    /// What keys begin with; empty for every key.
    pub key_prefix: String,
}

impl Scope {
    /// Every document.
    pub fn everything() -> Scope {
        Scope { gen_name: String::new(), key_prefix: String::new() }
    }

    /// Whether it covers a document.
    pub fn covers(&self, gen_name: &[u8], key: &[u8]) -> bool {
        (self.gen_name.is_empty() || self.gen_name.as_bytes() == gen_name)
            && key.starts_with(self.key_prefix.as_bytes())
    }

    /// Whether it covers every document that another one covers.
    pub fn includes(&self, other: &Scope) -> bool {
        (self.gen_name.is_empty() || self.gen_name == other.gen_name)
            && other.key_prefix.starts_with(&self.key_prefix)
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.gen_name.is_empty() && self.key_prefix.is_empty()
    }
}

impl fmt::Display for Scope {
    /// As in `Task/milk*`, or `*` for everything.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.gen_name.as_str(), self.key_prefix.as_str()) {
            ("", "") => formatter.write_str("*"),
            ("", prefix) => write!(formatter, "*/{prefix}*"),
            (gen_name, prefix) => write!(formatter, "{gen_name}/{prefix}*"),
        }
    }
}

/// A capability: its subject may read the namespace, and write what the scopes cover, as far as its
/// issuer may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who gives it.
    pub issuer: PublicKey,
    /// Who gets it.
    pub subject: PublicKey,
    /// Whether the subject may grant what it has been granted to others.
    pub can_delegate: bool,
    /// When sessions of the subject end, in milliseconds since 1970. What it has written stays in
    /// effect.
    pub expires_milliseconds: Option<u64>,
    /// What may be written, at most [`SCOPES_MAX`]; none for reading alone.
    pub scopes: Vec<Scope>,
}

/// From where on the changes of a key, and of all that act through it, are not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Who revokes.
    pub issuer: PublicKey,
    /// Who is revoked.
    pub subject: PublicKey,
    /// The last accepted number of each replica; zero for those that are not named.
    pub last_accepted: VersionVector,
}

/// An owner's word that everything up to a vector is judged for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Who gives it: an owner, or a replica that an owner has certified.
    pub issuer: PublicKey,
    /// The changes that it judges.
    pub vector: VersionVector,
    /// Which of them are set aside, ascending by key; the others are in effect. Replicas without any
    /// are left out.
    pub set_aside: Vec<(PublicKey, Ranges)>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Who owns the namespace.
    Founding(Founding),
    /// A replica writes for a person.
    Certificate {
        /// Who answers for the replica, and signs this.
        person: PublicKey,
        /// Whose changes count as the person's.
        replica: PublicKey,
    },
    /// A capability.
    Grant(Grant),
    /// The end of one.
    Revocation(Revocation),
    /// What is judged for good.
    Checkpoint(CheckpointRecord),
}

/// A record with its signature, in its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRecord {
    record: Record,
    bytes: Vec<u8>,
}

impl fmt::Debug for SignedRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(formatter)
    }
}

impl Founding {
    /// The whole name of the namespace that these owners found under a label.
    pub fn namespace(&self, label: &str) -> String {
        let hash = hash_of(&[FOUNDING_TAG, &Record::Founding(self.clone()).encode()]);
        format!("{label}@{}", hexadecimal(&hash))
    }
}

/// The hash of the founding that a namespace's name ends with; `None` for a namespace without owners.
pub fn founding_hash(namespace: &str) -> Option<[u8; HASH_BYTES]> {
    let (label, hash) = namespace.rsplit_once('@')?;
    let mut bytes = [0; HASH_BYTES];
    if label.is_empty() || hash.len() != 2 * HASH_BYTES {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hash.as_bytes().chunks_exact(2)) {
        let digit = |place: usize| match digits[place] {
            digit @ b'0'..=b'9' => Some(digit - b'0'),
            digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(bytes)
}

impl Record {
    /// Who has to sign it; nobody a founding.
    pub fn issuer(&self) -> Option<&PublicKey> {
        match self {
            Record::Founding(_) => None,
            Record::Certificate { person, .. } => Some(person),
            Record::Grant(grant) => Some(&grant.issuer),
            Record::Revocation(revocation) => Some(&revocation.issuer),
            Record::Checkpoint(checkpoint) => Some(&checkpoint.issuer),
        }
    }

    /// The record's bytes without a signature.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Record::Founding(Founding { salt, owners }) => {
                out.push(FOUNDING);
                out.extend_from_slice(salt);
                write_varint(&mut out, owners.len() as u64);
                owners.iter().for_each(|owner| out.extend_from_slice(&owner.0));
            }
            Record::Certificate { person, replica } => {
                out.push(CERTIFICATE);
                out.extend_from_slice(&person.0);
                out.extend_from_slice(&replica.0);
            }
            Record::Grant(grant) => {
                out.push(GRANT);
                out.extend_from_slice(&grant.issuer.0);
                out.extend_from_slice(&grant.subject.0);
                out.push(grant.can_delegate.into());
                write_varint(&mut out, grant.expires_milliseconds.unwrap_or(0));
                write_varint(&mut out, grant.scopes.len() as u64);
                for scope in &grant.scopes {
                    write_bytes(&mut out, scope.gen_name.as_bytes());
                    write_bytes(&mut out, scope.key_prefix.as_bytes());
                }
            }
            Record::Revocation(revocation) => {
                out.push(REVOCATION);
                out.extend_from_slice(&revocation.issuer.0);
                out.extend_from_slice(&revocation.subject.0);
                revocation.last_accepted.encode(&mut out);
            }
            Record::Checkpoint(checkpoint) => {
                out.push(CHECKPOINT);
                out.extend_from_slice(&checkpoint.issuer.0);
                checkpoint.vector.encode(&mut out);
                write_varint(&mut out, checkpoint.set_aside.len() as u64);
                for (replica, ranges) in &checkpoint.set_aside {
                    out.extend_from_slice(&replica.0);
                    ranges.encode(&mut out);
                }
            }
        }
        out
    }

    fn read(reader: &mut Reader<'_>) -> std::result::Result<Record, MalformedFrame> {
        Ok(match reader.byte()? {
            FOUNDING => {
                let salt = reader.array()?;
                let mut owners: Vec<PublicKey> = Vec::new();
                for _ in 0..reader.varint_up_to(OWNERS_MAX as u64)? {
                    let owner = ReplicaKey(reader.array()?);
                    if owners.contains(&owner) {
                        return Err(MalformedFrame::NotSorted);
                    }
                    owners.push(owner);
                }
                if owners.is_empty() {
                    return Err(MalformedFrame::TooLarge);
                }
                Record::Founding(Founding { salt, owners })
            }
            CERTIFICATE => Record::Certificate {
                person: ReplicaKey(reader.array()?),
                replica: ReplicaKey(reader.array()?),
            },
            GRANT => {
                let (issuer, subject) = (ReplicaKey(reader.array()?), ReplicaKey(reader.array()?));
                let can_delegate = match reader.byte()? {
                    0 => false,
                    1 => true,
                    _ => return Err(MalformedFrame::ValueNotCanonical),
                };
                let expires = reader.varint()?;
                let mut scopes = Vec::new();
                for _ in 0..reader.varint_up_to(SCOPES_MAX as u64)? {
                    let gen_name = read_text(reader, MAX_GEN_NAME_BYTES)?;
                    let key_prefix = read_text(reader, MAX_KEY_BYTES)?;
                    scopes.push(Scope { gen_name, key_prefix });
                }
                let expires_milliseconds = (expires > 0).then_some(expires);
                Record::Grant(Grant { issuer, subject, can_delegate, expires_milliseconds, scopes })
            }
            REVOCATION => Record::Revocation(Revocation {
                issuer: ReplicaKey(reader.array()?),
                subject: ReplicaKey(reader.array()?),
                last_accepted: VersionVector::decode(reader)?,
            }),
            CHECKPOINT => Record::Checkpoint(CheckpointRecord::read(reader)?),
            _ => return Err(MalformedFrame::IndexOutOfRange),
        })
    }
}

impl CheckpointRecord {
    fn read(reader: &mut Reader<'_>) -> std::result::Result<CheckpointRecord, MalformedFrame> {
        if reader.rest().len() > CHECKPOINT_RECORD_BYTES_MAX {
            return Err(MalformedFrame::TooLarge);
        }
        let issuer = ReplicaKey(reader.array()?);
        let vector = VersionVector::decode(reader)?;
        let mut set_aside: Vec<(PublicKey, Ranges)> = Vec::new();
        for _ in 0..reader.varint_up_to(vector.replica_count() as u64)? {
            let replica = ReplicaKey(reader.array()?);
            let ranges = Ranges::decode(reader)?;
            let (first, last) = (ranges.iter().next(), ranges.iter().last());
            let is_below = first.is_some_and(|(first, _)| first > 0)
                && last.is_some_and(|(_, last)| last <= vector.get(&replica));
            if !is_below || set_aside.last().is_some_and(|(before, _)| *before >= replica) {
                return Err(MalformedFrame::NotSorted);
            }
            set_aside.push((replica, ranges));
        }
        Ok(CheckpointRecord { issuer, vector, set_aside })
    }
}

fn read_text(
    reader: &mut Reader<'_>,
    bytes_max: usize,
) -> std::result::Result<String, MalformedFrame> {
    let length = reader.varint_up_to(bytes_max as u64)?;
    let text = std::str::from_utf8(reader.take(length as usize)?);
    text.map(str::to_owned).map_err(|_| MalformedFrame::StringNotUtf8)
}

impl SignedRecord {
    /// The record of a founding, which nobody signs.
    pub fn founding(founding: Founding) -> SignedRecord {
        let record = Record::Founding(founding);
        SignedRecord { bytes: record.encode(), record }
    }

    /// Signs a record for a namespace.
    ///
    /// # Errors
    /// [`Error::NotIssuer`] where the key is not the issuer's.
    pub fn sign(
        record: Record,
        namespace: &str,
        secret_key: &SecretKeyBytes,
    ) -> Result<SignedRecord> {
        let key = SigningKey::from_bytes(secret_key);
        let own = ReplicaKey(key.verifying_key().to_bytes());
        if record.issuer() != Some(&own) {
            return Err(Error::NotIssuer { key: own });
        }
        let mut bytes = record.encode();
        let signature = key.sign(&bytes_to_sign(namespace, &bytes));
        bytes.extend_from_slice(&signature.to_bytes());
        Ok(SignedRecord { record, bytes })
    }

    /// Reads a record, which must be all there is. The signature may be anything: see
    /// [`SignedRecord::holds`].
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> std::result::Result<SignedRecord, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let record = Record::read(&mut reader)?;
        if record.issuer().is_some() {
            reader.take(SIGNATURE_BYTES)?;
        }
        match reader.is_empty() {
            true => Ok(SignedRecord { record, bytes: bytes.to_vec() }),
            false => Err(MalformedFrame::TrailingBytes),
        }
    }

    /// Whether the record is one of this namespace: its issuer has signed it, or the name is made of
    /// its hash.
    pub fn holds(&self, namespace: &str) -> bool {
        let Some(issuer) = self.record.issuer() else {
            let hash = hash_of(&[FOUNDING_TAG, &self.bytes]);
            return founding_hash(namespace) == Some(hash);
        };
        let Some((content, signature)) = self.bytes.split_last_chunk() else { return false };
        is_signature(issuer, &bytes_to_sign(namespace, content), signature)
    }

    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The record's bytes, with the signature.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What names the record.
    pub fn id(&self) -> RecordId {
        hash_of(&[&self.bytes])
    }
}

/// The key of the document that carries a record.
pub(crate) fn document_key(id: &RecordId) -> String {
    hexadecimal(id)
}

/// The one field of a record's document.
pub(crate) fn record_field() -> FieldSchema {
    FieldSchema::new("record", 1, Strategy::Immutable, ValueType::Bytes)
}

/// The record that a write to a document of [`RIGHTS_GEN`] carries: it makes the document, names it
/// after the record and writes nothing else.
pub(crate) fn carried(write: &DocumentWrite<'_>) -> Option<SignedRecord> {
    let mut cells = write.cells();
    let (id, value) = cells.next()?;
    let is_alone = cells.next().is_none();
    if write.life != 1 || !is_alone || id != CellId::new(1, Strategy::Immutable) {
        return None;
    }
    let record = SignedRecord::decode(decode_byte_string(value)?).ok()?;
    (document_key(&record.id()).as_bytes() == write.key).then_some(record)
}

fn bytes_to_sign(namespace: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::from(RECORD_TAG);
    write_bytes(&mut out, namespace.as_bytes());
    out.extend_from_slice(content);
    out
}

pub(crate) fn hash_of(parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
