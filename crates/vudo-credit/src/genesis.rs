//! What a ledger begins with: its committee, its operators and its tiers.

use crate::committee::Committee;
use crate::error::Refusal;
use crate::keys::{Digest, Key, NetworkId};
use crate::limits::{
    AMOUNT_MAX, NAME_BYTES_MAX, OPERATORS_MAX, SETTLE_WINDOW_TICKS_MAX, THOUSANDTHS, TIERS_MAX,
};
use crate::wire::{Listed, MalformedFrame, Reader, Wire, read_text, wire_struct, write_text};

/// What an account of one tier may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The highest limit that an operator may set, in units.
    pub limit_max: u64,
    /// What one grant may take of the free headroom, in thousandths.
    pub allowance_thousandths: u64,
    /// How long a grant may be spent from, in ticks.
    pub life_ticks: u64,
    /// A wallet asks for another grant when less than this is left of one, in thousandths.
    pub refresh_thousandths: u64,
}

/// What a ledger begins with. Its hash names the ledger, and everything signed names that hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// For people.
    pub name: String,
    /// The keys of the committee's members, in order.
    pub members: Vec<Key>,
    /// The place of the member that orders the log.
    pub sequencer: u8,
    /// The keys that set limits and fund the reserve.
    pub operators: Vec<Key>,
    /// The account that pays where nobody else can.
    pub reserve: Key,
    /// By number, from tier 0.
    pub tiers: Vec<Tier>,
    /// How long after its last tick a grant's spends may be deposited, in ticks.
    pub settle_window_ticks: u64,
}

/// Tiers 0 to 5 as they are set up where nothing else is asked for; a tick is a day.
pub const DEFAULT_TIERS: [Tier; 6] = [
    tier(0, 100, 1, 0),
    tier(1_000, 100, 7, 200),
    tier(10_000, 200, 14, 200),
    tier(100_000, 250, 30, 250),
    tier(1_000_000, 300, 60, 250),
    tier(10_000_000, 500, 90, 300),
];

const fn tier(limit_max: u64, allowance: u64, life_ticks: u64, refresh: u64) -> Tier {
    Tier { limit_max, allowance_thousandths: allowance, life_ticks, refresh_thousandths: refresh }
}

impl Genesis {
    /// Checks that it does not contradict itself.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        let wrong = |what| Err(Refusal::Genesis { what });
        if self.name.len() > NAME_BYTES_MAX {
            return wrong("its name has more than 255 bytes");
        }
        Committee::new(Digest::default(), 0, self.members.clone())?;
        if usize::from(self.sequencer) >= self.members.len() {
            return wrong("the sequencer is no member");
        }
        if !(1..=OPERATORS_MAX).contains(&self.operators.len()) {
            return wrong("give 1 to 16 operators");
        }
        if !(1..=TIERS_MAX).contains(&self.tiers.len()) {
            return wrong("give 1 to 16 tiers");
        }
        if !(1..=SETTLE_WINDOW_TICKS_MAX).contains(&self.settle_window_ticks) {
            return wrong("give a settle window of 1 to 366 ticks");
        }
        let is_tier = |tier: &Tier| {
            tier.limit_max <= AMOUNT_MAX
                && tier.allowance_thousandths <= THOUSANDTHS
                && tier.refresh_thousandths <= THOUSANDTHS
                && tier.life_ticks <= u64::from(u32::MAX)
        };
        if !self.tiers.iter().all(is_tier) {
            return wrong("a tier has a share of more than the whole, or a limit past 2^53 - 1");
        }
        Ok(())
    }

    /// The ledger's name in everything signed.
    pub fn network(&self) -> NetworkId {
        Digest::of("vudo-credit/1/genesis", &[&self.to_bytes()])
    }

    /// The committee.
    ///
    /// # Errors
    /// Its members are none, too many, or not distinct.
    pub fn committee(&self) -> Result<Committee, Refusal> {
        Committee::new(self.network(), 0, self.members.clone())
    }
}

wire_struct!(Tier { limit_max, allowance_thousandths, life_ticks, refresh_thousandths });

impl Listed for Tier {
    const COUNT_MAX: usize = TIERS_MAX;
}

impl Wire for Genesis {
    fn write(&self, out: &mut Vec<u8>) {
        write_text(out, &self.name);
        self.members.write(out);
        self.sequencer.write(out);
        self.operators.write(out);
        self.reserve.write(out);
        self.tiers.write(out);
        self.settle_window_ticks.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Genesis, MalformedFrame> {
        let genesis = Genesis {
            name: read_text(reader, NAME_BYTES_MAX)?,
            members: Vec::read(reader)?,
            sequencer: u8::read(reader)?,
            operators: Vec::read(reader)?,
            reserve: Key::read(reader)?,
            tiers: Vec::read(reader)?,
            settle_window_ticks: u64::read(reader)?,
        };
        genesis.check().map_err(|_| MalformedFrame::ValueNotCanonical)?;
        Ok(genesis)
    }
}
