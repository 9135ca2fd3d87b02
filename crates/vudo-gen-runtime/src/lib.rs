//! The C-ABI face of vudo-crdt.
