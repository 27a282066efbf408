//! Logging. The fields that lines carry, each by one name everywhere:
//!
//! | field | what it is |
//! |---|---|
//! | `event` | what happened; for rooms by the reference's event names (protocol section 5) |
//! | `room` | the room's name |
//! | `meeting_id` | the meeting's id |
//! | `connection_id` | the `_pk` of a member, which the reference calls so |
//! | `socket` | our own number of a socket |
//! | `reason` | why something ended |
//! | `error` | a source error; it is for the log only, clients read constant sentences |
//!
//! Cookies, tokens, keys, message contents and query strings are never logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// Sends the lines of this process to its standard error, as the configuration asks.
///
/// # Errors
/// [`CannotLog`] if the filter is malformed, or somebody set up logging before.
pub fn init(log: &Log) -> Result<(), CannotLog> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum CannotLog {
    /// The filter is malformed.
    #[error("log.filter: {0}")]
    Filter(#[from] ParseError),
    /// Somebody set up logging before.
    #[error(transparent)]
    Taken(#[from] TryInitError),
}
