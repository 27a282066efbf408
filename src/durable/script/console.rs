//! Lines of scripts in the server's log, at a bounded rate.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::clock::now;

/// Maximum bytes of a line.
const MAX_LINE_BYTES: usize = 1024;

/// Maximum lines of all scripts in a [`WINDOW`].
const MAX_LINES: u32 = 200;

const WINDOW: Duration = Duration::from_secs(1);

/// The level of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// `console.debug` and `console.trace`.
    Debug,
    /// `console.log` and `console.info`.
    Info,
    /// `console.warn` and `console.error`: an error of a script is none of the server.
    Warn,
}

impl Level {
    pub(super) fn parse(name: &str) -> Self {
        match name {
            "debug" => Self::Debug,
            "warn" | "error" => Self::Warn,
            _ => Self::Info,
        }
    }

    /// True if the log's filter lets lines of this level pass.
    pub(super) fn is_enabled(self) -> bool {
        match self {
            Self::Debug => tracing::enabled!(tracing::Level::DEBUG),
            Self::Info => tracing::enabled!(tracing::Level::INFO),
            Self::Warn => tracing::enabled!(tracing::Level::WARN),
        }
    }
}

/// The log of all scripts.
#[derive(Debug)]
pub(super) struct Console {
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    dropped: u64,
}

impl Console {
    pub(super) fn new() -> Self {
        Self { window: Mutex::new(Window { began: now(), lines: 0, dropped: 0 }) }
    }

    /// Logs a line of a script.
    pub(super) fn log(&self, object: &str, level: Level, text: &str) {
        if !self.admits() {
            return;
        }
        // Quoted, so that a text cannot pass for a line of the server.
        let text = limited(text);
        match level {
            Level::Debug => debug!(event = "scriptConsole", object, text = ?text),
            Level::Info => info!(event = "scriptConsole", object, text = ?text),
            Level::Warn => warn!(event = "scriptConsole", object, text = ?text),
        }
    }

    /// Logs the exception of a failed method.
    pub(super) fn failed(&self, object: &str, stack: &str) {
        if tracing::enabled!(tracing::Level::INFO) && self.admits() {
            info!(event = "scriptMethodFailed", object, error = ?limited(stack));
        }
    }

    /// Counts a line; false if too many came before it.
    fn admits(&self) -> bool {
        let now = now();
        // A thread that panicked with the lock leaves no inconsistent state.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.began) >= WINDOW {
            let dropped = window.dropped;
            *window = Window { began: now, lines: 0, dropped: 0 };
            if dropped > 0 {
                info!(
                    event = "scriptLinesDropped",
                    dropped, "scripts log more than {MAX_LINES} lines a second"
                );
            }
        }
        window.lines += 1;
        let admits = window.lines <= MAX_LINES;
        window.dropped += u64::from(!admits);
        admits
    }
}

fn limited(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LINE_BYTES)]
}
