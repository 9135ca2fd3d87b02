//! A message to a member or a wallet: what is accepted is canonical, and both take anything without
//! a panic and without breaking an invariant.
//!
//! They know the log of the seeds, so that deposits and reports reach a lane that there is.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vudo_credit::wallet::log_key;
use vudo_credit::wire::Wire;
use vudo_credit::log_file::read_log;
use vudo_credit::{Digest, Event, Genesis, Member, Message, Party, Secret, Wallet};

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The genesis and the log that the seeds are of.
static LOG: LazyLock<(Genesis, Entries)> = LazyLock::new(|| {
    let file = include_bytes!("../corpus/credit_log_entry/file");
    let (genesis, records) = read_log(file).unwrap();
    let records = records.into_iter().zip(0..);
    let entries = records.map(|(record, index)| (log_key(index), record.to_vec())).collect();
    (genesis, entries)
});

/// A key that a number names, as in the tests that wrote the seeds.
fn secret(number: u64) -> Secret {
    Secret::from_seed(Digest::of("test/secret", &[&number.to_be_bytes()]).0)
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::from_bytes(bytes) else { return };
    assert_eq!(message.to_bytes(), bytes);
    let (genesis, entries) = &*LOG;
    for place in [0, 2] {
        let mut member = Member::open(genesis.clone(), secret(place), entries.clone()).unwrap();
        let from = Party::Client(0);
        member.handle(Event::Message { from, message: message.clone() });
        member.handle(Event::Retry);
        member.ledger().check_invariants().unwrap();
    }
    let opened = Wallet::open(genesis.clone(), secret(100), secret(200), entries.clone());
    let mut wallet = opened.unwrap();
    wallet.handle(1, message);
    wallet.retry();
    wallet.ledger().check_invariants().unwrap();
});
