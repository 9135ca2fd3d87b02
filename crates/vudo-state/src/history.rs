//! What a store knows of the past of a namespace: who wrote what a field shows, which changes are
//! set aside, and the Merkle log of each replica.
//!
//! All of it reads the log on disk. Heads are computed when somebody asks for one, from where the
//! last asking ended: merging and committing never hash.

use ed25519_dalek::{Signer, Verifier, VerifyingKey};
use vudo_crdt::head::{Head, SIGNATURE_BYTES, SignedHead};
use vudo_crdt::merkle::{MerkleLog, leaf_hash};
use vudo_crdt::{Change, GenSchema, JudgeError, LogSource, Ranges, ReplicaKey, Value};

use crate::database::{Database, DocumentId};
use crate::error::{Error, Result};
use crate::record::field_of;
use crate::replication::Replication;
use crate::shard::StoredLog;
use crate::storage::StorageError;

/// A write to a field of a document, for people to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Blame {
    /// Who wrote.
    pub replica: ReplicaKey,
    /// The number of the writer's change.
    pub number: u64,
    /// The time of the write, in milliseconds since 1970.
    pub milliseconds: u64,
    /// What was written; of a counter, and of what this version cannot read, nothing.
    pub value: Option<Value>,
    /// Whether the field shows it: the value of a register, or a part of a counter's sum.
    pub is_current: bool,
    /// Whether the change is set aside, so that the write has no effect.
    pub is_set_aside: bool,
}

/// How far each replica's log has been hashed.
#[derive(Default)]
pub(crate) struct HashedLogs {
    /// The first position of the log that has not been looked at.
    pub(crate) next_position: u64,
    /// By replica index.
    pub(crate) logs: Vec<MerkleLog>,
}

impl LogSource for StoredLog<'_> {
    type Error = Error;

    fn visit(&mut self, visit: &mut dyn FnMut(&Change<'_>)) -> Result<()> {
        self.visit_from(0, visit).map(|_| ())
    }
}

impl From<JudgeError<Error, StorageError>> for Error {
    fn from(error: JudgeError<Error, StorageError>) -> Error {
        match error {
            JudgeError::Log(error) => error,
            JudgeError::Chunk(error) => error.into(),
        }
    }
}

impl Database {
    /// Every write to a field of a document that the store retains, the latest first: who wrote what
    /// it shows, when, and what that beat. Reads the whole log of the namespace.
    ///
    /// # Errors
    /// The Gen has no such field, or the disk failed.
    pub fn blame(
        &self,
        gen_schema: &GenSchema,
        id: &DocumentId,
        field: &str,
    ) -> Result<Vec<Blame>> {
        let cell = field_of(gen_schema, field)?.id();
        let shard = self.in_namespace(id.namespace()).shard()?;
        shard.flush_all()?;
        let mut state = shard.lock();
        let Some(gen_index) = state.namespace.find_gen(&gen_schema.name) else {
            return Ok(Vec::new());
        };
        let (log, chunks) = (&mut shard.stored_log(), &mut shard.chunks());
        let key = id.key().as_bytes();
        let writes = state.namespace.blame(gen_index, key, cell, log, chunks)?;
        let replicas = state.namespace.replicas();
        let blame = writes.into_iter().map(|write| Blame {
            replica: *replicas.key(write.replica),
            number: write.number,
            milliseconds: write.hlc.milliseconds(),
            value: Value::decode(&write.value),
            is_current: write.is_current,
            is_set_aside: write.is_set_aside,
        });
        Ok(blame.collect())
    }
}

impl Replication {
    /// Judges anew which changes of these replicas are set aside: held and forwarded, but without
    /// effect. What of that has changed is rebuilt from the log and on disk when this returns. Gives
    /// how many documents were rebuilt.
    ///
    /// # Errors
    /// The disk failed. Before the documents were rebuilt, the old judgement stands; after that, the
    /// new one holds until the store closes, and has to be given again when it opens.
    pub fn judge(&self, judgements: &[(ReplicaKey, Ranges)]) -> Result<usize> {
        self.shard().judge(judgements)
    }

    /// Which of a replica's changes are set aside.
    pub fn set_aside(&self, replica: &ReplicaKey) -> Ranges {
        let state = self.shard().lock();
        let index = state.namespace.replicas().find(replica);
        index.map_or_else(Ranges::new, |index| state.namespace.set_aside(index).clone())
    }

    /// The head of a replica's log on disk: its length, and the root over every change in it.
    ///
    /// # Errors
    /// The disk failed.
    pub fn head(&self, replica: &ReplicaKey) -> Result<Head> {
        let shard = self.shard();
        let mut hashed = shard.lock_hashed();
        // The log only grows, and so do the lists that its indexes refer to.
        let state = shard.lock();
        let (namespace, name) = (&state.namespace, self.namespace());
        let HashedLogs { next_position, logs } = &mut *hashed;
        logs.resize(namespace.replicas().keys().len(), MerkleLog::new());
        let mut push = |change: &Change<'_>| {
            let log = &mut logs[change.replica as usize];
            log.push(leaf_hash(name, namespace, change), |_, _| ());
        };
        match shard.stored_log().visit_from(*next_position, &mut push) {
            Ok(reached) => *next_position = reached,
            Err(error) => {
                // Some of the log may have been pushed: the next asking begins anew.
                *hashed = HashedLogs::default();
                return Err(error);
            }
        }
        let log = namespace.replicas().find(replica).map(|index| &logs[index as usize]);
        let empty = MerkleLog::new();
        let log = log.unwrap_or(&empty);
        let namespace = name.to_owned();
        Ok(Head { namespace, replica: *replica, length: log.length(), root: log.root() })
    }

    /// The head of this store's own log, signed.
    ///
    /// # Errors
    /// The disk failed.
    pub fn signed_head(&self) -> Result<SignedHead> {
        let key = self.database().signing_key();
        let head = self.head(&ReplicaKey(key.verifying_key().to_bytes()))?;
        let signature = key.sign(&head.bytes_to_sign()).to_bytes();
        Ok(SignedHead { head, signature })
    }
}

/// Whether the signature of a head is its replica's: for [`SignedHead::holds`].
pub fn is_signature(replica: &ReplicaKey, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    VerifyingKey::from_bytes(&replica.0).is_ok_and(|key| key.verify(bytes, &signature).is_ok())
}
