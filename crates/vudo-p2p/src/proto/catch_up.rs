//! One side is further behind than the other's log goes, and goes on from its checkpoint.
//!
//! ```text
//! giver                         taker
//!   checkpoint  ------------>           who has signed it, and the logs that it names
//!               <------------  part request
//!   part        ------------>           staged on disk
//!               ...
//!               <------------  goodbye   all of it has been verified and is in effect
//! ```
//!
//! The taker asks for one part after the other, so it is never sent more than it wants. When it has
//! everything the session ends, and the next one finds logs of which one continues the other. A session
//! that breaks earlier goes on with the next part that is missing. Both sides may do this at once, and
//! what the taker has written goes to the giver in frames meanwhile.

use vudo_state::{CheckpointOffer, CheckpointPart, PartRequest};

use super::message::Message;
use super::session::{CloseReason, Effect, misbehaved};
use crate::limits::CHECKPOINTS_MAX;

#[derive(Default)]
pub(super) struct CatchUp {
    /// What the peer lacks that is not in the log any more, where it is offered a checkpoint.
    lacking: Option<String>,
    is_reading: bool,
    /// The part that the peer is to send.
    wanted: Option<PartRequest>,
    is_taking: bool,
    checkpoint_count: usize,
}

impl CatchUp {
    /// Whether something that the peer has sent is being taken.
    pub(super) fn is_taking(&self) -> bool {
        self.is_taking
    }

    /// The log does not go back to what the peer holds. No more frames are read in this session.
    pub(super) fn offer(&mut self, lacking: String, effects: &mut Vec<Effect>) {
        self.lacking = Some(lacking);
        effects.push(Effect::ReadCheckpoint);
    }

    pub(super) fn checkpoint_ready(
        &mut self,
        offer: Option<Box<CheckpointOffer>>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        let lacking = || CloseReason::Compacted(self.lacking.clone().unwrap_or_default());
        effects.push(Effect::Send(Message::Checkpoint(offer.ok_or_else(lacking)?)));
        Ok(())
    }

    pub(super) fn part_ready(
        &mut self,
        part: Option<Box<CheckpointPart>>,
        effects: &mut Vec<Effect>,
    ) {
        self.is_reading = false;
        effects.push(match part {
            Some(part) => Effect::Send(Message::Part(part)),
            // The log has been compacted up to another one meanwhile.
            None => Effect::ReadCheckpoint,
        });
    }

    /// What has been sent has been taken.
    pub(super) fn taken(
        &mut self,
        next: Option<PartRequest>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        self.is_taking = false;
        // What the peer has been told of what is held here is not true any more.
        let request = next.ok_or(CloseReason::BeginAgain)?;
        self.wanted = Some(request.clone());
        effects.push(Effect::Send(Message::PartRequest(request)));
        Ok(())
    }

    pub(super) fn receive(
        &mut self,
        message: Message,
        effects: &mut Vec<Effect>,
    ) -> Result<(), CloseReason> {
        match message {
            Message::Checkpoint(offer) if !self.is_taking => {
                self.checkpoint_count += 1;
                if self.checkpoint_count > CHECKPOINTS_MAX {
                    return Err(misbehaved("checkpoints without an end"));
                }
                (self.wanted, self.is_taking) = (None, true);
                effects.push(Effect::TakeCheckpoint(offer));
            }
            Message::Part(part) if self.wanted.as_ref() == Some(&part.request) => {
                (self.wanted, self.is_taking) = (None, true);
                effects.push(Effect::TakePart(part));
            }
            Message::PartRequest(request) if self.lacking.is_some() && !self.is_reading => {
                self.is_reading = true;
                effects.push(Effect::ReadPart(request));
            }
            _ => return Err(misbehaved("a message out of turn")),
        }
        Ok(())
    }
}
