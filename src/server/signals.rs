//! The signals that stop the server.

use std::pin::pin;
use std::time::Duration;
use std::{fs, io, process};

use futures_util::{Stream, StreamExt, stream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::telemetry;

/// Signals within this time are one request to stop: a terminal and a wrapper (npm, `timeout`, a process
/// manager) both pass one Ctrl-C on.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// The signals that ask the server to stop.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` if the process ignores SIGHUP to outlive its terminal, as under `nohup`.
    hangup: Option<Signal>,
}

impl Signals {
    /// Takes the signals over from the system, which would end the process.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new() -> io::Result<Self> {
        let signals = Self {
            // Checked first: once handlers are installed, no signal is ignored.
            hangup: if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) },
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        // Other programs rotate their logs or reload at these, which people try: they would end the process
        // without a drain. What takes a signal over stays, though nobody listens.
        drop([signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?]);
        Ok(signals)
    }

    /// Cancels `stopping` at the first signal; a signal at least a second later ends the process.
    pub(super) async fn watch(self, stopping: CancellationToken) {
        let signals = stream::unfold(self, async |mut signals| {
            signals.next().await;
            Some(((), signals))
        });
        until_told_again(signals, &stopping).await;
        error!("a second signal ends the process; what was not written is lost");
        telemetry::flush();
        process::exit(1);
    }

    async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Cancels `stopping` at the first signal, and waits for one that is no part of the same request.
async fn until_told_again(signals: impl Stream<Item = ()>, stopping: &CancellationToken) {
    let mut signals = pin!(signals);
    signals.next().await;
    let first = now();
    info!("a signal stops the server; one that comes a second later ends it at once");
    stopping.cancel();
    while signals.next().await.is_some() && now() - first < ONE_REQUEST {}
}

/// True if the process was started with SIGHUP ignored; known only on Linux.
fn ignores_hangup() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| is_hangup_ignored(&status))
}

/// Reads the mask of ignored signals (proc(5), `SigIgn`), in which SIGHUP is the lowest bit.
fn is_hangup_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[expect(clippy::disallowed_methods, reason = "a shell: it tells signals apart by their time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn signals_within_a_second_are_one_request() {
        let stopping = CancellationToken::new();
        // The last one is a second after the first.
        let pauses = [5000, 0, 999, 1].map(Duration::from_millis);
        let signals = stream::iter(pauses).then(sleep);
        let mut told_again = pin!(until_told_again(signals, &stopping));
        let not_yet = Duration::from_millis(5999);
        assert!(timeout(not_yet, &mut told_again).await.is_err());
        assert!(stopping.is_cancelled());
        timeout(Duration::from_millis(1), told_again).await.unwrap();
    }

    #[test]
    fn ignored_hangup_is_read_from_the_mask() {
        assert!(is_hangup_ignored("Name:\tsatsuma\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"));
        assert!(!is_hangup_ignored("SigIgn:\t0000000000001000\n"));
        assert!(!is_hangup_ignored("SigCgt:\t0000000000000001\n"));
    }
}
