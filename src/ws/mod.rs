//! The WebSocket edge: from an HTTP request to a seat, and from a seat to frames.
//!
//! [`upgrade`] decides before the upgrade, [`extension`] whether messages are compressed; [`refusals`]
//! are remembered for pages; [`connection`] is the task of one socket; [`socket`] knows frames. No other room of the house knows the WebSocket library.

pub mod admission;
mod boundary;
pub mod connection;
pub mod extension;
mod phase;
pub mod refusals;
pub mod socket;
mod throttle;
pub mod upgrade;
