//! Effective or set aside: what the records of a namespace say about its changes.
//!
//! ```text
//! owner --grant--> person --grant, where it can delegate--> person --certificate--> replica
//!   |                                                                                  |
//!   +-- every link covers the document, no cut on the way is below the number --> change
//! ```
//!
//! **The idea.** A change is in effect where for each of its documents a chain of records leads from
//! an owner to the replica that wrote it. A document is covered by a chain where every grant in it
//! covers the document, so a chain can only narrow. A revocation is a cut: what acts through the
//! revoked key is covered up to the numbers that the revocation names, and no further.
//!
//! **The invariant.** All of it is a function of the records held, and of which changes carry them:
//! there is no clock and no order of arrival in it. A record counts whatever becomes of the change
//! that carries it, for it is signed by itself; so nothing here depends on its own result.
//!
//! Who may revoke: owners everybody but owners that come before them, and anybody what they have
//! granted or certified, and themselves. The revocations of an owner's key that an earlier owner has
//! revoked count where a change carries them that the cut accepts, so that a thief of the key cannot
//! cut off the others afterwards; so do those of other keys that an owner has revoked. What is revoked
//! where no grant and no certificate leads cuts nothing before one does.
//!
//! What owners have judged for good comes before all of this: see [`super::checkpoint`].

use std::collections::{BTreeMap, BTreeSet};

use vudo_crdt::wire::{MalformedFrame, Reader, write_bytes, write_varint};
use vudo_crdt::{Change, DocumentWrite, GenIndex, ReplicaKey, VersionVector};

use super::checkpoint::Judgements;
use super::record::{
    CheckpointRecord, Founding, Grant, PublicKey, RIGHTS_GEN, Record, RecordId, Revocation, Scope,
    SignedRecord, carried, document_key, founding_hash, hash_of,
};

/// The last accepted numbers of a key's replicas. Those that it does not name have none.
#[derive(Clone, Debug, Default, PartialEq)]
struct Cut(BTreeMap<PublicKey, u64>);

impl Cut {
    fn of(vector: &VersionVector) -> Cut {
        Cut(vector.iter().collect())
    }

    fn last_accepted(&self, replica: &PublicKey) -> u64 {
        self.0.get(replica).copied().unwrap_or(0)
    }

    /// Takes the stricter of two for each replica.
    fn narrow(&mut self, other: &Cut) {
        self.0.retain(|replica, number| {
            *number = (*number).min(other.last_accepted(replica));
            *number > 0
        });
    }
}

/// A key and the cut on it, or on the way to it from another.
type Cuts<K> = BTreeMap<K, Cut>;

fn narrow<K: Ord>(cuts: &mut Cuts<K>, key: K, by: Cut) {
    match cuts.get_mut(&key) {
        Some(cut) => cut.narrow(&by),
        None => {
            cuts.insert(key, by);
        }
    }
}

fn accepts<K: Ord>(cuts: &Cuts<K>, key: &K, replica: &PublicKey, number: u64) -> bool {
    let cut = cuts.get(key);
    cut.is_none_or(|cut| number <= cut.last_accepted(replica))
        || cfg!(vudo_mutation = "cut_ignored")
}

/// A record that is held, and who carries it.
#[derive(Clone, Debug)]
struct Held {
    record: SignedRecord,
    /// By replica: the number of its first change with the record.
    carriers: BTreeMap<PublicKey, u64>,
}

/// A way to a key from another one.
#[derive(Clone, Debug, PartialEq)]
struct Link {
    issuer: PublicKey,
    /// `None` for a certificate.
    grant: Option<Grant>,
}

/// What a key has to be allowed to on a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// It writes.
    Writes,
    /// It certifies the replica that writes.
    Certifies,
    /// It has granted.
    Grants,
}

/// What is asked of a chain.
#[derive(Clone, Copy)]
enum Question<'a> {
    /// Whether a replica's change of this number may write to a document.
    Write { replica: &'a PublicKey, number: u64, gen_name: &'a [u8], key: &'a [u8] },
    /// Whether a replica's change of this number may write to any document.
    WriteAnything { replica: &'a PublicKey, number: u64 },
    /// Whether who has nothing accepted yet may write to all that a scope covers.
    WriteScope { scope: &'a Scope },
    /// Whether the namespace may be read at this time.
    Read { now_milliseconds: u64 },
}

impl Question<'_> {
    fn is_covered_by(&self, grant: &Grant) -> bool {
        match self {
            Question::Write { gen_name, key, .. } => {
                grant.scopes.iter().any(|scope| scope.covers(gen_name, key))
                    || cfg!(vudo_mutation = "grant_not_checked")
            }
            Question::WriteAnything { .. } => grant.scopes.iter().any(Scope::is_everything),
            Question::WriteScope { scope } => grant.scopes.iter().any(|own| own.includes(scope)),
            Question::Read { now_milliseconds } => {
                grant.expires_milliseconds.is_none_or(|expiry| *now_milliseconds < expiry)
            }
        }
    }

    fn is_accepted<K: Ord>(&self, cuts: &Cuts<K>, key: &K) -> bool {
        match self {
            Question::Write { replica, number, .. }
            | Question::WriteAnything { replica, number } => accepts(cuts, key, replica, *number),
            // Nobody reads through a key that has been revoked, nor begins to write.
            Question::WriteScope { .. } | Question::Read { .. } => !cuts.contains_key(key),
        }
    }
}

/// What a grant, or a certificate, is worth at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RightStatus {
    /// Its subject reads by it.
    Good {
        /// Until when, in milliseconds since 1970; [`u64::MAX`] where that has no end.
        until_milliseconds: u64,
    },
    /// It has expired, or what its issuer had from others has. It does not let its subject in any more;
    /// what has been written by it stays in effect.
    Expired,
    /// Its subject, its issuer or somebody from whom that one has it has been revoked.
    CutOff,
}

/// Why a write is not covered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingRight {
    /// Nobody is known to own the namespace.
    #[error(
        "this store does not hold the namespace's founding yet; sync with a store that does first"
    )]
    Founding,
    /// Nothing has been granted.
    #[error(
        "nothing has been granted to this store's key; let an owner run `vudo invite {}`", whole(.replica)
    )]
    Grant {
        /// This store's key.
        replica: PublicKey,
    },
    /// Something has been granted, and not this.
    #[error(
        "what has been granted to this store's key covers {covered} and not this; let an owner run \
         `vudo invite {} --write {gen_name}`", whole(.replica)
    )]
    Scope {
        /// This store's key.
        replica: PublicKey,
        /// What would have to be covered.
        gen_name: String,
        /// What is covered, for people to read.
        covered: String,
    },
    /// The right has been revoked.
    #[error(
        "the right of this store's key has been revoked; ask an owner to invite a store with a new key"
    )]
    Revoked,
    /// Documents of [`RIGHTS_GEN`] are made by inviting and revoking.
    #[error("documents of {RIGHTS_GEN} are rights; use `vudo invite` and `vudo revoke`")]
    Reserved,
}

/// The whole key in hexadecimal.
fn whole(key: &PublicKey) -> String {
    document_key(&key.0)
}

/// The records of a namespace with owners, and what follows from them.
#[derive(Clone, Debug)]
pub struct Rights {
    namespace: String,
    founding_hash: [u8; 32],
    held: BTreeMap<RecordId, Held>,
    graph: Graph,
}

/// What follows from the records.
#[derive(Clone, Debug, Default, PartialEq)]
struct Graph {
    /// In the order of the founding.
    owners: Vec<PublicKey>,
    /// By the key that a way leads to. Only ways that begin at an owner are among them.
    links: BTreeMap<PublicKey, Vec<Link>>,
    /// What everything through a key is cut by.
    cuts: Cuts<PublicKey>,
    /// What everything through a key that has it from another is cut by.
    link_cuts: Cuts<(PublicKey, PublicKey)>,
    /// What checkpoints of owners say.
    judgements: Judgements,
}

impl Rights {
    /// The rights of a namespace of which no record is held; `None` for one without owners.
    pub fn new(namespace: &str) -> Option<Rights> {
        let founding_hash = founding_hash(namespace)?;
        let (held, graph) = (BTreeMap::new(), Graph::default());
        Some(Rights { namespace: namespace.to_owned(), founding_hash, held, graph })
    }

    /// Takes records in that changes carry, or that a peer shows, which nobody carries. Gives those of
    /// which something is new; records that do not hold are none.
    pub fn hold(
        &mut self,
        records: impl IntoIterator<Item = (SignedRecord, Option<(PublicKey, u64)>)>,
    ) -> Vec<RecordId> {
        let mut changed = Vec::new();
        for (record, carrier) in records {
            let id = record.id();
            if !self.held.contains_key(&id) {
                if !record.holds(&self.namespace) {
                    continue;
                }
                self.held.insert(id, Held { record, carriers: BTreeMap::new() });
                changed.push(id);
            }
            let Some(held) = self.held.get_mut(&id) else { continue };
            if let Some((replica, number)) = carrier {
                let first = held.carriers.entry(replica).or_insert(u64::MAX);
                if number < *first {
                    *first = number;
                    changed.push(id);
                }
            }
        }
        if !changed.is_empty() {
            self.conclude();
        }
        changed
    }

    /// Whether others say the same of every change that carries none but records held by both.
    pub(crate) fn judges_as(&self, other: &Rights) -> bool {
        self.graph == other.graph
    }

    /// Whether a record is held.
    pub fn holds(&self, id: &RecordId) -> bool {
        self.held.contains_key(id)
    }

    /// The records that are held, by their ids.
    pub fn records(&self) -> impl Iterator<Item = &SignedRecord> {
        self.held.values().map(|held| &held.record)
    }

    /// The owners, in the order of the founding; none where that is not held.
    pub fn owners(&self) -> &[PublicKey] {
        &self.graph.owners
    }

    /// Whether everything through a key is cut off from some number on.
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.graph.cuts.contains_key(key)
    }

    /// Those for whom a replica writes, ascending.
    pub fn people_of<'a>(&'a self, replica: &PublicKey) -> impl Iterator<Item = &'a PublicKey> {
        let links = self.graph.links.get(replica).into_iter().flatten();
        links.filter(|link| link.grant.is_none()).map(|link| &link.issuer)
    }

    /// What has been granted to a key itself.
    pub fn grants_to<'a>(&'a self, subject: &PublicKey) -> impl Iterator<Item = &'a Grant> {
        let links = self.graph.links.get(subject).into_iter().flatten();
        links.filter_map(|link| link.grant.as_ref())
    }

    /// Whether a key has certified another one or granted something to it.
    pub fn has_issued_to(&self, issuer: &PublicKey, subject: &PublicKey) -> bool {
        let links = self.graph.links.get(subject).into_iter().flatten();
        links.map(|link| &link.issuer).any(|found| found == issuer)
    }

    /// Every key that something is said of, ascending.
    pub fn keys(&self) -> BTreeSet<PublicKey> {
        let Graph { owners, links, cuts, .. } = &self.graph;
        owners.iter().chain(links.keys()).chain(cuts.keys()).copied().collect()
    }

    /// The founding, and the records by which something has been granted to a key: what a ticket for
    /// that key carries.
    pub fn records_for(&self, key: &PublicKey) -> Vec<SignedRecord> {
        let mut subjects = vec![*key];
        let mut next = 0;
        while let Some(subject) = subjects.get(next).copied() {
            next += 1;
            for link in self.graph.links.get(&subject).into_iter().flatten() {
                if !subjects.contains(&link.issuer) {
                    subjects.push(link.issuer);
                }
            }
        }
        let is_wanted = |record: &&SignedRecord| match record.record() {
            Record::Founding(_) => true,
            Record::Certificate { replica: subject, .. } | Record::Grant(Grant { subject, .. }) => {
                subjects.contains(subject)
            }
            Record::Revocation(_) | Record::Checkpoint(_) => false,
        };
        self.records().filter(is_wanted).cloned().collect()
    }

    /// A digest of the records that are held and of who carries them.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        for id in self.held.keys() {
            write_bytes(&mut bytes, &self.encode_held(id));
        }
        hash_of(&[&self.founding_hash, &bytes])
    }

    /// A record as it is stored, with who carries it.
    pub(crate) fn encode_held(&self, id: &RecordId) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(Held { record, carriers }) = self.held.get(id) {
            write_bytes(&mut out, record.bytes());
            write_varint(&mut out, carriers.len() as u64);
            for (replica, number) in carriers {
                out.extend_from_slice(&replica.0);
                write_varint(&mut out, *number);
            }
        }
        out
    }

    /// Takes in what [`Rights::encode_held`] wrote. Its signature was checked before it was stored.
    pub(crate) fn restore(&mut self, stored: &[u8]) -> Result<(), MalformedFrame> {
        let mut reader = Reader::new(stored);
        let record = SignedRecord::decode(reader.bytes()?)?;
        let mut carriers = BTreeMap::new();
        for _ in 0..reader.varint()? {
            carriers.insert(ReplicaKey(reader.array()?), reader.varint()?);
        }
        self.held.insert(record.id(), Held { record, carriers });
        Ok(())
    }

    /// Draws conclusions from what has been restored.
    pub(crate) fn restored(&mut self) {
        self.conclude();
    }

    /// The checkpoints that count.
    pub(crate) fn counted_checkpoints(&self) -> impl Iterator<Item = &CheckpointRecord> {
        self.counted().map(|(record, ..)| record)
    }

    /// The checkpoints that count, with who carries them, and as they are signed.
    pub(crate) fn counted(
        &self,
    ) -> impl Iterator<Item = (&CheckpointRecord, &BTreeMap<PublicKey, u64>, &SignedRecord)> {
        self.held.values().filter_map(|Held { record: signed, carriers }| {
            let Record::Checkpoint(record) = signed.record() else { return None };
            // The one of a compacted log that the change with it has not followed yet.
            let not_yet = [(&record.issuer, &u64::MAX)];
            let not_yet = not_yet.into_iter().filter(|_| carriers.is_empty());
            let mut carriers_or_none = carriers.iter().chain(not_yet);
            let counts = carriers_or_none.any(|(replica, number)| {
                self.may_give_checkpoints(&record.issuer, (replica, *number))
            });
            counts.then_some((record, carriers, signed))
        })
    }

    /// Checkpoints that no change carries yet which is held.
    pub(crate) fn checkpoints_not_carried(&self) -> Vec<SignedRecord> {
        let of_logs = self.held.values().filter(|held| held.carriers.is_empty());
        let is_checkpoint = |held: &&Held| matches!(held.record.record(), Record::Checkpoint(_));
        of_logs.filter(is_checkpoint).map(|held| held.record.clone()).collect()
    }

    /// Whether a key is an owner, or a replica that one has certified, and a change that carries a
    /// checkpoint of it is accepted.
    pub(crate) fn may_give_checkpoints(
        &self,
        issuer: &PublicKey,
        (replica, number): (&PublicKey, u64),
    ) -> bool {
        let Graph { owners, links, cuts, .. } = &self.graph;
        let is_owner = |key| owners.contains(key) && accepts(cuts, key, replica, number);
        let mut certificates =
            links.get(issuer).into_iter().flatten().filter(|link| link.grant.is_none());
        accepts(cuts, issuer, replica, number)
            && (is_owner(issuer) || certificates.any(|link| is_owner(&link.issuer)))
    }

    /// What is judged for good.
    pub(crate) fn judgements(&self) -> &Judgements {
        &self.graph.judgements
    }

    /// Whether each change of a replica behind a number, up to another one, carries a record.
    pub(crate) fn carries_records(&self, replica: &PublicKey, behind: u64, up_to: u64) -> bool {
        let is_carrier = |number: u64| {
            self.held.values().any(|held| held.carriers.get(replica) == Some(&number))
        };
        // Each record has one first change of the replica that carries it.
        up_to.saturating_sub(behind) <= self.held.len() as u64
            && (behind.saturating_add(1)..=up_to).all(is_carrier)
    }

    /// Whether a change is in effect. `gen_name` gives the name of a Gen by the change's index.
    pub fn is_effective<'a>(
        &self,
        replica: &PublicKey,
        change: &Change<'_>,
        mut gen_name: impl FnMut(GenIndex) -> &'a [u8],
    ) -> bool {
        let number = change.number;
        if let Some(is_in_effect) = self.judged_for_good(replica, number) {
            return is_in_effect;
        }
        let may_write_anything =
            self.is_covered(replica, Question::WriteAnything { replica, number });
        change.document_writes().all(|write| match gen_name(write.gen_index) {
            name if name == RIGHTS_GEN.as_bytes() => self.is_record(&write),
            gen_name => {
                let key = write.key;
                may_write_anything
                    || self.is_covered(replica, Question::Write { replica, number, gen_name, key })
            }
        })
    }

    /// Whether a replica's change is in effect by a checkpoint; `None` where it is above all of them.
    fn judged_for_good(&self, replica: &PublicKey, number: u64) -> Option<bool> {
        let judged = self.graph.judgements.of(replica, number);
        judged.filter(|_| !cfg!(vudo_mutation = "checkpoint_ignored"))
    }

    /// Whether a replica's change of a number may write to a document.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn check_write(
        &self,
        replica: &PublicKey,
        number: u64,
        gen_name: &str,
        key: &[u8],
    ) -> Result<(), MissingRight> {
        if gen_name == RIGHTS_GEN {
            return Err(MissingRight::Reserved);
        }
        match self.judged_for_good(replica, number) {
            Some(true) => return Ok(()),
            Some(false) => return Err(MissingRight::Revoked),
            None => {}
        }
        let of_number = |number| {
            let gen_name = gen_name.as_bytes();
            self.is_covered(replica, Question::Write { replica, number, gen_name, key })
        };
        if of_number(number) {
            return Ok(());
        }
        let Graph { owners, cuts, .. } = &self.graph;
        let people = || std::iter::once(replica).chain(self.people_of(replica));
        let scopes: BTreeSet<String> = people()
            .flat_map(|key| self.grants_to(key))
            .flat_map(|grant| grant.scopes.iter().map(Scope::to_string))
            .collect();
        // The first change of a replica that has been cut off later would have been covered.
        let is_revoked = people().any(|key| cuts.contains_key(key)) || of_number(1);
        Err(if owners.is_empty() {
            MissingRight::Founding
        } else if is_revoked {
            MissingRight::Revoked
        } else if scopes.is_empty() {
            MissingRight::Grant { replica: *replica }
        } else {
            MissingRight::Scope {
                replica: *replica,
                gen_name: gen_name.to_owned(),
                covered: scopes.into_iter().collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// Until when a replica may read the namespace, in milliseconds since 1970; `None` where it may
    /// not at this time.
    pub fn readable_until(&self, replica: &PublicKey, now_milliseconds: u64) -> Option<u64> {
        self.last_until(now_milliseconds, |now_milliseconds| {
            self.is_covered(replica, Question::Read { now_milliseconds })
        })
    }

    /// Whether a grant that a key gives at this time lets somebody in, and where a scope is named, whether
    /// it lets that one write to what the scope covers: the key is an owner, or grants that may be passed
    /// on lead to it, of which none has expired and none has been cut off.
    pub fn may_grant(
        &self,
        issuer: &PublicKey,
        scope: Option<&Scope>,
        now_milliseconds: u64,
    ) -> bool {
        let is_covered = |question| self.is_covered_as(Role::Grants, issuer, question);
        is_covered(Question::Read { now_milliseconds })
            && scope.is_none_or(|scope| is_covered(Question::WriteScope { scope }))
    }

    /// Whether a certificate that a key gives at this time lets a replica in.
    pub fn may_certify(&self, person: &PublicKey, now_milliseconds: u64) -> bool {
        self.is_covered_as(Role::Certifies, person, Question::Read { now_milliseconds })
    }

    /// What a grant of these records is worth at this time.
    pub fn status_of_grant(&self, grant: &Grant, now_milliseconds: u64) -> RightStatus {
        let Grant { issuer, subject, expires_milliseconds, .. } = grant;
        self.status(issuer, subject, now_milliseconds, |now| {
            expires_milliseconds.is_none_or(|expiry| now < expiry)
                && self.may_grant(issuer, None, now)
        })
    }

    /// What the certificate of a person for a replica is worth at this time.
    pub fn status_of_certificate(
        &self,
        person: &PublicKey,
        replica: &PublicKey,
        now_milliseconds: u64,
    ) -> RightStatus {
        self.status(person, replica, now_milliseconds, |now| self.may_certify(person, now))
    }

    fn status(
        &self,
        issuer: &PublicKey,
        subject: &PublicKey,
        now_milliseconds: u64,
        is_good_at: impl Fn(u64) -> bool,
    ) -> RightStatus {
        let Graph { cuts, link_cuts, .. } = &self.graph;
        let is_cut = cuts.contains_key(subject) || link_cuts.contains_key(&(*issuer, *subject));
        match self.last_until(now_milliseconds, &is_good_at) {
            Some(until_milliseconds) if !is_cut => RightStatus::Good { until_milliseconds },
            // Only time takes away what was good when time began.
            None if !is_cut && is_good_at(0) => RightStatus::Expired,
            _ => RightStatus::CutOff,
        }
    }

    /// Until when something is so that only the end of a grant changes, in milliseconds since 1970;
    /// `None` where it is not so at this time.
    fn last_until(&self, now_milliseconds: u64, is_so_at: impl Fn(u64) -> bool) -> Option<u64> {
        if !is_so_at(now_milliseconds) {
            return None;
        }
        let grants = self.graph.links.values().flatten().filter_map(|link| link.grant.as_ref());
        let expiries: BTreeSet<u64> =
            grants.filter_map(|grant| grant.expires_milliseconds).collect();
        // Chains end where a grant in them does, so the right ends at one of these times.
        let end =
            expiries.into_iter().find(|expiry| *expiry > now_milliseconds && !is_so_at(*expiry));
        Some(end.unwrap_or(u64::MAX))
    }

    /// The replicas that may act through a key, itself among them: those that a revocation has to say
    /// a number of.
    pub fn acting_through(&self, key: &PublicKey) -> BTreeSet<PublicKey> {
        let mut found = BTreeSet::from([*key]);
        let mut left = vec![*key];
        while let Some(key) = left.pop() {
            for (subject, links) in &self.graph.links {
                if links.iter().any(|link| link.issuer == key) && found.insert(*subject) {
                    left.push(*subject);
                }
            }
        }
        found
    }

    /// Whether a write to a document of [`RIGHTS_GEN`] carries a record. Anybody may carry one.
    fn is_record(&self, write: &DocumentWrite<'_>) -> bool {
        carried(write).is_some_and(|record| self.holds(&record.id()))
    }

    /// Whether a chain leads from an owner to a key that answers the question with yes. Goes from the
    /// key to its issuers and theirs, by every way that does; each key once for each role.
    fn is_covered(&self, key: &PublicKey, question: Question<'_>) -> bool {
        self.is_covered_as(Role::Writes, key, question)
    }

    /// [`Rights::is_covered`] for what a key does itself, which need not be writing.
    fn is_covered_as(&self, role: Role, key: &PublicKey, question: Question<'_>) -> bool {
        let Graph { owners, links, cuts, link_cuts, .. } = &self.graph;
        let mut seen = vec![(*key, role)];
        let mut next = 0;
        while let Some(&(key, role)) = seen.get(next) {
            next += 1;
            if !question.is_accepted(cuts, &key) {
                continue;
            }
            if owners.contains(&key) {
                return true;
            }
            for link in links.get(&key).into_iter().flatten() {
                let issuer_role = match (&link.grant, role) {
                    (None, Role::Writes) => Role::Certifies,
                    // Who writes for a person neither certifies nor grants for that person.
                    (None, _) => continue,
                    (Some(grant), Role::Grants) if !grant.can_delegate => continue,
                    (Some(grant), _) if !question.is_covered_by(grant) => continue,
                    (Some(_), _) => Role::Grants,
                };
                let step = (link.issuer, issuer_role);
                if question.is_accepted(link_cuts, &(link.issuer, key)) && !seen.contains(&step) {
                    seen.push(step);
                }
            }
        }
        false
    }

    fn conclude(&mut self) {
        self.graph = self.graph_of_records();
        let mut judgements = Judgements::default();
        for record in self.counted_checkpoints() {
            judgements.add(&record.vector, &record.set_aside);
        }
        self.graph.judgements = judgements;
    }

    fn graph_of_records(&self) -> Graph {
        let records = || self.held.values().map(|held| held.record.record());
        let owners = records().find_map(|record| match record {
            Record::Founding(Founding { owners, .. }) => Some(owners.clone()),
            _ => None,
        });
        let mut graph = Graph { owners: owners.unwrap_or_default(), ..Graph::default() };
        self.find_links(&mut graph);
        self.find_cuts(&mut graph);
        graph
    }

    /// Follows grants and certificates from the owners on. What others issue counts for nothing.
    fn find_links(&self, graph: &mut Graph) {
        let mut by_issuer: BTreeMap<&PublicKey, Vec<&Record>> = BTreeMap::new();
        for held in self.held.values() {
            if let Some(issuer) = held.record.record().issuer() {
                by_issuer.entry(issuer).or_default().push(held.record.record());
            }
        }
        // Who may certify, and whether it may grant.
        let mut found: BTreeMap<PublicKey, bool> =
            graph.owners.iter().map(|owner| (*owner, true)).collect();
        let mut left = graph.owners.clone();
        while let Some(key) = left.pop() {
            for record in by_issuer.get(&key).into_iter().flatten() {
                let Record::Grant(grant) = record else { continue };
                let can_delegate = found.get(&grant.subject).copied();
                if found[&key]
                    && (can_delegate.is_none() || grant.can_delegate && can_delegate == Some(false))
                {
                    found.insert(grant.subject, grant.can_delegate);
                    left.push(grant.subject);
                }
            }
        }
        for (issuer, can_grant) in found {
            for record in by_issuer.get(&issuer).into_iter().flatten() {
                let (subject, grant) = match record {
                    Record::Certificate { replica, .. } => (replica, None),
                    Record::Grant(grant) if can_grant => (&grant.subject, Some(grant.clone())),
                    _ => continue,
                };
                graph.links.entry(*subject).or_default().push(Link { issuer, grant });
            }
        }
    }

    fn find_cuts(&self, graph: &mut Graph) {
        let revocations: Vec<(&Held, &Revocation)> = (self.held.values())
            .filter_map(|held| match held.record.record() {
                Record::Revocation(revocation) => Some((held, revocation)),
                _ => None,
            })
            .collect();
        let counts = |held: &Held, issuer: &PublicKey, cuts: &Cuts<PublicKey>| {
            held.carriers.iter().any(|(replica, number)| accepts(cuts, issuer, replica, *number))
        };
        let owners = graph.owners.clone();
        let rank_of = |key: &PublicKey| owners.iter().position(|owner| owner == key);
        // Those of an owner are judged by the cuts of the owners before it, and by no others.
        for (rank, owner) in owners.iter().enumerate() {
            let may_revoke =
                |subject: &PublicKey| rank_of(subject).is_none_or(|subject| rank <= subject);
            let of_owner: Vec<&Revocation> = (revocations.iter())
                .filter(|(held, revocation)| {
                    revocation.issuer == *owner
                        && may_revoke(&revocation.subject)
                        && counts(held, owner, &graph.cuts)
                })
                .map(|(_, revocation)| *revocation)
                .collect();
            for Revocation { subject, last_accepted, .. } in of_owner {
                narrow(&mut graph.cuts, *subject, Cut::of(last_accepted));
            }
        }
        // Where no link leads from or to, nothing is cut. Anybody can make keys and sign with them, and there
        // would be no end to judging anew by what those revoke.
        let is_way = |Revocation { issuer, subject, .. }: &Revocation| {
            let links = graph.links.get(subject).into_iter().flatten();
            let mut issuers = links.map(|link| &link.issuer);
            let is_found = match issuer == subject {
                true => issuers.next().is_some(),
                false => issuers.any(|found| found == issuer),
            };
            is_found || cfg!(vudo_mutation = "strangers_cut")
        };
        // Those of others are judged by the cuts of owners alone.
        let of_others: Vec<&Revocation> = (revocations.iter())
            .filter(|(held, revocation)| {
                let issuer = &revocation.issuer;
                let is_other = rank_of(issuer).is_none() && is_way(revocation);
                is_other && counts(held, issuer, &graph.cuts)
            })
            .map(|(_, revocation)| *revocation)
            .collect();
        for Revocation { issuer, subject, last_accepted } in of_others {
            match issuer == subject {
                true => narrow(&mut graph.cuts, *subject, Cut::of(last_accepted)),
                false => {
                    narrow(&mut graph.link_cuts, (*issuer, *subject), Cut::of(last_accepted));
                }
            }
        }
    }
}
