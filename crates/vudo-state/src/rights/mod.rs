//! Rights: who may write to a namespace with owners, and who may read it.
//!
//! A namespace has owners where its name ends with the hash of its founding, which names them: see
//! [`Founding`]. Any other namespace is open to whoever has its ticket. Nothing turns one into the
//! other, so nobody can claim a namespace that is there already.
//!
//! What a namespace is made of stays what it was: changes. Records of rights are documents of the Gen
//! [`RIGHTS_GEN`], so vectors cover them, and they go wherever the other changes go. [`record`] is
//! their bytes, [`judgement`] what follows from them, [`checkpoint`] what of that stands for good, and
//! [`judging`] has the store carry it out.

mod checkpoint;
mod judgement;
mod judging;
mod record;

pub use checkpoint::NotCompacted;
pub(crate) use checkpoint::{Judgements, RetainedRights};
pub use judgement::{MissingRight, RightStatus, Rights};
pub(crate) use judging::{carried_in, set_aside_if_not_covered};
pub use record::{
    CHECKPOINT_RECORD_BYTES_MAX, CheckpointRecord, Founding, Grant, OWNERS_MAX, PublicKey,
    RIGHTS_GEN, Record, RecordId, Revocation, SCOPES_MAX, Scope, SignedRecord, founding_hash,
};

use ed25519_dalek::{Signer, SigningKey};
use vudo_crdt::head::SIGNATURE_BYTES;
use vudo_crdt::{ReplicaKey, VersionVector};

use crate::database::Database;
use crate::environment::{Environment, SystemEnvironment};
use crate::error::{Error, Result};
use crate::identity::SecretKeyBytes;
use crate::replication::Replication;

impl Database {
    /// Founds a namespace with these owners and gives its whole name: the label, and the hash of who
    /// owns it. Owners come in the order of their weight: each can revoke those after it.
    ///
    /// ```
    /// use vudo_state::{Database, Grant, RightsRecord, Scope};
    ///
    /// let (owner, member) = (Database::open_in_memory()?, Database::open_in_memory()?);
    /// let name = owner.found("team", &[owner.replica_key()])?;
    /// let team = owner.in_namespace(&name);
    /// let grant = Grant {
    ///     issuer: owner.replica_key(),
    ///     subject: member.replica_key(),
    ///     can_delegate: false,
    ///     expires_milliseconds: None,
    ///     scopes: vec![Scope { gen_name: "Task".into(), key_prefix: String::new() }],
    /// };
    /// team.issue(RightsRecord::Grant(grant), None)?;
    /// let rights = team.access_rights()?.expect("the namespace has owners");
    /// assert!(rights.check_write(&member.replica_key(), 1, "Task", b"milk").is_ok());
    /// assert!(rights.check_write(&member.replica_key(), 1, "Note", b"milk").is_err());
    /// # Ok::<(), vudo_state::Error>(())
    /// ```
    ///
    /// # Errors
    /// There are no owners, more than [`OWNERS_MAX`] or one twice; the label is empty or too long; or
    /// the disk failed.
    pub fn found(&self, label: &str, owners: &[PublicKey]) -> Result<String> {
        let is_distinct = (1..owners.len()).all(|place| !owners[..place].contains(&owners[place]));
        if owners.is_empty() || owners.len() > OWNERS_MAX || !is_distinct {
            return Err(Error::Owners);
        }
        let mut salt = [0; 16];
        self.environment().fill_random(&mut salt)?;
        let founding = Founding { salt, owners: owners.to_vec() };
        let namespace = founding.namespace(label);
        if label.is_empty() {
            return Err(Error::NamespaceName(label.to_owned()));
        }
        self.in_namespace(&namespace).add_records(vec![SignedRecord::founding(founding)])?;
        Ok(namespace)
    }

    /// The rights in the handle's namespace, as far as its records are held; `None` where it has no
    /// owners.
    ///
    /// # Errors
    /// The namespace cannot be opened.
    pub fn access_rights(&self) -> Result<Option<Rights>> {
        Ok(self.shard()?.lock().rights.clone())
    }

    /// Writes records to the handle's namespace as one change, durably, as far as they are not held.
    /// Changes that they put into effect, or set aside, are judged anew before this returns.
    ///
    /// # Errors
    /// [`Error::NoOwners`], [`Error::NotOfNamespace`] where a record is none of the namespace, or the
    /// disk failed.
    pub fn add_records(&self, records: Vec<SignedRecord>) -> Result<()> {
        let now = self.environment().now_milliseconds();
        self.shard()?.add_records(records, now)
    }

    /// Signs a record with this store's key for the handle's namespace, or with another key, and
    /// writes it there.
    ///
    /// # Errors
    /// [`Error::NotIssuer`], and as for [`Database::add_records`].
    pub fn issue(&self, record: Record, key: Option<&SecretKeyBytes>) -> Result<SignedRecord> {
        let own = self.secret_key();
        let signed = SignedRecord::sign(record, self.namespace(), key.unwrap_or(&own))?;
        self.add_records(vec![signed.clone()])?;
        Ok(signed)
    }

    /// Signs bytes with this store's key. They must begin with what keeps their signatures apart from
    /// all others.
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.signing_key().sign(bytes).to_bytes()
    }

    /// A new secret key: of a person, or for recovery.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn new_secret_key() -> Result<SecretKeyBytes> {
        let mut secret = SecretKeyBytes::default();
        SystemEnvironment.fill_random(&mut secret)?;
        Ok(secret)
    }

    /// The revocation of a key that accepts what this store holds of it now, durably, and nothing
    /// later; to be issued.
    ///
    /// # Errors
    /// [`Error::NoOwners`], or the namespace cannot be opened.
    pub fn revocation_of(&self, issuer: PublicKey, subject: PublicKey) -> Result<Revocation> {
        let rights =
            self.access_rights()?.ok_or_else(|| Error::NoOwners(self.namespace().to_owned()))?;
        let held = self.shard()?.durable_vector();
        let mut last_accepted = VersionVector::new();
        for replica in rights.acting_through(&subject) {
            last_accepted.advance(replica, held.get(&replica));
        }
        Ok(Revocation { issuer, subject, last_accepted })
    }
}

/// The public key of a secret one.
pub fn public_key_of(secret_key: &SecretKeyBytes) -> PublicKey {
    ReplicaKey(SigningKey::from_bytes(secret_key).verifying_key().to_bytes())
}

impl Replication {
    /// The rights in the namespace: see [`Database::access_rights`].
    pub fn access_rights(&self) -> Option<Rights> {
        self.shard().lock().rights.clone()
    }

    /// Until when a replica may read the namespace by the records that are held and those that it
    /// shows, in milliseconds since 1970; `None` where it may not now, or where nobody owns the
    /// namespace.
    pub fn readable_until(&self, replica: &PublicKey, shown: &[SignedRecord]) -> Option<u64> {
        let now = self.now_milliseconds();
        let mut rights = {
            let state = self.shard().lock();
            let rights = state.rights.as_ref()?;
            if shown.iter().all(|record| rights.holds(&record.id())) {
                return rights.readable_until(replica, now);
            }
            rights.clone()
        };
        rights.hold(shown.iter().map(|record| (record.clone(), None)));
        rights.readable_until(replica, now)
    }

    /// How many of a replica's changes that are held are set aside.
    pub fn set_aside_count(&self, replica: &PublicKey) -> u64 {
        let ranges = self.set_aside(replica);
        ranges.iter().map(|(first, last)| (last - first).saturating_add(1)).sum()
    }

    /// The time of this store's clock, in milliseconds since 1970.
    pub fn now_milliseconds(&self) -> u64 {
        self.database().environment().now_milliseconds()
    }
}
