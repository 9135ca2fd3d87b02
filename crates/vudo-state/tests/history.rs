//! Blame, judgements and heads of a store on disk.

use tempfile::TempDir;
use vudo_crdt::{FieldSchema, GenSchema, Ranges, Strategy, Value, ValueType};
use vudo_state::{ChangeKind, Database, Interest, Origin, is_signature};

fn task_gen() -> GenSchema {
    let fields = vec![
        FieldSchema::new("title", 1, Strategy::Lww, ValueType::String),
        FieldSchema::new("votes", 2, Strategy::PnCounter, ValueType::I64),
    ];
    GenSchema::new("Task", fields)
}

fn open(folder: &TempDir) -> Database {
    Database::open(folder.path()).unwrap()
}

/// Everything that `from` holds goes to `to`.
fn sync(from: &Database, to: &Database) {
    let (from, to) = (from.replication("default").unwrap(), to.replication("default").unwrap());
    let frame = from.frame_since(&to.durable_vector(), usize::MAX).unwrap();
    to.apply_frame(&frame.expect("there is something new").bytes).unwrap();
}

fn title(database: &Database) -> Option<Value> {
    let id = database.document_id("milk");
    database.read_field(&task_gen(), &id, "title").unwrap()
}

#[test]
fn a_judgement_takes_effect_survives_and_is_taken_back() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (open(&first), open(&second));
    let task = task_gen();
    let id = ours.document_id("milk");
    ours.create(&task, &id, &[("title", "ours".into()), ("votes", 1.into())]).unwrap();
    sync(&ours, &theirs);
    theirs.update(&task, &id, &[("title", "theirs".into()), ("votes", 10.into())]).unwrap();
    sync(&theirs, &ours);
    assert_eq!(title(&ours), Some("theirs".into()));
    let whole = ours.replication("default").unwrap().fingerprint().unwrap();

    let subscription = ours.subscribe(Interest::Namespace).unwrap();
    let intruder = theirs.replica_key();
    let replication = ours.replication("default").unwrap();
    assert_eq!(replication.judge(&[(intruder, Ranges::above(0))]).unwrap(), 1);
    let event = subscription.try_next().unwrap();
    assert_eq!((event.origin, event.number), (Origin::Local, 0));
    assert_eq!(event.documents[0].kind, ChangeKind::Updated);
    assert_eq!(title(&ours), Some("ours".into()));
    assert_eq!(ours.read_field(&task, &id, "votes").unwrap(), Some(1.into()));
    // What it writes from now on is held and has no effect, after opening again as well.
    theirs.update(&task, &id, &[("title", "theirs again".into())]).unwrap();
    sync(&theirs, &ours);
    assert_eq!(title(&ours), Some("ours".into()));
    let blame = ours.blame(&task, &id, "title").unwrap();
    let shown: Vec<_> =
        blame.iter().map(|write| (write.value.clone(), write.is_set_aside)).collect();
    let value = |text: &str| Some(Value::from(text));
    assert_eq!(
        shown,
        [(value("theirs again"), true), (value("theirs"), true), (value("ours"), false)]
    );
    assert!(blame[2].is_current && blame[2].replica == ours.replica_key());

    drop((subscription, replication, ours));
    let ours = open(&first);
    assert_eq!(title(&ours), Some("ours".into()));
    let replication = ours.replication("default").unwrap();
    assert_eq!(replication.set_aside(&intruder), Ranges::above(0));
    // It is forwarded all the same: whoever judges otherwise sees its effect.
    let third = Database::open_in_memory().unwrap();
    sync(&ours, &third);
    assert_eq!(title(&third), Some("theirs again".into()));
    assert_eq!(replication.judge(&[(intruder, Ranges::above(1))]).unwrap(), 1);
    assert_eq!(title(&ours), Some("theirs".into()));
    assert_eq!(replication.fingerprint().unwrap().1, whole.1);
}

#[test]
fn stores_that_hold_the_same_changes_have_the_same_heads() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (open(&first), open(&second));
    let task = task_gen();
    let head_of = |database: &Database, of: &Database| {
        database.replication("default").unwrap().head(&of.replica_key()).unwrap()
    };
    assert_eq!(head_of(&ours, &ours).length, 0);
    for number in 0..20 {
        let id = ours.document_id(&format!("task {number}"));
        ours.create(&task, &id, &[("title", "milk".into())]).unwrap();
        if number % 6 == 0 {
            sync(&ours, &theirs);
            theirs.update(&task, &id, &[("title", "bread".into())]).unwrap();
            sync(&theirs, &ours);
            assert_eq!(head_of(&ours, &ours), head_of(&theirs, &ours));
        }
    }
    sync(&ours, &theirs);
    for replica in [&ours, &theirs] {
        assert_eq!(head_of(&ours, replica), head_of(&theirs, replica));
    }
    assert_eq!(head_of(&theirs, &ours).length, 20);
    let signed = ours.replication("default").unwrap().signed_head().unwrap();
    assert_eq!(signed.head, head_of(&theirs, &ours));
    assert!(signed.holds(is_signature));
    let mut forged = signed.clone();
    forged.head.length += 1;
    assert!(!forged.holds(is_signature));
    drop(ours);
    assert_eq!(head_of(&open(&first), &theirs), head_of(&theirs, &theirs), "hashed anew");
}
