//! Fields that were something else before: what they show of what they were.
//!
//! **The idea.** A stored cell is never taken for anything but what it was written as. A field whose
//! strategy or type changes gets another number, and so another cell; the cell of its old number
//! stays, and whoever has not upgraded goes on writing it. Replicas of both versions hold the same
//! cells, and it is reading that puts the two together.
//!
//! ```text
//! cells of number 1, lww i32  --convert--+
//!                                        +--> the later write, or the sum --> number 2, lww i64
//! cells of number 2 ---------------------+
//! ```
//!
//! Of registers the write of the higher [`Hlc`] counts, of equal ones that of the newer number. What
//! counters hold is added up. Elements and entries are in a set or map where they are in it under
//! either number, and of what both have under one key the rule of the map's values decides.
//!
//! **Writes** go to the newest number, and come after all that the older ones hold. A removal from a
//! set or map takes the element out under every number, for nothing else would take it out of what
//! is read.
//!
//! **The invariant.** What is read is a function of the row, so replicas of one schema that hold the
//! same changes read the same. A value that does not fit its field, or of which a conversion makes
//! nothing that does, reads as absent and is told by [`FieldSchema::misfits`].

use alloc::vec::Vec;

use crate::dots::unordered_values;
use crate::hlc::Hlc;
use crate::read::{CounterOverflow, bounded_total, counter_float_total, counter_total};
use crate::replica::{ReplicaIndex, Replicas};
use crate::row::Row;
use crate::rule::{Environment, EvaluationError};
use crate::schema::{FieldSchema, Predecessor, Strategy};
use crate::value::{Value, ValueType};

/// A value that a field reads in one of its cells.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) value: Value,
    /// The time of the write; zero for what counters hold, which has none.
    hlc: Hlc,
    /// The writer; without meaning for what counters hold.
    replica: ReplicaIndex,
}

/// A value in a cell that a field reads, and does not show because it does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The number that the cell belongs to: the field's own or an earlier one.
    pub number: u32,
    /// Why it does not fit.
    pub reason: MisfitReason,
}

/// Why a value does not fit a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MisfitReason {
    /// It is of another type than the field of its number: two branches took one number.
    Type,
    /// What becomes of it is nothing, or of another type than the field.
    Conversion,
    /// Its conversion cannot be computed.
    Evaluation(EvaluationError),
}

impl core::fmt::Display for MisfitReason {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            MisfitReason::Type => formatter.write_str("it is of another type than its field"),
            MisfitReason::Conversion => {
                formatter.write_str("its conversion gives no value of the new type")
            }
            MisfitReason::Evaluation(error) => write!(formatter, "its conversion fails: {error}"),
        }
    }
}

/// What a write to a field has to take into account of the cells that the field had before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inherited {
    /// The time of the latest write to them.
    pub(crate) latest: Option<Hlc>,
    /// What they add to an integer counter.
    pub(crate) total: i128,
    /// Whether the field shows a value of theirs while nobody writes it.
    pub(crate) is_set: bool,
}

impl Inherited {
    /// What a field of a document inherits from the earlier cells in its row.
    pub fn of(field: &FieldSchema, row: &Row<'_>) -> Inherited {
        let Some(predecessor) = &field.predecessor else { return Inherited::default() };
        let old = predecessor.read(field, row, &mut |_| {});
        let mut inherited = Inherited { is_set: !old.is_empty(), ..Inherited::default() };
        if let Some(Value::Int(total)) = sum(old).map(|held| held.value) {
            inherited.total = total;
        }
        for earlier in field.lineage().skip(1) {
            inherited.latest = inherited.latest.max(earlier.latest_write(row));
        }
        inherited
    }

    /// Adds what the value of a map inherits from the row of an earlier entry under its key.
    pub fn add_entry(&mut self, value_field: &FieldSchema, row: &Row<'_>) {
        let held = value_field.held(row, &mut |_| {});
        self.is_set |= !held.is_empty();
        if let Some(Value::Int(total)) = sum(held).map(|held| held.value) {
            self.total = self.total.wrapping_add(total);
        }
        self.latest = self.latest.max(value_field.latest_write(row));
    }
}

impl FieldSchema {
    /// The values that a field of a document reads and cannot show.
    pub fn misfits(&self, row: &Row<'_>) -> Vec<Misfit> {
        let mut found = Vec::new();
        self.held(row, &mut |misfit| found.push(misfit));
        found
    }

    /// What the field holds under all of its numbers, which a row has. A register of many values may
    /// hold several, every other field holds one at most; collections, which have rows of their own,
    /// hold nothing here.
    pub(crate) fn held(&self, row: &Row<'_>, report: &mut dyn FnMut(Misfit)) -> Vec<Held> {
        let own = self.own(row, report);
        match &self.predecessor {
            None => own,
            Some(predecessor) => self.join_versions(own, predecessor.read(self, row, report)),
        }
    }

    /// What the cell of the field's own number holds.
    fn own(&self, row: &Row<'_>, report: &mut dyn FnMut(Misfit)) -> Vec<Held> {
        let Some(cell) = row.cell(self.id()) else { return Vec::new() };
        let total = |value| Vec::from([Held { value, hlc: Hlc::ZERO, replica: 0 }]);
        let mut held = Vec::new();
        let mut fit = |bytes: &[u8], hlc, replica| match Value::decode(bytes) {
            Some(value) if self.value_type.admits(&value) => {
                held.push(Held { value, hlc, replica });
            }
            _ => report(Misfit { number: self.number, reason: MisfitReason::Type }),
        };
        match self.strategy {
            Strategy::PnCounter | Strategy::GCounter => {
                return total(Value::Int(counter_total(cell.state)));
            }
            Strategy::BoundedCounter => {
                return total(Value::Int(bounded_total(cell.state, &self.counter_bounds())));
            }
            Strategy::PnCounterFloat => {
                return total(Value::Float(counter_float_total(cell.state)));
            }
            Strategy::MvRegister => {
                for live in unordered_values(cell.state) {
                    fit(live.value, live.hlc, live.replica);
                }
            }
            Strategy::OrSet | Strategy::Map => {}
            Strategy::Immutable | Strategy::Lww | Strategy::LwwContent => {
                let stamp = cell.stamp.decode();
                fit(cell.state, stamp.hlc, stamp.replica);
            }
        }
        held
    }

    /// Puts together what is held under a number and, converted, under those before.
    pub(crate) fn join_versions(&self, own: Vec<Held>, mut old: Vec<Held>) -> Vec<Held> {
        if self.strategy.is_counter() {
            old.extend(own);
            return Vec::from_iter(sum(old));
        }
        let latest = |held: &[Held]| held.iter().map(|held| held.hlc).max();
        if latest(&old) > latest(&own) { old } else { own }
    }

    /// What the field shows of what it holds, where it shows one value: of a register of many, the
    /// latest one.
    ///
    /// # Errors
    /// A counter's total does not fit, and the field asks for an error.
    pub(crate) fn show(&self, held: Vec<Held>) -> Result<Option<Value>, CounterOverflow> {
        // Of equal times the greater value, for the replicas' keys are not at hand.
        let latest = held.into_iter().max_by_key(|held| (held.hlc, held.value.to_bytes()));
        match (self.strategy, latest.map(|held| held.value)) {
            (Strategy::PnCounterFloat, value) => {
                let sum = if let Some(Value::Float(sum)) = value { sum } else { 0.0 };
                Ok(Some(self.rounded(sum)))
            }
            (strategy, value) if strategy.is_counter() => {
                let total = if let Some(Value::Int(total)) = value { total } else { 0 };
                self.show_total(total).map(Some)
            }
            (_, value) => Ok(value.or_else(|| self.default.clone())),
        }
    }

    /// What a register of many values shows of what it holds: the list of it, oldest first.
    pub(crate) fn show_all(&self, mut held: Vec<Held>, replicas: &Replicas) -> Option<Value> {
        held.sort_by_key(|held| (held.hlc, *replicas.key(held.replica)));
        match held.is_empty() {
            true => self.default.clone().map(|value| Value::List([value].into())),
            false => Some(Value::List(held.into_iter().map(|held| held.value).collect())),
        }
    }

    /// The time of the latest write to the cell of the field's own number.
    fn latest_write(&self, row: &Row<'_>) -> Option<Hlc> {
        let cell = row.cell(self.id())?;
        match self.strategy {
            Strategy::Immutable | Strategy::Lww | Strategy::LwwContent => {
                Some(cell.stamp.decode().hlc)
            }
            Strategy::MvRegister => unordered_values(cell.state).iter().map(|live| live.hlc).max(),
            _ => None,
        }
    }

    /// A converted value as one of the field; `None` where it is none.
    pub(crate) fn fitted(&self, value: Value) -> Option<Value> {
        let mut value_type = &self.value_type;
        while let ValueType::Option(inner) = value_type {
            value_type = inner;
        }
        let value = match value {
            Value::Int(number) if value_type.is_float() => self.rounded(number as f64),
            Value::Float(number) if *value_type == ValueType::F32 => {
                Value::Float(f64::from(number as f32))
            }
            value => value,
        };
        let fits = match self.strategy {
            Strategy::PnCounter | Strategy::GCounter | Strategy::BoundedCounter => {
                matches!(value, Value::Int(_))
            }
            Strategy::PnCounterFloat => matches!(value, Value::Float(sum) if sum.is_finite()),
            Strategy::OrSet | Strategy::Map => false,
            _ => self.value_type.admits(&value),
        };
        fits.then_some(value)
    }
}

impl Predecessor {
    /// What the old field holds, as values of the new one.
    fn read(
        &self,
        field: &FieldSchema,
        row: &Row<'_>,
        report: &mut dyn FnMut(Misfit),
    ) -> Vec<Held> {
        let mut held = self.field.held(row, report);
        if held.is_empty() {
            return held;
        }
        let mut inputs = Vec::new();
        for input in self.conversion.iter().flat_map(|conversion| &conversion.inputs) {
            // A total that does not fit its type is no value to compute with.
            let shown = input.show(input.held(row, &mut |_| {})).unwrap_or_default();
            inputs.push((input.number, shown));
        }
        held.retain_mut(|held| match self.convert(field, &held.value, &inputs) {
            Ok(value) => {
                held.value = value;
                true
            }
            Err(reason) => {
                report(Misfit { number: self.field.number, reason });
                false
            }
        });
        held
    }

    fn convert(
        &self,
        field: &FieldSchema,
        value: &Value,
        inputs: &[(u32, Option<Value>)],
    ) -> Result<Value, MisfitReason> {
        let converted = match &self.conversion {
            None => Some(value.clone()),
            Some(conversion) => {
                let inputs = Inputs { number: self.field.number, value, inputs };
                let result = conversion.expression.evaluate(&inputs);
                result.map_err(MisfitReason::Evaluation)?
            }
        };
        let is_option = matches!(field.value_type, ValueType::Option(_));
        let converted = converted.or_else(|| is_option.then_some(Value::None));
        converted.and_then(|value| field.fitted(value)).ok_or(MisfitReason::Conversion)
    }
}

/// What a conversion computes with.
struct Inputs<'c> {
    /// That of the field before.
    number: u32,
    value: &'c Value,
    inputs: &'c [(u32, Option<Value>)],
}

impl Environment for Inputs<'_> {
    fn field(&self, number: u32) -> Option<Value> {
        if number == self.number {
            return Some(self.value.clone());
        }
        let input = self.inputs.iter().find(|(one, _)| *one == number);
        input.and_then(|(_, value)| value.clone())
    }

    /// The compiler refuses conversions that need regular expressions.
    fn matches(&self, _: &str, _: &str) -> Option<bool> {
        None
    }
}

/// The sum of what a counter holds; `None` where that is nothing.
fn sum(held: Vec<Held>) -> Option<Held> {
    held.into_iter().reduce(|left, right| {
        let value = match (left.value, right.value) {
            (Value::Int(left), Value::Int(right)) => Value::Int(left.wrapping_add(right)),
            (Value::Float(left), Value::Float(right)) => Value::Float(left + right),
            // What a counter holds is all of one kind.
            (left, _) => left,
        };
        Held { value, ..right }
    })
}
