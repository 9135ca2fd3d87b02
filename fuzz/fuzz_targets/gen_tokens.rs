//! The compiler over streams of its own tokens, which get further than bytes do.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../common/gen_invariants.rs"]
mod gen_invariants;

/// Each byte of the input stands for one of these.
const TOKENS: [&str; 128] = [
    "gen", "gene", "has", "@crdt(lww)", "@crdt(pn_counter)", "@crdt(or_set)", "@crdt(map)",
    "@crdt(mv_register)", "@crdt(g_counter)", "@crdt(bounded_counter)", "@crdt(immutable)", "@crdt",
    "(", ")", "{", "}", "[", "]", "<", ">", ",", ";", ":", ".", "=", "@", "A", "B", "a", "b", "c",
    "chat.message", "String", "Bool", "Int", "i8", "i64", "u64", "f32", "f64", "Bytes", "Uuid",
    "Timestamp", "Identity", "RichText", "Set<String>", "List<i64>", "Map<String, i64>", "Option<",
    "Set<", "Map<", "List<", "Ref<A>", "A", "1", "-1", "9e99", "3.5", "\"text\"", "true", "false",
    "none", "enum", "Red", "Blue", "where", "rule", "fun", "docs", "exegesis", "trait",
    "constraint", "system", "module", "use", "extends", "evolves", "evo", "adds", "removes",
    "renames", "deprecates", "changes", "from", "to", "with", "because", "migrate", "and", "or",
    "not", "&&", "||", "!", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "in", "this.",
    ".len()", ".is_some()", ".contains(", ".matches(", ".unwrap_or(", ".starts_with(", "min_value",
    "max_value", "tie_break", "overflow_strategy", "value", "content", "saturate", "error",
    "@personal", "@index", "@1.0", "1.0", "2.0", "\n", "// c\n", "\"", "é",
];

fuzz_target!(|bytes: &[u8]| {
    // The highest bit leaves the space behind a token out.
    let mut text = String::new();
    for byte in bytes {
        text.push_str(TOKENS[usize::from(byte & 127)]);
        if byte >> 7 == 0 {
            text.push(' ');
        }
    }
    gen_invariants::check(&text);
});
