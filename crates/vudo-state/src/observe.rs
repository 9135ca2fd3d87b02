//! Watching a namespace: subscriptions, callbacks, queries and live queries.

use std::collections::BTreeMap;

use crate::database::Database;
use crate::error::Result;
use crate::live::LiveQuery;
use crate::query::{Place, Query};
use crate::record::{Record, is_in_rows, load_fields};
use crate::subscription::{CallbackGuard, Event, Interest, Subscription};

impl Database {
    /// Subscribes to what changes in the handle's namespace.
    ///
    /// # Errors
    /// The namespace cannot be opened.
    pub fn subscribe(&self, interest: Interest) -> Result<Subscription> {
        Ok(self.shard()?.subscribers.subscribe(interest))
    }

    /// Calls back with what changes in the handle's namespace, until the guard is dropped.
    ///
    /// Callbacks run on the thread that commits, after the commit has been applied and before it
    /// is durable, one at a time and in order. They may read and write; what they write is told
    /// after they have returned. A slow one keeps whoever commits waiting: it should hand its work
    /// to a thread of its own, or be a [`Subscription`] instead.
    ///
    /// # Errors
    /// The namespace cannot be opened.
    pub fn on_change(
        &self,
        interest: Interest,
        callback: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<CallbackGuard> {
        Ok(self.shard()?.subscribers.call_back(interest, callback))
    }

    /// The documents that a query asks for, in its order.
    ///
    /// # Errors
    /// The disk failed, or a counter's total does not fit its type and its Gen asks for an error.
    pub fn query(&self, query: &Query) -> Result<Vec<Record>> {
        if query.limit_count() == 0 {
            return Ok(Vec::new());
        }
        let shard = self.shard()?;
        let mut state = shard.lock();
        let Some(gen_index) = state.namespace.find_gen(&query.gen_schema().name) else {
            return Ok(Vec::new());
        };
        let mut found: BTreeMap<Place, Result<Record>> = BTreeMap::new();
        state.namespace.visit_rows(gen_index, &[], &mut shard.chunks(), |row| {
            let Some(place) = query.place_of(&row) else {
                return true;
            };
            let is_full = found.len() == query.limit_count();
            if is_full && found.last_key_value().is_some_and(|(last, _)| *last < place) {
                return true;
            }
            if is_full {
                found.pop_last();
            }
            found.insert(place, Record::read_row(query.gen_schema(), &row));
            true
        })?;
        let gen_schema = query.gen_schema();
        if is_in_rows(gen_schema) {
            return found.into_values().collect();
        }
        let mut records = Vec::new();
        for place in found.into_keys() {
            let namespace = &mut state.namespace;
            load_fields(namespace, &mut shard.chunks(), gen_schema, gen_index, place.key())?;
            records.push(Record::read(&mut &*namespace, gen_schema, gen_index, place.key())?);
        }
        Ok(records)
    }

    /// How many documents meet the conditions of a query. Its limit does not count.
    ///
    /// # Errors
    /// The disk failed.
    pub fn count(&self, query: &Query) -> Result<u64> {
        let shard = self.shard()?;
        let state = shard.lock();
        let Some(gen_index) = state.namespace.find_gen(&query.gen_schema().name) else {
            return Ok(0);
        };
        let mut count = 0;
        state.namespace.visit_rows(gen_index, &[], &mut shard.chunks(), |row| {
            count += u64::from(query.place_of(&row).is_some());
            true
        })?;
        Ok(count)
    }

    /// Follows a query: its result now, and each change of it from now on.
    ///
    /// # Errors
    /// The disk failed.
    pub fn live(&self, query: Query) -> Result<LiveQuery> {
        LiveQuery::start(self.shard()?, self.clone(), query)
    }
}
