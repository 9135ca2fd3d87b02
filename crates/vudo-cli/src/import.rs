//! `import`: rows of a CSV file, or lines of JSON, become documents.
//!
//! The file is read twice. The first pass finds everything that is wrong with it, so that a file
//! with a bad row is refused before anything is written; the second pass writes, at most
//! [`ROWS_PER_CHANGE`] documents a change.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use vudo_crdt::{GenSchema, Value};
use vudo_state::Database;

use crate::{data, values};

/// One change holds at most so many documents, so that no peer has to take a huge one.
const ROWS_PER_CHANGE: usize = 1_000;
/// After so many bad rows only their count is told.
const BAD_ROWS_SHOWN: usize = 20;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The file: .csv with a header line, or .jsonl with an object a line.
    file: PathBuf,
    /// The Gen that the rows become documents of.
    #[arg(long = "gen")]
    gen_name: String,
    /// The column that holds the key of the document.
    #[arg(long)]
    key: String,
    /// Import the good rows and leave the bad ones out; else one bad row stops everything.
    #[arg(long)]
    skip_bad: bool,
}

/// A row that can be written.
struct Row {
    key: String,
    fields: Vec<(String, Value)>,
}

/// A row that cannot.
struct BadRow {
    line: u64,
    reason: String,
}

impl Options {
    /// Names the file as it is named in a folder.
    pub(crate) fn move_to(&mut self, folder: &Path) {
        self.file = folder.join(&self.file);
    }
}

pub(crate) fn run(
    database: &Database,
    is_json: bool,
    options: &Options,
    output: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<()> {
    let gen_schema = data::gen_schema(database, &options.gen_name)?;
    let imported = import(database, &gen_schema, options, !is_json, errors)?;
    if is_json {
        let bad: Vec<_> = imported
            .bad
            .iter()
            .map(|bad| json!({ "line": bad.line, "reason": bad.reason }))
            .collect();
        writeln!(output, "{}", json!({ "imported": imported.count, "bad": bad }))?;
    } else {
        let (count, left_out) = (imported.count, imported.bad.len());
        writeln!(output, "{count} documents imported, {left_out} rows left out")?;
    }
    Ok(())
}

pub(crate) struct Imported {
    pub(crate) count: u64,
    bad: Vec<BadRow>,
}

/// Imports a whole CSV file, for the demo.
pub(crate) fn import_csv(
    database: &Database,
    gen_schema: &GenSchema,
    file: &Path,
    key: &str,
) -> Result<Imported> {
    let options = Options {
        file: file.to_owned(),
        gen_name: gen_schema.name.clone(),
        key: key.to_owned(),
        skip_bad: false,
    };
    import(database, gen_schema, &options, true, &mut std::io::stderr())
}

fn import(
    database: &Database,
    gen_schema: &GenSchema,
    options: &Options,
    is_for_people: bool,
    errors: &mut dyn Write,
) -> Result<Imported> {
    let file = &options.file;
    let mut bad = Vec::new();
    let mut keys = HashSet::new();
    let mut row_count = 0u64;
    read_rows(gen_schema, options, |line, row| {
        let problem = match row {
            Err(error) => Some(format!("{error:#}")),
            Ok(row) if !keys.insert(row.key.clone()) => {
                Some(format!("the key '{}' stands in an earlier row already", row.key))
            }
            Ok(row) => match database.read(gen_schema, &database.document_id(&row.key))? {
                Some(_) => Some(format!("{}/{} exists already", gen_schema.name, row.key)),
                None => None,
            },
        };
        row_count += 1;
        bad.extend(problem.map(|reason| BadRow { line, reason }));
        Ok(())
    })?;
    for row in bad.iter().take(BAD_ROWS_SHOWN) {
        writeln!(errors, "{}:{}: {}", file.display(), row.line, row.reason)?;
    }
    if bad.len() > BAD_ROWS_SHOWN {
        writeln!(errors, "... and {} more", bad.len() - BAD_ROWS_SHOWN)?;
    }
    if !bad.is_empty() && !options.skip_bad {
        bail!(
            "{} of {row_count} rows cannot be imported, so nothing was; mend them, or leave them \
             out with --skip-bad",
            bad.len()
        );
    }
    let bad_lines: HashSet<u64> = bad.iter().map(|row| row.line).collect();
    let progress = progress_bar(row_count - bad.len() as u64, is_for_people);
    let mut waiting = Vec::with_capacity(ROWS_PER_CHANGE);
    let mut count = 0;
    read_rows(gen_schema, options, |line, row| {
        if !bad_lines.contains(&line) {
            waiting.push(row?);
            count += 1;
        }
        if waiting.len() >= ROWS_PER_CHANGE {
            progress.inc(waiting.len() as u64);
            write_change(database, gen_schema, &mut waiting)?;
        }
        Ok(())
    })?;
    write_change(database, gen_schema, &mut waiting)?;
    progress.finish_and_clear();
    Ok(Imported { count, bad })
}

fn progress_bar(length: u64, is_for_people: bool) -> ProgressBar {
    if !is_for_people {
        return ProgressBar::hidden();
    }
    // Where standard error is no terminal, indicatif draws nothing.
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} documents, {eta} left");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn write_change(database: &Database, gen_schema: &GenSchema, rows: &mut Vec<Row>) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    database.transaction(|transaction| {
        for row in rows.drain(..) {
            transaction.create(gen_schema, &row.key)?;
            for (field, value) in row.fields {
                transaction.write(gen_schema, &row.key, &field, value)?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// Calls back for every row with the number of its line.
fn read_rows(
    gen_schema: &GenSchema,
    options: &Options,
    visit: impl FnMut(u64, Result<Row>) -> Result<()>,
) -> Result<()> {
    let path = &options.file;
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => read_csv(gen_schema, options, file, visit),
        Some("jsonl" | "ndjson") => read_json_lines(gen_schema, options, file, visit),
        _ => bail!("{}: only .csv and .jsonl can be imported", path.display()),
    }
}

fn read_csv(
    gen_schema: &GenSchema,
    options: &Options,
    file: File,
    mut visit: impl FnMut(u64, Result<Row>) -> Result<()>,
) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let headers = reader.headers().context("the header line")?.clone();
    let columns: Vec<&str> = headers.iter().map(str::trim).collect();
    if !columns.contains(&options.key.as_str()) {
        bail!("there is no column '{}'; there are {}", options.key, columns.join(", "));
    }
    for column in &columns {
        if gen_schema.field(column).is_none() && *column != options.key {
            bail!("{} has no field for the column '{column}'", gen_schema.name);
        }
    }
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                visit(line, csv_row(gen_schema, &options.key, &columns, &record))?;
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                visit(line, Err(error.into()))?;
            }
        }
    }
    Ok(())
}

fn csv_row(
    gen_schema: &GenSchema,
    key_column: &str,
    columns: &[&str],
    record: &csv::StringRecord,
) -> Result<Row> {
    if record.len() != columns.len() {
        bail!("{} columns where the header has {}", record.len(), columns.len());
    }
    let mut row = Row { key: String::new(), fields: Vec::new() };
    for (column, text) in columns.iter().zip(record) {
        if *column == key_column {
            row.key = text.to_owned();
        }
        // An empty cell is no value, so that a number may be missing.
        if let Some(field) = gen_schema.field(column).filter(|_| !text.is_empty()) {
            row.fields.push((field.name.to_string(), values::parse(field, text)?));
        }
    }
    checked_key(row)
}

fn read_json_lines(
    gen_schema: &GenSchema,
    options: &Options,
    file: File,
    mut visit: impl FnMut(u64, Result<Row>) -> Result<()>,
) -> Result<()> {
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let row = match line {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => json_row(gen_schema, &options.key, &line),
            Err(error) => Err(error.into()),
        };
        visit(index as u64 + 1, row)?;
    }
    Ok(())
}

fn json_row(gen_schema: &GenSchema, key_name: &str, line: &str) -> Result<Row> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(line).context("not a JSON object")?;
    let mut row = Row { key: String::new(), fields: Vec::new() };
    for (name, json) in &object {
        if name == key_name {
            row.key = json.as_str().map_or_else(|| json.to_string(), str::to_owned);
        }
        match gen_schema.field(name) {
            Some(field) => {
                let value = values::from_json(field, json)?;
                row.fields.extend(value.map(|value| (name.clone(), value)));
            }
            None if name == key_name => {}
            None => bail!("{} has no field '{name}'", gen_schema.name),
        }
    }
    checked_key(row)
}

fn checked_key(row: Row) -> Result<Row> {
    let longest = vudo_crdt::limits::MAX_KEY_BYTES;
    match row.key.len() {
        0 => bail!("the key is empty"),
        length if length > longest => bail!("the key has {length} bytes, at most {longest} fit"),
        _ => Ok(row),
    }
}
