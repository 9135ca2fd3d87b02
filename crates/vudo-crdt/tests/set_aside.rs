//! Changes that are set aside and taken back, by name: cuts, forks, checkpoints.

use vudo_crdt::{
    Change, FieldSchema, InMemory, JudgeError, Log, LogSource, Namespace, Observer, Ranges,
    ReplicaIndex, ReplicaKey, Row, Strategy, Touched, Transaction, Value, ValueType, VersionVector,
};

const KEY: &[u8] = b"milk";

struct Store {
    namespace: Namespace,
    log: Log,
    task: u32,
}

fn title() -> FieldSchema {
    FieldSchema::new("title", 1, Strategy::Lww, ValueType::String)
}

fn votes() -> FieldSchema {
    FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64)
}

fn key(number: u8) -> ReplicaKey {
    ReplicaKey([number; 32])
}

impl Store {
    fn new() -> Store {
        let mut namespace = Namespace::new(0);
        let task = namespace.intern_gen("Task").unwrap();
        Store { namespace, log: Log::default(), task }
    }

    /// Runs a transaction of a replica.
    fn write(&mut self, writer: u8, now: u64, work: impl FnOnce(&mut Transaction, &mut Namespace)) {
        let replica = self.namespace.intern_replica(key(writer));
        let mut transaction = Transaction::begin(&self.namespace, replica, now);
        work(&mut transaction, &mut self.namespace);
        transaction.commit(&mut self.namespace, &mut InMemory, &mut self.log).unwrap();
    }

    fn create(&mut self, writer: u8, now: u64) {
        let task = self.task;
        self.write(writer, now, |transaction, namespace| {
            transaction.create(namespace, &mut InMemory, task, KEY).unwrap();
        });
    }

    fn set_title(&mut self, writer: u8, now: u64, text: &str) {
        let task = self.task;
        self.write(writer, now, |transaction, namespace| {
            let value = text.into();
            transaction.set(namespace, &mut InMemory, task, KEY, &title(), &value).unwrap();
        });
    }

    fn add_votes(&mut self, writer: u8, amount: i64) {
        let task = self.task;
        self.write(writer, 1_000, |transaction, namespace| {
            transaction.add(namespace, &mut InMemory, task, KEY, &votes(), amount).unwrap();
        });
    }

    fn judge(&mut self, writer: u8, ranges: Ranges) -> usize {
        let replica = self.namespace.intern_replica(key(writer));
        let judgements = vec![(replica, ranges)];
        self.namespace.judge(judgements, &mut self.log, &mut InMemory, &mut ()).unwrap()
    }

    fn title(&self) -> Option<String> {
        let row = self.namespace.loaded_row(self.task, KEY)?;
        match title().read(&row).unwrap() {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn votes(&self) -> Option<Value> {
        votes().read(&self.namespace.loaded_row(self.task, KEY)?).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        self.namespace.canonical_bytes(&mut InMemory).unwrap()
    }

    fn frame(&self) -> Vec<u8> {
        self.log.frame_since(&self.namespace, &VersionVector::new())
    }

    fn apply(&mut self, frame: &[u8]) {
        self.namespace.apply_frame(frame, &mut InMemory, &mut self.log).unwrap();
    }
}

#[test]
fn counters_when_their_writer_is_cut() {
    let mut store = Store::new();
    store.create(1, 1_000);
    for amount in [10, 20, 30] {
        store.add_votes(2, amount);
        store.add_votes(3, 1);
    }
    assert_eq!(store.votes(), Some(63.into()));
    assert_eq!(store.judge(2, Ranges::above(2)), 1);
    assert_eq!(store.votes(), Some(33.into()), "the total of the last change that counts");
    store.judge(2, Ranges::above(0));
    assert_eq!(store.votes(), Some(3.into()));
    // What it writes after the cut is held, and does nothing.
    let before = store.bytes();
    store.add_votes(2, 500);
    assert_eq!(store.bytes(), before);
    assert_eq!(store.namespace.version_vector().get(&key(2)), 4);
    // It is forwarded, and whoever judges it otherwise sees its effect.
    let mut other = Store::new();
    other.apply(&store.frame());
    assert_eq!(other.votes(), Some(503.into()), "its own total was zero when it wrote");
    other.judge(2, Ranges::above(0));
    assert_eq!(other.bytes(), before);
    store.judge(2, Ranges::new());
    assert_eq!(store.votes(), Some(503.into()));
}

#[test]
fn a_document_whose_creation_is_set_aside_is_gone_and_comes_back() {
    #[derive(Default)]
    struct Lives(Vec<(u64, u64)>);
    impl Observer for Lives {
        fn row(&mut self, _: u32, before: Option<Row<'_>>, after: Row<'_>) {
            assert_eq!(after.key, KEY);
            self.0.push((before.map_or(0, |row| row.life), after.life));
        }
    }
    let mut store = Store::new();
    let empty = store.bytes();
    store.create(1, 1_000);
    store.set_title(1, 1_001, "Buy milk");
    let whole = store.bytes();
    let mut lives = Lives::default();
    for ranges in [Ranges::above(0), Ranges::new()] {
        let judgements = vec![(0, ranges)];
        store.namespace.judge(judgements, &mut store.log, &mut InMemory, &mut lives).unwrap();
        let expected = if store.title().is_some() { &whole } else { &empty };
        assert_eq!(&store.bytes(), expected);
    }
    assert_eq!(lives.0, [(1, 0), (0, 1)]);
    assert_eq!(store.title().as_deref(), Some("Buy milk"));
    assert!(store.judge(1, Ranges::new()) == 0, "nothing is judged otherwise than before");
}

#[test]
fn a_cut_that_comes_first_is_as_one_that_comes_last() {
    let mut writer = Store::new();
    writer.create(1, 1_000);
    for number in 0..5 {
        writer.set_title(2, 1_001 + number, &format!("title {number}"));
    }
    let mut first = Store::new();
    first.judge(2, Ranges::above(3));
    first.apply(&writer.frame());
    writer.judge(2, Ranges::above(3));
    assert_eq!(writer.title().as_deref(), Some("title 2"));
    assert_eq!(first.bytes(), writer.bytes());
    assert_eq!(first.namespace.version_vector(), writer.namespace.version_vector());
    let hashed = |store: &mut Store| store.namespace.fingerprint(&mut InMemory).unwrap();
    assert_eq!(hashed(&mut first), hashed(&mut writer));
}

#[test]
fn a_value_superseded_above_a_checkpoint_and_then_needed_again() {
    let mut store = Store::new();
    store.create(1, 1_000);
    store.set_title(1, 1_001, "never seen again");
    store.set_title(1, 1_002, "at the checkpoint");
    let checkpoint = store.namespace.version_vector();
    store.set_title(2, 1_003, "above the checkpoint");

    let mut state = store.namespace.at_version(&checkpoint, &mut store.log).unwrap();
    let covered = checkpoint.get(&key(1));
    store.log.retain(|change| {
        let is_above = change.replica != 0 || change.number > covered;
        is_above || state.refers_to(change, &mut InMemory).unwrap()
    });
    assert_eq!(store.log.change_count(), 2, "creation and the first title are not needed");
    assert_eq!(store.title().as_deref(), Some("above the checkpoint"));
    store.judge(2, Ranges::above(0));
    assert_eq!(store.title().as_deref(), Some("at the checkpoint"));
    store.judge(2, Ranges::new());
    assert_eq!(store.title().as_deref(), Some("above the checkpoint"));
}

/// A log with two branches of one replica, of which the second is left out from a number on.
struct Branches<'l> {
    logs: [&'l Log; 2],
    /// Which of the two has no effect from this number on.
    set_aside: (usize, u64),
}

impl LogSource for Branches<'_> {
    type Error = ();

    fn visit(&mut self, visit: &mut dyn FnMut(&Change<'_>)) -> Result<(), ()> {
        let (loser, from) = self.set_aside;
        for (branch, log) in self.logs.iter().enumerate() {
            log.changes()
                .filter(|change| branch != loser || change.number < from)
                .for_each(|change| visit(&change));
        }
        Ok(())
    }
}

#[test]
fn of_a_fork_one_branch_counts_whichever_came_first() {
    let branch = |text: &str| {
        let mut store = Store::new();
        store.create(1, 1_000);
        store.set_title(1, 1_001, text);
        store.add_votes(1, text.len() as i64);
        store
    };
    let (left, right) = (branch("left"), branch("right hand"));
    for loser in [0, 1] {
        let winner = if loser == 0 { &right } else { &left };
        for mut store in [branch("left"), branch("right hand")] {
            let mut touched = Touched::default();
            for log in [&left.log, &right.log] {
                log.changes().filter(|change| change.number >= 2).for_each(|change| {
                    touched.add(&change);
                });
            }
            assert_eq!(touched.count(), 1);
            let mut log = Branches { logs: [&left.log, &right.log], set_aside: (loser, 2) };
            store.namespace.rebuild(&touched, &mut log, &mut InMemory, &mut ()).unwrap();
            assert_eq!(store.bytes(), winner.bytes());
        }
    }
}

#[test]
fn a_log_that_cannot_be_read_leaves_the_old_judgement() {
    struct Broken;
    impl LogSource for Broken {
        type Error = &'static str;

        fn visit(&mut self, _: &mut dyn FnMut(&Change<'_>)) -> Result<(), &'static str> {
            Err("the disk is gone")
        }
    }
    let mut store = Store::new();
    store.create(1, 1_000);
    let before = store.bytes();
    let replica: ReplicaIndex = 0;
    let judgements = vec![(replica, Ranges::above(0))];
    let result = store.namespace.judge(judgements, &mut Broken, &mut InMemory, &mut ());
    assert_eq!(result, Err(JudgeError::Log("the disk is gone")));
    assert!(store.namespace.set_aside(replica).is_empty());
    assert_eq!(store.bytes(), before);
}
