//! What `vudo doctor` finds in a store: looked at where the store is open, which may be in the process
//! that serves it. It goes over the control socket as one line of JSON.

use anyhow::{Context as _, Result, anyhow};
use data_encoding::HEXLOWER;
use serde_json::{Value as Json, json};
use vudo_crdt::ReplicaKey;
use vudo_state::{Database, Orphans, PublicKey, Replication, RightStatus, Rights};

use crate::data::hexadecimal;
use crate::standing::standing;

/// Of how many peers it is told what waits for them.
const PEERS_TOLD_MAX: usize = 10;

/// One thing that was looked at.
pub(crate) struct Finding {
    pub(crate) what: String,
    /// What was found, or why it failed.
    pub(crate) result: std::result::Result<String, String>,
    /// Whether what was found keeps nothing from working and should be seen to.
    pub(crate) is_warning: bool,
}

impl Finding {
    pub(crate) fn of(what: impl Into<String>, result: Result<String>) -> Finding {
        let result = result.map_err(|error| format!("{error:#}"));
        Finding { what: what.into(), result, is_warning: false }
    }

    pub(crate) fn warning(what: impl Into<String>, said: String) -> Finding {
        Finding { what: what.into(), result: Ok(said), is_warning: true }
    }

    /// As it is printed for machines, too.
    pub(crate) fn to_json(&self) -> Json {
        let (Ok(said) | Err(said)) = &self.result;
        let is_well = self.result.is_ok();
        json!({ "what": self.what, "ok": is_well, "warning": self.is_warning, "said": said })
    }

    fn from_json(json: &Json) -> Option<Finding> {
        let said = json["said"].as_str()?.to_owned();
        let result = if json["ok"].as_bool()? { Ok(said) } else { Err(said) };
        let is_warning = json["warning"].as_bool()?;
        Some(Finding { what: json["what"].as_str()?.to_owned(), result, is_warning })
    }
}

/// What a store is like, for whoever has not opened it.
pub(crate) struct Examination {
    pub(crate) key: PublicKey,
    pub(crate) findings: Vec<Finding>,
}

impl Examination {
    pub(crate) fn to_json(&self) -> Json {
        let findings: Vec<Json> = self.findings.iter().map(Finding::to_json).collect();
        json!({ "replica": hexadecimal(&self.key.0), "findings": findings })
    }

    pub(crate) fn from_json(text: &[u8]) -> Result<Examination> {
        let read = || {
            let json: Json = serde_json::from_slice(text).ok()?;
            let key = HEXLOWER.decode(json["replica"].as_str()?.as_bytes()).ok()?;
            let findings = json["findings"].as_array()?.iter().map(Finding::from_json);
            Some(Examination {
                key: ReplicaKey(key.try_into().ok()?),
                findings: findings.collect::<Option<_>>()?,
            })
        };
        read().context(
            "the process that has the store answers otherwise than this version expects: use the \
             same version of VUDO for both",
        )
    }
}

/// Looks at everything that a store holds.
pub(crate) fn of(database: &Database) -> Result<Examination> {
    let mut findings = Vec::new();
    for name in database.namespaces()? {
        let namespace = database.in_namespace(&name);
        let replication = database.replication(&name)?;
        let held = match replication.fingerprint() {
            Ok((vector, fingerprint)) => {
                let (changes, replicas) = (vector.change_count(), vector.replica_count());
                Ok(format!("{changes} changes of {replicas} replicas, state {fingerprint}"))
            }
            Err(error) => Err(error.into()),
        };
        findings.push(Finding::of(format!("namespace '{name}'"), held));
        if let Some(rights) = namespace.access_rights()? {
            findings.push(own_rights(&rights, &replication, &database.replica_key()));
            findings.extend(set_aside(&rights, &replication));
        }
        findings.extend(orphans(&namespace)?);
        findings.extend(outbox(&namespace)?);
    }
    Ok(Examination { key: database.replica_key(), findings })
}

/// What this store's own key may do in a namespace with owners.
fn own_rights(rights: &Rights, replication: &Replication, key: &PublicKey) -> Finding {
    let (name, now) = (replication.namespace(), replication.now_milliseconds());
    let what = format!("rights of this store in namespace '{name}'");
    let whole = hexadecimal(&key.0);
    if rights.owners().is_empty() {
        let said = "the founding is not held yet, so nobody's changes are in effect: sync with a \
                    store that has it";
        return Finding::of(what, Err(anyhow!(said)));
    }
    if rights.readable_until(key, now).is_some() {
        return Finding::of(what, Ok(standing(rights, key, now).join("; ")));
    }
    let statuses = statuses(rights, key, now);
    let said = standing(rights, key, now).join("; ");
    let failed = if rights.is_revoked(key) {
        anyhow!(
            "this store's key has been revoked: it is not let in any more, and what it writes has no \
             effect. Ask an owner to invite a store with a new key"
        )
    } else if statuses.contains(&RightStatus::Expired) {
        anyhow!(
            "what has been granted to this store's key has expired, so it is not let in any more \
             ({said}); let an owner run `vudo invite {whole}` again"
        )
    } else if statuses.contains(&RightStatus::CutOff) {
        anyhow!(
            "who let this store's key in has been revoked, or has revoked it, so it is not let in any \
             more, and what it writes has no effect ({said}); let an owner run `vudo invite {whole}`"
        )
    } else {
        let said = "nothing has been granted to this store's key: it can read where its ticket has \
                    the secret, and what it writes would be set aside";
        let said = format!("{said}; let an owner run `vudo invite {whole}`");
        return Finding::warning(what, said);
    };
    Finding::of(what, Err(failed))
}

/// What the grants to a key and its certificates are worth.
fn statuses(rights: &Rights, key: &PublicKey, now_milliseconds: u64) -> Vec<RightStatus> {
    let grants = rights.grants_to(key).map(|grant| rights.status_of_grant(grant, now_milliseconds));
    let certificates = (rights.people_of(key))
        .map(|person| rights.status_of_certificate(person, key, now_milliseconds));
    grants.chain(certificates).collect()
}

/// Whose changes have no effect, and why, as far as the records tell.
fn set_aside(rights: &Rights, replication: &Replication) -> Vec<Finding> {
    let (name, now) = (replication.namespace(), replication.now_milliseconds());
    let vector = replication.durable_vector();
    let mut found = Vec::new();
    for (replica, _) in vector.iter() {
        let count = replication.set_aside_count(&replica);
        if count == 0 {
            continue;
        }
        let statuses = statuses(rights, &replica, now);
        let why = if rights.owners().is_empty() {
            "the founding is not held yet"
        } else if rights.is_revoked(&replica) {
            "it has been revoked"
        } else if statuses.is_empty() {
            "nothing has been granted to it"
        } else if statuses.contains(&RightStatus::CutOff) {
            "who let it in has been revoked, or has revoked it"
        } else {
            "they write to what has not been granted to it"
        };
        let key = hexadecimal(&replica.0);
        let what = format!("changes set aside in namespace '{name}'");
        found.push(Finding::warning(what, format!("{count} of {key} have no effect: {why}")));
    }
    found
}

fn orphans(namespace: &Database) -> Result<Vec<Finding>> {
    let name = namespace.namespace();
    let described = |Orphans { replica, first, changes, leaf }: Orphans| {
        let key = hexadecimal(&replica.0);
        let orphaned = match leaf == [0; 8] {
            true => anyhow!(
                "{changes} changes of {key} from number {first} on lay behind what was damaged of its \
                 log and have no effect: sync with all peers, then write again what none of them had \
                 with `vudo --namespace {name} adopt`"
            ),
            false => anyhow!(
                "two stores wrote under the key {key}; {changes} changes from number {first} on have \
                 no effect: open the store that wrote them and let it sync, or write them again with \
                 `vudo --namespace {name} adopt`"
            ),
        };
        Finding::of(format!("a replica of namespace '{name}'"), Err(orphaned))
    };
    Ok(namespace.orphans()?.into_iter().map(described).collect())
}

/// What this store has written and others do not have yet; nothing where it has written nothing.
fn outbox(namespace: &Database) -> Result<Option<Finding>> {
    let outbox = namespace.outbox()?;
    if outbox.last_number() == 0 {
        return Ok(None);
    }
    let waiting = outbox.pending_count();
    let mut peers: Vec<(u64, ReplicaKey)> = (outbox.peers().into_iter())
        .map(|(peer, _)| (outbox.pending_count_for(&peer), peer))
        .collect();
    peers.sort_by(|one, other| other.cmp(one));
    let mut told: Vec<String> = (peers.iter().take(PEERS_TOLD_MAX))
        .map(|(waiting, peer)| format!("{waiting} for {}", hexadecimal(&peer.0)))
        .collect();
    if peers.len() > PEERS_TOLD_MAX {
        told.push(format!("no more for each of {} others", peers.len() - PEERS_TOLD_MAX));
    }
    let said = match peers.is_empty() {
        true => format!("{waiting} changes wait; no other store has acknowledged anything yet"),
        false => format!("{waiting} changes are nowhere else yet; waiting: {}", told.join(", ")),
    };
    let what = format!("outbox of namespace '{}'", namespace.namespace());
    Ok(Some(Finding::of(what, Ok(said))))
}
