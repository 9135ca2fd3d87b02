//! The cities of the world: imported, queried live by country, pinned, opened again. `VUDO_DATA`
//! names the folder that holds world-cities.csv.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use vudo_crdt::{FieldSchema, GenSchema, Predecessor, Schema, Strategy, Value, ValueType};
use vudo_state::{Condition, Database, Direction, LiveQuery, Place, Query, Record, Step};

fn city_gen() -> GenSchema {
    let field = |name, number| FieldSchema::new(name, number, Strategy::Lww, ValueType::String);
    let fields = vec![field("name", 1), field("country", 2), field("subcountry", 3)];
    GenSchema::new("City", fields)
}

/// The file; `None`, which is said, where there is none.
fn file(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("VUDO_DATA").map(PathBuf::from);
    let file = folder.map(|folder| folder.join("world-cities.csv")).filter(|at| at.exists());
    if file.is_none() {
        vudo_testkit::skip::missing_data(test, "world-cities.csv in the folder VUDO_DATA");
    }
    file
}

/// Rows of the file: key, then name, country, subcountry.
fn rows(path: &std::path::Path) -> Vec<[String; 4]> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let cities = reader.records().map(|row| {
        let row = row.unwrap();
        [&row[3], &row[0], &row[1], &row[2]].map(str::to_owned)
    });
    cities.collect()
}

fn import(database: &Database, rows: &[[String; 4]]) {
    for rows in rows.chunks(1_000) {
        database
            .transaction(|transaction| {
                for [key, name, country, subcountry] in rows {
                    transaction.create(&city_gen(), key)?;
                    let fields = [("name", name), ("country", country), ("subcountry", subcountry)];
                    for (field, value) in fields {
                        transaction.set(&city_gen(), key, field, value.as_str())?;
                    }
                }
                Ok(())
            })
            .unwrap();
    }
}

fn of_country(country: &str) -> Query {
    let query = Query::of(&city_gen()).filter("country", Condition::Equal(country.into()));
    query.unwrap().sort_by("name", Direction::Ascending).unwrap()
}

/// Takes the steps of a live query to what it has shown before.
fn follow(live: &LiveQuery, result: &mut BTreeMap<Place, Arc<Record>>) {
    while let Some(change) = live.try_next() {
        assert_eq!(change.lagged, 0);
        for step in change.steps {
            match step {
                Step::Entered { place, record } => result.insert(place, record),
                Step::Changed { from, place, record } => {
                    result.remove(&from);
                    result.insert(place, record)
                }
                Step::Left { place } => result.remove(&place),
            };
        }
    }
}

fn names(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.get("name").unwrap().to_string()).collect()
}

#[test]
fn the_cities_of_the_world_are_imported_followed_by_country_and_kept() {
    let test = "the_cities_of_the_world_are_imported_followed_by_country_and_kept";
    let Some(file) = file(test) else { return };
    let rows = rows(&file);
    assert!(rows.len() > 30_000);
    let (most, later) = rows.split_at(rows.len() - 2_000);
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    database.define(&Schema { gens: vec![city_gen()], ..Schema::default() }).unwrap();
    import(&database, most);
    database.pin("before the rest").unwrap();

    // Followed while the rest comes in, the result is what the file says.
    let countries = ["Switzerland", "United States", "Zimbabwe"];
    let mut followed: Vec<_> = (countries.iter())
        .map(|country| {
            let live = database.live(of_country(country)).unwrap();
            let result: BTreeMap<_, _> = live.snapshot().unwrap().into_iter().collect();
            (live, result)
        })
        .collect();
    import(&database, later);
    let moved = database.document_id(&rows[0][0]);
    database.update(&city_gen(), &moved, &[("country", "Zimbabwe".into())]).unwrap();
    for ((live, result), country) in followed.iter_mut().zip(countries) {
        follow(live, result);
        let in_file = rows.iter().filter(|row| row[2] == country).count();
        let expected = in_file + usize::from(country == "Zimbabwe");
        assert_eq!(result.len(), expected, "{country}");
        assert_eq!(live.match_count() as usize, expected);
    }

    let state = database.replication("default").unwrap().fingerprint().unwrap();
    let listed = database.query(&of_country("Switzerland")).unwrap();
    let mut sorted = names(&listed);
    sorted.sort();
    assert_eq!(names(&listed), sorted);
    drop((followed, database));
    let database = Database::open(folder.path()).unwrap();
    assert_eq!(database.replication("default").unwrap().fingerprint().unwrap(), state);
    assert_eq!(database.query(&of_country("Switzerland")).unwrap(), listed);
    assert_eq!(database.count(&Query::of(&city_gen())).unwrap() as usize, rows.len());
    let before = database.snapshot_of_pin("before the rest").unwrap();
    assert_eq!(before.list(&city_gen()).unwrap().len(), most.len());
}

/// `subcountry` is `region` now and keeps every value that was written apart, `population` is new.
fn new_city_gen() -> GenSchema {
    let old = city_gen();
    let [name, country, subcountry] = &old.fields[..] else { panic!("three fields") };
    let renamed = FieldSchema { name: "title".into(), ..name.clone() };
    let mut region = FieldSchema::new("region", 4, Strategy::MvRegister, ValueType::String);
    let predecessor = Predecessor { field: subcountry.clone(), conversion: None };
    region.predecessor = Some(Box::new(predecessor));
    let population = FieldSchema::new("population", 5, Strategy::PnCounter, ValueType::I64);
    GenSchema::new("City", [renamed, country.clone(), region, population])
}

#[test]
fn a_field_is_added_and_renamed_while_an_older_replica_keeps_writing() {
    let test = "a_field_is_added_and_renamed_while_an_older_replica_keeps_writing";
    let Some(file) = file(test) else { return };
    let rows = rows(&file);
    let (most, later) = rows.split_at(rows.len() - 3_000);
    let folder = tempfile::tempdir().unwrap();
    let upgraded = Database::open(folder.path()).unwrap();
    let old = Database::open_in_memory().unwrap();
    upgraded.define(&Schema::from(vec![city_gen()])).unwrap();
    old.define(&Schema::from(vec![city_gen()])).unwrap();
    import(&upgraded, most);
    let send = |from: &Database, to: &Database| {
        let (from, to) = (from.replication("default").unwrap(), to.replication("default").unwrap());
        while let Some(frame) = from.frame_since(&to.durable_vector(), 1 << 20).unwrap() {
            to.apply_frame(&frame.bytes).unwrap();
        }
    };
    send(&upgraded, &old);
    drop(upgraded);

    // One store opens with the new schema; the other one goes on with the old one.
    let upgraded = Database::open(folder.path()).unwrap();
    upgraded.define(&Schema::from(vec![new_city_gen()])).unwrap();
    let of_country = |country: &str| {
        let of = Query::of(&new_city_gen()).filter("country", Condition::Equal(country.into()));
        of.unwrap().sort_by("title", Direction::Ascending).unwrap()
    };
    let live = upgraded.live(of_country("Zimbabwe")).unwrap();
    let mut result: BTreeMap<_, _> = live.snapshot().unwrap().into_iter().collect();
    for (round, rows) in later.chunks(1_000).enumerate() {
        // Both write to the same documents, too, and every round they meet.
        import(&old, rows);
        for (place, row) in most.iter().skip(round * 100).take(100).enumerate() {
            let id = old.document_id(&row[0]);
            let changed = [("subcountry", format!("old {round}").into())];
            old.update(&city_gen(), &id, &changed).unwrap();
            let population = [("population", Value::Int(place as i128 + 1))];
            upgraded.update(&new_city_gen(), &id, &population).unwrap();
            if place % 2 == 0 {
                let country = [("country", "Zimbabwe".into()), ("region", "new".into())];
                upgraded.update(&new_city_gen(), &id, &country).unwrap();
            }
        }
        send(&old, &upgraded);
        send(&upgraded, &old);
        let state = |of: &Database| of.replication("default").unwrap().fingerprint().unwrap();
        assert_eq!(state(&old), state(&upgraded), "round {round}");
    }
    follow(&live, &mut result);
    let found = upgraded.query(&of_country("Zimbabwe")).unwrap();
    assert_eq!(result.len(), found.len());
    let keys: Vec<&str> = found.iter().map(|record| record.key.as_str()).collect();
    assert_eq!(result.keys().map(|place| place.key()).collect::<Vec<_>>(), keys);

    // Nothing is lost on either side, and each shows the cities as its schema has them.
    drop((live, upgraded));
    let upgraded = Database::open(folder.path()).unwrap();
    let (of_old, of_new) =
        (old.list(&city_gen()).unwrap(), upgraded.list(&new_city_gen()).unwrap());
    assert_eq!((of_old.len(), of_new.len()), (rows.len(), rows.len()));
    let rounds = later.chunks(1_000).len();
    let changed: BTreeMap<&str, (usize, usize)> = (0..rounds)
        .flat_map(|round| {
            let rows = most.iter().skip(round * 100).take(100).enumerate();
            rows.map(move |(place, row)| (row[0].as_str(), (round, place)))
        })
        .collect();
    let by_key: BTreeMap<&str, &[String; 4]> =
        rows.iter().map(|row| (row[0].as_str(), row)).collect();
    for (before, after) in of_old.iter().zip(&of_new) {
        let [_, name, country, subcountry] = by_key[before.key.as_str()];
        let place = changed.get(before.key.as_str());
        assert_eq!(before.get("name"), Some(&name.as_str().into()));
        assert_eq!(after.get("title"), before.get("name"));
        let moved = place.is_some_and(|(_, place)| place % 2 == 0);
        let country = Value::from(if moved { "Zimbabwe" } else { country });
        assert_eq!(before.get("country"), Some(&country));
        assert_eq!(after.get("country"), Some(&country));
        let old_region = place.map_or(subcountry.clone(), |(round, _)| format!("old {round}"));
        assert_eq!(before.get("subcountry"), Some(&old_region.as_str().into()));
        let region = if moved { "new" } else { old_region.as_str() };
        assert_eq!(after.get("region"), Some(&Value::List(vec![region.into()])), "{}", after.key);
        let population = place.map_or(0, |(_, place)| *place as i128 + 1);
        assert_eq!(after.get("population"), Some(&Value::Int(population)));
    }
}
