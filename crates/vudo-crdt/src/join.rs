//! The join: what two states of a document, or of a cell, merge to.
//!
//! Commutative, associative and idempotent, because every case picks the greater of two elements
//! of a total order, or does so entry by entry. Nothing here depends on which side came first.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::change::{DocumentChange, Written};
use crate::dots;
use crate::replica::{ReplicaIndex, Replicas};
use crate::row::{Cell, CellId, Row, RowWriter, Stamp};
use crate::schema::Strategy;

/// Where rows are put together; kept, so that a merge allocates nothing per operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joiner {
    /// The replicas that the change at hand refers to by their places here; first its own.
    pub(crate) references: Vec<ReplicaIndex>,
    delta: Vec<u8>,
    joined: Vec<u8>,
}

impl Joiner {
    pub(crate) const fn new() -> Joiner {
        Joiner { references: Vec::new(), delta: Vec::new(), joined: Vec::new() }
    }

    /// Begins the replicas that a change refers to with its own.
    pub(crate) fn begin_references(&mut self, own: ReplicaIndex) {
        self.references.clear();
        self.references.push(own);
    }

    /// Begins with what a change does to a document or entry.
    pub(crate) fn begin(&mut self, document: &DocumentChange<'_>, stamp: Stamp) -> Written {
        self.delta.clear();
        document.write_row(stamp, &self.references, &mut self.delta)
    }

    /// The row that a whole row makes of the document's row, which is empty where it has none.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn join_row<'j>(
        &'j mut self,
        stored: &[u8],
        row: &[u8],
        replicas: &Replicas,
    ) -> &'j [u8] {
        self.delta.clear();
        self.delta.extend_from_slice(row);
        self.join(stored, replicas)
    }

    /// The row that this makes of the document's row, which is empty where it has none.
    pub(crate) fn join<'j>(&'j mut self, stored: &[u8], replicas: &Replicas) -> &'j [u8] {
        if stored.is_empty() {
            return &self.delta;
        }
        self.joined.clear();
        join_rows(&Row::parse(stored), &Row::parse(&self.delta), replicas, &mut self.joined);
        &self.joined
    }
}

/// Appends the join of two rows of one document.
fn join_rows(left: &Row<'_>, right: &Row<'_>, replicas: &Replicas, out: &mut Vec<u8>) {
    debug_assert_eq!(left.key, right.key);
    // The greater life wins whole: what was written in an earlier life has no effect in a later.
    let by_stamp = || compare_stamps(&left.stamp.decode(), &right.stamp.decode(), replicas);
    let left_wins = left.life.cmp(&right.life).then_with(by_stamp).is_gt();
    let winner = if left_wins { left } else { right };
    let mut writer = RowWriter::begin(out, winner);
    let mut left = left.cells_in(winner.life);
    let mut right = right.cells_in(winner.life);
    loop {
        let (left_id, right_id) = (left.cell.id, right.cell.id);
        match left_id.cmp(&right_id) {
            Ordering::Less => writer.cell(&left.cell),
            Ordering::Greater => writer.cell(&right.cell),
            Ordering::Equal if left_id == CellId::END => return,
            Ordering::Equal => write_join(&left.cell, &right.cell, replicas, &mut writer),
        }
        if left_id <= right_id {
            left.advance();
        }
        if right_id <= left_id {
            right.advance();
        }
    }
}

/// Writes the join of two states of one cell.
fn write_join<'a>(
    left: &Cell<'a>,
    right: &Cell<'a>,
    replicas: &Replicas,
    writer: &mut RowWriter<'_, 'a>,
) {
    if left.id.has_dots() {
        dots::join(left.state, right.state, writer.unstamped(left.id));
    } else if left.id.is_collection() {
        // Both say no more than that there are entries, which are joined one by one.
        writer.cell(left);
    } else {
        let is_left = compare_registers(left, right, replicas).is_ge();
        writer.cell(if is_left { left } else { right });
    }
}

/// The total order whose greatest element is the value of a register. It goes on past replica and
/// number, which only a forked replica makes equal, so that even then everybody agrees.
fn compare_registers(left: &Cell<'_>, right: &Cell<'_>, replicas: &Replicas) -> Ordering {
    let (left_stamp, right_stamp) = (left.stamp.decode(), right.stamp.decode());
    let tag = left.id.tag();
    // A strategy of a later version is kept as if it were lww until this build is upgraded.
    let mut order = left_stamp.hlc.cmp(&right_stamp.hlc);
    if order.is_eq() {
        order = left.state.cmp(right.state);
        if tag != Strategy::LwwContent.tag() || order.is_eq() {
            order = compare_stamps(&left_stamp, &right_stamp, replicas).then(order);
        }
    }
    if tag == Strategy::Immutable.tag() { order.reverse() } else { order }
}

/// Orders stamps by time, then replica key, then number.
fn compare_stamps(left: &Stamp, right: &Stamp, replicas: &Replicas) -> Ordering {
    left.hlc.cmp(&right.hlc).then_with(|| {
        if left.replica == right.replica {
            left.number.cmp(&right.number)
        } else if cfg!(vudo_mutation = "lww_tie_flipped") {
            replicas.key(right.replica).cmp(replicas.key(left.replica))
        } else {
            replicas.key(left.replica).cmp(replicas.key(right.replica))
        }
    })
}
