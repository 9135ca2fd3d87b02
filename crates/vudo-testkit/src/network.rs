//! A network that delays, loses, duplicates, reorders and partitions.

use crate::random::Random;
use crate::scheduler::Microseconds;

/// What a network does to packets.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Least and greatest time on the way. Two packets that are sent one after the other arrive in
    /// any order within it.
    pub delay: (Microseconds, Microseconds),
    /// How many of a hundred packets never arrive.
    pub loss_percent: u8,
    /// How many of a hundred arrive twice.
    pub duplication_percent: u8,
}

impl Conditions {
    /// A network without faults.
    pub fn healthy() -> Conditions {
        Conditions { delay: (100, 1_000), loss_percent: 0, duplication_percent: 0 }
    }
}

/// The way between any two nodes, named by numbers.
#[derive(Clone, Debug)]
pub struct Network {
    /// What happens to packets now.
    pub conditions: Conditions,
    /// The group that each node belongs to; packets only reach their own group.
    groups: Vec<usize>,
}

impl Network {
    /// A network without faults.
    pub fn new(node_count: usize) -> Network {
        Network { conditions: Conditions::healthy(), groups: vec![0; node_count] }
    }

    /// Puts every node into one of so many groups, at random.
    pub fn partition(&mut self, group_count: usize, random: &mut Random) {
        self.groups.iter_mut().for_each(|group| *group = random.below(group_count));
    }

    /// Ends the partition and every fault.
    pub fn heal(&mut self) {
        self.groups.fill(0);
        self.conditions = Conditions::healthy();
    }

    /// Whether packets get from one node to the other at all.
    pub fn is_reachable(&self, from: usize, to: usize) -> bool {
        self.groups[from] == self.groups[to]
    }

    /// After which times a packet arrives: not at all, once, or twice.
    pub fn deliveries(&self, from: usize, to: usize, random: &mut Random) -> Vec<Microseconds> {
        let conditions = &self.conditions;
        if !self.is_reachable(from, to) || random.percent(conditions.loss_percent) {
            return Vec::new();
        }
        let copies = 1 + usize::from(random.percent(conditions.duplication_percent));
        let (least, most) = conditions.delay;
        (0..copies).map(|_| random.between(least, most)).collect()
    }
}
