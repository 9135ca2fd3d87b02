//! How things are printed: for people, with colour where the terminal has it, or as JSON.

use std::io::IsTerminal;

use serde_json::{Map, Value as Json, json};
use vudo_crdt::Value;
use vudo_state::Record;

/// Whether standard error shows colour.
pub(crate) fn has_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints an error and what led to it.
pub(crate) fn print_error(error: &anyhow::Error) {
    let (start, end) = if has_colour() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    eprintln!("{start}error{end}: {error:#}");
}

/// Prose in lines that a narrow terminal shows whole.
pub(crate) fn wrapped(text: &str) -> String {
    const COLUMNS: usize = 80;
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > COLUMNS {
            wrapped.push('\n');
            column = 0;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// A time in milliseconds since 1970 as a date, to the minute: `2026-12-01 14:30 UTC`.
///
/// It is `civil_from_days` of Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms": years begin
/// in March there, so that the leap day is their last one, and repeat after an era of 400.
pub(crate) fn date_of(milliseconds: u64) -> String {
    const DAYS_FROM_0000_03_01_TO_1970: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;

    let minutes = milliseconds / 60_000;
    let days = minutes / (24 * 60) + DAYS_FROM_0000_03_01_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leap_days = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// A value as JSON. Integers that JSON readers may round are written as strings, bytes in
/// hexadecimal.
pub(crate) fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Bool(truth) => json!(truth),
        Value::Float(number) => json!(number),
        Value::String(text) => json!(text),
        Value::Bytes(_) | Value::Opaque(_) => json!(value.to_string()),
        Value::None => Json::Null,
        Value::Variant(number) => json!(number),
        Value::List(values) => values.iter().map(value_to_json).collect(),
        Value::Map(entries) => {
            let named = entries.iter().map(|(key, value)| (key.to_string(), value_to_json(value)));
            Json::Object(named.collect())
        }
        Value::Record(fields) => {
            let named =
                fields.iter().map(|(number, value)| (number.to_string(), value_to_json(value)));
            Json::Object(named.collect())
        }
        Value::Int(number) => match i64::try_from(*number) {
            Ok(small) if small.unsigned_abs() < 1 << 53 => json!(small),
            _ => json!(number.to_string()),
        },
    }
}

/// A record as JSON: its key under `key`, its fields under `fields`.
pub(crate) fn record_to_json(record: &Record) -> Json {
    let fields: Map<String, Json> = record
        .fields
        .iter()
        .map(|(name, value)| (name.to_string(), value_to_json(value)))
        .collect();
    json!({ "key": record.key, "fields": fields })
}

#[cfg(test)]
mod tests {
    use super::date_of;

    /// The other dates are those that `date --utc --date=@SECONDS` gives.
    #[test]
    fn times_are_dates() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_796_135_459, "2026-12-01 14:30 UTC"),
            (1_798_761_599, "2026-12-31 23:59 UTC"),
            (1_798_761_600, "2027-01-01 00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date_of(seconds * 1_000), date);
        }
        assert!(date_of(u64::MAX).ends_with(" UTC"), "the longest grant has a date too");
    }
}
