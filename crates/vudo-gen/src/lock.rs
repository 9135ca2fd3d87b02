//! Field numbers: given once, kept in a lock file beside the source, never given again.
//!
//! The file has a line for each field that there ever was: `Task.title = 2`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const HEADER: &str =
    "# The numbers of fields in stored and sent data. Commit this file; do not edit it.\n";

/// The numbers of one source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lock {
    /// By Gen, then field.
    numbers: BTreeMap<String, BTreeMap<String, u32>>,
}

impl Lock {
    /// Reads a lock file; gives the first line that is not one of its lines, if there is one.
    pub(crate) fn parse(text: &str) -> Result<Lock, usize> {
        let mut lock = Lock::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, number) = line.split_once('=').ok_or(index + 1)?;
            let (gen_name, field) = name.trim().rsplit_once('.').ok_or(index + 1)?;
            let number: u32 = number.trim().parse().map_err(|_| index + 1)?;
            let numbers = lock.numbers.entry(gen_name.to_owned()).or_default();
            let is_taken = numbers.values().any(|taken| *taken == number);
            if number == 0 || is_taken || numbers.insert(field.to_owned(), number).is_some() {
                return Err(index + 1);
            }
        }
        Ok(lock)
    }

    /// The number of a field, which gets one above all that its Gen ever had where it is new.
    pub(crate) fn number(&mut self, gen_name: &str, field: &str) -> u32 {
        let numbers = self.numbers.entry(gen_name.to_owned()).or_default();
        if let Some(number) = numbers.get(field) {
            return *number;
        }
        let number = numbers.values().max().map_or(1, |highest| highest.saturating_add(1));
        numbers.insert(field.to_owned(), number);
        number
    }

    /// The lock file.
    pub(crate) fn print(&self) -> String {
        let mut text = String::from(HEADER);
        for (gen_name, numbers) in &self.numbers {
            for (field, number) in numbers {
                let _ = writeln!(text, "{gen_name}.{field} = {number}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_and_never_given_again() {
        let mut lock = Lock::parse("Task.title = 2\nTask.gone = 7\n").unwrap();
        assert_eq!(lock.number("Task", "title"), 2);
        assert_eq!(lock.number("Task", "votes"), 8);
        assert_eq!(lock.number("chat.Message", "text"), 1);
        assert_eq!(Lock::parse(&lock.print()), Ok(lock));
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        assert_eq!(Lock::parse("Task.title = 1\nTask.votes = 1\n"), Err(2));
        assert_eq!(Lock::parse("# fine\nTask.title\n"), Err(2));
        assert_eq!(Lock::parse("Task.title = 0\n"), Err(1));
    }
}
