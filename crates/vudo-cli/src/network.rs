//! `serve` and `sync`: what talks to other stores.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{BinaryBytes, HumanCount, ProgressBar};
use serde_json::json;
use tokio::runtime::Runtime;
use vudo_p2p::{Config, Error, Link, LinkProgress, Node, SyncReport, Ticket};
use vudo_state::Database;

use crate::{Context, data, rights};

/// A namespace that nobody uses for so long leaves memory, within twice that.
const IDLE_PERIOD: Duration = Duration::from_secs(60);
/// How often it is looked how far a link has come.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// A session with more bytes than these does not break at the beginning: it is all that may be on its way
/// without being acknowledged.
const BREAKING_BYTES_MAX: u64 = 1 << 20;

pub(crate) fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().context("cannot start the network's threads")
}

pub(crate) fn serve(
    context: &Context,
    bind: SocketAddr,
    websocket: Option<SocketAddr>,
    relays: Vec<String>,
) -> Result<()> {
    let database = data::open(context)?;
    #[cfg(unix)]
    let _listening = crate::control::listen(&database, &context.store)?;
    runtime()?.block_on(async {
        let config = Config { quic: Some(bind), websocket, relays };
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
    let spinner = spinner(!context.json);
    let report = runtime()?.block_on(async {
        let node = Node::spawn(&database, Config::default()).await?;
        let stillness_max = Duration::from_secs(timeout_seconds);
        let report = sync_once(&node, &ticket, stillness_max, &spinner).await;
        node.shutdown().await;
        report
    });
    spinner.finish_and_clear();
    let report = report?;
    let milliseconds = start.elapsed().as_millis() as u64;
    if context.json {
        println!(
            "{}",
            json!({
                "sent_changes": report.sent_changes,
                "received_changes": report.received_changes,
                "sent_bytes": report.sent_bytes,
                "received_bytes": report.received_bytes,
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

fn spinner(is_for_people: bool) -> ProgressBar {
    if !is_for_people {
        return ProgressBar::hidden();
    }
    // Where standard error is no terminal, indicatif draws nothing.
    let spinner = ProgressBar::new_spinner();
    spinner.set_message("dialling");
    spinner
}

/// Syncs until both sides are equal, or nothing has moved for so long.
pub(crate) async fn sync_once(
    node: &Node,
    ticket: &Ticket,
    stillness_max: Duration,
    spinner: &ProgressBar,
) -> Result<SyncReport> {
    let link = node.connect(ticket).await?;
    let report = wait_while_moving(&link, stillness_max, spinner).await;
    link.close().await;
    report
}

async fn wait_while_moving(
    link: &Link,
    stillness_max: Duration,
    spinner: &ProgressBar,
) -> Result<SyncReport> {
    let mut motion = Motion::default();
    let mut moved_at = Instant::now();
    loop {
        let wait = PROGRESS_INTERVAL.min(stillness_max.saturating_sub(moved_at.elapsed()));
        match link.wait_until_synced(wait).await {
            Err(Error::Timeout { .. }) => {}
            ended => return Ok(ended?),
        }
        let progress = link.progress();
        if motion.has_moved(&progress) {
            moved_at = Instant::now();
        }
        let said = in_words(&progress);
        if moved_at.elapsed() >= stillness_max {
            bail!(
                "not in sync, and nothing has moved for {} s ({said}); what has arrived is kept, so \
                 sync again, or wait longer with --timeout-seconds",
                stillness_max.as_secs()
            );
        }
        spinner.set_message(said);
        spinner.tick();
    }
}

fn in_words(progress: &LinkProgress) -> String {
    let LinkProgress { received_changes, sent_changes, received_bytes, sent_bytes, .. } = *progress;
    let connected = if progress.is_connected { "connected" } else { "not connected" };
    format!(
        "{connected}; {} changes received, {}; {} sent, {}",
        HumanCount(received_changes),
        BinaryBytes(received_bytes),
        HumanCount(sent_changes),
        BinaryBytes(sent_bytes)
    )
}

/// Tells whether a link gets on: changes went over, or more bytes since than in the sessions before, for
/// where every session breaks at the same place the same bytes go over for ever.
#[derive(Default)]
struct Motion {
    changes: u64,
    session_count: u64,
    /// When this session began, or a change went over.
    bytes_before: u64,
    /// Most bytes of a session since a change went over.
    session_bytes_max: u64,
}

impl Motion {
    fn has_moved(&mut self, progress: &LinkProgress) -> bool {
        let changes = progress.sent_changes + progress.received_changes;
        let bytes = progress.sent_bytes + progress.received_bytes;
        let has_change = changes > self.changes;
        if has_change {
            self.session_bytes_max = 0;
        }
        if has_change || progress.session_count != self.session_count {
            self.bytes_before = bytes;
        }
        (self.changes, self.session_count) = (changes, progress.session_count);
        let session_bytes = bytes - self.bytes_before;
        let has_bytes = session_bytes > self.session_bytes_max;
        // A session that has come so far is none of those; what it was given of a checkpoint stays.
        self.session_bytes_max = self.session_bytes_max.max(session_bytes).min(BREAKING_BYTES_MAX);
        has_change || has_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(session_count: u64, received_changes: u64, received_bytes: u64) -> LinkProgress {
        LinkProgress { session_count, received_changes, received_bytes, ..LinkProgress::default() }
    }

    #[test]
    fn a_session_that_goes_on_moves_and_one_that_breaks_where_others_did_does_not() {
        let mut motion = Motion::default();
        let mut moves = |session_count, changes, bytes| {
            motion.has_moved(&progress(session_count, changes, bytes))
        };
        assert!(!moves(1, 0, 100), "a session begins");
        assert!(moves(1, 0, 200));
        assert!(!moves(1, 0, 200));
        assert!(moves(1, 1, 300) && moves(1, 1, 350));
        // Every session breaks 100 bytes behind its beginning: the first one came further than the last.
        for session_count in 2..50 {
            let before = 100 * session_count + 200;
            assert!(!moves(session_count, 1, before));
            assert_eq!(moves(session_count, 1, before + 100), session_count == 2);
        }
        assert!(!moves(50, 1, 10_000) && !moves(50, 1, 10_100));
        assert!(moves(50, 1, 10_101), "one that comes further moves");
        assert!(moves(50, 2, 20_000));
        // What goes on from a part of a checkpoint need not be as long as what came before it.
        assert!(moves(50, 2, 20_000 + 10 * BREAKING_BYTES_MAX));
        assert!(!moves(51, 2, 20_000 + 10 * BREAKING_BYTES_MAX));
        assert!(moves(51, 2, 20_001 + 11 * BREAKING_BYTES_MAX));
        assert!(moves(51, 2, 20_002 + 11 * BREAKING_BYTES_MAX));
    }
}
