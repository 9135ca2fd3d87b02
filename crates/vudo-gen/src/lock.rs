//! Field numbers: given once, kept in a lock file beside the source, never given again.
//!
//! Stored and sent data name a field by its number, so that a number must mean the same field for
//! ever. `task.dol` has its lock in `task.dol.lock`, to be committed: a line for each field that
//! there ever was, as `Task.title = 2`, sorted by name.
//!
//! ```
//! use vudo_gen::lock::Lock;
//!
//! let mut lock = Lock::parse("Task.title = 2\nTask.gone = 7\n").unwrap();
//! assert_eq!(lock.number("Task", "title"), Some(2));
//! assert_eq!(lock.number("Task", "votes"), Some(8));
//! assert!(lock.print().contains("Task.votes = 8\n"));
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
    numbers: BTreeMap<String, u32>,
    fields: BTreeMap<u32, String>,
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
            let (gen_name, field, number) = parse_line(content).ok_or(LockError::Line { line })?;
            let numbers = lock.gens.entry(gen_name.to_owned()).or_default();
            let full_name = |field: &str| format!("{gen_name}.{field}");
            if let Some(first) = numbers.fields.get(&number) {
                let (first, second) = (full_name(first), full_name(field));
                return Err(LockError::NumberTwice { line, number, first, second });
            }
            if numbers.numbers.contains_key(field) {
                return Err(LockError::FieldTwice { line, field: full_name(field) });
            }
            numbers.insert(field, number);
        }
        Ok(lock)
    }

    /// The number of a field. A new field gets one above all that its Gen ever had; `None` where
    /// there is none left.
    pub fn number(&mut self, gen_name: &str, field: &str) -> Option<u32> {
        if !self.gens.contains_key(gen_name) {
            self.gens.insert(gen_name.to_owned(), GenLock::default());
        }
        let numbers = self.gens.get_mut(gen_name)?;
        if let Some(number) = numbers.numbers.get(field) {
            return Some(*number);
        }
        let number = numbers.fields.last_key_value().map_or(1, |(highest, _)| highest + 1);
        if number > MAX_FIELD_NUMBER {
            return None;
        }
        numbers.insert(field, number);
        Some(number)
    }

    /// The lock file.
    pub fn print(&self) -> String {
        let mut text = String::from(HEADER);
        for (gen_name, numbers) in &self.gens {
            for (field, number) in &numbers.numbers {
                text.push_str(&format!("{gen_name}.{field} = {number}\n"));
            }
        }
        text
    }
}

impl GenLock {
    fn insert(&mut self, field: &str, number: u32) {
        self.numbers.insert(field.to_owned(), number);
        self.fields.insert(number, field.to_owned());
    }
}

/// `chat.message.text = 3`
fn parse_line(line: &str) -> Option<(&str, &str, u32)> {
    let (name, number) = line.split_once('=')?;
    let name = name.trim_end();
    let (gen_name, field) = name.rsplit_once('.')?;
    let is_name = |part: &str| !part.is_empty() && part.chars().all(is_xid_continue);
    let number: u32 = number.trim_start().parse().ok()?;
    let is_good = name.split('.').all(is_name) && (1..=MAX_FIELD_NUMBER).contains(&number);
    is_good.then_some((gen_name, field, number))
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
    fn numbers_run_out_without_being_given_again() {
        let mut lock = Lock::parse("Task.last = 65535\n").unwrap();
        assert_eq!(lock.number("Task", "more"), None);
        assert_eq!(lock.number("Task", "last"), Some(65_535));
    }
}
