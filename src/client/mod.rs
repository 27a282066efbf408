//! The stock Orange client, unmodified: its build, its documents, and the data that it asks for.
//!
//! It is a Remix application whose server is Orange itself. Protocol section 10 says what a server
//! owes it; our own page asks for the same data.

pub mod data;
pub mod document;
pub mod loader;
pub mod manifest;
pub mod policy;
pub mod routes;
pub mod visit;
