//! What the committee and the wallets do together, step by step.

mod support;

use support::{OPERATOR, RESERVE, Town, lane, payee, secret};
use vudo_credit::committee::{Kind, Signed, merkle_paths};
use vudo_credit::message::Answer;
use vudo_credit::operation::{Action, CertifiedHead, LogRecord, Operation, heads_statement};
use vudo_credit::wire::Wire;
use vudo_credit::{
    Chain, Device, Genesis, LaneId, LaneStatus, Message, Payment, Refusal, Settler, audit,
};

const ALICE: u64 = 100;
const BOB: u64 = 101;
const CAROL: u64 = 102;
const DEVICE: u64 = 200;

/// Alice may owe 400 units, and her device has a lane over 100 of them.
fn town() -> (Town, Device) {
    let mut town = Town::new(4);
    town.open_accounts(&[(ALICE, 400), (BOB, 400), (CAROL, 0)]);
    let mut device = town.device(DEVICE);
    let granted = town.grant(ALICE, device.key(), 100);
    device.take_grant(&granted).unwrap();
    (town, device)
}

fn pay(town: &Town, device: &mut Device, owner: u64, nonce: u8, amount: u64) -> Payment {
    let mut receiver = town.receiver(owner);
    let (_, invoice) = receiver.invoice([nonce; 16], amount).unwrap();
    let payment = device.pay(&invoice).unwrap().payment;
    assert_eq!(receiver.accept(&payment).unwrap().amount, amount);
    payment
}

fn chain(device: &Device) -> Chain {
    device.chain(*device.lanes().keys().next().unwrap()).unwrap()
}

#[test]
fn an_audit_finds_one_unit() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 60);
    town.settle(vec![chain(&device)]).unwrap();
    let (report, _) = audit(&town.genesis, town.log()).unwrap();
    assert_eq!((report.credit, report.loss), (60, 0));
    let posted = town.log().iter().position(|record| !record.postings.is_empty()).unwrap();
    let is_refused = |alter: &dyn Fn(&mut LogRecord)| {
        let mut copy = town.log().to_vec();
        alter(&mut copy[posted]);
        audit(&town.genesis, &copy).is_err_and(|error| error.index == posted as u64)
    };
    assert!(is_refused(&|record| record.postings[0].amount += 1));
    assert!(is_refused(&|record| {
        record.postings[0].amount += 1;
        record.postings[1].amount -= 1;
    }));
    assert!(is_refused(&|record| {
        let Operation::Record(settlement) = &mut record.certified.entry.operation else { return };
        settlement.chains[0].spends[0].amount -= 1;
    }));
    assert!(!is_refused(&|_| {}));
}

#[test]
fn a_double_spend_is_paid_by_the_waterfall_in_its_order() {
    let (mut town, mut device) = town();
    // Alice may owe 400, of which 300 are free; 270 she reserves for other devices.
    for (number, allocated) in [(1, 150), (2, 75), (3, 37)] {
        town.grant(ALICE, secret(DEVICE + number).key(), allocated);
    }
    let alice = secret(ALICE).key();
    assert_eq!(town.members[0].ledger().account(&alice).unwrap().headroom(), 38);
    town.request(BOB, Action::Pledge { account: alice, amount: 7 });
    town.open_accounts(&[(OPERATOR, 100)]);
    town.request(OPERATOR, Action::FundReserve { amount: 5 });
    // A copy of the device does not know what the device has spent.
    let mut twin = town.device(DEVICE);
    let granted = town.log().iter().find(|record| record.certified.grant().is_some()).unwrap();
    twin.take_grant(&granted.certified).unwrap();
    pay(&town, &mut device, BOB, 1, 90);
    pay(&town, &mut twin, CAROL, 2, 100);
    // Both payees come at the same time; half of the members hear one first, half the other.
    let (first, second) = (chain(&device), chain(&twin));
    for member in [0, 1] {
        town.send(member, Message::Deposit(vec![first.clone()]));
    }
    for member in [2, 3] {
        town.send(member, Message::Deposit(vec![second.clone()]));
    }
    assert!(town.settle(vec![first]).is_none());
    assert!(town.settle(vec![second]).is_none());
    let id = *device.lanes().keys().next().unwrap();
    assert!(town.members[0].ledger().lane(id).unwrap().has_equivocated);
    // The device and, until the lane is closed, the account get no more grants.
    let entries = town.log().len();
    let terms = town.terms(ALICE, secret(DEVICE + 9).key(), 1, None);
    town.request(ALICE, Action::Grant(terms));
    assert_eq!(town.log().len(), entries);
    for _ in 0..12 {
        town.tick();
    }
    // 190 units are claimed: 100 are left of the lane, 45 free (with the pledge), 7 pledged, 5 in
    // the reserve; 33 are lost, in proportion.
    let ledger = town.members[0].ledger();
    assert_eq!(ledger.lane(id).unwrap().status, LaneStatus::Closed { loss: 33 });
    assert_eq!(town.posted(ALICE), -145);
    assert_eq!(town.posted(RESERVE), 0);
    // Of 157 units 90/190 are 74.37 and 100/190 are 82.63.
    assert_eq!(town.posted(BOB), 74 - 7);
    assert_eq!(town.posted(CAROL), 83);
    assert_eq!(town.posted(OPERATOR), -5);
    let (report, _) = audit(&town.genesis, town.log()).unwrap();
    assert_eq!((report.loss, report.disputed_lane_count), (33, 1));
    assert!(town.members.iter().all(|member| member.log().len() == town.log().len()));
}

/// What the bound on liars is for: one of four can do nothing, two can have both sides certified.
#[test]
fn two_liars_of_four_certify_both_sides_of_a_double_spend_and_one_does_not() {
    for liar_count in [1, 2] {
        let (mut town, mut device) = town();
        let mut twin = town.device(DEVICE);
        let granted = town.log().iter().find(|record| record.certified.grant().is_some()).unwrap();
        twin.take_grant(&granted.certified).unwrap();
        pay(&town, &mut device, BOB, 1, 90);
        pay(&town, &mut twin, CAROL, 2, 100);
        let committee = town.members[0].ledger().committee.clone();
        let liars: Vec<u8> = (1..=liar_count).collect();
        // The honest members are apart: the last one hears Carol, all others Bob.
        let certified = [(chain(&device), 0..3), (chain(&twin), 3..4)].map(|(chain, hear)| {
            let mut settler = Settler::new(committee.clone(), vec![chain.clone()]).unwrap();
            for member in hear {
                town.send(member, Message::Deposit(vec![chain.clone()]));
            }
            for (_, answer) in std::mem::take(&mut town.answers) {
                settler.answer(&answer);
            }
            let statement = heads_statement(Kind::Vote, settler.heads());
            for liar in &liars {
                let key = secret((*liar).into());
                let signature = committee.sign(&key, Kind::Vote, statement.digest);
                let signed = Some(Signed { member: *liar, signature });
                settler.answer(&Answer { statement, signed, faults: Vec::new() });
            }
            settler.settlement().is_some()
        });
        assert_eq!(certified, [true, liar_count == 2], "{liar_count} liars");
    }
}

#[test]
fn a_payee_sees_that_two_payments_contradict_each_other() {
    let (town, mut device) = town();
    let mut twin = town.device(DEVICE);
    let granted = town.log().iter().find(|record| record.certified.grant().is_some()).unwrap();
    twin.take_grant(&granted.certified).unwrap();
    let mut receiver = town.receiver(BOB);
    let (_, first) = receiver.invoice([1; 16], 10).unwrap();
    let (_, second) = receiver.invoice([2; 16], 10).unwrap();
    receiver.accept(&device.pay(&first).unwrap().payment).unwrap();
    let refused = receiver.accept(&twin.pay(&second).unwrap().payment).unwrap_err();
    let id = *device.lanes().keys().next().unwrap();
    assert_eq!(refused, Refusal::Equivocated { lane: id.0 });
}

/// A payee that is shown a certified head checks no certificate of the grant: the head's origin
/// covers it.
#[test]
fn a_certified_head_answers_for_its_own_grant_and_for_no_other() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 60);
    let settled = chain(&device);
    let finality = town.settle(vec![settled.clone()]).unwrap();
    let head = settled.end(&town.genesis.network()).unwrap();
    let path = merkle_paths(&[head.digest()]).remove(0);
    device.note_final(CertifiedHead { head, path, certificate: finality.voted }).unwrap();

    let mut receiver = town.receiver(CAROL);
    let (_, invoice) = receiver.invoice([2; 16], 30).unwrap();
    let payment = device.pay(&invoice).unwrap().payment;
    let mut refused = |alter: &dyn Fn(&mut Payment)| {
        let mut altered = payment.clone();
        alter(&mut altered);
        receiver.accept(&altered).unwrap_err()
    };
    let lane = head.lane.0;
    // More than was granted, with the head that the payer has anyway.
    let more = refused(&|payment| {
        let Operation::Request(request) = &mut payment.granted.entry.operation else { return };
        let Action::Grant(grant) = &mut request.action else { return };
        grant.allocated = 1 << 40;
    });
    assert_eq!(more, Refusal::ChainStartUnknown { lane });
    // The same, with a head that says so.
    let forged = refused(&|payment| {
        let Operation::Request(request) = &mut payment.granted.entry.operation else { return };
        let Action::Grant(grant) = &mut request.action else { return };
        grant.allocated = 1 << 40;
        let origin = grant.first_head(&town.genesis.network(), head.lane).hash;
        payment.start.as_mut().unwrap().head.origin = origin;
        payment.chain.start.origin = origin;
    });
    assert_eq!(forged, Refusal::CertificateOfSomethingElse);
    // A certificate whose signatures are of something else.
    let unsigned = refused(&|payment| {
        let start = payment.start.as_mut().unwrap();
        start.certificate.signatures = payment.granted.certificate.signatures.clone();
    });
    assert_eq!(unsigned, Refusal::SignatureWrong);
    assert_eq!(receiver.accept(&payment).unwrap().amount, 30);
}

#[test]
fn a_lane_for_one_payee_pays_no_other() {
    let (mut town, _) = town();
    let mut device = town.device(DEVICE + 1);
    let granted = town.grant_for(ALICE, device.key(), 50, Some(payee(BOB)));
    let id = lane(&granted);
    device.take_grant(&granted).unwrap();
    let (_, invoice) = town.receiver(CAROL).invoice([1; 16], 10).unwrap();
    let refused = device.pay(&invoice).unwrap_err();
    assert_eq!(refused, Refusal::NothingToSpend { amount: 10 });
    pay(&town, &mut device, BOB, 2, 10);
    assert_eq!(device.lanes()[&id].left(), 40);
}

#[test]
fn wallets_open_from_what_they_wrote_and_copies_have_no_lanes() {
    let (town, _) = town();
    let committee = town.members[0].ledger().committee.clone();
    let mut stored = std::collections::BTreeMap::new();
    let mut write = |writes: vudo_credit::Writes| {
        for (key, value) in writes {
            match value {
                Some(value) => stored.insert(key, value),
                None => stored.remove(&key),
            };
        }
    };
    let mut device = town.device(DEVICE);
    let granted = town.log().iter().find(|record| record.certified.grant().is_some()).unwrap();
    write(device.take_grant(&granted.certified).unwrap());
    let (_, invoice) = town.receiver(BOB).invoice([1; 16], 30).unwrap();
    write(device.pay(&invoice).unwrap().writes);
    // A second spend whose write is lost was never released.
    let (_, invoice) = town.receiver(CAROL).invoice([2; 16], 30).unwrap();
    let lost = device.pay(&invoice).unwrap();
    assert_eq!(lost.payment.chain.spends.len(), 2);
    let reopened = Device::open(committee.clone(), secret(DEVICE), stored.clone()).unwrap();
    assert_eq!(reopened.spendable(), 70);
    // What is written holds no key: with another the wallet has no lanes.
    let restored = Device::open(committee, secret(DEVICE + 7), stored.clone()).unwrap();
    assert_eq!((restored.spendable(), restored.lanes().len()), (0, 0));
    let seed = secret(DEVICE).seed();
    let is_in = |bytes: &Vec<u8>| bytes.windows(32).any(|window| window == seed);
    assert!(!stored.values().any(is_in));
}

#[test]
fn receivers_open_from_what_they_wrote() {
    let (town, mut device) = town();
    let committee = town.members[0].ledger().committee.clone();
    let mut receiver = town.receiver(BOB);
    let (mut writes, invoice) = receiver.invoice([1; 16], 30).unwrap();
    let payment = device.pay(&invoice).unwrap().payment;
    // As text, on its way.
    let payment = Payment::from_text(&payment.to_text()).unwrap();
    writes.extend(receiver.accept(&payment).unwrap().writes);
    let mut stored = std::collections::BTreeMap::new();
    for (key, value) in writes {
        match value {
            Some(value) => stored.insert(key, value),
            None => stored.remove(&key),
        };
    }
    let mut reopened = vudo_credit::Receiver::open(committee, payee(BOB), stored).unwrap();
    assert_eq!((reopened.incoming(), reopened.chains().len()), (30, 1));
    assert_eq!(reopened.accept(&payment).unwrap_err(), Refusal::ReceivedAlready { amount: 30 });
}

#[test]
fn a_revoked_device_gets_no_grants_and_its_payees_are_paid() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 60);
    town.request(ALICE, Action::RevokeDevice { device: device.key() });
    let entries = town.log().len();
    let terms = town.terms(ALICE, device.key(), 10, None);
    town.request(ALICE, Action::Grant(terms));
    assert_eq!(town.log().len(), entries);
    let account =
        |town: &Town| town.members[0].ledger().account(&secret(ALICE).key()).unwrap().clone();
    assert_eq!(account(&town).reserved, 100);
    town.settle(vec![chain(&device)]).unwrap();
    assert_eq!((town.posted(BOB), account(&town).reserved), (60, 40));
    for _ in 0..12 {
        town.tick();
    }
    assert_eq!((town.posted(BOB), account(&town).reserved), (60, 0));
    // A payee that has heard of it takes nothing from the device.
    let mut receiver = town.receiver(CAROL);
    let alice = secret(ALICE).key();
    receiver.note_checkpoint(0, [(secret(BOB).key(), device.key())]);
    receiver.note_checkpoint(0, [(alice, device.key())]);
    let (_, invoice) = receiver.invoice([9; 16], 5).unwrap();
    let payment = device.pay(&invoice).unwrap().payment;
    let refused = receiver.accept(&payment).unwrap_err();
    assert_eq!(refused, Refusal::DeviceBarred { device: device.key() });
}

#[test]
fn bytes_of_everything_are_canonical() {
    let (mut town, mut device) = town();
    let payment = pay(&town, &mut device, BOB, 1, 60);
    town.settle(vec![chain(&device)]).unwrap();
    for _ in 0..12 {
        town.tick();
    }
    for record in town.log() {
        let bytes = record.to_bytes();
        assert_eq!(LogRecord::from_bytes(&bytes).as_ref(), Ok(record));
        for end in 0..bytes.len() {
            assert!(LogRecord::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
    }
    assert_eq!(Genesis::from_bytes(&town.genesis.to_bytes()).as_ref(), Ok(&town.genesis));
    let spend = &payment.chain.spends[0];
    assert_eq!(spend.to_bytes().len() + 64, 204);
    assert_eq!(LaneId::from_bytes(&spend.lane.to_bytes()), Ok(spend.lane));
    let text = payment.to_text();
    let damaged = format!("{}x{}", &text[..40], &text[41..]);
    assert!(Payment::from_text(&damaged).is_err());
}
