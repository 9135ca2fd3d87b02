//! A field as the compiler describes it: a word, and for some an entry in the compiler's data.
//!
//! Types are told apart by their tags and values by their bytes: `ValueType` and `Value`, which can
//! be anything that a Gen can say, would cost a module more than all of this.

use alloc::vec::Vec;

#[cfg(feature = "bounded")]
use vudo_crdt::BoundedCounter;
use vudo_crdt::value::{
    byte_count_of, decode_bool, decode_byte_string, decode_float, decode_int, decode_utf8,
    integer_range_of, is_in_range, step_over_value, tag,
};
use vudo_crdt::wire::{Reader, write_byte, zigzag_decode};
use vudo_crdt::{
    CellId, CounterOverflow, Overflow, Strategy, bounded_total, counter_float_total, counter_total,
    fit_total,
};

use crate::abi::cell_of;
#[cfg(feature = "collections")]
use crate::types::admits;

const HAS_DEFAULT: u8 = 1;
const HAS_MINIMUM: u8 = 2;
const HAS_MAXIMUM: u8 = 4;

/// A field without its name.
pub(crate) struct Field<'s> {
    /// The cell that holds it.
    pub(crate) id: CellId,
    pub(crate) type_tag: u8,
    overflow: Overflow,
    min_value: Option<i64>,
    max_value: Option<i64>,
    /// An encoded value, or nothing.
    #[cfg_attr(not(feature = "composite"), allow(dead_code))]
    pub(crate) default: &'s [u8],
    /// The type of the field's values in bytes, for what is read and written encoded: see
    /// `types.rs`. Of a set its elements', of a map the tag of its values' strategy, and the types of
    /// its keys and of its values.
    #[cfg_attr(not(feature = "composite"), allow(dead_code))]
    pub(crate) types: &'s [u8],
}

impl<'s> Field<'s> {
    /// The field that a word describes: `field number << 9 | type tag << 4 | strategy tag`.
    pub(crate) fn of(word: u32) -> Field<'s> {
        Field {
            id: cell_of(word),
            type_tag: (word >> 4 & 31) as u8,
            overflow: Overflow::Saturate,
            min_value: None,
            max_value: None,
            default: &[],
            types: &[],
        }
    }

    /// The same with its default and options: overflow, flags, what the flags announce, types.
    pub(crate) fn with_extras(word: u32, extras: &'s [u8]) -> Field<'s> {
        let mut field = Field::of(word);
        let mut reader = Reader::new(extras);
        // The compiler wrote these bytes; were they damaged, the field would do without.
        field.overflow = match reader.byte_or_zero() {
            0 => Overflow::Saturate,
            1 => Overflow::Wrap,
            _ => Overflow::Error,
        };
        let flags = reader.byte_or_zero();
        let mut read_bound =
            |flag| (flags & flag != 0).then(|| zigzag_decode(reader.varint_or_zero()));
        field.min_value = read_bound(HAS_MINIMUM);
        field.max_value = read_bound(HAS_MAXIMUM);
        if flags & HAS_DEFAULT != 0 {
            field.default = step_over_value(&mut reader);
        }
        field.types = reader.rest();
        field
    }

    /// The field in each entry of this map: its strategy stands before the type of the map's keys.
    #[cfg(feature = "collections")]
    pub(crate) fn held(&self) -> Field<'s> {
        let mut types = Reader::new(self.types);
        let strategy = u32::from(types.byte_or_zero());
        admits(&mut types, &[]);
        let types = types.rest();
        let type_tag = types.first().copied().unwrap_or_default();
        let id = CellId::from_bits(1 << 4 | strategy);
        Field { id, type_tag, default: &[], types, ..*self }
    }

    /// The least and the greatest value of the field's type of integers.
    fn type_range(&self) -> (i128, i128) {
        integer_range_of(self.type_tag).unwrap_or((i64::MIN.into(), i64::MAX.into()))
    }

    /// The least and the greatest value that a local write may take a counter to.
    pub(crate) fn counter_bounds(&self) -> (i128, i128) {
        let (mut least, mut greatest) = self.type_range();
        if let Some(minimum) = self.min_value {
            least = least.max(minimum.into());
        }
        if let Some(maximum) = self.max_value {
            greatest = greatest.min(maximum.into());
        }
        (least, greatest)
    }

    /// What a write to a `bounded_counter` has to know of it.
    #[cfg(feature = "bounded")]
    pub(crate) fn bounded_counter(&self) -> BoundedCounter {
        BoundedCounter { id: self.id, bounds: self.counter_bounds() }
    }

    /// Whether an encoded value is of the field's type.
    #[inline(never)]
    pub(crate) fn admits(&self, value: &[u8]) -> bool {
        self.show(value, &mut Vec::new())
    }

    /// What a counter of integers shows, given the state of its cell.
    pub(crate) fn total(&self, state: &[u8]) -> Result<i128, CounterOverflow> {
        let is_bounded = self.id.tag() == Strategy::BoundedCounter.tag();
        let (bounds, total) = if cfg!(feature = "bounded") && is_bounded {
            let bounds = self.counter_bounds();
            (bounds, bounded_total(state, &bounds))
        } else {
            (self.type_range(), counter_total(state))
        };
        fit_total(total, bounds.0, bounds.1, self.overflow)
    }

    /// What a counter of floats shows, given the state of its cell.
    pub(crate) fn float_total(&self, state: &[u8]) -> f64 {
        let total = counter_float_total(state);
        if self.type_tag == tag::F32 { f64::from(total as f32) } else { total }
    }

    /// Appends what the field shows, given the state of its cell. Gives whether it shows anything.
    pub(crate) fn read(&self, state: &[u8], out: &mut Vec<u8>) -> Result<bool, CounterOverflow> {
        match Strategy::from_tag(self.id.tag()) {
            Some(Strategy::PnCounterFloat) => {
                out.extend_from_slice(&self.float_total(state).to_le_bytes());
                Ok(true)
            }
            Some(strategy) if strategy.is_counter() => {
                out.extend_from_slice(&(self.total(state)? as u64).to_le_bytes());
                Ok(true)
            }
            _ => Ok(self.show(state, out) || self.show(self.default, out)),
        }
    }

    /// Appends a value of the field's type as hosts read it. Gives whether it is of that type.
    #[inline(never)]
    fn show(&self, value: &[u8], out: &mut Vec<u8>) -> bool {
        let shown = match self.type_tag {
            tag::BOOL => decode_bool(value).map(|truth| write_byte(out, truth.into())),
            tag::STRING => decode_utf8(value).map(|text| out.extend_from_slice(text)),
            tag::F32 | tag::F64 => {
                let fits = |number: &f64| {
                    let narrow = f64::from(*number as f32);
                    self.type_tag == tag::F64 || number.is_nan() || narrow == *number
                };
                let number = decode_float(value).filter(fits);
                number.map(|number| out.extend_from_slice(&number.to_le_bytes()))
            }
            tag::BYTES | tag::UUID | tag::IDENTITY => {
                let wanted = byte_count_of(self.type_tag);
                let fits = |bytes: &&[u8]| wanted.is_none_or(|count| count == bytes.len());
                decode_byte_string(value).filter(fits).map(|bytes| out.extend_from_slice(bytes))
            }
            _ => {
                let number = decode_int(value);
                let number = number.filter(|number| is_in_range(self.type_tag, *number));
                number.map(|number| out.extend_from_slice(&(number as u64).to_le_bytes()))
            }
        };
        shown.is_some()
    }
}
