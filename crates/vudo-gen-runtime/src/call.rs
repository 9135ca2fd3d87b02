//! What the exports of bounded counters, sets and maps begin with.

use alloc::vec::Vec;

use vudo_crdt::GenIndex;

use crate::abi::{extras_at, run_with_key, split};
use crate::code::Outcome;
use crate::field::Field;
use crate::session::Session;

/// What a call says about a field: a set, a map or a counter within bounds.
pub(crate) struct Call<'c> {
    #[cfg_attr(not(feature = "collections"), allow(dead_code))]
    pub(crate) gen_index: GenIndex,
    pub(crate) field: Field<'c>,
    /// The key of the document.
    pub(crate) key: &'c [u8],
    /// What follows the key.
    pub(crate) rest: &'c [u8],
}

impl<'c> Call<'c> {
    #[inline(never)]
    fn read(
        gen_index: GenIndex,
        field: u32,
        extras: usize,
        input: &'c [u8],
        key_length: usize,
    ) -> Call<'c> {
        // Whoever runs a call has looked that there is so much.
        let (key, rest) = split(input, key_length).unwrap_or_default();
        Call { gen_index, field: Field::with_extras(field, extras_at(extras)), key, rest }
    }
}

/// Runs what an export does with its call.
#[inline(always)]
pub(crate) fn run_call(
    gen_index: GenIndex,
    field: u32,
    extras: usize,
    key_length: usize,
    work: impl FnOnce(&Call<'_>, &mut Session, &mut Vec<u8>) -> Outcome,
) -> u32 {
    run_with_key(key_length, |session, input, output| {
        work(&Call::read(gen_index, field, extras, input, key_length), session, output)
    })
}
