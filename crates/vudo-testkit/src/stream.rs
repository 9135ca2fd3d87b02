//! An ordered stream of messages over packets that get lost: what QUIC and TCP are to a protocol.
//!
//! Messages are numbered from zero. The receiver keeps those that come early, drops those that come
//! again, and says with every packet which number it waits for. The sender sends again what has not
//! been confirmed, whenever it is asked to.

use std::collections::BTreeMap;

/// What one end sends to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The first number that the sender of the packet has not received.
    pub expected: u64,
    /// A message and its number; a packet without one only confirms.
    pub message: Option<(u64, Vec<u8>)>,
}

/// One end of a stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    sent_count: u64,
    unconfirmed: BTreeMap<u64, Vec<u8>>,
    expected: u64,
    early: BTreeMap<u64, Vec<u8>>,
}

impl Stream {
    /// Sends a message.
    pub fn send(&mut self, message: Vec<u8>) -> Packet {
        let number = self.sent_count;
        self.sent_count += 1;
        self.unconfirmed.insert(number, message.clone());
        Packet { expected: self.expected, message: Some((number, message)) }
    }

    /// Takes a packet. Gives the messages that have come to their turn, and a confirmation where
    /// the packet brought a message.
    pub fn receive(&mut self, packet: Packet) -> (Vec<Vec<u8>>, Option<Packet>) {
        self.unconfirmed = self.unconfirmed.split_off(&packet.expected);
        let Some((number, message)) = packet.message else {
            return (Vec::new(), None);
        };
        if number >= self.expected {
            self.early.insert(number, message);
        }
        let mut ready = Vec::new();
        while let Some(message) = self.early.remove(&self.expected) {
            ready.push(message);
            self.expected += 1;
        }
        (ready, Some(Packet { expected: self.expected, message: None }))
    }

    /// Everything that has not been confirmed, to be sent again.
    pub fn retransmission(&self) -> Vec<Packet> {
        let packet = |(number, message): (&u64, &Vec<u8>)| Packet {
            expected: self.expected,
            message: Some((*number, message.clone())),
        };
        self.unconfirmed.iter().map(packet).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Carries 100 messages through a network that loses half of the packets and shuffles the rest.
    fn carry(seed: u64, retransmits: bool) -> Vec<Vec<u8>> {
        let mut random = Random::new(seed);
        let (mut sender, mut receiver) = (Stream::default(), Stream::default());
        let mut wire: Vec<Packet> = (0..100u8).map(|number| sender.send(vec![number])).collect();
        let mut arrived = Vec::new();
        for _ in 0..40 {
            while !wire.is_empty() {
                let packet = wire.remove(random.below(wire.len()));
                if random.one_in(2) {
                    continue;
                }
                let (ready, confirmation) = receiver.receive(packet);
                arrived.extend(ready);
                if let Some(confirmation) = confirmation.filter(|_| random.one_in(2)) {
                    assert_eq!(sender.receive(confirmation), (Vec::new(), None));
                }
            }
            if retransmits {
                wire = sender.retransmission();
            }
        }
        arrived
    }

    #[test]
    fn messages_arrive_once_and_in_order_however_many_packets_are_lost() {
        let expected: Vec<Vec<u8>> = (0..100u8).map(|number| vec![number]).collect();
        for seed in 0..50 {
            assert_eq!(carry(seed, true), expected, "seed {seed}");
            assert!(carry(seed, false).len() < 100, "seed {seed}");
        }
    }
}
