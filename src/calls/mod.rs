//! The media API (Cloudflare Calls): its paths as data, the seam to whoever serves it, and the
//! proxy through which clients reach it.

pub mod api;
pub mod call;
pub mod circuit;
pub mod failure;
pub mod heal;
pub mod lend;
pub mod places;
pub mod proxy;
pub mod remote;
pub mod serve;
pub mod session_lock;
pub mod turn;
pub mod upstream;
