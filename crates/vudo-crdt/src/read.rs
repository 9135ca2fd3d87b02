//! Typed reads: what a field of a row shows to an application.

use crate::counter;
use crate::row::{CellId, Row};
use crate::schema::{CounterOptions, FieldSchema, Overflow, Strategy};
use crate::value::{Value, ValueType};

/// A counter whose merged total does not fit its type, with `overflow_strategy = "error"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterOverflow {
    /// The merged total.
    pub total: i128,
}

impl core::fmt::Display for CounterOverflow {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "the counter's total {} does not fit its type", self.total)
    }
}

impl core::error::Error for CounterOverflow {}

impl FieldSchema {
    /// The cell that holds the field.
    pub fn id(&self) -> CellId {
        CellId::new(self.number, self.strategy)
    }

    /// The least and the greatest value that a local write may take an integer counter to.
    pub fn counter_bounds(&self) -> (i128, i128) {
        let (least, greatest) = self.type_range();
        let CounterOptions { min_value, max_value, .. } = self.counter;
        let least = min_value.map_or(least, |minimum| least.max(minimum.into()));
        (least, max_value.map_or(greatest, |maximum| greatest.min(maximum.into())))
    }

    /// The range of the field's integer type.
    fn type_range(&self) -> (i128, i128) {
        self.value_type.integer_range().unwrap_or((i64::MIN.into(), i64::MAX.into()))
    }

    /// What the field shows in a row: its value, else its default, else nothing. A counter that
    /// nobody has added to shows zero. A stored value of another type reads as absent.
    ///
    /// # Errors
    /// The counter's total does not fit, and the field asks for an error.
    pub fn read(&self, row: &Row<'_>) -> Result<Option<Value>, CounterOverflow> {
        match self.strategy {
            Strategy::PnCounter => {
                let (least, greatest) = self.type_range();
                let total = counter_total(row.state(self.id()));
                let fitted = fit(total, least, greatest, self.counter.overflow)?;
                Ok(Some(Value::Int(fitted)))
            }
            Strategy::PnCounterFloat => {
                let sum = counter::float_sum(row.state(self.id()));
                let is_narrow = self.value_type == ValueType::F32;
                Ok(Some(Value::Float(if is_narrow { f64::from(sum as f32) } else { sum })))
            }
            _ => {
                let stored = row.register(self.id());
                let fitting = stored.filter(|value| self.value_type.admits(value));
                Ok(fitting.or_else(|| self.default.clone()))
            }
        }
    }
}

/// The total in the state of an integer counter; zero where nobody has added to it.
pub fn counter_total(state: &[u8]) -> i128 {
    counter::integer_sum(state)
}

fn fit(
    total: i128,
    least: i128,
    greatest: i128,
    overflow: Overflow,
) -> Result<i128, CounterOverflow> {
    if (least..=greatest).contains(&total) {
        return Ok(total);
    }
    match overflow {
        Overflow::Saturate => Ok(total.clamp(least, greatest)),
        Overflow::Wrap => {
            let count = greatest - least + 1;
            // Reduced first, because the distance from the least value may not fit 128 bits.
            Ok((total.rem_euclid(count) - least).rem_euclid(count) + least)
        }
        Overflow::Error => Err(CounterOverflow { total }),
    }
}
