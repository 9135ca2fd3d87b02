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

/// What one replica did to a bounded counter, up to this number of its changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rights {
    number: u64,
    added: i128,
    taken: i128,
    given: BTreeMap<(ReplicaKey, bool), i128>,
}

/// The writes of one replica to a register of many values: the number of the last one with its time
/// and value, and up to which number they were overwritten.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Dot {
    written: u64,
    time: Option<Time>,
    value: Option<Value>,
    covered: u64,
}

pub(crate) type Dots = BTreeMap<ReplicaKey, Dot>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Register {
        stamp: Stamp,
        value: Value,
    },
    Counter(BTreeMap<ReplicaKey, Totals>),
    Bounded(BTreeMap<ReplicaKey, Rights>),
    Values(Dots),
    /// By the bytes of the element.
    Set(BTreeMap<Vec<u8>, Dots>),
    /// By the bytes of the key. An entry comes and goes as a document does.
    Map(BTreeMap<Vec<u8>, Document>),
}

fn join_dots(mine: &mut Dots, theirs: &Dots) {
    for (replica, dot) in theirs {
        let known = mine.entry(*replica).or_default();
        if dot.written > known.written {
            (known.written, known.time) = (dot.written, dot.time);
            known.value = dot.value.clone();
        }
        known.covered = known.covered.max(dot.covered);
    }
}

fn is_live(dot: &Dot) -> bool {
    dot.written > dot.covered
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
            (Cell::Bounded(mine), Cell::Bounded(theirs)) => {
                for (replica, rights) in theirs {
                    let known = mine.entry(*replica).or_default();
                    if rights.number > known.number {
                        *known = rights.clone();
                    }
                }
            }
            (Cell::Values(mine), Cell::Values(theirs)) => join_dots(mine, theirs),
            (Cell::Set(mine), Cell::Set(theirs)) => {
                for (element, dots) in theirs {
                    join_dots(mine.entry(element.clone()).or_default(), dots);
                }
            }
            (Cell::Map(mine), Cell::Map(theirs)) => {
                for (key, entry) in theirs {
                    match mine.get_mut(key) {
                        Some(known) => known.join(entry),
                        None => {
                            mine.insert(key.clone(), entry.clone());
                        }
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
            _ => panic!("only counters have a total"),
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

    fn is_alive(&self) -> bool {
        self.life % 2 == 1
    }

    /// What a reader sees of a field.
    pub(crate) fn read(&self, field: &FieldSchema) -> Result<Option<Value>, CounterOverflow> {
        let cell = self.cells.get(&field.id());
        match (field.strategy, cell) {
            (Strategy::PnCounter | Strategy::GCounter, cell) => {
                let total = cell.map_or(0, Cell::total);
                fit(total, field).map(|fitted| Some(Value::Int(fitted)))
            }
            (Strategy::PnCounterFloat, cell) => {
                Ok(Some(Value::Float(cell.map_or(0, Cell::total) as f64)))
            }
            (Strategy::BoundedCounter, cell) => {
                let (least, greatest) = bounds_of(field);
                let total = start_of(field) + cell.map_or(0, moved);
                assert!((least..=greatest).contains(&total), "the bound of {} broke", field.name);
                Ok(Some(Value::Int(total)))
            }
            (Strategy::MvRegister, Some(Cell::Values(dots))) => {
                let live = dots.iter().filter(|(_, dot)| is_live(dot));
                let mut values: Vec<_> =
                    live.map(|(replica, dot)| (dot.time, replica, dot.value.clone())).collect();
                values.sort_by_key(|(time, replica, _)| (*time, **replica));
                Ok(Some(Value::List(
                    values.into_iter().filter_map(|(_, _, value)| value).collect(),
                )))
            }
            (Strategy::OrSet, cell) => {
                let mut elements = Vec::new();
                if let Some(Cell::Set(set)) = cell {
                    for (element, dots) in set {
                        if dots.values().any(is_live) {
                            elements.extend(Value::decode(element));
                        }
                    }
                }
                Ok(Some(Value::List(elements)))
            }
            (Strategy::Map, cell) => {
                let mut entries = Vec::new();
                let value_field = field.map_value().expect("a map holds values");
                if let Some(Cell::Map(map)) = cell {
                    for (key, entry) in map.iter().filter(|(_, entry)| entry.is_alive()) {
                        if let Some(value) = entry.read(&value_field)? {
                            entries.push((Value::decode(key).expect("a known kind"), value));
                        }
                    }
                }
                Ok(Some(Value::Map(entries)))
            }
            (_, Some(Cell::Register { value, .. })) if field.value_type.admits(value) => {
                Ok(Some(value.clone()))
            }
            _ => Ok(field.default.clone()),
        }
    }
}

fn bounds_of(field: &FieldSchema) -> (i128, i128) {
    let (type_least, type_greatest) = field.value_type.integer_range().expect("integers");
    let least = field.counter.min_value.map_or(type_least, i128::from);
    (least, field.counter.max_value.map_or(type_greatest, i128::from))
}

fn start_of(field: &FieldSchema) -> i128 {
    let (least, greatest) = bounds_of(field);
    0.clamp(least, greatest)
}

fn moved(cell: &Cell) -> i128 {
    match cell {
        Cell::Bounded(entries) => entries.values().map(|entry| entry.added - entry.taken).sum(),
        _ => panic!("only bounded counters move"),
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
        self.view(id).filter(Document::is_alive).ok_or(Refusal::NotFound)
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

    /// Sets a register, in the document or in the entry of a map.
    pub(crate) fn set(
        &mut self,
        place: &Place<'_>,
        field: &FieldSchema,
        value: Value,
    ) -> Result<(), Refusal> {
        let document = self.alive_at(place)?;
        let id = field.id();
        if field.strategy == Strategy::MvRegister {
            return self.set_values(place, &document, id, value);
        }
        if field.strategy == Strategy::Immutable && document.cells.contains_key(&id) {
            return Err(Refusal::Immutable);
        }
        // What is overwritten is what others may hold; a write of this same change never left it.
        let stored = self.stored_at(place).filter(|stored| stored.life == document.life);
        let time = match stored.as_ref().and_then(|stored| stored.cells.get(&id)) {
            Some(Cell::Register { stamp, .. }) => stamp.time.overwritten_at(self.stamp.time),
            _ => Some(self.stamp.time),
        };
        let time = time.ok_or(Refusal::ClockAtCeiling)?;
        let stamp = Stamp { time, ..self.stamp };
        self.write(place, document.life, id, Cell::Register { stamp, value });
        Ok(())
    }

    fn set_values(
        &mut self,
        place: &Place<'_>,
        document: &Document,
        id: CellId,
        value: Value,
    ) -> Result<(), Refusal> {
        let mut dots = Dots::new();
        let mut time = self.stamp.time;
        if let Some(Cell::Values(seen)) = document.cells.get(&id) {
            for (replica, dot) in seen {
                if *replica != self.stamp.replica {
                    let covered = dot.covered.max(dot.written);
                    dots.insert(*replica, Dot { covered, ..Dot::default() });
                }
                let is_own = (*replica, dot.written) == (self.stamp.replica, self.stamp.number);
                if is_live(dot) && !is_own {
                    let seen_time = dot.time.expect("a value has a time");
                    let later = seen_time.overwritten_at(self.stamp.time);
                    time = time.max(later.ok_or(Refusal::ClockAtCeiling)?);
                }
            }
        }
        let written = self.stamp.number;
        let own = Dot { written, time: Some(time), value: Some(value), covered: 0 };
        dots.insert(self.stamp.replica, own);
        self.write(place, document.life, id, Cell::Values(dots));
        Ok(())
    }

    pub(crate) fn add_element(
        &mut self,
        place: &Place<'_>,
        field: &FieldSchema,
        element: &Value,
    ) -> Result<(), Refusal> {
        let document = self.alive_at(place)?;
        let element = element.to_bytes();
        let mut dots = self.pending_dots(place, field.id(), &element);
        let own = dots.entry(self.stamp.replica).or_default();
        own.written = self.stamp.number;
        self.write_dots(place, document.life, field.id(), element, dots);
        Ok(())
    }

    pub(crate) fn remove_element(
        &mut self,
        place: &Place<'_>,
        field: &FieldSchema,
        element: &Value,
    ) -> Result<(), Refusal> {
        let document = self.alive_at(place)?;
        let element = element.to_bytes();
        let Some(Cell::Set(set)) = document.cells.get(&field.id()) else {
            return Ok(());
        };
        let seen = set.get(&element).cloned().unwrap_or_default();
        if !seen.values().any(is_live) {
            return Ok(());
        }
        let mut dots = self.pending_dots(place, field.id(), &element);
        for (replica, dot) in &seen {
            let known = dots.entry(*replica).or_default();
            let is_own = (*replica, dot.written) == (self.stamp.replica, self.stamp.number);
            if is_own {
                // What this transaction added never leaves it, but what it hid may be there still.
                *known = Dot { covered: self.stamp.number - 1, ..Dot::default() };
            } else {
                known.covered = known.covered.max(dot.written).max(dot.covered);
            }
        }
        self.write_dots(place, document.life, field.id(), element, dots);
        Ok(())
    }

    /// What this transaction did to the element of a set so far.
    fn pending_dots(&self, place: &Place<'_>, id: CellId, element: &[u8]) -> Dots {
        let pending = self.change.get(place.document).and_then(|document| place.of(document));
        match pending.as_ref().and_then(|document| document.cells.get(&id)) {
            Some(Cell::Set(set)) => set.get(element).cloned().unwrap_or_default(),
            _ => Dots::new(),
        }
    }

    fn write_dots(&mut self, place: &Place<'_>, life: u64, id: CellId, key: Vec<u8>, dots: Dots) {
        let pending = self.change.get(place.document).and_then(|document| place.of(document));
        let mut set = match pending.and_then(|mut document| document.cells.remove(&id)) {
            Some(Cell::Set(set)) => set,
            _ => BTreeMap::new(),
        };
        set.insert(key, dots);
        self.write(place, life, id, Cell::Set(set));
    }

    /// Creates the entry of a map where it is not there.
    pub(crate) fn entry(&mut self, place: &Place<'_>) -> Result<(), Refusal> {
        let life = self.entry_life(place)?;
        if life % 2 == 0 { self.begin_entry(place, life + 1) } else { Ok(()) }
    }

    pub(crate) fn remove_entry(&mut self, place: &Place<'_>) -> Result<(), Refusal> {
        let life = self.entry_life(place)?;
        if life % 2 == 1 { self.begin_entry(place, life + 1) } else { Ok(()) }
    }

    fn entry_life(&self, place: &Place<'_>) -> Result<u64, Refusal> {
        let document = self.alive(place.document)?;
        Ok(place.of(&document).map_or(0, |entry| entry.life))
    }

    fn begin_entry(&mut self, place: &Place<'_>, life: u64) -> Result<(), Refusal> {
        let document_life = self.alive(place.document)?.life;
        let entry = Document::new(life, self.stamp);
        self.put_entry(place, document_life, entry);
        Ok(())
    }

    fn put_entry(&mut self, place: &Place<'_>, document_life: u64, entry: Document) {
        let (map, key) = place.entry.as_ref().expect("a place in a map");
        let fresh = || Document::new(document_life, self.stamp);
        let document = self.change.entry(place.document.clone()).or_insert_with(fresh);
        let cell = document.cells.entry(*map).or_insert_with(|| Cell::Map(BTreeMap::new()));
        let Cell::Map(entries) = cell else { panic!("a map is a map") };
        entries.insert(key.clone(), entry);
    }

    pub(crate) fn add(
        &mut self,
        place: &Place<'_>,
        field: &FieldSchema,
        amount: i128,
    ) -> Result<(), Refusal> {
        let document = self.alive_at(place)?;
        let cell = document.cells.get(&field.id());
        if field.strategy == Strategy::GCounter && amount < 0 {
            return Err(Refusal::OutOfBounds);
        }
        let total = cell.map_or(0, Cell::total) + amount;
        if field.value_type.integer_range().is_some() {
            let (least, greatest) = bounds_of(field);
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
        self.write(place, document.life, field.id(), Cell::Counter(entries));
        Ok(())
    }

    /// Moves a bounded counter, or with a receiver gives away the right to do so.
    pub(crate) fn move_bounded(
        &mut self,
        place: &Place<'_>,
        field: &FieldSchema,
        founder: ReplicaKey,
        receiver: Option<ReplicaKey>,
        amount: i128,
    ) -> Result<(), Refusal> {
        let document = self.alive_at(place)?;
        let entries = match document.cells.get(&field.id()) {
            Some(Cell::Bounded(entries)) => entries.clone(),
            _ => BTreeMap::new(),
        };
        let own = self.stamp.replica;
        let is_up = amount >= 0;
        let (least, greatest) = bounds_of(field);
        let start = start_of(field);
        let mut held = match is_up {
            _ if own != founder => 0,
            true => greatest - start,
            false => start - least,
        };
        for (replica, entry) in &entries {
            if *replica == own {
                let moved = entry.added - entry.taken;
                held += if is_up { -moved } else { moved };
            }
            for ((to, up), given) in &entry.given {
                if *up == is_up {
                    held -= if *replica == own { *given } else { 0 };
                    held += if *to == own { *given } else { 0 };
                }
            }
        }
        if amount.abs() > held {
            return Err(Refusal::NoRights);
        }
        let mut mine = entries.get(&own).cloned().unwrap_or_default();
        mine.number = self.stamp.number;
        match receiver {
            Some(receiver) => *mine.given.entry((receiver, is_up)).or_default() += amount.abs(),
            None if is_up => mine.added += amount,
            None => mine.taken -= amount,
        }
        let cell = Cell::Bounded(BTreeMap::from([(own, mine)]));
        self.write(place, document.life, field.id(), cell);
        Ok(())
    }

    /// The document or entry at a place as this transaction sees it.
    fn alive_at(&self, place: &Place<'_>) -> Result<Document, Refusal> {
        let document = self.alive(place.document)?;
        place.of(&document).filter(Document::is_alive).ok_or(Refusal::NotFound)
    }

    /// The same as it was before this transaction, in the life that the transaction sees.
    fn stored_at(&self, place: &Place<'_>) -> Option<Document> {
        let life = self.view(place.document)?.life;
        let stored = self.state.documents.get(place.document);
        place.of(stored.filter(|stored| stored.life == life)?)
    }

    fn write(&mut self, place: &Place<'_>, life: u64, id: CellId, cell: Cell) {
        let document_life = self.view(place.document).map_or(0, |document| document.life);
        if place.entry.is_some() {
            let pending = self.change.get(place.document).and_then(|document| place.of(document));
            let mut entry = pending.unwrap_or_else(|| Document::new(life, self.stamp));
            entry.cells.insert(id, cell);
            self.put_entry(place, document_life, entry);
        } else {
            let fresh = || Document::new(life, self.stamp);
            let document = self.change.entry(place.document.clone()).or_insert_with(fresh);
            document.cells.insert(id, cell);
        }
    }
}

/// A document, or an entry of one of its maps, by the bytes of the key.
pub(crate) struct Place<'p> {
    pub(crate) document: &'p DocumentId,
    pub(crate) entry: Option<(CellId, Vec<u8>)>,
}

impl Place<'_> {
    /// What of a document lies at this place.
    fn of(&self, document: &Document) -> Option<Document> {
        let Some((map, key)) = &self.entry else {
            return Some(document.clone());
        };
        match document.cells.get(map)? {
            Cell::Map(entries) => entries.get(key).cloned(),
            _ => panic!("a map is a map"),
        }
    }
}
