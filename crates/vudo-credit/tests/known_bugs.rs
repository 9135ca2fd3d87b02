//! One test for each bug that a known prototype of this design had. `cargo xtask long --only
//! mutations` puts each back and demands that its test fails.

mod support;

use std::collections::BTreeSet;

use support::{Town, payee, secret};
use vudo_credit::committee::{Certificate, Collector, Committee, Kind, Signed, Statement};
use vudo_credit::message::Answer;
use vudo_credit::operation::{Action, Operation, Request, Settlement, heads_statement};
use vudo_credit::{Chain, Digest, Event, Head, Message, Refusal, Settler, audit};

const ALICE: u64 = 100;
const BOB: u64 = 101;
const CAROL: u64 = 102;
const DEVICE: u64 = 200;

/// A committee of four, three accounts, and a lane of Alice's device over 100 units.
fn town() -> (Town, vudo_credit::Device) {
    let mut town = Town::new(4);
    town.open_accounts(&[(ALICE, 1000), (BOB, 0), (CAROL, 0)]);
    let mut device = town.device(DEVICE);
    let granted = town.grant(ALICE, device.key(), 100);
    device.take_grant(&granted).unwrap();
    (town, device)
}

/// Pays an account from a device, and checks that the payee accepts it.
fn pay(town: &Town, device: &mut vudo_credit::Device, owner: u64, nonce: u8, amount: u64) {
    let mut receiver = town.receiver(owner);
    let (_, invoice) = receiver.invoice([nonce; 16], amount).unwrap();
    let payment = device.pay(&invoice).unwrap().payment;
    assert_eq!(receiver.accept(&payment).unwrap().amount, amount);
}

fn settle_all(town: &mut Town, device: &vudo_credit::Device) -> bool {
    let chains = device.lanes().keys().filter_map(|lane| device.chain(*lane)).collect();
    town.settle(chains).is_some()
}

fn check(town: &Town) {
    let (report, _) = audit(&town.genesis, town.log()).unwrap();
    assert_eq!(report.entry_count as usize, town.log().len());
    for member in &town.members {
        member.ledger().check_invariants().unwrap();
    }
}

/// Negative amounts.
#[test]
fn an_amount_that_wraps_around_is_no_amount() {
    let (town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 60);
    let id = *device.lanes().keys().next().unwrap();
    let grant = device.lanes()[&id].grant().clone();
    let head = *device.lanes()[&id].head();
    let minus_fifty = 50_u64.wrapping_neg();
    let refused = head.next(&grant, payee(CAROL), [2; 16], minus_fifty);
    assert_eq!(refused, Err(Refusal::AmountOutOfRange { amount: minus_fifty }));
    let refused = head.next(&grant, payee(CAROL), [2; 16], 0);
    assert_eq!(refused, Err(Refusal::AmountOutOfRange { amount: 0 }));
}

/// Votes that nobody has verified.
#[test]
fn forged_votes_settle_nothing() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 60);
    let chains = vec![device.chain(*device.lanes().keys().next().unwrap()).unwrap()];
    let network = town.genesis.network();
    let heads: Vec<Head> = vec![chains[0].spends[0].head(&network, chains[0].start.origin)];
    let statement = heads_statement(Kind::Vote, &heads);
    let forged = secret(999).sign(&statement.digest);
    let certificate = Certificate { statement, signers: 0b111, signatures: vec![forged; 3] };
    let settlement = Settlement { heads, certificate, chains: chains.clone() };
    for member in 0..4 {
        town.send(member, Message::Settle(settlement.clone()));
    }
    assert!(town.answers.is_empty());
    assert_eq!(town.posted(BOB), 0);
    // Nor does a wallet count them.
    let committee = town.members[0].ledger().committee.clone();
    let mut settler = Settler::new(committee, chains).unwrap();
    for member in 0..4 {
        let signed = Some(Signed { member, signature: forged });
        settler.answer(&Answer { statement, signed, faults: Vec::new() });
    }
    assert_eq!(settler.settlement(), None);
}

/// Votes that are counted twice.
#[test]
fn one_members_votes_are_one_vote() {
    let (town, _) = town();
    let committee = &town.members[0].ledger().committee;
    let digest = Digest::of("test", &[]);
    let mut collector = Collector::new(Kind::Vote, digest);
    let vote = committee.sign(&secret(2), Kind::Vote, digest);
    for _ in 0..4 {
        collector.add(committee, 2, vote);
    }
    assert_eq!(collector.certificate(committee), None);
}

/// A quorum of `2f + 1`.
#[test]
fn two_quorums_of_six_are_never_disjoint() {
    let keys = (0..6).map(|member| secret(member).key()).collect();
    let committee = Committee::new(Digest::default(), 0, keys).unwrap();
    let digests = [Digest::of("test/left", &[]), Digest::of("test/right", &[])];
    let certificates = digests.map(|digest| {
        let is_left = digest == digests[0];
        let mut collector = Collector::new(Kind::Vote, digest);
        // Half of the members see one thing, half the other; nobody lies.
        for member in if is_left { 0..3 } else { 3..6 } {
            let vote = committee.sign(&secret(member), Kind::Vote, digest);
            collector.add(&committee, member as usize, vote);
        }
        collector.certificate(&committee)
    });
    assert_eq!(certificates, [None, None]);
    let statement = Statement { kind: Kind::Vote, digest: digests[0] };
    let vote = |member| committee.sign(&secret(member), Kind::Vote, digests[0]);
    let three =
        Certificate { statement, signers: 0b111, signatures: vec![vote(0), vote(1), vote(2)] };
    let refused = three.verify(&committee, &statement);
    assert_eq!(refused, Err(Refusal::NoQuorum { found: 3, needed: 5 }));
}

/// A device that sets its own escrow or tier.
#[test]
fn a_device_cannot_set_its_own_limit() {
    let (mut town, device) = town();
    let account = secret(ALICE).key();
    let limit = town.members[0].ledger().account(&account).unwrap().granted_limit;
    for author in [ALICE, DEVICE, BOB] {
        town.request(author, Action::SetLimit { account, tier: 5, limit: 1_000_000 });
    }
    let account = town.members[0].ledger().account(&account).unwrap();
    assert_eq!(account.granted_limit, limit);
    // An escrow is granted by the account's owner, and only within its headroom.
    let entries = town.log().len();
    let terms = town.terms(ALICE, device.key(), 100, None);
    town.request(DEVICE, Action::Grant(terms));
    let terms = town.terms(ALICE, device.key(), 901, None);
    town.request(ALICE, Action::Grant(terms));
    assert_eq!(town.log().len(), entries);
}

/// Pending credits that are applied twice.
#[test]
fn a_certificate_is_posted_once() {
    let (mut town, mut device) = town();
    // Another lane's escrow, out of which a second posting could be taken.
    town.grant(ALICE, device.key(), 100);
    pay(&town, &mut device, BOB, 1, 60);
    assert!(settle_all(&mut town, &device));
    assert_eq!(town.posted(BOB), 60);
    let recorded =
        town.log().iter().rev().find_map(|record| match &record.certified.entry.operation {
            operation @ Operation::Record(_) => Some(operation.clone()),
            _ => None,
        });
    town.send(0, Message::Submit(Box::new(recorded.unwrap())));
    assert!(settle_all(&mut town, &device));
    assert_eq!((town.posted(BOB), town.posted(ALICE)), (60, -60));
    check(&town);
}

/// The recipient that is never credited.
#[test]
fn a_payee_is_credited_with_what_the_payer_is_debited() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 60);
    assert!(settle_all(&mut town, &device));
    assert_eq!((town.posted(BOB), town.posted(ALICE)), (60, -60));
    check(&town);
}

/// A refreshed grant that forgets what was spent.
#[test]
fn a_grant_that_comes_again_forgets_no_spend() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 60);
    let granted = town.log().iter().find(|record| record.certified.grant().is_some());
    device.take_grant(&granted.unwrap().certified).unwrap();
    assert_eq!(device.spendable(), 40);
    let (_, invoice) = town.receiver(CAROL).invoice([2; 16], 60).unwrap();
    assert_eq!(device.pay(&invoice).unwrap_err(), Refusal::NothingToSpend { amount: 60 });
    // A second lane adds to the first, and both count against the limit.
    let granted = town.grant(ALICE, device.key(), 100);
    device.take_grant(&granted).unwrap();
    assert_eq!(device.spendable(), 140);
    let account = town.members[0].ledger().account(&secret(ALICE).key()).unwrap();
    assert_eq!(account.reserved, 200);
}

/// Two offline spends of which one is lost on merge.
#[test]
fn two_offline_spends_both_arrive() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 30);
    pay(&town, &mut device, CAROL, 2, 20);
    assert!(settle_all(&mut town, &device));
    assert_eq!(town.posted(ALICE), -50);
    assert_eq!(town.posted(BOB), 30);
    assert_eq!(town.posted(CAROL), 20);
    check(&town);
}

/// Expiry by the device's own clock.
#[test]
fn deposits_end_by_the_log_and_not_by_a_clock() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 30);
    // One member's clock after another runs ahead by years; the log's ticks do not, for the
    // sequencer proposes none.
    for member in 1..4 {
        town.members[member].handle(Event::Clock(1_000_000));
    }
    assert!(settle_all(&mut town, &device));
    assert_eq!(town.posted(BOB), 30);
    assert_eq!(town.members[0].ledger().tick(), 0);
}

/// A refund below zero.
#[test]
fn closing_frees_what_was_not_spent_and_no_more() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 60);
    assert!(settle_all(&mut town, &device));
    for _ in 0..12 {
        town.tick();
    }
    let ledger = town.members[0].ledger();
    let id = *device.lanes().keys().next().unwrap();
    let status = ledger.lane(id).unwrap().status;
    assert_eq!(status, vudo_credit::LaneStatus::Closed { loss: 0 });
    let account = ledger.account(&secret(ALICE).key()).unwrap();
    assert_eq!((account.reserved, account.posted, account.headroom()), (0, -60, 940));
    check(&town);
}

/// An overdraft that is approved silently.
#[test]
fn an_overdraft_is_refused_with_a_reason() {
    let (mut town, mut device) = town();
    pay(&town, &mut device, BOB, 1, 60);
    let id = *device.lanes().keys().next().unwrap();
    let lane = device.lanes()[&id].clone();
    let refused = lane.head().next(lane.grant(), payee(CAROL), [2; 16], 41);
    assert_eq!(refused, Err(Refusal::LaneOverdrawn { lane: id.0, seq: 2 }));
    // A device that signs it all the same is refused by members.
    let mut chain = device.chain(id).unwrap();
    let mut spend = lane.head().next(lane.grant(), payee(CAROL), [2; 16], 40).unwrap();
    spend.amount = 41;
    spend.cumulative = 101;
    chain.spends.push(spend);
    let network = town.genesis.network();
    let signed = Chain::sign(&network, &secret(DEVICE), chain.start, chain.spends);
    assert!(town.settle(vec![signed]).is_none());
    assert!(settle_all(&mut town, &device));
    check(&town);
}

/// A transaction that is replayed under a new id.
#[test]
fn a_request_is_ordered_once() {
    let (mut town, device) = town();
    let terms = town.terms(ALICE, device.key(), 10, None);
    let request = town.request(ALICE, Action::Grant(terms));
    let entries = town.log().len();
    town.send(0, Message::Submit(Box::new(Operation::Request(request.clone()))));
    // Under another number the signature is wrong.
    let renumbered = Request { sequence: request.sequence + 1, ..request };
    town.send(0, Message::Submit(Box::new(Operation::Request(renumbered))));
    assert_eq!(town.log().len(), entries);
    assert_eq!(town.answers, []);
    let operations = town.log().iter().map(|record| format!("{:?}", record.certified.entry));
    assert_eq!(operations.collect::<BTreeSet<_>>().len(), entries);
}

/// The same for payments: a payee counts one once, and a spend is good for one invoice.
#[test]
fn a_payment_is_counted_once() {
    let (town, mut device) = town();
    let mut receiver = town.receiver(BOB);
    let (_, invoice) = receiver.invoice([1; 16], 30).unwrap();
    let payment = device.pay(&invoice).unwrap().payment;
    assert_eq!(receiver.accept(&payment).unwrap().amount, 30);
    assert_eq!(receiver.accept(&payment).unwrap_err(), Refusal::ReceivedAlready { amount: 30 });
    receiver.invoice([2; 16], 30).unwrap();
    assert_eq!(receiver.accept(&payment).unwrap_err(), Refusal::ReceivedAlready { amount: 30 });
    assert_eq!(receiver.incoming(), 30);
}
