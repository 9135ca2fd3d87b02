//! The state of a module: one namespace in memory, its log, and the replica that writes here.

use core::convert::Infallible;

use alloc::vec::Vec;

use vudo_crdt::wire::{Reader, is_utf8};
use vudo_crdt::{
    GenIndex, InMemory, Log, MalformedFrame, Namespace, ReplicaIndex, ReplicaKey, Row, Transaction,
    WriteError,
};

use crate::code::Code;

/// Nothing, or why it was refused.
pub(crate) type Outcome = Result<(), Code>;

/// What an open module holds.
pub(crate) struct Session {
    namespace: Namespace,
    log: Log,
    replica: ReplicaIndex,
    /// Where writes go. Empty unless the host has begun it.
    transaction: Transaction,
    /// Whether the host has begun a transaction. Other writes are changes of their own.
    is_in_transaction: bool,
}

/// A document, as the host names it.
#[derive(Clone, Copy)]
pub(crate) struct Document<'a> {
    pub(crate) gen_index: GenIndex,
    pub(crate) key: &'a [u8],
}

impl Session {
    /// An empty session. `schema` begins with the count and the names of the Gens, whose indexes
    /// are their places in that list.
    pub(crate) fn open(key: &[u8], seed: u64, schema: &[u8]) -> Result<Session, Code> {
        let key = ReplicaKey(Reader::new(key).array()?);
        let mut namespace = Namespace::new(seed);
        let replica = namespace.intern_replica(key);
        // The compiler wrote the names; were they damaged, the Gens after them would be missing.
        let mut reader = Reader::new(schema);
        for _ in 0..reader.varint().unwrap_or_default() {
            namespace.intern_gen_bytes(reader.bytes().unwrap_or_default());
        }
        let transaction = Transaction::begin(&namespace, replica, 0);
        let log = Log::default();
        Ok(Session { namespace, log, replica, transaction, is_in_transaction: false })
    }

    pub(crate) fn begin(&mut self, now: f64) -> Outcome {
        self.refuse_in_transaction()?;
        self.renew(now);
        self.is_in_transaction = true;
        Ok(())
    }

    pub(crate) fn commit(&mut self) -> Outcome {
        self.end_transaction()?;
        self.apply()
    }

    pub(crate) fn roll_back(&mut self) -> Outcome {
        self.end_transaction()?;
        self.renew(0.0);
        Ok(())
    }

    pub(crate) fn create(&mut self, document: Document<'_>, now: f64) -> Outcome {
        text(document.key)?;
        self.write(now, |transaction, namespace| {
            transaction.create(namespace, &mut InMemory, document.gen_index, document.key)
        })
    }

    pub(crate) fn delete(&mut self, document: Document<'_>, now: f64) -> Outcome {
        self.write(now, |transaction, namespace| {
            transaction.delete(namespace, &mut InMemory, document.gen_index, document.key)
        })
    }

    /// The document's row as the open transaction sees it.
    #[inline(never)]
    pub(crate) fn row(&mut self, document: Document<'_>) -> Result<Row<'_>, Code> {
        let Document { gen_index, key } = document;
        let row = self.transaction.read(&mut self.namespace, &mut InMemory, gen_index, key)?;
        row.filter(Row::is_alive).ok_or(Code::NOT_FOUND)
    }

    /// Appends the keys of the Gen's documents, ascending, each behind its length in four bytes.
    pub(crate) fn keys(&mut self, gen_index: GenIndex, out: &mut Vec<u8>) -> Outcome {
        let rows = self.namespace.rows_from(gen_index, &[], &mut InMemory)?;
        for row in rows {
            if row.is_alive() {
                out.extend_from_slice(&(row.key.len() as u32).to_le_bytes());
                out.extend_from_slice(row.key);
            }
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, frame: &[u8]) -> Outcome {
        self.refuse_in_transaction()?;
        self.namespace.apply_frame(frame, &mut InMemory, &mut self.log)?;
        Ok(())
    }

    pub(crate) fn changes_since(&self, vector: &[u8]) -> Result<Vec<u8>, Code> {
        // No bytes at all are a vector that covers nothing.
        let vector = if vector.is_empty() { &[0] } else { vector };
        let covered = self.namespace.covered_by(vector)?;
        Ok(self.log.frame_above(&self.namespace, &covered))
    }

    pub(crate) fn version(&self, out: &mut Vec<u8>) {
        self.namespace.encode_version_vector(out);
    }

    /// Makes one write, which is a change of its own unless the host has begun a transaction.
    #[inline(always)]
    pub(crate) fn write(
        &mut self,
        now: f64,
        work: impl FnOnce(&mut Transaction, &mut Namespace) -> Result<(), WriteError<Infallible>>,
    ) -> Outcome {
        if !self.is_in_transaction {
            self.renew(now);
        }
        let outcome = work(&mut self.transaction, &mut self.namespace);
        self.end_write(outcome)
    }

    #[inline(never)]
    fn end_write(&mut self, outcome: Result<(), WriteError<Infallible>>) -> Outcome {
        outcome?;
        if self.is_in_transaction { Ok(()) } else { self.apply() }
    }

    /// Begins the transaction anew, without what it holds. Gives what it held.
    #[inline(never)]
    fn renew(&mut self, now: f64) -> Transaction {
        let new = Transaction::begin(&self.namespace, self.replica, now as u64);
        core::mem::replace(&mut self.transaction, new)
    }

    #[inline(never)]
    fn apply(&mut self) -> Outcome {
        let transaction = self.renew(0.0);
        transaction.commit(&mut self.namespace, &mut InMemory, &mut self.log)?;
        Ok(())
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
