//! Running a server as a process: start, banner, signals, shutdown.

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::banner::{Announced, announcement};
use super::signals::Signals;
use super::{RunError, Server, own};
use crate::config::{Config, SettingOrigins};
use crate::telemetry::print;

/// Starts a server, prints the banner, and runs until SIGTERM, SIGINT or SIGHUP. A further signal ends the
/// process at once, unless it comes within a second.
///
/// # Errors
/// [`RunError`] if the start failed or the shutdown was incomplete.
pub async fn run(config: Config, origins: SettingOrigins) -> Result<(), RunError> {
    let stop = CancellationToken::new();
    // Before the start: the first process of a container ignores signals without a handler.
    let signals = Signals::new().inspect_err(|error| warn!(%error, "signals cannot be received"));
    let _watch = signals.map(|signals| own(signals.watch(stop.clone())));
    let server = tokio::select! {
        started = Server::start_shown(config, origins) => started?,
        () = stop.cancelled() => {
            info!("stopped before the start; nobody was let in");
            return Ok(());
        }
    };
    print(announcement(&Announced {
        config: &server.config,
        addresses: server.addresses,
        data: server.data_dir.path(),
        kept_rooms: server.kept_rooms,
        media: &server.state.proxy.upstream,
        tls: server.tls.as_ref(),
    }));
    let stopping = server.stopping.clone();
    let _pass_on = own(async move {
        stop.cancelled().await;
        stopping.cancel();
    });
    Ok(server.join().await?)
}
