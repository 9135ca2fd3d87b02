//! The schema in a module: what is read of any bytes is read again from the module that is built of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vudo_gen::wasm;

/// Writes a section of a module, with its length in five bytes.
fn section(id: u8, parts: &[&[u8]], module: &mut Vec<u8>) {
    let content = parts.concat();
    module.push(id);
    let length = content.len();
    module.extend((0..4).map(|index| (length >> (7 * index)) as u8 & 0x7f | 0x80));
    module.push((length >> 28) as u8);
    module.extend(content);
}

fn check(module: &[u8]) {
    if let Ok(schema) = wasm::inspect(module)
        && let Ok(built) = wasm::build(&schema)
    {
        assert_eq!(wasm::inspect(&built.wasm), Ok(schema));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // The first two bytes say how much of the others is the schema's section; the rest are exports.
    let Some((length, bytes)) = bytes.split_first_chunk() else { return };
    let (schema, exports) = bytes.split_at(bytes.len().min(u16::from_le_bytes(*length).into()));
    let mut module = Vec::from(*b"\0asm\x01\0\0\0");
    let name = wasm::SCHEMA_SECTION.as_bytes();
    section(0, &[&[name.len() as u8], name, schema], &mut module);
    section(7, &[exports], &mut module);
    check(&module);
});
