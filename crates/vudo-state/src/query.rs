//! Queries: which documents of a Gen, in which order, how many.
//!
//! A query is data: conditions that must all hold, fields to sort by, a limit. What a document
//! shows decides, so a default counts as a value and a counter as its total.

use std::cmp::Ordering;
use std::sync::Arc;

use vudo_crdt::{FieldSchema, GenSchema, Row, Value};

use crate::error::Result;
use crate::record::field_of;

/// What a field must show. A field that shows nothing meets [`Condition::Absent`] alone, and so does
/// one whose value is of another kind than the one it is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// This value.
    Equal(Value),
    /// A value other than this one.
    NotEqual(Value),
    /// A value below this one.
    Less(Value),
    /// A value up to this one.
    AtMost(Value),
    /// A value above this one.
    Greater(Value),
    /// A value from this one on.
    AtLeast(Value),
    /// A text that begins with this one.
    StartsWith(String),
    /// One of these values.
    OneOf(Vec<Value>),
    /// Any value.
    Present,
    /// None.
    Absent,
}

impl Condition {
    fn is_met_by(&self, shown: Option<&Value>) -> bool {
        let Some(shown) = shown else {
            return *self == Condition::Absent;
        };
        let compares = |other: &Value, wanted: fn(Ordering) -> bool| {
            shown.partial_cmp(other).is_some_and(wanted)
        };
        match self {
            Condition::Equal(value) => shown == value,
            Condition::NotEqual(value) => shown != value,
            Condition::Less(value) => compares(value, Ordering::is_lt),
            Condition::AtMost(value) => compares(value, Ordering::is_le),
            Condition::Greater(value) => compares(value, Ordering::is_gt),
            Condition::AtLeast(value) => compares(value, Ordering::is_ge),
            Condition::StartsWith(start) => {
                matches!(shown, Value::String(text) if text.starts_with(start))
            }
            Condition::OneOf(values) => values.contains(shown),
            Condition::Present => true,
            Condition::Absent => false,
        }
    }
}

/// Which way a field sorts. Documents that show nothing there come first when ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Small values first.
    Ascending,
    /// Great values first.
    Descending,
}

/// Which documents of a Gen, in which order, how many.
#[derive(Clone, Debug)]
pub struct Query {
    gen_schema: Arc<GenSchema>,
    conditions: Vec<(FieldSchema, Condition)>,
    order: Vec<(FieldSchema, Direction)>,
    limit: usize,
}

impl Query {
    /// Every document of a Gen, ascending by key.
    pub fn of(gen_schema: &GenSchema) -> Query {
        let gen_schema = Arc::new(gen_schema.clone());
        Query { gen_schema, conditions: Vec::new(), order: Vec::new(), limit: usize::MAX }
    }

    /// Only the documents whose field meets this condition as well.
    ///
    /// # Errors
    /// The Gen has no such field.
    pub fn filter(mut self, field: &str, condition: Condition) -> Result<Query> {
        let field = field_of(&self.gen_schema, field)?.clone();
        self.conditions.push((field, condition));
        Ok(self)
    }

    /// Sorted by this field, behind those that were named before. Equal ones ascend by key.
    ///
    /// # Errors
    /// The Gen has no such field.
    pub fn sort_by(mut self, field: &str, direction: Direction) -> Result<Query> {
        let field = field_of(&self.gen_schema, field)?.clone();
        self.order.push((field, direction));
        Ok(self)
    }

    /// At most so many, the first ones.
    #[must_use]
    pub fn limit(mut self, count: usize) -> Query {
        self.limit = count;
        self
    }

    /// The Gen.
    pub fn gen_schema(&self) -> &GenSchema {
        &self.gen_schema
    }

    pub(crate) fn limit_count(&self) -> usize {
        self.limit
    }

    /// Where a document belongs in the result; `None` where it is not part of it.
    pub(crate) fn place_of(&self, row: &Row<'_>) -> Option<Place> {
        if !row.is_alive() {
            return None;
        }
        // A counter that does not fit its type shows no value here; reading it says why.
        let shown = |field: &FieldSchema| field.read(row).ok().flatten();
        let is_met = |(field, condition): &(FieldSchema, Condition)| {
            condition.is_met_by(shown(field).as_ref())
        };
        if !self.conditions.iter().all(is_met) {
            return None;
        }
        let mut bytes = Vec::new();
        for (field, direction) in &self.order {
            let start = bytes.len();
            write_sortable(shown(field).as_ref(), &mut bytes);
            if *direction == Direction::Descending {
                bytes[start..].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        let key_start = bytes.len();
        bytes.extend_from_slice(row.key);
        Some(Place { bytes: bytes.into(), key_start })
    }
}

/// Where a document is in the result of a query: places sort as the documents do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// What is sorted by, in bytes that compare as the values do; then the key.
    bytes: Box<[u8]>,
    key_start: usize,
}

impl Place {
    /// The document's key.
    pub fn key(&self) -> &str {
        // Keys are checked to be UTF-8 where they enter.
        std::str::from_utf8(&self.bytes[self.key_start..]).unwrap_or_default()
    }
}

/// Appends bytes that compare as values do, none of which is the start of another's.
fn write_sortable(value: Option<&Value>, out: &mut Vec<u8>) {
    match value {
        None => out.push(0),
        Some(Value::Bool(truth)) => out.extend_from_slice(&[1, u8::from(*truth)]),
        Some(Value::Int(number)) => {
            out.push(2);
            // The sign bit flipped, negative numbers come before the others.
            out.extend_from_slice(&(number ^ i128::MIN).to_be_bytes());
        }
        Some(Value::Float(number)) => {
            out.push(3);
            let bits = if *number == 0.0 { 0 } else { number.to_bits() };
            let is_negative = bits >> 63 == 1;
            out.extend_from_slice(
                &(if is_negative { !bits } else { bits | 1 << 63 }).to_be_bytes(),
            );
        }
        Some(Value::String(text)) => write_terminated(4, text.as_bytes(), out),
        Some(Value::Bytes(bytes)) => write_terminated(5, bytes, out),
    }
}

/// Bytes with an end that sorts before any of them: a zero is written with a mark behind it.
fn write_terminated(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sortable_bytes_compare_as_values_do() {
        let ascending: Vec<Option<Value>> = vec![
            None,
            Some(false.into()),
            Some(true.into()),
            Some(Value::Int(i128::MIN)),
            Some(Value::Int(-1)),
            Some(Value::Int(0)),
            Some(Value::Int(256)),
            Some(Value::Int(i128::MAX)),
            Some(Value::Float(f64::NEG_INFINITY)),
            Some(Value::Float(-1.5)),
            Some(Value::Float(0.0)),
            Some(Value::Float(1e-300)),
            Some(Value::Float(7.0)),
            Some("".into()),
            Some("\0".into()),
            Some("\0a".into()),
            Some("a".into()),
            Some("a\0".into()),
            Some("a\u{1}".into()),
            Some("ab".into()),
            Some(Value::Bytes(vec![0])),
            Some(Value::Bytes(vec![0, 0])),
            Some(Value::Bytes(vec![1])),
        ];
        let bytes = |value: &Option<Value>| {
            let mut out = Vec::new();
            write_sortable(value.as_ref(), &mut out);
            out
        };
        for pair in ascending.windows(2) {
            let (left, right) = (bytes(&pair[0]), bytes(&pair[1]));
            assert!(left < right, "{pair:?}");
            let inverted = |bytes: Vec<u8>| bytes.iter().map(|byte| !byte).collect::<Vec<u8>>();
            assert!(inverted(left) > inverted(right), "{pair:?} descending");
        }
        assert_eq!(bytes(&Some(Value::Float(-0.0))), bytes(&Some(Value::Float(0.0))));
    }
}
