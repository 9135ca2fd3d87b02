//! Which neighbours in a function's code may change places.
//!
//! The operands of a sum do not care which of them is evaluated first, nor do two statements of which
//! neither writes what the other one reads or writes. Which order compresses better is for `arrange`
//! to find out.
//!
//! Code is looked at as far as it is straight: what branches or calls is a border.

use std::ops::Range;

/// What an instruction does to its operands and to what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Gives a constant.
    Constant,
    /// Gives what is in a local.
    Get(usize),
    /// Takes an operand into a local.
    Set(usize),
    /// The same, and gives it.
    Tee(usize),
    /// Makes one of so many operands.
    Compute(usize),
    /// Makes one of two operands, and does so too where they change places, with this opcode.
    Swappable(u8),
    /// Makes one of an address.
    Load,
    /// Takes an address and a value, and writes so many bytes this far behind the address.
    Store { offset: u32, size: u32 },
    /// Takes an operand.
    Drop,
    /// Anything else.
    Border,
}

impl Effect {
    /// What an instruction without a local does, by its first byte; a store has its offset.
    pub(crate) fn of(opcode: u8, offset: u32) -> Effect {
        match opcode {
            0x1a => Effect::Drop,
            0x1b => Effect::Compute(3),
            0x28..=0x35 => Effect::Load,
            0x36..=0x3e => {
                const SIZES: [u32; 9] = [4, 8, 4, 8, 1, 2, 1, 2, 4];
                Effect::Store { offset, size: SIZES[usize::from(opcode - 0x36)] }
            }
            0x41..=0x44 => Effect::Constant,
            // Equal, not equal; sums, products, and, or, exclusive or.
            0x46 | 0x47 | 0x51 | 0x52 => Effect::Swappable(opcode),
            0x6a | 0x6c | 0x71..=0x73 | 0x7c | 0x7e | 0x83..=0x85 => Effect::Swappable(opcode),
            // Less becomes greater, signed and unsigned, with and without equal.
            0x48 | 0x49 | 0x4c | 0x4d | 0x53 | 0x54 | 0x57 | 0x58 => Effect::Swappable(opcode + 2),
            0x4a | 0x4b | 0x4e | 0x4f | 0x55 | 0x56 | 0x59 | 0x5a => Effect::Swappable(opcode - 2),
            0x45 | 0x50 | 0x67..=0x69 | 0x79..=0x7b | 0x8b..=0x91 | 0x99..=0x9f | 0xa7..=0xc4 => {
                Effect::Compute(1)
            }
            0x5b..=0x66 | 0x6b..=0x78 | 0x7d..=0x8a | 0x92..=0x98 | 0xa0..=0xa6 => {
                Effect::Compute(2)
            }
            _ => Effect::Border,
        }
    }

    fn operand_count(self) -> usize {
        match self {
            Effect::Constant | Effect::Get(_) | Effect::Border => 0,
            Effect::Set(_) | Effect::Tee(_) | Effect::Load | Effect::Drop => 1,
            Effect::Swappable(_) | Effect::Store { .. } => 2,
            Effect::Compute(count) => count,
        }
    }
}

/// Two neighbours, the first of which ends where the second begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) instructions: Range<usize>,
    pub(crate) middle: usize,
    /// Where they are the operands of the instruction behind them, the opcode that it has afterwards.
    pub(crate) operator: Option<u8>,
}

/// What a row of instructions touches.
#[derive(Clone, Debug, Default)]
struct Touched {
    instructions: Range<usize>,
    /// Locals, a bit each.
    reads: u128,
    writes: u128,
    loads: bool,
    /// Where it writes to.
    store: Option<Stored>,
}

#[derive(Clone, Debug)]
struct Stored {
    base: Base,
    bytes: Range<i64>,
}

/// What an address is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Local(usize),
    Frame(usize),
}

impl Touched {
    /// Operands and the instruction at `end`, which takes them. Nothing may stand in between.
    fn join(operands: &[Touched], end: usize) -> Option<Touched> {
        let mut joined = operands.first()?.clone();
        for operand in &operands[1..] {
            if operand.instructions.start != joined.instructions.end {
                return None;
            }
            joined.reads |= operand.reads;
            joined.writes |= operand.writes;
            joined.loads |= operand.loads;
            joined.instructions.end = operand.instructions.end;
        }
        (joined.instructions.end == end).then(|| {
            joined.instructions.end += 1;
            joined
        })
    }

    fn commutes_with(&self, other: &Touched) -> bool {
        let meets = |writes: u128, other: &Touched| writes & (other.reads | other.writes) != 0;
        let memory_differs = match (&self.store, &other.store) {
            (None, None) => true,
            (Some(_), None) => !other.loads,
            (None, Some(_)) => !self.loads,
            (Some(one), Some(two)) => {
                let is_apart = one.bytes.end <= two.bytes.start || two.bytes.end <= one.bytes.start;
                !self.loads && !other.loads && one.base == two.base && is_apart
            }
        };
        !meets(self.writes, other) && !meets(other.writes, self) && memory_differs
    }
}

/// All neighbours that may change places, by where they end. `base` says of an instruction that gives
/// an address what that is counted from, and how far behind it is.
pub(crate) fn swaps(
    effects: impl Iterator<Item = Effect>,
    base: impl Fn(usize) -> Option<(Base, i64)>,
) -> Vec<Swap> {
    let mut found = Vec::new();
    // Operands, as far as it is known where they begin.
    let mut stack: Vec<Option<Touched>> = Vec::new();
    let mut statement_before: Option<Touched> = None;
    for (place, effect) in effects.enumerate() {
        let own = Touched { instructions: place..place + 1, ..Touched::default() };
        let count = effect.operand_count();
        let mut operands: Vec<_> = (0..count).map(|_| stack.pop().flatten()).collect();
        operands.reverse();
        let operands: Option<Vec<Touched>> = operands.into_iter().collect();
        let mut joined = operands.as_ref().and_then(|operands| Touched::join(operands, place));
        match effect {
            Effect::Border => {
                stack.clear();
                statement_before = None;
                continue;
            }
            Effect::Constant => joined = Some(own),
            Effect::Get(local) => joined = Some(Touched { reads: bit(local), ..own }),
            Effect::Set(local) | Effect::Tee(local) => {
                joined.iter_mut().for_each(|joined| joined.writes |= bit(local));
            }
            Effect::Load => joined.iter_mut().for_each(|joined| joined.loads = true),
            Effect::Swappable(opcode) => {
                if let (Some(joined), Some([first, second])) = (&joined, operands.as_deref())
                    && first.commutes_with(second)
                {
                    found.push(Swap {
                        instructions: joined.instructions.start..place,
                        middle: second.instructions.start,
                        operator: Some(opcode),
                    });
                }
            }
            Effect::Store { offset, size } => {
                joined = joined.and_then(|mut joined| {
                    let [address, _] = operands.as_deref()? else { return None };
                    let is_plain = address.instructions.len() == 1;
                    let (base, distance) = base(address.instructions.start).filter(|_| is_plain)?;
                    let start = distance + i64::from(offset);
                    joined.store = Some(Stored { base, bytes: start..start + i64::from(size) });
                    Some(joined)
                });
            }
            Effect::Compute(_) | Effect::Drop => {}
        }
        if !matches!(effect, Effect::Set(_) | Effect::Drop | Effect::Store { .. }) {
            stack.push(joined);
            continue;
        }
        if let (Some(first), Some(second)) = (&statement_before, &joined)
            && first.instructions.end == second.instructions.start
            && first.commutes_with(second)
        {
            found.push(Swap {
                instructions: first.instructions.start..second.instructions.end,
                middle: second.instructions.start,
                operator: None,
            });
        }
        statement_before = joined;
    }
    found
}

/// A local's place among bits. Those past the last one share all of them.
fn bit(local: usize) -> u128 {
    1_u128.checked_shl(local as u32).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::Effect::{Border, Compute, Constant, Get, Load, Set, Store, Swappable, Tee};
    use super::*;

    const ADD: Effect = Swappable(0x6a);

    /// What may change places among these: the instructions of both, and where the second one begins.
    /// Addresses are those in locals and constants, of which each is in a frame of its own.
    fn found(effects: &[Effect]) -> Vec<(Range<usize>, usize)> {
        let base = |place: usize| match effects[place] {
            Get(local) => Some((Base::Local(local), 0)),
            Constant => Some((Base::Frame(place), 0)),
            _ => None,
        };
        let swaps = swaps(effects.iter().copied(), base);
        swaps.into_iter().map(|swap| (swap.instructions, swap.middle)).collect()
    }

    #[test]
    fn operands_change_places_unless_one_writes_what_the_other_reads() {
        assert_eq!(found(&[Get(0), Get(1), ADD, Set(2)]), [(0..2, 1)]);
        assert_eq!(
            found(&[Get(0), Load, Get(1), Constant, ADD, ADD, Set(2)]),
            [(2..4, 3), (0..5, 2)]
        );
        assert_eq!(found(&[Get(0), Get(1), Tee(2), ADD, Set(2)]), [(0..3, 1)]);
        assert_eq!(found(&[Get(0), Get(1), Tee(0), ADD, Set(2)]), []);
        assert_eq!(found(&[Get(1), Tee(0), Get(0), ADD, Set(2)]), []);
        assert_eq!(found(&[Get(200), Get(1), Tee(201), ADD, Set(2)]), [], "they share a bit");
        assert_eq!(found(&[Get(0), Get(1), Compute(2), Set(2)]), [], "of a difference");
    }

    #[test]
    fn what_stands_between_operands_is_a_border() {
        assert_eq!(found(&[Get(0), Get(1), Set(3), Get(2), ADD]), []);
        assert_eq!(found(&[Get(0), Border, Get(1), ADD, Set(2)]), []);
        assert_eq!(found(&[Get(0), Get(1), Border, ADD, Set(2)]), []);
    }

    #[test]
    fn statements_change_places_unless_one_writes_what_the_other_touches() {
        assert_eq!(found(&[Get(0), Set(1), Get(2), Set(3)]), [(0..4, 2)]);
        assert_eq!(found(&[Get(0), Set(1), Get(1), Set(3)]), []);
        assert_eq!(found(&[Get(0), Set(1), Get(2), Set(1)]), []);
        assert_eq!(found(&[Get(0), Set(1), Get(2), Set(0)]), []);
        assert_eq!(found(&[Get(0), Set(1), Border, Get(2), Set(3)]), []);
    }

    #[test]
    fn writes_change_places_where_both_go_behind_one_address_and_lie_apart() {
        let writes = |first: Effect, second: Effect, bases: [Effect; 2]| {
            found(&[bases[0], Get(1), first, bases[1], Get(2), second])
        };
        let store = |offset, size| Store { offset, size };
        assert_eq!(writes(store(0, 4), store(4, 4), [Get(0); 2]), [(0..6, 3)]);
        assert_eq!(writes(store(8, 8), store(4, 4), [Get(0); 2]), [(0..6, 3)]);
        assert_eq!(writes(store(0, 8), store(4, 4), [Get(0); 2]), []);
        assert_eq!(writes(store(0, 4), store(4, 4), [Get(0), Get(3)]), []);
        assert_eq!(writes(store(0, 4), store(4, 4), [Constant, Constant]), []);
        let reads = [Get(0), Get(1), store(0, 4), Get(2), Load, Set(3)];
        assert_eq!(found(&reads), [], "it may read what is written");
    }

    #[test]
    fn a_comparison_is_turned_round() {
        // Less and greater, with equal or without, signed or unsigned, of both widths.
        let pairs = [(0x48, 0x4a), (0x49, 0x4b), (0x4c, 0x4e), (0x4d, 0x4f)];
        let wide = [(0x53, 0x55), (0x54, 0x56), (0x57, 0x59), (0x58, 0x5a)];
        for (less, greater) in pairs.into_iter().chain(wide) {
            assert_eq!(Effect::of(less, 0), Swappable(greater));
            assert_eq!(Effect::of(greater, 0), Swappable(less));
        }
        assert_eq!(Effect::of(0x6b, 0), Compute(2));
    }

    #[test]
    fn instructions_do_what_the_format_says() {
        assert_eq!(Effect::of(0x3a, 7), Store { offset: 7, size: 1 });
        assert_eq!(Effect::of(0x37, 0), Store { offset: 0, size: 8 });
        assert_eq!(Effect::of(0x3e, 0), Store { offset: 0, size: 4 });
        assert_eq!(Effect::of(0x28, 0), Load);
        assert_eq!(Effect::of(0x42, 0), Constant);
        for border in [0x02, 0x03, 0x04, 0x0c, 0x0d, 0x10, 0x11, 0x23, 0x24, 0x3f, 0x40, 0xfc] {
            assert_eq!(Effect::of(border, 0), Border);
        }
    }
}
