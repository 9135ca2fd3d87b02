//! Takes everything and says nothing.

use vudo_credit::{Message, Party};

use super::Liar;

pub(crate) struct Nuller;

impl Liar for Nuller {
    fn receive(&mut self, _from: Party, _message: Message) -> Vec<(Party, Message)> {
        Vec::new()
    }

    fn strike(&mut self, _clock: u64) -> Vec<(Party, Message)> {
        Vec::new()
    }
}
