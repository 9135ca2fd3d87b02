//! The cities of the world: imported, queried live by country, pinned, opened again. `VUDO_DATA`
//! names the folder that holds world-cities.csv.

use std::collections::BTreeMap;

use vudo_crdt::{FieldSchema, GenSchema, Schema, Strategy, ValueType};
use vudo_state::{Condition, Database, Direction, Query, Record, Step};

fn city_gen() -> GenSchema {
    let field = |name, number| FieldSchema::new(name, number, Strategy::Lww, ValueType::String);
    let fields = vec![field("name", 1), field("country", 2), field("subcountry", 3)];
    GenSchema::new("City", fields)
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

fn names(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.get("name").unwrap().to_string()).collect()
}

#[test]
fn the_cities_of_the_world_are_imported_followed_by_country_and_kept() {
    let file = std::env::var_os("VUDO_DATA").map(std::path::PathBuf::from);
    let Some(file) = file.map(|folder| folder.join("world-cities.csv")).filter(|at| at.exists())
    else {
        let test = "the_cities_of_the_world_are_imported_followed_by_country_and_kept";
        vudo_testkit::skip::missing_data(test, "world-cities.csv in the folder VUDO_DATA");
        return;
    };
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
