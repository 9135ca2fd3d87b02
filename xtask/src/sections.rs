//! A WASM module as a list of sections: what the passes over the built runtime read and write.

/// Why a module could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAModule;

/// The magic number and the version.
pub(crate) const HEADER: &[u8] = b"\0asm\x01\0\0\0";
pub(crate) const SECTION_IMPORT: u8 = 2;
pub(crate) const SECTION_CODE: u8 = 10;
const IMPORT_FUNCTION: u8 = 0;

/// The sections of a module: number and content of each.
pub(crate) fn sections(module: &[u8]) -> Result<Vec<(u8, &[u8])>, NotAModule> {
    let mut rest = module.strip_prefix(HEADER).ok_or(NotAModule)?;
    let mut sections = Vec::new();
    while let Some((&id, after)) = rest.split_first() {
        rest = after;
        let length = read_number(&mut rest)?;
        sections.push((id, take(&mut rest, length)?));
    }
    Ok(sections)
}

/// How many functions a module imports; it imports nothing else.
pub(crate) fn count_imports(sections: &[(u8, &[u8])]) -> Result<usize, NotAModule> {
    let Some((_, imports)) = sections.iter().find(|(id, _)| *id == SECTION_IMPORT) else {
        return Ok(0);
    };
    let mut imports = *imports;
    let count = read_number(&mut imports)?;
    for _ in 0..count {
        for _ in ["module", "name"] {
            let length = read_number(&mut imports)?;
            take(&mut imports, length)?;
        }
        if take(&mut imports, 1)? != [IMPORT_FUNCTION] {
            return Err(NotAModule);
        }
        read_number(&mut imports)?;
    }
    Ok(count)
}

/// The bodies of a module's functions, in the order of their indexes behind those of imports.
pub(crate) fn bodies(mut code: &[u8]) -> Result<Vec<&[u8]>, NotAModule> {
    let mut bodies = Vec::new();
    for _ in 0..read_number(&mut code)? {
        let length = read_number(&mut code)?;
        bodies.push(take(&mut code, length)?);
    }
    Ok(bodies)
}

/// The content of the section of code that has these bodies.
pub(crate) fn code_of<'b>(bodies: impl ExactSizeIterator<Item = &'b [u8]>) -> Vec<u8> {
    let mut code = Vec::new();
    write_number(&mut code, bodies.len());
    for body in bodies {
        write_number(&mut code, body.len());
        code.extend_from_slice(body);
    }
    code
}

pub(crate) fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], NotAModule> {
    let (taken, after) = rest.split_at_checked(count).ok_or(NotAModule)?;
    *rest = after;
    Ok(taken)
}

/// A number as WASM writes it; linkers write some in more bytes than they need.
pub(crate) fn read_number(rest: &mut &[u8]) -> Result<usize, NotAModule> {
    let mut number = 0;
    for shift in [0, 7, 14, 21, 28] {
        let [byte] = take(rest, 1)? else {
            return Err(NotAModule);
        };
        number |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(number);
        }
    }
    Err(NotAModule)
}

pub(crate) fn write_section(out: &mut Vec<u8>, id: u8, content: &[u8]) {
    out.push(id);
    write_number(out, content.len());
    out.extend_from_slice(content);
}

pub(crate) fn write_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A number as WASM writes it where it may be negative.
pub(crate) fn write_signed(out: &mut Vec<u8>, mut number: i32) {
    while !(-64..64).contains(&number) {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8 & 0x7f);
}
