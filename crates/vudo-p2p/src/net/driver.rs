//! Carries out the effects of one session over one channel.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, OwnedMutexGuard, mpsc, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use vudo_crdt::{Applied, DifferentRows, Fingerprint, ReplicaKey, VersionVector};
use vudo_state::{
    CheckpointOffer, CheckpointPart, Cursor, Database, ListenerGuard, OutgoingFrame, Replication,
    SMALL_FRAME_BYTES_MAX, SignedRecord,
};

use crate::error::{Error, Result};
use crate::limits::{
    FINGERPRINT_PAUSE_FACTOR, GOODBYE_TIMEOUT, MESSAGE_BYTES_MAX, MESSAGE_HEADER_BYTES,
    PIECE_BYTES, REBUILD_PAUSE_FACTOR, REBUILD_PAUSE_MIN, SEND_TIMEOUT,
};
use crate::net::channel::Sender;
use crate::net::inbox::{Arrived, Inbox, Incoming, Room};
use crate::net::node::{Shared, share_secret};
use crate::net::presence::{PresenceLink, Presences};
use crate::proto::{
    CloseReason, Effect, Event, GoodbyeCode, Holdings, Message, Milliseconds, Notice,
    SchemaDifferences, Secret, Session,
};
use crate::ticket::short_id;

/// What a session has done so far, for whoever watches it.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) is_authenticated: bool,
    /// How many sessions have been.
    pub(super) session_count: u64,
    pub(super) synced: Option<(VersionVector, Fingerprint)>,
    pub(super) sent_changes: u64,
    pub(super) received_changes: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) schema_differences: SchemaDifferences,
}

/// Counts without waking whoever waits for something to happen: bytes say nothing of what is held.
pub(super) fn count(progress: &watch::Sender<Progress>, count: impl FnOnce(&mut Progress)) {
    progress.send_if_modified(|progress| {
        count(progress);
        false
    });
}

/// What the session is about, once it is known.
struct Served {
    replication: Replication,
    /// How often a log's end had been replaced when the session began.
    branch_count: u64,
    /// Says when more is durable, for as long as it is held.
    _listener: ListenerGuard,
    /// There is one once the peer has proved what it must.
    presence: Option<PresenceLink>,
}

/// What the session is told by work that was done beside it.
enum Answer {
    Event(Event),
    Share(Result<Share>),
    /// It is this session's turn to make these rows anew.
    Rebuilds(OwnedMutexGuard<Instant>, DifferentRows),
}

/// Has from when on a node may make documents anew, for whichever of its sessions it is.
pub(super) type RebuildTurns = Arc<tokio::sync::Mutex<Instant>>;

/// What there is of a namespace that a peer asks for.
struct Share {
    secret: Option<Secret>,
    held: Holdings,
    cursor: Option<Cursor>,
    /// Where it is shared, with how often a log's end had been replaced.
    replication: Option<(Replication, u64)>,
}

/// Drives one session.
pub(super) struct Driver {
    session: Session,
    /// The key of the peer's store, which is its id on the network too.
    peer: ReplicaKey,
    /// What the session's clock counts from.
    start: Instant,
    database: Database,
    presences: Arc<Presences>,
    rebuild_turns: RebuildTurns,
    served: Option<Served>,
    sender: Sender,
    inbox: Inbox,
    /// The room of each frame that waits to be applied, and of the message that is being dealt with.
    frame_rooms: VecDeque<Room>,
    room: Room,
    leave: watch::Receiver<bool>,
    /// Whether it leaves before it handles anything else, once it has been let in.
    leaves_once_let_in: bool,
    /// What the checkpoint covers that is being taken.
    taken_vector: Arc<VersionVector>,
    answers: (mpsc::UnboundedSender<Answer>, mpsc::UnboundedReceiver<Answer>),
    /// The blocking work itself. The session waits for it before it ends, so that nothing holds
    /// the store afterwards.
    tasks: JoinSet<()>,
    advanced: Arc<Notify>,
    /// When the fingerprint that the session waits for is to be read.
    fingerprint_at: Option<Instant>,
    /// No fingerprint is read before this; moved on by each reading.
    fingerprint_from: Arc<Mutex<Instant>>,
    progress: Arc<watch::Sender<Progress>>,
}

/// Ends when it says so, or when whoever could say so is gone.
pub(super) async fn asked_to_leave(leave: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which asks for the same.
    let _ = leave.wait_for(|leaves| *leaves).await;
}

/// Waits until there may be something that the peer was not told; for ever before it is known what the
/// session is about.
async fn presence_changed(served: &mut Option<Served>) {
    match served {
        Some(Served { presence: Some(presence), .. }) => presence.changed().await,
        _ => std::future::pending().await,
    }
}

impl Served {
    /// What there is to say where more is durable.
    fn advanced(&self) -> Event {
        if self.replication.branch_count() != self.branch_count {
            return Event::LogReplaced;
        }
        Event::LocalAdvanced { vector: self.replication.durable_vector() }
    }
}

impl Share {
    fn of(database: &Database, namespace: &str, peer: &ReplicaKey) -> Result<Share> {
        let secret = share_secret(database, namespace)?;
        if secret.is_none() {
            let held = Holdings::default();
            return Ok(Share { secret, held, cursor: None, replication: None });
        }
        let replication = database.replication(namespace)?;
        let held = Holdings::of(&replication)?;
        let (cursor, branch_count) = (replication.cursor(peer), replication.branch_count());
        Ok(Share { secret, held, cursor, replication: Some((replication, branch_count)) })
    }
}

impl Driver {
    pub(super) fn new(
        session: Session,
        peer: ReplicaKey,
        shared: &Shared,
        (sender, inbox): (Sender, Inbox),
        progress: Arc<watch::Sender<Progress>>,
        leave: watch::Receiver<bool>,
    ) -> Driver {
        Driver {
            session,
            peer,
            start: Instant::now(),
            database: shared.database.clone(),
            presences: shared.presences.clone(),
            rebuild_turns: shared.rebuild_turns.clone(),
            served: None,
            sender,
            inbox,
            frame_rooms: VecDeque::new(),
            room: None,
            leave,
            leaves_once_let_in: false,
            taken_vector: Arc::default(),
            answers: mpsc::unbounded_channel(),
            tasks: JoinSet::new(),
            advanced: Arc::new(Notify::new()),
            fingerprint_at: None,
            fingerprint_from: Arc::new(Mutex::new(Instant::now())),
            progress,
        }
    }

    /// Says from the start what the session is about: the side that dials knows.
    pub(super) fn serve(&mut self, replication: Replication, branch_count: u64) {
        let advanced = self.advanced.clone();
        let listener = replication.on_durable(move || advanced.notify_one());
        self.served =
            Some(Served { replication, branch_count, _listener: listener, presence: None });
    }

    /// Has the session end as soon as both sides have proved what they must.
    pub(super) fn leave_once_let_in(&mut self) {
        self.leaves_once_let_in = true;
    }

    /// Runs the session to its end. `Ok` means that one of the sides left; a lost connection is
    /// [`Error::Closed`].
    pub(super) async fn run(mut self) -> Result<()> {
        let mut leave = self.leave.clone();
        let mut event = Some(Event::Started);
        let result = loop {
            let stepped = match event {
                Some(event) => self.step(event).await,
                None => Ok(None),
            };
            match stepped {
                Ok(None) => {}
                Ok(Some(reason)) => break outcome(reason),
                Err(Error::Closed) => break self.last_word().await,
                Err(error) => break Err(error),
            }
            if self.leaves_once_let_in && self.progress.borrow().is_authenticated {
                event = Some(Event::Leave(GoodbyeCode::Done));
                continue;
            }
            let deadline = self.session.deadline().map(Duration::from_millis);
            let deadline = deadline.map(|deadline| self.start + deadline);
            event = tokio::select! {
                biased;
                () = asked_to_leave(&mut leave) => Some(Event::Leave(GoodbyeCode::Done)),
                Some(answer) = self.answers.1.recv() => match answer {
                    Answer::Event(event) => Some(event),
                    Answer::Share(Ok(share)) => Some(self.take_share(share)),
                    Answer::Share(Err(error)) => break Err(error),
                    Answer::Rebuilds(turn, different) => {
                        self.rebuild(turn, different);
                        None
                    }
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(()) => None,
                    // A panic has told what it has to say; the session cannot go on without its
                    // answer.
                    Err(_) => break Err(Error::Closed),
                },
                incoming = self.inbox.next() => match incoming {
                    Ok(Incoming::Message(arrived)) => Some(self.received(arrived)),
                    Ok(Incoming::Part(kind)) => Some(Event::Progressed(kind)),
                    Err(Error::PeerMisbehaved { what }) => {
                        self.farewell(GoodbyeCode::Misbehaved).await;
                        break Err(Error::PeerMisbehaved { what });
                    }
                    Err(Error::NoRoom) => {
                        // The peer dials again when it likes, and there may be room then.
                        self.farewell(GoodbyeCode::Done).await;
                        break Err(Error::NoRoom);
                    }
                    Err(error) => break Err(error),
                },
                () = self.advanced.notified() => self.look_at_durable(),
                () = sleep_until(deadline.unwrap_or(self.start)), if deadline.is_some() => {
                    Some(Event::TimePassed)
                }
                () = presence_changed(&mut self.served) => Some(Event::PresenceChanged),
                () = sleep_until(self.fingerprint_at.unwrap_or(self.start)),
                    if self.fingerprint_at.is_some() =>
                {
                    self.fingerprint_at = None;
                    self.read_fingerprint();
                    None
                }
            };
        };
        self.tasks.shutdown().await;
        result
    }

    /// Feeds one event. Gives why the session is over, when it is.
    async fn step(&mut self, event: Event) -> Result<Option<CloseReason>> {
        let now = self.start.elapsed().as_millis() as Milliseconds;
        for effect in self.session.handle(event, now) {
            match effect {
                Effect::Send(message @ Message::Goodbye(_)) => {
                    // A peer that has gone already misses nothing, and why is told below.
                    let _ = self.send(&message).await;
                }
                Effect::Send(message) => self.send(&message).await?,
                Effect::Close(reason) => {
                    self.finish().await;
                    return Ok(Some(reason));
                }
                Effect::Notify(Notice::Authenticated) => {
                    if let Some(served) = &mut self.served {
                        let room = self.presences.room(served.replication.namespace());
                        served.presence = Some(room.join(self.peer.0));
                    }
                    self.progress.send_modify(|progress| {
                        progress.is_authenticated = true;
                        progress.session_count += 1;
                        progress.schema_differences = SchemaDifferences::default();
                    });
                }
                Effect::Notify(Notice::SchemasDiffer(differences)) => {
                    self.log_differences(&differences);
                    self.progress.send_modify(|progress| progress.schema_differences = differences);
                }
                Effect::Notify(Notice::PeerHolds(vector)) => {
                    let peer = self.peer;
                    self.look(move |replication| replication.record_durable(peer, &vector));
                }
                Effect::Notify(Notice::Forked { heads }) => {
                    if let Some(served) = &self.served {
                        let [own, peer] = &*heads;
                        served.replication.record_fork(own, peer)?;
                    }
                }
                Effect::Notify(Notice::Repaired { documents }) => {
                    let peer = short_id(&self.peer.0);
                    tracing::warn!(
                        peer,
                        documents,
                        "a state that differed was rebuilt from the log"
                    );
                }
                Effect::Notify(Notice::Synced { vector, fingerprint }) => {
                    self.progress.send_modify(|progress| {
                        progress.synced = Some((vector, fingerprint));
                    });
                }
                Effect::Notify(Notice::Met(cursor)) => {
                    let (peer, branch_count) = (self.peer, self.branch_count());
                    self.look(move |replication| {
                        replication.remember_cursor(peer, cursor, branch_count);
                    });
                }
                Effect::ReadShare(namespace) => self.read_share(namespace),
                Effect::Sign(bytes) => self.answer(Event::Signed(self.database.sign(&bytes))),
                Effect::CheckAccess(shown) => self.check_access(shown, now),
                Effect::ReadFrame { since, bytes_max } => self.read_frame(since, bytes_max),
                Effect::Apply(frame) => self.apply(frame),
                Effect::ReadCheckpoint => self.work(|replication| {
                    let offer = replication.checkpoint_offer().map(Box::new);
                    Event::CheckpointReady(offer.filter(|offer| fits(offer)))
                }),
                Effect::ReadPart(request) => self.work(move |replication| {
                    let part = replication.checkpoint_part(&request);
                    part.map_or_else(
                        |error| failed(&error),
                        |part| Event::PartReady(part.map(Box::new)),
                    )
                }),
                Effect::TakeCheckpoint(offer) => {
                    let peer = self.peer;
                    self.taken_vector = Arc::new(offer.vector());
                    self.work(move |replication| {
                        let begun = replication.begin_catching_up(&peer, &offer);
                        begun
                            .map_or_else(|error| failed_to_catch_up(&error), Event::CheckpointTaken)
                    });
                }
                Effect::TakePart(part) => self.take_part(part),
                Effect::ReadHead { replica } => self.work(move |replication| {
                    let head = replication.latest_signed_head_of(&replica);
                    head.map_or_else(|error| failed(&error), Event::HeadReady)
                }),
                Effect::CompareLogs { peer, said } => self.work(move |replication| {
                    let compared = replication.compare_logs(&peer, &said);
                    compared.map_or_else(|error| failed(&error), Event::LogsCompared)
                }),
                Effect::ReadBranch { replica, number } => self.work(move |replication| {
                    let branch = replication.branch_from(&replica, number);
                    branch.map_or_else(|error| failed(&error), Event::BranchReady)
                }),
                Effect::ApplyBranch(branch) => self.work(move |replication| {
                    let applied = replication.apply_branch(&branch);
                    applied.map_or_else(|error| failed(&error), Event::BranchApplied)
                }),
                Effect::ReadPresence { since } => {
                    let presence = self.presence();
                    let read = presence.map(|presence| presence.updates_since(since));
                    let (updates, revision) = read.unwrap_or_default();
                    self.answer(Event::PresenceReady { updates, revision });
                }
                Effect::TakePresence(updates) => {
                    if let Some(presence) = self.presence() {
                        presence.receive(updates);
                    }
                }
                Effect::ReadFingerprint => {
                    let from =
                        *self.fingerprint_from.lock().unwrap_or_else(PoisonError::into_inner);
                    self.fingerprint_at = Some(from);
                }
                Effect::CompareRanges { said, key } => self.work(move |replication| {
                    let compared = replication.compare_ranges(said.as_ref(), &key);
                    compared.map_or_else(
                        |error| failed(&error),
                        |(answer, different)| Event::RangesCompared { answer, different },
                    )
                }),
                Effect::Rebuild(different) => {
                    let (turns, answers) = (self.rebuild_turns.clone(), self.answers.0.clone());
                    self.tasks.spawn(async move {
                        let turn = turns.lock_owned().await;
                        sleep_until(*turn).await;
                        // Nobody waits for the turn where the session has ended meanwhile.
                        let _ = answers.send(Answer::Rebuilds(turn, different));
                    });
                }
            }
        }
        Ok(None)
    }

    /// Tells a developer why one side shows what the other does not.
    fn log_differences(&self, differences: &SchemaDifferences) {
        let peer = short_id(&self.peer.0);
        for difference in &differences.gens {
            match difference.is_conflict() {
                true => tracing::warn!(peer, "{difference}"),
                false => tracing::info!(peer, "{difference}"),
            }
        }
        for gen_name in &differences.undefined_at_peer {
            tracing::debug!(peer, gen_name, "the peer has not defined a Gen");
        }
    }

    async fn send(&mut self, message: &Message) -> Result<()> {
        let mut bytes = vec![0; MESSAGE_HEADER_BYTES];
        message.encode(&mut bytes);
        let length = (bytes.len() - MESSAGE_HEADER_BYTES) as u32;
        bytes[..MESSAGE_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        let mut leave = self.leave.clone();
        let is_leaving = async move {
            asked_to_leave(&mut leave).await;
            sleep(GOODBYE_TIMEOUT).await;
        };
        let (sender, progress) = (&mut self.sender, &self.progress);
        let write = async {
            // In pieces, so that a slow link is seen to move.
            for piece in bytes.chunks(PIECE_BYTES) {
                sender.write_all(piece).await?;
                count(progress, |progress| progress.sent_bytes += piece.len() as u64);
            }
            Ok(())
        };
        let writing = timeout(SEND_TIMEOUT, write);
        tokio::pin!(writing, is_leaving);
        let written = loop {
            tokio::select! {
                biased;
                written = &mut writing => break written,
                () = &mut is_leaving => return Err(Error::Closed),
                // The peer may be sending too, and take nothing before that has been taken.
                () = self.inbox.take_in() => {}
            }
        };
        let what = "it does not read what it is sent";
        written.map_err(|_| Error::PeerMisbehaved { what: what.to_owned() })?
    }

    /// Why the peer does not take messages any more: it says so before it stops reading, and what it
    /// said may have arrived without having been handled.
    async fn last_word(&mut self) -> Result<()> {
        let find = async {
            while let Ok(incoming) = self.inbox.next().await {
                if let Incoming::Message(Arrived {
                    message: goodbye @ Message::Goodbye(_), ..
                }) = incoming
                {
                    return Some(goodbye);
                }
            }
            None
        };
        let Ok(Some(goodbye)) = timeout(GOODBYE_TIMEOUT, find).await else {
            return Err(Error::Closed);
        };
        let now = self.start.elapsed().as_millis() as Milliseconds;
        for effect in self.session.handle(Event::Received(goodbye), now) {
            if let Effect::Close(reason) = effect {
                return outcome(reason);
            }
        }
        Err(Error::Closed)
    }

    async fn farewell(&mut self, code: GoodbyeCode) {
        if self.send(&Message::Goodbye(code)).await.is_ok() {
            self.finish().await;
        }
    }

    /// Lets the last message arrive, for a moment.
    async fn finish(&mut self) {
        // A peer that does not take it in time is left all the same.
        let _ = timeout(GOODBYE_TIMEOUT, self.sender.finish()).await;
    }

    fn answer(&self, event: Event) {
        // The receiver lives as long as the driver.
        let _ = self.answers.0.send(Answer::Event(event));
    }

    /// Takes note of the room that a message takes.
    fn received(&mut self, Arrived { message, room }: Arrived) -> Event {
        // What the one before has brought has been dealt with, or work has it.
        self.room = None;
        match message {
            Message::Frame(_) => self.frame_rooms.push_back(room),
            _ => self.room = room,
        }
        Event::Received(message)
    }

    fn branch_count(&self) -> u64 {
        self.served.as_ref().map_or(0, |served| served.branch_count)
    }

    fn presence(&self) -> Option<&PresenceLink> {
        self.served.as_ref()?.presence.as_ref()
    }

    /// The namespace may have to be opened for that, which takes its time.
    fn read_share(&mut self, namespace: String) {
        let (database, answers) = (self.database.clone(), self.answers.0.clone());
        let peer = self.peer;
        self.tasks.spawn_blocking(move || {
            // Nobody waits for the answer where the session has ended meanwhile.
            let _ = answers.send(Answer::Share(Share::of(&database, &namespace, &peer)));
        });
    }

    fn take_share(&mut self, share: Share) -> Event {
        if let Some((replication, branch_count)) = share.replication {
            self.serve(replication, branch_count);
        }
        Event::ShareReady { secret: share.secret, held: share.held, cursor: share.cursor }
    }

    fn check_access(&mut self, shown: Vec<SignedRecord>, now: Milliseconds) {
        let (peer, answers) = (self.peer, self.answers.0.clone());
        self.look(move |replication| {
            let until = replication.readable_until(&peer, &shown).map(|until| match until {
                u64::MAX => Milliseconds::MAX,
                until => now.saturating_add(until.saturating_sub(replication.now_milliseconds())),
            });
            // Nobody waits for the answer where the session has ended meanwhile.
            let _ = answers.send(Answer::Event(Event::AccessChecked { until }));
        });
    }

    /// What there is to say where more is durable.
    fn look_at_durable(&mut self) -> Option<Event> {
        let served = self.served.as_ref()?;
        if served.replication.is_idle() {
            return Some(served.advanced());
        }
        self.work(|replication| Event::LocalAdvanced { vector: replication.durable_vector() });
        None
    }

    /// Looks at the namespace: on this thread where nobody else uses it, and else on one that may wait.
    fn look(&mut self, look: impl FnOnce(&Replication) + Send + 'static) {
        let Some(Served { replication, .. }) = &self.served else { return };
        if replication.is_idle() {
            return look(replication);
        }
        let replication = replication.clone();
        self.tasks.spawn_blocking(move || look(&replication));
    }

    /// Runs work that may wait for the disk, and answers with its event.
    fn work(&mut self, work: impl FnOnce(&Replication) -> Event + Send + 'static) {
        let Some(worker) = self.worker() else { return };
        let room = self.room.take();
        self.tasks.spawn_blocking(move || {
            worker.answer(work);
            drop(room);
        });
    }

    fn worker(&self) -> Option<Worker> {
        let served = self.served.as_ref()?;
        Some(Worker {
            replication: served.replication.clone(),
            branch_count: served.branch_count,
            answers: self.answers.0.clone(),
        })
    }

    fn read_frame(&mut self, since: VersionVector, bytes_max: usize) {
        let progress = self.progress.clone();
        let ready = move |frame: Option<OutgoingFrame>| {
            let changes = frame.as_ref().map_or(0, |frame| frame.changes);
            progress.send_modify(|progress| progress.sent_changes += changes);
            Event::FrameReady(frame)
        };
        let Some(served) = &self.served else { return };
        if served.replication.is_idle()
            && let Some(frame) = served.replication.frame_at_hand(&since)
        {
            return self.answer(ready(Some(frame)));
        }
        self.work(move |replication| match replication.frame_since(&since, bytes_max) {
            Ok(frame) => ready(frame),
            Err(error @ vudo_state::Error::Compacted { .. }) => {
                Event::Compacted { what: error.to_string() }
            }
            Err(error) => failed(&error),
        });
    }

    fn apply(&mut self, frame: Vec<u8>) {
        let room = self.frame_rooms.pop_front().flatten();
        let progress = self.progress.clone();
        let frame_bytes = frame.len();
        let event =
            move |replication: &Replication, applied: vudo_state::Result<Applied>| match applied {
                Ok(applied) => {
                    progress.send_modify(|progress| progress.received_changes += applied.changes);
                    Event::Applied { vector: replication.durable_vector() }
                }
                Err(error) => failed(&error),
            };
        // Messages that wait are looked at meanwhile: there may be too many of them. Waiting for the
        // disk on this thread takes a runtime that lets others take over what it does beside.
        let is_small = frame_bytes <= SMALL_FRAME_BYTES_MAX && !self.inbox.has_messages();
        let apply = move |replication: &Replication| {
            let applied = replication.apply_frame(&frame);
            drop((frame, room));
            event(replication, applied)
        };
        if !is_small || Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
            return self.work(apply);
        }
        let Some(worker) = self.worker() else { return };
        block_in_place(|| worker.answer(apply));
    }

    /// Takes a part of a checkpoint. With the last one, what the checkpoint covers beyond what was held
    /// counts as received.
    fn take_part(&mut self, part: Box<CheckpointPart>) {
        let (peer, progress) = (self.peer, self.progress.clone());
        let vector = self.taken_vector.clone();
        self.work(move |replication| {
            let is_last = part.next.is_none();
            let held = if is_last { replication.durable_vector() } else { VersionVector::new() };
            let taken = replication.take_part(&peer, &part);
            // Another session may have gone on meanwhile, and not be at its end.
            let is_held = || replication.durable_vector().covers(&vector);
            if is_last && matches!(taken, Ok(None)) && is_held() {
                let beyond = |(replica, last): (_, u64)| last.saturating_sub(held.get(&replica));
                let changes: u64 = vector.iter().map(beyond).sum();
                progress.send_modify(|progress| progress.received_changes += changes);
            }
            taken.map_or_else(|error| failed_to_catch_up(&error), Event::CheckpointTaken)
        });
    }

    fn rebuild(&mut self, mut turn: OwnedMutexGuard<Instant>, different: DifferentRows) {
        self.work(move |replication| {
            let start = Instant::now();
            let rebuilt = replication.rebuild(&different);
            let pause = (start.elapsed() * REBUILD_PAUSE_FACTOR).max(REBUILD_PAUSE_MIN);
            *turn = Instant::now() + pause;
            drop(turn);
            rebuilt.map_or_else(|error| failed(&error), |documents| Event::Rebuilt { documents })
        });
    }

    fn read_fingerprint(&mut self) {
        let from = self.fingerprint_from.clone();
        self.work(move |replication| {
            let start = Instant::now();
            let read = replication.fingerprint().and_then(|(vector, fingerprint)| {
                let cursor = Holdings::cursor_at(replication, &vector)?;
                Ok(Event::FingerprintReady { vector, fingerprint, cursor })
            });
            let pause = start.elapsed() * FINGERPRINT_PAUSE_FACTOR;
            *from.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + pause;
            read.unwrap_or_else(|error| failed(&error))
        });
    }
}

/// Does work that the store has to do for a session.
struct Worker {
    replication: Replication,
    branch_count: u64,
    answers: mpsc::UnboundedSender<Answer>,
}

impl Worker {
    /// Does some work and answers with its event.
    fn answer(&self, work: impl FnOnce(&Replication) -> Event) {
        let answer = work(&self.replication);
        let is_replaced = self.replication.branch_count() != self.branch_count;
        // Nobody waits for the answer where the session has ended meanwhile.
        let answer = if is_replaced { Event::LogReplaced } else { answer };
        let _ = self.answers.send(Answer::Event(answer));
    }
}

/// Whether a message can hold a checkpoint.
fn fits(offer: &CheckpointOffer) -> bool {
    let mut bytes = Vec::new();
    offer.encode(&mut bytes);
    bytes.len() < MESSAGE_BYTES_MAX
}

fn failed_to_catch_up(error: &vudo_state::Error) -> Event {
    match error.keeps_from_catching_up() {
        true => Event::CannotCatchUp { what: error.to_string() },
        false => failed(error),
    }
}

fn failed(error: &vudo_state::Error) -> Event {
    match error {
        vudo_state::Error::OtherLog { signed } => {
            return Event::ForkFound { replica: signed.head.replica };
        }
        vudo_state::Error::ForkBelowCheckpoint { number, .. } => {
            return Event::ForkStands { number: *number };
        }
        _ => {}
    }
    Event::ApplyFailed { is_peer_fault: error.is_peer_fault(), what: error.to_string() }
}

fn outcome(reason: CloseReason) -> Result<()> {
    match reason {
        CloseReason::Done | CloseReason::BeginAgain => Ok(()),
        CloseReason::Refused => Err(Error::WrongSecret),
        CloseReason::AccessEnded => Err(Error::AccessEnded),
        CloseReason::OtherVersion => Err(Error::OtherProtocol),
        CloseReason::HandshakeTimeout => Err(Error::late("the handshake")),
        CloseReason::PeerMisbehaved(what) => Err(Error::PeerMisbehaved { what }),
        CloseReason::PeerStorageFailed => Err(Error::PeerStorage),
        CloseReason::StorageFailed(what) => {
            let error = vudo_state::storage::StorageError::new(what);
            Err(vudo_state::Error::Storage(error).into())
        }
        CloseReason::Compacted(what) => Err(Error::Compacted { what }),
        CloseReason::PeerCompacted => Err(Error::PeerCompacted),
        CloseReason::Diverged => Err(Error::Diverged),
        CloseReason::Forked { replica, number } => Err(Error::Forked { replica, number }),
    }
}
