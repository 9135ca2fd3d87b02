//! A log record and a log as a file: what is accepted is canonical, and a ledger refuses it without
//! a change.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_credit::log_file::{read_log, write_log};
use vudo_credit::operation::LogRecord;
use vudo_credit::wire::Wire;
use vudo_credit::{DEFAULT_TIERS, Genesis, Ledger, Secret, audit};

fuzz_target!(|bytes: &[u8]| {
    if let Ok((genesis, records)) = read_log(bytes) {
        assert_eq!(write_log(&genesis, records), bytes);
    }
    let Ok(record) = LogRecord::from_bytes(bytes) else { return };
    assert_eq!(record.to_bytes(), bytes);
    let key = |number: u8| Secret::from_seed([number; 32]).key();
    let genesis = Genesis {
        name: "fuzz".to_owned(),
        members: (1..5).map(key).collect(),
        sequencer: 0,
        operators: vec![key(9)],
        reserve: key(10),
        tiers: DEFAULT_TIERS.to_vec(),
        settle_window_ticks: 10,
    };
    assert!(audit(&genesis, [&record]).is_err());
    let ledger = Ledger::new(genesis).unwrap();
    let _ = ledger.plan(&record.certified.entry.operation).map(|draft| draft.postings());
});
