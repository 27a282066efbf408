//! The load tool.

pub mod deflate;
pub mod frames;
pub mod histogram;
pub mod schedule;
pub mod user;
pub mod watch;
