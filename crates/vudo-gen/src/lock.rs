//! Field numbers: given once, kept in a lock file beside the source, never given again.
//!
//! Stored and sent data name a field by its number, so that a number must mean the same field for
//! ever. `task.dol` has its lock in `task.dol.lock`, to be committed: a line for each field that
//! there ever was, as `Task.title = 2 lww String`, sorted by name. Variants of enums have numbers in
//! the same way, without the words behind.
//!
//! Behind the number stands how the field merges and what it holds. A field of which either changes
//! gets a new number, and its old line stays under a name with the old number, `Task.title~2`: the
//! new field reads the old one, converted, until it is written itself.
//!
//! ```
//! use vudo_gen::lock::Lock;
//!
//! let mut lock = Lock::parse("Task.title = 2 lww String\nTask.gone = 7\n").unwrap();
//! assert_eq!(lock.number("Task", "title"), Some(2));
//! assert_eq!(lock.field("Task", "votes", "lww i32"), Some(8));
//! assert_eq!(lock.field("Task", "votes", "pn_counter i64"), Some(9));
//! assert_eq!(lock.predecessors("Task", "votes"), [(8, "lww i32")]);
//! assert!(lock.print().contains("Task.votes = 9 pn_counter i64\nTask.votes~8 = 8 lww i32\n"));
//! ```

use std::collections::BTreeMap;
use std::fmt;

use unicode_ident::is_xid_continue;
use vudo_crdt::limits::MAX_FIELD_NUMBER;

const HEADER: &str =
    "# The numbers of fields in stored and sent data. Commit this file; do not edit it.\n";

/// A longer lock file is refused: it holds more fields than ever were.
pub const LOCK_BYTES_MAX: usize = 16 << 20;

/// The numbers of one source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    gens: BTreeMap<String, GenLock>,
}

/// The numbers of one Gen. A number is in both maps, or in none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct GenLock {
    numbers: BTreeMap<String, Entry>,
    fields: BTreeMap<u32, String>,
}

/// What a line says of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    number: u32,
    /// Strategy and type; empty in old lock files, and for variants of enums.
    shape: String,
}

/// Why a text is no lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockError {
    /// It has more than [`LOCK_BYTES_MAX`] bytes.
    TooLong,
    /// A line is none of a lock file, such as one that a merge left behind.
    Line {
        /// From 1.
        line: usize,
    },
    /// A line names a field that has a number already.
    FieldTwice {
        /// From 1.
        line: usize,
        /// With its Gen.
        field: String,
    },
    /// Two fields of a Gen have one number: two branches took it.
    NumberTwice {
        /// From 1.
        line: usize,
        /// The number.
        number: u32,
        /// The field that has it first, with its Gen.
        first: String,
        /// The field that has it again, with its Gen.
        second: String,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::TooLong => write!(formatter, "it has more than {LOCK_BYTES_MAX} bytes"),
            LockError::Line { line } => write!(
                formatter,
                "line {line} is not of the form `Gen.field = number`, with a number from 1 to \
                 {MAX_FIELD_NUMBER}"
            ),
            LockError::FieldTwice { line, field } => {
                write!(formatter, "line {line} gives {field} a second number")
            }
            LockError::NumberTwice { line, number, first, second } => write!(
                formatter,
                "line {line} gives {second} the number {number}, which {first} has"
            ),
        }
    }
}

impl std::error::Error for LockError {}

impl Lock {
    /// Reads a lock file; an empty text is one without numbers.
    ///
    /// # Errors
    /// Says what is wrong with the first line that cannot be read.
    pub fn parse(text: &str) -> Result<Lock, LockError> {
        if text.len() > LOCK_BYTES_MAX {
            return Err(LockError::TooLong);
        }
        let mut lock = Lock::default();
        for (index, content) in text.lines().enumerate() {
            let (content, line) = (content.trim(), index + 1);
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (gen_name, field, number, shape) =
                parse_line(content).ok_or(LockError::Line { line })?;
            let numbers = lock.gens.entry(gen_name.to_owned()).or_default();
            let full_name = |field: &str| format!("{gen_name}.{field}");
            if let Some(first) = numbers.fields.get(&number) {
                let (first, second) = (full_name(first), full_name(field));
                return Err(LockError::NumberTwice { line, number, first, second });
            }
            if numbers.numbers.contains_key(field) {
                return Err(LockError::FieldTwice { line, field: full_name(field) });
            }
            numbers.insert(field, number, shape);
        }
        Ok(lock)
    }

    /// The number of a field or variant. A new one gets a number above all that its Gen ever had;
    /// `None` where there is none left.
    pub fn number(&mut self, gen_name: &str, field: &str) -> Option<u32> {
        self.field(gen_name, field, "")
    }

    /// The number of a field that merges in this way. A field that merged in another way before gets
    /// a new number; `None` where there is none left.
    pub fn field(&mut self, gen_name: &str, field: &str, shape: &str) -> Option<u32> {
        if !self.gens.contains_key(gen_name) {
            self.gens.insert(gen_name.to_owned(), GenLock::default());
        }
        let numbers = self.gens.get_mut(gen_name)?;
        if let Some(entry) = numbers.numbers.get_mut(field) {
            if entry.shape.is_empty() {
                shape.clone_into(&mut entry.shape);
            }
            if shape.is_empty() || entry.shape == shape {
                return Some(entry.number);
            }
        }
        let number = numbers.fields.last_key_value().map_or(1, |(highest, _)| highest + 1);
        if number > MAX_FIELD_NUMBER {
            return None;
        }
        if let Some(old) = numbers.numbers.remove(field) {
            numbers.insert(&format!("{field}~{}", old.number), old.number, &old.shape);
        }
        numbers.insert(field, number, shape);
        Some(number)
    }

    /// The numbers that a field had before, with strategy and type, from new to old.
    pub fn predecessors(&self, gen_name: &str, field: &str) -> Vec<(u32, &str)> {
        let Some(numbers) = self.gens.get(gen_name) else { return Vec::new() };
        let prefix = format!("{field}~");
        let range = numbers.numbers.range(prefix.clone()..);
        let mut found: Vec<(u32, &str)> = range
            .take_while(|(name, _)| name.starts_with(&prefix))
            .map(|(_, entry)| (entry.number, entry.shape.as_str()))
            .collect();
        found.sort_unstable_by(|left, right| right.cmp(left));
        found
    }

    /// Lets a field go by another name, with its number and those that it had before. Nothing happens
    /// where there is no such field, or one of the other name.
    pub fn rename(&mut self, gen_name: &str, from: &str, to: &str) {
        let Some(numbers) = self.gens.get_mut(gen_name) else { return };
        if numbers.numbers.contains_key(to) || !numbers.numbers.contains_key(from) {
            return;
        }
        let prefix = format!("{from}~");
        let mut names: Vec<String> = numbers.numbers.keys().cloned().collect();
        names.retain(|name| name == from || name.starts_with(&prefix));
        for name in names {
            if let Some(entry) = numbers.numbers.remove(&name) {
                let renamed = format!("{to}{}", &name[from.len()..]);
                numbers.insert(&renamed, entry.number, &entry.shape);
            }
        }
    }

    /// The fields of both locks that have one number under two names: two branches took it. Each is
    /// the Gen, the number and both names.
    pub fn clashes<'a>(&'a self, other: &'a Lock) -> Vec<(&'a str, u32, &'a str, &'a str)> {
        let mut found = Vec::new();
        for (gen_name, numbers) in &self.gens {
            let Some(others) = other.gens.get(gen_name) else { continue };
            for (number, name) in &numbers.fields {
                let base = |name: &'a str| name.split('~').next().unwrap_or(name);
                if let Some(theirs) = others.fields.get(number)
                    && base(theirs) != base(name)
                {
                    found.push((gen_name.as_str(), *number, base(name), base(theirs)));
                }
            }
        }
        found
    }

    /// The lock file.
    pub fn print(&self) -> String {
        let mut text = String::from(HEADER);
        for (gen_name, numbers) in &self.gens {
            for (field, Entry { number, shape }) in &numbers.numbers {
                let separator = if shape.is_empty() { "" } else { " " };
                text.push_str(&format!("{gen_name}.{field} = {number}{separator}{shape}\n"));
            }
        }
        text
    }
}

impl GenLock {
    fn insert(&mut self, field: &str, number: u32, shape: &str) {
        self.numbers.insert(field.to_owned(), Entry { number, shape: shape.to_owned() });
        self.fields.insert(number, field.to_owned());
    }
}

/// `chat.message.text = 3 lww String`
fn parse_line(line: &str) -> Option<(&str, &str, u32, &str)> {
    let (name, rest) = line.split_once('=')?;
    let name = name.trim_end();
    let (number, shape) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
    let (gen_name, field) = name.rsplit_once('.')?;
    let is_name = |part: &str| !part.is_empty() && part.chars().all(is_xid_continue);
    let number: u32 = number.parse().ok()?;
    let (field_name, old) = field.split_once('~').unwrap_or((field, "0"));
    let is_good = gen_name.split('.').all(is_name)
        && is_name(field_name)
        && old.parse::<u32>().is_ok()
        && !shape.chars().any(char::is_control)
        && (1..=MAX_FIELD_NUMBER).contains(&number);
    is_good.then_some((gen_name, field, number, shape.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_and_never_given_again() {
        let mut lock = Lock::parse("Task.title = 2\r\nTask.gone = 7\n").unwrap();
        assert_eq!(lock.number("Task", "title"), Some(2));
        assert_eq!(lock.number("Task", "votes"), Some(8));
        assert_eq!(lock.number("chat.Message", "text"), Some(1));
        assert_eq!(Lock::parse(&lock.print()), Ok(lock));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let refused = |text: &str| Lock::parse(text).unwrap_err().to_string();
        let same = "line 2 gives Task.votes the number 1, which Task.title has";
        assert_eq!(refused("Task.title = 1\nTask.votes = 1\n"), same);
        let twice = "line 2 gives Task.title a second number";
        assert_eq!(refused("Task.title = 1\nTask.title = 2\n"), twice);
        for line in ["Task.title", "Task.title = 0", "title = 1", "Task.a b = 1", "<<<<<<< ours"] {
            assert_eq!(Lock::parse(&format!("# fine\n{line}\n")), Err(LockError::Line { line: 2 }));
        }
        assert_eq!(Lock::parse("Task.title = 65536\n"), Err(LockError::Line { line: 1 }));
    }

    #[test]
    fn a_renamed_field_keeps_its_numbers() {
        let mut lock = Lock::parse("Task.title = 1 lww String\n").unwrap();
        assert_eq!(lock.field("Task", "title", "mv_register String"), Some(2));
        lock.rename("Task", "title", "label");
        assert_eq!(lock.field("Task", "label", "mv_register String"), Some(2));
        assert_eq!(lock.predecessors("Task", "label"), [(1, "lww String")]);
        assert_eq!(lock.number("Task", "title"), Some(3), "the name is free again");
        assert_eq!(Lock::parse(&lock.print()), Ok(lock));
    }

    #[test]
    fn one_number_of_two_branches_is_found() {
        let ours = Lock::parse("Task.title = 1\nTask.due = 2\n").unwrap();
        let theirs = Lock::parse("Task.title = 1\nTask.votes = 2\nTask.due = 3\n").unwrap();
        assert_eq!(ours.clashes(&theirs), [("Task", 2, "due", "votes")]);
        assert_eq!(ours.clashes(&ours), []);
    }

    #[test]
    fn numbers_run_out_without_being_given_again() {
        let mut lock = Lock::parse("Task.last = 65535\n").unwrap();
        assert_eq!(lock.number("Task", "more"), None);
        assert_eq!(lock.number("Task", "last"), Some(65_535));
    }
}
