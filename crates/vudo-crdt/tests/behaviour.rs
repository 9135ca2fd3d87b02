//! What applications see, case by case: lives, clocks, unknown fields, bounds.

use std::convert::Infallible;

use vudo_crdt::limits::{MAX_CHANGE_BYTES, MAX_KEY_BYTES, MAX_LIFE};
use vudo_crdt::{
    CounterOptions, CounterOverflow, FieldSchema, Frame, Hlc, InMemory, Log, MalformedFrame,
    Namespace, Overflow, Refusal, ReplicaIndex, ReplicaKey, Row, Strategy, Transaction, Value,
    ValueType, WriteError, checksum,
};

const DAY_MILLISECONDS: u64 = 24 * 3_600_000;
const NOW_MILLISECONDS: u64 = 20_000 * DAY_MILLISECONDS;
const KEY: &[u8] = b"milk";

type Refused = WriteError<Infallible>;

/// A store with one Gen, in memory.
struct Store {
    namespace: Namespace,
    log: Log,
    replica: ReplicaIndex,
}

impl Store {
    fn new(first_key_byte: u8) -> Store {
        let mut namespace = Namespace::new(u64::from(first_key_byte));
        let replica = namespace.intern_replica(ReplicaKey([first_key_byte; 32]));
        assert_eq!(namespace.intern_gen("Task"), Some(0));
        Store { namespace, log: Log::default(), replica }
    }

    /// Runs a transaction of one write at a time that the clock shows.
    fn at(
        &mut self,
        now_milliseconds: u64,
        write: impl FnOnce(&mut Transaction, &mut Namespace) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut transaction = Transaction::begin(&self.namespace, self.replica, now_milliseconds);
        write(&mut transaction, &mut self.namespace)?;
        transaction.commit(&mut self.namespace, &mut InMemory, &mut self.log)?;
        Ok(())
    }

    fn create(&mut self, now_milliseconds: u64) -> Result<(), Refused> {
        self.at(now_milliseconds, |transaction, namespace| {
            transaction.create(namespace, &mut InMemory, 0, KEY)
        })
    }

    fn delete(&mut self, now_milliseconds: u64) -> Result<(), Refused> {
        self.at(now_milliseconds, |transaction, namespace| {
            transaction.delete(namespace, &mut InMemory, 0, KEY)
        })
    }

    fn set(
        &mut self,
        now_milliseconds: u64,
        field: &FieldSchema,
        value: impl Into<Value>,
    ) -> Result<(), Refused> {
        let value = value.into();
        self.at(now_milliseconds, |transaction, namespace| {
            transaction.set(namespace, &mut InMemory, 0, KEY, field, &value)
        })
    }

    fn add(&mut self, field: &FieldSchema, amount: i64) -> Result<(), Refused> {
        self.at(NOW_MILLISECONDS, |transaction, namespace| {
            transaction.add(namespace, &mut InMemory, 0, KEY, field, amount)
        })
    }

    fn row(&self) -> Row<'_> {
        self.namespace.loaded_row(0, KEY).expect("the document was written")
    }

    fn read(&self, field: &FieldSchema) -> Option<Value> {
        field.read(&self.row()).expect("the total fits")
    }

    fn time_of(&self, field: &FieldSchema) -> Hlc {
        self.row().cell(field.id()).expect("the field was written").stamp.decode().hlc
    }

    fn frame(&self) -> Vec<u8> {
        self.log.frame_since(&self.namespace, &Default::default())
    }

    fn receive(&mut self, frame: &[u8]) {
        self.namespace.apply_frame(frame, &mut InMemory, &mut self.log).unwrap();
    }

    fn canonical_bytes(&mut self) -> Vec<u8> {
        self.namespace.canonical_bytes(&mut InMemory).unwrap()
    }
}

/// Each gets what the other has; afterwards they must be equal.
fn exchange(left: &mut Store, right: &mut Store) {
    let (from_left, from_right) = (left.frame(), right.frame());
    left.receive(&from_right);
    right.receive(&from_left);
    assert_eq!(left.canonical_bytes(), right.canonical_bytes());
    assert_eq!(
        left.namespace.fingerprint(&mut InMemory).unwrap(),
        right.namespace.fingerprint(&mut InMemory).unwrap()
    );
}

/// Two stores that both hold the document.
fn pair_with_document() -> (Store, Store) {
    let (mut left, mut right) = (Store::new(1), Store::new(2));
    left.create(NOW_MILLISECONDS).unwrap();
    exchange(&mut left, &mut right);
    (left, right)
}

fn title() -> FieldSchema {
    FieldSchema::new("title", 1, Strategy::Lww, ValueType::String)
}

fn votes() -> FieldSchema {
    FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64)
}

fn mass() -> FieldSchema {
    FieldSchema::new("mass", 3, Strategy::PnCounterFloat, ValueType::F64)
}

fn counter(value_type: ValueType, overflow: Overflow) -> FieldSchema {
    let mut field = FieldSchema::new("stock", 2, Strategy::PnCounter, value_type);
    field.counter.overflow = overflow;
    field
}

#[test]
fn delete_against_concurrent_edit() {
    let (mut left, mut right) = pair_with_document();
    left.delete(NOW_MILLISECONDS).unwrap();
    right.set(NOW_MILLISECONDS + DAY_MILLISECONDS, &title(), "still here").unwrap();
    right.add(&votes(), 5).unwrap();
    exchange(&mut left, &mut right);
    for store in [&left, &right] {
        assert!(!store.row().is_alive());
        assert_eq!(store.row().cells().count(), 0);
    }
    assert_eq!(right.set(NOW_MILLISECONDS, &title(), "again"), Err(Refusal::NotFound.into()));
    assert_eq!(right.delete(NOW_MILLISECONDS), Err(Refusal::NotFound.into()));
}

#[test]
fn create_against_create() {
    let (mut left, mut right) = (Store::new(1), Store::new(2));
    left.create(NOW_MILLISECONDS).unwrap();
    left.set(NOW_MILLISECONDS, &title(), "left").unwrap();
    left.add(&votes(), 3).unwrap();
    right.create(NOW_MILLISECONDS).unwrap();
    right.set(NOW_MILLISECONDS, &title(), "right").unwrap();
    right.add(&votes(), 4).unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(left.row().life, 1);
    // At equal times the greater replica key wins.
    assert_eq!(left.read(&title()), Some("right".into()));
    assert_eq!(left.read(&votes()), Some(7.into()));
    assert_eq!(left.create(NOW_MILLISECONDS), Err(Refusal::AlreadyExists.into()));
}

#[test]
fn deletion_and_recreation_on_both_sides() {
    let (mut left, mut right) = pair_with_document();
    left.add(&votes(), 100).unwrap();
    exchange(&mut left, &mut right);
    for (store, amount) in [(&mut left, 1), (&mut right, 2)] {
        store.delete(NOW_MILLISECONDS).unwrap();
        store.create(NOW_MILLISECONDS).unwrap();
        store.add(&votes(), amount).unwrap();
    }
    exchange(&mut left, &mut right);
    // Both began the same third life, so they are one document, clean of what was before.
    assert_eq!(left.row().life, 3);
    assert_eq!(left.read(&votes()), Some(3.into()));
    right.delete(NOW_MILLISECONDS).unwrap();
    right.create(NOW_MILLISECONDS).unwrap();
    left.add(&votes(), 50).unwrap();
    exchange(&mut left, &mut right);
    assert_eq!((left.row().life, left.read(&votes())), (5, Some(0.into())));
}

#[test]
fn the_lowest_time_wins_an_immutable_field() {
    let id = FieldSchema::new("id", 7, Strategy::Immutable, ValueType::String);
    let (mut left, mut right) = pair_with_document();
    left.set(NOW_MILLISECONDS + 1, &id, "later").unwrap();
    right.set(NOW_MILLISECONDS, &id, "first").unwrap();
    assert_eq!(right.set(NOW_MILLISECONDS, &id, "second"), Err(Refusal::Immutable.into()));
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&id), Some("first".into()));
    assert_eq!(left.set(0, &id, "earliest"), Err(Refusal::Immutable.into()));
}

#[test]
fn the_greater_content_wins_at_equal_times_if_asked_for() {
    let rank = FieldSchema::new("rank", 8, Strategy::LwwContent, ValueType::String);
    let (mut left, mut right) = pair_with_document();
    left.set(NOW_MILLISECONDS, &rank, "b").unwrap();
    right.set(NOW_MILLISECONDS, &rank, "a").unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(right.read(&rank), Some("b".into()));
}

#[test]
fn clock_a_year_ahead_is_overwritten_and_other_writes_keep_honest_times() {
    let note = FieldSchema::new("note", 9, Strategy::Lww, ValueType::String);
    let (mut left, mut right) = pair_with_document();
    let ahead = NOW_MILLISECONDS + 365 * DAY_MILLISECONDS;
    left.set(ahead, &title(), "from the future").unwrap();
    exchange(&mut left, &mut right);
    right.set(NOW_MILLISECONDS, &title(), "from today").unwrap();
    right.set(NOW_MILLISECONDS, &note, "also today").unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&title()), Some("from today".into()));
    assert_eq!(left.time_of(&title()).milliseconds(), ahead);
    assert_eq!(left.time_of(&title()).counter(), 1);
    assert_eq!(left.time_of(&note), Hlc::from_milliseconds(NOW_MILLISECONDS));
}

#[test]
fn clock_at_1970() {
    let (mut left, mut right) = pair_with_document();
    left.set(NOW_MILLISECONDS, &title(), "today").unwrap();
    exchange(&mut left, &mut right);
    right.set(0, &title(), "the battery was flat").unwrap();
    exchange(&mut left, &mut right);
    // An overwrite of what was seen wins, whatever the clock shows.
    assert_eq!(left.read(&title()), Some("the battery was flat".into()));
    assert_eq!(left.time_of(&title()).milliseconds(), NOW_MILLISECONDS);
}

#[test]
fn hlc_at_the_ceiling() {
    let (mut left, mut right) = pair_with_document();
    left.set(u64::MAX, &title(), "the last word").unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(right.time_of(&title()).milliseconds(), 1 << 47);
    let refused = right.set(NOW_MILLISECONDS, &title(), "no");
    assert_eq!(refused, Err(Refusal::ClockAtCeiling.into()));
    right.delete(NOW_MILLISECONDS).unwrap();
    right.create(NOW_MILLISECONDS).unwrap();
    right.set(NOW_MILLISECONDS, &title(), "a new life").unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&title()), Some("a new life".into()));
    assert_eq!(left.time_of(&title()), Hlc::from_milliseconds(NOW_MILLISECONDS));
}

/// A frame of one change of replica 9 that creates the document and does one operation.
fn frame_with_operation(life: u64, operation: &[u8]) -> Vec<u8> {
    let mut frame = b"VF\x04\x01\x04Task".to_vec();
    // At time zero, by a new replica, its change number 1, of one document of Gen 0.
    frame.extend_from_slice(b"\x01\x00");
    frame.extend_from_slice(&[9; 32]);
    frame.extend_from_slice(b"\x01\x02\x00\x04milk");
    vudo_crdt::wire::write_varint(&mut frame, life);
    vudo_crdt::wire::write_bytes(&mut frame, operation);
    let sum = checksum(&frame);
    frame.extend_from_slice(&sum);
    frame
}

#[test]
fn unknown_strategy_and_field_are_kept_and_forwarded() {
    // Field 20 under strategy 15 with a value of kind 63 and three bytes: from a later version.
    let header = 20 << 5 | 15 << 1;
    let operation = [(header & 0x7f) as u8 | 0x80, (header >> 7) as u8, 63 << 2 | 3, 3, 7, 8, 9];
    let mut first = Store::new(1);
    first.receive(&frame_with_operation(1, &operation));
    first.set(NOW_MILLISECONDS, &title(), "known").unwrap();
    let mut second = Store::new(2);
    second.receive(&first.frame());
    assert_eq!(second.canonical_bytes(), first.canonical_bytes());
    let cells: Vec<_> = second.row().cells().collect();
    assert_eq!(cells.len(), 2);
    assert_eq!((cells[1].id.field_number(), cells[1].id.tag()), (20, 15));
    assert_eq!(cells[1].state, &operation[2..]);
    assert_eq!(second.row().register(cells[1].id), None);
    assert_eq!(second.read(&title()), Some("known".into()));
}

#[test]
fn two_types_under_one_number_read_as_absent() {
    let (mut left, mut right) = pair_with_document();
    let mut number = FieldSchema::new("count", 1, Strategy::Lww, ValueType::I64);
    number.default = Some(Value::from(-1));
    left.set(NOW_MILLISECONDS, &title(), "text").unwrap();
    right.set(NOW_MILLISECONDS + 1, &number, 12).unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&title()), None);
    assert_eq!(left.read(&number), Some(12.into()));
    left.set(NOW_MILLISECONDS + 2, &title(), "text again").unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(right.read(&number), Some(Value::from(-1)));
    // Another strategy under the number is another cell; both are kept.
    let count = FieldSchema::new("title", 1, Strategy::PnCounter, ValueType::I64);
    right.add(&count, 4).unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&count), Some(4.into()));
    assert_eq!(left.read(&title()), Some("text again".into()));
}

#[test]
fn counter_bounds_guard_local_writes_only() {
    let mut stock = counter(ValueType::I64, Overflow::Saturate);
    stock.counter =
        CounterOptions { min_value: Some(0), max_value: Some(10), ..CounterOptions::default() };
    let (mut left, mut right) = pair_with_document();
    assert_eq!(left.add(&stock, 11), Err(Refusal::OutOfBounds.into()));
    assert_eq!(left.add(&stock, -1), Err(Refusal::OutOfBounds.into()));
    left.add(&stock, 10).unwrap();
    right.add(&stock, 10).unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(left.read(&stock), Some(20.into()));
    assert_eq!(left.add(&stock, 1), Err(Refusal::OutOfBounds.into()));
    // Coming back towards the bounds is allowed, even where it does not reach them.
    left.add(&stock, -1).unwrap();
    assert_eq!(left.read(&stock), Some(19.into()));
}

#[test]
fn a_total_that_shrank_takes_the_place_of_the_greater_one() {
    let (mut left, mut right) = pair_with_document();
    left.add(&votes(), 5).unwrap();
    exchange(&mut left, &mut right);
    left.add(&votes(), -2).unwrap();
    right.add(&votes(), -1).unwrap();
    exchange(&mut left, &mut right);
    assert_eq!(right.read(&votes()), Some(2.into()));
}

#[test]
fn saturate_wrap_error_on_reading() {
    let (mut left, mut right) = pair_with_document();
    for store in [&mut left, &mut right] {
        store.add(&counter(ValueType::I8, Overflow::Saturate), 100).unwrap();
    }
    exchange(&mut left, &mut right);
    let read = |overflow| counter(ValueType::I8, overflow).read(&left.row());
    assert_eq!(read(Overflow::Saturate), Ok(Some(127.into())));
    assert_eq!(read(Overflow::Wrap), Ok(Some((-56).into())));
    assert_eq!(read(Overflow::Error), Err(CounterOverflow { total: 200 }));
    let wide = counter(ValueType::I64, Overflow::Error);
    assert_eq!(left.read(&wide), Some(200.into()));
}

/// A total that only a forged operation can claim: the greatest one of 128 bits.
#[test]
fn the_greatest_total_wraps_without_overflow() {
    let header = 2 << 5 | (Strategy::PnCounter.tag() << 1);
    let mut operation = vec![header, 7 << 2 | 3, 16];
    operation.extend_from_slice(&i128::MAX.to_le_bytes());
    let mut store = Store::new(1);
    store.receive(&frame_with_operation(1, &operation));
    let read = |value_type| counter(value_type, Overflow::Wrap).read(&store.row());
    assert_eq!(read(ValueType::I8), Ok(Some((-1).into())));
    assert_eq!(read(ValueType::U8), Ok(Some(255.into())));
    // 2^127 - 1 modulo 2^54 - 1 is 2^19 - 1, for 127 is 19 more than twice 54.
    assert_eq!(read(ValueType::Int), Ok(Some(524_287.into())));
    store.add(&counter(ValueType::I64, Overflow::Wrap), -1).unwrap();
}

#[test]
fn a_float_counter_never_leaves_the_numbers() {
    let (mut left, mut right) = pair_with_document();
    let add = |store: &mut Store, amount| {
        store.at(NOW_MILLISECONDS, |transaction, namespace| {
            transaction.add_float(namespace, &mut InMemory, 0, KEY, &mass(), amount)
        })
    };
    assert_eq!(add(&mut left, f64::NAN), Err(Refusal::TypeMismatch.into()));
    assert_eq!(add(&mut left, f64::INFINITY), Err(Refusal::TypeMismatch.into()));
    add(&mut left, f64::MAX).unwrap();
    // Twice the greatest number is no number, and peers would refuse the change.
    assert_eq!(add(&mut left, f64::MAX), Err(Refusal::TypeMismatch.into()));
    exchange(&mut left, &mut right);
    assert_eq!(right.read(&mass()), Some(f64::MAX.into()));
}

#[test]
fn transaction_reads_what_it_wrote() {
    let mut store = Store::new(1);
    let (title, votes) = (title(), votes());
    let mut transaction = Transaction::begin(&store.namespace, store.replica, NOW_MILLISECONDS);
    let namespace = &mut store.namespace;
    transaction.create(namespace, &mut InMemory, 0, KEY).unwrap();
    transaction.set(namespace, &mut InMemory, 0, KEY, &title, &"first".into()).unwrap();
    transaction.add(namespace, &mut InMemory, 0, KEY, &votes, 2).unwrap();
    transaction.add(namespace, &mut InMemory, 0, KEY, &votes, 3).unwrap();
    let row = transaction.read(namespace, &mut InMemory, 0, KEY).unwrap().unwrap();
    assert_eq!(title.read(&row), Ok(Some("first".into())));
    assert_eq!(votes.read(&row), Ok(Some(5.into())));
    transaction.delete(namespace, &mut InMemory, 0, KEY).unwrap();
    let refused = transaction.set(namespace, &mut InMemory, 0, KEY, &title, &"x".into());
    assert_eq!(refused, Err(Refusal::NotFound.into()));
    transaction.create(namespace, &mut InMemory, 0, KEY).unwrap();
    let row = transaction.read(namespace, &mut InMemory, 0, KEY).unwrap().unwrap();
    assert_eq!((row.life, title.read(&row), votes.read(&row)), (3, Ok(None), Ok(Some(0.into()))));
    // Nothing is visible before the commit, and one change is afterwards.
    assert!(namespace.loaded_row(0, KEY).is_none());
    transaction.commit(namespace, &mut InMemory, &mut store.log).unwrap();
    assert_eq!((store.row().life, store.log.change_count()), (3, 1));
}

#[test]
fn large_change_refused() {
    let mut store = Store::new(1);
    let mut transaction = Transaction::begin(&store.namespace, store.replica, NOW_MILLISECONDS);
    let namespace = &mut store.namespace;
    transaction.create(namespace, &mut InMemory, 0, KEY).unwrap();
    let text = Value::from("x".repeat(MAX_CHANGE_BYTES));
    let refused = transaction.set(namespace, &mut InMemory, 0, KEY, &title(), &text);
    assert_eq!(refused, Err(Refusal::ChangeTooLarge.into()));
    // The transaction goes on without what was refused.
    transaction.set(namespace, &mut InMemory, 0, KEY, &title(), &"short".into()).unwrap();
    transaction.commit(namespace, &mut InMemory, &mut store.log).unwrap();
    assert_eq!(store.read(&title()), Some("short".into()));
}

/// The largest value that one `set` takes, where key and time take the most bytes that they can.
#[test]
fn the_largest_change_that_is_written_is_accepted_by_peers() {
    let mut store = Store::new(1);
    let last = FieldSchema::new("last", 65_535, Strategy::Lww, ValueType::String);
    let key = vec![b'k'; MAX_KEY_BYTES];
    let mut set = |now, length: usize| {
        store.at(now, |transaction, namespace| {
            if namespace.loaded_row(0, &key).is_none() {
                transaction.create(namespace, &mut InMemory, 0, &key)?;
            }
            let text = Value::from("x".repeat(length));
            transaction.set(namespace, &mut InMemory, 0, &key, &last, &text)
        })
    };
    set((1 << 47) - 1, 1).unwrap();
    // The counter of the time takes a second byte after so many overwrites.
    (0..200).for_each(|_| set(NOW_MILLISECONDS, 1).unwrap());
    let mut length = MAX_CHANGE_BYTES - MAX_KEY_BYTES;
    while let Err(error) = set(NOW_MILLISECONDS, length) {
        assert_eq!(error, Refusal::ChangeTooLarge.into());
        length -= 1;
    }
    assert!(length > MAX_CHANGE_BYTES - MAX_KEY_BYTES - 100);
    let mut peer = Store::new(2);
    peer.receive(&store.frame());
    assert_eq!(peer.canonical_bytes(), store.canonical_bytes());
}

#[test]
fn key_lengths() {
    let mut store = Store::new(1);
    let mut create = |key: &[u8]| {
        store.at(NOW_MILLISECONDS, |transaction, namespace| {
            transaction.create(namespace, &mut InMemory, 0, key)
        })
    };
    assert_eq!(create(b""), Err(Refusal::KeyLength.into()));
    let longest = vec![b'k'; MAX_KEY_BYTES];
    assert_eq!(create(&longest), Ok(()));
    let too_long = vec![b'k'; MAX_KEY_BYTES + 1];
    assert_eq!(create(&too_long), Err(Refusal::KeyLength.into()));
    let mut peer = Store::new(2);
    peer.receive(&store.frame());
    assert!(peer.namespace.loaded_row(0, &longest).is_some());
}

/// Somebody may claim any life; what comes of it is deletable, and everybody agrees.
#[test]
fn a_life_at_the_end_of_all_lives_breaks_nothing() {
    assert_eq!(
        Frame::parse(&frame_with_operation(u64::MAX, &[])).unwrap_err(),
        MalformedFrame::TooLarge
    );
    for life in [MAX_LIFE - 3, MAX_LIFE - 2, MAX_LIFE - 1, MAX_LIFE] {
        let mut store = Store::new(1);
        store.receive(&frame_with_operation(life, &[]));
        if store.row().is_alive() {
            store.delete(NOW_MILLISECONDS).unwrap();
        }
        let refused = Err(Refusal::ClockAtCeiling.into());
        let expected = if store.row().life == MAX_LIFE { refused } else { Ok(()) };
        assert_eq!(store.create(NOW_MILLISECONDS), expected);
        let mut peer = Store::new(2);
        peer.receive(&store.frame());
        assert_eq!(peer.canonical_bytes(), store.canonical_bytes());
    }
}
