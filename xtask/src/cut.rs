//! Makes every panic of the built runtime a bare trap, before `wasm-opt` sees it.
//!
//! The panic handler ignores its message, yet the functions of the standard library that prepare
//! messages stay: they are compiled already and store what nobody reads. With their bodies replaced
//! by `unreachable`, wasm-opt inlines them, and the arguments of every call go as well. Nothing is
//! assumed about whether a panic can happen: where it did, the module still traps.

use crate::sections::{
    HEADER, NotAModule, SECTION_CODE, bodies, code_of, count_imports, read_number, sections, take,
    write_section,
};

/// Parts of the mangled names of functions that never return.
const PANICS: [&str; 9] = [
    "4core9panicking",
    "16slice_index_fail",
    "13assert_failed",
    "17len_mismatch_fail",
    "18handle_alloc_error",
    "17capacity_overflow",
    "7raw_vec12handle_error",
    "6option13expect_failed",
    "6result13unwrap_failed",
];

const SECTION_CUSTOM: u8 = 0;
const NAME_SECTION: &[u8] = b"\x04name";
const NAMES_OF_FUNCTIONS: u8 = 1;

/// No locals, `unreachable`, `end`.
const TRAP: [u8; 3] = [0, 0x00, 0x0b];

/// Gives the module with the bodies of its panicking functions replaced by a trap. Its name section
/// must be there; other modules come back as they are.
///
/// # Errors
/// The bytes are no module of functions that a linker writes.
pub(crate) fn cut_panics(module: &[u8]) -> Result<Vec<u8>, NotAModule> {
    let mut sections = sections(module)?;
    let import_count = count_imports(&sections)?;
    let mut panics = Vec::new();
    let mut out = Vec::from(HEADER);
    sections.retain(|(id, content)| *id != SECTION_CUSTOM || is_names(content));
    for (id, content) in &sections {
        if *id == SECTION_CUSTOM {
            collect_panics(content, &mut panics)?;
        }
    }
    for (id, content) in &sections {
        let cut;
        let content = if *id == SECTION_CODE {
            cut = cut_bodies(content, import_count, &panics)?;
            cut.as_slice()
        } else {
            content
        };
        write_section(&mut out, *id, content);
    }
    Ok(out)
}

/// Gives the module without its names and other custom sections, which are no code.
///
/// # Errors
/// The bytes are no module.
pub(crate) fn drop_names(module: &[u8]) -> Result<Vec<u8>, NotAModule> {
    let mut out = Vec::from(HEADER);
    for (id, content) in sections(module)? {
        if id != SECTION_CUSTOM {
            write_section(&mut out, id, content);
        }
    }
    Ok(out)
}

/// Whether a custom section is that of names. All others are the linker's and the debugger's.
fn is_names(section: &[u8]) -> bool {
    section.starts_with(NAME_SECTION)
}

/// Collects the indexes of panicking functions from the section of names.
fn collect_panics(section: &[u8], panics: &mut Vec<usize>) -> Result<(), NotAModule> {
    let mut section = section.strip_prefix(NAME_SECTION).ok_or(NotAModule)?;
    while let Some((&kind, after)) = section.split_first() {
        section = after;
        let length = read_number(&mut section)?;
        let mut names = take(&mut section, length)?;
        if kind != NAMES_OF_FUNCTIONS {
            continue;
        }
        for _ in 0..read_number(&mut names)? {
            let index = read_number(&mut names)?;
            let length = read_number(&mut names)?;
            let name = core::str::from_utf8(take(&mut names, length)?).map_err(|_| NotAModule)?;
            if PANICS.iter().any(|part| name.contains(part)) {
                panics.push(index);
            }
        }
    }
    Ok(())
}

fn cut_bodies(code: &[u8], import_count: usize, panics: &[usize]) -> Result<Vec<u8>, NotAModule> {
    let mut bodies = bodies(code)?;
    for (place, body) in bodies.iter_mut().enumerate() {
        if panics.contains(&(import_count + place)) {
            *body = &TRAP;
        }
    }
    Ok(code_of(bodies.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two functions that call each other, the second one named `name`.
    fn module(name: &str) -> Vec<u8> {
        let mut module = Vec::from(b"\0asm\x01\0\0\0");
        module.extend([1, 4, 1, 0x60, 0, 0]);
        module.extend([3, 3, 2, 0, 0]);
        module.extend([SECTION_CODE, 11, 2, 4, 0, 0x10, 1, 0x0b, 4, 0, 0x10, 0, 0x0b]);
        let mut names = vec![4];
        names.extend(b"name");
        let length = name.len() as u8;
        names.extend([NAMES_OF_FUNCTIONS, length + 3, 1, 1, length]);
        names.extend(name.as_bytes());
        module.extend([SECTION_CUSTOM, names.len() as u8]);
        module.extend(names);
        module
    }

    #[test]
    fn panicking_functions_become_traps_and_others_stay() {
        let kept = module("_ZN4main3run");
        assert_eq!(cut_panics(&kept), Ok(kept.clone()));
        let cut = cut_panics(&module("_ZN4core9panicking9panic_fmt")).unwrap();
        let code = [SECTION_CODE, 10, 2, 4, 0, 0x10, 1, 0x0b, 3, 0, 0, 0x0b];
        assert!(cut.windows(code.len()).any(|window| window == code));
    }

    #[test]
    fn names_are_dropped_and_code_stays() {
        let named = module("_ZN4main3run");
        let bare = drop_names(&named).unwrap();
        assert!(named.starts_with(&bare) && bare.ends_with(&[0x10, 0, 0x0b]));
    }

    #[test]
    fn truncated_modules_are_refused() {
        let module = module("_ZN4core9panicking9panic_fmt");
        assert_eq!(cut_panics(b"MZ"), Err(NotAModule));
        assert_eq!(cut_panics(&module[..module.len() - 1]), Err(NotAModule));
    }
}
