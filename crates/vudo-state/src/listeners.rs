//! Callbacks without an argument, for as long as their guards are held.

use std::sync::{Arc, Mutex, PoisonError};

/// Callbacks that are called when more has become durable.
#[derive(Default)]
pub(crate) struct Listeners {
    entries: Arc<Mutex<ListenerEntries>>,
}

type Callback = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct ListenerEntries {
    next_id: u64,
    callbacks: Vec<(u64, Callback)>,
}

/// Ends a subscription when it is dropped.
pub struct ListenerGuard {
    entries: Arc<Mutex<ListenerEntries>>,
    id: u64,
}

impl Listeners {
    pub(crate) fn add(&self, callback: impl Fn() + Send + Sync + 'static) -> ListenerGuard {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let id = entries.next_id;
        entries.next_id += 1;
        entries.callbacks.push((id, Arc::new(callback)));
        ListenerGuard { entries: self.entries.clone(), id }
    }

    pub(crate) fn any(&self) -> bool {
        !self.entries.lock().unwrap_or_else(PoisonError::into_inner).callbacks.is_empty()
    }

    pub(crate) fn notify(&self) {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let callbacks: Vec<Callback> =
            entries.callbacks.iter().map(|(_, callback)| callback.clone()).collect();
        // A callback may end its own subscription, so the list must not be locked meanwhile.
        drop(entries);
        callbacks.iter().for_each(|callback| callback());
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.callbacks.retain(|(id, _)| *id != self.id);
    }
}
