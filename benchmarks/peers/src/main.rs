//! One case of one library, measured in this process: `peers CASE LIBRARY` prints its figures as a
//! JSON object, and nothing where the library has no such thing. `cargo xtask peers` runs them all.
//!
//! The same work for everybody: bytes in, every value read after them, so that a library that puts
//! off its work pays for it. Time is CPU time of the whole process, since the machine may be shared; where
//! it mostly waits for the disk, the figure's name says `wall`.

#![forbid(unsafe_code)]

mod automerge_peer;
mod cases;
mod limits;
mod loro_peer;
mod ours;
mod sqlite;
mod yrs_peer;

use anyhow::{Context, Result, bail};
use cases::Figures;

/// Ours comes first, what no library can beat comes last.
const LIBRARIES: [&str; 6] = ["vudo", "loro", "automerge", "yrs", "hash_map", "sqlite"];
const CASES: [&str; 9] = [
    "merge_one_change",
    "merge_single_op_changes",
    "sync_in_process",
    "records",
    "document_per_record",
    "open",
    "state",
    "counter",
    "set",
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--list"] => println!("{}", serde_json::json!([CASES, LIBRARIES])),
        [case, library] => {
            if let Some(figures) = run(case, library).context("the case failed")? {
                println!("{}", serde_json::to_string(&figures)?);
            }
        }
        _ => bail!("usage: peers CASE LIBRARY, or peers --list"),
    }
    Ok(())
}

/// Calls a driver with the type that stands for the library; gives nothing for another library.
macro_rules! with_library {
    ($library:expr, $driver:ident $arguments:tt, [$($name:literal => $type:ty),* $(,)?]) => {
        match $library {
            $($name => cases::$driver::<$type> $arguments.map(Some),)*
            _ => Ok(None),
        }
    };
}

macro_rules! every_map {
    ($library:expr, $driver:ident $arguments:tt) => {
        with_library!(
            $library,
            $driver $arguments,
            [
                "vudo" => ours::Map,
                "loro" => loro_peer::Document,
                "automerge" => automerge_peer::Document,
                "yrs" => yrs_peer::Document,
                "hash_map" => limits::Map,
                "sqlite" => sqlite::Database,
            ]
        )
    };
}

macro_rules! every_table {
    ($library:expr, $driver:ident $arguments:tt) => {
        with_library!(
            $library,
            $driver $arguments,
            [
                "vudo" => ours::Table,
                "loro" => loro_peer::Document,
                "automerge" => automerge_peer::Document,
                "yrs" => yrs_peer::Document,
                "hash_map" => limits::Table,
                "sqlite" => sqlite::Database,
            ]
        )
    };
}

fn run(case: &str, library: &str) -> Result<Option<Figures>> {
    match case {
        "merge_one_change" => every_map!(library, merge_one_change()),
        "merge_single_op_changes" => every_map!(library, merge_single_op_changes()),
        "sync_in_process" => every_map!(library, sync()),
        "records" => every_table!(library, records()),
        // What keeps all records in one table has no document to make of each.
        "document_per_record" => with_library!(library, document_per_record(), [
            "loro" => loro_peer::Document, "automerge" => automerge_peer::Document,
            "yrs" => yrs_peer::Document
        ]),
        "open" => every_table!(library, open()),
        "state" => with_library!(library, state(), [
            "vudo" => ours::Table, "sqlite" => sqlite::Database
        ]),
        "counter" => with_library!(library, counter(), [
            "vudo" => ours::Counter, "loro" => loro_peer::Document,
            "automerge" => automerge_peer::Document, "hash_map" => limits::Counter
        ]),
        "set" => with_library!(library, merge_set_adds(), [
            "vudo" => ours::Set, "loro" => loro_peer::Document, "automerge" => automerge_peer::Document,
            "yrs" => yrs_peer::Document, "hash_map" => limits::Map, "sqlite" => sqlite::Database
        ]),
        _ => bail!("there is no case '{case}': --list names them"),
    }
}
