//! The media API (Cloudflare Calls): its paths as data, the seam to whoever serves it, and the
//! proxy through which clients reach it.

pub mod api;
pub mod call;
pub mod call_limits;
pub mod circuit;
pub mod failure;
pub mod proxy;
pub mod recovery;
pub mod remote;
pub mod retryable;
pub mod serve;
pub mod session_lock;
pub mod turn;
pub mod upstream;
