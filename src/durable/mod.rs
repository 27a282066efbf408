//! Durable objects: named values with one order of calls each, reached over HTTP and WebSockets.
//!
//! [`method`] is the seam between an object and the code of its methods: a call goes in with the object's values, and
//! everything that it does comes out as one value, to be applied as one step or not at all. [`methods`] finds the code
//! of a method.

pub mod method;
pub mod methods;
