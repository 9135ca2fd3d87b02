//! What follows the handshake: frames, acknowledgements and fingerprints. Both sides do the same.

use std::collections::VecDeque;

use vudo_crdt::{Fingerprint, ReplicaKey, SignedFrame, VersionVector};
use vudo_state::{Cursor, CursorDigest};

use super::catch_up::CatchUp;
use super::dispute::Dispute;
use super::holdings::{Holdings, VectorDigest, vector_digest};
use super::message::{Message, MessageKind};
use super::repair::Repair;
use super::session::{CloseReason, Effect, Event, Milliseconds, Notice, misbehaved};
use crate::limits::{
    FRAME_BYTES, FRAME_CONTENT_BYTES_MAX, PROGRESS_TIMEOUT, UNACKNOWLEDGED_BYTES_MAX,
    UNACKNOWLEDGED_FRAMES_MAX, WHOLE_HOLDINGS_REPLICAS_MAX,
};

/// The state of this side at a vector.
struct StateAt {
    vector: VersionVector,
    digest: VectorDigest,
    fingerprint: Fingerprint,
    /// What to remember where the peer has the same.
    cursor: Option<Cursor>,
}

/// Where the two sides are.
pub(super) struct Exchange {
    namespace: String,
    is_client: bool,
    /// What was durable here as the session began.
    held: Holdings,
    digest: CursorDigest,
    /// What both sides held when they last met.
    cursor: Option<Cursor>,
    /// Whether the peer was told of what is held by a digest alone, and may ask for the whole.
    may_be_asked: bool,
    /// Whether the session has begun and the peer has yet to say what it holds.
    awaits_holdings: bool,
    owes_holdings_since: Option<Milliseconds>,
    /// Set where the sides hold different logs of one replica, and nothing else is of interest then.
    dispute: Option<Dispute>,
    /// What is durable here.
    own: VersionVector,
    /// What was durable at the peer as the session began.
    peer_held: VersionVector,
    /// What is known to be durable at the peer.
    peer_durable: VersionVector,
    /// What the peer holds or will hold once it has applied what is on its way: nothing that this
    /// covers is sent, so nothing is echoed.
    peer_known: VersionVector,
    /// What the peer was told as the session began, and what it has sent since: it has no reason to
    /// send any of this (again).
    needless: VersionVector,
    /// What the peer was told as the session began and with acknowledgements since.
    told: VersionVector,
    /// The bytes of each frame that the peer has not acknowledged, oldest first.
    unacknowledged: VecDeque<usize>,
    /// Since when the peer has owed changes, or acknowledgements, and sent none.
    owes_changes_since: Option<Milliseconds>,
    owes_acknowledgement_since: Option<Milliseconds>,
    is_reading_frame: bool,
    /// Frames that wait for those before them.
    incoming: VecDeque<Vec<u8>>,
    /// The bytes of the frame that is being applied.
    applying_bytes: Option<usize>,
    /// Whether a vector has changed since the fingerprint was last asked for.
    is_fingerprint_due: bool,
    is_reading_fingerprint: bool,
    own_state: Option<StateAt>,
    peer_state: Option<(VectorDigest, Fingerprint)>,
    catch_up: CatchUp,
    repair: Repair,
    owes_ranges_since: Option<Milliseconds>,
}

impl Exchange {
    pub(super) fn new(held: Holdings, cursor: Option<Cursor>) -> Exchange {
        Exchange {
            namespace: String::new(),
            is_client: false,
            own: held.vector.clone(),
            digest: held.digest(),
            held,
            cursor,
            may_be_asked: false,
            awaits_holdings: false,
            owes_holdings_since: None,
            dispute: None,
            peer_held: VersionVector::new(),
            peer_durable: VersionVector::new(),
            peer_known: VersionVector::new(),
            needless: VersionVector::new(),
            told: VersionVector::new(),
            unacknowledged: VecDeque::new(),
            owes_changes_since: None,
            owes_acknowledgement_since: None,
            is_reading_frame: false,
            incoming: VecDeque::new(),
            applying_bytes: None,
            is_fingerprint_due: true,
            is_reading_fingerprint: false,
            own_state: None,
            peer_state: None,
            catch_up: CatchUp::default(),
            // The handshake puts another one in its place.
            repair: Repair::new(false, [0; 32]),
            owes_ranges_since: None,
        }
    }

    /// How states that differ are to be repaired.
    pub(super) fn repair_with(&mut self, is_client: bool, repair: Repair) {
        (self.is_client, self.repair) = (is_client, repair);
    }

    /// Begins from what both sides held when they last met.
    pub(super) fn begin_from(&mut self, cursor: Option<Cursor>) {
        self.cursor = cursor;
    }

    /// What to tell the peer as the session begins.
    pub(super) fn announce(&mut self) -> Message {
        self.needless = self.held.vector.clone();
        self.told = self.held.vector.clone();
        self.may_be_asked = self.held.vector.replica_count() > WHOLE_HOLDINGS_REPLICAS_MAX;
        match &self.cursor {
            _ if !self.may_be_asked => Message::Holdings(self.held.clone()),
            Some(Cursor { digest, vector }) => {
                Message::HoldingsSince { digest: *digest, changed: self.held.since(vector) }
            }
            // Two that have not met may hold the same by way of others.
            None => Message::HoldingsSince { digest: self.digest, changed: Holdings::default() },
        }
    }

    /// What a peer holds that tells of it by a digest; `None` where that is of nothing that is known here.
    pub(super) fn holdings_since(
        &self,
        digest: &CursorDigest,
        changed: Holdings,
    ) -> Result<Option<Holdings>, CloseReason> {
        let cursor = self.cursor.as_ref().filter(|cursor| cursor.digest == *digest);
        let before = match cursor {
            _ if *digest == self.digest => &self.held.vector,
            Some(cursor) => &*cursor.vector,
            None => return Ok(None),
        };
        let holdings = changed.on_top_of(before);
        holdings.map(Some).ok_or_else(|| misbehaved("more replicas than a vector can name"))
    }

    pub(super) fn advance_own(&mut self, vector: &VersionVector) {
        if !self.own.covers(vector) {
            self.own.join(vector);
            self.is_fingerprint_due = true;
        }
    }

    fn advance_peer(&mut self, vector: &VersionVector, effects: &mut Vec<Effect>) {
        if !self.peer_durable.covers(vector) {
            self.peer_durable.join(vector);
            self.is_fingerprint_due = true;
            effects.push(Effect::Notify(Notice::PeerHolds(self.peer_durable.clone())));
        }
        self.peer_known.join(vector);
    }

    /// What is held here and the peer has not been told of: what it knows need not be said with every
    /// frame, of many replicas.
    fn untold(&mut self) -> VersionVector {
        let has_waiting = cfg!(vudo_mutation = "waiting_frames_acknowledged");
        let held = if has_waiting { &self.needless } else { &self.own };
        let mut untold = VersionVector::new();
        for (replica, number) in held.iter() {
            if number > self.told.get(&replica) {
                untold.advance(replica, number);
            }
        }
        self.told.join(&untold);
        untold
    }

    /// Opens with what the peer holds, or asks for it: what it sends until it has answered is taken, and
    /// nothing is sent to it.
    pub(super) fn open(
        &mut self,
        namespace: &str,
        peer: Option<Holdings>,
        now: Milliseconds,
        effects: &mut Vec<Effect>,
    ) {
        self.namespace = namespace.to_owned();
        match peer {
            Some(peer) => self.begin(&peer, effects),
            None => {
                self.awaits_holdings = true;
                effects.push(Effect::Send(Message::HoldingsWanted));
            }
        }
        self.proceed(effects);
        self.watch(now);
    }

    /// Begins with what the peer held as the session began.
    fn begin(&mut self, peer: &Holdings, effects: &mut Vec<Effect>) {
        self.awaits_holdings = false;
        self.peer_held = peer.vector.clone();
        match self.held.first_difference(peer) {
            Some(replica) => self.dispute_about(replica, effects),
            None => self.advance_peer(&peer.vector, effects),
        }
    }

    fn dispute_about(&mut self, replica: ReplicaKey, effects: &mut Vec<Effect>) {
        let namespace = self.namespace.clone();
        self.dispute = Some(Dispute::begin(namespace, replica, self.is_client, effects));
    }

    /// When a peer that stays silent will have been silent for too long.
    pub(super) fn deadline(&self) -> Option<Milliseconds> {
        let all = [
            self.owes_holdings_since,
            self.owes_changes_since,
            self.owes_acknowledgement_since,
            self.owes_ranges_since,
        ];
        all.into_iter().flatten().min().map(too_late)
    }

    pub(super) fn handle(
        &mut self,
        event: Event,
        now: Milliseconds,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        let kind = match &event {
            Event::Received(message) => Some(message.kind()),
            Event::Progressed(kind) => Some(*kind),
            _ => None,
        };
        if self.dispute.is_none() {
            let replica = match &event {
                Event::ForkFound { replica } => Some(*replica),
                Event::Received(Message::Head(signed)) => Some(signed.head.replica),
                _ => None,
            };
            if let Some(replica) = replica {
                self.dispute_about(replica, effects);
            }
        }
        if let Some(dispute) = &mut self.dispute {
            if kind == Some(MessageKind::Dispute) {
                self.owes_changes_since = None;
            }
            dispute.handle(event, effects)?;
            return self.check_time(now);
        }
        match kind {
            Some(MessageKind::Changes) => self.owes_changes_since = None,
            Some(MessageKind::Acknowledgement) => self.owes_acknowledgement_since = None,
            Some(MessageKind::Ranges) => self.owes_ranges_since = None,
            // Chatter does not count as what is owed.
            Some(MessageKind::Dispute | MessageKind::Other) | None => {}
        }
        match event {
            Event::Received(message) => self.receive(message, effects)?,
            Event::Progressed(_) => {}
            Event::LocalAdvanced { vector } => self.advance_own(&vector),
            Event::FrameReady(frame) => {
                self.is_reading_frame = false;
                // With nothing to send there is nothing to do until more is durable.
                let Some(frame) = frame else { return Ok(()) };
                self.unacknowledged.push_back(frame.bytes.len());
                self.peer_known.join(&frame.vector);
                effects.push(Effect::Send(Message::Frame(frame.bytes)));
            }
            Event::Applied { vector } => {
                self.applying_bytes = None;
                self.advance_own(&vector);
                effects.push(Effect::Send(Message::Ack(self.untold())));
            }
            Event::ApplyFailed { is_peer_fault: true, what } => {
                return Err(CloseReason::PeerMisbehaved(what));
            }
            Event::ApplyFailed { is_peer_fault: false, what } => {
                return Err(CloseReason::StorageFailed(what));
            }
            Event::Compacted { what } => self.catch_up.offer(what, effects),
            Event::CheckpointReady(offer) => self.catch_up.checkpoint_ready(offer, effects)?,
            Event::PartReady(part) => self.catch_up.part_ready(part, effects),
            Event::CheckpointTaken(next) => self.catch_up.taken(next, effects)?,
            Event::CannotCatchUp { what } => return Err(CloseReason::Compacted(what)),
            Event::FingerprintReady { vector, fingerprint, cursor } => {
                self.is_reading_fingerprint = false;
                // The state may have moved on meanwhile; then another event asks for it again.
                if self.repair.is_under_way() {
                    self.is_fingerprint_due = true;
                } else if vector == self.own && self.own == self.peer_durable {
                    let digest = vector_digest(&vector);
                    effects.push(Effect::Send(Message::Fingerprint {
                        vector: digest,
                        fingerprint: fingerprint.0,
                    }));
                    self.own_state = Some(StateAt { vector, digest, fingerprint, cursor });
                    self.compare(effects)?;
                }
            }
            Event::RangesCompared { answer, different } => {
                self.repair.compared(answer, different, effects)?;
            }
            Event::Rebuilt { documents } => {
                self.repair.rebuilt(documents, effects);
                self.is_fingerprint_due = true;
            }
            Event::TimePassed
            | Event::Started
            | Event::ShareReady { .. }
            | Event::HeadReady(_)
            | Event::ForkFound { .. }
            | Event::ForkStands { .. }
            | Event::LogReplaced
            | Event::LogsCompared(_)
            | Event::BranchReady(_)
            | Event::BranchApplied(_)
            | Event::Signed(_)
            | Event::AccessChecked { .. }
            | Event::PresenceChanged
            | Event::PresenceReady { .. }
            | Event::Leave(_) => {}
        }
        self.proceed(effects);
        self.check_time(now)
    }

    /// Ends the session with a peer that has owed something for too long.
    fn check_time(&mut self, now: Milliseconds) -> Result<(), CloseReason> {
        self.watch(now);
        let is_too_late = |since: Option<Milliseconds>| since.is_some_and(|at| now >= too_late(at));
        if is_too_late(self.owes_holdings_since) {
            return Err(misbehaved("it does not say what it holds"));
        }
        if is_too_late(self.owes_changes_since) {
            return Err(misbehaved("it claims changes and sends none of them"));
        }
        if is_too_late(self.owes_acknowledgement_since) {
            return Err(misbehaved("it does not acknowledge what it was sent"));
        }
        if is_too_late(self.owes_ranges_since) {
            return Err(misbehaved("its state differs and it does not say where"));
        }
        Ok(())
    }

    /// Takes down since when the peer has owed something.
    fn watch(&mut self, now: Milliseconds) {
        let since = |owes: bool, before: Option<Milliseconds>| owes.then(|| before.unwrap_or(now));
        let owes_holdings = self.awaits_holdings && self.dispute.is_none();
        self.owes_holdings_since = since(owes_holdings, self.owes_holdings_since);
        self.owes_changes_since = since(self.is_owed_changes(), self.owes_changes_since);
        self.owes_acknowledgement_since =
            since(!self.unacknowledged.is_empty(), self.owes_acknowledgement_since);
        self.owes_ranges_since = since(self.repair.awaits_peer(), self.owes_ranges_since);
    }

    /// Whether the peer has what is missing here, and none of it waits to be applied.
    fn is_owed_changes(&self) -> bool {
        let has_none =
            self.applying_bytes.is_none() && self.incoming.is_empty() && !self.catch_up.is_taking();
        self.dispute.is_some() || (has_none && !self.own.covers(&self.peer_durable))
    }

    fn receive(&mut self, message: Message, effects: &mut Vec<Effect>) -> Result<(), CloseReason> {
        match message {
            Message::Frame(bytes) => {
                let waiting = || self.incoming.iter().map(Vec::len).chain(self.applying_bytes);
                if !has_window(waiting()) {
                    return Err(misbehaved("more frames than may wait for acknowledgement"));
                }
                // Only what is durable there is sent, so the frame also says what the peer holds.
                let reached = reached_by(&bytes)?;
                if self.needless.covers(&reached) {
                    return Err(misbehaved("changes again that it has sent or that are held here"));
                }
                self.needless.join(&reached);
                self.advance_peer(&reached, effects);
                self.incoming.push_back(bytes);
            }
            Message::Ack(vector) => {
                let nothing = || misbehaved("an acknowledgement of nothing");
                self.unacknowledged.pop_front().ok_or_else(nothing)?;
                self.advance_peer(&vector, effects);
            }
            Message::Holdings(peer) if self.awaits_holdings => self.begin(&peer, effects),
            Message::HoldingsWanted if self.may_be_asked => {
                self.may_be_asked = false;
                effects.push(Effect::Send(Message::Holdings(self.held.clone())));
            }
            Message::Fingerprint { vector, fingerprint } => {
                self.peer_state = Some((vector, Fingerprint(fingerprint)));
                self.compare(effects)?;
            }
            Message::Ranges(said) => {
                let was_under_way = self.repair.is_under_way();
                self.repair.receive(said, effects)?;
                if !was_under_way {
                    self.forget_states();
                }
            }
            message => return self.catch_up.receive(message, effects),
        }
        Ok(())
    }

    /// What has been told of states means nothing once they are being repaired.
    fn forget_states(&mut self) {
        self.own_state = None;
        self.peer_state = None;
    }

    /// Compares states where both sides have told theirs for the same changes. At different
    /// vectors states differ rightly, and nothing is compared.
    fn compare(&mut self, effects: &mut Vec<Effect>) -> Result<(), CloseReason> {
        let (Some(own), Some(peer)) = (&self.own_state, &self.peer_state) else {
            return Ok(());
        };
        if own.digest != peer.0 {
            return Ok(());
        }
        if own.fingerprint != peer.1 {
            // What came since the beginning, on either side, may be two logs of one replica, which only
            // hashes of logs tell.
            if own.vector != self.held.vector || own.vector != self.peer_held {
                return Err(CloseReason::BeginAgain);
            }
            self.forget_states();
            return self.repair.begin(effects);
        }
        let (vector, fingerprint) = (own.vector.clone(), own.fingerprint);
        effects.push(Effect::Notify(Notice::Synced { vector, fingerprint }));
        if let Some(cursor) = own.cursor.clone() {
            effects.push(Effect::Notify(Notice::Met(cursor)));
        }
        Ok(())
    }

    /// Starts whatever can be started.
    fn proceed(&mut self, effects: &mut Vec<Effect>) {
        if self.dispute.is_some() {
            return;
        }
        if self.applying_bytes.is_none()
            && let Some(frame) = self.incoming.pop_front()
        {
            self.applying_bytes = Some(frame.len());
            effects.push(Effect::Apply(frame));
        }
        let has_window = has_window(self.unacknowledged.iter().copied());
        let may_send = has_window && !self.awaits_holdings;
        if may_send && !self.is_reading_frame && !self.peer_known.covers(&self.own) {
            self.is_reading_frame = true;
            let is_forgotten = cfg!(vudo_mutation = "known_sent_again");
            let since = if is_forgotten { VersionVector::new() } else { self.peer_known.clone() };
            effects.push(Effect::ReadFrame { since, bytes_max: FRAME_BYTES });
        }
        let may_compare =
            !self.is_reading_fingerprint && !self.repair.is_under_way() && !self.awaits_holdings;
        if self.is_fingerprint_due && may_compare && self.own == self.peer_durable {
            self.is_fingerprint_due = false;
            self.is_reading_fingerprint = true;
            effects.push(Effect::ReadFingerprint);
        }
    }
}

/// Whether one more frame may be on its way, behind those of so many bytes each.
fn has_window(frames: impl Iterator<Item = usize>) -> bool {
    let (count, bytes) =
        frames.fold((0, 0usize), |(count, sum), bytes| (count + 1, sum.saturating_add(bytes)));
    count < UNACKNOWLEDGED_FRAMES_MAX && bytes < UNACKNOWLEDGED_BYTES_MAX
}

/// When a peer that has owed something since then has owed it for too long.
fn too_late(since: Milliseconds) -> Milliseconds {
    since.saturating_add(PROGRESS_TIMEOUT.as_millis() as Milliseconds)
}

/// How far a frame takes each replica that it names.
fn reached_by(bytes: &[u8]) -> Result<VersionVector, CloseReason> {
    let frame = SignedFrame::parse(bytes)
        .map_err(|error| CloseReason::PeerMisbehaved(format!("a malformed frame: {error}")))?;
    if frame.change_count() > 1 && frame.content_bytes() > FRAME_CONTENT_BYTES_MAX {
        return Err(misbehaved("more changes in one frame than can be passed on"));
    }
    Ok(frame.reached())
}
