//! The naive twin: what a namespace means, written for reading and not for speed.
//!
//! A document is a life, the stamp of whoever made the life what it is, and cells. A change is a
//! set of small documents; applying it is joining each of them. The real thing must agree.

use std::collections::BTreeMap;

use vudo_crdt::{
    CellId, CounterOverflow, FieldSchema, Overflow, Refusal, ReplicaKey, Strategy, Value,
};

/// The name of a Gen and the key of a document.
pub(crate) type DocumentId = (String, Vec<u8>);

/// A hybrid logical time. `milliseconds <= 2^47`, `counter < 2^16`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    pub(crate) milliseconds: u64,
    pub(crate) counter: u32,
}

const CEILING: Time = Time { milliseconds: 1 << 47, counter: 0 };

impl Time {
    pub(crate) fn of_clock(milliseconds: u64) -> Time {
        Time { milliseconds, counter: 0 }.min(CEILING)
    }

    /// The time of a write at `now` over one at `self`.
    fn overwritten_at(self, now: Time) -> Option<Time> {
        let next = if self.counter == 0xffff {
            Time { milliseconds: self.milliseconds + 1, counter: 0 }
        } else {
            Time { counter: self.counter + 1, ..self }
        };
        let later = next.max(now);
        (later <= CEILING).then_some(later)
    }
}

/// Ordered by time, then replica, then number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) time: Time,
    pub(crate) replica: ReplicaKey,
    pub(crate) number: u64,
}

/// What one replica added and took away, up to this number of its changes. Amounts are whole
/// numbers for floats too, so that sums are exact in any order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Totals {
    number: u64,
    plus: i128,
    minus: i128,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Register { stamp: Stamp, value: Value },
    Counter(BTreeMap<ReplicaKey, Totals>),
}

impl Cell {
    fn join(&mut self, id: CellId, other: &Cell) {
        match (self, other) {
            (Cell::Counter(mine), Cell::Counter(theirs)) => {
                for (replica, totals) in theirs {
                    let known = mine.entry(*replica).or_insert(*totals);
                    if totals.number > known.number {
                        *known = *totals;
                    }
                }
            }
            (mine, theirs) if theirs.wins_over(mine, id) => *mine = theirs.clone(),
            _ => {}
        }
    }

    fn wins_over(&self, other: &Cell, id: CellId) -> bool {
        let (
            Cell::Register { stamp: mine, value: my_value },
            Cell::Register { stamp: theirs, value: their_value },
        ) = (self, other)
        else {
            panic!("two kinds of cell under one id");
        };
        match Strategy::from_tag(id.tag()).expect("the histories use known strategies") {
            Strategy::Immutable => mine < theirs,
            Strategy::Lww => mine > theirs,
            _ => {
                (mine.time, my_value.to_bytes(), mine)
                    > (theirs.time, their_value.to_bytes(), theirs)
            }
        }
    }

    fn total(&self) -> i128 {
        match self {
            Cell::Counter(entries) => entries.values().map(|entry| entry.plus - entry.minus).sum(),
            Cell::Register { .. } => panic!("a register has no total"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    /// Odd is alive, even is deleted.
    pub(crate) life: u64,
    pub(crate) stamp: Stamp,
    pub(crate) cells: BTreeMap<CellId, Cell>,
}

impl Document {
    fn new(life: u64, stamp: Stamp) -> Document {
        Document { life, stamp, cells: BTreeMap::new() }
    }

    fn join(&mut self, other: &Document) {
        if other.life > self.life {
            *self = other.clone();
        } else if other.life == self.life {
            self.stamp = self.stamp.max(other.stamp);
            for (id, cell) in &other.cells {
                match self.cells.get_mut(id) {
                    Some(mine) => mine.join(*id, cell),
                    None => {
                        self.cells.insert(*id, cell.clone());
                    }
                }
            }
        }
    }

    /// What a reader sees of a field.
    pub(crate) fn read(&self, field: &FieldSchema) -> Result<Option<Value>, CounterOverflow> {
        let cell = self.cells.get(&field.id());
        match (field.strategy, cell) {
            (Strategy::PnCounter, cell) => {
                let total = cell.map_or(0, Cell::total);
                fit(total, field).map(|fitted| Some(Value::Int(fitted)))
            }
            (Strategy::PnCounterFloat, cell) => {
                Ok(Some(Value::Float(cell.map_or(0, Cell::total) as f64)))
            }
            (_, Some(Cell::Register { value, .. })) if field.value_type.admits(value) => {
                Ok(Some(value.clone()))
            }
            _ => Ok(field.default.clone()),
        }
    }
}

fn fit(mut total: i128, field: &FieldSchema) -> Result<i128, CounterOverflow> {
    let (least, greatest) = field.value_type.integer_range().expect("an integer counter");
    match field.counter.overflow {
        Overflow::Saturate => Ok(total.max(least).min(greatest)),
        Overflow::Error if total < least || total > greatest => Err(CounterOverflow { total }),
        Overflow::Error => Ok(total),
        Overflow::Wrap => {
            while total < least {
                total += greatest - least + 1;
            }
            while total > greatest {
                total -= greatest - least + 1;
            }
            Ok(total)
        }
    }
}

/// What one transaction did: small documents to be joined.
pub(crate) type Change = BTreeMap<DocumentId, Document>;

/// The state of one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Twin {
    pub(crate) documents: BTreeMap<DocumentId, Document>,
}

impl Twin {
    pub(crate) fn apply(&mut self, change: &Change) {
        for (id, small) in change {
            match self.documents.get_mut(id) {
                Some(document) => document.join(small),
                None => {
                    self.documents.insert(id.clone(), small.clone());
                }
            }
        }
    }
}

/// Local writes that become one change, with the rules of what is refused.
pub(crate) struct TwinTransaction<'t> {
    state: &'t Twin,
    /// The change's replica, number and clock.
    stamp: Stamp,
    pub(crate) change: Change,
}

impl<'t> TwinTransaction<'t> {
    pub(crate) fn begin(state: &'t Twin, stamp: Stamp) -> TwinTransaction<'t> {
        TwinTransaction { state, stamp, change: Change::new() }
    }

    /// The document as this transaction sees it.
    pub(crate) fn view(&self, id: &DocumentId) -> Option<Document> {
        let mut seen = Twin::default();
        if let Some(stored) = self.state.documents.get(id) {
            seen.documents.insert(id.clone(), stored.clone());
        }
        if let Some(written) = self.change.get(id) {
            seen.apply(&Change::from([(id.clone(), written.clone())]));
        }
        seen.documents.remove(id)
    }

    fn alive(&self, id: &DocumentId) -> Result<Document, Refusal> {
        self.view(id).filter(|document| document.life % 2 == 1).ok_or(Refusal::NotFound)
    }

    pub(crate) fn create(&mut self, id: &DocumentId) -> Result<(), Refusal> {
        let life = self.view(id).map_or(0, |document| document.life);
        if life % 2 == 1 {
            return Err(Refusal::AlreadyExists);
        }
        self.change.insert(id.clone(), Document::new(life + 1, self.stamp));
        Ok(())
    }

    pub(crate) fn delete(&mut self, id: &DocumentId) -> Result<(), Refusal> {
        let life = self.alive(id)?.life;
        self.change.insert(id.clone(), Document::new(life + 1, self.stamp));
        Ok(())
    }

    pub(crate) fn set(
        &mut self,
        id: &DocumentId,
        field: &FieldSchema,
        value: Value,
    ) -> Result<(), Refusal> {
        let document = self.alive(id)?;
        if field.strategy == Strategy::Immutable && document.cells.contains_key(&field.id()) {
            return Err(Refusal::Immutable);
        }
        // What is overwritten is what others may hold; a write of this same change never left it.
        let stored = self.state.documents.get(id).filter(|stored| stored.life == document.life);
        let time = match stored.and_then(|stored| stored.cells.get(&field.id())) {
            Some(Cell::Register { stamp, .. }) => stamp.time.overwritten_at(self.stamp.time),
            _ => Some(self.stamp.time),
        };
        let time = time.ok_or(Refusal::ClockAtCeiling)?;
        let stamp = Stamp { time, ..self.stamp };
        self.write(id, document.life, field, Cell::Register { stamp, value });
        Ok(())
    }

    pub(crate) fn add(
        &mut self,
        id: &DocumentId,
        field: &FieldSchema,
        amount: i128,
    ) -> Result<(), Refusal> {
        let document = self.alive(id)?;
        let cell = document.cells.get(&field.id());
        let total = cell.map_or(0, Cell::total) + amount;
        if let Some((type_least, type_greatest)) = field.value_type.integer_range() {
            let least = field.counter.min_value.map_or(type_least, i128::from);
            let greatest = field.counter.max_value.map_or(type_greatest, i128::from);
            if (amount < 0 && total < least) || (amount > 0 && total > greatest) {
                return Err(Refusal::OutOfBounds);
            }
        }
        let own = match cell {
            Some(Cell::Counter(entries)) => entries.get(&self.stamp.replica).copied(),
            _ => None,
        };
        let mut totals = own.unwrap_or(Totals { number: 0, plus: 0, minus: 0 });
        totals.number = self.stamp.number;
        if amount > 0 {
            totals.plus += amount;
        } else {
            totals.minus -= amount;
        }
        let entries = BTreeMap::from([(self.stamp.replica, totals)]);
        self.write(id, document.life, field, Cell::Counter(entries));
        Ok(())
    }

    fn write(&mut self, id: &DocumentId, life: u64, field: &FieldSchema, cell: Cell) {
        let fresh = || Document::new(life, self.stamp);
        self.change.entry(id.clone()).or_insert_with(fresh).cells.insert(field.id(), cell);
    }
}
