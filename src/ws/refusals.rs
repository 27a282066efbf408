//! Last refusals of upgrades, for pages: a browser does not show a page the answer to a refused upgrade.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::future::Cache;

use crate::http::error::ApiError;
use crate::id::UserId;

/// Maximum number of stored refusals; an unknown client that fills this costs others only an explanation.
const MAX_REFUSALS: u64 = 4096;

/// Lifetime of a refusal. A page asks within seconds; an older refusal does not concern its newest attempt.
const LIFETIME: Duration = Duration::from_secs(60);

/// The last refusal of each `_pk`, and a flag that is set once any request lost its upgrade in a proxy.
#[derive(Debug)]
pub struct Refusals {
    last: Cache<UserId, ApiError>,
    lost_upgrade: AtomicBool,
}

impl Refusals {
    /// An empty store.
    pub fn new() -> Self {
        let last = Cache::builder().max_capacity(MAX_REFUSALS).time_to_live(LIFETIME).build();
        Self { last, lost_upgrade: AtomicBool::new(false) }
    }

    /// Stores a refusal.
    pub async fn remember(&self, user: UserId, refusal: ApiError) {
        self.last.insert(user, refusal).await;
    }

    /// The last refusal of `user`, within a minute.
    pub async fn last(&self, user: &UserId) -> Option<ApiError> {
        self.last.get(user).await
    }

    /// True for the first upgrade that a proxy lost: clients retry again and again, and a log line
    /// for each would bury the others.
    pub fn is_first_lost_upgrade(&self) -> bool {
        !self.lost_upgrade.swap(true, Ordering::Relaxed)
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self::new()
    }
}
