//! `found`, `whoami`, `invite`, `revoke`, `adopt` and `peers`: who may write, and who does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use vudo_crdt::ReplicaKey;
use vudo_p2p::Ticket;
use vudo_state::{
    AdoptReport, Database, Grant, PublicKey, RightStatus, Rights, RightsRecord, Scope,
    SecretKeyBytes, founding_hash, public_key_of,
};

use crate::standing::{Invited, check_invitation, standing};

/// Where a store remembers the ticket under which a namespace was last served.
const SERVED_SETTING: &str = "served/";
const MILLISECONDS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

#[derive(Subcommand)]
pub(crate) enum RightsCommand {
    /// Found a namespace that has owners: nobody else writes to it without a grant of theirs.
    ///
    /// Prints its whole name. This store's key owns it, and those that are named. Owners that come
    /// earlier can revoke those that come later: the recovery key comes first, then this store's.
    Found {
        /// What the namespace's name begins with.
        label: String,
        /// One more owner: a key in hexadecimal, as `vudo whoami` prints it.
        #[arg(long = "owner", value_name = "KEY")]
        owners: Vec<Key>,
        /// Make a recovery key and write it here; keep the file somewhere else than the store.
        #[arg(long, value_name = "FILE")]
        recovery: Option<PathBuf>,
    },
    /// Print the key under which this store writes: its name among replicas, and on the network.
    ///
    /// In a namespace with owners also what this store may do there.
    Whoami {
        /// Print the key of a person instead, which is made and written to this file where there is
        /// none.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Grant reading to a key, and writing as far as it is said; prints a ticket for that key alone.
    Invite(Invitation),
    /// Accept nothing more from a key, nor from anybody who acts through it.
    ///
    /// What this store holds of it stays in effect; what comes later is set aside everywhere. This
    /// cannot be taken back: invite a new key instead.
    Revoke {
        /// The key, as `vudo whoami` printed it.
        subject: Key,
        /// Accept only so many changes of the key's own replica.
        #[arg(long, value_name = "NUMBER")]
        accept: Option<u64>,
        /// Sign with the key in this file instead of the store's.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Write again what has no effect because another store wrote under the same key.
    ///
    /// That happens where a machine's image was restored, or a store copied with its key: of the two
    /// logs one stands, and the other's changes are orphans wherever they are held. The store that wrote
    /// them writes them again by itself; this is for those whose store is gone.
    Adopt {
        /// Adopt those of this replica alone: its key, as `vudo doctor` prints it.
        replica: Option<Key>,
    },
    /// Print which stores have acknowledged this one's changes, and how many wait for each.
    ///
    /// In a namespace with owners also who may do what.
    Peers,
}

#[derive(Args)]
pub(crate) struct Invitation {
    /// Who is invited: a key, as `vudo whoami` prints it.
    subject: Key,
    /// Let it write to a Gen, as in Task; to keys that begin with something, as in Task/draft-; or to
    /// everything, as in '*'.
    #[arg(long = "write", value_name = "SCOPE")]
    scopes: Vec<ScopeArgument>,
    /// Let it invite others to what it may do itself.
    #[arg(long)]
    delegate: bool,
    /// End its sessions after so many days. What it has written stays in effect.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    days: Option<u64>,
    /// It is the key of another store of the same person: what it writes counts as this one's.
    #[arg(long, conflicts_with_all = ["scopes", "delegate", "days"])]
    device: bool,
    /// Sign with the key in this file instead of the store's.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// A public key in hexadecimal.
#[derive(Clone, Copy)]
pub(crate) struct Key(PublicKey);

impl FromStr for Key {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Key> {
        let bytes = from_hexadecimal(text);
        let bytes = bytes.context("a key has 64 hexadecimal digits, as `vudo whoami` prints it")?;
        Ok(Key(ReplicaKey(bytes)))
    }
}

#[derive(Clone)]
pub(crate) struct ScopeArgument(Scope);

impl FromStr for ScopeArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<ScopeArgument> {
        let (gen_name, key_prefix) = text.split_once('/').unwrap_or((text, ""));
        let gen_name = if gen_name == "*" { "" } else { gen_name };
        if text.is_empty() || (gen_name.is_empty() && !text.starts_with('*')) {
            bail!("a scope names a Gen, as in Task or Task/draft-, or everything, as in '*'");
        }
        let key_prefix = key_prefix.strip_suffix('*').unwrap_or(key_prefix).to_owned();
        Ok(ScopeArgument(Scope { gen_name: gen_name.to_owned(), key_prefix }))
    }
}

impl RightsCommand {
    /// The command with its files named as they are named in a folder.
    pub(crate) fn move_to(&mut self, folder: &Path) {
        let file = match self {
            RightsCommand::Found { recovery: file, .. }
            | RightsCommand::Whoami { key: file }
            | RightsCommand::Invite(Invitation { key: file, .. })
            | RightsCommand::Revoke { key: file, .. } => file,
            RightsCommand::Peers | RightsCommand::Adopt { .. } => return,
        };
        if let Some(file) = file {
            *file = folder.join(&*file);
        }
    }
}

pub(crate) fn run(
    database: &Database,
    is_json: bool,
    command: RightsCommand,
    output: &mut dyn Write,
) -> Result<()> {
    match command {
        RightsCommand::Found { label, owners, recovery } => {
            found(database, is_json, &label, &owners, recovery.as_deref(), output)
        }
        RightsCommand::Whoami { key: Some(file) } => {
            let key = public_key_of(&read_or_make_key(&file)?);
            print_key(is_json, &key, output)
        }
        RightsCommand::Whoami { key: None } => whoami(database, is_json, output),
        RightsCommand::Invite(invitation) => invite(database, is_json, invitation, output),
        RightsCommand::Revoke { subject, accept, key } => {
            revoke(database, is_json, subject.0, accept, key.as_deref(), output)
        }
        RightsCommand::Adopt { replica } => adopt(database, is_json, replica, output),
        RightsCommand::Peers => peers(database, is_json, output),
    }
}

fn adopt(
    database: &Database,
    is_json: bool,
    replica: Option<Key>,
    output: &mut dyn Write,
) -> Result<()> {
    let report = database.adopt(replica.map(|Key(key)| key).as_ref())?;
    let AdoptReport { adopted, known, left_out, left } = report;
    if is_json {
        let found =
            json!({ "adopted": adopted, "known": known, "left_out": left_out, "left": left });
        writeln!(output, "{found}")?;
    } else {
        writeln!(output, "{adopted} changes adopted; {known} had been written again already")?;
        if left_out > 0 {
            writeln!(
                output,
                "{left_out} operations on bounded counters were left out: the rights are their \
                 writer's"
            )?;
        }
        left.iter().try_for_each(|left| writeln!(output, "left: {left}"))?;
    }
    match left.is_empty() {
        true => Ok(()),
        false => bail!("{} changes stay orphans; each says why", left.len()),
    }
}

/// The namespace that a name means in a store: the one of that name, or else the only one with owners
/// that was founded under it as a label.
pub(crate) fn resolve(database: Database, name: &str) -> Result<Database> {
    let names = database.namespaces()?;
    let is_founded = |found: &&String| {
        founding_hash(found).is_some()
            && found.rsplit_once('@').is_some_and(|(label, _)| label == name)
    };
    let founded: Vec<&String> = names.iter().filter(is_founded).collect();
    let is_there = names.iter().any(|found| found == name);
    match founded.as_slice() {
        [one] if !is_there => Ok(database.in_namespace(one)),
        [_, _, ..] if !is_there => {
            bail!(
                "'{name}' may be any of {} namespaces; name it in full: {founded:?}",
                founded.len()
            )
        }
        _ => Ok(database.in_namespace(name)),
    }
}

/// Remembers where a namespace is served, for the tickets of invitations.
pub(crate) fn remember_ticket(database: &Database, ticket: &Ticket) -> Result<()> {
    let name = format!("{SERVED_SETTING}{}", ticket.namespace);
    Ok(database.set_setting(&name, ticket.to_string().as_bytes())?)
}

fn found(
    database: &Database,
    is_json: bool,
    label: &str,
    owners: &[Key],
    recovery: Option<&Path>,
    output: &mut dyn Write,
) -> Result<()> {
    let mut keys: Vec<PublicKey> = Vec::new();
    if let Some(file) = recovery {
        if file.exists() {
            bail!("{} exists already: name a file that does not", file.display());
        }
        keys.push(public_key_of(&read_or_make_key(file)?));
    }
    keys.push(database.replica_key());
    keys.extend(owners.iter().map(|owner| owner.0));
    let namespace = database.found(label, &keys)?;
    match is_json {
        true => {
            let owners: Vec<String> = keys.iter().map(hexadecimal).collect();
            writeln!(output, "{}", json!({ "namespace": namespace, "owners": owners }))?;
        }
        false => writeln!(output, "{namespace}")?,
    }
    Ok(())
}

fn print_key(is_json: bool, key: &PublicKey, output: &mut dyn Write) -> Result<()> {
    match is_json {
        true => writeln!(output, "{}", json!({ "replica": hexadecimal(key) }))?,
        false => writeln!(output, "{}", hexadecimal(key))?,
    }
    Ok(())
}

fn whoami(database: &Database, is_json: bool, output: &mut dyn Write) -> Result<()> {
    let key = database.replica_key();
    let Some(rights) = database.access_rights()? else { return print_key(is_json, &key, output) };
    let said = standing(&rights, &key, now_milliseconds(database)?);
    match is_json {
        true => {
            let people: Vec<String> = rights.people_of(&key).map(hexadecimal).collect();
            let found = json!({
                "replica": hexadecimal(&key),
                "namespace": database.namespace(),
                "people": people,
                "rights": said,
            });
            writeln!(output, "{found}")?;
        }
        false => {
            writeln!(output, "{}", hexadecimal(&key))?;
            writeln!(output, "in {}: {}", database.namespace(), said.join("; "))?;
        }
    }
    Ok(())
}

fn invite(
    database: &Database,
    is_json: bool,
    invitation: Invitation,
    output: &mut dyn Write,
) -> Result<()> {
    let secret = invitation.key.as_deref().map(read_key).transpose()?;
    let issuer = secret.as_ref().map_or(database.replica_key(), public_key_of);
    let subject = invitation.subject.0;
    let rights = rights_of(database)?;
    if rights.is_revoked(&subject) {
        bail!("the key {subject} has been revoked, for good; invite a store with a new key");
    }
    let now = now_milliseconds(database)?;
    let scopes: Vec<Scope> = invitation.scopes.into_iter().map(|scope| scope.0).collect();
    let invited = if invitation.device { Invited::Device } else { Invited::Grant(&scopes) };
    check_invitation(&rights, &issuer, invited, now)?;
    let (record, status) = match invitation.device {
        true => (
            RightsRecord::Certificate { person: issuer, replica: subject },
            rights.status_of_certificate(&issuer, &subject, now),
        ),
        false => {
            let days = invitation.days.map(|days| days.saturating_mul(MILLISECONDS_PER_DAY));
            let grant = Grant {
                issuer,
                subject,
                can_delegate: invitation.delegate,
                expires_milliseconds: days.map(|days| now.saturating_add(days)),
                scopes,
            };
            let status = rights.status_of_grant(&grant, now);
            (RightsRecord::Grant(grant), status)
        }
    };
    if status == RightStatus::CutOff {
        bail!(
            "the key {issuer} has revoked {subject}, for good; invite a store with a new key, or let \
             an owner invite this one"
        );
    }
    database.issue(record, secret.as_ref())?;
    let ticket = invitation_ticket(database, &subject)?;
    match (is_json, &ticket) {
        (true, _) => {
            let ticket = ticket.as_ref().map(ToString::to_string);
            let found = json!({
                "subject": hexadecimal(&subject),
                "rights": standing(&rights_of(database)?, &subject, now),
                "ticket": ticket,
            });
            writeln!(output, "{found}")?;
        }
        (false, Some(ticket)) => writeln!(output, "{ticket}")?,
        (false, None) => writeln!(
            output,
            "granted; for a ticket run `vudo serve --namespace {}` once, and invite again",
            database.namespace()
        )?,
    }
    Ok(())
}

/// The ticket of whoever is invited: to where the namespace was last served.
fn invitation_ticket(database: &Database, subject: &PublicKey) -> Result<Option<Ticket>> {
    let served = database.setting(&format!("{SERVED_SETTING}{}", database.namespace()))?;
    let Some(served) = served else { return Ok(None) };
    // One that cannot be read is of an earlier version: serving again remembers a new one.
    let Ok(ticket) = String::from_utf8_lossy(&served).parse::<Ticket>() else { return Ok(None) };
    Ok(Some(ticket.for_key(rights_of(database)?.records_for(subject))?))
}

fn revoke(
    database: &Database,
    is_json: bool,
    subject: PublicKey,
    accept: Option<u64>,
    key: Option<&Path>,
    output: &mut dyn Write,
) -> Result<()> {
    let secret = key.map(read_key).transpose()?;
    let issuer = secret.as_ref().map_or(database.replica_key(), public_key_of);
    let rights = rights_of(database)?;
    let rank = |key: &PublicKey| rights.owners().iter().position(|owner| owner == key);
    let may_revoke = match (rank(&issuer), rank(&subject)) {
        (Some(issuer), Some(subject)) => issuer <= subject,
        (Some(_), None) => true,
        (None, _) => issuer == subject || rights.has_issued_to(&issuer, &subject),
    };
    if !may_revoke {
        bail!(
            "the key {issuer} may not revoke {subject}: an owner may revoke all but the owners \
             before it, and others what they have granted; sign with such a key: --key FILE"
        );
    }
    let mut revocation = database.revocation_of(issuer, subject)?;
    if let Some(accept) = accept {
        let mut accepted = vudo_crdt::VersionVector::new();
        for (replica, number) in revocation.last_accepted.iter() {
            accepted.advance(replica, if replica == subject { number.min(accept) } else { number });
        }
        revocation.last_accepted = accepted;
    }
    let accepted: serde_json::Map<String, serde_json::Value> = (revocation.last_accepted.iter())
        .map(|(replica, number)| (hexadecimal(&replica), json!(number)))
        .collect();
    let count = revocation.last_accepted.change_count();
    database.issue(RightsRecord::Revocation(revocation), secret.as_ref())?;
    match is_json {
        true => {
            let found = json!({ "subject": hexadecimal(&subject), "accepted": accepted });
            writeln!(output, "{found}")?;
        }
        false => writeln!(
            output,
            "revoked {subject}: {count} changes stay in effect, and none after them"
        )?,
    }
    Ok(())
}

fn peers(database: &Database, is_json: bool, output: &mut dyn Write) -> Result<()> {
    let outbox = database.outbox()?;
    let peers = outbox.peers();
    for (peer, acknowledged) in &peers {
        let (key, waiting) = (hexadecimal(peer), outbox.pending_count_for(peer));
        match is_json {
            true => writeln!(
                output,
                "{}",
                json!({ "replica": key, "acknowledged": acknowledged, "waiting": waiting })
            )?,
            false => {
                writeln!(output, "{key}: {acknowledged} changes acknowledged, {waiting} waiting")?;
            }
        }
    }
    if peers.is_empty() && !is_json {
        let count = outbox.pending_count();
        writeln!(output, "no store has acknowledged anything; {count} changes wait")?;
    }
    let Some(rights) = database.access_rights()? else { return Ok(()) };
    let replication = database.replication(database.namespace())?;
    for key in rights.keys() {
        let said = standing(&rights, &key, replication.now_milliseconds());
        let aside: u64 = replication.set_aside_count(&key);
        match is_json {
            true => {
                let key = hexadecimal(&key);
                writeln!(output, "{}", json!({ "key": key, "rights": said, "set_aside": aside }))?;
            }
            false => {
                let aside = match aside {
                    0 => String::new(),
                    count => format!("; {count} of its changes are set aside"),
                };
                writeln!(output, "{}: {}{aside}", hexadecimal(&key), said.join("; "))?;
            }
        }
    }
    Ok(())
}

fn now_milliseconds(database: &Database) -> Result<u64> {
    Ok(database.replication(database.namespace())?.now_milliseconds())
}

fn rights_of(database: &Database) -> Result<Rights> {
    let rights = database.access_rights()?;
    rights.with_context(|| {
        format!(
            "the namespace '{}' has no owners, so whoever has its ticket may write; found one that \
             has with `vudo found LABEL`",
            database.namespace()
        )
    })
}

/// The key in a file, which is made where there is none.
fn read_or_make_key(file: &Path) -> Result<SecretKeyBytes> {
    if file.exists() {
        return read_key(file);
    }
    let secret = Database::new_secret_key()?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let opened = options.open(file);
    let mut opened = opened.with_context(|| format!("cannot write {}", file.display()))?;
    writeln!(opened, "{}", hexadecimal(&ReplicaKey(secret)))?;
    opened.sync_all()?;
    Ok(secret)
}

fn read_key(file: &Path) -> Result<SecretKeyBytes> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the key in {}", file.display()))?;
    let secret = from_hexadecimal(text.trim());
    secret.with_context(|| {
        format!("{} holds no key; `vudo whoami --key FILE` makes one", file.display())
    })
}

fn from_hexadecimal(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn hexadecimal(key: &ReplicaKey) -> String {
    key.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
