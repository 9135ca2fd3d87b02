//! A store of the credit ledger: keys, and what a wallet or a member wrote.
//!
//! ```text
//! FOLDER/credit    k/owner k/device k/identity k/ledger k/role
//!                  e... : entries of the wallet or the member, as `vudo-credit` names them
//! ```
//!
//! **The invariant.** The key of a device exists in one place. A backup leaves it out, and a folder
//! that was copied is known by the identity of its file: a copied wallet makes a device key of its
//! own, a copied member does not serve. Both would else sign what contradicts the original.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use vudo_credit::{Secret, Writes};
use vudo_state::storage::{NativeStorage, Storage, WriteBatch};
use vudo_state::{Environment, SystemEnvironment, open_storage};

use super::ledger::Ledger;
use crate::Context;

const OWNER: &[u8] = b"k/owner";
const DEVICE: &[u8] = b"k/device";
const IDENTITY: &[u8] = b"k/identity";
const LEDGER: &[u8] = b"k/ledger";
const ROLE: &[u8] = b"k/role";
/// What the keys of entries begin with.
const ENTRY: u8 = b'e';
/// How much of a backup is written at once.
const BATCH_BYTES: usize = 1 << 20;

/// What a store is used for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    Wallet,
    Member,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Wallet => "wallet",
            Role::Member => "member",
        }
    }
}

/// An open store.
pub(crate) struct Store {
    path: PathBuf,
    storage: NativeStorage,
    identity: Vec<u8>,
}

impl Store {
    /// Opens the store that the command line names; with keys, which are made where there are none.
    pub(crate) fn open(context: &Context) -> Result<Store> {
        let store = Store::open_folder(&context.store.join("credit"))?;
        if store.storage.get(OWNER)?.is_none() {
            store.put(OWNER, &random_bytes::<32>()?)?;
        }
        Ok(store)
    }

    /// Opens the store, where it has been used for something.
    pub(crate) fn open_existing(context: &Context) -> Result<Store> {
        if !context.store.join("credit").is_dir() {
            let path = context.store.display();
            bail!("there is no wallet in {path}: make one with `vudo credit init LEDGER`");
        }
        Store::open(context)
    }

    fn open_folder(path: &Path) -> Result<Store> {
        let (storage, identity) = open_storage(path)?;
        Ok(Store { path: path.to_owned(), storage, identity })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.put(key.to_vec(), value.to_vec());
        Ok(self.storage.commit(&batch)?)
    }

    fn secret(&self, key: &[u8]) -> Result<Option<Secret>> {
        let Some(bytes) = self.storage.get(key)? else { return Ok(None) };
        let seed = bytes.as_slice().try_into().ok();
        let path = self.path.display();
        let seed = seed.with_context(|| {
            format!("a key in {path} is damaged: restore a backup and revoke this device")
        })?;
        Ok(Some(Secret::from_seed(seed)))
    }

    /// The store's own key: an account's or a member's.
    pub(crate) fn owner(&self) -> Result<Secret> {
        self.secret(OWNER)?.context("the store has no key: make one with `vudo credit key`")
    }

    /// The ledger that the store is of.
    pub(crate) fn ledger(&self) -> Result<Option<Ledger>> {
        let Some(stored) = self.storage.get(LEDGER)? else { return Ok(None) };
        Ok(Some(Ledger::from_bytes(&stored).context("the store's ledger is damaged")?))
    }

    /// Makes the store a wallet or a member of a ledger, once. Where it is that already, addresses
    /// and clocks are taken over from the file.
    pub(crate) fn settle_role(&self, role: Role, ledger: &Ledger) -> Result<()> {
        self.check_role(role)?;
        let path = self.path.display();
        if let Some(known) = self.ledger()?
            && known.genesis != ledger.genesis
        {
            let (known, other) = (known.genesis.network(), ledger.genesis.network());
            bail!("{path} is of ledger {known}, the file of {other}: use another --store");
        }
        let mut batch = WriteBatch::default();
        batch.put(ROLE.to_vec(), role.name().as_bytes().to_vec());
        batch.put(LEDGER.to_vec(), ledger.to_json().to_string().into_bytes());
        Ok(self.storage.commit(&batch)?)
    }

    /// Makes sure that the store is not used for something else.
    pub(crate) fn check_role(&self, role: Role) -> Result<()> {
        match self.storage.get(ROLE)? {
            Some(known) if known != role.name().as_bytes() => {
                let (path, known) = (self.path.display(), String::from_utf8_lossy(&known));
                bail!("{path} is a {known}'s store: use another --store for a {}", role.name())
            }
            _ => Ok(()),
        }
    }

    /// The key of this device: a new one in a new store, in a copy and in a restored backup.
    pub(crate) fn device(&self) -> Result<Secret> {
        let known = self.storage.get(IDENTITY)?;
        if let Some(secret) = self.secret(DEVICE)?
            && known.as_ref() == Some(&self.identity)
        {
            return Ok(secret);
        }
        if known.is_some() {
            tracing::warn!("this wallet is a copy: it gets a device key of its own, and no grants");
        }
        let seed = random_bytes()?;
        let mut batch = WriteBatch::default();
        batch.put(DEVICE.to_vec(), seed.to_vec());
        batch.put(IDENTITY.to_vec(), self.identity.clone());
        self.storage.commit(&batch)?;
        Ok(Secret::from_seed(seed))
    }

    /// Makes sure that this member's store is where it was, or was moved and not copied.
    pub(crate) fn check_place(&self, was_moved: bool) -> Result<()> {
        match self.storage.get(IDENTITY)? {
            Some(known) if known != self.identity && !was_moved => bail!(
                "{} is a copy of a member's store. Two members with one key contradict each other: \
                 serve from the original. Where it was moved, and the original is gone, add --moved",
                self.path.display()
            ),
            Some(known) if known == self.identity => Ok(()),
            _ => self.put(IDENTITY, &self.identity),
        }
    }

    /// All that the wallet or the member wrote, in the order of the keys.
    pub(crate) fn entries(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.entries_from(&[], None)
    }

    /// The entries whose keys begin with a byte.
    pub(crate) fn entries_of(&self, kind: u8) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.entries_from(&[kind], Some(kind + 1))
    }

    /// All but the log: what paying and being paid needs.
    pub(crate) fn entries_without_log(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = self.entries_from(&[], Some(b'l'))?;
        entries.extend(self.entries_from(&[b'l' + 1], None)?);
        Ok(entries)
    }

    fn entries_from(&self, from: &[u8], to: Option<u8>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        let start = [&[ENTRY], from].concat();
        let end = to.map_or(vec![ENTRY + 1], |to| vec![ENTRY, to]);
        self.storage.scan(&start, &end, &mut |key, value| {
            entries.push((key[1..].to_vec(), value.to_vec()));
            true
        })?;
        Ok(entries)
    }

    /// Writes what a wallet or a member wants written. It is on disk when this returns; where it
    /// fails, nothing that depends on it may leave, and this process must not go on.
    pub(crate) fn commit(&self, writes: Writes) -> Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let prefix = |key: Vec<u8>| [vec![ENTRY], key].concat();
        let batch: WriteBatch =
            writes.into_iter().map(|(key, value)| (prefix(key), value)).collect();
        self.storage.commit(&batch).context("the store cannot be written")
    }

    /// Copies everything into a new folder but the device's key.
    pub(crate) fn backup(&self, folder: &Path) -> Result<u64> {
        if folder.exists() {
            bail!("{} exists: give a folder that does not", folder.display());
        }
        // What was cut off is no backup, and is replaced by the next one.
        let mut partial = folder.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        match std::fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let target = Store::open_folder(&partial.join("credit"))?;
        let (mut batch, mut batch_bytes, mut bytes) = (WriteBatch::default(), 0, 0);
        let mut failure = None;
        self.storage.scan(&[], &[0xFF], &mut |key, value| {
            if key == DEVICE || key == IDENTITY {
                return true;
            }
            bytes += (key.len() + value.len()) as u64;
            batch_bytes += key.len() + value.len();
            batch.put(key.to_vec(), value.to_vec());
            if batch_bytes >= BATCH_BYTES {
                failure = target.storage.commit(&batch).err();
                batch.writes.clear();
                batch_bytes = 0;
            }
            failure.is_none()
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        target.storage.commit(&batch)?;
        drop(target);
        std::fs::rename(&partial, folder)?;
        Ok(bytes)
    }
}

/// Random bytes, for keys and nonces.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemEnvironment.fill_random(&mut bytes)?;
    Ok(bytes)
}
