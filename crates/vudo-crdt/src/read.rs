//! Typed reads: what a field of a row shows to an application.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::change::GenIndex;
use crate::counter::{self, BoundedCounter};
use crate::namespace::Namespace;
use crate::row::{CellId, Row, entry_key};
use crate::schema::{CounterOptions, FieldSchema, Overflow, Strategy};
use crate::transaction::Transaction;
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

    /// What a write to this `bounded_counter` has to know of it.
    pub fn bounded_counter(&self) -> BoundedCounter {
        BoundedCounter { id: self.id(), bounds: self.counter_bounds() }
    }

    /// The range of the field's integer type.
    fn type_range(&self) -> (i128, i128) {
        self.value_type.integer_range().unwrap_or((i64::MIN.into(), i64::MAX.into()))
    }

    /// What the field shows in a row: its value, else its default, else nothing. A counter that
    /// nobody has added to shows zero. A stored value of another type reads as absent. An
    /// `mv_register` and a collection show nothing here, for they need more than the row: see
    /// [`Reading`].
    ///
    /// # Errors
    /// The counter's total does not fit, and the field asks for an error.
    pub fn read(&self, row: &Row<'_>) -> Result<Option<Value>, CounterOverflow> {
        match self.strategy {
            Strategy::MvRegister | Strategy::OrSet | Strategy::Map => Ok(None),
            _ if self.predecessor.is_some() => self.show(self.held(row, &mut |_| {})),
            _ => self.read_state(row.state(self.id())),
        }
    }

    /// What fields show in a row, in their order: as [`FieldSchema::read`] of each, but where they
    /// ascend by number the cells are gone through once.
    pub fn read_all<'a>(
        fields: &'a [FieldSchema],
        row: &'a Row<'_>,
    ) -> impl Iterator<Item = Result<Option<Value>, CounterOverflow>> + use<'a> {
        let mut cells = row.cells();
        fields.iter().map(move |field| {
            if field.predecessor.is_some() || field.strategy.is_collection() {
                return field.read(row);
            }
            // Where it has not begun it is past every cell.
            if cells.cell.id > field.id() {
                cells = row.cells();
                cells.advance();
            }
            while cells.cell.id < field.id() {
                cells.advance();
            }
            let is_there = cells.cell.id == field.id();
            field.read_state(if is_there { cells.cell.state } else { &[] })
        })
    }

    /// What the field shows of the state of its cell, which is empty where there is none.
    fn read_state(&self, state: &[u8]) -> Result<Option<Value>, CounterOverflow> {
        match self.strategy {
            Strategy::MvRegister | Strategy::OrSet | Strategy::Map => Ok(None),
            Strategy::PnCounter | Strategy::GCounter => {
                self.show_total(counter_total(state)).map(Some)
            }
            Strategy::BoundedCounter => {
                let total = bounded_total(state, &self.counter_bounds());
                self.show_total(total).map(Some)
            }
            Strategy::PnCounterFloat => Ok(Some(self.rounded(counter::float_sum(state)))),
            _ => {
                let stored = Value::decode(state);
                let fitting = stored.filter(|value| self.value_type.admits(value));
                Ok(fitting.or_else(|| self.default.clone()))
            }
        }
    }

    /// What an integer counter shows of its total.
    ///
    /// # Errors
    /// The total does not fit, and the field asks for an error.
    pub(crate) fn show_total(&self, total: i128) -> Result<Value, CounterOverflow> {
        let (least, greatest) = match self.strategy {
            // Only forged rights take it past its bounds.
            Strategy::BoundedCounter => self.counter_bounds(),
            _ => self.type_range(),
        };
        fit_total(total, least, greatest, self.counter.overflow).map(Value::Int)
    }

    /// A number as the field's type of floats holds it.
    pub(crate) fn rounded(&self, number: f64) -> Value {
        let is_narrow = self.value_type == ValueType::F32;
        Value::Float(if is_narrow { f64::from(number as f32) } else { number })
    }
}

/// Where a field is read that may need more than its row: a namespace, or a transaction that sees
/// what it has written.
pub trait Reading {
    /// The row of a document or entry whose chunk is loaded; of life zero where there is none.
    fn view_row(&mut self, gen_index: GenIndex, key: &[u8]) -> Row<'_>;

    /// The keys under which the loaded rows of a collection lie, ascending by element, with their
    /// elements; those that are not in it any more included.
    fn entry_keys(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        collection: CellId,
    ) -> Vec<(Vec<u8>, Value)>;

    /// The namespace that is read.
    fn namespace(&self) -> &Namespace;

    /// What a field of any strategy shows in a document or entry whose rows are loaded: see
    /// [`Namespace::load_field`]. An `mv_register` shows the list of its values, oldest first, a set
    /// the list of its elements, and a map its entries.
    ///
    /// # Errors
    /// A counter's total does not fit, and the field asks for an error.
    fn read_loaded(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
    ) -> Result<Option<Value>, CounterOverflow> {
        match field.strategy {
            Strategy::MvRegister => {
                let held = field.held(&self.view_row(gen_index, key), &mut |_| {});
                Ok(field.show_all(held, self.namespace().replicas()))
            }
            Strategy::OrSet => {
                let mut elements = Vec::new();
                for set in field.collections() {
                    for (entry, element) in self.entry_keys(gen_index, key, set.id()) {
                        let fits = field.element_type().is_some_and(|fit| fit.admits(&element));
                        if fits && self.view_row(gen_index, &entry).is_element() {
                            elements.push(element);
                        }
                    }
                }
                Ok(Some(match &field.predecessor {
                    None => Value::List(elements),
                    Some(_) => Value::set_of(elements),
                }))
            }
            Strategy::Map if field.predecessor.is_some() => {
                self.read_evolved_map(gen_index, key, field)
            }
            Strategy::Map => {
                let mut entries = Vec::new();
                let Some(value_field) = field.map_value() else {
                    return Ok(None);
                };
                for (entry, element) in self.entry_keys(gen_index, key, field.id()) {
                    if self.view_row(gen_index, &entry).is_alive()
                        && let Some(value) = self.read_loaded(gen_index, &entry, &value_field)?
                    {
                        entries.push((element, value));
                    }
                }
                Ok(Some(Value::Map(entries)))
            }
            _ => field.read(&self.view_row(gen_index, key)),
        }
    }

    /// [`Reading::read_loaded`] of a map that was another one before.
    ///
    /// # Errors
    /// As for [`Reading::read_loaded`].
    fn read_evolved_map(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        field: &FieldSchema,
    ) -> Result<Option<Value>, CounterOverflow> {
        let Some(value_field) = field.map_value() else {
            return Ok(None);
        };
        let mut merged = BTreeMap::new();
        let maps: Vec<&FieldSchema> = field.collections().collect();
        for map in maps.into_iter().rev() {
            let Some(earlier) = map.map_value() else { continue };
            for (entry, element) in self.entry_keys(gen_index, key, map.id()) {
                let row = self.view_row(gen_index, &entry);
                if !row.is_alive() || !field.element_type().is_some_and(|fit| fit.admits(&element))
                {
                    continue;
                }
                let mut held = earlier.held(&row, &mut |_| {});
                held.retain(|held| value_field.fitted(held.value.clone()).is_some());
                let (_, before) = merged.entry(element.to_bytes()).or_insert((element, Vec::new()));
                *before = value_field.join_versions(held, core::mem::take(before));
            }
        }
        let mut entries = Vec::new();
        for (element, held) in merged.into_values() {
            let shown = match value_field.strategy {
                Strategy::MvRegister => value_field.show_all(held, self.namespace().replicas()),
                _ => value_field.show(held)?,
            };
            entries.extend(shown.map(|value| (element, value)));
        }
        Ok(Some(Value::Map(entries)))
    }
}

impl Reading for &Namespace {
    fn view_row(&mut self, gen_index: GenIndex, key: &[u8]) -> Row<'_> {
        self.loaded_row(gen_index, key).unwrap_or(Row::none())
    }

    fn entry_keys(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        collection: CellId,
    ) -> Vec<(Vec<u8>, Value)> {
        let mut entries = Vec::new();
        self.loaded_entries(gen_index, key, collection, |element, _| {
            if let Some(value) = Value::decode(element) {
                entries.push((entry_key(key, collection, element), value));
            }
        });
        entries
    }

    fn namespace(&self) -> &Namespace {
        self
    }
}

/// A transaction's view of its namespace.
#[derive(Debug)]
pub struct TransactionView<'t> {
    /// The transaction.
    pub transaction: &'t mut Transaction,
    /// Its namespace.
    pub namespace: &'t Namespace,
}

impl Reading for TransactionView<'_> {
    fn view_row(&mut self, gen_index: GenIndex, key: &[u8]) -> Row<'_> {
        self.transaction.view(self.namespace, gen_index, key)
    }

    fn entry_keys(
        &mut self,
        gen_index: GenIndex,
        key: &[u8],
        collection: CellId,
    ) -> Vec<(Vec<u8>, Value)> {
        let mut entries = Vec::new();
        self.transaction.view_entries(self.namespace, gen_index, key, collection, |element, _| {
            if let Some(value) = Value::decode(element) {
                entries.push((entry_key(key, collection, element), value));
            }
        });
        entries
    }

    fn namespace(&self) -> &Namespace {
        self.namespace
    }
}

/// The total in the state of an integer counter; zero where nobody has added to it.
pub fn counter_total(state: &[u8]) -> i128 {
    counter::integer_sum(state)
}

/// The total in the state of a counter of floats; zero where nobody has added to it.
pub fn counter_float_total(state: &[u8]) -> f64 {
    counter::float_sum(state)
}

/// The total in the state of a `bounded_counter` of these bounds.
pub fn bounded_total(state: &[u8], bounds: &(i128, i128)) -> i128 {
    let mut total = counter::moved(state);
    counter::add(&mut total, &counter::start_within(bounds), false);
    total
}

/// The least number that is not negative and differs from a total by a multiple of a positive count.
/// Bit by bit, for it is rarely asked for, and wide division is a kilobyte of a module.
fn remainder(total: i128, count: i128) -> i128 {
    let (mut left, mut rest) = (total.unsigned_abs(), 0);
    for _ in 0..i128::BITS {
        rest = rest << 1 | (left >> 127) as i128;
        left <<= 1;
        if rest >= count {
            rest -= count;
        }
    }
    if total < 0 && rest > 0 { count - rest } else { rest }
}

/// What an integer counter shows whose total may be out of the range of its type.
///
/// # Errors
/// It is, and an error was asked for.
pub fn fit_total(
    total: i128,
    least: i128,
    greatest: i128,
    overflow: Overflow,
) -> Result<i128, CounterOverflow> {
    let nearest = if counter::is_less(&total, &least) {
        least
    } else if counter::is_less(&greatest, &total) {
        greatest
    } else {
        return Ok(total);
    };
    let overflow = if cfg!(vudo_mutation = "overflow_wrapped") { Overflow::Wrap } else { overflow };
    match overflow {
        Overflow::Saturate => Ok(nearest),
        Overflow::Wrap => {
            let count = greatest - least + 1;
            // Reduced first, because the distance from the least value may not fit 128 bits.
            Ok(remainder(remainder(total, count) - least, count) + least)
        }
        Overflow::Error => Err(CounterOverflow { total }),
    }
}
