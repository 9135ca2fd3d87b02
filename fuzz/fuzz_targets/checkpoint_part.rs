//! A checkpoint that is offered, a request for a part of what is retained below it, and such a part from
//! outside: refused, or the same bytes again. A part reaches a store that has asked for it.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use vudo_crdt::wire::{Reader, write_bytes};
use vudo_crdt::{FieldSchema, GenSchema, ReplicaKey, Strategy, ValueType, checksum};
use vudo_state::{CheckpointOffer, CheckpointPart, Database, PartRequest, Replication};

const PEER: ReplicaKey = ReplicaKey([9; 32]);

fn offer() -> &'static CheckpointOffer {
    static OFFER: OnceLock<CheckpointOffer> = OnceLock::new();
    OFFER.get_or_init(|| {
        let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
        let (gen_schema, database) =
            (GenSchema::new("Task", [title]), Database::open_in_memory().unwrap());
        let id = database.document_id("milk");
        database.create(&gen_schema, &id, &[("title", "Milk".into())]).unwrap();
        for title in ["Bread", "Salt"] {
            database.update(&gen_schema, &id, &[("title", title.into())]).unwrap();
        }
        database.compact().unwrap();
        replication(&database).checkpoint_offer().unwrap()
    })
}

fn replication(database: &Database) -> Replication {
    database.replication(database.namespace()).unwrap()
}

/// Gives a part to a store that waits for it.
fn give(mut part: CheckpointPart) {
    let database = Database::open_in_memory().unwrap();
    let taker = replication(&database);
    part.request = taker.begin_catching_up(&PEER, offer()).unwrap().unwrap();
    let before = taker.fingerprint().unwrap();
    match taker.take_part(&PEER, &part) {
        Ok(Some(_)) => assert!(part.next.is_some()),
        // Only what is retained below the checkpoint has an effect.
        Ok(None) => assert_eq!(taker.durable_vector().change_count(), 3),
        Err(error) => {
            assert!(error.is_peer_fault(), "{error}");
            assert_eq!(taker.fingerprint().unwrap(), before);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut reader = Reader::new(bytes);
    let mut out = Vec::new();
    let is_read = match kind % 3 {
        0 => CheckpointOffer::decode(&mut reader).map(|offer| offer.encode(&mut out)).is_ok(),
        1 => PartRequest::decode(&mut reader).map(|request| request.encode(&mut out)).is_ok(),
        _ => CheckpointPart::decode(&mut reader).map(|part| part.encode(&mut out)).is_ok(),
    };
    if is_read {
        assert_eq!(out, bytes[..bytes.len() - reader.rest().len()]);
    }
    // A fuzzer would not find the checksum of a frame.
    let mut summed = vec![0; 44];
    summed.extend([0, 1]);
    write_bytes(&mut summed, &[bytes, &checksum(bytes)].concat());
    for bytes in [bytes, &summed] {
        if let Ok(part) = CheckpointPart::decode(&mut Reader::new(bytes)) {
            give(part);
        }
    }
});
