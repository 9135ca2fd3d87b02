//! `doctor`: what this machine sees, and why it does not sync.
//!
//! Where a process serves the store, that one looks at it, and the network is tried from a store in
//! memory under a key of its own: the store's own key is at home in the process that has it. Whoever
//! takes changes acknowledges them as durable, which a store in memory must not, so it takes none.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use indicatif::ProgressBar;
use vudo_p2p::proto::{Access, SchemaDifferences};
use vudo_p2p::{Config, Error, Node, Ticket};
use vudo_state::{Database, PublicKey, Rights};

use crate::examination::{self, Examination, Finding};
use crate::network::{runtime, sync_once};
use crate::output::date_of;
use crate::{Context, data};

/// How long nothing may move until the stores behind a ticket are equal.
const STILLNESS_MAX: Duration = Duration::from_secs(10);

/// From where the network is tried.
enum Base {
    /// The store itself.
    Store(Database),
    /// A store in memory, and the key of the one that is meant, where its process has told it.
    Throwaway(Database, Option<PublicKey>),
}

pub(crate) fn run(context: &Context, ticket: Option<&str>) -> Result<()> {
    let mut findings = Vec::new();
    let base = examine(context, &mut findings)?;
    runtime()?.block_on(try_network(&base, ticket, &mut findings));
    let failure_count = findings.iter().filter(|finding| finding.result.is_err()).count();
    print(context, &findings);
    match failure_count {
        0 => Ok(()),
        1 => bail!("one thing is wrong; it says what to do"),
        _ => bail!("{failure_count} things are wrong; each says what to do"),
    }
}

/// Looks at the store, or has the process look at it that has it open.
fn examine(context: &Context, findings: &mut Vec<Finding>) -> Result<Base> {
    let database = match data::open(context) {
        Ok(database) => database,
        Err(error) => {
            let told = ask_server(context, error);
            let key = told.as_ref().ok().map(|found| found.key);
            let store = context.store.display();
            let said = told.map(|told| {
                findings.extend(told.findings);
                format!("{store}, replica {}, in use by the process that serves it", told.key)
            });
            findings.insert(0, Finding::of("store", said));
            return Ok(Base::Throwaway(Database::open_in_memory()?, key));
        }
    };
    let said = format!("{}, replica {}", context.store.display(), database.replica_key());
    findings.push(Finding::of("store", Ok(said)));
    match examination::of(&database) {
        Ok(found) => findings.extend(found.findings),
        Err(error) => findings.push(Finding::of("what the store holds", Err(error))),
    }
    Ok(Base::Store(database))
}

/// Asks the process that has the store; gives the error where that is not why it cannot be opened.
fn ask_server(context: &Context, error: anyhow::Error) -> Result<Examination> {
    #[cfg(unix)]
    if let Some(vudo_state::Error::InUse { .. }) = error.downcast_ref() {
        let words = ["vudo", "--json", "--namespace", &context.namespace, "examine"];
        let mut answer = Vec::new();
        if crate::control::ask(context, &words.map(str::to_owned), &mut answer)? {
            return Examination::from_json(&answer);
        }
    }
    Err(error)
}

async fn try_network(base: &Base, ticket: Option<&str>, findings: &mut Vec<Finding>) {
    let (Base::Store(database) | Base::Throwaway(database, _)) = base;
    let node = match Node::spawn(database, Config::default()).await {
        Ok(node) => node,
        Err(error) => {
            findings.push(Finding::of("network", Err(error.into())));
            return;
        }
    };
    let addresses: Vec<String> = node.addresses().iter().map(ToString::to_string).collect();
    let under = match base {
        Base::Store(_) => "",
        Base::Throwaway(..) => ", tried under a throwaway key",
    };
    let said = format!(
        "UDP can be listened on; others would find this machine at {}{under}",
        addresses.join(", ")
    );
    findings.push(Finding::of("network", Ok(said)));
    if let Some(text) = ticket {
        match text.parse::<Ticket>() {
            Ok(ticket) => try_ticket(&node, base, &ticket, findings).await,
            Err(error) => findings.push(Finding::of("ticket", Err(error.into()))),
        }
    }
    node.shutdown().await;
}

/// Tries every way apart, since one that works hides those that do not.
async fn try_ticket(node: &Node, base: &Base, ticket: &Ticket, findings: &mut Vec<Finding>) {
    if let (Base::Throwaway(database, Some(key)), Access::Capability(_)) = (base, &ticket.access) {
        findings.push(Finding::of("ticket", check_capability(database, ticket, key)));
    }
    let without =
        Ticket { addresses: Vec::new(), urls: Vec::new(), relays: Vec::new(), ..ticket.clone() };
    let quic = ticket.addresses.iter().map(|address| {
        (format!("QUIC to {address}"), Ticket { addresses: vec![*address], ..without.clone() })
    });
    let websocket = ticket.urls.iter().map(|url| {
        (format!("WebSocket to {url}"), Ticket { urls: vec![url.clone()], ..without.clone() })
    });
    let relayed = ticket.relays.iter().map(|relay| {
        let what = format!("QUIC over the relay {}", place_of(relay));
        (what, Ticket { relays: vec![relay.clone()], ..without.clone() })
    });
    for (what, ticket) in quic.chain(relayed).chain(websocket) {
        findings.push(Finding::of(what, try_way(base, &ticket).await));
    }
    let what = format!("sync of namespace '{}'", ticket.namespace);
    if let Base::Throwaway(..) = base {
        let said = "not tried, for only the store itself can acknowledge what it takes: to try it, \
                    stop the process that has the store";
        findings.push(Finding::warning(what, said.to_owned()));
        return;
    }
    match sync_once(node, ticket, STILLNESS_MAX, &ProgressBar::hidden()).await {
        Ok(report) => {
            let told = format!(
                "both stores are equal: {} changes sent, {} received",
                report.sent_changes, report.received_changes
            );
            findings.push(Finding::of(what, Ok(told)));
            compare_schemas(&report.schema_differences, findings);
        }
        Err(error) => findings.push(Finding::of(what, Err(error))),
    }
}

/// An address without its query, which may hold a token.
fn place_of(url: &str) -> &str {
    url.split_once('?').map_or(url, |(place, _)| place)
}

/// What a ticket's records say of a key that cannot show them itself.
fn check_capability(database: &Database, ticket: &Ticket, key: &PublicKey) -> Result<String> {
    let Access::Capability(records) = &ticket.access else { bail!("it has no records") };
    let namespace = database.in_namespace(&ticket.namespace);
    let now = namespace.replication(&ticket.namespace)?.now_milliseconds();
    let mut rights = Rights::new(&ticket.namespace)
        .ok_or_else(|| anyhow!("'{}' has no owners who could grant anything", ticket.namespace))?;
    rights.hold(records.iter().map(|record| (record.clone(), None)));
    match rights.readable_until(key, now) {
        None => bail!(
            "by its records it is for another key than this store's, or has expired: let an owner run \
             `vudo invite {}`, and use the ticket that it prints",
            data::hexadecimal(&key.0)
        ),
        Some(u64::MAX) => Ok("its records let this store's key in".to_owned()),
        Some(until) => Ok(format!("its records let this store's key in until {}", date_of(until))),
    }
}

/// Says what the two stores have defined in different ways, which keeps nothing from being synced.
fn compare_schemas(differences: &SchemaDifferences, findings: &mut Vec<Finding>) {
    for difference in &differences.gens {
        let what = format!("Gen {}", difference.gen_name);
        let finding = Finding::of(what, Ok(difference.to_string()));
        findings.push(Finding { is_warning: difference.is_conflict(), ..finding });
    }
    if !differences.undefined_at_peer.is_empty() {
        let names = differences.undefined_at_peer.join(", ");
        let said =
            format!("the peer has not defined {names}; it keeps and passes on what it is sent");
        findings.push(Finding::of("schema", Ok(said)));
    }
}

/// Tries one way, from a node that knows no other: one that has tried another before remembers it.
async fn try_way(base: &Base, ticket: &Ticket) -> Result<String> {
    let (Base::Store(database) | Base::Throwaway(database, _)) = base;
    let node = Node::spawn(database, Config::default()).await?;
    let start = Instant::now();
    let probed = node.probe(ticket).await;
    let milliseconds = start.elapsed().as_millis();
    node.shutdown().await;
    match (probed, base, &ticket.access) {
        (Ok(()), Base::Store(_), _) => {
            Ok(format!("the node answers in {milliseconds} ms and accepts the ticket"))
        }
        (Ok(()), Base::Throwaway(..), _) => Ok(format!(
            "the node answers in {milliseconds} ms and accepts the ticket, tried under a throwaway key"
        )),
        // So it should: nobody else can use such a ticket.
        (Err(Error::WrongSecret), Base::Throwaway(..), Access::Capability(_)) => Ok(format!(
            "the node answers in {milliseconds} ms; it refuses the throwaway key under which that was \
             tried, for the ticket is for one key alone"
        )),
        (Err(error), ..) => Err(error.into()),
    }
}

fn print(context: &Context, findings: &[Finding]) {
    for finding in findings {
        let (mark, said) = match &finding.result {
            Ok(said) if finding.is_warning => ("WARNING", said),
            Ok(said) => ("ok    ", said),
            Err(said) => ("FAILED", said),
        };
        match context.json {
            true => println!("{}", finding.to_json()),
            false => println!("{mark} {}: {said}", finding.what),
        }
    }
}
