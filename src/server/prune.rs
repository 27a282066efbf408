//! Regular pruning of what is kept by key.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::own;
use super::router::AppState;
use crate::assistant::AssistantHandle;

/// Interval of pruning idle entries.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Prunes idle entries until the handle is dropped.
pub(super) fn prune(state: AppState, assistant: Option<AssistantHandle>) -> AbortOnDropHandle<()> {
    own(async move {
        let mut ticks = interval(PRUNE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            state.sockets.registry.prune();
            state.proxy.prune();
            state.rooms.prune();
            if let Some(assistant) = &assistant {
                assistant.prune();
            }
            if let Some(api) = &state.media_api {
                api.prune();
            }
            state.reports.report_quota.prune();
            state.reports.count_quota.prune();
            state.events.acting.prune();
            state.http.identities.guesses().prune();
            if let Some(login) = &state.login {
                login.prune();
            }
            if let Some(durable) = &state.durable {
                durable.prune();
            }
        }
    })
}
