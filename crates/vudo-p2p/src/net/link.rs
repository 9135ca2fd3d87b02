//! A link: one namespace kept in sync with the node behind a ticket.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};
use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_state::Replication;

use crate::error::{Error, Result, random_bytes};
use crate::limits::{RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN};
use crate::net::arrivals::Arrivals;
use crate::net::dial::Dialer;
use crate::net::driver::{Driver, Progress, asked_to_leave};
use crate::net::node::Shared;
use crate::proto::{Access, Holdings, SchemaDifferences, Session};
use crate::ticket::Ticket;

/// What a link has done, when both sides are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncReport {
    /// Changes sent since the link was opened.
    pub sent_changes: u64,
    /// Changes received since the link was opened.
    pub received_changes: u64,
    /// Bytes sent, headers of messages included.
    pub sent_bytes: u64,
    /// Bytes of frames received.
    pub received_bytes: u64,
    /// The fingerprint that both sides have, in hexadecimal.
    pub fingerprint: String,
    /// The changes that both sides hold.
    pub vector: VersionVector,
    /// What the two stores have defined in different ways, by [`vudo_state::Database::define`]. It keeps
    /// nothing from being synced; of a field in conflict the two sides read different things.
    pub schema_differences: SchemaDifferences,
}

/// A namespace that is kept in sync with a peer until this is closed or dropped.
pub struct Link {
    replication: Replication,
    progress: Arc<watch::Sender<Progress>>,
    leave: watch::Sender<bool>,
    ended: watch::Receiver<Option<Error>>,
    task: JoinHandle<()>,
}

impl Link {
    pub(super) async fn open(shared: Arc<Shared>, ticket: Ticket, dialer: Dialer) -> Result<Link> {
        let replication = shared.database.replication(&ticket.namespace)?;
        if let Access::Capability(records) = &ticket.access {
            // Whoever is dialled may not hold them, and others later.
            shared.database.in_namespace(&ticket.namespace).add_records(records.clone())?;
        }
        let progress = Arc::new(watch::Sender::new(Progress::default()));
        let (leave, leave_receiver) = watch::channel(false);
        let (end, ended) = watch::channel(None);
        let (authenticated, is_authenticated) = oneshot::channel();
        let keeper = Keeper {
            shared,
            ticket,
            dialer,
            replication: replication.clone(),
            progress: progress.clone(),
            leave: leave_receiver,
            end,
        };
        let task = tokio::spawn(keeper.keep(authenticated));
        // The sender is only dropped without a word where the task ended.
        is_authenticated.await.unwrap_or(Err(Error::Closed))?;
        Ok(Link { replication, progress, leave, ended, task })
    }

    /// Whether a session with the peer is open at this moment.
    pub fn is_connected(&self) -> bool {
        self.progress.borrow().is_authenticated
    }

    /// Waits until both sides hold all that this store holds durably, and have told each other
    /// equal fingerprints.
    ///
    /// # Errors
    /// [`Error::Timeout`], after which waiting again is possible, or why the link ended.
    pub async fn wait_until_synced(&self, limit: Duration) -> Result<SyncReport> {
        let deadline = Instant::now() + limit;
        let mut progress = self.progress.subscribe();
        let mut ended = self.ended.clone();
        loop {
            if let Some(error) = ended.borrow_and_update().clone() {
                return Err(error);
            }
            if let Some(report) = self.report(&progress.borrow_and_update()) {
                return Ok(report);
            }
            let changed = async {
                tokio::select! {
                    changed = progress.changed() => changed.is_ok(),
                    changed = ended.changed() => changed.is_ok(),
                }
            };
            match timeout_at(deadline, changed).await {
                Ok(true) => {}
                Ok(false) => {
                    let last = ended.borrow().clone();
                    return Err(last.unwrap_or(Error::Closed));
                }
                Err(_) => return Err(Error::Timeout { seconds: limit.as_secs_f64() }),
            }
        }
    }

    fn report(&self, progress: &Progress) -> Option<SyncReport> {
        let (vector, fingerprint) = progress.synced.as_ref()?;
        (*vector == self.replication.durable_vector()).then(|| SyncReport {
            sent_changes: progress.sent_changes,
            received_changes: progress.received_changes,
            sent_bytes: progress.sent_bytes,
            received_bytes: progress.received_bytes,
            fingerprint: fingerprint.to_string(),
            vector: vector.clone(),
            schema_differences: progress.schema_differences.clone(),
        })
    }

    /// Leaves the peer, telling it so.
    pub async fn close(self) {
        self.leave.send_replace(true);
        // The task ends by itself; it only fails where it panicked, which was told already.
        let _ = self.task.await;
    }
}

/// Keeps a session going.
struct Keeper {
    shared: Arc<Shared>,
    ticket: Ticket,
    dialer: Dialer,
    replication: Replication,
    progress: Arc<watch::Sender<Progress>>,
    leave: watch::Receiver<bool>,
    end: watch::Sender<Option<Error>>,
}

type FirstResult = oneshot::Sender<Result<()>>;

impl Keeper {
    async fn keep(mut self, first: FirstResult) {
        let mut first = Some(first);
        let mut delay = RECONNECT_DELAY_MIN;
        loop {
            let result = self.session(&mut first).await;
            let was_authenticated = self.progress.borrow().is_authenticated;
            self.progress.send_modify(|progress| progress.is_authenticated = false);
            if was_authenticated {
                delay = RECONNECT_DELAY_MIN;
            }
            let error = result.err().unwrap_or(Error::Closed);
            let has_left = *self.leave.borrow() || *self.shared.leave.borrow();
            let is_passing = matches!(error, Error::Closed | Error::Unreachable { .. });
            // The very first dial is the caller's to judge, who may have stopped waiting. A session that
            // has ended before anybody saw that it had begun was one all the same.
            match first.take() {
                Some(first) if was_authenticated => {
                    let _ = first.send(Ok(()));
                }
                Some(first) => {
                    let _ = first.send(Err(error.clone()));
                    self.end.send_replace(Some(error));
                    return;
                }
                None => {}
            }
            if has_left || !is_passing {
                self.end.send_replace(Some(if has_left { Error::Closed } else { error }));
                return;
            }
            tracing::debug!("the link dropped ({error}); dialling again in {delay:?}");
            let mut node_leave = self.shared.leave.subscribe();
            tokio::select! {
                () = sleep(delay) => {}
                () = asked_to_leave(&mut self.leave) => {}
                () = asked_to_leave(&mut node_leave) => {}
            }
            if *self.leave.borrow() || *node_leave.borrow() || self.leave.has_changed().is_err() {
                self.end.send_replace(Some(Error::Closed));
                return;
            }
            delay = (delay * 2).min(RECONNECT_DELAY_MAX);
        }
    }

    /// Dials and runs one session to its end.
    async fn session(&mut self, first: &mut Option<FirstResult>) -> Result<()> {
        let dial = async || self.dialer.dial(&self.shared, &self.ticket).await;
        let connection = self.shared.pool.connection(self.ticket.node, dial).await?;
        let channel = connection.open().await?;
        let _registered = self.shared.register(&connection, false);
        let replication = self.replication.clone();
        // Others may be using the namespace for long.
        let read = spawn_blocking(move || {
            Ok::<_, Error>((Holdings::of(&replication)?, replication.branch_count()))
        });
        let (held, branch_count) = read.await.map_err(|_| Error::Closed)??;
        let session = Session::client(
            (self.shared.id, self.ticket.node),
            random_bytes()?,
            self.ticket.namespace.clone(),
            self.ticket.access.clone(),
            held,
        )
        .with_schema(self.shared.database.schema());
        let shared = (self.shared.database.clone(), self.shared.presences.clone());
        let arrivals =
            Arrivals::of(channel.receiver, self.progress.clone(), self.shared.message_room.clone());
        let (leave_sender, leave) = watch::channel(false);
        let mut driver = Driver::new(
            session,
            ReplicaKey(self.ticket.node),
            shared,
            (channel.sender, arrivals),
            self.progress.clone(),
            leave,
        );
        driver.serve(self.replication.clone(), branch_count);
        let running = driver.run();
        tokio::pin!(running);
        let mut progress = self.progress.subscribe();
        let mut node_leave = self.shared.leave.subscribe();
        loop {
            tokio::select! {
                result = &mut running => return result,
                Ok(state) = progress.wait_for(|progress| progress.is_authenticated),
                    if first.is_some() =>
                {
                    drop(state);
                    if let Some(first) = first.take() {
                        // Whoever asked may have stopped waiting.
                        let _ = first.send(Ok(()));
                    }
                }
                () = asked_to_leave(&mut self.leave), if !*leave_sender.borrow() => {
                    leave_sender.send_replace(true);
                }
                () = asked_to_leave(&mut node_leave), if !*leave_sender.borrow() => {
                    leave_sender.send_replace(true);
                }
            }
        }
    }
}
