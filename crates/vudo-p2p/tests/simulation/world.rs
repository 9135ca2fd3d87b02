//! Many replicas and the network between them, in one thread and in virtual time.
//!
//! Each link has a side that dials and a side that is dialled. A dial opens a new session with a
//! number of its own; either side may still have ends of older ones, which nobody answers any more,
//! until it notices the silence. Messages go over [`Stream`]s, which a lossy network carries.

use std::collections::BTreeMap;

use vudo_crdt::head::SignedHead;
use vudo_crdt::{ReplicaKey, VersionVector};
use vudo_p2p::proto::{
    CloseReason, Effect, Event, Holdings, Message, Milliseconds, Notice, Session,
};
use vudo_state::{
    BranchOutcome, CheckpointOffer, CheckpointPart, Error, Grant, PartRequest, RightsRecord,
    RootAt, Scope,
};
use vudo_testkit::{Microseconds, Network, Packet, Random, Scheduler, Stream};

use crate::disk::Disks;
use crate::presence::{PresenceWork, Room};
use crate::replica::Replica;

const SECRET: [u8; 32] = [5; 32];
const MILLISECOND: Microseconds = 1_000;
/// How often an end sends again what was not confirmed, or that it is there.
const TICK: Microseconds = 200 * MILLISECOND;
/// An end that hears nothing for so long is gone.
const IDLE_LIMIT: Microseconds = 2_000 * MILLISECOND;
const REDIAL_DELAY: Microseconds = 150 * MILLISECOND;

/// What a simulation leaves out, to show that it would be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Omission {
    Nothing,
    /// Lost packets stay lost.
    Retransmission,
    /// A session takes what was sent for what has arrived, and goes on behind it.
    ResumingFromAcknowledgements,
}

/// One end of one session of a link; side 0 dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndId {
    pub(crate) link: usize,
    pub(crate) session: u64,
    pub(crate) side: usize,
}

pub(crate) struct End {
    session: Session,
    stream: Stream,
    heard_at: Microseconds,
    synced: Option<VersionVector>,
    /// How often the end of a log had been replaced when it opened.
    branch_count: u64,
}

struct Link {
    replicas: [usize; 2],
    session_count: u64,
    /// The newest session that the dialled side knows.
    answered: u64,
    is_dialling: bool,
    /// What each side has sent in all sessions.
    sent: [VersionVector; 2],
}

#[derive(Debug)]
pub(crate) enum Happening {
    Arrive(EndId, Packet),
    Tick(EndId),
    Work(EndId, Work),
    Presence(EndId, PresenceWork),
    Show(usize),
    PresenceTick,
    Dial(usize),
    Write(usize),
    Crash(usize),
    SwitchOn(usize),
    Revoke { owner: usize, subject: usize },
    Copy { from: usize, to: usize },
    Compact(usize),
    Partition,
    Join,
}

/// Work that the session has asked for, done when its time has come.
#[derive(Debug)]
pub(crate) enum Work {
    ReadShare,
    ReadFrame(VersionVector, usize),
    Apply(Vec<u8>),
    ReadFingerprint,
    TellAdvanced,
    ReadHead(ReplicaKey),
    CompareLogs(SignedHead, Vec<RootAt>),
    ReadBranch(ReplicaKey, u64),
    ApplyBranch(Vec<u8>),
    ReadCheckpoint,
    ReadPart(PartRequest),
    TakeCheckpoint(Box<CheckpointOffer>),
    TakePart(Box<CheckpointPart>),
}

/// The simulation.
pub(crate) struct World {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) network: Network,
    pub(crate) random: Random,
    pub(crate) scheduler: Scheduler<Happening>,
    links: Vec<Link>,
    pub(crate) ends: BTreeMap<EndId, End>,
    /// What replicas show each other, where they do.
    pub(crate) room: Option<Room>,
    omission: Omission,
    /// Whether replicas write and fail; none of it happens while the world heals.
    has_faults: bool,
    is_online: bool,
    log: Option<Vec<String>>,
    namespace: String,
    /// How many branches have taken the place of others.
    pub(crate) taken_count: u64,
    /// How often somebody has gone on from another one's checkpoint.
    pub(crate) catch_up_count: u64,
    /// Whether some compact their logs.
    has_checkpoints: bool,
    /// Whether crashes tear what was not synced.
    pub(crate) is_on_files: bool,
}

impl World {
    /// Replicas without links.
    pub(crate) fn new(replica_count: usize, seed: u64, omission: Omission) -> World {
        let (mut random, mut disks) = (Random::new(seed), Disks::of_seed(seed));
        let replica = |number| Replica::new(number, disks.new_disk(), &mut random);
        World {
            replicas: (0..replica_count).map(replica).collect(),
            network: Network::new(replica_count),
            random,
            scheduler: Scheduler::default(),
            links: Vec::new(),
            ends: BTreeMap::new(),
            room: None,
            omission,
            has_faults: true,
            is_online: true,
            log: None,
            namespace: "default".to_owned(),
            taken_count: 0,
            catch_up_count: 0,
            has_checkpoints: false,
            is_on_files: disks.are_files(),
        }
    }

    /// Replicas of a namespace that the first two of them own. The others hold the founding, and learn
    /// that they may write from the first one.
    pub(crate) fn with_owners(replica_count: usize, seed: u64) -> World {
        let mut world = World::new(replica_count, seed, Omission::Nothing);
        let keys: Vec<_> =
            world.replicas.iter().map(|replica| replica.database().replica_key()).collect();
        let first = world.replicas[0].database();
        world.namespace = first.found("team", &keys[..2]).expect("the disk is well");
        let first = first.in_namespace(&world.namespace);
        let rights = first.access_rights().expect("the disk is well").expect("it has owners");
        let founding: Vec<_> = rights.records().cloned().collect();
        for replica in &mut world.replicas {
            replica.move_to(&world.namespace, founding.clone());
        }
        for subject in &keys[2..] {
            let grant = Grant {
                issuer: keys[0],
                subject: *subject,
                can_delegate: false,
                expires_milliseconds: None,
                scopes: vec![Scope { gen_name: "Task".to_owned(), key_prefix: String::new() }],
            };
            first.issue(RightsRecord::Grant(grant), None).expect("the disk is well");
        }
        world
    }

    /// Lets owners revoke others at random times before `until`, some of them twice and at once.
    pub(crate) fn plan_revocations(&mut self, until: Microseconds) {
        let count = self.replicas.len();
        for _ in 0..1 + self.random.below(4) {
            let subject = 2 + self.random.below(count - 2);
            for _ in 0..1 + self.random.below(2) {
                let owner = self.random.below(2);
                let at = self.random.between(0, until);
                self.scheduler.schedule(at, Happening::Revoke { owner, subject });
            }
        }
    }

    /// Lets stores be copied with their keys, one or two of them, each in place of one that has not
    /// written yet. No key has three stores.
    pub(crate) fn plan_copies(&mut self, until: Microseconds) {
        let count = self.replicas.len();
        let first = self.random.below(count - 2);
        for pair in 0..1 + self.random.below(2) {
            let (from, to) = ((first + pair) % (count - 2), count - 1 - pair);
            self.replicas[to].awaits_copy = true;
            let at = self.random.between(0, until / 2);
            self.scheduler.schedule(at, Happening::Copy { from, to });
        }
    }

    /// Lets up to so many replicas compact their logs now and then.
    pub(crate) fn plan_compactions(&mut self, until: Microseconds, replicas_max: usize) {
        self.has_checkpoints = true;
        self.replicas.iter_mut().for_each(|replica| replica.overwrites = true);
        let compacting = 1 + self.random.below(replicas_max);
        for _ in 0..3 + self.random.below(6) {
            let at = self.random.between(0, until);
            let replica = self.random.below(compacting);
            self.scheduler.schedule(at, Happening::Compact(replica));
        }
    }

    fn compact(&mut self, replica: usize) {
        let Some(compacting) = self.replicas.get(replica).filter(|replica| replica.is_on()) else {
            return;
        };
        match compacting.database().compact() {
            Ok(report) => {
                assert_eq!(report.left_alone, [], "an owner compacts");
                // With owners the checkpoint is a change.
                self.tell_advanced(replica);
            }
            Err(error) => {
                assert!(compacting.disk.is_off(), "replica {replica}: {error}");
                self.crash(replica);
            }
        }
    }

    fn copy(&mut self, from: usize, to: usize) {
        if !self.replicas[from].is_on() || !self.replicas[to].is_on() {
            return self.scheduler.schedule(50 * MILLISECOND, Happening::Copy { from, to });
        }
        let key = self.replicas[from].key();
        self.replicas.iter_mut().for_each(|replica| replica.forked.push(key));
        self.crash(to);
        let copy = self.replicas[from].disk.copy();
        self.replicas[to].go_on_with(copy);
        self.replicas[to].disk.power_off();
    }

    fn revoke(&mut self, owner: usize, subject: usize) {
        let subject = self.replicas[subject].key();
        let Some(revoking) = self.replicas.get(owner).filter(|owner| owner.is_on()) else { return };
        if !self.has_faults {
            return;
        }
        let database = revoking.database().in_namespace(&self.namespace);
        let issue = || {
            let revocation = database.revocation_of(database.replica_key(), subject)?;
            database.issue(RightsRecord::Revocation(revocation), None)
        };
        match issue() {
            Ok(_) => self.tell_advanced(owner),
            Err(error) => {
                assert!(revoking.disk.is_off(), "replica {owner}: {error}");
                drop(database);
                self.crash(owner);
            }
        }
    }

    pub(crate) fn record(&mut self) {
        self.log = Some(Vec::new());
    }

    pub(crate) fn take_log(&mut self) -> Vec<String> {
        self.log.take().unwrap_or_default()
    }

    pub(crate) fn add_link(&mut self, from: usize, to: usize) {
        let sent = [VersionVector::new(), VersionVector::new()];
        let replicas = [from, to];
        let link = Link { replicas, session_count: 0, answered: 0, is_dialling: false, sent };
        self.links.push(link);
        self.dial_later(self.links.len() - 1);
    }

    /// Connects everybody to somebody before, and some to more.
    pub(crate) fn add_random_links(&mut self) {
        let count = self.replicas.len();
        for replica in 1..count {
            let other = self.random.below(replica);
            let (from, to) =
                if self.random.one_in(2) { (replica, other) } else { (other, replica) };
            self.add_link(from, to);
        }
        for _ in 0..count / 3 {
            let from = self.random.below(count);
            let to = (from + 1 + self.random.below(count - 1)) % count;
            self.add_link(from, to);
        }
    }

    /// Lets replicas write and fail, and the network part, at random times before `until`.
    pub(crate) fn plan_trouble(&mut self, until: Microseconds) {
        for replica in 0..self.replicas.len() {
            for _ in 0..self.random.between(3, 9) {
                let at = self.random.between(0, until);
                self.scheduler.schedule(at, Happening::Write(replica));
            }
            for _ in 0..self.random.below(3) {
                let at = self.random.between(0, until);
                self.scheduler.schedule(at, Happening::Crash(replica));
            }
        }
        for _ in 0..self.random.below(3) {
            let at = self.random.between(0, until);
            self.scheduler.schedule(at, Happening::Partition);
            let after = self.random.between(0, until / 3);
            self.scheduler.schedule(at + after, Happening::Join);
        }
    }

    pub(crate) fn now(&self) -> Microseconds {
        self.scheduler.now()
    }

    /// Runs until the time, or until `is_done` says so. Gives whether it did.
    pub(crate) fn run_until(
        &mut self,
        until: Microseconds,
        mut is_done: impl FnMut(&World) -> bool,
    ) -> bool {
        while self.now() < until {
            if is_done(self) {
                return true;
            }
            if !self.step() {
                break;
            }
        }
        is_done(self)
    }

    /// Lets one thing happen. `false` where nothing will ever happen again.
    pub(crate) fn step(&mut self) -> bool {
        let Some(happening) = self.scheduler.next_event() else { return false };
        if let Some(log) = &mut self.log {
            log.push(format!("{} {happening:?}", self.scheduler.now()));
        }
        match happening {
            Happening::Arrive(id, packet) => self.arrive(id, packet),
            Happening::Tick(id) => self.tick(id),
            Happening::Work(id, work) => self.work(id, work),
            Happening::Presence(id, work) => self.presence_work(id, work),
            Happening::Show(replica) => self.show(replica),
            Happening::PresenceTick => self.presence_tick(),
            Happening::Dial(link) => self.dial(link),
            Happening::Write(replica) => self.write(replica),
            Happening::Crash(replica) => self.plan_crash(replica),
            Happening::SwitchOn(replica) => self.switch_on(replica),
            Happening::Revoke { owner, subject } => self.revoke(owner, subject),
            Happening::Copy { from, to } => self.copy(from, to),
            Happening::Compact(replica) => self.compact(replica),
            Happening::Partition if self.has_faults => {
                let groups = 2 + self.random.below(2);
                self.network.partition(groups, &mut self.random);
            }
            Happening::Join if self.has_faults => {
                let conditions = self.network.conditions.clone();
                self.network.heal();
                self.network.conditions = conditions;
            }
            Happening::Partition | Happening::Join => {}
        }
        true
    }

    /// Ends all faults: the network is whole, and whoever was off is on.
    pub(crate) fn heal(&mut self) {
        self.has_faults = false;
        self.network.heal();
        for replica in 0..self.replicas.len() {
            if self.replicas[replica].disk.is_off() {
                self.crash(replica);
                self.switch_on(replica);
            } else {
                // A crash that was to come does not come any more.
                self.replicas[replica].disk.power_on();
            }
        }
    }

    /// Whether everybody holds the same changes, and both ends of every link know it.
    pub(crate) fn is_converged(&self) -> bool {
        if self.replicas.iter().any(|replica| !replica.is_on()) {
            return false;
        }
        let first = self.replicas[0].replication().durable_vector();
        let is_synced = |(link, side): (usize, usize)| {
            let session = self.links[link].session_count;
            let end = self.ends.get(&EndId { link, session, side });
            end.is_some_and(|end| end.synced.as_ref() == Some(&first))
        };
        let mut replicas = self.replicas.iter();
        replicas.all(|replica| replica.replication().durable_vector() == first)
            && (0..self.links.len()).all(|link| is_synced((link, 0)) && is_synced((link, 1)))
    }

    /// Drops every session without a word and dials no more, until [`World::go_online`].
    pub(crate) fn go_offline(&mut self) {
        self.is_online = false;
        self.end_all(|_| true);
    }

    pub(crate) fn go_online(&mut self) {
        self.is_online = true;
        (0..self.links.len()).for_each(|link| self.dial_later(link));
    }

    pub(crate) fn write(&mut self, replica: usize) {
        let milliseconds = self.now() / MILLISECOND;
        let random = &mut self.random;
        let Some(writer) = self.replicas.get_mut(replica).filter(|writer| writer.is_on()) else {
            return;
        };
        if !self.has_faults || writer.awaits_copy {
            return;
        }
        writer.set_time(milliseconds);
        match writer.write(random) {
            true => self.tell_advanced(replica),
            false => self.crash(replica),
        }
    }

    fn plan_crash(&mut self, replica: usize) {
        if !self.has_faults || !self.replicas[replica].is_on() {
            return;
        }
        if self.random.one_in(3) {
            return self.crash(replica);
        }
        self.replicas[replica].disk.power_off_soon(&mut self.random);
    }

    fn crash(&mut self, replica: usize) {
        self.replicas[replica].switch_off();
        let links = self.links.iter().map(|link| link.replicas).collect::<Vec<_>>();
        self.end_all(|id| links[id.link][id.side] == replica);
        self.forget_presence(replica);
        let delay = self.random.between(50, 2_500) * MILLISECOND;
        self.scheduler.schedule(delay, Happening::SwitchOn(replica));
    }

    fn switch_on(&mut self, replica: usize) {
        if self.replicas[replica].is_on() {
            return;
        }
        self.replicas[replica].switch_on();
        for link in 0..self.links.len() {
            if self.links[link].replicas[0] == replica {
                self.dial_later(link);
            }
        }
    }

    fn dial_later(&mut self, link: usize) {
        if !self.links[link].is_dialling {
            self.links[link].is_dialling = true;
            self.scheduler.schedule(REDIAL_DELAY, Happening::Dial(link));
        }
    }

    fn dial(&mut self, link: usize) {
        let nonce = self.nonce();
        let Link { replicas: [from, to], session_count, is_dialling, .. } = &mut self.links[link];
        *is_dialling = false;
        let open = EndId { link, session: *session_count, side: 0 };
        if !self.is_online || !self.replicas[*from].is_on() || self.ends.contains_key(&open) {
            return;
        }
        *session_count += 1;
        let id = EndId { session: *session_count, ..open };
        let replication = self.replicas[*from].replication();
        let cursor = replication.cursor(&ReplicaKey(node_id(*to)));
        let held = Holdings::of(&replication);
        let ids = (node_id(*from), node_id(*to));
        let Ok(held) = held else { return self.crash(self.links[link].replicas[0]) };
        let session =
            Session::client(ids, nonce, self.namespace.clone(), SECRET, held).with_cursor(cursor);
        self.open(id, session);
        self.feed(id, Event::Started);
    }

    fn nonce(&mut self) -> [u8; 32] {
        let mut nonce = [0; 32];
        self.random.fill(&mut nonce);
        nonce
    }

    fn open(&mut self, id: EndId, session: Session) {
        let (stream, heard_at) = (Stream::default(), self.now());
        let replica = self.links[id.link].replicas[id.side];
        let branch_count = self.replicas[replica].replication().branch_count();
        self.ends.insert(id, End { session, stream, heard_at, synced: None, branch_count });
        self.scheduler.schedule(TICK, Happening::Tick(id));
        if self.room.is_some() {
            self.presence_later(id, PresenceWork::TellChanged);
        }
    }

    fn transmit(&mut self, id: EndId, packet: &Packet) {
        let Link { replicas, .. } = &self.links[id.link];
        let (from, to) = (replicas[id.side], replicas[1 - id.side]);
        for delay in self.network.deliveries(from, to, &mut self.random) {
            let there = EndId { side: 1 - id.side, ..id };
            self.scheduler.schedule(delay, Happening::Arrive(there, packet.clone()));
        }
    }

    fn arrive(&mut self, id: EndId, packet: Packet) {
        self.answer_new_session(id);
        let now = self.now();
        let Some(end) = self.ends.get_mut(&id) else { return };
        end.heard_at = now;
        let (messages, confirmation) = end.stream.receive(packet);
        if let Some(confirmation) = confirmation {
            self.transmit(id, &confirmation);
        }
        for bytes in messages {
            let mut message = Message::decode(&bytes).expect("the network does not change bytes");
            let forgets = self.omission == Omission::ResumingFromAcknowledgements;
            if let (
                Message::Holdings(Holdings { vector, log_hashes })
                | Message::HoldingsSince { changed: Holdings { vector, log_hashes }, .. },
                true,
            ) = (&mut message, forgets)
            {
                log_hashes.clear();
                vector.join(&self.links[id.link].sent[id.side]);
            }
            self.feed(id, Event::Received(message));
        }
    }

    fn answer_new_session(&mut self, id: EndId) {
        let Link { replicas, answered, .. } = &mut self.links[id.link];
        let [from, to] = *replicas;
        let is_new = id.side == 1 && id.session > *answered;
        if is_new && self.is_online && self.replicas[to].is_on() {
            *answered = id.session;
            let nonce = self.nonce();
            self.open(id, Session::server((node_id(to), node_id(from)), nonce));
            self.feed(id, Event::Started);
        }
    }

    /// Sends again, or shows that it is there; notices silence, and time that has passed.
    fn tick(&mut self, id: EndId) {
        let now = self.now();
        let Some(end) = self.ends.get(&id) else { return };
        if now - end.heard_at > IDLE_LIMIT {
            return self.end(id);
        }
        let mut packets = end.stream.retransmission();
        if packets.is_empty() || self.omission == Omission::Retransmission {
            packets = vec![Packet { expected: 0, message: None }];
        }
        packets.iter().for_each(|packet| self.transmit(id, packet));
        self.scheduler.schedule(TICK, Happening::Tick(id));
        let deadline = self.ends[&id].session.deadline();
        if deadline.is_some_and(|deadline| deadline <= milliseconds(now)) {
            self.feed(id, Event::TimePassed);
        }
    }

    pub(crate) fn feed(&mut self, id: EndId, event: Event) {
        let now = milliseconds(self.now());
        let Some(end) = self.ends.get_mut(&id) else { return };
        for effect in end.session.handle(event, now) {
            self.carry_out(id, effect);
        }
    }

    fn carry_out(&mut self, id: EndId, effect: Effect) {
        let work = match effect {
            Effect::Send(message) => return self.send(id, &message),
            Effect::Notify(Notice::Authenticated | Notice::SchemasDiffer(_)) => return,
            Effect::Notify(Notice::PeerHolds(vector)) => {
                let peer = &self.replicas[self.links[id.link].replicas[1 - id.side]];
                return peer.assert_durable(&vector);
            }
            Effect::Notify(Notice::Repaired { .. }) => panic!("{id:?}: nothing was damaged"),
            Effect::Notify(Notice::Met(cursor)) => {
                let [own, peer] =
                    [id.side, 1 - id.side].map(|side| self.links[id.link].replicas[side]);
                let replication = self.replicas[own].replication();
                let branch_count = self.ends[&id].branch_count;
                let peer = ReplicaKey(node_id(peer));
                return replication.remember_cursor(peer, cursor, branch_count);
            }
            Effect::Notify(Notice::Synced { vector, .. }) => {
                if let Some(end) = self.ends.get_mut(&id) {
                    end.synced = Some(vector);
                }
                return;
            }
            Effect::Notify(Notice::Forked { heads }) => {
                let replica = self.links[id.link].replicas[id.side];
                let is_forked = self.replicas[replica].forked.contains(&heads[0].head.replica);
                assert!(is_forked, "{id:?}: nobody has signed two logs");
                return;
            }
            Effect::Close(reason) => return self.close(id, &reason),
            Effect::Sign(_) | Effect::CheckAccess(_) => panic!("{id:?}: everybody has the secret"),
            Effect::ReadShare(_) => Work::ReadShare,
            Effect::ReadFrame { since, bytes_max } => Work::ReadFrame(since, bytes_max),
            Effect::Apply(frame) => Work::Apply(frame),
            Effect::ReadCheckpoint => Work::ReadCheckpoint,
            Effect::ReadPart(request) => Work::ReadPart(request),
            Effect::TakeCheckpoint(offer) => Work::TakeCheckpoint(offer),
            Effect::TakePart(part) => Work::TakePart(part),
            Effect::ReadHead { replica } => Work::ReadHead(replica),
            Effect::CompareLogs { peer, said } => Work::CompareLogs(peer, said),
            Effect::ReadBranch { replica, number } => Work::ReadBranch(replica, number),
            Effect::ApplyBranch(branch) => Work::ApplyBranch(branch),
            Effect::ReadFingerprint => Work::ReadFingerprint,
            Effect::ReadPresence { since } => {
                return self.presence_later(id, PresenceWork::Read { since });
            }
            Effect::TakePresence(updates) => {
                return self.presence_later(id, PresenceWork::Take(updates));
            }
            Effect::CompareRanges { .. } | Effect::Rebuild(_) => {
                panic!("{id:?}: honest states differ at equal vectors")
            }
        };
        let delay = self.random.between(50, 5 * MILLISECOND);
        self.scheduler.schedule(delay, Happening::Work(id, work));
    }

    fn send(&mut self, id: EndId, message: &Message) {
        let replica = self.links[id.link].replicas[id.side];
        if let Message::Holdings(Holdings { vector, .. })
        | Message::HoldingsSince { changed: Holdings { vector, .. }, .. }
        | Message::Ack(vector) = message
        {
            self.replicas[replica].promised.join(vector);
        }
        let Some(end) = self.ends.get_mut(&id) else { return };
        let packet = end.stream.send(encode(message));
        self.transmit(id, &packet);
    }

    fn close(&mut self, id: EndId, reason: &CloseReason) {
        // Honest replicas never misbehave, refuse or differ; they may be too slow. Where two stores have
        // one key, what they have told may not hold any more.
        let is_expected = matches!(
            reason,
            CloseReason::Done | CloseReason::HandshakeTimeout | CloseReason::OtherVersion
        );
        let has_forks = self.replicas.iter().any(|replica| !replica.forked.is_empty());
        let may_begin_again = has_forks || self.has_checkpoints;
        let is_expected = is_expected || may_begin_again && *reason == CloseReason::BeginAgain;
        assert!(is_expected, "{id:?}: {reason:?}");
        self.end(id);
    }

    /// Ends one end; whoever dialled dials again.
    fn end(&mut self, id: EndId) {
        self.end_all(|ended| ended == id);
        if id.side == 0 {
            self.dial_later(id.link);
        }
    }

    fn end_all(&mut self, is_over: impl Fn(EndId) -> bool) {
        let over: Vec<EndId> = self.ends.keys().copied().filter(|id| is_over(*id)).collect();
        for id in over {
            self.ends.remove(&id);
            self.presence_ended(id);
        }
    }

    pub(crate) fn replica_of(&self, id: EndId) -> usize {
        self.links[id.link].replicas[id.side]
    }

    fn work(&mut self, id: EndId, work: Work) {
        if !self.ends.contains_key(&id) {
            return;
        }
        let replica = self.links[id.link].replicas[id.side];
        let replication = self.replicas[replica].replication();
        let peer = ReplicaKey(node_id(self.links[id.link].replicas[1 - id.side]));
        let cursor = replication.cursor(&peer);
        let result = match work {
            Work::ReadShare => Holdings::of(&replication).map(|held| Event::ShareReady {
                secret: Some(SECRET),
                held,
                cursor,
            }),
            Work::ReadFrame(since, bytes_max) => {
                // A small bound makes many frames of few changes.
                let read = || replication.frame_since(&since, bytes_max.min(200));
                match replication.frame_at_hand(&since).map_or_else(read, |frame| Ok(Some(frame))) {
                    Err(error @ Error::Compacted { .. }) => {
                        Ok(Event::Compacted { what: error.to_string() })
                    }
                    read => read.map(Event::FrameReady),
                }
            }
            Work::Apply(frame) => replication.apply_frame(&frame).map(|_| {
                self.tell_advanced(replica);
                Event::Applied { vector: replication.durable_vector() }
            }),
            Work::ReadFingerprint => replication.fingerprint().and_then(|(vector, fingerprint)| {
                self.replicas[replica].promised.join(&vector);
                let cursor = Holdings::cursor_at(&replication, &vector)?;
                Ok(Event::FingerprintReady { vector, fingerprint, cursor })
            }),
            Work::TellAdvanced => Ok(Event::LocalAdvanced { vector: replication.durable_vector() }),
            Work::ReadCheckpoint => {
                Ok(Event::CheckpointReady(replication.checkpoint_offer().map(Box::new)))
            }
            Work::ReadPart(request) => replication
                .checkpoint_part(&request)
                .map(|part| Event::PartReady(part.map(Box::new))),
            Work::TakeCheckpoint(offer) => {
                let peer = self.replicas[self.links[id.link].replicas[1 - id.side]].key();
                replication.begin_catching_up(&peer, &offer).map(Event::CheckpointTaken)
            }
            Work::TakePart(part) => {
                let peer = self.replicas[self.links[id.link].replicas[1 - id.side]].key();
                replication.take_part(&peer, &part).map(|next| {
                    if next.is_none() {
                        self.catch_up_count += 1;
                        self.tell_advanced(replica);
                    }
                    Event::CheckpointTaken(next)
                })
            }
            Work::ReadHead(of) => replication.latest_signed_head_of(&of).map(Event::HeadReady),
            Work::CompareLogs(peer, said) => {
                replication.compare_logs(&peer, &said).map(Event::LogsCompared)
            }
            Work::ReadBranch(of, number) => {
                replication.branch_from(&of, number).map(Event::BranchReady)
            }
            Work::ApplyBranch(branch) => replication.apply_branch(&branch).map(|outcome| {
                if outcome == BranchOutcome::Taken {
                    self.taken_count += 1;
                    self.tell_advanced(replica);
                }
                Event::BranchApplied(outcome)
            }),
        };
        let branch_count = replication.branch_count();
        drop(replication);
        let is_replaced = self.ends[&id].branch_count != branch_count;
        let result = result.map(|event| if is_replaced { Event::LogReplaced } else { event });
        match result {
            Ok(event) => {
                if let Event::FrameReady(Some(frame)) = &event {
                    self.links[id.link].sent[id.side].join(&frame.vector);
                }
                self.feed(id, event);
            }
            Err(Error::OtherLog { signed }) if !is_replaced => {
                self.feed(id, Event::ForkFound { replica: signed.head.replica });
            }
            Err(error) if is_replaced && error.is_peer_fault() => self.feed(id, Event::LogReplaced),
            // It goes on under another key when it is switched on again.
            Err(Error::OwnKeyElsewhere) => self.crash(replica),
            Err(error) => {
                assert!(self.replicas[replica].disk.is_off(), "replica {replica}: {error}");
                self.crash(replica);
            }
        }
    }

    fn ends_of(&self, replica: usize) -> Vec<EndId> {
        let is_own = |id: &EndId| self.replica_of(*id) == replica;
        self.ends.keys().copied().filter(is_own).collect()
    }

    /// Its sessions have something to say of who is present.
    pub(crate) fn tell_presence(&mut self, replica: usize) {
        for id in self.ends_of(replica) {
            self.presence_later(id, PresenceWork::TellChanged);
        }
    }

    fn presence_later(&mut self, id: EndId, work: PresenceWork) {
        let delay = self.random.between(10, MILLISECOND);
        self.scheduler.schedule(delay, Happening::Presence(id, work));
    }

    fn tell_advanced(&mut self, replica: usize) {
        for id in self.ends_of(replica) {
            let delay = self.random.between(10, MILLISECOND);
            self.scheduler.schedule(delay, Happening::Work(id, Work::TellAdvanced));
        }
    }
}

pub(crate) fn node_id(replica: usize) -> [u8; 32] {
    [replica as u8 + 1; 32]
}

pub(crate) fn milliseconds(time: Microseconds) -> Milliseconds {
    time / MILLISECOND
}

fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}
