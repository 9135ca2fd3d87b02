//! Says few bytes of ranges of rows that are much in memory.

use vudo_crdt::VersionVector;
use vudo_crdt::limits::{MAX_DIFFERENT_ROWS, MAX_RANGE_PARTS};
use vudo_crdt::wire::{write_bytes, write_varint};

use crate::attacker::{Attacker, Victim, resident_bytes, store};

const RANGES: u8 = 10;
const ROWS_DIFFER: u8 = 3;
/// What all positions begin with.
const SHARED_BYTES: usize = 9_000;
const MEMORY_BYTES_MAX: usize = 128 << 20;

/// A message of so many parts, each of as many different rows as there may be. Written out whole each of
/// its positions would have 9 KB.
fn flood(part_count: usize) -> Vec<u8> {
    let mut bytes = vec![RANGES];
    write_varint(&mut bytes, part_count as u64);
    let mut number = 0u32;
    let mut write_next = |bytes: &mut Vec<u8>| {
        let start: &[u8] = if number == 0 { &[b'x'; SHARED_BYTES] } else { &[] };
        write_varint(bytes, if number == 0 { 0 } else { SHARED_BYTES as u64 });
        number += 1;
        write_bytes(bytes, &[start, &number.to_be_bytes()].concat());
    };
    for part in 1..=part_count {
        bytes.push(ROWS_DIFFER);
        write_varint(&mut bytes, MAX_DIFFERENT_ROWS as u64);
        (0..MAX_DIFFERENT_ROWS).for_each(|_| write_next(&mut bytes));
        if part < part_count {
            write_next(&mut bytes);
        }
    }
    let length = bytes.len() as u32;
    [&length.to_le_bytes()[..], &bytes].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_are_much_in_memory_are_cut_off_in_bounded_memory() {
    let victim = Victim::new(|| store(&["own"])).await;
    let flood = flood(3);
    assert!(3 < MAX_RANGE_PARTS && flood.len() < 2 << 20, "{} bytes", flood.len());
    let mut attacker = Attacker::trusted(&victim, 0xb8, VersionVector::new()).await;
    let before = resident_bytes();
    let watch = std::thread::spawn(move || {
        let mut most = before;
        for _ in 0..200 {
            most = most.max(resident_bytes());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        most
    });
    attacker.send_bytes(&flood).await;
    attacker.expect_cut_off("malformed message").await;
    let grown = watch.join().unwrap().saturating_sub(before);
    assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes");
    victim.survives(1).await;
}
