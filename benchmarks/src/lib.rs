//! VUDO's performance budgets, measured on the real parts.
//!
//! [`budgets`] reads `budgets.toml`, the only place of the numbers; [`measure`] measures; the
//! regression tests, the benches, the `budgets` program and `vudo demo` share both.
//!
//! Memory, start-up and sync are measured in processes of their own: a program that wants them
//! calls [`child::run_if_asked`] first thing in `main`.

#![forbid(unsafe_code)]

pub mod budgets;
pub mod child;
pub mod measure;
pub mod startup;
pub mod workload;
