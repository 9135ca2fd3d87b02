//! What a change writes, for whoever judges it: which documents, and into which of their cells.

use crate::change::{self, Change, DocumentChange, GenIndex};
use crate::hlc::Hlc;
use crate::row::CellId;
use crate::transaction::Transaction;
use crate::wire::Reader;

/// What a change writes to one document.
#[derive(Clone, Copy, Debug)]
pub struct DocumentWrite<'a> {
    /// The document's Gen.
    pub gen_index: GenIndex,
    /// The document's key.
    pub key: &'a [u8],
    /// The life that it is written to: odd where the document is alive then, even where it is deleted.
    pub life: u64,
    document: DocumentChange<'a>,
    now: Hlc,
}

impl<'a> DocumentWrite<'a> {
    fn read(documents: &mut Reader<'a>, now: Hlc) -> DocumentWrite<'a> {
        let document = DocumentChange::read(documents);
        let DocumentChange { gen_index, key, life, .. } = document;
        DocumentWrite { gen_index, key, life, document, now }
    }

    /// The cells that are written to, ascending, and the bytes of what is written there: of a register
    /// its encoded value.
    pub fn cells(&self) -> impl Iterator<Item = (CellId, &'a [u8])> + use<'a> {
        self.document.operations(self.now).map(|operation| (operation.id, operation.value))
    }
}

impl<'a> Change<'a> {
    /// What the change writes to each document, of a body that has been checked.
    pub fn document_writes(&self) -> impl Iterator<Item = DocumentWrite<'a>> + use<'a> {
        let (mut documents, now) = (change::documents(self.body), self.now);
        core::iter::from_fn(move || {
            (!documents.is_empty()).then(|| DocumentWrite::read(&mut documents, now))
        })
    }
}

impl Transaction {
    /// The Gen and the key of each document that has been written to, ascending.
    pub fn written_documents(&self) -> impl Iterator<Item = (GenIndex, &[u8])> {
        self.document_bytes().map(|bytes| {
            let DocumentChange { gen_index, key, .. } = DocumentChange::of(bytes);
            (gen_index, key)
        })
    }
}
