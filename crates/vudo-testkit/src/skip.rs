//! Saying that a test was skipped, and why.
//!
//! A skipped test passes as far as the test runner knows. So that the gate can count it, the skip
//! is printed and appended, as one line, to the file that `VUDO_SKIP_LOG` names. Lines of tests
//! that run at the same time do not mix: each is written at once, to the end of the file.

use std::io::Write;

/// The test needs a program that this machine does not have, like `chromium`;
/// `how_to_install` is a command that brings it.
///
/// # Panics
/// If the file that `VUDO_SKIP_LOG` names cannot be written.
pub fn missing_program(test: &str, program: &str, how_to_install: &str) {
    record(&format!("missing program {program}: {how_to_install} (needed by {test})"));
}

/// The test needs data that is not part of the repository.
///
/// # Panics
/// If the file that `VUDO_SKIP_LOG` names cannot be written.
pub fn missing_data(test: &str, what: &str) {
    record(&format!("missing data {what} (needed by {test})"));
}

/// The test needs a right that this process does not have.
///
/// # Panics
/// If the file that `VUDO_SKIP_LOG` names cannot be written.
pub fn no_privilege(test: &str, what: &str) {
    record(&format!("no privilege {what} (needed by {test})"));
}

fn record(line: &str) {
    println!("skipped: {line}");
    if let Some(path) = std::env::var_os("VUDO_SKIP_LOG") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.expect("the file that VUDO_SKIP_LOG names can be written");
    }
}
