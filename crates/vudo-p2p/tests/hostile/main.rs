//! Peers that mean harm, each in a file of its own.
//!
//! They reach a node over a WebSocket that they write byte by byte, most of them with the ticket's
//! secret: somebody who was trusted and should not have been. Each must be survived without harm to
//! others, in bounded memory, and with a reason in the log. What takes a peer minutes is shown to
//! the session alone, in virtual time.

mod attacker;
mod capability_thief;
mod corrupter;
mod false_giver;
mod flooder;
mod forger;
mod forker;
mod gap_maker;
mod omitter;
mod oversized_frames;
mod presence_flooder;
mod proof_forger;
mod range_flooder;
mod replayer;
mod revoked_writer;
mod schema_liar;
mod slow_reader;
mod state_liar;
mod vector_liar;
