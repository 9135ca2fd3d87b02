//! What must hold at every step, checked from outside with everything in view.

use std::collections::{BTreeMap, BTreeSet};

use vudo_credit::committee::Kind;
use vudo_credit::message::Answer;
use vudo_credit::{Chain, Digest, Head, Key, LaneId, Ledger, Member, NetworkId, Settler};

/// All that was ever signed and certified.
pub(crate) struct Oracle {
    network: NetworkId,
    /// The hash before each spend's, for every spend that any device has signed.
    previous: BTreeMap<Digest, Digest>,
    /// Which heads a list's hash stands for.
    lists: BTreeMap<Digest, Vec<Head>>,
    /// Heads with a quorum's votes, of each lane.
    certified: BTreeMap<LaneId, BTreeSet<Head>>,
    /// Heads that a quorum has processed.
    final_heads: BTreeMap<LaneId, Head>,
    /// Heads that a quorum has given receipts for, of devices that do not lie.
    deposited: BTreeMap<LaneId, BTreeSet<Head>>,
    /// Whose lanes may be spent twice.
    pub(crate) twin: Option<Key>,
    /// What each honest member has voted for.
    votes: BTreeMap<(u8, LaneId), BTreeSet<Head>>,
    /// What each honest member has signed for an index, by the entry's hash.
    entries: BTreeMap<u64, Digest>,
    /// How far each ledger has been checked.
    checked: BTreeMap<usize, u64>,
    pub(crate) violations: Vec<String>,
}

impl Oracle {
    pub(crate) fn new(network: NetworkId) -> Oracle {
        Oracle {
            network,
            previous: BTreeMap::new(),
            lists: BTreeMap::new(),
            certified: BTreeMap::new(),
            final_heads: BTreeMap::new(),
            deposited: BTreeMap::new(),
            twin: None,
            votes: BTreeMap::new(),
            entries: BTreeMap::new(),
            checked: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    fn broken(&mut self, what: String) {
        if self.violations.len() < 5 {
            self.violations.push(what);
        }
    }

    /// A device has signed a chain.
    pub(crate) fn note_chain(&mut self, chain: &Chain) {
        for spend in &chain.spends {
            self.previous.insert(spend.hash(&self.network), spend.prev_hash);
        }
    }

    /// A wallet wants lists of heads settled.
    pub(crate) fn note_lists(&mut self, settlers: &[Settler]) {
        for settler in settlers {
            self.lists.insert(settler.digest(), settler.heads().to_vec());
        }
    }

    /// Whether the chain of one head contains another.
    fn contains(&self, head: &Head, inner: &Head) -> bool {
        let mut hash = head.hash;
        for _ in inner.seq..head.seq {
            match self.previous.get(&hash) {
                Some(before) => hash = *before,
                None => return false,
            }
        }
        head.seq >= inner.seq && hash == inner.hash
    }

    fn agree(&self, left: &Head, right: &Head) -> bool {
        self.contains(left, right) || self.contains(right, left)
    }

    /// A certificate was given: of each lane, all certified heads are of one chain.
    pub(crate) fn note_certified(&mut self, heads: &[Head]) {
        for head in heads {
            let others = self.certified.entry(head.lane).or_default().clone();
            if let Some(other) = others.iter().find(|other| !self.agree(other, head)) {
                let lane = head.lane.0;
                self.broken(format!("lane {lane}: {other:?} and {head:?} are both certified"));
            }
            self.certified.entry(head.lane).or_default().insert(*head);
        }
    }

    /// A quorum has processed heads: they stay.
    pub(crate) fn note_final(&mut self, heads: &[Head]) {
        for head in heads {
            let known = self.final_heads.entry(head.lane).or_insert(*head);
            if head.seq > known.seq {
                *known = *head;
            }
        }
    }

    /// A quorum has given receipts.
    pub(crate) fn note_deposited(&mut self, heads: &[Head]) {
        for head in heads {
            self.deposited.entry(head.lane).or_default().insert(*head);
        }
    }

    /// How many heads are final.
    pub(crate) fn final_count(&self) -> u64 {
        self.final_heads.len() as u64
    }

    /// An honest member has signed something: nothing that it votes for contradicts what it voted
    /// for before, unless a certificate has decided between them. Then the other chain can get no
    /// quorum any more: of those who voted for the certified one, at least `n - 2f` are honest and
    /// keep to it, which leaves `2f`, and a quorum is more. So a member that had voted for the other
    /// chain may follow the certified one, and only there.
    pub(crate) fn note_answer(&mut self, member: u8, answer: &Answer) {
        if answer.signed.is_none() || answer.statement.kind != Kind::Vote {
            return;
        }
        let heads = self.lists.get(&answer.statement.digest).cloned().unwrap_or_default();
        for head in heads {
            let voted = self.votes.entry((member, head.lane)).or_default().clone();
            for other in voted {
                let is_decided = || {
                    let certified = self.certified.get(&head.lane).into_iter().flatten();
                    certified
                        .into_iter()
                        .any(|one| self.agree(&head, one) && !self.agree(&other, one))
                };
                if !self.agree(&head, &other) && !is_decided() {
                    let lane = head.lane.0;
                    self.broken(format!("member {member} votes twice in lane {lane}"));
                }
            }
            self.votes.entry((member, head.lane)).or_default().insert(head);
        }
    }

    /// An honest node has gone a step: its log is everybody's log, and its ledger holds.
    pub(crate) fn check_member(&mut self, node: usize, member: &Member) {
        let from = self.checked.get(&node).copied().unwrap_or(0);
        // A member that has restarted may be behind what was checked.
        let next = member.ledger().next_index();
        if from >= next {
            return;
        }
        for record in &member.log()[from as usize..] {
            let entry = &record.certified.entry;
            let hash = entry.hash(&self.network);
            let known = *self.entries.entry(entry.index).or_insert(hash);
            if known != hash {
                self.broken(format!("two logs differ at entry {}", entry.index));
            }
            let sum: i128 = record.postings.iter().map(|posting| posting.amount).sum();
            if sum != 0 {
                self.broken(format!("entry {} adds up to {sum}", entry.index));
            }
        }
        self.checked.insert(node, next);
        self.check_ledger(member.ledger());
    }

    pub(crate) fn check_ledger(&mut self, ledger: &Ledger) {
        if let Err(refusal) = ledger.check_invariants() {
            self.broken(refusal.to_string());
        }
        for (id, account) in ledger.accounts() {
            // Limits are lowered only where pledges were taken for what a twin spent.
            let is_twin = ledger
                .lanes()
                .values()
                .any(|lane| lane.grant.account == *id && Some(lane.grant.device) == self.twin);
            if account.used() > account.limit() && !is_twin {
                self.broken(format!("account {id:?} uses more than its limit"));
            }
        }
        for (id, lane) in ledger.lanes() {
            let certified = self.certified.get(id).cloned().unwrap_or_default();
            let contradiction = certified
                .iter()
                .find(|head| lane.settled.seq > 0 && !self.agree(head, &lane.settled));
            if let Some(head) = contradiction {
                let settled = lane.settled;
                self.broken(format!("{settled:?} is settled and {head:?} certified"));
            }
            let is_closed = matches!(lane.status, vudo_credit::LaneStatus::Closed { .. });
            let final_head = self.final_heads.get(id).copied();
            if let Some(head) = final_head.filter(|_| is_closed)
                && !self.contains(&lane.settled, &head)
            {
                self.broken(format!("{head:?} was final and is not settled"));
            }
            let is_honest = Some(lane.grant.device) != self.twin;
            let deposited = self.deposited.get(id).cloned().unwrap_or_default();
            let missing = deposited.iter().find(|head| !self.contains(&lane.settled, head));
            if let Some(head) = missing.filter(|_| is_closed && is_honest) {
                self.broken(format!("{head:?} was deposited and is not settled"));
            }
        }
    }
}
