//! The media API (Cloudflare Calls): its paths as data, the seam to whoever serves it, and the
//! proxy through which clients reach it.

pub mod api;
mod circuit;
mod lend;
pub mod upstream;
