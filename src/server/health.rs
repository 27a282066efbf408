//! The client of a container's health check.

use std::time::Duration;

use crate::config::Config;

/// Requests `/healthz` of the server with this configuration, for a container's health check.
///
/// # Errors
/// A message with the URL and the error.
pub async fn healthcheck(config: &Config) -> Result<(), String> {
    let url = format!("{}/healthz", admin_url(config));
    let answer = async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build()?;
        client.get(&url).send().await?.error_for_status()
    };
    answer.await.map(|_| ()).map_err(|error| format!("{url}: {error}"))
}

/// The URL of the operators' listener on this machine, without a slash at its end.
pub(super) fn admin_url(config: &Config) -> String {
    let mut address = config.admin.listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("http://{address}")
}
