//! The file that names a ledger: what wallets, members and auditors begin with.
//!
//! It is JSON. The genesis stands in it as it is signed over, in hexadecimal; everything of the
//! ledger follows from it. Beside it is what is true of machines only: where members listen, and how
//! clocks count ticks.

use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::{Value as Json, json};
use vudo_credit::wire::Wire;
use vudo_credit::{DEFAULT_TIERS, Genesis, Key};

use crate::Context;

/// Nothing longer is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A ledger, and how it is reached.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ledger {
    pub(crate) genesis: Genesis,
    /// Where each member listens, in the order of the genesis.
    pub(crate) addresses: Vec<SocketAddr>,
    /// When tick 0 began, in seconds since 1970.
    pub(crate) started: u64,
    pub(crate) tick_seconds: u64,
}

/// What is decided when a ledger is founded, beside its members.
pub(crate) struct Terms {
    pub(crate) operators: Vec<Key>,
    pub(crate) reserve: Key,
    pub(crate) tick_seconds: u64,
    pub(crate) settle_window_ticks: u64,
}

/// A member on the command line: `KEY=127.0.0.1:4000`.
#[derive(Clone)]
pub(crate) struct MemberPlace {
    key: Key,
    address: SocketAddr,
}

impl FromStr for MemberPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<MemberPlace, String> {
        let (key, address) =
            text.split_once('=').ok_or("write KEY=ADDRESS, as in 5c0b...=127.0.0.1:4000")?;
        let address = address.parse().map_err(|_| {
            format!("'{address}' is no address: write an IP and a port, as in 127.0.0.1:4000")
        })?;
        Ok(MemberPlace { key: parse_key(key)?, address })
    }
}

/// A key in hexadecimal, as `vudo credit key` prints it.
pub(crate) fn parse_key(text: &str) -> Result<Key, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
    let key = bytes.and_then(|bytes| bytes.try_into().ok()).map(Key);
    key.ok_or_else(|| format!("'{text}' is no key: copy the 64 letters of `vudo credit key`"))
}

pub(crate) fn found(
    context: &Context,
    name: &str,
    members: &[MemberPlace],
    terms: Terms,
) -> Result<()> {
    let is_file_name = !name.is_empty() && !name.contains(['/', '\\']);
    if !is_file_name {
        bail!("'{name}' cannot name a file: give the ledger a name without slashes");
    }
    if terms.tick_seconds == 0 {
        bail!("a tick of 0 seconds: give it at least 1");
    }
    let genesis = Genesis {
        name: name.to_owned(),
        members: members.iter().map(|member| member.key).collect(),
        sequencer: 0,
        operators: terms.operators,
        reserve: terms.reserve,
        tiers: DEFAULT_TIERS.to_vec(),
        settle_window_ticks: terms.settle_window_ticks,
    };
    genesis.check()?;
    let ledger = Ledger {
        genesis,
        addresses: members.iter().map(|member| member.address).collect(),
        started: now_seconds(),
        tick_seconds: terms.tick_seconds,
    };
    let path = format!("{name}.ledger");
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).open(&path);
    let file = file.with_context(|| format!("cannot create {path}: use another name"))?;
    serde_json::to_writer_pretty(&file, &ledger.to_json())?;
    file.sync_all()?;
    let committee = ledger.genesis.committee()?;
    let (count, faulty) = (members.len(), committee.faulty_max());
    let id = committee.network;
    match context.json {
        true => println!("{}", json!({ "file": path, "ledger": id.to_string() })),
        false => println!(
            "{path}: ledger {id}, {count} members, of which {faulty} may fail or lie; \
             give the file to everybody"
        ),
    }
    Ok(())
}

impl Ledger {
    /// Reads a ledger's file.
    pub(crate) fn read(path: &Path) -> Result<Ledger> {
        let shown = path.display();
        let length = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
        if length > FILE_BYTES_MAX {
            bail!("{shown} has {length} bytes and is no ledger: at most {FILE_BYTES_MAX} are read");
        }
        let text = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        let ledger = Ledger::from_bytes(&text);
        ledger.with_context(|| {
            format!("{shown} is no ledger's file: ask for the one that `committee found` wrote")
        })
    }

    pub(crate) fn from_bytes(text: &[u8]) -> Result<Ledger> {
        let json: Json = serde_json::from_slice(text)?;
        let genesis = json["genesis"].as_str().context("it has no genesis")?;
        let genesis = HEXLOWER_PERMISSIVE.decode(genesis.as_bytes())?;
        let genesis = Genesis::from_bytes(&genesis).context("its genesis is damaged")?;
        let addresses = json["addresses"].as_array().context("it has no addresses")?;
        let parse = |address: &Json| address.as_str()?.parse().ok();
        let addresses: Option<Vec<SocketAddr>> = addresses.iter().map(parse).collect();
        let addresses = addresses.context("one of its addresses is none")?;
        if addresses.len() != genesis.members.len() {
            bail!("it has {} addresses of {} members", addresses.len(), genesis.members.len());
        }
        let number = |name: &str| json[name].as_u64().with_context(|| format!("it has no {name}"));
        let (started, tick_seconds) = (number("started")?, number("tick_seconds")?);
        if tick_seconds == 0 {
            bail!("a tick of 0 seconds");
        }
        Ok(Ledger { genesis, addresses, started, tick_seconds })
    }

    pub(crate) fn to_json(&self) -> Json {
        json!({
            "name": self.genesis.name,
            "ledger": self.genesis.network().to_string(),
            "genesis": HEXLOWER_PERMISSIVE.encode(&self.genesis.to_bytes()),
            "addresses": self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
            "started": self.started,
            "tick_seconds": self.tick_seconds,
        })
    }

    /// The tick by this machine's clock.
    pub(crate) fn clock(&self) -> u64 {
        now_seconds().saturating_sub(self.started) / self.tick_seconds
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
