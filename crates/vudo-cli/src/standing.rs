//! What a key may do, and what it may pass on, in words.

use anyhow::{Result, bail};
use vudo_state::{Grant, PublicKey, RightStatus, Rights, Scope};

use crate::data::hexadecimal;
use crate::output::date_of;

/// What a key may do at a time: owning, each grant and each certificate, with what has become of it.
pub(crate) fn standing(rights: &Rights, key: &PublicKey, now_milliseconds: u64) -> Vec<String> {
    let mut said = Vec::new();
    if rights.is_revoked(key) {
        said.push("revoked".to_owned());
    }
    if let Some(place) = rights.owners().iter().position(|owner| owner == key) {
        said.push(format!("owner {} of {}", place + 1, rights.owners().len()));
    }
    said.extend(rights.grants_to(key).map(|grant| grant_in_words(rights, grant, now_milliseconds)));
    for person in rights.people_of(key) {
        said.push(match rights.status_of_certificate(person, key, now_milliseconds) {
            RightStatus::Good { until_milliseconds } => {
                format!("writes for {person}{}", end_in_words(until_milliseconds))
            }
            RightStatus::Expired => format!("expired with what {person} had: writes for {person}"),
            RightStatus::CutOff => format!("cut off: wrote for {person}"),
        });
    }
    if said.is_empty() {
        said.push("nothing has been granted".to_owned());
    }
    said
}

fn grant_in_words(rights: &Rights, grant: &Grant, now_milliseconds: u64) -> String {
    let Grant { issuer, can_delegate, expires_milliseconds, scopes, .. } = grant;
    let may = match scopes.is_empty() {
        true => "reads".to_owned(),
        false => format!("reads, and writes {}", listed(scopes)),
    };
    let delegates = if *can_delegate { ", and may invite others to that" } else { "" };
    let granted = format!("{may}{delegates}, by {issuer}");
    match rights.status_of_grant(grant, now_milliseconds) {
        RightStatus::Good { until_milliseconds } => {
            format!("{granted}{}", end_in_words(until_milliseconds))
        }
        RightStatus::Expired => match expires_milliseconds.filter(|end| *end <= now_milliseconds) {
            Some(end) => format!("expired on {}: {granted}", date_of(end)),
            None => format!("expired with what {issuer} had: {granted}"),
        },
        RightStatus::CutOff => format!("cut off: {granted}"),
    }
}

fn end_in_words(until_milliseconds: u64) -> String {
    match until_milliseconds {
        u64::MAX => String::new(),
        until => format!(", until {}", date_of(until)),
    }
}

fn listed(scopes: &[Scope]) -> String {
    scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(", ")
}

/// What an invitation would give.
pub(crate) enum Invited<'a> {
    /// Reading, and writing as far as these scopes go.
    Grant(&'a [Scope]),
    /// What its issuer has, for another store of the same person.
    Device,
}

/// Refuses an invitation that would let nobody in, or not as far as it says: the records would be
/// signed and passed on, and have no effect anywhere.
pub(crate) fn check_invitation(
    rights: &Rights,
    issuer: &PublicKey,
    invited: Invited<'_>,
    now_milliseconds: u64,
) -> Result<()> {
    let whole_issuer = hexadecimal(&issuer.0);
    if rights.is_revoked(issuer) {
        bail!(
            "the key {issuer} has been revoked, so whoever it invites gets nothing; let an owner \
             invite instead, or sign with an owner's key: --key FILE"
        );
    }
    let lets_in = match invited {
        Invited::Device => rights.may_certify(issuer, now_milliseconds),
        Invited::Grant(_) => rights.may_grant(issuer, None, now_milliseconds),
    };
    if !lets_in {
        let is_for_device = matches!(invited, Invited::Device);
        let mut ended =
            rights.grants_to(issuer).filter(|grant| is_for_device || grant.can_delegate);
        if let Some(grant) = ended.next() {
            let ended = match rights.status_of_grant(grant, now_milliseconds) {
                RightStatus::CutOff => "been cut off",
                _ => "expired",
            };
            bail!(
                "what has been granted to the key {issuer} has {ended}, so whoever it invites gets \
                 nothing; let an owner run `vudo invite {whole_issuer} --delegate` again, or sign \
                 with an owner's key: --key FILE"
            );
        }
        bail!(
            "the key {issuer} may not invite to this namespace; let an owner run `vudo invite \
             {whole_issuer} --delegate`, or sign with an owner's key: --key FILE"
        );
    }
    let Invited::Grant(scopes) = invited else { return Ok(()) };
    let is_beyond = |scope: &&Scope| !rights.may_grant(issuer, Some(scope), now_milliseconds);
    let Some(beyond) = scopes.iter().find(is_beyond) else { return Ok(()) };
    let own: Vec<Scope> = (rights.grants_to(issuer))
        .filter(|grant| grant.can_delegate)
        .flat_map(|grant| grant.scopes.clone())
        .filter(|scope| rights.may_grant(issuer, Some(scope), now_milliseconds))
        .collect();
    let own = if own.is_empty() { "nothing".to_owned() } else { listed(&own) };
    bail!(
        "the key {issuer} may let others write {own}, and '{beyond}' goes beyond that, so it would \
         have no effect; name less after --write, let an owner run `vudo invite {whole_issuer} \
         --delegate --write '{beyond}'`, or sign with an owner's key: --key FILE"
    )
}
