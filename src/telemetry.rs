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
//!
//! Everything that is said on standard error goes through one bounded queue to a thread of its own, which
//! alone waits for the reader. Otherwise a reader that is gone, a full disk or a stalled pipe would stop
//! whoever has something to say.

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

/// Time for the last lines to be written at the end of the process.
const FLUSH: Duration = Duration::from_secs(1);

/// The lines of this process on their way to its standard error.
static LINES: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::new(Log::default().queue_bytes, LOG_LINES_DROPPED.clone());
    let writer = lines.clone();
    let tell =
        |lines| warn!(event = "logLinesDropped", lines, "lines were dropped: the log was not read in time");
    // Without the thread nothing is logged, and the service continues.
    let _ = thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_to(io::stderr(), tell));
    lines
});

/// Sends the lines of this process to its standard error, as the configuration asks; panics become lines, too.
///
/// # Errors
/// [`CannotLog`] if the filter is malformed, or somebody set up logging before.
pub fn init(log: &Log) -> Result<(), CannotLog> {
    let filter = filter(&log.filter)?;
    LINES.set_max_bytes(log.queue_bytes);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| LINES.clone());
    // Errors of the library go to standard error by themselves, and panic or wait where nobody reads it.
    let lines = lines.log_internal_errors(false);
    let harmless = filter_fn(|line| is_harmless(line.target(), *line.level()));
    match log.format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).finish().with(harmless).try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().with(harmless).try_init()?,
    }
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// The configured filter, over one that lets the media libraries tell of errors alone: they warn of each line of an
/// offer that they do not know, and whoever writes offers would write the log.
fn filter(configured: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("str0m=error,is=error,{configured}"))
}

/// True if a library's lines hold no secret: the ICE library logs passwords from `debug` on, and with them
/// a participant's media can be taken over.
fn is_harmless(target: &str, level: Level) -> bool {
    level <= Level::INFO || !(target == "is" || target.starts_with("is::"))
}

/// Says a line on standard error without waiting for its reader; [`flush`] before the end of the process.
///
/// Unlike `eprintln!` this neither panics nor blocks.
pub fn complain(text: impl Display) {
    LINES.push(format!("{text}\n").as_bytes());
}

/// Waits until what was said has been read, for at most a second.
pub fn flush() {
    LINES.flush(FLUSH);
}

/// Says what went wrong, has it written, and gives the exit code for it.
pub fn exit_code(done: Result<(), Box<dyn Error>>) -> ExitCode {
    if let Err(error) = &done {
        complain(format_args!("satsuma: {error}"));
    }
    flush();
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes to standard output without waiting for its reader, who may be gone or never read.
pub fn print(text: String) {
    let print = move || drop(io::stdout().write_all(text.as_bytes()));
    // The thread ends with the process where its reader stalls.
    let _ = thread::Builder::new().name("print".to_owned()).spawn(print);
}

/// Logs a panic, in place of the standard library's hook, which waits for the reader of standard error.
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
        // The filter excludes errors, but a panic must be reported anyway.
        complain(format_args!("thread {thread} panicked at {location}: {message}"));
    }
}

/// Reasons that logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CannotLog {
    /// The filter is malformed.
    #[error("log.filter: {0}")]
    Filter(#[from] ParseError),
    /// Logging is already set up.
    #[error(transparent)]
    Taken(#[from] TryInitError),
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Log lines that a subscriber with this filter writes for library events.
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

    /// An offer of three megabytes once caused four megabytes of warnings.
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
