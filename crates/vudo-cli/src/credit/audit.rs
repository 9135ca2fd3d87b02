//! Logs as files, and checking them.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use vudo_credit::log_file::{read_log, write_log};
use vudo_credit::operation::LogRecord;
use vudo_credit::wire::Wire;
use vudo_credit::{AuditReport, Genesis, audit};

use super::ledger::Ledger;
use super::store::Store;
use crate::Context;

/// Where records begin in a store.
const LOG_KIND: u8 = b'l';

pub(crate) fn export(context: &Context, file: &Path) -> Result<()> {
    let store = Store::open_existing(context)?;
    let ledger = store.ledger()?.context("this store is of no ledger yet")?;
    let records = store.entries_of(LOG_KIND)?;
    let shown = file.display();
    let written = write_log(&ledger.genesis, records.iter().map(|(_, record)| record.as_slice()));
    std::fs::write(file, written).with_context(|| format!("cannot write {shown}"))?;
    let count = records.len();
    match context.json {
        true => println!("{}", json!({ "entries": count })),
        false => println!("{count} entries in {shown}"),
    }
    Ok(())
}

pub(crate) fn run(context: &Context, log: Option<&Path>, ledger: Option<&Path>) -> Result<()> {
    let expected = ledger.map(Ledger::read).transpose()?.map(|ledger| ledger.genesis);
    let (genesis, records) = match log {
        Some(file) => {
            let shown = file.display();
            let bytes = std::fs::read(file).with_context(|| format!("cannot read {shown}"))?;
            let (genesis, records) = read_log(&bytes).with_context(|| {
                format!("{shown} is no whole log: ask for one that `vudo credit log` wrote")
            })?;
            (genesis, records.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
        }
        None => {
            let store = Store::open_existing(context)?;
            let ledger = store.ledger()?.context("this store is of no ledger yet")?;
            let records = store.entries_of(LOG_KIND)?;
            (ledger.genesis, records.into_iter().map(|(_, record)| record).collect())
        }
    };
    if let Some(expected) = &expected
        && *expected != genesis
    {
        let (found, expected) = (genesis.network(), expected.network());
        bail!("the log is of ledger {found}, and not of {expected}");
    }
    let mut decoded = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        match LogRecord::from_bytes(record) {
            Ok(record) => decoded.push(record),
            Err(error) => {
                return not_clean(context, index as u64, &format!("it is damaged: {error}"));
            }
        }
    }
    match audit(&genesis, &decoded) {
        Ok((report, _)) => clean(context, &genesis, &report, expected.is_none() && log.is_some()),
        Err(error) => not_clean(context, error.index, &error.refusal.to_string()),
    }
}

fn not_clean(context: &Context, index: u64, what: &str) -> Result<()> {
    if context.json {
        println!("{}", json!({ "clean": false, "entry": index, "what": what }));
    }
    bail!("the log is not clean: entry {index}: {what}. Everything before it is right")
}

fn clean(
    context: &Context,
    genesis: &Genesis,
    report: &AuditReport,
    is_unnamed: bool,
) -> Result<()> {
    let id = genesis.network();
    let AuditReport { entry_count, posting_count, account_count, lane_count, .. } = report;
    let (closed, disputed) = (report.closed_lane_count, report.disputed_lane_count);
    let (credit, loss) = (report.credit, report.loss);
    if context.json {
        let shown = json!({
            "clean": true,
            "ledger": id.to_string(),
            "entries": entry_count,
            "postings": posting_count,
            "accounts": account_count,
            "lanes": lane_count,
            "closed_lanes": closed,
            "disputed_lanes": disputed,
            "credit": credit.to_string(),
            "loss": loss.to_string(),
        });
        println!("{shown}");
        return Ok(());
    }
    println!("clean: {entry_count} entries of ledger {id}, each signed by a quorum");
    println!("{posting_count} postings, which add up to 0, between {account_count} accounts");
    println!("{lane_count} lanes, {closed} closed, {disputed} spent twice");
    println!("{credit} units are owed in all; {loss} were lost to devices that spent twice");
    if is_unnamed {
        println!("the ledger was taken from the log itself: compare its id, or give --ledger");
    }
    Ok(())
}
