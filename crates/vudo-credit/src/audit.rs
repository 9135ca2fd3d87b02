//! The audit: everything from the log alone, trusting nobody.

use crate::error::Refusal;
use crate::genesis::Genesis;
use crate::ledger::{LaneStatus, Ledger};
use crate::operation::{LogRecord, Posting};

/// What an audit has found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// Entries, each signed by a quorum and following from those before it.
    pub entry_count: u64,
    /// Postings, adding up to 0 in each entry.
    pub posting_count: u64,
    /// Accounts.
    pub account_count: u64,
    /// Lanes, and how many of them are closed.
    pub lane_count: u64,
    /// Closed lanes.
    pub closed_lane_count: u64,
    /// Lanes whose device has signed chains that contradict each other.
    pub disputed_lane_count: u64,
    /// The sum of all balances above zero, in units: as much is owed by the others.
    pub credit: i128,
    /// What payees lost to devices that spent twice, in units.
    pub loss: u128,
}

/// An entry at which the log is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of the log is wrong: {refusal}")]
pub struct AuditError {
    /// Counts from 0.
    pub index: u64,
    /// What is wrong.
    pub refusal: Refusal,
}

/// Checks a log from its genesis on: certificates, hashes, rules, postings and, after every entry,
/// every invariant.
///
/// # Errors
/// The first entry that is wrong.
pub fn audit<'a>(
    genesis: &Genesis,
    log: impl IntoIterator<Item = &'a LogRecord>,
) -> Result<(AuditReport, Ledger), AuditError> {
    let at = |index| move |refusal| AuditError { index, refusal };
    let mut ledger = Ledger::new(genesis.clone()).map_err(at(0))?;
    let mut posting_count = 0;
    for record in log {
        let index = ledger.next_index();
        record.certified.verify(&ledger.committee).map_err(at(index))?;
        let sum: i128 = record.postings.iter().map(|posting: &Posting| posting.amount).sum();
        if sum != 0 {
            let what = format!("the postings add up to {sum}, not to 0");
            return Err(at(index)(Refusal::InvariantBroken { what }));
        }
        if ledger.apply(&record.certified.entry).map_err(at(index))? != record.postings {
            return Err(at(index)(Refusal::OtherPostings { index }));
        }
        ledger.check_invariants().map_err(at(index))?;
        posting_count += record.postings.len() as u64;
    }
    let lanes = ledger.lanes().values();
    let losses = lanes.clone().filter_map(|lane| match lane.status {
        LaneStatus::Closed { loss } => Some(loss),
        _ => None,
    });
    let balances = ledger.accounts().values().map(|account| account.posted);
    let report = AuditReport {
        entry_count: ledger.next_index(),
        posting_count,
        account_count: ledger.accounts().len() as u64,
        lane_count: lanes.len() as u64,
        closed_lane_count: losses.clone().count() as u64,
        disputed_lane_count: lanes.filter(|lane| lane.has_equivocated).count() as u64,
        credit: balances.filter(|balance| *balance > 0).sum(),
        loss: losses.sum(),
    };
    Ok((report, ledger))
}
