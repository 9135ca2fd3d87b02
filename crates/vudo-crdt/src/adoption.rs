//! Writing a change again in somebody else's name: what it did, as if its adopter had done it.
//!
//! ```text
//! change of `from`, number 7 --Adoption::rewrite--> change of `by`, its next number
//!   values and times stay       totals: what was added since, on top of the adopter's own
//!                               covered writes: those of the branch under their new numbers
//! ```
//!
//! Everything in a change that its writer's key and number go into is made anew: totals of counters,
//! and which writes a register or an element covers. Times stay what they were, so an adopted write
//! beats exactly what it would have beaten. What a `bounded_counter` has used are its writer's rights,
//! which nobody else has: such operations are left out.
//!
//! The changes of one branch are adopted in the order of their numbers, each joined before the next.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::change::{self, Change, DocumentChange, Entries, GenIndex, Operation};
use crate::counter;
use crate::dots::write_again;
use crate::hlc::Hlc;
use crate::limits::{MAX_CHANGE_BYTES, MAX_CHANGE_REPLICAS};
use crate::namespace::Namespace;
use crate::replica::{REPLICA_KEY_BYTES, ReplicaIndex};
use crate::row::entry_key;
use crate::schema::Strategy;
use crate::source::{ChunkError, ChunkSource};
use crate::value::encode_counts;
use crate::wire::write_varint;

/// The adoption of changes of one replica. Indexes are a namespace's.
#[derive(Debug)]
pub struct Adoption {
    from: ReplicaIndex,
    /// The last number before the changes that are adopted.
    before: u64,
    by: ReplicaIndex,
    /// By the number of a change that has been adopted: the number that it has now.
    numbers: BTreeMap<u64, u64>,
    /// By the place of a counter: what `from` had counted there so far.
    totals: BTreeMap<Place, Vec<u8>>,
    left_out: u64,
}

/// A cell in a life of its document: gen index, keys and lives down to it, and its id, in bytes.
type Place = Vec<u8>;

/// Why a change was not rewritten.
#[derive(Debug, PartialEq, Eq)]
pub enum AdoptError<E> {
    /// Written again it would be larger than a change may be, or name more replicas.
    TooLarge,
    /// A chunk could not be read.
    Chunk(ChunkError<E>),
}

impl Adoption {
    /// Adopts changes of `from` that come after the number `before`, in the name of `by`.
    pub fn new(from: ReplicaIndex, before: u64, by: ReplicaIndex) -> Adoption {
        let (numbers, totals) = (BTreeMap::new(), BTreeMap::new());
        Adoption { from, before, by, numbers, totals, left_out: 0 }
    }

    /// How many operations were left out of what has been rewritten.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes note of a change of `from` that stands before those that are adopted.
    pub fn see(&mut self, change: &Change<'_>) {
        let mut documents = change::documents(change.body);
        while !documents.is_empty() {
            let document = DocumentChange::read(&mut documents);
            self.see_operations(&document, &mut place_of(&document), change.now);
        }
    }

    fn see_operations(&mut self, owner: &DocumentChange<'_>, place: &mut Place, now: Hlc) {
        let length = place.len();
        for operation in owner.operations(now) {
            write_varint(place, operation.id.header(false));
            if operation.id.is_counter() {
                self.totals.insert(place.clone(), Vec::from(operation.value));
            } else if operation.id.is_collection() {
                let mut entries = Entries::of(operation.value);
                let entries_length = place.len();
                while entries.advance() {
                    extend(place, entries.entry.key, entries.entry.life);
                    self.see_operations(&entries.entry, place, now);
                    place.truncate(entries_length);
                }
            }
            place.truncate(length);
        }
    }

    /// The body that a change has in the name of the adopter, as its change of this number.
    ///
    /// # Errors
    /// As [`AdoptError`] says; then the change is not adopted, and others may be.
    pub fn rewrite<S: ChunkSource>(
        &mut self,
        namespace: &mut Namespace,
        change: &Change<'_>,
        number: u64,
        source: &mut S,
    ) -> Result<Vec<u8>, AdoptError<S::Error>> {
        let (keys, mut documents) = change::split_body(change.body);
        let mut references = alloc::vec![self.from];
        for key in keys.chunks_exact(REPLICA_KEY_BYTES) {
            references.push(namespace.intern_replica_bytes(key));
        }
        let mut rewriting =
            Rewriting { adoption: self, namespace, references, named: Vec::new(), left_out: 0 };
        rewriting.named.push(rewriting.adoption.by);
        let (mut written, mut document_count) = (Vec::new(), 0);
        while !documents.is_empty() {
            let document = DocumentChange::read(&mut documents);
            let (gen_index, mut place) = (document.gen_index, place_of(&document));
            let operations =
                rewriting.operations(&document, gen_index, &mut place, change.now, source);
            let operations = operations.map_err(AdoptError::Chunk)?;
            DocumentChange { operations: &operations, ..document }.encode(gen_index, &mut written);
            document_count += 1;
        }
        let Rewriting { named, left_out, .. } = rewriting;
        let mut body = Vec::new();
        change::write_body_head(document_count, named.len() - 1, &mut body);
        for replica in &named[1..] {
            body.extend_from_slice(&namespace.replicas().key(*replica).0);
        }
        body.extend_from_slice(&written);
        if body.len() > MAX_CHANGE_BYTES || named.len() > MAX_CHANGE_REPLICAS {
            return Err(AdoptError::TooLarge);
        }
        self.left_out += left_out;
        self.numbers.insert(change.number, number);
        self.see(change);
        Ok(body)
    }

    /// What covers a write of a replica, wherever that is now; `None` where it has no effect any more.
    fn renumber(&self, replica: ReplicaIndex, number: u64) -> Option<(ReplicaIndex, u64)> {
        if replica != self.from || number <= self.before {
            return Some((replica, number));
        }
        // Whoever covers a write covers those before it.
        let (_, number) = self.numbers.range(..=number).next_back()?;
        Some((self.by, *number))
    }
}

/// The rewriting of one change.
struct Rewriting<'a> {
    adoption: &'a Adoption,
    namespace: &'a mut Namespace,
    /// What the change refers to, its writer first.
    references: Vec<ReplicaIndex>,
    /// What it refers to when it is rewritten, its adopter first.
    named: Vec<ReplicaIndex>,
    left_out: u64,
}

impl Rewriting<'_> {
    /// The operations on a document, or on an entry, of which the owner has the row's key.
    fn operations<S: ChunkSource>(
        &mut self,
        owner: &DocumentChange<'_>,
        gen_index: GenIndex,
        place: &mut Place,
        now: Hlc,
        source: &mut S,
    ) -> Result<Vec<u8>, ChunkError<S::Error>> {
        let length = place.len();
        let (mut out, mut previous) = (Vec::new(), now);
        for operation in owner.operations(now) {
            let id = operation.id;
            write_varint(place, id.header(false));
            let rewritten = if id.is_counter() {
                self.total(owner, gen_index, &operation, place, source)?
            } else if id.is_mv_register() {
                let Adoption { from, before, .. } = *self.adoption;
                // The writer knew its own writes, and need not say that it covers them.
                let known = (before > 0).then_some((from, before));
                let renumber = |replica, number| self.adoption.renumber(replica, number);
                write_again(operation.value, &self.references, renumber, known, &mut self.named)
            } else if id.is_collection() {
                Some(self.entries(owner, gen_index, &operation, place, now, source)?)
            } else {
                Some(Vec::from(operation.value))
            };
            if let Some(value) = rewritten {
                Operation { value: &value, ..operation }.write(&mut previous, &mut out);
            }
            place.truncate(length);
        }
        Ok(out)
    }

    fn entries<S: ChunkSource>(
        &mut self,
        owner: &DocumentChange<'_>,
        gen_index: GenIndex,
        operation: &Operation<'_>,
        place: &mut Place,
        now: Hlc,
        source: &mut S,
    ) -> Result<Vec<u8>, ChunkError<S::Error>> {
        let (mut written, length) = (Vec::new(), place.len());
        let mut entries = Entries::of(operation.value);
        while entries.advance() {
            let entry = entries.entry;
            let key = entry_key(owner.key, operation.id, entry.key);
            extend(place, entry.key, entry.life);
            let of_row = DocumentChange { gen_index, key: &key, ..entry };
            let operations = self.operations(&of_row, gen_index, place, now, source)?;
            place.truncate(length);
            // An element that nothing is said of is none.
            if entry.life != 0 || !operations.is_empty() {
                let entry = DocumentChange { operations: &operations, ..entry };
                entry.encode_entry(entry.key, &mut written);
            }
        }
        let mut value = Vec::new();
        encode_counts(&written, &mut value);
        Ok(value)
    }

    /// What the adopter has counted, with what the change adds to what its writer had counted.
    fn total<S: ChunkSource>(
        &mut self,
        owner: &DocumentChange<'_>,
        gen_index: GenIndex,
        operation: &Operation<'_>,
        place: &Place,
        source: &mut S,
    ) -> Result<Option<Vec<u8>>, ChunkError<S::Error>> {
        let id = operation.id;
        if id.tag() == Strategy::BoundedCounter.tag() {
            self.left_out += 1;
            return Ok(None);
        }
        self.namespace.load(gen_index, owner.key, source)?;
        let row = self.namespace.loaded_row(gen_index, owner.key);
        let state = row.filter(|row| row.life == owner.life);
        let state = state.map_or(&[][..], |row| row.state(id));
        let own = counter::own_total(state, self.adoption.by);
        let before = self.adoption.totals.get(place).map_or(&[][..], Vec::as_slice);
        Ok(Some(counter::add_difference(id, own, before, operation.value)))
    }
}

fn place_of(document: &DocumentChange<'_>) -> Place {
    let mut place = Place::new();
    write_varint(&mut place, document.gen_index.into());
    extend(&mut place, document.key, document.life);
    place
}

fn extend(place: &mut Place, key: &[u8], life: u64) {
    write_varint(place, key.len() as u64);
    place.extend_from_slice(key);
    write_varint(place, life);
}
