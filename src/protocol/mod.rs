//! The wire format of a room's socket, in both directions, and nothing else.
//!
//! Source: protocol sections 1 to 4 (`docs/protocol.md`).

pub mod ai;
pub mod client;
pub mod close;
pub mod deflate;
pub mod server;
pub mod user;
