//! What a store keeps of its past: compaction, and pins of moments to return to.

use std::io::Write;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use vudo_state::{CompactionStage, Database};

/// Drops what is not needed any more. Where standard error is no terminal, progress is not shown.
pub(crate) fn compact(database: &Database, is_json: bool, output: &mut dyn Write) -> Result<()> {
    let mut compaction = database.compaction()?;
    let progress = if is_json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    progress.set_style(ProgressStyle::with_template("{msg} {wide_bar} {percent} %")?);
    while let Some(step) = compaction.step()? {
        let stage = match step.stage {
            CompactionStage::Marking => "reading",
            CompactionStage::Sweeping => "dropping",
            CompactionStage::Shrinking => "shrinking",
        };
        progress.set_message(format!("{stage} {}", step.namespace));
        progress.set_length(step.total_count);
        progress.set_position(step.done_count);
    }
    progress.finish_and_clear();
    let report = compaction.report();
    if is_json {
        let left_alone: serde_json::Map<String, serde_json::Value> = (report.left_alone.iter())
            .map(|(namespace, why)| (namespace.clone(), why.to_string().into()))
            .collect();
        let found = json!({
            "namespaces": report.namespaces,
            "changes": report.changes,
            "dropped_changes": report.dropped_changes,
            "log_bytes": report.log_bytes,
            "freed_log_bytes": report.freed_log_bytes,
            "disk_bytes_before": report.disk_bytes_before,
            "disk_bytes": report.disk_bytes,
            "shrunk": report.is_shrunk,
            "left_alone": left_alone,
        });
        writeln!(output, "{found}")?;
        return Ok(());
    }
    writeln!(
        output,
        "{} of {} changes dropped; {} bytes on disk, which were {}",
        report.dropped_changes, report.changes, report.disk_bytes, report.disk_bytes_before
    )?;
    for (namespace, why) in &report.left_alone {
        writeln!(output, "{namespace} stays as it is: {why}")?;
    }
    if !report.is_shrunk {
        writeln!(
            output,
            "the store was being read all the time, so its file kept its size: what is free in it \
             is used again"
        )?;
    }
    Ok(())
}

/// Lists the pins of a namespace.
pub(crate) fn pins(database: &Database, is_json: bool, output: &mut dyn Write) -> Result<()> {
    for (name, vector) in database.pins()? {
        let changes = vector.change_count();
        match is_json {
            true => writeln!(output, "{}", json!({ "name": name, "changes": changes }))?,
            false => writeln!(output, "{name}  {changes} changes")?,
        }
    }
    Ok(())
}

/// Forgets a pin.
pub(crate) fn unpin(database: &Database, name: &str) -> Result<()> {
    if !database.unpin(name)? {
        return Err(vudo_state::Error::UnknownPin(name.to_owned()).into());
    }
    Ok(())
}
