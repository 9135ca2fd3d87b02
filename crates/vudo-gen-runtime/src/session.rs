//! The state of a module: one namespace in memory, its log, and the replica that writes here.

use alloc::vec::Vec;

use vudo_crdt::wire::{Reader, is_utf8};
use vudo_crdt::{
    GenIndex, InMemory, Log, MalformedFrame, Namespace, Refusal, ReplicaKey, Row, Transaction,
};

use crate::code::{Code, Outcome};

/// What a module holds. Nothing may be asked of it before it is open.
pub(crate) struct Session {
    namespace: Namespace,
    log: Log,
    /// Where writes go. Empty between calls, unless the host has begun it.
    transaction: Transaction,
    is_open: bool,
    /// Whether the host has begun a transaction. Other writes are changes of their own.
    is_in_transaction: bool,
}

impl Session {
    pub(crate) const fn new() -> Session {
        Session {
            namespace: Namespace::new(0),
            log: Log::new(),
            // The replica of this module is the first one that its namespace names.
            transaction: Transaction::idle(0),
            is_open: false,
            is_in_transaction: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Opens the session. `schema` begins with the count and the names of the Gens, whose indexes
    /// are their places in that list.
    pub(crate) fn open(&mut self, key: &[u8], schema: &[u8]) -> Outcome {
        if self.is_open {
            return Err(Code::ALREADY_OPEN);
        }
        if key.len() != size_of::<ReplicaKey>() {
            return Err(MalformedFrame::Truncated.into());
        }
        self.namespace.intern_replica_bytes(key);
        // The compiler wrote the names; were they damaged, the Gens after them would be missing.
        let mut reader = Reader::new(schema);
        for _ in 0..reader.varint_or_zero() {
            self.namespace.intern_gen_bytes(reader.bytes_or_empty());
        }
        self.is_open = true;
        Ok(())
    }

    /// Names the replica that has the rights on bounded counters from the start.
    #[cfg(feature = "bounded")]
    pub(crate) fn set_founder(&mut self, key: &[u8]) -> Outcome {
        let key = key.try_into().map_err(|_| MalformedFrame::Truncated)?;
        let founder = self.namespace.intern_replica(ReplicaKey(key));
        self.namespace.set_founder(founder);
        Ok(())
    }

    pub(crate) fn begin(&mut self, now: f64) -> Outcome {
        self.refuse_in_transaction()?;
        self.begin_again(now);
        self.is_in_transaction = true;
        Ok(())
    }

    pub(crate) fn commit(&mut self) -> Outcome {
        self.end_transaction()?;
        self.end_write(Ok(()))
    }

    pub(crate) fn roll_back(&mut self) -> Outcome {
        self.end_transaction()?;
        self.begin_again(0.0);
        Ok(())
    }

    /// The document's row as the open transaction sees it.
    pub(crate) fn row(&mut self, gen_index: GenIndex, key: &[u8]) -> Row<'_> {
        self.transaction.view(&self.namespace, gen_index, key)
    }

    /// Whether the document exists, or why nothing can be read of it.
    #[cfg(feature = "composite")]
    pub(crate) fn require(&mut self, gen_index: GenIndex, key: &[u8]) -> Outcome {
        if self.row(gen_index, key).is_alive() { Ok(()) } else { Err(Refusal::NotFound.into()) }
    }

    /// The open transaction and its namespace, for reads of more than a row.
    #[cfg(any(feature = "bounded", feature = "composite"))]
    pub(crate) fn parts(&mut self) -> (&mut Transaction, &Namespace) {
        (&mut self.transaction, &self.namespace)
    }

    /// Goes on to the next entry of a collection: see [`Transaction::next_entry`].
    #[cfg(feature = "collections")]
    pub(crate) fn next_entry(
        &self,
        gen_index: GenIndex,
        prefix_length: usize,
        key: &mut Vec<u8>,
    ) -> bool {
        self.transaction.next_entry(&self.namespace, gen_index, prefix_length, key)
    }

    /// Appends the keys of the Gen's documents, ascending, each behind its length in four bytes.
    pub(crate) fn keys(&mut self, gen_index: GenIndex, out: &mut Vec<u8>) {
        for row in self.namespace.loaded_rows(gen_index) {
            if row.is_alive() {
                out.extend_from_slice(&(row.key.len() as u32).to_le_bytes());
                out.extend_from_slice(row.key);
            }
        }
    }

    pub(crate) fn merge(&mut self, frame: &[u8]) -> Outcome {
        self.refuse_in_transaction()?;
        match self.namespace.apply_frame(frame, &mut InMemory, &mut self.log) {
            Ok(_) => Ok(()),
            Err(error) => Err(Code::from(&error)),
        }
    }

    pub(crate) fn changes_since(&self, vector: &[u8], out: &mut Vec<u8>) -> Outcome {
        // No bytes at all are a vector that covers nothing.
        let vector = if vector.is_empty() { &[0] } else { vector };
        Ok(self.log.write_frame_since(&self.namespace, vector, out)?)
    }

    pub(crate) fn version(&self, out: &mut Vec<u8>) {
        self.namespace.encode_version_vector(out);
    }

    /// Makes one write, which is a change of its own unless the host has begun a transaction.
    #[inline(always)]
    pub(crate) fn write(
        &mut self,
        now: f64,
        work: impl FnOnce(&mut Transaction, &Namespace) -> Result<(), Refusal>,
    ) -> Outcome {
        self.begin_write(now);
        let outcome = work(&mut self.transaction, &self.namespace);
        self.end_write(outcome)
    }

    #[inline(never)]
    pub(crate) fn begin_write(&mut self, now: f64) {
        if !self.is_in_transaction {
            self.begin_again(now);
        }
    }

    #[inline(never)]
    pub(crate) fn end_write(&mut self, outcome: Result<(), Refusal>) -> Outcome {
        outcome?;
        if !self.is_in_transaction {
            self.apply();
        }
        Ok(())
    }

    /// Begins the transaction anew, without what it holds.
    #[inline(never)]
    fn begin_again(&mut self, now: f64) {
        self.transaction.begin_again(&self.namespace, now as u64);
    }

    /// Applies the transaction and empties it.
    fn apply(&mut self) {
        self.transaction.commit_loaded(&mut self.namespace, &mut self.log);
        self.begin_again(0.0);
    }

    fn refuse_in_transaction(&self) -> Outcome {
        if self.is_in_transaction { Err(Code::TRANSACTION_OPEN) } else { Ok(()) }
    }

    fn end_transaction(&mut self) -> Outcome {
        let was_open = core::mem::replace(&mut self.is_in_transaction, false);
        if was_open { Ok(()) } else { Err(Code::NO_TRANSACTION) }
    }
}

/// The bytes of a text from the host.
pub(crate) fn text(bytes: &[u8]) -> Result<&[u8], Code> {
    if is_utf8(bytes) { Ok(bytes) } else { Err(MalformedFrame::StringNotUtf8.into()) }
}
