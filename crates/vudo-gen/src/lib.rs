//! The Gen language: source text to checked schema to WASM, TypeScript and Rust

#[cfg(feature = "wasm")]
pub mod wasm;
