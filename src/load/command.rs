//! `satsuma load`: a run with its progress, its report, and Ctrl-C.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::process::exit;

use tokio::signal::ctrl_c;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::options::Options;
use super::run::run;

/// The exit code of a program that a second Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Runs the test and prints what it found; `notify` shows lines about the run, which are not part of the report.
///
/// # Errors
/// The reason that there is nothing to print, or, after printing, a failure in the test.
pub fn main(
    options: &Options,
    notify: impl Fn(&dyn Display) + Copy + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    // One thread: more would share a clock, and nothing else, but take the server's cores.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut signals = JoinSet::new();
        signals.spawn(stop_by_signal(stop.clone(), notify));
        let report = run(options, stop, |progress| notify(&progress)).await?;
        let mut out = std::io::stdout().lock();
        if options.json {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            write!(out, "{report}")?;
        }
        Ok(report.verdict()?)
    })
}

/// Handles Ctrl-C: the first asks for the report, the second exits.
async fn stop_by_signal(stop: CancellationToken, notify: impl Fn(&dyn Display)) {
    // Without signals there is only the end of the run.
    let Ok(()) = ctrl_c().await else { return };
    notify(&"stopping; once more ends it without a report");
    stop.cancel();
    if ctrl_c().await.is_ok() {
        exit(INTERRUPTED);
    }
}
