//! Durable objects: named values with one order of calls each, reached over HTTP and WebSockets.
//!
//! [`method`] is the seam between an object and the code of its methods: a call goes in with the object's values, and
//! everything that it does comes out as one value, to be applied as one step or not at all. [`methods`] finds the code
//! of a method.

pub mod actor;
pub mod address;
pub mod alarm;
pub mod api;
pub mod builtin;
pub mod callback;
pub mod channel;
pub mod cluster;
pub mod command;
pub mod error;
pub mod feed;
pub mod intake;
pub mod keys;
pub mod memory;
pub mod method;
pub mod methods;
pub mod object;
pub mod rates;
pub mod registry;
pub mod script;
pub mod session;
pub mod token;
pub mod totals;

#[cfg(test)]
mod tests;
