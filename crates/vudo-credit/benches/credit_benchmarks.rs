//! What the ledger costs: spending, allocating, verifying, finding overdrafts, reconciling.
//!
//! Ed25519 alone runs beside it, for no payment can be verified faster than its signatures.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vudo_credit::committee::{Certificate, Kind, Statement};
use vudo_credit::keys::Batch;
use vudo_credit::operation::{
    Action, CertifiedEntry, LogRecord, Operation, Request, Settlement, heads_statement,
};
use vudo_credit::wire::Wire;
use vudo_credit::{
    Chain, DEFAULT_TIERS, Device, Digest, Effect, Event, Genesis, Grant, Head, Invoice, Key,
    LaneId, Ledger, Member, Message, Party, Payee, Receiver, Secret,
};
use vudo_state::open_storage;
use vudo_state::storage::{Storage, WriteBatch};

const OPERATOR: u64 = 1_000_000;
const DEVICE: u64 = 2_000_000;
/// How often criterion draws from ten samples anew; its default takes longer than measuring does.
const RESAMPLES: usize = 2_000;
/// Accounts that lanes are spread over.
const ACCOUNTS: u64 = 100;

fn secret(number: u64) -> Secret {
    Secret::from_seed(Digest::of("bench/secret", &[&number.to_be_bytes()]).0)
}

/// A ledger whose log is known, and all keys with it.
struct Town {
    ledger: Ledger,
    log: Vec<LogRecord>,
    member_count: u64,
}

impl Town {
    fn new(member_count: u64) -> Town {
        let mut tiers = DEFAULT_TIERS.to_vec();
        // One account has a hundred lanes at once here.
        tiers[5].limit_max = 1 << 40;
        let genesis = Genesis {
            name: "bench".to_owned(),
            members: (0..member_count).map(|member| secret(member).key()).collect(),
            sequencer: 0,
            operators: vec![secret(OPERATOR).key()],
            reserve: secret(OPERATOR + 1).key(),
            tiers,
            settle_window_ticks: 10,
        };
        Town { ledger: Ledger::new(genesis).unwrap(), log: Vec::new(), member_count }
    }

    /// Puts a request into the log.
    fn request(&mut self, author: &Secret, action: Action) {
        let network = self.ledger.committee.network;
        let sequence = self.ledger.next_sequence(&author.key());
        let request = Request::sign(&network, author, sequence, action);
        let entry = self.ledger.entry(Operation::Request(request)).unwrap();
        let digest = entry.hash(&network);
        let certificate = self.certificate(Kind::Entry, digest);
        let postings = self.ledger.apply_checked(&entry).unwrap();
        self.log.push(LogRecord { certified: CertifiedEntry { entry, certificate }, postings });
    }

    /// A quorum's signatures.
    fn certificate(&self, kind: Kind, digest: Digest) -> Certificate {
        let committee = &self.ledger.committee;
        let members = 0..committee.quorum();
        let signers = members.clone().map(|member| 1 << member).sum();
        let sign = |member| committee.sign(&secret(member as u64), kind, digest);
        let statement = Statement { kind, digest };
        Certificate { statement, signers, signatures: members.map(sign).collect() }
    }

    fn open_accounts(&mut self, count: u64) {
        for number in 0..count {
            self.request(&secret(100 + number), Action::Open);
            let account = secret(100 + number).key();
            let limit = Action::SetLimit { account, tier: 5, limit: 1 << 40 };
            self.request(&secret(OPERATOR), limit);
        }
    }

    fn terms(account: Key, allocated: u64) -> Grant {
        Grant {
            account,
            device: secret(DEVICE).key(),
            allocated,
            max_spends: 1024,
            expires: 50,
            settle_by: 60,
            epoch: 0,
            payee: None,
        }
    }

    /// Lanes, spread over accounts.
    fn grant_lanes(&mut self, count: u64) -> Vec<LaneId> {
        self.open_accounts(ACCOUNTS.min(count));
        let grant = |number| {
            let author = secret(100 + number % ACCOUNTS);
            self.request(&author, Action::Grant(Town::terms(author.key(), 1 << 20)));
            LaneId(self.ledger.next_index() - 1)
        };
        (0..count).map(grant).collect()
    }

    /// A chain of a lane; `last` tells two chains of one lane apart.
    fn chain(&self, lane: LaneId, spend_count: u32, last: u8) -> Chain {
        let network = &self.ledger.committee.network;
        let grant = &self.ledger.lane(lane).unwrap().grant;
        let start = grant.first_head(network, lane);
        let (mut head, mut spends) = (start, Vec::new());
        for number in 1..=spend_count {
            let mut nonce = [0; 16];
            nonce[..4].copy_from_slice(&number.to_be_bytes());
            nonce[4] = if number == spend_count { last } else { 0 };
            let spend = head.next(grant, payee(u64::from(number) % 50), nonce, 3).unwrap();
            head = spend.head(network, start.origin);
            spends.push(spend);
        }
        Chain::sign(network, &secret(DEVICE), start, spends)
    }

    /// A member that has applied the log.
    fn member(&self, place: u64) -> Member {
        let stored = self.log.iter().enumerate().map(|(index, record)| {
            let mut key = vec![b'l'];
            (index as u64).write(&mut key);
            (key, record.to_bytes())
        });
        Member::open(self.ledger.genesis.clone(), secret(place), stored).unwrap()
    }
}

fn payee(number: u64) -> Payee {
    Payee { account: secret(100 + number).key(), device: secret(500 + number).key() }
}

fn invoice(network: Digest, number: u64, amount: u64) -> Invoice {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    Invoice { network, payee: payee(1), nonce, amount }
}

fn message(message: Message) -> Event {
    Event::Message { from: Party::Client(0), message }
}

/// The limit: what the signatures alone cost.
fn ed25519(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ed25519");
    let digest = Digest::of("bench", &[]);
    let key = secret(1);
    let signature = key.sign(&digest);
    group.bench_function("sign", |bencher| bencher.iter(|| key.sign(black_box(&digest))));
    let public = key.key();
    group.bench_function("verify", |bencher| {
        bencher.iter(|| assert!(public.verifies(&digest, black_box(&signature))));
    });
    for count in [3, 5, 9, 11, 10_000] {
        let mut batch = Batch::default();
        for number in 0..count {
            let digest = Digest::of("bench", &[&u64::to_be_bytes(number)]);
            // As lane heads are: each of a device of its own.
            let key = secret(number);
            batch.add(key.key(), digest, key.sign(&digest));
        }
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("verify_batch", count), |bencher| {
            bencher.iter(|| assert!(batch.is_valid()));
        });
    }
    group.finish();
}

/// A device with one lane that nothing was spent from.
fn device(town: &Town) -> Device {
    let granted = &town.log.last().unwrap().certified;
    let stored = [(b"g".to_vec(), granted.to_bytes())];
    let committee = town.ledger.committee.clone();
    Device::open(committee, secret(DEVICE), stored).unwrap()
}

fn local_spend(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("local_spend");
    let mut town = Town::new(4);
    town.grant_lanes(1);
    let network = town.ledger.committee.network;
    let invoice_of_one = invoice(network, 1, 5);
    group.bench_function("prepare", |bencher| {
        bencher.iter_batched_ref(
            || device(&town),
            |device| device.pay(black_box(&invoice_of_one)).unwrap(),
            BatchSize::SmallInput,
        );
    });
    let folder = tempfile::tempdir().unwrap();
    let (storage, _) = open_storage(&folder.path().join("wallet")).unwrap();
    for concurrent in [1_u64, 8, 64] {
        group.throughput(Throughput::Elements(concurrent));
        // Each spend is prepared, then one sync of the engine's storage serves all of them.
        group.bench_function(BenchmarkId::new("durable", concurrent), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut taken = Duration::ZERO;
                for _ in 0..rounds {
                    let mut wallet = device(&town);
                    let start = Instant::now();
                    let prepared = (0..concurrent)
                        .map(|number| wallet.pay(&invoice(network, number, 5)).unwrap());
                    let batch: WriteBatch = prepared.flat_map(|one| one.writes).collect();
                    storage.commit(&batch).unwrap();
                    taken += start.elapsed();
                }
                taken
            });
        });
    }
    group.finish();
}

fn escrow_allocation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("escrow_allocation");
    let mut town = Town::new(4);
    town.open_accounts(2);
    let owner = secret(100);
    let network = town.ledger.committee.network;
    let sequence = town.ledger.next_sequence(&owner.key());
    let action = Action::Grant(Town::terms(owner.key(), 1000));
    group.bench_function("request", |bencher| {
        bencher.iter(|| Request::sign(&network, &owner, sequence, action.clone()));
    });
    let request = Request::sign(&network, &owner, sequence, action.clone());
    let operation = Operation::Request(request);
    group.bench_function("check", |bencher| {
        bencher.iter(|| town.ledger.plan(black_box(&operation)).unwrap().postings());
    });
    town.request(&owner, action);
    let granted = town.log.last().unwrap().certified.clone();
    group.bench_function("verify_grant", |bencher| {
        bencher.iter(|| granted.verify(&town.ledger.committee).unwrap());
    });
    group.finish();
}

/// A payee that has never met the payer: grant, certificate of the last head, and the chain since.
fn offline_verification(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("offline_verification");
    let mut town = Town::new(7);
    town.grant_lanes(1);
    let committee = town.ledger.committee.clone();
    let network = committee.network;
    for spends in [1_u64, 8, 64] {
        let mut wallet = device(&town);
        wallet.pay(&invoice(network, 0, 5)).unwrap();
        let lane = *wallet.lanes().keys().next().unwrap();
        let head = *wallet.lanes()[&lane].head();
        let statement = heads_statement(Kind::Vote, &[head]);
        let certificate = town.certificate(Kind::Vote, statement.digest);
        let path = vudo_credit::committee::merkle_paths(&[head.digest()]).remove(0);
        let certified = vudo_credit::operation::CertifiedHead { head, path, certificate };
        wallet.note_final(certified).unwrap();
        let paid = (1..=spends).map(|number| wallet.pay(&invoice(network, number, 5)).unwrap());
        let payment = paid.last().unwrap().payment;
        let last = invoice(network, spends, 5);
        group.bench_function(BenchmarkId::new("spends", spends), |bencher| {
            bencher.iter_batched_ref(
                || {
                    let mut receiver = Receiver::open(committee.clone(), payee(1), []).unwrap();
                    receiver.invoice(last.nonce, 5).unwrap();
                    receiver
                },
                |receiver| assert_eq!(receiver.accept(&payment).unwrap().amount, 5),
                BatchSize::SmallInput,
            );
        });
    }
    // A payer that comes again from the same lane: grant and certificate are known.
    let mut wallet = device(&town);
    let mut receiver = Receiver::open(committee.clone(), payee(1), []).unwrap();
    let (_, first) = receiver.invoice([1; 16], 5).unwrap();
    let payment = wallet.pay(&first).unwrap().payment;
    let stored = receiver.accept(&payment).unwrap().writes;
    let stored: Vec<_> =
        stored.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    for number in 1..8 {
        wallet.pay(&invoice(network, number, 5)).unwrap();
    }
    let last = invoice(network, 8, 5);
    let payment = wallet.pay(&last).unwrap().payment;
    group.bench_function(BenchmarkId::new("known_payer_spends", 8), |bencher| {
        bencher.iter_batched_ref(
            || {
                let opened = Receiver::open(committee.clone(), payee(1), stored.clone());
                let mut receiver = opened.unwrap();
                receiver.invoice(last.nonce, 5).unwrap();
                receiver
            },
            |receiver| assert_eq!(receiver.accept(&payment).unwrap().amount, 5),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Two payees' chains of the same lanes meet at a member: every lane was spent twice.
fn overdraft_detection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("overdraft_detection");
    for transactions in [10_u32, 100, 1_000, 100_000] {
        let spends_of_lane = transactions.min(100);
        let mut town = Town::new(4);
        let lanes = town.grant_lanes(u64::from(transactions / spends_of_lane));
        let chains = |last| -> Vec<Chain> {
            lanes.iter().map(|lane| town.chain(*lane, spends_of_lane, last)).collect()
        };
        let mut member = town.member(1);
        member.handle(message(Message::Deposit(chains(1))));
        let second = Message::Deposit(chains(2));
        group.throughput(Throughput::Elements(transactions.into()));
        group.bench_function(BenchmarkId::new("transactions", transactions), |bencher| {
            bencher.iter(|| {
                let effects = member.handle(message(second.clone()));
                assert_eq!(conflicts(&effects), lanes.len());
            });
        });
    }
    group.finish();
}

/// How many lanes a member refuses to vote for.
fn conflicts(effects: &[Effect]) -> usize {
    let faults = effects.iter().filter_map(|effect| match effect {
        Effect::Send { message: Message::Answer(answer), .. } => Some(answer.faults.len()),
        _ => None,
    });
    faults.sum()
}

/// What one member does to reconcile lane heads of ten spends each: checks and stores the chains,
/// votes, processes the certificate, and applies the entry that posts them.
fn bft_reconciliation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bft_reconciliation");
    for (member_count, head_count) in
        [(4, 1_000), (7, 1_000), (10, 1_000), (13, 1_000), (7, 10_000_u64)]
    {
        let mut town = Town::new(member_count);
        let lanes = town.grant_lanes(head_count);
        let chains: Vec<Chain> = lanes.iter().map(|lane| town.chain(*lane, 10, 1)).collect();
        let network = town.ledger.committee.network;
        let heads: Vec<Head> = chains.iter().map(|chain| chain.end(&network).unwrap()).collect();
        let Statement { digest, .. } = heads_statement(Kind::Vote, &heads);
        let certificate = town.certificate(Kind::Vote, digest);
        let settlement = Settlement { heads, certificate, chains: chains.clone() };
        let entry = town.ledger.entry(Operation::Record(settlement.clone())).unwrap();
        let entry_certificate = town.certificate(Kind::Entry, entry.hash(&network));
        let committed = CertifiedEntry { entry, certificate: entry_certificate };
        group.throughput(Throughput::Elements(head_count * 10));
        let name = format!("{member_count}_members");
        group.bench_function(BenchmarkId::new(name, head_count * 10), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut taken = Duration::ZERO;
                for _ in 0..rounds {
                    let mut member = town.member(town.member_count - 1);
                    let events = [
                        message(Message::Deposit(chains.clone())),
                        message(Message::Settle(settlement.clone())),
                        message(Message::Committed(Box::new(committed.clone()))),
                    ];
                    let start = Instant::now();
                    for event in events {
                        black_box(member.handle(event));
                    }
                    taken += start.elapsed();
                    assert!(member.ledger().account(&payee(1).account).unwrap().posted != 0);
                }
                taken
            });
        });
    }
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .nresamples(RESAMPLES)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
}

criterion_group! {
    name = benches;
    config = quick();
    targets = ed25519, local_spend, escrow_allocation, offline_verification, overdraft_detection,
        bft_reconciliation
}
criterion_main!(benches);
