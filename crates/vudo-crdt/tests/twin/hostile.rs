//! Damaged and forged frames: none panics, and what is refused leaves no trace.

use vudo_crdt::{Frame, checksum};

use crate::random::Random;
use crate::store::{Changes, Shape, Store, fields};

const CHECKSUM_BYTES: usize = 8;
const FLIP_COUNT: usize = 1_000;

/// A store with a state, and a frame of another store that it could apply.
fn victim_and_frame(random: &mut Random) -> (Store, Vec<u8>) {
    let shape = Shape { key_count: 3, text_bytes_max: 12, fields: fields() };
    let mut changes = Changes::new();
    let mut victim = Store::new(0, random);
    let mut sender = Store::new(1, random);
    for _ in 0..8 {
        victim.transact(random, &shape, &mut changes);
        sender.transact(random, &shape, &mut changes);
    }
    let frame = sender.log.frame_since(&sender.namespace, &Default::default());
    (victim, frame)
}

fn with_checksum(content: &[u8]) -> Vec<u8> {
    let mut frame = content.to_vec();
    frame.extend_from_slice(&checksum(content));
    frame
}

/// Applies a frame to a copy of the victim. Gives whether it was accepted.
fn attack(victim: &mut Store, frame: &[u8], clean: &[u8]) -> bool {
    let vector = victim.vector();
    let mut namespace = victim.namespace.clone();
    match namespace.apply_frame(frame, &mut victim.chunks, &mut ()) {
        Ok(applied) => {
            let bytes = namespace.canonical_bytes(&mut victim.chunks).unwrap();
            assert!(applied.changes > 0 || bytes == clean);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let bytes = namespace.canonical_bytes(&mut victim.chunks).unwrap();
            assert!(bytes == clean, "a refused frame left a trace: {error}");
            assert_eq!(namespace.version_vector(), vector);
            false
        }
    }
}

#[test]
fn every_truncated_change_is_refused_and_leaves_no_trace() {
    for seed in 0..5 {
        let mut random = Random::new(seed);
        let (mut victim, frame) = victim_and_frame(&mut random);
        let clean = victim.canonical_bytes();
        for length in 0..frame.len() {
            assert!(!attack(&mut victim, &frame[..length], &clean));
        }
        // A forger can leave out the last changes, as any sender may; never a part of one.
        let content = &frame[..frame.len() - CHECKSUM_BYTES];
        let accepts = |length: &usize| {
            let forged = with_checksum(&content[..*length]);
            attack(&mut victim, &forged, &clean)
        };
        let accepted_count = (0..content.len()).filter(accepts).count();
        assert_eq!(accepted_count, Frame::parse(&frame).unwrap().changes().count(), "seed {seed}");
        assert!(attack(&mut victim, &frame, &clean));
    }
}

#[test]
fn a_flipped_bit_shows_in_the_checksum() {
    let (_, frame) = victim_and_frame(&mut Random::new(1));
    for bit in 0..frame.len() * 8 {
        let mut damaged = frame.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Frame::parse(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn forged_bits_are_refused_without_a_trace_or_applied_whole() {
    let mut accepted_count = 0;
    let mut refused_count = 0;
    for seed in 0..10 {
        let mut random = Random::new(seed);
        let (mut victim, frame) = victim_and_frame(&mut random);
        let clean = victim.canonical_bytes();
        let content = &frame[..frame.len() - CHECKSUM_BYTES];
        for _ in 0..FLIP_COUNT / 10 {
            let mut forged = content.to_vec();
            for _ in 0..1 + random.below(3) {
                let bit = random.below(forged.len() * 8);
                forged[bit / 8] ^= 1 << (bit % 8);
            }
            if attack(&mut victim, &with_checksum(&forged), &clean) {
                accepted_count += 1;
            } else {
                refused_count += 1;
            }
        }
    }
    println!("{accepted_count} forged frames applied, {refused_count} refused");
    assert_eq!(accepted_count + refused_count, FLIP_COUNT);
    assert!(accepted_count > 50 && refused_count > 50, "validation was not reached both ways");
}
