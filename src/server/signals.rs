//! Signals that stop the server.

use std::pin::pin;
use std::time::Duration;
use std::{fs, io, process};

use futures_util::{Stream, StreamExt, stream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::clock::now;
use crate::telemetry;

/// Time within which signals count as one request to stop: a terminal and a wrapper (npm, `timeout`, a process
/// manager) both forward one Ctrl-C.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// Handlers of the signals that request a shutdown.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` if the process was started to outlive its terminal, as by `nohup`.
    hangup: Option<Signal>,
}

impl Signals {
    /// Installs the handlers, replacing the default that ends the process.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn new() -> io::Result<Self> {
        let signals = Self {
            // Checked first: afterwards no signal is ignored.
            hangup: if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) },
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        // Other programs rotate logs or reload on these, so operators may send them: by default they would end
        // the process without a drain. The handlers remain installed after their streams are dropped.
        drop([signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?]);
        Ok(signals)
    }

    /// Cancels `stopping` at the first signal, and ends the process at one that comes a second later or more.
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

/// Cancels `stopping` at the first signal, and waits for one that does not belong to the same request.
async fn until_told_again(signals: impl Stream<Item = ()>, stopping: &CancellationToken) {
    let mut signals = pin!(signals);
    signals.next().await;
    let first = now();
    info!("a signal stops the server; one that comes a second later ends it at once");
    stopping.cancel();
    while signals.next().await.is_some() && now() - first < ONE_REQUEST {}
}

/// True if the process was started with SIGHUP ignored; only known on Linux.
fn ignores_hangup() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| is_hangup_ignored(&status))
}

/// Parses the mask of ignored signals (proc(5), `SigIgn`), in which SIGHUP is the lowest bit.
fn is_hangup_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
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
