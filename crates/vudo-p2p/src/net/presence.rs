//! Presence for applications, and what sessions share of it: a table for each namespace that somebody
//! uses.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use vudo_crdt::ReplicaKey;

use crate::error::{Error, Result};
use crate::limits::{PRESENCE_BYTES_MAX, PRESENCE_TICK};
use crate::proto::{LinkNumber, Milliseconds, NodeId, PresenceTable, PresenceUpdate};

/// The tables of a node.
pub(super) struct Presences {
    own: NodeId,
    clock: Clock,
    runtime: Handle,
    /// By namespace.
    rooms: Mutex<BTreeMap<String, Weak<Room>>>,
}

#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    /// What the wall clock showed then.
    wall: Milliseconds,
}

impl Clock {
    fn now(&self) -> Milliseconds {
        self.start.elapsed().as_millis() as Milliseconds
    }
}

impl Presences {
    /// For a node that starts now, in the runtime that this is called in.
    pub(super) fn new(own: NodeId) -> Presences {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = Clock { start: Instant::now(), wall: wall.as_millis() as Milliseconds };
        Presences { own, clock, runtime: Handle::current(), rooms: Mutex::default() }
    }

    /// What is known of a namespace, for as long as somebody holds it.
    pub(super) fn room(&self, namespace: &str) -> Arc<Room> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(namespace).and_then(Weak::upgrade) {
            return room;
        }
        rooms.retain(|_, room| room.strong_count() > 0);
        let state = State {
            table: PresenceTable::new(self.own, self.clock.wall),
            link_count: 0,
            handle_count: 0,
            is_ticking: false,
        };
        let room = Arc::new(Room {
            clock: self.clock,
            runtime: self.runtime.clone(),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        });
        rooms.insert(namespace.to_owned(), Arc::downgrade(&room));
        room
    }
}

/// Who is present in a namespace, as this node knows it.
pub(super) struct Room {
    clock: Clock,
    runtime: Handle,
    state: Mutex<State>,
    /// Has the table's revision.
    changed: watch::Sender<u64>,
}

struct State {
    table: PresenceTable,
    /// How many sessions there have been.
    link_count: LinkNumber,
    /// How many handles applications hold.
    handle_count: usize,
    /// Whether a task passes on the time.
    is_ticking: bool,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table, and tells whoever watches.
    fn change(self: &Arc<Room>, change: impl FnOnce(&mut State, Milliseconds)) {
        let mut state = self.lock();
        change(&mut state, self.clock.now());
        self.tell(&state);
        if !state.is_ticking && !state.table.is_empty() {
            state.is_ticking = true;
            let room = Arc::downgrade(self);
            self.runtime.spawn(async move {
                loop {
                    sleep(PRESENCE_TICK).await;
                    let Some(room) = room.upgrade() else { return };
                    if !room.tick() {
                        return;
                    }
                }
            });
        }
    }

    fn tell(&self, state: &State) {
        let revision = state.table.revision();
        self.changed.send_if_modified(|told| std::mem::replace(told, revision) != revision);
    }

    /// Gives whether there is something left that time could change.
    fn tick(&self) -> bool {
        let mut state = self.lock();
        state.table.time_passed(self.clock.now());
        self.tell(&state);
        state.is_ticking = !state.table.is_empty();
        state.is_ticking
    }

    fn others(&self) -> BTreeMap<ReplicaKey, Arc<[u8]>> {
        let state = self.lock();
        let others = state.table.others(self.clock.now());
        others.map(|(node, value)| (ReplicaKey(node), value.clone())).collect()
    }

    /// A session of the namespace with a peer begins, and ends when what this gives is dropped.
    pub(super) fn join(self: &Arc<Room>, peer: NodeId) -> PresenceLink {
        let mut state = self.lock();
        state.link_count += 1;
        let mut changed = self.changed.subscribe();
        if !state.table.is_empty() {
            changed.mark_changed();
        }
        PresenceLink { room: self.clone(), name: (state.link_count, peer), changed }
    }
}

/// What a session has to do with the presence of its namespace.
pub(super) struct PresenceLink {
    room: Arc<Room>,
    name: (LinkNumber, NodeId),
    changed: watch::Receiver<u64>,
}

impl PresenceLink {
    /// Waits until there may be something that the peer was not told.
    pub(super) async fn changed(&mut self) {
        // The room holds the sender.
        let _ = self.changed.changed().await;
    }

    pub(super) fn receive(&self, updates: Vec<PresenceUpdate>) {
        self.room.change(|state, now| state.table.receive(self.name, updates, now));
    }

    /// What the peer was not told, and up to which revision that goes.
    pub(super) fn updates_since(&self, revision: u64) -> (Vec<PresenceUpdate>, u64) {
        let now = self.room.clock.now();
        self.room.lock().table.updates_since(revision, self.name, now)
    }
}

impl Drop for PresenceLink {
    fn drop(&mut self) {
        self.room.change(|state, now| state.table.link_ended(self.name.0, now));
    }
}

/// Who is here in a namespace, and what they show: what no store keeps, such as a cursor, a name, or that
/// somebody is typing. Made by [`Node::presence`](crate::Node::presence).
///
/// What this node shows goes to all peers that a session of the namespace is open with, and from them to
/// theirs: a sync server passes it on between its clients. It ends everywhere when it is cleared, when the last
/// handle of this node and namespace is dropped, with the session, or at the latest 30 s after the node was
/// heard of. Values replace each other and only the newest is sent, at most 20 times a second to each
/// peer; nothing is sent where nobody shows anything.
///
/// Whoever may read a namespace may show something in it. A node that a session is open with shows its own;
/// for what it passes on of others it is trusted as it is trusted with the namespace's secret. Over
/// WebSocket, a peer that shows the secret alone says who it is and does not prove it. So presence tells
/// people of each other, and is nothing to decide rights by.
///
/// ```
/// # use std::time::Duration;
/// # use vudo_p2p::{Config, Node, PresenceChange};
/// # use vudo_state::Database;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let (laptop, phone) = (Database::open_in_memory()?, Database::open_in_memory()?);
/// # let server = Node::spawn(&laptop, Config::loopback()).await?;
/// # let client = Node::spawn(&phone, Config::loopback()).await?;
/// let link = client.connect(&server.share("default")?).await?;
///
/// let here = client.presence("default");
/// here.set(b"typing")?;
///
/// let others = server.presence("default");
/// let mut changes = others.changes();
/// let change = changes.next().await;
/// let (node, value) = (phone.replica_key(), b"typing".as_slice().into());
/// assert_eq!(change, PresenceChange::Joined { node, value });
/// assert_eq!(others.others().len(), 1);
///
/// here.clear();
/// assert_eq!(changes.next().await, PresenceChange::Left { node });
/// # link.close().await;
/// # client.shutdown().await;
/// # server.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Presence {
    room: Arc<Room>,
}

impl Presence {
    pub(super) fn new(room: Arc<Room>) -> Presence {
        room.lock().handle_count += 1;
        Presence { room }
    }

    /// Shows a value, in place of what this node showed before.
    ///
    /// # Errors
    /// [`Error::PresenceTooLarge`] where it has more than
    /// [`PRESENCE_BYTES_MAX`] bytes.
    pub fn set(&self, value: &[u8]) -> Result<()> {
        if value.len() > PRESENCE_BYTES_MAX {
            return Err(Error::PresenceTooLarge { bytes: value.len() });
        }
        self.room.change(|state, now| state.table.set(Some(value.into()), now));
        Ok(())
    }

    /// Shows nothing any more: to others this node has left.
    pub fn clear(&self) {
        self.room.change(|state, now| state.table.set(None, now));
    }

    /// Every other node that is here at this moment, ascending, and what it shows.
    pub fn others(&self) -> Vec<(ReplicaKey, Arc<[u8]>)> {
        self.room.others().into_iter().collect()
    }

    /// What changes from now on, beginning with who is here.
    pub fn changes(&self) -> PresenceChanges {
        let mut changed = self.room.changed.subscribe();
        changed.mark_changed();
        PresenceChanges {
            room: self.room.clone(),
            changed,
            told: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }
}

impl Clone for Presence {
    fn clone(&self) -> Presence {
        Presence::new(self.room.clone())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.room.change(|state, now| {
            state.handle_count -= 1;
            if state.handle_count == 0 {
                state.table.set(None, now);
            }
        });
    }
}

/// What has become of one other node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceChange {
    /// It was not here before.
    Joined {
        /// Its id, which is its store's key.
        node: ReplicaKey,
        /// What it shows.
        value: Arc<[u8]>,
    },
    /// It shows something else.
    Updated {
        /// Its id.
        node: ReplicaKey,
        /// What it shows now.
        value: Arc<[u8]>,
    },
    /// It is not here any more.
    Left {
        /// Its id.
        node: ReplicaKey,
    },
}

/// Tells what becomes of the other nodes of a namespace. Whoever reads slowly is told the last value of each
/// and not those in between, so nothing queues up.
pub struct PresenceChanges {
    room: Arc<Room>,
    changed: watch::Receiver<u64>,
    /// Who was here when this was last looked at, and what they showed.
    told: BTreeMap<ReplicaKey, Arc<[u8]>>,
    /// What came of that and was not asked for yet: at most one change of each node.
    waiting: VecDeque<PresenceChange>,
}

impl PresenceChanges {
    /// Waits for the next change.
    pub async fn next(&mut self) -> PresenceChange {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return change;
            }
            // The room holds the sender.
            let _ = self.changed.changed().await;
            self.look();
        }
    }

    fn look(&mut self) {
        let now = self.room.others();
        let left = self.told.keys().filter(|node| !now.contains_key(*node));
        self.waiting.extend(left.map(|node| PresenceChange::Left { node: *node }));
        for (node, value) in &now {
            let (node, value) = (*node, value.clone());
            match self.told.get(&node) {
                None => self.waiting.push_back(PresenceChange::Joined { node, value }),
                Some(told) if *told != value => {
                    self.waiting.push_back(PresenceChange::Updated { node, value });
                }
                Some(_) => {}
            }
        }
        self.told = now;
    }
}
