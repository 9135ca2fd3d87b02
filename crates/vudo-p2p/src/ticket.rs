//! Tickets: what one person gives another so that their stores sync.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};
use vudo_crdt::wire::{MalformedFrame, Reader, write_bytes, write_varint};
use vudo_state::{NAMESPACE_NAME_BYTES_MAX, SignedRecord};

use crate::error::Error;
use crate::limits::{
    RELAYS_MAX, SHOWN_RECORD_BYTES_MAX, SHOWN_RECORDS_MAX, TICKET_ADDRESSES_MAX,
    TICKET_URL_BYTES_MAX, TICKET_URLS_MAX,
};
use crate::proto::{Access, decode_records, encode_records};

/// Tells a ticket of this version from other text.
const PREFIX: &str = "vudo3";
const CHECKSUM_BYTES: usize = 4;
/// What kind of address follows.
const IP_V4: u8 = 4;
const IP_V6: u8 = 6;
const URL: u8 = 7;
const RELAY: u8 = 8;
/// Longest text: nothing longer is even decoded.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Most ways of all kinds to the node.
const WAYS_MAX: usize = TICKET_ADDRESSES_MAX + TICKET_URLS_MAX + RELAYS_MAX;
/// Most bytes of a ticket: a key, the records for another one, a name, and ways with their headers.
const BYTES_MAX: usize = 32
    + (1 + 2 + SHOWN_RECORD_BYTES_MAX)
    + (2 + NAMESPACE_NAME_BYTES_MAX)
    + (1 + TICKET_ADDRESSES_MAX * 19 + (TICKET_URLS_MAX + RELAYS_MAX) * (3 + TICKET_URL_BYTES_MAX))
    + CHECKSUM_BYTES;
/// Five bits of it are a letter.
const _: () = assert!(PREFIX.len() + (BYTES_MAX * 8).div_ceil(5) <= TEXT_BYTES_MAX);
/// How whoever has the ticket gets in.
const SECRET: u8 = 1;
const CAPABILITY: u8 = 2;

/// Where a namespace can be synced, and the right to do so.
///
/// With a secret in it, whoever has it can read; where the namespace has no owners, and write. With a
/// capability in it, it is of use to one key alone: it says what that key has been granted.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The node's id, an Ed25519 public key.
    pub node: [u8; 32],
    /// Where the node may be reached; at most [`TICKET_ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// WebSocket addresses of the node, like `ws://host:port/sync`; at most [`TICKET_URLS_MAX`].
    pub urls: Vec<String>,
    /// Relays at which the node may be found, like `https://relay.example.org/`; at most
    /// [`RELAYS_MAX`].
    pub relays: Vec<String>,
    /// What is synced.
    pub namespace: String,
    /// What whoever dials shows.
    pub access: Access,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Ticket")
            .field("node", &short_id(&self.node))
            .field("addresses", &self.addresses)
            .field("urls", &self.urls)
            .field(
                "relays",
                &self.relays.iter().map(|relay| without_query(relay)).collect::<Vec<_>>(),
            )
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Ticket {
    /// The whole ticket, secret included: the text to hand over.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.encode();
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        write!(formatter, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for Ticket {
    type Err = Error;

    fn from_str(text: &str) -> Result<Ticket, Error> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let encoded = text.strip_prefix(PREFIX).ok_or_else(|| bad("it begins otherwise"))?;
        let bytes = BASE32_NOPAD
            .decode(encoded.to_ascii_uppercase().as_bytes())
            .map_err(|_| bad("it has letters that no ticket has, or lacks some"))?;
        let (content, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| bad("it is too short"))?;
        if checksum(content) != *sum {
            return Err(bad("a letter is wrong or missing"));
        }
        Ticket::decode(content).map_err(|error| bad(&error.to_string()))
    }
}

impl Ticket {
    /// The same place for one key, with records that say what has been granted to it.
    ///
    /// # Errors
    /// [`Error::InvitationTooLarge`] where a ticket has no room for them.
    pub fn for_key(self, records: Vec<SignedRecord>) -> Result<Ticket, Error> {
        let bytes = records.iter().map(|record| record.bytes().len() + 2).sum();
        if bytes > SHOWN_RECORD_BYTES_MAX || records.len() > SHOWN_RECORDS_MAX {
            return Err(Error::InvitationTooLarge { bytes });
        }
        Ok(Ticket { access: Access::Capability(records), ..self })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.node);
        match &self.access {
            Access::Secret(secret) => {
                out.push(SECRET);
                out.extend_from_slice(secret);
            }
            Access::Capability(records) => {
                out.push(CAPABILITY);
                encode_records(records, &mut out);
            }
        }
        write_bytes(&mut out, self.namespace.as_bytes());
        let addresses = &self.addresses[..self.addresses.len().min(TICKET_ADDRESSES_MAX)];
        let urls = &self.urls[..self.urls.len().min(TICKET_URLS_MAX)];
        let relays = &self.relays[..self.relays.len().min(RELAYS_MAX)];
        write_varint(&mut out, (addresses.len() + urls.len() + relays.len()) as u64);
        for address in addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    out.push(IP_V4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(IP_V6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&address.port().to_le_bytes());
        }
        let urls = urls.iter().map(|url| (URL, url));
        for (kind, url) in urls.chain(relays.iter().map(|relay| (RELAY, relay))) {
            out.push(kind);
            write_bytes(&mut out, url.as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Ticket, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let node = reader.array()?;
        let access = match reader.byte()? {
            SECRET => Access::Secret(reader.array()?),
            CAPABILITY => Access::Capability(decode_records(&mut reader)?),
            _ => return Err(MalformedFrame::IndexOutOfRange),
        };
        let length = reader.varint_up_to(NAMESPACE_NAME_BYTES_MAX as u64)?;
        let namespace = std::str::from_utf8(reader.take(length as usize)?)
            .map_err(|_| MalformedFrame::StringNotUtf8)?
            .to_owned();
        let (mut addresses, mut urls, mut relays) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..reader.varint_up_to(WAYS_MAX as u64)? {
            match reader.byte()? {
                IP_V4 => addresses.push(read_socket(reader.array::<4>()?.into(), &mut reader)?),
                IP_V6 => addresses.push(read_socket(reader.array::<16>()?.into(), &mut reader)?),
                URL => urls.push(read_url(&mut reader)?),
                RELAY => relays.push(read_url(&mut reader)?),
                _ => return Err(MalformedFrame::IndexOutOfRange),
            }
        }
        let fits = addresses.len() <= TICKET_ADDRESSES_MAX
            && urls.len() <= TICKET_URLS_MAX
            && relays.len() <= RELAYS_MAX;
        if !fits {
            return Err(MalformedFrame::IndexOutOfRange);
        }
        let ticket = Ticket { node, addresses, urls, relays, namespace, access };
        reader.is_empty().then_some(ticket).ok_or(MalformedFrame::TrailingBytes)
    }
}

fn read_socket(ip: IpAddr, reader: &mut Reader<'_>) -> Result<SocketAddr, MalformedFrame> {
    Ok(SocketAddr::new(ip, u16::from_le_bytes(reader.array()?)))
}

fn read_url(reader: &mut Reader<'_>) -> Result<String, MalformedFrame> {
    let length = reader.varint_up_to(TICKET_URL_BYTES_MAX as u64)?;
    let url = std::str::from_utf8(reader.take(length as usize)?);
    Ok(url.map_err(|_| MalformedFrame::StringNotUtf8)?.to_owned())
}

/// The first bytes of a node's id in hexadecimal: enough to tell nodes apart in a message.
pub(crate) fn short_id(node: &[u8; 32]) -> String {
    node[..5].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The address of a relay as logs may have it: what comes behind may be a token that lets in.
pub(crate) fn without_query(relay: &str) -> &str {
    relay.split_once('?').map_or(relay, |(place, _)| place)
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::digest(content).into();
    [digest[0], digest[1], digest[2], digest[3]]
}

fn bad(what: &str) -> Error {
    Error::BadTicket { what: what.to_owned() }
}
