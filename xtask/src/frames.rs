//! Takes the frames of functions from the stack, before `wasm-opt` sees the module.
//!
//! What a function keeps in memory while it runs, LLVM puts on a stack: it takes the room at its
//! beginning and gives it back at every end. A module has one thread and imports nothing
//! that calls it back, so a function that cannot reach itself runs once at a time, and its frame can
//! lie at an address that is known beforehand. Then nothing is taken or given back, and every address
//! in the frame is a constant, which is less code.
//!
//! Which address that is can be told from others after `wasm-opt` still: until then the frame has a
//! marker for its address, from which constants lead into no other frame. `arrange` puts the frames
//! where the module compresses best. All that counts is that no two frames overlap whose functions
//! may run at the same time. Functions that do reach themselves keep to the stack.

use std::collections::BTreeSet;
use std::ops::Range;

use wasmparser::{BinaryReader, FunctionBody, Operator};

use crate::sections::{
    HEADER, NotAModule, SECTION_CODE, bodies, code_of, count_imports, sections, write_number,
    write_section, write_signed,
};

/// Where frames begin: none is at the address zero.
pub(crate) const FIRST_FRAME: u32 = 16;
/// Frames must end before the module's data begins: see the build script of `vudo-gen-runtime`.
pub(crate) const FRAMES_END_MAX: u32 = 4096;
/// Longer ones stay on the stack: they would take the room of all others.
const FRAME_BYTES_MAX: u32 = 1024;
/// At first, frames lie at multiples of it behind [`FIRST_FRAME`]: so the addresses in them look
/// alike.
const FRAME_LINE: u32 = 32;

/// The marker of the first frame. No address of a module is so high.
const FIRST_MARKER: u32 = 0x5a00_0000;
/// How far the markers of two frames lie apart: constants into a frame are near its own marker.
const MARKER_STEP: u32 = 8192;
/// The end of all markers.
const MARKERS_END: u32 = 0x5b00_0000;

/// The linker's first global is the stack pointer.
const STACK_POINTER: u32 = 0;

/// A frame that is not on the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FixedFrame {
    pub(crate) size: u32,
    /// The frames that may be in use at the same time: those of functions that its own one reaches,
    /// and of those that reach it.
    pub(crate) rivals: Vec<usize>,
    /// How many functions its own one reaches.
    height: usize,
}

/// Gives the module with markers for the addresses of frames, and the frames.
///
/// # Errors
/// The bytes are no module, or one that has a marker already; or there are more frames than markers.
pub(crate) fn fix_frames(module: &[u8]) -> Result<(Vec<u8>, Vec<FixedFrame>), NotAModule> {
    let sections = sections(module)?;
    let import_count = count_imports(&sections)?;
    let mut out = Vec::from(HEADER);
    let mut frames = Vec::new();
    for (id, content) in &sections {
        if *id == SECTION_CODE {
            let bodies = bodies(content)?;
            let functions: Vec<Function> = (bodies.iter())
                .map(|body| Function::read(body, import_count, bodies.len()))
                .collect::<Result<_, _>>()?;
            let owners = owners(&functions);
            frames = frames_of(&functions, &owners);
            let marker_count = (MARKERS_END - FIRST_MARKER) / MARKER_STEP;
            if frames.len() > marker_count as usize {
                return Err(NotAModule);
            }
            let fixed = fix_bodies(&bodies, &functions, &owners);
            write_section(&mut out, *id, &code_of(fixed.iter().map(Vec::as_slice)));
        } else {
            write_section(&mut out, *id, content);
        }
    }
    Ok((out, frames))
}

/// The frame that a constant leads into, by its number, and how far behind its marker.
pub(crate) fn frame_at(constant: i32) -> Option<(usize, i32)> {
    let markers = FIRST_MARKER - MARKER_STEP / 2..MARKERS_END - MARKER_STEP / 2;
    let constant = u32::try_from(constant).ok().filter(|number| markers.contains(number))?;
    let distance = constant - markers.start;
    let offset = (distance % MARKER_STEP) as i32 - (MARKER_STEP / 2) as i32;
    Some(((distance / MARKER_STEP) as usize, offset))
}

/// Addresses for frames: each behind all that lie in what its function reaches. So most are low, and
/// low ones are short.
///
/// # Errors
/// The frames take too much room.
pub(crate) fn first_addresses(frames: &[FixedFrame]) -> Result<Vec<u32>, NotAModule> {
    let mut order: Vec<usize> = (0..frames.len()).collect();
    order.sort_by_key(|number| frames[*number].height);
    let mut addresses = vec![FIRST_FRAME; frames.len()];
    for number in order {
        let frame = &frames[number];
        let lower = frame.rivals.iter().filter(|rival| frames[**rival].height < frame.height);
        let ends =
            lower.map(|rival| addresses[*rival] + frames[*rival].size.next_multiple_of(FRAME_LINE));
        let address = ends.max().unwrap_or(FIRST_FRAME);
        addresses[number] = address;
        if address + frame.size > FRAMES_END_MAX {
            return Err(NotAModule);
        }
    }
    Ok(addresses)
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
                Operator::I32Const { value } if frame_at(*value).is_some() => {
                    return Err(NotAModule);
                }
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

/// The functions whose frames are fixed, by their places: those that do not reach themselves.
fn owners(functions: &[Function]) -> Vec<usize> {
    let reaches = reaches(functions);
    let is_fixed = |place: &usize| {
        let frame = functions[*place].frame.as_ref();
        frame.is_some_and(|frame| (1..=FRAME_BYTES_MAX).contains(&frame.size))
            && !reaches[*place].contains(place)
    };
    (0..functions.len()).filter(is_fixed).collect()
}

fn frames_of(functions: &[Function], owners: &[usize]) -> Vec<FixedFrame> {
    let reaches = reaches(functions);
    let is_rival =
        |one: usize, other: usize| reaches[one].contains(&other) || reaches[other].contains(&one);
    let frame_of = |owner: &usize| FixedFrame {
        size: functions[*owner].frame.as_ref().map_or(0, |frame| frame.size),
        rivals: (0..owners.len()).filter(|other| is_rival(*owner, owners[*other])).collect(),
        height: reaches[*owner].len(),
    };
    owners.iter().map(frame_of).collect()
}

fn fix_bodies(bodies: &[&[u8]], functions: &[Function], owners: &[usize]) -> Vec<Vec<u8>> {
    let mut fixed: Vec<Vec<u8>> = bodies.iter().map(|body| body.to_vec()).collect();
    for (number, owner) in owners.iter().enumerate() {
        let (Some(frame), body) = (&functions[*owner].frame, bodies[*owner]) else {
            continue;
        };
        let mut out = body[..frame.begin.start].to_vec();
        write_address(FIRST_MARKER + number as u32 * MARKER_STEP, frame, &mut out);
        let mut place = frame.begin.end;
        for end in &frame.ends {
            out.extend_from_slice(&body[place..end.start]);
            place = end.end;
        }
        out.extend_from_slice(&body[place..]);
        fixed[*owner] = out;
    }
    fixed
}

/// Appends the instructions that put the frame's address where its function looks for it.
fn write_address(address: u32, frame: &Frame, out: &mut Vec<u8>) {
    const I32_CONST: u8 = 0x41;
    const LOCAL_SET: u8 = 0x21;
    const LOCAL_TEE: u8 = 0x22;
    out.push(I32_CONST);
    write_signed(out, address as i32);
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

    /// What becomes of functions with these bodies, and where their frames come to lie at first.
    fn fixed(bodies: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<FixedFrame>, Vec<u32>) {
        let mut module = Vec::from(HEADER);
        let code = code_of(bodies.iter().map(Vec::as_slice));
        write_section(&mut module, SECTION_CODE, &code);
        let (module, frames) = fix_frames(&module).unwrap();
        let sections = sections(&module).unwrap();
        let bodies = super::bodies(sections[0].1).unwrap();
        let addresses = first_addresses(&frames).unwrap();
        (bodies.into_iter().map(<[u8]>::to_vec).collect(), frames, addresses)
    }

    /// What is left of a function that has the frame of this number.
    fn with_marker(number: u32, inside: &[u8]) -> Vec<u8> {
        let mut body = vec![1, 1, 0x7f, 0x41];
        write_signed(&mut body, (FIRST_MARKER + number * MARKER_STEP) as i32);
        body.extend([0x21, 0]);
        body.extend(inside);
        body.push(0x0b);
        body
    }

    #[test]
    fn a_frame_lies_behind_those_of_what_its_function_reaches() {
        let calls = |index: u8| with_frame(&[0x10, index]);
        let bodies = [with_frame(&[]), calls(0), with_frame(&[0x10, 0, 0x10, 1])];
        let (fixed, frames, addresses) = fixed(&bodies);
        let calls = |number: u32, calls: &[u8]| with_marker(number, calls);
        assert_eq!(fixed, [calls(0, &[]), calls(1, &[0x10, 0]), calls(2, &[0x10, 0, 0x10, 1])]);
        assert_eq!(addresses, [16, 48, 80]);
        let rivals: Vec<Vec<usize>> = frames.into_iter().map(|frame| frame.rivals).collect();
        assert_eq!(rivals, [[1, 2], [0, 2], [0, 1]]);
    }

    #[test]
    fn frames_of_functions_that_do_not_reach_each_other_share_their_place() {
        let bodies = [with_frame(&[]), with_frame(&[]), with_frame(&[0x10, 0, 0x10, 1])];
        let (_, frames, addresses) = fixed(&bodies);
        assert_eq!(addresses, [16, 16, 48]);
        assert_eq!(frames[0].rivals, [2]);
    }

    #[test]
    fn what_reaches_itself_keeps_its_frame_on_the_stack() {
        let calls = |index: u8| with_frame(&[0x10, index]);
        let bodies = [calls(1), calls(0), with_frame(&[]), calls(2)];
        let (fixed, frames, _) = fixed(&bodies);
        assert_eq!(fixed, [calls(1), calls(0), with_marker(0, &[]), with_marker(1, &[0x10, 2])]);
        assert_eq!(frames.len(), 2);
    }

    #[test]
    fn a_leaf_keeps_the_address_at_hand() {
        let leaf = vec![1, 1, 0x7f, 0x23, 0, 0x41, 16, 0x6b, 0x22, 0, 0x1a, 0x0b];
        let mut expected = with_marker(0, &[0x1a]);
        expected[9] = 0x22;
        assert_eq!(fixed(&[leaf]).0, [expected]);
    }

    #[test]
    fn a_call_through_a_table_may_be_one_of_any_function() {
        let bodies = [with_frame(&[0x41, 0, 0x11, 0, 0]), with_frame(&[])];
        assert_eq!(fixed(&bodies).0, [bodies[0].clone(), with_marker(0, &[])]);
    }

    #[test]
    fn constants_near_a_marker_lead_into_its_frame() {
        let second = (FIRST_MARKER + MARKER_STEP) as i32;
        assert_eq!(frame_at(second), Some((1, 0)));
        assert_eq!(frame_at(second + 40), Some((1, 40)));
        assert_eq!(frame_at(second - 8), Some((1, -8)));
        for other in [0, -1, 16, 4096, i32::MAX, MARKERS_END as i32] {
            assert_eq!(frame_at(other), None);
        }
    }

    #[test]
    fn frames_without_room_are_refused() {
        let calls = |next: u16| with_frame(&[0x10, 0x80 | next as u8, (next >> 7) as u8]);
        let mut bodies: Vec<Vec<u8>> = (1..256).map(calls).collect();
        bodies.push(with_frame(&[]));
        let mut module = Vec::from(HEADER);
        let code = code_of(bodies.iter().map(Vec::as_slice));
        write_section(&mut module, SECTION_CODE, &code);
        let (_, frames) = fix_frames(&module).unwrap();
        assert_eq!(first_addresses(&frames), Err(NotAModule));
        assert_eq!(fix_frames(b"MZ"), Err(NotAModule));
    }
}
