//! What it takes to find the rows that differ between two namespaces: bytes, messages and time.
//!
//! The two hold 1,000,000 documents, of which 100 differ. Bytes and messages are printed, for they
//! are counts and need no clock.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use vudo_crdt::{
    FieldSchema, InMemory, Log, Namespace, ReplicaKey, SessionKey, Strategy, Transaction, Value,
    ValueType,
};

const DOCUMENT_COUNT: u64 = 1_000_000;
const CHANGED_COUNT: u64 = 100;
const SESSION: SessionKey = [3; 32];
const NOW_MILLISECONDS: u64 = 1_700_000_000_000;
/// A client and a server take turns, so a round trip is two messages.
const ROUND_TRIPS_MAX: usize = 4;
const BYTES_MAX: usize = 80_000;

/// Writes to documents, a thousand to a change.
fn write(namespace: &mut Namespace, writer: u8, numbers: impl Iterator<Item = u64>) {
    let value = FieldSchema::new("value", 1, Strategy::Lww, ValueType::U64);
    let replica = namespace.intern_replica(ReplicaKey([writer; 32]));
    let record = namespace.intern_gen("Record").unwrap();
    let numbers: Vec<u64> = numbers.collect();
    for part in numbers.chunks(1_000) {
        let now = NOW_MILLISECONDS + u64::from(writer);
        let mut transaction = Transaction::begin(namespace, replica, now);
        for number in part {
            let key = format!("record-{number:07}");
            let (key, number) = (key.as_bytes(), Value::from(*number));
            if namespace.loaded_row(record, key).is_none() {
                transaction.create(namespace, &mut InMemory, record, key).unwrap();
            }
            transaction.set(namespace, &mut InMemory, record, key, &value, &number).unwrap();
        }
        transaction.commit(namespace, &mut InMemory, &mut Log::default()).unwrap();
    }
}

/// Lets the two find out what differs. Gives the number of messages, of bytes, and of rows.
fn reconcile(client: &mut Namespace, server: &mut Namespace) -> (usize, usize, usize) {
    let mut message = client.first_ranges(&SESSION, &mut InMemory).unwrap();
    let mut sides = [server, client];
    let (mut message_count, mut byte_count, mut row_count) = (0, 0, 0);
    loop {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        byte_count += bytes.len();
        let side = &mut sides[message_count % 2];
        message_count += 1;
        let (answer, different) = side.compare_ranges(&message, &SESSION, &mut InMemory).unwrap();
        row_count = row_count.max(different.count());
        if message.is_settled() {
            return (message_count, byte_count, row_count);
        }
        message = answer;
    }
}

fn reconciliation(criterion: &mut Criterion) {
    let mut client = Namespace::new(1);
    write(&mut client, 1, 0..DOCUMENT_COUNT);
    let mut server = client.clone();
    // Far apart, and nowhere near where chunks begin.
    let step = DOCUMENT_COUNT / CHANGED_COUNT;
    write(&mut server, 2, (0..CHANGED_COUNT).map(|place| place * step + place * 77 % step));
    // What was hashed before is kept, as in a store that has told its fingerprint.
    for namespace in [&mut client, &mut server] {
        namespace.fingerprint(&mut InMemory).unwrap();
    }
    let (messages, bytes, rows) = reconcile(&mut client, &mut server);
    println!(
        "{CHANGED_COUNT} of {DOCUMENT_COUNT} documents differ: found with {messages} messages, \
         {bytes} bytes"
    );
    assert_eq!(rows as u64, CHANGED_COUNT);
    assert!(messages <= 2 * ROUND_TRIPS_MAX && bytes <= BYTES_MAX);
    criterion.bench_function("reconcile/100_of_1000000", |bencher| {
        bencher.iter(|| reconcile(&mut client, &mut server));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = reconciliation
}
criterion_main!(benches);
