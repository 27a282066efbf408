//! The wire: what clients and this server say to each other over a room's socket, nothing else.
//!
//! Source: protocol sections 1 to 4 (`docs/protocol.md`).

pub mod ai;
pub mod client;
pub mod close;
pub mod deflate;
pub mod server;
pub mod user;
