//! Bytes that are signed, sent and stored, frozen: a change of format is a decision.
//!
//! The files are what the fuzzer begins with, too. `VUDO_BLESS=1` writes them anew; a new format
//! needs a version in its domain tags and a CHANGELOG line.

mod support;

use std::path::Path;

use support::{Town, secret};
use vudo_credit::log_file::write_log;
use vudo_credit::operation::{Action, LogRecord, Operation, Request, Settlement};
use vudo_credit::wire::Wire;
use vudo_credit::{Chain, Message, Receiver, Settler};

const ALICE: u64 = 100;
const BOB: u64 = 101;
const CAROL: u64 = 102;
const DEVICE: u64 = 200;

fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    if std::env::var_os("VUDO_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let frozen = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; VUDO_BLESS=1 writes it", path.display()));
    assert!(frozen == bytes, "the bytes of {name} have changed: is that meant?");
}

#[test]
fn bytes_of_the_ledger_are_what_they_were() {
    let mut town = Town::new(4);
    town.open_accounts(&[(ALICE, 1000), (BOB, 0), (CAROL, 50)]);
    let mut device = town.device(DEVICE);
    let granted = town.grant(ALICE, device.key(), 100);
    device.take_grant(&granted).unwrap();
    let mut twin = town.device(DEVICE);
    twin.take_grant(&granted).unwrap();
    let network = town.genesis.network();
    let lane = *device.lanes().keys().next().unwrap();

    let mut receiver: Receiver = town.receiver(BOB);
    let (_, invoice) = receiver.invoice([1; 16], 7).unwrap();
    check("credit_spend/invoice_text", invoice.to_text().as_bytes());
    let payment = device.pay(&invoice).unwrap().payment;
    check("credit_spend/spend", &payment.chain.spends[0].to_bytes());
    check("credit_spend/chain", &payment.chain.to_bytes());
    check("credit_spend/payment", &payment.to_bytes());
    check("credit_spend/payment_text", payment.to_text().as_bytes());

    check("credit_grant/genesis", &town.genesis.to_bytes());
    check("credit_grant/grant", &granted.grant().unwrap().1.to_bytes());
    let request = Request::sign(&network, &secret(ALICE), 9, Action::Open);
    check("credit_grant/request", &request.to_bytes());

    // One spend is certified, then the device lies, and the lane is closed.
    let chain: Chain = device.chain(lane).unwrap();
    let mut settler = Settler::new(town.genesis.committee().unwrap(), vec![chain.clone()]).unwrap();
    check("credit_message/deposit", &settler.messages()[0].1.to_bytes());
    for _ in 0..2 {
        for (member, message) in settler.messages() {
            town.send(member, message);
        }
        for (number, (_, answer)) in std::mem::take(&mut town.answers).into_iter().enumerate() {
            if number == 0 {
                let name = format!("credit_message/answer_{:?}", answer.statement.kind);
                check(&name, &Message::Answer(answer.clone()).to_bytes());
            }
            settler.answer(&answer);
        }
    }
    let certified = settler.certified_heads().remove(0);
    check("credit_certificate/certificate", &certified.certificate.to_bytes());
    check("credit_certificate/path", &certified.path.to_bytes());
    check("credit_certificate/head", &certified.to_bytes());
    let settlement: Settlement = settler.settlement().unwrap();
    check("credit_message/settle", &Message::Settle(settlement).to_bytes());
    let (_, invoice) = town.receiver(CAROL).invoice([2; 16], 9).unwrap();
    twin.pay(&invoice).unwrap();
    for chain in [chain, twin.chain(lane).unwrap()] {
        town.send(0, Message::Deposit(vec![chain]));
    }
    let author = secret(CAROL).key();
    for action in [
        Action::Pledge { account: secret(BOB).key(), amount: 3 },
        Action::Unpledge { account: secret(BOB).key(), amount: 3 },
        Action::RevokeDevice { device: author },
    ] {
        town.request(CAROL, action);
    }
    for _ in 0..12 {
        town.tick();
    }

    let kinds = |record: &LogRecord| match &record.certified.entry.operation {
        Operation::Request(request) => match request.action {
            Action::Open => "open",
            Action::SetLimit { .. } => "set_limit",
            Action::Pledge { .. } => "pledge",
            Action::Unpledge { .. } => "unpledge",
            Action::FundReserve { .. } => "fund_reserve",
            Action::Grant(_) => "grant",
            Action::RevokeDevice { .. } => "revoke_device",
        },
        Operation::Tick { .. } => "tick",
        Operation::Record(_) => "record",
        Operation::Equivocation { .. } => "equivocation",
        Operation::CloseIntent { .. } => "close_intent",
        Operation::Close { .. } => "close",
    };
    let mut seen = std::collections::BTreeSet::new();
    for record in town.log() {
        let kind = kinds(record);
        if seen.insert(kind) {
            check(&format!("credit_log_entry/{kind}"), &record.to_bytes());
            let submit = Message::Submit(Box::new(record.certified.entry.operation.clone()));
            check(&format!("credit_message/submit_{kind}"), &submit.to_bytes());
        }
    }
    assert_eq!(seen.len(), 11, "the log has {seen:?}");
    let record = &town.log()[0];
    let committed = Message::Committed(Box::new(record.certified.clone()));
    check("credit_message/committed", &committed.to_bytes());
    check("credit_message/want", &Message::Want { from: 3 }.to_bytes());
    check("credit_message/log_length", &Message::LogLength { entries: 3 }.to_bytes());
    // Up to here the lane is open, so that messages about it find something.
    let is_early = |record: &&LogRecord| kinds(record) != "tick";
    let bytes: Vec<Vec<u8>> = town.log().iter().take_while(is_early).map(Wire::to_bytes).collect();
    let file = write_log(&town.genesis, bytes.iter().map(Vec::as_slice));
    check("credit_log_entry/file", &file);
}
