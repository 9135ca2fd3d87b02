//! What the records of a namespace say about a change, word by word and slowly: every chain is tried.

use vudo_state::{CheckpointRecord, PublicKey, Revocation, RightsRecord, SignedRecord};

/// A record, and the changes that carry it.
pub(crate) type Held = (SignedRecord, Vec<(PublicKey, u64)>);

/// A write: whose, the number of its change, the Gen and the key.
pub(crate) type Write<'a> = (&'a PublicKey, u64, &'a str, &'a str);

pub(crate) struct Twin<'a>(pub(crate) &'a [Held]);

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Writes,
    Certifies,
    Grants,
}

impl Twin<'_> {
    /// Whether some chain of records leads from an owner to the replica, covers the document, and is
    /// not cut below the number.
    pub(crate) fn covers(&self, write: Write<'_>) -> bool {
        if let Some(is_in_effect) = self.judged_for_good(write.0, write.1) {
            return is_in_effect;
        }
        self.leads_to(write.0, Role::Writes, write, &mut Vec::new())
    }

    /// Whether a change is in effect by a checkpoint, if it is below any.
    pub(crate) fn judged_for_good(&self, replica: &PublicKey, number: u64) -> Option<bool> {
        let above = |checkpoint: &&CheckpointRecord| number <= checkpoint.vector.get(replica);
        let has_in_effect = |checkpoint: &CheckpointRecord| {
            !checkpoint
                .set_aside
                .iter()
                .any(|(key, ranges)| key == replica && ranges.contains(number))
        };
        let mut checkpoints = self.checkpoints().filter(above).map(has_in_effect).peekable();
        checkpoints.peek()?;
        Some(checkpoints.any(|is_in_effect| is_in_effect))
    }

    /// Checkpoints of owners, and of those that owners have certified, in changes that are accepted of
    /// both. Those that no change carries are judged as changes that come after all cuts.
    fn checkpoints(&self) -> impl Iterator<Item = &CheckpointRecord> {
        let is_owner = |key: &PublicKey, carrier: &PublicKey, number: u64| {
            self.owners().contains(key) && !self.is_cut(key, carrier, number)
        };
        let counts = move |issuer: &PublicKey, carrier: &PublicKey, number: u64| {
            let has_certified = |(record, _): &Held| match record.record() {
                RightsRecord::Certificate { person, replica } => {
                    replica == issuer && is_owner(person, carrier, number)
                }
                _ => false,
            };
            !self.is_cut(issuer, carrier, number)
                && (is_owner(issuer, carrier, number) || self.0.iter().any(has_certified))
        };
        self.0.iter().filter_map(move |(record, carriers)| match record.record() {
            RightsRecord::Checkpoint(checkpoint) => {
                let issuer = &checkpoint.issuer;
                let is_counted = match carriers.is_empty() {
                    true => counts(issuer, issuer, u64::MAX),
                    false => carriers.iter().any(|(key, number)| counts(issuer, key, *number)),
                };
                is_counted.then_some(checkpoint)
            }
            _ => None,
        })
    }

    fn leads_to(
        &self,
        key: &PublicKey,
        role: Role,
        write: Write<'_>,
        path: &mut Vec<PublicKey>,
    ) -> bool {
        let (replica, number, gen_name, document) = write;
        if path.contains(key) || self.is_cut(key, replica, number) {
            return false;
        }
        if self.owners().contains(key) {
            return true;
        }
        path.push(*key);
        let leads = self.0.iter().any(|(record, _)| match record.record() {
            RightsRecord::Certificate { person, replica } => {
                replica == key
                    && role == Role::Writes
                    && !self.is_link_cut(person, key, write)
                    && self.leads_to(person, Role::Certifies, write, path)
            }
            RightsRecord::Grant(grant) => {
                grant.subject == *key
                    && (role != Role::Grants || grant.can_delegate)
                    && grant.scopes.iter().any(|scope| {
                        (scope.gen_name.is_empty() || scope.gen_name == gen_name)
                            && document.starts_with(&scope.key_prefix)
                    })
                    && !self.is_link_cut(&grant.issuer, key, write)
                    && self.leads_to(&grant.issuer, Role::Grants, write, path)
            }
            _ => false,
        });
        path.pop();
        leads
    }

    fn owners(&self) -> Vec<PublicKey> {
        let founding = self.0.iter().find_map(|(record, _)| match record.record() {
            RightsRecord::Founding(founding) => Some(founding.owners.clone()),
            _ => None,
        });
        founding.unwrap_or_default()
    }

    fn rank(&self, key: &PublicKey) -> usize {
        self.owners().iter().position(|owner| owner == key).unwrap_or(usize::MAX)
    }

    /// Revocations that count, and who made them.
    fn revocations(&self) -> impl Iterator<Item = &Revocation> {
        self.0.iter().filter_map(|(record, carriers)| match record.record() {
            RightsRecord::Revocation(revocation) => {
                self.counts(revocation, carriers).then_some(revocation)
            }
            _ => None,
        })
    }

    /// Whether some change carries the revocation that no owner with more weight than its issuer has
    /// cut off from the issuer.
    fn counts(&self, revocation: &Revocation, carriers: &[(PublicKey, u64)]) -> bool {
        let rank = self.rank(&revocation.issuer);
        carriers.iter().any(|(replica, number)| {
            !self.0.iter().any(|(record, carriers)| match record.record() {
                RightsRecord::Revocation(other) => {
                    self.rank(&other.issuer) < rank
                        && other.subject == revocation.issuer
                        && *number > other.last_accepted.get(replica)
                        && self.counts(other, carriers)
                }
                _ => false,
            })
        })
    }

    fn is_cut(&self, key: &PublicKey, replica: &PublicKey, number: u64) -> bool {
        self.revocations().any(|revocation| {
            let issuer = &revocation.issuer;
            let is_owner = self.owners().contains(issuer);
            let may_revoke = issuer == key || (is_owner && self.rank(issuer) <= self.rank(key));
            revocation.subject == *key
                && may_revoke
                && number > revocation.last_accepted.get(replica)
        })
    }

    fn is_link_cut(&self, issuer: &PublicKey, subject: &PublicKey, write: Write<'_>) -> bool {
        self.revocations().any(|revocation| {
            !self.owners().contains(issuer)
                && (revocation.issuer, revocation.subject) == (*issuer, *subject)
                && write.1 > revocation.last_accepted.get(write.0)
        })
    }
}
