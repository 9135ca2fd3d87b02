//! A namespace: the tables of its Gens, who has written, and how far each writer has been heard.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::change::{self, Change, DocumentChange, GenIndex};
use crate::entries::{DocumentMerge, load_entries};
use crate::frame::Frame;
use crate::join::Joiner;
use crate::limits::{MAX_GENS, MAX_VECTOR_REPLICAS};
use crate::replica::{REPLICA_KEY_BYTES, ReplicaIndex, ReplicaKey, Replicas, VersionVector};
use crate::row::{
    CellId, Row, Stamp, entries_prefix, entry_key, is_entry_key, split_entry_key, write_owner,
};
use crate::schema::FieldSchema;
#[cfg(not(target_arch = "wasm32"))]
use crate::set_aside::Ranges;
#[cfg(not(target_arch = "wasm32"))]
use crate::source::ChunkId;
use crate::source::{ChunkError, ChunkSource};
#[cfg(not(target_arch = "wasm32"))]
use crate::table::StoredTable;
use crate::table::Table;
use crate::value::step_over_value;
use crate::wire::{MalformedFrame, Reader, is_utf8, write_bytes, write_varint};

/// How much of the bound on memory becomes free when it is reached.
#[cfg(not(target_arch = "wasm32"))]
const EVICTED_FRACTION: usize = 16;

/// The state of one namespace in one store.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub(crate) replicas: Replicas,
    /// By replica index: the number up to which every change is held.
    pub(crate) heard: Vec<u64>,
    pub(crate) gens: Vec<GenTable>,
    /// By replica index, as far as anything has been set aside.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) set_aside: Vec<Ranges>,
    seed: u64,
    pub(crate) joiner: Joiner,
    founder: Option<ReplicaIndex>,
}

#[derive(Clone, Debug)]
pub(crate) struct GenTable {
    /// UTF-8.
    pub(crate) name: Vec<u8>,
    pub(crate) documents: Table,
    /// The elements of sets and the entries of maps, of all documents.
    pub(crate) entries: Table,
}

/// One of the two tables of a Gen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TablePart {
    /// A row for each document.
    Documents,
    /// A row for each element of a set and each entry of a map.
    Entries,
}

impl TablePart {
    /// Both parts.
    pub const ALL: [TablePart; 2] = [TablePart::Documents, TablePart::Entries];
}

impl GenTable {
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn table(&self, part: TablePart) -> &Table {
        match part {
            TablePart::Documents => &self.documents,
            TablePart::Entries => &self.entries,
        }
    }

    /// The table of documents, or of entries.
    pub(crate) fn table_of(&mut self, is_entry: bool) -> &mut Table {
        if is_entry { &mut self.entries } else { &mut self.documents }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn table_mut(&mut self, part: TablePart) -> &mut Table {
        match part {
            TablePart::Documents => &mut self.documents,
            TablePart::Entries => &mut self.entries,
        }
    }

    /// The row of a document or entry; empty where there is none.
    pub(crate) fn stored_row(&self, key: &[u8]) -> &[u8] {
        let table = if is_entry_key(key) { &self.entries } else { &self.documents };
        table.loaded_row(key).unwrap_or_default()
    }
}

/// Is told what applying changes does, while it happens.
pub trait Observer {
    /// Whether it is told of documents, which costs reading each of them.
    const SEES_ROWS: bool = true;

    /// A change has been applied. Indexes are the namespace's.
    fn change(&mut self, change: &Change<'_>) {
        let _ = change;
    }

    /// A document's state has changed; `before` is `None` where there was none. The life is zero
    /// where the changes that made the document are not in effect any more, and there is none now.
    fn row(&mut self, gen_index: GenIndex, before: Option<Row<'_>>, after: Row<'_>) {
        let _ = (gen_index, before, after);
    }

    /// An element of a set or an entry of a map has changed: its row, under the key of an entry.
    fn entry(&mut self, gen_index: GenIndex, after: Row<'_>) {
        let _ = (gen_index, after);
    }
}

/// Observes nothing.
impl Observer for () {
    const SEES_ROWS: bool = false;
}

/// What a frame did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Changes that were new here.
    pub changes: u64,
    /// Changes that were held already.
    pub duplicates: u64,
    /// Operations in the new changes.
    pub operations: u64,
}

/// Why a frame was not applied. Nothing of it has taken effect.
#[derive(Debug, PartialEq, Eq)]
pub enum ApplyError<E> {
    /// The sender's fault: the bytes are not a frame.
    Malformed(MalformedFrame),
    /// The sender's fault: changes of a replica are missing before those sent.
    Gap {
        /// Whose changes are missing.
        replica: ReplicaKey,
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The frame names more Gens than one namespace may hold.
    TooManyGens,
    /// The frame's replicas and those that have written before are more than one namespace may have.
    #[cfg(not(target_arch = "wasm32"))]
    TooManyReplicas,
    /// A chunk that the frame touches could not be read.
    Chunk(ChunkError<E>),
}

impl<E> From<MalformedFrame> for ApplyError<E> {
    fn from(what: MalformedFrame) -> Self {
        ApplyError::Malformed(what)
    }
}

impl<E> From<ChunkError<E>> for ApplyError<E> {
    fn from(error: ChunkError<E>) -> Self {
        ApplyError::Chunk(error)
    }
}

impl<E: fmt::Display> fmt::Display for ChunkError<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChunkError::Source(error) => write!(formatter, "a chunk could not be read: {error}"),
            ChunkError::Damaged { id, what } => {
                write!(formatter, "chunk {id} is damaged on disk: {what}")
            }
        }
    }
}

impl<E: fmt::Display> fmt::Display for ApplyError<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyError::Malformed(what) => write!(formatter, "the frame is malformed: {what}"),
            ApplyError::Gap { replica, expected, found } => write!(
                formatter,
                "changes of replica {replica} are missing: expected number {expected}, got {found}"
            ),
            ApplyError::TooManyGens => {
                write!(formatter, "a namespace holds at most {MAX_GENS} Gens")
            }
            #[cfg(not(target_arch = "wasm32"))]
            ApplyError::TooManyReplicas => write!(
                formatter,
                "at most {MAX_VECTOR_REPLICAS} replicas write in a namespace, some of which are kept \
                 for its own store; go on in a new one"
            ),
            ApplyError::Chunk(error) => error.fmt(formatter),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for ApplyError<E> {}
impl<E: fmt::Debug + fmt::Display> core::error::Error for ChunkError<E> {}

impl Namespace {
    /// An empty namespace. The seed should be random: it makes the places of keys in memory
    /// unpredictable to whoever chooses them. It has no influence on any result.
    pub const fn new(seed: u64) -> Namespace {
        Namespace {
            replicas: Replicas::new(),
            heard: Vec::new(),
            gens: Vec::new(),
            #[cfg(not(target_arch = "wasm32"))]
            set_aside: Vec::new(),
            seed,
            joiner: Joiner::new(),
            founder: None,
        }
    }

    /// The replica that founded the namespace, where it is known here. It has the rights on every
    /// `bounded_counter` that exist from the start.
    pub fn founder(&self) -> Option<ReplicaIndex> {
        self.founder
    }

    /// Says who founded the namespace. Every replica has to be told the same; where nobody is, no
    /// replica has rights from the start, and bounds hold all the more.
    pub fn set_founder(&mut self, founder: ReplicaIndex) {
        self.founder = Some(founder);
    }

    /// The interned replicas.
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// The index of a replica, which is added where it is new.
    pub fn intern_replica(&mut self, key: ReplicaKey) -> ReplicaIndex {
        self.intern_replica_bytes(&key.0)
    }

    /// [`Namespace::intern_replica`] of a key of 32 bytes where it lies.
    pub fn intern_replica_bytes(&mut self, key: &[u8]) -> ReplicaIndex {
        let index = self.replicas.intern_bytes(key);
        if index as usize == self.heard.len() {
            self.heard.push(0);
        }
        index
    }

    /// The number up to which the replica's changes are held.
    pub fn heard(&self, replica: ReplicaIndex) -> u64 {
        self.heard[replica as usize]
    }

    /// The number up to which the changes of a replica of any key are held.
    pub(crate) fn heard_of(&self, key: &[u8]) -> u64 {
        self.replicas.find_bytes(key).map_or(0, |index| self.heard(index))
    }

    /// Everything that is held, as a vector.
    pub fn version_vector(&self) -> VersionVector {
        let ascending = self.replicas.ascending().iter();
        ascending.map(|index| (*self.replicas.key(*index), self.heard(*index))).collect()
    }

    /// Appends the bytes of [`Namespace::version_vector`] without building it.
    pub fn encode_version_vector(&self, out: &mut Vec<u8>) {
        let is_heard = |number: &&u64| **number > 0;
        write_varint(out, self.heard.iter().filter(is_heard).count() as u64);
        for index in self.replicas.ascending() {
            let number = self.heard(*index);
            if number > 0 {
                out.extend_from_slice(&self.replicas.key(*index).0);
                write_varint(out, number);
            }
        }
    }

    /// What the bytes of a version vector cover of each replica here, by replica index.
    ///
    /// # Errors
    /// As for [`VersionVector::decode`].
    pub fn covered_by(&self, vector: &[u8]) -> Result<Vec<u64>, MalformedFrame> {
        let mut covered = Vec::new();
        self.write_covered(vector, &mut covered)?;
        Ok(covered)
    }

    /// Fills an empty vector as [`Namespace::covered_by`] does.
    pub(crate) fn write_covered(
        &self,
        vector: &[u8],
        covered: &mut Vec<u64>,
    ) -> Result<(), MalformedFrame> {
        while covered.len() < self.heard.len() {
            covered.push(0);
        }
        let mut reader = Reader::new(vector);
        let mut last: &[u8] = &[];
        let mut left = reader.varint_up_to_or_zero(MAX_VECTOR_REPLICAS as u64);
        while left > 0 && !reader.has_failed() {
            left -= 1;
            let key = reader.take_or_empty(REPLICA_KEY_BYTES);
            let number = reader.varint_or_zero();
            reader.check(number != 0 && last < key, MalformedFrame::NotSorted);
            if let Some(index) = self.replicas.find_bytes(key) {
                covered[index as usize] = number;
            }
            last = key;
        }
        reader.checked(())
    }

    /// The index of a Gen, which is added where it is new; `None` where there is no room.
    pub fn intern_gen(&mut self, name: &str) -> Option<GenIndex> {
        self.intern_gen_bytes(name.as_bytes())
    }

    /// [`Namespace::intern_gen`] of a name that is known to be UTF-8.
    pub fn intern_gen_bytes(&mut self, name: &[u8]) -> Option<GenIndex> {
        let place = self.gen_place(name);
        if place < self.gens.len() {
            return Some(place as GenIndex);
        }
        if place >= MAX_GENS {
            return None;
        }
        let documents = Table::new(self.seed);
        let entries = Table::new(self.seed);
        let mut gen_table = GenTable { name: Vec::new(), documents, entries };
        gen_table.name.extend_from_slice(name);
        self.gens.push(gen_table);
        Some(place as GenIndex)
    }

    /// The index of a Gen that some change or caller has named.
    pub fn find_gen(&self, name: &str) -> Option<GenIndex> {
        let place = self.gen_place(name.as_bytes());
        (place < self.gens.len()).then_some(place as GenIndex)
    }

    /// Where a Gen is among the others, or where it would go.
    #[inline(never)]
    fn gen_place(&self, name: &[u8]) -> usize {
        let mut place = 0;
        while place < self.gens.len() && self.gens[place].name != name {
            place += 1;
        }
        place
    }

    /// Whether a Gen of this name would be added by interning it.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn is_new_gen(&self, name: &[u8]) -> bool {
        self.gen_place(name) == self.gens.len()
    }

    /// Whether so many Gens more may be added.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn has_room_for_gens(&self, count: usize) -> bool {
        self.gens.len() + count <= MAX_GENS
    }

    /// The names of the Gens, in the order of their indexes.
    pub fn gen_names(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        // Names come in as text, or in frames that are checked.
        self.gens.iter().map(|gen_table| core::str::from_utf8(&gen_table.name).unwrap_or_default())
    }

    /// The row of a document, loading its chunk where needed. Deleted documents have one too.
    ///
    /// # Errors
    /// The chunk could not be read.
    pub fn row<S: ChunkSource>(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        source: &mut S,
    ) -> Result<Option<Row<'_>>, ChunkError<S::Error>> {
        self.load(gen_index, key, source)?;
        Ok(self.loaded_row(gen_index, key))
    }

    /// Loads the chunk of a document or entry, so that [`Namespace::loaded_row`] finds it.
    ///
    /// # Errors
    /// The chunk could not be read.
    pub fn load<S: ChunkSource>(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        let GenTable { documents, entries, .. } = &mut self.gens[gen_index as usize];
        if entries.is_loaded() {
            return documents.load(key, source);
        }
        // An entry is in effect only where what it is in is.
        let mut rest = key;
        while let Some((parent, _, _)) = split_entry_key(rest) {
            entries.load(rest, source)?;
            rest = parent;
        }
        documents.load(rest, source)
    }

    /// Loads the entries that end when a document or entry, which is loaded, begins this life.
    pub(crate) fn load_ending<S: ChunkSource>(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        life: u64,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        let gen_table = &mut self.gens[gen_index as usize];
        let stored = gen_table.stored_row(key);
        let ends = !stored.is_empty() && Row::parse(stored).life < life;
        if ends && Row::parse(stored).has_entries() {
            gen_table.entries.load_prefix(&entries_prefix(key), source)?;
        }
        Ok(())
    }

    /// The row of a document or entry whose chunk is loaded, or that has none.
    pub fn loaded_row(&self, gen_index: GenIndex, key: &[u8]) -> Option<Row<'_>> {
        let row = self.stored_row(gen_index, key);
        (!row.is_empty()).then(|| Row::parse(row))
    }

    /// The bytes of [`Namespace::loaded_row`]; empty where there is none.
    pub(crate) fn stored_row(&self, gen_index: GenIndex, key: &[u8]) -> &[u8] {
        self.gens[gen_index as usize].stored_row(key)
    }

    /// Loads the rows of a collection in a document or entry.
    ///
    /// # Errors
    /// A chunk could not be read.
    pub fn load_entries<S: ChunkSource>(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        collection: CellId,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        self.load(gen_index, key, source)?;
        let prefix = entry_key(key, collection, &[]);
        self.gens[gen_index as usize].entries.load_prefix(&prefix, source)
    }

    /// Loads what reading a field of any strategy needs: see [`crate::Reading`].
    ///
    /// # Errors
    /// A chunk could not be read.
    pub fn load_field<S: ChunkSource>(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        if !field.strategy.is_collection() {
            return self.load(gen_index, key, source);
        }
        for collection in field.collections() {
            self.load_entries(gen_index, key, collection.id(), source)?;
        }
        Ok(())
    }

    /// The rows of a collection in a document or entry, ascending by element, those that are not in
    /// it any more included. They must be loaded: see [`Namespace::load_entries`].
    pub fn loaded_entries(
        &self,
        gen_index: GenIndex,
        key: &[u8],
        collection: CellId,
        mut visit: impl FnMut(&[u8], Row<'_>),
    ) {
        let prefix = entry_key(key, collection, &[]);
        for row in self.gens[gen_index as usize].entries.loaded_rows_with(&prefix) {
            let row = Row::parse(row);
            let mut rest = Reader::new(&row.key[prefix.len()..]);
            let element = step_over_value(&mut rest);
            // What follows the element lies in a collection of the entry.
            if rest.is_empty() {
                visit(element, row);
            }
        }
    }

    /// Visits the rows of a Gen from a key on, ascending, deleted documents included, until the
    /// visitor says `false`. Chunks that are not in memory are read one by one and do not stay.
    ///
    /// # Errors
    /// A chunk could not be read.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn visit_rows<S: ChunkSource>(
        &self,
        gen_index: GenIndex,
        from: &[u8],
        source: &mut S,
        mut visit: impl FnMut(Row<'_>) -> bool,
    ) -> Result<(), ChunkError<S::Error>> {
        let table = &self.gens[gen_index as usize].documents;
        table.visit_rows(from, source, |row| visit(Row::parse(row)))
    }

    /// The rows of a Gen whose chunks are loaded, ascending by key, deleted documents included.
    pub fn loaded_rows(&self, gen_index: GenIndex) -> impl Iterator<Item = Row<'_>> {
        self.gens[gen_index as usize].documents.loaded_rows().map(Row::parse)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.gens.iter().flat_map(|gen_table| [&gen_table.documents, &gen_table.entries])
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn tables_mut(&mut self) -> impl Iterator<Item = &mut Table> {
        self.gens.iter_mut().flat_map(|tables| [&mut tables.documents, &mut tables.entries])
    }

    /// Reads every stored chunk of a Gen and calls back with its first key, and with how many rows it
    /// has or what is wrong with it.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn visit_chunks<S: ChunkSource>(
        &self,
        gen_index: GenIndex,
        source: &mut S,
        mut visit: impl FnMut(&[u8], Result<usize, ChunkError<S::Error>>),
    ) {
        for table in
            [&self.gens[gen_index as usize].documents, &self.gens[gen_index as usize].entries]
        {
            table.visit_chunks(source, &mut visit);
        }
    }

    /// The chunks that are stored, of all Gens.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn stored_chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.tables().flat_map(Table::stored_chunks)
    }

    /// Moves all rows to their chunks, so that what is persisted next has none beside them.
    ///
    /// # Errors
    /// A chunk could not be read that rows move to. Those of its table are where they were.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn move_rows_to_chunks<S: ChunkSource>(
        &mut self,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        self.tables_mut().try_for_each(|table| table.flush(source))
    }

    /// What the chunks in memory take up: all that grows with the count of documents, but for
    /// the directory of chunks and the write buffers.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn loaded_bytes(&self) -> usize {
        self.tables().map(Table::loaded_bytes).sum()
    }

    /// Drops chunks from memory where they take up more than so many bytes, those first that have
    /// not been used for long. Gives what they take up afterwards: more than the bound where too
    /// much has been written since the tables were last persisted. Nothing that was loaded may be
    /// taken to be loaded afterwards.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn evict(&mut self, bytes_max: usize) -> usize {
        let mut loaded_bytes = self.loaded_bytes();
        if loaded_bytes > bytes_max {
            // Some more, for a round of the clock costs more than a chunk.
            let aim = bytes_max - bytes_max / EVICTED_FRACTION;
            // Every table gives its share, as far as it has chunks that were not used lately.
            let (before, wanted) = (loaded_bytes as u128, (loaded_bytes - aim) as u128);
            for table in self.tables_mut() {
                let share = (wanted * table.loaded_bytes() as u128).div_ceil(before);
                loaded_bytes -= table.evict(share as usize);
            }
            // The first round left nothing marked, so the second one finds all that can go.
            for table in self.tables_mut() {
                loaded_bytes -= table.evict(loaded_bytes.saturating_sub(aim));
            }
        }
        loaded_bytes
    }

    /// Applies a frame: validates all of it, then joins every change that is new.
    ///
    /// # Errors
    /// Malformed bytes, changes missing before those sent, or a chunk that cannot be read. After
    /// an error nothing of the frame has taken effect.
    pub fn apply_frame<S: ChunkSource, O: Observer>(
        &mut self,
        bytes: &[u8],
        source: &mut S,
        observer: &mut O,
    ) -> Result<Applied, ApplyError<S::Error>> {
        let mut frame = Frame::default();
        // Up to which number each replica of the frame has been heard or seen.
        let mut reached = Vec::new();
        let mut first_gap = None;
        frame.read(bytes, |change, keys| {
            let gap = self.gap_before(change, keys, &mut reached);
            first_gap = first_gap.or(gap);
        })?;
        if let Some((replica, expected, found)) = first_gap {
            let replica = ReplicaKey::of(frame.keys[replica]);
            return Err(ApplyError::Gap { replica, expected, found });
        }
        #[cfg(not(target_arch = "wasm32"))]
        let is_left_out = self.gens_left_out(&frame)?;
        // A module takes in all that a frame names, which is code that it does without.
        #[cfg(target_arch = "wasm32")]
        let new_gens = frame.gens.iter().filter(|name| self.gen_place(name) == self.gens.len());
        #[cfg(target_arch = "wasm32")]
        if self.gens.len() + new_gens.count() > MAX_GENS {
            return Err(ApplyError::TooManyGens);
        }
        let mut gen_map: Vec<GenIndex> = Vec::new();
        let mut is_same_order = true;
        for name in &frame.gens {
            #[cfg(not(target_arch = "wasm32"))]
            if is_left_out.get(gen_map.len()) == Some(&true) {
                // Nothing that is joined has this index.
                gen_map.push(GenIndex::MAX);
                continue;
            }
            let index = self.intern_gen_bytes(name).unwrap_or_default();
            is_same_order &= index as usize == gen_map.len();
            gen_map.push(index);
        }
        self.load_touched(&frame, &gen_map, source)?;
        let mut replica_map: Vec<ReplicaIndex> = Vec::new();
        let mut applied = Applied::default();
        let mut body = Vec::new();
        let mut changes = frame.changes();
        while changes.advance() {
            let mut change = changes.change;
            let replica = change.replica as usize;
            if replica == replica_map.len() {
                replica_map.push(self.intern_replica_bytes(changes.keys[replica]));
            }
            change.replica = replica_map[replica];
            if change.number <= self.heard(change.replica) {
                applied.duplicates += 1;
                continue;
            }
            if !is_same_order {
                body.clear();
                rewrite_gens(&change, &gen_map, &mut body);
                change.body = &body;
            }
            applied.operations += self.join_change(&change, observer);
            applied.changes += 1;
        }
        Ok(applied)
    }

    /// Notes that a change of a frame follows. A replica's changes must follow on what is held, or be
    /// held already: gives the replica's place in the frame, the number expected and the one found
    /// where this one does not.
    fn gap_before(
        &self,
        change: &Change<'_>,
        keys: &[&[u8]],
        reached: &mut Vec<u64>,
    ) -> Option<(usize, u64, u64)> {
        let replica = change.replica as usize;
        if replica == reached.len() {
            reached.push(self.heard_of(keys[replica]));
        }
        let reached = &mut reached[replica];
        let expected = *reached + 1;
        *reached = change.number.max(*reached);
        (change.number > expected).then_some((replica, expected, change.number))
    }

    /// Applies a change of this store's own, or one replayed from its log. Its chunks must be
    /// loaded, its indexes the namespace's, and its number the next of its replica.
    ///
    /// # Errors
    /// A chunk could not be read.
    pub fn apply_own<S: ChunkSource, O: Observer>(
        &mut self,
        change: &Change<'_>,
        source: &mut S,
        observer: &mut O,
    ) -> Result<u64, ChunkError<S::Error>> {
        self.load_change(change, |gen_index| gen_index, source)?;
        Ok(self.join_change(change, observer))
    }

    fn load_touched<S: ChunkSource>(
        &mut self,
        frame: &Frame<'_>,
        gen_map: &[GenIndex],
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        let is_loaded = |gens: &GenTable| gens.documents.is_loaded() && gens.entries.is_loaded();
        if self.gens.iter().all(is_loaded) {
            return Ok(());
        }
        for change in frame.changes() {
            // What is held already is not joined.
            if change.number <= self.heard_of(frame.keys[change.replica as usize]) {
                continue;
            }
            self.load_change(&change, |gen_index| gen_map[gen_index as usize], source)?;
        }
        Ok(())
    }

    /// Loads what joining a change needs.
    fn load_change<S: ChunkSource>(
        &mut self,
        change: &Change<'_>,
        gen_of: impl Fn(GenIndex) -> GenIndex,
        source: &mut S,
    ) -> Result<(), ChunkError<S::Error>> {
        let mut documents = change::documents(change.body);
        while !documents.is_empty() {
            let document = DocumentChange::read(&mut documents);
            let GenTable { documents, entries, .. } =
                &mut self.gens[gen_of(document.gen_index) as usize];
            documents.load(document.key, source)?;
            if !entries.is_loaded() {
                let stored = documents.loaded_row(document.key).unwrap_or_default();
                let mut key = Vec::new();
                write_owner(document.key, &mut key);
                load_entries(entries, stored, &document, &mut key, source)?;
            }
        }
        Ok(())
    }

    /// Joins a validated change whose chunks are loaded. Gives the count of its operations.
    pub(crate) fn join_change<O: Observer>(
        &mut self,
        change: &Change<'_>,
        observer: &mut O,
    ) -> u64 {
        let stamp = Stamp { hlc: change.now, replica: change.replica, number: change.number };
        let (replicas, mut documents) = change::split_body(change.body);
        // Only operations on collections and registers of many values refer to others.
        if cfg!(feature = "registers") {
            self.joiner.begin_references(change.replica);
            for key in replicas.chunks_exact(REPLICA_KEY_BYTES) {
                let index = self.intern_replica_bytes(key);
                self.joiner.references.push(index);
            }
        }
        let mut operation_count = 0;
        #[cfg(not(target_arch = "wasm32"))]
        if !self.set_aside.is_empty()
            && self.set_aside(change.replica).contains(change.number)
            && !cfg!(vudo_mutation = "set_aside_joined")
        {
            documents = Reader::new(&[]);
        }
        while !documents.is_empty() {
            let document = DocumentChange::read(&mut documents);
            let tables = &mut self.gens[document.gen_index as usize];
            let (joiner, replicas) = (&mut self.joiner, &self.replicas);
            let mut merge = DocumentMerge { stamp, joiner, replicas, tables, observer };
            operation_count += merge.join(&document);
        }
        let heard = &mut self.heard[change.replica as usize];
        *heard = change.number.max(*heard);
        observer.change(change);
        operation_count
    }

    /// A namespace with the same replicas and Gens, and nothing else.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn without_documents(&self) -> Namespace {
        let empty = |gen_table: &GenTable| GenTable {
            name: gen_table.name.clone(),
            documents: Table::new(self.seed),
            entries: Table::new(self.seed),
        };
        Namespace {
            replicas: self.replicas.clone(),
            heard: vec![0; self.heard.len()],
            gens: self.gens.iter().map(empty).collect(),
            set_aside: Vec::new(),
            seed: self.seed,
            joiner: Joiner::new(),
            founder: self.founder,
        }
    }

    /// The directory's bytes: replicas, numbers and Gens; tables are stored one by one.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn encode_directory(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.heard.len() as u64);
        for (key, number) in self.replicas.keys().iter().zip(&self.heard) {
            out.extend_from_slice(&key.0);
            write_varint(&mut out, *number);
        }
        write_varint(&mut out, self.gens.len() as u64);
        for gen_table in &self.gens {
            write_bytes(&mut out, &gen_table.name);
        }
        out
    }

    /// A namespace as it was when the directory was encoded, its chunks not loaded yet.
    ///
    /// `tables` gives what [`Table::persist`] last gave of both tables of each Gen, in the order of
    /// their indexes, or `None` for one without rows.
    ///
    /// # Errors
    /// Says what is wrong with the stored bytes.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(
        directory: &[u8],
        mut tables: impl FnMut(GenIndex, TablePart) -> Option<StoredTable>,
        seed: u64,
    ) -> Result<Namespace, MalformedFrame> {
        let mut namespace = Namespace::new(seed);
        let mut reader = Reader::new(directory);
        for _ in 0..reader.varint()? {
            let index = namespace.intern_replica_bytes(reader.take(REPLICA_KEY_BYTES)?);
            namespace.heard[index as usize] = reader.varint()?;
        }
        for gen_index in 0..reader.varint_up_to(MAX_GENS as u64)? as GenIndex {
            let name = Vec::from(reader.bytes()?);
            if !is_utf8(&name) {
                return Err(MalformedFrame::StringNotUtf8);
            }
            let mut open = |part| match tables(gen_index, part) {
                Some(stored) => Table::open(&stored, seed),
                None => Ok(Table::new(seed)),
            };
            let documents = open(TablePart::Documents)?;
            let entries = open(TablePart::Entries)?;
            namespace.gens.push(GenTable { name, documents, entries });
        }
        if reader.is_empty() { Ok(namespace) } else { Err(MalformedFrame::TrailingBytes) }
    }

    /// A table of a Gen, for persisting it.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn table_mut(&mut self, gen_index: GenIndex, part: TablePart) -> &mut Table {
        let gen_table = &mut self.gens[gen_index as usize];
        match part {
            TablePart::Documents => &mut gen_table.documents,
            TablePart::Entries => &mut gen_table.entries,
        }
    }
}

/// Appends a change's body with the namespace's gen indexes in place of the frame's.
pub(crate) fn rewrite_gens(change: &Change<'_>, gen_map: &[GenIndex], out: &mut Vec<u8>) {
    let mut reader = change::documents(change.body);
    out.extend_from_slice(&change.body[..change.body.len() - reader.rest().len()]);
    while !reader.is_empty() {
        let document = DocumentChange::read(&mut reader);
        document.encode(gen_map[document.gen_index as usize], out);
    }
}
