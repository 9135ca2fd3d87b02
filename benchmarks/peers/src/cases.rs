//! The cases, for whatever implements the traits.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

/// What a case measured, by name; the unit is the end of the name.
pub type Figures = BTreeMap<&'static str, f64>;

const OPERATION_COUNT: i64 = 10_000;
const RECORD_COUNT: i64 = 100_000;
/// Few, because each waits for the disk.
const DURABLE_COUNT: i64 = 100;
/// Within one process; the first runs also pay for cold caches.
const RUN_COUNT: usize = 7;

/// A replica of a map from strings to integers.
pub trait Replica: Sized {
    fn new(number: u8) -> Result<Self>;
    /// One change of one write; gives the bytes that a peer needs.
    fn put(&mut self, key: &str, value: i64) -> Result<Vec<u8>>;
    /// All pairs, each in a change of its own or all in one.
    fn put_all(&mut self, pairs: &[(String, i64)], each_alone: bool) -> Result<()>;
    /// Everything, for a peer that has nothing.
    fn export(&mut self) -> Result<Vec<u8>>;
    fn merge(&mut self, bytes: &[u8]) -> Result<()>;
    fn get(&self, key: &str) -> Result<Option<i64>>;
}

/// Many records `{id, name, value}` under keys, as an application keeps them.
pub trait Records: Sized {
    /// `folder` is for what cannot be kept in memory alone.
    fn fill(folder: &Path, count: i64) -> Result<Self>;
    /// Saves into the folder where that was not done while filling; gives the bytes of what a
    /// device would keep or send.
    fn save(&mut self, folder: &Path) -> Result<u64>;
    fn open(folder: &Path) -> Result<Self>;
    fn read(&self, number: i64) -> Result<Record>;
}

/// What an application does with its records all day, on a disk.
pub trait State: Records {
    /// Whether a commit waits for the disk; otherwise the disk has it some moments later.
    fn set_durable(&mut self, is_durable: bool) -> Result<()>;
    /// One transaction.
    fn create(&mut self, numbers: Range<i64>) -> Result<()>;
    /// One transaction that gives records a value.
    fn write(&mut self, numbers: Range<i64>, value: i64) -> Result<()>;
    /// All records with all their fields; gives the sum of their values.
    fn list(&self) -> Result<i64>;
    /// A copy of the whole store that can be opened, beside the store in use.
    fn back_up(&self, folder: &Path) -> Result<()>;
    /// Waits until the disk has everything.
    fn flush(&mut self) -> Result<()>;
}

/// A document of its own for a single record.
pub trait SingleRecord: Sized {
    fn with_record(number: i64) -> Result<Self>;
    fn record(&self) -> Result<Record>;
}

/// A counter that replicas increment.
pub trait Counting: Sized {
    /// The counter's beginning, from which every replica starts.
    fn beginning() -> Result<Vec<u8>>;
    fn begin(beginning: &[u8], number: u8) -> Result<Self>;
    /// One increment in a change of its own.
    fn increment(&mut self) -> Result<()>;
    fn export_increments(&mut self) -> Result<Vec<u8>>;
    fn merge_increments(&mut self, bytes: &[u8]) -> Result<()>;
    fn value(&self) -> Result<i64>;
}

/// The fields of one record.
#[derive(Debug, PartialEq)]
pub struct Record {
    pub id: i64,
    pub name: String,
    pub value: i64,
}

impl Record {
    pub fn numbered(number: i64) -> Record {
        Record { id: number, name: format!("Record {number}"), value: number * 2 }
    }

    pub fn key(number: i64) -> String {
        format!("record{number}")
    }
}

/// Merging 10,000 writes into an empty replica, all in one change.
pub fn merge_one_change<R: Replica>() -> Result<Figures> {
    let (milliseconds, _) = merge::<R>("key", false)?;
    Ok(Figures::from([("merge_one_change_ms", milliseconds)]))
}

/// Merging 10,000 writes into an empty replica, each in a change of its own.
pub fn merge_single_op_changes<R: Replica>() -> Result<Figures> {
    let (milliseconds, bytes) = merge::<R>("key", true)?;
    Ok(Figures::from([
        ("merge_single_op_changes_ms", milliseconds),
        ("single_op_change_batched_bytes", bytes as f64 / OPERATION_COUNT as f64),
    ]))
}

/// Merging 10,000 elements that were added to a set, which is a map of its elements.
pub fn merge_set_adds<R: Replica>() -> Result<Figures> {
    let (milliseconds, _) = merge::<R>("item", false)?;
    Ok(Figures::from([("merge_set_adds_ms", milliseconds)]))
}

/// The time of a merge, and the bytes that were merged.
fn merge<R: Replica>(prefix: &str, each_alone: bool) -> Result<(f64, usize)> {
    let pairs = pairs(prefix);
    let mut writer = R::new(1)?;
    writer.put_all(&pairs, each_alone)?;
    let bytes = writer.export()?;
    let milliseconds = median(|| {
        let mut reader = R::new(2)?;
        let start = cpu_milliseconds();
        reader.merge(&bytes)?;
        check_sum(&reader, &pairs)?;
        Ok(cpu_milliseconds() - start)
    })?;
    Ok((milliseconds, bytes.len()))
}

/// Two replicas in one process: every write is a change, shipped as bytes and merged at once.
pub fn sync<R: Replica>() -> Result<Figures> {
    let pairs = pairs("key");
    let (mut writer, mut reader) = (R::new(1)?, R::new(2)?);
    let mut byte_count = 0;
    let start = cpu_milliseconds();
    for (key, value) in &pairs {
        let bytes = writer.put(key, *value)?;
        byte_count += bytes.len();
        reader.merge(&bytes)?;
    }
    let seconds = (cpu_milliseconds() - start) / 1e3;
    check_sum(&reader, &pairs)?;
    Ok(Figures::from([
        ("sync_single_ops_per_s", pairs.len() as f64 / seconds),
        ("single_op_change_alone_bytes", byte_count as f64 / pairs.len() as f64),
    ]))
}

/// Memory of 100,000 records of which every field was read, and their bytes when saved.
pub fn records<R: Records>() -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let before = resident_mebibytes()?;
    let mut records = R::fill(folder.path(), RECORD_COUNT)?;
    read_all(&records)?;
    let grown = resident_mebibytes()? - before;
    let saved = records.save(folder.path())?;
    Ok(Figures::from([
        ("memory_100k_records_mib", grown),
        ("saved_record_bytes", saved as f64 / RECORD_COUNT as f64),
    ]))
}

/// Memory of 100,000 documents of one record each.
pub fn document_per_record<D: SingleRecord>() -> Result<Figures> {
    let before = resident_mebibytes()?;
    let documents: Vec<D> = (0..RECORD_COUNT).map(D::with_record).collect::<Result<_>>()?;
    let grown = resident_mebibytes()? - before;
    for (number, document) in documents.iter().enumerate().step_by(1_000) {
        ensure!(document.record()? == Record::numbered(number as i64), "document {number}");
    }
    // Freeing this many documents takes longer than the case, and the process ends anyway.
    std::mem::forget(documents);
    Ok(Figures::from([("memory_100k_documents_mib", grown)]))
}

/// Opening 100,000 saved records and reading one, and then reading every field of all.
pub fn open<R: Records>() -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut records = R::fill(folder.path(), RECORD_COUNT)?;
    records.save(folder.path())?;
    drop(records);
    let start = cpu_milliseconds();
    let records = R::open(folder.path())?;
    ensure!(records.read(777)? == Record::numbered(777), "record 777 is not what was saved");
    let opened = cpu_milliseconds();
    read_all(&records)?;
    let read = cpu_milliseconds();
    Ok(Figures::from([
        ("open_100k_read_one_ms", opened - start),
        ("open_100k_read_all_ms", read - start),
    ]))
}

/// Merging 10,000 increments, each a change of its own, into a replica that made none.
pub fn counter<C: Counting>() -> Result<Figures> {
    let beginning = C::beginning()?;
    let mut writer = C::begin(&beginning, 1)?;
    for _ in 0..OPERATION_COUNT {
        writer.increment()?;
    }
    let bytes = writer.export_increments()?;
    let milliseconds = median(|| {
        let mut reader = C::begin(&beginning, 2)?;
        let start = cpu_milliseconds();
        reader.merge_increments(&bytes)?;
        let value = reader.value()?;
        let elapsed = cpu_milliseconds() - start;
        ensure!(value == OPERATION_COUNT, "the counter shows {value}");
        Ok(elapsed)
    })?;
    Ok(Figures::from([("merge_10k_increments_ms", milliseconds)]))
}

/// What single operations cost in a store of 10,000 records on a disk. Time is that of the processor,
/// but for durable writes, which mostly wait.
pub fn state<S: State>() -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut store = S::fill(folder.path(), OPERATION_COUNT)?;
    store.set_durable(false)?;
    let expected: i64 = (0..OPERATION_COUNT).map(|number| Record::numbered(number).value).sum();
    let list_milliseconds = median(|| {
        let start = cpu_milliseconds();
        ensure!(store.list()? == expected, "the values do not add up to {expected}");
        Ok(cpu_milliseconds() - start)
    })?;
    let read_milliseconds = median(|| {
        let start = cpu_milliseconds();
        for number in 0..OPERATION_COUNT {
            let record = store.read(number)?;
            ensure!(record == Record::numbered(number), "record {number} reads as {record:?}");
        }
        Ok(cpu_milliseconds() - start)
    })?;
    let mut value = 0;
    let mut write_each = |store: &mut S, count: i64, each: i64| {
        median(|| {
            value += 1;
            let start = cpu_milliseconds();
            for first in (0..count).step_by(usize::try_from(each)?) {
                store.write(first..first + each, value)?;
            }
            store.flush()?;
            let elapsed = cpu_milliseconds() - start;
            ensure!(store.read(count - 1)?.value == value, "the last write is missing");
            Ok(elapsed)
        })
    };
    let write_milliseconds = write_each(&mut store, OPERATION_COUNT, 1)?;
    let transaction_milliseconds = write_each(&mut store, OPERATION_COUNT, 100)?;
    let mut first = OPERATION_COUNT;
    let create_milliseconds = median(|| {
        let start = cpu_milliseconds();
        for number in first..first + OPERATION_COUNT {
            store.create(number..number + 1)?;
        }
        store.flush()?;
        let elapsed = cpu_milliseconds() - start;
        first += OPERATION_COUNT;
        let last = store.read(first - 1)?;
        ensure!(last == Record::numbered(first - 1), "the last record reads as {last:?}");
        Ok(elapsed)
    })?;
    let copies = tempfile::tempdir()?;
    let mut copy_count = 0;
    let back_up_milliseconds = median(|| {
        copy_count += 1;
        let copy = copies.path().join(copy_count.to_string());
        let start = cpu_milliseconds();
        store.back_up(&copy)?;
        Ok(cpu_milliseconds() - start)
    })?;
    store.set_durable(true)?;
    let mut durable_value = 0;
    let durable_microseconds = median(|| {
        // A store may find out that nothing has changed, and then waits for nothing.
        durable_value -= 1;
        let start = Instant::now();
        for number in 0..DURABLE_COUNT {
            store.write(number..number + 1, durable_value)?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / DURABLE_COUNT as f64)
    })?;
    let microseconds_each = 1e3 / OPERATION_COUNT as f64;
    Ok(Figures::from([
        ("state_create_us", create_milliseconds * microseconds_each),
        ("state_read_us", read_milliseconds * microseconds_each),
        ("state_write_us", write_milliseconds * microseconds_each),
        ("state_write_in_100_us", transaction_milliseconds * microseconds_each),
        ("state_durable_write_wall_us", durable_microseconds),
        ("state_list_10k_ms", list_milliseconds),
        ("state_back_up_80k_ms", back_up_milliseconds),
    ]))
}

/// Two writers' keys in turn.
fn pairs(prefix: &str) -> Vec<(String, i64)> {
    let key = |number: i64| {
        let side = if number % 2 == 0 { 'a' } else { 'b' };
        (format!("{prefix}_{side}_{}", number / 2), number)
    };
    (0..OPERATION_COUNT).map(key).collect()
}

fn check_sum<R: Replica>(replica: &R, pairs: &[(String, i64)]) -> Result<()> {
    let mut sum = 0;
    for (key, _) in pairs {
        sum += replica.get(key)?.with_context(|| format!("{key} is missing"))?;
    }
    let expected: i64 = pairs.iter().map(|(_, value)| value).sum();
    ensure!(sum == expected, "the values add up to {sum}");
    Ok(())
}

fn read_all<R: Records>(records: &R) -> Result<()> {
    for number in 0..RECORD_COUNT {
        let record = records.read(number)?;
        ensure!(record == Record::numbered(number), "record {number} reads as {record:?}");
    }
    Ok(())
}

fn median(mut run: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut samples = (0..RUN_COUNT).map(|_| run()).collect::<Result<Vec<f64>>>()?;
    samples.sort_by(f64::total_cmp);
    Ok(samples[RUN_COUNT / 2])
}

fn cpu_milliseconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn resident_mebibytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")
        .context("memory is measured where the system has /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: f64 = kibibytes.context("the status has no VmRSS")?.parse()?;
    Ok(kibibytes / 1024.0)
}
