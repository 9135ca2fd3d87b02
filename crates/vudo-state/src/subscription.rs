//! Subscriptions: being told what changed, in order, once for each transaction.
//!
//! ```text
//! change applied --> Transition (documents, fields) --+--> queue of a subscriber --> poll, wait, await
//!                                                     +--> queue of a callback   --> called after the
//!                                                                                    commit's locks
//! ```
//!
//! A transition is made once and shared by everybody who wants all of it. Who is interested in one
//! document is found by its key, so a commit costs what it changes and whom it reaches.
//!
//! **The invariant.** A subscriber who was not told that it lagged has been told of every change that
//! concerns it, in the order in which they were applied here.

use std::collections::HashMap;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use vudo_crdt::{Misfit, ReplicaKey};

use crate::limits::QUEUE_DOCUMENTS_MAX;
use crate::queue::Queue;

/// What to be told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Everything in the namespace.
    Namespace,
    /// Every document of a Gen.
    Gen {
        /// The Gen.
        gen_name: String,
    },
    /// The documents of a Gen whose keys begin alike.
    Prefix {
        /// Their Gen.
        gen_name: String,
        /// What their keys begin with.
        key_prefix: String,
    },
    /// One document.
    Document {
        /// Its Gen.
        gen_name: String,
        /// Its key.
        key: String,
    },
    /// One field of a document; also that the document comes into being with it, or goes.
    Field {
        /// The document's Gen.
        gen_name: String,
        /// The document's key.
        key: String,
        /// The field's number in its Gen.
        field_number: u32,
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
    /// One of its fields has been written.
    Updated,
    /// It exists no more.
    Deleted,
}

/// A document that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentEvent {
    /// Its Gen.
    pub gen_name: Arc<str>,
    /// Its key.
    pub key: String,
    /// What became of it.
    pub kind: ChangeKind,
    /// The numbers of the fields whose cells have changed, ascending; of a new document all that it
    /// has, of a deleted one none. A field is listed too where a write left its value as it was, and
    /// where it reads a cell that changed under an earlier number, of Gens that the store has defined.
    pub fields: Vec<u32>,
    /// The rules of its Gen that the document breaks, as it is now. Only what replicas have written
    /// apart breaks any: a transaction that would is refused. For Gens that the store has defined.
    pub broken_rules: Vec<String>,
    /// What of the changed fields the document holds and cannot show: see [`crate::Database::misfits`].
    /// For Gens that the store has defined.
    pub misfits: Vec<Misfit>,
}

/// What one transaction changed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Where.
    pub namespace: Arc<str>,
    /// Whether this store made the change.
    pub origin: Origin,
    /// The replica that made the change.
    pub replica: ReplicaKey,
    /// Which of the replica's changes it is; zero where changes were set aside or taken back here,
    /// which is no change itself.
    pub number: u64,
    /// What it changed, each document once. A change that loses everywhere is told of to nobody.
    pub documents: Vec<DocumentEvent>,
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What of a transaction is of interest to the subscriber.
    pub transition: Arc<Transition>,
    /// How many events were left out before this one because the subscriber was too slow. Read
    /// the state again where this is not zero.
    pub lagged: u64,
}

impl Deref for Event {
    type Target = Transition;

    fn deref(&self) -> &Transition {
        &self.transition
    }
}

/// Receives events until it is dropped: by asking, by waiting, or as a stream, which needs no
/// runtime of any kind.
pub struct Subscription {
    queue: Arc<EventQueue>,
    subscribers: Arc<Subscribers>,
}

type EventQueue = Queue<Arc<Transition>>;

fn weight_of(transition: &Arc<Transition>) -> usize {
    transition.documents.len()
}

fn event_of((transition, lagged): (Arc<Transition>, u64)) -> Event {
    Event { transition, lagged }
}

impl Subscription {
    /// The next event, if one is there.
    pub fn try_next(&self) -> Option<Event> {
        self.next_within(Duration::ZERO)
    }

    /// The next event, waiting for it at most this long.
    pub fn next_within(&self, timeout: Duration) -> Option<Event> {
        self.queue.next_within(timeout, weight_of).map(event_of)
    }

    /// The events that are there.
    pub fn try_iter(&self) -> impl Iterator<Item = Event> + '_ {
        std::iter::from_fn(|| self.try_next())
    }
}

impl futures_core::Stream for Subscription {
    type Item = Event;

    /// Never ends by itself.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.queue.poll_next(context, weight_of).map(|found| Some(event_of(found)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribers.leave(&self.queue);
    }
}

/// Calls back until it is dropped.
pub struct CallbackGuard {
    queue: Arc<EventQueue>,
    subscribers: Arc<Subscribers>,
    /// The only one that owns it: a callback may own a handle to the store, which would otherwise
    /// own it in turn and never close.
    _callback: Arc<dyn Fn(&Event) + Send + Sync>,
}

impl Drop for CallbackGuard {
    fn drop(&mut self) {
        self.subscribers.leave(&self.queue);
    }
}

type Callback = Weak<dyn Fn(&Event) + Send + Sync>;

/// Somebody who is told.
#[derive(Clone)]
struct Subscriber {
    queue: Arc<EventQueue>,
    interest: Arc<Interest>,
    callback: Option<Callback>,
}

/// Everybody who is told about one namespace.
#[derive(Default)]
pub(crate) struct Subscribers {
    count: AtomicUsize,
    registry: Mutex<Registry>,
    /// Callbacks that have events to be called with.
    due: Mutex<Vec<Subscriber>>,
    /// Held by whoever calls back, so that callbacks are called one at a time and in order.
    calling: Mutex<()>,
}

#[derive(Default)]
struct Registry {
    /// Interested in more than one document.
    broad: Vec<Subscriber>,
    /// By Gen and key.
    narrow: HashMap<String, HashMap<String, Vec<Subscriber>>>,
    /// Subscribers that have gone and are still listed.
    gone_count: usize,
}

impl Subscribers {
    pub(crate) fn subscribe(self: &Arc<Self>, interest: Interest) -> Subscription {
        Subscription { queue: self.enter(interest, None), subscribers: self.clone() }
    }

    pub(crate) fn call_back(
        self: &Arc<Self>,
        interest: Interest,
        callback: impl Fn(&Event) + Send + Sync + 'static,
    ) -> CallbackGuard {
        let callback: Arc<dyn Fn(&Event) + Send + Sync> = Arc::new(callback);
        let queue = self.enter(interest, Some(Arc::downgrade(&callback)));
        CallbackGuard { queue, subscribers: self.clone(), _callback: callback }
    }

    fn enter(&self, interest: Interest, callback: Option<Callback>) -> Arc<EventQueue> {
        let queue = Queue::new(QUEUE_DOCUMENTS_MAX);
        let interest = Arc::new(interest);
        let subscriber = Subscriber { queue: queue.clone(), interest: interest.clone(), callback };
        let mut registry = self.lock();
        registry.forget_gone();
        match &*interest {
            Interest::Document { gen_name, key } | Interest::Field { gen_name, key, .. } => {
                let of_gen = registry.narrow.entry(gen_name.clone()).or_default();
                of_gen.entry(key.clone()).or_default().push(subscriber);
            }
            _ => registry.broad.push(subscriber),
        }
        self.count.fetch_add(1, Ordering::Release);
        queue
    }

    fn leave(&self, queue: &EventQueue) {
        queue.close();
        self.count.fetch_sub(1, Ordering::Release);
        self.lock().gone_count += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anybody to tell.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Puts a transition into the queues of those whom it concerns.
    pub(crate) fn publish(&self, transition: Transition) {
        let transition = Arc::new(transition);
        let registry = self.lock();
        let mut due = Vec::new();
        for subscriber in &registry.broad {
            if let Some(part) = subscriber.interest.part_of(&transition) {
                subscriber.tell(part, &mut due);
            }
        }
        if !registry.narrow.is_empty() {
            for document in &transition.documents {
                let of_gen = registry.narrow.get(&*document.gen_name);
                let Some(interested) = of_gen.and_then(|keys| keys.get(&document.key)) else {
                    continue;
                };
                let part = transition.with_documents(vec![document.clone()]);
                for subscriber in interested {
                    if subscriber.interest.wants(document) {
                        subscriber.tell(part.clone(), &mut due);
                    }
                }
            }
        }
        drop(registry);
        if !due.is_empty() {
            self.lock_due().extend(due);
        }
    }

    fn lock_due(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls back whoever has events. Nothing of the store may be locked. A callback may write to
    /// the store: what it causes is told by this call, after the callback has returned.
    pub(crate) fn run_callbacks(&self) {
        loop {
            if self.lock_due().is_empty() {
                return;
            }
            // Whoever holds the turn looks again when it has given it back.
            let turn = match self.calling.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let due = std::mem::take(&mut *self.lock_due());
            for subscriber in due {
                let callback = subscriber.callback.as_ref().and_then(Weak::upgrade);
                let Some(callback) = callback else { continue };
                while let Some(found) = subscriber.queue.next_within(Duration::ZERO, weight_of) {
                    callback(&event_of(found));
                }
            }
            drop(turn);
        }
    }
}

impl Registry {
    /// Forgets those that have gone, once they are as many as those that are here.
    fn forget_gone(&mut self) {
        let narrow_count: usize = self.narrow.values().map(HashMap::len).sum();
        if self.gone_count <= (self.broad.len() + narrow_count) / 2 {
            return;
        }
        self.gone_count = 0;
        self.broad.retain(|subscriber| !subscriber.queue.is_closed());
        for keys in self.narrow.values_mut() {
            keys.retain(|_, subscribers| {
                subscribers.retain(|subscriber| !subscriber.queue.is_closed());
                !subscribers.is_empty()
            });
        }
        self.narrow.retain(|_, keys| !keys.is_empty());
    }
}

impl Subscriber {
    fn tell(&self, part: Arc<Transition>, due: &mut Vec<Subscriber>) {
        if self.queue.is_closed() {
            return;
        }
        let weight = weight_of(&part);
        self.queue.offer(part, weight);
        if self.callback.is_some() {
            due.push(self.clone());
        }
    }
}

impl Transition {
    fn with_documents(&self, documents: Vec<DocumentEvent>) -> Arc<Transition> {
        let Transition { namespace, origin, replica, number, .. } = self;
        let namespace = namespace.clone();
        let (origin, replica, number) = (*origin, *replica, *number);
        Arc::new(Transition { namespace, origin, replica, number, documents })
    }
}

impl Interest {
    /// What of a transition is of interest.
    fn part_of(&self, transition: &Arc<Transition>) -> Option<Arc<Transition>> {
        let documents = &transition.documents;
        let wanted_count = documents.iter().filter(|document| self.wants(document)).count();
        if wanted_count == documents.len() {
            return Some(transition.clone());
        }
        let wanted = documents.iter().filter(|document| self.wants(document)).cloned();
        (wanted_count > 0).then(|| transition.with_documents(wanted.collect()))
    }

    fn wants(&self, document: &DocumentEvent) -> bool {
        match self {
            Interest::Namespace => true,
            Interest::Gen { gen_name } => *document.gen_name == **gen_name,
            Interest::Prefix { gen_name, key_prefix } => {
                *document.gen_name == **gen_name && document.key.starts_with(key_prefix)
            }
            Interest::Document { gen_name, key } => {
                *document.gen_name == **gen_name && document.key == *key
            }
            Interest::Field { gen_name, key, field_number } => {
                let is_deleted = document.kind == ChangeKind::Deleted;
                *document.gen_name == **gen_name
                    && document.key == *key
                    && (is_deleted || document.fields.contains(field_number))
            }
        }
    }
}
