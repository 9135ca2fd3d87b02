//! A store's folder: private to its owner, open in one process at a time, and known from its copies.

use std::path::Path;

use crate::error::{Error, Result};
use crate::identity;
use crate::layout;
use crate::storage::{Folder, NativeStorage, OpenError, PAGES_NAME, StorageError};

/// Opens the storage in a folder, which is created where there is none, and gives the identity of
/// its file with it. Whoever keeps something there that must exist once keeps that identity beside
/// it: where it is another one later, the folder is a copy.
///
/// # Errors
/// Another process has it open, or the folder cannot be used, is of another version or damaged.
pub fn open_storage(path: &Path) -> Result<(NativeStorage, Vec<u8>)> {
    let failed = |error: &dyn std::fmt::Display| Error::Open {
        path: path.to_owned(),
        source: StorageError::new(error.to_string()),
    };
    create_private_folder(path).map_err(|error| failed(&error))?;
    let file = path.join(PAGES_NAME);
    let storage = NativeStorage::open(Folder(path.to_owned())).map_err(|error| match error {
        OpenError::InUse => Error::InUse { path: path.to_owned() },
        OpenError::Version(found) => {
            let supported = layout::FORMAT_VERSION;
            Error::FormatVersion { path: path.to_owned(), found, supported }
        }
        OpenError::Failed(source) => Error::Open { path: path.to_owned(), source },
    })?;
    let identity = identity::of_file(&file).map_err(|error| failed(&error))?;
    Ok((storage, identity))
}

/// A store holds a secret key, so nobody else may read its folder.
#[cfg(unix)]
pub(crate) fn create_private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
pub(crate) fn create_private_folder(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)
}
