//! A message to a member: what is accepted is canonical, and a member takes anything without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_credit::wire::Wire;
use vudo_credit::{DEFAULT_TIERS, Event, Genesis, Member, Message, Party, Secret};

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::from_bytes(bytes) else { return };
    assert_eq!(message.to_bytes(), bytes);
    let secret = |number: u8| Secret::from_seed([number; 32]);
    let genesis = Genesis {
        name: "fuzz".to_owned(),
        members: (1..5).map(|number| secret(number).key()).collect(),
        sequencer: 0,
        operators: vec![secret(9).key()],
        reserve: secret(10).key(),
        tiers: DEFAULT_TIERS.to_vec(),
        settle_window_ticks: 10,
    };
    for place in [1, 2] {
        let mut member = Member::open(genesis.clone(), secret(place), []).unwrap();
        let from = Party::Client(0);
        member.handle(Event::Message { from, message: message.clone() });
        member.ledger().check_invariants().unwrap();
    }
});
