//! One replica: the real engine on a disk that loses its power, with a clock of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vudo_crdt::{FieldSchema, GenSchema, ReplicaKey, Strategy, Value, ValueType, VersionVector};
use vudo_state::{
    Database, Environment, Error, ListenerGuard, OpenOptions, Replication, SignedRecord,
};
use vudo_testkit::Random;

use crate::disk::Disk;

/// Documents that everybody writes to.
const SHARED_DOCUMENTS: usize = 4;

/// Time and randomness of one replica.
struct Surroundings {
    milliseconds: AtomicU64,
    random: Mutex<Random>,
}

impl Environment for Surroundings {
    fn now_milliseconds(&self) -> u64 {
        self.milliseconds.load(Ordering::SeqCst)
    }

    fn fill_random(&self, bytes: &mut [u8]) -> vudo_state::Result<()> {
        self.random.lock().unwrap().fill(bytes);
        Ok(())
    }
}

pub(crate) fn task() -> GenSchema {
    let fields = vec![
        FieldSchema::new("title", 1, Strategy::Lww, ValueType::String),
        FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64),
    ];
    GenSchema::new("Task", fields)
}

/// Documents whose writes were acknowledged, each with its writer and the number of its change.
pub(crate) type Acknowledged = BTreeMap<String, (ReplicaKey, u64)>;

/// A replica, switched on or off.
pub(crate) struct Replica {
    number: usize,
    key: ReplicaKey,
    namespace: String,
    pub(crate) disk: Disk,
    surroundings: Arc<Surroundings>,
    /// How far the clock is from the true time.
    clock_error_milliseconds: i64,
    database: Option<Database>,
    /// Seals what is on its way to disk, as sessions do.
    sealing: Option<ListenerGuard>,
    attempt_count: u64,
    /// The documents of its own whose writes were acknowledged.
    acknowledged: Acknowledged,
    /// What it has told others that it holds.
    pub(crate) promised: VersionVector,
    /// Keys that two stores write under: of their logs the end may be replaced.
    pub(crate) forked: Vec<ReplicaKey>,
    /// Whether it does not write before its disk is that of another one.
    pub(crate) awaits_copy: bool,
    /// Whether most of what it writes changes what there is, so that compaction drops some of it.
    pub(crate) overwrites: bool,
}

impl Replica {
    pub(crate) fn new(number: usize, disk: Disk, random: &mut Random) -> Replica {
        const DAY_MILLISECONDS: u64 = 86_400_000;
        let clock_error = random.between(0, 6 * DAY_MILLISECONDS) as i64;
        let mut replica = Replica {
            number,
            key: ReplicaKey::default(),
            namespace: "default".to_owned(),
            disk,
            surroundings: Arc::new(Surroundings {
                milliseconds: AtomicU64::new(0),
                random: Mutex::new(Random::new(random.next_u64())),
            }),
            clock_error_milliseconds: clock_error - 3 * DAY_MILLISECONDS as i64,
            database: None,
            sealing: None,
            attempt_count: 0,
            acknowledged: Acknowledged::new(),
            promised: VersionVector::new(),
            forked: Vec::new(),
            awaits_copy: false,
            overwrites: false,
        };
        replica.switch_on();
        replica
    }

    /// Puts a copy of another one's disk in place of its own: two stores of one key go on.
    pub(crate) fn go_on_with(&mut self, copy: Disk) {
        self.disk = copy;
        self.promised = VersionVector::new();
        self.awaits_copy = false;
    }

    /// Goes on in another namespace, with these records of it.
    pub(crate) fn move_to(&mut self, namespace: &str, records: Vec<SignedRecord>) {
        self.namespace = namespace.to_owned();
        self.database = Some(self.database().in_namespace(namespace));
        self.seal_ahead();
        self.database().add_records(records).expect("the disk is well");
    }

    fn seal_ahead(&mut self) {
        self.sealing = Some(self.replication().on_durable(|| ()));
    }

    /// How many writes it has tried, of which each gives a vote.
    pub(crate) fn attempt_count(&self) -> u64 {
        self.attempt_count
    }

    pub(crate) fn key(&self) -> ReplicaKey {
        self.key
    }

    pub(crate) fn is_on(&self) -> bool {
        self.database.is_some()
    }

    pub(crate) fn database(&self) -> &Database {
        self.database.as_ref().expect("the replica is on")
    }

    pub(crate) fn replication(&self) -> Replication {
        self.database().replication(&self.namespace).expect("the namespace opens")
    }

    pub(crate) fn set_time(&self, true_milliseconds: u64) {
        let shown = (1_700_000_000_000 + true_milliseconds)
            .saturating_add_signed(self.clock_error_milliseconds);
        self.surroundings.milliseconds.store(shown, Ordering::SeqCst);
    }

    /// Takes the power away. What was not on disk is gone.
    pub(crate) fn switch_off(&mut self) {
        if !self.disk.is_closed_first() {
            self.disk.power_off();
        }
        self.sealing = None;
        self.database = None;
        self.disk.power_off();
    }

    /// Opens the store that the disk holds, and checks that it holds all that was promised.
    pub(crate) fn switch_on(&mut self) {
        self.disk.power_on();
        // Small segments make many frames of few changes.
        let options = OpenOptions { segment_bytes: 200, ..OpenOptions::default() };
        let surroundings = self.surroundings.clone();
        let opened = Database::with_environment(self.disk.storage(), None, surroundings, &options);
        let opened = opened.expect("a store opens after every crash");
        self.key = opened.replica_key();
        self.database = Some(opened.in_namespace(&self.namespace));
        self.seal_ahead();
        let held = self.replication().durable_vector();
        let mut promised = self.promised.iter().filter(|(key, _)| !self.forked.contains(key));
        assert!(
            promised.all(|(key, number)| held.get(&key) >= number),
            "replica {} broke its word after a crash",
            self.number
        );
        self.assert_holds(&self.acknowledged, "after a crash");
    }

    /// Checks that what others believe to be on its disk is there. Whoever is off will show it by what it
    /// has promised.
    pub(crate) fn assert_durable(&self, believed: &VersionVector) {
        let Some(database) = &self.database else { return };
        let held = database.replication(&self.namespace).expect("it is open").durable_vector();
        let mut believed = believed.iter().filter(|(key, _)| !self.forked.contains(key));
        assert!(
            believed.all(|(key, number)| held.get(&key) >= number),
            "replica {} is believed to hold more than it does",
            self.number
        );
    }

    /// Runs one random transaction. `false` where the power went.
    pub(crate) fn write(&mut self, random: &mut Random) -> bool {
        let (gen_schema, own_key) = (task(), format!("{}/{}", self.number, self.attempt_count));
        let shared_key = format!("shared/{}", random.below(SHARED_DOCUMENTS));
        let churned_key = format!("churned/{}", random.below(SHARED_DOCUMENTS));
        self.attempt_count += 1;
        let has_own = !self.overwrites || random.one_in(3);
        let database = self.database();
        let has = |key: &str| database.read(&gen_schema, &database.document_id(key));
        let (Ok(shared), Ok(churned)) = (has(&shared_key), has(&churned_key)) else {
            return false;
        };
        let written = database.transaction(|transaction| {
            if has_own {
                transaction.create(&gen_schema, &own_key)?;
                transaction.set(&gen_schema, &own_key, "title", own_key.as_str())?;
            }
            if shared.is_none() {
                transaction.create(&gen_schema, &shared_key)?;
            }
            transaction.set(&gen_schema, &shared_key, "title", own_key.as_str())?;
            transaction.add(&gen_schema, &shared_key, "votes", 1)?;
            match churned {
                Some(_) => transaction.delete(&gen_schema, &churned_key),
                None => transaction.create(&gen_schema, &churned_key),
            }
        });
        match written {
            Ok(()) => {
                let number = self.replication().durable_vector().get(&self.key);
                if has_own {
                    self.acknowledged.insert(own_key, (self.key, number));
                }
                true
            }
            // It has not heard yet that it may write, or has heard that it may not any more.
            Err(Error::NoRight { .. }) => true,
            Err(error) => {
                assert!(self.disk.is_off(), "replica {}: {error}", self.number);
                false
            }
        }
    }

    /// The documents whose writes were acknowledged here.
    pub(crate) fn acknowledged(&self) -> &Acknowledged {
        &self.acknowledged
    }

    /// Whether a write has an effect by what is held here of rights.
    pub(crate) fn is_covered(&self, key: &str, (writer, number): (ReplicaKey, u64)) -> bool {
        let rights = self.database().access_rights().expect("the namespace opens");
        rights.is_none_or(|rights| {
            rights.check_write(&writer, number, "Task", key.as_bytes()).is_ok()
        })
    }

    /// What was acknowledged is there, as far as it has an effect, and no further.
    pub(crate) fn assert_holds(&self, acknowledged: &Acknowledged, when: &str) {
        let database = self.database();
        for (key, written) in acknowledged {
            let record = database.read(&task(), &database.document_id(key)).expect("it reads");
            let title = record.as_ref().and_then(|record| record.get("title"));
            let expected = Value::from(key.as_str());
            let expected = self.is_covered(key, *written).then_some(&expected);
            assert_eq!(title, expected, "replica {}: {key} {when}", self.number);
        }
    }

    /// The votes of all shared documents.
    pub(crate) fn vote_total(&self) -> i64 {
        let database = self.database();
        let of_document = |number| {
            let id = database.document_id(&format!("shared/{number}"));
            match database.read_field(&task(), &id, "votes").expect("it reads") {
                Some(Value::Int(votes)) => votes as i64,
                _ => 0,
            }
        };
        (0..SHARED_DOCUMENTS).map(of_document).sum()
    }
}
