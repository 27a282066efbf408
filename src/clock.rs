//! The clock. Shells read it here and pass the time to pure code as an argument; `clippy.toml` forbids any
//! other access.
#![expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]

use std::time::SystemTime;

use tokio::time::Instant;

/// Returns the monotonic time, which tests can pause.
pub fn now() -> Instant {
    Instant::now()
}

/// Returns the time of day, for stored and displayed times, cookies and tokens.
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}
