//! The wire formats of rooms' sockets, in both directions, and nothing else: Orange's, and Phoenix's around it.
//!
//! Source: protocol sections 1 to 4 (`docs/protocol.md`).

pub mod activity;
pub mod ai;
pub mod client;
pub mod close;
pub mod deflate;
pub mod emoji;
pub mod error_code;
pub mod moderation;
pub mod phoenix;
pub mod server;
pub mod user;
pub mod watch;
