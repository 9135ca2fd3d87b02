//! A store under test with its twin beside it: whatever is done to one is done to the other, and
//! every refusal has to be the same.

use std::collections::BTreeMap;
use std::convert::Infallible;

use vudo_crdt::{
    Applied, ApplyError, Change as LoggedChange, ChunkId, ChunkSource, CounterOptions, Direction,
    FieldSchema, FrameWriter, GenIndex, InMemory, Log, Namespace, Observer, Overflow, PageSource,
    Ranges, Reading, Refusal, ReplicaIndex, ReplicaKey, Row, StateRoot, StoredTable, Strategy,
    TablePart, Transaction, TransactionView, Value, ValueType, VersionVector, WriteError,
    split_entry_key,
};

use crate::model::{Cell, Change, DocumentId, Place, Stamp, Time, Twin, TwinTransaction};
use crate::random::Random;

pub(crate) const GEN_NAMES: [&str; 3] = ["Task", "Note", "a.Person"];

type Written = Result<(), WriteError<Infallible>>;

/// A disk that never fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks {
    stored: BTreeMap<ChunkId, Vec<u8>>,
}

impl ChunkSource for Chunks {
    type Error = Infallible;

    fn load(&mut self, id: ChunkId) -> Result<Vec<u8>, Infallible> {
        Ok(self.stored.get(&id).expect("a chunk was freed while in use").clone())
    }
}

/// Pages in memory.
struct Pages<'p>(&'p [Vec<u8>]);

impl PageSource for Pages<'_> {
    type Error = Infallible;

    fn page(&mut self, index: u64) -> Result<Vec<u8>, Infallible> {
        Ok(self.0[index as usize].clone())
    }
}

/// A state in pages.
pub(crate) fn pages_of(
    namespace: &Namespace,
    source: &mut impl ChunkSource<Error = Infallible>,
) -> (StateRoot, Vec<Vec<u8>>) {
    let mut pages = Vec::new();
    let emit = |page| -> Result<(), Infallible> {
        pages.push(page);
        Ok(())
    };
    let root = namespace.write_pages(source, emit).unwrap();
    (root, pages)
}

/// One field for each strategy and for each way in which counters are read.
pub(crate) fn fields() -> Vec<FieldSchema> {
    let field = FieldSchema::new;
    let counter = |name, number, value_type, overflow| {
        let mut counter = field(name, number, Strategy::PnCounter, value_type);
        counter.counter.overflow = overflow;
        counter
    };
    let mut title = field("title", 2, Strategy::Lww, ValueType::String);
    title.default = Some(Value::from("untitled"));
    let map = |name, number, strategy, value_type| {
        let value_type = ValueType::Map(text(), Box::new(value_type));
        let mut map = FieldSchema::new(name, number, Strategy::Map, value_type);
        map.value_strategy = strategy;
        map
    };
    let mut seats = field("seats", 13, Strategy::BoundedCounter, ValueType::I64);
    seats.counter = CounterOptions { min_value: Some(-5), max_value: Some(90), ..seats.counter };
    let mut stock = counter("stock", 7, ValueType::U8, Overflow::Error);
    stock.counter = CounterOptions { min_value: Some(3), max_value: Some(200), ..stock.counter };
    vec![
        field("id", 1, Strategy::Immutable, ValueType::String),
        title,
        field("rank", 3, Strategy::LwwContent, ValueType::I64),
        counter("votes", 4, ValueType::I64, Overflow::Saturate),
        counter("dial", 5, ValueType::I8, Overflow::Wrap),
        counter("level", 6, ValueType::I8, Overflow::Saturate),
        stock,
        field("mass", 8, Strategy::PnCounterFloat, ValueType::F64),
        field("ratio", 900, Strategy::Lww, ValueType::F64),
        field("photo", 901, Strategy::Lww, ValueType::Bytes),
        field("done", 65_535, Strategy::LwwContent, ValueType::Bool),
        field("likes", 10, Strategy::GCounter, ValueType::I8),
        field("owners", 11, Strategy::MvRegister, ValueType::I64),
        field("tags", 12, Strategy::OrSet, ValueType::Set(text())),
        seats,
        map("shelf", 14, Strategy::Lww, ValueType::String),
        map("tally", 15, Strategy::PnCounter, ValueType::I64),
        map("labels", 16, Strategy::OrSet, ValueType::Set(text())),
        map("opinions", 17, Strategy::MvRegister, ValueType::I64),
        map("origin", 18, Strategy::Immutable, ValueType::Bool),
    ]
}

fn text() -> Box<ValueType> {
    Box::new(ValueType::String)
}

/// What a history is made of.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) key_count: usize,
    pub(crate) text_bytes_max: usize,
    pub(crate) fields: Vec<FieldSchema>,
}

/// A frame on its way, and what it carries in its order.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) contents: Vec<(ReplicaKey, u64)>,
}

/// Every change of a history in the twin's words.
pub(crate) type Changes = BTreeMap<(ReplicaKey, u64), Change>;

/// Counts what an observer is told, so that it can be held against what was reported.
#[derive(Default)]
struct Counting {
    log: Log,
    row_count: u64,
    entry_count: u64,
    last: Option<(GenIndex, Vec<u8>, u64)>,
}

impl Observer for Counting {
    fn change(&mut self, change: &LoggedChange<'_>) {
        self.log.change(change);
    }

    fn entry(&mut self, _: GenIndex, after: Row<'_>) {
        self.entry_count += 1;
        assert!(split_entry_key(after.key).is_some());
    }

    fn row(&mut self, gen_index: GenIndex, before: Option<Row<'_>>, after: Row<'_>) {
        self.row_count += 1;
        assert!(before.is_none_or(|row| row.key == after.key));
        self.last = Some((gen_index, after.key.to_vec(), after.life));
    }
}

pub(crate) struct Store {
    pub(crate) key: ReplicaKey,
    pub(crate) namespace: Namespace,
    pub(crate) chunks: Chunks,
    pub(crate) log: Log,
    pub(crate) twin: Twin,
    replica: ReplicaIndex,
    founder: ReplicaKey,
    next_chunk_id: ChunkId,
    tables: BTreeMap<(GenIndex, TablePart), StoredTable>,
    /// What the replica's clock shows, before the jitter of each transaction.
    clock_milliseconds: u64,
}

impl Store {
    pub(crate) fn new(number: usize, random: &mut Random) -> Store {
        // The first bytes are random, so that the order of keys is not that of indexes.
        let mut key = [number as u8; 32];
        key[..8].copy_from_slice(&random.next().to_le_bytes());
        let key = ReplicaKey(key);
        let mut namespace = Namespace::new(random.next());
        let mut names = GEN_NAMES;
        random.shuffle(&mut names);
        names.iter().for_each(|name| assert!(namespace.intern_gen(name).is_some()));
        let replica = namespace.intern_replica(key);
        const HONEST_MILLISECONDS: u64 = 1_700_000_000_000;
        const YEAR_MILLISECONDS: u64 = 365 * 24 * 3_600_000;
        let clock_milliseconds = match random.below(5) {
            0 => 0,
            1 => HONEST_MILLISECONDS + YEAR_MILLISECONDS,
            _ => HONEST_MILLISECONDS,
        };
        let mut store = Store {
            key,
            namespace,
            chunks: Chunks::default(),
            log: Log::default(),
            twin: Twin::default(),
            replica,
            founder: key,
            next_chunk_id: 1,
            tables: BTreeMap::new(),
            clock_milliseconds,
        };
        store.set_founder(key);
        store
    }

    /// Tells the store who founded the namespace.
    pub(crate) fn set_founder(&mut self, founder: ReplicaKey) {
        self.founder = founder;
        let founder = self.namespace.intern_replica(founder);
        self.namespace.set_founder(founder);
    }

    fn now_milliseconds(&mut self, random: &mut Random) -> u64 {
        // Stops now and then, and rarely shows the end of all time.
        self.clock_milliseconds += random.below(3) as u64;
        if random.one_in(300) { u64::MAX } else { self.clock_milliseconds }
    }

    /// Runs a random transaction. Gives how many operations were tried.
    pub(crate) fn transact(
        &mut self,
        random: &mut Random,
        shape: &Shape,
        changes: &mut Changes,
    ) -> u64 {
        let now = self.now_milliseconds(random);
        let number = self.namespace.heard(self.replica) + 1;
        let stamp = Stamp { time: Time::of_clock(now), replica: self.key, number };
        let mut real = Transaction::begin(&self.namespace, self.replica, now);
        let mut twin = TwinTransaction::begin(&self.twin, stamp);
        let operation_count = 1 + random.below(6);
        for _ in 0..operation_count {
            let gen_name = *random.pick(&GEN_NAMES);
            let key = format!("key-{}", random.below(shape.key_count)).into_bytes();
            let id = (gen_name.to_owned(), key);
            let gen_index = self.namespace.find_gen(gen_name).unwrap();
            let mut writer = Writer {
                real: &mut real,
                namespace: &mut self.namespace,
                chunks: &mut self.chunks,
                gen_index,
                founder: self.founder,
            };
            let (did, expected) = writer.write(random, shape, &id, &mut twin);
            assert_eq!(did, expected.map_err(WriteError::Refused), "an operation on {id:?}");
            writer.check_view(&id, &twin, shape);
        }
        let is_empty = twin.change.is_empty();
        assert_eq!(real.is_empty(), is_empty);
        assert_eq!(real.document_count(), twin.change.len());
        let committed = real.commit(&mut self.namespace, &mut self.chunks, &mut self.log).unwrap();
        assert_eq!(committed, (!is_empty).then_some(number));
        if !is_empty {
            changes.insert((self.key, number), twin.change);
            self.apply_to_twin(&(self.key, number), changes);
        }
        operation_count as u64
    }

    /// A frame of what the vector does not cover, with a change left out or the end cut off now
    /// and then.
    pub(crate) fn packet(&self, since: &VersionVector, random: &mut Random) -> Packet {
        let key = |change: &LoggedChange<'_>| *self.namespace.replicas().key(change.replica);
        let wanted = |change: &LoggedChange<'_>| change.number > since.get(&key(change));
        let mut chosen: Vec<LoggedChange<'_>> = self.log.changes().filter(wanted).collect();
        if chosen.len() > 1 && random.one_in(3) {
            chosen.truncate(1 + random.below(chosen.len() - 1));
        }
        if chosen.len() > 2 && random.one_in(4) {
            chosen.remove(random.below(chosen.len() - 1));
        }
        let mut writer =
            FrameWriter::new(self.namespace.replicas().keys(), self.namespace.gen_names());
        chosen.iter().for_each(|change| writer.push(change));
        assert_eq!(writer.change_count(), chosen.len() as u64);
        let contents = chosen.iter().map(|change| (key(change), change.number)).collect();
        Packet { bytes: writer.finish(), contents }
    }

    /// Applies a frame and predicts what it does. Gives whether it was refused for a gap.
    pub(crate) fn receive(&mut self, packet: &Packet, changes: &Changes) -> bool {
        let before = self.namespace.version_vector();
        let mut reached = before.clone();
        let mut fresh = Vec::new();
        let mut gap = None;
        for (replica, number) in &packet.contents {
            let expected = reached.get(replica) + 1;
            if *number > expected {
                gap = Some(ApplyError::Gap { replica: *replica, expected, found: *number });
                break;
            }
            if *number == expected {
                reached.advance(*replica, *number);
                fresh.push((*replica, *number));
            }
        }
        let state = gap.is_some().then(|| self.canonical_bytes());
        let mut observer = Counting { log: std::mem::take(&mut self.log), ..Counting::default() };
        let held_count = observer.log.change_count();
        let result = self.namespace.apply_frame(&packet.bytes, &mut self.chunks, &mut observer);
        self.log = observer.log;
        let new_count = self.log.change_count() - held_count;
        if let Some(gap) = gap {
            assert_eq!(result, Err(gap));
            assert_eq!((new_count, observer.row_count), (0, 0));
            assert_eq!(self.namespace.version_vector(), before);
            assert_eq!(Some(self.canonical_bytes()), state);
            return true;
        }
        let applied = result.unwrap();
        let duplicates = (packet.contents.len() - fresh.len()) as u64;
        assert_eq!((applied.changes, applied.duplicates), (fresh.len() as u64, duplicates));
        assert_eq!(new_count, fresh.len());
        assert!(observer.row_count <= applied.operations);
        assert_eq!(self.namespace.version_vector(), reached);
        if let Some((gen_index, key, life)) = observer.last {
            assert_eq!(self.namespace.loaded_row(gen_index, &key).unwrap().life, life);
        }
        fresh.iter().for_each(|name| self.apply_to_twin(name, changes));
        false
    }

    /// The twin joins a change that has become held, unless it is set aside.
    pub(crate) fn apply_to_twin(&mut self, name: &(ReplicaKey, u64), changes: &Changes) {
        if !self.is_set_aside(name) {
            self.twin.apply(&changes[name]);
        }
    }

    fn is_set_aside(&self, (key, number): &(ReplicaKey, u64)) -> bool {
        let replica = self.namespace.replicas().find(key).expect("its change is held");
        self.namespace.set_aside(replica).contains(*number)
    }

    /// Judges the changes of some replicas anew; the twin begins again with what is effective.
    pub(crate) fn judge(&mut self, judgements: &[(ReplicaKey, Ranges)], changes: &Changes) {
        let mut of_index = Vec::new();
        for (key, ranges) in judgements {
            of_index.push((self.namespace.intern_replica(*key), ranges.clone()));
        }
        let mut observer = Counting::default();
        let before = self.canonical_bytes();
        self.namespace.judge(of_index, &mut self.log, &mut self.chunks, &mut observer).unwrap();
        let told_count = observer.row_count + observer.entry_count;
        assert_eq!(told_count == 0, self.canonical_bytes() == before);
        let vector = self.vector();
        self.twin = Twin::default();
        for name in changes.keys().filter(|(key, number)| *number <= vector.get(key)) {
            self.apply_to_twin(name, changes);
        }
    }

    /// Drops every change up to a vector that the state there does not refer to. Gives how many.
    pub(crate) fn compact(&mut self, checkpoint: &VersionVector) -> usize {
        let mut state = self.namespace.at_version(checkpoint, &mut self.log).unwrap();
        for (replica, key) in self.namespace.replicas().keys().iter().enumerate() {
            let replica = replica as ReplicaIndex;
            assert_eq!(state.replicas().key(replica), key);
            state.restore_set_aside(replica, self.namespace.set_aside(replica).clone());
        }
        let covered: Vec<u64> =
            self.namespace.replicas().keys().iter().map(|key| checkpoint.get(key)).collect();
        let before = self.log.change_count();
        self.log.retain(|change| {
            change.number > covered[change.replica as usize]
                || state.refers_to(change, &mut InMemory).unwrap()
        });
        let again = self.namespace.at_version(checkpoint, &mut self.log).unwrap();
        let bytes = state.canonical_bytes(&mut InMemory).unwrap();
        assert!(again.canonical_bytes(&mut InMemory).unwrap() == bytes, "a needed change is gone");
        before - self.log.change_count()
    }

    /// Joins a whole frame that has no gap.
    pub(crate) fn join(&mut self, frame: &[u8]) -> Applied {
        self.namespace.apply_frame(frame, &mut self.chunks, &mut self.log).unwrap()
    }

    /// Moves the write buffers to their chunks and stores these, some tables or all.
    pub(crate) fn persist(&mut self, random: &mut Random) {
        for gen_index in 0..GEN_NAMES.len() as GenIndex {
            if random.one_in(2) {
                self.persist_table(gen_index);
            }
        }
    }

    fn persist_table(&mut self, gen_index: GenIndex) {
        for part in TablePart::ALL {
            let mut new_chunks = Vec::new();
            let store = |id, bytes, _| new_chunks.push((id, bytes));
            let table = self.namespace.table_mut(gen_index, part);
            let next_id = &mut self.next_chunk_id;
            let persisted = table.persist(next_id, &mut self.chunks, store).unwrap();
            for (id, bytes) in new_chunks {
                assert!(self.chunks.stored.insert(id, bytes).is_none());
            }
            for id in persisted.replaced {
                assert!(self.chunks.stored.remove(&id).is_some());
            }
            let stored = self.tables.entry((gen_index, part)).or_default();
            if let Some(directory) = persisted.directory {
                stored.directory = directory;
            }
            if let Some(buffer) = persisted.buffer {
                stored.buffer = buffer;
            }
        }
    }

    /// Drops from memory what may be dropped, down to some bound.
    pub(crate) fn evict(&mut self, random: &mut Random) {
        let bytes_max = *random.pick(&[0, 5_000, 50_000]);
        let before = self.namespace.loaded_bytes();
        assert!(self.namespace.evict(bytes_max) <= before);
        if random.one_in(3) {
            (0..GEN_NAMES.len() as GenIndex).for_each(|gen_index| self.persist_table(gen_index));
            assert!(self.namespace.evict(bytes_max) <= bytes_max, "all of it is on disk");
        }
    }

    /// Closes the store and opens it from its chunks, which are then loaded when touched.
    pub(crate) fn reopen(&mut self, random: &mut Random) {
        (0..GEN_NAMES.len() as GenIndex).for_each(|gen_index| self.persist_table(gen_index));
        let directory = self.namespace.encode_directory();
        let table = |gen_index, part| self.tables.get(&(gen_index, part)).cloned();
        let mut reopened = Namespace::open(&directory, table, random.next()).unwrap();
        for replica in 0..reopened.replicas().keys().len() as ReplicaIndex {
            reopened.restore_set_aside(replica, self.namespace.set_aside(replica).clone());
        }
        self.namespace = reopened;
        self.set_founder(self.founder);
    }

    pub(crate) fn pages(&mut self) -> (StateRoot, Vec<Vec<u8>>) {
        pages_of(&self.namespace, &mut self.chunks)
    }

    /// Joins a state in pages, which is that of the changes up to a vector.
    pub(crate) fn join_pages(
        &mut self,
        root: &StateRoot,
        pages: &[Vec<u8>],
        vector: &VersionVector,
    ) {
        let (mut pages, disk) = (Pages(pages), &mut self.chunks);
        self.namespace.join_pages(root, vector, &mut pages, disk, &mut ()).unwrap();
    }

    pub(crate) fn canonical_bytes(&mut self) -> Vec<u8> {
        self.namespace.canonical_bytes(&mut self.chunks).unwrap()
    }

    pub(crate) fn fingerprint(&mut self) -> [u8; 32] {
        self.namespace.fingerprint(&mut self.chunks).unwrap().0
    }

    pub(crate) fn vector(&self) -> VersionVector {
        let vector = self.namespace.version_vector();
        let (mut encoded, mut direct) = (Vec::new(), Vec::new());
        vector.encode(&mut encoded);
        self.namespace.encode_version_vector(&mut direct);
        assert_eq!(encoded, direct);
        vector
    }

    /// Holds every row, stamp and field against the twin.
    pub(crate) fn check(&mut self, fields: &[FieldSchema]) {
        let replicas = self.namespace.replicas().keys().to_vec();
        let mut document_count = 0;
        for (id, expected) in &self.twin.documents {
            let gen_index = self.namespace.find_gen(&id.0).unwrap();
            for field in fields {
                let (key, chunks) = (id.1.as_slice(), &mut self.chunks);
                self.namespace.load_field(gen_index, key, field, chunks).unwrap();
                let shown = (&self.namespace).read_loaded(gen_index, key, field);
                assert_eq!(shown, expected.read(field), "field {} of {id:?}", field.name);
            }
        }
        for gen_name in GEN_NAMES {
            let gen_index = self.namespace.find_gen(gen_name).unwrap();
            let mut last_key = Vec::new();
            let check = |row: Row<'_>| {
                assert!(last_key.as_slice() < row.key, "rows ascend by key");
                last_key = row.key.to_vec();
                let id = (gen_name.to_owned(), row.key.to_vec());
                let expected = self.twin.documents.get(&id);
                check_row(&row, expected, &replicas);
                document_count += 1;
                true
            };
            self.namespace.visit_rows(gen_index, &[], &mut self.chunks, check).unwrap();
        }
        assert_eq!(document_count, self.twin.documents.len());
    }
}

fn check_row(row: &Row<'_>, expected: Option<&crate::model::Document>, replicas: &[ReplicaKey]) {
    let expected = expected.expect("a row that nobody wrote");
    let stamp = |stamp: &vudo_crdt::Stamp| Stamp {
        time: Time { milliseconds: stamp.hlc.milliseconds(), counter: stamp.hlc.counter().into() },
        replica: replicas[stamp.replica as usize],
        number: stamp.number,
    };
    assert_eq!((row.life, stamp(&row.stamp.decode())), (expected.life, expected.stamp));
    assert_eq!(row.cells().count(), expected.cells.len());
    for cell in row.cells() {
        if let Some(Cell::Register { stamp: wanted, value }) = expected.cells.get(&cell.id) {
            assert_eq!(
                (stamp(&cell.stamp.decode()), Value::decode(cell.state).as_ref()),
                (*wanted, Some(value))
            );
        }
    }
}

/// Does one operation to a real transaction and to its twin.
struct Writer<'w> {
    real: &'w mut Transaction,
    namespace: &'w mut Namespace,
    chunks: &'w mut Chunks,
    gen_index: GenIndex,
    founder: ReplicaKey,
}

impl Writer<'_> {
    fn write(
        &mut self,
        random: &mut Random,
        shape: &Shape,
        id: &DocumentId,
        twin: &mut TwinTransaction<'_>,
    ) -> (Written, Result<(), Refusal>) {
        let (real, namespace, chunks) = (&mut *self.real, &mut *self.namespace, &mut *self.chunks);
        let gen_index = self.gen_index;
        let key = id.1.as_slice();
        match random.below(10) {
            0..2 => (real.create(namespace, chunks, gen_index, key), twin.create(id)),
            2 if random.one_in(2) => {
                (real.delete(namespace, chunks, gen_index, key), twin.delete(id))
            }
            _ => {
                let field = random.pick(&shape.fields);
                namespace.load_field(gen_index, key, field, chunks).unwrap();
                let place = Place { document: id, entry: None };
                if field.strategy == Strategy::Map {
                    self.write_entry(random, shape, field, id, twin)
                } else {
                    self.write_field(random, shape, field, key, &place, twin)
                }
            }
        }
    }

    /// Writes to an entry of a map, or takes it away.
    fn write_entry(
        &mut self,
        random: &mut Random,
        shape: &Shape,
        map: &FieldSchema,
        id: &DocumentId,
        twin: &mut TwinTransaction<'_>,
    ) -> (Written, Result<(), Refusal>) {
        let element = Value::from(*random.pick(&["", "a", "b", "milk"])).to_bytes();
        let place = Place { document: id, entry: Some((map.id(), element.clone())) };
        let (space, gen_index) = (&*self.namespace, self.gen_index);
        if random.one_in(4) {
            let did = self.real.remove_entry_loaded(space, gen_index, &id.1, map.id(), &element);
            return (did.map_err(WriteError::Refused), twin.remove_entry(&place));
        }
        let entry = self.real.entry_loaded(space, gen_index, &id.1, map.id(), &element);
        let expected = twin.entry(&place);
        assert_eq!(entry.as_ref().err(), expected.as_ref().err());
        match entry {
            Ok(entry) => {
                let field = map.map_value().unwrap();
                self.namespace.load_field(gen_index, &entry, &field, self.chunks).unwrap();
                self.write_field(random, shape, &field, &entry, &place, twin)
            }
            Err(refusal) => (Err(WriteError::Refused(refusal)), expected),
        }
    }

    /// Writes to a field of a document or of an entry, which is not a map.
    fn write_field(
        &mut self,
        random: &mut Random,
        shape: &Shape,
        field: &FieldSchema,
        key: &[u8],
        place: &Place<'_>,
        twin: &mut TwinTransaction<'_>,
    ) -> (Written, Result<(), Refusal>) {
        let (real, space, chunks) = (&mut *self.real, &mut *self.namespace, &mut *self.chunks);
        let gen_index = self.gen_index;
        match field.strategy {
            Strategy::PnCounter | Strategy::GCounter => {
                let amount = random.below(81) as i64 - 30;
                let did = real.add(space, chunks, gen_index, key, field, amount);
                (did, twin.add(place, field, amount.into()))
            }
            Strategy::PnCounterFloat => {
                let amount = random.below(81) as i64 - 40;
                let did = real.add_float(space, chunks, gen_index, key, field, amount as f64);
                (did, twin.add(place, field, amount.into()))
            }
            Strategy::BoundedCounter => {
                let amount = random.below(21) as i64 - 10;
                let keys = space.replicas().keys();
                let receiver = random.one_in(2).then(|| *random.pick(keys));
                let did = match receiver {
                    None => real.add(space, chunks, gen_index, key, field, amount),
                    Some(to) => {
                        let way = if amount < 0 { Direction::Down } else { Direction::Up };
                        let amount = amount.abs();
                        real.give_rights(space, chunks, gen_index, key, field, &to, way, amount)
                    }
                };
                (did, twin.move_bounded(place, field, self.founder, receiver, amount.into()))
            }
            Strategy::OrSet => {
                let element = Value::from(*random.pick(&["", "red", "blue"]));
                let (id, bytes) = (field.id(), element.to_bytes());
                let (did, expected) = if random.one_in(2) {
                    let did = real.add_element_loaded(space, gen_index, key, id, &bytes);
                    (did, twin.add_element(place, field, &element))
                } else {
                    let did = real.remove_element_loaded(space, gen_index, key, id, &bytes);
                    (did, twin.remove_element(place, field, &element))
                };
                (did.map_err(WriteError::Refused), expected)
            }
            _ => {
                let value = random_value(random, &field.value_type, shape.text_bytes_max);
                let did = real.set(space, chunks, gen_index, key, field, &value);
                (did, twin.set(place, field, value))
            }
        }
    }

    /// A transaction reads what it wrote.
    fn check_view(&mut self, id: &DocumentId, twin: &TwinTransaction<'_>, shape: &Shape) {
        let key = id.1.as_slice();
        let row = self.real.read(self.namespace, self.chunks, self.gen_index, key).unwrap();
        let expected = twin.view(id);
        assert_eq!(row.map(|row| row.life), expected.as_ref().map(|document| document.life));
        let Some(expected) = expected else {
            return;
        };
        for field in &shape.fields {
            self.namespace.load_field(self.gen_index, key, field, self.chunks).unwrap();
            let mut view = TransactionView { transaction: self.real, namespace: self.namespace };
            let shown = view.read_loaded(self.gen_index, key, field);
            assert_eq!(shown, expected.read(field), "field {} of {id:?}", field.name);
        }
    }
}

fn random_value(random: &mut Random, value_type: &ValueType, text_bytes_max: usize) -> Value {
    match value_type {
        ValueType::Bool => Value::Bool(random.one_in(2)),
        ValueType::Bytes => Value::from(vec![random.below(2) as u8 * 255; random.below(3)]),
        ValueType::F64 => {
            Value::Float(*random.pick(&[0.0, -0.0, 1.5, f64::NAN, f64::INFINITY, -1e300]))
        }
        // Few different ones, so that concurrent writes of equal values happen.
        ValueType::I64 => Value::from(*random.pick(&[0, 1, -1, 64, 300, i64::MAX, i64::MIN])),
        _ => {
            let text = ["", "a", "é", "\u{10ffff}", "milk"][random.below(5)];
            Value::from(text.repeat(random.below(text_bytes_max / 4)))
        }
    }
}
