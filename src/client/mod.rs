//! The unmodified stock Orange client: its build, its documents, and its data.
//!
//! It is a Remix application whose server is Orange itself. Protocol section 10 specifies its server; the
//! built-in page requests the same data.

pub mod data;
pub mod document;
pub mod loader;
pub mod manifest;
pub mod policy;
pub mod routes;
pub mod visit;
