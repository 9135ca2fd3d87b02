//! Who is present, in a simulation: what replicas show, and what they see of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use vudo_p2p::proto::{Event, PresenceTable, PresenceUpdate};
use vudo_testkit::Microseconds;

use crate::world::{EndId, Happening, World, milliseconds, node_id};

/// How often the tables hear of the time.
const PRESENCE_TICK: Microseconds = 1_000_000;

/// What replicas show and see, where a simulation has that.
#[derive(Default)]
pub(crate) struct Room {
    /// By replica; a new one whenever it is switched on.
    tables: BTreeMap<usize, PresenceTable>,
    /// By replica: how many values it has shown.
    value_counts: BTreeMap<usize, u8>,
    /// What each replica shows.
    shown: BTreeMap<usize, Vec<u8>>,
    /// How often somebody has seen something new.
    pub(crate) seen_count: u64,
}

/// Sees what others show, or says what is not told yet.
#[derive(Debug)]
pub(crate) enum PresenceWork {
    Read { since: u64 },
    Take(Vec<PresenceUpdate>),
    TellChanged,
}

impl World {
    /// Lets replicas show something, or nothing any more, at random times before `until`.
    pub(crate) fn plan_presence(&mut self, until: Microseconds) {
        self.room = Some(Room::default());
        for replica in 0..self.replicas.len() {
            for _ in 0..1 + self.random.below(6) {
                let at = self.random.between(0, until);
                self.scheduler.schedule(at, Happening::Show(replica));
            }
        }
        self.scheduler.schedule(PRESENCE_TICK, Happening::PresenceTick);
    }

    /// Has one replica show a new value, or now and then nothing.
    pub(crate) fn show(&mut self, replica: usize) {
        let is_shown = !self.random.one_in(5);
        let now = milliseconds(self.now());
        let is_on = self.replicas[replica].is_on();
        let Some(room) = self.room.as_mut().filter(|_| is_on) else { return };
        let count = room.value_counts.entry(replica).or_default();
        *count += 1;
        let value = is_shown.then(|| vec![replica as u8, *count]);
        match &value {
            Some(value) => room.shown.insert(replica, value.clone()),
            None => room.shown.remove(&replica),
        };
        room.table(replica).set(value.map(Arc::from), now);
        self.tell_presence(replica);
    }

    /// Its application is gone, and with it what it showed and saw.
    pub(crate) fn forget_presence(&mut self, replica: usize) {
        if let Some(room) = &mut self.room {
            room.tables.remove(&replica);
            room.shown.remove(&replica);
        }
    }

    pub(crate) fn presence_tick(&mut self) {
        let now = milliseconds(self.now());
        for replica in 0..self.replicas.len() {
            self.change_presence(replica, |table| table.time_passed(now));
        }
        self.scheduler.schedule(PRESENCE_TICK, Happening::PresenceTick);
    }

    /// An end is no more.
    pub(crate) fn presence_ended(&mut self, id: EndId) {
        let (replica, now) = (self.replica_of(id), milliseconds(self.now()));
        self.change_presence(replica, |table| table.link_ended(link_number(id), now));
    }

    pub(crate) fn presence_work(&mut self, id: EndId, work: PresenceWork) {
        if !self.ends.contains_key(&id) {
            return;
        }
        let (replica, now) = (self.replica_of(id), milliseconds(self.now()));
        let peer = node_id(self.replica_of(EndId { side: 1 - id.side, ..id }));
        let link = (link_number(id), peer);
        match work {
            PresenceWork::TellChanged => self.feed(id, Event::PresenceChanged),
            PresenceWork::Read { since } => {
                let table = self.room.as_mut().map(|room| room.table(replica));
                let table = table.expect("somebody has shown something");
                let (updates, revision) = table.updates_since(since, link, now);
                self.feed(id, Event::PresenceReady { updates, revision });
            }
            PresenceWork::Take(updates) => {
                self.change_presence(replica, |table| table.receive(link, updates, now));
            }
        }
    }

    fn change_presence(&mut self, replica: usize, change: impl FnOnce(&mut PresenceTable)) {
        let now = milliseconds(self.now());
        let Some(room) = &mut self.room else { return };
        let seen = room.seen_by(replica, now);
        let table = room.table(replica);
        let before = table.revision();
        change(table);
        let has_changed = table.revision() != before;
        let sees = room.seen_by(replica, now);
        for (other, value) in &sees {
            // Nobody sees what was never shown.
            let count = room.value_counts.get(other).copied().unwrap_or_default();
            assert!(value[0] as usize == *other && (1..=count).contains(&value[1]), "{value:?}");
            room.seen_count += u64::from(seen.get(other) != Some(value));
        }
        if has_changed {
            self.tell_presence(replica);
        }
    }

    /// Whether everybody sees what everybody else shows, and nothing else.
    pub(crate) fn is_presence_converged(&self) -> bool {
        let Some(room) = &self.room else { return true };
        let now = milliseconds(self.now());
        (0..self.replicas.len()).all(|replica| {
            let mut expected = room.shown.clone();
            expected.remove(&replica);
            room.seen_by(replica, now) == expected
        })
    }
}

impl Room {
    fn table(&mut self, replica: usize) -> &mut PresenceTable {
        self.tables.entry(replica).or_insert_with(|| PresenceTable::new(node_id(replica), 1))
    }

    fn seen_by(&self, replica: usize, now: u64) -> BTreeMap<usize, Vec<u8>> {
        let others = self.tables.get(&replica).into_iter().flat_map(|table| table.others(now));
        others.map(|(node, value)| (node[0] as usize - 1, value.to_vec())).collect()
    }
}

/// A number that no other end of a replica has.
fn link_number(id: EndId) -> u64 {
    (id.session << 16) | (id.link as u64) << 1 | id.side as u64
}
