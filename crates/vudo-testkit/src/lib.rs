//! Tools for VUDO's tests. Knows none of the product's crates.

#![forbid(unsafe_code)]

pub mod skip;
