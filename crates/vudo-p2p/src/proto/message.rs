//! The messages of a session, and their bytes.

use std::sync::Arc;

use vudo_crdt::head::{SIGNATURE_BYTES, SignedHead};
use vudo_crdt::limits::MAX_SIGNED_FRAME_BYTES;
use vudo_crdt::wire::{MalformedFrame, Reader, write_bytes, write_varint};
use vudo_crdt::{RangeSummaries, VersionVector};
use vudo_state::{
    CheckpointOffer, CheckpointPart, CursorDigest, NAMESPACE_NAME_BYTES_MAX, PartRequest, RootAt,
    SignedRecord,
};

use super::holdings::{Holdings, VectorDigest};
use super::proof::NodeId;
use super::schema::{GenFingerprint, decode_fingerprints, encode_fingerprints};
use crate::limits::{
    COMPRESSION_BYTES_MIN, COMPRESSION_FACTOR_MAX, LOG_ROOTS_MAX, PRESENCE_BYTES_MAX,
    PRESENCE_LIFE, PRESENCE_MESSAGE_BYTES_MAX, PRESENCE_ORIGINS_MAX, SHOWN_RECORDS_MAX,
    TOLD_FIELDS_BYTES_MAX,
};

/// The version of the protocol that this build speaks.
pub const PROTOCOL_VERSION: u64 = 8;

/// The name of a namespace, as a peer wrote it.
pub type Namespace = String;
/// Drawn afresh by each side of each session, so that no proof can be used twice.
pub type Nonce = [u8; 32];

/// What one side says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opens a session. The server's answer repeats the namespace and reveals nothing else.
    Hello {
        /// The sender's [`PROTOCOL_VERSION`].
        version: u64,
        /// What is to be synced.
        namespace: Namespace,
        /// The sender's part of what proofs are bound to.
        nonce: Nonce,
    },
    /// Shows that the sender holds the secret.
    Proof([u8; 32]),
    /// Shows that the sender has the key that is its id, and records that say what the key may.
    KeyProof {
        /// The signature over what the session is bound to.
        signature: [u8; SIGNATURE_BYTES],
        /// At most [`SHOWN_RECORDS_MAX`]; none from a server.
        records: Vec<SignedRecord>,
    },
    /// What the sender has defined, ascending by the hashes of names; not sent where that is nothing.
    Schema(Vec<GenFingerprint>),
    /// The bytes of a schema: the fields of Gens that the two sides have defined in different ways, each
    /// with number, name, strategy and type alone.
    Gens(Vec<u8>),
    /// What the sender holds durably as the session begins.
    Holdings(Holdings),
    /// The same, where the receiver may know most of it.
    HoldingsSince {
        /// Of what both held when they met before, or of all that the sender holds, which may be the
        /// receiver's too.
        digest: CursorDigest,
        /// What the sender holds now of the replicas of which it holds more than that.
        changed: Holdings,
    },
    /// The receiver's digest is of nothing that the sender knows: asks for all that the receiver held as
    /// the session began.
    HoldingsWanted,
    /// Changes, in the order in which the sender applied them, signed by their writers: see
    /// [`vudo_crdt::SignedFrame`].
    Frame(Vec<u8>),
    /// Acknowledges one frame, with what the sender now holds durably.
    Ack(VersionVector),
    /// The fingerprint of the sender's state at a vector.
    Fingerprint {
        /// Of the changes that the state reflects.
        vector: VectorDigest,
        /// The fingerprint.
        fingerprint: [u8; 32],
    },
    /// Where the two hold different logs of one replica, the head that it has signed for the sender's.
    Head(SignedHead),
    /// Where the two hold different logs of one replica, the roots of the sender's at some lengths.
    Roots(Vec<RootAt>),
    /// Changes of the replica from where the logs differ, signed: a frame of nobody else's.
    Branch(Vec<u8>),
    /// The receiver is further behind than the sender's log goes: the checkpoint to go on from.
    Checkpoint(Box<CheckpointOffer>),
    /// Asks for a part of what is retained below that.
    PartRequest(PartRequest),
    /// The part.
    Part(Box<CheckpointPart>),
    /// Where states differ at equal vectors, what the sender has of ranges of rows.
    Ranges(RangeSummaries),
    /// What nodes show of themselves, as far as the sender knows and the receiver was not told.
    Presence(Vec<PresenceUpdate>),
    /// The last of these has been taken: another one may come.
    PresenceTaken,
    /// The last message of a session.
    Goodbye(GoodbyeCode),
}

/// What of what a peer may owe a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Changes, in whatever form.
    Changes,
    /// An acknowledgement.
    Acknowledgement,
    /// Ranges of rows.
    Ranges,
    /// A step of finding out where two logs of one replica part.
    Dispute,
    /// Nothing that anybody waits for.
    Other,
}

impl MessageKind {
    /// The kind of the message whose bytes begin with this one.
    pub fn of_first_byte(byte: u8) -> MessageKind {
        match byte {
            FRAME | COMPRESSED_FRAME | CHECKPOINT | PART => MessageKind::Changes,
            ACK => MessageKind::Acknowledgement,
            RANGES => MessageKind::Ranges,
            HEAD | ROOTS | BRANCH => MessageKind::Dispute,
            _ => MessageKind::Other,
        }
    }
}

/// What one node shows of itself, or that it has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceUpdate {
    /// The node.
    pub origin: NodeId,
    /// Grows with everything that the node shows.
    pub clock: u64,
    /// For how many milliseconds this stands unless the node is heard of again, at most
    /// [`PRESENCE_LIFE`], and the value: at most [`PRESENCE_BYTES_MAX`]. `None` where it has gone.
    pub shown: Option<(u64, Arc<[u8]>)>,
}

impl PresenceUpdate {
    /// No less than what it takes in a message.
    pub(super) fn bytes_max(&self) -> usize {
        const HEADERS: usize = size_of::<NodeId>() + 10 + 1 + 10 + 10;
        HEADERS + self.shown.as_ref().map_or(0, |(_, value)| value.len())
    }
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GoodbyeCode {
    /// The sender is closing.
    Done = 0,
    /// The namespace is not shared, or the proof is wrong; which of the two is not told.
    Refused = 1,
    /// The receiver sent what it must not send.
    Misbehaved = 2,
    /// Equal vectors, different states.
    Diverged = 3,
    /// The sender's store failed.
    StorageFailed = 4,
    /// The sender does not speak the receiver's version of the protocol.
    OtherVersion = 5,
    /// A replica has signed two logs.
    Forked = 6,
    /// The sender's log does not go back to what the receiver holds, and no checkpoint can be given, or
    /// the sender cannot go on from the receiver's.
    Compacted = 7,
    /// The receiver's right to read has ended.
    AccessEnded = 8,
}

impl GoodbyeCode {
    const ALL: [GoodbyeCode; 9] = [
        GoodbyeCode::Done,
        GoodbyeCode::Refused,
        GoodbyeCode::Misbehaved,
        GoodbyeCode::Diverged,
        GoodbyeCode::StorageFailed,
        GoodbyeCode::OtherVersion,
        GoodbyeCode::Forked,
        GoodbyeCode::Compacted,
        GoodbyeCode::AccessEnded,
    ];
}

const HELLO: u8 = 1;
const PROOF: u8 = 2;
const HOLDINGS: u8 = 3;
const FRAME: u8 = 4;
const ACK: u8 = 5;
const FINGERPRINT: u8 = 6;
const GOODBYE: u8 = 7;
const COMPRESSED_FRAME: u8 = 8;
const HEAD: u8 = 9;
const RANGES: u8 = 10;
const KEY_PROOF: u8 = 11;
const ROOTS: u8 = 12;
const BRANCH: u8 = 13;
const CHECKPOINT: u8 = 14;
const PART_REQUEST: u8 = 15;
const PART: u8 = 16;
const SCHEMA: u8 = 17;
const GENS: u8 = 18;
const PRESENCE: u8 = 19;
const PRESENCE_TAKEN: u8 = 20;
const HOLDINGS_SINCE: u8 = 21;
const HOLDINGS_WANTED: u8 = 22;

impl Message {
    /// Appends the message's bytes: a tag and its fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Hello { version, namespace, nonce } => {
                out.push(HELLO);
                write_varint(out, *version);
                write_bytes(out, namespace.as_bytes());
                out.extend_from_slice(nonce);
            }
            Message::Proof(proof) => {
                out.push(PROOF);
                out.extend_from_slice(proof);
            }
            Message::KeyProof { signature, records } => {
                out.push(KEY_PROOF);
                out.extend_from_slice(signature);
                encode_records(records, out);
            }
            Message::Schema(gens) => {
                out.push(SCHEMA);
                encode_fingerprints(gens, out);
            }
            Message::Gens(bytes) => {
                out.push(GENS);
                write_bytes(out, bytes);
            }
            Message::Holdings(holdings) => {
                out.push(HOLDINGS);
                holdings.encode(out);
            }
            Message::HoldingsSince { digest, changed } => {
                out.push(HOLDINGS_SINCE);
                out.extend_from_slice(digest);
                changed.encode(out);
            }
            Message::HoldingsWanted => out.push(HOLDINGS_WANTED),
            Message::Head(head) => {
                out.push(HEAD);
                head.encode(out);
            }
            Message::Roots(roots) => {
                out.push(ROOTS);
                write_varint(out, roots.len() as u64);
                for (length, root) in roots {
                    write_varint(out, *length);
                    out.extend_from_slice(root);
                }
            }
            Message::Branch(bytes) => {
                out.push(BRANCH);
                write_bytes(out, bytes);
            }
            Message::Checkpoint(offer) => {
                out.push(CHECKPOINT);
                offer.encode(out);
            }
            Message::PartRequest(request) => {
                out.push(PART_REQUEST);
                request.encode(out);
            }
            Message::Part(part) => {
                out.push(PART);
                part.encode(out);
            }
            Message::Ranges(ranges) => {
                out.push(RANGES);
                ranges.encode(out);
            }
            Message::Frame(bytes) => match compress(bytes) {
                Some(compressed) => {
                    out.push(COMPRESSED_FRAME);
                    write_varint(out, bytes.len() as u64);
                    write_bytes(out, &compressed);
                }
                None => {
                    out.reserve_exact(bytes.len() + 8);
                    out.push(FRAME);
                    write_bytes(out, bytes);
                }
            },
            Message::Ack(vector) => {
                out.push(ACK);
                vector.encode(out);
            }
            Message::Fingerprint { vector, fingerprint } => {
                out.push(FINGERPRINT);
                out.extend_from_slice(vector);
                out.extend_from_slice(fingerprint);
            }
            Message::Presence(updates) => {
                out.push(PRESENCE);
                write_varint(out, updates.len() as u64);
                updates.iter().for_each(|update| encode_update(update, out));
            }
            Message::PresenceTaken => out.push(PRESENCE_TAKEN),
            Message::Goodbye(code) => out.extend([GOODBYE, *code as u8]),
        }
    }

    /// What of what a peer may owe this is.
    pub fn kind(&self) -> MessageKind {
        match self {
            Message::Frame(_) | Message::Checkpoint(_) | Message::Part(_) => MessageKind::Changes,
            Message::Ack(_) => MessageKind::Acknowledgement,
            Message::Ranges(_) => MessageKind::Ranges,
            Message::Head(_) | Message::Roots(_) | Message::Branch(_) => MessageKind::Dispute,
            _ => MessageKind::Other,
        }
    }

    /// Reads one message, which must be all there is.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Message, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let message = match reader.byte()? {
            HELLO => Message::Hello {
                version: reader.varint()?,
                namespace: read_namespace(&mut reader)?,
                nonce: reader.array()?,
            },
            PROOF => Message::Proof(reader.array()?),
            KEY_PROOF => Message::KeyProof {
                signature: reader.array()?,
                records: decode_records(&mut reader)?,
            },
            SCHEMA => Message::Schema(decode_fingerprints(&mut reader)?),
            GENS => {
                let length = reader.varint_up_to(TOLD_FIELDS_BYTES_MAX as u64)?;
                Message::Gens(reader.take(length as usize)?.to_vec())
            }
            HOLDINGS => Message::Holdings(Holdings::decode(&mut reader)?),
            HOLDINGS_SINCE => Message::HoldingsSince {
                digest: reader.array()?,
                changed: Holdings::decode(&mut reader)?,
            },
            HOLDINGS_WANTED => Message::HoldingsWanted,
            HEAD => Message::Head(SignedHead::decode(&mut reader)?),
            ROOTS => Message::Roots(read_roots(&mut reader)?),
            BRANCH => {
                let length = reader.varint_up_to(MAX_SIGNED_FRAME_BYTES as u64)?;
                Message::Branch(reader.take(length as usize)?.to_vec())
            }
            CHECKPOINT => Message::Checkpoint(Box::new(CheckpointOffer::decode(&mut reader)?)),
            PART_REQUEST => Message::PartRequest(PartRequest::decode(&mut reader)?),
            PART => Message::Part(Box::new(CheckpointPart::decode(&mut reader)?)),
            RANGES => Message::Ranges(RangeSummaries::decode(&mut reader)?),
            FRAME => {
                let length = reader.varint_up_to(MAX_SIGNED_FRAME_BYTES as u64)?;
                Message::Frame(reader.take(length as usize)?.to_vec())
            }
            COMPRESSED_FRAME => Message::Frame(read_compressed(&mut reader)?),
            ACK => Message::Ack(VersionVector::decode(&mut reader)?),
            FINGERPRINT => {
                Message::Fingerprint { vector: reader.array()?, fingerprint: reader.array()? }
            }
            PRESENCE if bytes.len() > PRESENCE_MESSAGE_BYTES_MAX => {
                return Err(MalformedFrame::TooLarge);
            }
            PRESENCE => {
                let count = reader.varint_up_to(PRESENCE_ORIGINS_MAX as u64)?;
                let updates = (0..count).map(|_| read_update(&mut reader));
                Message::Presence(updates.collect::<Result<_, _>>()?)
            }
            PRESENCE_TAKEN => Message::PresenceTaken,
            GOODBYE => Message::Goodbye(read_goodbye(&mut reader)?),
            _ => return Err(MalformedFrame::IndexOutOfRange),
        };
        reader.is_empty().then_some(message).ok_or(MalformedFrame::TrailingBytes)
    }
}

/// Appends records: a count, and each of them with its length.
pub(crate) fn encode_records(records: &[SignedRecord], out: &mut Vec<u8>) {
    write_varint(out, records.len() as u64);
    records.iter().for_each(|record| write_bytes(out, record.bytes()));
}

/// Reads what [`encode_records`] wrote.
pub(crate) fn decode_records(reader: &mut Reader<'_>) -> Result<Vec<SignedRecord>, MalformedFrame> {
    let mut records = Vec::new();
    for _ in 0..reader.varint_up_to(SHOWN_RECORDS_MAX as u64)? {
        records.push(SignedRecord::decode(reader.bytes()?)?);
    }
    Ok(records)
}

/// A frame in LZ4 blocks, where that saves an eighth of it. Compressing costs a small part of what
/// applying the frame costs (`cargo bench --bench sync_performance -- compression`).
fn compress(frame: &[u8]) -> Option<Vec<u8>> {
    if frame.len() < COMPRESSION_BYTES_MIN {
        return None;
    }
    let compressed = lz4_flex::block::compress(frame);
    (compressed.len() < frame.len() - frame.len() / 8).then_some(compressed)
}

fn read_compressed(reader: &mut Reader<'_>) -> Result<Vec<u8>, MalformedFrame> {
    let length = reader.varint_up_to(MAX_SIGNED_FRAME_BYTES as u64)? as usize;
    let compressed = reader.bytes()?;
    if length > compressed.len().saturating_mul(COMPRESSION_FACTOR_MAX) {
        return Err(MalformedFrame::TooLarge);
    }
    let frame = lz4_flex::block::decompress(compressed, length);
    frame.ok().filter(|frame| frame.len() == length).ok_or(MalformedFrame::Truncated)
}

fn read_roots(reader: &mut Reader<'_>) -> Result<Vec<RootAt>, MalformedFrame> {
    let mut roots: Vec<RootAt> = Vec::new();
    for _ in 0..reader.varint_up_to(LOG_ROOTS_MAX as u64)? {
        let length = reader.varint()?;
        if roots.last().is_some_and(|(last, _)| *last >= length) {
            return Err(MalformedFrame::NotSorted);
        }
        roots.push((length, reader.array()?));
    }
    Ok(roots)
}

fn encode_update(update: &PresenceUpdate, out: &mut Vec<u8>) {
    out.extend_from_slice(&update.origin);
    write_varint(out, update.clock);
    out.push(u8::from(update.shown.is_some()));
    if let Some((left, value)) = &update.shown {
        write_varint(out, *left);
        write_bytes(out, value);
    }
}

fn read_update(reader: &mut Reader<'_>) -> Result<PresenceUpdate, MalformedFrame> {
    let (origin, clock) = (reader.array()?, reader.varint()?);
    let mut shown = None;
    if reader.varint_up_to(1)? == 1 {
        let left = reader.varint_up_to(PRESENCE_LIFE.as_millis() as u64)?;
        let length = reader.varint_up_to(PRESENCE_BYTES_MAX as u64)?;
        shown = Some((left, reader.take(length as usize)?.into()));
    }
    Ok(PresenceUpdate { origin, clock, shown })
}

fn read_namespace(reader: &mut Reader<'_>) -> Result<Namespace, MalformedFrame> {
    let length = reader.varint_up_to(NAMESPACE_NAME_BYTES_MAX as u64)?;
    let name = reader.take(length as usize)?;
    let name = core::str::from_utf8(name).map_err(|_| MalformedFrame::StringNotUtf8)?;
    Ok(name.to_owned())
}

fn read_goodbye(reader: &mut Reader<'_>) -> Result<GoodbyeCode, MalformedFrame> {
    let code = reader.byte()?;
    let known = GoodbyeCode::ALL.into_iter().find(|known| *known as u8 == code);
    known.ok_or(MalformedFrame::IndexOutOfRange)
}
