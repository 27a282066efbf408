//! The embedded media server: it speaks the Calls API, and forwards what its peers send.
//!
//! *Pure core, thin shells, one owner*, here too: an [`engine::Engine`] owns every session and knows
//! neither a socket nor the clock; one thread ([`thread`]) owns the engine, the socket and the time;
//! [`handle`] is how the rest of the house asks for something.

pub mod clock;
pub mod counters;
pub mod description;
pub mod engine;
pub mod error;
pub mod estimate;
pub mod forward;
pub mod handle;
pub mod keyframe;
pub mod layers;
pub mod measures;
pub mod net;
pub mod reading;
pub mod request;
pub mod thread;
pub mod wire;
