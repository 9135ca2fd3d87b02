//! Which store this is: its signing key, and whether the file is the one that the key was made for.
//!
//! Two stores that write under one key would give two changes one number. So a store remembers the
//! identity of its own file; where that has changed, the store is a copy, and a copy is a new
//! replica with a new key. The original keeps its own. Where that does not show, a peer shows it: it
//! holds changes of the key that this store has not written, and the store mints a new key when it is
//! opened the next time.

use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use vudo_crdt::ReplicaKey;

use crate::database::Database;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::layout;
use crate::orphans::WrittenHere;
use crate::storage::{Storage, WriteBatch};

/// The 32-byte seed of an Ed25519 key.
pub type SecretKeyBytes = [u8; 32];

/// The store's key, minting one for a new store and for a copied one.
pub(crate) fn load_or_mint(
    storage: &Arc<dyn Storage>,
    file_identity: Option<Vec<u8>>,
    environment: &dyn Environment,
) -> Result<SigningKey> {
    let stored = storage.get(&layout::meta("secret"))?;
    let stored_identity = storage.get(&layout::meta("identity"))?;
    let is_copy = stored.is_some() && stored_identity != file_identity;
    let elsewhere = storage.get(&layout::meta(layout::KEY_ELSEWHERE))?;
    let is_elsewhere = elsewhere.is_some();
    let mut batch = WriteBatch::default();
    if let Some(secret) = &stored {
        let secret: &SecretKeyBytes = secret
            .as_slice()
            .try_into()
            .map_err(|_| Error::damaged("its secret key does not have 32 bytes"))?;
        let key = SigningKey::from_bytes(secret);
        if !is_copy && !is_elsewhere {
            return Ok(key);
        }
        // What the original wrote up to here the copy can pass on only with its signature.
        let written = Database::seal_with(storage, &key)?;
        let key = ReplicaKey(key.verifying_key().to_bytes());
        if is_copy {
            // What was written here the original has written, under this key and those before.
            storage.scan(b"i", b"j", &mut |key, _| {
                batch.remove(key.to_vec());
                true
            })?;
        } else {
            let written = written.into_iter().filter(|(_, count)| *count > 0);
            written.for_each(|(id, count)| {
                batch.put(layout::written_here(id, &key), WrittenHere::encode(count));
            });
        }
    }
    if storage.get(&layout::meta(layout::BACKUP_OF))?.is_some() {
        tracing::info!("this store is a backup of another one: it becomes a replica of its own");
    } else if elsewhere.is_some_and(|why| !why.is_empty()) {
        tracing::info!("a log of this store has been cut: it goes on under another key");
    } else if is_elsewhere {
        tracing::warn!("another store writes under this one's key: it gets a key of its own");
    } else if is_copy {
        tracing::info!("this store is a copy of another one: it becomes a replica of its own");
    }
    let mut secret = SecretKeyBytes::default();
    environment.fill_random(&mut secret)?;
    batch.put(layout::meta("secret"), secret.to_vec());
    batch.remove(layout::meta(layout::KEY_ELSEWHERE));
    if let Some(identity) = file_identity {
        batch.put(layout::meta("identity"), identity);
    }
    storage.commit(&batch)?;
    Ok(SigningKey::from_bytes(&secret))
}

/// What tells a file from its copies: its number in the file system and the time of its birth.
pub(crate) fn of_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    let mut identity = file_number(&metadata, path);
    if let Ok(born) = metadata.created()
        && let Ok(since_1970) = born.duration_since(std::time::UNIX_EPOCH)
    {
        identity.extend_from_slice(&since_1970.as_nanos().to_le_bytes());
    }
    Ok(identity)
}

#[cfg(unix)]
fn file_number(metadata: &Metadata, _: &Path) -> Vec<u8> {
    use std::os::unix::fs::MetadataExt;
    metadata.ino().to_le_bytes().to_vec()
}

/// Where files have no number that the standard library tells, the place stands in for it; a store
/// that was moved becomes a new replica then, which is safe.
#[cfg(not(unix))]
fn file_number(_: &Metadata, path: &Path) -> Vec<u8> {
    let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    place.to_string_lossy().into_owned().into_bytes()
}
