//! The client of a container's health check.

use std::time::Duration;

use crate::config::Config;
use crate::operate::local_url;

/// Requests `/healthz` of the server with this configuration, for a container's health check.
///
/// # Errors
/// A message with the URL and the error.
pub async fn healthcheck(config: &Config) -> Result<(), String> {
    let url = format!("{}/healthz", local_url(config));
    let answer = async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build()?;
        client.get(&url).send().await?.error_for_status()
    };
    answer.await.map(|_| ()).map_err(|error| format!("{url}: {error}"))
}
