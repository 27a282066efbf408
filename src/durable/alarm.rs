//! The task that calls the handlers of alarms, each at least once.
//!
//! Alarms are stored with their objects. The task reads the earliest of them, also those of before a restart.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};
use tracing::error;

use super::registry::ObjectRegistry;
use crate::clock::{now, wall_clock};
use crate::id::ObjectId;
use crate::store::objects::DueAlarm;

/// Handlers that run at a time.
const PARALLEL: usize = 32;

/// Maximum sleep: the wall clock, by which alarms are due, may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Pause between two looks at the store, in which many alarms can be set.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// Pause before an alarm is rung again that is still due, because the store fails.
const RETRY: Duration = Duration::from_secs(1);

/// Calls the handlers of alarms until the objects stop.
pub async fn ring_alarms(registry: ObjectRegistry) {
    let store = registry.deps().store.clone();
    let mut set = store.watch_alarms();
    let mut ringing = FuturesUnordered::new();
    let mut under_way: HashSet<ObjectId> = HashSet::new();
    // The last times of alarms that may still be due.
    let mut rung: HashMap<ObjectId, Instant> = HashMap::new();
    loop {
        set.mark_unchanged();
        let next = match store.next_alarms(2 * u32::try_from(PARALLEL).unwrap_or(u32::MAX)).await {
            Ok(alarms) => {
                rung.retain(|_, at| at.elapsed() < RETRY);
                let mut next = LONGEST_SLEEP;
                for DueAlarm { id, due } in alarms {
                    let left = Duration::from_millis(due).saturating_sub(since_1970());
                    if under_way.contains(&id) {
                        continue;
                    }
                    let is_again = rung.contains_key(&id);
                    if !left.is_zero() || is_again || under_way.len() >= PARALLEL {
                        next = next.min(if is_again { RETRY } else { left.max(SHORTEST_SLEEP) });
                        if !left.is_zero() {
                            break;
                        }
                        continue;
                    }
                    under_way.insert(id.clone());
                    let registry = registry.clone();
                    ringing.push(async move {
                        registry.ring(&id, due).await;
                        id
                    });
                }
                next
            }
            Err(error) => {
                error!(event = "alarmsUnreadable", %error, "it is tried again");
                RETRY
            }
        };
        tokio::select! {
            () = registry.stopping().cancelled() => break,
            Some(id) = ringing.next() => {
                under_way.remove(&id);
                rung.insert(id, now());
            }
            Ok(()) = set.changed() => sleep(SHORTEST_SLEEP).await,
            () = sleep(next) => {}
        }
    }
    while ringing.next().await.is_some() {}
}

fn since_1970() -> Duration {
    wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default()
}
