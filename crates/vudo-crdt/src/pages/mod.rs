//! State pages: a whole state in pages of bounded size, for those further behind than the log goes.
//!
//! ```text
//! tables --write_pages--> page | page | ... | StateRoot     (the root a checkpoint signs)
//!                                                  |
//! pages + root --join_pages: look at all of them, then join--> tables
//! ```
//!
//! Pages are a pure function of the state: Gens by name, documents before the entries of their
//! collections, rows by key, a page ends where the next
//! row would take it past a bound. So everybody who has a state can compute its root, and a page
//! that differs in a bit is told by it. The pages are the leaves of a Merkle tree.
//!
//! Invariant: nothing of a state from outside takes effect before all of it has been looked at and
//! the root is right. Joining keeps what is newer here.

mod columns;
mod page;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::fingerprint::write_canonical_row;
use crate::limits::{MAX_PAGE_BYTES, MAX_PAGE_ROWS, PAGE_ROWS_BYTES};
use crate::merkle::{Hash, MerkleLog};
use crate::namespace::{Namespace, Observer, TablePart};
use crate::pages::page::{Page, encode_page};
use crate::replica::{ReplicaIndex, VersionVector};
use crate::row::{Row, is_entry_key, key_of};
use crate::source::{ChunkError, ChunkSource};
use crate::wire::MalformedFrame;

const PAGE_TAG: &[u8] = b"\0vudo/page/1";

/// Names a state in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRoot {
    /// How many pages there are.
    pub page_count: u64,
    /// The root of the Merkle tree over them.
    pub root: Hash,
}

/// Where the pages of a state come from, one at a time and more than once.
pub trait PageSource {
    /// Why a page could not be read.
    type Error;

    /// The page of this index, from zero.
    ///
    /// # Errors
    /// Whatever kept the page from being read.
    fn page(&mut self, index: u64) -> Result<Vec<u8>, Self::Error>;
}

/// Why pages were not written or not joined. Nothing has taken effect.
#[derive(Debug, PartialEq, Eq)]
pub enum PagesError<P, C> {
    /// A page could not be read or written.
    Page(P),
    /// The giver's fault: the bytes of this page are not one, or it does not follow on the others.
    Malformed {
        /// Which page.
        index: u64,
        /// What is wrong with it.
        what: MalformedFrame,
    },
    /// The giver's fault: the pages are not those of the root.
    OtherRoot,
    /// The pages name more Gens than a namespace may hold.
    TooManyGens,
    /// A document is larger than a page may be.
    DocumentTooLarge,
    /// A chunk could not be read.
    Chunk(ChunkError<C>),
}

/// The leaf of a page in the tree of a [`StateRoot`].
pub fn page_leaf(page: &[u8]) -> Hash {
    Sha256::new().chain_update(PAGE_TAG).chain_update(page).finalize().into()
}

/// Collects rows into pages.
struct PageWriter<F> {
    emit: F,
    rows: Vec<Vec<u8>>,
    byte_count: usize,
    tree: MerkleLog,
}

impl<F> PageWriter<F> {
    fn finish_page<P, C>(
        &mut self,
        gen_name: &[u8],
        part: TablePart,
        namespace: &Namespace,
    ) -> Result<(), PagesError<P, C>>
    where
        F: FnMut(Vec<u8>) -> Result<(), P>,
    {
        if self.rows.is_empty() {
            return Ok(());
        }
        let page = encode_page(gen_name, part, &self.rows, namespace.replicas());
        self.rows.clear();
        self.byte_count = 0;
        if page.len() > MAX_PAGE_BYTES {
            return Err(PagesError::DocumentTooLarge);
        }
        self.tree.push(page_leaf(&page), |_, _| ());
        (self.emit)(page).map_err(PagesError::Page)
    }
}

impl Namespace {
    /// Writes the state as pages, one after the other, with no more than one in memory. Gives what
    /// names them all.
    ///
    /// # Errors
    /// A chunk could not be read, `emit` failed, or a document is too large.
    pub fn write_pages<S: ChunkSource, P>(
        &self,
        source: &mut S,
        emit: impl FnMut(Vec<u8>) -> Result<(), P>,
    ) -> Result<StateRoot, PagesError<P, S::Error>> {
        let (rows, tree) = (Vec::new(), MerkleLog::new());
        let mut writer = PageWriter { emit, rows, byte_count: 0, tree };
        let mut canonical = Vec::new();
        let gens = self.gens_by_name();
        let parts = gens.iter().flat_map(|index| TablePart::ALL.map(|part| (*index, part)));
        for (gen_index, part) in parts {
            let gen_table = &self.gens[gen_index];
            let mut failure = None;
            let visited = gen_table.table(part).visit_rows(&[], source, |row| {
                canonical.clear();
                write_canonical_row(&Row::parse(row), self.replicas(), &mut canonical);
                let byte_count = writer.byte_count + canonical.len();
                if byte_count > PAGE_ROWS_BYTES || writer.rows.len() as u64 == MAX_PAGE_ROWS {
                    failure = writer.finish_page(&gen_table.name, part, self).err();
                }
                writer.byte_count += canonical.len();
                writer.rows.push(Vec::from(row));
                failure.is_none()
            });
            visited.map_err(PagesError::Chunk)?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            writer.finish_page(&gen_table.name, part, self)?;
        }
        Ok(StateRoot { page_count: writer.tree.length(), root: writer.tree.root() })
    }

    /// Joins a state that is given in pages, which is that of the changes up to a vector. First
    /// looks at all pages, then loads what they touch, then joins them: readers that wait for this
    /// to end see all of it or nothing. Gives how many documents were joined.
    ///
    /// # Errors
    /// As [`PagesError`] says; nothing has taken effect then, unless the source fails to give again
    /// a page that it has given before: then the call has to be repeated before anybody reads.
    pub fn join_pages<P: PageSource, S: ChunkSource, O: Observer>(
        &mut self,
        root: &StateRoot,
        vector: &VersionVector,
        pages: &mut P,
        source: &mut S,
        observer: &mut O,
    ) -> Result<u64, PagesError<P::Error, S::Error>> {
        self.check_pages(root, pages)?;
        self.visit_pages(root, pages, |namespace, gen_index, row| {
            namespace.load_for_row(gen_index, row, source).map_err(PagesError::Chunk)
        })?;
        let mut document_count = 0;
        let mut outlived = BTreeSet::new();
        self.visit_pages(root, pages, |namespace, gen_index, row| {
            document_count += u64::from(!is_entry_key(key_of(row)));
            namespace.join_row(gen_index, row, &mut outlived, observer);
            Ok(())
        })?;
        for (key, number) in vector.iter() {
            let replica = self.intern_replica(key) as usize;
            self.heard[replica] = number.max(self.heard[replica]);
        }
        Ok(document_count)
    }

    /// Looks at every page: its bytes, its order behind the one before, and the root over all.
    fn check_pages<P: PageSource, C>(
        &self,
        root: &StateRoot,
        pages: &mut P,
    ) -> Result<(), PagesError<P::Error, C>> {
        let mut tree = MerkleLog::new();
        let mut last: (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        let mut last_part = TablePart::Documents;
        let mut new_gen_count = 0;
        for index in 0..root.page_count {
            let bytes = pages.page(index).map_err(PagesError::Page)?;
            let malformed = |what| PagesError::Malformed { index, what };
            let page = Page::parse(&bytes).map_err(malformed)?;
            if last.0 != page.gen_name {
                if last.0.as_slice() > page.gen_name {
                    return Err(malformed(MalformedFrame::NotSorted));
                }
                last = (Vec::from(page.gen_name), Vec::new());
                last_part = TablePart::Documents;
                new_gen_count += usize::from(self.is_new_gen(page.gen_name));
            }
            if last_part != page.part {
                if last_part == TablePart::Entries {
                    return Err(malformed(MalformedFrame::NotSorted));
                }
                (last_part, last.1) = (page.part, Vec::new());
            }
            let places: Vec<ReplicaIndex> = (0..page.replicas.len() as ReplicaIndex).collect();
            let checked = page.visit_rows(&places, |row| {
                if last.1.as_slice() >= key_of(row) {
                    return Err(MalformedFrame::NotSorted);
                }
                last.1.clear();
                last.1.extend_from_slice(key_of(row));
                Ok(())
            });
            checked.map_err(malformed)?;
            tree.push(page_leaf(&bytes), |_, _| ());
        }
        if tree.root() != root.root {
            return Err(PagesError::OtherRoot);
        }
        if self.has_room_for_gens(new_gen_count) { Ok(()) } else { Err(PagesError::TooManyGens) }
    }

    /// Shows every row of pages that have been checked, with this namespace's indexes.
    fn visit_pages<P: PageSource, C>(
        &mut self,
        root: &StateRoot,
        pages: &mut P,
        mut visit: impl FnMut(&mut Namespace, usize, &[u8]) -> Result<(), PagesError<P::Error, C>>,
    ) -> Result<(), PagesError<P::Error, C>> {
        for index in 0..root.page_count {
            let bytes = pages.page(index).map_err(PagesError::Page)?;
            let malformed = |what| PagesError::Malformed { index, what };
            let page = Page::parse(&bytes).map_err(malformed)?;
            let places: Vec<ReplicaIndex> =
                page.replicas.iter().map(|key| self.intern_replica_bytes(key)).collect();
            let gen_index = self.intern_gen_bytes(page.gen_name).unwrap_or_default() as usize;
            let mut failure = None;
            let visited = page.visit_rows(&places, |row| {
                failure = visit(self, gen_index, row).err();
                if failure.is_none() { Ok(()) } else { Err(MalformedFrame::Truncated) }
            });
            match failure {
                Some(failure) => return Err(failure),
                None => visited.map_err(malformed)?,
            }
        }
        Ok(())
    }
}
