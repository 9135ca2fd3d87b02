//! The state of a module: one namespace in memory, its log, and the replica that writes here.

use core::convert::Infallible;

use alloc::vec::Vec;

use vudo_crdt::wire::Reader;
use vudo_crdt::{
    CellId, FieldSchema, GenIndex, InMemory, Log, Namespace, ReplicaIndex, ReplicaKey, Row,
    Transaction, WriteError,
};

use crate::code::Code;

/// Nothing, or why it was refused.
pub(crate) type Outcome = Result<(), Code>;

/// What an open module holds.
pub(crate) struct Session {
    namespace: Namespace,
    log: Log,
    replica: ReplicaIndex,
    /// The explicit transaction, if the host has begun one. Other writes are changes of their own.
    transaction: Option<Transaction>,
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
        let mut namespace = Namespace::new(seed);
        let replica = namespace.intern_replica(ReplicaKey(Reader::new(key).array()?));
        let mut reader = Reader::new(schema);
        for _ in 0..reader.varint()? {
            let name = text(reader.bytes()?)?;
            namespace.intern_gen(name).ok_or(Code::TOO_MANY_GENS)?;
        }
        Ok(Session { namespace, log: Log::default(), replica, transaction: None })
    }

    pub(crate) fn begin(&mut self, now: f64) -> Outcome {
        if self.transaction.is_some() {
            return Err(Code::TRANSACTION_OPEN);
        }
        self.transaction = Some(self.new_transaction(now));
        Ok(())
    }

    pub(crate) fn commit(&mut self) -> Outcome {
        let transaction = self.transaction.take().ok_or(Code::NO_TRANSACTION)?;
        self.apply(transaction)
    }

    pub(crate) fn roll_back(&mut self) -> Outcome {
        let transaction = self.transaction.take();
        transaction.map(drop).ok_or(Code::NO_TRANSACTION)
    }

    pub(crate) fn create(&mut self, document: Document<'_>, now: f64) -> Outcome {
        text(document.key)?;
        let mut write = self.write(now);
        let Document { gen_index, key } = document;
        let outcome =
            (write.transaction).create(&mut self.namespace, &mut InMemory, gen_index, key);
        self.end(write, outcome)
    }

    pub(crate) fn delete(&mut self, document: Document<'_>, now: f64) -> Outcome {
        let mut write = self.write(now);
        let Document { gen_index, key } = document;
        let outcome =
            (write.transaction).delete(&mut self.namespace, &mut InMemory, gen_index, key);
        self.end(write, outcome)
    }

    pub(crate) fn set(
        &mut self,
        document: Document<'_>,
        id: CellId,
        value: Vec<u8>,
        now: f64,
    ) -> Outcome {
        let mut write = self.write(now);
        let Document { gen_index, key } = document;
        let outcome = write.transaction.set_encoded(
            &mut self.namespace,
            &mut InMemory,
            gen_index,
            key,
            id,
            value,
        );
        self.end(write, outcome)
    }

    pub(crate) fn add(
        &mut self,
        document: Document<'_>,
        field: &FieldSchema,
        amount: i64,
        now: f64,
    ) -> Outcome {
        let mut write = self.write(now);
        let Document { gen_index, key } = document;
        let outcome = write.transaction.add(
            &mut self.namespace,
            &mut InMemory,
            gen_index,
            key,
            field,
            amount,
        );
        self.end(write, outcome)
    }

    pub(crate) fn add_float(
        &mut self,
        document: Document<'_>,
        field: &FieldSchema,
        amount: f64,
        now: f64,
    ) -> Outcome {
        let mut write = self.write(now);
        let Document { gen_index, key } = document;
        let outcome = write.transaction.add_float(
            &mut self.namespace,
            &mut InMemory,
            gen_index,
            key,
            field,
            amount,
        );
        self.end(write, outcome)
    }

    /// The document's row as the open transaction sees it.
    pub(crate) fn row(&mut self, document: Document<'_>) -> Result<Row<'_>, Code> {
        let Document { gen_index, key } = document;
        let row = match &mut self.transaction {
            Some(transaction) => {
                transaction.read(&mut self.namespace, &mut InMemory, gen_index, key)?
            }
            None => self.namespace.loaded_row(gen_index, key),
        };
        row.filter(Row::is_alive).ok_or(Code::NOT_FOUND)
    }

    /// Appends the keys of the Gen's documents, ascending, each behind its length in four bytes.
    pub(crate) fn keys(&mut self, gen_index: GenIndex, out: &mut Vec<u8>) -> Outcome {
        let rows = (self.namespace).rows_from(gen_index, &[], &mut InMemory)?;
        for row in rows.filter(Row::is_alive) {
            out.extend_from_slice(&(row.key.len() as u32).to_le_bytes());
            out.extend_from_slice(row.key);
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, frame: &[u8]) -> Outcome {
        if self.transaction.is_some() {
            return Err(Code::TRANSACTION_OPEN);
        }
        (self.namespace).apply_frame(frame, &mut InMemory, &mut self.log)?;
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

    fn new_transaction(&self, now: f64) -> Transaction {
        Transaction::begin(&self.namespace, self.replica, now as u64)
    }

    #[inline(never)]
    fn write(&mut self, now: f64) -> Write {
        let open = self.transaction.take();
        Write {
            is_single: open.is_none(),
            transaction: open.unwrap_or_else(|| self.new_transaction(now)),
        }
    }

    #[inline(never)]
    fn end(&mut self, write: Write, outcome: Result<(), WriteError<Infallible>>) -> Outcome {
        if !write.is_single {
            self.transaction = Some(write.transaction);
        } else if outcome.is_ok() {
            return self.apply(write.transaction);
        }
        Ok(outcome?)
    }

    #[inline(never)]
    fn apply(&mut self, transaction: Transaction) -> Outcome {
        transaction.commit(&mut self.namespace, &mut InMemory, &mut self.log)?;
        Ok(())
    }
}

/// A transaction that one write goes to.
struct Write {
    transaction: Transaction,
    /// Whether the write is a change of its own.
    is_single: bool,
}

/// The text in bytes from the host.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Code> {
    core::str::from_utf8(bytes).map_err(|_| vudo_crdt::MalformedFrame::StringNotUtf8.into())
}
