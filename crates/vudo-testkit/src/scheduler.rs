//! Virtual time: events in the order of their times, and of equal times in the order in which they
//! were scheduled.

use std::collections::BTreeMap;

/// Virtual time since the beginning of a simulation.
pub type Microseconds = u64;

/// What will happen, and what time it is.
#[derive(Clone, Debug)]
pub struct Scheduler<E> {
    now: Microseconds,
    scheduled_count: u64,
    events: BTreeMap<(Microseconds, u64), E>,
}

impl<E> Default for Scheduler<E> {
    fn default() -> Scheduler<E> {
        Scheduler { now: 0, scheduled_count: 0, events: BTreeMap::new() }
    }
}

impl<E> Scheduler<E> {
    /// The time of the event that was given last.
    pub fn now(&self) -> Microseconds {
        self.now
    }

    /// Lets an event happen so much later than now.
    pub fn schedule(&mut self, delay: Microseconds, event: E) {
        self.events.insert((self.now + delay, self.scheduled_count), event);
        self.scheduled_count += 1;
    }

    /// The next event; time moves on to it.
    pub fn next_event(&mut self) -> Option<E> {
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }
}
