//! A member of the committee as a process.
//!
//! ```text
//! messages, clock --> Member::handle --> writes --(one sync for all that waited)--> messages
//! ```
//!
//! **The invariant.** What a member signs is on disk before it leaves. Where the disk fails the
//! process ends, for what it holds in memory is then ahead of what it wrote.
//!
//! **Recovery.** It opens again from what it wrote, and asks for the entries that it missed.
//!
//! A member's key is its name on the network, too. TLS signs more than a hundred bytes of a text of
//! its own, a member hashes of 32 bytes, so neither can be passed off for the other.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use vudo_credit::wire::Wire;
use vudo_credit::{Effect, Event, Member, Message, Party, Writes};
use vudo_p2p::Outgoing;

use super::ledger::Ledger;
use super::online::{Links, decode};
use super::store::{Role, Store};
use crate::{Context, network};

/// How often a member sends again what may have been lost.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How soon a member notices that it is to end.
const PATIENCE: Duration = Duration::from_millis(100);

pub(crate) fn serve(
    context: &Context,
    file: &Path,
    bind: Option<SocketAddr>,
    was_moved: bool,
) -> Result<()> {
    let ledger = Ledger::read(file)?;
    let store = Store::open(context)?;
    let secret = store.owner()?;
    let place = ledger.genesis.members.iter().position(|key| *key == secret.key());
    let place = place.with_context(|| {
        let (key, path) = (secret.key(), context.store.display());
        format!("the key of {path} ({key}) is no member's of '{}'", ledger.genesis.name)
    })?;
    store.settle_role(Role::Member, &ledger)?;
    store.check_place(was_moved)?;
    let seed = secret.seed();
    let member = Member::open(ledger.genesis.clone(), secret, store.entries()?)?;
    let links = Links::open(&ledger, seed, bind.unwrap_or(ledger.addresses[place]))?;
    let address = links.addresses().first().map(SocketAddr::to_string).unwrap_or_default();
    match context.json {
        true => println!("{}", json!({ "member": place, "listening": address })),
        false => println!(
            "member {place} of '{}' listens on {address}, with {} entries, until interrupted",
            ledger.genesis.name,
            member.log().len()
        ),
    }
    std::io::stdout().flush()?;
    let mut serving = Serving { ledger, store, member, links };
    serving.run()?;
    serving.links.close();
    Ok(())
}

struct Serving {
    ledger: Ledger,
    store: Store,
    member: Member,
    links: Links,
}

/// Messages and where each goes.
type Sends = Vec<(Destination, Message)>;

enum Destination {
    Member(u8),
    /// Whoever sent what this answers.
    Asker(Outgoing),
}

impl Serving {
    fn run(&mut self) -> Result<()> {
        let interrupted = self.links.runtime().spawn(network::interrupted());
        let mut retry_at = Instant::now();
        while !interrupted.is_finished() {
            let (mut writes, mut sends) = (Writes::new(), Sends::new());
            let now = Instant::now();
            if now >= retry_at {
                retry_at = now + RETRY_INTERVAL;
                let clock = self.ledger.clock();
                self.handle(Event::Clock(clock), None, &mut writes, &mut sends);
                self.handle(Event::Retry, None, &mut writes, &mut sends);
            } else {
                for delivery in self.links.receive_until(retry_at.min(now + PATIENCE)) {
                    let Some(message) = decode(&delivery) else { continue };
                    // A stranger has no number: answers go back the way the question came.
                    let from = self.links.place_of(&delivery.from);
                    let from = from.map_or(Party::Client(0), Party::Member);
                    let event = Event::Message { from, message };
                    self.handle(event, Some(&delivery.answers), &mut writes, &mut sends);
                }
            }
            self.store.commit(writes)?;
            self.send(sends);
        }
        Ok(())
    }

    fn handle(
        &mut self,
        event: Event,
        asker: Option<&Outgoing>,
        writes: &mut Writes,
        sends: &mut Sends,
    ) {
        for effect in self.member.handle(event) {
            match effect {
                Effect::Persist(more) => writes.extend(more),
                Effect::Send { to: Party::Member(member), message } => {
                    sends.push((Destination::Member(member), message));
                }
                Effect::Send { to: Party::Client(_), message } => {
                    let asker = asker.expect("only questions of clients are answered to clients");
                    sends.push((Destination::Asker(asker.clone()), message));
                }
            }
        }
    }

    fn send(&self, sends: Sends) {
        for (destination, message) in sends {
            let bytes = message.to_bytes().into();
            match destination {
                Destination::Member(member) => self.links.send(member, bytes),
                // What does not fit is lost, and asked for again.
                Destination::Asker(asker) => {
                    asker.send(bytes);
                }
            }
        }
    }
}

pub(crate) fn status(context: &Context, file: &Path, timeout_seconds: u64) -> Result<()> {
    let ledger = Ledger::read(file)?;
    let committee = ledger.genesis.committee()?;
    let count = committee.members().len();
    let mut links = Links::anonymous(&ledger)?;
    let question = Message::Want { from: u64::MAX }.to_bytes();
    let limit = Instant::now() + Duration::from_secs(timeout_seconds);
    let mut lengths: Vec<Option<u64>> = vec![None; count];
    for member in 0..count as u8 {
        links.send(member, question.clone().into());
    }
    while lengths.iter().any(Option::is_none) && Instant::now() < limit {
        for delivery in links.receive_until(limit) {
            if let Some(member) = links.place_of(&delivery.from)
                && let Some(Message::LogLength { entries }) = decode(&delivery)
            {
                lengths[usize::from(member)] = Some(entries);
            }
        }
    }
    links.close();
    for (place, length) in lengths.iter().enumerate() {
        let (key, address) = (committee.members()[place], ledger.addresses[place]);
        let orders = place == usize::from(ledger.genesis.sequencer);
        if context.json {
            let (key, address) = (key.to_string(), address.to_string());
            let shown = json!({
                "member": place, "key": key, "address": address, "orders": orders,
                "entries": length,
            });
            println!("{shown}");
            continue;
        }
        let said = match length {
            Some(length) => format!("{length} entries"),
            None => "does not answer".to_owned(),
        };
        let orders = if orders { ", orders the log" } else { "" };
        println!("member {place}  {key:?}  {address}  {said}{orders}");
    }
    let heard = lengths.iter().flatten().count();
    let quorum = committee.quorum();
    if heard < quorum {
        bail!("{heard} of {count} members answer, and nothing is settled without {quorum}");
    }
    Ok(())
}
