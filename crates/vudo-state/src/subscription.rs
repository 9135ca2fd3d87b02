//! Subscriptions: being told what changed, in order, once for each transaction.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use vudo_crdt::GenIndex;

/// A subscriber that is this many transactions behind is told that it lagged.
pub const QUEUE_EVENTS_MAX: usize = 1024;

/// What to be told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Everything in the namespace.
    Namespace,
    /// One document.
    Document {
        /// Its Gen.
        gen_name: String,
        /// Its key.
        key: String,
    },
}

/// Who made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This store.
    Local,
    /// A peer.
    Remote,
}

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It exists now.
    Created,
    /// One of its fields has another state.
    Updated,
    /// It exists no more.
    Deleted,
}

/// A document that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentEvent {
    gen_index: GenIndex,
    /// Its Gen.
    pub gen_name: Arc<str>,
    /// Its key.
    pub key: String,
    /// What became of it.
    pub kind: ChangeKind,
}

impl DocumentEvent {
    pub(crate) fn new(gen_index: GenIndex, key: &[u8], kind: ChangeKind) -> DocumentEvent {
        // Keys are checked to be UTF-8 where they enter.
        let key = String::from_utf8_lossy(key).into_owned();
        DocumentEvent { gen_index, gen_name: Arc::default(), key, kind }
    }
}

/// What one transaction, or one frame of a peer, changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub namespace: Arc<str>,
    /// Who.
    pub origin: Origin,
    /// What, each document once.
    pub documents: Vec<DocumentEvent>,
    /// How many events were left out before this one because the subscriber was too slow. Read
    /// the state again where this is not zero.
    pub lagged: u64,
}

impl Event {
    pub(crate) fn new(
        namespace: Arc<str>,
        origin: Origin,
        changes: Vec<DocumentEvent>,
        gen_names: &[Arc<str>],
    ) -> Event {
        let mut documents: Vec<DocumentEvent> = Vec::with_capacity(changes.len());
        let mut places = std::collections::HashMap::new();
        for mut change in changes {
            change.gen_name = gen_names[change.gen_index as usize].clone();
            match places.entry((change.gen_index, change.key.clone())) {
                std::collections::hash_map::Entry::Occupied(place) => {
                    let earlier: &mut DocumentEvent = &mut documents[*place.get()];
                    earlier.kind = coalesce(earlier.kind, change.kind);
                }
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(documents.len());
                    documents.push(change);
                }
            }
        }
        Event { namespace, origin, documents, lagged: 0 }
    }
}

/// What two changes of a document, one after the other, come to.
fn coalesce(earlier: ChangeKind, later: ChangeKind) -> ChangeKind {
    match (earlier, later) {
        (ChangeKind::Created, ChangeKind::Updated) => ChangeKind::Created,
        (ChangeKind::Deleted, ChangeKind::Created) => ChangeKind::Updated,
        (_, later) => later,
    }
}

/// Receives events until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    interest: Interest,
    events: Mutex<(VecDeque<Event>, u64)>,
    arrived: Condvar,
}

impl Subscription {
    /// The next event, if one is there.
    pub fn try_next(&self) -> Option<Event> {
        self.next_within(Duration::ZERO)
    }

    /// The next event, waiting for it at most this long.
    pub fn next_within(&self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now() + timeout;
        let mut queued = self.queue.events.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(event) = queued.0.pop_front() {
                return Some(event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.queue.arrived.wait_timeout(queued, left);
            queued = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Everybody who is told about one namespace.
#[derive(Default)]
pub(crate) struct Subscribers {
    queues: Mutex<Vec<Weak<Queue>>>,
}

impl Subscribers {
    pub(crate) fn subscribe(&self, interest: Interest) -> Subscription {
        let events = Mutex::default();
        let queue = Arc::new(Queue { interest, events, arrived: Condvar::new() });
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        Subscription { queue }
    }

    pub(crate) fn any(&self) -> bool {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| queue.strong_count() > 0);
        !queues.is_empty()
    }

    pub(crate) fn publish(&self, event: &Event) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().filter_map(Weak::upgrade).for_each(|queue| queue.offer(event));
    }
}

impl Queue {
    fn offer(&self, event: &Event) {
        let Some(mut wanted) = self.interest.part_of(event) else {
            return;
        };
        let mut queued = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let (events, lagged) = &mut *queued;
        if events.len() >= QUEUE_EVENTS_MAX {
            *lagged += 1;
            return;
        }
        wanted.lagged = std::mem::take(lagged);
        events.push_back(wanted);
        self.arrived.notify_one();
    }
}

impl Interest {
    /// What of an event is of interest.
    fn part_of(&self, event: &Event) -> Option<Event> {
        let Interest::Document { gen_name, key } = self else {
            return Some(event.clone());
        };
        let is_wanted =
            |document: &&DocumentEvent| *document.gen_name == **gen_name && document.key == *key;
        // Each document is in an event once.
        let document = event.documents.iter().find(is_wanted)?.clone();
        let Event { namespace, origin, lagged, .. } = event;
        let (namespace, documents) = (namespace.clone(), vec![document]);
        Some(Event { namespace, origin: *origin, documents, lagged: *lagged })
    }
}
