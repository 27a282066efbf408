//! Logging. Fields have the same names in all lines:
//!
//! | field | meaning |
//! |---|---|
//! | `event` | the event; for rooms by the reference's event names (protocol section 5) |
//! | `room` | the room's name |
//! | `meeting_id` | the meeting's id |
//! | `connection_id` | the `_pk` of a member, by the reference's name |
//! | `socket` | the number of a socket |
//! | `reason` | the reason of an end |
//! | `error` | a source error, only for the log; clients receive constant messages |
//!
//! Cookies, tokens, keys, message contents and query strings are never logged.
//!
//! All output to standard error goes through one bounded queue to a separate thread, which alone waits for the
//! reader. Otherwise a closed pipe, a full disk or a stalled reader would block the logging thread.

mod lines;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use tracing::{Level, enabled, error, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};
use crate::metrics::LOG_LINES_DROPPED;
use lines::Lines;

/// Timeout of writing the last lines at the end of the process.
const FLUSH: Duration = Duration::from_secs(1);

/// The queue of this process's lines to standard error.
static LINES: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::new(Log::default().queue_bytes, LOG_LINES_DROPPED.clone());
    let writer = lines.clone();
    let tell =
        |lines| warn!(event = "logLinesDropped", lines, "lines were dropped: the log was not read in time");
    // Without the thread nothing is logged, and the service continues.
    let _ = thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_to(io::stderr(), tell));
    lines
});

/// Sets up logging to standard error as configured; panics are logged as well.
///
/// # Errors
/// [`CannotLog`] if the filter is malformed, or logging was already set up.
pub fn init(log: &Log) -> Result<(), CannotLog> {
    let filter = filter(&log.filter)?;
    LINES.set_max_bytes(log.queue_bytes);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LINES.clone());
    // The library writes its errors directly to standard error, and panics or blocks if nobody reads it.
    let lines = lines.log_internal_errors(false);
    let harmless = filter_fn(|line| is_harmless(line.target(), *line.level()));
    match log.format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).finish().with(harmless).try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().with(harmless).try_init()?,
    }
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Parses the configured filter, on top of one that limits the media libraries to errors: they warn of each
/// unknown line of an offer, so network input could flood the log.
fn filter(configured: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("str0m=error,is=error,{configured}"))
}

/// True if a library's line contains no secret: the ICE library logs passwords from `debug` on, with which a
/// participant's media can be hijacked.
fn is_harmless(target: &str, level: Level) -> bool {
    level <= Level::INFO || !(target == "is" || target.starts_with("is::"))
}

/// Queues a line for standard error without waiting for its reader; call [`flush`] before the end of the process.
///
/// Unlike `eprintln!` it neither panics nor blocks.
pub fn complain(text: impl Display) {
    LINES.push(format!("{text}\n").as_bytes());
}

/// Waits until all queued lines are written, for at most a second.
pub fn flush() {
    LINES.flush(FLUSH);
}

/// Logs and flushes the error, if any, and returns the exit code, which is the error's.
pub fn exit_code(
    done: Result<(), Box<dyn Error>>,
    code: impl FnOnce(&(dyn Error + 'static)) -> u8,
) -> ExitCode {
    if let Err(error) = &done {
        complain(format_args!("satsuma: {error}"));
    }
    flush();
    done.map_or_else(|error| code(&*error).into(), |()| ExitCode::SUCCESS)
}

/// Writes to standard output without waiting for its reader, which may be gone or stalled.
pub fn print(text: String) {
    let print = move || drop(io::stdout().write_all(text.as_bytes()));
    // If the reader stalls, the thread ends with the process.
    let _ = thread::Builder::new().name("print".to_owned()).spawn(print);
}

/// Logs a panic, replacing the standard library's hook, which waits for the reader of standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let current = thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    if enabled!(Level::ERROR) {
        error!(event = "panic", thread, location, backtrace, "{message}");
    } else {
        // A panic is reported even if the filter disables errors.
        complain(format_args!("thread {thread} panicked at {location}: {message}"));
    }
}

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum CannotLog {
    /// The filter is malformed.
    #[error("log.filter: {0}")]
    Filter(#[from] ParseError),
    /// Logging was already set up.
    #[error(transparent)]
    Taken(#[from] TryInitError),
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Returns the library lines that a subscriber with this filter logs.
    fn written(configured: &str) -> String {
        #[derive(Clone, Default)]
        struct Written(Arc<Mutex<Vec<u8>>>);
        impl Write for Written {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Written::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(configured).unwrap())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "str0m::sdp", "sdp warning");
            tracing::error!(target: "is::agent", "ice error");
            tracing::warn!(target: "is::agent", "ice warning");
            tracing::warn!(target: "satsuma::server", "our warning");
        });
        let lines = lines.0.lock().unwrap().clone();
        ["sdp warning", "ice warning", "ice error", "our warning"]
            .into_iter()
            .filter(|line| String::from_utf8_lossy(&lines).contains(line))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// An offer of three megabytes caused four megabytes of warnings.
    #[test]
    fn library_warnings_from_network_input_are_not_logged() {
        for filter in ["info", "trace", "info,satsuma=debug"] {
            assert_eq!(written(filter), "ice error, our warning", "{filter}");
        }
        assert_eq!(written("info,str0m=warn"), "sdp warning, ice error, our warning");
        assert_eq!(written("off,is=debug"), "ice warning, ice error");
        assert!(filter("info,=").is_err());
    }
}
