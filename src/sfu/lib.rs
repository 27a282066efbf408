//! An SFU with Cloudflare's Calls API, as a library.
//!
//! [`start`] binds the media port and starts the media thread. The embedder mounts the [`api`] in its own HTTP server
//! and passes each call to [`SfuHandle::serve`]; media go past the embedder, between browsers and the media port.
//!
//! Pure core, thin I/O shells, one owner for every piece of state: an [`engine::Engine`] owns all sessions and knows
//! neither sockets nor the clock; one thread owns the engine, the sockets and the clock; [`SfuHandle`] is the
//! interface for everybody else. Who brings sockets of their own can run the engine alone.
//!
//! ```no_run
//! # async fn embed() -> Result<(), Box<dyn std::error::Error>> {
//! use satsuma_sfu::api::{ApiRequest, CallTarget, Caller, PersonId};
//! use satsuma_sfu::{IceSecret, SfuMetrics, SfuSettings};
//!
//! let settings = SfuSettings {
//!     advertise: vec!["203.0.113.7".parse()?],
//!     ..SfuSettings::new(IceSecret::new(b"at least 32 random bytes, the same across restarts"))
//! };
//! let (sfu, thread) = satsuma_sfu::start(settings, SfuMetrics::default()).await?;
//!
//! // In the handler of `/calls/{*path}`:
//! let target = CallTarget::parse(&http::Method::POST, "sessions/new").ok_or("no such call")?;
//! let caller = Caller::Person(PersonId::new("ada@example.org"));
//! let request = ApiRequest { target, query: None, body: bytes::Bytes::new(), caller, network: None };
//! let (status, json) = sfu.serve(request).await;
//!
//! // At the end:
//! sfu.end_all().await?;
//! thread.join().await?;
//! # Ok(())
//! # }
//! ```

pub mod access;
pub mod api;
mod clock;
mod counters;
mod description;
pub mod engine;
mod error;
mod estimate;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod id;
mod keyframe;
mod layers;
mod measures;
mod metrics;
mod net;
pub mod network;
mod reading;
pub mod request;
mod settings;
mod thread;
mod wire;

pub use engine::IceSecret;
pub use error::SfuError;
pub use handle::{SfuHandle, start};
pub use metrics::SfuMetrics;
pub use net::addresses::{Advertised, Reach};
pub use net::bind::{BUFFER_BYTES, Buffers, Transport};
pub use settings::{HIDDEN_INTERFACES, InvalidMediaAddress, MediaAddress, SfuLimits, SfuSettings, TcpLimits};
pub use thread::{Panicked, SfuThread};

#[cfg(doctest)]
#[doc = include_str!("README.md")]
struct Readme;
