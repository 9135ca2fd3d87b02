//! Whether a value is of a type that has parts, both in their bytes.
//!
//! ```text
//! type = tag                        a type without parts, an enum, a Gen, a reference, anything
//!      | tag | type                 Option, List, Set
//!      | tag | type | type          Map
//!      | tag | count | type*        a tuple
//! ```
//!
//! Tags are those of `ValueType::tag`. The compiler writes types, so they are as deep as a schema
//! may be. Values have been found to be well formed before, and no deeper than that is allowed.

use vudo_crdt::value::{
    KIND_LIST, KIND_MAP, KIND_RECORD, decode_utf8, inside, is_none, is_variant, step_over_value,
};
use vudo_crdt::wire::Reader;

use crate::field::Field;

const OPTION: u8 = 20;
const LIST: u8 = 21;
const SET: u8 = 22;
const MAP: u8 = 23;
const TUPLE: u8 = 24;
const ENUM: u8 = 25;
const RECORD: u8 = 26;
const REFERENCE: u8 = 27;
const ANYTHING: u8 = 28;

/// Steps over a type, and says whether a value is of it. No bytes at all are no value.
pub(crate) fn admits(types: &mut Reader<'_>, value: &[u8]) -> bool {
    match types.byte_or_zero() {
        OPTION => admits(types, value) | is_none(value),
        LIST => all_admit(types, inside(KIND_LIST, value), 1, false),
        SET => all_admit(types, inside(KIND_LIST, value), 1, true),
        MAP => all_admit(types, inside(KIND_MAP, value), 2, false),
        TUPLE => {
            let mut parts = Reader::new(inside(KIND_LIST, value).unwrap_or_default());
            let mut fits = true;
            for _ in 0..types.byte_or_zero() {
                fits &= admits(types, step_over_value(&mut parts));
            }
            fits && parts.is_empty() && !parts.has_failed()
        }
        ENUM => is_variant(value),
        RECORD => inside(KIND_RECORD, value).is_some(),
        REFERENCE => decode_utf8(value).is_some(),
        ANYTHING => !value.is_empty(),
        scalar => Field::of(u32::from(scalar) << 4).admits(value),
    }
}

/// Steps over so many types, and says whether parts are of them by turns; of a set they ascend.
fn all_admit(
    types: &mut Reader<'_>,
    parts: Option<&[u8]>,
    type_count: usize,
    ascend: bool,
) -> bool {
    let first = *types;
    for _ in 0..type_count {
        admits(types, &[]);
    }
    let Some(parts) = parts else { return false };
    let mut parts = Reader::new(parts);
    let mut last: &[u8] = &[];
    let mut fits = true;
    while fits && !parts.is_empty() {
        let mut types = first;
        for _ in 0..type_count {
            let part = step_over_value(&mut parts);
            fits &= admits(&mut types, part) && (!ascend || last < part);
            last = part;
        }
    }
    fits
}
