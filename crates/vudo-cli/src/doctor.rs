//! `doctor`: what this machine sees, and why it does not sync.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::json;
use vudo_p2p::proto::SchemaDifferences;
use vudo_p2p::{Config, Node, Ticket};
use vudo_state::{Database, Orphans};

use crate::Context;
use crate::data::{self, hexadecimal};
use crate::network::{runtime, sync_once};

/// How long the stores behind a ticket may take to become equal.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// One thing that was looked at.
struct Finding {
    what: String,
    /// What was found, or why it failed.
    result: std::result::Result<String, String>,
    /// Whether what was found keeps nothing from working and should be seen to.
    is_warning: bool,
}

impl Finding {
    fn of(what: impl Into<String>, result: Result<String>) -> Finding {
        let result = result.map_err(|error| format!("{error:#}"));
        Finding { what: what.into(), result, is_warning: false }
    }
}

pub(crate) fn run(context: &Context, ticket: Option<&str>) -> Result<()> {
    let mut findings = Vec::new();
    match data::open(context) {
        Ok(database) => examine(context, &database, ticket, &mut findings)?,
        Err(error) => findings.push(Finding::of("store", Err(error))),
    }
    let failure_count = findings.iter().filter(|finding| finding.result.is_err()).count();
    print(context, &findings);
    match failure_count {
        0 => Ok(()),
        1 => bail!("one thing is wrong; it says what to do"),
        _ => bail!("{failure_count} things are wrong; each says what to do"),
    }
}

fn examine(
    context: &Context,
    database: &Database,
    ticket: Option<&str>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let held = |namespace: &str| -> Result<String> {
        let replication = database.replication(namespace)?;
        let (vector, fingerprint) = replication.fingerprint()?;
        let (changes, replicas) = (vector.change_count(), vector.replica_count());
        Ok(format!("{changes} changes of {replicas} replicas, state {fingerprint}"))
    };
    findings.push(Finding::of(
        "store",
        Ok(format!("{}, replica {}", context.store.display(), database.replica_key())),
    ));
    for namespace in database.namespaces()? {
        findings.push(Finding::of(format!("namespace '{namespace}'"), held(&namespace)));
        for Orphans { replica, first, changes, .. } in
            database.in_namespace(&namespace).orphans()?
        {
            let orphaned = anyhow!(
                "two stores wrote under the key {}; {changes} changes from number {first} on have no \
                 effect: open the store that wrote them and let it sync, or write them again with \
                 `vudo --namespace {namespace} adopt`",
                hexadecimal(&replica.0)
            );
            let what = format!("a replica of namespace '{namespace}'");
            findings.push(Finding::of(what, Err(orphaned)));
        }
    }
    runtime()?.block_on(async {
        let node = match Node::spawn(database, Config::default()).await {
            Ok(node) => node,
            Err(error) => {
                findings.push(Finding::of("network", Err(error.into())));
                return;
            }
        };
        findings.push(Finding::of("network", addresses(&node, database)));
        if let Some(text) = ticket {
            match text.parse::<Ticket>() {
                Ok(ticket) => try_ticket(&node, &ticket, findings).await,
                Err(error) => findings.push(Finding::of("ticket", Err(error.into()))),
            }
        }
        node.shutdown().await;
    });
    Ok(())
}

fn addresses(node: &Node, database: &Database) -> Result<String> {
    let ticket = node.share(database.namespace())?;
    let addresses: Vec<String> = ticket.addresses.iter().map(ToString::to_string).collect();
    Ok(format!(
        "UDP can be listened on; others would find this machine at {}",
        addresses.join(", ")
    ))
}

/// Tries every way apart, since one that works hides those that do not.
async fn try_ticket(node: &Node, ticket: &Ticket, findings: &mut Vec<Finding>) {
    let without = Ticket { addresses: Vec::new(), urls: Vec::new(), ..ticket.clone() };
    let quic = ticket.addresses.iter().map(|address| {
        (format!("QUIC to {address}"), Ticket { addresses: vec![*address], ..without.clone() })
    });
    let websocket = ticket.urls.iter().map(|url| {
        (format!("WebSocket to {url}"), Ticket { urls: vec![url.clone()], ..without.clone() })
    });
    for (what, ticket) in quic.chain(websocket) {
        findings.push(Finding::of(what, try_way(node, &ticket).await));
    }
    let report = sync_once(node, ticket, SYNC_LIMIT).await;
    let told = report.as_ref().map(|report| {
        format!(
            "both stores are equal: {} changes sent, {} received",
            report.sent_changes, report.received_changes
        )
    });
    let what = format!("sync of namespace '{}'", ticket.namespace);
    findings.push(Finding::of(what, told.map_err(|error| error.clone().into())));
    if let Ok(report) = report {
        compare_schemas(&report.schema_differences, findings);
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

async fn try_way(node: &Node, ticket: &Ticket) -> Result<String> {
    let start = Instant::now();
    let link = node.connect(ticket).await?;
    let milliseconds = start.elapsed().as_millis();
    link.close().await;
    Ok(format!("the node answers in {milliseconds} ms and accepts the ticket"))
}

fn print(context: &Context, findings: &[Finding]) {
    for Finding { what, result, is_warning } in findings {
        let (mark, said) = match result {
            Ok(said) if *is_warning => ("WARNING", said),
            Ok(said) => ("ok    ", said),
            Err(said) => ("FAILED", said),
        };
        let is_well = result.is_ok();
        match context.json {
            true => println!(
                "{}",
                json!({ "what": what, "ok": is_well, "warning": is_warning, "said": said })
            ),
            false => println!("{mark} {what}: {said}"),
        }
    }
}
