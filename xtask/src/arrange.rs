//! Arranges the optimised runtime so that it compresses well.
//!
//! What a module does, and nearly how long it is, does not depend on the order of its functions, on
//! which of its locals has which number, on where in memory frames lie that are never in use at the
//! same time, and on which of two operands or statements comes first (`swaps`). How well it compresses
//! does: code that is alike becomes short where it has the same numbers and lies near by. So each of
//! these is changed, one after the other, wherever that makes the compressed text no longer. Modules that are cut from the runtime keep what was found.
//!
//! The outcome depends on the module and on the version of flate2 in the lock file, on nothing else.

use std::ops::Range;

use flate2::{Compress, Compression, FlushCompress, Status};
use wasmparser::{BinaryReader, FunctionBody, Operator, ValType};

use crate::deflate::bit_count;
use crate::frames::{FixedFrame, first_addresses, frame_at};
use crate::sections::{
    HEADER, NotAModule, SECTION_CODE, bodies, count_imports, read_number, sections, take,
    write_number, write_section, write_signed,
};
use crate::swaps::{Base, Effect, Swap, swaps};

const SECTION_TYPE: u8 = 1;
const SECTION_FUNCTION: u8 = 3;
const SECTION_EXPORT: u8 = 7;
const SECTION_ELEMENTS: u8 = 9;
const SECTION_DATA: u8 = 11;
const FUNCTION_TYPE: u8 = 0x60;
const EXPORT_FUNCTION: u8 = 0;
/// Of the first table, from a constant on, functions by their indexes.
const ELEMENTS_PLAIN: u8 = 0;
const I32_CONST: u8 = 0x41;

/// Frames lie at multiples of it in each round of the search. The first one moves them far; values of
/// eight bytes stay aligned.
const FRAME_STEPS: [usize; 3] = [16, 8, 8];

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Nothing: functions stay where they are, and frames get the addresses that they have at first.
    None,
    /// Functions are sorted by their types.
    Sort,
    /// Everything.
    Search,
}

/// Gives the module with everything at its place. Constants that lead into frames are taken for what
/// they are.
///
/// # Errors
/// The bytes are no module that wasm-opt writes, or its frames have no room.
pub(crate) fn arrange(
    module: &[u8],
    frames: &[FixedFrame],
    effort: Effort,
) -> Result<Vec<u8>, NotAModule> {
    let mut arrangement = Arrangement::read(module, frames)?;
    if effort != Effort::None {
        arrangement.sort();
    }
    if effort == Effort::Search {
        let mut search = Search::begin(arrangement);
        for step in FRAME_STEPS {
            search.move_frames(step);
            search.number_locals();
            search.move_functions();
            search.swap_neighbours();
            search.number_locals();
        }
        arrangement = search.best;
    }
    arrangement.write()
}

struct Instruction {
    /// All of it, or what stands in front of the number.
    bytes: Vec<u8>,
    number: Option<Number>,
    effect: Effect,
}

/// What an instruction ends with, where that depends on the arrangement.
#[derive(Clone, Copy)]
enum Number {
    /// Which local it is, by the number that it had.
    Local(usize),
    /// The index of a function among those with bodies.
    Call(usize),
    /// The address of a frame, by its number, and how far behind it.
    Frame(usize, i32),
}

struct Function {
    type_index: usize,
    /// What its body begins with: the types of its locals.
    locals: Vec<u8>,
    /// The numbers of the locals of each type, without parameters.
    groups: Vec<Range<usize>>,
    instructions: Vec<Instruction>,
    /// The number of each local.
    numbers_of_locals: Vec<usize>,
}

/// A module, and what can be changed about it.
struct Arrangement<'m> {
    sections: Vec<(u8, &'m [u8])>,
    import_count: usize,
    types: Vec<FunctionType<'m>>,
    frames: &'m [FixedFrame],
    functions: Vec<Function>,
    /// At each place the function that stands there.
    order: Vec<usize>,
    addresses: Vec<u32>,
}

impl<'m> Arrangement<'m> {
    fn read(module: &'m [u8], frames: &'m [FixedFrame]) -> Result<Arrangement<'m>, NotAModule> {
        let sections = sections(module)?;
        let import_count = count_imports(&sections)?;
        let content = |wanted| {
            let found = sections.iter().find(|(id, _)| *id == wanted);
            found.map(|(_, content)| *content).ok_or(NotAModule)
        };
        let function_types = function_types(content(SECTION_TYPE)?)?;
        let mut types = content(SECTION_FUNCTION)?;
        read_number(&mut types)?;
        let mut functions = Vec::new();
        for body in bodies(content(SECTION_CODE)?)? {
            let type_index = read_number(&mut types)?;
            let parameter_count = function_types.get(type_index).ok_or(NotAModule)?.parameter_count;
            functions.push(Function::read(body, type_index, parameter_count, import_count)?);
        }
        let is_known = |number: Number| match number {
            Number::Call(function) => function < functions.len(),
            // One behind its end is the end of a loop over it.
            Number::Frame(frame, offset) => frames
                .get(frame)
                .is_some_and(|frame| offset <= frame.size as i32 && offset > -(frame.size as i32)),
            Number::Local(_) => true,
        };
        if !functions.iter().flat_map(Function::numbers).all(is_known) {
            return Err(NotAModule);
        }
        let order = (0..functions.len()).collect();
        let addresses = first_addresses(frames)?;
        let types = function_types;
        Ok(Arrangement { sections, import_count, types, frames, functions, order, addresses })
    }

    /// Sorts functions by type, those types first whose functions are called most, and short ones
    /// first: indexes below 128 are short.
    fn sort(&mut self) {
        let mut call_counts = vec![0; self.types.len()];
        for number in self.functions.iter().flat_map(Function::numbers) {
            if let Number::Call(function) = number {
                call_counts[self.functions[function].type_index] += 1;
            }
        }
        self.order.sort_by_key(|place| {
            let function = &self.functions[*place];
            let call_count = call_counts[function.type_index];
            (std::cmp::Reverse(call_count), function.type_index, function.length())
        });
    }

    /// The places that functions have, by their indexes.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.order.len()];
        for (place, function) in self.order.iter().enumerate() {
            places[*function] = place;
        }
        places
    }

    fn write_code(&self, out: &mut Vec<u8>) {
        let places = self.places();
        let mut body = Vec::new();
        write_number(out, self.order.len());
        for function in &self.order {
            let function = &self.functions[*function];
            body.clear();
            body.extend_from_slice(&function.locals);
            for instruction in &function.instructions {
                body.extend_from_slice(&instruction.bytes);
                match instruction.number {
                    None => {}
                    Some(Number::Local(local)) => {
                        write_number(&mut body, function.numbers_of_locals[local]);
                    }
                    Some(Number::Call(callee)) => {
                        write_number(&mut body, self.import_count + places[callee]);
                    }
                    Some(Number::Frame(frame, offset)) => {
                        write_signed(&mut body, self.addresses[frame] as i32 + offset);
                    }
                }
            }
            write_number(out, body.len());
            out.extend_from_slice(&body);
        }
    }

    /// Appends what there is to compress of a module: with types as the compiler numbers them, in the
    /// order of their functions, and without names.
    fn write_text(&self, out: &mut Vec<u8>) {
        let mut types = Vec::new();
        let mut types_of_functions = Vec::new();
        for function in &self.order {
            let type_index = self.functions[*function].type_index;
            let known = types.iter().position(|known| *known == type_index);
            write_number(&mut types_of_functions, known.unwrap_or(types.len()));
            if known.is_none() {
                types.push(type_index);
                out.extend_from_slice(self.types[type_index].text);
            }
        }
        out.extend_from_slice(&types_of_functions);
        self.write_code(out);
        for (id, content) in &self.sections {
            if *id == SECTION_DATA {
                out.extend_from_slice(content);
            }
        }
    }

    fn write(&self) -> Result<Vec<u8>, NotAModule> {
        let places = self.places();
        let index = |index: usize| match index.checked_sub(self.import_count) {
            None => Ok(index),
            Some(function) => {
                places.get(function).map(|place| self.import_count + place).ok_or(NotAModule)
            }
        };
        let mut out = Vec::from(HEADER);
        for (id, content) in &self.sections {
            let mut content = *content;
            let mut changed = Vec::new();
            match *id {
                SECTION_FUNCTION => {
                    write_number(&mut changed, self.order.len());
                    for function in &self.order {
                        write_number(&mut changed, self.functions[*function].type_index);
                    }
                }
                SECTION_EXPORT => {
                    let count = read_number(&mut content)?;
                    write_number(&mut changed, count);
                    for _ in 0..count {
                        let length = read_number(&mut content)?;
                        write_number(&mut changed, length);
                        changed.extend_from_slice(take(&mut content, length)?);
                        let kind = take(&mut content, 1)?;
                        changed.extend_from_slice(kind);
                        let old = read_number(&mut content)?;
                        let is_function = kind == [EXPORT_FUNCTION];
                        write_number(&mut changed, if is_function { index(old)? } else { old });
                    }
                }
                SECTION_ELEMENTS => {
                    if take(&mut content, 3)? != [1, ELEMENTS_PLAIN, I32_CONST] {
                        return Err(NotAModule);
                    }
                    changed.extend_from_slice(&[1, ELEMENTS_PLAIN, I32_CONST]);
                    write_number(&mut changed, read_number(&mut content)?);
                    changed.extend_from_slice(take(&mut content, 1)?);
                    let count = read_number(&mut content)?;
                    write_number(&mut changed, count);
                    for _ in 0..count {
                        write_number(&mut changed, index(read_number(&mut content)?)?);
                    }
                }
                SECTION_CODE => self.write_code(&mut changed),
                _ => changed.extend_from_slice(content),
            }
            write_section(&mut out, *id, &changed);
        }
        Ok(out)
    }
}

/// How far behind its address an instruction writes; nothing where it is none that does so.
fn offset_of(instruction: &[u8]) -> Result<u32, NotAModule> {
    let Some((0x36..=0x3e, mut alignment_and_offset)) = instruction.split_first() else {
        return Ok(0);
    };
    read_number(&mut alignment_and_offset)?;
    u32::try_from(read_number(&mut alignment_and_offset)?).map_err(|_| NotAModule)
}

struct FunctionType<'m> {
    /// As it stands in the module.
    text: &'m [u8],
    parameter_count: usize,
}

fn function_types(mut types: &[u8]) -> Result<Vec<FunctionType<'_>>, NotAModule> {
    let mut read = Vec::new();
    for _ in 0..read_number(&mut types)? {
        let start = types;
        if take(&mut types, 1)? != [FUNCTION_TYPE] {
            return Err(NotAModule);
        }
        let parameter_count = read_number(&mut types)?;
        take(&mut types, parameter_count)?;
        let result_count = read_number(&mut types)?;
        take(&mut types, result_count)?;
        let text = &start[..start.len() - types.len()];
        read.push(FunctionType { text, parameter_count });
    }
    Ok(read)
}

impl Function {
    fn read(
        body: &[u8],
        type_index: usize,
        parameter_count: usize,
        import_count: usize,
    ) -> Result<Function, NotAModule> {
        let parsed = FunctionBody::new(BinaryReader::new(body, 0));
        let mut declared = Vec::new();
        for group in parsed.get_locals_reader().map_err(|_| NotAModule)? {
            declared.push(group.map_err(|_| NotAModule)?);
        }
        let mut function = Function {
            type_index,
            locals: Vec::new(),
            groups: Vec::new(),
            instructions: Vec::new(),
            numbers_of_locals: (0..parameter_count).collect(),
        };
        function.declare(&declared)?;
        let mut operators = parsed.get_operators_reader().map_err(|_| NotAModule)?;
        while !operators.eof() {
            let start = operators.original_position();
            let operator = operators.read().map_err(|_| NotAModule)?;
            let bytes = &body[start..operators.original_position()];
            let effect = match operator {
                Operator::LocalGet { local_index } => Effect::Get(local_index as usize),
                Operator::LocalSet { local_index } => Effect::Set(local_index as usize),
                Operator::LocalTee { local_index } => Effect::Tee(local_index as usize),
                _ => Effect::of(bytes[0], offset_of(bytes)?),
            };
            let number = match operator {
                Operator::LocalGet { local_index }
                | Operator::LocalSet { local_index }
                | Operator::LocalTee { local_index } => Some(Number::Local(local_index as usize)),
                Operator::Call { function_index } => {
                    (function_index as usize).checked_sub(import_count).map(Number::Call)
                }
                Operator::I32Const { value } => {
                    frame_at(value).map(|(frame, offset)| Number::Frame(frame, offset))
                }
                // Two numbers in one, of which one would be an address.
                Operator::I64Const { value }
                    if [value as i32, (value >> 32) as i32].map(frame_at) != [None, None] =>
                {
                    return Err(NotAModule);
                }
                _ => None,
            };
            let bytes = if number.is_some() { &bytes[..1] } else { bytes };
            function.instructions.push(Instruction { bytes: bytes.to_vec(), number, effect });
        }
        Ok(function)
    }

    /// Numbers locals by type, as the compiler does: what is found is to survive there.
    fn declare(&mut self, declared: &[(u32, ValType)]) -> Result<(), NotAModule> {
        const TYPES: [(ValType, u8); 4] = [
            (ValType::I32, 0x7f),
            (ValType::I64, 0x7e),
            (ValType::F32, 0x7d),
            (ValType::F64, 0x7c),
        ];
        let of_types: Vec<ValType> = (declared.iter())
            .flat_map(|(count, value_type)| std::iter::repeat_n(*value_type, *count as usize))
            .collect();
        let parameter_count = self.numbers_of_locals.len();
        self.numbers_of_locals.resize(parameter_count + of_types.len(), 0);
        let mut groups = Vec::new();
        let mut end = parameter_count;
        for (value_type, byte) in TYPES {
            let start = end;
            for (local, _) in of_types.iter().enumerate().filter(|(_, one)| **one == value_type) {
                self.numbers_of_locals[parameter_count + local] = end;
                end += 1;
            }
            if end > start {
                write_number(&mut groups, end - start);
                groups.push(byte);
                self.groups.push(start..end);
            }
        }
        write_number(&mut self.locals, self.groups.len());
        self.locals.extend_from_slice(&groups);
        if end == self.numbers_of_locals.len() { Ok(()) } else { Err(NotAModule) }
    }

    /// How long its body is, but for the pieces whose length depends on where things are.
    fn length(&self) -> usize {
        let length = |instruction: &Instruction| {
            instruction.bytes.len() + usize::from(instruction.number.is_some())
        };
        self.instructions.iter().map(length).sum()
    }

    fn numbers(&self) -> impl Iterator<Item = Number> {
        self.instructions.iter().filter_map(|instruction| instruction.number)
    }

    /// The neighbours in its code that may change places.
    fn swaps(&self) -> Vec<Swap> {
        let base = |place: usize| {
            let instruction: &Instruction = &self.instructions[place];
            match (instruction.number, instruction.effect) {
                (Some(Number::Local(local)), Effect::Get(_)) => Some((Base::Local(local), 0)),
                (Some(Number::Frame(frame, offset)), _) => {
                    Some((Base::Frame(frame), offset.into()))
                }
                _ => None,
            }
        };
        swaps(self.instructions.iter().map(|instruction| instruction.effect), base)
    }

    /// Lets neighbours change places, and gives how they change back.
    fn swap_neighbours(&mut self, swap: &Swap) -> Swap {
        let Range { start, end } = swap.instructions;
        self.instructions[start..end].rotate_left(swap.middle - start);
        let operator = swap.operator.map(|opcode| {
            let operator = &mut self.instructions[end];
            let before = std::mem::replace(&mut operator.bytes[0], opcode);
            operator.effect = Effect::of(opcode, 0);
            before
        });
        Swap { instructions: start..end, middle: start + end - swap.middle, operator }
    }

    fn swap_locals(&mut self, first: usize, second: usize) {
        for number in &mut self.numbers_of_locals {
            if *number == first {
                *number = second;
            } else if *number == second {
                *number = first;
            }
        }
    }
}

/// The best arrangement that was found so far.
struct Search<'m> {
    best: Arrangement<'m>,
    bits: usize,
    compress: Compress,
    text: Vec<u8>,
    compressed: Vec<u8>,
}

impl<'m> Search<'m> {
    fn begin(arrangement: Arrangement<'m>) -> Search<'m> {
        let mut search = Search {
            best: arrangement,
            bits: usize::MAX,
            compress: Compress::new(Compression::best(), false),
            text: Vec::new(),
            compressed: Vec::new(),
        };
        search.is_better();
        search
    }

    /// Whether what was changed made the compressed text no longer. Changes that make no difference
    /// are kept: others may come of them.
    fn is_better(&mut self) -> bool {
        self.text.clear();
        self.best.write_text(&mut self.text);
        self.compress.reset();
        self.compressed.clear();
        // Room for more than the text, so that one call is enough.
        self.compressed.reserve(2 * self.text.len() + 64);
        let (text, out) = (&self.text, &mut self.compressed);
        let status = self.compress.compress_vec(text, out, FlushCompress::Finish);
        // What has not been compressed to its end would look short.
        let is_whole = matches!(status, Ok(Status::StreamEnd));
        if !is_whole || self.compressed.len() > self.bits.div_ceil(8) {
            return false;
        }
        let bits = bit_count(&self.compressed).unwrap_or(usize::MAX);
        let is_better = bits <= self.bits;
        if is_better {
            self.bits = bits;
        }
        is_better
    }

    /// Tries every address for every frame, up to the end of all.
    fn move_frames(&mut self, step: usize) {
        let frames = self.best.frames;
        let ends = frames.iter().zip(&self.best.addresses).map(|(frame, start)| start + frame.size);
        let end = ends.max().unwrap_or(0);
        for (number, frame) in frames.iter().enumerate() {
            let mut best = self.best.addresses[number];
            for address in (crate::frames::FIRST_FRAME..=end - frame.size).step_by(step) {
                let is_free = frame.rivals.iter().all(|rival| {
                    let start = self.best.addresses[*rival];
                    address + frame.size <= start || start + frames[*rival].size <= address
                });
                if is_free {
                    self.best.addresses[number] = address;
                    if self.is_better() {
                        best = address;
                    }
                }
            }
            self.best.addresses[number] = best;
        }
    }

    /// Swaps any two locals of a type.
    fn number_locals(&mut self) {
        for function in self.best.order.clone() {
            for group in self.best.functions[function].groups.clone() {
                for first in group.clone() {
                    for second in first + 1..group.end {
                        self.best.functions[function].swap_locals(first, second);
                        if !self.is_better() {
                            self.best.functions[function].swap_locals(first, second);
                        }
                    }
                }
            }
        }
    }

    /// Lets neighbours in code change places.
    fn swap_neighbours(&mut self) {
        for function in self.best.order.clone() {
            let mut place = 0;
            // Their number may change where statements have new neighbours.
            while let Some(swap) = self.best.functions[function].swaps().get(place) {
                let back = self.best.functions[function].swap_neighbours(swap);
                if !self.is_better() {
                    self.best.functions[function].swap_neighbours(&back);
                }
                place += 1;
            }
        }
    }

    /// Moves each function among those of its type, and then all those of a type.
    fn move_functions(&mut self) {
        for function in self.best.order.clone() {
            let type_index = self.best.functions[function].type_index;
            let mut best = self.best.order.clone();
            let mut others = best.clone();
            others.retain(|other| *other != function);
            for place in 0..best.len() {
                if self.best.functions[best[place]].type_index == type_index {
                    self.best.order.clone_from(&others);
                    self.best.order.insert(place, function);
                    if self.is_better() {
                        best.clone_from(&self.best.order);
                    }
                }
            }
            self.best.order = best;
        }
        for type_index in 0..self.best.types.len() {
            let mut best = self.best.order.clone();
            let is_of_type =
                |function: &usize| self.best.functions[*function].type_index == type_index;
            let (moved, others): (Vec<usize>, Vec<usize>) =
                best.iter().copied().partition(is_of_type);
            let types: Vec<usize> =
                others.iter().map(|other| self.best.functions[*other].type_index).collect();
            let starts = (0..=others.len())
                .filter(|place| *place == 0 || types.get(place - 1) != types.get(*place));
            for place in starts.filter(|_| !moved.is_empty()) {
                self.best.order.clone_from(&others);
                self.best.order.splice(place..place, moved.iter().copied());
                if self.is_better() {
                    best.clone_from(&self.best.order);
                }
            }
            self.best.order = best;
        }
    }
}

#[cfg(test)]
mod tests;
