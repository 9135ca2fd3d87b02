//! Typed Rust of two versions of a Gen, on one store.

mod old {
    vudo::gen_source! {
        "enum Status { Open, Done }
         gen Task {
             has title: String
             has owner: String
             has votes: i32
             has status: Status
             @crdt(or_set) has tags: Set<i32>
         }"
    }
}

mod new {
    vudo::include_gen!("tests/evolved.dol");
}

#[test]
fn typed_rust_of_the_new_version_reads_and_writes_what_the_old_one_wrote() {
    let database = vudo::open_in_memory().unwrap();
    let before = old::Task::create(&database, "milk").unwrap();
    before.set_title("Milk").unwrap();
    before.set_owner("ada").unwrap();
    before.set_votes(40).unwrap();
    before.set_status(old::Status::Done).unwrap();
    before.add_tags(1).unwrap();
    before.add_tags(2).unwrap();

    let after = new::Task::open(&database, "milk").unwrap().unwrap();
    assert_eq!(after.title().unwrap().as_deref(), Some("Milk"));
    assert_eq!(after.owner().unwrap(), ["ada"]);
    assert_eq!(after.votes().unwrap(), 40);
    assert_eq!(after.status().unwrap().as_deref(), Some("Done"));
    assert_eq!(after.tags().unwrap(), [1, 2]);

    after.set_owner("grace").unwrap();
    after.add_votes(2).unwrap();
    after.set_status("Late").unwrap();
    after.add_tags(5_000_000_000).unwrap();
    after.remove_tags(1).unwrap();
    assert_eq!(after.owner().unwrap(), ["grace"]);
    assert_eq!(after.votes().unwrap(), 42);
    assert_eq!(after.status().unwrap().as_deref(), Some("Late"));
    assert_eq!(after.tags().unwrap(), [2, 5_000_000_000]);

    // The old version sees what it can, and loses nothing.
    assert_eq!(before.owner().unwrap().as_deref(), Some("ada"));
    assert_eq!(before.votes().unwrap(), Some(40));
    assert_eq!(before.status().unwrap(), Some(old::Status::Done));
    assert_eq!(before.tags().unwrap(), [2]);
}
