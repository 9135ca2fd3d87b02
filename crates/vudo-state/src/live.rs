//! Live queries: results that follow every change, and say what of them changed.
//!
//! ```text
//! row before, row after --> old place, new place --> shown (up to the limit) | waiting
//!                                                       |
//!                                             steps: entered, changed, left
//! ```
//!
//! A query knows where its documents are by their places alone; the row before a change says where
//! the document was, so a change costs two searches and no look at the other documents. What waits
//! beyond the limit is kept too, for when something in front of it goes.
//!
//! **The invariant.** The result that [`LiveQuery::snapshot`] gives, with every step since taken in
//! order, is the result of the query now.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use vudo_crdt::{GenIndex, Namespace, Row};

use crate::database::Database;
use crate::error::Result;
use crate::limits::QUEUE_STEPS_MAX;
use crate::query::{Place, Query};
use crate::queue::Queue;
use crate::record::{Record, is_in_rows, load_fields};
use crate::shard::Shard;
use crate::stored_chunks::StoredChunks;

/// How a result changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A document is part of it now.
    Entered {
        /// Where.
        place: Place,
        /// The document.
        record: Arc<Record>,
    },
    /// A document that is part of it has changed, and may have moved.
    Changed {
        /// Where it was.
        from: Place,
        /// Where it is.
        place: Place,
        /// The document.
        record: Arc<Record>,
    },
    /// A document is no longer part of it.
    Left {
        /// Where it was.
        place: Place,
    },
}

/// What a transaction, or a frame of a peer, did to a result.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultChange {
    /// To be taken in this order.
    pub steps: Vec<Step>,
    /// How many documents meet the conditions now, those beyond the limit among them.
    pub match_count: u64,
    /// How many changes were left out before this one because the reader was too slow. Take a
    /// [`LiveQuery::snapshot`] where this is not zero.
    pub lagged: u64,
}

type StepQueue = Queue<(Vec<Step>, u64)>;

fn weight_of(change: &(Vec<Step>, u64)) -> usize {
    change.0.len()
}

fn change_of(((steps, match_count), lagged): ((Vec<Step>, u64), u64)) -> ResultChange {
    ResultChange { steps, match_count, lagged }
}

/// A query whose result is followed until this is dropped.
pub struct LiveQuery {
    shared: Arc<Shared>,
    shard: Arc<Shard>,
    /// Keeps the store open.
    _database: Database,
}

struct Shared {
    queue: Arc<StepQueue>,
    match_count: AtomicU64,
}

impl LiveQuery {
    pub(crate) fn start(shard: Arc<Shard>, database: Database, query: Query) -> Result<LiveQuery> {
        let shared =
            Arc::new(Shared { queue: Queue::new(QUEUE_STEPS_MAX), match_count: AtomicU64::new(0) });
        let mut state = shard.lock();
        let gen_index = state.intern_gen(query.gen_schema())?;
        let mut followed = Followed::new(query, gen_index, shared.clone());
        state.namespace.visit_rows(gen_index, &[], &mut shard.chunks(), |row| {
            if let Some(place) = followed.query.place_of(&row) {
                followed.insert(place);
                followed.evict();
            }
            true
        })?;
        shared.match_count.store(followed.match_count(), Ordering::Release);
        state.notices.queries.push(followed);
        drop(state);
        Ok(LiveQuery { shared, shard, _database: database })
    }

    /// The result as it is now, in order. Changes that were not read yet are forgotten: it has them.
    ///
    /// # Errors
    /// The disk failed.
    pub fn snapshot(&self) -> Result<Vec<(Place, Arc<Record>)>> {
        self.shard.check_outside()?;
        let mut state = self.shard.lock();
        let state = &mut *state;
        self.shared.queue.clear();
        let queries = &state.notices.queries;
        let mut result = Vec::new();
        let found = queries.iter().find(|one| Arc::ptr_eq(&one.shared, &self.shared));
        if let Some(followed) = found {
            for place in &followed.shown {
                let record =
                    followed.read(place, &mut state.namespace, &mut self.shard.chunks())?;
                result.push((place.clone(), record));
            }
        }
        Ok(result)
    }

    /// How many documents meet the conditions, those beyond the limit among them.
    pub fn match_count(&self) -> u64 {
        self.shared.match_count.load(Ordering::Acquire)
    }

    /// The next change of the result, if there is one.
    pub fn try_next(&self) -> Option<ResultChange> {
        self.next_within(Duration::ZERO)
    }

    /// The next change of the result, waiting for it at most this long.
    pub fn next_within(&self, timeout: Duration) -> Option<ResultChange> {
        self.shared.queue.next_within(timeout, weight_of).map(change_of)
    }
}

impl futures_core::Stream for LiveQuery {
    type Item = ResultChange;

    /// Never ends by itself.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ResultChange>> {
        self.shared.queue.poll_next(context, weight_of).map(|found| Some(change_of(found)))
    }
}

impl Drop for LiveQuery {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// Where a document was, and where and what it is now; `None` where it is not part of the matches. The
/// record is `None` where it is to be read once everything has been applied.
type Staged = (Option<Place>, Option<(Place, Option<Arc<Record>>)>);

/// A query that is followed, at the side of whoever commits.
pub(crate) struct Followed {
    query: Query,
    gen_index: GenIndex,
    /// The result.
    shown: BTreeSet<Place>,
    /// What meets the conditions beyond the limit. Everything here sorts after everything shown,
    /// and it is empty unless the limit is reached.
    waiting: BTreeSet<Place>,
    /// Whether the records can be made of the rows of documents alone.
    is_in_rows: bool,
    /// Documents of the change that is being applied.
    staged: Vec<Staged>,
    /// The keys of those in whose collections something has changed.
    with_entries: BTreeSet<Vec<u8>>,
    shared: Arc<Shared>,
}

impl Followed {
    fn new(query: Query, gen_index: GenIndex, shared: Arc<Shared>) -> Followed {
        let (shown, waiting) = (BTreeSet::new(), BTreeSet::new());
        let is_in_rows = is_in_rows(query.gen_schema());
        let (staged, with_entries) = (Vec::new(), BTreeSet::new());
        Followed { query, gen_index, shown, waiting, is_in_rows, staged, with_entries, shared }
    }

    /// Whether nobody reads it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.queue.is_closed()
    }

    fn match_count(&self) -> u64 {
        (self.shown.len() + self.waiting.len()) as u64
    }

    /// Notes a row of a change that is being applied.
    pub(crate) fn stage(&mut self, gen_index: GenIndex, before: Option<Row<'_>>, after: &Row<'_>) {
        if gen_index != self.gen_index {
            return;
        }
        let old = before.and_then(|row| self.query.place_of(&row));
        let new = self.query.place_of(after).map(|place| {
            let read = || Arc::new(Record::read_lenient(self.query.gen_schema(), after));
            (place, self.is_in_rows.then(read))
        });
        if old.is_some() || new.is_some() {
            self.staged.push((old, new));
        }
    }

    /// Notes that something in the collections of a document has changed.
    pub(crate) fn stage_entries(&mut self, gen_index: GenIndex, key: &[u8]) {
        if gen_index != self.gen_index || self.is_in_rows {
            return;
        }
        if !self.with_entries.contains(key) {
            self.with_entries.insert(key.to_vec());
        }
    }

    /// Takes the staged rows into the result and tells the reader.
    pub(crate) fn finish(&mut self, namespace: &mut Namespace, chunks: &mut StoredChunks<'_>) {
        if self.staged.is_empty() && self.with_entries.is_empty() {
            return;
        }
        let mut steps = Vec::new();
        let mut is_complete = true;
        for (old, new) in std::mem::take(&mut self.staged) {
            let new = new.map(|(place, record)| {
                let record = record.unwrap_or_else(|| {
                    // It is read as it is after everything, its collections included.
                    self.with_entries.remove(place.key().as_bytes());
                    self.read_or_note(&place, namespace, chunks, &mut is_complete)
                });
                (place, record)
            });
            self.step(old, new, &mut steps);
        }
        for key in std::mem::take(&mut self.with_entries) {
            let row = namespace.row(self.gen_index, &key, chunks);
            is_complete &= row.is_ok();
            let place = row.ok().flatten().and_then(|row| self.query.place_of(&row));
            if let Some(place) = place.filter(|place| self.shown.contains(place)) {
                let record = self.read_or_note(&place, namespace, chunks, &mut is_complete);
                steps.push(Step::Changed { from: place.clone(), place, record });
            }
        }
        while self.shown.len() < self.query.limit_count()
            && let Some(place) = self.waiting.pop_first()
        {
            let record = self.read_or_note(&place, namespace, chunks, &mut is_complete);
            steps.push(Step::Entered { place: place.clone(), record });
            self.shown.insert(place);
        }
        let match_count = self.match_count();
        self.shared.match_count.store(match_count, Ordering::Release);
        if !is_complete {
            self.shared.queue.leave_out();
        } else if !steps.is_empty() {
            let weight = steps.len();
            self.shared.queue.offer((steps, match_count), weight);
        }
    }

    /// Reads a document. Where that fails the reader of the query is told to look at all of it anew.
    fn read_or_note(
        &self,
        place: &Place,
        namespace: &mut Namespace,
        chunks: &mut StoredChunks<'_>,
        is_complete: &mut bool,
    ) -> Arc<Record> {
        self.read(place, namespace, chunks).unwrap_or_else(|error| {
            tracing::error!("a live query cannot read '{}': {error}", place.key());
            *is_complete = false;
            Arc::default()
        })
    }

    /// Moves one document. What is waiting moves up afterwards.
    fn step(
        &mut self,
        old: Option<Place>,
        new: Option<(Place, Arc<Record>)>,
        steps: &mut Vec<Step>,
    ) {
        let was_shown = old.filter(|place| {
            self.shown.remove(place) || {
                self.waiting.remove(place);
                false
            }
        });
        let is_shown =
            new.and_then(|(place, record)| self.insert(place.clone()).then_some((place, record)));
        steps.extend(match (was_shown, is_shown) {
            (Some(from), Some((place, record))) => Some(Step::Changed { from, place, record }),
            (Some(place), None) => Some(Step::Left { place }),
            (None, Some((place, record))) => Some(Step::Entered { place, record }),
            (None, None) => None,
        });
        steps.extend(self.evict().map(|place| Step::Left { place }));
    }

    /// Lets the last one wait where one too many is shown. Gives its place.
    fn evict(&mut self) -> Option<Place> {
        let is_over = self.shown.len() > self.query.limit_count();
        let place = is_over.then(|| self.shown.pop_last()).flatten()?;
        self.waiting.insert(place.clone());
        Some(place)
    }

    /// Puts a place where it belongs. Gives whether that is among those shown, which may be one too
    /// many then: [`Followed::evict`] ends that.
    fn insert(&mut self, place: Place) -> bool {
        let has_room = self.shown.len() < self.query.limit_count();
        let is_before_waiting = self.waiting.first().is_none_or(|first| place < *first);
        let is_before_last = self.shown.last().is_some_and(|last| place < *last);
        let is_shown = is_before_waiting && (has_room || is_before_last);
        if is_shown {
            self.shown.insert(place)
        } else {
            self.waiting.insert(place)
        };
        is_shown
    }

    fn read(
        &self,
        place: &Place,
        namespace: &mut Namespace,
        chunks: &mut StoredChunks<'_>,
    ) -> Result<Arc<Record>> {
        let (gen_index, gen_schema) = (self.gen_index, self.query.gen_schema());
        if !self.is_in_rows {
            load_fields(namespace, chunks, gen_schema, gen_index, place.key())?;
            let record = Record::read_loaded(&mut &*namespace, gen_schema, gen_index, place.key());
            return Ok(Arc::new(record));
        }
        let row = namespace.row(gen_index, place.key().as_bytes(), chunks)?;
        let record = row.map(|row| Record::read_lenient(gen_schema, &row)).unwrap_or_default();
        Ok(Arc::new(record))
    }
}
