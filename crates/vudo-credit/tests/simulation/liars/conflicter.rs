//! Is two members in one: it answers some as one honest member and others as another, who have not
//! heard of each other's votes. When a lane is closed it reports that it holds nothing.

use vudo_credit::committee::Kind;
use vudo_credit::{Effect, Event, Member, Message, Party, Signature};

use super::{Identity, Liar};

pub(crate) struct Conflicter {
    pub(crate) identity: Identity,
    pub(crate) minds: [Member; 2],
}

impl Conflicter {
    fn think(&mut self, mind: usize, event: Event) -> Vec<(Party, Message)> {
        let effects = self.minds[mind].handle(event);
        let sends = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send { to, message } => Some((to, self.alter(message))),
            Effect::Persist(_) => None,
        });
        sends.collect()
    }

    /// Reports leave out everything.
    fn alter(&self, message: Message) -> Message {
        let Message::Report(mut report) = message else { return message };
        report.certified = None;
        report.chains.clear();
        report.signature = Signature([0; 64]);
        let Identity { committee, secret, .. } = &self.identity;
        report.signature = committee.sign(secret, Kind::Report, report.digest());
        Message::Report(report)
    }
}

impl Liar for Conflicter {
    fn receive(&mut self, from: Party, message: Message) -> Vec<(Party, Message)> {
        let is_about_log = matches!(message, Message::Committed(_));
        if is_about_log {
            // Both minds follow the log.
            let event = Event::Message { from, message: message.clone() };
            self.think(1, event);
            return self.think(0, Event::Message { from, message });
        }
        let mind = match from {
            Party::Member(member) => usize::from(member % 2),
            Party::Client(client) => (client % 2) as usize,
        };
        self.think(mind, Event::Message { from, message })
    }

    fn strike(&mut self, clock: u64) -> Vec<(Party, Message)> {
        let mut sends = Vec::new();
        for mind in 0..2 {
            sends.extend(self.think(mind, Event::Clock(clock)));
            sends.extend(self.think(mind, Event::Retry));
        }
        sends
    }
}
