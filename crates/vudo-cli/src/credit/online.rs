//! What a wallet does with the committee.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use vudo_credit::operation::Action;
use vudo_credit::wallet::Progress;
use vudo_credit::wire::Wire;
use vudo_credit::{Effect, Invoice, Key, LaneId, Message, Party, Wallet};
use vudo_p2p::{Delivery, Messenger, Outgoing};

use super::ledger::Ledger;
use super::store::{Store, random_bytes};
use super::{Online, wallet};
use crate::{Context, network};

/// How long an answer may take before the question is sent again.
const RETRY_INTERVAL: Duration = Duration::from_millis(700);
/// Most messages whose writes share a sync.
pub(crate) const SHARED_SYNC_MESSAGES_MAX: usize = 64;

/// Ways to all members of a committee.
pub(crate) struct Links {
    runtime: Runtime,
    messenger: Messenger,
    outgoing: Vec<Outgoing>,
    places: BTreeMap<[u8; 32], u8>,
}

impl Links {
    /// Links from a key that nobody knows: members need not know who asks.
    pub(crate) fn anonymous(ledger: &Ledger) -> Result<Links> {
        let is = |check: fn(&SocketAddr) -> bool| ledger.addresses.iter().all(check);
        let bind: IpAddr = match (is(|address| address.ip().is_loopback()), is(SocketAddr::is_ipv4))
        {
            (true, true) => Ipv4Addr::LOCALHOST.into(),
            (true, false) => Ipv6Addr::LOCALHOST.into(),
            (false, true) => Ipv4Addr::UNSPECIFIED.into(),
            (false, false) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Links::open(ledger, random_bytes()?, SocketAddr::new(bind, 0))
    }

    /// Links to all members, where messages of theirs and of others arrive at an address.
    pub(crate) fn open(ledger: &Ledger, secret: [u8; 32], bind: SocketAddr) -> Result<Links> {
        let runtime = network::runtime()?;
        let members = &ledger.genesis.members;
        let ids = members.iter().map(|key| key.0);
        let (messenger, outgoing) = runtime.block_on(async {
            let mut messenger = Messenger::bind(secret, bind, ids.clone()).await?;
            let places = members.iter().zip(&ledger.addresses);
            let links = places.map(|(key, address)| messenger.link(key.0, &[*address]));
            let links = links.collect::<vudo_p2p::Result<Vec<_>>>()?;
            Ok::<_, vudo_p2p::Error>((messenger, links))
        })?;
        let places = ids.zip(0..).collect();
        Ok(Links { runtime, messenger, outgoing, places })
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.messenger.addresses()
    }

    /// The place of a member.
    pub(crate) fn place_of(&self, node: &[u8; 32]) -> Option<u8> {
        self.places.get(node).copied()
    }

    pub(crate) fn send(&self, member: u8, bytes: Arc<[u8]>) {
        if let Some(outgoing) = self.outgoing.get(usize::from(member)) {
            // What does not fit is lost, as it may be on its way, and sent again later.
            outgoing.send(bytes);
        }
    }

    /// What arrives until some moment, and what else has arrived by then.
    pub(crate) fn receive_until(&mut self, moment: Instant) -> Vec<Delivery> {
        let wait = moment.saturating_duration_since(Instant::now());
        let messenger = &mut self.messenger;
        let first = self.runtime.block_on(async { timeout(wait, messenger.receive()).await.ok() });
        let mut deliveries: Vec<Delivery> = first.into_iter().collect();
        while deliveries.len() < SHARED_SYNC_MESSAGES_MAX
            && let Some(delivery) = self.messenger.try_receive()
        {
            deliveries.push(delivery);
        }
        deliveries
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn close(self) {
        self.runtime.block_on(self.messenger.close());
    }
}

/// Reads a message of a member, or says in the log who sent what is none.
pub(crate) fn decode(delivery: &Delivery) -> Option<Message> {
    let decoded = Message::from_bytes(&delivery.message);
    if let Err(error) = &decoded {
        let peer = Key(delivery.from);
        tracing::warn!(?peer, reason = %error, "a message was refused");
    }
    decoded.ok()
}

/// A wallet that talks with the committee.
struct Session {
    store: Store,
    wallet: Wallet,
    links: Links,
    progress: Vec<Progress>,
    /// Who has answered.
    heard: BTreeSet<u8>,
}

impl Session {
    fn open(context: &Context) -> Result<Session> {
        let (store, ledger) = wallet::open(context)?;
        let wallet = open_wallet(&store, &ledger)?;
        let links = Links::anonymous(&ledger)?;
        Ok(Session { store, wallet, links, progress: Vec::new(), heard: BTreeSet::new() })
    }

    /// Exchanges messages until something is done; gives whether it was, in time.
    fn run(&mut self, limit: Instant, is_done: impl Fn(&Session) -> bool) -> Result<bool> {
        let mut retry_at = Instant::now();
        while !is_done(self) {
            let now = Instant::now();
            if now >= limit {
                return Ok(false);
            }
            if now >= retry_at {
                for (member, message) in self.wallet.retry() {
                    self.links.send(member, message.to_bytes().into());
                }
                retry_at = now + RETRY_INTERVAL;
            }
            let deliveries = self.links.receive_until(retry_at.min(limit));
            self.turn(deliveries)?;
        }
        Ok(true)
    }

    /// Takes messages. Everything is on disk before anything is sent.
    fn turn(&mut self, deliveries: Vec<Delivery>) -> Result<()> {
        let (mut writes, mut sends) = (Vec::new(), Vec::new());
        for delivery in deliveries {
            let Some(member) = self.links.place_of(&delivery.from) else { continue };
            let Some(message) = decode(&delivery) else { continue };
            self.heard.insert(member);
            for effect in self.wallet.handle(member, message) {
                match effect {
                    Effect::Persist(more) => writes.extend(more),
                    Effect::Send { to, message } => sends.push((to, message)),
                }
            }
            self.progress.extend(self.wallet.take_progress());
        }
        self.store.commit(writes)?;
        for (to, message) in sends {
            if let Party::Member(member) = to {
                self.links.send(member, message.to_bytes().into());
            }
        }
        Ok(())
    }

    /// Learns all entries that the committee has.
    fn refresh(&mut self, limit: Instant) -> Result<()> {
        self.wallet.refresh();
        if self.run(limit, |session| session.wallet.is_current())? {
            return Ok(());
        }
        bail!("{}; nothing was asked of them yet", self.silence())
    }

    /// How many members there are to be heard.
    fn silence(&self) -> String {
        let committee = &self.wallet.ledger().committee;
        let (heard, count, quorum) =
            (self.heard.len(), committee.members().len(), committee.quorum());
        format!(
            "{heard} of {count} members answered in time, {quorum} are needed: check the network, \
             and with `vudo credit committee status` who is there"
        )
    }

    /// Has a request ordered, and gives the entry's index.
    fn order(&mut self, action: &Action, limit: Instant) -> Result<u64> {
        self.refresh(limit)?;
        self.wallet.request(action.clone())?;
        let is_done = |session: &Session| {
            session.progress.iter().any(|one| matches!(one, Progress::Ordered(_)))
                || !session.wallet.is_requesting()
        };
        if !self.run(limit, is_done)? {
            bail!(
                "the committee has not ordered it in time. It still may: look at \
                 `vudo credit balance --refresh` before you ask again"
            );
        }
        let ordered = self.progress.iter().find_map(|progress| match progress {
            Progress::Ordered(index) => Some(*index),
            _ => None,
        });
        match ordered {
            Some(index) => Ok(index),
            None => bail!("another device of this account was faster: try again"),
        }
    }
}

pub(crate) fn open_wallet(store: &Store, ledger: &Ledger) -> Result<Wallet> {
    let genesis = ledger.genesis.clone();
    Ok(Wallet::open(genesis, store.owner()?, store.device()?, store.entries()?)?)
}

fn deadline(online: Online) -> Instant {
    Instant::now() + Duration::from_secs(online.timeout_seconds)
}

/// Has an action ordered, and says so.
fn request(context: &Context, online: Online, action: &Action, done: &str) -> Result<()> {
    let mut session = Session::open(context)?;
    let index = session.order(action, deadline(online))?;
    match context.json {
        true => println!("{}", json!({ "entry": index })),
        false => println!("{done}, as entry {index} of the log"),
    }
    session.links.close();
    Ok(())
}

pub(crate) fn open(context: &Context, online: Online) -> Result<()> {
    request(context, online, &Action::Open, "the account is open")
}

pub(crate) fn limit(
    context: &Context,
    account: Key,
    tier: u8,
    limit: u64,
    online: Online,
) -> Result<()> {
    let action = Action::SetLimit { account, tier, limit };
    request(context, online, &action, "the limit is set")
}

pub(crate) fn pledge(context: &Context, account: Key, amount: u64, online: Online) -> Result<()> {
    request(context, online, &Action::Pledge { account, amount }, "the pledge is given")
}

pub(crate) fn revoke(context: &Context, device: Key, online: Online) -> Result<()> {
    let action = Action::RevokeDevice { device };
    let done = "the device gets no more grants; what it had reserved comes back when its lanes \
                are closed";
    request(context, online, &action, done)
}

pub(crate) fn grant(
    context: &Context,
    amount: u64,
    payee: Option<&str>,
    online: Online,
) -> Result<()> {
    let payee = match payee {
        Some(invoice) => Some(Invoice::from_text(&wallet::text(invoice)?)?.payee),
        None => None,
    };
    let mut session = Session::open(context)?;
    let limit = deadline(online);
    session.refresh(limit)?;
    let grant = session.wallet.terms(amount, payee);
    let (expires, settle_by) = (grant.expires, grant.settle_by);
    let lane = session.order(&Action::Grant(grant), limit)?;
    let spendable = session.wallet.device().spendable();
    let has_lane = session.wallet.device().lanes().contains_key(&LaneId(lane));
    assert!(has_lane, "a wallet takes the grants that are for it");
    match context.json {
        true => println!(
            "{}",
            json!({
                "lane": lane,
                "amount": amount,
                "spendable": spendable,
                "expires_tick": expires,
                "settle_by_tick": settle_by,
            })
        ),
        false => println!(
            "lane {lane}: {amount} units until tick {expires}, to be settled by tick {settle_by}; \
             {spendable} can be spent without a network"
        ),
    }
    session.links.close();
    Ok(())
}

pub(crate) fn settle(context: &Context, online: Online) -> Result<()> {
    let start = Instant::now();
    let mut session = Session::open(context)?;
    let limit = deadline(online);
    session.refresh(limit)?;
    let chains = session.wallet.open_chains(true);
    session.wallet.settle(chains);
    let heads = session.wallet.settlers().iter().flat_map(|settler| settler.heads().to_vec());
    let heads: Vec<_> = heads.collect();
    let is_final = session.run(limit, |session| session.wallet.settlers().is_empty())?;
    // Final is settled; that it shows in the log is for people who look at balances.
    let is_posted = |session: &Session| {
        heads.iter().all(|head| {
            let lane = session.wallet.ledger().lane(head.lane);
            lane.is_ok_and(|lane| lane.settled.seq >= head.seq)
        })
    };
    let is_posted = is_final && session.run(limit, is_posted)?;
    let count = |progress: fn(&Progress) -> Option<usize>| -> usize {
        session.progress.iter().filter_map(progress).sum()
    };
    let final_count = count(|progress| match progress {
        Progress::Final(heads) => Some(heads.len()),
        _ => None,
    });
    let deposited_count = count(|progress| match progress {
        Progress::Deposited(heads) => Some(heads.len()),
        _ => None,
    });
    let milliseconds = start.elapsed().as_millis() as u64;
    let lane_count = heads.len();
    match context.json {
        true => println!(
            "{}",
            json!({
                "lanes": lane_count,
                "deposited": deposited_count,
                "final": final_count,
                "posted": is_posted,
                "milliseconds": milliseconds,
            })
        ),
        false => println!(
            "{final_count} of {lane_count} lanes are final, {}, in {milliseconds} ms",
            if is_posted { "and posted" } else { "and not all of them posted yet" }
        ),
    }
    if final_count < lane_count {
        let faults = session.wallet.settlers().iter().flat_map(|settler| settler.faults());
        for (member, fault) in faults {
            let lane = fault.lane.0;
            eprintln!("member {member} does not sign for lane {lane}: {:?}", fault.reason);
        }
        bail!(
            "not everything is settled: {deposited_count} lanes are deposited, which an honest \
             payer's are settled from at the latest when they are closed; settle again. {}",
            session.silence()
        );
    }
    session.links.close();
    Ok(())
}

pub(crate) fn balance(context: &Context, refresh: Option<Online>) -> Result<()> {
    let wallet = match refresh {
        Some(online) => {
            let mut session = Session::open(context)?;
            session.refresh(deadline(online))?;
            session.links.close();
            session.wallet
        }
        None => {
            let (store, ledger) = wallet::open(context)?;
            open_wallet(&store, &ledger)?
        }
    };
    let (balance, ledger) = (wallet.balance(), wallet.ledger());
    let (entries, tick) = (ledger.next_index(), ledger.tick());
    let is_open = ledger.account(&wallet.account()).is_some();
    let free = balance.limit - (balance.reserved + balance.pledged - balance.posted);
    if context.json {
        let shown = json!({
            "account": wallet.account().to_string(),
            "device": wallet.device().key().to_string(),
            "open": is_open,
            "posted": units(balance.posted),
            "reserved": units(balance.reserved),
            "pledged": units(balance.pledged),
            "limit": units(balance.limit),
            "free": units(free),
            "spendable": balance.spendable,
            "incoming": balance.incoming,
            "entries": entries,
            "tick": tick,
        });
        println!("{shown}");
        return Ok(());
    }
    println!("account    {}", wallet.account());
    println!("device     {}", wallet.device().key());
    println!("posted     {}", balance.posted);
    println!("reserved   {}  by grants", balance.reserved);
    println!("pledged    {}  for others", balance.pledged);
    println!("limit      {}", balance.limit);
    println!("free       {free}");
    println!("spendable  {}  by this device, without a network", balance.spendable);
    println!("incoming   {}  received and not settled", balance.incoming);
    println!("as of entry {entries} of the log, tick {tick}");
    if !is_open {
        println!("the account is not open, as far as this wallet knows: `vudo credit open`");
    }
    Ok(())
}

/// A number of units as JSON; one that JSON readers may round is text.
fn units(number: i128) -> serde_json::Value {
    crate::output::value_to_json(&vudo_crdt::Value::Int(number))
}
