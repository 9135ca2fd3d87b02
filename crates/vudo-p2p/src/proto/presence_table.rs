//! Who is present in a namespace, and what they show: a cursor, a name, that they are typing. Nothing of
//! it is ever stored.
//!
//! ```text
//! application --set-->  +----------------+ --updates_since--> every session, what it was not sent yet
//! session --receive-->  | newest of each | --others---------> application
//! session --link_ended> |     origin     |
//!                       +----------------+ <--time_passed
//! ```
//!
//! **The idea.** Of each origin the newest value is kept and nothing else, under a revision that grows
//! with every change. A session remembers the revision up to which it has told its peer, so a slow
//! reader gets the last value and no backlog.
//!
//! **The invariant.** Of what is kept, every value ends: when its origin says so, when the session ends that
//! it came over, or 30 s after its origin has last shown itself. The time that is left travels with a
//! value, so passing it on in a circle does not prolong it.
//!
//! **Who is believed.** An origin that a session is open with speaks for itself, whatever others say of
//! it. Of others a peer says what it has heard, and is trusted in that as it is trusted with the
//! namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message::PresenceUpdate;
use super::proof::NodeId;
use super::session::Milliseconds;
use crate::limits::{
    PRESENCE_CLOCK_AHEAD_MAX, PRESENCE_LIFE, PRESENCE_MESSAGE_BYTES_MAX, PRESENCE_ORIGINS_MAX,
    PRESENCE_RENEWAL,
};

const LIFE: Milliseconds = PRESENCE_LIFE.as_millis() as Milliseconds;
const CLOCK_AHEAD_MAX: Milliseconds = PRESENCE_CLOCK_AHEAD_MAX.as_millis() as Milliseconds;
const RENEWAL: Milliseconds = PRESENCE_RENEWAL.as_millis() as Milliseconds;

/// A session of the namespace, by a number that no other one has had.
pub type LinkNumber = u64;

/// Who is present in one namespace, as one node knows it.
#[derive(Debug)]
pub struct PresenceTable {
    own: NodeId,
    /// What clocks of the own value count from.
    start: Milliseconds,
    own_clock: u64,
    /// When the own value is to be shown again.
    renew_at: Milliseconds,
    /// `count <= PRESENCE_ORIGINS_MAX`, and the own one.
    entries: BTreeMap<NodeId, Entry>,
    /// Has the origin of each entry under its revision.
    by_revision: BTreeMap<u64, NodeId>,
    revision: u64,
}

#[derive(Debug)]
struct Entry {
    /// Grows with everything that the origin shows.
    clock: u64,
    /// None where it has gone: what is older and still on its way must not bring it back.
    value: Option<Arc<[u8]>>,
    /// When the entry is forgotten.
    ends_at: Milliseconds,
    /// Where it came from; none for the own one, and for what has gone because the session ended.
    link: Option<LinkNumber>,
    /// Whether that is a session with the origin itself.
    is_direct: bool,
    revision: u64,
}

impl PresenceTable {
    /// Where nobody is. `start` is what the wall clock shows at the time that calls count from: a node
    /// that is started anew is newer than it was before.
    pub fn new(own: NodeId, start: Milliseconds) -> PresenceTable {
        PresenceTable {
            own,
            start,
            own_clock: 0,
            renew_at: Milliseconds::MAX,
            entries: BTreeMap::new(),
            by_revision: BTreeMap::new(),
            revision: 0,
        }
    }

    /// Grows with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether there is nothing that time could change.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Everybody else who is here, ascending by their ids, and what they show.
    pub fn others(&self, now: Milliseconds) -> impl Iterator<Item = (NodeId, &Arc<[u8]>)> {
        let others = self
            .entries
            .iter()
            .filter(move |(origin, entry)| **origin != self.own && entry.ends_at > now);
        others.filter_map(|(origin, entry)| Some((*origin, entry.value.as_ref()?)))
    }

    /// What this node shows from now on; `None` where it is not here any more.
    pub fn set(&mut self, value: Option<Arc<[u8]>>, now: Milliseconds) {
        let shown = self.entries.get(&self.own).and_then(|entry| entry.value.as_ref());
        if shown != value.as_ref() {
            self.show(value, now);
        }
    }

    fn show(&mut self, value: Option<Arc<[u8]>>, now: Milliseconds) {
        self.own_clock = self.own_clock.saturating_add(1).max(self.start.saturating_add(now));
        let (renew_at, ends_at) = match value {
            Some(_) => (now.saturating_add(RENEWAL), Milliseconds::MAX),
            None => (Milliseconds::MAX, now.saturating_add(LIFE)),
        };
        self.renew_at = renew_at;
        let clock = self.own_clock;
        let entry = Entry { clock, value, ends_at, link: None, is_direct: true, revision: 0 };
        self.put(self.own, entry);
    }

    /// Shows the own value as a newer one, where there is one.
    fn renew(&mut self, now: Milliseconds) {
        let shown = self.entries.get(&self.own).and_then(|entry| entry.value.clone());
        if shown.is_some() {
            self.show(shown, now);
        }
    }

    /// Takes what a peer has said over a session.
    pub fn receive(
        &mut self,
        (link, peer): (LinkNumber, NodeId),
        updates: Vec<PresenceUpdate>,
        now: Milliseconds,
    ) {
        let clock_max = self.start.saturating_add(now).saturating_add(CLOCK_AHEAD_MAX);
        for update in updates {
            // Nobody's value could be newer than that of a clock at its end.
            if update.clock > clock_max {
                continue;
            }
            if update.origin == self.own {
                // What this node showed before it was started anew, or a peer that has lost it and that
                // others believe. What it shows now is newer; its own echo says nothing.
                let is_refuted = update.shown.is_none() && update.clock == self.own_clock;
                if update.clock > self.own_clock || is_refuted {
                    self.own_clock = update.clock;
                    self.renew(now);
                }
                continue;
            }
            let is_direct = update.origin == peer;
            let is_known = self.entries.contains_key(&update.origin);
            if !self.is_news(link, is_direct, &update) || !is_known && !self.has_room(is_direct) {
                continue;
            }
            let (value, left) = match update.shown {
                Some((left, value)) => (Some(value), left.min(LIFE)),
                None => (None, LIFE),
            };
            let ends_at = now.saturating_add(left);
            let (clock, link) = (update.clock, Some(link));
            let entry = Entry { clock, value, ends_at, link, is_direct, revision: 0 };
            self.put(update.origin, entry);
        }
    }

    fn is_news(&self, link: LinkNumber, is_direct: bool, update: &PresenceUpdate) -> bool {
        let Some(known) = self.entries.get(&update.origin) else { return update.shown.is_some() };
        let is_same_link = known.link == Some(link);
        if is_direct {
            // It may have been started anew with a clock that was set back.
            let was_elsewhere = !known.is_direct || known.value.is_none() && !is_same_link;
            return update.clock > known.clock || was_elsewhere;
        }
        if known.is_direct && known.value.is_some() {
            return false;
        }
        // What a peer has brought it can take away, and what went with a session another one can bring:
        // whoever dials again need not wait for others to show themselves again.
        let takes_away = update.shown.is_none() && known.value.is_some() && is_same_link;
        let brings_again = update.shown.is_some() && known.value.is_none() && known.link.is_none();
        let is_other = takes_away || brings_again;
        update.clock > known.clock || is_other && update.clock == known.clock
    }

    /// Whether one more origin has a place. Who has gone gives up theirs, and who is known by hearsay does
    /// for a peer.
    fn has_room(&mut self, is_direct: bool) -> bool {
        let others = self.entries.len() - usize::from(self.entries.contains_key(&self.own));
        if others < PRESENCE_ORIGINS_MAX {
            return true;
        }
        let least = |is_dispensable: &dyn Fn(&Entry) -> bool| {
            let mut origins = self.by_revision.values().filter(|origin| **origin != self.own);
            origins.find(|origin| self.entries.get(*origin).is_some_and(is_dispensable)).copied()
        };
        let gone = least(&|entry| entry.value.is_none());
        let place = gone.or_else(|| least(&|entry| is_direct && !entry.is_direct));
        place.is_some_and(|place| self.forget(&place))
    }

    /// The session is over, and with it what is known from it alone.
    pub fn link_ended(&mut self, link: LinkNumber, now: Milliseconds) {
        let is_from_it = |entry: &Entry| entry.link == Some(link) && entry.value.is_some();
        let gone: Vec<NodeId> = self
            .entries
            .iter()
            .filter(|(_, entry)| is_from_it(entry))
            .map(|(origin, _)| *origin)
            .collect();
        for origin in gone {
            if let Some(entry) = self.entries.remove(&origin) {
                self.by_revision.remove(&entry.revision);
                let ends_at = now.saturating_add(LIFE);
                self.put(origin, Entry { value: None, link: None, ends_at, ..entry });
            }
        }
        // The peer may tell others that this node has gone, who have a session with it as well.
        self.renew(now);
    }

    /// Forgets whose time has come, and shows the own value again where that is due.
    pub fn time_passed(&mut self, now: Milliseconds) {
        let ended: Vec<NodeId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.ends_at <= now)
            .map(|(origin, _)| *origin)
            .collect();
        for origin in ended {
            self.forget(&origin);
        }
        if self.renew_at <= now {
            self.renew(now);
        }
    }

    /// What a session has not told its peer yet, oldest change first, as much as a message holds, and the
    /// revision up to which that goes. Nobody is told what it has said itself.
    pub fn updates_since(
        &self,
        revision: u64,
        (link, peer): (LinkNumber, NodeId),
        now: Milliseconds,
    ) -> (Vec<PresenceUpdate>, u64) {
        let (mut updates, mut bytes) = (Vec::new(), 0);
        for (reached, origin) in self.by_revision.range(revision.saturating_add(1)..) {
            let Some(entry) = self.entries.get(origin) else { continue };
            let is_theirs = *origin == peer || entry.link == Some(link);
            // A session that begins need not hear of who has gone.
            let is_over = entry.ends_at <= now || entry.value.is_none() && revision == 0;
            if is_theirs || is_over {
                continue;
            }
            let left = entry.ends_at.saturating_sub(now).min(LIFE);
            let shown = entry.value.clone().map(|value| (left, value));
            let update = PresenceUpdate { origin: *origin, clock: entry.clock, shown };
            bytes += update.bytes_max();
            if bytes > PRESENCE_MESSAGE_BYTES_MAX {
                return (updates, reached - 1);
            }
            updates.push(update);
        }
        (updates, self.revision)
    }

    fn put(&mut self, origin: NodeId, entry: Entry) {
        self.revision += 1;
        let revision = self.revision;
        if let Some(before) = self.entries.insert(origin, Entry { revision, ..entry }) {
            self.by_revision.remove(&before.revision);
        }
        self.by_revision.insert(revision, origin);
    }

    fn forget(&mut self, origin: &NodeId) -> bool {
        let Some(entry) = self.entries.remove(origin) else { return false };
        self.by_revision.remove(&entry.revision);
        // Whoever watches learns that it has gone; peers count for themselves.
        self.revision += 1;
        true
    }
}
