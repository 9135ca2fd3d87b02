//! The engine against a naive one: random transactions that commit and that fail, changes of a peer,
//! subscriptions, live queries and reopenings. `VUDO_HISTORIES` says how many histories,
//! `VUDO_SEED` replays one.
//!
//! The naive engine is a map. The peer writes to documents of its own, so that what merging does,
//! which has tests of its own, plays no part here.

mod common;

use std::collections::BTreeMap;

use vudo_crdt::{FieldSchema, GenSchema, Strategy, Value, ValueType, VersionVector};
use vudo_state::{
    ChangeKind, Condition, Database, Direction, Durability, Error, Interest, LiveQuery, Origin,
    Place, Query, Record, Refusal, Step, Subscription, Transaction,
};
use vudo_testkit::files::CrashingFiles;
use vudo_testkit::{Random, run_seeds};

const HISTORIES_BY_DEFAULT: u64 = 300;
const OPERATIONS_PER_HISTORY: usize = 120;
const KEYS: [&str; 8] = ["a1", "a2", "a3", "b1", "b2", "b3", "c", "d"];

type Fields = BTreeMap<String, Value>;
/// By Gen and key.
type Model = BTreeMap<(String, String), Fields>;

fn gens() -> [GenSchema; 2] {
    let task = vec![
        FieldSchema::new("title", 1, Strategy::Lww, ValueType::String),
        FieldSchema::new("rank", 2, Strategy::Lww, ValueType::I64),
        FieldSchema::new("votes", 3, Strategy::PnCounter, ValueType::I64),
        FieldSchema::new("made", 4, Strategy::Immutable, ValueType::I64),
    ];
    let note = vec![FieldSchema::new("text", 1, Strategy::Lww, ValueType::String)];
    [GenSchema::new("Task", task), GenSchema::new("Note", note)]
}

/// What the naive engine says to one operation.
fn expected(model: &mut Model, address: &(String, String), action: &Action) -> Result<(), Refusal> {
    match action {
        Action::Create => match model.contains_key(address) {
            true => Err(Refusal::AlreadyExists),
            false => {
                model.insert(address.clone(), Fields::new());
                Ok(())
            }
        },
        Action::Delete => model.remove(address).map(|_| ()).ok_or(Refusal::NotFound),
        Action::Write(field, value) => {
            let fields = model.get_mut(address).ok_or(Refusal::NotFound)?;
            match *field {
                "made" if fields.contains_key("made") => return Err(Refusal::Immutable),
                "votes" => {
                    let total = match (fields.get("votes"), value) {
                        (Some(Value::Int(total)), Value::Int(amount)) => total + amount,
                        _ => value_as_int(value),
                    };
                    fields.insert("votes".to_owned(), Value::Int(total));
                }
                _ => {
                    fields.insert((*field).to_owned(), value.clone());
                }
            }
            Ok(())
        }
    }
}

fn value_as_int(value: &Value) -> i128 {
    match value {
        Value::Int(number) => *number,
        other => panic!("{other} is no integer"),
    }
}

enum Action {
    Create,
    Delete,
    Write(&'static str, Value),
}

fn random_action(random: &mut Random, gen_schema: &GenSchema) -> Action {
    match random.below(10) {
        0..=2 => Action::Create,
        3 => Action::Delete,
        _ if gen_schema.name == "Note" => {
            Action::Write("text", format!("text {}", random.below(50)).into())
        }
        4 | 5 => Action::Write("title", format!("title {}", random.below(5)).into()),
        6 | 7 => Action::Write("rank", (random.below(6) as i64).into()),
        8 => Action::Write("votes", (random.below(9) as i64 - 4).into()),
        _ => Action::Write("made", (random.below(9) as i64).into()),
    }
}

fn apply(
    transaction: &mut Transaction<'_>,
    gen_schema: &GenSchema,
    key: &str,
    action: &Action,
) -> vudo_state::Result<()> {
    match action {
        Action::Create => transaction.create(gen_schema, key),
        Action::Delete => transaction.delete(gen_schema, key),
        Action::Write(field, value) => transaction.write(gen_schema, key, field, value.clone()),
    }
}

/// What a record shows, without counters that nobody has added to, which show zero.
fn shown(record: &Record) -> Fields {
    let fields = record.fields.iter().map(|(name, value)| (name.to_string(), value.clone()));
    fields.filter(|(name, value)| name != "votes" || *value != Value::Int(0)).collect()
}

fn without_zero_votes(fields: &Fields) -> Fields {
    let mut fields = fields.clone();
    fields.retain(|name, value| name != "votes" || *value != Value::Int(0));
    fields
}

/// A subscriber who builds its own copy from events: it reads the fields that an event names, and no
/// others.
struct Follower {
    subscription: Subscription,
    wants: fn(&str, &str) -> bool,
    copy: Model,
    event_count: u64,
}

impl Follower {
    fn follow(database: &Database, interest: Interest, wants: fn(&str, &str) -> bool) -> Follower {
        let subscription = database.subscribe(interest).unwrap();
        let mut follower = Follower { subscription, wants, copy: Model::new(), event_count: 0 };
        for gen_schema in gens() {
            for record in database.list(&gen_schema).unwrap() {
                if wants(&gen_schema.name, &record.key) {
                    let address = (gen_schema.name.clone(), record.key.clone());
                    follower.copy.insert(address, shown(&record));
                }
            }
        }
        follower
    }

    fn catch_up(&mut self, database: &Database) {
        for event in self.subscription.try_iter() {
            assert_eq!(event.lagged, 0);
            let is_own = event.replica == database.replica_key();
            assert_eq!(event.origin == Origin::Local, is_own);
            self.event_count += 1;
            for document in &event.documents {
                assert!((self.wants)(&document.gen_name, &document.key), "{document:?}");
                let address = (document.gen_name.to_string(), document.key.clone());
                match document.kind {
                    ChangeKind::Deleted => {
                        assert!(self.copy.remove(&address).is_some(), "{address:?} was not there");
                        continue;
                    }
                    ChangeKind::Created => {
                        let earlier = self.copy.insert(address.clone(), Fields::new());
                        assert!(earlier.is_none(), "{address:?} was there");
                    }
                    ChangeKind::Updated => assert!(!document.fields.is_empty()),
                }
                let gen_schema =
                    gens().into_iter().find(|one| one.name == address.0).expect("a known Gen");
                let id = database.document_id(&document.key);
                let copy = self.copy.get_mut(&address).expect("it is there");
                for number in &document.fields {
                    let field = gen_schema.field_numbered(*number).expect("a known field");
                    match database.read_field(&gen_schema, &id, &field.name).unwrap() {
                        Some(value) => copy.insert(field.name.to_string(), value),
                        None => copy.remove(&*field.name),
                    };
                }
            }
        }
    }

    fn check(&self, model: &Model) {
        let wanted = model.iter().filter(|((gen_name, key), _)| (self.wants)(gen_name, key));
        let wanted: Model =
            wanted.map(|(address, fields)| (address.clone(), without_zero_votes(fields))).collect();
        let copy: Model = (self.copy.iter())
            .map(|(address, fields)| (address.clone(), without_zero_votes(fields)))
            .collect();
        assert_eq!(copy, wanted, "the events do not replay to the state");
    }
}

/// Somebody who follows a query by its steps.
struct QueryFollower {
    query: Query,
    live: LiveQuery,
    result: BTreeMap<Place, Record>,
    step_count: usize,
}

impl QueryFollower {
    fn follow(database: &Database, query: Query) -> QueryFollower {
        let live = database.live(query.clone()).unwrap();
        let snapshot = live.snapshot().unwrap();
        let result =
            snapshot.into_iter().map(|(place, record)| (place, (*record).clone())).collect();
        QueryFollower { query, live, result, step_count: 0 }
    }

    fn check(&mut self, database: &Database) {
        while let Some(change) = self.live.try_next() {
            assert_eq!(change.lagged, 0);
            for step in change.steps {
                self.step_count += 1;
                match step {
                    Step::Entered { place, record } => {
                        assert!(self.result.insert(place, (*record).clone()).is_none());
                    }
                    Step::Changed { from, place, record } => {
                        assert!(self.result.remove(&from).is_some());
                        assert!(self.result.insert(place, (*record).clone()).is_none());
                    }
                    Step::Left { place } => assert!(self.result.remove(&place).is_some()),
                }
            }
        }
        let followed: Vec<Record> = self.result.values().cloned().collect();
        assert_eq!(followed, database.query(&self.query).unwrap(), "{:?}", self.query);
        assert_eq!(self.live.match_count(), database.count(&self.query).unwrap());
        let snapshot = self.live.snapshot().unwrap();
        let shown: Vec<Record> =
            snapshot.into_iter().map(|(_, record)| (*record).clone()).collect();
        assert_eq!(shown, followed);
    }
}

/// What the naive engine answers to a query: filter all, sort all, cut.
fn naive_answer(model: &Model, rank_below: i64, limit: usize) -> Vec<String> {
    let mut found: Vec<(Option<i128>, String)> = Vec::new();
    for ((gen_name, key), fields) in model {
        let rank = fields.get("rank").map(value_as_int);
        if gen_name == "Task" && rank.is_some_and(|rank| rank < rank_below.into()) {
            found.push((rank, key.clone()));
        }
    }
    found.sort_by(|left, right| right.0.cmp(&left.0).then(left.1.cmp(&right.1)));
    found.truncate(limit);
    found.into_iter().map(|(_, key)| key).collect()
}

fn ranked(limit: usize) -> Query {
    let [task, _] = gens();
    let query = Query::of(&task).filter("rank", Condition::Less(4i64.into())).unwrap();
    query.sort_by("rank", Direction::Descending).unwrap().limit(limit)
}

struct Session {
    database: Database,
    followers: Vec<Follower>,
    queries: Vec<QueryFollower>,
}

impl Session {
    fn open(files: &CrashingFiles) -> Session {
        let database = common::open(files).unwrap();
        let of = |gen_name: &str| gen_name.to_owned();
        let (gen_name, key) = (of("Task"), of("a1"));
        let followers = vec![
            Follower::follow(&database, Interest::Namespace, |_, _| true),
            Follower::follow(&database, Interest::Gen { gen_name: of("Task") }, |gen_name, _| {
                gen_name == "Task"
            }),
            Follower::follow(
                &database,
                Interest::Prefix { gen_name: of("Task"), key_prefix: of("a") },
                |gen_name, key| gen_name == "Task" && key.starts_with('a'),
            ),
            Follower::follow(&database, Interest::Document { gen_name, key }, |gen_name, key| {
                gen_name == "Task" && key == "a1"
            }),
        ];
        let [task, _] = gens();
        let titled = Query::of(&task).filter("title", Condition::Present).unwrap();
        let titled = titled.sort_by("title", Direction::Ascending).unwrap();
        let queries = vec![ranked(3), ranked(usize::MAX), titled.limit(2), Query::of(&task)];
        let queries =
            queries.into_iter().map(|query| QueryFollower::follow(&database, query)).collect();
        Session { database, followers, queries }
    }

    fn check(&mut self, model: &Model) {
        for gen_schema in gens() {
            let records = self.database.list(&gen_schema).unwrap();
            let found: Model = (records.iter())
                .map(|record| ((gen_schema.name.clone(), record.key.clone()), shown(record)))
                .collect();
            let wanted: Model = (model.iter())
                .filter(|((gen_name, _), _)| *gen_name == gen_schema.name)
                .map(|(address, fields)| (address.clone(), without_zero_votes(fields)))
                .collect();
            assert_eq!(found, wanted);
        }
        let answer = self.database.query(&ranked(3)).unwrap();
        let keys: Vec<String> = answer.into_iter().map(|record| record.key).collect();
        assert_eq!(keys, naive_answer(model, 4, 3));
        for follower in &mut self.followers {
            follower.catch_up(&self.database);
            follower.check(model);
        }
        self.queries.iter_mut().for_each(|query| query.check(&self.database));
    }
}

/// Runs one transaction against both engines.
fn transact(database: &Database, random: &mut Random, model: &mut Model) -> bool {
    let mut after = model.clone();
    let gives_up = random.one_in(8);
    let result = database.transaction(|transaction| {
        for _ in 0..1 + random.below(4) {
            let gen_schema = &gens()[random.below(2)];
            let key = KEYS[random.below(KEYS.len())];
            let action = random_action(random, gen_schema);
            let address = (gen_schema.name.clone(), key.to_owned());
            let refusal = expected(&mut after, &address, &action);
            match (apply(transaction, gen_schema, key, &action), refusal) {
                (Ok(()), Ok(())) => {}
                (Err(Error::Refused { reason, .. }), Err(refusal)) => assert_eq!(reason, refusal),
                (found, refusal) => panic!("{found:?}, and the naive engine says {refusal:?}"),
            }
            // It reads what it wrote.
            let read = transaction.read(gen_schema, key)?.map(|record| shown(&record));
            assert_eq!(read, after.get(&address).map(without_zero_votes));
        }
        // Any error rolls everything back.
        if gives_up { Err(Error::UnknownGen("none".to_owned())) } else { Ok(()) }
    });
    assert_eq!(result.is_err(), gives_up);
    if !gives_up {
        *model = after;
    }
    !gives_up
}

fn exchange(from: &Database, to: &Database) {
    let (source, target) =
        (from.replication("default").unwrap(), to.replication("default").unwrap());
    let since: VersionVector = target.durable_vector();
    if let Some(frame) = source.frame_since(&since, usize::MAX).unwrap() {
        target.apply_frame(&frame.bytes).unwrap();
    }
}

#[derive(Default)]
struct Totals {
    committed: u64,
    events: u64,
    steps: usize,
    reopenings: u64,
}

fn history(seed: u64, totals: &mut Totals) {
    let mut random = Random::new(seed);
    let mut files = CrashingFiles::new(seed);
    let peer = Database::open_in_memory().unwrap();
    let [task, _] = gens();
    let mut model = Model::new();
    let mut session = Session::open(&files);
    for number in 0..OPERATIONS_PER_HISTORY {
        match random.below(12) {
            0 => {
                let key = format!("peer {}", random.below(6));
                let id = peer.document_id(&key);
                let rank = Value::from(number as i64 % 6);
                let address = ("Task".to_owned(), key);
                if peer.read(&task, &id).unwrap().is_none() {
                    peer.create(&task, &id, &[("rank", rank.clone())]).unwrap();
                } else {
                    peer.update(&task, &id, &[("rank", rank.clone())]).unwrap();
                }
                exchange(&peer, &session.database);
                model.entry(address).or_default().insert("rank".to_owned(), rank);
            }
            1 if random.one_in(4) => {
                session.check(&model);
                let Session { database, followers, queries } = session;
                totals.events += followers.iter().map(|one| one.event_count).sum::<u64>();
                totals.steps += queries.iter().map(|one| one.step_count).sum::<usize>();
                drop((database, followers, queries));
                files = files.kill_process();
                session = Session::open(&files);
                totals.reopenings += 1;
            }
            choice => {
                let durability =
                    if choice < 6 { Durability::Durable } else { Durability::Eventual };
                let database = session.database.with_durability(durability);
                totals.committed += u64::from(transact(&database, &mut random, &mut model));
            }
        }
        if random.one_in(3) {
            session.check(&model);
        }
    }
    session.check(&model);
    totals.events += session.followers.iter().map(|one| one.event_count).sum::<u64>();
    totals.steps += session.queries.iter().map(|one| one.step_count).sum::<usize>();
}

#[test]
fn the_engine_does_what_a_naive_one_does_and_tells_of_all_of_it() {
    let mut totals = Totals::default();
    let count = run_seeds("model", HISTORIES_BY_DEFAULT, |seed| history(seed, &mut totals));
    let Totals { committed, events, steps, reopenings } = totals;
    println!(
        "{count} histories: {committed} transactions, {events} events, {steps} steps of live \
         queries, {reopenings} reopenings"
    );
    if count >= HISTORIES_BY_DEFAULT {
        assert!(committed > 50 * count && events > 50 * count && steps as u64 > 50 * count);
        assert!(reopenings > count);
    }
}
