//! The procedural macros of the vudo crate.
