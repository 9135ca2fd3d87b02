//! Presence in a session: one message at a time in each direction, and never two in less than 50 ms.
//!
//! ```text
//!   presence  ------------>           what has changed since the last one, the newest of each origin
//!             <------------  taken    no sooner than 50 ms after the one before
//! ```
//!
//! The receiver sets the pace. What changes meanwhile waits in the table, where a newer value takes the
//! place of an older one, so nothing queues up for a peer that is slow, and a peer that does not wait is cut
//! off. Nothing is said where nobody shows anything.

use super::message::{Message, PresenceUpdate};
use super::session::{CloseReason, Effect, Milliseconds, misbehaved};
use crate::limits::PRESENCE_INTERVAL;

/// One side's part of a session.
#[derive(Default)]
pub(super) struct PresenceExchange {
    /// Up to which revision of the table the peer has been told.
    told_revision: u64,
    has_changed: bool,
    is_reading: bool,
    /// Whether the peer has not taken yet what it was told.
    is_untaken: bool,
    /// Whether the peer waits to hear that what it told has been taken.
    owes_answer: bool,
    /// That is not said before this.
    answer_from: Milliseconds,
}

impl PresenceExchange {
    /// When there is something to say, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Milliseconds> {
        self.owes_answer.then_some(self.answer_from)
    }

    /// The table has changed.
    pub(super) fn changed(&mut self) {
        self.has_changed = true;
    }

    pub(super) fn receive(
        &mut self,
        updates: Vec<PresenceUpdate>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        if self.owes_answer {
            return Err(misbehaved("presence again before the last was taken"));
        }
        self.owes_answer = true;
        effects.push(Effect::TakePresence(updates));
        Ok(())
    }

    /// The peer has taken what it was told.
    pub(super) fn taken(&mut self) -> Result<(), CloseReason> {
        let was_told = std::mem::take(&mut self.is_untaken);
        was_told
            .then_some(())
            .ok_or_else(|| misbehaved("an answer to presence that it was not told"))
    }

    /// What has changed has been read.
    pub(super) fn ready(
        &mut self,
        updates: Vec<PresenceUpdate>,
        revision: u64,
        effects: &mut Vec<Effect>,
    ) {
        self.is_reading = false;
        self.told_revision = revision;
        if !updates.is_empty() {
            self.is_untaken = true;
            // There may be more than one message holds.
            self.has_changed = true;
            effects.push(Effect::Send(Message::Presence(updates)));
        }
    }

    /// Starts whatever can be started.
    pub(super) fn proceed(&mut self, now: Milliseconds, effects: &mut Vec<Effect>) {
        if self.owes_answer && now >= self.answer_from {
            self.owes_answer = false;
            self.answer_from = now.saturating_add(PRESENCE_INTERVAL.as_millis() as Milliseconds);
            effects.push(Effect::Send(Message::PresenceTaken));
        }
        if self.has_changed && !self.is_reading && !self.is_untaken {
            self.has_changed = false;
            self.is_reading = true;
            effects.push(Effect::ReadPresence { since: self.told_revision });
        }
    }
}
