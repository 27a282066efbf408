//! The WebSocket layer: from an HTTP request to a membership, and from a membership to frames.
//!
//! [`upgrade`] does all checks before the upgrade, [`extension`] negotiates compression;
//! [`refusals`] are stored for pages; [`connection`] is the task of one socket; [`socket`] reads
//! and writes frames. No other module depends on the WebSocket library.

pub mod admission;
mod boundary;
pub mod connection;
pub mod extension;
mod phase;
pub mod refusals;
pub mod socket;
mod throttle;
pub mod upgrade;
