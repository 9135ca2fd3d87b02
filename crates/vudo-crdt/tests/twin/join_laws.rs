//! The laws of the join, on whole random states: commutative, associative, idempotent.

use crate::random::Random;
use crate::store::{Changes, Shape, Store, fields};

const CASE_COUNT: u64 = 300;

/// A store with the changes of these frames, joined in this order.
fn joined(frames: &[&[u8]], random: &mut Random) -> Store {
    let mut store = Store::new(9, random);
    for frame in frames {
        store.join(frame);
    }
    store
}

fn whole_log(store: &Store) -> Vec<u8> {
    store.log.frame_since(&store.namespace, &Default::default())
}

#[test]
fn three_states_join_to_the_same_in_every_order_and_grouping() {
    for seed in 0..CASE_COUNT {
        let mut random = Random::new(seed);
        let shape = Shape { key_count: 3, text_bytes_max: 12, fields: fields() };
        let mut changes = Changes::new();
        let frames: Vec<Vec<u8>> = (0..3)
            .map(|number| {
                let mut store = Store::new(number, &mut random);
                let transaction_count = 1 + random.below(12);
                for _ in 0..transaction_count {
                    store.transact(&mut random, &shape, &mut changes);
                }
                whole_log(&store)
            })
            .collect();
        let [a, b, c] = [0, 1, 2].map(|index| frames[index].as_slice());
        let expected = joined(&[a, b, c], &mut random).canonical_bytes();
        for order in [[a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
            let bytes = joined(&order, &mut random).canonical_bytes();
            assert!(bytes == expected, "seed {seed}: the order of joining shows");
        }
        let left_first = whole_log(&joined(&[a, b], &mut random));
        let right_first = whole_log(&joined(&[c, b], &mut random));
        for grouping in [[&*left_first, c], [a, &*right_first], [&*right_first, &*left_first]] {
            let bytes = joined(&grouping, &mut random).canonical_bytes();
            assert!(bytes == expected, "seed {seed}: the grouping of joins shows");
        }
        let mut again = joined(&[a, b, c], &mut random);
        for frame in [c, a, b, &*left_first] {
            assert_eq!(again.join(frame).changes, 0);
        }
        assert!(again.canonical_bytes() == expected, "seed {seed}: joining twice shows");
    }
}
