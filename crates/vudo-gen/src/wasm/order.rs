//! Puts the functions of a finished module in an order.
//!
//! walrus writes the longest function first, whatever their order was. To a host that is all the same,
//! but not to what compresses the module: there the numbers of the functions' types are noise, and
//! functions that are alike lie far from each other. So they go back to where the runtime has them.
//!
//! The schema goes in front of the exports, whose names are those of its fields: there it packs best.
//!
//! walrus also gives every `if` an `else`. Where there is nothing in it, it is left out again.

use std::convert::Infallible;

use walrus::ErrorKind;
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{CodeSection, CustomSection, FunctionSection, Module, SectionId, TypeSection};
use wasmparser::{
    CodeSectionReader, FunctionBody, FunctionSectionReader, Operator, Parser, Payload, SubType,
    TypeSectionReader,
};

/// Gives a module with a custom section before its exports, and with its functions in another order: at
/// each place the one that had that index. Types are numbered as functions have need of them.
///
/// # Errors
/// The bytes are no module that imports nothing and has so many functions.
pub(super) fn order_functions(
    module: &[u8],
    order: &[u32],
    custom: &CustomSection<'_>,
) -> walrus::Result<Vec<u8>> {
    let mut types_of_functions = Vec::new();
    let mut type_count = 0;
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::TypeSection(types) => type_count = types.count(),
            Payload::FunctionSection(types) => {
                types_of_functions = types.into_iter().collect::<Result<_, _>>()?;
            }
            Payload::ImportSection(_) => return Err(ErrorKind::InvalidWasm.into()),
            _ => {}
        }
    }
    let Some(functions) = inverted(order, types_of_functions.len()) else {
        return Err(ErrorKind::InvalidWasm.into());
    };
    // At most as many as there are functions, but for types that only blocks have.
    let used = order.iter().map(|index| types_of_functions[*index as usize]);
    let mut type_order: Vec<u32> = Vec::new();
    for index in used.chain(0..type_count) {
        if !type_order.contains(&index) {
            type_order.push(index);
        }
    }
    let Some(types) = inverted(&type_order, type_count as usize) else {
        return Err(ErrorKind::InvalidWasm.into());
    };
    let mut ordered = Module::new();
    let mut order = Order { order, functions, type_order, types, custom };
    order.parse_core_module(&mut ordered, Parser::new(0), module)?;
    Ok(ordered.finish())
}

/// At each index the place that it has in an order; nothing where the order is not one of so many.
fn inverted(order: &[u32], count: usize) -> Option<Vec<u32>> {
    let mut places = vec![None; count];
    for (place, index) in order.iter().enumerate() {
        *places.get_mut(*index as usize)? = Some(place as u32);
    }
    places.into_iter().collect()
}

/// What stands where, and the other way round.
struct Order<'o> {
    order: &'o [u32],
    functions: Vec<u32>,
    type_order: Vec<u32>,
    types: Vec<u32>,
    custom: &'o CustomSection<'o>,
}

impl Reencode for Order<'_> {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, Error<Infallible>> {
        Ok(self.functions[index as usize])
    }

    fn type_index(&mut self, index: u32) -> Result<u32, Error<Infallible>> {
        Ok(self.types[index as usize])
    }

    fn intersperse_section_hook(
        &mut self,
        out: &mut Module,
        _: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Result<(), Error<Infallible>> {
        if before == Some(SectionId::Export) {
            out.section(self.custom);
        }
        Ok(())
    }

    fn parse_type_section(
        &mut self,
        out: &mut TypeSection,
        types: TypeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        let mut known: Vec<SubType> = Vec::new();
        for group in types {
            known.extend(group?.into_types());
        }
        for index in &self.type_order.clone() {
            out.ty().subtype(&self.sub_type(known[*index as usize].clone())?);
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        out: &mut FunctionSection,
        types: FunctionSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        let known: Vec<u32> = types.into_iter().collect::<Result<_, _>>()?;
        for index in self.order {
            out.function(self.types[known[*index as usize] as usize]);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        out: &mut CodeSection,
        bodies: CodeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        let known: Vec<_> = bodies.into_iter().collect::<Result<_, _>>()?;
        for index in self.order {
            self.parse_function_body(out, known[*index as usize].clone())?;
        }
        Ok(())
    }

    fn parse_function_body(
        &mut self,
        out: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), Error<Infallible>> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            let is_empty = matches!(operator, Operator::Else)
                && matches!(operators.clone().read()?, Operator::End);
            if !is_empty {
                function.instruction(&self.instruction(operator)?);
            }
        }
        out.function(&function);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{
        BlockType, ExportKind, ExportSection, Function, ImportSection, Instruction, ValType,
    };

    use super::*;

    /// Functions of two types: 0 calls 2, 1 has an empty `else`, and 2 does nothing.
    fn module(order: [u32; 3], has_else: bool) -> Vec<u8> {
        let place = |index| order.iter().position(|one| *one == index).unwrap() as u32;
        let calls = vec![Instruction::Call(place(2)), Instruction::End];
        let mut branches =
            vec![Instruction::LocalGet(0), Instruction::If(BlockType::Empty), Instruction::Else];
        branches.extend([Instruction::End, Instruction::End]);
        if !has_else {
            branches.retain(|instruction| !matches!(instruction, Instruction::Else));
        }
        let bodies = [calls, branches, vec![Instruction::End]];
        let mut types = TypeSection::new();
        let type_of = |index| u32::from(index == 1);
        let parameters = [[].as_slice(), &[ValType::I32]];
        let first = type_of(order[0]) as usize;
        types.ty().function(parameters[first].iter().copied(), []);
        types.ty().function(parameters[1 - first].iter().copied(), []);
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        for index in order {
            functions.function(u32::from(type_of(index) as usize != first));
            let mut body = Function::new([]);
            bodies[index as usize].iter().for_each(|instruction| {
                body.instruction(instruction);
            });
            code.function(&body);
        }
        let mut exports = ExportSection::new();
        exports.export("branches", ExportKind::Func, place(1));
        let mut module = Module::new();
        module.section(&types).section(&functions);
        if !has_else {
            module.section(&custom());
        }
        module.section(&exports).section(&code);
        module.finish()
    }

    fn custom() -> CustomSection<'static> {
        CustomSection { name: "schema".into(), data: b"of fields".into() }
    }

    #[test]
    fn functions_move_with_their_types_calls_and_exports() {
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
            let ordered = order_functions(&module([0, 1, 2], true), &order, &custom());
            assert_eq!(ordered.unwrap(), module(order, false), "{order:?}");
        }
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let module = module([0, 1, 2], true);
        for order in [[0, 1, 1].as_slice(), &[0, 1], &[0, 1, 3]] {
            assert!(order_functions(&module, order, &custom()).is_err());
        }
        assert!(order_functions(b"MZ", &[], &custom()).is_err());
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut imports = ImportSection::new();
        imports.import("host", "call", wasm_encoder::EntityType::Function(0));
        let mut importing = Module::new();
        importing.section(&types).section(&imports);
        assert!(order_functions(&importing.finish(), &[], &custom()).is_err());
    }
}
