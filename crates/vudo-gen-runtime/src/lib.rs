//! The C-ABI face of `vudo-crdt`, from which the compiler cuts an application's WASM module.
//!
//! **The idea.** The merge code is the native one, compiled for wasm32 as it is. Around it lie one
//! namespace in memory with its log, an allocator, and a function per kind of operation. The
//! compiler adds an export per field that calls one of those functions with constants, and drops
//! what no field calls. It has the crate in several sizes, because merging reaches every strategy
//! that is compiled in: the features say which, and the compiler takes the smallest that has all of
//! a schema.
//!
//! ```text
//! host --writes--> input buffer --\
//!                                  +--> export of a field --> function here --> Namespace, Log
//! host <--reads--- output buffer -/          (constants)
//! ```
//!
//! **Who owns what.** The module owns all of its memory; the host writes into what `input` gave
//! and copies out of what `output` shows, and frees nothing.
//!
//! **The invariant.** Every function gives a code; bytes from outside are refused by
//! a code and never trap.
//!
//! On any target but wasm32 the crate is empty, so that the workspace builds as a whole.

#![cfg_attr(target_arch = "wasm32", no_std)]

#[cfg(target_arch = "wasm32")]
extern crate alloc;

#[cfg(target_arch = "wasm32")]
mod abi;
#[cfg(all(target_arch = "wasm32", feature = "bounded"))]
mod call;
#[cfg(target_arch = "wasm32")]
mod code;
#[cfg(all(target_arch = "wasm32", feature = "collections"))]
mod collections;
#[cfg(all(target_arch = "wasm32", feature = "evolution"))]
mod evolution;
#[cfg(target_arch = "wasm32")]
mod field;
#[cfg(target_arch = "wasm32")]
mod memory;
#[cfg(all(target_arch = "wasm32", feature = "bounded"))]
mod rights;
#[cfg(target_arch = "wasm32")]
mod session;
#[cfg(all(target_arch = "wasm32", feature = "composite"))]
mod types;
#[cfg(all(target_arch = "wasm32", feature = "composite"))]
mod values;

/// Without a message: printing one would cost more than the rest of a small module's allocator.
#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
