//! Whether this thread is inside a transaction: the state of its namespace is locked then, and using
//! the store would wait for the end of what waits for it.

use std::cell::RefCell;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::storage::Storage;

thread_local! {
    /// The stores whose transactions or visitors run on this thread, by the addresses of their
    /// storage. One may be inside another's.
    static STORES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Held while the application's code runs with a namespace locked.
pub(crate) struct Inside(());

impl Inside {
    pub(crate) fn of(storage: &Arc<dyn Storage>) -> Inside {
        STORES.with_borrow_mut(|stores| stores.push(address_of(storage)));
        Inside(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        STORES.with_borrow_mut(Vec::pop);
    }
}

/// Refuses what would wait for ever.
pub(crate) fn check_outside(storage: &Arc<dyn Storage>) -> Result<()> {
    if is_inside(storage) { Err(Error::InsideTransaction) } else { Ok(()) }
}

pub(crate) fn is_inside(storage: &Arc<dyn Storage>) -> bool {
    STORES.with_borrow(|stores| !stores.is_empty() && stores.contains(&address_of(storage)))
}

fn address_of(storage: &Arc<dyn Storage>) -> usize {
    Arc::as_ptr(storage).cast::<()>() as usize
}
