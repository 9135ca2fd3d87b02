//! The merge core of VUDO.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod schema;
pub mod value;
pub mod wire;
