use super::*;
use crate::frames::fix_frames;
use crate::sections::code_of;

/// A module of functions, each with its type (one parameter of `i32`, or none) and its body. The
/// export of a function is the letter of its place.
fn module(functions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut module = Vec::from(HEADER);
    write_section(&mut module, SECTION_TYPE, &[2, FUNCTION_TYPE, 1, 0x7f, 0, FUNCTION_TYPE, 0, 0]);
    let count = functions.len() as u8;
    let types = functions.iter().map(|(type_index, _)| *type_index);
    write_section(&mut module, SECTION_FUNCTION, &Vec::from_iter([count].into_iter().chain(types)));
    let exports = (0..count).flat_map(|index| [1, b'a' + index, EXPORT_FUNCTION, index]);
    let exports: Vec<u8> = [count].into_iter().chain(exports).collect();
    write_section(&mut module, SECTION_EXPORT, &exports);
    let code = code_of(functions.iter().map(|(_, body)| body.as_slice()));
    write_section(&mut module, SECTION_CODE, &code);
    module
}

/// What an export is: the type and the body of its function, and of those that it calls. A body of
/// these tests begins with a call where it has one.
fn reached(module: &[u8], export: u8) -> Vec<(u8, Vec<u8>)> {
    let sections = sections(module).unwrap();
    let content = |wanted| sections.iter().find(|(id, _)| *id == wanted).unwrap().1;
    let bodies = bodies(content(SECTION_CODE)).unwrap();
    let exports = content(SECTION_EXPORT)[1..].as_chunks::<4>().0;
    let mut index = exports.iter().find(|entry| entry[1] == export).unwrap()[3];
    let mut reached = Vec::new();
    loop {
        let mut body = bodies[usize::from(index)].to_vec();
        let type_index = content(SECTION_FUNCTION)[1 + usize::from(index)];
        let is_call = body[1] == 0x10;
        if is_call {
            index = std::mem::take(&mut body[2]);
        }
        reached.push((type_index, body));
        if !is_call {
            return reached;
        }
    }
}

/// Two locals besides the parameter: `first = parameter; second = first`, again and again.
fn copies(first: u8, second: u8, count: usize) -> Vec<u8> {
    let step = [0x20, 0, 0x21, first, 0x20, first, 0x21, second];
    let mut body = vec![1, 2, 0x7f];
    body.extend(step.repeat(count));
    body.push(0x0b);
    body
}

/// Adds a constant to a global, so that functions differ.
fn adds(constant: u8) -> Vec<u8> {
    vec![0, 0x23, 0, 0x41, constant, 0x6a, 0x24, 0, 0x0b]
}

#[test]
fn functions_move_and_their_names_and_calls_with_them() {
    let calls = |index: u8| vec![0, 0x10, index, 0x0b];
    let functions = [
        (1, calls(3)),
        (0, adds(7)),
        (1, calls(0)),
        (1, adds(9)),
        (0, copies(1, 2, 3)),
        (1, calls(1)),
    ];
    let mixed = module(&functions);
    for effort in [Effort::Sort, Effort::Search] {
        let arranged = arrange(&mixed, &[], effort).unwrap();
        let sections = sections(&arranged).unwrap();
        let (_, types) = sections.iter().find(|(id, _)| *id == SECTION_FUNCTION).unwrap();
        assert!(types[1..] == [0, 0, 1, 1, 1, 1] || types[1..] == [1, 1, 1, 1, 0, 0]);
        for export in b'a'..=b'f' {
            assert_eq!(reached(&arranged, export).len(), reached(&mixed, export).len());
        }
        for export in [b'a', b'b', b'c', b'd', b'f'] {
            assert_eq!(reached(&arranged, export), reached(&mixed, export));
        }
    }
    assert_eq!(arrange(&mixed, &[], Effort::None).unwrap(), mixed);
}

#[test]
fn functions_that_are_alike_get_the_same_numbers() {
    let mixed = module(&[(0, copies(1, 2, 5)), (0, copies(2, 1, 4))]);
    let arranged = arrange(&mixed, &[], Effort::Search).unwrap();
    let bodies = [b'a', b'b'].map(|export| reached(&arranged, export)[0].1.clone());
    let expected = [[copies(2, 1, 5), copies(2, 1, 4)], [copies(1, 2, 5), copies(1, 2, 4)]];
    assert!(expected.contains(&bodies));
}

#[test]
fn locals_are_numbered_by_type() {
    let mixed = vec![2, 1, 0x7e, 2, 0x7f, 0x20, 1, 0x20, 3, 0x20, 0, 0x0b];
    let sorted = vec![2, 2, 0x7f, 1, 0x7e, 0x20, 3, 0x20, 2, 0x20, 0, 0x0b];
    let arranged = arrange(&module(&[(0, mixed)]), &[], Effort::None).unwrap();
    assert_eq!(arranged, module(&[(0, sorted)]));
}

/// Takes 32 bytes of the stack, does what is given, and gives them back.
fn with_frame(inside: &[u8]) -> Vec<u8> {
    let mut body = vec![1, 1, 0x7f, 0x23, 0, 0x41, 32, 0x6b, 0x22, 0, 0x24, 0];
    body.extend(inside);
    body.extend([0x20, 0, 0x41, 32, 0x6a, 0x24, 0, 0x0b]);
    body
}

#[test]
fn frames_find_places_where_no_rival_is() {
    let functions =
        [(1, with_frame(&[])), (1, with_frame(&[0x10, 0])), (1, with_frame(&[0x10, 0]))];
    let (fixed, frames) = fix_frames(&module(&functions)).unwrap();
    for effort in [Effort::None, Effort::Search] {
        let arranged = arrange(&fixed, &frames, effort).unwrap();
        let address = |export| {
            let body = &reached(&arranged, export)[0].1;
            assert_eq!(body[3], I32_CONST);
            body[4]
        };
        let (callee, callers) = (address(b'a'), [address(b'b'), address(b'c')]);
        assert!(callers.iter().all(|caller| caller.abs_diff(callee) >= 32), "{callee} {callers:?}");
        assert_eq!(callers[0], callers[1], "two that never run at once share their place");
    }
}

#[test]
fn constants_that_lead_into_no_frame_are_refused() {
    let (fixed, mut frames) = fix_frames(&module(&[(1, with_frame(&[]))])).unwrap();
    assert!(arrange(&fixed, &frames, Effort::None).is_ok());
    frames.clear();
    assert_eq!(arrange(&fixed, &frames, Effort::None), Err(NotAModule));
}

#[test]
fn what_is_no_module_is_refused() {
    assert_eq!(arrange(b"MZ", &[], Effort::Search), Err(NotAModule));
    let whole = module(&[(1, adds(3))]);
    assert_eq!(arrange(&whole[..whole.len() - 1], &[], Effort::Search), Err(NotAModule));
    let dangling = module(&[(1, vec![0, 0x10, 5, 0x0b])]);
    assert_eq!(arrange(&dangling, &[], Effort::None), Err(NotAModule));
}

/// Adds local and parameter, or parameter and local, this often.
fn sums(operands: [u8; 2], count: usize) -> Vec<u8> {
    let mut body = vec![1, 1, 0x7f];
    body.extend([0x20, operands[0], 0x20, operands[1], 0x6a, 0x21, 1].repeat(count));
    body.push(0x0b);
    body
}

#[test]
fn operands_stand_in_the_order_that_is_found_elsewhere() {
    let mixed = module(&[(0, sums([0, 1], 9)), (0, sums([1, 0], 1))]);
    let arranged = arrange(&mixed, &[], Effort::Search).unwrap();
    let bodies = [b'a', b'b'].map(|export| reached(&arranged, export)[0].1.clone());
    let alike = [[0, 1], [1, 0]].map(|operands| [sums(operands, 9), sums(operands, 1)]);
    assert!(alike.contains(&bodies), "{bodies:?}");
}

#[test]
fn a_comparison_whose_operands_change_places_is_the_opposite_one() {
    let compares = |operands: [u8; 2], opcode: u8| {
        vec![1, 1, 0x7f, 0x20, operands[0], 0x20, operands[1], opcode, 0x21, 1, 0x0b]
    };
    let mixed = module(&[(0, compares([0, 1], 0x48))]);
    let mut arrangement = Arrangement::read(&mixed, &[]).unwrap();
    let swaps = arrangement.functions[0].swaps();
    assert_eq!(swaps.len(), 1);
    let back = arrangement.functions[0].swap_neighbours(&swaps[0]);
    assert_eq!(arrangement.write().unwrap(), module(&[(0, compares([1, 0], 0x4a))]));
    assert_eq!(arrangement.functions[0].swap_neighbours(&back), swaps[0]);
    assert_eq!(arrangement.write().unwrap(), mixed);
}
