//! Gives the frames of functions fixed places in memory, before `wasm-opt` sees the module.
//!
//! What a function keeps in memory while it runs, LLVM puts on a stack: it takes the room at its
//! beginning and gives it back at every end. A module has one thread and imports nothing
//! that calls it back, so a function that cannot reach itself runs once at a time, and its frame can
//! lie at an address that is known beforehand. Then nothing is taken or given back, and every address
//! in the frame is a constant, which is less code.
//!
//! A frame lies behind those of all functions that may be running when its own begins. Functions that
//! do reach themselves keep to the stack, which grows down from the other end of the same room.

use std::collections::BTreeSet;
use std::ops::Range;

use wasmparser::{BinaryReader, FunctionBody, Operator};

use crate::sections::{
    HEADER, NotAModule, SECTION_CODE, bodies, code_of, count_imports, sections, write_number,
    write_section,
};

/// Where the first frame lies: no frame is at the address zero.
const FIRST_FRAME: u32 = 16;
/// Frames begin at multiples of it behind the first: so the addresses in them look alike and compress
/// better.
const FRAME_LINE: u32 = 64;

/// Frames must leave most of the stack's 64 KiB to the functions that need it.
const FRAMES_END_MAX: u32 = 8192;

/// The linker's first global is the stack pointer.
const STACK_POINTER: u32 = 0;

/// Gives the module with frames at fixed places.
///
/// # Errors
/// The bytes are no module, or its frames take too much room.
pub(crate) fn fix_frames(module: &[u8]) -> Result<Vec<u8>, NotAModule> {
    let sections = sections(module)?;
    let import_count = count_imports(&sections)?;
    let mut out = Vec::from(HEADER);
    for (id, content) in &sections {
        if *id == SECTION_CODE {
            let bodies = bodies(content)?;
            let functions: Vec<Function> = (bodies.iter())
                .map(|body| Function::read(body, import_count, bodies.len()))
                .collect::<Result<_, _>>()?;
            let fixed = fix_bodies(&bodies, &functions)?;
            write_section(&mut out, *id, &code_of(fixed.iter().map(Vec::as_slice)));
        } else {
            write_section(&mut out, *id, content);
        }
    }
    Ok(out)
}

/// What there is to know of a function.
#[derive(Debug, Default)]
struct Function {
    /// The functions that it calls, by their places among those with bodies.
    calls: BTreeSet<usize>,
    frame: Option<Frame>,
}

#[derive(Debug)]
struct Frame {
    size: u32,
    /// The instructions that take it, after which its address is in a local.
    begin: Range<usize>,
    local: u32,
    /// Whether the address is still on the operand stack afterwards.
    is_kept: bool,
    /// The instructions that give it back.
    ends: Vec<Range<usize>>,
}

impl Function {
    fn read(
        body: &[u8],
        import_count: usize,
        function_count: usize,
    ) -> Result<Function, NotAModule> {
        let body = FunctionBody::new(BinaryReader::new(body, 0));
        let mut operators = Vec::new();
        let mut reader = body.get_operators_reader().map_err(|_| NotAModule)?;
        while !reader.eof() {
            let start = reader.original_position();
            let operator = reader.read().map_err(|_| NotAModule)?;
            operators.push((operator, start..reader.original_position()));
        }
        let mut function = Function::default();
        let mut rest = operators.as_slice();
        while let Some(((operator, _), after)) = rest.split_first() {
            if let Some(count) = function.read_frame(rest) {
                rest = &rest[count..];
                continue;
            }
            match operator {
                Operator::Call { function_index } => {
                    let callee = (*function_index as usize).checked_sub(import_count);
                    function.calls.extend(callee);
                }
                // Whatever it is that is called there.
                Operator::CallIndirect { .. } => function.calls.extend(0..function_count),
                _ => {}
            }
            rest = after;
        }
        Ok(function)
    }

    /// Reads what takes the frame or gives it back, and gives how many instructions that are.
    fn read_frame(&mut self, operators: &[(Operator<'_>, Range<usize>)]) -> Option<usize> {
        use Operator::{GlobalGet, GlobalSet, I32Add, I32Const, I32Sub, LocalGet, LocalTee};
        let span = |count: usize| operators[0].1.start..operators[count - 1].1.end;
        let at = |place: usize| operators.get(place).map(|(operator, _)| operator);
        let is_set = |place| matches!(at(place), Some(GlobalSet { global_index }) if *global_index == STACK_POINTER);
        match (at(0)?, at(1)?, at(2)?, at(3)?) {
            (
                GlobalGet { global_index: STACK_POINTER },
                I32Const { value },
                I32Sub,
                LocalTee { local_index },
            ) if self.frame.is_none() => {
                // What calls nothing leaves the stack pointer as it is.
                let is_kept = !is_set(4);
                let count = 5 - usize::from(is_kept);
                self.frame = Some(Frame {
                    size: u32::try_from(*value).ok()?,
                    begin: span(count),
                    local: *local_index,
                    is_kept,
                    ends: Vec::new(),
                });
                Some(count)
            }
            (LocalGet { local_index }, I32Const { value }, I32Add, _) if is_set(3) => {
                let frame = self.frame.as_mut()?;
                let gives_back = *local_index == frame.local && *value == frame.size as i32;
                gives_back.then(|| frame.ends.push(span(4)))?;
                Some(4)
            }
            _ => None,
        }
    }
}

/// By function, those that it reaches.
fn reaches(functions: &[Function]) -> Vec<BTreeSet<usize>> {
    let reached_from = |function: &Function| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<usize> = function.calls.iter().copied().collect();
        while let Some(callee) = next.pop() {
            if reached.insert(callee) {
                next.extend(&functions[callee].calls);
            }
        }
        reached
    };
    functions.iter().map(reached_from).collect()
}

/// By function, the address of its frame; none where it has no frame or reaches itself.
fn addresses(functions: &[Function]) -> Vec<Option<u32>> {
    let reaches = reaches(functions);
    let is_fixed = |place: usize| !reaches[place].contains(&place);
    let size = |place: usize| match &functions[place].frame {
        Some(frame) if is_fixed(place) => frame.size.next_multiple_of(FRAME_LINE),
        _ => 0,
    };
    let mut addresses = vec![FIRST_FRAME; functions.len()];
    // Those with the most that they reach come before what they reach; what reaches each other
    // reaches the same, and takes no room.
    let mut order: Vec<usize> = (0..functions.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(reaches[*place].len()));
    for place in order {
        let end = addresses[place] + size(place);
        for callee in &reaches[place] {
            addresses[*callee] = addresses[*callee].max(end);
        }
    }
    let places = addresses.into_iter().enumerate();
    places.map(|(place, address)| (size(place) > 0).then_some(address)).collect()
}

fn fix_bodies(bodies: &[&[u8]], functions: &[Function]) -> Result<Vec<Vec<u8>>, NotAModule> {
    let mut fixed = Vec::new();
    for ((body, function), address) in bodies.iter().zip(functions).zip(addresses(functions)) {
        let (Some(frame), Some(address)) = (&function.frame, address) else {
            fixed.push(body.to_vec());
            continue;
        };
        if address + frame.size > FRAMES_END_MAX {
            return Err(NotAModule);
        }
        let mut out = body[..frame.begin.start].to_vec();
        write_address(address, frame, &mut out);
        let mut place = frame.begin.end;
        for end in &frame.ends {
            out.extend_from_slice(&body[place..end.start]);
            place = end.end;
        }
        out.extend_from_slice(&body[place..]);
        fixed.push(out);
    }
    Ok(fixed)
}

/// Appends the instructions that put the frame's address where its function looks for it.
fn write_address(address: u32, frame: &Frame, out: &mut Vec<u8>) {
    const I32_CONST: u8 = 0x41;
    const LOCAL_SET: u8 = 0x21;
    const LOCAL_TEE: u8 = 0x22;
    out.push(I32_CONST);
    // Signed, and below half of what so many bytes hold without a sign.
    out.extend_from_slice(&[address as u8 | 0x80, (address >> 7) as u8]);
    out.push(if frame.is_kept { LOCAL_TEE } else { LOCAL_SET });
    write_number(out, frame.local as usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes 32 bytes of the stack into local 0, does what is given, and gives them back.
    fn with_frame(inside: &[u8]) -> Vec<u8> {
        let mut body = vec![1, 1, 0x7f];
        body.extend([0x23, 0, 0x41, 32, 0x6b, 0x22, 0, 0x24, 0]);
        body.extend(inside);
        body.extend([0x20, 0, 0x41, 32, 0x6a, 0x24, 0, 0x0b]);
        body
    }

    fn fixed(bodies: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, NotAModule> {
        let mut module = Vec::from(HEADER);
        let code = code_of(bodies.iter().map(Vec::as_slice));
        write_section(&mut module, SECTION_CODE, &code);
        let module = fix_frames(&module)?;
        let sections = sections(&module)?;
        let bodies = super::bodies(sections[0].1)?;
        Ok(bodies.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// What is left of a function whose frame lies at an address.
    fn at(address: u16, inside: &[u8]) -> Vec<u8> {
        let mut body = vec![1, 1, 0x7f, 0x41, 0x80 | address as u8, (address >> 7) as u8, 0x21, 0];
        body.extend(inside);
        body.push(0x0b);
        body
    }

    #[test]
    fn a_frame_lies_behind_those_of_its_callers() {
        let calls = |index: u8| with_frame(&[0x10, index]);
        let bodies = [with_frame(&[]), calls(0), with_frame(&[0x10, 0, 0x10, 1])];
        let expected = [at(144, &[]), at(80, &[0x10, 0]), at(16, &[0x10, 0, 0x10, 1])];
        assert_eq!(fixed(&bodies).unwrap(), expected);
    }

    #[test]
    fn what_reaches_itself_keeps_its_frame_on_the_stack() {
        let calls = |index: u8| with_frame(&[0x10, index]);
        let bodies = [calls(1), calls(0), with_frame(&[]), calls(2)];
        let expected = [calls(1), calls(0), at(80, &[]), at(16, &[0x10, 2])];
        assert_eq!(fixed(&bodies).unwrap(), expected);
    }

    #[test]
    fn a_leaf_keeps_the_address_at_hand() {
        let leaf = vec![1, 1, 0x7f, 0x23, 0, 0x41, 16, 0x6b, 0x22, 0, 0x1a, 0x0b];
        let expected = vec![1, 1, 0x7f, 0x41, 0x90, 0, 0x22, 0, 0x1a, 0x0b];
        assert_eq!(fixed(&[leaf]).unwrap(), [expected]);
    }

    #[test]
    fn a_call_through_a_table_may_be_one_of_any_function() {
        let bodies = [with_frame(&[0x41, 0, 0x11, 0, 0]), with_frame(&[])];
        assert_eq!(fixed(&bodies).unwrap(), [bodies[0].clone(), at(16, &[])]);
    }

    #[test]
    fn frames_without_room_are_refused() {
        let calls = |next: u16| with_frame(&[0x10, 0x80 | next as u8, (next >> 7) as u8]);
        let chain: Vec<Vec<u8>> = (1..256).map(calls).collect();
        assert_eq!(fixed(&[chain, vec![with_frame(&[])]].concat()), Err(NotAModule));
        assert_eq!(fix_frames(b"MZ"), Err(NotAModule));
    }
}
