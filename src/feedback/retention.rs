//! SHELL: once a day, what is too old or too much is removed.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tracing::error;

use crate::store::reports::Reports;

/// How often.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait after the store failed.
const AGAIN: Duration = Duration::from_secs(60 * 60);

/// Removes what is older than `retention`, and the oldest reports over `most_bytes`: now, and then
/// every day.
pub async fn keep_tidy(reports: Reports, retention: Duration, most_bytes: usize) {
    loop {
        let oldest = clock().checked_sub(retention).unwrap_or(SystemTime::UNIX_EPOCH);
        let pause = match reports.expire(oldest, most_bytes).await {
            Ok(()) => DAY,
            Err(error) => {
                error!(event = "reportsNotTidied", %error, "it is tried again in an hour");
                AGAIN
            }
        };
        sleep(pause).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the task is a shell")]
fn clock() -> SystemTime {
    SystemTime::now()
}
