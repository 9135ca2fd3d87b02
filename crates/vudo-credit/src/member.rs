//! A member of the committee: a state machine that checks, votes, processes and orders.
//!
//! ```text
//!   Deposit --> on disk --> Receipt, Vote --> certificate --> Settle --> on disk --> Processed
//!                                                                \--> log: Record --> postings
//!   log: Tick past settle_by --> CloseIntent --> Report --> a quorum --> log: Close
//! ```
//!
//! Every effect list begins with one write; nothing is sent before it is on disk, so a member that
//! crashes never contradicts itself. Clocks only hold back ticks; nothing is decided by them.

use std::collections::{BTreeMap, BTreeSet};

use crate::book::{Book, Stored, Whole};
use crate::committee::{Committee, Kind, Signed, Statement, merkle_paths};
use crate::error::Refusal;
use crate::genesis::Genesis;
use crate::keys::{Batch, Digest, Secret};
use crate::ledger::{Lane, LaneStatus, Ledger};
use crate::limits::{SENT_RECORDS_MAX, SETTLEMENT_HEADS_MAX};
use crate::message::{Answer, Effect, Fault, FaultReason, Message, Outbox, Party};
use crate::operation::{
    CertifiedEntry, CertifiedHead, Entry, LogRecord, Operation, Report, Settlement, heads_statement,
};
use crate::order::{OrderContext, SIGNED_ENTRY_KEY, Sequencer, TotalOrder};
use crate::spend::{Chain, Equivocation, Head, LaneId};
use crate::wire::Wire;

/// What happens to a member.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message came in.
    Message {
        /// Where an answer goes.
        from: Party,
        /// What it says.
        message: Message,
    },
    /// The member's own clock, in ticks.
    Clock(u64),
    /// Time to send again what may have been lost.
    Retry,
}

/// A member of the committee.
pub struct Member<O = Sequencer> {
    secret: Secret,
    member: u8,
    clock: u64,
    ledger: Ledger,
    log: Vec<LogRecord>,
    order: O,
    books: BTreeMap<LaneId, Book>,
    /// Certificates whose heads are not all posted yet, by the hash of the list.
    unrecorded: BTreeMap<Digest, Settlement>,
    /// Where the entries begin that this member has asked for since it last tried again.
    wanted_from: Option<u64>,
    /// What members reported on lanes that are being closed; only at the sequencer.
    reports: BTreeMap<LaneId, BTreeMap<u8, Report>>,
}

const LOG_KEY: u8 = b'l';
const BOOK_KEY: u8 = b'b';
const UNRECORDED_KEY: u8 = b'u';

fn numbered(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    number.write(&mut key);
    key
}

fn unrecorded_key(root: &Digest) -> Vec<u8> {
    let mut key = vec![UNRECORDED_KEY];
    root.write(&mut key);
    key
}

impl Member<Sequencer> {
    /// A member as it was when it last wrote, from all that it ever wrote, in the order of the
    /// keys. Without any it is a new one.
    ///
    /// # Errors
    /// The key is no member's, or what was written has been altered.
    pub fn open(
        genesis: Genesis,
        secret: Secret,
        stored: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Member, Refusal> {
        let mut ledger = Ledger::new(genesis)?;
        let author = secret.key();
        let needed = "a key of the committee";
        let place = ledger.committee.index_of(&author);
        let member = place.ok_or(Refusal::NotAuthorised { author, needed })? as u8;
        let mut log = Vec::new();
        let mut signed = None;
        let mut books = Vec::new();
        let mut unrecorded = BTreeMap::new();
        for (key, value) in stored {
            match key.first() {
                Some(&LOG_KEY) => {
                    let record = LogRecord::from_bytes(&value)?;
                    ledger.replay(&record)?;
                    log.push(record);
                }
                Some(&BOOK_KEY) => books.push((u64::from_bytes(&key[1..])?, value)),
                Some(&UNRECORDED_KEY) => {
                    unrecorded
                        .insert(Digest::from_bytes(&key[1..])?, Settlement::from_bytes(&value)?);
                }
                _ if key == SIGNED_ENTRY_KEY => signed = Some(Entry::from_bytes(&value)?),
                _ => {}
            }
        }
        let network = ledger.committee.network;
        let books = books.into_iter().map(|(number, bytes)| {
            let id = LaneId(number);
            Ok((id, Book::restore(&network, ledger.lane(id)?, &bytes)?))
        });
        let books = books.collect::<Result<BTreeMap<_, _>, Refusal>>()?;
        let order = Sequencer::restore(signed);
        let (clock, wanted_from, reports) = (0, None, BTreeMap::new());
        Ok(Member {
            secret,
            member,
            clock,
            ledger,
            log,
            order,
            books,
            unrecorded,
            wanted_from,
            reports,
        })
    }
}

impl<O: TotalOrder> Member<O> {
    /// The state after all entries that this member has applied.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// All entries that this member has applied.
    pub fn log(&self) -> &[LogRecord] {
        &self.log
    }

    /// The member's place in the committee.
    pub fn place(&self) -> u8 {
        self.member
    }

    /// The highest head of a lane that this member has processed a certificate of.
    pub fn certified(&self, lane: LaneId) -> Option<&CertifiedHead> {
        self.books.get(&lane)?.certified()
    }

    /// What happens next. The first effect is the write that the others wait for.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Outbox::default();
        match event {
            Event::Message { from, message } => self.message(from, message, &mut out),
            Event::Clock(tick) => self.clock = self.clock.max(tick),
            Event::Retry => self.retry(&mut out),
        }
        self.feed_order(&mut out);
        out.into_effects()
    }

    fn message(&mut self, from: Party, message: Message, out: &mut Outbox) {
        match message {
            Message::Submit(operation) => self.submit(*operation, out),
            Message::Deposit(chains) => self.deposit(from, &chains, out),
            Message::Answer(answer) => {
                let (order, context) = self.order_and_context();
                let committed = order.answer(&context, &answer);
                self.commit_all(committed, out);
            }
            Message::Settle(settlement) => self.settle(from, settlement, out),
            Message::Propose { entry, signature } => {
                let (order, context) = self.order_and_context();
                order.propose(&context, *entry, signature, out);
            }
            Message::Committed(entry) => self.committed(from, *entry, out),
            Message::Want { from: index } => self.send_records(from, index, out),
            Message::Report(report) => self.report(*report),
            Message::LogLength { entries } => {
                if entries > self.ledger.next_index() {
                    self.want(from, out);
                }
            }
        }
    }

    fn order_and_context(&mut self) -> (&mut O, OrderContext<'_>) {
        let context = OrderContext {
            ledger: &self.ledger,
            secret: &self.secret,
            member: self.member,
            clock: self.clock,
        };
        (&mut self.order, context)
    }

    fn committee(&self) -> &Committee {
        &self.ledger.committee
    }

    fn sequencer(&self) -> Party {
        Party::Member(self.ledger.genesis.sequencer)
    }

    fn submit(&mut self, operation: Operation, out: &mut Outbox) {
        let (order, context) = self.order_and_context();
        let committed = order.submit(&context, operation, out);
        self.commit_all(committed, out);
    }

    fn answer(&self, to: Party, statement: Statement, faults: Vec<Fault>, out: &mut Outbox) {
        let is_signed = faults.is_empty();
        let signed = is_signed.then(|| {
            let signature = self.committee().sign(&self.secret, statement.kind, statement.digest);
            Signed { member: self.member, signature }
        });
        out.send(to, Message::Answer(Answer { statement, signed, faults }));
    }

    /// Stores chains, and answers with a receipt for all of them and a vote for all of them, or
    /// with what stands against it.
    fn deposit(&mut self, from: Party, chains: &[Chain], out: &mut Outbox) {
        let network = self.committee().network;
        let is_bounded = (1..=SETTLEMENT_HEADS_MAX).contains(&chains.len());
        let ends = chains.iter().map(|chain| chain.end(&network));
        let Some(heads) = ends.collect::<Option<Vec<Head>>>().filter(|_| is_bounded) else {
            return;
        };
        let inspected = self.inspect(chains);
        let (mut receipt_faults, mut vote_faults) = (Vec::new(), Vec::new());
        let mut lanes = BTreeSet::new();
        for (chain, inspected) in chains.iter().zip(inspected) {
            let id = chain.start.lane;
            let is_new = lanes.insert(id);
            let stored = match inspected {
                Ok(whole) if is_new => self.store(id, whole, out),
                Ok(_) => Err(Refusal::ChainBroken { lane: id.0, seq: chain.start.seq }),
                Err(refusal) => Err(refusal),
            };
            match stored {
                Ok(Stored::Known | Stored::Grown) => {}
                Ok(Stored::Beside) => {
                    vote_faults.push(Fault { lane: id, reason: FaultReason::Conflict });
                    self.submit_conflict(id, out);
                }
                Err(refusal) => {
                    let fault = Fault { lane: id, reason: reason(&refusal) };
                    receipt_faults.push(fault);
                    vote_faults.push(fault);
                }
            }
        }
        let receipt = heads_statement(Kind::Receipt, &heads);
        let vote = Statement { kind: Kind::Vote, digest: receipt.digest };
        self.answer(from, receipt, receipt_faults, out);
        self.answer(from, vote, vote_faults, out);
    }

    /// Checks chains and, together, the signatures of those that this member does not know.
    fn inspect(&self, chains: &[Chain]) -> Vec<Result<Whole, Refusal>> {
        let network = self.committee().network;
        let mut batch = Batch::default();
        let mut inspected: Vec<Result<Whole, Refusal>> = Vec::with_capacity(chains.len());
        for chain in chains {
            let whole = self.open_lane(chain.start.lane).and_then(|lane| {
                let new = || Book::new(&network, lane);
                let book = self.books.get(&chain.start.lane);
                let whole = match book {
                    Some(book) => book.whole(&network, lane, chain),
                    None => new().whole(&network, lane, chain),
                }?;
                if !book.is_some_and(|book| book.contains(&whole.head())) {
                    batch.add(lane.grant.device, whole.head().hash, chain.signature);
                }
                Ok(whole)
            });
            inspected.push(whole);
        }
        if !batch.is_valid() {
            // Somebody's signature is wrong; each is now checked alone.
            for (chain, inspected) in chains.iter().zip(&mut inspected) {
                let Ok(whole) = inspected else { continue };
                let device = self.ledger.lanes()[&chain.start.lane].grant.device;
                if !device.verifies(&whole.head().hash, &chain.signature) {
                    *inspected = Err(Refusal::SignatureWrong);
                }
            }
        }
        inspected
    }

    /// A lane that takes deposits and certificates.
    fn open_lane(&self, id: LaneId) -> Result<&Lane, Refusal> {
        let lane = self.ledger.lane(id)?;
        let is_late =
            cfg!(vudo_mutation = "expiry_by_own_clock") && self.clock > lane.grant.settle_by;
        if lane.status != LaneStatus::Open || is_late {
            return Err(Refusal::LaneClosed { lane: id.0 });
        }
        Ok(lane)
    }

    fn book(&mut self, id: LaneId) -> Result<&mut Book, Refusal> {
        let lane = self.ledger.lane(id)?;
        let network = &self.ledger.committee.network;
        Ok(self.books.entry(id).or_insert_with(|| Book::new(network, lane)))
    }

    fn store(&mut self, id: LaneId, whole: Whole, out: &mut Outbox) -> Result<Stored, Refusal> {
        let book = self.book(id)?;
        let stored = book.store(whole)?;
        if stored != Stored::Known {
            out.put(numbered(BOOK_KEY, id.0), book.to_bytes());
        }
        Ok(stored)
    }

    /// Has it put on record that a device has lied.
    fn submit_conflict(&mut self, lane: LaneId, out: &mut Outbox) {
        let is_known = self.ledger.lanes().get(&lane).is_none_or(|lane| lane.has_equivocated);
        let conflict = self.books.get(&lane).and_then(Book::conflict);
        if let Some((first, second)) = conflict.filter(|_| !is_known) {
            let proof = Box::new(Equivocation { first, second });
            self.submit(Operation::Equivocation { lane, proof }, out);
        }
    }

    /// Processes certified heads and says so; the ledger's postings follow through the log.
    fn settle(&mut self, from: Party, mut settlement: Settlement, out: &mut Outbox) {
        let statement = heads_statement(Kind::Vote, &settlement.heads);
        self.drop_known_chains(&mut settlement);
        let Ok(led) = settlement.verify(&self.ledger) else { return };
        let chains: BTreeMap<LaneId, &Chain> =
            led.into_iter().map(|(chain, head)| (head.lane, chain)).collect();
        let mut faults = Vec::new();
        for head in &settlement.heads {
            if let Err(refusal) = self.can_certify(head, &chains) {
                faults.push(Fault { lane: head.lane, reason: reason(&refusal) });
            }
        }
        let processed = Statement { kind: Kind::Processed, digest: statement.digest };
        if faults.is_empty() {
            self.certify(&settlement, &chains, out);
            let is_posted = |head: &Head| self.ledger.lanes()[&head.lane].settled.seq >= head.seq;
            if !settlement.heads.iter().all(is_posted) {
                settlement.chains.clear();
                out.put(unrecorded_key(&statement.digest), settlement.to_bytes());
                self.unrecorded.insert(statement.digest, settlement);
            }
        }
        self.answer(from, processed, faults, out);
    }

    /// Drops the chains to heads that this member has: they say nothing new, and hashing them again
    /// takes as long as it did when they were deposited.
    fn drop_known_chains(&self, settlement: &mut Settlement) {
        let is_known =
            |head: &&Head| self.books.get(&head.lane).is_some_and(|book| book.contains(head));
        let known: BTreeSet<LaneId> =
            settlement.heads.iter().filter(is_known).map(|head| head.lane).collect();
        settlement.chains.retain(|chain| !known.contains(&chain.start.lane));
    }

    fn can_certify(&self, head: &Head, chains: &BTreeMap<LaneId, &Chain>) -> Result<(), Refusal> {
        let lane = self.open_lane(head.lane)?;
        let new;
        let book = match self.books.get(&head.lane) {
            Some(book) => book,
            None => {
                new = Book::new(&self.committee().network, lane);
                &new
            }
        };
        let is_led = chains.get(&head.lane).is_some_and(|chain| book.contains(&chain.start));
        if book.contains(head) || is_led {
            return Ok(());
        }
        Err(Refusal::ChainStartUnknown { lane: head.lane.0 })
    }

    /// Takes certified heads into the books, as far as this member can follow them.
    fn certify(
        &mut self,
        settlement: &Settlement,
        chains: &BTreeMap<LaneId, &Chain>,
        out: &mut Outbox,
    ) {
        // Members have processed most certificates before the log brings them.
        let is_processed = |head: &Head| {
            let book = self.books.get(&head.lane);
            book.is_some_and(|book| book.certified_seq() >= head.seq)
        };
        if settlement.heads.iter().all(is_processed) {
            return;
        }
        let leaves: Vec<Digest> = settlement.heads.iter().map(Head::digest).collect();
        let network = self.committee().network;
        for (head, path) in settlement.heads.iter().zip(merkle_paths(&leaves)) {
            let certificate = settlement.certificate.clone();
            let certified = CertifiedHead { head: *head, path, certificate };
            let Ok(lane) = self.ledger.lane(head.lane).cloned() else { continue };
            let Ok(book) = self.book(head.lane) else { continue };
            let chain = chains.get(&head.lane).filter(|_| !book.contains(head));
            let whole = chain.and_then(|chain| book.whole(&network, &lane, chain).ok());
            if book.certify(certified, whole).is_ok() {
                let bytes = book.to_bytes();
                out.put(numbered(BOOK_KEY, head.lane.0), bytes);
            }
        }
    }

    /// Applies a committed entry, or asks for those before it.
    fn committed(&mut self, from: Party, entry: CertifiedEntry, out: &mut Outbox) {
        let next = self.ledger.next_index();
        if entry.entry.index == next && entry.verify(self.committee()).is_ok() {
            self.commit_all(Some(entry), out);
        } else if entry.entry.index > next {
            self.want(from, out);
        }
    }

    /// Asks for the entries that follow. Once only: where entries arrive out of order, each would
    /// else bring all of them.
    fn want(&mut self, from: Party, out: &mut Outbox) {
        let next = self.ledger.next_index();
        if self.wanted_from != Some(next) {
            self.wanted_from = Some(next);
            out.send(from, Message::Want { from: next });
        }
    }

    /// Applies entries until the order has none.
    fn commit_all(&mut self, mut committed: Option<CertifiedEntry>, out: &mut Outbox) {
        while let Some(entry) = committed {
            if !self.commit(entry, out) {
                return;
            }
            let (order, context) = self.order_and_context();
            committed = order.advance(&context, out);
        }
    }

    /// Applies one entry. An entry with a certificate that the ledger refuses means that more
    /// members lie than may; then this member stands still.
    fn commit(&mut self, certified: CertifiedEntry, out: &mut Outbox) -> bool {
        // What this member has signed it has checked, against the ledger as it still is.
        let applied = match self.order.has_checked(&certified.entry) {
            true => self.ledger.apply_checked(&certified.entry),
            false => {
                // What this member votes for it has hashed before.
                let books = &self.books;
                let known_end = |chain: &Chain| books.get(&chain.start.lane)?.end_of(chain);
                self.ledger.apply_following(&certified, &known_end)
            }
        };
        let Ok(postings) = applied else { return false };
        let index = certified.entry.index;
        let record = LogRecord { certified, postings };
        out.put(numbered(LOG_KEY, index), record.to_bytes());
        if self.sequencer() == Party::Member(self.member) {
            for member in 0..self.committee().members().len() as u8 {
                if member != self.member {
                    let entry = Box::new(record.certified.clone());
                    out.send(Party::Member(member), Message::Committed(entry));
                }
            }
        }
        match &record.certified.entry.operation {
            Operation::Record(settlement) => {
                let chains = settlement.chains.iter().map(|chain| (chain.start.lane, chain));
                self.certify(settlement, &chains.collect(), out);
                self.forget_recorded(out);
            }
            Operation::CloseIntent { lane } => self.send_report(*lane, out),
            Operation::Close { lane, .. } => {
                self.books.remove(lane);
                self.reports.remove(lane);
                out.writes.push((numbered(BOOK_KEY, lane.0), None));
                self.forget_recorded(out);
            }
            _ => {}
        }
        self.log.push(record);
        true
    }

    /// Drops certificates of which all heads are posted, or whose lanes are closed.
    fn forget_recorded(&mut self, out: &mut Outbox) {
        let lanes = self.ledger.lanes();
        let is_open = |head: &Head| {
            lanes.get(&head.lane).is_some_and(|lane| {
                !matches!(lane.status, LaneStatus::Closed { .. }) && lane.settled.seq < head.seq
            })
        };
        self.unrecorded.retain(|root, settlement| {
            let is_needed = settlement.heads.iter().any(is_open);
            if !is_needed {
                out.writes.push((unrecorded_key(root), None));
            }
            is_needed
        });
    }

    fn send_records(&self, to: Party, from: u64, out: &mut Outbox) {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        for record in self.log.iter().skip(from).take(SENT_RECORDS_MAX) {
            out.send(to, Message::Committed(Box::new(record.certified.clone())));
        }
        out.send(to, Message::LogLength { entries: self.ledger.next_index() });
    }

    /// Tells the sequencer what this member holds of a lane that is being closed. From now on the
    /// member neither votes for it nor processes certificates of it.
    fn send_report(&mut self, id: LaneId, out: &mut Outbox) {
        let Ok(lane) = self.ledger.lane(id) else { return };
        let LaneStatus::Closing { intent } = lane.status else { return };
        let book = self.books.get(&id);
        let mut report = Report {
            member: self.member,
            lane: id,
            intent,
            certified: book.and_then(Book::certified).cloned(),
            chains: book.map(Book::chains).unwrap_or_default(),
            signature: crate::keys::Signature([0; 64]),
        };
        report.signature = self.committee().sign(&self.secret, Kind::Report, report.digest());
        if self.sequencer() == Party::Member(self.member) {
            self.report(report);
        } else {
            out.send(self.sequencer(), Message::Report(Box::new(report)));
        }
    }

    /// Keeps a member's report for the decision.
    fn report(&mut self, report: Report) {
        let leads = self.sequencer() == Party::Member(self.member);
        if leads && report.verify(&self.ledger).is_ok() {
            self.reports.entry(report.lane).or_default().insert(report.member, report);
        }
    }

    /// Gives the order the committee's own work, where it waits for some: decisions first, so that
    /// no flood of requests holds them up.
    fn feed_order(&mut self, out: &mut Outbox) {
        // Each round orders something or ends; a committee of one orders everything at once.
        while let Some(operation) = self.next_operation() {
            let before = self.ledger.next_index();
            self.submit(operation, out);
            if self.ledger.next_index() == before {
                return;
            }
        }
        let (order, context) = self.order_and_context();
        let committed = order.advance(&context, out);
        self.commit_all(committed, out);
    }

    fn next_operation(&mut self) -> Option<Operation> {
        let (order, context) = self.order_and_context();
        if !order.is_idle(&context) {
            return None;
        }
        let quorum = self.committee().quorum();
        let decided = self.reports.iter().find(|(_, reports)| reports.len() >= quorum);
        if let Some((lane, reports)) = decided {
            let reports = reports.values().cloned().collect();
            return Some(Operation::Close { lane: *lane, reports });
        }
        if let Some(settlement) = self.unrecorded.values().find_map(|one| self.record(one)) {
            return Some(Operation::Record(settlement));
        }
        if let Some(lane) = self.ledger.lanes_to_close().next() {
            return Some(Operation::CloseIntent { lane });
        }
        let tick = self.ledger.tick() + 1;
        (self.clock >= tick).then_some(Operation::Tick { tick })
    }

    /// A settlement with the spends that have not been posted, where there are any.
    fn record(&self, settlement: &Settlement) -> Option<Settlement> {
        let chains: Vec<Chain> = settlement
            .heads
            .iter()
            .filter_map(|head| {
                let lane = self.ledger.lanes().get(&head.lane)?;
                let is_closed = matches!(lane.status, LaneStatus::Closed { .. });
                if is_closed || lane.settled.seq >= head.seq {
                    return None;
                }
                self.books.get(&head.lane)?.between(lane.settled, head)
            })
            .collect();
        (!chains.is_empty()).then(|| Settlement { chains, ..settlement.clone() })
    }

    /// Sends again what may have been lost, and asks for what may have been missed.
    fn retry(&mut self, out: &mut Outbox) {
        self.wanted_from = None;
        let (order, context) = self.order_and_context();
        order.retry(&context, out);
        if self.sequencer() != Party::Member(self.member) {
            let from = self.ledger.next_index();
            out.send(self.sequencer(), Message::Want { from });
            for settlement in self.unrecorded.values() {
                if let Some(settlement) = self.record(settlement) {
                    out.send(self.sequencer(), Message::Settle(settlement));
                }
            }
        }
        let lanes: Vec<LaneId> = self.books.keys().copied().collect();
        for lane in lanes {
            self.submit_conflict(lane, out);
        }
        let closing: Vec<LaneId> = self
            .ledger
            .lanes()
            .iter()
            .filter(|(_, lane)| matches!(lane.status, LaneStatus::Closing { .. }))
            .map(|(id, _)| *id)
            .collect();
        for lane in closing {
            self.send_report(lane, out);
        }
    }
}

fn reason(refusal: &Refusal) -> FaultReason {
    match refusal {
        Refusal::NoSuchLane { .. } => FaultReason::LaneUnknown,
        Refusal::ChainStartUnknown { .. } => FaultReason::StartUnknown,
        Refusal::LaneClosed { .. } => FaultReason::Closed,
        Refusal::Equivocated { .. } => FaultReason::Conflict,
        _ => FaultReason::Wrong,
    }
}
