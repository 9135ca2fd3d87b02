//! A link: one namespace kept in sync with the node behind a ticket.
//!
//! A link goes on until it is closed, or until something is wrong that does not pass by itself. A peer
//! that is gone, busy or behind a proxy that is being started again does pass. So may one that spoke
//! this protocol to the link before and does not now: it has been upgraded, which may be taken back, or
//! something answers in its place for a while, such as a proxy that has lost it. Dialling on costs
//! little, and a link that has ended stays so until somebody looks. That somebody learns of it all the
//! same: it goes to the log, and is said to whoever waits for the two sides to be equal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};
use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_state::Replication;

use crate::error::{Error, Result, random_bytes};
use crate::limits::{RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN};
use crate::net::channel::Channel;
use crate::net::connection::Connection;
use crate::net::dial::Dialer;
use crate::net::driver::{Driver, Progress, asked_to_leave};
use crate::net::inbox::Inbox;
use crate::net::node::Shared;
use crate::proto::{Access, Holdings, SchemaDifferences, Session};
use crate::ticket::{Ticket, short_id};

/// What a link has done, when both sides are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncReport {
    /// Changes sent since the link was opened.
    pub sent_changes: u64,
    /// Changes received since the link was opened, those that came with a checkpoint included.
    pub received_changes: u64,
    /// Bytes of messages sent, their headers included.
    pub sent_bytes: u64,
    /// Bytes of messages received, their headers included.
    pub received_bytes: u64,
    /// The fingerprint that both sides have, in hexadecimal.
    pub fingerprint: String,
    /// The changes that both sides hold.
    pub vector: VersionVector,
    /// What the two stores have defined in different ways, by [`vudo_state::Database::define`]. It keeps
    /// nothing from being synced; of a field in conflict the two sides read different things.
    pub schema_differences: SchemaDifferences,
}

/// How far a link has come since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkProgress {
    /// Whether a session with the peer is open at this moment.
    pub is_connected: bool,
    /// How many sessions there have been: more than one where the connection has dropped.
    pub session_count: u64,
    /// Changes that have been read to be sent.
    pub sent_changes: u64,
    /// Changes received that are on disk here. Those that come with a checkpoint count when all of it is
    /// there.
    pub received_changes: u64,
    /// Bytes of messages sent, their headers included, as they are handed over to the network.
    pub sent_bytes: u64,
    /// Bytes of messages received, their headers included, as they arrive; those of a large message
    /// before all of it is there.
    pub received_bytes: u64,
}

/// A namespace that is kept in sync with a peer until this is closed or dropped.
pub struct Link {
    replication: Replication,
    progress: Arc<watch::Sender<Progress>>,
    leave: watch::Sender<bool>,
    ended: watch::Receiver<Option<Error>>,
    /// What keeps the link from connecting that takes a person to mend, and may yet pass.
    hindrance: watch::Receiver<Option<Error>>,
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
        let (hinder, hindrance) = watch::channel(None);
        let (authenticated, is_authenticated) = oneshot::channel();
        let keeper = Keeper {
            shared,
            ticket,
            dialer,
            replication: replication.clone(),
            progress: progress.clone(),
            leave: leave_receiver,
            end,
            hinder,
            was_ever_authenticated: false,
        };
        let task = tokio::spawn(keeper.keep(authenticated));
        // The sender is only dropped without a word where the task ended.
        is_authenticated.await.unwrap_or(Err(Error::Closed))?;
        Ok(Link { replication, progress, leave, ended, hindrance, task })
    }

    /// Whether a session with the peer is open at this moment.
    pub fn is_connected(&self) -> bool {
        self.progress.borrow().is_authenticated
    }

    /// How far the link has come, at this moment.
    pub fn progress(&self) -> LinkProgress {
        let progress = self.progress.borrow();
        LinkProgress {
            is_connected: progress.is_authenticated,
            session_count: progress.session_count,
            sent_changes: progress.sent_changes,
            received_changes: progress.received_changes,
            sent_bytes: progress.sent_bytes,
            received_bytes: progress.received_bytes,
        }
    }

    /// Waits until both sides hold all that this store holds durably, and have told each other
    /// equal fingerprints.
    ///
    /// # Errors
    /// [`Error::Timeout`], after which waiting again is possible, or why the link ended. Where the peer
    /// speaks another version of the protocol now that is said in place of the timeout, and waiting
    /// again is possible too.
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
                Err(_) => {
                    // What is over hinders nobody.
                    let hindrance = self.hindrance.borrow().clone();
                    let hindrance = hindrance.filter(|_| !self.is_connected());
                    return Err(
                        hindrance.unwrap_or(Error::Timeout { seconds: limit.as_secs_f64() })
                    );
                }
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

/// See [`crate::Node::probe`].
pub(super) async fn probe(shared: &Arc<Shared>, ticket: &Ticket) -> Result<()> {
    // A connection that is open already would say nothing of this ticket's addresses.
    let connection = Dialer::Addresses.dial(shared, ticket).await?;
    let channel = connection.open().await?;
    // It has nothing to say of what it holds, and is not in time for what the peer holds.
    let session = Session::client(
        (shared.id, ticket.node),
        random_bytes()?,
        ticket.namespace.clone(),
        ticket.access.clone(),
        Holdings::default(),
    );
    let progress = Arc::new(watch::Sender::new(Progress::default()));
    let inbox = Inbox::of(channel.receiver, progress.clone(), shared.message_room.clone());
    let (_leave_sender, leave) = watch::channel(false);
    let mut driver = Driver::new(
        session,
        ReplicaKey(ticket.node),
        shared,
        (channel.sender, inbox),
        progress.clone(),
        leave,
    );
    driver.leave_once_let_in();
    let result = driver.run().await;
    let is_let_in = progress.borrow().is_authenticated;
    if is_let_in { Ok(()) } else { Err(result.err().unwrap_or(Error::Closed)) }
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
    hinder: watch::Sender<Option<Error>>,
    was_ever_authenticated: bool,
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
                self.was_ever_authenticated = true;
                delay = RECONNECT_DELAY_MIN;
            }
            let error = result.err().unwrap_or(Error::Closed);
            let has_left = *self.leave.borrow() || *self.shared.leave.borrow();
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
            if has_left {
                self.end.send_replace(Some(Error::Closed));
                return;
            }
            let peer = short_id(&self.ticket.node);
            if !self.may_pass(&error) {
                tracing::warn!(peer, reason = %error, "a link ended");
                self.end.send_replace(Some(error));
                return;
            }
            self.tell_hindrance(&peer, &error);
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

    /// Whether dialling again may be of use without anybody's doing.
    fn may_pass(&self, error: &Error) -> bool {
        match error {
            Error::Closed
            | Error::Unreachable { .. }
            | Error::NotReady { .. }
            | Error::NoRoom
            | Error::TooManyChannels => true,
            Error::OtherProtocol => self.was_ever_authenticated,
            _ => false,
        }
    }

    /// Says once for each time that it happens what a person should look at, though the link goes on.
    fn tell_hindrance(&self, peer: &str, error: &Error) {
        let hindrance = matches!(error, Error::OtherProtocol).then(|| error.clone());
        if hindrance.is_some() && self.hinder.borrow().is_none() {
            tracing::warn!(peer, reason = %error, "a link cannot connect any more, and goes on trying");
        }
        self.hinder.send_replace(hindrance);
    }

    /// A channel on the connection to the peer. Whoever leaves does not wait for it.
    async fn channel(&mut self) -> Result<(Arc<Connection>, Channel)> {
        let mut node_leave = self.shared.leave.subscribe();
        let dial = async || self.dialer.dial(&self.shared, &self.ticket).await;
        let reach = async {
            let connection = self.shared.pool.connection(self.ticket.node, dial).await?;
            let channel = connection.open().await?;
            Ok((connection, channel))
        };
        tokio::select! {
            reached = reach => reached,
            () = asked_to_leave(&mut self.leave) => Err(Error::Closed),
            () = asked_to_leave(&mut node_leave) => Err(Error::Closed),
        }
    }

    /// Dials and runs one session to its end.
    async fn session(&mut self, first: &mut Option<FirstResult>) -> Result<()> {
        let (connection, channel) = self.channel().await?;
        let _registered = self.shared.register(&connection, false);
        let replication = self.replication.clone();
        // Others may be using the namespace for long.
        let peer = ReplicaKey(self.ticket.node);
        let read = spawn_blocking(move || {
            let held = Holdings::of(&replication)?;
            Ok::<_, Error>((held, replication.cursor(&peer), replication.branch_count()))
        });
        let (held, cursor, branch_count) = read.await.map_err(|_| Error::Closed)??;
        let session = Session::client(
            (self.shared.id, self.ticket.node),
            random_bytes()?,
            self.ticket.namespace.clone(),
            self.ticket.access.clone(),
            held,
        )
        .with_cursor(cursor)
        .with_schema(self.shared.database.schema());
        let inbox =
            Inbox::of(channel.receiver, self.progress.clone(), self.shared.message_room.clone());
        let (leave_sender, leave) = watch::channel(false);
        let mut driver = Driver::new(
            session,
            peer,
            &self.shared,
            (channel.sender, inbox),
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
