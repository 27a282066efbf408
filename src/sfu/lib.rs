//! The embedded media server: an SFU that speaks the Calls API.
//!
//! Pure core, thin I/O shells, one owner for every piece of state: an [`engine::Engine`] owns all sessions and knows
//! neither sockets nor the clock; one thread ([`thread`]) owns the engine, the sockets and the clock; [`handle`] is
//! the interface for the rest of the server.

pub mod api;
pub mod clock;
pub mod counters;
pub mod description;
pub mod engine;
pub mod error;
pub mod estimate;
pub mod forward;
pub mod handle;
pub mod id;
pub mod keyframe;
pub mod layers;
pub mod measures;
pub mod metrics;
pub mod net;
pub mod network;
pub mod reading;
pub mod request;
pub mod settings;
pub mod thread;
pub mod wire;
