//! Two sides that hold the same changes and have different states: they find the rows that differ,
//! and both rebuild the documents of these from their logs, which are signed.
//!
//! ```text
//! fingerprints differ --> the client says digests of ranges of rows <--> both narrow them down
//!                                                 |
//!            fingerprints are compared again <-- rebuild <-- nothing is left to be said
//! ```
//!
//! A peer's rows are never taken over: nobody has signed them. So a peer that lies costs time, and
//! the session ends where the states still differ after some repairs.

use vudo_crdt::{DifferentRows, RangeSummaries, SessionKey};

use super::message::Message;
use super::session::{CloseReason, Effect, Notice, misbehaved};
use crate::limits::{RANGE_MESSAGES_MAX, REPAIRS_MAX};

/// Where a repair is.
enum Phase {
    /// There is none.
    Idle,
    /// The peer is to say something.
    Awaits,
    /// Ranges are being compared; nobody has to answer if what was said `is_settled`.
    Compares {
        is_settled: bool,
    },
    Rebuilds,
}

pub(super) struct Repair {
    is_client: bool,
    key: SessionKey,
    phase: Phase,
    found: DifferentRows,
    /// Of this repair.
    message_count: usize,
    repair_count: usize,
}

impl Repair {
    /// For a session of two honest sides there is nothing to repair.
    pub(super) fn new(is_client: bool, key: SessionKey) -> Repair {
        let (phase, found) = (Phase::Idle, DifferentRows::default());
        Repair { is_client, key, phase, found, message_count: 0, repair_count: 0 }
    }

    /// Whether fingerprints mean nothing at the moment.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// Whether the peer has to say something next.
    pub(super) fn awaits_peer(&self) -> bool {
        matches!(self.phase, Phase::Awaits)
    }

    /// Begins a repair: the states differ at equal vectors.
    pub(super) fn begin(&mut self, effects: &mut Vec<Effect>) -> Result<(), CloseReason> {
        self.repair_count += 1;
        if self.repair_count > REPAIRS_MAX {
            return Err(CloseReason::Diverged);
        }
        (self.message_count, self.found) = (0, DifferentRows::default());
        self.phase = Phase::Awaits;
        if self.is_client {
            self.compare(None, effects);
        }
        Ok(())
    }

    fn compare(&mut self, said: Option<RangeSummaries>, effects: &mut Vec<Effect>) {
        let is_settled = said.as_ref().is_some_and(RangeSummaries::is_settled);
        self.phase = Phase::Compares { is_settled };
        effects.push(Effect::CompareRanges { said, key: self.key });
    }

    /// The peer has said something of ranges. It may have found before this side that states differ.
    pub(super) fn receive(
        &mut self,
        said: RangeSummaries,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        if !self.is_under_way() && !self.is_client {
            self.begin(effects)?;
        }
        self.message_count += 1;
        if !self.awaits_peer() || self.message_count > RANGE_MESSAGES_MAX {
            return Err(misbehaved("ranges of rows out of turn"));
        }
        self.compare(Some(said), effects);
        Ok(())
    }

    /// Ranges have been compared.
    pub(super) fn compared(
        &mut self,
        answer: RangeSummaries,
        found: DifferentRows,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        let Phase::Compares { is_settled } = self.phase else { return Ok(()) };
        self.found.extend(found);
        if self.found.are_too_many() {
            return Err(CloseReason::Diverged);
        }
        let is_last = is_settled || answer.is_settled();
        if !is_settled {
            effects.push(Effect::Send(Message::Ranges(answer)));
        }
        self.phase = Phase::Awaits;
        if is_last {
            self.phase = Phase::Rebuilds;
            effects.push(Effect::Rebuild(core::mem::take(&mut self.found)));
        }
        Ok(())
    }

    /// Documents have been rebuilt. Fingerprints mean something again.
    pub(super) fn rebuilt(&mut self, documents: usize, effects: &mut Vec<Effect>) {
        self.phase = Phase::Idle;
        effects.push(Effect::Notify(Notice::Repaired { documents }));
    }
}
