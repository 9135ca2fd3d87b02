//! `get`, `blame`, `set`, `delete`, `list` and `stats`: what works on documents.

use std::io::Write;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use vudo_crdt::{GenSchema, Value};
use vudo_state::{Database, Query, Record};

use crate::output::{date_of, record_to_json, value_to_json};
use crate::{Context, rights, values};

/// A document on the command line: `Task/milk`.
#[derive(Clone)]
pub(crate) struct Address {
    gen_name: String,
    key: String,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        match text.split_once('/') {
            Some((gen_name, key)) if !gen_name.is_empty() && !key.is_empty() => {
                Ok(Address { gen_name: gen_name.to_owned(), key: key.to_owned() })
            }
            _ => Err(format!("'{text}' names no document: write Gen/key, as in Task/milk")),
        }
    }
}

/// What is done to a field: `title=milk`, `votes+=1`, `votes-=1`.
#[derive(Clone)]
pub(crate) struct Assignment {
    field: String,
    operator: Operator,
    text: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Set,
    Add,
    Subtract,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(assignment: &str) -> Result<Assignment, String> {
        let Some((name, text)) = assignment.split_once('=') else {
            return Err(format!("'{assignment}' sets nothing: write field=value or counter+=1"));
        };
        let (field, operator) = match name.strip_suffix('+') {
            Some(field) => (field, Operator::Add),
            None => match name.strip_suffix('-') {
                Some(field) => (field, Operator::Subtract),
                None => (name, Operator::Set),
            },
        };
        Ok(Assignment { field: field.to_owned(), operator, text: text.to_owned() })
    }
}

impl Assignment {
    /// The value to write; what is taken from a counter is negative.
    fn value(&self, gen_schema: &GenSchema) -> Result<Value> {
        let Some(field) = gen_schema.field(&self.field) else {
            let known: Vec<&str> = gen_schema.fields.iter().map(|field| &*field.name).collect();
            bail!("{} has no field '{}'; it has {}", gen_schema.name, self.field, known.join(", "));
        };
        match (field.strategy.is_counter(), self.operator) {
            (true, Operator::Set) => {
                bail!("'{}' is a counter: add to it, as in {}+=1", field.name, field.name)
            }
            (false, Operator::Add | Operator::Subtract) => {
                bail!("'{}' is no counter: set it, as in {}=value", field.name, field.name)
            }
            _ => {}
        }
        let value = values::parse(field, &self.text)?;
        Ok(match (self.operator, value) {
            (Operator::Subtract, Value::Int(amount)) => Value::Int(-amount),
            (Operator::Subtract, Value::Float(amount)) => Value::Float(-amount),
            (_, value) => value,
        })
    }
}

/// Opens a store that exists: a mistyped folder must not become a new store.
pub(crate) fn open(context: &Context) -> Result<Database> {
    if !context.store.exists() {
        bail!(
            "there is no store {}: create it with `vudo init FILE.dol`, or name another one with \
             --store",
            context.store.display()
        );
    }
    rights::resolve(Database::open(&context.store)?, &context.namespace)
}

/// A Gen that the store knows.
pub(crate) fn gen_schema(database: &Database, name: &str) -> Result<GenSchema> {
    database.gen_schema(name).with_context(|| {
        let schema = database.schema();
        let names: Vec<&str> = schema.gens.iter().map(|one| one.name.as_str()).collect();
        match names.is_empty() {
            true => "the store knows no Gens yet: `vudo init FILE.dol` teaches it some".to_owned(),
            false => format!("the store knows {}", names.join(", ")),
        }
    })
}

pub(crate) fn get(
    database: &Database,
    is_json: bool,
    address: &Address,
    pin: Option<&str>,
    output: &mut dyn Write,
) -> Result<()> {
    let gen_schema = gen_schema(database, &address.gen_name)?;
    let record = match pin {
        None => database.read(&gen_schema, &database.document_id(&address.key))?,
        Some(pin) => database.snapshot_of_pin(pin)?.read(&gen_schema, &address.key)?,
    };
    let record =
        record.with_context(|| format!("there is no {}/{}", address.gen_name, address.key))?;
    if is_json {
        writeln!(output, "{}", record_to_json(&record))?;
    } else {
        let mut fields = record.fields.iter();
        fields.try_for_each(|(name, value)| writeln!(output, "{name} = {value}"))?;
    }
    Ok(())
}

/// Every write to a field that the store retains, the latest first.
pub(crate) fn blame(
    database: &Database,
    is_json: bool,
    address: &Address,
    field: &str,
    output: &mut dyn Write,
) -> Result<()> {
    let gen_schema = gen_schema(database, &address.gen_name)?;
    let id = database.document_id(&address.key);
    let writes = database.blame(&gen_schema, &id, field)?;
    if writes.is_empty() {
        let Address { gen_name, key } = address;
        bail!("nobody has written {gen_name}/{key}.{field}, as far as this store knows");
    }
    for write in writes {
        let value = write.value.as_ref();
        if is_json {
            let line = json!({
                "replica": hexadecimal(&write.replica.0),
                "number": write.number,
                "milliseconds": write.milliseconds,
                "value": value.map(value_to_json),
                "current": write.is_current,
                "set_aside": write.is_set_aside,
            });
            writeln!(output, "{line}")?;
            continue;
        }
        let verdict = match (write.is_current, write.is_set_aside) {
            (_, true) => "set aside",
            (true, _) => "counts",
            (false, _) => "beaten",
        };
        let value = value.map_or_else(|| "an amount".to_owned(), Value::to_string);
        writeln!(
            output,
            "{verdict}: {value}, by {} in its change {}, on {}",
            write.replica,
            write.number,
            date_of(write.milliseconds)
        )?;
    }
    Ok(())
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn set(
    database: &Database,
    is_json: bool,
    address: &Address,
    fields: &[Assignment],
    output: &mut dyn Write,
) -> Result<()> {
    let gen_schema = gen_schema(database, &address.gen_name)?;
    let values: Vec<Value> =
        fields.iter().map(|field| field.value(&gen_schema)).collect::<Result<_>>()?;
    let key = address.key.as_str();
    let record = database.transaction(|transaction| {
        if transaction.read(&gen_schema, key)?.is_none() {
            transaction.create(&gen_schema, key)?;
        }
        for (field, value) in fields.iter().zip(values) {
            transaction.write(&gen_schema, key, &field.field, value)?;
        }
        transaction.read(&gen_schema, key)
    })?;
    if let (true, Some(record)) = (is_json, record) {
        writeln!(output, "{}", record_to_json(&record))?;
    }
    Ok(())
}

pub(crate) fn delete(database: &Database, address: &Address) -> Result<()> {
    let gen_schema = gen_schema(database, &address.gen_name)?;
    Ok(database.delete(&gen_schema, &database.document_id(&address.key))?)
}

pub(crate) fn list(
    database: &Database,
    is_json: bool,
    gen_name: &str,
    limit: Option<usize>,
    pin: Option<&str>,
    output: &mut dyn Write,
) -> Result<()> {
    let gen_schema = gen_schema(database, gen_name)?;
    let mut records = Vec::new();
    let limit = limit.unwrap_or(usize::MAX);
    match pin {
        Some(pin) => {
            let query = Query::of(&gen_schema).limit(limit);
            records = database.snapshot_of_pin(pin)?.query(&query)?;
        }
        None => database.for_each(&gen_schema, |record| {
            if records.len() < limit {
                records.push(record);
            }
            records.len() < limit
        })?,
    }
    for record in &records {
        let written = match is_json {
            true => writeln!(output, "{}", record_to_json(record)),
            false => writeln!(output, "{}", line_of(record)),
        };
        // A reader that has seen enough, such as `head`, closes the pipe.
        if written.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn line_of(record: &Record) -> String {
    let fields: Vec<String> =
        record.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{}  {}", record.key, fields.join("  "))
}

pub(crate) fn stats(database: &Database, is_json: bool, output: &mut dyn Write) -> Result<()> {
    let mut namespaces = Vec::new();
    for name in database.namespaces()? {
        let namespace = database.in_namespace(&name);
        let mut gens = Vec::new();
        for gen_schema in &database.schema().gens {
            let mut count = 0u64;
            namespace.for_each(gen_schema, |_| {
                count += 1;
                true
            })?;
            gens.push((gen_schema.name.clone(), count));
        }
        let replication = database.replication(&name)?;
        let (vector, fingerprint) = replication.fingerprint()?;
        namespaces.push((name, gens, vector, fingerprint));
    }
    if is_json {
        let rows: Vec<_> = namespaces
            .iter()
            .map(|(name, gens, vector, fingerprint)| {
                let gens: serde_json::Map<String, serde_json::Value> =
                    gens.iter().map(|(name, count)| (name.clone(), json!(count))).collect();
                json!({
                    "namespace": name,
                    "documents": gens,
                    "replicas": vector.replica_count(),
                    "changes": vector.change_count(),
                    "fingerprint": fingerprint.to_string(),
                })
            })
            .collect();
        let replica = database.replica_key().to_string();
        let disk_bytes = database.disk_bytes();
        writeln!(
            output,
            "{}",
            json!({ "replica": replica, "disk_bytes": disk_bytes, "namespaces": rows })
        )?;
        return Ok(());
    }
    writeln!(output, "replica     {}", database.replica_key())?;
    writeln!(output, "on disk     {} bytes", database.disk_bytes())?;
    for (name, gens, vector, fingerprint) in namespaces {
        writeln!(output, "namespace   {name}")?;
        for (gen_name, count) in gens {
            writeln!(output, "  {gen_name:<16} {count} documents")?;
        }
        writeln!(output, "  {:<16} {}", "replicas", vector.replica_count())?;
        writeln!(output, "  {:<16} {}", "changes", vector.change_count())?;
        writeln!(output, "  {:<16} {fingerprint}", "fingerprint")?;
    }
    Ok(())
}
