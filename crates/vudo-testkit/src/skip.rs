//! Saying that a test was skipped, and why.
//!
//! A skipped test passes as far as the test runner knows. So that the gate can count it, it is
//! printed and appended to the file that `VUDO_SKIP_LOG` names.

use std::io::Write;

/// The test needs a program that this machine does not have.
pub fn missing_program(test: &str, program: &str, how_to_install: &str) {
    record(&format!("{test}: missing program {program}: {how_to_install}"));
}

/// The test needs data that is not part of the repository.
pub fn missing_data(test: &str, what: &str) {
    record(&format!("{test}: missing data: {what}"));
}

/// The test needs a right that this process does not have.
pub fn no_privilege(test: &str, what: &str) {
    record(&format!("{test}: no privilege: {what}"));
}

fn record(line: &str) {
    println!("skipped: {line}");
    if let Some(path) = std::env::var_os("VUDO_SKIP_LOG") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.expect("the file that VUDO_SKIP_LOG names can be written");
    }
}
