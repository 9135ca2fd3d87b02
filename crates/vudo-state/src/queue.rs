//! A bounded queue from whoever commits to one reader, who polls, waits, awaits or is called back.
//!
//! **The invariant.** Items come out in the order in which they went in. What does not fit is left
//! out and counted, and the next item that fits says how many were: memory stays bounded, and nobody
//! who commits waits for anybody who reads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The queue. Writers and the reader share it.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    is_closed: AtomicBool,
    weight_max: usize,
}

struct State<T> {
    /// Each with how many items were left out before it.
    items: VecDeque<(T, u64)>,
    /// What the items weigh together.
    weight: usize,
    left_out: u64,
    waker: Option<Waker>,
    /// Whether somebody waits for the condition: telling nobody costs more than asking.
    has_waiter: bool,
}

impl<T> Queue<T> {
    /// A queue whose items weigh at most this much together; a single one may weigh more.
    pub(crate) fn new(weight_max: usize) -> Arc<Queue<T>> {
        let items = VecDeque::new();
        let state = State { items, weight: 0, left_out: 0, waker: None, has_waiter: false };
        Arc::new(Queue {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            is_closed: AtomicBool::new(false),
            weight_max,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the reader has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The reader goes.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.lock().items.clear();
    }

    /// Adds an item, or counts it as left out where there is no room.
    pub(crate) fn offer(&self, item: T, weight: usize) {
        let mut state = self.lock();
        if !state.items.is_empty() && state.weight + weight > self.weight_max {
            state.left_out += 1;
            return;
        }
        state.weight += weight;
        let left_out = std::mem::take(&mut state.left_out);
        state.items.push_back((item, left_out));
        let (waker, has_waiter) = (state.waker.take(), state.has_waiter);
        drop(state);
        if has_waiter {
            self.arrived.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Counts an item that could not be made.
    pub(crate) fn leave_out(&self) {
        self.lock().left_out += 1;
    }

    /// Forgets what is there, and what was left out.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.items.clear();
        state.weight = 0;
        state.left_out = 0;
    }

    /// The next item, waiting for it at most this long, and how many were left out before it.
    pub(crate) fn next_within(
        &self,
        timeout: Duration,
        weight_of: impl Fn(&T) -> usize,
    ) -> Option<(T, u64)> {
        let mut state = self.lock();
        if let Some(found) = state.pop(&weight_of) {
            return Some(found);
        }
        // A time that is too far away for the clock is never reached.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            state.has_waiter = true;
            let left = left.unwrap_or(Duration::from_secs(3600));
            let waited = self.arrived.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.has_waiter = false;
            if let Some(found) = state.pop(&weight_of) {
                return Some(found);
            }
        }
    }

    /// The next item, or the promise to wake when there is one.
    pub(crate) fn poll_next(
        &self,
        context: &mut Context<'_>,
        weight_of: impl Fn(&T) -> usize,
    ) -> Poll<(T, u64)> {
        let mut state = self.lock();
        match state.pop(&weight_of) {
            Some(found) => Poll::Ready(found),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> State<T> {
    fn pop(&mut self, weight_of: impl Fn(&T) -> usize) -> Option<(T, u64)> {
        let (item, left_out) = self.items.pop_front()?;
        self.weight -= weight_of(&item);
        Some((item, left_out))
    }
}
