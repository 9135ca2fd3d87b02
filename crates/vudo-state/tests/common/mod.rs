//! A store on a disk that crashes.

pub(crate) mod on_disk;

use std::sync::Arc;

use vudo_state::storage::{NativeStorage, OpenError};
use vudo_state::{Database, Result};
use vudo_testkit::files::CrashingFiles;

use on_disk::OnDisk;

/// Opens the store on a disk.
pub(crate) fn open_storage(
    disk: &CrashingFiles,
) -> std::result::Result<NativeStorage<OnDisk>, OpenError> {
    NativeStorage::open(OnDisk(disk.clone()))
}

/// Opens the database on a disk.
pub(crate) fn open(disk: &CrashingFiles) -> std::result::Result<Database, String> {
    let storage = open_storage(disk).map_err(|error| error.to_string())?;
    let opened: Result<Database> = Database::with_storage(Arc::new(storage), None);
    opened.map_err(|error| error.to_string())
}
