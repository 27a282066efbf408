//! The media API (Cloudflare Calls): its operations as data, the interface to its backends, and the
//! proxy for clients.

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

pub use crate::sfu::api;
