//! Whether the two sides mean the same by their Gens. Merging consults no schema, so nothing of this
//! stops a session: it tells a developer why one side shows what the other does not.
//!
//! ```text
//!   schema  <---------->  schema    a short name and a fingerprint of each Gen that is defined
//!   gens    <---------->  gens      the fields of those that both define in different ways
//! ```
//!
//! Both are sent behind the proofs, and only by a side that has defined a schema. A Gen goes by the hash
//! of its name first, so a peer of one namespace is told the fields of what it has defined as well, and of
//! what is for other namespaces that there is something.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vudo_crdt::wire::{MalformedFrame, Reader, write_varint};
use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy};

use super::message::Message;
use super::session::{CloseReason, Effect, Notice, misbehaved};
use crate::limits::{SCHEMA_GENS_MAX, TOLD_FIELDS_BYTES_MAX};

/// The first bytes of the hash of a Gen's name, and of what is declared of it.
type ShortHash = [u8; 8];

/// Keeps these hashes apart from any other.
const NAME_DOMAIN: &[u8] = b"vudo/gen name/1";
const FIELDS_DOMAIN: &[u8] = b"vudo/gen fields/1";
/// How many differences of one Gen a sentence names.
const NAMED_DIFFERENCES_MAX: usize = 8;

/// What is told of a Gen at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenFingerprint {
    /// The first bytes of the hash of its name.
    pub name: ShortHash,
    /// The first bytes of the hash of its fields: number, name, strategy and type of each, also of what
    /// they were before.
    pub fields: ShortHash,
}

/// What the schemas of two stores say differently of Gens that both define.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaDifferences {
    /// By name.
    pub gens: Vec<GenDifference>,
    /// Gens that this store defines and the peer does not, ascending. Empty where the peer defines none
    /// at all, as a sync server may.
    pub undefined_at_peer: Vec<String>,
}

/// What two schemas say differently of a Gen. It shows as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenDifference {
    /// Its name.
    pub gen_name: String,
    /// By number; empty where the peer has not told what it declares, or in a way that this version
    /// cannot read.
    pub fields: Vec<FieldDifference>,
}

/// What two schemas say differently of one number of a Gen's field, each as in `title: lww String`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDifference {
    /// The field's number.
    pub number: u32,
    /// What it is in this store's schema, where it is known there.
    pub here: Option<String>,
    /// What it is in the peer's.
    pub at_peer: Option<String>,
    /// Whether the stored values mean different things to the two sides: the strategies or the types
    /// differ. An evolution gives such a field another number.
    pub is_conflict: bool,
}

impl GenDifference {
    /// Whether some field means different things to the two sides.
    pub fn is_conflict(&self) -> bool {
        self.fields.iter().any(|field| field.is_conflict)
    }
}

impl fmt::Display for GenDifference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gen_name = self.gen_name.escape_debug();
        write!(formatter, "the schemas of the two stores differ in Gen {gen_name}")?;
        let mut separator = ": ";
        for field in self.fields.iter().take(NAMED_DIFFERENCES_MAX) {
            write!(formatter, "{separator}{field}")?;
            separator = "; ";
        }
        match self.fields.len().saturating_sub(NAMED_DIFFERENCES_MAX) {
            0 => Ok(()),
            more => write!(formatter, "; and in {more} more fields"),
        }
    }
}

impl fmt::Display for FieldDifference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "number {} is ", self.number)?;
        match (&self.here, &self.at_peer) {
            (Some(here), None) => write!(formatter, "'{here}' here and unknown to the peer"),
            (None, Some(at_peer)) => write!(formatter, "'{at_peer}' at the peer and unknown here"),
            (here, at_peer) => {
                let text = |side: &Option<String>| side.clone().unwrap_or_default();
                write!(formatter, "'{}' here and '{}' at the peer", text(here), text(at_peer))?;
                match self.is_conflict {
                    true => write!(
                        formatter,
                        ", which read different things: give one of them another number"
                    ),
                    false => write!(
                        formatter,
                        ", which is one field under two names, or two fields of one number"
                    ),
                }
            }
        }
    }
}

/// Appends what is told at first: a count, and ascending by name so many hashes of names and fields.
pub(super) fn encode_fingerprints(gens: &[GenFingerprint], out: &mut Vec<u8>) {
    write_varint(out, gens.len() as u64);
    for told in gens {
        out.extend_from_slice(&told.name);
        out.extend_from_slice(&told.fields);
    }
}

pub(super) fn decode_fingerprints(
    reader: &mut Reader<'_>,
) -> Result<Vec<GenFingerprint>, MalformedFrame> {
    let mut gens: Vec<GenFingerprint> = Vec::new();
    for _ in 0..reader.varint_up_to(SCHEMA_GENS_MAX as u64)? {
        let told = GenFingerprint { name: reader.array()?, fields: reader.array()? };
        if gens.last().is_some_and(|last| last.name >= told.name) {
            return Err(MalformedFrame::NotSorted);
        }
        gens.push(told);
    }
    Ok(gens)
}

/// One side's part of a session.
#[derive(Default)]
pub(super) struct SchemaExchange {
    schema: Arc<Schema>,
    /// What is told of the Gens that are defined here, and their places in the schema, by the hashes of
    /// their names.
    own: BTreeMap<ShortHash, (ShortHash, usize)>,
    /// What the peer's fingerprints have shown.
    found: Option<Found>,
}

struct Found {
    /// The places of the Gens of which the peer is to tell its fields.
    differing: Vec<usize>,
    undefined_at_peer: Vec<String>,
}

impl SchemaExchange {
    pub(super) fn new(schema: Arc<Schema>) -> SchemaExchange {
        SchemaExchange { schema, own: BTreeMap::new(), found: None }
    }

    /// Tells what is defined here, if anything is.
    pub(super) fn announce(&mut self, effects: &mut Vec<Effect>) {
        for (place, one) in self.schema.gens.iter().take(SCHEMA_GENS_MAX).enumerate() {
            let fields = Schema::from(vec![outline(one)]).encode();
            let name = hash(NAME_DOMAIN, one.name.as_bytes());
            self.own.insert(name, (hash(FIELDS_DOMAIN, &fields), place));
        }
        let told = |(name, (fields, _)): (&_, &_)| GenFingerprint { name: *name, fields: *fields };
        let gens: Vec<GenFingerprint> = self.own.iter().map(told).collect();
        if !gens.is_empty() {
            effects.push(Effect::Send(Message::Schema(gens)));
        }
    }

    /// The peer has told what it defines.
    pub(super) fn receive_schema(
        &mut self,
        peer: &[GenFingerprint],
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        if self.found.is_some() {
            return Err(misbehaved("its schema a second time"));
        }
        let (mut differing, mut undefined_at_peer) = (Vec::new(), Vec::new());
        for (name, (fields, place)) in std::mem::take(&mut self.own) {
            match peer.binary_search_by_key(&name, |told| told.name) {
                Ok(told) if peer[told].fields != fields => differing.push(place),
                Ok(_) => {}
                Err(_) => undefined_at_peer.push(self.schema.gens[place].name.clone()),
            }
        }
        undefined_at_peer.sort_unstable();
        if !differing.is_empty() {
            let told = differing.iter().map(|place| outline(&self.schema.gens[*place]));
            effects.push(Effect::Send(Message::Gens(encode_outlines(told.collect()))));
        } else if !undefined_at_peer.is_empty() {
            let undefined_at_peer = std::mem::take(&mut undefined_at_peer);
            let differences = SchemaDifferences { gens: Vec::new(), undefined_at_peer };
            effects.push(Effect::Notify(Notice::SchemasDiffer(differences)));
        }
        self.found = Some(Found { differing, undefined_at_peer });
        Ok(())
    }

    /// The peer has told the fields of the Gens that differ.
    pub(super) fn receive_gens(
        &mut self,
        peer: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        let Some(found) = self.found.as_mut().filter(|found| !found.differing.is_empty()) else {
            return Err(misbehaved("fields that nobody asked for"));
        };
        let differing = std::mem::take(&mut found.differing);
        let undefined_at_peer = std::mem::take(&mut found.undefined_at_peer);
        // A later version may have strategies that this one cannot read, which is no fault.
        let peer = Schema::decode(peer).unwrap_or_default();
        let difference = |place: usize| {
            let own = &self.schema.gens[place];
            let fields =
                peer.gen_named(&own.name).map(|peer| compare(&outline(own), &outline(peer)));
            GenDifference { gen_name: own.name.clone(), fields: fields.unwrap_or_default() }
        };
        let mut gens: Vec<GenDifference> = differing.into_iter().map(difference).collect();
        gens.sort_unstable_by(|one, other| one.gen_name.cmp(&other.gen_name));
        let differences = SchemaDifferences { gens, undefined_at_peer };
        effects.push(Effect::Notify(Notice::SchemasDiffer(differences)));
        Ok(())
    }
}

/// Of a Gen what the two sides have to agree on: its fields, and what they were before, by number.
fn outline(gen_schema: &GenSchema) -> GenSchema {
    let mut fields = BTreeMap::new();
    for field in gen_schema.fields.iter().flat_map(FieldSchema::lineage) {
        fields.entry(field.number).or_insert_with(|| {
            let value_type = field.value_type.clone();
            let mut told = FieldSchema::new(&field.name, field.number, field.strategy, value_type);
            told.value_strategy = field.value_strategy;
            told
        });
    }
    GenSchema::new(&gen_schema.name, fields.into_values().collect::<Vec<_>>())
}

fn hash(domain: &[u8], bytes: &[u8]) -> ShortHash {
    let digest = Sha256::new().chain_update(domain).chain_update(bytes).finalize();
    std::array::from_fn(|place| digest[place])
}

/// The bytes of as many Gens as fit into a message; of the others the peer learns that they differ.
fn encode_outlines(mut gens: Vec<GenSchema>) -> Vec<u8> {
    loop {
        let schema = Schema::from(gens);
        let bytes = schema.encode();
        if bytes.len() <= TOLD_FIELDS_BYTES_MAX {
            return bytes;
        }
        gens = schema.gens;
        gens.truncate(gens.len() / 2);
    }
}

/// What two outlines of a Gen say differently.
fn compare(here: &GenSchema, at_peer: &GenSchema) -> Vec<FieldDifference> {
    let numbers = here.fields.iter().chain(&at_peer.fields).map(|field| field.number);
    let numbers: BTreeSet<u32> = numbers.collect();
    let difference = |number| {
        let (here, at_peer) = (here.field_numbered(number), at_peer.field_numbered(number));
        let is_conflict = match (here, at_peer) {
            (Some(here), Some(at_peer)) => {
                here.strategy != at_peer.strategy
                    || here.value_type != at_peer.value_type
                    || here.value_strategy != at_peer.value_strategy
            }
            _ => false,
        };
        (here != at_peer).then(|| FieldDifference {
            number,
            here: here.map(described),
            at_peer: at_peer.map(described),
            is_conflict,
        })
    };
    numbers.into_iter().filter_map(difference).collect()
}

/// As in `title: lww String`. What peers name goes to logs, so nothing in it may end a line.
fn described(field: &FieldSchema) -> String {
    let strategy = |strategy: Strategy| match strategy {
        Strategy::LwwContent => "lww (by content)",
        other => other.name(),
    };
    let (name, value_type) = (&field.name, &field.value_type);
    let text = match field.strategy {
        Strategy::Map => {
            format!("{name}: map of {} {value_type}", strategy(field.value_strategy))
        }
        plain => format!("{name}: {} {value_type}", strategy(plain)),
    };
    text.escape_debug().to_string()
}
