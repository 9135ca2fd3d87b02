//! `serve` and `sync`: what talks to other stores.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::runtime::Runtime;
use vudo_p2p::{Config, Node, SyncReport, Ticket};
use vudo_state::Database;

use crate::{Context, data, rights};

/// A namespace that nobody uses for so long leaves memory, within twice that.
const IDLE_PERIOD: Duration = Duration::from_secs(60);

pub(crate) fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().context("cannot start the network's threads")
}

pub(crate) fn serve(
    context: &Context,
    bind: SocketAddr,
    websocket: Option<SocketAddr>,
) -> Result<()> {
    let database = data::open(context)?;
    #[cfg(unix)]
    let _listening = crate::control::listen(&database, &context.store)?;
    runtime()?.block_on(async {
        let config = Config { quic: Some(bind), websocket };
        let node = Node::spawn(&database, config).await?;
        let ticket = node.share(database.namespace())?;
        rights::remember_ticket(&database, &ticket)?;
        if context.json {
            println!("{}", json!({ "ticket": ticket.to_string() }));
        } else {
            eprintln!("serving namespace '{}' until interrupted; the ticket:", ticket.namespace);
            println!("{ticket}");
        }
        std::io::stdout().flush()?;
        let idle = tokio::spawn(close_idle_namespaces(database.clone()));
        interrupted().await?;
        idle.abort();
        node.shutdown().await;
        Ok(())
    })
}

/// Has namespaces leave memory that nobody has used for a while.
async fn close_idle_namespaces(database: Database) {
    let mut minutes = tokio::time::interval(IDLE_PERIOD);
    loop {
        minutes.tick().await;
        let database = database.clone();
        // It may write to disk.
        let closed = tokio::task::spawn_blocking(move || database.close_idle_namespaces()).await;
        match closed {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(count)) => tracing::debug!("{count} idle namespaces were closed"),
            Ok(Err(error)) => tracing::error!("closing idle namespaces: {error}"),
        }
    }
}

/// Waits for whoever wants this program to end: a user's Ctrl-C, or a service manager.
#[cfg(unix)]
pub(crate) async fn interrupted() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
pub(crate) async fn interrupted() -> Result<()> {
    Ok(tokio::signal::ctrl_c().await?)
}

pub(crate) fn sync(context: &Context, ticket: &str, timeout_seconds: u64) -> Result<()> {
    let ticket: Ticket = ticket.parse()?;
    // Joining may be the first thing that a store does.
    let database = Database::open(&context.store)?;
    let start = Instant::now();
    let report = runtime()?.block_on(async {
        let node = Node::spawn(&database, Config::default()).await?;
        let report = sync_once(&node, &ticket, Duration::from_secs(timeout_seconds)).await;
        node.shutdown().await;
        report
    })?;
    let milliseconds = start.elapsed().as_millis() as u64;
    if context.json {
        println!(
            "{}",
            json!({
                "sent_changes": report.sent_changes,
                "received_changes": report.received_changes,
                "milliseconds": milliseconds,
                "fingerprint": report.fingerprint,
            })
        );
    } else {
        println!(
            "sent {} changes, received {}, in {milliseconds} ms; both stores are equal: {}",
            report.sent_changes, report.received_changes, report.fingerprint
        );
    }
    Ok(())
}

pub(crate) async fn sync_once(
    node: &Node,
    ticket: &Ticket,
    limit: Duration,
) -> vudo_p2p::Result<SyncReport> {
    let link = node.connect(ticket).await?;
    let report = link.wait_until_synced(limit).await;
    link.close().await;
    report
}
