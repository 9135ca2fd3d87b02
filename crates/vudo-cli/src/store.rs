//! The commands that work on one store: run here, or by the process that has the store open.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::json;
use vudo_state::{Database, Error};

use crate::rights::{self, RightsCommand};
use crate::{Context, data, examination, import, retention};

/// A command that works on one store.
#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// Import rows of a CSV file or lines of JSON.
    Import(import::Options),
    /// Print a document.
    Get {
        /// As in Task/milk.
        document: data::Address,
        /// As it was at this pin.
        #[arg(long, value_name = "PIN")]
        at: Option<String>,
    },
    /// Say who wrote what a field shows, when, and what that beat.
    Blame {
        /// As in Task/milk.
        document: data::Address,
        /// The field, as in title.
        field: String,
    },
    /// Set fields of a document, which is created where there is none.
    ///
    /// `title=milk` sets a field; `votes+=2` and `votes-=1` add to a counter.
    Set {
        /// As in Task/milk.
        document: data::Address,
        /// As in title=milk or votes+=1.
        #[arg(required = true)]
        fields: Vec<data::Assignment>,
    },
    /// Delete a document.
    Delete {
        /// As in Task/milk.
        document: data::Address,
    },
    /// List the documents of a Gen, ascending by key.
    List {
        /// The Gen.
        gen_name: String,
        /// At most so many.
        #[arg(long)]
        limit: Option<usize>,
        /// As they were at this pin.
        #[arg(long, value_name = "PIN")]
        at: Option<String>,
    },
    /// Say what the store holds.
    Stats,
    /// Remember this moment of the namespace under a name, to look at it later with `--at`.
    ///
    /// A pin of the same name is replaced. What a pin needs stays when the store is compacted.
    Pin {
        /// The name.
        name: String,
    },
    /// Forget a pin.
    Unpin {
        /// Its name.
        name: String,
    },
    /// List the pins of the namespace.
    Pins,
    /// Drop the changes that nothing needs any more, and give the room back.
    ///
    /// The store can be used meanwhile. A peer that has not synced for so long that changes it lacks have
    /// been dropped takes this store's checkpoint with the next sync. A namespace with owners is compacted
    /// where this store's key owns it, or an owner has certified it (`vudo invite KEY --device`): what is
    /// in effect then stays so, whoever is revoked later.
    Compact,
    /// Write everything into a folder that can be opened as a store, which writes under its own key.
    Backup {
        /// The folder, which must not exist.
        folder: PathBuf,
    },
    /// Read everything that is on disk, and name what is damaged.
    Verify,
    /// Mend what is damaged, as far as this store itself has what it takes.
    Repair {
        /// Cut off a damaged log in front of the damage as well, so that peers can send again what
        /// follows.
        ///
        /// Documents show less until a peer has been synced with. What can be read behind the damage
        /// is kept: when all peers have been synced with, `vudo adopt` writes again what none of them
        /// had. The store goes on under a new key.
        #[arg(long)]
        cut_log: bool,
    },
    #[command(flatten)]
    Rights(RightsCommand),
    /// Say what this store wrote that no other one has acknowledged as durable.
    Outbox {
        /// Name at most so many changes.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// What `vudo doctor` asks of the process that has the store.
    #[command(hide = true)]
    Examine,
}

impl StoreCommand {
    /// The command with its files named as they are named in a folder.
    #[must_use]
    pub(crate) fn in_folder(mut self, folder: &Path) -> StoreCommand {
        match &mut self {
            StoreCommand::Backup { folder: named } => *named = folder.join(&*named),
            StoreCommand::Import(options) => options.move_to(folder),
            StoreCommand::Rights(command) => command.move_to(folder),
            _ => {}
        }
        self
    }
}

/// Opens the store and runs a command on it, or lets the process that has it open do so.
pub(crate) fn open_and_run(context: &Context, command: StoreCommand) -> Result<()> {
    match data::open(context) {
        Ok(database) => {
            let mut output = std::io::BufWriter::new(std::io::stdout().lock());
            if let StoreCommand::Repair { cut_log: true } = command {
                return cut_log(database, context, &mut output);
            }
            run(&database, context, command, &mut output, &mut std::io::stderr())?;
            output.flush()?;
            Ok(())
        }
        Err(error) => match error.downcast_ref::<Error>() {
            #[cfg(unix)]
            Some(Error::InUse { .. }) if crate::control::forward(context)? => Ok(()),
            _ => Err(error),
        },
    }
}

/// Runs a command on a store. What it prints goes to `output`, and to `errors` what is wrong with
/// rows that it leaves out.
pub(crate) fn run(
    database: &Database,
    context: &Context,
    command: StoreCommand,
    output: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<()> {
    let is_json = context.json;
    match command {
        StoreCommand::Import(options) => import::run(database, is_json, &options, output, errors),
        StoreCommand::Get { document, at } => {
            data::get(database, is_json, &document, at.as_deref(), output)
        }
        StoreCommand::Blame { document, field } => {
            data::blame(database, is_json, &document, &field, output)
        }
        StoreCommand::Set { document, fields } => {
            data::set(database, is_json, &document, &fields, output)
        }
        StoreCommand::Delete { document } => data::delete(database, &document),
        StoreCommand::List { gen_name, limit, at } => {
            data::list(database, is_json, &gen_name, limit, at.as_deref(), output)
        }
        StoreCommand::Stats => data::stats(database, is_json, output),
        StoreCommand::Pin { name } => Ok(database.pin(&name)?),
        StoreCommand::Unpin { name } => retention::unpin(database, &name),
        StoreCommand::Pins => retention::pins(database, is_json, output),
        StoreCommand::Compact => retention::compact(database, is_json, output),
        StoreCommand::Backup { folder } => backup(database, is_json, &folder, output),
        StoreCommand::Verify => verify(database, is_json, output),
        StoreCommand::Repair { cut_log: false } => repair(database, is_json, output),
        StoreCommand::Repair { cut_log: true } => {
            bail!("the store is in use: stop the process that has it open, then cut its log")
        }
        StoreCommand::Rights(command) => rights::run(database, is_json, command, output),
        StoreCommand::Outbox { limit } => outbox(database, is_json, limit, output),
        StoreCommand::Examine => Ok(writeln!(output, "{}", examination::of(database)?.to_json())?),
    }
}

fn backup(database: &Database, is_json: bool, folder: &Path, output: &mut dyn Write) -> Result<()> {
    let report = database.backup(folder)?;
    let (entries, bytes) = (report.entries, report.bytes);
    match is_json {
        true => writeln!(output, "{}", json!({ "entries": entries, "bytes": bytes }))?,
        false => writeln!(output, "{bytes} bytes in {}", folder.display())?,
    }
    Ok(())
}

fn verify(database: &Database, is_json: bool, output: &mut dyn Write) -> Result<()> {
    let report = database.verify()?;
    if is_json {
        let found = json!({
            "namespaces": report.namespaces,
            "documents": report.documents,
            "changes": report.changes,
            "signatures": report.signatures,
            "damages": report.damages,
        });
        writeln!(output, "{found}")?;
    } else {
        report.damages.iter().try_for_each(|damage| writeln!(output, "damaged: {damage}"))?;
        let (documents, changes) = (report.documents, report.changes);
        writeln!(output, "{documents} documents and {changes} changes read")?;
    }
    match report.damages.len() {
        0 => Ok(()),
        count => {
            output.flush()?;
            bail!(
                "{count} places of the store are damaged; everything else can be read. `vudo repair` \
                 mends what it can; else restore a backup, or sync a new store from a peer"
            )
        }
    }
}

fn repair(database: &Database, is_json: bool, output: &mut dyn Write) -> Result<()> {
    let report = database.repair()?;
    if is_json {
        writeln!(output, "{}", json!({ "repaired": report.repaired, "left": report.left }))?;
    } else {
        report.repaired.iter().try_for_each(|place| writeln!(output, "repaired: {place}"))?;
        report.left.iter().try_for_each(|damage| writeln!(output, "damaged: {damage}"))?;
        if report.repaired.is_empty() && report.left.is_empty() {
            writeln!(output, "nothing is damaged")?;
        }
    }
    match report.left.len() {
        0 => Ok(()),
        count => {
            output.flush()?;
            bail!(
                "{count} places of the store are damaged still: `vudo repair --cut-log` lets peers \
                 send again what a damaged log had; else restore a backup, or sync a new store from a \
                 peer"
            )
        }
    }
}

fn cut_log(database: Database, context: &Context, output: &mut dyn Write) -> Result<()> {
    database.repair()?;
    let report = database.cut_damaged_logs()?;
    // Opened again it has its new key, and tables of what is left of its logs.
    let database = data::open(context)?;
    if context.json {
        let cut = report.cut.iter().map(
            |log| json!({ "namespace": log.namespace, "kept": log.kept, "orphans": log.orphans }),
        );
        let cut: Vec<_> = cut.collect();
        writeln!(output, "{}", json!({ "cut": cut, "left": report.left }))?;
    } else {
        for log in &report.cut {
            let (namespace, kept, orphans) = (&log.namespace, log.kept, log.orphans);
            writeln!(
                output,
                "namespace '{namespace}': {kept} changes stay, {orphans} behind the damage are kept \
                 aside. Sync with all peers, then `vudo adopt` writes again what none of them had"
            )?;
        }
        report.left.iter().try_for_each(|damage| writeln!(output, "damaged: {damage}"))?;
    }
    output.flush()?;
    let left = report.left.len() + database.verify()?.damages.len();
    match (left, report.cut.is_empty()) {
        (0, true) => Ok(writeln!(output, "no log is damaged")?),
        (0, false) => Ok(()),
        _ => bail!("the store is damaged still: `vudo verify` names where. Restore a backup"),
    }
}

fn outbox(database: &Database, is_json: bool, limit: usize, output: &mut dyn Write) -> Result<()> {
    let outbox = database.outbox()?;
    let pending_count = outbox.pending_count();
    let pending = outbox.pending(limit)?;
    if is_json {
        let changes: Vec<_> = (pending.iter())
            .map(|change| {
                let documents: Vec<String> = (change.documents.iter())
                    .map(|(gen_name, key)| format!("{gen_name}/{key}"))
                    .collect();
                json!({ "number": change.number, "documents": documents })
            })
            .collect();
        let peers: serde_json::Map<String, serde_json::Value> = (outbox.peers().iter())
            .map(|(peer, number)| (peer.to_string(), json!(number)))
            .collect();
        let found = json!({ "pending": pending_count, "changes": changes, "acknowledged": peers });
        writeln!(output, "{found}")?;
        return Ok(());
    }
    for (peer, number) in outbox.peers() {
        writeln!(output, "{peer} has everything up to change {number}")?;
    }
    for change in &pending {
        let documents: Vec<String> =
            (change.documents.iter()).map(|(gen_name, key)| format!("{gen_name}/{key}")).collect();
        writeln!(output, "change {}: {}", change.number, documents.join(", "))?;
    }
    writeln!(output, "{pending_count} changes are nowhere else yet")?;
    Ok(())
}
