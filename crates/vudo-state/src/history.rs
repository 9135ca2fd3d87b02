//! What a store knows of the past of a namespace: who wrote what a field shows, which changes are
//! set aside, and the Merkle log of each replica.
//!
//! What has been written is read from the log on disk.

use std::cmp::Reverse;

use ed25519_dalek::{Signer, VerifyingKey};
use vudo_crdt::head::{Head, SIGNATURE_BYTES, SignedHead};
use vudo_crdt::merkle::Hash;
use vudo_crdt::wire::Reader;
use vudo_crdt::{
    Change, FieldWrite, GenSchema, JudgeError, LogSource, Ranges, ReplicaKey, Value, VersionVector,
};

use crate::database::{Database, DocumentId};
use crate::error::{Error, Result};
use crate::layout;
use crate::record::field_of;
use crate::recovery::StoredLog;
use crate::replication::Replication;
use crate::storage::{StorageError, WriteBatch};

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
        let field = field_of(gen_schema, field)?;
        let shard = self.in_namespace(id.namespace()).shard()?;
        shard.flush_all()?;
        let mut state = shard.lock();
        let Some(gen_index) = state.namespace.find_gen(&gen_schema.name) else {
            return Ok(Vec::new());
        };
        let (log, chunks) = (&mut shard.stored_log(), &mut shard.chunks());
        let key = id.key().as_bytes();
        let namespace = &mut state.namespace;
        let mut writes = Vec::new();
        for earlier in field.lineage() {
            let mut of_number = namespace.blame(gen_index, key, earlier.id(), log, chunks)?;
            if !field.strategy.is_counter() {
                keep_latest_current(&mut writes, &mut of_number);
            }
            writes.extend(of_number);
        }
        let replicas = namespace.replicas();
        // Each number has its own order; of equal times the newer number stays in front.
        writes.sort_by_key(|write| Reverse((write.life, write.hlc, *replicas.key(write.replica))));
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

/// Of a register that had other numbers before, the writes to one of them are shown.
fn keep_latest_current(newer: &mut [FieldWrite], older: &mut [FieldWrite]) {
    let latest = |writes: &[FieldWrite]| {
        writes.iter().filter(|write| write.is_current).map(|write| write.hlc).max()
    };
    let hidden = if latest(older) > latest(newer) { newer } else { older };
    hidden.iter_mut().for_each(|write| write.is_current = false);
}

impl Replication {
    /// Judges anew which changes of these replicas are set aside: held and forwarded, but without
    /// effect. Up to the checkpoint of the last compaction the judgement of then stands. What of that has changed is rebuilt from the log and on disk when this returns. Gives
    /// how many documents were rebuilt.
    ///
    /// # Errors
    /// The disk failed. Before the documents were rebuilt, the old judgement stands; after that, the
    /// new one holds until the store closes, and has to be given again when it opens.
    pub fn judge(&self, judgements: &[(ReplicaKey, Ranges)]) -> Result<usize> {
        self.shard().check_outside()?;
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
        self.shard().check_outside()?;
        let (length, root) = self.shard().log_root(replica)?;
        let namespace = self.namespace().to_owned();
        Ok(Head { namespace, replica: *replica, length, root })
    }

    /// What is held durably, and the root of each replica's log, in the order of the vector. The root
    /// is left out where more of the replica is being applied.
    ///
    /// # Errors
    /// The disk failed.
    pub fn log_roots(&self) -> Result<(VersionVector, Vec<Option<Hash>>)> {
        self.shard().check_outside()?;
        self.shard().log_roots()
    }

    /// The head of a replica's log at this length that it has signed; `None` where it has not, as far
    /// as is known here: heads are kept at the lengths at which frames end.
    ///
    /// # Errors
    /// The disk failed.
    pub fn signed_head_of(&self, replica: &ReplicaKey, number: u64) -> Result<Option<SignedHead>> {
        self.shard().check_outside()?;
        self.shard().signed_head_of(replica, number)
    }

    /// The head of a replica's log as far as it is held durably: see [`Replication::signed_head_of`].
    ///
    /// # Errors
    /// The disk failed.
    pub fn latest_signed_head_of(&self, replica: &ReplicaKey) -> Result<Option<SignedHead>> {
        self.shard().check_outside()?;
        self.signed_head_of(replica, self.durable_vector().get(replica))
    }

    /// Keeps the proof that a replica has signed two logs of one length: the head of the log that is
    /// held here, and that of another one. The first proof stays.
    ///
    /// # Errors
    /// The two are no such proof, or the disk failed.
    pub fn record_fork(&self, held: &SignedHead, other: &SignedHead) -> Result<()> {
        let heads = [&held.head, &other.head];
        let is_of_here = heads.iter().all(|head| {
            head.namespace == self.namespace()
                && (head.replica, head.length) == (held.head.replica, held.head.length)
        });
        let is_fork = is_of_here
            && held.head.root != other.head.root
            && [held, other].iter().all(|signed| signed.holds(is_signature));
        if !is_fork {
            return Err(Error::Frame("two heads that prove no fork".to_owned()));
        }
        let shard = self.shard();
        shard.check_outside()?;
        let key = layout::fork(shard.id(), &held.head.replica.0);
        if shard.storage().get(&key)?.is_some() {
            return Ok(());
        }
        let mut stored = Vec::new();
        held.encode(&mut stored);
        other.encode(&mut stored);
        let mut batch = WriteBatch::default();
        batch.put(key, stored);
        Ok(shard.storage().commit(&batch)?)
    }

    /// The proofs of replicas that have signed two logs: the head of the log that was held here, and
    /// that of the other one.
    ///
    /// # Errors
    /// The disk failed.
    pub fn forks(&self) -> Result<Vec<(SignedHead, SignedHead)>> {
        let shard = self.shard();
        let (mut forks, mut damaged) = (Vec::new(), None);
        let (from, to) = (layout::fork(shard.id(), &[]), layout::fork(shard.id() + 1, &[]));
        shard.storage().scan(&from, &to, &mut |_, stored| {
            let mut reader = Reader::new(stored);
            match (SignedHead::decode(&mut reader), SignedHead::decode(&mut reader)) {
                (Ok(held), Ok(other)) => forks.push((held, other)),
                (Err(what), _) | (_, Err(what)) => {
                    damaged = Some(Error::damaged(format!("the proof of a fork: {what}")));
                }
            }
            damaged.is_none()
        })?;
        damaged.map_or(Ok(forks), Err)
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
    VerifyingKey::from_bytes(&replica.0)
        .is_ok_and(|key| key.verify_strict(bytes, &signature).is_ok())
}
